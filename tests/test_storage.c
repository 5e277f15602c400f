/* What a storage engine is: the log with its identity and its bounds, transactions, positions.
 *
 * Everything is put through storage.h and read back through SQL, as a dashboard would. The ledger's
 * rows are in test_storage_ledger.c, opening and refusing in test_storage_open.c.
 */
#include "storage_fixture.h"

#include "clock.h"

static const struct told created = {
	.id = "ev-1",
	.type = "sandbox.lifecycle.created",
	.time = "2026-11-20T09:00:00.5Z",
	.sandbox = "sb1",
	.run = "run1",
	.template = "tpl1",
};

/* Events ------------------------------------------------------------------ */

static void keeps_an_event_byte_for_byte(void **state)
{
	struct world *w = *state;
	PARCEL p;
	init_story(&p, "24-v2-unicode-metadata");
	p.delivery.webhook_id = SPAN_LITERAL("6a0b6f0e-6f1f-4d3c-9a55-2c1f5f8f7a10");
	p.delivery.delivery_id = SPAN_LITERAL("c5c2c2af-3977-4654-9935-65976fbaf662");
	assert_int_equal(put(w, &p), STORAGE_STORED);
	CLEANUP_FREE char *payload = rows_of(w, "SELECT payload FROM events");
	assert_string_equal(payload, p.body);
	expect_rows(w,
		    "SELECT seq, source, received_at, webhook_id, delivery_id, deliveries, failed "
		    "FROM events",
		    "1|e2b|2026-11-20T17:00:00.000Z|6a0b6f0e-6f1f-4d3c-9a55-2c1f5f8f7a10|"
		    "c5c2c2af-3977-4654-9935-65976fbaf662|1|-");
}

/* The id is kept once only, wherever a body has it; what is shown is what came. */
static void keeps_a_body_whole_that_names_its_id_anywhere(void **state)
{
#define ID "0b8f8c1e-3a57-4c2f-9d0a-6f1f3f1b2c4"
#define REST ",\"type\":\"x\",\"timestamp\":\"2026-11-20T09:00:00Z\""
	static const char *const bodies[] = {
		"{\"id\":\"" ID "1\"" REST "}",
		"{\"a\":\"" ID "2" ID "2\"" REST ",\"id\":\"" ID "2\"}",
		"{\"id\":\"0\\u0062"
		"8f8c1e-3a57-4c2f-9d0a-6f1f3f1b2c43\"" REST "}",
		"{\"id\":\""
		"0B8F8C1E-3A57-4C2F-9D0A-6F1F3F1B2C44\"" REST "}",
		"{\"id\":\"no-uuid\"" REST "}",
	};
#undef ID
#undef REST
	struct world *w = *state;
	for (size_t round = 0; round < 2; round++) {
		assert_int_equal(storage_begin(w->s, true), 0);
		for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
			PARCEL p;
			enum storage_outcome outcome;
			enum ingest_reason reason;
			init_parcel(&p, bodies[i]);
			assert_int_equal(storage_put(w->s, &p.delivery, &outcome, &reason), 0);
			assert_int_equal(outcome, round ? STORAGE_DUPLICATE : STORAGE_STORED);
		}
		assert_int_equal(storage_commit(w->s), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		char sql[64];
		(void)snprintf(sql, sizeof(sql), "SELECT payload FROM events WHERE seq = %zu",
			       i + 1);
		expect_rows(w, sql, bodies[i]);
	}
	expect_rows(w, "SELECT count(id_at) FROM event", "2");
}

static void counts_a_repeat_on_the_event(void **state)
{
	struct world *w = *state;
	PARCEL first, again;
	init_story(&first, "11-v2-killed-request");
	init_story(&again, "12-v2-killed-request-retry");
	again.delivery.delivery_id = SPAN_LITERAL("other");
	assert_int_equal(put(w, &first), STORAGE_STORED);
	assert_int_equal(put(w, &again), STORAGE_DUPLICATE);
	again.delivery.source = "another source";
	assert_int_equal(put(w, &again), STORAGE_DUPLICATE);
	reopen(w);
	assert_int_equal(put(w, &again), STORAGE_DUPLICATE);
	expect_rows(w, "SELECT count(*), max(deliveries), max(source) FROM events", "1|4|e2b");
}

