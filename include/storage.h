/* The store, as the writer and the projector see it: one engine behind a dozen calls.
 *
 * The log (events, quarantine, rejections, counters) is what a delivery becomes; the ledger is a
 * fold over the log. Every call that does not say otherwise runs on the writer thread. The
 * engine only loads and saves: what an event means is decided elsewhere. Failures are negative
 * errno values; storage_error() has the engine's words for a log line. -ENOSPC no room, -EBUSY
 * somebody else holds the file, -EIO the disk failed, -EUCLEAN corrupt, -ESTALE not in its place.
 */
#pragma once

#include "base.h"
#include "ingest.h"
#include "ledger.h"

#define STORAGE_ERROR_MAX 512

struct storage;

/* Which copy of the ledger the calls about it mean. LIVE at rest; whoever aims elsewhere aims back.
 * FROZEN holds only the sums of what was pruned. */
enum storage_target { STORAGE_LIVE, STORAGE_SHADOW, STORAGE_FROZEN };
#define STORAGE_N_TARGETS (STORAGE_FROZEN + 1)

struct storage_options {
	const char *path;
	int64_t wal_limit; /* bytes; above it the engine says so in its stats */
	int64_t quarantine_rows_max, quarantine_bytes_max; /* per source */
	int64_t rejection_rows_max, rejection_bytes_max;
	int64_t rejection_age_max_ms;
	bool set_damaged_aside; /* a damaged store is renamed and an empty one begun: storage_aside
				 */
};

/* Opens or creates the store and takes its lock. On failure `error` says what to do, in one line,
 * and the result maps to an exit code: -EBUSY another daemon; -EPERM another application's
 * database; -EPROTO a newer schema; -EOPNOTSUPP a network file system; -EACCES, -ENOENT, -ENOTDIR,
 * -ENOSPC, -EUCLEAN, -EIO as named. */
MUST_CHECK int storage_open(const struct storage_options *options, struct storage **ret,
			    char error[static STORAGE_ERROR_MAX]);
void storage_close(struct storage *s);
/* The name that a damaged store was given when this one was opened; "": it was sound. What was
 * found then is in storage_error(). */
const char *storage_aside(const struct storage *s);
/* Damaged stores that lie beside the one at `path`, set aside at some start. Any thread. */
int64_t storage_count_aside(const char *path);
/* Leaves word for the next start that this one's pages could not be trusted. */
void storage_note_damage(struct storage *s);

/* Are the files that were opened still those that have the names? -ESTALE: one was deleted, moved
 * or replaced, so what is written is in no store that anybody would find. Microseconds. */
MUST_CHECK int storage_in_place(const struct storage *s);
/* After -ESTALE: what would vanish with this process is written to a file beside the store, whose
 * name ret_path says; "": nothing would. May take long. */
#define STORAGE_PATH_MAX 4096
MUST_CHECK int storage_rescue(struct storage *s, char ret_path[static STORAGE_PATH_MAX]);

const char *storage_error(const struct storage *s);
/* Is it the store that failed (disk, lock, memory), rather than what it was asked to do? */
bool storage_is_failure(int error);
/* Version of the rules by which this program folds; a ledger made by older ones is rebuilt. */
int64_t storage_fold_version(void);

/* A transaction. When `durable`, commit returns 0 only when everything up to here survives a power
 * loss; without, it is atomic and becomes durable with the next durable one. After any failure
 * inside, and after a failed commit: rollback. */
MUST_CHECK int storage_begin(struct storage *s, bool durable);
MUST_CHECK int storage_commit(struct storage *s);
void storage_rollback(struct storage *s);
/* Makes durable what was committed before the call. On any thread, beside the writer's. After a
 * failure nothing that was committed since the last success may be counted on; the next transaction
 * mends that. storage_error() has no words for it. */
MUST_CHECK int storage_sync(struct storage *s);

