/* The projector: folds the log into the ledger, a slice at a time, on the writer thread between
 * batches.
 *
 * Each slice is one transaction that also moves the watermark, or several of which the last ones
 * do: an event counts exactly once whatever crashes. Before it tries an event alone (after a failed
 * slice, or when the last start died in one) it records which one; an event that fails twice is
 * skipped and reported, never a crash loop. Intake does not depend on it.
 */
#pragma once

#include "base.h"
#include "storage.h"

struct config;
struct projector;

MUST_CHECK int projector_new(struct storage *s, struct projector **ret);
void projector_free(struct projector *p);
/* Prices, sizes, sources. Writer thread. */
void projector_set_config(struct projector *p, const struct config *config);

/* An event was stored as seq: keeps a reference to what was read of it, so that the fold need not
 * read it again if it comes there soon. Writer thread. */
void projector_offer(struct projector *p, int64_t seq, const struct storage_delivery *delivery,
		     struct ingest_result *judged);

/* Begins the next slice: applies to it what was offered, in memory, so that its step has less to do
 * while intake waits. Up to `events_max` in all, for at most `budget_us`; nothing if fewer than
 * `events_min` are new. Results as of step. */
MUST_CHECK int projector_gather(struct projector *p, int64_t events_min, int64_t budget_us,
				size_t events_max);
/* Events in the slice that was begun. */
int64_t projector_gathered(const struct projector *p);
/* From now on a slice of more events than this is written in parts of about so many, a step each,
 * so that batches come in between; 0, as it begins: never. */
void projector_set_part(struct projector *p, size_t events);
/* May sandboxes hold events above the watermark, of a slice that is half written, or was when the
 * last process ended? Then retention and rebuilds must wait: of a sandbox that is deleted the
 * events would count again. */
bool projector_is_amid(const struct projector *p);
/* Is it being written, with steps to come? What changes the ledger in between cuts it off. */
bool projector_is_writing(const struct projector *p);
/* Folds one slice of at most `budget_us` or `events_max`, or writes a part of it. *ret_more: there
 * is more to do now. A negative result is a storage failure: nothing was changed, try again later.
 */
MUST_CHECK int projector_step(struct projector *p, int64_t budget_us, size_t events_max,
			      bool *ret_more);
/* Closes runs whose missing end has come true by now; cheap when there is none. */
MUST_CHECK int projector_tick(struct projector *p, int64_t now_unix_ms);
/* For a rebuild: folds events behind after_seq, up to until_seq, into the shadow; one slice.
 * *ret_seq: folded up to. */
MUST_CHECK int projector_refold(struct projector *p, int64_t after_seq, int64_t until_seq,
				int64_t budget_us, int64_t *ret_seq);
/* For a rebuild: copies some sealed sandboxes behind after_key, repriced, into the shadow. */
MUST_CHECK int projector_copy_sealed(struct projector *p, int64_t after_key, int64_t budget_us,
				     int64_t *ret_key, bool *ret_more);
/* Folds an event that was skipped, alone, and takes it off that list; the watermark stays. Inside
 * the caller's transaction, which must be rolled back after a failure. Not while the ledger is
 * being rebuilt: what is put into the old one would be lost. */
MUST_CHECK int projector_fold_skipped(struct projector *p, int64_t seq);
/* Tells alerts of what the live fold folds; NULL: nobody. Writer thread. */
struct alert;
void projector_set_alert(struct projector *p, struct alert *alert);
int64_t projector_folded_seq(const struct projector *p);
