/* What retention promises where it meets what comes meanwhile: a sandbox goes after its events, and
 * what comes back of one that goes, or is corrected, is counted as it should be.
 */
#include "random_events.h"

#include "retention.h"

#define CONFIG                                                                                     \
	"[source e2b]\npath = /e2b\n[template tpl]\nvcpu = 2\nmemory_mb = 512\n"                   \
	"[template big]\nvcpu = 8\nmemory_mb = 8192\n"
#define HOUR_S 3600

static struct retention *begin_retention(struct world *w, int64_t retention_s,
					 int64_t ledger_retention_s)
{
	struct retention *t = NULL;
	begin_ledger(w, CONFIG);
	w->config->store.retention_ms = retention_s * 1000;
	w->config->store.ledger_retention_ms = ledger_retention_s * 1000;
	assert_int_equal(retention_new(w->s, &t), 0);
	retention_set_config(t, w->config);
	return t;
}

static void free_retention(struct retention **t)
{
	retention_free(*t);
}
#define RETENTION CLEANUP(free_retention) struct retention

static void tell_of(struct world *w, const char *id, const char *type, const char *time,
		    const char *sandbox, const char *data)
{
	tell(w, (struct told) { .id = id,
				.type = type,
				.time = time,
				.sandbox = sandbox,
				.template = "tpl",
				.data = data });
}

static void step(struct retention *t)
{
	assert_int_equal(retention_step(t), 0);
}

static void prune_all(struct retention *t)
{
	assert_int_equal(retention_tick(t), 0);
	while (retention_has_work(t))
		step(t);
}

#define SUM "SELECT sum(runs_ended), sum(cost_nanousd) FROM cost_daily"
#define REPORT                                                                                     \
	"{\"execution\":{\"execution_time\":20000,\"memory_mb\":512,\"vcpu_count\":2,"             \
	"\"started_at\":\"2026-11-20T08:59:50Z\"}}"

static void tell_a_run(struct world *w)
{
	tell_of(w, "c", "sandbox.created", "2026-11-20T08:59:50Z", "sb1", NULL);
	tell_of(w, "k", "sandbox.killed", "2026-11-20T09:00:10Z", "sb1", REPORT);
	tell_of(w, "n1", "sandbox.created", "2026-11-20T10:00:05Z", "sb2", NULL);
	(void)fold_all(w);
}

static void removes_no_sandbox_whose_events_are_there(void **state)
{
	struct world *w = *state;
	RETENTION *t = begin_retention(w, HOUR_S, HOUR_S);
	tell_a_run(w);
	CLEANUP_FREE char *before = rows_of(w, SUM);
	assert_int_equal(retention_tick(t), 0);
	for (int i = 0; i < 3; i++) /* the first event goes; none is left; nor by size */
		step(t);
	expect_rows(w, "SELECT count(*) FROM event", "2");
	tell_of(w, "n2", "sandbox.updated", "2026-11-20T10:00:20Z", "sb2", NULL);
	(void)fold_all(w);
	assert_int_equal(retention_tick(t), 0); /* the horizon passes the second one */
	step(t);
	rebuild_ledger(w); /* which retention waits for */
	expect_rows(w, SUM, before);
	prune_all(t);
	prune_all(t);
	expect_rows(w, "SELECT sandbox_id FROM sandboxes", "sb2");
	expect_rows(w, SUM, before);
}

static void removes_no_sandbox_that_an_event_waits_for(void **state)
{
	struct world *w = *state;
	RETENTION *t = begin_retention(w, HOUR_S, HOUR_S);
	tell_a_run(w);
	CLEANUP_FREE char *before = rows_of(w, SUM);
	prune_all(t);
	tell_of(w, "k2", "sandbox.killed", "2026-11-20T09:00:11Z", "sb1", REPORT);
	tell_of(w, "n2", "sandbox.updated", "2026-11-20T10:00:40Z", "sb2", NULL);
	prune_all(t); /* the horizon passes k2, which is not folded */
	(void)fold_all(w);
	expect_rows(w, SUM, before);
	prune_all(t);
	prune_all(t);
	expect_rows(w, "SELECT sandbox_id FROM sandboxes", "sb2");
	expect_rows(w, SUM, before);
}

/* So many that they go in several slices. */
static void counts_what_is_left_of_a_sandbox_that_comes_back(void **state)
{
	enum { N = 100 };
	struct world *w = *state;
	RETENTION *t = begin_retention(w, HOUR_S, 2 * HOUR_S);
	tell_of(w, "c", "sandbox.created", "2026-11-20T06:00:00Z", "sb1", NULL);
	for (int i = 0; i < N; i++) {
		char id[16], data[128];
		(void)snprintf(id, sizeof(id), "x%d", i);
		(void)snprintf(data, sizeof(data),
			       "{\"code_execution\":{\"execution_id\":\"%s\",\"duration_ms\":5,"
			       "\"exit_code\":%d}}",
			       id, i % 3);
		tell_of(w, id, "sandbox.code_executed", "2026-11-20T06:00:01Z", "sb1", data);
	}
	tell_of(w, "p", "sandbox.paused", "2026-11-20T06:00:05Z", "sb1", NULL);
	tell_of(w, "n1", "sandbox.created", "2026-11-20T09:00:00Z", "sb2", NULL);
	(void)fold_all(w);
	assert_int_equal(retention_tick(t), 0);
	for (int left = N; left == N;) {
		step(t);
		CLEANUP_FREE char *n = rows_of(w, "SELECT count(*) FROM execution");
		left = atoi(n);
	}
	expect_rows(w, "SELECT count(*) FROM sandbox", "2");
	tell_of(w, "r", "sandbox.resumed", "2026-11-20T09:00:01Z", "sb1", NULL);
	(void)fold_all(w);
	prune_all(t);
	expect_rows(w, "SELECT executions, failed_executions FROM template_stats", "100|66");
	expect_sound(w);
}

