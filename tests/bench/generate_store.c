/* Fills a new store with events of ninety days, through the real engine: bodies are judged, put in
 * large batches that are not durable, and folded as they come. Measures what the store costs.
 *
 * Usage: generate_store [--events N] [--days N] [--open N] [--seed N] [--until UNIX] PATH
 *
 * It skips signatures, HTTP and the writer: how fast the daemon takes deliveries is measured
 * elsewhere (load.c).
 */
#include "traffic.h"

#include "clock.h"
#include "config.h"
#include "projector.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define BATCH 4000
/* Events. Rarely, so that a page that is changed again and again is moved once. */
#define DAY_MS INT64_C(86400000)
#define SAY_EVERY INT64_C(1000000)
#define EVENTS_MIN 1000 /* fewer tell nothing */

static const char config_text[] = "[store]\nretention = 0\nledger_retention = 0\n"
				  "[source e2b]\npath = /webhooks/e2b\nsecret_file = /nonexistent\n"
				  "[source executors]\npath = /webhooks/executors\n"
				  "signature = hmac-sha256\nsecret_file = /nonexistent\n";

struct generator {
	struct traffic_options options;
	int64_t days;
	const char *path;
	struct config *config;
	struct traffic *traffic;
	struct storage *storage;
	struct projector *projector;
	int64_t n_events, body_bytes, begun_ms;
};

static int complain(const struct generator *g, const char *what, int error)
{
	(void)fprintf(stderr, "generate_store: %s: %s %s\n", what, strerror(-error),
		      g->storage ? storage_error(g->storage) : "");
	return error;
}

static bool parse_arguments(struct generator *g, int argc, char **argv)
{
	static const struct option options[] = {
		{ "events", required_argument, NULL, 'e' },
		{ "days", required_argument, NULL, 'd' },
		{ "open", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' },
		{ "until", required_argument, NULL, 'u' },
		{ NULL, 0, NULL, 0 },
	};
	g->options = (struct traffic_options) {
		.events = 1000000,
		.open = -1,
		.until_unix_ms = clock_unix_ms(),
		.seed = 1,
	};
	g->days = 90;
	int c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		int64_t number = optarg ? strtoll(optarg, NULL, 10) : -1;
		if (c == '?' || number < 0)
			return false;
		if (c == 'e')
			g->options.events = number;
		else if (c == 'd')
			g->days = number;
		else if (c == 'o')
			g->options.open = number;
		else if (c == 's')
			g->options.seed = (uint64_t)number;
		else
			g->options.until_unix_ms = number * 1000;
	}
	if (g->options.open < 0)
		g->options.open = base_min_i64(1200, g->options.events / 100);
	g->options.from_unix_ms = g->options.until_unix_ms - g->days * DAY_MS;
	g->path = argv[optind];
	return optind + 1 == argc && g->days > 0 && g->options.events >= EVENTS_MIN;
}

static int begin(struct generator *g)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	char error[STORAGE_ERROR_MAX];
	if (access(g->path, F_OK) == 0)
		return complain(g, g->path, -EEXIST);
	int r = config_load_text("generate_store", config_text, strlen(config_text),
				 CONFIG_SECRETS_IGNORED, &g->config, &report);
	if (r != 0)
		return complain(g, r > 0 ? report.items[0].text : "configuration", -EINVAL);
	const struct storage_options options = {
		.path = g->path,
		.wal_limit = INT64_C(1) << 30,
		.quarantine_rows_max = 10,
		.quarantine_bytes_max = 1 << 20,
		.rejection_rows_max = 10,
		.rejection_bytes_max = 1 << 20,
		.rejection_age_max_ms = DAY_MS,
	};
	r = storage_open(&options, &g->storage, error);
	if (r < 0)
		return complain(g, error, r);
	r = projector_new(g->storage, &g->projector);
	if (r == 0)
		r = traffic_new(&g->options, &g->traffic);
	if (r < 0)
		return complain(g, "cannot begin", r);
	projector_set_config(g->projector, g->config);
	return 0;
}

