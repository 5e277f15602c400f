/* The writer's promises: every accepted job is answered exactly once, never with success before it
 * is on the disk; one bad job harms no other; nothing is left behind at the end.
 *
 * Jobs are lent before the thread starts where a test wants them in one batch.
 */
#include "storage_fixture.h"
#include "writer.h"

#include "clock.h"

#include <pthread.h>
#include <time.h>

#define PLAIN "[source e2b]\npath = /e2b\n"

/* Polls: the condition is another thread's to bring about. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		int64_t until_ms_ = clock_mono_ms() + 20000;                                       \
		while (!(condition)) {                                                             \
			const struct timespec pause_ = { 0, 500000 };                              \
			(void)nanosleep(&pause_, NULL);                                            \
			if (clock_mono_ms() > until_ms_)                                           \
				fail_msg("waited in vain for %s", #condition);                     \
		}                                                                                  \
	} while (0)

struct order {
	struct writer_job job;
	struct parcel parcel;
	atomic_int n_done;
	long syncs_before, syncs_at_done;
};

static atomic_int n_done;

static void order_done(struct writer_job *job)
{
	struct order *o = (struct order *)(void *)job; /* its first member */
	o->syncs_at_done = atomic_load(&disk.syncs);
	atomic_fetch_add(&o->n_done, 1);
	atomic_fetch_add(&n_done, 1);
}

/* An event of its own for every n. */
static void init_order(struct order *o, int n)
{
	char id[32];
	*o = (struct order) { .n_done = 0 };
	(void)snprintf(id, sizeof(id), "ev-%d", n);
	init_told(&o->parcel, (struct told) { .id = id,
					      .type = "sandbox.created",
					      .time = "2026-11-20T09:00:00Z",
					      .sandbox = id });
	o->job.delivery = o->parcel.delivery;
	o->job.delivery.judged = &o->parcel.judged;
	o->job.durable = true;
	o->job.done = order_done;
}

static struct order *new_orders(int n)
{
	struct order *orders = calloc((size_t)n, sizeof(*orders));
	assert_non_null(orders);
	for (int i = 0; i < n; i++)
		init_order(&orders[i], i);
	return orders;
}

static void free_orders(struct order *orders, int n)
{
	for (int i = 0; i < n; i++)
		finish_parcel(&orders[i].parcel);
	free(orders);
}

static void submit(struct writer *w, struct order *o)
{
	o->syncs_before = atomic_load(&disk.syncs);
	assert_int_equal(writer_submit(w, &o->job), 0);
}

static struct writer *new_writer_with(struct world *world, const char *config, size_t queue_limit)
{
	struct writer *w = NULL;
	config_unref(world->config);
	world->config = load_config(config);
	const struct writer_options options = { queue_limit, world->config };
	assert_int_equal(writer_new(world->s, &options, &w), 0);
	atomic_store(&n_done, 0);
	return w;
}

static struct writer *new_writer(struct world *world)
{
	return new_writer_with(world, PLAIN, 100000);
}

static void end_writer(struct writer *w)
{
	writer_stop(w);
	writer_free(w);
}

static int last_error(struct writer *w)
{
	struct writer_health health;
	writer_health(w, &health);
	return health.last_error;
}

/* Answers ------------------------------------------------------------------- */

static void writes_what_waits_in_one_commit(void **state)
{
	enum { N = 500 };
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	for (int i = 0; i < N; i++)
		submit(w, &orders[i]);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(atomic_load(&orders[i].n_done), 1);
		assert_int_equal(orders[i].job.status, 0);
		assert_int_equal(orders[i].job.outcome, STORAGE_STORED);
		assert_true(orders[i].syncs_at_done > orders[i].syncs_before);
		assert_true(orders[i].syncs_at_done - orders[i].syncs_before < 20);
	}
	end_writer(w);
	expect_rows(world, "SELECT count(*), max(seq), max(deliveries) FROM events", "500|500|1");
	free_orders(orders, N);
}

/* At the moment of done() another connection, too, sees the row: it is committed. */
static struct world *watched;

static void look_and_be_done(struct writer_job *job)
{
	expect_rows(watched, "SELECT count(*) FROM events", "1");
	order_done(job);
}

static void answers_only_what_is_committed_and_synced(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order o;
	init_order(&o, 1);
	watched = world;
	o.job.done = look_and_be_done;
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(last_error(w) == 0);
	submit(w, &o);
	WAIT_FOR(atomic_load(&o.n_done) == 1);
	assert_int_equal(o.job.status, 0);
	assert_true(o.syncs_at_done > o.syncs_before);
	end_writer(w);
	finish_parcel(&o.parcel);
}

