/* Sums of money. By what is in the sums already (template, team, source, time) from cost_hourly, or
 * from cost_daily where whole days are asked for; by metadata from the runs. Unknown stays unknown:
 * a sum of nothing but unknown costs is NULL, any other skips them and says how many.
 */
#include "ctl_internal.h"

#include "nearest.h"

#include <string.h>

#define SQL_MAX 4096
#define VALUES_MAX 8
#define HOUR_MS INT64_C(3600000)
#define DAY_MS (24 * HOUR_MS)
#define METADATA "metadata:"

static const struct grouping {
	const char *name;
	const char *keys, *shown; /* shown: the one of them that a table has */
	const char *group, *order;
} groupings[] = {
	{ "template", "template_id, template", "template", "template_id",
	  "cost_nanousd DESC, template_id" },
	{ "day", "time - time % 86400 AS time, date(time, 'unixepoch') AS day",
	  "date(time, 'unixepoch') AS day", "time - time % 86400", "1 DESC" },
	{ "hour", "time, hour_at", "hour_at", "time", "1 DESC" },
	{ "team", "team_id", "team_id", "team_id", "cost_nanousd DESC, 1" },
	{ "source", "source", "source", "source", "cost_nanousd DESC, 1" },
};
static const struct grouping by_metadata = { METADATA, "value", "value", "value",
					     "cost_nanousd DESC, 1" };

/* Keys are compared as text: whatever characters a key has, no path has to be written for it. */
#define RUNS                                                                                       \
	"(SELECT (SELECT e.value FROM json_each(s.metadata) e WHERE e.key = ?2) AS value, "        \
	"r.runtime_ms AS runtime_ms, r.cost_nanousd AS cost_nanousd, iif(r.cost_source = "         \
	"'estimated', r.cost_nanousd, 0) AS estimated_nanousd, 1 AS runs_ended, "                  \
	"r.cost_nanousd IS NULL AS unknown_cost, r.time AS time, r.template_id AS template_id, "   \
	"r.source AS source FROM runs r JOIN sandboxes s ON s.sandbox_id = r.sandbox_id WHERE "    \
	"r.ended_at IS NOT NULL)"

#define KNOWN                                                                                      \
	"CASE WHEN sum(unknown_cost) > 0 AND sum(unknown_cost) = sum(runs_ended) AND "             \
	"coalesce(sum(cost_nanousd), 0) = 0 THEN NULL ELSE coalesce(sum(cost_nanousd), 0) END"
#define SUMS                                                                                       \
	"coalesce(sum(runtime_ms), 0) AS runtime_ms, " KNOWN " AS cost_nanousd, " KNOWN            \
	" / 1e9 AS cost_usd, coalesce(sum(estimated_nanousd), 0) AS estimated_nanousd, "           \
	"coalesce(sum(runs_ended), 0) AS runs_ended, coalesce(sum(unknown_cost), 0) AS "           \
	"unknown_cost"

struct costs {
	const struct grouping *by;
	const char *key; /* of metadata; NULL */
	char where[SQL_MAX];
	struct storage_value values[VALUES_MAX];
	size_t n;
};

static int unknown_grouping(const char *name)
{
	const char *nearest = NULL;
	size_t best = SIZE_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(groupings); i++) {
		size_t d = nearest_nearness(name, groupings[i].name);
		if (d < best) {
			best = d;
			nearest = groupings[i].name;
		}
	}
	ctl_complain("--by: want day, hour, template, team, source or metadata:KEY, not: %s%s%s%s",
		     name, nearest ? ". Did you mean " : "", nearest ? nearest : "",
		     nearest ? "?" : "");
	return CTL_EXIT_USAGE;
}

static int find_grouping(struct costs *c, const char *name)
{
	size_t len = strlen(METADATA);

	if (!name)
		name = groupings[0].name;
	if (strncmp(name, METADATA, len) == 0 && name[len]) {
		c->by = &by_metadata;
		c->key = name + len;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(groupings); i++) {
		if (strcmp(groupings[i].name, name) == 0) {
			c->by = &groupings[i];
			return 0;
		}
	}
	return unknown_grouping(name);
}

