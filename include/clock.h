/* Time: reading clocks, RFC 3339, durations.
 *
 * Instants are integers since 1970-01-01T00:00:00Z; the unit is in the name. The calendar is the
 * real one (30 February is refused); leap second :60 is refused, as Go's time package does. No
 * locale, no libc parsing.
 */
#pragma once

#include "base.h"

#define CLOCK_NS_PER_S INT64_C(1000000000)
#define CLOCK_NS_PER_MS INT64_C(1000000)
#define CLOCK_TEXT_MAX 32

int64_t clock_unix_ms(void);
int64_t clock_mono_ms(void);
int64_t clock_mono_us(void);

/* Parses RFC 3339 (date-time, 0-9 fractional digits, `Z` or numeric offset, T and Z in either case)
 * to nanoseconds. The result must lie in [1970, 2262): earlier or later is -ERANGE; anything else
 * wrong -EINVAL. */
MUST_CHECK int clock_parse_rfc3339(const char *s, size_t len, int64_t *ret_unix_ns);

/* `2026-11-22T10:00:00.123Z`. What lies outside the years 0000-9999 is shown as their first or last
 * millisecond. Returns buf. */
char *clock_format_ms(int64_t unix_ms, char buf[static CLOCK_TEXT_MAX]);

/* `15s 10m 24h 90d 250ms`, a whole number and a unit, or a bare `0`. -EINVAL, -ERANGE (over 100
 * years). */
MUST_CHECK int clock_parse_duration(const char *s, int64_t *ret_ms);

/* `YYYY-MM-DD` (UTC midnight) to unix seconds, years 0000-9999: negative before 1970. -EINVAL. */
MUST_CHECK int clock_parse_date(const char *s, int64_t *ret_unix_s);
