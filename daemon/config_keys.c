/* The table of sections and keys: defaults, bounds, meaning, place, and whether a reload changes
 * them. Parsing, checks, the example and the reference follow from it; a key that is not here does
 * not exist.
 *
 * Also here: which known name an unknown one was probably meant to be.
 */
#include "config_internal.h"
#include "decimal.h"
#include "nearest.h"

#include <string.h>

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define TIB (1024 * 1024 * MIB)
#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define DAY (24 * 60 * MINUTE)
#define CENTURY (36500 * DAY)

static const struct config_key server_keys[] = {
	{ .name = "listen",
	  .type = CONFIG_TYPE_LISTENERS,
	  .fallback = "127.0.0.1:8787",
	  .doc = "Where deliveries arrive: host:port, [v6]:port, unix:/path, or systemd for the "
		 "sockets that the unit hands over under the name hook; may be repeated." },
	{ .name = "unix_mode",
	  .type = CONFIG_TYPE_OCTAL,
	  .fallback = "0660",
	  .max = 0777,
	  .offset = offsetof(struct config_server, unix_mode),
	  .doc = "Mode of the unix sockets." },
	{ .name = "unix_group",
	  .type = CONFIG_TYPE_GROUP,
	  .fallback = "",
	  .offset = offsetof(struct config_server, unix_group),
	  .doc = "Group of the unix sockets, so that a proxy may connect; empty leaves the "
		 "daemon's own." },
	{ .name = "max_connections",
	  .type = CONFIG_TYPE_COUNT,
	  .fallback = "4096",
	  .min = 2,
	  .max = 1000000,
	  .offset = offsetof(struct config_server, max_connections),
	  .doc = "Open connections in all." },
	{ .name = "max_connections_per_ip",
	  .type = CONFIG_TYPE_COUNT,
	  .fallback = "0",
	  .min = 1,
	  .max = 1000000,
	  .zero = "off",
	  .offset = offsetof(struct config_server, max_connections_per_ip),
	  .doc = "Open connections of one address; never applied to loopback, unix sockets and "
		 "trusted_proxies." },
	{ .name = "header_timeout",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "10s",
	  .min = 100,
	  .max = 10 * MINUTE,
	  .offset = offsetof(struct config_server, header_timeout_ms),
	  .doc = "Deadline for the whole request head, not for a pause in it." },
	{ .name = "request_timeout",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "20s",
	  .min = 100,
	  .max = 10 * MINUTE,
	  .offset = offsetof(struct config_server, request_timeout_ms),
	  .doc = "Deadline for the whole request, body included; not below header_timeout and "
		 "commit_timeout." },
	{ .name = "trusted_proxies",
	  .type = CONFIG_TYPE_NETWORKS,
	  .fallback = "",
	  .doc = "Peers whose X-Forwarded-For is believed (its right-most untrusted hop), "
		 "separated by commas: addresses, CIDRs, and the word unix for peers on unix "
		 "sockets." },
	{ .name = "drain_timeout",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "15s",
	  .min = 0,
	  .max = 10 * MINUTE,
	  .offset = offsetof(struct config_server, drain_timeout_ms),
	  .doc = "How long a stop waits for open requests." },
};

static const struct config_key admin_keys[] = {
	{ .name = "listen",
	  .type = CONFIG_TYPE_LISTEN,
	  .fallback = "127.0.0.1:8788",
	  .offset = offsetof(struct config_admin, listen),
	  .doc = "Where metrics and health are served, in the forms of [server] listen "
		 "(the unit's socket is called admin); empty turns them off." },
	{ .name = "token_file",
	  .type = CONFIG_TYPE_FILE,
	  .fallback = "",
	  .offset = offsetof(struct config_admin, token_file),
	  .live = true,
	  .doc = "File with the bearer token that all but the health paths want; required when "
		 "listen is neither loopback nor unix (a socket of systemd is taken for "
		 "neither)." },
};

