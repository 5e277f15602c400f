/* What the files of the writer share. */
#pragma once

#include "writer.h"

#include "log.h"
#include "projector.h"
#include "rebuild.h"
#include "retention.h"

#include <pthread.h>
#include <stdatomic.h>

#define WRITER_TICK_MS 1000
#define WRITER_WRITTEN_MAX 8
#define WRITER_BATCH_WORTH                                                                         \
	16 /* fewer jobs wait while the disk syncs: each commit writes pages anew */
#define WRITER_FOLD_EVERY_MS 200 /* fewer events than a slice wait so long for more */
/* Pages are damaged that could not be read so often, for so long, and not long ago: SQLite says
 * "malformed" of every read that a disk refuses (EIO), and a disk may do so for a while. The time
 * is that of a sender before it tries again. */
#define WRITER_DAMAGED_AFTER 3
#define WRITER_DAMAGED_MS 10000
#define WRITER_DAMAGE_FORGOTTEN_MS 60000 /* without one more, whatever was stored in between */
#define WRITER_SECRETS_MAX 512 /* sources x secrets */

/* A batch that is written, and answered when it is synced. */
struct writer_batch {
	struct writer_job *first;
	int64_t begun_us;
	int status; /* of the writing: 0, or how the last of its jobs failed */
};

struct writer {
	struct storage *s;
	struct projector *projector;
	struct rebuild *rebuild;
	struct retention *retention;
	struct alert *alert;
	size_t queue_limit;
	pthread_t thread, syncer;
	bool started;
	_Atomic int64_t horizon_s;
	pthread_mutex_t answering; /* who answers a batch: the wakers that it lists are shared */

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t wake;
	struct writer_job *first, **last;
	struct writer_task *first_task, **last_task;
	size_t n_queued, crowd; /* crowd: what a batch found waiting, at most, of late */
	pthread_cond_t wake_syncer;
	struct writer_batch written[WRITER_WRITTEN_MAX]; /* for its next sync */
	size_t n_written;
	int64_t syncing_since_ms; /* 0: it is not */
	bool syncer_ends;
	bool stopping, wants_rebuild, wants_prune;
	const struct config *next_config; /* set by writer_set_config, taken by the thread */
	struct writer_secret {
		char source[65];
		struct storage_secret_use use;
	} secrets[WRITER_SECRETS_MAX];
	size_t n_secrets;
	struct writer_health health;

	/* writer thread only */
	const struct config *config;
	struct log_limit complaint;
	int64_t slice_after_seq; /* the fold's slice that was begun last */
	int64_t last_batch_ms, last_fold_ms, last_tick_ms, retry_fold_ms, retry_aside_ms;
	bool fold_fails, more_to_fold, has_pending, more_aside, more_upkeep, has_put_off,
		aliases_due, do_rebuild, do_prune;
	struct writer_slices slices[WRITER_N_SLICES];
	int64_t log_told_ms; /* when wal_limit was last said to be exceeded; 0: it is not */
	unsigned int n_damaged; /* failures for damaged pages of late */
	int64_t damaged_first_ms, damaged_last_ms;
	bool ends_when_damaged, is_damaged, is_lost, wants_end;
};

/* Batches. Under the lock: is one to be taken now? */
bool writer_batch_is_due(const struct writer *w);
/* Under the lock, if there is one: up to WRITER_BATCH_MAX jobs, in order. */
struct writer_job *writer_batch_take(struct writer *w, size_t *ret_n);
/* How many deliveries come at once, of late. 0: none wait or fly now. */
size_t writer_batch_crowd(struct writer *w);
/* Writes them, and has each answered. */
void writer_batch_run(struct writer *w, struct writer_job *first, size_t n);
/* The thread that syncs, for as long as the writer's runs and until all is answered. */
MUST_CHECK int writer_batch_start_syncer(struct writer *w);
void writer_batch_stop_syncer(struct writer *w);

/* Between batches. */
void writer_upkeep(struct writer *w);
/* Is there something that it could do while the disk syncs? */
bool writer_upkeep_is_waiting(const struct writer *w);
/* Up to the end of the log, for at most a second. */
void writer_upkeep_finish(struct writer *w);
MUST_CHECK int writer_put_aliases(struct writer *w);
void writer_secret_flush(struct writer *w);

/* The store itself. Counts failures for damaged pages. Of a verdict only a delivery that is stored
 * long after the last of them shows that it is out of date; that the position could be written does
 * not. */
void writer_store_judge(struct writer *w, int r, bool was_delivery);
/* The next start opens what has the names now. Before, nothing may be lost with this process. */
void writer_store_look(struct writer *w);
/* Writes what is there already, durably, to see whether it works. */
MUST_CHECK int writer_store_try_again(struct writer *w);
/* Deliveries go on; but the log grows until whoever reads an old snapshot lets it go. */
void writer_store_watch_log(struct writer *w, int64_t now_ms);

/* Says what failed, as often as a log can bear. */
void writer_complain(struct writer *w, const char *what, int r);
/* Health figures, for other threads. */
void writer_publish(struct writer *w);
/* How the last commit went: 0, or why it failed, in the words of whoever knows. Any thread. */
void writer_publish_commit(struct writer *w, int r, const char *text);
void writer_publish_sizes(struct writer *w);
void writer_publish_aside(struct writer *w);
