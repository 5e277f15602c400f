"""Goal: a rebuild and retention work beside deliveries and survive what happens to them: every acknowledged event is stored once,
the ledger is what the events make, sums outlive payloads, and nothing is left behind, whether the daemon is killed, stopped or
runs out of disk meanwhile, or prices change (CONTRACT.md 2, 3, 5).

Stores are made by tests/bench/generate_store.
"""
import collections
import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import socket
import sqlite3
import subprocess
import threading
import time
import unittest

from harness import (E2B_SOURCE, EXECUTOR_SECRET, EXECUTOR_SOURCE, HOOKD, LONG, SANITIZED, SECRET, Case, encode, event, exchange,
                     execution, http_connection, plain_only, rfc3339, sign_e2b, sign_hmac, until)

GENERATE = pathlib.Path(HOOKD).resolve().parents[1] / "tests/bench/generate_store"
DAY = 86400
SUMS = ("cost_hourly", "cost_daily", "activity_hourly", "template_hourly", "template_stats")
LEDGER = ("sandboxes", "runs", "executions", *SUMS)
UNSTABLE = {"changed_seq", "seq"}
LEFT_OVER = "SELECT count(*) FROM sqlite_schema WHERE name GLOB 'new_*' OR name GLOB 'trash_*'"
SLOWEST_S = 4  # below commit_timeout, and with room for a machine that does other things
TABLES = ("event_link", "sandbox", "loose_event", "run", "execution", "cost_hour", "cost_day", "activity_hour", "template_hour",
          "template_total")


