/* Open addressing with linear probing over a table of ring positions. Forgetting the oldest deletes
 * its table entry by shifting the cluster back, so the table never fills with tombstones. The hash
 * is keyed: ids are the senders' choice. */
#include "recent.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

struct recent_entry {
	uint64_t hash;
	int64_t time_s, seq;
};

struct recent {
	uint64_t key;
	size_t ring_mask, table_mask;
	size_t n, next; /* entries in the ring; place of the next one */
	struct recent_entry *ring;
	uint32_t *table; /* ring position + 1; 0 empty */
};

int recent_new(size_t size, struct recent **ret)
{
	size_t n = 16;
	while (n < size)
		n *= 2;
	struct recent *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->ring_mask = n - 1;
	r->table_mask = 2 * n - 1;
	r->ring = calloc(n, sizeof(*r->ring));
	r->table = calloc(2 * n, sizeof(*r->table));
	if (!r->ring || !r->table) {
		recent_free(r);
		return -ENOMEM;
	}
	if (getrandom(&r->key, sizeof(r->key), GRND_NONBLOCK) != sizeof(r->key))
		r->key = (uint64_t)(uintptr_t)r;
	*ret = r;
	return 0;
}

void recent_free(struct recent *r)
{
	if (!r)
		return;
	free(r->ring);
	free(r->table);
	free(r);
}

static uint64_t hash_id(const struct recent *r, struct span id)
{
	uint64_t h = r->key ^ (id.len * UINT64_C(0x9e3779b97f4a7c15));
	for (size_t i = 0; i < id.len; i++)
		h = (h ^ (uint8_t)id.s[i]) * UINT64_C(0x100000001b3);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ (h >> 32);
}

/* Removes the table entry of a ring position, closing the gap in its cluster. */
static void forget(struct recent *r, size_t position)
{
	size_t i = r->ring[position].hash & r->table_mask;
	while (r->table[i] != position + 1)
		i = (i + 1) & r->table_mask;
	for (size_t j = i;;) {
		j = (j + 1) & r->table_mask;
		if (!r->table[j])
			break;
		size_t home = r->ring[r->table[j] - 1].hash & r->table_mask;
		bool movable = i <= j ? (home <= i || home > j) : (home <= i && home > j);
		if (movable) {
			r->table[i] = r->table[j];
			i = j;
		}
	}
	r->table[i] = 0;
}

void recent_add(struct recent *r, struct span id, int64_t time_s, int64_t seq)
{
	size_t position = r->next;
	if (r->n > r->ring_mask)
		forget(r, position);
	else
		r->n++;
	r->next = (position + 1) & r->ring_mask;
	uint64_t hash = hash_id(r, id);
	r->ring[position] = (struct recent_entry) { hash, time_s, seq };
	size_t i = hash & r->table_mask;
	while (r->table[i])
		i = (i + 1) & r->table_mask;
	r->table[i] = (uint32_t)(position + 1);
}

void recent_undo(struct recent *r, size_t n)
{
	for (; n && r->n; n--, r->n--) {
		r->next = (r->next - 1) & r->ring_mask;
		forget(r, r->next);
	}
}

int recent_find(const struct recent *r, struct span id,
		int (*fn)(void *ctx, int64_t time_s, int64_t seq), void *ctx)
{
	uint64_t hash = hash_id(r, id);
	for (size_t i = hash & r->table_mask; r->table[i]; i = (i + 1) & r->table_mask) {
		const struct recent_entry *e = &r->ring[r->table[i] - 1];
		if (e->hash != hash)
			continue;
		int k = fn(ctx, e->time_s, e->seq);
		if (k)
			return k;
	}
	return 0;
}
