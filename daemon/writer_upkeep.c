/* Between batches: the fold, work aside (a rebuild, retention), the store's upkeep, and every
 * second what has to be looked at. */
#include "writer_internal.h"

#include "clock.h"

#include <errno.h>

/* A slice writes every page again that it touches: few large ones write less, and hold up a batch
 * for longer. */
#define FOLD_US 20000
#define FOLD_EVENTS 1536
#define FOLD_PART 200 /* events: deliveries that come meanwhile wait for one part at a time */
#define CROWD 128 /* deliveries at once: more of them get whole slices */
#define GATHER_US 2000
#define GATHER_EVENTS 8 /* fewer are not worth a transaction */
#define ASIDE_US 3000
#define ASIDE_ALONE_US 15000 /* a slice costs a transaction */
#define ALONE_MS 1000 /* without a delivery */
#define UPKEEP_SLICES 4 /* at once, where one after each batch is not enough */
#define RETRY_MS 1000 /* pause of the projector, or of work aside, after it failed */

/* While the store fails, health checks keep deliveries away: then nobody but us would find out that
 * it works again. */
static void try_again(struct writer *w)
{
	(void)pthread_mutex_lock(&w->lock);
	bool is_failing = w->health.last_error < 0;
	(void)pthread_mutex_unlock(&w->lock);
	if (!is_failing)
		return;
	int r = writer_store_try_again(w);
	writer_store_judge(w, r, false);
	writer_publish_commit(w, r, storage_error(w->s));
}

static void tick(struct writer *w, int64_t now_ms)
{
	w->last_tick_ms = now_ms;
	writer_store_look(w);
	if (w->aliases_due)
		w->aliases_due = writer_put_aliases(w) < 0;
	try_again(w);
	writer_secret_flush(w);
	int r = retention_tick(w->retention);
	if (r < 0)
		writer_complain(w, "the retention horizon could not be moved", r);
	r = projector_tick(w->projector, clock_unix_ms());
	if (r < 0)
		writer_complain(w, "the ledger could not close runs", r);
	r = alert_tick(w->alert, clock_unix_ms());
	if (r < 0)
		writer_complain(w, "alerts could not be looked at", r);
	writer_publish(w);
	writer_publish_sizes(w);
	writer_store_watch_log(w, now_ms);
}

/* Deliveries that come meanwhile wait for the end of it. */
static void note_slice(struct writer *w, enum writer_slice what, int64_t begun_us)
{
	struct writer_slices *slices = &w->slices[what];
	int64_t us = clock_mono_us() - begun_us;
	slices->n++;
	slices->total_us += us;
	slices->longest_us = base_max_i64(slices->longest_us, us);
}

static int64_t unfolded(const struct writer *w)
{
	struct storage_position at;
	return storage_position(w->s, &at) < 0 ? 0 : at.stored_seq - at.folded_seq;
}

static void pause_folding(struct writer *w, int r, int64_t now_ms)
{
	writer_complain(w, "the ledger could not be written", r);
	w->retry_fold_ms = now_ms + RETRY_MS;
	w->fold_fails = true;
}

/* In parts, for the sake of deliveries: a batch comes behind each. Not for a crowd: its batches are
 * large, the fold would fall behind them, and what they bring would be held in memory beside the
 * slice. Where deliveries come faster nevertheless, whole slices hold them up, until the fold has
 * caught up. 0: whole. */
static size_t part_size(struct writer *w)
{
	size_t crowd = writer_batch_crowd(w);
	bool keeps_up = unfolded(w) <= FOLD_EVENTS + WRITER_BATCH_MAX;
	return crowd > 0 && crowd <= CROWD && keeps_up ? FOLD_PART : 0;
}

static void fold(struct writer *w, int64_t now_ms)
{
	int64_t begun_us = clock_mono_us();
	if (!projector_is_writing(w->projector))
		w->slice_after_seq = projector_folded_seq(w->projector);
	projector_set_part(w->projector, part_size(w));
	int r = projector_step(w->projector, FOLD_US, FOLD_EVENTS, &w->more_to_fold);
	/* A full slice leaves what came meanwhile to the next, which is to be full, too. */
	if (projector_folded_seq(w->projector) - w->slice_after_seq >= FOLD_EVENTS)
		w->more_to_fold = unfolded(w) >= FOLD_EVENTS;
	note_slice(w, WRITER_SLICE_FOLD, begun_us);
	w->last_fold_ms = now_ms;
	w->fold_fails = false;
	if (r < 0) {
		pause_folding(w, r, now_ms);
		w->more_to_fold = false;
	}
}

static void gather(struct writer *w, int64_t now_ms)
{
	int r = projector_gather(w->projector, GATHER_EVENTS, GATHER_US, FOLD_EVENTS);
	if (r < 0)
		pause_folding(w, r, now_ms);
}

static bool has_work_aside(const struct writer *w)
{
	return rebuild_has_work(w->rebuild) || retention_has_work(w->retention);
}

/* Not amid a slice of the fold, nor before it; but a rebuild is what helps a fold that cannot go on
 * with what the ledger holds. */
