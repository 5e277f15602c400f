/* From the log to the ledger, read back through the views: what the stories of the deliveries come
 * to, to the nano-USD, whatever the order and however often the store is opened again.
 *
 * Expected money is computed by hand: a second of 2 vCPU and half a GiB is 30,250 nano-USD. What
 * happens when something fails is in test_projector_faults.c.
 */
#include "storage_fixture.h"

#include "clock.h"

#define PLAIN "[source e2b]\npath = /e2b\n"
#define THE_SANDBOX "'i7pycdybk266oxtz8q85s'"

static const char *const stories[] = {
	"01-v2-created",
	"02-v2-created-no-event-data",
	"03-v2-created-null-event-data",
	"04-v2-updated-set-timeout",
	"05-v2-updated-network-egress",
	"07-v2-updated-timeout-and-egress",
	"08-v2-checkpointed",
	"09-v2-paused",
	"10-v2-resumed",
	"11-v2-killed-request",
	"40-compat-agentenv-created",
	"41-compat-agentenv-forked",
	"42-compat-rayito-killed",
	"44-compat-cube-shim-killed",
	"50-code-executed-success",
	"51-code-executed-error",
	"52-code-executed-timeout",
	"53-code-executed-command-nonzero-exit",
	"55-code-executed-with-cost",
	"57-code-executed-minimal",
};

static void fold_stories(struct world *w, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		put_story(w, stories[i]);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
}

/* Stories ----------------------------------------------------------------- */

static void tells_the_story_of_a_sandbox(void **state)
{
	struct world *w = *state;
	fold_stories(w, 0, 10);
	PARCEL again;
	init_story(&again, "12-v2-killed-request-retry");
	assert_int_equal(put(w, &again), STORAGE_DUPLICATE);
	(void)fold_all(w);
	expect_rows(w,
		    "SELECT run_id, started_at, ended_at, end_kind, kill_reason, vcpu_count,"
		    " memory_mb, runtime_ms, cost_nanousd, cost_usd, cost_source FROM runs"
		    " WHERE sandbox_id = " THE_SANDBOX " ORDER BY time",
		    "e36bf9b3-ddcb-469d-a330-fcf1562ae4b8|2026-11-20T09:00:00.000Z|"
		    "2026-11-20T09:10:00.277Z|paused|-|2|512|600277|18158379|0.018158379|reported\n"
		    "f065a1c2-84cc-4549-81ac-c9906424550a|2026-11-20T10:00:00.000Z|"
		    "2026-11-20T10:20:00.321Z|killed|request|2|512|1200321|36309710|0.03630971|"
		    "reported");
	expect_rows(w,
		    "SELECT time, created_at, ended_at, last_event_at, expires_at, source,"
		    " template_id, template, team_id, state, kill_reason, startup_ms, runs,"
		    " runtime_ms, cost_nanousd, executions, failed_executions, metadata"
		    " FROM sandboxes WHERE sandbox_id = " THE_SANDBOX,
		    "1795165200|2026-11-20T09:00:00.000Z|2026-11-20T10:20:00.321Z|"
		    "2026-11-20T10:20:00.321Z|-|e2b|k3v9x2m7q1w8e5r4t6y0|k3v9x2m7q1w8e5r4t6y0|"
		    "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4|killed|request|-|2|1800598|54468089|0|0|"
		    "{\"agent\":\"billing-summary\",\"env\":\"staging\",\"user_id\":\"4711\"}");
	expect_rows(w,
		    "SELECT sandbox_id, run_id, started_at, ended_at, runtime_ms, cost_nanousd,"
		    " cost_source FROM runs WHERE sandbox_id <> " THE_SANDBOX " ORDER BY time",
		    "i0ro6nzqdg3w4ll0tzql9|6ca387b5-bafe-4bd1-a0c5-d1529127c470|"
		    "2026-11-20T09:00:01.500Z|-|-|-|unknown\n"
		    "ivu1i4xx1bzn2kir1gshy|e9a5642c-7d07-43e5-b6e5-c77a2ee05f69|"
		    "2026-11-20T09:00:02.000Z|-|-|-|unknown");
	expect_rows(w, "SELECT state, count(*) FROM sandboxes GROUP BY state",
		    "killed|1\nrunning|2");
	expect_rows(w, "SELECT stored_seq, folded_seq, lag_s, skipped FROM ledger_state",
		    "10|10|0|0");
}

