/* Events against rules, and time against tracks. Every change of a track and what it says about it
 * are in one transaction.
 */
#include "alert_internal.h"

#include "buffer.h"
#include "clock.h"
#include "json.h"
#include "ledger.h"
#include "log.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define LATE_QUIET_MS 10000 /* a summary waits until no more comes */
#define LATE_MAX_MS 300000
#define PRUNE_EVERY_MS 60000
#define GIVE_UP_MS (INT64_C(24) * 3600 * 1000)
#define BUCKETS_KEPT_S (6 * 3600 + 60) /* the largest window */
#define ERROR_TEXT_MAX 200 /* of a sample */

int alert_new(struct storage *s, struct alert **ret)
{
	struct alert *a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->s = s;
	(void)pthread_mutex_init(&a->lock, NULL);
	int r = storage_alert_position(s, &a->at);
	if (r < 0) {
		alert_free(a);
		return r;
	}
	*ret = a;
	return 0;
}

void alert_free(struct alert *a)
{
	if (!a)
		return;
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}

void alert_set_config(struct alert *a, const struct config *config)
{
	if (!a->config)
		a->since_ms = clock_unix_ms(); /* a reload is no pause */
	a->config = config;
	a->wants_executions = false;
	for (size_t i = 0; i < config->n_alerts; i++)
		a->wants_executions =
			a->wants_executions || config->alerts[i].rule.on == ALERT_ON_FAILURE_RATE;
	memset(a->looked_ms, 0, sizeof(a->looked_ms));
}

void alert_set_waker(struct alert *a, void (*wake)(void *ctx), void *ctx)
{
	(void)pthread_mutex_lock(&a->lock);
	a->wake = wake;
	a->wake_ctx = ctx;
	(void)pthread_mutex_unlock(&a->lock);
}

void alert_wake(struct alert *a)
{
	(void)pthread_mutex_lock(&a->lock);
	if (a->wake)
		a->wake(a->wake_ctx);
	(void)pthread_mutex_unlock(&a->lock);
}

/* Saying ---------------------------------------------------------------------- */

int alert_load(struct alert *a, const struct config_alert *rule, int64_t template_key,
	       enum storage_alert_part part, struct storage_alert *track)
{
	int r = storage_alert_load(a->s, rule->name, template_key, part, track);
	track->on = rule->rule.on;
	if (!track->track.firing) /* one that fires keeps its own: Alertmanager knows it by that */
		(void)snprintf(track->severity, sizeof(track->severity), "%s", rule->rule.severity);
	return r;
}

/* Targets that are configured and on, each once. */
struct addressees {
	const struct config *config;
	const char *names[ALERT_NOTIFY_MAX];
	size_t n;
};

static void address(void *ctx, const char *name)
{
	struct addressees *to = ctx;
	const struct config_notify *target = config_notify_by_name(to->config, name);
	if (!target || !target->is_on)
		return;
	for (size_t i = 0; i < to->n; i++)
		if (to->names[i] == target->name)
			return;
	assert(to->n < ALERT_NOTIFY_MAX);
	to->names[to->n++] = target->name;
}

static void address_rule(struct addressees *to, const struct alert_rule *rule)
{
	for (size_t i = 0; i < rule->n_notify && !rule->silenced; i++)
		address(to, rule->notify[i]);
}

static bool has_addressees(const struct alert *a, const struct config_alert *rule)
{
	struct addressees to = { .config = a->config };
	address_rule(&to, &rule->rule);
	return to.n > 0;
}

/* That it is over also hears who was told that it fires, though the rule names others by now, or is
 * gone. */
static int address_all(struct alert *a, const struct config_alert *rule,
		       const struct storage_alert *track, enum alert_state state,
		       struct addressees *to)
{
	if (rule)
		address_rule(to, &rule->rule);
	if (state != ALERT_RESOLVED || (rule && rule->rule.silenced))
		return 0;
	return storage_outbox_told(a->s, track, address, to);
}

