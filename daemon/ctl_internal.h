/* What the commands of e2b-hookctl share: the options they take, and help of small size. */
#pragma once

#include "base.h"
#include "buffer.h"
#include "config.h"
#include "storage_reader.h"
#include "table_out.h"

#define CTL_EXIT_FAILED 1
#define CTL_EXIT_USAGE 2
#define CTL_FILE_MAX (64 * 1024 * 1024)

/* One bit for each option; a command says which it takes. */
enum ctl_option {
	CTL_SINCE = 1 << 0,
	CTL_UNTIL = 1 << 1,
	CTL_TEMPLATE = 1 << 2,
	CTL_SANDBOX = 1 << 3,
	CTL_TYPE = 1 << 4,
	CTL_SOURCE = 1 << 5,
	CTL_LIMIT = 1 << 6,
	CTL_FORMAT = 1 << 7,
	CTL_FILE = 1 << 8,
	CTL_COUNT = 1 << 9,
	CTL_FAILED = 1 << 10,
	CTL_URL = 1 << 11,
	CTL_SIGNATURE = 1 << 12,
	CTL_ID = 1 << 13,
	CTL_TIMESTAMP = 1 << 14,
	CTL_REJECTION = 1 << 15,
	CTL_BY = 1 << 16,
	CTL_FORCE = 1 << 17,
	CTL_WHAT = 1 << 18,
	CTL_REASON = 1 << 19,
};

struct ctl_options {
	const char *config_path;
	bool help, version;
	const char *command; /* NULL: none */
	const char *argument; /* what follows it; NULL: nothing */
	const char *operand; /* what follows that */
	unsigned int given; /* enum ctl_option */
	/* NULL, or as initialised, where not given */
	const char *template_name, *sandbox, *type, *source, *file, *url;
	const char *signature, *id, *timestamp;
	const char *by, *what, *reason;
	int64_t since_ms, until_ms;
	int64_t limit; /* 0: none */
	int64_t count, rejection;
	bool failed, force;
	enum table_out_format format;
};

/* Reads a command line. `now_ms` is what `24h` counts back from. 0, or CTL_EXIT_USAGE with a
 * sentence in `error`, which suggests no option that the command before it does not take. Whether
 * the command takes those that are known is not looked at. Pure. */
#define CTL_ERROR_MAX 512
MUST_CHECK int ctl_options_read(int argc, char *const *argv, int64_t now_ms,
				struct ctl_options *ret, char error[static CTL_ERROR_MAX]);
/* The name of the first option in `given` that is not in `allowed`; NULL. */
const char *ctl_options_surplus(unsigned int given, unsigned int allowed);
void ctl_options_print(FILE *f, unsigned int allowed);

struct ctl_view;

struct ctl_command {
	const char *name, *summary;
	const char *details; /* more for its help; NULL */
	unsigned int options;
	int (*run)(const struct ctl_command *command, const struct ctl_options *options);
	const struct ctl_view *view; /* of a command that reads one */
	const char *argument; /* what may follow; NULL: nothing */
	bool takes_operand; /* and one more word */
};

/* The options that a command takes; all of them for NULL and what is no command. */
unsigned int ctl_command_options(const char *name);
/* The whole tool: its exit code. */
int ctl_command_run(int argc, char *const *argv);

/* Commands on views, one row each. False behind the last. */
bool ctl_views_command(size_t i, struct ctl_command *ret);
/* Runs a statement and writes its rows to standard output: the exit code, after a sentence. `about`
 * is what the sentence names. */
int ctl_views_print(struct storage_reader *reader, enum table_out_format format, const char *about,
		    const char *sql, const struct storage_value *values, size_t n);
/* Views are indexed by the id: turns an alias into it. */
const char *ctl_views_template_id(const struct config *config, const char *name);

int ctl_status_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_send_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_sign_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_verify_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_costs_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_tail_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_rebuild_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_prune_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_requeue_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_backup_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_restore_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_alerts_run(const struct ctl_command *command, const struct ctl_options *options);
int ctl_check_run(const struct ctl_command *command, const struct ctl_options *options);

/* ---- small things (ctl_common.c) ---- */

