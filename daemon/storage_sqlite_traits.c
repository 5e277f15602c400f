/* See the header. The memory is direct-mapped by hash: a miss costs a query, nothing else. */
#include "storage_sqlite_traits.h"

#include "storage_sqlite_fields.h"

#include <errno.h>
#include <string.h>

#define CACHED 512 /* a power of two */

struct traits_entry {
	int64_t key; /* 0: empty */
	enum storage_traits table;
	int64_t values[STORAGE_TRAITS_MAX];
};

struct traits {
	struct traits_entry entries[CACHED];
};

static const struct {
	enum storage_sql get, add;
} traits_sql[] = {
	[STORAGE_EVENT_TRAITS] = { SQL_EVENT_TRAITS_GET, SQL_EVENT_TRAITS_ADD },
	[STORAGE_LINK_TRAITS] = { SQL_LINK_TRAITS_GET, SQL_LINK_TRAITS_ADD },
	[STORAGE_EXECUTION_TRAITS] = { SQL_EXECUTION_TRAITS_GET, SQL_EXECUTION_TRAITS_ADD },
	[STORAGE_RUN_TRAITS] = { SQL_RUN_TRAITS_GET, SQL_RUN_TRAITS_ADD },
};

static struct traits_entry *slot_of(struct traits *t, const struct traits_entry *wanted)
{
	uint64_t h = (uint64_t)wanted->table + 1;
	for (size_t i = 0; i < STORAGE_TRAITS_MAX; i++) {
		h = (h ^ (uint64_t)wanted->values[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return &t->entries[h & (CACHED - 1)];
}

static bool is_same(const struct traits_entry *a, const struct traits_entry *b)
{
	return a->key && a->table == b->table &&
	       memcmp(a->values, b->values, sizeof(a->values)) == 0;
}

static struct fields give_values(struct storage *s, enum storage_sql sql,
				 const struct traits_entry *entry, size_t n)
{
	struct fields f = storage_sqlite_fields(s, sql);
	for (size_t i = 0; i < n; i++)
		storage_sqlite_give_absent(&f, entry->values[i]);
	return f;
}

static int find_or_add(struct storage *s, struct traits_entry *entry, size_t n)
{
	struct fields f = give_values(s, traits_sql[entry->table].get, entry, n);
	int r = storage_sqlite_given(&f);
	if (r < 0)
		return r;
	r = storage_sqlite_step(s, f.statement);
	if (r == 1) {
		entry->key = sqlite3_column_int64(f.statement, 0);
		(void)sqlite3_reset(f.statement);
	}
	if (r != 0)
		return r < 0 ? r : 0;
	f = give_values(s, traits_sql[entry->table].add, entry, n);
	r = storage_sqlite_give_end(&f);
	entry->key = sqlite3_last_insert_rowid(s->db);
	return r;
}

int storage_sqlite_traits_key(struct storage *s, enum storage_traits table, const int64_t *values,
			      size_t n, int64_t *ret_key)
{
	assert(n <= STORAGE_TRAITS_MAX);
	if (!s->traits)
		s->traits = calloc(1, sizeof(*s->traits));
	if (!s->traits)
		return -ENOMEM;
	struct traits_entry wanted = { .table = table };
	memcpy(wanted.values, values, n * sizeof(*values));
	struct traits_entry *slot = slot_of(s->traits, &wanted);
	if (!is_same(slot, &wanted)) {
		int r = find_or_add(s, &wanted, n);
		if (r < 0)
			return r;
		*slot = wanted;
	}
	*ret_key = slot->key;
	return 0;
}

void storage_sqlite_traits_forget(struct storage *s)
{
	if (s->traits)
		memset(s->traits, 0, sizeof(*s->traits));
}

void storage_sqlite_traits_finish(struct storage *s)
{
	free(s->traits);
	s->traits = NULL;
}
