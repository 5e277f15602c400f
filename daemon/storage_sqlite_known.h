/* Which sandboxes there are: from an id to its row. Writer thread.
 *
 * The index over ids has parts, one for every 65,536 keys, so that what a busy daemon touches of it
 * stays small however much is stored (sandbox_id in schema/sqlite/0001). Most ids are in none: for
 * each part a Bloom filter in memory says so. Filters are filled in the background after a start;
 * until one is whole, its part is asked. 128 KiB for each part that still has sandboxes.
 */
#pragma once

#include "storage_sqlite_internal.h"

/* In the ledger that is aimed at. 1: *ret_row stands on its row (SQL_SANDBOX_GET); reset it. 0:
 * none. */
MUST_CHECK int storage_sqlite_known_find(struct storage *s, struct span id, sqlite3_stmt **ret_row);

/* Of a row that is about to be written, and whatever becomes of the transaction. */
void storage_sqlite_known_add(struct storage *s, struct span id, int64_t key);

/* Tables were made, dropped or swapped: nothing is known any more. */
void storage_sqlite_known_forget(struct storage *s);
void storage_sqlite_known_finish(struct storage *s);

/* Sandboxes of the live ledger are being deleted: parts without any are let go of later. */
void storage_sqlite_known_note_deletion(struct storage *s);
