"""Goal: at three in the morning the daemon says what is wrong with it. Health paths that answer whatever happens to the store,
readiness with reasons, a metrics page that promtool accepts and the documentation describes, a token that keeps strangers
out; and none of it makes a delivery wait.
"""
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import unittest

from harness import (E2B_SOURCE, HOOKCTL, ROOT, SECRET, SOURCES, Case, encode, event, execution, http_connection,
                     raw_connect, sign_e2b, until)

TOKEN = "e2e-admin-token-0123456789abcdef"
ADMIN = {"listen": "127.0.0.1:0"}
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\.)*)"(?:,|$)')


class Page:
    """A metrics page: families in order, samples by name and labels."""

    def __init__(self, text):
        self.text, self.types, self.helps, self.samples, self.labels = text, {}, {}, {}, {}
        family = None
        for line in text.splitlines():
            if line.startswith("# HELP "):
                _, _, family, self.helps[family] = line.split(" ", 3)
                self.labels[family] = set()
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name == family and name not in self.types, f"a family twice, or out of order: {line}"
                self.types[name] = kind
            else:
                name, labels, value = SAMPLE.match(line).groups()
                pairs = LABEL.findall(labels or "")
                assert name.startswith(family), line
                key = (name, frozenset(pairs))
                assert key not in self.samples, f"a series twice: {line}"
                self.samples[key] = float(value)
                self.labels[family] |= {n for n, _ in pairs if n != "le"}

    def __call__(self, metric, **labels):
        return self.samples[metric, frozenset(labels.items())]


def documented():
    """The rows of the table in docs/operations.md: name, type, labels, meaning."""
    return re.findall(r"^\| `([a-z0-9_]+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]+) \|$",
                      (ROOT / "docs/operations.md").read_text(), re.MULTILINE)


class Admin(Case):
    def get(self, path, method="GET", token=None, daemon=None):
        daemon = daemon or self.daemons[-1]
        headers = {} if token is None else {"authorization": token}
        return daemon.request(method, path, headers=headers, address=daemon.admin)

    def page(self, token=None):
        answer = self.get("/metrics", token=token)
        self.assertEqual(answer.status, 200, answer)
        return Page(answer.body.decode())

    def status_row(self, item, code=0):
        run = subprocess.run([HOOKCTL, "-c", str(self.home.config), "status", "--format", "json"], capture_output=True,
                             text=True, timeout=20)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return next(r for r in json.loads(run.stdout) if r["item"] == item)

    def ready_when(self, expected, what):
        """Waits until /readyz says so; returns its text."""
        def look():
            answer = self.get("/readyz")
            return answer.body.decode() if answer.status == expected else None
        return until(look, what, 20)


