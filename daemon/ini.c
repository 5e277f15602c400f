/* The INI reader: one pass, line by line, into a buffer of one line.
 *
 * Invariant: what a handler sees is NUL-terminated valid UTF-8 without control characters, and an
 * entry belongs to the section that was announced last. A line with a problem is skipped, a
 * section that cannot be read swallows its entries, everything else goes on. No memory is
 * allocated. It does not know what a name means, nor which may repeat.
 */
#include "ini.h"

#include <string.h>

#define INI_TEXT_(x) #x
#define INI_TEXT(x) INI_TEXT_(x)

enum ini_state { INI_BEFORE_SECTION, INI_IN_SECTION, INI_SKIPPING };

struct ini_reader {
	const struct ini_handler *handler;
	enum ini_state state;
	unsigned int line;
	size_t n_problems;
};

static void ini_problem(struct ini_reader *r, const char *what)
{
	r->n_problems++;
	r->handler->problem(r->handler->ctx, r->line, what);
}

static bool ini_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Cuts blanks off both ends, in place. */
static char *ini_trim(char *s)
{
	while (ini_is_blank(*s))
		s++;
	size_t len = strlen(s);
	while (len > 0 && ini_is_blank(s[len - 1]))
		len--;
	s[len] = '\0';
	return s;
}

/* The length of the UTF-8 character at s (RFC 3629: shortest form, no surrogates, up to U+10FFFF);
 * 0 if there is none. */
static size_t ini_utf8_length(const unsigned char *s, size_t left)
{
	static const struct {
		uint8_t first_min, first_max, second_min, second_max;
		size_t len;
	} forms[] = {
		{ 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 },
		{ 0xe1, 0xec, 0x80, 0xbf, 3 }, { 0xed, 0xed, 0x80, 0x9f, 3 },
		{ 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	if (s[0] < 0x80)
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (s[0] < forms[i].first_min || s[0] > forms[i].first_max)
			continue;
		if (forms[i].len > left || s[1] < forms[i].second_min || s[1] > forms[i].second_max)
			return 0;
		for (size_t k = 2; k < forms[i].len; k++)
			if (s[k] < 0x80 || s[k] > 0xbf)
				return 0;
		return forms[i].len;
	}
	return 0;
}

/* NULL if every character may stand in a configuration, else what is wrong. U+0080..U+009F count
 * as control characters: terminals obey them. */
static const char *ini_bad_text(const char *text, size_t len)
{
	const unsigned char *s = (const unsigned char *)text;

	for (size_t i = 0, step; i < len; i += step) {
		step = ini_utf8_length(s + i, len - i);
		if (step == 0)
			return "not valid UTF-8";
		if ((s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f ||
		    (s[i] == 0xc2 && s[i + 1] < 0xa0))
			return "holds a control character";
	}
	return NULL;
}

/* `s` is the whole line, trimmed, and begins with `[`. */
static void ini_read_section(struct ini_reader *r, char *s)
{
	size_t len = strlen(s);
	r->state = INI_SKIPPING;
	if (s[len - 1] != ']') {
		ini_problem(r, "a section is [section] or [section name], alone on its line");
		return;
	}
	s[len - 1] = '\0';
	char *section = ini_trim(s + 1);
	if (*section == '\0') {
		ini_problem(r, "a section without a name");
		return;
	}
	if (strpbrk(section, "[]")) {
		ini_problem(r, "a bracket inside of a section name");
		return;
	}
	size_t word = strcspn(section, " \t");
	char *name = section + word;
	if (*name != '\0') {
		*name = '\0';
		name = ini_trim(name + 1);
	}
	r->state = INI_IN_SECTION;
	r->handler->section(r->handler->ctx, r->line, section, name);
}

static void ini_read_entry(struct ini_reader *r, char *s)
{
	char *equals = strchr(s, '=');
	if (!equals) {
		ini_problem(r, "neither [section], key = value nor a comment");
		return;
	}
	*equals = '\0';
	const char *key = ini_trim(s);
	if (*key == '\0') {
		ini_problem(r, "a value without a key");
		return;
	}
	if (r->state == INI_BEFORE_SECTION) {
		ini_problem(r, "a key before the first [section]");
		return;
	}
	if (r->state == INI_IN_SECTION)
		r->handler->entry(r->handler->ctx, r->line, key, ini_trim(equals + 1));
}

static bool ini_begins_section(const char *text, size_t len)
{
	size_t i = 0;
	while (i < len && ini_is_blank(text[i]))
		i++;
	return i < len && text[i] == '[';
}

static void ini_read_line(struct ini_reader *r, const char *text, size_t len)
{
	char line[INI_LINE_MAX + 1];

	/* A section that cannot be read must not lend its entries to the one before. */
	if (ini_begins_section(text, len))
		r->state = INI_SKIPPING;
	if (len > INI_LINE_MAX) {
		ini_problem(r, "longer than " INI_TEXT(INI_LINE_MAX) " bytes");
		return;
	}
	const char *bad = ini_bad_text(text, len);
	if (bad) {
		ini_problem(r, bad);
		return;
	}
	memcpy(line, text, len);
	line[len] = '\0';
	char *s = ini_trim(line);
	if (*s == '\0' || *s == '#' || *s == ';')
		return;
	if (*s == '[')
		ini_read_section(r, s);
	else
		ini_read_entry(r, s);
}

size_t ini_parse(const char *text, size_t len, const struct ini_handler *handler)
{
	struct ini_reader r = { .handler = handler };
	size_t at = len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

	while (at < len) {
		const char *end = memchr(text + at, '\n', len - at);
		size_t line_len = end ? (size_t)(end - (text + at)) : len - at;
		size_t next = at + line_len + 1;
		if (line_len > 0 && text[at + line_len - 1] == '\r')
			line_len--;
		r.line++;
		ini_read_line(&r, text + at, line_len);
		at = next;
	}
	return r.n_problems;
}
