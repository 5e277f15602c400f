/* The loop: take all that waits, one transaction, answer, upkeep; and the shared state around it
 * under one lock. The lock covers the queues, the secret counters and the health figures; never a
 * call into the store.
 */
#include "writer_internal.h"

#include "clock.h"
#include "config.h"

#include <errno.h>
#include <string.h>

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
	(void)pthread_mutex_init(&w->answering, NULL);
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->wake, &attr);
	(void)pthread_cond_init(&w->wake_syncer, NULL);
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
	(void)pthread_cond_destroy(&w->wake_syncer);
	(void)pthread_mutex_destroy(&w->answering);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
}

int writer_submit(struct writer *w, struct writer_job *job)
{
	job->next = NULL;
	(void)pthread_mutex_lock(&w->lock);
	int r = w->stopping ? -ESHUTDOWN : w->n_queued >= w->queue_limit ? -EAGAIN : 0;
	if (r == 0) {
		*w->last = job;
		w->last = &job->next;
		w->n_queued++;
		if (w->n_queued == 1 || w->n_queued == WRITER_BATCH_WORTH)
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

int writer_put_aliases(struct writer *w)
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
	int r = writer_put_aliases(w);
	w->aliases_due = r < 0;
	if (r < 0)
		writer_complain(w, "template aliases were not stored", r);
}

static void take_requests(struct writer *w)
{
	int r = w->do_rebuild ? rebuild_request(w->rebuild) : 0;
	if (r == 0 && w->do_prune)
		r = retention_confirm(w->retention);
	if (r < 0)
		writer_complain(w, "a request could not be begun", r);
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

static void wait_for_work(struct writer *w)
{
	struct timespec until;
	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t now_ms = clock_mono_ms(), ms = w->retry_fold_ms > now_ms ? 100 : WRITER_TICK_MS;
	if (w->has_pending)
		ms = base_max_i64(0, w->last_fold_ms + WRITER_FOLD_EVERY_MS - now_ms);
	until.tv_nsec += (ms % 1000) * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (!writer_batch_is_due(w) && !w->first_task && !w->next_config && !w->wants_rebuild &&
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
	*ret_jobs = writer_batch_is_due(w) ? writer_batch_take(w, ret_n) : NULL;
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
			writer_batch_run(w, jobs, n_jobs);
		for (struct writer_task *task = tasks, *next; task; task = next) {
			next = task->next;
			run_task(w, task);
		}
		take_requests(w);
		writer_upkeep(w);
		writer_publish_aside(w);
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
		writer_complain(w, "the retention horizon could not be moved", -EIO);
	writer_publish(w);
	writer_publish_sizes(w);
	writer_publish_aside(w);
	int r = writer_batch_start_syncer(w);
	if (r < 0)
		return r;
	r = -pthread_create(&w->thread, NULL, run, w);
	w->started = r == 0;
	if (r < 0)
		writer_batch_stop_syncer(w);
	return r;
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
	writer_batch_stop_syncer(w);
	w->started = false;
	writer_secret_flush(w);
	if (rebuild_stop(w->rebuild) < 0)
		writer_complain(w, "the rebuild will count as one that died", -EIO);
	writer_upkeep_finish(w);
}

struct alert *writer_alert(struct writer *w)
{
	return w->alert;
}
