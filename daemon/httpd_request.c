#include "httpd_internal.h"

#include "log.h"

#include <string.h>

/* From libmicrohttpd's one handler callback to begin, body, complete, finish.
 *
 * Its rules as measured in 0.9.75: a response queued in the first call closes the connection, so
 * answers to requests without a body wait for the last call; in mid-upload nothing can be queued;
 * the last call may come more than once; a response is queued only from within the callback, so a
 * resumed request is answered when it comes by again.
 */

static struct log_limit framing_log = { .burst = 5 };

/* --- what a handler asks --- */

const char *httpd_method(const struct httpd_request *r)
{
	return r->method;
}

const char *httpd_path(const struct httpd_request *r)
{
	return r->path;
}

const struct screen_framing *httpd_framing(const struct httpd_request *r)
{
	return &r->framing;
}

const struct peer *httpd_peer(const struct httpd_request *r)
{
	return &r->conn->peer;
}

struct httpd_loop *httpd_loop_of(const struct httpd_request *r)
{
	return r->conn->loop;
}

void httpd_set_data(struct httpd_request *r, void *data)
{
	r->data = data;
}

void *httpd_data(const struct httpd_request *r)
{
	return r->data;
}

struct span httpd_header(const struct httpd_request *r, const char *name)
{
	struct span value = SPAN_ABSENT;

	if (MHD_lookup_connection_value_n(r->conn->mhd, MHD_HEADER_KIND, name, strlen(name),
					  &value.s, &value.len) == MHD_NO)
		return SPAN_ABSENT;
	return value;
}

size_t httpd_header_values(const struct httpd_request *r, const char *lower_case,
			   struct span *values, size_t max)
{
	const struct httpd_loop *loop = r->conn->loop;
	size_t n = 0;

	assert(r->stage == HTTPD_AT_BEGIN);
	for (size_t i = 0; i < loop->n_headers && n < max; i++) {
		if (screen_name_is(loop->headers[i].name, lower_case))
			values[n++] = loop->headers[i].value;
	}
	return n;
}

/* --- answers --- */

/* Where libmicrohttpd still expects a body and would not take a response: written by hand. Not
 * where the sender waits for `100 Continue`; there it has not begun to upload. */
static bool must_be_refused_by_hand(const struct httpd_request *r)
{
	if (r->stage == HTTPD_AT_BODY)
		return true;
	return r->stage == HTTPD_AT_BEGIN && r->framing.has_body && !r->framing.expects_continue;
}

static void take_response(struct httpd_request *r, unsigned int status, const char *content_type,
			  const char *body, size_t len)
{
	r->replied = true;
	r->status = status;
	r->response = MHD_create_response_from_buffer(len, (void *)body, MHD_RESPMEM_MUST_COPY);
	if (r->response)
		(void)MHD_add_response_header(r->response, MHD_HTTP_HEADER_CONTENT_TYPE,
					      content_type);
}

static void resume(struct httpd_request *r)
{
	r->stage = HTTPD_AT_COMPLETE;
	r->resuming = true;
	MHD_resume_connection(r->conn->mhd);
	/* MHD_get_timeout does not know of resumed connections. */
	r->conn->loop->hurry = true;
}

void httpd_send(struct httpd_request *r, const struct httpd_content *content)
{
	assert(r->stage == HTTPD_AT_COMPLETE || r->stage == HTTPD_SUSPENDED);
	if (r->replied || r->refused)
		return;
	take_response(r, content->status, content->type, content->body, content->len);
	for (size_t i = 0; r->response && i < ARRAY_SIZE(content->headers); i++) {
		if (content->headers[i].name)
			(void)MHD_add_response_header(r->response, content->headers[i].name,
						      content->headers[i].value);
	}
	if (r->stage == HTTPD_SUSPENDED)
		resume(r);
}

