/* A batch for the index is read in slices, sorted, then inserted in slices; only the last one moves
 * indexed_seq, and all before are harmless: what is in the index twice remembered is
 * found once. The newest second that the index knows is kept in memory: events after it, nearly all
 * that come, need no look-up.
 */
#include "storage_sqlite_identity.h"

#include "recent.h"

#include <errno.h>
#include <string.h>

#define REMEMBERED 131072 /* ids */
#define WANTS_INDEXING 81920 /* so many that are not in the index: far enough from all */
#define BEHIND 98304 /* so many: deliveries come faster than slices */
#define BATCH_MAX 49152 /* the larger, the fewer late events find full pages */
#define READ_ROWS 4096
#define INSERT_ROWS 1000 /* about 2 ms */
#define UNDONE_MAX                                                                                 \
	1024 /* above any transaction: one that is undone has made so many be forgotten */

_Static_assert(WANTS_INDEXING + BATCH_MAX <= REMEMBERED, "none is forgotten before it is indexed");

struct entry {
	int64_t time_s, seq;
	int16_t hash;
};

struct identity {
	struct recent *recent;
	size_t n_added; /* in the open transaction */
	int64_t key; /* of the hash */
	int64_t indexed_seq;
	int64_t newest_s; /* in the index; INT64_MIN: it is empty */
	/* the batch that is being inserted */
	struct entry *batch;
	size_t n_batch, n_inserted;
	bool is_busy, is_reading; /* with a batch; not all of it is there yet */
	int64_t batch_until_seq;
};

static struct span text_span(const char *text)
{
	return (struct span) { text, strlen(text) };
}

static int16_t hash_span(const struct identity *x, struct span id)
{
	uint64_t h = (uint64_t)x->key;
	for (size_t i = 0; i < id.len; i++)
		h = (h ^ (uint8_t)id.s[i]) * UINT64_C(0x100000001b3);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return (int16_t)(h >> 48);
}

static int16_t hash_id(const struct identity *x, const char *id)
{
	return hash_span(x, text_span(id));
}

int64_t storage_sqlite_identity_hash(const struct storage *s, struct span id)
{
	return hash_span(s->identity, id);
}

/* Loading ----------------------------------------------------------------- */

static int load_state(struct storage *s, struct identity *x)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_STATE);
	int r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r < 0 ? r : storage_sqlite_fail(s, SQLITE_CORRUPT, "no position row");
	x->indexed_seq = sqlite3_column_int64(statement, 0);
	x->key = sqlite3_column_int64(statement, 1);
	x->newest_s = storage_sqlite_absent(statement, 2);
	(void)sqlite3_reset(statement);
	return 0;
}

/* Oldest first, so that the ring forgets the oldest. */
static int load_latest(struct storage *s, struct identity *x)
{
	int64_t from =
		base_min_i64(x->indexed_seq, s->now.position.stored_seq - STORAGE_RECENT_IDS);
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_LATEST);
	int r = storage_sqlite_bind(s, statement, "i", from);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		char id[EVENT_ID_MAX + 1];
		storage_sqlite_id(statement, 2, id);
		recent_add(x->recent, text_span(id), sqlite3_column_int64(statement, 1),
			   sqlite3_column_int64(statement, 0));
		r = 0;
	}
	return r;
}

int storage_sqlite_identity_load(struct storage *s)
{
	struct identity *x = s->identity = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	int r = recent_new(REMEMBERED, &x->recent);
	if (r == 0)
		r = load_state(s, x);
	return r < 0 ? r : load_latest(s, x);
}

void storage_sqlite_identity_finish(struct storage *s)
{
	if (!s->identity)
		return;
	recent_free(s->identity->recent);
	free(s->identity->batch);
	free(s->identity);
	s->identity = NULL;
}

/* Finding ----------------------------------------------------------------- */

struct search {
	struct storage *s;
	const char *id;
	int64_t time_s;
	struct storage_known *ret;
	bool found_other;
};

/* 1: the event of this number has the id. */
static int confirm(struct storage *s, const char *id, int64_t seq, struct storage_known *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_CONFIRM);
	int r = storage_sqlite_bind(s, statement, "iD", seq, id);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r != 1)
		return r;
	*ret = (struct storage_known) { seq,
					sqlite3_column_int64(statement, 0),
					{ sqlite3_column_int64(statement, 1),
					  sqlite3_column_int64(statement, 2),
					  storage_sqlite_absent(statement, 3) } };
	(void)sqlite3_reset(statement);
	return 1;
}

static int consider(void *ctx, int64_t time_s, int64_t seq)
{
	struct search *search = ctx;
	struct storage_known known = { 0 };
	int r = confirm(search->s, search->id, seq, &known);
	if (r <= 0 || known.time_s != time_s)
		return r < 0 ? r : 0;
	bool is_it = time_s == search->time_s;
	if (is_it || !search->found_other)
		*search->ret = known;
	search->found_other = true;
	return is_it;
}

/* Candidates come out first: confirming uses other statements, but an index may hold many of one
 * second and hash if somebody wants it to, so there is no list of them. */
static int find_indexed(struct storage *s, const char *id, int64_t time_s,
			struct storage_known *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_FIND);
	int r = storage_sqlite_bind(s, statement, "ii", time_s, (int64_t)hash_id(s->identity, id));
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1)
		r = confirm(s, id, sqlite3_column_int64(statement, 0), ret);
	if (statement)
		(void)sqlite3_reset(statement);
	return r;
}

