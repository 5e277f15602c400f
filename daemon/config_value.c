/* From text to value, one row per type: how to read it, what to free, how to compare.
 *
 * Invariant: a parser that fails has changed nothing. Reasons are clauses that tell what to write
 * instead; a value that could be a secret by mistake is never quoted.
 */
#include "config_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define ID_CHARACTERS CONFIG_ALNUM "._:#/@+-"

enum value_kind {
	VALUE_INT,
	VALUE_CHOICE,
	VALUE_BOOL,
	VALUE_TEXT,
	VALUE_GLOBS,
	VALUE_TARGETS,
	VALUE_LISTEN,
	VALUE_LISTENERS,
	VALUE_NETWORKS,
	VALUE_SECRET,
};

typedef int (*value_parse_fn)(const struct config_key *key, void *target, const char *text,
			      char *why);

static void *value_field(const struct config_key *key, void *target)
{
	return (char *)target + key->offset;
}

static int PRINTF_LIKE(2, 3) value_refuse(char *why, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(why, CONFIG_WHY_MAX, fmt, args);
	va_end(args);
	return -EINVAL;
}

static int value_refuse_text(char *why, const char *text, const char *what)
{
	char quoted[CONFIG_QUOTE_MAX];
	return value_refuse(why, "%s %s", config_report_quote(quoted, text), what);
}

static int value_set_text(const struct config_key *key, void *target, const char *text)
{
	char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	*(char **)value_field(key, target) = copy;
	return 0;
}

bool config_value_is_made_of(const char *text, const char *allowed, size_t max)
{
	size_t len = strlen(text);
	return len >= 1 && len <= max && strspn(text, allowed) == len;
}

/* A `/../` or `/./` in what is split at slashes, at either end too. */
static bool value_has_dot_segment(const char *text, bool single_too)
{
	for (const char *s = text;; s++) {
		size_t len = strcspn(s, "/");
		if ((len == 2 && s[0] == '.' && s[1] == '.') ||
		    (single_too && len == 1 && s[0] == '.'))
			return true;
		s += len;
		if (*s == '\0')
			return false;
	}
}

bool config_value_is_id(const char *text)
{
	return config_value_is_made_of(text, ID_CHARACTERS, CONFIG_ID_MAX) &&
	       !value_has_dot_segment(text, false);
}

static int value_parse_int(const struct config_key *key, void *target, const char *text, char *why)
{
	return config_number_parse(key, value_field(key, target), text, why);
}

/* ---- choices ---- */

static int value_parse_yes_no(const struct config_key *key, void *target, const char *text,
			      char *why)
{
	bool yes = strcmp(text, "yes") == 0;
	if (!yes && strcmp(text, "no") != 0)
		return value_refuse_text(why, text, "is neither yes nor no");
	*(bool *)value_field(key, target) = yes;
	return 0;
}

static int value_parse_scheme(const struct config_key *key, void *target, const char *text,
			      char *why)
{
	enum signature_scheme scheme;
	if (!signature_scheme_from_name(text, &scheme))
		return value_refuse_text(
			why, text,
			"is no signature scheme; write e2b, hmac-sha256 or standard-webhooks");
	*(enum signature_scheme *)value_field(key, target) = scheme;
	return 0;
}

static int value_parse_log_level(const struct config_key *key, void *target, const char *text,
				 char *why)
{
	enum log_level level;
	if (!log_level_from_name(text, &level))
		return value_refuse_text(
			why, text, "is no level; write error, warning, notice, info or debug");
	*(enum log_level *)value_field(key, target) = level;
	return 0;
}

static int value_parse_log_format(const struct config_key *key, void *target, const char *text,
				  char *why)
{
	bool json = strcmp(text, "json") == 0;
	if (!json && strcmp(text, "text") != 0)
		return value_refuse_text(why, text, "is neither text nor json");
	*(enum log_format *)value_field(key, target) = json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT;
	return 0;
}

