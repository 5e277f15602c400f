/* Alerts from the log to the outbox, with a real store; what fails and who crashes included.
 * Sending is not here: a notification is taken and reported as the alerter does.
 */
#include "alert.h"

#include "random_events.h"

#include "clock.h"

#include <math.h>

#define RULES                                                                                      \
	"[source e2b]\npath = /e2b\n[template tpl-a]\nalias = nice\nvcpu = 2\nmemory_mb = 512\n"   \
	"[notify ops]\nkind = webhook\nurl = http://127.0.0.1:1/\n"                                \
	"[notify pager]\nkind = webhook\nurl = http://127.0.0.1:1/\n"                              \
	"[notify off]\nkind = slack\n"
#define FAILED                                                                                     \
	RULES "[alert failed]\non = execution_failed\nnotify = ops, pager, off\n"                  \
	      "[alert lost]\non = sandbox_failed\nnotify = ops\n"
#define RATE_RULE "[alert rate]\non = failure_rate\nthreshold = 0.2\nwindow = 15m\nnotify = ops\n"
#define RATE RULES RATE_RULE

static struct alert *begin_alerts(struct world *w, const char *config)
{
	struct alert *a = NULL;
	begin_ledger(w, config);
	assert_int_equal(alert_new(w->s, &a), 0);
	alert_set_config(a, w->config);
	projector_set_alert(w->p, a);
	return a;
}

static void free_alert(struct alert **a)
{
	alert_free(*a);
}
#define ALERTS CLEANUP(free_alert) UNUSED struct alert

static void tell_execution(struct world *w, const char *sandbox, const char *execution,
			   int64_t time_ms, const char *outcome)
{
	char id[CLOCK_TEXT_MAX + 64], time[CLOCK_TEXT_MAX], data[512];
	static int n;
	(void)clock_format_ms(time_ms, time);
	(void)snprintf(id, sizeof(id), "event-%d", n++);
	(void)snprintf(data, sizeof(data),
		       "{\"code_execution\":{\"execution_id\":\"%s\",\"duration_ms\":5,%s}}",
		       execution, outcome);
	PARCEL p;
	p = (struct parcel) { 0 };
	const struct told t = { .id = id,
				.type = "sandbox.code_executed",
				.time = time,
				.sandbox = sandbox,
				.template = "tpl-a",
				.data = data };
	init_parcel_owned(&p, write_body(&t), time_ms);
	assert_int_equal(put(w, &p), STORAGE_STORED);
}

static void tell_failure_in(struct world *w, const char *sandbox, const char *execution,
			    int64_t time_ms)
{
	tell_execution(w, sandbox, execution, time_ms,
		       "\"status\":\"error\",\"error\":{\"name\":\"E\",\"value\":"
		       "\"\\u0001 \\\"quoted\\\"\"}");
}

static void tell_failure(struct world *w, const char *execution, int64_t time_ms)
{
	tell_failure_in(w, "sb1", execution, time_ms);
}

static int take(struct world *w, const char *target, int64_t now_ms, struct storage_notice *ret)
{
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(alert_seal(w->s, now_ms), 0);
	int r = storage_outbox_take(w->s, target, now_ms, ret);
	assert_true(r >= 0);
	assert_int_equal(storage_commit(w->s), 0);
	return r;
}

