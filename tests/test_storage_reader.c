/* Reading beside the daemon: what is stored is seen at once, nothing can be changed, and what
 * cannot be read is told in one line. */
#include "storage_reader.h"

#include "clock.h"
#include "storage_fixture.h"

#include <fcntl.h>
#include <sys/stat.h>

#define READER CLEANUP(storage_reader_close_pointer) struct storage_reader

static struct storage_reader *open_reader(const struct world *w)
{
	struct storage_reader *r = NULL;
	char error[STORAGE_ERROR_MAX];
	int rc = storage_reader_open(w->path, &r, error);

	if (rc < 0)
		fail_msg("storage_reader_open: %d: %s", rc, error);
	return r;
}

static void put_one(struct world *w, const char *id)
{
	PARCEL p;
	enum ingest_reason reason;

	init_told(&p, (struct told) {
			      .id = id, .type = "e2b-hookd.test", .time = "2026-11-20T16:00:00Z" });
	assert_int_equal(put_for(w, &p, &reason), STORAGE_STORED);
}

static void sees_what_was_just_stored_while_the_writer_holds_the_store(void **state)
{
	struct world *w = *state;
	READER *r = open_reader(w);
	int64_t n;

	assert_int_equal(storage_reader_integers(r, "SELECT count(*) FROM events", &n, 1), 0);
	assert_int_equal(n, 0);
	put_one(w, "one");
	assert_int_equal(storage_reader_integers(r, "SELECT count(*) FROM events", &n, 1), 0);
	assert_int_equal(n, 1);
}

static void keeps_its_snapshot_until_the_statement_ends(void **state)
{
	struct world *w = *state;
	READER *r = open_reader(w);

	put_one(w, "one");
	assert_int_equal(storage_reader_query(r, "SELECT event_id FROM events", NULL, 0), 0);
	assert_int_equal(storage_reader_next(r), STORAGE_READER_ROW);
	put_one(w, "two");
	assert_int_equal(storage_reader_next(r), 0);
	assert_int_equal(storage_reader_columns(r), 0);
}

static void gives_values_with_their_types_and_columns_with_their_names(void **state)
{
	READER *r = open_reader(*state);
	static const char sql[] = "SELECT NULL AS a, 9007199254740993 AS b, 0.5 AS c, 'x' AS d, "
				  "x'00ff' AS e, '' AS f";
	static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
	struct storage_value v;

	assert_int_equal(storage_reader_query(r, sql, NULL, 0), 0);
	assert_int_equal(storage_reader_columns(r), 6);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_string_equal(storage_reader_column(r, i), names[i]);
	assert_int_equal(storage_reader_next(r), STORAGE_READER_ROW);
	assert_int_equal(storage_reader_value(r, 0).type, STORAGE_NULL);
	assert_int_equal(storage_reader_value(r, 1).integer, INT64_C(9007199254740993));
	v = storage_reader_value(r, 2);
	assert_true(v.type == STORAGE_REAL && v.real == 0.5);
	assert_true(span_is(storage_reader_value(r, 3).text, SPAN_LITERAL("x")));
	assert_true(span_is(storage_reader_value(r, 4).text, SPAN_LITERAL("\0\xff")));
	v = storage_reader_value(r, 5);
	assert_true(v.type == STORAGE_BYTES && v.text.s && v.text.len == 0);
}

static void binds_values_instead_of_pasting_them(void **state)
{
	READER *r = open_reader(*state);
	const struct storage_value values[] = { STORAGE_VALUE_TEXT("' OR 1 --"),
						STORAGE_VALUE_INTEGER(-7),
						{ .type = STORAGE_REAL, .real = 1.5 },
						{ .type = STORAGE_NULL } };

	assert_int_equal(storage_reader_query(r, "SELECT ?, ?, ?, ?", values, 4), 0);
	assert_int_equal(storage_reader_next(r), STORAGE_READER_ROW);
	assert_true(span_is(storage_reader_value(r, 0).text, SPAN_LITERAL("' OR 1 --")));
	assert_int_equal(storage_reader_value(r, 1).integer, -7);
	assert_true(storage_reader_value(r, 2).real == 1.5);
	assert_int_equal(storage_reader_value(r, 3).type, STORAGE_NULL);
}

static void cannot_change_anything(void **state)
{
	READER *r = open_reader(*state);
	static const char *const statements[] = { "DELETE FROM event", "CREATE TABLE t (a)",
						  "UPDATE position SET folded_seq = 99",
						  "PRAGMA user_version = 99" };

	for (size_t i = 0; i < ARRAY_SIZE(statements); i++) {
		int rc = storage_reader_query(r, statements[i], NULL, 0);
		if (rc == 0)
			rc = storage_reader_next(r);
		if (rc != -EACCES)
			fail_msg("%s: %d", statements[i], rc);
		assert_true(storage_reader_error(r)[0] != '\0');
	}
}