static int value_parse_on_corrupt(const struct config_key *key, void *target, const char *text,
				  char *why)
{
	bool rotate = strcmp(text, "rotate") == 0;
	if (!rotate && strcmp(text, "exit") != 0)
		return value_refuse_text(why, text, "is neither rotate nor exit");
	*(bool *)value_field(key, target) = rotate;
	return 0;
}

/* ---- text ---- */

static bool value_is_file(const char *text)
{
	size_t len = strlen(text);
	return text[0] == '/' && text[len - 1] != '/' && len < 4096;
}

/* Not quoted: somebody may have written the secret where its file belongs. */
#define FILE_ADVICE "must be the absolute path of a file, such as /etc/e2b-hookd/"

static int value_parse_file(const struct config_key *key, void *target, const char *text, char *why)
{
	if (!value_is_file(text))
		return value_refuse(why, FILE_ADVICE "admin.token");
	return value_set_text(key, target, text);
}

#define STORE_PATH_MAX 1024

static int value_parse_store_path(const struct config_key *key, void *target, const char *text,
				  char *why)
{
	if (!value_is_file(text))
		return value_refuse_text(
			why, text,
			"is not the absolute path of a file, such as /var/lib/e2b-hookd/events.db");
	if (strlen(text) > STORE_PATH_MAX)
		return value_refuse(why, "longer than %d bytes", STORE_PATH_MAX);
	return value_set_text(key, target, text);
}

static int value_parse_http_path(const struct config_key *key, void *target, const char *text,
				 char *why)
{
	if (text[0] != '/')
		return value_refuse_text(why, text,
					 "does not begin with /; write for example /webhooks/e2b");
	if (strpbrk(text, "?#"))
		return value_refuse_text(why, text, "holds a query or fragment; leave it out");
	if (!config_value_is_made_of(text, CONFIG_ALNUM "-._~!$&'()*+,;=:@/", 255))
		return value_refuse_text(why, text,
					 "holds a character that does not stand for itself in a "
					 "path, or is longer than 255 bytes");
	if (strstr(text, "//") || value_has_dot_segment(text, true))
		return value_refuse_text(why, text, "holds an empty, . or .. segment");
	if (strcmp(text, "/healthz") == 0)
		return value_refuse(why, "/healthz is taken by the health check");
	return value_set_text(key, target, text);
}

/* RFC 9110 5.6.2: a token; kept in lower case, as names of headers have none. */
static int value_parse_header(const struct config_key *key, void *target, const char *text,
			      char *why)
{
	if (!config_value_is_made_of(text, CONFIG_ALNUM "!#$%&'*+-.^_`|~", 64))
		return value_refuse_text(
			why, text, "is no header name; write for example x-hub-signature-256");
	int rc = value_set_text(key, target, text);
	if (rc == 0)
		for (char *s = *(char **)value_field(key, target); *s; s++)
			*s = (char)tolower((unsigned char)*s);
	return rc;
}

static int value_parse_group(const struct config_key *key, void *target, const char *text,
			     char *why)
{
	if (!config_value_is_made_of(text, CONFIG_ALNUM "_.-", 64) || text[0] == '-')
		return value_refuse_text(why, text, "is no group name");
	return value_set_text(key, target, text);
}

static int value_parse_id(const struct config_key *key, void *target, const char *text, char *why)
{
	if (!config_value_is_id(text))
		return value_refuse_text(why, text,
					 "is no name that an event can carry: 1 to 128 of letters, "
					 "digits and ._:#/@+-, no .. between slashes");
	return value_set_text(key, target, text);
}

static int value_parse_globs(const struct config_key *key, void *target, const char *text,
			     char *why)
{
	struct glob_list list = { 0 };
	if (*text == '\0')
		return value_refuse(why, "needs at least one pattern; write * for all");
	int rc = glob_list_parse(&list, text);
	if (rc == -EINVAL)
		return value_refuse_text(why, text, "is no list of patterns, separated by commas");
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < list.n; i++)
		if (!config_value_is_made_of(list.patterns[i], ID_CHARACTERS "*?", CONFIG_ID_MAX)) {
			(void)value_refuse_text(
				why, list.patterns[i],
				"can match nothing: ids and types hold only letters, digits and "
				"._:#/@+-; patterns are separated by commas");
			glob_list_finish(&list);
			return -EINVAL;
		}
	*(struct glob_list *)value_field(key, target) = list;
	return 0;
}

