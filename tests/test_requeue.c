/* Requeue's promises: what is accepted now becomes an event exactly once, whatever crashes; what is
 * still refused stays; the bounds of quarantine and rejections are kept in step.
 *
 * Deliveries are put as an earlier daemon would have put them, with a verdict of the test's choice.
 */
#include "storage_fixture.h"
#include "requeue.h"
#include "writer.h"

#include "clock.h"

#include <signal.h>
#include <sys/wait.h>

#define SECRET "requeue-test-secret-0123456789-abcdef"
#define PLAIN "[source e2b]\npath = /e2b\n"
#define STANDARD PLAIN "signature = standard-webhooks\n"
#define SIDES                                                                                      \
	"SELECT coalesce(sum(n_rows), 0), coalesce(sum(bytes), 0) FROM side_size"                  \
	" WHERE n_rows <> 0 OR bytes <> 0"

static const struct told created = {
	.id = "ev-1",
	.type = "sandbox.lifecycle.created",
	.time = "2026-11-20T09:00:00Z",
	.sandbox = "sb1",
	.run = "run1",
};

static int begin_roomy(void **state)
{
	(void)begin_world(state);
	struct world *w = *state;
	w->options.quarantine_rows_max = w->options.rejection_rows_max = 1000;
	w->options.quarantine_bytes_max = w->options.rejection_bytes_max = 1 << 20;
	open_store(w);
	return 0;
}

/* What an earlier daemon set aside ----------------------------------------------- */

static void quarantine_as(struct world *w, struct told t, enum ingest_reason reason)
{
	PARCEL p;
	init_told(&p, t);
	p.judged.verdict = INGEST_QUARANTINE;
	p.judged.reason = reason;
	assert_int_equal(put(w, &p), STORAGE_QUARANTINED);
}

static void quarantine_nth(struct world *w, int n)
{
	char id[16];
	struct told t = created;
	(void)snprintf(id, sizeof(id), "ev-%d", n);
	t.id = t.sandbox = t.run = id;
	quarantine_as(w, t, INGEST_REASON_BAD_NUMBER);
}

/* A delivery signed with SECRET, rejected by a daemon that did not know it. */
static void reject_signed(struct world *w, enum signature_scheme scheme, struct told t)
{
	PARCEL p;
	init_told(&p, t);
	struct signature_keyring *keyring = NULL;
	char signature[SIGNATURE_TEXT_MAX], seconds[24];
	(void)snprintf(seconds, sizeof(seconds), "%lld", (long long)(RECEIVED_MS / 1000));
	const struct signature_input input = {
		.id = SPAN_LITERAL("msg_1"),
		.timestamp = { seconds, strlen(seconds) },
		.body = p.delivery.body,
	};
	assert_int_equal(signature_keyring_new(scheme, SECRET, strlen(SECRET), &keyring), 0);
	assert_int_equal(signature_sign(keyring, 1, &input, signature), 0);
	signature_keyring_free(keyring);
	p.delivery.signature = (struct span) { signature, strlen(signature) };
	p.delivery.signature_id = input.id;
	p.delivery.signature_timestamp = input.timestamp;
	p.delivery.delivery_id = SPAN_LITERAL("c5c2c2af-3977-4654-9935-65976fbaf662");
	p.judged.verdict = INGEST_REJECT;
	p.judged.reason = INGEST_REASON_SIGNATURE_WRONG;
	assert_int_equal(put(w, &p), STORAGE_REJECTED);
}

/* Asking ---------------------------------------------------------------------------- */

static void give_secret(struct config *config, const char *secret)
{
	struct config_source *source = &config->sources[0];
	signature_keyring_free(source->policy.keyring);
	source->policy.keyring = NULL;
	assert_int_equal(signature_keyring_new(source->scheme, secret, strlen(secret),
					       &source->policy.keyring),
			 0);
}

static void configure(struct world *w, const char *text)
{
	config_unref(w->config);
	w->config = load_config(text);
	w->config->store.retention_ms = 0;
	give_secret(w->config, SECRET);
}

