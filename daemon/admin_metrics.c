#include "admin_internal.h"

#include "hook_server.h"
#include "metrics.h"

#include <string.h>

/* The figures that the daemon holds in memory, as families of the metrics page. Every label value
 * that can be known is there from the start, at 0: what appears with its first failure has no rate
 * for it. docs/operations.md has the same list; a test compares the two.
 */

#define LABEL(n, v) ((struct admin_label) { (n), (v) })

/* --- the hook listener --- */

/* One sample: labels source and another. */
static void put_of_source(struct admin_text *t, size_t source, const char *label, const char *value,
			  uint64_t n)
{
	const struct admin_label labels[] = { LABEL("source", metrics_source_name(source)),
					      LABEL(label, value) };

	admin_text_sample(t, NULL, labels, ARRAY_SIZE(labels), (int64_t)n, 0);
}

static void put_deliveries(struct admin_text *t)
{
	admin_text_family(t, "e2b_hookd_deliveries_total", ADMIN_COUNTER,
			  "Deliveries answered, by source and outcome.");
	for (size_t s = 0; s < metrics_sources(); s++) {
		for (int o = 0; o < METRICS_N_OUTCOMES; o++)
			put_of_source(t, s, "outcome",
				      metrics_outcome_name((enum metrics_outcome)o),
				      metrics_deliveries(s, (enum metrics_outcome)o));
	}
}

/* Which reasons an outcome can have; a family may take several such ranges. */
static const struct reasons {
	const char *name, *help; /* NULL: more of the family before */
	enum metrics_outcome outcome;
	enum ingest_reason first, last;
} reasons[] = {
	{ "e2b_hookd_filtered_total", "Deliveries left out by a filter of their source.",
	  METRICS_OUTCOME_FILTERED, INGEST_REASON_EVENTS, INGEST_REASON_TEAMS },
	{ "e2b_hookd_quarantined_total",
	  "Signed deliveries that were not accepted as an event, kept aside.",
	  METRICS_OUTCOME_QUARANTINED, INGEST_REASON_NOT_ONE_OBJECT, INGEST_REASON_ID_REUSED },
	{ "e2b_hookd_rejections_total", "Deliveries answered 401 or 413.", METRICS_OUTCOME_REJECTED,
	  INGEST_REASON_SIGNATURE_MISSING, INGEST_REASON_SIGNATURE_EXPIRED },
	{ NULL, NULL, METRICS_OUTCOME_REJECTED, INGEST_REASON_NOT_ONE_OBJECT,
	  INGEST_REASON_NOT_ONE_OBJECT },
	{ NULL, NULL, METRICS_OUTCOME_TOO_LARGE, INGEST_REASON_BODY_TOO_LARGE,
	  INGEST_REASON_BODY_TOO_LARGE },
};

static void put_reasons(struct admin_text *t)
{
	for (const struct reasons *row = reasons; row < reasons + ARRAY_SIZE(reasons); row++) {
		if (row->name)
			admin_text_family(t, row->name, ADMIN_COUNTER, row->help);
		for (size_t s = 0; s < metrics_sources(); s++) {
			for (int r = (int)row->first; r <= (int)row->last; r++)
				put_of_source(
					t, s, "reason", ingest_reason_name((enum ingest_reason)r),
					metrics_reasons(s, row->outcome, (enum ingest_reason)r));
		}
	}
}

static void put_named(struct admin_text *t, const char *family, const char *help,
		      enum metrics_counter first, enum metrics_counter last)
{
	admin_text_family(t, family, ADMIN_COUNTER, help);
	for (int c = (int)first; c <= (int)last; c++)
		admin_text_sample(t, NULL, &LABEL("reason", metrics_name((enum metrics_counter)c)),
				  1, (int64_t)metrics_read((enum metrics_counter)c), 0);
}

static void put_answers(struct admin_text *t)
{
	static const struct {
		const char *code;
		enum metrics_counter counters[5];
		size_t n;
	} rows[] = {
		{ "200",
		  { METRICS_STORED, METRICS_DUPLICATE, METRICS_FILTERED, METRICS_QUARANTINED,
		    METRICS_HEALTHY },
		  5 },
		{ "400", { METRICS_BAD_REQUEST }, 1 },
		{ "401", { METRICS_UNAUTHORIZED }, 1 },
		{ "404", { METRICS_NOT_FOUND }, 1 },
		{ "405", { METRICS_METHOD_NOT_ALLOWED }, 1 },
		{ "408", { METRICS_TIMEOUT }, 1 },
		{ "413", { METRICS_TOO_LARGE }, 1 },
		{ "503", { METRICS_UNAVAILABLE }, 1 },
	};

	admin_text_family(t, "e2b_hookd_http_answers_total", ADMIN_COUNTER,
			  "Answers of the hook listener by status code, its health path included.");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		uint64_t sum = 0;

		for (size_t k = 0; k < rows[i].n; k++)
			sum += metrics_read(rows[i].counters[k]);
		admin_text_sample(t, NULL, &LABEL("code", rows[i].code), 1, (int64_t)sum, 0);
	}
}

