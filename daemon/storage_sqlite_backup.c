/* Taking a copy. VACUUM INTO from a read-only connection: one statement, one snapshot, which a
 * writer neither disturbs nor waits for. (The stepwise backup interface begins anew whenever
 * somebody writes: beside a busy daemon it never ends.) SQLite promises no sync of what it writes
 * there: we do that, before the name changes.
 *
 * The name of the unfinished copy is fixed and locked, so what a killed backup left is taken over
 * by the next one instead of staying for ever.
 */
#include "storage_sqlite_backup.h"

#include "storage_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define BUSY_TIMEOUT_MS 2000
#define STEPS_PER_LOOK 100 /* of SQLite's machine, between two looks whether to stop */
#define NAME_MAX_BYTES 4096

int storage_sqlite_copy_refuse(char error[static STORAGE_ERROR_MAX], int code, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(error, STORAGE_ERROR_MAX, fmt, args);
	va_end(args);
	return code;
}

int storage_sqlite_copy_errno(sqlite3 *db, int code)
{
	switch (code & 0xff) {
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_INTERRUPT:
		return -ECANCELED;
	case SQLITE_CANTOPEN:
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return -EACCES;
	default:
		return db && sqlite3_system_errno(db) == ENOSPC ? -ENOSPC : -EIO;
	}
}

int storage_sqlite_copy_integer(sqlite3 *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		*ret = sqlite3_column_int64(statement, 0);
	(void)sqlite3_finalize(statement);
	return code == SQLITE_ROW ? 0 : storage_sqlite_copy_errno(db, code);
}

int storage_sqlite_copy_sync_directory(const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	CLEANUP_CLOSE int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

void storage_sqlite_copy_close(sqlite3 **db)
{
	(void)sqlite3_close(*db);
}

/* Names --------------------------------------------------------------------- */

struct backup {
	const struct storage_backup_options *options;
	char dest[NAME_MAX_BYTES], unfinished[NAME_MAX_BYTES + 8];
	int fd; /* of the unfinished copy, locked */
	sqlite3 *db;
};

/* Never a name that SQLite would take for a URI. */
static int take_name(struct backup *b, char error[static STORAGE_ERROR_MAX])
{
	const char *dest = b->options->dest;
	size_t len = strlen(dest);
	int n = snprintf(b->dest, sizeof(b->dest), "%s%s", dest[0] == '/' ? "" : "./", dest);
	if (len == 0 || dest[len - 1] == '/')
		return storage_sqlite_copy_refuse(error, -EINVAL,
						  "%s: name a file for the copy, not a directory",
						  len ? dest : "DEST");
	if (n < 0 || (size_t)n >= sizeof(b->dest))
		return storage_sqlite_copy_refuse(error, -ENAMETOOLONG, "the name is too long");
	(void)snprintf(b->unfinished, sizeof(b->unfinished), "%s.tmp", b->dest);
	return 0;
}

static bool exists(const char *name, const char *suffix, struct stat *ret)
{
	char path[NAME_MAX_BYTES + 8];
	(void)snprintf(path, sizeof(path), "%s%s", name, suffix);
	return lstat(path, ret) == 0;
}

static bool is_of_store(const struct backup *b, const struct stat *st)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", ".lock", ".control" };
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		struct stat own;
		if (exists(b->options->path, suffixes[i], &own) && own.st_dev == st->st_dev &&
		    own.st_ino == st->st_ino)
			return true;
	}
	return false;
}

/* What has the name already must be a plain copy, and nothing that lives. */
static int check_dest(const struct backup *b, char error[static STORAGE_ERROR_MAX])
{
	struct stat st, wal;
	if (!exists(b->dest, "", &st))
		return 0;
	if (S_ISDIR(st.st_mode))
		return storage_sqlite_copy_refuse(
			error, -EISDIR, "%s: a directory: name a file in it", b->options->dest);
	if (is_of_store(b, &st))
		return storage_sqlite_copy_refuse(error, -EEXIST,
						  "%s: a file of the store itself: name another",
						  b->options->dest);
	if (!b->options->force)
		return storage_sqlite_copy_refuse(
			error, -EEXIST, "%s: exists: name another file, or replace it with --force",
			b->options->dest);
	if (!S_ISREG(st.st_mode))
		return storage_sqlite_copy_refuse(
			error, -EEXIST, "%s: not a plain file: name another", b->options->dest);
	if (exists(b->dest, "-wal", &wal))
		return storage_sqlite_copy_refuse(
			error, -EEXIST,
			"%s: a write-ahead log is beside it: it is a database in use, not a copy",
			b->options->dest);
	return 0;
}

/* The unfinished copy ------------------------------------------------------- */

static int refuse_unfinished(const struct backup *b, int code, char error[static STORAGE_ERROR_MAX])
{
	if (code == -EWOULDBLOCK)
		return storage_sqlite_copy_refuse(error, -EBUSY,
						  "%s: another backup is writing it: wait for that",
						  b->unfinished);
	if (code == -EEXIST || code == -ELOOP)
		return storage_sqlite_copy_refuse(
			error, -EEXIST, "%s: in the way, and not ours: remove it", b->unfinished);
	return storage_sqlite_copy_refuse(error, code,
					  "%s: %s: it must be possible to make a file there",
					  b->unfinished, strerror(-code));
}

/* A killed backup's file may be ours to take over; by the time we have its lock, its owner may have
 * finished and renamed it: -EAGAIN. */
