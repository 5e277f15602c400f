/* Header values to 32 bytes and back.
 *
 * A digest has few spellings here: hex, or base64 in either alphabet, with its padding or without.
 * Everything else is malformed: mixed alphabets, unused bits that are not zero, blanks inside. So a
 * value that was accepted can be compared as bytes, and what is compared is what was sent. Nothing
 * here is secret: the values came from outside.
 */
#include "signature_text.h"

#include <string.h>
#include <strings.h>

#define DIGEST_LEN 32
#define ID_MAX 256
#define TIMESTAMP_DIGITS_MAX 11

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct span signature_text_trim(struct span text)
{
	if (!text.s)
		return text;
	while (text.len > 0 && is_blank(text.s[0])) {
		text.s++;
		text.len--;
	}
	while (text.len > 0 && is_blank(text.s[text.len - 1]))
		text.len--;
	return text;
}

/* 0-63, or -1. */
static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	if (c == '/' || c == '_')
		return 63;
	return -1;
}

/* Takes the padding away; false if it is there and not what the length asks for. */
static bool strip_padding(struct span *text, bool *ret_padded)
{
	size_t digits = text->len;
	while (digits > 0 && text->len - digits < 2 && text->s[digits - 1] == '=')
		digits--;
	*ret_padded = digits < text->len;
	bool right = !*ret_padded || text->len % 4 == 0;
	text->len = digits;
	return right && digits % 4 != 1;
}

bool signature_text_decode_base64(struct span text, uint8_t *out, size_t max,
				  struct signature_text_base64 *ret)
{
	*ret = (struct signature_text_base64) { 0 };
	if (!strip_padding(&text, &ret->padded))
		return false;
	bool standard = false;
	uint32_t bits = 0;
	unsigned int n_bits = 0;
	for (size_t i = 0; i < text.len; i++) {
		int value = base64_value(text.s[i]);
		if (value < 0)
			return false;
		standard |= text.s[i] == '+' || text.s[i] == '/';
		ret->urlsafe |= text.s[i] == '-' || text.s[i] == '_';
		bits = bits << 6 | (uint32_t)value;
		n_bits += 6;
		if (n_bits < 8)
			continue;
		if (ret->len == max)
			return false;
		n_bits -= 8;
		out[ret->len++] = (uint8_t)(bits >> n_bits);
	}
	ret->canonical = (bits & ((1U << n_bits) - 1)) == 0;
	return !(standard && ret->urlsafe);
}

static bool read_base64(struct span text, struct signature_value *ret)
{
	struct signature_text_base64 b;
	if (!signature_text_decode_base64(text, ret->digest, DIGEST_LEN, &b))
		return false;
	ret->form = b.urlsafe ? SIGNATURE_FORM_BASE64URL : SIGNATURE_FORM_BASE64;
	ret->padded = b.padded;
	return b.len == DIGEST_LEN && b.canonical;
}

/* 0-15, or -1. */
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

