/* What the INI reader promises: which lines it reads, how, and that a fault neither hides the next
 * one nor lends entries to a wrong section. Every input is parsed from an exact-size heap copy.
 */
#include "ini.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

/* What was called, as text: `1[server]` `2[source|e2b]` `3 key=value` `4!problem`. */
struct transcript {
	char text[8192];
	size_t len;
};

static void PRINTF_LIKE(2, 3) note(struct transcript *t, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(t->text + t->len, sizeof(t->text) - t->len, fmt, args);
	va_end(args);
	assert_true(n >= 0 && (size_t)n < sizeof(t->text) - t->len);
	t->len += (size_t)n;
}

static void on_section(void *ctx, unsigned int line, const char *section, const char *name)
{
	note(ctx, "%u[%s|%s]\n", line, section, name);
}

static void on_entry(void *ctx, unsigned int line, const char *key, const char *value)
{
	note(ctx, "%u %s=%s.\n", line, key, value);
}

static void on_problem(void *ctx, unsigned int line, const char *what)
{
	note(ctx, "%u!%s\n", line, what);
}

static size_t parse(const char *text, size_t len, struct transcript *t)
{
	const struct ini_handler handler = { on_section, on_entry, on_problem, t };
	CLEANUP_FREE char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	*t = (struct transcript) { 0 };
	return ini_parse(copy, len, &handler);
}

static void expect(const char *text, const char *transcript)
{
	struct transcript t;
	(void)parse(text, strlen(text), &t);
	assert_string_equal(t.text, transcript);
}

/* A single line inside of a section is refused for what its problem begins with. */
static void expect_problem(const char *line, size_t len, const char *what)
{
	struct transcript t;
	char text[2 * INI_LINE_MAX], wanted[128];
	assert_true(len + 16 < sizeof(text));
	memcpy(text, "[a]\n", 4);
	memcpy(text + 4, line, len);
	memcpy(text + 4 + len, "\nk=v\n", 5);
	assert_int_equal(parse(text, len + 9, &t), 1);
	(void)snprintf(wanted, sizeof(wanted), "1[a|]\n2!%s", what);
	assert_memory_equal(t.text, wanted, strlen(wanted));
	assert_non_null(strstr(t.text, "3 k=v."));
}

static void reads_sections_names_and_entries(void **state)
{
	expect("[server]\nlisten = a\n[source e2b]\npath=/x\n",
	       "1[server|]\n2 listen=a.\n3[source|e2b]\n4 path=/x.\n");
}

static void removes_blanks_around_names_keys_and_values(void **state)
{
	expect(" [ source \t e2b ] \n\t key \t=  a b \t\n", "1[source|e2b]\n2 key=a b.\n");
}

static void takes_a_comment_only_at_the_start_of_a_line(void **state)
{
	expect("# a\n;b\n  # c = d\n[s]\nk = v # not ; a comment\n",
	       "4[s|]\n5 k=v # not ; a comment.\n");
}

static void keeps_quotes_equal_signs_and_backslashes_in_a_value(void **state)
{
	expect("[s]\nk = \"a=b\" \\\nl = '\n", "1[s|]\n2 k=\"a=b\" \\.\n3 l='.\n");
}

static void reads_an_empty_value(void **state)
{
	expect("[s]\nk =\nl=   \n", "1[s|]\n2 k=.\n3 l=.\n");
}

static void accepts_crlf_a_byte_order_mark_and_a_missing_last_newline(void **state)
{
	expect("\xef\xbb\xbf[s]\r\nk = v\r\nl = w", "1[s|]\n2 k=v.\n3 l=w.\n");
}

static void reads_nothing_from_an_empty_file(void **state)
{
	expect("", "");
	expect("\xef\xbb\xbf", "");
	expect("\n\r\n  \n", "");
}

static void refuses_a_byte_order_mark_that_is_not_at_the_start(void **state)
{
	expect("[s]\n\xef\xbb\xbf[t]\n", "1[s|]\n2!neither [section], key = value nor a comment\n");
}

static void does_not_continue_a_value_on_an_indented_line(void **state)
{
	expect("[s]\nk = a\n  b\n", "1[s|]\n2 k=a.\n"
				    "3!neither [section], key = value nor a comment\n");
}

static void refuses_a_key_before_the_first_section(void **state)
{
	expect("k = v\n[s]\n", "1!a key before the first [section]\n2[s|]\n");
}

static void refuses_a_value_without_a_key(void **state)
{
	expect("[s]\n = v\n", "1[s|]\n2!a value without a key\n");
}

