/* The growing buffer: its limit, its NUL, and that a refused call changes nothing. */
#include "buffer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void keeps_a_nul_behind_every_append(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(1000);
	char expected[1001] = "";
	for (size_t i = 0; i < 1000; i++) {
		expected[i] = (char)('a' + i % 26);
		assert_int_equal(buffer_append(&b, &expected[i], 1), 0);
		assert_int_equal(b.len, i + 1);
		assert_int_equal(b.data[b.len], 0);
	}
	assert_string_equal(b.data, expected);
}

static void keeps_bytes_behind_a_nul(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(10);
	assert_int_equal(buffer_append(&b, "a\0b", 3), 0);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.data, "a\0b", 4);
}

static void fills_to_its_limit_and_not_a_byte_further(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(8);
	assert_int_equal(buffer_append_text(&b, "12345678"), 0);
	assert_int_equal(buffer_append(&b, "9", 1), -ENOBUFS);
	assert_int_equal(buffer_appendf(&b, "%d", 9), -ENOBUFS);
	assert_string_equal(b.data, "12345678");
	assert_true(b.size <= b.max + 1);
}

static void is_unchanged_by_what_does_not_fit(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(8);
	assert_int_equal(buffer_append_text(&b, "12345"), 0);
	assert_int_equal(buffer_append_text(&b, "6789"), -ENOBUFS);
	assert_int_equal(buffer_appendf(&b, "%s", "6789"), -ENOBUFS);
	assert_int_equal(buffer_append(&b, "", SIZE_MAX), -ENOBUFS);
	assert_int_equal(b.len, 5);
	assert_string_equal(b.data, "12345");
	assert_int_equal(buffer_append_text(&b, "678"), 0);
	assert_string_equal(b.data, "12345678");
}

static void survives_lengths_that_would_overflow_without_a_limit(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(SIZE_MAX);
	assert_int_equal(buffer_append_text(&b, "abc"), 0);
	assert_int_equal(buffer_append(&b, "", SIZE_MAX - 3), -ENOBUFS);
	assert_int_equal(buffer_append(&b, "", SIZE_MAX), -ENOBUFS);
	assert_string_equal(b.data, "abc");
}

static void formats_over_a_growing_border(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(500);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buffer_appendf(&b, "%03d,", i), 0);
	assert_int_equal(b.len, 400);
	assert_memory_equal(b.data + 60, "015,016,", 8);
	assert_string_equal(b.data + 396, "099,");
}

static void appends_nothing_without_taking_memory(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(0);
	assert_int_equal(buffer_append(&b, NULL, 0), 0);
	assert_int_equal(buffer_append_text(&b, ""), 0);
	assert_null(b.data);
	assert_int_equal(buffer_append_text(&b, "x"), -ENOBUFS);
}

static void clears_and_keeps_its_memory(void **state)
{
	CLEANUP(buffer_finish) struct buffer b;
	buffer_init(&b, 100);
	buffer_clear(&b);
	assert_int_equal(buffer_append_text(&b, "abc"), 0);
	char *data = b.data;
	buffer_clear(&b);
	assert_int_equal(b.len, 0);
	assert_string_equal(b.data, "");
	assert_ptr_equal(b.data, data);
}

static void gives_its_memory_away_and_stays_usable(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(100);
	assert_int_equal(buffer_append_text(&b, "abc"), 0);
	CLEANUP_FREE char *first = buffer_steal(&b);
	assert_string_equal(first, "abc");
	assert_int_equal(b.len, 0);
	assert_int_equal(buffer_append_text(&b, "def"), 0);
	assert_string_equal(first, "abc");
	assert_string_equal(b.data, "def");
}

static void gives_an_empty_text_when_it_never_had_a_byte(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(0);
	CLEANUP_FREE char *text = buffer_steal(&b);
	assert_non_null(text);
	assert_string_equal(text, "");
}

static void finishes_twice(void **state)
{
	struct buffer b = { 0 };
	buffer_finish(&b);
	buffer_init(&b, 10);
	assert_int_equal(buffer_append_text(&b, "abc"), 0);
	buffer_finish(&b);
	buffer_finish(&b);
	buffer_finish(NULL);
	assert_null(b.data);
	assert_int_equal(b.len, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_a_nul_behind_every_append),
		cmocka_unit_test(keeps_bytes_behind_a_nul),
		cmocka_unit_test(fills_to_its_limit_and_not_a_byte_further),
		cmocka_unit_test(is_unchanged_by_what_does_not_fit),
		cmocka_unit_test(survives_lengths_that_would_overflow_without_a_limit),
		cmocka_unit_test(formats_over_a_growing_border),
		cmocka_unit_test(appends_nothing_without_taking_memory),
		cmocka_unit_test(clears_and_keeps_its_memory),
		cmocka_unit_test(gives_its_memory_away_and_stays_usable),
		cmocka_unit_test(gives_an_empty_text_when_it_never_had_a_byte),
		cmocka_unit_test(finishes_twice),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
