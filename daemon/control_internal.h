/* What the parts of the control socket share. */
#pragma once

#include "buffer.h"
#include "control.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/types.h>

#define CONTROL_THREADS 3

struct control {
	struct writer *writer;
	const struct hook_server *hooks;
	size_t queue_limit;
	int64_t patience_ms, started_mono_ms;
	int listen_fd, stop_fd, dir_fd;
	char name[256]; /* of the socket in its directory */
	bool is_bound;
	dev_t dev;
	ino_t ino;
	pthread_t threads[CONTROL_THREADS];
	size_t n_threads;
	atomic_bool is_requeuing;

	pthread_mutex_t lock;
	const struct config *config; /* under the lock, with the next */
	char restart_needed[CONTROL_TEXT_MAX];
};

/* One client. */
struct control_talk {
	struct control *c;
	int fd;
	struct ucred peer;
};

/* 0: ready; -ETIMEDOUT; -ECONNRESET: the client is gone; -ESHUTDOWN. Without events: just waits,
 * for one of the others. */
MUST_CHECK int control_wait(const struct control_talk *t, short events, int64_t until_mono_ms);
/* A line to the client, cut at CONTROL_TEXT_MAX. */
MUST_CHECK int control_say(struct control_talk *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
MUST_CHECK int control_say_json(struct control_talk *t, const struct buffer *json); /* `ok JSON` */
/* The configuration in force, for the caller to unref. */
const struct config *control_config(struct control *c);
/* The alert-… commands. */
MUST_CHECK int control_alert_run(struct control_talk *t, const struct control_request *request);
/* Carries out a request and answers it. */
MUST_CHECK int control_request_run(struct control_talk *t, const struct control_request *request);
