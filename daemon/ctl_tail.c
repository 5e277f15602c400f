/* Following new events. A statement is never open while we wait, neither for events nor for who
 * reads them: rows are gathered first, some at a time, and written when it has ended. Which events
 * are new is a matter of seq alone, so none is shown twice or left out.
 *
 * Ends well on Ctrl-C and when nobody reads any more, which it notices though nothing is written.
 */
#include "ctl_internal.h"

#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK_MS 200
#define COLUMNS_MAX 64
#define SQL_MAX 512
#define BATCH_BYTES (1024 * 1024) /* gathered at a time; one event may be larger */
#define LINE_MAX_BYTES (8 * (size_t)CTL_FILE_MAX)

struct tail {
	const struct ctl_options *options;
	const struct config *config;
	struct storage_reader *reader;
	struct table_out *csv; /* writes to batch */
	struct buffer line;
	FILE *batch; /* a memory stream */
	char *batch_text;
	size_t batch_len;
	ino_t inode; /* of the store that the reader has open */
	int64_t after_seq;
	bool is_begun; /* the head was written */
	bool nobody_reads;
};

/* ---- one event ---- */

static struct storage_value column(const struct tail *t, size_t i)
{
	return storage_reader_value(t->reader, i);
}

static int append_json_value(struct buffer *b, const struct storage_value *v)
{
	switch (v->type) {
	case STORAGE_NULL:
		return buffer_append_text(b, "null");
	case STORAGE_INTEGER:
		return buffer_appendf(b, "%" PRId64, v->integer);
	case STORAGE_REAL:
		return buffer_appendf(b, "%.17g", v->real);
	case STORAGE_BYTES:
		return json_append_string(b, v->text);
	}
	return -EINVAL;
}

static int append_json(struct tail *t)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < storage_reader_columns(t->reader); i++) {
		struct storage_value v = column(t, i);
		r = buffer_appendf(&t->line, "%s\"%s\":", i > 0 ? "," : "{",
				   storage_reader_column(t->reader, i));
		if (r == 0)
			r = append_json_value(&t->line, &v);
	}
	return r < 0 ? r : buffer_append_text(&t->line, "}\n");
}

static struct span text_of(const struct tail *t, size_t i)
{
	struct storage_value v = column(t, i);

	return v.type == STORAGE_BYTES ? v.text : SPAN_LITERAL("");
}

static struct span name_of(const struct tail *t, size_t i)
{
	const char *name = storage_reader_column(t->reader, i);

	return (struct span) { name, strlen(name) };
}

/* For people: the columns that the statement chose, in columns; their texts or their names. */
static int append_visible(struct tail *t, struct span (*cell)(const struct tail *t, size_t i))
{
	static const size_t widths[] = { 24, 14, 24, 24 };
	size_t n = storage_reader_columns(t->reader), at = 0;
	int r = 0;

	for (size_t i = 1; r == 0 && i < n; i++) { /* but for seq */
		r = table_out_append_visible(&t->line, cell(t, i), 64);
		at += i <= ARRAY_SIZE(widths) ? widths[i - 1] + 2 : 0;
		if (r == 0 && i + 1 < n)
			r = buffer_appendf(&t->line, "%*s",
					   t->line.len + 1 < at ? (int)(at - t->line.len) : 2, "");
	}
	return r < 0 ? r : buffer_append_text(&t->line, "\n");
}

static int write_csv(struct tail *t)
{
	struct table_out_cell cells[COLUMNS_MAX];
	static const enum table_out_type types[] = {
		[STORAGE_NULL] = TABLE_OUT_NULL,
		[STORAGE_INTEGER] = TABLE_OUT_INTEGER,
		[STORAGE_REAL] = TABLE_OUT_REAL,
		[STORAGE_BYTES] = TABLE_OUT_TEXT,
	};

	for (size_t i = 0; i < storage_reader_columns(t->reader); i++) {
		struct storage_value v = column(t, i);
		cells[i] = (struct table_out_cell) {
			.type = types[v.type], .integer = v.integer, .real = v.real, .text = v.text
		};
	}
	return table_out_row(t->csv, cells);
}