static void counts_a_repeat_within_one_transaction(void **state)
{
	struct world *w = *state;
	PARCEL p;
	enum ingest_reason reason;
	init_told(&p, created);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
	assert_int_equal(put_open(w, &p, &reason), STORAGE_DUPLICATE);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(w, "SELECT deliveries FROM events", "2");
}

static void knows_a_body_without_an_id_again(void **state)
{
	struct world *w = *state;
	struct told nameless = created, other = created;
	nameless.id = other.id = NULL;
	other.sandbox = "sb2";
	assert_int_equal(put_told(w, nameless), STORAGE_STORED);
	assert_int_equal(put_told(w, nameless), STORAGE_DUPLICATE);
	assert_int_equal(put_told(w, other), STORAGE_STORED);
	expect_rows(w, "SELECT count(*) FROM events WHERE event_id LIKE 'body:%'", "2");
}

/* The same id with another body, in the same second and in another one. */
static void quarantines_an_id_that_is_used_again(void **state)
{
	struct world *w = *state;
	struct told same_second = created, later = created;
	same_second.time = "2026-11-20T09:00:00.6Z";
	later.time = "2026-11-20T10:00:00Z";
	enum ingest_reason reason = INGEST_REASON_NONE;
	assert_int_equal(put_told(w, created), STORAGE_STORED);
	PARCEL a, b;
	init_told(&a, same_second);
	init_told(&b, later);
	assert_int_equal(put_for(w, &a, &reason), STORAGE_QUARANTINED);
	assert_int_equal(reason, INGEST_REASON_ID_REUSED);
	reopen(w); /* what was stored by an earlier process counts, too */
	reason = INGEST_REASON_NONE;
	assert_int_equal(put_for(w, &b, &reason), STORAGE_QUARANTINED);
	assert_int_equal(reason, INGEST_REASON_ID_REUSED);
	expect_rows(w, "SELECT count(*) FROM events", "1");
	expect_rows(w, "SELECT reason, payload LIKE '%09:00:00.6Z%' FROM quarantine ORDER BY id",
		    "id_reused|1\nid_reused|0");
}

/* Judged before the horizon moved, written after what it repeats was pruned. */
static void quarantines_what_the_horizon_overtook(void **state)
{
	struct world *w = *state;
	struct told at = created, before = created;
	before.id = "overtaken";
	before.time = "2026-11-20T08:59:59.9Z";
	enum ingest_reason reason = INGEST_REASON_NONE;
	assert_int_equal(put_told(w, created), STORAGE_STORED);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_horizon(w->s, INT64_C(1795165200)), 0); /* 09:00:00 */
	assert_int_equal(storage_commit(w->s), 0);
	PARCEL p;
	init_told(&p, before);
	assert_int_equal(put_for(w, &p, &reason), STORAGE_QUARANTINED);
	assert_int_equal(reason, INGEST_REASON_STALE);
	assert_int_equal(put_told(w, created), STORAGE_DUPLICATE);
	at.id = "at";
	assert_int_equal(put_told(w, at), STORAGE_STORED);
	expect_rows(w, "SELECT reason FROM quarantine", "stale");
}

static void tells_types_apart_whatever_is_in_their_names(void **state)
{
	struct world *w = *state;
	const char *bodies[] = {
		"{\"id\":\"1\",\"type\":\"x/"
		"y\",\"version\":\"z\",\"timestamp\":\"2026-11-20T09:00:00Z\"}",
		"{\"id\":\"2\",\"type\":\"x\",\"version\":\"y/"
		"z\",\"timestamp\":\"2026-11-20T09:00:00Z\"}",
		"{\"id\":\"3\",\"type\":\"x\",\"timestamp\":\"2026-11-20T09:00:00Z\"}",
		"{\"id\":\"4\",\"type\":\"x\",\"timestamp\":\"2026-11-20T09:00:00Z\"}",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		PARCEL p;
		init_parcel(&p, bodies[i]);
		assert_int_equal(put(w, &p), STORAGE_STORED);
	}
	expect_rows(w, "SELECT type, envelope_version FROM events ORDER BY seq",
		    "x/y|z\nx|y/z\nx|-\nx|-");
	expect_rows(w, "SELECT count(*) FROM event_type", "3");
}

