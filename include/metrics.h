/* Counters of what the daemon did since it started: one table, read by logs and by the metrics
 * page. Any thread; reading a counter is exact, reading several is not a snapshot.
 */
#pragma once

#include "base.h"

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
	/* why */
	METRICS_BAD_FRAMING, /* refused by the header screen */
	METRICS_HEADER_TIMEOUT,
	METRICS_REQUEST_TIMEOUT,
	METRICS_COMMIT_TIMEOUT,
	METRICS_QUEUE_FULL,
	METRICS_BODY_MEMORY_FULL, /* 64 MiB of bodies received or waiting */
	METRICS_REJECTION_DROPPED, /* answered 401 or 413, not kept: too many at once */
	METRICS_FILTERED_UNCOUNTED, /* answered, but the queue had no room to count it */
	METRICS_ABORTED, /* the sender left before its answer */
	/* connections */
	METRICS_CONNECTIONS, /* accepted */
	METRICS_CONNECTION_REFUSED, /* above max_connections_per_ip */
	METRICS_ACCEPT_FAILED, /* out of file descriptors or memory */
};
#define METRICS_N_COUNTERS (METRICS_ACCEPT_FAILED + 1)

void metrics_count(enum metrics_counter counter);
uint64_t metrics_read(enum metrics_counter counter);
const char *metrics_name(enum metrics_counter counter); /* "commit_timeout" */
