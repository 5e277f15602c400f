/* Power loss: whatever the disk was doing, what was acknowledged is there, once, as it came.
 *
 * A trial is a life: deliveries through the writer, in bursts, with folds, rebuilds, retention and
 * indexing between them, over several starts. The power goes at some change of the disk; the store
 * is opened from what a disk may hold then (disk.h). Trials of the second kind also have a sync
 * that fails in the midst of life. The control acknowledges before anything is synced: it must
 * lose.
 *
 * `test_power_loss --rounds N --seed S` repeats; threads and clocks are real, so a seed gives the
 * same deliveries and the same luck, not the same moment. What a failing trial left on the disk is
 * kept, and its place printed. HOOKD_LONG=1: 1,200 rounds.
 */
#include "orders.h"

#include "log.h"
#include "storage_sqlite_identity.h"

#include <time.h>

#define CONFIG "[store]\nretention = 1d\n[source e2b]\npath = /e2b\n"
#define STARTS 3
#define BURSTS 12
#define BURST_MAX 12
#define ORDERS_MAX (STARTS * BURSTS * BURST_MAX)

static uint64_t base_seed;
static const struct trial *running; /* NULL: none */
#ifdef __SANITIZE_ADDRESS__
static int n_rounds = 10;
#else
static int n_rounds = 40;
#endif

/* Time passes as the trial says: folds are due when it wants them. */
static _Atomic int64_t skipped_ms;
int64_t __real_clock_mono_ms(void);
int64_t __wrap_clock_mono_ms(void);

int64_t __wrap_clock_mono_ms(void)
{
	return __real_clock_mono_ms() + atomic_load(&skipped_ms);
}

struct trial {
	uint64_t seed, random;
	bool durable, sync_fails;
	struct world *life, *after;
	struct orders orders;
	size_t n_unanswered;
	long n_changes; /* of the disk, in the whole life */
};

/* Life -------------------------------------------------------------------- */

static void run_burst(struct trial *t, struct writer *w)
{
	struct orders *o = &t->orders;
	size_t first = o->n, n = 1 + (size_t)disk_below(&t->random, BURST_MAX);
	/* Of a burst that is shared whole the fold reads nothing again: it is applied in memory. */
	bool all_shared = disk_below(&t->random, 2);
	for (size_t i = 0; i < n; i++)
		(void)orders_add(o, all_shared || disk_below(&t->random, 2), t->durable);
	for (size_t i = first; i < o->n; i++)
		if (writer_submit(w, &o->items[i].job) < 0)
			abort();
	for (size_t i = first; i < o->n; i++)
		t->n_unanswered += !order_wait(&o->items[i]);
	atomic_fetch_add(&skipped_ms, (int64_t)disk_below(&t->random, 3) * 300);
	uint64_t aside = disk_below(&t->random, 16);
	if (aside == 0)
		writer_request_rebuild(w);
	else if (aside < 3)
		writer_request_prune(w);
}

/* From one start to the next; false: it could not start. */
static bool run_start(struct trial *t, const struct config *config)
{
	struct writer *w = NULL;
	char error[STORAGE_ERROR_MAX];
	const struct writer_options options = { 1000, config };
	if (storage_open(&t->life->options, &t->life->s, error) < 0)
		return false;
	int r = writer_new(t->life->s, &options, &w);
	if (r == 0)
		r = writer_start(w);
	for (int i = 0; r == 0 && i < BURSTS && !disk_is_cut(); i++)
		run_burst(t, w);
	if (w)
		writer_stop(w);
	writer_free(w);
	if (r == 0 && disk_below(&t->random, 2))
		(void)!storage_sqlite_identity_index(t->life->s);
	close_store(t->life);
	return r == 0;
}

static void live(struct trial *t)
{
	struct config *config = load_config(CONFIG);
	config->store.max_run_ms = 0;
	int kept = begin_listening();
	for (int i = 0; i < STARTS && !disk_is_cut(); i++)
		(void)!run_start(t, config);
	free(end_listening(kept));
	config_unref(config);
	assert_int_equal(t->n_unanswered, 0);
}

/* After it ---------------------------------------------------------------- */

static void look_after(struct trial *t)
{
	open_store(t->after);
	int lost = orders_lost(&t->orders, t->after);
	if (lost)
		fail_msg("%d acknowledged deliveries are lost", lost);
	begin_ledger(t->after, CONFIG);
	expect_ledger_as_rebuilt(t->after);
	orders_deliver_again(&t->orders, t->after);
	(void)fold_all(t->after);
	expect_sound(t->after);
}

