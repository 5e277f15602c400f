/* The block that is being gathered lives in the storage object. Reading flushes it first: a repeat
 * within one batch is compared with a body that is not written yet. */
#include "storage_sqlite_body.h"

#include <errno.h>
#include <string.h>

/* Whoever wants one body reads its whole block, so a block stays small; a larger body has one of
 * its own. */
#define BLOCK_BYTES (48 * 1024)

int storage_sqlite_body_flush(struct storage *s)
{
	struct storage_gathered *g = &s->gathered;
	if (!g->len)
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_BODY_PUT);
	int r = storage_sqlite_bind(s, statement, "ib", g->first_seq,
				    (struct span) { g->bytes, g->len });
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		g->len = 0;
	return r;
}

void storage_sqlite_body_forget(struct storage *s)
{
	s->gathered.len = 0;
}

static int make_room(struct storage_gathered *g, size_t len)
{
	if (g->size - g->len >= len)
		return 0;
	size_t size = base_max_size(g->len + len, BLOCK_BYTES);
	char *bytes = realloc(g->bytes, size);
	if (!bytes)
		return -ENOMEM;
	g->bytes = bytes;
	g->size = size;
	return 0;
}

int storage_sqlite_body_add(struct storage *s, int64_t seq, struct span body, int64_t *ret_at)
{
	struct storage_gathered *g = &s->gathered;
	int r = g->len + body.len > BLOCK_BYTES ? storage_sqlite_body_flush(s) : 0;
	if (r == 0)
		r = make_room(g, body.len);
	if (r < 0)
		return r;
	if (g->len == 0)
		g->first_seq = seq;
	*ret_at = (int64_t)g->len;
	memcpy(g->bytes + g->len, body.s, body.len);
	g->len += body.len;
	return 0;
}

void storage_sqlite_body_done(struct storage_body_block *block)
{
	if (block->statement)
		(void)sqlite3_reset(block->statement);
	*block = (struct storage_body_block) { 0 };
}

static int read_block(struct storage *s, struct storage_body_block *block, int64_t seq)
{
	storage_sqlite_body_done(block);
	int r = storage_sqlite_body_flush(s);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_BODY_GET);
	r = storage_sqlite_bind(s, statement, "i", seq);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r < 0 ? r : storage_sqlite_fail(s, SQLITE_CORRUPT, "a body is missing");
	block->statement = statement;
	block->first_seq = sqlite3_column_int64(statement, 0);
	block->last_seq = sqlite3_column_int64(statement, 1);
	block->bodies.s = sqlite3_column_blob(statement, 2);
	block->bodies.len = (size_t)sqlite3_column_bytes(statement, 2);
	return 0;
}

int storage_sqlite_body_read(struct storage *s, struct storage_body_block *block, int64_t seq,
			     int64_t at, int64_t len, struct span *ret)
{
	int r = 0;
	if (!block->statement || seq < block->first_seq || seq > block->last_seq)
		r = read_block(s, block, seq);
	if (r < 0)
		return r;
	int64_t size = (int64_t)block->bodies.len;
	if (at < 0 || len < 0 || at > size || len > size - at)
		return storage_sqlite_fail(s, SQLITE_CORRUPT, "a body is cut short");
	*ret = (struct span) { block->bodies.s + at, (size_t)len };
	return 0;
}

int storage_sqlite_body_prune(struct storage *s, int64_t seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_BODY_PRUNE);
	int r = storage_sqlite_bind(s, statement, "i", seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}
