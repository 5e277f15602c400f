/* What SQLite alone makes of the same rows: a table shaped like the daemon's log with its identity,
 * one prepared statement, batches of a fixed size, synchronous=FULL, a PASSIVE checkpoint at a
 * thousand pages. No HTTP, no judging, no ledger; the rows are made before the clock starts.
 *
 * Usage: insert [--batch N] [--seconds S] [--rows N] PATH
 *
 * The table is its own, so the figures stay comparable while the daemon's schema changes.
 */
#include "clock.h"
#include "ingest.h"
#include "traffic.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/resource.h>

#define CHECKPOINT_PAGES 1000
#define PACE 15000
#define HURRY 2000
#define PUNCTUAL 10
#define MARGIN_S 10 /* as in load.c */
#define COMMITS_MAX (1 << 20)

static const char schema[] =
	"PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
	"PRAGMA wal_autocheckpoint=0; PRAGMA locking_mode=NORMAL;"
	"CREATE TABLE event (seq INTEGER PRIMARY KEY, time_s INTEGER NOT NULL,"
	" time_frac_ns INTEGER NOT NULL, id ANY NOT NULL, received_delta_ms INTEGER NOT NULL,"
	" source_key INTEGER NOT NULL, type_key INTEGER NOT NULL, failed INTEGER,"
	" webhook_key INTEGER, delivery_id ANY, deliveries INTEGER NOT NULL,"
	" payload TEXT NOT NULL) STRICT;"
	"CREATE UNIQUE INDEX event_identity ON event (time_s, id);";
static const char insert[] = "INSERT INTO event VALUES (NULL,?1,?2,?3,?4,1,?5,?6,1,?7,1,?8)";

struct row {
	int64_t time_ns, received_ms;
	char id[16], delivery_id[16];
	enum event_kind kind;
	bool failed;
	char *body;
	size_t body_len;
};

struct inserter {
	const char *path;
	int64_t batch, n_rows;
	double seconds;
	struct row *rows;
	sqlite3 *db;
	sqlite3_stmt *statement, *begin, *commit;
	int64_t wal_pages, n_done, n_commits;
	uint32_t *commits_us;
};

static int complain(const struct inserter *in, const char *what)
{
	(void)fprintf(stderr, "insert: %s: %s\n", what,
		      in->db ? sqlite3_errmsg(in->db) : strerror(errno));
	return -EIO;
}

static bool parse_arguments(struct inserter *in, int argc, char **argv)
{
	static const struct option options[] = {
		{ "batch", required_argument, NULL, 'b' },
		{ "seconds", required_argument, NULL, 's' },
		{ "rows", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	*in = (struct inserter) { .batch = 64, .seconds = 5, .n_rows = 400000 };
	int c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'b')
			in->batch = strtoll(optarg, NULL, 10);
		else if (c == 's')
			in->seconds = strtod(optarg, NULL);
		else if (c == 'r')
			in->n_rows = strtoll(optarg, NULL, 10);
		else
			return false;
	}
	in->path = argv[optind];
	return optind + 1 == argc && in->batch > 0 && in->seconds > 0 && in->n_rows > 0 &&
	       in->n_rows < 100000000;
}

/* Rows, ahead of the clock --------------------------------------------------- */

static void pack_uuid(const char *text, char bytes[static 16])
{
	for (size_t i = 0, digit = 0; i < 32; i++, digit++) {
		if (text[digit] == '-')
			digit++;
		int value = text[digit] <= '9' ? text[digit] - '0' : text[digit] - 'a' + 10;
		bytes[i / 2] = (char)(i % 2 ? bytes[i / 2] | value : value << 4);
	}
}

static const char *unknown(const void *ctx, struct span name)
{
	return NULL;
}

static int make_row(struct row *row, const struct traffic_delivery *d)
{
	static const struct ingest_policy all;
	static const struct ingest_templates none = { .id_of = unknown, .alias_of = unknown };
	CLEANUP(ingest_result_finish) struct ingest_result judged = { 0 };
	int r = ingest_judge_body(&judged, &all, &none, d->body, d->received_unix_ms, 0);
	if (r < 0)
		return r;
	row->time_ns = judged.event.time_unix_ns;
	row->received_ms = d->received_unix_ms;
	row->kind = judged.event.kind;
	row->failed = judged.event.execution.failed;
	pack_uuid(judged.event.id, row->id);
	pack_uuid(d->delivery_id.s, row->delivery_id);
	row->body = malloc(d->body.len);
	row->body_len = d->body.len;
	if (!row->body)
		return -ENOMEM;
	memcpy(row->body, d->body.s, d->body.len);
	return 0;
}

static int make_rows(struct inserter *in)
{
	int64_t now_ms = clock_unix_ms(), n = in->n_rows + PACE * MARGIN_S;
	const struct traffic_options options = {
		.events = n,
		.from_unix_ms = now_ms - n * 1000 / PACE,
		.until_unix_ms = now_ms,
		.hurry = HURRY,
		.punctual = PUNCTUAL,
		.one_source = true,
		.seed = 1,
	};
	struct traffic *traffic = NULL;
	in->rows = calloc((size_t)in->n_rows, sizeof(*in->rows));
	in->commits_us = calloc(COMMITS_MAX, sizeof(*in->commits_us));
	int r = in->rows && in->commits_us ? traffic_new(&options, &traffic) : -ENOMEM;
	for (int64_t i = 0; i < in->n_rows && r == 0; i++) {
		struct traffic_delivery d;
		r = traffic_next(traffic, &d) == TRAFFIC_MORE ? make_row(&in->rows[i], &d)
							      : -ENODATA;
	}
	traffic_free(traffic);
	return r;
}

