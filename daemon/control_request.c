/* A request: reading its line, by tables, and carrying it out.
 *
 * Reading is pure and repeats no input in an error, so that nothing of it gets into a log or a
 * terminal. Carrying out asks the writer and follows its health figures: rebuild and prune belong
 * to the writer and go on without the client; requeue runs here, one at a time.
 */
#include "control_internal.h"

#include "admin_health.h"
#include "clock.h"
#include "config.h"
#include "json.h"
#include "log.h"
#include "metrics.h"
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define LOOK_MS 100 /* how often a waiting command looks at the health figures */
#define TELL_MS 1000 /* and says how far it is, changed or not */

static const struct {
	const char *name;
	unsigned int keys; /* 1 << the place in `keys` */
	bool needs_name;
} commands[] = {
	[CONTROL_STATUS] = { "status" },
	[CONTROL_REBUILD] = { "rebuild" },
	[CONTROL_PRUNE] = { "prune" },
	[CONTROL_REQUEUE] = { "requeue", 7 },
	[CONTROL_ALERT_TEST] = { "alert-test", 8, true },
	[CONTROL_ALERT_ACK] = { "alert-ack", 8, true },
	[CONTROL_ALERT_RETRY] = { "alert-retry", 8 },
};

static const struct {
	const char *name;
	unsigned int what;
} whats[] = {
	{ "all", REQUEUE_ALL },
	{ "quarantine", REQUEUE_QUARANTINE },
	{ "rejections", REQUEUE_REJECTIONS },
	{ "skipped", REQUEUE_SKIPPED },
};

const char *control_command_name(enum control_command command)
{
	return commands[command].name;
}

static int refuse(char error[static CONTROL_TEXT_MAX], const char *text)
{
	(void)snprintf(error, CONTROL_TEXT_MAX, "%s", text);
	return CONTROL_BAD_REQUEST;
}

static bool is_text(struct span span, const char *text)
{
	return span.len == strlen(text) && memcmp(span.s, text, span.len) == 0;
}

/* Keys ------------------------------------------------------------------------ */

static int read_source(struct control_request *ret, struct span value,
		       char error[static CONTROL_TEXT_MAX])
{
	if (value.len > CONTROL_SOURCE_MAX)
		return refuse(error, "source: longer than any name of a source");
	memcpy(ret->source, value.s, value.len);
	ret->source[value.len] = '\0';
	return 0;
}

static int read_name(struct control_request *ret, struct span value,
		     char error[static CONTROL_TEXT_MAX])
{
	if (value.len > CONTROL_SOURCE_MAX)
		return refuse(error, "name: longer than any name of a rule or target");
	memcpy(ret->name, value.s, value.len);
	ret->name[value.len] = '\0';
	return 0;
}

static int refuse_reason(char error[static CONTROL_TEXT_MAX])
{
	int len = snprintf(error, CONTROL_TEXT_MAX, "reason: one of");
	for (int i = INGEST_REASON_NOT_ONE_OBJECT; i < INGEST_N_REASONS; i++) {
		const char *name = ingest_reason_name((enum ingest_reason)i);
		len += snprintf(error + len, (size_t)(CONTROL_TEXT_MAX - len), "%s %s",
				i > INGEST_REASON_NOT_ONE_OBJECT ? "," : "", name);
		assert(len < CONTROL_TEXT_MAX);
	}
	return CONTROL_BAD_REQUEST;
}

static int read_reason(struct control_request *ret, struct span value,
		       char error[static CONTROL_TEXT_MAX])
{
	for (int i = INGEST_REASON_NOT_ONE_OBJECT; i < INGEST_N_REASONS; i++) {
		if (!is_text(value, ingest_reason_name((enum ingest_reason)i)))
			continue;
		ret->reason = (enum ingest_reason)i;
		return 0;
	}
	return refuse_reason(error);
}

