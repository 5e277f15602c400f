/* Memory that runs out under the hook listener, in its own threads: a sender is told that its event
 * is stored only if the writer was lent it, whole; else 503, or the connection ends. The next one
 * is served.
 */
#include "hook_fixture.h"

#include "memory.h"

static const char *const headers[] = { "",
				       "e2b-webhook-id: wh-1\r\nX-Forwarded-For: 192.0.2.7\r\n" };

struct tally {
	long calls, stored, refused, cut;
};

static size_t submitted_so_far(struct world *w)
{
	(void)pthread_mutex_lock(&w->lock);
	size_t n = w->n_submitted;
	(void)pthread_mutex_unlock(&w->lock);
	return n;
}

static void deliver(struct world *w, size_t header, long n, bool stays, struct tally *t)
{
	CLEANUP_CLOSE int fd = dial(w);
	size_t submitted = submitted_so_far(w);
	memory_break(n, stays);
	/* A connection for which there was no memory may end before its request is out. */
	(void)try_post(w, fd, EVENT, headers[header]);
	struct answer a = hear(fd);
	t->calls = base_max_i64(t->calls, memory_calls());
	bool failed = memory_failed() > 0;
	memory_mend();
	if (a.status == 200) {
		assert_non_null(strstr(a.text, "\"stored\""));
		assert_non_null(strstr(a.text, EVENT_ID_IN_BODY));
		assert_int_equal(submitted_so_far(w), submitted + 1);
	} else if (a.status != 0) {
		assert_int_equal(a.status, 503);
		assert_non_null(strstr(a.text, "Retry-After: 10\r\n"));
	}
	assert_true(a.status == 200 || failed);
	t->stored += a.status == 200;
	t->refused += a.status == 503;
	t->cut += a.status == 0;
}

static void tells_stored_only_what_it_lent_whole(void **state)
{
	struct world *w = *state;
	struct tally t = { 0 };
	w->mood = STORE_AT_ONCE;
	start(w);
	deliver(w, 0, 1 << 20, false, &t); /* what is made once is made now */
	for (int stays = 0; stays < 2; stays++) {
		for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
			for (long n = 1; n <= t.calls + 2; n++) {
				deliver(w, i, n, stays, &t);
				CLEANUP_CLOSE int fd = dial(w);
				post(w, fd, EVENT, "");
				assert_int_equal(hear(fd).status, 200);
			}
		}
	}
	print_message("%ld allocations a delivery: %ld stored, %ld answered 503, %ld cut off\n",
		      t.calls, t.stored, t.refused, t.cut);
	assert_true(t.calls > 3 && t.refused + t.cut > 0);
}

static int end_hook_world(void **state)
{
	memory_mend();
	return close_world(state);
}

int main(void)
{
	memory_install();
	memory_spare(true); /* the sender's */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tells_stored_only_what_it_lent_whole, open_world,
						end_hook_world),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
