/* The writer above a store that fails: whatever call fails once, every order is answered once, what
 * is answered with success is stored and nothing else, and the writer finds back by itself. The
 * linker puts the test between writer and store; the files below are real.
 */
#include "storage_fixture.h"
#include "writer.h"

#include "clock.h"
#include "scarce.h"

#include <pthread.h>
#include <time.h>

#define LOG_LIMIT (INT64_C(1) << 20)
#define CONFIG(alias)                                                                              \
	"[store]\nwal_limit = 1MiB\nretention = 1d\n[source e2b]\npath = /e2b\n"                   \
	"[template t1]\nalias = " alias "\n[template t2]\nvcpu = 1\nmemory_mb = 512\n"

/* Polls: the condition is another thread's to bring about. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		int64_t until_ms_ = __real_clock_mono_ms() + 20000;                                \
		while (!(condition)) {                                                             \
			const struct timespec pause_ = { 0, 200000 };                              \
			(void)nanosleep(&pause_, NULL);                                            \
			if (__real_clock_mono_ms() > until_ms_)                                    \
				fail_msg("waited in vain for %s", #condition);                     \
		}                                                                                  \
	} while (0)

/* Time passes as the test says: what the writer does every second is due when it wants it. */
static _Atomic int64_t skipped_ms;
int64_t __real_clock_mono_ms(void);
int64_t __wrap_clock_mono_ms(void);

int64_t __wrap_clock_mono_ms(void)
{
	return __real_clock_mono_ms() + atomic_load(&skipped_ms);
}

/* Calls into the store ------------------------------------------------------ */

enum call {
	NONE,
	CALL_storage_begin,
	CALL_storage_commit,
	CALL_storage_sync,
	CALL_storage_put,
	CALL_storage_position,
	CALL_storage_set_trying,
	CALL_storage_clear_aliases,
	CALL_storage_set_alias,
	CALL_storage_count_secret,
	CALL_storage_maintain,
	CALL_storage_set_rebuild,
	CALL_storage_set_horizon,
	CALL_storage_set_retention,
	N_CALLS,
};
static atomic_int broken; /* enum call */
static atomic_long calls_left; /* of it, up to the one that fails */
static atomic_int error, n_failed;

static bool fails(enum call call)
{
	if (atomic_load(&broken) != (int)call || atomic_fetch_sub(&calls_left, 1) != 1)
		return false;
	atomic_fetch_add(&n_failed, 1);
	return true;
}

/* The nth of these calls fails with -e, once. */
static void break_call(enum call call, long n, int e)
{
	atomic_store(&error, -e);
	atomic_store(&n_failed, 0);
	atomic_store(&calls_left, n);
	atomic_store(&broken, (int)call);
}

