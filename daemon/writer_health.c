/* What other threads may know of the writer: copied under its lock. */
#include "writer_internal.h"

#include "clock.h"
#include "log.h"

#include <string.h>

void writer_complain(struct writer *w, const char *what, int r)
{
	unsigned int held_back = 0;
	if (log_limit_allows(&w->complaint, &held_back))
		log_line(LOG_LEVEL_ERROR, what, LOG_TEXT("error", strerror(-r)),
			 LOG_TEXT("store", storage_error(w->s)), LOG_NUM("held_back", held_back));
}

/* Under the lock. A ledger that stands still while events wait is stuck: since when, shows here. */
static void publish_folded(struct writer *w, int64_t folded_seq)
{
	if (folded_seq != w->health.folded_seq || folded_seq >= w->health.stored_seq)
		w->health.folded_mono_ms = clock_mono_ms();
	w->health.folded_seq = folded_seq;
}

void writer_publish_commit(struct writer *w, int r, const char *text)
{
	(void)pthread_mutex_lock(&w->lock);
	w->health.last_error = r;
	(void)snprintf(w->health.last_error_text, sizeof(w->health.last_error_text), "%s",
		       r < 0 ? text : "");
	if (r == 0) {
		w->health.last_commit_mono_ms = clock_mono_ms();
		w->health.last_commit_unix_ms = clock_unix_ms();
	}
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_publish(struct writer *w)
{
	struct storage_position at;
	if (storage_position(w->s, &at) < 0)
		at = (struct storage_position) { 0 };
	(void)pthread_mutex_lock(&w->lock);
	w->health.is_lost = w->is_lost;
	w->health.is_damaged = w->is_damaged;
	w->health.wants_end = w->wants_end;
	w->health.skipped = at.skipped;
	w->health.stored_seq = at.stored_seq;
	publish_folded(w, at.folded_seq);
	w->health.horizon_unix_s = at.horizon_unix_s;
	atomic_store(&w->horizon_s, at.horizon_unix_s);
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_publish_sizes(struct writer *w)
{
	struct storage_stats stats;
	storage_stats(w->s, &stats);
	(void)pthread_mutex_lock(&w->lock);
	w->health.stats = stats;
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_publish_aside(struct writer *w)
{
	struct rebuild_progress rebuild;
	struct retention_progress retention;
	rebuild_progress(w->rebuild, &rebuild);
	retention_progress(w->retention, &retention);
	(void)pthread_mutex_lock(&w->lock);
	/* A thread that waits for the disk is stuck with it, whatever this one does. */
	w->health.round_mono_ms = w->syncing_since_ms ? w->syncing_since_ms : clock_mono_ms();
	publish_folded(w, rebuild.target_seq); /* a client that waits for the end reads both */
	w->health.rebuilding = rebuild_is_running(w->rebuild) || w->wants_rebuild;
	w->health.rebuild_seq = rebuild.seq;
	w->health.rebuild_target_seq = rebuild.target_seq;
	w->health.rebuild_error = rebuild.error;
	w->health.pruning = retention_has_work(w->retention) || w->wants_prune;
	w->health.prune_waits = retention.waits;
	w->health.pruned_events = retention.pruned_events;
	w->health.pruned_sandboxes = retention.pruned_sandboxes;
	memcpy(w->health.slices, w->slices, sizeof(w->slices));
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_health(struct writer *w, struct writer_health *ret)
{
	(void)pthread_mutex_lock(&w->lock);
	*ret = w->health;
	ret->queued = w->n_queued;
	alert_figures(w->alert, &ret->alerts);
	(void)pthread_mutex_unlock(&w->lock);
}

int64_t writer_horizon(struct writer *w)
{
	return atomic_load(&w->horizon_s);
}
