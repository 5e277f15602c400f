/* The SQLite engine's ground: statements, binding, errors, transactions, upkeep.
 *
 * Invariant: one connection, one thread. Commits of deliveries run with synchronous=FULL; those of
 * the ledger with NORMAL: they are derived, atomic, and reach the disk with the next durable
 * commit, which syncs the whole write-ahead log.
 */
#include "storage_sqlite_body.h"
#include "storage_sqlite_identity.h"
#include "storage_sqlite_rollup.h"
#include "storage_sqlite_traits.h"

#include "clock.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define CHECKPOINT_PAGES                                                                           \
	12000 /* of the write-ahead log: rarely, for a batch waits while it runs                   \
	       */

static const char *const sql_texts[SQL_ALERT_FIRST] = {
	[SQL_BEGIN] = "BEGIN IMMEDIATE",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",

	[SQL_EVENT_INSERT] = "INSERT INTO event (seq, time_s, time_frac_ns, id, received_delta_ms, "
			     "traits_key, delivery_id, deliveries, body_at, body_len, id_at)"
			     " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)",
	[SQL_EVENT_TRAITS_GET] = "SELECT traits_key FROM event_traits WHERE source_key = ? AND"
				 " type_key = ? AND failed IS ? AND webhook_key = ?",
	[SQL_EVENT_TRAITS_ADD] = "INSERT INTO event_traits (source_key, type_key, failed,"
				 " webhook_key) VALUES (?, ?, ?, ?)",
	[SQL_EVENT_AGAIN] = "UPDATE event SET deliveries = deliveries + ? WHERE seq = ?",
	[SQL_BODY_PUT] = "INSERT INTO body_block (first_seq, bodies) VALUES (?, ?)",
	[SQL_BODY_GET] = "SELECT first_seq, coalesce((SELECT n.first_seq FROM body_block n"
			 " WHERE n.first_seq > b.first_seq ORDER BY n.first_seq LIMIT 1) - 1,"
			 " 9223372036854775807), bodies"
			 " FROM body_block b WHERE first_seq <= ? ORDER BY first_seq DESC LIMIT 1",
	[SQL_BODY_PRUNE] =
		"DELETE FROM body_block WHERE first_seq = (SELECT max(first_seq) FROM body_block"
		" WHERE first_seq <= ?1) AND NOT EXISTS (SELECT 1 FROM event"
		" WHERE seq >= body_block.first_seq AND seq < coalesce((SELECT min(n.first_seq)"
		" FROM body_block n WHERE n.first_seq > ?1), 9223372036854775807))",
	[SQL_IDENTITY_STATE] = "SELECT indexed_seq, identity_key, (SELECT max(time_s) FROM "
			       "event_identity) FROM position WHERE one = 1",
	[SQL_IDENTITY_LATEST] = "SELECT seq, time_s, id FROM event WHERE seq > ? ORDER BY seq",
	[SQL_IDENTITY_FIND] = "SELECT seq FROM event_identity WHERE time_s = ? AND id_hash = ?",
	[SQL_IDENTITY_CONFIRM] =
		"SELECT time_s, body_at, body_len, id_at FROM event WHERE seq = ? AND id = ?",
	[SQL_IDENTITY_PUT] = "INSERT OR IGNORE INTO event_identity (time_s, id_hash, seq)"
			     " SELECT time_s, ?, seq FROM event WHERE seq = ?",
	[SQL_IDENTITY_INDEXED] = "UPDATE position SET indexed_seq = ? WHERE one = 1",
	[SQL_IDENTITY_DELETE] =
		"DELETE FROM event_identity WHERE time_s = ? AND id_hash = ? AND seq = ?",
	[SQL_QUARANTINE_INSERT] = "INSERT INTO quarantined_body (source_key, received_ms, reason, "
				  "detail, webhook_key, delivery_id, digest, deliveries,"
				  " payload) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
	[SQL_QUARANTINE_AGAIN] = "UPDATE quarantined_body SET deliveries = deliveries + 1 WHERE "
				 "source_key = ? AND digest = ? AND reason = ?",
	[SQL_QUARANTINE_EXPIRE] =
		"DELETE FROM quarantined_body WHERE id = (SELECT id FROM quarantined_body WHERE "
		"received_ms < ?"
		" ORDER BY received_ms LIMIT 1) RETURNING source_key, length(payload)",
	[SQL_REJECTION_INSERT] =
		"INSERT INTO rejection (source_key, received_ms, reason, remote_addr, webhook_id, "
		"delivery_id,"
		" signature, signature_id, signature_timestamp, payload_size, payload)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_REJECTION_OLDEST] = "SELECT id, coalesce(length(payload), 0) FROM rejection WHERE "
				 "source_key = ? ORDER BY id LIMIT 1",
	[SQL_REJECTION_DELETE] = "DELETE FROM rejection WHERE id = ?",
	[SQL_REJECTION_EXPIRED] = "SELECT id, source_key, coalesce(length(payload), 0) FROM "
				  "rejection WHERE received_ms < ?"
				  " ORDER BY received_ms LIMIT 1",
	[SQL_SIDE_GET] = "SELECT n_rows, bytes FROM side_size WHERE side = ? AND source_key = ?",
	[SQL_SIDE_ADD] =
		"INSERT INTO side_size (side, source_key, n_rows, bytes, dropped) VALUES (?, ?, ?, "
		"?, ?)"
		" ON CONFLICT (side, source_key) DO UPDATE SET n_rows = n_rows + excluded.n_rows,"
		" bytes = bytes + excluded.bytes, dropped = dropped + excluded.dropped",
	[SQL_FILTER_COUNT] = "INSERT INTO filter_count (source_key, reason, template_key, n, "
			     "last_ms) VALUES (?, ?, ?, 1, ?)"
			     " ON CONFLICT (source_key, reason, template_key)"
			     " DO UPDATE SET n = n + 1, last_ms = max(last_ms, excluded.last_ms)",
	[SQL_SECRET_USE] =
		"INSERT INTO secret_use (source_key, position, fingerprint, n, last_ms) VALUES (?, "
		"?, ?, ?, ?)"
		" ON CONFLICT (source_key, position, fingerprint)"
		" DO UPDATE SET n = n + excluded.n, last_ms = max(last_ms, excluded.last_ms)",

	[SQL_TYPE_GET] =
		"SELECT type_key FROM event_type WHERE type = ? AND kind = ? AND version IS ?",
	[SQL_TYPE_ADD] = "INSERT INTO event_type (type, kind, version) VALUES (?, ?, ?)",
	[SQL_SOURCE_GET] = "SELECT source_key FROM source WHERE name = ?",
	[SQL_SOURCE_ADD] = "INSERT INTO source (name) VALUES (?)",
	[SQL_SOURCE_TEXT] = "SELECT name FROM source WHERE source_key = ?",
	[SQL_TEMPLATE_GET] = "SELECT template_key FROM template WHERE template_id = ?",
	[SQL_TEMPLATE_ADD] = "INSERT INTO template (template_id) VALUES (?)",
	[SQL_TEMPLATE_TEXT] = "SELECT template_id FROM template WHERE template_key = ?",
	[SQL_TEMPLATE_ALIAS] = "UPDATE template SET alias = ? WHERE template_key = ?",
	[SQL_TEMPLATE_NO_ALIAS] = "UPDATE template SET alias = NULL WHERE alias IS NOT NULL",
	[SQL_TEAM_GET] = "SELECT team_key FROM team WHERE team_id = ?",
	[SQL_TEAM_ADD] = "INSERT INTO team (team_id) VALUES (?)",
	[SQL_TEAM_TEXT] = "SELECT team_id FROM team WHERE team_key = ?",
	[SQL_BUILD_GET] = "SELECT build_key FROM build WHERE build_id = ?",
	[SQL_BUILD_ADD] = "INSERT INTO build (build_id) VALUES (?)",
	[SQL_BUILD_TEXT] = "SELECT build_id FROM build WHERE build_key = ?",
	[SQL_WORD_GET] = "SELECT word_key FROM word WHERE word = ?",
	[SQL_WORD_ADD] = "INSERT INTO word (word) VALUES (?)",
	[SQL_WORD_TEXT] = "SELECT word FROM word WHERE word_key = ?",

	[SQL_PENDING] = "SELECT seq, (SELECT source_key FROM event_traits z WHERE z.traits_key = "
			"event.traits_key),"
			" time_s, received_delta_ms, body_at, body_len, id_at, id "
			"FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
	[SQL_EVENT_ID] = "SELECT id FROM event WHERE seq = ?",
	[SQL_POSITION_GET] =
		"SELECT max(folded_seq, coalesce((SELECT max(seq) FROM event), 0)), "
		"folded_seq, trying_seq, trying_count,"
		" (SELECT count(*) FROM skipped), fold_version, horizon_s,"
		" max(coalesce((SELECT max(time_s) FROM event_link), 0),"
		" coalesce((SELECT max(time_s) FROM event WHERE seq > folded_seq), 0)),"
		" change_seq, "
		"rebuild, prune_waits, newest_s FROM position WHERE one = 1",
	[SQL_POSITION_FOLDED] = "UPDATE position SET folded_seq = ?, change_seq = max(change_seq, "
				"?), trying_count = iif(trying_seq <= ?, 0, trying_count),"
				" trying_seq = iif(trying_seq <= ?, 0, trying_seq) WHERE one = 1",
	[SQL_POSITION_TRYING] =
		"UPDATE position SET trying_seq = ?, trying_count = ? WHERE one = 1",
	[SQL_POSITION_HORIZON] = "UPDATE position SET horizon_s = max(horizon_s, ?) WHERE one = 1",
	[SQL_SKIP] = "INSERT INTO skipped (seq, reason) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE "
		     "SET reason = excluded.reason",
	[SQL_LINK] = "INSERT OR REPLACE INTO event_link (seq, sandbox_key, run_key, template_key, "
		     "traits_key, time_s)"
		     " VALUES (?, ?, ?, ?, ?, ?)",
	[SQL_LINK_TRAITS_GET] =
		"SELECT traits_key FROM link_traits WHERE build_key = ? AND team_key = ?",
	[SQL_LINK_TRAITS_ADD] = "INSERT INTO link_traits (build_key, team_key) VALUES (?, ?)",

	[SQL_SANDBOX_GET] =
		"SELECT sandbox_key, time_s, last_after_ms, state, source_key, template_key,"
		" team_key, kill_reason_key, startup_ms, executions, failed_executions,"
		" loose_executions, n_loose, sealed, facts, metadata FROM sandbox"
		" WHERE sandbox_id = ?",
	[SQL_SANDBOX_PUT] =
		"INSERT INTO sandbox (time_s, template_key, time_ms, last_after_ms, ended_after_ms,"
		" expires_after_ms, state, source_key, team_key, kill_reason_key, startup_ms, runs,"
		" runtime_ms, cost_nanousd, unknown_cost, executions, failed_executions,"
		" loose_executions, n_loose, sealed, changed_seq, metadata_seq, facts, metadata,"
		" sandbox_key, sandbox_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
		" ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_SANDBOX_CHANGE] =
		"UPDATE sandbox SET time_ms = ?, last_after_ms = ?, ended_after_ms = ?,"
		" expires_after_ms = ?, state = ?, source_key = ?, team_key = ?,"
		" kill_reason_key = ?, startup_ms = ?, runs = ?, runtime_ms = ?, cost_nanousd = ?,"
		" unknown_cost = ?, executions = ?, failed_executions = ?, loose_executions = ?,"
		" n_loose = ?, sealed = ?, changed_seq = ?, metadata_seq = ?, facts = ?,"
		" metadata = ? WHERE sandbox_key = ?",
	[SQL_SANDBOX_MOVE] =
		"UPDATE sandbox SET time_s = ?, template_key = ? WHERE sandbox_key = ?",
	[SQL_RUNS_GET] =
		"SELECT r.run_key, r.time_s, r.time_ms, r.ended_after_ms, r.end_kind,"
		" r.template_key, r.cost_nanousd, r.due_ms, z.source_key, z.team_key,"
		" z.kill_reason_key, z.vcpu_count, z.memory_mb, z.cost_source, z.vcpu_second_femto,"
		" z.gib_second_femto, r.run_id, r.facts FROM run r"
		" JOIN run_traits z ON z.traits_key = r.traits_key WHERE r.sandbox_key = ?",
	[SQL_RUN_PUT] =
		"INSERT INTO run (time_s, template_key, time_ms, ended_after_ms, end_kind,"
		" traits_key, cost_nanousd, due_ms, changed_seq, facts, run_key, sandbox_key,"
		" run_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_RUN_CHANGE] =
		"UPDATE run SET time_ms = ?, ended_after_ms = ?, end_kind = ?, traits_key = ?,"
		" cost_nanousd = ?, due_ms = ?, changed_seq = ?, facts = ? WHERE run_key = ?",
	[SQL_RUN_MOVE] = "UPDATE run SET time_s = ?, template_key = ? WHERE run_key = ?",
	[SQL_RUN_DELETE] = "DELETE FROM run WHERE run_key = ?",
	[SQL_RUN_TRAITS_GET] =
		"SELECT traits_key FROM run_traits WHERE source_key = ? AND team_key = ?"
		" AND kill_reason_key = ? AND vcpu_count IS ? AND memory_mb IS ? AND cost_source = "
		"?"
		" AND vcpu_second_femto IS ? AND gib_second_femto IS ?",
	[SQL_RUN_TRAITS_ADD] =
		"INSERT INTO run_traits (source_key, team_key, kill_reason_key, vcpu_count,"
		" memory_mb, cost_source, vcpu_second_femto, gib_second_femto)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_LOOSE_GET] = "SELECT seq, time_ns, kind, source_key, template_key, team_key, "
			  "kill_reason_key, timeout_ms, report_started_ms,"
			  " report_ms, report_vcpu, report_memory_mb FROM loose_event WHERE "
			  "sandbox_key = ? ORDER BY seq",
	[SQL_LOOSE_PUT] = "INSERT OR REPLACE INTO loose_event (sandbox_key, seq, time_ns, kind, "
			  "source_key, template_key, team_key,"
			  " kill_reason_key, timeout_ms, report_started_ms, report_ms, "
			  "report_vcpu, report_memory_mb)"
			  " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_EXECUTION_GET] =
		"SELECT x.seq, e.time_s * 1000000000 + e.time_frac_ns, e.id, x.failed, z.named_run,"
		" x.time_s, x.template_key, x.duration_ms, z.status FROM execution x"
		" JOIN execution_traits z ON z.traits_key = x.traits_key"
		" LEFT JOIN event e ON e.seq = x.seq"
		" WHERE x.sandbox_key = ? AND x.id_hash = ? AND x.execution_id = ?",
	[SQL_EXECUTION_DELETE] = "DELETE FROM execution WHERE seq = ?",
	[SQL_EXECUTION_PUT] =
		"INSERT INTO execution (seq, sandbox_key, id_hash, time_s, time_ms, traits_key,"
		" run_key, template_key, failed, duration_ms, cost_nanousd, changed_seq,"
		" execution_id, finished_ms, error_name, error_value)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_EXECUTION_LOOSE] =
		"SELECT x.seq, x.time_s * 1000 + x.time_ms, coalesce(x.run_key, 0) FROM execution x"
		" JOIN execution_traits z ON z.traits_key = x.traits_key"
		" WHERE x.sandbox_key = ? AND z.named_run = 0",
	[SQL_EXECUTION_KEEP_ID] =
		"UPDATE execution SET event_id = (SELECT id FROM event WHERE seq = ?1)"
		" WHERE seq = ?1",
	[SQL_EXECUTION_TRAITS_GET] =
		"SELECT traits_key FROM execution_traits WHERE source_key = ? AND team_key = ?"
		" AND kind_key = ? AND language_key = ? AND status = ? AND exit_code IS ?"
		" AND attempt = ? AND final = ? AND vcpu_count IS ? AND memory_mb IS ?"
		" AND cost_source = ? AND named_run = ? AND has_start = ? AND has_end = ?",
	[SQL_EXECUTION_TRAITS_ADD] =
		"INSERT INTO execution_traits (source_key, team_key, kind_key, language_key,"
		" status, exit_code, attempt, final, vcpu_count, memory_mb, cost_source,"
		" named_run, has_start, has_end)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_EXECUTION_MOVE] = "UPDATE execution SET run_key = ?, changed_seq = ? WHERE seq = ?",
	[SQL_DUE] = "SELECT DISTINCT s.sandbox_id FROM run r JOIN sandbox s ON s.sandbox_key = "
		    "r.sandbox_key"
		    " WHERE r.end_kind = 0 AND r.time_s IS NOT NULL AND r.due_ms <= ? LIMIT ?",

	[SQL_ROLLUP_COST_HOUR] =
		"INSERT INTO cost_hour (hour_s, source_key, template_key, team_key,"
		" runtime_ms, cost_nanousd, estimated_nanousd, runs_ended, unknown_cost)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runtime_ms ="
		" runtime_ms + excluded.runtime_ms, cost_nanousd = cost_nanousd +"
		" excluded.cost_nanousd, estimated_nanousd = estimated_nanousd +"
		" excluded.estimated_nanousd, runs_ended = runs_ended + excluded.runs_ended,"
		" unknown_cost = unknown_cost + excluded.unknown_cost",
	[SQL_ROLLUP_COST_DAY] =
		"INSERT INTO cost_day (day_s, source_key, template_key, team_key, runtime_ms,"
		" cost_nanousd, estimated_nanousd, runs_ended, unknown_cost) VALUES (?, ?, ?,"
		" ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET runtime_ms = runtime_ms +"
		" excluded.runtime_ms, cost_nanousd = cost_nanousd + excluded.cost_nanousd,"
		" estimated_nanousd = estimated_nanousd + excluded.estimated_nanousd,"
		" runs_ended = runs_ended + excluded.runs_ended, unknown_cost = unknown_cost +"
		" excluded.unknown_cost",
	[SQL_ROLLUP_ACTIVITY_HOUR] =
		"INSERT INTO activity_hour (hour_s, template_key, kind, events) VALUES (?, ?,"
		" ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
	[SQL_ROLLUP_TEMPLATE_HOUR] =
		"INSERT INTO template_hour (hour_s, template_key, executions, failed,"
		" timeouts, duration_ms, duration_le_100, duration_le_300, duration_le_1000,"
		" duration_le_3000, duration_le_10000, duration_le_30000, duration_le_100000,"
		" duration_le_300000, startups, startup_ms, startup_le_100, startup_le_200,"
		" startup_le_300, startup_le_500, startup_le_1000, startup_le_2000,"
		" startup_le_5000, startup_le_10000) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
		" ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET executions"
		" = executions + excluded.executions, failed = failed + excluded.failed,"
		" timeouts = timeouts + excluded.timeouts, duration_ms = duration_ms +"
		" excluded.duration_ms, duration_le_100 = duration_le_100 +"
		" excluded.duration_le_100, duration_le_300 = duration_le_300 +"
		" excluded.duration_le_300, duration_le_1000 = duration_le_1000 +"
		" excluded.duration_le_1000, duration_le_3000 = duration_le_3000 +"
		" excluded.duration_le_3000, duration_le_10000 = duration_le_10000 +"
		" excluded.duration_le_10000, duration_le_30000 = duration_le_30000 +"
		" excluded.duration_le_30000, duration_le_100000 = duration_le_100000 +"
		" excluded.duration_le_100000, duration_le_300000 = duration_le_300000 +"
		" excluded.duration_le_300000, startups = startups + excluded.startups,"
		" startup_ms = startup_ms + excluded.startup_ms, startup_le_100 ="
		" startup_le_100 + excluded.startup_le_100, startup_le_200 = startup_le_200 +"
		" excluded.startup_le_200, startup_le_300 = startup_le_300 +"
		" excluded.startup_le_300, startup_le_500 = startup_le_500 +"
		" excluded.startup_le_500, startup_le_1000 = startup_le_1000 +"
		" excluded.startup_le_1000, startup_le_2000 = startup_le_2000 +"
		" excluded.startup_le_2000, startup_le_5000 = startup_le_5000 +"
		" excluded.startup_le_5000, startup_le_10000 = startup_le_10000 +"
		" excluded.startup_le_10000",
	[SQL_ROLLUP_TEMPLATE_TOTAL] =
		"INSERT INTO template_total (template_key, sandboxes, running, runs,"
		" runtime_ms, cost_nanousd, unknown_cost, executions, failed, duration_ms,"
		" startups, startup_ms, last_event_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
		" ?, ?, ?) ON CONFLICT DO UPDATE SET sandboxes = sandboxes +"
		" excluded.sandboxes, running = running + excluded.running, runs = runs +"
		" excluded.runs, runtime_ms = runtime_ms + excluded.runtime_ms, cost_nanousd ="
		" cost_nanousd + excluded.cost_nanousd, unknown_cost = unknown_cost +"
		" excluded.unknown_cost, executions = executions + excluded.executions, failed"
		" = failed + excluded.failed, duration_ms = duration_ms +"
		" excluded.duration_ms, startups = startups + excluded.startups, startup_ms ="
		" startup_ms + excluded.startup_ms, last_event_ms = max(last_event_ms,"
		" excluded.last_event_ms)",

	[SQL_SEALED] =
		"SELECT sandbox_key, sandbox_id FROM sandbox WHERE sandbox_key > ? AND sealed = 1"
		" ORDER BY sandbox_key LIMIT ?",
	[SQL_EXECUTION_BOOKED] =
		"SELECT x.time_s, x.template_key, x.duration_ms, x.failed, z.status"
		" FROM execution x JOIN execution_traits z ON z.traits_key = x.traits_key"
		" WHERE x.sandbox_key = ?",
	[SQL_IS_SKIPPED] = "SELECT 1 FROM skipped WHERE seq = ?",
	[SQL_OLD_EVENTS] = "SELECT l.seq, l.time_s, t.kind, coalesce(l.sandbox_key, 0), "
			   "coalesce(l.template_key, 0), e.id, e.time_frac_ns"
			   " FROM event_link l CROSS JOIN event e ON e.seq = l.seq"
			   " JOIN event_traits z ON z.traits_key = e.traits_key"
			   " JOIN event_type t ON t.type_key = z.type_key"
			   " WHERE l.time_s < ? ORDER BY l.time_s, l.seq LIMIT ?",
	[SQL_SANDBOX_SEAL] = "UPDATE sandbox SET sealed = 1,"
			     " metadata = CASE WHEN metadata_seq = ?2 THEN NULL ELSE metadata END"
			     " WHERE sandbox_key = ?1 AND (sealed = 0 OR (metadata_seq = ?2 AND "
			     "metadata IS NOT NULL))",
	[SQL_LINK_DELETE] = "DELETE FROM event_link WHERE seq = ? AND time_s = ?",
	[SQL_SKIPPED_DELETE] = "DELETE FROM skipped WHERE seq = ?",
	[SQL_EVENT_DELETE] = "DELETE FROM event WHERE seq = ?",
	[SQL_OLD_SANDBOX] = "SELECT sandbox_id FROM sandbox WHERE time_s < ?1"
			    " AND time_s * 1000 + last_after_ms < ?1 * 1000 AND state <> 1"
			    " ORDER BY time_s LIMIT 1",
	[SQL_EXECUTIONS_OF] =
		"SELECT x.seq, x.time_s, x.template_key, x.duration_ms, x.failed, z.status"
		" FROM execution x JOIN execution_traits z ON z.traits_key = x.traits_key"
		" WHERE x.sandbox_key = ? LIMIT ?",
	[SQL_RUNS_DELETE] = "DELETE FROM run WHERE sandbox_key = ?",
	[SQL_LOOSE_DELETE] = "DELETE FROM loose_event WHERE sandbox_key = ?",
	[SQL_SANDBOX_DELETE] = "DELETE FROM sandbox WHERE sandbox_key = ?",
	[SQL_PAGE_COUNT] = "PRAGMA page_count",
	[SQL_FREE_COUNT] = "PRAGMA freelist_count",
	[SQL_PAGE_SIZE] = "PRAGMA page_size",
	[SQL_POSITION_RETENTION] =
		"UPDATE position SET newest_s = ?, prune_waits = ? WHERE one = 1",

	[SQL_QUARANTINE_RANGE] = "SELECT min(id), max(id) FROM quarantined_body",
	[SQL_QUARANTINE_NEXT] =
		"SELECT q.id, q.received_ms, q.deliveries, length(q.payload), s.name,"
		" (SELECT word FROM word WHERE word_key = q.webhook_key), q.delivery_id, '',"
		" NULL, NULL, NULL, q.reason, q.payload FROM quarantined_body q"
		" JOIN source s ON s.source_key = q.source_key WHERE q.id > ?1 AND q.id <= ?2"
		" AND (?3 IS NULL OR s.name = ?3) AND (?4 IS NULL OR q.reason = ?4)"
		" ORDER BY q.id LIMIT 1",
	[SQL_QUARANTINE_REASON] =
		"UPDATE OR IGNORE quarantined_body SET reason = ?, detail = ? WHERE id = ?",
	[SQL_QUARANTINE_MERGE] =
		"UPDATE quarantined_body AS o SET deliveries = o.deliveries + m.deliveries"
		" FROM (SELECT source_key, digest, deliveries FROM quarantined_body WHERE id = ?) m"
		" WHERE o.source_key = m.source_key AND o.digest = m.digest AND o.reason = ?",
	[SQL_QUARANTINE_DELETE] = "DELETE FROM quarantined_body WHERE id = ?"
				  " RETURNING source_key, length(payload)",
	[SQL_REJECTION_RANGE] = "SELECT min(id), max(id) FROM rejection",
	[SQL_REJECTION_NEXT] =
		"SELECT j.id, j.received_ms, 1, j.payload_size, s.name, j.webhook_id,"
		" j.delivery_id, j.remote_addr, j.signature, j.signature_id,"
		" j.signature_timestamp, j.reason, j.payload FROM rejection j"
		" JOIN source s ON s.source_key = j.source_key WHERE j.id > ?1 AND j.id <= ?2"
		" AND (?3 IS NULL OR s.name = ?3) AND (?4 IS NULL OR j.reason = ?4)"
		" AND j.payload IS NOT NULL ORDER BY j.id LIMIT 1",
	[SQL_REJECTION_REASON] = "UPDATE rejection SET reason = ? WHERE id = ?",
	[SQL_REJECTION_TAKE] = "DELETE FROM rejection WHERE id = ?"
			       " RETURNING source_key, coalesce(length(payload), 0)",
	[SQL_SKIPPED_NEXT] = "SELECT k.seq FROM skipped k JOIN event e ON e.seq = k.seq"
			     " JOIN event_traits z ON z.traits_key = e.traits_key"
			     " JOIN source s ON s.source_key = z.source_key WHERE k.seq > ?1"
			     " AND (?2 IS NULL OR s.name = ?2) ORDER BY k.seq LIMIT 1",
	[SQL_REQUEUE_SAVE] = "SAVEPOINT requeue",
	[SQL_REQUEUE_UNDO] = "ROLLBACK TO requeue",
	[SQL_REQUEUE_RELEASE] = "RELEASE requeue",
};

