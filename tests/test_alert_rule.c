#include "alert_rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MINUTE INT64_C(60000)
#define HOUR (60 * MINUTE)
#define T0 INT64_C(1795194000000)

static struct alert_rule rule(enum alert_on on)
{
	return (struct alert_rule) {
		.on = on,
		.statuses = 1u << EVENT_ERROR | 1u << EVENT_TIMEOUT | 1u << EVENT_STATUS_KILLED,
		.final_only = true,
		.min_count = 1,
		.window_ms = 15 * MINUTE,
		.repeat_ms = HOUR,
		.quiet_ms = 15 * MINUTE,
	};
}

static struct event failed(void)
{
	struct event e = {
		.kind = EVENT_CODE_EXECUTED,
		.sandbox_id = SPAN_LITERAL("sb1"),
	};
	e.execution.execution_id = SPAN_LITERAL("x1");
	e.execution.failed = e.execution.final = true;
	e.execution.status = EVENT_ERROR;
	return e;
}

static const struct alert_names in_tpl = { .template_id = { "tpl-a", 5 },
					   .template_alias = { "nice", 4 } };

/* Matching ---------------------------------------------------------------- */

static void takes_failed_executions_and_nothing_else(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct event e = failed();
	assert_true(alert_rule_matches(&r, &e, &in_tpl));
	e.kind = EVENT_TEST;
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	e.kind = EVENT_KILLED;
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	e = failed();
	e.execution.failed = false;
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
}

static void leaves_attempts_that_are_retried_unless_told_otherwise(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct event e = failed();
	e.execution.final = false;
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	r.final_only = false;
	assert_true(alert_rule_matches(&r, &e, &in_tpl));
}

static void looks_at_the_status(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct event e = failed();
	r.statuses = 1u << EVENT_TIMEOUT;
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	e.execution.status = EVENT_TIMEOUT;
	assert_true(alert_rule_matches(&r, &e, &in_tpl));
}

static void covers_a_template_by_either_name(void **state)
{
	static const struct {
		const char *patterns;
		bool covers;
	} cases[] = {
		{ "*", true },
		{ "tpl-*", true },
		{ "nice", true },
		{ "other", false },
		{ "!nice", false },
		{ "!other", true },
		{ "tpl-a, !ni*", false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
		assert_int_equal(glob_list_parse(&r.templates, cases[i].patterns), 0);
		if (alert_rule_covers(&r, &in_tpl) != cases[i].covers)
			fail_msg("%s", cases[i].patterns);
		assert_int_equal(alert_rule_is_for_all(&r), i == 0);
		glob_list_finish(&r.templates);
	}
}

static void takes_lost_sandboxes_by_their_reason(void **state)
{
	struct alert_rule r = rule(ALERT_ON_SANDBOX_FAILED);
	struct event e = { .kind = EVENT_KILLED, .sandbox_id = SPAN_LITERAL("sb1") };
	assert_int_equal(glob_list_parse(&r.reasons, "seal_failed, orph*"), 0);
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	e.kill_reason = SPAN_LITERAL("orphaned");
	assert_true(alert_rule_matches(&r, &e, &in_tpl));
	e.kill_reason = SPAN_LITERAL("request");
	assert_false(alert_rule_matches(&r, &e, &in_tpl));
	glob_list_finish(&r.reasons);
}

static void takes_templates_that_nobody_configured(void **state)
{
	struct alert_rule r = rule(ALERT_ON_UNKNOWN_TEMPLATE);
	struct event e = { .kind = EVENT_CREATED };
	struct alert_names names = in_tpl;
	assert_true(alert_rule_matches(&r, &e, &names));
	names.template_is_configured = true;
	assert_false(alert_rule_matches(&r, &e, &names));
	assert_false(alert_rule_matches(&r, &e, &(struct alert_names) { 0 }));
}

static void knows_one_occurrence_under_several_events(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct event a = failed(), b = failed();
	(void)snprintf(b.id, sizeof(b.id), "another");
	assert_int_equal(alert_rule_identity(&r, &a, 1), alert_rule_identity(&r, &b, 2));
	b.execution.execution_id = SPAN_LITERAL("x2");
	assert_int_not_equal(alert_rule_identity(&r, &a, 1), alert_rule_identity(&r, &b, 2));
	/* Pieces do not run into each other. */
	b.sandbox_id = SPAN_LITERAL("sb1x");
	b.execution.execution_id = SPAN_LITERAL("1");
	assert_int_not_equal(alert_rule_identity(&r, &a, 1), alert_rule_identity(&r, &b, 2));
	r.on = ALERT_ON_UNKNOWN_TEMPLATE;
	assert_int_not_equal(alert_rule_identity(&r, &a, 1), alert_rule_identity(&r, &a, 2));
}

/* Speaking ---------------------------------------------------------------- */

static void fires_once_repeats_with_counts_and_resolves(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct alert_track t = { 0 };
	r.quiet_ms = 2 * HOUR;
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0), ALERT_STEP_FIRE);
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0 + 1), ALERT_STEP_NONE);
	assert_int_equal(t.count, 2);
	alert_rule_told(&t, ALERT_STEP_FIRE, T0 + 2);
	/* Nothing more came: nothing to repeat. */
	assert_int_equal(alert_rule_passed(&r, &t, T0 + HOUR + 2), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_occurred(&r, &t, 3, T0 + MINUTE), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + HOUR), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + HOUR + 2), ALERT_STEP_REPEAT);
	assert_int_equal(t.count, 3);
	assert_int_equal(t.total, 5);
	alert_rule_told(&t, ALERT_STEP_REPEAT, T0 + HOUR + 2);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + MINUTE + 2 * HOUR), ALERT_STEP_RESOLVE);
	alert_rule_told(&t, ALERT_STEP_RESOLVE, T0 + 3 * HOUR);
	assert_false(t.firing);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + 9 * HOUR), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0 + 9 * HOUR), ALERT_STEP_FIRE);
	assert_int_equal(t.total, 1);
}

