/* What a storage engine is, second part: sandboxes, runs and loose events come back as they were
 * saved, every field in its own place.
 *
 * The sandboxes here mean nothing: each field has another value, so that two columns that changed
 * places would show.
 */
#include "storage_fixture.h"

#include "ledger.h"

#define T0_MS INT64_C(1795165200000) /* 2026-11-20T09:00:00Z */

/* Mostly the next number; times where the store counts with them. */
static int64_t next_value;

static int64_t next(void)
{
	return ++next_value;
}

static struct ledger_mark next_mark(void)
{
	struct ledger_mark mark = { next(), 0 };
	mark.seq = next();
	return mark;
}

static struct ledger_dims next_dims(void)
{
	struct ledger_dims dims = { next(), 0, 0 };
	dims.template_key = next();
	dims.team_key = next();
	return dims;
}

static struct event_report next_report(void)
{
	struct event_report report = { .present = true, .started_unix_ms = next() };
	report.duration_ms = next();
	report.vcpu_count = next();
	report.memory_mb = next();
	return report;
}

static struct ledger_fact next_fact(enum event_kind kind)
{
	struct ledger_fact fact = { .mark = next_mark(), .kind = kind, .dims = next_dims() };
	fact.timeout_ms = LEDGER_ABSENT;
	return fact;
}

static void fill_run(struct ledger_run *run, const char *id)
{
	*run = (struct ledger_run) { .named = true };
	(void)snprintf(run->id, sizeof(run->id), "%s", id);
	run->start = next_fact(EVENT_RESUMED);
	run->end = next_fact(EVENT_KILLED);
	run->end.kill_reason_key = next();
	run->end.report = next_report();
	run->timeout.mark = next_mark();
	run->timeout.kind = EVENT_UPDATED;
	run->timeout.timeout_ms = next();
	struct ledger_account *a = &run->account;
	a->exists = true;
	a->started_ms = T0_MS + next();
	a->ended_ms = T0_MS + 7200000 + next();
	a->end_kind = LEDGER_END_KILLED;
	a->kill_reason_key = next();
	a->dims = next_dims();
	a->vcpu_count = next();
	a->memory_mb = next();
	a->runtime_ms = a->ended_ms - a->started_ms;
	a->rates.vcpu_second_femto = next();
	a->rates.gib_second_femto = next();
	a->cost_nanousd = next();
	a->cost_source = LEDGER_COST_ESTIMATED;
	a->due_ms = LEDGER_ABSENT;
}

static void fill_totals(struct ledger_totals *t)
{
	t->state = LEDGER_KILLED;
	t->created_ms = T0_MS + next();
	t->ended_ms = T0_MS + next();
	t->expires_ms = T0_MS + next();
	t->kill_reason_key = next();
	t->dims = next_dims();
	t->runs = next();
	t->runtime_ms = next();
	t->cost_nanousd = next();
	t->unknown_cost = next();
}

/* On top of what storage_load_sandbox has made of it. */
static void fill_sandbox(struct ledger_sandbox *x)
{
	next_value = 100;
	x->names_run = true;
	x->first_event_ms = next();
	x->last = next_mark();
	x->last_source_key = next();
	x->template_mark = next_mark();
	x->template_key = next();
	x->team_mark = next_mark();
	x->team_key = next();
	x->metadata_mark = next_mark();
	x->metadata = strdup("{\"k\":\"v\"}");
	x->startup_mark = next_mark();
	x->startup_ms = next();
	x->killed = next_fact(EVENT_KILLED);
	x->killed.dims.template_key = x->killed.dims.team_key = 0; /* nobody asks */
	x->killed.kill_reason_key = next();
	x->executions = next();
	x->failed_executions = next();
	x->loose_executions = next();
	fill_totals(&x->totals);
	x->runs = calloc(2, sizeof(*x->runs));
	x->loose = calloc(2, sizeof(*x->loose));
	assert_true(x->metadata && x->runs && x->loose);
	x->n_runs = x->runs_size = x->n_loose = x->loose_size = 2;
	fill_run(&x->runs[0], "run-a");
	fill_run(&x->runs[1], "run-b");
	x->runs[1].named = false;
	x->loose[0] = next_fact(EVENT_CREATED);
	x->loose[1] = next_fact(EVENT_PAUSED);
	x->loose[1].kill_reason_key = next();
	x->loose[1].timeout_ms = next();
	x->loose[1].report = next_report();
}

