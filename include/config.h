/* The configuration: one table row per key, from which defaults, parsing, --check, documentation
 * and config.example.ini follow. Loading reports every problem, each with file:line and the nearest
 * known name.
 *
 * A loaded configuration is immutable and reference-counted: a reload makes a new one, and who
 * still works with the old one keeps it alive. Any thread may hold one.
 */
#pragma once

#include "base.h"
#include "alert_message.h"
#include "alert_rule.h"
#include "glob.h"
#include "ingest.h"
#include "log.h"
#include "pricing.h"
#include "signature.h"

#define CONFIG_DEFAULT_PATH HOOKD_SYSCONFDIR "/e2b-hookd/config.ini" /* /etc by default */
#define CONFIG_LISTEN_MAX 16
#define CONFIG_SOURCES_MAX 64
#define CONFIG_TEMPLATES_MAX 4096
#define CONFIG_PROXIES_MAX 64
#define CONFIG_ALERTS_MAX 64
#define CONFIG_NOTIFY_MAX ALERT_NOTIFY_MAX

enum config_listen_kind { CONFIG_LISTEN_TCP, CONFIG_LISTEN_UNIX, CONFIG_LISTEN_SYSTEMD };

struct config_listen {
	enum config_listen_kind kind;
	char *text; /* as written */
	char *host; /* tcp: numeric IPv4 or IPv6 without brackets, or "localhost"; never resolved by
		       DNS */
	uint16_t port; /* tcp; 0 lets the kernel choose (tests) */
	char *path; /* unix */
	unsigned int line;
};

struct config_cidr {
	uint8_t address[16]; /* IPv4 as v4-mapped */
	uint8_t prefix; /* 0..128 in that form */
};

struct config_server {
	struct config_listen listen[CONFIG_LISTEN_MAX];
	size_t n_listen;
	int64_t unix_mode; /* the number itself, 0660 = 432; octal in the file */
	char *unix_group; /* NULL: keep */
	int64_t max_connections, max_connections_per_ip;
	int64_t header_timeout_ms, request_timeout_ms, drain_timeout_ms;
	struct config_cidr trusted_proxies[CONFIG_PROXIES_MAX];
	size_t n_trusted_proxies;
	bool trust_unix; /* `unix` among trusted_proxies */
};

struct config_admin {
	struct config_listen listen; /* text NULL: off */
	bool enabled;
	char *token_file; /* NULL: none */
	char *token; /* resolved; NULL: none */
};

struct config_store {
	char *path;
	int64_t retention_ms, ledger_retention_ms; /* 0: for ever */
	int64_t max_size; /* bytes; 0: no limit */
	int64_t queue_limit;
	int64_t commit_timeout_ms;
	int64_t wal_limit; /* bytes */
	int64_t max_run_ms;
	bool set_damaged_aside; /* on_corrupt = rotate */
};

enum config_secret_from {
	CONFIG_SECRET_NONE,
	CONFIG_SECRET_FILE,
	CONFIG_SECRET_CREDENTIAL,
	CONFIG_SECRET_ENV
};

struct config_source {
	char *name;
	char *path; /* HTTP path */
	enum signature_scheme scheme;
	char *header; /* lower case, never NULL; hmac-sha256 only may set it */
	enum config_secret_from secret_from;
	char *secret_name; /* file, credential or variable */
	char *secret_path; /* the resolved file; NULL if not resolvable here */
	struct ingest_policy policy; /* keyring is NULL when secrets were not resolved */
	bool priced;
	int64_t max_body;
	unsigned int line;
};

struct config_template {
	char *id;
	char *alias; /* NULL: none */
	int64_t vcpu, memory_mb; /* -1: not given */
};

/* [notify NAME]. Where to send to is secret. */
struct config_notify {
	char *name;
	enum notify_kind kind;
	char *url, *url_file, *secret_file, *command; /* as written; NULL: not given */
	int64_t timeout_ms;
	char *read_url; /* from url_file */
	struct signature_keyring *keyring;
	struct notify_target target; /* the above, for who sends */
	bool is_on; /* it has somewhere to send to */
};

/* [alert NAME] */
struct config_alert {
	char *name;
	struct alert_rule rule;
};

struct config {
	char *path; /* of the file */
	struct config_server server;
	struct config_admin admin;
	struct config_store store;
	struct config_source *sources;
	size_t n_sources;
	struct config_template *templates; /* sorted by id */
	size_t n_templates;
	struct pricing pricing;
	struct config_notify *notify;
	size_t n_notify;
	struct config_alert *alerts;
	size_t n_alerts;
	enum log_level log_level;
	enum log_format log_format;
	struct ingest_templates lookup; /* over `templates` */
	/* private */
	unsigned int refs;
	struct config_template **by_alias; /* those with an alias, sorted by it */
	size_t n_aliases;
};

/* One finding. Errors refuse the file, warnings do not. */
struct config_problem {
	bool is_error;
	unsigned int line; /* 0: the file as a whole */
	char text[384]; /* without file:line; never a secret */
};

struct config_report {
	struct config_problem *items; /* in file order; line 0 last; the first 200 found */
	size_t n, n_errors; /* n_errors counts those beyond, too */
};
void config_report_finish(struct config_report *report);

/* How secrets are treated: the daemon needs them; the tool's reading commands do not; a check
 * reports a credential that only the unit has as "not checkable here" (a warning). */
enum config_secrets { CONFIG_SECRETS_REQUIRED, CONFIG_SECRETS_CHECK, CONFIG_SECRETS_IGNORED };

/* Reads, checks and resolves a file; whatever `report` held is forgotten, not freed. 0 with *ret
 * (also when there are warnings); 1 (CONFIG_BAD) when the report holds errors; negative errno only
 * for memory. A missing or unreadable file is an error in the report. */
#define CONFIG_BAD 1
MUST_CHECK int config_load(const char *path, enum config_secrets secrets, struct config **ret,
			   struct config_report *report);
/* The same from memory (tests, fuzzers): `path` only becomes config->path. */
MUST_CHECK int config_load_text(const char *path, const char *text, size_t len,
				enum config_secrets secrets, struct config **ret,
				struct config_report *report);

struct config *config_ref(struct config *config);
void config_unref(struct config *config);

/* The template row by id, or by alias; NULL. */
const struct config_template *config_template_by_id(const struct config *config, struct span id);
const struct config_template *config_template_by_alias(const struct config *config,
						       struct span alias);
/* The source that owns an HTTP path; NULL. */
const struct config_source *config_source_by_path(const struct config *config, const char *path);
const struct config_source *config_source_by_name(const struct config *config, const char *name);

const struct config_notify *config_notify_by_name(const struct config *config, const char *name);
const struct config_alert *config_alert_by_name(const struct config *config, const char *name);

/* Do both make the same ledger of the same events? */
bool config_same_terms(const struct config *a, const struct config *b);
/* What a reload cannot change (listeners, store path, limits …): writes the "section.key" names
 * that differ, comma-separated, to buf (cut where it is full); returns their count. */
size_t config_restart_needed(const struct config *now, const struct config *next, char *buf,
			     size_t size);

/* The key table as config.example.ini, and as docs/configuration.md. */
void config_print_example(FILE *f);
void config_print_reference(FILE *f);
