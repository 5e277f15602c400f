/* Signatures of deliveries: three schemes behind one call, several live secrets, constant time.
 *
 *   e2b                base64 of SHA-256(secret || body) in e2b-signature: both alphabets, with or
 *                      without padding (not HMAC, hence open to length extension: see json.h)
 *   hmac-sha256        HMAC-SHA-256(secret, body) in a header of choice: hex or base64, with or
 *                      without `sha256=` before it
 *   standard-webhooks  HMAC-SHA-256(secret, id.timestamp.body) in webhook-signature: `v1,<base64>`,
 *                      blanks between several; secrets are `whsec_<base64>` or raw text; the
 *                      timestamp lies within 5 minutes of the receipt
 *
 * Base64 is exact: one alphabet in a value, the right padding or none, unused bits zero. Every live
 * secret is tried without early exit and the results are OR-ed, so that timing tells nothing about
 * which secret matched. OpenSSL lives in this module only. A keyring is read-only after loading:
 * any thread.
 */
#pragma once

#include "base.h"

#define SIGNATURE_SECRETS_MAX 8
#define SIGNATURE_SECRET_MAX 1024 /* bytes of one line */
/* Characters; shorter ones can be guessed offline from one delivery: warn. */
#define SIGNATURE_SECRET_ADVISED 32
#define SIGNATURE_TOLERANCE_S 300
#define SIGNATURE_HEADER_MAX 4096
#define SIGNATURE_TEXT_MAX 160 /* a produced header value, with its NUL */

enum signature_scheme { SIGNATURE_E2B, SIGNATURE_HMAC_SHA256, SIGNATURE_STANDARD_WEBHOOKS };

/* Names as in the configuration: "e2b", "hmac-sha256", "standard-webhooks". */
const char *signature_scheme_name(enum signature_scheme scheme);
bool signature_scheme_from_name(const char *name, enum signature_scheme *ret);
/* The header that carries the signature by default (lower case). */
const char *signature_default_header(enum signature_scheme scheme);

struct signature_keyring; /* secrets of one source, in file order; position 1 is the first */

/* Reads secrets, one a line, blanks around, empty lines and a byte order mark dropped, `#` has no
 * meaning (secrets may hold one). 0 with an empty keyring is possible: the caller refuses it.
 * -E2BIG: too many; -EINVAL: too long, or NUL or other control bytes, or a `whsec_` that is not
 * base64 under standard-webhooks; -ENOMEM; -EIO. `text` is not kept: the caller wipes it. */
MUST_CHECK int signature_keyring_new(enum signature_scheme scheme, const char *text, size_t len,
				     struct signature_keyring **ret);
void signature_keyring_free(struct signature_keyring *keyring); /* cleanses the secrets */
size_t signature_keyring_count(const struct signature_keyring *keyring);
enum signature_scheme signature_keyring_scheme(const struct signature_keyring *keyring);
/* Characters of the shortest secret as it is written, without `whsec_` and padding (24 random bytes
 * in base64 count as their 32 characters); 0 if empty. */
size_t signature_keyring_shortest(const struct signature_keyring *keyring);
/* A name for a secret that is safe to store and show: the first 8 hex digits of
 * SHA-256("e2b-hookd secret name" || SHA-256(secret)), for telling across a rotation which one was
 * meant. Only for secrets of at least SIGNATURE_SECRET_ADVISED characters; "" for shorter ones
 * (they could be guessed from it) and for positions that do not exist. `position` is 1-based. */
void signature_keyring_fingerprint(const struct signature_keyring *keyring, size_t position,
				   char buf[static 9]);

/* What the sender gave; absent spans where there was no header. */
struct signature_input {
	struct span signature; /* the value of the scheme's header */
	/* standard-webhooks: webhook-id, 1-256 visible ASCII characters without `.` (the delimiter
	 * of what is signed: its specification warns of ids with one) */
	struct span id;
	struct span timestamp; /* standard-webhooks: webhook-timestamp, unix seconds, 1-11 digits */
	struct span body;
	int64_t now_unix_s; /* when it was received */
};

/* Outcomes of signature_verify. MISSING and MALFORMED come first: nothing was computed. Blanks
 * and tabs around header values do not count. */
enum signature_outcome {
	SIGNATURE_MISSING = 1, /* no or empty header, one of the three under standard-webhooks */
	SIGNATURE_MALFORMED, /* not of the scheme's form */
	SIGNATURE_WRONG, /* well-formed, no secret matches */
	SIGNATURE_EXPIRED, /* standard-webhooks: matches, but the timestamp is out of tolerance */
};

enum signature_form {
	SIGNATURE_FORM_HEX,
	SIGNATURE_FORM_HEX_PREFIXED,
	SIGNATURE_FORM_BASE64,
	SIGNATURE_FORM_BASE64URL
};

struct signature_match {
	unsigned int position; /* 1 = first secret; the lowest that matched */
	enum signature_form form;
	bool padded;
};

/* 0 and *ret_match; or an outcome; or -EIO when OpenSSL fails. */
MUST_CHECK int signature_verify(const struct signature_keyring *keyring,
				const struct signature_input *input,
				struct signature_match *ret_match);

/* The header value a sender would put (`sha256=` and hex under hmac-sha256), with the secret at
 * `position` (1-based). Standard-webhooks uses input's id and timestamp. -ENOENT: no such position;
 * -EINVAL: id or timestamp absent or malformed; -EIO. `buf` is "" after a failure. */
MUST_CHECK int signature_sign(const struct signature_keyring *keyring, unsigned int position,
			      const struct signature_input *input,
			      char buf[static SIGNATURE_TEXT_MAX]);

/* Names: "hex", "hex with sha256=", "standard base64", "URL-safe base64". */
const char *signature_form_name(enum signature_form form);

/* SHA-256, for identities and digests. -EIO. */
MUST_CHECK int signature_sha256(const void *bytes, size_t len, uint8_t ret[static 32]);
/* Random bytes from the system, for secrets and ids. -EIO. */
MUST_CHECK int signature_random(void *bytes, size_t len);
/* Compares two texts in constant time for their length (bearer tokens). */
bool signature_equal(struct span a, struct span b);
