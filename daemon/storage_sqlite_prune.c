/* Retention's deletions, a few rows at a time, oldest first. What leaves the store stays in the
 * sums: it is added to the frozen ones, with which a rebuild begins.
 */
#include "storage_sqlite_body.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_known.h"
#include "storage_sqlite_rollup.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

struct old_event {
	int64_t seq, time_s, kind, sandbox_key, template_key;
	char id[EVENT_ID_MAX + 1];
	int64_t time_ms;
};

static int read_old_events(struct storage *s, int64_t before_s, struct old_event *ret, size_t n,
			   size_t *ret_n)
{
	*ret_n = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OLD_EVENTS);
	int r = storage_sqlite_bind(s, statement, "ii", before_s, (int64_t)n);
	while (r == 0 && *ret_n < n && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		struct old_event *e = &ret[(*ret_n)++];
		*e = (struct old_event) {
			sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1),
			sqlite3_column_int64(statement, 2), sqlite3_column_int64(statement, 3),
			sqlite3_column_int64(statement, 4),
		};
		storage_sqlite_id(statement, 5, e->id);
		e->time_ms =
			e->time_s * 1000 + sqlite3_column_int64(statement, 6) / CLOCK_NS_PER_MS;
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

static int run_with(struct storage *s, enum storage_sql sql, int64_t a, int64_t b)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(
		s, statement, sqlite3_bind_parameter_count(statement) == 2 ? "ii" : "i", a, b);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* What the fold left out was never counted. */
static int freeze_event(struct storage *s, const struct old_event *e)
{
	bool skipped;
	int r = storage_is_skipped(s, e->seq, &skipped);
	if (r < 0 || skipped)
		return r;
	return storage_sqlite_book_event(s, e->time_ms, e->template_key, (enum event_kind)e->kind);
}

static int prune_event(struct storage *s, const struct old_event *e)
{
	int r = freeze_event(s, e);
	if (r == 0 && e->sandbox_key)
		r = run_with(s, SQL_SANDBOX_SEAL, e->sandbox_key, e->seq);
	if (r == 0 && e->sandbox_key && e->kind != EVENT_CODE_EXECUTED)
		r = run_with(s, SQL_LOOSE_KEEP_ID, e->sandbox_key, e->seq);
	if (r == 0 && e->kind == EVENT_CODE_EXECUTED)
		r = run_with(s, SQL_EXECUTION_KEEP_ID, e->seq, 0);
	if (r == 0)
		r = run_with(s, SQL_LINK_DELETE, e->seq, e->time_s);
	if (r == 0)
		r = storage_unskip(s, e->seq);
	if (r == 0)
		r = storage_sqlite_identity_prune(s, e->id, e->time_s, e->seq);
	if (r == 0)
		r = run_with(s, SQL_EVENT_DELETE, e->seq, 0);
	return r < 0 ? r : storage_sqlite_body_prune(s, e->seq);
}

int storage_prune_events(struct storage *s, int64_t before_s, size_t n, size_t *ret_n,
			 int64_t *ret_last_s)
{
	struct old_event old[STORAGE_PRUNE_MAX];
	s->ledger_changes++;
	int r = read_old_events(s, before_s, old, base_min_size(n, ARRAY_SIZE(old)), ret_n);
	for (size_t i = 0; i < *ret_n && r == 0; i++) {
		*ret_last_s = old[i].time_s;
		r = prune_event(s, &old[i]);
	}
	s->target = STORAGE_FROZEN;
	if (r == 0)
		r = storage_sqlite_rollup_flush(s);
	s->target = STORAGE_LIVE;
	return r;
}

/* Sandboxes: with everything that hangs on them. Executions can be many: some at a time, then the
 * rest. */
static int freeze_sandbox(struct storage *s, const struct ledger_sandbox *sandbox)
{
	struct rollup_startup startup = { sandbox->booked.startup_ms,
					  sandbox->booked.startup_hour_s,
					  sandbox->booked.startup_template_key };
	int r = storage_sqlite_book_sandbox(s, sandbox->booked.template_key, LEDGER_UNKNOWN, 1);
	if (r == 0)
		r = storage_sqlite_book_startup(s, &startup, 1);
	for (size_t i = 0; i < sandbox->n_runs && r == 0; i++)
		r = storage_sqlite_book_run(s, &sandbox->runs[i].stored, 1);
	return r;
}

static int delete_sandbox(struct storage *s, int64_t key)
{
	storage_sqlite_known_note_deletion(s);
	int r = run_with(s, SQL_RUNS_DELETE, key, 0);
	if (r == 0)
		r = run_with(s, SQL_LOOSE_FORGET_IDS, key, 0);
	if (r == 0)
		r = run_with(s, SQL_LOOSE_DELETE, key, 0);
	return r < 0 ? r : run_with(s, SQL_SANDBOX_DELETE, key, 0);
}

