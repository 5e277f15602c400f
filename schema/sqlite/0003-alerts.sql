-- Alerts: what rules know (alert), what they have said (notification) and to whom it still has to be brought (outbox).
--
-- Written in the transaction that moves the watermark of the ledger, or in one of the writer's own for rules that look at the
-- clock. Nothing here is derived: a rebuild leaves it alone.

-- One row: up to where events and deliveries were looked at. Never moves back, so that nothing is raised twice.
CREATE TABLE alert_position (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,                    -- of the log
    rejection_id INTEGER NOT NULL,
    quarantine_id INTEGER NOT NULL
) STRICT;
-- What is there already when alerts come to a store is history.
INSERT INTO alert_position SELECT 1, folded_seq, coalesce((SELECT max(id) FROM rejection), 0),
    coalesce((SELECT max(id) FROM quarantined_body), 0) FROM position WHERE one = 1;

-- What a rule knows about one template.
CREATE TABLE alert (
    alert_key INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,                      -- [alert NAME]
    template_key INTEGER NOT NULL,           -- 0: not about one template
    part INTEGER NOT NULL,                   -- 0 the rule, 1 its daily budget, 2 its monthly one, 3 events that came too late
    rule_on TEXT NOT NULL,                   -- execution_failed, …
    severity TEXT NOT NULL,
    firing INTEGER NOT NULL,
    acked INTEGER NOT NULL,                  -- 1: an operator knows; not repeated until it is over
    since_ms INTEGER NOT NULL,               -- it began to fire, or fired last
    last_ms INTEGER NOT NULL,                -- it occurred, or was over its limit
    notified_ms INTEGER NOT NULL,
    occurred INTEGER NOT NULL,               -- since the last notification
    total INTEGER NOT NULL,                  -- since it began to fire
    told INTEGER NOT NULL,                   -- of total, at the last notification
    window_ms INTEGER NOT NULL,              -- the window that min_count counts in
    window_count INTEGER NOT NULL,
    value REAL,                              -- of rules about a level: rate, dollars, seconds
    open_id INTEGER NOT NULL,                -- a notification that still gathers; 0: none
    samples TEXT NOT NULL                    -- JSON: the first few since the last notification
) STRICT;
CREATE UNIQUE INDEX alert_identity ON alert (rule, template_key, part);
CREATE INDEX alert_time ON alert (since_ms / 1000);
CREATE INDEX alert_template ON alert (template_key, since_ms / 1000);

-- Occurrences that were counted: reports of one execution under several event ids count once. The latest 100,000.
CREATE TABLE alert_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rule TEXT NOT NULL,
    identity INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX alert_event_identity ON alert_event (rule, identity);

