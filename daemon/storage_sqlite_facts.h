/* The facts of a sandbox and of a run, as a blob: what only the fold reads.
 *
 * A number is written as few bytes as it needs, times and numbers of events as differences to what
 * the row shows or to the fact before; what is the same there costs a bit, if it is usual none. So
 * a blob has a meaning only beside its row, and is written again with each change of that.
 * Pure; any thread.
 */
#pragma once

#include "ledger.h"

#define STORAGE_FACTS_MAX 256 /* bytes; the widest take less */

/* What a sandbox's row shows, and its facts refer to. */
struct storage_facts_shown {
	int64_t time_ms; /* whole seconds */
	int64_t last_ms; /* of the latest event */
	struct ledger_dims dims;
	int64_t kill_reason_key;
};

/* Marks, keys of the latest events, names_run and first_event_ms. */
size_t storage_sqlite_facts_put_sandbox(const struct ledger_sandbox *sandbox,
					const struct storage_facts_shown *shown,
					uint8_t ret[static STORAGE_FACTS_MAX]);
/* named, start, end and timeout; `shown` is the account of the row. */
size_t storage_sqlite_facts_put_run(const struct ledger_run *run,
				    const struct ledger_account *shown,
				    uint8_t ret[static STORAGE_FACTS_MAX]);

/* -EUCLEAN: it was not written like this, or it says what cannot be (so may the row): times beyond
 * any event's, an end before its start, negative keys. What was read until then is set. */
MUST_CHECK int storage_sqlite_facts_get_sandbox(struct span facts,
						const struct storage_facts_shown *shown,
						struct ledger_sandbox *ret);
MUST_CHECK int storage_sqlite_facts_get_run(struct span facts, const struct ledger_account *shown,
					    struct ledger_run *ret);
