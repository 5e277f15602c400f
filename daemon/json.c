/* Documents: a cJSON tree behind a scanner that lets nothing doubtful near it.
 *
 * What stands: a document is one object of at most JSON_NODES_MAX values and JSON_DEPTH_MAX levels,
 * its strings are valid UTF-8 without NUL, and no object in it has two equal keys. Recursion over a
 * tree is therefore bounded. cJSON is seen here only. Of its globals the error position is touched
 * (and never read), and the allocator, once: a tree lives in an arena of its document, to which the
 * thread that builds it points. The process must stay in the C locale: numbers go through strtod
 * and printf.
 */
#include "json.h"

#include "arena.h"
#include "buffer.h"
#include "json_scan.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* Up to here comparing all pairs is cheaper than sorting. */
#define KEYS_PAIRWISE_MAX 16

/* Nodes and strings of a usual body need about this much for each of its bytes. */
#define TREE_BYTES_PER_BYTE 4

struct json_doc {
	struct arena arena;
	cJSON *root; /* in it */
};

static _Thread_local struct arena *building; /* where cJSON allocates meanwhile */

static const cJSON *item(const struct json_value *v)
{
	return (const cJSON *)v;
}

static const struct json_value *value(const cJSON *i)
{
	return (const struct json_value *)i;
}

static bool keys_collide_pairwise(const cJSON *object)
{
	for (const cJSON *a = object->child; a; a = a->next)
		for (const cJSON *b = a->next; b; b = b->next)
			if (strcmp(a->string, b->string) == 0)
				return true;
	return false;
}

static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_many_keys(const cJSON *object, size_t n)
{
	CLEANUP_FREE const char **keys = malloc(n * sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	size_t i = 0;
	for (const cJSON *m = object->child; m; m = m->next)
		keys[i++] = m->string;
	qsort(keys, n, sizeof(*keys), compare_keys);
	for (i = 1; i < n; i++)
		if (strcmp(keys[i - 1], keys[i]) == 0)
			return JSON_DUPLICATE_KEY;
	return 0;
}

static int check_keys(const cJSON *container)
{
	size_t n = 0;
	for (const cJSON *i = container->child; i; i = i->next, n++) {
		int r = i->child ? check_keys(i) : 0;
		if (r != 0)
			return r;
	}
	if (!cJSON_IsObject(container))
		return 0;
	if (n > KEYS_PAIRWISE_MAX)
		return check_many_keys(container, n);
	return keys_collide_pairwise(container) ? JSON_DUPLICATE_KEY : 0;
}

static void *allocate(size_t size)
{
	return arena_alloc(building, size);
}

static void let_go(void *piece)
{
}

static void set_allocator(void)
{
	cJSON_InitHooks(&(cJSON_Hooks) { .malloc_fn = allocate, .free_fn = let_go });
}

/* The tree of a text that the scanner accepted. That cJSON refuses it can only mean no memory. */
static cJSON *build_tree(struct arena *arena, const char *text, size_t len, bool repair)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	(void)pthread_once(&once, set_allocator);
	char *copy = repair ? arena_alloc(arena, len + 1) : NULL;
	if (repair && !copy)
		return NULL;
	if (copy) {
		memcpy(copy, text, len);
		copy[len] = '\0';
		json_scan_repair(copy, len);
	}
	const char *end = NULL;
	building = arena;
	cJSON *root = cJSON_ParseWithLengthOpts(copy ? copy : text, len, &end, 0);
	building = NULL;
	return root;
}

static void free_doc(struct json_doc **doc)
{
	json_doc_free(*doc);
}

int json_parse(const char *text, size_t len, struct json_doc **ret_doc)
{
	bool repair = false;
	int r = json_scan_text(text, len, &repair);
	if (r != 0)
		return r;
	CLEANUP(free_doc) struct json_doc *doc = calloc(1, sizeof(*doc));
	if (!doc)
		return -ENOMEM;
	if (arena_init(&doc->arena, TREE_BYTES_PER_BYTE * len + sizeof(cJSON)) == 0)
		doc->root = build_tree(&doc->arena, text, len, repair);
	if (!doc->root)
		return -ENOMEM;
	r = check_keys(doc->root);
	if (r != 0)
		return r;
	*ret_doc = doc;
	doc = NULL;
	return 0;
}

