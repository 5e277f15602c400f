/* What the configuration promises about secrets: none, no start; every way to name a file works;
 * what is wrong with a file is told with its name and a remedy, and never a byte of what it holds.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/stat.h>

#define LONG_SECRET "0123456789abcdefghijklmnopqrstuv"
#define SHORT_SECRET "tooshort-zyx"
#define VARIABLE "HOOKD_TEST_SECRET_PATH"

static char directory[64];

static const char *in_directory(const char *name)
{
	static char path[128];
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void write_secret(const char *text, size_t len, mode_t mode)
{
	const char *path = in_directory("secret");
	(void)unlink(path); /* the one before may be closed to us */
	CLEANUP_FILE FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(chmod(path, mode), 0);
}

static void write_text(const char *text)
{
	write_secret(text, strlen(text), 0640);
}

static int make_directory(void **state)
{
	(void)snprintf(directory, sizeof(directory), "/tmp/hookd-secrets-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)unlink(in_directory("secret"));
	(void)unlink(in_directory("fifo"));
	return rmdir(directory);
}

static int forget_environment(void **state)
{
	(void)unsetenv("CREDENTIALS_DIRECTORY");
	(void)unsetenv(VARIABLE);
	return 0;
}

/* One load of a source with one more line, and what came of it. */
struct outcome {
	int rc;
	struct config *config;
	struct config_report report;
};

static void outcome_finish(struct outcome *o)
{
	config_unref(o->config);
	config_report_finish(&o->report);
}

static struct outcome load(enum config_secrets secrets, const char *fmt, ...) PRINTF_LIKE(2, 3);

static struct outcome load(enum config_secrets secrets, const char *fmt, ...)
{
	struct outcome o;
	char text[512] = "[source e2b]\npath = /e2b\n";
	size_t len = strlen(text);
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(text + len, sizeof(text) - len, fmt, args);
	va_end(args);
	o.rc = config_load_text("test.ini", text, strlen(text), secrets, &o.config, &o.report);
	for (size_t i = 0; i < o.report.n; i++) {
		assert_null(strstr(o.report.items[i].text, "zyx"));
		assert_null(strstr(o.report.items[i].text, "cdefgh"));
	}
	return o;
}

static struct outcome load_file(void)
{
	return load(CONFIG_SECRETS_REQUIRED, "secret_file = %s\n", in_directory("secret"));
}

/* One finding in line 3, about the file, with a remedy in it. */
static void expect_finding(const struct outcome *o, bool is_error, const char *what)
{
	assert_int_equal(o->rc, is_error ? CONFIG_BAD : 0);
	assert_int_equal(o->report.n, 1);
	assert_int_equal(o->report.items[0].is_error, is_error);
	assert_int_equal(o->report.items[0].line, 3);
	if (!strstr(o->report.items[0].text, what))
		fail_msg("%s; wanted %s", o->report.items[0].text, what);
}

static void expect_file_finding(const char *text, size_t len, bool is_error, const char *what)
{
	write_secret(text, len, 0640);
	CLEANUP(outcome_finish) struct outcome o = load_file();
	expect_finding(&o, is_error, what);
	assert_non_null(strstr(o.report.items[0].text, directory));
}

static void reads_every_secret_of_a_file(void **state)
{
	write_text(LONG_SECRET "1\n\n" LONG_SECRET "2\r\n");
	CLEANUP(outcome_finish) struct outcome o = load_file();
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.report.n, 0);
	const struct config_source *s = &o.config->sources[0];
	assert_int_equal(signature_keyring_count(s->policy.keyring), 2);
	assert_int_equal(signature_keyring_scheme(s->policy.keyring), SIGNATURE_E2B);
	assert_string_equal(s->secret_path, in_directory("secret"));
}

static void finds_a_credential_in_its_directory(void **state)
{
	write_text(LONG_SECRET);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", directory, 1), 0);
	CLEANUP(outcome_finish)
	struct outcome o = load(CONFIG_SECRETS_REQUIRED, "secret_credential = secret\n");
	assert_int_equal(o.rc, 0);
	assert_string_equal(o.config->sources[0].secret_path, in_directory("secret"));
	assert_int_equal(signature_keyring_count(o.config->sources[0].policy.keyring), 1);
}

static void finds_a_file_through_a_variable(void **state)
{
	write_text(LONG_SECRET);
	assert_int_equal(setenv(VARIABLE, in_directory("secret"), 1), 0);
	CLEANUP(outcome_finish)
	struct outcome o = load(CONFIG_SECRETS_REQUIRED, "secret_env = " VARIABLE "\n");
	assert_int_equal(o.rc, 0);
	assert_int_equal(signature_keyring_count(o.config->sources[0].policy.keyring), 1);
}

static void refuses_a_variable_that_holds_the_secret_itself(void **state)
{
	assert_int_equal(setenv(VARIABLE, SHORT_SECRET, 1), 0);
	CLEANUP(outcome_finish)
	struct outcome o = load(CONFIG_SECRETS_REQUIRED, "secret_env = " VARIABLE "\n");
	expect_finding(&o, true, "must hold the absolute path of a file, not a secret");
}

