/* Commands that change the store: rebuild, prune, requeue. A running daemon does the work and says
 * how far it is; without one the tool opens the store as a daemon would, with a writer of its own,
 * and does the same. Both end in the same object, printed as one row.
 */
#include "ctl_internal.h"

#include "check.h"
#include "clock.h"
#include "control.h"
#include "json.h"
#include "log.h"
#include "writer.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <libgen.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>

#define LOOK_MS 100
#define TELL_MS 1000
#define FIGURES_MAX 16
/* What a daemon keeps of quarantine and rejections, per source. */
#define SIDE_ROWS_MAX 10000
#define SIDE_BYTES_MAX (INT64_C(64) * 1024 * 1024)
#define REJECTION_AGE_MAX_MS (INT64_C(30) * 24 * 3600 * 1000)

/* ---- being allowed to ---- */

struct storage_options ctl_operate_storage_options(const struct config *config)
{
	return (struct storage_options) {
		.path = config->store.path,
		.wal_limit = config->store.wal_limit,
		.quarantine_rows_max = SIDE_ROWS_MAX,
		.quarantine_bytes_max = SIDE_BYTES_MAX,
		.rejection_rows_max = SIDE_ROWS_MAX,
		.rejection_bytes_max = SIDE_BYTES_MAX,
		.rejection_age_max_ms = REJECTION_AGE_MAX_MS,
	};
}

/* Whose the store is: the directory's owner, or, in a directory of root's, the file's. */
static int find_owner(const struct config *config, struct stat *ret)
{
	struct stat file;
	char copy[4096];

	if (strlen(config->store.path) >= sizeof(copy))
		return -ENAMETOOLONG;
	(void)snprintf(copy, sizeof(copy), "%s", config->store.path);
	if (stat(dirname(copy), ret) < 0)
		return -errno;
	if (ret->st_uid == 0 && lstat(config->store.path, &file) == 0 && S_ISREG(file.st_mode))
		*ret = file;
	return 0;
}

static int become(const struct stat *owner)
{
	const struct passwd *user = getpwuid(owner->st_uid);
	int r = user ? initgroups(user->pw_name, owner->st_gid) : setgroups(0, NULL);

	if (r < 0 || setresgid(owner->st_gid, owner->st_gid, owner->st_gid) < 0 ||
	    setresuid(owner->st_uid, owner->st_uid, owner->st_uid) < 0)
		return -errno;
	return 0;
}

int ctl_operate_become_owner(const struct config *config)
{
	struct stat owner;
	int r = find_owner(config, &owner);

	if (r == 0 && geteuid() == 0 && owner.st_uid != 0)
		r = become(&owner);
	if (r < 0) {
		ctl_complain("%s: %s", config->store.path, strerror(-r));
		return CTL_EXIT_FAILED;
	}
	if (geteuid() == owner.st_uid)
		return 0;
	ctl_complain("%s: belongs to uid %u: run this as that user or as root", config->store.path,
		     (unsigned int)owner.st_uid);
	return CTL_EXIT_FAILED;
}

static volatile sig_atomic_t is_stopped;

static void on_signal(int number)
{
	is_stopped = 1;
}

void ctl_operate_catch_signals(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
	const struct sigaction action = { .sa_handler = on_signal };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		(void)sigaction(numbers[i], &action, NULL);
}

bool ctl_operate_is_stopped(void)
{
	return is_stopped != 0;
}

/* ---- how far it is ---- */

struct progress {
	bool is_terminal, is_shown;
	int64_t told_ms;
};

static void progress_begin(struct progress *p)
{
	*p = (struct progress) { .is_terminal = isatty(STDERR_FILENO), .told_ms = clock_mono_ms() };
}

/* On a terminal one line is redrawn; elsewhere each is a line. */
static void progress_tell(void *ctx, const char *text)
{
	struct progress *p = ctx;

	(void)fprintf(stderr, p->is_terminal ? "\r\033[K" : "e2b-hookctl: ");
	ctl_print_visible(stderr, (struct span) { text, strlen(text) });
	(void)fprintf(stderr, p->is_terminal ? "" : "\n");
	(void)fflush(stderr);
	p->is_shown = true;
}

