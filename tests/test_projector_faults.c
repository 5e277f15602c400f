/* The fold when something is wrong or late: events that cannot be folded, a disk that fails, ends
 * that never come, executions that name no run, and what counts as a change.
 */
#include "scarce.h"
#include "storage_fixture.h"

#include "clock.h"

#define PLAIN "[source e2b]\npath = /e2b\n"

static const struct told created = {
	.id = "c",
	.type = "sandbox.created",
	.time = "2026-11-20T09:00:00Z",
	.sandbox = "sb1",
	.run = "run1",
};

/* The nth of a row of sandboxes that were created. */
static void tell_nth(struct world *w, int n)
{
	char id[16], sandbox[16];
	struct told t = created;
	(void)snprintf(id, sizeof(id), "c%d", n);
	(void)snprintf(sandbox, sizeof(sandbox), "sb%d", n);
	t.id = id;
	t.sandbox = sandbox;
	tell(w, t);
}

/* It says what it skips. */
static void fold_all_quietly(struct world *w)
{
	int kept = begin_listening();
	(void)fold_all(w);
	free(end_listening(kept));
}

static void restart(struct world *w)
{
	reopen(w);
	begin_ledger(w, PLAIN);
}

/* Events that cannot be folded ---------------------------------------------- */

static void spoil(struct world *w, int64_t seq)
{
	char sql[256];
	(void)snprintf(sql, sizeof(sql),
		       "UPDATE body_block SET bodies = CAST('{\"secret-thing\":1}' AS BLOB) WHERE "
		       "first_seq = %lld; UPDATE event SET body_len = 18 WHERE seq = %lld",
		       (long long)seq, (long long)seq);
	close_store(w);
	change(w, sql);
	open_store(w);
}

static void skips_an_event_that_fails_twice_and_goes_on(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 5; i++)
		tell_nth(w, i);
	spoil(w, 3);
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	int steps = fold_all(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_true(steps < 20);
	assert_non_null(strstr(said, "event skipped"));
	assert_non_null(strstr(said, "seq=3"));
	assert_null(strstr(said, "secret-thing"));
	tell_nth(w, 6);
	(void)fold_all(w);
	expect_rows(w, "SELECT stored_seq, folded_seq, skipped FROM ledger_state", "6|6|1");
	expect_rows(w, "SELECT sandbox_id FROM sandboxes ORDER BY 1", "sb1\nsb2\nsb4\nsb5\nsb6");
	/* It stays in the log, and out of the ledger after a restart too. */
	expect_rows(w, "SELECT event_id, payload, sandbox_id FROM events WHERE seq = 3",
		    "c3|{\"secret-thing\":1}|-");
	reopen(w);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
	expect_rows(w, "SELECT skipped FROM ledger_state", "1");
}

/* 540,000 s of 16 TiB at the dearest price are nine tenths of what a sum can hold. */
static void expect_what_no_sum_can_hold_skipped(struct world *w, size_t part)
{
	begin_ledger(w, PLAIN "[template huge]\nvcpu = 1\nmemory_mb = 16777216\n"
			      "[pricing]\nvcpu_second_usd = 0\ngib_second_usd = 1\n");
	projector_set_part(w->p, part);
	for (int i = 0; i < 6; i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "e%d", i);
		tell(w, (struct told) {
				.id = id,
				.type = i % 2 ? "sandbox.killed" : "sandbox.created",
				.time = i % 2 ? "2026-11-19T15:00:00Z" : "2026-11-13T09:00:00Z",
				.sandbox = i < 2   ? "sb1"
					   : i < 4 ? "sb2"
						   : "sb3",
				.template = i < 4 ? "huge" : "other",
			});
	}
	int kept = begin_listening();
	int steps = fold_all(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_true(steps < 20);
	assert_non_null(strstr(said, "event skipped"));
	expect_rows(w, "SELECT stored_seq, folded_seq, skipped FROM ledger_state", "6|6|1");
	expect_rows(w, "SELECT sandbox_id, state, cost_nanousd FROM sandboxes ORDER BY 1",
		    "sb1|killed|8847360000000000000\nsb2|running|0\nsb3|killed|-");
	expect_rows(w, "SELECT runs, cost_nanousd FROM template_stats WHERE template = 'huge'",
		    "2|8847360000000000000");
}

