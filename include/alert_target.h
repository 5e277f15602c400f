/* Delivers one notification to one target: renders it, sends it, and says what came of it.
 *
 *   webhook       the JSON of docs/alert-webhook.md, signed as Standard Webhooks
 *   slack         an incoming webhook
 *   alertmanager  POST /api/v2/alerts
 *   command       the JSON of a webhook on the standard input of a program
 *
 * Stateless: when to try again, and for how long, is the caller's.
 */
#pragma once

#include "alert_message.h"

#include <stdatomic.h>

#define ALERT_TARGET_TIMEOUT_MS 5000 /* where the target has none */
#define ALERT_TARGET_RETRY_AFTER_MAX_MS INT64_C(3600000)

/* Sends and waits, at most target->timeout_ms (and, for a command that does not go, two seconds).
 * `stop` (may be NULL) set from elsewhere makes it return NOTIFY_TEMPORARY within 200 ms.
 * NOTIFY_TEMPORARY: worth another try (no answer, any that is not below, redirects, which are not
 * followed, a command that failed); NOTIFY_PERMANENT: the target will not take this one (400, 413,
 * 422; a command says so). Any thread. */
void alert_target_send(const struct notify_target *target, const struct alert_message *message,
		       const atomic_bool *stop, struct notify_result *ret);
