/* Goal: the ledger is right whatever is mixed. Events come at random (mix_events.h), and between
 * them everything that a writer does, in any order that it allows: slices in parts, what is
 * gathered, ticks, rebuilds, retention, another configuration, restarts, events that are skipped
 * and requeued, and a disk or a memory that fails in the midst of it.
 *
 * Strict: a second store, the control, gets the same events and none of the rest; retention runs
 * when both have folded all there is; both ledgers must say the same. Loose: retention runs between
 * slices, too, with events pending. What it makes of them hangs on the moment, so the ledger is
 * held against what a rebuild makes of it.
 *
 * A few seeds each, which are known to reach everything; HOOKD_LONG=1: 200. --seed N tries that one
 * alone, --rounds N for so many rounds, --only TEST.
 */
#include "mix_turns.h"

#define HEAD                                                                                       \
	"[source e2b]\npath = /e2b\n[source free]\npath = /free\npriced = no\n"                    \
	"[notify ops]\nkind = webhook\nurl = http://127.0.0.1:1/\n"                                \
	"[alert rate]\non = failure_rate\nthreshold = 0.2\nwindow = 15m\nnotify = ops\n"
#define EVENTS_MAX 60 /* in a round */
#define SAID_MAX 4000 /* of the log, when one fails */
#define LONG_SEEDS 200
#define LONG_ROUNDS 40

static const struct {
	const char *text;
	int64_t max_run_ms;
} configs[N_CONFIGS] = {
	{ HEAD "[template tpl-a]\nvcpu = 2\nmemory_mb = 512\n"
	       "[template tpl-b]\nvcpu = 1\nmemory_mb = 1024\n",
	  MIX_HOUR_MS },
	{ HEAD "[template tpl-a]\nvcpu = 4\nmemory_mb = 512\n", 2 * MIX_HOUR_MS },
	{ HEAD "[template tpl-a]\nvcpu = 2\nmemory_mb = 2048\n"
	       "[template tpl-b]\nvcpu = 8\nmemory_mb = 1024\n"
	       "[pricing]\nvcpu_second_usd = 0.5\ngib_second_usd = 0.1\n",
	  MIX_HOUR_MS / 2 },
};

static struct mix *running; /* NULL: none; tell_mix() looks at it */
static int kept_stderr = -1;

/* What must hold ------------------------------------------------------------------------ */

static void settle(struct mix *m)
{
	mix_note(&m->notes, "settle");
	mix_fold_all(&m->tried);
	m->fold_fails = false;
	clock_ms = base_max_i64(clock_ms, m->events.newest_s * 1000);
	pass_time((int64_t)below(m, 100000));
	assert_int_equal(projector_tick(m->tried.world->p, clock_ms), 0);
	expect_sound(m->tried.world);
	CLEANUP_FREE char *tried = mix_read(&m->tried);
	if (m->manner.loose)
		return;
	mix_fold_all(&m->control);
	assert_int_equal(projector_tick(m->control.world->p, clock_ms), 0);
	CLEANUP_FREE char *control = mix_read(&m->control);
	mix_expect_same("tried", tried, "control", control);
	m->sum.compared++;
}

/* A rebuild at the terms of the fold changes nothing. */
static void expect_as_rebuilt(struct mix *m)
{
	mix_finish_rebuild(&m->tried);
	assert_int_equal(projector_tick(m->tried.world->p, clock_ms), 0);
	CLEANUP_FREE char *folded = mix_read(&m->tried);
	mix_note(&m->notes, "rebuilt and compared");
	mix_rebuild(&m->tried, clock_ms);
	expect_sound(m->tried.world);
	CLEANUP_FREE char *rebuilt = mix_read(&m->tried);
	mix_expect_same("folded", folded, "rebuilt", rebuilt);
	m->sum.compared++;
}

/* Rounds ---------------------------------------------------------------------------------- */

