#include "httpd_internal.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Deadlines for the whole of a request, where libmicrohttpd only knows idleness (a byte every two
 * seconds holds a connection for ever). One list per loop, gone through every 100 ms.
 *
 * The clock starts at a request's first bytes, not at the end of the one before: a connection may
 * rest between requests. libmicrohttpd tells us of a request when its first line is complete; the
 * kernel's count of received bytes shows the ones that never complete it. For unix sockets there is
 * no such count: there the clock starts at the first line, and before it libmicrohttpd's idle
 * timeout holds.
 *
 * Nothing here closes a socket: libmicrohttpd does, when a read on it ends.
 */

#define LOOK_EVERY_MS 1000
#define DRAIN_GRACE_MS 300

/* False where it cannot be known. */
static bool bytes_received(const struct httpd_conn *conn, uint64_t *ret)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (conn->peer.is_unix || getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
	    len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(uint64_t))
		return false;
	*ret = info.tcpi_bytes_received;
	return true;
}

/* Has a request begun on an idle connection? */
static void look(struct httpd_conn *conn)
{
	uint64_t bytes;

	conn->look_at_ms = conn->loop->now_ms + LOOK_EVERY_MS;
	if (!bytes_received(conn, &bytes))
		return;
	if (conn->bytes_seen != UINT64_MAX && bytes > conn->bytes_seen) {
		conn->request_since_ms = conn->loop->now_ms;
		httpd_conn_enter(conn, HTTPD_HEADERS);
	}
	conn->bytes_seen = bytes;
}

void httpd_deadline_refuse(struct httpd_conn *conn, enum reply_kind kind, const char *allow)
{
	char text[REPLY_CANNED_MAX];
	size_t len = reply_canned(kind, allow, text);

	/* Too late or too full for it: then the sender only sees the connection end. */
	(void)!send(conn->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)shutdown(conn->fd, SHUT_WR);
	conn->request.refused = true;
	httpd_conn_enter(conn, HTTPD_LINGERING);
}

static void time_out(struct httpd_conn *conn, enum metrics_counter counter)
{
	httpd_count(conn->loop->server, counter);
	httpd_count(conn->loop->server, METRICS_TIMEOUT);
	httpd_deadline_refuse(conn, REPLY_TIMEOUT, NULL);
}

static void check_idle(struct httpd_conn *conn)
{
	struct httpd_loop *loop = conn->loop;
	int waiting = 0;

	if (!loop->draining) {
		if (loop->now_ms >= conn->look_at_ms)
			look(conn);
		return;
	}
	/* A busy sender's next request is on its way: it gets its answer and `Connection: close`.
	 * Only who stays silent is cut. */
	look(conn);
	if (conn->phase != HTTPD_IDLE ||
	    loop->now_ms - base_max_i64(conn->phase_since_ms, loop->drain_since_ms) <
		    DRAIN_GRACE_MS)
		return;
	if (ioctl(conn->fd, FIONREAD, &waiting) == 0 && waiting > 0)
		return;
	(void)shutdown(conn->fd, SHUT_RDWR);
}

/* libmicrohttpd waits edge-triggered and takes a short read for "nothing more": a sender's end that
 * comes together with its last bytes is never noticed. */
static bool end_was_missed(const struct httpd_conn *conn)
{
	char byte;

	return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void check(struct httpd_conn *conn)
{
	const struct config_server *config = conn->loop->server->config;
	int64_t now_ms = conn->loop->now_ms;
	bool looks = conn->phase == HTTPD_IDLE ? now_ms >= conn->look_at_ms
					       : conn->phase != HTTPD_ANSWERING;

	if (looks && end_was_missed(conn)) {
		(void)shutdown(conn->fd, SHUT_RDWR);
		return;
	}
	switch (conn->phase) {
	case HTTPD_IDLE:
		check_idle(conn);
		break;
	case HTTPD_HEADERS:
		if (now_ms - conn->request_since_ms >= config->header_timeout_ms)
			time_out(conn, METRICS_HEADER_TIMEOUT);
		break;
	case HTTPD_BODY:
		if (now_ms - conn->request_since_ms >= config->request_timeout_ms)
			time_out(conn, METRICS_REQUEST_TIMEOUT);
		break;
	case HTTPD_ANSWERING:
		break;
	case HTTPD_LINGERING:
		if (now_ms - conn->phase_since_ms >= HTTPD_LINGER_MS)
			(void)shutdown(conn->fd, SHUT_RDWR);
		break;
	}
}

void httpd_deadline_scan(struct httpd_loop *loop)
{
	for (struct httpd_conn *conn = loop->conns; conn; conn = conn->next)
		check(conn);
}
