/* The hook listener: routes deliveries to their source, collects and judges them, lends them to the
 * writer and answers what became of them.
 *
 *   begin ─ body ─ complete ─ judged ─┬─ stored, quarantined: suspended, lent ─ done ─ answered
 *                                     └─ filtered, rejected: answered, lent beside it
 *
 * Ownership: a delivery belongs to its loop's thread and has two holders, its request and, while
 * lent, the writer. done() runs on a thread of the writer's and does one thing: it posts the
 * delivery back to its loop. So everything but the lent job is touched by one thread only, and a
 * request that was answered 503 at commit_timeout, or whose sender is gone, leaves the lent memory
 * alive until the writer is done with it. Invariant: 200 stored, duplicate and quarantined are
 * answered from a done() that says so, never before.
 */
#pragma once

#include "base.h"
#include "config.h"
#include "listen.h"
#include "writer.h"

/* Bodies received or waiting, in all. */
#define HOOK_SERVER_BODY_MEMORY (INT64_C(64) * 1024 * 1024)

struct hook_server;

/* What the server needs of the writer, so that tests can stand in for it. The functions and their
 * threads are those of writer.h. */
struct hook_server_sink {
	int (*submit)(void *ctx, struct writer_job *job);
	void (*count_secret)(void *ctx, const char *source, unsigned int position,
			     const char *fingerprint, int64_t now_unix_ms);
	int64_t (*horizon)(void *ctx);
	void *ctx;
};
struct hook_server_sink hook_server_sink_of(struct writer *w);

struct hook_server_options {
	struct config *config; /* a reference is taken */
	struct hook_server_sink sink;
	size_t n_loops; /* 0: two */
};

/* Takes the sockets out of `sockets` when it succeeds. Main thread, as all below. */
MUST_CHECK int hook_server_new(const struct hook_server_options *options,
			       struct listen_set *sockets, struct hook_server **ret);
MUST_CHECK int hook_server_start(struct hook_server *s);
/* For requests that begin from now on; what config_restart_needed names stays as it was. */
void hook_server_set_config(struct hook_server *s, struct config *config);

/* Stop order: drain; wait until hook_server_connections() is 0, at most drain_timeout; stop the
 * writer, so that every lent job is done; hook_server_stop; free. */
void hook_server_drain(struct hook_server *s);
size_t hook_server_connections(const struct hook_server *s);
/* Deliveries that wait for their commit. Any thread. */
size_t hook_server_waiting(const struct hook_server *s);
/* Bytes of the bodies received or waiting. Any thread. */
size_t hook_server_body_memory(const struct hook_server *s);
int64_t hook_server_stalled_ms(const struct hook_server *s);
void hook_server_stop(struct hook_server *s);
void hook_server_free(struct hook_server *s);
