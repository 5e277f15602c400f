/* The control socket: how e2b-hookctl reaches the running daemon, `<store path>.control`.
 *
 *   request   COMMAND [key=value …] LF        at most 4 KiB, within 5 s; printable ASCII
 *   answer    zero or more `progress TEXT` LF, then
 *             `ok JSON-OBJECT` LF  or  `error TEXT` LF; then the daemon closes
 *
 *   status                                    readiness, health of the writer and the store
 *   rebuild                                   the ledger anew; answers when it is done
 *   prune                                     retention now; answers when it is done
 *   requeue [source=NAME] [reason=REASON] [what=quarantine|rejections|skipped|all]
 *   alert-test name=NAME                      a test notification of a rule, or to a target
 *   alert-ack name=RULE                       firing alerts are not repeated until they resolve
 *   alert-retry [name=TARGET]                 sends at once what waits or was given up
 *
 * While a command works, a progress line comes at least every second. Rebuild and prune go on when
 * the client leaves; requeue ends after the slice at hand (nothing is half done). A few threads of
 * its own serve one connection each: neither the writer nor intake ever waits for a client.
 *
 * The socket belongs to the daemon's user, mode 0600, and only that user and root are served
 * (SO_PEERCRED). The path may be longer than a socket address. Who serves holds the store's lock:
 * a socket that is there already is stale and replaced.
 */
#pragma once

#include "base.h"
#include "requeue.h"

#define CONTROL_SUFFIX ".control"
#define CONTROL_REQUEST_MAX 4096 /* with its LF */
#define CONTROL_ANSWER_MAX 65536
#define CONTROL_TEXT_MAX 512 /* of an error or progress text */
#define CONTROL_SOURCE_MAX 64

enum control_command {
	CONTROL_STATUS,
	CONTROL_REBUILD,
	CONTROL_PRUNE,
	CONTROL_REQUEUE,
	CONTROL_ALERT_TEST,
	CONTROL_ALERT_ACK,
	CONTROL_ALERT_RETRY,
};

struct control_request {
	enum control_command command;
	/* requeue */
	unsigned int what; /* REQUEUE_… */
	char source[CONTROL_SOURCE_MAX + 1]; /* "": all */
	enum ingest_reason reason; /* NONE: all */
	/* alert-… */
	char name[CONTROL_SOURCE_MAX + 1]; /* "": none given */
};

/* Outcomes of the calls below. */
enum control_outcome {
	CONTROL_BAD_REQUEST = 1, /* the text says what is wrong */
	CONTROL_REFUSED, /* the daemon answered `error` */
	CONTROL_NO_DAEMON, /* nobody serves the socket */
};

/* Reads a request line without its LF. 0 or CONTROL_BAD_REQUEST with a sentence in `error`, which
 * never repeats input. Pure. */
MUST_CHECK int control_parse(const char *line, size_t len, struct control_request *ret,
			     char error[static CONTROL_TEXT_MAX]);
const char *control_command_name(enum control_command command);

/* The daemon's side -------------------------------------------------------- */

struct config;
struct control;
struct hook_server;
struct writer;

struct control_options {
	const char *store_path;
	struct writer *writer; /* running, and so until control_free */
	const struct config *config; /* replaced by control_set_config */
	int64_t patience_ms; /* for a client to speak or read; 0: 5 s */
	const struct hook_server *hooks; /* as the writer; NULL: none */
};

/* Makes the socket and starts to serve. On failure `error` says what to do; -EEXIST: the path is no
 * socket. Signals that others wait for must be blocked by the caller: the threads inherit that. */
MUST_CHECK int control_new(const struct control_options *options, struct control **ret,
			   char error[static CONTROL_TEXT_MAX]);
/* What requeue judges by from now on; keeps a reference. `restart_needed`: the settings of it that
 * wait for a restart, for `status`; "": none. Any thread. */
void control_set_config(struct control *c, const struct config *config, const char *restart_needed);
/* Cuts the connections (a requeue after the slice at hand), ends the threads, removes the socket if
 * it is still ours. To be called before the writer is stopped. NULL is fine. */
void control_free(struct control *c);

/* The tool's side ----------------------------------------------------------- */

typedef void (*control_progress_fn)(void *ctx, const char *text);

/* Sends a request line (without LF) to the daemon that has this store open and waits for the end.
 * 0: *ret_answer is the JSON object; CONTROL_REFUSED: the error text; CONTROL_NO_DAEMON: NULL.
 * The caller frees it. Else negative errno: -EACCES: of another user; -EPROTO: no proper answer;
 * -ECONNRESET: the daemon went away; -ETIMEDOUT: it was silent for 30 s. `progress` may be NULL. */
MUST_CHECK int control_call(const char *store_path, const char *request,
			    control_progress_fn progress, void *ctx, char **ret_answer);
