/* Goal: every rule about runs, money and state, each as one small history and what it comes to.
 * That order and repetition change nothing is shown in test_ledger_order.c. */
#include "ledger_world.h"

#include "ledger_internal.h"
#include "scarce.h"

static struct world w;

/* Folds the lines in their order, long after the last, unless now_ms is set by SETTLE_AT. */
#define SETTLE_AT(now, ...)                                                                        \
	do {                                                                                       \
		static const struct line lines[] = { __VA_ARGS__ };                                \
		ledger_sandbox_finish(&w.sandbox);                                                 \
		world_init(&w, lines, ARRAY_SIZE(lines));                                          \
		w.now_ms = T0 + (now);                                                             \
		(void)world_fold(&w);                                                              \
	} while (0)
#define SETTLE(...) SETTLE_AT(LATE, __VA_ARGS__)

static int tear_down(void **state)
{
	ledger_sandbox_finish(&w.sandbox);
	return 0;
}

static void expect_run(const char *id, int64_t start, int64_t end, enum ledger_end_kind kind)
{
	const struct ledger_account *a = world_run(&w, id);
	if (!a)
		fail_msg("no run %s", id);
	assert_int_equal(relative(a->started_ms), start);
	assert_int_equal(relative(a->ended_ms), end);
	assert_string_equal(ledger_end_kind_name(a->end_kind), ledger_end_kind_name(kind));
	assert_int_equal(a->runtime_ms, end < 0 ? LEDGER_ABSENT : end - start);
}

static void expect_open(const char *id, int64_t start, int64_t due)
{
	expect_run(id, start, -1, LEDGER_OPEN);
	const struct ledger_account *a = world_run(&w, id);
	assert_int_equal(a->cost_nanousd, LEDGER_ABSENT);
	assert_int_equal(relative(a->due_ms), due);
}

static void expect_cost(const char *id, int64_t nanousd, enum ledger_cost_source source)
{
	const struct ledger_account *a = world_run(&w, id);
	if (!a)
		fail_msg("no run %s", id);
	assert_int_equal(a->cost_nanousd, nanousd);
	assert_string_equal(ledger_cost_source_name(a->cost_source),
			    ledger_cost_source_name(source));
}

static void expect_ended_only(const char *id, int64_t end)
{
	const struct ledger_account *a = world_run(&w, id);
	if (!a)
		fail_msg("no run %s", id);
	assert_int_equal(a->started_ms, LEDGER_ABSENT);
	assert_int_equal(relative(a->ended_ms), end);
	assert_int_equal(a->runtime_ms, LEDGER_ABSENT);
	assert_int_equal(a->cost_nanousd, LEDGER_ABSENT);
	assert_int_equal(a->cost_source, LEDGER_COST_UNKNOWN);
}

static void expect_runs(int64_t n)
{
	assert_int_equal(w.sandbox.totals.runs, n);
}

static void expect_state(enum ledger_state state)
{
	assert_string_equal(ledger_state_name(w.sandbox.totals.state), ledger_state_name(state));
}

/* Named runs ---------------------------------------------------------------------------------- */

static void a_report_counts_before_the_times_of_the_events(void **state)
{
	SETTLE({ EVENT_CREATED, 1300, .run = "r" },
	       { EVENT_KILLED, 12000, .run = "r", .report = REPORT(1000, 10001), .reason = 7 });
	expect_run("r", 1000, 11001, LEDGER_END_KILLED);
	expect_cost("r", 302530, LEDGER_COST_REPORTED); /* 10.001 s x 30,250 = 302,530.25 */
	assert_int_equal(world_run(&w, "r")->kill_reason_key, 7);
}

static void without_a_report_a_run_lasts_from_start_to_end_and_is_estimated(void **state)
{
	SETTLE({ EVENT_FORKED, 1000, 999999, .run = "r" }, { EVENT_PAUSED, 3000, .run = "r" });
	expect_run("r", 1000, 3000, LEDGER_END_PAUSED);
	expect_cost("r", 2 * NANOUSD_PER_S, LEDGER_COST_ESTIMATED);
}

static void an_end_before_the_start_makes_an_empty_run(void **state)
{
	SETTLE({ EVENT_CREATED, 5000, .run = "r" }, { EVENT_PAUSED, 4000, .run = "r" });
	expect_run("r", 5000, 5000, LEDGER_END_PAUSED);
	expect_cost("r", 0, LEDGER_COST_ESTIMATED);
	expect_state(LEDGER_PAUSED);
}

static void a_report_without_a_start_makes_a_run(void **state)
{
	SETTLE({ EVENT_PAUSED, 9000, .run = "r", .report = REPORT(2000, 3000) });
	expect_run("r", 2000, 5000, LEDGER_END_PAUSED);
	expect_state(LEDGER_PAUSED);
}

static void a_run_that_is_only_named_does_not_exist(void **state)
{
	SETTLE({ EVENT_CHECKPOINTED, 1000, .run = "r" }, { EVENT_CODE_EXECUTED, 2000, .run = "q" },
	       { EVENT_UPDATED, 3000, .run = "s", .timeout_ms = 9000 });
	expect_runs(0);
	expect_state(LEDGER_UNKNOWN);
	assert_int_equal(w.sandbox.n_runs, 3);
	assert_int_equal(w.sandbox.totals.created_ms, LEDGER_ABSENT);
}

static void a_run_of_which_only_the_end_is_known_shows_with_unknown_time_and_cost(void **state)
{
	SETTLE({ EVENT_KILLED, 1000, .run = "r", .reason = 7 });
	expect_runs(1);
	expect_ended_only("r", 1000);
	assert_int_equal(world_run(&w, "r")->end_kind, LEDGER_END_KILLED);
	assert_int_equal(world_run(&w, "r")->kill_reason_key, 7);
	assert_int_equal(w.sandbox.totals.unknown_cost, 1);
	assert_int_equal(w.sandbox.totals.runtime_ms, 0);
	assert_int_equal(w.sandbox.totals.created_ms, LEDGER_ABSENT);
	assert_null(ledger_run_at(&w.sandbox, T0 + 1000));
	expect_state(LEDGER_KILLED);
}

static void a_loose_end_alone_is_no_run_but_tells_the_state(void **state)
{
	SETTLE({ EVENT_PAUSED, 1000 });
	expect_runs(0);
	expect_state(LEDGER_PAUSED);
}

static void of_repeats_about_a_run_the_latest_time_then_id_counts(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "r", .id = "a" },
	       { EVENT_CREATED, 2000, .run = "r", .id = "b" },
	       { EVENT_KILLED, 9000, .run = "r", .id = "z", .reason = 2 },
	       { EVENT_KILLED, 9000, .run = "r", .id = "y", .reason = 3 },
	       { EVENT_KILLED, 8000, .run = "r", .id = "zz", .reason = 4 });
	expect_runs(1);
	expect_run("r", 2000, 9000, LEDGER_END_KILLED);
	assert_int_equal(world_run(&w, "r")->kill_reason_key, 2);
}