class Load:
    """Threads that deliver new events until they are told to stop or the daemon is gone."""

    def __init__(self, address, threads=4):
        self.address, self.ended, self.slowest_s = address, threading.Event(), 0
        self.acknowledged, self.other = collections.Counter(), []
        self.threads = [threading.Thread(target=self._deliver, args=(n,)) for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def _deliver(self, number):
        chance = random.Random(number)
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.closing(http_connection(self.address)) as connection:
                while not self.ended.is_set():
                    told = event(chance.choice(["created", "paused", "killed"]), sandbox_id=f"load{chance.randrange(200)}")
                    body, begin = encode(told), time.monotonic()
                    answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
                    if answer.outcome == "stored":
                        self.acknowledged[told["id"]] += 1
                    else:
                        self.other.append(answer)

    def join(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)


@unittest.skipUnless(os.access(GENERATE, os.X_OK), f"no {GENERATE}")
class Stored(Case):
    """A store that was made at once."""

    def generate(self, events, path=None, **configuration):
        path = path or self.home.db
        subprocess.run([GENERATE, "--events", str(events), path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True,
                       timeout=120)
        self.home.configure(**configuration)

    def write(self, sql):
        """Changes the store behind the daemon's back; it must be stopped."""
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            db.executescript(sql)

    def tell(self, views=LEDGER):
        """Every row of the views, but for when it came or changed. What waits to be closed by the clock is closed."""
        self.home.wait_folded(30)
        told = {}
        with contextlib.closing(sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True)) as db:
            for view in views:
                columns = [row[1] for row in db.execute(f"PRAGMA table_info({view})") if row[1] not in UNSTABLE]
                told[view] = collections.Counter(db.execute(f"SELECT {', '.join(columns)} FROM {view}"))
        return told

    def assert_told(self, told, note=""):
        for view, rows in self.tell(tuple(told)).items():
            gone, come = told[view] - rows, rows - told[view]
            self.assertFalse(gone or come, f"{note} {view}: {list(gone)[:2]} became {list(come)[:2]}, in all {len(gone)}, {len(come)}")

    def ask(self, request):
        """Sends a request to the control socket and does not wait for the answer."""
        sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(sock.close)
        sock.connect(f"{self.home.db}.control")
        sock.sendall(request.encode() + b"\n")
        return sock

    @staticmethod
    def read(sock):
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
        return data.decode()

    def status(self):
        return json.loads(self.read(self.ask("status")).removeprefix("ok "))

    def is_over(self):
        """No rebuild, and nothing left of one. A schema that changes under a reader is read again."""
        with contextlib.suppress(sqlite3.OperationalError):
            return not self.home.value("SELECT rebuilding FROM ledger_state") and not self.home.value(LEFT_OVER)

    def wait_over(self):
        until(self.is_over, "the rebuild to end and tidy up", 60)

    def kill(self, daemon):
        daemon.kill()
        self.died_on_purpose(daemon)

    def assert_stored_once(self, acknowledged):
        stored = collections.Counter(r["event_id"] for r in self.home.query("SELECT event_id FROM events"))
        self.assertEqual([i for i in acknowledged if stored[i] != 1], [])


class Beside(Stored):
    def test_deliveries_go_on_and_the_ledger_is_the_same_as_rebuilt_at_rest(self):
        self.generate(5000 if SANITIZED else 25000)
        daemon = self.start()
        load = Load(daemon.address)
        until(lambda: len(load.acknowledged) > 50, "the load to get going")
        before = len(load.acknowledged)
        self.ctl("rebuild")
        during = len(load.acknowledged) - before
        load.join()
        self.assertEqual(load.other, [])
        self.assertGreater(during, 100)
        self.assertLess(load.slowest_s, SLOWEST_S)
        self.assert_stored_once(load.acknowledged)
        self.wait_over()
        told, status = self.tell(), self.status()
        self.ctl("rebuild")
        self.assert_told(told, "rebuilt at rest")
        self.assertLess(status["rebuild_us"] / status["rebuild_slices"], 50000)

    def test_status_tells_how_far_it_is(self):
        self.generate(20000)
        self.start()
        self.ask("rebuild")
        until(lambda: self.status()["rebuild_seq"] > 500, "the rebuild to get going")
        (row,) = [r for r in json.loads(self.ctl("status", "--format", "json")) if r["item"] == "rebuilding"]
        self.assertEqual(row["value"], 1, "the rebuild was over too soon to tell anything")
        folded, of = map(int, re.fullmatch(r"folded (\d+) of (\d+)", row["note"]).groups())
        self.assertTrue(500 < folded <= of, row)
        self.wait_over()
        (row,) = [r for r in json.loads(self.ctl("status", "--format", "json")) if r["item"] == "rebuilding"]
        self.assertEqual((row["value"], row["note"]), (0, None))

    def test_a_reload_with_new_prices_begins_it_anew(self):
        self.generate(20000)
        daemon = self.start()
        self.ask("rebuild")
        until(lambda: self.status()["rebuild_seq"] > 500, "the rebuild to get going")
        self.home.configure(extra="[pricing]\nvcpu_second_usd = 0.000028\ngib_second_usd = 0.000009\n")
        daemon.reload()
        self.assertTrue(self.status()["rebuilding"], "the reload came too late to tell anything")
        self.wait_over()
        told = self.tell()
        self.ctl("rebuild")
        self.assert_told(told, "rebuilt with one price")

    def test_a_new_version_of_the_fold_rebuilds_at_start_and_skips_what_was_skipped(self):
        daemon = self.start()
        for n in range(6):
            self.assert_outcome(daemon.post(event(sandbox_id=f"s{n}")), "stored")
        self.home.wait_folded()
        self.stop(daemon)
        self.write("UPDATE event SET body_len = 1, id_at = NULL WHERE seq = 3; UPDATE position SET folded_seq = 0;"
                   + "".join(f"DELETE FROM {table};" for table in TABLES))
        daemon = self.start()
        self.home.wait_folded()
        self.assertEqual(self.home.value("SELECT skipped FROM ledger_state"), 1)
        told = self.tell()
        self.stop(daemon)
        self.write("UPDATE position SET fold_version = 0")
        daemon = self.start()
        self.assert_outcome(daemon.post(event("e2b-hookd.test", sandbox_id=None)), "stored")
        until(lambda: self.home.value("SELECT fold_version FROM schema_info") == 1, "the rebuild")
        self.assertIn("rebuilt", daemon.log)
        self.assertEqual(self.home.value("SELECT skipped FROM ledger_state"), 1)
        self.assertEqual(self.count("sandboxes"), 5)
        self.assert_told(told)


class Ends(Stored):
    def test_kill_9_at_any_moment_loses_nothing_and_leaves_nothing(self):
        self.generate(4000)
        chance, acknowledged = random.Random(20261123), collections.Counter()
        daemon = self.start()
        told = self.tell()
        for number in range(60 if LONG else 3 if SANITIZED else 8):
            self.ask("rebuild")
            load = Load(daemon.address, 1)
            time.sleep(chance.random() * 0.4)  # the moment is what is random
            self.kill(daemon)
            load.join()
            acknowledged += load.acknowledged
            daemon = self.start()
            self.wait_over()
        self.assert_stored_once(acknowledged)
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])
        now = self.tell()
        self.assertFalse(told["runs"] - now["runs"])
        self.ctl("rebuild")
        self.assert_told(now, "rebuilt at rest")

    def begin(self, tries):
        until(lambda: self.home.value("SELECT rebuild FROM position") == tries, "the rebuild to begin")

    def test_two_deaths_in_it_are_enough(self):
        self.generate(12000)
        daemon = self.start()
        told = self.tell()
        self.ask("rebuild")
        self.begin(2)
        self.kill(daemon)
        daemon = self.start()
        self.begin(3)
        self.kill(daemon)
        daemon = self.start()
        daemon.wait_log("the rebuild was given up")
        self.wait_over()
        self.assert_told(told)
        self.assertTrue(self.status()["rebuild_failed"])
        self.ctl("rebuild")
        self.wait_over()
        self.assert_told(told)
        self.assertFalse(self.status()["rebuild_failed"])

    def test_it_outlives_orderly_stops(self):
        self.generate(12000)
        daemon = self.start()
        told = self.tell()
        self.ask("rebuild")
        for _ in range(4):
            self.begin(2)
            self.stop(daemon)
            self.assertEqual(self.home.value("SELECT rebuild FROM position"), 1)
            daemon = self.start()
        daemon.wait_log("the ledger was rebuilt", 0, 30)
        self.wait_over()
        self.assert_told(told)


