/* Sums: what was booked and taken back leaves no trace, in years before 1970 too, and a booking for
 * which there is no memory says so.
 */
#include "storage_fixture.h"

#include "clock.h"
#include "scarce.h"
#include "storage_sqlite_rollup.h"

#define KEYS_MAX 300

static const struct ledger_account run_of_1969 = {
	.exists = true,
	.started_ms = -5400000, /* 1969-12-31T22:30 */
	.ended_ms = 1800000, /* 1970-01-01T00:30 */
	.runtime_ms = 7200000,
	.cost_nanousd = 7200,
	.cost_source = LEDGER_COST_ESTIMATED,
	.dims = { 1, 2, 3 },
	.vcpu_count = 1,
	.rates = { 1000000, 0 },
};

/* One after another everything that can be booked, under keys of its own. */
static int book(struct storage *s, int what, int64_t key, int sign)
{
	struct ledger_account run = run_of_1969;
	run.dims.template_key = key;
	switch (what) {
	case 0:
		return storage_sqlite_book_run(s, &run, sign);
	case 1:
		return storage_sqlite_book_execution(
			s, &(struct rollup_execution) { -1, key, 150, true, false }, sign);
	case 2:
		return storage_sqlite_book_startup(s, &(struct rollup_startup) { 150, -3600, key },
						   sign);
	case 3:
		return storage_sqlite_book_sandbox(s, key, LEDGER_RUNNING, sign);
	case 4:
		return storage_sqlite_book_event(s, 1000, key, EVENT_CREATED);
	default:
		return 1;
	}
}

static void hours_and_days_before_1970_are_as_long_as_others(void **state)
{
	struct world *w = *state;
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(book(w->s, 0, 2, 1), 0);
	assert_int_equal(storage_sqlite_rollup_flush(w->s), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(
		w,
		"SELECT hour_at, runtime_ms, cost_nanousd, runs_ended FROM cost_hourly"
		" ORDER BY time",
		"1969-12-31T22:00:00.000Z|1800000|1800|0\n1969-12-31T23:00:00.000Z|3600000|3600|0\n"
		"1970-01-01T00:00:00.000Z|1800000|1800|1");
	expect_rows(w, "SELECT day, runtime_ms FROM cost_daily ORDER BY time",
		    "1969-12-31|5400000\n1970-01-01|1800000");
}

static void what_is_taken_back_leaves_no_trace(void **state)
{
	struct world *w = *state;
	for (int sign = 1; sign >= -1; sign -= 2) {
		assert_int_equal(storage_begin(w->s, true), 0);
		for (int what = 0; what < 4; what++)
			assert_int_equal(book(w->s, what, 2, sign), 0);
		assert_int_equal(storage_sqlite_rollup_flush(w->s), 0);
		assert_int_equal(storage_commit(w->s), 0);
	}
	expect_rows(w, "SELECT count(*) FROM cost_daily WHERE runtime_ms OR cost_nanousd", "0");
	expect_rows(w, "SELECT count(*) FROM template_hourly WHERE executions OR startups", "0");
}

/* A second at the start of an hour, for five thousand million dollars. */
static struct ledger_account dear_run(int hour)
{
	struct ledger_account run = run_of_1969;
	run.started_ms = hour * INT64_C(3600000);
	run.ended_ms = run.started_ms + 1000;
	run.runtime_ms = 1000;
	run.cost_nanousd = INT64_C(5000000000000000000);
	run.vcpu_count = 5000000;
	run.rates = (struct pricing_rates) { INT64_C(1000000000000000000), 0 };
	return run;
}

static void sums_that_would_run_over_refuse_the_run(void **state)
{
	struct world *w = *state;
	const struct ledger_account dear = dear_run(1), dear_later = dear_run(5);
	struct ledger_account endless = run_of_1969;
	endless.runtime_ms = INT64_MAX;
	assert_int_equal(storage_sqlite_book_run(w->s, &dear, 1), 0);
	assert_int_equal(storage_sqlite_book_run(w->s, &dear, 1), -ERANGE);
	storage_sqlite_rollup_forget(w->s);
	/* The template's sum has room again, that of the hour has not. */
	assert_int_equal(storage_sqlite_book_run(w->s, &dear, 1), 0);
	assert_int_equal(storage_sqlite_book_run(w->s, &dear_later, -1), 0);
	assert_int_equal(storage_sqlite_book_run(w->s, &dear, 1), -ERANGE);
	storage_sqlite_rollup_forget(w->s);
	assert_int_equal(storage_sqlite_book_run(w->s, &endless, 1), 0);
	assert_int_equal(storage_sqlite_book_run(w->s, &endless, 1), -ERANGE);
	storage_sqlite_rollup_forget(w->s);
}

/* The table grows when half of it is taken: at every booking once, for each of them. */
static void out_of_memory_a_booking_says_so_and_what_was_booked_stays(void **state)
{
	struct world *w = *state;
	int n_failed = 0;
	for (int what = 0; book(w->s, what, 0, 1) == 0; what++) {
		for (int64_t before = 0; before < KEYS_MAX; before++) {
			storage_sqlite_rollup_finish(w->s);
			for (int64_t key = 1; key <= before; key++)
				assert_int_equal(book(w->s, 3, key, 1), 0);
			scarce_begin(1);
			int r = book(w->s, what, KEYS_MAX + 1, 1);
			bool hit = scarce_end();
			assert_int_equal(r, hit ? -ENOMEM : 0);
			n_failed += hit;
			before += before == 1 ? 120 : before == 140 ? 110 : 0;
		}
	}
	assert_true(n_failed > 10);
	scarce_begin(2);
	storage_sqlite_rollup_finish(w->s);
	assert_int_equal(book(w->s, 3, 1, 1), -ENOMEM);
	assert_true(scarce_end());
	assert_int_equal(book(w->s, 3, 1, 1), 0);
	storage_sqlite_rollup_forget(w->s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hours_and_days_before_1970_are_as_long_as_others),
		TEST(what_is_taken_back_leaves_no_trace),
		TEST(sums_that_would_run_over_refuse_the_run),
		TEST(out_of_memory_a_booking_says_so_and_what_was_booked_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
