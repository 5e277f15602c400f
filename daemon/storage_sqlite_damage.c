/* Damage. Being down loses more than starting empty: a sender gives up after half a minute. So a
 * store that is damaged is set aside, whole, and an empty one takes its place; where the operator
 * prefers, the daemon refuses to start instead.
 *
 * Whether it is damaged must be cheap to tell: a store may have 10 GB. At the start the schema and
 * the first and last row of every table are read, and the list of free pages; what lies between is
 * found by the delivery or the fold that meets it. Deliveries that keep failing leave a note beside
 * the store (PATH.damaged, of which file it speaks), and the next start looks closer.
 *
 * Invariant: nothing is deleted. Each file has its second name, on disk, before it loses the first
 * one; and no more than ASIDE_MAX stores are set aside: a disk that ruins one after the other is
 * the operator's affair.
 */
#include "storage_sqlite_damage.h"

#include "clock.h"
#include "storage_sqlite_backup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>
#include <sys/stat.h>

#define ASIDE_WORD ".corrupt-"
#define NOTE_SUFFIX ".damaged"
#define ASIDE_MAX 8
#define CHECK_BYTES_MAX (INT64_C(1) << 30) /* some seconds of reading */
#define APPLICATION_ID_AT 68 /* in the header, https://www.sqlite.org/fileformat.html */
#define TABLES_MAX 256
/* A check of this table alone includes the list of free pages, which a check of everything leaves
 * out in 3.40 where a view comes first in the schema. */
#define CHECK_FREE_PAGES "PRAGMA quick_check(sqlite_schema)"

#define refuse storage_sqlite_copy_refuse

static const char *const suffixes[] = { "", "-wal", "-shm" };

/* Whose it is --------------------------------------------------------------- */

static int64_t size_of(const char *path, const char *suffix)
{
	char name[STORAGE_PATH_MAX + 16];
	struct stat st;
	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return lstat(name, &st) == 0 && S_ISREG(st.st_mode) ? (int64_t)st.st_size : -1;
}

bool storage_sqlite_damage_is_ours(const char *path)
{
	static const uint8_t ours[] = { 0x45, 0x32, 0x42, 0x44 };
	uint8_t bytes[sizeof(ours)];
	/* Ours are never without a log beside them, even when the daemon is down. */
	if (size_of(path, "-wal") >= 0)
		return true;
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	return fd >= 0 &&
	       pread(fd, bytes, sizeof(bytes), APPLICATION_ID_AT) == (ssize_t)sizeof(bytes) &&
	       memcmp(bytes, ours, sizeof(ours)) == 0;
}

bool storage_sqlite_damage_has_stray_log(const char *path)
{
	return size_of(path, "") <= 0 && size_of(path, "-wal") > 0;
}

/* The note -------------------------------------------------------------------- */

static void note_name(const char *path, char ret[static STORAGE_PATH_MAX + 16])
{
	(void)snprintf(ret, STORAGE_PATH_MAX + 16, "%s" NOTE_SUFFIX, path);
}

void storage_note_damage(struct storage *s)
{
	char name[STORAGE_PATH_MAX + 16], text[64];
	struct stat st;
	if (stat(s->path, &st) < 0)
		return;
	note_name(s->path, name);
	CLEANUP_CLOSE int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
				    STORAGE_COPY_MODE);
	int n = snprintf(text, sizeof(text), "%" PRIu64 "\n", (uint64_t)st.st_ino);
	if (fd >= 0 && write(fd, text, (size_t)n) == n)
		(void)fsync(fd);
}

/* Is there a note about this very file? One about another, since replaced, is taken away. */
static bool is_noted(const char *path)
{
	char name[STORAGE_PATH_MAX + 16], text[64] = "";
	struct stat st;
	note_name(path, name);
	CLEANUP_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) > 0 && stat(path, &st) == 0 &&
	    strtoull(text, NULL, 10) == (uint64_t)st.st_ino)
		return true;
	(void)unlink(name);
	return false;
}

static int run_check(struct storage *s, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	const char *text =
		code == SQLITE_ROW ? (const char *)sqlite3_column_text(statement, 0) : NULL;
	int r = 0;
	if (!text)
		r = storage_sqlite_fail(s, code, "cannot check the store");
	else if (strcmp(text, "ok") != 0)
		r = storage_sqlite_fail(s, SQLITE_CORRUPT, "damaged pages");
	(void)sqlite3_finalize(statement);
	return r;
}

static int follow_note(struct storage *s)
{
	char name[STORAGE_PATH_MAX + 16];
	if (!is_noted(s->path))
		return 0;
	if (s->options.set_damaged_aside &&
	    size_of(s->path, "") + size_of(s->path, "-wal") > CHECK_BYTES_MAX)
		return storage_sqlite_fail(s, SQLITE_CORRUPT,
					   "deliveries could not be stored when it last ran");
	int r = run_check(s, "PRAGMA quick_check(1)");
	if (r == 0) {
		note_name(s->path, name);
		(void)unlink(name);
	}
	return r;
}

/* Probes ---------------------------------------------------------------------- */

static int read_rows(struct storage *s, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db, sql, -1, &statement, NULL);
	while (code == SQLITE_OK || code == SQLITE_ROW)
		code = sqlite3_step(statement);
	(void)sqlite3_finalize(statement);
	return code == SQLITE_DONE ? 0 : storage_sqlite_fail(s, code, "cannot read a table");
}

