/* Is a store sound? First what SQLite knows (pages, indexes), then what only we know: sums and
 * counters that are kept beside the rows must be what the rows say. Every statement sees the same
 * snapshot.
 *
 * A comparison adds what is kept and takes away what the rows say; all sums must be 0. The frozen
 * tables hold what retention took away: rows that are gone and still count.
 */
#include "storage_backup.h"

#include "buffer.h"
#include "storage_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

/* The number of migrations; the texts themselves stay in one place only. */
struct migration {
	int version;
	const char *name, *sql;
};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
enum {
	SCHEMA_VERSION = sizeof((const struct migration[]) {
#include "schema_sqlite.inc"
			 }) /
			 sizeof(struct migration)
};
#pragma GCC diagnostic pop

int64_t storage_check_schema_version(void)
{
	return SCHEMA_VERSION;
}

/* What is compared. Columns: so many keys, which name the group, then differences. */
struct comparison {
	const char *subject;
	size_t n_keys;
	const char *sql;
};

/* clang-format off */
#define SOURCE "(SELECT name FROM source WHERE source.source_key = d.source_key) AS source"
#define TEMPLATE "(SELECT template_id FROM template WHERE template.template_key = d.template_key) AS template"
#define TEAM "(SELECT team_id FROM team WHERE team.team_key = d.team_key) AS team"
#define COST "sum(runtime_ms) AS runtime_ms, sum(cost_nanousd) AS cost_nanousd, " \
	"sum(estimated_nanousd) AS estimated_nanousd, sum(runs_ended) AS runs_ended, sum(unknown_cost) AS unknown_cost"
#define RUNTIME "max(0, ended_after_ms - time_ms)"
#define MINUS_COST "-runtime_ms, -cost_nanousd, -estimated_nanousd, -runs_ended, -unknown_cost"

