/* Log lines: their three forms, that input cannot forge or break one, levels and the limiter.
 *
 * A test writes to standard error through a memory file put in its place, and reads it back.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cjson/cJSON.h>
#include <cmocka.h>

#include "clock.h"

static struct {
	int file;
	int real_stderr;
	char text[1 << 18];
} capture;

static void capture_begin(void)
{
	capture.file = memfd_create("log", MFD_CLOEXEC);
	capture.real_stderr = dup(STDERR_FILENO);
	assert_true(capture.file >= 0 && capture.real_stderr >= 0);
	assert_int_equal(fcntl(capture.file, F_SETFL, O_APPEND), 0);
	assert_int_equal(dup2(capture.file, STDERR_FILENO), STDERR_FILENO);
}

/* Puts standard error back before anything is asserted, returns what was written. */
static const char *capture_end(void)
{
	(void)dup2(capture.real_stderr, STDERR_FILENO);
	(void)close(capture.real_stderr);
	ssize_t n = pread(capture.file, capture.text, sizeof(capture.text) - 1, 0);
	(void)close(capture.file);
	assert_true(n >= 0 && (size_t)n < sizeof(capture.text) - 1);
	capture.text[n] = '\0';
	return capture.text;
}

/* As where no journal listens. */
static void configure(enum log_level level, enum log_format format)
{
	(void)unsetenv("JOURNAL_STREAM");
	log_configure(level, format);
}

/* One line of text without its time, which is checked. */
static const char *behind_time(const char *line)
{
	int64_t ns;
	assert_int_equal(clock_parse_rfc3339(line, 24, &ns), 0);
	assert_true(ns / CLOCK_NS_PER_MS <= clock_unix_ms());
	assert_true(ns / CLOCK_NS_PER_MS > clock_unix_ms() - 60000);
	assert_int_equal(line[24], ' ');
	return line + 25;
}

static const char *text_line(const char *value)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	capture_begin();
	log_line(LOG_LEVEL_INFO, "m", LOG_TEXT("k", value));
	return behind_time(capture_end());
}

/* The caller deletes it. Fails unless it was one line and one object. */
static cJSON *json_line(const char *line)
{
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	const char *end = NULL;
	cJSON *object = cJSON_ParseWithOpts(line, &end, false);
	if (!cJSON_IsObject(object) || strcmp(end, "\n") != 0)
		fail_msg("not one object: %s", line);
	return object;
}

static const char *member(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
	return text ? text : "(none)";
}

static void writes_time_level_message_and_fields(void **state)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	capture_begin();
	log_line(LOG_LEVEL_WARNING, "disk is full", LOG_TEXT("path", "/var/lib/x.db"),
		 LOG_NUM("bytes", -5), LOG_TEXT("absent", NULL), LOG_NUM("max", INT64_MIN));
	assert_string_equal(behind_time(capture_end()),
			    "warning disk is full path=/var/lib/x.db bytes=-5 "
			    "max=-9223372036854775808\n");
}

static void writes_a_sentence(void **state)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	capture_begin();
	log_say(LOG_LEVEL_ERROR, "%d of %s", 3, "them");
	assert_string_equal(behind_time(capture_end()), "error 3 of them\n");
}

static void quotes_values_that_are_not_one_plain_word(void **state)
{
	assert_string_equal(text_line("plain-1.2/x:y@z"), "info m k=plain-1.2/x:y@z\n");
	assert_string_equal(text_line(""), "info m k=\"\"\n");
	assert_string_equal(text_line("a b"), "info m k=\"a b\"\n");
	assert_string_equal(text_line("a=b"), "info m k=\"a=b\"\n");
	assert_string_equal(text_line("say \"no\""), "info m k=\"say \\\"no\\\"\"\n");
	assert_string_equal(text_line("5\"disk"), "info m k=\"5\\\"disk\"\n");
	assert_string_equal(text_line("back\\slash"), "info m k=\"back\\\\slash\"\n");
	assert_string_equal(text_line("na\xc3\xafve \xf0\x9f\x98\x80"),
			    "info m k=\"na\xc3\xafve \xf0\x9f\x98\x80\"\n");
}

static void escapes_what_would_act_on_a_terminal(void **state)
{
	assert_string_equal(text_line("a\nb"), "info m k=\"a\\nb\"\n");
	assert_string_equal(text_line("\r\t\x1b[2J\x7f"), "info m k=\"\\x0d\\x09\\x1b[2J\\x7f\"\n");
	assert_string_equal(text_line("\xc2\x9b"), "info m k=\"\\u009b\"\n");
	assert_string_equal(text_line("\xe2\x80\xae"), "info m k=\"\\u202e\"\n");
	assert_string_equal(text_line("\xe2\x80\xa8"), "info m k=\"\\u2028\"\n");
}

