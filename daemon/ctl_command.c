/* The commands: a table that finds them, prints their help and runs them. A command takes the
 * options of its row and no others.
 */
#include "ctl_internal.h"

#include "check.h"
#include "clock.h"
#include "nearest.h"

#include <string.h>

static int run_check_config(const struct ctl_command *command, const struct ctl_options *options)
{
	return check_run(options->config_path, stdout, stderr);
}

static int run_help(const struct ctl_command *command, const struct ctl_options *options);

#define SEND_DETAILS                                                                               \
	"The body is signed with the first secret of the source and goes through the listener\n"   \
	"of the configuration. Types: test (the default: stored, never in money, ledger or\n"      \
	"alerts), created, resumed, updated, paused, killed, checkpointed, code_executed, or "     \
	"any\n"                                                                                    \
	"other type as it is; these count as real. Exit 0 only if every answer was 200.\n"
#define VERIFY_DETAILS                                                                             \
	"Says whether the source takes this signature, by which secret (by position), and what\n"  \
	"would become of the body; and if not, what it was made with: another scheme, source or\n" \
	"alphabet, a common mistake. The right signature is never printed.\n"
#define COSTS_DETAILS                                                                              \
	"Run time and money of ended runs, spread over the hours they were up in. --since and\n"   \
	"--until go by whole hours. By metadata:KEY a run counts whole, at its start. cost is\n"   \
	"what is known: unknown_cost says of how many runs it is not.\n"
#define TAIL_DETAILS                                                                               \
	"Each event as it is stored, until Ctrl-C or until nobody reads. json: a line each.\n"
#define DAEMON_DETAILS "Asks the running daemon (same user, or root); without one, does it here.\n"
#define REQUEUE_DETAILS                                                                            \
	"What is accepted now is stored, what is still refused stays. " DAEMON_DETAILS
#define BACKUP_DETAILS                                                                             \
	"A copy of one moment, taken beside the daemon, durable and whole when this ends. Needs\n" \
	"reading rights only. Put it in place with restore.\n"
#define RESTORE_DETAILS                                                                            \
	"Only while no daemon runs. The file is checked first; the old store is set aside "        \
	"whole.\n"
#define CHECK_DETAILS                                                                              \
	"Pages, indexes, and whether sums and counters are what the rows say; of a copy, if "      \
	"FILE\n"                                                                                   \
	"is given. A line for each finding; exit 0 only without any.\n"
#define ALERTS_DETAILS                                                                             \
	"list shows what fires, and what did. test sends a notification of a rule, or to a\n"      \
	"target, and waits for what comes of it: exit 0 only if every target took it. ack stops\n" \
	"repeats until the alert is over. retry sends at once what waits or was given up.\n"       \
	"What was sent: e2b-hookctl notifications.\n"
#define STATUS_DETAILS                                                                             \
	"Exit 0 only if healthy: no row with ok = 0. Whether the daemon is ready, and how its\n"   \
	"last reload went, is told to root and its own user; for others that is unknown.\n"

static const struct ctl_command commands[] = {
	{ .name = "check-config",
	  .summary = "print every problem of the configuration: exit 0 or 78",
	  .run = run_check_config },
	{ .name = "status",
	  .summary = "what is stored, ledger lag, sizes, secrets in use; exit 0 when healthy",
	  .details = STATUS_DETAILS,
	  .options = CTL_FORMAT,
	  .run = ctl_status_run },
	{ .name = "send",
	  .summary = "build, sign and POST a delivery through the listener",
	  .details = SEND_DETAILS,
	  .options = CTL_SOURCE | CTL_TYPE | CTL_TEMPLATE | CTL_SANDBOX | CTL_FILE | CTL_COUNT |
		     CTL_FAILED | CTL_URL,
	  .run = ctl_send_run },
	{ .name = "sign",
	  .summary = "print the signature headers for a body",
	  .options = CTL_SOURCE | CTL_FILE | CTL_ID | CTL_TIMESTAMP,
	  .run = ctl_sign_run },
	{ .name = "verify",
	  .summary = "which scheme, alphabet and secret made a signature",
	  .details = VERIFY_DETAILS,
	  .options = CTL_SOURCE | CTL_FILE | CTL_SIGNATURE | CTL_ID | CTL_TIMESTAMP | CTL_REJECTION,
	  .run = ctl_verify_run },
	{ .name = "costs",
	  .summary = "sums of run time and money by template, day, team …",
	  .details = COSTS_DETAILS,
	  .options = CTL_BY | CTL_SINCE | CTL_UNTIL | CTL_TEMPLATE | CTL_SOURCE | CTL_LIMIT |
		     CTL_FORMAT,
	  .run = ctl_costs_run },
	{ .name = "tail",
	  .summary = "follow new events",
	  .details = TAIL_DETAILS,
	  .options = CTL_TYPE | CTL_TEMPLATE | CTL_SANDBOX | CTL_SOURCE | CTL_FORMAT,
	  .run = ctl_tail_run },
	{ .name = "alerts",
	  .summary = "what fires; try a target; acknowledge; send again",
	  .details = ALERTS_DETAILS,
	  .options = CTL_FORMAT,
	  .run = ctl_alerts_run,
	  .argument = "[list | test NAME | ack RULE | retry [TARGET]]",
	  .takes_operand = true },
	{ .name = "requeue",
	  .summary = "judge anew what was quarantined, rejected or skipped",
	  .details = REQUEUE_DETAILS,
	  .options = CTL_WHAT | CTL_SOURCE | CTL_REASON | CTL_FORMAT,
	  .run = ctl_requeue_run },
	{ .name = "rebuild",
	  .summary = "compute the ledger anew from the stored events",
	  .details = DAEMON_DETAILS,
	  .options = CTL_FORMAT,
	  .run = ctl_rebuild_run },
	{ .name = "prune",
	  .summary = "retention now, also where it waits for a word",
	  .details = DAEMON_DETAILS,
	  .options = CTL_FORMAT,
	  .run = ctl_prune_run },
	{ .name = "backup",
	  .summary = "copy the store to DEST beside the running daemon",
	  .details = BACKUP_DETAILS,
	  .options = CTL_FORCE,
	  .run = ctl_backup_run,
	  .argument = "DEST" },
	{ .name = "restore",
	  .summary = "put a copy in place of the store",
	  .details = RESTORE_DETAILS,
	  .run = ctl_restore_run,
	  .argument = "FILE" },
	{ .name = "check",
	  .summary = "find out whether the store is sound",
	  .details = CHECK_DETAILS,
	  .run = ctl_check_run,
	  .argument = "[FILE]" },
	{ .name = "help",
	  .summary = "what the tool, or a COMMAND, does",
	  .run = run_help,
	  .argument = "COMMAND" },
};

