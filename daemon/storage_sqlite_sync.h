/* When what was written is on the disk, and what to do when the disk said that it lost something.
 */
#pragma once

#include "storage_sqlite_internal.h"

/* Finds the log of the open database. */
MUST_CHECK int storage_sqlite_sync_init(struct storage *s);
/* Steps a COMMIT that syncs, or moves the log into the database: not beside another sync. */
MUST_CHECK int storage_sqlite_sync_commit(struct storage *s);
MUST_CHECK int storage_sqlite_sync_checkpoint(struct storage *s, int *ret_frames, int *ret_moved);
/* Writes the write-ahead log again and syncs it, and its directory; then s->is_doubtful is false.
 * Inside a write transaction that has changed nothing yet: nobody else may append meanwhile. */
MUST_CHECK int storage_sqlite_sync_mend(struct storage *s);
