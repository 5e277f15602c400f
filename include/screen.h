/* The header screen: refuses requests whose framing parsers disagree on, before a byte of the body
 * is believed.
 *
 * libmicrohttpd 0.9.75 accepts two lengths, a length beside a transfer coding, unknown codings,
 * blanks before the colon and more, even at its strictest setting (CWE-444, request smuggling).
 * What it hides from us cannot be screened: bare LF, folded lines, a value cut at NUL, chunk
 * extensions. Pure; any thread.
 */
#pragma once

#include "base.h"

#define SCREEN_HEADERS_MAX 100
#define SCREEN_ONCE_MAX 4

struct screen_header {
	struct span name, value;
};

struct screen_request {
	const char *method;
	const char *version; /* "HTTP/1.1" */
	const struct screen_header *headers;
	size_t n_headers; /* more than SCREEN_HEADERS_MAX are refused */
	const char *once[SCREEN_ONCE_MAX]; /* names that may occur at most once, lower case; NULL
					      ends */
};

/* What is left to know when the screen was passed. */
struct screen_framing {
	bool has_body; /* a length above 0, or chunked */
	bool chunked;
	int64_t length; /* declared; -1 when chunked */
	bool expects_continue; /* `Expect: 100-continue`: the sender waits before it uploads */
	bool closes; /* the sender asks for `Connection: close` */
};

enum screen_outcome {
	SCREEN_BAD_VERSION = 1,
	SCREEN_TOO_MANY_HEADERS,
	SCREEN_BAD_NAME, /* not a token: blanks before the colon end here too */
	SCREEN_BAD_VALUE, /* control characters */
	SCREEN_BAD_HOST, /* none or several */
	SCREEN_BAD_LENGTH, /* several, not digits, too long */
	SCREEN_BAD_CODING, /* several, not `chunked`, or under HTTP/1.0 */
	SCREEN_LENGTH_AND_CODING,
	SCREEN_NO_LENGTH, /* POST, PUT, PATCH without either */
	SCREEN_UNEXPECTED_BODY, /* GET or HEAD with one */
	SCREEN_REPEATED, /* a header of `once` */
	SCREEN_BAD_TARGET, /* blanks or control characters in the request target */
	SCREEN_BAD_EXPECT, /* 100-continue without a body, as no client may send it (RFC 9110
			      10.1.1): what follows at once would go unanswered */
};
#define SCREEN_N_OUTCOMES (SCREEN_BAD_EXPECT + 1)

/* 0 and *ret, or an outcome: then answer 400 and close. */
MUST_CHECK int screen_headers(const struct screen_request *request, struct screen_framing *ret);
const char *screen_outcome_name(enum screen_outcome outcome); /* "bad_host" */

/* A request target as it may be sent: visible characters only. */
bool screen_target(const char *target);

/* Equal without regard to ASCII case? */
bool screen_name_is(struct span name, const char *lower_case);
