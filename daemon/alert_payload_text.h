/* Text for notifications: cut, made one line, made harmless. Internal to alert_payload. Pure. */
#pragma once

#include "alert_message.h"
#include "buffer.h"

/* What a text must not do where it goes. */
enum alert_payload_text_form {
	ALERT_PAYLOAD_TEXT_LINE, /* one line of plain text */
	ALERT_PAYLOAD_TEXT_MRKDWN, /* the same, with & < > as Slack wants them */
	ALERT_PAYLOAD_TEXT_CODE, /* the same, between backticks: none of its own */
};

/* Appends `text` (NULL: nothing). Control and format characters (those that turn the direction of
 * writing too) become one blank, bytes that are no UTF-8 U+FFFD. What would make it longer than
 * `max` UTF-16 units, escapes included, is cut, with `…` as the last. */
MUST_CHECK int alert_payload_text_append(struct buffer *b, const char *text, size_t max,
					 enum alert_payload_text_form form);

/* The first `max` bytes or a little less, so that no character is split. NULL: an absent span. */
struct span alert_payload_text_cut(const char *text, size_t max);

/* 0.25 as "25 %", 12.5 dollars as "12.50 USD"; "" if not known. */
const char *alert_payload_text_value(double value, const char *unit, char buf[static 48]);
