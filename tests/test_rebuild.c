/* What a rebuild promises while things go wrong: it ends, with the ledger that the events make, and
 * leaves nothing behind; who died in it and who stopped is told apart.
 */
#include "storage_fixture.h"

#include "rebuild.h"
#include "scarce.h"

#define PLAIN "[source e2b]\npath = /e2b\n"
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRIDE 13
#else
#define STRIDE 3
#endif
#define STEPS_MAX 1000

static const char *const left_over =
	"SELECT count(*) FROM sqlite_schema WHERE name LIKE 'new\\_%' ESCAPE '\\' OR name LIKE "
	"'trash\\_%' ESCAPE '\\'";

/* Sandboxes that ran a second each, and one that runs. */
static void put_some(struct world *w, int n)
{
	for (int i = 0; i < 2 * n + 1; i++) {
		char id[16], name[16];
		(void)snprintf(id, sizeof(id), "e%d", i);
		(void)snprintf(name, sizeof(name), "sb%d", i / 2);
		tell(w, (struct told) { .id = id,
					.type = i % 2 ? "sandbox.killed" : "sandbox.created",
					.time = i % 2 ? "2026-11-20T09:00:01Z"
						      : "2026-11-20T09:00:00Z",
					.sandbox = name,
					.run = name,
					.template = "tpl" });
	}
}

static void begin_some(struct world *w)
{
	begin_ledger(w, PLAIN "[template tpl]\nvcpu = 2\nmemory_mb = 512\n");
	put_some(w, 20);
	(void)fold_all(w);
}

static struct rebuild *new_rebuild(struct world *w)
{
	struct rebuild *r = NULL;
	assert_int_equal(rebuild_new(w->s, w->p, &r), 0);
	return r;
}

static struct rebuild *new_requested(struct world *w)
{
	struct rebuild *r = new_rebuild(w);
	assert_int_equal(rebuild_request(r), 0);
	return r;
}

static void step(struct rebuild *r)
{
	assert_int_equal(rebuild_step(r, 1000), 0);
}

/* To the end, the tidying up included. */
static void finish(struct rebuild *r)
{
	for (int i = 0; rebuild_has_work(r); i++) {
		assert_true(i < STEPS_MAX);
		step(r);
	}
}

static int error_of(const struct rebuild *r)
{
	struct rebuild_progress progress;
	rebuild_progress(r, &progress);
	return progress.error;
}

/* As after a kill -9, then the next process. */
static void die(struct world *w, struct rebuild *r)
{
	rebuild_free(r);
	reopen(w);
	begin_ledger(w, PLAIN);
}

static void expect_ledger(const struct world *w, const char *expected)
{
	CLEANUP_FREE char *is = ledger_of(w);
	assert_string_equal(is, expected);
}

static void expect_well_done(struct world *w, const struct rebuild *r, const char *ledger)
{
	assert_int_equal(error_of(r), 0);
	expect_ledger(w, ledger);
	expect_rows(w, left_over, "0");
	expect_rows(w, "SELECT rebuilding FROM ledger_state", "0");
}

static void makes_the_same_ledger_and_leaves_nothing_behind(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	struct rebuild *r = new_requested(w);
	finish(r);
	expect_well_done(w, r, ledger);
	CLEANUP_FREE char *plan =
		rows_of(w, "EXPLAIN QUERY PLAN SELECT * FROM sandboxes WHERE sandbox_id = 'x'");
	assert_non_null(strstr(plan, "(ANY(<expr>) AND sandbox_id=?)"));
	rebuild_free(r);
}

static void ends_whichever_call_of_the_disk_fails(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	int kept = begin_listening();
	for (long n = 1; n < 200; n += STRIDE) {
		struct rebuild *r = new_requested(w);
		disk_break(n, EIO, false);
		for (int i = 0; rebuild_has_work(r); i++) {
			assert_true(i < STEPS_MAX);
			int status = rebuild_step(r, 1000);
			assert_true(status == 0 || storage_is_failure(status));
		}
		disk_mend();
		expect_well_done(w, r, ledger);
		rebuild_free(r);
	}
	free(end_listening(kept));
}