static void load(struct world *w, const char *id, struct ledger_sandbox *ret)
{
	assert_int_equal(storage_load_sandbox(w->s, (struct span) { id, strlen(id) }, ret), 0);
}

/* In a transaction of the fold's kind. */
static void save(struct world *w, struct ledger_sandbox *x)
{
	assert_int_equal(storage_begin(w->s, false), 0);
	for (size_t i = 0; i < x->n_runs; i++)
		(void)storage_run_key(w->s, &x->runs[i]);
	int r = storage_save_sandbox(w->s, x);
	if (r < 0)
		fail_msg("storage_save_sandbox: %d: %s", r, storage_error(w->s));
	assert_int_equal(storage_set_folded(w->s, 0), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

#define SANDBOX CLEANUP(ledger_sandbox_finish) struct ledger_sandbox

#define SAME(a, b, field) assert_int_equal((a)->field, (b)->field)

static void expect_same_mark(struct ledger_mark a, struct ledger_mark b)
{
	SAME(&a, &b, time_ns);
	SAME(&a, &b, seq);
}

static void expect_same_dims(const struct ledger_dims *a, const struct ledger_dims *b)
{
	SAME(a, b, source_key);
	SAME(a, b, template_key);
	SAME(a, b, team_key);
}

static void expect_same_fact(const struct ledger_fact *a, const struct ledger_fact *b)
{
	expect_same_mark(a->mark, b->mark);
	if (a->mark.seq)
		SAME(a, b, kind);
	expect_same_dims(&a->dims, &b->dims);
	SAME(a, b, kill_reason_key);
	SAME(a, b, timeout_ms);
	SAME(a, b, report.present);
	if (!a->report.present)
		return;
	SAME(a, b, report.started_unix_ms);
	SAME(a, b, report.duration_ms);
	SAME(a, b, report.vcpu_count);
	SAME(a, b, report.memory_mb);
}

static void expect_same_account(const struct ledger_account *a, const struct ledger_account *b)
{
	SAME(a, b, exists);
	SAME(a, b, started_ms);
	SAME(a, b, ended_ms);
	SAME(a, b, end_kind);
	SAME(a, b, kill_reason_key);
	expect_same_dims(&a->dims, &b->dims);
	SAME(a, b, vcpu_count);
	SAME(a, b, memory_mb);
	SAME(a, b, runtime_ms);
	SAME(a, b, rates.vcpu_second_femto);
	SAME(a, b, rates.gib_second_femto);
	SAME(a, b, cost_nanousd);
	SAME(a, b, cost_source);
	SAME(a, b, due_ms);
}

static void expect_same_run(const struct ledger_run *a, const struct ledger_run *b)
{
	assert_string_equal(a->id, b->id);
	SAME(a, b, named);
	expect_same_fact(&a->start, &b->start);
	expect_same_fact(&a->end, &b->end);
	expect_same_fact(&a->timeout, &b->timeout);
	expect_same_account(&a->account, &b->account);
	expect_same_account(&a->stored, &b->account);
	assert_true(a->is_stored && a->key > 0);
}

static void expect_same_sandbox(const struct ledger_sandbox *a, const struct ledger_sandbox *b)
{
	assert_true(a->is_stored);
	assert_string_equal(a->id, b->id);
	SAME(a, b, key);
	SAME(a, b, names_run);
	SAME(a, b, first_event_ms);
	expect_same_mark(a->last, b->last);
	SAME(a, b, last_source_key);
	expect_same_mark(a->template_mark, b->template_mark);
	SAME(a, b, template_key);
	expect_same_mark(a->team_mark, b->team_mark);
	SAME(a, b, team_key);
	expect_same_mark(a->metadata_mark, b->metadata_mark);
	expect_same_mark(a->startup_mark, b->startup_mark);
	SAME(a, b, startup_ms);
	expect_same_fact(&a->killed, &b->killed);
	SAME(a, b, executions);
	SAME(a, b, failed_executions);
	SAME(a, b, loose_executions);
	SAME(a, b, n_runs);
	SAME(a, b, n_loose);
}

static const struct ledger_run *run_of(const struct ledger_sandbox *x, const char *id)
{
	for (size_t i = 0; i < x->n_runs; i++)
		if (strcmp(x->runs[i].id, id) == 0)
			return &x->runs[i];
	fail_msg("no run %s", id);
	return NULL;
}

/* Sandboxes ----------------------------------------------------------------- */

static void loads_a_sandbox_as_it_was_saved(void **state)
{
	struct world *w = *state;
	SANDBOX saved, loaded;
	load(w, "sb1", &saved);
	fill_sandbox(&saved);
	save(w, &saved);
	reopen(w);
	load(w, "sb1", &loaded);
	expect_same_sandbox(&loaded, &saved);
	assert_string_equal(loaded.metadata, "{\"k\":\"v\"}");
	expect_same_run(run_of(&loaded, "run-a"), &saved.runs[0]);
	expect_same_run(run_of(&loaded, "run-b"), &saved.runs[1]);
	for (size_t i = 0; i < 2; i++)
		expect_same_fact(&loaded.loose[i], &saved.loose[i]);
	assert_int_equal(loaded.n_loose_stored, 2);
	/* The totals are derived; what others read of them is in the row. */
	const struct ledger_totals *t = &saved.totals;
	char row[512];
	(void)snprintf(
		row, sizeof(row), "%lld|3|%lld|%lld|%lld|%lld|%lld|%lld|%lld|%lld|%lld|%lld|%lld",
		(long long)(t->created_ms / 1000), (long long)t->created_ms, (long long)t->ended_ms,
		(long long)t->expires_ms, (long long)t->kill_reason_key,
		(long long)t->dims.source_key, (long long)t->dims.template_key,
		(long long)t->dims.team_key, (long long)t->runs, (long long)t->runtime_ms,
		(long long)t->cost_nanousd, (long long)t->unknown_cost);
	expect_rows(w,
		    "SELECT time_s, state, time_s * 1000 + time_ms, time_s * 1000 + ended_after_ms,"
		    " time_s * 1000 + expires_after_ms, kill_reason_key,"
		    " source_key, template_key, team_key, runs, runtime_ms,"
		    " cost_nanousd, unknown_cost FROM sandbox",
		    row);
}

/* Damage that SQLite does not see: in a number, not in a page. */
static void refuses_rows_that_say_what_cannot_be(void **state)
{
	static const char *const damage[] = {
		"UPDATE run SET ended_after_ms = 9223372036854775807",
		"UPDATE run SET time_s = -9223372036854775807",
		"UPDATE run SET time_ms = 9000, ended_after_ms = 0",
		"UPDATE run SET cost_nanousd = -1",
		"UPDATE sandbox SET time_s = 9223372036854775807",
		"UPDATE sandbox SET last_after_ms = -9223372036854775807",
		"UPDATE sandbox SET template_key = -7",
	};
	for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
		struct world *w = *state;
		SANDBOX saved, loaded;
		char id[16];
		(void)snprintf(id, sizeof(id), "sb%zu", i);
		load(w, id, &saved);
		fill_sandbox(&saved);
		save(w, &saved);
		close_store(w);
		change(w, damage[i]);
		open_store(w);
		int r = storage_load_sandbox(w->s, (struct span) { id, strlen(id) }, &loaded);
		if (r != -EUCLEAN)
			fail_msg("%s: %d", damage[i], r);
		assert_non_null(strstr(storage_error(w->s), "e2b-hookctl rebuild"));
	}
}

static void loads_what_is_absent_as_absent(void **state)
{
	struct world *w = *state;
	SANDBOX saved, loaded;
	load(w, "sb1", &saved);
	saved.first_event_ms = T0_MS;
	saved.runs = calloc(1, sizeof(*saved.runs));
	assert_non_null(saved.runs);
	saved.n_runs = saved.runs_size = 1;
	struct ledger_run *run = &saved.runs[0];
	(void)snprintf(run->id, sizeof(run->id), "run-a");
	run->start.timeout_ms = run->end.timeout_ms = run->timeout.timeout_ms = LEDGER_ABSENT;
	run->timeout.kind = EVENT_UPDATED;
	struct ledger_account *a = &run->account;
	a->exists = true;
	a->started_ms = T0_MS;
	a->ended_ms = a->vcpu_count = a->memory_mb = a->runtime_ms = LEDGER_ABSENT;
	a->rates.vcpu_second_femto = a->rates.gib_second_femto = LEDGER_ABSENT;
	a->cost_nanousd = LEDGER_ABSENT;
	a->due_ms = T0_MS + 5;
	save(w, &saved);
	load(w, "sb1", &loaded);
	expect_same_sandbox(&loaded, &saved);
	assert_null(loaded.metadata);
	expect_same_run(&loaded.runs[0], run);
}

static void gives_a_new_sandbox_a_key_of_its_own(void **state)
{
	struct world *w = *state;
	SANDBOX a, b, again;
	load(w, "sb1", &a);
	load(w, "sb2", &b);
	assert_false(a.is_stored);
	assert_true(a.key > 0 && b.key > 0 && a.key != b.key);
	a.first_event_ms = b.first_event_ms = T0_MS;
	save(w, &a);
	save(w, &b);
	reopen(w);
	load(w, "sb3", &again);
	assert_true(again.key != a.key && again.key != b.key);
}

static void keeps_a_sandbox_as_it_was_on_a_rollback(void **state)
{
	struct world *w = *state;
	SANDBOX saved, changed, loaded;
	load(w, "sb1", &saved);
	fill_sandbox(&saved);
	save(w, &saved);
	load(w, "sb1", &changed);
	changed.executions = 77;
	changed.runs[0].facts_changed = true;
	changed.runs[0].start.mark.time_ns = 77;
	changed.runs[1].gone = true;
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_save_sandbox(w->s, &changed), 0);
	storage_rollback(w->s);
	load(w, "sb1", &loaded);
	expect_same_sandbox(&loaded, &saved);
	expect_same_run(run_of(&loaded, "run-a"), &saved.runs[0]);
	expect_same_run(run_of(&loaded, "run-b"), &saved.runs[1]);
}

