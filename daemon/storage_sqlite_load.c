/* Loading a sandbox with its facts, whole. */
#include "storage_sqlite_internal.h"

#include <errno.h>
#include <string.h>

/* Reads columns from left to right, so that each list of columns stands in the same order as its
 * SELECT. */
struct columns {
	sqlite3_stmt *statement;
	int next;
};

static int64_t take(struct columns *c)
{
	return sqlite3_column_int64(c->statement, c->next++); /* NULL: 0 */
}

static int64_t take_absent(struct columns *c)
{
	return storage_sqlite_absent(c->statement, c->next++);
}

static struct ledger_mark take_mark(struct columns *c)
{
	struct ledger_mark mark;
	mark.time_ns = take(c);
	mark.seq = take(c);
	return mark;
}

static struct ledger_dims take_dims(struct columns *c)
{
	struct ledger_dims dims;
	dims.source_key = take(c);
	dims.template_key = take(c);
	dims.team_key = take(c);
	return dims;
}

static struct event_report take_report(struct columns *c)
{
	struct event_report report;
	report.started_unix_ms = take_absent(c);
	report.duration_ms = take_absent(c);
	report.vcpu_count = take_absent(c);
	report.memory_mb = take_absent(c);
	report.present = report.started_unix_ms != EVENT_ABSENT;
	return report;
}

static void take_account(struct columns *c, struct ledger_account *a)
{
	a->exists = storage_sqlite_absent(c->statement, c->next++) != INT64_MIN;
	a->started_ms = take_absent(c);
	a->ended_ms = take_absent(c);
	a->end_kind = (enum ledger_end_kind)take(c);
	a->kill_reason_key = take(c);
	a->dims = take_dims(c);
	a->vcpu_count = take_absent(c);
	a->memory_mb = take_absent(c);
	a->runtime_ms = take_absent(c);
	a->cost_nanousd = take_absent(c);
	a->cost_source = (enum ledger_cost_source)take(c);
	a->rates.vcpu_second_femto = take_absent(c);
	a->rates.gib_second_femto = take_absent(c);
	a->due_ms = take_absent(c);
}

static void take_run(sqlite3_stmt *statement, struct ledger_run *run)
{
	struct columns c = { statement, 0 };
	*run = (struct ledger_run) { .is_stored = true };
	run->key = take(&c);
	storage_sqlite_copy(statement, c.next++, run->id, sizeof(run->id));
	run->named = take(&c) != 0;
	run->start.mark = take_mark(&c);
	run->start.kind = (enum event_kind)take(&c);
	run->start.dims = take_dims(&c);
	run->start.timeout_ms = LEDGER_ABSENT;
	run->end.mark = take_mark(&c);
	run->end.kind = (enum event_kind)take(&c);
	run->end.dims = take_dims(&c);
	run->end.kill_reason_key = take(&c);
	run->end.timeout_ms = LEDGER_ABSENT;
	run->end.report = take_report(&c);
	run->timeout.mark = take_mark(&c);
	run->timeout.kind = EVENT_UPDATED;
	run->timeout.timeout_ms = take_absent(&c);
	take_account(&c, &run->stored);
	run->account = run->stored;
}

static int load_runs(struct storage *s, struct ledger_sandbox *sandbox)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_RUNS_GET);
	int r = storage_sqlite_bind(s, statement, "i", sandbox->key);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		if (sandbox->n_runs == sandbox->runs_size) {
			size_t size = sandbox->runs_size ? 2 * sandbox->runs_size : 4;
			struct ledger_run *runs = reallocarray(sandbox->runs, size, sizeof(*runs));
			if (!runs) {
				(void)sqlite3_reset(statement);
				return -ENOMEM;
			}
			sandbox->runs = runs;
			sandbox->runs_size = size;
		}
		take_run(statement, &sandbox->runs[sandbox->n_runs++]);
	}
	return r;
}

