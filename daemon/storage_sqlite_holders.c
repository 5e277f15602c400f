/* Who keeps the write-ahead log from being reset: readers hold a lock on one of five bytes of the
 * shared memory for as long as their snapshot lasts. And who keeps others from writing, by a lock
 * of any kind on another byte.
 *
 * The kernel's list of locks (proc(5)) names them without opening any file of the store: closing
 * one in a process that has the database open would drop SQLite's locks on it.
 */
#include "storage_sqlite_internal.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define WRITE_LOCK 120
#define READ_LOCK_FIRST 123 /* WAL_READ_LOCK(0) to (4): https://www.sqlite.org/walformat.html */
#define READ_LOCK_LAST 127
#define HOLDERS_MAX 8 /* that are told apart */
#define COMMAND_MAX 16

struct holder {
	long pid;
	char command[COMMAND_MAX + 1];
};

struct wanted {
	int64_t first, last; /* bytes */
	const char *kind; /* NULL: any */
	int64_t except_pid;
};

/* "1: POSIX  ADVISORY  READ  4711 fe:01:1234567 123 123" */
static long holder_of(const char *line, uint64_t inode, const struct wanted *wanted)
{
	char kind[8];
	long pid;
	uint64_t locked;
	int64_t first;
	if (sscanf(line, "%*d: POSIX %*s %7s %ld %*x:%*x:%" SCNu64 " %" SCNd64, kind, &pid, &locked,
		   &first) != 4)
		return 0;
	if (locked != inode || first < wanted->first || first > wanted->last ||
	    pid == wanted->except_pid)
		return 0;
	return !wanted->kind || strcmp(kind, wanted->kind) == 0 ? pid : 0;
}

static void read_command(struct holder *h)
{
	char name[64];
	(void)snprintf(name, sizeof(name), "/proc/%ld/comm", h->pid);
	CLEANUP_FILE FILE *f = fopen(name, "re");
	if (!f || !fgets(h->command, sizeof(h->command), f))
		h->command[0] = '\0';
	for (char *c = h->command; *c; c++)
		if (!isgraph((unsigned char)*c))
			*c = c[1] ? '_' : '\0';
}

static size_t find(uint64_t inode, const struct wanted *wanted,
		   struct holder holders[static HOLDERS_MAX])
{
	char line[256];
	size_t n = 0;
	CLEANUP_FILE FILE *f = fopen("/proc/locks", "re");
	while (f && n < HOLDERS_MAX && fgets(line, sizeof(line), f)) {
		long pid = holder_of(line, inode, wanted);
		size_t i = 0;
		while (i < n && holders[i].pid != pid)
			i++;
		if (pid <= 0 || i < n)
			continue;
		holders[n].pid = pid;
		read_command(&holders[n++]);
	}
	return n;
}

static size_t tell(const char *path, const struct wanted *wanted, char *buf, size_t size)
{
	char name[STORAGE_PATH_MAX + 8];
	struct holder holders[HOLDERS_MAX];
	struct stat st;
	buf[0] = '\0';
	(void)snprintf(name, sizeof(name), "%s-shm", path);
	size_t n = stat(name, &st) == 0 ? find((uint64_t)st.st_ino, wanted, holders) : 0;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(buf);
		(void)snprintf(buf + len, size - len, "%s%ld (%s)", i ? ", " : "", holders[i].pid,
			       holders[i].command);
	}
	return n;
}

size_t storage_wal_holders(const char *path, char *buf, size_t size)
{
	const struct wanted wanted = { READ_LOCK_FIRST, READ_LOCK_LAST, "READ", getpid() };
	return tell(path, &wanted, buf, size);
}

size_t storage_write_holders(const char *path, int64_t except_pid, char *buf, size_t size)
{
	const struct wanted wanted = { WRITE_LOCK, WRITE_LOCK, NULL, except_pid };
	return tell(path, &wanted, buf, size);
}