/* Runs ---------------------------------------------------------------------- */

static void writes_only_the_runs_that_changed(void **state)
{
	struct world *w = *state;
	SANDBOX saved, again;
	load(w, "sb1", &saved);
	fill_sandbox(&saved);
	saved.runs[1].account.rates.vcpu_second_femto = LEDGER_ABSENT; /* not priced */
	saved.runs[1].account.rates.gib_second_femto = LEDGER_ABSENT;
	saved.runs[1].account.cost_nanousd = LEDGER_ABSENT;
	save(w, &saved);
	load(w, "sb1", &again);
	for (size_t i = 0; i < again.n_runs; i++)
		if (strcmp(again.runs[i].id, "run-a") == 0)
			again.runs[i].account.memory_mb = 5;
	save(w, &again);
	expect_rows(w, "SELECT run_id, changed_seq FROM run ORDER BY run_id", "run-a|2\nrun-b|1");
}

static void deletes_a_run_that_is_gone(void **state)
{
	struct world *w = *state;
	SANDBOX saved, again, loaded;
	load(w, "sb1", &saved);
	fill_sandbox(&saved);
	save(w, &saved);
	load(w, "sb1", &again);
	for (size_t i = 0; i < again.n_runs; i++)
		again.runs[i].gone = strcmp(again.runs[i].id, "run-b") == 0;
	save(w, &again);
	load(w, "sb1", &loaded);
	assert_int_equal(loaded.n_runs, 1);
	assert_string_equal(loaded.runs[0].id, "run-a");
	/* And its money is out of the sums again. */
	expect_rows(w,
		    "SELECT sum(runs_ended), (SELECT sum(runs) FROM template_total) FROM cost_hour",
		    "1|1");
}

