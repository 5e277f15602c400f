/* One pass over the text, without recursion: RFC 8259 and nothing beside it.
 *
 * The open containers are a stack of bits (object or array) that grows with the depth, so that a
 * hostile megabyte of brackets costs an eighth of it. Depth and number of values are counted, not
 * enforced: only a text that is well-formed to its last byte may be called too deep or too large,
 * everything else has the shape of a forgery and must be told apart. Duplicate keys are the tree's
 * business (json.c).
 */
#include "json_scan.h"

#include "json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define STACK_INLINE_BYTES 16

/* cJSON before 1.7.19, unless patched, copies a number into 64 bytes and takes what is left for the
 * next token. */
#define NUMBER_TEXT_MAX 63

struct scan {
	const char *at, *end;
	size_t depth;
	size_t n_values;
	bool too_deep;
	bool fresh; /* nothing in the innermost container yet */
	bool repair;
	uint8_t *stack; /* bit i: container i is an object; NULL: the inline one */
	size_t stack_bytes;
	uint8_t stack_inline[STACK_INLINE_BYTES];
};

static void scan_finish(struct scan *s)
{
	free(s->stack);
}

/* RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. */
size_t json_scan_utf8(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;
	if (len == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	size_t n = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : 0;
	unsigned char low = 0x80, high = 0xbf; /* of the second byte */
	if (s[0] >= 0xe0 && s[0] <= 0xef) {
		n = 3;
		low = s[0] == 0xe0 ? 0xa0 : 0x80;
		high = s[0] == 0xed ? 0x9f : 0xbf;
	} else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
		n = 4;
		low = s[0] == 0xf0 ? 0x90 : 0x80;
		high = s[0] == 0xf4 ? 0x8f : 0xbf;
	}
	if (n == 0 || len < n || s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return n;
}

static uint8_t *scan_stack(struct scan *s)
{
	return s->stack ? s->stack : s->stack_inline;
}

static int scan_grow_stack(struct scan *s)
{
	size_t bytes = s->stack_bytes * 2;
	uint8_t *stack = realloc(s->stack, bytes);
	if (!stack)
		return -ENOMEM;
	if (!s->stack)
		memcpy(stack, s->stack_inline, sizeof(s->stack_inline));
	s->stack = stack;
	s->stack_bytes = bytes;
	return 0;
}

/* Steps over the opening bracket. */
static int scan_open(struct scan *s)
{
	if (s->depth == s->stack_bytes * 8) {
		int r = scan_grow_stack(s);
		if (r < 0)
			return r;
	}
	uint8_t *byte = scan_stack(s) + s->depth / 8;
	unsigned bit = 1u << (s->depth % 8);
	*byte = (uint8_t)(*s->at == '{' ? *byte | bit : *byte & ~bit);
	s->at++;
	s->depth++;
	s->too_deep = s->too_deep || s->depth > JSON_DEPTH_MAX;
	s->fresh = true;
	return 0;
}

static bool scan_in_object(struct scan *s)
{
	size_t top = s->depth - 1;
	return (scan_stack(s)[top / 8] >> (top % 8)) & 1;
}

static void scan_blanks(struct scan *s)
{
	while (s->at < s->end &&
	       (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
		s->at++;
}

/* Takes the one character c, or nothing. */
static bool scan_take(struct scan *s, char c)
{
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The code unit of `\uXXXX` at s, or -1. */
static int unicode_unit(const char *s, const char *end)
{
	if (end - s < 6 || s[0] != '\\' || s[1] != 'u')
		return -1;
	int unit = 0;
	for (int i = 2; i < 6; i++) {
		int digit = hex_value(s[i]);
		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

/* Length of the unicode escape at s: 6, 12 for a surrogate pair, 0 if malformed. Not sound: U+0000
 * or a surrogate without its other half. */
static size_t unicode_escape(const char *s, const char *end, bool *ret_sound)
{
	int unit = unicode_unit(s, end);
	if (unit < 0)
		return 0;
	if (unit >= 0xd800 && unit <= 0xdbff) {
		int low = unicode_unit(s + 6, end);
		*ret_sound = low >= 0xdc00 && low <= 0xdfff;
		return *ret_sound ? 12 : 6;
	}
	*ret_sound = unit != 0 && !(unit >= 0xdc00 && unit <= 0xdfff);
	return 6;
}

static bool scan_escape(struct scan *s)
{
	if (s->end - s->at < 2)
		return false;
	if (s->at[1] != 'u') {
		bool known = s->at[1] != '\0' && strchr("\"\\/bfnrt", s->at[1]);
		s->at += 2;
		return known;
	}
	bool sound = true;
	size_t n = unicode_escape(s->at, s->end, &sound);
	s->at += n;
	s->repair = s->repair || !sound;
	return n > 0;
}

static bool scan_string(struct scan *s)
{
	if (!scan_take(s, '"'))
		return false;
	while (s->at < s->end) {
		unsigned char c = (unsigned char)*s->at;
		if (c == '"') {
			s->at++;
			return true;
		}
		if (c == '\\') {
			if (!scan_escape(s))
				return false;
		} else if (c < 0x20) {
			return false;
		} else {
			size_t n = c < 0x80 ? 1 : json_scan_utf8(s->at, (size_t)(s->end - s->at));
			if (n == 0)
				return false;
			s->at += n;
		}
	}
	return false;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool scan_digits(struct scan *s)
{
	const char *first = s->at;
	while (s->at < s->end && is_digit(*s->at))
		s->at++;
	return s->at > first;
}

static bool scan_number(struct scan *s)
{
	const char *first = s->at;
	(void)scan_take(s, '-');
	if (!scan_take(s, '0') && !scan_digits(s))
		return false;
	if (scan_take(s, '.') && !scan_digits(s))
		return false;
	if (scan_take(s, 'e') || scan_take(s, 'E')) {
		if (!scan_take(s, '-'))
			(void)scan_take(s, '+');
		if (!scan_digits(s))
			return false;
	}
	s->repair = s->repair || s->at - first > NUMBER_TEXT_MAX;
	return true;
}

static bool scan_word(struct scan *s, const char *word, size_t len)
{
	if ((size_t)(s->end - s->at) < len || memcmp(s->at, word, len) != 0)
		return false;
	s->at += len;
	return true;
}

static bool scan_scalar(struct scan *s)
{
	s->fresh = false;
	switch (*s->at) {
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true", 4);
	case 'f':
		return scan_word(s, "false", 5);
	case 'n':
		return scan_word(s, "null", 4);
	default:
		return scan_number(s);
	}
}

/* One value, of a container only its opening. */
static int scan_value(struct scan *s)
{
	scan_blanks(s);
	if (s->at == s->end)
		return JSON_NOT_ONE_OBJECT;
	s->n_values++;
	if (*s->at == '{' || *s->at == '[')
		return scan_open(s);
	return scan_scalar(s) ? 0 : JSON_NOT_ONE_OBJECT;
}

/* The next thing inside the innermost container: its end, or a member or element. */
static int scan_step(struct scan *s)
{
	bool object = scan_in_object(s);
	scan_blanks(s);
	if (scan_take(s, object ? '}' : ']')) {
		s->depth--;
		s->fresh = false;
		return 0;
	}
	if (!s->fresh && !scan_take(s, ','))
		return JSON_NOT_ONE_OBJECT;
	if (object) {
		scan_blanks(s);
		if (!scan_string(s))
			return JSON_NOT_ONE_OBJECT;
		scan_blanks(s);
		if (!scan_take(s, ':'))
			return JSON_NOT_ONE_OBJECT;
	}
	return scan_value(s);
}

int json_scan_text(const char *text, size_t len, bool *ret_repair)
{
	CLEANUP(scan_finish) struct scan s = { .stack_bytes = STACK_INLINE_BYTES };
	if (len == 0)
		return JSON_NOT_ONE_OBJECT;
	s.at = text;
	s.end = text + len;
	scan_blanks(&s);
	if (s.at == s.end || *s.at != '{')
		return JSON_NOT_ONE_OBJECT;
	int r = scan_value(&s);
	while (r == 0 && s.depth > 0)
		r = scan_step(&s);
	if (r != 0)
		return r;
	scan_blanks(&s);
	if (s.at != s.end)
		return JSON_NOT_ONE_OBJECT;
	if (s.too_deep)
		return JSON_TOO_DEEP;
	if (s.n_values > JSON_NODES_MAX)
		return JSON_TOO_MANY;
	*ret_repair = s.repair;
	return 0;
}

static size_t repair_escape(char *s, const char *end)
{
	if (s[1] != 'u')
		return 2;
	bool sound = true;
	size_t n = unicode_escape(s, end, &sound);
	assert(n > 0);
	if (!sound)
		memcpy(s, "\\ufffd", 6);
	return n;
}

static size_t repair_number(char *s)
{
	size_t len = strspn(s, "-+.eE0123456789");
	if (len <= NUMBER_TEXT_MAX)
		return len;
	double value = strtod(s, NULL);
	char text[NUMBER_TEXT_MAX + 1];
	int n = isfinite(value) ? snprintf(text, sizeof(text), "%.17g", value)
				: snprintf(text, sizeof(text), value < 0 ? "-1e999" : "1e999");
	assert(n > 0 && n <= NUMBER_TEXT_MAX);
	memset(s, ' ', len);
	memcpy(s, text, (size_t)n);
	return len;
}

void json_scan_repair(char *text, size_t len)
{
	bool in_string = false;
	for (char *s = text, *end = text + len; s < end;) {
		if (*s == '\\') {
			s += repair_escape(s, end);
		} else if (!in_string && (*s == '-' || is_digit(*s))) {
			s += repair_number(s);
		} else {
			in_string = in_string != (*s == '"');
			s++;
		}
	}
}
