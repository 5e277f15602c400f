"""Goal: the Grafana dashboard shows the right figures from a live store, its JSON is what Grafana imports, and the queries of
docs/grafana.md are those of its panels. That they use indexes is test_queries' part.
"""
import re
import time
import unittest

import dashboard
from harness import ROOT, Case, encode, event, execution, rfc3339

SIZES = ("[template k3v9x2m7q1w8e5r4t6y0]\nalias = tta-ml-minimal\nvcpu = 2\nmemory_mb = 512\n")
OTHER = "z" * 20


class Dashboard(unittest.TestCase):
    def test_every_panel_has_a_query_of_its_own_and_a_place_of_its_own(self):
        board = dashboard.read()
        cells = set()
        for panel in board["panels"]:
            grid = panel["gridPos"]
            taken = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])}
            with self.subTest(panel["title"]):
                self.assertFalse(cells & taken, "panels overlap")
                self.assertLessEqual(grid["x"] + grid["w"], 24)
                (target,) = panel["targets"]
                self.assertEqual(target["rawQueryText"], target["queryText"])
                self.assertEqual(target["datasource"], {"type": "frser-sqlite-datasource", "uid": "${store}"})
                self.assertEqual(target["queryType"], "time series" if panel["type"] == "timeseries" else "table")
            cells |= taken
        self.assertEqual(len({p["id"] for p in board["panels"]}), len(board["panels"]))
        self.assertEqual([v["name"] for v in board["templating"]["list"]], ["store", "template"])
        self.assertEqual(board["templating"]["list"][1]["allValue"], dashboard.EVERY)

    def test_the_queries_of_the_page_are_panels(self):
        def plain(statement):
            for old in (f"WHERE {dashboard.TEMPLATES}\n", f" AND {dashboard.TEMPLATES}"):
                statement = statement.replace(old, "")
            return " ".join(statement.split())
        panels = {plain(sql) for _, sql in dashboard.panels()}
        blocks = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs/grafana.md").read_text(), re.MULTILINE | re.DOTALL)
        self.assertEqual(len(blocks), 5)
        for block in blocks:
            with self.subTest(block):
                self.assertIn(plain(block), panels)


class Figures(Case):
    def ask(self, title, templates=dashboard.EVERY):
        statement = dict(dashboard.panels())[title]
        return self.home.shell(dashboard.fill(statement, self.begin, self.end, templates))

    def test_panels_show_what_was_delivered(self):
        daemon = self.start(extra=SIZES)
        now = time.time()
        self.begin, self.end = int(now) - 6 * 3600, int(now) + 60

        def killed(ms, **fields):
            data = {"kill_reason": "request", "execution": {"started_at": rfc3339(now - 3600), "vcpu_count": 2, "memory_mb": 512,
                                                             "execution_time": ms}}
            return event("killed", data, timestamp=rfc3339(now - 3600 + ms / 1000), **fields)
        started = event(timestamp=rfc3339(now - 100))
        for body in (killed(1_000_000), killed(500_000, sandbox_template_id=OTHER), started):
            self.assert_outcome(daemon.post(body), "stored")
        for n, fields in enumerate(({}, {}, {}, {"exit_code": 1, "status": "error", "error": {"name": "KeyError", "value": "'x'"}})):
            body = execution(sandbox_id=started["sandbox_id"], sandbox_execution_id=started["sandbox_execution_id"],
                             timestamp=rfc3339(now - 50 + n), **fields)
            self.assert_outcome(daemon.post_executor(encode(body)), "stored")
        self.assert_outcome(daemon.post(event(), secret="x" * 40), 401)
        self.home.wait_folded()

        rate = 2 * 0.000014 + 0.5 * 0.0000045
        everything, minimal = dashboard.EVERY, "'tta-ml-minimal'"
        for title, templates, column, value in (
                ("Cost", everything, "cost_usd", 1500 * rate), ("Cost", minimal, "cost_usd", 1000 * rate),
                ("Running now", everything, "running", 1), ("Running now", f"'{OTHER}'", "running", 0),
                ("Failed executions", everything, "failure_rate", 0.25),
                ("Runs without a known cost", everything, "runs", 0), ("Ledger behind", everything, "lag_s", 0)):
            with self.subTest(title, templates=templates):
                self.assertAlmostEqual(self.ask(title, templates)[0][column], value, 9)
        by_day = self.ask("Cost by template, by day")
        self.assertAlmostEqual(sum(r["usd"] for r in by_day if r["template"] == OTHER), 500 * rate, 9)
        self.assertTrue(all(row["time"] % 86400 == 0 for row in by_day))
        self.assertEqual([(r["error_name"], r["n"]) for r in self.ask("Failures by error")], [("KeyError", 1)])
        (failure,) = self.ask("Latest failures")
        self.assertEqual((failure["template"], failure["exit_code"], failure["sandbox_id"]),
                         ("tta-ml-minimal", 1, started["sandbox_id"]))
        self.assertEqual([r["sandbox_id"] for r in self.ask("Running sandboxes")], [started["sandbox_id"]])
        self.assertEqual(sum(r["failed"] for r in self.ask("Executions")), 1)
        self.assertEqual(sum(r["succeeded"] for r in self.ask("Executions")), 3)
        self.assertEqual([r["reason"] for r in self.ask("Rejected deliveries")], ["signature_wrong"])
        for title, _ in dashboard.panels():
            with self.subTest(title):
                self.ask(title, f"{minimal}, 'it''s none'")