static void a_repeat_of_a_report_under_another_id_counts_once(void **state)
{
	SETTLE({ EVENT_KILLED, 9000, .run = "r", .report = REPORT(0, 9000) },
	       { EVENT_KILLED, 9001, .run = "r", .report = REPORT(0, 9000) });
	expect_runs(1);
	assert_int_equal(w.sandbox.totals.cost_nanousd, 9 * NANOUSD_PER_S);
}

static void a_stored_fact_whose_event_id_is_forgotten_counts_as_later(void **state)
{
	static const struct line lines[] = { { EVENT_CREATED, 1000, .run = "r" } };
	world_init(&w, lines, 1);
	(void)world_fold(&w);
	struct ledger_mark mark = { (T0 + 1000) * CLOCK_NS_PER_MS, 1 };
	assert_true(ledger_is_later(&w.sandbox, mark.time_ns, "f", mark));
	assert_false(ledger_is_later(&w.sandbox, mark.time_ns, "e0", mark));
	assert_false(ledger_is_later(&w.sandbox, mark.time_ns, "a", mark));
	mark.seq = 99;
	assert_false(ledger_is_later(&w.sandbox, mark.time_ns, "f", mark));
	assert_true(ledger_is_later(&w.sandbox, mark.time_ns + 1, "a", mark));
	mark.seq = 0;
	assert_true(ledger_is_later(&w.sandbox, 0, "", mark));
}

/* Missing ends -------------------------------------------------------------------------------- */

static void the_next_start_ends_a_run_without_an_end(void **state)
{
	SETTLE_AT(3000, { EVENT_CREATED, 1000, .run = "a" }, { EVENT_RESUMED, 5000, .run = "b" });
	expect_run("a", 1000, 5000, LEDGER_END_NEXT_START);
	expect_cost("a", 4 * NANOUSD_PER_S, LEDGER_COST_ESTIMATED);
	expect_open("b", 5000, 5000 + 86400000);
	expect_state(LEDGER_RUNNING);
}

static void of_two_starts_at_one_instant_the_greater_run_id_is_the_next(void **state)
{
	SETTLE_AT(3000, { EVENT_CREATED, 1000, .run = "b" }, { EVENT_RESUMED, 1000, .run = "a" });
	expect_run("a", 1000, 1000, LEDGER_END_NEXT_START);
	expect_open("b", 1000, 1000 + 86400000);
}

static void a_next_run_whose_report_is_cut_to_the_second_before_leaves_no_time_twice(void **state)
{
	SETTLE({ EVENT_CREATED, 1300, .run = "a" }, { EVENT_CREATED, 1900, .run = "b" },
	       { EVENT_KILLED, 9000, .run = "b", .report = REPORT(1000, 8000) });
	expect_run("a", 1300, 1300, LEDGER_END_NEXT_START);
	expect_run("b", 1000, 9000, LEDGER_END_KILLED);
}

static void a_report_about_long_ago_does_not_swallow_the_run_before_it(void **state)
{
	SETTLE({ EVENT_CREATED, 10000, .run = "a" }, { EVENT_RESUMED, 20000, .run = "b" },
	       { EVENT_KILLED, 30000, .run = "b", .report = REPORT(0, 5000) });
	expect_run("a", 10000, 20000, LEDGER_END_NEXT_START);
}

static void the_last_set_timeout_ends_a_run_once_it_has_passed(void **state)
{
	SETTLE_AT(7999, { EVENT_CREATED, 1000, .run = "r" },
		  { EVENT_UPDATED, 2000, .run = "r", .timeout_ms = 5000 },
		  { EVENT_UPDATED, 3000, .run = "r", .timeout_ms = 8000 });
	expect_open("r", 1000, 8000);
	expect_state(LEDGER_RUNNING);
	assert_int_equal(relative(w.sandbox.totals.expires_ms), 8000);
	w.now_ms = T0 + 8000;
	world_settle(&w);
	expect_run("r", 1000, 8000, LEDGER_END_TIMEOUT);
	expect_cost("r", 7 * NANOUSD_PER_S, LEDGER_COST_ESTIMATED);
	expect_state(LEDGER_UNKNOWN);
	assert_int_equal(w.sandbox.totals.expires_ms, LEDGER_ABSENT);
	assert_int_equal(world_run(&w, "r")->due_ms, LEDGER_ABSENT);
}

static void a_set_timeout_not_later_than_the_start_ends_nothing(void **state)
{
	SETTLE_AT(7000, { EVENT_CREATED, 1000, .run = "r" },
		  { EVENT_UPDATED, 2000, .run = "r", .timeout_ms = 1000 });
	expect_open("r", 1000, 1000 + 86400000);
	assert_int_equal(w.sandbox.totals.expires_ms, LEDGER_ABSENT);
}

static void max_run_ends_a_run_once_it_has_passed_and_zero_means_never(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "r" });
	expect_run("r", 1000, 86401000, LEDGER_END_MAX_RUN);
	expect_state(LEDGER_UNKNOWN);
	w.terms.max_run_ms = 0;
	world_settle(&w);
	expect_open("r", 1000, -1);
	expect_state(LEDGER_RUNNING);
}

static void of_two_missing_ends_at_one_instant_next_start_then_timeout_counts(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "r" },
	       { EVENT_UPDATED, 10, .run = "r", .timeout_ms = 86400000 });
	expect_run("r", 0, 86400000, LEDGER_END_TIMEOUT);
	SETTLE({ EVENT_CREATED, 0, .run = "r" },
	       { EVENT_UPDATED, 10, .run = "r", .timeout_ms = 86400000 },
	       { EVENT_CREATED, 86400000, .run = "s" });
	expect_run("r", 0, 86400000, LEDGER_END_NEXT_START);
}

static void a_later_event_proves_an_earlier_timeout_whatever_the_clock_says(void **state)
{
	SETTLE_AT(1500, { EVENT_CREATED, 1000, .run = "a" },
		  { EVENT_UPDATED, 1100, .run = "a", .timeout_ms = 2000 },
		  { EVENT_RESUMED, 3000, .run = "b" });
	expect_run("a", 1000, 2000, LEDGER_END_TIMEOUT);
}

static void a_killed_of_the_sandbox_ends_the_run_that_nothing_else_ended_before(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "a" },
	       { EVENT_KILLED, 5000, .run = "b", .reason = 4 });
	expect_run("a", 1000, 5000, LEDGER_END_KILLED);
	expect_cost("a", 4 * NANOUSD_PER_S, LEDGER_COST_ESTIMATED);
	assert_int_equal(world_run(&w, "a")->kill_reason_key, 4);
	SETTLE({ EVENT_CREATED, 1000, .run = "a" }, { EVENT_RESUMED, 3000, .run = "c" },
	       { EVENT_KILLED, 5000, .run = "b" });
	expect_run("a", 1000, 3000, LEDGER_END_NEXT_START);
	expect_run("c", 3000, 5000, LEDGER_END_KILLED);
}

