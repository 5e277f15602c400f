#include "metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* Relaxed atomics: a counter orders nothing. It never goes back; a restart begins at zero, as
 * Prometheus expects of a counter.
 *
 * The table of sources grows under a lock and is read without: a name is written before the count
 * that makes it visible, and never changes.
 */

#define NAME_MAX_LEN 64
#define OTHER "_other"

typedef atomic_uint_fast64_t counter;

struct source {
	char name[NAME_MAX_LEN + 1];
	counter outcomes[METRICS_N_OUTCOMES];
	counter reasons[METRICS_N_OUTCOMES][INGEST_N_REASONS];
	atomic_int_fast64_t last_event_ms;
};

static counter counters[METRICS_N_COUNTERS];
static counter kinds[EVENT_N_KINDS];
static counter statuses[EVENT_STATUS_KILLED + 1];
static atomic_int_fast64_t gauges[METRICS_N_GAUGES];

static struct source sources[METRICS_SOURCES_MAX];
static atomic_size_t n_sources;
static pthread_mutex_t sources_lock = PTHREAD_MUTEX_INITIALIZER; /* adding */

static void add(counter *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static uint64_t read_one(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

void metrics_count(enum metrics_counter which)
{
	add(&counters[which], 1);
}

uint64_t metrics_read(enum metrics_counter which)
{
	return read_one(&counters[which]);
}

const char *metrics_name(enum metrics_counter which)
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
		[METRICS_STORE_FAILED] = "store_failed",
		[METRICS_QUARANTINE_FULL] = "quarantine_full",
		[METRICS_OUT_OF_MEMORY] = "out_of_memory",
		[METRICS_JUDGING_FAILED] = "judging_failed",
		[METRICS_STOPPING] = "stopping",
		[METRICS_REJECTION_DROPPED] = "rejection_dropped",
		[METRICS_FILTERED_UNCOUNTED] = "filtered_uncounted",
		[METRICS_ABORTED] = "aborted",
		[METRICS_CONNECTIONS] = "connections",
		[METRICS_CONNECTION_REFUSED] = "connection_refused",
		[METRICS_ACCEPT_FAILED] = "accept_failed",
		[METRICS_COMMIT_FAILED] = "commit_failed",
	};

	return names[which];
}

/* --- sources --- */

const char *metrics_outcome_name(enum metrics_outcome outcome)
{
	static const char *const names[METRICS_N_OUTCOMES] = {
		[METRICS_OUTCOME_STORED] = "stored",
		[METRICS_OUTCOME_DUPLICATE] = "duplicate",
		[METRICS_OUTCOME_FILTERED] = "filtered",
		[METRICS_OUTCOME_QUARANTINED] = "quarantined",
		[METRICS_OUTCOME_REJECTED] = "rejected",
		[METRICS_OUTCOME_TOO_LARGE] = "too_large",
		[METRICS_OUTCOME_UNAVAILABLE] = "unavailable",
	};

	return names[outcome];
}

size_t metrics_sources(void)
{
	return atomic_load_explicit(&n_sources, memory_order_acquire);
}

const char *metrics_source_name(size_t source)
{
	return sources[source].name;
}

static size_t find_source(const char *name)
{
	size_t n = metrics_sources();

	for (size_t i = 0; i < n; i++) {
		if (strcmp(sources[i].name, name) == 0)
			return i;
	}
	return METRICS_SOURCES_MAX;
}

/* The last place is kept for all that would come after it. */
static size_t add_source(const char *name)
{
	size_t at = find_source(name), n = metrics_sources();
	bool fits = n < METRICS_SOURCES_MAX - 1 && strlen(name) <= NAME_MAX_LEN;

	if (at < METRICS_SOURCES_MAX)
		return at;
	if (n == METRICS_SOURCES_MAX)
		return n - 1;
	(void)snprintf(sources[n].name, sizeof(sources[n].name), "%s", fits ? name : OTHER);
	atomic_store_explicit(&n_sources, n + 1, memory_order_release);
	return n;
}

