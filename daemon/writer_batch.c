/* Batches: all that waits becomes one transaction, and is answered when it is durable.
 *
 * While the disk syncs one batch there is other work: the next one is written, events are folded.
 * So a batch is committed without a sync, and another thread syncs what was written meanwhile and
 * answers it. Where there is nothing else to do the writer does both by itself: one thread less to
 * be woken. A batch whose sync failed is in the store nevertheless and may last; its senders are
 * told 503, and told `duplicate` when they try again.
 *
 * A batch that fails for a reason of one job (not of the disk) is tried again job by job, so that
 * one bad row cannot fail its neighbours.
 */
#include "writer_internal.h"

#include "clock.h"
#include "metrics.h"

#include <errno.h>
#include <string.h>

#define CROWD_BATCHES 32 /* by then two thirds of a crowd are forgotten */

static bool is_flying(const struct writer *w)
{
	return w->n_written > 0 || w->syncing_since_ms != 0;
}

bool writer_batch_is_due(const struct writer *w)
{
	return w->first && (w->stopping || !is_flying(w) || w->n_queued >= WRITER_BATCH_WORTH);
}

size_t writer_batch_crowd(struct writer *w)
{
	(void)pthread_mutex_lock(&w->lock);
	size_t crowd = w->first || is_flying(w) ? w->crowd : 0;
	(void)pthread_mutex_unlock(&w->lock);
	return crowd;
}

struct writer_job *writer_batch_take(struct writer *w, size_t *ret_n)
{
	struct writer_job *first = w->first, *end = first;
	size_t n = 1;
	for (; end->next && n < WRITER_BATCH_MAX; n++)
		end = end->next;
	w->first = end->next;
	end->next = NULL;
	if (!w->first)
		w->last = &w->first;
	w->crowd = base_max_size(w->n_queued, w->crowd - w->crowd / CROWD_BATCHES);
	w->n_queued -= n;
	*ret_n = n;
	return first;
}

/* Is there anything that was written and must last? */
static bool waits_for_sync(const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->durable && job->status == 0)
			return true;
	return false;
}

static int put_all(struct writer *w, struct writer_job *first, const struct writer_job *end)
{
	for (struct writer_job *job = first; job != end; job = job->next) {
		int r = storage_put(w->s, &job->delivery, &job->outcome, &job->reason);
		if (r < 0)
			return r;
		job->seq = storage_stored_seq(w->s);
	}
	return 0;
}

/* One transaction over the jobs from first up to (not including) end. */
static int write_jobs(struct writer *w, struct writer_job *first, const struct writer_job *end)
{
	int r = storage_begin(w->s, false);
	if (r < 0)
		return r;
	r = put_all(w, first, end);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

static int write_batch(struct writer *w, struct writer_job *first)
{
	assert(first);
	int r = write_jobs(w, first, NULL);
	for (struct writer_job *job = first; job; job = job->next)
		job->status = r;
	if (r == 0 || (storage_is_failure(r) && r != -ENOMEM) || !first->next)
		return r;
	int last = 0;
	for (struct writer_job *job = first; job; job = job->next) {
		job->status = write_jobs(w, job, job->next);
		if (job->status < 0)
			last = job->status;
	}
	return last;
}

static struct writer_waker *list_wakers(const struct writer_job *first)
{
	struct writer_waker *list = NULL;
	for (const struct writer_job *job = first; job; job = job->next) {
		struct writer_waker *waker = job->waker;
		if (!waker || waker->is_listed)
			continue;
		waker->is_listed = true;
		waker->next = list;
		list = waker;
	}
	return list;
}

/* done() gives each job back to its owner, who may free it at once: so the wakers are collected
 * first. */
static void answer(struct writer *w, struct writer_job *first)
{
	(void)pthread_mutex_lock(&w->answering);
	struct writer_waker *wakers = list_wakers(first);
	for (struct writer_job *job = first, *next; job; job = next) {
		next = job->next;
		job->done(job);
	}
	for (struct writer_waker *waker = wakers, *next; waker; waker = next) {
		next = waker->next;
		waker->is_listed = false;
		waker->wake(waker->ctx);
	}
	(void)pthread_mutex_unlock(&w->answering);
}

/* What was stored is likely folded soon: then it need not be read again. */
static void offer(struct writer *w, const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->status == 0 && job->outcome == STORAGE_STORED && job->shared)
			projector_offer(w->projector, job->seq, &job->delivery, job->shared);
}

