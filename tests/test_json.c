/* The strict reader: what RFC 8259 allows and we can work with is read faithfully, everything else
 * is refused under the right name, and refusing costs little however hostile the text is.
 */
#include "buffer.h"
#include "json.h"
#include "json_scan.h"
#include "scarce.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define MEBIBYTE ((size_t)1 << 20)

static void free_doc(struct json_doc **doc)
{
	json_doc_free(*doc);
}
#define AUTO_DOC CLEANUP(free_doc) struct json_doc *

/* Parses an exact-size copy without a terminator, so that a sanitizer sees over-reads. */
static int parse_bytes(const char *text, size_t len, struct json_doc **ret)
{
	CLEANUP_FREE char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	return json_parse(copy, len, ret);
}

static int outcome_of(const char *text, size_t len)
{
	AUTO_DOC doc = NULL;
	int r = parse_bytes(text, len, &doc);
	assert_true((r == 0) == (doc != NULL));
	return r;
}

static struct json_doc *parsed(const char *text)
{
	struct json_doc *doc = NULL;
	assert_int_equal(parse_bytes(text, strlen(text), &doc), 0);
	return doc;
}

static void expect_each(const char *const *texts, size_t n, int outcome)
{
	for (size_t i = 0; i < n; i++) {
		int r = outcome_of(texts[i], strlen(texts[i]));
		if (r != outcome)
			fail_msg("%d instead of %d for: %s", r, outcome, texts[i]);
	}
}

static void accepts_what_the_rfc_allows(void **state)
{
	static const char *const texts[] = {
		"{}",
		" \t\r\n{ } \t\r\n",
		"{\"\":\"\"}",
		"{\"a\":[],\"b\":{},\"c\":[[],{}]}",
		"{\"a\":[1,-1,0,-0,0.5,1e5,1E+5,1e-5,-0.0e-0,10,123456789012345678901234567890]}",
		"{\"a\":1e400,\"b\":-1e400,\"c\":1e-400}",
		"{\"a\":true,\"b\":false,\"c\":null}",
		"{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83D\\ude00\"}",
		("{\"a\":\"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"
		 "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"),
		"{ \"a\" : [ 1 , 2 ] , \"b\" : { \"c\" : null } }",
		"{\"A\":1,\"a\":2}",
	};
	expect_each(texts, ARRAY_SIZE(texts), 0);
}

static void refuses_what_is_not_exactly_one_object(void **state)
{
	static const char *const texts[] = {
		"",
		" ",
		"[]",
		"[{}]",
		"\"a\"",
		"1",
		"null",
		"true",
		"{}{}",
		"{} {}",
		"{}x",
		"{},",
		"{}]",
		"{}\x80",
		"{}\v",
		"\f{}",
		"{",
		"}",
		"{{}}",
		"{\"a\"}",
		"{\"a\":}",
		"{\"a\" 1}",
		"{\"a\":1,}",
		"{,}",
		"{,\"a\":1}",
		"{\"a\":1 \"b\":2}",
		"{\"a\":1;\"b\":2}",
		"{a:1}",
		"{'a':1}",
		"{1:1}",
		"{\"a\":[1,]}",
		"{\"a\":[,1]}",
		"{\"a\":[1 2]}",
		"{\"a\":[1}",
		"{\"a\":[}",
		"{\"a\":{]}",
		"{\"a\":[1}]}",
		"{\"a\":1]",
		"{\"a\":1",
		"{\"a\":",
		"{\"a\"",
		"{\"a",
		"{\"a\":\"",
		"{\"a\":\"\\",
		"{/**/}",
		"{}//x",
		"\xef\xbb\xbf{}",
		"{\"a\":1}\x80",
		"{\"a\":tru}",
		"{\"a\":True}",
		"{\"a\":nul",
		"{\"a\":truex}",
		"{\"a\":NaN}",
		"{\"a\":Infinity}",
		"{\"a\":-Infinity}",
		"{\"a\":undefined}",
	};
	expect_each(texts, ARRAY_SIZE(texts), JSON_NOT_ONE_OBJECT);
}

static void refuses_numbers_outside_the_grammar(void **state)
{
	static const char *const texts[] = {
		"{\"a\":007}",	"{\"a\":-01}", "{\"a\":1.}",	"{\"a\":.5}",  "{\"a\":+1}",
		"{\"a\":-}",	"{\"a\":-.5}", "{\"a\":1e}",	"{\"a\":1e+}", "{\"a\":1.e5}",
		"{\"a\":0x10}", "{\"a\":1_0}", "{\"a\":1e5.5}", "{\"a\":--1}", "{\"a\":1-}",
		"{\"a\":1",	"{\"a\":1e",
	};
	expect_each(texts, ARRAY_SIZE(texts), JSON_NOT_ONE_OBJECT);
}