static enum alert_step step_of(enum alert_state state)
{
	return state == ALERT_RESOLVED ? ALERT_STEP_RESOLVE
	       : state == ALERT_REPEAT ? ALERT_STEP_REPEAT
				       : ALERT_STEP_FIRE;
}

static void tell(struct storage_alert *track, enum alert_state state, int64_t now_ms)
{
	alert_rule_told(&track->track, step_of(state), now_ms);
	track->samples[0] = '\0';
	track->open_id = 0;
}

static const char *state_word(enum alert_state state)
{
	static const char *const words[] = {
		[ALERT_FIRING] = "alert fires",	     [ALERT_REPEAT] = "alert goes on",
		[ALERT_RESOLVED] = "alert resolved", [ALERT_SUMMARY] = "late events, summed up",
		[ALERT_TEST] = "alert tested",
	};
	return words[state];
}

static void note_state(struct alert *a, const struct storage_alert *track, enum alert_state state,
		       size_t n_targets, int64_t now_ms)
{
	if (state == ALERT_FIRING && track->track.since_ms == now_ms) /* else only told now */
		atomic_fetch_add(&a->fired, 1);
	if (state == ALERT_RESOLVED)
		atomic_fetch_add(&a->resolved, 1);
	log_line(state == ALERT_RESOLVED ? LOG_LEVEL_NOTICE : LOG_LEVEL_WARNING, state_word(state),
		 LOG_TEXT("rule", track->rule), LOG_TEXT("on", alert_rule_on_name(track->on)),
		 LOG_NUM("occurred", track->track.count), LOG_NUM("total", track->track.total),
		 LOG_NUM("targets", n_targets));
}

int alert_post(struct alert *a, const struct config_alert *rule, struct storage_alert *track,
	       enum alert_state state, double threshold, int64_t now_ms)
{
	struct addressees to = { .config = a->config };
	/* A first one waits a moment for what comes with it. */
	bool gathers = state == ALERT_FIRING && alert_rule_is_about_events(track->on);
	int r = address_all(a, rule, track, state, &to);
	if (r < 0)
		return r;
	struct storage_post post = {
		.alert = track,
		.state = state,
		.threshold = threshold,
		.now_ms = now_ms,
		.next_ms = gathers ? now_ms + ALERT_GATHER_MS : now_ms,
		.gathers = gathers,
		.targets = to.names,
		.n_targets = to.n,
	};
	int64_t id;
	r = track->key ? 0 : storage_alert_save(a->s, track); /* for its key */
	note_state(a, track, state, post.n_targets, now_ms);
	if (r == 0 && post.n_targets > 0) {
		r = storage_outbox_post(a->s, &post, &id);
		a->is_dirty = true;
		if (r == 0 && gathers) {
			track->open_id = id;
			track->track.notified_ms = now_ms;
			return storage_alert_save(a->s, track);
		}
	}
	if (r < 0)
		return r;
	if (post.n_targets > 0 || state == ALERT_RESOLVED)
		tell(track, state, post.n_targets > 0 ? now_ms : track->track.notified_ms);
	return storage_alert_save(a->s, track);
}

int alert_tell(struct alert *a, const struct config_alert *rule, struct storage_alert *track,
	       enum alert_step step, double threshold, int64_t now_ms)
{
	switch (step) {
	case ALERT_STEP_FIRE:
		return alert_post(a, rule, track, ALERT_FIRING, threshold, now_ms);
	case ALERT_STEP_REPEAT:
		if (!has_addressees(a, rule))
			break;
		return alert_post(a, rule, track,
				  track->track.notified_ms ? ALERT_REPEAT : ALERT_FIRING, threshold,
				  now_ms);
	case ALERT_STEP_RESOLVE:
		return alert_post(a, rule, track, ALERT_RESOLVED, threshold, now_ms);
	case ALERT_STEP_NONE:
		break;
	}
	return storage_alert_save(a->s, track);
}

