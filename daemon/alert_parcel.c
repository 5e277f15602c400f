/* A notice from the outbox as words: the summary that people read first, where the rest is to be
 * seen, and the samples out of their JSON.
 */
#include "alert_internal.h"

#include "clock.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUERY_MARGIN_MS 60000 /* clocks differ a little */
#define CONFIG_OPTION_MAX 256
#define PLAIN_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._+-@:,"

/* How each kind of rule speaks: `one` and `many` occurrences, what is over, its unit, and the
 * command of e2b-hookctl that shows the rest. */
static const struct {
	const char *one, *many, *over, *unit, *query;
} words[ALERT_N_ON] = {
	[ALERT_ON_EXECUTION_FAILED] = { "execution failed", "executions failed",
					"no more executions fail", "events", "failures" },
	[ALERT_ON_SANDBOX_FAILED] = { "sandbox was lost", "sandboxes were lost",
				      "no more sandboxes are lost", "events",
				      "events --type killed" },
	[ALERT_ON_FAILURE_RATE] = { "", "", "the failure rate is below its limit again", "ratio",
				    "failures" },
	[ALERT_ON_RUNAWAY] = { "", "", "no run lasts too long any more", "s", "running" },
	[ALERT_ON_BUDGET] = { "", "", "within the budget again", "usd", "costs --by template" },
	[ALERT_ON_SILENCE] = { "", "", "events come again", "s", "status" },
	[ALERT_ON_REJECTED] = { "delivery was rejected", "deliveries were rejected",
				"no more deliveries are rejected", "events", "rejections" },
	[ALERT_ON_QUARANTINED] = { "delivery was quarantined", "deliveries were quarantined",
				   "no more deliveries are quarantined", "events", "quarantine" },
	[ALERT_ON_UNKNOWN_TEMPLATE] = { "event of a template that is not configured",
					"events of a template that is not configured",
					"no more events of a template that is not configured",
					"events", "events" },
};

/* `90 s`, `25 min`, `31.5 h`. */
static char *say_duration(double s, char buf[static 32])
{
	if (s < 120)
		(void)snprintf(buf, 32, "%.0f s", s);
	else if (s < 7200)
		(void)snprintf(buf, 32, "%.0f min", s / 60);
	else
		(void)snprintf(buf, 32, "%.1f h", s / 3600);
	return buf;
}

static const char *period_name(const struct storage_alert *a)
{
	return a->part == STORAGE_ALERT_MONTHLY ? "this month" : "today";
}

/* Runs that were to last no longer than max_run are told because their timeout is past. */
static bool is_past_timeout(const struct storage_notice *n)
{
	return n->alert.on == ALERT_ON_RUNAWAY && n->alert.value < n->threshold;
}

static void say_runaways(const struct storage_notice *n, const char *in, char *buf, size_t size)
{
	char longest[32], limit[32];
	int64_t runs = n->alert.track.total;
	bool one = runs == 1;
	if (is_past_timeout(n))
		(void)snprintf(buf, size,
			       "%" PRId64 " run%s%s %s past %s timeout, and nobody told of %s end",
			       runs, one ? "" : "s", in, one ? "is" : "are", one ? "its" : "their",
			       one ? "its" : "their");
	else
		(void)snprintf(buf, size, "%" PRId64 " run%s too long%s: %s%s, the limit is %s",
			       runs, one ? " lasts" : "s last", in, one ? "" : "the longest ",
			       say_duration(n->alert.value, longest),
			       say_duration(n->threshold, limit));
}

/* Cents, and more digits where the budget has some. */
static int digits_of(double usd)
{
	int64_t nanousd = llround(usd * 1e9);
	int digits = 2;
	for (int64_t unit = 10000000; unit > 1 && nanousd % unit != 0; unit /= 10)
		digits++;
	return digits;
}

/* What it is about; `in` is " in TEMPLATE", or empty. */
static void say_what(const struct storage_notice *n, const char *in, char *buf, size_t size)
{
	const struct storage_alert *a = &n->alert;
	int64_t count = a->track.count;
	const char *noun = count == 1 ? words[a->on].one : words[a->on].many;
	const char *more = n->state == ALERT_REPEAT ? " more" : "";
	char text[32];
	if (a->on == ALERT_ON_BUDGET)
		(void)snprintf(buf, size, "%.*f USD spent %s%s, the budget is %.*f USD",
			       digits_of(n->threshold), a->value, period_name(a), in,
			       digits_of(n->threshold), n->threshold);
	else if (a->on == ALERT_ON_SILENCE)
		(void)snprintf(buf, size, "no event%s for %s", in, say_duration(a->value, text));
	else if (a->on == ALERT_ON_FAILURE_RATE)
		(void)snprintf(buf, size, "%.1f %% of executions fail%s, the limit is %.1f %%",
			       100 * a->value, in, 100 * n->threshold);
	else if (a->on == ALERT_ON_RUNAWAY)
		say_runaways(n, in, buf, size);
	else
		(void)snprintf(buf, size, "%" PRId64 "%s %s%s", count, more, noun, in);
}

/* `rule`: as configured now, NULL if it is gone. */
static void say_over(const struct storage_notice *n, const struct alert_rule *rule, const char *in,
		     char *buf, size_t size)
{
	if (!rule)
		(void)snprintf(buf, size,
			       "its rule is not in the configuration any more, so this alert ends");
	else if (alert_rule_is_about_events(n->alert.on))
		(void)snprintf(buf, size, "%s%s; it was %" PRId64 " in all",
			       words[n->alert.on].over, in, n->alert.track.total);
	else
		(void)snprintf(buf, size, "%s%s", words[n->alert.on].over, in);
}