static void skips_an_event_that_no_sum_can_hold(void **state)
{
	expect_what_no_sum_can_hold_skipped(*state, 0);
}

/* The sandbox that fails is not the first one: others are written when it does. */
static void skips_an_event_that_fails_amid_a_slice_in_parts(void **state)
{
	expect_what_no_sum_can_hold_skipped(*state, 1);
}

/* The same while nothing was pending at start: the whole slice fails first. */
static void finds_the_one_that_fails_in_a_slice(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 3; i++)
		tell_nth(w, i);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
	for (int i = 4; i <= 40; i++)
		tell_nth(w, i);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_commit(w->s), 0);
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE event SET body_len = 1 WHERE seq IN (7, 30)",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	(void)sqlite3_close(db);
	int kept = begin_listening();
	(void)fold_all(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_non_null(strstr(said, "seq=7"));
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "40|2");
	expect_rows(w, "SELECT count(*) FROM sandboxes", "38");
}

/* The row of an event says that its body is where it cannot be, or the body is gone: that event's
 * misfortune, nobody else's. */
static void skips_events_whose_bodies_are_not_where_they_should_be(void **state)
{
	struct world *w = *state;
	char id[] = "00000000-0000-4000-8000-000000000000";
	for (int i = 1; i <= 6; i++) {
		struct told t = created;
		t.id = id;
		id[sizeof(id) - 2] = (char)('0' + i);
		tell(w, t);
	}
	close_store(w);
	change(w, "UPDATE event SET body_len = 1 WHERE seq = 2;"
		  "UPDATE event SET body_at = 1 << 40 WHERE seq = 3;"
		  "UPDATE event SET id_at = 1 << 20 WHERE seq = 4;"
		  "DELETE FROM body_block WHERE first_seq = 1");
	open_store(w);
	begin_ledger(w, PLAIN);
	fold_all_quietly(w);
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "6|4");
	/* Who delivers it again is not refused, and what comes is kept. */
	struct told again = created;
	id[sizeof(id) - 2] = '2';
	again.id = id;
	assert_int_equal(put_told(w, again), STORAGE_QUARANTINED);
}

/* What a process that died in a fold leaves behind: once may be chance, twice is not. */
static void skips_what_the_last_two_starts_died_on(void **state)
{
	struct world *w = *state;
	tell_nth(w, 1);
	tell_nth(w, 2);
	for (int died = 1; died <= 2; died++) {
		char sql[128];
		(void)snprintf(sql, sizeof(sql),
			       "UPDATE position SET trying_seq = %d, trying_count = %d", died,
			       died);
		close_store(w);
		change(w, sql);
		open_store(w);
		begin_ledger(w, PLAIN);
		int kept = begin_listening();
		bool more;
		assert_int_equal(projector_step(w->p, 1000000, 256, &more), 0);
		free(end_listening(kept));
		expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state",
			    died == 1 ? "1|0" : "2|1");
	}
	expect_rows(w, "SELECT sandbox_id FROM sandboxes", "sb1");
}

/* Notes which event it tries before it tries it, or a death in it would leave no trace. */
static void records_an_event_before_it_tries_it(void **state)
{
	struct world *w = *state;
	tell_nth(w, 1);
	spoil(w, 1);
	begin_ledger(w, PLAIN);
	int kept = begin_listening();
	bool more;
	int r = projector_step(w->p, 1000000, 256, &more);
	free(end_listening(kept));
	assert_int_equal(r, 0);
	assert_true(more);
	expect_rows(w, "SELECT trying_seq, trying_count, folded_seq FROM position", "1|1|0");
}

/* A disk that fails --------------------------------------------------------- */

static void never_skips_an_event_because_the_disk_failed(void **state)
{
	struct world *w = *state;
	tell_nth(w, 1);
	reopen(w);
	begin_ledger(w, PLAIN);
	int failures = 0;
	for (long n = 1; n < 30; n++) {
		bool more;
		disk_break(n, ENOSPC, true);
		int r = projector_step(w->p, 1000000, 256, &more);
		disk_mend();
		failures += r < 0;
		if (r == 0)
			break;
	}
	assert_true(failures > 4);
	(void)fold_all(w);
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "1|0");
	expect_rows(w, "SELECT sandbox_id FROM sandboxes", "sb1");
}