class Retention(Stored):
    def story(self, sandbox, start):
        common = {"sandbox_id": sandbox, "sandbox_template_id": "tpl", "sandbox_execution_id": f"run-{sandbox}"}
        return [event("created", timestamp=rfc3339(start), **common),
                execution(timestamp=rfc3339(start + 5), sandbox_id=sandbox, sandbox_template_id="tpl"),
                event("killed", {"execution": {"started_at": rfc3339(start), "execution_time": 60000, "vcpu_count": 2,
                                               "memory_mb": 512}}, timestamp=rfc3339(start + 60), **common)]

    def test_a_new_price_reaches_sealed_sandboxes_too(self):
        now = int(time.time())
        daemon = self.start()
        for body in self.story("old", now - 3 * DAY) + self.story("new", now - 3600):
            self.assert_outcome(daemon.post(body), "stored")
        self.home.wait_folded()
        costs = {r["sandbox_id"]: r["cost_nanousd"] for r in self.home.query("SELECT * FROM runs")}
        self.stop(daemon)
        self.home.configure(store={"retention": "1d", "ledger_retention": "730d"},
                            extra="[pricing]\nvcpu_second_usd = 0.000028\ngib_second_usd = 0.000009\n")
        daemon = self.start()
        self.ctl("prune")
        self.assertEqual(self.count("events", "sandbox_id = 'old'"), 0)
        self.ctl("rebuild")
        self.assertEqual({r["sandbox_id"]: r["cost_nanousd"] for r in self.home.query("SELECT * FROM runs")},
                         {sandbox: 2 * cost for sandbox, cost in costs.items()})
        self.assertEqual(self.home.value("SELECT sum(cost_nanousd) FROM cost_daily"), 2 * sum(costs.values()))
        self.assertEqual(self.count("executions"), 2)
        told = self.tell()
        self.ctl("rebuild")
        self.assert_told(told, "once more")

    def used(self):
        with contextlib.closing(sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True)) as db:
            return (db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]) * \
                db.execute("PRAGMA page_size").fetchone()[0]

    def test_the_oldest_payloads_make_room_and_the_sums_stay(self):
        limit = 8 << 20
        self.generate(10000, store={"max_size": limit})
        times = sorted(r["time"] for r in self.home.query("SELECT time FROM events"))
        self.assertGreater(self.used(), 1.2 * limit)
        told = self.tell(SUMS[:2])
        daemon = self.start()
        load = Load(daemon.address, 2)
        until(lambda: self.used() <= limit, "the oldest to go", 30)
        until(lambda: len(load.acknowledged) > 300, "some more load", 30)
        self.assertLess(self.used(), 1.1 * limit)
        load.join()
        self.assertEqual(load.other, [])
        horizon = self.home.value("SELECT horizon_s FROM position")
        self.assertEqual(self.count("events", "time < ?", horizon - 1), 0)
        self.assertEqual(self.count("events", "sandbox_id NOT GLOB 'load*' AND time >= ?", horizon),
                         len([t for t in times if t >= horizon]))
        self.assert_stored_once(load.acknowledged)
        now = self.tell(SUMS[:2])
        for view, rows in told.items():
            before = collections.Counter(row for row in rows if row[0] < times[-1] - 2 * DAY)
            self.assertFalse(before - now[view], view)
        self.ctl("rebuild")
        self.assert_told(now, "rebuilt")

    def test_what_came_just_now_stays_though_the_ledger_alone_is_too_large(self):
        self.generate(5000, store={"max_size": "1MiB"})
        daemon = self.start()
        bodies = [event("created", sandbox_id=f"young{n}") for n in range(5)]
        for body in bodies:
            self.assert_outcome(daemon.post(body), "stored")
        daemon.wait_log("larger than store.max_size", 0, 30)
        late = event("created", timestamp=rfc3339(time.time() - 20))
        self.assert_outcome(daemon.post(late), "stored")
        for body in bodies:
            self.assert_outcome(daemon.post(body), "duplicate")
        until(lambda: self.status()["retention_slices"] > 20, "retention to go on")
        self.assertEqual(sum("larger than store.max_size" in line for line in daemon.lines), 1)

    @plain_only("its bound is about time")
    def test_a_slice_of_pruning_is_short(self):
        self.generate(25000)
        self.home.configure(store={"retention": "30d", "ledger_retention": "40d"})
        daemon = self.start()
        load = Load(daemon.address, 2)
        self.ctl("prune")
        load.join()
        status = self.status()
        self.assertGreater(status["pruned_events"], 10000)
        self.assertGreater(status["pruned_sandboxes"], 500)
        self.assertEqual(load.other, [])
        self.assertLess(load.slowest_s, SLOWEST_S)
        self.assertLess(status["retention_us"] / status["retention_slices"], 10000)
        self.assertLess(status["longest_retention_us"], 250000)  # 10 ms where nobody else wants the processor


