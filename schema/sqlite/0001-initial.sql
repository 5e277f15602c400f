-- The store of e2b-hookd. Base tables are private and may change with any version; the views are the query surface.
--
-- Ids that are lower-case UUIDs are kept as 16-byte blobs, all others as text; the views give text. Times: *_ns, *_ms and *_s
-- are integers since 1970 UTC. Money is integer nano-USD. NULL is "unknown", never 0. Words that come again and again
-- (sources, types, templates, teams, …) are dimension rows with small integer keys.
--
-- The log (event, body_block and what stands beside them) is written by deliveries and is the source of truth. The ledger (sandbox, run,
-- execution, event_link, loose_event) is derived from it by the projector, which moves folded_seq in the same transaction.

-- Dimensions ----------------------------------------------------------------------------------------------------------

CREATE TABLE source (
    source_key INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE                -- [source NAME] of the configuration
) STRICT;

CREATE TABLE event_type (
    type_key INTEGER PRIMARY KEY,
    type TEXT NOT NULL,                      -- as sent, or sandbox.lifecycle.X for version 1
    kind INTEGER NOT NULL,                   -- number of the kind, see the kind table
    version TEXT,                            -- envelope version, NULL if none was sent
    UNIQUE (type, kind, version)
) STRICT;

-- What is the same for many events.
CREATE TABLE event_traits (
    traits_key INTEGER PRIMARY KEY,
    source_key INTEGER NOT NULL,
    type_key INTEGER NOT NULL,
    failed INTEGER,                          -- executions: 1 failed, 0 not; NULL for other kinds
    webhook_key INTEGER NOT NULL,            -- unsigned header e2b-webhook-id, a word; 0: none
    UNIQUE (source_key, type_key, failed, webhook_key)
) STRICT;

CREATE TABLE link_traits (
    traits_key INTEGER PRIMARY KEY,
    build_key INTEGER NOT NULL,              -- 0 in a key: the event names none
    team_key INTEGER NOT NULL,
    UNIQUE (build_key, team_key)
) STRICT;

