/* What the tests of the state layer share: a store in a directory of its own, deliveries judged as
 * the daemon judges them, reading back through SQL as a dashboard does. The disk is the one of
 * disk.h.
 */
#pragma once

#include "disk.h"

#include "config.h"
#include "ingest.h"
#include "projector.h"
#include "storage.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RECEIVED_MS INT64_C(1795194000000) /* 2026-11-20T17:00:00Z */
#define IN_2100_MS INT64_C(4102444800000) /* 2100-01-01T00:00:00Z */
#define BODY_MAX 4096

/* A store of its own ------------------------------------------------------ */

struct world {
	char dir[64], path[96];
	struct storage_options options;
	struct storage *s;
	struct config *config;
	struct projector *p;
};

static UNUSED void open_store(struct world *w)
{
	char error[STORAGE_ERROR_MAX];
	int r = storage_open(&w->options, &w->s, error);
	if (r < 0)
		fail_msg("storage_open: %d: %s", r, error);
}

static UNUSED void close_store(struct world *w)
{
	projector_free(w->p);
	w->p = NULL;
	storage_close(w->s);
	w->s = NULL;
}

static UNUSED void reopen(struct world *w)
{
	close_store(w);
	open_store(w);
}

static UNUSED int begin_world(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	assert_non_null(w);
	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/hookd-test-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	(void)snprintf(w->path, sizeof(w->path), "%s/events.db", w->dir);
	w->options = (struct storage_options) {
		.path = w->path,
		.wal_limit = 256 << 20,
		.quarantine_rows_max = 3,
		.quarantine_bytes_max = 2000,
		.rejection_rows_max = 3,
		.rejection_bytes_max = 2000,
		.rejection_age_max_ms = 30 * INT64_C(86400000),
	};
	disk_install();
	*state = w;
	return 0;
}

static UNUSED int begin_store(void **state)
{
	(void)begin_world(state);
	open_store(*state);
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static UNUSED int end_world(void **state)
{
	struct world *w = *state;
	disk_mend();
	close_store(w);
	config_unref(w->config);
	(void)nftw(w->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static UNUSED struct config *load_config(const char *text)
{
	struct config *config = NULL;
	CLEANUP(config_report_finish) struct config_report report = { 0 };
	int r = config_load_text("test.ini", text, strlen(text), CONFIG_SECRETS_IGNORED, &config,
				 &report);
	if (r != 0)
		fail_msg("line %u: %s", report.items[0].line, report.items[0].text);
	return config;
}

/* Deliveries -------------------------------------------------------------- */

/* A body with its verdict, as storage_put wants it. */
struct parcel {
	char *body;
	struct ingest_result judged;
	struct storage_delivery delivery;
};

static UNUSED void judge_parcel(struct parcel *p)
{
	static const struct ingest_policy all;
	assert_int_equal(ingest_judge_body(&p->judged, &all, NULL, p->delivery.body,
					   p->delivery.received_unix_ms, 0),
			 0);
}

/* Takes over `body`. */
static UNUSED void init_parcel_owned(struct parcel *p, char *body, int64_t received_unix_ms)
{
	*p = (struct parcel) { .body = body };
	p->delivery = (struct storage_delivery) {
		.source = "e2b",
		.remote_addr = "192.0.2.7",
		.received_unix_ms = received_unix_ms,
		.body = { body, strlen(body) },
		.body_len = (int64_t)strlen(body),
		.judged = &p->judged,
	};
	judge_parcel(p);
}

static UNUSED void init_parcel(struct parcel *p, const char *body)
{
	char *copy = strdup(body);
	assert_non_null(copy);
	init_parcel_owned(p, copy, RECEIVED_MS);
}

static UNUSED void finish_parcel(struct parcel *p)
{
	ingest_result_finish(&p->judged);
	free(p->body);
}

#define PARCEL CLEANUP(finish_parcel) struct parcel

/* What a body is made of; NULL: left out. */
struct told {
	const char *id, *type, *time, *sandbox, *run, *template, *data, *more;
	const char *source; /* NULL: e2b */
	bool in_2100; /* when it is received: for what the clock must not have reached */
};

static UNUSED char *write_body(const struct told *t)
{
	char *body = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&body, &size);
	assert_non_null(f);
	const struct {
		const char *key, *value;
	} fields[] = {
		{ "id", t->id },
		{ "type", t->type },
		{ "timestamp", t->time },
		{ "sandbox_id", t->sandbox },
		{ "sandbox_execution_id", t->run },
		{ "sandbox_template_id", t->template },
	};
	(void)fprintf(f, "{\"version\":\"v2\"");
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].value)
			(void)fprintf(f, ",\"%s\":\"%s\"", fields[i].key, fields[i].value);
	if (t->data)
		(void)fprintf(f, ",\"event_data\":%s", t->data);
	if (t->more)
		(void)fprintf(f, ",%s", t->more);
	(void)fprintf(f, "}");
	assert_int_equal(fclose(f), 0);
	return body;
}