/* An unsigned header is a stranger's choice: who repeats one delivery must not grow a table. */
static void keeps_no_header_of_a_repeat(void **state)
{
	struct world *w = *state;
	const char *bodies[] = {
		"{\"id\":\"1\",\"type\":\"x\",\"timestamp\":\"2026-11-20T09:00:00Z\"}", "{\"id\":1}"
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
		PARCEL p;
		init_parcel(&p, bodies[i]);
		p.delivery.webhook_id = SPAN_LITERAL("first");
		(void)put(w, &p);
		p.delivery.webhook_id = SPAN_LITERAL("forged");
		(void)put(w, &p);
	}
	expect_rows(w, "SELECT word FROM word", "first");
	expect_rows(w, "SELECT webhook_id FROM events UNION ALL SELECT webhook_id FROM quarantine",
		    "first\nfirst");
}

/* Transactions ------------------------------------------------------------ */

static void forgets_what_was_rolled_back(void **state)
{
	struct world *w = *state;
	PARCEL p;
	enum ingest_reason reason;
	struct storage_position at;
	init_told(&p, created);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
	assert_int_equal(storage_set_folded(w->s, 7), 0);
	assert_int_equal(storage_set_horizon(w->s, 1000), 0);
	assert_int_equal(storage_set_trying(w->s, 9, 1), 0);
	assert_int_equal(storage_skip(w->s, 5, "why"), 0);
	storage_rollback(w->s);
	assert_int_equal(storage_position(w->s, &at), 0);
	assert_int_equal(at.stored_seq, 0);
	assert_int_equal(at.folded_seq, 0);
	assert_int_equal(at.horizon_unix_s, 0);
	assert_int_equal(at.trying_seq, 0);
	assert_int_equal(at.newest_unix_s, 0);
	assert_int_equal(at.skipped, 0);
	/* And its id may come again, at another time too. */
	struct told later = created;
	later.time = "2026-11-20T10:00:00Z";
	assert_int_equal(put_told(w, later), STORAGE_STORED);
	expect_rows(w, "SELECT seq, occurred_at FROM events", "1|2026-11-20T10:00:00.000Z");
}

/* A key given in a lost transaction is given again, to another text. */
static void forgets_keys_that_were_rolled_back(void **state)
{
	struct world *w = *state;
	int64_t lost, other, again;
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEMPLATE, SPAN_LITERAL("lost"), &lost), 0);
	storage_rollback(w->s);
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEMPLATE, SPAN_LITERAL("other"), &other), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEMPLATE, SPAN_LITERAL("lost"), &again), 0);
	assert_int_equal(storage_commit(w->s), 0);
	assert_int_equal(lost, other);
	assert_true(again != other);
}

/* Again and again: a setting that is made once and believed for ever would show. */
static void syncs_what_is_durable_and_nothing_else(void **state)
{
	struct world *w = *state;
	PARCEL p;
	enum ingest_reason reason;
	init_told(&p, created);
	for (int i = 0; i < 6; i++) {
		bool durable = i % 2 == 1;
		long before = atomic_load(&disk.syncs);
		assert_int_equal(storage_begin(w->s, durable), 0);
		(void)put_open(w, &p, &reason);
		assert_int_equal(storage_commit(w->s), 0);
		long after = atomic_load(&disk.syncs);
		if (durable)
			assert_true(after > before);
		else if (i > 0) /* the very first writes the header of the log */
			assert_int_equal(after, before);
	}
}

static int64_t stored_seq(const struct world *w)
{
	struct storage_position at;
	assert_int_equal(storage_position(w->s, &at), 0);
	return at.stored_seq;
}

/* A transaction that stayed open would keep the log from being moved, and a tool from the store. */
static void lets_go_of_what_is_rolled_back(void **state)
{
	struct world *w = *state;
	sqlite3 *db = NULL;
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_set_horizon(w->s, 5), 0);
	storage_rollback(w->s);
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE; ROLLBACK", NULL, NULL, NULL),
			 SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	expect_rows(w, "SELECT horizon_s FROM position", "0");
}

/* Whichever read, write or sync fails: success means kept, failure means nothing half kept, and the
 * store goes on afterwards. */