static void finds_at_most_so_many_sandboxes_that_are_due(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 4; i++) {
		char id[16];
		SANDBOX x;
		(void)snprintf(id, sizeof(id), "sb%d", i);
		load(w, id, &x);
		fill_sandbox(&x);
		for (size_t k = 0; k < 2; k++) {
			x.runs[k].account.end_kind = LEDGER_OPEN;
			x.runs[k].account.ended_ms = LEDGER_ABSENT;
			x.runs[k].account.due_ms = 1000 * i;
		}
		save(w, &x);
	}
	static const struct {
		int64_t now_ms;
		size_t max, n;
	} cases[] = { { 999, 8, 0 }, { 1000, 8, 1 }, { 3999, 8, 3 }, { 9999, 2, 2 } };
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char *ids[8];
		size_t n;
		assert_int_equal(
			storage_due_sandboxes(w->s, cases[i].now_ms, ids, cases[i].max, &n), 0);
		assert_int_equal(n, cases[i].n);
		for (size_t k = 0; k < n; k++) {
			assert_memory_equal(ids[k], "sb", 2);
			assert_true(k == 0 || strcmp(ids[k], ids[k - 1]) != 0);
		}
		for (size_t k = 0; k < n; k++)
			free(ids[k]);
	}
}

/* Events, from the ledger's side ---------------------------------------------- */

