/* What the files of the projector share: projector.c folds what is pending, projector_refold.c what
 * a rebuild asks for, both by slices (projector_slice.c), under the terms of the configuration
 * (projector_terms.c). Writer thread.
 *
 * A slice: events are applied to the sandboxes they are about, in memory, each loaded once; then
 * the sandboxes are settled and all is written, with the watermark, in one transaction. A slice
 * that was begun may be dropped at any time: nothing of it is in the store.
 *
 * Or it is written in parts, each a transaction: first the sandboxes, in the order of their keys,
 * then the links of its events, in their order, with the watermark. By key, because then each page
 * is written by one part, not by all. If such a slice is cut off, its events are applied once more:
 * what a sandbox holds already changes nothing in it (ledger.c: merging is idempotent; an execution
 * that is reported again is none). What must not happen twice goes with the watermark: links (an
 * event that has one and is above it would be shown twice), the counting of events, alerts about
 * them.
 */
#pragma once

#include "ingest.h"
#include "log.h"
#include "projector.h"

#define SLOTS 4096 /* of the table of touched sandboxes; a power of two, above any slice */
#define SLICE_MAX (SLOTS / 2)
#define OFFERED 2048 /* events kept as read; a power of two, above what is pending at rest */
#define TERMS_CACHED 64 /* a power of two */
#define FAILED_TWICE "failed twice"

/* What the configuration says of a key; direct-mapped, a miss costs a query. */
struct projector_term {
	int64_t key; /* of a source or a template; 0: empty */
	const struct config_source *source; /* NULL: not configured */
	const struct config_template *template;
};

/* An event that was applied and is to be written. */
struct projector_applied {
	struct ingest_result *read; /* a reference; holds the event. NULL: it is not needed */
	int64_t received_unix_ms;
	struct ledger_sandbox *sandbox; /* NULL: it is about none */
	struct ledger_dims dims;
	struct storage_link link;
};

struct projector {
	struct storage *s;
	const struct config *config;
	struct alert *alert;
	struct ledger_terms terms;
	struct projector_term sources[TERMS_CACHED], templates[TERMS_CACHED];
	int64_t cautious_until_seq; /* events up to here are tried one by one */
	int64_t unjudged_seq; /* the store failed when this one was tried: that does not count */
	int term_error; /* a look-up inside a callback failed: the slice must not be kept */
	struct log_limit complaint;

	/* The slice. */
	struct ledger_sandbox *touched[SLOTS];
	size_t n_touched;
	struct projector_applied *applied;
	size_t n_applied, applied_size;
	int64_t after_seq, last_seq; /* its events */
	int64_t ledger_changes; /* of the store, when it began */
	int64_t deadline_us;
	size_t left, n_taken;

	/* Its writing. */
	bool is_arranged; /* nothing is applied to it any more */
	bool goes_on; /* the log, behind it */
	struct ledger_sandbox *by_key[SLICE_MAX]; /* all that were touched */
	size_t n_parts, n_saved, n_linked; /* of by_key, of applied */

	size_t part; /* events, as set; 0: slices are written whole */
	int64_t amid_until_seq; /* sandboxes may hold events up to here */

	/* Events as they were read when they came, in the place of seq modulo OFFERED. */
	struct projector_offer {
		int64_t seq, source_key, received_unix_ms;
		struct ingest_result *read; /* a reference; NULL: none */
	} offered[OFFERED];
	int64_t first_offered; /* none before it */

	int64_t refold_until; /* the live watermark */
	int64_t refold_cautious_from, refold_cautious_until; /* a slice between them failed */
	bool refolding; /* into the shadow: what the live fold skipped is skipped again */
};

/* Also after a rollback: keys given in the lost transaction may be given again to others. */
void projector_terms_forget(struct projector *p);
/* What `p->terms` asks; the context is the projector. */
bool projector_terms_priced(void *ctx, int64_t source_key);
bool projector_terms_size(void *ctx, int64_t template_key, int64_t *ret_vcpu,
			  int64_t *ret_memory_mb);

/* A slice behind after_seq: the one that was begun there, if it still holds, else a new one. */
void projector_slice_begin(struct projector *p, int64_t after_seq);
/* Forgets it, written or not. */
void projector_slice_drop(struct projector *p);
/* The sandbox, loaded if the slice has not touched it yet. */
MUST_CHECK int projector_slice_touch(struct projector *p, struct span id,
				     struct ledger_sandbox **ret);
/* Applies one event. After a failure the slice is good for dropping only. */
MUST_CHECK int projector_slice_apply(struct projector *p, const struct storage_event *stored,
				     struct ingest_result *read);
/* The same for an event as it is stored; a storage_event_fn. 1, not applied: enough for this slice.
 */
int projector_slice_take(void *ctx, const struct storage_event *stored);
/* Enough? One event it always takes, or a slow store would stand still. */
bool projector_slice_is_enough(const struct projector *p);
void projector_slice_took(struct projector *p, int64_t seq);
/* Settles the touched sandboxes and writes what was applied, or the next part of it: nothing more
 * is applied from here on. Inside a transaction; the caller moves the marks. With part 0 the slice
 * is written whole. */
MUST_CHECK int projector_slice_write(struct projector *p, size_t part, int64_t now_ms);
bool projector_slice_is_amid(const struct projector *p); /* some is written, not all */
/* The watermark that goes with what is written. */
int64_t projector_slice_seq_written(const struct projector *p);

/* Folds up to `left` events behind after_seq in a transaction of its own, each by `take`.
 * *ret_more: it ended before the log did. */
MUST_CHECK int projector_fold_slice(struct projector *p, int64_t after_seq, storage_event_fn take,
				    bool *ret_more);
/* Leaves one event out of the ledger: it stays in the log and is reported. */
MUST_CHECK int projector_skip_event(struct projector *p, int64_t seq, int64_t time_s,
				    const char *why);
/* The event behind after_seq: 1 and its seq and time, or 0. */
MUST_CHECK int projector_first_pending(struct projector *p, int64_t after_seq,
				       struct storage_event *ret);
void projector_roll_back(struct projector *p);
void projector_complain(struct projector *p, const char *what, int64_t seq, int r);