static int write_line(const struct tail *t)
{
	return fwrite(t->line.data, 1, t->line.len, t->batch) == t->line.len ? 0 : -ENOMEM;
}

static int write_event(struct tail *t)
{
	if (t->options->format == TABLE_OUT_CSV)
		return write_csv(t);
	buffer_clear(&t->line);
	int r = t->options->format == TABLE_OUT_JSON ? append_json(t) : append_visible(t, text_of);
	return r < 0 ? r : write_line(t);
}

/* ---- those that are new ---- */

static size_t write_sql(const struct tail *t, int64_t until_seq, char sql[static SQL_MAX],
			struct storage_value values[static 8])
{
	const struct ctl_options *o = t->options;
	const struct {
		const char *condition, *text;
	} filters[] = {
		{ " AND ? IN (type, kind)", o->type },
		{ " AND sandbox_id = ?", o->sandbox },
		{ " AND source = ?", o->source },
		{ " AND template_id = ?",
		  o->template_name ? ctl_views_template_id(t->config, o->template_name) : NULL },
	};
	size_t n = 0;
	int len = snprintf(
		sql, SQL_MAX, "SELECT %s FROM events WHERE seq > ? AND seq <= ?",
		o->format == TABLE_OUT_TABLE
			? "seq, occurred_at, iif(failed, 'failed', kind) AS kind, sandbox_id, "
			  "template, source"
			: "*");

	values[n++] = STORAGE_VALUE_INTEGER(t->after_seq);
	values[n++] = STORAGE_VALUE_INTEGER(until_seq);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++) {
		if (!filters[i].text)
			continue;
		len += snprintf(sql + len, SQL_MAX - (size_t)len, "%s", filters[i].condition);
		values[n++] = STORAGE_VALUE_TEXT(filters[i].text);
	}
	(void)snprintf(sql + len, SQL_MAX - (size_t)len, " ORDER BY seq");
	return n;
}

static int begin_csv(struct tail *t)
{
	const char *names[COLUMNS_MAX];
	size_t n = storage_reader_columns(t->reader);

	assert(n <= COLUMNS_MAX);
	for (size_t i = 0; i < n; i++)
		names[i] = storage_reader_column(t->reader, i);
	return table_out_new(t->batch, TABLE_OUT_CSV, names, n, &t->csv);
}

static int begin_table(struct tail *t)
{
	buffer_clear(&t->line);
	int r = append_visible(t, name_of);
	return r < 0 ? r : write_line(t);
}

/* The head, once; json has none. */
static int begin(struct tail *t)
{
	int r = 0;

	if (!t->is_begun && t->options->format == TABLE_OUT_CSV)
		r = begin_csv(t);
	else if (!t->is_begun && t->options->format == TABLE_OUT_TABLE)
		r = begin_table(t);
	t->is_begun = r == 0;
	return r;
}

/* 1: there may be more. */
static int gather(struct tail *t, int64_t until_seq)
{
	struct storage_value values[8];
	char sql[SQL_MAX];
	size_t n = write_sql(t, until_seq, sql, values);
	int r = storage_reader_query(t->reader, sql, values, n);
	bool is_full = false;

	if (r == 0)
		r = begin(t);
	while (r == 0 && !is_full && (r = storage_reader_next(t->reader)) == STORAGE_READER_ROW) {
		t->after_seq = column(t, 0).integer;
		r = write_event(t);
		is_full = ftello(t->batch) >= BATCH_BYTES;
	}
	storage_reader_end(t->reader);
	if (r == 0 && !is_full)
		t->after_seq = until_seq;
	return r < 0 ? r : is_full;
}