/* Two starts on a full disk are not two deaths. */
static void forgets_a_try_that_the_disk_ended(void **state)
{
	struct world *w = *state;
	tell_nth(w, 1);
	restart(w);
	int failures = 0;
	for (long n = 1; n < 30; n++) {
		bool more;
		disk_break_only(DISK_WRITES, n, ENOSPC, false);
		int r = projector_step(w->p, 1000000, 256, &more);
		disk_mend();
		if (r == 0)
			break;
		failures++;
		expect_rows(w, "SELECT trying_count, folded_seq FROM position", "0|0");
	}
	assert_true(failures > 4);
	(void)fold_all(w);
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "1|0");
}

/* Whatever the disk did not let it take back: two starts on a disk that fails are not two deaths.
 */
static void condemns_no_event_that_two_processes_could_not_fold(void **state)
{
	for (long n = 1; n < 30; n++) {
		void *other;
		(void)begin_store(&other);
		struct world *w = other;
		bool more;
		tell_nth(w, 1);
		for (int i = 0; i < 2; i++) {
			restart(w);
			disk_break_only(DISK_WRITES, n, ENOSPC, true);
			(void)!projector_step(w->p, 1000000, 256, &more);
			disk_mend();
		}
		restart(w);
		(void)fold_all(w);
		expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "1|0");
		(void)end_world(&other);
	}
}

/* The disk is an excuse once: what fails again by itself is skipped. */
static void skips_what_fails_behind_a_disk_that_failed(void **state)
{
	struct world *w = *state;
	tell_nth(w, 1);
	tell_nth(w, 2);
	assert_int_equal(storage_set_unjudged(w->s, 1), 0);
	close_store(w);
	change(w, "UPDATE event SET body_len = 1 WHERE seq = 1;"
		  " UPDATE position SET trying_seq = 1, trying_count = 2");
	open_store(w);
	begin_ledger(w, PLAIN);
	assert_int_equal(storage_unjudged(w->s), 1);
	int kept = begin_listening();
	bool more = true;
	for (int steps = 0; steps < 10 && more; steps++)
		(void)!projector_step(w->p, 1000000, 256, &more);
	free(end_listening(kept));
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "2|1");
	assert_int_equal(storage_unjudged(w->s), 0);
}

static const char *const mixed[] = {
	"01-v2-created",	"50-code-executed-success", "09-v2-paused",
	"10-v2-resumed",	"51-code-executed-error",   "40-compat-agentenv-created",
	"11-v2-killed-request",
};

static void put_mixed(struct world *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(mixed); i++)
		put_story(w, mixed[i]);
}

static void put_and_offer_mixed(struct world *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(mixed); i++)
		put_and_offer_story(w, mixed[i]);
}

/* Folds with the nth call of the disk failing (and all after it, if it stays broken), mends the
 * disk and folds the rest: in the same process, or after a restart. Returns whether anything
 * failed. */
static bool fold_broken(struct world *w, long n, int error, bool stays, bool again)
{
	bool more = true, failed = false;
	projector_set_part(w->p, (size_t)n % 3); /* whole, or two or three parts */
	disk_break(n, error, stays);
	while (more && !failed) {
		failed = projector_gather(w->p, 2, 1000000, 3) < 0;
		if (!failed)
			failed = projector_step(w->p, 1000000, 3, &more) < 0;
	}
	disk_mend();
	if (again)
		restart(w);
	(void)fold_all(w);
	return failed;
}

/* Ends this world, too. `at`: folded up to, and skipped. */
static void expect_ledger_and_end(void **state, const char *at, const char *ledger)
{
	CLEANUP_FREE char *is = ledger_of(*state);
	CLEANUP_FREE char *is_at = rows_of(*state, "SELECT folded_seq, skipped FROM ledger_state");
	(void)end_world(state);
	assert_string_equal(is_at, at);
	assert_string_equal(is, ledger);
}

