/* Rules as arithmetic: no clock, no store. A template's second name matters in one place only, so
 * that a rule may name either.
 */
#include "alert_rule.h"

#include <string.h>

#define EARLY_FACTOR 10
#define EARLY_AFTER_MS 60000

static const struct {
	const char *name;
	bool about_events;
} ons[ALERT_N_ON] = {
	[ALERT_ON_EXECUTION_FAILED] = { "execution_failed", true },
	[ALERT_ON_SANDBOX_FAILED] = { "sandbox_failed", true },
	[ALERT_ON_FAILURE_RATE] = { "failure_rate", false },
	[ALERT_ON_RUNAWAY] = { "runaway", false },
	[ALERT_ON_BUDGET] = { "budget", false },
	[ALERT_ON_SILENCE] = { "silence", false },
	[ALERT_ON_REJECTED] = { "rejected", true },
	[ALERT_ON_QUARANTINED] = { "quarantined", true },
	[ALERT_ON_UNKNOWN_TEMPLATE] = { "unknown_template", true },
};

const char *alert_rule_on_name(enum alert_on on)
{
	return ons[on].name;
}

bool alert_rule_on_from_name(const char *name, enum alert_on *ret)
{
	for (int i = 0; i < ALERT_N_ON; i++) {
		if (strcmp(ons[i].name, name) != 0)
			continue;
		*ret = (enum alert_on)i;
		return true;
	}
	return false;
}

bool alert_rule_is_about_events(enum alert_on on)
{
	return ons[on].about_events;
}

bool alert_rule_is_for_all(const struct alert_rule *rule)
{
	const struct glob_list *list = &rule->templates;
	return list->n == 0 ||
	       (list->n == 1 && !list->excludes[0] && strcmp(list->patterns[0], "*") == 0);
}

/* Matching ---------------------------------------------------------------- */

bool alert_rule_covers(const struct alert_rule *rule, const struct alert_names *names)
{
	const struct span templates[] = { names->template_id, names->template_alias };
	return glob_list_match_any(&rule->templates, templates, names->template_alias.s ? 2 : 1) &&
	       glob_list_match(&rule->teams, names->team_id);
}

static bool is_failed_execution(const struct alert_rule *rule, const struct event *e)
{
	if (e->kind != EVENT_CODE_EXECUTED || !e->execution.failed)
		return false;
	/* A failure that says `success` is an error by its other signs; event_read saw to that. */
	return (rule->statuses & 1u << e->execution.status) &&
	       (e->execution.final || !rule->final_only);
}

bool alert_rule_wants(const struct alert_rule *rule, const struct event *e)
{
	if (e->kind == EVENT_TEST)
		return false;
	switch (rule->on) {
	case ALERT_ON_EXECUTION_FAILED:
		return is_failed_execution(rule, e);
	case ALERT_ON_SANDBOX_FAILED:
		return e->kind == EVENT_KILLED && e->kill_reason.s &&
		       glob_list_match(&rule->reasons, e->kill_reason);
	case ALERT_ON_UNKNOWN_TEMPLATE:
		return true;
	case ALERT_ON_FAILURE_RATE:
	case ALERT_ON_RUNAWAY:
	case ALERT_ON_BUDGET:
	case ALERT_ON_SILENCE:
	case ALERT_ON_REJECTED:
	case ALERT_ON_QUARANTINED:
		return false;
	}
	return false;
}

bool alert_rule_matches(const struct alert_rule *rule, const struct event *e,
			const struct alert_names *names)
{
	if (rule->on == ALERT_ON_UNKNOWN_TEMPLATE &&
	    (!names->template_id.s || names->template_is_configured))
		return false;
	return alert_rule_wants(rule, e) && alert_rule_covers(rule, names);
}

