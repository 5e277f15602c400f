/* The statements of alerts and their outbox. Levels come as the same columns, whatever they
 * measure: template_key, template_id, alias, team_id, n, failed, value, sandbox_id, run_id,
 * time_ms.
 */
#include "storage_sqlite_internal.h"

#define ALERT_COLUMNS                                                                              \
	"alert_key, rule, template_key, part, rule_on, severity, firing, acked, since_ms, "        \
	"last_ms, "                                                                                \
	"notified_ms, occurred, total, told, window_ms, window_count, value, open_id, samples"
#define LEVEL_OF "m.template_id, m.alias, t.team_id, "
#define LEVEL_DIMS(row)                                                                            \
	" LEFT JOIN template m ON m.template_key = " row ".template_key"                           \
	" LEFT JOIN team t ON t.team_key = " row ".team_key "
#define RUNAWAY(past, lasts)                                                                       \
	"SELECT coalesce(r.template_key, 0), " LEVEL_OF "1, " past ", " lasts                      \
	", s.sandbox_id, r.run_id, r.time_s * 1000 FROM run r"                                     \
	" JOIN sandbox s ON s.sandbox_key = r.sandbox_key"                                         \
	" LEFT JOIN run_traits z ON z.traits_key = r.traits_key"                                   \
	" LEFT JOIN template m ON m.template_key = r.template_key"                                 \
	" LEFT JOIN team t ON t.team_key = z.team_key "
#define RUNNING RUNAWAY("0", "?2 / 1000.0 - r.time_s")
#define OVERDUE RUNAWAY("1", "r.ended_after_ms / 1000.0")

