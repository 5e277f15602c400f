/* Money: exact costs, the one rounding, and which price is in force when.
 *
 * The expected costs were computed with another program in decimal arithmetic of 80 digits.
 */
#include "pricing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const struct pricing_rates list_price = { INT64_C(14000000000), INT64_C(4500000000) };

static int64_t cost(int64_t vcpu_femto, int64_t gib_femto, int64_t ms, int64_t vcpu, int64_t mb)
{
	int64_t nanousd = -1;
	assert_int_equal(pricing_cost((struct pricing_rates) { vcpu_femto, gib_femto }, ms, vcpu,
				      mb, &nanousd),
			 0);
	return nanousd;
}

static void computes_the_cost_of_a_run(void **state)
{
	static const struct {
		int64_t ms, vcpu, mb, nanousd;
	} cases[] = {
		{ 600277, 2, 512, 18158379 },
		{ 0, 2, 512, 0 },
		{ 1, 1, 0, 14 },
		{ 1, 2, 512, 30 },
		{ 3600000, 8, 8192, 532800000 },
		{ 86400000, 2, 512, INT64_C(2613600000) },
		{ 123457, 3, 1537, 6019071 },
		{ 600277, 0, 0, 0 },
		{ INT64_C(31536000000), 64, 262144, INT64_C(64585728000000) },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int64_t nanousd = -1;
		assert_int_equal(
			pricing_cost(list_price, cases[i].ms, cases[i].vcpu, cases[i].mb, &nanousd),
			0);
		assert_int_equal(nanousd, cases[i].nanousd);
	}
}

static void rounds_half_up(void **state)
{
	assert_int_equal(cost(499999999, 0, 1, 1, 0), 0);
	assert_int_equal(cost(500000000, 0, 1, 1, 0), 1);
	assert_int_equal(cost(500000001, 0, 1, 1, 0), 1);
	assert_int_equal(cost(1500000000, 0, 1, 1, 0), 2);
	assert_int_equal(cost(2500000000, 0, 1, 1, 0), 3);
	assert_int_equal(cost(0, 512000000, 1, 0, 999), 0);
	assert_int_equal(cost(0, 512000000, 1, 0, 1000), 1);
	assert_int_equal(cost(0, 1, 1000, 0, 512000000), 1);
	assert_int_equal(cost(0, 1, 1000, 0, 511999999), 0);
}

static void rounds_once_and_not_in_its_parts(void **state)
{
	/* 0.3 + 0.3 nano-USD: rounded apart they would be 0, together 0.6 is 1. */
	assert_int_equal(cost(300000000, 300000000, 1, 1, 1024), 1);
	/* 0.4 a millisecond is 400 a second. */
	assert_int_equal(cost(400000000, 0, 1000, 1, 0), 400);
	/* Memory below a GiB is not lost. */
	assert_int_equal(cost(0, INT64_C(4500000000), 1000, 0, 1), 4);
}

static void says_when_a_cost_does_not_fit(void **state)
{
	const int64_t dear = INT64_C(1000000000000000000); /* 1000 USD */
	int64_t nanousd = -1;
	assert_int_equal(cost(dear, 0, 9223372036, 1, 0), INT64_C(9223372036000000000));
	assert_int_equal(
		pricing_cost((struct pricing_rates) { dear, 0 }, 9223372037, 1, 0, &nanousd),
		-ERANGE);
	/* Each of these leaves 128 bits at another step. */
	assert_int_equal(
		pricing_cost((struct pricing_rates) { INT64_MAX, 0 }, 1, INT64_MAX, 0, &nanousd),
		-ERANGE);
	assert_int_equal(pricing_cost((struct pricing_rates) { 0, INT64_MAX }, INT64_MAX, 0,
				      INT64_MAX, &nanousd),
			 -ERANGE);
	assert_int_equal(pricing_cost((struct pricing_rates) { dear, dear }, INT64_MAX, INT64_MAX,
				      INT64_MAX, &nanousd),
			 -ERANGE);
	const int64_t one = 1;
	assert_int_equal(pricing_cost((struct pricing_rates) { one << 55, INT64_MAX }, 1,
				      3 * (one << 60), INT64_MAX, &nanousd),
			 -ERANGE);
	/* 64 below 2^127: only rounding leaves them. */
	assert_int_equal(pricing_cost((struct pricing_rates) { one << 59, INT64_MAX }, 1,
				      (one << 58) - 1, 64, &nanousd),
			 -ERANGE);
	assert_true(nanousd == -1);
}

static void fits_up_to_the_last_nano_usd(void **state)
{
	/* A rate of 10^9 femto-USD makes every vCPU-millisecond exactly one nano-USD. */
	assert_true(cost(1000000000, 0, INT64_MAX, 1, 0) == INT64_MAX);
	assert_true(cost(1000000000, 0, 1, INT64_MAX, 0) == INT64_MAX);
	int64_t nanousd = -1;
	assert_int_equal(pricing_cost((struct pricing_rates) { 1000000000, 500000000 }, INT64_MAX,
				      1, 1024, &nanousd),
			 -ERANGE);
	assert_true(nanousd == -1);
}

