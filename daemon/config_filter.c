/* Patterns that fit no event type, template or reason that is known, or none but nearly one. */
#include "config_internal.h"

#include "event.h"
#include "ingest.h"
#include "nearest.h"

#include <string.h>

#define TYPING_MISTAKE 2 /* edits */

static bool filter_is_wild(const char *pattern)
{
	return strpbrk(pattern, "*?") != NULL;
}

static struct span filter_span(const char *text)
{
	return (struct span) { text, strlen(text) };
}

/* The i-th known name, NULL behind the last; it may be written into buf. */
typedef const char *(*filter_name_fn)(size_t i, char buf[static EVENT_NAME_MAX]);

/* The nearest, at most as far as a typing mistake; NULL: none is. */
static const char *filter_meant(const char *pattern, filter_name_fn name_at,
				char buf[static EVENT_NAME_MAX])
{
	const char *known;
	size_t nearest = 0, best = TYPING_MISTAKE + 1;

	for (size_t i = 0; (known = name_at(i, buf)); i++) {
		size_t distance = nearest_distance(pattern, known);
		if (distance >= best)
			continue;
		nearest = i;
		best = distance;
	}
	return best <= TYPING_MISTAKE ? name_at(nearest, buf) : NULL;
}

static bool filter_fits(const char *pattern, filter_name_fn name_at)
{
	char buf[EVENT_NAME_MAX];
	const char *known;

	for (size_t i = 0; (known = name_at(i, buf)); i++)
		if (glob_match(pattern, filter_span(known)))
			return true;
	return false;
}

/* Patterns over names of which we know all, or (`open`) those that people write. */
static void filter_check_names(struct config_reading *r, const struct config_instance *instance,
			       const char *key, const struct glob_list *list,
			       filter_name_fn name_at, const char *what, bool open)
{
	for (size_t i = 0; i < list->n; i++) {
		char quoted[CONFIG_QUOTE_MAX], buf[EVENT_NAME_MAX];
		if (filter_fits(list->patterns[i], name_at))
			continue;
		const char *meant = filter_meant(list->patterns[i], name_at, buf);
		if (open && !meant)
			continue;
		config_read_complain(r, false, config_read_line_of(instance, key), instance,
				     "%s: %s is no %s that is known%s%s%s", key,
				     config_report_quote(quoted, list->patterns[i]), what,
				     meant ? "; did you mean \"" : "", meant ? meant : "",
				     meant ? "\"?" : "");
	}
}

/* ---- reasons ---- */

static const char *filter_reason_of_quarantine(size_t i, char buf[static EVENT_NAME_MAX])
{
	enum ingest_reason reason = INGEST_REASON_NOT_ONE_OBJECT + (enum ingest_reason)i;
	(void)buf;
	return reason <= INGEST_REASON_ID_REUSED ? ingest_reason_name(reason) : NULL;
}

static const char *filter_reason_of_rejection(size_t i, char buf[static EVENT_NAME_MAX])
{
	enum ingest_reason reason = INGEST_REASON_SIGNATURE_MISSING + (enum ingest_reason)i - 1;
	(void)buf;
	if (i == 0)
		return ingest_reason_name(INGEST_REASON_NOT_ONE_OBJECT);
	return reason < INGEST_N_REASONS ? ingest_reason_name(reason) : NULL;
}

/* E2B's, of an open set. */
static const char *filter_reason_of_kill(size_t i, char buf[static EVENT_NAME_MAX])
{
	static const char *const reasons[] = {
		"request", "timeout",	  "admin",	  "orphaned", "base_template_missing",
		"unknown", "seal_failed", "resume_failed"
	};
	(void)buf;
	return i < ARRAY_SIZE(reasons) ? reasons[i] : NULL;
}

static void filter_check_reasons(struct config_reading *r, const struct config_instance *instance,
				 const struct alert_rule *rule)
{
	if (rule->on == ALERT_ON_QUARANTINED)
		filter_check_names(r, instance, "reasons", &rule->reasons,
				   filter_reason_of_quarantine, "reason for quarantine", false);
	if (rule->on == ALERT_ON_REJECTED)
		filter_check_names(r, instance, "reasons", &rule->reasons,
				   filter_reason_of_rejection, "reason for a rejection", false);
	if (rule->on == ALERT_ON_SANDBOX_FAILED)
		filter_check_names(r, instance, "reasons", &rule->reasons, filter_reason_of_kill,
				   "kill reason", true);
}

/* ---- templates ---- */

/* Versions and numbered sisters are names of their own. */
static bool filter_differs_in_digits_only(const char *a, const char *b)
{
	for (;; a++, b++) {
		a += strspn(a, "0123456789");
		b += strspn(b, "0123456789");
		if (*a != *b)
			return false;
		if (!*a)
			return true;
	}
}

static const char *filter_nearer(const char *pattern, const char *name, size_t *best)
{
	size_t distance = name ? nearest_distance(pattern, name) : SIZE_MAX;
	if (distance > 0 && (distance >= *best || filter_differs_in_digits_only(pattern, name)))
		return NULL;
	*best = distance;
	return name;
}

/* An id or alias of a section that was nearly written; NULL if it was written, or is far from all.
 */
static const char *filter_template_meant(const struct config_reading *r, const char *pattern)
{
	const struct config_instance *instance;
	const char *meant = NULL;
	size_t best = TYPING_MISTAKE + 1;

	for (size_t i = 0; (instance = config_read_next(r, "template", &i));) {
		const struct config_template *template = instance->target;
		const char *nearer = filter_nearer(pattern, instance->name, &best);
		meant = nearer ? nearer : meant;
		nearer = filter_nearer(pattern, template->alias, &best);
		meant = nearer ? nearer : meant;
	}
	return best > 0 ? meant : NULL;
}

static void filter_check_templates(struct config_reading *r, const struct config_instance *instance,
				   const struct glob_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		char quoted[CONFIG_QUOTE_MAX];
		const char *meant = filter_is_wild(list->patterns[i])
					    ? NULL
					    : filter_template_meant(r, list->patterns[i]);
		if (meant)
			config_read_complain(
				r, false, config_read_line_of(instance, "templates"), instance,
				"templates: no [template ID] has the id or alias %s; did you mean "
				"\"%.64s\"?",
				config_report_quote(quoted, list->patterns[i]), meant);
	}
}

void config_filter_check(struct config_reading *r)
{
	const struct config_instance *instance;

	for (size_t i = 0; (instance = config_read_next(r, "source", &i));) {
		const struct config_source *source = instance->target;
		filter_check_names(r, instance, "events", &source->policy.events, event_known_name,
				   "event type or kind", false);
		filter_check_templates(r, instance, &source->policy.templates);
	}
	for (size_t i = 0; (instance = config_read_next(r, "alert", &i));) {
		const struct config_alert *alert = instance->target;
		filter_check_templates(r, instance, &alert->rule.templates);
		filter_check_reasons(r, instance, &alert->rule);
	}
}
