/* The live fold: slices of what is pending, offered or read from the log; single events, where
 * something failed; what was skipped, and runs whose end has come.
 *
 * After a slice failed for another reason than the store, and for what was pending at start (the
 * last process may have died on it), events are tried one by one, each recorded before it is tried.
 */
#include "projector_internal.h"

#include "alert.h"
#include "clock.h"
#include "config.h"

#include <errno.h>
#include <string.h>

#define TRIES_MAX 2
#define TICK_SANDBOXES_MAX 256
#define FINISH_US 1000000
#define OFFERED_AMID 768 /* behind a slice in parts, which is held in memory, too */
#define OFFERED_BODY_MAX (16 * 1024) /* a larger one comes from the log: so memory has a bound */

void projector_roll_back(struct projector *p)
{
	storage_rollback(p->s);
	projector_terms_forget(p);
}

/* Events are tried one by one as far as the slice that failed can have come. */
static void be_cautious(struct projector *p, const struct storage_position *at)
{
	p->cautious_until_seq = base_min_i64(at->stored_seq, at->folded_seq + SLICE_MAX);
}

int projector_new(struct storage *s, struct projector **ret)
{
	struct projector *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->s = s;
	p->complaint.burst = 10;
	struct storage_position position;
	int r = storage_position(s, &position);
	if (r < 0) {
		free(p);
		return r;
	}
	p->unjudged_seq = storage_unjudged(s);
	/* What was pending when the last process ended may be what ended it. */
	be_cautious(p, &position);
	p->amid_until_seq = position.stored_seq;
	*ret = p;
	return 0;
}

/* Offers -------------------------------------------------------------------- */

static struct projector_offer *place_of(struct projector *p, int64_t seq)
{
	return &p->offered[(uint64_t)seq & (OFFERED - 1)];
}

void projector_offer(struct projector *p, int64_t seq, const struct storage_delivery *delivery,
		     struct ingest_result *judged)
{
	struct projector_offer *offer = place_of(p, seq);
	struct span source = { delivery->source, strlen(delivery->source) };
	int64_t source_key;
	if (delivery->body.len > OFFERED_BODY_MAX)
		return;
	if (projector_slice_is_amid(p) && seq > p->last_seq + OFFERED_AMID)
		return;
	if (offer->read || storage_key(p->s, STORAGE_SOURCE, source, &source_key) < 0)
		return; /* far behind: it comes from the log */
	*offer = (struct projector_offer) { seq, source_key, delivery->received_unix_ms,
					    ingest_result_ref(judged) };
}

static void drop_offer(struct projector_offer *offer)
{
	ingest_result_unref(offer->read);
	offer->read = NULL;
}

static void drop_offered(struct projector *p, int64_t until_seq)
{
	int64_t last = base_min_i64(until_seq, p->first_offered + OFFERED - 1);
	for (int64_t seq = p->first_offered; seq <= last; seq++) {
		struct projector_offer *offer = place_of(p, seq);
		if (offer->seq <= until_seq)
			drop_offer(offer);
	}
	p->first_offered = base_max_i64(p->first_offered, until_seq);
}

void projector_free(struct projector *p)
{
	if (!p)
		return;
	projector_slice_drop(p);
	drop_offered(p, INT64_MAX);
	free(p->applied);
	free(p);
}

/* Sandboxes and links of one slice go by the same aliases, also where it was cut off. */
static void finish_slice(struct projector *p)
{
	int64_t until_us = clock_mono_us() + FINISH_US;
	bool more;
	while (p->config && projector_is_amid(p) && clock_mono_us() < until_us)
		if (projector_step(p, FINISH_US, SLICE_MAX, &more) < 0)
			break;
}

