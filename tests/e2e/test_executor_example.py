"""Goal: docs/examples/e2b_executor.py reports real successes, errors and timeouts so that templates can be compared, and
nothing of reporting reaches the executor's work; docs/executors.md shows bodies and queries that work as they stand.
"""
import contextlib
import hashlib
import hmac
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time

from harness import EXECUTOR_SECRET, EXECUTOR_SOURCE, ROOT, SOURCES, Case, event, rfc3339, until

EXAMPLES = ROOT / "docs/examples"
PAGE = (ROOT / "docs/executors.md").read_text()
sys.path.insert(0, str(EXAMPLES))
import e2b_executor  # noqa: E402
from fake_sandbox import FakeSandbox  # noqa: E402

GOOD_ID, SLOW_ID = "g00dg00dg00dg00dg00d", "s10ws10ws10ws10ws10w"
TEMPLATES = (f"[template {GOOD_ID}]\nalias = tta-ml-minimal\nvcpu = 2\nmemory_mb = 512\n"
             f"[template {SLOW_ID}]\nalias = tta-ml-full\nvcpu = 4\nmemory_mb = 4096\n")
PROGRAMS = {
    "good.py": "print(sum(range(1000)))\n",
    "wrong.py": "import json\nprint(json.loads('{') )\n",
    "missing.py": "import a_module_that_this_template_lacks\n",
    "endless.py": "import threading\nthreading.Event().wait()\n",
    # What makes a template slow to start: here a second interpreter, with half of the library.
    "setup.py": "import subprocess, sys\nfor _ in range(3):\n"
                "    subprocess.run([sys.executable, '-c', 'import asyncio, unittest, xml.dom.minidom'], check=True)\n",
}
SDK = '''
class TimeoutException(Exception):
    pass
'''
SANDBOX = '''
import time, types
from e2b import TimeoutException

class Sandbox:
    """The surface of e2b_code_interpreter.Sandbox, with its ways to fail."""
    @classmethod
    def create(cls, template=None, timeout=None, metadata=None):
        self = cls()
        self.sandbox_id = "iabcdefghij0123456789-6532622b"
        return self
    def get_info(self):
        return types.SimpleNamespace(template_id="%s", cpu_count=8, memory_mb=2048)
    def run_code(self, code, language=None, timeout=None):
        if "killed" in code:
            raise Exception("The sandbox was killed while the request was in progress.")
        if "late" in code:
            time.sleep(timeout)
            raise TimeoutException("Execution timed out")
        if "unreachable" in code:
            raise TimeoutException("Request timed out")
        return types.SimpleNamespace(error=types.SimpleNamespace(
            name="NameError", value="\\x1b[0;31mname 'x' is not defined\\x1b[0m", traceback="x = SECRET"))
    def kill(self):
        pass
''' % GOOD_ID


def block(name):
    return re.search(rf"<!-- tested: {name} -->\s*\n```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE).group(1)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers what the test wrote on its list: a status, or None to hang up; keeps what came."""
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((self.path, dict(self.headers), body))
        status = self.server.answers.pop(0)
        if status is None:
            self.close_connection = True
            return
        answer = b'{"status":"stored","event_id":"x"}' if status == 200 else b"{}"
        self.send_response(status)
        self.send_header("location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def receiver(*answers):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.came, server.answers = [], list(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class ExecutorCase(Case):
    def setUp(self):
        super().setUp()
        for name, text in PROGRAMS.items():
            self.home.write(name, text)
        self.secret_file = self.home.secret_file("executors", [EXECUTOR_SECRET])

    def begin(self):
        executors = {**EXECUTOR_SOURCE, "events": "created, code_executed"}
        self.daemon = self.start(sources={**SOURCES, "executors": executors}, extra=TEMPLATES)
        self.url = f"http://{self.daemon.address}/webhooks/executors"

    def execute(self, *arguments, code=0, environment=None):
        """Runs the example as a user does; its output."""
        command = [sys.executable, str(EXAMPLES / "e2b_executor.py"), *map(str, arguments)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.home.path,
                             env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})})
        self.assertEqual(run.returncode, code, f"{run.stdout}\n{run.stderr}")
        self.assertNotIn(EXECUTOR_SECRET, run.stdout + run.stderr)
        self.assertNotIn("Traceback", run.stderr)
        return run.stdout + run.stderr

    def execute_fake(self, template, *arguments, code=0):
        return self.execute("--template", template, "--url", self.url, "--secret-file", self.secret_file, "--fake",
                            *arguments, code=code)