static void killed_is_final_whatever_starts_later(void **state)
{
	SETTLE_AT(9000, { EVENT_CREATED, 1000, .run = "a" },
		  { EVENT_KILLED, 5000, .run = "a", .reason = 3 },
		  { EVENT_RESUMED, 6000, .run = "b" });
	expect_state(LEDGER_KILLED);
	assert_int_equal(relative(w.sandbox.totals.ended_ms), 5000);
	assert_int_equal(w.sandbox.totals.kill_reason_key, 3);
	assert_int_equal(w.sandbox.totals.expires_ms, LEDGER_ABSENT);
	expect_open("b", 6000, 6000 + 86400000);
}

static void a_killed_at_the_very_start_of_a_run_leaves_it_no_time(void **state)
{
	SETTLE({ EVENT_CREATED, 5000, .run = "a" }, { EVENT_KILLED, 5000, .run = "b" });
	expect_run("a", 5000, 5000, LEDGER_END_KILLED);
}

static void a_start_that_the_next_one_ended_does_not_decide_the_state(void **state)
{
	SETTLE({ EVENT_CREATED, 5000, .run = "a" }, { EVENT_RESUMED, 6000, .run = "b" },
	       { EVENT_PAUSED, 4000, .run = "b" });
	expect_state(LEDGER_PAUSED);
}

static void a_sandbox_is_created_when_its_earliest_run_starts(void **state)
{
	SETTLE({ EVENT_CREATED, 1300, .run = "a" }, { EVENT_CREATED, 1900, .run = "b" },
	       { EVENT_KILLED, 9000, .run = "b", .report = REPORT(1000, 8000) });
	assert_int_equal(relative(w.sandbox.totals.created_ms), 1000);
	SETTLE({ EVENT_CREATED, 1300, .run = "a" }, { EVENT_CREATED, 1900, .run = "b" });
	assert_int_equal(relative(w.sandbox.totals.created_ms), 1300);
}

/* Loose events where no event names a run ----------------------------------------------------- */

static void loose_starts_and_ends_form_runs_named_by_their_start(void **state)
{
	SETTLE({ EVENT_CREATED, 1234, 567890 }, { EVENT_PAUSED, 3234 }, { EVENT_RESUMED, 7000 },
	       { EVENT_KILLED, 8000, .reason = 2 });
	expect_runs(2);
	expect_run("sbx@2026-11-22T10:00:01.234Z", 1234, 3234, LEDGER_END_PAUSED);
	expect_run("sbx@2026-11-22T10:00:07.000Z", 7000, 8000, LEDGER_END_KILLED);
	assert_int_equal(world_run(&w, "sbx@2026-11-22T10:00:07.000Z")->kill_reason_key, 2);
	expect_state(LEDGER_KILLED);
}

static void a_loose_start_while_a_run_is_open_ends_it(void **state)
{
	SETTLE_AT(6000, { EVENT_CREATED, 1000 }, { EVENT_RESUMED, 4000 });
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 4000, LEDGER_END_NEXT_START);
	expect_open("sbx@2026-11-22T10:00:04.000Z", 4000, 4000 + 86400000);
}

static void a_loose_report_names_the_run_by_the_start_that_it_reports(void **state)
{
	SETTLE({ EVENT_CREATED, 1300 }, { EVENT_KILLED, 9000, .report = REPORT(1000, 7000) });
	expect_runs(1);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 8000, LEDGER_END_KILLED);
	expect_cost("sbx@2026-11-22T10:00:01.000Z", 7 * NANOUSD_PER_S, LEDGER_COST_REPORTED);
}

static void a_loose_report_with_no_run_open_is_a_run_of_its_own(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 },
	       { EVENT_PAUSED, 9000, .report = REPORT(5000, 3000) });
	expect_runs(2);
	expect_run("sbx@2026-11-22T10:00:05.000Z", 5000, 8000, LEDGER_END_PAUSED);
}

static void a_loose_report_that_begins_where_the_last_run_ended_is_another_run(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 },
	       { EVENT_PAUSED, 9000, .report = REPORT(2000, 3000) });
	expect_runs(2);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 2000, LEDGER_END_PAUSED);
	expect_run("sbx@2026-11-22T10:00:02.000Z", 2000, 5000, LEDGER_END_PAUSED);
}

static void a_loose_report_about_the_run_that_just_ended_counts_once(void **state)
{
	SETTLE({ EVENT_CREATED, 1300 }, { EVENT_PAUSED, 8200 },
	       { EVENT_PAUSED, 9000, .report = REPORT(1000, 7000) },
	       { EVENT_KILLED, 9500, .report = REPORT(1000, 7000) });
	expect_runs(1);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 8000, LEDGER_END_KILLED);
}

static void a_second_loose_end_does_not_lengthen_a_run(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 }, { EVENT_KILLED, 60000 });
	expect_runs(1);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 2000, LEDGER_END_PAUSED);
	expect_state(LEDGER_KILLED);
}

static void loose_starts_in_one_millisecond_are_one_run(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, 100, .template = 2 },
	       { EVENT_CREATED, 1000, 900, .template = 3 }, { EVENT_KILLED, 2000, .template = -1 });
	expect_runs(1);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 2000, LEDGER_END_KILLED);
	assert_int_equal(w.sandbox.totals.dims.template_key, 3);
}

static void at_one_instant_an_open_run_ends_before_the_next_starts(void **state)
{
	SETTLE_AT(5000, { EVENT_CREATED, 0 }, { EVENT_RESUMED, 2000, .id = "a" },
		  { EVENT_PAUSED, 2000, .id = "b" });
	expect_run("sbx@2026-11-22T10:00:00.000Z", 0, 2000, LEDGER_END_PAUSED);
	expect_open("sbx@2026-11-22T10:00:02.000Z", 2000, 2000 + 86400000);
	expect_state(LEDGER_RUNNING);
}

static void at_one_instant_a_start_with_no_run_open_is_ended_by_the_end(void **state)
{
	SETTLE({ EVENT_PAUSED, 2000, .id = "a" }, { EVENT_CREATED, 2000, .id = "b" });
	expect_run("sbx@2026-11-22T10:00:02.000Z", 2000, 2000, LEDGER_END_PAUSED);
	expect_state(LEDGER_PAUSED);
}

static void the_latest_loose_timeout_between_a_start_and_the_next_counts(void **state)
{
	SETTLE({ EVENT_UPDATED, 999, .timeout_ms = 1500 }, { EVENT_CREATED, 1000 },
	       { EVENT_UPDATED, 1000, .timeout_ms = 9000 },
	       { EVENT_UPDATED, 1100, .timeout_ms = 4000 },
	       { EVENT_UPDATED, 5000, .timeout_ms = 7000 }, { EVENT_RESUMED, 5000 });
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 4000, LEDGER_END_TIMEOUT);
	expect_run("sbx@2026-11-22T10:00:05.000Z", 5000, 7000, LEDGER_END_TIMEOUT);
}

static void a_loose_timeout_before_the_first_start_ends_nothing(void **state)
{
	SETTLE_AT(9000, { EVENT_UPDATED, 999, .timeout_ms = 1500 }, { EVENT_CREATED, 1000 });
	expect_open("sbx@2026-11-22T10:00:01.000Z", 1000, 1000 + 86400000);
}

