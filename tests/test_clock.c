/* Instants, dates and durations: what is read, what is refused and with which error. */
#include "clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define NS CLOCK_NS_PER_S

/* A copy without a NUL: a parser that reads past `len` is caught by the sanitizer. */
static int parse(const char *text, int64_t *ret_ns)
{
	size_t len = strlen(text);
	CLEANUP_FREE char *copy = malloc(len + (len == 0));
	assert_non_null(copy);
	memcpy(copy, text, len);
	return clock_parse_rfc3339(copy, len, ret_ns);
}

static void assert_instant(const char *text, int64_t expected_ns)
{
	int64_t ns = -1;
	int r = parse(text, &ns);
	if (r != 0 || ns != expected_ns)
		fail_msg("%s: %d, %lld ns", text, r, (long long)ns);
}

static void assert_refused(const char *text, int error)
{
	int64_t ns = -1;
	int r = parse(text, &ns);
	if (r != error || ns != -1)
		fail_msg("'%s': %d instead of %d", text, r, error);
}

static void reads_instants_to_the_nanosecond(void **state)
{
	assert_instant("1970-01-01T00:00:00Z", 0);
	assert_instant("2026-11-22T10:00:00Z", 1795341600 * NS);
	assert_instant("2026-11-22T10:00:00.5Z", 1795341600 * NS + 500000000);
	assert_instant("2026-11-22T10:00:00.123Z", 1795341600 * NS + 123000000);
	assert_instant("2026-11-22T10:00:00.123456Z", 1795341600 * NS + 123456000);
	assert_instant("2026-11-22T10:00:00.123456789Z", 1795341600 * NS + 123456789);
	assert_instant("2026-11-22T10:00:00.000000001Z", 1795341600 * NS + 1);
	assert_instant("2261-12-31T23:59:59.999999999Z", 9214646399 * NS + 999999999);
}

static void reads_offsets_and_both_cases(void **state)
{
	assert_instant("2026-02-19T17:45:30+05:30", 1771503330 * NS);
	assert_instant("2026-02-19T17:45:30-03:30", 1771535730 * NS);
	assert_instant("2026-02-19T17:45:30.25-00:00", 1771523130 * NS + 250000000);
	assert_instant("2026-11-22t10:00:00z", 1795341600 * NS);
	assert_instant("1969-12-31T23:00:00-01:00", 0);
}

static void knows_the_leap_days(void **state)
{
	assert_instant("2000-02-29T23:59:59Z", 951868799 * NS);
	assert_instant("2024-02-29T00:00:00Z", 1709164800 * NS);
	assert_instant("2100-03-01T00:00:00Z", 4107542400 * NS);
	assert_refused("2026-02-29T00:00:00Z", -EINVAL);
	assert_refused("2100-02-29T00:00:00Z", -EINVAL);
	assert_refused("2024-02-30T00:00:00Z", -EINVAL);
	assert_refused("2026-04-31T00:00:00Z", -EINVAL);
}

