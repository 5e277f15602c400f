/* One task at a time is lent to the writer: read a few rows, judge them, put them, all in its
 * transaction. What a slice found counts only once the slice is committed.
 *
 * A slice that fails for another reason than the store is done again row by row, and the row that
 * fails alone is left where it is: it must not keep the others from being looked at. Only what was
 * there at the beginning is looked at, so that the work has an end under any load.
 */
#include "requeue.h"

#include "buffer.h"
#include "clock.h"
#include "config.h"
#include "projector.h"
#include "storage.h"
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>

#define SLICE_ROWS 50
#define SLICE_US 3000
#define WINDOW_IDS 256 /* looked through by one query */

struct requeue {
	struct writer *w;
	const struct config *config;
	const struct requeue_options *options;
	struct requeue_counts counts;

	/* where the work is; a slice works on copies, taken over when it was committed */
	enum storage_side side;
	int64_t after_id, last_id;
	int64_t careful_until; /* row by row up to here */
	struct slice {
		struct requeue_counts counts;
		int64_t after_id;
		bool is_over;
	} slice;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_done; /* the task; under the lock */
	int status;
};

/* Tasks --------------------------------------------------------------------- */

static void on_done(struct writer_task *task, int status)
{
	struct requeue *q = task->ctx;
	(void)pthread_mutex_lock(&q->lock);
	q->is_done = true;
	q->status = status;
	(void)pthread_cond_signal(&q->changed);
	(void)pthread_mutex_unlock(&q->lock);
}

/* Runs one transaction on the writer thread and waits for it. */
static int run_on_writer(struct requeue *q, int (*run)(struct storage *s, void *ctx))
{
	struct writer_task task = { .run = run, .done = on_done, .ctx = q };
	q->is_done = false;
	q->slice = (struct slice) { .after_id = q->after_id };
	int r = writer_submit_task(q->w, &task);
	if (r < 0)
		return r;
	(void)pthread_mutex_lock(&q->lock);
	while (!q->is_done)
		(void)pthread_cond_wait(&q->changed, &q->lock);
	r = q->status;
	(void)pthread_mutex_unlock(&q->lock);
	return r;
}

static void take_over(struct requeue *q)
{
	const struct requeue_counts *n = &q->slice.counts;
	q->counts.stored += n->stored;
	q->counts.duplicate += n->duplicate;
	q->counts.filtered += n->filtered;
	q->counts.quarantined += n->quarantined;
	q->counts.rejected += n->rejected;
	q->counts.folded += n->folded;
	q->counts.skipped += n->skipped;
	q->after_id = q->slice.after_id;
}

/* Quarantine and rejections -------------------------------------------------- */

static void count_left(struct requeue_counts *n, enum storage_side side)
{
	if (side == STORAGE_SIDE_QUARANTINE)
		n->quarantined++;
	else
		n->rejected++;
}

static void count(struct requeue_counts *n, enum storage_outcome outcome)
{
	switch (outcome) {
	case STORAGE_STORED:
		n->stored++;
		break;
	case STORAGE_DUPLICATE:
		n->duplicate++;
		break;
	case STORAGE_FILTERED:
		n->filtered++;
		break;
	case STORAGE_QUARANTINED:
		n->quarantined++;
		break;
	case STORAGE_REJECTED:
	case STORAGE_QUARANTINE_FULL: /* still a rejection */
		n->rejected++;
		break;
	}
}

static int judge(struct ingest_result *ret, const struct requeue *q,
		 const struct config_source *source, const struct storage_aside *aside,
		 int64_t horizon_unix_s)
{
	const struct storage_delivery *d = &aside->delivery;
	/* A clock that was behind took the present for the future: that must not be for good. */
	int64_t clock_ms = base_max_i64(d->received_unix_ms, clock_unix_ms());
	if (aside->side == STORAGE_SIDE_QUARANTINE)
		return ingest_judge_body(ret, &source->policy, &q->config->lookup, d->body,
					 clock_ms, horizon_unix_s);
	const struct ingest_delivery delivery = {
		.signed_part = {
			.signature = d->signature,
			.id = d->signature_id,
			.timestamp = d->signature_timestamp,
			.body = d->body,
			.now_unix_s = d->received_unix_ms / 1000,
		},
		.received_unix_ms = clock_ms,
	};
	return ingest_judge(ret, &source->policy, &q->config->lookup, &delivery, horizon_unix_s);
}

