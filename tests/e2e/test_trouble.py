"""Goal: real trouble, not simulated. A disk filled to the last block, a directory that became read-only, no descriptors left, a
clock that jumps, a reader that holds the write-ahead log, files that another user made, a store that is deleted, replaced or
damaged: nothing that was acknowledged is lost, what cannot be kept is answered 503 and comes again, the daemon says what is
wrong, and it works again by itself as soon as it can.
"""
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
import unittest

from harness import HOOKCTL, SANITIZED, SECRET, encode, event, exchange, http_connection, rfc3339, sign_e2b, until
from test_admin import ADMIN, Admin, Page

ROOT_ONLY = "needs root, to mount a file system or to become another user"
FAKETIME = next((str(p) for p in pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


class Trouble(Admin):
    def setUp(self):
        super().setUp()
        self.acknowledged = set()

    def deliver(self, daemon, body=None):
        """One delivery; what is acknowledged is remembered. Only 200 and 503 are answers here."""
        body = body or event()
        answer = daemon.post(body)
        if answer.status == 200:
            self.assertIn(answer.outcome, ("stored", "duplicate"))
            self.acknowledged.add(body["id"])
        else:
            self.assertEqual(answer.status, 503, answer)
            self.assertEqual(answer.headers["retry-after"], "10")
        return answer

    def deliver_until(self, daemon, status, what, seconds=30, body=None):
        return until(lambda: self.deliver(daemon, body() if body else None).status == status, what, seconds)

    def stored(self):
        return [r["event_id"] for r in self.home.query("SELECT event_id FROM events")]

    def nothing_is_lost(self):
        stored = self.stored()
        self.assertEqual(len(stored), len(set(stored)), "stored twice")
        self.assertEqual(self.acknowledged - set(stored), set(), "acknowledged and lost")
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])

    def status_of(self, item):
        run = subprocess.run([HOOKCTL, "-c", str(self.home.config), "status", "--format", "json"], capture_output=True,
                             text=True, timeout=20)
        return next(r for r in json.loads(run.stdout) if r["item"] == item)


