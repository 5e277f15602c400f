/* Counters: what is counted where, and that threads together count right. The set is the process's,
 * so each test looks at differences or at names of its own. */
#include "metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void every_counter_has_a_name_of_its_own(void **state)
{
	for (int i = 0; i < METRICS_N_COUNTERS; i++) {
		assert_non_null(metrics_name((enum metrics_counter)i));
		for (int k = 0; k < i; k++)
			assert_string_not_equal(metrics_name((enum metrics_counter)i),
						metrics_name((enum metrics_counter)k));
	}
	for (int i = 0; i < METRICS_N_OUTCOMES; i++)
		assert_non_null(metrics_outcome_name((enum metrics_outcome)i));
}

static void a_source_keeps_its_place(void **state)
{
	size_t a = metrics_source("place-a"), b = metrics_source("place-b");

	assert_int_not_equal(a, b);
	assert_int_equal(metrics_source("place-a"), a);
	assert_string_equal(metrics_source_name(b), "place-b");
	assert_true(metrics_sources() > a && metrics_sources() > b);
}

static void deliveries_count_for_their_source_alone(void **state)
{
	size_t a = metrics_source("own-a"), b = metrics_source("own-b");

	metrics_count_delivery(a, METRICS_OUTCOME_REJECTED, INGEST_REASON_SIGNATURE_WRONG);
	metrics_count_delivery(a, METRICS_OUTCOME_STORED, INGEST_REASON_NONE);
	assert_int_equal(metrics_deliveries(a, METRICS_OUTCOME_REJECTED), 1);
	assert_int_equal(metrics_deliveries(a, METRICS_OUTCOME_STORED), 1);
	assert_int_equal(
		metrics_reasons(a, METRICS_OUTCOME_REJECTED, INGEST_REASON_SIGNATURE_WRONG), 1);
	assert_int_equal(
		metrics_reasons(a, METRICS_OUTCOME_QUARANTINED, INGEST_REASON_SIGNATURE_WRONG), 0);
	assert_int_equal(metrics_deliveries(b, METRICS_OUTCOME_REJECTED), 0);
	assert_int_equal(
		metrics_reasons(b, METRICS_OUTCOME_REJECTED, INGEST_REASON_SIGNATURE_WRONG), 0);
}

static void an_event_counts_by_kind_status_and_age(void **state)
{
	size_t source = metrics_source("events");
	struct event event = { .kind = EVENT_CODE_EXECUTED,
			       .time_unix_ns = INT64_C(1000000000000000),
			       .execution = { .status = EVENT_TIMEOUT } };
	uint64_t kinds = metrics_events(EVENT_CODE_EXECUTED);
	uint64_t timeouts = metrics_executions(EVENT_TIMEOUT);
	struct metrics_buckets before, after;

	metrics_buckets(METRICS_EVENT_AGE, &before);
	metrics_count_event(source, &event, INT64_C(1000000000) + 1500);
	metrics_buckets(METRICS_EVENT_AGE, &after);
	assert_int_equal(metrics_events(EVENT_CODE_EXECUTED) - kinds, 1);
	assert_int_equal(metrics_executions(EVENT_TIMEOUT) - timeouts, 1);
	assert_int_equal(after.sum - before.sum, 1500);
	assert_int_equal(after.bounds[2], 2000);
	assert_int_equal(after.counts[2] - before.counts[2], 1);
	assert_int_equal(metrics_last_event_ms(source), INT64_C(1000000000) + 1500);
	metrics_see_event(source, 5);
	assert_int_equal(metrics_last_event_ms(source), INT64_C(1000000000) + 1500);
}

static void a_value_counts_in_the_first_bucket_that_holds_it(void **state)
{
	struct metrics_buckets before, after;
	static const int64_t values[] = { -7, 0, 1, 2, 3, 512, 513, INT64_MAX / 2 };
	static const size_t places[] = { 0, 0, 0, 1, 2, 9, 10, 10 };
	uint64_t expected[METRICS_BUCKETS_MAX + 1] = { 0 };

	metrics_buckets(METRICS_BATCH_SIZE, &before);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		metrics_observe(METRICS_BATCH_SIZE, values[i]);
		expected[places[i]]++;
	}
	metrics_buckets(METRICS_BATCH_SIZE, &after);
	for (size_t i = 0; i <= after.n; i++)
		assert_int_equal(after.counts[i] - before.counts[i], expected[i]);
	assert_int_equal(after.total - before.total, ARRAY_SIZE(values));
}

static void bounds_rise(void **state)
{
	for (int h = 0; h < METRICS_N_HISTOGRAMS; h++) {
		struct metrics_buckets b;

		metrics_buckets((enum metrics_histogram)h, &b);
		assert_true(b.n > 0 && b.n <= METRICS_BUCKETS_MAX);
		for (size_t i = 1; i < b.n; i++)
			assert_true(b.bounds[i] > b.bounds[i - 1]);
	}
}

static void *count_a_lot(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		size_t source = metrics_source(i % 2 ? "threads-odd" : "threads-even");

		metrics_count(METRICS_ABORTED);
		metrics_count_delivery(source, METRICS_OUTCOME_STORED, INGEST_REASON_NONE);
	}
	return NULL;
}

static void threads_together_lose_no_count(void **state)
{
	pthread_t threads[4];
	uint64_t before = metrics_read(METRICS_ABORTED);

	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_a_lot, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(metrics_read(METRICS_ABORTED) - before, 80000);
	assert_int_equal(metrics_deliveries(metrics_source("threads-odd"), METRICS_OUTCOME_STORED),
			 40000);
}

/* Last: it fills the table. */
static void what_finds_no_room_shares_one_place(void **state)
{
	char name[32];
	size_t last = METRICS_SOURCES_MAX - 1;

	for (int i = 0; i < METRICS_SOURCES_MAX + 10; i++) {
		(void)snprintf(name, sizeof(name), "many-%d", i);
		(void)metrics_source(name);
	}
	assert_int_equal(metrics_sources(), METRICS_SOURCES_MAX);
	assert_int_equal(metrics_source("one more"), last);
	assert_int_equal(metrics_source("and another"), last);
	assert_string_equal(metrics_source_name(last), "_other");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_counter_has_a_name_of_its_own),
		cmocka_unit_test(a_source_keeps_its_place),
		cmocka_unit_test(deliveries_count_for_their_source_alone),
		cmocka_unit_test(an_event_counts_by_kind_status_and_age),
		cmocka_unit_test(a_value_counts_in_the_first_bucket_that_holds_it),
		cmocka_unit_test(bounds_rise),
		cmocka_unit_test(threads_together_lose_no_count),
		cmocka_unit_test(what_finds_no_room_shares_one_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
