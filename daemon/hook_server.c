#include "hook_internal.h"

#include "clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Routes and answers. Every delivery gets exactly one answer: from here, from the writer's outcome
 * by way of come_back(), or from the commit deadline. Rejections and counts are lent to the writer
 * but waited for by nobody; they may take only a part of its queue, so that a flood of unsigned
 * deliveries cannot crowd out signed ones.
 */

#define HEALTH_PATH "/healthz"
#define REJECTIONS_WAITING_MAX 256

static const enum metrics_counter counter_of[REPLY_N_KINDS] = {
	[REPLY_STORED] = METRICS_STORED,
	[REPLY_DUPLICATE] = METRICS_DUPLICATE,
	[REPLY_FILTERED] = METRICS_FILTERED,
	[REPLY_QUARANTINED] = METRICS_QUARANTINED,
	[REPLY_HEALTHY] = METRICS_HEALTHY,
	[REPLY_BAD_REQUEST] = METRICS_BAD_REQUEST,
	[REPLY_UNAUTHORIZED] = METRICS_UNAUTHORIZED,
	[REPLY_NOT_FOUND] = METRICS_NOT_FOUND,
	[REPLY_METHOD_NOT_ALLOWED] = METRICS_METHOD_NOT_ALLOWED,
	[REPLY_TIMEOUT] = METRICS_TIMEOUT,
	[REPLY_TOO_LARGE] = METRICS_TOO_LARGE,
	[REPLY_UNAVAILABLE] = METRICS_UNAVAILABLE,
};

/* --- answers --- */

static void reply(struct httpd_request *r, enum reply_kind kind, const char *allow)
{
	metrics_count(counter_of[kind]);
	httpd_reply(r, &(struct httpd_answer) { .kind = kind, .allow = allow });
}

/* The kinds that a delivery can end with; the others never get as far as a source. */
static enum metrics_outcome outcome_of(enum reply_kind kind)
{
	switch (kind) {
	case REPLY_STORED:
		return METRICS_OUTCOME_STORED;
	case REPLY_DUPLICATE:
		return METRICS_OUTCOME_DUPLICATE;
	case REPLY_FILTERED:
		return METRICS_OUTCOME_FILTERED;
	case REPLY_QUARANTINED:
		return METRICS_OUTCOME_QUARANTINED;
	case REPLY_UNAUTHORIZED:
		return METRICS_OUTCOME_REJECTED;
	case REPLY_TOO_LARGE:
		return METRICS_OUTCOME_TOO_LARGE;
	case REPLY_UNAVAILABLE:
	case REPLY_HEALTHY:
	case REPLY_BAD_REQUEST:
	case REPLY_NOT_FOUND:
	case REPLY_METHOD_NOT_ALLOWED:
	case REPLY_TIMEOUT:
		break;
	}
	return METRICS_OUTCOME_UNAVAILABLE;
}

static void answer(struct hook_delivery *d, enum reply_kind kind)
{
	struct httpd_answer text = {
		.kind = kind,
		.event_id = d->judged->has_event ? d->judged->event.id : NULL,
		.reason = d->reason == INGEST_REASON_NONE ? NULL : ingest_reason_name(d->reason),
	};

	assert(d->request && !d->is_answered);
	d->answered = kind;
	d->is_answered = true;
	metrics_count(counter_of[kind]);
	metrics_count_delivery(d->metrics_source, outcome_of(kind), d->reason);
	httpd_reply(d->request, &text);
}

static void answer_unavailable(struct hook_delivery *d, enum metrics_counter why)
{
	d->why_unavailable = metrics_name(why);
	d->reason = INGEST_REASON_NONE;
	metrics_count(why);
	answer(d, REPLY_UNAVAILABLE);
}

/* --- deliveries that wait for their commit --- */

static struct hook_loop *loop_of(const struct hook_delivery *d)
{
	return &d->server->loops[httpd_loop_index(d->loop)];
}

static void leave_list(struct hook_delivery *d)
{
	struct hook_list *list = d->list;

	if (!list)
		return;
	d->list = NULL;
	*(d->prev ? &d->prev->next : &list->oldest) = d->next;
	*(d->next ? &d->next->prev : &list->newest) = d->prev;
}

static void enter_list(struct hook_delivery *d, struct hook_list *list)
{
	leave_list(d);
	d->list = list;
	d->next = NULL;
	d->prev = list->newest;
	*(d->prev ? &d->prev->next : &list->oldest) = d;
	list->newest = d;
}

static void begin_waiting(struct hook_delivery *d)
{
	d->lent_since_ms = httpd_loop_now_ms(d->loop);
	enter_list(d, &loop_of(d)->waiting);
}

