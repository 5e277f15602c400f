/* What was set aside, taken up again: reading it, putting the new verdict in its place.
 *
 * Invariant: a row leaves its side in the transaction that keeps what became of it, and side_size
 * with it. Putting can end where the row already is (quarantined again, no room): that is undone to
 * a savepoint, so that nothing is counted or kept twice.
 */
#include "storage_sqlite_identity.h"

#include <errno.h>
#include <string.h>

static const struct {
	const char *name; /* in side_size */
	enum storage_sql range, next, take;
} sides[] = {
	[STORAGE_SIDE_QUARANTINE] = { "quarantine", SQL_QUARANTINE_RANGE, SQL_QUARANTINE_NEXT,
				      SQL_QUARANTINE_DELETE },
	[STORAGE_SIDE_REJECTIONS] = { "rejection", SQL_REJECTION_RANGE, SQL_REJECTION_NEXT,
				      SQL_REJECTION_TAKE },
};

/* Reading ------------------------------------------------------------------ */

int storage_aside_range(struct storage *s, enum storage_side side, int64_t *ret_first,
			int64_t *ret_last)
{
	*ret_first = *ret_last = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, sides[side].range);
	int r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret_first = sqlite3_column_int64(statement, 0);
	*ret_last = sqlite3_column_int64(statement, 1);
	(void)sqlite3_reset(statement);
	return 0;
}

void storage_aside_finish(struct storage_aside *aside)
{
	free(aside->memory);
	aside->memory = NULL;
}

enum column {
	COLUMN_ID,
	COLUMN_RECEIVED,
	COLUMN_DELIVERIES,
	COLUMN_SIZE,
	COLUMN_SOURCE,
	COLUMN_WEBHOOK_ID,
	COLUMN_DELIVERY_ID,
	COLUMN_REMOTE,
	COLUMN_SIGNATURE,
	COLUMN_SIGNATURE_ID,
	COLUMN_SIGNATURE_TIMESTAMP,
	COLUMN_REASON,
	COLUMN_PAYLOAD,
	COLUMN_N,
};

/* A column into *at, NUL behind it. NULL stays absent. Ids may be kept as the 16 bytes of a UUID.
 */
static struct span copy_column(sqlite3_stmt *statement, int column, char **at)
{
	char id[EVENT_ID_MAX + 1];
	bool is_id = column == COLUMN_WEBHOOK_ID || column == COLUMN_DELIVERY_ID;
	if (sqlite3_column_type(statement, column) == SQLITE_NULL)
		return SPAN_ABSENT;
	if (is_id)
		storage_sqlite_id(statement, column, id);
	const void *from = is_id ? id : sqlite3_column_blob(statement, column);
	size_t len = is_id ? strlen(id) : (size_t)sqlite3_column_bytes(statement, column);
	struct span copy = { *at, len };
	if (len)
		memcpy(*at, from, len);
	(*at)[len] = '\0';
	*at += len + 1;
	return copy;
}

static int read_aside(sqlite3_stmt *statement, struct storage_aside *ret)
{
	size_t size = 0;
	for (int i = COLUMN_SOURCE; i < COLUMN_N; i++)
		size += (size_t)sqlite3_column_bytes(statement, i) + EVENT_ID_MAX + 1;
	ret->memory = malloc(size);
	if (!ret->memory)
		return -ENOMEM;
	char *at = ret->memory;
	struct span texts[COLUMN_N];
	for (int i = COLUMN_SOURCE; i < COLUMN_N; i++)
		texts[i] = copy_column(statement, i, &at);
	ret->id = sqlite3_column_int64(statement, COLUMN_ID);
	ret->deliveries = sqlite3_column_int64(statement, COLUMN_DELIVERIES);
	ret->reason = texts[COLUMN_REASON].s;
	ret->delivery = (struct storage_delivery) {
		.source = texts[COLUMN_SOURCE].s,
		.webhook_id = texts[COLUMN_WEBHOOK_ID],
		.delivery_id = texts[COLUMN_DELIVERY_ID],
		.signature = texts[COLUMN_SIGNATURE],
		.signature_id = texts[COLUMN_SIGNATURE_ID],
		.signature_timestamp = texts[COLUMN_SIGNATURE_TIMESTAMP],
		.remote_addr = texts[COLUMN_REMOTE].s,
		.received_unix_ms = sqlite3_column_int64(statement, COLUMN_RECEIVED),
		.body = texts[COLUMN_PAYLOAD],
		.body_len = sqlite3_column_int64(statement, COLUMN_SIZE),
	};
	return 0;
}

int storage_aside_next(struct storage *s, const struct storage_aside_filter *filter,
		       int64_t after_id, int64_t until_id, struct storage_aside *ret)
{
	*ret = (struct storage_aside) { .side = filter->side };
	sqlite3_stmt *statement = storage_sqlite_statement(s, sides[filter->side].next);
	int r = storage_sqlite_bind(s, statement, "iicc", after_id, until_id, filter->source,
				    filter->reason);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	r = read_aside(statement, ret);
	(void)sqlite3_reset(statement);
	return r < 0 ? r : 1;
}

/* Settling ----------------------------------------------------------------- */

