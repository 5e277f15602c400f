/* What a sender is answered, and when: over real sockets, with the test in the writer's place. */
#include "hook_fixture.h"

#include "metrics.h"

static void answers_stored_only_after_the_commit(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "");
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_true(job->durable);
	assert_string_equal(job->delivery.source, "e2b");
	assert_memory_equal(job->delivery.body.s, EVENT, strlen(EVENT));
	assert_int_equal(job->delivery.body_len, strlen(EVENT));
	for (int i = 0; i < 4; i++) {
		CLEANUP_CLOSE int other = dial(w);
		let_loops_come_round(other);
	}
	assert_true(is_silent(fd));
	decide(w, 1, 0, STORAGE_STORED, INGEST_REASON_NONE);
	struct answer a = hear(fd);
	assert_int_equal(a.status, 200);
	assert_string_equal(body_of(&a),
			    "{\"status\":\"stored\",\"event_id\":\"" EVENT_ID_IN_BODY "\"}\n");
	assert_int_equal(w->n_verified, 1);
}

static void answers_what_the_store_says(void **state)
{
	static const struct {
		int status;
		enum storage_outcome outcome;
		enum ingest_reason reason;
		int http;
		const char *word;
	} rows[] = {
		{ 0, STORAGE_DUPLICATE, INGEST_REASON_NONE, 200, "\"duplicate\"" },
		{ 0, STORAGE_QUARANTINED, INGEST_REASON_ID_REUSED, 200,
		  "\"quarantined\",\"event_id\":\"" EVENT_ID_IN_BODY
		  "\",\"reason\":\"id_reused\"" },
		{ 0, STORAGE_QUARANTINE_FULL, INGEST_REASON_NONE, 503, "Retry-After: 10\r\n" },
		{ -ENOSPC, STORAGE_STORED, INGEST_REASON_NONE, 503, "Retry-After: 10\r\n" },
	};
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		post(w, fd, EVENT, "");
		decide(w, i + 1, rows[i].status, rows[i].outcome, rows[i].reason);
		struct answer a = hear(fd);
		assert_int_equal(a.status, rows[i].http);
		assert_non_null(strstr(a.text, rows[i].word));
	}
}

/* Both are answered 200 and never sent again. */
static void wants_stored_and_quarantined_synced_and_nothing_else(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, "{\"no\":\"event\"}", "");
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_int_equal(job->delivery.judged->verdict, INGEST_QUARANTINE);
	assert_true(job->durable);
	decide(w, 1, 0, STORAGE_QUARANTINED, job->delivery.judged->reason);
	assert_int_equal(hear(fd).status, 200);
	post(w, fd, EVENT, "");
	assert_true(wait_for_jobs(w, 2)->durable);
	decide(w, 2, 0, STORAGE_STORED, INGEST_REASON_NONE);
	assert_int_equal(hear(fd).status, 200);
	CLEANUP_CLOSE int other = dial(w);
	post(w, other, "not json", "");
	assert_int_equal(hear(other).status, 401);
	assert_false(wait_for_jobs(w, 3)->durable);
}

static void survives_a_commit_that_is_over_before_submit_returns(void **state)
{
	struct world *w = *state;
	w->mood = STORE_AT_ONCE;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	for (int i = 0; i < 200; i++) {
		post(w, fd, EVENT, "");
		assert_int_equal(hear(fd).status, 200);
	}
}

static void answers_503_when_the_queue_is_full(void **state)
{
	struct world *w = *state;
	w->mood = REFUSE;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "");
	struct answer a = hear(fd);
	assert_int_equal(a.status, 503);
	assert_non_null(strstr(a.text, "Retry-After: 10\r\n"));
}

static void refuses_before_the_body_when_too_many_wait(void **state)
{
	struct world *w = *state;
	w->config->store.queue_limit = 1;
	start(w);
	CLEANUP_CLOSE int first = dial(w);
	CLEANUP_CLOSE int second = dial(w);
	post(w, first, EVENT, "");
	(void)wait_for_jobs(w, 1);
	say(second, "POST /hook HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n");
	assert_int_equal(hear(second).status, 503);
	decide(w, 1, 0, STORAGE_STORED, INGEST_REASON_NONE);
	assert_int_equal(hear(first).status, 200);
}

static void answers_401_with_the_same_bytes_whatever_is_wrong(void **state)
{
	static const char *const headers[] = {
		"",
		"e2b-signature: x\r\n",
		"e2b-signature: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
	};
	struct world *w = *state;
	struct answer first = { 0 };
	w->mood = STORE_AT_ONCE;
	start(w);
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		CLEANUP_CLOSE int fd = dial(w);
		char head[512];
		(void)snprintf(head, sizeof(head),
			       "POST /hook HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n%s\r\n{}",
			       headers[i]);
		say(fd, head);
		struct answer a = hear(fd);
		assert_int_equal(a.status, 401);
		if (i == 0)
			first = a;
		assert_string_equal(body_of(&a), body_of(&first));
	}
	assert_int_equal(w->n_submitted, 3);
	assert_int_equal(w->n_verified, 0);
}

