/* Replies: from an outcome to status and body. Constant texts, RFC 9457 problems, nothing secret.
 * Pure. */
#pragma once

#include "base.h"

enum reply_kind {
	REPLY_STORED,
	REPLY_DUPLICATE,
	REPLY_FILTERED,
	REPLY_QUARANTINED,
	REPLY_HEALTHY,
	REPLY_UNAUTHORIZED, /* 401: the same bytes in every case */
	REPLY_BAD_REQUEST,
	REPLY_NOT_FOUND,
	REPLY_METHOD_NOT_ALLOWED,
	REPLY_TIMEOUT, /* 408 */
	REPLY_TOO_LARGE, /* 413 */
	REPLY_UNAVAILABLE, /* 503 with Retry-After: 10 */
};
#define REPLY_N_KINDS (REPLY_UNAVAILABLE + 1)
#define REPLY_BODY_MAX 512

unsigned int reply_status(enum reply_kind kind);
const char *reply_content_type(enum reply_kind kind);
/* Writes the body; event_id and detail may be NULL. Returns its length. */
size_t reply_body(enum reply_kind kind, const char *event_id, const char *detail,
		  char buf[static REPLY_BODY_MAX]);
/* A whole HTTP/1.1 response with `Connection: close`, for a socket that the HTTP library cannot
 * answer any more. */
size_t reply_canned(enum reply_kind kind, char *buf, size_t size);