static void tells_of_executions(void **state)
{
	struct world *w = *state;
	fold_stories(w, 14, 20);
	expect_rows(
		w,
		"SELECT event_id, time, started_at, finished_at, sandbox_id, run_id, source,"
		" execution_kind, language, error_name, error_value, attempt, final, vcpu_count,"
		" memory_mb, attributed_cost_usd FROM executions WHERE execution_id ="
		" '180d7a84-c177-4307-86ef-f0bab2bc1a3d'",
		"5bd6fdb2-3eaf-433f-ac86-051654877451|1795190400|2026-11-20T16:00:00.100Z|"
		"2026-11-20T16:00:01.350Z|i7pycdybk266oxtz8q85s|"
		"e36bf9b3-ddcb-469d-a330-fcf1562ae4b8|e2b|code|python|ZeroDivisionError|"
		"division by zero|1|1|2|512|1.15e-06");
	/* 38 ms are 1,149.5 nano-USD, half up; the one of 90 s brings its own amount. */
	expect_rows(w,
		    "SELECT duration_ms, execution_kind, language, status, failed, exit_code,"
		    " attributed_cost_nanousd, cost_source FROM executions ORDER BY duration_ms",
		    "0|code|r|success|0|0|0|computed\n"
		    "12|command|bash|error|1|127|363|computed\n"
		    "38|code|python|error|1|1|1150|computed\n"
		    "1250|code|python|success|0|0|37813|computed\n"
		    "90000|code|javascript|success|0|0|6660000|reported\n"
		    "300004|code|python|timeout|1|-|9075121|computed");
	expect_rows(w, "SELECT count(*), min(failed) FROM failed_executions", "3|1");
	/* They are a sign of life and a run's name, not its money. */
	expect_rows(
		w, "SELECT executions, failed_executions, runs, cost_nanousd, state FROM sandboxes",
		"6|3|0|0|unknown");
	expect_rows(w, "SELECT failed FROM events ORDER BY seq", "0\n1\n1\n1\n0\n0");
}

static void tells_of_senders_that_name_no_run(void **state)
{
	struct world *w = *state;
	fold_stories(w, 10, 14);
	expect_rows(
		w,
		"SELECT run_id, started_at, ended_at, end_kind, kill_reason, template_id, team_id,"
		" vcpu_count, cost_nanousd, cost_source FROM runs ORDER BY time, run_id",
		"bd3nnyf6s1af@2026-11-20T15:00:00.194Z|2026-11-20T15:00:00.194Z|-|-|-|"
		"python-base|-|-|-|unknown\n"
		"byj2fsf97y5m@2026-11-20T15:01:00.000Z|2026-11-20T15:01:00.000Z|-|-|-|"
		"python-base|-|-|-|unknown\n"
		"microvm-x#0|-|2026-11-20T15:03:20.000Z|killed|request|"
		"arn:aws:lambda:eu-west-1:000000000000:microvm-image:base|-|-|-|unknown\n"
		"60f5873e-2be9-42b6-93c5-2fb103047097|-|2026-11-20T15:05:00.123Z|killed|-|"
		"my-app|3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4|-|-|unknown");
	expect_rows(w, "SELECT sandbox_id, state, runs, metadata FROM sandboxes ORDER BY 1",
		    "bd3nnyf6s1af|running|1|-\n"
		    "byj2fsf97y5m|running|1|{\"k\":\"v\"}\n"
		    "microvm-ff508d5a-3a85-48c6-b100-ec08af45139c|killed|1|-\n"
		    "owr0zloz2pdht3b5|killed|1|-");
}

