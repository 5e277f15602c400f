/* What rules know and what they said, as the writer sees it: tracks, what levels are measured from,
 * and the outbox. All calls run on the writer thread, inside the caller's transaction; results are
 * as in storage.h. A notification and its place in the outbox are written together with what caused
 * it.
 */
#pragma once

#include "alert_message.h"
#include "alert_rule.h"
#include "storage.h"

#define STORAGE_RULE_MAX 64
#define STORAGE_SAMPLES_MAX 16384 /* of the JSON of a few samples */

/* Tracks -------------------------------------------------------------------- */

enum storage_alert_part {
	STORAGE_ALERT_WHOLE,
	STORAGE_ALERT_DAILY,
	STORAGE_ALERT_MONTHLY,
	STORAGE_ALERT_LATE, /* what came too late to fire: only counted, for a summary */
};

/* A rule and a template. Not thread-safe, nothing lent. */
struct storage_alert {
	int64_t key; /* 0: not stored yet */
	char rule[STORAGE_RULE_MAX + 1];
	int64_t template_key;
	enum storage_alert_part part;
	enum alert_on on;
	char severity[33];
	struct alert_track track;
	double value; /* NAN: none */
	int64_t open_id; /* a notification that gathers; 0: none */
	char samples[STORAGE_SAMPLES_MAX]; /* JSON objects, a comma between them */
};

/* As stored, or fresh. */
MUST_CHECK int storage_alert_load(struct storage *s, const char *rule, int64_t template_key,
				  enum storage_alert_part part, struct storage_alert *ret);
MUST_CHECK int storage_alert_save(struct storage *s, struct storage_alert *alert);
/* The first with a larger key: 1, or 0 without one. */
MUST_CHECK int storage_alert_next(struct storage *s, int64_t after_key, struct storage_alert *ret);
MUST_CHECK int storage_alert_delete(struct storage *s, int64_t key);
/* Notes an occurrence; false if it was noted before. */
MUST_CHECK int storage_alert_is_new(struct storage *s, const char *rule, uint64_t identity,
				    bool *ret);

/* Up to where was looked; setting never moves back. */
struct storage_alert_position {
	int64_t seq, rejection_id, quarantine_id;
};
MUST_CHECK int storage_alert_position(struct storage *s, struct storage_alert_position *ret);
MUST_CHECK int storage_alert_set_position(struct storage *s,
					  const struct storage_alert_position *at);

/* Executions for STORAGE_MEASURE_RATES: what the report of an event changed is kept by its seq, and
 * counted in the ten seconds it lies in when the watermark passes it. So it counts once, too, when
 * it is folded again into a ledger that was rebuilt as of the watermark. */
#define STORAGE_ALERT_BUCKET_S 10
struct storage_alert_execution {
	int64_t seq, time_s;
	struct ledger_dims dims;
	int executions, failed;
};
MUST_CHECK int storage_alert_count(struct storage *s, const struct storage_alert_execution *x);
MUST_CHECK int storage_alert_pass(struct storage *s, int64_t seq);

/* Levels -------------------------------------------------------------------- */

enum storage_measure {
	STORAGE_MEASURE_RATES, /* since_ms: n of them, failed */
	/* Started before since_ms, or (failed 1) past its timeout, then value is how long it
	 * was to last: value seconds, sandbox_id, run_id. */
	STORAGE_MEASURE_RUNAWAYS,
	STORAGE_MEASURE_COSTS, /* from since_ms, settled and accrued: value USD */
	STORAGE_MEASURE_LAST_EVENTS, /* time_ms of the last of each template */
	STORAGE_MEASURE_REJECTIONS, /* behind row since_ms: n is the row; reason, whence */
	STORAGE_MEASURE_QUARANTINED,
};

