/* The SQLite engine's ground: statements, binding, errors, transactions, upkeep.
 *
 * Invariant: one connection, one thread; storage_sync() alone may run beside it. A durable commit
 * runs with synchronous=FULL; others with NORMAL: they are atomic, and reach the disk with the next
 * durable commit or storage_sync(), either of which syncs the whole write-ahead log.
 */
#include "storage_sqlite_body.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_sync.h"
#include "storage_sqlite_traits.h"

#include "clock.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static int errno_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL: /* the locks of the write-ahead log, tried again and again */
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
	case SQLITE_NOLFS: /* larger than the file system allows */
		return -EIO;
	default:
		return -EINVAL;
	}
}

int storage_sqlite_fail(struct storage *s, int code, const char *what)
{
	bool told = s->db && sqlite3_extended_errcode(s->db) == code;
	(void)snprintf(s->error, sizeof(s->error), "%s: %s (SQLite %d)", what,
		       told ? sqlite3_errmsg(s->db) : sqlite3_errstr(code), code);
	if (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC)
		atomic_store(&s->is_doubtful, true);
	int r = errno_of(code);
	return r ? r : -EINVAL;
}

bool storage_is_failure(int error)
{
	return error == -EIO || error == -ENOSPC || error == -EBUSY || error == -EUCLEAN ||
	       error == -EACCES || error == -ENOMEM || error == -ESTALE;
}

int64_t storage_fold_version(void)
{
	return STORAGE_FOLD_VERSION;
}

const char *storage_error(const struct storage *s)
{
	return s->error;
}

static const char *const target_prefixes[STORAGE_N_TARGETS] = {
	[STORAGE_LIVE] = "",
	[STORAGE_SHADOW] = "new_",
	[STORAGE_FROZEN] = "frozen_",
};

sqlite3_stmt *storage_sqlite_statement(struct storage *s, enum storage_sql sql)
{
	sqlite3_stmt **slot = &s->statements[s->target][sql];
	if (*slot) {
		(void)sqlite3_reset(*slot);
		return *slot;
	}
	CLEANUP_FREE char *text =
		storage_sqlite_retarget(storage_sqlite_text(sql), target_prefixes[s->target]);
	int code = SQLITE_NOMEM;
	if (text)
		code = sqlite3_prepare_v3(s->db, text, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
	if (code != SQLITE_OK)
		(void)storage_sqlite_fail(s, code, "cannot prepare a statement");
	return *slot;
}

static bool hex_value(char c, uint8_t *ret)
{
	if (c >= '0' && c <= '9')
		*ret = (uint8_t)(c - '0');
	else if (c >= 'a' && c <= 'f')
		*ret = (uint8_t)(c - 'a' + 10);
	else
		return false;
	return true;
}

/* A lower-case UUID in its canonical form as 16 bytes. */
static bool uuid_bytes(struct span id, uint8_t ret[static 16])
{
	if (id.len != 36)
		return false;
	size_t n = 0;
	for (size_t i = 0; i < 36;) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (id.s[i++] != '-')
				return false;
			continue;
		}
		uint8_t high, low;
		if (!hex_value(id.s[i], &high) || !hex_value(id.s[i + 1], &low))
			return false;
		ret[n++] = (uint8_t)(high << 4 | low);
		i += 2;
	}
	return true;
}

bool storage_sqlite_is_uuid(struct span id)
{
	uint8_t bytes[16];
	return uuid_bytes(id, bytes);
}

int storage_sqlite_bind_id(sqlite3_stmt *statement, int i, struct span id)
{
	uint8_t bytes[16];
	if (!id.s)
		return sqlite3_bind_null(statement, i);
	if (uuid_bytes(id, bytes))
		return sqlite3_bind_blob(statement, i, bytes, 16, SQLITE_TRANSIENT);
	return sqlite3_bind_text(statement, i, id.s, (int)id.len, SQLITE_STATIC);
}

static int bind_number(sqlite3_stmt *statement, int i, int64_t number, bool is_null)
{
	return is_null ? sqlite3_bind_null(statement, i) : sqlite3_bind_int64(statement, i, number);
}

