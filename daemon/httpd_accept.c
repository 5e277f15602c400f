#include "httpd_internal.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Accepting is ours, not libmicrohttpd's: so the limit is one for all loops, at the limit new
 * connections wait in the backlog, running out of file descriptors is a pause and not a busy loop,
 * and stopping to listen needs nothing from libmicrohttpd. A loop that holds more than its share
 * leaves new connections to the others.
 */

#define ACCEPT_PAUSE_MS 100
#define ACCEPTS_PER_ROUND 16
#define SHARE_SLACK 8

static struct log_limit accept_log = { .burst = 2 };

/* The budget is taken before accept(2), so that loops together never hold one too many. */
static bool reserve_connection(struct httpd *h)
{
	size_t max = (size_t)h->config->max_connections;

	if (atomic_fetch_add(&h->n_open, 1) < max)
		return true;
	atomic_fetch_sub(&h->n_open, 1);
	return false;
}

static void give_back(struct httpd *h)
{
	atomic_fetch_sub(&h->n_open, 1);
}

static void forget(struct httpd_conn *conn)
{
	struct httpd *h = conn->loop->server;

	if (conn->in_quota) {
		uint8_t key[16];

		peer_key(&conn->peer, key);
		quota_release(h->quota, key);
	}
	give_back(h);
	free(conn);
}

void httpd_accept_notify(void *cls, struct MHD_Connection *mhd, void **socket_context,
			 enum MHD_ConnectionNotificationCode code)
{
	struct httpd_loop *loop = cls;
	struct httpd_conn *conn = *socket_context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		conn = loop->arriving;
		loop->arriving = NULL;
		conn->mhd = mhd;
		conn->next = loop->conns;
		if (conn->next)
			conn->next->prev = conn;
		loop->conns = conn;
		loop->n_conns++;
		*socket_context = conn;
		return;
	}
	*socket_context = NULL;
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		loop->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	loop->n_conns--;
	forget(conn);
}

/* Loopback, unix and proxies stand for many senders: no limit for them. */
static bool within_quota(struct httpd *h, struct httpd_conn *conn)
{
	uint8_t key[16];

	if (!h->quota || conn->peer.is_unix || peer_is_loopback(&conn->peer) ||
	    peer_is_trusted(&conn->peer, h->config))
		return true;
	peer_key(&conn->peer, key);
	conn->in_quota = quota_take(h->quota, key);
	return conn->in_quota;
}

/* Hands an accepted socket to libmicrohttpd, which owns it from then on, also when it fails. */
static void take_in(struct httpd_loop *loop, int fd, const struct sockaddr *address, socklen_t len)
{
	struct httpd_conn *conn = calloc(1, sizeof(*conn));

	if (!conn) {
		(void)close(fd);
		give_back(loop->server);
		return;
	}
	conn->loop = loop;
	conn->fd = fd;
	conn->peer = peer_from_sockaddr(address, len);
	conn->look_at_ms = loop->now_ms;
	conn->phase_since_ms = loop->now_ms;
	if (!within_quota(loop->server, conn)) {
		httpd_count(loop->server, METRICS_CONNECTION_REFUSED);
		(void)close(fd);
		forget(conn);
		return;
	}
	httpd_count(loop->server, METRICS_CONNECTIONS);
	loop->arriving = conn;
	(void)MHD_add_connection(loop->mhd, fd, address, len);
	if (loop->arriving) { /* it never began */
		forget(conn);
		loop->arriving = NULL;
	}
}

static void accept_failed(struct httpd_loop *loop, int error)
{
	if (error == EAGAIN || error == EINTR || error == ECONNABORTED)
		return;
	loop->accept_after_ms = loop->now_ms + ACCEPT_PAUSE_MS;
	httpd_count(loop->server, METRICS_ACCEPT_FAILED);
	if (log_limit_allows(&accept_log, NULL))
		log_line(LOG_LEVEL_WARNING,
			 "cannot accept connections; raise LimitNOFILE or lower max_connections",
			 LOG_TEXT("error", strerror(error)));
}

static bool accept_one(struct httpd_loop *loop, int listen_fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t len = sizeof(address);
	int fd;

	if (!reserve_connection(loop->server))
		return false;
	fd = accept4(listen_fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		give_back(loop->server);
		accept_failed(loop, errno);
		return false;
	}
	take_in(loop, fd, (struct sockaddr *)&address, len);
	return true;
}

static bool holds_more_than_its_share(const struct httpd_loop *loop)
{
	const struct httpd *h = loop->server;

	return loop->n_conns * h->n_loops > httpd_connections(h) + SHARE_SLACK;
}

static bool can_accept(const struct httpd_loop *loop)
{
	const struct httpd *h = loop->server;

	return !loop->draining && loop->now_ms >= loop->accept_after_ms &&
	       httpd_connections(h) < (size_t)h->config->max_connections;
}

bool httpd_accept_wanted(const struct httpd_loop *loop)
{
	return can_accept(loop) && !holds_more_than_its_share(loop);
}

/* Another loop holds less, but may have gone to sleep when it was the one with more. */
static void pass_on(struct httpd_loop *loop)
{
	struct httpd *h = loop->server;

	for (size_t i = 0; i < h->n_loops; i++) {
		if (&h->loops[i] != loop && atomic_exchange(&h->loops[i].is_deaf, false))
			httpd_wake(&h->loops[i]);
	}
}

bool httpd_accept_before_waiting(struct httpd_loop *loop)
{
	bool wanted = httpd_accept_wanted(loop);

	/* First told, then looked: of two loops that fall deaf at once one sees the other. */
	atomic_store(&loop->is_deaf, !wanted);
	if (!wanted && can_accept(loop))
		pass_on(loop);
	return wanted;
}

void httpd_accept_some(struct httpd_loop *loop, int listen_fd)
{
	for (int i = 0; i < ACCEPTS_PER_ROUND && httpd_accept_wanted(loop); i++) {
		if (!accept_one(loop, listen_fd))
			break;
	}
}

/* The sockets stay open until no loop polls them any more: a closed number could come back as
 * somebody else's. */
void httpd_accept_stop(struct httpd_loop *loop)
{
	struct httpd *h = loop->server;

	for (size_t i = 0; i < h->sockets.n; i++) {
		while (!h->sockets.items[i].inherited && accept_one(loop, h->sockets.items[i].fd))
			;
	}
	loop->draining = true;
	loop->drain_since_ms = loop->now_ms;
	(void)pthread_mutex_lock(&h->sockets_lock);
	if (--h->n_listening == 0)
		listen_finish(&h->sockets);
	(void)pthread_mutex_unlock(&h->sockets_lock);
}
