/* The writer: one thread that owns the only writing connection. Whoever wants to change the store
 * lends it a job.
 *
 * Group commit: everything that waits becomes one transaction; the next batch is whatever came
 * while this one was written. A job's done() runs on a thread of the writer's after the commit (or
 * its failure), then every wake-up that the batch needs is made once. Between batches the projector
 * and upkeep get their slices. Invariant: done() is called exactly once per accepted job, and never
 * with success before the commit is durable.
 */
#pragma once

#include "alert.h"
#include "base.h"
#include "storage.h"

#define WRITER_BATCH_MAX 512

struct writer;

/* A group of jobs whose owner sleeps in one place (an HTTP loop): woken once per batch, after all
 * done() of it. */
struct writer_waker {
	void (*wake)(void *ctx); /* a thread of the writer's; must not block */
	void *ctx;

	/* private: those that the running batch needs; zero before the first job */
	struct writer_waker *next;
	bool is_listed;
};

struct writer_job {
	struct storage_delivery delivery;
	struct ingest_result
		*shared; /* delivery.judged, if the fold may keep a reference; or NULL */
	bool durable; /* false: a rejection that nobody waits for */
	void (*done)(struct writer_job *job); /* a thread of the writer's, one at a time; sets flags
						 only. Afterwards the job is its owner's again */
	struct writer_waker *waker; /* NULL: none */

	/* results, valid in done() and after */
	int status; /* 0, or why nothing was kept (negative errno) */
	enum storage_outcome outcome;
	int64_t seq; /* stored: of the event */
	enum ingest_reason reason; /* quarantined: may differ from what was judged (id_reused) */

	struct writer_job *next; /* private */
	size_t charged; /* private */
};

/* Work on the store that is no delivery (reload of aliases, counters, tests): runs alone, inside a
 * transaction. */
struct writer_task {
	int (*run)(struct storage *s, void *ctx); /* 0 commits, anything else rolls back */
	void (*done)(struct writer_task *task, int status); /* writer thread */
	void *ctx;
	struct writer_task *next;
};

struct writer_options {
	size_t queue_limit; /* waiting jobs */
	const struct config *config; /* terms of the fold; replaced by writer_set_config */
	bool ends_when_damaged; /* health.wants_end then: the next start sets the store aside */
};

MUST_CHECK int writer_new(struct storage *s, const struct writer_options *options,
			  struct writer **ret);
MUST_CHECK int writer_start(struct writer *w);

/* Lends a job. 0: accepted, done() will come. -EAGAIN: the queue is full (nothing was taken).
 * -ESHUTDOWN. Any thread. */
MUST_CHECK int writer_submit(struct writer *w, struct writer_job *job);
MUST_CHECK int writer_submit_task(struct writer *w, struct writer_task *task);

/* A new configuration for the fold and the views' aliases; keeps a reference. Any thread. */
struct config;
void writer_set_config(struct writer *w, const struct config *config);

/* Counts a matching secret; written with a later batch. Any thread, cheap. */
void writer_count_secret(struct writer *w, const char *source, unsigned int position,
			 const char *fingerprint, int64_t now_unix_ms);

/* Long work on the store, done in slices between batches; how far it is stands in the health
 * figures. Asking again while it runs changes nothing. Any thread. */
void writer_request_rebuild(struct writer *w); /* the ledger anew from the stored events */
void writer_request_prune(
	struct writer *w); /* retention now, even where it waits for an operator's word */

/* What the writer does between batches, and how long deliveries had to wait for it. */
enum writer_slice {
	WRITER_SLICE_FOLD,
	WRITER_SLICE_REBUILD,
	WRITER_SLICE_RETENTION,
	WRITER_SLICE_UPKEEP, /* index of event ids, checkpoints */
};
#define WRITER_N_SLICES (WRITER_SLICE_UPKEEP + 1)
struct writer_slices {
	int64_t n, total_us, longest_us; /* since start */
};

/* Health, readable from any thread. */
struct writer_health {
	size_t queued;
	int64_t last_commit_mono_ms, last_commit_unix_ms; /* 0: none yet */
	int last_error; /* 0: the last commit worked */
	char last_error_text[STORAGE_ERROR_MAX];
	int64_t stored_seq, folded_seq;
	int64_t folded_mono_ms; /* when the ledger last moved, or had caught up */
	int64_t round_mono_ms; /* when the thread last came round: every second, unless stuck */
	int64_t skipped; /* events that the ledger failed on */
	int64_t horizon_unix_s;
	struct storage_stats stats;
	bool rebuilding, pruning;
	bool prune_waits; /* the clock jumped: pruning waits for writer_request_prune */
	int64_t rebuild_seq, rebuild_target_seq; /* folded anew up to, of */
	int64_t pruned_events, pruned_sandboxes; /* since start */
	struct alert_figures alerts;
	int rebuild_error; /* how the last rebuild ended; 0: well, or none */
	struct writer_slices slices[WRITER_N_SLICES];
	bool is_lost; /* a file of the store was deleted, moved or replaced */
	bool is_damaged; /* deliveries failed again and again for pages that cannot be read */
	bool wants_end; /* lost or damaged, and a new start is what helps */
};
void writer_health(struct writer *w, struct writer_health *ret);
/* The retention horizon, for judging. Any thread, cheap. */
int64_t writer_horizon(struct writer *w);

/* Alerts, for whoever sends them; as long as the writer. */
struct alert *writer_alert(struct writer *w);

/* Finishes what is queued, folds what is pending (bounded), stops the thread. Jobs submitted later
 * get -ESHUTDOWN. */
void writer_stop(struct writer *w);
void writer_free(struct writer *w);
