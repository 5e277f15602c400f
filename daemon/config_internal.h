/* What the config_*.c files share and nobody else sees.
 *
 *   config_keys     the table: every section and key, its default, bounds, meaning
 *   config_value    text -> value, per type; config_number and config_address help it
 *   config_report   the findings
 *   config_read     file text -> instances (one per section of the file), defaults included
 *   config_check    what keys must hold together; config_alert those of [notify] and [alert]
 *   config_secrets  the files that keys point at
 *   config_example  config.example.ini and docs/configuration.md out of the table
 *   config          the public calls, and the finished struct config
 */
#pragma once

#include "config.h"

#include <sys/stat.h>

#define CONFIG_FILE_MAX (4 * 1024 * 1024)
#define CONFIG_SECRET_FILE_MAX (64 * 1024)
#define CONFIG_PROBLEMS_MAX 200 /* further ones are counted, not kept */
#define CONFIG_SECTION_KEYS_MAX 24
#define CONFIG_WHY_MAX 256
#define CONFIG_QUOTE_MAX 96
#define CONFIG_ID_MAX 128

/* ---- the table ---- */

enum config_type {
	CONFIG_TYPE_COUNT,
	CONFIG_TYPE_SIZE,
	CONFIG_TYPE_DURATION,
	CONFIG_TYPE_OCTAL,
	CONFIG_TYPE_RATE,
	CONFIG_TYPE_DECIMAL, /* in 10^-9 */
	CONFIG_TYPE_YES_NO,
	CONFIG_TYPE_SCHEME,
	CONFIG_TYPE_LOG_LEVEL,
	CONFIG_TYPE_LOG_FORMAT,
	CONFIG_TYPE_ON_CORRUPT,
	CONFIG_TYPE_FILE, /* an absolute path */
	CONFIG_TYPE_STORE_PATH,
	CONFIG_TYPE_HTTP_PATH,
	CONFIG_TYPE_HEADER,
	CONFIG_TYPE_GROUP,
	CONFIG_TYPE_ID,
	CONFIG_TYPE_GLOBS,
	CONFIG_TYPE_URL,
	CONFIG_TYPE_NOTIFY_KIND,
	CONFIG_TYPE_ALERT_ON,
	CONFIG_TYPE_SEVERITY,
	CONFIG_TYPE_STATUSES, /* [alert]; these two know the struct */
	CONFIG_TYPE_TARGETS,
	/* These know the whole struct of their section. */
	CONFIG_TYPE_LISTENERS, /* [server]; the one that may repeat */
	CONFIG_TYPE_LISTEN, /* [admin] */
	CONFIG_TYPE_NETWORKS, /* [server] */
	CONFIG_TYPE_SECRET_FILE, /* [source] */
	CONFIG_TYPE_SECRET_CREDENTIAL,
	CONFIG_TYPE_SECRET_ENV,
};
#define CONFIG_N_TYPES (CONFIG_TYPE_SECRET_ENV + 1)

struct config_key {
	const char *name;
	enum config_type type;
	const char *fallback; /* default text; "": empty means unset; NULL: no default */
	int64_t min, max; /* of integers, in the type's unit */
	const char *zero; /* what 0 means where it is allowed below min; NULL */
	size_t offset; /* of the field in the struct of the section */
	bool live; /* a reload changes it */
	const char *doc; /* one sentence */
};

enum config_naming { CONFIG_UNNAMED, CONFIG_NAMED, CONFIG_NAMED_OR_NOT };

struct config_section {
	const char *name;
	enum config_naming naming;
	const char *placeholder; /* NAME, ID, DATE */
	const char *doc;
	size_t size; /* of the struct that an instance fills */
	size_t instances_max;
	const struct config_key *keys;
	size_t n_keys;
};

/* What [pricing] and [pricing DATE] fill: 10^-15 USD, -1: not given. */
struct config_rates {
	int64_t vcpu_femto, gib_femto;
};

/* What [log] fills. */
struct config_log {
	enum log_level level;
	enum log_format format;
};

const struct config_section *config_keys_sections(size_t *ret_n);
const struct config_section *config_keys_section(const char *name);
/* The key's place in section->keys, or -1. */
int config_keys_index(const struct config_section *section, const char *name);
/* "; did you mean …" for a name that is unknown, or "" when nothing is near. */
void config_keys_suggest_section(const char *name, char buf[static CONFIG_WHY_MAX]);
void config_keys_suggest_key(const struct config_section *section, const char *name,
			     char buf[static CONFIG_WHY_MAX]);

/* ---- values ---- */

/* Sets the key's field in `target`, the struct of the section. -EINVAL with the reason, a clause
 * that follows "[section] key: "; -ENOMEM. The reason quotes no value of a secret's key. */
MUST_CHECK int config_value_parse(const struct config_key *key, void *target, const char *text,
				  char why[static CONFIG_WHY_MAX]);