static int load_loose(struct storage *s, struct ledger_sandbox *sandbox, int64_t n_loose)
{
	if (n_loose == 0)
		return 0;
	sandbox->loose = calloc((size_t)n_loose, sizeof(*sandbox->loose));
	if (!sandbox->loose)
		return -ENOMEM;
	sandbox->loose_size = (size_t)n_loose;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_LOOSE_GET);
	int r = storage_sqlite_bind(s, statement, "i", sandbox->key);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		if (sandbox->n_loose == sandbox->loose_size) {
			(void)sqlite3_reset(statement);
			return -EUCLEAN;
		}
		struct columns c = { statement, 0 };
		struct ledger_fact *fact = &sandbox->loose[sandbox->n_loose++];
		fact->mark.seq = take(&c);
		fact->mark.time_ns = take(&c);
		fact->kind = (enum event_kind)take(&c);
		fact->dims = take_dims(&c);
		fact->kill_reason_key = take(&c);
		fact->timeout_ms = take_absent(&c);
		fact->report = take_report(&c);
	}
	sandbox->n_loose_stored = sandbox->n_loose;
	return r;
}

static int take_sandbox(sqlite3_stmt *statement, struct ledger_sandbox *sandbox,
			int64_t *ret_n_loose)
{
	struct columns c = { statement, 0 };
	sandbox->is_stored = true;
	sandbox->key = take(&c);
	sandbox->names_run = take(&c) != 0;
	sandbox->first_event_ms = take(&c);
	sandbox->last = take_mark(&c);
	sandbox->last_source_key = take(&c);
	sandbox->template_mark = take_mark(&c);
	sandbox->template_key = take(&c);
	sandbox->team_mark = take_mark(&c);
	sandbox->team_key = take(&c);
	sandbox->metadata_mark = take_mark(&c);
	const unsigned char *metadata = sqlite3_column_text(statement, c.next++);
	sandbox->metadata = metadata ? strdup((const char *)metadata) : NULL;
	sandbox->startup_mark = take_mark(&c);
	sandbox->startup_ms = take_absent(&c);
	sandbox->killed.mark = take_mark(&c);
	sandbox->killed.kind = EVENT_KILLED;
	sandbox->killed.dims.source_key = take(&c);
	sandbox->killed.kill_reason_key = take(&c);
	sandbox->killed.timeout_ms = LEDGER_ABSENT;
	*ret_n_loose = take(&c);
	sandbox->executions = take(&c);
	sandbox->failed_executions = take(&c);
	sandbox->loose_executions = take(&c);
	sandbox->booked.state = (enum ledger_state)take(&c);
	sandbox->booked.template_key = take(&c);
	sandbox->booked.startup_ms = take_absent(&c);
	sandbox->booked.startup_hour_s = take(&c);
	sandbox->booked.startup_template_key = take(&c);
	sandbox->sealed = take(&c) != 0;
	return metadata && !sandbox->metadata ? -ENOMEM : 0;
}

static const char *id_of(void *ctx, int64_t seq)
{
	struct storage *s = ctx;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EVENT_ID);
	int r = storage_sqlite_bind(s, statement, "i", seq);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r < 0)
		s->failed = r;
	if (r != 1)
		return NULL;
	storage_sqlite_id(statement, 0, s->id_text);
	(void)sqlite3_reset(statement);
	return s->id_text;
}

int storage_load_sandbox(struct storage *s, struct span sandbox_id, struct ledger_sandbox *ret)
{
	ledger_sandbox_init(ret);
	(void)snprintf(ret->id, sizeof(ret->id), "%.*s", (int)sandbox_id.len, sandbox_id.s);
	ret->id_of = id_of;
	ret->id_ctx = s;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SANDBOX_GET);
	int r = storage_sqlite_bind(s, statement, "s", sandbox_id);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r < 0)
		return r;
	if (r == 0) {
		ret->key = s->next_sandbox_key++;
		return 0;
	}
	int64_t n_loose;
	r = take_sandbox(statement, ret, &n_loose);
	(void)sqlite3_reset(statement);
	if (r == 0)
		r = load_runs(s, ret);
	return r < 0 ? r : load_loose(s, ret, n_loose);
}
