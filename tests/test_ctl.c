/* The tool's parts that need neither daemon nor store: its command line, the bodies that it makes,
 * the secrets that it reads, and what the doctor finds. */
#include "ctl_internal.h"

#include "clock.h"
#include "ingest.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1795219200000) /* 2026-11-21T00:00:00Z */

/* ---- the command line ---- */

static int read_line(const char *line, struct ctl_options *ret, char error[static CTL_ERROR_MAX])
{
	static char copy[512];
	char *argv[16] = { copy }, *save = NULL;
	int argc = 1;

	(void)snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	error[0] = '\0';
	return ctl_options_read(argc, argv, NOW_MS, ret, error);
}

static struct ctl_options must_read(const char *line)
{
	struct ctl_options o;
	char error[CTL_ERROR_MAX];

	if (read_line(line, &o, error) != 0)
		fail_msg("%s: %s", line, error);
	return o;
}

static void expect_usage(const char *line, const char *what)
{
	struct ctl_options o;
	char error[CTL_ERROR_MAX];

	assert_int_equal(read_line(line, &o, error), CTL_EXIT_USAGE);
	if (!strstr(error, what) || strchr(error, '\n'))
		fail_msg("%s: wanted \"%s\", got: %s", line, what, error);
}

static void options_stand_anywhere_and_join_their_values(void **state)
{
	struct ctl_options o = must_read("-c a.ini events --limit 5 --format=json --sandbox=s=1");

	assert_string_equal(o.config_path, "a.ini");
	assert_string_equal(o.command, "events");
	assert_int_equal(o.limit, 5);
	assert_int_equal(o.format, TABLE_OUT_JSON);
	assert_string_equal(o.sandbox, "s=1");
	assert_int_equal(o.given, CTL_LIMIT | CTL_FORMAT | CTL_SANDBOX);
	o = must_read("--failed send --config b.ini");
	assert_string_equal(o.config_path, "b.ini");
	assert_true(o.failed);
	o = must_read("verify --signature -abc --file -");
	assert_string_equal(o.signature, "-abc");
	assert_string_equal(o.file, "-");
}

static void what_is_not_given_has_its_default(void **state)
{
	struct ctl_options o = must_read("events");

	assert_string_equal(o.config_path, CONFIG_DEFAULT_PATH);
	assert_int_equal(o.limit, 100);
	assert_int_equal(o.count, 1);
	assert_int_equal(o.given, 0);
	assert_null(o.argument);
	assert_null(must_read("").command);
}

static void times_are_ago_or_absolute(void **state)
{
	assert_int_equal(must_read("events --since 24h").since_ms, NOW_MS - 86400000);
	assert_int_equal(must_read("events --since 2026-11-20").since_ms, NOW_MS - 86400000);
	assert_int_equal(must_read("events --until 2026-11-20T23:59:59.5Z").until_ms, NOW_MS - 500);
	assert_int_equal(must_read("events --until 2026-11-21T01:00:00+01:00").until_ms, NOW_MS);
}

static void mistakes_are_told_by_name(void **state)
{
	expect_usage("events --sandox x", "Did you mean --sandbox?");
	expect_usage("events --sandb x", "unknown option: --sandb"); /* no abbreviations */
	expect_usage("events --limit", "--limit needs a value");
	expect_usage("events --limit x", "--limit");
	expect_usage("events --limit -1", "--limit");
	expect_usage("events --limit=", "--limit");
	expect_usage("events --limit 99999999999999999999", "--limit");
	expect_usage("events --since soon", "--since");
	expect_usage("events --since 2026-02-30", "--since");
	expect_usage("events --format xml", "--format");
	expect_usage("send --failed=yes", "takes no value");
	expect_usage("events --limit 1 --limit 2", "twice");
	expect_usage("help events more again", "unexpected argument: again");
	expect_usage("events -x", "unknown option: -x");
	expect_usage("send --count 0", "--count: want a number from 1 to");
	assert_int_equal(must_read("events --limit 0").limit, 0);
}

