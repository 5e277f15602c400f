/* Every statement of the engine, by name; those about alerts stand with them. Tables of the ledger
 * are named as the live ones; for a rebuild their names are prefixed (storage_sqlite_retarget). */
#include "storage_sqlite_internal.h"

#define SANDBOX_GET                                                                                \
	"SELECT sandbox_key, time_s, last_after_ms, state, source_key, template_key,"              \
	" team_key, kill_reason_key, startup_ms, executions, failed_executions,"                   \
	" loose_executions, n_loose, sealed, facts, metadata FROM sandbox"

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
	[SQL_EVENT_ID] = "SELECT id FROM event WHERE seq = ?1"
			 " UNION ALL SELECT id FROM loose_id WHERE seq = ?1",
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

	[SQL_SANDBOX_GET] = SANDBOX_GET " WHERE sandbox_key >> 16 = ? AND sandbox_id = ?",
	[SQL_SANDBOX_GET_AT] = SANDBOX_GET " WHERE sandbox_key = ? AND +sandbox_id = ?",
	[SQL_SANDBOX_IDS] = "SELECT sandbox_id FROM sandbox WHERE sandbox_key >> 16 = ?"
			    " AND sandbox_id > ? ORDER BY sandbox_id LIMIT ?",
	[SQL_SANDBOX_FIRST] = "SELECT min(sandbox_key) FROM sandbox",
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
		"SELECT x.seq, coalesce(x.event_ns, e.time_s * 1000000000 + e.time_frac_ns),"
		" coalesce(x.event_id, e.id), x.failed, z.named_run,"
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
		"UPDATE execution SET (event_id, event_ns) ="
		" (SELECT id, time_s * 1000000000 + time_frac_ns FROM event WHERE seq = ?1)"
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
		"SELECT x.seq, x.time_s, x.template_key, x.duration_ms, x.failed, z.status,"
		" z.named_run"
		" FROM execution x JOIN execution_traits z ON z.traits_key = x.traits_key"
		" WHERE x.sandbox_key = ? LIMIT ?",
	[SQL_SANDBOX_LESSEN] =
		"UPDATE sandbox SET executions = executions - ?2,"
		" failed_executions = failed_executions - ?3,"
		" loose_executions = loose_executions - ?4 WHERE sandbox_key = ?1",
	[SQL_RUNS_DELETE] = "DELETE FROM run WHERE sandbox_key = ?",
	[SQL_LOOSE_KEEP_ID] =
		"INSERT OR REPLACE INTO loose_id (seq, id) SELECT l.seq, e.id"
		" FROM loose_event l JOIN event e ON e.seq = l.seq"
		" WHERE l.sandbox_key = ? AND l.seq = ?",
	[SQL_LOOSE_FORGET_IDS] = "DELETE FROM loose_id WHERE seq IN"
				 " (SELECT seq FROM loose_event WHERE sandbox_key = ?)",
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

const char *storage_sqlite_text(enum storage_sql sql)
{
	return sql < SQL_ALERT_FIRST ? sql_texts[sql] : storage_sqlite_alert_sql(sql);
}
