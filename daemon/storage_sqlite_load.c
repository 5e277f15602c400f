/* Loading a sandbox with its facts, whole. */
#include "storage_sqlite_facts.h"
#include "storage_sqlite_internal.h"
#include "storage_sqlite_known.h"
#include "storage_sqlite_rollup.h"

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

/* Modulo 2^64: whether what comes out can be, the facts are asked, which are read beside it. */
static int64_t ms_after(int64_t base_ms, int64_t ms)
{
	return (int64_t)((uint64_t)base_ms + (uint64_t)ms);
}

static int64_t ms_of(int64_t unix_s)
{
	return (int64_t)((uint64_t)unix_s * 1000);
}

/* From where the row's time begins; LEDGER_ABSENT is. */
static int64_t take_after(struct columns *c, int64_t base_ms)
{
	int64_t after = take_absent(c);
	return after == LEDGER_ABSENT ? LEDGER_ABSENT : ms_after(base_ms, after);
}

static struct span take_bytes(struct columns *c)
{
	struct span bytes = { sqlite3_column_blob(c->statement, c->next), 0 };
	bytes.len = (size_t)sqlite3_column_bytes(c->statement, c->next++);
	return bytes;
}

static void take_account(struct columns *c, struct ledger_account *a)
{
	int64_t time_s = take_absent(c);
	a->exists = time_s != LEDGER_ABSENT;
	int64_t base_ms = a->exists ? ms_of(time_s) : 0;
	a->started_ms = take_after(c, base_ms);
	a->ended_ms = take_after(c, base_ms);
	a->end_kind = (enum ledger_end_kind)take(c);
	a->dims.template_key = take(c);
	a->cost_nanousd = take_absent(c);
	a->due_ms = take_absent(c);
	a->dims.source_key = take(c);
	a->dims.team_key = take(c);
	a->kill_reason_key = take(c);
	a->vcpu_count = take_absent(c);
	a->memory_mb = take_absent(c);
	a->cost_source = (enum ledger_cost_source)take(c);
	a->rates.vcpu_second_femto = take_absent(c);
	a->rates.gib_second_femto = take_absent(c);
	bool spans = a->started_ms != LEDGER_ABSENT && a->ended_ms != LEDGER_ABSENT;
	a->runtime_ms =
		spans ? (int64_t)((uint64_t)a->ended_ms - (uint64_t)a->started_ms) : LEDGER_ABSENT;
}

static int damaged(struct storage *s)
{
	return storage_sqlite_fail(
		s, SQLITE_CORRUPT,
		"damaged facts in the ledger: e2b-hookctl rebuild makes it anew");
}

static int take_run(struct storage *s, sqlite3_stmt *statement, struct ledger_run *run)
{
	struct columns c = { statement, 0 };
	*run = (struct ledger_run) { .is_stored = true };
	run->key = take(&c);
	take_account(&c, &run->stored);
	storage_sqlite_copy(statement, c.next++, run->id, sizeof(run->id));
	run->account = run->stored;
	int r = storage_sqlite_facts_get_run(take_bytes(&c), &run->stored, run);
	return r < 0 ? damaged(s) : 0;
}

static int load_runs(struct storage *s, struct ledger_sandbox *sandbox)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_RUNS_GET);
	int r = storage_sqlite_bind(s, statement, "i", sandbox->key);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
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
		r = take_run(s, statement, &sandbox->runs[sandbox->n_runs++]);
	}
	if (r < 0 && statement)
		(void)sqlite3_reset(statement);
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

/* What the sums hold of it is what its row says. */
static void take_booked(struct ledger_sandbox *sandbox, enum ledger_state state,
			const struct storage_facts_shown *shown)
{
	struct rollup_startup startup =
		storage_sqlite_startup_of(sandbox, shown->dims.template_key);
	sandbox->booked.state = state;
	sandbox->booked.time_s = shown->time_ms / 1000;
	sandbox->booked.template_key = shown->dims.template_key;
	sandbox->booked.startup_ms = startup.startup_ms;
	sandbox->booked.startup_hour_s = startup.hour_s;
	sandbox->booked.startup_template_key = startup.template_key;
}

static int take_sandbox(struct storage *s, sqlite3_stmt *statement, struct ledger_sandbox *sandbox,
			int64_t *ret_n_loose)
{
	struct columns c = { statement, 0 };
	struct storage_facts_shown shown = { 0 };
	sandbox->is_stored = true;
	sandbox->key = take(&c);
	shown.time_ms = ms_of(take(&c));
	shown.last_ms = ms_after(shown.time_ms, take(&c));
	enum ledger_state state = (enum ledger_state)take(&c);
	shown.dims = take_dims(&c);
	shown.kill_reason_key = take(&c);
	sandbox->startup_ms = take_absent(&c);
	sandbox->executions = take(&c);
	sandbox->failed_executions = take(&c);
	sandbox->loose_executions = take(&c);
	*ret_n_loose = take(&c);
	sandbox->sealed = take(&c) != 0;
	if (storage_sqlite_facts_get_sandbox(take_bytes(&c), &shown, sandbox) < 0)
		return damaged(s);
	take_booked(sandbox, state, &shown);
	const unsigned char *metadata = sqlite3_column_text(statement, c.next++);
	sandbox->metadata = metadata ? strdup((const char *)metadata) : NULL;
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
	sqlite3_stmt *statement = NULL;
	int r = storage_sqlite_known_find(s, sandbox_id, &statement);
	if (r < 0)
		return r;
	if (r == 0) {
		ret->key = s->next_sandbox_key++;
		return 0;
	}
	int64_t n_loose;
	r = take_sandbox(s, statement, ret, &n_loose);
	(void)sqlite3_reset(statement);
	if (r == 0)
		r = load_runs(s, ret);
	return r < 0 ? r : load_loose(s, ret, n_loose);
}
