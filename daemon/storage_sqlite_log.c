/* The log: what a delivery becomes. Events with their identity, quarantine and rejections with
 * their bounds, counters. */
#include "storage_sqlite_body.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_traits.h"

#include "clock.h"
#include "signature.h"

#include <errno.h>
#include <string.h>

#define QUARANTINE_AGE_MAX_MS (INT64_C(30) * 86400 * 1000)

static struct span text_span(const char *text)
{
	return (struct span) { text, strlen(text) };
}

/* What all kinds of row have in common. */
struct put {
	const struct storage_delivery *delivery;
	int64_t source_key;
};

/* Quarantine and rejections: bounds --------------------------------------- */

static int side_get(struct storage *s, const char *side, int64_t source_key, int64_t *ret_rows,
		    int64_t *ret_bytes)
{
	*ret_rows = *ret_bytes = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SIDE_GET);
	int r = storage_sqlite_bind(s, statement, "ci", side, source_key);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret_rows = sqlite3_column_int64(statement, 0);
	*ret_bytes = sqlite3_column_int64(statement, 1);
	(void)sqlite3_reset(statement);
	return 0;
}

static int side_add(struct storage *s, const char *side, int64_t source_key, int64_t rows,
		    int64_t bytes, int64_t dropped)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SIDE_ADD);
	int r = storage_sqlite_bind(s, statement, "ciiii", side, source_key, rows, bytes, dropped);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Removes quarantined bodies that are over age, one by one: there are few. */
static int expire_quarantine(struct storage *s, int64_t now_ms)
{
	for (;;) {
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_QUARANTINE_EXPIRE);
		int r = storage_sqlite_bind(s, statement, "i", now_ms - QUARANTINE_AGE_MAX_MS);
		if (r == 0)
			r = storage_sqlite_step(s, statement);
		if (r <= 0)
			return r;
		int64_t source_key = sqlite3_column_int64(statement, 0);
		int64_t bytes = sqlite3_column_int64(statement, 1);
		(void)sqlite3_reset(statement);
		r = side_add(s, "quarantine", source_key, -1, -bytes, 0);
		if (r < 0)
			return r;
	}
}

static int quarantine_has_room(struct storage *s, const struct put *p, bool *ret)
{
	int64_t rows, bytes;
	int r = side_get(s, "quarantine", p->source_key, &rows, &bytes);
	*ret = rows < s->options.quarantine_rows_max &&
	       bytes + (int64_t)p->delivery->body.len <= s->options.quarantine_bytes_max;
	return r;
}

#define DIGEST_KEPT 16 /* bytes; the rest of the SHA-256 tells nothing more */

/* Counts a repeat of what is kept already: that needs no room. */
static int quarantine_again(struct storage *s, const struct put *p, struct span digest,
			    enum ingest_reason reason, bool *ret_known)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_QUARANTINE_AGAIN);
	int r = storage_sqlite_bind(s, statement, "ibc", p->source_key, digest,
				    ingest_reason_name(reason));
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	*ret_known = r == 0 && sqlite3_changes(s->db) == 1;
	return r;
}

static int put_quarantined(struct storage *s, const struct put *p, enum ingest_reason reason,
			   const char *detail, enum storage_outcome *ret_outcome)
{
	const struct storage_delivery *d = p->delivery;
	bool known = false, room = false;
	uint8_t bytes[32];
	const struct span digest = { (const char *)bytes, DIGEST_KEPT };
	int r = signature_sha256(d->body.s, d->body.len, bytes);
	if (r == 0)
		r = expire_quarantine(s, d->received_unix_ms);
	if (r == 0)
		r = quarantine_again(s, p, digest, reason, &known);
	*ret_outcome = STORAGE_QUARANTINED;
	if (r < 0 || known)
		return r;
	r = quarantine_has_room(s, p, &room);
	if (r < 0)
		return r;
	*ret_outcome = room ? STORAGE_QUARANTINED : STORAGE_QUARANTINE_FULL;
	if (!room)
		return 0;
	int64_t webhook_key;
	r = storage_key(s, STORAGE_WORD, d->webhook_id, &webhook_key);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_QUARANTINE_INSERT);
	r = storage_sqlite_bind(s, statement, "iicczdbb", p->source_key, d->received_unix_ms,
				ingest_reason_name(reason), detail, webhook_key, d->delivery_id,
				digest, d->body);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	return r < 0 ? r : side_add(s, "quarantine", p->source_key, 1, (int64_t)d->body.len, 0);
}

static int drop_rejection(struct storage *s, int64_t id, int64_t source_key, int64_t bytes)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_REJECTION_DELETE);
	int r = storage_sqlite_bind(s, statement, "i", id);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	return r < 0 ? r : side_add(s, "rejection", source_key, -1, -bytes, 1);
}