void projector_set_config(struct projector *p, const struct config *config)
{
	finish_slice(p);
	projector_slice_drop(p); /* it went by the aliases of before */
	p->config = config;
	projector_terms_forget(p);
	p->terms = (struct ledger_terms) {
		.pricing = &config->pricing,
		.priced = projector_terms_priced,
		.size = projector_terms_size,
		.ctx = p,
		.max_run_ms = config->store.max_run_ms,
	};
}

void projector_set_alert(struct projector *p, struct alert *alert)
{
	p->alert = alert;
}

int64_t projector_folded_seq(const struct projector *p)
{
	struct storage_position position;
	return storage_position(p->s, &position) < 0 ? 0 : position.folded_seq;
}

/* Folding ------------------------------------------------------------------- */

/* Applies what was offered, as far as it goes without a gap. 1: enough for this slice. */
static int apply_offered(struct projector *p)
{
	for (;;) {
		struct projector_offer *offer = place_of(p, p->last_seq + 1);
		if (!offer->read || offer->seq != p->last_seq + 1)
			return 0;
		if (projector_slice_is_enough(p))
			return 1;
		const struct storage_event stored = {
			.seq = offer->seq,
			.source_key = offer->source_key,
			.time_s = event_second(&offer->read->event),
			.received_unix_ms = offer->received_unix_ms,
		};
		int r = projector_slice_apply(p, &stored, offer->read);
		drop_offer(offer); /* if the slice must be begun anew, it comes from the log */
		if (r < 0)
			return r;
	}
}

static int apply(struct projector *p, storage_event_fn take)
{
	int r = p->refolding ? 0 : apply_offered(p);
	if (r == 0)
		r = storage_pending(p->s, p->last_seq, p->left + 1, take, p);
	p->goes_on = r == 1;
	return r < 0 ? r : 0;
}

/* Reads and applies, settles and writes, or writes the next part; inside a transaction. */
static int fold(struct projector *p, storage_event_fn take)
{
	struct alert *alert = p->refolding ? NULL : p->alert;
	int r = alert ? alert_begin(alert) : 0;
	if (r == 0 && !p->is_arranged)
		r = apply(p, take);
	if (r == 0)
		r = projector_slice_write(p, p->refolding ? 0 : p->part, clock_unix_ms());
	if (r == 0 && alert)
		r = alert_end(alert, projector_slice_seq_written(p));
	return r < 0 ? r : storage_set_folded(p->s, projector_slice_seq_written(p));
}

int projector_fold_slice(struct projector *p, int64_t after_seq, storage_event_fn take,
			 bool *ret_more)
{
	projector_slice_begin(p, after_seq);
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = fold(p, take);
	*ret_more = p->goes_on || projector_slice_is_amid(p);
	if (r == 0)
		r = storage_commit(p->s);
	if (r == 0 && projector_slice_is_amid(p)) {
		p->ledger_changes = storage_ledger_changes(p->s);
		p->after_seq = projector_slice_seq_written(p);
		p->amid_until_seq = base_max_i64(p->amid_until_seq, p->last_seq);
		return 0;
	}
	if (r < 0)
		projector_roll_back(p);
	else if (!p->refolding)
		drop_offered(p, p->last_seq);
	projector_slice_drop(p);
	return r;
}

void projector_complain(struct projector *p, const char *what, int64_t seq, int r)
{
	if (log_limit_allows(&p->complaint, NULL))
		log_line(LOG_LEVEL_ERROR, what, LOG_NUM("seq", seq),
			 LOG_TEXT("error", strerror(-r)), LOG_TEXT("store", storage_error(p->s)));
}

int projector_skip_event(struct projector *p, int64_t seq, int64_t time_s, const char *why)
{
	int r = storage_begin(p->s, true);
	if (r < 0)
		return r;
	struct storage_link link = { .seq = seq, .time_s = time_s, .time_unix_ms = LEDGER_ABSENT };
	r = storage_skip(p->s, seq, why);
	if (r == 0)
		r = storage_put_link(p->s, &link);
	if (r == 0)
		r = storage_set_folded(p->s, seq);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		projector_roll_back(p);
	return r;
}

