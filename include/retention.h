/* Retention: what goes when. Decides by horizons and sizes; the engine deletes, a few rows a slice,
 * between batches.
 *
 * The horizon of events follows the newest stored event (not the clock), is persisted and never
 * moves back. If event time leaps by more than a day beyond what the monotonic clock saw pass,
 * retention waits for an operator's word, and the horizon stays: a wrong clock destroys nothing.
 * Writer thread.
 */
#pragma once

#include "base.h"

struct config;
struct retention;
struct storage;

MUST_CHECK int retention_new(struct storage *s, struct retention **ret);
void retention_free(struct retention *r);
void retention_set_config(struct retention *r, const struct config *config);

/* Moves the horizon, sees whether there is something to prune. Once a second is plenty. */
MUST_CHECK int retention_tick(struct retention *r);
/* An operator's word: the leap is real, prune. */
MUST_CHECK int retention_confirm(struct retention *r);
bool retention_has_work(const struct retention *r);
/* One slice. */
MUST_CHECK int retention_step(struct retention *r);

struct retention_progress {
	bool waits; /* for an operator's word */
	int64_t pruned_events, pruned_sandboxes; /* since start */
};
void retention_progress(const struct retention *r, struct retention_progress *ret);
