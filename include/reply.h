/* Replies: from an outcome to status and body. Constant texts, RFC 9457 problems, nothing secret.
 * Pure; any thread.
 */
#pragma once

#include "base.h"

enum reply_kind {
	REPLY_STORED,
	REPLY_DUPLICATE,
	REPLY_FILTERED,
	REPLY_QUARANTINED,
	REPLY_HEALTHY,
	REPLY_BAD_REQUEST,
	REPLY_UNAUTHORIZED, /* 401: the same bytes in every case */
	REPLY_NOT_FOUND,
	REPLY_METHOD_NOT_ALLOWED,
	REPLY_TIMEOUT, /* 408 */
	REPLY_TOO_LARGE, /* 413 */
	REPLY_UNAVAILABLE, /* 503 with Retry-After: 10 */
};
#define REPLY_N_KINDS (REPLY_UNAVAILABLE + 1)
#define REPLY_BODY_MAX 512
#define REPLY_CANNED_MAX 1024
#define REPLY_RETRY_AFTER "10"

unsigned int reply_status(enum reply_kind kind);
const char *reply_title(enum reply_kind kind); /* the reason phrase: "Not Found" */
const char *reply_name(enum reply_kind kind); /* for logs and metrics: "stored", "not_found" */
const char *reply_content_type(enum reply_kind kind);
bool reply_says_retry_after(enum reply_kind kind);

/* Writes the body and a NUL behind it; returns its length. `event_id` and `reason` are members of
 * the four outcomes of a delivery, each left out when NULL or not printable ASCII; the other kinds
 * ignore them. Both are at most 128 bytes long, longer ones are left out. */
size_t reply_body(enum reply_kind kind, const char *event_id, const char *reason,
		  char buf[static REPLY_BODY_MAX]);

/* A whole HTTP/1.1 response with `Connection: close`, for a socket that the HTTP library cannot
 * answer any more. `allow` is the Allow header of a 405, else NULL. Returns its length. */
size_t reply_canned(enum reply_kind kind, const char *allow, char buf[static REPLY_CANNED_MAX]);
