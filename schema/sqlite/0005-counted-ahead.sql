-- Executions for failure_rate whose event the watermark has not passed: a slice of the fold writes sandboxes and executions in
-- parts before it. They go into alert_bucket when it does; a rebuild, which makes the ledger as of the watermark, drops them, and
-- they are counted when they are folded again.
CREATE TABLE alert_execution (
    seq INTEGER PRIMARY KEY,                 -- the event's
    time_s INTEGER NOT NULL,                 -- of alert_bucket
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    executions INTEGER NOT NULL,             -- 0: known before, only whether it failed has changed
    failed INTEGER NOT NULL                  -- 1, 0 or -1
) STRICT;