static void only_what_the_command_takes_is_suggested(void **state)
{
	static const char *const without[] = { "alerts", "notifications", "costs", "runs" };
	struct ctl_options o;
	char line[64], error[CTL_ERROR_MAX];

	expect_usage("events --nope", "Did you mean --type?");
	expect_usage("alerts --formt json", "Did you mean --format?");
	for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
		(void)snprintf(line, sizeof(line), "%s --nope", without[i]);
		assert_int_equal(read_line(line, &o, error), CTL_EXIT_USAGE);
		assert_string_equal(error, "unknown option: --nope");
	}
}

static void an_option_of_another_command_is_surplus(void **state)
{
	assert_string_equal(ctl_options_surplus(CTL_TYPE | CTL_LIMIT, CTL_LIMIT), "--type");
	assert_null(ctl_options_surplus(CTL_LIMIT, CTL_LIMIT | CTL_TYPE));
}

/* ---- bodies ---- */

static void judge(struct ingest_result *ret, const struct buffer *body)
{
	static const struct ingest_policy all;

	assert_int_equal(ingest_judge_body(ret, &all, NULL, (struct span) { body->data, body->len },
					   NOW_MS, 0),
			 0);
	if (ret->verdict != INGEST_STORE)
		fail_msg("%s: %s: %s", body->data, ingest_reason_name(ret->reason), ret->detail);
}

static void every_known_type_is_an_event_of_its_kind(void **state)
{
	for (int kind = EVENT_CREATED; kind <= EVENT_TEST; kind++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
		CLEANUP(ingest_result_finish) struct ingest_result result = { .verdict = 0 };
		const struct ctl_body wanted = { .type = event_kind_name((enum event_kind)kind),
						 .now_ms = NOW_MS };
		if (kind == EVENT_FORKED) /* an extension of others: not made here */
			continue;
		assert_int_equal(ctl_body_append(&b, &wanted), 0);
		judge(&result, &b);
		assert_int_equal(result.event.kind, kind);
		assert_int_equal(result.event.time_unix_ns, NOW_MS * CLOCK_NS_PER_MS);
		assert_int_equal(result.event.run_id.s != NULL,
				 kind != EVENT_CODE_EXECUTED && kind != EVENT_TEST);
	}
}

static void an_unnamed_type_is_the_test_event_and_an_unknown_one_is_kept(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
	CLEANUP(ingest_result_finish) struct ingest_result result = { .verdict = 0 };
	struct ctl_body wanted = { .now_ms = NOW_MS };

	assert_int_equal(ctl_body_append(&b, &wanted), 0);
	judge(&result, &b);
	assert_int_equal(result.event.kind, EVENT_TEST);
	assert_null(result.event.sandbox_id.s);
	ingest_result_finish(&result);
	buffer_clear(&b);
	wanted.type = "sandbox.custom";
	assert_int_equal(ctl_body_append(&b, &wanted), 0);
	judge(&result, &b);
	assert_int_equal(result.event.kind, EVENT_OTHER);
	assert_true(span_is(result.event.type, SPAN_LITERAL("sandbox.custom")));
}

static void a_killed_run_reports_its_size_and_time(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
	CLEANUP(ingest_result_finish) struct ingest_result result = { .verdict = 0 };
	const struct ctl_body wanted = { .type = "sandbox.lifecycle.killed",
					 .sandbox_id = "i1",
					 .template_id = "t1",
					 .now_ms = NOW_MS };

	assert_int_equal(ctl_body_append(&b, &wanted), 0);
	judge(&result, &b);
	assert_true(result.event.report.present);
	assert_int_equal(result.event.report.started_unix_ms, NOW_MS - 60000);
	assert_int_equal(result.event.report.duration_ms, 60000);
	assert_true(span_is(result.event.kill_reason, SPAN_LITERAL("request")));
	assert_true(span_is(result.event.sandbox_id, SPAN_LITERAL("i1")));
	assert_true(span_is(result.event.template_id, SPAN_LITERAL("t1")));
	assert_null(result.event.run_id.s);
}

