/* A hook server on a port of its own with a writer that the test plays: jobs are held until the
 * test says what became of them. And a small client.
 */
#pragma once

#include "clock.h"
#include "hook_server.h"
#include "log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#define PATIENCE_MS 10000
#define SECRET "hook-server-test-secret-0123456789"
#define EVENT                                                                                      \
	"{\"id\":\"11111111-2222-4333-8444-555555555555\",\"version\":\"v2\","                     \
	"\"type\":\"sandbox.lifecycle.created\",\"timestamp\":\"2026-11-01T10:00:00Z\","           \
	"\"sandbox_id\":\"isb1\",\"sandbox_execution_id\":\"run-1\","                              \
	"\"sandbox_template_id\":\"tpl-a\",\"event_data\":{}}"
#define EVENT_ID_IN_BODY "11111111-2222-4333-8444-555555555555"

enum writer_mood { HOLD, STORE_AT_ONCE, REFUSE };

struct world {
	char directory[64], secret_path[96];
	struct config *config;
	struct hook_server *server;
	uint16_t port;
	bool stopped;
	struct signature_keyring *keyring;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t changed;
	enum writer_mood mood;
	struct writer_job *held[2048];
	size_t n_held, n_submitted, n_verified;
};

/* --- the writer --- */

static UNUSED void finish_job(struct writer_job *job, int status, enum storage_outcome outcome,
			      enum ingest_reason reason)
{
	struct writer_waker *waker = job->waker;

	job->status = status;
	job->outcome = outcome;
	job->reason = reason;
	job->done(job);
	if (waker)
		waker->wake(waker->ctx);
}

static UNUSED enum storage_outcome outcome_of(const struct writer_job *job)
{
	switch (job->delivery.judged->verdict) {
	case INGEST_STORE:
		return STORAGE_STORED;
	case INGEST_QUARANTINE:
		return STORAGE_QUARANTINED;
	case INGEST_FILTERED:
		return STORAGE_FILTERED;
	case INGEST_REJECT:
		return STORAGE_REJECTED;
	}
	return STORAGE_STORED;
}

static int fake_submit(void *ctx, struct writer_job *job)
{
	struct world *w = ctx;
	enum writer_mood mood;

	(void)pthread_mutex_lock(&w->lock);
	mood = w->mood;
	w->n_submitted++;
	if (mood == HOLD)
		w->held[w->n_held++] = job;
	(void)pthread_cond_broadcast(&w->changed);
	(void)pthread_mutex_unlock(&w->lock);
	if (mood == STORE_AT_ONCE)
		finish_job(job, 0, outcome_of(job), job->delivery.judged->reason);
	return mood == REFUSE ? -EAGAIN : 0;
}

static void fake_count_secret(void *ctx, const char *source, unsigned int position,
			      const char *fingerprint, int64_t now_unix_ms)
{
	struct world *w = ctx;

	(void)pthread_mutex_lock(&w->lock);
	w->n_verified++;
	(void)pthread_mutex_unlock(&w->lock);
}

static int64_t fake_horizon(void *ctx)
{
	return 0;
}

/* Waits until the writer holds n jobs; gives the last. */
static UNUSED struct writer_job *wait_for_jobs(struct world *w, size_t n)
{
	struct timespec until;
	struct writer_job *job;
	int r = 0;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	(void)pthread_mutex_lock(&w->lock);
	while (w->n_held < n && r == 0)
		r = pthread_cond_timedwait(&w->changed, &w->lock, &until);
	job = w->n_held >= n ? w->held[n - 1] : NULL;
	(void)pthread_mutex_unlock(&w->lock);
	assert_non_null(job);
	return job;
}

/* Ends what is still held, so that the server can stop. */
static void let_go(struct world *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->mood = STORE_AT_ONCE;
	for (size_t i = 0; i < w->n_held; i++) {
		if (w->held[i])
			finish_job(w->held[i], -ESHUTDOWN, STORAGE_STORED, INGEST_REASON_NONE);
	}
	w->n_held = 0;
	(void)pthread_mutex_unlock(&w->lock);
}

/* What became of the n-th job (from 1). */
static UNUSED void decide(struct world *w, size_t n, int status, enum storage_outcome outcome,
			  enum ingest_reason reason)
{
	struct writer_job *job = wait_for_jobs(w, n);

	(void)pthread_mutex_lock(&w->lock);
	w->held[n - 1] = NULL;
	(void)pthread_mutex_unlock(&w->lock);
	finish_job(job, status, outcome, reason);
}

/* --- the server --- */

static void write_text(const char *path, const char *text)
{
	CLEANUP_FILE FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(chmod(path, 0600), 0);
}

static struct config *make_config(struct world *w, const char *more)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	char text[2048];

	(void)snprintf(text, sizeof(text),
		       "[server]\nlisten = 127.0.0.1:0\n[admin]\nlisten =\n[store]\npath = %s/db\n"
		       "[source e2b]\npath = /hook\nsecret_file = %s\nmax_body = 64KiB\n%s",
		       w->directory, w->secret_path, more);
	if (config_load_text("test.ini", text, strlen(text), CONFIG_SECRETS_REQUIRED, &config,
			     &report) != 0)
		fail_msg("%s", report.n ? report.items[0].text : "no config");
	return config;
}

