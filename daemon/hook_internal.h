/* What hook_server.c (routes, answers, the writer) and hook_delivery.c (one delivery's memory and
 * content) share.
 */
#pragma once

#include "buffer.h"
#include "hook_server.h"
#include "httpd.h"
#include "ingest.h"
#include "metrics.h"

#include <pthread.h>
#include <stdatomic.h>

#define HOOK_REQUEST_ID_MAX 40

struct hook_delivery {
	struct hook_server *server;
	struct httpd_loop *loop;
	struct httpd_request *request; /* NULL: finished */
	bool lent; /* the writer has `job` */
	struct config *config; /* of the moment the request began; a reference */
	const struct config_source *source;
	char remote[PEER_TEXT_MAX];
	char *texts; /* backs the spans: the request's headers go before the job does */
	struct span signature, signature_id, signature_timestamp, webhook_id, delivery_id;
	struct buffer body;
	bool is_dropped; /* the body was not worth keeping */
	size_t charged; /* of the body memory */
	int64_t body_len; /* received, or declared when refused for it */
	int64_t received_unix_ms;
	struct ingest_result *judged; /* a reference: the fold may keep one, too */
	enum reply_kind answered;
	bool is_answered;
	enum ingest_reason reason; /* of the answer: the store may have another than the verdict */
	const char *why_unavailable; /* the name of a counter */
	size_t metrics_source;
	uint64_t request_number; /* its number: with run_id the request id of its log lines */

	struct writer_job job;
	struct httpd_post post; /* brings it back from the writer */
	struct hook_delivery *prev, *next; /* in `list` */
	struct hook_list *list; /* of its loop: what it waits for; NULL: nothing */
	int64_t lent_since_ms;
};

struct hook_list {
	struct hook_delivery *oldest, *newest;
};

struct hook_loop {
	struct writer_waker waker;
	struct hook_list receiving; /* their bodies are not complete */
	struct hook_list waiting; /* for their commit */
};

struct hook_server {
	struct httpd *httpd;
	struct hook_server_sink sink;
	struct config *first_config; /* limits and timeouts, which no reload changes */
	pthread_mutex_t config_lock; /* guards the pointer `config` */
	struct config *config;
	atomic_size_t body_memory; /* charged by all deliveries */
	atomic_size_t n_waiting; /* lent, durable */
	atomic_size_t n_rejections; /* lent, not durable */
	char run_id[9]; /* of this process, with which its request ids begin */
	atomic_uint_fast64_t n_requests;
	struct hook_loop loops[HTTPD_LOOPS_MAX];
};

/* A delivery of a request that passed the screen: takes what it needs of the headers. NULL: out of
 * memory. Takes over the reference to `config`. Only in httpd's begin. */
struct hook_delivery *hook_delivery_new(struct hook_server *server, struct httpd_request *r,
					struct config *config, const struct config_source *source);
/* Frees it when neither the request nor the writer holds it any more. */
void hook_delivery_release(struct hook_delivery *d);
/* Lets go of its body and the memory that is charged for it. */
void hook_delivery_drop_body(struct hook_delivery *d);

/* 0; -EMSGSIZE: over max_body; -ENOBUFS: over the memory for all bodies; -ENOMEM. */
MUST_CHECK int hook_delivery_append(struct hook_delivery *d, const char *bytes, size_t len);
/* Judges the complete body; a negative errno is answered 503. */
MUST_CHECK int hook_delivery_judge(struct hook_delivery *d);
/* A verdict of the server's own: too large. */
void hook_delivery_judge_too_large(struct hook_delivery *d, int64_t body_len);
/* Fills the job for the writer, all lent from `d`. */
void hook_delivery_fill_job(struct hook_delivery *d);
/* One line about what became of it. */
void hook_delivery_log(const struct hook_delivery *d, bool answered);
