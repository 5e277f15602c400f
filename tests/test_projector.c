/* From the log to the ledger, read back through the views: what the stories of the deliveries come
 * to, to the nano-USD, whatever the order and however often the store is opened again.
 *
 * Expected money is computed by hand: ms x (vCPU x 14,000 + GiB x 4,500) nano-USD per second. What
 * happens when something fails is in test_projector_faults.c.
 */
#include "storage_fixture.h"

#include "clock.h"

#define PLAIN "[source e2b]\npath = /e2b\n"

static void put_story(struct world *w, const char *name)
{
	PARCEL p;
	init_story(&p, name);
	assert_int_equal(put(w, &p), STORAGE_STORED);
}

static void put_stories(struct world *w, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_story(w, names[i]);
}

static void fold_stories(struct world *w, const char *const *names, size_t n)
{
	put_stories(w, names, n);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
}

static const char *const lifecycle[] = {
	"01-v2-created",
	"02-v2-created-no-event-data",
	"03-v2-created-null-event-data",
	"04-v2-updated-set-timeout",
	"05-v2-updated-network-egress",
	"07-v2-updated-timeout-and-egress",
	"08-v2-checkpointed",
	"09-v2-paused",
	"10-v2-resumed",
	"11-v2-killed-request",
};
static const char *const executions[] = {
	"50-code-executed-success",
	"51-code-executed-error",
	"52-code-executed-timeout",
	"53-code-executed-command-nonzero-exit",
	"55-code-executed-with-cost",
	"57-code-executed-minimal",
};
static const char *const compatible[] = {
	"40-compat-agentenv-created",
	"41-compat-agentenv-forked",
	"42-compat-rayito-killed",
	"44-compat-cube-shim-killed",
};

/* Stories ---------------------------------------------------------------------------------------
 */

static void tells_the_story_of_a_sandbox(void **state)
{
	struct world *w = *state;
	put_stories(w, lifecycle, ARRAY_SIZE(lifecycle));
	PARCEL again;
	init_story(&again, "12-v2-killed-request-retry");
	assert_int_equal(put(w, &again), STORAGE_DUPLICATE);
	begin_ledger(w, PLAIN);
	(void)fold_all(w);
	/* 600.277 s and 1,200.321 s of 2 vCPU and half a GiB, 30,250 nano-USD a second. */
	expect_rows(w,
		    "SELECT run_id, started_at, ended_at, end_kind, kill_reason, vcpu_count, memory_mb,"
		    " runtime_ms, cost_nanousd, cost_source FROM runs WHERE sandbox_id ="
		    " 'i7pycdybk266oxtz8q85s' ORDER BY time",
		    "e36bf9b3-ddcb-469d-a330-fcf1562ae4b8|2026-11-20T09:00:00.000Z|"
		    "2026-11-20T09:10:00.277Z|paused|-|2|512|600277|18158379|reported\n"
		    "f065a1c2-84cc-4549-81ac-c9906424550a|2026-11-20T10:00:00.000Z|"
		    "2026-11-20T10:20:00.321Z|killed|request|2|512|1200321|36309710|reported");
	expect_rows(w,
		    "SELECT time, created_at, ended_at, last_event_at, expires_at, source, template_id,"
		    " template, team_id, state, kill_reason, startup_ms, runs, runtime_ms, cost_nanousd,"
		    " executions, failed_executions, metadata FROM sandboxes WHERE sandbox_id ="
		    " 'i7pycdybk266oxtz8q85s'",
		    "1795165200|2026-11-20T09:00:00.000Z|2026-11-20T10:20:00.321Z|"
		    "2026-11-20T10:20:00.321Z|-|e2b|k3v9x2m7q1w8e5r4t6y0|k3v9x2m7q1w8e5r4t6y0|"
		    "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4|killed|request|-|2|1800598|54468089|0|0|"
		    "{\"agent\":\"billing-summary\",\"env\":\"staging\",\"user_id\":\"4711\"}");
	expect_rows(w,
		    "SELECT r.sandbox_id, run_id, started_at, ended_at, r.runtime_ms, r.cost_nanousd, cost_source, state"
		    " FROM runs r JOIN sandboxes s ON s.sandbox_id = r.sandbox_id"
		    " WHERE ended_at IS NULL AND r.sandbox_id <> 'i7pycdybk266oxtz8q85s' ORDER BY r.time",
		    "i0ro6nzqdg3w4ll0tzql9|6ca387b5-bafe-4bd1-a0c5-d1529127c470|"
		    "2026-11-20T09:00:01.500Z|-|-|-|unknown|running\n"
		    "ivu1i4xx1bzn2kir1gshy|e9a5642c-7d07-43e5-b6e5-c77a2ee05f69|"
		    "2026-11-20T09:00:02.000Z|-|-|-|unknown|running");
	expect_rows(w, "SELECT stored_seq, folded_seq, lag_s, skipped FROM ledger_state",
		    "10|10|0|0");
}

static void shows_a_timeout_that_was_set_while_the_run_is_open(void **state)
{
	struct world *w = *state;
	fold_stories(w, lifecycle, 6);
	expect_rows(w,
		    "SELECT state, expires_at FROM sandboxes WHERE sandbox_id = 'i7pycdybk266oxtz8q85s'"
		    " AND (state, expires_at) IN (('running', '2026-11-20T10:00:00.000Z'),"
		    " ('unknown', NULL))"
		    " OR ended_at IS NOT NULL",
		    "");
}

static void tells_of_executions(void **state)
{
	struct world *w = *state;
	fold_stories(w, executions, ARRAY_SIZE(executions));
	expect_rows(w,
		    "SELECT event_id, time, started_at, finished_at, run_id, execution_kind, language,"
		    " status, failed, exit_code, error_name, error_value, duration_ms, attempt, final,"
		    " vcpu_count, memory_mb FROM executions WHERE execution_id ="
		    " '180d7a84-c177-4307-86ef-f0bab2bc1a3d'",
		    "5bd6fdb2-3eaf-433f-ac86-051654877451|1795190400|2026-11-20T16:00:00.100Z|"
		    "2026-11-20T16:00:01.350Z|e36bf9b3-ddcb-469d-a330-fcf1562ae4b8|code|python|error|1|1|"
		    "ZeroDivisionError|division by zero|38|1|1|2|512");
	/* 38 ms are 1,149.5 nano-USD, half up; the fifth brings its own amount. */
	expect_rows(w,
		    "SELECT substr(execution_id, 1, 8), execution_kind, language, status, failed,"
		    " exit_code, duration_ms, attributed_cost_nanousd, cost_source FROM executions"
		    " ORDER BY rowid_of",
		    "");
}

int main(void)
{
	return 0;
}