static void folds_exactly_once_on_a_disk_that_fails_anywhere(void **state)
{
	struct world *w = *state;
	static const int errors[] = { EIO, ENOSPC, ESTALE };
	put_mixed(w);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
	CLEANUP_FREE char *expected = ledger_of(w);
	for (int pending = 0; pending < 2; pending++) {
		int failures = 0;
		bool failed = true;
		for (long n = 1; failed || n < 10; n += 1 + n / 6) {
			void *other_state;
			(void)begin_store(&other_state);
			struct world *other = other_state;
			if (pending) { /* one by one, and with a cold cache */
				put_mixed(other);
				restart(other);
			} else {
				begin_ledger(other, PLAIN);
				put_and_offer_mixed(other);
			}
			failed = fold_broken(other, n, errors[n % 3], n % 2, n % 4 > 1);
			failures += failed;
			expect_ledger_and_end(&other_state, "7|0", expected);
		}
		assert_true(failures > 5);
	}
}

/* Slices in parts ------------------------------------------------------------ */

#define CROWD 60

/* Sandboxes of many events, some about none, executions reported twice, and one event among them
 * that cannot be read. */
static void put_crowd(struct world *w, int from, int to)
{
	static const char *const types[] = { "sandbox.created", "sandbox.code_executed",
					     "sandbox.paused", "e2b-hookd.test" };
	for (int i = from; i < to; i++) {
		char id[16], sandbox[16], run[16], time[32], data[160];
		(void)snprintf(id, sizeof(id), "e%d", i);
		(void)snprintf(sandbox, sizeof(sandbox), "sb%d", i * 7 % 11);
		(void)snprintf(run, sizeof(run), "run-%d", i * 7 % 11);
		(void)snprintf(time, sizeof(time), "2026-11-20T09:%02d:00Z", i);
		(void)snprintf(data, sizeof(data),
			       "{\"code_execution\":{\"execution_id\":\"x%d\",\"duration_ms\":5,"
			       "\"status\":\"%s\"}}",
			       i % 2, i % 3 ? "success" : "error");
		tell(w, (struct told) { .id = id,
					.type = types[i / 2 % (int)ARRAY_SIZE(types)],
					.time = time,
					.sandbox = sandbox,
					.run = i * 7 % 11 % 2 ? run : NULL,
					.data = data });
	}
}

static void expect_each_event_once(struct world *w)
{
	char n[32];
	(void)snprintf(n, sizeof(n), "%d|%d", CROWD, CROWD);
	expect_rows(w, "SELECT count(*), count(DISTINCT event_id) FROM events", n);
}

/* Folds in parts, and is cut off behind the nth: by the end of the process, or by a disk that
 * fails. */
static bool fold_in_parts(struct world *w, size_t part, int n, bool dies)
{
	bool more = true, was_amid = false;
	projector_set_part(w->p, part);
	for (int i = 0; i < n && more; i++) {
		assert_int_equal(projector_step(w->p, 1000000, CROWD / 2, &more), 0);
		was_amid = projector_is_writing(w->p);
		assert_true(!was_amid || projector_is_amid(w->p));
		expect_each_event_once(w);
	}
	if (dies) {
		restart(w);
		projector_set_part(w->p, part);
	} else if (more) {
		disk_break_only(DISK_WRITES, 1, EIO, false);
		assert_int_equal(projector_step(w->p, 1000000, CROWD / 2, &more), -EIO);
		disk_mend();
	}
	assert_false(projector_is_writing(w->p));
	assert_true(!was_amid || projector_is_amid(w->p));
	return was_amid;
}

