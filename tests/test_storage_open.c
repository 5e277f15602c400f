/* Opening a store: what is made, what is refused, and that every refusal says in one line what to
 * do and changes nothing.
 */
#include "storage_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Helpers ----------------------------------------------------------------- */

static void expect_refusal(const struct world *w, const char *path, int r, const char *advice)
{
	struct storage_options options = w->options;
	struct storage *s = NULL;
	char error[STORAGE_ERROR_MAX];
	options.path = path;
	assert_int_equal(storage_open(&options, &s, error), r);
	assert_null(s);
	if (!strstr(error, advice) || strchr(error, '\n') || error[0] != '/')
		fail_msg("\"%s\", but wanted \"%s\"", error, advice);
}

static void write_file(const char *path, const char *text, size_t len)
{
	CLEANUP_FILE FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
}

static size_t read_file(const char *path, char *buf, size_t size)
{
	CLEANUP_FILE FILE *f = fopen(path, "re");
	assert_non_null(f);
	return fread(buf, 1, size, f);
}

static void open_and_close(struct world *w)
{
	open_store(w);
	close_store(w);
}

/* A new store ------------------------------------------------------------- */

static void makes_a_store_with_the_layout_that_lasts(void **state)
{
	struct world *w = *state;
	open_store(w);
	expect_rows(w, "PRAGMA application_id", "1160921668");
	expect_rows(w, "PRAGMA page_size", "4096");
	expect_rows(w, "PRAGMA auto_vacuum", "2");
	expect_rows(w, "PRAGMA journal_mode", "wal");
	expect_rows(
		w,
		"SELECT version = user_version, fold_version FROM schema_info, pragma_user_version",
		"1|1");
	expect_rows(w,
		    "SELECT stored_seq, folded_seq, lag_s, rebuilding, skipped FROM ledger_state",
		    "0|0|0|0|0");
	expect_rows(w, "PRAGMA integrity_check", "ok");
}

/* Readers without any write right need all three while the daemon is down. */
static void leaves_its_files_readable_by_the_group(void **state)
{
	struct world *w = *state;
	(void)umask(0);
	open_and_close(w);
	static const char *const suffixes[] = { "", "-wal", "-shm", ".lock" };
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char path[128];
		struct stat st;
		(void)snprintf(path, sizeof(path), "%s%s", w->path, suffixes[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0640);
	}
}

static void mends_the_mode_of_a_restored_file(void **state)
{
	struct world *w = *state;
	struct stat st;
	open_and_close(w);
	assert_int_equal(chmod(w->path, 0666), 0);
	open_and_close(w);
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
}

static void migrates_once(void **state)
{
	struct world *w = *state;
	open_and_close(w);
	change(w, "UPDATE position SET migrated_ms = 1500");
	open_and_close(w);
	expect_rows(w, "SELECT migrated_at FROM schema_info", "1970-01-01T00:00:01.500Z");
}

static void fills_an_empty_file(void **state)
{
	struct world *w = *state;
	write_file(w->path, "", 0);
	open_store(w);
	expect_rows(w, "SELECT version > 0 FROM schema_info", "1");
}

/* To SQLite it looks like damage. */
static void sets_nothing_aside_for_a_read_that_failed_once(void **state)
{
	struct world *w = *state;
	int failures = 0;
	bool has_failed = true;
	w->options.set_damaged_aside = true;
	open_and_close(w);
	for (long n = 2; has_failed; n += 9) {
		char error[STORAGE_ERROR_MAX];
		disk_break_only(DISK_READS, n, EIO, false);
		int r = storage_open(&w->options, &w->s, error);
		has_failed = atomic_load(&disk.failed) > 0;
		disk_mend();
		close_store(w);
		failures += has_failed;
		assert_true(r == 0 || storage_is_failure(r));
		assert_int_equal(storage_count_aside(w->path), 0);
	}
	assert_true(failures > 3);
}

/* The old schema or the new one, never between: whichever write fails, the next start succeeds. */
static void can_be_started_again_after_any_failure(void **state)
{
	struct world *w = *state;
	int refused = 0;
	for (long n = 1; n <= 60; n += 1 + n / 8) {
		char path[128], error[STORAGE_ERROR_MAX];
		(void)snprintf(path, sizeof(path), "%s/%ld.db", w->dir, n);
		w->options.path = path;
		disk_break(n, ENOSPC, true);
		int r = storage_open(&w->options, &w->s, error);
		disk_mend();
		if (r < 0) {
			refused++;
			assert_true(strlen(error) > strlen(path));
			open_store(w);
		}
		close_store(w);
	}
	assert_true(refused > 10);
	w->options.path = w->path;
}

/* Refusals ---------------------------------------------------------------- */

static void refuses_a_directory_that_is_not_there(void **state)
{
	struct world *w = *state;
	char path[128];
	(void)snprintf(path, sizeof(path), "%s/no/events.db", w->dir);
	expect_refusal(w, path, -ENOENT, "create the directory");
}

static void refuses_a_directory_that_is_none(void **state)
{
	struct world *w = *state;
	char path[128];
	write_file(w->path, "", 0);
	(void)snprintf(path, sizeof(path), "%s/events.db", w->path);
	expect_refusal(w, path, -ENOTDIR, "directory");
}

