/* What to do when the disk said that it lost something. */
#pragma once

#include "storage_sqlite_internal.h"

/* Writes the write-ahead log again and syncs it, and its directory; then s->is_doubtful is false.
 * Inside a write transaction that has changed nothing yet: nobody else may append meanwhile. */
MUST_CHECK int storage_sqlite_sync_mend(struct storage *s);