static uint64_t hash(uint64_t h, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		h = (h ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
	return (h ^ 0xff) * UINT64_C(0x100000001b3); /* where a piece ends */
}

uint64_t alert_rule_identity(const struct alert_rule *rule, const struct event *e, int64_t seq)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	if (rule->on == ALERT_ON_UNKNOWN_TEMPLATE)
		return (uint64_t)seq;
	h = hash(h, e->sandbox_id.s, e->sandbox_id.len);
	if (rule->on == ALERT_ON_EXECUTION_FAILED)
		h = hash(h, e->execution.execution_id.s, e->execution.execution_id.len);
	return h;
}

/* Speaking ---------------------------------------------------------------- */

static void begin(struct alert_track *track, int64_t count, int64_t now_ms)
{
	track->firing = true;
	track->acked = false;
	track->since_ms = now_ms;
	track->count = track->total = count;
	track->told = 0;
	track->notified_ms = 0;
}

/* Counts in windows that begin with an event: min_count of them make it fire. */
static bool is_enough(const struct alert_rule *rule, struct alert_track *track, int64_t n,
		      int64_t now_ms)
{
	if (track->window_count == 0 || now_ms - track->window_ms >= rule->window_ms ||
	    now_ms < track->window_ms) {
		track->window_ms = now_ms;
		track->window_count = 0;
	}
	track->window_count += n;
	return track->window_count >= rule->min_count;
}

enum alert_step alert_rule_occurred(const struct alert_rule *rule, struct alert_track *track,
				    int64_t n, int64_t now_ms)
{
	track->last_ms = now_ms;
	if (track->firing) {
		track->count += n;
		track->total += n;
		return ALERT_STEP_NONE;
	}
	if (!is_enough(rule, track, n, now_ms))
		return ALERT_STEP_NONE;
	begin(track, track->window_count, now_ms);
	return ALERT_STEP_FIRE;
}

static bool is_due_again(const struct alert_rule *rule, const struct alert_track *track,
			 int64_t now_ms)
{
	int64_t since_ms = now_ms - track->notified_ms;
	return !track->acked && (since_ms >= rule->repeat_ms ||
				 (since_ms >= EARLY_AFTER_MS &&
				  track->count >= EARLY_FACTOR * track->told && track->told > 0));
}

enum alert_step alert_rule_passed(const struct alert_rule *rule, const struct alert_track *track,
				  int64_t now_ms)
{
	if (!track->firing)
		return ALERT_STEP_NONE;
	if (now_ms - track->last_ms >= rule->quiet_ms)
		return ALERT_STEP_RESOLVE;
	return track->count > 0 && is_due_again(rule, track, now_ms) ? ALERT_STEP_REPEAT
								     : ALERT_STEP_NONE;
}

enum alert_step alert_rule_measured(const struct alert_rule *rule, struct alert_track *track,
				    bool is_over, int64_t count, int64_t now_ms)
{
	if (!is_over)
		return track->firing ? ALERT_STEP_RESOLVE : ALERT_STEP_NONE;
	track->last_ms = now_ms;
	if (!track->firing) {
		begin(track, count, now_ms);
		return ALERT_STEP_FIRE;
	}
	track->total = count;
	track->count = base_max_i64(0, track->total - track->told);
	return is_due_again(rule, track, now_ms) ? ALERT_STEP_REPEAT : ALERT_STEP_NONE;
}

void alert_rule_told(struct alert_track *track, enum alert_step step, int64_t now_ms)
{
	track->notified_ms = now_ms;
	track->count = 0;
	track->told = track->total;
	if (step != ALERT_STEP_RESOLVE)
		return;
	track->firing = track->acked = false;
	track->told = track->window_count = 0;
}

int64_t alert_rule_backoff_ms(int64_t attempts, uint32_t random)
{
	int64_t ms = ALERT_BACKOFF_MIN_MS;
	for (int64_t i = 1; i < attempts && ms < ALERT_BACKOFF_MAX_MS; i++)
		ms *= 2;
	ms = base_min_i64(ms, ALERT_BACKOFF_MAX_MS);
	return ms - ms / 5 + (int64_t)(random % 1000) * (2 * ms / 5) / 1000; /* ± 20 % */
}
