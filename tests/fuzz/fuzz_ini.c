/* Any bytes as a configuration: the reader keeps its promises about what it hands over, and a load
 * ends in a configuration or in errors, never in both or neither. Secrets are not read. */
#include "config.h"
#include "ini.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	bool in_section;
	size_t n_problems;
};

static void check_text(const char *text)
{
	size_t len = strlen(text);
	assert(len <= INI_LINE_MAX);
	assert(len == 0 || (text[0] != ' ' && text[len - 1] != ' ' && text[len - 1] != '\t'));
	for (size_t i = 0; i < len; i++)
		assert((unsigned char)text[i] >= 0x20 || text[i] == '\t');
}

static void on_section(void *ctx, unsigned int line, const char *section, const char *name)
{
	((struct seen *)ctx)->in_section = true;
	assert(line > 0 && *section);
	check_text(section);
	check_text(name);
}

static void on_entry(void *ctx, unsigned int line, const char *key, const char *value)
{
	assert(((struct seen *)ctx)->in_section && line > 0 && *key);
	check_text(key);
	check_text(value);
}

static void on_problem(void *ctx, unsigned int line, const char *what)
{
	assert(line > 0 && *what);
	((struct seen *)ctx)->n_problems++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen seen = { 0 };
	const struct ini_handler handler = { on_section, on_entry, on_problem, &seen };
	assert(ini_parse((const char *)data, size, &handler) == seen.n_problems);

	struct config *config;
	struct config_report report;
	int rc = config_load_text("fuzz.ini", (const char *)data, size, CONFIG_SECRETS_IGNORED,
				  &config, &report);
	assert(rc == 0 || rc == CONFIG_BAD);
	assert((rc == 0) == (config != NULL) && (rc == 0) == (report.n_errors == 0));
	assert(rc != 0 || (config->n_sources > 0 && config->server.n_listen > 0 &&
			   config->pricing.n > 0 && config->store.path));
	assert(seen.n_problems <= report.n_errors);
	config_unref(config);
	config_report_finish(&report);
	return 0;
}