static void of_loose_events_at_one_instant_the_greater_id_is_later_and_a_forgotten_one(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_UPDATED, 2000, .id = "z", .timeout_ms = 4000 },
	       { EVENT_UPDATED, 2000, .id = "y", .timeout_ms = 3000 });
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 4000, LEDGER_END_TIMEOUT);
	w.n = 2; /* the last event's id is not known any more */
	world_settle(&w);
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 3000, LEDGER_END_TIMEOUT);
}

static void of_facts_whose_ids_are_forgotten_the_one_stored_later_is_later(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 });
	w.n = 0;
	const struct ledger_mark a = { T0, 1 }, b = { T0, 2 };
	assert_int_equal(ledger_mark_compare(&w.sandbox, a, b), -1);
	assert_int_equal(ledger_mark_compare(&w.sandbox, b, a), 1);
	assert_int_equal(ledger_mark_compare(&w.sandbox, a, a), 0);
	ledger_sandbox_finish(NULL);
}

static void of_loose_ends_at_one_instant_the_lesser_id_comes_first(void **state)
{
	SETTLE({ EVENT_PAUSED, 2000, .id = "b" }, { EVENT_KILLED, 2000, .id = "a" },
	       { EVENT_CREATED, 1000 });
	expect_run("sbx@2026-11-22T10:00:01.000Z", 1000, 2000, LEDGER_END_KILLED);
}

/* Loose events where some event names a run --------------------------------------------------- */

static void an_executors_created_opens_no_second_run(void **state)
{
	SETTLE_AT(5000, { EVENT_CREATED, 1000, .run = "r" },
		  { EVENT_CREATED, 1200, .startup_ms = 180 });
	expect_runs(1);
	expect_open("r", 1000, 1000 + 86400000);
	expect_state(LEDGER_RUNNING);
	assert_int_equal(w.sandbox.startup_ms, 180);
}

static void a_run_named_by_any_kind_of_event_takes_the_place_of_loose_runs(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 2000 }, { EVENT_OTHER, 3000, .run = "r" });
	expect_runs(0);
}

static void a_run_without_a_start_takes_the_latest_loose_one_before_its_end(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_CREATED, 1500 }, { EVENT_CREATED, 9500 },
	       { EVENT_KILLED, 9000, .run = "r" });
	expect_runs(1);
	expect_run("r", 1500, 9000, LEDGER_END_KILLED);
	assert_int_equal(w.sandbox.runs[0].start.mark.seq, 0); /* lent, not its own */
}

static void a_loose_start_at_the_instant_of_the_end_serves_if_there_is_no_earlier(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_RESUMED, 9000 },
	       { EVENT_PAUSED, 9000, .run = "r" });
	expect_run("r", 1000, 9000, LEDGER_END_PAUSED);
	SETTLE({ EVENT_RESUMED, 9000 }, { EVENT_PAUSED, 9000, .run = "r" });
	expect_run("r", 9000, 9000, LEDGER_END_PAUSED);
	SETTLE({ EVENT_RESUMED, 9000 }, { EVENT_PAUSED, 9000, .run = "r" },
	       { EVENT_RESUMED, 9000, .run = "s" });
	expect_ended_only("r", 9000);
}

static void a_loose_start_before_the_previous_runs_end_is_not_taken(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "a" }, { EVENT_CREATED, 1200 },
	       { EVENT_PAUSED, 3000, .run = "a" }, { EVENT_KILLED, 9000, .run = "b" });
	expect_runs(2);
	expect_run("a", 1000, 3000, LEDGER_END_PAUSED);
	expect_ended_only("b", 9000);
}

static void a_loose_start_before_the_start_of_another_run_is_not_taken(void **state)
{
	SETTLE({ EVENT_CREATED, 900 }, { EVENT_CREATED, 1000, .run = "a" },
	       { EVENT_KILLED, 9000, .run = "b" });
	expect_runs(2);
	expect_run("a", 1000, 9000, LEDGER_END_KILLED);
	expect_ended_only("b", 9000);
}

static void a_loose_start_inside_a_known_run_is_not_taken(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "a" }, { EVENT_CREATED, 2000 },
	       { EVENT_PAUSED, 3000, .run = "b" }, { EVENT_PAUSED, 9000, .run = "a" });
	expect_runs(2);
	expect_run("a", 1000, 9000, LEDGER_END_PAUSED);
	expect_ended_only("b", 3000);
}

static void a_loose_start_while_another_run_is_open_parts_the_two(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "a" }, { EVENT_RESUMED, 4000 },
	       { EVENT_PAUSED, 9000, .run = "b" });
	expect_run("a", 1000, 4000, LEDGER_END_NEXT_START);
	expect_run("b", 4000, 9000, LEDGER_END_PAUSED);
}

static void a_loose_start_serves_one_run_only(void **state)
{
	SETTLE({ EVENT_CREATED, 1000 }, { EVENT_PAUSED, 4000, .run = "a" },
	       { EVENT_PAUSED, 9000, .run = "b" });
	expect_runs(2);
	expect_run("a", 1000, 4000, LEDGER_END_PAUSED);
	expect_ended_only("b", 9000);
}

static void a_run_without_an_end_takes_the_first_loose_one_before_the_next_start(void **state)
{
	SETTLE({ EVENT_PAUSED, 900 }, { EVENT_CREATED, 1000, .run = "a" }, { EVENT_PAUSED, 3000 },
	       { EVENT_PAUSED, 4000 }, { EVENT_RESUMED, 5000, .run = "b" },
	       { EVENT_RESUMED, 7000, .run = "c" }, { EVENT_PAUSED, 8000 });
	expect_run("a", 1000, 3000, LEDGER_END_PAUSED);
	expect_run("b", 5000, 7000, LEDGER_END_NEXT_START);
	expect_run("c", 7000, 8000, LEDGER_END_PAUSED);
}

static void own_facts_win_over_loose_ones(void **state)
{
	SETTLE({ EVENT_CREATED, 500 }, { EVENT_CREATED, 1000, .run = "r" }, { EVENT_PAUSED, 3000 },
	       { EVENT_PAUSED, 4000, .run = "r" });
	expect_runs(1);
	expect_run("r", 1000, 4000, LEDGER_END_PAUSED);
}

static void a_loose_end_at_the_instant_of_the_start_is_taken(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "r" }, { EVENT_PAUSED, 1000 });
	expect_run("r", 1000, 1000, LEDGER_END_PAUSED);
}

static void at_the_instant_of_the_next_start_a_loose_end_is_the_earlier_runs(void **state)
{
	SETTLE_AT(6000, { EVENT_CREATED, 1000, .run = "a" }, { EVENT_PAUSED, 5000 },
		  { EVENT_RESUMED, 5000, .run = "b" });
	expect_run("a", 1000, 5000, LEDGER_END_PAUSED);
	expect_open("b", 5000, 5000 + 86400000);
}

static void a_loose_report_lent_to_a_run_counts_as_its_own(void **state)
{
	SETTLE({ EVENT_CREATED, 1300, .run = "r" },
	       { EVENT_KILLED, 9000, .report = REPORT(1000, 6000) });
	expect_run("r", 1000, 7000, LEDGER_END_KILLED);
	expect_cost("r", 6 * NANOUSD_PER_S, LEDGER_COST_REPORTED);
	assert_int_equal(w.sandbox.runs[0].end.mark.seq, 0);
}