static int seal_one(struct storage *s, int64_t id, int64_t alert_key, struct storage_alert *track,
		    int64_t now_ms)
{
	int r = storage_alert_next(s, alert_key - 1, track);
	if (r < 0)
		return r;
	if (r == 0 || track->key != alert_key || track->open_id != id) {
		/* Its rule is gone: as it was made. */
		track->track = (struct alert_track) { 0 };
		track->samples[0] = '\0';
		return storage_outbox_seal(s, id, track);
	}
	r = storage_outbox_seal(s, id, track);
	if (r < 0)
		return r;
	tell(track, ALERT_FIRING, now_ms);
	return storage_alert_save(s, track);
}

int alert_seal(struct storage *s, int64_t now_ms)
{
	CLEANUP_FREE struct storage_alert *track = malloc(sizeof(*track));
	int64_t id, key;
	int r = track ? 0 : -ENOMEM;
	while (r == 0 &&
	       (r = storage_outbox_gathering(s, now_ms - ALERT_GATHER_MS, &id, &key)) == 1)
		r = seal_one(s, id, key, track, now_ms);
	return r;
}

int alert_test(struct storage *s, const struct config *config, const char *name, int64_t now_ms,
	       int64_t *ret_id)
{
	const struct config_alert *rule = config_alert_by_name(config, name);
	const struct config_notify *target = rule ? NULL : config_notify_by_name(config, name);
	CLEANUP_FREE struct storage_alert *track = calloc(1, sizeof(*track));
	struct addressees to = { .config = config };
	if (rule)
		address_rule(&to, &rule->rule);
	else
		address(&to, name);
	if (!track)
		return -ENOMEM;
	if (!rule && !target)
		return -ENOENT;
	(void)snprintf(track->rule, sizeof(track->rule), "%s", rule ? rule->name : "test");
	(void)snprintf(track->severity, sizeof(track->severity), "%s",
		       rule ? rule->rule.severity : "info");
	track->on = rule ? rule->rule.on : ALERT_ON_EXECUTION_FAILED;
	track->value = (double)NAN;
	const struct storage_post post = {
		.alert = track,
		.state = ALERT_TEST,
		.threshold = (double)NAN,
		.now_ms = now_ms,
		.next_ms = now_ms,
		.targets = to.names,
		.n_targets = to.n,
	};
	return post.n_targets ? storage_outbox_post(s, &post, ret_id) : -ENOTCONN;
}

/* Samples --------------------------------------------------------------------- */

static struct span cut(struct span text, size_t max)
{
	size_t len = text.len;
	if (len > max) {
		len = max;
		while (len > 0 && ((unsigned char)text.s[len] & 0xc0) == 0x80)
			len--;
	}
	return (struct span) { text.s, len };
}

static int append_text(struct buffer *b, const char *name, struct span text)
{
	if (!text.s)
		return 0;
	int r = buffer_appendf(b, ",\"%s\":", name);
	return r < 0 ? r : json_append_string(b, text);
}

void alert_append_sample(struct storage_alert *track, const struct alert_note *note)
{
	const struct {
		const char *name;
		struct span text;
	} texts[] = {
		{ "event_id", note->event_id },
		{ "execution_id", note->execution_id },
		{ "sandbox_id", note->sandbox_id },
		{ "run_id", note->run_id },
		{ "status", note->status },
		{ "error_name", cut(note->error_name, 100) },
		{ "error_value", cut(note->error_value, ERROR_TEXT_MAX) },
	};
	size_t len = strlen(track->samples);
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(sizeof(track->samples) - len - 1);
	int r = buffer_appendf(&b, "%s{\"seq\":%lld,\"time\":%lld", len ? "," : "",
			       (long long)note->seq, (long long)note->time_ms);
	if (r == 0 && note->from_ms > 0)
		r = buffer_appendf(&b, ",\"from\":%lld", (long long)note->from_ms);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(texts); i++)
		r = append_text(&b, texts[i].name, texts[i].text);
	if (r == 0)
		r = buffer_append_text(&b, "}");
	if (r == 0) /* one that does not fit is left out */
		memcpy(track->samples + len, b.data, b.len + 1);
}

