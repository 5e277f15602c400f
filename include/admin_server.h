/* The admin listener: health, readiness and metrics, for machines that watch the daemon.
 *
 *   /healthz /livez   200 while the process answers
 *   /readyz           200, or 503 with a line for each reason (admin_health.h)
 *   /metrics          Prometheus text
 *
 * Everything but the health paths wants `Authorization: Bearer TOKEN` where a token is configured.
 * One loop of its own: neither the hook listener nor the writer ever waits for a client here, and
 * what has to be read from the store is read by a thread beside that loop, within a deadline. Main
 * thread, all of it.
 */
#pragma once

#include "base.h"
#include "config.h"
#include "listen.h"

struct admin_server;
struct hook_server;
struct writer;

struct admin_server_options {
	struct config *config; /* a reference is taken */
	struct writer *writer;
	const struct hook_server *hooks; /* NULL: none (tests) */
};

/* Takes the sockets out of `sockets` when it succeeds. */
MUST_CHECK int admin_server_new(const struct admin_server_options *options,
				struct listen_set *sockets, struct admin_server **ret);
MUST_CHECK int admin_server_start(struct admin_server *s);
/* The token, the sources: for requests that begin from now on. */
void admin_server_set_config(struct admin_server *s, struct config *config);
/* From now on /readyz says `stopping`; it is still served. */
void admin_server_begin_stop(struct admin_server *s);
/* Before the writer and the hook server go. NULL is fine. */
void admin_server_free(struct admin_server *s);
