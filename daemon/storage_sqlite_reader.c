/* The read-only side of the engine. What it may rely on: the daemon keeps -wal and -shm in place
 * (persistent WAL), so a reader without any right to write sees the newest rows at any time. Never
 * immutable=1: that is silently stale beside a writer.
 */
#include "storage_reader.h"

#include "clock.h"
#include "storage_sqlite_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define BUSY_TIMEOUT_MS 2000
#define STEPS_PER_LOOK 10000 /* of SQLite's machine, between two looks at the deadline */

struct storage_reader {
	sqlite3 *db;
	sqlite3_stmt *statement;
	int64_t deadline_mono_ms;
	char error[STORAGE_ERROR_MAX];
};

static int fail(struct storage_reader *r, int code)
{
	bool corrupt = (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;

	(void)snprintf(r->error, sizeof(r->error), "%s", sqlite3_errmsg(r->db));
	switch (code & 0xff) {
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_INTERRUPT:
		return -ETIMEDOUT;
	case SQLITE_ERROR:
	case SQLITE_RANGE:
	case SQLITE_MISUSE:
		return -EINVAL;
	default:
		return corrupt ? -EUCLEAN : -EIO;
	}
}

static int is_past_deadline(void *ctx)
{
	const struct storage_reader *r = ctx;

	return r->deadline_mono_ms > 0 && clock_mono_ms() >= r->deadline_mono_ms;
}

static int refuse(char error[static STORAGE_ERROR_MAX], int code, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

static int refuse(char error[static STORAGE_ERROR_MAX], int code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(error, STORAGE_ERROR_MAX, fmt, args);
	va_end(args);
	return code;
}

static int check_file(const char *path, char error[static STORAGE_ERROR_MAX])
{
	struct stat st;

	if (stat(path, &st) < 0)
		return refuse(error, -errno, "%s: %s: %s", path, strerror(errno),
			      errno == EACCES
				      ? "become a member of the group that owns its directory"
				      : "the daemon makes it at its first start; see [store] "
					"path");
	if (!S_ISREG(st.st_mode))
		return refuse(error, -EINVAL, "%s: not a file: see [store] path", path);
	if (access(path, R_OK) < 0)
		return refuse(error, -errno, "%s: %s: become a member of the group that owns it",
			      path, strerror(errno));
	return 0;
}

static int refuse_failed(const struct storage_reader *r, const char *path, int code,
			 char error[static STORAGE_ERROR_MAX])
{
	const char *advice = "see the system's log";

	if (code == -EACCES)
		advice =
			"it, its -wal and its -shm must be readable, and must not be mounted alone";
	else if (code == -EUCLEAN)
		advice = "not a usable SQLite database: see [store] path, or restore a backup";
	else if (code == -EBUSY)
		advice = "another program holds a lock on it: end that, then try again";
	return refuse(error, code, "%s: %s: %s", path, r->error, advice);
}

static int check_identity(struct storage_reader *r, const char *path,
			  char error[static STORAGE_ERROR_MAX])
{
	int64_t application, objects;
	int rc = storage_reader_integers(r, "SELECT count(*) FROM sqlite_schema", &objects, 1);

	if (rc == 0)
		rc = storage_reader_integers(r, "PRAGMA application_id", &application, 1);
	if (rc < 0)
		return refuse_failed(r, path, rc, error);
	if (application != STORAGE_APPLICATION_ID)
		return refuse(error, -EPERM, "%s: %s: see [store] path", path,
			      objects > 0 || application != 0
				      ? "a database of another application"
				      : "an empty file: the daemon has not made the store yet");
	return 0;
}

int storage_reader_open(const char *path, struct storage_reader **ret,
			char error[static STORAGE_ERROR_MAX])
{
	CLEANUP(storage_reader_close_pointer) struct storage_reader *r = NULL;
	int rc = check_file(path, error);

	if (rc < 0)
		return rc;
	r = calloc(1, sizeof(*r));
	if (!r)
		return refuse(error, -ENOMEM, "%s: out of memory", path);
	rc = sqlite3_open_v2(path, &r->db,
			     SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			     NULL);
	if (rc != SQLITE_OK)
		return refuse_failed(r, path, fail(r, rc), error);
	(void)sqlite3_busy_timeout(r->db, BUSY_TIMEOUT_MS);
	(void)sqlite3_db_config(r->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	rc = sqlite3_exec(r->db, "PRAGMA query_only=ON", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return refuse_failed(r, path, fail(r, rc), error);
	sqlite3_progress_handler(r->db, STEPS_PER_LOOK, is_past_deadline, r);
	rc = check_identity(r, path, error);
	if (rc < 0)
		return rc;
	*ret = r;
	r = NULL;
	return 0;
}

void storage_reader_close(struct storage_reader *r)
{
	if (!r)
		return;
	storage_reader_end(r);
	(void)sqlite3_close(r->db);
	free(r);
}

void storage_reader_close_pointer(struct storage_reader **r)
{
	storage_reader_close(*r);
}

const char *storage_reader_error(const struct storage_reader *r)
{
	return r->error;
}

void storage_reader_set_deadline(struct storage_reader *r, int64_t mono_ms)
{
	r->deadline_mono_ms = mono_ms;
}

static int bind(sqlite3_stmt *statement, int i, const struct storage_value *value)
{
	switch (value->type) {
	case STORAGE_NULL:
		return sqlite3_bind_null(statement, i);
	case STORAGE_INTEGER:
		return sqlite3_bind_int64(statement, i, value->integer);
	case STORAGE_REAL:
		return sqlite3_bind_double(statement, i, value->real);
	case STORAGE_BYTES:
		return sqlite3_bind_text64(statement, i, value->text.s, value->text.len,
					   SQLITE_STATIC, SQLITE_UTF8);
	}
	return SQLITE_MISUSE;
}

int storage_reader_query(struct storage_reader *r, const char *sql,
			 const struct storage_value *values, size_t n)
{
	storage_reader_end(r);
	int code = sqlite3_prepare_v2(r->db, sql, -1, &r->statement, NULL);

	for (size_t i = 0; code == SQLITE_OK && i < n; i++)
		code = bind(r->statement, (int)i + 1, &values[i]);
	if (code == SQLITE_OK)
		return 0;
	int rc = fail(r, code);
	storage_reader_end(r);
	return rc;
}

int storage_reader_next(struct storage_reader *r)
{
	assert(r->statement);
	int code = sqlite3_step(r->statement);

	if (code == SQLITE_ROW)
		return STORAGE_READER_ROW;
	int rc = code == SQLITE_DONE ? 0 : fail(r, code);
	storage_reader_end(r);
	return rc;
}

size_t storage_reader_columns(const struct storage_reader *r)
{
	return r->statement ? (size_t)sqlite3_column_count(r->statement) : 0;
}

const char *storage_reader_column(const struct storage_reader *r, size_t i)
{
	const char *name = sqlite3_column_name(r->statement, (int)i);

	return name ? name : "";
}

struct storage_value storage_reader_value(struct storage_reader *r, size_t i)
{
	struct storage_value value = { .type = STORAGE_NULL };

	assert(r->statement && i < storage_reader_columns(r));
	switch (sqlite3_column_type(r->statement, (int)i)) {
	case SQLITE_INTEGER:
		value.type = STORAGE_INTEGER;
		value.integer = sqlite3_column_int64(r->statement, (int)i);
		break;
	case SQLITE_FLOAT:
		value.type = STORAGE_REAL;
		value.real = sqlite3_column_double(r->statement, (int)i);
		break;
	case SQLITE_TEXT:
	case SQLITE_BLOB:
		value.type = STORAGE_BYTES;
		/* Blob access to either: no conversion, and the pointer before the length. */
		value.text.s = sqlite3_column_blob(r->statement, (int)i);
		value.text.len = (size_t)sqlite3_column_bytes(r->statement, (int)i);
		if (!value.text.s)
			value.text.s = ""; /* SQLite's way of saying empty */
		break;
	default:
		break;
	}
	return value;
}

void storage_reader_end(struct storage_reader *r)
{
	(void)sqlite3_finalize(r->statement);
	r->statement = NULL;
}

int storage_reader_integers(struct storage_reader *r, const char *sql, int64_t *ret, size_t n)
{
	int rc = storage_reader_query(r, sql, NULL, 0);

	if (rc < 0)
		return rc;
	rc = storage_reader_next(r);
	if (rc < 0)
		return rc;
	if (rc == 0)
		return -ENODATA;
	assert(n <= storage_reader_columns(r));
	for (size_t i = 0; i < n; i++)
		ret[i] = sqlite3_column_int64(r->statement, (int)i);
	storage_reader_end(r);
	return 0;
}

int storage_reader_daemon_state(const char *path)
{
	char lock[4096];
	int n = snprintf(lock, sizeof(lock), "%s.lock", path);

	if (n < 0 || (size_t)n >= sizeof(lock))
		return -ENAMETOOLONG;
	CLEANUP_CLOSE int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	/* Given back at once: closing the descriptor ends it. */
	if (flock(fd, LOCK_SH | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? STORAGE_READER_HELD : -errno;
}
