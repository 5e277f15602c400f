/* How far the fold has come, what is pending, what ties an event to its sandbox. */
#include "storage_sqlite_body.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_traits.h"

#include <errno.h>
#include <string.h>

int storage_sqlite_load_position(struct storage *s)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_GET);
	int r = storage_sqlite_step(s, statement);
	if (r == 0)
		return storage_sqlite_fail(s, SQLITE_CORRUPT, "the position row is missing");
	if (r < 0)
		return r;
	s->now.position = (struct storage_position) {
		.stored_seq = sqlite3_column_int64(statement, 0),
		.folded_seq = sqlite3_column_int64(statement, 1),
		.trying_seq = sqlite3_column_int64(statement, 2),
		.trying_count = sqlite3_column_int64(statement, 3),
		.skipped = sqlite3_column_int64(statement, 4),
		.fold_version = sqlite3_column_int64(statement, 5),
		.horizon_unix_s = sqlite3_column_int64(statement, 6),
		.newest_unix_s = sqlite3_column_int64(statement, 7),
	};
	s->now.position.rebuild = sqlite3_column_int64(statement, 9);
	s->now.position.prune_waits = sqlite3_column_int64(statement, 10) != 0;
	s->now.position.retention_newest_s = sqlite3_column_int64(statement, 11);
	s->now.last_change_seq = sqlite3_column_int64(statement, 8);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_position(struct storage *s, struct storage_position *ret)
{
	*ret = s->now.position;
	return 0;
}

int64_t storage_stored_seq(const struct storage *s)
{
	return s->now.position.stored_seq;
}

/* One number for all rows that a transaction changes, larger than any before. */
int64_t storage_sqlite_change_seq(struct storage *s)
{
	if (!s->change_seq)
		s->change_seq = s->now.last_change_seq + 1 +
				(s->target == STORAGE_SHADOW ? STORAGE_SHADOW_LEAD : 0);
	return s->change_seq;
}

int64_t storage_ledger_changes(const struct storage *s)
{
	return s->ledger_changes;
}

int storage_set_folded(struct storage *s, int64_t seq)
{
	int r = storage_sqlite_rollup_flush(s);
	if (r < 0 || s->target != STORAGE_LIVE)
		return r; /* the shadow's watermark is the rebuild's own affair */
	s->ledger_changes++;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_FOLDED);
	r = storage_sqlite_bind(s, statement, "iiii", seq, s->change_seq, seq, seq);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r < 0)
		return r;
	struct storage_position *at = &s->now.position;
	at->folded_seq = seq;
	if (at->trying_seq <= seq)
		at->trying_seq = at->trying_count = 0;
	s->now.last_change_seq = base_max_i64(s->now.last_change_seq, s->change_seq);
	return 0;
}

int storage_set_trying(struct storage *s, int64_t seq, int64_t count)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_TRYING);
	int r = storage_sqlite_bind(s, statement, "ii", seq, count);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0) {
		s->now.position.trying_seq = seq;
		s->now.position.trying_count = count;
	}
	return r;
}

int storage_set_horizon(struct storage *s, int64_t horizon_unix_s)
{
	if (horizon_unix_s <= s->now.position.horizon_unix_s)
		return 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_POSITION_HORIZON);
	int r = storage_sqlite_bind(s, statement, "i", horizon_unix_s);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		s->now.position.horizon_unix_s = horizon_unix_s;
	return r;
}

int storage_set_unjudged(struct storage *s, int64_t seq)
{
	ssize_t n = s->lock_fd < 0 ? -1 : pwrite(s->lock_fd, &seq, sizeof(seq), 0);
	return n == (ssize_t)sizeof(seq) ? 0 : -EIO;
}

int64_t storage_unjudged(const struct storage *s)
{
	int64_t seq = 0;
	ssize_t n = s->lock_fd < 0 ? -1 : pread(s->lock_fd, &seq, sizeof(seq), 0);
	return n == (ssize_t)sizeof(seq) ? seq : 0;
}

int storage_skip(struct storage *s, int64_t seq, const char *why)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SKIP);
	int r = storage_sqlite_bind(s, statement, "ic", seq, why);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0 && s->target == STORAGE_LIVE)
		s->now.position.skipped++;
	return r;
}

static int hand_over(struct storage *s, sqlite3_stmt *statement, struct storage_body_block *block,
		     storage_event_fn fn, void *ctx)
{
	struct storage_event event = {
		.seq = sqlite3_column_int64(statement, 0),
		.source_key = sqlite3_column_int64(statement, 1),
		.time_s = sqlite3_column_int64(statement, 2),
	};
	event.received_unix_ms = event.time_s * 1000 + sqlite3_column_int64(statement, 3);
	char id[EVENT_ID_MAX + 1];
	storage_sqlite_id(statement, 7, id);
	const struct storage_body_place place = { sqlite3_column_int64(statement, 4),
						  sqlite3_column_int64(statement, 5),
						  storage_sqlite_absent(statement, 6) };
	int r = storage_sqlite_body_read(s, block, event.seq, &place, id, &event.body);
	if (r == -EBADMSG) /* who reads it will say so, of this one */
		event.body = (struct span) { "", 0 };
	else if (r < 0)
		return r;
	return fn(ctx, &event);
}

int storage_pending(struct storage *s, int64_t after_seq, size_t limit, storage_event_fn fn,
		    void *ctx)
{
	struct storage_body_block block = { 0 };
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_PENDING);
	int r = storage_sqlite_bind(s, statement, "ii", after_seq, (int64_t)limit);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1)
		r = hand_over(s, statement, &block, fn, ctx);
	if (statement)
		(void)sqlite3_reset(statement);
	storage_sqlite_body_done(&block);
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
	const int64_t values[] = { link->build_key, link->team_key };
	int64_t traits_key = 0;
	int r = 0;
	if (link->build_key || link->team_key)
		r = storage_sqlite_traits_key(s, STORAGE_LINK_TRAITS, values, ARRAY_SIZE(values),
					      &traits_key);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_LINK);
	r = storage_sqlite_bind(s, statement, "izzzzi", link->seq, link->sandbox_key, link->run_key,
				link->template_key, traits_key, link->time_s);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r < 0 || link->time_unix_ms == LEDGER_ABSENT)
		return r;
	return storage_sqlite_book_event(s, link->time_unix_ms, link->template_key, link->kind);
}
