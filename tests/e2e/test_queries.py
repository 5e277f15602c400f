"""Goal: every documented query is answered through an index, so that dashboards stay quick however much is stored: filters by
time, sandbox, run and template on every view that has the column, the latest hundred of each, the queries of docs/ and
those that the benchmark times. The store is a small one, made by the benchmark's generator through the real engine.
"""
import atexit
import contextlib
import functools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import dashboard
from harness import HOOKD, ROOT

sys.path.insert(0, str(ROOT / "tests/bench"))
import queries  # noqa: E402

GENERATOR = pathlib.Path(HOOKD).resolve().parents[1] / "tests/bench/generate_store"
EVENTS = 20_000

# What may be read whole: one row, one row a configured or reported name, one row a template, what an operator must look at.
SMALL = {"position", "source", "event_type", "kind", "template", "team", "build", "word", "template_total", "skipped"}
FILTERS = {"time": ">= :hours24", "sandbox_id": "= :sandbox", "run_id": "= :run", "template_id": "= :template"}
LATEST = "LIMIT 100"
# Instructions of SQLite's machine for a hundred rows. The widest take 22,000; looking at all of 20,000 events takes millions.
WORK_MAX = 26_000


@functools.cache
def store():
    """Made once for all tests: they only read."""
    directory = tempfile.mkdtemp(prefix="hookd-e2e-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    run = subprocess.run([GENERATOR, "--events", str(EVENTS), f"{directory}/events.db"], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return queries.connect(f"{directory}/events.db")


class Queries(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.db = store()
        self.values = queries.parameters(self.db)
        self.views = dict(self.db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'view'"))
        self.columns = {v: [row[1] for row in self.db.execute(f"PRAGMA table_info({v})")]
                        for v in self.views if v != "unfolded_event"}  # private

    def tables_called(self, alias):
        """What a name in a plan may stand for."""
        tables = set()
        for sql in self.views.values():
            tables |= {t for t, a in re.findall(r"\b(?:FROM|JOIN)\s+(\w+)\s+(\w+)\b", sql) if a == alias}
        return tables or {alias}

    def scans(self, statement):
        """Whole readings of tables that grow, and for the latest rows: sortings of what is read whole."""
        lines = queries.plan(self.db, statement, self.values)
        parts = {m.group(1) for _, text in lines if (m := re.match(r"(?:CO-ROUTINE|MATERIALIZE) (\S+)", text))}
        found, scanned = [], {}
        for depth, text in lines:
            scanned = {d: t for d, t in scanned.items() if d <= depth}
            name = m.group(1) if (m := re.match(r"SCAN (\S+)", text)) else None
            if name and name not in parts and not self.tables_called(name) <= SMALL:
                scanned[depth] = text
                if not statement.endswith(LATEST):
                    found.append(text)
            elif text.startswith("USE TEMP B-TREE FOR ORDER BY") and depth in scanned:
                found.append(f"{scanned[depth]}, sorted")
        return found

    def work(self, statement):
        """How many hundred instructions it takes, given up at the limit."""
        done = 0

        def count():
            nonlocal done
            done += 100
            return done > WORK_MAX
        self.db.set_progress_handler(count, 100)
        with contextlib.suppress(queries.sqlite3.OperationalError):  # interrupted
            self.db.execute(statement, self.values).fetchall()
        self.db.set_progress_handler(None, 0)
        return done

    def hold(self, statement):
        with self.subTest(statement):
            self.assertEqual(self.scans(statement), [])
            if statement.endswith(LATEST):
                self.assertLess(self.work(statement), WORK_MAX, "instructions for a hundred rows")

    def test_the_store_holds_enough_to_tell(self):
        kinds = {k for k, in self.db.execute("SELECT DISTINCT kind FROM events")}
        self.assertEqual(kinds, {"created", "paused", "resumed", "killed", "code_executed"})
        for view, least in (("events", 0.9 * EVENTS), ("sandboxes", EVENTS / 12), ("runs", EVENTS / 6),
                            ("executions", EVENTS / 3), ("failed_executions", EVENTS / 50), ("running", 100),
                            ("template_stats", 30)):
            with self.subTest(view):
                self.assertGreater(self.db.execute(f"SELECT count(*) FROM {view}").fetchone()[0], least)
        everything = "SELECT * FROM events WHERE payload LIKE '%ZeroDivisionError%'"
        self.assertNotEqual(self.scans(everything), [])
        self.assertGreater(self.work(f"{everything} {LATEST}"), WORK_MAX)

    def test_filters_use_indexes_on_every_view(self):
        for view, columns in self.columns.items():
            for column in FILTERS.keys() & columns:
                self.hold(f"SELECT * FROM {view} WHERE {column} {FILTERS[column]}")

    def test_the_latest_of_every_view_are_found_without_looking_at_all(self):
        for view, columns in self.columns.items():
            for order in {"time", "seq"} & set(columns):
                self.hold(f"SELECT * FROM {view} ORDER BY {order} DESC {LATEST}")

    def test_the_latest_of_a_sandbox_run_or_template_are_found_without_looking_at_all(self):
        for view, columns in self.columns.items():
            for column in FILTERS.keys() & set(columns) - {"time"} if "time" in columns else ():
                self.hold(f"SELECT * FROM {view} WHERE {column} {FILTERS[column]} ORDER BY time DESC {LATEST}")

    def test_what_is_new_is_found_by_seq(self):
        self.hold("SELECT * FROM events WHERE seq > 19000 ORDER BY seq")

    def test_dashboards_use_indexes(self):
        for _, _, statement in queries.DASHBOARD:
            self.hold(statement)

    def test_the_queries_of_the_documentation_use_indexes(self):
        statements = []
        for page in sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]):
            for block in re.findall(r"^```sql\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
                statements += [s.strip() for s in block.split(";") if s.strip()]
        self.assertGreater(len(statements), 3)
        for statement in statements:
            self.hold(self.of_the_last_day(statement))

    def test_the_panels_of_the_grafana_dashboard_use_indexes(self):
        variables = [v["query"] for v in dashboard.read()["templating"]["list"] if v["type"] == "query"]
        for statement in [sql for _, sql in dashboard.panels()] + variables:
            self.hold(self.of_the_last_day(statement))
            self.hold(self.of_the_last_day(statement, f"'{self.values['template']}', 'it''s none'"))

    def of_the_last_day(self, statement, *templates):
        """Grafana's variables filled in, if there are any."""
        end = self.values["hours24"] + 86400
        return dashboard.fill(statement, end - 86400, end, *templates)
