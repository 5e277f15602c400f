/* Rows for programs keep every byte; rows for people keep the terminal. */
#include "table_out.h"

#include "buffer.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NUL_CELL ((struct table_out_cell) { .type = TABLE_OUT_NULL })
#define INTEGER(n) ((struct table_out_cell) { .type = TABLE_OUT_INTEGER, .integer = (n) })
#define REAL(x) ((struct table_out_cell) { .type = TABLE_OUT_REAL, .real = (x) })
#define TEXT(literal)                                                                              \
	((struct table_out_cell) { .type = TABLE_OUT_TEXT, .text = SPAN_LITERAL(literal) })

struct written {
	char *text;
	size_t len;
};

static void finish_written(struct written *w)
{
	free(w->text);
}

#define WRITTEN CLEANUP(finish_written) struct written

static struct written write_rows(enum table_out_format format, const char *const *columns,
				 size_t n_columns, const struct table_out_cell *cells,
				 size_t n_rows)
{
	struct written w = { NULL, 0 };
	FILE *f = open_memstream(&w.text, &w.len);
	struct table_out *t = NULL;

	assert_non_null(f);
	assert_int_equal(table_out_new(f, format, columns, n_columns, &t), 0);
	for (size_t i = 0; i < n_rows; i++)
		assert_int_equal(table_out_row(t, cells + i * n_columns), 0);
	assert_int_equal(table_out_end(t), 0);
	table_out_free(t);
	assert_int_equal(fclose(f), 0);
	return w;
}

/* One cell in a column `c`. */
static struct written write_cell(enum table_out_format format, struct table_out_cell cell)
{
	static const char *const columns[] = { "c" };

	return write_rows(format, columns, 1, &cell, 1);
}

static void expect_cell(enum table_out_format format, struct table_out_cell cell, const char *text)
{
	WRITTEN w = write_cell(format, cell);

	assert_string_equal(w.text, text);
}

static const char *const two[] = { "id", "a \"b\"" };

/* ---- csv ---- */

static void csv_has_a_head_even_without_rows(void **state)
{
	WRITTEN w = write_rows(TABLE_OUT_CSV, two, 2, NULL, 0);

	assert_string_equal(w.text, "id,\"a \"\"b\"\"\"\r\n");
}

static void csv_tells_null_from_empty(void **state)
{
	const struct table_out_cell cells[] = { NUL_CELL, TEXT(""), INTEGER(-3), REAL(0.001815) };
	WRITTEN w = write_rows(TABLE_OUT_CSV, two, 2, cells, 2);

	assert_string_equal(w.text, "id,\"a \"\"b\"\"\"\r\n,\"\"\r\n-3,0.001815\r\n");
}

static void csv_quotes_what_a_reader_would_split(void **state)
{
	expect_cell(TABLE_OUT_CSV, TEXT("a,b"), "c\r\n\"a,b\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT("say \"x\""), "c\r\n\"say \"\"x\"\"\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT("\""), "c\r\n\"\"\"\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT("two\nlines"), "c\r\n\"two\nlines\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT("\r"), "c\r\n\"\r\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT(" blank"), "c\r\n\" blank\"\r\n");
	expect_cell(TABLE_OUT_CSV, TEXT("plain text"), "c\r\nplain text\r\n");
}

static void csv_keeps_every_byte(void **state)
{
	WRITTEN w = write_cell(TABLE_OUT_CSV, TEXT("a\0b\xff\x1b[31m"));

	assert_int_equal(w.len, strlen("c\r\n") + 11 + 2);
	assert_memory_equal(w.text, "c\r\n\"a\0b\xff\x1b[31m\"\r\n", w.len);
}

/* ---- json ---- */

static void json_is_an_array_even_without_rows(void **state)
{
	WRITTEN w = write_rows(TABLE_OUT_JSON, two, 2, NULL, 0);

	assert_string_equal(w.text, "[]\n");
}