static UNUSED void init_told(struct parcel *p, struct told t)
{
	init_parcel_owned(p, write_body(&t), t.in_2100 ? IN_2100_MS : RECEIVED_MS);
	if (t.source)
		p->delivery.source = t.source;
}

/* One of the deliveries that come with the tests, by its name without .json. */
static UNUSED void init_story(struct parcel *p, const char *name)
{
	const char *root = getenv("HOOKD_SOURCE_ROOT");
	char path[4096], body[BODY_MAX];
	(void)snprintf(path, sizeof(path), "%s/tests/deliveries/%s.json", root ? root : ".", name);
	CLEANUP_FILE FILE *f = fopen(path, "re");
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	size_t len = fread(body, 1, sizeof(body) - 1, f);
	body[len] = '\0';
	init_parcel(p, body);
}

static UNUSED enum storage_outcome put_open(struct world *w, const struct parcel *p,
					    enum ingest_reason *ret_reason)
{
	enum storage_outcome outcome;
	int r = storage_put(w->s, &p->delivery, &outcome, ret_reason);
	if (r < 0)
		fail_msg("storage_put: %d: %s", r, storage_error(w->s));
	return outcome;
}

/* Puts in a durable transaction of its own. */
static UNUSED enum storage_outcome put_for(struct world *w, const struct parcel *p,
					   enum ingest_reason *ret_reason)
{
	assert_int_equal(storage_begin(w->s, true), 0);
	enum storage_outcome outcome = put_open(w, p, ret_reason);
	assert_int_equal(storage_commit(w->s), 0);
	return outcome;
}

static UNUSED enum storage_outcome put(struct world *w, const struct parcel *p)
{
	enum ingest_reason reason;
	return put_for(w, p, &reason);
}

static UNUSED enum storage_outcome put_told(struct world *w, struct told t)
{
	PARCEL p;
	init_told(&p, t);
	return put(w, &p);
}

static UNUSED void put_story(struct world *w, const char *name)
{
	PARCEL p;
	init_story(&p, name);
	assert_int_equal(put(w, &p), STORAGE_STORED);
}

static UNUSED void tell(struct world *w, struct told t)
{
	assert_int_equal(put_told(w, t), STORAGE_STORED);
}

/* Tells the projector of what was put last, as the writer does. */
static UNUSED void offer(struct world *w, const struct parcel *p)
{
	static const struct ingest_policy all;
	struct ingest_result *read = ingest_result_new();
	assert_non_null(read);
	assert_int_equal(ingest_judge_body(read, &all, NULL, p->delivery.body,
					   p->delivery.received_unix_ms, 0),
			 0);
	projector_offer(w->p, storage_stored_seq(w->s), &p->delivery, read);
	ingest_result_unref(read);
}

static UNUSED void put_and_offer_story(struct world *w, const char *name)
{
	PARCEL p;
	init_story(&p, name);
	assert_int_equal(put(w, &p), STORAGE_STORED);
	offer(w, &p);
}

/* Reading back ------------------------------------------------------------ */

static UNUSED sqlite3 *begin_reading(const struct world *w)
{
	sqlite3 *db = NULL;
	assert_int_equal(sqlite3_open_v2(w->path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 5000);
	return db;
}

/* Columns by `|`, rows by newline, NULL as `-`. */
static UNUSED void write_rows(sqlite3 *db, const char *sql, FILE *f)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	int code;
	for (int row = 0; (code = sqlite3_step(statement)) == SQLITE_ROW; row++) {
		if (row > 0)
			(void)fputc('\n', f);
		for (int i = 0; i < sqlite3_column_count(statement); i++) {
			const unsigned char *value = sqlite3_column_text(statement, i);
			(void)fprintf(f, "%s%s", i ? "|" : "", value ? (const char *)value : "-");
		}
	}
	if (code != SQLITE_DONE)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	(void)sqlite3_finalize(statement);
}