static void counts_each_event_once_wherever_a_slice_in_parts_is_cut_off(void **state)
{
	struct world *w = *state;
	const char *is_long = getenv("HOOKD_LONG");
	size_t step = is_long && strcmp(is_long, "1") == 0 ? 1 : 5;
	int n_amid = 0;
	put_crowd(w, 0, CROWD);
	spoil(w, 17);
	restart(w);
	fold_all_quietly(w);
	expect_rows(w, "SELECT folded_seq, skipped FROM ledger_state", "60|1");
	CLEANUP_FREE char *expected = ledger_of(w);
	for (size_t i = 0; i < 2 * 3 * 24 / step; i++) {
		void *other_state;
		(void)begin_store(&other_state);
		struct world *other = other_state;
		put_crowd(other, 0, 18);
		spoil(other, 17);
		restart(other);
		fold_all_quietly(other);
		put_crowd(other, 18, CROWD);
		n_amid += fold_in_parts(other, 1 + i % 3 * 4, (int)(i / 6 * step), i % 2);
		(void)fold_all(other);
		assert_false(projector_is_amid(other->p));
		expect_each_event_once(other);
		expect_ledger_and_end(&other_state, "60|1", expected);
	}
	assert_true(n_amid > 40 / (int)step);
}

/* Retention would count a sandbox twice that it takes away, and that the slice brings back. */
static void knows_what_is_half_written_until_all_of_it_is_whole(void **state)
{
	struct world *w = *state;
	bool more;
	begin_ledger(w, PLAIN);
	put_crowd(w, 0, CROWD);
	projector_set_part(w->p, 5);
	do
		assert_int_equal(projector_step(w->p, 1000000, CROWD, &more), 0);
	while (projector_folded_seq(w->p) == 0);
	assert_true(projector_is_writing(w->p));
	int64_t folded = projector_folded_seq(w->p);
	disk_break_only(DISK_WRITES, 1, EIO, false);
	assert_int_equal(projector_step(w->p, 1000000, CROWD, &more), -EIO);
	disk_mend();
	while (folded < CROWD) {
		assert_true(projector_is_amid(w->p));
		assert_int_equal(projector_tick(w->p, RECEIVED_MS), 0);
		assert_int_equal(projector_step(w->p, 1000000, CROWD / 3, &more), 0);
		assert_false(projector_is_writing(w->p));
		assert_true(projector_folded_seq(w->p) > folded);
		folded = projector_folded_seq(w->p);
	}
	assert_false(projector_is_amid(w->p));
	expect_each_event_once(w);
}

static void finishes_a_slice_that_was_cut_off_by_the_aliases_it_began_with(void **state)
{
	struct world *w = *state;
	bool more;
	begin_ledger(w, PLAIN "[template tpl-one]\nalias = nice\n");
	for (int i = 1; i <= 10; i++) {
		char id[16];
		struct told t = created;
		(void)snprintf(id, sizeof(id), "sb%d", i);
		t.id = t.sandbox = id;
		t.template = "nice";
		tell(w, t);
	}
	projector_set_part(w->p, 1);
	for (int i = 0; i < 5; i++)
		assert_int_equal(projector_step(w->p, 1000000, 10, &more), 0);
	disk_break_only(DISK_WRITES, 1, EIO, false);
	assert_int_equal(projector_step(w->p, 1000000, 10, &more), -EIO);
	disk_mend();
	struct config *next = load_config(PLAIN "[template tpl-two]\nalias = nice\n");
	projector_set_config(w->p, next);
	config_unref(w->config);
	w->config = next;
	(void)fold_all(w);
	expect_rows(w,
		    "SELECT s.template_id, e.template_id, count(*) FROM sandboxes s JOIN events e "
		    "USING (sandbox_id) GROUP BY 1, 2",
		    "tpl-one|tpl-one|10");
}

/* Memory that runs out --------------------------------------------------------- */

/* Gathers, if it was offered, and folds, with the nth allocation failing; then the rest. No event
 * is to blame for it: of one that fails twice the ledger is never told. */
static bool fold_scarcely(struct world *w, long n)
{
	bool more = true;
	int r = 0, kept = begin_listening();
	projector_set_part(w->p, (size_t)n / 3 % 2);
	scarce_begin(n);
	while (more && r == 0) {
		r = projector_gather(w->p, 2, 1000000, 3);
		if (r == 0)
			r = projector_step(w->p, 1000000, 3, &more);
	}
	bool hit = scarce_end();
	(void)fold_all(w);
	CLEANUP_FREE char *said = end_listening(kept);
	assert_string_equal(said, "");
	assert_true(r == 0 || (hit && storage_is_failure(r)));
	return hit;
}