/* Inserting ------------------------------------------------------------------ */

static int on_commit(void *ctx, sqlite3 *db, const char *name, int pages)
{
	((struct inserter *)ctx)->wal_pages = pages;
	return SQLITE_OK;
}

static int open_store(struct inserter *in)
{
	if (sqlite3_open(in->path, &in->db) != SQLITE_OK ||
	    sqlite3_exec(in->db, schema, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(in->db, insert, -1, &in->statement, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(in->db, "BEGIN IMMEDIATE", -1, &in->begin, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(in->db, "COMMIT", -1, &in->commit, NULL) != SQLITE_OK)
		return complain(in, in->path);
	sqlite3_wal_hook(in->db, on_commit, in);
	return 0;
}

static int step(sqlite3_stmt *statement)
{
	int code = sqlite3_step(statement);
	(void)sqlite3_reset(statement);
	return code == SQLITE_DONE ? 0 : -EIO;
}

static int insert_row(struct inserter *in, const struct row *row)
{
	sqlite3_stmt *s = in->statement;
	int64_t time_s = row->time_ns / CLOCK_NS_PER_S;
	int code = sqlite3_bind_int64(s, 1, time_s);
	code |= sqlite3_bind_int64(s, 2, row->time_ns % CLOCK_NS_PER_S);
	code |= sqlite3_bind_blob(s, 3, row->id, 16, SQLITE_STATIC);
	code |= sqlite3_bind_int64(s, 4, row->received_ms - time_s * 1000);
	code |= sqlite3_bind_int64(s, 5, (int64_t)row->kind + 1);
	code |= row->kind == EVENT_CODE_EXECUTED ? sqlite3_bind_int(s, 6, row->failed)
						 : sqlite3_bind_null(s, 6);
	code |= sqlite3_bind_blob(s, 7, row->delivery_id, 16, SQLITE_STATIC);
	code |= sqlite3_bind_text(s, 8, row->body, (int)row->body_len, SQLITE_STATIC);
	return code == SQLITE_OK ? step(s) : -EIO;
}

static int insert_batch(struct inserter *in)
{
	int64_t begun_us = clock_mono_us();
	int r = step(in->begin);
	for (int64_t i = 0; i < in->batch && r == 0 && in->n_done < in->n_rows; i++)
		r = insert_row(in, &in->rows[in->n_done++]);
	if (r == 0)
		r = step(in->commit);
	in->commits_us[in->n_commits++ % COMMITS_MAX] = (uint32_t)(clock_mono_us() - begun_us);
	if (r == 0 && in->wal_pages >= CHECKPOINT_PAGES) {
		(void)sqlite3_wal_checkpoint_v2(in->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL,
						NULL);
		in->wal_pages = 0;
	}
	return r < 0 ? complain(in, "inserting") : 0;
}

/* What came of it ------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static double cpu_us(void)
{
	struct rusage usage;
	(void)getrusage(RUSAGE_SELF, &usage);
	return 1e6 * (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int64_t written_bytes(void)
{
	CLEANUP_FILE FILE *f = fopen("/proc/self/io", "re");
	char line[128];
	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, "write_bytes: ", 13) == 0)
			return strtoll(line + 13, NULL, 10);
	return 0;
}

static int run(struct inserter *in)
{
	int64_t begun_us = clock_mono_us(), end_us = begun_us + (int64_t)(in->seconds * 1e6);
	int64_t written = written_bytes();
	double spent_us = cpu_us();
	int r = 0;
	while (r == 0 && in->n_done < in->n_rows && clock_mono_us() < end_us)
		r = insert_batch(in);
	if (r < 0)
		return r;
	double took_us = (double)(clock_mono_us() - begun_us), n = (double)in->n_done;
	size_t n_commits = (size_t)base_min_i64(in->n_commits, COMMITS_MAX);
	qsort(in->commits_us, n_commits, sizeof(*in->commits_us), compare);
	printf("rows       %" PRId64 "\n", in->n_done);
	printf("rows/s     %.0f\n", n * 1e6 / took_us);
	printf("cpu_us     %.2f\n", (cpu_us() - spent_us) / n);
	printf("written    %.0f\n", (double)(written_bytes() - written) / n);
	printf("p50_ms     %.3f\n", (double)in->commits_us[n_commits / 2] / 1e3);
	printf("p99_ms     %.3f\n", (double)in->commits_us[n_commits - 1 - n_commits / 100] / 1e3);
	return 0;
}

static void finish(struct inserter *in)
{
	(void)sqlite3_finalize(in->statement);
	(void)sqlite3_finalize(in->begin);
	(void)sqlite3_finalize(in->commit);
	(void)sqlite3_close(in->db);
	for (int64_t i = 0; in->rows && i < in->n_rows; i++)
		free(in->rows[i].body);
	free(in->rows);
	free(in->commits_us);
}

int main(int argc, char **argv)
{
	struct inserter in;
	if (!parse_arguments(&in, argc, argv)) {
		(void)fprintf(stderr, "Usage: insert [--batch N] [--seconds S] [--rows N] PATH\n");
		return 2;
	}
	int r = make_rows(&in);
	if (r < 0)
		(void)fprintf(stderr, "insert: making rows: %s\n", strerror(-r));
	if (r == 0)
		r = open_store(&in);
	if (r == 0)
		r = run(&in);
	finish(&in);
	return r < 0;
}
