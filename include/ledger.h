/* The ledger: what the events of one sandbox mean. Pure arithmetic; it loads and saves nothing.
 * Rules: CONTRACT.md 5. Keys are the storage engine's small integers; 0 is "none". Any thread, one
 * at a time per sandbox.
 *
 * Facts merge. Every named run has the latest start (created, resumed, forked), the latest end
 * (paused, killed) and the latest set_timeout, "latest" by (event time, event id), so that neither
 * order of arrival nor repetition matters. Lifecycle events that name no run are kept one by one
 * (loose). From the facts, the prices and the clock, ledger_settle derives everything else afresh:
 *
 * Runs, where no event of the sandbox names one. Loose facts in time order: every start opens a
 *   run, the first end after it ends it. A report with no run open is a run of its own, unless it
 *   begins before the last run's end: then it tells of that run again. An end with neither report
 *   nor run is no run. The id is SANDBOX@START, and two runs of the same started_ms are one, the
 *   later telling. At one instant the end of an open run comes before a start.
 * Runs, where some event names one. Loose facts form none. A named run with an end, but neither
 *   start nor report, takes the latest loose start at or before its end, unless another run began
 *   or ended since, or is known to have been up then; without any start only its end is shown, its
 *   time and cost unknown, and it covers nothing. A run that is merely named does not exist. A run
 *   without an end takes the first loose end from its start to the next start. Own facts win.
 * Timeouts. A loose set_timeout counts for the run whose [start, next start) holds its time; the
 *   latest of these and the run's own counts.
 * Ends. A report is [started_at, started_at + execution_time]. Else start to end, never negative.
 *   A missing end is the earliest of: the next start (the next run by start, then run id), the
 *   last set_timeout if later than the start, start + max_run, the sandbox's latest killed if not
 *   before the start; a tie goes to the first of these. It comes true when now_ms, or one of the
 *   two that are events, has reached it; until then the run is open and due_ms says when.
 * Money. Size as reported, what is missing from the template; else from the template. Price at
 *   started_ms. A cost that needs a size nobody knows, or of a source that is not priced, or that
 *   does not fit, is unknown.
 * Dimensions. Of the end, else of the start, else of the sandbox, one by one.
 * State. The latest start or end by event time; killed is final. Running only while a run is open;
 *   unknown where only the clock ended the latest run, or where a loose start came after the last
 *   named run and no run covers it.
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
	int64_t started_ms, ended_ms; /* ended LEDGER_ABSENT while open; started if only its end is
					 known */
	enum ledger_end_kind end_kind;
	int64_t kill_reason_key;
	struct ledger_dims dims;
	int64_t vcpu_count, memory_mb; /* LEDGER_ABSENT: unknown */
	int64_t runtime_ms; /* LEDGER_ABSENT while open */
	struct pricing_rates rates; /* in force at started_ms; both LEDGER_ABSENT: not priced */
	int64_t cost_nanousd;
	enum ledger_cost_source cost_source; /* unknown while open */
	int64_t due_ms; /* open: when a missing end comes true; LEDGER_ABSENT otherwise */
};

struct ledger_run {
	int64_t key; /* the engine's; 0: none given yet */
	bool is_stored; /* the store has a row for it */
	char id[LEDGER_RUN_ID_MAX + 1];
	bool named; /* false: SANDBOX@START, derived from loose events */
	/* mark.seq 0: absent. Named: its own facts, never lent ones. Else as last settled. */
	struct ledger_fact start, end, timeout;
	struct ledger_account account, stored; /* derived now; as it was loaded */
	bool facts_changed;
	bool gone; /* stored, but not derived any more: delete it */
};

enum ledger_state { LEDGER_UNKNOWN, LEDGER_RUNNING, LEDGER_PAUSED, LEDGER_KILLED };

struct ledger_totals {
	enum ledger_state state;
	int64_t created_ms; /* earliest start of a run; LEDGER_ABSENT: none */
	int64_t ended_ms; /* killed; LEDGER_ABSENT */
	int64_t expires_ms; /* running: the last set_timeout; LEDGER_ABSENT */
	int64_t kill_reason_key;
	struct ledger_dims dims; /* of the latest run, else of the latest events */
	int64_t runs, runtime_ms, cost_nanousd; /* sums over closed runs, as far as known */
	int64_t unknown_cost; /* closed runs whose cost is unknown */
};