static void put_counters(struct admin_text *t)
{
	static const struct {
		const char *name, *help;
		enum metrics_counter counter;
	} rows[] = {
		{ "e2b_hookd_deliveries_aborted_total",
		  "Deliveries whose sender left before its answer.", METRICS_ABORTED },
		{ "e2b_hookd_rejections_dropped_total",
		  "Deliveries answered 401 or 413 and not kept: too many at once.",
		  METRICS_REJECTION_DROPPED },
		{ "e2b_hookd_filtered_uncounted_total",
		  "Filtered deliveries that the store did not count: the queue was full.",
		  METRICS_FILTERED_UNCOUNTED },
		{ "e2b_hookd_connections_accepted_total", "Connections accepted.",
		  METRICS_CONNECTIONS },
		{ "e2b_hookd_connections_refused_total",
		  "Connections closed because their address had max_connections_per_ip.",
		  METRICS_CONNECTION_REFUSED },
		{ "e2b_hookd_accept_failures_total",
		  "Times that no connection could be accepted: out of descriptors or memory.",
		  METRICS_ACCEPT_FAILED },
		{ "e2b_hookd_commit_failures_total", "Batches that could not be written.",
		  METRICS_COMMIT_FAILED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		admin_text_one(t, rows[i].name, ADMIN_COUNTER, rows[i].help,
			       (int64_t)metrics_read(rows[i].counter), 0);
}

static void put_hooks(struct admin_text *t, const struct admin_health *h,
		      const struct hook_server *hooks)
{
	put_deliveries(t);
	put_reasons(t);
	put_named(t, "e2b_hookd_unavailable_total", "Answers of 503 by cause.",
		  METRICS_COMMIT_TIMEOUT, METRICS_STOPPING);
	put_named(t, "e2b_hookd_http_refused_total",
		  "Requests refused before they were a delivery.", METRICS_BAD_FRAMING,
		  METRICS_REQUEST_TIMEOUT);
	put_answers(t);
	put_counters(t);
	admin_text_one(t, "e2b_hookd_queue_depth", ADMIN_GAUGE,
		       "Deliveries that wait for their commit.", (int64_t)h->waiting, 0);
	admin_text_one(t, "e2b_hookd_queue_limit", ADMIN_GAUGE, "Setting queue_limit of [store].",
		       (int64_t)h->queue_limit, 0);
	if (!hooks)
		return;
	admin_text_one(t, "e2b_hookd_connections", ADMIN_GAUGE,
		       "Open connections of the hook listener.",
		       (int64_t)hook_server_connections(hooks), 0);
	admin_text_one(t, "e2b_hookd_body_memory_bytes", ADMIN_GAUGE,
		       "Memory of bodies received or waiting; 64 MiB is the limit.",
		       (int64_t)hook_server_body_memory(hooks), 0);
	admin_text_one(t, "e2b_hookd_http_stall_seconds", ADMIN_GAUGE,
		       "Since the slowest loop of the hook listener came round.",
		       hook_server_stalled_ms(hooks), 3);
}

/* --- events --- */

static void put_events(struct admin_text *t)
{
	admin_text_family(t, "e2b_hookd_events_total", ADMIN_COUNTER,
			  "New events stored, by kind.");
	for (int k = 0; k < EVENT_N_KINDS; k++)
		admin_text_sample(t, NULL, &LABEL("kind", event_kind_name((enum event_kind)k)), 1,
				  (int64_t)metrics_events((enum event_kind)k), 0);
	admin_text_family(t, "e2b_hookd_executions_total", ADMIN_COUNTER,
			  "New events of code executions stored, by status.");
	for (int s = 0; s <= EVENT_STATUS_KILLED; s++)
		admin_text_sample(t, NULL,
				  &LABEL("status", event_status_name((enum event_status)s)), 1,
				  (int64_t)metrics_executions((enum event_status)s), 0);
	admin_text_family(t, "e2b_hookd_last_event_timestamp_seconds", ADMIN_GAUGE,
			  "When the latest new event of a source came, in unix time; 0: none "
			  "known.");
	for (size_t s = 0; s < metrics_sources(); s++)
		admin_text_sample(t, NULL, &LABEL("source", metrics_source_name(s)), 1,
				  metrics_last_event_ms(s), 3);
}

/* The shortest text of a bound: `0.5`, `10`. */
static const char *bound_text(int64_t bound, unsigned int decimals, char buf[static 32])
{
	int64_t unit = 1;
	size_t len;

	for (unsigned int i = 0; i < decimals; i++)
		unit *= 10;
	(void)snprintf(buf, 32, "%lld", (long long)(bound / unit));
	if (bound % unit == 0)
		return buf;
	len = strlen(buf);
	(void)snprintf(buf + len, 32 - len, ".%0*lld", (int)decimals, (long long)(bound % unit));
	for (len = strlen(buf); buf[len - 1] == '0'; len--)
		buf[len - 1] = '\0';
	return buf;
}

static void put_histogram(struct admin_text *t, enum metrics_histogram which, const char *name,
			  const char *help, unsigned int decimals)
{
	struct metrics_buckets b;
	uint64_t so_far = 0;

	metrics_buckets(which, &b);
	admin_text_family(t, name, ADMIN_HISTOGRAM, help);
	for (size_t i = 0; i <= b.n; i++) {
		char text[32];
		const char *bound = i < b.n ? bound_text(b.bounds[i], decimals, text) : "+Inf";

		so_far += b.counts[i];
		admin_text_sample(t, "_bucket", &LABEL("le", bound), 1, (int64_t)so_far, 0);
	}
	admin_text_sample(t, "_sum", NULL, 0, (int64_t)b.sum, decimals);
	admin_text_sample(t, "_count", NULL, 0, (int64_t)b.total, 0);
}

static void put_histograms(struct admin_text *t)
{
	put_histogram(t, METRICS_EVENT_AGE, "e2b_hookd_event_age_seconds",
		      "Age of new events on arrival: received less its own time.", 3);
	put_histogram(t, METRICS_BATCH_SIZE, "e2b_hookd_commit_batch_deliveries",
		      "Deliveries written in one transaction.", 0);
	put_histogram(t, METRICS_COMMIT_TIME, "e2b_hookd_commit_duration_seconds",
		      "Time to write a batch of deliveries and make it durable.", 6);
}

/* --- the store, as the writer publishes it --- */

struct simple {
	const char *name;
	enum admin_type type;
	const char *help;
	int64_t value;
	unsigned int decimals;
};

static void put_all(struct admin_text *t, const struct simple *rows, size_t n)
{
	for (size_t i = 0; i < n; i++)
		admin_text_one(t, rows[i].name, rows[i].type, rows[i].help, rows[i].value,
			       rows[i].decimals);
}

static void put_writer(struct admin_text *t, const struct writer_health *w)
{
	const struct simple rows[] = {
		{ "e2b_hookd_last_commit_timestamp_seconds", ADMIN_GAUGE,
		  "When deliveries were last committed, in unix time; 0: not since the start.",
		  w->last_commit_unix_ms, 3 },
		{ "e2b_hookd_last_commit_failed", ADMIN_GAUGE,
		  "1: the last attempt to commit failed.", w->last_error < 0, 0 },
		{ "e2b_hookd_database_bytes", ADMIN_GAUGE, "Size of the database file.",
		  w->stats.database_bytes, 0 },
		{ "e2b_hookd_wal_bytes", ADMIN_GAUGE, "Size of the write-ahead log.",
		  w->stats.wal_bytes, 0 },
		{ "e2b_hookd_ledger_lag_events", ADMIN_GAUGE,
		  "Stored events that the ledger does not hold yet.",
		  base_max_i64(w->stored_seq - w->folded_seq, 0), 0 },
		{ "e2b_hookd_skipped_events", ADMIN_GAUGE,
		  "Events that the ledger failed on; kept, waiting for a requeue.", w->skipped, 0 },
		{ "e2b_hookd_rebuild_running", ADMIN_GAUGE, "1: the ledger is being rebuilt.",
		  w->rebuilding, 0 },
		{ "e2b_hookd_rebuild_failed", ADMIN_GAUGE,
		  "1: the last rebuild since the start was given up.", w->rebuild_error < 0, 0 },
		{ "e2b_hookd_prune_waiting", ADMIN_GAUGE,
		  "1: the clock jumped, pruning waits for e2b-hookctl prune.", w->prune_waits, 0 },
		{ "e2b_hookd_pruned_events_total", ADMIN_COUNTER,
		  "Events that retention took away.", w->pruned_events, 0 },
		{ "e2b_hookd_pruned_sandboxes_total", ADMIN_COUNTER,
		  "Sandboxes that retention took away.", w->pruned_sandboxes, 0 },
	};

	put_all(t, rows, ARRAY_SIZE(rows));
	/* Left out where the file system would not say. */
	if (w->stats.free_bytes >= 0)
		admin_text_one(t, "e2b_hookd_disk_free_bytes", ADMIN_GAUGE,
			       "Free room of the file system that holds the store.",
			       w->stats.free_bytes, 0);
}

static void put_alerts(struct admin_text *t, const struct alert_figures *a)
{
	const struct simple rows[] = {
		{ "e2b_hookd_alerts_firing", ADMIN_GAUGE, "Alerts that fire now.", a->firing, 0 },
		{ "e2b_hookd_alerts_fired_total", ADMIN_COUNTER, "Alerts that began to fire.",
		  a->fired, 0 },
		{ "e2b_hookd_alerts_resolved_total", ADMIN_COUNTER, "Alerts that resolved.",
		  a->resolved, 0 },
		{ "e2b_hookd_notifications_sent_total", ADMIN_COUNTER,
		  "Notifications that a target took.", a->sent, 0 },
		{ "e2b_hookd_notification_attempts_failed_total", ADMIN_COUNTER,
		  "Attempts to bring a notification to a target that failed.", a->failed_attempts,
		  0 },
		{ "e2b_hookd_notifications_failed_total", ADMIN_COUNTER,
		  "Notifications given up: refused, or not taken for 24 h.", a->given_up, 0 },
		{ "e2b_hookd_notifications_waiting", ADMIN_GAUGE,
		  "Notifications that no target took yet.", a->waiting, 0 },
		{ "e2b_hookd_notification_oldest_timestamp_seconds", ADMIN_GAUGE,
		  "When the oldest of these was made, in unix time; 0: none waits.",
		  a->oldest_unsent_ms, 3 },
	};

	put_all(t, rows, ARRAY_SIZE(rows));
}

/* --- the daemon --- */

static void put_ready(struct admin_text *t, const struct admin_health *h)
{
	admin_text_one(t, "e2b_hookd_ready", ADMIN_GAUGE, "1: /readyz answers 200.",
		       admin_health_is_ready(h), 0);
	admin_text_family(t, "e2b_hookd_not_ready", ADMIN_GAUGE,
			  "1 for each reason that makes /readyz answer 503.");
	for (int r = 0; r < ADMIN_N_REASONS; r++)
		admin_text_sample(t, NULL,
				  &LABEL("reason", admin_health_name((enum admin_reason)r)), 1,
				  admin_health_has(h, (enum admin_reason)r), 0);
}

static void put_config(struct admin_text *t, const struct config *config)
{
	const struct simple rows[] = {
		{ "e2b_hookd_wal_limit_bytes", ADMIN_GAUGE, "Setting wal_limit of [store].",
		  config->store.wal_limit, 0 },
		{ "e2b_hookd_corrupt_stores", ADMIN_GAUGE,
		  "Damaged stores that were set aside and lay beside the store at the start.",
		  metrics_get(METRICS_CORRUPT_STORES), 0 },
		{ "e2b_hookd_config_reload_failed", ADMIN_GAUGE,
		  "1: the last reload was refused, the configuration before it is in force.",
		  metrics_get(METRICS_RELOAD_FAILED), 0 },
		{ "e2b_hookd_config_reload_timestamp_seconds", ADMIN_GAUGE,
		  "When the configuration in force was loaded, in unix time.",
		  metrics_get(METRICS_CONFIG_LOADED_MS), 3 },
		{ "e2b_hookd_config_restart_needed", ADMIN_GAUGE,
		  "Changed settings that wait for a restart.", metrics_get(METRICS_RESTART_NEEDED),
		  0 },
	};

	put_all(t, rows, ARRAY_SIZE(rows));
}

void admin_metrics_put(struct admin_text *t, const struct admin_health *h,
		       const struct hook_server *hooks, const struct config *config)
{
	admin_text_family(t, "e2b_hookd_build_info", ADMIN_GAUGE, "1, with the version.");
	admin_text_sample(t, NULL, &LABEL("version", HOOKD_VERSION), 1, 1, 0);
	put_ready(t, h);
	put_hooks(t, h, hooks);
	put_events(t);
	put_histograms(t);
	put_writer(t, &h->writer);
	put_alerts(t, &h->writer.alerts);
	put_config(t, config);
}
