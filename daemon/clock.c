/* Clocks, and the three notations of time that input may use: instants, dates, durations.
 *
 * Instants become integers through the proleptic Gregorian calendar, by arithmetic alone: libc's
 * strptime accepts 30 February, depends on the locale and refuses fractions. The parsers read at
 * most `len` bytes, print nothing and take any garbage. Leap seconds do not exist here, as they do
 * not in Unix time.
 */
#include "clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define SECONDS_PER_DAY INT64_C(86400)
#define RFC3339_END_UNIX INT64_C(9214646400) /* 2262-01-01; int64 nanoseconds end in April 2262 */
#define FORMAT_MIN_MS INT64_C(-62167219200000) /* 0000-01-01T00:00:00.000Z */
#define FORMAT_MAX_MS INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */
#define DURATION_MAX_MS (INT64_C(36525) * SECONDS_PER_DAY * 1000)

/* What is left to read of a text. */
struct cursor {
	const char *s;
	const char *end;
};

static struct timespec now(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);
	assert(r == 0);
	return ts;
}

int64_t clock_unix_ms(void)
{
	struct timespec ts = now(CLOCK_REALTIME);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / CLOCK_NS_PER_MS;
}

int64_t clock_mono_ms(void)
{
	return clock_mono_us() / 1000;
}

int64_t clock_mono_us(void)
{
	struct timespec ts = now(CLOCK_MONOTONIC);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool take_char(struct cursor *c, const char *any_of)
{
	if (c->s == c->end || *c->s == '\0' || !strchr(any_of, *c->s))
		return false;
	c->s++;
	return true;
}

/* Exactly n digits (n <= 4), their value in [min, max]. */
static bool take_number(struct cursor *c, int n, int min, int max, int *ret)
{
	if (c->end - c->s < n)
		return false;
	int value = 0;
	for (int i = 0; i < n; i++) {
		if (!is_digit(c->s[i]))
			return false;
		value = value * 10 + (c->s[i] - '0');
	}
	c->s += n;
	*ret = value;
	return value >= min && value <= max;
}

static int days_in_month(int year, int month)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	return days[month - 1] + (month == 2 && leap);
}

/* Days since 1970-01-01. The year is taken to begin in March, so that the leap day is its last and
 * the lengths of the months follow (153 m + 2) / 5. */
static int64_t days_from_civil(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
	int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
	return era * 146097 + day_of_era - 719468;
}

static bool take_date(struct cursor *c, int64_t *ret_days)
{
	int year, month, day;
	if (!take_number(c, 4, 0, 9999, &year) || !take_char(c, "-") ||
	    !take_number(c, 2, 1, 12, &month) || !take_char(c, "-") ||
	    !take_number(c, 2, 1, days_in_month(year, month), &day))
		return false;
	*ret_days = days_from_civil(year, month, day);
	return true;
}

static bool take_time(struct cursor *c, int64_t *ret_s)
{
	int hour, minute, second;
	if (!take_number(c, 2, 0, 23, &hour) || !take_char(c, ":") ||
	    !take_number(c, 2, 0, 59, &minute) || !take_char(c, ":") ||
	    !take_number(c, 2, 0, 59, &second))
		return false;
	*ret_s = hour * INT64_C(3600) + minute * 60 + second;
	return true;
}

/* Nothing, or a point and 1-9 digits. */
static bool take_fraction(struct cursor *c, int64_t *ret_ns)
{
	*ret_ns = 0;
	if (!take_char(c, "."))
		return true;
	int64_t weight = CLOCK_NS_PER_S;
	for (; c->s < c->end && is_digit(*c->s); c->s++) {
		weight /= 10;
		if (weight == 0)
			return false;
		*ret_ns += (*c->s - '0') * weight;
	}
	return weight < CLOCK_NS_PER_S;
}