/* Removes the row from its side. */
static int take_away(struct storage *s, const struct storage_aside *aside)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sides[aside->side].take);
	int r = storage_sqlite_bind(s, statement, "i", aside->id);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	int64_t source_key = sqlite3_column_int64(statement, 0);
	int64_t bytes = sqlite3_column_int64(statement, 1);
	(void)sqlite3_reset(statement);
	statement = storage_sqlite_statement(s, SQL_SIDE_ADD);
	r = storage_sqlite_bind(s, statement, "ciiii", sides[aside->side].name, source_key,
				INT64_C(-1), -bytes, INT64_C(0));
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* A body is in quarantine once for each reason: if it is there under the new one, too, the rows
 * become one. */
static int keep_quarantined(struct storage *s, const struct storage_aside *aside,
			    enum ingest_reason reason, const char *detail)
{
	const char *name = ingest_reason_name(reason);
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_QUARANTINE_REASON);
	int r = storage_sqlite_bind(s, statement, "cci", name, detail, aside->id);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r < 0 || sqlite3_changes(s->db) == 1)
		return r;
	statement = storage_sqlite_statement(s, SQL_QUARANTINE_MERGE);
	r = storage_sqlite_bind(s, statement, "ic", aside->id, name);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	return r < 0 ? r : take_away(s, aside);
}

static int keep(struct storage *s, const struct storage_aside *aside, enum ingest_reason reason,
		const char *detail, enum storage_outcome *ret_outcome)
{
	bool is_quarantined = aside->side == STORAGE_SIDE_QUARANTINE;
	*ret_outcome = is_quarantined ? STORAGE_QUARANTINED : STORAGE_REJECTED;
	if (strcmp(aside->reason, ingest_reason_name(reason)) == 0)
		return 0;
	if (is_quarantined)
		return keep_quarantined(s, aside, reason, detail);
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_REJECTION_REASON);
	int r = storage_sqlite_bind(s, statement, "ci", ingest_reason_name(reason), aside->id);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* The event was delivered as often as its body came into quarantine. */
static int add_deliveries(struct storage *s, const struct storage_aside *aside)
{
	const struct event *e = &aside->delivery.judged->event;
	struct storage_known known;
	if (aside->deliveries <= 1)
		return 0;
	int r = storage_sqlite_identity_find(s, e->id, event_second(e), &known);
	return r <= 0 ? r : storage_sqlite_log_again(s, known.seq, aside->deliveries - 1);
}

static int run(struct storage *s, enum storage_sql sql)
{
	return storage_sqlite_run(s, storage_sqlite_statement(s, sql));
}

/* Keys given since the savepoint are free again. */
static int undo(struct storage *s)
{
	int r = run(s, SQL_REQUEUE_UNDO);
	storage_sqlite_forget_dims(s);
	return r < 0 ? r : run(s, SQL_REQUEUE_RELEASE);
}

static bool is_refused(const struct storage_aside *aside, enum storage_outcome outcome)
{
	return outcome == STORAGE_QUARANTINE_FULL ||
	       (outcome == STORAGE_QUARANTINED && aside->side == STORAGE_SIDE_QUARANTINE);
}

static int put(struct storage *s, const struct storage_aside *aside,
	       enum storage_outcome *ret_outcome)
{
	enum ingest_reason reason = INGEST_REASON_NONE;
	int r = run(s, SQL_REQUEUE_SAVE);
	if (r == 0)
		r = storage_put(s, &aside->delivery, ret_outcome, &reason);
	if (r < 0)
		return r;
	if (!is_refused(aside, *ret_outcome)) {
		if (*ret_outcome == STORAGE_STORED || *ret_outcome == STORAGE_DUPLICATE)
			r = add_deliveries(s, aside);
		if (r == 0)
			r = take_away(s, aside);
		return r < 0 ? r : run(s, SQL_REQUEUE_RELEASE);
	}
	r = undo(s);
	if (r < 0 || aside->side == STORAGE_SIDE_REJECTIONS)
		return r; /* no room in quarantine: it waits where it is */
	return keep(s, aside, reason, "id: an event with this id and another body is stored",
		    ret_outcome);
}

int storage_put_aside(struct storage *s, const struct storage_aside *aside,
		      enum storage_outcome *ret_outcome)
{
	const struct ingest_result *judged = aside->delivery.judged;
	bool stays = judged->verdict == INGEST_REJECT || (judged->verdict == INGEST_QUARANTINE &&
							  aside->side == STORAGE_SIDE_QUARANTINE);
	return stays ? keep(s, aside, judged->reason, judged->detail, ret_outcome)
		     : put(s, aside, ret_outcome);
}

/* Skipped events ----------------------------------------------------------- */

int storage_skipped_next(struct storage *s, const char *source, int64_t after_seq, int64_t *ret_seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SKIPPED_NEXT);
	int r = storage_sqlite_bind(s, statement, "ic", after_seq, source);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret_seq = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 1;
}

int storage_unskip(struct storage *s, int64_t seq)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SKIPPED_DELETE);
	int r = storage_sqlite_bind(s, statement, "i", seq);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		s->now.position.skipped -= sqlite3_changes(s->db);
	return r;
}
