/* Saving a sandbox: its row, new loose events, the runs that changed. Columns in the order of their
 * statement. */
#include "storage_sqlite_facts.h"
#include "storage_sqlite_fields.h"
#include "storage_sqlite_known.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_traits.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

static void give_report(struct fields *f, const struct event_report *report)
{
	storage_sqlite_give_absent(f, report->present ? report->started_unix_ms : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->duration_ms : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->vcpu_count : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->memory_mb : INT64_MIN);
}

/* Milliseconds after where the row's time begins. */
static void give_after(struct fields *f, int64_t ms, int64_t base_ms)
{
	storage_sqlite_give_absent(f, ms == LEDGER_ABSENT ? INT64_MIN : ms - base_ms);
}

static struct span span_of(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

int64_t storage_run_key(struct storage *s, struct ledger_run *run)
{
	if (!run->key)
		run->key = s->next_run_key++;
	return run->key;
}

static int64_t run_time_s(const struct ledger_account *a)
{
	if (!a->exists)
		return INT64_MIN;
	return (a->started_ms != LEDGER_ABSENT ? a->started_ms : a->ended_ms) / 1000;
}

static int run_traits(struct storage *s, const struct ledger_account *a, int64_t *ret_key)
{
	const int64_t values[] = {
		a->dims.source_key,
		a->dims.team_key,
		a->kill_reason_key,
		a->vcpu_count,
		a->memory_mb,
		a->cost_source,
		a->rates.vcpu_second_femto,
		a->rates.gib_second_femto,
	};
	return storage_sqlite_traits_key(s, STORAGE_RUN_TRAITS, values, ARRAY_SIZE(values),
					 ret_key);
}

static int write_run(struct storage *s, const struct ledger_sandbox *sandbox,
		     struct ledger_run *run, const struct ledger_account *a, int64_t traits_key)
{
	uint8_t facts[STORAGE_FACTS_MAX];
	size_t len = storage_sqlite_facts_put_run(run, a, facts);
	struct fields f = storage_sqlite_fields(s, run->is_stored ? SQL_RUN_CHANGE : SQL_RUN_PUT);
	if (!run->is_stored) {
		storage_sqlite_give_absent(&f, run_time_s(a));
		storage_sqlite_give_key(&f, a->dims.template_key);
	}
	int64_t base_ms = a->exists ? run_time_s(a) * 1000 : 0;
	give_after(&f, a->started_ms, base_ms);
	give_after(&f, a->ended_ms, base_ms);
	storage_sqlite_give(&f, a->end_kind);
	storage_sqlite_give(&f, traits_key);
	storage_sqlite_give_absent(&f, a->cost_nanousd);
	storage_sqlite_give_absent(&f, a->due_ms);
	storage_sqlite_give(&f, storage_sqlite_change_seq(s));
	storage_sqlite_give_blob(&f, (struct span) { (const char *)facts, len });
	storage_sqlite_give(&f, storage_run_key(s, run));
	if (!run->is_stored) {
		storage_sqlite_give(&f, sandbox->key);
		storage_sqlite_give_text(&f, span_of(run->id));
	}
	return storage_sqlite_give_end(&f);
}

/* Indexes are written only if what they order has changed: hardly ever. */
static int move_run(struct storage *s, const struct ledger_run *run,
		    const struct ledger_account *is, const struct ledger_account *was)
{
	if (!run->is_stored ||
	    (run_time_s(is) == run_time_s(was) && is->dims.template_key == was->dims.template_key))
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_RUN_MOVE);
	int r = storage_sqlite_bind(s, statement, "azi", run_time_s(is), is->dims.template_key,
				    run->key);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

static int save_run(struct storage *s, const struct ledger_sandbox *sandbox, struct ledger_run *run)
{
	static const struct ledger_account none = {
		.started_ms = LEDGER_ABSENT,
		.ended_ms = LEDGER_ABSENT,
		.vcpu_count = LEDGER_ABSENT,
		.memory_mb = LEDGER_ABSENT,
		.rates = { LEDGER_ABSENT, LEDGER_ABSENT },
		.cost_nanousd = LEDGER_ABSENT,
		.due_ms = LEDGER_ABSENT,
	};
	const struct ledger_account *a = run->account.exists ? &run->account : &none;
	int64_t traits_key;
	int r = run_traits(s, a, &traits_key);
	if (r == 0)
		r = move_run(s, run, a, run->stored.exists ? &run->stored : &none);
	return r < 0 ? r : write_run(s, sandbox, run, a, traits_key);
}

static bool accounts_equal(const struct ledger_account *a, const struct ledger_account *b)
{
	if (!a->exists && !b->exists)
		return true;
	return a->exists == b->exists && a->started_ms == b->started_ms &&
	       a->ended_ms == b->ended_ms && a->end_kind == b->end_kind &&
	       a->kill_reason_key == b->kill_reason_key &&
	       a->dims.source_key == b->dims.source_key &&
	       a->dims.template_key == b->dims.template_key &&
	       a->dims.team_key == b->dims.team_key && a->vcpu_count == b->vcpu_count &&
	       a->memory_mb == b->memory_mb && a->runtime_ms == b->runtime_ms &&
	       a->cost_nanousd == b->cost_nanousd && a->cost_source == b->cost_source &&
	       a->rates.vcpu_second_femto == b->rates.vcpu_second_femto &&
	       a->rates.gib_second_femto == b->rates.gib_second_femto && a->due_ms == b->due_ms;
}

static int delete_run(struct storage *s, const struct ledger_run *run)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_RUN_DELETE);
	int r = storage_sqlite_bind(s, statement, "i", run->key);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