/* Four lend at once, each the same events: one is told `stored`, the others `duplicate`. */
enum { LENDERS = 4, EACH = 300 };

struct lender {
	struct writer *w;
	struct order *orders;
	pthread_t thread;
};

static void *lend_all(void *ctx)
{
	struct lender *lender = ctx;
	for (int i = 0; i < EACH; i++) {
		lender->orders[i].syncs_before = atomic_load(&disk.syncs);
		if (writer_submit(lender->w, &lender->orders[i].job) != 0)
			return lender;
	}
	return NULL;
}

static void answers_every_job_once_whoever_lends_it(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct lender lenders[LENDERS];
	assert_int_equal(writer_start(w), 0);
	for (int i = 0; i < LENDERS; i++) {
		lenders[i] = (struct lender) { w, new_orders(EACH), 0 };
		assert_int_equal(pthread_create(&lenders[i].thread, NULL, lend_all, &lenders[i]),
				 0);
	}
	for (int i = 0; i < LENDERS; i++) {
		void *failed;
		assert_int_equal(pthread_join(lenders[i].thread, &failed), 0);
		assert_null(failed);
	}
	WAIT_FOR(atomic_load(&n_done) == LENDERS * EACH);
	end_writer(w);
	for (int i = 0; i < EACH; i++) {
		int stored = 0, duplicate = 0;
		for (int k = 0; k < LENDERS; k++) {
			const struct order *o = &lenders[k].orders[i];
			assert_int_equal(atomic_load(&o->n_done), 1);
			assert_int_equal(o->job.status, 0);
			stored += o->job.outcome == STORAGE_STORED;
			duplicate += o->job.outcome == STORAGE_DUPLICATE;
		}
		assert_int_equal(stored, 1);
		assert_int_equal(duplicate, LENDERS - 1);
	}
	for (int i = 0; i < LENDERS; i++)
		free_orders(lenders[i].orders, EACH);
	expect_rows(world, "SELECT count(*), sum(deliveries) FROM events", "300|1200");
}

/* A delivery as the other one, of another event. */
static void init_other(struct order *o, const struct order *like, struct told told)
{
	*o = (struct order) { .n_done = 0 };
	init_told(&o->parcel, told);
	o->job = like->job;
	o->job.delivery = o->parcel.delivery;
	o->job.delivery.judged = &o->parcel.judged;
}

static void tells_why_a_body_was_quarantined(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order first, reused;
	init_order(&first, 1);
	init_other(&reused, &first,
		   (struct told) { .id = "ev-1",
				   .type = "sandbox.killed",
				   .time = "2026-11-20T10:00:00Z",
				   .sandbox = "x" });
	submit(w, &first);
	submit(w, &reused);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == 2);
	end_writer(w);
	assert_int_equal(first.job.outcome, STORAGE_STORED);
	assert_int_equal(reused.job.outcome, STORAGE_QUARANTINED);
	assert_int_equal(reused.job.reason, INGEST_REASON_ID_REUSED);
	finish_parcel(&first.parcel);
	finish_parcel(&reused.parcel);
}

/* The owner may free a job in done(). */
static void free_order(struct writer_job *job)
{
	struct order *o = (struct order *)(void *)job;
	finish_parcel(&o->parcel);
	free(o);
	atomic_fetch_add(&n_done, 1);
}

static void lets_go_of_a_job_before_done(void **state)
{
	enum { N = 20 };
	struct writer *w = new_writer(*state);
	for (int i = 0; i < N; i++) {
		struct order *o = calloc(1, sizeof(*o));
		assert_non_null(o);
		init_order(o, i);
		o->job.done = free_order;
		submit(w, o);
	}
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == N);
	end_writer(w);
}

/* More owners than any fixed table would hold: each is woken once a batch, after all of it. */
enum { WAKERS = 40 };
static atomic_int woken[WAKERS];
static atomic_int woken_early;

static void count_wake(void *ctx)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
	if (atomic_load(&n_done) % (2 * WAKERS) != 0)
		atomic_fetch_add(&woken_early, 1);
}

static void wakes_each_owner_once_a_batch(void **state)
{
	struct writer *w = new_writer(*state);
	struct writer_waker wakers[WAKERS] = { 0 };
	struct order *orders = new_orders(4 * WAKERS);
	for (int i = 0; i < WAKERS; i++) {
		atomic_store(&woken[i], 0);
		wakers[i].wake = count_wake;
		wakers[i].ctx = &woken[i];
	}
	for (int i = 0; i < 2 * WAKERS; i++) {
		orders[i].job.waker = &wakers[i % WAKERS];
		submit(w, &orders[i]);
	}
	assert_int_equal(writer_start(w), 0);
	for (int i = 0; i < WAKERS; i++)
		WAIT_FOR(atomic_load(&woken[i]) == 1);
	end_writer(w);
	/* And again: a waker is not used up. */
	w = new_writer(*state);
	for (int i = 2 * WAKERS; i < 4 * WAKERS; i++) {
		orders[i].job.waker = &wakers[i % WAKERS];
		submit(w, &orders[i]);
	}
	assert_int_equal(writer_start(w), 0);
	for (int i = 0; i < WAKERS; i++)
		WAIT_FOR(atomic_load(&woken[i]) == 2);
	end_writer(w);
	assert_int_equal(atomic_load(&woken_early), 0);
	free_orders(orders, 4 * WAKERS);
}