static void refuses_what_is_outside_the_calendar_or_the_day(void **state)
{
	static const char *const texts[] = {
		"2026-00-10T10:00:00Z",	     "2026-13-10T10:00:00Z", "2026-01-00T10:00:00Z",
		"2026-01-32T10:00:00Z",	     "2026-01-10T24:00:00Z", "2026-01-10T10:60:00Z",
		"2026-01-10T10:00:60Z",	     "2016-12-31T23:59:60Z", "2026-01-10T10:00:00+24:00",
		"2026-01-10T10:00:00+01:60",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_refused(texts[i], -EINVAL);
}

static void refuses_other_notations(void **state)
{
	static const char *const texts[] = {
		"",
		"2026",
		"2026-11-22",
		"2026-11-22T10:00:00",
		"2026-11-22 10:00:00Z",
		"2026-11-22T10:00Z",
		" 2026-11-22T10:00:00Z",
		"2026-11-22T10:00:00Z ",
		"2026-11-22T10:00:00ZZ",
		"2026-11-22T10:00:00.Z",
		"2026-11-22T10:00:00,5Z",
		"2026-11-22T10:00:00.1234567890Z",
		"2026-11-22T10:00:00.0000000000Z",
		"2026-11-22T10:00:00+0100",
		"2026-11-22T10:00:00+01",
		"2026-11-22T10:00:00+",
		"2026-1-2T1:2:3Z",
		"26-11-22T10:00:00Z",
		"+2026-11-22T10:00:00Z",
		"12026-11-22T10:00:00Z",
		"20261122T100000Z",
		"2026-W47-7T10:00:00Z",
		"1795341600",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_refused(texts[i], -EINVAL);
}

static void refuses_every_prefix_of_an_instant(void **state)
{
	static const char text[] = "2026-11-22T10:00:00.123456789+01:00";
	char prefix[sizeof(text)];
	for (size_t len = 0; len + 1 < sizeof(text); len++) {
		memcpy(prefix, text, len);
		prefix[len] = '\0';
		assert_refused(prefix, -EINVAL);
	}
}

static void refuses_a_nul_and_an_absent_text(void **state)
{
	static const char text[] = "2026-11-22T10:00:00.5\0";
	int64_t ns;
	assert_int_equal(clock_parse_rfc3339(text, sizeof(text) - 1, &ns), -EINVAL);
	assert_int_equal(clock_parse_rfc3339(NULL, 0, &ns), -EINVAL);
}

static void tells_real_instants_outside_its_range_apart(void **state)
{
	assert_refused("1969-12-31T23:59:59Z", -ERANGE);
	assert_refused("1970-01-01T00:00:00+00:01", -ERANGE);
	assert_refused("2262-01-01T00:00:00Z", -ERANGE);
	assert_refused("2261-12-31T23:59:59-00:01", -ERANGE);
	assert_refused("0000-01-01T00:00:00Z", -ERANGE);
	assert_refused("9999-12-31T23:59:59.999999999Z", -ERANGE);
	assert_refused("2262-02-30T00:00:00Z", -EINVAL);
}

static void assert_shown(int64_t unix_ms, const char *expected)
{
	char text[CLOCK_TEXT_MAX];
	assert_ptr_equal(clock_format_ms(unix_ms, text), text);
	assert_string_equal(text, expected);
}

static void shows_instants_with_milliseconds(void **state)
{
	assert_shown(0, "1970-01-01T00:00:00.000Z");
	assert_shown(1795341600123, "2026-11-22T10:00:00.123Z");
	assert_shown(1709164800000, "2024-02-29T00:00:00.000Z");
	assert_shown(951868799999, "2000-02-29T23:59:59.999Z");
	assert_shown(-1, "1969-12-31T23:59:59.999Z");
	assert_shown(-2203891200000, "1900-03-01T00:00:00.000Z");
}

static void shows_the_ends_of_the_calendar_for_what_is_beyond(void **state)
{
	assert_shown(INT64_MIN, "0000-01-01T00:00:00.000Z");
	assert_shown(-62167219200000, "0000-01-01T00:00:00.000Z");
	assert_shown(253402300799999, "9999-12-31T23:59:59.999Z");
	assert_shown(INT64_MAX, "9999-12-31T23:59:59.999Z");
}

static void reads_back_every_day_it_shows(void **state)
{
	char text[CLOCK_TEXT_MAX];
	for (int64_t day = 0; day < 106650; day++) {
		int64_t unix_ms = day * 86400000 + day * 799; /* sweeps the hours too */
		int64_t ns = -1;
		clock_format_ms(unix_ms, text);
		assert_int_equal(clock_parse_rfc3339(text, strlen(text), &ns), 0);
		assert_int_equal(ns, unix_ms * CLOCK_NS_PER_MS);
	}
}

static void assert_duration(const char *text, int expected_r, int64_t expected_ms)
{
	int64_t ms = -1;
	int r = clock_parse_duration(text, &ms);
	if (r != expected_r || ms != expected_ms)
		fail_msg("'%s': %d, %lld ms", text, r, (long long)ms);
}

static void reads_durations(void **state)
{
	assert_duration("0", 0, 0);
	assert_duration("0s", 0, 0);
	assert_duration("250ms", 0, 250);
	assert_duration("15s", 0, 15000);
	assert_duration("10m", 0, 600000);
	assert_duration("24h", 0, 86400000);
	assert_duration("90d", 0, INT64_C(7776000000));
	assert_duration("36525d", 0, INT64_C(3155760000000));
}

static void refuses_other_durations(void **state)
{
	static const char *const texts[] = { "",
					     "s",
					     "15",
					     "1",
					     "00",
					     "-1s",
					     "+1s",
					     "1.5h",
					     "1h30m",
					     "1 s",
					     " 1s",
					     "1s ",
					     "1S",
					     "1w",
					     "1min",
					     "0x1s",
					     "99999999999999999999" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_duration(texts[i], -EINVAL, -1);
}

static void refuses_durations_beyond_a_century(void **state)
{
	assert_duration("36526d", -ERANGE, -1);
	assert_duration("3155760000001ms", -ERANGE, -1);
	assert_duration("99999999999999999999999999d", -ERANGE, -1);
	assert_duration("18446744073709551617s", -ERANGE, -1);
}

static void reads_dates_as_utc_midnights(void **state)
{
	int64_t unix_s = 0;
	assert_int_equal(clock_parse_date("2026-01-01", &unix_s), 0);
	assert_int_equal(unix_s, 1767225600);
	assert_int_equal(clock_parse_date("1969-12-31", &unix_s), 0);
	assert_true(unix_s == -86400);
	assert_int_equal(clock_parse_date("0001-01-01", &unix_s), 0);
	assert_true(unix_s == INT64_C(-62135596800));
	assert_int_equal(clock_parse_date("9999-12-31", &unix_s), 0);
	assert_int_equal(unix_s, INT64_C(253402214400));
}

static void refuses_other_dates(void **state)
{
	static const char *const texts[] = {
		"",	      "2026-01",     "2026-1-1",   "2026-02-30", "2026-01-01T",
		"2026/01/01", " 2026-01-01", "2026-01-01 "
	};
	int64_t unix_s;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_int_equal(clock_parse_date(texts[i], &unix_s), -EINVAL);
}

static void reads_clocks_in_their_units(void **state)
{
	int64_t us = clock_mono_us();
	int64_t ms = clock_mono_ms();
	assert_true(ms >= us / 1000 && ms < us / 1000 + 60000);
	assert_true(clock_mono_us() >= us);
	int64_t unix_ms = clock_unix_ms();
	int64_t libc_s = (int64_t)time(NULL);
	assert_true(unix_ms / 1000 <= libc_s + 1 && libc_s < unix_ms / 1000 + 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_instants_to_the_nanosecond),
		cmocka_unit_test(reads_offsets_and_both_cases),
		cmocka_unit_test(knows_the_leap_days),
		cmocka_unit_test(refuses_what_is_outside_the_calendar_or_the_day),
		cmocka_unit_test(refuses_other_notations),
		cmocka_unit_test(refuses_every_prefix_of_an_instant),
		cmocka_unit_test(refuses_a_nul_and_an_absent_text),
		cmocka_unit_test(tells_real_instants_outside_its_range_apart),
		cmocka_unit_test(shows_instants_with_milliseconds),
		cmocka_unit_test(shows_the_ends_of_the_calendar_for_what_is_beyond),
		cmocka_unit_test(reads_back_every_day_it_shows),
		cmocka_unit_test(reads_durations),
		cmocka_unit_test(refuses_other_durations),
		cmocka_unit_test(refuses_durations_beyond_a_century),
		cmocka_unit_test(reads_dates_as_utc_midnights),
		cmocka_unit_test(refuses_other_dates),
		cmocka_unit_test(reads_clocks_in_their_units),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
