/* The client's judgement of URLs and headers, and what several threads at once make of it. How it
 * gets on with slow, large and untrusted servers is tested end to end.
 */
#include "http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static void only_scheme_and_host_of_a_url_are_shown(void **state)
{
	static const struct {
		const char *url, *endpoint; /* NULL: refused */
	} cases[] = {
		{ "https://hooks.slack.com/services/T0/B0/secret", "https://hooks.slack.com" },
		{ "http://user:secret@127.0.0.1:9093/x?token=secret#secret",
		  "http://127.0.0.1:9093" },
		{ "http://[::1]:80/", "http://[::1]:80" },
		{ "HTTPS://Example.ORG", "https://Example.ORG" },
		{ "ftp://example.org/", NULL },
		{ "file:///etc/passwd", NULL },
		{ "example.org/x", NULL },
		{ "http://", NULL },
		{ "http:///x", NULL },
		{ "", NULL },
		{ "http://a/ b", NULL },
		{ "http://a/\r\nx: y", NULL },
		{ "http://\xc3\xa4.example/", NULL },
		{ "http://a:70000/", NULL },
	};
	char text[HTTP_CLIENT_ENDPOINT_MAX];
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r = http_client_endpoint(cases[i].url, text);
		if (r != (cases[i].endpoint ? 0 : HTTP_CLIENT_BAD_URL))
			fail_msg("%d for %s", r, cases[i].url);
		assert_string_equal(text, cases[i].endpoint ? cases[i].endpoint : "");
	}
}

static int post(const char *url, const char *header_value, const atomic_bool *stop,
		struct http_client_answer *ret)
{
	char error[HTTP_CLIENT_ERROR_MAX];
	const struct http_client_header header = { "x-test", header_value };
	const struct http_client_request request = {
		.url = url,
		.headers = &header,
		.n_headers = 1,
		.body = SPAN_LITERAL("{}"),
		.timeout_ms = 5000,
		.stop = stop,
	};
	int r = http_client_post(&request, ret, error);
	assert_true((r == 0) == (error[0] == '\0'));
	return r;
}

static void a_header_that_would_begin_another_is_refused(void **state)
{
	struct http_client_answer answer;
	assert_int_equal(post("http://127.0.0.1:1/", "a\r\nb: c", NULL, &answer), -EINVAL);
	buffer_finish(&answer.body);
	assert_int_equal(post("http://127.0.0.1:1/", "a\nb", NULL, &answer), -EINVAL);
	buffer_finish(&answer.body);
}

static void a_stop_before_the_call_ends_it(void **state)
{
	struct http_client_answer answer;
	atomic_bool stop = true;
	assert_int_equal(post("http://127.0.0.1:1/", "a", &stop, &answer), HTTP_CLIENT_STOPPED);
	buffer_finish(&answer.body);
}

/* ---- a server: answers a connection each, `n` of them ---- */

struct server {
	int fd;
	unsigned int n;
	char url[64];
	pthread_t thread;
};

static void *serve(void *context)
{
	static const char answer[] = "HTTP/1.1 202 Accepted\r\nRetry-After: 5\r\n"
				     "Content-Length: 4\r\nConnection: close\r\n\r\nwell";
	struct server *s = context;
	char request[4096];
	for (unsigned int i = 0; i < s->n; i++) {
		CLEANUP_CLOSE int fd = accept(s->fd, NULL, NULL);
		size_t len = 0;
		ssize_t got;
		while (len < sizeof(request) - 1 &&
		       (got = read(fd, request + len, sizeof(request) - 1 - len)) > 0) {
			len += (size_t)got;
			request[len] = '\0';
			if (strstr(request, "\r\n\r\n{}"))
				break;
		}
		(void)send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
	}
	return NULL;
}

static void start_server(struct server *s, unsigned int n)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(address);
	s->n = n;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&address, len), 0);
	assert_int_equal(listen(s->fd, 64), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&address, &len), 0);
	(void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u/x",
		       (unsigned int)ntohs(address.sin_port));
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop_server(struct server *s)
{
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	assert_int_equal(close(s->fd), 0);
}

static void *post_some(void *context)
{
	uintptr_t good = 0;
	for (int i = 0; i < 10; i++) {
		struct http_client_answer answer;
		int r = post(context, "a", NULL, &answer);
		good += r == 0 && answer.status == 202 && answer.retry_after_s == 5 &&
			answer.body.len == 4 && memcmp(answer.body.data, "well", 4) == 0;
		buffer_finish(&answer.body);
	}
	return (void *)good; /* NOLINT */
}

static void several_threads_post_at_once(void **state)
{
	struct server s;
	pthread_t threads[4];
	start_server(&s, 10 * ARRAY_SIZE(threads));
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, post_some, s.url), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *good = NULL;
		assert_int_equal(pthread_join(threads[i], &good), 0);
		assert_int_equal((uintptr_t)good, 10);
	}
	stop_server(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_scheme_and_host_of_a_url_are_shown),
		cmocka_unit_test(a_header_that_would_begin_another_is_refused),
		cmocka_unit_test(a_stop_before_the_call_ends_it),
		cmocka_unit_test(several_threads_post_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