void httpd_reply(struct httpd_request *r, const struct httpd_answer *answer)
{
	char body[REPLY_BODY_MAX];
	size_t len;

	if (r->replied || r->refused)
		return;
	if (must_be_refused_by_hand(r)) {
		httpd_deadline_refuse(r->conn, answer->kind, answer->allow);
		return;
	}
	len = reply_body(answer->kind, answer->event_id, answer->reason, body);
	take_response(r, reply_status(answer->kind), reply_content_type(answer->kind), body, len);
	if (r->response && answer->allow)
		(void)MHD_add_response_header(r->response, MHD_HTTP_HEADER_ALLOW, answer->allow);
	if (r->response && reply_says_retry_after(answer->kind))
		(void)MHD_add_response_header(r->response, MHD_HTTP_HEADER_RETRY_AFTER,
					      REPLY_RETRY_AFTER);
	r->close = answer->close;
	if (r->stage == HTTPD_SUSPENDED)
		resume(r);
}

void httpd_suspend(struct httpd_request *r)
{
	assert(r->stage == HTTPD_AT_COMPLETE);
	r->stage = HTTPD_SUSPENDED;
	MHD_suspend_connection(r->conn->mhd);
}

static enum MHD_Result queue(struct httpd_request *r)
{
	enum MHD_Result result;

	if (r->queued)
		return MHD_YES;
	if (!r->response)
		return MHD_NO;
	if (r->close || r->conn->loop->draining)
		(void)MHD_add_response_header(r->response, MHD_HTTP_HEADER_CONNECTION, "close");
	result = MHD_queue_response(r->conn->mhd, r->status, r->response);
	r->queued = result == MHD_YES;
	return result;
}

/* --- the screen --- */

static enum MHD_Result collect(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_len,
			       const char *value, size_t value_len)
{
	struct httpd_loop *loop = cls;

	(void)kind;
	loop->headers[loop->n_headers++] = (struct screen_header) {
		{ key, key_len },
		{ value, value ? value_len : 0 },
	};
	return loop->n_headers <= SCREEN_HEADERS_MAX ? MHD_YES : MHD_NO;
}

static void tell_of_framing(const struct httpd_request *r, int outcome)
{
	char peer[PEER_TEXT_MAX];
	unsigned int held_back = 0;

	if (!log_limit_allows(&framing_log, &held_back))
		return;
	log_line(LOG_LEVEL_NOTICE, "request refused",
		 LOG_TEXT("reason", screen_outcome_name((enum screen_outcome)outcome)),
		 LOG_TEXT("peer", peer_format(&r->conn->peer, peer)),
		 LOG_NUM("held_back", held_back));
}

bool httpd_screen(struct httpd_request *r, const char *const *once, size_t n_once)
{
	struct httpd_loop *loop = r->conn->loop;
	struct screen_request request = {
		.method = r->method,
		.version = r->version,
		.headers = loop->headers,
		.n_headers = loop->n_headers,
	};
	int outcome;

	assert(n_once <= SCREEN_ONCE_MAX);
	for (size_t i = 0; i < n_once; i++)
		request.once[i] = once[i];
	r->screened = true;
	outcome = screen_headers(&request, &r->framing);
	if (outcome == 0 && r->conn->bad_target)
		outcome = SCREEN_BAD_TARGET;
	if (outcome == 0)
		return true;
	httpd_count(loop->server, METRICS_BAD_FRAMING);
	httpd_count(loop->server, METRICS_BAD_REQUEST);
	tell_of_framing(r, outcome);
	/* Where the body ends is what is in doubt: nothing behind the headers may be believed. */
	httpd_deadline_refuse(r->conn, REPLY_BAD_REQUEST, NULL);
	return false;
}

/* --- libmicrohttpd's callbacks --- */

static struct httpd_conn *conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

void *httpd_request_line_seen(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct httpd_conn *conn = conn_of(mhd);

	(void)cls;
	if (conn)
		conn->bad_target = !screen_target(uri);
	if (conn && conn->phase == HTTPD_IDLE) {
		conn->request_since_ms = conn->loop->now_ms;
		httpd_conn_enter(conn, HTTPD_HEADERS);
	}
	return NULL;
}