#define FAILING(name, parameters, arguments)                                                       \
	int __real_##name parameters;                                                              \
	int __wrap_##name parameters;                                                              \
	int __wrap_##name parameters                                                               \
	{                                                                                          \
		return fails(CALL_##name) ? atomic_load(&error) : __real_##name arguments;         \
	}
FAILING(storage_begin, (struct storage * s, bool durable), (s, durable))
FAILING(storage_commit, (struct storage * s), (s))
FAILING(storage_sync, (struct storage * s), (s))
FAILING(storage_position, (struct storage * s, struct storage_position *ret), (s, ret))
FAILING(storage_set_trying, (struct storage * s, int64_t seq, int64_t n), (s, seq, n))
FAILING(storage_clear_aliases, (struct storage * s), (s))
FAILING(storage_set_alias, (struct storage * s, struct span id, const char *alias), (s, id, alias))
FAILING(storage_count_secret, (struct storage * s, const struct storage_secret_use *use), (s, use))
FAILING(storage_maintain, (struct storage * s), (s))
FAILING(storage_set_rebuild, (struct storage * s, int64_t n), (s, n))
FAILING(storage_set_horizon, (struct storage * s, int64_t at), (s, at))
FAILING(storage_set_retention, (struct storage * s, int64_t newest_s, bool waits),
	(s, newest_s, waits))

/* These alone, where a test asks for it. */
static atomic_int put_error, place_error, rescue_error;
static atomic_bool is_saved; /* nothing is left for a rescue */
static _Atomic int64_t log_bytes; /* 0: as it is */
int __real_storage_put(struct storage *s, const struct storage_delivery *d,
		       enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason);
int __wrap_storage_put(struct storage *s, const struct storage_delivery *d,
		       enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason);
int __real_storage_in_place(const struct storage *s);
int __wrap_storage_in_place(const struct storage *s);
int __wrap_storage_rescue(struct storage *s, char ret_path[static STORAGE_PATH_MAX]);
void __real_storage_stats(struct storage *s, struct storage_stats *ret);
void __wrap_storage_stats(struct storage *s, struct storage_stats *ret);
bool __real_storage_wants_upkeep(const struct storage *s);
bool __wrap_storage_wants_upkeep(const struct storage *s);

int __wrap_storage_put(struct storage *s, const struct storage_delivery *d,
		       enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason)
{
	if (fails(CALL_storage_put))
		return atomic_load(&error);
	return atomic_load(&put_error) ? -atomic_load(&put_error)
				       : __real_storage_put(s, d, ret_outcome, ret_reason);
}

int __wrap_storage_in_place(const struct storage *s)
{
	return atomic_load(&place_error) ? -atomic_load(&place_error) : __real_storage_in_place(s);
}

int __wrap_storage_rescue(struct storage *s, char ret_path[static STORAGE_PATH_MAX])
{
	(void)snprintf(ret_path, STORAGE_PATH_MAX, "%s",
		       atomic_load(&is_saved) ? "" : "/somewhere");
	return -atomic_load(&rescue_error);
}

void __wrap_storage_stats(struct storage *s, struct storage_stats *ret)
{
	__real_storage_stats(s, ret);
	if (atomic_load(&log_bytes))
		ret->wal_bytes = atomic_load(&log_bytes);
}

/* Once more than there is: so that it is asked to do it, and may fail. */
static atomic_int wanted_upkeep;

bool __wrap_storage_wants_upkeep(const struct storage *s)
{
	return atomic_fetch_sub(&wanted_upkeep, 1) > 0 || __real_storage_wants_upkeep(s);
}

/* A life -------------------------------------------------------------------- */

struct order {
	struct writer_job job;
	struct parcel parcel;
	atomic_int n_done;
};

static void order_done(struct writer_job *job)
{
	struct order *o = (struct order *)(void *)job; /* its first member */
	atomic_fetch_add(&o->n_done, 1);
}

static void init_order(struct order *o, long n)
{
	char id[32], time[64];
	*o = (struct order) { .n_done = 0 };
	(void)snprintf(id, sizeof(id), "ev-%ld", n);
	(void)snprintf(time, sizeof(time), "2026-11-20T%02ld:%02ld:00Z", n / 60, n % 60);
	init_told(&o->parcel, (struct told) { .id = id,
					      .type = "sandbox.created",
					      .time = time,
					      .sandbox = id,
					      .template = "t1" });
	o->job.delivery = o->parcel.delivery;
	o->job.delivery.judged = &o->parcel.judged;
	o->job.durable = true;
	o->job.done = order_done;
}

static struct writer *new_writer(struct world *world, bool ends_when_damaged)
{
	struct writer *w = NULL;
	if (!world->config)
		world->config = load_config(CONFIG("one"));
	const struct writer_options options = { 1000, world->config, ends_when_damaged };
	int r = writer_new(world->s, &options, &w);
	if (r != 0 && atomic_load(&n_failed) > 0) {
		assert_int_equal(r, atomic_load(&error));
		assert_null(w);
		r = writer_new(world->s, &options, &w);
	}
	assert_int_equal(r, 0);
	return w;
}

static void end_writer(struct writer *w)
{
	writer_stop(w);
	writer_free(w);
}

static struct writer_health health_of(struct writer *w)
{
	struct writer_health health;
	writer_health(w, &health);
	return health;
}

static int run_nothing(struct storage *s, void *ctx)
{
	return 0;
}

static void task_done(struct writer_task *task, int status)
{
	atomic_store((atomic_bool *)task->ctx, true);
}

/* What the writer does every second, done before this returns. */
static void tick(struct writer *w)
{
	for (int i = 0; i < 2; i++) { /* the first is answered before the tick of its round */
		atomic_bool is_done = false;
		struct writer_task task = { run_nothing, task_done, &is_done, NULL };
		atomic_fetch_add(&skipped_ms, i == 0 ? 1100 : 0);
		assert_int_equal(writer_submit_task(w, &task), 0);
		WAIT_FOR(atomic_load(&is_done));
	}
}

static void expect_answered(struct writer *w, struct order *o)
{
	assert_int_equal(writer_submit(w, &o->job), 0);
	WAIT_FOR(atomic_load(&o->n_done) > 0);
}

/* Begins, stores, counts, requests (a rebuild costs most of the time) and ends; the orders' ids
 * begin at `first`. How many were stored. */
static int live(struct world *world, struct order orders[static 4], long first, bool rebuilds)
{
	config_unref(world->config);
	world->config = load_config(first % 20 ? CONFIG("one") : CONFIG("other"));
	struct writer *w = new_writer(world, false);
	int n_stored = 0;
	atomic_store(&wanted_upkeep, 2);
	for (int i = 0; i < 4; i++)
		init_order(&orders[i], first + i);
	writer_count_secret(w, "e2b", 1, "aabbccdd", 1000);
	assert_int_equal(writer_submit(w, &orders[0].job), 0);
	assert_int_equal(writer_submit(w, &orders[1].job), 0);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&orders[1].n_done) > 0);
	atomic_store(&put_error, 0);
	tick(w);
	expect_answered(w, &orders[2]);
	if (rebuilds)
		writer_request_rebuild(w);
	WAIT_FOR(!health_of(w).rebuilding);
	writer_request_prune(w);
	WAIT_FOR(!health_of(w).pruning);
	for (int i = 0; i < 9 && health_of(w).last_error != 0; i++)
		tick(w);
	assert_int_equal(health_of(w).last_error, 0);
	expect_answered(w, &orders[3]);
	end_writer(w);
	expect_rows(world, "SELECT alias FROM template WHERE template_id = 't1'",
		    first % 20 ? "one" : "other");
	for (int i = 0; i < 4; i++) {
		assert_int_equal(atomic_load(&orders[i].n_done), 1);
		n_stored += orders[i].job.status == 0;
		finish_parcel(&orders[i].parcel);
	}
	return n_stored;
}