/* ---- alerts ---- */

/* Never quoted: who has it can post. */
static int value_parse_url(const struct config_key *key, void *target, const char *text, char *why)
{
	bool is_http = strncasecmp(text, "http://", 7) == 0;
	const char *rest = text + (is_http ? 7 : 8);
	if ((!is_http && strncasecmp(text, "https://", 8) != 0) || *rest == '\0' || *rest == '/')
		return value_refuse(why, "must begin with https:// (or http://) and a host");
	for (const char *s = text; *s; s++)
		if (*s <= ' ' || *s > '~')
			return value_refuse(why, "holds a blank, or a character that is not ASCII");
	return value_set_text(key, target, text);
}

static int value_parse_notify_kind(const struct config_key *key, void *target, const char *text,
				   char *why)
{
	static const char *const names[] = {
		[NOTIFY_WEBHOOK] = "webhook",
		[NOTIFY_SLACK] = "slack",
		[NOTIFY_ALERTMANAGER] = "alertmanager",
		[NOTIFY_COMMAND] = "command",
	};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) != 0)
			continue;
		*(enum notify_kind *)value_field(key, target) = (enum notify_kind)i;
		return 0;
	}
	return value_refuse_text(why, text,
				 "is no kind; write webhook, slack, alertmanager or command");
}

#define ALERT_ON_FORM                                                                              \
	"execution_failed, sandbox_failed, failure_rate, runaway, budget, silence, rejected, "     \
	"quarantined, unknown_template"

static int value_parse_alert_on(const struct config_key *key, void *target, const char *text,
				char *why)
{
	if (!alert_rule_on_from_name(text, value_field(key, target)))
		return value_refuse_text(why, text, "is none of: " ALERT_ON_FORM);
	return 0;
}

static int value_parse_severity(const struct config_key *key, void *target, const char *text,
				char *why)
{
	if (!config_value_is_made_of(text, CONFIG_ALNUM "_-", 32))
		return value_refuse_text(why, text,
					 "is no severity; write for example warning or critical");
	return value_set_text(key, target, text);
}

/* The next item of a list, blanks around dropped; false at the end. */
static bool value_next_item(char **rest, char **item)
{
	*item = strsep(rest, ",");
	if (!*item)
		return false;
	*item += strspn(*item, " \t");
	for (char *end = *item + strlen(*item); end > *item && isblank(end[-1]); end--)
		end[-1] = '\0';
	return true;
}

static int value_parse_statuses(const struct config_key *key, void *target, const char *text,
				char *why)
{
	unsigned int *field = value_field(key, target), set = 0;
	CLEANUP_FREE char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	for (char *rest = copy, *item; value_next_item(&rest, &item);) {
		int i = EVENT_ERROR;
		while (i <= EVENT_STATUS_KILLED &&
		       strcmp(event_status_name((enum event_status)i), item) != 0)
			i++;
		if (i > EVENT_STATUS_KILLED)
			return value_refuse_text(why, item,
						 "is no status of a failed execution; write error, "
						 "timeout or killed");
		set |= 1u << i;
	}
	*field = set;
	return 0;
}

static int value_add_target(struct alert_rule *rule, const char *item, char *why)
{
	if (!config_value_is_made_of(item, CONFIG_ALNUM "_-", 64))
		return value_refuse_text(why, item, "is no name of a [notify NAME]");
	if (rule->n_notify == ALERT_NOTIFY_MAX)
		return value_refuse(why, "more than %d targets", ALERT_NOTIFY_MAX);
	for (size_t i = 0; i < rule->n_notify; i++)
		if (strcmp(rule->notify[i], item) == 0)
			return value_refuse_text(why, item, "is given twice; keep one");
	rule->notify[rule->n_notify] = strdup(item);
	return rule->notify[rule->n_notify++] ? 0 : -ENOMEM;
}