/* The oldest goes first, until one more of `len` bytes fits. */
static int make_room_for_rejection(struct storage *s, int64_t source_key, int64_t len)
{
	for (;;) {
		int64_t rows, bytes;
		int r = side_get(s, "rejection", source_key, &rows, &bytes);
		if (r < 0)
			return r;
		if (rows < s->options.rejection_rows_max &&
		    bytes + len <= s->options.rejection_bytes_max)
			return 0;
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_REJECTION_OLDEST);
		r = storage_sqlite_bind(s, statement, "i", source_key);
		if (r == 0)
			r = storage_sqlite_step(s, statement);
		if (r <= 0)
			return r;
		int64_t id = sqlite3_column_int64(statement, 0),
			size = sqlite3_column_int64(statement, 1);
		(void)sqlite3_reset(statement);
		r = drop_rejection(s, id, source_key, size);
		if (r < 0)
			return r;
	}
}

static int expire_rejections(struct storage *s, int64_t now_ms)
{
	for (;;) {
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_REJECTION_EXPIRED);
		int r = storage_sqlite_bind(s, statement, "i",
					    now_ms - s->options.rejection_age_max_ms);
		if (r == 0)
			r = storage_sqlite_step(s, statement);
		if (r <= 0)
			return r;
		int64_t id = sqlite3_column_int64(statement, 0),
			source_key = sqlite3_column_int64(statement, 1);
		int64_t size = sqlite3_column_int64(statement, 2);
		(void)sqlite3_reset(statement);
		r = drop_rejection(s, id, source_key, size);
		if (r < 0)
			return r;
	}
}

/* Where the signature is well-formed, body and headers are kept: the secret may be what is wrong.
 */
static bool is_well_formed(enum ingest_reason reason)
{
	return reason != INGEST_REASON_SIGNATURE_MISSING &&
	       reason != INGEST_REASON_SIGNATURE_MALFORMED &&
	       reason != INGEST_REASON_BODY_TOO_LARGE;
}

static int put_rejection(struct storage *s, const struct put *p)
{
	const struct storage_delivery *d = p->delivery;
	bool keep = is_well_formed(d->judged->reason) && d->body.s &&
		    (int64_t)d->body.len <= s->options.rejection_bytes_max;
	struct span body = keep ? d->body : SPAN_ABSENT;
	int r = expire_rejections(s, d->received_unix_ms);
	if (r == 0)
		r = make_room_for_rejection(s, p->source_key, (int64_t)body.len);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_REJECTION_INSERT);
	r = storage_sqlite_bind(s, statement, "iiccddsssib", p->source_key, d->received_unix_ms,
				ingest_reason_name(d->judged->reason), d->remote_addr,
				d->webhook_id, d->delivery_id, keep ? d->signature : SPAN_ABSENT,
				keep ? d->signature_id : SPAN_ABSENT,
				keep ? d->signature_timestamp : SPAN_ABSENT, d->body_len, body);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	return r < 0 ? r : side_add(s, "rejection", p->source_key, 1, (int64_t)body.len, 0);
}

static int put_filtered(struct storage *s, const struct put *p)
{
	const struct ingest_result *judged = p->delivery->judged;
	int64_t template_key;
	int r = storage_key(s, STORAGE_TEMPLATE, judged->event.template_id, &template_key);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_FILTER_COUNT);
	r = storage_sqlite_bind(s, statement, "icii", p->source_key,
				ingest_reason_name(judged->reason), template_key,
				p->delivery->received_unix_ms);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Events ------------------------------------------------------------------ */

static int event_traits(struct storage *s, const struct put *p, int64_t *ret_key)
{
	const struct event *e = &p->delivery->judged->event;
	int64_t type_key, webhook_key;
	int r = storage_key(s, STORAGE_WORD, p->delivery->webhook_id, &webhook_key);
	if (r == 0)
		r = storage_sqlite_type_key(s, e, &type_key);
	if (r < 0)
		return r;
	const int64_t values[] = {
		p->source_key,
		type_key,
		e->kind == EVENT_CODE_EXECUTED ? (int64_t)e->execution.failed : INT64_MIN,
		webhook_key,
	};
	return storage_sqlite_traits_key(s, STORAGE_EVENT_TRAITS, values, ARRAY_SIZE(values),
					 ret_key);
}

/* Gives the event the next number. */
static int insert_event(struct storage *s, const struct put *p, int64_t time_s)
{
	const struct storage_delivery *d = p->delivery;
	const struct event *e = &d->judged->event;
	int64_t seq = s->now.position.stored_seq + 1, traits_key;
	struct storage_body_place body = { 0 };
	int r = event_traits(s, p, &traits_key);
	if (r == 0)
		r = storage_sqlite_body_add(s, seq, d->body, e->id, &body);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EVENT_INSERT);
	r = storage_sqlite_bind(s, statement, "iiiDiidiia", seq, time_s,
				e->time_unix_ns - time_s * CLOCK_NS_PER_S, e->id,
				d->received_unix_ms - time_s * 1000, traits_key, d->delivery_id,
				body.at, body.len, body.id_at);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_sqlite_log_again(struct storage *s, int64_t seq, int64_t times)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EVENT_AGAIN);
	int r = storage_sqlite_bind(s, statement, "ii", times, seq);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