/* One delivery to keep. Everything is lent. */
struct storage_delivery {
	const char *source;
	struct span webhook_id, delivery_id; /* unsigned headers, printable; may be absent */
	struct span signature, signature_id,
		signature_timestamp; /* kept with a rejection whose signature is well-formed */
	const char *remote_addr; /* of the sender, as believed; "" unknown */
	int64_t received_unix_ms;
	struct span body;
	int64_t body_len; /* as received; larger than body.len when it was not kept */
	const struct ingest_result *judged;
};

enum storage_outcome {
	STORAGE_STORED,
	STORAGE_DUPLICATE,
	STORAGE_QUARANTINED,
	STORAGE_QUARANTINE_FULL, /* nothing kept: answer 503 */
	STORAGE_REJECTED, /* kept or counted */
	STORAGE_FILTERED, /* counted */
};

/* Puts one delivery into the open transaction. The outcome for a verdict of STORE is STORED,
 * DUPLICATE, or QUARANTINED (id_reused) or QUARANTINE_FULL. *ret_reason is set for quarantined
 * ones. */
MUST_CHECK int storage_put(struct storage *s, const struct storage_delivery *delivery,
			   enum storage_outcome *ret_outcome, enum ingest_reason *ret_reason);

/* Which secret matched, how often: added to the stored counters. */
struct storage_secret_use {
	const char *source;
	unsigned int position;
	char fingerprint[9];
	int64_t n;
	int64_t last_unix_ms;
};
MUST_CHECK int storage_count_secret(struct storage *s, const struct storage_secret_use *use);

/* What the projector reads: events behind the watermark, in log order. The body is valid during the
 * callback only. */
struct storage_event {
	int64_t seq;
	int64_t source_key;
	int64_t time_s; /* whole seconds of the event's time */
	struct span body;
	int64_t received_unix_ms;
};
typedef int (*storage_event_fn)(
	void *ctx, const struct storage_event *event); /* non-zero stops and is returned */
MUST_CHECK int storage_pending(struct storage *s, int64_t after_seq, size_t limit,
			       storage_event_fn fn, void *ctx);

/* Dimension keys by text and back. Absent text is key 0. */
enum storage_dim { STORAGE_SOURCE, STORAGE_TEMPLATE, STORAGE_TEAM, STORAGE_BUILD, STORAGE_WORD };
MUST_CHECK int storage_key(struct storage *s, enum storage_dim dim, struct span text,
			   int64_t *ret_key);
MUST_CHECK int storage_text(struct storage *s, enum storage_dim dim, int64_t key, char *buf,
			    size_t size);

/* The display alias of a template; the views show it instead of the id. Setting all anew: clear,
 * then set, in one transaction. */
MUST_CHECK int storage_clear_aliases(struct storage *s);
MUST_CHECK int storage_set_alias(struct storage *s, struct span template_id, const char *alias);

/* The ledger: loads a sandbox whole (or leaves it fresh), saves what changed. */
MUST_CHECK int storage_load_sandbox(struct storage *s, struct span sandbox_id,
				    struct ledger_sandbox *ret);
/* The key of a run of a loaded sandbox, given now if it has none yet. */
int64_t storage_run_key(struct storage *s, struct ledger_run *run);
MUST_CHECK int storage_save_sandbox(struct storage *s, struct ledger_sandbox *sandbox);

/* Ties an event to its sandbox, run and template. Keys may be 0. */
struct storage_link {
	int64_t seq, time_s; /* as of its storage_event */
	int64_t sandbox_key, run_key, template_key, build_key, team_key;
	int64_t time_unix_ms; /* LEDGER_ABSENT: not to be counted (a skipped event) */
	enum event_kind kind;
};
MUST_CHECK int storage_put_link(struct storage *s, const struct storage_link *link);

struct storage_execution {
	const struct event *event;
	int64_t seq;
	int64_t received_unix_ms;
	const struct ledger_sandbox *sandbox;
	int64_t named_run_key; /* 0: the event names none */
	struct ledger_dims dims;
	int64_t cost_nanousd;
	enum ledger_cost_source cost_source;
};
/* How the sandbox's counts change. */
struct storage_counts {
	int executions, failed, loose; /* loose: those that name no run */
};
/* Stores an execution if its (time, event id) is later than what is stored about it. The sandbox is
 * settled; which run covers an execution that names none is looked up in it. */