class Comparison(ExecutorCase):
    def work(self):
        """Two templates: on one all goes well, the other is slow to start and its programs fail."""
        for _ in range(2):
            self.execute_fake("tta-ml-minimal", "good.py")
        self.said = self.execute_fake("tta-ml-full", "--fake-setup", "setup.py", "--timeout", "3", "endless.py",
                                      "missing.py", "good.py")
        self.execute_fake("tta-ml-full", "--fake-setup", "setup.py", "--attempts", "1", "wrong.py", "good.py", code=1)
        self.home.wait_folded()

    def judge_reports(self):
        """Successes, errors and timeouts are reported as they were."""
        self.assertIn("reports: 5 stored", self.said)
        rows = self.home.query("SELECT * FROM executions WHERE template = 'tta-ml-full' ORDER BY time, started_at")
        shown = ("attempt", "final", "status", "failed", "exit_code", "error_name")
        self.assertEqual([tuple(x[key] for key in shown) for x in rows],
                         [(1, 0, "timeout", 1, None, "TimeoutError"), (2, 0, "error", 1, 1, "ModuleNotFoundError"),
                          (3, 1, "success", 0, 0, None), (1, 1, "error", 1, 1, "JSONDecodeError")])
        self.assertEqual(rows[1]["error_value"], "No module named 'a_module_that_this_template_lacks'")
        self.assertGreaterEqual(rows[0]["duration_ms"], 3000)
        self.assertLess(max(x["duration_ms"] for x in rows[1:]), 3000)
        self.assertEqual({(x["language"], x["execution_kind"], x["source"]) for x in rows},
                         {("python", "code", "executors")})
        self.assertEqual(len({x["sandbox_id"] for x in rows}), 3, "a program that timed out may still run: a new sandbox")
        self.assertEqual(self.count("failed_executions"), 3)
        self.assertEqual((self.count("quarantine"), self.count("rejections")), (0, 0))
        self.assertEqual(self.count("events", "payload LIKE '%import a_module%'"), 0,
                         "the program itself is not reported")

    def end_sandboxes(self):
        """What E2B itself reports of each sandbox: a run with an id, a size and a time."""
        for row in self.home.query("SELECT sandbox_id, template_id, time FROM sandboxes"):
            run = event()["sandbox_execution_id"]
            begun = row["time"] - 1
            size = {"vcpu_count": 2, "memory_mb": 512} if row["template_id"] == GOOD_ID else \
                {"vcpu_count": 4, "memory_mb": 4096}
            for kind, at, data in (("created", begun, {}), ("killed", begun + 60, {
                    "kill_reason": "request",
                    "execution": {"started_at": rfc3339(begun), "execution_time": 60000, **size}})):
                body = event(kind, data, sandbox_id=row["sandbox_id"], sandbox_template_id=row["template_id"],
                             sandbox_execution_id=run, timestamp=rfc3339(at))
                self.assert_outcome(self.daemon.post(body), "stored")
        self.home.wait_folded()

    def test_two_templates_can_be_compared_with_the_queries_of_the_page(self):
        self.begin()
        self.work()
        self.judge_reports()
        startups = {x["template"]: x for x in self.home.query(
            "SELECT template, count(*) AS n, min(startup_ms) AS least, max(startup_ms) AS most FROM sandboxes "
            "GROUP BY template")}
        self.assertEqual((startups["tta-ml-minimal"]["n"], startups["tta-ml-full"]["n"]), (2, 3))
        self.assertGreater(startups["tta-ml-minimal"]["least"], 0)

        self.end_sandboxes()
        sandboxes = self.home.query("SELECT * FROM sandboxes")
        self.assertEqual({(x["runs"], x["state"]) for x in sandboxes}, {(1, "killed")}, "a report opens no second run")
        self.assertEqual(self.count("executions", "run_id IN (SELECT run_id FROM runs WHERE cost_source = 'reported')"), 6,
                         "an execution belongs to the run that E2B named")

        answers = {name: {x["template"]: x for x in self.home.shell(block(name))}
                   for name in ("startup", "durations", "failures", "cost", "stats")}
        for name, rows in answers.items():
            self.assertEqual(set(rows), {"tta-ml-minimal", "tta-ml-full"}, name)
        good, slow = ({name: rows[t] for name, rows in answers.items()} for t in ("tta-ml-minimal", "tta-ml-full"))

        self.assertEqual((good["startup"]["startups"], slow["startup"]["startups"]), (2, 3))
        self.assertGreater(slow["startup"]["mean_ms"], good["startup"]["mean_ms"])
        self.assertEqual(slow["startup"]["slowest_ms"], startups["tta-ml-full"]["most"])
        self.assertEqual((good["durations"]["executions"], slow["durations"]["executions"]), (2, 4))
        self.assertGreaterEqual(slow["durations"]["p95_ms"], 3000)
        self.assertLess(good["durations"]["p95_ms"], 3000)
        self.assertEqual((good["failures"]["failure_rate"], slow["failures"]["failure_rate"]), (0, 0.75))
        self.assertEqual((slow["failures"]["first_attempt_failure_rate"], slow["failures"]["given_up"],
                          slow["failures"]["timeouts"]), (1.0, 1, 1))
        # 60 s of 2 vCPU and 0.5 GiB, an execution in each; 60 s of 4 vCPU and 4 GiB three times for four executions
        self.assertAlmostEqual(good["cost"]["usd_per_execution"], 60 * (2 * 0.000014 + 0.5 * 0.0000045), 9)
        self.assertAlmostEqual(slow["cost"]["usd_per_execution"], 60 * (4 * 0.000014 + 4 * 0.0000045) * 3 / 4, 9)
        self.assertLess(0, good["cost"]["usd_attributed"])
        self.assertLess(good["cost"]["usd_attributed"], slow["cost"]["usd_attributed"])
        self.assertEqual((good["cost"]["unknown_cost"], slow["cost"]["unknown_cost"]), (0, 0))
        self.assertEqual((good["stats"]["sandboxes"], slow["stats"]["sandboxes"]), (2, 3))
        self.assertEqual((good["stats"]["failure_rate"], slow["stats"]["failure_rate"]), (0, 0.75))
        self.assertAlmostEqual(slow["stats"]["mean_startup_ms"], slow["startup"]["mean_ms"], delta=1)
        self.assertAlmostEqual(slow["stats"]["mean_duration_ms"], slow["durations"]["mean_ms"], delta=1)

        errors = self.home.shell(block("errors"))
        self.assertEqual({(x["template"], x["error_name"], x["times"]) for x in errors},
                         {("tta-ml-full", name, 1) for name in ("TimeoutError", "ModuleNotFoundError", "JSONDecodeError")})
        hours = self.home.shell(block("hourly"))
        self.assertEqual(sum(x["executions"] for x in hours), 6)
        self.assertTrue(all(0 <= x["started_within_300_ms"] <= 1 for x in hours if x["started_within_300_ms"] is not None))

    def test_the_queries_of_the_page_scan_no_table_of_the_ledger(self):
        self.begin()
        self.home.wait_folded()
        names = re.findall(r"<!-- tested: ([\w-]+) -->\s*\n```sql", PAGE)
        self.assertEqual(len(names), 7)
        self.assertEqual(len(names), PAGE.count("```sql"), "a query of the page is not tested")
        for name in names:
            for step in self.home.query("EXPLAIN QUERY PLAN " + block(name)):
                # `t` is template_total, a row a template; names of several letters are parts of the query itself
                self.assertNotRegex(step["detail"], r"^SCAN [a-su-z]\b", name)


