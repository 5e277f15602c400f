/* Putting a copy in place. Everything that can go wrong goes wrong under another name
 * (`PATH.restoring`): copying, checking, migrating. Then the old store gets its second names, and
 * only when these are on disk does it lose the first ones.
 *
 * Invariant: whenever this ends or dies, the old store is whole, under its own name or set aside;
 * and never does a database meet the write-ahead log of another one, which SQLite would replay into
 * it.
 */
#include "storage_sqlite_backup.h"

#include "clock.h"
#include "storage_alert.h"
#include "storage_sqlite_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define PATH_BYTES 4096
#define CHUNK 65536
#define STAGING ".restoring"

#define refuse storage_sqlite_copy_refuse

static const char *const suffixes[] = { "", "-wal", "-shm" };

/* The snapshot -------------------------------------------------------------- */

static int open_beside(const char *path, const char *suffix, int *ret_fd)
{
	char name[PATH_BYTES + 16];
	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	*ret_fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	return *ret_fd < 0 && errno != ENOENT ? -errno : 0;
}

static bool is_empty(int fd)
{
	struct stat st;
	return fd < 0 || (fstat(fd, &st) == 0 && st.st_size == 0);
}

/* Files beside it: a lock that is held means that the file changes under our hands. */
static int open_company(struct storage_snapshot *s, char error[static STORAGE_ERROR_MAX])
{
	CLEANUP_CLOSE int journal_fd = -1;
	int r = open_beside(s->path, "-wal", &s->wal_fd);
	if (r == 0)
		r = open_beside(s->path, "-journal", &journal_fd);
	if (r == 0)
		r = open_beside(s->path, ".lock", &s->lock_fd);
	if (r < 0)
		return refuse(error, r, "%s: the files beside it cannot be read: %s", s->path,
			      strerror(-r));
	if (!is_empty(journal_fd))
		return refuse(error, -EINVAL,
			      "%s: an unfinished transaction is beside it (-journal): it is no "
			      "copy that e2b-hookctl backup made",
			      s->path);
	if (s->lock_fd >= 0 && flock(s->lock_fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return refuse(error, -EBUSY,
			      "%s: a daemon uses it: take a copy with `e2b-hookctl backup`, and "
			      "restore that",
			      s->path);
	return 0;
}

int storage_snapshot_open(const char *file, struct storage_snapshot *ret,
			  char error[static STORAGE_ERROR_MAX])
{
	CLEANUP(storage_snapshot_close) struct storage_snapshot s = STORAGE_SNAPSHOT_INIT;
	struct stat st;
	error[0] = '\0';
	s.path = realpath(file, NULL);
	if (s.path)
		s.fd = open(s.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (s.fd < 0 || fstat(s.fd, &st) < 0)
		return refuse(error, -errno, "%s: %s", file, strerror(errno));
	if (!S_ISREG(st.st_mode) || strlen(s.path) >= PATH_BYTES)
		return refuse(error, -EINVAL, "%s: not a file", file);
	int r = open_company(&s, error);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct storage_snapshot)STORAGE_SNAPSHOT_INIT;
	return 0;
}

void storage_snapshot_close(struct storage_snapshot *s)
{
	int *const fds[] = { &s->fd, &s->wal_fd, &s->lock_fd };
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		if (*fds[i] >= 0)
			(void)close(*fds[i]);
		*fds[i] = -1;
	}
	free(s->path);
	s->path = NULL;
}

/* Staging ------------------------------------------------------------------- */

struct restore {
	const struct storage_options *options;
	const struct storage_snapshot *snapshot;
	struct storage_restored *ret;
	char staging[PATH_BYTES + 16];
	int lock_fd;
	int fd; /* of the staged database: closing it earlier would drop SQLite's locks on it */
};

static int take_lock(struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	char path[PATH_BYTES + 16];
	(void)snprintf(path, sizeof(path), "%s.lock", r->options->path);
	r->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, STORAGE_COPY_MODE);
	if (r->lock_fd < 0)
		return refuse(error, -errno,
			      "%s: %s: restore as the user who owns the store's directory, or "
			      "as root",
			      path, strerror(errno));
	if (flock(r->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return refuse(error, errno == EWOULDBLOCK ? -EBUSY : -errno,
			      "%s: a daemon runs on this store: stop it first (systemctl stop "
			      "e2b-hookd.socket e2b-hookd: the service alone is started again by "
			      "the next delivery)",
			      r->options->path);
	return 0;
}

static void remove_staging(const struct restore *r)
{
	static const char *const all[] = { "", "-wal", "-shm", "-journal", ".lock" };
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		char path[PATH_BYTES + 32];
		(void)snprintf(path, sizeof(path), "%s%s", r->staging, all[i]);
		(void)unlink(path);
	}
}

static int write_all(int fd, const char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

static int copy_to(int from, int to)
{
	char chunk[CHUNK];
	off_t at = 0;
	for (;;) {
		ssize_t n = pread(from, chunk, sizeof(chunk), at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		int r = write_all(to, chunk, (size_t)n);
		if (r < 0)
			return r;
		at += n;
	}
}

static int stage_file(const struct restore *r, const char *suffix, int from, int *ret_fd)
{
	char path[PATH_BYTES + 32];
	(void)snprintf(path, sizeof(path), "%s%s", r->staging, suffix);
	*ret_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (*ret_fd < 0)
		return -errno;
	int status = fchmod(*ret_fd, STORAGE_COPY_MODE) < 0 ? -errno : 0;
	return status < 0 ? status : copy_to(from, *ret_fd);
}

static int stage(struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	CLEANUP_CLOSE int wal_fd = -1;
	remove_staging(r);
	int status = stage_file(r, "", r->snapshot->fd, &r->fd);
	if (status == 0 && r->snapshot->wal_fd >= 0)
		status = stage_file(r, "-wal", r->snapshot->wal_fd, &wal_fd);
	return status == 0 ? 0
			   : refuse(error, status, "%s: %s: %s", r->staging, strerror(-status),
				    status == -ENOSPC ? "make room for a second copy"
						      : "the copy could not be written there");
}

/* Looking at it ------------------------------------------------------------- */

static int refuse_damaged(const struct restore *r, sqlite3 *db, int status,
			  char error[static STORAGE_ERROR_MAX])
{
	if (status != -EUCLEAN)
		return refuse(error, status, "%s: %s", r->snapshot->path, sqlite3_errmsg(db));
	return refuse(error, status, "%s: damaged, or not a database (%s): take another copy",
		      r->snapshot->path, sqlite3_errmsg(db));
}

static int check_identity(const struct restore *r, sqlite3 *db,
			  char error[static STORAGE_ERROR_MAX])
{
	int64_t application = 0, version = 0;
	int status = storage_sqlite_copy_integer(db, "PRAGMA application_id", &application);
	if (status == 0)
		status = storage_sqlite_copy_integer(db, "PRAGMA user_version", &version);
	if (status < 0)
		return refuse_damaged(r, db, status, error);
	if (application != STORAGE_APPLICATION_ID || version < 1)
		return refuse(error, -EPERM, "%s: not a store of e2b-hookd", r->snapshot->path);
	if (version > storage_check_schema_version())
		return refuse(error, -EPROTO,
			      "%s: made by a newer e2b-hookd (schema %lld, this one knows %lld): "
			      "install that version, then restore",
			      r->snapshot->path, (long long)version,
			      (long long)storage_check_schema_version());
	r->ret->schema_version = version;
	return 0;
}

static int check_pages(const struct restore *r, sqlite3 *db, char error[static STORAGE_ERROR_MAX])
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	const char *text =
		code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
	int status = 0;
	if (!text) {
		status = refuse_damaged(r, db, storage_sqlite_copy_errno(db, code), error);
	} else if (strcmp(text, "ok") != 0) {
		const char *line = strchr(text, '\n'); /* the first is a heading */
		line = line ? line + 1 : text;
		status = refuse(error, -EUCLEAN, "%s: damaged (%.*s): take another copy",
				r->snapshot->path, (int)strcspn(line, "\n"), line);
	}
	(void)sqlite3_finalize(statement);
	return status;
}

/* Its write-ahead log, if it came with one, becomes part of the file. */
static int examine(const struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	CLEANUP(storage_sqlite_copy_close) sqlite3 *db = NULL;
	int code = sqlite3_open_v2(
		r->staging, &db,
		SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
	if (code != SQLITE_OK)
		return refuse_damaged(r, db, storage_sqlite_copy_errno(db, code), error);
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	int status = check_identity(r, db, error);
	if (status < 0)
		return status;
	code = sqlite3_exec(db, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return refuse_damaged(r, db, storage_sqlite_copy_errno(db, code), error);
	status = check_pages(r, db, error);
	if (status < 0)
		return status;
	status = storage_sqlite_copy_integer(db, "SELECT count(*) FROM event", &r->ret->events);
	if (status == 0)
		status = storage_sqlite_copy_integer(
			db, "SELECT coalesce(max(time_s), 0) FROM event", &r->ret->newest_unix_s);
	return status < 0 ? refuse_damaged(r, db, status, error) : 0;
}

/* The engine opens it once: what it would refuse or fail to migrate never gets into place. Closing
 * moves all into the database file. */
/* What the copy had still to tell is old news, and so is what happened in it. */
static int forget_alerts(struct storage *s, char error[static STORAGE_ERROR_MAX])
{
	int r = storage_begin(s, true);
	if (r == 0)
		r = storage_alert_forget(s);
	if (r == 0)
		r = storage_commit(s);
	if (r == 0)
		return 0;
	(void)refuse(error, r, "%s: its alerts could not be dropped: %s", s->path,
		     storage_error(s));
	storage_rollback(s);
	return r;
}

static int open_once(const struct storage_options *options, const char *path, bool forget,
		     char error[static STORAGE_ERROR_MAX])
{
	struct storage_options own = *options;
	struct storage *s = NULL;
	own.path = path;
	int r = storage_open(&own, &s, error);
	if (r == 0 && forget)
		r = forget_alerts(s, error);
	storage_close(s);
	return r;
}

static int prepare(struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	struct stat st;
	char wal[PATH_BYTES + 32];
	int status = stage(r, error);
	if (status == 0)
		status = examine(r, error);
	if (status == 0)
		status = open_once(r->options, r->staging, true, error);
	if (status < 0)
		return status;
	(void)snprintf(wal, sizeof(wal), "%s-wal", r->staging);
	if (lstat(wal, &st) == 0 && st.st_size > 0)
		return refuse(error, -EIO, "%s: could not be moved into the database", wal);
	return fsync(r->fd) < 0 ? refuse(error, -errno, "%s: %s", r->staging, strerror(errno)) : 0;
}

/* In place ------------------------------------------------------------------ */

/* 2026-11-22T10:00:00.123Z as 20261122T100000.123Z: a colon in a name is a host to many tools. */
static void drop_punctuation(char *text)
{
	char *to = text;
	for (const char *c = text; *c; c++)
		if (*c != '-' && *c != ':')
			*to++ = *c;
	*to = '\0';
}

/* Second names for the old files, in time for the first ones to go. */
static int set_aside(struct restore *r)
{
	char at[CLOCK_TEXT_MAX], *aside = r->ret->aside;
	struct stat st;
	(void)clock_format_ms(clock_unix_ms(), at);
	drop_punctuation(at);
	int n = snprintf(aside, sizeof(r->ret->aside), "%s.before-restore-%s", r->options->path,
			 at);
	if (n < 0 || (size_t)n + 8 >= sizeof(r->ret->aside))
		return -ENAMETOOLONG;
	bool is_there = lstat(r->options->path, &st) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char old[PATH_BYTES + 16], new[PATH_BYTES + 16];
		(void)snprintf(old, sizeof(old), "%s%s", r->options->path, suffixes[i]);
		(void)snprintf(new, sizeof(new), "%s%s", aside, suffixes[i]);
		if (link(old, new) < 0 && errno != ENOENT)
			return -errno;
	}
	if (!is_there)
		*aside = '\0';
	return storage_sqlite_copy_sync_directory(r->options->path);
}

static void undo_aside(const struct restore *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes) && *r->ret->aside; i++) {
		char new[PATH_BYTES + 16];
		(void)snprintf(new, sizeof(new), "%s%s", r->ret->aside, suffixes[i]);
		(void)unlink(new);
	}
}

/* The database loses its name first: a log without a database is thrown away by SQLite, a database
 * without its log would lack what was acknowledged last. */
static int take_place(const struct restore *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char old[PATH_BYTES + 16];
		(void)snprintf(old, sizeof(old), "%s%s", r->options->path, suffixes[i]);
		if (unlink(old) < 0 && errno != ENOENT)
			return -errno;
	}
	int status = storage_sqlite_copy_sync_directory(r->options->path);
	if (status == 0 && rename(r->staging, r->options->path) < 0)
		status = -errno;
	return status < 0 ? status : storage_sqlite_copy_sync_directory(r->options->path);
}

