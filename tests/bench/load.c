/* Loads a hook listener: connections that stay open, each with one signed delivery under way, every
 * delivery a new event. One thread and one epoll; the bodies are those of traffic.h.
 *
 * Usage: load --secret-file FILE [--port N] [--path PATH] [--connections N] [--seconds N]
 *             [--delays FILE]
 *
 * Prints how many were answered, how many of these as stored, and how long they took. Fails if any
 * answer was not `stored`, or a connection broke. With --delays every time to answer goes to a file
 * in microseconds, a line each. It speaks to 127.0.0.1 only.
 */
#include "traffic.h"

#include "clock.h"
#include "signature.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 1024
#define REQUEST_MAX (TRAFFIC_BODY_MAX + 1024)
#define ANSWER_MAX 4096
#define DELAYS_MAX (1U << 22)
#define WINDOW_MS INT64_C(600000)
#define HURRY 1000 /* a sandbox's whole life within a second or so: as many come as go */

struct connection {
	int fd;
	char out[REQUEST_MAX], in[ANSWER_MAX];
	size_t out_len, out_done, in_len;
	int64_t begun_us;
};

struct load {
	const char *secret_file, *path, *delays_file;
	uint16_t port;
	size_t n_connections;
	int64_t seconds;
	struct signature_keyring *keyring;
	struct traffic *traffic;
	int epoll;
	struct connection *connections;
	size_t n_open;
	int64_t end_us, n_answered, n_stored;
	uint32_t *delays_us;
};

static int complain(const char *what, int error)
{
	(void)fprintf(stderr, "load: %s: %s\n", what, strerror(-error));
	return error;
}