static const struct config_key store_keys[] = {
	{ .name = "path",
	  .type = CONFIG_TYPE_STORE_PATH,
	  .fallback = "/var/lib/e2b-hookd/events.db",
	  .offset = offsetof(struct config_store, path),
	  .doc = "The SQLite file, on a local file system; its lock and control socket lie beside "
		 "it." },
	{ .name = "retention",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "90d",
	  .max = CENTURY,
	  .zero = "for ever",
	  .offset = offsetof(struct config_store, retention_ms),
	  .doc = "How long events, payloads and metadata are kept." },
	{ .name = "ledger_retention",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "730d",
	  .max = CENTURY,
	  .zero = "for ever",
	  .offset = offsetof(struct config_store, ledger_retention_ms),
	  .doc = "How long sandboxes, runs and executions are kept, not below retention; hourly "
		 "and daily sums are kept for ever." },
	{ .name = "max_size",
	  .type = CONFIG_TYPE_SIZE,
	  .fallback = "0",
	  .min = MIB,
	  .max = 64 * TIB,
	  .zero = "no limit",
	  .offset = offsetof(struct config_store, max_size),
	  .doc = "Size of the store above which the oldest payloads go first." },
	{ .name = "queue_limit",
	  .type = CONFIG_TYPE_COUNT,
	  .fallback = "2048",
	  .min = 1,
	  .max = 999999,
	  .offset = offsetof(struct config_store, queue_limit),
	  .doc = "Deliveries that may wait for a commit, below max_connections; more are answered "
		 "503." },
	{ .name = "commit_timeout",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "5s",
	  .min = 10,
	  .max = 10 * MINUTE,
	  .offset = offsetof(struct config_store, commit_timeout_ms),
	  .doc = "A delivery that is not durable by then is answered 503; not above "
		 "request_timeout." },
	{ .name = "wal_limit",
	  .type = CONFIG_TYPE_SIZE,
	  .fallback = "256MiB",
	  .min = MIB,
	  .max = TIB,
	  .offset = offsetof(struct config_store, wal_limit),
	  .doc = "Size of the write-ahead log above which a warning names who holds it." },
	{ .name = "max_run",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "24h",
	  .min = SECOND,
	  .max = 3650 * DAY,
	  .offset = offsetof(struct config_store, max_run_ms),
	  .doc = "A run without an end is closed as estimated after this." },
	{ .name = "on_corrupt",
	  .type = CONFIG_TYPE_ON_CORRUPT,
	  .fallback = "rotate",
	  .offset = offsetof(struct config_store, set_damaged_aside),
	  .doc = "What to do with a damaged database at the start: rotate sets it aside whole, as "
		 "PATH.corrupt-TIME, and begins an empty one; exit refuses to start." },
};