static int book_run(struct storage *s, const struct ledger_run *run)
{
	bool same = run->is_stored && !run->gone && accounts_equal(&run->account, &run->stored);
	if (same)
		return 0;
	int r = run->is_stored ? storage_sqlite_book_run(s, &run->stored, -1) : 0;
	if (r < 0 || run->gone)
		return r;
	return storage_sqlite_book_run(s, &run->account, 1);
}

static int save_runs(struct storage *s, struct ledger_sandbox *sandbox)
{
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		struct ledger_run *run = &sandbox->runs[i];
		int r = book_run(s, run);
		if (r < 0)
			return r;
		if (run->gone)
			r = run->is_stored ? delete_run(s, run) : 0;
		else if (!run->is_stored || run->facts_changed ||
			 !accounts_equal(&run->account, &run->stored))
			r = save_run(s, sandbox, run);
		if (r < 0)
			return r;
	}
	return 0;
}

static int save_loose(struct storage *s, const struct ledger_sandbox *sandbox)
{
	for (size_t i = sandbox->n_loose_stored; i < sandbox->n_loose; i++) {
		const struct ledger_fact *fact = &sandbox->loose[i];
		struct fields f = storage_sqlite_fields(s, SQL_LOOSE_PUT);
		storage_sqlite_give(&f, sandbox->key);
		storage_sqlite_give(&f, fact->mark.seq);
		storage_sqlite_give(&f, fact->mark.time_ns);
		storage_sqlite_give(&f, fact->kind);
		storage_sqlite_give_dims(&f, &fact->dims);
		storage_sqlite_give_key(&f, fact->kill_reason_key);
		storage_sqlite_give_absent(&f, fact->timeout_ms);
		give_report(&f, &fact->report);
		int r = storage_sqlite_give_end(&f);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Takes the sandbox out of the sums as it was, and puts it in as it is. */
static int book_sandbox(struct storage *s, const struct ledger_sandbox *sandbox)
{
	struct rollup_startup was = { sandbox->booked.startup_ms, sandbox->booked.startup_hour_s,
				      sandbox->booked.startup_template_key };
	struct rollup_startup is =
		storage_sqlite_startup_of(sandbox, sandbox->totals.dims.template_key);
	int r = 0;
	if (sandbox->is_stored)
		r = storage_sqlite_book_sandbox(s, sandbox->booked.template_key,
						sandbox->booked.state, -1);
	if (r == 0)
		r = storage_sqlite_book_sandbox(s, sandbox->totals.dims.template_key,
						sandbox->totals.state, 1);
	if (r == 0)
		r = storage_sqlite_book_startup(s, &was, -1);
	return r < 0 ? r : storage_sqlite_book_startup(s, &is, 1);
}

static struct storage_facts_shown shown_of(const struct ledger_sandbox *sandbox)
{
	const struct ledger_totals *t = &sandbox->totals;
	int64_t ms = t->created_ms != LEDGER_ABSENT ? t->created_ms : sandbox->first_event_ms;
	return (struct storage_facts_shown) {
		.time_ms = ms - ms % 1000,
		.last_ms = sandbox->last.time_ns / CLOCK_NS_PER_MS,
		.dims = t->dims,
		.kill_reason_key = t->kill_reason_key,
	};
}

static void give_totals(struct fields *f, const struct ledger_totals *t,
			const struct storage_facts_shown *shown)
{
	give_after(f, t->created_ms, shown->time_ms);
	give_after(f, shown->last_ms, shown->time_ms);
	give_after(f, t->ended_ms, shown->time_ms);
	give_after(f, t->expires_ms, shown->time_ms);
	storage_sqlite_give(f, t->state);
	storage_sqlite_give_key(f, t->dims.source_key);
	storage_sqlite_give_key(f, t->dims.team_key);
	storage_sqlite_give_key(f, t->kill_reason_key);
}

static void give_sums(struct fields *f, const struct ledger_sandbox *sandbox)
{
	storage_sqlite_give_absent(f, sandbox->startup_mark.seq ? sandbox->startup_ms : INT64_MIN);
	storage_sqlite_give(f, sandbox->totals.runs);
	storage_sqlite_give(f, sandbox->totals.runtime_ms);
	storage_sqlite_give(f, sandbox->totals.cost_nanousd);
	storage_sqlite_give(f, sandbox->totals.unknown_cost);
	storage_sqlite_give(f, sandbox->executions);
	storage_sqlite_give(f, sandbox->failed_executions);
	storage_sqlite_give(f, sandbox->loose_executions);
	storage_sqlite_give(f, (int64_t)sandbox->n_loose);
}

static int move_sandbox(struct storage *s, const struct ledger_sandbox *sandbox,
			const struct storage_facts_shown *shown)
{
	if (!sandbox->is_stored || (shown->time_ms / 1000 == sandbox->booked.time_s &&
				    shown->dims.template_key == sandbox->booked.template_key))
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SANDBOX_MOVE);
	int r = storage_sqlite_bind(s, statement, "izi", shown->time_ms / 1000,
				    shown->dims.template_key, sandbox->key);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

static int save_sandbox_row(struct storage *s, const struct ledger_sandbox *sandbox)
{
	uint8_t facts[STORAGE_FACTS_MAX];
	struct storage_facts_shown shown = shown_of(sandbox);
	size_t len = storage_sqlite_facts_put_sandbox(sandbox, &shown, facts);
	int r = move_sandbox(s, sandbox, &shown);
	if (r < 0)
		return r;
	struct fields f =
		storage_sqlite_fields(s, sandbox->is_stored ? SQL_SANDBOX_CHANGE : SQL_SANDBOX_PUT);
	if (!sandbox->is_stored) {
		storage_sqlite_give(&f, shown.time_ms / 1000);
		storage_sqlite_give_key(&f, shown.dims.template_key);
	}
	give_totals(&f, &sandbox->totals, &shown);
	give_sums(&f, sandbox);
	storage_sqlite_give(&f, sandbox->sealed);
	storage_sqlite_give(&f, storage_sqlite_change_seq(s));
	storage_sqlite_give_key(&f, sandbox->metadata_mark.seq);
	storage_sqlite_give_blob(&f, (struct span) { (const char *)facts, len });
	storage_sqlite_give_text(&f, span_of(sandbox->metadata));
	storage_sqlite_give(&f, sandbox->key);
	if (!sandbox->is_stored) {
		storage_sqlite_give_text(&f, span_of(sandbox->id));
		storage_sqlite_known_add(s, span_of(sandbox->id), sandbox->key);
	}
	return storage_sqlite_give_end(&f);
}

/* One execution that names no run, and the run that covers it. */
struct placed {
	int64_t seq, run_key;
};

static int move_execution(struct storage *s, const struct placed *placed)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_MOVE);
	int r = storage_sqlite_bind(s, statement, "zii", placed->run_key,
				    storage_sqlite_change_seq(s), placed->seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Runs have moved: gives the executions that name none to the runs that cover them now. Reads
 * first, then writes: an UPDATE under a running SELECT of the same rows would be undefined. */
static int place_executions(struct storage *s, const struct ledger_sandbox *sandbox)
{
	if (!sandbox->runs_moved || sandbox->loose_executions == 0)
		return 0;
	CLEANUP_FREE struct placed *moves =
		calloc((size_t)sandbox->loose_executions, sizeof(*moves));
	if (!moves)
		return -ENOMEM;
	size_t n = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_LOOSE);
	int r = storage_sqlite_bind(s, statement, "i", sandbox->key);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		const struct ledger_run *run =
			ledger_run_at(sandbox, sqlite3_column_int64(statement, 1));
		struct placed placed = { sqlite3_column_int64(statement, 0), run ? run->key : 0 };
		if (placed.run_key != sqlite3_column_int64(statement, 2) &&
		    n < (size_t)sandbox->loose_executions)
			moves[n++] = placed;
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = move_execution(s, &moves[i]);
	return r;
}

int storage_save_sandbox(struct storage *s, struct ledger_sandbox *sandbox)
{
	int r = save_sandbox_row(s, sandbox);
	if (r == 0)
		r = book_sandbox(s, sandbox);
	if (r == 0)
		r = save_loose(s, sandbox);
	if (r == 0)
		r = save_runs(s, sandbox);
	return r < 0 ? r : place_executions(s, sandbox);
}
