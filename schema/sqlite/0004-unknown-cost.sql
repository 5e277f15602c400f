-- Views that said more than is known: a sandbox or template of which no cost is known has none rather than 0, and a killed
-- sandbox does not run, whatever is said to have started later.

DROP VIEW sandboxes;
CREATE VIEW sandboxes AS
SELECT s.sandbox_id AS sandbox_id,
    s.time_s AS time,
    iif(s.time_ms IS NULL, NULL, strftime('%Y-%m-%dT%H:%M:%S', s.time_s, 'unixepoch') || printf('.%03dZ', s.time_ms)) AS created_at,
    strftime('%Y-%m-%dT%H:%M:%S', (s.time_s * 1000 + s.ended_after_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (s.time_s * 1000 + s.ended_after_ms) % 1000) AS ended_at,
    strftime('%Y-%m-%dT%H:%M:%S', (s.time_s * 1000 + s.last_after_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (s.time_s * 1000 + s.last_after_ms) % 1000) AS last_event_at,
    strftime('%Y-%m-%dT%H:%M:%S', (s.time_s * 1000 + s.expires_after_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (s.time_s * 1000 + s.expires_after_ms) % 1000) AS expires_at,
    (SELECT name FROM source WHERE source_key = s.source_key) AS source,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = s.team_key) AS team_id,
    CASE s.state WHEN 1 THEN 'running' WHEN 2 THEN 'paused' WHEN 3 THEN 'killed' ELSE 'unknown' END AS state,
    (SELECT word FROM word WHERE word_key = s.kill_reason_key) AS kill_reason,
    s.startup_ms AS startup_ms,
    s.runs AS runs,
    s.runtime_ms AS runtime_ms,
    iif(s.cost_nanousd = 0 AND s.unknown_cost > 0, NULL, s.cost_nanousd) AS cost_nanousd,
    iif(s.cost_nanousd = 0 AND s.unknown_cost > 0, NULL, s.cost_nanousd) / 1e9 AS cost_usd,
    s.executions AS executions,
    s.failed_executions AS failed_executions,
    s.metadata AS metadata,
    s.changed_seq AS changed_seq
FROM sandbox s
    LEFT JOIN template m ON m.template_key = s.template_key;

DROP VIEW running;
CREATE VIEW running AS
SELECT s.sandbox_id AS sandbox_id,
    r.run_id AS run_id,
    r.time_s AS time,
    strftime('%Y-%m-%dT%H:%M:%S', r.time_s, 'unixepoch') || printf('.%03dZ', r.time_ms) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S', (s.time_s * 1000 + s.expires_after_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (s.time_s * 1000 + s.expires_after_ms) % 1000) AS expires_at,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = z.team_key) AS team_id,
    z.vcpu_count AS vcpu_count,
    z.memory_mb AS memory_mb,
    max(0, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - r.time_s * 1000 - r.time_ms) AS accrued_ms,
    max(0, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - r.time_s * 1000 - r.time_ms) / 1000.0
        * (z.vcpu_count * z.vcpu_second_femto + z.memory_mb / 1024.0 * z.gib_second_femto) / 1e15 AS accrued_cost_usd
FROM run r
    LEFT JOIN run_traits z ON z.traits_key = r.traits_key
    JOIN sandbox s ON s.sandbox_key = r.sandbox_key
    LEFT JOIN template m ON m.template_key = r.template_key
WHERE r.end_kind = 0 AND r.time_s IS NOT NULL AND s.state <> 3;

DROP VIEW template_stats;
CREATE VIEW template_stats AS
SELECT m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    t.sandboxes AS sandboxes,
    t.running AS running,
    t.runs AS runs,
    t.runtime_ms AS runtime_ms,
    iif(t.cost_nanousd = 0 AND t.unknown_cost > 0, NULL, t.cost_nanousd) AS cost_nanousd,
    iif(t.cost_nanousd = 0 AND t.unknown_cost > 0, NULL, t.cost_nanousd) / 1e9 AS cost_usd,
    t.executions AS executions,
    t.failed AS failed_executions,
    CASE WHEN t.executions > 0 THEN 1.0 * t.failed / t.executions END AS failure_rate,
    CASE WHEN t.executions > 0 THEN 1.0 * t.duration_ms / t.executions END AS mean_duration_ms,
    CASE WHEN t.startups > 0 THEN 1.0 * t.startup_ms / t.startups END AS mean_startup_ms,
    strftime('%Y-%m-%dT%H:%M:%S', t.last_event_ms / 1000, 'unixepoch') || printf('.%03dZ', t.last_event_ms % 1000)
        AS last_event_at
FROM template_total t
    LEFT JOIN template m ON m.template_key = t.template_key
WHERE t.sandboxes <> 0 OR t.runs <> 0 OR t.executions <> 0 OR t.startups <> 0;
