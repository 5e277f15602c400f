/* Reading the store beside a running daemon: a read-only connection, one statement at a time.
 *
 * It can neither write nor checkpoint. A statement holds a snapshot, which keeps the write-ahead
 * log from being reused: read what you need, end it, and only then wait for anybody. One thread per
 * reader.
 */
#pragma once

#include "base.h"
#include "storage.h"

struct storage_reader;

/* On failure `error` says what to do, in one line: -ENOENT no such file; -EACCES not readable;
 * -EPERM another application's database; -EUCLEAN corrupt; -EBUSY; -EIO. */
MUST_CHECK int storage_reader_open(const char *path, struct storage_reader **ret,
				   char error[static STORAGE_ERROR_MAX]);
void storage_reader_close(struct storage_reader *r);
void storage_reader_close_pointer(struct storage_reader **r); /* for CLEANUP */
/* The words for the last failure of a query. */
const char *storage_reader_error(const struct storage_reader *r);

enum storage_value_type { STORAGE_NULL, STORAGE_INTEGER, STORAGE_REAL, STORAGE_BYTES };

struct storage_value {
	enum storage_value_type type;
	int64_t integer;
	double real;
	struct span text; /* text or blob, as stored: it may hold anything */
};

#define STORAGE_VALUE_INTEGER(n)                                                                   \
	((struct storage_value) { .type = STORAGE_INTEGER, .integer = (n) })
#define STORAGE_VALUE_TEXT(s)                                                                      \
	((struct storage_value) { .type = STORAGE_BYTES, .text = { (s), __builtin_strlen(s) } })

/* Begins a statement in place of the last one. `values` go to its parameters and are lent until it
 * ends. */
MUST_CHECK int storage_reader_query(struct storage_reader *r, const char *sql,
				    const struct storage_value *values, size_t n);
/* STORAGE_READER_ROW, or 0 at the end (the statement has ended then); -ETIMEDOUT: the deadline. */
#define STORAGE_READER_ROW 1
MUST_CHECK int storage_reader_next(struct storage_reader *r);
size_t storage_reader_columns(const struct storage_reader *r);
const char *storage_reader_column(const struct storage_reader *r, size_t i);
/* A column of the current row; its text is valid until the next call of next, query or end. */
struct storage_value storage_reader_value(struct storage_reader *r, size_t i);
/* Ends the statement and gives its snapshot back. */
void storage_reader_end(struct storage_reader *r);

/* The only row of a statement whose columns are integers: 0, or -ENODATA without a row. NULL is 0.
 */
MUST_CHECK int storage_reader_integers(struct storage_reader *r, const char *sql, int64_t *ret,
				       size_t n);

/* Statements that run at this moment of clock_mono_ms() end with -ETIMEDOUT; 0: no deadline. */
void storage_reader_set_deadline(struct storage_reader *r, int64_t mono_ms);

/* Does a process hold the store's lock (`PATH.lock`)? STORAGE_READER_HELD or 0; negative errno: not
 * to be told. */
#define STORAGE_READER_HELD 1
MUST_CHECK int storage_reader_daemon_state(const char *path);