static void progress_end(const struct progress *p)
{
	if (p->is_shown && p->is_terminal)
		(void)fprintf(stderr, "\r\033[K");
}

/* ---- the answer ---- */

static struct table_out_cell cell_of(const struct json_value *v)
{
	struct table_out_cell cell = { .type = TABLE_OUT_NULL };

	switch (json_type(v)) {
	case JSON_BOOL:
		cell.type = TABLE_OUT_INTEGER;
		cell.integer = json_bool(v);
		break;
	case JSON_NUMBER:
		cell.type = json_integer(v, &cell.integer) ? TABLE_OUT_INTEGER : TABLE_OUT_REAL;
		cell.real = json_number(v);
		break;
	case JSON_STRING:
		cell.type = TABLE_OUT_TEXT;
		cell.text = json_string(v);
		break;
	case JSON_NULL:
	case JSON_ARRAY:
	case JSON_OBJECT:
		break;
	}
	return cell;
}

static int write_row(const struct json_value *object, enum table_out_format format)
{
	const char *names[FIGURES_MAX];
	struct table_out_cell cells[FIGURES_MAX];
	struct table_out *out = NULL;
	size_t n = 0;

	for (const struct json_value *v = json_first(object); v && n < FIGURES_MAX;
	     v = json_next(v)) {
		names[n] = json_key(v);
		cells[n++] = cell_of(v);
	}
	int r = table_out_new(stdout, format, names, n, &out);
	if (r == 0)
		r = table_out_row(out, cells);
	if (r == 0)
		r = table_out_end(out);
	table_out_free(out);
	return r;
}

static int print_answer(const char *text, enum table_out_format format)
{
	struct json_doc *doc = NULL;
	int r = json_parse(text, strlen(text), &doc);

	if (r == 0)
		r = write_row(json_root(doc), format);
	json_doc_free(doc);
	if (r == 0)
		return 0;
	ctl_complain("the answer could not be shown: %s", r < 0 ? strerror(-r) : "not an object");
	return CTL_EXIT_FAILED;
}

/* ---- without a daemon ---- */

struct work {
	const struct ctl_options *options;
	struct control_request request;
	struct config *config;
	struct storage *storage;
	struct writer *writer;
	struct progress progress;
	struct buffer answer;
};

static void tell_now_and_then(struct work *w, const char *text)
{
	int64_t now_ms = clock_mono_ms();

	if (now_ms - w->progress.told_ms < (w->progress.is_terminal ? LOOK_MS : TELL_MS))
		return;
	w->progress.told_ms = now_ms;
	progress_tell(&w->progress, text);
}

typedef bool (*busy_fn)(const struct writer_health *h, char text[static CONTROL_TEXT_MAX]);

static bool is_folding(const struct writer_health *h, char text[static CONTROL_TEXT_MAX])
{
	(void)snprintf(text, CONTROL_TEXT_MAX, "folded %" PRId64 " of %" PRId64, h->folded_seq,
		       h->stored_seq);
	return h->folded_seq < h->stored_seq;
}

static bool is_rebuilding(const struct writer_health *h, char text[static CONTROL_TEXT_MAX])
{
	(void)snprintf(text, CONTROL_TEXT_MAX, "folded %" PRId64 " of %" PRId64, h->rebuild_seq,
		       h->rebuild_target_seq);
	return h->rebuilding;
}

static bool is_pruning(const struct writer_health *h, char text[static CONTROL_TEXT_MAX])
{
	(void)snprintf(text, CONTROL_TEXT_MAX, "pruned %" PRId64 " events, %" PRId64 " sandboxes",
		       h->pruned_events, h->pruned_sandboxes);
	return h->pruning;
}

