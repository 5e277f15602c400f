#include "admin_internal.h"

#include <inttypes.h>
#include <string.h>

/* Invariant: a page that was finished without an error parses. Names and help are ours; label
 * values are anybody's: backslash, quote and newline are escaped, and what is not UTF-8 becomes
 * U+FFFD, since one bad byte would cost the whole scrape.
 */

#define REPLACEMENT "\xef\xbf\xbd"

void admin_text_init(struct admin_text *t)
{
	*t = (struct admin_text) { .error = 0 };
	buffer_init(&t->out, ADMIN_PAGE_MAX);
}

void admin_text_finish(struct admin_text *t)
{
	buffer_finish(&t->out);
}

static void put(struct admin_text *t, const char *text)
{
	if (t->error == 0)
		t->error = buffer_append_text(&t->out, text);
}

static void put_bytes(struct admin_text *t, const char *s, size_t len)
{
	if (t->error == 0)
		t->error = buffer_append(&t->out, s, len);
}

void admin_text_family(struct admin_text *t, const char *name, enum admin_type type,
		       const char *help)
{
	static const char *const types[] = {
		[ADMIN_COUNTER] = "counter",
		[ADMIN_GAUGE] = "gauge",
		[ADMIN_HISTOGRAM] = "histogram",
	};

	t->family = name;
	if (t->error == 0)
		t->error = buffer_appendf(&t->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name,
					  types[type]);
}

/* Length of the well-formed UTF-8 sequence (RFC 3629, table 3-7 of Unicode) at s; 0: none. */
static size_t utf8_length(const char *s)
{
	const unsigned char *u = (const unsigned char *)s;
	size_t len = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

	if (len == 0 || u[0] > 0xf4)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80) /* a NUL ends it */
			return 0;
	}
	if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
	    (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
		return 0;
	return len;
}

static void put_escaped(struct admin_text *t, const char *s)
{
	while (*s) {
		size_t len = utf8_length(s);

		if (len == 0)
			put(t, REPLACEMENT);
		else if (*s == '\\' || *s == '"')
			put_bytes(t, (const char[]) { '\\', *s }, 2);
		else if (*s == '\n')
			put(t, "\\n");
		else
			put_bytes(t, s, len);
		s += len ? len : 1;
	}
}

static void put_labels(struct admin_text *t, const struct admin_label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		put(t, i == 0 ? "{" : ",");
		put(t, labels[i].name);
		put(t, "=\"");
		put_escaped(t, labels[i].value);
		put(t, "\"");
	}
	if (n > 0)
		put(t, "}");
}

static void put_value(struct admin_text *t, int64_t value, unsigned int decimals)
{
	uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value, unit = 1;

	for (unsigned int i = 0; i < decimals; i++)
		unit *= 10;
	if (t->error == 0)
		t->error =
			buffer_appendf(&t->out, " %s%" PRIu64, value < 0 ? "-" : "", size / unit);
	if (t->error == 0 && size % unit != 0)
		t->error = buffer_appendf(&t->out, ".%0*" PRIu64, (int)decimals, size % unit);
	put(t, "\n");
}

void admin_text_sample(struct admin_text *t, const char *suffix, const struct admin_label *labels,
		       size_t n, int64_t value, unsigned int decimals)
{
	put(t, t->family);
	if (suffix)
		put(t, suffix);
	put_labels(t, labels, n);
	put_value(t, value, decimals);
}

void admin_text_one(struct admin_text *t, const char *name, enum admin_type type, const char *help,
		    int64_t value, unsigned int decimals)
{
	admin_text_family(t, name, type, help);
	admin_text_sample(t, NULL, NULL, 0, value, decimals);
}
