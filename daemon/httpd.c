#include "httpd_internal.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

/* The loops. Each waits for its own libmicrohttpd, its wake-up and the shared listening sockets,
 * then runs what was posted, libmicrohttpd, and every 100 ms the deadlines. Started and stopped by
 * the main thread.
 */

#define LOOPS_DEFAULT 2
#define ROUND_MAX_MS 100
#define IDLE_ROUND_MAX_MS 1000
#define KEEP_ALIVE_MIN_S 30

static struct log_limit library_log = { .burst = 5 };

/* --- posts --- */

size_t httpd_loop_index(const struct httpd_loop *loop)
{
	return loop->index;
}

int64_t httpd_loop_now_ms(const struct httpd_loop *loop)
{
	return loop->now_ms;
}

struct httpd_loop *httpd_loop_at(struct httpd *h, size_t index)
{
	return index < h->n_loops ? &h->loops[index] : NULL;
}

void httpd_post(struct httpd_loop *loop, struct httpd_post *post)
{
	post->next = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
	while (!atomic_compare_exchange_weak_explicit(&loop->inbox, &post->next, post,
						      memory_order_release, memory_order_relaxed))
		;
}

void httpd_wake(struct httpd_loop *loop)
{
	uint64_t one = 1;

	(void)!write(loop->wake_fd, &one, sizeof(one));
}

static void run_posts(struct httpd_loop *loop)
{
	struct httpd_post *post =
		atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire);
	struct httpd_post *in_order = NULL;

	while (post) {
		struct httpd_post *next = post->next;

		post->next = in_order;
		in_order = post;
		post = next;
	}
	while (in_order) {
		post = in_order;
		in_order = post->next; /* run() may free it */
		post->run(post);
	}
}

/* --- the loop --- */

static int round_timeout_ms(struct httpd_loop *loop)
{
	MHD_UNSIGNED_LONG_LONG library_ms;
	bool quiet = httpd_connections(loop->server) == 0 && loop->accept_after_ms <= loop->now_ms;
	int64_t timeout = loop->hurry ? 0 : quiet ? IDLE_ROUND_MAX_MS : ROUND_MAX_MS;

	loop->hurry = false;
	if (MHD_get_timeout(loop->mhd, &library_ms) == MHD_YES &&
	    library_ms < (MHD_UNSIGNED_LONG_LONG)timeout)
		timeout = (int64_t)library_ms;
	return (int)timeout;
}

static void wait_for_work(struct httpd_loop *loop)
{
	struct pollfd fds[2 + LISTEN_SOCKETS_MAX] = {
		{ .fd = loop->wake_fd, .events = POLLIN },
		{ .fd = loop->mhd_fd, .events = POLLIN },
	};
	nfds_t n = 2;
	uint64_t count;

	if (httpd_accept_before_waiting(loop)) {
		for (size_t i = 0; i < loop->server->sockets.n; i++)
			fds[n++] = (struct pollfd) { .fd = loop->server->sockets.items[i].fd,
						     .events = POLLIN };
	}
	(void)poll(fds, n, round_timeout_ms(loop));
	loop->now_ms = clock_mono_ms();
	if (fds[0].revents)
		(void)!read(loop->wake_fd, &count, sizeof(count));
	for (nfds_t i = 2; i < n; i++) {
		if (fds[i].revents)
			httpd_accept_some(loop, fds[i].fd);
	}
}

static void scan(struct httpd_loop *loop)
{
	const struct httpd_handler *handler = &loop->server->handler;

	if (loop->now_ms < loop->scan_at_ms)
		return;
	loop->scan_at_ms = loop->now_ms + ROUND_MAX_MS;
	httpd_deadline_scan(loop);
	if (handler->tick)
		handler->tick(handler->ctx, loop);
}

/* Was there one? */
static bool answer_suspended(struct httpd_loop *loop)
{
	static const struct httpd_answer unavailable = { .kind = REPLY_UNAVAILABLE, .close = true };
	bool any = false;

	for (struct httpd_conn *conn = loop->conns; conn; conn = conn->next) {
		if (!conn->request.active || conn->request.stage != HTTPD_SUSPENDED)
			continue;
		httpd_reply(&conn->request, &unavailable);
		any |= conn->request.stage != HTTPD_SUSPENDED;
	}
	return any;
}

/* MHD_stop_daemon panics while a connection is suspended; and a round may read a request that is
 * suspended in it. Each connection has one more at most: its answer closes it. */
static void finish_loop(struct httpd_loop *loop)
{
	run_posts(loop);
	(void)answer_suspended(loop);
	do
		(void)MHD_run(loop->mhd);
	while (answer_suspended(loop));
	MHD_stop_daemon(loop->mhd);
	loop->mhd = NULL;
	run_posts(loop);
}

void httpd_loop_round(struct httpd_loop *loop)
{
	wait_for_work(loop);
	if (!loop->draining && atomic_load(&loop->server->draining))
		httpd_accept_stop(loop);
	run_posts(loop);
	(void)MHD_run(loop->mhd);
	scan(loop);
	atomic_store_explicit(&loop->round_at_ms, loop->now_ms, memory_order_relaxed);
}

static void *run_loop(void *arg)
{
	struct httpd_loop *loop = arg;
	struct httpd *h = loop->server;

	while (!atomic_load(&h->stopping))
		httpd_loop_round(loop);
	if (!loop->draining)
		httpd_accept_stop(loop);
	finish_loop(loop);
	return NULL;
}

/* --- starting and stopping --- */