/* Syncing and answering: on either thread ------------------------------------- */

static const char *words_of(int r)
{
	return r == -ESTALE ? "a file of the store is not in its place"
			    : "the write-ahead log cannot be synced";
}

static void complain_of_sync(int r)
{
	static struct log_limit limit = { .burst = 5 };
	unsigned int held_back = 0;
	if (log_limit_allows(&limit, &held_back))
		log_line(LOG_LEVEL_ERROR, "deliveries were not stored",
			 LOG_TEXT("error", strerror(-r)), LOG_TEXT("store", words_of(r)),
			 LOG_NUM("held_back", held_back));
}

/* Durable where nobody will look is lost, too. */
static int sync_and_look(struct writer *w)
{
	int r = storage_sync(w->s);
	if (r == 0)
		r = storage_in_place(w->s);
	if (r < 0)
		complain_of_sync(r);
	return r;
}

/* r: of the sync. */
static void land(struct writer *w, const struct writer_batch *batch, int r)
{
	for (struct writer_job *job = batch->first; job && r < 0; job = job->next)
		if (job->durable && job->status == 0)
			job->status = r;
	metrics_observe(METRICS_COMMIT_TIME, clock_mono_us() - batch->begun_us);
	if (r < 0)
		metrics_count(METRICS_COMMIT_FAILED);
	if (r < 0 || batch->status == 0)
		writer_publish_commit(w, r, words_of(r));
	answer(w, batch->first);
}

static void *sync_batches(void *ctx)
{
	struct writer *w = ctx;
	struct writer_batch batches[WRITER_WRITTEN_MAX];
	(void)pthread_mutex_lock(&w->lock);
	while (w->n_written > 0 || !w->syncer_ends) {
		if (w->n_written == 0) {
			(void)pthread_cond_wait(&w->wake_syncer, &w->lock);
			continue;
		}
		size_t n = w->n_written;
		memcpy(batches, w->written, n * sizeof(*batches));
		w->n_written = 0;
		w->syncing_since_ms = clock_mono_ms();
		(void)pthread_mutex_unlock(&w->lock);
		int r = sync_and_look(w);
		for (size_t i = 0; i < n; i++)
			land(w, &batches[i], r);
		(void)pthread_mutex_lock(&w->lock);
		w->syncing_since_ms = 0;
		(void)pthread_cond_signal(&w->wake);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return NULL;
}

int writer_batch_start_syncer(struct writer *w)
{
	w->syncer_ends = false;
	return -pthread_create(&w->syncer, NULL, sync_batches, w);
}

void writer_batch_stop_syncer(struct writer *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->syncer_ends = true;
	(void)pthread_cond_signal(&w->wake_syncer);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->syncer, NULL);
}

/* False: the writer is to sync it by itself. */
static bool hand_over(struct writer *w, const struct writer_batch *batch)
{
	bool more = writer_upkeep_is_waiting(w);
	(void)pthread_mutex_lock(&w->lock);
	bool handed = (more || is_flying(w) || w->n_queued >= WRITER_BATCH_WORTH) &&
		      w->n_written < WRITER_WRITTEN_MAX;
	if (handed) {
		w->written[w->n_written++] = *batch;
		if (w->syncing_since_ms == 0)
			(void)pthread_cond_signal(&w->wake_syncer);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return handed;
}

void writer_batch_run(struct writer *w, struct writer_job *first, size_t n)
{
	struct writer_batch batch = { .first = first, .begun_us = clock_mono_us() };
	int r = batch.status = write_batch(w, first);
	w->last_batch_ms = clock_mono_ms();
	metrics_observe(METRICS_BATCH_SIZE, (int64_t)n);
	if (r < 0) {
		metrics_count(METRICS_COMMIT_FAILED);
		writer_complain(w, "deliveries were not stored", r);
		writer_publish_commit(w, r, storage_error(w->s));
	}
	writer_store_judge(w, r, true);
	writer_publish(w);
	offer(w, first);
	if (!waits_for_sync(first))
		answer(w, first);
	else if (!hand_over(w, &batch))
		land(w, &batch, sync_and_look(w));
}
