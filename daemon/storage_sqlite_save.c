/* Saving a sandbox: its row, new loose events, the runs that changed. Columns in the order of their
 * statement. */
#include "storage_sqlite_fields.h"
#include "storage_sqlite_rollup.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

static void give_mark(struct fields *f, struct ledger_mark mark)
{
	storage_sqlite_give_absent(f, mark.seq ? mark.time_ns : INT64_MIN);
	storage_sqlite_give_key(f, mark.seq);
}

static void give_report(struct fields *f, const struct event_report *report)
{
	storage_sqlite_give_absent(f, report->present ? report->started_unix_ms : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->duration_ms : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->vcpu_count : INT64_MIN);
	storage_sqlite_give_absent(f, report->present ? report->memory_mb : INT64_MIN);
}

static void give_account(struct fields *f, const struct ledger_account *a)
{
	int64_t shown_ms = a->started_ms != LEDGER_ABSENT ? a->started_ms : a->ended_ms;
	storage_sqlite_give_absent(f, a->exists ? shown_ms / 1000 : INT64_MIN);
	storage_sqlite_give_absent(f, a->exists ? a->started_ms : INT64_MIN);
	storage_sqlite_give_absent(f, a->exists ? a->ended_ms : INT64_MIN);
	storage_sqlite_give(f, a->end_kind);
	storage_sqlite_give_key(f, a->kill_reason_key);
	storage_sqlite_give_dims(f, &a->dims);
	storage_sqlite_give_absent(f, a->vcpu_count);
	storage_sqlite_give_absent(f, a->memory_mb);
	storage_sqlite_give_absent(f, a->runtime_ms);
	storage_sqlite_give_absent(f, a->cost_nanousd);
	storage_sqlite_give(f, a->cost_source);
	storage_sqlite_give_absent(f, a->exists ? a->rates.vcpu_second_femto : INT64_MIN);
	storage_sqlite_give_absent(f, a->exists ? a->rates.gib_second_femto : INT64_MIN);
	storage_sqlite_give_absent(f, a->due_ms);
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

static int save_run(struct storage *s, const struct ledger_sandbox *sandbox, struct ledger_run *run)
{
	struct fields f = storage_sqlite_fields(s, SQL_RUN_PUT);
	storage_sqlite_give(&f, storage_run_key(s, run));
	storage_sqlite_give(&f, sandbox->key);
	storage_sqlite_give_text(&f, span_of(run->id));
	storage_sqlite_give(&f, run->named);
	give_mark(&f, run->start.mark);
	storage_sqlite_give(&f, run->start.kind);
	storage_sqlite_give_dims(&f, &run->start.dims);
	give_mark(&f, run->end.mark);
	storage_sqlite_give(&f, run->end.kind);
	storage_sqlite_give_dims(&f, &run->end.dims);
	storage_sqlite_give_key(&f, run->end.kill_reason_key);
	give_report(&f, &run->end.report);
	give_mark(&f, run->timeout.mark);
	storage_sqlite_give_absent(&f, run->timeout.mark.seq ? run->timeout.timeout_ms : INT64_MIN);
	give_account(&f, &run->account);
	storage_sqlite_give(&f, storage_sqlite_change_seq(s));
	return storage_sqlite_give_end(&f);
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

static void give_totals(struct fields *f, const struct ledger_sandbox *sandbox)
{
	const struct ledger_totals *t = &sandbox->totals;
	storage_sqlite_give(
		f,
		(t->created_ms != LEDGER_ABSENT ? t->created_ms : sandbox->first_event_ms) / 1000);
	storage_sqlite_give(f, t->state);
	storage_sqlite_give_absent(f, t->created_ms);
	storage_sqlite_give_absent(f, t->ended_ms);
	storage_sqlite_give_absent(f, t->expires_ms);
	storage_sqlite_give_key(f, t->kill_reason_key);
	storage_sqlite_give_dims(f, &t->dims);
	storage_sqlite_give(f, t->runs);
	storage_sqlite_give(f, t->runtime_ms);
	storage_sqlite_give(f, t->cost_nanousd);
	storage_sqlite_give(f, t->unknown_cost);
}

/* What is to be booked of the start-up time: under the hour of the event that reported it. */
static struct rollup_startup startup_of(const struct ledger_sandbox *sandbox)
{
	int64_t time_s = sandbox->startup_mark.time_ns / CLOCK_NS_PER_S;
	struct rollup_startup x = { LEDGER_ABSENT, 0, 0 };
	if (sandbox->startup_mark.seq)
		x = (struct rollup_startup) { sandbox->startup_ms, time_s - time_s % 3600,
					      sandbox->totals.dims.template_key };
	return x;
}

/* Takes the sandbox out of the sums as it was, and puts it in as it is. */
static int book_sandbox(struct storage *s, const struct ledger_sandbox *sandbox)
{
	struct rollup_startup was = { sandbox->booked.startup_ms, sandbox->booked.startup_hour_s,
				      sandbox->booked.startup_template_key };
	struct rollup_startup is = startup_of(sandbox);
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

static int save_sandbox_row(struct storage *s, const struct ledger_sandbox *sandbox)
{
	struct fields f = storage_sqlite_fields(s, SQL_SANDBOX_PUT);
	storage_sqlite_give(&f, sandbox->key);
	storage_sqlite_give_text(&f, span_of(sandbox->id));
	storage_sqlite_give(&f, sandbox->names_run);
	storage_sqlite_give(&f, sandbox->first_event_ms);
	storage_sqlite_give(&f, sandbox->last.time_ns);
	storage_sqlite_give(&f, sandbox->last.seq);
	storage_sqlite_give_key(&f, sandbox->last_source_key);
	give_mark(&f, sandbox->template_mark);
	storage_sqlite_give_key(&f, sandbox->template_key);
	give_mark(&f, sandbox->team_mark);
	storage_sqlite_give_key(&f, sandbox->team_key);
	give_mark(&f, sandbox->metadata_mark);
	storage_sqlite_give_text(&f, span_of(sandbox->metadata));
	give_mark(&f, sandbox->startup_mark);
	storage_sqlite_give_absent(&f, sandbox->startup_ms);
	give_mark(&f, sandbox->killed.mark);
	storage_sqlite_give_key(&f, sandbox->killed.dims.source_key);
	storage_sqlite_give_key(&f, sandbox->killed.kill_reason_key);
	storage_sqlite_give(&f, (int64_t)sandbox->n_loose);
	storage_sqlite_give(&f, sandbox->executions);
	storage_sqlite_give(&f, sandbox->failed_executions);
	storage_sqlite_give(&f, sandbox->loose_executions);
	give_totals(&f, sandbox);
	struct rollup_startup startup = startup_of(sandbox);
	storage_sqlite_give_absent(&f, startup.startup_ms);
	storage_sqlite_give(&f, startup.hour_s);
	storage_sqlite_give(&f, startup.template_key);
	storage_sqlite_give(&f, sandbox->sealed);
	storage_sqlite_give(&f, storage_sqlite_change_seq(s));
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
