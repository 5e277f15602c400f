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
#define WRITER_FOLD_EVERY_MS 200 /* fewer events than a slice wait so long for more */
#define WRITER_DAMAGED_AFTER 3 /* batches in a row: one may be a disk that hiccups */
#define WRITER_SECRETS_MAX 512 /* sources x secrets */

struct writer {
	struct storage *s;
	struct projector *projector;
	struct rebuild *rebuild;
	struct retention *retention;
	struct alert *alert;
	size_t queue_limit;
	pthread_t thread;
	bool started;
	_Atomic int64_t horizon_s;

	pthread_mutex_t lock; /* everything below */
	pthread_cond_t wake;
	struct writer_job *first, **last;
	struct writer_task *first_task, **last_task;
	size_t n_queued;
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
	int64_t last_fold_ms, last_tick_ms, retry_fold_ms, retry_aside_ms;
	bool more_to_fold, has_pending, more_aside, more_upkeep, has_put_off, aliases_due,
		do_rebuild, do_prune;
	struct writer_slices slices[WRITER_N_SLICES];
	struct log_limit complaint;
	int64_t log_told_ms; /* when wal_limit was last said to be exceeded; 0: it is not */
	unsigned int n_damaged; /* failures in a row for damaged pages */
	bool ends_when_damaged, is_lost, wants_end;
};

/* Batches. Under the lock: up to WRITER_BATCH_MAX jobs, in order. */
struct writer_job *writer_batch_take(struct writer *w, size_t *ret_n);
/* Writes them and answers each. */
void writer_batch_run(struct writer *w, struct writer_job *first, size_t n);

/* Between batches. */
void writer_upkeep(struct writer *w);
/* Up to the end of the log, for at most a second. */
void writer_upkeep_finish(struct writer *w);
MUST_CHECK int writer_put_aliases(struct writer *w);
void writer_secret_flush(struct writer *w);

/* The store itself. Counts failures for damaged pages: a delivery that was stored shows that the
 * store still takes them; that the position could be written does not. */
void writer_store_judge(struct writer *w, int r, bool was_delivery);
/* The next start opens what has the names now. Before, nothing may be lost with this process. */
void writer_store_look(struct writer *w);
/* While the store fails, health checks keep deliveries away: then nobody but us would find out that
 * it works again. Writes what is there already, durably. */
MUST_CHECK int writer_store_try_again(struct writer *w);
/* Deliveries go on; but the log grows until whoever reads an old snapshot lets it go. */
void writer_store_watch_log(struct writer *w, int64_t now_ms);

/* Says what failed, as often as a log can bear. */
void writer_complain(struct writer *w, const char *what, int r);
/* Health figures, for other threads. r: how the last commit went. */
void writer_publish(struct writer *w, int r, bool committed);
void writer_publish_sizes(struct writer *w);
void writer_publish_aside(struct writer *w);