static int bind_one(sqlite3_stmt *statement, int i, char format, va_list *args)
{
	struct span text;
	int64_t number;
	switch (format) {
	case 'i':
		return sqlite3_bind_int64(statement, i, va_arg(*args, int64_t));
	case 'z':
		number = va_arg(*args, int64_t);
		return bind_number(statement, i, number, number == 0);
	case 'a':
		number = va_arg(*args, int64_t);
		return bind_number(statement, i, number, number == INT64_MIN);
	case 's':
		text = va_arg(*args, struct span);
		return sqlite3_bind_text(statement, i, text.s, (int)text.len, SQLITE_STATIC);
	case 'b':
		text = va_arg(*args, struct span);
		return text.s ? sqlite3_bind_blob(statement, i, text.s, (int)text.len,
						  SQLITE_STATIC)
			      : sqlite3_bind_null(statement, i);
	case 'd':
		return storage_sqlite_bind_id(statement, i, va_arg(*args, struct span));
	case 'D':
		text.s = va_arg(*args, const char *);
		text.len = strlen(text.s);
		return storage_sqlite_bind_id(statement, i, text);
	default:
		assert(format == 'c');
		return sqlite3_bind_text(statement, i, va_arg(*args, const char *), -1,
					 SQLITE_STATIC);
	}
}

int storage_sqlite_bind(struct storage *s, sqlite3_stmt *statement, const char *format, ...)
{
	if (!statement)
		return -EIO;
	va_list args;
	va_start(args, format);
	int code = SQLITE_OK;
	for (int i = 1; format[i - 1] && code == SQLITE_OK; i++)
		code = bind_one(statement, i, format[i - 1], &args);
	va_end(args);
	return code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot bind");
}

int storage_sqlite_step(struct storage *s, sqlite3_stmt *statement)
{
	if (!statement)
		return -EIO;
	/* After some errors SQLite has rolled back by itself. What follows would be kept alone. */
	if (s->in_transaction && sqlite3_get_autocommit(s->db))
		return -EIO;
	int code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		return 1;
	if (code == SQLITE_DONE) {
		(void)sqlite3_reset(statement);
		return 0;
	}
	int r = storage_sqlite_fail(s, sqlite3_extended_errcode(s->db), "the store failed");
	(void)sqlite3_reset(statement);
	return r;
}

int storage_sqlite_run(struct storage *s, sqlite3_stmt *statement)
{
	int r = storage_sqlite_step(s, statement);
	if (r == 1) {
		(void)sqlite3_reset(statement);
		return 0;
	}
	return r;
}

int64_t storage_sqlite_absent(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? INT64_MIN
		       : sqlite3_column_int64(statement, column);
}

void storage_sqlite_copy(sqlite3_stmt *statement, int column, char *buf, size_t size)
{
	const unsigned char *text = sqlite3_column_text(statement, column);
	(void)snprintf(buf, size, "%s", text ? (const char *)text : "");
}

void storage_sqlite_id(sqlite3_stmt *statement, int column, char buf[static EVENT_ID_MAX + 1])
{
	if (sqlite3_column_type(statement, column) != SQLITE_BLOB ||
	    sqlite3_column_bytes(statement, column) != 16) {
		storage_sqlite_copy(statement, column, buf, EVENT_ID_MAX + 1);
		return;
	}
	const uint8_t *bytes = sqlite3_column_blob(statement, column);
	static const char digits[] = "0123456789abcdef";
	char *p = buf;
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[bytes[i] >> 4];
		*p++ = digits[bytes[i] & 15];
	}
	*p = '\0';
}

/* synchronous can only be set outside of a transaction, and is set when the statement is prepared:
 * one that is kept and stepped again does nothing. */