static int has_same_body(struct storage *s, const struct storage_known *known, const char *id,
			 struct span body, bool *ret)
{
	struct storage_body_block block = { 0 };
	struct span stored;
	int r = storage_sqlite_body_read(s, &block, known->seq, &known->body, id, &stored);
	if (r == 0)
		*ret = stored.len == body.len && memcmp(stored.s, body.s, body.len) == 0;
	storage_sqlite_body_done(&block);
	return r == -EBADMSG ? 0 : r; /* what is spoiled is not the same */
}

static int put_reused(struct storage *s, const struct put *p, enum storage_outcome *ret_outcome,
		      enum ingest_reason *ret_reason)
{
	*ret_reason = INGEST_REASON_ID_REUSED;
	return put_quarantined(s, p, INGEST_REASON_ID_REUSED,
			       "id: an event with this id and another body is stored", ret_outcome);
}

static int put_known(struct storage *s, const struct put *p, const struct storage_known *known,
		     enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason)
{
	bool same = false;
	int r = has_same_body(s, known, p->delivery->judged->event.id, p->delivery->body, &same);
	if (r < 0)
		return r;
	if (!same)
		return put_reused(s, p, ret_outcome, ret_reason);
	*ret_outcome = STORAGE_DUPLICATE;
	return storage_sqlite_log_again(s, known->seq, 1);
}

/* The horizon moved while the delivery waited, or before those who judge heard of it: what was
 * stored under this id is pruned, and would be counted again. */
static int put_stale(struct storage *s, const struct put *p, enum storage_outcome *ret_outcome,
		     enum ingest_reason *ret_reason)
{
	*ret_reason = INGEST_REASON_STALE;
	return put_quarantined(s, p, INGEST_REASON_STALE, "time: before the retention horizon",
			       ret_outcome);
}

/* A new word comes into the table only with a new event: who repeats one delivery under ever other
 * headers must not fill it. */
static int put_event(struct storage *s, const struct put *p, enum storage_outcome *ret_outcome,
		     enum ingest_reason *ret_reason)
{
	const struct event *e = &p->delivery->judged->event;
	int64_t time_s = event_second(e);
	struct storage_known known;
	int r = storage_sqlite_identity_find(s, e->id, time_s, &known);
	if (r < 0)
		return r;
	if (r == 1)
		return known.time_s == time_s ? put_known(s, p, &known, ret_outcome, ret_reason)
					      : put_reused(s, p, ret_outcome, ret_reason);
	if (time_s < s->now.position.horizon_unix_s)
		return put_stale(s, p, ret_outcome, ret_reason);
	if (storage_sqlite_identity_is_full(s))
		return storage_sqlite_fail(s, SQLITE_BUSY, "the index of event ids fell behind");
	r = insert_event(s, p, time_s);
	if (r < 0)
		return r;
	struct storage_position *at = &s->now.position;
	at->stored_seq++;
	at->newest_unix_s = base_max_i64(at->newest_unix_s, time_s);
	storage_sqlite_identity_add(s, e->id, time_s, at->stored_seq);
	*ret_outcome = STORAGE_STORED;
	return 0;
}

int storage_put(struct storage *s, const struct storage_delivery *delivery,
		enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason)
{
	struct put p = { .delivery = delivery };
	int r = storage_key(s, STORAGE_SOURCE, text_span(delivery->source), &p.source_key);
	if (r < 0)
		return r;
	const struct ingest_result *judged = delivery->judged;
	*ret_reason = judged->reason;
	switch (judged->verdict) {
	case INGEST_STORE:
		return put_event(s, &p, ret_outcome, ret_reason);
	case INGEST_FILTERED:
		*ret_outcome = STORAGE_FILTERED;
		return put_filtered(s, &p);
	case INGEST_QUARANTINE:
		return put_quarantined(s, &p, judged->reason, judged->detail, ret_outcome);
	case INGEST_REJECT:
		*ret_outcome = STORAGE_REJECTED;
		return put_rejection(s, &p);
	}
	return -EINVAL;
}

int storage_count_secret(struct storage *s, const struct storage_secret_use *use)
{
	int64_t source_key;
	int r = storage_key(s, STORAGE_SOURCE, text_span(use->source), &source_key);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_SECRET_USE);
	r = storage_sqlite_bind(s, statement, "iicii", source_key, (int64_t)use->position,
				use->fingerprint, use->n, use->last_unix_ms);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}
