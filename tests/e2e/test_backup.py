"""Goal: a backup taken beside a busy daemon holds every event that was acknowledged before it began, is sound, and is whole or
not there, whatever kills it. A restore puts it in place on any host and user, keeps what was there, and dies without harm.
"""
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

from harness import (HOOKCTL, HOOKD, LONG, SANITIZED, SECRET, Case, Daemon, encode, event, exchange, http_connection, sign_e2b,
                     until)

ROUNDS = 100 if LONG else 6 if SANITIZED else 15


def rows_of(path, sql):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return [row[0] if len(row) == 1 else row for row in db.execute(sql)]


class Load:
    """Deliveries one after the other until the end; which were acknowledged, in order."""

    def __init__(self, address):
        self.acknowledged, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self._deliver, args=(address,))
        self.thread.start()

    def _deliver(self, address):
        with contextlib.closing(http_connection(address)) as connection:
            while not self.ended.is_set():
                fields = event(filler="x" * 2000)
                body = encode(fields)
                if exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body)).outcome == "stored":
                    self.acknowledged.append(fields["id"])

    def stop(self):
        self.ended.set()
        self.thread.join(30)


class Base(Case):
    def setUp(self):
        super().setUp()
        self.daemon = self.start()
        self.copy = self.home.path / "copy.db"

    def fill(self, count, **fields):
        with contextlib.closing(http_connection(self.daemon.address)) as connection:
            for _ in range(count):
                body = encode(event(**fields))
                answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                self.assertEqual(answer.outcome, "stored")

    def names(self, pattern):
        return sorted(p.name for p in self.home.path.glob(pattern))

    def spawn(self, *arguments):
        return subprocess.Popen([HOOKCTL, "-c", str(self.home.config), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Backup(Base):
    def test_holds_what_was_acknowledged_before_it_began(self):
        load = Load(self.daemon.address)
        self.addCleanup(load.stop)
        until(lambda: len(load.acknowledged) > 200, "the load to get going")
        for number in range(3):
            before = set(load.acknowledged)
            copy = self.home.path / f"copy{number}.db"
            self.assertRegex(self.ctl("backup", copy), r"copy\d\.db: \d+ bytes\n")
            held = rows_of(copy, "SELECT event_id FROM events")
            self.assertEqual(before - set(held), set())
            self.assertEqual(len(held), len(set(held)))
            self.assertEqual(rows_of(copy, "PRAGMA integrity_check"), ["ok"])
            self.assertEqual(copy.stat().st_mode & 0o7777, 0o640)
            self.assertEqual(self.ctl("check", copy), "ok\n")
        self.assertEqual(self.names("*.tmp*"), [])

    def test_of_a_stopped_store(self):
        self.fill(5)
        self.stop(self.daemon)
        self.ctl("backup", self.copy)
        self.assertEqual(rows_of(self.copy, "SELECT count(*) FROM events"), [5])

    def test_replaces_nothing_unasked(self):
        self.copy.write_text("precious")
        self.ctl("backup", self.copy, code=1)
        self.assertIn("--force", self.ctl_stderr)
        self.assertEqual(self.copy.read_text(), "precious")
        self.ctl("backup", "--force", self.copy)
        self.ctl("backup", "--force", self.home.db, code=1)
        self.ctl("backup", code=2)
        self.assert_outcome(self.daemon.post(event()), "stored")

    def test_killed_it_leaves_no_half_copy_under_the_name(self):
        self.fill(600, filler="x" * 20000)
        begin = time.monotonic()
        self.ctl("backup", self.copy)
        took = time.monotonic() - begin
        self.copy.unlink()
        chance, unfinished = random.Random(20261123), 0
        for number in range(ROUNDS):
            process = self.spawn("backup", "--force", self.copy)
            time.sleep(chance.random() * took)
            process.kill()
            process.communicate()
            unfinished += not self.copy.exists() or bool(self.names("copy.db.tmp"))
            if self.copy.exists():
                self.assertEqual(rows_of(self.copy, "PRAGMA quick_check"), ["ok"], f"round {number}")
                self.assertEqual(rows_of(self.copy, "SELECT count(*) FROM events"), [600], f"round {number}")
        self.assertGreater(unfinished, 0, "no round was killed in the middle")
        self.ctl("backup", "--force", self.copy)
        self.assertEqual(self.names("copy.db*"), ["copy.db"])

    def test_ended_by_a_signal_it_cleans_up(self):
        self.fill(600, filler="x" * 20000)
        process = self.spawn("backup", self.copy)
        until(lambda: self.names("copy.db*") or process.poll() is not None, "the backup to begin")
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=20)
        if process.returncode == 0:
            self.assertEqual(self.names("copy.db*"), ["copy.db"])
        else:
            self.assertEqual((process.returncode, self.names("copy.db*")), (1, []), error)
            self.assertIn(b"no copy was made", error)


class Restore(Base):
    def test_brings_back_what_the_copy_holds_and_keeps_what_was_there(self):
        self.fill(7)
        self.home.wait_folded()
        self.ctl("backup", self.copy)
        before = self.home.query("SELECT event_id, payload FROM events ORDER BY seq")
        self.fill(4)
        self.stop(self.daemon)
        text = self.ctl("restore", self.copy)
        (aside,) = [n for n in self.names("events.db.before-restore-*") if n.endswith("Z")]
        self.assertEqual(self.names("events.db.before-restore-*"), [aside, f"{aside}-shm", f"{aside}-wal"])
        self.assertIn("7 events", text)
        self.assertIn(f"e2b-hookctl restore {self.home.path}/{aside}", text)
        self.assertEqual(self.home.query("SELECT event_id, payload FROM events ORDER BY seq"), before)
        self.assertEqual(self.ctl("check"), "ok\n")
        self.daemon = self.start()
        self.assert_outcome(self.daemon.post(before[0]["payload"].encode()), "duplicate")
        self.assert_outcome(self.daemon.post(event()), "stored")
        self.stop(self.daemon)
        self.ctl("restore", self.home.path / aside)
        self.assertEqual(self.count("events"), 11)
        self.assertEqual(len([n for n in self.names("events.db.before-restore-*") if n.endswith("Z")]), 2)

    def test_refuses_beside_a_daemon_and_what_is_no_sound_copy(self):
        self.fill(50, filler="x" * 4000)
        self.ctl("backup", self.copy)
        self.ctl("restore", self.copy, code=1)
        self.assertIn("systemctl stop e2b-hookd.socket e2b-hookd", self.ctl_stderr)
        self.assert_outcome(self.daemon.post(event()), "stored")
        self.stop(self.daemon)
        data = self.copy.read_bytes()
        foreign = self.home.path / "foreign.db"
        with contextlib.closing(sqlite3.connect(foreign)) as db:
            db.execute("CREATE TABLE t (x)")
        bad = self.home.path / "bad.db"
        for content in (data[:len(data) // 2], data[:100000] + bytes(8192) + data[108192:], b"SQLite format 3", b""):
            bad.write_bytes(content)
            self.ctl("restore", bad, code=1)
            self.assertEqual(len(self.ctl_stderr.splitlines()), 1, self.ctl_stderr)
            self.assertEqual(bad.read_bytes(), content)
        for path in (foreign, self.home.db, self.home.path, self.home.path / "none.db"):
            self.ctl("restore", path, code=1)
            self.assertIn(str(path), self.ctl_stderr)
        self.ctl("restore", code=2)
        self.assertEqual(self.count("events"), 51)
        self.assertEqual(self.names("events.db.*"), ["events.db.lock"])

    def test_killed_it_leaves_one_whole_store(self):
        self.fill(300, filler="x" * 20000)
        self.ctl("backup", self.copy)
        self.fill(30)
        self.stop(self.daemon)
        whole = self.home.path / "whole"
        whole.mkdir()
        for name in self.names("events.db*"):
            shutil.copy2(self.home.path / name, whole)
        begin = time.monotonic()
        self.ctl("restore", self.copy)
        took = time.monotonic() - begin
        chance, seen = random.Random(20261124), set()
        for number in range(ROUNDS):
            for name in self.names("events.db*"):
                (self.home.path / name).unlink()
            for path in whole.iterdir():
                shutil.copy2(path, self.home.path)
            process = self.spawn("restore", self.copy)
            time.sleep(took * chance.random())
            process.kill()
            process.communicate()
            aside = [n for n in self.names("events.db.before-restore-*") if n.endswith("Z")]
            note = f"round {number}: {self.names('events.db*')}"
            if self.home.db.exists():
                in_place = self.count("events")
                self.assertIn(in_place, (300, 330), note)
                self.assertEqual(self.home.value("PRAGMA quick_check"), "ok", note)
                seen.add(in_place)
            if not self.home.db.exists() or in_place == 300:
                self.assertEqual(rows_of(self.home.path / aside[0], "SELECT count(*) FROM events"), [330], note)
        self.assertIn(330, seen)
        self.ctl("restore", self.copy)
        self.assertEqual(self.names("events.db.restoring*"), [])
        self.daemon = self.start()
        self.assertEqual(self.count("events"), 300)


class Elsewhere(Base):
    """Another host: another directory, another user."""
    UID = 65531

    def test_moves_to_another_directory(self):
        self.fill(3)
        self.ctl("backup", self.copy)
        self.stop(self.daemon)
        new = self.home.path / "other/place"
        new.mkdir(parents=True)
        self.home.db = new / "events.db"
        self.home.configure()
        self.assertIn("There was no store before", self.ctl("restore", self.copy))
        self.daemon = self.start()
        self.assert_outcome(self.daemon.post(event()), "stored")
        self.assertEqual(self.count("events"), 4)

    def test_root_restores_for_the_user_who_owns_the_directory(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to become other users")
        self.fill(3)
        self.ctl("backup", self.copy)
        self.copy.chmod(0o600)
        self.stop(self.daemon)
        self.home.path.chmod(0o755)
        new = self.home.path / "place"
        new.mkdir(0o750)
        os.chown(new, self.UID, self.UID)
        self.home.db = new / "events.db"
        self.home.configure()
        self.ctl("restore", self.copy)
        self.ctl("restore", self.copy)  # with an old store to be set aside
        for path in new.iterdir():
            st = path.stat()
            self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777), (self.UID, self.UID, 0o640), path)
        self.ctl("rebuild")
        self.assertEqual({p.stat().st_uid for p in new.iterdir()}, {self.UID})
        # The tree itself may be where other users cannot go.
        program, script = self.home.path / "e2b-hookd", self.home.path / "run"
        shutil.copy(HOOKD, program)
        script.write_text(f'#!/bin/sh\nshift\nexec {program} "$@"\n')
        script.chmod(0o755)
        self.home.config.chmod(0o644)
        for path in self.home.path.glob("*.secret"):
            os.chown(path, self.UID, self.UID)
        wrapper = ["setpriv", f"--reuid={self.UID}", f"--regid={self.UID}", "--clear-groups", str(script)]
        daemon = Daemon(self.home, wrapper=wrapper)
        self.daemons.append(daemon)
        daemon.start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.assertEqual(self.count("events"), 4)
        other = subprocess.run(["setpriv", f"--reuid={self.UID - 1}", f"--regid={self.UID - 1}", "--clear-groups", "cat",
                               str(self.home.db)], capture_output=True)
        self.assertNotEqual(other.returncode, 0)

    def test_who_does_not_own_the_directory_is_told_so(self):
        if os.geteuid() != 0:
            self.skipTest("needs root, to become other users")
        self.fill(1)
        self.ctl("backup", self.copy)
        self.stop(self.daemon)
        self.home.path.chmod(0o777)
        self.copy.chmod(0o644)
        self.home.config.chmod(0o644)
        tool = self.home.path / "e2b-hookctl"
        shutil.copy(HOOKCTL, tool)
        before = self.names("*")
        run = subprocess.run(["setpriv", f"--reuid={self.UID}", f"--regid={self.UID}", "--clear-groups", str(tool), "-c",
                              str(self.home.config), "restore", str(self.copy)], capture_output=True, text=True)
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertIn("as that user or as root", run.stderr)
        self.assertEqual(self.names("*"), before)
