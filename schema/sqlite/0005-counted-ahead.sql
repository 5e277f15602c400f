-- Executions for failure_rate whose event the watermark has not passed: a slice of the fold writes sandboxes and executions in
-- parts before it. They go into alert_bucket when it does. What is folded again, because a rebuild made the ledger as of the
-- watermark, takes the place of what was here.
CREATE TABLE alert_execution (
    seq INTEGER PRIMARY KEY,                 -- the event's
    time_s INTEGER NOT NULL,                 -- of alert_bucket
    template_key INTEGER NOT NULL,
    team_key INTEGER NOT NULL,
    executions INTEGER NOT NULL,             -- 0: known before, only whether it failed has changed
    failed INTEGER NOT NULL                  -- 1, 0 or -1
) STRICT;
