/* The HTTP server: the one wrapper around libmicrohttpd 0.9.75 and its quirks. Knows connections,
 * deadlines and answers; what a request means is its handler's.
 *
 * A few loops, each a thread with a libmicrohttpd of its own in external epoll mode (the internal
 * threads stall when exactly 128 sockets are ready, and race in quiesce and stop). Listening
 * sockets are shared: every loop polls and accepts from all of them. All calls of a handler about
 * one request come from the one thread of its loop; so do the calls it makes, unless said
 * otherwise.
 *
 *   begin ── body … body ── complete ── finish          the ordinary course
 *     │         │               └─ httpd_suspend … httpd_reply from a post or a tick
 *     └─────────┴─ httpd_reply: refused; body and complete do not come any more
 *
 * Invariant: every request that began is finished once, answered or not, and is never touched
 * afterwards. A refusal during an upload is written straight to the socket, which is then read and
 * discarded for up to HTTPD_LINGER_MS: else the sender meets a reset before it reads the answer.
 */
#pragma once

#include "base.h"
#include "config.h"
#include "listen.h"
#include "peer.h"
#include "reply.h"
#include "screen.h"

#define HTTPD_LOOPS_MAX 16
#define HTTPD_LINGER_MS 2000
#define HTTPD_MEMORY_PER_CONNECTION (12 * 1024)

struct httpd;
struct httpd_loop;
struct httpd_request;

struct httpd_handler {
	/* The headers are there. Must call httpd_screen first. Sets its data, or replies. */
	void (*begin)(void *ctx, struct httpd_request *r);
	/* A piece of the body. */
	void (*body)(void *ctx, struct httpd_request *r, const char *bytes, size_t len);
	/* The request is complete: replies or suspends. */
	void (*complete)(void *ctx, struct httpd_request *r);
	/* The request is over; `answered`: its answer was handed to the kernel. Only called if
	 * data was set. */
	void (*finish)(void *ctx, struct httpd_request *r, bool answered);
	/* Every 100 ms or so on each loop; may be NULL. */
	void (*tick)(void *ctx, struct httpd_loop *loop);
	void *ctx;
};

struct httpd_options {
	const struct config_server *config; /* lent for the server's life */
	size_t n_loops; /* 0: two */
	bool uncounted; /* its traffic is not the hook listener's: no counter moves */
	struct httpd_handler handler;
};

/* Takes the sockets out of `sockets` when it succeeds. Nothing runs before httpd_start. */
MUST_CHECK int httpd_new(const struct httpd_options *options, struct listen_set *sockets,
			 struct httpd **ret);
MUST_CHECK int httpd_start(struct httpd *h);

/* From now on: no new connections (what waits in the backlog of our own sockets is still taken),
 * `Connection: close` on every answer, idle connections closed. Returns at once. Main thread. */
void httpd_drain(struct httpd *h);
/* Any thread. */
size_t httpd_connections(const struct httpd *h);
/* How long ago the slowest loop last came round, for a watchdog. Any thread. */
int64_t httpd_stalled_ms(const struct httpd *h);
/* Stops the loops; open connections are cut, suspended requests answered 503 as far as that goes.
 * Posts made before are run. Main thread. */
void httpd_stop(struct httpd *h);
void httpd_free(struct httpd *h); /* stops first if need be */

/* --- one request; on its loop's thread --- */

/* The header screen, with names of headers that may occur once only. False: 400 was replied. */
MUST_CHECK bool httpd_screen(struct httpd_request *r, const char *const *once, size_t n_once);

const char *httpd_method(const struct httpd_request *r);
/* The path exactly as sent, nothing unescaped, without the query. */
const char *httpd_path(const struct httpd_request *r);
const struct screen_framing *httpd_framing(const struct httpd_request *r);
const struct peer *httpd_peer(const struct httpd_request *r);
struct httpd_loop *httpd_loop_of(const struct httpd_request *r);
/* The value of the first header of that name (any case), until the request is finished. */
struct span httpd_header(const struct httpd_request *r, const char *name);
/* All values of that name, in order, at most max; returns how many. Only in begin. */
size_t httpd_header_values(const struct httpd_request *r, const char *lower_case,
			   struct span *values, size_t max);
void httpd_set_data(struct httpd_request *r, void *data);
void *httpd_data(const struct httpd_request *r);

struct httpd_answer {
	enum reply_kind kind;
	const char *event_id, *reason; /* see reply_body; may be NULL */
	const char *allow; /* of a 405 */
	bool close; /* and close the connection */
};
/* Answers. In begin and body: refuses the request; in complete or while suspended: the answer. The
 * first answer counts, later ones are ignored. */
void httpd_reply(struct httpd_request *r, const struct httpd_answer *answer);
/* Any other content, in complete or while suspended only; everything is copied. */
struct httpd_content {
	unsigned int status;
	const char *type;
	const char *body;
	size_t len;
	struct {
		const char *name, *value;
	} headers[4]; /* more of them; name NULL: none */
};
void httpd_send(struct httpd_request *r, const struct httpd_content *content);
/* In complete: the answer comes later. A suspended request has no deadline and notices no
 * disconnect: its handler must answer it. */
void httpd_suspend(struct httpd_request *r);

/* --- loops --- */

size_t httpd_loop_index(const struct httpd_loop *loop);
int64_t httpd_loop_now_ms(const struct httpd_loop *loop); /* monotonic, of this round */

/* Work for a loop's thread, in the order posted. Lends `post` until run() is called. Does not wake
 * the loop, so that many posts cost one wake-up; unwoken it comes round within a second. Any
 * thread. */
struct httpd_post {
	void (*run)(struct httpd_post *post);
	struct httpd_post *next; /* private */
};
void httpd_post(struct httpd_loop *loop, struct httpd_post *post);
void httpd_wake(struct httpd_loop *loop);
struct httpd_loop *httpd_loop_at(struct httpd *h, size_t index);