static int errno_of(int code)
{
	switch (code & 0xff) {
	case SQLITE_OK:
	case SQLITE_ROW:
	case SQLITE_DONE:
		return 0;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return -EUCLEAN;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CANTOPEN:
	case SQLITE_IOERR:
		return -EIO;
	default:
		return -EINVAL;
	}
}

int storage_sqlite_fail(struct storage *s, int code, const char *what)
{
	bool told = s->db && sqlite3_extended_errcode(s->db) == code;
	(void)snprintf(s->error, sizeof(s->error), "%s: %s (SQLite %d)", what,
		       told ? sqlite3_errmsg(s->db) : sqlite3_errstr(code), code);
	int r = errno_of(code);
	return r ? r : -EINVAL;
}

bool storage_is_failure(int error)
{
	return error == -EIO || error == -ENOSPC || error == -EBUSY || error == -EUCLEAN ||
	       error == -EACCES || error == -ENOMEM;
}

int64_t storage_fold_version(void)
{
	return STORAGE_FOLD_VERSION;
}

const char *storage_error(const struct storage *s)
{
	return s->error;
}

static const char *const target_prefixes[STORAGE_N_TARGETS] = {
	[STORAGE_LIVE] = "",
	[STORAGE_SHADOW] = "new_",
	[STORAGE_FROZEN] = "frozen_",
};