static void report(struct world *w, const struct storage_notice *n,
		   enum storage_outbox_status status, int64_t at_ms)
{
	const struct storage_outbox_result x = { n->id, n->target, status, at_ms, "why" };
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_outbox_report(w->s, &x), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

/* ------------------------------------------------------------------------- */

static void gathers_what_comes_with_the_first_and_tells_it_once(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	CLEANUP_FREE struct storage_notice *n = malloc(sizeof(*n));
	int64_t now_ms = clock_unix_ms();
	for (int i = 0; i < 7; i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "x%d", i % 6); /* one is reported twice */
		tell_failure(w, id, now_ms);
	}
	(void)fold_all(w);
	expect_rows(
		w,
		"SELECT rule, template, state, target, status FROM notifications ORDER BY target",
		"failed|tpl-a|firing|ops|waiting\nfailed|tpl-a|firing|pager|waiting");
	assert_int_equal(take(w, "ops", now_ms, n), 0);
	now_ms = clock_unix_ms() + ALERT_GATHER_MS;
	assert_int_equal(take(w, "ops", now_ms, n), 1);
	struct alert_parcel *p;
	assert_int_equal(alert_parcel_new(n, w->config, "here", &p), 0);
	assert_string_equal(p->message.summary, "6 executions failed in tpl-a");
	assert_int_equal(p->message.count, 6);
	assert_int_equal(p->message.total, 6);
	assert_int_equal(p->message.n_samples, ALERT_SAMPLES_MAX);
	assert_string_equal(p->message.samples[4].execution_id, "x4");
	assert_string_equal(p->message.samples[0].error_value, "\x01 \"quoted\"");
	assert_non_null(strstr(p->message.query, "e2b-hookctl failures --since 20"));
	alert_parcel_free(p);
	report(w, n, STORAGE_SENT, now_ms);
	assert_int_equal(take(w, "ops", now_ms, n), 0);
	assert_int_equal(take(w, "pager", now_ms, n), 1);
	expect_rows(w, "SELECT state, not_told, total FROM alerts", "firing|0|6");
}

/* What was not reported, as after a crash, is taken again under the same id. */
static void keeps_the_order_of_a_rule_and_target_and_no_other(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	CLEANUP_FREE struct storage_notice *n = malloc(sizeof(*n));
	int64_t now_ms = clock_unix_ms();
	tell_failure(w, "x1", now_ms);
	(void)fold_all(w);
	assert_int_equal(take(w, "ops", now_ms + 1000, n), 1);
	char id[40];
	(void)snprintf(id, sizeof(id), "%s", n->notification_id);
	tell_failure(w, "x2", now_ms);
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms + 2 * 3600000), 0); /* over by then: resolved */
	assert_int_equal(take(w, "ops", now_ms + 8000000, n), 1);
	assert_string_equal(n->notification_id, id);
	assert_int_equal(n->attempts, 2);
	report(w, n, STORAGE_WAITING, now_ms + 9000000);
	assert_int_equal(take(w, "ops", now_ms + 8000000, n), 0);
	tell(w, (struct told) { .id = "k1",
				.type = "sandbox.killed",
				.time = "2026-11-20T09:00:00Z",
				.sandbox = "sb9",
				.data = "{\"kill_reason\":\"orphaned\"}" });
	(void)fold_all(w);
	/* Old: a summary, once no more comes. */
	assert_int_equal(alert_tick(a, clock_unix_ms() + 10001), 0);
	assert_int_equal(take(w, "ops", now_ms + 8000000, n), 1);
	assert_string_equal(n->alert.rule, "lost");
	assert_int_equal(n->state, ALERT_SUMMARY);
	report(w, n, STORAGE_SENT, now_ms);
	assert_int_equal(take(w, "ops", now_ms + 9000000, n), 1);
	assert_string_equal(n->notification_id, id);
	report(w, n, STORAGE_SENT, now_ms + 9000000);
	expect_rows(w,
		    "SELECT rule, state, occurred, total FROM notifications WHERE target = 'ops'"
		    " ORDER BY id",
		    "failed|firing|1|1\nfailed|resolved|1|2\nlost|summary|1|1");
}

static void raises_nothing_twice_whenever_the_disk_fails(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	int64_t now_ms = clock_unix_ms();
	int64_t failures = 0;
	for (long n = 1; n < 60; n++) {
		char id[16];
		bool more;
		(void)snprintf(id, sizeof(id), "y%ld", n);
		tell_failure(w, id, now_ms);
		disk_break(n % 20 + 1, EIO, false);
		failures += projector_step(w->p, 1000000, 100, &more) < 0;
		disk_mend();
		(void)fold_all(w);
	}
	assert_true(failures > 0);
	expect_rows(w, "SELECT state, total FROM alerts", "firing|59");
	expect_rows(w, "SELECT count(*) FROM notifications WHERE target = 'ops'", "1");
}

