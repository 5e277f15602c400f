/* Commands that read a view: a row in the table below is all that another one takes.
 *
 * A pipe to somebody who reads slowly must not hold the snapshot (the daemon's write-ahead log
 * would grow meanwhile): rows go to a temporary file first, and out when the statement has ended.
 */
#include "ctl_internal.h"

#include <errno.h>
#include <string.h>

#define SQL_MAX 1024
#define COLUMNS_MAX 64
#define FILTERS_MAX 8 /* with the limit */

#define TIMES (CTL_SINCE | CTL_UNTIL)
#define COMMON (CTL_LIMIT | CTL_FORMAT)

struct ctl_view {
	const char *command, *view, *summary;
	const char *order; /* newest first, by what is indexed */
	unsigned int filters; /* conditions that its columns allow */
	const char *shown; /* the columns of a table; csv and json have all */
	const char
		*order_within; /* of one sandbox or template, where the index has another order */
};

static const struct ctl_view views[] = {
	{ "events", "events", "stored events", "time DESC, seq DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX | CTL_TYPE | CTL_SOURCE,
	  "occurred_at, kind, sandbox_id, template, failed, source, event_id" },
	{ "executions", "executions", "code executions", "time DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX | CTL_SOURCE,
	  "started_at, sandbox_id, template, language, status, failed, exit_code, duration_ms, "
	  "attributed_cost_usd, error_name" },
	{ "failures", "failed_executions", "code executions that failed", "time DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX | CTL_SOURCE,
	  "started_at, sandbox_id, template, language, status, exit_code, duration_ms, error_name, "
	  "error_value" },
	{ "sandboxes", "sandboxes", "sandboxes with their sums", "time DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX | CTL_SOURCE,
	  "created_at, sandbox_id, template, state, kill_reason, runs, runtime_ms, cost_usd, "
	  "executions, failed_executions" },
	{ "running", "running", "what is up now, and what it has cost so far", "time DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX,
	  "started_at, sandbox_id, template, vcpu_count, memory_mb, accrued_ms, accrued_cost_usd, "
	  "expires_at" },
	{ "runs", "runs", "intervals in which a sandbox was up", "time DESC",
	  TIMES | CTL_TEMPLATE | CTL_SANDBOX | CTL_SOURCE,
	  "started_at, ended_at, end_kind, sandbox_id, template, vcpu_count, memory_mb, "
	  "runtime_ms, "
	  "cost_usd, cost_source" },
	{ "templates", "template_stats", "sums of all time for each template",
	  "last_event_at DESC, template_id", CTL_TEMPLATE,
	  "template, sandboxes, running, runs, runtime_ms, cost_usd, executions, "
	  "failed_executions, "
	  "failure_rate, last_event_at" },
	{ "notifications", "notifications", "what alerts said, and to whom", "id DESC", TIMES,
	  "made_at, rule, template, state, occurred, total, target, status, attempts, next_at, "
	  "error" },
	{ "quarantine", "quarantine", "rightly signed deliveries that are no events", "id DESC",
	  TIMES | CTL_SOURCE, "id, received_at, source, reason, detail, delivery_id" },
	{ "rejections", "rejections", "deliveries that were refused", "id DESC", TIMES | CTL_SOURCE,
	  "id, received_at, source, reason, remote_addr, payload_size, delivery_id" },
};

/* ---- the statement ---- */

struct query {
	char sql[SQL_MAX];
	size_t len;
	struct storage_value values[FILTERS_MAX];
	size_t n;
};

static void add_text(struct query *q, const char *text)
{
	size_t len = strlen(text);

	assert(q->len + len < sizeof(q->sql));
	memcpy(q->sql + q->len, text, len + 1);
	q->len += len;
}

static void add_condition(struct query *q, const char *condition, struct storage_value value)
{
	assert(q->n < FILTERS_MAX);
	add_text(q, q->n == 0 ? " WHERE " : " AND ");
	add_text(q, condition);
	q->values[q->n++] = value;
}

const char *ctl_views_template_id(const struct config *config, const char *name)
{
	const struct span text = { name, strlen(name) };
	const struct config_template *row = config_template_by_id(config, text);

	if (!row)
		row = config_template_by_alias(config, text);
	return row ? row->id : name;
}

/* Whole seconds, outward: the column `time` has no fraction. */
static int64_t seconds_down(int64_t ms)
{
	return ms / 1000 - (ms % 1000 < 0);
}

static void add_filters(struct query *q, const struct config *config, const struct ctl_options *o)
{
	if (o->given & CTL_SINCE)
		add_condition(q, "time >= ?", STORAGE_VALUE_INTEGER(seconds_down(o->since_ms)));
	if (o->given & CTL_UNTIL)
		add_condition(q, "time < ?",
			      STORAGE_VALUE_INTEGER(seconds_down(o->until_ms + 999)));
	if (o->template_name)
		add_condition(q, "template_id = ?",
			      STORAGE_VALUE_TEXT(ctl_views_template_id(config, o->template_name)));
	if (o->sandbox)
		add_condition(q, "sandbox_id = ?", STORAGE_VALUE_TEXT(o->sandbox));
	if (o->type)
		add_condition(q, "? IN (type, kind)", STORAGE_VALUE_TEXT(o->type));
	if (o->source)
		add_condition(q, "source = ?", STORAGE_VALUE_TEXT(o->source));
}

