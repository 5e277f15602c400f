/* The findings of a load: kept up to a limit, counted beyond it, told in the order of the file.
 *
 * Text reaches a log or a terminal: callers pass what ini.c let through (valid UTF-8, no control
 * characters), and quote at most a piece of it. What may be a secret is not passed at all.
 */
#include "config_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int config_report_add(struct config_report *report, bool is_error, unsigned int line,
		      const char *fmt, ...)
{
	report->n_errors += is_error ? 1 : 0;
	if (report->n >= CONFIG_PROBLEMS_MAX)
		return 0;
	struct config_problem *items =
		reallocarray(report->items, report->n + 1, sizeof(*report->items));
	if (!items)
		return -ENOMEM;
	report->items = items;
	struct config_problem *item = &items[report->n++];
	*item = (struct config_problem) { .is_error = is_error, .line = line };
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(item->text, sizeof(item->text), fmt, args);
	va_end(args);
	return 0;
}

static bool config_report_before(const struct config_problem *a, const struct config_problem *b)
{
	if (a->line == 0 || b->line == 0)
		return a->line != 0 && b->line == 0;
	return a->line < b->line;
}

/* Insertion: stable, and the report is short. */
void config_report_sort(struct config_report *report)
{
	for (size_t i = 1; i < report->n; i++) {
		struct config_problem item = report->items[i];
		size_t k = i;
		for (; k > 0 && config_report_before(&item, &report->items[k - 1]); k--)
			report->items[k] = report->items[k - 1];
		report->items[k] = item;
	}
}

const char *config_report_quote(char buf[static CONFIG_QUOTE_MAX], const char *text)
{
	const size_t room = CONFIG_QUOTE_MAX - sizeof("\"\"...");
	size_t len = strlen(text);
	bool is_cut = len > room;

	if (is_cut) {
		len = room;
		while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
			len--;
	}
	(void)snprintf(buf, CONFIG_QUOTE_MAX, "\"%.*s\"%s", (int)len, text, is_cut ? "..." : "");
	return buf;
}

void config_report_finish(struct config_report *report)
{
	free(report->items);
	*report = (struct config_report) { 0 };
}
