/* The latest ids: what is remembered, what is forgotten, and that forgetting loses no neighbour. */
#include "recent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct heard {
	int64_t times[8];
	size_t n;
	int stop_with;
};

static int hear(void *ctx, int64_t time_s, int64_t seq)
{
	assert_int_equal(seq, 1000 + time_s);
	struct heard *heard = ctx;
	assert_true(heard->n < ARRAY_SIZE(heard->times));
	heard->times[heard->n++] = time_s;
	return heard->stop_with;
}

static struct span span_of(const char *text)
{
	return (struct span) { text, strlen(text) };
}

static size_t found(const struct recent *r, const char *id)
{
	struct heard heard = { .n = 0 };
	assert_int_equal(recent_find(r, span_of(id), hear, &heard), 0);
	return heard.n;
}

static void tells_all_that_is_under_an_id(void **state)
{
	struct recent *r;
	assert_int_equal(recent_new(16, &r), 0);
	recent_add(r, span_of("a"), 10, 1010);
	recent_add(r, span_of("b"), 11, 1011);
	recent_add(r, span_of("a"), 12, 1012);
	struct heard heard = { .n = 0 };
	assert_int_equal(recent_find(r, span_of("a"), hear, &heard), 0);
	assert_int_equal(heard.n, 2);
	assert_int_equal(heard.times[0] + heard.times[1], 22);
	assert_int_equal(found(r, "b"), 1);
	assert_int_equal(found(r, "c"), 0);
	recent_free(r);
}

static void takes_back_the_latest_and_nothing_else(void **state)
{
	struct recent *r;
	assert_int_equal(recent_new(16, &r), 0);
	char id[16];
	for (int i = 0; i < 40; i++) {
		(void)snprintf(id, sizeof(id), "id-%d", i);
		recent_add(r, span_of(id), i, 1000 + i);
	}
	recent_undo(r, 10);
	for (int i = 0; i < 40; i++) {
		(void)snprintf(id, sizeof(id), "id-%d", i);
		assert_int_equal(found(r, id), i >= 24 && i < 30 ? 1 : 0);
	}
	for (int i = 30; i < 40; i++) {
		(void)snprintf(id, sizeof(id), "id-%d", i);
		recent_add(r, span_of(id), i, 1000 + i);
	}
	for (int i = 0; i < 40; i++) {
		(void)snprintf(id, sizeof(id), "id-%d", i);
		assert_int_equal(found(r, id), i >= 24 ? 1 : 0);
	}
	recent_undo(r, 99);
	assert_int_equal(found(r, "id-39"), 0);
	recent_free(r);
}

static void stops_at_the_first_answer_that_is_not_zero(void **state)
{
	struct recent *r;
	assert_int_equal(recent_new(16, &r), 0);
	recent_add(r, span_of("a"), 10, 1000 + 10);
	recent_add(r, span_of("a"), 11, 1000 + 11);
	struct heard heard = { .stop_with = -5 };
	assert_int_equal(recent_find(r, span_of("a"), hear, &heard), -5);
	assert_int_equal(heard.n, 1);
	recent_free(r);
}

/* Many rounds over a small ring: at every moment exactly the latest 64 are known. A gap closed
 * wrongly would lose a neighbour, or never end. */
static void forgets_the_oldest_and_nothing_else(void **state)
{
	enum { SIZE = 64, N = 20000 };
	struct recent *r;
	assert_int_equal(recent_new(SIZE, &r), 0);
	char id[16];
	for (int i = 0; i < N; i++) {
		(void)snprintf(id, sizeof(id), "id-%d", i);
		recent_add(r, span_of(id), i, 1000 + i);
		if (i % 97 != 0 || i < SIZE)
			continue;
		for (int k = i - 2 * SIZE; k <= i; k++) {
			(void)snprintf(id, sizeof(id), "id-%d", k);
			assert_int_equal(found(r, id), k > i - SIZE && k >= 0 ? 1 : 0);
		}
	}
	recent_free(r);
}

/* One id over and over makes one long cluster in the table. */
static void forgets_within_a_cluster_of_one_id(void **state)
{
	struct recent *r;
	assert_int_equal(recent_new(16, &r), 0);
	for (int i = 0; i < 100; i++) {
		recent_add(r, span_of(i % 2 ? "odd" : "even"), i, 1000 + i);
		if (i < 16)
			continue;
		struct heard heard = { .n = 0 };
		assert_int_equal(recent_find(r, span_of("odd"), hear, &heard), 0);
		assert_int_equal(heard.n, 8);
		for (size_t k = 0; k < heard.n; k++)
			assert_true(heard.times[k] > i - 16 && heard.times[k] % 2 == 1);
	}
	recent_free(r);
}

static void takes_null_for_nothing(void **state)
{
	recent_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tells_all_that_is_under_an_id),
		cmocka_unit_test(takes_back_the_latest_and_nothing_else),
		cmocka_unit_test(stops_at_the_first_answer_that_is_not_zero),
		cmocka_unit_test(forgets_the_oldest_and_nothing_else),
		cmocka_unit_test(forgets_within_a_cluster_of_one_id),
		cmocka_unit_test(takes_null_for_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
