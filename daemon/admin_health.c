#include "admin_health.h"

#include "clock.h"
#include "hook_server.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void admin_health_read(struct writer *w, const struct hook_server *hooks, size_t queue_limit,
		       bool stopping, struct admin_health *ret)
{
	*ret = (struct admin_health) { .queue_limit = queue_limit, .stopping = stopping };
	writer_health(w, &ret->writer);
	ret->waiting = hooks ? hook_server_waiting(hooks) : 0;
	ret->now_mono_ms = clock_mono_ms();
}

bool admin_health_has(const struct admin_health *h, enum admin_reason reason)
{
	const struct writer_health *w = &h->writer;

	switch (reason) {
	case ADMIN_COMMIT_FAILED:
		return w->last_error < 0;
	case ADMIN_WRITER_STUCK:
		return h->now_mono_ms - w->round_mono_ms > ADMIN_HEALTH_ROUND_MAX_MS;
	case ADMIN_QUEUE_FULL:
		return h->waiting >= h->queue_limit || w->queued >= h->queue_limit;
	case ADMIN_DISK_FULL:
		return w->stats.free_bytes >= 0 && w->stats.free_bytes < ADMIN_HEALTH_DISK_MIN;
	case ADMIN_LEDGER_STUCK:
		return w->folded_seq < w->stored_seq &&
		       h->now_mono_ms - w->folded_mono_ms > ADMIN_HEALTH_FOLD_MAX_MS;
	case ADMIN_STORE_LOST:
		return w->is_lost;
	case ADMIN_STORE_DAMAGED:
		return w->is_damaged;
	case ADMIN_STOPPING:
		return h->stopping;
	}
	return false;
}

bool admin_health_is_ready(const struct admin_health *h)
{
	for (int i = 0; i < ADMIN_N_REASONS; i++) {
		if (admin_health_has(h, (enum admin_reason)i))
			return false;
	}
	return true;
}

const char *admin_health_name(enum admin_reason reason)
{
	static const char *const names[ADMIN_N_REASONS] = {
		[ADMIN_COMMIT_FAILED] = "commit_failed", [ADMIN_WRITER_STUCK] = "writer_stuck",
		[ADMIN_QUEUE_FULL] = "queue_full",	 [ADMIN_DISK_FULL] = "disk_full",
		[ADMIN_STORE_LOST] = "store_lost",	 [ADMIN_STORE_DAMAGED] = "store_damaged",
		[ADMIN_LEDGER_STUCK] = "ledger_stuck",	 [ADMIN_STOPPING] = "stopping",
	};

	return names[reason];
}

/* The engine's own words stay in the log: a health path is open to everybody who reaches it. */
static int explain(const struct admin_health *h, enum admin_reason reason, struct buffer *out)
{
	const struct writer_health *w = &h->writer;

	switch (reason) {
	case ADMIN_COMMIT_FAILED:
		return buffer_appendf(out, "%s; deliveries are answered 503, the log says more",
				      strerror(-w->last_error));
	case ADMIN_WRITER_STUCK:
		return buffer_appendf(out,
				      "no sign of the writer for %" PRId64 " s: is the disk "
				      "hanging?",
				      (h->now_mono_ms - w->round_mono_ms) / 1000);
	case ADMIN_QUEUE_FULL:
		return buffer_appendf(out, "%zu deliveries wait, queue_limit is %zu", h->waiting,
				      h->queue_limit);
	case ADMIN_DISK_FULL:
		return buffer_appendf(out, "%" PRId64 " MiB free where the store is",
				      w->stats.free_bytes / (1024 * 1024));
	case ADMIN_LEDGER_STUCK:
		return buffer_appendf(
			out, "%" PRId64 " events wait and none was folded for %" PRId64 " s",
			w->stored_seq - w->folded_seq, (h->now_mono_ms - w->folded_mono_ms) / 1000);
	case ADMIN_STORE_LOST:
		return buffer_append_text(out, "a file of the store was deleted, moved or replaced "
					       "beneath the daemon");
	case ADMIN_STORE_DAMAGED:
		return buffer_append_text(out, "pages of the database cannot be read, the log says "
					       "what helps");
	case ADMIN_STOPPING:
		return buffer_append_text(out, "the daemon was told to stop");
	}
	return -EINVAL;
}

int admin_health_text(const struct admin_health *h, struct buffer *out)
{
	int r = buffer_append_text(out, admin_health_is_ready(h) ? "ready\n" : "not ready\n");

	for (int i = 0; r == 0 && i < ADMIN_N_REASONS; i++) {
		enum admin_reason reason = (enum admin_reason)i;

		if (!admin_health_has(h, reason))
			continue;
		r = buffer_appendf(out, "%s: ", admin_health_name(reason));
		if (r == 0)
			r = explain(h, reason, out);
		if (r == 0)
			r = buffer_append_text(out, "\n");
	}
	return r;
}
