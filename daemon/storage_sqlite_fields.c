/* See the header: one call per column, so that a list of calls reads like its statement. */
#include "storage_sqlite_fields.h"

#include <errno.h>

struct fields storage_sqlite_fields(struct storage *s, enum storage_sql sql)
{
	struct fields f = { s, storage_sqlite_statement(s, sql), 1, SQLITE_OK };
	if (!f.statement)
		f.code = SQLITE_IOERR;
	return f;
}

void storage_sqlite_give(struct fields *f, int64_t value)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_int64(f->statement, f->next++, value);
}

static void give_null(struct fields *f)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_null(f->statement, f->next++);
}

void storage_sqlite_give_absent(struct fields *f, int64_t value)
{
	if (value == INT64_MIN)
		give_null(f);
	else
		storage_sqlite_give(f, value);
}

void storage_sqlite_give_key(struct fields *f, int64_t key)
{
	if (key == 0)
		give_null(f);
	else
		storage_sqlite_give(f, key);
}

void storage_sqlite_give_text(struct fields *f, struct span text)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_text(f->statement, f->next++, text.s, (int)text.len,
					    SQLITE_STATIC);
}

void storage_sqlite_give_blob(struct fields *f, struct span bytes)
{
	if (f->code == SQLITE_OK)
		f->code = sqlite3_bind_blob(f->statement, f->next++, bytes.s, (int)bytes.len,
					    SQLITE_STATIC);
}

void storage_sqlite_give_id(struct fields *f, struct span id)
{
	if (f->code == SQLITE_OK)
		f->code = storage_sqlite_bind_id(f->statement, f->next++, id);
}

void storage_sqlite_give_dims(struct fields *f, const struct ledger_dims *dims)
{
	storage_sqlite_give_key(f, dims->source_key);
	storage_sqlite_give_key(f, dims->template_key);
	storage_sqlite_give_key(f, dims->team_key);
}

int storage_sqlite_given(const struct fields *f)
{
	if (!f->statement)
		return -EIO; /* why, stands in the error already */
	return f->code == SQLITE_OK ? 0 : storage_sqlite_fail(f->s, f->code, "cannot bind");
}

int storage_sqlite_give_end(struct fields *f)
{
	int r = storage_sqlite_given(f);
	if (r < 0)
		return r;
	assert(f->next - 1 == sqlite3_bind_parameter_count(f->statement));
	return storage_sqlite_run(f->s, f->statement);
}