/* Each death leaves its tables, and none has changed anything else. */
static void is_given_up_after_two_deaths_and_works_when_asked_again(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	int kept = begin_listening();
	struct rebuild *r = new_requested(w);
	for (int deaths = 0; deaths < 2; deaths++) {
		step(r);
		step(r);
		assert_true(rebuild_is_reading(r));
		die(w, r);
		r = new_rebuild(w);
		assert_true(rebuild_is_running(r));
	}
	finish(r);
	assert_int_equal(error_of(r), -ECANCELED);
	expect_ledger(w, ledger);
	expect_rows(w, left_over, "0");
	assert_int_equal(rebuild_request(r), 0);
	finish(r);
	free(end_listening(kept));
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

static void begins_what_is_asked_for_while_another_is_given_up(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	close_store(w);
	change(w, "UPDATE position SET rebuild = 3"); /* two processes died in it */
	open_store(w);
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	struct rebuild *r = new_requested(w); /* before it had its turn */
	finish(r);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "given up"));
	assert_non_null(strstr(said, "the ledger was rebuilt"));
	assert_int_equal(error_of(r), 0);
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

/* By the terms of now: a run that ends earlier than it did covers them no more. */
static void moves_executions_of_sealed_sandboxes_with_their_runs(void **state)
{
	static const char *const sandboxes[] = { "sealed", "whole" };
	struct world *w = *state;
	int64_t last_s;
	size_t n;
	begin_ledger(w, PLAIN);
	w->config->store.max_run_ms = INT64_C(86400000);
	projector_set_config(w->p, w->config);
	for (int i = 0; i < 2; i++) {
		char created[16], executed[16];
		(void)snprintf(created, sizeof(created), "c-%d", i);
		(void)snprintf(executed, sizeof(executed), "x-%d", i);
		tell(w, (struct told) { .id = created,
					.type = "sandbox.created",
					.time = i ? "2026-11-20T09:00:00Z" : "2026-11-20T08:59:59Z",
					.sandbox = sandboxes[i] });
		tell(w, (struct told) { .id = executed,
					.type = "sandbox.code_executed",
					.time = "2026-11-20T11:00:00Z",
					.sandbox = sandboxes[i],
					.data = "{\"code_execution\":{\"execution_id\":\"x\","
						"\"duration_ms\":5}}" });
	}
	tell(w, (struct told) { .id = "later",
				.type = "sandbox.created",
				.time = "2026-11-20T12:00:00Z",
				.sandbox = "other" });
	(void)fold_all(w);
	expect_rows(w, "SELECT sandbox_id, run_id IS NOT NULL FROM executions ORDER BY 1",
		    "sealed|1\nwhole|1");
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_prune_events(w->s, INT64_C(1795165200), 64, &n, &last_s), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(w, "SELECT sandbox_id FROM sandbox WHERE sealed", "sealed");
	w->config->store.max_run_ms = 3600000;
	projector_set_config(w->p, w->config);
	struct rebuild *r = new_requested(w);
	int kept = begin_listening();
	finish(r);
	free(end_listening(kept));
	rebuild_free(r);
	expect_rows(w, "SELECT sandbox_id, end_kind FROM runs ORDER BY 1",
		    "other|max_run\nsealed|max_run\nwhole|max_run");
	expect_rows(w, "SELECT sandbox_id, run_id FROM executions ORDER BY 1", "sealed|-\nwhole|-");
}

static void begin_sealed(struct world *w)
{
	int64_t last_s;
	size_t n;
	begin_ledger(w, PLAIN);
	tell(w, (struct told) { .id = "a",
				.type = "sandbox.created",
				.time = "2026-11-20T09:00:00Z",
				.sandbox = "sealed" });
	tell(w, (struct told) { .id = "b",
				.type = "sandbox.code_executed",
				.time = "2026-11-20T10:00:00Z",
				.sandbox = "sealed",
				.data = "{\"code_execution\":{\"execution_id\":\"x\","
					"\"duration_ms\":5}}" });
	(void)fold_all(w);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_prune_events(w->s, INT64_C(1795168800), 64, &n, &last_s), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(w, "SELECT sandbox_id FROM sandbox WHERE sealed", "sealed");
}

/* What reads on keeps its view of the log: once somebody else has written, nothing can be written
 * through it. */
