/* Running programs: outcomes, output, and what is left behind in this process: nothing. What the
 * program itself sees is tested end to end.
 */
#include "command.h"

#include "clock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static char folder[] = "/tmp/hookd-command-XXXXXX";
static char script[64];

static int make_folder(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(script, sizeof(script), "%s/script", folder);
	return 0;
}

static int remove_folder(void **state)
{
	(void)unlink(script);
	return rmdir(folder);
}

static void write_script(const char *text)
{
	FILE *f = fopen(script, "we");
	assert_non_null(f);
	assert_true(fprintf(f, "#!/bin/sh\n%s\n", text) > 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(script, 0755), 0);
}

static int run(const char *text, const char *input, int64_t timeout_ms, struct command_result *ret)
{
	write_script(text);
	return command_run(script, (struct span) { input, strlen(input) }, timeout_ms, NULL, ret);
}

static unsigned int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;
	assert_non_null(d);
	while (readdir(d))
		n++;
	assert_int_equal(closedir(d), 0);
	return n;
}

static void the_input_is_read_and_the_beginning_of_the_output_kept(void **state)
{
	struct command_result r;
	assert_int_equal(run("cat; echo err >&2", "hello ", 5000, &r), 0);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.output_len, 10);
	assert_memory_equal(r.output, "hello err\n", 10);
	assert_int_equal(run("head -c 1000000 /dev/zero", "", 5000, &r), 0);
	assert_int_equal(r.output_len, COMMAND_OUTPUT_MAX);
}

static void the_input_may_be_reopened_by_name(void **state)
{
	struct command_result r;
	assert_int_equal(run("cat /dev/stdin", "again", 5000, &r), 0);
	assert_int_equal(r.output_len, 5);
}

static void exit_codes_and_signals_are_told_apart(void **state)
{
	struct command_result r;
	assert_int_equal(run("exit 9", "", 5000, &r), 0);
	assert_int_equal(r.code, 9);
	assert_int_equal(run("kill -9 $$", "", 5000, &r), COMMAND_SIGNALLED);
	assert_int_equal(r.code, 9);
}

static void what_cannot_be_run_says_why(void **state)
{
	struct command_result r;
	write_script("exit 0");
	assert_int_equal(chmod(script, 0644), 0);
	assert_int_equal(command_run(script, SPAN_ABSENT, 1000, NULL, &r), COMMAND_NOT_RUN);
	assert_int_equal(r.error, EACCES);
	assert_int_equal(command_run("/no/such/program", SPAN_ABSENT, 1000, NULL, &r),
			 COMMAND_NOT_RUN);
	assert_int_equal(r.error, ENOENT);
}

static void time_is_up_for_what_ignores_sigterm_too(void **state)
{
	struct command_result r;
	int64_t begin_ms = clock_mono_ms();
	assert_int_equal(run("exec sleep 30", "", 100, &r), COMMAND_TIMEOUT);
	assert_true(clock_mono_ms() - begin_ms < 1000);
	begin_ms = clock_mono_ms();
	assert_int_equal(run("trap '' TERM; sleep 30; sleep 30", "", 100, &r), COMMAND_TIMEOUT);
	assert_true(clock_mono_ms() - begin_ms < 4000);
}

static void a_stop_ends_it_within_a_fifth_of_a_second(void **state)
{
	struct command_result r;
	atomic_bool stop = true;
	write_script("trap '' TERM; sleep 30; sleep 30");
	int64_t begin_ms = clock_mono_ms();
	assert_int_equal(command_run(script, SPAN_ABSENT, 30000, &stop, &r), COMMAND_STOPPED);
	assert_true(clock_mono_ms() - begin_ms < 400);
}

static void nothing_stays_open_and_nobody_unreaped(void **state)
{
	struct command_result r;
	unsigned int before = open_files();
	for (int i = 0; i < 3; i++) {
		assert_int_equal(run("exit 0", "x", 5000, &r), 0);
		assert_int_equal(run("sleep 30", "x", 50, &r), COMMAND_TIMEOUT);
		assert_int_equal(command_run("/no/such", SPAN_ABSENT, 50, NULL, &r),
				 COMMAND_NOT_RUN);
	}
	assert_int_equal(open_files(), before);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void *run_some(void *unused)
{
	struct command_result r;
	uintptr_t good = 0;
	(void)unused;
	for (int i = 0; i < 5; i++)
		good += command_run("/bin/cat", SPAN_LITERAL("abc"), 10000, NULL, &r) == 0 &&
			r.code == 0 && r.output_len == 3;
	return (void *)good; /* NOLINT */
}

static void several_threads_run_programs_at_once(void **state)
{
	pthread_t threads[4];
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_some, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
		void *good = NULL;
		assert_int_equal(pthread_join(threads[i], &good), 0);
		assert_int_equal((uintptr_t)good, 5);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_input_is_read_and_the_beginning_of_the_output_kept),
		cmocka_unit_test(the_input_may_be_reopened_by_name),
		cmocka_unit_test(exit_codes_and_signals_are_told_apart),
		cmocka_unit_test(what_cannot_be_run_says_why),
		cmocka_unit_test(time_is_up_for_what_ignores_sigterm_too),
		cmocka_unit_test(a_stop_ends_it_within_a_fifth_of_a_second),
		cmocka_unit_test(nothing_stays_open_and_nobody_unreaped),
		cmocka_unit_test(several_threads_run_programs_at_once),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
