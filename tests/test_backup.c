/* Copies of the store: whole or not there; what is put in place is whole too, and what it replaces
 * is kept whole; a sound store is called sound, a damaged one is not.
 */
#include "storage_fixture.h"

#include "storage_backup.h"
#include "storage_reader.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

/* Helpers ----------------------------------------------------------------- */

#define PLACE 96

static void in_dir(const struct world *w, const char *name, char path[static PLACE])
{
	(void)snprintf(path, PLACE, "%s/%s", w->dir, name);
}

static bool is_there(const char *path, const char *suffix)
{
	char name[4096 + 16];
	struct stat st;
	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return lstat(name, &st) == 0;
}

static void write_file(const char *path, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static char *bytes_of(const char *path, size_t *ret_len)
{
	CLEANUP_FILE FILE *f = fopen(path, "re");
	struct stat st;
	assert_non_null(f);
	assert_int_equal(fstat(fileno(f), &st), 0);
	char *bytes = calloc(1, (size_t)st.st_size + 1);
	assert_non_null(bytes);
	*ret_len = fread(bytes, 1, (size_t)st.st_size, f);
	return bytes;
}

static void expect_same_bytes(const char *path, const char *bytes, size_t len)
{
	size_t now_len;
	CLEANUP_FREE char *now = bytes_of(path, &now_len);
	assert_int_equal(now_len, len);
	assert_memory_equal(now, bytes, len);
}

static int try_backup(struct world *w, const char *dest, bool force, char *error)
{
	const struct storage_backup_options options = { .path = w->path,
							.dest = dest,
							.force = force };
	int64_t bytes = 0;
	return storage_backup(&options, &bytes, error);
}

static void backup(struct world *w, const char *dest)
{
	char error[STORAGE_ERROR_MAX];
	int r = try_backup(w, dest, false, error);
	if (r != 0)
		fail_msg("backup: %d: %s", r, error);
}

static void expect_no_backup(struct world *w, const char *dest, bool force, int r,
			     const char *words)
{
	char error[STORAGE_ERROR_MAX];
	assert_int_equal(try_backup(w, dest, force, error), r);
	if (!strstr(error, words) || strchr(error, '\n'))
		fail_msg("\"%s\", but wanted \"%s\"", error, words);
}

static int try_restore(struct world *w, const char *file, struct storage_restored *ret, char *error)
{
	CLEANUP(storage_snapshot_close) struct storage_snapshot s = STORAGE_SNAPSHOT_INIT;
	int r = storage_snapshot_open(file, &s, error);
	return r < 0 ? r : storage_restore(&w->options, &s, ret, error);
}

static void restore(struct world *w, const char *file, struct storage_restored *ret)
{
	char error[STORAGE_ERROR_MAX];
	int r = try_restore(w, file, ret, error);
	if (r != 0)
		fail_msg("restore: %d: %s", r, error);
}

static void expect_no_restore(struct world *w, const char *file, int r, const char *words)
{
	struct storage_restored ret;
	char error[STORAGE_ERROR_MAX] = "";
	int is = try_restore(w, file, &ret, error);
	if (is != r || !strstr(error, words) || strchr(error, '\n'))
		fail_msg("%s: %d \"%s\", but wanted %d \"%s\"", file, is, error, r, words);
}

static void add_events(struct world *w, int from, int to)
{
	for (int i = from; i < to; i++) {
		char id[40], run[40];
		(void)snprintf(id, sizeof(id), "event-%d", i);
		(void)snprintf(run, sizeof(run), "run-%d", i);
		tell(w, (struct told) { id, "sandbox.lifecycle.created", "2026-11-20T10:00:00Z",
					"sbx", run, "tpl", NULL, NULL, NULL, false });
	}
}

static void expect_events(const struct world *w, const char *path, const char *count)
{
	struct world other = *w;
	(void)snprintf(other.path, sizeof(other.path), "%s", path);
	expect_rows(&other, "SELECT count(*) FROM event", count);
	expect_rows(&other, "PRAGMA integrity_check", "ok");
}

/* Taking a copy ----------------------------------------------------------- */

static void takes_a_whole_copy_beside_the_writer(void **state)
{
	struct world *w = *state;
	char dest[PLACE];
	struct stat st;
	in_dir(w, "copy.db", dest);
	add_events(w, 0, 50);
	assert_int_equal(storage_begin(w->s, true), 0);
	PARCEL p;
	init_told(&p, (struct told) { "open", "x", "2026-11-20T10:00:00Z", "s", NULL, NULL, NULL,
				      NULL, NULL, false });
	enum ingest_reason reason;
	assert_int_equal(put_open(w, &p, &reason), STORAGE_STORED);
	backup(w, dest);
	assert_int_equal(storage_commit(w->s), 0);
	assert_int_equal(stat(dest, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	expect_events(w, dest, "50");
	struct world copy = *w;
	(void)snprintf(copy.path, sizeof(copy.path), "%s", dest);
	expect_rows(&copy, "PRAGMA application_id", "1160921668");
	expect_rows(&copy, "PRAGMA journal_mode", "delete");
	expect_rows(&copy,
		    "SELECT schema_version = (SELECT user_version FROM pragma_user_version)"
		    " FROM position",
		    "1");
	assert_false(is_there(dest, ".tmp"));
}

static void takes_a_copy_of_a_store_at_rest(void **state)
{
	struct world *w = *state;
	char dest[PLACE];
	in_dir(w, "copy.db", dest);
	add_events(w, 0, 3);
	close_store(w);
	backup(w, dest);
	expect_events(w, dest, "3");
}

static void replaces_a_copy_only_by_force(void **state)
{
	struct world *w = *state;
	char dest[PLACE];
	in_dir(w, "copy.db", dest);
	write_file(dest, "an older one");
	add_events(w, 0, 2);
	expect_no_backup(w, dest, false, -EEXIST, "--force");
	expect_same_bytes(dest, "an older one", 12);
	char error[STORAGE_ERROR_MAX];
	assert_int_equal(try_backup(w, dest, true, error), 0);
	expect_events(w, dest, "2");
}

static void never_replaces_what_is_no_copy(void **state)
{
	struct world *w = *state;
	char other[PLACE], wal[PLACE], dir[PLACE], link_path[PLACE];
	add_events(w, 0, 2);
	expect_no_backup(w, w->path, true, -EEXIST, "the store itself");
	in_dir(w, "events.db-wal", wal);
	expect_no_backup(w, wal, true, -EEXIST, "the store itself");
	expect_no_backup(w, w->dir, true, -EISDIR, "directory");
	in_dir(w, "", dir);
	expect_no_backup(w, dir, true, -EINVAL, "name a file");
	expect_no_backup(w, "", true, -EINVAL, "name a file");
	in_dir(w, "other.db", other);
	in_dir(w, "other.db-wal", wal);
	write_file(other, "database");
	write_file(wal, "its log");
	expect_no_backup(w, other, true, -EEXIST, "in use");
	expect_same_bytes(other, "database", 8);
	in_dir(w, "link", link_path);
	assert_int_equal(symlink(w->path, link_path), 0);
	expect_no_backup(w, link_path, true, -EEXIST, "not a plain file");
	expect_events(w, w->path, "2");
}

static void takes_over_what_a_killed_backup_left(void **state)
{
	struct world *w = *state;
	char dest[PLACE], left[PLACE], journal[PLACE];
	in_dir(w, "copy.db", dest);
	in_dir(w, "copy.db.tmp", left);
	in_dir(w, "copy.db.tmp-journal", journal);
	write_file(left, "half of a copy");
	write_file(journal, "half of a journal");
	add_events(w, 0, 4);
	backup(w, dest);
	expect_events(w, dest, "4");
	assert_false(is_there(left, ""));
	assert_false(is_there(journal, ""));
}

static void two_backups_of_one_name_do_not_meet(void **state)
{
	struct world *w = *state;
	char dest[PLACE], left[PLACE];
	in_dir(w, "copy.db", dest);
	in_dir(w, "copy.db.tmp", left);
	write_file(left, "of another");
	CLEANUP_CLOSE int fd = open(left, O_RDONLY);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	expect_no_backup(w, dest, false, -EBUSY, "another backup");
	expect_same_bytes(left, "of another", 10);
	assert_false(is_there(dest, ""));
}

static void does_not_write_through_a_link(void **state)
{
	struct world *w = *state;
	char dest[PLACE], left[PLACE], victim[PLACE];
	in_dir(w, "copy.db", dest);
	in_dir(w, "copy.db.tmp", left);
	in_dir(w, "victim", victim);
	write_file(victim, "precious");
	assert_int_equal(symlink(victim, left), 0);
	expect_no_backup(w, dest, false, -EEXIST, "remove it");
	assert_int_equal(unlink(left), 0);
	assert_int_equal(link(victim, left), 0);
	expect_no_backup(w, dest, false, -EEXIST, "remove it");
	expect_same_bytes(victim, "precious", 8);
}

static bool stop_now(void)
{
	return true;
}

static void leaves_nothing_behind_when_it_is_ended(void **state)
{
	struct world *w = *state;
	char dest[PLACE], error[STORAGE_ERROR_MAX];
	int64_t bytes;
	in_dir(w, "copy.db", dest);
	add_events(w, 0, 100);
	const struct storage_backup_options options = { .path = w->path,
							.dest = dest,
							.stop = stop_now };
	assert_int_equal(storage_backup(&options, &bytes, error), -ECANCELED);
	assert_false(is_there(dest, ""));
	assert_false(is_there(dest, ".tmp"));
}

static void gives_the_name_only_to_what_is_on_disk(void **state)
{
	struct world *w = *state;
	char dest[PLACE];
	in_dir(w, "copy.db", dest);
	add_events(w, 0, 3);
	disk_break_only(DISK_SYNCS, 1, EIO, false);
	expect_no_backup(w, dest, false, -EIO, dest);
	disk_mend();
	assert_false(is_there(dest, ""));
	assert_false(is_there(dest, ".tmp"));
	long before = atomic_load(&disk.syncs);
	backup(w, dest);
	assert_int_equal(atomic_load(&disk.syncs) - before, 2); /* the file, then its directory */
}

static void no_failing_write_leaves_a_half_copy(void **state)
{
	struct world *w = *state;
	char dest[PLACE], error[STORAGE_ERROR_MAX];
	in_dir(w, "copy.db", dest);
	add_events(w, 0, 20);
	int failures = 0;
	for (long n = 1; n < 400; n += 7) {
		disk_break(n, ENOSPC, true);
		int r = try_backup(w, dest, false, error);
		disk_mend();
		assert_false(is_there(dest, ".tmp"));
		failures += r < 0;
		if (r < 0 && !is_there(dest, ""))
			continue;
		expect_events(w, dest, "20"); /* whole, even if its directory could not be synced */
		assert_int_equal(unlink(dest), 0);
	}
	assert_true(failures > 5);
}

static void copies_only_a_store(void **state)
{
	struct world *w = *state;
	char dest[PLACE];
	in_dir(w, "copy.db", dest);
	close_store(w);
	assert_int_equal(truncate(w->path, 0), 0);
	expect_no_backup(w, dest, false, -EPERM, w->path);
	assert_int_equal(unlink(w->path), 0);
	expect_no_backup(w, dest, false, -ENOENT, w->path);
	assert_false(is_there(dest, ".tmp"));
}

/* Putting one in place ---------------------------------------------------- */

static void puts_a_copy_in_place_and_keeps_what_was_there(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	char copy[PLACE];
	struct stat st;
	in_dir(w, "copy.db", copy);
	add_events(w, 0, 5);
	backup(w, copy);
	add_events(w, 5, 9);
	close_store(w);
	restore(w, copy, &ret);
	assert_true(is_there(w->path, "-wal") && is_there(w->path, "-shm"));
	assert_int_equal(ret.events, 5);
	assert_int_equal(ret.newest_unix_s, INT64_C(1795168800));
	expect_events(w, w->path, "5");
	expect_rows(w, "PRAGMA journal_mode", "wal");
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_false(is_there(w->path, ".restoring"));
	assert_true(is_there(ret.aside, "-wal") && is_there(ret.aside, "-shm"));
	expect_events(w, ret.aside, "9");
	open_store(w);
	add_events(w, 5, 6);
	expect_events(w, w->path, "6");
}

static void is_undone_by_restoring_what_was_set_aside(void **state)
{
	struct world *w = *state;
	struct storage_restored ret, again;
	char copy[PLACE];
	in_dir(w, "copy.db", copy);
	add_events(w, 0, 2);
	backup(w, copy);
	add_events(w, 2, 7);
	close_store(w);
	restore(w, copy, &ret);
	restore(w, ret.aside, &again);
	expect_events(w, w->path, "7");
	expect_events(w, again.aside, "2");
	expect_events(w, ret.aside, "7");
}

/* As it is after a power loss: all in the log, hardly anything in the file. */
static void takes_the_log_beside_a_store_with_it(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	static const char *const suffixes[] = { "", "-wal" };
	char lost[2][PLACE];
	add_events(w, 0, 30);
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char from[PLACE];
		size_t len;
		(void)snprintf(from, sizeof(from), "%s%s", w->path, suffixes[i]);
		(void)snprintf(lost[i], sizeof(lost[i]), "%s/lost.db%s", w->dir, suffixes[i]);
		CLEANUP_FREE char *bytes = bytes_of(from, &len);
		CLEANUP_CLOSE int fd = open(lost[i], O_WRONLY | O_CREAT | O_EXCL, 0600);
		assert_int_equal(write(fd, bytes, len), len);
	}
	close_store(w);
	size_t len;
	CLEANUP_FREE char *log = bytes_of(lost[1], &len);
	assert_true(len > 0);
	restore(w, lost[0], &ret);
	assert_int_equal(ret.events, 30);
	expect_events(w, w->path, "30");
	expect_same_bytes(lost[1], log, len);
}

static void restores_where_no_store_was(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	char copy[PLACE], dir[PLACE], path[PLACE + 16];
	in_dir(w, "copy.db", copy);
	in_dir(w, "elsewhere", dir);
	add_events(w, 0, 3);
	backup(w, copy);
	assert_int_equal(mkdir(dir, 0750), 0);
	(void)snprintf(path, sizeof(path), "%s/events.db", dir);
	w->options.path = path;
	restore(w, copy, &ret);
	w->options.path = w->path;
	assert_string_equal(ret.aside, "");
	expect_events(w, path, "3");
	assert_true(is_there(path, "-shm"));
}

static void only_reads_the_copy(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	char copy[PLACE];
	size_t len;
	in_dir(w, "copy.db", copy);
	add_events(w, 0, 3);
	backup(w, copy);
	close_store(w);
	CLEANUP_FREE char *bytes = bytes_of(copy, &len);
	restore(w, copy, &ret);
	expect_same_bytes(copy, bytes, len);
	assert_false(is_there(copy, "-wal") || is_there(copy, "-shm") || is_there(copy, ".lock"));
}

static void refuses_while_a_daemon_has_the_store(void **state)
{
	struct world *w = *state;
	char copy[PLACE];
	in_dir(w, "copy.db", copy);
	add_events(w, 0, 3);
	backup(w, copy);
	expect_no_restore(w, copy, -EBUSY, "stop it");
	expect_no_restore(w, w->path, -EBUSY, "e2b-hookctl backup");
	expect_events(w, w->path, "3");
	assert_false(is_there(w->path, ".restoring"));
}

static void with_sql(const char *path, const char *sql)
{
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void overwrite(const char *path, off_t at, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
}

static void make_foreign(const char *path)
{
	with_sql(path, "PRAGMA application_id = 7");
}

static void make_newer(const char *path)
{
	with_sql(path, "PRAGMA user_version = 1000");
}

static void make_damaged(const char *path)
{
	for (off_t page = 40; page < 50; page++)
		overwrite(path, page * 4096, "\x05\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01");
}

/* Only who compares the index with the table can see it. */
static void make_inconsistent(const char *path)
{
	with_sql(path, "CREATE INDEX odd ON event (id); PRAGMA writable_schema = ON; UPDATE "
		       "sqlite_schema SET sql = 'CREATE INDEX odd ON event (time_s, seq)' WHERE "
		       "name = 'odd'");
}

static void make_torn(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size / 2), 0);
}

static void make_garbage(const char *path)
{
	overwrite(path, 0, "this is no database at all");
}

static void make_empty(const char *path)
{
	assert_int_equal(truncate(path, 0), 0);
}

static void make_unfinished(const char *path)
{
	char journal[PLACE + 16];
	(void)snprintf(journal, sizeof(journal), "%s-journal", path);
	write_file(journal, "something");
}

static void refuses_what_is_no_sound_copy_and_changes_nothing(void **state)
{
	struct world *w = *state;
	static const struct {
		void (*make)(const char *path);
		int r;
		const char *words;
	} cases[] = {
		{ make_foreign, -EPERM, "not a store" }, { make_newer, -EPROTO, "newer" },
		{ make_damaged, -EUCLEAN, "damaged" },	 { make_inconsistent, -EUCLEAN, "damaged" },
		{ make_torn, -EUCLEAN, "damaged" },	 { make_garbage, -EUCLEAN, "damaged" },
		{ make_empty, -EPERM, "not a store" },	 { make_unfinished, -EINVAL, "-journal" },
	};
	add_events(w, 0, 40);
	char copy[PLACE];
	in_dir(w, "0.db", copy);
	close_store(w);
	size_t len;
	CLEANUP_FREE char *bytes = bytes_of(w->path, &len);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		copy[strlen(w->dir) + 1] = (char)('0' + i);
		backup(w, copy);
		cases[i].make(copy);
		expect_no_restore(w, copy, cases[i].r, cases[i].words);
		assert_false(is_there(w->path, ".restoring"));
		assert_false(is_there(w->path, ".restoring-wal"));
		expect_same_bytes(w->path, bytes, len);
	}
	expect_no_restore(w, w->path, -EINVAL, "the store itself");
	expect_no_restore(w, w->dir, -EINVAL, "not a file");
	expect_no_restore(w, "/nonexistent/copy.db", -ENOENT, "/nonexistent/copy.db");
}