static void refuses_broken_strings_and_encodings(void **state)
{
	static const char nul_escaped[] = { '{', '"', 'a', '"', ':', '"', '\\', '\0', '"', '}' };
	assert_int_equal(outcome_of(nul_escaped, sizeof(nul_escaped)), JSON_NOT_ONE_OBJECT);
	static const char *const texts[] = {
		"{\"a\":\"\n\"}",
		"{\"a\":\"\t\"}",
		"{\"a\":\"\x1f\"}",
		"{\"a\n\":1}",
		"{\"a\":\"\\x41\"}",
		"{\"a\":\"\\'\"}",
		"{\"a\":\"\\u12\"}",
		"{\"a\":\"\\u12g4\"}",
		"{\"a\":\"\\ud800\\u12\"}",
		"{\"a\":\"\\U0041\"}",
		"{\"a\":\"\x80\"}",
		"{\"a\":\"\xc0\x80\"}",
		"{\"a\":\"\xc1\xbf\"}",
		"{\"a\":\"\xc2\"}",
		"{\"a\":\"\xe0\x9f\xbf\"}",
		"{\"a\":\"\xed\xa0\x80\"}",
		"{\"a\":\"\xed\xbf\xbf\"}",
		"{\"a\":\"\xf0\x8f\xbf\xbf\"}",
		"{\"a\":\"\xf4\x90\x80\x80\"}",
		"{\"a\":\"\xf5\x80\x80\x80\"}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\xe2\x82\"}",
		"{\"\xff\":1}",
		"{\"a\":\"\xf0\x90\x80",
		"{\"a\":\"\xe2\x28\xa1\"}",
		"{\"a\":\"\xe2\x82\x7f\"}",
		"{\"a\":\"\xe2\x82\xc0\"}",
	};
	expect_each(texts, ARRAY_SIZE(texts), JSON_NOT_ONE_OBJECT);
}

static void refuses_a_nul_byte_anywhere(void **state)
{
	static const char text[] = "{ \"a\" : \"b\" , \"c\" : 1 } ";
	for (size_t i = 0; i <= sizeof(text) - 1; i++) {
		char with_nul[sizeof(text)];
		memcpy(with_nul, text, i);
		with_nul[i] = '\0';
		memcpy(with_nul + i + 1, text + i, sizeof(text) - 1 - i);
		assert_int_equal(outcome_of(with_nul, sizeof(text)), JSON_NOT_ONE_OBJECT);
	}
}

static void refuses_every_proper_prefix(void **state)
{
	static const char text[] = "{\"a\":[1.5e3,true,\"\\u00e9\xc3\xa9\"],\"b\":{\"c\":null}}";
	for (size_t i = 0; i < sizeof(text) - 1; i++)
		assert_int_equal(outcome_of(text, i), JSON_NOT_ONE_OBJECT);
	assert_int_equal(outcome_of(text, sizeof(text) - 1), 0);
}

/* A hash's glue behind a body and a second object behind that: a length extension. */
static void refuses_a_length_extension(void **state)
{
	static const char text[] = "{\"id\":\"a\"}\x80\0\0\0\0\0\0\x01\xf8{\"id\":\"b\"}";
	assert_int_equal(outcome_of(text, sizeof(text) - 1), JSON_NOT_ONE_OBJECT);
}

/* {"a": then n-1 containers, closed again, with `end` in place of the last closing brace. */
static char *nested(size_t levels, char open, const char *end, size_t *ret_len)
{
	struct buffer b = BUFFER_INIT(4 * MEBIBYTE);
	assert_int_equal(buffer_append_text(&b, "{\"a\":"), 0);
	for (size_t i = 1; i < levels; i++)
		assert_int_equal(buffer_append_text(&b, open == '[' ? "[" : "{\"a\":"), 0);
	assert_int_equal(buffer_append_text(&b, open == '[' ? "1" : "{}"), 0);
	for (size_t i = 1; i < levels; i++)
		assert_int_equal(buffer_append_text(&b, open == '[' ? "]" : "}"), 0);
	assert_int_equal(buffer_append_text(&b, end), 0);
	*ret_len = b.len;
	return buffer_steal(&b);
}

