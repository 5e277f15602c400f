/* Reading fields by table: one row says under which names a field comes, what it must be, and where
 * it goes. Internal to event.c and event_data.c. Pure.
 */
#pragma once

#include "base.h"
#include "event.h"

#define EVENT_FIELD_NAMES_MAX 3

enum event_field_type {
	EVENT_FIELD_ID, /* span; an empty string and the nil UUID are missing; the rule of ids */
	EVENT_FIELD_NAME, /* span; of an open set: any text, cut as TEXT is; an empty one is missing
			   */
	EVENT_FIELD_TEXT, /* span; cut at `max` bytes, at a character */
	EVENT_FIELD_TIME_NS, /* int64_t; RFC 3339 to unix ns */
	EVENT_FIELD_TIME_MS, /* int64_t; RFC 3339 to unix ms, truncated */
	EVENT_FIELD_INTEGER, /* int64_t; in [min, max] */
	EVENT_FIELD_DURATION, /* int64_t; ms in [0, max]; a non-integer is seconds, rounded half up
			       */
	EVENT_FIELD_BOOL, /* int64_t; 0 or 1 */
	EVENT_FIELD_OBJECT, /* const struct json_value * */
	EVENT_FIELD_ANY, /* const struct json_value *; any type: only conflicts are looked for */
};

/* What is missing (or null) leaves SPAN_ABSENT, EVENT_ABSENT or NULL at its place. */
struct event_field {
	const char *names[EVENT_FIELD_NAMES_MAX]; /* the first is what messages call it */
	enum event_field_type type;
	size_t offset; /* in the target struct */
	bool required;
	int64_t min, max;
};

struct event_object {
	const struct json_value *value; /* NULL: has no members */
	const char *path; /* "" or "event_data." */
};

/* 0 or a problem, with its detail written. */
MUST_CHECK int event_field_read_all(struct event_object o, const struct event_field *rows,
				    size_t n_rows, void *target,
				    char detail[static EVENT_DETAIL_MAX]);

/* Writes "PATHNAME: rule" and returns the problem. */
MUST_CHECK int event_field_problem(enum event_problem problem, const char *path, const char *name,
				   const char *rule, char detail[static EVENT_DETAIL_MAX]);

/* At most max bytes of a UTF-8 text, without half a character. An empty text becomes absent. */
struct span event_field_cut(struct span text, size_t max);
