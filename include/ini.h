/* The INI reader: strict, small, no surprises.
 *
 *   [section] or [section name]      key = value        # or ; only at the start of a line
 *
 * No inline comments, quotes, escapes or continuation lines; CRLF and a UTF-8 byte order mark are
 * accepted; NUL and other control characters, invalid UTF-8 and lines over INI_LINE_MAX are errors.
 * It knows no keys: the caller does. It goes on after an error, so that all problems show at once.
 * Takes memory, prints nothing.
 */
#pragma once

#include "base.h"

#define INI_LINE_MAX 4096

struct ini_handler {
	/* A section begins. `name` is the rest after the first blank (`source e2b` -> "source",
	 * "e2b"), "" if none. */
	void (*section)(void *ctx, unsigned int line, const char *section, const char *name);
	/* One assignment, surrounding blanks removed; never called before a section, nor in a
	 * section that failed. */
	void (*entry)(void *ctx, unsigned int line, const char *key, const char *value);
	/* A line that cannot be read; the text is static. */
	void (*problem)(void *ctx, unsigned int line, const char *what);
	void *ctx;
};

/* Returns the number of problems reported. */
size_t ini_parse(const char *text, size_t len, const struct ini_handler *handler);