static int probe_table(struct storage *s, const char *name, bool has_rowid)
{
	char *sql = has_rowid ? sqlite3_mprintf("SELECT * FROM \"%w\" WHERE rowid IN ((SELECT "
						"min(rowid) FROM \"%w\"), "
						"(SELECT max(rowid) FROM \"%w\"))",
						name, name, name)
			      : sqlite3_mprintf("SELECT * FROM \"%w\" LIMIT 1", name);
	int r = sql ? read_rows(s, sql) : -ENOMEM;
	sqlite3_free(sql);
	return r;
}

static int probe_tables(struct storage *s)
{
	sqlite3_stmt *statement = NULL;
	int code = sqlite3_prepare_v2(s->db,
				      "SELECT name, sql LIKE '%WITHOUT ROWID%' FROM sqlite_schema "
				      "WHERE type = 'table' AND rootpage > 0",
				      -1, &statement, NULL);
	int r = 0, n = 0;
	if (code == SQLITE_OK)
		code = sqlite3_step(statement);
	for (; code == SQLITE_ROW && r == 0 && n < TABLES_MAX; n++) {
		r = probe_table(s, (const char *)sqlite3_column_text(statement, 0),
				sqlite3_column_int(statement, 1) == 0);
		code = sqlite3_step(statement);
	}
	(void)sqlite3_finalize(statement);
	if (r < 0 || code == SQLITE_ROW || code == SQLITE_DONE)
		return r;
	return storage_sqlite_fail(s, code, "cannot read the schema");
}

int storage_sqlite_damage_probe(struct storage *s)
{
	int r = probe_tables(s);
	if (r == 0)
		r = run_check(s, CHECK_FREE_PAGES);
	(void)sqlite3_db_release_memory(s->db); /* pages that nobody will ask for soon */
	return r < 0 ? r : follow_note(s);
}

/* Aside ----------------------------------------------------------------------- */

static bool is_aside(const char *name, const char *base)
{
	size_t len = strlen(base), end = strlen(name);
	if (strncmp(name, base, len) != 0 ||
	    strncmp(name + len, ASIDE_WORD, sizeof(ASIDE_WORD) - 1) != 0)
		return false;
	return end < 4 ||
	       (strcmp(name + end - 4, "-wal") != 0 && strcmp(name + end - 4, "-shm") != 0);
}

int64_t storage_count_aside(const char *path)
{
	CLEANUP_FREE char *for_dir = strdup(path), *for_base = NULL;
	for_base = strdup(path);
	DIR *dir = for_dir && for_base ? opendir(dirname(for_dir)) : NULL;
	if (!dir)
		return 0;
	const char *base = basename(for_base);
	int64_t n = 0;
	for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
		n += is_aside(entry->d_name, base);
	(void)closedir(dir);
	return n;
}

static int link_all(const char *path, const char *aside)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		char old[STORAGE_PATH_MAX + 16], new[STORAGE_PATH_MAX + 16];
		(void)snprintf(old, sizeof(old), "%s%s", path, suffixes[i]);
		(void)snprintf(new, sizeof(new), "%s%s", aside, suffixes[i]);
		if (link(old, new) < 0 && errno != ENOENT)
			return -errno;
	}
	return storage_sqlite_copy_sync_directory(path);
}

/* The database loses its name first: it must never be met without the log that belongs to it. */
static int unlink_all(const char *path)
{
	char name[STORAGE_PATH_MAX + 16];
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		(void)snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		if (unlink(name) < 0 && errno != ENOENT)
			return -errno;
	}
	note_name(path, name);
	(void)unlink(name);
	return storage_sqlite_copy_sync_directory(path);
}

/* 20261122T100000.123Z: a colon in a name is a host to many tools. */
static void time_for_name(char text[static CLOCK_TEXT_MAX])
{
	(void)clock_format_ms(clock_unix_ms(), text);
	char *to = text;
	for (const char *c = text; *c; c++)
		if (*c != '-' && *c != ':')
			*to++ = *c;
	*to = '\0';
}

int storage_sqlite_damage_name(const char *path, const char *word,
			       char ret[static STORAGE_PATH_MAX])
{
	char at[CLOCK_TEXT_MAX];
	time_for_name(at);
	int n = snprintf(ret, STORAGE_PATH_MAX, "%s%s%s", path, word, at);
	return n < 0 || n >= STORAGE_PATH_MAX ? -ENAMETOOLONG : 0;
}

int storage_sqlite_damage_set_aside(const char *path, char ret_aside[static STORAGE_PATH_MAX],
				    char error[static STORAGE_ERROR_MAX])
{
	if (storage_count_aside(path) >= ASIDE_MAX)
		return refuse(error, -EUCLEAN,
			      "%s: damaged, and %d damaged stores are set aside already: look into "
			      "the disk, then move them (%s" ASIDE_WORD "*) away",
			      path, ASIDE_MAX, path);
	int r = storage_sqlite_damage_name(path, ASIDE_WORD, ret_aside);
	if (r == 0)
		r = link_all(path, ret_aside);
	if (r == 0)
		r = unlink_all(path);
	return r == 0 ? 0
		      : refuse(error, r, "%s: damaged, and cannot be set aside: %s", path,
			       strerror(-r));
}
