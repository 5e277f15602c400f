/* Bodies of events, packed into blocks.
 *
 * Within a transaction bodies are gathered in memory and written as one row when a block is full,
 * and before the commit: a row a body would leave a good part of each page empty and dirty more
 * pages a batch. A block holds the bodies of consecutive events, one behind another; where a body
 * lies in it stands with its event. Writer thread.
 */
#pragma once

#include "storage_sqlite_internal.h"

/* Where the body of an event lies in its block. An id that is a UUID stands in the event's row
 * already, in less than half the bytes: where the body names it first, it is cut out. */
struct storage_body_place {
	int64_t at, len; /* len: of the whole body */
	int64_t id_at; /* in the body; INT64_MIN: nothing was cut out */
};

/* Takes the body of event seq, the one after the last taken. */
MUST_CHECK int storage_sqlite_body_add(struct storage *s, int64_t seq, struct span body,
				       const char *id, struct storage_body_place *ret);
/* Writes what is gathered. */
MUST_CHECK int storage_sqlite_body_flush(struct storage *s);
/* Drops what is gathered: the transaction was rolled back. */
void storage_sqlite_body_forget(struct storage *s);

/* One block, as read; zero is empty. What `bodies` points to is valid until the statement behind it
 * is used again: one block at a time. */
struct storage_body_block {
	int64_t first_seq, last_seq;
	struct span bodies;
	sqlite3_stmt *statement;
};
/* The body of an event, whole, valid until the next call: `block` is kept for the next one, which
 * is likely in it. -EBADMSG if it is not where it should be. */
MUST_CHECK int storage_sqlite_body_read(struct storage *s, struct storage_body_block *block,
					int64_t seq, const struct storage_body_place *place,
					const char *id, struct span *ret);
void storage_sqlite_body_done(struct storage_body_block *block);

/* Deletes the block that event seq, deleted now, was in, if it was the last. */
MUST_CHECK int storage_sqlite_body_prune(struct storage *s, int64_t seq);
