/* Deliveries lent to a writer, and what became of them: whether what was acknowledged is in a store
 * afterwards, once, as it came; and what the store says when all of it is delivered again.
 */
#pragma once

#include "random_events.h"
#include "writer.h"

#include "clock.h"

struct order {
	struct writer_job job;
	struct writer
		*writer; /* asked for its health when the order is answered; NULL: not asked */
	struct ingest_result *judged;
	size_t event; /* in orders.events */
	int health_error; /* last_error at the moment of the answer */
	atomic_bool is_done;
};

struct orders {
	struct random_events events;
	struct order *items;
	size_t n, max;
};

static UNUSED void orders_init(struct orders *o, uint64_t seed, size_t max)
{
	*o = (struct orders) { .max = max };
	random_init(&o->events, seed, max / 2);
	o->items = calloc(max, sizeof(*o->items));
	assert_non_null(o->items);
}

static UNUSED void orders_finish(struct orders *o)
{
	for (size_t i = 0; i < o->n; i++)
		ingest_result_unref(o->items[i].judged);
	free(o->items);
	random_finish(&o->events);
}

static void order_done(struct writer_job *job)
{
	struct order *o = (struct order *)(void *)job; /* its first member */
	struct writer_health health = { 0 };
	if (o->writer)
		writer_health(o->writer, &health);
	o->health_error = health.last_error;
	atomic_store(&o->is_done, true);
}

/* One more, ready to be lent; the fold may share its verdict or must read the body again. */
static UNUSED struct order *orders_add(struct orders *orders, bool is_shared, bool durable)
{
	static const struct ingest_policy all;
	const struct random_event *e = random_next(&orders->events);
	assert_true(orders->n < orders->max);
	struct order *o = &orders->items[orders->n++];
	o->event = (size_t)(e - orders->events.events);
	o->judged = ingest_result_new();
	assert_non_null(o->judged);
	struct span body = { e->body, strlen(e->body) };
	assert_int_equal(ingest_judge_body(o->judged, &all, NULL, body, RECEIVED_MS, 0), 0);
	o->job.delivery = (struct storage_delivery) {
		.source = "e2b",
		.remote_addr = "192.0.2.7",
		.received_unix_ms = RECEIVED_MS,
		.body = body,
		.body_len = (int64_t)body.len,
		.judged = o->judged,
	};
	o->job.shared = is_shared ? o->judged : NULL;
	o->job.durable = durable;
	o->job.done = order_done;
	return o;
}

/* 30 real seconds at most. */
static UNUSED bool order_wait(struct order *o)
{
	for (int i = 0; i < 1500000 && !atomic_load(&o->is_done); i++) {
		const struct timespec pause = { 0, 20000 };
		(void)nanosleep(&pause, NULL);
	}
	return atomic_load(&o->is_done);
}

static UNUSED bool order_was_acknowledged(const struct order *o)
{
	return atomic_load(&o->is_done) && o->job.status == 0 &&
	       o->job.outcome != STORAGE_QUARANTINE_FULL;
}

/* Afterwards ---------------------------------------------------------------- */

static int64_t horizon_of(struct world *w)
{
	struct storage_position at;
	assert_int_equal(storage_position(w->s, &at), 0);
	return at.horizon_unix_s;
}

/* How often the store has this event, with exactly this body; or whether it has it in quarantine:
 * an id that was reused may come again when it is stale, and is kept under either reason. */
enum { IN_EVENTS, IN_QUARANTINE };
static const char *const order_counts[] = {
	[IN_EVENTS] = "SELECT count(*) FROM events WHERE payload = ? AND event_id = ?",
	[IN_QUARANTINE] = "SELECT count(*) > 0 FROM quarantine WHERE payload = ? AND ? IS NOT NULL",
};

static int64_t order_count(sqlite3_stmt *statement, const struct random_event *e)
{
	(void)sqlite3_reset(statement);
	(void)sqlite3_bind_text(statement, 1, e->body, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 2, e->id, -1, SQLITE_STATIC);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	return sqlite3_column_int64(statement, 0);
}

/* How many acknowledged deliveries are not there. What is there more than once ends the test. */
static UNUSED int orders_lost(const struct orders *orders, struct world *w)
{
	int lost = 0;
	int64_t horizon_s = horizon_of(w);
	sqlite3 *db = NULL;
	sqlite3_stmt *statements[ARRAY_SIZE(order_counts)];
	assert_int_equal(sqlite3_open_v2(w->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	for (size_t i = 0; i < ARRAY_SIZE(order_counts); i++)
		assert_int_equal(sqlite3_prepare_v2(db, order_counts[i], -1, &statements[i], NULL),
				 SQLITE_OK);
	for (size_t i = 0; i < orders->n; i++) {
		const struct order *o = &orders->items[i];
		const struct random_event *e = &orders->events.events[o->event];
		bool acknowledged = order_was_acknowledged(o);
		bool aside = acknowledged && o->job.outcome == STORAGE_QUARANTINED;
		int64_t n = order_count(statements[aside ? IN_QUARANTINE : IN_EVENTS], e);
		assert_in_range(n, 0, 1);
		bool may_be_gone = !acknowledged || (!aside && e->time_s < horizon_s);
		lost += n == 0 && !may_be_gone;
	}
	for (size_t i = 0; i < ARRAY_SIZE(order_counts); i++)
		(void)sqlite3_finalize(statements[i]);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	expect_rows(w, "SELECT count(*) - count(DISTINCT event_id) FROM events", "0");
	expect_rows(w,
		    "SELECT count(*) FROM (SELECT 1 FROM quarantine GROUP BY payload, reason"
		    " HAVING count(*) > 1)",
		    "0");
	return lost;
}

/* What was acknowledged and is delivered again is a repeat; the rest is new or one. */
static UNUSED void orders_deliver_again(struct orders *orders, struct world *w)
{
	int64_t horizon_s = horizon_of(w);
	enum ingest_reason reason;
	assert_int_equal(storage_begin(w->s, true), 0);
	for (size_t i = 0; i < orders->n; i++) {
		struct order *o = &orders->items[i];
		enum storage_outcome outcome;
		if (orders->events.events[o->event].time_s < horizon_s)
			continue;
		assert_int_equal(storage_put(w->s, &o->job.delivery, &outcome, &reason), 0);
		/* What an id was first used for may have been pruned. */
		if (!order_was_acknowledged(o) || o->job.reason == INGEST_REASON_ID_REUSED)
			assert_in_range(outcome, STORAGE_STORED, STORAGE_QUARANTINED);
		else if (o->job.outcome == STORAGE_QUARANTINED)
			assert_int_equal(outcome, STORAGE_QUARANTINED);
		else
			assert_int_equal(outcome, STORAGE_DUPLICATE);
	}
	assert_int_equal(storage_commit(w->s), 0);
}