static void an_execution_fails_when_asked_to(void **state)
{
	for (int failed = 0; failed <= 1; failed++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
		CLEANUP(ingest_result_finish) struct ingest_result result = { .verdict = 0 };
		const struct ctl_body wanted = { .type = "code_executed",
						 .failed = failed,
						 .now_ms = NOW_MS };
		assert_int_equal(ctl_body_append(&b, &wanted), 0);
		judge(&result, &b);
		assert_int_equal(result.event.execution.failed, failed);
		assert_int_equal(result.event.execution.duration_ms, 1000);
	}
}

static void ids_are_fresh(void **state)
{
	char a[CTL_UUID_MAX], b[CTL_UUID_MAX];

	assert_int_equal(ctl_make_uuid(a), 0);
	assert_int_equal(ctl_make_uuid(b), 0);
	assert_int_equal(strlen(a), 36);
	assert_int_equal(a[14], '4');
	assert_non_null(strchr("89ab", a[19]));
	assert_string_not_equal(a, b);
}

static void what_the_caller_names_cannot_break_out_of_its_string(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
	const struct ctl_body wanted = { .type = "created",
					 .sandbox_id = "x\",\"type\":\"y",
					 .now_ms = NOW_MS };

	assert_int_equal(ctl_body_append(&b, &wanted), 0);
	assert_non_null(strstr(b.data, "\"sandbox_id\":\"x\\\",\\\"type\\\":\\\"y\""));
}

/* ---- secrets ---- */