static void survives_a_disk_that_fails_anywhere(void **state)
{
	struct world *w = *state;
	int64_t n_kept = 0;
	int failures = 0;
	for (long n = 1; n <= 40; n++) {
		char id[32];
		(void)snprintf(id, sizeof(id), "ev-%ld", n);
		struct told t = created;
		t.id = id;
		PARCEL p;
		init_told(&p, t);
		reopen(w); /* so that reading is needed, too */
		enum storage_outcome outcome = STORAGE_REJECTED;
		enum ingest_reason reason;
		disk_break(n, n % 3 == 0 ? EIO : n % 3 == 1 ? ENOSPC : ESTALE, false);
		int r = storage_begin(w->s, true);
		bool begun = r == 0;
		if (r == 0)
			r = storage_put(w->s, &p.delivery, &outcome, &reason);
		if (r == 0)
			r = storage_commit(w->s);
		if (r < 0 && begun)
			storage_rollback(w->s);
		disk_mend();
		if (r < 0) {
			failures++;
			assert_true(r == -EIO || r == -ENOSPC || r == -EUCLEAN);
			assert_int_equal(stored_seq(w), n_kept);
			outcome = put(w, &p);
		}
		assert_int_equal(outcome, STORAGE_STORED);
		assert_int_equal(stored_seq(w), ++n_kept);
	}
	assert_true(failures > 3);
	expect_rows(w, "SELECT count(*), max(seq), max(deliveries) FROM events", "40|40|1");
}

/* After some errors SQLite rolls back by itself; what follows must not be kept alone. (Not after
 * EIO on reading, which it takes for corruption.) */
static void keeps_nothing_of_a_transaction_that_the_disk_ended(void **state)
{
	struct world *w = *state;
	(void)put_told(w, created);
	reopen(w);
	assert_int_equal(storage_begin(w->s, true), 0);
	struct told other = created;
	other.id = "ev-2";
	PARCEL p;
	enum ingest_reason reason;
	init_told(&p, other);
	assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
	disk_break(1, ESTALE, true);
	char name[32];
	assert_true(storage_text(w->s, STORAGE_TEAM, 1, name, sizeof(name)) < 0);
	disk_mend();
	assert_int_equal(storage_set_folded(w->s, 2), -EIO);
	assert_true(storage_commit(w->s) < 0);
	storage_rollback(w->s);
	expect_rows(w, "SELECT stored_seq, folded_seq FROM ledger_state", "1|0");
}

/* Quarantine -------------------------------------------------------------- */

static enum storage_outcome put_body(struct world *w, const char *source, const char *body,
				     int64_t received_ms)
{
	PARCEL p;
	init_parcel(&p, body);
	p.delivery.source = source;
	p.delivery.received_unix_ms = received_ms;
	return put(w, &p);
}

static void quarantines_a_body_once_with_its_reason(void **state)
{
	struct world *w = *state;
	assert_int_equal(put_body(w, "e2b", "{\"id\":7}", RECEIVED_MS), STORAGE_QUARANTINED);
	assert_int_equal(put_body(w, "e2b", "{\"id\":7}", RECEIVED_MS + 1), STORAGE_QUARANTINED);
	assert_int_equal(put_body(w, "other", "{\"id\":7}", RECEIVED_MS), STORAGE_QUARANTINED);
	expect_rows(
		w,
		"SELECT source, reason, detail, payload, received_at FROM quarantine ORDER BY id",
		"e2b|wrong_type|id: must be a string|{\"id\":7}|2026-11-20T17:00:00.000Z\n"
		"other|wrong_type|id: must be a string|{\"id\":7}|2026-11-20T17:00:00.000Z");
	expect_rows(w, "SELECT deliveries FROM quarantined_body ORDER BY id", "2\n1");
}

