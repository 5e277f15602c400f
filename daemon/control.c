/* The daemon's side: a few threads that accept from one socket, each with one client at a time, so
 * that `status` answers while a rebuild is waited for.
 *
 * Invariant: nothing here touches the store; commands ask the writer and look at its health
 * figures, and every wait ends with control_free. A client can only make its own thread wait, and
 * that for no longer than the patience.
 */
#include "control_internal.h"

#include "clock.h"
#include "config.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PATIENCE_MS 5000
#define BACKLOG 8
#define RETRY_MS 100

/* Waiting and talking --------------------------------------------------------- */

int control_wait(const struct control_talk *t, short events, int64_t until_mono_ms)
{
	struct pollfd fds[] = {
		{ .fd = t->c->stop_fd, .events = POLLIN },
		{ .fd = t->fd, .events = events },
	};
	for (;;) {
		int64_t left = base_max_i64(until_mono_ms - clock_mono_ms(), 0);
		int n = poll(fds, ARRAY_SIZE(fds), (int)base_min_i64(left, 60000));
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && fds[0].revents)
			return -ESHUTDOWN;
		if (n > 0 && (fds[1].revents & events))
			return 0;
		if (n > 0 && fds[1].revents)
			return -ECONNRESET;
		if (left == 0)
			return -ETIMEDOUT;
	}
}

static int say(struct control_talk *t, const char *text, size_t len)
{
	int64_t until = clock_mono_ms() + t->c->patience_ms;
	for (size_t sent = 0; sent < len;) {
		ssize_t n = send(t->fd, text + sent, len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0) {
			sent += (size_t)n;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		int r = control_wait(t, POLLOUT, until);
		if (r < 0)
			return r;
	}
	return 0;
}

int control_say(struct control_talk *t, const char *fmt, ...)
{
	char line[CONTROL_TEXT_MAX + 16];
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(line, sizeof(line) - 1, fmt, args);
	va_end(args);
	size_t len = base_min_size((size_t)base_max_i64(n, 0), sizeof(line) - 2);
	line[len++] = '\n';
	return say(t, line, len);
}

int control_say_json(struct control_talk *t, const struct buffer *json)
{
	CLEANUP(buffer_finish) struct buffer line = BUFFER_INIT(CONTROL_ANSWER_MAX);
	int r = buffer_appendf(&line, "ok %s\n", json->data);
	return r < 0 ? r : say(t, line.data, line.len);
}

/* The request line into `line`; 1: told the client what was wrong. */
static int read_request(struct control_talk *t, char line[static CONTROL_REQUEST_MAX],
			size_t *ret_len)
{
	int64_t until = clock_mono_ms() + t->c->patience_ms;
	for (size_t len = 0; len < CONTROL_REQUEST_MAX;) {
		int r = control_wait(t, POLLIN, until);
		if (r < 0)
			return r;
		ssize_t n = recv(t->fd, line + len, CONTROL_REQUEST_MAX - len, MSG_DONTWAIT);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n <= 0)
			continue;
		const char *end = memchr(line + len, '\n', (size_t)n);
		len += (size_t)n;
		*ret_len = end ? (size_t)(end - line) : len;
		if (end)
			return 0;
	}
	return control_say(t, "error a request has at most 4 KiB") < 0 ? -EPIPE : 1;
}

/* Clients ------------------------------------------------------------------------ */

static bool is_allowed(struct control_talk *t)
{
	socklen_t len = sizeof(t->peer);
	if (getsockopt(t->fd, SOL_SOCKET, SO_PEERCRED, &t->peer, &len) < 0)
		return false;
	return t->peer.uid == 0 || t->peer.uid == geteuid();
}

static int converse(struct control_talk *t)
{
	char line[CONTROL_REQUEST_MAX], error[CONTROL_TEXT_MAX];
	struct control_request request;
	size_t len = 0;
	if (!is_allowed(t))
		return control_say(t, "error only root and the daemon's own user are served");
	int r = read_request(t, line, &len);
	if (r != 0)
		return r;
	if (control_parse(line, len, &request, error) != 0)
		return control_say(t, "error %s", error);
	if (request.command != CONTROL_STATUS)
		log_line(LOG_LEVEL_NOTICE, "control",
			 LOG_TEXT("command", control_command_name(request.command)),
			 LOG_NUM("uid", t->peer.uid), LOG_NUM("pid", t->peer.pid));
	return control_request_run(t, &request);
}

static void serve(struct control *c, int fd)
{
	struct control_talk t = { .c = c, .fd = fd };
	int r = converse(&t);
	if (r == -ESHUTDOWN) {
		/* One send, no waiting: the daemon is on its way out. */
		static const char bye[] = "error the daemon is stopping\n";
		(void)send(fd, bye, sizeof(bye) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	} else if (r == -ENOMEM || r == -ENOBUFS) {
		(void)!control_say(&t, "error the daemon is out of memory");
	}
	(void)close(fd);
}

static void *run(void *ctx)
{
	struct control *c = ctx;
	struct pollfd fds[] = {
		{ .fd = c->stop_fd, .events = POLLIN },
		{ .fd = c->listen_fd, .events = POLLIN },
	};
	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents)
			return NULL;
		/* Another thread may have been quicker. */
		int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			serve(c, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			(void)poll(fds, 1, RETRY_MS); /* until descriptors are free again */
	}
}

