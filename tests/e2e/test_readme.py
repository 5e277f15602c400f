"""Goal: what README.md shows works as it stands there.

Fenced blocks whose preceding line is `<!-- test: NAME -->` are taken from the file and used against a daemon: the example
configuration with its paths moved, the functions by which executors report, and every query of the section Query.
"""
import os
import re
import subprocess
import sys
import unittest

from harness import EXECUTOR_SECRET, ROOT, SECRET, Case, event, execution

README = ROOT / "README.md"


def block(name):
    found = re.findall(rf"<!-- test: {name} -->\s*\n```\w+\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"README.md has {len(found)} blocks marked <!-- test: {name} -->"
    return found[0]


@unittest.skipUnless(README.exists(), "there is no README.md yet")
class Readme(Case):
    def setUp(self):
        super().setUp()
        text = block("config").replace("/etc/e2b-hookd", str(self.home.path)).replace("127.0.0.1:8787", "127.0.0.1:0")
        self.home.config.write_text(text.replace("/var/lib/e2b-hookd", str(self.home.path)) + "[admin]\nlisten =\n")
        self.home.secret_file("e2b", [SECRET])
        self.home.secret_file("executors", [EXECUTOR_SECRET])
        self.daemon = self.start()
        self.url = f"http://{self.daemon.address}/webhooks/executors"

    def test_the_configuration_filters_as_it_is_said_to(self):
        for template, outcome in (("tta-ml-x", "stored"), ("tta-ml-minimal", "stored"), ("k3v9x2m7q1w8e5r4t6y0", "stored"),
                                  ("other", "filtered")):
            self.assert_outcome(self.daemon.post(event(sandbox_template_id=template)), outcome, template)
        self.assert_outcome(self.daemon.post_executor(execution()), "stored")
        self.assert_outcome(self.daemon.post_executor(event("killed")), "filtered")

    def judge(self, run):
        """Two reports were made: a good run and a failed one, at the price of the example's template."""
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.home.wait_folded()
        rows = self.home.query("SELECT sandbox_id, failed, duration_ms, source, template FROM executions ORDER BY duration_ms")
        self.assertEqual([tuple(r.values()) for r in rows], [("s1", 0, 1250, "executors", "tta-ml-minimal"),
                                                            ("s1", 1, 1251, "executors", "tta-ml-minimal")])
        self.assertEqual((self.count("quarantine"), self.count("rejections")), (0, 0))

    def test_an_executor_reports_in_python(self):
        use = (f"for ms, error in ((1250, None), (1251, {{'name': 'ZeroDivisionError', 'value': 'division by zero'}})):\n"
               f"    assert report({self.url!r}, {EXECUTOR_SECRET!r}, 's1', 'k3v9x2m7q1w8e5r4t6y0', ms, error) == 'stored'\n")
        self.judge(subprocess.run([sys.executable, "-"], input=block("executor-python") + use, text=True, capture_output=True,
                                  timeout=30, check=False))
        self.assertEqual(self.count("failed_executions", "error_name = 'ZeroDivisionError'"), 1)

    def test_an_executor_reports_in_shell(self):
        use = "".join(f"report {self.url} {self.home.path}/executors.secret s1 k3v9x2m7q1w8e5r4t6y0 {ms} {code}\n"
                      for ms, code in ((1250, 0), (1251, 127)))
        run = subprocess.run(["sh", "-eu"], input=block("executor-shell") + use, text=True, capture_output=True, timeout=30,
                             check=False)
        self.judge(run)
        self.assertEqual(run.stdout.count("stored"), 2)
        self.assertEqual(self.count("failed_executions", "exit_code = 127"), 1)

    def test_every_query_of_it_answers(self):
        self.assert_outcome(self.daemon.post(event(sandbox_template_id="tta-ml-minimal")), "stored")
        self.home.wait_folded()
        section = README.read_text().split("\n## Query\n")[1].split("\n## ")[0]
        queries = re.findall(r"^sqlite3 .*$", section, re.MULTILINE)
        self.assertGreaterEqual(len(queries), 2)
        for query in queries:
            command = query.replace("/var/lib/e2b-hookd", str(self.home.path))
            run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, env=dict(os.environ),
                                 check=False)
            self.assertEqual((run.returncode, run.stderr), (0, ""), query)
            self.assertIn("tta-ml-minimal", run.stdout, query)
