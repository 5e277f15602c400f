/* What keys must hold together. Each rule looks at instances whose keys could be read, and reports
 * at the line where the reader would change something.
 *
 * Does not touch the outside: files are config_secrets.c.
 */
#include "config_internal.h"

#include <errno.h>
#include <string.h>

/* The later one of two keys' lines; a default has none. */
static unsigned int check_later(const struct config_instance *a, const char *a_key,
				const struct config_instance *b, const char *b_key)
{
	unsigned int x = a->keys[config_keys_index(a->section, a_key)].line;
	unsigned int y = b->keys[config_keys_index(b->section, b_key)].line;
	return x > y ? x : y;
}

/* ---- numbers that bound each other ---- */

static int64_t check_int(const struct config_instance *instance, const char *name)
{
	int i = config_keys_index(instance->section, name);
	assert(i >= 0);
	return *(const int64_t *)((const char *)instance->target +
				  instance->section->keys[i].offset);
}

struct check_pair {
	const char *low_section, *low_key;
	const char *high_section, *high_key;
	bool may_be_equal;
	bool zero_is_infinite;
};

static bool check_is_ordered(const struct check_pair *pair, int64_t low, int64_t high)
{
	if (pair->zero_is_infinite) {
		low = low ? low : INT64_MAX;
		high = high ? high : INT64_MAX;
	}
	return low < high || (low == high && pair->may_be_equal);
}

/* "; queue_limit is 2048 unless set", if it is not. */
static void check_tell_default(const struct config_instance *instance, const char *name, char *buf,
			       size_t size)
{
	int i = config_keys_index(instance->section, name);
	if (instance->keys[i].line == 0)
		(void)snprintf(buf, size, "; %s is %s unless set", name,
			       instance->section->keys[i].fallback);
}

static void check_pair(struct config_reading *r, const struct check_pair *pair)
{
	const struct config_instance *low = config_read_only(r, pair->low_section);
	const struct config_instance *high = config_read_only(r, pair->high_section);
	char hint[CONFIG_WHY_MAX] = "";

	if (!config_read_is_sound(low, pair->low_key) ||
	    !config_read_is_sound(high, pair->high_key) ||
	    check_is_ordered(pair, check_int(low, pair->low_key), check_int(high, pair->high_key)))
		return;
	check_tell_default(low, pair->low_key, hint, sizeof(hint));
	check_tell_default(high, pair->high_key, hint, sizeof(hint));
	config_read_complain(r, true, check_later(low, pair->low_key, high, pair->high_key), low,
			     "%s must %s [%s] %s%s", pair->low_key,
			     pair->may_be_equal ? "not be above" : "be below", pair->high_section,
			     pair->high_key, hint);
}

static void check_order(struct config_reading *r)
{
	static const struct check_pair pairs[] = {
		{ "store", "queue_limit", "server", "max_connections", false, false },
		{ "server", "header_timeout", "server", "request_timeout", true, false },
		{ "store", "commit_timeout", "server", "request_timeout", true, false },
		{ "store", "retention", "store", "ledger_retention", true, true },
	};
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++)
		check_pair(r, &pairs[i]);
}

/* ---- listeners ---- */

static void check_admin(struct config_reading *r)
{
	const struct config_instance *instance = config_read_only(r, "admin");
	const struct config_instance *server_instance = config_read_only(r, "server");
	const struct config_admin *admin = instance->target;
	const struct config_server *server = server_instance->target;
	unsigned int line = config_read_line_of(instance, "listen");

	if (!admin->enabled)
		return;
	if (!config_address_is_local(&admin->listen) && !admin->token_file &&
	    config_read_is_sound(instance, "token_file"))
		config_read_complain(r, true, line, instance,
				     "listen is neither loopback nor a unix socket: set "
				     "token_file, or listen on 127.0.0.1");
	/* Both may be `systemd`: the sockets are told apart by name. */
	for (size_t i = 0; i < server->n_listen; i++)
		if (admin->listen.kind != CONFIG_LISTEN_SYSTEMD &&
		    config_address_clashes(&admin->listen, &server->listen[i]))
			config_read_complain(
				r, true, check_later(instance, "listen", server_instance, "listen"),
				instance, "listen is the address of [server] too; choose another");
}

/* ---- sources ---- */

static void check_secret_given(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_source *source = instance->target;

	if (source->secret_from != CONFIG_SECRET_NONE || r->secrets == CONFIG_SECRETS_IGNORED)
		return;
	if (config_read_is_sound(instance, "secret_file") &&
	    config_read_is_sound(instance, "secret_credential") &&
	    config_read_is_sound(instance, "secret_env"))
		config_read_complain(r, true, instance->line, instance,
				     "needs secret_file, secret_credential or secret_env: refusing "
				     "to start without a secret");
}

