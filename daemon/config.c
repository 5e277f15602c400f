/* The public side of the configuration: loading, the finished struct, looking things up.
 *
 * A load reads the text into instances (config_read), lets the checks speak, and only when there is
 * no error moves the instances into one struct config. From then on nothing changes but the count
 * of its holders.
 */
#include "config_internal.h"
#include "clock.h"

#include <errno.h>
#include <string.h>

/* ---- assembling ---- */

static void config_move(void *to, const struct config_instance *instance)
{
	assert(instance->target);
	memcpy(to, instance->target, instance->section->size);
	memset(instance->target, 0, instance->section->size);
}

static size_t config_count(const struct config_reading *r, const char *section)
{
	size_t n = 0;
	for (size_t i = 0; config_read_next(r, section, &i);)
		n++;
	return n;
}

static int config_take_sources(struct config *config, struct config_reading *r)
{
	struct config_instance *instance;
	config->sources = calloc(config_count(r, "source"), sizeof(*config->sources));
	if (!config->sources)
		return -ENOMEM;
	for (size_t i = 0; (instance = config_read_next(r, "source", &i));) {
		struct config_source *source = &config->sources[config->n_sources++];
		config_move(source, instance);
		source->line = instance->line;
		source->name = instance->name;
		instance->name = NULL;
	}
	return 0;
}

static int config_take_notify(struct config *config, struct config_reading *r)
{
	struct config_instance *instance;
	size_t n = config_count(r, "notify");
	if (n == 0)
		return 0;
	config->notify = calloc(n, sizeof(*config->notify));
	if (!config->notify)
		return -ENOMEM;
	for (size_t i = 0; (instance = config_read_next(r, "notify", &i));) {
		struct config_notify *notify = &config->notify[config->n_notify++];
		config_move(notify, instance);
		notify->name = instance->name;
		instance->name = NULL;
		notify->target = (struct notify_target) {
			.name = notify->name,
			.kind = notify->kind,
			.url = notify->url ? notify->url : notify->read_url,
			.keyring = notify->keyring,
			.command = notify->command,
			.timeout_ms = notify->timeout_ms,
		};
		notify->is_on = notify->url || notify->url_file || notify->command;
	}
	return 0;
}

static int config_take_alerts(struct config *config, struct config_reading *r)
{
	struct config_instance *instance;
	size_t n = config_count(r, "alert");
	if (n == 0)
		return 0;
	config->alerts = calloc(n, sizeof(*config->alerts));
	if (!config->alerts)
		return -ENOMEM;
	for (size_t i = 0; (instance = config_read_next(r, "alert", &i));) {
		struct config_alert *alert = &config->alerts[config->n_alerts++];
		config_move(alert, instance);
		alert->name = instance->name;
		instance->name = NULL;
	}
	return 0;
}

static int config_compare_ids(const void *a, const void *b)
{
	const struct config_template *x = a, *y = b;
	return strcmp(x->id, y->id);
}

static int config_compare_aliases(const void *a, const void *b)
{
	const struct config_template *const *x = a, *const *y = b;
	return strcmp((*x)->alias, (*y)->alias);
}

static int config_take_templates(struct config *config, struct config_reading *r)
{
	struct config_instance *instance;
	size_t n = config_count(r, "template");
	if (n == 0)
		return 0;
	config->templates = calloc(n, sizeof(*config->templates));
	config->by_alias = calloc(n, sizeof(struct config_template *));
	if (!config->templates || !config->by_alias)
		return -ENOMEM;
	for (size_t i = 0; (instance = config_read_next(r, "template", &i));) {
		struct config_template *template = &config->templates[config->n_templates++];
		config_move(template, instance);
		template->id = instance->name;
		instance->name = NULL;
	}
	qsort(config->templates, n, sizeof(*config->templates), config_compare_ids);
	for (size_t i = 0; i < n; i++)
		if (config->templates[i].alias)
			config->by_alias[config->n_aliases++] = &config->templates[i];
	qsort(config->by_alias, config->n_aliases, sizeof(struct config_template *),
	      config_compare_aliases);
	return 0;
}