static void value_release_targets(struct alert_rule *rule)
{
	while (rule->n_notify > 0)
		free(rule->notify[--rule->n_notify]);
}

static int value_parse_targets(const struct config_key *key, void *target, const char *text,
			       char *why)
{
	struct config_alert *alert = target;
	CLEANUP_FREE char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	for (char *rest = copy, *item; value_next_item(&rest, &item);) {
		int rc = value_add_target(&alert->rule, item, why);
		if (rc < 0) {
			value_release_targets(&alert->rule);
			return rc;
		}
	}
	return 0;
}

/* ---- what fills more than one field ---- */

static int value_parse_listeners(const struct config_key *key, void *target, const char *text,
				 char *why)
{
	struct config_server *server = target;
	struct config_listen listen;

	if (server->n_listen == CONFIG_LISTEN_MAX)
		return value_refuse(why, "more than %d listeners", CONFIG_LISTEN_MAX);
	int rc = config_address_parse_listen(&listen, text, why);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < server->n_listen; i++)
		if (config_address_clashes(&server->listen[i], &listen)) {
			config_address_finish(&listen);
			return value_refuse_text(why, text, "is given twice; keep one");
		}
	server->listen[server->n_listen++] = listen;
	return 0;
}

static int value_parse_listen(const struct config_key *key, void *target, const char *text,
			      char *why)
{
	struct config_admin *admin = target;
	int rc = *text ? config_address_parse_listen(&admin->listen, text, why) : 0;
	if (rc == 0)
		admin->enabled = *text != '\0';
	return rc;
}

/* One item of trusted_proxies; `list` is what was read so far. */
static int value_add_network(struct config_server *list, const char *item, char *why)
{
	if (strcmp(item, "unix") == 0) {
		list->trust_unix = true;
		return 0;
	}
	if (list->n_trusted_proxies == CONFIG_PROXIES_MAX)
		return value_refuse(why, "more than %d networks", CONFIG_PROXIES_MAX);
	int rc = config_address_parse_network(&list->trusted_proxies[list->n_trusted_proxies], item,
					      why);
	list->n_trusted_proxies += rc == 0 ? 1 : 0;
	return rc;
}

static int value_parse_networks(const struct config_key *key, void *target, const char *text,
				char *why)
{
	struct config_server *server = target, list = { 0 };
	CLEANUP_FREE char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;

	for (char *rest = copy, *item; value_next_item(&rest, &item);) {
		int rc = value_add_network(&list, item, why);
		if (rc < 0)
			return rc;
	}
	memcpy(server->trusted_proxies, list.trusted_proxies, sizeof(list.trusted_proxies));
	server->n_trusted_proxies = list.n_trusted_proxies;
	server->trust_unix = list.trust_unix;
	return 0;
}