/* Each in ten seconds of its own: as many as the writer folds at once. */
static void counts_all_that_a_slice_holds(void **state)
{
	enum { N = 1536 };
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, RATE);
	int64_t now_ms = clock_unix_ms();
	bool more;
	for (int i = 0; i < N; i++) {
		char id[32];
		(void)snprintf(id, sizeof(id), "many-%d", i);
		tell_failure_in(w, id, id, now_ms - INT64_C(10000) * i);
	}
	assert_int_equal(projector_step(w->p, 60000000, N, &more), 0);
	expect_rows(w, "SELECT folded_seq FROM ledger_state", "1536");
	expect_rows(w, "SELECT count(*), sum(executions), sum(failed) FROM alert_bucket",
		    "1536|1536|1536");
}

/* Sandboxes first, each for itself, then what alerts go by. */
static void raises_and_counts_nothing_twice_when_a_slice_in_parts_is_cut_off(void **state)
{
	enum { SLICES = 60, EACH = 3 };
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED RATE_RULE);
	int64_t now_ms = clock_unix_ms();
	int n_cut = 0;
	projector_set_part(w->p, 1);
	for (long n = 0; n < SLICES; n++) {
		for (int i = 0; i < EACH; i++) {
			char id[32], sandbox[16];
			(void)snprintf(id, sizeof(id), "z%ld-%d", n, i);
			(void)snprintf(sandbox, sizeof(sandbox), "part-%d", i);
			tell_failure_in(w, sandbox, id, now_ms);
		}
		bool more = true;
		for (int r = 0; more && r == 0;) {
			bool was_writing = projector_is_writing(w->p);
			disk_break(n % 30 + 1, EIO, false);
			r = projector_step(w->p, 1000000, 100, &more);
			disk_mend();
			n_cut += r < 0 && was_writing;
		}
		(void)fold_all(w);
	}
	assert_true(n_cut > 5);
	expect_rows(w, "SELECT state, total FROM alerts WHERE rule = 'failed'", "firing|180");
	expect_rows(w, "SELECT sum(executions), sum(failed) FROM alert_bucket", "180|180");
}

/* Sandboxes with a pruned event: a rebuild copies them as they are, with what was written of a
 * slice above the watermark; others it makes as of the watermark. */
static void begin_with_sealed(struct world *w, int n, int64_t now_ms)
{
	char created_at[CLOCK_TEXT_MAX];
	int64_t horizon_s = now_ms / 1000 - 7200, last_s;
	(void)clock_format_ms(now_ms - 86400000, created_at);
	for (int i = 0; i < n; i++) {
		char id[32], sandbox[16];
		(void)snprintf(id, sizeof(id), "created-%d", i);
		(void)snprintf(sandbox, sizeof(sandbox), "s%d", i);
		tell(w, (struct told) { .id = id,
					.type = "sandbox.created",
					.time = created_at,
					.sandbox = sandbox,
					.in_2100 = true });
	}
	(void)fold_all(w);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_set_horizon(w->s, horizon_s), 0);
	for (size_t n_pruned = 1; n_pruned > 0;)
		assert_int_equal(storage_prune_events(w->s, horizon_s, 64, &n_pruned, &last_s), 0);
	assert_int_equal(storage_commit(w->s), 0);
}

/* Reports of new executions, and of known ones, which may tell the other outcome. */
static void tell_some_executions(struct world *w, uint64_t *random, int round, int64_t now_ms)
{
	int n = 1 + (int)disk_below(random, 30);
	for (int i = 0; i < n; i++) {
		char id[32], sandbox[16];
		(void)snprintf(id, sizeof(id), "x%d", (int)disk_below(random, 60) + round * 2);
		(void)snprintf(sandbox, sizeof(sandbox), "s%d", (int)disk_below(random, 20));
		tell_execution(w, sandbox, id, now_ms - (int64_t)disk_below(random, 3600000),
			       disk_below(random, 2) ? "\"exit_code\":1" : "\"exit_code\":0");
	}
}

/* What counts when a slice is cut off, when a rebuild is swapped in amid it, in the next process.
 */
