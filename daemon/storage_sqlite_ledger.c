/* The ledger's rows: loads a sandbox with its facts, saves what changed, and knows how far the fold
 * has come. */
#include "storage_sqlite_internal.h"

#include <errno.h>
#include <string.h>

/* Position
 * ------------------------------------------------------------------------------------------------------
 */

int storage_sqlite_load_position(struct storage *s)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_GET);
	int r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r < 0 ? r : -EUCLEAN;
	s->position = (struct storage_position) {
		.stored_seq = sqlite3_column_int64(statement, 0),
		.folded_seq = sqlite3_column_int64(statement, 1),
		.trying_seq = sqlite3_column_int64(statement, 2),
		.trying_count = sqlite3_column_int64(statement, 3),
		.skipped = sqlite3_column_int64(statement, 4),
		.fold_version = sqlite3_column_int64(statement, 5),
		.horizon_unix_s = sqlite3_column_int64(statement, 6),
		.newest_unix_s = sqlite3_column_int64(statement, 7),
	};
	s->last_change_seq = sqlite3_column_int64(statement, 8);
	(void)sqlite3_reset(statement);
	s->next_seq = s->position.stored_seq + 1;
	s->newest_s = s->position.newest_unix_s;
	return 0;
}

int storage_position(struct storage *s, struct storage_position *ret)
{
	*ret = s->position;
	ret->stored_seq = s->next_seq - 1;
	ret->newest_unix_s = s->newest_s;
	return 0;
}

/* One number for all rows that a transaction changes, larger than any before. */
static int64_t change_seq(struct storage *s)
{
	if (!s->change_seq)
		s->change_seq = s->last_change_seq + 1;
	return s->change_seq;
}

int storage_set_folded(struct storage *s, int64_t seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_FOLDED);
	int r = storage_sqlite_bind(s, statement, "ii", seq, s->change_seq);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r < 0)
		return r;
	s->position.folded_seq = seq;
	s->position.trying_seq = s->position.trying_count = 0;
	s->last_change_seq = base_max_i64(s->last_change_seq, s->change_seq);
	return 0;
}

int storage_set_trying(struct storage *s, int64_t seq, int64_t count)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_TRYING);
	int r = storage_sqlite_bind(s, statement, "ii", seq, count);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0) {
		s->position.trying_seq = seq;
		s->position.trying_count = count;
	}
	return r;
}

int storage_set_horizon(struct storage *s, int64_t horizon_unix_s)
{
	if (horizon_unix_s <= s->position.horizon_unix_s)
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_HORIZON);
	int r = storage_sqlite_bind(s, statement, "i", horizon_unix_s);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		s->position.horizon_unix_s = horizon_unix_s;
	return r;
}

int storage_skip(struct storage *s, int64_t seq, const char *why)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SKIP);
	int r = storage_sqlite_bind(s, statement, "ic", seq, why);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		s->position.skipped++;
	return r;
}

int storage_pending(struct storage *s, int64_t after_seq, size_t limit, storage_event_fn fn,
		    void *ctx)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_PENDING);
	int r = storage_sqlite_bind(s, statement, "ii", after_seq, (int64_t)limit);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		struct storage_event event = {
			.seq = sqlite3_column_int64(statement, 0),
			.source_key = sqlite3_column_int64(statement, 1),
			.received_unix_ms = sqlite3_column_int64(statement, 3),
		};
		event.body.s = (const char *)sqlite3_column_blob(statement, 2);
		event.body.len = (size_t)sqlite3_column_bytes(statement, 2);
		r = fn(ctx, &event);
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r;
}

