"""Goal: e2b-hookctl answers from a living store as CONTRACT.md 1 says: the views in json and csv, newest first; what it
sends arrives; what it says about a signature is right; and no secret ever leaves it.
"""
import base64
import contextlib
import csv
import io
import json
import sqlite3
import subprocess
import time

from harness import (DELIVERIES, DELIVERY_SECRET, E2B_SOURCE, EXECUTOR_SECRET, HOOKCTL, SECRET, Case, encode, event, execution,
                     rfc3339, sign_e2b, sign_hmac, until)
from test_deliveries import Views

READERS = {"events": "events", "executions": "executions", "failures": "failed_executions", "sandboxes": "sandboxes",
           "runs": "runs", "quarantine": "quarantine", "rejections": "rejections"}


class Reading(Case):
    def setUp(self):
        super().setUp()
        self.daemon = self.start()
        now = time.time()
        report = {"started_at": rfc3339(now - 7000), "execution_time": 1000, "vcpu_count": 2, "memory_mb": 512}
        self.bodies = [event("created", timestamp=rfc3339(now - 7200), sandbox_id="s1", sandbox_execution_id="r1"),
                       event("killed", {"execution": report, "kill_reason": "request"}, timestamp=rfc3339(now - 3600),
                             sandbox_id="s1", sandbox_execution_id="r1"),
                       event("created", timestamp=rfc3339(now - 10), sandbox_id="s2", sandbox_template_id="other"),
                       execution(timestamp=rfc3339(now - 5), sandbox_id="s2", status="error", exit_code=3,
                                 error={"name": "E\x1b[31m", "value": 'a "quoted", value\nwith lines', "traceback": ""})]
        for body in self.bodies:
            self.assert_outcome(self.daemon.post(body), "stored")
        self.daemon.post(event(timestamp="never"))
        self.daemon.request("POST", "/webhooks/e2b", b"{}")

    def rows(self, *arguments):
        return json.loads(self.ctl(*arguments, "--format", "json"))

    def test_every_view_comes_in_json_with_its_columns_and_the_same_rows(self):
        self.home.wait_folded()
        for command, view in READERS.items():
            with self.subTest(command):
                rows = self.rows(command)
                order = "id" if view in ("quarantine", "rejections") else "time"
                expect = self.home.query(f"SELECT * FROM {view} ORDER BY {order} DESC")
                self.assertEqual(rows, expect)
                self.assertTrue(rows)
                self.assertEqual(list(rows[0]), Views.COLUMNS[view].split())

    def test_not_a_terminal_means_csv_that_survives_any_text(self):
        self.home.wait_folded()
        text = self.ctl("failures")
        self.assertEqual(text, self.ctl("failures", "--format", "csv"))
        table = list(csv.reader(io.StringIO(text, newline="")))
        self.assertEqual(table[0], Views.COLUMNS["executions"].split())
        row = dict(zip(table[0], table[1]))
        self.assertEqual((row["error_value"], row["exit_code"]), ('a "quoted", value\nwith lines', "3"))
        self.assertEqual(len(table), 2)

    def test_a_table_shows_no_control_character(self):
        text = self.ctl("failures", "--format", "table")
        self.assertIn("E", text)
        self.assertFalse([c for c in text if ord(c) < 32 and c != "\n"], repr(text))

    def test_what_was_just_stored_is_seen(self):
        for n in range(5):
            self.assert_outcome(self.daemon.post(event(sandbox_id=f"new{n}")), "stored")
            self.assertEqual([r["sandbox_id"] for r in self.rows("sandboxes", "--sandbox", f"new{n}")], [f"new{n}"])

    def test_options_choose(self):
        ids = [b["id"] for b in self.bodies]

        def events(*arguments):
            return [r["event_id"] for r in self.rows("events", *arguments)]
        self.assertEqual(events(), ids[::-1])
        self.assertEqual(events("--limit", 2), ids[:1:-1])
        self.assertEqual(events("--sandbox", "s1"), ids[1::-1])
        self.assertEqual(events("--type", "killed"), [ids[1]])
        self.assertEqual(events("--type", "sandbox.code_executed"), [ids[3]])
        self.assertEqual(events("--template", "other"), [ids[2]])
        self.assertEqual(events("--since", "90m"), ids[:0:-1])
        self.assertEqual(events("--since", rfc3339(time.time() - 60)), ids[:1:-1])
        self.assertEqual(events("--since", "3h", "--until", rfc3339(time.time() - 60)), ids[1::-1])
        self.assertEqual(events("--sandbox", "none"), [])
        self.assertEqual(self.ctl("events", "--sandbox", "none", "--format", "json").strip(), "[]")
        self.assertEqual(self.ctl("events", "--sandbox", "none").strip(), ",".join(Views.COLUMNS["events"].split()))

    def test_a_source_that_never_was_is_refused_and_one_that_was_is_not(self):
        for command in ("events", "executions", "rejections", "costs", "tail"):
            self.assertEqual(self.ctl(command, "--source", "e2bb", code=2), "", command)
            self.assertIn("no [source e2bb]", self.ctl_stderr)
            self.assertIn("Did you mean e2b?", self.ctl_stderr)
        self.assertEqual(self.rows("events", "--source", "executors"), [])
        self.stop(self.daemon)
        self.home.configure(sources={"other": {**E2B_SOURCE, "path": "/webhooks/other"}})
        self.assertEqual(len(self.rows("events", "--source", "e2b")), 4)
        self.assertEqual(self.rows("events", "--source", "other"), [])

    def test_reading_needs_neither_secret_nor_daemon(self):
        self.home.wait_folded()
        before = self.rows("runs")
        self.stop(self.daemon)
        (self.home.path / "e2b.secret").unlink()
        self.assertEqual(self.rows("runs"), before)

    def test_status_is_healthy_only_while_a_daemon_serves(self):
        self.home.wait_folded()
        status = json.loads(self.ctl("status", "--format", "json"))
        text = json.dumps(status)
        self.assertNotIn(SECRET, text)
        self.assertIn("e2b", text)
        self.ctl("status")
        self.stop(self.daemon)
        self.ctl("status", code=1)
        (self.home.path / "e2b.secret").unlink()
        self.ctl("status", code=1)

    def test_status_tells_the_queue_and_whether_retention_waits_while_a_daemon_can_be_asked(self):
        def told():
            rows = json.loads(self.ctl("status", "--format", "json", code=None))  # healthy or not
            return {r["item"]: (r["value"], r["ok"], r["note"]) for r in rows}
        self.assertEqual((told()["queue"], told()["prune_waits"]), ((0, 1, None), (0, None, None)))
        self.stop(self.daemon)
        with contextlib.closing(sqlite3.connect(self.home.db)) as db, db:
            db.execute("UPDATE position SET prune_waits = 1")
        self.assertFalse({"queue", "prune_waits"} & set(told()))
        self.daemon = self.start()
        self.assertEqual(told()["prune_waits"][:2], (1, None))
        self.assertIn("e2b-hookctl prune", told()["prune_waits"][2])

    def test_a_missing_store_is_told_in_one_line(self):
        self.home.configure(store={"path": self.home.path / "none.db"})
        self.assertEqual(self.ctl("events", code=1), "")
        self.assertIn("none.db", self.ctl_stderr)
        self.assertEqual(len(self.ctl_stderr.splitlines()), 1)


