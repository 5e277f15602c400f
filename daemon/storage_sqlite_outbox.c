/* Notifications and their way out. Of each (rule, target) only the oldest that waits may be taken,
 * so that a receiver hears things in the order in which they happened.
 */
#include "storage_alert.h"

#include "storage_sqlite_fields.h"

#include <math.h>
#include <string.h>

static struct span span_of(const char *text)
{
	return (struct span) { text, strlen(text) };
}

static void give_real(struct fields *f, double value)
{
	if (f->code == SQLITE_OK && f->statement)
		f->code = isnan(value) ? sqlite3_bind_null(f->statement, f->next++)
				       : sqlite3_bind_double(f->statement, f->next++, value);
}

static double column_real(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? (double)NAN
		       : sqlite3_column_double(statement, column);
}

/* Making --------------------------------------------------------------------- */

static int add_notification(struct storage *s, const struct storage_post *post)
{
	const struct storage_alert *a = post->alert;
	struct fields f = storage_sqlite_fields(s, SQL_NOTIFICATION_ADD);
	storage_sqlite_give(&f, a->key);
	storage_sqlite_give(&f, post->gathers);
	storage_sqlite_give_text(&f, span_of(a->rule));
	storage_sqlite_give(&f, a->template_key);
	storage_sqlite_give(&f, a->part);
	storage_sqlite_give_text(&f, span_of(alert_rule_on_name(a->on)));
	storage_sqlite_give_text(&f, span_of(a->severity));
	storage_sqlite_give(&f, post->state);
	storage_sqlite_give(&f, a->track.since_ms ? a->track.since_ms : post->now_ms);
	storage_sqlite_give(&f, post->state == ALERT_RESOLVED ? post->now_ms : 0);
	storage_sqlite_give(&f, post->now_ms);
	storage_sqlite_give(&f, a->track.count);
	storage_sqlite_give(&f, a->track.total);
	give_real(&f, a->value);
	give_real(&f, post->threshold);
	storage_sqlite_give_text(&f, span_of(a->samples));
	return storage_sqlite_give_end(&f);
}

static int add_target(struct storage *s, const struct storage_post *post, int64_t id,
		      const char *target)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_ADD);
	int r = storage_sqlite_bind(s, statement, "iccii", id, target, post->alert->rule,
				    post->next_ms, post->now_ms);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_outbox_post(struct storage *s, const struct storage_post *post, int64_t *ret_id)
{
	int r = add_notification(s, post);
	if (r < 0)
		return r;
	*ret_id = sqlite3_last_insert_rowid(s->db);
	for (size_t i = 0; r == 0 && i < post->n_targets; i++)
		r = add_target(s, post, *ret_id, post->targets[i]);
	return r;
}

int storage_outbox_gathering(struct storage *s, int64_t until_ms, int64_t *ret_id,
			     int64_t *ret_alert_key)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_NOTIFICATION_GATHERING);
	int r = storage_sqlite_bind(s, statement, "i", until_ms);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret_id = sqlite3_column_int64(statement, 0);
	*ret_alert_key = sqlite3_column_int64(statement, 1);
	(void)sqlite3_reset(statement);
	return 1;
}

int storage_outbox_seal(struct storage *s, int64_t id, const struct storage_alert *alert)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_NOTIFICATION_SEAL);
	int r = storage_sqlite_bind(s, statement, "iici", alert->track.count, alert->track.total,
				    alert->samples, id);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

int storage_outbox_told(struct storage *s, const struct storage_alert *alert,
			void (*fn)(void *ctx, const char *target), void *ctx)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_TOLD);
	int r = storage_sqlite_bind(s, statement, "iici", alert->template_key,
				    alert->track.since_ms, alert->rule, (int64_t)alert->part);
	while (r == 0 && (r = storage_sqlite_step(s, statement)) == 1) {
		fn(ctx, (const char *)sqlite3_column_text(statement, 0));
		r = 0;
	}
	if (statement)
		(void)sqlite3_reset(statement);
	return r;
}

/* Sending --------------------------------------------------------------------- */