static void folds_exactly_once_whatever_allocation_fails(void **state)
{
	struct world *w = *state;
	put_mixed(w);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
	CLEANUP_FREE char *expected = ledger_of(w);
	for (int offered = 0; offered < 2; offered++) {
		long n = 1;
		for (bool hit = true; hit; n += offered ? 1 : 3) {
			void *other_state;
			(void)begin_store(&other_state);
			struct world *other = other_state;
			begin_ledger(other, PLAIN);
			if (offered)
				put_and_offer_mixed(other);
			else
				put_mixed(other);
			hit = fold_scarcely(other, n);
			expect_ledger_and_end(&other_state, "7|0", expected);
		}
		assert_true(n > 20);
	}
}

/* Missing ends -------------------------------------------------------------- */

static void closes_runs_whose_end_never_came(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	w->config->store.max_run_ms = 24 * INT64_C(3600000);
	projector_set_config(w->p, w->config);
	struct told t = created;
	t.in_2100 = true;
	t.time = "2099-12-31T23:00:00Z";
	tell(w, t);
	t.id = "u";
	t.type = "sandbox.updated";
	t.time = "2099-12-31T23:00:01Z";
	t.data = "{\"set_timeout\":\"2100-01-01T00:00:00Z\"}";
	tell(w, t);
	t = created;
	t.in_2100 = true;
	t.id = "c2";
	t.time = "2099-12-31T23:00:00Z";
	t.sandbox = "sb2";
	tell(w, t);
	(void)fold_all(w);
	static const char query[] =
		"SELECT r.sandbox_id, end_kind, r.ended_at, r.runtime_ms, state,"
		" expires_at FROM runs r JOIN sandboxes s USING (sandbox_id)"
		" ORDER BY 1";
	static const struct {
		int64_t now_ms;
		const char *rows;
	} cases[] = {
		{ IN_2100_MS - 1, "sb1|-|-|-|running|2100-01-01T00:00:00.000Z\n"
				  "sb2|-|-|-|running|-" },
		{ IN_2100_MS, "sb1|timeout|2100-01-01T00:00:00.000Z|3600000|unknown|-\n"
			      "sb2|-|-|-|running|-" },
		{ IN_2100_MS + 23 * INT64_C(3600000),
		  "sb1|timeout|2100-01-01T00:00:00.000Z|3600000|unknown|-\n"
		  "sb2|max_run|2100-01-01T23:00:00.000Z|86400000|unknown|-" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(projector_tick(w->p, cases[i].now_ms), 0);
		expect_rows(w, query, cases[i].rows);
	}
	expect_rows(w, "SELECT folded_seq FROM ledger_state", "3");
}

/* One whose cost no sum can hold must not keep the others open. */
static void closes_the_others_when_one_run_cannot_be_closed(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN "[template huge]\nvcpu = 1\nmemory_mb = 16777216\n"
			      "[pricing]\nvcpu_second_usd = 0\ngib_second_usd = 1\n");
	w->config->store.max_run_ms = 540000000;
	projector_set_config(w->p, w->config);
	static const char *const sandboxes[] = { "sb1", "sb2", "sb3" };
	for (size_t i = 0; i < ARRAY_SIZE(sandboxes); i++)
		tell(w, (struct told) { .id = sandboxes[i],
					.type = "sandbox.created",
					.time = "2099-12-25T00:00:00Z",
					.sandbox = sandboxes[i],
					.template = i < 2 ? "huge" : "other",
					.in_2100 = true });
	tell(w, (struct told) { .id = "k",
				.type = "sandbox.killed",
				.time = "2099-12-31T06:00:00Z",
				.sandbox = "sb1",
				.in_2100 = true });
	(void)fold_all(w);
	expect_rows(w, "SELECT skipped FROM ledger_state", "0");
	int r = projector_tick(w->p, IN_2100_MS);
	assert_true(r < 0 && !storage_is_failure(r));
	expect_rows(w, "SELECT sandbox_id, end_kind FROM runs ORDER BY 1",
		    "sb1|killed\nsb2|-\nsb3|max_run");
}