class CommandLine(Case):
    def test_mistakes_end_with_2_and_a_hint(self):
        self.home.configure()
        for arguments, hint in ((["evnts"], "events"), (["events", "--sandox", "x"], "--sandbox"),
                                (["events", "--limit"], "--limit"), (["events", "--limit", "x"], "--limit"),
                                (["events", "--format", "xml"], "--format"), (["events", "--since", "soon"], "--since"),
                                (["events", "extra"], "extra"), ([], "help")):
            with self.subTest(arguments):
                self.assertEqual(self.ctl(*arguments, code=2), "")
                self.assertIn(hint, self.ctl_stderr)

    def test_help_and_version_go_to_stdout(self):
        self.assertIn("e2b-hookctl", self.ctl("--version", config=False))
        overview = self.ctl("help", config=False)
        for command in [*READERS, "status", "send", "sign", "verify", "check-config"]:
            self.assertIn(command, overview)
            self.assertIn(command, self.ctl("help", command, config=False))
        self.ctl("help", "nonsense", code=2, config=False)

    def test_check_config_says_the_same_as_the_daemon(self):
        self.home.configure()
        self.ctl("check-config")
        self.home.config.write_text(self.home.config.read_text() + "[log]\nlevel = loud\nformat = xml\n")
        self.ctl("check-config", code=78)
        self.assertEqual(self.ctl_stderr.count(": error: "), 2)
        self.assertIn(f"{self.home.config}:", self.ctl_stderr)
        self.ctl("events", code=78)

    def test_check_config_warns_of_a_store_that_has_no_directory(self):
        self.home.configure()
        self.ctl("check-config")
        self.assertEqual(self.ctl_stderr, "")
        self.home.configure(store={"path": self.home.path / "none/events.db"})
        self.ctl("check-config")
        self.assertIn(f"warning: [store] path: {self.home.path}/none is not there", self.ctl_stderr)
        self.home.configure(store={"path": self.home.write("file", "x") / "events.db"})
        self.ctl("check-config")
        self.assertIn(f"{self.home.path}/file is no directory", self.ctl_stderr)

    def test_check_config_warns_of_a_program_for_notifications_that_is_not_there(self):
        self.home.configure(extra="[notify pager]\nkind = command\ncommand = /nowhere/pager\n")
        self.ctl("check-config")
        self.assertIn("warning: [notify pager] command: /nowhere/pager: No such file", self.ctl_stderr)

    def test_check_says_of_a_named_file_that_it_is_not_there(self):
        self.home.configure()
        for path, said in ((self.home.path / "none.db", "no such file"), (self.home.path, "not a file")):
            self.assertEqual(self.ctl("check", path, code=1), "")
            self.assertEqual(self.ctl_stderr.count("\n"), 1)
            self.assertIn(f"{path}: ", self.ctl_stderr)
            self.assertIn(said, self.ctl_stderr)
            self.assertNotIn("[store]", self.ctl_stderr)
        self.ctl("check", code=1)
        self.assertIn("first start; see [store] path", self.ctl_stderr)