/* Limits and failures ------------------------------------------------------- */

static void refuses_jobs_above_the_limit_of_its_queue(void **state)
{
	struct writer *w = new_writer_with(*state, PLAIN, 3);
	struct order *orders = new_orders(5);
	for (int i = 0; i < 3; i++)
		submit(w, &orders[i]);
	assert_int_equal(writer_submit(w, &orders[3].job), -EAGAIN);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == 3);
	submit(w, &orders[4]);
	WAIT_FOR(atomic_load(&n_done) == 4);
	end_writer(w);
	assert_int_equal(atomic_load(&orders[3].n_done), 0);
	free_orders(orders, 5);
}

static void keeps_one_bad_job_from_its_neighbours(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(3);
	orders[1].parcel.judged.event.type = SPAN_ABSENT; /* which no event has */
	for (int i = 0; i < 3; i++)
		submit(w, &orders[i]);
	int kept = begin_listening();
	int r = writer_start(w);
	WAIT_FOR(r < 0 || atomic_load(&n_done) == 3);
	writer_stop(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_int_equal(r, 0);
	assert_non_null(strstr(said, "deliveries were not stored"));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(atomic_load(&orders[i].n_done), 1);
		assert_int_equal(orders[i].job.status, i == 1 ? -EINVAL : 0);
	}
	assert_int_equal(orders[2].job.outcome, STORAGE_STORED);
	writer_free(w);
	expect_rows(world, "SELECT event_id FROM events ORDER BY 1", "ev-0\nev-2");
	free_orders(orders, 3);
}

/* A sync that fails: no success is told, though the event may be kept; later it works again, and
 * the health figures find out by themselves. */
static void says_so_when_the_disk_fails(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(3);
	assert_int_equal(writer_start(w), 0);
	submit(w, &orders[0]);
	WAIT_FOR(atomic_load(&n_done) == 1 && writer_horizon(w) > 0);
	assert_int_equal(last_error(w), 0);
	int kept = begin_listening();
	disk_break_only(DISK_SYNCS, 1, EIO, true);
	submit(w, &orders[1]);
	WAIT_FOR(atomic_load(&n_done) == 2);
	int error = last_error(w);
	disk_mend();
	WAIT_FOR(last_error(w) == 0);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "deliveries were not stored"));
	assert_int_equal(orders[1].job.status, -EIO);
	assert_int_equal(error, -EIO);
	atomic_store(&orders[1].n_done, 0);
	submit(w, &orders[1]);
	submit(w, &orders[2]);
	WAIT_FOR(atomic_load(&n_done) == 4);
	assert_int_equal(orders[1].job.status, 0);
	assert_in_range(orders[1].job.outcome, STORAGE_STORED, STORAGE_DUPLICATE);
	assert_int_equal(orders[2].job.outcome, STORAGE_STORED);
	end_writer(w);
	expect_rows(world, "SELECT count(*) FROM events", "3");
	free_orders(orders, 3);
}

/* While the disk syncs ------------------------------------------------------ */

enum { FLYING = 60 }; /* enough for the fold to be worth its while beside a sync, twice */

static long count_events(const struct world *world)
{
	CLEANUP_FREE char *rows = rows_of(world, "SELECT count(*) FROM events");
	return strtol(rows, NULL, 10);
}

/* Holds the writer, so that what is lent meanwhile is one batch. */
static atomic_bool gate_is_reached, gate_is_open;

static int run_gate(struct storage *s, void *ctx)
{
	atomic_store(&gate_is_reached, true);
	WAIT_FOR(atomic_load(&gate_is_open));
	return 0;
}

static void gate_done(struct writer_task *task, int status)
{
}

static void close_gate(struct writer *w)
{
	static struct writer_task gate;
	gate = (struct writer_task) { .run = run_gate, .done = gate_done };
	atomic_store(&gate_is_reached, false);
	atomic_store(&gate_is_open, false);
	assert_int_equal(writer_submit_task(w, &gate), 0);
	WAIT_FOR(atomic_load(&gate_is_reached));
}

