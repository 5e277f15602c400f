/* Goal: the ledger is a function of the set of events, the prices and the clock. The order of
 * arrival, repeats, settling or storing in between change nothing; what is closed stays closed; a
 * complete history is billed exactly, whatever executors say beside it. */
#include "ledger_world.h"

#define TEXT_MAX 16384

static struct world w;
static char expected[TEXT_MAX], got[TEXT_MAX];

static int tear_down(void **state)
{
	ledger_sandbox_finish(&w.sandbox);
	return 0;
}

/* A fixed sequence: a failure comes again. */
static uint64_t random_state;

static int64_t random_below(int64_t n)
{
	random_state = random_state * 6364136223846793005U + 1442695040888963407U;
	return (int64_t)((random_state >> 33) % (uint64_t)n);
}

static void shuffle(size_t *order, size_t n)
{
	for (size_t i = 0; i < n; i++)
		order[i] = i;
	for (size_t i = n; i > 1; i--) {
		size_t j = (size_t)random_below((int64_t)i), kept = order[i - 1];
		order[i - 1] = order[j];
		order[j] = kept;
	}
}

/* Order and repetition ------------------------------------------------------------------------ */

enum way { IN_ONE_GO, SETTLING, STORING, REPEATING, N_WAYS };

static void fold(const size_t *order, enum way way)
{
	int64_t now_ms = w.now_ms;
	world_fresh(&w);
	for (size_t i = 0; i < w.n; i++) {
		world_apply(&w, order[i]);
		if (way == REPEATING)
			world_apply(&w, order[i / 2]);
		if (way == IN_ONE_GO || way == REPEATING)
			continue;
		w.now_ms = T0 + 400 * (int64_t)i;
		world_settle(&w);
		if (way == STORING)
			world_reload(&w);
	}
	w.now_ms = now_ms;
	world_settle(&w);
}

static void expect_same(const size_t *order)
{
	for (enum way way = IN_ONE_GO; way < N_WAYS; way++) {
		fold(order, way);
		world_describe(&w, got, sizeof(got));
		if (strcmp(got, expected) != 0)
			fail_msg("way %d gives\n%sinstead of\n%s", (int)way, got, expected);
	}
}

static void permute(size_t *order, size_t n)
{
	if (n == 1) {
		expect_same(order);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		permute(order, n - 1);
		size_t j = n % 2 ? 0 : i, kept = order[n - 1];
		order[n - 1] = order[j];
		order[j] = kept;
	}
}

static void expect_same_in_every_order(const struct line *lines, size_t n, int64_t now)
{
	size_t order[LINES_MAX];
	ledger_sandbox_finish(&w.sandbox);
	world_init(&w, lines, n);
	w.now_ms = T0 + now;
	(void)world_fold(&w);
	world_describe(&w, expected, sizeof(expected));
	for (size_t i = 0; i < n; i++)
		order[i] = i;
	permute(order, n);
}

#define EVERY_ORDER(now, ...)                                                                      \
	do {                                                                                       \
		static const struct line lines[] = { __VA_ARGS__ };                                \
		expect_same_in_every_order(lines, ARRAY_SIZE(lines), now);                         \
	} while (0)

static void named_runs_come_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(LATE, { EVENT_CREATED, 1000, .run = "a", .startup_ms = 5, .metadata = "{}" },
		    { EVENT_UPDATED, 1500, .run = "a", .timeout_ms = 9000 },
		    { EVENT_PAUSED, 3000, .run = "a", .report = REPORT(1000, 1900) },
		    { EVENT_RESUMED, 4000, .run = "b", .metadata = "{\"x\":1}" },
		    { EVENT_KILLED, 9000, .run = "b", .reason = 2 },
		    { EVENT_KILLED, 9000, .run = "b", .reason = 3 });
}

static void missing_ends_come_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(7000, { EVENT_CREATED, 1000, .run = "a" }, { EVENT_FORKED, 2000, .run = "b" },
		    { EVENT_UPDATED, 2100, .run = "b", .timeout_ms = 6000 },
		    { EVENT_UPDATED, 2100, .run = "b", .timeout_ms = 8000 },
		    { EVENT_RESUMED, 2000, .run = "c" }, { EVENT_KILLED, 6500, .run = "d" });
}

static void loose_runs_come_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(LATE, { EVENT_CREATED, 1000, .template = 3 },
		    { EVENT_CREATED, 1000, 5, .template = 2 },
		    { EVENT_UPDATED, 1000, .timeout_ms = 2500 },
		    { EVENT_PAUSED, 3000, .report = REPORT(1000, 1000) },
		    { EVENT_PAUSED, 3000, .id = "a", .report = REPORT(2000, 1000) },
		    { EVENT_RESUMED, 3000, .id = "b" });
}

