-- Sums over the ledger: by hour and day, and of all time. Booked as differences, in the transaction that changes what they
-- sum up: a run, execution or start-up that is corrected is taken out as it was and put in as it is. Kept for ever.

-- Run time and money of ended runs, spread over the UTC hours (days) they were up in.
CREATE TABLE cost_hour (
    hour_s INTEGER NOT NULL,
    source_key INTEGER NOT NULL,             -- 0 in any key: not known
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    estimated_nanousd INTEGER NOT NULL,      -- the part of cost_nanousd that rests on estimates
    runs_ended INTEGER NOT NULL,             -- in the hour of ended_at
    unknown_cost INTEGER NOT NULL,           -- of these, without a known cost
    PRIMARY KEY (hour_s, source_key, template_key, team_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE cost_day (
    day_s INTEGER NOT NULL,
    source_key INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    estimated_nanousd INTEGER NOT NULL,
    runs_ended INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,
    PRIMARY KEY (day_s, source_key, template_key, team_key)
) STRICT, WITHOUT ROWID;

-- Events by template and kind; test events do not count.
CREATE TABLE activity_hour (
    hour_s INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (hour_s, template_key, kind)
) STRICT, WITHOUT ROWID;

-- How executions and start-ups of a template fared. Buckets are cumulative: le_1000 counts all of at most 1,000 ms.
CREATE TABLE template_hour (
    hour_s INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    timeouts INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    duration_le_100 INTEGER NOT NULL,
    duration_le_300 INTEGER NOT NULL,
    duration_le_1000 INTEGER NOT NULL,
    duration_le_3000 INTEGER NOT NULL,
    duration_le_10000 INTEGER NOT NULL,
    duration_le_30000 INTEGER NOT NULL,
    duration_le_100000 INTEGER NOT NULL,
    duration_le_300000 INTEGER NOT NULL,
    startups INTEGER NOT NULL,
    startup_ms INTEGER NOT NULL,
    startup_le_100 INTEGER NOT NULL,
    startup_le_200 INTEGER NOT NULL,
    startup_le_300 INTEGER NOT NULL,
    startup_le_500 INTEGER NOT NULL,
    startup_le_1000 INTEGER NOT NULL,
    startup_le_2000 INTEGER NOT NULL,
    startup_le_5000 INTEGER NOT NULL,
    startup_le_10000 INTEGER NOT NULL,
    PRIMARY KEY (hour_s, template_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE template_total (
    template_key INTEGER PRIMARY KEY,
    sandboxes INTEGER NOT NULL,
    running INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    startups INTEGER NOT NULL,
    startup_ms INTEGER NOT NULL,
    last_event_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX cost_hour_template ON cost_hour (template_key, hour_s);
CREATE INDEX cost_day_template ON cost_day (template_key, day_s);
CREATE INDEX activity_hour_template ON activity_hour (template_key, hour_s);
CREATE INDEX template_hour_template ON template_hour (template_key, hour_s);

-- What pruned events and sandboxes left in the sums: a rebuild begins with these, for it cannot compute them again.
CREATE TABLE frozen_cost_hour (
    hour_s INTEGER NOT NULL,
    source_key INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    estimated_nanousd INTEGER NOT NULL,
    runs_ended INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,
    PRIMARY KEY (hour_s, source_key, template_key, team_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE frozen_cost_day (
    day_s INTEGER NOT NULL,
    source_key INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    estimated_nanousd INTEGER NOT NULL,
    runs_ended INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,
    PRIMARY KEY (day_s, source_key, template_key, team_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE frozen_activity_hour (
    hour_s INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (hour_s, template_key, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE frozen_template_hour (
    hour_s INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    timeouts INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    duration_le_100 INTEGER NOT NULL,
    duration_le_300 INTEGER NOT NULL,
    duration_le_1000 INTEGER NOT NULL,
    duration_le_3000 INTEGER NOT NULL,
    duration_le_10000 INTEGER NOT NULL,
    duration_le_30000 INTEGER NOT NULL,
    duration_le_100000 INTEGER NOT NULL,
    duration_le_300000 INTEGER NOT NULL,
    startups INTEGER NOT NULL,
    startup_ms INTEGER NOT NULL,
    startup_le_100 INTEGER NOT NULL,
    startup_le_200 INTEGER NOT NULL,
    startup_le_300 INTEGER NOT NULL,
    startup_le_500 INTEGER NOT NULL,
    startup_le_1000 INTEGER NOT NULL,
    startup_le_2000 INTEGER NOT NULL,
    startup_le_5000 INTEGER NOT NULL,
    startup_le_10000 INTEGER NOT NULL,
    PRIMARY KEY (hour_s, template_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE frozen_template_total (
    template_key INTEGER PRIMARY KEY,
    sandboxes INTEGER NOT NULL,
    running INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    startups INTEGER NOT NULL,
    startup_ms INTEGER NOT NULL,
    last_event_ms INTEGER NOT NULL
) STRICT;

-- Retention and rebuilds.
ALTER TABLE position ADD COLUMN rebuild INTEGER NOT NULL DEFAULT 0;          -- 0: none wanted; else 1 and how often it was begun and died
ALTER TABLE position ADD COLUMN prune_waits INTEGER NOT NULL DEFAULT 0;      -- 1: the clock jumped, an operator must say prune
ALTER TABLE position ADD COLUMN newest_s INTEGER NOT NULL DEFAULT 0;         -- newest event time that retention went by

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
WHERE r.end_kind = 0 AND r.time_s IS NOT NULL;

CREATE VIEW cost_hourly AS
SELECT c.hour_s AS time,
    strftime('%Y-%m-%dT%H:%M:%S.000Z', c.hour_s, 'unixepoch') AS hour_at,
    (SELECT name FROM source WHERE source_key = c.source_key) AS source,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = c.team_key) AS team_id,
    c.runtime_ms AS runtime_ms,
    c.cost_nanousd AS cost_nanousd,
    c.cost_nanousd / 1e9 AS cost_usd,
    c.estimated_nanousd AS estimated_nanousd,
    c.runs_ended AS runs_ended,
    c.unknown_cost AS unknown_cost
FROM cost_hour c
    LEFT JOIN template m ON m.template_key = c.template_key
WHERE c.runtime_ms <> 0 OR c.runs_ended <> 0;

CREATE VIEW cost_daily AS
SELECT c.day_s AS time,
    strftime('%Y-%m-%d', c.day_s, 'unixepoch') AS day,
    (SELECT name FROM source WHERE source_key = c.source_key) AS source,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = c.team_key) AS team_id,
    c.runtime_ms AS runtime_ms,
    c.cost_nanousd AS cost_nanousd,
    c.cost_nanousd / 1e9 AS cost_usd,
    c.estimated_nanousd AS estimated_nanousd,
    c.runs_ended AS runs_ended,
    c.unknown_cost AS unknown_cost
FROM cost_day c
    LEFT JOIN template m ON m.template_key = c.template_key
WHERE c.runtime_ms <> 0 OR c.runs_ended <> 0;

CREATE VIEW activity_hourly AS
SELECT a.hour_s AS time,
    strftime('%Y-%m-%dT%H:%M:%S.000Z', a.hour_s, 'unixepoch') AS hour_at,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    k.name AS kind,
    a.events AS events
FROM activity_hour a
    JOIN kind k ON k.kind = a.kind
    LEFT JOIN template m ON m.template_key = a.template_key
WHERE a.events <> 0;

CREATE VIEW template_hourly AS
SELECT h.hour_s AS time,
    strftime('%Y-%m-%dT%H:%M:%S.000Z', h.hour_s, 'unixepoch') AS hour_at,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    h.executions AS executions,
    h.failed AS failed,
    h.timeouts AS timeouts,
    h.duration_ms AS duration_ms,
    h.duration_le_100 AS duration_le_100,
    h.duration_le_300 AS duration_le_300,
    h.duration_le_1000 AS duration_le_1000,
    h.duration_le_3000 AS duration_le_3000,
    h.duration_le_10000 AS duration_le_10000,
    h.duration_le_30000 AS duration_le_30000,
    h.duration_le_100000 AS duration_le_100000,
    h.duration_le_300000 AS duration_le_300000,
    h.startups AS startups,
    h.startup_ms AS startup_ms,
    h.startup_le_100 AS startup_le_100,
    h.startup_le_200 AS startup_le_200,
    h.startup_le_300 AS startup_le_300,
    h.startup_le_500 AS startup_le_500,
    h.startup_le_1000 AS startup_le_1000,
    h.startup_le_2000 AS startup_le_2000,
    h.startup_le_5000 AS startup_le_5000,
    h.startup_le_10000 AS startup_le_10000
FROM template_hour h
    LEFT JOIN template m ON m.template_key = h.template_key
WHERE h.executions <> 0 OR h.startups <> 0;

CREATE VIEW template_stats AS
SELECT m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    t.sandboxes AS sandboxes,
    t.running AS running,
    t.runs AS runs,
    t.runtime_ms AS runtime_ms,
    t.cost_nanousd AS cost_nanousd,
    t.cost_nanousd / 1e9 AS cost_usd,
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

DROP VIEW ledger_state;
CREATE VIEW ledger_state AS
SELECT max(p.folded_seq, coalesce((SELECT max(seq) FROM event), 0)) AS stored_seq,
    p.folded_seq AS folded_seq,
    coalesce((SELECT max(0, CAST(strftime('%s', 'now') AS INTEGER) - (e.time_s * 1000 + e.received_delta_ms) / 1000)
        FROM event e WHERE e.seq > p.folded_seq ORDER BY e.seq LIMIT 1), 0) AS lag_s,
    p.rebuild > 0 AS rebuilding,
    (SELECT count(*) FROM skipped) AS skipped
FROM position p WHERE p.one = 1;
