/* Loads a hook listener: connections that stay open, each with one signed delivery under way, every
 * delivery a new event. One thread and one epoll; the bodies are those of traffic.h.
 *
 * Usage: load --secret-file FILE [--port N] [--path PATH] [--connections N] [--seconds S]
 *             [--ahead N] [--pace N] [--pad BYTES] [--delays FILE]
 *
 * Everything that is the sender's own work (writing bodies, signing) is done before the clock
 * starts: N requests ahead, and all connections open. The load ends after S seconds or when it has
 * sent them all, whichever is first. In the events' own time N of --pace happen a second: as many
 * as are sent, so that what a store keeps together by time meets the crowd that it would in life.
 *
 * With --pad each body holds so many bytes more.
 *
 * Prints how many were answered, how many of these as stored, how long they took and what the load
 * itself cost. Fails if any answer was not `stored`, or a connection broke. With --delays every
 * time to answer goes to a file in microseconds, a line each. It speaks to 127.0.0.1 only.
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
#include <sys/resource.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 1024
#define REQUEST_MAX (TRAFFIC_BODY_MAX + 1024)
#define ANSWER_MAX 4096
#define PAD_MAX (200 * 1024)
#define PADDING ",\"padding\":\"\"" /* and so much between its last quotes */
#define DELAYS_MAX (1U << 22)
#define AHEAD_A_SECOND 60000
#define PACE 15000
#define HURRY 2000 /* a sandbox's whole life within seconds: as many come as go */
#define MARGIN_S 10 /* some lives, of events that need not be sent */
#define PUNCTUAL 10 /* else most of a life so short would come out of order */

struct connection {
	int fd;
	const char *out;
	char in[ANSWER_MAX];
	size_t out_len, out_done, in_len;
	int64_t begun_us;
};

struct load {
	const char *secret_file, *path, *delays_file;
	uint16_t port;
	size_t n_connections, n_ahead, n_pad;
	char *padded; /* a body with its padding */
	int64_t pace;
	double seconds;
	struct signature_keyring *keyring;
	struct traffic *traffic;
	char *requests; /* one behind the other */
	size_t requests_size, *ends; /* where each ends */
	int64_t *bodies; /* bytes of bodies up to and with each */
	size_t n_requests, n_sent;
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
		{ "ahead", required_argument, NULL, 'n' },
		{ "pace", required_argument, NULL, 'e' },
		{ "delays", required_argument, NULL, 'd' },
		{ "pad", required_argument, NULL, 'x' },
		{ NULL, 0, NULL, 0 },
	};
	*l = (struct load) { .path = "/webhooks/e2b",
			     .port = 8787,
			     .n_connections = 64,
			     .seconds = 10,
			     .pace = PACE,
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
			l->seconds = strtod(optarg, NULL);
		else if (c == 'n')
			l->n_ahead = (size_t)base_max_i64(number, 0);
		else if (c == 'e')
			l->pace = number;
		else if (c == 'd')
			l->delays_file = optarg;
		else if (c == 'x')
			l->n_pad = (size_t)base_max_i64(number, 0);
		else
			return false;
	}
	if (l->n_ahead == 0 && l->seconds > 0 && l->seconds < 3600)
		l->n_ahead = (size_t)(AHEAD_A_SECOND * l->seconds) + l->n_connections;
	return optind == argc && l->secret_file && l->n_connections >= 1 &&
	       l->n_connections <= CONNECTIONS_MAX && l->seconds > 0 && l->pace > 0 &&
	       l->n_pad <= PAD_MAX && l->n_ahead >= l->n_connections &&
	       l->n_ahead < SIZE_MAX / (REQUEST_MAX + PAD_MAX);
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
	int64_t now_ms = clock_unix_ms(), n = (int64_t)l->n_ahead;
	const struct traffic_options options = {
		.events = n + l->pace * MARGIN_S, /* lives that are cut by the end give fewer */
		.from_unix_ms = now_ms - n * 1000 / l->pace - MARGIN_S * 1000,
		.until_unix_ms = now_ms,
		.hurry = HURRY,
		.punctual = PUNCTUAL,
		.one_source = true,
		.seed = seed,
	};
	r = traffic_new(&options, &l->traffic);
	return r < 0 ? complain("traffic", r) : 0;
}

