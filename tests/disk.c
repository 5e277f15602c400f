/* The hooks, the faults, and what is left when the power goes. One lock covers what is watched: a
 * change and its record are one step, so a cut falls between changes. */
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define SECTOR 512
#define PAGE 4096
#define FILES_MAX 16

struct disk disk = { .kinds = DISK_READS | DISK_WRITES | DISK_SYNCS };

struct image {
	char *bytes;
	size_t size, capacity;
};

struct file {
	ino_t inode; /* 0: it is gone, the place is free */
	char name[256];
	struct image synced;
	bool is_new; /* its entry in the directory is not synced */
};

/* A change that is not synced: these bytes, or (bytes == NULL) a new size alone. */
struct change {
	struct file *file;
	size_t at, len, size; /* size: of the file afterwards */
	char *bytes;
};

static struct {
	pthread_mutex_t lock;
	char dir[200];
	ino_t dir_inode;
	ino_t old[FILES_MAX]; /* files that were there from the beginning */
	size_t n_old;
	struct file files[FILES_MAX];
	size_t n_files;
	struct change *changes;
	size_t n_changes, changes_size;
	uint64_t random;
	long cut_at; /* in disk.changes; 0: never */
	enum disk_luck cut_luck;
	uint64_t cut_seed;
	char cut_dir[200];
	atomic_bool is_cut, is_watching;
} watch = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* What happens here must not fail: a test that runs out of memory runs out of it elsewhere. */
static void *must(void *memory)
{
	assert(memory);
	return memory;
}