static void refuses_to_start_without_a_secret(void **state)
{
	CLEANUP(outcome_finish) struct outcome none = load(CONFIG_SECRETS_REQUIRED, "\n");
	assert_int_equal(none.rc, CONFIG_BAD);
	assert_int_equal(none.report.n, 1);
	assert_int_equal(none.report.items[0].line, 1);
	assert_non_null(strstr(none.report.items[0].text, "refusing to start without a secret"));
	CLEANUP(outcome_finish) struct outcome check = load(CONFIG_SECRETS_CHECK, "\n");
	assert_int_equal(check.rc, CONFIG_BAD);
	CLEANUP(outcome_finish)
	struct outcome empty = load(CONFIG_SECRETS_REQUIRED, "secret_file =\n");
	expect_finding(&empty, true, "refusing to start without a secret");
}

static void refuses_a_file_that_holds_no_secret(void **state)
{
	static const char *const blank[] = { "", "\n", " \t\r\n\n" };
	for (size_t i = 0; i < ARRAY_SIZE(blank); i++)
		expect_file_finding(blank[i], strlen(blank[i]), true,
				    "holds no secret: refusing to start");
}

static void refuses_two_ways_at_once(void **state)
{
	static const char *const ways[] = { "secret_file = /x\n", "secret_credential = x\n",
					    "secret_env = X\n" };
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		for (size_t k = 0; k < ARRAY_SIZE(ways); k++) {
			if (i == k)
				continue;
			CLEANUP(outcome_finish)
			struct outcome o = load(CONFIG_SECRETS_IGNORED, "%s%s", ways[i], ways[k]);
			assert_int_equal(o.rc, CONFIG_BAD);
			assert_int_equal(o.report.items[0].line, 4);
			assert_non_null(strstr(o.report.items[0].text, "only one of"));
		}
}

static void says_what_to_do_about_a_file_that_cannot_be_read(void **state)
{
	CLEANUP(outcome_finish)
	struct outcome missing =
		load(CONFIG_SECRETS_REQUIRED, "secret_file = %s\n", in_directory("missing"));
	expect_finding(&missing, true, "does not exist: create it");
	assert_non_null(strstr(missing.report.items[0].text, "chown root:e2b-hookd"));
	assert_non_null(strstr(missing.report.items[0].text, in_directory("missing")));
	CLEANUP(outcome_finish)
	struct outcome folder = load(CONFIG_SECRETS_REQUIRED, "secret_file = %s\n", directory);
	expect_finding(&folder, true, "is not a regular file");
	if (geteuid() == 0)
		return; /* root reads everything */
	write_secret(LONG_SECRET, sizeof(LONG_SECRET) - 1, 0);
	CLEANUP(outcome_finish) struct outcome denied = load_file();
	expect_finding(&denied, true, "chmod 0640");
}

static void does_not_wait_for_a_fifo(void **state)
{
	assert_int_equal(mkfifo(in_directory("fifo"), 0600), 0);
	CLEANUP(outcome_finish)
	struct outcome o =
		load(CONFIG_SECRETS_REQUIRED, "secret_file = %s\n", in_directory("fifo"));
	expect_finding(&o, true, "is not a regular file");
}

static void refuses_files_that_hold_something_else(void **state)
{
	static char large[64 * 1024 + 1];
	memset(large, 'x', sizeof(large));
	expect_file_finding(large, sizeof(large), true, "is larger than 64 KiB");
	expect_file_finding(large, SIGNATURE_SECRET_MAX + 1, true, "is not text");
	expect_file_finding("abc\0def", 7, true, "is not text");
	memset(large, '\n', 1000);
	for (size_t i = 0; i <= SIGNATURE_SECRETS_MAX; i++)
		large[2 * i] = (char)('a' + i);
	expect_file_finding(large, 2 * (SIGNATURE_SECRETS_MAX + 1), true,
			    "holds more than 8 secrets");
}

static void warns_about_a_short_secret_beside_a_long_one(void **state)
{
	const char text[] = LONG_SECRET "\n" SHORT_SECRET "\n";
	expect_file_finding(text, sizeof(text) - 1, false, "shorter than 32 bytes");
}

static void warns_about_a_file_open_to_every_user(void **state)
{
	write_secret(LONG_SECRET, sizeof(LONG_SECRET) - 1, 0644);
	CLEANUP(outcome_finish) struct outcome readable = load_file();
	expect_finding(&readable, false, "can be read by every user: chmod 0640");
	write_secret(LONG_SECRET, sizeof(LONG_SECRET) - 1, 0662);
	CLEANUP(outcome_finish) struct outcome writable = load_file();
	expect_finding(&writable, false, "can be written by every user: chmod 0640");
}

