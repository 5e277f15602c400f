/* The ledger: what the events of one sandbox mean. Pure arithmetic; it loads and saves nothing.
 *
 * A sandbox is a set of facts that merge: for every run the latest start, the latest end and the
 * latest set_timeout, "latest" by (event time, event id), so that neither order of arrival nor
 * repetition matters. Events that name no run are kept one by one (loose) and given to the run that
 * covers their time, or form runs of their own where no event of the sandbox names one. From the
 * facts, the prices and the clock, ledger_settle derives every run's account and the sandbox's
 * state. Rules: CONTRACT.md 5. Keys are the storage engine's small integers; 0 is "none".
 */
#pragma once

#include "base.h"
#include "event.h"
#include "pricing.h"

#define LEDGER_ABSENT INT64_MIN
#define LEDGER_RUN_ID_MAX (EVENT_ID_MAX + 1 + 24) /* SANDBOX@2026-11-22T10:00:00.000Z */

/* Which event a fact came from. seq is the log's; 0: no such fact. */
struct ledger_mark {
	int64_t time_ns;
	int64_t seq;
};

struct ledger_dims {
	int64_t source_key, template_key, team_key;
};

struct ledger_fact {
	struct ledger_mark mark;
	enum event_kind kind;
	struct ledger_dims dims;
	int64_t kill_reason_key; /* killed */
	int64_t timeout_ms; /* updated: the new end, unix ms; LEDGER_ABSENT */
	struct event_report report; /* paused, killed */
};

enum ledger_end_kind {
	LEDGER_OPEN,
	LEDGER_END_PAUSED,
	LEDGER_END_KILLED,
	LEDGER_END_NEXT_START,
	LEDGER_END_TIMEOUT,
	LEDGER_END_MAX_RUN,
};
enum ledger_cost_source {
	LEDGER_COST_UNKNOWN,
	LEDGER_COST_REPORTED,
	LEDGER_COST_ESTIMATED,
	LEDGER_COST_COMPUTED
};

/* What a run comes to. Money is LEDGER_ABSENT while it is open or unknown. */
struct ledger_account {
	bool exists; /* false: only named so far, nothing is known to show */
	int64_t started_ms, ended_ms; /* ended LEDGER_ABSENT while open */
	enum ledger_end_kind end_kind;
	int64_t kill_reason_key;
	struct ledger_dims dims;
	int64_t vcpu_count, memory_mb; /* LEDGER_ABSENT: unknown */
	int64_t runtime_ms; /* LEDGER_ABSENT while open */
	struct pricing_rates rates; /* in force at started_ms */
	int64_t cost_nanousd;
	enum ledger_cost_source cost_source;
	int64_t due_ms; /* open: when a missing end comes true; LEDGER_ABSENT otherwise */
};

struct ledger_run {
	int64_t key; /* the engine's; 0: none given yet */
	bool is_stored; /* the store has a row for it */
	char id[LEDGER_RUN_ID_MAX + 1];
	bool named; /* false: SANDBOX@START, derived from loose events */
	struct ledger_fact start, end, timeout; /* mark.seq 0: absent */
	struct ledger_account account, stored; /* derived now; as it was loaded */
	bool facts_changed;
	bool gone; /* derived before, not any more: delete it */
};

enum ledger_state { LEDGER_UNKNOWN, LEDGER_RUNNING, LEDGER_PAUSED, LEDGER_KILLED };

struct ledger_totals {
	enum ledger_state state;
	int64_t created_ms, ended_ms, expires_ms; /* LEDGER_ABSENT */
	int64_t kill_reason_key;
	struct ledger_dims dims;
	int64_t runs, runtime_ms, cost_nanousd, unknown_cost;
};

struct ledger_sandbox {
	int64_t key; /* the engine's; 0: none given yet */
	bool is_stored; /* the store has a row for it */
	char id[EVENT_ID_MAX + 1];
	bool names_run; /* some event of it names a run */
	int64_t first_event_ms;
	struct ledger_mark last; /* latest event of any kind */
	int64_t last_source_key;
	struct ledger_mark template_mark, team_mark, metadata_mark,
		startup_mark; /* latest that carries one */
	int64_t template_key, team_key;
	char *metadata; /* NULL: none */
	int64_t startup_ms; /* LEDGER_ABSENT */
	struct ledger_fact killed; /* the latest killed: final */
	int64_t executions, failed_executions;
	int64_t loose_executions; /* executions that name no run */
	struct ledger_totals totals;

	struct ledger_run *runs; /* any order while merging; by start after ledger_settle */
	size_t n_runs, runs_size;
	struct ledger_fact *loose;
	size_t n_loose, loose_size, n_loose_stored;
	bool runs_moved; /* some interval changed: executions without a run id must be given again
			  */

	/* The event id of a stored mark, for ties in time; ctx is the engine's. NULL: no longer
	 * known (then the stored one counts as later). */
	const char *(*id_of)(void *ctx, int64_t seq);
	void *id_ctx;
};

/* Prices, sizes and limits of the configuration in force. */
struct ledger_terms {
	const struct pricing *pricing;
	bool (*priced)(void *ctx, int64_t source_key);
	/* Size configured for a template; false if none. */
	bool (*size)(void *ctx, int64_t template_key, int64_t *ret_vcpu, int64_t *ret_memory_mb);
	void *ctx;
	int64_t max_run_ms;
};

/* One event with its place in the log and its dimension keys. */
struct ledger_event {
	const struct event *event;
	int64_t seq;
	struct ledger_dims dims;
	int64_t kill_reason_key;
};

void ledger_sandbox_init(struct ledger_sandbox *sandbox);
void ledger_sandbox_finish(struct ledger_sandbox *sandbox);

/* Merges one event of any kind (executions count only as naming a run and as a sign of life).
 * -ENOMEM. */
MUST_CHECK int ledger_apply(struct ledger_sandbox *sandbox, const struct ledger_event *event);

/* Derives accounts and totals. Runs that came or went are appended or marked gone. -ENOMEM. */
MUST_CHECK int ledger_settle(struct ledger_sandbox *sandbox, const struct ledger_terms *terms,
			     int64_t now_ms);

/* The run that covers an instant, for events that name none: NULL if none does. After
 * ledger_settle. */
const struct ledger_run *ledger_run_at(const struct ledger_sandbox *sandbox, int64_t unix_ms);
/* A run by id, created if `create`; NULL if absent or out of memory. */
struct ledger_run *ledger_run_named(struct ledger_sandbox *sandbox, struct span id, bool create);

/* Is (a_time, a_id) later than the stored mark? */
bool ledger_is_later(const struct ledger_sandbox *sandbox, int64_t time_ns, const char *id,
		     struct ledger_mark stored);

/* A run's cost and time up to an instant, rounded as the whole is: hour shares are differences of
 * these, so hours add up to the run. Cost is LEDGER_ABSENT where the account's is. */
int64_t ledger_cost_until(const struct ledger_account *account, int64_t unix_ms);
int64_t ledger_runtime_until(const struct ledger_account *account, int64_t unix_ms);

/* Attribution of one execution (never added to run costs): the sender's amount, else size x
 * duration at the price when it started; LEDGER_ABSENT and UNKNOWN where the source is not priced
 * or no size is known. */
void ledger_execution_cost(const struct event *event, const struct ledger_dims *dims,
			   const struct ledger_terms *terms, int64_t *ret_nanousd,
			   enum ledger_cost_source *ret_source);

const char *ledger_state_name(enum ledger_state state);
const char *ledger_end_kind_name(enum ledger_end_kind kind);
const char *ledger_cost_source_name(enum ledger_cost_source source);
