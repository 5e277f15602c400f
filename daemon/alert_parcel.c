/* A notice from the outbox as words: the summary that people read first, where the rest is to be
 * seen, and the samples out of their JSON.
 */
#include "alert.h"

#include "clock.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

/* How each kind of rule speaks: `one` and `many` occurrences, what is over, its unit, and the
 * command that shows the rest. */
static const struct {
	const char *one, *many, *over, *unit, *query;
} words[ALERT_N_ON] = {
	[ALERT_ON_EXECUTION_FAILED] = { "execution failed", "executions failed",
					"no more executions fail", "events",
					"e2b-hookctl failures" },
	[ALERT_ON_SANDBOX_FAILED] = { "sandbox was lost", "sandboxes were lost",
				      "no more sandboxes are lost", "events",
				      "e2b-hookctl events --type killed" },
	[ALERT_ON_FAILURE_RATE] = { "execution failed", "executions failed",
				    "the failure rate is below its limit again", "ratio",
				    "e2b-hookctl failures" },
	[ALERT_ON_RUNAWAY] = { "run lasts too long", "runs last too long",
			       "no run lasts too long any more", "s", "e2b-hookctl running" },
	[ALERT_ON_BUDGET] = { "", "", "within the budget again", "usd",
			      "e2b-hookctl costs --by template" },
	[ALERT_ON_SILENCE] = { "", "", "events come again", "s", "e2b-hookctl status" },
	[ALERT_ON_REJECTED] = { "delivery was rejected", "deliveries were rejected",
				"no more deliveries are rejected", "events",
				"e2b-hookctl rejections" },
	[ALERT_ON_QUARANTINED] = { "delivery was quarantined", "deliveries were quarantined",
				   "no more deliveries are quarantined", "events",
				   "e2b-hookctl quarantine" },
	[ALERT_ON_UNKNOWN_TEMPLATE] = { "event of a template that is not configured",
					"events of a template that is not configured",
					"no more events of a template that is not configured",
					"events", "e2b-hookctl events" },
};

static const char *period_name(const struct storage_alert *a)
{
	return a->part == STORAGE_ALERT_MONTHLY ? "this month" : "today";
}

/* What it is about, without the template. */
static void say_what(const struct storage_notice *n, char *buf, size_t size)
{
	const struct storage_alert *a = &n->alert;
	int64_t count = a->track.count;
	const char *noun = count == 1 ? words[a->on].one : words[a->on].many;
	const char *more = n->state == ALERT_REPEAT ? " more" : "";
	if (a->on == ALERT_ON_BUDGET)
		(void)snprintf(buf, size, "%.2f USD spent %s, the budget is %.2f USD", a->value,
			       period_name(a), n->threshold);
	else if (a->on == ALERT_ON_SILENCE)
		(void)snprintf(buf, size, "no event for %.0f s", a->value);
	else if (a->on == ALERT_ON_FAILURE_RATE)
		(void)snprintf(buf, size, "%.1f %% of executions fail, the limit is %.1f %%",
			       100 * a->value, 100 * n->threshold);
	else if (a->on == ALERT_ON_RUNAWAY)
		(void)snprintf(buf, size, "%" PRId64 " %s: %.0f s, the limit is %.0f s",
			       a->track.total, a->track.total == 1 ? words[a->on].one : noun,
			       a->value, n->threshold);
	else
		(void)snprintf(buf, size, "%" PRId64 "%s %s", count, more, noun);
}

static const char *name_or_all(const struct storage_notice *n)
{
	return *n->template_name ? n->template_name : "";
}

static void summarize(struct alert_parcel *p)
{
	const struct storage_notice *n = &p->notice;
	const struct alert_track *t = &n->alert.track;
	const char *in = *n->template_name ? " in " : "", *which = name_or_all(n);
	char what[256], rest[96] = "";
	say_what(n, what, sizeof(what));
	bool counts = alert_rule_is_about_events(n->alert.on);
	switch (n->state) {
	case ALERT_FIRING:
	case ALERT_REPEAT:
		if (counts && t->total > t->count)
			(void)snprintf(rest, sizeof(rest), ", %" PRId64 " in all", t->total);
		(void)snprintf(p->summary, sizeof(p->summary), "%s%s%s%s", what, in, which, rest);
		return;
	case ALERT_RESOLVED:
		if (counts)
			(void)snprintf(rest, sizeof(rest), "; it was %" PRId64 " in all", t->total);
		(void)snprintf(p->summary, sizeof(p->summary), "%s%s%s%s", words[n->alert.on].over,
			       in, which, rest);
		return;
	case ALERT_SUMMARY:
		(void)snprintf(p->summary, sizeof(p->summary), "came late: %s", what);
		return;
	case ALERT_TEST:
		(void)snprintf(p->summary, sizeof(p->summary),
			       "a test of e2b-hookd's alerts (%s): nothing is wrong",
			       n->alert.rule);
		return;
	}
}