/* The rows of a query over a connection of its own. The caller frees. */
static UNUSED char *rows_of(const struct world *w, const char *sql)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	assert_non_null(f);
	sqlite3 *db = begin_reading(w);
	write_rows(db, sql, f);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(fclose(f), 0);
	return text;
}

static UNUSED void expect_rows(const struct world *w, const char *sql, const char *expected)
{
	CLEANUP_FREE char *rows = rows_of(w, sql);
	if (strcmp(rows, expected) != 0)
		fail_msg("%s\n--- is\n%s\n--- not\n%s", sql, rows, expected);
}

/* Changes the store behind the engine's back; it must be closed. */
static UNUSED void change(const struct world *w, const char *sql)
{
	sqlite3 *db = NULL;
	assert_null(w->s);
	assert_int_equal(sqlite3_open(w->path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The ledger -------------------------------------------------------------- */

static UNUSED void begin_ledger(struct world *w, const char *config)
{
	if (!w->config) {
		w->config = load_config(config);
		w->config->store.max_run_ms = 0; /* runs end by events, not by the test's clock */
	}
	assert_int_equal(projector_new(w->s, &w->p), 0);
	projector_set_config(w->p, w->config);
}

/* Log lines go to memory instead of standard error; ends with what was said, the caller's to free.
 */
static UNUSED int begin_listening(void)
{
	int file = memfd_create("log", MFD_CLOEXEC), kept = dup(STDERR_FILENO);
	assert_true(file >= 0 && kept >= 0);
	assert_true(dup2(file, STDERR_FILENO) >= 0);
	(void)close(file);
	return kept;
}

static UNUSED char *end_listening(int kept)
{
	off_t len = lseek(STDERR_FILENO, 0, SEEK_END);
	char *said = calloc(1, (size_t)len + 1);
	bool good = said && pread(STDERR_FILENO, said, (size_t)len, 0) == len;
	(void)dup2(kept, STDERR_FILENO);
	(void)close(kept);
	assert_true(good);
	return said;
}

/* Folds all there is. Reports how many steps it took. */
static UNUSED int fold_all(struct world *w)
{
	bool more = true;
	int steps = 0;
	while (more) {
		int r = projector_step(w->p, 1000000, 256, &more);
		if (r < 0)
			fail_msg("projector_step: %d: %s", r, storage_error(w->s));
		assert_true(++steps < 10000);
	}
	return steps;
}

/* All that the ledger says, but for when its rows changed. */
static UNUSED void write_ledger(sqlite3 *db, FILE *f)
{
	static const char *const queries[] = {
		"SELECT sandbox_id, time, created_at, ended_at, last_event_at, expires_at, source,"
		" template, team_id, state, kill_reason, startup_ms, runs, runtime_ms, "
		"cost_nanousd,"
		" executions, failed_executions, metadata FROM sandboxes ORDER BY 1",
		"SELECT run_id, sandbox_id, time, started_at, ended_at, end_kind, kill_reason, "
		"source,"
		" template, team_id, vcpu_count, memory_mb, runtime_ms, cost_nanousd, cost_source"
		" FROM runs ORDER BY 1",
		"SELECT execution_id, event_id, time, run_id, status, failed, duration_ms,"
		" attributed_cost_nanousd, cost_source FROM executions ORDER BY 1",
		"SELECT event_id, sandbox_id, run_id, template_id, build_id, team_id FROM events"
		" ORDER BY 1",
		"SELECT * FROM cost_hourly ORDER BY time, template_id, team_id",
		"SELECT * FROM cost_daily ORDER BY time, template_id, team_id",
		"SELECT * FROM activity_hourly ORDER BY time, template_id, kind",
		"SELECT * FROM template_hourly ORDER BY time, template_id",
		"SELECT * FROM template_stats ORDER BY template_id",
	};
	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		write_rows(db, queries[i], f);
		(void)fputs("\n\n", f);
	}
}

static UNUSED char *ledger_of(const struct world *w)
{
	char *all = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&all, &size);
	assert_non_null(f);
	sqlite3 *db = begin_reading(w);
	write_ledger(db, f);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_int_equal(fclose(f), 0);
	return all;
}