static struct alert_note note_of(int64_t seq, const struct event *e)
{
	struct alert_note note = {
		.seq = seq,
		.time_ms = e->time_unix_ns / CLOCK_NS_PER_MS,
		.event_id = { e->id, strlen(e->id) },
		.sandbox_id = e->sandbox_id,
		.run_id = e->run_id,
		.status = e->kill_reason,
	};
	if (e->kind == EVENT_CODE_EXECUTED) {
		const char *status = event_status_name(e->execution.status);
		if (e->execution.started_unix_ms > 0)
			note.from_ms = e->execution.started_unix_ms;
		note.execution_id = e->execution.execution_id;
		note.status = (struct span) { status, strlen(status) };
		note.error_name = e->execution.error_name;
		note.error_value = e->execution.error_value;
	}
	return note;
}

/* Events ---------------------------------------------------------------------- */

int alert_begin(struct alert *a)
{
	return storage_alert_position(a->s, &a->at);
}

static int count_late(struct alert *a, const struct alert_note *note, int64_t now_ms)
{
	struct alert_track *t = &a->track.track;
	if (t->total++ == 0)
		t->since_ms = now_ms;
	t->count = t->total;
	t->last_ms = now_ms;
	if (t->total <= ALERT_SAMPLES_MAX)
		alert_append_sample(&a->track, note);
	return storage_alert_save(a->s, &a->track);
}

static int occurred(struct alert *a, const struct config_alert *rule, int64_t template_key,
		    const struct alert_note *note, int64_t now_ms)
{
	bool is_late = now_ms - note->time_ms > rule->rule.max_age_ms;
	/* What is late is summed up for the rule as a whole. */
	int r = alert_load(a, rule, is_late ? 0 : template_key,
			   is_late ? STORAGE_ALERT_LATE : STORAGE_ALERT_WHOLE, &a->track);
	if (r < 0)
		return r;
	if (is_late)
		return count_late(a, note, now_ms);
	struct alert_track *t = &a->track.track;
	enum alert_step step = alert_rule_occurred(&rule->rule, t, 1, now_ms);
	int64_t n = t->firing ? t->count : t->window_count;
	if (n == 1)
		a->track.samples[0] = '\0';
	if (n <= ALERT_SAMPLES_MAX)
		alert_append_sample(&a->track, note);
	return alert_tell(a, rule, &a->track, step, (double)NAN, now_ms);
}

static struct alert_names names_of(const struct alert *a, const struct event *e)
{
	struct alert_names names = { e->template_id, e->template_alias, e->team_id, false };
	struct span any = e->template_id.s ? e->template_id : e->template_alias;
	const struct config_template *t = config_template_by_id(a->config, any);
	if (!t)
		t = config_template_by_alias(a->config, any);
	names.template_id = t ? (struct span) { t->id, strlen(t->id) } : any;
	if (t && t->alias)
		names.template_alias = (struct span) { t->alias, strlen(t->alias) };
	names.template_is_configured = t != NULL;
	return names;
}

static int hold_against(struct alert *a, const struct config_alert *rule, int64_t seq,
			const struct event *e, const struct ledger_dims *dims)
{
	struct alert_names names = names_of(a, e);
	bool is_new;
	if (!alert_rule_matches(&rule->rule, e, &names))
		return 0;
	int r = storage_alert_is_new(a->s, rule->name, alert_rule_identity(&rule->rule, e, seq),
				     &is_new);
	if (r < 0 || !is_new)
		return r;
	struct alert_note note = note_of(seq, e);
	return occurred(a, rule, dims->template_key, &note, clock_unix_ms());
}

bool alert_wants(const struct alert *a, const struct event *e)
{
	bool wants = false;
	for (size_t i = 0; a->config && i < a->config->n_alerts && !wants; i++)
		wants = alert_rule_wants(&a->config->alerts[i].rule, e);
	return wants;
}

