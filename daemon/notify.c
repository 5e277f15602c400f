#include "notify.h"

#include "clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/socket.h>

/* The address is kept and every message sent to it: a manager that was executed anew
 * (daemon-reexec) binds a new socket under the old name, and a connection would hold on to the dead
 * one.
 */

static int read_address(struct notify *n, const char *name)
{
	size_t len = strlen(name);

	if ((name[0] != '/' && name[0] != '@') || len < 2 || len >= sizeof(n->address.sun_path))
		return -EINVAL;
	n->address.sun_family = AF_UNIX;
	memcpy(n->address.sun_path, name, len + 1);
	n->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (name[0] == '@')
		n->address.sun_path[0] = '\0'; /* an abstract name has its length, no NUL behind */
	else
		n->address_len++;
	return 0;
}

/* A whole number and nothing else; 0 for anything else. */
static int64_t number_in(const char *name)
{
	const char *text = getenv(name);
	char *end;

	if (!text || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	return *end || errno ? 0 : (int64_t)value;
}

static void read_watchdog(struct notify *n)
{
	int64_t usec = number_in("WATCHDOG_USEC");

	if (!getenv("WATCHDOG_PID") || number_in("WATCHDOG_PID") == (int64_t)getpid())
		n->watchdog_ms = usec > 0 ? base_max_i64(usec / 1000, 1) : 0;
}

int notify_init(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET");
	int r = 0;

	*n = (struct notify) { .fd = -1 };
	if (name && *name)
		r = read_address(n, name);
	if (r == 0 && n->address_len > 0) {
		n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		r = n->fd < 0 ? -errno : 0;
	}
	if (n->fd >= 0)
		read_watchdog(n);
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
	return r;
}

void notify_finish(struct notify *n)
{
	base_close_fd(&n->fd);
	n->fd = -1;
}

bool notify_is_wanted(const struct notify *n)
{
	return n->fd >= 0;
}

static int send_message(struct notify *n, const char *text)
{
	size_t len = strlen(text);
	ssize_t sent;

	if (n->fd < 0)
		return 0;
	do {
		sent = sendto(n->fd, text, len, MSG_NOSIGNAL, (struct sockaddr *)&n->address,
			      n->address_len);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : 0;
}

/* A newline in the text would begin another variable. */
static int send_with_status(struct notify *n, const char *variable, const char *status)
{
	char text[NOTIFY_TEXT_MAX];
	size_t len = strlen(variable);

	(void)snprintf(text, sizeof(text), "%sSTATUS=%s", variable, status);
	for (char *at = text + len; *at; at++) {
		if (*at < ' ' || *at > '~')
			*at = '?';
	}
	return send_message(n, text);
}

int notify_ready(struct notify *n, const char *status)
{
	return send_with_status(n, "READY=1\n", status);
}

int notify_reloading(struct notify *n)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_mono_us());
	return send_message(n, text);
}

int notify_stopping(struct notify *n, const char *status)
{
	return send_with_status(n, "STOPPING=1\n", status);
}

int notify_status(struct notify *n, const char *status)
{
	return send_with_status(n, "", status);
}

int notify_watchdog(struct notify *n)
{
	return send_message(n, "WATCHDOG=1");
}