static struct writer *begin_writer(struct world *w)
{
	struct writer *writer = NULL;
	const struct writer_options options = { 100, w->config };
	assert_int_equal(writer_new(w->s, &options, &writer), 0);
	assert_int_equal(writer_start(writer), 0);
	return writer;
}

static void end_writer(struct writer *writer)
{
	writer_stop(writer);
	writer_free(writer);
}

static int ask(struct world *w, struct requeue_options options, struct requeue_counts *ret)
{
	struct writer *writer = begin_writer(w);
	int r = requeue_run(writer, w->config, &options, ret, NULL, NULL);
	end_writer(writer);
	return r;
}

static void expect_counts(const struct requeue_counts *is, struct requeue_counts wanted)
{
	assert_int_equal(is->stored, wanted.stored);
	assert_int_equal(is->duplicate, wanted.duplicate);
	assert_int_equal(is->filtered, wanted.filtered);
	assert_int_equal(is->quarantined, wanted.quarantined);
	assert_int_equal(is->rejected, wanted.rejected);
	assert_int_equal(is->folded, wanted.folded);
	assert_int_equal(is->skipped, wanted.skipped);
}

static void expect_all(struct world *w, struct requeue_counts wanted)
{
	struct requeue_counts is;
	assert_int_equal(ask(w, (struct requeue_options) { .what = REQUEUE_ALL }, &is), 0);
	expect_counts(&is, wanted);
}

/* Rejections ------------------------------------------------------------------------ */

static void stores_a_rejection_once_its_secret_is_known(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	give_secret(w->config, "another-secret-0123456789-0123456789");
	reject_signed(w, SIGNATURE_E2B, created);
	expect_all(w, (struct requeue_counts) { .rejected = 1 });
	expect_rows(w, "SELECT reason FROM rejections", "signature_wrong");
	give_secret(w->config, SECRET);
	expect_all(w, (struct requeue_counts) { .stored = 1 });
	expect_all(w, (struct requeue_counts) { 0 });
	expect_rows(w, "SELECT event_id, received_at, delivery_id, deliveries FROM events",
		    "ev-1|2026-11-20T17:00:00.000Z|c5c2c2af-3977-4654-9935-65976fbaf662|1");
	expect_rows(w, "SELECT count(*) FROM rejections", "0");
	expect_rows(w, SIDES, "0|0");
	expect_rows(w, "SELECT position, n FROM secret_use", "1|1");
	expect_rows(w, "SELECT run_id FROM runs", "run1");
}

static void measures_the_age_of_a_signature_at_its_receipt(void **state)
{
	struct world *w = *state;
	configure(w, STANDARD);
	reject_signed(w, SIGNATURE_STANDARD_WEBHOOKS, created);
	expect_all(w, (struct requeue_counts) { .stored = 1 });
}

static void believes_no_signature_over_another_body(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	reject_signed(w, SIGNATURE_E2B, created);
	close_store(w);
	change(w, "UPDATE rejection SET payload = CAST(replace(CAST(payload AS TEXT), 'sb1', 'sb2')"
		  " AS BLOB)");
	open_store(w);
	expect_all(w, (struct requeue_counts) { .rejected = 1 });
	expect_rows(w, "SELECT count(*) FROM events", "0");
}

static void moves_a_signed_body_that_is_no_event_into_quarantine(void **state)
{
	struct world *w = *state;
	struct told nameless = created;
	nameless.sandbox = NULL;
	configure(w, PLAIN);
	reject_signed(w, SIGNATURE_E2B, nameless);
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_rows(w, "SELECT reason FROM quarantine", "missing_field");
	expect_rows(w, "SELECT count(*) FROM rejections", "0");
	expect_rows(w, "SELECT side, n_rows FROM side_size ORDER BY 1",
		    "quarantine|1\nrejection|0");
}

static void leaves_a_rejection_where_it_is_while_quarantine_is_full(void **state)
{
	struct world *w = *state;
	struct told nameless = created;
	nameless.sandbox = NULL;
	configure(w, PLAIN);
	reject_signed(w, SIGNATURE_E2B, nameless);
	w->options.quarantine_rows_max = 0;
	reopen(w);
	expect_all(w, (struct requeue_counts) { .rejected = 1 });
	expect_rows(w, "SELECT count(*) FROM rejections", "1");
	expect_rows(w, "SELECT count(*) FROM quarantine", "0");
	expect_rows(w, "SELECT count(*) FROM secret_use", "0");
}