static const char *const texts[SQL_N - SQL_ALERT_FIRST] = {
#define TEXT(sql) [(sql)-SQL_ALERT_FIRST]
	TEXT(SQL_ALERT_GET) = "SELECT " ALERT_COLUMNS
			      " FROM alert WHERE rule = ? AND template_key = ? AND part = ?",
	TEXT(SQL_ALERT_NEXT) = "SELECT " ALERT_COLUMNS
			       " FROM alert WHERE alert_key > ? ORDER BY alert_key LIMIT 1",
	TEXT(SQL_ALERT_PUT) = "INSERT OR REPLACE INTO alert (" ALERT_COLUMNS
			      ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	TEXT(SQL_ALERT_DELETE) = "DELETE FROM alert WHERE alert_key = ?",
	TEXT(SQL_ALERT_EVENT) = "INSERT INTO alert_event (rule, identity) VALUES (?, ?)"
				" ON CONFLICT DO NOTHING RETURNING 1",
	TEXT(SQL_ALERT_POSITION) =
		"SELECT seq, rejection_id, quarantine_id FROM alert_position WHERE one = 1",
	TEXT(SQL_ALERT_MOVE) =
		"UPDATE alert_position SET seq = max(seq, ?), rejection_id = max(rejection_id, ?),"
		" quarantine_id = max(quarantine_id, ?) WHERE one = 1",
	TEXT(SQL_ALERT_COUNT) = "INSERT OR REPLACE INTO alert_execution (seq, time_s,"
				" template_key, team_key, executions, failed)"
				" VALUES (?, ?, ?, ?, ?, ?)",
	TEXT(SQL_ALERT_COUNTED) =
		"INSERT INTO alert_bucket (time_s, template_key, team_key, executions, failed)"
		" SELECT time_s, template_key, team_key, sum(executions), sum(failed)"
		" FROM alert_execution WHERE seq <= ? GROUP BY time_s, template_key, team_key"
		" ON CONFLICT DO UPDATE SET"
		" executions = executions + excluded.executions, failed = failed + excluded.failed",
	TEXT(SQL_ALERT_COUNTED_DROP) = "DELETE FROM alert_execution WHERE seq <= ?",

	TEXT(SQL_ALERT_RATES) =
		"SELECT b.template_key, " LEVEL_OF
		"sum(b.executions), sum(b.failed), NULL, NULL, NULL, NULL FROM alert_bucket "
		"b" LEVEL_DIMS(
			"b") "WHERE b.time_s * 1000 + 10000 > ?1 AND b.time_s > ?1 / 1000 - 20"
			     " AND ?2 > 0 GROUP BY b.template_key, b.team_key",
	TEXT(SQL_ALERT_RUNAWAYS) = RUNNING
	"WHERE r.end_kind = 0 AND r.time_s IS NOT NULL AND r.time_s <= ?1 / 1000 UNION ALL " OVERDUE
	/* Ended by the clock only. A moment's grace: the event is on its way. */
	"WHERE r.end_kind IN (4, 5) AND r.time_s + r.ended_after_ms / 1000"
	" BETWEEN ?2 / 1000 - 86400 AND ?2 / 1000 - 60"
	" ORDER BY 10",
	/* Of a run that goes on, the part that lies in the period. */
	TEXT(SQL_ALERT_COSTS) =
		"SELECT c.template_key, " LEVEL_OF
		"0, 0, sum(c.cost_nanousd) / 1e9, NULL, NULL, NULL FROM cost_day c" LEVEL_DIMS(
			"c") "WHERE c.day_s >= ?1 / 1000 GROUP BY c.template_key, c.team_key"
			     " UNION ALL SELECT coalesce(m.template_key, 0), m.template_id, "
			     "m.alias,"
			     " r.team_id, 0, 0, r.accrued_cost_usd * min(1.0, 1.0 * (?2 - ?1)"
			     " / max(1, r.accrued_ms)), NULL, NULL, NULL FROM running r"
			     " LEFT JOIN template m ON m.template_id = r.template_id"
			     " WHERE r.accrued_cost_usd IS NOT NULL",
	/* Of all together what counts is when one came, however old it was; tests do not count. */
	TEXT(SQL_ALERT_LAST_EVENTS) =
		"SELECT x.template_key, m.template_id, m.alias, NULL, 0, 0, NULL, NULL, NULL,"
		" x.last_event_ms FROM template_total x"
		" LEFT JOIN template m ON m.template_key = x.template_key WHERE ?1 = ?1 AND ?2 > 0"
		" UNION ALL SELECT 0, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL,"
		" max(e.time_s * 1000 + e.received_delta_ms) FROM (SELECT time_s,"
		" received_delta_ms, traits_key FROM event ORDER BY seq DESC LIMIT 256) e"
		" JOIN event_traits t ON t.traits_key = e.traits_key"
		" JOIN event_type y ON y.type_key = t.type_key WHERE y.kind <> 8",
	TEXT(SQL_ALERT_REJECTIONS) =
		"SELECT 0, NULL, NULL, NULL, j.id, 0, NULL, j.reason,"
		" 'source ' || (SELECT name FROM source WHERE source_key = j.source_key)"
		" || ', from ' || j.remote_addr, j.received_ms"
		" FROM rejection j WHERE j.id > ?1 AND ?2 > 0 ORDER BY j.id LIMIT 500",
	TEXT(SQL_ALERT_QUARANTINED) =
		"SELECT 0, NULL, NULL, NULL, q.id, 0, NULL, q.reason,"
		" 'source ' || (SELECT name FROM source WHERE source_key = q.source_key)"
		" || ': ' || q.detail, q.received_ms"
		" FROM quarantined_body q WHERE q.id > ?1 AND ?2 > 0 ORDER BY q.id LIMIT 500",

	TEXT(SQL_ALERT_ACK) = "UPDATE alert SET acked = 1 WHERE rule = ? AND firing = 1",
	TEXT(SQL_ALERT_FORGET) = "DELETE FROM alert",
	TEXT(SQL_ALERT_SKIP) =
		"UPDATE alert_position SET seq = max(seq, (SELECT max(p.folded_seq,"
		" coalesce((SELECT max(seq) FROM event), 0)) FROM position p WHERE p.one = 1)),"
		" rejection_id = max(rejection_id, coalesce((SELECT max(id) FROM rejection), 0)),"
		" quarantine_id = max(quarantine_id, coalesce((SELECT max(id) FROM"
		" quarantined_body), 0)) WHERE one = 1",
	TEXT(SQL_ALERT_EVENT_PRUNE) =
		"DELETE FROM alert_event WHERE id <= (SELECT max(id) - 100000 FROM alert_event)",
	TEXT(SQL_ALERT_BUCKET_PRUNE) = "DELETE FROM alert_bucket WHERE time_s < ?",

	TEXT(SQL_NOTIFICATION_ADD) =
		"INSERT INTO notification (notification_id, alert_key, gathers, rule, template_key,"
		" part, rule_on, severity, state, starts_ms, ends_ms, made_ms, occurred, total,"
		" value, threshold, samples) VALUES ('ntf_' || lower(hex(randomblob(16))), ?, ?, ?,"
		" ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	TEXT(SQL_NOTIFICATION_GATHERING) =
		"SELECT id, alert_key FROM notification WHERE gathers = 1 AND made_ms <= ?"
		" ORDER BY id LIMIT 1",
	TEXT(SQL_NOTIFICATION_SEAL) =
		"UPDATE notification SET gathers = 0, occurred = max(occurred, ?),"
		" total = max(total, ?), samples = coalesce(nullif(?, ''), samples) WHERE id = ?",
	TEXT(SQL_NOTIFICATION_PRUNE) =
		"DELETE FROM notification WHERE id IN (SELECT id FROM notification"
		" WHERE id <= (SELECT max(id) - 10000 FROM notification) AND NOT EXISTS"
		" (SELECT 1 FROM outbox o WHERE o.id = notification.id AND o.status = 0) LIMIT "
		"500)",

	TEXT(SQL_OUTBOX_ADD) = "INSERT INTO outbox (id, target, rule, status, attempts, next_ms, "
			       "since_ms, sent_ms,"
			       " error) VALUES (?, ?, ?, 0, 0, ?, ?, 0, '')",
	TEXT(SQL_OUTBOX_NEXT) =
		"SELECT n.id, n.notification_id, n.rule, n.part, n.rule_on, n.severity, n.state,"
		" n.starts_ms, n.ends_ms, n.made_ms, n.occurred, n.total, n.value, n.threshold,"
		" n.samples, m.template_id, coalesce(m.alias, m.template_id), o.since_ms, "
		"o.attempts"
		" FROM outbox o JOIN notification n ON n.id = o.id"
		" LEFT JOIN template m ON m.template_key = n.template_key"
		" WHERE o.status = 0 AND o.target = ?1 AND o.next_ms <= ?2 AND n.gathers = 0"
		" AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.status = 0"
		" AND e.target = o.target AND e.rule = o.rule AND e.id < o.id)"
		" ORDER BY o.next_ms, o.id LIMIT 1",
	TEXT(SQL_OUTBOX_TRY) =
		"UPDATE outbox SET attempts = attempts + 1 WHERE id = ? AND target = ?",
	TEXT(SQL_OUTBOX_DUE) =
		"SELECT min(o.next_ms) FROM outbox o WHERE o.status = 0 AND o.target = ?1"
		" AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.status = 0"
		" AND e.target = o.target AND e.rule = o.rule AND e.id < o.id)",
	TEXT(SQL_OUTBOX_TOLD) =
		"SELECT DISTINCT o.target FROM notification n JOIN outbox o ON o.id = n.id"
		" WHERE n.template_key = ?1 AND n.made_ms / 1000 >= ?2 / 1000 AND n.made_ms >= ?2"
		" AND n.rule = ?3 AND n.part = ?4 AND n.state IN (0, 1)",
	TEXT(SQL_OUTBOX_REPORT) =
		"UPDATE outbox SET status = ?1, next_ms = iif(?1 = 0, ?2, next_ms),"
		" sent_ms = iif(?1 = 1, ?2, sent_ms), error = ?3 WHERE id = ?4 AND target = ?5",
	TEXT(SQL_OUTBOX_EXPIRE) =
		"UPDATE outbox SET status = 2, error = iif(error = '', 'nobody took it for 24 h: is"
		" its target still configured?', error) WHERE status = 0 AND since_ms < ?",
	TEXT(SQL_OUTBOX_PRUNE) =
		"DELETE FROM outbox WHERE id < coalesce((SELECT min(id) FROM notification), 0)",
	TEXT(SQL_OUTBOX_FIGURES) =
		"SELECT (SELECT count(*) FROM outbox WHERE status = 0),"
		" (SELECT count(*) FROM outbox WHERE status = 2),"
		" coalesce((SELECT min(since_ms) FROM outbox WHERE status = 0), 0),"
		" (SELECT count(*) FROM alert WHERE firing = 1)",
	TEXT(SQL_OUTBOX_RETRY) = "UPDATE outbox SET status = 0, next_ms = ?1, since_ms = "
				 "iif(status = 2, ?1, since_ms)"
				 " WHERE status IN (0, 2) AND (?2 IS NULL OR target = ?2)",
	TEXT(SQL_OUTBOX_DROP) =
		"UPDATE outbox SET status = 3, error = 'an old copy of the store was put in place'"
		" WHERE status = 0",
};

const char *storage_sqlite_alert_sql(enum storage_sql sql)
{
	return texts[sql - SQL_ALERT_FIRST];
}