/* Two batches, the later one written while the disk syncs the earlier. */
static struct order *begin_flying(struct world *world, struct writer *w)
{
	struct order *orders = new_orders(2 * FLYING);
	close_gate(w);
	for (int i = 0; i < FLYING; i++)
		submit(w, &orders[i]);
	atomic_store(&disk.holds_syncs, true);
	atomic_store(&gate_is_open, true);
	WAIT_FOR(atomic_load(&disk.syncs_held) == 1 && count_events(world) >= FLYING);
	for (int i = FLYING; i < 2 * FLYING; i++)
		submit(w, &orders[i]);
	WAIT_FOR(count_events(world) > FLYING); /* the last few may wait for the sync */
	return orders;
}

/* The store is open, nothing is in doubt, and no tick has anything to sync. */
static struct writer *begin_settled(struct world *world, struct order *first)
{
	struct writer *w = new_writer(world);
	init_order(first, 1000);
	assert_int_equal(writer_start(w), 0);
	submit(w, first);
	WAIT_FOR(atomic_load(&first->n_done) == 1 && writer_horizon(w) > 0);
	atomic_store(&n_done, 0);
	return w;
}

static void writes_and_folds_while_the_disk_syncs_and_answers_nothing(void **state)
{
	struct world *world = *state;
	struct order first;
	struct writer *w = begin_settled(world, &first);
	struct order *orders = begin_flying(world, w);
	struct writer_health health;
	WAIT_FOR((writer_health(w, &health), health.folded_seq > FLYING));
	assert_int_equal(atomic_load(&n_done), 0);
	assert_true(clock_mono_ms() - health.round_mono_ms < 20000);
	atomic_store(&disk.holds_syncs, false);
	WAIT_FOR(atomic_load(&n_done) == 2 * FLYING);
	for (int i = 0; i < 2 * FLYING; i++) {
		assert_int_equal(atomic_load(&orders[i].n_done), 1);
		assert_int_equal(orders[i].job.status, 0);
		assert_int_equal(orders[i].job.outcome, STORAGE_STORED);
		assert_true(orders[i].syncs_at_done > orders[i].syncs_before);
	}
	end_writer(w);
	free_orders(orders, 2 * FLYING);
	finish_parcel(&first.parcel);
}

/* What was written beside a sync that fails is not believed either, until it is written again. */
static void believes_nothing_that_was_written_before_a_sync_failed(void **state)
{
	struct world *world = *state;
	struct order first;
	int kept = begin_listening();
	struct writer *w = begin_settled(world, &first);
	struct order *orders = begin_flying(world, w);
	disk_break_only(DISK_SYNCS, 1, EIO, false);
	atomic_store(&disk.holds_syncs, false);
	WAIT_FOR(atomic_load(&n_done) == 2 * FLYING);
	disk_mend();
	for (int i = 0; i < 2 * FLYING; i++) {
		/* of the log that was written again, of its directory, and of the batch */
		bool is_mended = orders[i].syncs_at_done - orders[0].syncs_at_done >= 3;
		assert_int_equal(orders[i].job.status, i < FLYING || !is_mended ? -EIO : 0);
	}
	WAIT_FOR(last_error(w) == 0);
	for (int i = 0; i < 2 * FLYING; i++)
		submit(w, &orders[i]);
	WAIT_FOR(atomic_load(&n_done) == 4 * FLYING);
	for (int i = 0; i < 2 * FLYING; i++)
		assert_int_equal(orders[i].job.status, 0);
	end_writer(w);
	free(end_listening(kept));
	expect_rows(world, "SELECT count(*) FROM events", "121");
	free_orders(orders, 2 * FLYING);
	finish_parcel(&first.parcel);
}

/* Each group is a batch of its own, more of them than wait for one sync; then the writer waits for
 * the disk by itself. */
static void waits_for_a_disk_that_is_far_behind(void **state)
{
	enum { GROUPS = 14, EACH_GROUP = 20, ALL = GROUPS * EACH_GROUP };
	struct world *world = *state;
	struct order first;
	struct writer *w = begin_settled(world, &first);
	struct order *flying = begin_flying(world, w), *orders = new_orders(ALL);
	for (int i = 0; i < ALL; i++) {
		finish_parcel(&orders[i].parcel);
		init_order(&orders[i], 2000 + i);
	}
	long before = count_events(world), written = before;
	for (int i = 0; i < GROUPS; i++) {
		for (int k = 0; k < EACH_GROUP; k++)
			submit(w, &orders[i * EACH_GROUP + k]);
		int64_t until_ms = clock_mono_ms() + 100;
		WAIT_FOR(count_events(world) > written || clock_mono_ms() > until_ms);
		written = count_events(world);
	}
	assert_true(written > before && written < before + ALL);
	assert_int_equal(atomic_load(&n_done), 0);
	atomic_store(&disk.holds_syncs, false);
	WAIT_FOR(atomic_load(&n_done) == 2 * FLYING + ALL);
	for (int i = 0; i < ALL; i++)
		assert_int_equal(orders[i].job.status, 0);
	end_writer(w);
	expect_rows(world, "SELECT count(*) FROM events", "401");
	free_orders(orders, ALL);
	free_orders(flying, 2 * FLYING);
	finish_parcel(&first.parcel);
}