static void prune_until(struct world *w, int64_t unix_s)
{
	size_t n = 1;
	int64_t last_s;
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_horizon(w->s, unix_s), 0);
	while (n > 0)
		assert_int_equal(storage_prune_events(w->s, unix_s, 64, &n, &last_s), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

/* Exactly once ------------------------------------------------------------ */

static void comes_to_the_same_in_any_order_and_slicing(void **state)
{
	struct world *w = *state;
	fold_stories(w, 0, ARRAY_SIZE(stories));
	CLEANUP_FREE char *expected = ledger_of(w);
	/* Steps through the stories that are coprime to their number: other orders. */
	static const size_t steps[] = { 19, 7, 13 };
	for (size_t k = 0; k < ARRAY_SIZE(steps); k++) {
		void *other_state;
		(void)begin_store(&other_state);
		struct world *other = other_state;
		for (size_t i = 0; i < ARRAY_SIZE(stories); i++) {
			put_story(other, stories[(i * steps[k] + k) % ARRAY_SIZE(stories)]);
			if (i % 3 != k)
				continue;
			reopen(other);
			begin_ledger(other, PLAIN);
			(void)fold_all(other);
		}
		reopen(other);
		begin_ledger(other, PLAIN);
		(void)fold_all(other);
		CLEANUP_FREE char *is = ledger_of(other);
		(void)end_world(&other_state);
		assert_string_equal(is, expected);
	}
}

/* Slices of up to ten that are gathered as the events come; what is gathered does not show. */
static void comes_to_the_same_when_it_gathers(void **state)
{
	struct world *w = *state;
	fold_stories(w, 0, ARRAY_SIZE(stories));
	CLEANUP_FREE char *expected = ledger_of(w);
	for (size_t every = 1; every < 5; every++) {
		void *other_state;
		(void)begin_store(&other_state);
		struct world *other = other_state;
		begin_ledger(other, PLAIN);
		for (size_t i = 0; i < ARRAY_SIZE(stories); i++) {
			put_and_offer_story(other, stories[i]);
			bool more;
			if (i % every == 0)
				assert_int_equal(projector_gather(other->p, 2, 1000000, 10), 0);
			if (i % 10 == 9 && every > 1)
				assert_int_equal(projector_step(other->p, 1000000, 10, &more), 0);
		}
		if (every == 1)
			expect_rows(other, "SELECT count(*) FROM sandbox", "0");
		(void)fold_all(other);
		CLEANUP_FREE char *is = ledger_of(other);
		(void)end_world(&other_state);
		assert_string_equal(is, expected);
	}
}

static const struct told begun = { .id = "a",
				   .type = "sandbox.created",
				   .time = "2100-01-01T00:00:00Z",
				   .sandbox = "sb1",
				   .run = "r1",
				   .in_2100 = true };

static void gather_told(struct world *w, struct told t)
{
	PARCEL p;
	init_told(&p, t);
	assert_int_equal(put(w, &p), STORAGE_STORED);
	offer(w, &p);
	assert_int_equal(projector_gather(w->p, 1, 1000000, 100), 0);
}

static void begin_short_runs(struct world *w)
{
	begin_ledger(w, PLAIN);
	w->config->store.max_run_ms = 3600000;
	projector_set_config(w->p, w->config);
	tell(w, begun);
	(void)fold_all(w);
}

/* While an event of it waits in memory, the sandbox is changed beneath: by the clock, or by who
 * requeues, who has a projector of its own. */
static void gathers_anew_when_the_ledger_changed(void **state)
{
	struct world *w = *state;
	begin_short_runs(w);
	struct told t = begun;
	t.id = "b";
	t.type = "sandbox.updated";
	t.time = "2100-01-01T00:10:00Z";
	gather_told(w, t);
	struct projector *other;
	assert_int_equal(projector_new(w->s, &other), 0);
	projector_set_config(other, w->config);
	assert_int_equal(projector_tick(other, IN_2100_MS + 3600000), 0);
	projector_free(other);
	expect_rows(w, "SELECT sum(runs_ended) FROM cost_hourly", "1");
	t.id = "c";
	t.type = "sandbox.killed";
	t.time = "2100-01-01T00:30:00Z";
	gather_told(w, t);
	assert_int_equal(projector_tick(w->p, IN_2100_MS + 7200000), 0);
	(void)fold_all(w);
	expect_rows(w,
		    "SELECT end_kind, r.runtime_ms, state FROM runs r JOIN sandboxes USING"
		    " (sandbox_id)",
		    "killed|1800000|killed");
	expect_rows(w, "SELECT sum(runtime_ms), sum(runs_ended) FROM cost_hourly", "1800000|1");
}

/* The mark that retention leaves on a sandbox stays. */
static void gathers_anew_when_an_event_was_pruned(void **state)
{
	struct world *w = *state;
	begin_short_runs(w);
	struct told t = begun;
	t.id = "b";
	t.type = "sandbox.updated";
	t.time = "2100-01-01T00:10:00Z";
	gather_told(w, t);
	prune_until(w, INT64_C(4102444801)); /* 2100-01-01T00:00:01Z */
	(void)fold_all(w);
	expect_rows(w, "SELECT sealed FROM sandbox", "1");
	expect_rows(w, "SELECT count(*) FROM events", "1");
}

static void gathers_anew_under_another_configuration(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	struct told t = begun;
	t.template = "nice";
	gather_told(w, t);
	struct config *config = load_config(PLAIN "[template tpl-a]\nalias = nice\n");
	projector_set_config(w->p, config);
	(void)fold_all(w);
	expect_rows(w, "SELECT template_id FROM sandboxes", "tpl-a");
	projector_set_config(w->p, w->config);
	config_unref(config);
}

/* One that was not offered, and one that was, which comes so much later that it has its place. */
static void never_takes_a_later_event_for_one_that_was_not_offered(void **state)
{
	enum { LATER = 2048 };
	struct world *w = *state;
	enum ingest_reason reason;
	begin_ledger(w, PLAIN);
	assert_int_equal(storage_begin(w->s, true), 0);
	for (int i = 0; i <= LATER; i++) {
		PARCEL p;
		char id[16];
		(void)snprintf(id, sizeof(id), "sb%d", i);
		struct told t = begun;
		t.id = t.sandbox = id;
		init_told(&p, t);
		assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
		if (i > 0)
			offer(w, &p);
	}
	assert_int_equal(storage_commit(w->s), 0);
	assert_int_equal(projector_gather(w->p, 1, 1000000, LATER), 0);
	assert_true(fold_all(w) > 1);
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "2049|0");
	expect_rows(w, "SELECT count(*) FROM sandboxes", "2049");
}

