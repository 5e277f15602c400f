#include "admin_internal.h"

#include "metrics.h"

#include <dirent.h>
#include <string.h>
#include <sys/resource.h>

/* The process as the kernel sees it, under the names that every Prometheus client library uses. A
 * figure that cannot be read (no /proc in a container, say) is left out, never 0.
 */

#define STAT_MAX 1024
#define FIELDS_MAX 25 /* up to rss, the 24th */

/* A small file of /proc into `text`; false: not to be read. */
static bool read_file(const char *path, char text[static STAT_MAX])
{
	CLEANUP_FILE FILE *f = fopen(path, "re");
	size_t len = f ? fread(text, 1, STAT_MAX - 1, f) : 0;

	text[len] = '\0';
	return len > 0;
}

/* Fields of /proc/self/stat, numbered as in proc(5), from the third on: the second, in parentheses,
 * may hold anything. */
static bool read_stat(uint64_t ret[static FIELDS_MAX])
{
	char text[STAT_MAX];
	const char *at;

	if (!read_file("/proc/self/stat", text) || !(at = strrchr(text, ')')))
		return false;
	for (size_t i = 3; i < FIELDS_MAX; i++) {
		char *end;

		at = strchr(at, ' ');
		if (!at)
			return false;
		at++;
		ret[i] = strtoull(at, &end, 10); /* the state, a letter, is 0 */
	}
	return true;
}

static void put_stat(struct admin_text *t)
{
	uint64_t field[FIELDS_MAX] = { 0 };
	uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK), page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!read_stat(field) || ticks == 0)
		return;
	admin_text_one(t, "process_cpu_seconds_total", ADMIN_COUNTER,
		       "Processor time used, user and system.",
		       (int64_t)((field[14] + field[15]) * 1000 / ticks), 3);
	admin_text_one(t, "process_virtual_memory_bytes", ADMIN_GAUGE, "Virtual memory.",
		       (int64_t)field[23], 0);
	admin_text_one(t, "process_resident_memory_bytes", ADMIN_GAUGE, "Resident memory.",
		       (int64_t)(field[24] * page), 0);
}

/* -1: not to be counted. */
static int64_t count_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int64_t n = -3; /* `.`, `..` and the directory's own */

	if (!directory)
		return -1;
	while (readdir(directory))
		n++;
	(void)closedir(directory);
	return n;
}

void admin_process_put(struct admin_text *t)
{
	struct rlimit limit;
	int64_t n = count_fds();

	put_stat(t);
	/* Not from /proc: its times count from the boot, and when that was stands in a file that
	 * the packaged unit hides (ProcSubset=pid). */
	admin_text_one(t, "process_start_time_seconds", ADMIN_GAUGE,
		       "When the process began, in unix time.", metrics_get(METRICS_STARTED_MS), 3);
	if (n >= 0)
		admin_text_one(t, "process_open_fds", ADMIN_GAUGE, "Open file descriptors.", n, 0);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		admin_text_one(t, "process_max_fds", ADMIN_GAUGE, "Limit on open file descriptors.",
			       (int64_t)limit.rlim_cur, 0);
}