CREATE TABLE kind (
    kind INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO kind (kind, name) VALUES (0, 'created'), (1, 'resumed'), (2, 'updated'), (3, 'paused'), (4, 'killed'),
    (5, 'checkpointed'), (6, 'forked'), (7, 'code_executed'), (8, 'test'), (9, 'other');

CREATE TABLE template (
    template_key INTEGER PRIMARY KEY,
    template_id TEXT NOT NULL UNIQUE,
    alias TEXT                               -- the name configured now; the views show it
) STRICT;
CREATE INDEX template_alias ON template (alias) WHERE alias IS NOT NULL;

CREATE TABLE team (
    team_key INTEGER PRIMARY KEY,
    team_id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE build (
    build_key INTEGER PRIMARY KEY,
    build_id TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE word (
    word_key INTEGER PRIMARY KEY,
    word TEXT NOT NULL UNIQUE                -- kill reasons, languages, execution kinds, webhook ids
) STRICT;

-- The log -------------------------------------------------------------------------------------------------------------

CREATE TABLE event (
    seq INTEGER PRIMARY KEY,                 -- order of storing; given by the writer, never used again
    time_s INTEGER NOT NULL,                 -- event time, whole seconds
    time_frac_ns INTEGER NOT NULL,           -- and the rest, 0 … 999 999 999
    id ANY NOT NULL,                         -- event id
    received_delta_ms INTEGER NOT NULL,      -- time received minus time_s * 1000
    traits_key INTEGER NOT NULL,
    delivery_id ANY,                         -- unsigned header e2b-delivery-id of the first delivery
    deliveries INTEGER NOT NULL,             -- how often it was delivered
    body_at INTEGER NOT NULL,                -- where its body begins in its block, in bytes
    body_len INTEGER NOT NULL,               -- of the whole body
    id_at INTEGER                            -- where in the body the id, a UUID, was cut out; NULL: nowhere
) STRICT;

-- The signed bodies, byte for byte, one behind another: a block holds those of the events from first_seq up to the next block.
-- A block fills its pages and leaves the event rows narrow; it goes with its last event. What a body repeats of its row, the
-- event's id, is cut out of it once (event.id_at); the views put it back.
CREATE TABLE body_block (
    first_seq INTEGER PRIMARY KEY,
    bodies BLOB NOT NULL
) STRICT;

-- Dedupe by (second, id): a repeat carries the same body, hence the same time. Rows come in large batches, sorted, long after
-- their events (position.indexed_seq): the latest events are found in memory. A hash finds candidates; the event decides.
CREATE TABLE event_identity (
    time_s INTEGER NOT NULL,
    id_hash INTEGER NOT NULL,                -- 16 bits, keyed by position.identity_key
    seq INTEGER NOT NULL,
    PRIMARY KEY (time_s, id_hash, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantined_body (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_key INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    webhook_key INTEGER,
    delivery_id ANY,
    digest BLOB NOT NULL,                    -- first 16 bytes of SHA-256 of the body: a repeat is kept once
    deliveries INTEGER NOT NULL,
    payload BLOB NOT NULL                    -- the signed body, byte for byte
) STRICT;
CREATE UNIQUE INDEX quarantined_body_identity ON quarantined_body (source_key, digest, reason);
CREATE INDEX quarantined_body_time ON quarantined_body (received_ms);
CREATE INDEX quarantined_body_shown ON quarantined_body (received_ms / 1000);

CREATE TABLE rejection (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_key INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    reason TEXT NOT NULL,
    remote_addr TEXT NOT NULL,
    webhook_id ANY,                          -- unsigned headers, as text: strangers must not fill the word table
    delivery_id ANY,
    signature TEXT,                          -- header values as received, only where well-formed: for requeue and verify
    signature_id TEXT,
    signature_timestamp TEXT,
    payload_size INTEGER NOT NULL,           -- bytes received, or declared
    payload BLOB                             -- NULL where it was not kept
) STRICT;
CREATE INDEX rejection_time ON rejection (received_ms);
CREATE INDEX rejection_shown ON rejection (received_ms / 1000);
CREATE INDEX rejection_source ON rejection (source_key, id);

-- What quarantine and rejections hold, per source, so that their bounds cost nothing to check.
CREATE TABLE side_size (
    side TEXT NOT NULL,                      -- 'quarantine' or 'rejection'
    source_key INTEGER NOT NULL,
    n_rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,                  -- of payloads
    dropped INTEGER NOT NULL,                -- rejections not kept, or dropped as the oldest
    PRIMARY KEY (side, source_key)
) STRICT, WITHOUT ROWID;

-- Counters that outlive a restart.
CREATE TABLE filter_count (
    source_key INTEGER NOT NULL,
    reason TEXT NOT NULL,                    -- events, templates or teams
    template_key INTEGER NOT NULL,           -- 0: the event named none
    n INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,                -- unix time of the latest one
    PRIMARY KEY (source_key, reason, template_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE secret_use (
    source_key INTEGER NOT NULL,
    position INTEGER NOT NULL,               -- place in the secret file, 1 is the first
    fingerprint TEXT NOT NULL,               -- tells secrets apart across a rotation; '' for short ones
    n INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (source_key, position, fingerprint)
) STRICT, WITHOUT ROWID;

-- One row: where things stand.
CREATE TABLE position (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    folded_seq INTEGER NOT NULL,             -- the ledger holds every event up to here
    trying_seq INTEGER NOT NULL,             -- event whose fold was begun and not finished; 0: none
    trying_count INTEGER NOT NULL,
    fold_version INTEGER NOT NULL,           -- of the rules that made the ledger
    change_seq INTEGER NOT NULL,             -- the latest changed_seq given: one a transaction of the projector
    horizon_s INTEGER NOT NULL,              -- events before it are stale; never moves back
    schema_version INTEGER NOT NULL,         -- the same as PRAGMA user_version
    migrated_ms INTEGER NOT NULL,
    indexed_seq INTEGER NOT NULL,            -- event_identity holds every event up to here
    identity_key INTEGER NOT NULL            -- of its hash, random
) STRICT;
INSERT INTO position VALUES (1, 0, 0, 0, 1, 0, 0, 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), 0, random());

-- Events that the fold failed on twice: kept in the log, left out of the ledger.
CREATE TABLE skipped (
    seq INTEGER PRIMARY KEY,
    reason TEXT NOT NULL
) STRICT;

-- The ledger ----------------------------------------------------------------------------------------------------------

-- Ties an event to what it is about. Keys are NULL where the event names none. In time order, so that the events of one
-- template or sandbox come out of their index in that order too.
CREATE TABLE event_link (
    time_s INTEGER NOT NULL,                 -- as in event
    seq INTEGER NOT NULL,
    sandbox_key INTEGER,
    run_key INTEGER,
    template_key INTEGER,
    traits_key INTEGER,                      -- of link_traits
    PRIMARY KEY (time_s, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_link_sandbox ON event_link (sandbox_key) WHERE sandbox_key IS NOT NULL;
CREATE INDEX event_link_template ON event_link (template_key) WHERE template_key IS NOT NULL;

CREATE TABLE sandbox (
    sandbox_key INTEGER PRIMARY KEY,
    time_s INTEGER NOT NULL,                 -- created, else first event
    time_ms INTEGER,                         -- and the rest, 0 … 999; NULL: nothing is known to have created it
    last_after_ms INTEGER NOT NULL,          -- latest event, milliseconds after time_s; so are those that follow
    ended_after_ms INTEGER,
    expires_after_ms INTEGER,
    state INTEGER NOT NULL,                  -- 0 unknown, 1 running, 2 paused, 3 killed
    source_key INTEGER, template_key INTEGER, team_key INTEGER,
    kill_reason_key INTEGER,
    startup_ms INTEGER,                      -- start-up time reported by an executor
    runs INTEGER NOT NULL,
    runtime_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    unknown_cost INTEGER NOT NULL,           -- closed runs whose cost is unknown
    executions INTEGER NOT NULL,
    failed_executions INTEGER NOT NULL,
    loose_executions INTEGER NOT NULL,       -- executions that name no run
    n_loose INTEGER NOT NULL,                -- rows in loose_event
    sealed INTEGER NOT NULL,                 -- 1: an event of it was pruned
    changed_seq INTEGER NOT NULL,
    metadata_seq INTEGER,                    -- event that metadata is of
    sandbox_id TEXT NOT NULL,
    facts BLOB NOT NULL,                     -- what only the fold reads: storage_sqlite_facts.h
    metadata TEXT                            -- JSON object of the latest event that has one
) STRICT;
-- In parts of so many keys, and unique (the fold sees to it): ids are random, so in an index over all of them every new one
-- would read and write a page of its own, the more the more is stored. A look-up asks each part in turn.
CREATE INDEX sandbox_id ON sandbox (sandbox_key >> 16, sandbox_id);
CREATE INDEX sandbox_time ON sandbox (time_s);
CREATE INDEX sandbox_template ON sandbox (template_key, time_s) WHERE template_key IS NOT NULL;

-- Lifecycle events that name no run.
CREATE TABLE loose_event (
    sandbox_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    source_key INTEGER, template_key INTEGER, team_key INTEGER,
    kill_reason_key INTEGER,
    timeout_ms INTEGER,
    report_started_ms INTEGER, report_ms INTEGER, report_vcpu INTEGER, report_memory_mb INTEGER,
    PRIMARY KEY (sandbox_key, seq)
) STRICT, WITHOUT ROWID;

-- What is the same for many runs.
CREATE TABLE run_traits (
    traits_key INTEGER PRIMARY KEY,
    source_key INTEGER NOT NULL,             -- 0 in a key: not known
    team_key INTEGER NOT NULL,
    kill_reason_key INTEGER NOT NULL,
    vcpu_count INTEGER,
    memory_mb INTEGER,
    cost_source INTEGER NOT NULL,            -- 0 unknown, 1 reported, 2 estimated
    vcpu_second_femto INTEGER,               -- price in force at the start, 10^-15 USD
    gib_second_femto INTEGER,
    UNIQUE (source_key, team_key, kill_reason_key, vcpu_count, memory_mb, cost_source, vcpu_second_femto, gib_second_femto)
) STRICT;

CREATE TABLE run (
    run_key INTEGER PRIMARY KEY,
    sandbox_key INTEGER NOT NULL,
    time_s INTEGER,                          -- started, else ended; NULL: only named so far, nothing to show
    time_ms INTEGER,                         -- and the rest, 0 … 999; NULL: its start is not known
    ended_after_ms INTEGER,                  -- milliseconds after time_s
    end_kind INTEGER NOT NULL,               -- 0 open, 1 paused, 2 killed, 3 next_start, 4 timeout, 5 max_run
    traits_key INTEGER NOT NULL,
    template_key INTEGER,
    cost_nanousd INTEGER,
    due_ms INTEGER,                          -- open: when its missing end comes true
    changed_seq INTEGER NOT NULL,
    run_id TEXT NOT NULL,                    -- sandbox_execution_id, or SANDBOX@START
    facts BLOB NOT NULL                      -- what only the fold reads: storage_sqlite_facts.h
) STRICT;
CREATE INDEX run_id ON run (run_key >> 15, run_id); -- in parts, as sandbox_id
CREATE INDEX run_sandbox ON run (sandbox_key);
CREATE INDEX run_time ON run (time_s) WHERE time_s IS NOT NULL;
CREATE INDEX run_template ON run (template_key, time_s) WHERE template_key IS NOT NULL;
CREATE INDEX run_open ON run (end_kind, due_ms) WHERE end_kind = 0 AND time_s IS NOT NULL;

-- What is the same for many executions.
CREATE TABLE execution_traits (
    traits_key INTEGER PRIMARY KEY,
    source_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,               -- 0 in a key: not known
    kind_key INTEGER NOT NULL,               -- a word; 0: code
    language_key INTEGER NOT NULL,
    status INTEGER NOT NULL,                 -- 0 success, 1 error, 2 timeout, 3 killed
    exit_code INTEGER,
    attempt INTEGER NOT NULL,
    final INTEGER NOT NULL,
    vcpu_count INTEGER,
    memory_mb INTEGER,
    cost_source INTEGER NOT NULL,            -- 0 unknown, 1 reported, 3 computed
    named_run INTEGER NOT NULL,              -- 1: the event names its run; 0: run_key is the run that covers its time
    has_start INTEGER NOT NULL,              -- 1: its time is its start, 0: the event's
    has_end INTEGER NOT NULL,                -- 1: it finished duration_ms after its time
    UNIQUE (source_key, team_key, kind_key, language_key, status, exit_code, attempt, final, vcpu_count, memory_mb, cost_source,
        named_run, has_start, has_end)
) STRICT;

CREATE TABLE execution (
    seq INTEGER PRIMARY KEY,                 -- of the event that counts: the latest report about it
    sandbox_key INTEGER NOT NULL,
    id_hash INTEGER NOT NULL,                -- of execution_id, 16 bits, keyed by position.identity_key
    time_s INTEGER NOT NULL,                 -- started, else the event's time
    time_ms INTEGER NOT NULL,                -- and the rest, 0 … 999
    traits_key INTEGER NOT NULL,
    run_key INTEGER,
    template_key INTEGER,
    failed INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    cost_nanousd INTEGER,
    changed_seq INTEGER NOT NULL,
    execution_id ANY NOT NULL,
    event_id ANY,                            -- NULL: as the event has it, which is in the log still
    finished_ms INTEGER,                     -- where it is not as its traits say
    error_name TEXT,
    error_value TEXT
) STRICT;
CREATE INDEX execution_identity ON execution (sandbox_key, id_hash);
CREATE INDEX execution_time ON execution (time_s);
CREATE INDEX execution_template ON execution (template_key, time_s) WHERE template_key IS NOT NULL;
CREATE INDEX execution_failed ON execution (time_s) WHERE failed = 1;
CREATE INDEX execution_failed_template ON execution (template_key, time_s) WHERE failed = 1;

-- What lets SQLite ask an index part by part rather than read its whole table. It is not measured but said: with few parts, so
-- that also a join goes by the index. (A rebuild says the same of the indexes it makes.)
ANALYZE;
DELETE FROM sqlite_stat1;
INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES ('sandbox', 'sandbox_id', '1048576 524288 1'), ('run', 'run_id', '1048576 524288 1');

-- Views: the stable query surface -------------------------------------------------------------------------------------

-- Private: events that are not folded yet, with what their bodies name, as the fold will read it. An empty string and the nil
-- UUID name nothing. A body that is damaged names nothing either, but must not break the view.
CREATE VIEW unfolded_event AS
SELECT e.*, z.source_key, z.failed, z.webhook_key, t.type, t.kind, t.version,
    coalesce(iif(replace(e.body ->> '$.sandbox_id', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_id', '')),
        iif(replace(e.body ->> '$.sandboxId', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxId', ''))) AS sandbox_id,
    coalesce(iif(replace(e.body ->> '$.sandbox_execution_id', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_execution_id', '')),
        iif(replace(e.body ->> '$.sandboxExecutionId', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxExecutionId', ''))) AS run_id,
    coalesce(iif(replace(e.body ->> '$.sandbox_template_id', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_template_id', '')),
        iif(replace(e.body ->> '$.sandboxTemplateId', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxTemplateId', '')),
        iif(replace(e.body ->> '$.sandbox_template_alias', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_template_alias', '')),
        iif(replace(e.body ->> '$.sandboxTemplateAlias', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxTemplateAlias', '')),
        iif(replace(e.body ->> '$.template_alias', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.template_alias', ''))) AS template_name,
    coalesce(iif(replace(e.body ->> '$.sandbox_build_id', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_build_id', '')),
        iif(replace(e.body ->> '$.sandboxBuildId', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxBuildId', ''))) AS build_id,
    coalesce(iif(replace(e.body ->> '$.sandbox_team_id', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandbox_team_id', '')),
        iif(replace(e.body ->> '$.sandboxTeamId', '-', '') = '00000000000000000000000000000000', NULL, nullif(e.body ->> '$.sandboxTeamId', ''))) AS team_id
FROM (SELECT *, iif(json_valid(payload), payload, '{}') AS body
        FROM (SELECT e.*, CAST((SELECT iif(e.id_at IS NULL, substr(b.bodies, e.body_at + 1, e.body_len),
            substr(b.bodies, e.body_at + 1, e.id_at) || lower(substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-'
            || substr(hex(e.id), 13, 4) || '-' || substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21))
            || substr(b.bodies, e.body_at + e.id_at + 1, e.body_len - e.id_at - 36)) FROM body_block b WHERE b.first_seq <= e.seq
                    ORDER BY b.first_seq DESC LIMIT 1) AS TEXT) AS payload
            FROM event e WHERE e.seq > (SELECT folded_seq FROM position WHERE one = 1))) e
    JOIN event_traits z ON z.traits_key = e.traits_key
    JOIN event_type t ON t.type_key = z.type_key;

CREATE VIEW events AS
SELECT e.seq AS seq,
    l.time_s AS time,                       -- not e.time_s: this one is in the order of the indexes of the link
    strftime('%Y-%m-%dT%H:%M:%S', e.time_s, 'unixepoch') || printf('.%03dZ', e.time_frac_ns / 1000000) AS occurred_at,
    strftime('%Y-%m-%dT%H:%M:%S', (e.time_s * 1000 + e.received_delta_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (e.time_s * 1000 + e.received_delta_ms) % 1000) AS received_at,
    CASE typeof(e.id) WHEN 'blob' THEN lower(substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-'
        || substr(hex(e.id), 13, 4) || '-' || substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21)) ELSE e.id END AS event_id,
    (SELECT name FROM source WHERE source_key = z.source_key) AS source,
    t.type AS type,
    k.name AS kind,
    t.version AS envelope_version,
    s.sandbox_id AS sandbox_id,
    r.run_id AS run_id,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT b.build_id FROM link_traits x JOIN build b ON b.build_key = x.build_key WHERE x.traits_key = l.traits_key) AS build_id,
    (SELECT t.team_id FROM link_traits x JOIN team t ON t.team_key = x.team_key WHERE x.traits_key = l.traits_key) AS team_id,
    z.failed AS failed,
    (SELECT word FROM word WHERE word_key = z.webhook_key) AS webhook_id,
    CASE typeof(e.delivery_id) WHEN 'blob' THEN lower(substr(hex(e.delivery_id), 1, 8) || '-'
        || substr(hex(e.delivery_id), 9, 4) || '-' || substr(hex(e.delivery_id), 13, 4) || '-'
        || substr(hex(e.delivery_id), 17, 4) || '-' || substr(hex(e.delivery_id), 21)) ELSE e.delivery_id END AS delivery_id,
    e.deliveries AS deliveries,
    CAST((SELECT iif(e.id_at IS NULL, substr(b.bodies, e.body_at + 1, e.body_len),
            substr(b.bodies, e.body_at + 1, e.id_at) || lower(substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-'
            || substr(hex(e.id), 13, 4) || '-' || substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21))
            || substr(b.bodies, e.body_at + e.id_at + 1, e.body_len - e.id_at - 36)) FROM body_block b WHERE b.first_seq <= e.seq
        ORDER BY b.first_seq DESC LIMIT 1) AS TEXT) AS payload
FROM event e
    JOIN event_link l ON l.seq = e.seq AND l.time_s = e.time_s
    JOIN event_traits z ON z.traits_key = e.traits_key
    JOIN event_type t ON t.type_key = z.type_key
    JOIN kind k ON k.kind = t.kind
    LEFT JOIN sandbox s ON s.sandbox_key = l.sandbox_key
    LEFT JOIN run r ON r.run_key = l.run_key AND r.sandbox_key = l.sandbox_key
    LEFT JOIN template m ON m.template_key = l.template_key
UNION ALL
-- Stored, not folded yet (for a second at most): what the link will say is read from the body. Columns have the affinity of
-- the first half, or SQLite would build the whole view for every query instead of merging the halves.
SELECT e.seq, e.time_s,
    strftime('%Y-%m-%dT%H:%M:%S', e.time_s, 'unixepoch') || printf('.%03dZ', e.time_frac_ns / 1000000),
    strftime('%Y-%m-%dT%H:%M:%S', (e.time_s * 1000 + e.received_delta_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (e.time_s * 1000 + e.received_delta_ms) % 1000),
    CASE typeof(e.id) WHEN 'blob' THEN lower(substr(hex(e.id), 1, 8) || '-' || substr(hex(e.id), 9, 4) || '-'
        || substr(hex(e.id), 13, 4) || '-' || substr(hex(e.id), 17, 4) || '-' || substr(hex(e.id), 21)) ELSE e.id END,
    (SELECT name FROM source WHERE source_key = e.source_key),
    e.type, k.name, e.version,
    CAST(iif(k.name = 'test', NULL, e.sandbox_id) AS TEXT), -- test events are about no sandbox
    CAST(iif(k.name = 'test' OR e.sandbox_id IS NULL, NULL, e.run_id) AS TEXT),
    CAST(coalesce((SELECT template_id FROM template WHERE alias = e.template_name), e.template_name) AS TEXT),
    coalesce((SELECT alias FROM template WHERE alias = e.template_name),
        (SELECT alias FROM template WHERE template_id = e.template_name), e.template_name),
    CAST(e.build_id AS TEXT),
    CAST(e.team_id AS TEXT),
    e.failed,
    (SELECT word FROM word WHERE word_key = e.webhook_key),
    CASE typeof(e.delivery_id) WHEN 'blob' THEN lower(substr(hex(e.delivery_id), 1, 8) || '-'
        || substr(hex(e.delivery_id), 9, 4) || '-' || substr(hex(e.delivery_id), 13, 4) || '-'
        || substr(hex(e.delivery_id), 17, 4) || '-' || substr(hex(e.delivery_id), 21)) ELSE e.delivery_id END,
    e.deliveries, e.payload
FROM unfolded_event e
    JOIN kind k ON k.kind = e.kind;

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
    s.cost_nanousd AS cost_nanousd,
    s.cost_nanousd / 1e9 AS cost_usd,
    s.executions AS executions,
    s.failed_executions AS failed_executions,
    s.metadata AS metadata,
    s.changed_seq AS changed_seq
FROM sandbox s
    LEFT JOIN template m ON m.template_key = s.template_key;

CREATE VIEW runs AS
SELECT r.run_id AS run_id,
    s.sandbox_id AS sandbox_id,
    r.time_s AS time,
    iif(r.time_ms IS NULL, NULL, strftime('%Y-%m-%dT%H:%M:%S', r.time_s, 'unixepoch') || printf('.%03dZ', r.time_ms)) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S', (r.time_s * 1000 + r.ended_after_ms) / 1000, 'unixepoch')
        || printf('.%03dZ', (r.time_s * 1000 + r.ended_after_ms) % 1000) AS ended_at,
    CASE r.end_kind WHEN 1 THEN 'paused' WHEN 2 THEN 'killed' WHEN 3 THEN 'next_start' WHEN 4 THEN 'timeout'
        WHEN 5 THEN 'max_run' END AS end_kind,
    (SELECT word FROM word WHERE word_key = z.kill_reason_key) AS kill_reason,
    (SELECT name FROM source WHERE source_key = z.source_key) AS source,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = z.team_key) AS team_id,
    z.vcpu_count AS vcpu_count,
    z.memory_mb AS memory_mb,
    r.ended_after_ms - r.time_ms AS runtime_ms,
    r.cost_nanousd AS cost_nanousd,
    r.cost_nanousd / 1e9 AS cost_usd,
    CASE z.cost_source WHEN 1 THEN 'reported' WHEN 2 THEN 'estimated' ELSE 'unknown' END AS cost_source,
    r.changed_seq AS changed_seq
FROM run r
    LEFT JOIN run_traits z ON z.traits_key = r.traits_key
    JOIN sandbox s ON s.sandbox_key = r.sandbox_key
    LEFT JOIN template m ON m.template_key = r.template_key
WHERE r.time_s IS NOT NULL;

CREATE VIEW executions AS
SELECT CASE typeof(x.execution_id) WHEN 'blob' THEN lower(substr(hex(x.execution_id), 1, 8) || '-'
        || substr(hex(x.execution_id), 9, 4) || '-' || substr(hex(x.execution_id), 13, 4) || '-'
        || substr(hex(x.execution_id), 17, 4) || '-' || substr(hex(x.execution_id), 21)) ELSE x.execution_id END AS execution_id,
    CASE typeof(coalesce(x.event_id, e.id)) WHEN 'blob' THEN lower(substr(hex(coalesce(x.event_id, e.id)), 1, 8) || '-'
        || substr(hex(coalesce(x.event_id, e.id)), 9, 4) || '-' || substr(hex(coalesce(x.event_id, e.id)), 13, 4) || '-'
        || substr(hex(coalesce(x.event_id, e.id)), 17, 4) || '-' || substr(hex(coalesce(x.event_id, e.id)), 21))
        ELSE coalesce(x.event_id, e.id) END AS event_id,
    x.time_s AS time,
    iif(z.has_start, strftime('%Y-%m-%dT%H:%M:%S', x.time_s, 'unixepoch') || printf('.%03dZ', x.time_ms), NULL) AS started_at,
    strftime('%Y-%m-%dT%H:%M:%S', coalesce(x.finished_ms, iif(z.has_end, x.time_s * 1000 + x.time_ms + x.duration_ms, NULL)) / 1000, 'unixepoch')
        || printf('.%03dZ', coalesce(x.finished_ms, iif(z.has_end, x.time_s * 1000 + x.time_ms + x.duration_ms, NULL)) % 1000) AS finished_at,
    s.sandbox_id AS sandbox_id,
    r.run_id AS run_id,
    (SELECT name FROM source WHERE source_key = z.source_key) AS source,
    m.template_id AS template_id,
    coalesce(m.alias, m.template_id) AS template,
    (SELECT team_id FROM team WHERE team_key = z.team_key) AS team_id,
    coalesce((SELECT word FROM word WHERE word_key = z.kind_key), 'code') AS execution_kind,
    (SELECT word FROM word WHERE word_key = z.language_key) AS language,
    CASE z.status WHEN 0 THEN 'success' WHEN 1 THEN 'error' WHEN 2 THEN 'timeout' ELSE 'killed' END AS status,
    x.failed AS failed,
    z.exit_code AS exit_code,
    x.error_name AS error_name,
    x.error_value AS error_value,
    x.duration_ms AS duration_ms,
    z.attempt AS attempt,
    z.final AS final,
    z.vcpu_count AS vcpu_count,
    z.memory_mb AS memory_mb,
    x.cost_nanousd AS attributed_cost_nanousd,
    x.cost_nanousd / 1e9 AS attributed_cost_usd,
    CASE z.cost_source WHEN 1 THEN 'reported' WHEN 3 THEN 'computed' ELSE 'unknown' END AS cost_source,
    x.changed_seq AS changed_seq
FROM execution x
    LEFT JOIN execution_traits z ON z.traits_key = x.traits_key
    LEFT JOIN event e ON e.seq = x.seq
    JOIN sandbox s ON s.sandbox_key = x.sandbox_key
    LEFT JOIN run r ON r.run_key = x.run_key AND r.sandbox_key = x.sandbox_key
    LEFT JOIN template m ON m.template_key = x.template_key;

CREATE VIEW failed_executions AS SELECT * FROM executions WHERE failed = 1;

CREATE VIEW quarantine AS
SELECT q.id AS id,
    q.received_ms / 1000 AS time,
    strftime('%Y-%m-%dT%H:%M:%S', q.received_ms / 1000, 'unixepoch') || printf('.%03dZ', q.received_ms % 1000) AS received_at,
    (SELECT name FROM source WHERE source_key = q.source_key) AS source,
    q.reason AS reason,
    q.detail AS detail,
    (SELECT word FROM word WHERE word_key = q.webhook_key) AS webhook_id,
    CASE typeof(q.delivery_id) WHEN 'blob' THEN lower(substr(hex(q.delivery_id), 1, 8) || '-'
        || substr(hex(q.delivery_id), 9, 4) || '-' || substr(hex(q.delivery_id), 13, 4) || '-' || substr(hex(q.delivery_id), 17, 4) || '-'
        || substr(hex(q.delivery_id), 21)) ELSE q.delivery_id END AS delivery_id,
    CAST(q.payload AS TEXT) AS payload
FROM quarantined_body q;

CREATE VIEW rejections AS
SELECT j.id AS id,
    j.received_ms / 1000 AS time,
    strftime('%Y-%m-%dT%H:%M:%S', j.received_ms / 1000, 'unixepoch') || printf('.%03dZ', j.received_ms % 1000) AS received_at,
    (SELECT name FROM source WHERE source_key = j.source_key) AS source,
    j.reason AS reason,
    j.remote_addr AS remote_addr,
    CASE typeof(j.webhook_id) WHEN 'blob' THEN lower(substr(hex(j.webhook_id), 1, 8) || '-'
        || substr(hex(j.webhook_id), 9, 4) || '-' || substr(hex(j.webhook_id), 13, 4) || '-' || substr(hex(j.webhook_id), 17, 4) || '-'
        || substr(hex(j.webhook_id), 21)) ELSE j.webhook_id END AS webhook_id,
    CASE typeof(j.delivery_id) WHEN 'blob' THEN lower(substr(hex(j.delivery_id), 1, 8) || '-'
        || substr(hex(j.delivery_id), 9, 4) || '-' || substr(hex(j.delivery_id), 13, 4) || '-' || substr(hex(j.delivery_id), 17, 4) || '-'
        || substr(hex(j.delivery_id), 21)) ELSE j.delivery_id END AS delivery_id,
    j.payload_size AS payload_size
FROM rejection j;

CREATE VIEW ledger_state AS
SELECT max(p.folded_seq, coalesce((SELECT max(seq) FROM event), 0)) AS stored_seq,
    p.folded_seq AS folded_seq,
    coalesce((SELECT max(0, CAST(strftime('%s', 'now') AS INTEGER) - (e.time_s * 1000 + e.received_delta_ms) / 1000)
        FROM event e WHERE e.seq > p.folded_seq ORDER BY e.seq LIMIT 1), 0) AS lag_s,
    0 AS rebuilding,
    (SELECT count(*) FROM skipped) AS skipped
FROM position p WHERE p.one = 1;

CREATE VIEW schema_info AS
SELECT schema_version AS version,
    fold_version AS fold_version,
    strftime('%Y-%m-%dT%H:%M:%S', migrated_ms / 1000, 'unixepoch') || printf('.%03dZ', migrated_ms % 1000) AS migrated_at
FROM position WHERE one = 1;