int storage_sqlite_identity_find(struct storage *s, const char *id, int64_t time_s,
				 struct storage_known *ret)
{
	struct identity *x = s->identity;
	struct search search = { s, id, time_s, ret, false };
	int r = recent_find(x->recent, text_span(id), consider, &search);
	if (r == 0 && x->newest_s != INT64_MIN && time_s <= x->newest_s) {
		struct storage_known known;
		r = find_indexed(s, id, time_s, &known);
		if (r == 1)
			*ret = known;
	}
	return r == 0 ? search.found_other : r;
}

void storage_sqlite_identity_add(struct storage *s, const char *id, int64_t time_s, int64_t seq)
{
	recent_add(s->identity->recent, text_span(id), time_s, seq);
	s->identity->n_added++;
}

void storage_sqlite_identity_begin(struct storage *s)
{
	s->identity->n_added = 0;
}

void storage_sqlite_identity_undo(struct storage *s)
{
	recent_undo(s->identity->recent, s->identity->n_added);
	s->identity->n_added = 0;
}

/* The index --------------------------------------------------------------- */

int storage_sqlite_identity_prune(struct storage *s, const char *id, int64_t time_s, int64_t seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_DELETE);
	int r = storage_sqlite_bind(s, statement, "iii", time_s, (int64_t)hash_id(s->identity, id),
				    seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

bool storage_sqlite_identity_wants_indexing(const struct storage *s)
{
	const struct identity *x = s->identity;
	return x->is_busy || s->now.position.stored_seq - x->indexed_seq >= WANTS_INDEXING;
}

bool storage_sqlite_identity_is_behind(const struct storage *s)
{
	return s->now.position.stored_seq - s->identity->indexed_seq >= BEHIND;
}

bool storage_sqlite_identity_is_full(const struct storage *s)
{
	return s->now.position.stored_seq - s->identity->indexed_seq >= REMEMBERED - UNDONE_MAX;
}

static int compare(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->time_s != y->time_s)
		return x->time_s < y->time_s ? -1 : 1;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int begin_batch(struct identity *x)
{
	if (!x->batch)
		x->batch = calloc(BATCH_MAX, sizeof(*x->batch));
	if (!x->batch)
		return -ENOMEM;
	x->n_batch = x->n_inserted = 0;
	x->batch_until_seq = x->indexed_seq;
	x->is_reading = true;
	return 0;
}

static void take_entry(struct identity *x, sqlite3_stmt *statement)
{
	char id[EVENT_ID_MAX + 1];
	struct entry *e = &x->batch[x->n_batch++];
	storage_sqlite_id(statement, 2, id);
	e->seq = x->batch_until_seq = sqlite3_column_int64(statement, 0);
	e->time_s = sqlite3_column_int64(statement, 1);
	e->hash = hash_id(x, id);
}

static int read_slice(struct storage *s, struct identity *x)
{
	size_t until = base_min_size(BATCH_MAX, x->n_batch + READ_ROWS);
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_LATEST);
	int r = storage_sqlite_bind(s, statement, "i", x->batch_until_seq);
	while (r == 0 && x->n_batch < until && (r = storage_sqlite_step(s, statement)) == 1) {
		take_entry(x, statement);
		r = 0;
	}
	if (statement)
		(void)sqlite3_reset(statement);
	if (r < 0)
		return r;
	bool at_end = x->n_batch < until;
	if (at_end) /* what followed was pruned already */
		x->batch_until_seq = s->now.position.stored_seq;
	x->is_reading = !at_end && x->n_batch < BATCH_MAX;
	if (!x->is_reading)
		qsort(x->batch, x->n_batch, sizeof(*x->batch), compare);
	return 0;
}

static int insert_slice(struct storage *s, struct identity *x, size_t until)
{
	for (size_t i = x->n_inserted; i < until; i++) {
		const struct entry *e = &x->batch[i];
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_PUT);
		int r = storage_sqlite_bind(s, statement, "ii", (int64_t)e->hash, e->seq);
		if (r == 0)
			r = storage_sqlite_run(s, statement);
		if (r < 0)
			return r;
	}
	if (until < x->n_batch)
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_IDENTITY_INDEXED);
	int r = storage_sqlite_bind(s, statement, "i", x->batch_until_seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

static void took(struct identity *x, size_t until)
{
	for (size_t i = x->n_inserted; i < until; i++)
		x->newest_s = base_max_i64(x->newest_s, x->batch[i].time_s);
	x->n_inserted = until;
	if (until < x->n_batch)
		return;
	x->indexed_seq = x->batch_until_seq;
	x->is_busy = false;
}

static int insert_next(struct storage *s, struct identity *x)
{
	int r = storage_begin(s, false);
	if (r < 0)
		return r;
	size_t until = base_min_size(x->n_batch, x->n_inserted + INSERT_ROWS);
	r = insert_slice(s, x, until);
	if (r == 0)
		r = storage_commit(s);
	if (r < 0)
		storage_rollback(s);
	else
		took(x, until);
	return r;
}

int storage_sqlite_identity_index(struct storage *s)
{
	struct identity *x = s->identity;
	int r = x->is_busy ? 0 : begin_batch(x);
	if (r < 0)
		return r;
	x->is_busy = true;
	return x->is_reading ? read_slice(s, x) : insert_next(s, x);
}
