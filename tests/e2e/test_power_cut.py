"""Goal: the promise on a real file system. The power goes under load, again and again: an ext4 image on a loop device is shut
down by ioctl, so that everything that was not synced is gone, and mounted anew. Every delivery is there that was acknowledged
before the cut began.

Not those after: while its file system shuts down, Linux (6.18) says of an fdatasync on its way that it succeeded, and drops the
journal with the blocks that it was for. Of 300 cuts of a program that appends and syncs, and does nothing else, 27 lost its last
piece so, each acknowledged after the ioctl had begun. Where the power goes, nobody is there to be told. That nothing is
acknowledged after a sync that failed is shown by tests/test_power_loss.c and test_faults.c.

kill -9 cannot show this: what a process wrote stays in the kernel. That this test can fail, tests/mutants/ shows with a
daemon that does not sync.
"""
import collections
import fcntl
import os
import random
import shutil
import struct
import subprocess
import unittest

from harness import LONG, Case, event, until
from load import Load

ROUNDS = int(os.environ.get("HOOKD_POWER_CUTS", 60 if LONG else 3))
IMAGE_BYTES = 256 << 20
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
NO_LOG_FLUSH = 2


def tool(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("mkfs.ext4"), "needs root and mkfs.ext4, for a file system on a loop device")
class PowerCut(Case):
    def setUp(self):
        super().setUp()
        self.image, self.mount_point = self.home.path / "image", self.home.path / "disk"
        self.mount_point.mkdir()
        self.home.db = self.mount_point / "events.db"
        with open(self.image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        for command in (["mkfs.ext4", "-q", self.image], self.mounting()):
            run = tool(*command)
            if run.returncode != 0:
                raise unittest.SkipTest(f"no ext4 on a loop device here: {run.stderr.strip()}")

    def _clean(self):
        try:
            super()._clean()
        finally:
            tool("umount", "-l", self.mount_point)
            shutil.rmtree(self.home.path, ignore_errors=True)

    def mounting(self):
        return ["mount", "-o", "loop", self.image, self.mount_point]

    def cut(self):
        """From now on nothing reaches the disk, and nothing that waits ever will."""
        directory = os.open(self.mount_point, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        except OSError as error:
            raise unittest.SkipTest(f"ext4 cannot be shut down here: {error}") from error
        finally:
            os.close(directory)

    def power_on(self):
        for command in (["umount", self.mount_point], self.mounting()):
            run = tool(*command)
            self.assertEqual(run.returncode, 0, f"{command}: {run.stderr}")

    def test_what_was_acknowledged_is_there_when_the_power_comes_back(self):
        chance = random.Random(20261123)
        sandboxes = [f"sandbox{n}" for n in range(50)]
        acknowledged, sent = collections.Counter(), set()
        # A small limit checkpoints every few commits, so that cuts meet checkpoints, too.
        self.home.configure(store={"wal_limit": "1MiB"})
        daemon, load = self.start(), None
        for number in range(ROUNDS):
            load = Load(daemon.address, sandboxes, before=load)
            target = chance.randrange(1, 800)
            until(lambda: load.count >= target, "the load to get going")
            acknowledged += load.acknowledged.copy()
            self.cut()
            # The first refusal shows that the daemon met it.
            until(lambda: load.refused or daemon.process.poll() is not None, "the daemon to meet the cut")
            daemon.kill()
            load.join()
            self.died_on_purpose(daemon)
            self.assertLessEqual({a.status for a in load.refused}, {503})
            sent |= load.sent
            self.power_on()
            daemon = self.start()
            self.judge(acknowledged, sent, f"cut {number + 1} of {ROUNDS}")
        self.home.wait_folded(30)
        self.assertEqual(self.home.shell("PRAGMA integrity_check"), [{"integrity_check": "ok"}])
        self.assertEqual(self.count("ledger_state", "skipped = 0"), 1)
        self.assert_outcome(daemon.post(event()), "stored")
        print(f"     power cuts: {ROUNDS}, {sum(acknowledged.values())} acknowledgements, 0 lost")

    def judge(self, acknowledged, sent, note):
        rows = self.home.query("SELECT event_id FROM events")
        stored = {r["event_id"] for r in rows}
        lost = len(set(acknowledged) - stored)
        self.assertEqual(lost, 0, f"{note}: {lost} of {len(acknowledged)} acknowledged and lost")
        self.assertEqual(len(stored), len(rows), f"{note}: stored twice")
        self.assertEqual(stored - sent, set(), f"{note}: stored and never sent")
        self.assertEqual(self.home.shell("PRAGMA quick_check"), [{"quick_check": "ok"}], note)
