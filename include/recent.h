/* The latest event ids and when their events happened: finds an id that comes again with another
 * time, which the identity index (second, id) cannot see. A ring of fixed size with a hash table
 * over it; it remembers hashes, so a hit must be confirmed by the caller. One thread.
 */
#pragma once

#include "base.h"

struct recent;

/* Remembers up to `size` ids (rounded up to a power of two). */
MUST_CHECK int recent_new(size_t size, struct recent **ret);
void recent_free(struct recent *r);
void recent_add(struct recent *r, struct span id, int64_t time_s);
/* Calls back for every remembered time of this id other than time_s, until it returns non-zero,
 * which is returned. */
int recent_others(const struct recent *r, struct span id, int64_t time_s,
		  int (*fn)(void *ctx, int64_t time_s), void *ctx);
