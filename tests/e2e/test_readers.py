"""Goal: rights on files, with real users. A reader in the daemon's group, without any right to write, sees the newest rows of a
live store, of a stopped one and of one whose daemon was killed, and can take a backup; it cannot change anything. Others see
nothing. Two daemons never share a store.
"""
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from harness import HOOKCTL, HOOKD, Case, Daemon, event

DAEMON, READER, OUTSIDER = 65532, 65533, 65534

QUERY = """
import json, sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=5)
print(json.dumps([db.execute("SELECT count(*) FROM events").fetchone()[0], db.execute("PRAGMA quick_check").fetchone()[0]]))
"""
WRITE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=1)
db.execute("DELETE FROM event")
db.commit()
"""


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root, to become other users, and setpriv")
class Readers(Case):
    def setUp(self):
        super().setUp()
        self.home.path.chmod(0o755)
        self.store = self.home.path / "store"
        self.store.mkdir(0o750)
        os.chown(self.store, DAEMON, DAEMON)
        self.home.db = self.store / "events.db"
        self.home.configure()
        self.home.config.chmod(0o644)
        for path in self.home.path.glob("*.secret"):
            os.chown(path, DAEMON, DAEMON)
        # The tree itself may be where other users cannot go.
        self.tool, self.program = self.home.path / "e2b-hookctl", self.home.path / "e2b-hookd"
        shutil.copy(HOOKCTL, self.tool)
        shutil.copy(HOOKD, self.program)
        self.wrapper = ["setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups", str(self.home.path / "run")]
        # Daemon() names the program of the tree: this starts the copy instead.
        (self.home.path / "run").write_text(f'#!/bin/sh\nshift\nexec {self.program} "$@"\n')
        (self.home.path / "run").chmod(0o755)

    def launch_as_daemon(self):
        daemon = Daemon(self.home, wrapper=self.wrapper)
        self.daemons.append(daemon)
        return daemon

    def as_user(self, uid, *command, groups=()):
        groups = [f"--groups={','.join(map(str, groups))}"] if groups else ["--clear-groups"]
        return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", *groups, *map(str, command)], cwd="/",
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def reader(self, *command):
        return self.as_user(READER, *command, groups=[DAEMON])

    def reader_sees(self, count, note):
        run = self.reader("python3", "-c", QUERY, self.home.db)
        self.assertEqual((run.stdout, run.returncode), (json.dumps([count, "ok"]) + "\n", 0), f"{note}: {run.stderr}")
        run = self.reader(self.tool, "-c", self.home.config, "events", "--format", "json")
        self.assertEqual((len(json.loads(run.stdout or "[]")), run.returncode), (count, 0), f"{note}: {run.stderr}")

    def reader_backs_up(self, count, note):
        own = self.home.path / f"reader-{len(list(self.home.path.iterdir()))}"
        own.mkdir()
        os.chown(own, READER, READER)
        run = self.reader(self.tool, "-c", self.home.config, "backup", own / "copy.db")
        self.assertEqual(run.returncode, 0, f"{note}: {run.stderr}")
        self.assertEqual([p.name for p in own.iterdir()], ["copy.db"], note)
        st = (own / "copy.db").stat()
        self.assertEqual((st.st_uid, st.st_mode & 0o7777), (READER, 0o640), note)
        run = self.reader("python3", "-c", QUERY, own / "copy.db")
        self.assertEqual(run.stdout, json.dumps([count, "ok"]) + "\n", f"{note}: {run.stderr}")

    def judge_rights(self, note):
        self.assertEqual(self.store.stat().st_mode & 0o7777, 0o750, note)
        for path in self.store.iterdir():
            st = path.stat()
            mode = 0o600 if path.name.endswith(".control") else 0o640
            self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777), (DAEMON, DAEMON, mode), f"{note}: {path.name}")

    def nobody_changes_anything(self, note):
        before = sorted(p.name for p in self.store.iterdir())
        for run in (self.reader("python3", "-c", WRITE, self.home.db),
                    self.reader("touch", self.store / "new"),
                    self.reader("rm", "-f", self.home.db),
                    self.reader(self.tool, "-c", self.home.config, "rebuild"),
                    self.reader(self.tool, "-c", self.home.config, "prune"),
                    self.as_user(OUTSIDER, "cat", self.home.db),
                    self.as_user(OUTSIDER, "python3", "-c", QUERY, self.home.db),
                    self.as_user(OUTSIDER, "ls", self.store),
                    self.as_user(OUTSIDER, self.tool, "-c", self.home.config, "events"),
                    self.as_user(OUTSIDER, self.tool, "-c", self.home.config, "backup", "/tmp/hookd-no-copy.db"),
                    self.as_user(OUTSIDER, "cat", *self.home.path.glob("*.secret")),
                    self.reader("cat", *self.home.path.glob("*.secret"))):
            self.assertNotEqual(run.returncode, 0, f"{note}: {run.args}")
            self.assertEqual(run.stdout, "", f"{note}: {run.args}")
        self.assertEqual(sorted(p.name for p in self.store.iterdir()), before, note)
        self.assertFalse(pathlib.Path("/tmp/hookd-no-copy.db").exists(), note)

    def judge(self, count, note):
        self.reader_sees(count, note)
        self.reader_backs_up(count, note)
        self.nobody_changes_anything(note)
        self.judge_rights(note)

    def test_a_member_of_the_group_reads_always_and_writes_never(self):
        daemon = self.launch_as_daemon().start()
        for number in range(5):
            self.assert_outcome(daemon.post(event()), "stored")
            self.reader_sees(number + 1, "live")
        self.judge(5, "live")
        self.stop(daemon)
        self.judge(5, "stopped")
        daemon = self.launch_as_daemon().start()
        for _ in range(3):
            self.assert_outcome(daemon.post(event()), "stored")
        daemon.kill()
        self.died_on_purpose(daemon)
        self.judge(8, "killed")
        daemon = self.launch_as_daemon().start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.judge(9, "live again")

    def test_what_the_reader_took_is_put_in_place_for_the_daemon(self):
        daemon = self.launch_as_daemon().start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.stop(daemon)
        copy = self.home.path / "copy.db"
        self.ctl("backup", copy)
        self.ctl("restore", copy)
        self.judge(1, "restored")
        daemon = self.launch_as_daemon().start()
        self.assert_outcome(daemon.post(event()), "stored")
        self.judge(2, "restored and live")

    def test_two_daemons_never_share_a_store(self):
        daemon = self.launch_as_daemon().start()
        for second in (self.launch_as_daemon(), self.launch()):
            self.assertEqual(second.wait(), 75)
            self.assertIn("another e2b-hookd uses this store", second.log)
            self.died_on_purpose(second)
        self.assert_outcome(daemon.post(event()), "stored")
        self.judge_rights("after the second one was refused")
