/* Differences to the sums, in a hash table over (table, keys) that lives for one transaction: a
 * slice of the fold touches the same few rows hundreds of times. Invariant: what is booked with 1
 * is taken out with -1 by the very same call, so a correction leaves no trace and the order of
 * arrival none either.
 */
#include "storage_sqlite_rollup.h"

#include "clock.h"

#include <errno.h>
#include <string.h>

#define HOUR_S INT64_C(3600)
#define DAY_S INT64_C(86400)
#define ROLLUP_KEYS 4
#define ROLLUP_VALUES 22

struct rollup_row {
	bool used;
	enum rollup_table table;
	int64_t key[ROLLUP_KEYS];
	int64_t value[ROLLUP_VALUES];
};

struct rollup {
	struct rollup_row *rows;
	size_t n, size; /* size is a power of two */
};

enum { COST_RUNTIME, COST_COST, COST_ESTIMATED, COST_RUNS_ENDED, COST_UNKNOWN, COST_N };
enum {
	HOUR_EXECUTIONS,
	HOUR_FAILED,
	HOUR_TIMEOUTS,
	HOUR_DURATION,
	HOUR_DURATION_LE,
	HOUR_STARTUPS = HOUR_DURATION_LE + 8,
	HOUR_STARTUP,
	HOUR_STARTUP_LE,
	HOUR_N = HOUR_STARTUP_LE + 8
};
enum {
	TOTAL_SANDBOXES,
	TOTAL_RUNNING,
	TOTAL_RUNS,
	TOTAL_RUNTIME,
	TOTAL_COST,
	TOTAL_UNKNOWN,
	TOTAL_EXECUTIONS,
	TOTAL_FAILED,
	TOTAL_DURATION,
	TOTAL_STARTUPS,
	TOTAL_STARTUP,
	TOTAL_LAST_MS,
	TOTAL_N
};

static const struct {
	size_t n_keys, n_values;
	enum storage_sql sql;
} tables[ROLLUP_N_TABLES] = {
	[ROLLUP_COST_HOUR] = { 4, COST_N, SQL_ROLLUP_COST_HOUR },
	[ROLLUP_COST_DAY] = { 4, COST_N, SQL_ROLLUP_COST_DAY },
	[ROLLUP_ACTIVITY_HOUR] = { 3, 1, SQL_ROLLUP_ACTIVITY_HOUR },
	[ROLLUP_TEMPLATE_HOUR] = { 2, HOUR_N, SQL_ROLLUP_TEMPLATE_HOUR },
	[ROLLUP_TEMPLATE_TOTAL] = { 1, TOTAL_N, SQL_ROLLUP_TEMPLATE_TOTAL },
};

static const int64_t duration_buckets[8] = { 100, 300, 1000, 3000, 10000, 30000, 100000, 300000 };
static const int64_t startup_buckets[8] = { 100, 200, 300, 500, 1000, 2000, 5000, 10000 };

/* The table ----------------------------------------------------------------- */

