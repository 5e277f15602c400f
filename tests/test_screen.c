/* The header screen: what passes, and that every ambiguity has its refusal. */
#include "screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Headers as `name: value` lines; the name ends at the first colon. */
static int screen(const char *method, const char *version, const char *lines,
		  struct screen_framing *ret)
{
	struct screen_header headers[SCREEN_HEADERS_MAX + 1];
	struct screen_request request = {
		.method = method,
		.version = version,
		.headers = headers,
		.once = { "e2b-signature", "webhook-id" },
	};
	while (*lines) {
		size_t len = strcspn(lines, "\n"), name = strcspn(lines, ":");
		headers[request.n_headers++] = (struct screen_header) {
			{ lines, name },
			{ lines + name + 2, len - name - 2 },
		};
		lines += len + (lines[len] == '\n');
	}
	return screen_headers(&request, ret);
}

static void expect(const char *method, const char *version, const char *lines, int outcome)
{
	struct screen_framing framing;
	int r = screen(method, version, lines, &framing);
	if (r != outcome)
		fail_msg("%s %s [%s]: %d, wanted %d", method, version, lines, r, outcome);
}

static void passes_what_real_senders_send(void **state)
{
	struct screen_framing f;
	assert_int_equal(screen("POST", "HTTP/1.1",
				"Host: h:1\ncontent-length: 12\nContent-Type: application/json\n"
				"E2B-Signature: abc\nUser-Agent: Go-http-client/1.1",
				&f),
			 0);
	assert_true(f.has_body && !f.chunked && f.length == 12 && !f.expects_continue);
	assert_int_equal(screen("POST", "HTTP/1.1", "host: h\nTransfer-Encoding: Chunked", &f), 0);
	assert_true(f.has_body && f.chunked && f.length == -1);
	assert_int_equal(screen("POST", "HTTP/1.0", "Host: h\nContent-Length: 0", &f), 0);
	assert_false(f.has_body);
	assert_int_equal(screen("GET", "HTTP/1.1", "Host: h\nConnection: keep-alive, Close", &f),
			 0);
	assert_true(!f.has_body && f.closes);
	assert_int_equal(screen("GET", "HTTP/1.1", "Host: h\nContent-Length: 0", &f), 0);
	assert_int_equal(screen("DELETE", "HTTP/1.1", "Host: h", &f), 0);
}

static void knows_who_waits_for_100_continue(void **state)
{
	struct screen_framing f;
	const char *lines = "Host: h\nContent-Length: 5\nExpect: 100-Continue";
	assert_int_equal(screen("POST", "HTTP/1.1", lines, &f), 0);
	assert_true(f.expects_continue);
	assert_int_equal(screen("POST", "HTTP/1.0", lines, &f), 0);
	assert_false(f.expects_continue);
}

static void refuses_ambiguous_lengths(void **state)
{
	static const char *const values[] = { "",    " ",   "+5", "-5",	 "5 ",	       "5,5",
					      "0x5", "5.0", "５", "1e1", "12345678901" };
	char lines[100];
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length: 5\nContent-Length: 6",
	       SCREEN_BAD_LENGTH);
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length: 5\nContent-Length: 5",
	       SCREEN_BAD_LENGTH);
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length : 5", SCREEN_BAD_NAME);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		(void)snprintf(lines, sizeof(lines), "Host: h\nContent-Length: %s", values[i]);
		expect("POST", "HTTP/1.1", lines, SCREEN_BAD_LENGTH);
	}
}

static void refuses_codings_it_does_not_speak(void **state)
{
	static const char *const values[] = { "gzip",	       "gzip, chunked", "chunked, gzip",
					      "xchunked",      "chunked ",	"",
					      "chunked;q=1.0", "identity" };
	char lines[100];
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		(void)snprintf(lines, sizeof(lines), "Host: h\nTransfer-Encoding: %s", values[i]);
		expect("POST", "HTTP/1.1", lines, SCREEN_BAD_CODING);
	}
	expect("POST", "HTTP/1.1",
	       "Host: h\nTransfer-Encoding: chunked\ntransfer-encoding: chunked",
	       SCREEN_BAD_CODING);
	expect("POST", "HTTP/1.0", "Host: h\nTransfer-Encoding: chunked", SCREEN_BAD_CODING);
	expect("POST", "HTTP/1.1", "Host: h\nTransfer-Encoding: chunked\nContent-Length: 5",
	       SCREEN_LENGTH_AND_CODING);
	expect("GET", "HTTP/1.1", "Host: h\nContent-Length: 5\nTransfer-Encoding: gzip",
	       SCREEN_LENGTH_AND_CODING);
}

