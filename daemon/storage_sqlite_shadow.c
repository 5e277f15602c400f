/* The ledger a second time, beside the live one: tables named new_*, filled by the same statements
 * (storage_sqlite_aim), then swapped in by renaming within one transaction. The old ones become
 * trash_* and are emptied in slices: to drop a large table at once would hold up intake.
 */
#include "storage_sqlite_known.h"
#include "storage_sqlite_rollup.h"

#include <errno.h>
#include <string.h>

#define TRASH_ROWS 200 /* emptied in one slice */

/* Everything that a fold writes, and a rebuild therefore makes anew. */
static const char *const ledger_tables[] = { "skipped",	      "event_link",    "sandbox",
					     "loose_event",   "run",	       "execution",
					     "cost_hour",     "cost_day",      "activity_hour",
					     "template_hour", "template_total" };
static const char *const rollup_tables[] = { "cost_hour", "cost_day", "activity_hour",
					     "template_hour", "template_total" };

static int exec(struct storage *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

static int exec(struct storage *s, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	char *sql = sqlite3_vmprintf(fmt, args);
	va_end(args);
	if (!sql)
		return -ENOMEM;
	int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	return code == SQLITE_OK
		       ? 0
		       : storage_sqlite_fail(s, code, "cannot change the ledger's tables");
}

static bool is_ledger_table(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(ledger_tables); i++)
		if (strlen(ledger_tables[i]) == len && memcmp(ledger_tables[i], name, len) == 0)
			return true;
	return false;
}

static bool is_word(char c)
{
	return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z');
}

char *storage_sqlite_retarget(const char *sql, const char *prefix)
{
	size_t n_words = 1;
	for (const char *p = sql; *p; p++)
		n_words += !is_word(*p);
	char *out = malloc(strlen(sql) + n_words * strlen(prefix) + 1);
	char *w = out;
	for (const char *p = sql; out && *p;) {
		size_t len = 0;
		while (is_word(p[len]))
			len++;
		if (len && is_ledger_table(p, len))
			w = stpcpy(w, prefix);
		size_t take = len ? len : 1;
		memcpy(w, p, take);
		w += take;
		p += take;
	}
	if (out)
		*w = '\0';
	return out;
}

void storage_aim(struct storage *s, enum storage_target target)
{
	s->target = target;
}

/* Runs fn over a column of texts; stops at its first failure. */
static int for_each(struct storage *s, const char *sql, const char *argument,
		    int (*fn)(struct storage *s, const char *text, const char *argument))
{
	char *texts[64];
	size_t n = 0;
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);
	if (code == SQLITE_OK && argument)
		code = sqlite3_bind_text(statement, 1, argument, -1, SQLITE_STATIC);
	int r = code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot read the schema");
	while (r == 0 && n < ARRAY_SIZE(texts) && (code = sqlite3_step(statement)) == SQLITE_ROW) {
		const unsigned char *text = sqlite3_column_text(statement, 0);
		texts[n] = text ? strdup((const char *)text) : NULL;
		r = texts[n] ? 0 : -ENOMEM;
		n += texts[n] != NULL;
	}
	if (r == 0 && code != SQLITE_ROW && code != SQLITE_DONE)
		r = storage_sqlite_fail(s, code, "cannot read the schema");
	(void)sqlite3_finalize(statement);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = fn(s, texts[i], argument);
		free(texts[i]);
	}
	return r;
}

static int copy_table(struct storage *s, const char *sql, const char *name)
{
	const char *columns = strchr(sql, '(');
	return columns ? exec(s, "CREATE TABLE new_%s %s", name, columns) : -EUCLEAN;
}

/* A part of a name that no other has, though a rebuild that died left its tables and indexes: they
 * live until they are empty, and a counter would begin again with the process. */
static sqlite3_uint64 anything(void)
{
	sqlite3_uint64 number;
	sqlite3_randomness(sizeof(number), &number);
	return number;
}

/* Index names are unique in a database. */
static int copy_index(struct storage *s, const char *sql, const char *name)
{
	const char *columns = strchr(sql, '(');
	if (!columns)
		return -EUCLEAN;
	return exec(s, "CREATE %sINDEX %s_%016llx ON new_%s %s",
		    strncmp(sql, "CREATE UNIQUE", 13) == 0 ? "UNIQUE " : "", name, anything(), name,
		    columns);
}

static int copy_schema(struct storage *s, const char *name)
{
	int r = for_each(s, "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", name,
			 copy_table);
	return r < 0 ? r
		     : for_each(s,
				"SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = "
				"? AND sql IS NOT NULL",
				name, copy_index);
}

/* Out of the way under a name that nothing uses, to be emptied later. */
static int discard(struct storage *s, const char *table, const char *unused)
{
	(void)unused;
	return exec(s, "ALTER TABLE %s RENAME TO trash_%016llx_%s", table, anything(), table);
}

static int discard_leftovers(struct storage *s)
{
	return for_each(s,
			"SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE "
			"'new\\_%' ESCAPE '\\'",
			NULL, discard);
}

int storage_shadow_create(struct storage *s)
{
	int r = exec(s, "PRAGMA legacy_alter_table = ON");
	storage_sqlite_known_forget(s);
	if (r == 0)
		r = discard_leftovers(s);
	for (size_t i = 0; i < ARRAY_SIZE(ledger_tables) && r == 0; i++)
		r = copy_schema(s, ledger_tables[i]);
	for (size_t i = 0; i < ARRAY_SIZE(rollup_tables) && r == 0; i++)
		r = exec(s, "INSERT INTO new_%s SELECT * FROM frozen_%s", rollup_tables[i],
			 rollup_tables[i]);
	return r;
}

