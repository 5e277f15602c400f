/* Who keeps the write-ahead log from being reset: readers hold a lock on one of five bytes of the
 * shared memory for as long as their snapshot lasts.
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

#define READ_LOCK_FIRST 123 /* WAL_READ_LOCK(0) to (4): https://www.sqlite.org/walformat.html */
#define READ_LOCK_LAST 127
#define HOLDERS_MAX 8 /* that are told apart */
#define COMMAND_MAX 16

struct holder {
	long pid;
	char command[COMMAND_MAX + 1];
};

/* "1: POSIX  ADVISORY  READ  4711 fe:01:1234567 123 123" */
static long reader_of(const char *line, uint64_t inode)
{
	long pid;
	uint64_t locked;
	int64_t first;
	if (sscanf(line, "%*d: POSIX %*s READ %ld %*x:%*x:%" SCNu64 " %" SCNd64, &pid, &locked,
		   &first) != 3)
		return 0;
	return locked == inode && first >= READ_LOCK_FIRST && first <= READ_LOCK_LAST ? pid : 0;
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

static size_t find(uint64_t inode, struct holder holders[static HOLDERS_MAX])
{
	char line[256];
	size_t n = 0;
	CLEANUP_FILE FILE *f = fopen("/proc/locks", "re");
	while (f && n < HOLDERS_MAX && fgets(line, sizeof(line), f)) {
		long pid = reader_of(line, inode);
		size_t i = 0;
		while (i < n && holders[i].pid != pid)
			i++;
		if (pid <= 0 || pid == (long)getpid() || i < n)
			continue;
		holders[n].pid = pid;
		read_command(&holders[n++]);
	}
	return n;
}

size_t storage_wal_holders(const char *path, char *buf, size_t size)
{
	char name[STORAGE_PATH_MAX + 8];
	struct holder holders[HOLDERS_MAX];
	struct stat st;
	buf[0] = '\0';
	(void)snprintf(name, sizeof(name), "%s-shm", path);
	size_t n = stat(name, &st) == 0 ? find((uint64_t)st.st_ino, holders) : 0;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(buf);
		(void)snprintf(buf + len, size - len, "%s%ld (%s)", i ? ", " : "", holders[i].pid,
			       holders[i].command);
	}
	return n;
}
