/* The loop: take all that waits, one transaction, answer, upkeep; and the shared state around it
 * under one lock.
 *
 * A batch that fails for a reason of one job (not of the disk) is tried again job by job, so that
 * one bad row cannot fail its neighbours. The lock covers the queues, the secret counters and the
 * health figures; never a call into the store.
 */
#include "writer.h"

#include "alert.h"
#include "clock.h"
#include "config.h"
#include "log.h"
#include "metrics.h"
#include "projector.h"
#include "rebuild.h"
#include "retention.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

/* A slice writes every page again that it touches: few large ones write less, and hold up a batch
 * for longer. */
#define FOLD_US 20000
#define FOLD_EVENTS 1536
#define GATHER_US 2000
#define GATHER_EVENTS 8 /* fewer are not worth a transaction */
#define FOLD_EVERY_MS 200 /* fewer wait so long for more */
#define ASIDE_US 3000
#define TICK_MS 1000
#define SECRETS_MAX 512 /* sources x secrets */
#define RETRY_MS 1000 /* pause of the projector, or of work aside, after it failed */
#define TELL_LOG_EVERY_MS (INT64_C(10) * 60 * 1000)
#define DAMAGED_AFTER 3 /* batches in a row: one may be a disk that hiccups */

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
	} secrets[SECRETS_MAX];
	size_t n_secrets;
	struct writer_health health;

	/* writer thread only */
	const struct config *config;
	int64_t last_fold_ms, last_tick_ms, retry_fold_ms, retry_aside_ms;
	bool more_to_fold, has_pending, more_aside, more_upkeep, has_put_off, aliases_due, do_rebuild,
		do_prune;
	struct writer_slices slices[WRITER_N_SLICES];
	struct log_limit complaint;
	int64_t log_told_ms; /* when wal_limit was last said to be exceeded; 0: it is not */
	unsigned int n_damaged; /* failures in a row for damaged pages */
	bool ends_when_damaged, is_lost, wants_end;
};

/* Queue ------------------------------------------------------------------- */

int writer_new(struct storage *s, const struct writer_options *options, struct writer **ret)
{
	struct writer *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->s = s;
	w->queue_limit = options->queue_limit;
	w->ends_when_damaged = options->ends_when_damaged;
	w->last = &w->first;
	w->last_task = &w->first_task;
	w->complaint.burst = 5;
	(void)pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	int r = projector_new(s, &w->projector);
	if (r == 0)
		r = rebuild_new(s, w->projector, &w->rebuild);
	if (r == 0)
		r = retention_new(s, &w->retention);
	if (r == 0)
		r = alert_new(s, &w->alert);
	if (r < 0) {
		writer_free(w);
		return r;
	}
	projector_set_alert(w->projector, w->alert);
	writer_set_config(w, options->config);
	*ret = w;
	return 0;
}

