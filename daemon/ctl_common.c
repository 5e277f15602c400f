/* What several commands do, and how they speak: results on standard output, all else, one line each
 * and safe for a terminal, on standard error.
 */
#include "ctl_internal.h"

#include "check.h"
#include "clock.h"
#include "control.h"
#include "nearest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#define LINE_MAX_COLUMNS 2000
#define FOLD_WAIT_MS 2000
#define FOLD_LOOK_NS 20000000

void ctl_print_visible(FILE *f, struct span text)
{
	CLEANUP(buffer_finish) struct buffer b = BUFFER_INIT(8 * LINE_MAX_COLUMNS);

	if (text.s && table_out_append_visible(&b, text, LINE_MAX_COLUMNS) == 0)
		(void)fwrite(b.data ? b.data : "", 1, b.len, f);
}

void ctl_complain(const char *fmt, ...)
{
	char line[2048];
	va_list args;

	va_start(args, fmt);
	int n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	(void)fprintf(stderr, "e2b-hookctl: ");
	if (n > 0)
		ctl_print_visible(
			stderr, (struct span) { line, base_min_size((size_t)n, sizeof(line) - 1) });
	(void)fprintf(stderr, "\n");
}

void ctl_complain_call(const struct config *config, const char *about, int r, const char *answer)
{
	if (r == CONTROL_REFUSED)
		ctl_complain("%s: %s", about, answer);
	else if (r == -EACCES || r == -EPERM)
		ctl_complain("%s%s: the daemon serves its own user and root only: run this as one "
			     "of them",
			     config->store.path, CONTROL_SUFFIX);
	else if (r == -ECONNRESET)
		ctl_complain("%s: the daemon went away; ask again when it is back", about);
	else
		ctl_complain("%s%s: %s", config->store.path, CONTROL_SUFFIX, strerror(-r));
}

int ctl_finish_output(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	ctl_complain("standard output: %s", strerror(errno));
	return CTL_EXIT_FAILED;
}

void ctl_config_unref_pointer(struct config **config)
{
	config_unref(*config);
}

int ctl_load_config(const struct ctl_options *options, struct config **ret)
{
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	int r = config_load(options->config_path, CONFIG_SECRETS_IGNORED, ret, &report);

	if (r == 0)
		return 0;
	*ret = NULL;
	check_print_report(stderr, options->config_path, &report);
	if (r > 0)
		return EX_CONFIG;
	ctl_complain("%s: %s", options->config_path, strerror(-r));
	return EX_OSERR;
}

int ctl_open_store(const struct config *config, struct storage_reader **ret)
{
	char error[STORAGE_ERROR_MAX];

	if (storage_reader_open(config->store.path, ret, error) == 0)
		return 0;
	ctl_complain("%s", error);
	return CTL_EXIT_FAILED;
}

void ctl_wait_folded(const struct config *config, struct storage_reader *reader)
{
	static const char sql[] = "SELECT stored_seq, folded_seq FROM ledger_state";
	const struct timespec look = { .tv_nsec = FOLD_LOOK_NS };
	int64_t deadline = clock_mono_ms() + FOLD_WAIT_MS, goal = -1, seqs[2];
	bool is_running = true;

	for (;;) {
		int r = storage_reader_integers(reader, sql, seqs, ARRAY_SIZE(seqs));
		if (r < 0) {
			ctl_complain("ledger_state: %s", storage_reader_error(reader));
			return;
		}
		if (goal < 0) {
			goal = seqs[0];
			is_running = storage_reader_daemon_state(config->store.path) != 0;
		}
		if (seqs[1] >= goal)
			return;
		if (!is_running || clock_mono_ms() >= deadline)
			break;
		(void)nanosleep(&look, NULL);
	}
	ctl_complain("the ledger is %lld events behind%s", (long long)(goal - seqs[1]),
		     is_running ? "" : " and no daemon is running");
}

int ctl_read_file(const char *path, struct buffer *ret)
{
	CLEANUP_CLOSE int own = -1;
	bool is_stdin = strcmp(path, "-") == 0;
	char chunk[65536];
	ssize_t n;
	int r = 0;

	if (!is_stdin)
		own = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (!is_stdin && own < 0) {
		ctl_complain("%s: %s", path, strerror(errno));
		return CTL_EXIT_FAILED;
	}
	while ((n = read(is_stdin ? STDIN_FILENO : own, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : buffer_append(ret, chunk, (size_t)n);
		if (r < 0)
			break;
	}
	if (r == 0)
		return 0;
	ctl_complain("%s: %s", is_stdin ? "standard input" : path,
		     r == -ENOBUFS ? "too large for a body" : strerror(-r));
	return CTL_EXIT_FAILED;
}

const struct config_source *ctl_find_source(const struct config *config, const char *name)
{
	const char *nearest = NULL;
	size_t best = SIZE_MAX;

	if (config->n_sources == 0) {
		ctl_complain("%s: no [source NAME]: add one", config->path);
		return NULL;
	}
	if (!name)
		return &config->sources[0];
	const struct config_source *source = config_source_by_name(config, name);
	if (source)
		return source;
	for (size_t i = 0; i < config->n_sources; i++) {
		size_t d = nearest_nearness(name, config->sources[i].name);
		if (d < best) {
			best = d;
			nearest = config->sources[i].name;
		}
	}
	ctl_complain("--source: no [source %s] in %s%s%s%s", name, config->path,
		     nearest ? ". Did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
	return NULL;
}

int ctl_check_stored_source(const struct config *config, struct storage_reader *reader,
			    const char *name)
{
	static const char sql[] = "SELECT 1 FROM source WHERE name = ?";

	if (!name || config_source_by_name(config, name))
		return 0;
	const struct storage_value value = STORAGE_VALUE_TEXT(name);
	int r = storage_reader_query(reader, sql, &value, 1);
	if (r == 0)
		r = storage_reader_next(reader);
	storage_reader_end(reader);
	if (r != 0) /* a failure is told by who reads next */
		return 0;
	(void)ctl_find_source(config, name);
	return CTL_EXIT_USAGE;
}

int ctl_make_uuid(char buf[static CTL_UUID_MAX])
{
	static const size_t dashes[] = { 8, 13, 18, 23 };
	uint8_t bytes[16];
	size_t at = 0, dash = 0;
	int r = signature_random(bytes, sizeof(bytes));

	if (r < 0)
		return r;
	bytes[6] = (uint8_t)((bytes[6] & 0x0f) | 0x40);
	bytes[8] = (uint8_t)((bytes[8] & 0x3f) | 0x80);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		if (dash < ARRAY_SIZE(dashes) && at == dashes[dash]) {
			buf[at++] = '-';
			dash++;
		}
		(void)snprintf(buf + at, CTL_UUID_MAX - at, "%02x", bytes[i]);
		at += 2;
	}
	return 0;
}
