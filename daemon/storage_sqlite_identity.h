/* Which events are stored: by id, in memory for the latest, in event_identity for the rest.
 *
 * Invariant: an event is remembered (recent) until it is in the index. The index is written in
 * large sorted batches, so that its pages are filled one after another: a row an event, as it
 * comes, would dirty a page of its own in each commit. Writer thread.
 */
#pragma once

#include "storage_sqlite_body.h"

/* An event that is stored under the id asked for. */
struct storage_known {
	int64_t seq, time_s;
	struct storage_body_place body;
};

/* Reads what is stored last into memory. At opening. */
MUST_CHECK int storage_sqlite_identity_load(struct storage *s);
void storage_sqlite_identity_finish(struct storage *s);

/* 1: an event of this (id, second) is stored, or, if none, one of the latest has this id at another
 * second (*ret->time_s tells them apart). 0: neither. */
MUST_CHECK int storage_sqlite_identity_find(struct storage *s, const char *id, int64_t time_s,
					    struct storage_known *ret);
/* Event seq is stored under this identity. */
void storage_sqlite_identity_add(struct storage *s, const char *id, int64_t time_s, int64_t seq);
/* A transaction begins, or was rolled back: then what it added is forgotten. */
void storage_sqlite_identity_begin(struct storage *s);
void storage_sqlite_identity_undo(struct storage *s);

/* Takes a pruned event out of the index. */
MUST_CHECK int storage_sqlite_identity_prune(struct storage *s, const char *id, int64_t time_s,
					     int64_t seq);

/* 16 bits that strangers cannot choose; the same as long as the store lives. */
int64_t storage_sqlite_identity_hash(const struct storage *s, struct span id);

/* No room to remember another one: indexing has fallen behind. Then nothing is stored. */
bool storage_sqlite_identity_is_full(const struct storage *s);

/* Is there enough to be indexed? Then: a slice of it, in a transaction of its own. */
bool storage_sqlite_identity_wants_indexing(const struct storage *s);
/* Soon it is full. */
bool storage_sqlite_identity_is_behind(const struct storage *s);
MUST_CHECK int storage_sqlite_identity_index(struct storage *s);
