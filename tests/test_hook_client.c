/* The client against a peer that answers what the test wrote down, over TCP and unix sockets: right
 * answers, wrong ones, none. */
#include "hook_client.h"

#include "clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#define TIMEOUT_MS 5000
#define TURNS_MAX 4
#define ANSWER_OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* What the peer does, one turn for a request: answers, and closes behind it where it says so. */
struct turn {
	const char *answer; /* NULL: nothing */
	bool closes;
	bool drips; /* a byte at a time */
};

struct peer {
	int listener;
	struct turn turns[TURNS_MAX];
	size_t n_turns, n_connections, n_requests;
	char requests[TURNS_MAX][4096];
	struct hook_client_target target;
	char dir[64];
	pthread_t thread;
};

/* Reads one request of ours: its length is declared. False at the end of the connection. */
static bool read_request(int fd, char buf[static 4096])
{
	size_t len = 0;

	buf[0] = '\0';
	for (;;) {
		const char *end = strstr(buf, "\r\n\r\n");
		const char *declared = strstr(buf, "Content-Length: ");
		if (end && declared &&
		    len >= (size_t)(end - buf) + 4 + strtoul(declared + 16, NULL, 10))
			return true;
		ssize_t n = recv(fd, buf + len, 4095 - len, 0);
		if (n <= 0)
			return false;
		len += (size_t)n;
		buf[len] = '\0';
	}
}

static void answer(int fd, const struct turn *turn)
{
	size_t len = turn->answer ? strlen(turn->answer) : 0, step = turn->drips ? 1 : len;

	for (size_t at = 0; at < len; at += step)
		if (send(fd, turn->answer + at, step, MSG_NOSIGNAL) < 0)
			return;
}

static void *serve(void *ctx)
{
	struct peer *p = ctx;
	size_t turn = 0;

	while (turn < p->n_turns) {
		CLEANUP_CLOSE int fd = accept(p->listener, NULL, NULL);
		if (fd < 0)
			return NULL;
		p->n_connections++;
		bool open = true;
		while (open && turn < p->n_turns && read_request(fd, p->requests[turn])) {
			p->n_requests++;
			answer(fd, &p->turns[turn]);
			open = !p->turns[turn].closes;
			turn++;
		}
		/* Until the client is done: what closes early would be an error of its own. */
		char rest[256];
		if (open)
			while (recv(fd, rest, sizeof(rest), 0) > 0)
				;
	}
	return NULL;
}

static void begin_peer(struct peer *p, const struct turn *turns, size_t n)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t len = sizeof(address);

	memset(p, 0, sizeof(*p));
	memcpy(p->turns, turns, n * sizeof(*turns));
	p->n_turns = n;
	p->listener = socket(AF_INET, SOCK_STREAM, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(p->listener, 4), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&address, &len), 0);
	(void)snprintf(p->target.host, sizeof(p->target.host), "127.0.0.1");
	p->target.port = ntohs(address.sin_port);
	assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
}

static void begin_unix_peer(struct peer *p, const struct turn *turns, size_t n)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	memset(p, 0, sizeof(*p));
	memcpy(p->turns, turns, n * sizeof(*turns));
	p->n_turns = n;
	(void)snprintf(p->dir, sizeof(p->dir), "/tmp/hookd-client-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", p->dir);
	(void)snprintf(p->target.unix_path, sizeof(p->target.unix_path), "%s/s", p->dir);
	p->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(p->listener, 4), 0);
	assert_int_equal(pthread_create(&p->thread, NULL, serve, p), 0);
}

/* After the client has gone. */
static void end_peer(struct peer *p)
{
	(void)shutdown(p->listener, SHUT_RDWR);
	assert_int_equal(pthread_join(p->thread, NULL), 0);
	(void)close(p->listener);
	if (p->dir[0]) {
		(void)unlink(p->target.unix_path);
		(void)rmdir(p->dir);
	}
}

static struct hook_client *new_client(const struct peer *p, int64_t timeout_ms)
{
	struct hook_client *c = NULL;