/* Several rows may be about one template. Spans are valid during the callback. */
struct storage_level {
	int64_t template_key;
	struct span template_id, template_alias, team_id;
	int64_t n, failed, time_ms;
	double value;
	struct span sandbox_id, run_id; /* rejections, quarantined: reason, whence or what */
};
typedef int (*storage_level_fn)(void *ctx, const struct storage_level *level);
MUST_CHECK int storage_alert_measure(struct storage *s, enum storage_measure what, int64_t since_ms,
				     int64_t now_ms, storage_level_fn fn, void *ctx);

/* The outbox ----------------------------------------------------------------- */

/* Notifies of a track as it stands, to these targets (names). *ret_id: of the notification.
 * `gathers`: what comes until it is sent belongs to it (storage_outbox_seal). */
struct storage_post {
	const struct storage_alert *alert; /* of a test: of its rule, key 0 */
	enum alert_state state;
	double threshold; /* NAN: none */
	int64_t now_ms, next_ms; /* not sent before */
	bool gathers;
	const char *const *targets;
	size_t n_targets;
};
MUST_CHECK int storage_outbox_post(struct storage *s, const struct storage_post *post,
				   int64_t *ret_id);
/* The targets that were told that it fires, since it began to. */
MUST_CHECK int storage_outbox_told(struct storage *s, const struct storage_alert *alert,
				   void (*fn)(void *ctx, const char *target), void *ctx);
/* The first notification that gathers and was made by then: 1 with its alert's key, or 0. */
MUST_CHECK int storage_outbox_gathering(struct storage *s, int64_t until_ms, int64_t *ret_id,
					int64_t *ret_alert_key);
/* Counts and samples as of now; it gathers no more. */
MUST_CHECK int storage_outbox_seal(struct storage *s, int64_t id,
				   const struct storage_alert *alert);

/* A notification on its way to one target. */
struct storage_notice {
	int64_t id;
	char target[STORAGE_RULE_MAX + 1];
	char notification_id[40];
	struct storage_alert alert; /* rule, on, severity, counts, value, samples as told */
	enum alert_state state;
	int64_t starts_ms, ends_ms, made_ms, since_ms, attempts;
	double threshold;
	char template_id[EVENT_ID_MAX + 1], template_name[EVENT_ID_MAX + 1]; /* "": none */
};
/* The next one due for a target, of each rule only its oldest: 1, or 0. Counts the attempt. */
MUST_CHECK int storage_outbox_take(struct storage *s, const char *target, int64_t now_ms,
				   struct storage_notice *ret);
/* When the next one for this target is due: INT64_MAX: none waits. */
MUST_CHECK int storage_outbox_due(struct storage *s, const char *target, int64_t *ret_ms);

enum storage_outbox_status { STORAGE_WAITING, STORAGE_SENT, STORAGE_FAILED, STORAGE_DROPPED };
struct storage_outbox_result {
	int64_t id;
	const char *target;
	enum storage_outbox_status status;
	int64_t at_ms; /* sent at; or waiting until */
	const char *error; /* "": none */
};
MUST_CHECK int storage_outbox_report(struct storage *s, const struct storage_outbox_result *result);
/* Gives up what waits since before then (its target may be gone from the configuration). */
MUST_CHECK int storage_outbox_expire(struct storage *s, int64_t before_ms, int64_t *ret_n);
/* Forgets old notifications, occurrences and buckets. */
MUST_CHECK int storage_outbox_prune(struct storage *s, int64_t buckets_before_s);

struct storage_outbox_figures {
	int64_t waiting, failed, oldest_ms, firing; /* oldest_ms 0: none waits */
};
MUST_CHECK int storage_outbox_figures(struct storage *s, struct storage_outbox_figures *ret);

/* Operators: acknowledges firing alerts of a rule; sends again at once what failed or waits. */
MUST_CHECK int storage_alert_ack(struct storage *s, const char *rule, int64_t *ret_n);
MUST_CHECK int storage_outbox_retry(struct storage *s, const char *target, int64_t now_ms,
				    int64_t *ret_n); /* target NULL: all */
/* For a store that was put in place of another: nothing old is told, nothing in it is raised. */
MUST_CHECK int storage_alert_forget(struct storage *s);