static void brings_an_old_copy_up_to_this_program(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	const char *root = getenv("HOOKD_SOURCE_ROOT");
	char copy[PLACE], schema[4096];
	size_t len;
	(void)snprintf(schema, sizeof(schema), "%s/schema/sqlite/0001-initial.sql",
		       root ? root : ".");
	CLEANUP_FREE char *sql = bytes_of(schema, &len);
	in_dir(w, "old.db", copy);
	with_sql(copy, "PRAGMA auto_vacuum = INCREMENTAL");
	with_sql(copy, sql);
	with_sql(copy, "PRAGMA application_id = 1160921668; PRAGMA user_version = 1");
	close_store(w);
	restore(w, copy, &ret);
	assert_int_equal(ret.schema_version, 1);
	struct world old = *w;
	(void)snprintf(old.path, sizeof(old.path), "%s", copy);
	expect_rows(&old, "PRAGMA user_version", "1");
	open_store(w);
	add_events(w, 0, 1);
	expect_rows(w, "SELECT count(*) FROM cost_hourly", "0");
}

static void a_failing_disk_leaves_one_store_in_place(void **state)
{
	struct world *w = *state;
	struct storage_restored ret;
	char copy[PLACE], error[STORAGE_ERROR_MAX];
	in_dir(w, "copy.db", copy);
	add_events(w, 0, 2);
	backup(w, copy);
	add_events(w, 2, 5);
	close_store(w);
	int failures = 0, n;
	for (n = 1; n < 40; n++) {
		disk_break_only(DISK_SYNCS, n, EIO, false);
		int r = try_restore(w, copy, &ret, error);
		bool is_reached = atomic_load(&disk.calls) >= atomic_load(&disk.fail_at);
		disk_mend();
		if (!is_reached)
			break;
		failures += r < 0;
		if (r == 0 || !strstr(error, "by hand")) {
			CLEANUP_FREE char *rows = rows_of(w, "SELECT count(*) FROM event");
			assert_true(strcmp(rows, "5") == 0 || strcmp(rows, "2") == 0);
			assert_true(strcmp(rows, "5") == 0 || *ret.aside);
		}
		if (*ret.aside && is_there(ret.aside, "")) {
			expect_events(w, ret.aside, "5");
			restore(w, ret.aside, &ret);
			expect_events(w, w->path, "5");
		}
	}
	assert_true(failures >= 4 && n < 40);
}

