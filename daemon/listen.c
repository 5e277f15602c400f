#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* A unix socket gets its mode and group between bind and listen: nobody can connect before. A path
 * left behind by a process that died is recognised by a refused connection, never by age; a path
 * that answers is another process's and stays.
 */

#define BACKLOG 4096
#define SYSTEMD_FIRST_FD 3

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
};

static int fail(char error[static LISTEN_ERROR_MAX], int r, const char *fmt, ...) PRINTF_LIKE(3, 4);

static int fail(char error[static LISTEN_ERROR_MAX], int r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(error, LISTEN_ERROR_MAX, fmt, args);
	va_end(args);
	return r;
}

static void describe(struct listen_socket *s)
{
	union address a = { 0 };
	socklen_t len = sizeof(a);
	char host[INET6_ADDRSTRLEN] = "";

	if (getsockname(s->fd, &a.any, &len) != 0)
		return;
	s->is_unix = a.any.sa_family == AF_UNIX;
	if (a.any.sa_family == AF_INET) {
		(void)inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof(host));
		(void)snprintf(s->text, sizeof(s->text), "%s:%u", host, ntohs(a.v4.sin_port));
	} else if (a.any.sa_family == AF_INET6) {
		(void)inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof(host));
		(void)snprintf(s->text, sizeof(s->text), "[%s]:%u", host, ntohs(a.v6.sin6_port));
	} else {
		(void)snprintf(s->text, sizeof(s->text), "unix:%.*s",
			       (int)(sizeof(a.local.sun_path)), a.local.sun_path);
	}
}

static int append(struct listen_set *set, int *fd, bool inherited, char *path,
		  char error[static LISTEN_ERROR_MAX])
{
	struct listen_socket *s = &set->items[set->n];

	if (set->n == LISTEN_SOCKETS_MAX)
		return fail(error, -ENOSPC, "more than %d listening sockets", LISTEN_SOCKETS_MAX);
	*s = (struct listen_socket) { .fd = *fd, .inherited = inherited, .path = path };
	*fd = -1;
	describe(s);
	set->n++;
	return 0;
}

/* How many sockets systemd passed to this very process (sd_listen_fds(3)). */
static int systemd_count(void)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");

	if (!pid || !n || strtol(pid, NULL, 10) != (long)getpid())
		return 0;
	return (int)base_min_i64(base_max_i64(strtol(n, NULL, 10), 0), 64);
}

static int explain_bind(int error_number, const char *text, char error[static LISTEN_ERROR_MAX])
{
	switch (error_number) {
	case EADDRINUSE:
		if (systemd_count() > 0)
			return fail(error, -EADDRINUSE,
				    "%s is taken, perhaps by the .socket unit that came with this "
				    "service: write listen = systemd, or mask that unit",
				    text);
		return fail(error, -EADDRINUSE,
			    "another process listens on %s; stop it or choose another address "
			    "([server] listen, [admin] listen)",
			    text);
	case EACCES:
		return fail(error, -EACCES,
			    "no permission to listen on %s; ports below 1024 need "
			    "CAP_NET_BIND_SERVICE or a systemd socket",
			    text);
	case EADDRNOTAVAIL:
		return fail(error, -EADDRNOTAVAIL,
			    "no interface of this machine has the address %s", text);
	default:
		return fail(error, -error_number, "cannot listen on %s: %s", text,
			    strerror(error_number));
	}
}

static int tcp_address(const char *host, uint16_t port, union address *ret, socklen_t *ret_len)
{
	memset(ret, 0, sizeof(*ret));
	if (inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1) {
		ret->v4.sin_family = AF_INET;
		ret->v4.sin_port = htons(port);
		*ret_len = sizeof(ret->v4);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1) {
		ret->v6.sin6_family = AF_INET6;
		ret->v6.sin6_port = htons(port);
		*ret_len = sizeof(ret->v6);
		return 0;
	}
	return -EINVAL;
}

static int open_tcp(struct listen_set *set, const char *host, uint16_t port, const char *text,
		    char error[static LISTEN_ERROR_MAX])
{
	CLEANUP_CLOSE int fd = -1;
	union address a;
	socklen_t len;
	int on = 1;

	if (tcp_address(host, port, &a, &len) != 0)
		return fail(error, -EINVAL, "cannot listen on %s: not a numeric address", text);
	fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return explain_bind(errno, text, error);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a.any.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, &a.any, len) != 0 || listen(fd, BACKLOG) != 0)
		return explain_bind(errno, text, error);
	return append(set, &fd, false, NULL, error);
}

static int open_localhost(struct listen_set *set, const struct config_listen *listen,
			  char error[static LISTEN_ERROR_MAX])
{
	int r = open_tcp(set, "127.0.0.1", listen->port, listen->text, error);

	if (r != 0 || listen->port == 0)
		return r;
	r = open_tcp(set, "::1", listen->port, listen->text, error);
	return r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT ? 0 : r;
}

/* Takes a dead socket's path away; refuses to touch anything else. */
static int clear_path(const struct sockaddr_un *a, const char *text,
		      char error[static LISTEN_ERROR_MAX])
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	if (lstat(a->sun_path, &st) != 0)
		return errno == ENOENT ? 0 : explain_bind(errno, text, error);
	if (!S_ISSOCK(st.st_mode))
		return fail(error, -EEXIST, "%s exists and is not a socket; remove it",
			    a->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return explain_bind(errno, text, error);
	if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
		return explain_bind(EADDRINUSE, text, error);
	if (errno != ECONNREFUSED)
		return explain_bind(errno, text, error);
	return unlink(a->sun_path) == 0 ? 0 : explain_bind(errno, text, error);
}