static size_t slot_of(const struct rollup *r, enum rollup_table table,
		      const int64_t key[static ROLLUP_KEYS])
{
	uint64_t h = (uint64_t)table + 1;
	for (size_t i = 0; i < ROLLUP_KEYS; i++) {
		h = (h ^ (uint64_t)key[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	size_t slot = h & (r->size - 1);
	while (r->rows[slot].used &&
	       (r->rows[slot].table != table ||
		memcmp(r->rows[slot].key, key, sizeof(r->rows[slot].key)) != 0))
		slot = (slot + 1) & (r->size - 1);
	return slot;
}

static int grow(struct rollup *r)
{
	struct rollup bigger = { .n = r->n, .size = r->size ? 2 * r->size : 256 };
	bigger.rows = calloc(bigger.size, sizeof(*bigger.rows));
	if (!bigger.rows)
		return -ENOMEM;
	for (size_t i = 0; i < r->size; i++)
		if (r->rows[i].used)
			bigger.rows[slot_of(&bigger, r->rows[i].table, r->rows[i].key)] =
				r->rows[i];
	free(r->rows);
	*r = bigger;
	return 0;
}

/* The values of one row; NULL when out of memory. */
static int64_t *row_of(struct storage *s, enum rollup_table table, int64_t a, int64_t b, int64_t c,
		       int64_t d)
{
	if (!s->rollup)
		s->rollup = calloc(1, sizeof(*s->rollup));
	struct rollup *r = s->rollup;
	if (!r || (2 * r->n >= r->size && grow(r) < 0))
		return NULL;
	const int64_t key[ROLLUP_KEYS] = { a, b, c, d };
	struct rollup_row *row = &r->rows[slot_of(r, table, key)];
	if (!row->used) {
		*row = (struct rollup_row) { .used = true, .table = table };
		memcpy(row->key, key, sizeof(row->key));
		r->n++;
	}
	return row->value;
}

void storage_sqlite_rollup_forget(struct storage *s)
{
	if (!s->rollup || !s->rollup->n)
		return;
	memset(s->rollup->rows, 0, s->rollup->size * sizeof(*s->rollup->rows));
	s->rollup->n = 0;
}

void storage_sqlite_rollup_finish(struct storage *s)
{
	if (s->rollup)
		free(s->rollup->rows);
	free(s->rollup);
	s->rollup = NULL;
}

static bool is_zero(const struct rollup_row *row)
{
	for (size_t i = 0; i < ROLLUP_VALUES; i++)
		if (row->value[i])
			return false;
	return true;
}

static int add_row(struct storage *s, const struct rollup_row *row)
{
	sqlite3_stmt *statement = storage_sqlite_statement(s, tables[row->table].sql);
	if (!statement)
		return -EIO;
	int i = 1, code = SQLITE_OK;
	for (size_t k = 0; k < tables[row->table].n_keys && code == SQLITE_OK; k++)
		code = sqlite3_bind_int64(statement, i++, row->key[k]);
	for (size_t k = 0; k < tables[row->table].n_values && code == SQLITE_OK; k++)
		code = sqlite3_bind_int64(statement, i++, row->value[k]);
	return code == SQLITE_OK ? storage_sqlite_run(s, statement)
				 : storage_sqlite_fail(s, code, "cannot bind");
}

int storage_sqlite_rollup_flush(struct storage *s)
{
	int r = 0;
	for (size_t i = 0; s->rollup && s->rollup->n && i < s->rollup->size && r == 0; i++) {
		const struct rollup_row *row = &s->rollup->rows[i];
		if (row->used && !is_zero(row))
			r = add_row(s, row);
	}
	storage_sqlite_rollup_forget(s);
	return r;
}

/* Booking ------------------------------------------------------------------- */

static int64_t floor_to(int64_t value, int64_t step)
{
	int64_t rest = value % step;
	return value - (rest < 0 ? rest + step : rest);
}

/* A sum that ran over would be wrong money for ever: then the event that leads there is skipped. */
static int add_to(int64_t *sum, int64_t value)
{
	return __builtin_add_overflow(*sum, value, sum) ? -ERANGE : 0;
}

/* The share of a run in [from, to): differences of rounded cumulative sums, so that shares add up.
 */
static int book_share(struct storage *s, enum rollup_table table, const struct ledger_account *a,
		      int64_t from_ms, int64_t to_ms, int sign)
{
	int64_t *v = row_of(s, table, from_ms / 1000, a->dims.source_key, a->dims.template_key,
			    a->dims.team_key);
	if (!v)
		return -ENOMEM;
	int64_t ms = ledger_runtime_until(a, to_ms) - ledger_runtime_until(a, from_ms);
	int r = add_to(&v[COST_RUNTIME], sign * ms);
	if (r < 0 || a->cost_nanousd == LEDGER_ABSENT)
		return r;
	int64_t cost = ledger_cost_until(a, to_ms) - ledger_cost_until(a, from_ms);
	r = add_to(&v[COST_COST], sign * cost);
	if (r == 0 && a->cost_source == LEDGER_COST_ESTIMATED)
		r = add_to(&v[COST_ESTIMATED], sign * cost);
	return r;
}

static int book_periods(struct storage *s, enum rollup_table table, const struct ledger_account *a,
			int64_t period_s, int sign)
{
	int64_t period_ms = period_s * 1000;
	int r = 0;
	if (a->started_ms != LEDGER_ABSENT)
		for (int64_t from = floor_to(a->started_ms, period_ms);
		     from < a->ended_ms && r == 0; from += period_ms)
			r = book_share(s, table, a, from, from + period_ms, sign);
	if (r < 0)
		return r;
	int64_t *v = row_of(s, table, floor_to(a->ended_ms, period_ms) / 1000, a->dims.source_key,
			    a->dims.template_key, a->dims.team_key);
	if (!v)
		return -ENOMEM;
	v[COST_RUNS_ENDED] += sign;
	v[COST_UNKNOWN] += sign * (a->cost_nanousd == LEDGER_ABSENT);
	return 0;
}

int storage_sqlite_book_run(struct storage *s, const struct ledger_account *a, int sign)
{
	if (!a->exists)
		return 0;
	int64_t *total = row_of(s, ROLLUP_TEMPLATE_TOTAL, a->dims.template_key, 0, 0, 0);
	if (!total)
		return -ENOMEM;
	total[TOTAL_RUNS] += sign;
	if (a->ended_ms == LEDGER_ABSENT)
		return 0;
	int r = 0;
	if (a->runtime_ms != LEDGER_ABSENT)
		r = add_to(&total[TOTAL_RUNTIME], sign * a->runtime_ms);
	if (a->cost_nanousd == LEDGER_ABSENT)
		total[TOTAL_UNKNOWN] += sign;
	else if (r == 0)
		r = add_to(&total[TOTAL_COST], sign * a->cost_nanousd);
	if (r == 0)
		r = book_periods(s, ROLLUP_COST_HOUR, a, HOUR_S, sign);
	return r < 0 ? r : book_periods(s, ROLLUP_COST_DAY, a, DAY_S, sign);
}

static void add_to_buckets(int64_t *v, const int64_t bounds[static 8], int64_t value, int sign)
{
	for (size_t i = 0; i < 8; i++)
		if (value <= bounds[i])
			v[i] += sign;
}

int storage_sqlite_book_execution(struct storage *s, const struct rollup_execution *x, int sign)
{
	int64_t *v =
		row_of(s, ROLLUP_TEMPLATE_HOUR, floor_to(x->time_s, HOUR_S), x->template_key, 0, 0);
	if (!v)
		return -ENOMEM;
	v[HOUR_EXECUTIONS] += sign;
	v[HOUR_FAILED] += sign * x->failed;
	v[HOUR_TIMEOUTS] += sign * x->timed_out;
	v[HOUR_DURATION] += sign * x->duration_ms;
	add_to_buckets(v + HOUR_DURATION_LE, duration_buckets, x->duration_ms, sign);
	v = row_of(s, ROLLUP_TEMPLATE_TOTAL, x->template_key, 0, 0, 0);
	if (!v)
		return -ENOMEM;
	v[TOTAL_EXECUTIONS] += sign;
	v[TOTAL_FAILED] += sign * x->failed;
	v[TOTAL_DURATION] += sign * x->duration_ms;
	return 0;
}

struct rollup_startup storage_sqlite_startup_of(const struct ledger_sandbox *sandbox,
						int64_t template_key)
{
	if (sandbox->startup_mark.seq == 0)
		return (struct rollup_startup) { .startup_ms = LEDGER_ABSENT };
	return (struct rollup_startup) {
		sandbox->startup_ms,
		floor_to(sandbox->startup_mark.time_ns / CLOCK_NS_PER_S, HOUR_S),
		template_key,
	};
}

int storage_sqlite_book_startup(struct storage *s, const struct rollup_startup *x, int sign)
{
	if (x->startup_ms == LEDGER_ABSENT)
		return 0;
	int64_t *v = row_of(s, ROLLUP_TEMPLATE_HOUR, x->hour_s, x->template_key, 0, 0);
	if (!v)
		return -ENOMEM;
	v[HOUR_STARTUPS] += sign;
	v[HOUR_STARTUP] += sign * x->startup_ms;
	add_to_buckets(v + HOUR_STARTUP_LE, startup_buckets, x->startup_ms, sign);
	v = row_of(s, ROLLUP_TEMPLATE_TOTAL, x->template_key, 0, 0, 0);
	if (!v)
		return -ENOMEM;
	v[TOTAL_STARTUPS] += sign;
	v[TOTAL_STARTUP] += sign * x->startup_ms;
	return 0;
}

int storage_sqlite_book_sandbox(struct storage *s, int64_t template_key, enum ledger_state state,
				int sign)
{
	int64_t *v = row_of(s, ROLLUP_TEMPLATE_TOTAL, template_key, 0, 0, 0);
	if (!v)
		return -ENOMEM;
	v[TOTAL_SANDBOXES] += sign;
	v[TOTAL_RUNNING] += sign * (state == LEDGER_RUNNING);
	return 0;
}

int storage_sqlite_book_event(struct storage *s, int64_t time_unix_ms, int64_t template_key,
			      enum event_kind kind)
{
	if (kind == EVENT_TEST)
		return 0;
	int64_t *v = row_of(s, ROLLUP_ACTIVITY_HOUR, floor_to(time_unix_ms / 1000, HOUR_S),
			    template_key, kind, 0);
	if (!v)
		return -ENOMEM;
	v[0]++;
	v = row_of(s, ROLLUP_TEMPLATE_TOTAL, template_key, 0, 0, 0);
	if (!v)
		return -ENOMEM;
	v[TOTAL_LAST_MS] = base_max_i64(v[TOTAL_LAST_MS], time_unix_ms);
	return 0;
}
