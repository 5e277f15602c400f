/* Traits: what is the same for many rows (event_traits, link_traits, execution_traits, run_traits),
 * as one small key. Writer thread.
 *
 * A key is found by all values together. Those used of late are kept in memory; a rollback forgets
 * them, for keys given in the lost transaction may be given again to others.
 */
#pragma once

#include "storage_sqlite_internal.h"

#define STORAGE_TRAITS_MAX 14 /* values */

enum storage_traits {
	STORAGE_EVENT_TRAITS,
	STORAGE_LINK_TRAITS,
	STORAGE_EXECUTION_TRAITS,
	STORAGE_RUN_TRAITS
};

/* The key of n values in the order of the table's columns, added if need be. INT64_MIN: NULL. */
MUST_CHECK int storage_sqlite_traits_key(struct storage *s, enum storage_traits table,
					 const int64_t *values, size_t n, int64_t *ret_key);
void storage_sqlite_traits_forget(struct storage *s);
void storage_sqlite_traits_finish(struct storage *s);