static long count_events(const struct world *world)
{
	CLEANUP_FREE char *rows = rows_of(world, "SELECT count(*) FROM events");
	return strtol(rows, NULL, 10);
}

static void expect_count(const struct world *world, const char *sql, long n)
{
	char expected[32];
	(void)snprintf(expected, sizeof(expected), "%ld", n);
	expect_rows(world, sql, expected);
}

/* The first calls of each kind fail once, each in a life of its own. */
static void whatever_fails_once_nothing_is_lost_and_it_goes_on(void **state)
{
	enum { OFTEN = 8, SELDOM = 3 };
	static const int errors[] = { EIO, ENOMEM, EINVAL };
	struct world *world = *state;
	int kept = begin_listening();
	struct order orders[4];
	long n_stored = 0, n_lives = 0;
	for (enum call call = CALL_storage_begin; call < N_CALLS; call++) {
		bool is_often = call == CALL_storage_begin || call == CALL_storage_position;
		bool reached = true;
		for (long n = 1; n <= (is_often ? OFTEN : SELDOM) && reached; n++) {
			break_call(call, n, errors[n_lives++ % 3]);
			/* what is tried again after a failure wants one */
			atomic_store(&put_error, call == CALL_storage_set_trying ? EIO : 0);
			int stored = live(world, orders, 10 * n_lives,
					  n == 1 || call == CALL_storage_set_rebuild);
			reached = atomic_load(&n_failed) > 0;
			break_call(NONE, 0, 0);
			assert_in_range(stored, 2, 4);
			n_stored += stored;
			/* What was written and not synced is refused, and may be there. */
			long more = count_events(world) - n_stored;
			assert_in_range(more, 0, call == CALL_storage_sync ? 4 - stored : 0);
			n_stored += more;
			expect_rows(world, "SELECT skipped FROM ledger_state", "0");
			if (!reached && n == 1)
				fail_msg("no life reaches call %d", (int)call);
		}
	}
	n_stored += live(world, orders, 1, true);
	CLEANUP_FREE char *said = end_listening(kept);
	expect_count(world, "SELECT count(*) FROM sandboxes", n_stored);
	expect_count(world, "SELECT sum(n) FROM secret_use", n_lives + 1); /* one in each life */
	static const char *const complaints[] = {
		"deliveries were not stored",
		"template aliases were not stored",
		"the retention horizon could not be moved",
		"the ledger could not be written",
		"a request could not be begun",
		"the write-ahead log could not be moved into the database",
	};
	for (size_t i = 0; i < ARRAY_SIZE(complaints); i++)
		if (!strstr(said, complaints[i]))
			fail_msg("nobody said: %s", complaints[i]);
}