static int read_what(struct control_request *ret, struct span value,
		     char error[static CONTROL_TEXT_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(whats); i++) {
		if (!is_text(value, whats[i].name))
			continue;
		ret->what = whats[i].what;
		return 0;
	}
	return refuse(error, "what: one of quarantine, rejections, skipped, all");
}

static const struct {
	const char *name;
	int (*read)(struct control_request *ret, struct span value,
		    char error[static CONTROL_TEXT_MAX]);
} keys[] = {
	{ "source", read_source },
	{ "reason", read_reason },
	{ "what", read_what },
	{ "name", read_name },
};

static int read_key(struct control_request *ret, struct span word, unsigned int *seen,
		    char error[static CONTROL_TEXT_MAX])
{
	const char *equals = memchr(word.s, '=', word.len);
	if (!equals)
		return refuse(error, "after the command: key=value");
	struct span key = { word.s, (size_t)(equals - word.s) };
	struct span value = { equals + 1, word.len - key.len - 1 };
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		if (!is_text(key, keys[i].name) || !(commands[ret->command].keys & 1u << i))
			continue;
		if (*seen & 1u << i)
			return refuse(error, "the same key twice");
		if (value.len == 0)
			return refuse(error, "a key without a value: leave it out");
		*seen |= 1u << i;
		return keys[i].read(ret, value, error);
	}
	return refuse(
		error,
		"unknown key: requeue takes source, reason, what; alert-test, -ack, -retry name");
}

/* The line -------------------------------------------------------------------- */

static bool is_printable(const char *line, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (line[i] < ' ' || line[i] > '~')
			return false;
	return true;
}

/* The next word and what is behind it; length 0 at the end. */
static struct span next_word(struct span *rest)
{
	while (rest->len && *rest->s == ' ') {
		rest->s++;
		rest->len--;
	}
	struct span word = { rest->s, 0 };
	while (word.len < rest->len && word.s[word.len] != ' ')
		word.len++;
	rest->s += word.len;
	rest->len -= word.len;
	return word;
}

static int read_command(struct control_request *ret, struct span word,
			char error[static CONTROL_TEXT_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!is_text(word, commands[i].name))
			continue;
		ret->command = (enum control_command)i;
		return 0;
	}
	return refuse(error, "unknown command: one of status, rebuild, prune, requeue, alert-test, "
			     "alert-ack, alert-retry");
}

int control_parse(const char *line, size_t len, struct control_request *ret,
		  char error[static CONTROL_TEXT_MAX])
{
	*ret = (struct control_request) { .what = REQUEUE_ALL };
	error[0] = '\0';
	if (len >= CONTROL_REQUEST_MAX)
		return refuse(error, "a request has at most 4 KiB");
	if (!is_printable(line, len))
		return refuse(error, "a request is one line of printable ASCII");
	struct span rest = { line, len };
	unsigned int seen = 0;
	int r = read_command(ret, next_word(&rest), error);
	for (struct span word; r == 0 && (word = next_word(&rest)).len > 0;) {
		if (!commands[ret->command].keys)
			return refuse(error, "this command takes nothing behind it");
		r = read_key(ret, word, &seen, error);
	}
	if (r == 0 && commands[ret->command].needs_name && !*ret->name)
		return refuse(error, "this command needs name=NAME");
	if (r == 0 && ret->reason != INGEST_REASON_NONE && ret->what == REQUEUE_SKIPPED)
		return refuse(error, "skipped events have no reason: leave it out");
	return r;
}

/* Carrying out ------------------------------------------------------------------ */

typedef void (*tell_fn)(const struct writer_health *h, char text[static CONTROL_TEXT_MAX]);

/* Waits until the writer is through with `what`, telling the client how far it is. */
static int follow(struct control_talk *t, bool (*is_busy)(const struct writer_health *h),
		  tell_fn tell, struct writer_health *ret)
{
	int64_t told_ms = 0;
	for (;;) {
		writer_health(t->c->writer, ret);
		if (!is_busy(ret))
			return 0;
		int64_t now_ms = clock_mono_ms();
		char text[CONTROL_TEXT_MAX];
		tell(ret, text);
		if (now_ms - told_ms >= TELL_MS) {
			told_ms = now_ms;
			int r = control_say(t, "progress %s", text);
			if (r < 0)
				return r;
		}
		int r = control_wait(t, 0, now_ms + LOOK_MS);
		if (r != -ETIMEDOUT)
			return r;
	}
}

