/* The service manager's side of the service: signs of life and one line on how things are.
 *
 * A sign of life is earned, never given: each one stands for a probe that the writer's thread has
 * carried out, a durable commit of its own, and for hook loops that come round. A disk that hangs,
 * a writer or a loop that is stuck, or a main thread that is: any of them ends the signs, and the
 * manager restarts us. A disk that is full or refuses with an error is not stuck: then deliveries
 * are answered 503 and a restart would only take that answer away.
 *
 * Main thread, all of it. Without a service manager nothing happens here.
 */
#pragma once

#include "admin_health.h"
#include "notify.h"

#include <stdatomic.h>

struct service_watch {
	struct notify notify;
	struct writer *writer;
	struct writer_task probe;
	atomic_bool probe_is_out; /* the writer has it */
	bool owes_sign; /* a probe was sent, its sign of life was not */
	int64_t probed_ms, status_ms;
	char status[NOTIFY_TEXT_MAX]; /* as last told */
};

/* Reads the environment; a socket that cannot be used is told in the log and does not count. */
void service_watch_init(struct service_watch *w);
/* Once the writer runs; `w` must stay where it is until the writer is stopped. */
void service_watch_begin(struct service_watch *w, struct writer *writer);
void service_watch_finish(struct service_watch *w);

void service_watch_ready(struct service_watch *w, const struct admin_health *h);
void service_watch_reloading(struct service_watch *w);
void service_watch_stopping(struct service_watch *w, size_t connections);
/* To be called when it was said to, at the latest; returns in how many ms again. */
int64_t service_watch_tick(struct service_watch *w, const struct admin_health *h,
			   int64_t stalled_ms);
