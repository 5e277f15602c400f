/* Bodies of events, packed into blocks.
 *
 * Within a transaction bodies are gathered in memory and written as one row when a block is full,
 * and before the commit: a row a body would leave a good part of each page empty and dirty more
 * pages a batch. A block holds the bodies of consecutive events, one behind another; where a body
 * lies in it stands with its event. Writer thread.
 */
#pragma once

#include "storage_sqlite_internal.h"

/* Takes the body of event seq, the one after the last taken; *ret_at is its place in its block. */
MUST_CHECK int storage_sqlite_body_add(struct storage *s, int64_t seq, struct span body,
				       int64_t *ret_at);
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
/* The body of an event: `block` is kept for the next one, which is likely in it. -EUCLEAN if it is
 * not where it should be. */
MUST_CHECK int storage_sqlite_body_read(struct storage *s, struct storage_body_block *block,
					int64_t seq, int64_t at, int64_t len, struct span *ret);
void storage_sqlite_body_done(struct storage_body_block *block);

/* Deletes the block that event seq, deleted now, was in, if it was the last. */
MUST_CHECK int storage_sqlite_body_prune(struct storage *s, int64_t seq);