static void wants_exactly_one_host(void **state)
{
	expect("GET", "HTTP/1.1", "", SCREEN_BAD_HOST);
	expect("GET", "HTTP/1.0", "", SCREEN_BAD_HOST);
	expect("GET", "HTTP/1.1", "Host: a\nHOST: a", SCREEN_BAD_HOST);
}

static void wants_a_body_where_one_belongs_and_only_there(void **state)
{
	expect("POST", "HTTP/1.1", "Host: h", SCREEN_NO_LENGTH);
	expect("PUT", "HTTP/1.1", "Host: h", SCREEN_NO_LENGTH);
	expect("GET", "HTTP/1.1", "Host: h\nContent-Length: 5", SCREEN_UNEXPECTED_BODY);
	expect("GET", "HTTP/1.1", "Host: h\nExpect: 100-continue", SCREEN_BAD_EXPECT);
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length: 0\nExpect: 100-continue",
	       SCREEN_BAD_EXPECT);
	expect("GET", "HTTP/1.0", "Host: h\nExpect: 100-continue", 0);
	expect("HEAD", "HTTP/1.1", "Host: h\nTransfer-Encoding: chunked", SCREEN_UNEXPECTED_BODY);
}

static void refuses_repeated_signatures(void **state)
{
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length: 5\ne2b-signature: a\nE2B-SIGNATURE: a",
	       SCREEN_REPEATED);
	expect("POST", "HTTP/1.1", "Host: h\nContent-Length: 5\nwebhook-id: a\nwebhook-id: b",
	       SCREEN_REPEATED);
	expect("POST", "HTTP/1.1",
	       "Host: h\nContent-Length: 5\ne2b-delivery-id: a\n"
	       "e2b-delivery-id: b\ne2b-signature: a\nwebhook-id: b",
	       0);
}

static void refuses_names_and_values_that_hide_something(void **state)
{
	expect("GET", "HTTP/1.1", "Host: h\nX Y: a", SCREEN_BAD_NAME);
	expect("GET", "HTTP/1.1", "Host: h\nXb=a: a", SCREEN_BAD_NAME);
	expect("GET", "HTTP/1.1", "Host: h\nX\tY: a", SCREEN_BAD_NAME);
	expect("GET", "HTTP/1.1", "Host: h\n: a", SCREEN_BAD_NAME);
	expect("GET", "HTTP/1.1", "Host: h\nX: a\rb", SCREEN_BAD_VALUE);
	expect("GET", "HTTP/1.1", "Host: h\nX: a\x7f", SCREEN_BAD_VALUE);
	expect("GET", "HTTP/1.1", "Host: h\nX: tab\tand \xc3\xa9", 0);
}

static void refuses_other_versions(void **state)
{
	expect("GET", "HTTP/1.2", "Host: h", SCREEN_BAD_VERSION);
	expect("GET", "HTTP/0.9", "Host: h", SCREEN_BAD_VERSION);
	expect("GET", "", "Host: h", SCREEN_BAD_VERSION);
}

static void counts_headers(void **state)
{
	char lines[8 * (SCREEN_HEADERS_MAX + 2)] = "Host: h";
	for (int i = 1; i < SCREEN_HEADERS_MAX; i++)
		strncat(lines, "\nX: a", sizeof(lines) - strlen(lines) - 1);
	expect("GET", "HTTP/1.1", lines, 0);
	strncat(lines, "\nX: a", sizeof(lines) - strlen(lines) - 1);
	expect("GET", "HTTP/1.1", lines, SCREEN_TOO_MANY_HEADERS);
}

static void refuses_blanks_and_controls_in_a_target(void **state)
{
	assert_true(screen_target("/a?b=%20c"));
	assert_false(screen_target("/a b"));
	assert_false(screen_target("/a\tb"));
	assert_false(screen_target("/a\x01"));
	assert_false(screen_target("/\xc3\xa9"));
}

static void has_a_name_for_every_outcome(void **state)
{
	for (int i = 1; i < SCREEN_N_OUTCOMES; i++)
		assert_true(strlen(screen_outcome_name((enum screen_outcome)i)) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(passes_what_real_senders_send),
		cmocka_unit_test(knows_who_waits_for_100_continue),
		cmocka_unit_test(refuses_ambiguous_lengths),
		cmocka_unit_test(refuses_codings_it_does_not_speak),
		cmocka_unit_test(wants_exactly_one_host),
		cmocka_unit_test(wants_a_body_where_one_belongs_and_only_there),
		cmocka_unit_test(refuses_repeated_signatures),
		cmocka_unit_test(refuses_names_and_values_that_hide_something),
		cmocka_unit_test(refuses_other_versions),
		cmocka_unit_test(counts_headers),
		cmocka_unit_test(refuses_blanks_and_controls_in_a_target),
		cmocka_unit_test(has_a_name_for_every_outcome),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