/* Who does not wait for the disk is not told of it; and it is said, not too often. */
static void tells_of_a_sync_that_failed_whom_it_concerns(void **state)
{
	enum { N = 12 }; /* one more than is said in a while */
	struct world *world = *state;
	struct order first;
	struct writer *w = begin_settled(world, &first);
	struct order *orders = new_orders(N);
	int kept = begin_listening();
	for (int i = 0; i < N; i += 2) {
		close_gate(w);
		orders[i].job.durable = false;
		submit(w, &orders[i]);
		submit(w, &orders[i + 1]);
		disk_break_only(DISK_SYNCS, 1, EIO, false);
		atomic_store(&gate_is_open, true);
		WAIT_FOR(atomic_load(&n_done) == i + 2);
		disk_mend();
		WAIT_FOR(last_error(w) == 0);
		assert_int_equal(orders[i].job.status, 0);
		assert_int_equal(orders[i + 1].job.status, -EIO);
	}
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "the write-ahead log cannot be synced"));
	end_writer(w);
	free_orders(orders, N);
	finish_parcel(&first.parcel);
}

/* The signs of life stop with the disk, though the thread could go on. */
static void shows_that_the_disk_is_stuck(void **state)
{
	struct world *world = *state;
	struct order first;
	struct writer *w = begin_settled(world, &first);
	struct order *orders = begin_flying(world, w);
	struct writer_health before, after;
	int64_t until_ms = clock_mono_ms() + 1500;
	writer_health(w, &before);
	WAIT_FOR(clock_mono_ms() > until_ms);
	writer_health(w, &after);
	assert_true(after.round_mono_ms < until_ms - 1000);
	atomic_store(&disk.holds_syncs, false);
	WAIT_FOR(atomic_load(&n_done) == 2 * FLYING);
	WAIT_FOR((writer_health(w, &after), after.round_mono_ms > until_ms));
	end_writer(w);
	free_orders(orders, 2 * FLYING);
	finish_parcel(&first.parcel);
}

/* The end ------------------------------------------------------------------- */

static atomic_int n_tasks;

static int run_nothing(struct storage *s, void *ctx)
{
	return 0;
}

static void task_done(struct writer_task *task, int status)
{
	atomic_fetch_add(&n_tasks, 1);
	if (task->ctx)
		*(int *)task->ctx = status;
}

static void finishes_what_is_queued_before_it_stops(void **state)
{
	enum { N = 1500 };
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	struct writer_task task = { .run = run_nothing, .done = task_done };
	atomic_store(&n_tasks, 0);
	for (int i = 0; i < N - 1; i++)
		submit(w, &orders[i]);
	assert_int_equal(writer_submit_task(w, &task), 0);
	assert_int_equal(writer_start(w), 0);
	int64_t begun_ms = clock_mono_ms();
	writer_stop(w);
	bool is_in_time = clock_mono_ms() - begun_ms < 1000; /* it folds for so long at most */
	assert_int_equal(atomic_load(&n_done), N - 1);
	assert_int_equal(atomic_load(&n_tasks), 1);
	assert_int_equal(writer_submit(w, &orders[N - 1].job), -ESHUTDOWN);
	assert_int_equal(writer_submit_task(w, &task), -ESHUTDOWN);
	writer_stop(w); /* twice is once */
	writer_free(w);
	expect_rows(world, "SELECT count(*) FROM events", "1499");
	if (is_in_time)
		expect_rows(world, "SELECT stored_seq - folded_seq FROM ledger_state", "0");
	free_orders(orders, N);
}

/* What the ledger holds of a sandbox cannot be read: nothing that is said of it can be folded,
 * until the ledger is made anew. */