static const struct config_key source_keys[] = {
	{ .name = "path",
	  .type = CONFIG_TYPE_HTTP_PATH,
	  .offset = offsetof(struct config_source, path),
	  .live = true,
	  .doc = "HTTP path of this source's deliveries; required, and no two sources share one." },
	{ .name = "signature",
	  .type = CONFIG_TYPE_SCHEME,
	  .fallback = "e2b",
	  .offset = offsetof(struct config_source, scheme),
	  .live = true,
	  .doc = "How its deliveries are signed." },
	{ .name = "header",
	  .type = CONFIG_TYPE_HEADER,
	  .fallback = "x-signature-256",
	  .offset = offsetof(struct config_source, header),
	  .live = true,
	  .doc = "Header that carries the signature; for hmac-sha256 only." },
	{ .name = "secret_file",
	  .type = CONFIG_TYPE_SECRET_FILE,
	  .live = true,
	  .doc = "File with one secret a line, all of them valid (for a rotation: add the new one, "
		 "reload, change the sender, remove the old one, reload)." },
	{ .name = "secret_credential",
	  .type = CONFIG_TYPE_SECRET_CREDENTIAL,
	  .doc = "Instead: name of a systemd credential with such content; a change of the content "
		 "needs a restart." },
	{ .name = "secret_env",
	  .type = CONFIG_TYPE_SECRET_ENV,
	  .live = true,
	  .doc = "Instead: name of an environment variable that holds the path of such a file." },
	{ .name = "events",
	  .type = CONFIG_TYPE_GLOBS,
	  .fallback = "*",
	  .offset = offsetof(struct config_source, policy.events),
	  .live = true,
	  .doc = "What this source may say: patterns over the event's type or kind, separated by "
		 "commas; !pattern excludes, and only exclusions mean all others." },
	{ .name = "templates",
	  .type = CONFIG_TYPE_GLOBS,
	  .fallback = "*",
	  .offset = offsetof(struct config_source, policy.templates),
	  .live = true,
	  .doc = "The same over template id or alias; an event without a template matches * "
		 "only." },
	{ .name = "teams",
	  .type = CONFIG_TYPE_GLOBS,
	  .fallback = "*",
	  .offset = offsetof(struct config_source, policy.teams),
	  .live = true,
	  .doc = "The same over the team id." },
	{ .name = "priced",
	  .type = CONFIG_TYPE_YES_NO,
	  .fallback = "yes",
	  .offset = offsetof(struct config_source, priced),
	  .live = true,
	  .doc = "Whether runs of this source cost money here; no leaves their cost NULL." },
	{ .name = "max_body",
	  .type = CONFIG_TYPE_SIZE,
	  .fallback = "1MiB",
	  .min = KIB,
	  .max = 64 * MIB,
	  .offset = offsetof(struct config_source, max_body),
	  .live = true,
	  .doc = "Largest body; larger ones are answered 413." },
};

static const struct config_key template_keys[] = {
	{ .name = "alias",
	  .type = CONFIG_TYPE_ID,
	  .offset = offsetof(struct config_template, alias),
	  .live = true,
	  .doc = "Name to show; an event that names the alias is taken for the id." },
	{ .name = "vcpu",
	  .type = CONFIG_TYPE_COUNT,
	  .min = 1,
	  .max = 1024,
	  .offset = offsetof(struct config_template, vcpu),
	  .live = true,
	  .doc = "vCPUs of runs that report none, given together with memory_mb." },
	{ .name = "memory_mb",
	  .type = CONFIG_TYPE_COUNT,
	  .min = 1,
	  .max = 16777216,
	  .offset = offsetof(struct config_template, memory_mb),
	  .live = true,
	  .doc = "Memory in MiB of runs that report none, given together with vcpu." },
};

static const struct config_key pricing_keys[] = {
	{ .name = "vcpu_second_usd",
	  .type = CONFIG_TYPE_RATE,
	  .fallback = "0.000014",
	  .max = DECIMAL_SCALE,
	  .offset = offsetof(struct config_rates, vcpu_femto),
	  .live = true,
	  .doc = "Price of a vCPU for a second." },
	{ .name = "gib_second_usd",
	  .type = CONFIG_TYPE_RATE,
	  .fallback = "0.0000045",
	  .max = DECIMAL_SCALE,
	  .offset = offsetof(struct config_rates, gib_femto),
	  .live = true,
	  .doc = "Price of a GiB of memory for a second." },
};

static const struct config_key log_keys[] = {
	{ .name = "level",
	  .type = CONFIG_TYPE_LOG_LEVEL,
	  .fallback = "info",
	  .offset = offsetof(struct config_log, level),
	  .live = true,
	  .doc = "The least important messages to show." },
	{ .name = "format",
	  .type = CONFIG_TYPE_LOG_FORMAT,
	  .fallback = "text",
	  .offset = offsetof(struct config_log, format),
	  .live = true,
	  .doc = "Lines for people, or a JSON object a line." },
};

#define NOTIFY(field) .offset = offsetof(struct config_notify, field), .live = true