static void counts_each_execution_once_whatever_is_cut_off_and_rebuilt(void **state)
{
	struct world *w = *state;
	int64_t now_ms = clock_unix_ms();
	uint64_t random = 20261129;
	int n_swapped_amid = 0, n_reopened_amid = 0;
	ALERTS *a = begin_alerts(w, RATE);
	begin_with_sealed(w, 10, now_ms);
	for (int round = 0; round < 100; round++) {
		projector_set_part(w->p, 3);
		tell_some_executions(w, &random, round, now_ms);
		for (int steps = (int)disk_below(&random, 12); steps > 0; steps--) {
			bool more;
			if (disk_below(&random, 4) == 0)
				disk_break((long)disk_below(&random, 12) + 1, EIO, false);
			int r = projector_step(w->p, 1000000, 1 + disk_below(&random, 40), &more);
			disk_mend();
			assert_true(r == 0 || storage_is_failure(r));
		}
		bool is_amid = projector_is_amid(w->p);
		if (disk_below(&random, 3) == 0) {
			n_swapped_amid += is_amid;
			rebuild_ledger(w);
		}
		if (disk_below(&random, 8) == 0) {
			n_reopened_amid += is_amid;
			reopen(w);
			alert_free(a);
			a = begin_alerts(w, RATE);
		}
		if (disk_below(&random, 3) > 0)
			continue;
		(void)fold_all(w);
		CLEANUP_FREE char *held =
			rows_of(w, "SELECT sum(executions), sum(failed_executions) FROM sandboxes");
		expect_rows(w, "SELECT sum(executions), sum(failed) FROM alert_bucket", held);
		expect_rows(w, "SELECT count(*) FROM alert_execution", "0");
	}
	assert_true(n_swapped_amid > 3 && n_reopened_amid > 0);
}

static void begins_where_the_store_stands_after_a_restore(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	int64_t now_ms = clock_unix_ms();
	tell_failure(w, "x1", now_ms);
	(void)fold_all(w);
	tell_failure(w, "x2", now_ms); /* stored, not folded */
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_alert_forget(w->s), 0);
	assert_int_equal(storage_commit(w->s), 0);
	(void)fold_all(w);
	expect_rows(w, "SELECT count(*) FROM alerts", "0");
	expect_rows(w, "SELECT DISTINCT status FROM notifications", "dropped");
	tell_failure(w, "x3", now_ms);
	(void)fold_all(w);
	expect_rows(w, "SELECT state, total FROM alerts", "firing|1");
}

static void says_when_the_day_of_a_budget_is_over(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, RULES "[alert money]\non = budget\nnotify = ops\n"
					  "daily_usd = 0.000001\nmonthly_usd = 1000\n");
	char from[CLOCK_TEXT_MAX], to[CLOCK_TEXT_MAX];
	int64_t now_ms = clock_unix_ms();
	(void)clock_format_ms(now_ms - 2000, from);
	(void)clock_format_ms(now_ms, to);
	tell(w, (struct told) { .id = "a",
				.type = "sandbox.created",
				.time = from,
				.sandbox = "sb1",
				.run = "run1",
				.template = "tpl-a",
				.in_2100 = true });
	tell(w, (struct told) { .id = "b",
				.type = "sandbox.killed",
				.time = to,
				.sandbox = "sb1",
				.run = "run1",
				.template = "tpl-a",
				.in_2100 = true });
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms), 0);
	expect_rows(w, "SELECT rule, period, state, template FROM alerts", "money|daily|firing|-");
	alert_set_config(a, w->config); /* looks at once */
	assert_int_equal(alert_tick(a, now_ms + 86400000), 0);
	expect_rows(w, "SELECT period, state FROM alerts", "daily|resolved");
	expect_rows(w, "SELECT state FROM notifications ORDER BY id", "firing\nresolved");
}