static void loose_ties_come_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(5000, { EVENT_CREATED, 0, .id = "c" }, { EVENT_PAUSED, 0, .id = "b" },
		    { EVENT_RESUMED, 1000, .id = "a", .team = 4 },
		    { EVENT_CREATED, 1000, .id = "z", .team = 3 },
		    { EVENT_PAUSED, 1000, .id = "m", .metadata = "{\"m\":1}" },
		    { EVENT_KILLED, 1000, .id = "f", .metadata = "{\"f\":1}" });
}

static void loose_and_named_come_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(LATE, { EVENT_CREATED, 900 }, { EVENT_CREATED, 1100 },
		    { EVENT_PAUSED, 3000, .run = "a", .source = 5 },
		    { EVENT_RESUMED, 3500, .run = "b" },
		    { EVENT_UPDATED, 3600, .timeout_ms = 8000 }, { EVENT_PAUSED, 7000, .team = 6 });
}

static void a_sandbox_named_late_comes_to_the_same_in_every_order(void **state)
{
	EVERY_ORDER(LATE, { EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 }, { EVENT_RESUMED, 3000 },
		    { EVENT_CODE_EXECUTED, 3500, .run = "sbx@2026-11-22T10:00:01.000Z" },
		    { EVENT_PAUSED, 2000, .run = "r", .id = "zz" },
		    { EVENT_KILLED, 2500, .reason = 8 });
}

/* Random histories ---------------------------------------------------------------------------- */

static struct line random_line(bool loose, bool reports)
{
	static const char *const runs[] = { NULL, "r1", "r2", "r3", NULL };
	static const enum event_kind kinds[] = { EVENT_CREATED,	     EVENT_RESUMED, EVENT_PAUSED,
						 EVENT_PAUSED,	     EVENT_UPDATED, EVENT_KILLED,
						 EVENT_CODE_EXECUTED };
	struct line l = {
		.kind = kinds[random_below(ARRAY_SIZE(kinds))],
		.ms = 400 * random_below(12),
		.ns = random_below(2),
		.run = loose ? NULL : runs[random_below(ARRAY_SIZE(runs))],
		.source = 1 + random_below(2),
		.template = random_below(4) - 1,
		.reason = random_below(3),
	};
	if (l.kind == EVENT_UPDATED)
		l.timeout_ms = 1 + random_below(8000);
	if (l.kind == EVENT_KILLED && random_below(3))
		l.kind = EVENT_PAUSED;
	if (event_kind_ends_run(l.kind) && reports && random_below(2))
		l.report = (struct event_report) { true, T0 + l.ms / 1000 * 1000 - 1000,
						   random_below(3000), 1, EVENT_ABSENT };
	if (random_below(4) == 0)
		l.metadata = random_below(2) ? "{\"a\":1}" : "{\"b\":2}";
	return l;
}

static size_t random_history(struct line *lines, bool loose, bool reports)
{
	static const char *const ids[] = { "q", "c", "x", "a", "m", "z",
					   "b", "k", "d", "y", "n", "p" };
	size_t n = 1 + (size_t)random_below(12), rotation = (size_t)random_below(12);
	for (size_t i = 0; i < n; i++) {
		lines[i] = random_line(loose, reports);
		lines[i].id = ids[(i + rotation) % 12];
	}
	ledger_sandbox_finish(&w.sandbox);
	world_init(&w, lines, n);
	w.now_ms = T0 + random_below(9000);
	w.terms.max_run_ms = random_below(3) * 1500;
	return n;
}

static void random_histories_come_to_the_same_in_any_order(void **state)
{
	struct line lines[LINES_MAX];
	size_t order[LINES_MAX];
	random_state = 1;
	for (int i = 0; i < 4000; i++) {
		size_t n = random_history(lines, i % 2, i % 3);
		(void)world_fold(&w);
		world_describe(&w, expected, sizeof(expected));
		for (int k = 0; k < 3; k++) {
			shuffle(order, n);
			expect_same(order);
		}
	}
}