sqlite3_stmt *storage_sqlite_statement(struct storage *s, enum storage_sql sql)
{
	sqlite3_stmt **slot = &s->statements[s->target][sql];
	if (*slot) {
		(void)sqlite3_reset(*slot);
		return *slot;
	}
	CLEANUP_FREE char *text = storage_sqlite_retarget(
		sql < SQL_ALERT_FIRST ? sql_texts[sql] : storage_sqlite_alert_sql(sql),
		target_prefixes[s->target]);
	int code = SQLITE_NOMEM;
	if (text)
		code = sqlite3_prepare_v3(s->db, text, -1, SQLITE_PREPARE_PERSISTENT, slot, NULL);
	if (code != SQLITE_OK)
		(void)storage_sqlite_fail(s, code, "cannot prepare a statement");
	return *slot;
}

static bool hex_value(char c, uint8_t *ret)
{
	if (c >= '0' && c <= '9')
		*ret = (uint8_t)(c - '0');
	else if (c >= 'a' && c <= 'f')
		*ret = (uint8_t)(c - 'a' + 10);
	else
		return false;
	return true;
}

/* A lower-case UUID in its canonical form as 16 bytes. */
static bool uuid_bytes(struct span id, uint8_t ret[static 16])
{
	if (id.len != 36)
		return false;
	size_t n = 0;
	for (size_t i = 0; i < 36;) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (id.s[i++] != '-')
				return false;
			continue;
		}
		uint8_t high, low;
		if (!hex_value(id.s[i], &high) || !hex_value(id.s[i + 1], &low))
			return false;
		ret[n++] = (uint8_t)(high << 4 | low);
		i += 2;
	}
	return true;
}

