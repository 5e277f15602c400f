/* Is the daemon ready to take deliveries, and if not, why? One judgement for /readyz, the metrics
 * and the service manager's status line.
 *
 * Judged from what the writer and the hook listener publish anyway: asking costs a lock that is
 * never held during a call into the store, so the answer comes also while the disk hangs.
 */
#pragma once

#include "base.h"
#include "buffer.h"
#include "writer.h"

#define ADMIN_HEALTH_DISK_MIN (INT64_C(64) * 1024 * 1024) /* bytes free for the store */
#define ADMIN_HEALTH_ROUND_MAX_MS 10000 /* the writer comes round every second */
#define ADMIN_HEALTH_FOLD_MAX_MS 60000 /* a ledger behind that does not move */

struct hook_server;

struct admin_health {
	struct writer_health writer;
	size_t waiting; /* deliveries that wait for their commit */
	size_t queue_limit;
	bool stopping;
	int64_t now_mono_ms;
};

/* Names are stable: they appear in metrics and alert rules. */
enum admin_reason {
	ADMIN_COMMIT_FAILED,
	ADMIN_WRITER_STUCK,
	ADMIN_QUEUE_FULL,
	ADMIN_DISK_FULL,
	ADMIN_LEDGER_STUCK,
	ADMIN_STORE_LOST,
	ADMIN_STORE_DAMAGED,
	ADMIN_STOPPING,
};
#define ADMIN_N_REASONS (ADMIN_STOPPING + 1)

/* Figures of now. `hooks` may be NULL. Any thread. */
void admin_health_read(struct writer *w, const struct hook_server *hooks, size_t queue_limit,
		       bool stopping, struct admin_health *ret);
/* Pure. */
bool admin_health_has(const struct admin_health *h, enum admin_reason reason);
bool admin_health_is_ready(const struct admin_health *h);
const char *admin_health_name(enum admin_reason reason); /* "commit_failed" */
/* `ready`, or `not ready` and a line for each reason: its name, then what an operator needs. */
MUST_CHECK int admin_health_text(const struct admin_health *h, struct buffer *out);
