#!/usr/bin/env python3
"""Times the queries that a dashboard makes, on a store of any size: queries.py PATH

One read-only connection, warm: two runs are thrown away, the median of twenty counts. Prints a table with each limit (rows
-1: given up); fails if one is missed. Let nothing else run meanwhile. With --plans it prints the plan of each query that missed.

DASHBOARD is also what the end-to-end tests hold to their indexes.
"""
import argparse
import contextlib
import sqlite3
import statistics
import sys
import time

LIMIT_MS = 50
RUNS = 20
GIVE_UP_S = 30  # for all runs of a query

# name, limit in ms, statement. Parameters: see parameters().
DASHBOARD = [
    ("cost by template, 30 days", 10,
     "SELECT template, sum(cost_usd) AS usd, sum(runs_ended) AS runs, sum(unknown_cost) AS unknown_cost FROM cost_daily"
     " WHERE time >= :days30 GROUP BY template ORDER BY usd DESC"),
    ("cost by day, 30 days", LIMIT_MS,
     "SELECT day, sum(cost_usd) AS usd FROM cost_daily WHERE time >= :days30 GROUP BY day ORDER BY day DESC"),
    ("cost by hour, 24 hours", LIMIT_MS,
     "SELECT time, sum(cost_usd) AS usd FROM cost_hourly WHERE time >= :hours24 GROUP BY time ORDER BY time DESC"),
    ("failures of the last hour", LIMIT_MS,
     "SELECT * FROM failed_executions WHERE time >= :hours1 ORDER BY time DESC"),
    ("failures by error, 24 hours", LIMIT_MS,
     "SELECT template, error_name, count(*) AS n FROM failed_executions WHERE time >= :hours24"
     " GROUP BY template, error_name ORDER BY n DESC"),
    ("running sandboxes", LIMIT_MS, "SELECT * FROM running ORDER BY time DESC"),
    ("running, count and cost", LIMIT_MS, "SELECT count(*), sum(accrued_cost_usd) FROM running"),
    ("one sandbox", LIMIT_MS, "SELECT * FROM sandboxes WHERE sandbox_id = :sandbox"),
    ("its events", LIMIT_MS, "SELECT * FROM events WHERE sandbox_id = :sandbox ORDER BY time DESC, seq DESC"),
    ("its runs", LIMIT_MS, "SELECT * FROM runs WHERE sandbox_id = :sandbox ORDER BY time DESC"),
    ("its executions", LIMIT_MS, "SELECT * FROM executions WHERE sandbox_id = :sandbox ORDER BY time DESC"),
    ("events of one run", LIMIT_MS, "SELECT * FROM events WHERE run_id = :run ORDER BY time DESC"),
    ("one run", LIMIT_MS, "SELECT * FROM runs WHERE run_id = :run"),
    ("executions of one run", LIMIT_MS, "SELECT * FROM executions WHERE run_id = :run ORDER BY time DESC"),
    ("templates of all time", LIMIT_MS, "SELECT * FROM template_stats ORDER BY cost_usd DESC"),
    ("two templates over 7 days", LIMIT_MS,
     "SELECT template, sum(executions) AS n, 1.0 * sum(failed) / sum(executions) AS failure_rate,"
     " 1.0 * sum(duration_ms) / sum(executions) AS mean_ms, 1.0 * sum(duration_le_1000) / sum(executions) AS within_1_s"
     " FROM template_hourly WHERE time >= :days7 AND template_id IN (:template, :template2) GROUP BY template"),
    ("two templates by hour, 7 days", LIMIT_MS,
     "SELECT time, template, executions, failed, duration_ms FROM template_hourly"
     " WHERE time >= :days7 AND template_id IN (:template, :template2) ORDER BY time"),
    ("activity by hour, 24 hours", LIMIT_MS,
     "SELECT time, kind, sum(events) AS events FROM activity_hourly WHERE time >= :hours24 GROUP BY time, kind"),
    ("latest events", LIMIT_MS, "SELECT * FROM events ORDER BY seq DESC LIMIT 100"),
    ("latest events by time", LIMIT_MS, "SELECT * FROM events ORDER BY time DESC, seq DESC LIMIT 100"),
    ("latest sandboxes", LIMIT_MS, "SELECT * FROM sandboxes ORDER BY time DESC LIMIT 100"),
    ("latest runs", LIMIT_MS, "SELECT * FROM runs ORDER BY time DESC LIMIT 100"),
    ("latest executions", LIMIT_MS, "SELECT * FROM executions ORDER BY time DESC LIMIT 100"),
    ("latest failures", LIMIT_MS, "SELECT * FROM failed_executions ORDER BY time DESC LIMIT 100"),
    ("latest events of a template", LIMIT_MS,
     "SELECT * FROM events WHERE template_id = :template ORDER BY time DESC LIMIT 100"),
    ("events of a template, 1 hour", LIMIT_MS,
     "SELECT * FROM events WHERE template_id = :template AND time >= :hours1 ORDER BY time DESC LIMIT 100"),
    ("latest sandboxes of a template", LIMIT_MS,
     "SELECT * FROM sandboxes WHERE template_id = :template ORDER BY time DESC LIMIT 100"),
    ("latest runs of a template", LIMIT_MS,
     "SELECT * FROM runs WHERE template_id = :template ORDER BY time DESC LIMIT 100"),
    ("latest failures of a template", LIMIT_MS,
     "SELECT * FROM failed_executions WHERE template_id = :template ORDER BY time DESC LIMIT 100"),
    ("ledger state", LIMIT_MS, "SELECT * FROM ledger_state"),
]