bool storage_sqlite_is_uuid(struct span id)
{
	uint8_t bytes[16];
	return uuid_bytes(id, bytes);
}

int storage_sqlite_bind_id(sqlite3_stmt *statement, int i, struct span id)
{
	uint8_t bytes[16];
	if (!id.s)
		return sqlite3_bind_null(statement, i);
	if (uuid_bytes(id, bytes))
		return sqlite3_bind_blob(statement, i, bytes, 16, SQLITE_TRANSIENT);
	return sqlite3_bind_text(statement, i, id.s, (int)id.len, SQLITE_STATIC);
}

static int bind_number(sqlite3_stmt *statement, int i, int64_t number, bool is_null)
{
	return is_null ? sqlite3_bind_null(statement, i) : sqlite3_bind_int64(statement, i, number);
}

static int bind_one(sqlite3_stmt *statement, int i, char format, va_list *args)
{
	struct span text;
	int64_t number;
	switch (format) {
	case 'i':
		return sqlite3_bind_int64(statement, i, va_arg(*args, int64_t));
	case 'z':
		number = va_arg(*args, int64_t);
		return bind_number(statement, i, number, number == 0);
	case 'a':
		number = va_arg(*args, int64_t);
		return bind_number(statement, i, number, number == INT64_MIN);
	case 's':
		text = va_arg(*args, struct span);
		return sqlite3_bind_text(statement, i, text.s, (int)text.len, SQLITE_STATIC);
	case 'b':
		text = va_arg(*args, struct span);
		return text.s ? sqlite3_bind_blob(statement, i, text.s, (int)text.len,
						  SQLITE_STATIC)
			      : sqlite3_bind_null(statement, i);
	case 'd':
		return storage_sqlite_bind_id(statement, i, va_arg(*args, struct span));
	case 'D':
		text.s = va_arg(*args, const char *);
		text.len = strlen(text.s);
		return storage_sqlite_bind_id(statement, i, text);
	default:
		assert(format == 'c');
		return sqlite3_bind_text(statement, i, va_arg(*args, const char *), -1,
					 SQLITE_STATIC);
	}
}