void writer_free(struct writer *w)
{
	if (!w)
		return;
	assert(!w->started);
	rebuild_free(w->rebuild);
	retention_free(w->retention);
	projector_free(w->projector);
	alert_free(w->alert);
	config_unref((struct config *)w->config);
	config_unref((struct config *)w->next_config);
	(void)pthread_cond_destroy(&w->wake);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

int writer_submit(struct writer *w, struct writer_job *job)
{
	job->next = NULL;
	(void)pthread_mutex_lock(&w->lock);
	int r = w->stopping ? -ESHUTDOWN : w->n_queued >= w->queue_limit ? -EAGAIN : 0;
	if (r == 0) {
		bool was_empty = !w->first;
		*w->last = job;
		w->last = &job->next;
		w->n_queued++;
		if (was_empty)
			(void)pthread_cond_signal(&w->wake);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return r;
}

int writer_submit_task(struct writer *w, struct writer_task *task)
{
	task->next = NULL;
	(void)pthread_mutex_lock(&w->lock);
	int r = w->stopping ? -ESHUTDOWN : 0;
	if (r == 0) {
		*w->last_task = task;
		w->last_task = &task->next;
		(void)pthread_cond_signal(&w->wake);
	}
	(void)pthread_mutex_unlock(&w->lock);
	return r;
}

void writer_set_config(struct writer *w, const struct config *config)
{
	(void)pthread_mutex_lock(&w->lock);
	struct config *old = (struct config *)w->next_config;
	w->next_config = config_ref((struct config *)config);
	(void)pthread_cond_signal(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
	config_unref(old);
}

/* Up to WRITER_BATCH_MAX jobs, in order. */
static struct writer_job *take_batch(struct writer *w, size_t *ret_n)
{
	struct writer_job *first = w->first, *end = first;
	size_t n = first ? 1 : 0;
	while (end && end->next && n < WRITER_BATCH_MAX) {
		end = end->next;
		n++;
	}
	if (end) {
		w->first = end->next;
		end->next = NULL;
		if (!w->first)
			w->last = &w->first;
	}
	w->n_queued -= n;
	*ret_n = n;
	return first;
}

/* Batches ----------------------------------------------------------------- */

static bool is_durable(const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->durable)
			return true;
	return false;
}

static int put_all(struct writer *w, struct writer_job *first, const struct writer_job *end)
{
	for (struct writer_job *job = first; job != end; job = job->next) {
		int r = storage_put(w->s, &job->delivery, &job->outcome, &job->reason);
		if (r < 0)
			return r;
		job->seq = storage_stored_seq(w->s);
	}
	return 0;
}

/* One transaction over the jobs from first up to (not including) end. */
static int write_jobs(struct writer *w, struct writer_job *first, const struct writer_job *end,
		      bool durable)
{
	int r = storage_begin(w->s, durable);
	if (r < 0)
		return r;
	r = put_all(w, first, end);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	else if (durable)
		r = storage_in_place(w->s); /* else it is durable where nobody will look */
	return r;
}

static void complain(struct writer *w, const char *what, int r)
{
	unsigned int held_back = 0;
	if (log_limit_allows(&w->complaint, &held_back))
		log_line(LOG_LEVEL_ERROR, what, LOG_TEXT("error", strerror(-r)),
			 LOG_TEXT("store", storage_error(w->s)),
			 LOG_NUM("lines_held_back", held_back));
}

static int write_batch(struct writer *w, struct writer_job *first)
{
	int r = write_jobs(w, first, NULL, is_durable(first));
	for (struct writer_job *job = first; job; job = job->next)
		job->status = r;
	if (r == 0 || (storage_is_failure(r) && r != -ENOMEM) || !first->next)
		return r;
	int last = 0;
	for (struct writer_job *job = first; job; job = job->next) {
		job->status = write_jobs(w, job, job->next, job->durable);
		if (job->status < 0)
			last = job->status;
	}
	return last;
}

/* Under the lock. A ledger that stands still while events wait is stuck: since when, shows here. */
static void publish_folded(struct writer *w, int64_t folded_seq)
{
	if (folded_seq != w->health.folded_seq || folded_seq >= w->health.stored_seq)
		w->health.folded_mono_ms = clock_mono_ms();
	w->health.folded_seq = folded_seq;
}

/* Health figures, for other threads. r: how the last commit went. */
static void publish(struct writer *w, int r, bool committed)
{
	struct storage_position at;
	if (storage_position(w->s, &at) < 0)
		at = (struct storage_position) { 0 };
	(void)pthread_mutex_lock(&w->lock);
	w->health.last_error = r;
	(void)snprintf(w->health.last_error_text, sizeof(w->health.last_error_text), "%s",
		       r < 0 ? storage_error(w->s) : "");
	if (committed) {
		w->health.last_commit_mono_ms = clock_mono_ms();
		w->health.last_commit_unix_ms = clock_unix_ms();
	}
	w->health.is_lost = w->is_lost;
	w->health.is_damaged = w->n_damaged >= DAMAGED_AFTER;
	w->health.wants_end = w->wants_end;
	w->health.skipped = at.skipped;
	w->health.stored_seq = at.stored_seq;
	publish_folded(w, at.folded_seq);
	w->health.horizon_unix_s = at.horizon_unix_s;
	atomic_store(&w->horizon_s, at.horizon_unix_s);
	(void)pthread_mutex_unlock(&w->lock);
}

static void publish_sizes(struct writer *w)
{
	struct storage_stats stats;
	storage_stats(w->s, &stats);
	(void)pthread_mutex_lock(&w->lock);
	w->health.stats = stats;
	(void)pthread_mutex_unlock(&w->lock);
}

static struct writer_waker *list_wakers(const struct writer_job *first)
{
	struct writer_waker *list = NULL;
	for (const struct writer_job *job = first; job; job = job->next) {
		struct writer_waker *waker = job->waker;
		if (!waker || waker->is_listed)
			continue;
		waker->is_listed = true;
		waker->next = list;
		list = waker;
	}
	return list;
}

/* done() gives each job back to its owner, who may free it at once: so the wakers are collected
 * first. */
static void answer(struct writer_job *first)
{
	struct writer_waker *wakers = list_wakers(first);
	for (struct writer_job *job = first, *next; job; job = next) {
		next = job->next;
		job->done(job);
	}
	for (struct writer_waker *waker = wakers, *next; waker; waker = next) {
		next = waker->next;
		waker->is_listed = false;
		waker->wake(waker->ctx);
	}
}

/* What was stored is likely folded soon: then it need not be read again. */
static void offer(struct writer *w, const struct writer_job *first)
{
	for (const struct writer_job *job = first; job; job = job->next)
		if (job->status == 0 && job->outcome == STORAGE_STORED && job->shared)
			projector_offer(w->projector, job->seq, &job->delivery, job->shared);
}

/* The store itself ----------------------------------------------------------- */

/* Counts failures for damaged pages. A delivery that was stored shows that the store still takes
 * them; that the position could be written does not. */
static void judge_pages(struct writer *w, int r, bool was_delivery)
{
	if (r == 0 && was_delivery)
		w->n_damaged = 0;
	if (r != -EUCLEAN || w->n_damaged >= DAMAGED_AFTER || ++w->n_damaged < DAMAGED_AFTER)
		return;
	storage_note_damage(w->s);
	w->wants_end = w->ends_when_damaged;
	log_line(LOG_LEVEL_ERROR,
		 w->wants_end ? "the store is damaged: ending, so that the next start sets it aside"
			      : "the store is damaged: stop the daemon and restore a backup",
		 LOG_TEXT("store", storage_error(w->s)));
}

static void save_what_is_lost(struct writer *w)
{
	char path[STORAGE_PATH_MAX];
	int r = storage_rescue(w->s, path);
	w->wants_end = r == 0;
	if (r < 0)
		complain(w, "the deleted store could not be saved, trying again", r);
	else
		log_line(LOG_LEVEL_ERROR,
			 *path ? "ending; all that the deleted store held was saved: to go on with "
				 "it, e2b-hookctl restore"
			       : "ending; all that was stored is in the database that was opened",
			 LOG_TEXT("saved", path));
}

/* The next start opens what has the names now. Before, nothing may be lost with this process. */
static void look_for_files(struct writer *w)
{
	bool was_lost = w->is_lost;
	w->is_lost = storage_in_place(w->s) < 0;
	if (!w->is_lost || w->wants_end)
		return;
	if (!was_lost)
		log_say(LOG_LEVEL_ERROR,
			"a file of the store was deleted, moved or replaced beneath the daemon: "
			"deliveries are answered 503");
	save_what_is_lost(w);
}

static void run_batch(struct writer *w, struct writer_job *first, size_t n)
{
	int64_t begun_us = clock_mono_us();
	int r = write_batch(w, first);
	metrics_observe(METRICS_BATCH_SIZE, (int64_t)n);
	if (is_durable(first))
		metrics_observe(METRICS_COMMIT_TIME, clock_mono_us() - begun_us);
	if (r < 0) {
		metrics_count(METRICS_COMMIT_FAILED);
		complain(w, "deliveries were not stored", r);
	}
	judge_pages(w, r, true);
	publish(w, r, r == 0);
	offer(w, first);
	answer(first);
}

static void run_task(struct writer *w, struct writer_task *task)
{
	int r = storage_begin(w->s, true);
	if (r == 0) {
		r = task->run(w->s, task->ctx);
		if (r == 0)
			r = storage_commit(w->s);
		if (r != 0)
			storage_rollback(w->s);
	}
	task->done(task, r);
}

/* Secrets in use ---------------------------------------------------------- */

void writer_count_secret(struct writer *w, const char *source, unsigned int position,
			 const char *fingerprint, int64_t now_unix_ms)
{
	(void)pthread_mutex_lock(&w->lock);
	size_t i = 0;
	while (i < w->n_secrets && (w->secrets[i].use.position != position ||
				    strcmp(w->secrets[i].source, source) != 0 ||
				    strcmp(w->secrets[i].use.fingerprint, fingerprint) != 0))
		i++;
	if (i == w->n_secrets && i < SECRETS_MAX) {
		struct writer_secret *secret = &w->secrets[w->n_secrets++];
		memset(secret, 0, sizeof(*secret));
		(void)snprintf(secret->source, sizeof(secret->source), "%s", source);
		secret->use.source = secret->source;
		secret->use.position = position;
		(void)snprintf(secret->use.fingerprint, sizeof(secret->use.fingerprint), "%s",
			       fingerprint);
	}
	if (i < SECRETS_MAX) {
		w->secrets[i].use.n++;
		w->secrets[i].use.last_unix_ms = now_unix_ms;
	}
	(void)pthread_mutex_unlock(&w->lock);
}

static int put_secret(struct writer *w, const struct storage_secret_use *use)
{
	int r = storage_begin(w->s, false);
	if (r < 0)
		return r;
	r = storage_count_secret(w->s, use);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

static void flush_secrets(struct writer *w)
{
	for (size_t i = 0;; i++) {
		(void)pthread_mutex_lock(&w->lock);
		bool more = i < w->n_secrets;
		struct writer_secret secret = more ? w->secrets[i] : (struct writer_secret) { 0 };
		(void)pthread_mutex_unlock(&w->lock);
		if (!more)
			return;
		secret.use.source = secret.source;
		if (secret.use.n == 0 || put_secret(w, &secret.use) < 0)
			continue;
		(void)pthread_mutex_lock(&w->lock);
		w->secrets[i].use.n -= secret.use.n;
		(void)pthread_mutex_unlock(&w->lock);
	}
}

/* Between batches --------------------------------------------------------- */

static int put_aliases(struct writer *w)
{
	int r = storage_begin(w->s, true);
	if (r < 0)
		return r;
	r = storage_clear_aliases(w->s);
	for (size_t i = 0; i < w->config->n_templates && r == 0; i++) {
		const struct config_template *t = &w->config->templates[i];
		if (t->alias)
			r = storage_set_alias(w->s, (struct span) { t->id, strlen(t->id) },
					      t->alias);
	}
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

static void take_config(struct writer *w, const struct config *config)
{
	struct config *old = (struct config *)w->config;
	if (old && !config_same_terms(old, config))
		rebuild_begin_anew(w->rebuild);
	w->config = config;
	projector_set_config(w->projector, config);
	retention_set_config(w->retention, config);
	alert_set_config(w->alert, config);
	config_unref(old);
	int r = put_aliases(w);
	w->aliases_due = r < 0;
	if (r < 0)
		complain(w, "template aliases were not stored", r);
}

/* While the store fails, health checks keep deliveries away: then nobody but us would find out that
 * it works again. Writes what is there already, durably. */
static int try_again(struct writer *w)
{
	struct storage_position at;
	int r = storage_position(w->s, &at);
	if (r == 0)
		r = storage_begin(w->s, true);
	if (r < 0)
		return r;
	r = storage_set_trying(w->s, at.trying_seq, at.trying_count);
	if (r == 0)
		r = storage_commit(w->s);
	if (r < 0)
		storage_rollback(w->s);
	return r;
}

/* Deliveries go on; but the log grows until whoever reads an old snapshot lets it go. */
static void watch_log(struct writer *w, int64_t now_ms)
{
	char holders[256];
	int64_t size = w->health.stats.wal_bytes, limit = w->config->store.wal_limit;
	if (size <= limit && w->log_told_ms)
		log_line(LOG_LEVEL_NOTICE, "the write-ahead log is below wal_limit again",
			 LOG_NUM("bytes", size));
	if (size <= limit)
		w->log_told_ms = 0;
	if (size <= limit || (w->log_told_ms && now_ms - w->log_told_ms < TELL_LOG_EVERY_MS))
		return;
	w->log_told_ms = now_ms;
	size_t n = storage_wal_holders(w->config->store.path, holders, sizeof(holders));
	log_line(LOG_LEVEL_WARNING,
		 "the write-ahead log is above wal_limit: a reader holds an old snapshot; end it",
		 LOG_NUM("bytes", size), LOG_NUM("limit", limit),
		 LOG_TEXT("pid", n ? holders : "unknown"));
}

static void tick(struct writer *w, int64_t now_ms)
{
	w->last_tick_ms = now_ms;
	look_for_files(w);
	if (w->aliases_due)
		w->aliases_due = put_aliases(w) < 0;
	int last = w->health.last_error < 0 ? try_again(w) : 0;
	judge_pages(w, last, false);
	flush_secrets(w);
	int r = retention_tick(w->retention);
	if (r < 0)
		complain(w, "the retention horizon could not be moved", r);
	r = projector_tick(w->projector, clock_unix_ms());
	if (r < 0)
		complain(w, "the ledger could not close runs", r);
	r = alert_tick(w->alert, clock_unix_ms());
	if (r < 0)
		complain(w, "alerts could not be looked at", r);
	publish(w, last, false);
	publish_sizes(w);
	watch_log(w, now_ms);
}

/* Deliveries that come meanwhile wait for the end of it. */
static void note_slice(struct writer *w, enum writer_slice what, int64_t begun_us)
{
	struct writer_slices *slices = &w->slices[what];
	int64_t us = clock_mono_us() - begun_us;
	slices->n++;
	slices->total_us += us;
	slices->longest_us = base_max_i64(slices->longest_us, us);
}

static int64_t unfolded(struct writer *w)
{
	struct storage_position at;
	return storage_position(w->s, &at) < 0 ? 0 : at.stored_seq - at.folded_seq;
}

static void pause_folding(struct writer *w, int r, int64_t now_ms)
{
	complain(w, "the ledger could not be written", r);
	w->retry_fold_ms = now_ms + RETRY_MS;
}

static void fold(struct writer *w, int64_t now_ms)
{
	int64_t begun_us = clock_mono_us(), pending = unfolded(w);
	int r = projector_step(w->projector, FOLD_US, FOLD_EVENTS, &w->more_to_fold);
	/* A full slice leaves what came meanwhile to the next, which is to be full, too. */
	if (pending - unfolded(w) >= FOLD_EVENTS)
		w->more_to_fold = unfolded(w) >= FOLD_EVENTS;
	note_slice(w, WRITER_SLICE_FOLD, begun_us);
	w->last_fold_ms = now_ms;
	if (r < 0) {
		pause_folding(w, r, now_ms);
		w->more_to_fold = false;
	}
}

static void gather(struct writer *w, int64_t now_ms)
{
	int r = projector_gather(w->projector, GATHER_EVENTS, GATHER_US, FOLD_EVENTS);
	if (r < 0)
		pause_folding(w, r, now_ms);
}

static bool has_work_aside(const struct writer *w)
{
	return rebuild_has_work(w->rebuild) || retention_has_work(w->retention);
}

/* What can wait: a slice of a rebuild, else of retention, which must not take away what a rebuild
 * reads, nor go by the size of a store that holds a second ledger. */
static void work_aside(struct writer *w, int64_t now_ms)
{
	bool rebuilding = rebuild_has_work(w->rebuild);
	int64_t begun_us = clock_mono_us();
	int r = rebuilding ? rebuild_step(w->rebuild, ASIDE_US) : retention_step(w->retention);
	note_slice(w, rebuilding ? WRITER_SLICE_REBUILD : WRITER_SLICE_RETENTION, begun_us);
	if (r < 0) {
		complain(w,
			 rebuilding ? "the rebuild could not go on" : "retention could not go on",
			 r);
		w->retry_aside_ms = now_ms + RETRY_MS;
	}
	w->more_aside = r == 0 && has_work_aside(w);
}

static bool is_tick_due(const struct writer *w, int64_t now_ms)
{
	return now_ms - w->last_tick_ms >= TICK_MS;
}

/* Folding can wait for more events, but not long; what one slice left over does not wait. What waits
 * is applied meanwhile, unless work aside would change the ledger beneath it, as a tick may. */
static bool fold_if_due(struct writer *w, int64_t now_ms)
{
	int64_t pending = unfolded(w);
	bool due = w->more_to_fold || pending >= FOLD_EVENTS || is_tick_due(w, now_ms) ||
		   now_ms - w->last_fold_ms >= FOLD_EVERY_MS;
	w->more_to_fold = false;
	if (pending > 0 && due)
		fold(w, now_ms);
	else if (pending > 0 && !has_work_aside(w))
		gather(w, now_ms);
	return pending > 0 && due;
}

static void maintain(struct writer *w)
{
	int64_t begun_us = clock_mono_us();
	int r = storage_maintain(w->s);
	if (r < 0)
		complain(w, "the write-ahead log could not be moved into the database", r);
	note_slice(w, WRITER_SLICE_UPKEEP, begun_us);
	w->more_upkeep = r == 0 && storage_wants_upkeep(w->s);
}

/* Reading only: nothing is late when it fails, and it is not tried again. */
static void learn(struct writer *w)
{
	int64_t begun_us = clock_mono_us();
	int r = storage_learn(w->s);
	if (r < 0)
		complain(w, "what the store holds could not be read ahead", r);
	note_slice(w, WRITER_SLICE_UPKEEP, begun_us);
	w->more_upkeep = r == 0 && storage_wants_learning(w->s);
}

static void work_between(struct writer *w, int64_t now_ms, bool paused)
{
	w->more_aside = w->more_upkeep = false;
	if (!paused && now_ms >= w->retry_aside_ms && has_work_aside(w) &&
	    unfolded(w) < FOLD_EVENTS)
		work_aside(w, now_ms);
	if (storage_wants_upkeep(w->s))
		maintain(w);
	if (!w->more_upkeep && storage_wants_learning(w->s))
		learn(w);
}

/* Behind a slice of the fold, a batch comes first: it should not wait for all of this. */
static void upkeep(struct writer *w)
{
	int64_t now_ms = clock_mono_ms();
	bool paused = now_ms < w->retry_fold_ms;
	w->has_put_off = !paused && fold_if_due(w, now_ms) && !w->has_put_off;
	w->has_pending = !paused && unfolded(w) > 0;
	if (!w->has_put_off)
		work_between(w, now_ms, paused);
	if (is_tick_due(w, now_ms))
		tick(w, now_ms);
}

static void take_requests(struct writer *w)
{
	int r = w->do_rebuild ? rebuild_request(w->rebuild) : 0;
	if (r == 0 && w->do_prune)
		r = retention_confirm(w->retention);
	if (r < 0)
		complain(w, "a request could not be begun", r);
}

static void publish_aside(struct writer *w)
{
	struct rebuild_progress rebuild;
	struct retention_progress retention;
	rebuild_progress(w->rebuild, &rebuild);
	retention_progress(w->retention, &retention);
	(void)pthread_mutex_lock(&w->lock);
	w->health.round_mono_ms = clock_mono_ms();
	publish_folded(w, rebuild.target_seq); /* a client that waits for the end reads both */
	w->health.rebuilding = rebuild_is_running(w->rebuild) || w->wants_rebuild;
	w->health.rebuild_seq = rebuild.seq;
	w->health.rebuild_target_seq = rebuild.target_seq;
	w->health.rebuild_error = rebuild.error;
	w->health.pruning = retention_has_work(w->retention) || w->wants_prune;
	w->health.prune_waits = retention.waits;
	w->health.pruned_events = retention.pruned_events;
	w->health.pruned_sandboxes = retention.pruned_sandboxes;
	memcpy(w->health.slices, w->slices, sizeof(w->slices));
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_request_rebuild(struct writer *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->wants_rebuild = w->health.rebuilding = true;
	(void)pthread_cond_signal(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
}

void writer_request_prune(struct writer *w)
{
	(void)pthread_mutex_lock(&w->lock);
	w->wants_prune = w->health.pruning = true;
	(void)pthread_cond_signal(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
}

/* The thread -------------------------------------------------------------- */

static void wait_for_work(struct writer *w)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t now_ms = clock_mono_ms(), ms = w->retry_fold_ms > now_ms ? 100 : TICK_MS;
	if (w->has_pending)
		ms = base_max_i64(0, w->last_fold_ms + FOLD_EVERY_MS - now_ms);
	until.tv_nsec += (ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (!w->first && !w->first_task && !w->next_config && !w->wants_rebuild &&
	       !w->wants_prune && !w->stopping)
		if (pthread_cond_timedwait(&w->wake, &w->lock, &until) == ETIMEDOUT)
			return;
}

/* Takes what there is to do; false when there is nothing more and the end has come. */
static bool next_work(struct writer *w, struct writer_job **ret_jobs, size_t *ret_n,
		      struct writer_task **ret_tasks, const struct config **ret_config)
{
	(void)pthread_mutex_lock(&w->lock);
	if (!w->more_to_fold && !w->more_aside && !w->more_upkeep && !w->has_put_off)
		wait_for_work(w);
	*ret_jobs = take_batch(w, ret_n);
	*ret_tasks = w->first_task;
	w->first_task = NULL;
	w->last_task = &w->first_task;
	*ret_config = w->next_config;
	w->next_config = NULL;
	w->do_rebuild = w->wants_rebuild;
	w->do_prune = w->wants_prune;
	w->wants_rebuild = w->wants_prune = false;
	bool more = *ret_jobs || *ret_tasks || *ret_config || !w->stopping;
	(void)pthread_mutex_unlock(&w->lock);
	return more;
}

static void *run(void *ctx)
{
	struct writer *w = ctx;
	struct writer_job *jobs;
	struct writer_task *tasks;
	const struct config *config;
	size_t n_jobs;
	while (next_work(w, &jobs, &n_jobs, &tasks, &config)) {
		if (config)
			take_config(w, config);
		if (jobs)
			run_batch(w, jobs, n_jobs);
		for (struct writer_task *task = tasks, *next; task; task = next) {
			next = task->next;
			run_task(w, task);
		}
		take_requests(w);
		upkeep(w);
		publish_aside(w);
	}
	return NULL;
}

int writer_start(struct writer *w)
{
	assert(!w->started);
	const struct config *config = w->next_config;
	w->next_config = NULL;
	take_config(w, config);
	if (retention_tick(w->retention) < 0)
		complain(w, "the retention horizon could not be moved", -EIO);
	publish(w, 0, false);
	publish_sizes(w);
	publish_aside(w);
	int r = pthread_create(&w->thread, NULL, run, w);
	w->started = r == 0;
	return -r;
}

/* What is pending is folded at the next start anyway: a few slices here only make the last answer
 * visible sooner. */
void writer_stop(struct writer *w)
{
	if (!w->started)
		return;
	(void)pthread_mutex_lock(&w->lock);
	w->stopping = true;
	(void)pthread_cond_signal(&w->wake);
	(void)pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL);
	w->started = false;
	flush_secrets(w);
	if (rebuild_stop(w->rebuild) < 0)
		complain(w, "the rebuild will count as one that died", -EIO);
	int64_t until_ms = clock_mono_ms() + 1000;
	bool more = true;
	while (more && clock_mono_ms() < until_ms)
		if (projector_step(w->projector, FOLD_US, FOLD_EVENTS, &more) < 0)
			break;
	if (storage_maintain(w->s) < 0)
		complain(w, "the write-ahead log could not be moved into the database", -EIO);
}

void writer_health(struct writer *w, struct writer_health *ret)
{
	(void)pthread_mutex_lock(&w->lock);
	*ret = w->health;
	ret->queued = w->n_queued;
	alert_figures(w->alert, &ret->alerts);
	(void)pthread_mutex_unlock(&w->lock);
}

struct alert *writer_alert(struct writer *w)
{
	return w->alert;
}

int64_t writer_horizon(struct writer *w)
{
	return atomic_load(&w->horizon_s);
}