uint64_t disk_random(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t disk_below(uint64_t *state, uint64_t n)
{
	return disk_random(state) % n;
}

/* Images ------------------------------------------------------------------ */

static void image_resize(struct image *image, size_t size)
{
	if (size > image->capacity) {
		image->capacity = base_max_size(size, 2 * image->capacity);
		image->bytes = must(realloc(image->bytes, image->capacity));
	}
	if (size > image->size)
		memset(image->bytes + image->size, 0, size - image->size);
	image->size = size;
}

static void image_read(struct image *image, int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return;
	image_resize(image, (size_t)st.st_size);
	if (st.st_size > 0 && pread(fd, image->bytes, (size_t)st.st_size, 0) != (ssize_t)st.st_size)
		abort();
}

/* How much of a file's changes each unit (page or sector) has seen. */
struct fate {
	size_t unit; /* bytes */
	size_t *seen; /* so many of the file's changes */
	size_t n_units;
	size_t size_seen;
};

static size_t count_changes(const struct file *file, size_t until)
{
	size_t n = 0;
	for (size_t i = 0; i < until; i++)
		n += watch.changes[i].file == file;
	return n;
}

static size_t largest_size(const struct file *file)
{
	size_t size = file->synced.size;
	for (size_t i = 0; i < watch.n_changes; i++)
		if (watch.changes[i].file == file)
			size = base_max_size(size, watch.changes[i].size);
	return size;
}

/* None, all, or something between: each about as often. */
static size_t draw(uint64_t *random, size_t n)
{
	switch (disk_below(random, 3)) {
	case 0:
		return 0;
	case 1:
		return n;
	default:
		return (size_t)disk_below(random, n + 1);
	}
}

static void fate_init(struct fate *fate, const struct file *file, enum disk_luck luck, size_t until,
		      uint64_t *random)
{
	size_t n = count_changes(file, watch.n_changes);
	fate->unit = luck == DISK_SECTORS ? SECTOR : PAGE;
	fate->n_units = largest_size(file) / fate->unit + 1;
	fate->seen = must(calloc(fate->n_units, sizeof(*fate->seen)));
	bool at_random = luck == DISK_PAGES || luck == DISK_SECTORS;
	size_t all = luck == DISK_NONE ? 0 : luck == DISK_IN_ORDER ? count_changes(file, until) : n;
	fate->size_seen = at_random ? draw(random, n) : all;
	for (size_t i = 0; i < fate->n_units; i++)
		fate->seen[i] = at_random ? draw(random, n) : all;
}

/* The nth change (from 1) of the file, as far as it came about. */
static void image_apply(struct image *image, const struct change *c, size_t nth,
			const struct fate *fate)
{
	for (size_t i = c->at / SECTOR; c->bytes && i * SECTOR < c->at + c->len; i++) {
		size_t at = i * SECTOR, len = base_min_size(SECTOR, c->at + c->len - at);
		if (fate->seen[at / fate->unit] < nth)
			continue;
		if (image->size < at + len)
			image_resize(image, at + len);
		memcpy(image->bytes + at, c->bytes + (at - c->at), len);
	}
	/* What was cut off comes back as zeros. */
	for (size_t at = c->size; !c->bytes && at < image->size; at++)
		if (fate->seen[at / fate->unit] >= nth)
			image->bytes[at] = 0;
}

/* What the disk holds of a file. */
static void image_of(struct image *ret, const struct file *file, enum disk_luck luck, size_t until,
		     uint64_t *random)
{
	struct fate fate;
	fate_init(&fate, file, luck, until, random);
	*ret = (struct image) { 0 };
	image_resize(ret, file->synced.size);
	if (ret->size)
		memcpy(ret->bytes, file->synced.bytes, ret->size);
	size_t nth = 0, size = file->synced.size;
	for (size_t i = 0; i < watch.n_changes; i++) {
		const struct change *c = &watch.changes[i];
		if (c->file != file)
			continue;
		image_apply(ret, c, ++nth, &fate);
		if (nth <= fate.size_seen)
			size = c->size;
	}
	image_resize(ret, size);
	free(fate.seen);
}

static void forget_changes(const struct file *file)
{
	size_t kept = 0;
	for (size_t i = 0; i < watch.n_changes; i++)
		if (watch.changes[i].file == file)
			free(watch.changes[i].bytes);
		else
			watch.changes[kept++] = watch.changes[i];
	watch.n_changes = kept;
}

/* All that was written is on the disk. */
static void settle(struct file *file)
{
	for (size_t i = 0; i < watch.n_changes; i++) {
		const struct change *c = &watch.changes[i];
		if (c->file != file)
			continue;
		image_resize(&file->synced, c->size);
		if (c->bytes)
			memcpy(file->synced.bytes + c->at, c->bytes, c->len);
	}
	forget_changes(file);
}

/* After a failed sync: what luck left of it, and the rest is never written. */
static void settle_failed(struct file *file)
{
	struct image image;
	enum disk_luck luck = (enum disk_luck)disk_below(&watch.random, DISK_N_LUCKS);
	image_of(&image, file, luck, (size_t)disk_below(&watch.random, watch.n_changes + 1),
		 &watch.random);
	free(file->synced.bytes);
	file->synced = image;
	forget_changes(file);
}

static void forget_file(ino_t inode)
{
	for (size_t i = 0; i < watch.n_files; i++) {
		struct file *file = &watch.files[i];
		if (file->inode != inode)
			continue;
		forget_changes(file);
		free(file->synced.bytes);
		*file = (struct file) { 0 };
	}
	for (size_t i = 0; i < watch.n_old; i++)
		if (watch.old[i] == inode)
			watch.old[i] = 0;
}

/* Watching ---------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);
	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static bool was_there(ino_t inode)
{
	for (size_t i = 0; i < watch.n_old; i++)
		if (watch.old[i] == inode)
			return true;
	return false;
}

static struct file *free_place(void)
{
	for (size_t i = 0; i < watch.n_files; i++)
		if (watch.files[i].inode == 0)
			return &watch.files[i];
	assert(watch.n_files < FILES_MAX);
	return &watch.files[watch.n_files++];
}

/* A file of the directory, as it is before the change that is about to be made; NULL: another, or
 * an index in shared memory, which no restart reads. */
static struct file *find_file(int fd)
{
	struct stat st;
	if (!atomic_load(&watch.is_watching) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	for (size_t i = 0; i < watch.n_files; i++)
		if (watch.files[i].inode == st.st_ino)
			return &watch.files[i];
	char link[64], path[512];
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	size_t dir_len = strlen(watch.dir);
	path[base_max_i64(len, 0)] = '\0';
	if (strncmp(path, watch.dir, dir_len) != 0 || path[dir_len] != '/' ||
	    ends_with(path, "-shm"))
		return NULL;
	struct file *file = free_place();
	*file = (struct file) { .inode = st.st_ino, .is_new = !was_there(st.st_ino) };
	(void)snprintf(file->name, sizeof(file->name), "%s", path + dir_len + 1);
	if (!file->is_new)
		image_read(&file->synced, fd);
	return file;
}

/* Takes down what the pages hold now: they are written whole. */
static void record(struct file *file, int fd, size_t at, size_t len)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		abort();
	if (watch.n_changes == watch.changes_size) {
		watch.changes_size = watch.changes_size ? 2 * watch.changes_size : 64;
		watch.changes = must(
			reallocarray(watch.changes, watch.changes_size, sizeof(*watch.changes)));
	}
	struct change *c = &watch.changes[watch.n_changes++];
	*c = (struct change) { .file = file, .size = (size_t)st.st_size };
	if (len == 0)
		return;
	c->at = at / PAGE * PAGE;
	c->len = base_min_size((at + len + PAGE - 1) / PAGE * PAGE, c->size) - c->at;
	c->bytes = must(malloc(c->len));
	if (pread(fd, c->bytes, c->len, (off_t)c->at) != (ssize_t)c->len)
		abort();
}

static void write_file(const char *dir, const char *name, const void *bytes, size_t size)
{
	char path[512];
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0 || (size && write(fd, bytes, size) != (ssize_t)size))
		abort();
}