/* The names of indexes are new, and what is said of them goes by name (schema/sqlite/0001). */
static int tell_planner(struct storage *s)
{
	return exec(s, "INSERT INTO sqlite_stat1 (tbl, idx, stat) SELECT tbl_name, name,"
		       " (SELECT stat FROM sqlite_stat1 WHERE tbl = 'sandbox' LIMIT 1)"
		       " FROM sqlite_schema WHERE type = 'index' AND tbl_name IN ('sandbox', 'run')"
		       " AND instr(sql, '_key >> ') > 0"
		       " AND name NOT IN (SELECT idx FROM sqlite_stat1)");
}

int storage_shadow_swap(struct storage *s)
{
	s->ledger_changes++;
	int r = exec(
		s,
		"PRAGMA legacy_alter_table = ON"); /* views keep the names they were written with */
	storage_sqlite_known_forget(s);
	for (size_t i = 0; i < ARRAY_SIZE(ledger_tables) && r == 0; i++) {
		r = discard(s, ledger_tables[i], NULL);
		if (r == 0)
			r = exec(s, "ALTER TABLE new_%s RENAME TO %s", ledger_tables[i],
				 ledger_tables[i]);
	}
	if (r == 0)
		r = tell_planner(s);
	if (r == 0)
		r = exec(s,
			 "UPDATE position SET rebuild = 0, fold_version = %d, change_seq = "
			 "change_seq + %lld WHERE one = 1",
			 STORAGE_FOLD_VERSION, (long long)STORAGE_SHADOW_LEAD + 1);
	return r < 0 ? r : storage_sqlite_load_position(s);
}

int storage_shadow_drop(struct storage *s)
{
	int r = exec(s, "PRAGMA legacy_alter_table = ON");
	storage_sqlite_known_forget(s);
	return r < 0 ? r : discard_leftovers(s);
}

int storage_set_rebuild(struct storage *s, int64_t tries)
{
	int r = exec(s, "UPDATE position SET rebuild = %lld WHERE one = 1", (long long)tries);
	if (r == 0)
		s->now.position.rebuild = tries;
	return r;
}

/* One slice of one table; drops it when it is empty. */
static int empty_one(struct storage *s, const char *table, const char *unused)
{
	(void)unused;
	int r = exec(s, "DELETE FROM %s LIMIT %d", table, TRASH_ROWS);
	if (r == 0 && sqlite3_changes(s->db) == 0)
		r = exec(s, "DROP TABLE %s", table);
	return r < 0 ? r : 1;
}

int storage_empty_trash(struct storage *s, bool *ret_more)
{
	int r = for_each(s,
			 "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE "
			 "'trash\\_%' ESCAPE '\\'"
			 " LIMIT 1",
			 NULL, empty_one);
	if (r >= 0)
		*ret_more = r == 1;
	return r < 0 ? r : 0;
}

int storage_sealed_sandboxes(struct storage *s, int64_t after_key, size_t n,
			     struct storage_sealed *ret, size_t *ret_n)
{
	*ret_n = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SEALED);
	int r = storage_sqlite_bind(s, statement, "ii", after_key, (int64_t)n);
	while (r == 0 && *ret_n < n && (r = storage_sqlite_step(s, statement)) == 1) {
		r = 0;
		ret[*ret_n].key = sqlite3_column_int64(statement, 0);
		storage_sqlite_copy(statement, 1, ret[(*ret_n)++].id, sizeof(ret->id));
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

/* Books what was copied row by row. */
static int book_copied(struct storage *s, int64_t sandbox_key)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_BOOKED);
	int r = storage_sqlite_bind(s, statement, "i", sandbox_key);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		struct rollup_execution x = {
			.time_s = sqlite3_column_int64(statement, 0),
			.template_key = sqlite3_column_int64(statement, 1),
			.duration_ms = sqlite3_column_int64(statement, 2),
			.failed = sqlite3_column_int64(statement, 3) != 0,
			.timed_out = sqlite3_column_int64(statement, 4) == EVENT_TIMEOUT,
		};
		r = storage_sqlite_book_execution(s, &x, 1);
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r;
}

int storage_copy_sealed(struct storage *s, struct ledger_sandbox *sandbox)
{
	assert(s->target == STORAGE_SHADOW);
	sandbox->is_stored = false;
	sandbox->n_loose_stored = 0;
	sandbox->booked.startup_ms = LEDGER_ABSENT;
	for (size_t i = 0; i < sandbox->n_runs; i++)
		sandbox->runs[i].is_stored = false;
	int r = exec(s,
		     "INSERT INTO new_execution SELECT * FROM execution WHERE sandbox_key = %lld",
		     (long long)sandbox->key);
	if (r == 0)
		r = book_copied(s, sandbox->key);
	if (r == 0)
		r = storage_save_sandbox(s, sandbox);
	return r;
}

int storage_is_skipped(struct storage *s, int64_t seq, bool *ret)
{
	enum storage_target aimed = s->target;
	s->target = STORAGE_LIVE;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IS_SKIPPED);
	s->target = aimed;
	int r = storage_sqlite_bind(s, statement, "i", seq);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	*ret = r == 1;
	if (statement)
		(void)sqlite3_reset(statement);
	return r < 0 ? r : 0;
}