	assert_int_equal(hook_client_new(&p->target, timeout_ms, &c), 0);
	return c;
}

struct said {
	int r;
	unsigned int status;
	char body[256];
	char error[HOOK_CLIENT_ERROR_MAX];
};

static struct said post(struct hook_client *c)
{
	static const struct hook_client_header header = { "x-signature-256", "abc" };
	struct hook_client_answer a;
	struct said said = { .status = 0 };

	said.r =
		hook_client_post(c, "/hook", &header, 1, SPAN_LITERAL("{\"a\":1}"), &a, said.error);
	said.status = a.status;
	(void)snprintf(said.body, sizeof(said.body), "%s", a.body.data ? a.body.data : "");
	buffer_finish(&a.body);
	return said;
}

/* One post to a peer with one turn. */
static struct said ask(struct turn turn)
{
	struct peer p;

	begin_peer(&p, &turn, 1);
	struct hook_client *c = new_client(&p, TIMEOUT_MS);
	struct said said = post(c);
	hook_client_free(c);
	end_peer(&p);
	return said;
}

/* ---- */

static void posts_a_body_and_returns_the_answer(void **state)
{
	const struct turn turn = { .answer = ANSWER_OK };
	struct peer p;

	begin_peer(&p, &turn, 1);
	struct hook_client *c = new_client(&p, TIMEOUT_MS);
	struct said said = post(c);
	hook_client_free(c);
	end_peer(&p);
	assert_int_equal(said.r, 0);
	assert_int_equal(said.status, 200);
	assert_string_equal(said.body, "ok");
	assert_ptr_equal(strstr(p.requests[0], "POST /hook HTTP/1.1\r\nHost: 127.0.0.1:"),
			 p.requests[0]);
	assert_non_null(strstr(p.requests[0], "\r\nContent-Length: 7\r\n"));
	assert_non_null(strstr(p.requests[0], "\r\nx-signature-256: abc\r\n\r\n{\"a\":1}"));
}

static void keeps_its_connection(void **state)
{
	const struct turn turns[] = { { .answer = ANSWER_OK },
				      { .answer = ANSWER_OK, .drips = true },
				      { .answer = ANSWER_OK } };
	struct peer p;

	begin_unix_peer(&p, turns, 3);
	struct hook_client *c = new_client(&p, TIMEOUT_MS);
	for (int i = 0; i < 3; i++)
		assert_string_equal(post(c).body, "ok");
	hook_client_free(c);
	end_peer(&p);
	assert_int_equal(p.n_connections, 1);
}

