/* What the tests of the configuration share: a smallest source, and loads that must or must not
 * succeed. Secrets are not read. */
#pragma once

#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define SOURCE "[source e2b]\npath = /e2b\n"
#define HMAC_SOURCE SOURCE "signature = hmac-sha256\n"

static UNUSED int load(const char *text, struct config **ret, struct config_report *report)
{
	return config_load_text("test.ini", text, strlen(text), CONFIG_SECRETS_IGNORED, ret,
				report);
}

/* Loads what must load without a finding. */
static UNUSED struct config *must_load(const char *text)
{
	struct config *config;
	struct config_report report;
	int rc = load(text, &config, &report);
	if (rc != 0)
		fail_msg("line %u: %s", report.items[0].line, report.items[0].text);
	assert_int_equal(report.n, 0);
	config_report_finish(&report);
	return config;
}

/* Exactly one error, at this line, with this text in it. */
static UNUSED void expect_error(const char *text, unsigned int line, const char *what)
{
	struct config *config;
	CLEANUP(config_report_finish) struct config_report report;
	int rc = load(text, &config, &report);
	if (rc == 0)
		fail_msg("accepted, but wanted \"%s\": %s", what, text);
	assert_int_equal(rc, CONFIG_BAD);
	assert_null(config);
	if (report.n != 1 || report.n_errors != 1 || report.items[0].line != line ||
	    !strstr(report.items[0].text, what))
		fail_msg("%zu findings, first in line %u: %s; wanted line %u: %s", report.n,
			 report.items[0].line, report.items[0].text, line, what);
}