static void tells_the_bytes_that_are_not_utf8(void **state)
{
	assert_string_equal(text_line("\xff"), "info m k=\"\\xff\"\n");
	assert_string_equal(text_line("\xc3"), "info m k=\"\\xc3\"\n");
	assert_string_equal(text_line("\xc3("), "info m k=\"\\xc3(\"\n");
	assert_string_equal(text_line("\xc0\x8a"), "info m k=\"\\xc0\\x8a\"\n");
	assert_string_equal(text_line("\xe0\x80\x8a"), "info m k=\"\\xe0\\x80\\x8a\"\n");
	assert_string_equal(text_line("\xed\xa0\x80"), "info m k=\"\\xed\\xa0\\x80\"\n");
	assert_string_equal(text_line("\xf4\x90\x80\x80"), "info m k=\"\\xf4\\x90\\x80\\x80\"\n");
	assert_string_equal(text_line("\xfc\x80\x80\x80"), "info m k=\"\\xfc\\x80\\x80\\x80\"\n");
	assert_string_equal(text_line("\xf8\x88\x80\x80"), "info m k=\"\\xf8\\x88\\x80\\x80\"\n");
}

static void cannot_be_made_to_forge_a_line(void **state)
{
	static const char evil[] = "x\n2026-11-22T10:00:00.123Z error forged key=\"v\"\r";
	for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
		configure(LOG_LEVEL_INFO, (enum log_format)format);
		capture_begin();
		log_line(LOG_LEVEL_INFO, evil, LOG_TEXT("k", evil));
		log_say(LOG_LEVEL_INFO, "%s", evil);
		const char *text = capture_end();
		size_t n_lines = 0;
		for (const char *s = text; *s; s++) {
			n_lines += *s == '\n';
			assert_int_not_equal(*s, '\r');
		}
		assert_int_equal(n_lines, 2);
	}
}

static void writes_one_json_object_a_line(void **state)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	capture_begin();
	log_line(LOG_LEVEL_NOTICE, "a \"message\"\n", LOG_TEXT("path", "C:\\x\ty\x01"),
		 LOG_NUM("bytes", 12345678901), LOG_TEXT("absent", NULL), LOG_TEXT("empty", ""));
	const char *line = capture_end();
	cJSON *object = json_line(line);
	assert_int_equal(cJSON_GetArraySize(object), 6);
	assert_string_equal(member(object, "level"), "notice");
	assert_string_equal(member(object, "message"), "a \"message\"\n");
	assert_string_equal(member(object, "path"), "C:\\x\ty\x01");
	assert_string_equal(member(object, "empty"), "");
	assert_non_null(strstr(line, ",\"bytes\":12345678901,"));
	int64_t ns;
	assert_int_equal(clock_parse_rfc3339(member(object, "time"), 24, &ns), 0);
	cJSON_Delete(object);
}

static void replaces_in_json_the_bytes_that_are_not_utf8(void **state)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	capture_begin();
	log_line(LOG_LEVEL_INFO, "m", LOG_TEXT("k", "a\xff\xc3\xa4\xe2\x80\xaez\xc3"));
	const char *line = capture_end();
	assert_non_null(strstr(line, "\"k\":\"a\\ufffd\xc3\xa4\\u202ez\\ufffd\"}\n"));
}

/* Each length of a long value moves the border of the line over another place. */
static void cuts_long_lines_and_says_so(void **state)
{
	char value[LOG_LINE_MAX + 200];
	for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
		configure(LOG_LEVEL_INFO, (enum log_format)format);
		size_t n_cut = 0, n_whole = 0;
		for (size_t len = LOG_LINE_MAX - 200; len < sizeof(value); len++) {
			memset(value, 'a', len);
			value[len / 2] = '\n';
			value[len] = '\0';
			capture_begin();
			log_line(LOG_LEVEL_INFO, "m", LOG_TEXT("k", value), LOG_NUM("n", 12345),
				 LOG_TEXT("t", "\"\n\""), LOG_TEXT("bare", "word"));
			const char *line = capture_end();
			size_t line_len = strlen(line);
			assert_true(line_len <= LOG_LINE_MAX);
			assert_ptr_equal(strchr(line, '\n'), line + line_len - 1);
			bool whole = strstr(line, "word");
			bool cut;
			if (format == LOG_FORMAT_JSON) {
				cJSON *object = json_line(line);
				cut = cJSON_IsTrue(cJSON_GetObjectItem(object, "truncated"));
				cJSON_Delete(object);
			} else {
				cut = strcmp(line + line_len - 5, " ...\n") == 0;
			}
			assert_true(whole != cut);
			n_cut += cut;
			n_whole += whole;
		}
		assert_true(n_cut > 200 && n_whole > 20);
	}
}

