/* Keyrings and verification.
 *
 * A secret is absorbed into a digest or HMAC state when it is loaded and forgotten as text; every
 * verification works on a copy of that state, so a keyring is never written to again and threads
 * share it. The states are wiped by OpenSSL when they are freed. What a delivery costs does not
 * depend on which secret matched or where a digest differs: all pairs are computed and compared in
 * constant time, and only the sum is looked at.
 *
 * Not here: what to do with an unsigned delivery, and the refusal of a length extension, which
 * verifies (json.h refuses what it looks like).
 */
#include "signature.h"

#include "signature_text.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#define DIGEST_LEN 32
#define WHSEC "whsec_"
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

struct secret {
	EVP_MD_CTX *md; /* e2b */
	EVP_MAC_CTX *mac; /* the others */
	size_t characters; /* as written, without `whsec_` and padding */
	char fingerprint[9];
};

struct signature_keyring {
	enum signature_scheme scheme;
	size_t n;
	struct secret secrets[SIGNATURE_SECRETS_MAX];
};

static const struct scheme_info {
	const char *name, *header;
} schemes[] = {
	[SIGNATURE_E2B] = { "e2b", "e2b-signature" },
	[SIGNATURE_HMAC_SHA256] = { "hmac-sha256", "x-signature-256" },
	[SIGNATURE_STANDARD_WEBHOOKS] = { "standard-webhooks", "webhook-signature" },
};

static const char *const form_names[] = {
	[SIGNATURE_FORM_HEX] = "hex",
	[SIGNATURE_FORM_HEX_PREFIXED] = "hex with sha256=",
	[SIGNATURE_FORM_BASE64] = "standard base64",
	[SIGNATURE_FORM_BASE64URL] = "URL-safe base64",
};

/* Fetched once for the process: the first fetch reads OpenSSL's configuration file, and later ones
 * would look it up under a lock in every request. Never freed. */
static EVP_MD *sha256_md;
static EVP_MAC *hmac_mac;
static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;

static void fetch_algorithms(void)
{
	sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
	hmac_mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
}

static void free_md(EVP_MD_CTX **md)
{
	EVP_MD_CTX_free(*md);
}

static void free_mac(EVP_MAC_CTX **mac)
{
	EVP_MAC_CTX_free(*mac);
}

/* OpenSSL keeps its errors per thread until somebody takes them. */
static int failed(void)
{
	ERR_clear_error();
	return -EIO;
}

static int have_algorithms(void)
{
	(void)pthread_once(&fetch_once, fetch_algorithms);
	return sha256_md && hmac_mac ? 0 : failed();
}

static bool update_all(EVP_MD_CTX *md, EVP_MAC_CTX *mac, const struct span *parts, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const void *bytes = parts[i].s ? parts[i].s : "";
		if (md && EVP_DigestUpdate(md, bytes, parts[i].len) != 1)
			return false;
		if (mac && EVP_MAC_update(mac, bytes, parts[i].len) != 1)
			return false;
	}
	return true;
}

static int hash_parts(const struct span *parts, size_t n, uint8_t ret[static DIGEST_LEN])
{
	if (have_algorithms() < 0)
		return -EIO;
	CLEANUP(free_md) EVP_MD_CTX *md = EVP_MD_CTX_new();
	if (!md || EVP_DigestInit_ex2(md, sha256_md, NULL) != 1 || !update_all(md, NULL, parts, n))
		return failed();
	return EVP_DigestFinal_ex(md, ret, NULL) == 1 ? 0 : failed();
}

int signature_sha256(const void *bytes, size_t len, uint8_t ret[static 32])
{
	return hash_parts(&(struct span) { bytes, len }, 1, ret);
}

