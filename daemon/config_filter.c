/* Patterns that fit no event type and no template that is known, but nearly do. */
#include "config_internal.h"

#include "event.h"
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

/* ---- events ---- */

static void filter_suggest(const char *pattern, char buf[static CONFIG_WHY_MAX])
{
	char name[EVENT_NAME_MAX];
	const char *known;
	size_t best = TYPING_MISTAKE + 1;

	buf[0] = '\0';
	for (size_t i = 0; (known = event_known_name(i, name)); i++) {
		size_t distance = nearest_distance(pattern, known);
		if (distance < best) {
			best = distance;
			(void)snprintf(buf, CONFIG_WHY_MAX, "; did you mean \"%s\"?", known);
		}
	}
}

static bool filter_fits_an_event(const char *pattern)
{
	char name[EVENT_NAME_MAX];
	const char *known;

	for (size_t i = 0; (known = event_known_name(i, name)); i++)
		if (glob_match(pattern, filter_span(known)))
			return true;
	return false;
}

static void filter_check_events(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_source *source = instance->target;
	const struct glob_list *list = &source->policy.events;

	for (size_t i = 0; i < list->n; i++) {
		char quoted[CONFIG_QUOTE_MAX], meant[CONFIG_WHY_MAX];
		if (filter_fits_an_event(list->patterns[i]))
			continue;
		filter_suggest(list->patterns[i], meant);
		config_read_complain(r, false, config_read_line_of(instance, "events"), instance,
				     "events: %s is no event type or kind that is known%s",
				     config_report_quote(quoted, list->patterns[i]), meant);
	}
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
		filter_check_events(r, instance);
		filter_check_templates(r, instance, &source->policy.templates);
	}
	for (size_t i = 0; (instance = config_read_next(r, "alert", &i));) {
		const struct config_alert *alert = instance->target;
		filter_check_templates(r, instance, &alert->rule.templates);
	}
}
