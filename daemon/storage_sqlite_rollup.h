/* Sums over the ledger: differences gathered over a transaction, then added to their rows at once.
 */
#pragma once

#include "storage_sqlite_internal.h"

enum rollup_table {
	ROLLUP_COST_HOUR,
	ROLLUP_COST_DAY,
	ROLLUP_ACTIVITY_HOUR,
	ROLLUP_TEMPLATE_HOUR,
	ROLLUP_TEMPLATE_TOTAL,
	ROLLUP_N_TABLES,
};

/* A run's account enters (sign 1) or leaves (-1) the sums. -ERANGE: one of them would run over. */
MUST_CHECK int storage_sqlite_book_run(struct storage *s, const struct ledger_account *account,
				       int sign);

struct rollup_execution {
	int64_t time_s, template_key, duration_ms;
	bool failed, timed_out;
};
MUST_CHECK int storage_sqlite_book_execution(struct storage *s, const struct rollup_execution *x,
					     int sign);

/* The start-up time of a sandbox, under the hour and template it is booked for. */
struct rollup_startup {
	int64_t startup_ms, hour_s, template_key; /* startup_ms LEDGER_ABSENT: none */
};
/* What is to be booked of a sandbox: under the hour of the event that reported it. */
struct rollup_startup storage_sqlite_startup_of(const struct ledger_sandbox *sandbox,
						int64_t template_key);
MUST_CHECK int storage_sqlite_book_startup(struct storage *s, const struct rollup_startup *x,
					   int sign);

MUST_CHECK int storage_sqlite_book_sandbox(struct storage *s, int64_t template_key,
					   enum ledger_state state, int sign);
MUST_CHECK int storage_sqlite_book_event(struct storage *s, int64_t time_unix_ms,
					 int64_t template_key, enum event_kind kind);

/* Writes what was gathered; forgets it. */
MUST_CHECK int storage_sqlite_rollup_flush(struct storage *s);
void storage_sqlite_rollup_forget(struct storage *s);
void storage_sqlite_rollup_finish(struct storage *s);