class Sending(Case):
    def setUp(self):
        super().setUp()
        self.home.configure(server={"listen": f"unix:{self.home.path}/hook.sock"})
        self.daemon = self.start()

    def test_a_test_delivery_arrives_and_counts_nowhere(self):
        text = self.ctl("send")
        self.assertIn("stored", text)
        self.home.wait_folded()
        self.assertEqual(self.home.query("SELECT type, kind, source FROM events"),
                         [{"type": "e2b-hookd.test", "kind": "test", "source": "e2b"}])
        self.assertEqual((self.count("sandboxes"), self.count("runs"), self.count("executions")), (0, 0, 0))

    def test_every_type_that_it_knows_is_an_event(self):
        for kind in ("created", "resumed", "updated", "paused", "killed", "checkpointed"):
            self.assertIn("stored", self.ctl("send", "--type", f"sandbox.lifecycle.{kind}", "--template", "abc"))
        self.assertIn("stored", self.ctl("send", "--type", "sandbox.code_executed", "--source", "executors"))
        self.home.wait_folded()
        kinds = [r["kind"] for r in self.home.query("SELECT kind FROM events ORDER BY seq")]
        self.assertEqual(kinds, ["created", "resumed", "updated", "paused", "killed", "checkpointed", "code_executed"])
        self.assertEqual(self.count("quarantine"), 0)
        self.assertEqual(self.count("runs", "cost_source = 'reported'"), 2)
        self.assertEqual(self.home.query("SELECT source, failed FROM executions"), [{"source": "executors", "failed": 0}])

    def test_several_are_sent_over_one_connection(self):
        text = self.ctl("send", "--count", 25)
        self.assertEqual(text.count("stored"), 25)
        self.assertEqual(self.count("events"), 25)

    def test_a_file_is_sent_as_it_is(self):
        body = encode(event()) + b" \r\n"
        path = self.home.path / "body.json"
        path.write_bytes(body)
        self.assertIn("stored", self.ctl("send", "--file", path))
        self.assertIn("duplicate", self.ctl("send", "--file", path))
        self.assertEqual(self.home.value("SELECT CAST(payload AS BLOB) FROM events"), body)

    def test_what_is_refused_is_a_failure(self):
        self.home.secret_file("e2b", ["not-what-the-daemon-has-0123456789"])
        self.assertIn("401", self.ctl("send", code=1))
        self.stop(self.daemon)
        self.ctl("send", code=1)
        self.assertTrue(self.ctl_stderr)


