/* Connections, deadlines, framing and stopping, through the hook server that uses them. */
#include "hook_fixture.h"

#include "httpd.h"

#include <stdatomic.h>

#define GET "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"

/* Here all peers are loopback, for which there is no limit. */
static atomic_bool is_from_afar;
bool __real_peer_is_loopback(const struct peer *peer);
bool __wrap_peer_is_loopback(const struct peer *peer);

bool __wrap_peer_is_loopback(const struct peer *peer)
{
	return !atomic_load(&is_from_afar) && __real_peer_is_loopback(peer);
}

static void answers_pipelined_requests_in_order(void **state)
{
	struct world *w = *state;
	w->mood = STORE_AT_ONCE;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	for (int i = 0; i < 10; i++) {
		post(w, fd, EVENT, "");
		say(fd, GET);
	}
	for (int i = 0; i < 10; i++) {
		struct answer a = hear(fd);
		assert_non_null(strstr(a.text, "stored"));
		a = hear(fd);
		assert_string_equal(body_of(&a), "ok");
	}
}

static void answers_a_sender_that_half_closed(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "");
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	decide(w, 1, 0, STORAGE_STORED, INGEST_REASON_NONE);
	assert_int_equal(hear(fd).status, 200);
	assert_true(ends(fd));
}

static void closes_after_an_answer_to_http_1_0(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "GET /healthz HTTP/1.0\r\nHost: t\r\n\r\n");
	assert_int_equal(hear(fd).status, 200);
	assert_true(ends(fd));
}

/* Each ends in a second request that nobody may answer. */
static void never_executes_what_hides_behind_bad_framing(void **state)
{
	static const char *const requests[] = {
		"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
		"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"Content-Length : 5\r\n\r\nhello",
		"Content-Length: 0005000000\r\nContent-Length : 5\r\n\r\nhello",
		"Host: again\r\nContent-Length: 5\r\n\r\nhello",
		"\r\n",
		"e2b-signature: a\r\nE2B-Signature: a\r\nContent-Length: 5\r\n\r\nhello",
	};
	struct world *w = *state;
	start(w);
	for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
		CLEANUP_CLOSE int fd = dial(w);
		char text[512];
		(void)snprintf(text, sizeof(text), "POST /hook HTTP/1.1\r\nHost: t\r\n%s" GET,
			       requests[i]);
		say(fd, text);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		assert_int_equal(hear(fd).status, 400);
		assert_int_equal(hear(fd).status, 0);
	}
	assert_int_equal(w->n_submitted, 0);
}

static void refuses_a_target_with_a_blank(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "GET /healthz?a b HTTP/1.1\r\nHost: t\r\n\r\n");
	assert_int_equal(hear(fd).status, 400);
	assert_true(ends(fd));
}

static void answers_408_to_headers_that_never_end(void **state)
{
	static const char *const beginnings[] = { "GET /heal", "GET /healthz HTTP/1.1\r\nHost: " };
	struct world *w = *state;
	w->config->server.header_timeout_ms = 100;
	start(w);
	for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++) {
		CLEANUP_CLOSE int fd = dial(w);
		say(fd, beginnings[i]);
		assert_int_equal(hear(fd).status, 408);
		assert_true(ends(fd));
	}
}

static void answers_408_to_a_body_that_never_ends(void **state)
{
	struct world *w = *state;
	w->config->server.request_timeout_ms = 100;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "POST /hook HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello");
	assert_int_equal(hear(fd).status, 408);
	assert_true(ends(fd));
}

static void cuts_a_refused_upload_after_a_while(void **state)
{
	struct world *w = *state;
	char junk[1001];
	memset(junk, 'x', 1000);
	junk[1000] = 0;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	int64_t begun_ms = clock_mono_ms();
	say(fd, "POST /hook HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999\r\n\r\n");
	assert_int_equal(hear(fd).status, 413);
	while (clock_mono_ms() - begun_ms < PATIENCE_MS &&
	       send(fd, junk, 1000, MSG_NOSIGNAL) == 1000)
		(void)poll(NULL, 0, 1);
	assert_in_range(clock_mono_ms() - begun_ms, HTTPD_LINGER_MS - 100, HTTPD_LINGER_MS + 3000);
}