MUST_CHECK int storage_put_execution(struct storage *s, const struct storage_execution *execution,
				     struct storage_counts *ret);

/* The watermark: everything up to seq is folded. skipped: the event was left out after failing
 * twice. */
struct storage_position {
	int64_t stored_seq, folded_seq;
	int64_t trying_seq; /* an event whose fold was begun and not finished: the daemon died on
			       it, or it failed */
	int64_t trying_count;
	int64_t skipped;
	int64_t fold_version;
	int64_t horizon_unix_s; /* retention horizon; never moves back */
	int64_t newest_unix_s; /* time of the newest stored event; 0: none */
	int64_t rebuild; /* 0: none wanted; else how often it was begun */
	bool prune_waits; /* for an operator's word */
	int64_t retention_newest_s; /* newest event time that retention went by; 0: none yet */
};
MUST_CHECK int storage_position(struct storage *s, struct storage_position *ret);
int64_t storage_stored_seq(const struct storage *s); /* of the event put last */
MUST_CHECK int storage_set_folded(struct storage *s, int64_t seq);
/* Raises the horizon (a lower one is ignored). */
MUST_CHECK int storage_set_horizon(struct storage *s, int64_t horizon_unix_s);
MUST_CHECK int storage_set_trying(struct storage *s, int64_t seq, int64_t count); /* 0, 0: none */
/* The event whose last try was ended by the store itself; 0: none. Outlives the process, also where
 * the store takes nothing any more: it stands in the lock file, whose block is there already. */
MUST_CHECK int storage_set_unjudged(struct storage *s, int64_t seq);
int64_t storage_unjudged(const struct storage *s);
MUST_CHECK int storage_skip(struct storage *s, int64_t seq, const char *why);
/* Another number after every change to the live ledger, kept or rolled back: what was loaded before
 * may be old. */
int64_t storage_ledger_changes(const struct storage *s);
/* Ids of sandboxes with a run whose missing end has come true; at most n. Returned in one
 * allocation each, caller frees. */
MUST_CHECK int storage_due_sandboxes(struct storage *s, int64_t now_ms, char **ret_ids, size_t n,
				     size_t *ret_n);

/* Rebuilding: a second ledger beside the live one. create makes it empty but for the sums of what
 * was pruned (and sets aside what an interrupted rebuild left); with storage_aim at it, events are
 * folded and sealed sandboxes copied; swap puts it in the place of the live one. All inside
 * transactions of the caller. What was replaced is emptied by storage_empty_trash, slice by slice.
 */
void storage_aim(struct storage *s, enum storage_target target);
MUST_CHECK int storage_shadow_create(struct storage *s);
MUST_CHECK int storage_shadow_swap(struct storage *s);
MUST_CHECK int storage_shadow_drop(struct storage *s);
MUST_CHECK int storage_empty_trash(struct storage *s, bool *ret_more);
MUST_CHECK int storage_set_rebuild(struct storage *s, int64_t tries); /* 0: none wanted */

/* Sandboxes that lost an event to retention, by key: a rebuild copies them with storage_copy_sealed
 * (loaded LIVE, settled, then aimed at the shadow). */
struct storage_sealed {
	int64_t key;
	char id[EVENT_ID_MAX + 1];
};
MUST_CHECK int storage_sealed_sandboxes(struct storage *s, int64_t after_key, size_t n,
					struct storage_sealed *ret, size_t *ret_n);
MUST_CHECK int storage_copy_sealed(struct storage *s, struct ledger_sandbox *sandbox);
/* Does the live ledger leave it out? */
MUST_CHECK int storage_is_skipped(struct storage *s, int64_t seq, bool *ret);

/* Retention, a few rows a call, inside a transaction. Events older than before_s and folded: up to
 * n, oldest first; *ret_last_s is the time of the last. One sandbox whose last event is older:
 * *ret_found there was one, *ret_gone it is gone (else some of its executions are, call again). */