/* Sets the header that goes with the scheme. */
static void check_header(struct config_reading *r, struct config_instance *instance)
{
	struct config_source *source = instance->target;
	int i = config_keys_index(instance->section, "header");
	assert(i >= 0);

	if (!config_read_is_sound(instance, "signature") || source->scheme == SIGNATURE_HMAC_SHA256)
		return;
	if (instance->keys[i].line) {
		config_read_complain(r, true, instance->keys[i].line, instance,
				     "header is for signature = hmac-sha256 only; %s has its own",
				     signature_scheme_name(source->scheme));
		return;
	}
	char *header = strdup(signature_default_header(source->scheme));
	if (!header) {
		r->rc = -ENOMEM;
		return;
	}
	free(source->header);
	source->header = header;
}

static void check_path(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_source *source = instance->target;
	const struct config_instance *other;

	if (!config_read_is_sound(instance, "path"))
		return;
	if (!source->path) {
		config_read_complain(r, true, instance->line, instance,
				     "needs a path, such as /webhooks/%.64s", instance->name);
		return;
	}
	for (size_t i = 0; (other = config_read_next(r, "source", &i)) != instance;) {
		const struct config_source *twin = other->target;
		if (twin->path && strcmp(twin->path, source->path) == 0)
			config_read_complain(
				r, true, config_read_line_of(instance, "path"), instance,
				"path is that of [source %.64s] too; each source needs its own",
				other->name);
	}
}

static void check_sources(struct config_reading *r)
{
	struct config_instance *instance;
	size_t n = 0;

	for (size_t i = 0; (instance = config_read_next(r, "source", &i)); n++) {
		check_path(r, instance);
		check_header(r, instance);
		check_secret_given(r, instance);
	}
	if (n == 0)
		config_read_complain(r, true, 0, NULL,
				     "no [source NAME]: nothing could be received; "
				     "config.example.ini shows one");
}

/* ---- templates ---- */

struct check_name {
	const char *text;
	const struct config_instance *instance;
	bool is_alias;
};

static int check_compare_names(const void *a, const void *b)
{
	const struct check_name *x = a, *y = b;
	int order = strcmp(x->text, y->text);
	if (order != 0)
		return order;
	return (x->instance->line > y->instance->line) - (x->instance->line < y->instance->line);
}

static void check_same_name(struct config_reading *r, const struct check_name *a,
			    const struct check_name *b)
{
	if (a->instance == b->instance || strcmp(a->text, b->text) != 0)
		return;
	/* Ids differ from each other, so at least one is an alias: complain about the later. */
	const struct check_name *wrong = b->is_alias ? b : a, *other = wrong == b ? a : b;
	config_read_complain(r, true, config_read_line_of(wrong->instance, "alias"),
			     wrong->instance, "alias is the %s of [template %.64s] too",
			     other->is_alias ? "alias" : "id", other->instance->name);
}

/* Ids and aliases are one name space: events may carry either. */
static void check_names(struct config_reading *r)
{
	CLEANUP_FREE struct check_name *names = calloc(r->n_instances * 2, sizeof(*names));
	const struct config_instance *instance;
	size_t n = 0;

	if (!names) {
		r->rc = -ENOMEM;
		return;
	}
	for (size_t i = 0; (instance = config_read_next(r, "template", &i));) {
		const struct config_template *template = instance->target;
		names[n++] = (struct check_name) { instance->name, instance, false };
		if (template->alias)
			names[n++] = (struct check_name) { template->alias, instance, true };
	}
	qsort(names, n, sizeof(*names), check_compare_names);
	for (size_t i = 1; i < n; i++)
		check_same_name(r, &names[i - 1], &names[i]);
}

static void check_sizes(struct config_reading *r)
{
	const struct config_instance *instance;

	for (size_t i = 0; (instance = config_read_next(r, "template", &i));) {
		const struct config_template *template = instance->target;
		if (!config_read_is_sound(instance, "vcpu") ||
		    !config_read_is_sound(instance, "memory_mb"))
			continue;
		if ((template->vcpu < 0) != (template->memory_mb < 0))
			config_read_complain(
				r, true, check_later(instance, "vcpu", instance, "memory_mb"),
				instance, "vcpu and memory_mb are given both or not at all");
	}
}

void config_check_all(struct config_reading *r)
{
	check_order(r);
	check_admin(r);
	check_sources(r);
	check_names(r);
	check_sizes(r);
	config_filter_check(r);
	config_alert_check(r);
}