static void refuses_what_the_quarantine_cannot_hold(void **state)
{
	struct world *w = *state;
	char body[64];
	for (int i = 0; i < 3; i++) {
		(void)snprintf(body, sizeof(body), "{\"id\":%d}", i);
		assert_int_equal(put_body(w, "e2b", body, RECEIVED_MS), STORAGE_QUARANTINED);
	}
	assert_int_equal(put_body(w, "e2b", "{\"id\":9}", RECEIVED_MS), STORAGE_QUARANTINE_FULL);
	/* Another source has room of its own; what is kept already needs none; events go on. */
	assert_int_equal(put_body(w, "other", "{\"id\":9}", RECEIVED_MS), STORAGE_QUARANTINED);
	assert_int_equal(put_body(w, "e2b", "{\"id\":1}", RECEIVED_MS), STORAGE_QUARANTINED);
	assert_int_equal(put_told(w, created), STORAGE_STORED);
	expect_rows(w, "SELECT source, count(*) FROM quarantine GROUP BY source", "e2b|3\nother|1");
	/* An id used again needs room, too. */
	struct told reused = created;
	reused.time = "2026-11-20T09:30:00Z";
	assert_int_equal(put_told(w, reused), STORAGE_QUARANTINE_FULL);
	/* After 30 days there is room again. */
	int64_t later = RECEIVED_MS + 30 * INT64_C(86400000) + 1;
	assert_int_equal(put_body(w, "e2b", "{\"id\":9}", later), STORAGE_QUARANTINED);
	expect_rows(w, "SELECT source, payload FROM quarantine", "e2b|{\"id\":9}");
	expect_rows(w, "SELECT n_rows, bytes FROM side_size ORDER BY source_key", "1|8\n0|0");
}

static void bounds_the_bytes_in_quarantine(void **state)
{
	struct world *w = *state;
	char body[1024];
	for (int i = 0; i < 2; i++) {
		(void)snprintf(body, sizeof(body), "{\"id\":%d,\"x\":\"%0*d\"}", i, 900, i);
		assert_int_equal(put_body(w, "e2b", body, RECEIVED_MS), STORAGE_QUARANTINED);
	}
	(void)snprintf(body, sizeof(body), "{\"id\":2,\"x\":\"%0*d\"}", 300, 2);
	assert_int_equal(put_body(w, "e2b", body, RECEIVED_MS), STORAGE_QUARANTINE_FULL);
	(void)snprintf(body, sizeof(body), "{\"id\":2,\"x\":\"%0*d\"}", 100, 2);
	assert_int_equal(put_body(w, "e2b", body, RECEIVED_MS), STORAGE_QUARANTINED);
}

/* Rejections -------------------------------------------------------------- */

static enum storage_outcome reject(struct world *w, enum ingest_reason reason, const char *body,
				   int64_t received_ms)
{
	PARCEL p;
	init_parcel(&p, body);
	p.judged.verdict = INGEST_REJECT;
	p.judged.reason = reason;
	p.delivery.received_unix_ms = received_ms;
	p.delivery.signature = SPAN_LITERAL("the-signature");
	p.delivery.signature_id = SPAN_LITERAL("the-id");
	p.delivery.webhook_id = SPAN_LITERAL("hook");
	return put(w, &p);
}

/* With the body and the headers only where the signature is well-formed: those alone could be
 * accepted later, and everyone can send the others. */