/* --- memory for bodies --- */

static bool is_memory_short(const struct hook_server *s)
{
	return atomic_load(&s->body_memory) >= (size_t)HOOK_SERVER_BODY_MEMORY;
}

/* Who has been sending longest gives way: an honest body comes within moments, and strangers that
 * hold all memory with theirs must not keep it out. False: nobody of this loop had any. */
static bool make_room(struct hook_delivery *d)
{
	struct hook_delivery *next, *other = loop_of(d)->receiving.oldest;

	for (; other && is_memory_short(d->server); other = next) {
		next = other->next;
		if (other == d || other->charged == 0)
			continue;
		leave_list(other);
		hook_delivery_drop_body(other);
		answer_unavailable(other, METRICS_BODY_MEMORY_FULL);
	}
	return !is_memory_short(d->server);
}

static void on_tick(void *ctx, struct httpd_loop *httpd_loop)
{
	struct hook_server *s = ctx;
	struct hook_loop *loop = &s->loops[httpd_loop_index(httpd_loop)];
	int64_t limit = httpd_loop_now_ms(httpd_loop) - s->first_config->store.commit_timeout_ms;

	/* The writer may store it yet: the sender's next attempt is then a duplicate. */
	while (loop->waiting.oldest && loop->waiting.oldest->lent_since_ms <= limit) {
		struct hook_delivery *d = loop->waiting.oldest;

		leave_list(d);
		answer_unavailable(d, METRICS_COMMIT_TIMEOUT);
	}
}

/* --- the writer --- */

static enum reply_kind kind_of(const struct writer_job *job)
{
	if (job->status != 0)
		return REPLY_UNAVAILABLE;
	switch (job->outcome) {
	case STORAGE_STORED:
		return REPLY_STORED;
	case STORAGE_DUPLICATE:
		return REPLY_DUPLICATE;
	case STORAGE_QUARANTINED:
		return REPLY_QUARANTINED;
	case STORAGE_FILTERED:
		return REPLY_FILTERED;
	case STORAGE_REJECTED:
		return REPLY_UNAUTHORIZED;
	case STORAGE_QUARANTINE_FULL:
		return REPLY_UNAVAILABLE;
	}
	return REPLY_UNAVAILABLE;
}

static void answer_outcome(struct hook_delivery *d)
{
	enum reply_kind kind = kind_of(&d->job);

	d->reason = kind == REPLY_QUARANTINED ? d->job.reason : INGEST_REASON_NONE;
	if (kind == REPLY_UNAVAILABLE)
		answer_unavailable(d, d->job.status == 0 ? METRICS_QUARANTINE_FULL
							 : METRICS_STORE_FAILED);
	else
		answer(d, kind);
}

/* Also where the sender did not wait for it: what is new in the store is counted once. */
static void count_event(const struct hook_delivery *d)
{
	if (d->job.status == 0 && d->job.outcome == STORAGE_STORED && d->judged->has_event)
		metrics_count_event(d->metrics_source, &d->judged->event, d->received_unix_ms);
}

/* On the loop's thread: the writer has given the job back. */
static void come_back(struct httpd_post *post)
{
	struct hook_delivery *d =
		(struct hook_delivery *)(void *)((char *)post -
						 offsetof(struct hook_delivery, post));

	d->lent = false;
	atomic_fetch_sub(d->job.durable ? &d->server->n_waiting : &d->server->n_rejections, 1);
	count_event(d);
	if (d->list) {
		leave_list(d);
		answer_outcome(d);
	}
	hook_delivery_release(d);
}

/* On a thread of the writer's. */
static void job_done(struct writer_job *job)
{
	struct hook_delivery *d =
		(struct hook_delivery *)(void *)((char *)job - offsetof(struct hook_delivery, job));

	d->post.run = come_back;
	httpd_post(d->loop, &d->post);
}

static void wake_loop(void *ctx)
{
	httpd_wake(ctx);
}

static int lend(struct hook_delivery *d)
{
	struct hook_server *s = d->server;
	atomic_size_t *count;
	int r;

	hook_delivery_fill_job(d);
	d->job.done = job_done;
	/* Nobody waits for what is not durable: it comes back with the loop's next round. */
	d->job.waker = d->job.durable ? &loop_of(d)->waker : NULL;
	count = d->job.durable ? &s->n_waiting : &s->n_rejections;
	d->lent = true;
	atomic_fetch_add(count, 1);
	r = s->sink.submit(s->sink.ctx, &d->job);
	if (r != 0) {
		d->lent = false;
		atomic_fetch_sub(count, 1);
	}
	return r;
}