int storage_sqlite_bind(struct storage *s, sqlite3_stmt *statement, const char *format, ...)
{
	if (!statement)
		return -EIO;
	va_list args;
	va_start(args, format);
	int code = SQLITE_OK;
	for (int i = 1; format[i - 1] && code == SQLITE_OK; i++)
		code = bind_one(statement, i, format[i - 1], &args);
	va_end(args);
	return code == SQLITE_OK ? 0 : storage_sqlite_fail(s, code, "cannot bind");
}

int storage_sqlite_step(struct storage *s, sqlite3_stmt *statement)
{
	if (!statement)
		return -EIO;
	/* After some errors SQLite has rolled back by itself. What follows would be kept alone. */
	if (s->in_transaction && sqlite3_get_autocommit(s->db))
		return -EIO;
	int code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		return 1;
	if (code == SQLITE_DONE) {
		(void)sqlite3_reset(statement);
		return 0;
	}
	int r = storage_sqlite_fail(s, sqlite3_extended_errcode(s->db), "the store failed");
	(void)sqlite3_reset(statement);
	return r;
}

int storage_sqlite_run(struct storage *s, sqlite3_stmt *statement)
{
	int r = storage_sqlite_step(s, statement);
	if (r == 1) {
		(void)sqlite3_reset(statement);
		return 0;
	}
	return r;
}

