/* Copies of the store: taking one beside a running daemon, putting one in place, and finding out
 * whether a store is sound.
 *
 * A copy is one file, a whole database of its own, compact, without a write-ahead log. It holds all
 * that the store held at one moment: events, ledger, counters, the retention horizon. It holds
 * payloads too: it deserves the care that the store gets, and is made with the same mode (0640).
 *
 * A snapshot put in place must not make the daemon say again what it has said: whatever is kept of
 * alerts that were sent belongs to the host, not to the snapshot, and has to survive a restore.
 *
 * Failures are negative errno values; `error` then says in one line what to do. Any thread, but one
 * call at a time for one destination or store.
 */
#pragma once

#include "base.h"
#include "storage.h"

struct storage_backup_options {
	const char *path; /* of the store */
	const char *dest; /* a file name */
	bool force; /* replace what is there */
	bool (*stop)(void); /* asked now and then: true ends the work with -ECANCELED; NULL */
};

/* Takes a copy through a read-only connection: nothing of the store but reading rights are needed.
 * It is written as `DEST.tmp` and renamed when it is whole and on disk: under the final name there
 * is never a part of one. -EEXIST: something has that name (and force is not set); -EBUSY: another
 * backup writes it; others as of storage_reader_open, -ENOSPC, -EIO. */
MUST_CHECK int storage_backup(const struct storage_backup_options *options, int64_t *ret_bytes,
			      char error[static STORAGE_ERROR_MAX]);

/* A file to be put in place; also a store that was set aside, with the write-ahead log beside it.
 * Opened apart, so that the caller may give up rights between the two steps. */
struct storage_snapshot {
	char *path; /* real */
	int fd, wal_fd, lock_fd; /* -1: none */
};
#define STORAGE_SNAPSHOT_INIT                                                                      \
	{                                                                                          \
		NULL, -1, -1, -1                                                                   \
	}

/* -EBUSY: a daemon runs on it; -ENOENT, -EACCES …; -EINVAL: not a file. */
MUST_CHECK int storage_snapshot_open(const char *file, struct storage_snapshot *ret,
				     char error[static STORAGE_ERROR_MAX]);
void storage_snapshot_close(struct storage_snapshot *snapshot);

struct storage_restored {
	char aside[4096]; /* the old store's new name; "": there was none */
	int64_t events;
	int64_t newest_unix_s; /* of them; 0: none */
	int64_t schema_version; /* of the snapshot, before it was brought up to this program's */
};

/* Puts the snapshot in place of the store at options->path. It is copied, checked and migrated
 * under another name first; only then database, -wal and -shm of the old store move, together, to
 * `<path>.before-restore-<UTC time>*`. The snapshot's file is only read. The files belong to
 * whoever calls. -EBUSY: a daemon has the store; -EPERM: another application's database; -EPROTO: a
 * newer schema; -EUCLEAN: corrupt; -EINVAL: the snapshot is the store; others as of storage_open.
 * After a failure the old store is in place, unless `error` says otherwise. */
MUST_CHECK int storage_restore(const struct storage_options *options,
			       const struct storage_snapshot *snapshot,
			       struct storage_restored *ret, char error[static STORAGE_ERROR_MAX]);

/* Is the store (or a copy) sound? Pages and indexes, version, and whether sums and counters agree
 * with the rows. In one snapshot, beside a running daemon. Each finding is one line, told as it is
 * found. 0, or STORAGE_CHECK_FOUND; negative: it could not be looked at. */
#define STORAGE_CHECK_FOUND 1
typedef void (*storage_check_fn)(void *ctx, const char *finding);
MUST_CHECK int storage_check(const char *path, storage_check_fn fn, void *ctx,
			     char error[static STORAGE_ERROR_MAX]);
/* The newest schema that this program knows. */
int64_t storage_check_schema_version(void);