/* The index of the write-ahead log: nobody syncs it. What is left of it is anything, or nothing. */
static void leave_index(const char *name, uint64_t *random, const char *to_dir)
{
	char path[512];
	struct image image = { 0 };
	(void)snprintf(path, sizeof(path), "%s/%s", watch.dir, name);
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		image_read(&image, fd);
	uint64_t kind = disk_below(random, 4);
	for (size_t at = 0; kind == 1 && at + SECTOR <= image.size; at += SECTOR)
		if (disk_below(random, 2))
			memset(image.bytes + at, 0, SECTOR);
	if (kind != 0)
		write_file(to_dir, name, image.bytes, kind == 2 ? 0 : image.size);
	free(image.bytes);
}

/* Closing a file of SQLite's here would drop its locks; after a cut they guard nothing. */
static void leave_indexes(uint64_t *random, const char *to_dir)
{
	DIR *dir = must(opendir(watch.dir));
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (ends_with(entry->d_name, "-shm"))
			leave_index(entry->d_name, random, to_dir);
	(void)closedir(dir);
}

/* Under the lock. */
static void cut(enum disk_luck luck, uint64_t seed, const char *to_dir)
{
	uint64_t random = seed;
	size_t until = (size_t)disk_below(&random, watch.n_changes + 1);
	for (size_t i = 0; i < watch.n_files; i++) {
		const struct file *file = &watch.files[i];
		struct image image;
		if (file->inode == 0)
			continue;
		image_of(&image, file, luck, until, &random);
		bool is_there = !file->is_new || luck == DISK_ALL ||
				(luck != DISK_NONE && disk_below(&random, 2));
		if (is_there)
			write_file(to_dir, file->name, image.bytes, image.size);
		free(image.bytes);
	}
	leave_indexes(&random, to_dir);
	atomic_store(&watch.is_cut, true);
}

/* Under the lock, before a change. False: there is no power. */
static bool still_on(const struct file *file)
{
	if (file && !atomic_load(&watch.is_cut)) {
		long n = atomic_fetch_add(&disk.changes, 1) + 1;
		if (watch.cut_at && n >= watch.cut_at)
			cut(watch.cut_luck, watch.cut_seed, watch.cut_dir);
	}
	if (atomic_load(&watch.is_cut))
		errno = EIO;
	return !atomic_load(&watch.is_cut);
}

static void list_old(void)
{
	struct stat st;
	DIR *dir = must(opendir(watch.dir));
	assert(fstat(dirfd(dir), &st) == 0);
	watch.dir_inode = st.st_ino;
	watch.n_old = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		assert(watch.n_old < FILES_MAX);
		watch.old[watch.n_old++] = entry->d_ino;
	}
	(void)closedir(dir);
}

void disk_watch(const char *dir, uint64_t seed)
{
	assert(!atomic_load(&watch.is_watching));
	(void)snprintf(watch.dir, sizeof(watch.dir), "%s", dir);
	list_old();
	watch.random = seed;
	watch.cut_at = 0;
	atomic_store(&watch.is_cut, false);
	atomic_store(&watch.is_watching, true);
}

void disk_cut_at(long n, enum disk_luck luck, uint64_t seed, const char *to_dir)
{
	(void)pthread_mutex_lock(&watch.lock);
	watch.cut_luck = luck;
	watch.cut_seed = seed;
	(void)snprintf(watch.cut_dir, sizeof(watch.cut_dir), "%s", to_dir);
	watch.cut_at = atomic_load(&disk.changes) + n;
	(void)pthread_mutex_unlock(&watch.lock);
}

void disk_cut(enum disk_luck luck, uint64_t seed, const char *to_dir)
{
	(void)pthread_mutex_lock(&watch.lock);
	if (!atomic_load(&watch.is_cut))
		cut(luck, seed, to_dir);
	(void)pthread_mutex_unlock(&watch.lock);
}