def connect(path):
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=10)
    db.execute("PRAGMA query_only = ON")
    return db


def parameters(db):
    """What the statements ask for: the newest event is `now`, the sandbox and the run lie in the middle of the log."""
    now = db.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()[0]
    middle = db.execute("SELECT stored_seq / 2 FROM ledger_state").fetchone()[0]
    sandbox, run = db.execute("SELECT sandbox_id, run_id FROM events WHERE seq >= ? AND run_id IS NOT NULL AND kind = 'paused'"
                              " LIMIT 1", (middle,)).fetchone()
    templates = [row[0] for row in db.execute("SELECT template_id FROM template_stats ORDER BY executions DESC LIMIT 2")]
    return {"days30": now - 30 * 86400, "days7": now - 7 * 86400, "hours24": now - 86400, "hours1": now - 3600,
            "sandbox": sandbox, "run": run, "template": templates[0], "template2": templates[-1]}


def plan(db, statement, values):
    """The plan as (depth, text) lines, in order."""
    depth, lines = {0: -1}, []
    for node, parent, _, text in db.execute("EXPLAIN QUERY PLAN " + statement, values):
        depth[node] = depth[parent] + 1
        lines.append((depth[node], text))
    return lines


def measure(db, statement, values, runs=RUNS):
    """Median in ms, and the number of rows. What takes seconds is asked once, and given up after GIVE_UP_S."""
    took = []
    deadline = time.monotonic() + GIVE_UP_S
    db.set_progress_handler(lambda: time.monotonic() > deadline, 1_000_000)
    for _ in range(runs + 2):
        began = time.perf_counter()
        try:
            rows = len(db.execute(statement, values).fetchall())
        except sqlite3.OperationalError:  # interrupted
            rows = -1
        took.append((time.perf_counter() - began) * 1000)
        if took[0] > 1000:
            return took[0], rows
    return statistics.median(took[2:]), rows


def main():
    parser = argparse.ArgumentParser(description="Times the queries of a dashboard")
    parser.add_argument("--plans", action="store_true", help="print the plans of queries that missed their limit")
    parser.add_argument("path")
    args = parser.parse_args()
    missed = []
    with contextlib.closing(connect(args.path)) as db:
        values = parameters(db)
        print(f"{'query':32} {'rows':>6} {'ms':>9} {'limit':>6}")
        for name, limit, statement in DASHBOARD:
            median, rows = measure(db, statement, values)
            over = median > limit
            print(f"{name:32} {rows:6} {median:9.2f} {limit:6}{'  over' if over else ''}", flush=True)
            if over:
                missed.append((name, statement))
        for name, statement in missed if args.plans else []:
            print(f"\n{name}: {statement}")
            for depth, text in plan(db, statement, values):
                print("  " * (depth + 1) + text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
