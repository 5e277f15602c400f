/* Counting per address: the limit, giving back, many addresses, many threads. */
#include "quota.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void make_key(uint32_t i, uint8_t key[static 16])
{
	memset(key, 0, 16);
	memcpy(key + 12, &i, sizeof(i));
}

static void gives_each_address_its_share_and_no_more(void **state)
{
	struct quota *q;
	uint8_t a[16], b[16];
	make_key(1, a);
	make_key(2, b);
	assert_int_equal(quota_new(2, 10, &q), 0);
	assert_true(quota_take(q, a));
	assert_true(quota_take(q, a));
	assert_false(quota_take(q, a));
	assert_true(quota_take(q, b));
	quota_release(q, a);
	assert_true(quota_take(q, a));
	assert_false(quota_take(q, a));
	quota_free(q);
}

static void forgets_addresses_that_hold_nothing(void **state)
{
	struct quota *q;
	uint8_t key[16];
	assert_int_equal(quota_new(1, 4, &q), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		make_key(i, key);
		assert_true(quota_take(q, key));
		quota_release(q, key);
	}
	quota_free(q);
}

static void keeps_many_addresses_apart(void **state)
{
	struct quota *q;
	uint8_t key[16];
	assert_int_equal(quota_new(1, 500, &q), 0);
	for (int round = 0; round < 2; round++) {
		for (uint32_t i = 0; i < 500; i++) {
			make_key(i, key);
			assert_true(quota_take(q, key));
		}
		for (uint32_t i = 0; i < 501; i++) {
			make_key(i, key);
			assert_false(quota_take(q, key));
		}
		for (uint32_t i = 0; i < 500; i++) {
			make_key((i * 7) % 500, key);
			quota_release(q, key);
		}
	}
	quota_free(q);
}

static void *take_and_release(void *arg)
{
	struct quota *q = arg;
	size_t *taken = calloc(1, sizeof(*taken));
	uint8_t key[16];
	for (uint32_t i = 0; i < 20000; i++) {
		make_key(i % 3, key);
		if (quota_take(q, key)) {
			++*taken;
			quota_release(q, key);
		}
	}
	return taken;
}

static void holds_nothing_after_threads_gave_everything_back(void **state)
{
	struct quota *q;
	pthread_t threads[4];
	uint8_t key[16];
	assert_int_equal(quota_new(2, 8, &q), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, take_and_release, q), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *taken;
		assert_int_equal(pthread_join(threads[i], &taken), 0);
		assert_true(*(size_t *)taken > 0);
		free(taken);
	}
	for (uint32_t i = 0; i < 3; i++) {
		make_key(i, key);
		assert_true(quota_take(q, key) && quota_take(q, key));
		assert_false(quota_take(q, key));
	}
	quota_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gives_each_address_its_share_and_no_more),
		cmocka_unit_test(forgets_addresses_that_hold_nothing),
		cmocka_unit_test(keeps_many_addresses_apart),
		cmocka_unit_test(holds_nothing_after_threads_gave_everything_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
