/* A byte buffer that grows by doubling and never past the limit it was born with.
 *
 * Invariant: data is NULL and size 0, or size > len and data[len] is NUL. A call that fails has
 * changed nothing that the owner can see. It does not wipe what it frees: secrets live elsewhere.
 */
#include "buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define BUFFER_FIRST_SIZE 64

void buffer_init(struct buffer *b, size_t max)
{
	*b = (struct buffer)BUFFER_INIT(max);
}

void buffer_finish(struct buffer *b)
{
	if (!b)
		return;
	free(b->data);
	b->data = NULL;
	b->len = 0;
	b->size = 0;
}

void buffer_clear(struct buffer *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

/* Makes room for `len` more bytes and the NUL behind them. */
static int reserve(struct buffer *b, size_t len)
{
	assert(b->len <= b->max);
	if (len > b->max - b->len || len >= SIZE_MAX - b->len)
		return -ENOBUFS;
	size_t need = b->len + len + 1;
	if (need <= b->size)
		return 0;
	size_t size = b->size > SIZE_MAX / 2 ? need : b->size * 2;
	if (size < BUFFER_FIRST_SIZE)
		size = BUFFER_FIRST_SIZE;
	if (size > b->max)
		size = b->max == SIZE_MAX ? SIZE_MAX : b->max + 1;
	if (size < need)
		size = need;
	char *data = realloc(b->data, size);
	if (!data)
		return -ENOMEM;
	data[b->len] = '\0';
	b->data = data;
	b->size = size;
	return 0;
}

int buffer_append(struct buffer *b, const void *bytes, size_t len)
{
	if (len == 0)
		return 0;
	int r = reserve(b, len);
	if (r < 0)
		return r;
	memcpy(b->data + b->len, bytes, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int buffer_append_text(struct buffer *b, const char *text)
{
	return buffer_append(b, text, strlen(text));
}

/* Measured first, printed second: printing into what room there is would spoil the text behind
 * len when it turns out too small. */
int buffer_appendf(struct buffer *b, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (n < 0)
		return -errno;
	size_t len = (size_t)n;
	int r = reserve(b, len);
	if (r < 0)
		return r;
	va_start(args, fmt);
	n = vsnprintf(b->data + b->len, len + 1, fmt, args);
	va_end(args);
	assert(n >= 0 && (size_t)n == len);
	b->len += len;
	return 0;
}

char *buffer_steal(struct buffer *b)
{
	if (!b->data && reserve(b, 0) < 0)
		return NULL;
	char *data = b->data;
	b->data = NULL;
	b->len = 0;
	b->size = 0;
	return data;
}
