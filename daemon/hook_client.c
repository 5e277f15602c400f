/* One connection, one request at a time, one deadline for it. The socket does not block; every wait
 * is a poll(2) until the deadline, so a peer that drips bytes gains nothing.
 */
#include "hook_client.h"

#include "clock.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define HEAD_MAX 16384
#define HEADERS_MAX 65536

struct hook_client {
	struct hook_client_target target;
	int64_t timeout_ms, deadline_mono_ms;
	int fd; /* -1: not connected */
	bool was_used; /* an answer came over this connection */
	char name[HOOK_CLIENT_HOST_MAX + 16]; /* for the Host header and for messages */
	struct buffer in; /* read, not yet used */
};

/* ---- URL ---- */

static bool is_visible(const char *s)
{
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

static int read_port(const char *s, size_t len, uint16_t *ret)
{
	unsigned int port = 0;

	if (len == 0 || len > 5)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned int)(s[i] - '0');
	}
	if (port == 0 || port > UINT16_MAX)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

static int read_host(const char *s, size_t len, struct hook_client_target *ret)
{
	const char *end = s + len, *host = s, *host_end, *rest;

	if (len > 0 && *s == '[') {
		host = s + 1;
		host_end = memchr(host, ']', (size_t)(end - host));
		rest = host_end ? host_end + 1 : NULL;
	} else {
		host_end = memchr(s, ':', len);
		if (!host_end)
			host_end = end;
		rest = host_end;
	}
	if (!host_end || host_end == host || host_end - host >= HOOK_CLIENT_HOST_MAX ||
	    memchr(host, '@', (size_t)(host_end - host)))
		return -EINVAL;
	memcpy(ret->host, host, (size_t)(host_end - host));
	ret->port = 80;
	if (rest == end)
		return 0;
	return *rest == ':' ? read_port(rest + 1, (size_t)(end - rest) - 1, &ret->port) : -EINVAL;
}

int hook_client_read_url(const char *url, struct hook_client_target *ret)
{
	static const char http[] = "http://", https[] = "https://", local[] = "unix:";

	*ret = (struct hook_client_target) { .port = 0 };
	if (strncasecmp(url, https, sizeof(https) - 1) == 0)
		return -EPROTONOSUPPORT;
	if (strncmp(url, local, sizeof(local) - 1) == 0) {
		const char *path = url + sizeof(local) - 1;
		if (*path != '/' || strlen(path) >= sizeof(ret->unix_path))
			return -EINVAL;
		memcpy(ret->unix_path, path, strlen(path));
		return 0;
	}
	if (strncasecmp(url, http, sizeof(http) - 1) != 0 || !is_visible(url))
		return -EINVAL;
	const char *host = url + sizeof(http) - 1;
	size_t host_len = strcspn(host, "/?#");
	const char *path = host + host_len;
	if ((*path && *path != '/') || strlen(path) >= sizeof(ret->path) || strchr(path, '#'))
		return -EINVAL;
	memcpy(ret->path, path, strlen(path));
	return read_host(host, host_len, ret);
}

/* ---- the head of an answer ---- */

static bool name_is(struct span name, const char *wanted)
{
	return name.len == strlen(wanted) && strncasecmp(name.s, wanted, name.len) == 0;
}

static bool mentions(struct span value, const char *token)
{
	size_t len = strlen(token);

	for (size_t i = 0; i + len <= value.len; i++)
		if (strncasecmp(value.s + i, token, len) == 0)
			return true;
	return false;
}

static int read_length(struct span value, int64_t *ret)
{
	int64_t n = 0;

	if (value.len == 0 || value.len > 15)
		return -EPROTO;
	for (size_t i = 0; i < value.len; i++) {
		if (value.s[i] < '0' || value.s[i] > '9')
			return -EPROTO;
		n = n * 10 + (value.s[i] - '0');
	}
	if (*ret >= 0 && *ret != n)
		return -EPROTO;
	*ret = n;
	return 0;
}

static int read_header_line(const char *line, size_t len, struct hook_client_head *ret)
{
	const char *colon = memchr(line, ':', len);

	if (!colon)
		return -EPROTO;
	struct span name = { line, (size_t)(colon - line) };
	struct span value = { colon + 1, len - name.len - 1 };
	for (; value.len > 0 && (*value.s == ' ' || *value.s == '\t'); value.s++)
		value.len--;
	while (value.len > 0 && strchr(" \t", value.s[value.len - 1]) && value.s[value.len - 1])
		value.len--;
	if (name_is(name, "content-length"))
		return read_length(value, &ret->body_len);
	if (name_is(name, "transfer-encoding"))
		ret->is_chunked = true;
	else if (name_is(name, "connection") && mentions(value, "close"))
		ret->keeps_open = false;
	else if (name_is(name, "connection") && mentions(value, "keep-alive"))
		ret->keeps_open = true;
	return 0;
}

