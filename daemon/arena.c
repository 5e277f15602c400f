/* A list of chunks, each twice as large as the one before; only the newest is given out from. */
#include "arena.h"

#include <errno.h>
#include <stdalign.h>
#include <stddef.h>

#define PIECE_MAX (SIZE_MAX >> 16) /* sums of sizes do not overflow */

struct arena_chunk {
	struct arena_chunk *next;
	size_t size, used;
	alignas(max_align_t) char bytes[];
};

static struct arena_chunk *add_chunk(struct arena *a, size_t size)
{
	if (size > PIECE_MAX)
		return NULL;
	struct arena_chunk *chunk = malloc(sizeof(*chunk) + size);
	if (!chunk)
		return NULL;
	chunk->next = a->chunks;
	chunk->size = size;
	chunk->used = 0;
	a->chunks = chunk;
	return chunk;
}

int arena_init(struct arena *a, size_t size)
{
	a->chunks = NULL;
	return add_chunk(a, size) ? 0 : -ENOMEM;
}

void arena_finish(struct arena *a)
{
	if (!a)
		return;
	for (struct arena_chunk *chunk = a->chunks, *next; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
	a->chunks = NULL;
}

void *arena_alloc(struct arena *a, size_t size)
{
	const size_t align = alignof(max_align_t);
	if (size > PIECE_MAX)
		return NULL;
	size = (size + align - 1) / align * align;
	struct arena_chunk *chunk = a->chunks;
	if (!chunk || chunk->size - chunk->used < size)
		chunk = add_chunk(a, base_max_size(size, chunk ? 2 * chunk->size : size));
	if (!chunk)
		return NULL;
	void *piece = chunk->bytes + chunk->used;
	chunk->used += size;
	return piece;
}