static void a_wrong_statement_is_told_and_the_next_one_works(void **state)
{
	READER *r = open_reader(*state);
	int64_t n;

	assert_int_equal(storage_reader_query(r, "SELECT nothing FROM events", NULL, 0), -EINVAL);
	assert_non_null(strstr(storage_reader_error(r), "nothing"));
	assert_int_equal(storage_reader_integers(r, "SELECT 1 WHERE 0", &n, 1), -ENODATA);
	assert_int_equal(storage_reader_integers(r, "SELECT 5", &n, 1), 0);
	assert_int_equal(n, 5);
}

static void a_deadline_ends_a_statement_that_takes_long(void **state)
{
	READER *r = open_reader(*state);
	static const char sql[] = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
				  "SELECT count(*) FROM n";
	int64_t n;

	storage_reader_set_deadline(r, clock_mono_ms() + 30);
	assert_int_equal(storage_reader_integers(r, sql, &n, 1), -ETIMEDOUT);
	storage_reader_set_deadline(r, 0);
	assert_int_equal(storage_reader_integers(r, "SELECT 5", &n, 1), 0);
}

static void reads_a_store_whose_daemon_is_gone(void **state)
{
	struct world *w = *state;
	int64_t n;

	put_one(w, "one");
	close_store(w);
	READER *r = open_reader(w);
	assert_int_equal(storage_reader_integers(r, "SELECT count(*) FROM events", &n, 1), 0);
	assert_int_equal(n, 1);
}

static void leaves_the_files_of_a_stopped_daemon_in_place(void **state)
{
	struct world *w = *state;
	char wal[128];
	struct stat st;

	put_one(w, "one");
	close_store(w);
	storage_reader_close(open_reader(w));
	(void)snprintf(wal, sizeof(wal), "%s-wal", w->path);
	assert_int_equal(stat(wal, &st), 0);
	(void)snprintf(wal, sizeof(wal), "%s-shm", w->path);
	assert_int_equal(stat(wal, &st), 0);
}

static void knows_whether_a_daemon_holds_the_store(void **state)
{
	struct world *w = *state;

	assert_int_equal(storage_reader_daemon_state(w->path), STORAGE_READER_HELD);
	assert_int_equal(storage_reader_daemon_state(w->path), STORAGE_READER_HELD);
	close_store(w);
	assert_int_equal(storage_reader_daemon_state(w->path), 0);
	assert_int_equal(storage_reader_daemon_state("/nowhere/events.db"), 0);
	open_store(w); /* asking left no lock behind */
}

/* ---- what is no store ---- */

static void expect_refusal(const char *path, int code, const char *what)
{
	struct storage_reader *r = NULL;
	char error[STORAGE_ERROR_MAX] = "";

	assert_int_equal(storage_reader_open(path, &r, error), code);
	assert_null(r);
	if (!strstr(error, path) || !strstr(error, what) || strchr(error, '\n'))
		fail_msg("%s: wanted \"%s\", got: %s", path, what, error);
}

static void write_file(const struct world *w, const char *bytes, size_t len)
{
	CLEANUP_FILE FILE *f = fopen(w->path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
}

static void a_missing_store_is_not_made(void **state)
{
	struct world *w = *state;
	struct stat st;

	expect_refusal(w->path, -ENOENT, "[store] path");
	assert_int_equal(stat(w->path, &st), -1);
	expect_refusal(w->dir, -EINVAL, "not a file");
}

static void what_is_no_database_is_refused(void **state)
{
	struct world *w = *state;
	char text[4096];

	memset(text, 'x', sizeof(text));
	write_file(w, text, sizeof(text));
	expect_refusal(w->path, -EUCLEAN, "not a usable SQLite database");
	write_file(w, "", 0);
	expect_refusal(w->path, -EPERM, "has not made the store yet");
}

static void a_database_of_another_application_is_refused(void **state)
{
	struct world *w = *state;
	sqlite3 *db = NULL;

	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "CREATE TABLE t (a)", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	expect_refusal(w->path, -EPERM, "another application");
}

int main(void)
{
#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, begin_store, end_world)
#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, begin_world, end_world)
	const struct CMUnitTest tests[] = {
		IN_STORE(sees_what_was_just_stored_while_the_writer_holds_the_store),
		IN_STORE(keeps_its_snapshot_until_the_statement_ends),
		IN_STORE(gives_values_with_their_types_and_columns_with_their_names),
		IN_STORE(binds_values_instead_of_pasting_them),
		IN_STORE(cannot_change_anything),
		IN_STORE(a_wrong_statement_is_told_and_the_next_one_works),
		IN_STORE(a_deadline_ends_a_statement_that_takes_long),
		IN_STORE(reads_a_store_whose_daemon_is_gone),
		IN_STORE(leaves_the_files_of_a_stopped_daemon_in_place),
		IN_STORE(knows_whether_a_daemon_holds_the_store),
		IN_WORLD(a_missing_store_is_not_made),
		IN_WORLD(what_is_no_database_is_refused),
		IN_WORLD(a_database_of_another_application_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