static bool is_rebuilding(const struct writer_health *h)
{
	return h->rebuilding;
}

static void tell_rebuild(const struct writer_health *h, char text[static CONTROL_TEXT_MAX])
{
	(void)snprintf(text, CONTROL_TEXT_MAX, "folded %" PRId64 " of %" PRId64, h->rebuild_seq,
		       h->rebuild_target_seq);
}

static int do_rebuild(struct control_talk *t, const struct control_request *request)
{
	struct writer_health h;
	int64_t begun_ms = clock_mono_ms();
	writer_request_rebuild(t->c->writer);
	int r = follow(t, is_rebuilding, tell_rebuild, &h);
	if (r < 0)
		return r;
	if (h.rebuild_error < 0)
		return control_say(
			t,
			"error the rebuild was given up and the ledger is as it was: %s; "
			"the daemon's log names the event",
			strerror(-h.rebuild_error));
	return control_say(t, "ok {\"folded_seq\":%" PRId64 ",\"took_ms\":%" PRId64 "}",
			   h.folded_seq, clock_mono_ms() - begun_ms);
}

static bool is_pruning(const struct writer_health *h)
{
	return h->pruning;
}

static void tell_prune(const struct writer_health *h, char text[static CONTROL_TEXT_MAX])
{
	(void)snprintf(text, CONTROL_TEXT_MAX,
		       "pruned %" PRId64 " events, %" PRId64 " sandboxes since start",
		       h->pruned_events, h->pruned_sandboxes);
}

static int do_prune(struct control_talk *t, const struct control_request *request)
{
	struct writer_health before, after;
	writer_health(t->c->writer, &before);
	writer_request_prune(t->c->writer);
	int r = follow(t, is_pruning, tell_prune, &after);
	if (r < 0)
		return r;
	return control_say(t, "ok {\"pruned_events\":%" PRId64 ",\"pruned_sandboxes\":%" PRId64 "}",
			   after.pruned_events - before.pruned_events,
			   after.pruned_sandboxes - before.pruned_sandboxes);
}

const struct config *control_config(struct control *c)
{
	(void)pthread_mutex_lock(&c->lock);
	const struct config *config = config_ref((struct config *)c->config);
	(void)pthread_mutex_unlock(&c->lock);
	return config;
}

struct requeue_talk {
	struct control_talk *t;
	int64_t told_ms;
	int status; /* why it was ended */
};

static int tell_requeue(void *ctx, const struct requeue_counts *n)
{
	struct requeue_talk *talk = ctx;
	talk->status = control_wait(talk->t, 0, 0);
	if (talk->status != -ETIMEDOUT)
		return 1;
	if (clock_mono_ms() - talk->told_ms < TELL_MS)
		return 0;
	talk->told_ms = clock_mono_ms();
	talk->status = control_say(talk->t,
				   "progress stored %" PRId64 ", duplicate %" PRId64
				   ", filtered %" PRId64 ", still refused %" PRId64,
				   n->stored + n->folded, n->duplicate, n->filtered,
				   n->quarantined + n->rejected + n->skipped);
	return talk->status < 0;
}

static int answer_requeue(struct control_talk *t, int r, const struct requeue_counts *counts)
{
	CLEANUP(buffer_finish) struct buffer json = BUFFER_INIT(CONTROL_TEXT_MAX);
	if (r == -EINPROGRESS)
		return control_say(t, "error the ledger is being rebuilt, and there are skipped "
				      "events to fold: ask again when that is done, or leave them "
				      "out with what=quarantine or what=rejections");
	if (r == -ESHUTDOWN)
		return r;
	if (r < 0)
		return control_say(t,
				   "error the store failed (%s) after %" PRId64
				   " were stored; nothing was lost, ask again",
				   strerror(-r), counts->stored);
	r = requeue_append_json(&json, counts);
	return r < 0 ? r : control_say_json(t, &json);
}