/* Ahead of the clock -------------------------------------------------------- */

static size_t request_max(const struct load *l)
{
	return REQUEST_MAX + sizeof(PADDING) + l->n_pad;
}

static int make_room(struct load *l, size_t used)
{
	if (used + request_max(l) <= l->requests_size)
		return 0;
	size_t size = l->requests_size ? 2 * l->requests_size : (size_t)64 << 20;
	char *requests = realloc(l->requests, size);
	if (!requests)
		return -ENOMEM;
	l->requests = requests;
	l->requests_size = size;
	return 0;
}

/* One more member before the end of the object. */
static struct span pad(struct load *l, struct span body)
{
	static const char padding[] = PADDING;
	const size_t quotes = sizeof(padding) - 2;
	if (l->n_pad == 0)
		return body;
	char *p = mempcpy(l->padded, body.s, body.len - 1);
	p = mempcpy(p, padding, quotes);
	memset(p, 'x', l->n_pad);
	p = stpcpy(p + l->n_pad, "\"}");
	return (struct span) { l->padded, (size_t)(p - l->padded) };
}

static int write_request(struct load *l, const struct traffic_delivery *d, size_t at)
{
	char signature[SIGNATURE_TEXT_MAX];
	const struct span body = pad(l, d->body);
	const struct signature_input input = { .body = body };
	int r = signature_sign(l->keyring, 1, &input, signature);
	if (r < 0)
		return r;
	int n = snprintf(l->requests + at, request_max(l),
			 "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\n"
			 "Content-Type: application/json\r\ne2b-webhook-id: %.*s\r\n"
			 "e2b-delivery-id: %.*s\r\ne2b-signature-version: v1\r\n"
			 "e2b-signature: %s\r\nContent-Length: %zu\r\n\r\n",
			 l->path, (int)d->webhook_id.len, d->webhook_id.s, (int)d->delivery_id.len,
			 d->delivery_id.s, signature, body.len);
	if (n < 0 || (size_t)n + body.len > request_max(l))
		return -EMSGSIZE;
	memcpy(l->requests + at + n, body.s, body.len);
	size_t i = l->n_requests++;
	l->ends[i] = at + (size_t)n + body.len;
	l->bodies[i] = (i ? l->bodies[i - 1] : 0) + (int64_t)body.len;
	return 0;
}

static int write_requests(struct load *l)
{
	size_t at = 0;
	while (l->n_requests < l->n_ahead) {
		struct traffic_delivery d;
		int r = make_room(l, at);
		if (r == 0)
			r = traffic_next(l->traffic, &d);
		if (r != TRAFFIC_MORE)
			return complain("writing requests", r < 0 ? r : -ENODATA);
		r = write_request(l, &d, at);
		if (r < 0)
			return complain("writing requests", r);
		at = l->ends[l->n_requests - 1];
	}
	return 0;
}

/* Exchanges ----------------------------------------------------------------- */

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
	size_t i = l->n_sent++, begin = i ? l->ends[i - 1] : 0;
	c->out = l->requests + begin;
	c->out_len = l->ends[i] - begin;
	c->out_done = c->in_len = 0;
	c->begun_us = clock_mono_us();
	return send_rest(c);
}

/* The length of a whole answer, 0 while some is missing. */
static size_t answer_len(struct connection *c)
{
	c->in[c->in_len] = '\0';
	const char *end = strstr(c->in, "\r\n\r\n");
	const char *field = end ? strstr(c->in, "\r\nContent-Length:") : NULL;
	if (end && !field)
		field = strcasestr(c->in, "\r\nContent-Length:");
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
	if (clock_mono_us() < l->end_us && l->n_sent < l->n_requests)
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
	return 0;
}