int alert_observe(struct alert *a, int64_t seq, const struct event *e,
		  const struct ledger_dims *dims)
{
	if (seq <= a->at.seq || !a->config || a->config->n_alerts == 0)
		return 0;
	for (size_t i = 0; i < a->config->n_alerts; i++) {
		const struct config_alert *rule = &a->config->alerts[i];
		if (!alert_rule_wants(&rule->rule, e))
			continue;
		int r = hold_against(a, rule, seq, e, dims);
		if (r < 0)
			return r;
	}
	return 0;
}

int alert_count(struct alert *a, int64_t seq, const struct event *e, const struct ledger_dims *dims,
		const struct storage_counts *counts)
{
	const struct storage_alert_execution x = {
		.seq = seq,
		.time_s = e->time_unix_ns / CLOCK_NS_PER_S,
		.dims = *dims,
		.executions = counts->executions,
		.failed = counts->failed,
	};
	bool changes_nothing = x.executions == 0 && x.failed == 0;
	if (!a->wants_executions || changes_nothing ||
	    x.time_s < clock_unix_ms() / 1000 - BUCKETS_KEPT_S)
		return 0;
	return storage_alert_count(a->s, &x);
}

int alert_end(struct alert *a, int64_t seq)
{
	int r = storage_alert_pass(a->s, seq);
	if (r < 0 || seq <= a->at.seq)
		return r;
	a->at.seq = seq;
	r = storage_alert_set_position(a->s, &a->at);
	/* Woken before the commit: it asks the writer, which comes to it after. */
	if (a->is_dirty)
		alert_wake(a);
	a->is_dirty = false;
	return r;
}

/* Time ------------------------------------------------------------------------ */

static bool summary_is_due(const struct alert_track *t, int64_t now_ms)
{
	return now_ms - t->last_ms >= LATE_QUIET_MS || now_ms - t->since_ms >= LATE_MAX_MS;
}

static int pass_late(struct alert *a, const struct config_alert *rule, int64_t now_ms)
{
	if (!summary_is_due(&a->track.track, now_ms))
		return 0;
	int r = alert_post(a, rule, &a->track, ALERT_SUMMARY, (double)NAN, now_ms);
	return r < 0 ? r : storage_alert_delete(a->s, a->track.key);
}

/* Its rule is gone, or means something else now: who was told that it fires waits for its end. */
static int forget(struct alert *a, int64_t now_ms)
{
	int r = 0;
	if (a->track.track.firing && a->track.part != STORAGE_ALERT_LATE)
		r = alert_post(a, NULL, &a->track, ALERT_RESOLVED, (double)NAN, now_ms);
	return r < 0 ? r : storage_alert_delete(a->s, a->track.key);
}

static int pass_one(struct alert *a, int64_t now_ms)
{
	const struct config_alert *rule = config_alert_by_name(a->config, a->track.rule);
	if (!rule || rule->rule.on != a->track.on)
		return forget(a, now_ms);
	if (a->track.part == STORAGE_ALERT_LATE)
		return pass_late(a, rule, now_ms);
	if (!alert_rule_is_about_events(rule->rule.on) || a->track.open_id)
		return 0;
	enum alert_step step = alert_rule_passed(&rule->rule, &a->track.track, now_ms);
	if (step == ALERT_STEP_NONE || (step == ALERT_STEP_REPEAT && !has_addressees(a, rule)))
		return 0;
	return alert_tell(a, rule, &a->track, step, (double)NAN, now_ms);
}

static int pass_tracks(struct alert *a, int64_t now_ms, int64_t until_us)
{
	int r;
	while ((r = storage_alert_next(a->s, a->after_key, &a->track)) == 1) {
		a->after_key = a->track.key;
		r = pass_one(a, now_ms);
		if (r < 0 || clock_mono_us() > until_us)
			return r;
	}
	a->after_key = 0;
	return r;
}

int64_t alert_interval_ms(const struct alert_rule *rule)
{
	int64_t ms = 10000;
	if (rule->on == ALERT_ON_FAILURE_RATE)
		ms = base_min_i64(rule->window_ms / 60, 60000);
	else if (rule->on == ALERT_ON_RUNAWAY)
		ms = base_min_i64(rule->max_run_ms / 10, ms);
	else if (rule->on == ALERT_ON_SILENCE)
		ms = base_min_i64(rule->quiet_ms / 10, ms);
	return base_max_i64(ms, 1000);
}