static void refuses_a_symbolic_link(void **state)
{
	struct world *w = *state;
	char target[128];
	(void)snprintf(target, sizeof(target), "%s/elsewhere", w->dir);
	assert_int_equal(symlink(target, w->path), 0);
	expect_refusal(w, w->path, -ELOOP, "a symbolic link: set");
	assert_int_equal(access(target, F_OK), -1);
}

static void refuses_a_directory_as_the_file(void **state)
{
	struct world *w = *state;
	assert_int_equal(mkdir(w->path, 0700), 0);
	expect_refusal(w, w->path, -EISDIR, "a directory: set");
}

static void refuses_a_second_daemon(void **state)
{
	struct world *w = *state;
	open_store(w);
	expect_refusal(w, w->path, -EBUSY, "another e2b-hookd uses this store");
	close_store(w);
	open_store(w); /* and the lock ends with its owner */
}

static void refuses_what_is_no_database(void **state)
{
	struct world *w = *state;
	char text[8192], after[sizeof(text)];
	memset(text, 'x', sizeof(text));
	write_file(w->path, text, sizeof(text));
	expect_refusal(w, w->path, -EUCLEAN, "move it away");
	assert_int_equal(read_file(w->path, after, sizeof(after)), sizeof(after));
	assert_memory_equal(text, after, sizeof(after));
}

static void refuses_a_database_of_another_application(void **state)
{
	struct world *w = *state;
	static char before[1 << 16], after[1 << 16];
	/* One with an id, and one without that has tables; the second with a setting of ours that
	 * could be changed in place. */
	static const char *const made[] = {
		"PRAGMA application_id = 77",
		"PRAGMA auto_vacuum = FULL; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
	};
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		(void)unlink(w->path);
		change(w, made[i]);
		size_t len = read_file(w->path, before, sizeof(before));
		expect_refusal(w, w->path, -EPERM, "set another [store] path");
		assert_int_equal(read_file(w->path, after, sizeof(after)), len);
		assert_memory_equal(before, after, len);
	}
}

static void refuses_a_store_of_a_newer_version(void **state)
{
	struct world *w = *state;
	open_and_close(w);
	change(w, "PRAGMA user_version = 9999");
	expect_refusal(w, w->path, -EPROTO, "install that version again");
}

static void refuses_a_store_with_a_version_that_cannot_be(void **state)
{
	struct world *w = *state;
	open_and_close(w);
	change(w, "PRAGMA user_version = -1");
	expect_refusal(w, w->path, -EUCLEAN, "restore a backup");
	change(w, "PRAGMA user_version = 0");
	expect_refusal(w, w->path, -EUCLEAN, "restore a backup");
}

static void refuses_a_store_without_its_position(void **state)
{
	struct world *w = *state;
	open_and_close(w);
	change(w, "DELETE FROM position");
	expect_refusal(w, w->path, -EUCLEAN, "restore a backup");
}

/* A lock that is not our own: some tool has the database open for writing. */
static void says_so_when_another_program_holds_the_database(void **state)
{
	struct world *w = *state;
	open_and_close(w);
	change(w, "PRAGMA journal_mode = DELETE");
	int fd = open(w->path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	/* SQLite's pending and shared bytes, locked as another process would see them. */
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512
	};
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	expect_refusal(w, w->path, -EBUSY, "another program holds a lock");
	(void)close(fd);
	open_store(w);
}

/* As another user, in a process of its own: root may write everywhere. */
static void refuses_a_directory_it_may_not_write(void **state)
{
	struct world *w = *state;
	assert_int_equal(chmod(w->dir, 0555), 0);
	pid_t child = fork();
	if (child == 0) {
		struct storage *s = NULL;
		char error[STORAGE_ERROR_MAX];
		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(1);
		int r = storage_open(&w->options, &s, error);
		_exit(r == -EACCES && strstr(error, "chown") ? 0 : 2);
	}
	int status = -1;
	assert_true(child > 0 && waitpid(child, &status, 0) == child);
	assert_int_equal(chmod(w->dir, 0700), 0);
	assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_world, end_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(makes_a_store_with_the_layout_that_lasts),
		TEST(leaves_its_files_readable_by_the_group),
		TEST(mends_the_mode_of_a_restored_file),
		TEST(migrates_once),
		TEST(fills_an_empty_file),
		TEST(sets_nothing_aside_for_a_read_that_failed_once),
		TEST(can_be_started_again_after_any_failure),
		TEST(refuses_a_directory_that_is_not_there),
		TEST(refuses_a_directory_that_is_none),
		TEST(refuses_a_symbolic_link),
		TEST(refuses_a_directory_as_the_file),
		TEST(refuses_a_second_daemon),
		TEST(refuses_what_is_no_database),
		TEST(refuses_a_database_of_another_application),
		TEST(refuses_a_store_of_a_newer_version),
		TEST(refuses_a_store_with_a_version_that_cannot_be),
		TEST(refuses_a_store_without_its_position),
		TEST(says_so_when_another_program_holds_the_database),
		TEST(refuses_a_directory_it_may_not_write),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