static void expect_sound(const struct ledger_sandbox *s, bool disjoint)
{
	int64_t runs = 0, cost = 0, runtime = 0, unknown = 0, n_open = 0;
	const struct ledger_account *before = NULL;
	for (size_t i = 0; i < s->n_runs && s->runs[i].account.exists && !s->runs[i].gone; i++) {
		const struct ledger_account *a = &s->runs[i].account;
		runs++;
		assert_true(i == 0 || strcmp(s->runs[i - 1].id, s->runs[i].id) != 0);
		if (a->started_ms == LEDGER_ABSENT) { /* only its end is known */
			unknown++;
			continue;
		}
		assert_true(!before || before->started_ms <= a->started_ms);
		if (disjoint && before)
			assert_true(before->ended_ms <= a->started_ms);
		assert_true((a->end_kind == LEDGER_OPEN) == (a->ended_ms == LEDGER_ABSENT));
		before = a;
		if (a->ended_ms == LEDGER_ABSENT) {
			n_open++;
			continue;
		}
		assert_true(a->ended_ms >= a->started_ms && a->due_ms == LEDGER_ABSENT);
		assert_int_equal(a->runtime_ms, a->ended_ms - a->started_ms);
		assert_int_equal(ledger_cost_until(a, a->ended_ms), a->cost_nanousd);
		runtime += a->runtime_ms;
		cost += base_max_i64(a->cost_nanousd, 0);
		unknown += a->cost_nanousd == LEDGER_ABSENT;
	}
	assert_in_range(n_open, 0, 1);
	assert_true(n_open == 1 || s->totals.state != LEDGER_RUNNING);
	assert_int_equal(s->totals.runs, runs);
	assert_int_equal(s->totals.runtime_ms, runtime);
	assert_int_equal(s->totals.cost_nanousd, cost);
	assert_int_equal(s->totals.unknown_cost, unknown);
}

static void in_any_history_runs_are_sound_and_sums_are_theirs(void **state)
{
	struct line lines[LINES_MAX];
	random_state = 2;
	for (int i = 0; i < 20000; i++) {
		bool loose = i % 2, reports = i % 3;
		(void)random_history(lines, loose, reports);
		expect_sound(world_fold(&w), loose && !reports);
	}
}

/* The clock may close what is open, at its due time exactly; it never moves what is closed. */
static void only_the_due_time_of_an_open_run_closes_it(void **state)
{
	struct line lines[LINES_MAX];
	random_state = 3;
	for (int i = 0; i < 10000; i++) {
		(void)random_history(lines, i % 2, i % 3);
		(void)world_fold(&w);
		int64_t due_ms = INT64_MAX;
		for (size_t k = 0; k < w.sandbox.n_runs; k++) {
			const struct ledger_account *a = &w.sandbox.runs[k].account;
			if (a->exists && a->due_ms != LEDGER_ABSENT)
				due_ms = a->due_ms;
		}
		world_describe(&w, expected, sizeof(expected));
		assert_true(due_ms > w.now_ms);
		w.now_ms = due_ms - 1;
		world_settle(&w);
		world_describe(&w, got, sizeof(got));
		assert_string_equal(got, expected);
		w.now_ms = due_ms;
		world_settle(&w);
		world_describe(&w, got, sizeof(got));
		assert_int_equal(strcmp(got, expected) != 0, due_ms != INT64_MAX);
	}
}

/* Histories whose truth is known --------------------------------------------------------------- */

struct truth {
	char id[16];
	int64_t started_ms, ended_ms; /* from T0 */
};

static struct line lines[LINES_MAX];
static size_t n_lines;

static void say(struct line line)
{
	assert_true(n_lines < LINES_MAX);
	lines[n_lines++] = line;
}

static void fold_shuffled(void)
{
	size_t order[LINES_MAX];
	ledger_sandbox_finish(&w.sandbox);
	world_init(&w, lines, n_lines);
	for (size_t i = 0; i < n_lines; i++)
		(void)snprintf(w.ids[i], sizeof(w.ids[i]), "%06jd-%zu",
			       (intmax_t)random_below(1000000), i);
	shuffle(order, n_lines);
	fold(order, (enum way)random_below(N_WAYS));
}

static void expect_truth(const struct truth *truth, size_t n)
{
	assert_int_equal(w.sandbox.totals.runs, n);
	for (size_t i = 0; i < n; i++) {
		const struct ledger_account *a = &w.sandbox.runs[i].account;
		if (truth[i].id[0])
			assert_string_equal(w.sandbox.runs[i].id, truth[i].id);
		assert_int_equal(relative(a->started_ms), truth[i].started_ms);
		assert_int_equal(relative(a->ended_ms), truth[i].ended_ms);
	}
}

