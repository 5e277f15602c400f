"""Goal: Debian's Prometheus, configured as docs/prometheus says, scrapes a live daemon, finds the figures that were delivered and
everything that the rules ask for; and the rules fire when they should (promtool runs their own tests).
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest
import urllib.parse

from harness import ROOT, Case, event, execution, until

EXAMPLES = ROOT / "docs/prometheus"
RULES = EXAMPLES / "e2b-hookd.rules.yml"
TESTS = [EXAMPLES / "e2b-hookd.test.yml", EXAMPLES / "e2b-hookd-slow.test.yml"]
missing = [name for name in ("prometheus", "promtool") if not shutil.which(name)]
needs_prometheus = unittest.skipIf(missing, f"{', '.join(missing)} not installed (apt-get install prometheus)")


def alerts():
    """Name and text of each rule."""
    parts = re.split(r"^      - alert: (\w+)\n", RULES.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2]))


@needs_prometheus
class Rules(unittest.TestCase):
    def promtool(self, *arguments):
        run = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def test_promtool_accepts_the_rules_and_their_tests_hold(self):
        self.assertIn(f"{len(alerts())} rules found", self.promtool("check", "rules", RULES))
        self.assertEqual(self.promtool("test", "rules", *TESTS).count("SUCCESS"), len(TESTS))

    def test_every_rule_has_a_time_at_which_it_fires_and_one_at_which_it_does_not(self):
        text = "".join(path.read_text() for path in TESTS)
        tested = dict(re.findall(r"^  - name: (E2b\w+)\n(.*?)(?=^  - name: |\Z)", text, re.MULTILINE | re.DOTALL))
        self.assertEqual(set(tested), set(alerts()))
        for name, group in tested.items():
            with self.subTest(name):
                ask = re.escape(f"""expr: 'ALERTS{{alertname="{name}", alertstate="firing"}}'""")
                self.assertRegex(group, ask + r", eval_time: \w+, exp_samples: \[\]")
                self.assertRegex(group, ask + r"\n        eval_time: \w+\n        exp_samples: \[\{labels: 'ALERTS")

    def test_every_rule_says_how_urgent_it_is_and_what_to_do(self):
        for name, text in alerts().items():
            with self.subTest(name):
                self.assertRegex(text, r"severity: (critical|warning|info)\n")
                self.assertRegex(text, r"summary: \S")
                self.assertRegex(text, r"description: >-\n {12}\S.{40}")


@unittest.skipUnless(shutil.which("amtool"), "amtool not installed (apt-get install prometheus-alertmanager)")
class KeptBack(unittest.TestCase):
    def kept_back_by(self, name):
        """Which rules the inhibit_rules of the page keep back while this one fires."""
        page = (EXAMPLES / "README.md").read_text()
        block = re.search(r"^```yaml\n(inhibit_rules:.*?)^```", page, re.MULTILINE | re.DOTALL).group(1)
        kept = set()
        for rule in re.split(r"^  - ", block, flags=re.MULTILINE)[1:]:
            source, target = (re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', re.search(rf"{w}_matchers: \[(.*)\]", rule).group(1))
                              for w in ("source", "target"))
            if source == [("alertname", "=", name)]:
                kept |= {alert for alert, text in alerts().items() if self.matches(target, alert, text)}
        return block, kept

    def matches(self, matchers, alert, text):
        labels = {"alertname": alert, "severity": re.search(r"severity: (\w+)", text).group(1)}
        tests = {"=": lambda a, b: a == b, "!=": lambda a, b: a != b, "=~": lambda a, b: re.fullmatch(b, a) is not None}
        return all(tests[how](labels[label], value) for label, how, value in matchers)

    def test_what_down_and_not_ready_explain_wakes_nobody_a_second_time(self):
        block, kept = self.kept_back_by("E2bHookdDown")
        self.assertEqual(kept, set(alerts()) - {"E2bHookdDown"})
        _, kept = self.kept_back_by("E2bHookdNotReady")
        self.assertNotIn("E2bHookdNotReady", kept)
        self.assertNotIn("E2bHookdDown", kept)
        # Its reasons disk_full, queue_full, commit_failed and ledger_stuck have rules of their own.
        self.assertLessEqual({"E2bHookdDiskLow", "E2bHookdRefusing", "E2bHookdWriteErrors", "E2bHookdLedgerStuck"}, kept)
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write("route: {receiver: r}\nreceivers: [{name: r}]\n" + block)
            file.flush()
            run = subprocess.run(["amtool", "check-config", file.name], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


class Prometheus:
    """A Prometheus of its own: the example with other ports, paths and intervals."""

    def __init__(self, target, *exchanges):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        text = (EXAMPLES / "prometheus.yml").read_text()
        for old, new in (("/etc/prometheus/e2b-hookd.rules.yml", str(RULES)), ("127.0.0.1:8788", target),
                         ("scrape_interval: 15s", "scrape_interval: 500ms\n    scrape_timeout: 500ms"), *exchanges):
            assert text.count(old) == 1, f"{text.count(old)} times in the example: {old!r}"
            text = text.replace(old, new)
        (self.home / "prometheus.yml").write_text("global:\n  evaluation_interval: 200ms\n" + text)
        check = subprocess.run(["promtool", "check", "config", str(self.home / "prometheus.yml")], capture_output=True, text=True,
                               timeout=60)
        assert check.returncode == 0, check.stdout + check.stderr
        with (self.home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.home}/prometheus.yml", f"--storage.tsdb.path={self.home}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home, env={**os.environ, "GOMAXPROCS": "1"})

        def ready():
            assert self.process.poll() is None, (self.home / "log").read_text()
            with contextlib.suppress(OSError):
                return self.get("/-/ready")[0] == 200
        until(ready, "Prometheus to be ready", 30)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)

    def get(self, path):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def api(self, path, **parameters):
        status, body = self.get(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, body
        return json.loads(body)["data"]

    def value(self, expression):
        """The one value of an expression, None if there is none."""
        result = self.api("query", query=expression)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def target(self):
        targets = self.api("targets", state="active")["activeTargets"]
        return targets[0] if targets and targets[0]["health"] != "unknown" else None


@needs_prometheus
class Scraping(Case):
    def watch(self, daemon, *exchanges):
        prometheus = Prometheus(daemon.admin, *exchanges)
        self.addCleanup(prometheus.stop)
        return prometheus

    def test_it_finds_the_figures_that_were_delivered_and_tells_when_the_daemon_is_gone(self):
        daemon = self.start(admin={"listen": "127.0.0.1:0"})
        prometheus = self.watch(daemon)
        self.assertEqual(until(prometheus.target, "a scrape")["health"], "up", prometheus.target())

        body = event()
        for outcome in ("stored", "duplicate"):
            self.assert_outcome(daemon.post(body), outcome)
        for _ in range(5):
            self.assert_outcome(daemon.post(event("killed")), "stored")
        for fields in ({}, {"exit_code": 1, "status": "error"}):
            self.assert_outcome(daemon.post_executor(execution(**fields)), "stored")
        for _ in range(3):
            self.assert_outcome(daemon.post(event(), secret="x" * 40), 401)
        self.home.wait_folded()

        expected = {
            'e2b_hookd_deliveries_total{source="e2b",outcome="stored"}': 6,
            'e2b_hookd_deliveries_total{source="e2b",outcome="duplicate"}': 1,
            'e2b_hookd_deliveries_total{source="e2b",outcome="rejected"}': 3,
            'e2b_hookd_deliveries_total{source="executors",outcome="stored"}': 2,
            'e2b_hookd_deliveries_total{source="executors",outcome="rejected"}': 0,
            'e2b_hookd_rejections_total{source="e2b",reason="signature_wrong"}': 3,
            'e2b_hookd_events_total{kind="killed"}': 5,
            'e2b_hookd_executions_total{status="error"}': 1,
            'e2b_hookd_secret_uses_total{source="e2b",position="1"}': 7,
            "e2b_hookd_event_age_seconds_count": 8,
            "sum(e2b_hookd_template_failed_executions)": 1,
            "e2b_hookd_ready": 1, "e2b_hookd_commit_failures_total": 0, "e2b_hookd_ledger_lag_seconds": 0,
            'up{job="e2b-hookd"}': 1,
        }
        for expression, value in expected.items():
            with self.subTest(expression):
                self.assertEqual(self.awaited(prometheus, expression, value), value)
        self.every_series_of_the_rules_is_there(prometheus)
        self.every_rule_is_evaluated_and_none_fires(prometheus)

        self.stop(daemon)
        until(lambda: prometheus.value('up{job="e2b-hookd"}') == 0, "Prometheus to miss the daemon")
        until(lambda: prometheus.value('ALERTS{alertname="E2bHookdDown"}') == 1, "the alert to be pending")

    def awaited(self, prometheus, expression, value):
        """The value, as soon as a scrape brought it; what there is instead after the deadline."""
        with contextlib.suppress(AssertionError):
            until(lambda: prometheus.value(expression) == value, expression, 5)
        return prometheus.value(expression)

    def every_series_of_the_rules_is_there(self, prometheus):
        stored = set(prometheus.api("label/__name__/values"))
        asked = {name for text in alerts().values() for name in re.findall(r"\b(?:e2b_hookd|process)_\w+", text)}
        self.assertGreater(len(asked), 20)
        self.assertEqual(asked - stored, set())
        # And with every label value that a rule picks out: a series that appears with its first failure has no increase.
        for selector in ('e2b_hookd_rejections_total{reason=~"signature_.*"}', 'e2b_hookd_unavailable_total{reason="stopping"}',
                         'e2b_hookd_unavailable_total{reason="store_failed"}', 'e2b_hookd_unavailable_total{reason="queue_full"}',
                         'e2b_hookd_not_ready{reason="disk_full"}',
                         *(f'e2b_hookd_deliveries_total{{outcome="{o}"}}' for o in ("stored", "duplicate", "filtered", "quarantined"))):
            self.assertGreater(prometheus.value(f"count({selector})") or 0, 0, selector)

    def every_rule_is_evaluated_and_none_fires(self, prometheus):
        def evaluated():
            rules = [r for group in prometheus.api("rules")["groups"] for r in group["rules"]]
            return rules if rules and all(r["health"] != "unknown" for r in rules) else None
        rules = until(evaluated, "the rules to be evaluated")
        self.assertEqual({r["name"] for r in rules}, set(alerts()))
        for rule in rules:
            with self.subTest(rule["name"]):
                self.assertEqual((rule["health"], rule.get("lastError", "")), ("ok", ""))
                self.assertNotEqual(rule["state"], "firing")

    def test_it_brings_the_token_where_one_is_set(self):
        token = self.home.write("token", "a-token-for-the-admin-listener-012345\n")
        self.home.secrets.add(token.read_text().strip())
        daemon = self.start(admin={"listen": "127.0.0.1:0", "token_file": token})
        allowed = self.watch(daemon, ("    #authorization:\n    #  credentials_file: /etc/prometheus/e2b-hookd.token\n",
                                      f"    authorization:\n      credentials_file: {token}\n"))
        self.assertEqual(until(allowed.target, "a scrape")["health"], "up", allowed.target())
        self.assertEqual(self.awaited(allowed, "e2b_hookd_ready", 1), 1)
        refused = until(self.watch(daemon).target, "a scrape")
        self.assertEqual(refused["health"], "down")
        self.assertIn("401", refused["lastError"])