static void believes_a_correction_that_the_horizon_passed_while_it_waited(void **state)
{
	struct world *w = *state;
	RETENTION *t = begin_retention(w, HOUR_S, 0);
	static const char *const reports[] = { "0", "1", "2" };
	char data[3][128];
	for (int i = 0; i < 3; i++)
		(void)snprintf(data[i], sizeof(data[i]),
			       "{\"code_execution\":{\"execution_id\":\"x\",\"duration_ms\":5,"
			       "\"exit_code\":%s}}",
			       reports[i]);
	tell_of(w, "b", "sandbox.code_executed", "2026-11-20T09:00:00.5Z", "sb1", data[0]);
	tell_of(w, "n1", "sandbox.created", "2026-11-20T10:00:01Z", "sb2", NULL);
	(void)fold_all(w);
	prune_all(t);
	expect_rows(w, "SELECT event_id, exit_code FROM executions", "b|0");
	tell_of(w, "a", "sandbox.code_executed", "2026-11-20T09:00:20Z", "sb1", data[1]);
	tell_of(w, "n2", "sandbox.updated", "2026-11-20T10:01:00Z", "sb2", NULL);
	assert_int_equal(retention_tick(t), 0); /* the horizon passes a, which is not folded */
	(void)fold_all(w);
	expect_rows(w, "SELECT event_id, exit_code FROM executions", "a|1");
	expect_rows(w, "SELECT failed_executions FROM sandboxes WHERE sandbox_id = 'sb1'", "1");
}

/* Two starts at one instant: which is the later telling goes by their ids, which stay. */
static void leaves_the_order_of_one_instant_as_it_was(void **state)
{
	struct world *w = *state;
	RETENTION *t = begin_retention(w, HOUR_S, 2 * HOUR_S);
	tell_of(w, "z", "sandbox.created", "2026-11-20T09:00:00Z", "sb1", NULL);
	tell(w, (struct told) { .id = "a",
				.type = "sandbox.resumed",
				.time = "2026-11-20T09:00:00Z",
				.sandbox = "sb1",
				.template = "big" });
	tell_of(w, "u", "sandbox.paused", "2026-11-20T09:10:00Z", "sb1", NULL);
	tell_of(w, "n1", "sandbox.created", "2026-11-20T10:05:00Z", "sb2", NULL);
	(void)fold_all(w);
	static const char runs[] =
		"SELECT run_id, template, cost_nanousd FROM runs WHERE sandbox_id = 'sb1'";
	CLEANUP_FREE char *before = rows_of(w, runs);
	assert_non_null(strstr(before, "|tpl|"));
	prune_all(t); /* the two, but not the third */
	expect_rows(w, "SELECT count(*) FROM event", "2");
	rebuild_ledger(w);
	expect_rows(w, runs, before);
	tell_of(w, "n2", "sandbox.updated", "2026-11-20T12:00:00Z", "sb2", NULL);
	(void)fold_all(w);
	prune_all(t);
	expect_rows(w, "SELECT sandbox_id FROM sandboxes", "sb2");
	expect_rows(w, "SELECT group_concat(seq) FROM loose_id", "4");
}

static void counts_a_skipped_event_no_more_when_it_is_pruned(void **state)
{
	struct world *w = *state;
	struct storage_position at;
	begin_ledger(w, CONFIG);
	tell_of(w, "a", "sandbox.created", "2026-11-20T09:00:00Z", "sb1", NULL);
	tell_of(w, "n1", "sandbox.created", "2026-11-20T12:00:00Z", "sb2", NULL);
	close_store(w);
	change(w, "UPDATE event SET body_len = 1 WHERE seq = 1");
	open_store(w);
	RETENTION *t = begin_retention(w, HOUR_S, 0);
	int kept = begin_listening();
	(void)fold_all(w);
	free(end_listening(kept));
	assert_int_equal(storage_position(w->s, &at), 0);
	assert_int_equal(at.skipped, 1);
	prune_all(t);
	expect_rows(w, "SELECT skipped FROM ledger_state", "0");
	assert_int_equal(storage_position(w->s, &at), 0);
	assert_int_equal(at.skipped, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(removes_no_sandbox_whose_events_are_there),
		TEST(removes_no_sandbox_that_an_event_waits_for),
		TEST(counts_what_is_left_of_a_sandbox_that_comes_back),
		TEST(believes_a_correction_that_the_horizon_passed_while_it_waited),
		TEST(leaves_the_order_of_one_instant_as_it_was),
		TEST(counts_a_skipped_event_no_more_when_it_is_pruned),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
