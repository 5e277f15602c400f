/* Alerts, as an operator asks for them: each is one task of the writer, answered when it is
 * durable.
 */
#include "control_internal.h"

#include "alert.h"
#include "buffer.h"
#include "clock.h"
#include "config.h"
#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <string.h>

#define NAMES_MAX 384 /* of an answer */

struct control_alert {
	const struct control_request *request;
	const struct config *config;
	int64_t answer; /* an id, or how many */
	int status;
	sem_t done;
};

static int alert_run(struct storage *s, void *ctx)
{
	struct control_alert *x = ctx;
	const char *name = x->request->name;
	int64_t now_ms = clock_unix_ms();
	if (x->request->command == CONTROL_ALERT_TEST)
		return alert_test(s, x->config, name, now_ms, &x->answer);
	if (x->request->command == CONTROL_ALERT_ACK)
		return storage_alert_ack(s, name, &x->answer);
	return storage_outbox_retry(s, *name ? name : NULL, now_ms, &x->answer);
}

static void alert_done(struct writer_task *task, int status)
{
	struct control_alert *x = task->ctx;
	x->status = status;
	(void)sem_post(&x->done);
}

static bool is_known(const struct control_alert *x)
{
	const char *name = x->request->name;
	if (x->request->command == CONTROL_ALERT_ACK)
		return config_alert_by_name(x->config, name) != NULL;
	if (x->request->command == CONTROL_ALERT_RETRY)
		return !*name || config_notify_by_name(x->config, name) != NULL;
	return true;
}

/* Appends the names that there are, as far as they fit. */
static void list_rules(const struct config *config, struct buffer *b)
{
	for (size_t i = 0; i < config->n_alerts; i++)
		(void)!buffer_appendf(b, "%s%s", i > 0 ? ", " : "", config->alerts[i].name);
	if (config->n_alerts == 0)
		(void)!buffer_append_text(b, "none is configured");
}

static void list_targets(const struct config *config, struct buffer *b)
{
	for (size_t i = 0; i < config->n_notify; i++)
		(void)!buffer_appendf(b, "%s%s", i > 0 ? ", " : "", config->notify[i].name);
	if (config->n_notify == 0)
		(void)!buffer_append_text(b, "none is configured");
}

/* The names are of the configuration, not the client's. */
static int refuse_name(struct control_talk *t, const struct control_alert *x)
{
	CLEANUP(buffer_finish) struct buffer names = BUFFER_INIT(NAMES_MAX);
	const char *name = x->request->name;
	if (x->request->command == CONTROL_ALERT_TEST)
		return control_say(t, "error the configuration has no such rule or target");
	bool is_ack = x->request->command == CONTROL_ALERT_ACK;
	bool is_other = is_ack ? config_notify_by_name(x->config, name) != NULL
			       : config_alert_by_name(x->config, name) != NULL;
	(is_ack ? list_rules : list_targets)(x->config, &names);
	return control_say(t, "error %s; %s takes a %s: %s",
			   !is_other ? "the configuration has no such name"
			   : is_ack  ? "this is a target"
				     : "this is a rule",
			   is_ack ? "ack" : "retry", is_ack ? "rule" : "target",
			   names.data ? names.data : "");
}

static int answer(struct control_talk *t, const struct control_alert *x)
{
	if (x->status == -ENOENT)
		return refuse_name(t, x);
	if (x->status == -ENOTCONN)
		return control_say(
			t, "error it has no target to send to: give the rule notify = NAME "
			   "and that [notify NAME] a url, url_file or command, then reload");
	if (x->status < 0)
		return control_say(t, "error the store failed: %s", strerror(-x->status));
	return control_say(t, "ok {\"%s\":%" PRId64 "}",
			   x->request->command == CONTROL_ALERT_TEST ? "id" : "changed", x->answer);
}

int control_alert_run(struct control_talk *t, const struct control_request *request)
{
	struct control_alert x = { .request = request, .config = control_config(t->c) };
	struct writer_task task = { .run = alert_run, .done = alert_done, .ctx = &x };
	(void)sem_init(&x.done, 0, 0);
	/* Not into x.status: the task may be done before the call returns. */
	int r = is_known(&x) ? writer_submit_task(t->c->writer, &task) : -ENOENT;
	if (r < 0)
		x.status = r;
	else
		while (sem_wait(&x.done) < 0)
			;
	alert_wake(writer_alert(t->c->writer));
	r = answer(t, &x);
	(void)sem_destroy(&x.done);
	config_unref((struct config *)x.config);
	return r;
}