/* ISO dates sort as text; the base entry, without a name, comes first. */
static int config_compare_names(const void *a, const void *b)
{
	const struct config_instance *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

/* In the order of time, so that each entry starts from the one before. */
static int config_take_pricing(struct config *config, struct config_reading *r)
{
	size_t n = config_count(r, "pricing"), k = 0;
	CLEANUP_FREE struct config_instance **sorted = calloc(n, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; k < n;)
		sorted[k++] = config_read_next(r, "pricing", &i);
	qsort(sorted, n, sizeof(*sorted), config_compare_names);

	struct pricing_rates rates = { 0 };
	for (size_t i = 0; i < n; i++) {
		const struct config_rates *given = sorted[i]->target;
		int64_t from_unix_s = 0;
		int rc = 0;
		if (given->vcpu_femto >= 0)
			rates.vcpu_second_femto = given->vcpu_femto;
		if (given->gib_femto >= 0)
			rates.gib_second_femto = given->gib_femto;
		if (i == 0)
			pricing_init(&config->pricing, rates);
		else
			rc = clock_parse_date(sorted[i]->name, &from_unix_s);
		if (rc == 0 && i > 0)
			rc = pricing_add(&config->pricing, from_unix_s, rates);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static const char *config_lookup_id(const void *ctx, struct span alias)
{
	const struct config_template *template = config_template_by_alias(ctx, alias);
	return template ? template->id : NULL;
}

static const char *config_lookup_alias(const void *ctx, struct span template_id)
{
	const struct config_template *template = config_template_by_id(ctx, template_id);
	return template ? template->alias : NULL;
}

static int config_fill(struct config *config, struct config_reading *r)
{
	const struct config_log *log = config_read_only(r, "log")->target;

	config->path = strdup(r->path);
	if (!config->path)
		return -ENOMEM;
	config_move(&config->server, config_read_only(r, "server"));
	config_move(&config->admin, config_read_only(r, "admin"));
	config_move(&config->store, config_read_only(r, "store"));
	config->log_level = log->level;
	config->log_format = log->format;
	config->lookup =
		(struct ingest_templates) { config_lookup_id, config_lookup_alias, config };
	int rc = config_take_sources(config, r);
	if (rc == 0)
		rc = config_take_templates(config, r);
	if (rc == 0)
		rc = config_take_notify(config, r);
	if (rc == 0)
		rc = config_take_alerts(config, r);
	return rc == 0 ? config_take_pricing(config, r) : rc;
}

static void config_unref_pointer(struct config **config)
{
	config_unref(*config);
}

static int config_assemble(struct config_reading *r, struct config **ret)
{
	CLEANUP(config_unref_pointer) struct config *config = calloc(1, sizeof(*config));
	if (!config)
		return -ENOMEM;
	config->refs = 1;
	int rc = config_fill(config, r);
	if (rc < 0)
		return rc;
	*ret = config;
	config = NULL;
	return 0;
}

/* ---- loading ---- */

int config_load_text(const char *path, const char *text, size_t len, enum config_secrets secrets,
		     struct config **ret, struct config_report *report)
{
	CLEANUP(config_read_finish)
	struct config_reading r = { .path = path, .secrets = secrets, .report = report };

	*ret = NULL;
	*report = (struct config_report) { 0 };
	int rc = config_read_text(&r, text, len);
	if (rc == 0) {
		config_check_all(&r);
		config_secrets_resolve(&r);
		rc = r.rc;
	}
	config_report_sort(report);
	if (rc < 0)
		return rc;
	return report->n_errors ? CONFIG_BAD : config_assemble(&r, ret);
}

static int config_complain_unreadable(struct config_report *report, int file_rc)
{
	int rc;
	if (file_rc == -EFBIG)
		rc = config_report_add(report, true, 0, "larger than %d MiB",
				       CONFIG_FILE_MAX / (1024 * 1024));
	else if (file_rc == -EINVAL)
		rc = config_report_add(report, true, 0, "not a regular file");
	else
		rc = config_report_add(
			report, true, 0,
			"cannot be read (%s); copy config.example.ini there, or name "
			"another file with -c",
			strerror(-file_rc));
	return rc < 0 ? rc : CONFIG_BAD;
}

int config_load(const char *path, enum config_secrets secrets, struct config **ret,
		struct config_report *report)
{
	CLEANUP_FREE char *text = NULL;
	struct stat st;
	size_t len;

	*ret = NULL;
	*report = (struct config_report) { 0 };
	int rc = config_secrets_read_file(path, CONFIG_FILE_MAX, &text, &len, &st);
	if (rc == -ENOMEM)
		return rc;
	if (rc < 0)
		return config_complain_unreadable(report, rc);
	return config_load_text(path, text, len, secrets, ret, report);
}

struct config *config_ref(struct config *config)
{
	(void)__atomic_add_fetch(&config->refs, 1, __ATOMIC_RELAXED);
	return config;
}

void config_unref(struct config *config)
{
	if (!config || __atomic_sub_fetch(&config->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	config_read_release("server", &config->server);
	config_read_release("admin", &config->admin);
	config_read_release("store", &config->store);
	for (size_t i = 0; i < config->n_sources; i++) {
		config_read_release("source", &config->sources[i]);
		free(config->sources[i].name);
	}
	for (size_t i = 0; i < config->n_templates; i++) {
		config_read_release("template", &config->templates[i]);
		free(config->templates[i].id);
	}
	for (size_t i = 0; i < config->n_notify; i++) {
		config_read_release("notify", &config->notify[i]);
		free(config->notify[i].name);
	}
	for (size_t i = 0; i < config->n_alerts; i++) {
		config_read_release("alert", &config->alerts[i]);
		free(config->alerts[i].name);
	}
	free(config->notify);
	free(config->alerts);
	free(config->sources);
	free(config->templates);
	free(config->by_alias);
	free(config->path);
	free(config);
}

/* ---- looking up ---- */

/* The order of `name` and a NUL-terminated text. */
static int config_compare_span(struct span name, const char *text)
{
	size_t len = strlen(text);
	int order = memcmp(name.s, text, base_min_size(name.len, len));
	return order != 0 ? order : (name.len > len) - (name.len < len);
}

static int config_find_id(const void *name, const void *item)
{
	const struct config_template *template = item;
	return config_compare_span(*(const struct span *)name, template->id);
}

static int config_find_alias(const void *name, const void *item)
{
	const struct config_template *const *template = item;
	return config_compare_span(*(const struct span *)name, (*template)->alias);
}

const struct config_template *config_template_by_id(const struct config *config, struct span id)
{
	if (!id.s || config->n_templates == 0)
		return NULL;
	return bsearch(&id, config->templates, config->n_templates, sizeof(*config->templates),
		       config_find_id);
}

const struct config_template *config_template_by_alias(const struct config *config,
						       struct span alias)
{
	if (!alias.s || config->n_aliases == 0)
		return NULL;
	struct config_template **found =
		bsearch(&alias, config->by_alias, config->n_aliases,
			sizeof(struct config_template *), config_find_alias);
	return found ? *found : NULL;
}

const struct config_source *config_source_by_path(const struct config *config, const char *path)
{
	for (size_t i = 0; i < config->n_sources; i++)
		if (strcmp(config->sources[i].path, path) == 0)
			return &config->sources[i];
	return NULL;
}

const struct config_source *config_source_by_name(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_sources; i++)
		if (strcmp(config->sources[i].name, name) == 0)
			return &config->sources[i];
	return NULL;
}

const struct config_notify *config_notify_by_name(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_notify; i++)
		if (strcmp(config->notify[i].name, name) == 0)
			return &config->notify[i];
	return NULL;
}

const struct config_alert *config_alert_by_name(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_alerts; i++)
		if (strcmp(config->alerts[i].name, name) == 0)
			return &config->alerts[i];
	return NULL;
}

/* ---- comparing ---- */

size_t config_restart_needed(const struct config *now, const struct config *next, char *buf,
			     size_t size)
{
	const struct {
		const char *section;
		const void *now, *next;
	} parts[] = {
		{ "server", &now->server, &next->server },
		{ "admin", &now->admin, &next->admin },
		{ "store", &now->store, &next->store },
	};
	size_t n = 0, len = 0;

	if (size > 0)
		buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		const struct config_section *section = config_keys_section(parts[i].section);
		for (size_t k = 0; k < section->n_keys; k++) {
			const struct config_key *key = &section->keys[k];
			if (key->live || config_value_same(key, parts[i].now, parts[i].next))
				continue;
			if (len < size)
				len += (size_t)snprintf(buf + len, size - len, "%s%s.%s",
							n ? ", " : "", section->name, key->name);
			n++;
		}
	}
	return n;
}
