/* The cheapest receiver there is: libmicrohttpd in the form in which the daemon uses it (external
 * epoll, two loops, the same pool), answering every POST with a constant once its body is there.
 * Nothing is verified, kept or even looked at, so this is what HTTP alone costs on this machine.
 *
 * Usage: bare. It listens on a port of 127.0.0.1 that the kernel chooses, says so on standard error
 * as the daemon does, and ends on SIGTERM.
 */
#include "base.h"
#include "httpd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>

#define LOOPS 2
#define ROUND_MAX_MS 100
#define CONNECTIONS_MAX 4096

static const char constant[] =
	"{\"status\":\"stored\",\"event_id\":\"11111111-2222-4333-8444-555555555555\"}\n";

static atomic_bool stopping;
static struct MHD_Response *response;

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload_data,
			      size_t *upload_data_size, void **con_cls)
{
	static char begun;
	if (!*con_cls) {
		*con_cls = &begun;
		return MHD_YES;
	}
	if (*upload_data_size > 0) {
		*upload_data_size = 0;
		return MHD_YES;
	}
	return MHD_queue_response(connection, MHD_HTTP_OK, response);
}

static void *run_loop(void *arg)
{
	int listen_fd = dup(*(int *)arg);
	struct MHD_Daemon *mhd = MHD_start_daemon(
		MHD_USE_EPOLL, 0, NULL, NULL, handle, NULL, MHD_OPTION_LISTEN_SOCKET, listen_fd,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTPD_MEMORY_PER_CONNECTION,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)CONNECTIONS_MAX, MHD_OPTION_END);
	const union MHD_DaemonInfo *info =
		mhd ? MHD_get_daemon_info(mhd, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
	if (!info) {
		(void)fprintf(stderr, "bare: libmicrohttpd does not start\n");
		exit(1);
	}
	struct pollfd fd = { .fd = info->epoll_fd, .events = POLLIN };
	while (!atomic_load(&stopping)) {
		MHD_UNSIGNED_LONG_LONG ms;
		int timeout = ROUND_MAX_MS;
		if (MHD_get_timeout(mhd, &ms) == MHD_YES && ms < ROUND_MAX_MS)
			timeout = (int)ms;
		(void)poll(&fd, 1, timeout);
		(void)MHD_run(mhd);
	}
	MHD_stop_daemon(mhd);
	return NULL;
}

static int listen_somewhere(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, CONNECTIONS_MAX) < 0 ||
	    getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return -errno;
	(void)fprintf(stderr, "listening address=127.0.0.1:%u\n", ntohs(address.sin_port));
	return fd;
}

int main(void)
{
	pthread_t threads[LOOPS];
	sigset_t set;
	int number;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	response = MHD_create_response_from_buffer(strlen(constant), (void *)(uintptr_t)constant,
						   MHD_RESPMEM_PERSISTENT);
	CLEANUP_CLOSE int fd = listen_somewhere();
	if (fd < 0 || !response)
		return 1;
	for (size_t i = 0; i < LOOPS; i++)
		if (pthread_create(&threads[i], NULL, run_loop, &fd) != 0)
			return 1;
	(void)sigwait(&set, &number);
	atomic_store(&stopping, true);
	for (size_t i = 0; i < LOOPS; i++)
		(void)pthread_join(threads[i], NULL);
	MHD_destroy_response(response);
	return 0;
}
