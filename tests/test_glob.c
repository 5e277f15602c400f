/* Patterns and lists: what a filter lets through, and what of a list is refused. */
#include "glob.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct span text_span(const char *text)
{
	return (struct span) { text, text ? strlen(text) : 0 };
}

static void matches_patterns(void **state)
{
	static const struct {
		const char *pattern, *value;
		bool match;
	} cases[] = {
		{ "abc", "abc", true },
		{ "abc", "abcd", false },
		{ "abc", "ab", false },
		{ "abc", "ABC", false },
		{ "", "", true },
		{ "", "a", false },
		{ "*", "", true },
		{ "*", "abc", true },
		{ "**", "abc", true },
		{ "a*", "a", true },
		{ "a*", "ba", false },
		{ "*c", "abc", true },
		{ "*c", "abcd", false },
		{ "a*c", "ac", true },
		{ "a*c", "abcbc", true },
		{ "a*b*c", "aXbYbZc", true },
		{ "a*b*c", "acb", false },
		{ "*ab*", "aab", true },
		{ "?", "a", true },
		{ "?", "", false },
		{ "?", "ab", false },
		{ "a?c", "abc", true },
		{ "*?", "", false },
		{ "?*", "ab", true },
		{ "*a?", "aaab", true },
		{ "a*?b", "ab", false },
		{ "[ab]", "a", false },
		{ "[ab]", "[ab]", true },
		{ "\\*", "*", false },
		{ "*", "*", true },
		{ "sandbox.lifecycle.*", "sandbox.lifecycle.killed", true },
		{ "sandbox.lifecycle.*", "sandboxXlifecycleXkilled", false },
	};
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		if (glob_match(cases[i].pattern, text_span(cases[i].value)) != cases[i].match)
			fail_msg("%s on '%s'", cases[i].pattern, cases[i].value);
}

static void reads_no_further_than_the_length_of_a_value(void **state)
{
	assert_true(glob_match("abc", (struct span) { "abcd", 3 }));
	assert_false(glob_match("a", (struct span) { "a\0b", 3 }));
	assert_true(glob_match("a?b", (struct span) { "a\0b", 3 }));
	assert_true(glob_match("a*b", (struct span) { "a\0b", 3 }));
}

static void matches_an_absent_value_by_the_lone_star(void **state)
{
	assert_true(glob_match("*", SPAN_ABSENT));
	assert_false(glob_match("**", SPAN_ABSENT));
	assert_false(glob_match("?", SPAN_ABSENT));
	assert_false(glob_match("", SPAN_ABSENT));
	assert_true(glob_match("", text_span("")));
}

/* Exponential backtracking would not end within the life of the test's timeout. */
static void is_not_blown_up_by_many_stars(void **state)
{
	char pattern[201], value[10001];
	for (size_t i = 0; i < 200; i += 2)
		memcpy(pattern + i, "*a", 3);
	memset(value, 'a', 10000);
	value[9999] = 'b';
	value[10000] = '\0';
	assert_false(glob_match(pattern, text_span(value)));
	value[9999] = 'a';
	assert_true(glob_match(pattern, text_span(value)));
}

static bool list_matches(const char *text, const char *value)
{
	CLEANUP(glob_list_finish) struct glob_list list;
	int r = glob_list_parse(&list, text);
	if (r != 0)
		fail_msg("'%s': %d", text, r);
	return glob_list_match(&list, text_span(value));
}

static void includes_what_any_item_includes(void **state)
{
	assert_true(list_matches("a,b", "a"));
	assert_true(list_matches("a,b", "b"));
	assert_false(list_matches("a,b", "c"));
	assert_true(list_matches(" a* ,\tb ", "abc"));
	assert_true(list_matches(" a* ,\tb ", "b"));
}

static void excludes_wherever_the_exclusion_stands(void **state)
{
	assert_false(list_matches("*, !test-*", "test-1"));
	assert_false(list_matches("!test-*, *", "test-1"));
	assert_false(list_matches("! test-*, *", "test-1"));
	assert_false(list_matches("test-1, !test-*, test-1", "test-1"));
	assert_true(list_matches("*, !test-*", "prod"));
}

static void includes_all_others_when_it_only_excludes(void **state)
{
	assert_true(list_matches("!a, !b*", "c"));
	assert_false(list_matches("!a, !b*", "a"));
	assert_false(list_matches("!a, !b*", "bcd"));
}

