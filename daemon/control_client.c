/* The tool's side: one request, its progress, its answer. The socket is opened by its path first
 * and reached through /proc/self/fd, so that the path may be longer than a socket address. */
#include "control.h"

#include "buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SILENCE_MAX_S 30

static int open_socket_file(const char *store_path, int *ret_fd)
{
	char path[4096];
	struct stat st;
	int len = snprintf(path, sizeof(path), "%s%s", store_path, CONTROL_SUFFIX);
	if (len < 0 || (size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	CLEANUP_CLOSE int fd = open(path, O_PATH | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? CONTROL_NO_DAEMON : -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int connect_to(const char *store_path, int *ret_fd)
{
	CLEANUP_CLOSE int file = -1;
	int r = open_socket_file(store_path, &file);
	if (r != 0)
		return r;
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* Of connect(2), too: it waits while the daemon's backlog is full. */
	const struct timeval limit = { .tv_sec = SILENCE_MAX_S };
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == ECONNREFUSED)
			return CONTROL_NO_DAEMON; /* left by one that was killed */
		return errno == EAGAIN || errno == EWOULDBLOCK ? -ETIMEDOUT : -errno;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int send_line(int fd, const char *request)
{
	CLEANUP(buffer_finish) struct buffer line = BUFFER_INIT(CONTROL_REQUEST_MAX);
	int r = buffer_appendf(&line, "%s\n", request);
	if (r < 0)
		return r == -ENOBUFS ? -EMSGSIZE : r;
	for (size_t sent = 0; sent < line.len;) {
		ssize_t n = send(fd, line.data + sent, line.len - sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		/* Who is not served is told so before the request is read. */
		if (n < 0 && errno == EPIPE)
			return 0;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		sent += (size_t)n;
	}
	return 0;
}

static const char *behind(const char *line, const char *word)
{
	size_t len = strlen(word);
	return strncmp(line, word, len) == 0 ? line + len : NULL;
}

static int keep_answer(const char *text, int outcome, char **ret_answer)
{
	*ret_answer = strdup(text);
	return *ret_answer ? outcome : -ENOMEM;
}

/* One line. -EAGAIN: more will come. */
static int take_line(const char *line, control_progress_fn progress, void *ctx, char **ret_answer)
{
	const char *text;
	if ((text = behind(line, "ok ")))
		return keep_answer(text, 0, ret_answer);
	if ((text = behind(line, "error ")))
		return keep_answer(text, CONTROL_REFUSED, ret_answer);
	text = behind(line, "progress ");
	if (!text)
		return -EPROTO;
	if (progress)
		progress(ctx, text);
	return -EAGAIN;
}

/* The whole lines at the beginning of `b`; leaves the rest in it. */
static int take_lines(struct buffer *b, control_progress_fn progress, void *ctx, char **ret_answer)
{
	size_t from = 0;
	char *end;
	while (from < b->len && (end = memchr(b->data + from, '\n', b->len - from))) {
		*end = '\0';
		int r = take_line(b->data + from, progress, ctx, ret_answer);
		if (r != -EAGAIN)
			return r;
		from = (size_t)(end + 1 - b->data);
	}
	if (from > 0) {
		memmove(b->data, b->data + from, b->len - from + 1);
		b->len -= from;
	}
	return -EAGAIN;
}

static int read_answer(int fd, control_progress_fn progress, void *ctx, char **ret_answer)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(CONTROL_ANSWER_MAX);
	char chunk[4096];
	for (;;) {
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			return -ECONNRESET;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		int r = buffer_append(&b, chunk, (size_t)n);
		if (r == 0)
			r = take_lines(&b, progress, ctx, ret_answer);
		if (r != -EAGAIN)
			return r == -ENOBUFS ? -EPROTO : r;
	}
}

int control_call(const char *store_path, const char *request, control_progress_fn progress,
		 void *ctx, char **ret_answer)
{
	*ret_answer = NULL;
	CLEANUP_CLOSE int fd = -1;
	int r = connect_to(store_path, &fd);
	if (r == 0)
		r = send_line(fd, request);
	return r != 0 ? r : read_answer(fd, progress, ctx, ret_answer);
}
