/* The text forms of signatures: base64, hex and the header values built of them. Internal to the
 * signature module. No cryptography. Pure; any thread.
 */
#pragma once

#include "signature.h"

/* Entries of a webhook-signature header that are looked at. */
#define SIGNATURE_TEXT_VALUES_MAX 16

struct signature_text_base64 {
	size_t len; /* bytes written */
	bool urlsafe; /* a `-` or `_` was seen */
	bool padded;
	bool canonical; /* the unused bits of the last character are zero */
};

/* Both alphabets, but not both in one text; padding right or absent; nothing else, no blanks. False
 * if it is not that or decodes to more than `max` bytes; `out` may hold a part then. */
MUST_CHECK bool signature_text_decode_base64(struct span text, uint8_t *out, size_t max,
					     struct signature_text_base64 *ret);

/* One signature as a header gave it. */
struct signature_value {
	uint8_t digest[32];
	enum signature_form form;
	bool padded;
};

/* What the scheme's header says: one value, or under standard-webhooks up to
 * SIGNATURE_TEXT_VALUES_MAX. 0, SIGNATURE_MISSING or SIGNATURE_MALFORMED. */
MUST_CHECK int signature_text_read(enum signature_scheme scheme, struct span header,
				   struct signature_value values[static SIGNATURE_TEXT_VALUES_MAX],
				   size_t *ret_n);

/* The header value of a digest, in the form the scheme's senders use. */
void signature_text_write(enum signature_scheme scheme, const uint8_t digest[static 32],
			  char buf[static SIGNATURE_TEXT_MAX]);

/* Without blanks and tabs around. An absent span stays absent. */
struct span signature_text_trim(struct span text);

/* 1-256 visible ASCII characters and no `.`: it delimits what standard-webhooks signs, and an id
 * with one could take over the beginning of somebody's body. */
bool signature_text_is_id(struct span id);
/* 1-11 digits. */
MUST_CHECK bool signature_text_read_timestamp(struct span text, int64_t *ret_unix_s);