static void keeps_a_rejection_with_what_may_be_needed_again(void **state)
{
	struct world *w = *state;
	w->options.rejection_rows_max = 10;
	reopen(w);
	static const struct {
		enum ingest_reason reason;
		const char *kept;
	} cases[] = {
		{ INGEST_REASON_SIGNATURE_MISSING, "signature_missing|-|-|-" },
		{ INGEST_REASON_SIGNATURE_MALFORMED, "signature_malformed|-|-|-" },
		{ INGEST_REASON_BODY_TOO_LARGE, "body_too_large|-|-|-" },
		{ INGEST_REASON_SIGNATURE_WRONG, "signature_wrong|the-signature|the-id|{}" },
		{ INGEST_REASON_SIGNATURE_EXPIRED, "signature_expired|the-signature|the-id|{}" },
		{ INGEST_REASON_NOT_ONE_OBJECT, "not_one_object|the-signature|the-id|{}" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(reject(w, cases[i].reason, "{}", RECEIVED_MS), STORAGE_REJECTED);
		expect_rows(w,
			    "SELECT reason, signature, signature_id, CAST(payload AS TEXT) FROM "
			    "rejection"
			    " ORDER BY id DESC LIMIT 1",
			    cases[i].kept);
	}
	expect_rows(w,
		    "SELECT received_at, source, remote_addr, webhook_id, payload_size FROM "
		    "rejections LIMIT 1",
		    "2026-11-20T17:00:00.000Z|e2b|192.0.2.7|hook|2");
	expect_rows(w, "SELECT count(*) FROM word",
		    "0"); /* strangers fill no table without bound */
}

static void drops_the_oldest_rejections(void **state)
{
	struct world *w = *state;
	char body[1024];
	for (int i = 0; i < 5; i++) {
		(void)snprintf(body, sizeof(body), "%d", i);
		(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, body, RECEIVED_MS + i);
	}
	expect_rows(w, "SELECT CAST(payload AS TEXT) FROM rejection ORDER BY id", "2\n3\n4");
	/* By bytes: 1,800 leave room for one of the small ones; 3,000 are too many alone. */
	(void)snprintf(body, sizeof(body), "%0999d", 5);
	(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, body, RECEIVED_MS + 5);
	(void)snprintf(body, sizeof(body), "%01000d", 6);
	(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, body, RECEIVED_MS + 6);
	expect_rows(w, "SELECT length(payload) FROM rejection ORDER BY id", "1\n999\n1000");
	expect_rows(w, "SELECT n_rows, bytes, dropped FROM side_size", "3|2000|4");
}

static void keeps_a_rejection_without_a_body_that_is_too_large_for_it(void **state)
{
	struct world *w = *state;
	CLEANUP_FREE char *body = calloc(1, 3001);
	assert_non_null(body);
	memset(body, 'x', 3000);
	(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, body, RECEIVED_MS);
	expect_rows(w, "SELECT payload_size, payload FROM rejection", "3000|-");
}

static void lets_rejections_expire(void **state)
{
	struct world *w = *state;
	(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, "old", RECEIVED_MS);
	int64_t later = RECEIVED_MS + 30 * INT64_C(86400000) + 1;
	(void)reject(w, INGEST_REASON_SIGNATURE_WRONG, "new", later);
	expect_rows(w, "SELECT CAST(payload AS TEXT) FROM rejection", "new");
	expect_rows(w, "SELECT n_rows, bytes FROM side_size", "1|3");
}

/* Counters ---------------------------------------------------------------- */

static void counts_what_was_filtered(void **state)
{
	struct world *w = *state;
	PARCEL p;
	init_told(&p, created);
	p.judged.verdict = INGEST_FILTERED;
	p.judged.reason = INGEST_REASON_TEMPLATES;
	assert_int_equal(put(w, &p), STORAGE_FILTERED);
	assert_int_equal(put(w, &p), STORAGE_FILTERED);
	p.judged.reason = INGEST_REASON_TEAMS;
	assert_int_equal(put(w, &p), STORAGE_FILTERED);
	expect_rows(
		w,
		"SELECT s.name, f.reason, t.template_id, f.n, f.last_ms FROM filter_count f"
		" JOIN source s USING (source_key) JOIN template t USING (template_key) ORDER BY 2",
		"e2b|teams|tpl1|1|1795194000000\ne2b|templates|tpl1|2|1795194000000");
	expect_rows(w, "SELECT count(*) FROM events", "0");
}

static void adds_up_the_use_of_a_secret(void **state)
{
	struct world *w = *state;
	struct storage_secret_use use = { "e2b", 1, "aabbccdd", 3, 1000 }, older = use, other = use;
	older.n = 2;
	older.last_unix_ms = 900;
	memcpy(other.fingerprint, "11223344", 9);
	const struct storage_secret_use *uses[] = { &use, &older, &other };
	for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
		assert_int_equal(storage_begin(w->s, false), 0);
		assert_int_equal(storage_count_secret(w->s, uses[i]), 0);
		assert_int_equal(storage_commit(w->s), 0);
	}
	expect_rows(w,
		    "SELECT position, fingerprint, n, last_ms FROM secret_use ORDER BY fingerprint",
		    "1|11223344|3|1000\n1|aabbccdd|5|1000");
}

/* Dimensions -------------------------------------------------------------- */

static void gives_each_text_one_key_for_ever(void **state)
{
	struct world *w = *state;
	int64_t a, b, again, none = 1;
	char text[16];
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEAM, SPAN_LITERAL("a"), &a), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEAM, SPAN_LITERAL("b"), &b), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEAM, SPAN_ABSENT, &none), 0);
	assert_int_equal(storage_commit(w->s), 0);
	assert_true(a > 0 && b > 0 && a != b);
	assert_int_equal(none, 0);
	reopen(w);
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_key(w->s, STORAGE_TEAM, SPAN_LITERAL("b"), &again), 0);
	assert_int_equal(storage_text(w->s, STORAGE_TEAM, a, text, sizeof(text)), 0);
	assert_int_equal(storage_text(w->s, STORAGE_TEAM, 99, text, sizeof(text)), -ENOENT);
	storage_rollback(w->s);
	assert_int_equal(again, b);
}

