/* What the daemon did since it started: counters, by source where that matters, histograms, and a
 * few gauges that have no other home. One module, one set for the process.
 *
 * Any thread, no lock where deliveries pass: relaxed atomics. Reading one figure is exact, reading
 * several is not a snapshot. How they look on the metrics page is admin_metrics.c's.
 */
#pragma once

#include "base.h"
#include "event.h"
#include "ingest.h"

enum metrics_counter {
	/* answers of the hook listener */
	METRICS_STORED,
	METRICS_DUPLICATE,
	METRICS_FILTERED,
	METRICS_QUARANTINED,
	METRICS_HEALTHY,
	METRICS_BAD_REQUEST,
	METRICS_UNAUTHORIZED,
	METRICS_NOT_FOUND,
	METRICS_METHOD_NOT_ALLOWED,
	METRICS_TIMEOUT,
	METRICS_TOO_LARGE,
	METRICS_UNAVAILABLE,
	/* why not 200, as far as no source is known */
	METRICS_BAD_FRAMING, /* refused by the header screen */
	METRICS_HEADER_TIMEOUT,
	METRICS_REQUEST_TIMEOUT,
	/* why 503 */
	METRICS_COMMIT_TIMEOUT,
	METRICS_QUEUE_FULL,
	METRICS_BODY_MEMORY_FULL, /* 64 MiB of bodies received or waiting */
	METRICS_STORE_FAILED,
	METRICS_QUARANTINE_FULL,
	METRICS_OUT_OF_MEMORY,
	METRICS_JUDGING_FAILED,
	METRICS_STOPPING,
	/* what was not kept or not heard */
	METRICS_REJECTION_DROPPED, /* answered 401 or 413, not kept: too many at once */
	METRICS_FILTERED_UNCOUNTED, /* answered, but the queue had no room to count it */
	METRICS_ABORTED, /* the sender left before its answer */
	/* connections */
	METRICS_CONNECTIONS, /* accepted */
	METRICS_CONNECTION_REFUSED, /* above max_connections_per_ip */
	METRICS_ACCEPT_FAILED, /* out of file descriptors or memory */
	/* the writer */
	METRICS_COMMIT_FAILED, /* batches that could not be written */
};
#define METRICS_N_COUNTERS (METRICS_COMMIT_FAILED + 1)

void metrics_count(enum metrics_counter which);
uint64_t metrics_read(enum metrics_counter which);
const char *metrics_name(enum metrics_counter which); /* "commit_timeout" */

/* Sources ------------------------------------------------------------------ */

/* Named by their place in a table that only grows: 0 to metrics_sources() - 1. What finds no room
 * shares the last place, `_other`. */
#define METRICS_SOURCES_MAX 128

enum metrics_outcome {
	METRICS_OUTCOME_STORED,
	METRICS_OUTCOME_DUPLICATE,
	METRICS_OUTCOME_FILTERED,
	METRICS_OUTCOME_QUARANTINED,
	METRICS_OUTCOME_REJECTED,
	METRICS_OUTCOME_TOO_LARGE,
	METRICS_OUTCOME_UNAVAILABLE,
};
#define METRICS_N_OUTCOMES (METRICS_OUTCOME_UNAVAILABLE + 1)
const char *metrics_outcome_name(enum metrics_outcome outcome);

/* The place of a source; makes one at its first use. Without a lock where there is one already. */
size_t metrics_source(const char *name);
size_t metrics_sources(void);
const char *metrics_source_name(size_t source);

/* One answered delivery. reason: NONE, or why it was filtered, quarantined or rejected. */
void metrics_count_delivery(size_t source, enum metrics_outcome outcome, enum ingest_reason reason);
uint64_t metrics_deliveries(size_t source, enum metrics_outcome outcome);
uint64_t metrics_reasons(size_t source, enum metrics_outcome outcome, enum ingest_reason reason);

/* One event that is new in the store: its kind, status and age on arrival. */
void metrics_count_event(size_t source, const struct event *event, int64_t received_unix_ms);
uint64_t metrics_events(enum event_kind kind);
uint64_t metrics_executions(enum event_status status);
/* When the latest new event of a source came, 0: none is known. `see` only ever raises it. */
void metrics_see_event(size_t source, int64_t received_unix_ms);
int64_t metrics_last_event_ms(size_t source);

/* Histograms ---------------------------------------------------------------- */

enum metrics_histogram {
	METRICS_EVENT_AGE, /* ms; below zero counts as zero: the sender's clock is ahead */
	METRICS_BATCH_SIZE, /* deliveries in one transaction */
	METRICS_COMMIT_TIME, /* us, from begin to commit, of batches that must be durable */
};
#define METRICS_N_HISTOGRAMS (METRICS_COMMIT_TIME + 1)
#define METRICS_BUCKETS_MAX 16

struct metrics_buckets {
	size_t n; /* bounds; one more bucket has none */
	int64_t bounds[METRICS_BUCKETS_MAX]; /* upper, inclusive */
	uint64_t counts[METRICS_BUCKETS_MAX + 1]; /* of each bucket alone */
	uint64_t sum, total;
};

void metrics_observe(enum metrics_histogram histogram, int64_t value);
/* total is the sum of the counts that were read: a page never contradicts itself. */
void metrics_buckets(enum metrics_histogram histogram, struct metrics_buckets *ret);

/* Gauges ---------------------------------------------------------------------- */

enum metrics_gauge {
	METRICS_STARTED_MS, /* unix time of the start of the process */
	METRICS_RELOAD_FAILED, /* 1: the last reload was refused */
	METRICS_CONFIG_LOADED_MS, /* unix time of the last load that was taken over */
	METRICS_RESTART_NEEDED, /* changed settings that wait for a restart */
	METRICS_CORRUPT_STORES, /* damaged stores beside the store, as of the start */
};
#define METRICS_N_GAUGES (METRICS_CORRUPT_STORES + 1)

void metrics_set(enum metrics_gauge gauge, int64_t value);
int64_t metrics_get(enum metrics_gauge gauge);