-- Executions and how many failed, by ten seconds, for failure_rate; as far back as a window can reach.
CREATE TABLE alert_bucket (
    time_s INTEGER NOT NULL,
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    executions INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    PRIMARY KEY (time_s, template_key, team_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE notification (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    notification_id TEXT NOT NULL UNIQUE,    -- what receivers dedupe by
    alert_key INTEGER NOT NULL,              -- 0: a test
    gathers INTEGER NOT NULL,                -- 1: what its alert counts until it is sent is in it
    rule TEXT NOT NULL,
    template_key INTEGER NOT NULL,
    part INTEGER NOT NULL,
    rule_on TEXT NOT NULL,
    severity TEXT NOT NULL,
    state INTEGER NOT NULL,                  -- 0 firing, 1 repeat, 2 resolved, 3 summary, 4 test
    starts_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL,                -- 0: goes on
    made_ms INTEGER NOT NULL,
    occurred INTEGER NOT NULL,
    total INTEGER NOT NULL,
    value REAL,
    threshold REAL,
    samples TEXT NOT NULL
) STRICT;
CREATE INDEX notification_time ON notification (made_ms / 1000);
CREATE INDEX notification_template ON notification (template_key, made_ms / 1000);
CREATE INDEX notification_gathers ON notification (id) WHERE gathers = 1;

CREATE TABLE outbox (
    id INTEGER NOT NULL,                     -- of the notification
    target TEXT NOT NULL,                    -- [notify NAME]
    rule TEXT NOT NULL,                      -- one after the other for each rule and target
    status INTEGER NOT NULL,                 -- 0 waiting, 1 sent, 2 failed, 3 dropped (a restore)
    attempts INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,                -- not before
    since_ms INTEGER NOT NULL,               -- made, or asked for again: given up 24 h later
    sent_ms INTEGER NOT NULL,                -- 0: not yet
    error TEXT NOT NULL,                     -- of the latest attempt
    PRIMARY KEY (id, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_waiting ON outbox (target, rule, id) WHERE status = 0;

CREATE VIEW alerts AS
SELECT a.rule AS rule,
    a.rule_on AS rule_on,
    CASE a.part WHEN 1 THEN 'daily' WHEN 2 THEN 'monthly' END AS period,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    a.severity AS severity,
    CASE WHEN NOT a.firing THEN 'resolved' WHEN a.acked THEN 'acknowledged' ELSE 'firing' END AS state,
    a.since_ms / 1000 AS time,
    strftime('%Y-%m-%dT%H:%M:%S', a.since_ms / 1000, 'unixepoch') || printf('.%03dZ', a.since_ms % 1000) AS since_at,
    strftime('%Y-%m-%dT%H:%M:%S', a.last_ms / 1000, 'unixepoch') || printf('.%03dZ', a.last_ms % 1000) AS last_at,
    CASE WHEN a.notified_ms > 0 THEN strftime('%Y-%m-%dT%H:%M:%S', a.notified_ms / 1000, 'unixepoch')
        || printf('.%03dZ', a.notified_ms % 1000) END AS notified_at,
    a.occurred AS not_told,
    a.total AS total,
    a.value AS value
FROM alert a
    LEFT JOIN template m ON m.template_key = a.template_key
WHERE a.part <> 3 AND (a.firing OR a.since_ms > 0);

CREATE VIEW notifications AS
SELECT n.id AS id,
    n.notification_id AS notification_id,
    n.made_ms / 1000 AS time,
    strftime('%Y-%m-%dT%H:%M:%S', n.made_ms / 1000, 'unixepoch') || printf('.%03dZ', n.made_ms % 1000) AS made_at,
    n.rule AS rule,
    n.rule_on AS rule_on,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    CASE n.state WHEN 0 THEN 'firing' WHEN 1 THEN 'repeat' WHEN 2 THEN 'resolved' WHEN 3 THEN 'summary' ELSE 'test' END AS state,
    n.occurred AS occurred,
    n.total AS total,
    n.value AS value,
    o.target AS target,
    CASE o.status WHEN 0 THEN 'waiting' WHEN 1 THEN 'sent' WHEN 2 THEN 'failed' ELSE 'dropped' END AS status,
    o.attempts AS attempts,
    CASE WHEN o.status = 0 THEN strftime('%Y-%m-%dT%H:%M:%S', o.next_ms / 1000, 'unixepoch')
        || printf('.%03dZ', o.next_ms % 1000) END AS next_at,
    CASE WHEN o.sent_ms > 0 THEN strftime('%Y-%m-%dT%H:%M:%S', o.sent_ms / 1000, 'unixepoch')
        || printf('.%03dZ', o.sent_ms % 1000) END AS sent_at,
    nullif(o.error, '') AS error
FROM notification n
    LEFT JOIN outbox o ON o.id = n.id
    LEFT JOIN template m ON m.template_key = n.template_key;

-- Runs that nobody was seen to end: runaway looks at the latest.
CREATE INDEX run_overdue ON run (time_s + ended_after_ms / 1000) WHERE end_kind IN (4, 5);
