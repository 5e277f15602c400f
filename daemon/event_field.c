/* One field at a time: find it under any of its names, check it, put it in its place.
 *
 * A field is looked up under all its names before it is believed: two names with different values
 * are a conflict, wherever the value would have been used. Messages are made of our own names and
 * rules only, never of what was sent.
 */
#include "event_field.h"

#include "clock.h"

#include <math.h>
#include <string.h>

/* The JSON type of each kind of field but ANY, and what to say of another. */
static const struct type_rule {
	enum json_type type;
	const char *rule;
} type_rules[] = {
	[EVENT_FIELD_ID] = { JSON_STRING, "must be a string" },
	[EVENT_FIELD_NAME] = { JSON_STRING, "must be a string" },
	[EVENT_FIELD_TEXT] = { JSON_STRING, "must be a string" },
	[EVENT_FIELD_TIME_NS] = { JSON_STRING, "must be a string with an RFC 3339 time" },
	[EVENT_FIELD_TIME_MS] = { JSON_STRING, "must be a string with an RFC 3339 time" },
	[EVENT_FIELD_INTEGER] = { JSON_NUMBER, "must be a number" },
	[EVENT_FIELD_DURATION] = { JSON_NUMBER, "must be a number" },
	[EVENT_FIELD_BOOL] = { JSON_BOOL, "must be true or false" },
	[EVENT_FIELD_OBJECT] = { JSON_OBJECT, "must be an object" },
};

struct reading {
	const struct event_field *row;
	const char *path;
	const char *name; /* the one that was sent */
	const struct json_value *value;
	char *detail;
};

int event_field_problem(enum event_problem problem, const char *path, const char *name,
			const char *rule, char detail[static EVENT_DETAIL_MAX])
{
	(void)snprintf(detail, EVENT_DETAIL_MAX, "%s%s: %s", path, name, rule);
	return (int)problem;
}

static int problem_of(const struct reading *r, enum event_problem problem, const char *rule)
{
	return event_field_problem(problem, r->path, r->name, rule, r->detail);
}

struct span event_field_cut(struct span text, size_t max)
{
	if (text.len == 0)
		return SPAN_ABSENT;
	if (text.len <= max)
		return text;
	size_t len = max;
	while (len > 0 && ((unsigned char)text.s[len] & 0xc0) == 0x80)
		len--;
	return (struct span) { text.s, len };
}

/* 32 zeros, with or without dashes. */
static bool is_nil_uuid(struct span id)
{
	size_t zeros = 0;
	for (size_t i = 0; i < id.len; i++) {
		if (id.s[i] == '0')
			zeros++;
		else if (id.s[i] != '-')
			return false;
	}
	return zeros == 32;
}

static bool is_id_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c != '\0' && strchr("._:#/@+-", c));
}

/* Why this is no id; NULL if it is one. */
static const char *id_fault(struct span id)
{
	if (id.len > EVENT_ID_MAX)
		return "longer than 128 bytes";
	size_t segment = 0; /* where the current path segment begins */
	for (size_t i = 0; i <= id.len; i++) {
		if (i < id.len && id.s[i] != '/') {
			if (!is_id_char(id.s[i]))
				return "only letters, digits and ._:#/@+- are allowed";
			continue;
		}
		if (i - segment == 2 && memcmp(id.s + segment, "..", 2) == 0)
			return "a path segment `..` is not allowed";
		segment = i + 1;
	}
	return NULL;
}

static int read_id(const struct reading *r, struct span *ret)
{
	const char *fault = id_fault(json_string(r->value));
	if (fault)
		return problem_of(r, EVENT_BAD_ID, fault);
	*ret = json_string(r->value);
	return 0;
}

static int read_time(const struct reading *r, int64_t unit_ns, int64_t *ret)
{
	struct span text = json_string(r->value);
	int64_t ns = 0;
	if (clock_parse_rfc3339(text.s, text.len, &ns) != 0)
		return problem_of(r, EVENT_BAD_TIME, "not an RFC 3339 time from 1970 to 2261");
	*ret = ns / unit_ns;
	return 0;
}

static int read_integer(const struct reading *r, int64_t *ret)
{
	int64_t n = 0;
	if (!json_integer(r->value, &n) || n < r->row->min || n > r->row->max) {
		char rule[96];
		(void)snprintf(rule, sizeof(rule), "must be an integer from %lld to %lld",
			       (long long)r->row->min, (long long)r->row->max);
		return problem_of(r, EVENT_BAD_NUMBER, rule);
	}
	*ret = n;
	return 0;
}

