/* A table of kinds: how each is rendered and sent, and one place that judges answers.
 *
 * Invariant: a reason holds the target's scheme and host, a status, our own words and, from Slack,
 * its one-word error code; never a path, a body or a signature.
 */
#include "alert_target.h"

#include "alert_payload.h"
#include "clock.h"
#include "command.h"
#include "http_client.h"
#include "signature.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#define EXIT_NEVER 65 /* EX_DATAERR: a command that will not take this one, ever */
#define CODE_MAX 48

struct delivery {
	const struct notify_target *target;
	const struct alert_message *message;
	const atomic_bool *stop;
	struct buffer body;
	struct notify_result *result;
};

static int64_t timeout_of(const struct notify_target *target)
{
	return target->timeout_ms > 0 ? target->timeout_ms : ALERT_TARGET_TIMEOUT_MS;
}

static void PRINTF_LIKE(3, 4)
	conclude(const struct delivery *d, enum notify_outcome outcome, const char *fmt, ...)
{
	va_list args;

	d->result->outcome = outcome;
	va_start(args, fmt);
	(void)vsnprintf(d->result->reason, sizeof(d->result->reason), fmt, args);
	va_end(args);
	/* What a program or a certificate says may hold anything; a log line is one line. */
	for (char *p = d->result->reason; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?';
}

/* ---- answers ---- */

static const struct {
	unsigned int status;
	const char *advice;
} advice[] = {
	{ 400, "it does not take this format: is it of this kind?" },
	{ 401, "it wants a credential: check its url" },
	{ 403, "it refuses us: check its url" },
	{ 404, "nothing there: check its url" },
	{ 405, "it takes no POST: check its url" },
	{ 410, "it is gone: make a new one" },
	{ 413, "too large for it" },
};

static const char *advice_for(unsigned int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
		if (advice[i].status == status)
			return advice[i].advice;
	if (status >= 300 && status < 400)
		return "redirects are not followed: give the final url";
	return "";
}

/* Slack answers an error with one word (`no_service`). "" if it is anything else. */
static const char *code_in(const struct delivery *d, const struct buffer *body,
			   char buf[static CODE_MAX])
{
	buf[0] = '\0';
	if (d->target->kind != NOTIFY_SLACK || body->len == 0 || body->len >= CODE_MAX)
		return buf;
	if (strspn(body->data, "abcdefghijklmnopqrstuvwxyz_") != body->len ||
	    strstr(d->target->url, body->data))
		return buf;
	memcpy(buf, body->data, body->len + 1);
	return buf;
}

/* It will never take this one, and might take the next. What else an answer says is wrong is wrong
 * with the target or on the way to it: somebody will put that right. */
static bool is_about_this_one(unsigned int status)
{
	return status == 400 || status == 413 || status == 422;
}

static void judge(const struct delivery *d, const struct http_client_answer *answer)
{
	char endpoint[HTTP_CLIENT_ENDPOINT_MAX], code[CODE_MAX];
	const char *hint = advice_for(answer->status);

	if (answer->status >= 200 && answer->status < 300) {
		d->result->outcome = NOTIFY_SENT;
		return;
	}
	if (http_client_endpoint(d->target->url, endpoint) != 0)
		endpoint[0] = '\0';
	if (code_in(d, &answer->body, code)[0])
		hint = code;
	bool temporary = !is_about_this_one(answer->status);
	conclude(d, temporary ? NOTIFY_TEMPORARY : NOTIFY_PERMANENT, "%.80s answered %u%s%s",
		 endpoint, answer->status, *hint ? ": " : "", hint);
	if (temporary)
		d->result->retry_after_ms = base_min_i64(answer->retry_after_s,
							 ALERT_TARGET_RETRY_AFTER_MAX_MS / 1000) *
					    1000;
}

static void post(const struct delivery *d, const char *url,
		 const struct http_client_header *headers, size_t n_headers)
{
	char error[HTTP_CLIENT_ERROR_MAX];
	struct http_client_answer answer;
	const struct http_client_request request = {
		.url = url,
		.headers = headers,
		.n_headers = n_headers,
		.body = { d->body.data, d->body.len },
		.timeout_ms = timeout_of(d->target),
		.stop = d->stop,
	};
	int r = http_client_post(&request, &answer, error);

	if (r == 0)
		judge(d, &answer);
	else
		conclude(d,
			 r == HTTP_CLIENT_BAD_URL || r == -EINVAL ? NOTIFY_PERMANENT
								  : NOTIFY_TEMPORARY,
			 "%s", error);
	buffer_finish(&answer.body);
}

/* ---- webhook ---- */

#define SIGNATURES_MAX (SIGNATURE_SECRETS_MAX * SIGNATURE_TEXT_MAX)

/* One signature a secret, blanks between: while a secret is rotated a receiver with either can
 * verify. */
static int sign(const struct delivery *d, const char *timestamp, struct buffer *ret)
{
	const struct signature_keyring *keyring = d->target->keyring;
	const struct signature_input input = {
		.id = { d->message->id, strlen(d->message->id) },
		.timestamp = { timestamp, strlen(timestamp) },
		.body = { d->body.data, d->body.len },
	};
	char text[SIGNATURE_TEXT_MAX];
	int r = 0;

	for (unsigned int i = 1; r == 0 && i <= signature_keyring_count(keyring); i++) {
		r = signature_sign(keyring, i, &input, text);
		if (r == 0)
			r = buffer_appendf(ret, "%s%s", i > 1 ? " " : "", text);
	}
	return r;
}

static void send_webhook(const struct delivery *d)
{
	CLEANUP(buffer_finish) struct buffer signatures = BUFFER_INIT(SIGNATURES_MAX);
	char timestamp[24];

	(void)snprintf(timestamp, sizeof(timestamp), "%lld", (long long)(clock_unix_ms() / 1000));
	if (d->target->keyring && sign(d, timestamp, &signatures) < 0) {
		conclude(d, NOTIFY_PERMANENT, "cannot sign it");
		return;
	}
	const struct http_client_header headers[] = {
		{ "Content-Type", "application/json" },
		{ "webhook-id", d->message->id },
		{ "webhook-timestamp", timestamp },
		{ "webhook-signature", signatures.data },
	};
	post(d, d->target->url, headers, ARRAY_SIZE(headers) - (signatures.len > 0 ? 0 : 1));
}

/* ---- slack, alertmanager ---- */

static const struct http_client_header json_header = { "Content-Type", "application/json" };

static void send_slack(const struct delivery *d)
{
	post(d, d->target->url, &json_header, 1);
}

/* `http://host:9093` is what people have at hand; the path is always the same. */
static int complete_url(const char *given, struct buffer *ret)
{
	const struct span path = SPAN_LITERAL("/api/v2/alerts");
	size_t len = strlen(given);

	while (len > 0 && given[len - 1] == '/')
		len--;
	int r = buffer_append(ret, given, len);
	bool has_path = len >= path.len && memcmp(given + len - path.len, path.s, path.len) == 0;
	if (r < 0 || has_path || strchr(given, '?'))
		return r;
	return buffer_append(ret, path.s, path.len);
}

static void send_alertmanager(const struct delivery *d)
{
	CLEANUP(buffer_finish) struct buffer url = BUFFER_INIT(HTTP_CLIENT_URL_MAX + 1);

	if (complete_url(d->target->url, &url) < 0)
		conclude(d, NOTIFY_PERMANENT, "the URL is too long");
	else
		post(d, url.data ? url.data : "", &json_header, 1);
}

/* ---- command ---- */

static void judge_code(const struct delivery *d, const char *name, const struct command_result *ran)
{
	if (ran->code == 0)
		d->result->outcome = NOTIFY_SENT;
	else if (ran->code == EXIT_NEVER)
		conclude(d, NOTIFY_PERMANENT, "%.80s: exit code %d: it will not take this", name,
			 ran->code);
	else
		conclude(d, NOTIFY_TEMPORARY, "%.80s: exit code %d", name, ran->code);
}

static void send_command(const struct delivery *d)
{
	struct command_result ran;
	const char *name = d->target->command;
	long long timeout_ms = timeout_of(d->target);
	int r = command_run(name, (struct span) { d->body.data, d->body.len }, timeout_ms, d->stop,
			    &ran);

	switch (r) {
	case 0:
		judge_code(d, name, &ran);
		break;
	case COMMAND_NOT_RUN:
		conclude(d, NOTIFY_TEMPORARY, "%.80s: %s", name, strerrordesc_np(ran.error));
		break;
	case COMMAND_TIMEOUT:
		conclude(d, NOTIFY_TEMPORARY, "%.80s: ended, it took over %lld ms", name,
			 timeout_ms);
		break;
	case COMMAND_STOPPED:
		conclude(d, NOTIFY_TEMPORARY, "%.80s: stopped while it ran", name);
		break;
	case COMMAND_SIGNALLED:
		conclude(d, NOTIFY_TEMPORARY, "%.80s: ended by SIG%s", name,
			 sigabbrev_np(ran.code) ? sigabbrev_np(ran.code) : "?");
		break;
	default:
		conclude(d, NOTIFY_TEMPORARY, "%.80s: cannot run it: %s", name,
			 strerrordesc_np(-r));
	}
}

/* ---- the kinds ---- */

static const struct {
	int (*render)(const struct alert_message *, struct buffer *);
	void (*send)(const struct delivery *);
} kinds[] = {
	[NOTIFY_WEBHOOK] = { alert_payload_webhook, send_webhook },
	[NOTIFY_SLACK] = { alert_payload_slack, send_slack },
	[NOTIFY_ALERTMANAGER] = { alert_payload_alertmanager, send_alertmanager },
	[NOTIFY_COMMAND] = { alert_payload_webhook, send_command },
};

void alert_target_send(const struct notify_target *target, const struct alert_message *message,
		       const atomic_bool *stop, struct notify_result *ret)
{
	struct delivery d = { .target = target, .message = message, .stop = stop, .result = ret };

	*ret = (struct notify_result) { .outcome = NOTIFY_TEMPORARY };
	buffer_init(&d.body, ALERT_PAYLOAD_MAX);
	int r = kinds[target->kind].render(message, &d.body);
	if (r == 0)
		kinds[target->kind].send(&d);
	else
		conclude(&d, r == -ENOMEM ? NOTIFY_TEMPORARY : NOTIFY_PERMANENT,
			 "cannot write the notification: %s", strerrordesc_np(-r));
	buffer_finish(&d.body);
}