/* A rejection that turned out to be signed. */
static int count_secret(struct storage *s, const struct config_source *source,
			const struct storage_delivery *d)
{
	struct storage_secret_use use = {
		.source = source->name,
		.position = d->judged->match.position,
		.n = 1,
		.last_unix_ms = d->received_unix_ms,
	};
	signature_keyring_fingerprint(source->policy.keyring, use.position, use.fingerprint);
	return storage_count_secret(s, &use);
}

static int put_judged(struct requeue *q, struct storage *s, const struct config_source *source,
		      const struct storage_aside *aside)
{
	enum storage_outcome outcome = STORAGE_REJECTED;
	int r = storage_put_aside(s, aside, &outcome);
	if (r < 0)
		return r;
	bool left = outcome == STORAGE_REJECTED || outcome == STORAGE_QUARANTINE_FULL;
	count(&q->slice.counts, outcome);
	return aside->delivery.judged->verified && !left ? count_secret(s, source, &aside->delivery)
							 : 0;
}

static int settle(struct requeue *q, struct storage *s, struct storage_aside *aside)
{
	const struct config_source *source =
		config_source_by_name(q->config, aside->delivery.source);
	if (!source || (aside->side == STORAGE_SIDE_REJECTIONS && !source->policy.keyring)) {
		count_left(&q->slice.counts, aside->side);
		return 0;
	}
	struct storage_position at;
	int r = storage_position(s, &at);
	if (r < 0)
		return r;
	CLEANUP(ingest_result_finish) struct ingest_result judged = { 0 };
	r = judge(&judged, q, source, aside, at.horizon_unix_s);
	aside->delivery.judged = &judged;
	if (r == 0)
		r = put_judged(q, s, source, aside);
	aside->delivery.judged = NULL; /* it ends here, the delivery does not */
	return r;
}

static int judge_slice(struct storage *s, void *ctx)
{
	struct requeue *q = ctx;
	struct slice *slice = &q->slice;
	const struct storage_aside_filter filter = {
		.side = q->side,
		.source = q->options->source,
		.reason = q->options->reason == INGEST_REASON_NONE
				  ? NULL
				  : ingest_reason_name(q->options->reason),
	};
	size_t left = q->after_id < q->careful_until ? 1 : SLICE_ROWS;
	int64_t deadline_us = clock_mono_us() + SLICE_US;
	do {
		CLEANUP(storage_aside_finish) struct storage_aside aside;
		int64_t until = base_min_i64(q->last_id, slice->after_id + WINDOW_IDS);
		int r = storage_aside_next(s, &filter, slice->after_id, until, &aside);
		if (r < 0)
			return r;
		slice->after_id = r == 1 ? aside.id : until;
		r = r == 1 ? settle(q, s, &aside) : 0;
		if (r < 0)
			return r;
		left -= aside.id != 0;
	} while (left > 0 && slice->after_id < q->last_id && clock_mono_us() < deadline_us);
	return 0;
}

static int find_range(struct storage *s, void *ctx)
{
	struct requeue *q = ctx;
	int64_t first;
	int r = storage_aside_range(s, q->side, &first, &q->last_id);
	q->slice.after_id = base_max_i64(first - 1, 0);
	return r;
}

/* 0 to go on. `r` is how the slice failed. */
static int pass_over(struct requeue *q, int r)
{
	int64_t failed_id = q->slice.after_id;
	if (storage_is_failure(r) || r == -ESHUTDOWN || failed_id == q->after_id)
		return r;
	if (q->after_id >= q->careful_until) {
		q->careful_until = failed_id;
		return 0;
	}
	q->slice = (struct slice) { .after_id = failed_id };
	count_left(&q->slice.counts, q->side);
	take_over(q);
	return 0;
}