/* Finding out whether it is sound ----------------------------------------- */

static void remember(void *ctx, const char *finding)
{
	(void)fprintf(ctx, "%s\n", finding);
}

static char *findings_of(const char *path, int *ret_r)
{
	char *text = NULL, error[STORAGE_ERROR_MAX];
	size_t size;
	FILE *f = open_memstream(&text, &size);
	assert_non_null(f);
	*ret_r = storage_check(path, remember, f, error);
	assert_int_equal(fclose(f), 0);
	if (*ret_r < 0)
		fail_msg("check: %d: %s", *ret_r, error);
	return text;
}

static void expect_sound(const char *path)
{
	int r;
	CLEANUP_FREE char *text = findings_of(path, &r);
	if (r != 0 || *text)
		fail_msg("%d: %s", r, text);
}

/* A ledger with something in every table. */
static void live(struct world *w)
{
	begin_ledger(w, "[template tpl]\nvcpu = 2\nmemory_mb = 512\n"
			"[pricing]\nvcpu_second_usd = 0.000014\ngib_second_usd = 0.0000045\n"
			"[source e2b]\npath = /x\n");
	static const char *const stories[] = { "01-v2-created",
					       "09-v2-paused",
					       "10-v2-resumed",
					       "11-v2-killed-request",
					       "50-code-executed-success",
					       "51-code-executed-error" };
	for (size_t i = 0; i < ARRAY_SIZE(stories); i++)
		put_story(w, stories[i]);
	add_events(w, 0, 3);
	tell(w, (struct told) { "k", "sandbox.lifecycle.killed", "2026-11-20T12:34:56Z", "sbx",
				"run-2", "tpl", NULL, NULL, NULL, false });
	tell(w, (struct told) { "loose", "sandbox.lifecycle.created", "2026-11-20T09:00:00Z",
				"by-executor", NULL, "tpl", NULL, NULL, NULL, false });
	(void)put_told(w, (struct told) { "q", "sandbox.lifecycle.created", "2026-11-20T09:00:00Z",
					  NULL, NULL, "tpl", NULL, NULL, NULL, false });
	(void)fold_all(w);
}

