/* The disk under the tests: SQLite's own system calls and every fsync(2) and fdatasync(2) of the
 * program go through here. SQLite's unix VFS stays in the loop as it is.
 *
 * It does two things. It fails when told to: the nth call of some kinds, once or from then on. And
 * it keeps the plug: from disk_watch() on it knows for each file in a directory what is surely on
 * the disk, and every change since; when the power is cut it writes down what a disk might hold
 * then. Nothing is really synced: that takes most of the time, and the plug is ours.
 *
 * The disk that is modelled: what was synced stays; of what was not, every sector (512 bytes) holds
 * any state it was ever in since, whatever its neighbours and other files hold; file sizes
 * likewise; a file whose directory was not synced may not be there. After a sync that failed the
 * kernel forgets what was to be written: a later sync does not make up for it, only writing again
 * does. Not modelled: renaming and removing, which happen at once.
 */
#pragma once

#include "base.h"

#include <stdatomic.h>

enum {
	DISK_READS = 1,
	DISK_WRITES = 2, /* and changes of size */
	DISK_SYNCS = 4,
	DISK_LOCKS = 8,
	DISK_OPENS = 16,
	DISK_SHORT = 32, /* with writes: the nth writes half of it, only the next one fails */
	DISK_SIZES = 64, /* asking for one */
	DISK_MAPS = 128, /* the index of the write-ahead log */
	DISK_REMOVALS = 256,
};

struct disk {
	atomic_long syncs;
	atomic_long calls; /* of the kinds that are broken; reads, writes and syncs at rest */
	atomic_long changes; /* writes, changes of size and syncs of what is watched */
	atomic_long fail_at; /* the value of `calls` that fails; 0: none */
	atomic_bool stays; /* and all after it */
	atomic_uint kinds;
	atomic_int error;
	atomic_long failed; /* calls that did */
	atomic_bool holds_syncs; /* each waits, before anything else, until this is false */
	atomic_int syncs_held;
};
extern struct disk disk;

/* Puts itself between SQLite and the system; the first call counts. */
void disk_install(void);

/* The nth call from now that reads, writes or syncs fails with this errno; with `stays`, the later
 * ones too. disk_break_only: the nth of these kinds. */
void disk_break(long n, int error, bool stays);
void disk_break_only(unsigned int kinds, long n, int error, bool stays);
void disk_mend(void);

/* How what is not synced fares in a power loss. */
enum disk_luck {
	DISK_NONE, /* all of it is lost */
	DISK_ALL, /* all of it is there */
	DISK_IN_ORDER, /* what was written up to some moment is there */
	DISK_PAGES, /* each page for itself */
	DISK_SECTORS, /* each sector for itself */
};
#define DISK_N_LUCKS (DISK_SECTORS + 1)

/* Watches the files of one directory: what they hold now is on the disk. `seed` decides what a
 * failed sync loses. */
void disk_watch(const char *dir, uint64_t seed);
/* The power goes at the nth change from now: what is left is written into `to_dir`, and everything
 * fails from then on. */
void disk_cut_at(long n, enum disk_luck luck, uint64_t seed, const char *to_dir);
/* Or now; nothing if it has been cut already. */
void disk_cut(enum disk_luck luck, uint64_t seed, const char *to_dir);
bool disk_is_cut(void);
void disk_unwatch(void);

/* Random numbers (splitmix64), the same on every machine. disk_below: 0 ... n - 1. */
uint64_t disk_random(uint64_t *state);
uint64_t disk_below(uint64_t *state, uint64_t n);