static void loose_and_own_timeouts_compete_by_time_then_id(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "r" },
	       { EVENT_UPDATED, 2000, .id = "a", .timeout_ms = 5000 },
	       { EVENT_UPDATED, 2000, .id = "b", .run = "r", .timeout_ms = 6000 });
	expect_run("r", 1000, 6000, LEDGER_END_TIMEOUT);
	SETTLE({ EVENT_CREATED, 1000, .run = "r" },
	       { EVENT_UPDATED, 2000, .id = "c", .timeout_ms = 5000 },
	       { EVENT_UPDATED, 2000, .id = "b", .run = "r", .timeout_ms = 6000 });
	expect_run("r", 1000, 5000, LEDGER_END_TIMEOUT);
}

static void a_loose_start_after_the_last_run_leaves_the_state_unknown(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .run = "r" }, { EVENT_CREATED, 1100 },
	       { EVENT_PAUSED, 3000, .run = "r" });
	expect_state(LEDGER_PAUSED);
	SETTLE({ EVENT_CREATED, 1000, .run = "r" }, { EVENT_PAUSED, 3000, .run = "r" },
	       { EVENT_RESUMED, 4000 });
	expect_state(LEDGER_UNKNOWN);
}

static void a_sender_may_name_a_run_just_as_a_loose_one_was(void **state)
{
	static const struct line lines[] = {
		{ EVENT_CREATED, 0 },
		{ EVENT_PAUSED, 3000 },
		{ EVENT_PAUSED, 2000, .run = "sbx@2026-11-22T10:00:00.000Z", .template = 3 },
	};
	world_init(&w, lines, 2);
	(void)world_fold(&w);
	world_reload(&w);
	w.n = 3;
	(void)snprintf(w.ids[2], sizeof(w.ids[2]), "e2");
	world_apply(&w, 2);
	world_settle(&w);
	expect_runs(1);
	expect_run("sbx@2026-11-22T10:00:00.000Z", 0, 2000, LEDGER_END_PAUSED);
	assert_int_equal(w.sandbox.n_runs, 1);
	assert_true(w.sandbox.runs[0].named && w.sandbox.runs[0].is_stored);
	assert_true(w.sandbox.runs[0].facts_changed && w.sandbox.runs_moved);
}

/* Size, money, dimensions --------------------------------------------------------------------- */

static void sizes_that_a_report_leaves_out_are_the_templates(void **state)
{
	static const struct event_report no_memory = { true, T0, 1000, 1, EVENT_ABSENT };
	struct line lines[] = {
		{ EVENT_KILLED, 2000, .run = "r", .template = 3, .report = no_memory },
		{ EVENT_PAUSED, 1000, .run = "q", .template = 2, .report = no_memory },
	};
	lines[1].report.started_unix_ms = T0 - 5000;
	world_init(&w, lines, 2);
	(void)world_fold(&w);
	expect_cost("r", 14000 + 4500, LEDGER_COST_REPORTED);
	expect_cost("q", LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	assert_int_equal(world_run(&w, "q")->vcpu_count, 1);
	assert_int_equal(world_run(&w, "q")->memory_mb, LEDGER_ABSENT);
	assert_int_equal(w.sandbox.totals.unknown_cost, 1);
	assert_int_equal(w.sandbox.totals.cost_nanousd, 18500);
	assert_int_equal(w.sandbox.totals.runtime_ms, 2000);
}

static void without_a_size_an_unreported_run_has_time_but_no_cost(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "r", .template = 2 },
	       { EVENT_KILLED, 4000, .run = "r", .template = 2 });
	expect_run("r", 0, 4000, LEDGER_END_KILLED);
	expect_cost("r", LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	assert_int_equal(w.sandbox.totals.cost_nanousd, 0);
	assert_int_equal(w.sandbox.totals.unknown_cost, 1);
}

static void a_source_that_is_not_priced_costs_nothing_known(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "r", .source = 1 },
	       { EVENT_PAUSED, 4000, .run = "r", .source = 9, .report = REPORT(0, 4000) },
	       { EVENT_RESUMED, 5000, .run = "s", .source = 9 });
	expect_cost("r", LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	assert_int_equal(world_run(&w, "r")->rates.vcpu_second_femto, LEDGER_ABSENT);
	assert_int_equal(ledger_cost_until(world_run(&w, "s"), T0 + 6000), LEDGER_ABSENT);
	assert_int_equal(ledger_runtime_until(world_run(&w, "s"), T0 + 6000), 1000);
}

static void the_price_is_the_one_in_force_at_the_start_of_the_account(void **state)
{
	SETTLE({ EVENT_CREATED, 1500, .run = "r" },
	       { EVENT_PAUSED, 9000, .run = "r", .report = REPORT(999, 1000) },
	       { EVENT_RESUMED, 9100, .run = "s" }, { EVENT_PAUSED, 10100, .run = "s" });
	struct pricing_rates twice = { 28000000000, 9000000000 };
	assert_int_equal(pricing_add(&w.pricing, T0 / 1000 + 1, twice), 0);
	world_settle(&w);
	expect_cost("r", NANOUSD_PER_S, LEDGER_COST_REPORTED);
	expect_cost("s", 2 * NANOUSD_PER_S, LEDGER_COST_ESTIMATED);
}

static void a_cost_that_does_not_fit_is_unknown(void **state)
{
	static const struct event_report huge = { true, T0, INT64_MAX, INT64_MAX / 2, 512 };
	struct line lines[] = { { EVENT_KILLED, 0, .run = "r", .report = huge },
				{ EVENT_KILLED, 0, .run = "s", .report = huge } };
	world_init(&w, lines, 2);
	(void)world_fold(&w);
	expect_cost("r", LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	assert_int_equal(w.sandbox.totals.unknown_cost, 2);
	assert_int_equal(w.sandbox.totals.runtime_ms, INT64_MAX); /* not wrapped around */
}

static void dimensions_are_the_ends_then_the_starts_then_the_sandboxs(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "r", .source = 5, .template = 3, .team = -1 },
	       { EVENT_PAUSED, 1000, .run = "r", .source = 6, .template = -1, .team = -1 },
	       { EVENT_CODE_EXECUTED, 500, .run = "r", .source = 7, .template = 1, .team = 8 });
	const struct ledger_dims *dims = &world_run(&w, "r")->dims;
	assert_int_equal(dims->source_key, 6);
	assert_int_equal(dims->template_key, 3);
	assert_int_equal(dims->team_key, 8);
	assert_memory_equal(&w.sandbox.totals.dims, dims, sizeof(*dims));
}

static void the_size_is_that_of_the_template_at_the_end(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "r", .template = 1 },
	       { EVENT_PAUSED, 1000, .run = "r", .template = 3 });
	assert_int_equal(world_run(&w, "r")->dims.template_key, 3);
	assert_int_equal(world_run(&w, "r")->vcpu_count, 4);
}