static void calls_a_sound_store_sound(void **state)
{
	struct world *w = *state;
	char copy[PLACE];
	expect_sound(w->path);
	live(w);
	expect_rows(w,
		    "SELECT count(*) > 0 FROM cost_hour WHERE cost_nanousd > 0 UNION ALL SELECT "
		    "count(*) > 0 FROM execution UNION ALL SELECT count(*) FROM quarantined_body "
		    "UNION ALL SELECT count(*) > 0 FROM loose_event",
		    "1\n1\n1\n1");
	expect_sound(w->path);
	in_dir(w, "copy.db", copy);
	backup(w, copy);
	expect_sound(copy);
	close_store(w);
	expect_sound(w->path);
}

static void finds_what_is_not_as_it_was_kept(void **state)
{
	struct world *w = *state;
	static const struct {
		const char *sql, *words;
	} cases[] = {
		{ "UPDATE cost_hour SET cost_nanousd = cost_nanousd + 7 WHERE cost_nanousd > 0",
		  "cost_nanousd off by" },
		{ "DELETE FROM cost_day", "cost_daily" },
		{ "UPDATE side_size SET bytes = bytes + 1", "bytes off by 1" },
		{ "DELETE FROM quarantined_body", "n_rows off by 1" },
		{ "UPDATE template_total SET runs = 9", "template_stats" },
		{ "UPDATE template_hour SET executions = executions + 1", "template_hourly" },
		{ "UPDATE sandbox SET runs = runs + 1 WHERE sandbox_id = 'sbx'",
		  "sandboxes of sandbox_id sbx: runs off by 1" },
		{ "UPDATE sandbox SET loose_executions = 5", "loose_executions" },
		{ "DELETE FROM loose_event", "loose_events off by" },
		{ "DELETE FROM sandbox WHERE sandbox_id = 'sbx'", "belong to nothing" },
		{ "DELETE FROM event_link WHERE seq = 2", "passed over: events off by 1" },
		{ "DELETE FROM event WHERE seq = 2", "event_links off by 1" },
		{ "DELETE FROM position", "a row is missing" },
		{ "UPDATE position SET schema_version = 1", "schema version" },
		{ "PRAGMA user_version = 99", "newer than this program" },
		{ "PRAGMA application_id = 5", "another application" },
		{ "UPDATE position SET fold_version = 0", "of the rules" },
		{ "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE UNIQUE "
		  "INDEX "
		  "sandbox_id ON sandbox (time_s)' WHERE name = 'sandbox_id'",
		  "database: " },
		{ "DROP VIEW running; DROP TABLE skipped", "skipped" },
	};
	char copy[PLACE], error[STORAGE_ERROR_MAX];
	live(w);
	in_dir(w, "copy.db", copy);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int r;
		assert_int_equal(try_backup(w, copy, true, error), 0);
		with_sql(copy, cases[i].sql);
		CLEANUP_FREE char *text = findings_of(copy, &r);
		if (r != STORAGE_CHECK_FOUND || !strstr(text, cases[i].words))
			fail_msg("%s: %d: %s", cases[i].sql, r, text);
	}
}

