/* Opening the store: lock, checks, settings, migrations. Every refusal says in one line what to do.
 *
 * Settings that are fixed when the file is created (docs/PERFORMANCE.md has the measurement):
 * page_size 4096, auto_vacuum INCREMENTAL, so that pruning can give space back to the file system.
 * Persistent -wal and -shm files let readers without any write right open the database while the
 * daemon is down (without them SQLite would have to create them).
 */
#include "storage_sqlite_damage.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_known.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_sync.h"
#include "storage_sqlite_traits.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define FILE_MODE 0640 /* SQLite gives -wal and -shm the mode of the database */
#define PAGE_BYTES 4096
#define LOG_BYTES_MAX (INT64_C(64) << 20) /* the file keeps so much when it is reset */
/* Moved into the database when it has so many: rarely, for a batch waits while it runs. */
#define CHECKPOINT_FRAMES_MAX 14000
#define LOCK_TRIES 5
#define LOCK_PAUSE_US 40000
#define CIFS_MAGIC 0xff534d42
/* A read that the disk refuses is, to SQLite, damage as well: it must stay so for a while. */
#define DAMAGE_TRIES 3
#define DAMAGE_PAUSE_US 200000
#define BUSY_TIMEOUT_MS 2000 /* below commit_timeout: a foreign lock becomes a 503, not a hang */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
static const struct migration {
	int version;
	const char *name, *sql;
} migrations[] = {
#include "schema_sqlite.inc"
};
#pragma GCC diagnostic pop

#define SCHEMA_VERSION ((int)ARRAY_SIZE(migrations))

/* Sentences for the operator; always returns `code`. */
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

static int check_directory(const char *path, char error[static STORAGE_ERROR_MAX])
{
	CLEANUP_FREE char *copy = strdup(path);
	if (!copy)
		return refuse(error, -ENOMEM, "%s: out of memory", path);
	const char *dir = dirname(copy);
	struct stat st;
	if (stat(dir, &st) < 0)
		return refuse(
			error, -errno,
			"%s: %s: create the directory and give it to the daemon's user (mode 0750)",
			dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return refuse(error, -ENOTDIR,
			      "%s: not a directory: set [store] path to a file in a directory",
			      dir);
	if (access(dir, W_OK | X_OK) < 0)
		return refuse(error, -errno,
			      "%s: %s: the daemon's user (uid %u) must be able to write there: "
			      "chown it, mode 0750",
			      dir, strerror(errno), (unsigned int)geteuid());
	struct statfs fs;
	if (statfs(dir, &fs) == 0) {
		unsigned long type = (unsigned long)fs.f_type & 0xffffffff;
		if (type == NFS_SUPER_MAGIC || type == SMB_SUPER_MAGIC ||
		    type == SMB2_SUPER_MAGIC || type == CIFS_MAGIC || type == AFS_SUPER_MAGIC ||
		    type == CEPH_SUPER_MAGIC)
			return refuse(error, -EOPNOTSUPP,
				      "%s: a network file system: SQLite's locks are not safe "
				      "there; use a local disk",
				      dir);
	}
	return 0;
}

/* `status` holds the lock for an instant to see whether a daemon does. */
static int try_lock(int fd)
{
	int r = -1;
	for (int i = 0; i < LOCK_TRIES && r < 0; i++) {
		if (i > 0)
			(void)usleep(LOCK_PAUSE_US);
		r = flock(fd, LOCK_EX | LOCK_NB);
		if (r < 0 && errno != EWOULDBLOCK)
			break;
	}
	return r;
}

static int take_lock(const char *store, int *ret_fd, char error[static STORAGE_ERROR_MAX])
{
	char path[4096];
	(void)snprintf(path, sizeof(path), "%s.lock", store);
	*ret_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
	if (*ret_fd < 0)
		return refuse(error, -errno, "%s: %s: the daemon's user (uid %u) must own it", path,
			      strerror(errno), (unsigned int)geteuid());
	(void)!fchmod(*ret_fd, FILE_MODE); /* whatever the umask says; not where it is another's */
	if (try_lock(*ret_fd) < 0)
		return refuse(error, errno == EWOULDBLOCK ? -EBUSY : -errno,
			      "%s: another e2b-hookd uses this store: stop it, or give this one "
			      "another [store] path",
			      store);
	return 0;
}

/* What the operator can do about an error of SQLite's. */
static int refuse_failed(const struct storage *s, char error[static STORAGE_ERROR_MAX], int r)
{
	const char *advice = "look into the system's log, then at `e2b-hookctl check`";
	if (r == -EUCLEAN)
		advice = "not a usable SQLite database: move it away or restore a backup, or set "
			 "another [store] path";
	else if (r == -EBUSY)
		advice = "another program holds a lock on it: end that, then start again";
	else if (r == -ENOSPC)
		advice = "the disk is full: make room";
	else if (r == -EACCES)
		advice = "the daemon's user must be able to write it, and its directory";
	return refuse(error, r, "%s: %s: %s", s->path, s->error, advice);
}

/* Creates the file with the right mode, and mends the mode of what a restore left behind. */
static int prepare_files(struct storage *s, char error[static STORAGE_ERROR_MAX])
{
	int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
	if (fd < 0 && (errno == ELOOP || errno == EISDIR))
		return refuse(error, -errno, "%s: %s: set [store] path to the file itself", s->path,
			      errno == ELOOP ? "a symbolic link" : "a directory");
	if (fd < 0)
		return refuse(error, -errno,
			      "%s: %s: the daemon's user (uid %u) must be able to write it",
			      s->path, strerror(errno), (unsigned int)geteuid());
	(void)close(fd); /* before SQLite opens it: closing later would drop its locks */
	if (storage_sqlite_damage_has_stray_log(s->path)) {
		(void)snprintf(s->error, sizeof(s->error),
			       "a write-ahead log without its database");
		return refuse_failed(s, error, -EUCLEAN);
	}
	static const char *const suffixes[] = { "", "-wal", "-shm" };
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char path[4096];
		struct stat st;
		(void)snprintf(path, sizeof(path), "%s%s", s->path, suffixes[i]);
		if (stat(path, &st) < 0)
			continue;
		if (access(path, R_OK | W_OK) < 0)
			return refuse(error, -errno,
				      "%s: owned by uid %u and not writable: a reader made it in a "
				      "group-writable directory; set the"
				      " directory's mode to 0750, chown the file to uid %u",
				      path, (unsigned int)st.st_uid, (unsigned int)geteuid());
		if (st.st_uid == geteuid() && (st.st_mode & 0777) != FILE_MODE)
			(void)!chmod(path, FILE_MODE);
	}
	return 0;
}