struct ledger_sandbox {
	int64_t key; /* the engine's; 0: none given yet */
	bool is_stored; /* the store has a row for it */
	char id[EVENT_ID_MAX + 1];
	bool sealed; /* the engine's: an event of it was pruned */
	bool names_run; /* some event of it names a run */
	int64_t first_event_ms;
	struct ledger_mark last; /* latest event of any kind */
	int64_t last_source_key;
	struct ledger_mark template_mark, team_mark, metadata_mark,
		startup_mark; /* latest that carries one */
	int64_t template_key, team_key;
	char *metadata; /* NULL: none */
	int64_t startup_ms; /* LEDGER_ABSENT */
	struct ledger_fact killed; /* the latest: final. Read: mark, kill_reason_key */
	int64_t executions, failed_executions;
	int64_t loose_executions; /* executions that name no run */
	struct ledger_totals totals;
	/* As it was loaded: what the store's sums hold of it. */
	struct {
		enum ledger_state state;
		int64_t time_s; /* of its row */
		int64_t template_key;
		int64_t startup_ms, startup_hour_s,
			startup_template_key; /* ms LEDGER_ABSENT: none */
	} booked;

	struct ledger_run *runs; /* any order while merging; by start after ledger_settle */
	size_t n_runs, runs_size;
	struct ledger_fact *loose; /* appended; the first n_loose_stored were loaded */
	size_t n_loose, loose_size, n_loose_stored;
	bool runs_moved; /* an interval differs from what was loaded, or a run came or went:
			  * executions without a run id must be given again */

	/* The event id of a mark, for ties in time, lent until the next call; ctx is the engine's.
	 * NULL: no longer known (then the stored one counts as later). */
	const char *(*id_of)(void *ctx, int64_t seq);
	void *id_ctx;
};

/* Prices, sizes and limits of the configuration in force. */
struct ledger_terms {
	const struct pricing *pricing;
	bool (*priced)(void *ctx, int64_t source_key); /* NULL: all are */
	/* Size configured for a template; false if none. NULL: none is. */
	bool (*size)(void *ctx, int64_t template_key, int64_t *ret_vcpu, int64_t *ret_memory_mb);
	void *ctx;
	int64_t max_run_ms; /* 0: no limit */
};

/* One event with its place in the log and its dimension keys. */
struct ledger_event {
	const struct event *event;
	int64_t seq; /* above 0 */
	struct ledger_dims dims;
	int64_t kill_reason_key;
};

/* Empty: no id, nothing known, nothing stored. Finish frees what the sandbox owns (metadata, runs,
 * loose) and leaves it empty. */
void ledger_sandbox_init(struct ledger_sandbox *sandbox);
void ledger_sandbox_finish(struct ledger_sandbox *sandbox);

/* Merges one event of any kind but test, which is left out. Executions count only as naming a run
 * and as a sign of life. Moves runs in memory. -ENOMEM: the sandbox is good for
 * ledger_sandbox_finish only. */
MUST_CHECK int ledger_apply(struct ledger_sandbox *sandbox, const struct ledger_event *event);

/* Derives accounts, totals and runs_moved; `account` against `stored` tells what to save. Runs that
 * came are appended, those that went are marked gone, or dropped if they were never stored. May be
 * called at any time, as often as one likes. Moves runs in memory. -ENOMEM: as ledger_apply. */
MUST_CHECK int ledger_settle(struct ledger_sandbox *sandbox, const struct ledger_terms *terms,
			     int64_t now_ms);

/* The run that covers an instant, its end included, for events that name none: the one that started
 * last, NULL if none does. After ledger_settle. */
const struct ledger_run *ledger_run_at(const struct ledger_sandbox *sandbox, int64_t unix_ms);
/* A run by id, a named one from now on, new if need be; NULL when out of memory. Lent until runs
 * move. The id is at most EVENT_ID_MAX long. */
struct ledger_run *ledger_run_named(struct ledger_sandbox *sandbox, struct span id);

/* Is (time_ns, id) later than the stored mark? An absent mark (seq 0) is earlier than anything. */
bool ledger_is_later(const struct ledger_sandbox *sandbox, int64_t time_ns, const char *id,
		     struct ledger_mark stored);

/* A run's cost and time from its start to an instant, or to its end if that is earlier, rounded as
 * the whole is: at its end these are cost_nanousd and runtime_ms, and hour shares are differences,
 * so hours add up to the run. Of an open run, what it has accrued: the cost as if it ended there.
 * Cost is LEDGER_ABSENT where a closed run's is, and for an open one without size or price. Both
 * are LEDGER_ABSENT if the run does not exist. */
int64_t ledger_cost_until(const struct ledger_account *account, int64_t unix_ms);
int64_t ledger_runtime_until(const struct ledger_account *account, int64_t unix_ms);

/* Attribution of one execution (never added to run costs): the sender's amount, else size (its own,
 * what is missing from the template) x duration at the price when it started (else its event's time
 * less the duration); LEDGER_ABSENT and UNKNOWN where the source is not priced or no size is known.
 */
void ledger_execution_cost(const struct event *event, const struct ledger_dims *dims,
			   const struct ledger_terms *terms, int64_t *ret_nanousd,
			   enum ledger_cost_source *ret_source);

const char *ledger_state_name(enum ledger_state state);
const char *ledger_end_kind_name(enum ledger_end_kind kind);
const char *ledger_cost_source_name(enum ledger_cost_source source);