static void shows_the_alias_of_a_template(void **state)
{
	struct world *w = *state;
	(void)put_told(w, created);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(storage_begin(w->s, true), 0);
		assert_int_equal(storage_clear_aliases(w->s), 0);
		if (i == 0)
			assert_int_equal(storage_set_alias(w->s, SPAN_LITERAL("tpl1"), "nice"), 0);
		assert_int_equal(storage_commit(w->s), 0);
		expect_rows(w, "SELECT template_id, template FROM events",
			    i == 0 ? "tpl1|nice" : "tpl1|tpl1");
	}
}

/* Positions --------------------------------------------------------------- */

static void set_positions(struct world *w)
{
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_folded(w->s, 1), 0);
	assert_int_equal(storage_set_trying(w->s, 2, 1), 0);
	assert_int_equal(storage_set_horizon(w->s, 500), 0);
	assert_int_equal(storage_set_horizon(w->s, 400), 0); /* ignored */
	assert_int_equal(storage_skip(w->s, 1, "why"), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

static void remembers_positions(void **state)
{
	struct world *w = *state;
	struct told second = created;
	second.id = "ev-2";
	(void)put_told(w, created);
	(void)put_told(w, second);
	set_positions(w);
	for (int i = 0; i < 2; i++) {
		struct storage_position at;
		assert_int_equal(storage_position(w->s, &at), 0);
		assert_int_equal(at.stored_seq, 2);
		assert_int_equal(at.folded_seq, 1);
		assert_int_equal(at.trying_seq, 2);
		assert_int_equal(at.trying_count, 1);
		assert_int_equal(at.horizon_unix_s, 500);
		assert_int_equal(at.skipped, 1);
		assert_int_equal(at.newest_unix_s, 1795165200);
		reopen(w);
	}
}

/* The mark of an event that is tried stays until the fold is past it: closing a run that is due
 * meanwhile says nothing about it. */
static void clears_the_mark_of_a_try_only_past_it(void **state)
{
	struct world *w = *state;
	set_positions(w);
	for (int64_t seq = 1; seq <= 2; seq++) {
		struct storage_position at;
		assert_int_equal(storage_begin(w->s, true), 0);
		assert_int_equal(storage_set_folded(w->s, seq), 0);
		assert_int_equal(storage_commit(w->s), 0);
		for (int i = 0; i < 2; i++) {
			assert_int_equal(storage_position(w->s, &at), 0);
			assert_int_equal(at.trying_seq, seq == 1 ? 2 : 0);
			assert_int_equal(at.trying_count, seq == 1 ? 1 : 0);
			reopen(w);
		}
	}
}

/* Pruned events leave no number behind to be given again. */
static void never_gives_a_sequence_number_twice(void **state)
{
	struct world *w = *state;
	(void)put_told(w, created);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_folded(w->s, 1), 0);
	assert_int_equal(storage_commit(w->s), 0);
	close_store(w);
	change(w, "DELETE FROM event");
	open_store(w);
	struct told second = created;
	second.id = "ev-2";
	(void)put_told(w, second);
	expect_rows(w, "SELECT seq FROM events", "2");
}

/* The log, read ----------------------------------------------------------- */

struct seen {
	int64_t seqs[8];
	size_t n, stop_after;
	char body[64];
};

static int see(void *ctx, const struct storage_event *event)
{
	struct seen *seen = ctx;
	seen->seqs[seen->n++] = event->seq;
	(void)snprintf(seen->body, sizeof(seen->body), "%.*s", (int)event->body.len, event->body.s);
	assert_int_equal(event->received_unix_ms, RECEIVED_MS);
	return seen->n == seen->stop_after ? 7 : 0;
}