static void build_query(struct query *q, const struct ctl_view *view, const struct config *config,
			const struct ctl_options *o)
{
	*q = (struct query) { .n = 0 };
	add_text(q, "SELECT ");
	add_text(q, o->format == TABLE_OUT_TABLE ? view->shown : "*");
	add_text(q, " FROM ");
	add_text(q, view->view);
	add_filters(q, config, o);
	add_text(q, " ORDER BY ");
	add_text(q, view->order);
	if (o->limit > 0) {
		add_text(q, " LIMIT ?");
		q->values[q->n++] = STORAGE_VALUE_INTEGER(o->limit);
	}
}

/* ---- its rows ---- */

static struct table_out_cell cell_of(struct storage_value value)
{
	static const enum table_out_type types[] = {
		[STORAGE_NULL] = TABLE_OUT_NULL,
		[STORAGE_INTEGER] = TABLE_OUT_INTEGER,
		[STORAGE_REAL] = TABLE_OUT_REAL,
		[STORAGE_BYTES] = TABLE_OUT_TEXT,
	};

	return (struct table_out_cell) { .type = types[value.type],
					 .integer = value.integer,
					 .real = value.real,
					 .text = value.text };
}

static int write_rows(struct storage_reader *reader, struct table_out *out, size_t n_columns)
{
	struct table_out_cell cells[COLUMNS_MAX];
	int r;

	while ((r = storage_reader_next(reader)) == STORAGE_READER_ROW) {
		for (size_t i = 0; i < n_columns; i++)
			cells[i] = cell_of(storage_reader_value(reader, i));
		r = table_out_row(out, cells);
		if (r < 0) {
			storage_reader_end(reader);
			ctl_complain("cannot write the rows: %s", strerror(-r));
			return CTL_EXIT_FAILED;
		}
	}
	if (r == 0 && table_out_end(out) == 0)
		return 0;
	ctl_complain("%s", r < 0 ? storage_reader_error(reader) : "cannot write the rows");
	return CTL_EXIT_FAILED;
}

static void free_out(struct table_out **out)
{
	table_out_free(*out);
}

static int write_result(struct storage_reader *reader, enum table_out_format format, FILE *f)
{
	CLEANUP(free_out) struct table_out *out = NULL;
	const char *names[COLUMNS_MAX];
	size_t n = storage_reader_columns(reader);

	assert(n <= COLUMNS_MAX);
	for (size_t i = 0; i < n; i++)
		names[i] = storage_reader_column(reader, i);
	if (table_out_new(f, format, names, n, &out) < 0) {
		ctl_complain("out of memory");
		return CTL_EXIT_FAILED;
	}
	return write_rows(reader, out, n);
}

static int copy_out(FILE *from)
{
	char chunk[65536];
	size_t n;

	rewind(from);
	while ((n = fread(chunk, 1, sizeof(chunk), from)) > 0)
		if (fwrite(chunk, 1, n, stdout) != n)
			return CTL_EXIT_FAILED; /* said by ctl_finish_output */
	if (!ferror(from))
		return 0;
	ctl_complain("temporary file: %s", strerror(errno));
	return CTL_EXIT_FAILED;
}

int ctl_views_print(struct storage_reader *reader, enum table_out_format format, const char *about,
		    const char *sql, const struct storage_value *values, size_t n)
{
	if (storage_reader_query(reader, sql, values, n) < 0) {
		ctl_complain("%s: %s: the store is of another version of e2b-hookd", about,
			     storage_reader_error(reader));
		return CTL_EXIT_FAILED;
	}
	CLEANUP_FILE FILE *spool = tmpfile();
	int code = write_result(reader, format, spool ? spool : stdout);
	return code == 0 && spool ? copy_out(spool) : code;
}

static int run_view(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	struct query q;
	int code = ctl_load_config(options, &config);

	if (code == 0)
		code = ctl_open_store(config, &reader);
	if (code != 0)
		return code;
	code = ctl_check_stored_source(config, reader, options->source);
	if (code != 0)
		return code;
	build_query(&q, command->view, config, options);
	ctl_wait_folded(config, reader);
	return ctl_views_print(reader, options->format, command->view->view, q.sql, q.values, q.n);
}

bool ctl_views_command(size_t i, struct ctl_command *ret)
{
	if (i >= ARRAY_SIZE(views))
		return false;
	*ret = (struct ctl_command) { .name = views[i].command,
				      .summary = views[i].summary,
				      .details = "Newest first.\n",
				      .options = views[i].filters | COMMON,
				      .run = run_view,
				      .view = &views[i] };
	return true;
}
