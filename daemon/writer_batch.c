/* Batches: all that waits becomes one transaction, and is answered when it is durable.
 *
 * A batch that fails for a reason of one job (not of the disk) is tried again job by job, so that
 * one bad row cannot fail its neighbours.
 */
#include "writer_internal.h"

#include "clock.h"
#include "metrics.h"

#include <errno.h>
#include <string.h>

/* Up to WRITER_BATCH_MAX jobs, in order. */
struct writer_job *writer_batch_take(struct writer *w, size_t *ret_n)
{
	struct writer_job *first = w->first, *end = first;
	size_t n = first ? 1 : 0;
	while (end && end->next && n < WRITER_BATCH_MAX) {
		end = end->next;
		n++;
	}
	if (end) {
		w->first = end->next;
		end->next = NULL;
		if (!w->first)
			w->last = &w->first;
	}
	w->n_queued -= n;
	*ret_n = n;
	return first;
}

static bool is_durable(const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->durable)
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
static int write_jobs(struct writer *w, struct writer_job *first, const struct writer_job *end,
		      bool durable)
{
	int r = storage_begin(w->s, durable);
	if (r < 0)
		return r;
	r = put_all(w, first, end);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	else if (durable)
		r = storage_in_place(w->s); /* else it is durable where nobody will look */
	return r;
}

static int write_batch(struct writer *w, struct writer_job *first)
{
	int r = write_jobs(w, first, NULL, is_durable(first));
	for (struct writer_job *job = first; job; job = job->next)
		job->status = r;
	if (r == 0 || (storage_is_failure(r) && r != -ENOMEM) || !first->next)
		return r;
	int last = 0;
	for (struct writer_job *job = first; job; job = job->next) {
		job->status = write_jobs(w, job, job->next, job->durable);
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
static void answer(struct writer_job *first)
{
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
}

/* What was stored is likely folded soon: then it need not be read again. */
static void offer(struct writer *w, const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->status == 0 && job->outcome == STORAGE_STORED && job->shared)
			projector_offer(w->projector, job->seq, &job->delivery, job->shared);
}

void writer_batch_run(struct writer *w, struct writer_job *first, size_t n)
{
	int64_t begun_us = clock_mono_us();
	int r = write_batch(w, first);
	metrics_observe(METRICS_BATCH_SIZE, (int64_t)n);
	if (is_durable(first))
		metrics_observe(METRICS_COMMIT_TIME, clock_mono_us() - begun_us);
	if (r < 0) {
		metrics_count(METRICS_COMMIT_FAILED);
		writer_complain(w, "deliveries were not stored", r);
	}
	writer_store_judge(w, r, true);
	writer_publish(w, r, r == 0);
	offer(w, first);
	answer(first);
}