static int nested_outcome(size_t levels, char open, const char *end)
{
	size_t len = 0;
	CLEANUP_FREE char *text = nested(levels, open, end, &len);
	return outcome_of(text, len);
}

static void counts_depth_and_names_it_only_for_a_sound_object(void **state)
{
	assert_int_equal(nested_outcome(JSON_DEPTH_MAX, '[', "}"), 0);
	assert_int_equal(nested_outcome(JSON_DEPTH_MAX + 1, '[', "}"), JSON_TOO_DEEP);
	assert_int_equal(nested_outcome(JSON_DEPTH_MAX - 1, '{', "}"), 0);
	assert_int_equal(nested_outcome(JSON_DEPTH_MAX, '{', "}"), JSON_TOO_DEEP);
	assert_int_equal(nested_outcome(100000, '[', "}"), JSON_TOO_DEEP);
	assert_int_equal(nested_outcome(100000, '{', "}"), JSON_TOO_DEEP);
	assert_int_equal(nested_outcome(100000, '[', ""), JSON_NOT_ONE_OBJECT);
	assert_int_equal(nested_outcome(100000, '[', "}x"), JSON_NOT_ONE_OBJECT);
	assert_int_equal(nested_outcome(100000, '{', "]"), JSON_NOT_ONE_OBJECT);
}

/* Closing brackets must match what was opened, also where the stack has grown. */
static void remembers_every_level_of_a_mixed_nesting(void **state)
{
	enum { LEVELS = 1000 };
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(MEBIBYTE);
	for (size_t i = 0; i < LEVELS; i++)
		assert_int_equal(buffer_append_text(&b, i % 3 ? "[" : "{\"a\":"), 0);
	assert_int_equal(buffer_append_text(&b, "0"), 0);
	size_t closing = b.len;
	for (size_t i = LEVELS; i-- > 0;)
		assert_int_equal(buffer_append_text(&b, i % 3 ? "]" : "}"), 0);
	assert_int_equal(outcome_of(b.data, b.len), JSON_TOO_DEEP);
	for (size_t i = closing; i < b.len; i += 97) {
		b.data[i] = b.data[i] == ']' ? '}' : ']';
		assert_int_equal(outcome_of(b.data, b.len), JSON_NOT_ONE_OBJECT);
		b.data[i] = b.data[i] == ']' ? '}' : ']';
	}
}

/* {"a":[0,0,…]}: the object, the array and n zeros. */
static int zeros_outcome(size_t n, const char *end)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4 * MEBIBYTE);
	assert_int_equal(buffer_append_text(&b, "{\"a\":[0"), 0);
	for (size_t i = 1; i < n; i++)
		assert_int_equal(buffer_append_text(&b, ",0"), 0);
	assert_int_equal(buffer_append_text(&b, end), 0);
	return outcome_of(b.data, b.len);
}

static void counts_values_and_names_it_only_for_a_sound_object(void **state)
{
	assert_int_equal(zeros_outcome(JSON_NODES_MAX - 2, "]}"), 0);
	assert_int_equal(zeros_outcome(JSON_NODES_MAX - 1, "]}"), JSON_TOO_MANY);
	assert_int_equal(zeros_outcome(500000, "]}"), JSON_TOO_MANY);
	assert_int_equal(zeros_outcome(500000, "]"), JSON_NOT_ONE_OBJECT);
}

static void names_depth_before_number_before_duplicates(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(4 * MEBIBYTE);
	assert_int_equal(buffer_append_text(&b, "{\"a\":1,\"a\":["), 0);
	for (size_t i = 0; i < JSON_NODES_MAX; i++)
		assert_int_equal(buffer_append_text(&b, "0,"), 0);
	size_t len = b.len;
	assert_int_equal(buffer_append_text(&b, "0]}"), 0);
	assert_int_equal(outcome_of(b.data, b.len), JSON_TOO_MANY);
	b.len = len;
	for (size_t i = 0; i < JSON_DEPTH_MAX; i++)
		assert_int_equal(buffer_append_text(&b, "["), 0);
	for (size_t i = 0; i < JSON_DEPTH_MAX; i++)
		assert_int_equal(buffer_append_text(&b, "]"), 0);
	assert_int_equal(buffer_append_text(&b, "]}"), 0);
	assert_int_equal(outcome_of(b.data, b.len), JSON_TOO_DEEP);
}