static const struct comparison comparisons[] = {
	{ "what is set aside, as counted", 2,
	  "SELECT side, " SOURCE ", sum(n_rows) AS n_rows, sum(bytes) AS bytes FROM ("
	  " SELECT side, source_key, n_rows, bytes FROM side_size UNION ALL"
	  " SELECT 'quarantine', source_key, -1, -length(payload) FROM quarantined_body UNION ALL"
	  " SELECT 'rejection', source_key, -1, -coalesce(length(payload), 0) FROM rejection"
	  ") d GROUP BY side, source_key" },

	{ "cost_hourly", 3,
	  "SELECT " SOURCE ", " TEMPLATE ", " TEAM ", " COST " FROM ("
	  " SELECT source_key, template_key, team_key, runtime_ms, cost_nanousd, estimated_nanousd, runs_ended,"
	  "  unknown_cost FROM cost_hour UNION ALL"
	  " SELECT source_key, template_key, team_key, " MINUS_COST " FROM frozen_cost_hour UNION ALL"
	  " SELECT z.source_key, coalesce(r.template_key, 0), z.team_key, -iif(r.time_ms IS NULL, 0, " RUNTIME "),"
	  "  -iif(r.time_ms IS NULL, 0, coalesce(r.cost_nanousd, 0)),"
	  "  -iif(r.time_ms IS NULL OR z.cost_source <> 2, 0, coalesce(r.cost_nanousd, 0)),"
	  "  -1, -(r.cost_nanousd IS NULL)"
	  "  FROM run r JOIN run_traits z ON z.traits_key = r.traits_key WHERE r.ended_after_ms IS NOT NULL"
	  ") d GROUP BY source_key, template_key, team_key" },

	{ "cost_daily", 4,
	  "SELECT date(day_s, 'unixepoch') AS day, " SOURCE ", " TEMPLATE ", " TEAM ", " COST " FROM ("
	  " SELECT day_s, source_key, template_key, team_key, runtime_ms, cost_nanousd, estimated_nanousd, runs_ended,"
	  "  unknown_cost FROM cost_day UNION ALL"
	  " SELECT hour_s - hour_s % 86400, source_key, template_key, team_key, " MINUS_COST " FROM cost_hour"
	  ") d GROUP BY day_s, source_key, template_key, team_key" },

	{ "template_stats", 1,
	  "SELECT " TEMPLATE ", sum(sandboxes) AS sandboxes, sum(running) AS running, sum(runs) AS runs,"
	  " sum(runtime_ms) AS runtime_ms, sum(cost_nanousd) AS cost_nanousd, sum(unknown_cost) AS unknown_cost,"
	  " sum(executions) AS executions, sum(failed) AS failed, sum(duration_ms) AS duration_ms FROM ("
	  " SELECT template_key, sandboxes, running, runs, runtime_ms, cost_nanousd, unknown_cost, executions, failed,"
	  "  duration_ms FROM template_total UNION ALL"
	  " SELECT template_key, -sandboxes, -running, -runs, -runtime_ms, -cost_nanousd, -unknown_cost, -executions,"
	  "  -failed, -duration_ms FROM frozen_template_total UNION ALL"
	  " SELECT coalesce(template_key, 0), -1, -(state = 1), 0, 0, 0, 0, 0, 0, 0 FROM sandbox UNION ALL"
	  " SELECT coalesce(template_key, 0), 0, 0, -1, -coalesce(" RUNTIME ", 0),"
	  "  -iif(ended_after_ms IS NULL, 0, coalesce(cost_nanousd, 0)), -(ended_after_ms IS NOT NULL AND cost_nanousd IS NULL),"
	  "  0, 0, 0 FROM run WHERE time_s IS NOT NULL UNION ALL"
	  " SELECT coalesce(template_key, 0), 0, 0, 0, 0, 0, 0, -1, -failed, -duration_ms FROM execution"
	  ") d GROUP BY template_key" },

	{ "template_hourly", 1,
	  "SELECT " TEMPLATE ", sum(executions) AS executions, sum(failed) AS failed, sum(timeouts) AS timeouts,"
	  " sum(duration_ms) AS duration_ms FROM ("
	  " SELECT template_key, executions, failed, timeouts, duration_ms FROM template_hour UNION ALL"
	  " SELECT template_key, -executions, -failed, -timeouts, -duration_ms FROM frozen_template_hour UNION ALL"
	  " SELECT coalesce(template_key, 0), -1, -failed,"
	  "  -((SELECT status FROM execution_traits z WHERE z.traits_key = execution.traits_key) = 2), -duration_ms"
	  "  FROM execution"
	  ") d GROUP BY template_key" },

	{ "sandboxes", 1,
	  "SELECT (SELECT sandbox_id FROM sandbox WHERE sandbox.sandbox_key = d.sandbox_key) AS sandbox_id,"
	  " sum(runs) AS runs, sum(runtime_ms) AS runtime_ms,"
	  " sum(cost_nanousd) AS cost_nanousd, sum(unknown_cost) AS unknown_cost, sum(executions) AS executions,"
	  " sum(failed_executions) AS failed_executions, sum(loose_executions) AS loose_executions,"
	  " sum(loose_events) AS loose_events FROM ("
	  " SELECT sandbox_key, runs, runtime_ms, cost_nanousd, unknown_cost, executions, failed_executions,"
	  "  loose_executions, n_loose AS loose_events FROM sandbox UNION ALL"
	  " SELECT sandbox_key, -1, -coalesce(" RUNTIME ", 0),"
	  "  -iif(ended_after_ms IS NULL, 0, coalesce(cost_nanousd, 0)), -(ended_after_ms IS NOT NULL AND cost_nanousd IS NULL),"
	  "  0, 0, 0, 0 FROM run WHERE time_s IS NOT NULL UNION ALL"
	  " SELECT sandbox_key, 0, 0, 0, 0, -1, -failed,"
	  "  -((SELECT named_run FROM execution_traits z WHERE z.traits_key = execution.traits_key) = 0), 0"
	  "  FROM execution UNION ALL"
	  " SELECT sandbox_key, 0, 0, 0, 0, 0, 0, 0, -1 FROM loose_event"
	  ") d GROUP BY sandbox_key" },

	{ "rows that belong to nothing", 0,
	  "SELECT (SELECT count(*) FROM run WHERE sandbox_key NOT IN (SELECT sandbox_key FROM sandbox)) AS runs,"
	  " (SELECT count(*) FROM execution WHERE sandbox_key NOT IN (SELECT sandbox_key FROM sandbox)) AS executions,"
	  " (SELECT count(*) FROM loose_event WHERE sandbox_key NOT IN (SELECT sandbox_key FROM sandbox)) AS loose_events,"
	  " (SELECT count(*) FROM event_link WHERE seq NOT IN (SELECT seq FROM event)) AS event_links,"
	  " (SELECT count(*) FROM event_identity WHERE seq NOT IN (SELECT seq FROM event)) AS event_identities,"
	  " (SELECT count(*) FROM skipped WHERE seq NOT IN (SELECT seq FROM event)) AS skipped" },

	{ "events that the ledger passed over", 0,
	  "SELECT count(*) AS events FROM event WHERE seq <= (SELECT folded_seq FROM position)"
	  " AND seq NOT IN (SELECT seq FROM event_link)" },

	{ "events that are not found by their id", 0,
	  "SELECT count(*) AS events FROM event WHERE seq <= (SELECT indexed_seq FROM position)"
	  " AND seq NOT IN (SELECT seq FROM event_identity)" },

	{ "events without their body", 0,
	  "SELECT count(*) AS events FROM event e WHERE coalesce(body_at < 0 OR body_len < 1 OR body_at + body_len - iif(id_at IS NULL, 0, 36) >"
	  " (SELECT length(bodies) FROM body_block b WHERE b.first_seq <= e.seq ORDER BY b.first_seq DESC LIMIT 1), 1)" },

	{ "bodies without an event", 0,
	  "SELECT count(*) AS blocks FROM body_block b WHERE NOT EXISTS (SELECT 1 FROM event WHERE seq >= b.first_seq"
	  " AND seq < coalesce((SELECT min(n.first_seq) FROM body_block n WHERE n.first_seq > b.first_seq),"
	  "  9223372036854775807))" },

	{ "rows of no known traits", 0,
	  "SELECT (SELECT count(*) FROM run WHERE traits_key NOT IN (SELECT traits_key FROM run_traits)) AS runs,"
	  " (SELECT count(*) FROM execution WHERE traits_key NOT IN (SELECT traits_key FROM execution_traits))"
	  " AS executions" },

	{ "events of no known source or type", 0,
	  "SELECT count(*) AS events FROM event e LEFT JOIN event_traits z ON z.traits_key = e.traits_key"
	  " WHERE z.traits_key IS NULL OR z.source_key NOT IN (SELECT source_key FROM source)"
	  " OR z.type_key NOT IN (SELECT type_key FROM event_type)" },

	{ "schema version", 0,
	  "SELECT schema_version - (SELECT user_version FROM pragma_user_version) AS stored_twice FROM position" },
};
/* clang-format on */