static int pragma_number(struct storage *s, const char *sql, int64_t *ret)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	*ret = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
	(void)sqlite3_finalize(statement);
	return code == SQLITE_ROW ? 0 : storage_sqlite_fail(s, code, sql);
}

static int run_sql(struct storage *s, const char *sql)
{
	int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
	return code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot set up the store");
}

/* Whose database is it? An empty file is ours to fill; in another's nothing is changed. */
static int check_identity(struct storage *s, char error[static STORAGE_ERROR_MAX],
			  int64_t *ret_version)
{
	int64_t application = 0, tables = 0;
	int r = pragma_number(s, "SELECT count(*) FROM sqlite_schema", &tables);
	if (r == 0)
		r = pragma_number(s, "PRAGMA application_id", &application);
	if (r == 0)
		r = pragma_number(s, "PRAGMA user_version", ret_version);
	if (r < 0)
		return refuse_failed(s, error, r);
	if (application != STORAGE_APPLICATION_ID && (tables > 0 || application != 0))
		return refuse(error, -EPERM,
			      "%s: a database of another application (application_id 0x%08llx): "
			      "set another [store] path",
			      s->path, (unsigned long long)application);
	if (*ret_version < (tables > 0)) {
		(void)snprintf(s->error, sizeof(s->error), "schema version %lld",
			       (long long)*ret_version);
		return refuse_failed(s, error, -EUCLEAN);
	}
	if (*ret_version > SCHEMA_VERSION)
		return refuse(error, -EPROTO,
			      "%s: made by a newer e2b-hookd (schema %lld, this one knows %d): "
			      "install that version again",
			      s->path, (long long)*ret_version, SCHEMA_VERSION);
	return 0;
}

/* A log that nobody holds stays well below wal_limit: what is above it is worth a warning. */
static int limit_log(struct storage *s)
{
	char sql[64];
	int64_t half = s->options.wal_limit > 0 ? s->options.wal_limit / 2 : LOG_BYTES_MAX;
	(void)snprintf(sql, sizeof(sql), "PRAGMA journal_size_limit=%" PRId64,
		       base_min_i64(half, LOG_BYTES_MAX));
	s->checkpoint_frames = (int)base_min_i64(half / PAGE_BYTES, CHECKPOINT_FRAMES_MAX);
	return run_sql(s, sql);
}