static bool value_is_credential(const char *text)
{
	return config_value_is_made_of(text, CONFIG_ALNUM "_.-", 64) && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static bool value_is_variable(const char *text)
{
	return config_value_is_made_of(text, CONFIG_ALNUM "_", 64) &&
	       !isdigit((unsigned char)text[0]);
}

static int value_parse_secret(const struct config_key *key, void *target, const char *text,
			      char *why)
{
	static const struct {
		enum config_secret_from from;
		bool (*is_valid)(const char *text);
		const char *advice;
	} ways[CONFIG_N_TYPES] = {
		[CONFIG_TYPE_SECRET_FILE] = { CONFIG_SECRET_FILE, value_is_file,
					      FILE_ADVICE "e2b.secret" },
		[CONFIG_TYPE_SECRET_CREDENTIAL] = { CONFIG_SECRET_CREDENTIAL, value_is_credential,
						    "must be the name of a systemd credential: "
						    "letters, digits and _.-" },
		[CONFIG_TYPE_SECRET_ENV] = { CONFIG_SECRET_ENV, value_is_variable,
					     "must be the name of an environment variable that "
					     "holds the path of a file" },
	};
	struct config_source *source = target;

	if (*text == '\0')
		return value_refuse(why, "is empty: refusing to start without a secret");
	assert(ways[key->type].is_valid);
	if (!ways[key->type].is_valid(text))
		return value_refuse(why, "%s", ways[key->type].advice);
	if (source->secret_from != CONFIG_SECRET_NONE)
		return value_refuse(
			why,
			"only one of secret_file, secret_credential and secret_env may be given");
	source->secret_name = strdup(text);
	if (!source->secret_name)
		return -ENOMEM;
	source->secret_from = ways[key->type].from;
	return 0;
}

/* ---- the rows ---- */

static const struct {
	enum value_kind kind;
	value_parse_fn parse;
	const char *form; /* for the reference */
} types[CONFIG_N_TYPES] = {
	[CONFIG_TYPE_COUNT] = { VALUE_INT, value_parse_int, "number" },
	[CONFIG_TYPE_SIZE] = { VALUE_INT, value_parse_int, "size" },
	[CONFIG_TYPE_DURATION] = { VALUE_INT, value_parse_int, "duration" },
	[CONFIG_TYPE_OCTAL] = { VALUE_INT, value_parse_int, "octal mode" },
	[CONFIG_TYPE_RATE] = { VALUE_INT, value_parse_int, "decimal" },
	[CONFIG_TYPE_DECIMAL] = { VALUE_INT, value_parse_int, "decimal" },
	[CONFIG_TYPE_YES_NO] = { VALUE_BOOL, value_parse_yes_no, "yes, no" },
	[CONFIG_TYPE_SCHEME] = { VALUE_CHOICE, value_parse_scheme,
				 "e2b, hmac-sha256, standard-webhooks" },
	[CONFIG_TYPE_LOG_LEVEL] = { VALUE_CHOICE, value_parse_log_level,
				    "error, warning, notice, info, debug" },
	[CONFIG_TYPE_LOG_FORMAT] = { VALUE_CHOICE, value_parse_log_format, "text, json" },
	[CONFIG_TYPE_ON_CORRUPT] = { VALUE_BOOL, value_parse_on_corrupt, "rotate, exit" },
	[CONFIG_TYPE_FILE] = { VALUE_TEXT, value_parse_file, "absolute path" },
	[CONFIG_TYPE_STORE_PATH] = { VALUE_TEXT, value_parse_store_path, "absolute path" },
	[CONFIG_TYPE_HTTP_PATH] = { VALUE_TEXT, value_parse_http_path, "HTTP path" },
	[CONFIG_TYPE_HEADER] = { VALUE_TEXT, value_parse_header, "header name" },
	[CONFIG_TYPE_GROUP] = { VALUE_TEXT, value_parse_group, "group name" },
	[CONFIG_TYPE_ID] = { VALUE_TEXT, value_parse_id, "template name" },
	[CONFIG_TYPE_GLOBS] = { VALUE_GLOBS, value_parse_globs, "patterns" },
	[CONFIG_TYPE_URL] = { VALUE_TEXT, value_parse_url, "URL" },
	[CONFIG_TYPE_NOTIFY_KIND] = { VALUE_CHOICE, value_parse_notify_kind,
				      "webhook, slack, alertmanager, command" },
	[CONFIG_TYPE_ALERT_ON] = { VALUE_CHOICE, value_parse_alert_on, ALERT_ON_FORM },
	[CONFIG_TYPE_SEVERITY] = { VALUE_TEXT, value_parse_severity, "word" },
	[CONFIG_TYPE_STATUSES] = { VALUE_CHOICE, value_parse_statuses,
				   "some of error, timeout, killed" },
	[CONFIG_TYPE_TARGETS] = { VALUE_TARGETS, value_parse_targets, "names" },
	[CONFIG_TYPE_LISTENERS] = { VALUE_LISTENERS, value_parse_listeners, "address" },
	[CONFIG_TYPE_LISTEN] = { VALUE_LISTEN, value_parse_listen, "address" },
	[CONFIG_TYPE_NETWORKS] = { VALUE_NETWORKS, value_parse_networks, "networks" },
	[CONFIG_TYPE_SECRET_FILE] = { VALUE_SECRET, value_parse_secret, "absolute path" },
	[CONFIG_TYPE_SECRET_CREDENTIAL] = { VALUE_SECRET, value_parse_secret, "credential name" },
	[CONFIG_TYPE_SECRET_ENV] = { VALUE_SECRET, value_parse_secret, "variable name" },
};

int config_value_parse(const struct config_key *key, void *target, const char *text,
		       char why[static CONFIG_WHY_MAX])
{
	enum value_kind kind = types[key->type].kind;
	bool may_be_empty = key->fallback && key->fallback[0] == '\0';

	if (*text == '\0' && may_be_empty) {
		config_value_unset(key, target);
		return 0;
	}
	if (*text == '\0' && kind != VALUE_LISTEN && kind != VALUE_SECRET && kind != VALUE_GLOBS)
		return value_refuse(why, "is empty");
	return types[key->type].parse(key, target, text, why);
}

void config_value_unset(const struct config_key *key, void *target)
{
	if (types[key->type].kind == VALUE_INT)
		*(int64_t *)value_field(key, target) = -1;
}

void config_value_release(const struct config_key *key, void *target)
{
	switch (types[key->type].kind) {
	case VALUE_INT:
	case VALUE_CHOICE:
	case VALUE_BOOL:
	case VALUE_NETWORKS:
		return;
	case VALUE_TEXT:
		free(*(char **)value_field(key, target));
		*(char **)value_field(key, target) = NULL;
		return;
	case VALUE_GLOBS:
		glob_list_finish(value_field(key, target));
		return;
	case VALUE_TARGETS:
		value_release_targets(&((struct config_alert *)target)->rule);
		return;
	case VALUE_LISTEN:
		config_address_finish(value_field(key, target));
		return;
	case VALUE_LISTENERS: {
		struct config_server *server = target;
		while (server->n_listen > 0)
			config_address_finish(&server->listen[--server->n_listen]);
		return;
	}
	case VALUE_SECRET: {
		struct config_source *source = target;
		free(source->secret_name);
		source->secret_name = NULL;
		return;
	}
	}
}

static bool value_same_listeners(const struct config_server *a, const struct config_server *b)
{
	if (a->n_listen != b->n_listen)
		return false;
	for (size_t i = 0; i < a->n_listen; i++)
		if (!config_address_same(&a->listen[i], &b->listen[i]))
			return false;
	return true;
}

static bool value_same_networks(const struct config_server *a, const struct config_server *b)
{
	return a->trust_unix == b->trust_unix && a->n_trusted_proxies == b->n_trusted_proxies &&
	       memcmp(a->trusted_proxies, b->trusted_proxies, sizeof(a->trusted_proxies)) == 0;
}

static bool value_same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool config_value_same(const struct config_key *key, const void *a, const void *b)
{
	const void *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;

	switch (types[key->type].kind) {
	case VALUE_INT:
		return *(const int64_t *)x == *(const int64_t *)y;
	case VALUE_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case VALUE_TEXT:
		return value_same_text(*(char *const *)x, *(char *const *)y);
	case VALUE_LISTEN:
		return config_address_same(x, y);
	case VALUE_LISTENERS:
		return value_same_listeners(a, b);
	case VALUE_NETWORKS:
		return value_same_networks(a, b);
	case VALUE_CHOICE:
	case VALUE_GLOBS:
	case VALUE_TARGETS:
	case VALUE_SECRET:
		return true; /* these reload live: nobody asks */
	}
	return true;
}

void config_value_describe(const struct config_key *key, char *buf, size_t size)
{
	char bounds[128] = "";
	if (types[key->type].kind == VALUE_INT)
		config_number_bounds(key, bounds, sizeof(bounds));
	(void)snprintf(buf, size, "%s%s%s", types[key->type].form, *bounds ? ", " : "", bounds);
}