/* A world that has not begun to listen: the configuration may still be bent. */
static UNUSED int open_world(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
	(void)snprintf(w->directory, sizeof(w->directory), "/tmp/hookd-test-XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	(void)snprintf(w->secret_path, sizeof(w->secret_path), "%s/secret", w->directory);
	write_text(w->secret_path, SECRET "\n");
	assert_int_equal(signature_keyring_new(SIGNATURE_E2B, SECRET, strlen(SECRET), &w->keyring),
			 0);
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_cond_init(&w->changed, NULL);
	w->config = make_config(w, "");
	*state = w;
	return 0;
}

static UNUSED void start(struct world *w)
{
	CLEANUP(listen_finish) struct listen_set set = { 0 };
	const struct listen_options listen_options = { .unix_mode = 0660, .fd_name = "hook" };
	const struct hook_server_options options = {
		.config = w->config,
		.sink = { fake_submit, fake_count_secret, fake_horizon, w },
	};
	char error[LISTEN_ERROR_MAX];

	assert_int_equal(listen_open(&set, &w->config->server.listen[0], &listen_options, error),
			 0);
	w->port = (uint16_t)strtoul(strrchr(set.items[0].text, ':') + 1, NULL, 10);
	assert_int_equal(hook_server_new(&options, &set, &w->server), 0);
	assert_int_equal(set.n, 0);
	assert_int_equal(hook_server_start(w->server), 0);
}

static UNUSED void stop(struct world *w)
{
	if (!w->server || w->stopped)
		return;
	w->stopped = true;
	hook_server_drain(w->server);
	let_go(w);
	hook_server_stop(w->server);
}

static UNUSED int close_world(void **state)
{
	struct world *w = *state;

	stop(w);
	hook_server_free(w->server);
	config_unref(w->config);
	signature_keyring_free(w->keyring);
	(void)unlink(w->secret_path);
	(void)rmdir(w->directory);
	(void)pthread_cond_destroy(&w->changed);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
	return 0;
}

/* --- the client --- */

static UNUSED int dial(const struct world *w)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(w->port) };
	struct timeval patience = { .tv_sec = PATIENCE_MS / 1000 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

/* False if the server has ended the connection. */
static UNUSED bool try_say(int fd, const char *text)
{
	return send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

static UNUSED void say(int fd, const char *text)
{
	assert_true(try_say(fd, text));
}

static UNUSED void sign(const struct world *w, const char *body,
			char ret[static SIGNATURE_TEXT_MAX])
{
	const struct signature_input input = { .body = { body, strlen(body) } };

	assert_int_equal(signature_sign(w->keyring, 1, &input, ret), 0);
}

/* A signed delivery; `headers` are further lines. False as `try_say`. */
static UNUSED bool try_post(const struct world *w, int fd, const char *body, const char *headers)
{
	char signature[SIGNATURE_TEXT_MAX], head[1024];

	sign(w, body, signature);
	(void)snprintf(head, sizeof(head),
		       "POST /hook HTTP/1.1\r\nHost: test\r\ne2b-signature: %s\r\n"
		       "Content-Length: %zu\r\n%s\r\n",
		       signature, strlen(body), headers);
	return try_say(fd, head) && try_say(fd, body);
}

static UNUSED void post(const struct world *w, int fd, const char *body, const char *headers)
{
	assert_true(try_post(w, fd, body, headers));
}

struct answer {
	int status; /* 0: the connection ended first */
	char text[4096]; /* headers and body */
};

/* Reads one answer, no byte further. */
static UNUSED struct answer hear(int fd)
{
	struct answer a = { 0 };
	size_t len = 0, want = 0;
	const char *length;

	while (len < sizeof(a.text) - 1 && (want == 0 || len < want)) {
		ssize_t n = recv(fd, a.text + len, want ? want - len : 1, 0);

		if (n <= 0)
			break;
		len += (size_t)n;
		if (want == 0 && len >= 4 && memcmp(a.text + len - 4, "\r\n\r\n", 4) == 0) {
			length = strstr(a.text, "Content-Length: ");
			want = len + (length ? strtoul(length + 16, NULL, 10) : 0);
		}
	}
	if (strncmp(a.text, "HTTP/1.1 ", 9) == 0)
		a.status = (int)strtol(a.text + 9, NULL, 10);
	return a;
}

static UNUSED const char *body_of(const struct answer *a)
{
	const char *end = strstr(a->text, "\r\n\r\n");

	return end ? end + 4 : "";
}

/* True if the server ends the connection without another byte. */
static UNUSED bool ends(int fd)
{
	char byte;

	return recv(fd, &byte, 1, 0) == 0;
}

/* Anything to read right now? */
static UNUSED bool is_silent(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

/* Until every loop has come round: what it meant to send by now is sent. */
static UNUSED void let_loops_come_round(int fd)
{
	for (int i = 0; i < 50; i++) {
		say(fd, "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
		assert_int_equal(hear(fd).status, 200);
	}
}
