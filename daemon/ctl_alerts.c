/* `alerts`: what fires, and the few things that an operator does about it. Changes go through the
 * running daemon; lists are read from the store.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "control.h"
#include "json.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define LIST_SHOWN                                                                                 \
	"SELECT rule, template, period, state, severity, since_at, last_at, notified_at, "         \
	"not_told, "                                                                               \
	"total, value FROM alerts"
#define ORDER " ORDER BY state = 'resolved', time DESC"
#define TEST_WAIT_MS 15000
#define LOOK_MS 50
#define SQL_MAX 1024

static int list(const struct config *config, struct storage_reader *reader,
		const struct ctl_options *options)
{
	const char *sql = options->format == TABLE_OUT_TABLE ? LIST_SHOWN ORDER
							     : "SELECT * FROM alerts" ORDER;
	ctl_wait_folded(config, reader);
	return ctl_views_print(reader, options->format, "alerts", sql, NULL, 0);
}

/* Asks the daemon; its answer's only number, or -1 after a sentence. */
static int64_t ask(const struct config *config, const char *command, const char *name)
{
	CLEANUP_FREE char *text = NULL;
	struct json_doc *doc = NULL;
	char line[CONTROL_REQUEST_MAX];
	int64_t number = -1;
	(void)snprintf(line, sizeof(line), "alert-%s%s%s", command, name ? " name=" : "",
		       name ? name : "");
	int r = control_call(config->store.path, line, NULL, NULL, &text);
	if (r == CONTROL_NO_DAEMON)
		ctl_complain("no daemon runs on this store: start it, it is what sends");
	else if (r != 0)
		ctl_complain_call(config, name ? name : command, r, text);
	else if (json_parse(text, strlen(text), &doc) == 0 &&
		 !json_integer(json_first(json_root(doc)), &number))
		ctl_complain("the daemon's answer cannot be read");
	json_doc_free(doc);
	return number;
}

static int64_t count(struct storage_reader *reader, const char *what, int64_t id)
{
	char sql[160];
	int64_t n = 0;
	(void)snprintf(sql, sizeof(sql),
		       "SELECT count(*) FROM notifications WHERE id = %lld AND %s", (long long)id,
		       what);
	return storage_reader_integers(reader, sql, &n, 1) < 0 ? -1 : n;
}

/* What a test led to: what was sent, and the targets of the rule that nothing is sent to. */
struct outcome {
	char sql[SQL_MAX];
	struct storage_value values[1 + 2 * ALERT_NOTIFY_MAX];
	size_t n; /* of values */
	size_t n_untold;
};

static bool is_addressed(struct storage_reader *reader, int64_t id, const char *target)
{
	const struct storage_value values[] = { STORAGE_VALUE_INTEGER(id),
						STORAGE_VALUE_TEXT(target) };
	int r = storage_reader_query(
		reader, "SELECT 1 FROM notifications WHERE id = ? AND target = ?", values, 2);
	if (r == 0)
		r = storage_reader_next(reader);
	storage_reader_end(reader);
	return r != 0; /* a failure is told by who reads next */
}

static void add_untold(struct outcome *x, const struct config *config, const char *target)
{
	static const char row[] = " UNION ALL SELECT ?, 'off', 0, NULL, ?";
	const struct config_notify *notify = config_notify_by_name(config, target);
	const char *why = notify && notify->is_on ? "the running daemon has it off: reload it"
						  : "its [notify] has no url, url_file or command";
	size_t len = strlen(x->sql);
	assert(len + sizeof(row) <= sizeof(x->sql) && x->n + 2 <= ARRAY_SIZE(x->values));
	memcpy(x->sql + len, row, sizeof(row));
	x->values[x->n++] = STORAGE_VALUE_TEXT(target);
	x->values[x->n++] = STORAGE_VALUE_TEXT(why);
	x->n_untold++;
}

static void make_outcome(struct outcome *x, const struct config *config,
			 struct storage_reader *reader, const char *name, int64_t id)
{
	const struct config_alert *rule = config_alert_by_name(config, name);
	*x = (struct outcome) { .sql = "SELECT target, status, attempts, sent_at, error "
				       "FROM notifications WHERE id = ?",
				.values = { STORAGE_VALUE_INTEGER(id) },
				.n = 1 };
	for (size_t i = 0; rule && i < rule->rule.n_notify; i++)
		if (!is_addressed(reader, id, rule->rule.notify[i]))
			add_untold(x, config, rule->rule.notify[i]);
}

/* Waits until each target was tried, and tells what came of it. */
static int follow_test(const struct config *config, struct storage_reader *reader,
		       const struct ctl_options *options, int64_t id)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * CLOCK_NS_PER_MS };
	struct outcome x;
	int64_t until_ms = clock_mono_ms() + TEST_WAIT_MS;
	while (count(reader, "status = 'waiting' AND error IS NULL", id) > 0 &&
	       clock_mono_ms() < until_ms)
		(void)nanosleep(&look, NULL);
	make_outcome(&x, config, reader, options->operand, id);
	int code = ctl_views_print(reader, options->format, "notifications", x.sql, x.values, x.n);
	if (code == 0 && (x.n_untold > 0 || count(reader, "status <> 'sent'", id) != 0))
		return CTL_EXIT_FAILED;
	return code;
}

static int change(const struct config *config, struct storage_reader *reader,
		  const struct ctl_options *options)
{
	const char *what = options->argument, *name = options->operand;
	bool is_retry = strcmp(what, "retry") == 0;
	if (!is_retry && !name) {
		ctl_complain("alerts %s: of which %s?", what,
			     strcmp(what, "test") == 0 ? "rule or target" : "rule");
		return CTL_EXIT_USAGE;
	}
	if (name && (strchr(name, ' ') || strlen(name) > CONTROL_SOURCE_MAX)) {
		ctl_complain("%s: no name of a rule or target", name);
		return CTL_EXIT_USAGE;
	}
	int64_t number = ask(config, what, name);
	if (number < 0)
		return CTL_EXIT_FAILED;
	if (strcmp(what, "test") == 0)
		return follow_test(config, reader, options, number);
	if (is_retry)
		(void)printf("%lld notifications are tried again now: e2b-hookctl notifications "
			     "shows what comes of it\n",
			     (long long)number);
	else
		(void)printf("%lld firing alerts acknowledged\n", (long long)number);
	return 0;
}

static bool is_known(const char *what)
{
	static const char *const known[] = { "list", "test", "ack", "retry" };
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(known[i], what) == 0)
			return true;
	return false;
}

int ctl_alerts_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	const char *what = options->argument ? options->argument : "list";
	if (!is_known(what) || (options->operand && strcmp(what, "list") == 0)) {
		ctl_complain("alerts: list, test NAME, ack RULE or retry [TARGET]");
		return CTL_EXIT_USAGE;
	}
	int code = ctl_load_config(options, &config);
	if (code == 0)
		code = ctl_open_store(config, &reader);
	if (code != 0)
		return code;
	return strcmp(what, "list") == 0 ? list(config, reader, options)
					 : change(config, reader, options);
}
