/* A store that cannot be trusted: finding out cheaply, and setting it aside whole. */
#pragma once

#include "storage_sqlite_internal.h"

/* Could the file at `path` be a store of ours, however damaged? Before SQLite opens it: what is not
 * is never touched. */
bool storage_sqlite_damage_is_ours(const char *path);
/* A log without its database: SQLite would throw the log away and begin anew without a word. */
bool storage_sqlite_damage_has_stray_log(const char *path);
/* Reads the ends of every table, and believes what a former run noted. 0, -EUCLEAN, or why it could
 * not look; s->error says what was found. Milliseconds, however large the store is; only after a
 * note it may read all of it once. */
MUST_CHECK int storage_sqlite_damage_probe(struct storage *s);
/* Database, log and shared memory get another name, together. The store must be closed, its lock
 * held. ret_aside: the database's new name. */
MUST_CHECK int storage_sqlite_damage_set_aside(const char *path,
					       char ret_aside[static STORAGE_PATH_MAX],
					       char error[static STORAGE_ERROR_MAX]);
/* PATH, a word, and the time: a name for something kept beside the store. */
MUST_CHECK int storage_sqlite_damage_name(const char *path, const char *word,
					  char ret[static STORAGE_PATH_MAX]);