int signature_random(void *bytes, size_t len)
{
	for (uint8_t *at = bytes; len > 0;) {
		ssize_t n = getrandom(at, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EIO;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

bool signature_equal(struct span a, struct span b)
{
	return a.s && b.s && a.len == b.len && CRYPTO_memcmp(a.s, b.s, a.len) == 0;
}

const char *signature_scheme_name(enum signature_scheme scheme)
{
	return schemes[scheme].name;
}

bool signature_scheme_from_name(const char *name, enum signature_scheme *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		if (strcmp(schemes[i].name, name) == 0) {
			*ret = (enum signature_scheme)i;
			return true;
		}
	}
	return false;
}

const char *signature_default_header(enum signature_scheme scheme)
{
	return schemes[scheme].header;
}

const char *signature_form_name(enum signature_form form)
{
	return form_names[form];
}

static int absorb_for_digest(struct secret *secret, struct span key)
{
	secret->md = EVP_MD_CTX_new();
	if (!secret->md)
		return -ENOMEM;
	if (EVP_DigestInit_ex2(secret->md, sha256_md, NULL) != 1 ||
	    EVP_DigestUpdate(secret->md, key.s, key.len) != 1)
		return failed();
	return 0;
}

static int absorb_for_mac(struct secret *secret, struct span key)
{
	char digest_name[] = "SHA256";
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0),
		OSSL_PARAM_construct_end(),
	};
	secret->mac = EVP_MAC_CTX_new(hmac_mac);
	if (!secret->mac)
		return -ENOMEM;
	return EVP_MAC_init(secret->mac, (const void *)key.s, key.len, params) == 1 ? 0 : failed();
}

static int make_fingerprint(struct secret *secret, struct span key)
{
	uint8_t digest[DIGEST_LEN];
	if (secret->characters < SIGNATURE_SECRET_ADVISED)
		return 0;
	int r = hash_parts(&key, 1, digest);
	const struct span parts[] = { SPAN_LITERAL("e2b-hookd secret name"),
				      { (const char *)digest, sizeof(digest) } };
	if (r == 0)
		r = hash_parts(parts, ARRAY_SIZE(parts), digest);
	for (size_t i = 0; r == 0 && i < 4; i++)
		(void)snprintf(secret->fingerprint + 2 * i, 3, "%02x", digest[i]);
	OPENSSL_cleanse(digest, sizeof(digest));
	return r;
}

static int add_key(struct signature_keyring *keyring, struct span key, size_t characters)
{
	struct secret *secret = &keyring->secrets[keyring->n++];
	secret->characters = characters;
	int r = keyring->scheme == SIGNATURE_E2B ? absorb_for_digest(secret, key)
						 : absorb_for_mac(secret, key);
	return r == 0 ? make_fingerprint(secret, key) : r;
}

/* Senders decode leniently, so unused bits may be anything here: the same bytes come out. */
static int add_whsec(struct signature_keyring *keyring, struct span text)
{
	uint8_t key[SIGNATURE_SECRET_MAX];
	struct signature_text_base64 b;
	int r = -EINVAL;
	if (signature_text_decode_base64(text, key, sizeof(key), &b) && b.len > 0)
		r = add_key(keyring, (struct span) { (const char *)key, b.len },
			    (b.len * 8 + 5) / 6);
	OPENSSL_cleanse(key, sizeof(key));
	return r;
}

static int add_line(struct signature_keyring *keyring, struct span line)
{
	const size_t prefix = sizeof(WHSEC) - 1;
	if (keyring->n == SIGNATURE_SECRETS_MAX)
		return -E2BIG;
	if (line.len > SIGNATURE_SECRET_MAX)
		return -EINVAL;
	for (size_t i = 0; i < line.len; i++)
		if ((unsigned char)line.s[i] < ' ' || line.s[i] == 0x7f)
			return -EINVAL;
	if (keyring->scheme == SIGNATURE_STANDARD_WEBHOOKS && line.len >= prefix &&
	    memcmp(line.s, WHSEC, prefix) == 0)
		return add_whsec(keyring, (struct span) { line.s + prefix, line.len - prefix });
	return add_key(keyring, line, line.len);
}

