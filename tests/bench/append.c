/* The ideal durable receiver: the daemon's own HTTP loop, verification and judging, and behind them
 * a writer that appends all waiting bodies to a file and calls fdatasync once. No identity, no
 * index, no ledger: what it keeps could not be asked for anything. Nothing durable can be much
 * faster on the same disk, so the daemon is measured against it.
 *
 * Usage: append -c FILE. The daemon's configuration; the file is the store's path with `.log`. It
 * says where it listens as the daemon does, ends on SIGTERM and then says how large batches were.
 */
#include "clock.h"
#include "config.h"
#include "hook_server.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>

#define PIECES_MAX IOV_MAX
#define DRAIN_MS 5000

struct appender {
	int fd;
	pthread_t thread;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t wake;
	struct writer_job *first, **last;
	bool stopping;

	/* its thread only, until it ended */
	int64_t n_batches, n_bodies, n_bytes;
};

static int complain(const char *what, int error)
{
	(void)fprintf(stderr, "append: %s: %s\n", what, strerror(-error));
	return error;
}

/* What the server asks of a writer ------------------------------------------ */

static int submit(void *ctx, struct writer_job *job)
{
	struct appender *a = ctx;
	job->next = NULL;
	(void)pthread_mutex_lock(&a->lock);
	bool was_empty = !a->first;
	*a->last = job;
	a->last = &job->next;
	if (was_empty)
		(void)pthread_cond_signal(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
	return 0;
}

static void count_secret(void *ctx, const char *source, unsigned int position,
			 const char *fingerprint, int64_t now_unix_ms)
{
}

static int64_t horizon(void *ctx)
{
	return 0;
}

/* The writer ---------------------------------------------------------------- */

static struct writer_job *take_all(struct appender *a)
{
	(void)pthread_mutex_lock(&a->lock);
	while (!a->first && !a->stopping)
		(void)pthread_cond_wait(&a->wake, &a->lock);
	struct writer_job *first = a->first;
	a->first = NULL;
	a->last = &a->first;
	(void)pthread_mutex_unlock(&a->lock);
	return first;
}

static int write_pieces(struct appender *a, struct iovec *pieces, int n, ssize_t len)
{
	ssize_t written = n > 0 ? writev(a->fd, pieces, n) : 0;
	a->n_bytes += written;
	if (written == len)
		return 0;
	return written < 0 ? -errno : -ENOSPC;
}

static int write_all(struct appender *a, struct writer_job *first)
{
	static struct iovec pieces[PIECES_MAX];
	ssize_t len = 0;
	int n = 0;
	for (struct writer_job *job = first; job; job = job->next) {
		struct span body = job->delivery.body;
		a->n_bodies++;
		pieces[n++] = (struct iovec) { (void *)(uintptr_t)body.s, body.len };
		len += (ssize_t)body.len;
		if (n < PIECES_MAX)
			continue;
		int r = write_pieces(a, pieces, n, len);
		if (r < 0)
			return r;
		n = 0;
		len = 0;
	}
	int r = write_pieces(a, pieces, n, len);
	if (r == 0 && fdatasync(a->fd) < 0)
		r = -errno;
	a->n_batches++;
	return r;
}

static enum storage_outcome outcome_of(const struct writer_job *job)
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
	return STORAGE_REJECTED;
}

/* As the daemon's writer does: done() gives a job away, so wakers are listed first. */
static void answer(struct writer_job *first, int status)
{
	struct writer_waker *wakers = NULL;
	for (struct writer_job *job = first; job; job = job->next) {
		struct writer_waker *waker = job->waker;
		if (!waker || waker->is_listed)
			continue;
		waker->is_listed = true;
		waker->next = wakers;
		wakers = waker;
	}
	for (struct writer_job *job = first, *next; job; job = next) {
		next = job->next;
		job->status = status;
		job->outcome = outcome_of(job);
		job->reason = job->delivery.judged->reason;
		job->done(job);
	}
	for (struct writer_waker *waker = wakers, *next; waker; waker = next) {
		next = waker->next;
		waker->is_listed = false;
		waker->wake(waker->ctx);
	}
}

static void *run(void *ctx)
{
	struct appender *a = ctx;
	struct writer_job *first;
	while ((first = take_all(a))) {
		int r = write_all(a, first);
		if (r < 0)
			(void)complain("writing", r);
		answer(first, r);
	}
	return NULL;
}

static int begin_appender(struct appender *a, const char *store)
{
	char path[PATH_MAX];
	(void)snprintf(path, sizeof(path), "%s.log", store);
	a->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (a->fd < 0)
		return complain(path, -errno);
	a->last = &a->first;
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)pthread_cond_init(&a->wake, NULL);
	int r = pthread_create(&a->thread, NULL, run, a);
	return r ? complain("the writer's thread", -r) : 0;
}

static void end_appender(struct appender *a)
{
	(void)pthread_mutex_lock(&a->lock);
	a->stopping = true;
	(void)pthread_cond_signal(&a->wake);
	(void)pthread_mutex_unlock(&a->lock);
	(void)pthread_join(a->thread, NULL);
	(void)close(a->fd);
}

/* The server ---------------------------------------------------------------- */

static int load_config(const char *path, struct config **ret)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	int r = config_load(path, CONFIG_SECRETS_REQUIRED, ret, &report);
	if (r == 0)
		return 0;
	return complain(r > 0 && report.n ? report.items[0].text : path, r < 0 ? r : -EINVAL);
}

static int start_server(struct config *config, struct appender *a, struct hook_server **ret)
{
	CLEANUP(listen_finish) struct listen_set set = { 0 };
	const struct listen_options listen_options = { .fd_name = "hook" };
	const struct hook_server_options options = {
		.config = config,
		.sink = { submit, count_secret, horizon, a },
	};
	char error[LISTEN_ERROR_MAX] = "";
	char text[LISTEN_TEXT_MAX];
	int r = listen_open(&set, &config->server.listen[0], &listen_options, error);
	if (r < 0)
		return complain(error, r);
	memcpy(text, set.items[0].text, sizeof(text));
	r = hook_server_new(&options, &set, ret);
	if (r == 0)
		r = hook_server_start(*ret);
	if (r < 0)
		return complain("the server", r);
	(void)fprintf(stderr, "listening address=%s\n", text);
	return 0;
}

static void drain(struct hook_server *server)
{
	const struct timespec look = { .tv_nsec = 10000000 };
	int64_t until_ms = clock_mono_ms() + DRAIN_MS;
	hook_server_drain(server);
	while (hook_server_connections(server) > 0 && clock_mono_ms() < until_ms)
		(void)nanosleep(&look, NULL);
}

int main(int argc, char **argv)
{
	struct appender a = { .fd = -1 };
	struct config *config = NULL;
	struct hook_server *server = NULL;
	sigset_t set;
	int number;
	if (argc != 3 || strcmp(argv[1], "-c") != 0) {
		(void)fprintf(stderr, "Usage: append -c FILE\n");
		return 2;
	}
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	log_configure(LOG_LEVEL_WARNING, LOG_FORMAT_TEXT);
	if (load_config(argv[2], &config) < 0 || begin_appender(&a, config->store.path) < 0 ||
	    start_server(config, &a, &server) < 0)
		return 1;
	(void)sigwait(&set, &number);
	drain(server);
	end_appender(&a);
	hook_server_stop(server);
	hook_server_free(server);
	config_unref(config);
	(void)fprintf(stderr, "batches=%lld bodies=%lld bytes=%lld\n", (long long)a.n_batches,
		      (long long)a.n_bodies, (long long)a.n_bytes);
	return 0;
}