/* Quarantine -------------------------------------------------------------------------- */

static void stores_what_is_accepted_now_with_all_its_deliveries(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	for (int i = 0; i < 3; i++)
		quarantine_as(w, created, INGEST_REASON_BAD_NUMBER);
	expect_all(w, (struct requeue_counts) { .stored = 1 });
	expect_rows(w, "SELECT event_id, deliveries, received_at FROM events",
		    "ev-1|3|2026-11-20T17:00:00.000Z");
	expect_rows(w, "SELECT count(*) FROM quarantine", "0");
	expect_rows(w, SIDES, "0|0");
}

/* What a clock that is behind takes for the future. */
static const struct told ahead = { .id = "ev-1",
				   .type = "sandbox.lifecycle.created",
				   .time = "2020-01-01T12:00:00Z",
				   .sandbox = "sb1",
				   .run = "run1" };
#define AHEAD_RECEIVED_MS INT64_C(1577836800000) /* 2020-01-01T00:00:00Z */

static void stores_what_was_ahead_of_the_clock_once_the_clock_is_there(void **state)
{
	struct world *w = *state;
	PARCEL p;
	configure(w, PLAIN);
	init_told(&p, ahead);
	p.delivery.received_unix_ms = AHEAD_RECEIVED_MS;
	p.judged.verdict = INGEST_QUARANTINE;
	p.judged.reason = INGEST_REASON_FUTURE;
	assert_int_equal(put(w, &p), STORAGE_QUARANTINED);
	expect_all(w, (struct requeue_counts) { .stored = 1 });
	expect_rows(w, "SELECT event_id, received_at FROM events", "ev-1|2020-01-01T00:00:00.000Z");
}

static void keeps_what_is_ahead_of_the_clock_of_now(void **state)
{
	struct world *w = *state;
	struct told early = created;
	early.time = "2200-01-01T00:00:00Z";
	configure(w, PLAIN);
	quarantine_as(w, early, INGEST_REASON_FUTURE);
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_rows(w, "SELECT reason FROM quarantine", "future");
}

static void keeps_what_is_stale_by_the_horizon_of_now(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	quarantine_as(w, created, INGEST_REASON_BAD_NUMBER);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_horizon(w->s, RECEIVED_MS / 1000), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_rows(w, "SELECT reason FROM quarantine", "stale");
}

static void keeps_what_is_still_refused_under_its_reason_of_now(void **state)
{
	struct world *w = *state;
	struct told nameless = created;
	nameless.sandbox = NULL;
	configure(w, PLAIN);
	quarantine_as(w, nameless, INGEST_REASON_BAD_NUMBER);
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_rows(w, "SELECT reason, detail <> '' FROM quarantine", "missing_field|1");
	/* Kept under two reasons, it becomes one. */
	quarantine_as(w, nameless, INGEST_REASON_BAD_ID);
	expect_rows(w, "SELECT count(*) FROM quarantine", "2");
	expect_all(w, (struct requeue_counts) { .quarantined = 2 });
	expect_rows(w,
		    "SELECT reason, deliveries, length(payload) FROM quarantined_body"
		    " JOIN side_size ON n_rows = 1 AND bytes = length(payload)",
		    "missing_field|2|128");
}

static void counts_and_removes_what_the_filters_refuse_now(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN "events = !created\n");
	quarantine_as(w, created, INGEST_REASON_BAD_NUMBER);
	expect_all(w, (struct requeue_counts) { .filtered = 1 });
	expect_rows(w, "SELECT count(*) FROM quarantine", "0");
	expect_rows(w, "SELECT reason, n FROM filter_count", "events|1");
	expect_rows(w, SIDES, "0|0");
}