static void does_not_cut_a_character_in_two(void **state)
{
	char value[LOG_LINE_MAX * 2];
	for (size_t shift = 0; shift < 4; shift++) {
		memset(value, 'a', sizeof(value) - 1);
		for (size_t i = shift; i + 4 < sizeof(value); i += 4)
			memcpy(value + i, "\xf0\x9f\x98\x80", 4);
		value[sizeof(value) - 1] = '\0';
		configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
		capture_begin();
		log_line(LOG_LEVEL_INFO, "m", LOG_TEXT("k", value));
		const char *line = capture_end();
		assert_string_equal(line + strlen(line) - 10, "\xf0\x9f\x98\x80\" ...\n");
	}
}

static void marks_a_sentence_longer_than_a_line(void **state)
{
	char words[2 * LOG_LINE_MAX];
	memset(words, 'w', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	capture_begin();
	log_say(LOG_LEVEL_INFO, "%s", words);
	const char *line = capture_end();
	assert_true(strlen(line) <= LOG_LINE_MAX);
	assert_string_equal(line + strlen(line) - 6, "w ...\n");
}

/* Configures with standard error being the captured file and JOURNAL_STREAM naming it, or, with
 * an offset, another. */
static void capture_begin_as_journald(enum log_format format, uintmax_t inode_offset)
{
	struct stat st;
	char stream[64];
	capture_begin();
	(void)fstat(STDERR_FILENO, &st);
	(void)snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)st.st_dev,
		       (uintmax_t)st.st_ino + inode_offset);
	(void)setenv("JOURNAL_STREAM", stream, 1);
	log_configure(LOG_LEVEL_DEBUG, format);
}