static int set_durable(struct storage *s, bool durable)
{
	if (s->is_durable == durable)
		return 0;
	int code = sqlite3_exec(s->db,
				durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
				NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return storage_sqlite_fail(s, code, "cannot set synchronous");
	s->is_durable = durable;
	return 0;
}

/* A rollback that failed (there was no memory for it) is made up for before the next transaction:
 * else none could ever begin. */
static int end_left_over(struct storage *s)
{
	if (sqlite3_get_autocommit(s->db))
		return 0;
	return storage_sqlite_run(s, storage_sqlite_statement(s, SQL_ROLLBACK));
}

int storage_begin(struct storage *s, bool durable)
{
	assert(!s->in_transaction);
	int r = end_left_over(s);
	if (r == 0)
		r = set_durable(s, durable);
	if (r < 0)
		return r;
	r = storage_sqlite_run(s, storage_sqlite_statement(s, SQL_BEGIN));
	s->in_transaction = r == 0;
	storage_sqlite_identity_begin(s);
	s->failed = 0;
	s->change_seq = 0;
	s->before = s->now;
	if (r == 0 && atomic_load(&s->is_doubtful))
		r = storage_sqlite_sync_mend(s);
	if (r < 0)
		storage_rollback(s);
	return r;
}

int storage_commit(struct storage *s)
{
	assert(s->in_transaction);
	if (s->failed < 0)
		return s->failed;
	int r = storage_sqlite_body_flush(s);
	if (r == 0)
		r = s->is_durable ? storage_sqlite_sync_commit(s)
				  : storage_sqlite_run(s, storage_sqlite_statement(s, SQL_COMMIT));
	if (r == 0)
		s->in_transaction = false;
	return r;
}

/* The state comes from memory: the disk that failed the transaction may fail to be read, too. */
void storage_rollback(struct storage *s)
{
	if (!s->in_transaction)
		return;
	/* SQLite may have rolled back by itself (a full disk, an I/O error). */
	if (!sqlite3_get_autocommit(s->db)) {
		char error[STORAGE_ERROR_MAX];
		(void)snprintf(error, sizeof(error), "%s", s->error);
		(void)!storage_sqlite_run(s, storage_sqlite_statement(s, SQL_ROLLBACK));
		(void)snprintf(s->error, sizeof(s->error), "%s", error);
	}
	s->in_transaction = false;
	s->now = s->before;
	storage_sqlite_body_forget(s);
	storage_sqlite_identity_undo(s);
	storage_sqlite_rollup_forget(s);
	storage_sqlite_forget_dims(s);
	storage_sqlite_traits_forget(s);
}

static int64_t file_size(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;
	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* stat(2) only: opening and closing one of SQLite's files in this process would drop its locks. */
void storage_stats(struct storage *s, struct storage_stats *ret)
{
	struct statvfs fs;
	ret->wal_bytes = file_size(s->path, "-wal");
	ret->database_bytes = file_size(s->path, "");
	ret->free_bytes =
		statvfs(s->path, &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : -1;
}

/* An empty transaction: it mends what there is to mend. */
static int clear_doubt(struct storage *s)
{
	int r = atomic_load(&s->is_doubtful) ? storage_begin(s, true) : 0;
	storage_rollback(s);
	return r;
}

static int checkpoint(struct storage *s)
{
	int r = clear_doubt(s);
	if (r < 0)
		return r;
	int frames = 0, moved = 0;
	r = storage_sqlite_sync_checkpoint(s, &frames, &moved);
	if (r < 0 && r != -EBUSY)
		return r;
	s->wal_frames = 0;
	return 0;
}

int storage_maintain(struct storage *s)
{
	bool indexes = storage_sqlite_identity_wants_indexing(s);
	int r = indexes ? storage_sqlite_identity_index(s) : 0;
	return r < 0 || (indexes && s->wal_frames < s->checkpoint_frames) ? r : checkpoint(s);
}

static int count_frames(void *ctx, sqlite3 *db, const char *name, int frames)
{
	(void)db;
	(void)name;
	((struct storage *)ctx)->wal_frames = frames;
	return SQLITE_OK;
}

/* Replaces SQLite's own checkpoint at commit: that one would run before the batch is answered. */
void storage_sqlite_watch_wal(struct storage *s)
{
	(void)sqlite3_wal_hook(s->db, count_frames, s);
}

bool storage_wants_upkeep(const struct storage *s)
{
	return s->wal_frames >= s->checkpoint_frames || storage_sqlite_identity_wants_indexing(s);
}

bool storage_needs_upkeep(const struct storage *s)
{
	return storage_sqlite_identity_is_behind(s);
}
