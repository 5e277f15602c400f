/* A growing byte buffer that is born with its limit. Always NUL-terminated behind its length. */
#pragma once

#include "base.h"

struct buffer {
	char *data; /* NULL until the first byte; else data[len] == 0 */
	size_t len;
	size_t size; /* allocated */
	size_t max; /* len never exceeds this */
};

#define BUFFER_INIT(limit)                                                                         \
	{                                                                                          \
		.data = NULL, .len = 0, .size = 0, .max = (limit)                                  \
	}

void buffer_init(struct buffer *b, size_t max);
void buffer_finish(struct buffer *b); /* frees; safe on zeroed and finished buffers */
void buffer_clear(struct buffer *b); /* keeps the memory */

/* -ENOBUFS: would exceed max; -ENOMEM; buffer unchanged in either case. `bytes` must not lie in the
 * buffer itself. appendf also passes on what vsnprintf refuses. */
MUST_CHECK int buffer_append(struct buffer *b, const void *bytes, size_t len);
MUST_CHECK int buffer_append_text(struct buffer *b, const char *text);
MUST_CHECK int buffer_appendf(struct buffer *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Moves the memory out (caller frees); the buffer is empty afterwards. Never NULL except for
 * -ENOMEM. */
MUST_CHECK char *buffer_steal(struct buffer *b);
