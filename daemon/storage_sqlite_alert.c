/* What rules know, kept: tracks, occurrences, buckets; and what levels are measured from. A track
 * is a row that is written whole.
 */
#include "storage_alert.h"

#include "storage_sqlite_fields.h"

#include <math.h>
#include <string.h>

static struct span span_of(const char *text)
{
	return (struct span) { text, strlen(text) };
}

static struct span column_span(sqlite3_stmt *statement, int column)
{
	const char *text = (const char *)sqlite3_column_text(statement, column);
	return (struct span) { text, text ? (size_t)sqlite3_column_bytes(statement, column) : 0 };
}

/* Tracks -------------------------------------------------------------------- */

static double column_real(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? (double)NAN
		       : sqlite3_column_double(statement, column);
}

static void read_track(sqlite3_stmt *statement, struct alert_track *ret)
{
	int64_t n[10];
	for (int i = 0; i < 10; i++)
		n[i] = sqlite3_column_int64(statement, 6 + i);
	*ret = (struct alert_track) {
		.firing = n[0] != 0,
		.acked = n[1] != 0,
		.since_ms = n[2],
		.last_ms = n[3],
		.notified_ms = n[4],
		.count = n[5],
		.total = n[6],
		.told = n[7],
		.window_ms = n[8],
		.window_count = n[9],
	};
}

static void read_alert(sqlite3_stmt *statement, struct storage_alert *ret)
{
	char on[32];
	ret->key = sqlite3_column_int64(statement, 0);
	storage_sqlite_copy(statement, 1, ret->rule, sizeof(ret->rule));
	ret->template_key = sqlite3_column_int64(statement, 2);
	ret->part = (enum storage_alert_part)sqlite3_column_int(statement, 3);
	storage_sqlite_copy(statement, 4, on, sizeof(on));
	if (!alert_rule_on_from_name(on, &ret->on))
		ret->on = ALERT_ON_EXECUTION_FAILED;
	storage_sqlite_copy(statement, 5, ret->severity, sizeof(ret->severity));
	read_track(statement, &ret->track);
	ret->value = column_real(statement, 16);
	ret->open_id = sqlite3_column_int64(statement, 17);
	storage_sqlite_copy(statement, 18, ret->samples, sizeof(ret->samples));
}

int storage_alert_load(struct storage *s, const char *rule, int64_t template_key,
		       enum storage_alert_part part, struct storage_alert *ret)
{
	ret->key = 0;
	(void)snprintf(ret->rule, sizeof(ret->rule), "%s", rule);
	ret->template_key = template_key;
	ret->part = part;
	ret->track = (struct alert_track) { 0 };
	ret->value = (double)NAN;
	ret->open_id = 0;
	ret->samples[0] = ret->severity[0] = '\0';
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_GET);
	int r = storage_sqlite_bind(s, statement, "cii", rule, template_key, (int64_t)part);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	read_alert(statement, ret);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_alert_next(struct storage *s, int64_t after_key, struct storage_alert *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_NEXT);
	int r = storage_sqlite_bind(s, statement, "i", after_key);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	read_alert(statement, ret);
	(void)sqlite3_reset(statement);
	return 1;
}

static void give_real(struct fields *f, double value)
{
	if (f->code == SQLITE_OK && f->statement)
		f->code = isnan(value) ? sqlite3_bind_null(f->statement, f->next++)
				       : sqlite3_bind_double(f->statement, f->next++, value);
}

static void give_track(struct fields *f, const struct alert_track *t)
{
	const int64_t n[] = { t->firing, t->acked, t->since_ms, t->last_ms,   t->notified_ms,
			      t->count,	 t->total, t->told,	t->window_ms, t->window_count };
	for (size_t i = 0; i < ARRAY_SIZE(n); i++)
		storage_sqlite_give(f, n[i]);
}

int storage_alert_save(struct storage *s, struct storage_alert *alert)
{
	struct fields f = storage_sqlite_fields(s, SQL_ALERT_PUT);
	storage_sqlite_give_key(&f, alert->key);
	storage_sqlite_give_text(&f, span_of(alert->rule));
	storage_sqlite_give(&f, alert->template_key);
	storage_sqlite_give(&f, alert->part);
	storage_sqlite_give_text(&f, span_of(alert_rule_on_name(alert->on)));
	storage_sqlite_give_text(&f, span_of(alert->severity));
	give_track(&f, &alert->track);
	give_real(&f, alert->value);
	storage_sqlite_give(&f, alert->open_id);
	storage_sqlite_give_text(&f, span_of(alert->samples));
	int r = storage_sqlite_give_end(&f);
	if (r == 0 && alert->key == 0)
		alert->key = sqlite3_last_insert_rowid(s->db);
	return r;
}