static void secrets_are_read_as_the_keyring_reads_them(void **state)
{
	static const char text[] = "\xef\xbb\xbf  first-secret-0123456789-0123456789 \r\n\n\t\n"
				   "second-secret-0123456789-0123456789";
	char path[] = "/tmp/hookd-test-XXXXXX", error[CTL_ERROR_MAX];
	CLEANUP(ctl_secrets_finish) struct ctl_secrets secrets = { .n = 0 };
	struct config_source source = { .name = (char *)"e2b",
					.secret_from = CONFIG_SECRET_FILE,
					.secret_name = path };
	struct signature_keyring *keyring = NULL;
	CLEANUP_CLOSE int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	assert_int_equal(ctl_secrets_read(&source, &secrets, error), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(secrets.n, 2);
	assert_true(span_is(secrets.items[0], SPAN_LITERAL("first-secret-0123456789-0123456789")));
	assert_true(span_is(secrets.items[1], SPAN_LITERAL("second-secret-0123456789-0123456789")));
	assert_int_equal(ctl_secrets_keyring(&source, &secrets, &keyring, error), 0);
	assert_int_equal(signature_keyring_count(keyring), 2);
	signature_keyring_free(keyring);
}

static void secrets_that_cannot_be_read_are_told_without_a_byte_of_them(void **state)
{
	char error[CTL_ERROR_MAX];
	struct ctl_secrets secrets;
	struct config_source source = { .name = (char *)"e2b",
					.secret_from = CONFIG_SECRET_FILE,
					.secret_name = (char *)"/nowhere/secret" };

	assert_int_equal(ctl_secrets_read(&source, &secrets, error), -ENOENT);
	assert_non_null(strstr(error, "[source e2b]"));
	assert_non_null(strstr(error, "/nowhere/secret"));
	source.secret_name = (char *)"/dev/zero";
	assert_int_equal(ctl_secrets_read(&source, &secrets, error), -EINVAL);
	source.secret_from = CONFIG_SECRET_ENV;
	source.secret_name = (char *)"HOOKD_TEST_SECRET";
	assert_int_equal(setenv("HOOKD_TEST_SECRET", "the-secret-itself", 1), 0);
	assert_int_equal(ctl_secrets_read(&source, &secrets, error), -ENOENT);
	assert_null(strstr(error, "the-secret-itself"));
	assert_int_equal(unsetenv("HOOKD_TEST_SECRET"), 0);
}

/* ---- the doctor ---- */

#define BODY "{\"id\": \"a1\", \"n\": [1, 2]}"
#define SECRET "a-secret-for-tests-0123456789abcdef"
#define LONG_SECRET                                                                                \
	"LLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLL" \
	"L"                                                                                        \
	"LLLLLLLLLLL"
#define WHSEC "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"

static void diagnose(struct buffer *out, enum signature_scheme scheme, const char *signature,
		     struct span body)
{
	struct ctl_secrets mine = { .items = { SPAN_LITERAL("not-this-one-0123456789-0123456789"),
					       SPAN_LITERAL(SECRET) },
				    .n = 2 };
	struct ctl_secrets theirs = { .items = { SPAN_LITERAL(LONG_SECRET), SPAN_LITERAL(WHSEC) },
				      .n = 2 };
	const struct config_source sources[] = { { .name = (char *)"mine", .scheme = scheme },
						 { .name = (char *)"theirs" } };
	const struct ctl_doctor_source known[] = { { &sources[0], &mine },
						   { &sources[1], &theirs } };
	const struct ctl_doctor_case it = { .signature = { signature, strlen(signature) },
					    .body = body,
					    .id = SPAN_LITERAL("m1"),
					    .timestamp = SPAN_LITERAL("1700000000") };

	assert_int_equal(ctl_doctor_explain(out, &it, known, 2), 0);
	assert_null(strstr(out->data, SECRET));
	assert_null(strstr(out->data, LONG_SECRET));
	assert_null(strstr(out->data, &WHSEC[6]));
}

static void expect_findings(enum signature_scheme scheme, const char *signature, struct span body,
			    const char *const *words, size_t n)
{
	CLEANUP(buffer_finish) struct buffer out = BUFFER_INIT(4096);

	diagnose(&out, scheme, signature, body);
	for (size_t i = 0; i < n; i++)
		if (words[i] && !strstr(out.data, words[i]))
			fail_msg("%s: wanted \"%s\", got: %s", signature, words[i], out.data);
}

static void the_doctor_knows_common_mistakes(void **state)
{
	/* Values made by another program. */
	static const struct {
		const char *signature, *words[3];
	} cases[] = {
		{ "d52c3ff14f7a1bb2a7f9153a8575307ee0b7c3541bd18989ffbf9088721bd26f",
		  { "SHA-256 of secret and body", "in hex,", "secret 2 of source mine" } },
		{ "Lt6RqcFO0QDgTl/ONfaIL7NlmNe+IJMjGsCKm2JD51Y", { "wrong order", "in base64," } },
		{ "KdZy9O3ClGqIRbmsyjeUmOnve2Drxti8uguzPVZmWEM", { "HMAC-SHA-256 of the body" } },
		{ "KdZy9O3ClGqIRbmsyjeUmOnve2Drxti8uguzPVZmWEM=", { "HMAC-SHA-256 of the body" } },
		{ "sha256=29d672f4edc2946a8845b9acca379498e9ef7b60ebc6d8bcba0bb33d56665843",
		  { "HMAC-SHA-256 of the body", "hex (sha256=)" } },
		{ "0zpCQefpsZs0Z6Yp+9oglT4gq8dr0PILO3XGc/8LH1k",
		  { "SHA-256 of secret and body", "the body with a newline behind it" } },
		{ "0pJkaxHtIWArot0LwO6xEEgHwleUrFChU+H1i8SoOyM", { "CR and a newline behind it" } },
		{ "jdrCT9E4ZHFP8/NBzyFfnKLrb90CmQKrJ4lmc7blDgs",
		  { "SHA-256 of secret and body", "newline of its file" } },
		{ "99abb3ef7393e7de069689a0a5a321da4db8b218a919072a0f7819bcc44d0505",
		  { "HMAC-SHA-256 of the body", "newline of its file" } },
		{ "fVOlCnMw7jPKu18ECZ6yA_YEkcU388DHAvk00isl4x8", { "re-serialised" } },
		{ "v1,b487S0zTQ2zOtSY6yeGWWDYOHHbFVIXto/+IdHVfnEg=",
		  { "id.timestamp.body", "secret 2 of source theirs", "decoded from the base64" } },
		{ "v1,uhsiPxGDgh4Nek/d46HjC2x41XyCMTIRJ16Yk8QwSLI=",
		  { "id.timestamp.body", "secret 2 of source theirs" } },
		{ "v1a,xx v1,ZivDeiGIaNRLCFnkZe9eDbwNmD82ePDP8xxx8MR7eMw=",
		  { "without its whsec_", "base64 (v1)" } },
		{ "9WFa2OzSYsq7fuT04QGMGaz7vSc+uPaTmkWPgiUZAYE", { "without the id" } },
		{ "hCl5icEXIEiMQFXSEO5/QnAkCn0L+2lwrsxaRcg/KO0",
		  { "HMAC-SHA-256 of the body", "secret 1 of source theirs" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_findings(SIGNATURE_E2B, cases[i].signature, SPAN_LITERAL(BODY),
				cases[i].words, ARRAY_SIZE(cases[i].words));
}

static void the_doctor_takes_away_a_newline_that_the_file_has(void **state)
{
	static const char *const plain = "1Sw/8U96G7Kn+RU6hXUwfuC3w1Qb0YmJ/7+QiHIb0m8";
	static const char *const lf[] = { "without the newline at its end" };
	static const char *const crlf[] = { "without CR and the newline at its end" };

	expect_findings(SIGNATURE_E2B, plain, SPAN_LITERAL(BODY "\n"), lf, 1);
	expect_findings(SIGNATURE_E2B, plain, SPAN_LITERAL(BODY "\r\n"), crlf, 1);
}

static void the_doctor_says_what_the_source_wants(void **state)
{
	static const char *const plain = "1Sw/8U96G7Kn+RU6hXUwfuC3w1Qb0YmJ/7+QiHIb0m8";
	static const char *const words[] = {
		"made as: SHA-256 of secret and body (scheme e2b)",
		"wanted: HMAC-SHA-256 of the body (scheme hmac-sha256)"
	};

	expect_findings(SIGNATURE_HMAC_SHA256, plain, SPAN_LITERAL(BODY), words, 2);
}

static void the_doctor_admits_what_it_cannot_explain(void **state)
{
	static const char *const unknown[] = { "made as: unknown", "form: base64" };
	static const char *const form[] = { "8 characters that are neither" };
	static const char *const none[] = { "no signature was sent" };

	expect_findings(SIGNATURE_E2B, "0dh5vy6qK8YegA2rTW9a6WDGgfQFefFKehkH9CIzhgU",
			SPAN_LITERAL(BODY), unknown, 2);
	expect_findings(SIGNATURE_E2B, "deadbeef", SPAN_LITERAL(BODY), form, 1);
	expect_findings(SIGNATURE_E2B, "", SPAN_LITERAL(BODY), none, 1);
	expect_findings(SIGNATURE_E2B, "deadbeef", SPAN_LITERAL(""), form, 1);
	expect_findings(SIGNATURE_E2B, "deadbeef", SPAN_LITERAL("\xff\0["), form, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_stand_anywhere_and_join_their_values),
		cmocka_unit_test(what_is_not_given_has_its_default),
		cmocka_unit_test(times_are_ago_or_absolute),
		cmocka_unit_test(mistakes_are_told_by_name),
		cmocka_unit_test(only_what_the_command_takes_is_suggested),
		cmocka_unit_test(an_option_of_another_command_is_surplus),
		cmocka_unit_test(every_known_type_is_an_event_of_its_kind),
		cmocka_unit_test(an_unnamed_type_is_the_test_event_and_an_unknown_one_is_kept),
		cmocka_unit_test(a_killed_run_reports_its_size_and_time),
		cmocka_unit_test(an_execution_fails_when_asked_to),
		cmocka_unit_test(ids_are_fresh),
		cmocka_unit_test(what_the_caller_names_cannot_break_out_of_its_string),
		cmocka_unit_test(secrets_are_read_as_the_keyring_reads_them),
		cmocka_unit_test(secrets_that_cannot_be_read_are_told_without_a_byte_of_them),
		cmocka_unit_test(the_doctor_knows_common_mistakes),
		cmocka_unit_test(the_doctor_takes_away_a_newline_that_the_file_has),
		cmocka_unit_test(the_doctor_says_what_the_source_wants),
		cmocka_unit_test(the_doctor_admits_what_it_cannot_explain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
