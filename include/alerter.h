/* The alerter: brings what waits in the outbox to its targets.
 *
 * One thread takes what is due (as a task of the writer, so it is durable before it leaves), and
 * lends each notification to a thread of its target: one in flight a target, so that a dead one
 * delays no other, and notifications of a rule arrive in order. What came of it goes back to the
 * writer: sent; or again after a growing pause; or given up, after 24 h or where the target
 * refused. Neither intake nor the writer ever waits for it.
 */
#pragma once

#include "base.h"

struct alerter;
struct config;
struct writer;

/* The writer runs, and goes on running until alerter_free. Signals that others wait for must be
 * blocked by the caller. */
MUST_CHECK int alerter_new(struct writer *writer, const struct config *config,
			   struct alerter **ret);
/* Targets from now on; keeps a reference. Any thread. */
void alerter_set_config(struct alerter *a, const struct config *config);
/* Looks now: something was put into the outbox. Any thread. */
void alerter_wake(struct alerter *a);
/* Ends. What is on its way has a second to be answered, then is cut: it is sent again after the
 * next start. NULL is fine. */
void alerter_free(struct alerter *a);