/* The socket ---------------------------------------------------------------------- */

static int fail(char error[static CONTROL_TEXT_MAX], int r, const char *path, const char *what)
{
	(void)snprintf(error, CONTROL_TEXT_MAX, "%s" CONTROL_SUFFIX ": %s", path,
		       what ? what : strerror(-r));
	return r;
}

static int open_directory(struct control *c, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	int len = snprintf(c->name, sizeof(c->name), "%s" CONTROL_SUFFIX, name);
	if (len < 0 || (size_t)len >= sizeof(c->name))
		return -ENAMETOOLONG;
	CLEANUP_FREE char *directory =
		slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	if (!directory)
		return -ENOMEM;
	c->dir_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return c->dir_fd < 0 ? -errno : 0;
}

/* Under a name of its own first: short enough for a socket address in any directory, and put in its
 * place at once, whatever stale socket is there. Its mode is set before it has a name. */
static int bind_socket(struct control *c)
{
	char temporary[40];
	struct stat st;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(temporary, sizeof(temporary), ".e2b-hookd.%ld", (long)getpid());
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", c->dir_fd,
		       temporary);
	(void)unlinkat(c->dir_fd, temporary, 0);
	if (fchmod(c->listen_fd, 0600) < 0 ||
	    bind(c->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	int r = 0;
	if (fstatat(c->dir_fd, temporary, &st, AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	else if ((st.st_mode & 0777) != 0600)
		r = -EPERM;
	if (r == 0 && (listen(c->listen_fd, BACKLOG) < 0 ||
		       renameat(c->dir_fd, temporary, c->dir_fd, c->name) < 0))
		r = -errno;
	if (r < 0) {
		(void)unlinkat(c->dir_fd, temporary, 0);
		return r;
	}
	c->is_bound = true;
	c->dev = st.st_dev;
	c->ino = st.st_ino;
	return 0;
}

static int make_socket(struct control *c, const char *path, char error[static CONTROL_TEXT_MAX])
{
	struct stat st;
	int r = open_directory(c, path);
	if (r < 0)
		return fail(error, r, path, NULL);
	if (fstatat(c->dir_fd, c->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISSOCK(st.st_mode))
		return fail(error, -EEXIST, path, "is no socket: move it away");
	c->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	c->stop_fd = eventfd(0, EFD_CLOEXEC);
	r = c->listen_fd < 0 || c->stop_fd < 0 ? -errno : bind_socket(c);
	return r < 0 ? fail(error, r, path, NULL) : 0;
}

static void remove_socket(struct control *c)
{
	struct stat st;
	if (c->is_bound && fstatat(c->dir_fd, c->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_dev == c->dev && st.st_ino == c->ino)
		(void)unlinkat(c->dir_fd, c->name, 0);
}

/* Lifecycle ------------------------------------------------------------------------ */

int control_new(const struct control_options *options, struct control **ret,
		char error[static CONTROL_TEXT_MAX])
{
	error[0] = '\0';
	struct control *c = calloc(1, sizeof(*c));
	if (!c)
		return fail(error, -ENOMEM, options->store_path, NULL);
	c->listen_fd = c->stop_fd = c->dir_fd = -1;
	c->writer = options->writer;
	c->hooks = options->hooks;
	c->queue_limit = (size_t)options->config->store.queue_limit;
	c->patience_ms = options->patience_ms ? options->patience_ms : PATIENCE_MS;
	c->started_mono_ms = clock_mono_ms();
	c->config = config_ref((struct config *)options->config);
	(void)pthread_mutex_init(&c->lock, NULL);
	int r = make_socket(c, options->store_path, error);
	for (size_t i = 0; r == 0 && i < CONTROL_THREADS; i++) {
		r = -pthread_create(&c->threads[i], NULL, run, c);
		c->n_threads += r == 0;
		if (r < 0)
			(void)fail(error, r, options->store_path, "no thread to serve it");
	}
	if (r < 0) {
		control_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

void control_set_config(struct control *c, const struct config *config, const char *restart_needed)
{
	(void)pthread_mutex_lock(&c->lock);
	struct config *old = (struct config *)c->config;
	c->config = config_ref((struct config *)config);
	(void)snprintf(c->restart_needed, sizeof(c->restart_needed), "%s", restart_needed);
	(void)pthread_mutex_unlock(&c->lock);
	config_unref(old);
}

void control_free(struct control *c)
{
	if (!c)
		return;
	remove_socket(c);
	if (c->stop_fd >= 0)
		(void)eventfd_write(c->stop_fd, 1);
	for (size_t i = 0; i < c->n_threads; i++)
		(void)pthread_join(c->threads[i], NULL);
	base_close_fd(&c->listen_fd);
	base_close_fd(&c->stop_fd);
	base_close_fd(&c->dir_fd);
	config_unref((struct config *)c->config);
	(void)pthread_mutex_destroy(&c->lock);
	free(c);
}