static void matches_an_absent_value_by_star_or_by_exclusions_alone(void **state)
{
	assert_true(list_matches("*", NULL));
	assert_true(list_matches("a, *", NULL));
	assert_true(list_matches("*, !a", NULL));
	assert_true(list_matches("!a", NULL));
	assert_false(list_matches("a*, ?*", NULL));
	assert_false(list_matches("a, !b", NULL));
	assert_false(list_matches("!*", NULL));
	assert_false(list_matches("*, !*", NULL));
}

static void judges_several_names_as_one_thing(void **state)
{
	const struct span names[] = { text_span("id123"), text_span("ml-minimal") };
	const struct span only_id[] = { text_span("id123"), SPAN_ABSENT };
	const struct span none[] = { SPAN_ABSENT, SPAN_ABSENT };
	CLEANUP(glob_list_finish) struct glob_list by_alias, by_id, not_alias, star;
	by_alias = by_id = not_alias = star = (struct glob_list) { 0 };
	assert_int_equal(glob_list_parse(&by_alias, "ml-*"), 0);
	assert_int_equal(glob_list_parse(&by_id, "id123"), 0);
	assert_int_equal(glob_list_parse(&not_alias, "id*, !ml-*"), 0);
	assert_int_equal(glob_list_parse(&star, "*"), 0);
	assert_true(glob_list_match_any(&by_alias, names, 2));
	assert_true(glob_list_match_any(&by_id, names, 2));
	assert_false(glob_list_match_any(&not_alias, names, 2));
	assert_false(glob_list_match_any(&by_alias, only_id, 2));
	assert_true(glob_list_match_any(&not_alias, only_id, 2));
	assert_false(glob_list_match_any(&by_id, none, 2));
	assert_true(glob_list_match_any(&star, none, 2));
	assert_true(glob_list_match_any(&star, NULL, 0));
}

static void does_not_count_an_absent_name_beside_a_present_one(void **state)
{
	const struct span names[] = { SPAN_ABSENT, text_span("b") };
	CLEANUP(glob_list_finish) struct glob_list list;
	assert_int_equal(glob_list_parse(&list, "a"), 0);
	assert_false(glob_list_match_any(&list, names, 2));
	assert_true(glob_list_match_any(&list, (struct span[]) { SPAN_ABSENT, text_span("a") }, 2));
}

static void lets_everything_through_when_zeroed(void **state)
{
	const struct glob_list list = { 0 };
	assert_true(glob_list_match(&list, text_span("a")));
	assert_true(glob_list_match(&list, SPAN_ABSENT));
}

static void refuses_empty_and_mistaken_items(void **state)
{
	static const char *const texts[] = { "",  " ",	 ",",  "a,",  ",a",  "a,,b", "a, ,b",
					     "!", "a,!", "! ", "!!a", "a b", "a !b", "!a b" };
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct glob_list list;
		memset(&list, 0xff, sizeof(list));
		int r = glob_list_parse(&list, texts[i]);
		if (r != -EINVAL || list.n != 0 || list.patterns || list.excludes)
			fail_msg("'%s': %d", texts[i], r);
	}
}

static void takes_as_many_items_as_its_limit(void **state)
{
	char text[2 * (GLOB_LIST_MAX + 1) + 1];
	for (size_t i = 0; i <= GLOB_LIST_MAX; i++)
		memcpy(text + 2 * i, "a,", 3);
	text[2 * (GLOB_LIST_MAX + 1) - 1] = '\0';
	struct glob_list list;
	assert_int_equal(glob_list_parse(&list, text), -E2BIG);
	assert_null(list.patterns);
	text[2 * GLOB_LIST_MAX - 1] = '\0';
	assert_int_equal(glob_list_parse(&list, text), 0);
	assert_int_equal(list.n, GLOB_LIST_MAX);
	glob_list_finish(&list);
	glob_list_finish(&list);
	assert_null(list.patterns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches_patterns),
		cmocka_unit_test(reads_no_further_than_the_length_of_a_value),
		cmocka_unit_test(matches_an_absent_value_by_the_lone_star),
		cmocka_unit_test(is_not_blown_up_by_many_stars),
		cmocka_unit_test(includes_what_any_item_includes),
		cmocka_unit_test(excludes_wherever_the_exclusion_stands),
		cmocka_unit_test(includes_all_others_when_it_only_excludes),
		cmocka_unit_test(matches_an_absent_value_by_star_or_by_exclusions_alone),
		cmocka_unit_test(judges_several_names_as_one_thing),
		cmocka_unit_test(does_not_count_an_absent_name_beside_a_present_one),
		cmocka_unit_test(lets_everything_through_when_zeroed),
		cmocka_unit_test(refuses_empty_and_mistaken_items),
		cmocka_unit_test(takes_as_many_items_as_its_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