static void swallows_the_entries_of_a_section_that_cannot_be_read(void **state)
{
	static const char *const headers[] = { "[b",	"[]",	   "[ ]",     "[b]c",	"[b]]",
					       "[b[c]", "[b\x01]", " [\xff]", "[b] # c" };
	for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
		struct transcript t;
		char text[128];
		(void)snprintf(text, sizeof(text), "[a]\n%s\nk = v\n[c]\nl = w\n", headers[i]);
		assert_int_equal(parse(text, strlen(text), &t), 1);
		assert_null(strstr(t.text, "k=v"));
		assert_non_null(strstr(t.text, "4[c|]\n5 l=w.\n"));
	}
}

static void swallows_the_entries_of_a_section_line_that_is_too_long(void **state)
{
	struct transcript t;
	char text[INI_LINE_MAX + 32];
	memset(text, 'x', sizeof(text));
	memcpy(text, "[a]\n[", 5);
	memcpy(text + sizeof(text) - 8, "]\nk = v\n", 8);
	assert_int_equal(parse(text, sizeof(text), &t), 1);
	assert_string_equal(t.text, "1[a|]\n2!longer than 4096 bytes\n");
}

static void refuses_nul_and_other_control_characters(void **state)
{
	static const char controls[] = { 0, 1, 0x08, 0x0b, 0x0c, '\r', 0x1b, 0x1f, 0x7f };
	for (size_t i = 0; i < sizeof(controls); i++) {
		char line[] = "k = a?b";
		line[5] = controls[i];
		expect_problem(line, sizeof(line) - 1, "holds a control character");
	}
	expect_problem("k = \xc2\x9b", 6, "holds a control character");
}

static void refuses_what_is_not_utf8(void **state)
{
	static const char *const broken[] = {
		"\x80",		"\xc0\xaf",	    "\xc1\xbf",
		"\xc3",		"\xe0\x9f\xbf",	    "\xe2\x82",
		"\xe2\x28\xa1", "\xed\xa0\x80",	    "\xf0\x8f\xbf\xbf",
		"\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
		"\xff",		"\xf0\x9f\x98\x7f",
	};
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		char line[16];
		int len = snprintf(line, sizeof(line), "k = %s", broken[i]);
		expect_problem(line, (size_t)len, "not valid UTF-8");
	}
}

static void accepts_utf8_of_every_length(void **state)
{
	expect("[s]\nk = \xc3\xa9\xe2\x82\xac\xef\xbf\xbd\xf0\x9f\x98\x80\xed\x9f\xbf\n",
	       "1[s|]\n2 k=\xc3\xa9\xe2\x82\xac\xef\xbf\xbd\xf0\x9f\x98\x80\xed\x9f\xbf.\n");
}

static void reads_a_line_of_the_limit_and_refuses_one_byte_more(void **state)
{
	char line[INI_LINE_MAX + 1], text[INI_LINE_MAX + 16];
	struct transcript t;
	memset(line, 'v', sizeof(line));
	memcpy(line, "k=", 2);
	int len = snprintf(text, sizeof(text), "[a]\n%.*s\n", INI_LINE_MAX, line);
	assert_int_equal(parse(text, (size_t)len, &t), 0);
	assert_int_equal(strlen(strstr(t.text, "k=")), INI_LINE_MAX + 2);
	expect_problem(line, sizeof(line), "longer than 4096 bytes");
}

static void tells_every_problem_in_one_pass(void **state)
{
	struct transcript t;
	const char text[] = "x\n[\n[s]\ny\n= 1\nk = v\n\xff\n";
	assert_int_equal(parse(text, sizeof(text) - 1, &t), 5);
	assert_non_null(strstr(t.text, "6 k=v.\n7!"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_sections_names_and_entries),
		cmocka_unit_test(removes_blanks_around_names_keys_and_values),
		cmocka_unit_test(takes_a_comment_only_at_the_start_of_a_line),
		cmocka_unit_test(keeps_quotes_equal_signs_and_backslashes_in_a_value),
		cmocka_unit_test(reads_an_empty_value),
		cmocka_unit_test(accepts_crlf_a_byte_order_mark_and_a_missing_last_newline),
		cmocka_unit_test(reads_nothing_from_an_empty_file),
		cmocka_unit_test(refuses_a_byte_order_mark_that_is_not_at_the_start),
		cmocka_unit_test(does_not_continue_a_value_on_an_indented_line),
		cmocka_unit_test(refuses_a_key_before_the_first_section),
		cmocka_unit_test(refuses_a_value_without_a_key),
		cmocka_unit_test(swallows_the_entries_of_a_section_that_cannot_be_read),
		cmocka_unit_test(swallows_the_entries_of_a_section_line_that_is_too_long),
		cmocka_unit_test(refuses_nul_and_other_control_characters),
		cmocka_unit_test(refuses_what_is_not_utf8),
		cmocka_unit_test(accepts_utf8_of_every_length),
		cmocka_unit_test(reads_a_line_of_the_limit_and_refuses_one_byte_more),
		cmocka_unit_test(tells_every_problem_in_one_pass),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
