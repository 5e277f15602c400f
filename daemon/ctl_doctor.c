/* Why a signature is not right: it is made again in every way that senders get wrong (scheme,
 * encoding, order, secret, newline, re-serialised body) until one way gives the bytes at hand.
 *
 * Those bytes are only ever compared; nothing computed is told. HMAC (RFC 2104) is spelled out,
 * because the mistaken keys are such that the keyring refuses them.
 */
#include "ctl_internal.h"

#include "json.h"

#include <errno.h>
#include <string.h>

#define DIGEST 32
#define BLOCK 64
#define ENTRIES_MAX 16
#define KEY_MAX (SIGNATURE_SECRET_MAX + 8)
#define WHSEC "whsec_"

/* One value that the header holds. */
struct entry {
	uint8_t digest[DIGEST];
	const char *form;
	enum { FORM_HEX, FORM_BASE64, FORM_V1 } kind;
};

struct variant {
	struct span bytes;
	const char *words; /* "" for as it should be */
};

struct doctor {
	const struct ctl_doctor_case *it;
	struct entry entries[ENTRIES_MAX];
	size_t n_entries;
	struct variant bodies[6];
	size_t n_bodies;
	struct buffer with_lf, with_crlf, compact;
	char key_bytes[2][KEY_MAX];
	char *scratch; /* what is hashed; holds secrets */
	size_t scratch_size;
};

/* ---- reading the header ---- */

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

