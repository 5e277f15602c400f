/* Levels: rates, runaways, money and silence, measured from the store by templates; and deliveries
 * that never became events. What fires and is not over its limit any more resolves.
 */
#include "alert_internal.h"

#include "clock.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <time.h>

#define PAUSE_LOOKS 3 /* who was not looked at for so many looks was not watched */
#define TEMPLATES_MAX 4096 /* that are over at once; further ones wait */

/* What was measured of one template. */
struct level {
	int64_t template_key, n, failed, time_ms;
	double value;
	bool is_over;
	char samples[2048]; /* runaways: the first few */
};

struct measuring {
	const struct alert_rule *rule;
	bool together; /* all templates as one */
	struct level *levels;
	size_t n, size;
	int64_t now_ms;
};

static void finish(struct measuring *m)
{
	free(m->levels);
}

static int level_of(struct measuring *m, int64_t template_key, struct level **ret)
{
	for (size_t i = 0; i < m->n; i++) {
		*ret = &m->levels[i];
		if ((*ret)->template_key == template_key)
			return 0;
	}
	if (m->n == m->size) {
		size_t size = m->size ? 2 * m->size : 16;
		void *grown =
			size > TEMPLATES_MAX ? NULL : reallocarray(m->levels, size, sizeof(**ret));
		if (!grown)
			return -ENOMEM;
		m->levels = grown;
		m->size = size;
	}
	*ret = &m->levels[m->n++];
	memset(*ret, 0, sizeof(**ret));
	(*ret)->template_key = template_key;
	return 0;
}

static void add_run(struct measuring *m, struct level *level, const struct storage_level *row)
{
	size_t len = strlen(level->samples);
	level->value = fmax(level->value, row->value);
	if (++level->n > ALERT_SAMPLES_MAX)
		return;
	/* Ids are printable and hold neither quote nor backslash. */
	int n = snprintf(level->samples + len, sizeof(level->samples) - len,
			 "%s{\"seq\":0,\"time\":%lld,\"sandbox_id\":\"%.*s\",\"run_id\":\"%.*s\","
			 "\"status\":\"%s\"}",
			 len ? "," : "", (long long)row->time_ms, (int)row->sandbox_id.len,
			 row->sandbox_id.s, (int)row->run_id.len, row->run_id.s,
			 row->failed ? "past its timeout" : "running");
	if (n < 0 || (size_t)n >= sizeof(level->samples) - len)
		level->samples[len] = '\0';
}

static int take_row(void *ctx, const struct storage_level *row)
{
	struct measuring *m = ctx;
	struct alert_names names = { row->template_id, row->template_alias, row->team_id, true };
	struct level *level;
	if (!alert_rule_covers(m->rule, &names))
		return 0;
	int r = level_of(m, m->together ? 0 : row->template_key, &level);
	if (r < 0)
		return m->n > 0 ? 0 : r;
	if (m->rule->on == ALERT_ON_RUNAWAY) {
		add_run(m, level, row);
		return 0;
	}
	level->n += row->n;
	level->failed += row->failed;
	level->time_ms = base_max_i64(level->time_ms, row->time_ms);
	if (!isnan(row->value))
		level->value += row->value;
	return 0;
}

/* Judging --------------------------------------------------------------------- */

static int judge_over(struct alert *a, const struct config_alert *rule,
		      enum storage_alert_part part, const struct level *level, int64_t count,
		      double threshold, int64_t now_ms)
{
	int r = alert_load(a, rule, level->template_key, part, &a->track);
	if (r < 0)
		return r;
	a->track.value = level->value;
	(void)snprintf(a->track.samples, sizeof(a->track.samples), "%s", level->samples);
	return alert_tell(a, rule, &a->track,
			  alert_rule_measured(&rule->rule, &a->track.track, true, count, now_ms),
			  threshold, now_ms);
}

static bool is_over(const struct measuring *m, int64_t template_key)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->levels[i].template_key == template_key)
			return m->levels[i].is_over;
	return false;
}

static double value_of(const struct measuring *m, int64_t template_key)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->levels[i].template_key == template_key)
			return m->levels[i].value;
	return (double)NAN;
}

/* Those that fire and are over no more. */
static int resolve_others(struct alert *a, const struct config_alert *rule,
			  enum storage_alert_part part, const struct measuring *m, double threshold)
{
	int64_t key = 0;
	int r;
	while ((r = storage_alert_next(a->s, key, &a->track)) == 1) {
		key = a->track.key;
		if (strcmp(a->track.rule, rule->name) != 0 || a->track.part != part ||
		    !a->track.track.firing || is_over(m, a->track.template_key))
			continue;
		a->track.value = value_of(m, a->track.template_key);
		a->track.samples[0] = '\0'; /* of what is over */
		r = alert_tell(
			a, rule, &a->track,
			alert_rule_measured(&rule->rule, &a->track.track, false, 0, m->now_ms),
			threshold, m->now_ms);
		if (r < 0)
			return r;
	}
	return r;
}