static int requeue_side(struct requeue *q, enum storage_side side, requeue_progress_fn progress,
			void *ctx)
{
	q->side = side;
	q->after_id = q->careful_until = 0;
	int r = run_on_writer(q, find_range);
	if (r < 0)
		return r;
	take_over(q);
	q->careful_until = q->after_id;
	while (q->after_id < q->last_id) {
		r = run_on_writer(q, judge_slice);
		if (r == 0)
			take_over(q);
		else
			r = pass_over(q, r);
		if (r < 0)
			return r;
		if (progress && progress(ctx, &q->counts) != 0)
			return -ECANCELED;
	}
	return 0;
}

/* Skipped events ------------------------------------------------------------- */

static int find_skipped(struct storage *s, void *ctx)
{
	struct requeue *q = ctx;
	struct storage_position at;
	int r = storage_position(s, &at);
	if (r == 0)
		r = storage_skipped_next(s, q->options->source, q->after_id, &q->slice.after_id);
	q->slice.is_over = r == 0;
	if (r == 1 && at.rebuild > 0)
		return -EINPROGRESS;
	return r < 0 ? r : 0;
}

static void free_projector(struct projector **p)
{
	projector_free(*p);
}

/* With a projector of its own: the writer's keeps its slice to itself. */
static int fold_skipped(struct storage *s, void *ctx)
{
	struct requeue *q = ctx;
	CLEANUP(free_projector) struct projector *p = NULL;
	int r = find_skipped(s, ctx);
	if (r < 0 || q->slice.is_over)
		return r;
	r = projector_new(s, &p);
	if (r < 0)
		return r;
	projector_set_config(p, q->config);
	q->slice.counts.folded = 1;
	return projector_fold_skipped(p, q->slice.after_id);
}

static int requeue_skipped(struct requeue *q, requeue_progress_fn progress, void *ctx)
{
	q->after_id = 0;
	for (;;) {
		int r = run_on_writer(q, fold_skipped);
		if (r < 0 && (storage_is_failure(r) || r == -ESHUTDOWN || r == -EINPROGRESS ||
			      q->slice.after_id == q->after_id))
			return r;
		if (r == 0 && q->slice.is_over)
			return 0;
		if (r < 0)
			q->slice.counts = (struct requeue_counts) { .skipped = 1 };
		take_over(q);
		if (progress && progress(ctx, &q->counts) != 0)
			return -ECANCELED;
	}
}

/* All together --------------------------------------------------------------- */

static int run_all(struct requeue *q, requeue_progress_fn progress, void *ctx)
{
	unsigned int what = q->options->what;
	int r = 0;
	if ((what & REQUEUE_SKIPPED) && q->options->reason == INGEST_REASON_NONE)
		r = requeue_skipped(q, progress, ctx);
	/* Before the rejections, which may come into quarantine: each is looked at once. */
	if (r == 0 && (what & REQUEUE_QUARANTINE))
		r = requeue_side(q, STORAGE_SIDE_QUARANTINE, progress, ctx);
	if (r == 0 && (what & REQUEUE_REJECTIONS))
		r = requeue_side(q, STORAGE_SIDE_REJECTIONS, progress, ctx);
	return r;
}

int requeue_run(struct writer *w, const struct config *config,
		const struct requeue_options *options, struct requeue_counts *ret_counts,
		requeue_progress_fn progress, void *ctx)
{
	struct requeue q = { .w = w, .config = config, .options = options };
	(void)pthread_mutex_init(&q.lock, NULL);
	(void)pthread_cond_init(&q.changed, NULL);
	int r = run_all(&q, progress, ctx);
	(void)pthread_cond_destroy(&q.changed);
	(void)pthread_mutex_destroy(&q.lock);
	*ret_counts = q.counts;
	return r;
}

int requeue_append_json(struct buffer *b, const struct requeue_counts *counts)
{
	return buffer_appendf(
		b,
		"{\"stored\":%" PRId64 ",\"duplicate\":%" PRId64 ",\"filtered\":%" PRId64
		",\"quarantined\":%" PRId64 ",\"rejected\":%" PRId64 ",\"folded\":%" PRId64
		",\"skipped\":%" PRId64 "}",
		counts->stored, counts->duplicate, counts->filtered, counts->quarantined,
		counts->rejected, counts->folded, counts->skipped);
}
