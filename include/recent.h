/* The latest event ids, when their events happened and where they are stored. A ring of fixed size
 * with a hash table over it; it remembers hashes, so a hit must be confirmed by the caller. One
 * thread.
 */
#pragma once

#include "base.h"

struct recent;

/* Remembers up to `size` ids (rounded up to a power of two). */
MUST_CHECK int recent_new(size_t size, struct recent **ret);
void recent_free(struct recent *r);
void recent_add(struct recent *r, struct span id, int64_t time_s, int64_t seq);
/* Forgets the n latest again: what added them did not happen. */
void recent_undo(struct recent *r, size_t n);
/* Calls back for everything remembered under this id, until it returns non-zero, which is
 * returned. */
int recent_find(const struct recent *r, struct span id,
		int (*fn)(void *ctx, int64_t time_s, int64_t seq), void *ctx);