static bool take_offset(struct cursor *c, int64_t *ret_s)
{
	*ret_s = 0;
	if (take_char(c, "Zz"))
		return true;
	bool west = c->s < c->end && *c->s == '-';
	int hour, minute;
	if (!take_char(c, "+-") || !take_number(c, 2, 0, 23, &hour) || !take_char(c, ":") ||
	    !take_number(c, 2, 0, 59, &minute))
		return false;
	*ret_s = (hour * INT64_C(3600) + minute * 60) * (west ? -1 : 1);
	return true;
}

int clock_parse_rfc3339(const char *s, size_t len, int64_t *ret_unix_ns)
{
	if (!s)
		return -EINVAL;
	struct cursor c = { s, s + len };
	int64_t days, time_s, ns, offset_s;
	if (!take_date(&c, &days) || !take_char(&c, "Tt") || !take_time(&c, &time_s) ||
	    !take_fraction(&c, &ns) || !take_offset(&c, &offset_s) || c.s != c.end)
		return -EINVAL;
	int64_t unix_s = days * SECONDS_PER_DAY + time_s - offset_s;
	if (unix_s < 0 || unix_s >= RFC3339_END_UNIX)
		return -ERANGE;
	*ret_unix_ns = unix_s * CLOCK_NS_PER_S + ns;
	return 0;
}

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* `width` digits with leading zeros and the character behind them. */
static char *put_number(char *at, int64_t value, int width, char behind)
{
	for (int i = width - 1; i >= 0; i--) {
		at[i] = (char)('0' + value % 10);
		value /= 10;
	}
	at[width] = behind;
	return at + width + 1;
}

/* The inverse of days_from_civil. */
static char *put_date(char *at, int64_t days)
{
	days += 719468;
	int64_t era = floor_div(days, 146097);
	int64_t day_of_era = days - era * 146097;
	int64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	int64_t day_of_year =
		day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	int64_t m = (5 * day_of_year + 2) / 153;
	int64_t month = m < 10 ? m + 3 : m - 9;
	at = put_number(at, era * 400 + year_of_era + (month <= 2), 4, '-');
	at = put_number(at, month, 2, '-');
	return put_number(at, day_of_year - (153 * m + 2) / 5 + 1, 2, 'T');
}

char *clock_format_ms(int64_t unix_ms, char buf[static CLOCK_TEXT_MAX])
{
	unix_ms = base_min_i64(base_max_i64(unix_ms, FORMAT_MIN_MS), FORMAT_MAX_MS);
	int64_t unix_s = floor_div(unix_ms, 1000);
	int64_t days = floor_div(unix_s, SECONDS_PER_DAY);
	int64_t time_s = unix_s - days * SECONDS_PER_DAY;
	char *at = put_date(buf, days);
	at = put_number(at, time_s / 3600, 2, ':');
	at = put_number(at, time_s / 60 % 60, 2, ':');
	at = put_number(at, time_s % 60, 2, '.');
	at = put_number(at, unix_ms - unix_s * 1000, 3, 'Z');
	*at = '\0';
	return buf;
}

static int64_t unit_ms(const char *unit)
{
	static const struct {
		const char *name;
		int64_t ms;
	} units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strcmp(unit, units[i].name) == 0)
			return units[i].ms;
	return 0;
}

int clock_parse_duration(const char *s, int64_t *ret_ms)
{
	if (!s || !is_digit(*s))
		return -EINVAL;
	bool bare_zero = strcmp(s, "0") == 0;
	int64_t n = 0;
	for (; is_digit(*s); s++)
		n = base_min_i64(n * 10 + (*s - '0'), DURATION_MAX_MS + 1);
	int64_t ms = bare_zero ? 1 : unit_ms(s);
	if (ms == 0)
		return -EINVAL;
	if (n > DURATION_MAX_MS / ms)
		return -ERANGE;
	*ret_ms = n * ms;
	return 0;
}

int clock_parse_date(const char *s, int64_t *ret_unix_s)
{
	if (!s)
		return -EINVAL;
	struct cursor c = { s, s + strlen(s) };
	int64_t days;
	if (!take_date(&c, &days) || c.s != c.end)
		return -EINVAL;
	*ret_unix_s = days * SECONDS_PER_DAY;
	return 0;
}