bool disk_is_cut(void)
{
	return atomic_load(&watch.is_cut);
}

void disk_unwatch(void)
{
	(void)pthread_mutex_lock(&watch.lock);
	for (size_t i = 0; i < watch.n_changes; i++)
		free(watch.changes[i].bytes);
	for (size_t i = 0; i < watch.n_files; i++)
		free(watch.files[i].synced.bytes);
	free(watch.changes);
	watch.changes = NULL;
	watch.n_changes = watch.changes_size = watch.n_files = 0;
	atomic_store(&watch.is_cut, false);
	atomic_store(&watch.is_watching, false);
	(void)pthread_mutex_unlock(&watch.lock);
}

/* Faults ------------------------------------------------------------------ */

static bool fails(unsigned int kind)
{
	if (atomic_load(&watch.is_cut) && !(kind & DISK_LOCKS)) {
		errno = EIO;
		return true;
	}
	if (!(atomic_load(&disk.kinds) & kind))
		return false;
	long call = atomic_fetch_add(&disk.calls, 1) + 1, at = atomic_load(&disk.fail_at);
	if (at == 0 || call < at || (call > at && !atomic_load(&disk.stays)))
		return false;
	atomic_fetch_add(&disk.failed, 1);
	errno = atomic_load(&disk.error);
	return true;
}

void disk_break_only(unsigned int kinds, long n, int error, bool stays)
{
	atomic_store(&disk.kinds, kinds);
	atomic_store(&disk.error, error);
	atomic_store(&disk.stays, stays);
	atomic_store(&disk.failed, 0);
	atomic_store(&disk.fail_at, atomic_load(&disk.calls) + n);
}

void disk_break(long n, int error, bool stays)
{
	disk_break_only(DISK_READS | DISK_WRITES | DISK_SYNCS, n, error, stays);
}

void disk_mend(void)
{
	atomic_store(&disk.fail_at, 0);
	atomic_store(&disk.kinds, DISK_READS | DISK_WRITES | DISK_SYNCS);
}

/* Half of what is left of it is written by the call that fails, if that was asked for. */
static bool cuts_short(unsigned int kinds)
{
	return (kinds & DISK_SHORT) && atomic_load(&disk.calls) == atomic_load(&disk.fail_at);
}

/* Hooks ------------------------------------------------------------------- */

/* The directory's sync makes its new files lasting, a file's what was written to it. */
static int sync_watched(int fd)
{
	struct stat st;
	struct file *file = find_file(fd);
	bool is_dir = atomic_load(&watch.is_watching) && fstat(fd, &st) == 0 &&
		      st.st_ino == watch.dir_inode;
	bool on = still_on(file), failed = fails(DISK_SYNCS);
	if (!on || (failed && is_dir))
		return -1;
	for (size_t i = 0; is_dir && i < watch.n_files; i++)
		watch.files[i].is_new = false;
	if (file && failed)
		settle_failed(file);
	else if (file)
		settle(file);
	if (failed)
		errno = atomic_load(&disk.error);
	return failed ? -1 : 0;
}

static void wait_while_held(void)
{
	atomic_fetch_add(&disk.syncs_held, 1);
	while (atomic_load(&disk.holds_syncs)) {
		const struct timespec pause = { 0, 200000 };
		(void)nanosleep(&pause, NULL);
	}
	atomic_fetch_sub(&disk.syncs_held, 1);
}

static int sync_file(int fd)
{
	wait_while_held();
	(void)pthread_mutex_lock(&watch.lock);
	atomic_fetch_add(&disk.syncs, 1);
	int r = sync_watched(fd);
	(void)pthread_mutex_unlock(&watch.lock);
	return r;
}

int fsync(int fd)
{
	return sync_file(fd);
}

int fdatasync(int fd)
{
	return sync_file(fd);
}

static ssize_t hook_read(int fd, void *buf, size_t n)
{
	return fails(DISK_READS) ? -1 : read(fd, buf, n);
}

static ssize_t hook_pread(int fd, void *buf, size_t n, off_t at)
{
	return fails(DISK_READS) ? -1 : pread(fd, buf, n, at);
}

static ssize_t hook_pwrite(int fd, const void *buf, size_t n, off_t at)
{
	(void)pthread_mutex_lock(&watch.lock);
	struct file *file = find_file(fd);
	unsigned int kinds = atomic_load(&disk.kinds);
	ssize_t r = -1;
	if (still_on(file)) {
		bool failed = fails(DISK_WRITES);
		if (!failed)
			r = pwrite(fd, buf, n, at);
		else if (cuts_short(kinds) && n > 1)
			r = pwrite(fd, buf, n / 2, at);
		if (r > 0 && file)
			record(file, fd, (size_t)at, (size_t)r);
	}
	(void)pthread_mutex_unlock(&watch.lock);
	return r;
}