int64_t storage_sqlite_absent(sqlite3_stmt *statement, int column)
{
	return sqlite3_column_type(statement, column) == SQLITE_NULL
		       ? INT64_MIN
		       : sqlite3_column_int64(statement, column);
}

void storage_sqlite_copy(sqlite3_stmt *statement, int column, char *buf, size_t size)
{
	const unsigned char *text = sqlite3_column_text(statement, column);
	(void)snprintf(buf, size, "%s", text ? (const char *)text : "");
}

void storage_sqlite_id(sqlite3_stmt *statement, int column, char buf[static EVENT_ID_MAX + 1])
{
	if (sqlite3_column_type(statement, column) != SQLITE_BLOB ||
	    sqlite3_column_bytes(statement, column) != 16) {
		storage_sqlite_copy(statement, column, buf, EVENT_ID_MAX + 1);
		return;
	}
	const uint8_t *bytes = sqlite3_column_blob(statement, column);
	static const char digits[] = "0123456789abcdef";
	char *p = buf;
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[bytes[i] >> 4];
		*p++ = digits[bytes[i] & 15];
	}
	*p = '\0';
}

/* synchronous can only be set outside of a transaction, and is set when the statement is prepared:
 * one that is kept and stepped again does nothing. */
static int set_durable(struct storage *s, bool durable)
{
	if (s->is_durable == durable)
		return 0;
	int code = sqlite3_exec(s->db,
				durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
				NULL, NULL, NULL);
	if (code != SQLITE_OK)
		return storage_sqlite_fail(s, code, "cannot set synchronous");
	s->is_durable = durable;
	return 0;
}