/* One run with its events: whole, or with one of the two told by an executor only. */
static struct truth tell_run(int number, int64_t start, int64_t end)
{
	struct truth t = { .started_ms = start, .ended_ms = end };
	int64_t ns = random_below(1000000), inside = 1 + random_below(end - start - 1);
	enum { WHOLE, REPORTED, NO_START, NO_END };
	int64_t lost = random_below(4);
	static char names[8][16];
	(void)snprintf(names[number], sizeof(names[number]), "r%d", number);
	memcpy(t.id, names[number], sizeof(t.id));
	if (lost != NO_START)
		say((struct line) { EVENT_RESUMED, start, ns, .run = names[number] });
	if (lost == REPORTED) {
		t.started_ms = start / 1000 * 1000;
		t.ended_ms = t.started_ms + end - start;
		say((struct line) { EVENT_PAUSED, end, .run = names[number],
				    .report = REPORT(t.started_ms, end - start) });
	} else if (lost != NO_END) {
		say((struct line) { EVENT_PAUSED, end, .run = names[number] });
	}
	if (lost == NO_START)
		t.started_ms = start + inside;
	if (lost == NO_START || random_below(2))
		say((struct line) { EVENT_CREATED, start + inside });
	if (lost == NO_END)
		t.ended_ms = start + inside;
	if (lost == NO_END || random_below(2))
		say((struct line) { EVENT_PAUSED, lost == NO_END ? start + inside : end + 100 });
	if (random_below(2))
		say((struct line) { EVENT_UPDATED, start + inside, .timeout_ms = end + 200 });
	return t;
}

static void a_complete_history_is_billed_exactly_whatever_executors_say(void **state)
{
	random_state = 4;
	for (int i = 0; i < 5000; i++) {
		struct truth truth[6];
		int n = 1 + (int)random_below(6);
		int64_t at = random_below(5000);
		n_lines = 0;
		for (int k = 0; k < n; k++) {
			int64_t end = at + 2 + random_below(7200000);
			truth[k] = tell_run(k, at, end);
			at = end + 1200 + random_below(100000);
		}
		fold_shuffled();
		expect_truth(truth, (size_t)n);
	}
}

static void clocks_of_whole_seconds_bill_loose_runs_back_to_back_exactly(void **state)
{
	random_state = 5;
	for (int i = 0; i < 5000; i++) {
		struct truth truth[8] = { 0 };
		size_t n = 1 + (size_t)random_below(8);
		int64_t at = 0;
		n_lines = 0;
		for (size_t k = 0; k < n; k++) {
			truth[k].started_ms = at;
			say((struct line) { EVENT_RESUMED, at });
			at += 1000 + 1000 * random_below(3);
			truth[k].ended_ms = at;
			say((struct line) { EVENT_PAUSED, at });
			at += 1000 * random_below(2);
		}
		fold_shuffled();
		expect_truth(truth, n);
	}
}

static void hour_shares_add_up_to_the_run(void **state)
{
	random_state = 6;
	for (int i = 0; i < 3000; i++) {
		struct ledger_account a = {
			.exists = true,
			.started_ms = T0 + random_below(10000000),
			.vcpu_count = random_below(64),
			.memory_mb = random_below(100000),
			.rates = { random_below(100000000000), random_below(10000000000) },
		};
		a.ended_ms = a.started_ms + random_below(i % 2 ? 100000000 : 4000000);
		assert_int_equal(pricing_cost(a.rates, a.ended_ms - a.started_ms, a.vcpu_count,
					      a.memory_mb, &a.cost_nanousd),
				 0);
		int64_t cost = 0, runtime = 0;
		int64_t from = a.started_ms / 3600000 * 3600000;
		for (; from <= a.ended_ms; from += 3600000) {
			int64_t share =
				ledger_cost_until(&a, from + 3600000) - ledger_cost_until(&a, from);
			assert_true(share >= 0);
			cost += share;
			runtime += ledger_runtime_until(&a, from + 3600000) -
				   ledger_runtime_until(&a, from);
		}
		assert_int_equal(cost, a.cost_nanousd);
		assert_int_equal(runtime, a.ended_ms - a.started_ms);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(named_runs_come_to_the_same_in_every_order, tear_down),
		cmocka_unit_test_teardown(missing_ends_come_to_the_same_in_every_order, tear_down),
		cmocka_unit_test_teardown(loose_runs_come_to_the_same_in_every_order, tear_down),
		cmocka_unit_test_teardown(loose_ties_come_to_the_same_in_every_order, tear_down),
		cmocka_unit_test_teardown(loose_and_named_come_to_the_same_in_every_order,
					  tear_down),
		cmocka_unit_test_teardown(a_sandbox_named_late_comes_to_the_same_in_every_order,
					  tear_down),
		cmocka_unit_test_teardown(random_histories_come_to_the_same_in_any_order,
					  tear_down),
		cmocka_unit_test_teardown(in_any_history_runs_are_sound_and_sums_are_theirs,
					  tear_down),
		cmocka_unit_test_teardown(only_the_due_time_of_an_open_run_closes_it, tear_down),
		cmocka_unit_test_teardown(
			a_complete_history_is_billed_exactly_whatever_executors_say, tear_down),
		cmocka_unit_test_teardown(
			clocks_of_whole_seconds_bill_loose_runs_back_to_back_exactly, tear_down),
		cmocka_unit_test_teardown(hour_shares_add_up_to_the_run, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
