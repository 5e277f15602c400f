/* Syncs of the write-ahead log: by a COMMIT that is to be durable, by a checkpoint, and by
 * storage_sync() on another thread, so that the writer has its hands free meanwhile. One lock keeps
 * them apart: the kernel tells of pages that it could not write once for a file that is open, and
 * whoever is told has noted the doubt before another sync can succeed without them.
 *
 * After a sync that failed nothing may be built on what was written before it: the kernel has
 * dropped those pages from what it still writes, and the next sync succeeds without them. A row
 * acknowledged then would stand in the write-ahead log behind a hole, and be gone after a power
 * loss. (PostgreSQL's "fsyncgate".) So the log is written again, whole, from what the kernel still
 * has, and synced, before the next transaction or checkpoint; until then no sync is believed. The
 * database needs none of it: a checkpoint that failed is done anew from the log. A process begins
 * with the same doubt about what the last one left: after a clean stop the log is empty, and it
 * costs nothing. Does not help where the kernel has dropped the pages from memory, too: then the
 * log ends early, and what was acknowledged before is in front of it.
 *
 * A COMMIT without a sync syncs after all when it begins the log anew. Then all that anybody may
 * still wait for is in the database, synced by the checkpoint before.
 */
#include "storage_sqlite_sync.h"

#include "storage_sqlite_backup.h"

#include <errno.h>

#define PIECE 32768

int storage_sqlite_sync_init(struct storage *s)
{
	int code = sqlite3_file_control(s->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &s->log);
	if (code == SQLITE_OK && (!s->log || !s->log->pMethods))
		code = SQLITE_CANTOPEN;
	return code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "no write-ahead log");
}

int storage_sync(struct storage *s)
{
	(void)pthread_mutex_lock(&s->sync_lock);
	if (!atomic_load(&s->is_doubtful) &&
	    s->log->pMethods->xSync(s->log, SQLITE_SYNC_NORMAL) != SQLITE_OK)
		atomic_store(&s->is_doubtful, true);
	int r = atomic_load(&s->is_doubtful) ? -EIO : 0;
	(void)pthread_mutex_unlock(&s->sync_lock);
	return r;
}

int storage_sqlite_sync_commit(struct storage *s)
{
	int r;
	(void)pthread_mutex_lock(&s->sync_lock);
	if (atomic_load(&s->is_doubtful))
		r = storage_sqlite_fail(s, SQLITE_IOERR_FSYNC, "an earlier sync failed");
	else
		r = storage_sqlite_run(s, storage_sqlite_statement(s, SQL_COMMIT));
	(void)pthread_mutex_unlock(&s->sync_lock);
	return r;
}

int storage_sqlite_sync_checkpoint(struct storage *s, int *ret_frames, int *ret_moved)
{
	(void)pthread_mutex_lock(&s->sync_lock);
	int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, ret_frames,
					     ret_moved);
	int r = code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "checkpoint failed");
	(void)pthread_mutex_unlock(&s->sync_lock);
	return r;
}

static int rewrite(sqlite3_file *log)
{
	char piece[PIECE];
	sqlite3_int64 size = 0;
	int code = log->pMethods->xFileSize(log, &size);
	for (sqlite3_int64 at = 0; at < size && code == SQLITE_OK; at += PIECE) {
		int len = (int)base_min_i64(PIECE, size - at);
		code = log->pMethods->xRead(log, piece, len, at);
		if (code == SQLITE_OK)
			code = log->pMethods->xWrite(log, piece, len, at);
	}
	if (code == SQLITE_OK && size > 0)
		code = log->pMethods->xSync(log, SQLITE_SYNC_NORMAL);
	return code;
}

static int mend(struct storage *s)
{
	int code = rewrite(s->log);
	if (code != SQLITE_OK)
		return storage_sqlite_fail(s, code, "the write-ahead log cannot be written again");
	int r = storage_sqlite_copy_sync_directory(s->path);
	if (r < 0) {
		(void)snprintf(s->error, sizeof(s->error), "the directory cannot be synced");
		return r == -ENOMEM || r == -ENOSPC ? r : -EIO;
	}
	atomic_store(&s->is_doubtful, false);
	return 0;
}

int storage_sqlite_sync_mend(struct storage *s)
{
	assert(!sqlite3_get_autocommit(s->db));
	(void)pthread_mutex_lock(&s->sync_lock);
	int r = mend(s);
	(void)pthread_mutex_unlock(&s->sync_lock);
	return r;
}
