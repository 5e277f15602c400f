/* Memory that runs out where a test says: for test programs in which the linker wraps the calls
 * below (`scarce` in meson.build). Counted are the allocations of the thread that began; what a
 * library allocates within itself is not reached, unless a test hands it scarce_malloc as its own
 * (OpenSSL).
 *
 *	for (long n = 1, hit = 1; hit; n++) {
 *		scarce_begin(n);
 *		r = ...;
 *		hit = scarce_end();
 */
#pragma once

#include "base.h"

#include <errno.h>
#include <string.h>

static _Thread_local long scarce_left; /* allocations up to the one that fails; 0: none does */
static _Thread_local bool scarce_is_hit;

/* The nth allocation from now fails, once. */
static inline void scarce_begin(long n)
{
	scarce_left = n;
	scarce_is_hit = false;
}

/* Whether it came to that; from here on there is enough. */
static inline bool scarce_end(void)
{
	scarce_left = 0;
	return scarce_is_hit;
}

static bool scarce_fails(void)
{
	if (scarce_left == 0 || --scarce_left > 0)
		return false;
	scarce_is_hit = true;
	errno = ENOMEM;
	return true;
}

#define SCARCE(type, name, parameters, arguments)                                                  \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return scarce_fails() ? NULL : __real_##name arguments;                            \
	}
SCARCE(void *, malloc, (size_t size), (size))
SCARCE(void *, calloc, (size_t n, size_t size), (n, size))
SCARCE(void *, realloc, (void *old, size_t size), (old, size))
SCARCE(void *, reallocarray, (void *old, size_t n, size_t size), (old, n, size))
SCARCE(char *, strdup, (const char *text), (text))
SCARCE(char *, strndup, (const char *text, size_t len), (text, len))