class Page(ExecutorCase):
    def example(self):
        body = json.loads(block("execution"))
        body["timestamp"] = rfc3339(time.time())
        return body

    def test_shows_a_body_that_is_stored_with_every_field(self):
        self.begin()
        self.assert_outcome(self.daemon.post_executor(self.example()), "stored")
        self.home.wait_folded()
        row = self.home.query("SELECT * FROM executions")[0]
        sent = self.example()["event_data"]["code_execution"]
        error = sent.pop("error")
        expected = {"started_at": sent["started_at"], "finished_at": sent["finished_at"], "execution_kind": sent.pop("kind"),
                    "error_name": error["name"], "error_value": error["value"], "failed": 1, "final": 0,
                    "attributed_cost_usd": float(sent.pop("cost")["amount"]), "template": "tta-ml-minimal",
                    "template_id": GOOD_ID, "cost_source": "reported"}
        for key in ("execution_id", "language", "duration_ms", "status", "exit_code", "attempt", "vcpu_count", "memory_mb"):
            expected[key] = sent[key]
        self.assertEqual({key: row[key] for key in expected}, expected)
        self.assertEqual(json.loads(self.home.value("SELECT metadata FROM sandboxes")), {"job": "nightly"})

    def test_says_rightly_which_fields_are_required(self):
        """Every field of the tables is taken out once: what is required is missed, the rest is not."""
        self.begin()
        rows = re.findall(r"^\| `(\w+)` \| (required|advised|optional) \|", PAGE, re.MULTILINE)
        self.assertGreater(len(rows), 20)
        inner = self.example()["event_data"]["code_execution"]
        self.assertLessEqual(set(inner) | (set(self.example()) - {"event_data"}), {name for name, _ in rows})
        for name, need in rows:
            body = self.example()
            inner = body["event_data"]["code_execution"]
            body["id"], inner["execution_id"] = event()["id"], event()["id"]
            (inner if name in inner else body).pop(name, None)
            self.assert_outcome(self.daemon.post_executor(body), "quarantined" if need == "required" else "stored", name)
        self.assertEqual({x["reason"] for x in self.home.query("SELECT reason FROM quarantine")}, {"missing_field"})


