/* Alert rules: what a [alert NAME] says, whether an event is its business, and when it speaks.
 *
 * A track is what a rule knows about one template: it fires once, repeats while there is more to
 * say, and resolves when it is over. Two kinds of rules share it: those about events (each one adds
 * to the count; over after `quiet` without another) and those about a level (over a limit or not).
 * Pure: the caller loads and saves tracks, and knows the time.
 */
#pragma once

#include "base.h"
#include "event.h"
#include "glob.h"

enum alert_on {
	ALERT_ON_EXECUTION_FAILED,
	ALERT_ON_SANDBOX_FAILED,
	ALERT_ON_FAILURE_RATE,
	ALERT_ON_RUNAWAY,
	ALERT_ON_BUDGET,
	ALERT_ON_SILENCE,
	ALERT_ON_REJECTED,
	ALERT_ON_QUARANTINED,
	ALERT_ON_UNKNOWN_TEMPLATE,
};
#define ALERT_N_ON (ALERT_ON_UNKNOWN_TEMPLATE + 1)

#define ALERT_NOTIFY_MAX 16 /* targets of a rule, and in all */

struct alert_rule {
	enum alert_on on;
	struct glob_list templates, teams;
	struct glob_list reasons; /* sandbox_failed, rejected, quarantined */
	unsigned int statuses; /* 1 << enum event_status */
	bool final_only, silenced;
	int64_t threshold_nano; /* failure_rate: 10^-9; -1: not given */
	int64_t daily_nanousd, monthly_nanousd; /* -1: not given */
	int64_t min_count;
	int64_t window_ms, repeat_ms, max_run_ms, quiet_ms, max_age_ms;
	char *severity;
	char *notify[ALERT_NOTIFY_MAX]; /* names of targets */
	size_t n_notify;
};

const char *alert_rule_on_name(enum alert_on on); /* "execution_failed" */
bool alert_rule_on_from_name(const char *name, enum alert_on *ret);
/* Is it about events, one by one (else about a level)? */
bool alert_rule_is_about_events(enum alert_on on);

/* Are its templates `*`: all of them, those without a template too? */
bool alert_rule_is_for_all(const struct alert_rule *rule);

/* Names that an event's template goes by; spans may be absent. */
struct alert_names {
	struct span template_id, template_alias, team_id;
	bool template_is_configured;
};
/* Does the rule take these templates and teams? */
bool alert_rule_covers(const struct alert_rule *rule, const struct alert_names *names);
/* Could the event be what the rule waits for, whatever its template? Cheap: asked of every event.
 */
bool alert_rule_wants(const struct alert_rule *rule, const struct event *event);
/* Is this stored event what the rule waits for? Test events never are. */
bool alert_rule_matches(const struct alert_rule *rule, const struct event *event,
			const struct alert_names *names);
/* What makes two events one occurrence: reports of one execution or of one end of a sandbox under
 * different event ids; `seq` where every event counts by itself. */
uint64_t alert_rule_identity(const struct alert_rule *rule, const struct event *event, int64_t seq);

struct alert_track {
	bool firing, acked; /* acked: not repeated, until it has resolved */
	/* last: occurred, or was over its limit; notified 0: nobody was told that it fires */
	int64_t since_ms, last_ms, notified_ms;
	/* Events since the last notification; since it began to fire. Of a level: how many more it
	 * is about than was told; how many now. */
	int64_t count, total;
	int64_t told; /* of total, at the last notification */
	/* Where the window began that min_count counts in; of silence: since when nothing came. */
	int64_t window_ms, window_count;
};

enum alert_step { ALERT_STEP_NONE, ALERT_STEP_FIRE, ALERT_STEP_REPEAT, ALERT_STEP_RESOLVE };

/* `n` events occurred. FIRE or NONE. */
enum alert_step alert_rule_occurred(const struct alert_rule *rule, struct alert_track *track,
				    int64_t n, int64_t now_ms);
/* Time went by, for rules about events: REPEAT where more came since (early, after a minute, if it
 * is ten times what was told), RESOLVE after `quiet`, else NONE. */
enum alert_step alert_rule_passed(const struct alert_rule *rule, const struct alert_track *track,
				  int64_t now_ms);
/* A level was looked at: FIRE, REPEAT, RESOLVE or NONE. */
enum alert_step alert_rule_measured(const struct alert_rule *rule, struct alert_track *track,
				    bool is_over, int64_t count, int64_t now_ms);
/* A notification about it was made; or it is over, which may concern nobody. */
void alert_rule_told(struct alert_track *track, enum alert_step step, int64_t now_ms);

/* How long to wait before the next attempt, the nth having failed: exponential, with the jitter
 * that `random` gives. */
int64_t alert_rule_backoff_ms(int64_t attempts, uint32_t random);
#define ALERT_BACKOFF_MIN_MS 1000
#define ALERT_BACKOFF_MAX_MS (5 * INT64_C(60000))
