/* Binding parameters from left to right: the twin of reading columns. The first failure sticks. */
#pragma once

#include "storage_sqlite_internal.h"

struct fields {
	struct storage *s;
	sqlite3_stmt *statement;
	int next, code;
};

struct fields storage_sqlite_fields(struct storage *s, enum storage_sql sql);
void storage_sqlite_give(struct fields *f, int64_t value);
void storage_sqlite_give_absent(struct fields *f, int64_t value); /* INT64_MIN: NULL */
void storage_sqlite_give_key(struct fields *f, int64_t key); /* 0: NULL */
void storage_sqlite_give_text(struct fields *f, struct span text);
void storage_sqlite_give_blob(struct fields *f, struct span bytes);
void storage_sqlite_give_id(struct fields *f, struct span id);
void storage_sqlite_give_dims(struct fields *f, const struct ledger_dims *dims);
/* 0, or what kept it from being prepared or bound: the former is a failure of the store, never of
 * what is written. */
MUST_CHECK int storage_sqlite_given(const struct fields *f);
/* Runs the statement, once every parameter has its value. */
MUST_CHECK int storage_sqlite_give_end(struct fields *f);