/* A real end that comes late replaces the estimate. */
static void believes_an_end_that_comes_late(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	w->config->store.max_run_ms = 3600000;
	projector_set_config(w->p, w->config);
	struct told t = created;
	t.in_2100 = true;
	t.time = "2100-01-01T00:00:00Z";
	tell(w, t);
	(void)fold_all(w);
	assert_int_equal(projector_tick(w->p, IN_2100_MS + 3600000), 0);
	expect_rows(w, "SELECT end_kind, runtime_ms FROM runs", "max_run|3600000");
	expect_rows(w, "SELECT sum(runtime_ms), sum(runs_ended) FROM cost_hourly", "3600000|1");
	t.id = "k";
	t.type = "sandbox.killed";
	t.time = "2100-01-01T00:30:00Z";
	tell(w, t);
	(void)fold_all(w);
	expect_rows(w, "SELECT end_kind, runtime_ms FROM runs", "killed|1800000");
	expect_rows(w, "SELECT sum(runtime_ms), sum(runs_ended) FROM cost_hourly", "1800000|1");
}

/* The tick says nothing about the event that is being tried. */
static void keeps_the_mark_of_a_try_over_a_tick(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	w->config->store.max_run_ms = 3600000;
	projector_set_config(w->p, w->config);
	struct told t = created;
	t.in_2100 = true;
	t.time = "2100-01-01T00:00:00Z";
	tell(w, t);
	(void)fold_all(w);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_trying(w->s, 2, 1), 0);
	assert_int_equal(storage_commit(w->s), 0);
	assert_int_equal(projector_tick(w->p, IN_2100_MS + 3600000), 0);
	expect_rows(w, "SELECT end_kind, trying_seq, trying_count FROM runs, position",
		    "max_run|2|1");
}

/* Executions that name no run ----------------------------------------------- */

static void tell_execution(struct world *w, const char *id, const char *time, const char *run)
{
	char data[128];
	(void)snprintf(data, sizeof(data),
		       "{\"code_execution\":{\"execution_id\":\"x-%s\",\"duration_ms\":5}}", id);
	tell(w, (struct told) { .id = id,
				.type = "sandbox.code_executed",
				.time = time,
				.sandbox = "sb1",
				.run = run,
				.data = data });
}

static void gives_an_execution_to_the_run_that_covers_it(void **state)
{
	struct world *w = *state;
	static const char query[] = "SELECT execution_id, run_id FROM executions ORDER BY 1";
	begin_ledger(w, PLAIN);
	tell_execution(w, "e1", "2026-11-20T09:10:00Z", NULL);
	tell_execution(w, "e2", "2026-11-20T10:10:00Z", NULL);
	tell_execution(w, "e3", "2026-11-20T10:10:00Z", "run9");
	(void)fold_all(w);
	expect_rows(w, query, "x-e1|-\nx-e2|-\nx-e3|run9");
	/* The run's start comes later; the run is open. */
	tell(w, created);
	(void)fold_all(w);
	expect_rows(w, query, "x-e1|run1\nx-e2|run1\nx-e3|run9");
	/* It ended in between, as is learned in another process. */
	restart(w);
	struct told killed = created;
	killed.id = "p";
	killed.type = "sandbox.paused";
	killed.time = "2026-11-20T10:00:00Z";
	tell(w, killed);
	(void)fold_all(w);
	expect_rows(w, query, "x-e1|run1\nx-e2|-\nx-e3|run9");
	/* And a second run begins before the other one. */
	struct told resumed = created;
	resumed.id = "r";
	resumed.type = "sandbox.resumed";
	resumed.run = "run2";
	resumed.time = "2026-11-20T10:05:00Z";
	tell(w, resumed);
	(void)fold_all(w);
	expect_rows(w, query, "x-e1|run1\nx-e2|run2\nx-e3|run9");
	expect_rows(w, "SELECT executions FROM sandboxes", "3");
}