static int judge(struct alert *a, const struct config_alert *rule, enum storage_alert_part part,
		 const struct measuring *m, double threshold)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct level *level = &m->levels[i];
		int64_t count = rule->rule.on == ALERT_ON_FAILURE_RATE ? level->failed : level->n;
		if (!level->is_over)
			continue;
		int r = judge_over(a, rule, part, level, count, threshold, m->now_ms);
		if (r < 0)
			return r;
	}
	return resolve_others(a, rule, part, m, threshold);
}

static int measure(struct alert *a, struct measuring *m, enum storage_measure what,
		   int64_t since_ms)
{
	return storage_alert_measure(a->s, what, since_ms, m->now_ms, take_row, m);
}

/* The rules ------------------------------------------------------------------- */

static int measure_rate(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	CLEANUP(finish) struct measuring m = { .rule = &rule->rule, .now_ms = now_ms };
	double threshold = (double)rule->rule.threshold_nano / 1e9;
	int r = measure(a, &m, STORAGE_MEASURE_RATES, now_ms - rule->rule.window_ms);
	for (size_t i = 0; i < m.n; i++) {
		struct level *level = &m.levels[i];
		level->value = level->n > 0 ? (double)level->failed / (double)level->n : 0;
		level->is_over = level->n >= rule->rule.min_count && level->value >= threshold;
	}
	return r < 0 ? r : judge(a, rule, STORAGE_ALERT_WHOLE, &m, threshold);
}

static int measure_runaways(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	CLEANUP(finish) struct measuring m = { .rule = &rule->rule, .now_ms = now_ms };
	int r = measure(a, &m, STORAGE_MEASURE_RUNAWAYS, now_ms - rule->rule.max_run_ms);
	for (size_t i = 0; i < m.n; i++)
		m.levels[i].is_over = true;
	return r < 0 ? r
		     : judge(a, rule, STORAGE_ALERT_WHOLE, &m,
			     (double)rule->rule.max_run_ms / 1000);
}

int64_t alert_period_ms(enum storage_alert_part part, int64_t now_ms)
{
	time_t now_s = (time_t)(now_ms / 1000);
	struct tm tm;
	(void)gmtime_r(&now_s, &tm);
	int64_t day_ms = now_ms - now_ms % 86400000;
	return part == STORAGE_ALERT_DAILY ? day_ms : day_ms - (int64_t)(tm.tm_mday - 1) * 86400000;
}

static int measure_budget(struct alert *a, const struct config_alert *rule,
			  enum storage_alert_part part, int64_t limit_nanousd, int64_t now_ms)
{
	CLEANUP(finish)
	struct measuring m = { .rule = &rule->rule,
			       .now_ms = now_ms,
			       .together = alert_rule_is_for_all(&rule->rule) };
	double limit = (double)limit_nanousd / 1e9;
	int r = measure(a, &m, STORAGE_MEASURE_COSTS, alert_period_ms(part, now_ms));
	for (size_t i = 0; i < m.n; i++)
		m.levels[i].is_over = limit_nanousd >= 0 && m.levels[i].value > limit;
	return r < 0 ? r : judge(a, rule, part, &m, limit);
}

static int measure_budgets(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	int r = measure_budget(a, rule, STORAGE_ALERT_DAILY, rule->rule.daily_nanousd, now_ms);
	return r < 0 ? r
		     : measure_budget(a, rule, STORAGE_ALERT_MONTHLY, rule->rule.monthly_nanousd,
				      now_ms);
}

/* Since when nothing came while we watched: window_ms of its track, which a pause of ours (last_ms
 * is when it was looked at) moves on. Kept in the store, so that restarts do not begin it anew. */
static int watch_silence(struct alert *a, const struct config_alert *rule,
			 const struct level *level, int64_t now_ms)
{
	struct alert_track *t = &a->track.track;
	int64_t pause_ms = now_ms - t->last_ms;
	if (t->last_ms == 0)
		t->window_ms = a->since_ms;
	else if (pause_ms > PAUSE_LOOKS * alert_interval_ms(&rule->rule))
		t->window_ms += pause_ms;
	t->window_ms = base_max_i64(t->window_ms, level->time_ms);
	t->last_ms = now_ms;
	return storage_alert_save(a->s, &a->track);
}

