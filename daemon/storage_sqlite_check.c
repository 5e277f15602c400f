/* Is a store sound? First what SQLite knows (pages, indexes), then what only we know: sums and
 * counters that are kept beside the rows must be what the rows say. Each statement yields its
 * findings as text, none if all is well; all of them see the same snapshot.
 *
 * Counted from rows: what is there. Frozen: what retention took away, which the sums still hold.
 */
#include "storage_backup.h"
#include "storage_reader.h"

#include <errno.h>
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

/* ---- what is to be compared ---- */

#define COST_SUMS                                                                                  \
	"sum(runtime) AS runtime, sum(cost) AS cost, sum(estimated) AS estimated, "                \
	"sum(ended) AS ended, sum(unknown) AS unknown"
#define COST_DIFFERS "runtime <> 0 OR cost <> 0 OR estimated <> 0 OR ended <> 0 OR unknown <> 0"
#define COST_OFF                                                                                   \
	"run time is off by %d ms, cost by %d nano-USD, estimates by %d, ended runs by %d, "       \
	"unknown costs by %d'"
#define COST_OF(table, sign)                                                                       \
	"SELECT source_key, template_key, team_key, " sign "runtime_ms AS runtime, " sign          \
	"cost_nanousd AS cost, " sign "estimated_nanousd AS estimated, " sign                      \
	"runs_ended AS ended, " sign "unknown_cost AS unknown FROM " table

/* Of the names that a finding is about; at most so many of one kind. */
#define NAMES                                                                                      \
	"coalesce((SELECT name FROM source WHERE source.source_key = d.source_key), '-'), "        \
	"coalesce((SELECT template_id FROM template WHERE template.template_key = "                \
	"d.template_key), '-'), "                                                                  \
	"coalesce((SELECT team_id FROM team WHERE team.team_key = d.team_key), '-')"
#define AT_MOST " LIMIT 20"

#define TEMPLATE_OF                                                                                \
	"coalesce((SELECT template_id FROM template WHERE template.template_key = "                \
	"d.template_key), '-')"

static const char *const comparisons[] = {
	/* counters of what is set aside */
	"SELECT printf('%s of source %s: %d rows and %d bytes are there, %d and %d are counted', "
	"side, coalesce((SELECT name FROM source WHERE source.source_key = d.source_key), '-'), "
	"rows_there, bytes_there, rows_counted, bytes_counted) FROM (SELECT side, source_key, "
	"sum(a) AS rows_there, sum(b) AS bytes_there, sum(c) AS rows_counted, sum(e) AS "
	"bytes_counted FROM ("
	"SELECT 'quarantine' AS side, source_key, count(*) AS a, sum(length(payload)) AS b, "
	"0 AS c, 0 AS e FROM quarantined_body GROUP BY source_key "
	"UNION ALL SELECT 'rejection', source_key, count(*), coalesce(sum(length(payload)), 0), "
	"0, 0 FROM rejection GROUP BY source_key "
	"UNION ALL SELECT side, source_key, 0, 0, n_rows, bytes FROM side_size) "
	"GROUP BY side, source_key) d WHERE rows_there <> rows_counted OR bytes_there <> "
	"bytes_counted" AT_MOST,

	/* money by hour is the ended runs and what is frozen */
	"SELECT printf('cost_hourly of source %s, template %s, team %s: " COST_OFF ", " NAMES
	", runtime, cost, estimated, ended, unknown) FROM (SELECT source_key, template_key, "
	"team_key, " COST_SUMS " FROM (" COST_OF(
		"cost_hour",
		"") " UNION ALL " COST_OF("frozen_cost_hour",
					  "-") " UNION ALL "
					       "SELECT coalesce(source_key, 0), "
					       "coalesce(template_key, 0), coalesce(team_key, 0), "
					       "-iif(started_ms IS NULL, 0, max(0, ended_ms - "
					       "started_ms)), "
					       "-iif(started_ms IS NULL, 0, coalesce(cost_nanousd, "
					       "0)), "
					       "-iif(started_ms IS NULL OR cost_source <> 2, 0, "
					       "coalesce(cost_nanousd, 0)), "
					       "-1, -(cost_nanousd IS NULL) FROM run WHERE time_s "
					       "IS NOT NULL AND ended_ms IS NOT NULL) "
					       "GROUP BY 1, 2, 3) d WHERE " COST_DIFFERS AT_MOST,

	/* days are made of hours */
	"SELECT printf('cost_daily of %s, source %s, template %s, team %s: " COST_OFF
	", date(day_s, 'unixepoch'), " NAMES
	", runtime, cost, estimated, ended, unknown) FROM (SELECT day_s, source_key, "
	"template_key, team_key, " COST_SUMS
	" FROM (SELECT day_s, x.* FROM (SELECT day_s, source_key, template_key, team_key, "
	"runtime_ms AS runtime, cost_nanousd AS cost, estimated_nanousd AS estimated, "
	"runs_ended AS ended, unknown_cost AS unknown FROM cost_day) x UNION ALL SELECT hour_s - "
	"hour_s % 86400, hour_s - hour_s % 86400, source_key, template_key, team_key, "
	"-runtime_ms, -cost_nanousd, -estimated_nanousd, -runs_ended, -unknown_cost FROM "
	"cost_hour) GROUP BY 1, 2, 3, 4) d WHERE " COST_DIFFERS AT_MOST,
};
