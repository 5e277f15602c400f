/* Requeue: judges anew what was set aside, after a secret, the configuration or the program was
 * fixed.
 *
 * Quarantined bodies, rejections and events that the ledger skipped. Each is judged by the same
 * functions as a delivery: a signature's age as of its receipt, an event's time by the clock of
 * now. What is accepted becomes an event and what is filtered is counted, in the transaction that
 * removes it from where it was: each exactly once, whatever crashes. What is still refused stays,
 * under its reason of now. The work is lent to the writer in slices of a few milliseconds: intake
 * goes on between them.
 */
#pragma once

#include "base.h"
#include "ingest.h"

struct config;
struct writer;

#define REQUEUE_QUARANTINE 1u
#define REQUEUE_REJECTIONS 2u
#define REQUEUE_SKIPPED 4u
#define REQUEUE_ALL (REQUEUE_QUARANTINE | REQUEUE_REJECTIONS | REQUEUE_SKIPPED)

struct requeue_options {
	unsigned int what; /* REQUEUE_… */
	const char *source; /* NULL: of every source */
	/* Only what has this reason; NONE: whatever the reason. Skipped events have none: they are
	 * left alone if one is given. */
	enum ingest_reason reason;
};

struct requeue_counts {
	int64_t stored; /* became an event */
	int64_t duplicate; /* the event was there: counted on it */
	int64_t filtered; /* counted and gone */
	int64_t quarantined; /* still in quarantine, or moved there from the rejections */
	int64_t rejected; /* still among the rejections */
	int64_t folded; /* skipped events that are in the ledger now */
	int64_t skipped; /* events that the ledger failed on again */
};

/* Told after each slice, on the thread of requeue_run; anything but 0 ends the work there. */
typedef int (*requeue_progress_fn)(void *ctx, const struct requeue_counts *counts);

/* Judges by `config`, which must have its secrets; what belongs to no source of it stays. The
 * writer must run. Returns when all that was there at the beginning was looked at. 0; -ECANCELED:
 * `progress` said so; -EINPROGRESS: there are skipped events and the ledger is being rebuilt: again
 * when that is done; -ESHUTDOWN: the writer stops; else what the store failed with. *ret_counts
 * tells in every case what was done for good. Any thread but the writer's; `progress` may be NULL.
 */
MUST_CHECK int requeue_run(struct writer *w, const struct config *config,
			   const struct requeue_options *options, struct requeue_counts *ret_counts,
			   requeue_progress_fn progress, void *ctx);

/* The counts as a JSON object. -ENOBUFS, -ENOMEM. */
struct buffer;
MUST_CHECK int requeue_append_json(struct buffer *b, const struct requeue_counts *counts);