static void without_a_run_the_dimensions_are_those_of_the_latest_events(void **state)
{
	SETTLE({ EVENT_OTHER, 2000, .source = 5, .template = -1, .team = 3 },
	       { EVENT_OTHER, 1000, .source = 6, .template = 2, .team = 4 });
	const struct ledger_dims *dims = &w.sandbox.totals.dims;
	assert_int_equal(dims->source_key, 5);
	assert_int_equal(dims->template_key, 2);
	assert_int_equal(dims->team_key, 3);
}

static void of_metadata_and_startup_the_latest_event_that_has_one_counts(void **state)
{
	SETTLE({ EVENT_CREATED, 1000, .startup_ms = 100, .metadata = "{\"a\":1}" },
	       { EVENT_CREATED, 900, .startup_ms = 200, .metadata = "{\"b\":1}" },
	       { EVENT_PAUSED, 2000 });
	assert_string_equal(w.sandbox.metadata, "{\"a\":1}");
	assert_int_equal(w.sandbox.startup_ms, 100);
	assert_int_equal(relative(w.sandbox.first_event_ms), 900);
	assert_int_equal(w.sandbox.last.seq, 3);
}

static void a_test_event_leaves_no_trace(void **state)
{
	SETTLE({ EVENT_TEST, 1000, .run = "r", .metadata = "{}" });
	expect_runs(0);
	assert_int_equal(w.sandbox.n_runs, 0);
	assert_int_equal(w.sandbox.last.seq, 0);
	assert_false(w.sandbox.names_run);
}

static void an_open_run_shows_what_it_has_accrued(void **state)
{
	SETTLE_AT(9000, { EVENT_CREATED, 1000, .run = "r" });
	const struct ledger_account *a = world_run(&w, "r");
	assert_int_equal(ledger_cost_until(a, T0 + 5000), 4 * NANOUSD_PER_S);
	assert_int_equal(ledger_runtime_until(a, T0 + 5000), 4000);
	assert_int_equal(ledger_cost_until(a, T0), 0);
	assert_int_equal(ledger_runtime_until(a, INT64_MIN), 0);
	struct ledger_account none = { .exists = false };
	assert_int_equal(ledger_cost_until(&none, T0), LEDGER_ABSENT);
	assert_int_equal(ledger_runtime_until(&none, T0), LEDGER_ABSENT);
}

static void shares_of_a_closed_run_end_with_it_and_never_exceed_it(void **state)
{
	SETTLE({ EVENT_KILLED, 12000, .run = "r", .report = REPORT(1000, 10001) });
	const struct ledger_account *a = world_run(&w, "r");
	assert_int_equal(ledger_cost_until(a, a->ended_ms), a->cost_nanousd);
	assert_int_equal(ledger_cost_until(a, INT64_MAX), a->cost_nanousd);
	assert_int_equal(ledger_runtime_until(a, INT64_MAX), a->runtime_ms);
}

/* Runs in memory ------------------------------------------------------------------------------ */

static void the_run_at_an_instant_is_the_one_that_started_last(void **state)
{
	SETTLE_AT(9000, { EVENT_CREATED, 1000, .run = "b" }, { EVENT_PAUSED, 3000, .run = "b" },
		  { EVENT_RESUMED, 5000, .run = "a" }, { EVENT_CHECKPOINTED, 2000, .run = "z" });
	assert_null(ledger_run_at(&w.sandbox, T0 + 999));
	assert_string_equal(ledger_run_at(&w.sandbox, T0 + 1000)->id, "b");
	assert_string_equal(ledger_run_at(&w.sandbox, T0 + 3000)->id, "b");
	assert_null(ledger_run_at(&w.sandbox, T0 + 3001));
	assert_string_equal(ledger_run_at(&w.sandbox, T0 + LATE)->id, "a");
	assert_string_equal(w.sandbox.runs[0].id, "b");
	assert_string_equal(w.sandbox.runs[2].id, "z");
}

static void a_stored_run_that_is_not_derived_any_more_is_gone(void **state)
{
	static const struct line lines[] = {
		{ EVENT_CREATED, 1300 },
		{ EVENT_KILLED, 9000, .report = REPORT(1000, 7000) },
	};
	world_init(&w, lines, 2);
	world_apply(&w, 0);
	world_settle(&w);
	assert_true(w.sandbox.runs_moved);
	world_reload(&w);
	world_settle(&w);
	assert_false(w.sandbox.runs_moved);
	assert_false(w.sandbox.runs[0].facts_changed);
	world_apply(&w, 1);
	world_settle(&w);
	assert_true(w.sandbox.runs_moved && w.sandbox.runs[0].facts_changed);
	assert_int_equal(w.sandbox.n_runs, 2);
	assert_string_equal(w.sandbox.runs[1].id, "sbx@2026-11-22T10:00:01.300Z");
	assert_true(w.sandbox.runs[1].gone);
	assert_ptr_equal(ledger_run_at(&w.sandbox, T0 + 1400), &w.sandbox.runs[0]);
	assert_int_equal(w.sandbox.n_loose, 2);
	assert_int_equal(w.sandbox.n_loose_stored, 1);
}

static void a_stored_run_that_gets_an_end_has_changed_facts(void **state)
{
	static const struct line lines[] = { { EVENT_CREATED, 1300 }, { EVENT_PAUSED, 2000 } };
	world_init(&w, lines, 2);
	world_apply(&w, 0);
	world_settle(&w);
	world_reload(&w);
	world_apply(&w, 1);
	world_settle(&w);
	assert_int_equal(w.sandbox.n_runs, 1);
	assert_true(w.sandbox.runs[0].facts_changed && w.sandbox.runs_moved);
}

static void runs_have_moved_when_the_only_one_is_gone(void **state)
{
	static const struct line lines[] = { { EVENT_CREATED, 0 }, { EVENT_OTHER, 9, .run = "r" } };
	world_init(&w, lines, 2);
	world_apply(&w, 0);
	world_settle(&w);
	world_reload(&w);
	world_apply(&w, 1);
	world_settle(&w);
	assert_true(w.sandbox.runs_moved);
}

static void a_run_that_was_never_stored_goes_without_a_trace(void **state)
{
	static const struct line lines[] = {
		{ EVENT_CREATED, 1300 },
		{ EVENT_CREATED, 1000, .run = "r" },
	};
	world_init(&w, lines, 2);
	world_apply(&w, 0);
	world_settle(&w);
	world_apply(&w, 1);
	world_settle(&w);
	assert_int_equal(w.sandbox.n_runs, 1);
	assert_string_equal(w.sandbox.runs[0].id, "r");
}

static void every_name_is_that_of_the_views(void **state)
{
	static const char *const states[] = { [LEDGER_UNKNOWN] = "unknown",
					      [LEDGER_RUNNING] = "running",
					      [LEDGER_PAUSED] = "paused",
					      [LEDGER_KILLED] = "killed" };
	static const char *const ends[] = {
		[LEDGER_OPEN] = "open",		  [LEDGER_END_PAUSED] = "paused",
		[LEDGER_END_KILLED] = "killed",	  [LEDGER_END_NEXT_START] = "next_start",
		[LEDGER_END_TIMEOUT] = "timeout", [LEDGER_END_MAX_RUN] = "max_run"
	};
	static const char *const sources[] = { [LEDGER_COST_UNKNOWN] = "unknown",
					       [LEDGER_COST_REPORTED] = "reported",
					       [LEDGER_COST_ESTIMATED] = "estimated",
					       [LEDGER_COST_COMPUTED] = "computed" };
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		assert_string_equal(ledger_state_name((enum ledger_state)i), states[i]);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		assert_string_equal(ledger_end_kind_name((enum ledger_end_kind)i), ends[i]);
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		assert_string_equal(ledger_cost_source_name((enum ledger_cost_source)i),
				    sources[i]);
}