int storage_begin(struct storage *s, bool durable)
{
	assert(!s->in_transaction);
	int r = set_durable(s, durable);
	if (r < 0)
		return r;
	r = storage_sqlite_run(s, storage_sqlite_statement(s, SQL_BEGIN));
	s->in_transaction = r == 0;
	storage_sqlite_identity_begin(s);
	s->failed = 0;
	s->change_seq = 0;
	s->before = s->now;
	return r;
}

int storage_commit(struct storage *s)
{
	assert(s->in_transaction);
	if (s->failed < 0)
		return s->failed;
	int r = storage_sqlite_body_flush(s);
	if (r == 0)
		r = storage_sqlite_run(s, storage_sqlite_statement(s, SQL_COMMIT));
	if (r == 0)
		s->in_transaction = false;
	return r;
}

/* The state comes from memory: the disk that failed the transaction may fail to be read, too. */
void storage_rollback(struct storage *s)
{
	if (!s->in_transaction)
		return;
	/* SQLite may have rolled back by itself (a full disk, an I/O error). */
	if (!sqlite3_get_autocommit(s->db)) {
		char error[STORAGE_ERROR_MAX];
		(void)snprintf(error, sizeof(error), "%s", s->error);
		(void)!storage_sqlite_run(s, storage_sqlite_statement(s, SQL_ROLLBACK));
		(void)snprintf(s->error, sizeof(s->error), "%s", error);
	}
	s->in_transaction = false;
	s->now = s->before;
	storage_sqlite_body_forget(s);
	storage_sqlite_identity_undo(s);
	storage_sqlite_rollup_forget(s);
	storage_sqlite_forget_dims(s);
	storage_sqlite_traits_forget(s);
}