class Sdk(ExecutorCase):
    def test_the_sdk_s_ways_to_fail_are_told_apart(self):
        self.begin()
        self.home.write("e2b.py", SDK)
        self.home.write("e2b_code_interpreter.py", SANDBOX)
        for name in ("late", "killed", "unreachable", "error"):
            self.home.write(f"{name}.py", f"# {name}\n")
        out = self.execute("--template", "tta-ml-minimal", "--url", self.url, "--attempts", 4, "--timeout", "0.2", "late.py",
                           "killed.py", "unreachable.py", "error.py", code=1,
                           environment={"PYTHONPATH": str(self.home.path), "E2B_HOOKD_SECRET_FILE": str(self.secret_file)})
        self.assertNotIn("\x1b", out)
        self.home.wait_folded()
        rows = self.home.query("SELECT * FROM executions ORDER BY attempt")
        self.assertEqual([(x["status"], x["exit_code"], x["error_name"], x["final"]) for x in rows],
                         [("timeout", None, "TimeoutException", 0), ("killed", None, "Exception", 0),
                          ("killed", None, "TimeoutException", 0), ("error", 1, "NameError", 1)])
        self.assertEqual(rows[3]["error_value"], "name 'x' is not defined", "without the colours of Jupyter")
        self.assertEqual({(x["sandbox_id"], x["template_id"], x["vcpu_count"], x["memory_mb"]) for x in rows},
                         {("iabcdefghij0123456789", GOOD_ID, 8, 2048)}, "the id as E2B's webhooks have it, size as E2B says")
        self.assertEqual(self.count("events", "payload LIKE '%SECRET%'"), 0, "the traceback is not reported")

    def test_without_the_sdk_nothing_runs_on_this_machine_unasked(self):
        self.home.write("e2b.py", "raise ImportError\n")
        out = self.execute("--template", "t", "--url", "http://127.0.0.1:9/", "--secret-file", self.secret_file, "good.py",
                           code=2, environment={"PYTHONPATH": str(self.home.path)})
        self.assertIn("--fake", out)


