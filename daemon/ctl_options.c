/* The command line: one table of options, read here, explained here. Whole names only: an
 * abbreviation that works today would stop to with the next option. No secret is ever an option.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "nearest.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define COUNT_MAX 1000000000
#define NAME_MAX_LEN 63

enum kind { FLAG, TEXT, TIME, NUMBER, FORMAT };

static const struct option_row {
	const char *name, *alias, *value;
	enum kind kind;
	unsigned int bit; /* 0: every command takes it */
	size_t offset; /* in struct ctl_options */
	const char *help;
	int64_t least; /* of a NUMBER */
} rows[] = {
#define AT(field) offsetof(struct ctl_options, field)
	{ "--config", "-c", "FILE", TEXT, 0, AT(config_path),
	  "the configuration (" CONFIG_DEFAULT_PATH ")" },
	{ "--help", "-h", NULL, FLAG, 0, AT(help), "print this and exit" },
	{ "--version", NULL, NULL, FLAG, 0, AT(version), "print the version and exit" },
	{ "--since", NULL, "TIME", TIME, CTL_SINCE, AT(since_ms),
	  "not before: 24h (ago), 2026-11-22, 2026-11-22T10:00:00Z" },
	{ "--until", NULL, "TIME", TIME, CTL_UNTIL, AT(until_ms), "before; the same forms" },
	{ "--template", NULL, "NAME", TEXT, CTL_TEMPLATE, AT(template_name),
	  "template id or alias" },
	{ "--sandbox", NULL, "ID", TEXT, CTL_SANDBOX, AT(sandbox), "sandbox id" },
	{ "--type", NULL, "TYPE", TEXT, CTL_TYPE, AT(type), "type or kind of event" },
	{ "--source", NULL, "NAME", TEXT, CTL_SOURCE, AT(source),
	  "[source NAME] of the configuration" },
	{ "--limit", NULL, "N", NUMBER, CTL_LIMIT, AT(limit),
	  "at most so many rows (100); 0: all" },
	{ "--format", NULL, "FORMAT", FORMAT, CTL_FORMAT, AT(format),
	  "table, csv or json (a terminal: table, else csv)" },
	{ "--file", NULL, "BODY", TEXT, CTL_FILE, AT(file),
	  "file with the body; - is standard input" },
	{ "--count", NULL, "N", NUMBER, CTL_COUNT, AT(count),
	  "so many deliveries, over one connection", 1 },
	{ "--failed", NULL, NULL, FLAG, CTL_FAILED, AT(failed), "code_executed: one that failed" },
	{ "--url", NULL, "URL", TEXT, CTL_URL, AT(url),
	  "instead of the listener: http://host:port[/path], unix:/path" },
	{ "--signature", NULL, "VALUE", TEXT, CTL_SIGNATURE, AT(signature),
	  "value of the signature header" },
	{ "--id", NULL, "VALUE", TEXT, CTL_ID, AT(id), "standard-webhooks: value of webhook-id" },
	{ "--timestamp", NULL, "VALUE", TEXT, CTL_TIMESTAMP, AT(timestamp),
	  "standard-webhooks: value of webhook-timestamp" },
	{ "--rejection", NULL, "ID", NUMBER, CTL_REJECTION, AT(rejection),
	  "a stored rejection instead of a file" },
	{ "--by", NULL, "GROUP", TEXT, CTL_BY, AT(by),
	  "day, hour, template, team, source or metadata:KEY" },
	{ "--force", NULL, NULL, FLAG, CTL_FORCE, AT(force), "replace the file if there is one" },
	{ "--what", NULL, "SIDE", TEXT, CTL_WHAT, AT(what),
	  "only quarantine, rejections or skipped" },
	{ "--reason", NULL, "REASON", TEXT, CTL_REASON, AT(reason),
	  "only what has this reason in its view" },
#undef AT
};

static int complain(char error[static CTL_ERROR_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);

static int complain(char error[static CTL_ERROR_MAX], const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(error, CTL_ERROR_MAX, fmt, args);
	va_end(args);
	return CTL_EXIT_USAGE;
}

/* `allowed`: what the command takes. */
static int unknown_option(const char *given, size_t len, unsigned int allowed,
			  char error[static CTL_ERROR_MAX])
{
	char name[NAME_MAX_LEN + 1];
	const char *nearest = NULL;
	size_t best = SIZE_MAX;

	(void)snprintf(name, sizeof(name), "%.*s", (int)base_min_size(len, NAME_MAX_LEN), given);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		size_t d = rows[i].bit & ~allowed ? SIZE_MAX
						  : nearest_nearness(name, rows[i].name);
		if (d < best) {
			best = d;
			nearest = rows[i].name;
		}
	}
	return complain(error, "unknown option: %s%s%s%s", name, nearest ? ". Did you mean " : "",
			nearest ? nearest : "", nearest ? "?" : "");
}

