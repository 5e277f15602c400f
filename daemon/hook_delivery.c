#include "hook_internal.h"

#include "clock.h"
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* One delivery: its copy of the headers that matter, its body within limits, its verdict, its log
 * line. Ids and addresses come from unsigned headers: kept for people to read, if printable, and
 * never believed.
 */

#define UNSIGNED_ID_MAX 128
#define FORWARDED_MAX 16

static struct log_limit rejected_log = { .burst = 10 };
static struct log_limit unavailable_log = { .burst = 10 };

/* --- headers --- */

static struct span printable(struct span value)
{
	if (!value.s || value.len == 0 || value.len > UNSIGNED_ID_MAX)
		return SPAN_ABSENT;
	for (size_t i = 0; i < value.len; i++) {
		if (value.s[i] < ' ' || value.s[i] > '~')
			return SPAN_ABSENT;
	}
	return value;
}

static void find_texts(struct hook_delivery *d, const struct httpd_request *r)
{
	d->webhook_id = printable(httpd_header(r, "e2b-webhook-id"));
	d->delivery_id = printable(httpd_header(r, "e2b-delivery-id"));
	switch (d->source->scheme) {
	case SIGNATURE_E2B:
		d->signature = httpd_header(r, signature_default_header(SIGNATURE_E2B));
		break;
	case SIGNATURE_HMAC_SHA256:
		d->signature = httpd_header(r, d->source->header);
		break;
	case SIGNATURE_STANDARD_WEBHOOKS:
		d->signature = httpd_header(r, "webhook-signature");
		d->signature_id = httpd_header(r, "webhook-id");
		d->signature_timestamp = httpd_header(r, "webhook-timestamp");
		if (!d->delivery_id.s)
			d->delivery_id = printable(d->signature_id);
		break;
	}
}

/* The spans point into the connection's memory, which the request takes with it. */
static int keep_texts(struct hook_delivery *d)
{
	struct span *const spans[] = { &d->signature, &d->signature_id, &d->signature_timestamp,
				       &d->webhook_id, &d->delivery_id };
	size_t size = 1;
	char *at;

	for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
		size += spans[i]->len + 1;
	at = d->texts = malloc(size);
	if (!at)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(spans); i++) {
		struct span *span = spans[i];

		if (!span->s)
			continue;
		memcpy(at, span->s, span->len);
		at[span->len] = 0;
		span->s = at;
		at += span->len + 1;
	}
	return 0;
}

static void find_sender(struct hook_delivery *d, const struct httpd_request *r)
{
	struct span values[FORWARDED_MAX];
	size_t n = httpd_header_values(r, "x-forwarded-for", values, FORWARDED_MAX);
	struct peer sender = peer_sender(httpd_peer(r), &d->config->server, values, n);

	(void)peer_format(&sender, d->remote);
}

/* --- lifecycle --- */

struct hook_delivery *hook_delivery_new(struct hook_server *server, struct httpd_request *r,
					struct config *config, const struct config_source *source)
{
	struct hook_delivery *d = calloc(1, sizeof(*d));

	if (!d) {
		config_unref(config);
		return NULL;
	}
	d->judged = ingest_result_new();
	d->server = server;
	d->loop = httpd_loop_of(r);
	d->config = config;
	d->source = source;
	d->received_unix_ms = clock_unix_ms();
	d->metrics_source = metrics_source(source->name);
	d->request_number =
		atomic_fetch_add_explicit(&server->n_requests, 1, memory_order_relaxed) + 1;
	buffer_init(&d->body, (size_t)source->max_body);
	find_texts(d, r);
	find_sender(d, r);
	if (!d->judged || keep_texts(d) != 0) {
		hook_delivery_release(d);
		return NULL;
	}
	d->request = r;
	return d;
}

void hook_delivery_drop_body(struct hook_delivery *d)
{
	d->is_dropped = true;
	buffer_finish(&d->body);
	atomic_fetch_sub(&d->server->body_memory, d->charged);
	d->charged = 0;
}

void hook_delivery_release(struct hook_delivery *d)
{
	if (d->request || d->lent)
		return;
	hook_delivery_drop_body(d);
	ingest_result_unref(d->judged);
	config_unref(d->config);
	free(d->texts);
	free(d);
}

/* --- body --- */

int hook_delivery_append(struct hook_delivery *d, const char *bytes, size_t len)
{
	size_t grown, in_all;
	int r;

	d->body_len += (int64_t)len;
	if (d->body_len > d->source->max_body)
		return -EMSGSIZE;
	r = buffer_append(&d->body, bytes, len);
	if (r != 0)
		return r;
	/* By what is really taken, as it grows: a declared length costs a sender nothing. */
	grown = d->body.size - d->charged;
	if (grown == 0)
		return 0;
	in_all = atomic_fetch_add(&d->server->body_memory, grown) + grown;
	d->charged += grown;
	return in_all > (size_t)HOOK_SERVER_BODY_MEMORY ? -ENOBUFS : 0;
}

int hook_delivery_judge(struct hook_delivery *d)
{
	struct ingest_delivery delivery = {
		.signed_part = {
			.signature = d->signature,
			.id = d->signature_id,
			.timestamp = d->signature_timestamp,
			.body = { d->body.data ? d->body.data : "", d->body.len },
		},
	};
	int64_t horizon = d->server->sink.horizon(d->server->sink.ctx);
	char fingerprint[9];
	int r;

	d->received_unix_ms = clock_unix_ms();
	delivery.received_unix_ms = d->received_unix_ms;
	delivery.signed_part.now_unix_s = d->received_unix_ms / 1000;
	r = ingest_judge(d->judged, &d->source->policy, &d->config->lookup, &delivery, horizon);
	if (r != 0)
		return r;
	d->reason = d->judged->reason;
	if (d->judged->verified) {
		signature_keyring_fingerprint(d->source->policy.keyring, d->judged->match.position,
					      fingerprint);
		d->server->sink.count_secret(d->server->sink.ctx, d->source->name,
					     d->judged->match.position, fingerprint,
					     d->received_unix_ms);
	}
	/* What is only counted needs no body any more. */
	if (d->judged->verdict == INGEST_FILTERED || d->reason == INGEST_REASON_SIGNATURE_MISSING ||
	    d->reason == INGEST_REASON_SIGNATURE_MALFORMED)
		hook_delivery_drop_body(d);
	return 0;
}