class Identity(Stored):
    EVENTS = 200000 if LONG else 135000  # more than are kept in memory: the index has the rest

    def bodies(self):
        last = self.home.value("SELECT max(seq) FROM event")
        return [self.home.query("SELECT payload, source FROM events WHERE seq = ?", seq)[0]
                for seq in (1, 2, 1000, last // 4, last // 2, last - 100000, last - 1, last)]

    def expect_duplicates(self, daemon, bodies):
        for row in bodies:
            body = row["payload"].encode()
            path, headers = ("/webhooks/e2b", sign_e2b(SECRET, body)) if row["source"] == "e2b" else \
                ("/webhooks/executors", sign_hmac(EXECUTOR_SECRET, body))
            self.assert_outcome(daemon.request("POST", path, body, headers), "duplicate")

    @plain_only("a large store")
    def test_repeats_are_known_however_old_and_whatever_became_of_the_index(self):
        self.generate(self.EVENTS, sources={"e2b": E2B_SOURCE, "executors": EXECUTOR_SOURCE})
        events, bodies = self.home.value("SELECT count(*) FROM event"), self.bodies()
        daemon = self.start()
        self.expect_duplicates(daemon, bodies)
        self.kill(daemon)
        self.write("UPDATE position SET indexed_seq = 0; DELETE FROM event_identity")
        for indexed in (1, 20000):  # and killed while it is written
            daemon = self.start()
            until(lambda: self.home.value("SELECT count(*) FROM event_identity") >= indexed, "the index to grow", 30)
            self.kill(daemon)
        daemon = self.start()
        until(lambda: self.home.value("SELECT indexed_seq FROM position") > self.EVENTS - 100000, "the index to be written", 30)
        self.expect_duplicates(daemon, bodies)
        self.stop(daemon)
        daemon = self.start()
        self.expect_duplicates(daemon, bodies)
        self.assertEqual(self.home.value("SELECT count(*) FROM event"), events)


def mount_small(path, size):
    if os.geteuid() != 0:
        raise unittest.SkipTest("needs root, to mount a small file system")
    path.mkdir()
    run = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if run.returncode:
        raise unittest.SkipTest(f"cannot mount a small file system: {run.stderr.strip()}")


class FullDisk(Stored):
    def setUp(self):
        super().setUp()
        small = self.home.path / "small"
        mount_small(small, "160m")
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        self.home.db, self.ballast = small / "events.db", small / "ballast"

    def fill(self, leave):
        """Takes the space but for so many bytes."""
        with open(self.ballast, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while True:
                disk = os.statvfs(self.ballast.parent)
                room = disk.f_bavail * disk.f_frsize - leave
                if leave and room <= 0:
                    break
                f.write(bytes(max(min(room, 1 << 20), 4096)))

    def post_all(self, daemon, n):
        answers = collections.Counter()
        for _ in range(n):
            answer = daemon.post(event("created"))
            answers[answer.outcome] += 1
            if answer.status == 503:
                self.assertEqual(answer.headers["retry-after"], "10")
        self.assertLessEqual(set(answers), {"stored", 503})
        return answers

    def recover(self, daemon):
        self.ballast.unlink()
        until(lambda: daemon.post(event("created")).outcome == "stored", "deliveries to be stored again", 20)

    def test_a_rebuild_leaves_deliveries_their_room(self):
        self.generate(8000)
        self.fill(60 << 20)
        daemon = self.start()
        told = self.tell()
        sock = self.ask("rebuild")
        daemon.wait_log("the rebuild was given up", 0, 30)
        self.assertIn("No space left", daemon.log)
        self.assertIn("error the rebuild was given up", self.read(sock))
        self.assertEqual(self.post_all(daemon, 20)["stored"], 20)
        self.ballast.unlink()
        self.wait_over()
        self.assertFalse(told["runs"] - self.tell()["runs"])
        self.ctl("rebuild")
        self.wait_over()

    def test_intake_says_so_and_recovers_when_the_disk_fills_in_a_rebuild(self):
        self.generate(8000)
        daemon = self.start()
        before = self.count("events")
        self.ask("rebuild")
        until(lambda: self.status()["rebuild_seq"] > 500, "the rebuild to get going")
        self.fill(0)
        answers = self.post_all(daemon, 300)
        self.recover(daemon)
        self.wait_over()
        stored = self.count("events") - before
        self.assertGreater(stored, answers["stored"])
        now = self.tell()
        self.ctl("rebuild")
        self.assert_told(now, "rebuilt with room")
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])

    def test_pruning_goes_on_when_there_is_room_again(self):
        self.generate(8000)
        self.home.configure(store={"retention": "30d", "ledger_retention": "730d"})
        told = self.tell(SUMS)
        daemon = self.launch()
        daemon.start()
        until(lambda: self.status()["pruned_events"] > 50, "pruning to get going")
        self.fill(0)
        self.post_all(daemon, 100)
        self.recover(daemon)
        until(lambda: not self.status()["pruning"], "pruning to end", 30)
        horizon = self.home.value("SELECT horizon_s FROM position")
        self.assertEqual(self.count("events", "time < ?", horizon), 0)
        self.assertFalse(told["cost_hourly"] - self.tell()["cost_hourly"])
        now = self.tell()
        self.ctl("rebuild")
        self.assert_told(now, "rebuilt")


if __name__ == "__main__":
    unittest.main()