static int add_lines(struct signature_keyring *keyring, struct span text)
{
	if (text.len >= 3 && memcmp(text.s, BYTE_ORDER_MARK, 3) == 0) {
		text.s += 3;
		text.len -= 3;
	}
	while (text.len > 0) {
		const char *end = memchr(text.s, '\n', text.len);
		size_t len = end ? (size_t)(end - text.s) : text.len;
		size_t step = end ? len + 1 : len;
		if (len > 0 && text.s[len - 1] == '\r')
			len--;
		struct span line = signature_text_trim((struct span) { text.s, len });
		int r = line.len > 0 ? add_line(keyring, line) : 0;
		if (r != 0)
			return r;
		text.s += step;
		text.len -= step;
	}
	return 0;
}

static void free_keyring(struct signature_keyring **keyring)
{
	signature_keyring_free(*keyring);
}

int signature_keyring_new(enum signature_scheme scheme, const char *text, size_t len,
			  struct signature_keyring **ret)
{
	int r = have_algorithms();
	if (r < 0)
		return r;
	CLEANUP(free_keyring) struct signature_keyring *keyring = calloc(1, sizeof(*keyring));
	if (!keyring)
		return -ENOMEM;
	keyring->scheme = scheme;
	r = add_lines(keyring, (struct span) { text, len });
	if (r < 0)
		return r;
	*ret = keyring;
	keyring = NULL;
	return 0;
}

void signature_keyring_free(struct signature_keyring *keyring)
{
	if (!keyring)
		return;
	for (size_t i = 0; i < keyring->n; i++) {
		EVP_MD_CTX_free(keyring->secrets[i].md);
		EVP_MAC_CTX_free(keyring->secrets[i].mac);
	}
	OPENSSL_cleanse(keyring, sizeof(*keyring));
	free(keyring);
}

size_t signature_keyring_count(const struct signature_keyring *keyring)
{
	return keyring->n;
}

enum signature_scheme signature_keyring_scheme(const struct signature_keyring *keyring)
{
	return keyring->scheme;
}

size_t signature_keyring_shortest(const struct signature_keyring *keyring)
{
	size_t shortest = keyring->n > 0 ? keyring->secrets[0].characters : 0;
	for (size_t i = 1; i < keyring->n; i++)
		shortest = base_min_size(shortest, keyring->secrets[i].characters);
	return shortest;
}

void signature_keyring_fingerprint(const struct signature_keyring *keyring, size_t position,
				   char buf[static 9])
{
	buf[0] = '\0';
	if (position >= 1 && position <= keyring->n)
		memcpy(buf, keyring->secrets[position - 1].fingerprint, 9);
}

/* What the scheme signs, in order. */
struct signed_parts {
	struct span parts[5];
	size_t n;
};

static int compute(const struct secret *secret, const struct signed_parts *content,
		   uint8_t ret[static DIGEST_LEN])
{
	if (secret->md) {
		CLEANUP(free_md) EVP_MD_CTX *md = EVP_MD_CTX_new();
		if (!md || EVP_MD_CTX_copy_ex(md, secret->md) != 1 ||
		    !update_all(md, NULL, content->parts, content->n))
			return failed();
		return EVP_DigestFinal_ex(md, ret, NULL) == 1 ? 0 : failed();
	}
	CLEANUP(free_mac) EVP_MAC_CTX *mac = EVP_MAC_CTX_dup(secret->mac);
	size_t len = 0;
	if (!mac || !update_all(NULL, mac, content->parts, content->n))
		return failed();
	return EVP_MAC_final(mac, ret, &len, DIGEST_LEN) == 1 && len == DIGEST_LEN ? 0 : failed();
}

/* 0, SIGNATURE_MISSING or SIGNATURE_MALFORMED (of id or timestamp). *ret_timestamp: as signed, or
 * the time of receipt where the scheme signs none. */