/* `?N` of what is put there. */
static void add_value(struct costs *c, const char *condition, struct storage_value value)
{
	size_t len = strlen(c->where);

	assert(c->n < VALUES_MAX);
	c->values[c->n++] = value;
	(void)snprintf(c->where + len, sizeof(c->where) - len, "%s%s ?%zu",
		       len == 0 ? " WHERE " : " AND ", condition, c->n);
}

static int64_t floor_to(int64_t ms, int64_t step)
{
	int64_t rest = ms % step;

	return ms - (rest < 0 ? rest + step : rest);
}

static void add_filters(struct costs *c, const struct config *config, const struct ctl_options *o)
{
	int64_t step = c->key ? 1000 : HOUR_MS;

	c->values[c->n++] = STORAGE_VALUE_INTEGER(o->limit > 0 ? o->limit : -1);
	if (c->key)
		c->values[c->n++] = STORAGE_VALUE_TEXT(c->key);
	if (o->given & CTL_SINCE)
		add_value(c, "time >=", STORAGE_VALUE_INTEGER(floor_to(o->since_ms, step) / 1000));
	if (o->given & CTL_UNTIL)
		add_value(c, "time <",
			  STORAGE_VALUE_INTEGER(floor_to(o->until_ms + 999, 1000) / 1000));
	if (o->template_name)
		add_value(c, "template_id =",
			  STORAGE_VALUE_TEXT(ctl_views_template_id(config, o->template_name)));
	if (o->source)
		add_value(c, "source =", STORAGE_VALUE_TEXT(o->source));
}

static const char *table_of(const struct costs *c, const struct ctl_options *o)
{
	bool is_whole = (!(o->given & CTL_SINCE) || floor_to(o->since_ms, DAY_MS) == o->since_ms) &&
			(!(o->given & CTL_UNTIL) || floor_to(o->until_ms, DAY_MS) == o->until_ms);

	if (c->key)
		return RUNS;
	return is_whole && strcmp(c->by->name, "hour") != 0 ? "cost_daily" : "cost_hourly";
}

/* The groups; for a table, then the sum of all of them, whatever the limit. */
static void write_sql(const struct costs *c, const struct ctl_options *o, char sql[static SQL_MAX])
{
	bool is_table = o->format == TABLE_OUT_TABLE;
	const char *from = table_of(c, o);
	int n = snprintf(
		sql, SQL_MAX,
		"SELECT * FROM (SELECT %s, " SUMS " FROM %s%s GROUP BY %s ORDER BY %s LIMIT ?1)",
		is_table ? c->by->shown : c->by->keys, from, c->where, c->by->group, c->by->order);

	assert(n > 0 && n < SQL_MAX);
	if (!is_table)
		return;
	int more = snprintf(sql + n, (size_t)(SQL_MAX - n),
			    " UNION ALL SELECT 'total', " SUMS " FROM %s%s", from, c->where);
	assert(more > 0 && n + more < SQL_MAX);
}

int ctl_costs_run(const struct ctl_command *command, const struct ctl_options *options)
{
	CLEANUP(ctl_config_unref_pointer) struct config *config = NULL;
	CLEANUP(storage_reader_close_pointer) struct storage_reader *reader = NULL;
	struct costs c = { .n = 0 };
	char sql[SQL_MAX];
	int code = find_grouping(&c, options->by);

	if (code == 0)
		code = ctl_load_config(options, &config);
	if (code == 0)
		code = ctl_open_store(config, &reader);
	if (code == 0)
		code = ctl_check_stored_source(config, reader, options->source);
	if (code != 0)
		return code;
	add_filters(&c, config, options);
	write_sql(&c, options, sql);
	ctl_wait_folded(config, reader);
	return ctl_views_print(reader, options->format, "costs", sql, c.values, c.n);
}
