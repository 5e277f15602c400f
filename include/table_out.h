/* Rows for people and programs: a table for terminals, csv (RFC 4180), a json array of objects.
 *
 * csv and json say faithfully what a row holds: NULL is an empty field (an empty text is `""`) or
 * null, integers stay integers, a real number has the digits that bring it back. A table is for
 * reading: its texts are cut, and no control character, no direction override and no broken UTF-8
 * reaches the terminal. Rows are trusted in nothing.
 */
#pragma once

#include "base.h"

enum table_out_format { TABLE_OUT_TABLE, TABLE_OUT_CSV, TABLE_OUT_JSON };
/* "table", "csv", "json". */
bool table_out_format_from_name(const char *name, enum table_out_format *ret);

enum table_out_type { TABLE_OUT_NULL, TABLE_OUT_INTEGER, TABLE_OUT_REAL, TABLE_OUT_TEXT };

struct table_out_cell {
	enum table_out_type type;
	int64_t integer;
	double real;
	struct span text;
};

struct table_out;

/* Writes to `f`, which outlives it; nothing is written before the first row or the end. The column
 * names are copied. -ENOMEM. */
MUST_CHECK int table_out_new(FILE *f, enum table_out_format format, const char *const *columns,
			     size_t n_columns, struct table_out **ret);
/* One cell for each column. -ENOMEM, or -EIO as a write failed. */
MUST_CHECK int table_out_row(struct table_out *t, const struct table_out_cell *cells);
/* Writes what is held back and the closing bracket, and flushes. Once, behind the last row. */
MUST_CHECK int table_out_end(struct table_out *t);
void table_out_free(struct table_out *t);

/* Appends text as a terminal may see it: control characters as `\n`, `\x1b`, direction overrides as
 * `\u202e`, bytes that are no UTF-8 as `\xff`; at most `max_columns` characters, the last of which
 * is `…` if there were more. */
struct buffer;
MUST_CHECK int table_out_append_visible(struct buffer *b, struct span text, size_t max_columns);