void hook_delivery_judge_too_large(struct hook_delivery *d, int64_t body_len)
{
	hook_delivery_drop_body(d);
	d->body_len = body_len;
	d->judged->verdict = INGEST_REJECT;
	d->judged->reason = INGEST_REASON_BODY_TOO_LARGE;
	d->reason = d->judged->reason;
}

void hook_delivery_fill_job(struct hook_delivery *d)
{
	/* An empty body is a body; an absent one was not kept. */
	struct span empty = d->is_dropped ? SPAN_ABSENT : SPAN_LITERAL("");
	struct span body = d->body.data ? (struct span) { d->body.data, d->body.len } : empty;

	d->job = (struct writer_job) {
		.delivery = {
			.source = d->source->name,
			.webhook_id = d->webhook_id,
			.delivery_id = d->delivery_id,
			.signature = d->signature,
			.signature_id = d->signature_id,
			.signature_timestamp = d->signature_timestamp,
			.remote_addr = d->remote,
			.received_unix_ms = d->received_unix_ms,
			.body = body,
			.body_len = d->body_len,
			.judged = d->judged,
		},
		.shared = d->judged,
		.durable = d->judged->verdict == INGEST_STORE ||
			   d->judged->verdict == INGEST_QUARANTINE,
	};
}

/* --- log --- */

static const char *text_of(struct span span, char *buf, size_t size)
{
	if (!span.s || span.len == 0)
		return NULL;
	(void)snprintf(buf, size, "%.*s", (int)base_min_size(span.len, size - 1), span.s);
	return buf;
}

static const char *request_id(const struct hook_delivery *d, char buf[static HOOK_REQUEST_ID_MAX])
{
	(void)snprintf(buf, HOOK_REQUEST_ID_MAX, "%s-%" PRIu64, d->server->run_id,
		       d->request_number);
	return buf;
}

/* Senders that nobody knows can provoke these lines. */
static void log_limited(const struct hook_delivery *d, struct log_limit *limit,
			enum log_level level, const char *message, const char *reason)
{
	unsigned int held_back = 0;
	char id[HOOK_REQUEST_ID_MAX];

	if (!log_limit_allows(limit, &held_back))
		return;
	log_line(level, message, LOG_TEXT("request", request_id(d, id)),
		 LOG_TEXT("source", d->source->name), LOG_TEXT("reason", reason),
		 LOG_TEXT("remote", d->remote), LOG_NUM("size", d->body_len),
		 LOG_NUM("held_back", held_back));
}

/* What is stored is in the store: a line for each would only cost time. */
static void log_event(const struct hook_delivery *d, bool answered)
{
	enum log_level level =
		d->answered == REPLY_QUARANTINED ? LOG_LEVEL_NOTICE : LOG_LEVEL_DEBUG;
	if (!log_level_is_on(level))
		return;
	const struct event *event = &d->judged->event;
	bool known = d->judged->has_event;
	char type[EVENT_TYPE_MAX + 1], template[EVENT_ID_MAX + 1], sandbox[EVENT_ID_MAX + 1];
	char id[HOOK_REQUEST_ID_MAX];

	log_line(level, reply_name(d->answered), LOG_TEXT("request", request_id(d, id)),
		 LOG_TEXT("source", d->source->name),
		 LOG_TEXT("event_id", known ? event->id : NULL),
		 LOG_TEXT("kind", known ? event_kind_name(event->kind) : NULL),
		 LOG_TEXT("type", known ? text_of(event->type, type, sizeof(type)) : NULL),
		 LOG_TEXT("sandbox",
			  known ? text_of(event->sandbox_id, sandbox, sizeof(sandbox)) : NULL),
		 LOG_TEXT("template",
			  known ? text_of(event->template_id, template, sizeof(template)) : NULL),
		 LOG_TEXT("reason",
			  d->reason == INGEST_REASON_NONE ? NULL : ingest_reason_name(d->reason)),
		 LOG_TEXT("detail", d->judged->detail[0] ? d->judged->detail : NULL),
		 LOG_TEXT("answered", answered ? NULL : "no"));
}

void hook_delivery_log(const struct hook_delivery *d, bool answered)
{
	if (!d->is_answered)
		return;
	switch (d->answered) {
	case REPLY_STORED:
	case REPLY_DUPLICATE:
	case REPLY_FILTERED:
	case REPLY_QUARANTINED:
		log_event(d, answered);
		break;
	case REPLY_UNAUTHORIZED:
	case REPLY_TOO_LARGE:
		log_limited(d, &rejected_log, LOG_LEVEL_NOTICE, "rejected",
			    ingest_reason_name(d->reason));
		break;
	case REPLY_UNAVAILABLE:
		log_limited(d, &unavailable_log, LOG_LEVEL_WARNING, "not stored, answered 503",
			    d->why_unavailable);
		break;
	case REPLY_HEALTHY:
	case REPLY_BAD_REQUEST:
	case REPLY_NOT_FOUND:
	case REPLY_METHOD_NOT_ALLOWED:
	case REPLY_TIMEOUT:
		break;
	}
}
