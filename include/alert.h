/* Alerts on the writer thread: events and levels against the rules, and notifications into the
 * outbox.
 *
 * An event is looked at once, in the transaction that moves the ledger's watermark past it; a
 * position of its own that never goes back keeps rebuilds, requeues and restores from raising it
 * again. Rules about levels are measured from the store, a few milliseconds a tick. What is made
 * here is sent by the alerter, which is woken when something is due.
 */
#pragma once

#include "base.h"
#include "alert_message.h"
#include "storage_alert.h"

struct alert;
struct config;

MUST_CHECK int alert_new(struct storage *s, struct alert **ret);
void alert_free(struct alert *a);
/* Rules and targets; lent until the next call. Writer thread. */
void alert_set_config(struct alert *a, const struct config *config);

/* A slice of the live fold, or a part of it, in one transaction: begin, then one call for each
 * execution whose count changed and for each event that the watermark passes, and end before the
 * commit, which moves the position to that watermark. */
MUST_CHECK int alert_begin(struct alert *a);
/* May a rule be about it? Else it need not be observed. */
bool alert_wants(const struct alert *a, const struct event *event);
MUST_CHECK int alert_observe(struct alert *a, int64_t seq, const struct event *event,
			     const struct ledger_dims *dims);
MUST_CHECK int alert_count(struct alert *a, int64_t seq, const struct event *event,
			   const struct ledger_dims *dims, const struct storage_counts *counts);
MUST_CHECK int alert_end(struct alert *a, int64_t seq);

/* Repeats, resolves, measures levels: one slice, in transactions of its own. */
MUST_CHECK int alert_tick(struct alert *a, int64_t now_ms);

/* Waking whoever sends: called on the writer thread, must not block. At most one. */
void alert_set_waker(struct alert *a, void (*wake)(void *ctx), void *ctx);

/* Has who sends look now. Any thread. */
void alert_wake(struct alert *a);

/* A test notification to the targets of a rule, or to one target; -ENOENT: neither. Inside the
 * caller's transaction, as the next one. */
MUST_CHECK int alert_test(struct storage *s, const struct config *config, const char *name,
			  int64_t now_ms, int64_t *ret_id);
/* Closes what has gathered long enough. */
#define ALERT_GATHER_MS 500
MUST_CHECK int alert_seal(struct storage *s, int64_t now_ms);

/* A notice as a message; free it with alert_parcel_free. The message points into the parcel. Of the
 * configuration, rules as they are now. */
struct alert_parcel {
	struct storage_notice notice;
	struct alert_message message;
	struct alert_sample samples[ALERT_SAMPLES_MAX];
	struct json_doc *doc;
	int64_t from_ms; /* the earliest of what the samples are about */
	char summary[512], query[512];
};
MUST_CHECK int alert_parcel_new(const struct storage_notice *notice, const struct config *config,
				const char *instance, struct alert_parcel **ret);
void alert_parcel_free(struct alert_parcel *p);

/* Since start, and as things stand. Any thread. */
struct alert_figures {
	int64_t fired, resolved; /* since start */
	int64_t sent, failed_attempts, given_up; /* since start */
	int64_t firing, waiting, failed, oldest_unsent_ms; /* now; 0: none waits */
};
void alert_figures(struct alert *a, struct alert_figures *ret);
void alert_count_sending(struct alert *a, enum storage_outbox_status status);