static void requeue_one(struct mix *m, struct mix_side *side, int64_t seq)
{
	for (size_t i = 0; i < m->n_spoilt; i++)
		if (m->spoilt[i].seq == seq)
			mix_change(side, "UPDATE event SET body_len = %lld WHERE seq = %lld",
				   (long long)m->spoilt[i].body_len, (long long)seq);
	mix_fold_skipped(side, m->config, seq);
}

/* All that was skipped and is there yet; not while a rebuild is wanted. */
static void requeue(struct mix *m)
{
	struct storage *s = m->tried.world->s;
	struct storage_position at;
	int r;
	assert_int_equal(storage_position(s, &at), 0);
	if (at.rebuild > 0)
		return;
	for (int64_t seq = 0; (r = storage_skipped_next(s, NULL, seq, &seq)) == 1;) {
		mix_note(&m->notes, "requeue %lld", (long long)seq);
		requeue_one(m, &m->tried, seq);
		if (!m->manner.loose)
			requeue_one(m, &m->control, seq);
		m->sum.requeued++;
	}
	assert_int_equal(r, 0);
	settle(m);
}

/* Another configuration: what is closed stays as it is until a rebuild goes by the new one. */
static void reconfigure(struct mix *m)
{
	size_t which = below(m, N_CONFIGS);
	m->config = m->configs[which];
	mix_note(&m->notes, "configuration %zu", which);
	rebuild_begin_anew(m->tried.rebuild);
	for (int i = 0; i < (m->manner.loose ? 1 : 2); i++) {
		struct mix_side *side = i ? &m->control : &m->tried;
		mix_configure(side, m->config);
		mix_rebuild(side, clock_ms);
	}
	settle(m);
}

static void tick_retention(struct mix_side *side)
{
	struct retention_progress progress;
	assert_int_equal(retention_tick(side->retention), 0);
	retention_progress(side->retention, &progress);
	assert_false(progress.waits);
}

/* With everything folded, behind a rebuild; the control's must get as far. Or not this time. */
static void prune(struct mix *m)
{
	uint64_t left = m->manner.stops ? 1 + below(m, 20) : MIX_STEPS_MAX;
	tick_retention(&m->tried);
	if (!m->manner.loose)
		tick_retention(&m->control);
	if (one_in(m, 2))
		return;
	mix_finish_rebuild(&m->tried);
	for (; left > 0 && retention_has_work(m->tried.retention); left--)
		step_retention(m);
	while (!m->manner.loose && retention_has_work(m->control.retention))
		assert_int_equal(retention_step(m->control.retention), 0);
	settle(m);
}

static void run_round(struct mix *m)
{
	mix_note(&m->notes, "round %d", m->round);
	m->events.base_s += MIX_HOUR_S * (int64_t)below(m, 5);
	m->events.first_sandbox += (int)below(m, 6);
	for (uint64_t n = 1 + below(m, EVENTS_MAX); n > 0; n--) {
		receive(m);
		if (one_in(m, 8))
			work(m, 1 + below(m, 4));
	}
	work(m, below(m, 40));
	settle(m);
	if (one_in(m, 3))
		requeue(m);
	if (one_in(m, 10))
		reconfigure(m);
	prune(m);
	if (one_in(m, m->manner.loose ? 4 : 10))
		expect_as_rebuilt(m);
}

/* Mixes ---------------------------------------------------------------------------------- */

static void mix_init(struct mix *m, uint64_t seed, const struct manner *manner)
{
	*m = (struct mix) { .seed = seed, .random = seed, .manner = *manner };
	m->events = (struct mix_events) { .random = ~seed,
					  .crowds_instants = manner->crowds_instants,
					  .base_s = RANDOM_FIRST_S };
	clock_ms = RANDOM_FIRST_S * 1000;
	for (size_t i = 0; i < N_CONFIGS; i++) {
		m->configs[i] = load_config(configs[i].text);
		m->configs[i]->store.max_run_ms = configs[i].max_run_ms;
		m->configs[i]->store.retention_ms = manner->retention_ms;
		m->configs[i]->store.ledger_retention_ms = manner->ledger_retention_ms;
	}
	m->config = m->configs[0];
	mix_side_init(&m->tried, m->config);
	if (!manner->loose)
		mix_side_init(&m->control, m->config);
}