static int take_over(struct backup *b)
{
	struct stat st, named;
	if (flock(b->fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	if (fstat(b->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink > 1)
		return st.st_nlink == 0 ? -EAGAIN : -EEXIST;
	if (!exists(b->unfinished, "", &named) || named.st_ino != st.st_ino ||
	    named.st_dev != st.st_dev)
		return -EAGAIN;
	if (ftruncate(b->fd, 0) < 0 || fchmod(b->fd, STORAGE_COPY_MODE) < 0)
		return -errno;
	return 0;
}

static int begin_unfinished(struct backup *b, char error[static STORAGE_ERROR_MAX])
{
	int r = -EAGAIN;
	for (int tries = 0; r == -EAGAIN && tries < 100; tries++) {
		if (b->fd >= 0)
			(void)close(b->fd);
		b->fd = open(b->unfinished,
			     O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
			     0600);
		r = b->fd < 0 ? -errno : take_over(b);
	}
	if (r < 0)
		return refuse_unfinished(b, r, error);
	char journal[NAME_MAX_BYTES + 32];
	(void)snprintf(journal, sizeof(journal), "%s-journal", b->unfinished);
	(void)unlink(journal);
	return 0;
}

/* Writing it ---------------------------------------------------------------- */

static int wants_stop(void *ctx)
{
	const struct backup *b = ctx;
	return b->options->stop && b->options->stop();
}

static int refuse_failed(const struct backup *b, int r, char error[static STORAGE_ERROR_MAX])
{
	const char *advice = "see the system's log";
	if (r == -ECANCELED)
		return storage_sqlite_copy_refuse(error, r, "ended on request: no copy was made");
	if (r == -ENOSPC)
		advice = "no room for the copy: make some, or name a file elsewhere";
	else if (r == -EUCLEAN)
		advice = "the store is damaged: look at it with `e2b-hookctl check`";
	else if (r == -EBUSY)
		advice = "another program holds a lock on the store: end that, then try again";
	return storage_sqlite_copy_refuse(error, r, "%s: %s: %s", b->options->dest,
					  sqlite3_errmsg(b->db), advice);
}

/* The reader's checks and words; its connection refuses to write anywhere, so ours is another. */
static int open_store(struct backup *b, char error[static STORAGE_ERROR_MAX])
{
	struct storage_reader *reader = NULL;
	int r = storage_reader_open(b->options->path, &reader, error);
	storage_reader_close(reader);
	if (r < 0)
		return r;
	int code = sqlite3_open_v2(
		b->options->path, &b->db,
		SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (code != SQLITE_OK)
		return storage_sqlite_copy_refuse(error, storage_sqlite_copy_errno(b->db, code),
						  "%s: %s", b->options->path,
						  sqlite3_errmsg(b->db));
	(void)sqlite3_busy_timeout(b->db, BUSY_TIMEOUT_MS);
	sqlite3_progress_handler(b->db, STEPS_PER_LOOK, wants_stop, b);
	/* One sync when all is written is enough, and ours. */
	code = sqlite3_exec(b->db, "PRAGMA synchronous=OFF", NULL, NULL, NULL);
	return code == SQLITE_OK ? 0
				 : refuse_failed(b, storage_sqlite_copy_errno(b->db, code), error);
}

static int write_copy(struct backup *b, char error[static STORAGE_ERROR_MAX])
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(b->db, "VACUUM INTO ?", -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_bind_text(statement, 1, b->unfinished, -1, SQLITE_STATIC);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	int r = code == SQLITE_DONE ? 0 : storage_sqlite_copy_errno(b->db, code);
	if (r == 0 && wants_stop(b))
		r = -ECANCELED;
	if (r < 0)
		r = refuse_failed(b, r, error);
	(void)sqlite3_finalize(statement);
	return r;
}

/* Without force the name must still be free at this very moment. */
static int rename_copy(const struct backup *b)
{
	if (b->options->force)
		return rename(b->unfinished, b->dest) < 0 ? -errno : 0;
	if (renameat2(AT_FDCWD, b->unfinished, AT_FDCWD, b->dest, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (link(b->unfinished, b->dest) < 0)
		return -errno;
	return unlink(b->unfinished) < 0 ? -errno : 0;
}

static int finish_copy(struct backup *b, int64_t *ret_bytes, char error[static STORAGE_ERROR_MAX])
{
	struct stat st = { 0 };
	int r = fsync(b->fd) < 0 || fstat(b->fd, &st) < 0 ? -errno : 0;
	if (r == 0)
		r = rename_copy(b);
	if (r == 0)
		r = storage_sqlite_copy_sync_directory(b->dest);
	if (r < 0)
		return storage_sqlite_copy_refuse(error, r, "%s: %s", b->options->dest,
						  r == -EEXIST ? "exists by now: name another file"
							       : strerror(-r));
	*ret_bytes = st.st_size;
	return 0;
}

int storage_backup(const struct storage_backup_options *options, int64_t *ret_bytes,
		   char error[static STORAGE_ERROR_MAX])
{
	struct backup b = { .options = options, .fd = -1 };
	error[0] = '\0';
	int r = take_name(&b, error);
	if (r == 0)
		r = check_dest(&b, error);
	if (r == 0)
		r = open_store(&b, error);
	if (r == 0)
		r = begin_unfinished(&b, error);
	bool is_begun = r == 0;
	if (r == 0)
		r = write_copy(&b, error);
	if (r == 0)
		r = finish_copy(&b, ret_bytes, error);
	if (r < 0 && is_begun)
		(void)unlink(b.unfinished); /* ours: we hold its lock */
	storage_sqlite_copy_close(&b.db);
	if (b.fd >= 0)
		(void)close(b.fd);
	return r;
}
