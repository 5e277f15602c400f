#include "check.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

/* The form is the one that editors and CI systems know how to jump by. */

void check_print_report(FILE *f, const char *path, const struct config_report *report)
{
	for (size_t i = 0; i < report->n; i++) {
		const struct config_problem *p = &report->items[i];
		const char *level = p->is_error ? "error" : "warning";

		if (p->line > 0)
			(void)fprintf(f, "%s:%u: %s: %s\n", path, p->line, level, p->text);
		else
			(void)fprintf(f, "%s: %s: %s\n", path, level, p->text);
	}
}

/* A warning only: the file may be for another machine, or the unit makes the directory. */
static void warn_of_store(FILE *f, const char *path, const struct config *config)
{
	const char *slash = strrchr(config->store.path, '/');
	CLEANUP_FREE char *directory =
		slash > config->store.path
			? strndup(config->store.path, (size_t)(slash - config->store.path))
			: NULL;
	struct stat st;

	if (!directory)
		return;
	int r = stat(directory, &st) < 0 ? errno : S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
	if (r == ENOENT || r == ENOTDIR)
		(void)fprintf(f,
			      "%s: warning: [store] path: %s is %s: the daemon does not start "
			      "before it is made (its unit may do that: StateDirectory=)\n",
			      path, directory, r == ENOENT ? "not there" : "no directory");
}

/* The same of programs that notifications are handed to. */
static void warn_of_commands(FILE *f, const char *path, const struct config *config)
{
	for (size_t i = 0; i < config->n_notify; i++) {
		const struct config_notify *notify = &config->notify[i];
		if (notify->command && access(notify->command, X_OK) < 0)
			(void)fprintf(f, "%s: warning: [notify %s] command: %s: %s\n", path,
				      notify->name, notify->command, strerror(errno));
	}
}

int check_run(const char *path, FILE *out, FILE *errors)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	struct config *config = NULL;
	int r = config_load(path, CONFIG_SECRETS_CHECK, &config, &report);

	check_print_report(errors, path, &report);
	if (r < 0) {
		(void)fprintf(errors, "%s: error: out of memory\n", path);
		return EX_OSERR;
	}
	if (r != 0)
		return EX_CONFIG;
	warn_of_store(errors, path, config);
	warn_of_commands(errors, path, config);
	(void)fprintf(out, "%s: ok, %zu source%s\n", path, config->n_sources,
		      config->n_sources == 1 ? "" : "s");
	config_unref(config);
	return 0;
}