/* Suspended before it is lent: a resume of what is not suspended yet is undefined. */
static void lend_and_wait(struct hook_delivery *d)
{
	int r;

	httpd_suspend(d->request);
	begin_waiting(d);
	r = lend(d);
	if (r == 0)
		return;
	leave_list(d);
	answer_unavailable(d, r == -EAGAIN ? METRICS_QUEUE_FULL : METRICS_STOPPING);
}

static void reject(struct hook_delivery *d, enum reply_kind kind)
{
	size_t max = base_min_size(REJECTIONS_WAITING_MAX,
				   (size_t)d->server->first_config->store.queue_limit / 4 + 1);

	if (atomic_load(&d->server->n_rejections) >= max || lend(d) != 0)
		metrics_count(METRICS_REJECTION_DROPPED);
	answer(d, kind);
}

/* --- requests --- */

static struct config *current_config(struct hook_server *s)
{
	struct config *config;

	(void)pthread_mutex_lock(&s->config_lock);
	config = config_ref(s->config);
	(void)pthread_mutex_unlock(&s->config_lock);
	return config;
}

/* Headers whose repetition could make a proxy and us read different signatures. */
static size_t once_only(const struct config_source *source, const char *names[SCREEN_ONCE_MAX])
{
	if (!source)
		return 0;
	switch (source->scheme) {
	case SIGNATURE_E2B:
		names[0] = signature_default_header(SIGNATURE_E2B);
		return 1;
	case SIGNATURE_HMAC_SHA256:
		names[0] = source->header;
		return 1;
	case SIGNATURE_STANDARD_WEBHOOKS:
		names[0] = "webhook-signature";
		names[1] = "webhook-id";
		names[2] = "webhook-timestamp";
		return 3;
	}
	return 0;
}

/* True: answered; it is not for a source. */
static bool answered_by_route(struct httpd_request *r, const struct config_source *source)
{
	const char *method = httpd_method(r);

	if (strcmp(httpd_path(r), HEALTH_PATH) == 0) {
		if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0)
			reply(r, REPLY_HEALTHY, NULL);
		else
			reply(r, REPLY_METHOD_NOT_ALLOWED, "GET, HEAD");
		return true;
	}
	if (!source)
		reply(r, REPLY_NOT_FOUND, NULL);
	else if (strcmp(method, "POST") != 0)
		reply(r, REPLY_METHOD_NOT_ALLOWED, "POST");
	else
		return false;
	return true;
}

/* What can be refused before the body comes. */
static void refuse_early(struct hook_server *s, struct hook_delivery *d)
{
	int64_t declared = httpd_framing(d->request)->length;

	if (declared > d->source->max_body) {
		hook_delivery_judge_too_large(d, declared);
		reject(d, REPLY_TOO_LARGE);
	} else if (atomic_load(&s->n_waiting) >= (size_t)s->first_config->store.queue_limit) {
		answer_unavailable(d, METRICS_QUEUE_FULL);
	} else if (is_memory_short(s) && !make_room(d)) {
		answer_unavailable(d, METRICS_BODY_MEMORY_FULL);
	} else {
		enter_list(d, &loop_of(d)->receiving);
	}
}

static void on_begin(void *ctx, struct httpd_request *r)
{
	struct hook_server *s = ctx;
	struct config *config = current_config(s);
	const struct config_source *source = config_source_by_path(config, httpd_path(r));
	const char *once[SCREEN_ONCE_MAX];
	struct hook_delivery *d;

	if (!httpd_screen(r, once, once_only(source, once)) || answered_by_route(r, source)) {
		config_unref(config);
		return;
	}
	d = hook_delivery_new(s, r, config, source);
	if (!d) {
		metrics_count(METRICS_OUT_OF_MEMORY);
		reply(r, REPLY_UNAVAILABLE, NULL);
		return;
	}
	httpd_set_data(r, d);
	refuse_early(s, d);
}

static void on_body(void *ctx, struct httpd_request *r, const char *bytes, size_t len)
{
	struct hook_delivery *d = httpd_data(r);
	int error = hook_delivery_append(d, bytes, len);

	(void)ctx;
	if (error == 0 || (error == -ENOBUFS && make_room(d)))
		return;
	leave_list(d);
	if (error == -EMSGSIZE) {
		hook_delivery_judge_too_large(d, d->body_len);
		reject(d, REPLY_TOO_LARGE);
		return;
	}
	hook_delivery_drop_body(d);
	answer_unavailable(d, error == -ENOBUFS ? METRICS_BODY_MEMORY_FULL : METRICS_OUT_OF_MEMORY);
}