static bool read_hex(struct span text, struct signature_value *ret)
{
	if (text.len != (size_t)2 * DIGEST_LEN)
		return false;
	for (size_t i = 0; i < DIGEST_LEN; i++) {
		int high = hex_value(text.s[2 * i]), low = hex_value(text.s[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		ret->digest[i] = (uint8_t)(high << 4 | low);
	}
	ret->form = SIGNATURE_FORM_HEX;
	ret->padded = false;
	return true;
}

static bool strip_prefix(struct span *text, const char *prefix)
{
	size_t len = strlen(prefix);
	if (text->len < len || strncasecmp(text->s, prefix, len) != 0)
		return false;
	text->s += len;
	text->len -= len;
	return true;
}

static bool read_hmac(struct span text, struct signature_value *ret)
{
	bool prefixed = strip_prefix(&text, "sha256=");
	if (!read_hex(text, ret))
		return read_base64(text, ret);
	if (prefixed)
		ret->form = SIGNATURE_FORM_HEX_PREFIXED;
	return true;
}

/* The text up to the next blank; text goes on behind it. */
static struct span next_word(struct span *text)
{
	*text = signature_text_trim(*text);
	struct span word = { text->s, 0 };
	while (word.len < text->len && !is_blank(word.s[word.len]))
		word.len++;
	text->s += word.len;
	text->len -= word.len;
	return word;
}

/* A malformed entry does not spoil its neighbours: a sender that rotates sends several. */
static size_t read_entries(struct span text,
			   struct signature_value values[static SIGNATURE_TEXT_VALUES_MAX])
{
	size_t n = 0;
	for (int looked_at = 0; looked_at < SIGNATURE_TEXT_VALUES_MAX; looked_at++) {
		struct span entry = next_word(&text);
		if (entry.len < 3 || memcmp(entry.s, "v1,", 3) != 0)
			continue;
		if (read_base64((struct span) { entry.s + 3, entry.len - 3 }, &values[n]))
			n++;
	}
	return n;
}

int signature_text_read(enum signature_scheme scheme, struct span header,
			struct signature_value values[static SIGNATURE_TEXT_VALUES_MAX],
			size_t *ret_n)
{
	*ret_n = 0;
	struct span text = signature_text_trim(header);
	if (!text.s || text.len == 0)
		return SIGNATURE_MISSING;
	if (header.len > SIGNATURE_HEADER_MAX)
		return SIGNATURE_MALFORMED;
	switch (scheme) {
	case SIGNATURE_E2B:
		*ret_n = read_base64(text, &values[0]);
		break;
	case SIGNATURE_HMAC_SHA256:
		*ret_n = read_hmac(text, &values[0]);
		break;
	case SIGNATURE_STANDARD_WEBHOOKS:
		*ret_n = read_entries(text, values);
		break;
	}
	return *ret_n > 0 ? 0 : SIGNATURE_MALFORMED;
}

static void write_base64(const uint8_t digest[static 32], bool padded, char buf[static 45])
{
	size_t n = 0;
	for (size_t i = 0; i < DIGEST_LEN; i += 3) {
		uint32_t bits = (uint32_t)digest[i] << 16 | (uint32_t)digest[i + 1] << 8;
		if (i + 2 < DIGEST_LEN)
			bits |= digest[i + 2];
		for (int shift = 18; shift >= 0; shift -= 6)
			buf[n++] = base64_digits[bits >> shift & 63];
	}
	buf[n - 1] = padded ? '=' : '\0'; /* 32 bytes leave one character of the last four unused */
	buf[n] = '\0';
}

void signature_text_write(enum signature_scheme scheme, const uint8_t digest[static 32],
			  char buf[static SIGNATURE_TEXT_MAX])
{
	switch (scheme) {
	case SIGNATURE_E2B:
		write_base64(digest, false, buf);
		break;
	case SIGNATURE_HMAC_SHA256:
		memcpy(buf, "sha256=", 7);
		for (size_t i = 0; i < DIGEST_LEN; i++)
			(void)snprintf(buf + 7 + 2 * i, 3, "%02x", digest[i]);
		break;
	case SIGNATURE_STANDARD_WEBHOOKS:
		memcpy(buf, "v1,", 3);
		write_base64(digest, true, buf + 3);
		break;
	}
}

bool signature_text_is_id(struct span id)
{
	if (id.len == 0 || id.len > ID_MAX)
		return false;
	for (size_t i = 0; i < id.len; i++)
		if (id.s[i] <= ' ' || id.s[i] > '~' || id.s[i] == '.')
			return false;
	return true;
}

bool signature_text_read_timestamp(struct span text, int64_t *ret_unix_s)
{
	*ret_unix_s = 0;
	if (text.len == 0 || text.len > TIMESTAMP_DIGITS_MAX)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.s[i] < '0' || text.s[i] > '9')
			return false;
		*ret_unix_s = *ret_unix_s * 10 + (text.s[i] - '0');
	}
	return true;
}
