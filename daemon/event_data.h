/* event_data: what it says about the run, the sandbox and the execution. Internal to event.c. Pure.
 */
#pragma once

#include "event.h"

/* Reads what the event's kind has in event_data (NULL: absent) into the event, whose kind is known.
 * `kill_reason` is the one of the envelope, or NULL. 0, a problem with detail, or -ENOMEM. */
MUST_CHECK int event_data_read(struct event *event, const struct json_value *data,
			       const struct json_value *kill_reason,
			       char detail[static EVENT_DETAIL_MAX]);