static void does_not_let_rejections_fill_the_queue(void **state)
{
	struct world *w = *state;
	uint64_t dropped = metrics_read(METRICS_REJECTION_DROPPED);
	w->config->store.queue_limit = 8;
	start(w);
	for (int i = 0; i < 10; i++) {
		CLEANUP_CLOSE int fd = dial(w);
		say(fd, "POST /hook HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}");
		assert_int_equal(hear(fd).status, 401);
	}
	assert_int_equal(w->n_submitted, 3);
	assert_int_equal(metrics_read(METRICS_REJECTION_DROPPED) - dropped, 7);
}

static void answers_filtered_without_waiting(void **state)
{
	struct world *w = *state;
	config_unref(w->config);
	w->config = make_config(w, "templates = other\n");
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "");
	struct answer a = hear(fd);
	assert_int_equal(a.status, 200);
	assert_non_null(strstr(a.text, "\"filtered\""));
	assert_non_null(strstr(a.text, "\"templates\""));
	assert_false(wait_for_jobs(w, 1)->durable);
}

static void refuses_a_declared_length_above_max_body_before_it_comes(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "POST /hook HTTP/1.1\r\nHost: test\r\nContent-Length: 65537\r\n\r\n");
	struct answer a = hear(fd);
	assert_int_equal(a.status, 413);
	assert_non_null(strstr(a.text, "Connection: close\r\n"));
	assert_true(ends(fd));
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_false(job->durable);
	assert_int_equal(job->delivery.judged->reason, INGEST_REASON_BODY_TOO_LARGE);
	assert_int_equal(job->delivery.body_len, 65537);
	assert_null(job->delivery.body.s);
}

static void refuses_a_chunked_body_when_it_exceeds_max_body(void **state)
{
	struct world *w = *state;
	char chunk[4097];
	memset(chunk, 'x', 4096);
	chunk[4096] = 0;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "POST /hook HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 17; i++) {
		say(fd, "1000\r\n");
		say(fd, chunk);
		say(fd, "\r\n");
	}
	assert_int_equal(hear(fd).status, 413);
	/* The rest is read and forgotten: the sender is not reset while it uploads. */
	for (int i = 0; i < 100; i++) {
		say(fd, "1000\r\n");
		say(fd, chunk);
		say(fd, "\r\n");
	}
	say(fd, "0\r\n\r\n");
	assert_true(ends(fd));
	assert_int_equal(wait_for_jobs(w, 1)->delivery.judged->reason,
			 INGEST_REASON_BODY_TOO_LARGE);
}

static void refuses_a_large_body_that_waits_for_100_continue(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	say(fd, "POST /hook HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
		"Content-Length: 9999999\r\n\r\n");
	assert_int_equal(hear(fd).status, 413);
	assert_true(ends(fd));
}

static void takes_a_chunked_body(void **state)
{
	struct world *w = *state;
	char signature[SIGNATURE_TEXT_MAX], head[512];
	w->mood = STORE_AT_ONCE;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	sign(w, EVENT, signature);
	(void)snprintf(head, sizeof(head),
		       "POST /hook HTTP/1.1\r\nHost: test\r\ne2b-signature: %s\r\n"
		       "Transfer-Encoding: chunked\r\n\r\n",
		       signature);
	say(fd, head);
	for (const char *at = EVENT; *at; at++) {
		char chunk[8] = { '1', '\r', '\n', *at, '\r', '\n' };
		say(fd, chunk);
	}
	say(fd, "0\r\n\r\n");
	assert_int_equal(hear(fd).status, 200);
}

static void answers_503_at_the_commit_deadline_and_keeps_what_it_lent(void **state)
{
	struct world *w = *state;
	w->config->store.commit_timeout_ms = 50;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "Connection: close\r\n");
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_int_equal(hear(fd).status, 503);
	assert_true(ends(fd));
	assert_memory_equal(job->delivery.body.s, EVENT, strlen(EVENT));
	assert_string_equal(job->delivery.judged->event.id, EVENT_ID_IN_BODY);
	decide(w, 1, 0, STORAGE_STORED, INGEST_REASON_NONE);
}

static void outlives_senders_that_leave_while_it_commits(void **state)
{
	struct world *w = *state;
	start(w);
	for (size_t i = 1; i <= 20; i++) {
		CLEANUP_CLOSE int fd = dial(w);
		post(w, fd, EVENT, "");
		(void)wait_for_jobs(w, i);
	}
	for (size_t i = 1; i <= 20; i++)
		decide(w, i, 0, STORAGE_STORED, INGEST_REASON_NONE);
	int64_t until = clock_mono_ms() + PATIENCE_MS;
	while (hook_server_connections(w->server) > 0 && clock_mono_ms() < until)
		(void)poll(NULL, 0, 1);
	assert_int_equal(hook_server_connections(w->server), 0);
	assert_int_equal(hook_server_waiting(w->server), 0);
}

static void an_empty_body_is_not_an_absent_one(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	CLEANUP_CLOSE int unsigned_fd = dial(w);
	post(w, fd, "", "");
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_non_null(job->delivery.body.s);
	assert_int_equal(job->delivery.body.len, 0);
	say(unsigned_fd, "POST /hook HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}");
	job = wait_for_jobs(w, 2);
	assert_null(job->delivery.body.s);
	assert_int_equal(job->delivery.body_len, 2);
}

