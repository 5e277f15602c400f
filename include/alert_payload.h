/* What a notification looks like on the wire: one message, three forms.
 *
 * Whatever a message holds (an error text of a megabyte, control characters, bytes that are no
 * UTF-8, markup), what comes out is valid JSON in valid UTF-8, within the receiver's limits and no
 * longer than ALERT_PAYLOAD_MAX, and its text cannot pass for ours: it mentions nobody, links
 * nowhere and begins no line. Pure; any thread.
 */
#pragma once

#include "alert_message.h"
#include "buffer.h"

#define ALERT_PAYLOAD_MAX 131072 /* every byte of every text escaped as \uXXXX */

/* An alert that is not told to have ended goes out in Alertmanager this long after its latest
 * notification. Longer than a `repeat` of a day. */
#define ALERT_PAYLOAD_HOLD_MS INT64_C(90000000)
/* A summary or a test is no state; it lasts as long as Alertmanager would let it by itself. */
#define ALERT_PAYLOAD_NOTICE_MS INT64_C(300000)

/* Each appends one document to `b` or returns what buffer_append returns (then `b` may hold a part
 * of it). webhook: docs/alert-webhook.md. */
MUST_CHECK int alert_payload_webhook(const struct alert_message *message, struct buffer *b);
MUST_CHECK int alert_payload_slack(const struct alert_message *message, struct buffer *b);
MUST_CHECK int alert_payload_alertmanager(const struct alert_message *message, struct buffer *b);
/* "firing", "repeat", "resolved", "summary", "test". */
const char *alert_payload_state_name(enum alert_state state);