/* Half up as the decimal text has it: its double may lie a hair below the half, hence the nudge. */
static double seconds_to_ms(double seconds)
{
	double ms = nextafter(nextafter(seconds * 1000, INFINITY), INFINITY);
	return floor(ms + 0.5);
}

static int read_duration(const struct reading *r, int64_t *ret)
{
	double number = json_number(r->value), max = (double)r->row->max;
	if (!(number >= 0 && number <= max))
		return problem_of(r, EVENT_BAD_NUMBER, "negative or more than ten years");
	double ms = number > floor(number) ? seconds_to_ms(number) : number;
	if (ms > max)
		return problem_of(r, EVENT_BAD_NUMBER, "negative or more than ten years");
	*ret = (int64_t)ms;
	return 0;
}

static int read_value(const struct reading *r, void *place)
{
	switch (r->row->type) {
	case EVENT_FIELD_ID:
		return read_id(r, place);
	case EVENT_FIELD_NAME:
	case EVENT_FIELD_TEXT:
		*(struct span *)place = event_field_cut(json_string(r->value), (size_t)r->row->max);
		return 0;
	case EVENT_FIELD_TIME_NS:
		return read_time(r, 1, place);
	case EVENT_FIELD_TIME_MS:
		return read_time(r, CLOCK_NS_PER_MS, place);
	case EVENT_FIELD_INTEGER:
		return read_integer(r, place);
	case EVENT_FIELD_DURATION:
		return read_duration(r, place);
	case EVENT_FIELD_BOOL:
		*(int64_t *)place = json_bool(r->value);
		return 0;
	case EVENT_FIELD_OBJECT:
	case EVENT_FIELD_ANY:
		*(const struct json_value **)place = r->value;
		return 0;
	}
	return 0;
}

static void set_absent(enum event_field_type type, void *place)
{
	switch (type) {
	case EVENT_FIELD_ID:
	case EVENT_FIELD_NAME:
	case EVENT_FIELD_TEXT:
		*(struct span *)place = SPAN_ABSENT;
		return;
	case EVENT_FIELD_TIME_NS:
	case EVENT_FIELD_TIME_MS:
	case EVENT_FIELD_INTEGER:
	case EVENT_FIELD_DURATION:
	case EVENT_FIELD_BOOL:
		*(int64_t *)place = EVENT_ABSENT;
		return;
	case EVENT_FIELD_OBJECT:
	case EVENT_FIELD_ANY:
		*(const struct json_value **)place = NULL;
		return;
	}
}

static bool counts_as_missing(enum event_field_type type, const struct json_value *v)
{
	if (json_type(v) != JSON_STRING || type == EVENT_FIELD_ANY)
		return false;
	struct span text = json_string(v);
	return text.len == 0 || (type == EVENT_FIELD_ID && is_nil_uuid(text));
}

static int check_conflict(struct reading *r, const struct json_value *v, const char *name)
{
	char rule[64];
	if (!r->value) {
		r->value = v;
		r->name = name;
		return 0;
	}
	if (json_equal(r->value, v))
		return 0;
	(void)snprintf(rule, sizeof(rule), "%s says something else", name);
	return problem_of(r, EVENT_CONFLICT, rule);
}

/* Leaves r->value NULL if the field is missing under all its names. */
static int find_value(struct reading *r, struct event_object o)
{
	enum event_field_type type = r->row->type;
	for (size_t i = 0; i < EVENT_FIELD_NAMES_MAX && r->row->names[i]; i++) {
		const char *name = r->row->names[i];
		const struct json_value *v = json_member(o.value, name);
		if (!v || json_type(v) == JSON_NULL)
			continue;
		if (type != EVENT_FIELD_ANY && json_type(v) != type_rules[type].type)
			return event_field_problem(EVENT_WRONG_TYPE, r->path, name,
						   type_rules[type].rule, r->detail);
		if (counts_as_missing(type, v))
			continue;
		int result = check_conflict(r, v, name);
		if (result != 0)
			return result;
	}
	return 0;
}

static int read_field(struct event_object o, const struct event_field *row, void *place,
		      char *detail)
{
	struct reading r = { row, o.path, row->names[0], NULL, detail };
	set_absent(row->type, place);
	int result = find_value(&r, o);
	if (result != 0)
		return result;
	if (r.value)
		return read_value(&r, place);
	return row->required ? problem_of(&r, EVENT_MISSING_FIELD, "missing") : 0;
}

int event_field_read_all(struct event_object o, const struct event_field *rows, size_t n_rows,
			 void *target, char detail[static EVENT_DETAIL_MAX])
{
	for (size_t i = 0; i < n_rows; i++) {
		int r = read_field(o, &rows[i], (char *)target + rows[i].offset, detail);
		if (r != 0)
			return r;
	}
	return 0;
}