static void folds_nothing_twice(void **state)
{
	struct world *w = *state;
	fold_stories(w, 0, ARRAY_SIZE(stories));
	CLEANUP_FREE char *before = ledger_of(w);
	CLEANUP_FREE char *seqs = rows_of(w, "SELECT max(changed_seq) FROM sandboxes");
	for (int i = 0; i < 3; i++) {
		reopen(w);
		begin_ledger(w, PLAIN);
		assert_int_equal(fold_all(w), 1);
	}
	CLEANUP_FREE char *after = ledger_of(w);
	assert_string_equal(after, before);
	expect_rows(w, "SELECT max(changed_seq) FROM sandboxes", seqs);
}

static void folds_no_more_than_it_was_asked_to(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	for (size_t i = 0; i < 10; i++)
		put_story(w, stories[i]);
	bool more = false;
	assert_int_equal(projector_step(w->p, 1000000, 4, &more), 0);
	assert_true(more);
	assert_int_equal(projector_folded_seq(w->p), 4);
	assert_int_equal(projector_step(w->p, 1000000, 6, &more), 0);
	assert_false(more);
	assert_int_equal(projector_folded_seq(w->p), 10);
}

/* Without any time left it still goes on, or a store that is slow to begin would stand still. */
static void goes_on_without_a_budget(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	for (size_t i = 0; i < 10; i++)
		put_story(w, stories[i]);
	for (int64_t i = 1; i <= 10 && projector_folded_seq(w->p) < 10; i++) {
		bool more;
		assert_int_equal(projector_step(w->p, -1, 16, &more), 0);
		assert_true(projector_folded_seq(w->p) >= i);
	}
	assert_int_equal(projector_folded_seq(w->p), 10);
}

