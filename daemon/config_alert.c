/* What the keys of [notify NAME] and [alert NAME] must hold together, and defaults that depend on
 * the kind of rule. A key that its rule would not look at is refused: somebody relies on it.
 */
#include "config_internal.h"

#include <errno.h>
#include <string.h>

#define SANDBOX_REASONS "seal_failed, resume_failed, base_template_missing, orphaned"
#define RATE_MIN_COUNT 20

static unsigned int alert_line(const struct config_instance *instance, const char *key)
{
	return instance->keys[config_keys_index(instance->section, key)].line;
}

/* [notify NAME] ------------------------------------------------------------ */

static void alert_refuse_key(struct config_reading *r, const struct config_instance *instance,
			     const char *key, const char *whose)
{
	if (alert_line(instance, key))
		config_read_complain(r, true, alert_line(instance, key), instance, "%s is for %s",
				     key, whose);
}

static void alert_check_command(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_notify *notify = instance->target;
	alert_refuse_key(r, instance, "url", "the other kinds; kind = command runs a program");
	alert_refuse_key(r, instance, "url_file", "the other kinds; kind = command runs a program");
	if (!notify->command && config_read_is_sound(instance, "command"))
		config_read_complain(r, true, instance->line, instance,
				     "needs command, the absolute path of a program");
}

static void alert_check_notify(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_notify *notify = instance->target;
	if (!config_read_is_sound(instance, "kind"))
		return;
	if (!alert_line(instance, "kind")) {
		config_read_complain(r, true, instance->line, instance,
				     "needs a kind: webhook, slack, alertmanager or command");
		return;
	}
	if (notify->kind != NOTIFY_WEBHOOK)
		alert_refuse_key(r, instance, "secret_file", "kind = webhook only");
	if (notify->kind == NOTIFY_COMMAND) {
		alert_check_command(r, instance);
		return;
	}
	alert_refuse_key(r, instance, "command", "kind = command only");
	/* An empty url is written on purpose. */
	if (!alert_line(instance, "url") && !alert_line(instance, "url_file"))
		config_read_complain(r, false, instance->line, instance,
				     "has neither url nor url_file: nothing is sent to it");
	if (notify->url && notify->url_file)
		config_read_complain(r, true, alert_line(instance, "url_file"), instance,
				     "only one of url and url_file may be given");
}

/* [alert NAME] ------------------------------------------------------------- */

#define ON(on) (1u << ALERT_ON_##on)
#define OF_EVENTS (ON(EXECUTION_FAILED) | ON(SANDBOX_FAILED) | ON(UNKNOWN_TEMPLATE))
#define OF_DELIVERIES (ON(REJECTED) | ON(QUARANTINED))
#define ALL_ON ((1u << ALERT_N_ON) - 1)

static const struct {
	const char *key;
	unsigned int ons;
} uses[] = {
	{ "statuses", ON(EXECUTION_FAILED) },
	{ "final_only", ON(EXECUTION_FAILED) },
	{ "reasons", ON(SANDBOX_FAILED) | OF_DELIVERIES },
	{ "threshold", ON(FAILURE_RATE) },
	{ "window", OF_EVENTS | OF_DELIVERIES | ON(FAILURE_RATE) },
	{ "min_count", OF_EVENTS | OF_DELIVERIES | ON(FAILURE_RATE) },
	{ "max_run", ON(RUNAWAY) },
	{ "daily_usd", ON(BUDGET) },
	{ "monthly_usd", ON(BUDGET) },
	{ "quiet", OF_EVENTS | OF_DELIVERIES | ON(SILENCE) },
	{ "max_age", OF_EVENTS },
	{ "templates", ALL_ON & ~OF_DELIVERIES },
	{ "teams", ALL_ON & ~(OF_DELIVERIES | ON(SILENCE)) },
};