/* ---- how ---- */

#define FINDINGS_MAX 20 /* of one comparison */
#define FINDING_MAX 1024

struct check {
	struct storage_reader *reader;
	storage_check_fn fn;
	void *ctx;
	bool found;
};

static void tell(struct check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void tell(struct check *c, const char *fmt, ...)
{
	char text[FINDING_MAX];
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->found = true;
	c->fn(c->ctx, text);
}

/* A statement that fails on a damaged page is a finding; what else fails ends the check. */
static int failed(struct check *c, const char *subject, int r)
{
	if (r != -EUCLEAN && r != -EINVAL && r != -ENODATA)
		return r;
	tell(c, "%s: %s", subject,
	     r == -ENODATA ? "a row is missing" : storage_reader_error(c->reader));
	return 0;
}

/* SQLite says several things in one text, under a heading. */
static void tell_lines(struct check *c, struct span text)
{
	while (text.len > 0) {
		const char *end = memchr(text.s, '\n', text.len);
		size_t len = end ? (size_t)(end - text.s) : text.len;
		if (len > 0 && text.s[0] != '*')
			tell(c, "database: %.*s", (int)base_min_size(len, 900), text.s);
		text.s += len + (end != NULL);
		text.len -= len + (end != NULL);
	}
}

static int check_pages(struct check *c)
{
	int r = storage_reader_query(c->reader, "PRAGMA integrity_check(100)", NULL, 0);
	while (r == 0 && (r = storage_reader_next(c->reader)) == STORAGE_READER_ROW) {
		struct span text = storage_reader_value(c->reader, 0).text;
		r = 0;
		if (!span_is(text, SPAN_LITERAL("ok")))
			tell_lines(c, text);
	}
	return r < 0 ? failed(c, "database", r) : 0;
}

static bool is_off(const struct check *c, size_t n_keys)
{
	for (size_t i = n_keys; i < storage_reader_columns(c->reader); i++)
		if (storage_reader_value(c->reader, i).integer != 0)
			return true;
	return false;
}

static int add_key(const struct check *c, size_t i, struct buffer *line)
{
	struct storage_value v = storage_reader_value(c->reader, i);
	return buffer_appendf(line, "%s%s %.*s", i > 0 ? ", " : " of ",
			      storage_reader_column(c->reader, i),
			      v.type == STORAGE_BYTES ? (int)base_min_size(v.text.len, 128) : 1,
			      v.type == STORAGE_BYTES ? v.text.s : "-");
}

static int add_difference(const struct check *c, size_t i, bool is_first, struct buffer *line)
{
	int64_t n = storage_reader_value(c->reader, i).integer;
	return buffer_appendf(line, "%s%s off by %" PRId64, is_first ? ": " : ", ",
			      storage_reader_column(c->reader, i), n);
}

static int tell_row(struct check *c, const struct comparison *it)
{
	CLEANUP(buffer_finish) struct buffer line = BUFFER_INIT(FINDING_MAX);
	bool is_first = true;
	int r = buffer_append_text(&line, it->subject);
	for (size_t i = 0; r == 0 && i < storage_reader_columns(c->reader); i++) {
		if (i < it->n_keys) {
			r = add_key(c, i, &line);
		} else if (storage_reader_value(c->reader, i).integer != 0) {
			r = add_difference(c, i, is_first, &line);
			is_first = false;
		}
	}
	if (r < 0 && r != -ENOBUFS)
		return r;
	tell(c, "%s", line.data ? line.data : it->subject);
	return 0;
}

static int compare(struct check *c, const struct comparison *it)
{
	int r = storage_reader_query(c->reader, it->sql, NULL, 0);
	for (size_t n = 0; r == 0 && (r = storage_reader_next(c->reader)) == STORAGE_READER_ROW;) {
		r = 0;
		if (!is_off(c, it->n_keys))
			continue;
		if (++n > FINDINGS_MAX) {
			tell(c, "%s: and more", it->subject);
			break;
		}
		r = tell_row(c, it);
	}
	if (r < 0)
		r = failed(c, it->subject, r);
	storage_reader_end(c->reader);
	return r;
}

static int run(struct check *c, const char *sql)
{
	int r = storage_reader_query(c->reader, sql, NULL, 0);
	return r < 0 ? r : storage_reader_next(c->reader);
}

/* False: no statement of ours fits it. */
static bool check_versions(struct check *c, int *ret_r)
{
	int64_t version = 0, at[2] = { 0 };
	int r = storage_reader_integers(c->reader, "PRAGMA user_version", &version, 1);
	bool is_newer = r == 0 && version > SCHEMA_VERSION;
	if (is_newer)
		tell(c,
		     "schema: version %" PRId64
		     " is newer than this program (%d): check with the program that made it",
		     version, (int)SCHEMA_VERSION);
	else if (r == 0 && version < SCHEMA_VERSION)
		tell(c,
		     "schema: version %" PRId64
		     " is older than this program (%d): the daemon brings it up when it starts",
		     version, (int)SCHEMA_VERSION);
	else if (r == 0)
		r = storage_reader_integers(c->reader, "SELECT fold_version, rebuild FROM position",
					    at, 2);
	if (r == 0 && version == SCHEMA_VERSION && at[0] != storage_fold_version() && at[1] == 0)
		tell(c,
		     "ledger: made by version %" PRId64 " of the rules, this program has %" PRId64
		     ": the daemon rebuilds it when it starts",
		     at[0], storage_fold_version());
	*ret_r = r < 0 ? failed(c, "schema", r) : 0;
	return r == 0 && version == SCHEMA_VERSION;
}

int storage_check(const char *path, storage_check_fn fn, void *ctx,
		  char error[static STORAGE_ERROR_MAX])
{
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	error[0] = '\0';
	int r = storage_reader_open(path, &reader, error);
	if (r == -EPERM || r == -EUCLEAN) {
		fn(ctx, error);
		return STORAGE_CHECK_FOUND;
	}
	if (r < 0)
		return r;
	struct check c = { .reader = reader, .fn = fn, .ctx = ctx };
	r = run(&c, "BEGIN");
	if (r == 0)
		r = check_pages(&c);
	bool fits = r == 0 && check_versions(&c, &r);
	for (size_t i = 0; r == 0 && fits && i < ARRAY_SIZE(comparisons); i++)
		r = compare(&c, &comparisons[i]);
	if (r < 0)
		(void)snprintf(error, STORAGE_ERROR_MAX, "%s: %s", path,
			       storage_reader_error(reader));
	return r < 0 ? r : c.found ? STORAGE_CHECK_FOUND : 0;
}