/* -ECANCELED: a signal came; -EIO …: the store fails. */
static int follow(struct work *w, busy_fn is_busy, struct writer_health *ret)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * CLOCK_NS_PER_MS };
	char text[CONTROL_TEXT_MAX];

	for (;;) {
		writer_health(w->writer, ret);
		if (!is_busy(ret, text))
			return 0;
		if (ret->last_error < 0) {
			ctl_complain("the store fails: %s", ret->last_error_text);
			return ret->last_error;
		}
		if (ctl_operate_is_stopped())
			return -ECANCELED;
		tell_now_and_then(w, text);
		(void)nanosleep(&look, NULL);
	}
}

static int rebuild_here(struct work *w)
{
	struct writer_health h;
	int64_t begun_ms = clock_mono_ms();

	writer_request_rebuild(w->writer);
	int r = follow(w, is_rebuilding, &h);
	if (r < 0)
		return r;
	if (h.rebuild_error < 0) {
		ctl_complain("the rebuild was given up and the ledger is as it was");
		return h.rebuild_error;
	}
	return buffer_appendf(&w->answer, "{\"folded_seq\":%" PRId64 ",\"took_ms\":%" PRId64 "}",
			      h.folded_seq, clock_mono_ms() - begun_ms);
}

/* Only what is folded may go: that first. */
static int prune_here(struct work *w)
{
	struct writer_health h;
	int r = follow(w, is_folding, &h);

	if (r < 0)
		return r;
	writer_request_prune(w->writer);
	r = follow(w, is_pruning, &h);
	if (r < 0)
		return r;
	return buffer_appendf(&w->answer,
			      "{\"pruned_events\":%" PRId64 ",\"pruned_sandboxes\":%" PRId64 "}",
			      h.pruned_events, h.pruned_sandboxes);
}

static int tell_requeue(void *ctx, const struct requeue_counts *n)
{
	char text[CONTROL_TEXT_MAX];

	(void)snprintf(text, sizeof(text),
		       "stored %" PRId64 ", duplicate %" PRId64 ", filtered %" PRId64
		       ", still refused %" PRId64,
		       n->stored + n->folded, n->duplicate, n->filtered,
		       n->quarantined + n->rejected + n->skipped);
	tell_now_and_then(ctx, text);
	return ctl_operate_is_stopped();
}

static int requeue_here(struct work *w)
{
	const struct requeue_options options = {
		.what = w->request.what,
		.source = *w->request.source ? w->request.source : NULL,
		.reason = w->request.reason,
	};
	struct requeue_counts counts;
	struct writer_health h;
	int r = requeue_run(w->writer, w->config, &options, &counts, tell_requeue, w);

	if (r == 0)
		r = follow(w, is_folding, &h);
	return r < 0 ? r : requeue_append_json(&w->answer, &counts);
}

static int (*const actions[])(struct work *w) = {
	[CONTROL_REBUILD] = rebuild_here,
	[CONTROL_PRUNE] = prune_here,
	[CONTROL_REQUEUE] = requeue_here,
};

/* What is judged anew is judged by signature: that needs the secrets, which only their reader has.
 */
static int load_with_secrets(struct work *w)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	int r = config_load(w->config->path, CONFIG_SECRETS_REQUIRED, &config, &report);

	if (r != 0) {
		check_print_report(stderr, w->config->path, &report);
		return r > 0 ? EX_CONFIG : EX_OSERR;
	}
	config_unref(w->config);
	w->config = config;
	return 0;
}

static int start(struct work *w)
{
	const struct storage_options storage = ctl_operate_storage_options(w->config);
	const struct writer_options writer = {
		.queue_limit = (size_t)w->config->store.queue_limit,
		.config = w->config,
	};
	char error[STORAGE_ERROR_MAX] = "";
	int r = storage_open(&storage, &w->storage, error);

	if (r == 0)
		r = writer_new(w->storage, &writer, &w->writer);
	if (r == 0) {
		r = writer_start(w->writer);
		if (r < 0) {
			writer_free(w->writer);
			w->writer = NULL;
		}
	}
	if (r == 0)
		return 0;
	ctl_complain("%s", error[0] ? error : strerror(-r));
	return CTL_EXIT_FAILED;
}

