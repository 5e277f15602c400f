"""Goal: the real daemon under real load while the kernel fails its system calls, delays them, or ends it in the midst of
one. What was acknowledged is stored, what cannot be stored is refused in time, and it finds back by itself.

strace does the injecting; where ptrace is not allowed the tests are skipped.
"""
import collections
import contextlib
import http.client
import random
import shutil
import subprocess
import threading
import time
import unittest

from harness import LONG, SECRET, Case, encode, event, exchange, http_connection, sign_e2b, until

THREADS = 4
POINTS = 60 if LONG else 5
COMMIT_TIMEOUT_S = 5 if LONG else 1  # the default, or quicker to wait for


def reason_not_to():
    if not shutil.which("strace"):
        return "strace is not installed"
    probe = subprocess.run(["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO", "true"],
                           stdin=subprocess.DEVNULL, capture_output=True)
    return "ptrace is not allowed here" if probe.returncode else None


def injecting(*what):
    """A wrapper for the daemon; -D: the process that was started is the daemon's own. The tracer outlives it by little."""
    calls = ",".join(sorted({w.split(":")[0] for w in what}))
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}",
            *(x for w in what for x in ("-e", f"inject={w}"))]


class Load:
    """Threads that deliver, each again what was not acknowledged, until they are told to stop or the daemon is gone."""

    def __init__(self, address):
        self.address = address
        self.acknowledged, self.answers, self.slowest = set(), collections.Counter(), 0
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._deliver) for _ in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _deliver(self):
        last = None
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.closing(http_connection(self.address)) as connection:
                while not self.ended.is_set():
                    last = last or event()
                    body = encode(last)
                    begin = time.monotonic()
                    answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    self.slowest = max(self.slowest, time.monotonic() - begin)
                    self.answers[answer.outcome] += 1
                    if answer.status == 503:
                        assert answer.headers["retry-after"] == "10"
                        continue
                    assert answer.outcome in ("stored", "duplicate"), answer
                    self.acknowledged.add(last["id"])
                    last = None

    def join(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)


@unittest.skipIf(reason_not_to(), reason_not_to())
class Injected(Case):
    def run_with(self, *what):
        daemon = self.launch(wrapper=injecting(*what))
        return daemon.start()

    def judge(self, acknowledged, note):
        """Reads the store as it was left."""
        rows = [r["event_id"] for r in self.home.query("SELECT event_id FROM events")]
        self.assertEqual(len(set(rows)), len(rows), f"{note}: stored twice")
        self.assertEqual(acknowledged - set(rows), set(), f"{note}: acknowledged and lost")
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}], note)

    def test_answers_503_while_calls_fail_and_goes_on_when_they_do_not(self):
        faults = ["fdatasync:error=EIO:when=40+7", "pwrite64:error=EIO:when=200+53", "pwrite64:error=ENOSPC:when=200+53",
                  "ftruncate:error=EIO:when=2+2"]
        for fault in faults:
            with self.subTest(fault):
                self.fresh()
                self.stop(self.start(store={"wal_limit": "1MiB"}))  # the schema is there
                daemon = self.run_with(fault)
                load = Load(daemon.address)
                until(lambda: len(load.acknowledged) >= (1500 if LONG else 300), f"deliveries despite {fault}", 30)
                load.join()
                self.assertTrue(set(load.answers) <= {"stored", "duplicate", 503}, load.answers)
                if "ftruncate" not in fault:
                    self.assertGreater(load.answers[503], 0, f"{fault} failed nothing")
                self.assertLess(load.slowest, 5)
                daemon.kill()
                self.died_on_purpose(daemon)
                self.start()
                self.home.wait_folded(30)
                self.judge(load.acknowledged, fault)

    def test_answers_503_when_a_sync_takes_longer_than_a_commit_may(self):
        self.home.configure(store={"commit_timeout": f"{COMMIT_TIMEOUT_S}s"})
        daemon = self.run_with(f"fdatasync:delay_enter={COMMIT_TIMEOUT_S * 1400000}:when=30..31")
        load = Load(daemon.address)
        until(lambda: load.answers[503] >= THREADS, "deliveries that are refused", 30)
        refused, before = load.slowest, daemon.memory_kib()
        stored = len(load.acknowledged)
        until(lambda: len(load.acknowledged) > stored + 100, "deliveries that are stored again", 40)
        load.join()
        self.assertGreater(refused, COMMIT_TIMEOUT_S - 0.1)
        self.assertLess(load.slowest, COMMIT_TIMEOUT_S + 0.6)
        self.assertLess(daemon.memory_kib(), before + 8192)
        self.assertGreater(load.answers["duplicate"], 0, "what was late was stored, and its repeat is known")
        daemon.kill()
        self.died_on_purpose(daemon)
        self.judge(load.acknowledged, "delayed")

    def test_loses_nothing_when_it_is_killed_within_a_call(self):
        chance = random.Random(20261123)
        acknowledged = set()
        self.home.configure()
        for call in ("fdatasync", "pwrite64"):
            for number in range(POINTS):
                at = number + 1 if LONG else 1 + chance.randrange(60)
                daemon = self.launch(wrapper=injecting(f"{call}:signal=KILL:when={at}"))
                with contextlib.suppress(AssertionError):  # it may die before it listens
                    daemon.start()
                if daemon.addresses:
                    load = Load(daemon.address)
                    until(lambda: daemon.process.poll() is not None, f"death at {call} {at}", 20)
                    load.join()
                    acknowledged |= load.acknowledged
                self.assertEqual(daemon.wait(), -9, f"{call} {at}")
                self.died_on_purpose(daemon)
                if (self.home.path / "events.db").exists():
                    daemon = self.start()
                    self.home.wait_folded(30)
                    self.stop(daemon)
                    self.judge(acknowledged, f"{call} {at}")
        self.assertGreater(len(acknowledged), 0)