static int write_batch(struct tail *t)
{
	if (fflush(t->batch) != 0)
		return -ENOMEM;
	bool is_written = fwrite(t->batch_text, 1, t->batch_len, stdout) == t->batch_len &&
			  fflush(stdout) == 0;
	rewind(t->batch);
	return is_written ? 0 : -EIO;
}

static int newest_seq(struct tail *t, int64_t *ret)
{
	return storage_reader_integers(t->reader, "SELECT stored_seq FROM ledger_state", ret, 1);
}

static int show_new(struct tail *t)
{
	int64_t newest = 0;
	int r = newest_seq(t, &newest);
	bool is_more = r == 0 && newest > t->after_seq;

	while (is_more && !ctl_operate_is_stopped()) {
		r = gather(t, newest);
		is_more = r > 0;
		if (r >= 0)
			r = write_batch(t);
		if (r < 0)
			return r;
	}
	return r;
}

/* ---- the loop ---- */

static ino_t inode_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static int open_store(struct tail *t)
{
	t->inode = inode_of(t->config->store.path);
	int code = ctl_open_store(t->config, &t->reader);
	if (code == 0 && newest_seq(t, &t->after_seq) < 0) {
		ctl_complain("ledger_state: %s", storage_reader_error(t->reader));
		code = CTL_EXIT_FAILED;
	}
	return code;
}

/* After a restore the name is another file's. */
static int follow_name(struct tail *t)
{
	ino_t now = inode_of(t->config->store.path);

	if (now == t->inode || now == 0)
		return 0;
	ctl_complain("the store was replaced: following the new one");
	storage_reader_close(t->reader);
	t->reader = NULL;
	return open_store(t);
}

/* Nothing is to be read from standard output: what is reported is its end. */
static void wait_a_while(struct tail *t)
{
	struct pollfd out = { .fd = STDOUT_FILENO };

	if (poll(&out, 1, LOOK_MS) > 0)
		t->nobody_reads = true;
}

static int fail(struct tail *t, int r)
{
	if (ferror(stdout) && errno == EPIPE) {
		t->nobody_reads = true;
		return 0;
	}
	const char *why = r == -EIO && ferror(stdout) ? "cannot write to standard output"
						      : storage_reader_error(t->reader);
	ctl_complain("tail: %s", *why ? why : strerror(-r));
	return CTL_EXIT_FAILED;
}

static int follow(struct tail *t)
{
	while (!ctl_operate_is_stopped() && !t->nobody_reads) {
		int code = follow_name(t);
		if (code != 0)
			return code;
		int r = show_new(t);
		if (r < 0)
			code = fail(t, r);
		if (code != 0)
			return code;
		if (!t->nobody_reads)
			wait_a_while(t);
	}
	return 0;
}

/* What stdio still holds for a reader that is gone would be complained about at exit. */
static void drop_output(void)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (null >= 0)
		(void)dup2(null, STDOUT_FILENO);
	(void)fflush(stdout);
	clearerr(stdout);
}

static void tail_finish(struct tail *t)
{
	storage_reader_close(t->reader);
	table_out_free(t->csv);
	if (t->batch)
		(void)fclose(t->batch);
	free(t->batch_text);
	buffer_finish(&t->line);
}

int ctl_tail_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(tail_finish)
	struct tail t = { .options = options, .line = BUFFER_INIT(LINE_MAX_BYTES) };
	int code = ctl_load_config(options, &config);

	t.config = config;
	if (code == 0)
		code = open_store(&t);
	if (code == 0)
		code = ctl_check_stored_source(config, t.reader, options->source);
	if (code != 0)
		return code;
	t.batch = open_memstream(&t.batch_text, &t.batch_len);
	if (!t.batch) {
		ctl_complain("out of memory");
		return CTL_EXIT_FAILED;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	ctl_operate_catch_signals();
	code = follow(&t);
	if (t.nobody_reads)
		drop_output();
	return code;
}