@unittest.skipUnless(os.geteuid() == 0, ROOT_ONLY)
class Disk(Trouble):
    SIZE = 12 << 20

    def setUp(self):
        super().setUp()
        self.mount = self.home.path / "disk"
        self.mount.mkdir()
        run = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.SIZE},mode=0755", "none", self.mount],
                             capture_output=True, text=True)
        if run.returncode != 0:
            raise unittest.SkipTest(f"no file system can be mounted here: {run.stderr.strip()}")
        self.home.db = self.mount / "events.db"

    def _clean(self):
        try:
            super()._clean()
        finally:
            subprocess.run(["umount", "-l", self.mount], capture_output=True)
            shutil.rmtree(self.home.path, ignore_errors=True)

    def remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.mount], check=True, capture_output=True)

    def fill(self):
        """Takes every block that is left."""
        ballast = self.mount / "ballast"
        with contextlib.suppress(OSError), open(ballast, "ab", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        self.assertEqual(os.statvfs(self.mount).f_bfree, 0)
        return ballast

    def test_a_full_disk_is_answered_503_and_forgotten_when_there_is_room(self):
        daemon = self.start(admin=ADMIN)
        for _ in range(20):
            self.deliver(daemon)
        for _ in range(3):
            ballast = self.fill()
            large = lambda: event(data={"text": "x" * 20000})
            self.deliver_until(daemon, 503, "the disk to be full", body=large)
            text = self.ready_when(503, "the full disk to be told")
            self.assertIn("disk_full: ", text)
            self.assertIn("commit_failed: ", until(lambda: (t := self.ready_when(503, "x")) and "commit_failed" in t and t,
                                                   "the failed commit to be told"))
            self.assertEqual(self.get("/livez").status, 200)
            for _ in range(20):
                self.deliver(daemon, large())
            self.nothing_is_lost()
            ballast.unlink()
            until(lambda: "commit_failed" not in self.get("/readyz").body.decode(), "it to find room by itself", 20)
            self.assertEqual(self.deliver(daemon).status, 200)
            self.nothing_is_lost()
        self.home.wait_folded()
        self.assertGreater(self.page()("e2b_hookd_commit_failures_total"), 0)
        self.stop(daemon)
        daemon = self.start()
        self.assertEqual(self.deliver(daemon).status, 200)
        self.nothing_is_lost()

    def test_it_starts_on_a_full_disk_or_says_why_not(self):
        daemon = self.start()
        self.deliver(daemon)
        daemon.kill()
        self.died_on_purpose(daemon)
        ballast = self.fill()
        daemon = self.launch()
        until(lambda: daemon.addresses or daemon.process.poll() is not None, "it to start or to end")
        if daemon.process.poll() is not None:
            self.assertEqual(daemon.wait(), 74)
            self.assertRegex(daemon.log, "make room")
            self.died_on_purpose(daemon)
        else:
            self.stop(daemon)
        ballast.unlink()
        self.assertEqual(self.deliver(self.start()).status, 200)
        self.nothing_is_lost()

    def test_a_file_system_that_becomes_read_only_is_told_and_forgotten(self):
        daemon = self.start(admin=ADMIN)
        self.deliver(daemon)
        writable = pathlib.Path(f"/proc/{daemon.pid}/fd")
        # What is open for writing keeps a mount from becoming read-only: this is the directory's side of it.
        self.home.db.parent.chmod(0o500)
        for _ in range(5):
            self.assertEqual(self.deliver(daemon).status, 200, "open files need no directory")
        self.assertTrue(writable.exists())
        self.home.db.parent.chmod(0o755)
        self.stop(daemon)
        self.remount("ro")
        daemon = self.launch()
        self.assertEqual(daemon.wait(), 77)
        self.assertRegex(daemon.log, "must be able to write")
        self.died_on_purpose(daemon)
        self.remount("rw")
        self.assertEqual(self.deliver(self.start()).status, 200)
        self.nothing_is_lost()


class Descriptors(Trouble):
    def test_none_left_delays_new_connections_and_nothing_else(self):
        daemon = self.start(admin=ADMIN)
        self.deliver(daemon)
        before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        open_now = int(self.page()("process_open_fds"))
        limit = open_now + 20
        with contextlib.closing(http_connection(daemon.address)) as kept, contextlib.closing(
                http_connection(daemon.admin)) as kept_admin:
            self.assertEqual(exchange(kept, "GET", "/healthz").status, 200)
            self.assertEqual(exchange(kept_admin, "GET", "/livez").status, 200)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
            held = [daemon.connect() for _ in range(60)]
            try:
                until(lambda: re.search(r"descriptor|EMFILE|Too many open files", daemon.log), "it to say so")
                refused = lambda: Page(exchange(kept_admin, "GET", "/metrics").body.decode())("e2b_hookd_accept_failures_total")
                cpu, tries = self.cpu_seconds(daemon), refused()
                begin = time.monotonic()
                for _ in range(30):
                    body = encode(one := event())
                    answer = exchange(kept, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    self.assertEqual(answer.outcome, "stored")
                    self.acknowledged.add(one["id"])
                until(lambda: time.monotonic() - begin > 1, "a second to pass")
                # On a busy machine who spins gets little time for it: so what it does is counted, too.
                used, tries = self.cpu_seconds(daemon) - cpu, refused() - tries
                self.assertLess(tries, 50 * (time.monotonic() - begin), "it spins")
                self.assertLess(used, 0.7 * (time.monotonic() - begin), "it spins")
                self.assertLess(len(daemon.lines), 60, "it floods its log")
            finally:
                for sock in held:
                    sock.close()
            self.deliver_until(daemon, 200, "new connections to be taken, with the low limit still")
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        self.assertGreater(self.page()("e2b_hookd_accept_failures_total"), 0)
        self.nothing_is_lost()

    @staticmethod
    def cpu_seconds(daemon):
        fields = pathlib.Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@unittest.skipUnless(FAKETIME and not SANITIZED, "needs libfaketime (Debian package faketime), which a sanitizer does not bear")
class Clock(Trouble):
    """The wall clock jumps; the steady one does not, as on a real machine."""

    def setUp(self):
        super().setUp()
        self.file = self.home.path / "clock"
        self.set_clock("+0")

    def set_clock(self, offset):
        beside = self.file.with_suffix(".new")
        beside.write_text(offset + "\n")
        beside.rename(self.file)

    def start_with_clock(self, **configuration):
        return self.start(environment={"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.file),
                                       "FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1",
                                       "FAKETIME_DONT_FAKE_MONOTONIC": "1"}, **configuration)

    def test_jumps_forth_and_back_destroy_nothing(self):
        daemon = self.start_with_clock(admin=ADMIN, store={"retention": "1d", "ledger_retention": "2d"})
        old = event(timestamp=rfc3339(time.time() - 3600))
        self.assertEqual(self.deliver(daemon, old).status, 200)
        for _ in range(5):
            self.deliver(daemon)
        for offset in ("+400d", "-400d", "+3600d", "+0", "-2h", "+2h", "+0"):
            mark = self.page()("e2b_hookd_last_commit_timestamp_seconds")
            self.set_clock(offset)
            # Its clock has moved: what is told of the last commit follows it.
            sent = event()
            answer = daemon.post(sent)
            self.assertIn(answer.status, (200, 503), offset)
            if answer.status == 200 and answer.outcome == "stored":
                self.acknowledged.add(sent["id"])
            if offset != "+0":
                until(lambda: self.page()("e2b_hookd_last_commit_timestamp_seconds") != mark, f"the clock at {offset}")
            self.assertEqual(self.get("/readyz").status, 200, offset)
            self.assertEqual(self.acknowledged - set(self.stored()), set(), offset)
        self.assertEqual(self.page()("e2b_hookd_pruned_events_total"), 0)
        self.home.wait_folded()
        self.assertEqual(self.deliver(daemon).status, 200, "the right clock again: as before")
        self.nothing_is_lost()

    def test_a_start_with_a_wrong_clock_destroys_nothing(self):
        daemon = self.start(store={"retention": "1d", "ledger_retention": "2d"})
        for _ in range(5):
            self.deliver(daemon)
        self.home.wait_folded()
        self.stop(daemon)
        for offset in ("+4000d", "-4000d"):
            self.set_clock(offset)
            daemon = self.start_with_clock()
            daemon.post(event())
            self.nothing_is_lost()
            self.stop(daemon)
        daemon = self.start()
        self.assertEqual(self.deliver(daemon).status, 200)
        self.nothing_is_lost()


class LongReader(Trouble):
    def test_a_reader_that_stays_is_named_and_its_log_shrinks_when_it_leaves(self):
        daemon = self.start(admin=ADMIN, store={"wal_limit": "2MiB"})
        self.deliver(daemon)
        with contextlib.closing(sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            self.assertEqual(db.execute("SELECT count(*) FROM events").fetchone()[0], 1)
            while self.page()("e2b_hookd_wal_bytes") < 3 << 20:
                for _ in range(20):
                    self.assertEqual(self.deliver(daemon, event(data={"text": "x" * 20000})).status, 200)
            line = daemon.wait_log(r"wal_limit")
            self.assertRegex(line, rf'pid="{os.getpid()} ', "it names who holds it")
            row = self.status_of("wal_bytes")
            self.assertEqual((row["ok"], row["value"] > 2 << 20), (0, True))
            self.assertIn(str(os.getpid()), row["note"])
            self.assertEqual(self.get("/readyz").status, 200, "deliveries do not suffer")
            self.assertEqual(db.execute("SELECT count(*) FROM events").fetchone()[0], 1)
            db.execute("ROLLBACK")
        until(lambda: (self.deliver(daemon), self.page()("e2b_hookd_wal_bytes") < 2 << 20)[1], "the log to shrink", 20)
        until(lambda: self.status_of("wal_bytes")["ok"] == 1, "the tool to say so")
        self.nothing_is_lost()


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), ROOT_ONLY)
class ForeignFiles(Trouble):
    def test_shared_memory_of_another_user_is_named_and_what_to_do(self):
        self.stop(self.start())
        self.home.path.chmod(0o755)
        shm = self.home.path / "events.db-shm"
        shm.unlink()
        shm.touch(0o644)
        for path in [self.home.path, *self.home.path.iterdir()]:
            os.chown(path, 65532, 65532)
        os.chown(shm, 65533, 65533)
        shm.chmod(0o444)
        daemon = self.launch(wrapper=["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"])
        if daemon.wait() == 127 or "failed to execute" in daemon.log:
            self.died_on_purpose(daemon)
            raise unittest.SkipTest("another user cannot enter the directory of the program")
        self.died_on_purpose(daemon)
        self.assertEqual(daemon.process.returncode, 77, daemon.log)
        self.assertRegex(daemon.log, r"events\.db-shm: owned by uid 65533 and not writable.*chown")


class Replaced(Trouble):
    """Beneath a running daemon."""

    def ended(self, daemon, *words):
        self.assertEqual(daemon.wait(30), 74, daemon.log)
        self.died_on_purpose(daemon)
        for word in words:
            self.assertRegex(daemon.log, word)

    def start_loaded(self):
        daemon = self.start(admin=ADMIN)
        for _ in range(30):
            self.deliver(daemon)
        return daemon

    def test_a_deleted_store_is_saved_and_given_back(self):
        daemon = self.start_loaded()
        for path in self.home.path.glob("events.db*"):
            path.unlink()
        answer = self.deliver(daemon)
        self.assertEqual(answer.status, 503, "nothing is acknowledged that nobody would find")
        self.ended(daemon, "deleted, moved or replaced", "saved", "restore")
        saved, = self.home.path.glob("events.db.rescued-*")
        self.assertEqual(saved.stat().st_mode & 0o777, 0o640)
        run = subprocess.run([HOOKCTL, "-c", str(self.home.config), "restore", str(saved)], capture_output=True, text=True,
                             timeout=30)
        self.assertEqual(run.returncode, 0, run.stderr)
        daemon = self.start()
        self.nothing_is_lost()
        self.assertEqual(self.deliver(daemon).status, 200)

    def test_no_delivery_is_needed_to_notice(self):
        daemon = self.start_loaded()
        begin = time.monotonic()
        self.home.db.unlink()
        self.ended(daemon, "saved")
        self.assertLess(time.monotonic() - begin, 10)

    def test_each_of_its_files_counts(self):
        for name in ("events.db", "events.db-wal", "events.db-shm", "events.db.lock"):
            with self.subTest(name):
                self.fresh()
                self.acknowledged.clear()
                daemon = self.start_loaded()
                os.rename(self.home.path / name, self.home.path / "away")
                self.assertEqual(self.deliver(daemon).status, 503)
                self.ended(daemon, "deleted, moved or replaced")
                if name == "events.db":
                    os.rename(self.home.path / "away", self.home.db)
                daemon = self.start()
                self.nothing_is_lost()
                self.assertEqual(self.deliver(daemon).status, 200)

    def test_another_store_in_its_place_is_opened_by_the_next_start(self):
        daemon = self.start_loaded()
        copy = self.home.path / "copy.db"
        self.assertEqual(subprocess.run([HOOKCTL, "-c", str(self.home.config), "backup", str(copy)],
                                        capture_output=True, timeout=30).returncode, 0)
        late = event()
        self.deliver(daemon, late)
        os.rename(copy, self.home.db)
        self.assertEqual(self.deliver(daemon).status, 503)
        self.ended(daemon, "saved")
        daemon = self.start()
        self.assertEqual(self.deliver(daemon).status, 200)
        saved, = self.home.path.glob("events.db.rescued-*")
        with contextlib.closing(sqlite3.connect(f"file:{saved}?mode=ro", uri=True)) as db:
            kept = {r[0] for r in db.execute("SELECT event_id FROM events")}
        self.assertEqual(self.acknowledged - kept - set(self.stored()), set())
        self.assertIn(late["id"], kept)

    def test_a_load_meets_no_false_acknowledgement(self):
        daemon = self.start(admin=ADMIN)
        ended, lock = threading.Event(), threading.Lock()

        def load():
            with contextlib.suppress(OSError, http.client.HTTPException):
                with contextlib.closing(http_connection(daemon.address)) as connection:
                    while not ended.is_set():
                        body = encode(one := event())
                        answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                        if answer.status == 200:
                            with lock:
                                self.acknowledged.add(one["id"])
                        if answer.headers.get("connection") == "close":
                            return
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(self.acknowledged) > 200, "the load to get going")
        for path in self.home.path.glob("events.db*"):
            path.unlink()
        self.ended(daemon, "saved")
        ended.set()
        for thread in threads:
            thread.join(30)
        saved, = self.home.path.glob("events.db.rescued-*")
        self.home.db = saved
        self.assertEqual(self.acknowledged - set(self.stored()), set(), "acknowledged and lost")