size_t metrics_source(const char *name)
{
	size_t at = find_source(name);

	if (at < METRICS_SOURCES_MAX)
		return at;
	(void)pthread_mutex_lock(&sources_lock);
	at = add_source(name);
	(void)pthread_mutex_unlock(&sources_lock);
	return at;
}

void metrics_count_delivery(size_t source, enum metrics_outcome outcome, enum ingest_reason reason)
{
	add(&sources[source].outcomes[outcome], 1);
	add(&sources[source].reasons[outcome][reason], 1);
}

uint64_t metrics_deliveries(size_t source, enum metrics_outcome outcome)
{
	return read_one(&sources[source].outcomes[outcome]);
}

uint64_t metrics_reasons(size_t source, enum metrics_outcome outcome, enum ingest_reason reason)
{
	return read_one(&sources[source].reasons[outcome][reason]);
}

void metrics_count_event(size_t source, const struct event *event, int64_t received_unix_ms)
{
	add(&kinds[event->kind], 1);
	if (event->kind == EVENT_CODE_EXECUTED)
		add(&statuses[event->execution.status], 1);
	metrics_observe(METRICS_EVENT_AGE,
			received_unix_ms - event->time_unix_ns / INT64_C(1000000));
	metrics_see_event(source, received_unix_ms);
}

uint64_t metrics_events(enum event_kind kind)
{
	return read_one(&kinds[kind]);
}

uint64_t metrics_executions(enum event_status status)
{
	return read_one(&statuses[status]);
}

void metrics_see_event(size_t source, int64_t received_unix_ms)
{
	atomic_int_fast64_t *last = &sources[source].last_event_ms;
	int_fast64_t known = atomic_load_explicit(last, memory_order_relaxed);

	while (known < received_unix_ms &&
	       !atomic_compare_exchange_weak_explicit(last, &known, received_unix_ms,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

int64_t metrics_last_event_ms(size_t source)
{
	return atomic_load_explicit(&sources[source].last_event_ms, memory_order_relaxed);
}

/* --- histograms --- */

static const struct {
	size_t n;
	int64_t bounds[METRICS_BUCKETS_MAX];
} scales[METRICS_N_HISTOGRAMS] = {
	[METRICS_EVENT_AGE] = { 12,
				{ 500, 1000, 2000, 5000, 10000, 30000, 60000, 300000, 900000,
				  3600000, 21600000, 86400000 } },
	[METRICS_BATCH_SIZE] = { 10, { 1, 2, 4, 8, 16, 32, 64, 128, 256, 512 } },
	[METRICS_COMMIT_TIME] = { 14,
				  { 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
				    500000, 1000000, 2500000, 5000000, 10000000 } },
};

static struct {
	counter counts[METRICS_BUCKETS_MAX + 1];
	counter sum;
} histograms[METRICS_N_HISTOGRAMS];

void metrics_observe(enum metrics_histogram histogram, int64_t value)
{
	size_t i = 0;

	value = base_max_i64(value, 0);
	while (i < scales[histogram].n && value > scales[histogram].bounds[i])
		i++;
	add(&histograms[histogram].counts[i], 1);
	add(&histograms[histogram].sum, (uint64_t)value);
}

void metrics_buckets(enum metrics_histogram histogram, struct metrics_buckets *ret)
{
	*ret = (struct metrics_buckets) { .n = scales[histogram].n };
	ret->sum = read_one(&histograms[histogram].sum);
	for (size_t i = 0; i <= ret->n; i++) {
		ret->counts[i] = read_one(&histograms[histogram].counts[i]);
		ret->total += ret->counts[i];
		if (i < ret->n)
			ret->bounds[i] = scales[histogram].bounds[i];
	}
}

/* --- gauges --- */

void metrics_set(enum metrics_gauge gauge, int64_t value)
{
	atomic_store_explicit(&gauges[gauge], value, memory_order_relaxed);
}

int64_t metrics_get(enum metrics_gauge gauge)
{
	return atomic_load_explicit(&gauges[gauge], memory_order_relaxed);
}
