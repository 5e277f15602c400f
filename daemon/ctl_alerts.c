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
	else if (r == CONTROL_REFUSED)
		ctl_complain("%s: %s", name ? name : command, text);
	else if (r < 0)
		ctl_complain("%s%s: %s", config->store.path, CONTROL_SUFFIX, strerror(-r));
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

/* Waits until each target was tried, and tells what came of it. */
static int follow_test(struct storage_reader *reader, const struct ctl_options *options, int64_t id)
{
	const struct timespec look = { .tv_nsec = LOOK_MS * CLOCK_NS_PER_MS };
	const struct storage_value value = STORAGE_VALUE_INTEGER(id);
	int64_t until_ms = clock_mono_ms() + TEST_WAIT_MS;
	while (count(reader, "status = 'waiting' AND error IS NULL", id) > 0 &&
	       clock_mono_ms() < until_ms)
		(void)nanosleep(&look, NULL);
	int code = ctl_views_print(
		reader, options->format, "notifications",
		"SELECT target, status, attempts, sent_at, error FROM notifications WHERE id = ?",
		&value, 1);
	return code == 0 && count(reader, "status <> 'sent'", id) != 0 ? CTL_EXIT_FAILED : code;
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
		return follow_test(reader, options, number);
	if (is_retry)
		(void)printf("%lld notifications are sent now\n", (long long)number);
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