static int requeue(struct control_talk *t, const struct control_request *request,
		   const struct config *config)
{
	const struct requeue_options options = {
		.what = request->what,
		.source = *request->source ? request->source : NULL,
		.reason = request->reason,
	};
	if (options.source && !config_source_by_name(config, options.source))
		return control_say(t, "error the configuration has no such source");
	if (atomic_exchange(&t->c->is_requeuing, true))
		return control_say(t,
				   "error a requeue is at work already: ask again when it is done");
	struct requeue_talk talk = { .t = t, .told_ms = clock_mono_ms() };
	struct requeue_counts n;
	int r = requeue_run(t->c->writer, config, &options, &n, tell_requeue, &talk);
	/* Before the answer: who has it may ask again at once. */
	atomic_store(&t->c->is_requeuing, false);
	log_line(LOG_LEVEL_NOTICE, r == 0 ? "requeued" : "requeue ended early",
		 LOG_TEXT("error", r == 0 ? NULL : strerror(-r)), LOG_NUM("stored", n.stored),
		 LOG_NUM("duplicate", n.duplicate), LOG_NUM("filtered", n.filtered),
		 LOG_NUM("quarantined", n.quarantined), LOG_NUM("rejected", n.rejected),
		 LOG_NUM("folded", n.folded), LOG_NUM("skipped", n.skipped));
	return r == -ECANCELED ? talk.status : answer_requeue(t, r, &n);
}

static int do_requeue(struct control_talk *t, const struct control_request *request)
{
	const struct config *config = control_config(t->c);
	int r = requeue(t, request, config);
	config_unref((struct config *)config);
	return r;
}

static int append_error(struct buffer *b, const struct writer_health *h)
{
	char text[STORAGE_ERROR_MAX + 64] = "";
	if (h->last_error < 0)
		(void)snprintf(text, sizeof(text), "%s: %s", strerror(-h->last_error),
			       h->last_error_text);
	int r = buffer_append_text(b, ",\"last_error\":");
	return r < 0 ? r : json_append_string(b, (struct span) { text, strlen(text) });
}

struct figure {
	const char *name;
	int64_t value;
	bool is_bool, is_null;
};

static int append_figure(struct buffer *b, const struct figure *f)
{
	const char *comma = b->len > 1 ? "," : "";
	if (f->is_bool || f->is_null)
		return buffer_appendf(b, "%s\"%s\":%s", comma, f->name,
				      f->is_null ? "null"
				      : f->value ? "true"
						 : "false");
	return buffer_appendf(b, "%s\"%s\":%" PRId64, comma, f->name, f->value);
}