static void refuses_negative_arguments(void **state)
{
	int64_t nanousd = -1;
	assert_int_equal(pricing_cost(list_price, -1, 1, 1, &nanousd), -ERANGE);
	assert_int_equal(pricing_cost(list_price, 1, -1, 1, &nanousd), -ERANGE);
	assert_int_equal(pricing_cost(list_price, 1, 1, -1, &nanousd), -ERANGE);
	assert_int_equal(pricing_cost(list_price, -1, -1, 1, &nanousd), -ERANGE);
	assert_int_equal(pricing_cost((struct pricing_rates) { -1, 0 }, 1, 1, 1, &nanousd),
			 -ERANGE);
	assert_int_equal(pricing_cost((struct pricing_rates) { 0, -1 }, 1, 1, 1, &nanousd),
			 -ERANGE);
	assert_int_equal(pricing_cost(list_price, INT64_MIN, 1, 1, &nanousd), -ERANGE);
	assert_true(nanousd == -1);
}

/* The hours of a run share its cost as differences of cumulative costs. */
static void grows_with_time_so_that_hours_add_up(void **state)
{
	int64_t sum = 0, before = 0;
	for (int64_t ms = 0; ms <= 600277; ms += 7) {
		int64_t now = cost(INT64_C(14000000000), INT64_C(4500000000), ms, 2, 512);
		assert_true(now >= before);
		sum += now - before;
		before = now;
	}
	assert_int_equal(sum, cost(INT64_C(14000000000), INT64_C(4500000000), 600271, 2, 512));
}

static int64_t vcpu_rate_at(const struct pricing *p, int64_t unix_ms)
{
	return pricing_at(p, unix_ms).vcpu_second_femto;
}

static void uses_the_price_in_force_at_the_instant(void **state)
{
	struct pricing p;
	pricing_init(&p, (struct pricing_rates) { 1, 1 });
	assert_int_equal(vcpu_rate_at(&p, 0), 1);
	assert_int_equal(vcpu_rate_at(&p, INT64_MIN), 1);
	/* Added out of order, as sections of a file may stand. */
	assert_int_equal(pricing_add(&p, 3000, (struct pricing_rates) { 4, 1 }), 0);
	assert_int_equal(pricing_add(&p, 1000, (struct pricing_rates) { 2, 1 }), 0);
	assert_int_equal(pricing_add(&p, 2000, (struct pricing_rates) { 3, 1 }), 0);
	assert_int_equal(p.n, 4);
	assert_int_equal(vcpu_rate_at(&p, 999999), 1);
	assert_int_equal(vcpu_rate_at(&p, 1000000), 2);
	assert_int_equal(vcpu_rate_at(&p, 1999999), 2);
	assert_int_equal(vcpu_rate_at(&p, 2000000), 3);
	assert_int_equal(vcpu_rate_at(&p, 2999999), 3);
	assert_int_equal(vcpu_rate_at(&p, 3000000), 4);
	assert_int_equal(vcpu_rate_at(&p, INT64_MAX), 4);
	for (size_t i = 1; i < p.n; i++)
		assert_true(p.entries[i - 1].from_unix_s < p.entries[i].from_unix_s);
}

static void respects_dates_before_1970(void **state)
{
	struct pricing p;
	pricing_init(&p, (struct pricing_rates) { 1, 1 });
	assert_int_equal(pricing_add(&p, -10, (struct pricing_rates) { 2, 1 }), 0);
	assert_int_equal(vcpu_rate_at(&p, -10001), 1);
	assert_int_equal(vcpu_rate_at(&p, -10000), 2);
	assert_int_equal(vcpu_rate_at(&p, -9999), 2);
}

static void replaces_the_rates_of_a_date(void **state)
{
	struct pricing p;
	pricing_init(&p, (struct pricing_rates) { 1, 1 });
	assert_int_equal(pricing_add(&p, 1000, (struct pricing_rates) { 2, 1 }), 0);
	assert_int_equal(pricing_add(&p, 1000, (struct pricing_rates) { 3, 1 }), 0);
	assert_int_equal(p.n, 2);
	assert_int_equal(vcpu_rate_at(&p, 1000000), 3);
	assert_int_equal(vcpu_rate_at(&p, 999999), 1);
}

static void refuses_a_date_too_many_but_still_replaces(void **state)
{
	struct pricing p;
	pricing_init(&p, (struct pricing_rates) { 1, 1 });
	for (int64_t i = 1; i < PRICING_ENTRIES_MAX; i++)
		assert_int_equal(pricing_add(&p, -i, (struct pricing_rates) { i, 1 }), 0);
	assert_int_equal(pricing_add(&p, 5, (struct pricing_rates) { 7, 1 }), -ENOBUFS);
	assert_int_equal(p.n, PRICING_ENTRIES_MAX);
	assert_int_equal(vcpu_rate_at(&p, 5000), 1);
	assert_int_equal(pricing_add(&p, -1, (struct pricing_rates) { 9, 1 }), 0);
	assert_int_equal(vcpu_rate_at(&p, 5000), 9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(computes_the_cost_of_a_run),
		cmocka_unit_test(rounds_half_up),
		cmocka_unit_test(rounds_once_and_not_in_its_parts),
		cmocka_unit_test(says_when_a_cost_does_not_fit),
		cmocka_unit_test(fits_up_to_the_last_nano_usd),
		cmocka_unit_test(refuses_negative_arguments),
		cmocka_unit_test(grows_with_time_so_that_hours_add_up),
		cmocka_unit_test(uses_the_price_in_force_at_the_instant),
		cmocka_unit_test(respects_dates_before_1970),
		cmocka_unit_test(replaces_the_rates_of_a_date),
		cmocka_unit_test(refuses_a_date_too_many_but_still_replaces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
