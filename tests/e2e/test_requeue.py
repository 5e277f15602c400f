"""Goal: what was refused because of a mistake on our side is not lost. After the secret or the configuration is right, requeue
stores it exactly once, whatever crashes, while intake goes on; and what should be refused still is.
"""
import contextlib
import json
import os
import pathlib
import socket
import threading
import time

from harness import (E2B_SOURCE, SANITIZED, SECRET, Case, encode, event, exchange, http_connection, sign_e2b,
                     sign_standard, until)

WRONG = "not-the-secret-of-anybody-0123456789-ab"
MANY = 300 if SANITIZED else 1500


def ask(home, request, timeout=60):
    """One request to the control socket: (answer, progress lines)."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(timeout)
        sock.connect(f"{home.db}.control")
        sock.sendall(request.encode() + b"\n")
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
    *progress, last = data.decode().splitlines() or [""]
    return last, progress


class Requeue(Case):
    def requeue(self, words=""):
        answer, _ = ask(self.home, f"requeue {words}".strip())
        self.assertTrue(answer.startswith("ok "), answer)
        return {k: v for k, v in json.loads(answer[3:]).items() if v}

    def deliver(self, daemon, bodies, secret=SECRET):
        with contextlib.closing(http_connection(daemon.address)) as connection:
            return [exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(secret, body)) for body in bodies]

    def reject_many(self, daemon):
        """In portions: rejections that nobody waits for are dropped when too many are to be written."""
        for first in range(0, MANY, 100):
            self.deliver(daemon, [encode(event("created", sandbox_id=f"sb{i}")) for i in range(first, first + 100)])
            until(lambda: self.count("rejections") == first + 100, "the rejections to be written")

    def configure_secret(self, secret, **store):
        self.home.configure(sources={"e2b": {**E2B_SOURCE, "secrets": [secret]}}, store=store)

    def test_stores_what_was_rejected_once_the_secret_is_right(self):
        self.configure_secret(WRONG)
        daemon = self.start()
        bodies = [encode(event("created", sandbox_id=f"sb{i}")) for i in range(20)]
        answers = self.deliver(daemon, bodies)
        self.assertEqual({a.status for a in answers}, {401})
        until(lambda: self.count("rejections") == 20, "the rejections to be written")
        self.assertEqual(self.requeue(), {"rejected": 20})
        self.home.secret_file("e2b", [SECRET])
        daemon.reload()
        self.assertEqual(self.requeue("source=e2b reason=signature_wrong"), {"stored": 20})
        self.assertEqual(self.count("rejections"), 0)
        self.home.wait_folded()
        self.assertEqual(self.count("sandboxes"), 20)
        self.assertEqual(sorted(r["payload"] for r in self.home.query("SELECT payload FROM events")),
                         sorted(b.decode() for b in bodies))
        # The sender gave up long ago; if it did not, its repeat is known.
        self.assertEqual(self.deliver(daemon, bodies[:1])[0].outcome, "duplicate")
        self.assertEqual(self.requeue(), {})
        self.assertIn("requeued", daemon.log)

    def test_measures_the_tolerance_at_the_receipt(self):
        source = {"path": "/webhooks/e2b", "signature": "standard-webhooks", "secrets": [WRONG]}
        daemon = self.start(sources={"sw": source})
        bodies = [encode(event()) for _ in range(2)]
        for body, age in zip(bodies, (0, 400)):
            signed = sign_standard(SECRET, body, timestamp=int(time.time()) - age)
            self.assertEqual(daemon.request("POST", "/webhooks/e2b", body, signed).status, 401)
        until(lambda: self.count("rejections") == 2, "the rejections to be written")
        self.home.secret_file("sw", [SECRET])
        daemon.reload()
        self.assertEqual(self.requeue(), {"stored": 1, "rejected": 1})
        self.assertEqual(self.home.value("SELECT reason FROM rejections"), "signature_expired")

    def test_goes_by_the_filters_of_now(self):
        self.configure_secret(WRONG)
        daemon = self.start()
        self.deliver(daemon, [encode(event("created")), encode(event("killed"))])
        until(lambda: self.count("rejections") == 2, "the rejections to be written")
        self.home.configure(sources={"e2b": {**E2B_SOURCE, "events": "killed"}})
        daemon.reload()
        self.assertEqual(self.requeue(), {"stored": 1, "filtered": 1})
        self.assertEqual(self.home.value("SELECT kind FROM events"), "killed")

    def test_keeps_in_quarantine_what_is_no_event(self):
        daemon = self.start()
        self.assert_outcome(daemon.post(event(sandbox_id=None)), "quarantined")
        self.assertEqual(self.requeue(), {"quarantined": 1})
        self.assertEqual(self.home.value("SELECT reason FROM quarantine"), "missing_field")

    def test_takes_each_exactly_once_over_kill_nine(self):
        self.configure_secret(WRONG)
        daemon = self.start()
        self.reject_many(daemon)
        self.configure_secret(SECRET)
        for part in (0, 0.2, 0.5, 0.8):
            daemon.kill()
            self.died_on_purpose(daemon)
            daemon = self.start()
            asking = threading.Thread(target=self.ask_in_vain)
            asking.start()
            until(lambda: self.count("events") > part * MANY, f"{part} of them to be stored")
            daemon.kill()
            asking.join()
            self.judge_halves()
        self.died_on_purpose(daemon)
        daemon = self.start()
        self.requeue()
        self.judge_halves()
        self.assertEqual(self.count("events"), MANY)
        self.assertEqual(self.count("rejections"), 0)
        self.assertEqual(self.home.value("SELECT max(deliveries) FROM events"), 1)
        self.assertEqual(self.home.query("SELECT sum(n_rows) AS n, sum(bytes) AS b FROM side_size"), [{"n": 0, "b": 0}])
        self.home.wait_folded()
        self.assertEqual(self.count("sandboxes"), MANY)

    def ask_in_vain(self):
        with contextlib.suppress(OSError):
            ask(self.home, "requeue")

    def judge_halves(self):
        """One snapshot: every delivery is an event or a rejection, none is both or gone."""
        row = self.home.query("SELECT (SELECT count(*) FROM events) AS events, (SELECT count(*) FROM rejections) AS left,"
                              " (SELECT count(DISTINCT event_id) FROM events) AS ids")[0]
        self.assertEqual(row["events"] + row["left"], MANY)
        self.assertEqual(row["events"], row["ids"])

    def test_does_not_hold_up_intake(self):
        self.configure_secret(WRONG)
        daemon = self.start()
        self.reject_many(daemon)
        self.home.secret_file("e2b", [SECRET])
        daemon.reload()
        asking = threading.Thread(target=self.requeue)
        asking.start()
        slowest = 0
        while asking.is_alive():
            begin = time.monotonic()
            self.assert_outcome(daemon.post(event()), "stored")
            slowest = max(slowest, time.monotonic() - begin)
        asking.join()
        self.assertLess(slowest, 3 if SANITIZED else 1)


class Control(Case):
    def test_answers_a_rebuild_when_it_is_done(self):
        daemon = self.start()
        sandbox = event("created")
        self.assert_outcome(daemon.post(sandbox), "stored")
        self.home.wait_folded()
        answer, progress = ask(self.home, "rebuild")
        self.assertEqual(json.loads(answer.removeprefix("ok "))["folded_seq"], 1)
        self.assertEqual([p.split()[0] for p in progress], ["progress"] * len(progress))
        self.assertEqual(self.home.value("SELECT sandbox_id FROM sandboxes"), sandbox["sandbox_id"])

    def test_tells_its_health_and_its_pid(self):
        daemon = self.start()
        self.assert_outcome(daemon.post(event()), "stored")
        health = json.loads(ask(self.home, "status")[0].removeprefix("ok "))
        self.assertEqual((health["pid"], health["queued"], health["last_error"]), (daemon.pid, 0, ""))
        self.assertGreater(health["database_bytes"], 0)

    def test_leaves_no_socket_behind_and_replaces_a_stale_one(self):
        path = pathlib.Path(f"{self.home.db}.control")
        daemon = self.start()
        self.assertEqual(os.lstat(path).st_mode & 0o7777, 0o600)
        daemon.kill()
        self.died_on_purpose(daemon)
        self.assertTrue(path.is_socket())
        daemon = self.start()
        self.assertTrue(ask(self.home, "status")[0].startswith("ok "))
        self.stop(daemon)
        self.assertFalse(path.exists())

    def test_stops_while_clients_are_silent(self):
        daemon = self.start()
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                sock = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
                sock.connect(f"{self.home.db}.control")
            begin = time.monotonic()
            self.stop(daemon)
            self.assertLess(time.monotonic() - begin, 4)

    def test_receives_although_it_has_no_socket(self):
        self.home.configure()
        pathlib.Path(f"{self.home.db}.control").write_text("somebody's file")
        daemon = self.start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.assertIn("no control socket", daemon.log)
        self.assertIn("move it away", daemon.log)
