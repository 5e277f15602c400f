/* The ground everything stands on: attributes, cleanup helpers, small arithmetic. Header only.
 *
 * Results, everywhere in this tree: 0 is success; negative is an errno value, unexpected, passed up
 * untouched; positive is an outcome that the called module names and its caller handles.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define UNUSED __attribute__((unused))

/* A local that cleans itself up: CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096); */
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define CLEANUP_FREE CLEANUP(base_free_pointer)
#define CLEANUP_CLOSE CLEANUP(base_close_fd)
#define CLEANUP_FILE CLEANUP(base_close_file)

static inline void base_free_pointer(void *p)
{
	free(*(void **)p);
}

static inline void base_close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static inline void base_close_file(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}

static inline int64_t base_min_i64(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static inline int64_t base_max_i64(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static inline size_t base_max_size(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* FNV-1a, for tables in memory: not for what strangers could choose to collide. */
#define BASE_HASH_BEGIN UINT64_C(0xcbf29ce484222325)

static inline uint64_t base_hash(uint64_t h, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static inline size_t base_min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* A piece of text or bytes that somebody else owns; s == NULL means "absent" (not "empty"). */
struct span {
	const char *s;
	size_t len;
};

#define SPAN_ABSENT ((struct span) { NULL, 0 })
#define SPAN_LITERAL(text) ((struct span) { (text), sizeof(text) - 1 })

static inline bool span_is(struct span a, struct span b)
{
	return a.s && b.s && a.len == b.len && __builtin_memcmp(a.s, b.s, a.len) == 0;
}