static bool may_work_aside(const struct writer *w, int64_t now_ms)
{
	if (now_ms < w->retry_aside_ms)
		return false;
	if (w->fold_fails)
		return rebuild_has_work(w->rebuild);
	return has_work_aside(w) && !projector_is_amid(w->projector) && unfolded(w) < FOLD_EVENTS;
}

/* What can wait: a slice of a rebuild, else of retention, which must not take away what a rebuild
 * reads, nor go by the size of a store that holds a second ledger. */
static void work_aside(struct writer *w, int64_t now_ms)
{
	bool rebuilding = rebuild_has_work(w->rebuild);
	int64_t begun_us = clock_mono_us();
	bool alone = now_ms - w->last_batch_ms >= ALONE_MS;
	int r = rebuilding ? rebuild_step(w->rebuild, alone ? ASIDE_ALONE_US : ASIDE_US)
			   : retention_step(w->retention);
	note_slice(w, rebuilding ? WRITER_SLICE_REBUILD : WRITER_SLICE_RETENTION, begun_us);
	if (r < 0) {
		writer_complain(
			w, rebuilding ? "the rebuild could not go on" : "retention could not go on",
			r);
		w->retry_aside_ms = now_ms + RETRY_MS;
	}
	w->more_aside = r == 0 && has_work_aside(w);
}

static bool is_tick_due(const struct writer *w, int64_t now_ms)
{
	return now_ms - w->last_tick_ms >= WRITER_TICK_MS;
}

/* Folding can wait for more events, but not long; what one slice left over does not wait. What
 * waits is applied meanwhile, unless work aside would change the ledger beneath it, as a tick may.
 */
static bool fold_if_due(struct writer *w, int64_t now_ms)
{
	int64_t pending = unfolded(w);
	bool due = w->more_to_fold || pending >= FOLD_EVENTS || is_tick_due(w, now_ms) ||
		   projector_is_writing(w->projector) ||
		   now_ms - w->last_fold_ms >= WRITER_FOLD_EVERY_MS;
	w->more_to_fold = false;
	if (pending > 0 && due)
		fold(w, now_ms);
	else if (pending > 0 && !has_work_aside(w))
		gather(w, now_ms);
	return pending > 0 && due;
}

bool writer_upkeep_is_waiting(const struct writer *w)
{
	int64_t pending = unfolded(w);
	return w->more_to_fold || pending >= FOLD_EVENTS || projector_is_writing(w->projector) ||
	       pending - projector_gathered(w->projector) >= GATHER_EVENTS;
}

static void maintain(struct writer *w)
{
	int64_t begun_us = clock_mono_us();
	int r = storage_maintain(w->s);
	for (int i = 1; i < UPKEEP_SLICES && r == 0 && storage_needs_upkeep(w->s); i++)
		r = storage_maintain(w->s);
	if (r < 0)
		writer_complain(w, "the write-ahead log could not be moved into the database", r);
	note_slice(w, WRITER_SLICE_UPKEEP, begun_us);
	w->more_upkeep = r == 0 && storage_wants_upkeep(w->s);
}

/* Reading only: nothing is late when it fails, and it is not tried again. */
static void learn(struct writer *w)
{
	int64_t begun_us = clock_mono_us();
	int r = storage_learn(w->s);
	if (r < 0)
		writer_complain(w, "what the store holds could not be read ahead", r);
	note_slice(w, WRITER_SLICE_UPKEEP, begun_us);
	w->more_upkeep = r == 0 && storage_wants_learning(w->s);
}

static void work_between(struct writer *w, int64_t now_ms)
{
	w->more_aside = w->more_upkeep = false;
	if (may_work_aside(w, now_ms))
		work_aside(w, now_ms);
	if (storage_wants_upkeep(w->s))
		maintain(w);
	if (!w->more_upkeep && storage_wants_learning(w->s))
		learn(w);
}

/* Behind a slice of the fold, a batch comes first: it should not wait for all of this. Not so
 * behind a part, which is short: or what has to be done for every so many events would fall behind.
 */
void writer_upkeep(struct writer *w)
{
	int64_t now_ms = clock_mono_ms();
	bool paused = now_ms < w->retry_fold_ms;
	w->has_put_off = !paused && fold_if_due(w, now_ms) && !w->has_put_off &&
			 !projector_is_writing(w->projector);
	w->has_pending = !paused && unfolded(w) > 0;
	if (!w->has_put_off || storage_needs_upkeep(w->s))
		work_between(w, now_ms);
	if (is_tick_due(w, now_ms) && (paused || !projector_is_writing(w->projector)))
		tick(w, now_ms);
}

void writer_upkeep_finish(struct writer *w)
{
	int64_t until_ms = clock_mono_ms() + 1000;
	bool more; /* than it knew when it took the slice: what came since counts, too */
	projector_set_part(w->projector, 0);
	while (unfolded(w) > 0 && clock_mono_ms() < until_ms)
		if (projector_step(w->projector, FOLD_US, FOLD_EVENTS, &more) < 0)
			break;
	if (storage_maintain(w->s) < 0)
		writer_complain(w, "the write-ahead log could not be moved into the database",
				-EIO);
}
