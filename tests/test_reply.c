/* Every answer: its status, that it parses, and that it says nothing it should not. */
#include "reply.h"

#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void every_body_fits_its_content_type(void **state)
{
	for (int kind = 0; kind < REPLY_N_KINDS; kind++) {
		char body[REPLY_BODY_MAX];
		size_t len = reply_body((enum reply_kind)kind, "an-id", "a_reason", body);
		assert_int_equal(len, strlen(body));
		if (!strstr(reply_content_type((enum reply_kind)kind), "json"))
			continue;
		struct json_doc *doc = NULL;
		assert_int_equal(json_parse(body, len, &doc), 0);
		json_doc_free(doc);
	}
}

static void problems_repeat_their_status_as_rfc_9457_asks(void **state)
{
	char body[REPLY_BODY_MAX], status[32];
	for (int kind = 0; kind < REPLY_N_KINDS; kind++) {
		if (reply_status((enum reply_kind)kind) == 200)
			continue;
		(void)reply_body((enum reply_kind)kind, NULL, NULL, body);
		(void)snprintf(status, sizeof(status), "\"status\":%u,",
			       reply_status((enum reply_kind)kind));
		assert_non_null(strstr(body, status));
		assert_string_equal(reply_content_type((enum reply_kind)kind),
				    "application/problem+json");
	}
}

static void names_outcome_and_event(void **state)
{
	char body[REPLY_BODY_MAX];
	(void)reply_body(REPLY_STORED, "abc", NULL, body);
	assert_string_equal(body, "{\"status\":\"stored\",\"event_id\":\"abc\"}\n");
	(void)reply_body(REPLY_QUARANTINED, NULL, "bad_id", body);
	assert_string_equal(body, "{\"status\":\"quarantined\",\"reason\":\"bad_id\"}\n");
}

static void leaves_out_what_could_break_the_json(void **state)
{
	static const char *const texts[] = { "a\"b", "a\\b", "a\nb", "\xc3\xa9", "" };
	char body[REPLY_BODY_MAX], long_text[400];
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		(void)reply_body(REPLY_STORED, texts[i], texts[i], body);
		assert_string_equal(body, "{\"status\":\"stored\"}\n");
	}
	memset(long_text, 'a', sizeof(long_text));
	long_text[128] = 0;
	(void)reply_body(REPLY_QUARANTINED, long_text, long_text, body);
	assert_non_null(strstr(body, long_text));
	assert_non_null(strstr(strstr(body, long_text) + 1, long_text));
	long_text[128] = 'a';
	long_text[399] = 0;
	(void)reply_body(REPLY_STORED, long_text, NULL, body);
	assert_string_equal(body, "{\"status\":\"stored\"}\n");
}

static void a_401_is_one_text_whatever_is_asked(void **state)
{
	char a[REPLY_BODY_MAX], b[REPLY_BODY_MAX];
	(void)reply_body(REPLY_UNAUTHORIZED, NULL, NULL, a);
	(void)reply_body(REPLY_UNAUTHORIZED, "id", "signature_wrong", b);
	assert_string_equal(a, b);
}

static void a_canned_response_is_whole(void **state)
{
	char text[REPLY_CANNED_MAX], length[64];
	for (int kind = 0; kind < REPLY_N_KINDS; kind++) {
		size_t len = reply_canned((enum reply_kind)kind, "GET, HEAD", text);
		const char *body = strstr(text, "\r\n\r\n");
		assert_int_equal(len, strlen(text));
		assert_non_null(body);
		(void)snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n",
			       strlen(body + 4));
		assert_non_null(strstr(text, length));
		assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
		assert_non_null(strstr(text, "\r\nAllow: GET, HEAD\r\n"));
	}
}

static void only_a_503_says_when_to_come_back(void **state)
{
	char text[REPLY_CANNED_MAX];
	for (int kind = 0; kind < REPLY_N_KINDS; kind++) {
		bool unavailable = reply_status((enum reply_kind)kind) == 503;
		(void)reply_canned((enum reply_kind)kind, NULL, text);
		assert_int_equal(strstr(text, "Retry-After: 10\r\n") != NULL, unavailable);
		assert_int_equal(reply_says_retry_after((enum reply_kind)kind), unavailable);
	}
}

static void never_redirects_nor_says_gone(void **state)
{
	for (int kind = 0; kind < REPLY_N_KINDS; kind++) {
		unsigned int status = reply_status((enum reply_kind)kind);
		assert_true(status < 300 || status >= 400);
		assert_int_not_equal(status, 410);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_body_fits_its_content_type),
		cmocka_unit_test(problems_repeat_their_status_as_rfc_9457_asks),
		cmocka_unit_test(names_outcome_and_event),
		cmocka_unit_test(leaves_out_what_could_break_the_json),
		cmocka_unit_test(a_401_is_one_text_whatever_is_asked),
		cmocka_unit_test(a_canned_response_is_whole),
		cmocka_unit_test(only_a_503_says_when_to_come_back),
		cmocka_unit_test(never_redirects_nor_says_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
