/* What a rebuild asks of the fold: events again, into the shadow, and sealed sandboxes copied. */
#include "projector_internal.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

#define COPY_SANDBOXES 16

/* 1: an event that the live fold left out, and so does a rebuild. */
static int pass_over(struct projector *p, const struct storage_event *stored)
{
	bool skipped;
	int r = storage_is_skipped(p->s, stored->seq, &skipped);
	if (r < 0 || !skipped)
		return r;
	struct storage_link link = { .seq = stored->seq,
				     .time_s = stored->time_s,
				     .time_unix_ms = LEDGER_ABSENT };
	r = storage_skip(p->s, stored->seq, FAILED_TWICE);
	if (r == 0)
		r = storage_put_link(p->s, &link);
	if (r < 0)
		return r;
	projector_slice_took(p, stored->seq);
	return 1;
}

static int refold_one(void *ctx, const struct storage_event *stored)
{
	struct projector *p = ctx;
	if (projector_slice_is_enough(p) || stored->seq > p->refold_until)
		return 1;
	int r = pass_over(p, stored);
	if (r != 0)
		return r < 0 ? r : 0;
	return projector_slice_take(p, stored);
}

/* The next event alone failed, after the slice with it did. */
static int skip_refolded(struct projector *p, int64_t after_seq)
{
	struct storage_event first;
	int r = projector_first_pending(p, after_seq, &first);
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	projector_complain(p, "event skipped: the rebuild failed on it twice", first.seq, -EBADMSG);
	p->last_seq = first.seq;
	return projector_skip_event(p, first.seq, first.time_s, FAILED_TWICE);
}

static int refold(struct projector *p, int64_t after_seq)
{
	bool more, cautious = after_seq >= p->refold_cautious_from &&
			      after_seq < p->refold_cautious_until;
	p->left = cautious ? 1 : SLICE_MAX;
	int r = projector_fold_slice(p, after_seq, refold_one, &more);
	if (r == 0 && p->last_seq == after_seq)
		p->last_seq = p->refold_until; /* what was the end of the log is pruned */
	if (r == 0 || storage_is_failure(r))
		return r;
	if (cautious)
		return skip_refolded(p, after_seq);
	p->refold_cautious_from = p->last_seq = after_seq;
	p->refold_cautious_until = after_seq + SLICE_MAX;
	return 0;
}

int projector_refold(struct projector *p, int64_t after_seq, int64_t until_seq, int64_t budget_us,
		     int64_t *ret_seq)
{
	projector_slice_drop(p); /* of the live ledger */
	p->refold_until = until_seq;
	p->deadline_us = clock_mono_us() + budget_us;
	p->refolding = true;
	storage_aim(p->s, STORAGE_SHADOW);
	int r = refold(p, after_seq);
	storage_aim(p->s, STORAGE_LIVE);
	p->refolding = false;
	*ret_seq = r < 0 ? after_seq : p->last_seq;
	return r;
}

/* Sealed sandboxes: from their stored facts, at the prices of now. */
static int copy_one(struct projector *p, const struct storage_sealed *sealed, int64_t now_ms)
{
	struct ledger_sandbox sandbox;
	int r = storage_load_sandbox(p->s, (struct span) { sealed->id, strlen(sealed->id) },
				     &sandbox);
	if (r == 0)
		r = ledger_settle(&sandbox, &p->terms, now_ms);
	storage_aim(p->s, STORAGE_SHADOW);
	if (r == 0)
		r = storage_copy_sealed(p->s, &sandbox);
	if (r == 0)
		r = storage_set_folded(p->s, 0); /* writes the sums */
	storage_aim(p->s, STORAGE_LIVE);
	ledger_sandbox_finish(&sandbox);
	return r < 0 ? r : p->term_error;
}

int projector_copy_sealed(struct projector *p, int64_t after_key, int64_t budget_us,
			  int64_t *ret_key, bool *ret_more)
{
	struct storage_sealed sealed[COPY_SANDBOXES];
	size_t n, n_copied = 0;
	int64_t deadline_us = clock_mono_us() + budget_us;
	p->term_error = 0;
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = storage_sealed_sandboxes(p->s, after_key, ARRAY_SIZE(sealed), sealed, &n);
	while (r == 0 && n_copied < n && (n_copied == 0 || clock_mono_us() < deadline_us))
		r = copy_one(p, &sealed[n_copied++], clock_unix_ms());
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0) {
		projector_roll_back(p);
		return r;
	}
	*ret_more = n > 0;
	if (n > 0)
		*ret_key = sealed[n_copied - 1].key;
	return 0;
}