class Damaged(Trouble):
    """Pages that are not what they were."""

    def spoil(self, what):
        """what: page numbers from 1; overwrites them, and nothing else, in the stopped store."""
        with open(self.home.db, "r+b") as file:
            for page in what:
                file.seek((page - 1) * 4096)
                file.write(os.urandom(4096))

    def stopped_store(self, count=30, **configuration):
        daemon = self.start(admin=ADMIN, **configuration)
        for _ in range(count):
            self.deliver(daemon)
        self.home.wait_folded()
        self.stop(daemon)
        self.assertEqual(os.stat(f"{self.home.db}-wal").st_size, 0, "all is in the one file")

    def root_page(self, table):
        return self.home.value("SELECT rootpage FROM sqlite_schema WHERE name = ?", table)

    def was_set_aside(self, daemon, log_too=True):
        self.assertRegex(daemon.log, r"error.*THE STORE WAS DAMAGED.*aside=")
        aside = [p for p in self.home.path.glob("events.db.corrupt-*") if not p.name.endswith(("-wal", "-shm"))]
        self.assertEqual(len(aside), 1)
        if log_too:
            self.assertTrue(pathlib.Path(f"{aside[0]}-wal").exists(), "its log went with it")
        self.assertEqual(self.page()("e2b_hookd_corrupt_stores"), 1)
        row = self.status_of("corrupt_stores")
        self.assertEqual((row["value"], row["ok"]), (1, 0))
        self.assertEqual(self.get("/readyz").status, 200)
        return aside[0]

    def test_a_damaged_store_is_set_aside_whole_and_an_empty_one_begun(self):
        spoils = {
            "header": lambda: self.spoil([1]),
            "zeroes": lambda: self.home.db.write_bytes(bytes(4096) + self.home.db.read_bytes()[4096:]),
            "position": lambda: self.spoil([self.root_page("position")]),
            "log": lambda: self.spoil([self.root_page("event")]),
            "truncated": lambda: os.truncate(self.home.db, self.home.db.stat().st_size // 2 // 4096 * 4096),
            "free pages": lambda: self.spoil([self.free_list()]),
            "emptied": self.empty_with_log,
        }
        for name, spoil in spoils.items():
            with self.subTest(name):
                self.fresh()
                self.stopped_store()
                spoil()
                bytes_before = self.home.db.read_bytes()
                daemon = self.start(admin=ADMIN)
                aside = self.was_set_aside(daemon, log_too=name != "free pages")
                self.assertEqual(aside.read_bytes(), bytes_before, "as it was found")
                self.acknowledged.clear()
                self.assertEqual(self.deliver(daemon).status, 200)
                self.stop(daemon)
                daemon = self.start()
                self.assertNotIn("THE STORE WAS DAMAGED", daemon.log, "once, not at every start")
                self.assertIn("damaged stores lie beside", daemon.log)
                self.nothing_is_lost()

    def empty_with_log(self):
        os.truncate(self.home.db, 0)
        pathlib.Path(f"{self.home.db}-wal").write_bytes(b"x" * 8192)

    def test_where_the_operator_says_exit_it_refuses_and_touches_nothing(self):
        self.stopped_store(store={"on_corrupt": "exit"})
        self.spoil([1])
        before = self.home.db.read_bytes()
        daemon = self.launch()
        self.assertEqual(daemon.wait(), 65, daemon.log)
        self.died_on_purpose(daemon)
        self.assertRegex(daemon.log, "restore a backup")
        self.assertEqual(self.home.db.read_bytes(), before)
        self.assertEqual(list(self.home.path.glob("*.corrupt-*")), [])

    def test_what_was_set_aside_whole_can_be_restored_when_it_is_sound(self):
        self.stopped_store()
        copy = self.home.path / "copy.db"
        subprocess.run([HOOKCTL, "-c", str(self.home.config), "backup", str(copy)], check=True, capture_output=True)
        self.spoil([1])
        self.stop(self.start(admin=ADMIN))
        subprocess.run([HOOKCTL, "-c", str(self.home.config), "restore", str(copy)], check=True, capture_output=True)
        self.start(admin=ADMIN)
        self.nothing_is_lost()

    def test_it_does_not_set_aside_one_store_after_the_other_for_ever(self):
        self.stopped_store()
        for number in range(8):
            self.home.write(f"events.db.corrupt-2026010{number}T000000.000Z", "x")
        self.spoil([1])
        daemon = self.launch()
        self.assertEqual(daemon.wait(), 65, daemon.log)
        self.died_on_purpose(daemon)
        self.assertRegex(daemon.log, "look into the disk")

    def free_list(self):
        """The first page of the list of free pages, of which there are some then."""
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            db.executescript("CREATE TABLE junk (x); INSERT INTO junk VALUES (randomblob(400000)); DROP TABLE junk")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(self.home.db, "rb") as file:
            return int.from_bytes(file.read(36)[32:], "big")

    def run_damaged(self, **store):
        """A daemon whose list of free pages became garbage beneath it: the next delivery that wants room meets it."""
        self.stopped_store(store=store)
        trunk = self.free_list()
        self.assertGreater(trunk, 0)
        daemon = self.start()
        self.assertNotIn("DAMAGED", daemon.log)
        self.spoil([trunk])
        return daemon

    def test_damage_at_run_time_ends_in_a_new_start_that_sets_it_aside(self):
        daemon = self.run_damaged()
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            while daemon.process.poll() is None and time.monotonic() - begin < 60:
                self.deliver(daemon, event(data={"text": "x" * 30000}))
        self.assertEqual(daemon.wait(), 74, daemon.log)
        self.died_on_purpose(daemon)
        self.assertRegex(daemon.log, "the store is damaged: ending")
        self.assertEqual([p.name for p in self.home.path.glob("*.damaged")], ["events.db.damaged"])
        daemon = self.start(admin=ADMIN)
        self.was_set_aside(daemon)
        self.assertEqual(list(self.home.path.glob("*.damaged")), [])
        self.assertEqual(daemon.post(event()).outcome, "stored")

    def test_damage_at_run_time_with_exit_is_answered_503_until_somebody_comes(self):
        daemon = self.run_damaged(on_corrupt="exit")

        def damaged():
            self.deliver(daemon, event(data={"text": "x" * 30000}))
            return "store_damaged" in self.get("/readyz").body.decode()
        until(damaged, "the damage to be told", 60)
        self.assertEqual(daemon.post(event()).status, 503)
        self.assertIsNone(daemon.process.poll(), "it stays, and says why")
        daemon.kill()
        self.died_on_purpose(daemon)
        daemon = self.launch()
        self.assertEqual(daemon.wait(), 65)
        self.died_on_purpose(daemon)

    def test_a_note_about_a_sound_store_is_looked_into_and_taken_away(self):
        self.stopped_store()
        note = self.home.write("events.db.damaged", f"{self.home.db.stat().st_ino}\n")
        daemon = self.start(admin=ADMIN)
        self.assertFalse(note.exists())
        self.assertNotIn("DAMAGED", daemon.log)
        self.nothing_is_lost()