/* Laxly: both alphabets, any padding. The length, or -1. */
static ssize_t decode_base64(struct span text, uint8_t *out, size_t max)
{
	size_t n = 0;
	uint32_t bits = 0;
	int n_bits = 0;

	while (text.len > 0 && text.s[text.len - 1] == '=')
		text.len--;
	if (text.len % 4 == 1)
		return -1;
	for (size_t i = 0; i < text.len; i++) {
		int digit = base64_digit(text.s[i]);
		if (digit < 0)
			return -1;
		bits = (bits << 6 | (uint32_t)digit) & 0xffff;
		n_bits += 6;
		if (n_bits < 8)
			continue;
		n_bits -= 8;
		if (n == max)
			return -1;
		out[n++] = (uint8_t)(bits >> n_bits);
	}
	return (ssize_t)n;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool decode_hex(struct span text, uint8_t out[static DIGEST])
{
	if (text.len != 2 * (size_t)DIGEST)
		return false;
	for (size_t i = 0; i < DIGEST; i++) {
		int high = hex_digit(text.s[2 * i]), low = hex_digit(text.s[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static bool drop_prefix(struct span *text, const char *prefix)
{
	size_t len = strlen(prefix);

	if (text->len < len || strncasecmp(text->s, prefix, len) != 0)
		return false;
	text->s += len;
	text->len -= len;
	return true;
}

static void read_entry(struct doctor *d, struct span text)
{
	struct entry *e = &d->entries[d->n_entries];
	bool is_v1 = drop_prefix(&text, "v1,");
	bool is_prefixed = drop_prefix(&text, "sha256=");

	if (decode_hex(text, e->digest)) {
		e->form = is_prefixed ? "hex (sha256=)" : "hex";
		e->kind = FORM_HEX;
	} else if (decode_base64(text, e->digest, DIGEST) == DIGEST) {
		e->form = is_v1 ? "base64 (v1)" : is_prefixed ? "base64 (sha256=)" : "base64";
		e->kind = is_v1 ? FORM_V1 : FORM_BASE64;
	} else {
		return;
	}
	d->n_entries++;
}

static void read_header(struct doctor *d)
{
	const struct span text = d->it->signature;

	for (size_t i = 0, n; i < text.len && d->n_entries < ENTRIES_MAX; i += n + 1) {
		n = 0;
		while (i + n < text.len && text.s[i + n] != ' ' && text.s[i + n] != '\t')
			n++;
		if (n > 0)
			read_entry(d, (struct span) { text.s + i, n });
	}
}

/* ---- ways to make one ---- */

struct recipe_input {
	struct span key, body;
	const struct ctl_doctor_case *it;
};

static int hash(struct doctor *d, const struct span *pieces, size_t n, uint8_t ret[static DIGEST])
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		assert(d->scratch_size - len >= pieces[i].len);
		if (pieces[i].len > 0)
			memcpy(d->scratch + len, pieces[i].s, pieces[i].len);
		len += pieces[i].len;
	}
	return signature_sha256(d->scratch, len, ret);
}

static int hmac(struct doctor *d, struct span key, const struct span *pieces, size_t n,
		uint8_t ret[static DIGEST])
{
	uint8_t short_key[BLOCK] = { 0 }, inner_pad[BLOCK], outer_pad[BLOCK], inner[DIGEST];
	struct span all[8] = { { (const char *)inner_pad, BLOCK } };
	const struct span outer[2] = { { (const char *)outer_pad, BLOCK },
				       { (const char *)inner, DIGEST } };
	int r = 0;

	assert(n + 1 <= ARRAY_SIZE(all));
	if (key.len > BLOCK)
		r = hash(d, &key, 1, short_key);
	else
		memcpy(short_key, key.s, key.len);
	for (size_t i = 0; i < BLOCK; i++) {
		inner_pad[i] = short_key[i] ^ 0x36;
		outer_pad[i] = short_key[i] ^ 0x5c;
	}
	for (size_t i = 0; i < n; i++)
		all[i + 1] = pieces[i];
	if (r == 0)
		r = hash(d, all, n + 1, inner);
	if (r == 0)
		r = hash(d, outer, 2, ret);
	explicit_bzero(short_key, sizeof(short_key));
	explicit_bzero(inner_pad, sizeof(inner_pad));
	explicit_bzero(outer_pad, sizeof(outer_pad));
	return r;
}

#define RECIPE_SKIPPED 1 /* what it needs was not given */
typedef int (*recipe_fn)(struct doctor *d, const struct recipe_input *in,
			 uint8_t ret[static DIGEST]);

static int make_plain(struct doctor *d, const struct recipe_input *in, uint8_t ret[static DIGEST])
{
	return hash(d, (const struct span[]) { in->key, in->body }, 2, ret);
}

static int make_reversed(struct doctor *d, const struct recipe_input *in,
			 uint8_t ret[static DIGEST])
{
	return hash(d, (const struct span[]) { in->body, in->key }, 2, ret);
}

static int make_hmac(struct doctor *d, const struct recipe_input *in, uint8_t ret[static DIGEST])
{
	return hmac(d, in->key, &in->body, 1, ret);
}

static int make_standard(struct doctor *d, const struct recipe_input *in,
			 uint8_t ret[static DIGEST])
{
	const struct span dot = SPAN_LITERAL(".");
	const struct span pieces[] = { in->it->id, dot, in->it->timestamp, dot, in->body };

	if (!in->it->id.s || !in->it->timestamp.s)
		return RECIPE_SKIPPED;
	return hmac(d, in->key, pieces, ARRAY_SIZE(pieces), ret);
}

static int make_timed(struct doctor *d, const struct recipe_input *in, uint8_t ret[static DIGEST])
{
	const struct span pieces[] = { in->it->timestamp, SPAN_LITERAL("."), in->body };

	if (!in->it->timestamp.s)
		return RECIPE_SKIPPED;
	return hmac(d, in->key, pieces, ARRAY_SIZE(pieces), ret);
}

static const struct {
	recipe_fn make;
	const char *words;
} recipes[] = {
	{ make_plain, "SHA-256 of secret and body (scheme e2b)" },
	{ make_hmac, "HMAC-SHA-256 of the body (scheme hmac-sha256)" },
	{ make_standard, "HMAC-SHA-256 of id.timestamp.body (scheme standard-webhooks)" },
	{ make_reversed, "SHA-256 of body and secret, in this wrong order" },
	{ make_timed, "HMAC-SHA-256 of timestamp.body, without the id" },
};

/* ---- keys and bodies as they may have been mistaken ---- */

static size_t key_variants(struct doctor *d, struct span secret, struct variant ret[static 5])
{
	size_t n = 0;
	struct span bare = secret;

	ret[n++] = (struct variant) { secret, "" };
	if (secret.len < SIGNATURE_SECRET_MAX) {
		memcpy(d->key_bytes[0], secret.s, secret.len);
		d->key_bytes[0][secret.len] = '\n';
		ret[n++] = (struct variant) { { d->key_bytes[0], secret.len + 1 },
					      ", the newline of its file taken for a part of it" };
	}
	if (!drop_prefix(&bare, WHSEC))
		return n;
	ret[n++] = (struct variant) { bare, ", without its whsec_, not decoded from base64" };
	ssize_t len = decode_base64(bare, (uint8_t *)d->key_bytes[1], KEY_MAX);
	if (len > 0)
		ret[n++] = (struct variant) { { d->key_bytes[1], (size_t)len },
					      ", decoded from the base64 behind whsec_" };
	return n;
}

static void add_body(struct doctor *d, struct span bytes, const char *words)
{
	assert(d->n_bodies < ARRAY_SIZE(d->bodies));
	d->bodies[d->n_bodies++] = (struct variant) { bytes, words };
}

static int add_compact(struct doctor *d, struct span body)
{
	struct json_doc *doc = NULL;
	int r = json_parse(body.s, body.len, &doc);

	if (r != 0)
		return r < 0 ? r : 0;
	r = json_append_value(&d->compact, json_root(doc));
	json_doc_free(doc);
	if (r == 0)
		add_body(d, (struct span) { d->compact.data, d->compact.len },
			 ", the body re-serialised without blanks: sign the bytes that are sent");
	return r == -ENOBUFS ? 0 : r;
}

static int body_variants(struct doctor *d)
{
	struct span body = d->it->body;
	int r = buffer_append(&d->with_lf, body.s, body.len);

	if (r == 0)
		r = buffer_append_text(&d->with_lf, "\n");
	if (r == 0)
		r = buffer_append(&d->with_crlf, body.s, body.len);
	if (r == 0)
		r = buffer_append_text(&d->with_crlf, "\r\n");
	if (r < 0)
		return r;
	add_body(d, body, "");
	add_body(d, (struct span) { d->with_lf.data, d->with_lf.len },
		 ", the body with a newline behind it");
	add_body(d, (struct span) { d->with_crlf.data, d->with_crlf.len },
		 ", the body with CR and a newline behind it");
	if (body.len > 0 && body.s[body.len - 1] == '\n') {
		add_body(d, (struct span) { body.s, body.len - 1 },
			 ", the body without the newline at its end");
		if (body.len > 1 && body.s[body.len - 2] == '\r')
			add_body(d, (struct span) { body.s, body.len - 2 },
				 ", the body without CR and the newline at its end");
	}
	return add_compact(d, body);
}

/* ---- findings ---- */

static const struct entry *find_entry(const struct doctor *d, const uint8_t digest[static DIGEST])
{
	for (size_t i = 0; i < d->n_entries; i++)
		if (memcmp(d->entries[i].digest, digest, DIGEST) == 0)
			return &d->entries[i];
	return NULL;
}

struct finding {
	const struct entry *entry;
	const char *recipe, *key, *body; /* words */
};

/* 0 with ret->entry set where one way fits. */
static int try_secret(struct doctor *d, struct span secret, struct finding *ret)
{
	struct variant keys[5];
	size_t n_keys = key_variants(d, secret, keys);
	uint8_t digest[DIGEST];

	for (size_t b = 0; b < d->n_bodies; b++) {
		for (size_t k = 0; k < n_keys; k++) {
			const struct recipe_input in = { keys[k].bytes, d->bodies[b].bytes, d->it };
			for (size_t i = 0; i < ARRAY_SIZE(recipes); i++) {
				int r = recipes[i].make(d, &in, digest);
				if (r < 0)
					return r;
				ret->entry = r == 0 ? find_entry(d, digest) : NULL;
				if (!ret->entry)
					continue;
				ret->recipe = recipes[i].words;
				ret->key = keys[k].words;
				ret->body = d->bodies[b].words;
				return 0;
			}
		}
	}
	return 0;
}

static const char *wanted_by(enum signature_scheme scheme)
{
	switch (scheme) {
	case SIGNATURE_E2B:
		return "SHA-256 of secret and body (scheme e2b), in base64";
	case SIGNATURE_HMAC_SHA256:
		return "HMAC-SHA-256 of the body (scheme hmac-sha256), in hex or base64";
	case SIGNATURE_STANDARD_WEBHOOKS:
		return "HMAC-SHA-256 of id.timestamp.body (scheme standard-webhooks), in base64 "
		       "(v1), and within 5 minutes";
	}
	return "";
}

static int report(struct buffer *out, const struct config_source *source, size_t position,
		  const struct finding *f, const struct config_source *wanted)
{
	int r = buffer_appendf(out, "made as: %s, in %s, with secret %zu of source %s%s%s\n",
			       f->recipe, f->entry->form, position, source->name, f->key, f->body);

	return r < 0 ? r
		     : buffer_appendf(out,
				      "wanted: %s, with a secret of source %s, of the body as it "
				      "is sent\n",
				      wanted_by(wanted->scheme), wanted->name);
}

static int report_nothing(const struct doctor *d, struct buffer *out,
			  const struct config_source *wanted)
{
	int r;

	if (!d->it->signature.s || d->it->signature.len == 0)
		r = buffer_append_text(out, "form: no signature was sent\n");
	else if (d->n_entries == 0)
		r = buffer_appendf(
			out,
			"form: %zu characters that are neither the hex nor the base64 of "
			"32 bytes\n",
			d->it->signature.len);
	else
		r = buffer_appendf(out,
				   "form: %s\nmade as: unknown: no secret that can be read here "
				   "gives it, by any scheme or common mistake; another secret, or "
				   "another body (one changed byte is enough)\n",
				   d->entries[0].form);
	if (r == 0 && wanted->scheme == SIGNATURE_STANDARD_WEBHOOKS &&
	    (!d->it->id.s || !d->it->timestamp.s))
		r = buffer_append_text(out, "missing: webhook-id or webhook-timestamp (--id, "
					    "--timestamp): they are signed, too\n");
	return r < 0 ? r : buffer_appendf(out, "wanted: %s\n", wanted_by(wanted->scheme));
}

static int search(struct doctor *d, struct buffer *out, const struct ctl_doctor_source *sources,
		  size_t n_sources)
{
	struct finding f = { .entry = NULL };

	for (size_t i = 0; i < n_sources; i++) {
		for (size_t k = 0; k < sources[i].secrets->n; k++) {
			int r = try_secret(d, sources[i].secrets->items[k], &f);
			if (r < 0)
				return r;
			if (f.entry)
				return report(out, sources[i].source, k + 1, &f, sources[0].source);
		}
	}
	return report_nothing(d, out, sources[0].source);
}

int ctl_doctor_explain(struct buffer *findings, const struct ctl_doctor_case *it,
		       const struct ctl_doctor_source *sources, size_t n_sources)
{
	struct doctor d = { .it = it,
			    .with_lf = BUFFER_INIT(it->body.len + 1),
			    .with_crlf = BUFFER_INIT(it->body.len + 2),
			    .compact = BUFFER_INIT(2 * it->body.len + 1024) };
	int r;

	read_header(&d);
	r = body_variants(&d);
	d.scratch_size = 2 * it->body.len + it->id.len + it->timestamp.len + 4096;
	d.scratch = malloc(d.scratch_size);
	if (r == 0)
		r = d.scratch ? search(&d, findings, sources, n_sources) : -ENOMEM;
	if (d.scratch)
		explicit_bzero(d.scratch, d.scratch_size);
	free(d.scratch);
	explicit_bzero(d.key_bytes, sizeof(d.key_bytes));
	buffer_finish(&d.with_lf);
	buffer_finish(&d.with_crlf);
	buffer_finish(&d.compact);
	return r;
}
