/* What the parts of httpd share: httpd.c runs the loops, httpd_accept.c takes
 * connections in, httpd_request.c turns libmicrohttpd's
 * callbacks into a handler's, httpd_deadline.c cuts what takes too long.
 *
 * Fields without a note belong to the loop's thread.
 */
#pragma once

#include "httpd.h"
#include "metrics.h"
#include "quota.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

enum httpd_phase {
	HTTPD_IDLE, /* between requests, or nothing received yet */
	HTTPD_HEADERS, /* the first bytes of a request are there */
	HTTPD_BODY,
	HTTPD_ANSWERING, /* complete: the handler's turn, or sending */
	HTTPD_LINGERING, /* refused: reading what still comes and forgetting it */
};

enum httpd_stage { HTTPD_AT_BEGIN, HTTPD_AT_BODY, HTTPD_AT_COMPLETE, HTTPD_SUSPENDED };

struct httpd_request {
	struct httpd_conn *conn;
	enum httpd_stage stage;
	bool active, screened, completed;
	bool replied, refused, queued; /* refused: answered by hand, nothing else follows */
	bool resuming;
	struct screen_framing framing;
	const char *method, *path, *version;
	void *data;
	struct MHD_Response *response; /* the answer; NULL: none yet */
	unsigned int status;
	bool close;
};

struct httpd_conn {
	struct httpd_loop *loop;
	struct MHD_Connection *mhd;
	struct httpd_conn *prev, *next;
	int fd;
	struct peer peer;
	bool in_quota;
	bool bad_target; /* of the current request's first line */
	enum httpd_phase phase;
	int64_t phase_since_ms;
	int64_t request_since_ms; /* first byte of the request, as far as seen */
	int64_t look_at_ms; /* idle: when to look for new bytes */
	uint64_t bytes_seen; /* TCP: received when last looked; UINT64_MAX: not known */
	struct httpd_request request; /* the current one: libmicrohttpd takes them in turn */
};

struct httpd_loop {
	struct httpd *server;
	size_t index;
	pthread_t thread;
	bool started; /* main thread */
	struct MHD_Daemon *mhd;
	int mhd_fd, wake_fd;
	_Atomic(struct httpd_post *) inbox; /* last first */
	struct httpd_conn *conns;
	size_t n_conns;
	struct httpd_conn *arriving; /* accepted, not yet taken up by libmicrohttpd */
	bool draining, hurry;
	int64_t now_ms, scan_at_ms, drain_since_ms, accept_after_ms;
	atomic_bool is_deaf; /* waits without the listening sockets */
	atomic_int_fast64_t round_at_ms;
	struct screen_header headers[SCREEN_HEADERS_MAX + 1]; /* of the request that begins */
	size_t n_headers;
};

struct httpd {
	struct httpd_handler handler;
	const struct config_server *config;
	bool uncounted;
	struct listen_set sockets; /* closed when the last loop has stopped listening */
	pthread_mutex_t sockets_lock; /* guards n_listening and closing the sockets */
	size_t n_listening; /* loops that still poll them */
	struct quota *quota; /* NULL: no limit per address */
	atomic_size_t n_open; /* connections, and those about to be accepted */
	atomic_bool draining, stopping;
	size_t n_loops;
	struct httpd_loop loops[HTTPD_LOOPS_MAX];
};

/* httpd.c: waits for work and does it, once. On the loop's thread, or a test's that started none. */
void httpd_loop_round(struct httpd_loop *loop);

/* httpd_request.c: libmicrohttpd's callbacks; cls is the loop. */
enum MHD_Result httpd_request_handle(void *cls, struct MHD_Connection *mhd, const char *url,
				     const char *method, const char *version, const char *upload,
				     size_t *upload_size, void **request_ctx);
void httpd_request_completed(void *cls, struct MHD_Connection *mhd, void **request_ctx,
			     enum MHD_RequestTerminationCode code);
void *httpd_request_line_seen(void *cls, const char *uri, struct MHD_Connection *mhd);

/* httpd_accept.c */
void httpd_accept_notify(void *cls, struct MHD_Connection *mhd, void **socket_context,
			 enum MHD_ConnectionNotificationCode code);
/* Should this loop take connections now? */
bool httpd_accept_wanted(const struct httpd_loop *loop);
/* The same, for the round to come: if not, some other loop does. */
bool httpd_accept_before_waiting(struct httpd_loop *loop);
void httpd_accept_some(struct httpd_loop *loop, int listen_fd);
/* Empties the backlog of our own sockets and listens no more: draining begins. */
void httpd_accept_stop(struct httpd_loop *loop);

/* httpd_deadline.c */
void httpd_deadline_scan(struct httpd_loop *loop);
/* Writes a whole answer to the socket and begins to linger. */
void httpd_deadline_refuse(struct httpd_conn *conn, enum reply_kind kind, const char *allow);

static inline void httpd_count(const struct httpd *h, enum metrics_counter counter)
{
	if (!h->uncounted)
		metrics_count(counter);
}

static inline void httpd_conn_enter(struct httpd_conn *conn, enum httpd_phase phase)
{
	conn->phase = phase;
	conn->phase_since_ms = conn->loop->now_ms;
}
