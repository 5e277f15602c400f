"""Goal: the promise. kill -9 at any moment loses no acknowledged event and stores none twice; the store is sound, the
ledger catches up and is what a rebuild makes, no alert is lost, and the daemon is back at once, whatever is in its log.
"""
import collections
import contextlib
import random
import sqlite3
import time

from harness import LONG, SANITIZED, SECRET, Case, encode, event, exchange, http_connection, plain_only, sign_e2b, until
from load import Load
from test_alerts import Receiver

ROUNDS = 300 if LONG else 3 if SANITIZED else 20
REBUILT_EVERY = 50  # rounds, and at the end
VIEWS = ("sandboxes", "runs", "executions", "cost_hourly", "cost_daily", "activity_hourly", "template_stats")
LOG_BYTES, LOG_ROUNDS = (64 << 20, 10) if LONG else (16 << 20, 1)


class KillNine(Case):
    def test_loses_nothing_that_was_acknowledged_and_stores_nothing_twice(self):
        chance = random.Random(20261122)
        acknowledged, sent = collections.Counter(), set()
        receiver = Receiver()
        self.addCleanup(receiver.close)
        self.home.configure(store={"wal_limit": "1MiB"},  # checkpoints every few commits
                            extra=f"[notify ops]\nkind = webhook\nurl = {receiver.url}\n"
                                  "[alert failed]\non = execution_failed\nnotify = ops\nquiet = 2s\nrepeat = 1s\n")
        load = None
        for number in range(ROUNDS):
            daemon = self.start()
            if number % REBUILT_EVERY == REBUILT_EVERY - 1:
                self.a_rebuild_makes_the_same()
            # Some sandboxes are of the round before.
            load = Load(daemon.address, [f"sandbox{n}" for n in range(20 * number, 20 * number + 50)], failures=0.1, before=load)
            target = chance.randrange(1, 600)
            until(lambda: load.count >= target, "the load to get going")
            daemon.kill()
            load.join()
            self.died_on_purpose(daemon)
            self.assertEqual(load.refused, [])
            acknowledged += load.acknowledged
            sent |= load.sent
            self.judge(acknowledged, sent, f"round {number}")
        daemon = self.start()
        self.home.wait_folded(120)
        told = self.no_alert_is_lost(receiver)
        self.a_rebuild_makes_the_same()
        print(f"     kill -9: {ROUNDS}, {sum(acknowledged.values())} acknowledgements, 0 lost, "
              f"failed executions {told[0]}, in {told[1]} notifications")
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])
        self.assertEqual(self.count("ledger_state", "skipped = 0"), 1)
        self.assertEqual(self.home.query("SELECT sandbox_id FROM sandboxes ORDER BY 1"),
                         self.home.query("SELECT DISTINCT sandbox_id FROM events ORDER BY 1"))
        self.ledger_is_what_the_log_says(daemon)

    def judge(self, acknowledged, sent, note):
        """Reads the store as the killed daemon left it."""
        rows = self.home.query("SELECT event_id, deliveries FROM events")
        stored = {r["event_id"]: r["deliveries"] for r in rows}
        self.assertEqual(len(stored), len(rows), f"{note}: stored twice")
        self.assertEqual(set(acknowledged) - set(stored), set(), f"{note}: acknowledged and lost")
        self.assertEqual(set(stored) - sent, set(), f"{note}: stored and never sent")
        self.assertEqual(self.home.shell("PRAGMA quick_check"), [{"quick_check": "ok"}], note)

    def no_alert_is_lost(self, receiver):
        """Each failed execution is in the total of one alert: those totals survive what kill -9 interrupts. A notification
        that was sent and not yet reported comes again under its id."""
        failed = self.count("failed_executions")
        self.assertGreater(failed, 0)

        def told():
            return {body["id"]: body["total"] for body in receiver.taken if body["state"] == "resolved"}
        until(lambda: sum(told().values()) >= failed, f"the totals of resolved alerts to come to {failed}; {told()}", 30)
        self.assertEqual(sum(told().values()), failed)
        everything = {body["id"]: body["count"] for body in receiver.taken}
        self.assertEqual(sum(everything.values()), failed)
        return failed, len(everything)

    def tell(self):
        rows = {v: self.home.query(f"SELECT * FROM {v} ORDER BY 1, 2, 3, 4") for v in VIEWS}
        for row in sum(rows.values(), []):
            row.pop("changed_seq", None)
        return rows

    def same_ledger(self, before):
        after = self.tell()
        for view in VIEWS:
            self.assertTrue(before[view], view)
            self.assertEqual(len(after[view]), len(before[view]), view)
            for a, b in zip(after[view], before[view]):
                self.assertEqual(a, b, view)

    def a_rebuild_makes_the_same(self):
        self.home.wait_folded(120)
        before = self.tell()
        self.ctl("rebuild")
        self.same_ledger(before)

    def ledger_is_what_the_log_says(self, daemon):
        """The same events into a fresh store, in one go, give the same ledger."""
        before = self.tell()
        bodies = [r["payload"] for r in self.home.query("SELECT payload FROM events ORDER BY event_id")]
        self.stop(daemon)
        self.fresh()
        daemon = self.start()
        with contextlib.closing(http_connection(daemon.address)) as connection:
            for text in bodies:
                body = text.encode()
                answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                self.assertEqual(answer.outcome, "stored")
        self.home.wait_folded(120)
        self.same_ledger(before)

    @plain_only("its bound is that of the program as shipped")
    def test_is_back_in_time_with_a_large_log_that_a_reader_holds(self):
        acknowledged, sent, slowest = collections.Counter(), set(), 0
        self.home.configure(store={"wal_limit": "1GiB"})
        daemon = self.start()
        self.assert_outcome(daemon.post(first := event()), "stored")
        sent.add(first["id"])
        for number in range(LOG_ROUNDS):
            with contextlib.closing(sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True, isolation_level=None)) as db:
                db.execute("BEGIN")
                seen = db.execute("SELECT count(*) FROM events").fetchone()
                load = Load(daemon.address, ["a", "b"], padding=60000)
                until(lambda: self.log_bytes() >= LOG_BYTES and load.count > 100, "the log to grow", 60)
                daemon.kill()
                load.join()
                self.died_on_purpose(daemon)
                if number % 2:  # a reader that stays keeps the index of the log alive; else the start makes it anew
                    db.execute("ROLLBACK")
                    db.close()
                else:
                    self.assertEqual(db.execute("SELECT count(*) FROM events").fetchone(), seen)
                begin = time.monotonic()
                daemon = self.start()
                self.assert_outcome(daemon.post(again := event()), "stored")
                slowest = max(slowest, time.monotonic() - begin)
            self.assertEqual(load.refused, [])
            acknowledged += load.acknowledged
            sent |= load.sent | {again["id"]}
            self.judge(acknowledged, sent, f"round {number}")
        self.assertLess(slowest, 5)
        print(f"     kill -9 with {LOG_BYTES >> 20} MiB of log: {LOG_ROUNDS}, "
              f"{sum(acknowledged.values())} acknowledgements, 0 lost, back after at most {slowest:.2f} s")

    def log_bytes(self):
        return self.home.db.with_name("events.db-wal").stat().st_size

    @plain_only("a sanitizer starts slowly")
    def test_is_back_within_a_second(self):
        daemon = self.start()
        load = Load(daemon.address, ["a", "b"])
        until(lambda: load.count >= 500, "the load to get going")
        daemon.kill()
        load.join()
        self.died_on_purpose(daemon)
        begin = time.monotonic()
        daemon = self.start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.assertLess(time.monotonic() - begin, 1)