static void finds_damaged_pages(void **state)
{
	struct world *w = *state;
	int r;
	char copy[PLACE];
	add_events(w, 0, 200);
	in_dir(w, "copy.db", copy);
	backup(w, copy);
	make_damaged(copy);
	CLEANUP_FREE char *text = findings_of(copy, &r);
	assert_int_equal(r, STORAGE_CHECK_FOUND);
	assert_non_null(strstr(text, "database: "));
	make_garbage(copy);
	CLEANUP_FREE char *more = findings_of(copy, &r);
	assert_int_equal(r, STORAGE_CHECK_FOUND);
	assert_non_null(strstr(more, copy));
}

static void says_so_when_there_is_nothing_to_look_at(void **state)
{
	struct world *w = *state;
	char error[STORAGE_ERROR_MAX];
	close_store(w);
	assert_int_equal(unlink(w->path), 0);
	assert_int_equal(storage_check(w->path, remember, stderr, error), -ENOENT);
	assert_non_null(strstr(error, w->path));
}

static void is_not_confused_by_what_retention_took(void **state)
{
	struct world *w = *state;
	live(w);
	size_t n = 1;
	int64_t last;
	bool found = true, gone;
	assert_int_equal(storage_begin(w->s, true), 0);
	while (n > 0)
		assert_int_equal(storage_prune_events(w->s, INT64_C(1900000000), 64, &n, &last), 0);
	while (found)
		assert_int_equal(storage_prune_sandbox(w->s, INT64_C(1900000000), &found, &gone),
				 0);
	assert_int_equal(storage_commit(w->s), 0);
	expect_rows(w, "SELECT (SELECT count(*) FROM event), (SELECT count(*) > 0 FROM cost_hour)",
		    "0|1");
	expect_sound(w->path);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin_store, end_world)
	const struct CMUnitTest tests[] = {
		TEST(takes_a_whole_copy_beside_the_writer),
		TEST(takes_a_copy_of_a_store_at_rest),
		TEST(replaces_a_copy_only_by_force),
		TEST(never_replaces_what_is_no_copy),
		TEST(takes_over_what_a_killed_backup_left),
		TEST(two_backups_of_one_name_do_not_meet),
		TEST(does_not_write_through_a_link),
		TEST(leaves_nothing_behind_when_it_is_ended),
		TEST(gives_the_name_only_to_what_is_on_disk),
		TEST(no_failing_write_leaves_a_half_copy),
		TEST(copies_only_a_store),
		TEST(puts_a_copy_in_place_and_keeps_what_was_there),
		TEST(is_undone_by_restoring_what_was_set_aside),
		TEST(takes_the_log_beside_a_store_with_it),
		TEST(restores_where_no_store_was),
		TEST(only_reads_the_copy),
		TEST(refuses_while_a_daemon_has_the_store),
		TEST(refuses_what_is_no_sound_copy_and_changes_nothing),
		TEST(brings_an_old_copy_up_to_this_program),
		TEST(a_failing_disk_leaves_one_store_in_place),
		TEST(calls_a_sound_store_sound),
		TEST(finds_what_is_not_as_it_was_kept),
		TEST(finds_damaged_pages),
		TEST(says_so_when_there_is_nothing_to_look_at),
		TEST(is_not_confused_by_what_retention_took),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