int storage_due_sandboxes(struct storage *s, int64_t now_ms, char **ret_ids, size_t n,
			  size_t *ret_n)
{
	*ret_n = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_DUE);
	int r = storage_sqlite_bind(s, statement, "ii", now_ms, (int64_t)n);
	while (r == 0 && *ret_n < n && (r = storage_sqlite_step(s, statement)) == 1) {
		char *id = strdup((const char *)sqlite3_column_text(statement, 0));
		r = id ? 0 : -ENOMEM;
		if (id)
			ret_ids[(*ret_n)++] = id;
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

int storage_put_link(struct storage *s, const struct storage_link *link)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_LINK);
	int r = storage_sqlite_bind(s, statement, "izzzzz", link->seq, link->sandbox_key,
				    link->run_key, link->template_key, link->build_key,
				    link->team_key);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Loading
 * -------------------------------------------------------------------------------------------------------
 */

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
	a->rates.vcpu_second_femto = take(c);
	a->rates.gib_second_femto = take(c);
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
			if (!runs)
				return -ENOMEM;
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
		if (sandbox->n_loose == sandbox->loose_size)
			return -EUCLEAN;
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
	return metadata && !sandbox->metadata ? -ENOMEM : 0;
}

static const char *id_of(void *ctx, int64_t seq)
{
	struct storage *s = ctx;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EVENT_ID);
	int r = storage_sqlite_bind(s, statement, "i", seq);
	if (r < 0 || storage_sqlite_step(s, statement) != 1)
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

/* Saving
 * --------------------------------------------------------------------------------------------------------
 */

int64_t storage_run_key(struct storage *s, struct ledger_run *run)
{
	if (!run->key)
		run->key = s->next_run_key++;
	return run->key;
}

/* Binds parameters from left to right: the twin of struct columns. The first failure sticks. */
struct fields {
	struct storage *s;
	sqlite3_stmt *statement;
	int next, code;
};

static struct fields fields_of(struct storage *s, enum storage_sql sql)
{
	struct fields f = { s, storage_sqlite_statement(s, sql), 1, SQLITE_OK };
	if (!f.statement)
		f.code = SQLITE_ERROR;
	return f;
}

static void give(struct fields *f, int64_t value)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_int64(f->statement, f->next++, value);
}

static void give_null(struct fields *f)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_null(f->statement, f->next++);
}

static void give_absent(struct fields *f, int64_t value)
{
	if (value == INT64_MIN)
		give_null(f);
	else
		give(f, value);
}

static void give_key(struct fields *f, int64_t key)
{
	if (key == 0)
		give_null(f);
	else
		give(f, key);
}

static void give_text(struct fields *f, struct span text)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_text(f->statement, f->next++, text.s, (int)text.len,
					    SQLITE_STATIC);
}

static void give_id(struct fields *f, struct span id)
{
	if (f->code == SQLITE_OK)
		f->code = storage_sqlite_bind_id(f->statement, f->next++, id);
}

static void give_mark(struct fields *f, struct ledger_mark mark)
{
	give_absent(f, mark.seq ? mark.time_ns : INT64_MIN);
	give_key(f, mark.seq);
}

static void give_dims(struct fields *f, const struct ledger_dims *dims)
{
	give_key(f, dims->source_key);
	give_key(f, dims->template_key);
	give_key(f, dims->team_key);
}

static void give_report(struct fields *f, const struct event_report *report)
{
	give_absent(f, report->present ? report->started_unix_ms : INT64_MIN);
	give_absent(f, report->present ? report->duration_ms : INT64_MIN);
	give_absent(f, report->present ? report->vcpu_count : INT64_MIN);
	give_absent(f, report->present ? report->memory_mb : INT64_MIN);
}

static void give_account(struct fields *f, const struct ledger_account *a)
{
	give_absent(f, a->exists ? a->started_ms / 1000 : INT64_MIN);
	give_absent(f, a->exists ? a->started_ms : INT64_MIN);
	give_absent(f, a->exists ? a->ended_ms : INT64_MIN);
	give(f, a->end_kind);
	give_key(f, a->kill_reason_key);
	give_dims(f, &a->dims);
	give_absent(f, a->vcpu_count);
	give_absent(f, a->memory_mb);
	give_absent(f, a->runtime_ms);
	give_absent(f, a->cost_nanousd);
	give(f, a->cost_source);
	give_absent(f, a->exists ? a->rates.vcpu_second_femto : INT64_MIN);
	give_absent(f, a->exists ? a->rates.gib_second_femto : INT64_MIN);
	give_absent(f, a->due_ms);
}

static int finish_fields(struct fields *f)
{
	if (f->code != SQLITE_OK)
		return storage_sqlite_fail(f->s, f->code, "cannot bind");
	assert(f->next - 1 == sqlite3_bind_parameter_count(f->statement));
	return storage_sqlite_run(f->s, f->statement);
}