static void records_unsigned_ids_only_if_printable(void **state)
{
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	post(w, fd, EVENT, "e2b-webhook-id: wh-1\r\ne2b-delivery-id: \xff\xfe\r\n");
	struct writer_job *job = wait_for_jobs(w, 1);
	assert_true(span_is(job->delivery.webhook_id, SPAN_LITERAL("wh-1")));
	assert_null(job->delivery.delivery_id.s);
	assert_string_equal(job->delivery.remote_addr, "127.0.0.1");
}

static void believes_forwarded_for_from_trusted_proxies_only(void **state)
{
	struct world *w = *state;
	static const struct config_cidr loopback = {
		.address = { [10] = 0xff, [11] = 0xff, [12] = 127 },
		.prefix = 104,
	};
	struct config *trusting = make_config(w, "");
	trusting->server.trusted_proxies[0] = loopback;
	trusting->server.n_trusted_proxies = 1;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	CLEANUP_CLOSE int proxy = dial(w);
	post(w, fd, EVENT, "X-Forwarded-For: 192.0.2.7\r\n");
	assert_string_equal(wait_for_jobs(w, 1)->delivery.remote_addr, "127.0.0.1");
	hook_server_set_config(w->server, trusting);
	config_unref(trusting);
	post(w, proxy, EVENT, "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n");
	assert_string_equal(wait_for_jobs(w, 2)->delivery.remote_addr, "192.0.2.7");
}

static void judges_by_the_configuration_a_request_began_with(void **state)
{
	struct world *w = *state;
	char signature[SIGNATURE_TEXT_MAX], head[512];
	w->mood = STORE_AT_ONCE;
	start(w);
	CLEANUP_CLOSE int old = dial(w);
	CLEANUP_CLOSE int new = dial(w);
	sign(w, EVENT, signature);
	(void)snprintf(head, sizeof(head),
		       "POST /hook HTTP/1.1\r\nHost: test\r\ne2b-signature: %s\r\n"
		       "Expect: 100-continue\r\nContent-Length: %zu\r\n\r\n",
		       signature, strlen(EVENT));
	say(old, head);
	assert_int_equal(hear(old).status, 100);
	struct config *next = make_config(w, "templates = other\n");
	hook_server_set_config(w->server, next);
	config_unref(next);
	say(old, EVENT);
	struct answer a = hear(old);
	assert_non_null(strstr(a.text, "\"stored\""));
	post(w, new, EVENT, "");
	a = hear(new);
	assert_non_null(strstr(a.text, "\"filtered\""));
}

static void answers_paths_and_methods_it_does_not_have(void **state)
{
	static const struct {
		const char *request;
		int status;
		const char *word;
	} rows[] = {
		{ "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 200, "\r\n\r\nok" },
		{ "GET /hook HTTP/1.1\r\nHost: t\r\n\r\n", 405, "Allow: POST\r\n" },
		{ "DELETE /healthz HTTP/1.1\r\nHost: t\r\n\r\n", 405, "Allow: GET, HEAD\r\n" },
		{ "GET /%68ook HTTP/1.1\r\nHost: t\r\n\r\n", 404, "application/problem+json" },
		{ "GET /hook/ HTTP/1.1\r\nHost: t\r\n\r\n", 404, "\"status\":404" },
		{ "POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc", 404,
		  "Connection: close\r\n" },
	};
	struct world *w = *state;
	start(w);
	CLEANUP_CLOSE int fd = dial(w);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		say(fd, rows[i].request);
		struct answer a = hear(fd);
		assert_int_equal(a.status, rows[i].status);
		assert_non_null(strstr(a.text, rows[i].word));
	}
	assert_true(ends(fd));
	assert_int_equal(w->n_submitted, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(answers_stored_only_after_the_commit),
		TEST(answers_what_the_store_says),
		TEST(wants_stored_and_quarantined_synced_and_nothing_else),
		TEST(survives_a_commit_that_is_over_before_submit_returns),
		TEST(answers_503_when_the_queue_is_full),
		TEST(refuses_before_the_body_when_too_many_wait),
		TEST(answers_401_with_the_same_bytes_whatever_is_wrong),
		TEST(does_not_let_rejections_fill_the_queue),
		TEST(answers_filtered_without_waiting),
		TEST(refuses_a_declared_length_above_max_body_before_it_comes),
		TEST(refuses_a_chunked_body_when_it_exceeds_max_body),
		TEST(refuses_a_large_body_that_waits_for_100_continue),
		TEST(takes_a_chunked_body),
		TEST(answers_503_at_the_commit_deadline_and_keeps_what_it_lent),
		TEST(outlives_senders_that_leave_while_it_commits),
		TEST(an_empty_body_is_not_an_absent_one),
		TEST(records_unsigned_ids_only_if_printable),
		TEST(believes_forwarded_for_from_trusted_proxies_only),
		TEST(judges_by_the_configuration_a_request_began_with),
		TEST(answers_paths_and_methods_it_does_not_have),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