static void a_rebuild_helps_a_ledger_that_cannot_be_read(void **state)
{
	struct world *world = *state;
	struct writer_health health;
	struct order first, second;
	int kept = begin_listening();
	struct writer *w = new_writer(world);
	init_order(&first, 1);
	assert_int_equal(writer_start(w), 0);
	submit(w, &first);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == 1));
	end_writer(w);
	close_store(world);
	change(world, "UPDATE sandbox SET facts = x'00'");
	open_store(world);
	w = new_writer(world);
	init_other(&second, &first,
		   (struct told) { .id = "ev-2",
				   .type = "sandbox.paused",
				   .time = "2026-11-20T09:10:00Z",
				   .sandbox = "ev-1" });
	submit(w, &second);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&second.n_done) == 1);
	writer_request_rebuild(w);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == 2 && !health.rebuilding));
	end_writer(w);
	free(end_listening(kept));
	expect_rows(world, "SELECT sandbox_id, state FROM sandboxes", "ev-1|paused");
	finish_parcel(&first.parcel);
	finish_parcel(&second.parcel);
}

/* Of so many events; 0: as the writer has it. */
static size_t part_size;
static atomic_bool wants_parts, wants_whole; /* was asked for */

void __real_projector_set_part(struct projector *p, size_t n);
void __wrap_projector_set_part(struct projector *p, size_t n);
void __wrap_projector_set_part(struct projector *p, size_t n)
{
	atomic_store(n > 0 ? &wants_parts : &wants_whole, true);
	__real_projector_set_part(p, part_size > 0 ? part_size : n);
}

/* Slices of as many events as are asked for, however long they take; or none; or one event in 0.2
 * s.
 */
static atomic_bool takes_its_time, is_broken, is_slow;

int __real_projector_step(struct projector *p, int64_t budget_us, size_t events, bool *ret_more);
int __wrap_projector_step(struct projector *p, int64_t budget_us, size_t events, bool *ret_more);
int __wrap_projector_step(struct projector *p, int64_t budget_us, size_t events, bool *ret_more)
{
	const struct timespec a_while = { .tv_nsec = 200000000 };
	if (atomic_load(&is_broken))
		return -EIO;
	if (atomic_load(&is_slow)) {
		(void)nanosleep(&a_while, NULL);
		return __real_projector_step(p, budget_us, 1, ret_more);
	}
	return __real_projector_step(p, atomic_load(&takes_its_time) ? 60000000 : budget_us, events,
				     ret_more);
}

int __real_projector_gather(struct projector *p, int64_t least, int64_t budget_us, size_t most);
int __wrap_projector_gather(struct projector *p, int64_t least, int64_t budget_us, size_t most);
int __wrap_projector_gather(struct projector *p, int64_t least, int64_t budget_us, size_t most)
{
	return atomic_load(&is_broken) ? -EIO : __real_projector_gather(p, least, budget_us, most);
}

/* Or each change of the ledger would have the slice begun anew, and written whole. */
static void a_rebuild_waits_for_the_end_of_a_slice_in_parts(void **state)
{
	enum { N = 100, PART = 3 };
	struct world *world = *state;
	struct writer_health health;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	int kept = begin_listening();
	for (int i = 0; i < N; i++)
		submit(w, &orders[i]);
	writer_request_rebuild(w);
	part_size = PART;
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == N && !health.rebuilding));
	end_writer(w);
	part_size = 0;
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "the ledger was rebuilt events=100"));
	expect_rows(world, "SELECT count(*), sum(runs) FROM sandboxes", "100|100");
	free_orders(orders, N);
}

/* Also of what came between the parts of its last slice. */
static void folds_all_before_it_stops_in_order(void **state)
{
	enum { N = 800, PART = 1 };
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	for (int i = 0; i < N / 2; i++)
		submit(w, &orders[i]);
	part_size = PART;
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(count_events(world) > 0);
	for (int i = N / 2; i < N; i++)
		submit(w, &orders[i]);
	int64_t begun_ms = clock_mono_ms();
	end_writer(w);
	part_size = 0;
	if (clock_mono_ms() - begun_ms < 1000) /* it folds for so long at most */
		expect_rows(world, "SELECT stored_seq, stored_seq - folded_seq FROM ledger_state",
			    "800|0");
	free_orders(orders, N);
}

static void leaves_to_the_next_start_what_takes_longer_than_a_second(void **state)
{
	enum { N = 60 };
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	struct writer_health health;
	atomic_store(&is_slow, true);
	for (int i = 0; i < N; i++)
		submit(w, &orders[i]);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == N);
	int64_t begun_ms = clock_mono_ms();
	end_writer(w);
	assert_in_range(clock_mono_ms() - begun_ms, 800, 8000);
	atomic_store(&is_slow, false);
	CLEANUP_FREE char *left =
		rows_of(world, "SELECT stored_seq - folded_seq FROM ledger_state");
	assert_true(strtol(left, NULL, 10) > N / 2);
	w = new_writer(world);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == N));
	end_writer(w);
	expect_rows(world, "SELECT stored_seq, skipped FROM ledger_state", "60|0");
	free_orders(orders, N);
}

