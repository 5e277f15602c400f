/* Decimals: exact to 10^-15, and the two ways of being refused. */
#include "decimal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* The copy has no NUL: reading past its length is caught by the sanitizer. */
static void assert_decimal(const char *text, int expected_r, int64_t expected_femto)
{
	size_t len = strlen(text);
	CLEANUP_FREE char *copy = malloc(len + (len == 0));
	assert_non_null(copy);
	memcpy(copy, text, len);
	int64_t femto = -1;
	int r = decimal_parse(copy, len, &femto);
	if (r != expected_r || femto != expected_femto)
		fail_msg("'%s': %d, %lld", text, r, (long long)femto);
}

static void reads_decimals_exactly(void **state)
{
	assert_decimal("0", 0, 0);
	assert_decimal("0.0", 0, 0);
	assert_decimal("1", 0, DECIMAL_SCALE);
	assert_decimal("0.000014", 0, INT64_C(14000000000));
	assert_decimal("0.0000045", 0, INT64_C(4500000000));
	assert_decimal("0.1", 0, INT64_C(100000000000000));
	assert_decimal("0.000000000000001", 0, 1);
	assert_decimal("12.340", 0, INT64_C(12340000000000000));
	assert_decimal("999.999999999999999", 0, INT64_C(999999999999999999));
	assert_decimal("0000000000000000000000000000001", 0, DECIMAL_SCALE);
}

static void refuses_what_is_not_a_plain_decimal(void **state)
{
	static const char *const texts[] = { "",      ".",    ".5",   "1.",  "-1",  "+1",
					     "1e-5",  "1E5",  " 1",   "1 ",  "0x1", "1,5",
					     "1.2.3", "1..2", "nan",  "inf", "1_0", "1.5a",
					     "a",     "--",   "1.-5", "$1" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_decimal(texts[i], -EINVAL, -1);
	int64_t femto;
	assert_int_equal(decimal_parse("1\0", 2, &femto), -EINVAL);
	assert_int_equal(decimal_parse(NULL, 0, &femto), -EINVAL);
}

static void ends_at_a_thousand(void **state)
{
	assert_decimal("1000", 0, 1000 * DECIMAL_SCALE);
	assert_decimal("1000.000", 0, 1000 * DECIMAL_SCALE);
	assert_decimal("1000.000000000000001", -ERANGE, -1);
	assert_decimal("1001", -ERANGE, -1);
	assert_decimal("9223372036854775808", -ERANGE, -1);
	assert_decimal("100000000000000000000000000000000000000000", -ERANGE, -1);
	assert_decimal("18446744073709551617", -ERANGE, -1);
}

static void refuses_to_round(void **state)
{
	assert_decimal("0.0000000000000001", -ERANGE, -1);
	assert_decimal("0.1000000000000000", -ERANGE, -1);
}

static void prefers_not_a_number_over_does_not_fit(void **state)
{
	assert_decimal("1001x", -EINVAL, -1);
	assert_decimal("0.0000000000000001x", -EINVAL, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_decimals_exactly),
		cmocka_unit_test(refuses_what_is_not_a_plain_decimal),
		cmocka_unit_test(ends_at_a_thousand),
		cmocka_unit_test(refuses_to_round),
		cmocka_unit_test(prefers_not_a_number_over_does_not_fit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
