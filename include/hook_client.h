/* A small blocking HTTP/1.1 client that POSTs deliveries, over TCP or a unix socket, one connection
 * for many. It is made for our own listener and for proxies in front of it: answers with a length
 * or until the end of the connection, no TLS, no redirects, no chunked bodies (their status is
 * told, their text is not). What answers is not trusted: everything read is bounded in size and
 * time.
 */
#pragma once

#include "base.h"
#include "buffer.h"

#define HOOK_CLIENT_HOST_MAX 256
#define HOOK_CLIENT_PATH_MAX 1024
#define HOOK_CLIENT_UNIX_MAX 108
#define HOOK_CLIENT_ANSWER_MAX 65536
#define HOOK_CLIENT_ERROR_MAX 512

struct hook_client_target {
	char host[HOOK_CLIENT_HOST_MAX]; /* name or address without brackets; "": unix_path */
	uint16_t port;
	char unix_path[HOOK_CLIENT_UNIX_MAX];
	char path[HOOK_CLIENT_PATH_MAX]; /* of the URL; "" if it has none */
};

/* `http://host[:port][/path]`, `http://[v6]…`, `unix:/path/of/socket`. -EINVAL; -EPROTONOSUPPORT
 * for https. */
MUST_CHECK int hook_client_read_url(const char *url, struct hook_client_target *ret);

/* The head of a response, status line to the blank line. -EPROTO: none. Pure. */
struct hook_client_head {
	unsigned int status;
	int64_t body_len; /* -1: until the connection ends */
	bool is_chunked;
	bool keeps_open;
};
MUST_CHECK int hook_client_read_head(const char *text, size_t len, struct hook_client_head *ret);

struct hook_client;
/* Connects with the first post. `timeout_ms` bounds each post as a whole. */
MUST_CHECK int hook_client_new(const struct hook_client_target *target, int64_t timeout_ms,
			       struct hook_client **ret);
void hook_client_free(struct hook_client *c);

struct hook_client_header {
	const char *name, *value;
};

struct hook_client_answer {
	unsigned int status;
	struct buffer
		body; /* initialised by the call, also when it fails; the caller finishes it */
};

/* POSTs a body. Name and value of a header must be free of control characters (-EINVAL). On failure
 * `error` says in one line what happened and with whom. A connection that was kept and turns out to
 * be closed is opened anew once: a delivery may then arrive twice, which costs nothing. */
MUST_CHECK int hook_client_post(struct hook_client *c, const char *path,
				const struct hook_client_header *headers, size_t n_headers,
				struct span body, struct hook_client_answer *ret,
				char error[static HOOK_CLIENT_ERROR_MAX]);
