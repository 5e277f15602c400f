#include "metrics.h"

#include <stdatomic.h>

/* Relaxed atomics: a counter orders nothing. It never goes back; a restart begins at zero, as
 * Prometheus expects of a counter.
 */

static atomic_uint_fast64_t counters[METRICS_N_COUNTERS];

void metrics_count(enum metrics_counter counter)
{
	atomic_fetch_add_explicit(&counters[counter], 1, memory_order_relaxed);
}

uint64_t metrics_read(enum metrics_counter counter)
{
	return atomic_load_explicit(&counters[counter], memory_order_relaxed);
}

const char *metrics_name(enum metrics_counter counter)
{
	static const char *const names[METRICS_N_COUNTERS] = {
		[METRICS_STORED] = "stored",
		[METRICS_DUPLICATE] = "duplicate",
		[METRICS_FILTERED] = "filtered",
		[METRICS_QUARANTINED] = "quarantined",
		[METRICS_HEALTHY] = "healthy",
		[METRICS_BAD_REQUEST] = "bad_request",
		[METRICS_UNAUTHORIZED] = "unauthorized",
		[METRICS_NOT_FOUND] = "not_found",
		[METRICS_METHOD_NOT_ALLOWED] = "method_not_allowed",
		[METRICS_TIMEOUT] = "timeout",
		[METRICS_TOO_LARGE] = "too_large",
		[METRICS_UNAVAILABLE] = "unavailable",
		[METRICS_BAD_FRAMING] = "bad_framing",
		[METRICS_HEADER_TIMEOUT] = "header_timeout",
		[METRICS_REQUEST_TIMEOUT] = "request_timeout",
		[METRICS_COMMIT_TIMEOUT] = "commit_timeout",
		[METRICS_QUEUE_FULL] = "queue_full",
		[METRICS_BODY_MEMORY_FULL] = "body_memory_full",
		[METRICS_REJECTION_DROPPED] = "rejection_dropped",
		[METRICS_FILTERED_UNCOUNTED] = "filtered_uncounted",
		[METRICS_ABORTED] = "aborted",
		[METRICS_CONNECTIONS] = "connections",
		[METRICS_CONNECTION_REFUSED] = "connection_refused",
		[METRICS_ACCEPT_FAILED] = "accept_failed",
	};

	return names[counter];
}