static int run_one(struct storage *s, enum storage_sql sql, int64_t argument)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(s, statement, "i", argument);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_alert_delete(struct storage *s, int64_t key)
{
	return run_one(s, SQL_ALERT_DELETE, key);
}

int storage_alert_is_new(struct storage *s, const char *rule, uint64_t identity, bool *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_EVENT);
	int r = storage_sqlite_bind(s, statement, "ci", rule, (int64_t)identity);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	*ret = r == 1;
	/* To its end: only then is the row written. */
	if (r == 1)
		r = storage_sqlite_step(s, statement);
	return r;
}

int storage_alert_position(struct storage *s, struct storage_alert_position *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_POSITION);
	int r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r < 0 ? r
			     : storage_sqlite_fail(s, SQLITE_CORRUPT,
						   "the position of alerts is missing");
	ret->seq = sqlite3_column_int64(statement, 0);
	ret->rejection_id = sqlite3_column_int64(statement, 1);
	ret->quarantine_id = sqlite3_column_int64(statement, 2);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_alert_set_position(struct storage *s, const struct storage_alert_position *at)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_MOVE);
	int r = storage_sqlite_bind(s, statement, "iii", at->seq, at->rejection_id,
				    at->quarantine_id);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_alert_count(struct storage *s, const struct storage_alert_execution *x)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_COUNT);
	int64_t bucket_s = x->time_s - x->time_s % STORAGE_ALERT_BUCKET_S;
	int r = storage_sqlite_bind(s, statement, "iiiiii", x->seq, bucket_s, x->dims.template_key,
				    x->dims.team_key, (int64_t)x->executions, (int64_t)x->failed);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_alert_pass(struct storage *s, int64_t seq)
{
	static const enum storage_sql sqls[] = { SQL_ALERT_COUNTED, SQL_ALERT_COUNTED_DROP };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sqls); i++) {
		sqlite3_stmt *statement = storage_sqlite_statement(s, sqls[i]);
		r = storage_sqlite_bind(s, statement, "i", seq);
		if (r == 0)
			r = storage_sqlite_run(s, statement);
	}
	return r;
}

/* Levels -------------------------------------------------------------------- */

static struct storage_level read_level(sqlite3_stmt *statement)
{
	return (struct storage_level) {
		.template_key = sqlite3_column_int64(statement, 0),
		.template_id = column_span(statement, 1),
		.template_alias = column_span(statement, 2),
		.team_id = column_span(statement, 3),
		.n = sqlite3_column_int64(statement, 4),
		.failed = sqlite3_column_int64(statement, 5),
		.value = column_real(statement, 6),
		.sandbox_id = column_span(statement, 7),
		.run_id = column_span(statement, 8),
		.time_ms = sqlite3_column_int64(statement, 9),
	};
}

int storage_alert_measure(struct storage *s, enum storage_measure what, int64_t since_ms,
			  int64_t now_ms, storage_level_fn fn, void *ctx)
{
	static const enum storage_sql sqls[] = {
		[STORAGE_MEASURE_RATES] = SQL_ALERT_RATES,
		[STORAGE_MEASURE_RUNAWAYS] = SQL_ALERT_RUNAWAYS,
		[STORAGE_MEASURE_COSTS] = SQL_ALERT_COSTS,
		[STORAGE_MEASURE_LAST_EVENTS] = SQL_ALERT_LAST_EVENTS,
		[STORAGE_MEASURE_REJECTIONS] = SQL_ALERT_REJECTIONS,
		[STORAGE_MEASURE_QUARANTINED] = SQL_ALERT_QUARANTINED,
	};
	sqlite3_stmt *statement = storage_sqlite_statement(s, sqls[what]);
	int r = storage_sqlite_bind(s, statement, "ii", since_ms, now_ms);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		struct storage_level level = read_level(statement);
		r = fn(ctx, &level);
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r;
}

/* Operators ------------------------------------------------------------------ */

int storage_alert_ack(struct storage *s, const char *rule, int64_t *ret_n)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_ALERT_ACK);
	int r = storage_sqlite_bind(s, statement, "c", rule);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	*ret_n = r == 0 ? sqlite3_changes64(s->db) : 0;
	return r;
}

int storage_alert_forget(struct storage *s)
{
	static const enum storage_sql sqls[] = { SQL_OUTBOX_DROP, SQL_ALERT_FORGET,
						 SQL_ALERT_SKIP };
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sqls); i++)
		r = storage_sqlite_run(s, storage_sqlite_statement(s, sqls[i]));
	return r;
}
