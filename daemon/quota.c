#include "quota.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* A hash table of chains over a fixed array of entries: no allocation after the start, so a flood
 * of addresses cannot make it fail or grow. The hash is seeded by the address of the table, so that
 * nobody outside can aim at one chain.
 */

struct entry {
	uint8_t key[16];
	uint32_t held;
	uint32_t next; /* 1-based index, 0 ends */
};

struct quota {
	pthread_mutex_t lock; /* guards all below */
	uint64_t seed;
	uint32_t per_key;
	uint32_t n_buckets;
	uint32_t *buckets; /* 1-based index of the first entry */
	struct entry *entries;
	uint32_t free; /* chain of unused entries */
};

int quota_new(size_t per_key, size_t total, struct quota **ret)
{
	struct quota *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	(void)pthread_mutex_init(&q->lock, NULL);
	q->seed = (uint64_t)(uintptr_t)q;
	q->per_key = (uint32_t)per_key;
	q->n_buckets = (uint32_t)total;
	q->buckets = calloc(total, sizeof(*q->buckets));
	q->entries = calloc(total, sizeof(*q->entries));
	if (!q->buckets || !q->entries) {
		quota_free(q);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < total; i++)
		q->entries[i].next = i + 1 < total ? i + 2 : 0;
	q->free = 1;
	*ret = q;
	return 0;
}

void quota_free(struct quota *q)
{
	if (!q)
		return;
	(void)pthread_mutex_destroy(&q->lock);
	free(q->buckets);
	free(q->entries);
	free(q);
}

static uint32_t *bucket_of(struct quota *q, const uint8_t key[static 16])
{
	uint64_t halves[2], h;

	memcpy(halves, key, 16);
	h = (q->seed ^ halves[0]) * UINT64_C(0x9e3779b97f4a7c15);
	h = ((h ^ (h >> 29)) ^ halves[1]) * UINT64_C(0xbf58476d1ce4e5b9);
	h ^= h >> 32;
	return &q->buckets[h % q->n_buckets];
}

/* The link that leads to the key's entry, or the end of its chain. */
static uint32_t *find(struct quota *q, const uint8_t key[static 16])
{
	uint32_t *link = bucket_of(q, key);

	while (*link && memcmp(q->entries[*link - 1].key, key, 16) != 0)
		link = &q->entries[*link - 1].next;
	return link;
}

static bool take(struct quota *q, const uint8_t key[static 16])
{
	uint32_t *link = find(q, key);
	struct entry *entry;

	if (!*link) {
		if (!q->free)
			return false;
		entry = &q->entries[q->free - 1];
		*link = q->free;
		q->free = entry->next;
		entry->next = 0;
		entry->held = 0;
		memcpy(entry->key, key, 16);
	}
	entry = &q->entries[*link - 1];
	if (entry->held >= q->per_key)
		return false;
	entry->held++;
	return true;
}

bool quota_take(struct quota *q, const uint8_t key[static 16])
{
	bool taken;

	(void)pthread_mutex_lock(&q->lock);
	taken = take(q, key);
	(void)pthread_mutex_unlock(&q->lock);
	return taken;
}

void quota_release(struct quota *q, const uint8_t key[static 16])
{
	uint32_t *link;

	(void)pthread_mutex_lock(&q->lock);
	link = find(q, key);
	assert(*link);
	if (--q->entries[*link - 1].held == 0) {
		uint32_t index = *link;

		*link = q->entries[index - 1].next;
		q->entries[index - 1].next = q->free;
		q->free = index;
	}
	(void)pthread_mutex_unlock(&q->lock);
}