static void mix_finish(struct mix *m)
{
	CLEANUP_FREE char *sealed =
		rows_of(m->tried.world, "SELECT count(*) FROM sandbox WHERE sealed");
	m->sum.sealed = strtoll(sealed, NULL, 10);
	mix_side_finish(&m->tried);
	mix_side_finish(&m->control);
	m->sum.pruned_events = m->tried.pruned_events;
	m->sum.pruned_sandboxes = m->tried.pruned_sandboxes;
	for (size_t i = 0; i < N_CONFIGS; i++)
		config_unref(m->configs[i]);
	mix_events_finish(&m->events);
}

static void sum_add(struct sum *to, const struct sum *sum)
{
	to->stored += sum->stored;
	to->disk_faults += sum->disk_faults;
	to->memory_faults += sum->memory_faults;
	to->cut_off += sum->cut_off;
	to->parts += sum->parts;
	to->swapped_amid += sum->swapped_amid;
	to->restarted_amid += sum->restarted_amid;
	to->rebuilt += sum->rebuilt;
	to->rebuild_faults += sum->rebuild_faults;
	to->pruned_events += sum->pruned_events;
	to->pruned_sandboxes += sum->pruned_sandboxes;
	to->sealed += sum->sealed;
	to->requeued += sum->requeued;
	to->compared += sum->compared;
}

static struct {
	uint64_t seed; /* 0: the known ones */
	uint64_t n_seeds;
	int rounds;
} plan = { .rounds = 14 };

static void run_mix(uint64_t seed, const struct manner *manner, struct sum *sum)
{
	static struct mix m; /* too large for the stack */
	mix_init(&m, seed, manner);
	running = &m;
	kept_stderr = begin_listening();
	for (m.round = 0; m.round < plan.rounds; m.round++)
		run_round(&m);
	free(end_listening(kept_stderr));
	kept_stderr = -1;
	running = NULL;
	mix_finish(&m);
	sum_add(sum, &m.sum);
}

/* Of a mix that failed. */
static int tell_mix(void **state)
{
	disk_mend();
	(void)scarce_end();
	if (kept_stderr >= 0) {
		CLEANUP_FREE char *said = end_listening(kept_stderr);
		size_t len = strlen(said); /* why it failed stands at the end of it */
		(void)fprintf(stderr, "%s\n", said + (len > SAID_MAX ? len - SAID_MAX : 0));
	}
	kept_stderr = -1;
	if (running) {
		print_error("seed %llu (%s), round %d, after\n", (unsigned long long)running->seed,
			    running->manner.loose ? "loose" : "strict", running->round);
		mix_print_notes(&running->notes);
	}
	running = NULL;
	return 0;
}

/* A mix in which some of it does not happen shows nothing. */
static void expect_all_happened(const struct sum *sum)
{
	assert_true(sum->stored > 0 && sum->compared > 0);
	assert_true(sum->disk_faults > 0 && sum->memory_faults > 0 && sum->rebuild_faults > 0);
	assert_true(sum->parts > 0 && sum->cut_off > 0 && sum->restarted_amid > 0);
	assert_true(sum->rebuilt > 0 && sum->swapped_amid > 0);
	assert_true(sum->pruned_events > 0 && sum->pruned_sandboxes > 0 && sum->sealed > 0);
	assert_true(sum->requeued > 0);
}

