/* POSTs one body to a URL that an operator configured, and returns the answer.
 *
 * Made for receivers that are slow, dead or hostile: http and https only, TLS verified against the
 * system's certificates, no redirects, no proxy (whatever the environment says), no cookies, no
 * credentials from files; everything that comes back is bounded in size and the whole in time. A
 * URL may be a secret (Slack's are): messages name its scheme and host only. A connection a call:
 * at the rate of notifications a pool would only keep stale ones. libcurl lives in this module
 * only. Any thread.
 */
#pragma once

#include "base.h"
#include "buffer.h"

#include <stdatomic.h>

#define HTTP_CLIENT_URL_MAX 4096
#define HTTP_CLIENT_ANSWER_MAX 16384 /* of a body; the rest is not read */
#define HTTP_CLIENT_ENDPOINT_MAX 272
#define HTTP_CLIENT_ERROR_MAX 768

/* Outcomes of http_client_post. All but the first may pass by themselves. */
enum http_client_outcome {
	HTTP_CLIENT_BAD_URL = 1, /* not one that we would ever call */
	HTTP_CLIENT_UNREACHABLE, /* no name, no connection, it broke, or it is not HTTP */
	HTTP_CLIENT_UNTRUSTED, /* its certificate or TLS is not to be trusted */
	HTTP_CLIENT_TIMEOUT,
	HTTP_CLIENT_STOPPED, /* *stop was set */
};

struct http_client_header {
	const char *name, *value;
};

struct http_client_request {
	const char *url;
	const struct http_client_header *headers; /* values without control characters */
	size_t n_headers;
	struct span body;
	int64_t timeout_ms; /* for the whole; connecting may take two fifths of it, at least 1 s */
	const atomic_bool *stop; /* NULL, or set from elsewhere to end the call soon */
};

struct http_client_answer {
	unsigned int status;
	int64_t retry_after_s; /* Retry-After, a date too; 0: not said or over */
	struct buffer body; /* initialised by the call in any case; the caller finishes it */
};

/* 0 once there is a status, whatever breaks behind it: a receiver that said 200 has it. Else an
 * outcome, -EINVAL for a bad header or -ENOMEM, with `error`: one line that says what happened and
 * with whom. */
MUST_CHECK int http_client_post(const struct http_client_request *request,
				struct http_client_answer *ret,
				char error[static HTTP_CLIENT_ERROR_MAX]);

/* `https://host` or `https://host:8443`: the part of a URL that may be shown. 0, or
 * HTTP_CLIENT_BAD_URL and "": not http or https, no host, or a byte that is no visible ASCII. */
MUST_CHECK int http_client_endpoint(const char *url, char buf[static HTTP_CLIENT_ENDPOINT_MAX]);