static void a_check_leaves_open_what_only_the_unit_has(void **state)
{
	static const char *const lines[] = { "secret_credential = hook\n",
					     "secret_env = " VARIABLE "\n" };
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		CLEANUP(outcome_finish)
		struct outcome check = load(CONFIG_SECRETS_CHECK, "%s", lines[i]);
		expect_finding(&check, false, "not checkable here: ");
		assert_null(check.config->sources[0].policy.keyring);
		assert_null(check.config->sources[0].secret_path);
		CLEANUP(outcome_finish)
		struct outcome start = load(CONFIG_SECRETS_REQUIRED, "%s", lines[i]);
		expect_finding(&start, true, "is not set");
	}
}

static void reading_commands_touch_no_secret(void **state)
{
	CLEANUP(outcome_finish)
	struct outcome o =
		load(CONFIG_SECRETS_IGNORED,
		     "secret_file = /nonexistent/s\n[admin]\ntoken_file = /nonexistent/t\n");
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.report.n, 0);
	assert_null(o.config->sources[0].policy.keyring);
	assert_null(o.config->admin.token);
	CLEANUP(outcome_finish) struct outcome none = load(CONFIG_SECRETS_IGNORED, "\n");
	assert_int_equal(none.rc, 0);
}

/* The token's file is the secret's too: what is wrong with it is told for both. */
static struct outcome load_token(const char *text, size_t len)
{
	write_secret(text, len, 0640);
	return load(CONFIG_SECRETS_REQUIRED,
		    "secret_env = " VARIABLE "\n[admin]\ntoken_file = %s\n",
		    in_directory("secret"));
}

static void reads_the_token_without_blanks_around(void **state)
{
	const char text[] = " \t" LONG_SECRET "\r\n\n";
	assert_int_equal(setenv(VARIABLE, in_directory("secret"), 1), 0);
	CLEANUP(outcome_finish) struct outcome o = load_token(text, sizeof(text) - 1);
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.report.n, 0);
	assert_string_equal(o.config->admin.token, LONG_SECRET);
}

static void refuses_a_token_that_no_header_can_carry(void **state)
{
	static const struct {
		const char *text;
		const char *what;
	} bad[] = {
		{ LONG_SECRET "\n" LONG_SECRET "\n", "must hold one token" },
		{ LONG_SECRET " x", "must hold one token" },
		{ LONG_SECRET "\xc3\xa9", "must hold one token" },
		{ "\n", "is empty: write a long, random token" },
	};
	assert_int_equal(setenv(VARIABLE, in_directory("secret"), 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP(outcome_finish)
		struct outcome o = load_token(bad[i].text, strlen(bad[i].text));
		assert_int_equal(o.rc, CONFIG_BAD);
		const struct config_problem *last = &o.report.items[o.report.n - 1];
		assert_int_equal(last->line, 5);
		assert_non_null(strstr(last->text, bad[i].what));
	}
}

static void warns_about_a_short_token(void **state)
{
	assert_int_equal(setenv(VARIABLE, in_directory("secret"), 1), 0);
	CLEANUP(outcome_finish)
	struct outcome o = load_token(SHORT_SECRET, sizeof(SHORT_SECRET) - 1);
	assert_int_equal(o.rc, 0);
	assert_int_equal(o.report.n, 2);
	assert_non_null(strstr(o.report.items[1].text, "[admin] token_file"));
	assert_non_null(strstr(o.report.items[1].text, "holds a short token"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(reads_every_secret_of_a_file, forget_environment),
		cmocka_unit_test_setup(finds_a_credential_in_its_directory, forget_environment),
		cmocka_unit_test_setup(finds_a_file_through_a_variable, forget_environment),
		cmocka_unit_test_setup(refuses_a_variable_that_holds_the_secret_itself,
				       forget_environment),
		cmocka_unit_test_setup(refuses_to_start_without_a_secret, forget_environment),
		cmocka_unit_test_setup(refuses_a_file_that_holds_no_secret, forget_environment),
		cmocka_unit_test_setup(refuses_two_ways_at_once, forget_environment),
		cmocka_unit_test_setup(says_what_to_do_about_a_file_that_cannot_be_read,
				       forget_environment),
		cmocka_unit_test_setup(does_not_wait_for_a_fifo, forget_environment),
		cmocka_unit_test_setup(refuses_files_that_hold_something_else, forget_environment),
		cmocka_unit_test_setup(warns_about_a_short_secret_beside_a_long_one,
				       forget_environment),
		cmocka_unit_test_setup(warns_about_a_file_open_to_every_user, forget_environment),
		cmocka_unit_test_setup(a_check_leaves_open_what_only_the_unit_has,
				       forget_environment),
		cmocka_unit_test_setup(reading_commands_touch_no_secret, forget_environment),
		cmocka_unit_test_setup(reads_the_token_without_blanks_around, forget_environment),
		cmocka_unit_test_setup(refuses_a_token_that_no_header_can_carry,
				       forget_environment),
		cmocka_unit_test_setup(warns_about_a_short_token, forget_environment),
	};
	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
