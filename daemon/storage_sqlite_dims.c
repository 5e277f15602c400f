/* Dimensions: words that come again and again, as small integer keys. A direct-mapped cache keeps
 * the hot ones; after a rollback it is emptied, for keys given in the lost transaction may be given
 * again to others. */
#include "storage_sqlite_internal.h"

#include <errno.h>
#include <string.h>

static const struct {
	enum storage_sql get, add, text;
} dim_sql[] = {
	[STORAGE_SOURCE] = { SQL_SOURCE_GET, SQL_SOURCE_ADD, SQL_SOURCE_TEXT },
	[STORAGE_TEMPLATE] = { SQL_TEMPLATE_GET, SQL_TEMPLATE_ADD, SQL_TEMPLATE_TEXT },
	[STORAGE_TEAM] = { SQL_TEAM_GET, SQL_TEAM_ADD, SQL_TEAM_TEXT },
	[STORAGE_BUILD] = { SQL_BUILD_GET, SQL_BUILD_ADD, SQL_BUILD_TEXT },
	[STORAGE_WORD] = { SQL_WORD_GET, SQL_WORD_ADD, SQL_WORD_TEXT },
};

static struct storage_dim_entry *cache_slot(struct storage_dim_cache *cache, struct span text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < text.len; i++)
		h = (h ^ (uint8_t)text.s[i]) * UINT64_C(0x100000001b3);
	return &cache->entries[(h ^ (h >> 29)) & (STORAGE_DIM_CACHE - 1)];
}

static bool cache_get(struct storage_dim_cache *cache, struct span text, int64_t *ret_key)
{
	const struct storage_dim_entry *e = cache_slot(cache, text);
	if (!e->text || strlen(e->text) != text.len || memcmp(e->text, text.s, text.len) != 0)
		return false;
	*ret_key = e->key;
	return true;
}

static void cache_put(struct storage_dim_cache *cache, struct span text, int64_t key)
{
	char *copy = strndup(text.s, text.len);
	if (!copy)
		return; /* only a cache */
	struct storage_dim_entry *e = cache_slot(cache, text);
	free(e->text);
	*e = (struct storage_dim_entry) { copy, key };
}

static void cache_clear(struct storage_dim_cache *cache)
{
	for (size_t i = 0; i < STORAGE_DIM_CACHE; i++)
		free(cache->entries[i].text);
	memset(cache, 0, sizeof(*cache));
}

void storage_sqlite_forget_dims(struct storage *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(s->dims); i++)
		cache_clear(&s->dims[i]);
	cache_clear(&s->types);
}

void storage_sqlite_dims_finish(struct storage *s)
{
	storage_sqlite_forget_dims(s);
}

/* What names a row: a text, for types the kind and version too. */
struct dim_name {
	const char *format;
	struct span text;
	int64_t kind;
	struct span version;
};

/* Leaves the key 0 if there is no such row. */
static int get(struct storage *s, enum storage_sql sql, const struct dim_name *name,
	       int64_t *ret_key)
{
	*ret_key = 0;
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(s, statement, name->format, name->text, name->kind,
				    name->version);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret_key = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 0;
}

static int add(struct storage *s, enum storage_sql sql, const struct dim_name *name,
	       int64_t *ret_key)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(s, statement, name->format, name->text, name->kind,
				    name->version);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	if (r == 0)
		*ret_key = sqlite3_last_insert_rowid(s->db);
	return r;
}

static int known_key(struct storage *s, enum storage_dim dim, struct span text, int64_t *ret_key)
{
	*ret_key = 0;
	if (!text.s || text.len == 0 || cache_get(&s->dims[dim], text, ret_key))
		return 0;
	const struct dim_name name = { "s", text, 0, SPAN_ABSENT };
	int r = get(s, dim_sql[dim].get, &name, ret_key);
	if (r == 0 && *ret_key)
		cache_put(&s->dims[dim], text, *ret_key);
	return r;
}

int storage_key(struct storage *s, enum storage_dim dim, struct span text, int64_t *ret_key)
{
	int r = known_key(s, dim, text, ret_key);
	if (r < 0 || *ret_key || !text.s || text.len == 0)
		return r;
	const struct dim_name name = { "s", text, 0, SPAN_ABSENT };
	r = add(s, dim_sql[dim].add, &name, ret_key);
	if (r == 0)
		cache_put(&s->dims[dim], text, *ret_key);
	return r;
}

int storage_sqlite_type_key(struct storage *s, const struct event *event, int64_t *ret_key)
{
	/* The length tells where the type ends: both may hold any character of an id. */
	char text[2 * EVENT_TYPE_MAX + 320];
	int len = snprintf(text, sizeof(text), "%d/%zu/%.*s/%.*s", (int)event->kind,
			   event->type.len, (int)event->type.len, event->type.s,
			   (int)event->version.len, event->version.s ? event->version.s : "");
	struct span cached = { text, base_min_size((size_t)len, sizeof(text) - 1) };
	bool cacheable = (size_t)len < sizeof(text) && event->version.s;
	if (cacheable && cache_get(&s->types, cached, ret_key))
		return 0;
	const struct dim_name name = { "sis", event->type, event->kind, event->version };
	int r = get(s, SQL_TYPE_GET, &name, ret_key);
	if (r == 0 && *ret_key == 0)
		r = add(s, SQL_TYPE_ADD, &name, ret_key);
	if (r == 0 && cacheable)
		cache_put(&s->types, cached, *ret_key);
	return r;
}

int storage_text(struct storage *s, enum storage_dim dim, int64_t key, char *buf, size_t size)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, dim_sql[dim].text);
	int r = storage_sqlite_bind(s, statement, "i", key);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r < 0)
		return r;
	if (r == 0)
		return -ENOENT;
	storage_sqlite_copy(statement, 0, buf, size);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_clear_aliases(struct storage *s)
{
	return storage_sqlite_run(s, storage_sqlite_statement(s, SQL_TEMPLATE_NO_ALIAS));
}

int storage_set_alias(struct storage *s, struct span template_id, const char *alias)
{
	int64_t key;
	int r = storage_key(s, STORAGE_TEMPLATE, template_id, &key);
	if (r < 0)
		return r;
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_TEMPLATE_ALIAS);
	r = storage_sqlite_bind(s, statement, "ci", alias, key);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}