/* A read that takes a sender's last bytes does not show that its end came with them. */
static void notices_senders_that_left_with_their_last_bytes(void **state)
{
	static const char *const texts[] = {
		"GET /heal",
		"GET /healthz HTTP/1.1\r\nHo",
		GET,
		GET GET "G",
		"POST /hook HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhello",
	};
	struct world *w = *state;
	start(w);
	for (size_t i = 0; i < 40 * ARRAY_SIZE(texts); i++) {
		CLEANUP_CLOSE int fd = dial(w);
		say(fd, texts[i % ARRAY_SIZE(texts)]);
	}
	int64_t begun_ms = clock_mono_ms();
	while (hook_server_connections(w->server) > 0 &&
	       clock_mono_ms() - begun_ms < w->config->server.header_timeout_ms / 2)
		(void)poll(NULL, 0, 1);
	assert_int_equal(hook_server_connections(w->server), 0);
}

static void lets_a_connection_rest_between_requests(void **state)
{
	struct world *w = *state;
	w->config->server.header_timeout_ms = 50;
	w->config->server.request_timeout_ms = 100;
	start(w);
	CLEANUP_CLOSE int resting = dial(w);
	CLEANUP_CLOSE int slow = dial(w);
	say(resting, GET);
	assert_int_equal(hear(resting).status, 200);
	/* Longer than any deadline for a request: a slow one met it meanwhile. */
	say(slow, "GET /healthz HTTP/1.1\r\nHost: ");
	assert_int_equal(hear(slow).status, 408);
	say(resting, GET);
	assert_int_equal(hear(resting).status, 200);
}

static void lets_connections_above_the_limit_wait_their_turn(void **state)
{
	struct world *w = *state;
	w->config->server.max_connections = 2;
	start(w);
	int first = dial(w);
	CLEANUP_CLOSE int second = dial(w);
	CLEANUP_CLOSE int third = dial(w);
	say(first, GET);
	say(second, GET);
	assert_int_equal(hear(first).status, 200);
	assert_int_equal(hear(second).status, 200);
	say(third, GET);
	let_loops_come_round(first);
	let_loops_come_round(second);
	assert_int_equal(hook_server_connections(w->server), 2);
	assert_true(is_silent(third));
	(void)close(first);
	assert_int_equal(hear(third).status, 200);
}

static void closes_what_one_address_opens_above_its_limit(void **state)
{
	struct world *w = *state;
	int fds[3];
	w->config->server.max_connections_per_ip = 2;
	start(w);
	for (int afar = 1; afar >= 0; afar--) {
		atomic_store(&is_from_afar, afar);
		for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
			fds[i] = dial(w);
			bool said = try_say(fds[i], GET);
			assert_int_equal(said ? hear(fds[i]).status : 0, afar && i == 2 ? 0 : 200);
		}
		(void)close(fds[2]);
		(void)close(fds[0]);
		while (hook_server_connections(w->server) > 1)
			(void)poll(NULL, 0, 1);
		/* There is room again. */
		fds[0] = dial(w);
		say(fds[0], GET);
		assert_int_equal(hear(fds[0]).status, 200);
		(void)close(fds[0]);
		(void)close(fds[1]);
		while (hook_server_connections(w->server) > 0)
			(void)poll(NULL, 0, 1);
	}
}

static void serves_as_many_as_arrive_at_once(void **state)
{
	static const size_t counts[] = { 127, 128, 129, 256 };
	struct world *w = *state;
	start(w);
	for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
		int fds[256];
		size_t n = counts[c], before = w->n_held;
		for (size_t i = 0; i < n; i++) {
			fds[i] = dial(w);
			post(w, fds[i], EVENT, "");
		}
		for (size_t i = 1; i <= n; i++)
			decide(w, before + i, 0, STORAGE_STORED, INGEST_REASON_NONE);
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(hear(fds[i]).status, 200);
			(void)close(fds[i]);
		}
	}
}