static void counts_a_repeat_on_the_event_that_is_there(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	quarantine_as(w, created, INGEST_REASON_BAD_NUMBER);
	quarantine_as(w, created, INGEST_REASON_BAD_NUMBER);
	assert_int_equal(put_told(w, created), STORAGE_STORED);
	expect_all(w, (struct requeue_counts) { .duplicate = 1 });
	expect_rows(w, "SELECT deliveries FROM events", "3");
}

static void keeps_a_reused_id_until_the_other_event_is_gone(void **state)
{
	struct world *w = *state;
	struct told other = created;
	other.sandbox = "sb2";
	configure(w, PLAIN);
	assert_int_equal(put_told(w, created), STORAGE_STORED);
	assert_int_equal(put_told(w, other), STORAGE_QUARANTINED);
	static const char kept[] = "SELECT id, reason, deliveries FROM quarantined_body";
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_all(w, (struct requeue_counts) { .quarantined = 1 });
	expect_rows(w, kept, "1|id_reused|1");
	close_store(w);
	change(w, "DELETE FROM event");
	open_store(w);
	expect_all(w, (struct requeue_counts) { .stored = 1 });
	expect_rows(w, "SELECT sandbox_id FROM events", "sb2");
}

/* What is asked for --------------------------------------------------------------------- */

static void leaves_alone_what_was_not_asked_for(void **state)
{
	struct world *w = *state;
	struct requeue_counts n;
	configure(w, PLAIN);
	quarantine_nth(w, 1);
	reject_signed(w, SIGNATURE_E2B, created);
	const struct requeue_options none[] = {
		{ .what = REQUEUE_SKIPPED },
		{ .what = REQUEUE_ALL, .reason = INGEST_REASON_BAD_ID },
		{ .what = REQUEUE_ALL, .source = "other" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		assert_int_equal(ask(w, none[i], &n), 0);
		expect_counts(&n, (struct requeue_counts) { 0 });
	}
	assert_int_equal(ask(w,
			     (struct requeue_options) { .what = REQUEUE_ALL,
							.source = "e2b",
							.reason = INGEST_REASON_BAD_NUMBER },
			     &n),
			 0);
	expect_counts(&n, (struct requeue_counts) { .stored = 1 });
	expect_rows(w, "SELECT count(*) FROM rejections", "1");
}

static void leaves_alone_what_belongs_to_no_source_of_now(void **state)
{
	struct world *w = *state;
	configure(w, "[source other]\npath = /other\n");
	quarantine_nth(w, 1);
	reject_signed(w, SIGNATURE_E2B, created);
	expect_all(w, (struct requeue_counts) { .quarantined = 1, .rejected = 1 });
	expect_rows(w, "SELECT reason FROM quarantine", "bad_number");
	expect_rows(w, "SELECT reason FROM rejections", "signature_wrong");
}

static int stop_after(void *ctx, const struct requeue_counts *counts)
{
	int *left = ctx;
	return --*left == 0;
}

static void ends_after_the_slice_at_hand(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	for (int i = 0; i < 120; i++)
		quarantine_nth(w, i);
	struct writer *writer = begin_writer(w);
	const struct requeue_options all = { .what = REQUEUE_ALL };
	struct requeue_counts n;
	int left = 1;
	assert_int_equal(requeue_run(writer, w->config, &all, &n, stop_after, &left), -ECANCELED);
	assert_true(n.stored > 0 && n.stored <= 50);
	char expected[64];
	(void)snprintf(expected, sizeof(expected), "%lld|%lld", (long long)n.stored,
		       (long long)(120 - n.stored));
	expect_rows(w, "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM quarantine)",
		    expected);
	end_writer(writer);
}

/* Skipped events ------------------------------------------------------------------------ */

static void change_payload(struct world *w, const char *sql)
{
	close_store(w);
	change(w, sql);
	open_store(w);
}

/* Three events of one sandbox; the ledger cannot read the second. */
static void skip_one(struct world *w)
{
	struct told paused = created, killed = created;
	paused.id = "ev-2";
	paused.type = "sandbox.lifecycle.paused";
	paused.time = "2026-11-20T09:10:00Z";
	killed.id = "ev-3";
	killed.type = "sandbox.lifecycle.killed";
	killed.time = "2026-11-20T09:20:00Z";
	configure(w, PLAIN);
	(void)put_told(w, created);
	(void)put_told(w, paused);
	(void)put_told(w, killed);
	change_payload(w, "UPDATE event SET body_len = body_len - 1 WHERE seq = 1");
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	(void)fold_all(w);
	free(end_listening(kept));
	projector_free(w->p);
	w->p = NULL;
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "3|1");
}