static int serve(struct load *l, const struct epoll_event *event)
{
	struct connection *c = event->data.ptr;
	int r = event->events & EPOLLOUT ? send_rest(c) : 0;
	if (r == 0 && event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		r = receive(l, c);
	return r;
}

static int connect_all(struct load *l)
{
	for (size_t i = 0; i < l->n_connections; i++) {
		int r = open_connection(l, &l->connections[i]);
		if (r < 0)
			return complain("connecting", r);
	}
	return 0;
}

static int run(struct load *l)
{
	l->end_us = clock_mono_us() + (int64_t)(l->seconds * 1e6);
	for (size_t i = 0; i < l->n_connections; i++) {
		int r = begin_exchange(l, &l->connections[i]);
		if (r < 0)
			return complain("a connection", r);
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

static double cpu_us(void)
{
	struct rusage usage;
	(void)getrusage(RUSAGE_SELF, &usage);
	return 1e6 * (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void report(const struct load *l, int64_t took_us, double cost_us)
{
	size_t n = base_min_size((size_t)l->n_answered, DELAYS_MAX);
	if (n == 0)
		return;
	write_delays(l, n);
	qsort(l->delays_us, n, sizeof(*l->delays_us), compare);
	printf("answered   %" PRId64 "\n", l->n_answered);
	printf("stored     %" PRId64 "\n", l->n_stored);
	printf("requests/s %.0f\n", (double)l->n_answered * 1e6 / (double)took_us);
	printf("seconds    %.3f\n", (double)took_us / 1e6);
	printf("ran_out    %d\n", l->n_sent == l->n_requests);
	printf("body_bytes %.1f\n", (double)l->bodies[l->n_sent - 1] / (double)l->n_sent);
	printf("load_cpu_us %.2f\n", cost_us / (double)l->n_answered);
	printf("p50_ms     %.3f\n", (double)l->delays_us[n / 2] / 1e3);
	printf("p99_ms     %.3f\n", (double)l->delays_us[n - 1 - n / 100] / 1e3);
	printf("max_ms     %.3f\n", (double)l->delays_us[n - 1] / 1e3);
}

static int prepare(struct load *l)
{
	l->connections = calloc(l->n_connections, sizeof(*l->connections));
	l->delays_us = calloc(DELAYS_MAX, sizeof(*l->delays_us));
	l->ends = calloc(l->n_ahead, sizeof(*l->ends));
	l->bodies = calloc(l->n_ahead, sizeof(*l->bodies));
	l->padded = malloc(TRAFFIC_BODY_MAX + sizeof(PADDING) + l->n_pad);
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!l->connections || !l->delays_us || !l->ends || !l->bodies || l->epoll < 0)
		return complain("cannot begin", -ENOMEM);
	int r = load_secret(l);
	if (r == 0)
		r = begin_traffic(l);
	if (r == 0)
		r = write_requests(l);
	return r < 0 ? r : connect_all(l);
}

int main(int argc, char **argv)
{
	struct load l;
	if (!parse_arguments(&l, argc, argv)) {
		(void)fprintf(stderr, "Usage: load --secret-file FILE [--port N] [--path PATH]"
				      " [--connections N] [--seconds S] [--ahead N] [--pace N]"
				      " [--pad BYTES] [--delays FILE]\n");
		return 2;
	}
	int r = prepare(&l);
	int64_t begun_us = clock_mono_us();
	double spent_us = cpu_us();
	if (r == 0)
		r = run(&l);
	if (r == 0)
		report(&l, clock_mono_us() - begun_us, cpu_us() - spent_us);
	traffic_free(l.traffic);
	signature_keyring_free(l.keyring);
	free(l.requests);
	free(l.ends);
	free(l.bodies);
	free(l.padded);
	free(l.connections);
	free(l.delays_us);
	if (l.epoll >= 0)
		(void)close(l.epoll);
	return r < 0 || l.n_stored != l.n_answered;
}
