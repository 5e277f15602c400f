/* Prices: exact, dated, integer. cost = ms/1000 x (vcpu x vcpu_rate + memory_mb/1024 x gib_rate),
 * half up to a nano-USD, at the price in force when the run started (CONTRACT.md 5). Pure; any
 * thread.
 */
#pragma once

#include "base.h"

#define PRICING_ENTRIES_MAX 256

struct pricing_rates {
	int64_t vcpu_second_femto; /* 10^-15 USD, decimal.h */
	int64_t gib_second_femto;
};

struct pricing_entry {
	int64_t from_unix_s; /* INT64_MIN for the base entry */
	struct pricing_rates rates;
};

/* Sorted by from_unix_s; always has the base entry. */
struct pricing {
	struct pricing_entry entries[PRICING_ENTRIES_MAX];
	size_t n;
};

void pricing_init(struct pricing *p, struct pricing_rates base);
/* Adds or replaces the rates from a date on, keeping the order. -ENOBUFS when full. */
MUST_CHECK int pricing_add(struct pricing *p, int64_t from_unix_s, struct pricing_rates rates);
struct pricing_rates pricing_at(const struct pricing *p, int64_t unix_ms);

/* Cost in nano-USD. -ERANGE: does not fit (or a negative argument): treat as unknown. */
MUST_CHECK int pricing_cost(struct pricing_rates rates, int64_t duration_ms, int64_t vcpu_count,
			    int64_t memory_mb, int64_t *ret_nanousd);
