/* The table as text: config.example.ini, a working file that tells every key, and
 * docs/configuration.md.
 *
 * Invariant: what a key is, its default and its bounds come from the table alone; only
 * introductions and the values of the example's sections are written here. The tests compare both
 * files with this output, byte for byte, and load the example.
 */
#include "config_internal.h"

#include <string.h>

#define EXAMPLE_WIDTH 98
#define EXAMPLE_VALUES_MAX 5

/* A section of the example file. Keys that it gives a value stand as they are; the others follow as
 * `#key = default`, unless the section is a brief one. */
struct example_section {
	const char *section, *name;
	const char *intro; /* NULL: the table's */
	bool is_brief; /* only the given keys, without their documentation */
	bool is_comment; /* all of it */
	struct {
		const char *key, *value;
	} given[EXAMPLE_VALUES_MAX];
};

static const struct example_section examples[] = {
	{ .section = "server" },
	{ .section = "admin" },
	{ .section = "store" },
	{ .section = "source",
	  .name = "e2b",
	  .given = { { "path", "/webhooks/e2b" },
		     { "secret_file", "/etc/e2b-hookd/e2b.secret" } } },
	{ .section = "source",
	  .name = "executors",
	  .intro = "A second sender: your own executors report code executions and start-up times, "
		   "signed by HMAC with a secret of their own.",
	  .is_brief = true,
	  .given = { { "path", "/webhooks/executors" },
		     { "signature", "hmac-sha256" },
		     { "header", "x-signature-256" },
		     { "secret_file", "/etc/e2b-hookd/executors.secret" },
		     { "events", "code_executed, created" } } },
	{ .section = "template",
	  .name = "k3v9x2m7q1w8e5r4t6y0",
	  .given = { { "alias", "tta-ml-minimal" }, { "vcpu", "2" }, { "memory_mb", "512" } } },
	{ .section = "pricing",
	  .given = { { "vcpu_second_usd", "0.000014" }, { "gib_second_usd", "0.0000045" } } },
	{ .section = "pricing",
	  .name = "2027-01-01",
	  .intro = "A price that changes on a date: remove the # of both lines.",
	  .is_brief = true,
	  .is_comment = true,
	  .given = { { "vcpu_second_usd", "0.000015" } } },
	{ .section = "notify",
	  .name = "operators",
	  .intro = "Where alerts go: fill in the URL, then try it with `e2b-hookctl alerts test "
		   "operators`. Until then nothing is sent.",
	  .given = { { "kind", "slack" }, { "url", "" } } },
	{ .section = "alert",
	  .name = "failed-executions",
	  .given = { { "on", "execution_failed" }, { "notify", "operators" } } },
	{ .section = "alert",
	  .name = "failed-sandboxes",
	  .intro = "Sandboxes that the platform lost.",
	  .is_brief = true,
	  .given = { { "on", "sandbox_failed" },
		     { "severity", "critical" },
		     { "notify", "operators" } } },
	{ .section = "alert",
	  .name = "spending",
	  .intro = "Money: remove the # of the lines, and set what is too much for you.",
	  .is_brief = true,
	  .is_comment = true,
	  .given = { { "on", "budget" }, { "daily_usd", "50" }, { "notify", "operators" } } },
	{ .section = "log" },
};

static const char example_head[] =
	"# e2b-hookd: configuration. The reference is docs/configuration.md; `e2b-hookctl "
	"check-config`\n"
	"# and `e2b-hookd --check` tell every problem with its line.\n"
	"#\n"
	"# `key = value`; comments have a line of their own, values no quotes. `#key = value` "
	"shows a\n"
	"# default: remove the # to change it. Durations: 250ms 15s 10m 24h 90d. Sizes: bytes, or "
	"64KiB\n"
	"# 1MiB 2GiB. SIGHUP (systemctl reload) re-reads what can change live; a file with a "
	"problem\n"
	"# keeps the old configuration. No secret belongs in here, only the files that hold them:\n"
	"#     install -m 0640 -o root -g e2b-hookd /dev/null /etc/e2b-hookd/e2b.secret\n"
	"# and one secret a line into it.\n";

/* Words, wrapped, each line behind `# `. */
static void example_comment(FILE *f, const char *text)
{
	size_t column = 0;
	for (const char *s = text; *s;) {
		size_t len = strcspn(s, " ");
		if (column > 0 && column + 1 + len > EXAMPLE_WIDTH) {
			(void)fputc('\n', f);
			column = 0;
		}
		(void)fprintf(f, "%s%.*s", column ? " " : "# ", (int)len, s);
		column += len + (column ? 1 : 2);
		s += len;
		s += strspn(s, " ");
	}
	(void)fputc('\n', f);
}

static const char *example_given(const struct example_section *example, const char *key)
{
	for (size_t i = 0; i < EXAMPLE_VALUES_MAX && example->given[i].key; i++)
		if (strcmp(example->given[i].key, key) == 0)
			return example->given[i].value;
	return NULL;
}