static void leaves_nothing_open_whatever_allocation_fails(void **state)
{
	struct world *w = *state;
	sqlite3 *other = NULL;
	begin_sealed(w);
	assert_int_equal(sqlite3_open(w->path, &other), SQLITE_OK);
	bool hit = true;
	for (long n = 1; hit; n++) {
		int kept = begin_listening();
		reopen(w); /* with no memory from before */
		begin_ledger(w, PLAIN);
		struct rebuild *r = new_requested(w);
		scarce_begin(n);
		while (rebuild_has_work(r) && rebuild_step(r, 1000) == 0)
			;
		hit = scarce_end();
		free(end_listening(kept));
		assert_int_equal(sqlite3_exec(other,
					      "UPDATE position SET migrated_ms = migrated_ms + 1",
					      NULL, NULL, NULL),
				 SQLITE_OK);
		assert_int_equal(storage_begin(w->s, false), 0);
		storage_rollback(w->s);
		assert_int_equal(rebuild_stop(r), 0);
		rebuild_free(r);
	}
	assert_int_equal(sqlite3_close(other), SQLITE_OK);
}

static void goes_on_after_any_number_of_orderly_stops(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	struct rebuild *r = new_requested(w);
	for (int stops = 0; stops < 5; stops++) {
		step(r);
		step(r);
		assert_true(rebuild_is_reading(r));
		assert_int_equal(rebuild_stop(r), 0);
		expect_rows(w, "SELECT rebuilding FROM ledger_state", "1");
		die(w, r);
		r = new_rebuild(w);
		assert_true(rebuild_is_reading(r));
	}
	finish(r);
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

static void gives_a_full_disk_its_room_back(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	int kept = begin_listening();
	struct rebuild *r = new_requested(w);
	step(r);
	disk_break_only(DISK_WRITES, 1, ENOSPC, true);
	for (int i = 0; i < 5; i++)
		assert_in_range(rebuild_step(r, 1000) + 1000, 1000 - ENOSPC, 1000);
	assert_false(rebuild_is_reading(r));
	disk_mend();
	finish(r);
	free(end_listening(kept));
	assert_int_equal(error_of(r), -ENOSPC);
	expect_ledger(w, ledger);
	expect_rows(w, left_over, "0");
	assert_int_equal(rebuild_request(r), 0);
	finish(r);
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

static void empties_what_it_replaced_though_a_slice_failed(void **state)
{
	struct world *w = *state;
	begin_some(w);
	CLEANUP_FREE char *ledger = ledger_of(w);
	struct rebuild *r = new_requested(w);
	while (rebuild_is_running(r))
		step(r);
	disk_break(1, EIO, true);
	for (int i = 0; i < 5; i++)
		assert_true(storage_is_failure(rebuild_step(r, 1000)));
	disk_mend();
	finish(r);
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

/* What was folded at the old prices must not stand beside what is folded at the new. */
static void begins_anew_when_the_terms_change(void **state)
{
	struct world *w = *state;
	begin_some(w);
	struct rebuild *r = new_requested(w);
	for (struct rebuild_progress at = { 0 }; at.seq == 0; rebuild_progress(r, &at))
		step(r);
	struct config *dear = load_config(PLAIN "[template tpl]\nvcpu = 4\nmemory_mb = 512\n");
	dear->store.max_run_ms = 0;
	assert_false(config_same_terms(w->config, dear));
	projector_set_config(w->p, dear);
	rebuild_begin_anew(r);
	finish(r);
	expect_rows(w, "SELECT DISTINCT vcpu_count FROM runs", "4");
	expect_rows(w, left_over, "0");
	rebuild_free(r);
	projector_set_config(w->p, w->config);
	config_unref(dear);
}

/* Somebody who reads what has changed since he last looked sees every row that a rebuild made. */
/* One event that it cannot read must not keep it from all the others: it is left out and reported,
 * as the live fold does. Nothing of that shows before the swap. */
static void leaves_out_an_event_that_it_fails_on(void **state)
{
	struct world *w = *state;
	begin_some(w);
	close_store(w);
	change(w, "UPDATE event SET body_len = body_len - 1 WHERE seq IN (7, 41)");
	open_store(w);
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	for (int round = 1; round <= 2; round++) {
		struct rebuild *r = new_requested(w);
		step(r);
		expect_rows(w, "SELECT skipped FROM ledger_state", round == 1 ? "0" : "2");
		finish(r);
		assert_int_equal(error_of(r), 0);
		rebuild_free(r);
		expect_rows(w, "SELECT skipped, rebuilding FROM ledger_state", "2|0");
		expect_rows(w, "SELECT count(*) FROM sandboxes", "20");
		expect_rows(w, "SELECT sum(events) FROM activity_hourly", "39");
		expect_rows(w, left_over, "0");
	}
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "event skipped"));
	assert_non_null(strstr(said, "seq=41"));
}

/* An old event that came late is the last of the log and the first to be pruned. */
static void ends_though_the_last_of_the_log_was_pruned(void **state)
{
	struct world *w = *state;
	size_t n = 0;
	int64_t last_s = 0;
	begin_some(w);
	tell(w, (struct told) { .id = "late",
				.type = "sandbox.created",
				.time = "2026-11-19T09:00:00Z",
				.sandbox = "sb-late",
				.run = "run-late",
				.template = "tpl" });
	(void)fold_all(w);
	assert_int_equal(storage_begin(w->s, false), 0);
	assert_int_equal(storage_prune_events(w->s, INT64_C(1795132800), 32, &n, &last_s), 0);
	assert_int_equal(storage_commit(w->s), 0);
	assert_int_equal(n, 1);
	CLEANUP_FREE char *ledger = ledger_of(w);
	struct rebuild *r = new_requested(w);
	finish(r);
	expect_well_done(w, r, ledger);
	rebuild_free(r);
}

/* What two starts died on is not tried again: the third must not be the rebuild. */
static void leaves_out_what_the_live_fold_left_out(void **state)
{
	struct world *w = *state;
	begin_some(w);
	tell(w, (struct told) { .id = "deadly",
				.type = "sandbox.created",
				.time = "2026-11-20T09:00:05Z",
				.sandbox = "deadly" });
	close_store(w);
	change(w,
	       "UPDATE position SET trying_count = 2, trying_seq = (SELECT max(seq) FROM event)");
	open_store(w);
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	(void)fold_all(w);
	free(end_listening(kept));
	CLEANUP_FREE char *before = ledger_of(w);
	struct rebuild *r = new_requested(w);
	finish(r);
	rebuild_free(r);
	expect_ledger(w, before);
	expect_rows(w, "SELECT skipped FROM ledger_state", "1");
	expect_rows(w, "SELECT count(*) FROM sandboxes WHERE sandbox_id = 'deadly'", "0");
}

static void numbers_its_rows_after_all_that_were_live(void **state)
{
	struct world *w = *state;
	begin_some(w);
	struct rebuild *r = new_requested(w);
	for (struct rebuild_progress at = { 0 }; at.seq == 0; rebuild_progress(r, &at))
		step(r);
	for (int i = 0; i < 5; i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "late%d", i);
		tell(w, (struct told) { .id = id,
					.type = "sandbox.created",
					.time = "2026-11-20T09:00:05Z",
					.sandbox = id });
		(void)fold_all(w);
	}
	CLEANUP_FREE char *seen = rows_of(w, "SELECT max(changed_seq) FROM sandboxes");
	finish(r);
	char sql[128];
	(void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM sandboxes WHERE changed_seq <= %s",
		       seen);
	expect_rows(w, sql, "0");
	CLEANUP_FREE char *rebuilt = rows_of(w, "SELECT max(changed_seq) FROM sandboxes");
	tell(w, (struct told) { .id = "after",
				.type = "sandbox.created",
				.time = "2026-11-20T09:00:06Z",
				.sandbox = "after" });
	(void)fold_all(w);
	(void)snprintf(sql, sizeof(sql), "SELECT sandbox_id FROM sandboxes WHERE changed_seq > %s",
		       rebuilt);
	expect_rows(w, sql, "after");
	rebuild_free(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(makes_the_same_ledger_and_leaves_nothing_behind),
		TEST(ends_whichever_call_of_the_disk_fails),
		TEST(is_given_up_after_two_deaths_and_works_when_asked_again),
		TEST(begins_what_is_asked_for_while_another_is_given_up),
		TEST(moves_executions_of_sealed_sandboxes_with_their_runs),
		TEST(leaves_nothing_open_whatever_allocation_fails),
		TEST(goes_on_after_any_number_of_orderly_stops),
		TEST(gives_a_full_disk_its_room_back),
		TEST(empties_what_it_replaced_though_a_slice_failed),
		TEST(begins_anew_when_the_terms_change),
		TEST(leaves_out_an_event_that_it_fails_on),
		TEST(ends_though_the_last_of_the_log_was_pruned),
		TEST(leaves_out_what_the_live_fold_left_out),
		TEST(numbers_its_rows_after_all_that_were_live),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