/* Under an unknown transfer coding libmicrohttpd reads on without end, and its own assertions fail:
 * nothing to linger for. */
static bool has_unknown_coding(const struct httpd_request *r)
{
	struct span coding = httpd_header(r, MHD_HTTP_HEADER_TRANSFER_ENCODING);

	return coding.s && !screen_name_is(coding, "chunked");
}

static enum MHD_Result begin(struct httpd_conn *conn, const char *url, const char *method,
			     const char *version, void **request_ctx)
{
	const struct httpd_handler *handler = &conn->loop->server->handler;
	struct httpd_request *r = &conn->request;

	*r = (struct httpd_request) {
		.conn = conn,
		.active = true,
		.method = method,
		.path = url,
		.version = version,
	};
	*request_ctx = r;
	conn->loop->n_headers = 0;
	(void)MHD_get_connection_values_n(conn->mhd, MHD_HEADER_KIND, collect, conn->loop);
	httpd_conn_enter(conn, HTTPD_BODY);
	handler->begin(handler->ctx, r);
	assert(r->screened);
	if (r->refused && has_unknown_coding(r))
		return MHD_NO;
	if (r->replied && r->framing.has_body)
		return queue(r);
	return MHD_YES;
}

static enum MHD_Result complete(struct httpd_request *r)
{
	const struct httpd_handler *handler = &r->conn->loop->server->handler;

	r->resuming = false;
	if (!r->completed && !r->replied) {
		httpd_conn_enter(r->conn, HTTPD_ANSWERING);
		r->completed = true;
		r->stage = HTTPD_AT_COMPLETE;
		handler->complete(handler->ctx, r);
	}
	/* Also when the reply came before the suspension took hold: then it is queued on the way
	 * back. */
	if (r->stage == HTTPD_SUSPENDED || r->resuming)
		return MHD_YES;
	httpd_conn_enter(r->conn, HTTPD_ANSWERING);
	return queue(r);
}

enum MHD_Result httpd_request_handle(void *cls, struct MHD_Connection *mhd, const char *url,
				     const char *method, const char *version, const char *upload,
				     size_t *upload_size, void **request_ctx)
{
	struct httpd_conn *conn = conn_of(mhd);
	const struct httpd_handler *handler;
	struct httpd_request *r = *request_ctx;
	size_t len = *upload_size;

	(void)cls;
	if (!conn)
		return MHD_NO;
	if (!r) {
		if (conn->phase == HTTPD_LINGERING)
			return MHD_NO;
		return begin(conn, url, method, version, request_ctx);
	}
	if (len > 0) {
		*upload_size = 0;
		if (!r->refused && !r->replied) {
			handler = &conn->loop->server->handler;
			r->stage = HTTPD_AT_BODY;
			handler->body(handler->ctx, r, upload, len);
		}
		return MHD_YES;
	}
	return r->refused ? MHD_NO : complete(r);
}

void httpd_request_completed(void *cls, struct MHD_Connection *mhd, void **request_ctx,
			     enum MHD_RequestTerminationCode code)
{
	struct httpd_request *r = *request_ctx;
	struct httpd_conn *conn = conn_of(mhd);

	(void)cls;
	if (r && r->active) {
		const struct httpd_handler *handler = &r->conn->loop->server->handler;

		if (r->data)
			handler->finish(
				handler->ctx, r,
				r->refused ||
					(r->queued && code == MHD_REQUEST_TERMINATED_COMPLETED_OK));
		if (r->response)
			MHD_destroy_response(r->response);
		r->response = NULL;
		r->active = false;
	}
	*request_ctx = NULL;
	if (conn && conn->phase != HTTPD_LINGERING) {
		conn->bytes_seen = UINT64_MAX;
		conn->look_at_ms = conn->loop->now_ms;
		httpd_conn_enter(conn, HTTPD_IDLE);
	}
}
