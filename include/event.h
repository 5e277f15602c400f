/* An event: what a verified body says. From a strict document to one flat struct, by one alias
 * table.
 *
 * Reads snake_case and camelCase envelopes, v1 (category and label), the aliases of compatible
 * senders (`event_id`, `occurred_at_ms`, top-level `kill_reason`), event_data as an object, null,
 * absent or (2025) as a JSON string, and `sandbox.code_executed` (facts/e2b.md 6.2). Both casings
 * of one field with different values are a conflict. An empty string and the nil UUID are "missing"
 * in every id. Keys are case-sensitive. Pure; any thread. Spans point into the document, which must
 * outlive the event, or into memory that the event owns; the struct itself may be moved.
 */
#pragma once

#include "base.h"
#include "json.h"

#define EVENT_ID_MAX 128
#define EVENT_TYPE_MAX 128
#define EVENT_DETAIL_MAX 160
/* Free text is cut here, at a character: views and alerts stay readable, the payload keeps it all.
 */
#define EVENT_WORD_MAX 128 /* kill_reason, language, kind of execution */
#define EVENT_ERROR_NAME_MAX 200
#define EVENT_ERROR_VALUE_MAX 4096

enum event_kind {
	EVENT_CREATED,
	EVENT_RESUMED,
	EVENT_UPDATED,
	EVENT_PAUSED,
	EVENT_KILLED,
	EVENT_CHECKPOINTED,
	EVENT_FORKED,
	EVENT_CODE_EXECUTED,
	EVENT_TEST,
	EVENT_OTHER,
};
#define EVENT_N_KINDS (EVENT_OTHER + 1)

enum event_status { EVENT_SUCCESS, EVENT_ERROR, EVENT_TIMEOUT, EVENT_STATUS_KILLED };

enum event_execution_kind { EVENT_RUNS_CODE, EVENT_RUNS_COMMAND };

#define EVENT_ABSENT INT64_MIN /* for integer fields that the sender left out */

/* event_data.execution of paused and killed: E2B's own account of the run. present only if complete
 * enough to book: started_at and execution_time; sizes may be EVENT_ABSENT. */
struct event_report {
	bool present;
	int64_t started_unix_ms;
	int64_t duration_ms; /* a non-integer execution_time was seconds (facts/e2b.md 2.3) */
	int64_t vcpu_count;
	int64_t memory_mb;
};

/* event_data.code_execution of code_executed. */
struct event_execution {
	struct span execution_id;
	struct span kind_name; /* as sent, cut to EVENT_WORD_MAX; absent: code */
	struct span language;
	int64_t started_unix_ms, finished_unix_ms; /* EVENT_ABSENT if not sent */
	int64_t duration_ms;
	/* As sent; derived from the other signs if missing, unknown, or `success` against them. */
	enum event_status status;
	bool failed; /* any sign says so: status, error, timed_out, exit_code */
	int64_t exit_code; /* any int32, or EVENT_ABSENT */
	struct span error_name, error_value; /* absent if no error */
	int64_t attempt; /* 1 if not sent */
	bool final; /* true if not sent */
	int64_t vcpu_count, memory_mb; /* EVENT_ABSENT if not sent */
	int64_t cost_nanousd; /* the sender's own estimate; EVENT_ABSENT if none */
};

struct event {
	char id[EVENT_ID_MAX + 1]; /* the sender's, or `body:` + 32 hex digits */
	int64_t time_unix_ns;
	enum event_kind kind;
	struct span type; /* canonical for v1: sandbox.lifecycle.X */
	struct span version;
	struct span sandbox_id, run_id, template_id, template_alias, build_id, team_id;
	struct span source_sandbox_id; /* forked */
	struct span metadata; /* event_data.sandbox_metadata as compact JSON text; absent if none or
				 empty */
	struct span kill_reason; /* killed */
	int64_t set_timeout_unix_ms; /* updated; EVENT_ABSENT */
	int64_t startup_ms; /* created; EVENT_ABSENT */
	struct event_report report;
	struct event_execution execution;

	char *metadata_text; /* backs `metadata` */
	struct json_doc *data_doc; /* event_data that was sent as a JSON string */
};

/* Why a well-formed body is not an event; the names are the `reason` of the quarantine view. */
enum event_problem {
	EVENT_MISSING_FIELD = 1, /* missing_field */
	EVENT_WRONG_TYPE, /* wrong_type: of a field that is used */
	EVENT_BAD_ID, /* bad_id: over 128 bytes, other characters, a `..` segment */
	EVENT_BAD_TIME, /* bad_time */
	EVENT_BAD_NUMBER, /* bad_number: not finite, not integral where it must be, out of range */
	EVENT_CONFLICT, /* conflict: both casings or aliases of a field with different values */
};
const char *event_problem_name(enum event_problem problem);

/* Reads an event. `body` is the raw body, whose SHA-256 names it where it has no id. On a positive
 * problem, `detail` names the field ("event_data.execution.started_at: not RFC 3339"), printable
 * ASCII. -ENOMEM. Call event_finish in every case. */
MUST_CHECK int event_read(struct event *ret, const struct json_value *root, struct span body,
			  char detail[static EVENT_DETAIL_MAX]);
void event_finish(struct event *event);

int64_t
event_second(const struct event *event); /* of its time, rounded down: part of its identity */
const char *event_kind_name(enum event_kind kind); /* "created" … */
bool event_kind_from_name(struct span name, enum event_kind *ret);
/* The nth of the names that an event goes by: all kinds, and all types that mean one of them (but
 * for "other"). NULL past the last. `buf` holds it. */
#define EVENT_NAME_MAX 64
const char *event_known_name(size_t n, char buf[static EVENT_NAME_MAX]);
const char *event_status_name(enum event_status status);
/* A start (created, resumed, forked), an end (paused, killed) of a run? */
bool event_kind_starts_run(enum event_kind kind);
bool event_kind_ends_run(enum event_kind kind);