static void folds_a_skipped_event_and_leaves_the_watermark(void **state)
{
	struct world *w = *state;
	skip_one(w);
	expect_rows(w, "SELECT started_at FROM runs", "-");
	expect_all(w, (struct requeue_counts) { .skipped = 1 });
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "3|1");
	change_payload(w, "UPDATE event SET body_len = body_len + 1 WHERE seq = 1");
	expect_all(w, (struct requeue_counts) { .folded = 1 });
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "3|0");
	expect_rows(w, "SELECT started_at FROM runs", "2026-11-20T09:00:00.000Z");
	expect_rows(w, "SELECT sum(events) FROM activity_hourly", "3");
	expect_rows(w, "SELECT sandbox_id, run_id FROM events WHERE seq = 1", "sb1|run1");
	expect_all(w, (struct requeue_counts) { 0 });
	expect_rows(w, "SELECT sum(events) FROM activity_hourly", "3");
}

static int want_rebuild(struct storage *s, void *ctx)
{
	return storage_set_rebuild(s, *(int64_t *)ctx);
}

static void on_done(struct writer_task *task, int status)
{
	assert_int_equal(status, 0);
}

/* Into the ledger that is about to be replaced it would be folded in vain. */
static void folds_no_skipped_event_while_the_ledger_is_rebuilt(void **state)
{
	struct world *w = *state;
	skip_one(w);
	change_payload(w, "UPDATE event SET body_len = body_len + 1 WHERE seq = 1");
	struct writer *writer = begin_writer(w);
	const struct requeue_options skipped = { .what = REQUEUE_SKIPPED };
	int64_t on = 1, off = 0;
	struct writer_task begin = { .run = want_rebuild, .done = on_done, .ctx = &on };
	struct writer_task end = { .run = want_rebuild, .done = on_done, .ctx = &off };
	struct requeue_counts n;
	assert_int_equal(writer_submit_task(writer, &begin), 0);
	assert_int_equal(requeue_run(writer, w->config, &skipped, &n, NULL, NULL), -EINPROGRESS);
	expect_counts(&n, (struct requeue_counts) { 0 });
	assert_int_equal(writer_submit_task(writer, &end), 0);
	assert_int_equal(requeue_run(writer, w->config, &skipped, &n, NULL, NULL), 0);
	expect_counts(&n, (struct requeue_counts) { .folded = 1 });
	end_writer(writer);
}

/* Failures -------------------------------------------------------------------------------- */

static void looks_at_all_the_others_when_one_cannot_be_stored(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	for (int i = 0; i < 60; i++)
		quarantine_nth(w, i);
	change_payload(w, "CREATE TRIGGER poison BEFORE INSERT ON event WHEN NEW.id = 'ev-7'"
			  " BEGIN SELECT RAISE(ABORT, 'poison'); END");
	expect_all(w, (struct requeue_counts) { .stored = 59, .quarantined = 1 });
	expect_rows(w, "SELECT payload LIKE '%ev-7\"%' FROM quarantine", "1");
}

#define N_KEPT 60
static const char all_kept[] =
	"SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM quarantine),"
	" (SELECT count(*) FROM events JOIN quarantine USING (payload)),"
	" (SELECT n_rows FROM side_size) - (SELECT count(*) FROM quarantine),"
	" (SELECT bytes FROM side_size)"
	" - (SELECT coalesce(sum(length(payload)), 0) FROM quarantined_body),"
	" (SELECT max(deliveries) FROM (SELECT deliveries FROM events UNION ALL"
	" SELECT deliveries FROM quarantined_body))";

