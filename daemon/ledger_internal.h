/* What the files of the ledger share: ledger.c merges facts, ledger_settle.c gives them to runs,
 * ledger_account.c turns a run's facts into time and money. */
#pragma once

#include "clock.h"
#include "ledger.h"

/* A run while it is settled. The facts are those that count: its own, or loose ones given to it.
 * They are lent by the sandbox. */
struct ledger_work_run {
	size_t index; /* named: its place in sandbox->runs */
	const struct ledger_fact *start, *end, *timeout; /* NULL: none */
	int64_t begin_ns; /* time of the start, else of the report: what runs are ordered by */
	struct ledger_account account;
};

struct ledger_work {
	const struct ledger_sandbox *sandbox;
	const struct ledger_terms *terms;
	int64_t now_ms;
	const struct ledger_fact **loose; /* by (time, event id) */
	size_t n_loose;
	struct ledger_work_run *runs; /* those that exist, by begin_ns */
	size_t n_runs;
	size_t n_ended_only; /* named runs of which nothing but the end is known */
};

static inline int64_t ledger_ms(int64_t time_ns)
{
	return time_ns / CLOCK_NS_PER_MS - (time_ns % CLOCK_NS_PER_MS < 0);
}

static inline int64_t ledger_add(int64_t a, int64_t b)
{
	int64_t sum;
	return __builtin_add_overflow(a, b, &sum) ? (b < 0 ? INT64_MIN + 1 : INT64_MAX) : sum;
}

/* ledger.c: order of two facts, a total one: by time, then event id; an id that is no longer known
 * is later than one that is. Neither mark is absent. */
int ledger_mark_compare(const struct ledger_sandbox *sandbox, struct ledger_mark a,
			struct ledger_mark b);
/* Room for n more runs. -ENOMEM. */
MUST_CHECK int ledger_reserve_runs(struct ledger_sandbox *sandbox, size_t n);
/* Appends a run without facts; there is room. */
struct ledger_run *ledger_append_run(struct ledger_sandbox *sandbox, struct span id, bool named);

/* ledger_account.c: sets exists, the start and a reported end, from `start` and `end`. */
void ledger_account_begin(struct ledger_work_run *run);
/* Sets the rest of every account. Runs are in order and their timeouts given. */
void ledger_account_finish(struct ledger_work *work);
void ledger_account_ended_only(const struct ledger_work *work, const struct ledger_fact *end,
			       struct ledger_account *ret);
int64_t ledger_account_shown_ms(const struct ledger_account *account);
/* After the accounts were published to the sandbox. */
void ledger_account_totals(const struct ledger_work *work, struct ledger_totals *ret);
