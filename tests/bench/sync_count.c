/* Counts what a receiver asks of the disk: preloaded (LD_PRELOAD), it stands before fdatasync,
 * fsync and the writes of files, and keeps sums in the file that SYNC_COUNT names, which the
 * benchmark reads while the receiver runs. An atomic addition a call: far below what is measured.
 *
 * The log (-wal of SQLite, .log of the append-only receiver) is told from other files by its name,
 * which is looked up at the first use of a descriptor and forgotten when it is closed.
 */
#undef _FILE_OFFSET_BITS /* else pwrite and pwrite64 are one name here, and SQLite uses either */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FDS_MAX 8192

/* run.py reads these, in this order, as native 64-bit numbers. */
struct sums {
	_Atomic uint64_t log_syncs, log_sync_us, log_writes, log_bytes;
	_Atomic uint64_t other_syncs, other_sync_us, other_writes, other_bytes;
};

static struct sums nowhere, *sums = &nowhere;
static int (*real_fdatasync)(int), (*real_fsync)(int), (*real_close)(int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static _Atomic unsigned char kinds[FDS_MAX];
enum { UNKNOWN, LOG, OTHER };

int fdatasync(int fd);
int fsync(int fd);
int close(int fd);
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at);
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at);
ssize_t writev(int fd, const struct iovec *pieces, int n);

/* A conversion that ISO C does not know and POSIX demands. */
#define FIND(function) (*(void **)(&real_##function) = dlsym(RTLD_NEXT, #function))

__attribute__((constructor)) static void begin(void)
{
	FIND(fdatasync);
	FIND(fsync);
	FIND(close);
	FIND(pwrite);
	FIND(writev);
	const char *path = getenv("SYNC_COUNT");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (fd < 0 || ftruncate(fd, sizeof(*sums)) < 0)
		return;
	void *map = mmap(NULL, sizeof(*sums), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		sums = map;
	(void)close(fd);
}

static int is_log(int fd)
{
	if (fd < 0 || fd >= FDS_MAX)
		return 0;
	if (kinds[fd] == UNKNOWN) {
		char link[64], name[4096];
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t len = readlink(link, name, sizeof(name));
		kinds[fd] = len >= 4 && (memcmp(name + len - 4, "-wal", 4) == 0 ||
					 memcmp(name + len - 4, ".log", 4) == 0)
				    ? LOG
				    : OTHER;
	}
	return kinds[fd] == LOG;
}

static uint64_t now_us(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static int sync_counted(int (*real)(int), int fd)
{
	uint64_t begun_us = now_us();
	int r = real(fd), log = is_log(fd);
	atomic_fetch_add(log ? &sums->log_sync_us : &sums->other_sync_us, now_us() - begun_us);
	atomic_fetch_add(log ? &sums->log_syncs : &sums->other_syncs, 1);
	return r;
}

static ssize_t count_write(int fd, ssize_t r)
{
	int log = is_log(fd);
	atomic_fetch_add(log ? &sums->log_writes : &sums->other_writes, 1);
	if (r > 0)
		atomic_fetch_add(log ? &sums->log_bytes : &sums->other_bytes, (uint64_t)r);
	return r;
}

int fdatasync(int fd)
{
	return sync_counted(real_fdatasync, fd);
}

int fsync(int fd)
{
	return sync_counted(real_fsync, fd);
}

int close(int fd)
{
	if (fd >= 0 && fd < FDS_MAX)
		kinds[fd] = UNKNOWN;
	return real_close(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at)
{
	return count_write(fd, real_pwrite(fd, bytes, len, at));
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at)
{
	return count_write(fd, real_pwrite(fd, bytes, len, at));
}

ssize_t writev(int fd, const struct iovec *pieces, int n)
{
	return count_write(fd, real_writev(fd, pieces, n));
}