static void loses_nothing_on_a_disk_that_fails_anywhere(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	for (int i = 0; i < N_KEPT; i++)
		quarantine_nth(w, i);
	const struct requeue_options all = { .what = REQUEUE_ALL };
	int r = -1;
	for (long at = 1; r != 0; at += 3) {
		assert_true(at < 2000);
		struct requeue_counts n;
		struct writer *writer = begin_writer(w);
		int kept = begin_listening();
		disk_break(at, EIO, true);
		r = requeue_run(writer, w->config, &all, &n, NULL, NULL);
		disk_mend();
		end_writer(writer);
		free(end_listening(kept));
		assert_true(r == 0 || storage_is_failure(r));
		reopen(w);
		expect_rows(w, all_kept, "60|0|0|0|1");
	}
	expect_rows(w, "SELECT count(*) FROM events", "60");
}

/* Ends this process the hard way in the middle of a transaction: at the nth row that changes. */
static atomic_long changes_left;

static void count_change(void *ctx, int op, const char *database, const char *table,
			 sqlite3_int64 id)
{
	if (atomic_fetch_sub(&changes_left, 1) == 1)
		(void)kill(getpid(), SIGKILL);
}

static int watch_changes(sqlite3 *db, char **error, const struct sqlite3_api_routines *api)
{
	(void)sqlite3_update_hook(db, count_change, NULL);
	return SQLITE_OK;
}

static void requeue_and_die(struct world *w, long n_changes)
{
	struct requeue_counts n;
	const struct requeue_options all = { .what = REQUEUE_ALL };
	(void)begin_listening(); /* an event that it dies on twice is skipped, and said to be */
	if (sqlite3_auto_extension((void (*)(void))watch_changes) != SQLITE_OK)
		_exit(2);
	open_store(w);
	struct writer *writer = begin_writer(w);
	atomic_store(&changes_left, n_changes);
	_exit(requeue_run(writer, w->config, &all, &n, NULL, NULL) == 0 ? 0 : 3);
}

static void takes_each_exactly_once_whenever_it_is_killed(void **state)
{
	struct world *w = *state;
	configure(w, PLAIN);
	for (int i = 0; i < N_KEPT; i++)
		quarantine_nth(w, i);
	int status = -1, n_killed = 0;
	for (long n_changes = 10; status != 0; n_changes += n_changes / 3) {
		close_store(w);
		pid_t child = fork();
		if (child == 0)
			requeue_and_die(w, n_changes);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
		n_killed += status != 0;
		open_store(w);
		expect_rows(w, all_kept, "60|0|0|0|1");
	}
	assert_true(n_killed >= 5);
	expect_rows(w, "SELECT count(*) FROM events", "60");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_roomy, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stores_a_rejection_once_its_secret_is_known),
		TEST(measures_the_age_of_a_signature_at_its_receipt),
		TEST(believes_no_signature_over_another_body),
		TEST(moves_a_signed_body_that_is_no_event_into_quarantine),
		TEST(leaves_a_rejection_where_it_is_while_quarantine_is_full),
		TEST(stores_what_is_accepted_now_with_all_its_deliveries),
		TEST(stores_what_was_ahead_of_the_clock_once_the_clock_is_there),
		TEST(keeps_what_is_ahead_of_the_clock_of_now),
		TEST(keeps_what_is_stale_by_the_horizon_of_now),
		TEST(keeps_what_is_still_refused_under_its_reason_of_now),
		TEST(counts_and_removes_what_the_filters_refuse_now),
		TEST(counts_a_repeat_on_the_event_that_is_there),
		TEST(keeps_a_reused_id_until_the_other_event_is_gone),
		TEST(leaves_alone_what_was_not_asked_for),
		TEST(leaves_alone_what_belongs_to_no_source_of_now),
		TEST(ends_after_the_slice_at_hand),
		TEST(folds_a_skipped_event_and_leaves_the_watermark),
		TEST(folds_no_skipped_event_while_the_ledger_is_rebuilt),
		TEST(looks_at_all_the_others_when_one_cannot_be_stored),
		TEST(loses_nothing_on_a_disk_that_fails_anywhere),
		TEST(takes_each_exactly_once_whenever_it_is_killed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