static void without_memory_for_it_there_is_no_writer(void **state)
{
	struct world *world = *state;
	writer_free(new_writer(world, false));
	const struct writer_options options = { 1000, world->config, false };
	long n = 1;
	for (bool hit = true; hit; n++) {
		struct writer *w = NULL;
		scarce_begin(n);
		int r = writer_new(world->s, &options, &w);
		hit = scarce_end();
		assert_int_equal(r, hit ? -ENOMEM : 0);
		assert_true(hit == !w);
		writer_free(w);
	}
	assert_true(n > 4);
}

/* Trouble that stays -------------------------------------------------------- */

static void expect_damage(struct world *world, bool ends)
{
	enum { NO_DELIVERY = -1 };
	static const struct {
		int after_ms, error;
		bool is_damaged;
	} tries[] = {
		{ 0, EUCLEAN, false },
		{ 0, EUCLEAN, false },
		{ 0, EUCLEAN, false }, /* often, not for long */
		{ 70000, EUCLEAN, false }, /* forgotten: it begins anew */
		{ 10000, EUCLEAN, false }, /* for long, not often */
		{ 0, 0, false }, /* another page */
		{ 0, EUCLEAN, true },
		{ 0, EUCLEAN, true },
		{ 0, 0, true },
		{ 0, EIO, true },
		{ 70000, NO_DELIVERY, true }, /* that it could be written says nothing of it */
		{ 0, EIO, true },
		{ 0, 0, false },
	};
	struct writer *w = new_writer(world, ends);
	bool was_damaged = false;
	assert_int_equal(writer_start(w), 0);
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		struct order o;
		atomic_fetch_add(&skipped_ms, tries[i].after_ms);
		if (tries[i].error == NO_DELIVERY) {
			tick(w);
			assert_int_equal(health_of(w).last_error, 0);
			assert_int_equal(health_of(w).is_damaged, tries[i].is_damaged);
			continue;
		}
		atomic_store(&put_error, tries[i].error);
		init_order(&o, (ends ? 100 : 0) + (long)i);
		expect_answered(w, &o);
		was_damaged |= tries[i].is_damaged;
		assert_int_equal(o.job.status, -tries[i].error);
		assert_int_equal(health_of(w).is_damaged, tries[i].is_damaged);
		assert_int_equal(health_of(w).wants_end, ends && was_damaged);
		finish_parcel(&o.parcel);
	}
	end_writer(w);
}