static void summarize(struct alert_parcel *p, const struct alert_rule *rule)
{
	const struct storage_notice *n = &p->notice;
	const struct alert_track *t = &n->alert.track;
	char in[sizeof(n->template_name) + 8] = "", what[sizeof(p->summary)];
	if (*n->template_name)
		(void)snprintf(in, sizeof(in), "%s%s",
			       n->alert.on == ALERT_ON_UNKNOWN_TEMPLATE ? ": " : " in ",
			       n->template_name);
	say_what(n, in, what, sizeof(what));
	switch (n->state) {
	case ALERT_FIRING:
	case ALERT_REPEAT:
		if (alert_rule_is_about_events(n->alert.on) && t->total > t->count)
			(void)snprintf(p->summary, sizeof(p->summary), "%.400s, %" PRId64 " in all",
				       what, t->total);
		else
			(void)snprintf(p->summary, sizeof(p->summary), "%s", what);
		return;
	case ALERT_RESOLVED:
		say_over(n, rule, in, p->summary, sizeof(p->summary));
		return;
	case ALERT_SUMMARY:
		(void)snprintf(p->summary, sizeof(p->summary), "came late: %.400s", what);
		return;
	case ALERT_TEST:
		(void)snprintf(p->summary, sizeof(p->summary),
			       "a test of e2b-hookd's alerts (%s): nothing is wrong",
			       n->alert.rule);
		return;
	}
}

/* From when on the query shows what this is about. Events may be older than the alert: they came
 * late, or it took several of them. */
static int64_t query_from_ms(const struct alert_parcel *p, const struct alert_rule *rule)
{
	const struct storage_notice *n = &p->notice;
	int64_t from_ms = n->starts_ms;
	if (n->alert.on == ALERT_ON_BUDGET)
		return alert_period_ms(n->alert.part, from_ms);
	if (n->alert.on == ALERT_ON_FAILURE_RATE && rule)
		from_ms -= rule->window_ms;
	from_ms = base_min_i64(from_ms, p->from_ms) - QUERY_MARGIN_MS;
	return from_ms - from_ms % 1000;
}

/* ` --since TIME`, ` --until TIME`, or nothing. */
static void say_times(const struct alert_parcel *p, const struct alert_rule *rule, char *buf,
		      size_t size)
{
	const struct storage_notice *n = &p->notice;
	char at[CLOCK_TEXT_MAX];
	bool is_until = n->alert.on == ALERT_ON_RUNAWAY && !is_past_timeout(n);
	/* The list begins with the latest: those that last longest would be cut off. */
	int64_t until_ms = n->made_ms - (isfinite(n->threshold) ? (int64_t)n->threshold * 1000 : 0);
	bool has_time = n->alert.on != ALERT_ON_SILENCE && n->state != ALERT_SUMMARY;
	(void)clock_format_ms(is_until ? until_ms : query_from_ms(p, rule), at);
	(void)snprintf(buf, size, "%s%s", is_until ? " --until " : " --since ", at);
	if (!has_time)
		buf[0] = '\0';
}

/* ` -c PATH` for a daemon that is not the one of the system; nothing where a shell would read
 * something else into the name. */
static void say_config(const char *path, char buf[static CONFIG_OPTION_MAX])
{
	CLEANUP_FREE char *whole = path ? realpath(path, NULL) : NULL;
	bool is_said = whole && strcmp(whole, CONFIG_DEFAULT_PATH) != 0 &&
		       whole[strspn(whole, PLAIN_CHARACTERS)] == '\0';
	int len = is_said ? snprintf(buf, CONFIG_OPTION_MAX, " -c %s", whole) : 0;
	if (len <= 0 || len >= CONFIG_OPTION_MAX)
		buf[0] = '\0';
}

static void tell_query(struct alert_parcel *p, const struct alert_rule *rule, const char *config)
{
	const struct storage_notice *n = &p->notice;
	char times[CLOCK_TEXT_MAX + 16], option[CONFIG_OPTION_MAX];
	const char *command = words[n->alert.on].query;
	if (is_past_timeout(n)) /* it is not running as far as the ledger knows */
		command = "runs";
	say_config(config, option);
	say_times(p, rule, times, sizeof(times));
	bool has_template = *n->template_id && n->alert.on != ALERT_ON_SILENCE;
	(void)snprintf(p->query, sizeof(p->query), "e2b-hookctl%s %s%s%s%s", option, command, times,
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
	     v && p->message.n_samples < ALERT_SAMPLES_MAX; v = json_next(v)) {
		int64_t from_ms = number_of(v, "from");
		p->from_ms = base_min_i64(p->from_ms, from_ms ? from_ms : number_of(v, "time"));
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
	}
	return 0;
}

static const char *period_of(const struct storage_alert *a)
{
	return a->part == STORAGE_ALERT_MONTHLY ? "monthly"
	       : a->part == STORAGE_ALERT_DAILY ? "daily"
						: NULL;
}

int alert_parcel_new(const struct storage_notice *notice, const struct config *config,
		     const char *instance, struct alert_parcel **ret)
{
	const struct config_alert *alert = config_alert_by_name(config, notice->alert.rule);
	const struct alert_rule *rule =
		alert && alert->rule.on == notice->alert.on ? &alert->rule : NULL;
	struct alert_parcel *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->notice = *notice;
	p->from_ms = INT64_MAX;
	const struct storage_notice *n = &p->notice;
	p->message = (struct alert_message) {
		.id = n->notification_id,
		.rule = n->alert.rule,
		.on = alert_rule_on_name(n->alert.on),
		.severity = n->alert.severity,
		.template = *n->template_name ? n->template_name : NULL,
		.period = period_of(&n->alert),
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
	int r = read_samples(p);
	if (r < 0) {
		alert_parcel_free(p);
		return r;
	}
	summarize(p, rule);
	tell_query(p, rule, config->path);
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