/* `HTTP/1.x NNN reason` */
static int read_status_line(const char *line, size_t len, struct hook_client_head *ret)
{
	if (len < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
	    line[8] != ' ' || (len > 12 && line[12] != ' '))
		return -EPROTO;
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9')
			return -EPROTO;
		ret->status = ret->status * 10 + (unsigned int)(line[i] - '0');
	}
	ret->keeps_open = line[7] == '1';
	return ret->status >= 100 && ret->status < 600 ? 0 : -EPROTO;
}

int hook_client_read_head(const char *text, size_t len, struct hook_client_head *ret)
{
	const char *end = text + len;
	bool is_first = true;

	*ret = (struct hook_client_head) { .body_len = -1 };
	while (text < end) {
		const char *stop = memmem(text, (size_t)(end - text), "\r\n", 2);
		if (!stop)
			return -EPROTO;
		size_t line_len = (size_t)(stop - text);
		int r;
		if (is_first)
			r = read_status_line(text, line_len, ret);
		else if (line_len == 0)
			break;
		else
			r = read_header_line(text, line_len, ret);
		if (r < 0)
			return r;
		is_first = false;
		text = stop + 2;
	}
	if (is_first)
		return -EPROTO;
	if (ret->status < 200 || ret->status == 204 || ret->status == 304)
		ret->body_len = 0;
	return 0;
}

/* ---- the connection ---- */

static void disconnect(struct hook_client *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	c->was_used = false;
	buffer_clear(&c->in);
}

static int wait_for(struct hook_client *c, int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int64_t left = c->deadline_mono_ms - clock_mono_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		int n = poll(&p, 1, (int)base_min_i64(left, 60000));
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int connect_to(struct hook_client *c, int family, const struct sockaddr *address,
		      socklen_t len)
{
	CLEANUP_CLOSE int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error = 0;
	socklen_t error_len = sizeof(error);

	if (fd < 0)
		return -errno;
	if (connect(fd, address, len) < 0) {
		if (errno != EINPROGRESS && errno != EINTR)
			return -errno;
		int r = wait_for(c, fd, POLLOUT);
		if (r < 0)
			return r;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_len) < 0)
			return -errno;
		if (error != 0)
			return -error;
	}
	c->fd = fd;
	fd = -1;
	return 0;
}

static int connect_unix(struct hook_client *c)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memcpy(address.sun_path, c->target.unix_path, sizeof(address.sun_path) - 1);
	return connect_to(c, AF_UNIX, (const struct sockaddr *)&address, sizeof(address));
}

static int connect_tcp(struct hook_client *c)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV };
	struct addrinfo *list = NULL;
	char port[8];
	int r = -EADDRNOTAVAIL;

	(void)snprintf(port, sizeof(port), "%u", (unsigned int)c->target.port);
	if (getaddrinfo(c->target.host, port, &hints, &list) != 0)
		return -EADDRNOTAVAIL;
	for (const struct addrinfo *a = list; a && r < 0 && r != -ETIMEDOUT; a = a->ai_next)
		r = connect_to(c, a->ai_family, a->ai_addr, a->ai_addrlen);
	freeaddrinfo(list);
	return r;
}