static void json_names_every_column_in_every_row(void **state)
{
	const struct table_out_cell cells[] = { INTEGER(1), NUL_CELL, INTEGER(INT64_MIN),
						TEXT("x") };
	WRITTEN w = write_rows(TABLE_OUT_JSON, two, 2, cells, 2);

	assert_string_equal(w.text, "[\n {\"id\": 1, \"a \\\"b\\\"\": null},\n"
				    " {\"id\": -9223372036854775808, \"a \\\"b\\\"\": \"x\"}\n]\n");
}

static void json_escapes_what_must_not_stand_in_a_string(void **state)
{
	expect_cell(TABLE_OUT_JSON, TEXT("\"\\\n\x1b"), "[\n {\"c\": \"\\\"\\\\\\n\\u001b\"}\n]\n");
	expect_cell(TABLE_OUT_JSON, TEXT("\xff"), "[\n {\"c\": \"\xef\xbf\xbd\"}\n]\n");
}

static void a_real_number_reads_back_as_the_same(void **state)
{
	const double numbers[] = { 0.1,	    1.0 / 3, 0.001815,		 DBL_MAX,
				   DBL_MIN, 1e22,    123456789.123456789 };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		WRITTEN w = write_cell(TABLE_OUT_CSV, REAL(numbers[i]));
		assert_true(strtod(w.text + strlen("c\r\n"), NULL) == numbers[i]);
	}
	expect_cell(TABLE_OUT_JSON, REAL(0.1), "[\n {\"c\": 0.1}\n]\n");
	expect_cell(TABLE_OUT_JSON, REAL(5), "[\n {\"c\": 5.0}\n]\n");
	expect_cell(TABLE_OUT_JSON, REAL(0), "[\n {\"c\": 0.0}\n]\n");
	expect_cell(TABLE_OUT_JSON, REAL((double)INFINITY), "[\n {\"c\": null}\n]\n");
	expect_cell(TABLE_OUT_JSON, REAL((double)NAN), "[\n {\"c\": null}\n]\n");
}

/* ---- table ---- */

static void a_table_lines_its_columns_up(void **state)
{
	static const char *const columns[] = { "name", "n", "last" };
	const struct table_out_cell cells[] = { TEXT("größer"), INTEGER(5),	TEXT("x"),
						NUL_CELL,	INTEGER(12345), NUL_CELL };
	WRITTEN w = write_rows(TABLE_OUT_TABLE, columns, 3, cells, 2);

	assert_string_equal(w.text, "name    n      last\n"
				    "größer      5  x\n"
				    "-       12345  -\n");
}

static void a_table_shows_money_without_exponents(void **state)
{
	expect_cell(TABLE_OUT_TABLE, REAL(3.025e-5), "c\n0.00003025\n");
}

static void a_table_goes_on_behind_the_rows_that_set_its_widths(void **state)
{
	struct table_out_cell *cells = calloc(2500, sizeof(*cells));

	assert_non_null(cells);
	for (size_t i = 0; i < 2500; i++)
		cells[i] = INTEGER((int64_t)i);
	cells[2000] = TEXT("wider than all before");
	static const char *const columns[] = { "c" };
	WRITTEN w = write_rows(TABLE_OUT_TABLE, columns, 1, cells, 2500);
	size_t lines = 0;
	for (size_t i = 0; i < w.len; i++)
		lines += w.text[i] == '\n';
	assert_int_equal(lines, 2501);
	assert_non_null(strstr(w.text, "\nwider than all before\n2001\n"));
	free(cells);
}

static void visible(struct span text, size_t max, const char *expected)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);

	assert_int_equal(table_out_append_visible(&b, text, max), 0);
	assert_string_equal(b.data ? b.data : "", expected);
}

static void no_control_character_reaches_a_terminal(void **state)
{
	visible(SPAN_LITERAL("\x1b[31mred\x07\t\r\n\x7f"), 100, "\\x1b[31mred\\x07\\t\\r\\n\\x7f");
	visible(SPAN_LITERAL("a\0b"), 100, "a\\x00b");
	visible(SPAN_LITERAL("\xc2\x9b"
			     "31m"),
		100, "\\u009b31m");
	visible(SPAN_LITERAL("abc\xe2\x80\xae"
			     "dcb"),
		100, "abc\\u202edcb");
	visible(SPAN_LITERAL("\xef\xbb\xbf"), 100, "\\ufeff");
	visible(SPAN_LITERAL("ä€😀"), 100, "ä€😀");
}