void json_doc_free(struct json_doc *doc)
{
	if (!doc)
		return;
	arena_finish(&doc->arena);
	free(doc);
}

const struct json_value *json_root(const struct json_doc *doc)
{
	return value(doc->root);
}

enum json_type json_type(const struct json_value *v)
{
	switch (item(v)->type & 0xff) {
	case cJSON_False:
	case cJSON_True:
		return JSON_BOOL;
	case cJSON_Number:
		return JSON_NUMBER;
	case cJSON_String:
		return JSON_STRING;
	case cJSON_Array:
		return JSON_ARRAY;
	case cJSON_Object:
		return JSON_OBJECT;
	default:
		return JSON_NULL;
	}
}

const struct json_value *json_member(const struct json_value *object, const char *name)
{
	if (!object || json_type(object) != JSON_OBJECT)
		return NULL;
	for (const cJSON *m = item(object)->child; m; m = m->next)
		if (m->string[0] == name[0] && strcmp(m->string, name) == 0)
			return value(m);
	return NULL;
}

bool json_bool(const struct json_value *v)
{
	return cJSON_IsTrue(item(v));
}

double json_number(const struct json_value *v)
{
	return item(v)->valuedouble;
}

struct span json_string(const struct json_value *v)
{
	if (json_type(v) != JSON_STRING)
		return SPAN_ABSENT;
	return (struct span) { item(v)->valuestring, strlen(item(v)->valuestring) };
}

bool json_integer(const struct json_value *v, int64_t *ret)
{
	const double limit = 9007199254740992.0; /* 2^53 */
	if (json_type(v) != JSON_NUMBER)
		return false;
	double number = json_number(v);
	if (!(number >= -limit && number <= limit) || number != floor(number))
		return false;
	*ret = (int64_t)number;
	return true;
}

const struct json_value *json_first(const struct json_value *container)
{
	return container ? value(item(container)->child) : NULL;
}

const struct json_value *json_next(const struct json_value *v)
{
	return value(item(v)->next);
}

const char *json_key(const struct json_value *v)
{
	return item(v)->string ? item(v)->string : "";
}

static bool scalars_equal(const struct json_value *a, const struct json_value *b)
{
	switch (json_type(a)) {
	case JSON_BOOL:
		return json_bool(a) == json_bool(b);
	case JSON_NUMBER: /* infinities of one sign are equal; there is no NaN */
		return !(json_number(a) < json_number(b)) && !(json_number(a) > json_number(b));
	case JSON_STRING:
		return strcmp(item(a)->valuestring, item(b)->valuestring) == 0;
	case JSON_NULL:
	case JSON_ARRAY:
	case JSON_OBJECT:
		break;
	}
	return true;
}

bool json_equal(const struct json_value *a, const struct json_value *b)
{
	if (json_type(a) != json_type(b) || !scalars_equal(a, b))
		return false;
	const struct json_value *x = json_first(a), *y = json_first(b);
	for (; x && y; x = json_next(x), y = json_next(y)) {
		bool in_order = strcmp(json_key(x), json_key(y)) == 0;
		const struct json_value *twin = in_order ? y : json_member(b, json_key(x));
		if (!twin || !json_equal(x, twin))
			return false;
	}
	return !x && !y;
}

bool json_is_utf8(const char *s, size_t len)
{
	while (len > 0) {
		size_t n = json_scan_utf8(s, len);
		if (n == 0)
			return false;
		s += n;
		len -= n;
	}
	return true;
}

