/* Rebuilding the ledger from the stored events, beside the live one, in slices between batches.
 *
 * Phases: the shadow is created with the sums of what was pruned; sealed sandboxes are copied at
 * the prices of now; events are folded from the first; when the shadow has caught up with the live
 * ledger it takes its place. What was replaced is emptied afterwards. A rebuild that a restart
 * interrupts begins again; one that died twice is given up, for it may be what kills the daemon,
 * and so is one that would fill the disk. Writer thread.
 */
#pragma once

#include "base.h"

struct projector;
struct rebuild;
struct storage;

MUST_CHECK int rebuild_new(struct storage *s, struct projector *projector, struct rebuild **ret);
void rebuild_free(struct rebuild *r);

/* Wants a rebuild; while one runs, nothing changes; while one is given up, another begins behind
 * it. */
MUST_CHECK int rebuild_request(struct rebuild *r);
/* The terms of the fold have changed: what was folded anew so far is not worth keeping. */
void rebuild_begin_anew(struct rebuild *r);
bool rebuild_is_running(const struct rebuild *r);
/* Running, and nothing may be taken away from the log or the live ledger's sums. */
bool rebuild_is_reading(const struct rebuild *r);
/* Running, or the tables it replaced are not emptied yet. */
bool rebuild_has_work(const struct rebuild *r);
/* One slice. A negative result is a failure of the store: it goes on later; any other failure, and
 * a full disk, ends the rebuild, see rebuild_progress. */
MUST_CHECK int rebuild_step(struct rebuild *r, int64_t budget_us);
/* The process ends in order: the next one begins again, and nobody died. */
MUST_CHECK int rebuild_stop(struct rebuild *r);

struct rebuild_progress {
	int64_t seq, target_seq; /* folded anew up to, of */
	int error; /* how the last one ended; 0: well, or none yet */
};
void rebuild_progress(const struct rebuild *r, struct rebuild_progress *ret);