/* An event of it may come before the rest is gone. */
static int lessen_sandbox(struct storage *s, int64_t key, const struct storage_counts *gone)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SANDBOX_LESSEN);
	int r = storage_sqlite_bind(s, statement, "iiii", key, (int64_t)gone->executions,
				    (int64_t)gone->failed, (int64_t)gone->loose);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Books and deletes up to n executions of a sandbox; *ret_left: there are more. */
static int prune_executions(struct storage *s, int64_t key, size_t n, bool *ret_left)
{
	int64_t seqs[STORAGE_PRUNE_MAX];
	struct storage_counts gone = { 0 };
	size_t count = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTIONS_OF);
	int r = storage_sqlite_bind(s, statement, "ii", key, (int64_t)n + 1);
	*ret_left = false;
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		if (count == n) {
			*ret_left = true;
			break;
		}
		struct rollup_execution x = {
			.time_s = sqlite3_column_int64(statement, 1),
			.template_key = sqlite3_column_int64(statement, 2),
			.duration_ms = sqlite3_column_int64(statement, 3),
			.failed = sqlite3_column_int64(statement, 4) != 0,
			.timed_out = sqlite3_column_int64(statement, 5) == EVENT_TIMEOUT,
		};
		gone.executions++;
		gone.failed += x.failed;
		gone.loose += sqlite3_column_int64(statement, 6) == 0;
		seqs[count++] = sqlite3_column_int64(statement, 0);
		r = storage_sqlite_book_execution(s, &x, 1);
	}
	if (statement)
		(void)sqlite3_reset(statement);
	for (size_t i = 0; i < count && r == 0; i++)
		r = run_with(s, SQL_EXECUTION_DELETE, seqs[i], 0);
	return r < 0 ? r : lessen_sandbox(s, key, &gone);
}

static int oldest_sandbox(struct storage *s, int64_t before_s, char id[static EVENT_ID_MAX + 1])
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OLD_SANDBOX);
	int r = storage_sqlite_bind(s, statement, "i", before_s);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r == 1) {
		storage_sqlite_copy(statement, 0, id, EVENT_ID_MAX + 1);
		(void)sqlite3_reset(statement);
	}
	return r;
}

static void finish_sandbox(struct ledger_sandbox *sandbox)
{
	ledger_sandbox_finish(sandbox);
}

int storage_prune_sandbox(struct storage *s, int64_t before_s, bool *ret_found, bool *ret_gone)
{
	char id[EVENT_ID_MAX + 1];
	*ret_gone = false;
	s->ledger_changes++;
	int r = oldest_sandbox(s, before_s, id);
	*ret_found = r == 1;
	if (r <= 0)
		return r;
	CLEANUP(finish_sandbox) struct ledger_sandbox sandbox;
	r = storage_load_sandbox(s, (struct span) { id, strlen(id) }, &sandbox);
	bool left = false;
	if (r == 0)
		r = prune_executions(s, sandbox.key, STORAGE_PRUNE_MAX, &left);
	if (r == 0 && !left) {
		r = freeze_sandbox(s, &sandbox);
		if (r == 0)
			r = delete_sandbox(s, sandbox.key);
		*ret_gone = r == 0;
	}
	s->target = STORAGE_FROZEN;
	if (r == 0)
		r = storage_sqlite_rollup_flush(s);
	s->target = STORAGE_LIVE;
	return r;
}

static int number(struct storage *s, enum storage_sql sql, int64_t *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_step(s, statement);
	*ret = r == 1 ? sqlite3_column_int64(statement, 0) : 0;
	if (statement)
		(void)sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

int storage_space(struct storage *s, struct storage_space *ret)
{
	int64_t pages = 0, free_pages = 0, page_size = 0;
	int r = number(s, SQL_PAGE_COUNT, &pages);
	if (r == 0)
		r = number(s, SQL_FREE_COUNT, &free_pages);
	if (r == 0)
		r = number(s, SQL_PAGE_SIZE, &page_size);
	if (r == 0)
		*ret = (struct storage_space) { (pages - free_pages) * page_size,
						free_pages * page_size };
	return r;
}

int storage_give_back(struct storage *s, size_t pages)
{
	char sql[64];
	(void)snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%zu)", pages);
	int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	return code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot give space back");
}

int storage_set_retention(struct storage *s, int64_t newest_s, bool waits)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_RETENTION);
	int r = storage_sqlite_bind(s, statement, "ii", newest_s, (int64_t)waits);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0) {
		s->now.position.retention_newest_s = newest_s;
		s->now.position.prune_waits = waits;
	}
	return r;
}