static void finds_duplicate_keys_in_any_object_after_unescaping(void **state)
{
	static const char *const texts[] = {
		"{\"a\":1,\"a\":1}",
		"{\"a\":1,\"b\":2,\"a\":3}",
		"{\"id\":1,\"\\u0069d\":2}",
		"{\"\xc3\xa9\":1,\"\\u00e9\":2}",
		"{\"\":1,\"\":2}",
		"{\"a\":{\"b\":1,\"b\":2}}",
		"{\"a\":[0,[{\"b\":1,\"c\":2,\"b\":3}]]}",
		"{\"a\\u0000\":1,\"a\\u0000\":2}",
		"{\"/\":1,\"\\/\":2}",
	};
	expect_each(texts, ARRAY_SIZE(texts), JSON_DUPLICATE_KEY);
}

static void takes_keys_for_different_that_differ_anywhere(void **state)
{
	static const char *const texts[] = {
		"{\"a\":1,\"A\":2,\"a \":3,\"aa\":4,\"\":5}",
		"{\"id\":1,\"id\\u0000x\":2}", /* not the truncated key */
		"{\"a\":{\"a\":{\"a\":1}}}",
		"{\"a\":[{\"b\":1},{\"b\":1}]}",
	};
	expect_each(texts, ARRAY_SIZE(texts), 0);
}

/* Of CPU time; under valgrind of one that runs as much slower. */
static double seconds_now(void)
{
	const double pace = getenv("HOOKD_VALGRIND") ? 50 : 1;
	struct timespec t;
	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return ((double)t.tv_sec + (double)t.tv_nsec / 1e9) / pace;
}

/* An object of n members with keys of one long common prefix; the last repeats the first if asked.
 */
static void many_keys(struct buffer *b, size_t n, bool repeat)
{
	char prefix[201];
	memset(prefix, 'k', sizeof(prefix) - 1);
	prefix[sizeof(prefix) - 1] = '\0';
	assert_int_equal(buffer_append_text(b, "{"), 0);
	for (size_t i = 0; i < n; i++) {
		size_t key = repeat && i == n - 1 ? 0 : i;
		assert_int_equal(buffer_appendf(b, "%s\"%s%05zu\":0", i ? "," : "", prefix, key),
				 0);
	}
	assert_int_equal(buffer_append_text(b, "}"), 0);
}

static void finds_a_duplicate_among_very_many_keys_quickly(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(8 * MEBIBYTE);
	double began = seconds_now();
	many_keys(&b, JSON_NODES_MAX - 1, false);
	assert_int_equal(outcome_of(b.data, b.len), 0);
	buffer_clear(&b);
	many_keys(&b, JSON_NODES_MAX - 1, true);
	assert_int_equal(outcome_of(b.data, b.len), JSON_DUPLICATE_KEY);
	/* comparing all pairs takes seconds */
	assert_true(seconds_now() - began < 0.9);
}

static void finds_a_duplicate_among_any_number_of_keys(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(MEBIBYTE);
	for (size_t n = 2; n < 40; n++) {
		buffer_clear(&b);
		many_keys(&b, n, true);
		assert_int_equal(outcome_of(b.data, b.len), JSON_DUPLICATE_KEY);
		buffer_clear(&b);
		many_keys(&b, n, false);
		assert_int_equal(outcome_of(b.data, b.len), 0);
	}
}

/* The body of a megabyte that is made of one piece. */
static double cost_of_repeating(const char *head, const char *piece, int outcome)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(2 * MEBIBYTE);
	assert_int_equal(buffer_append_text(&b, head), 0);
	while (b.len < MEBIBYTE)
		assert_int_equal(buffer_append_text(&b, piece), 0);
	double began = seconds_now();
	assert_int_equal(outcome_of(b.data, b.len), outcome);
	return seconds_now() - began;
}