/* Deliveries that come one by one get parts between them, but not while the fold is far behind. */
static void catches_up_in_whole_slices_after_the_fold_failed(void **state)
{
	enum { N = 3700, EACH_GROUP = 100 }; /* two slices and some; one of them is the first */
	struct world *world = *state;
	struct writer_health health;
	struct order first, last;
	int kept = begin_listening();
	struct writer *w = begin_settled(world, &first);
	struct order *orders = new_orders(N);
	atomic_store(&takes_its_time, true);
	atomic_store(&is_broken, true);
	for (int i = 0; i < N; i += EACH_GROUP) { /* no crowd */
		for (int k = i; k < i + EACH_GROUP; k++)
			submit(w, &orders[k]);
		WAIT_FOR(atomic_load(&n_done) == i + EACH_GROUP);
	}
	atomic_store(&disk.holds_syncs, true);
	init_order(&last, 2 * N);
	submit(w, &last);
	WAIT_FOR(atomic_load(&disk.syncs_held) == 1 && count_events(world) == N + 1);
	atomic_store(&wants_parts, false);
	atomic_store(&wants_whole, false);
	atomic_store(&is_broken, false);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == N + 1));
	assert_true(atomic_load(&wants_whole));
	assert_true(atomic_load(&wants_parts));
	atomic_store(&disk.holds_syncs, false);
	WAIT_FOR(atomic_load(&n_done) == N + 1);
	end_writer(w);
	atomic_store(&takes_its_time, false);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "the ledger could not be written"));
	expect_rows(world, "SELECT folded_seq, skipped FROM ledger_state", "3701|0");
	free_orders(orders, N);
	finish_parcel(&first.parcel);
	finish_parcel(&last.parcel);
}

/* More waits than one slice of the fold takes. */
static void folds_what_a_crowd_left_behind(void **state)
{
	enum { N = 2600 };
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(N);
	struct writer_health health;
	for (int i = 0; i < N; i++)
		submit(w, &orders[i]);
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_done) == N);
	WAIT_FOR((writer_health(w, &health), health.folded_seq == N));
	end_writer(w);
	expect_rows(world, "SELECT count(*) FROM sandboxes", "2600");
	free_orders(orders, N);
}

static void can_be_freed_without_a_start(void **state)
{
	struct writer *w = new_writer(*state);
	writer_stop(w);
	writer_free(w);
	writer_free(NULL);
}

/* Tasks, secrets, configuration, horizon ------------------------------------- */

static int set_horizon(struct storage *s, void *ctx)
{
	int r = storage_set_horizon(s, *(int *)ctx == 0 ? 5 : 1000);
	return r < 0 ? r : *(int *)ctx;
}

static void keeps_what_a_task_did_only_if_it_says_so(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	static const int results[] = { -EPERM, 3, 0 };
	int status[3];
	struct writer_task tasks[3];
	atomic_store(&n_tasks, 0);
	for (int i = 0; i < 3; i++) {
		status[i] = results[i]; /* in: what to return; out: what was told */
		tasks[i] = (struct writer_task) { set_horizon, task_done, &status[i], NULL };
		assert_int_equal(writer_submit_task(w, &tasks[i]), 0);
	}
	assert_int_equal(writer_start(w), 0);
	WAIT_FOR(atomic_load(&n_tasks) == 3);
	end_writer(w);
	assert_memory_equal(status, results, sizeof(status));
	expect_rows(world, "SELECT horizon_s FROM position", "5");
}

static void counts_secrets_in_use(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	assert_int_equal(writer_start(w), 0);
	for (int i = 0; i < 3; i++)
		writer_count_secret(w, "e2b", 1, "aabbccdd", 1000 + i);
	writer_count_secret(w, "e2b", 2, "aabbccdd", 5000);
	writer_count_secret(w, "other", 1, "aabbccdd", 6000);
	writer_stop(w);
	writer_count_secret(w, "e2b", 1, "aabbccdd", 7000); /* too late, and no harm */
	writer_free(w);
	expect_rows(world,
		    "SELECT name, position, fingerprint, n, last_ms FROM secret_use JOIN source"
		    " USING (source_key) ORDER BY last_ms",
		    "e2b|1|aabbccdd|3|1002\ne2b|2|aabbccdd|1|5000\nother|1|aabbccdd|1|6000");
}

static bool has_alias(const struct world *world, const char *alias)
{
	CLEANUP_FREE char *rows = rows_of(
		world, "SELECT coalesce(alias, '') FROM template WHERE template_id = 'tpl-a'");
	return strcmp(rows, alias) == 0;
}