static struct span span_of(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

static int save_run(struct storage *s, const struct ledger_sandbox *sandbox, struct ledger_run *run)
{
	struct fields f = fields_of(s, SQL_RUN_PUT);
	give(&f, storage_run_key(s, run));
	give(&f, sandbox->key);
	give_text(&f, span_of(run->id));
	give(&f, run->named);
	give_mark(&f, run->start.mark);
	give(&f, run->start.kind);
	give_dims(&f, &run->start.dims);
	give_mark(&f, run->end.mark);
	give(&f, run->end.kind);
	give_dims(&f, &run->end.dims);
	give_key(&f, run->end.kill_reason_key);
	give_report(&f, &run->end.report);
	give_mark(&f, run->timeout.mark);
	give_absent(&f, run->timeout.mark.seq ? run->timeout.timeout_ms : INT64_MIN);
	give_account(&f, &run->account);
	give(&f, change_seq(s));
	return finish_fields(&f);
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

static int save_runs(struct storage *s, struct ledger_sandbox *sandbox)
{
	for (size_t i = 0; i < sandbox->n_runs; i++) {
		struct ledger_run *run = &sandbox->runs[i];
		int r = 0;
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
		struct fields f = fields_of(s, SQL_LOOSE_PUT);
		give(&f, sandbox->key);
		give(&f, fact->mark.seq);
		give(&f, fact->mark.time_ns);
		give(&f, fact->kind);
		give_dims(&f, &fact->dims);
		give_key(&f, fact->kill_reason_key);
		give_absent(&f, fact->timeout_ms);
		give_report(&f, &fact->report);
		int r = finish_fields(&f);
		if (r < 0)
			return r;
	}
	return 0;
}

static void give_totals(struct fields *f, const struct ledger_sandbox *sandbox)
{
	const struct ledger_totals *t = &sandbox->totals;
	give(f, (t->created_ms != LEDGER_ABSENT ? t->created_ms : sandbox->first_event_ms) / 1000);
	give(f, t->state);
	give_absent(f, t->created_ms);
	give_absent(f, t->ended_ms);
	give_absent(f, t->expires_ms);
	give_key(f, t->kill_reason_key);
	give_dims(f, &t->dims);
	give(f, t->runs);
	give(f, t->runtime_ms);
	give(f, t->cost_nanousd);
	give(f, t->unknown_cost);
}

static int save_sandbox_row(struct storage *s, const struct ledger_sandbox *sandbox)
{
	struct fields f = fields_of(s, SQL_SANDBOX_PUT);
	give(&f, sandbox->key);
	give_text(&f, span_of(sandbox->id));
	give(&f, sandbox->names_run);
	give(&f, sandbox->first_event_ms);
	give(&f, sandbox->last.time_ns);
	give(&f, sandbox->last.seq);
	give_key(&f, sandbox->last_source_key);
	give_mark(&f, sandbox->template_mark);
	give_key(&f, sandbox->template_key);
	give_mark(&f, sandbox->team_mark);
	give_key(&f, sandbox->team_key);
	give_mark(&f, sandbox->metadata_mark);
	give_text(&f, span_of(sandbox->metadata));
	give_mark(&f, sandbox->startup_mark);
	give_absent(&f, sandbox->startup_ms);
	give_mark(&f, sandbox->killed.mark);
	give_key(&f, sandbox->killed.dims.source_key);
	give_key(&f, sandbox->killed.kill_reason_key);
	give(&f, (int64_t)sandbox->n_loose);
	give(&f, sandbox->executions);
	give(&f, sandbox->failed_executions);
	give(&f, sandbox->loose_executions);
	give_totals(&f, sandbox);
	give(&f, change_seq(s));
	return finish_fields(&f);
}

/* One execution that names no run, and the run that covers it. */
struct placed {
	int64_t seq, run_key;
};

static int move_execution(struct storage *s, const struct placed *placed)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_MOVE);
	int r = storage_sqlite_bind(s, statement, "zii", placed->run_key, change_seq(s),
				    placed->seq);
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
		r = save_loose(s, sandbox);
	if (r == 0)
		r = save_runs(s, sandbox);
	return r < 0 ? r : place_executions(s, sandbox);
}