static int64_t file_size(const char *path, const char *suffix)
{
	char name[4096];
	struct stat st;
	(void)snprintf(name, sizeof(name), "%s%s", path, suffix);
	return stat(name, &st) == 0 ? (int64_t)st.st_size : 0;
}

/* stat(2) only: opening and closing one of SQLite's files in this process would drop its locks. */
void storage_stats(struct storage *s, struct storage_stats *ret)
{
	struct statvfs fs;
	ret->wal_bytes = file_size(s->path, "-wal");
	ret->database_bytes = file_size(s->path, "");
	ret->free_bytes =
		statvfs(s->path, &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : -1;
}

static int checkpoint(struct storage *s)
{
	int log_frames = 0, done_frames = 0;
	int code = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &log_frames,
					     &done_frames);
	if (code != SQLITE_OK && code != SQLITE_BUSY)
		return storage_sqlite_fail(s, code, "checkpoint failed");
	s->wal_frames = 0;
	return 0;
}

int storage_maintain(struct storage *s)
{
	bool indexes = storage_sqlite_identity_wants_indexing(s);
	int r = indexes ? storage_sqlite_identity_index(s) : 0;
	return r < 0 || (indexes && s->wal_frames < CHECKPOINT_PAGES) ? r : checkpoint(s);
}

static int count_frames(void *ctx, sqlite3 *db, const char *name, int frames)
{
	(void)db;
	(void)name;
	((struct storage *)ctx)->wal_frames = frames;
	return SQLITE_OK;
}

/* Replaces SQLite's own checkpoint at commit: that one would run before the batch is answered. */
void storage_sqlite_watch_wal(struct storage *s)
{
	(void)sqlite3_wal_hook(s->db, count_frames, s);
}

bool storage_wants_upkeep(const struct storage *s)
{
	return s->wal_frames >= CHECKPOINT_PAGES || storage_sqlite_identity_wants_indexing(s);
}