/* Each rule in its turn, as far as the time goes. */
static int measure_rules(struct alert *a, int64_t now_ms, int64_t until_us)
{
	int64_t mono_ms = clock_mono_ms();
	for (size_t n = 0; n < a->config->n_alerts; n++) {
		size_t i = a->next_rule++ % a->config->n_alerts;
		const struct config_alert *rule = &a->config->alerts[i];
		if (alert_rule_is_about_events(rule->rule.on) ||
		    (a->looked_ms[i] &&
		     mono_ms - a->looked_ms[i] < alert_interval_ms(&rule->rule) - 50))
			continue;
		a->looked_ms[i] = mono_ms;
		int r = alert_measure(a, rule, now_ms);
		if (r < 0 || clock_mono_us() > until_us)
			return r;
	}
	return 0;
}

static int look_after_outbox(struct alert *a, int64_t now_ms)
{
	struct storage_outbox_figures f = { 0 };
	int64_t n = 0, mono_ms = clock_mono_ms();
	int r = 0;
	if (a->pruned_ms == 0 || mono_ms - a->pruned_ms >= PRUNE_EVERY_MS) {
		a->pruned_ms = mono_ms;
		r = storage_outbox_expire(a->s, now_ms - GIVE_UP_MS, &n);
		atomic_fetch_add(&a->given_up, n);
		if (r == 0)
			r = storage_outbox_prune(a->s, now_ms / 1000 - BUCKETS_KEPT_S);
	}
	if (n > 0)
		log_line(LOG_LEVEL_ERROR,
			 "notifications given up after 24 h; e2b-hookctl notifications shows them",
			 LOG_NUM("count", n));
	if (r == 0)
		r = storage_outbox_figures(a->s, &f);
	atomic_store(&a->firing, f.firing);
	atomic_store(&a->waiting, f.waiting);
	atomic_store(&a->failed, f.failed);
	atomic_store(&a->oldest_unsent_ms, f.oldest_ms);
	return r;
}

static int tick(struct alert *a, int64_t now_ms)
{
	int64_t until_us = clock_mono_us() + ALERT_SLICE_US;
	int r = storage_alert_position(a->s, &a->at);
	if (r == 0)
		r = alert_look_at_deliveries(a, now_ms);
	if (r == 0)
		r = pass_tracks(a, now_ms, until_us);
	if (r == 0)
		r = measure_rules(a, now_ms, until_us);
	return r < 0 ? r : look_after_outbox(a, now_ms);
}

int alert_tick(struct alert *a, int64_t now_ms)
{
	if (!a->config)
		return 0;
	int r = storage_begin(a->s, false);
	if (r < 0)
		return r;
	r = tick(a, now_ms);
	if (r == 0)
		r = storage_commit(a->s);
	if (r < 0)
		storage_rollback(a->s);
	else if (a->is_dirty)
		alert_wake(a);
	a->is_dirty = false;
	return r;
}

/* Figures ---------------------------------------------------------------------- */

void alert_figures(struct alert *a, struct alert_figures *ret)
{
	*ret = (struct alert_figures) {
		.fired = atomic_load(&a->fired),
		.resolved = atomic_load(&a->resolved),
		.sent = atomic_load(&a->sent),
		.failed_attempts = atomic_load(&a->failed_attempts),
		.given_up = atomic_load(&a->given_up),
		.firing = atomic_load(&a->firing),
		.waiting = atomic_load(&a->waiting),
		.failed = atomic_load(&a->failed),
		.oldest_unsent_ms = atomic_load(&a->oldest_unsent_ms),
	};
}

void alert_count_sending(struct alert *a, enum storage_outbox_status status)
{
	if (status == STORAGE_SENT)
		atomic_fetch_add(&a->sent, 1);
	else
		atomic_fetch_add(&a->failed_attempts, 1);
	if (status == STORAGE_FAILED)
		atomic_fetch_add(&a->given_up, 1);
}