class Signatures(Case):
    OTHER = "another-live-secret-0123456789abcdefgh"

    def setUp(self):
        super().setUp()
        self.home.configure(sources={"e2b": {**E2B_SOURCE, "secrets": [self.OTHER, SECRET]},
                                     "executors": {"path": "/x", "signature": "hmac-sha256", "secrets": [EXECUTOR_SECRET]}})
        self.body = encode(event())
        self.file = self.home.path / "body.json"
        self.file.write_bytes(self.body)

    def verify(self, signature, source="e2b", code=None):
        text = self.ctl("verify", "--source", source, "--file", self.file, f"--signature={signature}", code=code)
        for secret in (SECRET, self.OTHER, EXECUTOR_SECRET):
            self.assertNotIn(secret, text + self.ctl_stderr)
            for expected in (sign_e2b(secret, self.body)["e2b-signature"], sign_hmac(secret, self.body)["x-signature-256"][7:]):
                if expected != signature:
                    self.assertNotIn(expected, text + self.ctl_stderr, "the expected value is printed")
        return text

    def test_sign_makes_what_the_daemon_takes(self):
        text = self.ctl("sign", "--source", "e2b", "--file", self.file)
        self.assertIn(sign_e2b(self.OTHER, self.body)["e2b-signature"], text)
        text = self.ctl("sign", "--source", "executors", "--file", "-", stdin=self.body)
        name, _, value = text.strip().partition(": ")
        self.assertEqual({name.lower(): value}, sign_hmac(EXECUTOR_SECRET, self.body))

    def test_verify_names_scheme_alphabet_and_position_of_what_matches(self):
        text = self.verify(sign_e2b(SECRET, self.body)["e2b-signature"], code=0)
        self.assertIn("e2b", text)
        self.assertIn("2", text)
        self.verify(sign_hmac(EXECUTOR_SECRET, self.body)["x-signature-256"], "executors", code=0)

    def test_verify_tells_a_signature_that_does_not_match(self):
        self.verify(sign_e2b("x" * 39, self.body)["e2b-signature"], code=1)
        self.verify("nonsense", code=1)

    def test_verify_recognises_common_mistakes(self):
        hexadecimal = base64.b64decode(sign_e2b(SECRET, self.body)["e2b-signature"] + "=").hex()
        self.assertIn("hex", self.verify(hexadecimal, code=1))
        self.assertIn("HMAC", self.verify(sign_hmac(SECRET, self.body)["x-signature-256"][7:], code=1).upper())
        self.assertIn("newline", self.verify(sign_e2b(SECRET, self.body + b"\n")["e2b-signature"], code=1).lower())


class Captured(Case):
    def test_verify_understands_the_deliveries_of_the_tree(self):
        self.home.configure(sources={"e2b": {**E2B_SOURCE, "secrets": [DELIVERY_SECRET]}})
        for name, code in (("60-signature-alphabet-standard", 0), ("61-signature-alphabet-urlsafe", 0),
                           ("62-signature-padded", 0), ("hostile/a06-wrong-secret", 1), ("hostile/a12-one-byte-flipped", 1)):
            lines = (DELIVERIES / f"{name}.headers").read_text().splitlines()
            headers = dict(line.split(": ", 1) for line in lines if line)
            self.ctl("verify", "--source", "e2b", "--file", DELIVERIES / f"{name}.json",
                     f"--signature={headers['e2b-signature']}", code=code)

    def test_verify_says_why_there_is_nothing_to_verify(self):
        daemon = self.start(sources={"e2b": {**E2B_SOURCE, "max_body": "1KiB"}})
        body = encode(event(filler="x" * 2000))
        for headers, status in (({}, 401), ({"e2b-signature": "x"}, 401), (sign_e2b(SECRET, body), 413)):
            self.assertEqual(daemon.request("POST", "/webhooks/e2b", body if status == 413 else b"{}", headers).status, status)
        until(lambda: self.count("rejections") == 3, "three rejections")
        for reason in ("signature_missing", "signature_malformed", "body_too_large"):
            number = self.home.value("SELECT id FROM rejections WHERE reason = ?", reason)
            self.ctl("verify", "--rejection", number, code=1)
            self.assertIn(f"were not kept ({reason})", self.ctl_stderr)

    def test_output_into_a_closed_pipe_is_no_crash(self):
        daemon = self.start()
        for _ in range(20):
            daemon.post(event(filler="A" * 20000))
        process = subprocess.Popen([HOOKCTL, "-c", str(self.home.config), "events"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.close()
        _, error = process.communicate(timeout=20)
        self.assertNotIn(b"Sanitizer", error)
        self.assertNotIn(process.returncode, (-6, -11))