#define STORAGE_PRUNE_MAX 64
MUST_CHECK int storage_prune_events(struct storage *s, int64_t before_s, size_t n, size_t *ret_n,
				    int64_t *ret_last_s);
MUST_CHECK int storage_prune_sandbox(struct storage *s, int64_t before_s, bool *ret_found,
				     bool *ret_gone);
MUST_CHECK int storage_set_retention(struct storage *s, int64_t newest_s, bool waits);

struct storage_space {
	int64_t used_bytes, free_bytes; /* in the database file; free ones are used again */
};
MUST_CHECK int storage_space(struct storage *s, struct storage_space *ret);
/* Gives free pages back to the file system, outside of a transaction. */
MUST_CHECK int storage_give_back(struct storage *s, size_t pages);

/* Requeue: what was set aside, to be judged anew; inside a transaction. */
enum storage_side { STORAGE_SIDE_QUARANTINE, STORAGE_SIDE_REJECTIONS };

struct storage_aside {
	enum storage_side side;
	int64_t id;
	int64_t deliveries;
	const char *reason; /* under which it is kept */
	struct storage_delivery delivery; /* as it came; `judged` is for the caller to set */
	char *memory; /* private: what delivery points into */
};
void storage_aside_finish(struct storage_aside *aside);

/* The smallest and the largest id of a side; 0, 0: it is empty. */
MUST_CHECK int storage_aside_range(struct storage *s, enum storage_side side, int64_t *ret_first,
				   int64_t *ret_last);
/* The first with after_id < id <= until_id, of this source and reason (NULL: any), whose body was
 * kept. 1 and *ret, which the caller finishes; 0: there is none. */
struct storage_aside_filter {
	enum storage_side side;
	const char *source, *reason;
};
MUST_CHECK int storage_aside_next(struct storage *s, const struct storage_aside_filter *filter,
				  int64_t after_id, int64_t until_id, struct storage_aside *ret);
/* Puts what delivery.judged says of it now, and takes it away from its side; what is still refused
 * stays there, under its new reason. Outcomes as of storage_put: QUARANTINED also means that it
 * stays in quarantine, REJECTED and QUARANTINE_FULL that it stays a rejection. */
MUST_CHECK int storage_put_aside(struct storage *s, const struct storage_aside *aside,
				 enum storage_outcome *ret_outcome);
/* The first skipped event behind after_seq, of this source (NULL: any). 1 and *ret_seq, or 0. */
MUST_CHECK int storage_skipped_next(struct storage *s, const char *source, int64_t after_seq,
				    int64_t *ret_seq);
/* Takes an event off the list of skipped ones. */
MUST_CHECK int storage_unskip(struct storage *s, int64_t seq);

/* Upkeep outside of a transaction, a slice a call: indexes what was stored, moves the write-ahead
 * log into the database (PASSIVE: waits for nobody). */
bool storage_wants_upkeep(const struct storage *s);
/* It must come before all else, or deliveries are refused soon. */
bool storage_needs_upkeep(const struct storage *s);
MUST_CHECK int storage_maintain(struct storage *s);
/* Reading ahead outside of a transaction, a slice a call: what makes the fold's look-ups cheap. */
bool storage_wants_learning(const struct storage *s);
MUST_CHECK int storage_learn(struct storage *s);

struct storage_stats {
	int64_t wal_bytes, database_bytes, free_bytes; /* free: of the file system */
};
void storage_stats(struct storage *s, struct storage_stats *ret);
/* Other processes that read now, as "4711 (python3), 4712 (grafana)": one that stays keeps the
 * write-ahead log from shrinking. How many; a momentary picture. Any thread. */
size_t storage_wal_holders(const char *path, char *buf, size_t size);
/* The process that keeps all others from writing now, likewise; `except_pid` is not told. */
size_t storage_write_holders(const char *path, int64_t except_pid, char *buf, size_t size);