/* Applies and settles, one allocation failing each time; what failed is done again, as the fold
 * does.
 */
static void expect_same_when_memory_is_short(void)
{
	char expected[4096], got[4096];
	world_describe(&w, expected, sizeof(expected));
	long n = 1;
	for (bool hit = true; hit; n++) {
		world_fresh(&w);
		scarce_begin(n);
		int r = 0;
		for (size_t i = 0; i < w.n && r == 0; i++)
			r = world_try(&w, i);
		if (r == 0)
			r = ledger_settle(&w.sandbox, &w.terms, w.now_ms);
		hit = scarce_end();
		assert_int_equal(r, hit ? -ENOMEM : 0);
		for (size_t i = 0; i < w.n; i++)
			world_apply(&w, i);
		world_settle(&w);
		world_describe(&w, got, sizeof(got));
		assert_string_equal(got, expected);
	}
	assert_true(n > 4);
}

static void out_of_memory_nothing_is_counted_twice_or_lost(void **state)
{
	SETTLE({ EVENT_CREATED, 0, .run = "a", .metadata = "{}" }, { EVENT_CREATED, 10 },
	       { EVENT_KILLED, 2000, .run = "a", .report = REPORT(0, 2000) },
	       { EVENT_KILLED, 3000 });
	expect_same_when_memory_is_short();
	SETTLE({ EVENT_CREATED, 0 }, { EVENT_PAUSED, 1000 }, { EVENT_RESUMED, 2000 },
	       { EVENT_PAUSED, 3000 }, { EVENT_RESUMED, 4000 }, { EVENT_PAUSED, 5000 });
	expect_same_when_memory_is_short();
}

/* Executions ---------------------------------------------------------------------------------- */

static void expect_execution(const struct event *event, int64_t source, int64_t template,
			     int64_t nanousd, enum ledger_cost_source cost_source)
{
	struct ledger_dims dims = { source, template, 0 };
	int64_t cost;
	enum ledger_cost_source got;
	ledger_execution_cost(event, &dims, &w.terms, &cost, &got);
	assert_int_equal(cost, nanousd);
	assert_string_equal(ledger_cost_source_name(got), ledger_cost_source_name(cost_source));
}

static struct event execution_of(int64_t duration_ms)
{
	world_init(&w, NULL, 0);
	return (struct event) {
		.kind = EVENT_CODE_EXECUTED,
		.time_unix_ns = (T0 + 2000) * CLOCK_NS_PER_MS,
		.execution = { .duration_ms = duration_ms,
			       .started_unix_ms = EVENT_ABSENT,
			       .vcpu_count = EVENT_ABSENT,
			       .memory_mb = EVENT_ABSENT,
			       .cost_nanousd = EVENT_ABSENT },
	};
}