/* The field of a key that was not given and has no default. */
void config_value_unset(const struct config_key *key, void *target);
void config_value_release(const struct config_key *key, void *target);
bool config_value_same(const struct config_key *key, const void *a, const void *b);
/* "a duration, 1s to 24h, or 0" for the reference. */
void config_value_describe(const struct config_key *key, char *buf, size_t size);
/* CONTRACT: 1-128 bytes of [A-Za-z0-9._:#/@+-], no `..` path segment. */
bool config_value_is_id(const char *text);
/* Only characters of `allowed`, and between 1 and `max` of them. */
bool config_value_is_made_of(const char *text, const char *allowed, size_t max);
#define CONFIG_ALNUM "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

/* As config_value_parse, for an integer. */
MUST_CHECK int config_number_parse(const struct config_key *key, int64_t *ret, const char *text,
				   char why[static CONFIG_WHY_MAX]);
/* "1s to 1d, or 0: off". */
void config_number_bounds(const struct config_key *key, char *buf, size_t size);

/* `host:port`, `[v6]:port`, `unix:/path`, `systemd`. As config_value_parse; *ret is untouched
 * unless 0 is returned. */
MUST_CHECK int config_address_parse_listen(struct config_listen *ret, const char *text,
					   char why[static CONFIG_WHY_MAX]);
void config_address_finish(struct config_listen *listen);
bool config_address_same(const struct config_listen *a, const struct config_listen *b);
/* Both cannot be bound. */
bool config_address_clashes(const struct config_listen *a, const struct config_listen *b);
/* Reachable from this machine only, as far as the text tells: `systemd` is not. */
bool config_address_is_local(const struct config_listen *listen);
/* An address or a CIDR. 0 or -EINVAL. */
MUST_CHECK int config_address_parse_network(struct config_cidr *ret, const char *text,
					    char why[static CONFIG_WHY_MAX]);

/* ---- findings ---- */

MUST_CHECK int config_report_add(struct config_report *report, bool is_error, unsigned int line,
				 const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Into the order of the file; what concerns the whole file comes last. */
void config_report_sort(struct config_report *report);
/* Puts `"text"` into buf, shortened at a character's boundary. Returns buf. */
const char *config_report_quote(char buf[static CONFIG_QUOTE_MAX], const char *text);

/* ---- reading ---- */

/* One section of the file, or of the defaults (line 0). */
struct config_instance {
	const struct config_section *section;
	char *name; /* "" if none */
	unsigned int line;
	void *target;
	struct {
		unsigned int line; /* 0: not in the file */
		bool is_bad;
	} keys[CONFIG_SECTION_KEYS_MAX];
};

struct config_reading {
	const char *path;
	enum config_secrets secrets;
	struct config_report *report;
	struct config_instance **instances;
	size_t n_instances;
	struct config_instance *current; /* NULL: entries are skipped */
	int rc; /* the first negative errno; then nothing is believed */
};

/* Reads text into instances, fills in defaults. Findings go to the report. 0 or -ENOMEM. */
MUST_CHECK int config_read_text(struct config_reading *r, const char *text, size_t len);
void config_read_finish(struct config_reading *r);
/* Frees what the keys of a section put into its struct, and what the secrets did. */
void config_read_release(const char *section, void *target);
/* Iterates over the instances of a section: start with *i = 0; NULL at the end. */
struct config_instance *config_read_next(const struct config_reading *r, const char *section,
					 size_t *i);
/* The one instance of an unnamed section. */
struct config_instance *config_read_only(const struct config_reading *r, const char *section);
unsigned int config_read_line_of(const struct config_instance *instance, const char *key);
/* True unless one of the named keys could not be read (so that one fault is told once). */
bool config_read_is_sound(const struct config_instance *instance, const char *key);
/* Reports about an instance: "[source e2b] …". Keeps r->rc. */
void config_read_complain(struct config_reading *r, bool is_error, unsigned int line,
			  const struct config_instance *instance, const char *fmt, ...)
	PRINTF_LIKE(5, 6);

/* Whether the keys agree with each other. Findings go to the report, -ENOMEM to r->rc. */
void config_check_all(struct config_reading *r);
/* Filters that most likely hold a typing mistake: what they refuse is not kept. Warnings, since a
 * later sender may know more names than we do. */
void config_filter_check(struct config_reading *r);
/* The part of it about [notify] and [alert]; also fills in what depends on the kind of rule. */
void config_alert_check(struct config_reading *r);

/* Reads the secret files that the instances name; fills keyrings and the token. */
void config_secrets_resolve(struct config_reading *r);
void config_secrets_release(const char *section, void *target);
/* A regular file's bytes (caller wipes and frees). -EFBIG over max, -EINVAL not a regular file, or
 * open's and read's errno. */
MUST_CHECK int config_secrets_read_file(const char *path, size_t max, char **ret, size_t *ret_len,
					struct stat *ret_stat);
