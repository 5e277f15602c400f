/* What a notification says, and where it goes: the seam between rules and transport.
 *
 * Made from the store by the alerter, rendered by alert_payload, sent by notify. Everything is lent
 * for the call. Texts are valid UTF-8, cut to their limits by whoever makes the message.
 */
#pragma once

#include "base.h"

struct signature_keyring;

#define ALERT_SAMPLES_MAX 5

enum alert_state { ALERT_FIRING, ALERT_REPEAT, ALERT_RESOLVED, ALERT_SUMMARY, ALERT_TEST };

/* One of the first few events (or executions) that an alert is about. NULL: not known. */
struct alert_sample {
	int64_t seq;
	int64_t time_unix_ms;
	const char *event_id, *execution_id, *sandbox_id, *run_id;
	const char *status; /* of an execution; or the kill reason */
	const char *error_name, *error_value; /* cut */
};

struct alert_message {
	const char *id; /* of the notification: the same over retries; receivers dedupe by it */
	const char *rule; /* [alert NAME] */
	const char *on; /* execution_failed, budget, … */
	const char *severity;
	const char *template; /* alias or id; NULL: not about one template */
	const char *period; /* of a budget: daily, monthly; NULL: no budget */
	enum alert_state state;
	const char *summary; /* one line for people */
	const char *query; /* how to see the rest: an e2b-hookctl command line; NULL: none */
	int64_t starts_unix_ms; /* when it began to fire */
	int64_t ends_unix_ms; /* 0: not resolved */
	int64_t made_unix_ms;
	int64_t count; /* events it is about, since the last notification */
	int64_t total; /* since it began to fire */
	double value, threshold; /* rate, dollars, seconds; NAN: none */
	const char *unit; /* of value: "ratio", "usd", "s", "events"; NULL: none */
	const struct alert_sample *samples;
	size_t n_samples;
	const char *instance; /* host name of the daemon */
};

enum notify_kind { NOTIFY_WEBHOOK, NOTIFY_SLACK, NOTIFY_ALERTMANAGER, NOTIFY_COMMAND };

/* A [notify NAME] with its secrets resolved. */
struct notify_target {
	const char *name;
	enum notify_kind kind;
	const char *url; /* secret; NULL for a command */
	/* webhook: signs by standard-webhooks, once per secret (rotation); NULL: unsigned */
	const struct signature_keyring *keyring;
	const char *command; /* absolute path */
	int64_t timeout_ms;
};

enum notify_outcome { NOTIFY_SENT, NOTIFY_TEMPORARY, NOTIFY_PERMANENT };

#define NOTIFY_REASON_MAX 160

struct notify_result {
	enum notify_outcome outcome;
	int64_t retry_after_ms; /* as the target asked, bounded; 0: it did not say */
	char reason[NOTIFY_REASON_MAX]; /* one line, no secret */
};