static void forgets_what_rules_that_are_gone_knew(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	tell_failure(w, "x1", clock_unix_ms());
	(void)fold_all(w);
	struct config *without = load_config(RULES);
	alert_set_config(a, without);
	assert_int_equal(alert_tick(a, clock_unix_ms()), 0);
	expect_rows(w, "SELECT count(*) FROM alerts", "0");
	/* What it said is still sent, as far as it was gathered. */
	CLEANUP_FREE struct storage_notice *n = malloc(sizeof(*n));
	assert_int_equal(take(w, "ops", clock_unix_ms() + 1000, n), 1);
	assert_int_equal(n->alert.track.count, 1);
	report(w, n, STORAGE_SENT, clock_unix_ms());
	/* And who was told that it fires is told that it ends. */
	struct alert_parcel *p;
	assert_int_equal(take(w, "ops", clock_unix_ms() + 1000, n), 1);
	assert_int_equal(n->state, ALERT_RESOLVED);
	assert_int_equal(alert_parcel_new(n, without, "here", &p), 0);
	assert_string_equal(p->message.summary,
			    "its rule is not in the configuration any more, so this alert ends");
	assert_string_equal(p->message.severity, "warning");
	alert_parcel_free(p);
	expect_rows(w, "SELECT state, target FROM notifications ORDER BY id, target",
		    "firing|ops\nfiring|pager\nresolved|ops\nresolved|pager");
	config_unref(without);
}

static void tells_the_end_to_whom_the_rule_names_no_more(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	int64_t now_ms = clock_unix_ms();
	tell_failure(w, "x1", now_ms);
	(void)fold_all(w);
	/* Nor does its severity change meanwhile: to Alertmanager it would be another alert. */
	struct config *changed = load_config(
		RULES "[notify new]\nkind = webhook\nurl = http://127.0.0.1:1/\n"
		      "[alert failed]\non = execution_failed\nnotify = new\nseverity = critical\n");
	alert_set_config(a, changed);
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(alert_seal(w->s, now_ms + 1000), 0);
	assert_int_equal(storage_commit(w->s), 0);
	tell_failure(w, "x2", now_ms);
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms + 3600000), 0);
	expect_rows(w, "SELECT target FROM notifications WHERE state = 'resolved' ORDER BY target",
		    "new\nops\npager");
	expect_rows(w, "SELECT state, severity, total FROM alerts", "resolved|warning|2");
	config_unref(changed);
}

/* What the notification of a track says, and the query it gives, as if it were told now. */
static struct alert_parcel *say(struct world *w, struct storage_notice *n, enum alert_on on,
				double value, double threshold)
{
	struct alert_parcel *p;
	n->alert.on = on;
	n->alert.value = value;
	n->threshold = threshold;
	assert_int_equal(alert_parcel_new(n, w->config, "here", &p), 0);
	return p;
}

static void expect_words(struct world *w, struct storage_notice *n, enum alert_on on, double value,
			 double threshold, const char *summary, const char *query)
{
	struct alert_parcel *p = say(w, n, on, value, threshold);
	assert_string_equal(p->message.summary, summary);
	assert_string_equal(p->message.query, query);
	alert_parcel_free(p);
}