/* The latest word counts, by the time of the event and then its id, whatever came first. */
static void believes_the_latest_report_about_an_execution(void **state)
{
	struct world *w = *state;
	begin_ledger(w, PLAIN);
	static const struct {
		const char *id, *time, *status, *expected;
	} reports[] = {
		{ "m", "2026-11-20T09:10:00Z", "error", "m|error|1|1" },
		{ "a", "2026-11-20T09:10:00Z", "success", "m|error|1|1" },
		{ "z", "2026-11-20T09:10:00Z", "success", "z|success|1|0" },
		{ "y", "2026-11-20T09:11:00Z", "timeout", "y|timeout|1|1" },
		{ "x", "2026-11-20T09:09:00Z", "success", "y|timeout|1|1" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(reports); i++) {
		char data[128];
		(void)snprintf(data, sizeof(data),
			       "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":5,"
			       "\"status\":\"%s\"}}",
			       reports[i].status);
		struct told t = created;
		t.id = reports[i].id;
		t.type = "sandbox.code_executed";
		t.time = reports[i].time;
		t.data = data;
		tell(w, t);
		(void)fold_all(w);
		expect_rows(w,
			    "SELECT event_id, status, s.executions, s.failed_executions FROM"
			    " executions JOIN sandboxes s USING (sandbox_id)",
			    reports[i].expected);
	}
	expect_rows(w, "SELECT sum(executions), sum(failed), sum(timeouts) FROM template_hourly",
		    "1|1|1");
}

/* Changes ------------------------------------------------------------------- */

/* An incremental reader sees what changed, and only that. */
static void numbers_the_rows_that_change(void **state)
{
	struct world *w = *state;
	begin_ledger(w, "[source e2b]\npath = /e2b\npriced = no\n");
	tell(w, created);
	struct told other = created;
	other.id = "c2";
	other.sandbox = "sb2";
	tell(w, other);
	(void)fold_all(w);
	static const char query[] =
		"SELECT max(changed_seq) FROM runs WHERE sandbox_id = 'sb1'"
		" UNION ALL SELECT max(changed_seq) FROM runs WHERE sandbox_id = 'sb2'"
		" UNION ALL SELECT max(changed_seq) FROM sandboxes WHERE sandbox_id = 'sb1'";
	expect_rows(w, query, "1\n1\n1");
	/* A sign of life: the sandbox's row changes, its run does not (nor does one without price).
	 */
	restart(w);
	struct told checkpointed = created;
	checkpointed.id = "p";
	checkpointed.type = "sandbox.checkpointed";
	checkpointed.time = "2026-11-20T09:30:00Z";
	tell(w, checkpointed);
	(void)fold_all(w);
	expect_rows(w, query, "1\n1\n2");
	struct told killed = created;
	killed.id = "k";
	killed.type = "sandbox.killed";
	killed.time = "2026-11-20T09:40:00Z";
	tell(w, killed);
	(void)fold_all(w);
	expect_rows(w, query, "3\n1\n3");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(skips_an_event_that_fails_twice_and_goes_on),
		TEST(skips_an_event_that_no_sum_can_hold),
		TEST(skips_an_event_that_fails_amid_a_slice_in_parts),
		TEST(finds_the_one_that_fails_in_a_slice),
		TEST(skips_events_whose_bodies_are_not_where_they_should_be),
		TEST(skips_what_the_last_two_starts_died_on),
		TEST(records_an_event_before_it_tries_it),
		TEST(never_skips_an_event_because_the_disk_failed),
		TEST(forgets_a_try_that_the_disk_ended),
		TEST(condemns_no_event_that_two_processes_could_not_fold),
		TEST(skips_what_fails_behind_a_disk_that_failed),
		TEST(folds_exactly_once_on_a_disk_that_fails_anywhere),
		TEST(counts_each_event_once_wherever_a_slice_in_parts_is_cut_off),
		TEST(knows_what_is_half_written_until_all_of_it_is_whole),
		TEST(finishes_a_slice_that_was_cut_off_by_the_aliases_it_began_with),
		TEST(folds_exactly_once_whatever_allocation_fails),
		TEST(closes_runs_whose_end_never_came),
		TEST(closes_the_others_when_one_run_cannot_be_closed),
		TEST(believes_an_end_that_comes_late),
		TEST(keeps_the_mark_of_a_try_over_a_tick),
		TEST(gives_an_execution_to_the_run_that_covers_it),
		TEST(believes_the_latest_report_about_an_execution),
		TEST(numbers_the_rows_that_change),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