static int signed_parts_of(enum signature_scheme scheme, const struct signature_input *input,
			   struct signed_parts *ret, int64_t *ret_timestamp)
{
	*ret_timestamp = input->now_unix_s;
	if (scheme != SIGNATURE_STANDARD_WEBHOOKS) {
		*ret = (struct signed_parts) { { input->body }, 1 };
		return 0;
	}
	struct span id = signature_text_trim(input->id);
	struct span timestamp = signature_text_trim(input->timestamp);
	if (!id.s || id.len == 0 || !timestamp.s || timestamp.len == 0)
		return SIGNATURE_MISSING;
	if (!signature_text_is_id(id) || !signature_text_read_timestamp(timestamp, ret_timestamp))
		return SIGNATURE_MALFORMED;
	const struct span dot = SPAN_LITERAL(".");
	*ret = (struct signed_parts) { { id, dot, timestamp, dot, input->body }, 5 };
	return 0;
}

/* set[s][v]: secret s makes value v. */
struct matches {
	uint8_t set[SIGNATURE_SECRETS_MAX][SIGNATURE_TEXT_VALUES_MAX];
	unsigned int any;
};

static int compare_all(const struct signature_keyring *keyring, const struct signed_parts *content,
		       const struct signature_value *values, size_t n_values, struct matches *ret)
{
	*ret = (struct matches) { 0 };
	uint8_t digest[DIGEST_LEN];
	int r = 0;
	for (size_t s = 0; r == 0 && s < keyring->n; s++) {
		r = compute(&keyring->secrets[s], content, digest);
		for (size_t v = 0; r == 0 && v < n_values; v++) {
			bool same = CRYPTO_memcmp(digest, values[v].digest, DIGEST_LEN) == 0;
			ret->set[s][v] = same;
			ret->any |= same;
		}
	}
	OPENSSL_cleanse(digest, sizeof(digest));
	return r;
}

static struct signature_match lowest_match(const struct matches *matches,
					   const struct signature_value *values, size_t n_values)
{
	for (unsigned int s = 0; s < SIGNATURE_SECRETS_MAX; s++)
		for (size_t v = 0; v < n_values; v++)
			if (matches->set[s][v])
				return (struct signature_match) { s + 1, values[v].form,
								  values[v].padded };
	return (struct signature_match) { 0 };
}

int signature_verify(const struct signature_keyring *keyring, const struct signature_input *input,
		     struct signature_match *ret_match)
{
	struct signature_value values[SIGNATURE_TEXT_VALUES_MAX];
	struct signed_parts content;
	struct matches matches;
	size_t n = 0;
	int64_t timestamp_s = 0;
	int r = signature_text_read(keyring->scheme, input->signature, values, &n);
	if (r == 0)
		r = signed_parts_of(keyring->scheme, input, &content, &timestamp_s);
	if (r == 0)
		r = compare_all(keyring, &content, values, n, &matches);
	if (r != 0)
		return r;
	if (!matches.any)
		return SIGNATURE_WRONG;
	if (timestamp_s < input->now_unix_s - SIGNATURE_TOLERANCE_S ||
	    timestamp_s > input->now_unix_s + SIGNATURE_TOLERANCE_S)
		return SIGNATURE_EXPIRED;
	*ret_match = lowest_match(&matches, values, n);
	return 0;
}

int signature_sign(const struct signature_keyring *keyring, unsigned int position,
		   const struct signature_input *input, char buf[static SIGNATURE_TEXT_MAX])
{
	struct signed_parts content;
	uint8_t digest[DIGEST_LEN];
	int64_t timestamp_s = 0;
	buf[0] = '\0';
	if (position < 1 || position > keyring->n)
		return -ENOENT;
	if (signed_parts_of(keyring->scheme, input, &content, &timestamp_s) != 0)
		return -EINVAL;
	int r = compute(&keyring->secrets[position - 1], &content, digest);
	if (r == 0)
		signature_text_write(keyring->scheme, digest, buf);
	OPENSSL_cleanse(digest, sizeof(digest));
	return r;
}
