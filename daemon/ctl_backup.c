/* Copies: backup, restore, check. What they did is said on standard output, what went wrong in one
 * line on standard error.
 */
#include "ctl_internal.h"

#include "clock.h"
#include "storage_backup.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

static int want_file(const struct ctl_command *command, const struct ctl_options *options)
{
	if (options->argument)
		return 0;
	ctl_complain("%s: which file? Try: e2b-hookctl help %s", command->name, command->name);
	return CTL_EXIT_USAGE;
}

int ctl_backup_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	char error[STORAGE_ERROR_MAX];
	int64_t bytes = 0;
	int code = want_file(command, options);

	if (code == 0)
		code = ctl_load_config(options, &config);
	if (code != 0)
		return code;
	ctl_operate_catch_signals();
	const struct storage_backup_options backup = {
		.path = config->store.path,
		.dest = options->argument,
		.force = options->force,
		.stop = ctl_operate_is_stopped,
	};
	if (storage_backup(&backup, &bytes, error) < 0) {
		ctl_complain("%s", error);
		return CTL_EXIT_FAILED;
	}
	ctl_print_visible(stdout, (struct span) { options->argument, strlen(options->argument) });
	(void)printf(": %" PRId64 " bytes\n", bytes);
	return 0;
}

/* ---- restore ---- */

static void say_restored(const struct config *config, const char *file,
			 const struct storage_restored *r)
{
	char newest[CLOCK_TEXT_MAX];

	(void)printf("%s: restored from %s: %" PRId64 " events", config->store.path, file,
		     r->events);
	if (r->events > 0)
		(void)printf(", the newest of %s",
			     clock_format_ms(r->newest_unix_s * 1000, newest));
	(void)printf("\n");
	if (!*r->aside) {
		(void)printf("There was no store before.\n");
		return;
	}
	(void)printf("The old store is kept: %s (with -wal and -shm)\n"
		     "To undo: stop the daemon (systemctl stop e2b-hookd.socket e2b-hookd), then "
		     "e2b-hookctl restore %s\n",
		     r->aside, r->aside);
}

static int restore(const struct config *config, const struct ctl_options *options)
{
	CLEANUP(storage_snapshot_close) struct storage_snapshot snapshot = STORAGE_SNAPSHOT_INIT;
	const struct storage_options storage = ctl_operate_storage_options(config);
	struct storage_restored restored;
	char error[STORAGE_ERROR_MAX];
	/* As who we are: root may read what the store's owner may not. */
	int r = storage_snapshot_open(options->argument, &snapshot, error);

	if (r == 0) {
		int code = ctl_operate_become_owner(config);
		if (code != 0)
			return code;
		r = storage_restore(&storage, &snapshot, &restored, error);
	}
	if (r == 0) {
		say_restored(config, options->argument, &restored);
		return 0;
	}
	ctl_complain("%s", *error ? error : strerror(-r));
	return CTL_EXIT_FAILED;
}

int ctl_restore_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	int code = want_file(command, options);

	if (code == 0)
		code = ctl_load_config(options, &config);
	return code != 0 ? code : restore(config, options);
}

/* ---- check ---- */

static void print_finding(void *ctx, const char *finding)
{
	ctl_print_visible(stdout, (struct span) { finding, strlen(finding) });
	(void)printf("\n");
}

/* What the reader says of a file that is missing is about the one of the configuration. */
static bool is_file(const char *path)
{
	struct stat st;
	int r = stat(path, &st) < 0 ? -errno : 0;

	if (r == -ENOENT || r == -ENOTDIR)
		ctl_complain("%s: there is no such file", path);
	else if (r == 0 && !S_ISREG(st.st_mode))
		ctl_complain("%s: not a file", path);
	else
		return true;
	return false;
}

int ctl_check_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	char error[STORAGE_ERROR_MAX];
	const char *path = options->argument;

	if (path && !is_file(path))
		return CTL_EXIT_FAILED;
	if (!path) {
		int code = ctl_load_config(options, &config);
		if (code != 0)
			return code;
		path = config->store.path;
	}
	int r = storage_check(path, print_finding, NULL, error);
	if (r < 0)
		ctl_complain("%s", error);
	if (r == 0)
		print_finding(NULL, "ok");
	return r == 0 ? 0 : CTL_EXIT_FAILED;
}