static void an_execution_costs_what_its_sender_says(void **state)
{
	struct event event = execution_of(1000);
	event.execution.cost_nanousd = 0;
	expect_execution(&event, 1, 2, 0, LEDGER_COST_REPORTED);
	expect_execution(&event, 9, 1, LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
}

static void else_its_size_or_its_templates_times_its_duration(void **state)
{
	struct event event = execution_of(1000);
	expect_execution(&event, 1, 1, NANOUSD_PER_S, LEDGER_COST_COMPUTED);
	expect_execution(&event, 9, 1, LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	expect_execution(&event, 1, 2, LEDGER_ABSENT, LEDGER_COST_UNKNOWN);
	event.execution.vcpu_count = 1;
	expect_execution(&event, 1, 1, 14000 + 2250, LEDGER_COST_COMPUTED);
	event.execution.memory_mb = 1024;
	expect_execution(&event, 1, 2, 14000 + 4500, LEDGER_COST_COMPUTED);
}

static void at_the_price_when_it_started(void **state)
{
	struct event event = execution_of(1000);
	struct pricing_rates twice = { 28000000000, 9000000000 };
	assert_int_equal(pricing_add(&w.pricing, T0 / 1000 + 2, twice), 0);
	expect_execution(&event, 1, 1, NANOUSD_PER_S, LEDGER_COST_COMPUTED); /* 2 s less 1 s */
	event.execution.started_unix_ms = T0 + 2000;
	expect_execution(&event, 1, 1, 2 * NANOUSD_PER_S, LEDGER_COST_COMPUTED);
	event.execution.started_unix_ms = T0 + 1999;
	expect_execution(&event, 1, 1, NANOUSD_PER_S, LEDGER_COST_COMPUTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_report_counts_before_the_times_of_the_events,
					  tear_down),
		cmocka_unit_test_teardown(
			without_a_report_a_run_lasts_from_start_to_end_and_is_estimated, tear_down),
		cmocka_unit_test_teardown(an_end_before_the_start_makes_an_empty_run, tear_down),
		cmocka_unit_test_teardown(a_report_without_a_start_makes_a_run, tear_down),
		cmocka_unit_test_teardown(a_run_that_is_only_named_does_not_exist, tear_down),
		cmocka_unit_test_teardown(
			a_run_of_which_only_the_end_is_known_shows_with_unknown_time_and_cost,
			tear_down),
		cmocka_unit_test_teardown(a_loose_end_alone_is_no_run_but_tells_the_state,
					  tear_down),
		cmocka_unit_test_teardown(of_repeats_about_a_run_the_latest_time_then_id_counts,
					  tear_down),
		cmocka_unit_test_teardown(a_repeat_of_a_report_under_another_id_counts_once,
					  tear_down),
		cmocka_unit_test_teardown(a_stored_fact_whose_event_id_is_forgotten_counts_as_later,
					  tear_down),
		cmocka_unit_test_teardown(the_next_start_ends_a_run_without_an_end, tear_down),
		cmocka_unit_test_teardown(
			of_two_starts_at_one_instant_the_greater_run_id_is_the_next, tear_down),
		cmocka_unit_test_teardown(
			a_next_run_whose_report_is_cut_to_the_second_before_leaves_no_time_twice,
			tear_down),
		cmocka_unit_test_teardown(
			a_report_about_long_ago_does_not_swallow_the_run_before_it, tear_down),
		cmocka_unit_test_teardown(the_last_set_timeout_ends_a_run_once_it_has_passed,
					  tear_down),
		cmocka_unit_test_teardown(a_set_timeout_not_later_than_the_start_ends_nothing,
					  tear_down),
		cmocka_unit_test_teardown(
			max_run_ends_a_run_once_it_has_passed_and_zero_means_never, tear_down),
		cmocka_unit_test_teardown(
			of_two_missing_ends_at_one_instant_next_start_then_timeout_counts,
			tear_down),
		cmocka_unit_test_teardown(
			a_later_event_proves_an_earlier_timeout_whatever_the_clock_says, tear_down),
		cmocka_unit_test_teardown(
			a_killed_of_the_sandbox_ends_the_run_that_nothing_else_ended_before,
			tear_down),
		cmocka_unit_test_teardown(killed_is_final_whatever_starts_later, tear_down),
		cmocka_unit_test_teardown(a_killed_at_the_very_start_of_a_run_leaves_it_no_time,
					  tear_down),
		cmocka_unit_test_teardown(a_start_that_the_next_one_ended_does_not_decide_the_state,
					  tear_down),
		cmocka_unit_test_teardown(a_sandbox_is_created_when_its_earliest_run_starts,
					  tear_down),
		cmocka_unit_test_teardown(loose_starts_and_ends_form_runs_named_by_their_start,
					  tear_down),
		cmocka_unit_test_teardown(a_loose_start_while_a_run_is_open_ends_it, tear_down),
		cmocka_unit_test_teardown(a_loose_report_names_the_run_by_the_start_that_it_reports,
					  tear_down),
		cmocka_unit_test_teardown(a_loose_report_with_no_run_open_is_a_run_of_its_own,
					  tear_down),
		cmocka_unit_test_teardown(
			a_loose_report_that_begins_where_the_last_run_ended_is_another_run,
			tear_down),
		cmocka_unit_test_teardown(a_loose_report_about_the_run_that_just_ended_counts_once,
					  tear_down),
		cmocka_unit_test_teardown(a_second_loose_end_does_not_lengthen_a_run, tear_down),
		cmocka_unit_test_teardown(loose_starts_in_one_millisecond_are_one_run, tear_down),
		cmocka_unit_test_teardown(at_one_instant_an_open_run_ends_before_the_next_starts,
					  tear_down),
		cmocka_unit_test_teardown(
			at_one_instant_a_start_with_no_run_open_is_ended_by_the_end, tear_down),
		cmocka_unit_test_teardown(
			the_latest_loose_timeout_between_a_start_and_the_next_counts, tear_down),
		cmocka_unit_test_teardown(a_loose_timeout_before_the_first_start_ends_nothing,
					  tear_down),
		cmocka_unit_test_teardown(
			of_loose_events_at_one_instant_the_greater_id_is_later_and_a_forgotten_one,
			tear_down),
		cmocka_unit_test_teardown(
			of_facts_whose_ids_are_forgotten_the_one_stored_later_is_later, tear_down),
		cmocka_unit_test_teardown(of_loose_ends_at_one_instant_the_lesser_id_comes_first,
					  tear_down),
		cmocka_unit_test_teardown(an_executors_created_opens_no_second_run, tear_down),
		cmocka_unit_test_teardown(
			a_run_named_by_any_kind_of_event_takes_the_place_of_loose_runs, tear_down),
		cmocka_unit_test_teardown(
			a_run_without_a_start_takes_the_latest_loose_one_before_its_end, tear_down),
		cmocka_unit_test_teardown(
			a_loose_start_at_the_instant_of_the_end_serves_if_there_is_no_earlier,
			tear_down),
		cmocka_unit_test_teardown(a_loose_start_before_the_previous_runs_end_is_not_taken,
					  tear_down),
		cmocka_unit_test_teardown(
			a_loose_start_before_the_start_of_another_run_is_not_taken, tear_down),
		cmocka_unit_test_teardown(a_loose_start_inside_a_known_run_is_not_taken, tear_down),
		cmocka_unit_test_teardown(a_loose_start_while_another_run_is_open_parts_the_two,
					  tear_down),
		cmocka_unit_test_teardown(a_loose_start_serves_one_run_only, tear_down),
		cmocka_unit_test_teardown(
			a_run_without_an_end_takes_the_first_loose_one_before_the_next_start,
			tear_down),
		cmocka_unit_test_teardown(own_facts_win_over_loose_ones, tear_down),
		cmocka_unit_test_teardown(a_loose_end_at_the_instant_of_the_start_is_taken,
					  tear_down),
		cmocka_unit_test_teardown(
			at_the_instant_of_the_next_start_a_loose_end_is_the_earlier_runs,
			tear_down),
		cmocka_unit_test_teardown(a_loose_report_lent_to_a_run_counts_as_its_own,
					  tear_down),
		cmocka_unit_test_teardown(loose_and_own_timeouts_compete_by_time_then_id,
					  tear_down),
		cmocka_unit_test_teardown(a_loose_start_after_the_last_run_leaves_the_state_unknown,
					  tear_down),
		cmocka_unit_test_teardown(a_sender_may_name_a_run_just_as_a_loose_one_was,
					  tear_down),
		cmocka_unit_test_teardown(sizes_that_a_report_leaves_out_are_the_templates,
					  tear_down),
		cmocka_unit_test_teardown(without_a_size_an_unreported_run_has_time_but_no_cost,
					  tear_down),
		cmocka_unit_test_teardown(a_source_that_is_not_priced_costs_nothing_known,
					  tear_down),
		cmocka_unit_test_teardown(the_price_is_the_one_in_force_at_the_start_of_the_account,
					  tear_down),
		cmocka_unit_test_teardown(a_cost_that_does_not_fit_is_unknown, tear_down),
		cmocka_unit_test_teardown(dimensions_are_the_ends_then_the_starts_then_the_sandboxs,
					  tear_down),
		cmocka_unit_test_teardown(the_size_is_that_of_the_template_at_the_end, tear_down),
		cmocka_unit_test_teardown(
			without_a_run_the_dimensions_are_those_of_the_latest_events, tear_down),
		cmocka_unit_test_teardown(
			of_metadata_and_startup_the_latest_event_that_has_one_counts, tear_down),
		cmocka_unit_test_teardown(a_test_event_leaves_no_trace, tear_down),
		cmocka_unit_test_teardown(an_open_run_shows_what_it_has_accrued, tear_down),
		cmocka_unit_test_teardown(shares_of_a_closed_run_end_with_it_and_never_exceed_it,
					  tear_down),
		cmocka_unit_test_teardown(the_run_at_an_instant_is_the_one_that_started_last,
					  tear_down),
		cmocka_unit_test_teardown(a_stored_run_that_is_not_derived_any_more_is_gone,
					  tear_down),
		cmocka_unit_test_teardown(a_stored_run_that_gets_an_end_has_changed_facts,
					  tear_down),
		cmocka_unit_test_teardown(runs_have_moved_when_the_only_one_is_gone, tear_down),
		cmocka_unit_test_teardown(a_run_that_was_never_stored_goes_without_a_trace,
					  tear_down),
		cmocka_unit_test_teardown(out_of_memory_nothing_is_counted_twice_or_lost,
					  tear_down),
		cmocka_unit_test_teardown(every_name_is_that_of_the_views, tear_down),
		cmocka_unit_test_teardown(an_execution_costs_what_its_sender_says, tear_down),
		cmocka_unit_test_teardown(else_its_size_or_its_templates_times_its_duration,
					  tear_down),
		cmocka_unit_test_teardown(at_the_price_when_it_started, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
