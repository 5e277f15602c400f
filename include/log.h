/* Log lines on standard error: a short message and key=value fields.
 *
 * Text for people (`2026-11-22T10:00:00.123Z warning message key=value`), `<N>` priorities instead
 * of the time where journald listens, or one JSON object a line. Values are escaped: no line can be
 * forged from input, and no line exceeds LOG_LINE_MAX. Never pass a secret, a signature or a
 * payload. Thread-safe; one write(2) a line.
 */
#pragma once

#include "base.h"

#define LOG_LINE_MAX 2048

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG
};
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* One field: text (absent when NULL: the field is left out) or a number. */
struct log_field {
	const char *key;
	const char *text;
	int64_t number;
	bool is_number;
};

#define LOG_TEXT(k, v)                                                                             \
	{                                                                                          \
		.key = (k), .text = (v)                                                            \
	}
#define LOG_NUM(k, v)                                                                              \
	{                                                                                          \
		.key = (k), .number = (int64_t)(v), .is_number = true                              \
	}

/* Sets level and format; any thread, at start or on reload. Journald listens if JOURNAL_STREAM
 * names what standard error is. Before the first call: info, text. */
void log_configure(enum log_level level, enum log_format format);

/* Would a line of this level be written? For lines that cost something to make. */
bool log_level_is_on(enum log_level level);

/* Writes one line if `level` is enabled; errno is kept. `fields` may be NULL when n is 0. Control
 * characters are escaped in the message too, but only a field tells input apart from our words. A
 * line cut at LOG_LINE_MAX ends in ` ...` (JSON: `"truncated":true`). */
void log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n);

#define log_line(level, message, ...)                                                              \
	do {                                                                                       \
		const struct log_field log_fields_[] = { __VA_ARGS__ };                            \
		log_write((level), (message), log_fields_, ARRAY_SIZE(log_fields_));               \
	} while (0)

/* Plain sentences without fields (log_line wants one at least). */
void log_say(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* A limiter for a line that input can provoke: allows `burst` lines per 10 s, then tells once how
 * many were held back. Zero-initialise, set burst. Thread-safe. */
struct log_limit {
	int64_t window_start_ms;
	unsigned int used;
	unsigned int held_back;
	unsigned int burst;
};

/* True if the line may be written now; `*ret_held_back` is how many were suppressed before, told
 * once (0 when false). NULL: not told, kept for the next who asks. */
bool log_limit_allows(struct log_limit *limit, unsigned int *ret_held_back);

bool log_level_from_name(const char *name, enum log_level *ret_level);