static int note_trying(struct projector *p, int64_t seq, int64_t count)
{
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = storage_set_trying(p->s, seq, count);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		projector_roll_back(p);
	return r;
}

/* The store ended the try of an event (0: of none), which does not count. */
static int excuse(struct projector *p, int64_t seq)
{
	if (p->unjudged_seq == seq)
		return 0;
	int r = storage_set_unjudged(p->s, seq);
	if (r == 0 || seq > 0)
		p->unjudged_seq = seq;
	return r;
}

static int take_first(void *ctx, const struct storage_event *event)
{
	struct storage_event *first = ctx;
	first->seq = event->seq;
	first->time_s = event->time_s;
	return 1;
}

int projector_first_pending(struct projector *p, int64_t after_seq, struct storage_event *ret)
{
	*ret = (struct storage_event) { 0 };
	return storage_pending(p->s, after_seq, 1, take_first, ret);
}

/* Tries the next event alone, having said so first. */
static int fold_cautiously(struct projector *p, const struct storage_position *at, bool *ret_more)
{
	struct storage_event first;
	int r = projector_first_pending(p, at->folded_seq, &first);
	if (r <= 0) {
		*ret_more = false;
		return r;
	}
	int64_t seq = first.seq;
	*ret_more = true;
	int64_t tried = at->trying_seq == seq ? at->trying_count : 0;
	if (tried > 0 && p->unjudged_seq == seq)
		tried--;
	if (tried >= TRIES_MAX) {
		bool is_doubtful = seq <= p->amid_until_seq;
		projector_complain(p,
				   is_doubtful
					   ? "event skipped: the ledger failed on it twice; if a "
					     "part of it was counted, `e2b-hookctl rebuild` "
					     "takes that out"
					   : "event skipped: the ledger failed on it twice",
				   seq, -EBADMSG);
		return projector_skip_event(p, seq, first.time_s, FAILED_TWICE);
	}
	r = note_trying(p, seq, tried + 1);
	if (r == 0)
		r = excuse(p, 0);
	if (r < 0)
		return r;
	bool more; /* than this one: not known here */
	projector_slice_drop(p);
	p->left = 1;
	r = projector_fold_slice(p, at->folded_seq, projector_slice_take, &more);
	if (storage_is_failure(r)) {
		(void)excuse(p, seq); /* as it may not let us take it back */
		if (note_trying(p, seq, tried) == 0)
			(void)excuse(p, 0);
	}
	return r;
}

/* Goes on with the slice, or begins one. */
static void aim_slice(struct projector *p, int64_t after_seq, int64_t budget_us, size_t events_max)
{
	projector_slice_begin(p, after_seq);
	p->deadline_us = clock_mono_us() + budget_us;
	p->left = base_min_size(events_max, SLICE_MAX);
	p->left -= base_min_size(p->left, p->n_taken);
}

/* What is not the store's failure is an event's: which one's, will show. */
static int blame(struct projector *p, const struct storage_position *at, int r)
{
	if (r == 0 || storage_is_failure(r))
		return r;
	projector_complain(p, "the ledger failed on an event", at->folded_seq + 1, r);
	be_cautious(p, at);
	return 0;
}

int projector_gather(struct projector *p, int64_t events_min, int64_t budget_us, size_t events_max)
{
	struct storage_position at;
	int r = storage_position(p->s, &at);
	if (r < 0 || at.folded_seq < p->cautious_until_seq)
		return r;
	aim_slice(p, at.folded_seq, budget_us, events_max);
	if (p->is_arranged || p->left == 0 || at.stored_seq - p->last_seq < events_min)
		return 0;
	/* Nothing is written but names that are new; else it is a transaction for reading. */
	r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	r = apply_offered(p);
	if (r >= 0)
		r = storage_commit(p->s);
	if (r < 0) {
		projector_roll_back(p);
		projector_slice_drop(p);
	}
	return blame(p, &at, r);
}