/* More sandboxes than fit into one slice. */
static void folds_a_long_log(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	assert_int_equal(storage_begin(w->s, false), 0);
	for (int i = 0; i < 1200; i++) {
		char id[16];
		enum ingest_reason reason;
		PARCEL p;
		(void)snprintf(id, sizeof(id), "sb-%d", i);
		init_told(&p, (struct told) { .id = id,
					      .type = "sandbox.created",
					      .time = "2026-11-20T09:00:00Z",
					      .sandbox = id });
		assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
	}
	assert_int_equal(storage_commit(w->s), 0);
	bool more = true;
	while (more)
		assert_int_equal(projector_step(w->p, 10000000, 100000, &more), 0);
	expect_rows(w, "SELECT count(*), count(DISTINCT sandbox_id) FROM runs", "1200|1200");
}

/* The events view --------------------------------------------------------- */

/* What a body names is shown at once, and the same as when it is folded. */
static void shows_the_same_ids_before_and_after_the_fold(void **state)
{
	struct world *w = *state;
	w->config = load_config(PLAIN "[template tpl-a]\nalias = nice\n");
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_alias(w->s, SPAN_LITERAL("tpl-a"), "nice"), 0);
	assert_int_equal(storage_commit(w->s), 0);
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		put_story(w, stories[i]);
	put_story(w, "29-camel-v1-created-null");
	put_story(w, "31-camel-v2-killed");
	put_story(w, "25-v2-unknown-future-type");
	struct told base = { .type = "sandbox.created", .time = "2026-11-20T09:00:00Z" };
	static const struct {
		const char *type, *sandbox, *more;
	} odd[] = {
		{ "e2b-hookd.test", "sb1", "\"sandbox_execution_id\":\"run1\"" },
		{ "something.else", NULL, "\"sandbox_execution_id\":\"run1\"" },
		{ NULL, "sb2", "\"sandbox_template_id\":\"tpl-a\"" },
		{ NULL, "sb3", "\"sandbox_template_id\":\"nice\"" },
		{ NULL, "sb4", "\"template_alias\":\"nice\"" },
		{ NULL, "sb5", "\"sandboxTemplateAlias\":\"other\",\"sandbox_template_id\":\"\"" },
		{ NULL, "", "\"sandboxId\":\"sb6\"" },
		{ NULL, "sb7", "\"sandbox_team_id\":\"00000000000000000000000000000000\"" },
		{ NULL, "sb8", "\"sandboxBuildId\":\"b\",\"sandbox_build_id\":\"\"" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		struct told t = base;
		t.type = odd[i].type ? odd[i].type : base.type;
		t.sandbox = odd[i].sandbox;
		t.more = odd[i].more;
		tell(w, t);
	}
	static const char query[] =
		"SELECT seq, time, occurred_at, received_at, event_id, source, type, kind,"
		" envelope_version, sandbox_id, run_id, template_id, template, build_id, team_id,"
		" failed, deliveries FROM events ORDER BY seq";
	CLEANUP_FREE char *before = rows_of(w, query);
	begin_ledger(w, NULL);
	(void)fold_all(w);
	expect_rows(w, query, before);
	expect_rows(
		w,
		"SELECT sandbox_id, template_id, template FROM events WHERE template_id = 'tpl-a'"
		" ORDER BY seq",
		"sb2|tpl-a|nice\nsb3|tpl-a|nice\nsb4|tpl-a|nice");
	expect_rows(w, "SELECT sandbox_id, run_id FROM events WHERE kind = 'test'", "-|-");
}