static void refuses_a_hostile_megabyte_cheaply(void **state)
{
	static const struct {
		const char *head, *piece;
	} bodies[] = {
		{ "", "[" },
		{ "{\"a\":", "[" },
		{ "{\"a\":", "{\"a\":" },
		{ "{\"a\":[0", ",0" },
		{ "{\"a\":\"", "x" },
		{ "{\"a\":\"", "\\ud800" },
		{ "{\"a\":1", "0" },
		{ "{\"a\":0.", "0" },
		{ "{", " " },
		{ "{\"a\":[", "[]," },
		{ "{\"a\":\"", "\xf0\x9f\x98\x80" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
		assert_true(cost_of_repeating(bodies[i].head, bodies[i].piece,
					      JSON_NOT_ONE_OBJECT) < 0.5);
}

/* The most memory this process has had so far, in KiB. */
static long peak_kib(void)
{
	char line[256];
	long kib = 0;
	CLEANUP_FILE FILE *f = fopen("/proc/self/status", "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, "VmHWM:", 6) == 0)
			kib = strtol(line + 6, NULL, 10);
	assert_true(kib > 0);
	return kib;
}

/* Half a million values are over forty megabytes as a tree. Runs first: a peak only rises. */
static void builds_no_tree_of_what_is_too_large(void **state)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(2 * MEBIBYTE);
	assert_int_equal(buffer_append_text(&b, "{\"a\":[0"), 0);
	while (b.len < MEBIBYTE)
		assert_int_equal(buffer_append_text(&b, ",0"), 0);
	assert_int_equal(buffer_append_text(&b, "]}"), 0);
	long before = peak_kib();
	assert_int_equal(outcome_of(b.data, b.len), JSON_TOO_MANY);
	assert_true(peak_kib() - before < 8 * 1024);
}

static void reads_values_as_they_were_sent(void **state)
{
	AUTO_DOC doc = parsed("{\"t\":true,\"f\":false,\"n\":null,\"i\":-42,\"d\":2.5,"
			      "\"s\":\"a\\n\\u00e9\\ud83d\\ude00\",\"l\":[1,[2]],\"o\":{\"x\":1}}");
	const struct json_value *root = json_root(doc);
	assert_int_equal(json_type(root), JSON_OBJECT);
	assert_true(json_bool(json_member(root, "t")));
	assert_false(json_bool(json_member(root, "f")));
	assert_int_equal(json_type(json_member(root, "n")), JSON_NULL);
	int64_t integer = 0;
	assert_true(json_integer(json_member(root, "i"), &integer));
	assert_int_equal(integer, -42);
	assert_false(json_integer(json_member(root, "d"), &integer));
	assert_true(json_number(json_member(root, "d")) * 2 == 5);
	struct span text = json_string(json_member(root, "s"));
	assert_true(span_is(text, SPAN_LITERAL("a\n\xc3\xa9\xf0\x9f\x98\x80")));
	assert_null(json_string(json_member(root, "i")).s);
	const struct json_value *list = json_member(root, "l");
	assert_int_equal(json_type(list), JSON_ARRAY);
	assert_string_equal(json_key(json_first(list)), "");
	assert_int_equal(json_type(json_next(json_first(list))), JSON_ARRAY);
	assert_null(json_next(json_next(json_first(list))));
	assert_null(json_first(NULL));
	assert_string_equal(json_key(json_first(root)), "t");
}

static void looks_members_up_by_exact_case(void **state)
{
	AUTO_DOC doc = parsed("{\"TYPE\":1,\"typ\":2,\"typee\":3,\"a\":[{\"type\":4}]}");
	assert_null(json_member(json_root(doc), "type"));
	assert_null(json_member(json_member(json_root(doc), "a"), "type"));
	assert_null(json_member(NULL, "type"));
	assert_non_null(json_member(json_root(doc), "TYPE"));
}

static void says_integer_only_of_exact_ones(void **state)
{
	static const struct {
		const char *text;
		bool integer;
		int64_t value;
	} numbers[] = {
		{ "{\"a\":9007199254740992}", true, INT64_C(9007199254740992) },
		{ "{\"a\":-9007199254740992}", true, -INT64_C(9007199254740992) },
		{ "{\"a\":9007199254740994}", false, 0 },
		{ "{\"a\":1e400}", false, 0 },
		{ "{\"a\":-1e400}", false, 0 },
		{ "{\"a\":1.5}", false, 0 },
		{ "{\"a\":3.0}", true, 3 },
		{ "{\"a\":3e2}", true, 300 },
		{ "{\"a\":-0}", true, 0 },
		{ "{\"a\":\"1\"}", false, 0 },
		{ "{\"a\":true}", false, 0 },
	};
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		AUTO_DOC doc = parsed(numbers[i].text);
		int64_t n = 0;
		assert_int_equal(json_integer(json_first(json_root(doc)), &n), numbers[i].integer);
		assert_int_equal(n, numbers[i].value);
	}
}

/* The number buffer of older tree builders ends at 63 characters. */
static void shortens_long_numbers_for_the_tree_builder(void **state)
{
	for (size_t digits = 60; digits < 70; digits++) {
		char text[100] = "{\"a\":1";
		size_t len = 6 + digits;
		bool repair = false;
		memset(text + 6, '0', digits - 1);
		text[5 + digits] = '}';
		assert_int_equal(json_scan_text(text, len, &repair), 0);
		assert_int_equal(repair, digits > 63);
		json_scan_repair(text, len);
		assert_int_equal(strlen(text), len);
		assert_true(strspn(text + 5, "-+.eE0123456789") <= 63);
		assert_true(fabs(strtod(text + 5, NULL) / pow(10, (double)digits - 1) - 1) < 1e-9);
	}
}

static void reads_numbers_of_any_length(void **state)
{
	for (size_t zeros = 55; zeros < 75; zeros++) {
		char text[256], digits[80];
		memset(digits, '0', zeros);
		digits[zeros] = '\0';
		(void)snprintf(text, sizeof(text), "{\"a\":[0.%s25e%zu,\"-%s\"]}", digits, zeros,
			       digits);
		AUTO_DOC doc = parsed(text);
		const struct json_value *number = json_first(json_member(json_root(doc), "a"));
		assert_true(fabs(json_number(number) - 0.25) < 1e-12);
		const char *string = json_string(json_next(number)).s;
		assert_true(string[0] == '-' && strcmp(string + 1, digits) == 0);
	}
	char huge[420] = "{\"a\":-";
	memset(huge + 6, '9', 400);
	memcpy(huge + 406, "}", 2);
	for (int negative = 1; negative >= 0; negative--) {
		huge[5] = negative ? '-' : '9';
		AUTO_DOC doc = parsed(huge);
		double number = json_number(json_first(json_root(doc)));
		assert_true(isinf(number) && (number < 0) == negative);
	}
}

static void mends_nul_and_lone_surrogates_in_free_text(void **state)
{
	static const struct {
		const char *text, *expected;
	} strings[] = {
		{ "{\"a\":\"x\\u0000y\"}", "x\xef\xbf\xbdy" },
		{ "{\"a\":\"\\ud800\"}", "\xef\xbf\xbd" },
		{ "{\"a\":\"\\udc00x\"}", "\xef\xbf\xbdx" },
		{ "{\"a\":\"\\ud800\\ud83d\\ude00\"}", "\xef\xbf\xbd\xf0\x9f\x98\x80" },
		{ "{\"a\":\"\\ud800\\u0041\"}", "\xef\xbf\xbd\x41" },
		{ "{\"a\":\"\\uDFFF\\uD800\"}", "\xef\xbf\xbd\xef\xbf\xbd" },
		{ "{\"a\":\"\\\\u0000\\u0000\"}", "\\u0000\xef\xbf\xbd" },
		{ "{\"a\":\"\\\"\\u0000-1\\\\\"}", "\"\xef\xbf\xbd-1\\" },
		{ "{\"a\":\"\\ud83d\\ude00\"}", "\xf0\x9f\x98\x80" },
		{ "{\"\\u0000\":\"k\"}", "k" },
		{ "{\"a\":\"\\ud83d12345\"}", "\xef\xbf\xbd\x31\x32\x33\x34\x35" },
		{ "{\"a\":\"\\ud83d\\n12345\"}", "\xef\xbf\xbd\n12345" },
		{ "{\"a\":\"\\ud83d\\uffff\\uffff\"}", "\xef\xbf\xbd\xef\xbf\xbf\xef\xbf\xbf" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		AUTO_DOC doc = parsed(strings[i].text);
		struct span s = json_string(json_first(json_root(doc)));
		assert_string_equal(s.s, strings[i].expected);
		assert_int_equal(s.len, strlen(strings[i].expected));
	}
}

static void does_not_touch_the_callers_text(void **state)
{
	static const char text[] = "{\"a\":\"\\u0000\"}";
	char copy[sizeof(text)];
	memcpy(copy, text, sizeof(text));
	AUTO_DOC doc = NULL;
	assert_int_equal(json_parse(copy, sizeof(copy) - 1, &doc), 0);
	assert_memory_equal(copy, text, sizeof(text));
}

static void compares_values(void **state)
{
	AUTO_DOC doc = parsed(
		"{\"a\":{\"x\":[1,\"s\",null,true,1e400]},"
		"\"b\":{\"x\":[1.0,\"\\u0073\",null,true,1e500]},"
		"\"c\":{\"x\":[1,\"s\",null,false,1e400]},\"d\":{\"x\":[1,\"s\",null,true]},"
		"\"e\":{\"y\":[1,\"s\",null,true,1e400]},\"f\":{\"x\":[2,\"s\",null,true,1e400]},"
		"\"g\":\"1\"}");
	const struct json_value *a = json_first(json_root(doc)), *b = json_next(a);
	assert_true(json_equal(a, a));
	assert_true(json_equal(a, b));
	for (const struct json_value *v = json_next(b); v; v = json_next(v)) {
		assert_false(json_equal(a, v));
		assert_false(json_equal(v, a));
	}
}

static void equal_objects_may_order_their_members_otherwise(void **state)
{
	AUTO_DOC doc = parsed("{\"x\":[{\"a\":1,\"b\":{\"c\":2,\"d\":[3,4]}},"
			      "{\"b\":{\"d\":[3,4],\"c\":2},\"a\":1},"
			      "{\"b\":{\"d\":[4,3],\"c\":2},\"a\":1},"
			      "{\"b\":{\"d\":[3,4]},\"a\":1},"
			      "{\"b\":{\"d\":[3,4],\"c\":2,\"e\":5},\"a\":1}]}");
	const struct json_value *a = json_first(json_member(json_root(doc), "x"));
	const struct json_value *b = json_next(a);
	assert_true(json_equal(a, b));
	assert_true(json_equal(b, a));
	for (const struct json_value *v = json_next(b); v; v = json_next(v)) {
		assert_false(json_equal(a, v));
		assert_false(json_equal(v, a));
	}
}

static void knows_utf8(void **state)
{
	assert_true(json_is_utf8("", 0));
	assert_true(json_is_utf8("a\0b", 3));
	assert_true(json_is_utf8("\xf4\x8f\xbf\xbf", 4));
	assert_false(json_is_utf8("\xf4\x8f\xbf\xbf", 3));
	assert_false(json_is_utf8("\xed\xa0\x80", 3));
	assert_false(json_is_utf8("a\xc0\x80", 3));
	assert_false(json_is_utf8("\x80", 1));
}

static void writes_strings_that_any_reader_takes(void **state)
{
	static const struct {
		struct span text;
		const char *expected;
	} strings[] = {
		{ { "", 0 }, "\"\"" },
		{ { NULL, 0 }, "\"\"" },
		{ { "a\"b\\c/", 6 }, "\"a\\\"b\\\\c/\"" },
		{ { "\b\f\n\r\t\x01\x1f\x7f", 8 }, "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\"" },
		{ { "a\0b", 3 }, "\"a\\u0000b\"" },
		{ { "\xc3\xa9\xf0\x9f\x98\x80", 6 }, "\"\xc3\xa9\xf0\x9f\x98\x80\"" },
		{ { "a\xff\xc3", 3 }, "\"a\xef\xbf\xbd\xef\xbf\xbd\"" },
		{ { "\n", 1 }, "\"\\n\"" },
		{ { "x\n", 2 }, "\"x\\n\"" },
	};
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(100);
		assert_int_equal(json_append_string(&b, strings[i].text), 0);
		assert_string_equal(b.data, strings[i].expected);
		assert_int_equal(b.len, strlen(strings[i].expected));
	}
}

static void writes_all_of_a_string_or_nothing(void **state)
{
	for (size_t max = 1; max < 12; max++) {
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(max);
		assert_int_equal(buffer_append_text(&b, "x"), 0);
		assert_int_equal(json_append_string(&b, SPAN_LITERAL("aaaa\nbbb")), -ENOBUFS);
		assert_int_equal(b.len, 1);
		assert_string_equal(b.data, "x");
	}
}

static void writes_values_compactly_and_in_order(void **state)
{
	AUTO_DOC doc =
		parsed("{ \"z\" : [ 1 , 2.50 , -0.1, 1e22, 1e400, true , false , null ] ,\n"
		       "\"a\" : { \"\" : \"\\u0000\\u001b<\" , \"\\u00e9\" : { } } , \"m\" : [ ] ,"
		       "\"i\" : 9007199254740991 }");
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(1000);
	assert_int_equal(json_append_value(&b, json_root(doc)), 0);
	assert_string_equal(b.data,
			    "{\"z\":[1,2.5,-0.1,1e+22,null,true,false,null],"
			    "\"a\":{\"\":\"\xef\xbf\xbd\\u001b<\",\"\xc3\xa9\":{}},\"m\":[],"
			    "\"i\":9007199254740991}");
	for (size_t max = 0; max < b.len; max++) {
		CLEANUP(buffer_finish) struct buffer small = BUFFER_INIT(max);
		assert_int_equal(json_append_value(&small, json_root(doc)), -ENOBUFS);
		assert_int_equal(small.len, 0);
	}
}

static void writes_numbers_so_that_the_same_is_read_back(void **state)
{
	static const char *const numbers[] = { "0.1", "0.30000000000000004", "0.29999999999999993",
					       "5e-324", "1.7976931348623157e+308" };
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		char text[64];
		(void)snprintf(text, sizeof(text), "{\"a\":%s}", numbers[i]);
		AUTO_DOC doc = parsed(text);
		CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(100);
		assert_int_equal(json_append_value(&b, json_root(doc)), 0);
		AUTO_DOC again = parsed(b.data);
		assert_true(json_equal(json_root(doc), json_root(again)));
	}
}

