/* The strict JSON reader: exactly one object of valid UTF-8 and nothing but white space around it.
 *
 * cJSON builds the tree; it is too lax to be let near raw input (trailing bytes, NUL and control
 * characters as blanks, invalid UTF-8, BOM, `007`, truncation at \u0000, duplicate keys,
 * case-insensitive look-up), so a scanner of our own accepts RFC 8259 and nothing else first, in
 * one pass without recursion. Then, in a copy, \u0000 and lone surrogate escapes become U+FFFD
 * before cJSON sees them. Pure; any thread.
 */
#pragma once

#include "base.h"

#define JSON_DEPTH_MAX 32
#define JSON_NODES_MAX 20000

struct json_doc;
struct json_value; /* belongs to its document */

/* Outcomes of json_parse, in order of precedence. The first is the shape of a length extension
 * (never legitimate); the others are one well-formed object that we refuse to work with. */
enum json_outcome {
	JSON_NOT_ONE_OBJECT = 1, /* syntax, encoding, another top level, anything behind it */
	JSON_TOO_DEEP, /* nested over JSON_DEPTH_MAX (the top object is level 1) */
	JSON_TOO_MANY, /* over JSON_NODES_MAX values */
	JSON_DUPLICATE_KEY, /* in any object, compared after unescaping and repair */
};

/* 0, an outcome, or -ENOMEM. `text` need not be NUL-terminated and is not kept. */
MUST_CHECK int json_parse(const char *text, size_t len, struct json_doc **ret_doc);
void json_doc_free(struct json_doc *doc);

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

const struct json_value *json_root(const struct json_doc *doc);
enum json_type json_type(const struct json_value *v);
/* Member by exact, case-sensitive name; NULL if absent, or if `object` is NULL or not an object. */
const struct json_value *json_member(const struct json_value *object, const char *name);
bool json_bool(const struct json_value *v);
double json_number(const struct json_value *v); /* may be infinite: 1e400 is well-formed JSON */
/* Unescaped, NUL-terminated, valid UTF-8; absent if not a string. */
struct span json_string(const struct json_value *v);
/* True if it is a number, integral and within [-2^53, 2^53]. `3.0` and `3e0` are integral. */
bool json_integer(const struct json_value *v, int64_t *ret);
/* Members or elements in order: first child, then next. key is "" for array elements.
 * Of nothing (NULL) there is no first. */
const struct json_value *json_first(const struct json_value *container);
const struct json_value *json_next(const struct json_value *v);
const char *json_key(const struct json_value *v);
/* The same value? Elements must be the same in the same order, members in any. */
bool json_equal(const struct json_value *a, const struct json_value *b);

/* Valid UTF-8 without surrogates and overlong forms? */
bool json_is_utf8(const char *s, size_t len);

/* Writing. Both append all or nothing and return what buffer_append returns. */
struct buffer;
/* `text` as a quoted JSON string: control characters, quotes and backslashes escaped, valid UTF-8
 * as it is, bytes that are none as U+FFFD. An absent text is written as "". */
MUST_CHECK int json_append_string(struct buffer *b, struct span text);
/* The value as compact text, members in order. Numbers are doubles: integers beyond 2^53 are
 * rounded, infinite ones are written as null. */
MUST_CHECK int json_append_value(struct buffer *b, const struct json_value *v);