static int append_figures(struct buffer *b, const struct control *c, const struct writer_health *h)
{
	int64_t now_ms = clock_mono_ms();
	const struct figure figures[] = {
		{ "pid", getpid() },
		{ "uptime_s", (now_ms - c->started_mono_ms) / 1000 },
		{ "queued", (int64_t)h->queued },
		{ "last_commit_age_ms", now_ms - h->last_commit_mono_ms,
		  .is_null = h->last_commit_mono_ms == 0 },
		{ "stored_seq", h->stored_seq },
		{ "folded_seq", h->folded_seq },
		{ "wal_bytes", h->stats.wal_bytes },
		{ "database_bytes", h->stats.database_bytes },
		{ "free_bytes", h->stats.free_bytes, .is_null = h->stats.free_bytes < 0 },
		{ "rebuilding", h->rebuilding, .is_bool = true },
		{ "rebuild_seq", h->rebuild_seq },
		{ "rebuild_target_seq", h->rebuild_target_seq },
		{ "rebuild_failed", h->rebuild_error < 0, .is_bool = true },
		{ "pruning", h->pruning, .is_bool = true },
		{ "prune_waits", h->prune_waits, .is_bool = true },
		{ "pruned_events", h->pruned_events },
		{ "pruned_sandboxes", h->pruned_sandboxes },
		{ "requeuing", atomic_load(&c->is_requeuing), .is_bool = true },
		{ "longest_fold_us", h->slices[WRITER_SLICE_FOLD].longest_us },
		{ "longest_rebuild_us", h->slices[WRITER_SLICE_REBUILD].longest_us },
		{ "longest_retention_us", h->slices[WRITER_SLICE_RETENTION].longest_us },
		{ "longest_upkeep_us", h->slices[WRITER_SLICE_UPKEEP].longest_us },
		{ "rebuild_slices", h->slices[WRITER_SLICE_REBUILD].n },
		{ "rebuild_us", h->slices[WRITER_SLICE_REBUILD].total_us },
		{ "retention_slices", h->slices[WRITER_SLICE_RETENTION].n },
		{ "retention_us", h->slices[WRITER_SLICE_RETENTION].total_us },
	};
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(figures); i++)
		r = append_figure(b, &figures[i]);
	return r;
}

/* The text of /readyz. */
static int append_ready(struct buffer *b, const struct admin_health *health)
{
	CLEANUP(buffer_finish) struct buffer text = BUFFER_INIT(CONTROL_ANSWER_MAX);
	int r = admin_health_text(health, &text);
	if (r == 0)
		r = buffer_appendf(b,
				   ",\"waiting\":%zu,\"ready\":%s,\"readiness\":", health->waiting,
				   admin_health_is_ready(health) ? "true" : "false");
	return r < 0 ? r : json_append_string(b, (struct span) { text.data, text.len });
}

/* How the last reload went, and what of the file waits for a restart. The names are ours. */
static int append_reload(struct buffer *b, struct control *c)
{
	char names[CONTROL_TEXT_MAX], at[CLOCK_TEXT_MAX];
	(void)pthread_mutex_lock(&c->lock);
	memcpy(names, c->restart_needed, sizeof(names));
	(void)pthread_mutex_unlock(&c->lock);
	return buffer_appendf(b,
			      ",\"config_loaded_at\":\"%s\",\"reload_refused\":%s,"
			      "\"restart_needed\":\"%s\"",
			      clock_format_ms(metrics_get(METRICS_CONFIG_LOADED_MS), at),
			      metrics_get(METRICS_RELOAD_FAILED) ? "true" : "false", names);
}

static int do_status(struct control_talk *t, const struct control_request *request)
{
	struct admin_health health;
	admin_health_read(t->c->writer, t->c->hooks, t->c->queue_limit, false, &health);
	CLEANUP(buffer_finish) struct buffer json = BUFFER_INIT(CONTROL_ANSWER_MAX);
	int r = buffer_append_text(&json, "{");
	if (r == 0)
		r = append_figures(&json, t->c, &health.writer);
	if (r == 0)
		r = append_ready(&json, &health);
	if (r == 0)
		r = append_error(&json, &health.writer);
	if (r == 0)
		r = append_reload(&json, t->c);
	if (r == 0)
		r = buffer_appendf(&json, ",\"version\":\"%s\"}", HOOKD_VERSION);
	return r < 0 ? r : control_say_json(t, &json);
}

static int (*const actions[])(struct control_talk *t, const struct control_request *request) = {
	[CONTROL_STATUS] = do_status,
	[CONTROL_REBUILD] = do_rebuild,
	[CONTROL_PRUNE] = do_prune,
	[CONTROL_REQUEUE] = do_requeue,
	[CONTROL_ALERT_TEST] = control_alert_run,
	[CONTROL_ALERT_ACK] = control_alert_run,
	[CONTROL_ALERT_RETRY] = control_alert_run,
};

int control_request_run(struct control_talk *t, const struct control_request *request)
{
	return actions[request->command](t, request);
}