static void takes_a_new_configuration_while_it_runs(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer_with(world, PLAIN "[template tpl-a]\nalias = nice\n", 10);
	assert_int_equal(writer_start(w), 0);
	assert_true(has_alias(world, "nice"));
	struct config *next = load_config(PLAIN "[template tpl-a]\nalias = better\n");
	writer_set_config(w, next);
	config_unref(next);
	WAIT_FOR(has_alias(world, "better"));
	next = load_config(PLAIN);
	writer_set_config(w, next);
	config_unref(next);
	WAIT_FOR(has_alias(world, ""));
	end_writer(w);
}

static int64_t horizon_after_restart(struct world *world, const char *config, struct order *o)
{
	reopen(world);
	struct writer *w = new_writer_with(world, config, 10);
	assert_int_equal(writer_start(w), 0);
	int64_t horizon = writer_horizon(w);
	if (o) {
		submit(w, o);
		WAIT_FOR(atomic_load(&n_done) == 1);
		WAIT_FOR(writer_horizon(w) != horizon);
		horizon = writer_horizon(w);
	}
	end_writer(w);
	return horizon;
}

/* The horizon follows the newest event, not the clock, and never moves back: what was pruned must
 * not be stored, and counted, again. */
static void moves_the_horizon_only_forward(void **state)
{
	struct world *world = *state;
	struct order o;
	init_order(&o, 1);
	int64_t day_before = 1795165200 - 86400;
	assert_int_equal(horizon_after_restart(world, PLAIN "[store]\nretention = 1d\n", NULL), 0);
	assert_int_equal(horizon_after_restart(world, PLAIN "[store]\nretention = 1d\n", &o),
			 day_before);
	static const char *const longer[] = { PLAIN "[store]\nretention = 30d\n", PLAIN
					      "[store]\nretention = 0\nledger_retention = 0\n" };
	for (size_t i = 0; i < ARRAY_SIZE(longer); i++)
		assert_int_equal(horizon_after_restart(world, longer[i], NULL), day_before);
	finish_parcel(&o.parcel);
}

/* Health -------------------------------------------------------------------- */

static void tells_how_far_it_is(void **state)
{
	struct world *world = *state;
	struct writer *w = new_writer(world);
	struct order *orders = new_orders(5);
	struct writer_health health;
	for (int i = 0; i < 5; i++)
		submit(w, &orders[i]);
	writer_health(w, &health);
	assert_int_equal(health.queued, 5);
	assert_int_equal(health.last_commit_mono_ms, 0);
	assert_int_equal(writer_start(w), 0);
	do
		writer_health(w, &health);
	while (health.folded_seq < 5); /* the ledger follows by itself */
	assert_int_equal(health.queued, 0);
	assert_int_equal(health.stored_seq, 5);
	assert_int_equal(health.last_error, 0);
	assert_string_equal(health.last_error_text, "");
	assert_true(health.last_commit_mono_ms > 0);
	assert_true(health.stats.database_bytes > 0);
	end_writer(w);
	expect_rows(world, "SELECT count(*) FROM sandboxes", "5");
	free_orders(orders, 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(writes_what_waits_in_one_commit),
		TEST(answers_only_what_is_committed_and_synced),
		TEST(answers_every_job_once_whoever_lends_it),
		TEST(tells_why_a_body_was_quarantined),
		TEST(lets_go_of_a_job_before_done),
		TEST(wakes_each_owner_once_a_batch),
		TEST(refuses_jobs_above_the_limit_of_its_queue),
		TEST(keeps_one_bad_job_from_its_neighbours),
		TEST(says_so_when_the_disk_fails),
		TEST(writes_and_folds_while_the_disk_syncs_and_answers_nothing),
		TEST(believes_nothing_that_was_written_before_a_sync_failed),
		TEST(waits_for_a_disk_that_is_far_behind),
		TEST(tells_of_a_sync_that_failed_whom_it_concerns),
		TEST(shows_that_the_disk_is_stuck),
		TEST(finishes_what_is_queued_before_it_stops),
		TEST(folds_what_a_crowd_left_behind),
		TEST(a_rebuild_helps_a_ledger_that_cannot_be_read),
		TEST(a_rebuild_waits_for_the_end_of_a_slice_in_parts),
		TEST(folds_all_before_it_stops_in_order),
		TEST(leaves_to_the_next_start_what_takes_longer_than_a_second),
		TEST(catches_up_in_whole_slices_after_the_fold_failed),
		TEST(can_be_freed_without_a_start),
		TEST(keeps_what_a_task_did_only_if_it_says_so),
		TEST(counts_secrets_in_use),
		TEST(takes_a_new_configuration_while_it_runs),
		TEST(moves_the_horizon_only_forward),
		TEST(tells_how_far_it_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