static int send_all(struct hook_client *c, const struct buffer *request)
{
	for (size_t done = 0; done < request->len;) {
		ssize_t n = send(c->fd, request->data + done, request->len - done, MSG_NOSIGNAL);
		if (n >= 0) {
			done += (size_t)n;
			continue;
		}
		/* It may have answered early and stopped reading (413): look for the answer. */
		if (errno == EPIPE || errno == ECONNRESET)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		int r = wait_for(c, c->fd, POLLOUT);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Reads what there is: 0 and more in c->in, -ENODATA at the end, -ENOBUFS over its bound. */
static int receive(struct hook_client *c)
{
	char chunk[4096];
	int r = wait_for(c, c->fd, POLLIN);

	if (r < 0)
		return r;
	ssize_t n = recv(c->fd, chunk, sizeof(chunk), 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	return n == 0 ? -ENODATA : buffer_append(&c->in, chunk, (size_t)n);
}

static void consume(struct hook_client *c, size_t len)
{
	c->in.len -= len;
	memmove(c->in.data, c->in.data + len, c->in.len + 1);
}

/* The head behind interim ones (1xx). */
static int receive_head(struct hook_client *c, struct hook_client_head *ret)
{
	for (;;) {
		const char *end =
			c->in.len > 0 ? memmem(c->in.data, c->in.len, "\r\n\r\n", 4) : NULL;
		int r;
		if (!end) {
			r = c->in.len > HEAD_MAX ? -EMSGSIZE : receive(c);
			if (r < 0)
				return r;
			continue;
		}
		size_t len = (size_t)(end - c->in.data) + 4;
		r = hook_client_read_head(c->in.data, len, ret);
		if (r < 0)
			return r;
		consume(c, len);
		if (ret->status >= 200)
			return 0;
	}
}

static int receive_body(struct hook_client *c, const struct hook_client_head *head,
			struct buffer *body)
{
	int r = 0;

	if (head->is_chunked)
		return 0;
	if (head->body_len > HOOK_CLIENT_ANSWER_MAX)
		return -EMSGSIZE;
	while (head->body_len < 0 || (int64_t)c->in.len < head->body_len) {
		r = receive(c);
		if (r == -ENODATA && head->body_len < 0)
			break;
		if (r < 0)
			return r == -ENOBUFS ? -EMSGSIZE : r == -ENODATA ? -EPROTO : r;
	}
	size_t len = head->body_len < 0 ? c->in.len : (size_t)head->body_len;
	r = buffer_append(body, c->in.data, len);
	if (r == 0 && len > 0)
		consume(c, len);
	return r == -ENOBUFS ? -EMSGSIZE : r;
}

/* ---- the client ---- */

int hook_client_new(const struct hook_client_target *target, int64_t timeout_ms,
		    struct hook_client **ret)
{
	struct hook_client *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->target = *target;
	c->timeout_ms = timeout_ms;
	c->fd = -1;
	buffer_init(&c->in, HEAD_MAX + HOOK_CLIENT_ANSWER_MAX + 4096);
	if (target->host[0] == '\0')
		(void)snprintf(c->name, sizeof(c->name), "localhost");
	else
		(void)snprintf(c->name, sizeof(c->name),
			       strchr(target->host, ':') ? "[%s]:%u" : "%s:%u", target->host,
			       (unsigned int)target->port);
	*ret = c;
	return 0;
}

void hook_client_free(struct hook_client *c)
{
	if (!c)
		return;
	disconnect(c);
	buffer_finish(&c->in);
	free(c);
}

static int write_request(struct hook_client *c, struct buffer *b, const char *path,
			 const struct hook_client_header *headers, size_t n_headers,
			 struct span body)
{
	int r = *path == '/' && is_visible(path) ? 0 : -EINVAL;

	if (r == 0)
		r = buffer_appendf(b,
				   "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: e2b-hookctl/%s\r\n"
				   "Content-Length: %zu\r\n",
				   path, c->name, HOOKD_VERSION, body.len);
	for (size_t i = 0; r == 0 && i < n_headers; i++) {
		const char *value = headers[i].value;
		for (const char *v = value; *v; v++)
			if ((uint8_t)*v < ' ' || *v == 0x7f)
				return -EINVAL;
		if (!is_visible(headers[i].name) || strchr(headers[i].name, ':'))
			return -EINVAL;
		r = buffer_appendf(b, "%s: %s\r\n", headers[i].name, value);
	}
	if (r == 0)
		r = buffer_append_text(b, "\r\n");
	return r < 0 ? r : buffer_append(b, body.s, body.len);
}

/* *ret_again: nothing came back over a connection that had been used before. */
static int exchange(struct hook_client *c, const struct buffer *request,
		    struct hook_client_answer *ret, bool *ret_again)
{
	struct hook_client_head head = { 0 };
	bool was_used = c->was_used;
	int r = 0;

	*ret_again = false;
	if (c->fd < 0)
		r = c->target.host[0] ? connect_tcp(c) : connect_unix(c);
	if (r < 0)
		return r;
	r = send_all(c, request);
	if (r == 0)
		r = receive_head(c, &head);
	*ret_again =
		was_used && c->in.len == 0 && (r == -ENODATA || r == -ECONNRESET || r == -EPIPE);
	if (r == 0) {
		ret->status = head.status;
		r = receive_body(c, &head, &ret->body);
	}
	/* Bytes behind an answer to the only request: not to be trusted with another. */
	if (r < 0 || !head.keeps_open || head.body_len < 0 || head.is_chunked || c->in.len > 0)
		disconnect(c);
	else
		c->was_used = true;
	return r;
}

static const char *describe(int r)
{
	switch (-r) {
	case ETIMEDOUT:
		return "no answer in time";
	case ENODATA:
		return "the connection was closed without an answer";
	case EPROTO:
		return "what answered is no HTTP server";
	case EMSGSIZE:
		return "the answer is too large";
	case EADDRNOTAVAIL:
		return "no address for this name";
	case EINVAL:
		return "a header or the path holds a control character";
	default:
		return strerror(-r);
	}
}

int hook_client_post(struct hook_client *c, const char *path,
		     const struct hook_client_header *headers, size_t n_headers, struct span body,
		     struct hook_client_answer *ret, char error[static HOOK_CLIENT_ERROR_MAX])
{
	CLEANUP(buffer_finish) struct buffer request = BUFFER_INIT(body.len + HEADERS_MAX);
	bool again = false;

	ret->status = 0;
	buffer_init(&ret->body, HOOK_CLIENT_ANSWER_MAX);
	c->deadline_mono_ms = clock_mono_ms() + c->timeout_ms;
	int r = write_request(c, &request, path, headers, n_headers, body);
	if (r == 0)
		r = exchange(c, &request, ret, &again);
	if (again)
		r = exchange(c, &request, ret, &again);
	if (r < 0)
		(void)snprintf(error, HOOK_CLIENT_ERROR_MAX, "%s%s: %s",
			       c->target.host[0] ? "" : "unix:",
			       c->target.host[0] ? c->name : c->target.unix_path, describe(r));
	return r;
}
