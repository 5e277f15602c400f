/* Runs one program an operator configured, with a text on its standard input.
 *
 * No shell; one argument (its own path); an environment of PATH and LANG only; folder `/`; a
 * process group of its own; standard output and error go to us, bounded, nothing else of ours is
 * inherited. What it leaves running in its group when it ends, or when its time is up, is ended
 * with it. Safe in a process with threads (posix_spawn). Needs SIGCHLD not ignored and nobody else
 * to reap. Any thread.
 */
#pragma once

#include "base.h"

#include <stdatomic.h>

#define COMMAND_OUTPUT_MAX 512 /* kept of what it prints; the rest is read and dropped */

enum command_outcome {
	COMMAND_NOT_RUN = 1, /* `error` is why: an errno */
	COMMAND_TIMEOUT, /* ended by SIGTERM or, a second later, SIGKILL */
	COMMAND_STOPPED, /* *stop was set: ended, with 100 ms to comply */
	COMMAND_SIGNALLED, /* ended by `code`, not by us */
};

struct command_result {
	int code; /* exit code (outcome 0), or signal */
	int error;
	char output[COMMAND_OUTPUT_MAX]; /* the beginning of what it printed, as it came */
	size_t output_len;
};

/* 0: it ran to its end; or an outcome; or a negative errno when we lack what it takes. `path` is
 * absolute. */
MUST_CHECK int command_run(const char *path, struct span input, int64_t timeout_ms,
			   const atomic_bool *stop, struct command_result *ret);