void projector_set_part(struct projector *p, size_t events)
{
	p->part = events;
}

bool projector_is_amid(const struct projector *p)
{
	struct storage_position at;
	return storage_position(p->s, &at) == 0 && at.folded_seq < p->amid_until_seq;
}

bool projector_is_writing(const struct projector *p)
{
	return projector_slice_is_amid(p);
}

int64_t projector_gathered(const struct projector *p)
{
	return (int64_t)p->n_taken;
}

int projector_step(struct projector *p, int64_t budget_us, size_t events_max, bool *ret_more)
{
	struct storage_position at;
	*ret_more = false;
	int r = storage_position(p->s, &at);
	if (r < 0 || at.folded_seq >= at.stored_seq)
		return r;
	if (at.folded_seq < p->cautious_until_seq) {
		r = fold_cautiously(p, &at, ret_more);
	} else {
		aim_slice(p, at.folded_seq, budget_us, events_max);
		r = projector_fold_slice(p, at.folded_seq, projector_slice_take, ret_more);
	}
	if (r < 0 && !storage_is_failure(r))
		*ret_more = true;
	return blame(p, &at, r);
}

/* Skipped events ---------------------------------------------------------- */

struct skipped_event {
	struct projector *p;
	int64_t seq;
};

static int fold_this(void *ctx, const struct storage_event *stored)
{
	const struct skipped_event *x = ctx;
	return stored->seq == x->seq ? projector_slice_take(x->p, stored) : -ENOENT;
}

int projector_fold_skipped(struct projector *p, int64_t seq)
{
	struct skipped_event x = { p, seq };
	struct storage_position at;
	int r = storage_position(p->s, &at);
	if (r == 0)
		r = storage_unskip(p->s, seq);
	if (r < 0)
		return r;
	assert(seq <= at.folded_seq);
	projector_slice_drop(p);
	p->left = 1;
	r = storage_pending(p->s, seq - 1, 1, fold_this, &x);
	if (r == 0)
		r = projector_slice_write(p, 0, clock_unix_ms());
	if (r == 0)
		r = storage_set_folded(p->s, at.folded_seq); /* writes the sums */
	projector_terms_forget(p); /* the caller may roll back */
	projector_slice_drop(p);
	return r;
}

/* Missing ends ------------------------------------------------------------ */

static int settle_due(struct projector *p, char **ids, size_t n, int64_t now_ms)
{
	projector_slice_drop(p);
	int r = storage_begin(p->s, false);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct ledger_sandbox *sandbox;
		r = projector_slice_touch(p, (struct span) { ids[i], strlen(ids[i]) }, &sandbox);
	}
	if (r == 0)
		r = projector_slice_write(p, 0, now_ms);
	struct storage_position at;
	if (r == 0)
		r = storage_position(p->s, &at);
	if (r == 0)
		r = storage_set_folded(p->s, at.folded_seq);
	if (r == 0)
		r = storage_commit(p->s);
	if (r < 0)
		projector_roll_back(p);
	projector_slice_drop(p);
	return r;
}

int projector_tick(struct projector *p, int64_t now_unix_ms)
{
	char *ids[TICK_SANDBOXES_MAX];
	size_t n;
	int r = storage_due_sandboxes(p->s, now_unix_ms, ids, ARRAY_SIZE(ids), &n);
	if (r == 0 && n > 0)
		r = settle_due(p, ids, n, now_unix_ms);
	/* One that cannot be settled must not hold up the others. */
	for (size_t i = 0; r < 0 && !storage_is_failure(r) && n > 1 && i < n; i++) {
		int alone = settle_due(p, &ids[i], 1, now_unix_ms);
		r = storage_is_failure(alone) ? alone : r;
	}
	for (size_t i = 0; i < n; i++)
		free(ids[i]);
	return r;
}
