/* The verdict: headers + bytes + now -> what to do. A pure function that knows neither HTTP nor
 * storage; the server, the tool's `verify` and `requeue`, the tests and the fuzzers call the same
 * one. Any thread.
 *
 * The first of these that has something against a delivery decides: signature, one JSON object,
 * event, future, stale, filters (events, templates, teams). Events of kind test pass every filter.
 */
#pragma once

#include "base.h"
#include "event.h"
#include "glob.h"
#include "signature.h"

#define INGEST_FUTURE_MAX_MS INT64_C(3600000)
#define INGEST_DETAIL_MAX 160

/* What decides about a delivery of one source. Owned by the configuration. */
struct ingest_policy {
	struct signature_keyring *keyring;
	struct glob_list events, templates, teams;
};

/* Resolves a template id or alias to its configured twin, so that a filter may name either. `alias`
 * is what a template id is called, `id` what an alias stands for; NULL if unknown. What they return
 * must last as long as the call that asked. */
struct ingest_templates {
	const char *(*id_of)(const void *ctx, struct span alias);
	const char *(*alias_of)(const void *ctx, struct span template_id);
	const void *ctx;
};

struct ingest_delivery {
	struct signature_input signed_part;
	int64_t received_unix_ms; /* what the event must not be an hour ahead of; when judged
				     again, the clock of then if it is later */
};

enum ingest_verdict {
	INGEST_STORE, /* `event` is valid */
	INGEST_FILTERED, /* `event` is valid; reason says by what */
	INGEST_QUARANTINE, /* signed, not an event; reason and detail */
	INGEST_REJECT, /* unsigned or the shape of a forgery; reason */
};

/* Names are stable: they appear in views, counters and metrics. */
enum ingest_reason {
	INGEST_REASON_NONE,
	/* filtered */
	INGEST_REASON_EVENTS, /* events */
	INGEST_REASON_TEMPLATES, /* templates */
	INGEST_REASON_TEAMS, /* teams */
	/* quarantined: the outcomes of json.h and event.h, and */
	INGEST_REASON_NOT_ONE_OBJECT, /* not_one_object; under e2b a rejection */
	INGEST_REASON_TOO_DEEP, /* too_deep */
	INGEST_REASON_TOO_MANY, /* too_many_values */
	INGEST_REASON_DUPLICATE_KEY, /* duplicate_key */
	INGEST_REASON_MISSING_FIELD, /* missing_field */
	INGEST_REASON_WRONG_TYPE, /* wrong_type */
	INGEST_REASON_BAD_ID, /* bad_id */
	INGEST_REASON_BAD_TIME, /* bad_time */
	INGEST_REASON_BAD_NUMBER, /* bad_number */
	INGEST_REASON_CONFLICT, /* conflict */
	INGEST_REASON_FUTURE, /* future: more than an hour ahead */
	INGEST_REASON_STALE, /* stale: before the retention horizon */
	INGEST_REASON_ID_REUSED, /* id_reused: set by the storage engine */
	/* rejected */
	INGEST_REASON_SIGNATURE_MISSING, /* signature_missing */
	INGEST_REASON_SIGNATURE_MALFORMED, /* signature_malformed */
	INGEST_REASON_SIGNATURE_WRONG, /* signature_wrong */
	INGEST_REASON_SIGNATURE_EXPIRED, /* signature_expired */
	INGEST_REASON_BODY_TOO_LARGE, /* body_too_large: set by the server */
};
#define INGEST_N_REASONS (INGEST_REASON_BODY_TOO_LARGE + 1)
const char *ingest_reason_name(enum ingest_reason reason);

struct ingest_result {
	enum ingest_verdict verdict;
	enum ingest_reason reason;
	char detail[INGEST_DETAIL_MAX]; /* why, for quarantined and rejected; printable ASCII, never
					   text of a secret, signature or body */
	bool verified; /* the signature was right; then `match` says with which secret */
	struct signature_match match;
	bool has_event; /* stored, filtered; and quarantined as future or stale */
	struct event event;
	struct json_doc *doc; /* what `event` points into */
};

/* One that several hold, any thread each. It must not change once it is shared. */
struct ingest_result *ingest_result_new(void); /* NULL: no memory */
struct ingest_result *ingest_result_ref(struct ingest_result *result);
void ingest_result_unref(struct ingest_result *result); /* NULL too */

/* Judges a delivery. `horizon_unix_s` is the retention horizon (0: none), `templates` may be NULL.
 * 0 or a negative errno (memory, OpenSSL): then the delivery must be answered 503. Call
 * ingest_result_finish in every case. The result points into neither policy nor delivery. */
MUST_CHECK int ingest_judge(struct ingest_result *ret, const struct ingest_policy *policy,
			    const struct ingest_templates *templates,
			    const struct ingest_delivery *delivery, int64_t horizon_unix_s);

/* The part behind the signature: for requeue of quarantined bodies (already verified, under
 * whatever scheme: what is not one object is quarantined again) and for the fold's re-reading. */
MUST_CHECK int ingest_judge_body(struct ingest_result *ret, const struct ingest_policy *policy,
				 const struct ingest_templates *templates, struct span body,
				 int64_t received_unix_ms, int64_t horizon_unix_s);
void ingest_result_finish(struct ingest_result *result); /* also zeroed or finished ones */