static void speaks_early_when_it_is_ten_times_what_was_told(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct alert_track t = { 0 };
	assert_int_equal(alert_rule_occurred(&r, &t, 3, T0), ALERT_STEP_FIRE);
	alert_rule_told(&t, ALERT_STEP_FIRE, T0);
	assert_int_equal(alert_rule_occurred(&r, &t, 29, T0 + 1), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + MINUTE), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0 + 2), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + MINUTE - 1), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + MINUTE), ALERT_STEP_REPEAT);
}

static void is_quiet_once_acknowledged_until_it_is_over(void **state)
{
	struct alert_rule r = rule(ALERT_ON_EXECUTION_FAILED);
	struct alert_track t = { 0 };
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0), ALERT_STEP_FIRE);
	alert_rule_told(&t, ALERT_STEP_FIRE, T0);
	t.acked = true;
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0 + 2 * HOUR), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + 2 * HOUR), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_passed(&r, &t, T0 + 3 * HOUR), ALERT_STEP_RESOLVE);
	alert_rule_told(&t, ALERT_STEP_RESOLVE, T0 + 3 * HOUR);
	assert_false(t.acked);
}

static void waits_for_enough_in_its_window(void **state)
{
	struct alert_rule r = rule(ALERT_ON_REJECTED);
	struct alert_track t = { 0 };
	r.min_count = 3;
	assert_int_equal(alert_rule_occurred(&r, &t, 2, T0), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_occurred(&r, &t, 2, T0 + 15 * MINUTE), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_occurred(&r, &t, 1, T0 + 16 * MINUTE), ALERT_STEP_FIRE);
	assert_int_equal(t.count, 3);
}

static void follows_a_level_up_and_down(void **state)
{
	struct alert_rule r = rule(ALERT_ON_BUDGET);
	struct alert_track t = { 0 };
	assert_int_equal(alert_rule_measured(&r, &t, false, 0, T0), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_measured(&r, &t, true, 0, T0), ALERT_STEP_FIRE);
	alert_rule_told(&t, ALERT_STEP_FIRE, T0);
	assert_int_equal(alert_rule_measured(&r, &t, true, 0, T0 + HOUR - 1), ALERT_STEP_NONE);
	assert_int_equal(alert_rule_measured(&r, &t, true, 0, T0 + HOUR), ALERT_STEP_REPEAT);
	alert_rule_told(&t, ALERT_STEP_REPEAT, T0 + HOUR);
	assert_int_equal(alert_rule_measured(&r, &t, false, 0, T0 + HOUR + 1), ALERT_STEP_RESOLVE);
}

static void backs_off_to_five_minutes_with_jitter(void **state)
{
	int64_t least = 0;
	for (int64_t n = 1; n < 100; n++) {
		int64_t low = alert_rule_backoff_ms(n, 0), high = alert_rule_backoff_ms(n, 999);
		assert_true(low >= least * 6 / 10);
		assert_true(high > low);
		assert_true(high <= ALERT_BACKOFF_MAX_MS * 12 / 10);
		least = low;
	}
	assert_in_range(alert_rule_backoff_ms(1, 500), 900, 1100);
	assert_true(alert_rule_backoff_ms(99, 0) >= ALERT_BACKOFF_MAX_MS * 8 / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_failed_executions_and_nothing_else),
		cmocka_unit_test(leaves_attempts_that_are_retried_unless_told_otherwise),
		cmocka_unit_test(looks_at_the_status),
		cmocka_unit_test(covers_a_template_by_either_name),
		cmocka_unit_test(takes_lost_sandboxes_by_their_reason),
		cmocka_unit_test(takes_templates_that_nobody_configured),
		cmocka_unit_test(knows_one_occurrence_under_several_events),
		cmocka_unit_test(fires_once_repeats_with_counts_and_resolves),
		cmocka_unit_test(speaks_early_when_it_is_ten_times_what_was_told),
		cmocka_unit_test(is_quiet_once_acknowledged_until_it_is_over),
		cmocka_unit_test(waits_for_enough_in_its_window),
		cmocka_unit_test(follows_a_level_up_and_down),
		cmocka_unit_test(backs_off_to_five_minutes_with_jitter),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
