/* One pass over the text, a character at a time; the result never needs to be looked at again. */
#include "alert_payload_text.h"

#include "json.h"

#include <math.h>
#include <string.h>

#define ELLIPSIS "\xe2\x80\xa6"
#define REPLACEMENT "\xef\xbf\xbd"

/* A character of the text: what to write for it, and how long that is. */
struct piece {
	char bytes[8];
	size_t len, units, taken;
};

static struct piece piece_of(const char *bytes, size_t taken)
{
	struct piece p = { .len = strlen(bytes), .units = strlen(bytes), .taken = taken };

	memcpy(p.bytes, bytes, p.len);
	return p;
}

static bool is_invisible(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x200b && c <= 0x200f) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

/* The length of the character at s by its first byte, judged by the one who knows. */
static size_t character_at(const char *s, uint32_t *ret)
{
	unsigned char first = (unsigned char)*s;
	size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

	if (strnlen(s, len) < len || !json_is_utf8(s, len))
		return 0;
	*ret = len == 1 ? first : first & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++)
		*ret = *ret << 6 | ((unsigned char)s[i] & 0x3fu);
	return len;
}

static struct piece next_piece(const char *s, enum alert_payload_text_form form)
{
	uint32_t c = 0;
	size_t len = character_at(s, &c);

	if (len == 0)
		return (struct piece) { REPLACEMENT, 3, 1, 1 };
	if (is_invisible(c))
		return piece_of(" ", len);
	if (form != ALERT_PAYLOAD_TEXT_LINE && strchr("&<>", *s))
		return piece_of(*s == '&' ? "&amp;" : *s == '<' ? "&lt;" : "&gt;", len);
	if (form == ALERT_PAYLOAD_TEXT_CODE && *s == '`')
		return piece_of("'", len);
	struct piece p = { .len = len, .units = len == 4 ? 2 : 1, .taken = len };
	memcpy(p.bytes, s, len);
	return p;
}

int alert_payload_text_append(struct buffer *b, const char *text, size_t max,
			      enum alert_payload_text_form form)
{
	size_t used = 0, cut_len = b->len;
	bool was_blank = true; /* blanks at the beginning go too */
	int r = 0;

	while (r == 0 && text && *text) {
		struct piece p = next_piece(text, form);
		bool is_blank = p.len == 1 && p.bytes[0] == ' ';
		text += p.taken;
		if (is_blank && was_blank)
			continue;
		was_blank = is_blank;
		if (used + p.units > max) {
			b->len = cut_len;
			if (b->data)
				b->data[b->len] = '\0';
			return max > 0 ? buffer_append_text(b, ELLIPSIS) : 0;
		}
		r = buffer_append(b, p.bytes, p.len);
		used += p.units;
		/* As far as there is still room for the ellipsis behind it. */
		if (used < max)
			cut_len = b->len;
	}
	return r;
}

struct span alert_payload_text_cut(const char *text, size_t max)
{
	if (!text)
		return SPAN_ABSENT;
	size_t len = strnlen(text, max + 1);
	if (len <= max)
		return (struct span) { text, len };
	/* Back over the continuation bytes of one character; more of them are no UTF-8 anyway. */
	len = max;
	for (int i = 0; i < 3 && len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80; i++)
		len--;
	return (struct span) { text, len };
}

const char *alert_payload_text_value(double value, const char *unit, char buf[static 48])
{
	buf[0] = '\0';
	if (!isfinite(value) || fabs(value) > 1e15)
		return buf;
	if (unit && strcmp(unit, "ratio") == 0)
		(void)snprintf(buf, 48, "%.3g %%", value * 100);
	else if (unit && strcmp(unit, "usd") == 0)
		(void)snprintf(buf, 48, "%.2f USD", value);
	else
		(void)snprintf(buf, 48, "%.6g%s%.16s", value, unit ? " " : "", unit ? unit : "");
	return buf;
}