static const struct config_key notify_keys[] = {
	{ .name = "kind",
	  .type = CONFIG_TYPE_NOTIFY_KIND,
	  NOTIFY(kind),
	  .doc = "What is there: an HTTP endpoint of yours (webhook: JSON as in "
		 "docs/alert-webhook.md), an "
		 "incoming webhook of Slack, Alertmanager's API v2, or a program on this "
		 "machine." },
	{ .name = "url",
	  .type = CONFIG_TYPE_URL,
	  .fallback = "",
	  NOTIFY(url),
	  .doc = "Where to post, https or http; of Alertmanager the address without "
		 "/api/v2/alerts. "
		 "Without url, url_file or command nothing is sent." },
	{ .name = "url_file",
	  .type = CONFIG_TYPE_FILE,
	  .fallback = "",
	  NOTIFY(url_file),
	  .doc = "Instead: a file that holds the URL, for one that is a secret, as Slack's are." },
	{ .name = "secret_file",
	  .type = CONFIG_TYPE_FILE,
	  .fallback = "",
	  NOTIFY(secret_file),
	  .doc = "For webhook: file with a secret (whsec_ and base64, or plain text) to sign "
		 "requests with, as Standard Webhooks; with several, one a line, each signs." },
	{ .name = "command",
	  .type = CONFIG_TYPE_FILE,
	  .fallback = "",
	  NOTIFY(command),
	  .doc = "For command: program that gets the JSON of a webhook on its standard input; no "
		 "shell, no arguments, an environment of PATH and LANG only." },
	{ .name = "timeout",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "5s",
	  .min = 100,
	  .max = 2 * MINUTE,
	  NOTIFY(timeout_ms),
	  .doc = "How long one attempt may take; failed ones are repeated for 24 h, at growing "
		 "intervals." },
};

#define ALERT(field) .offset = offsetof(struct config_alert, rule.field), .live = true

static const struct config_key alert_keys[] = {
	{ .name = "on",
	  .type = CONFIG_TYPE_ALERT_ON,
	  ALERT(on),
	  .doc = "What it watches, required: failed executions; sandboxes that ended for one of "
		 "the "
		 "reasons; the share of executions that fail; runs that last too long, or past "
		 "their timeout; money spent; that nothing comes; deliveries rejected or "
		 "quarantined; events of templates that have no section [template ID] here." },
	{ .name = "notify",
	  .type = CONFIG_TYPE_TARGETS,
	  .fallback = "",
	  ALERT(notify),
	  .doc = "Names of the targets, separated by commas; without any, the alert is seen by "
		 "e2b-hookctl alerts and in the views only." },
	{ .name = "templates",
	  .type = CONFIG_TYPE_GLOBS,
	  .fallback = "*",
	  ALERT(templates),
	  .doc = "Patterns over template id or alias. Budget and silence look at all together "
		 "where this is *, else at each template by itself." },
	{ .name = "teams",
	  .type = CONFIG_TYPE_GLOBS,
	  .fallback = "*",
	  ALERT(teams),
	  .doc = "The same over the team id." },
	{ .name = "statuses",
	  .type = CONFIG_TYPE_STATUSES,
	  .fallback = "error, timeout, killed",
	  ALERT(statuses),
	  .doc = "For execution_failed: how it failed." },
	{ .name = "final_only",
	  .type = CONFIG_TYPE_YES_NO,
	  .fallback = "yes",
	  ALERT(final_only),
	  .doc = "For execution_failed: not about attempts that will be retried." },
	{ .name = "reasons",
	  .type = CONFIG_TYPE_GLOBS,
	  ALERT(reasons),
	  .doc = "For sandbox_failed: patterns over the kill reason (unless given: seal_failed, "
		 "resume_failed, base_template_missing, orphaned). For rejected and quarantined: "
		 "over the reason in the view (unless given: all)." },
	{ .name = "threshold",
	  .type = CONFIG_TYPE_DECIMAL,
	  .min = 1000000,
	  .max = 1000000000,
	  ALERT(threshold_nano),
	  .doc = "For failure_rate, required: the share of executions from which on it fires." },
	{ .name = "window",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "15m",
	  .min = SECOND,
	  .max = 6 * 60 * MINUTE,
	  ALERT(window_ms),
	  .doc = "For failure_rate, the time it looks back; for rules about events, the time in "
		 "which min_count of them must come." },
	{ .name = "min_count",
	  .type = CONFIG_TYPE_COUNT,
	  .min = 1,
	  .max = 1000000000,
	  ALERT(min_count),
	  .doc = "How many executions in the window make a rate (unless given: 20); how many "
		 "events "
		 "make it fire (unless given: 1)." },
	{ .name = "max_run",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "1h",
	  .min = SECOND,
	  .max = 365 * DAY,
	  ALERT(max_run_ms),
	  .doc = "For runaway: a run that lasts longer, or past the end that set_timeout gave "
		 "it." },
	{ .name = "daily_usd",
	  .type = CONFIG_TYPE_DECIMAL,
	  .max = INT64_MAX / 10,
	  ALERT(daily_nanousd),
	  .doc = "For budget: fires above it, settled cost and what running sandboxes have accrued "
		 "on this UTC day; resolved when the day is over." },
	{ .name = "monthly_usd",
	  .type = CONFIG_TYPE_DECIMAL,
	  .max = INT64_MAX / 10,
	  ALERT(monthly_nanousd),
	  .doc = "The same for the UTC month." },
	{ .name = "quiet",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "15m",
	  .min = SECOND,
	  .max = 30 * DAY,
	  ALERT(quiet_ms),
	  .doc = "For silence: fires when no event came for so long. For rules about events: over "
		 "when so long none came." },
	{ .name = "repeat",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "1h",
	  .min = SECOND,
	  .max = 30 * DAY,
	  ALERT(repeat_ms),
	  .doc = "While it fires, told again after this (about events: if more came; after a "
		 "minute "
		 "already if it is ten times as many)." },
	{ .name = "max_age",
	  .type = CONFIG_TYPE_DURATION,
	  .fallback = "1h",
	  .min = SECOND,
	  .max = CENTURY,
	  ALERT(max_age_ms),
	  .doc = "For rules about events: what is older when it comes does not fire; one summary "
		 "tells how much it was." },
	{ .name = "severity",
	  .type = CONFIG_TYPE_SEVERITY,
	  .fallback = "warning",
	  ALERT(severity),
	  .doc = "Handed on to the targets." },
	{ .name = "silenced",
	  .type = CONFIG_TYPE_YES_NO,
	  .fallback = "no",
	  ALERT(silenced),
	  .doc = "Goes on watching and counting, but sends nothing." },
};