/* Beginning with the short of two: more than sixteen keys, deep nesting, something to mend. */
static void out_of_memory_is_said_and_leaves_nothing_behind(void **state)
{
	static const char *const texts[] = {
		"{\"a\":[1,{\"b\":\"c\"}]}",
		"{\"a\":1,\"b\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6,\"g\":7,\"h\":8,\"i\":9,"
		"\"j\":0,\"k\":1,\"l\":2,\"m\":3,\"n\":4,\"o\":5,\"p\":6,\"q\":\"\\u0000\"}",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
		"[["
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	};
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char text[400];
		(void)snprintf(text, sizeof(text), "%s%s", i == 2 ? "{\"a\":" : "", texts[i]);
		int sound = outcome_of(text, strlen(text));
		assert_int_equal(sound, i == 2 ? JSON_NOT_ONE_OBJECT : 0);
		long n = 1;
		for (bool hit = true; hit; n++) {
			struct json_doc *doc = NULL;
			scarce_begin(n);
			int r = json_parse(text, strlen(text), &doc);
			hit = scarce_end();
			assert_int_equal(r, hit ? -ENOMEM : sound);
			assert_true((r == 0) == (doc != NULL));
			json_doc_free(doc);
		}
		assert_true(n > 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builds_no_tree_of_what_is_too_large),
		cmocka_unit_test(accepts_what_the_rfc_allows),
		cmocka_unit_test(refuses_what_is_not_exactly_one_object),
		cmocka_unit_test(refuses_numbers_outside_the_grammar),
		cmocka_unit_test(refuses_broken_strings_and_encodings),
		cmocka_unit_test(refuses_a_nul_byte_anywhere),
		cmocka_unit_test(refuses_every_proper_prefix),
		cmocka_unit_test(refuses_a_length_extension),
		cmocka_unit_test(counts_depth_and_names_it_only_for_a_sound_object),
		cmocka_unit_test(remembers_every_level_of_a_mixed_nesting),
		cmocka_unit_test(counts_values_and_names_it_only_for_a_sound_object),
		cmocka_unit_test(names_depth_before_number_before_duplicates),
		cmocka_unit_test(finds_duplicate_keys_in_any_object_after_unescaping),
		cmocka_unit_test(takes_keys_for_different_that_differ_anywhere),
		cmocka_unit_test(finds_a_duplicate_among_very_many_keys_quickly),
		cmocka_unit_test(finds_a_duplicate_among_any_number_of_keys),
		cmocka_unit_test(refuses_a_hostile_megabyte_cheaply),
		cmocka_unit_test(reads_values_as_they_were_sent),
		cmocka_unit_test(looks_members_up_by_exact_case),
		cmocka_unit_test(says_integer_only_of_exact_ones),
		cmocka_unit_test(reads_numbers_of_any_length),
		cmocka_unit_test(shortens_long_numbers_for_the_tree_builder),
		cmocka_unit_test(mends_nul_and_lone_surrogates_in_free_text),
		cmocka_unit_test(does_not_touch_the_callers_text),
		cmocka_unit_test(compares_values),
		cmocka_unit_test(writes_numbers_so_that_the_same_is_read_back),
		cmocka_unit_test(out_of_memory_is_said_and_leaves_nothing_behind),
		cmocka_unit_test(equal_objects_may_order_their_members_otherwise),
		cmocka_unit_test(knows_utf8),
		cmocka_unit_test(writes_strings_that_any_reader_takes),
		cmocka_unit_test(writes_all_of_a_string_or_nothing),
		cmocka_unit_test(writes_values_compactly_and_in_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