/* A default that was written out relies on nothing. */
static bool alert_is_default(const struct config_instance *instance, const char *name)
{
	const struct config_key *key =
		&instance->section->keys[config_keys_index(instance->section, name)];
	const struct glob_list *list = (const void *)((const char *)instance->target + key->offset);
	struct config_alert fresh = { 0 };
	char why[CONFIG_WHY_MAX];
	if (key->type == CONFIG_TYPE_GLOBS)
		return list->n == 1 && strcmp(list->patterns[0], "*") == 0;
	if (!key->fallback || config_value_parse(key, &fresh, key->fallback, why) != 0)
		return false;
	return config_value_same(key, instance->target, &fresh);
}

static void alert_check_uses(struct config_reading *r, const struct config_instance *instance)
{
	const struct config_alert *alert = instance->target;
	for (size_t i = 0; i < ARRAY_SIZE(uses); i++) {
		unsigned int line = alert_line(instance, uses[i].key);
		if (line && !(uses[i].ons & 1u << alert->rule.on) &&
		    !alert_is_default(instance, uses[i].key))
			config_read_complain(r, true, line, instance,
					     "%s means nothing to on = %s; leave it out",
					     uses[i].key, alert_rule_on_name(alert->rule.on));
	}
}

static void alert_check_required(struct config_reading *r, const struct config_instance *instance)
{
	const struct alert_rule *rule = &((const struct config_alert *)instance->target)->rule;
	if (rule->on == ALERT_ON_FAILURE_RATE && rule->threshold_nano < 0 &&
	    config_read_is_sound(instance, "threshold"))
		config_read_complain(r, true, instance->line, instance,
				     "needs a threshold, such as 0.2 for every fifth execution");
	if (rule->on == ALERT_ON_BUDGET && rule->daily_nanousd < 0 && rule->monthly_nanousd < 0 &&
	    config_read_is_sound(instance, "daily_usd") &&
	    config_read_is_sound(instance, "monthly_usd"))
		config_read_complain(r, true, instance->line, instance,
				     "needs daily_usd or monthly_usd");
}

static void alert_check_targets(struct config_reading *r, const struct config_instance *instance)
{
	const struct alert_rule *rule = &((const struct config_alert *)instance->target)->rule;
	for (size_t k = 0; k < rule->n_notify; k++) {
		const struct config_instance *other;
		bool found = false;
		for (size_t i = 0; !found && (other = config_read_next(r, "notify", &i));)
			found = strcmp(other->name, rule->notify[k]) == 0;
		if (!found)
			config_read_complain(r, true, alert_line(instance, "notify"), instance,
					     "notify: there is no [notify %.64s]; add it, or leave "
					     "the name out",
					     rule->notify[k]);
	}
}

static void alert_fill(struct config_reading *r, struct alert_rule *rule)
{
	if (rule->min_count < 0)
		rule->min_count = rule->on == ALERT_ON_FAILURE_RATE ? RATE_MIN_COUNT : 1;
	if (rule->on != ALERT_ON_SANDBOX_FAILED || rule->reasons.n > 0)
		return;
	int rc = glob_list_parse(&rule->reasons, SANDBOX_REASONS);
	if (rc < 0)
		r->rc = rc;
}

static void alert_check_rule(struct config_reading *r, struct config_instance *instance)
{
	struct config_alert *alert = instance->target;
	alert_check_targets(r, instance);
	if (!config_read_is_sound(instance, "on"))
		return;
	if (!alert_line(instance, "on")) {
		config_read_complain(r, true, instance->line, instance,
				     "needs on: what it watches, such as execution_failed");
		return;
	}
	alert_check_uses(r, instance);
	alert_check_required(r, instance);
	alert_fill(r, &alert->rule);
}

void config_alert_check(struct config_reading *r)
{
	struct config_instance *instance;
	for (size_t i = 0; (instance = config_read_next(r, "notify", &i));)
		alert_check_notify(r, instance);
	for (size_t i = 0; (instance = config_read_next(r, "alert", &i));)
		alert_check_rule(r, instance);
}