static void print_sum(const struct sum *sum)
{
	print_message("%lld events, faults of the disk in %lld calls and of memory in %lld;",
		      (long long)sum->stored, (long long)sum->disk_faults,
		      (long long)sum->memory_faults);
	print_message(" slices left half written by %lld steps, %lld of them cut off;",
		      (long long)sum->parts, (long long)sum->cut_off);
	print_message(" %lld rebuilds done, %lld amid a slice, %lld of their steps failed;",
		      (long long)sum->rebuilt, (long long)sum->swapped_amid,
		      (long long)sum->rebuild_faults);
	print_message(
		" %lld restarts amid one; %lld events and %lld sandboxes pruned, %lld sealed;",
		(long long)sum->restarted_amid, (long long)sum->pruned_events,
		(long long)sum->pruned_sandboxes, (long long)sum->sealed);
	print_message(" %lld events requeued; %lld ledgers compared, 0 differ\n",
		      (long long)sum->requeued, (long long)sum->compared);
}

enum judging { STRICT, LOOSE, BY_TURNS };

/* The n known seeds, or what was asked for. */
static void go_through(struct manner manner, enum judging judging, uint64_t first, uint64_t n)
{
	struct sum sum = { 0 };
	if (plan.n_seeds)
		first = 1, n = plan.n_seeds;
	if (plan.seed)
		first = plan.seed, n = 1;
	for (uint64_t seed = first; seed < first + n; seed++) {
		manner.loose = judging == LOOSE || (judging == BY_TURNS && seed % 2 == 0);
		manner.stops = manner.loose && seed / 2 % 2;
		run_mix(seed, &manner, &sum);
	}
	print_sum(&sum);
	if (!plan.seed) /* one alone may lack something */
		expect_all_happened(&sum);
}

static void keeps_the_ledger_right_whatever_is_mixed(void **state)
{
	go_through((struct manner) { .retention_ms = 6 * MIX_HOUR_MS,
				     .ledger_retention_ms = 12 * MIX_HOUR_MS },
		   STRICT, 1, 1);
}

static void keeps_it_right_where_retention_runs_with_events_pending(void **state)
{
	go_through((struct manner) { .retention_ms = 6 * MIX_HOUR_MS,
				     .ledger_retention_ms = 12 * MIX_HOUR_MS },
		   LOOSE, 1, 1);
}

/* Sandboxes are old as soon as their events are. */
static void keeps_it_right_where_both_retentions_are_equal(void **state)
{
	go_through((struct manner) { .retention_ms = 12 * MIX_HOUR_MS,
				     .ledger_retention_ms = 12 * MIX_HOUR_MS },
		   BY_TURNS, 2, 1);
}

static void keeps_it_right_where_events_share_their_instants(void **state)
{
	go_through((struct manner) { .crowds_instants = true,
				     .retention_ms = 6 * MIX_HOUR_MS,
				     .ledger_retention_ms = 12 * MIX_HOUR_MS },
		   BY_TURNS, 3, 2);
}

static void read_plan(int argc, char **argv)
{
	const char *is_long = getenv("HOOKD_LONG");
	if (is_long && strcmp(is_long, "1") == 0)
		plan.n_seeds = LONG_SEEDS, plan.rounds = LONG_ROUNDS;
	for (int i = 1; i + 1 < argc; i += 2)
		if (strcmp(argv[i], "--seed") == 0)
			plan.seed = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--rounds") == 0)
			plan.rounds = (int)strtol(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--only") == 0)
			cmocka_set_test_filter(argv[i + 1]);
}

#define TEST(name) cmocka_unit_test_teardown(name, tell_mix)

int main(int argc, char **argv)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* which takes time */
	read_plan(argc, argv);
	const struct CMUnitTest tests[] = {
		TEST(keeps_the_ledger_right_whatever_is_mixed),
		TEST(keeps_it_right_where_retention_runs_with_events_pending),
		TEST(keeps_it_right_where_both_retentions_are_equal),
		TEST(keeps_it_right_where_events_share_their_instants),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
