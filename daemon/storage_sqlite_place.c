/* Are the files still where they were? Somebody may delete, move or replace them beneath a running
 * daemon; SQLite then goes on writing into files that have no name, and every acknowledgement would
 * be a lie. So after each durable commit, before it is answered, the names are compared with what
 * was opened: four calls of stat(2) a batch.
 *
 * The descriptors are O_PATH: they keep the files' numbers from being given to others, and closing
 * one does not drop SQLite's locks, as closing any other descriptor of these files would.
 */
#include "storage_sqlite_damage.h"
#include "storage_sqlite_sync.h"

#include "storage_sqlite_backup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char *const suffixes[STORAGE_N_PLACES] = { "", "-wal", "-shm", ".lock" };

static void name_of(const struct storage *s, size_t i, char ret[static STORAGE_PATH_MAX + 16])
{
	(void)snprintf(ret, STORAGE_PATH_MAX + 16, "%s%s", s->path, suffixes[i]);
}

int storage_sqlite_place_take(struct storage *s)
{
	char name[STORAGE_PATH_MAX + 16];
	for (size_t i = 0; i < STORAGE_N_PLACES; i++) {
		name_of(s, i, name);
		int fd = open(name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return storage_sqlite_fail(s, SQLITE_CANTOPEN, suffixes[i]);
		s->place_fds[i] = fd + 1;
	}
	return 0;
}

void storage_sqlite_place_finish(struct storage *s)
{
	for (size_t i = 0; i < STORAGE_N_PLACES; i++) {
		if (s->place_fds[i] > 0)
			(void)close(s->place_fds[i] - 1);
		s->place_fds[i] = 0;
	}
}

/* Only what is certain counts: a disk that cannot be asked now is no file that is gone. */
static bool is_lost(const struct storage *s, size_t i)
{
	char name[STORAGE_PATH_MAX + 16];
	struct stat own, named;
	name_of(s, i, name);
	if (fstat(s->place_fds[i] - 1, &own) < 0)
		return false;
	if (lstat(name, &named) < 0)
		return errno == ENOENT || errno == ENOTDIR;
	return own.st_dev != named.st_dev || own.st_ino != named.st_ino;
}

int storage_in_place(const struct storage *s)
{
	for (size_t i = 0; i < STORAGE_N_PLACES; i++)
		if (is_lost(s, i))
			return -ESTALE;
	return 0;
}

/* All of the log is in the database, which still has a name. */
static int move_log(struct storage *s)
{
	int in_log = 0, moved = 0;
	int r = storage_sqlite_sync_checkpoint(s, &in_log, &moved);
	return r == 0 && moved < in_log ? -EBUSY : r;
}

static int copy_to(struct storage *s, const char *path)
{
	CLEANUP_CLOSE int fd =
		open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, STORAGE_COPY_MODE);
	if (fd < 0)
		return -errno;
	char *sql = sqlite3_mprintf("VACUUM INTO %Q", path);
	int code = sql ? sqlite3_exec(s->db, sql, NULL, NULL, NULL) : SQLITE_NOMEM;
	sqlite3_free(sql);
	int r = code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot save the store");
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0)
		return storage_sqlite_copy_sync_directory(path);
	(void)unlink(path);
	return r;
}

int storage_rescue(struct storage *s, char ret_path[static STORAGE_PATH_MAX])
{
	struct stat st;
	ret_path[0] = '\0';
	if (fstat(s->place_fds[0] - 1, &st) < 0)
		return -errno;
	if (st.st_nlink > 0)
		return move_log(s);
	int r = storage_sqlite_damage_name(s->path, ".rescued-", ret_path);
	return r < 0 ? r : copy_to(s, ret_path);
}