#define KEYS(table) .keys = (table), .n_keys = ARRAY_SIZE(table)

static_assert(ARRAY_SIZE(server_keys) <= CONFIG_SECTION_KEYS_MAX &&
		      ARRAY_SIZE(store_keys) <= CONFIG_SECTION_KEYS_MAX &&
		      ARRAY_SIZE(source_keys) <= CONFIG_SECTION_KEYS_MAX &&
		      ARRAY_SIZE(alert_keys) <= CONFIG_SECTION_KEYS_MAX,
	      "an instance has room for every key of its section");

static const struct config_section sections[] = {
	{ .name = "server",
	  .doc = "The listener that E2B and other senders reach, through your TLS proxy.",
	  .size = sizeof(struct config_server),
	  .instances_max = 1,
	  KEYS(server_keys) },
	{ .name = "admin",
	  .doc = "Metrics and health.",
	  .size = sizeof(struct config_admin),
	  .instances_max = 1,
	  KEYS(admin_keys) },
	{ .name = "store",
	  .doc = "Where events and costs are kept, and for how long.",
	  .size = sizeof(struct config_store),
	  .instances_max = 1,
	  KEYS(store_keys) },
	{ .name = "source",
	  .naming = CONFIG_NAMED,
	  .placeholder = "NAME",
	  .doc = "Who may send: one section for each sender, at least one; NAME is yours to "
		 "choose, up to 64 letters, digits, _ and -.",
	  .size = sizeof(struct config_source),
	  .instances_max = CONFIG_SOURCES_MAX,
	  KEYS(source_keys) },
	{ .name = "template",
	  .naming = CONFIG_NAMED,
	  .placeholder = "ID",
	  .doc = "What is known about a template; ID as E2B sends it.",
	  .size = sizeof(struct config_template),
	  .instances_max = CONFIG_TEMPLATES_MAX,
	  KEYS(template_keys) },
	{ .name = "pricing",
	  .naming = CONFIG_NAMED_OR_NOT,
	  .placeholder = "DATE",
	  .doc = "Prices in USD, exact decimals; [pricing YYYY-MM-DD] changes them from that UTC "
		 "date on, and a key that it leaves out keeps the price of the entry before.",
	  .size = sizeof(struct config_rates),
	  .instances_max = PRICING_ENTRIES_MAX - 1, /* the base entry may come by default */
	  KEYS(pricing_keys) },
	{ .name = "notify",
	  .naming = CONFIG_NAMED,
	  .placeholder = "NAME",
	  .doc = "Where alerts go; try one with e2b-hookctl alerts test NAME.",
	  .size = sizeof(struct config_notify),
	  .instances_max = CONFIG_NOTIFY_MAX,
	  KEYS(notify_keys) },
	{ .name = "alert",
	  .naming = CONFIG_NAMED,
	  .placeholder = "NAME",
	  .doc = "A rule: what to watch, and whom to tell. It fires once for each template, "
		 "repeats "
		 "while there is more to tell, and says when it is over.",
	  .size = sizeof(struct config_alert),
	  .instances_max = CONFIG_ALERTS_MAX,
	  KEYS(alert_keys) },
	{ .name = "log",
	  .doc = "What is written to standard error, hence to the journal.",
	  .size = sizeof(struct config_log),
	  .instances_max = 1,
	  KEYS(log_keys) },
};