static void hands_out_pending_events_in_order(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 4; i++) {
		char id[8];
		(void)snprintf(id, sizeof(id), "ev-%d", 9 - i);
		struct told t = created;
		t.id = id;
		(void)put_told(w, t);
	}
	struct seen seen = { .n = 0 };
	assert_int_equal(storage_pending(w->s, 1, 2, see, &seen), 0);
	assert_int_equal(seen.n, 2);
	assert_int_equal(seen.seqs[0], 2);
	assert_int_equal(seen.seqs[1], 3);
	assert_string_equal(
		seen.body,
		"{\"version\":\"v2\",\"id\":\"ev-6\",\"type\":\"sandbox.lifecycle.created\",");
	seen = (struct seen) { .stop_after = 3 };
	assert_int_equal(storage_pending(w->s, 0, 9, see, &seen), 7);
	assert_int_equal(seen.n, 3);
}

/* Upkeep ------------------------------------------------------------------ */

static void moves_the_log_into_the_database_when_it_has_grown(void **state)
{
	struct world *w = *state;
	struct storage_stats before, after;
	storage_stats(w->s, &before);
	assert_true(before.database_bytes > 0 && before.free_bytes > 0);
	assert_false(storage_wants_upkeep(w->s));
	char data[BODY_MAX];
	for (int i = 0; !storage_wants_upkeep(w->s); i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "ev-%d", i);
		(void)snprintf(data, sizeof(data), "{\"x\":\"%03000d\"}", i);
		struct told t = created;
		t.id = id;
		t.data = data;
		(void)put_told(w, t);
		assert_true(i < 20000);
	}
	assert_int_equal(storage_maintain(w->s), 0);
	assert_false(storage_wants_upkeep(w->s));
	storage_stats(w->s, &after);
	assert_true(after.database_bytes > before.database_bytes);
	assert_true(after.wal_bytes > 0);
}

/* Else the delivery would be blamed, and an event be left out of the ledger. */
static void a_lock_that_cannot_be_had_is_a_failure_of_the_store(void **state)
{
	struct world *w = *state;
	int failures = 0;
	for (long n = 1; n <= 3; n++) {
		disk_break_only(DISK_LOCKS, n, EIO, true);
		int r = storage_begin(w->s, true);
		if (r == 0)
			r = storage_commit(w->s);
		disk_mend();
		storage_rollback(w->s);
		failures += r < 0;
		assert_true(r == 0 || storage_is_failure(r));
	}
	assert_true(failures > 0);
	put_story(w, "01-v2-created");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(keeps_an_event_byte_for_byte),
		TEST(keeps_a_body_whole_that_names_its_id_anywhere),
		TEST(counts_a_repeat_on_the_event),
		TEST(counts_a_repeat_within_one_transaction),
		TEST(knows_a_body_without_an_id_again),
		TEST(quarantines_an_id_that_is_used_again),
		TEST(quarantines_what_the_horizon_overtook),
		TEST(tells_types_apart_whatever_is_in_their_names),
		TEST(keeps_no_header_of_a_repeat),
		TEST(forgets_what_was_rolled_back),
		TEST(forgets_keys_that_were_rolled_back),
		TEST(syncs_what_is_durable_and_nothing_else),
		TEST(lets_go_of_what_is_rolled_back),
		TEST(survives_a_disk_that_fails_anywhere),
		TEST(keeps_nothing_of_a_transaction_that_the_disk_ended),
		TEST(quarantines_a_body_once_with_its_reason),
		TEST(refuses_what_the_quarantine_cannot_hold),
		TEST(bounds_the_bytes_in_quarantine),
		TEST(keeps_a_rejection_with_what_may_be_needed_again),
		TEST(drops_the_oldest_rejections),
		TEST(keeps_a_rejection_without_a_body_that_is_too_large_for_it),
		TEST(lets_rejections_expire),
		TEST(counts_what_was_filtered),
		TEST(adds_up_the_use_of_a_secret),
		TEST(gives_each_text_one_key_for_ever),
		TEST(shows_the_alias_of_a_template),
		TEST(remembers_positions),
		TEST(clears_the_mark_of_a_try_only_past_it),
		TEST(never_gives_a_sequence_number_twice),
		TEST(hands_out_pending_events_in_order),
		TEST(moves_the_log_into_the_database_when_it_has_grown),
		TEST(a_lock_that_cannot_be_had_is_a_failure_of_the_store),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
