/* After a sync that failed nothing may be built on what was written before it: the kernel has
 * dropped those pages from what it still writes, and the next sync succeeds without them. A row
 * acknowledged then would stand in the write-ahead log behind a hole, and be gone after a power
 * loss. (PostgreSQL's "fsyncgate".)
 *
 * So the log is written again, whole, from what the kernel still has, and synced, before the next
 * transaction or checkpoint. The database needs none of it: a checkpoint that failed is done anew
 * from the log. A process begins with the same doubt about what the last one left: after a clean
 * stop the log is empty, and it costs nothing. Does not help where the kernel has dropped the pages
 * from memory, too: then the log ends early, and what was acknowledged before is in front of it.
 */
#include "storage_sqlite_sync.h"

#include "storage_sqlite_backup.h"

#include <errno.h>

#define PIECE 32768

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

int storage_sqlite_sync_mend(struct storage *s)
{
	assert(!sqlite3_get_autocommit(s->db));
	sqlite3_file *log = NULL;
	int code = sqlite3_file_control(s->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
	if (code == SQLITE_OK && log && log->pMethods)
		code = rewrite(log);
	if (code != SQLITE_OK)
		return storage_sqlite_fail(s, code, "the write-ahead log cannot be written again");
	int r = storage_sqlite_copy_sync_directory(s->path);
	if (r < 0) {
		(void)snprintf(s->error, sizeof(s->error), "the directory cannot be synced");
		return r == -ENOMEM || r == -ENOSPC ? r : -EIO;
	}
	s->is_doubtful = false;
	return 0;
}