const struct config_section *config_keys_sections(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(sections);
	return sections;
}

const struct config_section *config_keys_section(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (strcmp(sections[i].name, name) == 0)
			return &sections[i];
	return NULL;
}

int config_keys_index(const struct config_section *section, const char *name)
{
	for (size_t i = 0; i < section->n_keys; i++)
		if (strcmp(section->keys[i].name, name) == 0)
			return (int)i;
	return -1;
}

static const struct config_key *keys_nearest(const struct config_section *section, const char *name,
					     size_t *best)
{
	const struct config_key *found = NULL;
	for (size_t i = 0; i < section->n_keys; i++) {
		size_t distance = nearest_nearness(name, section->keys[i].name);
		if (distance < *best) {
			*best = distance;
			found = &section->keys[i];
		}
	}
	return found;
}

void config_keys_suggest_section(const char *name, char buf[static CONFIG_WHY_MAX])
{
	const struct config_section *found = NULL;
	size_t best = SIZE_MAX;

	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		size_t distance = nearest_nearness(name, sections[i].name);
		if (distance < best) {
			best = distance;
			found = &sections[i];
		}
	}
	if (found)
		(void)snprintf(buf, CONFIG_WHY_MAX, "; did you mean [%s%s%s]?", found->name,
			       found->naming == CONFIG_NAMED ? " " : "",
			       found->naming == CONFIG_NAMED ? found->placeholder : "");
}

/* A key of this very name elsewhere comes first, then a near one here, then a near one elsewhere.
 */
void config_keys_suggest_key(const struct config_section *section, const char *name,
			     char buf[static CONFIG_WHY_MAX])
{
	buf[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (config_keys_index(&sections[i], name) >= 0) {
			(void)snprintf(
				buf, CONFIG_WHY_MAX, "; it belongs in [%s%s%s]", sections[i].name,
				sections[i].naming == CONFIG_NAMED ? " " : "",
				sections[i].naming == CONFIG_NAMED ? sections[i].placeholder : "");
			return;
		}
	size_t best = SIZE_MAX;
	const struct config_key *key = keys_nearest(section, name, &best);
	if (key) {
		(void)snprintf(buf, CONFIG_WHY_MAX, "; did you mean \"%s\"?", key->name);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		key = keys_nearest(&sections[i], name, &best);
		if (key)
			(void)snprintf(buf, CONFIG_WHY_MAX, "; did you mean \"%s\" of [%s]?",
				       key->name, sections[i].name);
	}
}