static int read_number(const char *text, int64_t least, int64_t *ret)
{
	int64_t n = 0;

	for (const char *c = text; *c; c++) {
		if (*c < '0' || *c > '9' || n > COUNT_MAX)
			return -EINVAL;
		n = n * 10 + (*c - '0');
	}
	if (!*text || n < least || n > COUNT_MAX)
		return -EINVAL;
	*ret = n;
	return 0;
}

/* A duration counts back from now. */
static int read_time(const char *text, int64_t now_ms, int64_t *ret_ms)
{
	int64_t value;

	if (clock_parse_duration(text, &value) == 0)
		*ret_ms = now_ms - value;
	else if (clock_parse_date(text, &value) == 0)
		*ret_ms = value * 1000;
	else if (clock_parse_rfc3339(text, strlen(text), &value) == 0)
		*ret_ms = value / CLOCK_NS_PER_MS;
	else
		return -EINVAL;
	return 0;
}

static int read_value(const struct option_row *row, const char *text, int64_t now_ms,
		      struct ctl_options *ret, char error[static CTL_ERROR_MAX])
{
	void *field = (char *)ret + row->offset;

	assert(text || row->kind == FLAG);
	switch (row->kind) {
	case FLAG:
		*(bool *)field = true;
		return 0;
	case TEXT:
		*(const char **)field = text;
		return 0;
	case TIME:
		if (read_time(text, now_ms, field) == 0)
			return 0;
		return complain(error,
				"%s: want 24h (ago), 2026-11-22 or 2026-11-22T10:00:00Z, not: %s",
				row->name, text);
	case NUMBER:
		if (read_number(text, row->least, field) == 0)
			return 0;
		return complain(error, "%s: want a number from %d to %d, not: %s", row->name,
				(int)row->least, COUNT_MAX, text);
	case FORMAT:
		if (table_out_format_from_name(text, field))
			return 0;
		return complain(error, "%s: want table, csv or json, not: %s", row->name, text);
	}
	return 0;
}

static const struct option_row *find_row(const char *argument, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if ((strlen(rows[i].name) == len && memcmp(rows[i].name, argument, len) == 0) ||
		    (rows[i].alias && strcmp(rows[i].alias, argument) == 0))
			return &rows[i];
	}
	return NULL;
}

/* Reads the option at argv[*i], and its value, perhaps in the next word. */
static int read_option(int argc, char *const *argv, int *i, int64_t now_ms, struct ctl_options *ret,
		       char error[static CTL_ERROR_MAX])
{
	const char *word = argv[*i];
	const char *equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
	size_t len = equals ? (size_t)(equals - word) : strlen(word);
	const struct option_row *row = find_row(word, len);
	const char *value = equals ? equals + 1 : NULL;

	if (!row)
		return unknown_option(word, len, ctl_command_options(ret->command), error);
	if (!row->value && value)
		return complain(error, "%s takes no value", row->name);
	if (row->value && !value && *i + 1 == argc)
		return complain(error, "%s needs a value: %s", row->name, row->value);
	if (row->value && !value)
		value = argv[++*i];
	if (row->bit && (ret->given & row->bit))
		return complain(error, "%s was given twice", row->name);
	ret->given |= row->bit;
	return read_value(row, value, now_ms, ret, error);
}

int ctl_options_read(int argc, char *const *argv, int64_t now_ms, struct ctl_options *ret,
		     char error[static CTL_ERROR_MAX])
{
	bool only_words = false;

	*ret = (struct ctl_options) { .config_path = CONFIG_DEFAULT_PATH,
				      .limit = 100,
				      .count = 1 };
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];
		int r = 0;
		if (!only_words && strcmp(word, "--") == 0)
			only_words = true;
		else if (!only_words && word[0] == '-' && word[1])
			r = read_option(argc, argv, &i, now_ms, ret, error);
		else if (!ret->command)
			ret->command = word;
		else if (!ret->argument)
			ret->argument = word;
		else if (!ret->operand)
			ret->operand = word;
		else
			r = complain(error, "unexpected argument: %s", word);
		if (r != 0)
			return r;
	}
	return 0;
}

const char *ctl_options_surplus(unsigned int given, unsigned int allowed)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].bit & given & ~allowed)
			return rows[i].name;
	return NULL;
}

void ctl_options_print(FILE *f, unsigned int allowed)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char left[40];
		if (rows[i].bit && !(rows[i].bit & allowed))
			continue;
		(void)snprintf(left, sizeof(left), "%s%s%s%s%s", rows[i].alias ? rows[i].alias : "",
			       rows[i].alias ? ", " : "    ", rows[i].name,
			       rows[i].value ? " " : "", rows[i].value ? rows[i].value : "");
		(void)fprintf(f, "  %-22s %s\n", left, rows[i].help);
	}
}