/* Commands of the table, then those of the views. */
static bool command_at(size_t i, struct ctl_command *ret)
{
	if (i >= ARRAY_SIZE(commands))
		return ctl_views_command(i - ARRAY_SIZE(commands), ret);
	*ret = commands[i];
	return true;
}

static bool find_command(const char *name, struct ctl_command *ret)
{
	for (size_t i = 0; command_at(i, ret); i++)
		if (strcmp(ret->name, name) == 0)
			return true;
	return false;
}

unsigned int ctl_command_options(const char *name)
{
	struct ctl_command command;

	return name && find_command(name, &command) ? command.options : ~0u;
}

static int unknown_command(const char *name)
{
	struct ctl_command command;
	const char *nearest = NULL;
	size_t best = SIZE_MAX;

	for (size_t i = 0; command_at(i, &command); i++) {
		size_t d = nearest_nearness(name, command.name);
		if (d < best) {
			best = d;
			nearest = command.name;
		}
	}
	if (nearest)
		ctl_complain("unknown command: %s. Did you mean %s?", name, nearest);
	else
		ctl_complain("unknown command: %s. Try: e2b-hookctl help", name);
	return CTL_EXIT_USAGE;
}

static void print_overview(FILE *f)
{
	struct ctl_command command;

	(void)fprintf(f, "Usage: e2b-hookctl [-c FILE] COMMAND [OPTION]…\n\n"
			 "Looks after e2b-hookd: reads its store, signs, verifies and sends.\n\n");
	for (size_t i = 0; command_at(i, &command); i++)
		(void)fprintf(f, "  %-14s %s\n", command.name, command.summary);
	(void)fprintf(f, "\nOptions of every command:\n");
	ctl_options_print(f, 0);
	(void)fprintf(f, "\nOthers: e2b-hookctl help COMMAND\n"
			 "Exit: 0 success, 1 failed, 2 usage, 78 bad configuration.\n");
}

static void print_command(FILE *f, const struct ctl_command *command)
{
	(void)fprintf(f, "Usage: e2b-hookctl [-c FILE] %s%s%s%s\n\n%s.\n", command->name,
		      command->argument ? " " : "", command->argument ? command->argument : "",
		      command->options ? " [OPTION]…" : "", command->summary);
	if (command->details)
		(void)fprintf(f, "%s", command->details);
	(void)fprintf(f, "\n");
	ctl_options_print(f, command->options);
}

static int run_help(const struct ctl_command *command, const struct ctl_options *options)
{
	struct ctl_command about;

	if (!options->argument) {
		print_overview(stdout);
		return 0;
	}
	if (!find_command(options->argument, &about))
		return unknown_command(options->argument);
	print_command(stdout, &about);
	return 0;
}

static int run_command(const struct ctl_options *options)
{
	struct ctl_command command;
	const char *surplus;

	if (!options->command) {
		ctl_complain("which command? Try: e2b-hookctl help");
		return CTL_EXIT_USAGE;
	}
	if (!find_command(options->command, &command))
		return unknown_command(options->command);
	if (options->help) {
		print_command(stdout, &command);
		return 0;
	}
	if (options->argument && !command.argument) {
		ctl_complain("%s: unexpected argument: %s", command.name, options->argument);
		return CTL_EXIT_USAGE;
	}
	if (options->operand && !command.takes_operand) {
		ctl_complain("%s: unexpected argument: %s", command.name, options->operand);
		return CTL_EXIT_USAGE;
	}
	surplus = ctl_options_surplus(options->given, command.options);
	if (surplus) {
		ctl_complain("%s is no option of %s. Try: e2b-hookctl help %s", surplus,
			     command.name, command.name);
		return CTL_EXIT_USAGE;
	}
	return command.run(&command, options);
}

int ctl_command_run(int argc, char *const *argv)
{
	struct ctl_options options;
	char error[CTL_ERROR_MAX];

	if (ctl_options_read(argc, argv, clock_unix_ms(), &options, error) != 0) {
		ctl_complain("%s", error);
		return CTL_EXIT_USAGE;
	}
	if (!(options.given & CTL_FORMAT))
		options.format = isatty(STDOUT_FILENO) ? TABLE_OUT_TABLE : TABLE_OUT_CSV;
	if (options.version) {
		(void)printf("e2b-hookctl %s\n", HOOKD_VERSION);
		return ctl_finish_output(0);
	}
	if (options.help && !options.command) {
		print_overview(stdout);
		return ctl_finish_output(0);
	}
	return ctl_finish_output(run_command(&options));
}