static void draining_answers_what_is_open_and_closes_it(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int waiting = dial(w);
	CLEANUP_CLOSE int idle = dial(w);
	CLEANUP_CLOSE int halfway = dial(w);
	char signature[SIGNATURE_TEXT_MAX], head[512];
	say(idle, GET);
	assert_int_equal(hear(idle).status, 200);
	sign(w, EVENT, signature);
	(void)snprintf(head, sizeof(head),
		       "POST /hook HTTP/1.1\r\nHost: t\r\ne2b-signature: %s\r\n"
		       "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
		       signature, strlen(EVENT));
	say(halfway, head);
	assert_int_equal(hear(halfway).status, 100);
	post(w, waiting, EVENT, "");
	(void)wait_for_jobs(w, 1);
	hook_server_drain(w->server);
	assert_true(ends(idle));
	say(halfway, EVENT);
	decide(w, 1, 0, STORAGE_STORED, INGEST_REASON_NONE);
	decide(w, 2, 0, STORAGE_DUPLICATE, INGEST_REASON_NONE);
	struct answer a = hear(waiting), b = hear(halfway);
	assert_int_equal(a.status, 200);
	assert_int_equal(b.status, 200);
	assert_non_null(strstr(a.text, "Connection: close\r\n"));
	assert_non_null(strstr(b.text, "Connection: close\r\n"));
	assert_true(ends(waiting));
	assert_true(ends(halfway));
}

static void stops_while_deliveries_wait(void **state)
{
	struct world *w = *state;
	start(w);
	int fds[50];
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = dial(w);
		post(w, fds[i], EVENT, "");
	}
	(void)wait_for_jobs(w, ARRAY_SIZE(fds));
	hook_server_drain(w->server);
	/* The writer fails them; the loops stop at once. */
	stop(w);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		int status = hear(fds[i]).status;
		assert_true(status == 503 || status == 0);
		(void)close(fds[i]);
	}
	assert_int_equal(hook_server_connections(w->server), 0);
}

/* Begins, and takes its time with the answer. */
static void begin_late(void *ctx, struct httpd_request *r)
{
	httpd_set_data(r, ctx);
	(void)!httpd_screen(r, NULL, 0);
}

static void take_late(void *ctx, struct httpd_request *r)
{
	++*(int *)ctx;
	httpd_suspend(r);
}

static void finish_late(void *ctx, struct httpd_request *r, bool answered)
{
}

/* What came in is read by the last round only, when those that waited have been answered. */
static void stops_while_a_request_is_on_its_way(void **state)
{
	struct world *w = *state;
	CLEANUP(listen_finish) struct listen_set set = { 0 };
	const struct listen_options listen_options = { .unix_mode = 0660, .fd_name = "hook" };
	int n_suspended = 0;
	const struct httpd_options options = {
		.config = &w->config->server,
		.n_loops = 1,
		.handler = { .begin = begin_late,
			     .complete = take_late,
			     .finish = finish_late,
			     .ctx = &n_suspended },
	};
	struct httpd *h = NULL;
	char error[LISTEN_ERROR_MAX];
	assert_int_equal(listen_open(&set, &w->config->server.listen[0], &listen_options, error),
			 0);
	w->port = (uint16_t)strtoul(strrchr(set.items[0].text, ':') + 1, NULL, 10);
	assert_int_equal(httpd_new(&options, &set, &h), 0);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, GET);
	httpd_stop(h); /* told to stop before the first round */
	assert_int_equal(httpd_start(h), 0);
	httpd_free(h);
	assert_int_equal(n_suspended, 1);
	assert_int_equal(hear(fd).status, 503);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_pipelined_requests_in_order),
		TEST(answers_a_sender_that_half_closed),
		TEST(closes_after_an_answer_to_http_1_0),
		TEST(never_executes_what_hides_behind_bad_framing),
		TEST(refuses_a_target_with_a_blank),
		TEST(answers_408_to_headers_that_never_end),
		TEST(answers_408_to_a_body_that_never_ends),
		TEST(cuts_a_refused_upload_after_a_while),
		TEST(notices_senders_that_left_with_their_last_bytes),
		TEST(lets_a_connection_rest_between_requests),
		TEST(lets_connections_above_the_limit_wait_their_turn),
		TEST(closes_what_one_address_opens_above_its_limit),
		TEST(serves_as_many_as_arrive_at_once),
		TEST(draining_answers_what_is_open_and_closes_it),
		TEST(stops_while_deliveries_wait),
		TEST(stops_while_a_request_is_on_its_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