static void tell_query(struct alert_parcel *p)
{
	const struct storage_notice *n = &p->notice;
	char at[CLOCK_TEXT_MAX];
	int64_t from_ms = n->starts_ms - n->starts_ms % 1000 - 60000;
	(void)clock_format_ms(from_ms, at);
	bool has_times = n->alert.on != ALERT_ON_RUNAWAY && n->alert.on != ALERT_ON_SILENCE &&
			 n->state != ALERT_SUMMARY;
	bool has_template = *n->template_id && n->alert.on != ALERT_ON_SILENCE;
	(void)snprintf(p->query, sizeof(p->query), "%s%s%s%s%s", words[n->alert.on].query,
		       has_times ? " --since " : "", has_times ? at : "",
		       has_template ? " --template " : "", has_template ? n->template_id : "");
}

static const char *text_of(const struct json_value *object, const char *name)
{
	const struct json_value *v = json_member(object, name);
	return v ? json_string(v).s : NULL;
}

static int64_t number_of(const struct json_value *object, const char *name)
{
	const struct json_value *v = json_member(object, name);
	int64_t n = 0;
	return v && json_integer(v, &n) ? n : 0;
}

static int read_samples(struct alert_parcel *p)
{
	CLEANUP_FREE char *text = NULL;
	int len = asprintf(&text, "{\"samples\":[%s]}", p->notice.alert.samples);
	if (len < 0) {
		text = NULL;
		return -ENOMEM;
	}
	int r = json_parse(text, (size_t)len, &p->doc);
	if (r != 0)
		return r < 0 ? r : 0; /* told without them */
	const struct json_value *list = json_member(json_root(p->doc), "samples");
	for (const struct json_value *v = json_first(list);
	     v && p->message.n_samples < ALERT_SAMPLES_MAX; v = json_next(v))
		p->samples[p->message.n_samples++] = (struct alert_sample) {
			.seq = number_of(v, "seq"),
			.time_unix_ms = number_of(v, "time"),
			.event_id = text_of(v, "event_id"),
			.execution_id = text_of(v, "execution_id"),
			.sandbox_id = text_of(v, "sandbox_id"),
			.run_id = text_of(v, "run_id"),
			.status = text_of(v, "status"),
			.error_name = text_of(v, "error_name"),
			.error_value = text_of(v, "error_value"),
		};
	return 0;
}

int alert_parcel_new(const struct storage_notice *notice, const char *instance,
		     struct alert_parcel **ret)
{
	struct alert_parcel *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->notice = *notice;
	const struct storage_notice *n = &p->notice;
	p->message = (struct alert_message) {
		.id = n->notification_id,
		.rule = n->alert.rule,
		.on = alert_rule_on_name(n->alert.on),
		.severity = n->alert.severity,
		.template = *n->template_name ? n->template_name : NULL,
		.state = n->state,
		.summary = p->summary,
		.query = n->state == ALERT_TEST ? NULL : p->query,
		.starts_unix_ms = n->starts_ms,
		.ends_unix_ms = n->ends_ms,
		.made_unix_ms = n->made_ms,
		.count = n->alert.track.count,
		.total = n->alert.track.total,
		.value = n->alert.value,
		.threshold = n->threshold,
		.unit = words[n->alert.on].unit,
		.samples = p->samples,
		.instance = instance,
	};
	summarize(p);
	tell_query(p);
	int r = read_samples(p);
	if (r < 0) {
		alert_parcel_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void alert_parcel_free(struct alert_parcel *p)
{
	if (!p)
		return;
	json_doc_free(p->doc);
	free(p);
}