static int set_owner(const char *path, const struct listen_options *options,
		     char error[static LISTEN_ERROR_MAX])
{
	if (options->unix_group) {
		struct group *group = getgrnam(options->unix_group);

		if (!group)
			return fail(error, -ENOENT, "there is no group %s ([server] unix_group)",
				    options->unix_group);
		if (lchown(path, (uid_t)-1, group->gr_gid) != 0)
			return fail(error, -errno,
				    "cannot give %s to group %s: %s; the daemon's user must be a "
				    "member of it",
				    path, options->unix_group, strerror(errno));
	}
	if (chmod(path, (mode_t)options->unix_mode) != 0)
		return fail(error, -errno, "cannot set the mode of %s: %s", path, strerror(errno));
	return 0;
}

static int open_unix(struct listen_set *set, const struct config_listen *config,
		     const struct listen_options *options, char error[static LISTEN_ERROR_MAX])
{
	CLEANUP_CLOSE int fd = -1;
	CLEANUP_FREE char *path = strdup(config->path);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st = { 0 };
	int r;

	if (!path)
		return fail(error, -ENOMEM, "out of memory");
	if (strlen(path) >= sizeof(a.sun_path))
		return fail(error, -ENAMETOOLONG, "the socket path %.80s… is longer than %zu bytes",
			    path, sizeof(a.sun_path) - 1);
	memcpy(a.sun_path, path, strlen(path) + 1);
	r = clear_path(&a, config->text, error);
	if (r != 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) != 0)
		return explain_bind(errno, config->text, error);
	r = set_owner(path, options, error);
	if (r == 0 && (listen(fd, BACKLOG) != 0 || lstat(path, &st) != 0))
		r = explain_bind(errno, config->text, error);
	if (r == 0)
		r = append(set, &fd, false, path, error);
	if (r != 0) {
		(void)unlink(path);
		return r;
	}
	path = NULL; /* the set owns it now */
	set->items[set->n - 1].path_dev = st.st_dev;
	set->items[set->n - 1].path_ino = st.st_ino;
	return 0;
}

/* The name of the i-th: LISTEN_FDNAMES is a list with colons. */
static struct span systemd_name(int index)
{
	const char *names = getenv("LISTEN_FDNAMES");
	size_t len;

	for (; names && index > 0; index--) {
		names = strchr(names, ':');
		if (names)
			names++;
	}
	len = names ? strcspn(names, ":") : 0;
	return (struct span) { names, len };
}

static int adopt(struct listen_set *set, int from, char error[static LISTEN_ERROR_MAX])
{
	int accepts = 0, type = 0;
	socklen_t len = sizeof(accepts), type_len = sizeof(type);
	/* A copy: the original stays open, so that a second `listen = systemd` finds it too. */
	CLEANUP_CLOSE int fd = fcntl(from, F_DUPFD_CLOEXEC, SYSTEMD_FIRST_FD);

	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &len) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) != 0 || !accepts ||
	    type != SOCK_STREAM)
		return fail(error, -ENOTSOCK,
			    "file descriptor %d from systemd is no listening stream socket; the "
			    ".socket unit needs ListenStream= and Accept=no",
			    from);
	(void)fcntl(from, F_SETFD, FD_CLOEXEC);
	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	return append(set, &fd, true, NULL, error);
}

static int open_systemd(struct listen_set *set, const struct listen_options *options,
			char error[static LISTEN_ERROR_MAX])
{
	int n = systemd_count(), found = 0;

	for (int i = 0; i < n; i++) {
		struct span want = { options->fd_name, strlen(options->fd_name) };
		int r;

		if (!span_is(systemd_name(i), want))
			continue;
		r = adopt(set, SYSTEMD_FIRST_FD + i, error);
		if (r != 0)
			return r;
		found++;
	}
	if (found)
		return 0;
	return fail(error, -ENOENT,
		    "listen = systemd, but systemd passed no socket named %s (%d in all); set "
		    "FileDescriptorName=%s in the .socket unit and start that",
		    options->fd_name, n, options->fd_name);
}

int listen_open(struct listen_set *set, const struct config_listen *listen,
		const struct listen_options *options, char error[static LISTEN_ERROR_MAX])
{
	switch (listen->kind) {
	case CONFIG_LISTEN_TCP:
		if (strcmp(listen->host, "localhost") == 0)
			return open_localhost(set, listen, error);
		return open_tcp(set, listen->host, listen->port, listen->text, error);
	case CONFIG_LISTEN_UNIX:
		return open_unix(set, listen, options, error);
	case CONFIG_LISTEN_SYSTEMD:
		return open_systemd(set, options, error);
	}
	return -EINVAL;
}

void listen_finish(struct listen_set *set)
{
	for (size_t i = 0; i < set->n; i++) {
		struct listen_socket *s = &set->items[i];
		struct stat st;

		/* Another daemon may have put its own socket there since. */
		if (s->path && lstat(s->path, &st) == 0 && (uint64_t)st.st_dev == s->path_dev &&
		    (uint64_t)st.st_ino == s->path_ino)
			(void)unlink(s->path);
		free(s->path);
		if (s->fd >= 0)
			(void)close(s->fd);
	}
	set->n = 0;
}

int listen_move(struct listen_set *to, struct listen_set *from)
{
	if (to->n + from->n > LISTEN_SOCKETS_MAX)
		return -ENOSPC;
	memcpy(to->items + to->n, from->items, from->n * sizeof(from->items[0]));
	to->n += from->n;
	from->n = 0;
	return 0;
}