static ssize_t hook_write(int fd, const void *buf, size_t n)
{
	return hook_pwrite(fd, buf, n, lseek(fd, 0, SEEK_CUR));
}

static int hook_ftruncate(int fd, off_t size)
{
	(void)pthread_mutex_lock(&watch.lock);
	struct file *file = find_file(fd);
	int r = still_on(file) && !fails(DISK_WRITES) ? ftruncate(fd, size) : -1;
	if (r == 0 && file)
		record(file, fd, 0, 0);
	(void)pthread_mutex_unlock(&watch.lock);
	return r;
}

static int hook_fallocate(int fd, off_t at, off_t len)
{
	(void)pthread_mutex_lock(&watch.lock);
	struct file *file = find_file(fd);
	int r = still_on(file) && !fails(DISK_WRITES) ? posix_fallocate(fd, at, len) : errno;
	if (r == 0 && file)
		record(file, fd, 0, 0);
	(void)pthread_mutex_unlock(&watch.lock);
	return r;
}

/* Another file may get its number. */
static int hook_unlink(const char *path)
{
	struct stat st;
	(void)pthread_mutex_lock(&watch.lock);
	int r = fails(DISK_REMOVALS) ? -1 : 0;
	if (r == 0 && atomic_load(&watch.is_watching) && stat(path, &st) == 0)
		forget_file(st.st_ino);
	if (r == 0)
		r = unlink(path);
	(void)pthread_mutex_unlock(&watch.lock);
	return r;
}

static int hook_open(const char *path, int flags, int mode)
{
	return fails(DISK_OPENS) ? -1 : open(path, flags, mode);
}

static int hook_fstat(int fd, struct stat *st)
{
	return fails(DISK_SIZES) ? -1 : fstat(fd, st);
}

static void *hook_mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
{
	return fails(DISK_MAPS) ? MAP_FAILED : mmap(at, len, protection, flags, fd, offset);
}

static int hook_fcntl(int fd, int command, ...)
{
	va_list args;
	va_start(args, command);
	void *arg = va_arg(args, void *);
	va_end(args);
	const struct flock *lock = arg;
	if (command == F_SETLK && lock->l_type != F_UNLCK && fails(DISK_LOCKS))
		return -1;
	return fcntl(fd, command, arg);
}

/* While locks fail SQLite waits for them: the test need not. */
static int (*real_sleep)(sqlite3_vfs *vfs, int us);

static int hook_sleep(sqlite3_vfs *vfs, int us)
{
	bool is_busy = (atomic_load(&disk.kinds) & DISK_LOCKS) && atomic_load(&disk.fail_at);
	return is_busy ? us : real_sleep(vfs, us);
}

void disk_install(void)
{
	static const struct {
		const char *name;
		sqlite3_syscall_ptr call;
	} calls[] = {
		{ "open", (sqlite3_syscall_ptr)hook_open },
		{ "read", (sqlite3_syscall_ptr)hook_read },
		{ "pread", (sqlite3_syscall_ptr)hook_pread },
		{ "pread64", (sqlite3_syscall_ptr)hook_pread },
		{ "write", (sqlite3_syscall_ptr)hook_write },
		{ "pwrite", (sqlite3_syscall_ptr)hook_pwrite },
		{ "pwrite64", (sqlite3_syscall_ptr)hook_pwrite },
		{ "ftruncate", (sqlite3_syscall_ptr)hook_ftruncate },
		{ "unlink", (sqlite3_syscall_ptr)hook_unlink },
		{ "fallocate", (sqlite3_syscall_ptr)hook_fallocate },
		{ "fcntl", (sqlite3_syscall_ptr)hook_fcntl },
		{ "fstat", (sqlite3_syscall_ptr)hook_fstat },
		{ "mmap", (sqlite3_syscall_ptr)hook_mmap },
	};
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		/* Those that SQLite was built without are not there to be replaced. */
		if (vfs->xGetSystemCall(vfs, calls[i].name))
			(void)vfs->xSetSystemCall(vfs, calls[i].name, calls[i].call);
	}
	if (!real_sleep) {
		real_sleep = vfs->xSleep;
		vfs->xSleep = hook_sleep;
	}
}
