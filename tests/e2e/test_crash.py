"""Goal: the promise. kill -9 at any moment loses no acknowledged event and stores none twice; the store is sound, the
ledger catches up, and the daemon is back at once.
"""
import collections
import contextlib
import http.client
import random
import threading
import time

from harness import (LONG, SANITIZED, SECRET, Case, encode, event, exchange, http_connection, plain_only, rfc3339,
                     sign_e2b, until)

THREADS = 8
ROUNDS = 200 if LONG else 3 if SANITIZED else 20


class Load:
    """Threads that deliver until they are told to stop or the daemon is gone. Every third request repeats an event."""

    def __init__(self, address, sandboxes):
        self.address, self.sandboxes = address, sandboxes
        self.sent, self.acknowledged, self.refused = set(), collections.Counter(), []
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._deliver, args=(n,)) for n in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _deliver(self, number):
        chance = random.Random(f"{number} {self.address}")
        last = None
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.closing(http_connection(self.address)) as connection:
                while not self.ended.is_set():
                    if last is None or chance.random() > 0.33:
                        last = event(chance.choice(["created", "paused", "killed", "updated"]),
                                     sandbox_id=chance.choice(self.sandboxes),
                                     timestamp=rfc3339(time.time() - chance.random() * 3600))
                    body = encode(last)
                    self.sent.add(last["id"])
                    answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    if answer.outcome in ("stored", "duplicate"):
                        self.acknowledged[last["id"]] += 1
                    else:
                        self.refused.append(answer)

    def join(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)


class KillNine(Case):
    def test_loses_nothing_that_was_acknowledged_and_stores_nothing_twice(self):
        chance = random.Random(20261122)
        sandboxes = [f"sandbox{n}" for n in range(50)]
        acknowledged, sent = collections.Counter(), set()
        for number in range(ROUNDS):
            daemon = self.start()
            load = Load(daemon.address, sandboxes)
            target = chance.randrange(1, 600)
            until(lambda: sum(load.acknowledged.values()) >= target, "the load to get going")
            daemon.kill()
            load.join()
            self.died_on_purpose(daemon)
            self.assertEqual(load.refused, [])
            acknowledged += load.acknowledged
            sent |= load.sent
            self.judge(acknowledged, sent, f"round {number}")
        daemon = self.start()
        self.home.wait_folded(30)
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])
        self.assertEqual(self.count("ledger_state", "skipped = 0"), 1)
        self.assertEqual({r["sandbox_id"] for r in self.home.query("SELECT sandbox_id FROM sandboxes")}, set(sandboxes))
        self.ledger_is_what_the_log_says(daemon)

    def judge(self, acknowledged, sent, note):
        """Reads the store as the killed daemon left it."""
        rows = self.home.query("SELECT event_id, deliveries FROM events")
        stored = {r["event_id"]: r["deliveries"] for r in rows}
        self.assertEqual(len(stored), len(rows), f"{note}: stored twice")
        self.assertEqual(set(acknowledged) - set(stored), set(), f"{note}: acknowledged and lost")
        self.assertEqual(set(stored) - sent, set(), f"{note}: stored and never sent")
        self.assertEqual(self.home.shell("PRAGMA quick_check"), [{"quick_check": "ok"}], note)

    def ledger_is_what_the_log_says(self, daemon):
        """The same events into a fresh store, in one go, give the same ledger."""
        views = ("sandboxes", "runs", "cost_hourly", "cost_daily", "activity_hourly", "template_stats")

        def tell():
            rows = {v: self.home.query(f"SELECT * FROM {v} ORDER BY 1, 2, 3, 4") for v in views}
            for row in sum(rows.values(), []):
                row.pop("changed_seq", None)
            return rows
        before = tell()
        bodies = [r["payload"] for r in self.home.query("SELECT payload FROM events ORDER BY event_id")]
        self.stop(daemon)
        self.fresh()
        daemon = self.start()
        with contextlib.closing(http_connection(daemon.address)) as connection:
            for text in bodies:
                body = text.encode()
                answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                self.assertEqual(answer.outcome, "stored")
        self.home.wait_folded(30)
        after = tell()
        for view in views:
            self.assertTrue(before[view], view)
            self.assertEqual(len(after[view]), len(before[view]), view)
            for a, b in zip(after[view], before[view]):
                self.assertEqual(a, b, view)

    @plain_only("a sanitizer starts slowly")
    def test_is_back_within_a_second(self):
        daemon = self.start()
        load = Load(daemon.address, ["a", "b"])
        until(lambda: sum(load.acknowledged.values()) >= 500, "the load to get going")
        daemon.kill()
        load.join()
        self.died_on_purpose(daemon)
        begin = time.monotonic()
        daemon = self.start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.assertLess(time.monotonic() - begin, 1)
