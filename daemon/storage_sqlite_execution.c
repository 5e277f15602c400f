/* Executions: the latest report about one counts, by (event time, event id). Both are the event's,
 * and read there, until retention takes it and leaves them behind.
 */
#include "storage_sqlite_fields.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_traits.h"

#include <string.h>

struct known_execution {
	bool exists, has_time;
	int64_t seq, event_ns, failed, named_run;
	char event_id[EVENT_ID_MAX + 1];
	struct rollup_execution booked;
};

static int find_execution(struct storage *s, int64_t sandbox_key, struct span id,
			  struct known_execution *ret)
{
	*ret = (struct known_execution) { 0 };
	sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_GET);
	int r = storage_sqlite_bind(s, statement, "iid", sandbox_key,
				    storage_sqlite_identity_hash(s, id), id);
	if (r == 0)
		r = storage_sqlite_step(s, statement);
	if (r <= 0)
		return r;
	ret->exists = true;
	ret->seq = sqlite3_column_int64(statement, 0);
	ret->has_time = storage_sqlite_absent(statement, 1) != INT64_MIN;
	ret->event_ns = sqlite3_column_int64(statement, 1);
	storage_sqlite_id(statement, 2, ret->event_id);
	ret->failed = sqlite3_column_int64(statement, 3);
	ret->named_run = sqlite3_column_int64(statement, 4);
	ret->booked = (struct rollup_execution) {
		.time_s = sqlite3_column_int64(statement, 5),
		.template_key = sqlite3_column_int64(statement, 6),
		.duration_ms = sqlite3_column_int64(statement, 7),
		.failed = ret->failed != 0,
		.timed_out = sqlite3_column_int64(statement, 8) == EVENT_TIMEOUT,
	};
	(void)sqlite3_reset(statement);
	return 0;
}

/* Started, else the event's time: what the view calls time, and what decides which run covers it.
 */
static int64_t execution_ms(const struct event *e)
{
	return e->execution.started_unix_ms != EVENT_ABSENT ? e->execution.started_unix_ms
							    : e->time_unix_ns / 1000000;
}

static int64_t has_end(const struct event *e)
{
	int64_t end_ms;
	return !__builtin_add_overflow(execution_ms(e), e->execution.duration_ms, &end_ms) &&
	       end_ms == e->execution.finished_unix_ms;
}

static int traits_of(struct storage *s, const struct storage_execution *x, int64_t *ret_key)
{
	const struct event_execution *d = &x->event->execution;
	int64_t kind_key = 0, language_key = 0;
	int r = storage_key(s, STORAGE_WORD, d->language, &language_key);
	if (r == 0 && !span_is(d->kind_name, SPAN_LITERAL("code")))
		r = storage_key(s, STORAGE_WORD, d->kind_name, &kind_key);
	if (r < 0)
		return r;
	const int64_t values[] = {
		x->dims.source_key,
		x->dims.team_key,
		kind_key,
		language_key,
		d->status,
		d->exit_code,
		d->attempt,
		d->final,
		d->vcpu_count,
		d->memory_mb,
		x->cost_source,
		x->named_run_key != 0,
		d->started_unix_ms != EVENT_ABSENT,
		has_end(x->event),
	};
	return storage_sqlite_traits_key(s, STORAGE_EXECUTION_TRAITS, values, ARRAY_SIZE(values),
					 ret_key);
}

static int insert_execution(struct storage *s, const struct storage_execution *x)
{
	const struct event *e = x->event;
	const struct event_execution *d = &e->execution;
	int64_t traits_key;
	int r = traits_of(s, x, &traits_key);
	if (r < 0)
		return r;
	const struct ledger_run *covering =
		x->named_run_key ? NULL : ledger_run_at(x->sandbox, execution_ms(e));
	struct fields f = storage_sqlite_fields(s, SQL_EXECUTION_PUT);
	storage_sqlite_give(&f, x->seq);
	storage_sqlite_give(&f, x->sandbox->key);
	storage_sqlite_give(&f, storage_sqlite_identity_hash(s, d->execution_id));
	storage_sqlite_give(&f, execution_ms(e) / 1000);
	storage_sqlite_give(&f, execution_ms(e) % 1000);
	storage_sqlite_give(&f, traits_key);
	storage_sqlite_give_key(&f, covering ? covering->key : x->named_run_key);
	storage_sqlite_give_key(&f, x->dims.template_key);
	storage_sqlite_give(&f, d->failed);
	storage_sqlite_give(&f, d->duration_ms);
	storage_sqlite_give_absent(&f, x->cost_nanousd);
	storage_sqlite_give(&f, storage_sqlite_change_seq(s));
	storage_sqlite_give_id(&f, d->execution_id);
	storage_sqlite_give_absent(&f, has_end(e) ? INT64_MIN : d->finished_unix_ms);
	storage_sqlite_give_text(&f, d->error_name);
	storage_sqlite_give_text(&f, d->error_value);
	return storage_sqlite_give_end(&f);
}

/* Is the event later than the one that counts so far? */
static bool is_later(const struct storage *s, const struct event *event,
		     const struct known_execution *known)
{
	if (!known->exists)
		return true;
	if (!known->has_time) /* pruned before it was kept: what is stored since is later */
		return event->time_unix_ns >= s->now.position.horizon_unix_s * INT64_C(1000000000);
	if (event->time_unix_ns != known->event_ns)
		return event->time_unix_ns > known->event_ns;
	return strcmp(event->id, known->event_id) > 0;
}

int storage_put_execution(struct storage *s, const struct storage_execution *x,
			  struct storage_counts *ret)
{
	*ret = (struct storage_counts) { 0 };
	struct known_execution known;
	int r = find_execution(s, x->sandbox->key, x->event->execution.execution_id, &known);
	if (r < 0)
		return r;
	if (!is_later(s, x->event, &known))
		return 0;
	if (known.exists) {
		sqlite3_stmt *statement = storage_sqlite_statement(s, SQL_EXECUTION_DELETE);
		r = storage_sqlite_bind(s, statement, "i", known.seq);
		if (r == 0)
			r = storage_sqlite_run(s, statement);
		if (r == 0)
			r = storage_sqlite_book_execution(s, &known.booked, -1);
		if (r < 0)
			return r;
	}
	struct rollup_execution now = {
		.time_s = execution_ms(x->event) / 1000,
		.template_key = x->dims.template_key,
		.duration_ms = x->event->execution.duration_ms,
		.failed = x->event->execution.failed,
		.timed_out = x->event->execution.status == EVENT_TIMEOUT,
	};
	r = storage_sqlite_book_execution(s, &now, 1);
	if (r < 0)
		return r;
	ret->executions = known.exists ? 0 : 1;
	ret->failed = (int)x->event->execution.failed - (known.exists ? (int)known.failed : 0);
	ret->loose = (x->named_run_key == 0) - (known.exists && !known.named_run);
	return insert_execution(s, x);
}
