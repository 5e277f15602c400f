/* The block that is being gathered lives in the storage object. Reading flushes it first: a repeat
 * within one batch is compared with a body that is not written yet. */
#include "storage_sqlite_body.h"

#include <errno.h>
#include <string.h>

/* Whoever wants one body reads its whole block, so a block stays small; a larger body has one of
 * its own. */
#define BLOCK_BYTES (64 * 1024)

/* Of a long row SQLite keeps the part on a page of the tree that does not fill pages of its own:
 * for pages of 4,096 bytes 489 bytes and what is left over (file format 1.6). A block that could be
 * closed is, where little is left over: pages of the tree would stay half empty else. */
#define ROOMY_BYTES (40 * 1024)
#define ROW_HEAD 5
#define PAGE_KEEPS 489
#define PAGE_HOLDS 4092
#define LEFT_OVER_MAX 300
#define UUID_CHARS 36

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

static int gather(struct storage_gathered *g, struct span piece)
{
	int r = make_room(g, piece.len);
	if (r == 0 && piece.len)
		memcpy(g->bytes + g->len, piece.s, piece.len);
	if (r == 0)
		g->len += piece.len;
	return r;
}

static int64_t find_id(struct span body, struct span id)
{
	if (!storage_sqlite_is_uuid(id))
		return INT64_MIN;
	const char *found = memmem(body.s, body.len, id.s, id.len);
	return found ? found - body.s : INT64_MIN;
}

static bool is_full(const struct storage_gathered *g)
{
	return g->len >= ROOMY_BYTES &&
	       (g->len + ROW_HEAD - PAGE_KEEPS) % PAGE_HOLDS <= LEFT_OVER_MAX;
}

int storage_sqlite_body_add(struct storage *s, int64_t seq, struct span body, const char *id,
			    struct storage_body_place *ret)
{
	struct storage_gathered *g = &s->gathered;
	bool full = g->len + body.len > BLOCK_BYTES || is_full(g);
	int r = full ? storage_sqlite_body_flush(s) : 0;
	if (r < 0)
		return r;
	if (g->len == 0)
		g->first_seq = seq;
	int64_t id_at = find_id(body, (struct span) { id, strlen(id) });
	*ret = (struct storage_body_place) { (int64_t)g->len, (int64_t)body.len, id_at };
	if (id_at == INT64_MIN)
		return gather(g, body);
	size_t head = (size_t)id_at, tail = head + UUID_CHARS;
	r = gather(g, (struct span) { body.s, head });
	return r < 0 ? r : gather(g, (struct span) { body.s + tail, body.len - tail });
}

void storage_sqlite_body_done(struct storage_body_block *block)
{
	if (block->statement)
		(void)sqlite3_reset(block->statement);
	*block = (struct storage_body_block) { 0 };
}

/* This event's row or block says what cannot be: no other event suffers from it. */
static int spoiled(struct storage *s, const char *what)
{
	(void)storage_sqlite_fail(s, SQLITE_CORRUPT, what);
	return -EBADMSG;
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
		return r < 0 ? r : spoiled(s, "a body is missing");
	block->statement = statement;
	block->first_seq = sqlite3_column_int64(statement, 0);
	block->last_seq = sqlite3_column_int64(statement, 1);
	block->bodies.s = sqlite3_column_blob(statement, 2);
	block->bodies.len = (size_t)sqlite3_column_bytes(statement, 2);
	return 0;
}

/* Puts the id back where it was. */
static int complete(struct storage *s, const char *stored, const struct storage_body_place *place,
		    const char *id, struct span *ret)
{
	struct storage_gathered *w = &s->whole;
	size_t head = (size_t)place->id_at, tail = (size_t)place->len - UUID_CHARS - head;
	w->len = 0;
	int r = gather(w, (struct span) { stored, head });
	if (r == 0)
		r = gather(w, (struct span) { id, UUID_CHARS });
	if (r == 0)
		r = gather(w, (struct span) { stored + head, tail });
	*ret = (struct span) { w->bytes, w->len };
	return r;
}

int storage_sqlite_body_read(struct storage *s, struct storage_body_block *block, int64_t seq,
			     const struct storage_body_place *place, const char *id,
			     struct span *ret)
{
	int r = 0;
	if (!block->statement || seq < block->first_seq || seq > block->last_seq)
		r = read_block(s, block, seq);
	if (r < 0)
		return r;
	bool is_cut = place->id_at != INT64_MIN;
	int64_t size = (int64_t)block->bodies.len, len = place->len - (is_cut ? UUID_CHARS : 0);
	if (place->at < 0 || len < 0 || place->at > size || len > size - place->at)
		return spoiled(s, "a body is cut short");
	const char *stored = block->bodies.s + place->at;
	if (!is_cut) {
		*ret = (struct span) { stored, (size_t)len };
		return 0;
	}
	if (place->id_at < 0 || place->id_at > len || strlen(id) != UUID_CHARS)
		return spoiled(s, "a body is cut wrongly");
	return complete(s, stored, place, id, ret);
}

int storage_sqlite_body_prune(struct storage *s, int64_t seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_BODY_PRUNE);
	int r = storage_sqlite_bind(s, statement, "i", seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}
