#include "check.h"
#include "config.h"
#include "exit_code.h"
#include "secrecy.h"
#include "service.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

/* The command line and the signals of e2b-hookd. Signals are blocked in every thread and taken by
 * this one with sigtimedwait(2): nothing ever runs in a signal handler.
 */

#define DRAIN_LOOK_NS 20000000

struct options {
	const char *config_path;
	bool check, version, help;
};

struct option_row {
	const char *name, *alias; /* alias: NULL for none */
	const char *value; /* what it takes; NULL: nothing */
	size_t offset; /* in struct options: const char * or bool */
	const char *help;
};

static const struct option_row rows[] = {
	{ "--config", "-c", "FILE", offsetof(struct options, config_path),
	  "the configuration (" CONFIG_DEFAULT_PATH ")" },
	{ "--check", NULL, NULL, offsetof(struct options, check),
	  "print every problem of the configuration and exit: 0 or 78" },
	{ "--version", NULL, NULL, offsetof(struct options, version),
	  "print the version and exit" },
	{ "--help", "-h", NULL, offsetof(struct options, help), "print this and exit" },
};

static void print_help(FILE *f)
{
	(void)fprintf(f,
		      "Usage: e2b-hookd [OPTION]…\n\n"
		      "Receives E2B sandbox webhooks, verifies them and stores events and costs.\n"
		      "\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char left[40];

		(void)snprintf(left, sizeof(left), "%s%s%s%s%s", rows[i].alias ? rows[i].alias : "",
			       rows[i].alias ? ", " : "    ", rows[i].name,
			       rows[i].value ? " " : "", rows[i].value ? rows[i].value : "");
		(void)fprintf(f, "  %-20s %s\n", left, rows[i].help);
	}
	(void)fprintf(f,
		      "\nSignals: SIGTERM and SIGINT stop after open requests are answered, twice\n"
		      "at once; SIGHUP reads the configuration again.\n");
}

static int usage_error(const char *what, const char *argument)
{
	(void)fprintf(stderr, "e2b-hookd: %s: %s\nTry: e2b-hookd --help\n", what, argument);
	return EXIT_CODE_USAGE;
}

static const struct option_row *find_option(const char *argument, size_t *ret_name_len)
{
	const char *equals = strncmp(argument, "--", 2) == 0 ? strchr(argument, '=') : NULL;
	size_t len = equals ? (size_t)(equals - argument) : strlen(argument);

	*ret_name_len = len;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		if ((strlen(rows[i].name) == len && strncmp(rows[i].name, argument, len) == 0) ||
		    (rows[i].alias && strcmp(rows[i].alias, argument) == 0))
			return &rows[i];
	}
	return NULL;
}

/* Whole names only: an abbreviation that works today would stop to with the next option. */
static int parse(int argc, char **argv, struct options *options)
{
	for (int i = 1; i < argc; i++) {
		size_t name_len;
		const struct option_row *row = find_option(argv[i], &name_len);
		bool has_value = row && argv[i][name_len] == '=';
		char *field;

		if (!row)
			return usage_error(argv[i][0] == '-' ? "unknown option"
							     : "unexpected argument",
					   argv[i]);
		field = (char *)options + row->offset;
		if (!row->value && has_value)
			return usage_error("this option takes no value", row->name);
		if (!row->value) {
			*(bool *)(void *)field = true;
			continue;
		}
		if (!has_value && i + 1 == argc)
			return usage_error("this option needs a value", row->name);
		*(const char **)(void *)field = has_value ? argv[i] + name_len + 1 : argv[++i];
	}
	return 0;
}

/* --- signals --- */

static void block_signals(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)sigaddset(set, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
}

static bool is_stop(int number)
{
	return number == SIGTERM || number == SIGINT;
}

/* The next signal, or -1 when the service wants a tick. */
static int next_signal(const sigset_t *set, int64_t ms)
{
	const struct timespec wait = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	return sigtimedwait(set, NULL, &wait);
}

/* The exit code: not 0 where it ended for want of a new start. */
static int serve(struct service *service, const sigset_t *set)
{
	const struct timespec look = { .tv_nsec = DRAIN_LOOK_NS };
	int number;

	do {
		number = next_signal(set, service_tick(service));
		if (number == SIGHUP)
			service_reload(service);
	} while (!is_stop(number) && !service_wants_end(service));
	service_begin_stop(service);
	/* A second request to stop means now. */
	while (!service_has_drained(service) && !is_stop(sigtimedwait(set, NULL, &look)))
		;
	return is_stop(number) ? 0 : EX_IOERR;
}

int main(int argc, char **argv)
{
	struct options options = { .config_path = CONFIG_DEFAULT_PATH };
	struct service *service = NULL;
	sigset_t set;
	int r = parse(argc, argv, &options);

	secrecy_begin();
	if (r != 0)
		return r;
	if (options.help) {
		print_help(stdout);
		return 0;
	}
	if (options.version) {
		(void)printf("e2b-hookd %s\n", HOOKD_VERSION);
		return 0;
	}
	if (options.check)
		return check_run(options.config_path, stdout, stderr);
	block_signals(&set);
	r = service_start(options.config_path, &service);
	if (r != 0)
		return r;
	r = serve(service, &set);
	service_finish(service);
	return r;
}