/* `key =` where the value is empty, without a blank at the end. */
static void example_assign(FILE *f, bool is_comment, const char *key, const char *value)
{
	(void)fprintf(f, "%s%s =%s%s\n", is_comment ? "#" : "", key, *value ? " " : "", value);
}

static void example_document(FILE *f, const struct config_key *key)
{
	char text[512], bounds[128] = "";
	bool is_number = key->max > 0;

	if (is_number && key->type != CONFIG_TYPE_RATE)
		config_number_bounds(key, bounds, sizeof(bounds));
	int len = (int)strlen(key->doc) - 1; /* without its full stop */
	(void)snprintf(text, sizeof(text), "%.*s%s%s%s.", len, key->doc, *bounds ? " (" : "",
		       bounds, *bounds ? ")" : "");
	example_comment(f, text);
}

static void example_keys(FILE *f, const struct example_section *example,
			 const struct config_section *section)
{
	for (size_t i = 0; i < section->n_keys; i++) {
		const struct config_key *key = &section->keys[i];
		const char *value = example_given(example, key->name);
		if (!value && example->is_brief)
			continue;
		if (!example->is_brief)
			example_document(f, key);
		if (value)
			example_assign(f, example->is_comment, key->name, value);
		else
			example_assign(f, true, key->name, key->fallback ? key->fallback : "");
	}
}

void config_print_example(FILE *f)
{
	(void)fputs(example_head, f);
	for (size_t i = 0; i < ARRAY_SIZE(examples); i++) {
		const struct example_section *example = &examples[i];
		const struct config_section *section = config_keys_section(example->section);
		(void)fputc('\n', f);
		example_comment(f, example->intro ? example->intro : section->doc);
		(void)fprintf(f, "%s[%s%s%s]\n", example->is_comment ? "#" : "", section->name,
			      example->name ? " " : "", example->name ? example->name : "");
		example_keys(f, example, section);
	}
}

/* ---- the reference ---- */

static const char reference_head[] =
	"# Configuration\n"
	"\n"
	"One INI file, by default `/etc/e2b-hookd/config.ini`; "
	"[config.example.ini](../config.example.ini) is a\n"
	"working one. `e2b-hookd --check` and `e2b-hookctl check-config` report every problem with "
	"file and\n"
	"line, the nearest known name beside an unknown one, and exit 78 when there is an error.\n"
	"\n"
	"* `[section]` or `[section NAME]`, then `key = value`. A comment begins with `#` or `;` "
	"and has a line\n"
	"  of its own. No quotes, no escapes, no continuation lines, no environment variables. "
	"UTF-8, lines of\n"
	"  at most 4096 bytes.\n"
	"* Unknown sections and keys, repeated ones and bad values are errors: a typing mistake "
	"never falls\n"
	"  back to a default in silence.\n"
	"* Durations: a whole number and `ms`, `s`, `m`, `h` or `d`. Sizes: bytes, or a whole "
	"number and `KiB`,\n"
	"  `MiB`, `GiB` or `TiB`. Paths of files are absolute. Patterns: `*` and `?`, separated by "
	"commas.\n"
	"* *Reload: yes* means that SIGHUP (`systemctl reload e2b-hookd`) changes it. A file with "
	"an error\n"
	"  keeps the old configuration and says so; a key that needs a restart is named in the "
	"log.\n"
	"* The file holds no secret, only where secrets are. A secret file holds one secret a "
	"line; all are\n"
	"  valid, so that a rotation loses nothing. Make it `root:e2b-hookd` and 0640.\n";

static void reference_key(FILE *f, const struct config_key *key)
{
	char form[192];
	config_value_describe(key, form, sizeof(form));
	(void)fprintf(f, "| `%s` | ", key->name);
	if (key->fallback && *key->fallback)
		(void)fprintf(f, "`%s`", key->fallback);
	else
		(void)fputs(key->fallback ? "empty" : "–", f);
	(void)fprintf(f, " | %s | %s | %s |\n", form, key->live ? "yes" : "restart", key->doc);
}

static void reference_section(FILE *f, const struct config_section *section)
{
	(void)fprintf(f, "\n## [%s%s%s]\n\n", section->name, section->placeholder ? " " : "",
		      section->placeholder ? section->placeholder : "");
	if (section->naming == CONFIG_NAMED_OR_NOT)
		(void)fprintf(f, "Also plain `[%s]`. ", section->name);
	(void)fprintf(f, "%s\n\n", section->doc);
	(void)fputs("| key | default | value | reload | meaning |\n"
		    "| --- | --- | --- | --- | --- |\n",
		    f);
	for (size_t i = 0; i < section->n_keys; i++)
		reference_key(f, &section->keys[i]);
}

void config_print_reference(FILE *f)
{
	size_t n;
	const struct config_section *sections = config_keys_sections(&n);

	(void)fputs(reference_head, f);
	for (size_t i = 0; i < n; i++)
		reference_section(f, &sections[i]);
}