static void connects_anew_when_the_peer_says_close(void **state)
{
	const struct turn turns[] = {
		{ .answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok" },
		{ .answer = ANSWER_OK }
	};
	struct peer p;

	begin_peer(&p, turns, 2);
	struct hook_client *c = new_client(&p, TIMEOUT_MS);
	assert_int_equal(post(c).r, 0);
	assert_int_equal(post(c).r, 0);
	hook_client_free(c);
	end_peer(&p);
	assert_int_equal(p.n_connections, 2);
}

static void tries_once_more_where_a_kept_connection_was_closed(void **state)
{
	const struct turn turns[] = { { .answer = ANSWER_OK },
				      { .answer = NULL, .closes = true },
				      { .answer = ANSWER_OK },
				      { .answer = NULL, .closes = true } };
	struct peer p;

	begin_peer(&p, turns, 4);
	struct hook_client *c = new_client(&p, TIMEOUT_MS);
	assert_int_equal(post(c).r, 0);
	assert_int_equal(post(c).r, 0);
	hook_client_free(c);
	/* A fresh connection that ends without an answer is a failure, not tried again. */
	c = new_client(&p, TIMEOUT_MS);
	struct said said = post(c);
	hook_client_free(c);
	end_peer(&p);
	assert_int_equal(said.r, -ENODATA);
	assert_int_equal(p.n_requests, 4);
}

static void reads_answers_of_every_form(void **state)
{
	static const struct {
		struct turn turn;
		unsigned int status;
		const char *body;
	} cases[] = {
		{ { "HTTP/1.1 401 Unauthorized\r\ncontent-length:2\r\n\r\nno", false, true },
		  401,
		  "no" },
		{ { "HTTP/1.1 200 OK\r\n\r\nuntil the end", true, false }, 200, "until the end" },
		{ { "HTTP/1.0 503 Busy\r\n\r\n", true, false }, 503, "" },
		{ { "HTTP/1.1 204 No Content\r\n\r\n", false, false }, 204, "" },
		{ { "HTTP/1.1 100 Continue\r\n\r\n" ANSWER_OK, false, false }, 200, "ok" },
		{ { "HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false,
		    false },
		  502,
		  "" },
		{ { "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, false }, 200, "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct said said = ask(cases[i].turn);
		assert_int_equal(said.r, 0);
		assert_int_equal(said.status, cases[i].status);
		assert_string_equal(said.body, cases[i].body);
	}
}

static void tells_what_is_no_answer(void **state)
{
	static const struct {
		struct turn turn;
		int r;
	} cases[] = {
		{ { "SSH-2.0-OpenSSH\r\n\r\n", false, false }, -EPROTO },
		{ { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", true, false }, -EPROTO },
		{ { "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nok", true, false },
		  -EMSGSIZE },
		{ { "HTTP/1.1 2x0 OK\r\n\r\n", false, false }, -EPROTO },
		{ { NULL, true, false }, -ENODATA },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct said said = ask(cases[i].turn);
		assert_int_equal(said.r, cases[i].r);
		assert_non_null(strstr(said.error, "127.0.0.1:"));
		assert_null(strchr(said.error, '\n'));
	}
}

static void an_answer_without_end_is_bounded(void **state)
{
	char *flood = malloc(300000);

	assert_non_null(flood);
	memset(flood, 'a', 299999);
	flood[299999] = '\0';
	assert_int_equal(ask((struct turn) { .answer = flood, .closes = true }).r, -EMSGSIZE);
	memcpy(flood, "HTTP/1.1 200 OK\r\n\r\n", 19);
	assert_int_equal(ask((struct turn) { .answer = flood, .closes = true }).r, -EMSGSIZE);
	free(flood);
}

static void waits_no_longer_than_it_may(void **state)
{
	const struct turn silent = { .answer = NULL };
	struct peer p;
	int64_t begun = clock_mono_ms();

	begin_peer(&p, &silent, 1);
	struct hook_client *c = new_client(&p, 50);
	struct said said = post(c);
	hook_client_free(c);
	end_peer(&p);
	assert_int_equal(said.r, -ETIMEDOUT);
	assert_true(clock_mono_ms() - begun < TIMEOUT_MS);
}

static void tells_where_nobody_listens(void **state)
{
	struct hook_client_target target = { .unix_path = "/nowhere/hookd.sock" };
	struct hook_client *c = NULL;

	assert_int_equal(hook_client_new(&target, TIMEOUT_MS, &c), 0);
	struct said said = post(c);
	hook_client_free(c);
	assert_int_equal(said.r, -ENOENT);
	assert_non_null(strstr(said.error, "unix:/nowhere/hookd.sock: No such file"));
}

static void a_header_cannot_smuggle_another(void **state)
{
	struct hook_client_target target = { .host = "127.0.0.1", .port = 1 };
	static const struct hook_client_header bad[] = { { "a", "b\r\nc: d" },
							 { "a: b\r\nc", "d" },
							 { "a", "\x7f" } };
	char error[HOOK_CLIENT_ERROR_MAX];
	struct hook_client *c = NULL;
	struct hook_client_answer a;

	assert_int_equal(hook_client_new(&target, TIMEOUT_MS, &c), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(
			hook_client_post(c, "/", &bad[i], 1, SPAN_LITERAL("{}"), &a, error),
			-EINVAL);
		buffer_finish(&a.body);
	}
	assert_int_equal(hook_client_post(c, "/a b", NULL, 0, SPAN_LITERAL("{}"), &a, error),
			 -EINVAL);
	buffer_finish(&a.body);
	hook_client_free(c);
}

/* ---- URLs and heads ---- */

static void reads_urls(void **state)
{
	struct hook_client_target t;

	assert_int_equal(hook_client_read_url("http://localhost:8787/webhooks/e2b?x=1", &t), 0);
	assert_string_equal(t.host, "localhost");
	assert_int_equal(t.port, 8787);
	assert_string_equal(t.path, "/webhooks/e2b?x=1");
	assert_int_equal(hook_client_read_url("HTTP://[::1]:1", &t), 0);
	assert_string_equal(t.host, "::1");
	assert_int_equal(t.port, 1);
	assert_string_equal(t.path, "");
	assert_int_equal(hook_client_read_url("http://a.example", &t), 0);
	assert_int_equal(t.port, 80);
	assert_int_equal(hook_client_read_url("unix:/run/hookd.sock", &t), 0);
	assert_string_equal(t.unix_path, "/run/hookd.sock");
	assert_string_equal(t.host, "");
}

static void refuses_what_is_no_url(void **state)
{
	static const char *const bad[] = {
		"",
		"localhost:8787",
		"http://",
		"http://:80",
		"http://a:",
		"http://a:0",
		"http://a:65536",
		"http://a:8x",
		"http://[::1",
		"http://[::1]8",
		"http://a b",
		"http://a/\r\nx:",
		"http://u:p@a/",
		"http://a?x",
		"unix:relative",
		"unix:",
		"ftp://a/",
		"http://a:80:90/",
		"http://a/#frag",
		"http://a/\xc3",
	};
	struct hook_client_target t;
	char url[2000] = "http://a/";

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (hook_client_read_url(bad[i], &t) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
	assert_int_equal(hook_client_read_url("https://a/", &t), -EPROTONOSUPPORT);
	memset(url + 9, 'x', sizeof(url) - 10);
	assert_int_equal(hook_client_read_url(url, &t), -EINVAL);
	memcpy(url, "http://xx", 9);
	assert_int_equal(hook_client_read_url(url, &t), -EINVAL);
}

static int read_head(const char *text, struct hook_client_head *ret)
{
	return hook_client_read_head(text, strlen(text), ret);
}

static void a_head_says_how_its_body_ends(void **state)
{
	struct hook_client_head h;

	assert_int_equal(read_head("HTTP/1.1 200 OK\r\nCONTENT-LENGTH: \t12 \r\n\r\n", &h), 0);
	assert_true(h.status == 200 && h.body_len == 12 && h.keeps_open && !h.is_chunked);
	assert_int_equal(read_head("HTTP/1.0 200 OK\r\n\r\n", &h), 0);
	assert_true(h.body_len == -1 && !h.keeps_open);
	assert_int_equal(read_head("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n", &h), 0);
	assert_true(h.keeps_open);
	assert_int_equal(
		read_head("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", &h),
		0);
	assert_int_equal(h.body_len, 1);
}

static void a_head_that_contradicts_itself_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"HTTP/2 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 2000\r\n\r\n",
		"HTTP/1.1 600 OK\r\n\r\n",
		"HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\n\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
	};
	struct hook_client_head h;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (read_head(bad[i], &h) != -EPROTO)
			fail_msg("accepted: %s", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(posts_a_body_and_returns_the_answer),
		cmocka_unit_test(keeps_its_connection),
		cmocka_unit_test(connects_anew_when_the_peer_says_close),
		cmocka_unit_test(tries_once_more_where_a_kept_connection_was_closed),
		cmocka_unit_test(reads_answers_of_every_form),
		cmocka_unit_test(tells_what_is_no_answer),
		cmocka_unit_test(an_answer_without_end_is_bounded),
		cmocka_unit_test(waits_no_longer_than_it_may),
		cmocka_unit_test(tells_where_nobody_listens),
		cmocka_unit_test(a_header_cannot_smuggle_another),
		cmocka_unit_test(reads_urls),
		cmocka_unit_test(refuses_what_is_no_url),
		cmocka_unit_test(a_head_says_how_its_body_ends),
		cmocka_unit_test(a_head_that_contradicts_itself_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