class Health(Admin):
    def test_a_daemon_that_works_is_healthy_alive_and_ready(self):
        self.start(admin=ADMIN)
        for path, text in (("/healthz", b"ok\n"), ("/livez", b"ok\n"), ("/readyz", b"ready\n")):
            with self.subTest(path):
                answer = self.get(path)
                self.assertEqual((answer.status, answer.body), (200, text))
                self.assertEqual(answer.headers["cache-control"], "no-store")
                self.assertEqual(self.get(path, "HEAD").status, 200)

    def test_other_paths_and_methods_are_refused(self):
        self.start(admin=ADMIN)
        self.assertEqual(self.get("/nope").status, 404)
        self.assertEqual(self.get("/metrics/").status, 404)
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            answer = self.daemons[-1].request(method, "/metrics", body=b"x" * 10, address=self.daemons[-1].admin)
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"), method)

    def test_hooks_are_not_served_there_nor_metrics_here(self):
        daemon = self.start(admin=ADMIN)
        self.assertEqual(daemon.request("GET", "/metrics").status, 404)
        body = encode(event())
        answer = daemon.request("POST", "/webhooks/e2b", body, sign_e2b(SECRET, body), address=daemon.admin)
        self.assertEqual(answer.status, 405)
        self.assertEqual(self.home.value("SELECT count(*) FROM events"), 0)

    def test_without_a_listener_there_is_none(self):
        daemon = self.start(admin={"listen": ""})
        self.assertIsNone(daemon.admin)
        self.assertNotIn("for=admin", daemon.log)

    def test_it_is_served_on_a_unix_socket(self):
        path = self.home.path / "admin.sock"
        daemon = self.start(admin={"listen": f"unix:{path}"})
        self.assertEqual(daemon.admin, f"unix:{path}")
        self.assertEqual(self.get("/readyz").status, 200)
        self.stop(daemon)
        self.assertFalse(path.exists())

    def test_a_store_that_cannot_be_written_is_told_and_forgotten_when_it_can(self):
        daemon = self.start(admin=ADMIN)
        with contextlib.closing(sqlite3.connect(self.home.db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertEqual(daemon.post(event()).status, 503)
            text = self.ready_when(503, "the failed commit to be told")
            self.assertRegex(text, r"\Anot ready\ncommit_failed: ")
            self.assertEqual(self.get("/livez").status, 200)
            page = self.page()
            self.assertEqual(page("e2b_hookd_ready"), 0)
            self.assertEqual(page("e2b_hookd_not_ready", reason="commit_failed"), 1)
            self.assertEqual(page("e2b_hookd_last_commit_failed"), 1)
            self.assertGreaterEqual(page("e2b_hookd_commit_failures_total"), 1)
            row = self.status_row("ready", code=1)
            self.assertEqual((row["value"], row["ok"]), ("no", 0))
            self.assertIn(text.split("\n")[1], row["note"], "the same words as /readyz")
            self.assertIn(f"held by pid {os.getpid()} (", row["note"])
            other.execute("ROLLBACK")
        self.ready_when(200, "the daemon to find by itself that the store works again")
        self.assertEqual(self.status_row("ready")["value"], "yes")
        self.assertEqual(self.status_row("queue")["value"], 0)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_a_reader_that_locks_the_store_by_hand_is_named(self):
        """Whoever may read the store may do that: it costs 503, and nothing more."""
        daemon = self.start(admin=ADMIN)
        with open(f"{self.home.db}-shm", "rb") as shared:
            # SQLite's lock for writing, byte 120; a lock to read it can be had by who may only read.
            fcntl.lockf(shared, fcntl.LOCK_SH, 1, 120)
            self.assertEqual(daemon.post(event()).status, 503)
            self.ready_when(503, "the failed commit to be told")
            self.assertIn(f"held by pid {os.getpid()} (", self.status_row("ready", code=1)["note"])
        self.ready_when(200, "the daemon to find by itself that the store works again")
        self.assert_outcome(daemon.post(event()), "stored")

    def test_a_daemon_that_drains_is_not_ready_and_still_says_so(self):
        daemon = self.start(admin=ADMIN, server={"drain_timeout": "10s"})
        body = encode(event())
        with contextlib.closing(daemon.connect()) as slow:
            head = "".join(f"{k}: {v}\r\n" for k, v in sign_e2b(SECRET, body).items())
            slow.sendall(f"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode())
            until(lambda: self.page()("e2b_hookd_connections") == 1, "the request to have begun")
            daemon.process.terminate()
            self.assertRegex(self.ready_when(503, "the stop to be told"), r"stopping: ")
            slow.sendall(body)
            self.assertIn(b"stored", slow.recv(65536))


class Token(Admin):
    def with_token(self, **configuration):
        self.home.secrets.add(TOKEN)
        path = self.home.write("token", TOKEN + "\n")
        return self.start(admin={**ADMIN, "token_file": path, **configuration})

    def test_all_but_the_health_paths_want_it(self):
        self.with_token()
        for path in ("/healthz", "/livez", "/readyz"):
            self.assertEqual(self.get(path).status, 200)
        wrong = [None, "", TOKEN, f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
                 f"Bearer{TOKEN}", "Bearer " + TOKEN.upper()]
        for given in wrong:
            for path in ("/metrics", "/nope", "/"):
                answer = self.get(path, token=given)
                self.assertEqual(answer.status, 401, (path, given))
                self.assertIn("Bearer", answer.headers["www-authenticate"])
                self.assertNotIn(TOKEN, str(answer))
        for scheme in ("Bearer", "bearer", "BEARER "):
            self.assertEqual(self.get("/metrics", token=f"{scheme} {TOKEN}").status, 200)
        self.assertEqual(self.get("/nope", token=f"Bearer {TOKEN}").status, 404)

    def test_a_request_with_two_of_them_is_refused(self):
        daemon = self.with_token()
        with contextlib.closing(raw_connect(daemon.admin)) as sock:
            sock.sendall(f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                         f"Authorization: Bearer x\r\n\r\n".encode())
            self.assertIn(b" 400 ", sock.recv(65536).split(b"\r\n")[0])

    def test_a_reload_takes_a_new_one(self):
        daemon = self.with_token()
        new = "another-" + TOKEN
        self.home.secrets.add(new)
        self.home.write("token", new + "\n")
        daemon.reload()
        self.assertEqual(self.get("/metrics", token=f"Bearer {TOKEN}").status, 401)
        self.assertEqual(self.get("/metrics", token=f"Bearer {new}").status, 200)

    def test_a_listener_for_strangers_without_one_is_refused(self):
        self.home.configure(admin={"listen": "0.0.0.0:0"})
        daemon = self.launch()
        self.assertEqual(daemon.wait(20), 78, daemon.log)
        self.died_on_purpose(daemon)
        self.assertIn("token_file", daemon.log)


class Metrics(Admin):
    def test_every_known_label_value_is_there_at_zero(self):
        self.start(admin=ADMIN)
        page = self.page()
        for name, _ in SOURCES.items():
            for outcome in ("stored", "duplicate", "filtered", "quarantined", "rejected", "too_large", "unavailable"):
                self.assertEqual(page("e2b_hookd_deliveries_total", source=name, outcome=outcome), 0)
            for reason in ("signature_missing", "signature_malformed", "signature_wrong", "signature_expired",
                           "not_one_object", "body_too_large"):
                self.assertEqual(page("e2b_hookd_rejections_total", source=name, reason=reason), 0)
            for reason in ("id_reused", "stale", "future", "missing_field", "not_one_object"):
                self.assertEqual(page("e2b_hookd_quarantined_total", source=name, reason=reason), 0)
            self.assertEqual(page("e2b_hookd_filtered_total", source=name, reason="templates"), 0)
            self.assertEqual(page("e2b_hookd_quarantine_rows", source=name), 0)
            self.assertEqual(page("e2b_hookd_secret_uses_total", source=name, position="1"), 0)
            self.assertEqual(page("e2b_hookd_secret_last_used_timestamp_seconds", source=name, position="1"), 0)
            self.assertEqual(page("e2b_hookd_last_event_timestamp_seconds", source=name), 0)
        for kind in ("created", "killed", "code_executed", "test", "other"):
            self.assertEqual(page("e2b_hookd_events_total", kind=kind), 0)
        for status in ("success", "error", "timeout", "killed"):
            self.assertEqual(page("e2b_hookd_executions_total", status=status), 0)
        for reason in ("queue_full", "store_failed", "commit_timeout", "quarantine_full"):
            self.assertEqual(page("e2b_hookd_unavailable_total", reason=reason), 0)
        self.assertEqual(page("e2b_hookd_template_runs", template="_other"), 0)
        self.assertEqual(page("e2b_hookd_store_read_failed"), 0)

    def test_what_happens_is_counted_where_it_belongs(self):
        daemon = self.start(admin=ADMIN, store={"retention": 0}, sources={
            "e2b": {**E2B_SOURCE, "events": "!paused", "max_body": "64KiB"}, "executors": SOURCES["executors"]})
        before, one = time.time(), event()
        self.assert_outcome(daemon.post(one), "stored")
        self.assert_outcome(daemon.post(one), "duplicate")
        self.assert_outcome(daemon.post(event("paused")), "filtered")
        self.assert_outcome(daemon.post({**event(), "timestamp": "soon"}), "quarantined")
        self.assertEqual(daemon.post(event(), secret="x" * 40).status, 401)
        self.assertEqual(daemon.request("POST", "/webhooks/e2b", encode(event())).status, 401)
        self.assertEqual(daemon.post(event(), headers={"x": "1"}, path="/nope").status, 404)
        self.assertEqual(daemon.post(b"{" + b" " * 70000 + b"}").status, 413)
        for status in ("success", "error", "error"):
            self.assert_outcome(daemon.post_executor(execution(status=status)), "stored")
        self.home.wait_folded()
        page = self.page()
        expected = {"stored": 1, "duplicate": 1, "filtered": 1, "quarantined": 1, "rejected": 2, "too_large": 1,
                    "unavailable": 0}
        for outcome, n in expected.items():
            self.assertEqual(page("e2b_hookd_deliveries_total", source="e2b", outcome=outcome), n, outcome)
        self.assertEqual(page("e2b_hookd_deliveries_total", source="executors", outcome="stored"), 3)
        self.assertEqual(page("e2b_hookd_rejections_total", source="e2b", reason="signature_wrong"), 1)
        self.assertEqual(page("e2b_hookd_rejections_total", source="e2b", reason="signature_missing"), 1)
        self.assertEqual(page("e2b_hookd_rejections_total", source="e2b", reason="body_too_large"), 1)
        self.assertEqual(page("e2b_hookd_filtered_total", source="e2b", reason="events"), 1)
        self.assertEqual(page("e2b_hookd_quarantined_total", source="e2b", reason="bad_time"), 1)
        self.assertEqual(page("e2b_hookd_events_total", kind="created"), 1)
        self.assertEqual(page("e2b_hookd_events_total", kind="code_executed"), 3)
        self.assertEqual(page("e2b_hookd_executions_total", status="success"), 1)
        self.assertEqual(page("e2b_hookd_executions_total", status="error"), 2)
        self.assertEqual(page("e2b_hookd_event_age_seconds_count"), 4)
        self.assertEqual(page("e2b_hookd_event_age_seconds_bucket", le="+Inf"), 4)
        self.assertEqual(page("e2b_hookd_http_answers_total", code="404"), 1)
        self.assertEqual(page("e2b_hookd_quarantine_rows", source="e2b"), 1)
        self.assertEqual(page("e2b_hookd_rejection_rows", source="e2b"), 3)
        self.assertGreaterEqual(page("e2b_hookd_last_event_timestamp_seconds", source="executors"), int(before))
        self.assertGreaterEqual(page("e2b_hookd_last_commit_timestamp_seconds"), int(before))
        self.assertGreaterEqual(page("e2b_hookd_commit_batch_deliveries_sum"), 8)
        self.assertGreater(page("e2b_hookd_commit_duration_seconds_sum"), 0)
        self.assertGreater(page("process_resident_memory_bytes"), 1 << 20)
        self.assertAlmostEqual(page("process_start_time_seconds"), before, delta=30)
        self.assertGreaterEqual(page("process_open_fds"), 5)

    def test_money_is_told_by_template_and_the_small_ones_together(self):
        daemon = self.start(admin=ADMIN, extra="[template big]\nalias = the-big-one\n")
        seconds = {"big": 5000, "_other": 4000, **{f"t{n:02}": 100 + n for n in range(55)}}
        for template, duration in seconds.items():
            run = {"execution": {"started_at": "2026-01-01T00:00:00Z", "execution_time": duration * 1000, "vcpu_count": 2,
                                 "memory_mb": 512}}
            ended = event("killed", run, sandbox_template_id=template)
            self.assert_outcome(daemon.post(ended), "stored")
        self.home.wait_folded()
        page = self.page()
        view = {r["template"]: r for r in self.home.query("SELECT * FROM template_stats")}
        self.assertEqual(len(view), 57)
        shown = {dict(labels)["template"] for name, labels in page.samples if name == "e2b_hookd_template_runs"}
        self.assertEqual(len(shown), 51)
        self.assertIn("the-big-one", shown)
        self.assertIn("t54", shown)
        self.assertNotIn("t00", shown)
        self.assertEqual(page("e2b_hookd_template_cost_nanousd", template="t54"), view["t54"]["cost_nanousd"])
        self.assertAlmostEqual(page("e2b_hookd_template_cost_usd", template="t54"), view["t54"]["cost_usd"], places=9)
        self.assertEqual(page("e2b_hookd_template_runs", template="_other"), 7, "one is called so")
        for family, column in (("cost_nanousd", "cost_nanousd"), ("runs", "runs"), ("running", "running")):
            total = sum(page(f"e2b_hookd_template_{family}", template=t) for t in shown)
            self.assertEqual(total, sum(r[column] for r in view.values()), family)

    def test_a_rotated_secret_shows_when_it_was_last_used(self):
        old, new = "old-" + SECRET, "new-" + SECRET
        daemon = self.start(admin=ADMIN, sources={"e2b": {**E2B_SOURCE, "secrets": [old]}})
        self.assert_outcome(daemon.post(event(), secret=old), "stored")
        used = lambda position: self.page()("e2b_hookd_secret_last_used_timestamp_seconds", source="e2b",
                                            position=position)
        first = until(lambda: used("1"), "the use to be written")
        self.home.secret_file("e2b", [new, old])
        daemon.reload()
        self.assertEqual((used("1"), used("2")), (0, first), "the history moves with the secret")
        self.assert_outcome(daemon.post(event(), secret=new), "stored")
        self.assertGreaterEqual(until(lambda: used("1"), "the use to be written"), first)
        self.assertEqual(used("2"), first)
        self.stop(daemon)
        self.start()
        self.assertEqual(used("2"), first, "and outlives a restart")
        run = subprocess.run([HOOKCTL, "-c", str(self.home.config), "status", "--format", "json"], capture_output=True,
                             text=True, timeout=20)
        rows = [r for r in json.loads(run.stdout) if r["item"] == "secret"]
        self.assertTrue(rows and all(r["last_at"] for r in rows), run.stdout)

    def test_the_last_event_of_a_source_is_known_after_a_restart(self):
        daemon = self.start(admin=ADMIN)
        self.assert_outcome(daemon.post(event()), "stored")
        before = self.page()("e2b_hookd_last_event_timestamp_seconds", source="e2b")
        self.stop(daemon)
        self.start()
        until(lambda: abs(self.page()("e2b_hookd_last_event_timestamp_seconds", source="e2b") - before) < 1, "it to be read")

    def test_a_reload_that_is_refused_or_waits_for_a_restart_is_told(self):
        daemon = self.start(admin=ADMIN)
        good = self.home.config.read_text()
        loaded = self.page()("e2b_hookd_config_reload_timestamp_seconds")
        self.home.config.write_text(good + "[nonsense]\n")
        daemon.reload(refused=True)
        self.assertEqual(self.page()("e2b_hookd_config_reload_failed"), 1)
        self.assertEqual(self.page()("e2b_hookd_config_reload_timestamp_seconds"), loaded)
        self.home.config.write_text(good)
        self.assertEqual(self.status_row("reload", code=1)["value"], "refused")
        self.home.config.write_text(good.replace("[store]", "[store]\nqueue_limit = 77\nwal_limit = 9MiB"))
        lines = daemon.reload()
        self.assertTrue([x for x in lines if "store.queue_limit, store.wal_limit" in x], lines)
        page = self.page()
        self.assertEqual(page("e2b_hookd_config_reload_failed"), 0)
        self.assertEqual(page("e2b_hookd_config_restart_needed"), 2)
        self.assertEqual(page("e2b_hookd_queue_limit"), 2048)
        self.assertGreater(page("e2b_hookd_config_reload_timestamp_seconds"), loaded)
        self.assertEqual(self.status_row("restart_needed")["note"], "store.queue_limit, store.wal_limit")
        self.home.config.write_text(good)
        daemon.reload()
        self.assertEqual(self.page()("e2b_hookd_config_restart_needed"), 0)
        self.assertEqual(self.status_row("restart_needed")["value"], 0)

    def test_the_documentation_lists_what_is_served_and_nothing_else(self):
        daemon = self.start(admin=ADMIN)
        self.assert_outcome(daemon.post(event()), "stored")
        page = self.page()
        rows = documented()
        self.assertEqual([r[0] for r in rows], list(page.types), "the table's rows, in the page's order")
        for name, kind, labels, _meaning in rows:
            self.assertEqual(kind, page.types[name], name)
            self.assertEqual(set(re.findall(r"`([a-z_]+)`", labels)), page.labels[name], name)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"), "needs root and unshare, to hide what is in /proc")
    def test_none_is_missing_where_proc_shows_processes_alone(self):
        """As the packaged unit has it (ProcSubset=pid, ProtectProc=invisible): the rules ask for figures of the process."""
        hide = self.home.write("hide", "#!/bin/sh\nmount -t proc -o subset=pid,hidepid=invisible proc /proc && "
                               '! test -e /proc/stat && exec "$@"\n', 0o755)
        hidden = ["unshare", "--mount", str(hide)]
        if subprocess.run([*hidden, "true"], capture_output=True, timeout=20).returncode != 0:
            raise unittest.SkipTest("this kernel or container does not let /proc be hidden")
        self.home.configure(admin=ADMIN)
        before = time.time()
        self.launch(wrapper=hidden).start()
        page = self.page()
        self.assertEqual(list(page.types), [name for name, *_ in documented()])
        began = page("process_start_time_seconds")
        self.assertAlmostEqual(began, before, delta=30)
        self.assertEqual(self.page()("process_start_time_seconds"), began, "a start that moves is one more start for a rule")

    def test_promtool_finds_nothing(self):
        if not shutil.which("promtool"):
            raise unittest.SkipTest("promtool (Debian package prometheus) is not installed")
        daemon = self.start(admin=ADMIN)
        for one in (event(), execution(status="error")):
            self.assert_outcome(daemon.post(one), "stored")
        self.home.wait_folded()
        run = subprocess.run(["promtool", "check", "metrics"], input=self.page().text, capture_output=True, text=True,
                             timeout=30)
        self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))

    def test_scraping_moves_no_counter_of_the_hook_listener(self):
        self.start(admin=ADMIN)
        first = self.page()
        for _ in range(5):
            self.get("/nope")
            self.get("/readyz")
            self.page()
        second = self.page()
        for (name, labels), value in first.samples.items():
            if name.startswith("e2b_hookd") and first.types.get(name) == "counter":
                self.assertEqual(second.samples[name, labels], value, name)

    def test_no_client_of_it_makes_a_delivery_wait(self):
        daemon = self.start(admin=ADMIN)
        held = [raw_connect(daemon.admin) for _ in range(80)]  # more than it takes
        try:
            for sock in held[:40]:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")  # and never the end
            stop, errors = threading.Event(), []

            def scrape():
                while not stop.is_set():
                    try:
                        with contextlib.closing(http_connection(daemon.admin, timeout=1)) as connection:
                            connection.request("GET", "/metrics")
                            connection.getresponse().read()
                    except (OSError, TimeoutError) as error:
                        errors.append(error)
            thread = threading.Thread(target=scrape)
            thread.start()
            begin = time.monotonic()
            for _ in range(50):
                self.assert_outcome(daemon.post(event()), "stored")
            self.assertLess(time.monotonic() - begin, 10)
            stop.set()
            thread.join()
        finally:
            for sock in held:
                sock.close()
        until(lambda: self.get("/readyz").status == 200, "it to be served again")


class JsonLog(Admin):
    HOSTILE = ["plain", 'quote " and \\ and {"a":1}', "line\nfeed \x1b[31m red \x7f", "grün 😀 \u202e right to left",
               "\u2028 separator", "x" * 100]

    def test_a_warning_about_the_configuration_is_one_too(self):
        self.home.configure(admin=ADMIN, extra="[log]\nformat = json\n")
        (self.home.path / "e2b.secret").chmod(0o644)
        daemon = self.launch().start()
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in daemon.log, "the reload to be told")
        said = [json.loads(line) for line in list(daemon.lines)]
        self.assertEqual(len([x for x in said if x["level"] == "warning" and "e2b.secret" in x["message"]]), 2, daemon.log)

    def test_every_line_is_one_object_whatever_senders_send(self):
        daemon = self.start(admin=ADMIN, extra="[log]\nformat = json\nlevel = debug\n")
        for text in self.HOSTILE:
            self.assertEqual(daemon.post(event(type="custom." + text)).status, 200)
            self.assertEqual(daemon.post({**event(), "timestamp": text}).status, 200)
            self.assertEqual(daemon.post(event(sandbox_id=text)).status, 200)
        body = b'{"id":"x","type":"\xff\xfe","timestamp":"2026-11-01T10:00:00Z"}'
        self.assertEqual(daemon.post(body).status, 401)
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(b"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\nE2B-Webhook-Id: \xff\x01\"\r\nContent-Length: 2\r\n\r\n{}")
            sock.recv(65536)
        self.stop(daemon)
        lines = [json.loads(line) for line in daemon.lines]
        self.assertTrue(all(line["time"] and line["level"] and line["message"] for line in lines))
        about = [x for x in lines if x["message"] in ("stored", "quarantined", "rejected", "duplicate", "filtered")]
        self.assertGreaterEqual(len(about), 3 * len(self.HOSTILE) + 1)
        requests = [x["request"] for x in about]
        self.assertEqual(len(set(requests)), len(requests), "each delivery has an id of its own")