/* `e2b-hookctl: …` on standard error. */
void ctl_complain(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* The same of a control_call that ended with `r`; `about`: what was asked. */
void ctl_complain_call(const struct config *config, const char *about, int r, const char *answer);
/* Untrusted text on one line, as a terminal may see it. */
void ctl_print_visible(FILE *f, struct span text);
/* Loads the configuration without secrets; 0, or the exit code after its problems were printed. */
MUST_CHECK int ctl_load_config(const struct ctl_options *options, struct config **ret);
void ctl_config_unref_pointer(struct config **config);
/* The store of the configuration; 0, or the exit code after a sentence. */
MUST_CHECK int ctl_open_store(const struct config *config, struct storage_reader **ret);
/* Waits at most 2 s until what is stored now is folded, if a daemon is there to do it; says the lag
 * otherwise. */
void ctl_wait_folded(const struct config *config, struct storage_reader *reader);
/* A file, or standard input for `-`, whole; 0, or the exit code after a sentence. */
MUST_CHECK int ctl_read_file(const char *path, struct buffer *ret);
/* The source by name, or the first of the file for NULL; NULL after a sentence. */
const struct config_source *ctl_find_source(const struct config *config, const char *name);
/* For filters: 0 if the source is in the configuration or left something in the store (it may have
 * been removed since), or for NULL; else the exit code after a sentence. */
MUST_CHECK int ctl_check_stored_source(const struct config *config, struct storage_reader *reader,
				       const char *name);
/* A lower-case UUID of version 4. -EIO. */
#define CTL_UUID_MAX 37
MUST_CHECK int ctl_make_uuid(char buf[static CTL_UUID_MAX]);
/* Flushes standard output: `code`, or failure if something could not be written. */
int ctl_finish_output(int code);

/* ---- working on the store (ctl_operate.c) ---- */

/* How the daemon opens the store of this configuration. */
struct storage_options ctl_operate_storage_options(const struct config *config);
/* For who writes into the store's directory: as root, becomes the owner of that directory for the
 * rest of the process, so that the daemon finds files of its own and root follows no name that
 * others may change. 0, or the exit code after a sentence if it is somebody else's. */
MUST_CHECK int ctl_operate_become_owner(const struct config *config);
/* From now on SIGINT, SIGTERM and SIGHUP only make ctl_operate_is_stopped() true. */
void ctl_operate_catch_signals(void);
bool ctl_operate_is_stopped(void);

/* ---- secrets (ctl_secrets.c) ---- */

/* Secrets of one source, as bytes: wiped when freed. */
struct ctl_secrets {
	char *text;
	size_t len;
	struct span items[SIGNATURE_SECRETS_MAX]; /* in file order, position 1 first */
	size_t n;
};
/* -ENOENT …; `error` says which file and what to do, never a byte of it. */
MUST_CHECK int ctl_secrets_read(const struct config_source *source, struct ctl_secrets *ret,
				char error[static CTL_ERROR_MAX]);
void ctl_secrets_finish(struct ctl_secrets *secrets);
/* The same as the daemon's keyring. */
MUST_CHECK int ctl_secrets_keyring(const struct config_source *source,
				   const struct ctl_secrets *secrets,
				   struct signature_keyring **ret,
				   char error[static CTL_ERROR_MAX]);

/* The headers that sign a body, with the first secret. */
struct ctl_signed {
	struct {
		const char *name; /* constant, or the configuration's */
		char value[SIGNATURE_HEADER_MAX];
	} headers[3];
	size_t n;
};
/* `id` and `timestamp` matter to standard-webhooks only; NULL: made up. 0, or -EINVAL … */
MUST_CHECK int ctl_secrets_sign(const struct config_source *source,
				const struct signature_keyring *keyring, const char *id,
				const char *timestamp, struct span body, int64_t now_unix_s,
				struct ctl_signed *ret);

/* ---- bodies (ctl_body.c) ---- */

struct ctl_body {
	const char *type; /* "killed", "sandbox.lifecycle.killed", anything; NULL: the test event */
	const char *sandbox_id; /* NULL: a fresh one */
	const char *template_id; /* NULL: a made-up one */
	bool failed; /* code_executed */
	int64_t now_ms;
};
/* Appends the body of an event. -EIO, -ENOMEM. */
MUST_CHECK int ctl_body_append(struct buffer *b, const struct ctl_body *wanted);

/* ---- the doctor (ctl_doctor.c) ---- */

/* What a signature is over; spans may be absent. */
struct ctl_doctor_case {
	struct span signature, body, id, timestamp;
};
struct ctl_doctor_source {
	const struct config_source *source;
	const struct ctl_secrets *secrets;
};
/* Finds out which scheme, secret and mistake made a signature that is not right for sources[0], and
 * appends the findings, one a line, without ever a signature or a piece of a secret. -ENOMEM, -EIO.
 */
MUST_CHECK int ctl_doctor_explain(struct buffer *findings, const struct ctl_doctor_case *it,
				  const struct ctl_doctor_source *sources, size_t n_sources);