static bool parse_arguments(struct load *l, int argc, char **argv)
{
	static const struct option options[] = {
		{ "secret-file", required_argument, NULL, 's' },
		{ "port", required_argument, NULL, 'p' },
		{ "path", required_argument, NULL, 'a' },
		{ "connections", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 't' },
		{ "delays", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	*l = (struct load) { .path = "/webhooks/e2b",
			     .port = 8787,
			     .n_connections = 64,
			     .seconds = 10,
			     .epoll = -1 };
	int c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		long number = optarg ? strtol(optarg, NULL, 10) : 0;
		if (c == 's')
			l->secret_file = optarg;
		else if (c == 'p')
			l->port = (uint16_t)number;
		else if (c == 'a')
			l->path = optarg;
		else if (c == 'c')
			l->n_connections = (size_t)number;
		else if (c == 't')
			l->seconds = number;
		else if (c == 'd')
			l->delays_file = optarg;
		else
			return false;
	}
	return optind == argc && l->secret_file && l->n_connections >= 1 &&
	       l->n_connections <= CONNECTIONS_MAX && l->seconds >= 1;
}

static int load_secret(struct load *l)
{
	char text[SIGNATURE_SECRET_MAX + 2];
	CLEANUP_FILE FILE *f = fopen(l->secret_file, "re");
	if (!f)
		return complain(l->secret_file, -errno);
	size_t len = fread(text, 1, sizeof(text), f);
	int r = signature_keyring_new(SIGNATURE_E2B, text, len, &l->keyring);
	explicit_bzero(text, sizeof(text));
	return r < 0 ? complain(l->secret_file, r) : 0;
}

static int begin_traffic(struct load *l)
{
	uint64_t seed;
	int r = signature_random(&seed, sizeof(seed));
	if (r < 0)
		return complain("random numbers", r);
	int64_t now_ms = clock_unix_ms();
	const struct traffic_options options = {
		.events = 50000 * l->seconds,
		.from_unix_ms = now_ms - WINDOW_MS,
		.until_unix_ms = now_ms,
		.hurry = HURRY,
		.seed = seed,
	};
	r = traffic_new(&options, &l->traffic);
	return r < 0 ? complain("traffic", r) : 0;
}

/* Exchanges ----------------------------------------------------------------- */

static int write_request(struct load *l, struct connection *c)
{
	struct traffic_delivery d;
	char signature[SIGNATURE_TEXT_MAX];
	int r = traffic_next(l->traffic, &d);
	if (r != TRAFFIC_MORE)
		return r < 0 ? r : -ENODATA;
	const struct signature_input input = { .body = d.body };
	r = signature_sign(l->keyring, 1, &input, signature);
	if (r < 0)
		return r;
	int n = snprintf(c->out, sizeof(c->out),
			 "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
			 "e2b-signature: %s\r\nContent-Length: %zu\r\n\r\n",
			 l->path, signature, d.body.len);
	if (n < 0 || (size_t)n + d.body.len > sizeof(c->out))
		return -EMSGSIZE;
	memcpy(c->out + n, d.body.s, d.body.len);
	c->out_len = (size_t)n + d.body.len;
	c->out_done = c->in_len = 0;
	c->begun_us = clock_mono_us();
	return 0;
}

static int send_rest(struct connection *c)
{
	while (c->out_done < c->out_len) {
		ssize_t n =
			send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_done += (size_t)n;
	}
	return 0;
}

static int begin_exchange(struct load *l, struct connection *c)
{
	int r = write_request(l, c);
	return r < 0 ? r : send_rest(c);
}

/* The length of a whole answer, 0 while some is missing. */
static size_t answer_len(struct connection *c)
{
	c->in[c->in_len] = '\0';
	const char *end = strstr(c->in, "\r\n\r\n");
	const char *field = end ? strcasestr(c->in, "\r\nContent-Length:") : NULL;
	if (!field || field > end)
		return 0;
	size_t len = (size_t)(end + 4 - c->in) + strtoul(field + 17, NULL, 10);
	return c->in_len >= len ? len : 0;
}

static void count(struct load *l, const struct connection *c)
{
	l->delays_us[l->n_answered++ % DELAYS_MAX] = (uint32_t)(clock_mono_us() - c->begun_us);
	if (strncmp(c->in, "HTTP/1.1 200 ", 13) == 0 && strstr(c->in, "\"stored\""))
		l->n_stored++;
}

static int receive(struct load *l, struct connection *c)
{
	ssize_t n = recv(c->fd, c->in + c->in_len, sizeof(c->in) - 1 - c->in_len, 0);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	c->in_len += (size_t)n;
	if (answer_len(c) == 0)
		return c->in_len == sizeof(c->in) - 1 ? -EMSGSIZE : 0;
	count(l, c);
	if (clock_mono_us() < l->end_us)
		return begin_exchange(l, c);
	(void)close(c->fd);
	c->fd = -1;
	l->n_open--;
	return 0;
}

static int open_connection(struct load *l, struct connection *c)
{
	const struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(l->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int on = 1;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	(void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c };
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
		return -errno;
	l->n_open++;
	return begin_exchange(l, c);
}

static int serve(struct load *l, const struct epoll_event *event)
{
	struct connection *c = event->data.ptr;
	int r = event->events & EPOLLOUT ? send_rest(c) : 0;
	if (r == 0 && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		r = receive(l, c);
	return r;
}

static int run(struct load *l)
{
	l->end_us = clock_mono_us() + l->seconds * 1000000;
	for (size_t i = 0; i < l->n_connections; i++) {
		int r = open_connection(l, &l->connections[i]);
		if (r < 0)
			return complain("connecting", r);
	}
	while (l->n_open > 0) {
		struct epoll_event events[64];
		int n = epoll_wait(l->epoll, events, (int)ARRAY_SIZE(events), 10000);
		if (n == 0)
			return complain("no answer for 10 s", -ETIMEDOUT);
		for (int i = 0; i < n; i++) {
			int r = serve(l, &events[i]);
			if (r < 0)
				return complain("a connection", r);
		}
	}
	return 0;
}

/* What came of it ----------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void write_delays(const struct load *l, size_t n)
{
	CLEANUP_FILE FILE *f = l->delays_file ? fopen(l->delays_file, "we") : NULL;
	for (size_t i = 0; f && i < n; i++)
		(void)fprintf(f, "%" PRIu32 "\n", l->delays_us[i]);
}

static void report(const struct load *l, int64_t took_us)
{
	size_t n = base_min_size((size_t)l->n_answered, DELAYS_MAX);
	if (n == 0)
		return;
	write_delays(l, n);
	qsort(l->delays_us, n, sizeof(*l->delays_us), compare);
	printf("answered   %" PRId64 "\n", l->n_answered);
	printf("stored     %" PRId64 "\n", l->n_stored);
	printf("requests/s %.0f\n", (double)l->n_answered * 1e6 / (double)took_us);
	printf("p50_ms     %.2f\n", (double)l->delays_us[n / 2] / 1e3);
	printf("p99_ms     %.2f\n", (double)l->delays_us[n - 1 - n / 100] / 1e3);
	printf("max_ms     %.2f\n", (double)l->delays_us[n - 1] / 1e3);
}

static int prepare(struct load *l)
{
	l->connections = calloc(l->n_connections, sizeof(*l->connections));
	l->delays_us = calloc(DELAYS_MAX, sizeof(*l->delays_us));
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!l->connections || !l->delays_us || l->epoll < 0)
		return complain("cannot begin", -ENOMEM);
	int r = load_secret(l);
	return r < 0 ? r : begin_traffic(l);
}

int main(int argc, char **argv)
{
	struct load l;
	if (!parse_arguments(&l, argc, argv)) {
		(void)fprintf(stderr, "Usage: load --secret-file FILE [--port N] [--path PATH]"
				      " [--connections N] [--seconds N] [--delays FILE]\n");
		return 2;
	}
	int r = prepare(&l);
	int64_t begun_us = clock_mono_us();
	if (r == 0)
		r = run(&l);
	if (r == 0)
		report(&l, clock_mono_us() - begun_us);
	traffic_free(l.traffic);
	signature_keyring_free(l.keyring);
	free(l.connections);
	free(l.delays_us);
	if (l.epoll >= 0)
		(void)close(l.epoll);
	return r < 0 || l.n_stored != l.n_answered;
}