static void says_what_is_wrong_and_gives_a_query_that_shows_it(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, RULES "[alert rule]\non = failure_rate\nthreshold = 0.2\n"
					  "window = 15m\nnotify = ops\n");
	CLEANUP_FREE struct storage_notice *n = calloc(1, sizeof(*n));
	*n = (struct storage_notice) { .alert = { .rule = "rule",
						  .track = { .count = 3, .total = 3 } },
				       .state = ALERT_FIRING,
				       .template_id = "tpl-a",
				       .template_name = "nice" };
	n->starts_ms = INT64_C(1795194000500); /* 2026-11-20T17:00:00.500Z */
	n->made_ms = INT64_C(1795194001000);
	/* Two that came late, of which one had begun long before. */
	(void)strcpy(n->alert.samples, "{\"seq\":1,\"time\":1795193400000},"
				       "{\"seq\":2,\"time\":1795193460000,\"from\":1795190400000}");
	expect_words(w, n, ALERT_ON_EXECUTION_FAILED, (double)NAN, (double)NAN,
		     "3 executions failed in nice",
		     "e2b-hookctl failures --since 2026-11-20T15:59:00.000Z --template tpl-a");
	expect_words(w, n, ALERT_ON_UNKNOWN_TEMPLATE, (double)NAN, (double)NAN,
		     "3 events of a template that is not configured: nice",
		     "e2b-hookctl events --since 2026-11-20T15:59:00.000Z --template tpl-a");
	n->alert.samples[0] = '\0';
	expect_words(w, n, ALERT_ON_FAILURE_RATE, 0.75, 0.2,
		     "75.0 % of executions fail in nice, the limit is 20.0 %",
		     "e2b-hookctl failures --since 2026-11-20T16:44:00.000Z --template tpl-a");
	n->alert.part = STORAGE_ALERT_MONTHLY;
	expect_words(w, n, ALERT_ON_BUDGET, 12, 10,
		     "12.00 USD spent this month in nice, the budget is 10.00 USD",
		     "e2b-hookctl costs --by template --since 2026-11-01T00:00:00.000Z"
		     " --template tpl-a");
	expect_words(w, n, ALERT_ON_BUDGET, 0.0125, 0.001,
		     "0.013 USD spent this month in nice, the budget is 0.001 USD",
		     "e2b-hookctl costs --by template --since 2026-11-01T00:00:00.000Z"
		     " --template tpl-a");
	n->alert.part = STORAGE_ALERT_WHOLE;
	expect_words(w, n, ALERT_ON_RUNAWAY, 9000, 3600,
		     "3 runs last too long in nice: the longest 2.5 h, the limit is 60 min",
		     "e2b-hookctl running --until 2026-11-20T16:00:01.000Z --template tpl-a");
	n->alert.track.total = 1;
	(void)strcpy(n->alert.samples, "{\"seq\":0,\"time\":1795193400000}");
	expect_words(w, n, ALERT_ON_RUNAWAY, 600, 3600,
		     "1 run in nice is past its timeout, and nobody told of its end",
		     "e2b-hookctl runs --since 2026-11-20T16:49:00.000Z --template tpl-a");
}

/* Both runs are told; once one has ended, only the other. */
static void counts_the_runaways_of_now(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, RULES "[alert long]\non = runaway\nmax_run = 10m\nrepeat = 1m\n"
					  "notify = ops\n");
	CLEANUP_FREE struct storage_notice *n = malloc(sizeof(*n));
	char at[CLOCK_TEXT_MAX], now[CLOCK_TEXT_MAX];
	int64_t now_ms = clock_unix_ms();
	(void)clock_format_ms(now_ms - 1200000, at);
	(void)clock_format_ms(now_ms, now);
	struct told t = { .id = "a",
			  .type = "sandbox.created",
			  .time = at,
			  .sandbox = "sb1",
			  .run = "run1",
			  .template = "tpl-a",
			  .in_2100 = true };
	tell(w, t);
	t.id = "b", t.sandbox = "sb2", t.run = "run2";
	tell(w, t);
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms), 0);
	assert_int_equal(take(w, "ops", now_ms, n), 1);
	assert_int_equal(n->alert.track.total, 2);
	assert_non_null(strstr(n->alert.samples, "\"status\":\"running\""));
	report(w, n, STORAGE_SENT, now_ms);
	t.id = "c", t.type = "sandbox.killed", t.time = now;
	tell(w, t);
	(void)fold_all(w);
	alert_set_config(a, w->config); /* looks at once */
	assert_int_equal(alert_tick(a, now_ms + 60000), 0);
	assert_int_equal(take(w, "ops", now_ms + 60000, n), 1);
	assert_int_equal(n->state, ALERT_REPEAT);
	assert_int_equal(n->alert.track.total, 1);
}

static void gives_up_after_a_day_and_tries_again_on_request(void **state)
{
	struct world *w = *state;
	ALERTS *a = begin_alerts(w, FAILED);
	int64_t n, now_ms = clock_unix_ms();
	tell_failure(w, "x1", now_ms);
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms + 25 * INT64_C(3600000)), 0);
	expect_rows(w, "SELECT DISTINCT status FROM notifications WHERE state = 'firing'",
		    "failed");
	assert_int_equal(storage_begin(w->s, true), 0);
	assert_int_equal(storage_outbox_retry(w->s, "ops", now_ms, &n), 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(
		w,
		"SELECT target, status FROM notifications WHERE state = 'firing' ORDER BY target",
		"ops|waiting\npager|failed");
}

