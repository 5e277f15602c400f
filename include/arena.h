/* Memory that is given out in small pieces and taken back all at once: for trees that live and die
 * as a whole. Pieces are aligned for any type and never moved. One thread at a time.
 */
#pragma once

#include "base.h"

struct arena {
	struct arena_chunk *chunks; /* the newest first */
};

/* Makes an arena whose first chunk holds `size` bytes. */
MUST_CHECK int arena_init(struct arena *a, size_t size);
/* Takes NULL and zero. */
void arena_finish(struct arena *a);
/* NULL: no memory. */
void *arena_alloc(struct arena *a, size_t size);
