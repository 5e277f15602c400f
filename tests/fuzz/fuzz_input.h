/* What the targets share that make something of their bytes: a reader that never ends (behind the
 * last byte come zeroes), so that each input means something.
 */
#pragma once

#include "base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
	const uint8_t *at;
	size_t len;
};

/* As assert, but never left out: what it checks may be a call that must be made. */
#define check(sound)                                                                               \
	do {                                                                                       \
		if (!(sound))                                                                      \
			fuzz_fail(__FILE__, __LINE__, #sound);                                     \
	} while (0)

static UNUSED __attribute__((noreturn)) void fuzz_fail(const char *file, int line, const char *what)
{
	(void)fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	abort();
}

static UNUSED uint8_t fuzz_byte(struct fuzz_input *in)
{
	if (in->len == 0)
		return 0;
	in->len--;
	return *in->at++;
}

/* Little-endian, so that small ones are few bytes that are not zero. */
static UNUSED uint64_t fuzz_number(struct fuzz_input *in, unsigned int n_bytes)
{
	uint64_t value = 0;
	for (unsigned int i = 0; i < n_bytes; i++)
		value |= (uint64_t)fuzz_byte(in) << (8 * i);
	return value;
}