/* Executions
 * ----------------------------------------------------------------------------------------------------
 */

struct known_execution {
	bool exists;
	int64_t seq, event_ns, failed, named_run;
	char event_id[EVENT_ID_MAX + 1];
};

static int find_execution(struct storage *s, int64_t sandbox_key, struct span id,
			  struct known_execution *ret)
{
	*ret = (struct known_execution) { 0 };
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_GET);
	int r = storage_sqlite_bind(s, statement, "id", sandbox_key, id);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	ret->exists = true;
	ret->seq = sqlite3_column_int64(statement, 0);
	ret->event_ns = sqlite3_column_int64(statement, 1);
	storage_sqlite_id(statement, 2, ret->event_id);
	ret->failed = sqlite3_column_int64(statement, 3);
	ret->named_run = sqlite3_column_int64(statement, 4);
	(void)sqlite3_reset(statement);
	return 0;
}

/* Started, else the event's time: what the view calls time, and what decides which run covers it.
 */
static int64_t execution_ms(const struct event *e)
{
	return e->execution.started_unix_ms != EVENT_ABSENT ? e->execution.started_unix_ms
							    : e->time_unix_ns / 1000000;
}

static int insert_execution(struct storage *s, const struct storage_execution *x)
{
	const struct event *e = x->event;
	const struct event_execution *d = &e->execution;
	int64_t kind_key = 0, language_key;
	int r = storage_key(s, STORAGE_WORD, d->language, &language_key);
	if (r == 0 && !span_is(d->kind_name, SPAN_LITERAL("code")))
		r = storage_key(s, STORAGE_WORD, d->kind_name, &kind_key);
	if (r < 0)
		return r;
	const struct ledger_run *covering =
		x->named_run_key ? NULL : ledger_run_at(x->sandbox, execution_ms(e));
	struct fields f = fields_of(s, SQL_EXECUTION_PUT);
	give(&f, x->seq);
	give(&f, x->sandbox->key);
	give_id(&f, d->execution_id);
	give_id(&f, span_of(e->id));
	give(&f, e->time_unix_ns);
	give(&f, execution_ms(e) / 1000);
	give_absent(&f, d->started_unix_ms);
	give_absent(&f, d->finished_unix_ms);
	give(&f, x->named_run_key != 0);
	give_key(&f, covering ? covering->key : x->named_run_key);
	give_dims(&f, &x->dims);
	give_key(&f, kind_key);
	give_key(&f, language_key);
	give(&f, d->status);
	give(&f, d->failed);
	give_absent(&f, d->exit_code);
	give_text(&f, d->error_name);
	give_text(&f, d->error_value);
	give(&f, d->duration_ms);
	give(&f, d->attempt);
	give(&f, d->final);
	give_absent(&f, d->vcpu_count);
	give_absent(&f, d->memory_mb);
	give_absent(&f, x->cost_nanousd);
	give(&f, x->cost_source);
	give(&f, change_seq(s));
	return finish_fields(&f);
}

int storage_put_execution(struct storage *s, const struct storage_execution *x,
			  struct storage_counts *ret)
{
	*ret = (struct storage_counts) { 0 };
	struct known_execution known;
	int r = find_execution(s, x->sandbox->key, x->event->execution.execution_id, &known);
	if (r < 0)
		return r;
	bool later = x->event->time_unix_ns > known.event_ns ||
		     (x->event->time_unix_ns == known.event_ns &&
		      strcmp(x->event->id, known.event_id) > 0);
	if (known.exists && !later)
		return 0;
	if (known.exists) {
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_DELETE);
		r = storage_sqlite_bind(s, statement, "i", known.seq);
		if (r == 0)
			r = storage_sqlite_run(s, statement);
		if (r < 0)
			return r;
	}
	ret->executions = known.exists ? 0 : 1;
	ret->failed = (int)x->event->execution.failed - (known.exists ? (int)known.failed : 0);
	ret->loose = (x->named_run_key == 0) - (known.exists && !known.named_run);
	return insert_execution(s, x);
}