static void stop(struct work *w)
{
	if (w->writer)
		writer_stop(w->writer);
	writer_free(w->writer);
	storage_close(w->storage);
}

static const char *words_for(int r)
{
	if (r == -ECANCELED)
		return "ended on request; nothing is half done";
	if (r == -EINPROGRESS)
		return "the ledger is to be rebuilt first: e2b-hookctl rebuild, then this again";
	return strerror(-r);
}

static int work_here(struct work *w)
{
	const char *name = control_command_name(w->request.command);
	int code = w->request.command == CONTROL_REQUEUE ? load_with_secrets(w) : 0;

	if (code == 0)
		code = ctl_operate_become_owner(w->config);
	if (code != 0)
		return code;
	log_configure(LOG_LEVEL_WARNING, LOG_FORMAT_TEXT);
	ctl_operate_catch_signals();
	code = start(w);
	if (code == 0) {
		int r = actions[w->request.command](w);
		progress_end(&w->progress);
		if (r < 0)
			ctl_complain("%s: %s", name, words_for(r));
		code = r < 0 ? CTL_EXIT_FAILED : 0;
	}
	stop(w);
	return code != 0 ? code : print_answer(w->answer.data, w->options->format);
}

/* ---- by the daemon ---- */

static int ask_daemon(struct work *w, const char *line)
{
	CLEANUP_FREE char *answer = NULL;
	int r = control_call(w->config->store.path, line, progress_tell, &w->progress, &answer);

	progress_end(&w->progress);
	if (r == CONTROL_NO_DAEMON)
		return work_here(w);
	if (r == 0)
		return print_answer(answer, w->options->format);
	ctl_complain_call(w->config, control_command_name(w->request.command), r, answer);
	return CTL_EXIT_FAILED;
}

static void work_finish(struct work *w)
{
	config_unref(w->config);
	buffer_finish(&w->answer);
}

static int run_line(const struct ctl_options *options, const char *line)
{
	CLEANUP(work_finish)
	struct work w = { .options = options, .answer = BUFFER_INIT(CONTROL_ANSWER_MAX) };
	char error[CONTROL_TEXT_MAX];

	if (control_parse(line, strlen(line), &w.request, error) != 0) {
		ctl_complain("--%s", error);
		return CTL_EXIT_USAGE;
	}
	int code = ctl_load_config(options, &w.config);
	if (code == 0 && options->source && !ctl_find_source(w.config, options->source))
		code = CTL_EXIT_USAGE;
	if (code != 0)
		return code;
	progress_begin(&w.progress);
	return ask_daemon(&w, line);
}

int ctl_rebuild_run(const struct ctl_command *command, const struct ctl_options *options)
{
	return run_line(options, control_command_name(CONTROL_REBUILD));
}

int ctl_prune_run(const struct ctl_command *command, const struct ctl_options *options)
{
	return run_line(options, control_command_name(CONTROL_PRUNE));
}

int ctl_requeue_run(const struct ctl_command *command, const struct ctl_options *options)
{
	const struct {
		const char *key, *value;
	} keys[] = {
		{ "what", options->what },
		{ "source", options->source },
		{ "reason", options->reason },
	};
	CLEANUP(buffer_finish) struct buffer line = BUFFER_INIT(CONTROL_REQUEST_MAX);
	int r = buffer_append_text(&line, control_command_name(CONTROL_REQUEUE));

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(keys); i++) {
		if (!keys[i].value)
			continue;
		if (strchr(keys[i].value, ' ')) {
			ctl_complain("--%s: no name has a blank in it", keys[i].key);
			return CTL_EXIT_USAGE;
		}
		r = buffer_appendf(&line, " %s=%s", keys[i].key, keys[i].value);
	}
	if (r < 0) {
		ctl_complain("the options are too long");
		return CTL_EXIT_USAGE;
	}
	return run_line(options, line.data);
}
