#include "service_watch.h"

#include "clock.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#define STATUS_EVERY_MS 5000
#define TICK_MAX_MS 1000
#define TICK_MIN_MS 10
#define NEVER_MS (INT64_C(3600) * 1000)

static void complain(int r)
{
	static struct log_limit limit = { .burst = 1 };

	if (r < 0 && log_limit_allows(&limit, NULL))
		log_line(LOG_LEVEL_WARNING, "the service manager did not take a message",
			 LOG_TEXT("error", strerror(-r)));
}

void service_watch_init(struct service_watch *w)
{
	int r = notify_init(&w->notify);

	if (r < 0)
		log_line(LOG_LEVEL_WARNING, "NOTIFY_SOCKET cannot be used",
			 LOG_TEXT("error", strerror(-r)));
}

void service_watch_begin(struct service_watch *w, struct writer *writer)
{
	w->writer = writer;
	w->probed_ms = clock_mono_ms();
}

void service_watch_finish(struct service_watch *w)
{
	notify_finish(&w->notify);
}

/* --- status --- */

static void put(char *text, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void put(char *text, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text + len, NOTIFY_TEXT_MAX - len, fmt, args);
	va_end(args);
}

static void describe_reasons(const struct admin_health *h, char *text)
{
	const char *before = "NOT READY: ";

	for (int i = 0; i < ADMIN_N_REASONS; i++) {
		if (!admin_health_has(h, (enum admin_reason)i))
			continue;
		put(text, "%s%s", before, admin_health_name((enum admin_reason)i));
		before = ", ";
	}
	if (h->writer.last_error < 0)
		put(text, " (%s)", strerror(-h->writer.last_error));
	put(text, "%s", *text ? "; " : "");
}

/* What is wrong comes first: `systemctl status` cuts long lines at the end. */
static void describe(const struct admin_health *h, char text[static NOTIFY_TEXT_MAX])
{
	const struct writer_health *w = &h->writer;
	int64_t lag = base_max_i64(w->stored_seq - w->folded_seq, 0);
	int64_t waiting = metrics_get(METRICS_RESTART_NEEDED);

	*text = '\0';
	describe_reasons(h, text);
	if (metrics_get(METRICS_RELOAD_FAILED))
		put(text, "the last reload was refused; ");
	if (waiting > 0)
		put(text, "%" PRId64 " changed settings need a restart; ", waiting);
	if (w->skipped > 0)
		put(text, "%" PRId64 " events skipped by the ledger; ", w->skipped);
	put(text, "stored up to event %" PRId64 ", ", w->stored_seq);
	if (w->rebuilding)
		put(text, "rebuilding the ledger");
	else if (lag > 0)
		put(text, "ledger %" PRId64 " events behind", lag);
	else
		put(text, "ledger up to date");
}

void service_watch_ready(struct service_watch *w, const struct admin_health *h)
{
	describe(h, w->status);
	w->status_ms = clock_mono_ms();
	complain(notify_ready(&w->notify, w->status));
}

void service_watch_reloading(struct service_watch *w)
{
	complain(notify_reloading(&w->notify));
}

void service_watch_stopping(struct service_watch *w, size_t connections)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "stopping, %zu connections open", connections);
	complain(notify_stopping(&w->notify, text));
}

static void tell_status(struct service_watch *w, const struct admin_health *h)
{
	char text[NOTIFY_TEXT_MAX];
	int64_t now_ms = clock_mono_ms();

	if (now_ms - w->status_ms < STATUS_EVERY_MS)
		return;
	describe(h, text);
	if (strcmp(text, w->status) == 0)
		return;
	memcpy(w->status, text, sizeof(text));
	w->status_ms = now_ms;
	complain(notify_status(&w->notify, text));
}

/* --- signs of life --- */

/* Changes nothing, but reaches the disk: the engine writes the page, and the commit is synced. */
static int touch_store(struct storage *s, void *ctx)
{
	struct storage_position at;
	int r = storage_position(s, &at);

	(void)ctx;
	return r < 0 ? r : storage_set_trying(s, at.trying_seq, at.trying_count);
}

/* On the writer's thread. */
static void probe_is_done(struct writer_task *task, int status)
{
	struct service_watch *w = task->ctx;

	(void)status;
	atomic_store(&w->probe_is_out, false);
}

static void send_probe(struct service_watch *w, int64_t now_ms)
{
	w->probe = (struct writer_task) { .run = touch_store, .done = probe_is_done, .ctx = w };
	atomic_store(&w->probe_is_out, true);
	if (writer_submit_task(w->writer, &w->probe) < 0) {
		atomic_store(&w->probe_is_out, false);
		return;
	}
	w->probed_ms = now_ms;
	w->owes_sign = true;
}

static void keep_watchdog(struct service_watch *w, int64_t stalled_ms)
{
	int64_t now_ms = clock_mono_ms();

	if (atomic_load(&w->probe_is_out))
		return;
	if (w->owes_sign && stalled_ms < w->notify.watchdog_ms) {
		w->owes_sign = false;
		complain(notify_watchdog(&w->notify));
	}
	/* Sooner than half of it by a tick, so that the sign comes in time. */
	if (now_ms - w->probed_ms >= w->notify.watchdog_ms * 3 / 8)
		send_probe(w, now_ms);
}

int64_t service_watch_tick(struct service_watch *w, const struct admin_health *h,
			   int64_t stalled_ms)
{
	if (!notify_is_wanted(&w->notify))
		return NEVER_MS;
	tell_status(w, h);
	if (w->notify.watchdog_ms == 0)
		return TICK_MAX_MS;
	keep_watchdog(w, stalled_ms);
	return base_max_i64(base_min_i64(w->notify.watchdog_ms / 8, TICK_MAX_MS), TICK_MIN_MS);
}