static void shows_events_beside_one_whose_body_is_damaged(void **state)
{
	struct world *w = *state;
	put_story(w, stories[0]);
	put_story(w, stories[1]);
	close_store(w);
	change(w, "UPDATE event SET body_len = 9 WHERE seq = 1");
	open_store(w);
	expect_rows(w, "SELECT seq, sandbox_id FROM events ORDER BY seq",
		    "1|-\n2|i0ro6nzqdg3w4ll0tzql9");
}

/* Configuration ----------------------------------------------------------- */

static void takes_size_alias_and_price_from_the_configuration(void **state)
{
	struct world *w = *state;
	begin_ledger(w, "[source e2b]\npath = /e2b\n[source free]\npath = /free\npriced = no\n"
			"[template tpl-a]\nalias = nice\nvcpu = 4\nmemory_mb = 2048\n"
			"[pricing]\nvcpu_second_usd = 0.00001\ngib_second_usd = 0.000002\n"
			"[pricing 2026-11-21]\nvcpu_second_usd = 0.00002\ngib_second_usd = 0\n");
	static const struct told ends[] = {
		{ .sandbox = "sb1", .template = "nice", .time = "2026-11-20T09:00" },
		{ .sandbox = "sb2", .template = "tpl-a", .time = "2026-11-21T09:00" },
		{ .sandbox = "sb3",
		  .template = "tpl-a",
		  .time = "2026-11-20T09:00",
		  .source = "free" },
		{ .sandbox = "sb4", .template = "unknown", .time = "2026-11-20T09:00" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		for (int end = 0; end < 2; end++) {
			char time[32];
			struct told t = ends[i];
			(void)snprintf(time, sizeof(time), "%s:%s", t.time, end ? "10.5Z" : "00Z");
			t.time = time;
			t.type = end ? "sandbox.paused" : "sandbox.created";
			t.in_2100 = true;
			tell(w, t);
		}
	}
	(void)fold_all(w);
	/* 10.5 s of 4 vCPU and 2 GiB: 44,000 nano-USD a second, then 80,000. */
	expect_rows(
		w,
		"SELECT sandbox_id, template_id, vcpu_count, memory_mb, runtime_ms, cost_nanousd,"
		" cost_source FROM runs ORDER BY sandbox_id",
		"sb1|tpl-a|4|2048|10500|462000|estimated\n"
		"sb2|tpl-a|4|2048|10500|840000|estimated\n"
		"sb3|tpl-a|4|2048|10500|-|unknown\n"
		"sb4|unknown|-|-|10500|-|unknown");
	/* A sum of nothing but unknown costs is unknown, too. */
	expect_rows(w, "SELECT sandbox_id, cost_nanousd FROM sandboxes ORDER BY sandbox_id",
		    "sb1|462000\nsb2|840000\nsb3|-\nsb4|-");
	expect_rows(w, "SELECT template_id, cost_nanousd FROM template_stats ORDER BY template_id",
		    "tpl-a|1302000\nunknown|-");
}

/* Clocks of two machines, or a late report: killed is final all the same. */
static void shows_nothing_of_a_killed_sandbox_as_running(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	tell(w, (struct told) { .id = "1",
				.type = "sandbox.killed",
				.time = "2026-11-20T09:00:00Z",
				.sandbox = "sb1",
				.run = "run1",
				.template = "tpl1",
				.in_2100 = true });
	tell(w, (struct told) { .id = "2",
				.type = "sandbox.resumed",
				.time = "2026-11-20T09:00:01Z",
				.sandbox = "sb1",
				.run = "run2",
				.template = "tpl1",
				.in_2100 = true });
	(void)fold_all(w);
	expect_rows(w, "SELECT run_id, ended_at FROM runs WHERE started_at IS NOT NULL", "run2|-");
	expect_rows(w, "SELECT state FROM sandboxes", "killed");
	expect_rows(w, "SELECT running FROM template_stats", "0");
	expect_rows(w, "SELECT count(*) FROM running", "0");
}

/* A report about the execution x1 of the sandbox sb1. */
static enum storage_outcome put_report(struct world *w, const char *event_id, const char *time,
				       int ms)
{
	char data[160];
	(void)snprintf(data, sizeof(data),
		       "{\"code_execution\":{\"execution_id\":\"x1\",\"duration_ms\":%d}}", ms);
	return put_told(w, (struct told) { .id = event_id,
					   .type = "sandbox.code_executed",
					   .time = time,
					   .sandbox = "sb1",
					   .run = "run1",
					   .template = "tpl1",
					   .data = data });
}

static void report(struct world *w, const char *event_id, const char *time, int ms)
{
	assert_int_equal(put_report(w, event_id, time, ms), STORAGE_STORED);
	(void)fold_all(w);
}

static void shows_an_execution_as_before_when_its_event_is_pruned(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	report(w, "ev-2", "2026-11-20T09:00:00Z", 200);
	report(w, "ev-3", "2026-11-20T09:00:00Z", 300);
	report(w, "ev-1", "2026-11-20T09:00:00Z", 100);
	report(w, "0b6e6f5e-9b0f-4c1e-8a55-2c1f5f8f7a10", "2026-11-20T09:00:01Z", 400);
	report(w, "ev-9", "2026-11-20T08:59:59Z", 900);
	static const char query[] = "SELECT * FROM executions";
	CLEANUP_FREE char *before = rows_of(w, query);
	assert_non_null(strstr(before, "x1|0b6e6f5e-9b0f-4c1e-8a55-2c1f5f8f7a10|"));
	prune_until(w, INT64_C(1795165202)); /* 2026-11-20T09:00:02Z */
	expect_rows(w, "SELECT count(*) FROM event", "0");
	expect_rows(w, query, before);
	/* What was before the horizon cannot be told from what was pruned; what came after it can.
	 */
	assert_int_equal(put_report(w, "late", "2026-11-20T09:00:01.5Z", 500), STORAGE_QUARANTINED);
	expect_rows(w, query, before);
	report(w, "new", "2026-11-20T09:00:02Z", 600);
	expect_rows(w, "SELECT event_id, duration_ms FROM executions", "new|600");
	expect_rows(w, "SELECT executions FROM sandboxes", "1");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(tells_the_story_of_a_sandbox),
		TEST(tells_of_executions),
		TEST(tells_of_senders_that_name_no_run),
		TEST(comes_to_the_same_in_any_order_and_slicing),
		TEST(comes_to_the_same_when_it_gathers),
		TEST(gathers_anew_when_the_ledger_changed),
		TEST(gathers_anew_when_an_event_was_pruned),
		TEST(gathers_anew_under_another_configuration),
		TEST(never_takes_a_later_event_for_one_that_was_not_offered),
		TEST(folds_nothing_twice),
		TEST(folds_no_more_than_it_was_asked_to),
		TEST(goes_on_without_a_budget),
		TEST(folds_a_long_log),
		TEST(shows_the_same_ids_before_and_after_the_fold),
		TEST(shows_events_beside_one_whose_body_is_damaged),
		TEST(shows_nothing_of_a_killed_sandbox_as_running),
		TEST(shows_an_execution_as_before_when_its_event_is_pruned),
		TEST(takes_size_alias_and_price_from_the_configuration),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