static int apply_settings(struct storage *s, char error[static STORAGE_ERROR_MAX])
{
	int on = 1;
	int64_t value;
	(void)sqlite3_file_control(s->db, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
	(void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	int r = run_sql(
		s,
		"PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;"
		"PRAGMA trusted_schema=OFF; PRAGMA secure_delete=OFF; PRAGMA wal_autocheckpoint=0;"
		"PRAGMA cache_size=-5120; PRAGMA "
		"synchronous=FULL");
	if (r == 0)
		r = pragma_number(s, "PRAGMA synchronous", &value);
	if (r == 0 && value != 2)
		r = storage_sqlite_fail(s, SQLITE_ERROR, "synchronous=FULL was not taken");
	if (r < 0)
		return refuse_failed(s, error, r);
	s->is_durable = true;
	r = limit_log(s);
	if (r < 0)
		return refuse_failed(s, error, r);
	storage_sqlite_watch_wal(s);
	return 0;
}

/* Before the first page is written: later they would change nothing. */
static int set_page_layout(struct storage *s, int64_t version, char error[static STORAGE_ERROR_MAX])
{
	if (version > 0)
		return 0;
	int r = run_sql(s, "PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL");
	return r < 0 ? refuse_failed(s, error, r) : 0;
}

static int use_wal(struct storage *s, char error[static STORAGE_ERROR_MAX])
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, "PRAGMA journal_mode=WAL", -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	bool ok = code == SQLITE_ROW &&
		  strcmp((const char *)sqlite3_column_text(statement, 0), "wal") == 0;
	(void)sqlite3_finalize(statement);
	if (ok)
		return 0;
	if (code != SQLITE_ROW)
		return refuse_failed(s, error, storage_sqlite_fail(s, code, "no write-ahead log"));
	return refuse(error, -EOPNOTSUPP,
		      "%s: the file system does not support SQLite's write-ahead log: use a local "
		      "disk",
		      s->path);
}

static int migrate_to(struct storage *s, const struct migration *m)
{
	char stamp[256];
	(void)snprintf(stamp, sizeof(stamp),
		       "PRAGMA application_id=%d; PRAGMA user_version=%d;"
		       "UPDATE position SET schema_version=%d, migrated_ms=%lld WHERE one=1",
		       STORAGE_APPLICATION_ID, m->version, m->version, (long long)clock_unix_ms());
	int r = run_sql(s, m->sql);
	return r < 0 ? r : run_sql(s, stamp);
}

/* All steps in one transaction: the old schema or the new one, never between. */
static int migrate(struct storage *s, int64_t version, char error[static STORAGE_ERROR_MAX])
{
	if (version == SCHEMA_VERSION)
		return 0;
	int r = run_sql(s, "BEGIN IMMEDIATE");
	const char *name = "";
	for (size_t i = (size_t)version; r == 0 && i < ARRAY_SIZE(migrations); i++) {
		name = migrations[i].name;
		r = migrate_to(s, &migrations[i]);
	}
	if (r == 0)
		r = run_sql(s, "COMMIT");
	if (r == 0)
		return 0;
	r = refuse(error, r, "%s: cannot bring the schema from version %lld to %d (%s): %s",
		   s->path, (long long)version, SCHEMA_VERSION, name, s->error);
	(void)!run_sql(s, "ROLLBACK");
	return r;
}

static int load_counters(struct storage *s)
{
	int r = storage_sqlite_load_position(s);
	if (r == 0)
		r = pragma_number(s, "SELECT coalesce(max(sandbox_key), 0) + 1 FROM sandbox",
				  &s->next_sandbox_key);
	if (r == 0)
		r = pragma_number(s, "SELECT coalesce(max(run_key), 0) + 1 FROM run",
				  &s->next_run_key);
	return r < 0 ? r : storage_sqlite_identity_load(s);
}

static int open_database(struct storage *s, char error[static STORAGE_ERROR_MAX])
{
	/* Counting what is allocated takes a lock for each allocation, and nobody asks. Only the
	 * first use of SQLite in the process can say so. */
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	int code = sqlite3_open_v2(s->path, &s->db,
				   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
					   SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
				   NULL);
	if (code != SQLITE_OK)
		return refuse_failed(s, error, storage_sqlite_fail(s, code, "cannot open"));
	(void)sqlite3_extended_result_codes(s->db, 1);
	(void)sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
	int64_t version = 0;
	int r = check_identity(s, error, &version);
	if (r == 0)
		r = set_page_layout(s, version, error);
	if (r == 0)
		r = use_wal(s, error);
	if (r == 0)
		r = apply_settings(s, error);
	if (r == 0)
		r = migrate(s, version, error);
	if (r < 0)
		return r;
	atomic_store(&s->is_doubtful, true); /* who had it before may have seen a sync fail */
	r = version > 0 ? storage_sqlite_damage_probe(s) : 0;
	if (r == 0)
		r = load_counters(s);
	if (r == 0)
		r = storage_sqlite_place_take(s);
	if (r == 0)
		r = storage_sqlite_sync_init(s);
	return r < 0 ? refuse_failed(s, error, r) : 0;
}

/* What is in the place of the store, without its lock. */
static int try_open(const struct storage_options *options, struct storage **ret,
		    char error[static STORAGE_ERROR_MAX])
{
	struct storage *s = calloc(1, sizeof(*s));
	if (!s)
		return refuse(error, -ENOMEM, "out of memory");
	s->lock_fd = -1;
	(void)pthread_mutex_init(&s->sync_lock, NULL);
	s->options = *options;
	s->path = strdup(options->path);
	int r = s->path ? prepare_files(s, error) : -ENOMEM;
	if (r == 0)
		r = open_database(s, error);
	if (r == 0) {
		*ret = s;
		return 0;
	}
	if (r == -EUCLEAN && s->db) /* it stays as it was found */
		(void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	storage_close(s);
	return r;
}

static int begin_anew(const struct storage_options *options, struct storage **ret,
		      char error[static STORAGE_ERROR_MAX])
{
	char found[STORAGE_ERROR_MAX], aside[STORAGE_PATH_MAX];
	(void)snprintf(found, sizeof(found), "%s", error);
	error[0] = '\0';
	int r = storage_sqlite_damage_set_aside(options->path, aside, error);
	if (r == 0)
		r = try_open(options, ret, error);
	if (r < 0)
		return r;
	(void)snprintf((*ret)->error, sizeof((*ret)->error), "%s", found);
	(*ret)->aside = strdup(aside);
	return 0;
}

int storage_open(const struct storage_options *options, struct storage **ret,
		 char error[static STORAGE_ERROR_MAX])
{
	CLEANUP_CLOSE int lock_fd = -1;
	error[0] = '\0';
	int r = check_directory(options->path, error);
	if (r == 0)
		r = take_lock(options->path, &lock_fd, error);
	if (r < 0)
		return r;
	bool is_ours = storage_sqlite_damage_is_ours(options->path);
	bool may_rotate = options->set_damaged_aside && is_ours;
	r = try_open(options, ret, error);
	for (int i = 1; r == -EUCLEAN && may_rotate && i < DAMAGE_TRIES; i++) {
		(void)usleep(DAMAGE_PAUSE_US);
		r = try_open(options, ret, error);
	}
	if (r == -EUCLEAN && may_rotate)
		r = begin_anew(options, ret, error);
	if (r < 0)
		return error[0] ? r : refuse(error, r, "%s: %s", options->path, strerror(-r));
	(*ret)->lock_fd = lock_fd;
	lock_fd = -1;
	(void)!storage_set_unjudged(*ret, storage_unjudged(*ret)); /* for its block */
	return 0;
}

const char *storage_aside(const struct storage *s)
{
	return s->aside ? s->aside : "";
}

void storage_close(struct storage *s)
{
	if (!s)
		return;
	for (size_t t = 0; t < STORAGE_N_TARGETS; t++)
		for (size_t i = 0; i < SQL_N; i++)
			(void)sqlite3_finalize(s->statements[t][i]);
	/* A log with a hole must not be what a half-written database is mended from. */
	if (atomic_load(&s->is_doubtful))
		(void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	int code = sqlite3_close(s->db);
	assert(code == SQLITE_OK);
	storage_sqlite_identity_finish(s);
	storage_sqlite_known_finish(s);
	free(s->gathered.bytes);
	free(s->whole.bytes);
	storage_sqlite_rollup_finish(s);
	storage_sqlite_dims_finish(s);
	storage_sqlite_traits_finish(s);
	storage_sqlite_place_finish(s);
	(void)pthread_mutex_destroy(&s->sync_lock);
	if (s->lock_fd >= 0)
		(void)close(s->lock_fd);
	free(s->aside);
	free(s->path);
	free(s);
}