static void broken_utf8_is_shown_byte_by_byte(void **state)
{
	visible(SPAN_LITERAL("\xff\xc3"), 100, "\\xff\\xc3");
	visible(SPAN_LITERAL("\xc0\x80"), 100, "\\xc0\\x80");
	visible(SPAN_LITERAL("\xed\xa0\x80"), 100, "\\xed\\xa0\\x80");
	visible(SPAN_LITERAL("\xf0\x9f\x98"), 100, "\\xf0\\x9f\\x98");
}

static void long_text_is_cut_at_a_character(void **state)
{
	visible(SPAN_LITERAL("12345"), 5, "12345");
	visible(SPAN_LITERAL("123456"), 5, "1234…");
	visible(SPAN_LITERAL("äöüßä"), 4, "äöü…");
	visible(SPAN_LITERAL("abc\x1b"), 5, "abc…");
	visible(SPAN_LITERAL("abc"), 0, "");
}

static void every_text_of_every_length_fits_its_column(void **state)
{
	char text[300];

	for (size_t len = 0; len < sizeof(text); len++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4096);
		for (size_t i = 0; i < len; i++)
			text[i] = (char)(i * 37 + len);
		assert_int_equal(table_out_append_visible(&b, (struct span) { text, len }, 20), 0);
		size_t columns = 0;
		for (size_t i = 0; i < b.len; i++) {
			assert_true((uint8_t)b.data[i] >= ' ' && b.data[i] != 0x7f);
			columns += ((uint8_t)b.data[i] & 0xc0) != 0x80;
		}
		assert_true(columns <= 20);
	}
}

/* ---- */

static void knows_the_names_of_its_formats(void **state)
{
	enum table_out_format format;

	assert_true(table_out_format_from_name("json", &format) && format == TABLE_OUT_JSON);
	assert_true(table_out_format_from_name("table", &format) && format == TABLE_OUT_TABLE);
	assert_true(table_out_format_from_name("csv", &format) && format == TABLE_OUT_CSV);
	assert_false(table_out_format_from_name("JSON", &format));
	assert_false(table_out_format_from_name("", &format));
}

static void a_write_that_fails_is_told(void **state)
{
	static const char *const columns[] = { "c" };
	const struct table_out_cell cell = INTEGER(1);
	FILE *f = fopen("/dev/full", "we");
	struct table_out *t = NULL;

	assert_non_null(f);
	assert_int_equal(table_out_new(f, TABLE_OUT_JSON, columns, 1, &t), 0);
	assert_int_equal(table_out_row(t, &cell), 0);
	assert_int_equal(table_out_end(t), -EIO);
	table_out_free(t);
	(void)fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(csv_has_a_head_even_without_rows),
		cmocka_unit_test(csv_tells_null_from_empty),
		cmocka_unit_test(csv_quotes_what_a_reader_would_split),
		cmocka_unit_test(csv_keeps_every_byte),
		cmocka_unit_test(json_is_an_array_even_without_rows),
		cmocka_unit_test(json_names_every_column_in_every_row),
		cmocka_unit_test(json_escapes_what_must_not_stand_in_a_string),
		cmocka_unit_test(a_real_number_reads_back_as_the_same),
		cmocka_unit_test(a_table_lines_its_columns_up),
		cmocka_unit_test(a_table_shows_money_without_exponents),
		cmocka_unit_test(a_table_goes_on_behind_the_rows_that_set_its_widths),
		cmocka_unit_test(no_control_character_reaches_a_terminal),
		cmocka_unit_test(broken_utf8_is_shown_byte_by_byte),
		cmocka_unit_test(long_text_is_cut_at_a_character),
		cmocka_unit_test(every_text_of_every_length_fits_its_column),
		cmocka_unit_test(knows_the_names_of_its_formats),
		cmocka_unit_test(a_write_that_fails_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