/* Its words for a connection that we chose to close, and for options of TCP on a unix socket. */
static bool says_nothing(const char *text)
{
	static const char *const idle[] = { "Application reported internal error", "Setting TCP_",
					    "Failed to push the data from buffers" };

	for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
		if (strncmp(text, idle[i], strlen(idle[i])) == 0)
			return true;
	return false;
}

/* What libmicrohttpd says is mostly about what clients did. */
static void library_says(void *cls, const char *fmt, va_list args) PRINTF_LIKE(2, 0);

static void library_says(void *cls, const char *fmt, va_list args)
{
	char text[256];
	int len = vsnprintf(text, sizeof(text), fmt, args);

	(void)cls;
	if (len <= 0 || says_nothing(text))
		return;
	text[strcspn(text, "\n")] = 0;
	if (log_limit_allows(&library_log, NULL))
		log_line(LOG_LEVEL_INFO, "http", LOG_TEXT("says", text));
}

/* Routes are compared as they were sent: no unescaping, so no second spelling of a path. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls;
	(void)mhd;
	return strlen(text);
}

static unsigned int keep_alive_s(const struct config_server *config)
{
	/* Never before our own deadline: that one answers. */
	return (unsigned int)base_max_i64(KEEP_ALIVE_MIN_S, config->request_timeout_ms / 1000 + 5);
}

/* Not strict: its one strict check, for Host, answers twice; the screen makes it. */
static int start_library(struct httpd_loop *loop)
{
	const struct config_server *config = loop->server->config;
	const union MHD_DaemonInfo *info;

	loop->mhd = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
			MHD_USE_NO_LISTEN_SOCKET,
		0, NULL, NULL, httpd_request_handle, loop, MHD_OPTION_EXTERNAL_LOGGER, library_says,
		NULL, MHD_OPTION_NOTIFY_CONNECTION, httpd_accept_notify, loop,
		MHD_OPTION_NOTIFY_COMPLETED, httpd_request_completed, loop,
		MHD_OPTION_URI_LOG_CALLBACK, httpd_request_line_seen, loop,
		MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 0,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
		(size_t)HTTPD_MEMORY_PER_CONNECTION, MHD_OPTION_CONNECTION_LIMIT,
		(unsigned int)config->max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
		keep_alive_s(config), MHD_OPTION_END);
	if (!loop->mhd)
		return -ENOMEM;
	info = MHD_get_daemon_info(loop->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -ENOSYS;
	loop->mhd_fd = info->epoll_fd;
	return 0;
}

static int init_loop(struct httpd *h, size_t index)
{
	struct httpd_loop *loop = &h->loops[index];

	loop->server = h;
	loop->index = index;
	loop->now_ms = clock_mono_ms();
	atomic_init(&loop->round_at_ms, loop->now_ms);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->n_loops = index + 1;
	h->n_listening = index + 1;
	return loop->wake_fd >= 0 ? start_library(loop) : -errno;
}

int httpd_new(const struct httpd_options *options, struct listen_set *sockets, struct httpd **ret)
{
	size_t n_loops = options->n_loops ? options->n_loops : LOOPS_DEFAULT;
	struct httpd *h = calloc(1, sizeof(*h));
	int r = 0;

	assert(n_loops <= HTTPD_LOOPS_MAX);
	if (!h)
		return -ENOMEM;
	h->handler = options->handler;
	h->config = options->config;
	h->uncounted = options->uncounted;
	(void)pthread_mutex_init(&h->sockets_lock, NULL);
	if (h->config->max_connections_per_ip > 0)
		r = quota_new((size_t)h->config->max_connections_per_ip,
			      (size_t)h->config->max_connections, &h->quota);
	for (size_t i = 0; r == 0 && i < n_loops; i++)
		r = init_loop(h, i);
	if (r == 0)
		r = listen_move(&h->sockets, sockets);
	if (r != 0) {
		httpd_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

int httpd_start(struct httpd *h)
{
	for (size_t i = 0; i < h->n_loops; i++) {
		int r = pthread_create(&h->loops[i].thread, NULL, run_loop, &h->loops[i]);

		if (r != 0)
			return -r;
		h->loops[i].started = true;
	}
	return 0;
}

static void wake_all(struct httpd *h)
{
	for (size_t i = 0; i < h->n_loops; i++)
		httpd_wake(&h->loops[i]);
}

void httpd_drain(struct httpd *h)
{
	atomic_store(&h->draining, true);
	wake_all(h);
}

size_t httpd_connections(const struct httpd *h)
{
	return atomic_load(&h->n_open);
}

int64_t httpd_stalled_ms(const struct httpd *h)
{
	int64_t now_ms = clock_mono_ms(), worst = 0;

	for (size_t i = 0; i < h->n_loops; i++)
		worst = base_max_i64(worst, now_ms - atomic_load(&h->loops[i].round_at_ms));
	return worst;
}

void httpd_stop(struct httpd *h)
{
	atomic_store(&h->stopping, true);
	wake_all(h);
	for (size_t i = 0; i < h->n_loops; i++) {
		if (h->loops[i].started)
			(void)pthread_join(h->loops[i].thread, NULL);
		h->loops[i].started = false;
	}
}

void httpd_free(struct httpd *h)
{
	if (!h)
		return;
	httpd_stop(h);
	for (size_t i = 0; i < h->n_loops; i++) {
		run_posts(&h->loops[i]);
		if (h->loops[i].mhd)
			MHD_stop_daemon(h->loops[i].mhd);
		if (h->loops[i].wake_fd >= 0)
			(void)close(h->loops[i].wake_fd);
	}
	listen_finish(&h->sockets);
	quota_free(h->quota);
	(void)pthread_mutex_destroy(&h->sockets_lock);
	free(h);
}
