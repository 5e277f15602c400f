/* Files and statements that taking a copy and putting one in place share. */
#pragma once

#include "storage_backup.h"

#include <sqlite3.h>

#define STORAGE_COPY_MODE 0640

/* A sentence for the operator; always returns `code`. */
int storage_sqlite_copy_refuse(char error[static STORAGE_ERROR_MAX], int code, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* An errno for what SQLite says last. */
int storage_sqlite_copy_errno(sqlite3 *db, int code);
/* The only integer of a statement. */
MUST_CHECK int storage_sqlite_copy_integer(sqlite3 *db, const char *sql, int64_t *ret);
/* Makes renames in the directory of `path` durable. */
MUST_CHECK int storage_sqlite_copy_sync_directory(const char *path);
void storage_sqlite_copy_close(sqlite3 **db); /* for CLEANUP */
