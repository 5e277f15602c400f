/* The file's text becomes instances: one for each section, its struct filled key by key as the
 * lines come, then with defaults.
 *
 * Invariant: every instance is complete after config_read_text, whatever was wrong in the file; a
 * key that could not be read is marked, so that later checks do not complain about it again. A
 * section that repeats goes on filling its first instance. An unknown section swallows its
 * entries. Values of unknown keys are never told: they may be secrets.
 */
#include "config_internal.h"
#include "clock.h"
#include "ini.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define LABEL_MAX (CONFIG_QUOTE_MAX + 24)

/* `[source e2b]` */
static const char *read_label(const struct config_instance *instance, char buf[static LABEL_MAX])
{
	char quoted[CONFIG_QUOTE_MAX];
	const char *name = config_report_quote(quoted, instance->name);
	/* Names that can be right hold no quotes; without them it reads as in the file. */
	size_t len = strlen(name);
	bool is_whole = name[len - 1] == '"';
	if (is_whole) {
		quoted[len - 1] = '\0';
		name++;
	}
	(void)snprintf(buf, LABEL_MAX, "[%s%s%s]", instance->section->name,
		       *instance->name ? " " : "", *instance->name ? name : "");
	return buf;
}

void config_read_complain(struct config_reading *r, bool is_error, unsigned int line,
			  const struct config_instance *instance, const char *fmt, ...)
{
	char text[sizeof(((struct config_problem *)NULL)->text)], label[LABEL_MAX] = "";
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (instance)
		(void)read_label(instance, label);
	int rc = config_report_add(r->report, is_error, line, "%s%s%s", label, *label ? " " : "",
				   text);
	if (rc < 0)
		r->rc = rc;
}

struct config_instance *config_read_next(const struct config_reading *r, const char *section,
					 size_t *i)
{
	while (*i < r->n_instances) {
		struct config_instance *instance = r->instances[(*i)++];
		if (strcmp(instance->section->name, section) == 0)
			return instance;
	}
	return NULL;
}

static struct config_instance *read_find(const struct config_reading *r,
					 const struct config_section *section, const char *name)
{
	for (size_t i = 0; i < r->n_instances; i++)
		if (r->instances[i]->section == section && strcmp(r->instances[i]->name, name) == 0)
			return r->instances[i];
	return NULL;
}

struct config_instance *config_read_only(const struct config_reading *r, const char *section)
{
	struct config_instance *instance = read_find(r, config_keys_section(section), "");
	assert(instance);
	return instance;
}

static size_t read_key_index(const struct config_instance *instance, const char *key)
{
	int i = config_keys_index(instance->section, key);
	assert(i >= 0);
	return (size_t)i;
}

unsigned int config_read_line_of(const struct config_instance *instance, const char *key)
{
	unsigned int line = instance->keys[read_key_index(instance, key)].line;
	return line ? line : instance->line;
}

bool config_read_is_sound(const struct config_instance *instance, const char *key)
{
	return !instance->keys[read_key_index(instance, key)].is_bad;
}

void config_read_release(const char *section_name, void *target)
{
	const struct config_section *section = config_keys_section(section_name);
	for (size_t i = 0; i < section->n_keys; i++)
		config_value_release(&section->keys[i], target);
	config_secrets_release(section_name, target);
}

static void read_instance_free(struct config_instance *instance)
{
	if (instance->target)
		config_read_release(instance->section->name, instance->target);
	free(instance->target);
	free(instance->name);
	free(instance);
}

static struct config_instance *read_instance_new(const struct config_section *section,
						 const char *name, unsigned int line)
{
	struct config_instance *instance = calloc(1, sizeof(*instance));
	if (!instance)
		return NULL;
	instance->section = section;
	instance->line = line;
	instance->name = strdup(name);
	instance->target = calloc(1, section->size);
	if (!instance->name || !instance->target) {
		read_instance_free(instance);
		return NULL;
	}
	for (size_t i = 0; i < section->n_keys; i++)
		config_value_unset(&section->keys[i], instance->target);
	return instance;
}

static struct config_instance *read_add(struct config_reading *r,
					const struct config_section *section, const char *name,
					unsigned int line)
{
	struct config_instance **grown =
		reallocarray(r->instances, r->n_instances + 1, sizeof(*r->instances));
	if (grown)
		r->instances = grown;
	struct config_instance *instance = grown ? read_instance_new(section, name, line) : NULL;
	if (!instance) {
		r->rc = -ENOMEM;
		return NULL;
	}
	return r->instances[r->n_instances++] = instance;
}

/* ---- sections ---- */

static size_t read_count(const struct config_reading *r, const struct config_section *section)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_instances; i++)
		n += r->instances[i]->section == section ? 1 : 0;
	return n;
}

/* What is wrong with the name in `[section name]`, or NULL. */
static const char *read_bad_name(const struct config_section *section, const char *name)
{
	int64_t date;

	if (*name == '\0')
		return section->naming == CONFIG_NAMED ? "needs a name, as in [source e2b]" : NULL;
	if (section->naming == CONFIG_UNNAMED)
		return "takes no name";
	if (section->naming == CONFIG_NAMED_OR_NOT)
		return clock_parse_date(name, &date) < 0 ? "needs a date as its name, YYYY-MM-DD"
							 : NULL;
	if (strcmp(section->name, "template") != 0)
		return config_value_is_made_of(name, CONFIG_ALNUM "_-", 64)
			       ? NULL
			       : "needs a name of 1 to 64 letters, digits, _ and -";
	return config_value_is_id(name) ? NULL
					: "needs a template id as its name: 1 to 128 of letters, "
					  "digits and ._:#/@+-, no .. between slashes";
}