static int put_in_place(struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	int status = set_aside(r);
	if (status < 0) {
		undo_aside(r);
		return refuse(error, status, "%s: the old store could not be set aside: %s",
			      r->options->path, strerror(-status));
	}
	status = take_place(r);
	if (status < 0)
		return refuse(error, status,
			      "%s: %s: the old store is at %s, the new one at %s: move one of "
			      "them here by hand",
			      r->options->path, strerror(-status), r->ret->aside, r->staging);
	remove_staging(r); /* what the engine left beside it */
	return 0;
}

static int check_not_itself(const struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	struct stat own, other;
	if (stat(r->options->path, &own) < 0 || fstat(r->snapshot->fd, &other) < 0)
		return 0;
	if (own.st_dev == other.st_dev && own.st_ino == other.st_ino)
		return refuse(error, -EINVAL, "%s: is the store itself: there is nothing to do",
			      r->snapshot->path);
	return 0;
}

static int replace(struct restore *r, char error[static STORAGE_ERROR_MAX])
{
	int status = check_not_itself(r, error);
	if (status == 0)
		status = take_lock(r, error);
	if (status < 0)
		return status;
	status = prepare(r, error);
	if (status < 0) {
		remove_staging(r);
		return status;
	}
	return put_in_place(r, error);
}

int storage_restore(const struct storage_options *options, const struct storage_snapshot *snapshot,
		    struct storage_restored *ret, char error[static STORAGE_ERROR_MAX])
{
	struct restore r = { options, snapshot, ret, .lock_fd = -1, .fd = -1 };
	error[0] = '\0';
	*ret = (struct storage_restored) { .events = 0 };
	if (strlen(options->path) + sizeof(STAGING) >= PATH_BYTES)
		return refuse(error, -ENAMETOOLONG, "the store's path is too long");
	(void)snprintf(r.staging, sizeof(r.staging), "%s" STAGING, options->path);
	int status = replace(&r, error);
	if (r.fd >= 0)
		(void)close(r.fd);
	if (r.lock_fd >= 0)
		(void)close(r.lock_fd);
	if (status < 0)
		return status;
	/* Makes -wal and -shm, without which readers could not read before the daemon starts. If it
	 * has started already, it made them. */
	status = open_once(options, options->path, false, error);
	return status == -EBUSY ? 0 : status;
}