static void tells_the_id_of_an_event_for_ties(void **state)
{
	struct world *w = *state;
	SANDBOX x;
	put_story(w, "01-v2-created");
	tell(w, (struct told) { .id = "Not-A-Uuid",
				.type = "sandbox.created",
				.time = "2026-11-20T09:00:00Z",
				.sandbox = "sb1" });
	load(w, "sb1", &x);
	assert_string_equal(x.id_of(x.id_ctx, 1), "f6a730b7-b12e-4eed-9ad9-b9a25e78454d");
	assert_string_equal(x.id_of(x.id_ctx, 2), "Not-A-Uuid");
	assert_null(x.id_of(x.id_ctx, 3));
}

/* No result can tell that the look-up failed: then the transaction must not be kept. */
static void keeps_nothing_that_rests_on_a_failed_look_up(void **state)
{
	struct world *w = *state;
	SANDBOX x;
	char id[16];
	for (int i = 0; i < 200; i++) {
		(void)snprintf(id, sizeof(id), "ev-%d", i);
		tell(w, (struct told) { .id = id, .type = "x", .time = "2026-11-20T09:00:00Z" });
	}
	reopen(w);
	load(w, "sb1", &x);
	x.first_event_ms = T0_MS;
	/* Another connection's write takes the pages in memory away. */
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE position SET one = 1", NULL, NULL, NULL),
			 SQLITE_OK);
	(void)sqlite3_close(db);
	assert_int_equal(storage_begin(w->s, false), 0);
	disk_break(1, EIO, true);
	assert_null(x.id_of(x.id_ctx, 1));
	disk_mend();
	int r = storage_save_sandbox(w->s, &x);
	if (r == 0)
		r = storage_commit(w->s);
	assert_true(r < 0);
	storage_rollback(w->s);
	expect_rows(w, "SELECT count(*) FROM sandboxes", "0");
	save(w, &x); /* and the next one is kept */
	expect_rows(w, "SELECT count(*) FROM sandboxes", "1");
}

static void ties_an_event_to_what_it_is_about(void **state)
{
	struct world *w = *state;
	SANDBOX x;
	struct storage_link link = {
		.seq = 1, .time_s = T0_MS / 1000, .time_unix_ms = T0_MS, .kind = EVENT_CREATED
	};
	put_story(w, "01-v2-created");
	load(w, "sb1", &x);
	fill_sandbox(&x);
	save(w, &x);
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEMPLATE, SPAN_LITERAL("t"), &link.template_key),
			 0);
	assert_int_equal(storage_key(w->s, STORAGE_BUILD, SPAN_LITERAL("b"), &link.build_key), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEAM, SPAN_LITERAL("m"), &link.team_key), 0);
	link.sandbox_key = x.key;
	link.run_key = x.runs[1].key;
	assert_int_equal(storage_put_link(w->s, &link), 0);
	assert_int_equal(storage_set_folded(w->s, 1), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(w, "SELECT seq, sandbox_id, run_id, template_id, build_id, team_id FROM events",
		    "1|sb1|run-b|t|b|m");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(loads_a_sandbox_as_it_was_saved),
		TEST(refuses_rows_that_say_what_cannot_be),
		TEST(loads_what_is_absent_as_absent),
		TEST(gives_a_new_sandbox_a_key_of_its_own),
		TEST(keeps_a_sandbox_as_it_was_on_a_rollback),
		TEST(writes_only_the_runs_that_changed),
		TEST(deletes_a_run_that_is_gone),
		TEST(finds_at_most_so_many_sandboxes_that_are_due),
		TEST(tells_the_id_of_an_event_for_ties),
		TEST(keeps_nothing_that_rests_on_a_failed_look_up),
		TEST(ties_an_event_to_what_it_is_about),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