/* Trials ------------------------------------------------------------------ */

static struct world *new_world(void)
{
	void *w;
	(void)begin_world(&w);
	struct storage_options *options = &((struct world *)w)->options;
	options->quarantine_rows_max = options->quarantine_bytes_max = 1 << 24;
	return w;
}

static void trial_init(struct trial *t, uint64_t seed)
{
	*t = (struct trial) { .seed = seed, .random = seed, .durable = true };
	t->life = new_world();
	t->after = new_world();
	orders_init(&t->orders, seed, ORDERS_MAX);
	running = t;
}

/* One that failed: what the disk held stays. */
static int tell_trial(void **state)
{
	if (running)
		print_error("to repeat: --rounds 1 --seed %llu; what was left is in %s\n",
			    (unsigned long long)running->seed, running->after->dir);
	running = NULL;
	disk_unwatch();
	disk_mend();
	return 0;
}

static void trial_finish(struct trial *t)
{
	running = NULL;
	orders_finish(&t->orders);
	void *worlds[] = { t->life, t->after };
	(void)end_world(&worlds[0]);
	(void)end_world(&worlds[1]);
}

static long life_changes = 2000; /* about as many as a life has, as seen so far */

static void run_trial(struct trial *t)
{
	uint64_t seed = disk_random(&t->random);
	enum disk_luck luck = (enum disk_luck)disk_below(&t->random, DISK_N_LUCKS);
	long before = atomic_load(&disk.changes);
	atomic_store(&skipped_ms, 0);
	disk_watch(t->life->dir, seed);
	if (t->sync_fails)
		disk_break_only(DISK_SYNCS, 1 + (long)disk_below(&t->random, 60), EIO, false);
	disk_cut_at(1 + (long)disk_below(&t->random, (uint64_t)life_changes), luck, seed,
		    t->after->dir);
	live(t);
	t->n_changes = atomic_load(&disk.changes) - before;
	if (!disk_is_cut())
		life_changes = (life_changes + t->n_changes) / 2;
	disk_cut(luck, seed, t->after->dir);
	disk_unwatch();
	disk_mend();
}

static void survive(bool sync_fails)
{
	int64_t acknowledged = 0;
	for (int i = 0; i < n_rounds; i++) {
		static struct trial t; /* tell_trial() looks at it */
		trial_init(&t, base_seed + (uint64_t)i);
		t.sync_fails = sync_fails;
		run_trial(&t);
		for (size_t k = 0; k < t.orders.n; k++)
			acknowledged += order_was_acknowledged(&t.orders.items[k]);
		look_after(&t);
		trial_finish(&t);
	}
	print_message("%d power losses, seeds %llu to %llu: %lld acknowledged deliveries, 0 lost\n",
		      n_rounds, (unsigned long long)base_seed,
		      (unsigned long long)(base_seed + (uint64_t)n_rounds - 1),
		      (long long)acknowledged);
	assert_true(acknowledged > n_rounds);
}

static void loses_nothing_acknowledged_when_the_power_goes(void **state)
{
	survive(false);
}

static void nor_after_a_sync_that_failed(void **state)
{
	survive(true);
}

/* The control: acknowledged while only the kernel has it. If this loses nothing, the tests above
 * show nothing. */
static void would_lose_what_is_acknowledged_before_it_is_synced(void **state)
{
	int lost = 0, trials = 0;
	for (; trials < 20 && !lost; trials++) {
		static struct trial t; /* tell_trial() looks at it */
		trial_init(&t, base_seed + (uint64_t)trials);
		t.durable = false;
		run_trial(&t);
		open_store(t.after);
		lost = orders_lost(&t.orders, t.after);
		trial_finish(&t);
	}
	print_message("control: %d lost after %d power losses\n", lost, trials);
	assert_true(lost > 0);
}

int main(int argc, char **argv)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* which takes time */
	const char *is_long = getenv("HOOKD_LONG");
	base_seed = (uint64_t)time(NULL) * 10000;
	if (is_long && strcmp(is_long, "1") == 0)
		n_rounds = 1200;
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--seed") == 0)
			base_seed = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--rounds") == 0)
			n_rounds = (int)strtol(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--only") == 0)
			cmocka_set_test_filter(argv[i + 1]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(loses_nothing_acknowledged_when_the_power_goes,
					  tell_trial),
		cmocka_unit_test_teardown(nor_after_a_sync_that_failed, tell_trial),
		cmocka_unit_test_teardown(would_lose_what_is_acknowledged_before_it_is_synced,
					  tell_trial),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