static void pages_that_cannot_be_read_often_and_for_long_are_damage(void **state)
{
	int kept = begin_listening();
	expect_damage(*state, false);
	expect_damage(*state, true);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "stop the daemon and restore a backup"));
	assert_non_null(strstr(said, "the next start sets it aside"));
}

static void a_store_out_of_place_is_saved_and_then_left(void **state)
{
	struct writer *w = new_writer(*state, false);
	struct order o;
	int kept = begin_listening();
	assert_int_equal(writer_start(w), 0);
	atomic_store(&place_error, ESTALE);
	atomic_store(&rescue_error, ENOSPC);
	init_order(&o, 1);
	expect_answered(w, &o);
	assert_int_equal(o.job.status, -ESTALE);
	tick(w);
	assert_true(health_of(w).is_lost && !health_of(w).wants_end);
	atomic_store(&rescue_error, 0);
	tick(w);
	assert_true(health_of(w).is_lost && health_of(w).wants_end);
	tick(w);
	CLEANUP_FREE char *said = end_listening(kept);
	end_writer(w);
	finish_parcel(&o.parcel);
	atomic_store(&place_error, 0);
	const char *first = strstr(said, "deleted, moved or replaced");
	assert_true(first && !strstr(first + 1, "deleted, moved or replaced"));
	assert_non_null(strstr(said, "trying again"));
	assert_non_null(strstr(said, "/somewhere"));
}

static void a_store_out_of_place_of_which_nothing_is_missing_is_left_at_once(void **state)
{
	struct writer *w = new_writer(*state, false);
	int kept = begin_listening();
	assert_int_equal(writer_start(w), 0);
	atomic_store(&is_saved, true);
	atomic_store(&place_error, ESTALE);
	tick(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_true(health_of(w).is_lost && health_of(w).wants_end);
	end_writer(w);
	atomic_store(&place_error, 0);
	atomic_store(&is_saved, false);
	assert_non_null(strstr(said, "all that was stored is in the database that was opened"));
}

static int times_said(const char *said, const char *what)
{
	int n = 0;
	for (const char *at = said; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void a_log_that_grows_is_told_every_ten_minutes_until_it_shrinks(void **state)
{
	struct writer *w = new_writer(*state, false);
	int kept = begin_listening();
	assert_int_equal(writer_start(w), 0);
	atomic_store(&log_bytes, LOG_LIMIT + 1);
	tick(w);
	tick(w);
	atomic_fetch_add(&skipped_ms, 600000);
	tick(w);
	atomic_store(&log_bytes, LOG_LIMIT);
	tick(w);
	tick(w);
	CLEANUP_FREE char *said = end_listening(kept);
	atomic_store(&log_bytes, 0);
	end_writer(w);
	assert_int_equal(times_said(said, "the write-ahead log is above wal_limit"), 2);
	assert_int_equal(times_said(said, "the write-ahead log is below wal_limit again"), 1);
}

static void secrets_beyond_what_it_counts_harm_none_of_those_it_does(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world, false);
	for (unsigned int i = 0; i < 1000; i++)
		writer_count_secret(w, "e2b", i % 600 + 1, "aabbccdd", 1000);
	assert_int_equal(writer_start(w), 0);
	end_writer(w);
	expect_rows(world, "SELECT count(*), sum(n) FROM secret_use", "512|912");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whatever_fails_once_nothing_is_lost_and_it_goes_on),
		TEST(without_memory_for_it_there_is_no_writer),
		TEST(pages_that_cannot_be_read_often_and_for_long_are_damage),
		TEST(a_store_out_of_place_is_saved_and_then_left),
		TEST(a_store_out_of_place_of_which_nothing_is_missing_is_left_at_once),
		TEST(a_log_that_grows_is_told_every_ten_minutes_until_it_shrinks),
		TEST(secrets_beyond_what_it_counts_harm_none_of_those_it_does),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