/* However long ago that was. */
static void says_that_a_run_is_past_its_timeout(void **state)
{
	struct world *w = *state;
	ALERTS *a =
		begin_alerts(w, RULES "[alert long]\non = runaway\nmax_run = 1h\nnotify = ops\n");
	CLEANUP_FREE struct storage_notice *n = malloc(sizeof(*n));
	char from[CLOCK_TEXT_MAX], to[CLOCK_TEXT_MAX], data[128];
	int64_t now_ms = clock_unix_ms();
	(void)clock_format_ms(now_ms - 7200000, from);
	(void)clock_format_ms(now_ms - 6000000, to);
	(void)snprintf(data, sizeof(data), "{\"set_timeout\":\"%s\"}", to);
	struct told t = { .id = "a",
			  .type = "sandbox.created",
			  .time = from,
			  .sandbox = "sb1",
			  .run = "run1",
			  .template = "tpl-a",
			  .in_2100 = true };
	tell(w, t);
	t.id = "b", t.type = "sandbox.updated", t.data = data;
	tell(w, t);
	(void)fold_all(w);
	(void)fold_all(w);
	assert_int_equal(alert_tick(a, now_ms), 0);
	assert_int_equal(take(w, "ops", now_ms, n), 1);
	struct alert_parcel *p;
	assert_int_equal(alert_parcel_new(n, w->config, "here", &p), 0);
	assert_string_equal(p->message.summary,
			    "1 run in tpl-a is past its timeout, and nobody told of its end");
	assert_string_equal(p->message.samples[0].status, "past its timeout");
	assert_float_equal(p->message.value, 1200, 1.5);
	alert_parcel_free(p);
}

static void look_again(struct world *w, struct alert *a, int64_t from_ms, int64_t to_ms)
{
	for (int64_t at_ms = from_ms; at_ms <= to_ms; at_ms += 20000) {
		alert_set_config(a, w->config); /* looks at once */
		assert_int_equal(alert_tick(a, at_ms), 0);
	}
}

static void counts_silence_over_pauses_but_not_the_pauses(void **state)
{
	struct world *w = *state;
	ALERTS *a =
		begin_alerts(w, RULES "[alert quiet]\non = silence\nquiet = 1h\nnotify = ops\n");
	const int64_t t0_ms = clock_unix_ms(), minute_ms = 60000;
	look_again(w, a, t0_ms, t0_ms + 40 * minute_ms);
	/* Down for half an hour: of an hour forty minutes were watched. */
	look_again(w, a, t0_ms + 70 * minute_ms, t0_ms + 89 * minute_ms);
	expect_rows(w, "SELECT count(*) FROM notifications", "0");
	look_again(w, a, t0_ms + 89 * minute_ms, t0_ms + 91 * minute_ms);
	expect_rows(w, "SELECT state FROM notifications", "firing");
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, begin_store, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(gathers_what_comes_with_the_first_and_tells_it_once),
		STORE_TEST(keeps_the_order_of_a_rule_and_target_and_no_other),
		STORE_TEST(raises_nothing_twice_whenever_the_disk_fails),
		STORE_TEST(counts_all_that_a_slice_holds),
		STORE_TEST(raises_and_counts_nothing_twice_when_a_slice_in_parts_is_cut_off),
		STORE_TEST(counts_each_execution_once_whatever_is_cut_off_and_rebuilt),
		STORE_TEST(begins_where_the_store_stands_after_a_restore),
		STORE_TEST(says_when_the_day_of_a_budget_is_over),
		STORE_TEST(forgets_what_rules_that_are_gone_knew),
		STORE_TEST(tells_the_end_to_whom_the_rule_names_no_more),
		STORE_TEST(says_what_is_wrong_and_gives_a_query_that_shows_it),
		STORE_TEST(counts_the_runaways_of_now),
		STORE_TEST(says_that_a_run_is_past_its_timeout),
		STORE_TEST(counts_silence_over_pauses_but_not_the_pauses),
		STORE_TEST(gives_up_after_a_day_and_tries_again_on_request),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