static void gives_journald_priorities_instead_of_the_time(void **state)
{
	capture_begin_as_journald(LOG_FORMAT_TEXT, 0);
	log_say(LOG_LEVEL_ERROR, "m");
	log_say(LOG_LEVEL_WARNING, "m");
	log_say(LOG_LEVEL_NOTICE, "m");
	log_line(LOG_LEVEL_INFO, "m", LOG_TEXT("k", "v\n<0>forged"));
	log_say(LOG_LEVEL_DEBUG, "m");
	assert_string_equal(capture_end(), "<3>error m\n<4>warning m\n<5>notice m\n"
					   "<6>info m k=\"v\\n<0>forged\"\n<7>debug m\n");
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void puts_the_priority_before_json_for_journald(void **state)
{
	capture_begin_as_journald(LOG_FORMAT_JSON, 0);
	log_say(LOG_LEVEL_WARNING, "m");
	const char *line = capture_end();
	assert_memory_equal(line, "<4>{", 4);
	cJSON_Delete(json_line(line + 3));
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void keeps_the_time_where_the_journal_is_not_its_standard_error(void **state)
{
	capture_begin_as_journald(LOG_FORMAT_TEXT, 1);
	log_say(LOG_LEVEL_WARNING, "m");
	assert_string_equal(behind_time(capture_end()), "warning m\n");
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
}

static void writes_nothing_below_its_level(void **state)
{
	for (int limit = LOG_LEVEL_ERROR; limit <= LOG_LEVEL_DEBUG; limit++) {
		configure((enum log_level)limit, LOG_FORMAT_TEXT);
		capture_begin();
		for (int level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
			log_write((enum log_level)level, "w", NULL, 0);
			log_say((enum log_level)level, "s");
		}
		int n_lines = 0;
		for (const char *s = capture_end(); *s; s++)
			n_lines += *s == '\n';
		assert_int_equal(n_lines, 2 * (limit + 1));
	}
}

static void keeps_errno(void **state)
{
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	capture_begin();
	(void)close(STDERR_FILENO);
	errno = EDOM;
	log_say(LOG_LEVEL_ERROR, "to nobody");
	int after = errno;
	(void)capture_end();
	assert_int_equal(after, EDOM);
}

static void knows_its_levels_by_name(void **state)
{
	static const char *const names[] = { "error", "warning", "notice", "info", "debug" };
	static const char *const others[] = { "", "Error", "warn", "info ", "0", "debug2" };
	enum log_level level;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_true(log_level_from_name(names[i], &level));
		assert_int_equal(level, i);
	}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_false(log_level_from_name(others[i], &level));
}

static void holds_back_lines_over_the_burst_and_tells_how_many_once(void **state)
{
	struct log_limit limit = { .burst = 3 };
	unsigned int held_back = 99;
	for (int i = 0; i < 3; i++) {
		assert_true(log_limit_allows(&limit, &held_back));
		assert_int_equal(held_back, 0);
	}
	for (int i = 0; i < 5; i++) {
		assert_false(log_limit_allows(&limit, &held_back));
		assert_int_equal(held_back, 0);
	}
	limit.window_start_ms -= 10000;
	assert_true(log_limit_allows(&limit, &held_back));
	assert_int_equal(held_back, 5);
	assert_true(log_limit_allows(&limit, &held_back));
	assert_int_equal(held_back, 0);
	assert_true(log_limit_allows(&limit, &held_back));
	assert_false(log_limit_allows(&limit, &held_back));
}

static void keeps_the_count_for_who_asks(void **state)
{
	struct log_limit limit = { .burst = 1 };
	unsigned int held_back;
	assert_true(log_limit_allows(&limit, NULL));
	assert_false(log_limit_allows(&limit, NULL));
	limit.window_start_ms -= 10000;
	assert_true(log_limit_allows(&limit, NULL));
	limit.window_start_ms -= 10000;
	assert_true(log_limit_allows(&limit, &held_back));
	assert_int_equal(held_back, 1);
}

#define N_THREADS 4
#define N_LINES 250

static struct log_limit shared_limit;

static void *write_lines(void *arg)
{
	uintptr_t n_allowed = 0;
	for (int i = 0; i < N_LINES; i++) {
		log_line(LOG_LEVEL_INFO, "from a thread", LOG_TEXT("word", "some words"),
			 LOG_NUM("n", 7));
		n_allowed += log_limit_allows(&shared_limit, NULL);
		if (i % 50 == 0)
			log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	}
	return (void *)n_allowed;
}

static void keeps_lines_whole_and_counts_right_among_threads(void **state)
{
	pthread_t threads[N_THREADS];
	uintptr_t n_allowed = 0;
	configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
	shared_limit = (struct log_limit) { .burst = 100, .window_start_ms = clock_mono_ms() };
	capture_begin();
	int n_started = 0;
	while (n_started < N_THREADS &&
	       pthread_create(&threads[n_started], NULL, write_lines, NULL) == 0)
		n_started++;
	for (int i = 0; i < n_started; i++) {
		void *result = NULL;
		(void)pthread_join(threads[i], &result);
		n_allowed += (uintptr_t)result;
	}
	const char *line = capture_end();
	assert_int_equal(n_started, N_THREADS);
	static const char expected[] = "info from a thread word=\"some words\" n=7\n";
	for (int i = 0; i < N_THREADS * N_LINES; i++) {
		line = behind_time(line);
		assert_memory_equal(line, expected, sizeof(expected) - 1);
		line += sizeof(expected) - 1;
	}
	assert_string_equal(line, "");
	assert_int_equal(n_allowed + shared_limit.held_back, N_THREADS * N_LINES);
	assert_true(n_allowed >= 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_time_level_message_and_fields),
		cmocka_unit_test(writes_a_sentence),
		cmocka_unit_test(quotes_values_that_are_not_one_plain_word),
		cmocka_unit_test(escapes_what_would_act_on_a_terminal),
		cmocka_unit_test(tells_the_bytes_that_are_not_utf8),
		cmocka_unit_test(cannot_be_made_to_forge_a_line),
		cmocka_unit_test(writes_one_json_object_a_line),
		cmocka_unit_test(replaces_in_json_the_bytes_that_are_not_utf8),
		cmocka_unit_test(cuts_long_lines_and_says_so),
		cmocka_unit_test(does_not_cut_a_character_in_two),
		cmocka_unit_test(marks_a_sentence_longer_than_a_line),
		cmocka_unit_test(gives_journald_priorities_instead_of_the_time),
		cmocka_unit_test(puts_the_priority_before_json_for_journald),
		cmocka_unit_test(keeps_the_time_where_the_journal_is_not_its_standard_error),
		cmocka_unit_test(writes_nothing_below_its_level),
		cmocka_unit_test(keeps_errno),
		cmocka_unit_test(knows_its_levels_by_name),
		cmocka_unit_test(holds_back_lines_over_the_burst_and_tells_how_many_once),
		cmocka_unit_test(keeps_the_count_for_who_asks),
		cmocka_unit_test(keeps_lines_whole_and_counts_right_among_threads),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
