/* The format of the metrics page: exact numbers, and labels that nobody can break out of. */
#include "admin_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_sample(const char *value, const char *expected)
{
	CLEANUP(admin_text_finish) struct admin_text t;
	struct admin_label label = { "name", value };
	char line[512];

	admin_text_init(&t);
	t.family = "m";
	admin_text_sample(&t, NULL, &label, 1, 1, 0);
	assert_int_equal(t.error, 0);
	(void)snprintf(line, sizeof(line), "m{name=\"%s\"} 1\n", expected);
	assert_string_equal(t.out.data, line);
}

static void escapes_what_would_end_a_label(void **state)
{
	assert_sample("plain", "plain");
	assert_sample("", "");
	assert_sample("a\"} 5\nfake 1", "a\\\"} 5\\nfake 1");
	assert_sample("back\\slash", "back\\\\slash");
	assert_sample("gr\xc3\xbc\xc3\x9f\xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f\xf0\x9f\x98\x80");
}

#define BAD "\xef\xbf\xbd"

static void replaces_what_is_not_utf8(void **state)
{
	assert_sample("\xff", BAD);
	assert_sample("a\xc3", "a" BAD);
	assert_sample("\xc0\xaf", BAD BAD); /* overlong */
	assert_sample("\xe0\x80\x80", BAD BAD BAD);
	assert_sample("\xed\xa0\x80", BAD BAD BAD); /* a surrogate */
	assert_sample("\xf0\x80\x80\x80", BAD BAD BAD BAD);
	assert_sample("\xf4\x90\x80\x80", BAD BAD BAD BAD); /* beyond the last */
	assert_sample("\xf0\x9f\x98", BAD BAD BAD);
	assert_sample("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf");
}

static void assert_value(int64_t value, unsigned int decimals, const char *expected)
{
	CLEANUP(admin_text_finish) struct admin_text t;

	admin_text_init(&t);
	t.family = "m";
	admin_text_sample(&t, NULL, NULL, 0, value, decimals);
	assert_int_equal(t.error, 0);
	assert_string_equal(t.out.data + 2, expected);
}

static void writes_numbers_exactly(void **state)
{
	assert_value(0, 9, "0\n");
	assert_value(1, 9, "0.000000001\n");
	assert_value(12345678901, 9, "12.345678901\n");
	assert_value(-1500, 3, "-1.500\n");
	assert_value(2000, 3, "2\n");
	assert_value(INT64_MAX, 0, "9223372036854775807\n");
	assert_value(INT64_MIN, 0, "-9223372036854775808\n");
}

static void a_family_comes_with_help_and_type(void **state)
{
	CLEANUP(admin_text_finish) struct admin_text t;
	const struct admin_label labels[] = { { "a", "1" }, { "b", "2" } };

	admin_text_init(&t);
	admin_text_family(&t, "m", ADMIN_HISTOGRAM, "Help.");
	admin_text_sample(&t, "_bucket", labels, 2, 3, 0);
	assert_string_equal(t.out.data, "# HELP m Help.\n# TYPE m histogram\n"
					"m_bucket{a=\"1\",b=\"2\"} 3\n");
}

static void a_page_that_grows_too_large_is_an_error_and_stays_one(void **state)
{
	CLEANUP(admin_text_finish) struct admin_text t;

	admin_text_init(&t);
	t.out.max = 20;
	admin_text_one(&t, "metric", ADMIN_GAUGE, "Help.", 1, 0);
	assert_true(t.error < 0);
	t.out.max = ADMIN_PAGE_MAX;
	admin_text_one(&t, "metric", ADMIN_GAUGE, "Help.", 1, 0);
	assert_true(t.error < 0);
	assert_int_equal(t.out.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes_what_would_end_a_label),
		cmocka_unit_test(replaces_what_is_not_utf8),
		cmocka_unit_test(writes_numbers_exactly),
		cmocka_unit_test(a_family_comes_with_help_and_type),
		cmocka_unit_test(a_page_that_grows_too_large_is_an_error_and_stays_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