/* The escape of a byte that may not stand as it is, or NULL. */
static const char *escape_of(unsigned char c, char text[static 8])
{
	static const char short_forms[0x20] = {
		['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'
	};
	int short_form = c < 0x20 ? short_forms[c] : '\0';
	if (c == '"' || c == '\\')
		short_form = c;
	if (short_form)
		(void)snprintf(text, 8, "\\%c", short_form);
	else if (c < 0x20)
		(void)snprintf(text, 8, "\\u%04x", (unsigned)c);
	else
		return NULL;
	return text;
}

/* How many bytes from s on need no change. */
static size_t plain_run(const char *s, size_t len)
{
	size_t at = 0;
	while (at < len) {
		unsigned char c = (unsigned char)s[at];
		size_t n = c < 0x80 ? 1 : json_scan_utf8(s + at, len - at);
		if (n == 0 || c < 0x20 || c == '"' || c == '\\')
			break;
		at += n;
	}
	return at;
}

static int append_quoted(struct buffer *b, struct span text)
{
	int r = buffer_append(b, "\"", 1);
	for (size_t at = 0; r == 0 && at < text.len; at++) {
		size_t n = plain_run(text.s + at, text.len - at);
		if (n > 0)
			r = buffer_append(b, text.s + at, n);
		at += n;
		if (r != 0 || at == text.len)
			break;
		char escape[8];
		const char *replacement = escape_of((unsigned char)text.s[at], escape);
		r = buffer_append_text(b, replacement ? replacement : "\xef\xbf\xbd");
	}
	return r != 0 ? r : buffer_append(b, "\"", 1);
}

/* Either all of it or nothing, as with buffer_append. */
static int keep_or_cut(struct buffer *b, size_t old_len, int result)
{
	if (result != 0 && b->data) {
		b->len = old_len;
		b->data[old_len] = '\0';
	}
	return result;
}

int json_append_string(struct buffer *b, struct span text)
{
	size_t old_len = b->len;
	return keep_or_cut(b, old_len, append_quoted(b, text));
}

/* The fewest digits that read back as the same double. */
static int append_number(struct buffer *b, const struct json_value *v)
{
	char text[40];
	int64_t integer = 0;
	double number = json_number(v);
	if (json_integer(v, &integer))
		return buffer_appendf(b, "%lld", (long long)integer);
	if (!isfinite(number))
		return buffer_append_text(b, "null");
	for (int digits = 15; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, number);
		double back = strtod(text, NULL);
		if (!(back < number) && !(back > number))
			break;
	}
	return buffer_append_text(b, text);
}

static int append_value(struct buffer *b, const struct json_value *v);

static int append_container(struct buffer *b, const struct json_value *v, const char *brackets)
{
	int r = buffer_append(b, &brackets[0], 1);
	bool object = brackets[0] == '{';
	for (const struct json_value *m = json_first(v); r == 0 && m; m = json_next(m)) {
		if (m != json_first(v))
			r = buffer_append(b, ",", 1);
		const char *key = json_key(m);
		if (r == 0 && object)
			r = append_quoted(b, (struct span) { key, strlen(key) });
		if (r == 0 && object)
			r = buffer_append(b, ":", 1);
		if (r == 0)
			r = append_value(b, m);
	}
	return r != 0 ? r : buffer_append(b, &brackets[1], 1);
}

static int append_value(struct buffer *b, const struct json_value *v)
{
	switch (json_type(v)) {
	case JSON_NULL:
		return buffer_append_text(b, "null");
	case JSON_BOOL:
		return buffer_append_text(b, json_bool(v) ? "true" : "false");
	case JSON_NUMBER:
		return append_number(b, v);
	case JSON_STRING:
		return append_quoted(b, json_string(v));
	case JSON_ARRAY:
		return append_container(b, v, "[]");
	case JSON_OBJECT:
		return append_container(b, v, "{}");
	}
	return -EINVAL;
}

int json_append_value(struct buffer *b, const struct json_value *v)
{
	size_t old_len = b->len;
	return keep_or_cut(b, old_len, append_value(b, v));
}