static void on_complete(void *ctx, struct httpd_request *r)
{
	struct hook_delivery *d = httpd_data(r);

	(void)ctx;
	leave_list(d);
	if (hook_delivery_judge(d) != 0) {
		answer_unavailable(d, METRICS_JUDGING_FAILED);
		return;
	}
	switch (d->judged->verdict) {
	case INGEST_STORE:
	case INGEST_QUARANTINE:
		lend_and_wait(d);
		break;
	case INGEST_FILTERED:
		if (lend(d) != 0)
			metrics_count(METRICS_FILTERED_UNCOUNTED);
		answer(d, REPLY_FILTERED);
		break;
	case INGEST_REJECT:
		reject(d, REPLY_UNAUTHORIZED);
		break;
	}
}

static void on_finish(void *ctx, struct httpd_request *r, bool answered)
{
	struct hook_delivery *d = httpd_data(r);

	(void)ctx;
	if (!answered)
		metrics_count(METRICS_ABORTED);
	hook_delivery_log(d, answered);
	d->request = NULL;
	leave_list(d);
	hook_delivery_release(d);
}

/* --- the server --- */

static int sink_submit(void *ctx, struct writer_job *job)
{
	return writer_submit(ctx, job);
}

static void sink_count_secret(void *ctx, const char *source, unsigned int position,
			      const char *fingerprint, int64_t now_unix_ms)
{
	writer_count_secret(ctx, source, position, fingerprint, now_unix_ms);
}

static int64_t sink_horizon(void *ctx)
{
	return writer_horizon(ctx);
}

struct hook_server_sink hook_server_sink_of(struct writer *w)
{
	return (struct hook_server_sink) { sink_submit, sink_count_secret, sink_horizon, w };
}

/* Ids of requests need to differ, not to be secret: without randomness the clock will do. */
static void name_run(struct hook_server *s)
{
	uint32_t number;

	if (signature_random(&number, sizeof(number)) != 0)
		number = (uint32_t)clock_unix_ms();
	(void)snprintf(s->run_id, sizeof(s->run_id), "%08" PRIx32, number);
}

static void name_sources(const struct config *config)
{
	for (size_t i = 0; i < config->n_sources; i++)
		(void)metrics_source(config->sources[i].name);
}

int hook_server_new(const struct hook_server_options *options, struct listen_set *sockets,
		    struct hook_server **ret)
{
	struct hook_server *s = calloc(1, sizeof(*s));
	struct httpd_options httpd = {
		.config = &options->config->server,
		.n_loops = options->n_loops,
		.handler = { on_begin, on_body, on_complete, on_finish, on_tick, s },
	};
	struct httpd_loop *loop;
	int r;

	if (!s)
		return -ENOMEM;
	s->sink = options->sink;
	name_run(s);
	s->first_config = config_ref(options->config);
	s->config = config_ref(options->config);
	(void)pthread_mutex_init(&s->config_lock, NULL);
	name_sources(options->config);
	r = httpd_new(&httpd, sockets, &s->httpd);
	if (r != 0) {
		hook_server_free(s);
		return r;
	}
	for (size_t i = 0; (loop = httpd_loop_at(s->httpd, i)); i++)
		s->loops[i].waker = (struct writer_waker) { .wake = wake_loop, .ctx = loop };
	*ret = s;
	return 0;
}

int hook_server_start(struct hook_server *s)
{
	return httpd_start(s->httpd);
}

void hook_server_set_config(struct hook_server *s, struct config *config)
{
	struct config *old;

	name_sources(config);
	(void)pthread_mutex_lock(&s->config_lock);
	old = s->config;
	s->config = config_ref(config);
	(void)pthread_mutex_unlock(&s->config_lock);
	config_unref(old);
}

void hook_server_drain(struct hook_server *s)
{
	httpd_drain(s->httpd);
}

size_t hook_server_connections(const struct hook_server *s)
{
	return httpd_connections(s->httpd);
}

size_t hook_server_body_memory(const struct hook_server *s)
{
	return atomic_load(&s->body_memory);
}

size_t hook_server_waiting(const struct hook_server *s)
{
	return atomic_load(&s->n_waiting);
}

int64_t hook_server_stalled_ms(const struct hook_server *s)
{
	return httpd_stalled_ms(s->httpd);
}

void hook_server_stop(struct hook_server *s)
{
	httpd_stop(s->httpd);
}

void hook_server_free(struct hook_server *s)
{
	if (!s)
		return;
	httpd_free(s->httpd);
	config_unref(s->config);
	config_unref(s->first_config);
	(void)pthread_mutex_destroy(&s->config_lock);
	free(s);
}