static void read_unknown_section(struct config_reading *r, unsigned int line, const char *name)
{
	char hint[CONFIG_WHY_MAX], quoted[CONFIG_QUOTE_MAX];
	config_keys_suggest_section(name, hint);
	config_read_complain(r, true, line, NULL, "unknown section %s%s",
			     config_report_quote(quoted, name), hint);
}

static void read_section(void *ctx, unsigned int line, const char *section_name, const char *name)
{
	struct config_reading *r = ctx;
	const struct config_section *section = config_keys_section(section_name);

	r->current = NULL;
	if (!section) {
		read_unknown_section(r, line, section_name);
		return;
	}
	const char *bad = read_bad_name(section, name);
	if (section->naming == CONFIG_UNNAMED)
		name = "";
	struct config_instance *instance = read_find(r, section, name);
	if (instance) {
		config_read_complain(r, true, line, instance,
				     "is given twice (first in line %u); keep one", instance->line);
	} else if (read_count(r, section) == section->instances_max) {
		config_read_complain(r, true, line, NULL, "more than %zu sections [%s]",
				     section->instances_max, section->name);
		return;
	} else {
		instance = read_add(r, section, name, line);
	}
	if (instance && bad)
		config_read_complain(r, true, line, instance, "%s", bad);
	r->current = instance;
}

/* ---- keys ---- */

/* A key is shown only if it looks like one: a pasted secret may end in `=`. */
static void read_unknown_key(struct config_reading *r, unsigned int line, const char *key)
{
	const char *const looks = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-. ";
	char hint[CONFIG_WHY_MAX], label[LABEL_MAX];

	(void)read_label(r->current, label);
	config_keys_suggest_key(r->current->section, key, hint);
	if (!config_value_is_made_of(key, looks, 30)) {
		config_read_complain(r, true, line, NULL,
				     "unknown key in %s (not shown: it could be a secret)%s", label,
				     hint);
		return;
	}
	config_read_complain(r, true, line, NULL, "unknown key \"%s\" in %s%s", key, label, hint);
}

/* What people bring along from other INI dialects. */
static const char *read_dialect_hint(const char *value)
{
	if (strstr(value, " #") || strstr(value, " ;") || strstr(value, "\t#"))
		return " (a comment needs a line of its own)";
	if (value[0] == '"' || value[0] == '\'')
		return " (values stand without quotes)";
	return "";
}

/* Binding happens later; its errors name the line. */
static void read_mark_listener(struct config_instance *instance, enum config_type type,
			       unsigned int line)
{
	if (type == CONFIG_TYPE_LISTENERS) {
		struct config_server *server = instance->target;
		server->listen[server->n_listen - 1].line = line;
	} else if (type == CONFIG_TYPE_LISTEN) {
		struct config_admin *admin = instance->target;
		admin->listen.line = line;
	}
}

static void read_value(struct config_reading *r, struct config_instance *instance, size_t i,
		       const char *value)
{
	const struct config_key *key = &instance->section->keys[i];
	char why[CONFIG_WHY_MAX];

	int rc = config_value_parse(key, instance->target, value, why);
	if (rc == -EINVAL) {
		instance->keys[i].is_bad = true;
		config_read_complain(r, true, instance->keys[i].line, instance, "%s: %s%s",
				     key->name, why, read_dialect_hint(value));
	} else if (rc < 0) {
		r->rc = rc;
	} else {
		read_mark_listener(instance, key->type, instance->keys[i].line);
	}
}

static void read_entry(void *ctx, unsigned int line, const char *key, const char *value)
{
	struct config_reading *r = ctx;
	if (!r->current)
		return;
	int i = config_keys_index(r->current->section, key);
	if (i < 0) {
		read_unknown_key(r, line, key);
		return;
	}
	bool may_repeat = r->current->section->keys[i].type == CONFIG_TYPE_LISTENERS;
	unsigned int before = r->current->keys[i].line;
	if (before && !may_repeat) {
		config_read_complain(r, true, line, r->current,
				     "%s is given twice (first in line %u); keep one", key, before);
		return;
	}
	r->current->keys[i].line = line;
	read_value(r, r->current, (size_t)i, value);
}

static void read_problem(void *ctx, unsigned int line, const char *what)
{
	struct config_reading *r = ctx;
	config_read_complain(r, true, line, NULL, "%s", what);
}

/* ---- defaults ---- */

/* Keys of [pricing DATE] have none: what it leaves out stays as it was before that date. */
static void read_defaults(struct config_reading *r, struct config_instance *instance)
{
	const struct config_section *section = instance->section;
	if (section->naming == CONFIG_NAMED_OR_NOT && *instance->name)
		return;
	for (size_t i = 0; i < section->n_keys; i++)
		if (instance->keys[i].line == 0 && section->keys[i].fallback) {
			read_value(r, instance, i, section->keys[i].fallback);
			assert(!instance->keys[i].is_bad);
		}
}

int config_read_text(struct config_reading *r, const char *text, size_t len)
{
	const struct ini_handler handler = {
		.section = read_section, .entry = read_entry, .problem = read_problem, .ctx = r
	};
	size_t n_sections;
	const struct config_section *sections = config_keys_sections(&n_sections);

	(void)ini_parse(text, len, &handler);
	r->current = NULL;
	for (size_t i = 0; i < n_sections; i++)
		if (sections[i].naming != CONFIG_NAMED && !read_find(r, &sections[i], ""))
			(void)read_add(r, &sections[i], "", 0);
	for (size_t i = 0; i < r->n_instances && r->rc == 0; i++)
		read_defaults(r, r->instances[i]);
	return r->rc;
}

void config_read_finish(struct config_reading *r)
{
	for (size_t i = 0; i < r->n_instances; i++)
		read_instance_free(r->instances[i]);
	free(r->instances);
	*r = (struct config_reading) { 0 };
}
