/* Talking to the service manager: sd_notify(3)'s protocol, without its library.
 *
 * One datagram a message, newline-separated VARIABLE=value, to the unix socket that NOTIFY_SOCKET
 * names (a path, or `@` and an abstract name). Without that variable every call does nothing: the
 * daemon runs the same from a shell. Nothing here ever blocks: a message that the manager does not
 * take is lost and reported to the caller. One thread.
 */
#pragma once

#include "base.h"

#include <sys/un.h>

#define NOTIFY_TEXT_MAX 512

struct notify {
	int fd; /* -1: nobody listens */
	struct sockaddr_un address;
	socklen_t address_len;
	int64_t watchdog_ms; /* the manager wants a sign of life this often; 0: none */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of the environment, so
 * that no child speaks for us. 0 also without them; -EINVAL: NOTIFY_SOCKET is no unix socket's
 * name. After a failure `n` is as without them. */
MUST_CHECK int notify_init(struct notify *n);
void notify_finish(struct notify *n);
bool notify_is_wanted(const struct notify *n);

/* Each 0, or why the manager did not get it. `status` is one line, cut at NOTIFY_TEXT_MAX; what is
 * no printable ASCII in it becomes `?`. */
MUST_CHECK int notify_ready(struct notify *n, const char *status);
/* With the time of now: READY=1 says when it is over (notify-reload waits for that pair). */
MUST_CHECK int notify_reloading(struct notify *n);
MUST_CHECK int notify_stopping(struct notify *n, const char *status);
MUST_CHECK int notify_status(struct notify *n, const char *status);
MUST_CHECK int notify_watchdog(struct notify *n);
