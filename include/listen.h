/* Listening sockets from the configuration: TCP over IPv4 and IPv6, unix sockets, sockets that
 * systemd holds open. Makes them and takes them down; accepting is the server's.
 *
 * IPv6 sockets are IPv6 only, so 0.0.0.0 and [::] can stand side by side. `localhost` is 127.0.0.1
 * and, where there is IPv6 and the port is not chosen by the kernel, [::1].
 */
#pragma once

#include "base.h"
#include "config.h"

#define LISTEN_SOCKETS_MAX 32
#define LISTEN_TEXT_MAX 128
#define LISTEN_ERROR_MAX 320

struct listen_socket {
	int fd;
	bool is_unix;
	bool inherited; /* systemd's: never unlinked, its backlog belongs to the next process */
	char text[LISTEN_TEXT_MAX]; /* "127.0.0.1:8787" with the real port, "[::1]:80",
				     * "unix:/run/x"
				     */
	char *path; /* unix sockets of our own: to unlink; else NULL */
	uint64_t path_dev, path_ino;
};

struct listen_set {
	struct listen_socket items[LISTEN_SOCKETS_MAX];
	size_t n;
};

struct listen_options {
	int64_t unix_mode;
	const char *unix_group; /* NULL: keep */
	const char *fd_name; /* which of systemd's sockets: "hook", "admin" */
};

/* Opens what `listen` says and appends it to the set (zero-initialised before the first). Sockets
 * are non-blocking and close-on-exec. On failure `error` says what to do; the set stays usable.
 * -EADDRINUSE: another process listens there; -EACCES; -EADDRNOTAVAIL; -EEXIST: the path is no
 * socket; -ENOENT: no directory, group or systemd socket of that name; -ENOSPC: too many; others as
 * the kernel gave them. */
MUST_CHECK int listen_open(struct listen_set *set, const struct config_listen *listen,
			   const struct listen_options *options,
			   char error[static LISTEN_ERROR_MAX]);

/* Closes all; takes down unix paths that are still ours. Safe to call twice. */
void listen_finish(struct listen_set *set);
/* Moves the sockets of `from` to the end of `to`. -ENOSPC. */
MUST_CHECK int listen_move(struct listen_set *to, struct listen_set *from);