static int put(struct generator *g, const struct traffic_delivery *d)
{
	static const struct ingest_policy all;
	CLEANUP(ingest_result_finish) struct ingest_result judged = { 0 };
	int r = ingest_judge_body(&judged, &all, &g->config->lookup, d->body, d->received_unix_ms,
				  0);
	if (r < 0)
		return complain(g, "judging", r);
	const struct storage_delivery delivery = {
		.source = d->source,
		.webhook_id = d->webhook_id,
		.delivery_id = d->delivery_id,
		.remote_addr = "192.0.2.7",
		.received_unix_ms = d->received_unix_ms,
		.body = d->body,
		.body_len = (int64_t)d->body.len,
		.judged = &judged,
	};
	enum storage_outcome outcome;
	enum ingest_reason reason;
	r = storage_put(g->storage, &delivery, &outcome, &reason);
	if (r < 0)
		return complain(g, "storing", r);
	if (outcome != STORAGE_STORED)
		return complain(g, judged.detail, -EBADMSG);
	g->n_events++;
	g->body_bytes += (int64_t)d->body.len;
	return 0;
}

/* TRAFFIC_MORE: there is more to come. */
static int put_batch(struct generator *g)
{
	int r = storage_begin(g->storage, false);
	if (r < 0)
		return complain(g, "storing", r);
	int more = TRAFFIC_MORE;
	for (int i = 0; i < BATCH && r == 0 && more == TRAFFIC_MORE; i++) {
		struct traffic_delivery delivery;
		more = traffic_next(g->traffic, &delivery);
		if (more == TRAFFIC_MORE)
			r = put(g, &delivery);
	}
	if (r < 0 || more < 0)
		return r < 0 ? r : complain(g, "making events", more);
	r = storage_commit(g->storage);
	return r < 0 ? complain(g, "storing", r) : more;
}

static int fold(struct generator *g)
{
	bool more = true;
	while (more) {
		int r = projector_step(g->projector, INT64_MAX / 2, 1000000, &more);
		if (r < 0)
			return complain(g, "folding", r);
	}
	return 0;
}

static void say_progress(const struct generator *g, int64_t before)
{
	if (g->n_events / SAY_EVERY == before / SAY_EVERY)
		return;
	(void)fprintf(stderr, "%9" PRId64 " events, %" PRId64 " s\n", g->n_events,
		      (clock_mono_ms() - g->begun_ms) / 1000);
}

static int fill(struct generator *g)
{
	int more = TRAFFIC_MORE;
	while (more == TRAFFIC_MORE) {
		int64_t before = g->n_events;
		more = put_batch(g);
		if (more < 0)
			return more;
		int r = fold(g);
		while (r == 0 && storage_wants_upkeep(g->storage))
			r = storage_maintain(g->storage);
		while (r == 0 && storage_wants_learning(g->storage))
			r = storage_learn(g->storage);
		if (r < 0)
			return r;
		say_progress(g, before);
	}
	struct storage_position at;
	int r = storage_position(g->storage, &at);
	if (r == 0 && (at.folded_seq != g->n_events || at.skipped != 0))
		r = -EBADMSG;
	return r < 0 ? complain(g, "the ledger does not hold all", r) : 0;
}

static void finish(struct generator *g)
{
	traffic_free(g->traffic);
	projector_free(g->projector);
	storage_close(g->storage); /* the last connection: moves the write-ahead log in */
	config_unref(g->config);
}

static int report(const struct generator *g, int64_t took_ms)
{
	struct stat st;
	if (stat(g->path, &st) < 0)
		return complain(g, g->path, -errno);
	double n = (double)g->n_events;
	printf("events            %" PRId64 "\n", g->n_events);
	printf("events/s          %.0f\n", n * 1000 / (double)base_max_i64(took_ms, 1));
	printf("file bytes        %" PRId64 "\n", (int64_t)st.st_size);
	printf("body bytes/event  %.1f\n", (double)g->body_bytes / n);
	printf("store bytes/event %.1f beyond the body\n",
	       (double)(st.st_size - g->body_bytes) / n);
	return 0;
}

int main(int argc, char **argv)
{
	struct generator g = { 0 };
	if (!parse_arguments(&g, argc, argv)) {
		(void)fprintf(stderr, "Usage: generate_store [--events N] [--days N] [--open N] "
				      "[--seed N] [--until UNIX] PATH\n");
		return 2;
	}
	int r = begin(&g);
	g.begun_ms = clock_mono_ms();
	if (r == 0)
		r = fill(&g);
	int64_t took_ms = clock_mono_ms() - g.begun_ms;
	finish(&g);
	if (r == 0)
		r = report(&g, took_ms);
	return r < 0;
}
