#include "reply.h"

#include <string.h>

/* One row per kind; every text a sender can see is here. A 401 tells nothing about its cause: who
 * guesses at signatures must not learn how near he came.
 */

#define MEMBER_MAX 128

enum body_form { FORM_OUTCOME, FORM_PROBLEM, FORM_TEXT };

struct row {
	unsigned int status;
	enum body_form form;
	const char *name;
	const char *title;
	const char *detail; /* of problems; the text itself under FORM_TEXT */
};

static const struct row rows[REPLY_N_KINDS] = {
	[REPLY_STORED] = { 200, FORM_OUTCOME, "stored", "OK", NULL },
	[REPLY_DUPLICATE] = { 200, FORM_OUTCOME, "duplicate", "OK", NULL },
	[REPLY_FILTERED] = { 200, FORM_OUTCOME, "filtered", "OK", NULL },
	[REPLY_QUARANTINED] = { 200, FORM_OUTCOME, "quarantined", "OK", NULL },
	[REPLY_HEALTHY] = { 200, FORM_TEXT, "healthy", "OK", "ok" },
	[REPLY_BAD_REQUEST] = { 400, FORM_PROBLEM, "bad_request", "Bad Request",
				"The framing or a header of the request is ambiguous or "
				"malformed." },
	[REPLY_UNAUTHORIZED] = { 401, FORM_PROBLEM, "unauthorized", "Unauthorized",
				 "The delivery carries no valid signature." },
	[REPLY_NOT_FOUND] = { 404, FORM_PROBLEM, "not_found", "Not Found",
			      "No source is configured under this path." },
	[REPLY_METHOD_NOT_ALLOWED] = { 405, FORM_PROBLEM, "method_not_allowed",
				       "Method Not Allowed",
				       "The Allow header names the methods of this path." },
	[REPLY_TIMEOUT] = { 408, FORM_PROBLEM, "timeout", "Request Timeout",
			    "The request was not complete in time." },
	[REPLY_TOO_LARGE] = { 413, FORM_PROBLEM, "too_large", "Content Too Large",
			      "The body is larger than this source accepts." },
	[REPLY_UNAVAILABLE] = { 503, FORM_PROBLEM, "unavailable", "Service Unavailable",
				"The delivery was not stored; send it again later." },
};

unsigned int reply_status(enum reply_kind kind)
{
	return rows[kind].status;
}

const char *reply_title(enum reply_kind kind)
{
	return rows[kind].title;
}

const char *reply_name(enum reply_kind kind)
{
	return rows[kind].name;
}

const char *reply_content_type(enum reply_kind kind)
{
	switch (rows[kind].form) {
	case FORM_OUTCOME:
		return "application/json";
	case FORM_PROBLEM:
		return "application/problem+json";
	case FORM_TEXT:
		return "text/plain; charset=utf-8";
	}
	return "text/plain";
}

bool reply_says_retry_after(enum reply_kind kind)
{
	return rows[kind].status == 503;
}

/* Ids and reasons are plain by their own rules; this only makes sure that no caller's mistake can
 * break out of the JSON string. */
static bool is_plain(const char *text)
{
	size_t len = 0;

	if (!text)
		return false;
	for (; text[len]; len++) {
		if (text[len] < ' ' || text[len] > '~' || text[len] == '"' || text[len] == '\\')
			return false;
	}
	return len > 0 && len <= MEMBER_MAX;
}

static size_t outcome_body(const struct row *row, const char *event_id, const char *reason,
			   char buf[static REPLY_BODY_MAX])
{
	bool has_id = is_plain(event_id), has_reason = is_plain(reason);
	int len = snprintf(buf, REPLY_BODY_MAX, "{\"status\":\"%s\"%s%s%s%s%s%s}\n", row->name,
			   has_id ? ",\"event_id\":\"" : "", has_id ? event_id : "",
			   has_id ? "\"" : "", has_reason ? ",\"reason\":\"" : "",
			   has_reason ? reason : "", has_reason ? "\"" : "");

	assert(len > 0 && len < REPLY_BODY_MAX);
	return (size_t)len;
}

size_t reply_body(enum reply_kind kind, const char *event_id, const char *reason,
		  char buf[static REPLY_BODY_MAX])
{
	const struct row *row = &rows[kind];
	int len = 0;

	switch (row->form) {
	case FORM_OUTCOME:
		return outcome_body(row, event_id, reason, buf);
	case FORM_PROBLEM:
		len = snprintf(buf, REPLY_BODY_MAX,
			       "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%u,"
			       "\"detail\":\"%s\"}\n",
			       row->title, row->status, row->detail);
		break;
	case FORM_TEXT:
		len = snprintf(buf, REPLY_BODY_MAX, "%s", row->detail);
		break;
	}
	assert(len > 0 && len < REPLY_BODY_MAX);
	return (size_t)len;
}

size_t reply_canned(enum reply_kind kind, const char *allow, char buf[static REPLY_CANNED_MAX])
{
	char body[REPLY_BODY_MAX];
	size_t body_len = reply_body(kind, NULL, NULL, body);
	int len = snprintf(buf, REPLY_CANNED_MAX,
			   "HTTP/1.1 %u %s\r\nConnection: close\r\n%s%s%s%sContent-Type: %s\r\n"
			   "Content-Length: %zu\r\n\r\n%s",
			   rows[kind].status, rows[kind].title, allow ? "Allow: " : "",
			   allow ? allow : "", allow ? "\r\n" : "",
			   reply_says_retry_after(kind) ? "Retry-After: " REPLY_RETRY_AFTER "\r\n"
							: "",
			   reply_content_type(kind), body_len, body);

	assert(len > 0 && len < REPLY_CANNED_MAX);
	return (size_t)len;
}