/* What fires goes on until an event comes. */
static int judge_silence(struct alert *a, const struct config_alert *rule, struct level *level,
			 int64_t now_ms)
{
	int r = alert_load(a, rule, level->template_key, STORAGE_ALERT_WHOLE, &a->track);
	const struct alert_track *t = &a->track.track;
	if (r == 0 && !t->firing)
		r = watch_silence(a, rule, level, now_ms);
	int64_t from_ms = t->firing ? level->time_ms : t->window_ms;
	level->is_over = now_ms - from_ms >= rule->rule.quiet_ms;
	level->value = (double)(now_ms - (level->time_ms ? level->time_ms : from_ms)) / 1000;
	return r;
}

static int measure_silence(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	CLEANUP(finish)
	struct measuring m = { .rule = &rule->rule,
			       .now_ms = now_ms,
			       .together = alert_rule_is_for_all(&rule->rule) };
	struct level *all;
	int r = measure(a, &m, STORAGE_MEASURE_LAST_EVENTS, 0);
	if (r == 0 && m.together)
		r = level_of(&m, 0, &all); /* there need not have been any event */
	for (size_t i = 0; r == 0 && i < m.n; i++)
		r = judge_silence(a, rule, &m.levels[i], now_ms);
	return r < 0 ? r
		     : judge(a, rule, STORAGE_ALERT_WHOLE, &m, (double)rule->rule.quiet_ms / 1000);
}

int alert_measure(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	switch (rule->rule.on) {
	case ALERT_ON_FAILURE_RATE:
		return measure_rate(a, rule, now_ms);
	case ALERT_ON_RUNAWAY:
		return measure_runaways(a, rule, now_ms);
	case ALERT_ON_BUDGET:
		return measure_budgets(a, rule, now_ms);
	case ALERT_ON_SILENCE:
		return measure_silence(a, rule, now_ms);
	case ALERT_ON_EXECUTION_FAILED:
	case ALERT_ON_SANDBOX_FAILED:
	case ALERT_ON_REJECTED:
	case ALERT_ON_QUARANTINED:
	case ALERT_ON_UNKNOWN_TEMPLATE:
		break;
	}
	return 0;
}

/* Deliveries ------------------------------------------------------------------- */

struct looking {
	struct alert *a;
	enum alert_on on;
	int64_t last_id, now_ms;
};

static int occurred(struct alert *a, const struct config_alert *rule,
		    const struct storage_level *row, int64_t now_ms)
{
	const struct alert_note note = { .seq = row->n,
					 .time_ms = row->time_ms,
					 .status = row->sandbox_id,
					 .error_value = row->run_id };
	int r = alert_load(a, rule, 0, STORAGE_ALERT_WHOLE, &a->track);
	if (r < 0)
		return r;
	struct alert_track *t = &a->track.track;
	enum alert_step step = alert_rule_occurred(&rule->rule, t, 1, now_ms);
	int64_t n = t->firing ? t->count : t->window_count;
	if (n == 1)
		a->track.samples[0] = '\0';
	if (n <= ALERT_SAMPLES_MAX)
		alert_append_sample(&a->track, &note);
	return alert_tell(a, rule, &a->track, step, (double)NAN, now_ms);
}

static int look_at(void *ctx, const struct storage_level *row)
{
	struct looking *l = ctx;
	struct alert *a = l->a;
	l->last_id = row->n;
	for (size_t i = 0; i < a->config->n_alerts; i++) {
		const struct config_alert *rule = &a->config->alerts[i];
		if (rule->rule.on != l->on ||
		    !glob_list_match(&rule->rule.reasons, row->sandbox_id))
			continue;
		int r = occurred(a, rule, row, l->now_ms);
		if (r < 0)
			return r;
	}
	return 0;
}

int alert_look_at_deliveries(struct alert *a, int64_t now_ms)
{
	struct storage_alert_position at = a->at;
	struct looking l = { a, ALERT_ON_REJECTED, at.rejection_id, now_ms };
	int r = storage_alert_measure(a->s, STORAGE_MEASURE_REJECTIONS, at.rejection_id, now_ms,
				      look_at, &l);
	at.rejection_id = l.last_id;
	l.on = ALERT_ON_QUARANTINED;
	l.last_id = at.quarantine_id;
	if (r == 0)
		r = storage_alert_measure(a->s, STORAGE_MEASURE_QUARANTINED, at.quarantine_id,
					  now_ms, look_at, &l);
	at.quarantine_id = l.last_id;
	if (r < 0 ||
	    (at.rejection_id == a->at.rejection_id && at.quarantine_id == a->at.quarantine_id))
		return r;
	return storage_alert_set_position(a->s, &at);
}