static void read_notice(sqlite3_stmt *statement, struct storage_notice *ret)
{
	struct storage_alert *a = &ret->alert;
	char on[32];
	ret->id = sqlite3_column_int64(statement, 0);
	storage_sqlite_copy(statement, 1, ret->notification_id, sizeof(ret->notification_id));
	storage_sqlite_copy(statement, 2, a->rule, sizeof(a->rule));
	a->part = (enum storage_alert_part)sqlite3_column_int(statement, 3);
	storage_sqlite_copy(statement, 4, on, sizeof(on));
	if (!alert_rule_on_from_name(on, &a->on))
		a->on = ALERT_ON_EXECUTION_FAILED;
	storage_sqlite_copy(statement, 5, a->severity, sizeof(a->severity));
	ret->state = (enum alert_state)sqlite3_column_int(statement, 6);
	ret->starts_ms = sqlite3_column_int64(statement, 7);
	ret->ends_ms = sqlite3_column_int64(statement, 8);
	ret->made_ms = sqlite3_column_int64(statement, 9);
	a->track.count = sqlite3_column_int64(statement, 10);
	a->track.total = sqlite3_column_int64(statement, 11);
	a->value = column_real(statement, 12);
	ret->threshold = column_real(statement, 13);
	storage_sqlite_copy(statement, 14, a->samples, sizeof(a->samples));
	storage_sqlite_copy(statement, 15, ret->template_id, sizeof(ret->template_id));
	storage_sqlite_copy(statement, 16, ret->template_name, sizeof(ret->template_name));
	ret->since_ms = sqlite3_column_int64(statement, 17);
	ret->attempts = sqlite3_column_int64(statement, 18) + 1;
}

int storage_outbox_take(struct storage *s, const char *target, int64_t now_ms,
			struct storage_notice *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_NEXT);
	int r = storage_sqlite_bind(s, statement, "ci", target, now_ms);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	*ret = (struct storage_notice) { .id = 0 };
	read_notice(statement, ret);
	(void)snprintf(ret->target, sizeof(ret->target), "%s", target);
	(void)sqlite3_reset(statement);
	statement = storage_sqlite_statement(s, SQL_OUTBOX_TRY);
	r = storage_sqlite_bind(s, statement, "ic", ret->id, target);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	return r < 0 ? r : 1;
}

int storage_outbox_due(struct storage *s, const char *target, int64_t *ret_ms)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_DUE);
	int r = storage_sqlite_bind(s, statement, "c", target);
	*ret_ms = INT64_MAX;
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	if (sqlite3_column_type(statement, 0) != SQLITE_NULL)
		*ret_ms = sqlite3_column_int64(statement, 0);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_outbox_report(struct storage *s, const struct storage_outbox_result *x)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_REPORT);
	int r = storage_sqlite_bind(s, statement, "iicic", (int64_t)x->status, x->at_ms, x->error,
				    x->id, x->target);
	return r < 0 ? r : storage_sqlite_run(s, statement);
}

/* Looking after it -------------------------------------------------------------- */

static int change(struct storage *s, enum storage_sql sql, int64_t argument, int64_t *ret_n)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, sql);
	int r = storage_sqlite_bind(s, statement, "i", argument);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	*ret_n = r == 0 ? sqlite3_changes64(s->db) : 0;
	return r;
}

int storage_outbox_expire(struct storage *s, int64_t before_ms, int64_t *ret_n)
{
	return change(s, SQL_OUTBOX_EXPIRE, before_ms, ret_n);
}

int storage_outbox_prune(struct storage *s, int64_t buckets_before_s)
{
	static const enum storage_sql sqls[] = { SQL_NOTIFICATION_PRUNE, SQL_OUTBOX_PRUNE,
						 SQL_ALERT_EVENT_PRUNE };
	int64_t n;
	int r = change(s, SQL_ALERT_BUCKET_PRUNE, buckets_before_s, &n);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(sqls); i++)
		r = storage_sqlite_run(s, storage_sqlite_statement(s, sqls[i]));
	return r;
}

int storage_outbox_figures(struct storage *s, struct storage_outbox_figures *ret)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_FIGURES);
	int r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	ret->waiting = sqlite3_column_int64(statement, 0);
	ret->failed = sqlite3_column_int64(statement, 1);
	ret->oldest_ms = sqlite3_column_int64(statement, 2);
	ret->firing = sqlite3_column_int64(statement, 3);
	(void)sqlite3_reset(statement);
	return 0;
}

int storage_outbox_retry(struct storage *s, const char *target, int64_t now_ms, int64_t *ret_n)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_OUTBOX_RETRY);
	int r = storage_sqlite_bind(s, statement, "ic", now_ms, target);
	if (r == 0)
		r = storage_sqlite_run(s, statement);
	*ret_n = r == 0 ? sqlite3_changes64(s->db) : 0;
	return r;
}
