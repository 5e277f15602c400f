/* What the files of alert share. */
#pragma once

#include "alert.h"
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>

#define ALERT_SLICE_US 3000

struct alert {
	struct storage *s;
	const struct config *config;
	struct storage_alert_position at;
	int64_t since_ms; /* watching since: silence before does not count to a new rule */
	bool wants_executions; /* a rule is about their failure rate */
	int64_t looked_ms[CONFIG_ALERTS_MAX], pruned_ms, after_key;
	size_t next_rule;
	bool is_dirty; /* something was posted */
	struct storage_alert track; /* large: one at a time */

	pthread_mutex_t lock; /* the waker */
	void (*wake)(void *ctx);
	void *wake_ctx;
	atomic_llong fired, resolved, sent, failed_attempts, given_up;
	atomic_llong firing, waiting, failed, oldest_unsent_ms;
};

/* Puts a notification into the outbox and takes note in the track; saves it. `rule` NULL: gone, and
 * the track resolves. */
MUST_CHECK int alert_post(struct alert *a, const struct config_alert *rule,
			  struct storage_alert *track, enum alert_state state, double threshold,
			  int64_t now_ms);
/* What a step of the track comes to. What fires while nobody is to be told (no target is on, or the
 * rule is silenced) is told once somebody is. */
MUST_CHECK int alert_tell(struct alert *a, const struct config_alert *rule,
			  struct storage_alert *track, enum alert_step step, double threshold,
			  int64_t now_ms);
/* Adds to the first few samples. */
struct alert_note {
	int64_t seq, time_ms, from_ms; /* from: when what it tells of began; 0: at its time */
	struct span event_id, execution_id, sandbox_id, run_id, status, error_name, error_value;
};
void alert_append_sample(struct storage_alert *track, const struct alert_note *note);
/* Names and severity as configured. */
MUST_CHECK int alert_load(struct alert *a, const struct config_alert *rule, int64_t template_key,
			  enum storage_alert_part part, struct storage_alert *track);

/* Rejections and quarantine behind the position. */
MUST_CHECK int alert_look_at_deliveries(struct alert *a, int64_t now_ms);
/* How often its level is looked at. */
int64_t alert_interval_ms(const struct alert_rule *rule);
/* Begin of the UTC day or month. */
int64_t alert_period_ms(enum storage_alert_part part, int64_t now_ms);
/* Measures the level of a rule. */
MUST_CHECK int alert_measure(struct alert *a, const struct config_alert *rule, int64_t now_ms);