class Reporting(ExecutorCase):
    BOX = e2b_executor.Box("iabcdefghij0123456789", "tta-ml-minimal")

    def reporter(self, url, **options):
        return e2b_executor.Reporter(url, self.secret_file, **{"wait_s": 0.01, "timeout_s": 5, **options})

    def deliver(self, *answers, **options):
        """One report to a receiver that answers so: what came to it, and the outcomes."""
        with receiver(*answers) as server, self.assertLogs("e2b_executor") as logs:
            e2b_executor.log.warning("so that there is one")
            reporter = self.reporter(f"http://127.0.0.1:{server.server_port}/hook", **options)
            reporter.report("sandbox.created", self.BOX, {"startup_ms": 150})
            outcomes = reporter.close(20)
        self.assertNotIn(EXECUTOR_SECRET, "".join(logs.output))
        self.assertNotIn(self.BOX.id, "".join(logs.output))
        return server.came, outcomes

    def test_a_retry_sends_the_same_bytes_and_counts_once(self):
        came, outcomes = self.deliver(503, None, 200)
        self.assertEqual((len(came), outcomes), (3, {"stored": 1}))
        self.assertEqual({body for _, _, body in came}, {came[0][2]})
        self.begin()
        got = []
        for _, headers, body in came:
            self.assertEqual(headers["x-signature-256"],
                             "sha256=" + hmac.new(EXECUTOR_SECRET.encode(), body, hashlib.sha256).hexdigest())
            got.append(self.daemon.request("POST", "/webhooks/executors", body, headers).outcome)
        self.assertEqual(got, ["stored", "duplicate", "duplicate"])
        self.home.wait_folded()
        self.assertEqual(self.home.query("SELECT sandbox_id, startup_ms, template FROM sandboxes"), [
            {"sandbox_id": self.BOX.id, "startup_ms": 150, "template": "tta-ml-minimal"}])

    def test_it_tries_four_times_and_not_at_all_again_where_that_is_vain(self):
        for answers, tries in (((500, 502, 503, 504, 200), 4), ((None,) * 5, 4), ((401, 200), 1), ((404, 200), 1),
                               ((413, 200), 1), ((302, 200), 1)):
            with self.subTest(answers):
                came, outcomes = self.deliver(*answers)
                self.assertEqual((len(came), outcomes), (tries, {"lost": 1}))
        came, outcomes = self.deliver(429, 408, 200)
        self.assertEqual((len(came), outcomes), (3, {"stored": 1}))

    def test_an_answer_that_stores_nothing_is_told(self):
        self.begin()
        with self.assertLogs("e2b_executor") as logs:
            reporter = self.reporter(self.url)
            reporter.report("sandbox.lifecycle.killed", self.BOX, {})
            reporter.report("sandbox.created", self.BOX, {"startup_ms": "soon"})
            self.assertEqual(reporter.close(20), {"filtered": 1, "quarantined": 1})
        self.assertEqual(len(logs.output), 2)

    def test_the_work_goes_on_whatever_becomes_of_its_reports(self):
        with receiver() as gone:
            url = f"http://127.0.0.1:{gone.server_port}/"
        with self.assertLogs("e2b_executor"):
            reporter = self.reporter(url, tries=2)
            executor = e2b_executor.Executor("tta-ml-minimal", FakeSandbox, reporter, 20, metadata={"bad": object()})
            asked = []
            outcome = executor.run("1 / 0", lambda n, was: asked.append((n, was.error["name"])) or "print(1 + 1)")
            self.secret_file.write_text("")
            reporter.report("sandbox.created", self.BOX, {})
            outcomes = reporter.close(20)
        self.assertEqual((outcome.status, outcome.execution.logs.stdout), ("success", ["2\n"]))
        self.assertEqual(asked, [(1, "ZeroDivisionError")])
        self.assertEqual(outcomes, {"lost": 4})

    def test_closing_does_not_wait_for_ever(self):
        with receiver(503) as server, self.assertNoLogs("e2b_executor"):
            reporter = self.reporter(f"http://127.0.0.1:{server.server_port}/", wait_s=3600)
            for _ in range(3):
                reporter.report("sandbox.created", self.BOX, {})
            until(lambda: server.came, "the first try")
            begun = time.monotonic()
            self.assertEqual(reporter.close(0.05), {"unsent": 3})
            self.assertLess(time.monotonic() - begun, 5)

    def test_a_fix_that_raises_hides_no_failure(self):
        def fix(attempt, outcome):
            raise RuntimeError("the model is overloaded")
        with receiver(200, 200) as server:
            reporter = self.reporter(f"http://127.0.0.1:{server.server_port}/")
            with self.assertRaisesRegex(RuntimeError, "overloaded"):
                e2b_executor.Executor("t", FakeSandbox, reporter, 20).run("1 / 0", fix)
            self.assertEqual(reporter.close(20), {"stored": 2})
        sent = json.loads(server.came[1][2])["event_data"]["code_execution"]
        self.assertEqual((sent["error"]["name"], sent["attempt"], sent["final"]), ("ZeroDivisionError", 1, True))

    def test_a_rotated_secret_is_taken_from_the_file(self):
        new = "the-next-secret-of-the-executors-0123456789"
        with receiver(200, 200) as server:
            reporter = self.reporter(f"http://127.0.0.1:{server.server_port}/")
            reporter.report("sandbox.created", self.BOX, {})
            until(lambda: reporter.outcomes["stored"] == 1, "the first report")
            self.secret_file.write_text(f"\ufeff\n  {new}\r\n{EXECUTOR_SECRET}\n")
            reporter.report("sandbox.created", self.BOX, {})
            self.assertEqual(reporter.close(20), {"stored": 2})
        for secret, (_, headers, body) in zip((EXECUTOR_SECRET, new), server.came):
            self.assertEqual(headers["x-signature-256"],
                             "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest())

    def test_without_a_secret_it_does_not_begin(self):
        empty = self.home.write("empty", "\n \n")
        for arguments, word in ((("--secret-file", empty), "no secret"), (("--secret-file", "nowhere"), "nowhere"),
                                ((), "--secret-file")):
            out = self.execute("--template", "t", "--url", "http://127.0.0.1:9/", "--fake", "good.py", *arguments, code=2)
            self.assertIn(word, out)


class Fake(ExecutorCase):
    def test_a_sandbox_runs_what_it_is_given_and_leaves_nothing_behind(self):
        sandbox = FakeSandbox.create(template="t")
        folder = sandbox.folder
        self.assertEqual(sandbox.run_code("print('ö')").logs.stdout, ["ö\n"])
        died = sandbox.run_code("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        self.assertEqual(died.error.name, "UnexpectedEndOfExecution")
        self.assertIsNone(sandbox.run_code("pass").error, "the failure before is forgotten")
        self.assertIn("ZeroDivisionError", sandbox.run_code("1 / 0").error.traceback)
        self.assertRaises(TimeoutError, sandbox.run_code, "while True:\n    pass", timeout=0.5)
        sandbox.kill()
        self.assertFalse(folder.exists())
