"""Goal: who installs the package gets a service that systemd looks after as the manual promises.

A real systemd boots (machine.py), the package of this tree is built and installed there; the store lies on a disk of its own
that can be made to hang.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import machine
from harness import LONG, SECRET, until
from test_admin import documented

NEW_SECRET = "e2e-another-secret-0123456789abcdef"
ADDRESS = "127.0.0.1:8787"
SECRET_FILE = "/etc/e2b-hookd/e2b.secret"
STORE = "/var/lib/e2b-hookd/events.db"
MISSING = machine.missing() or (None if LONG else "boots a machine, more than a minute: only with --long")


class Disk:
    """A file system of its own, in a file; freeze() makes everything that writes to it hang."""

    def __init__(self, directory):
        self.image, self.mount, self.frozen = directory / "disk", directory / "mount", False
        self.mount.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(128 << 20)
        machine.run("mkfs.ext4", "-q", str(self.image))
        machine.run("mount", "-o", "loop", str(self.image), str(self.mount))

    def freeze(self):
        machine.run("fsfreeze", "-f", str(self.mount))
        self.frozen = True

    def thaw(self):
        if self.frozen:
            machine.run("fsfreeze", "-u", str(self.mount))
        self.frozen = False

    def close(self):
        self.thaw()
        machine.run("umount", str(self.mount), code=None)


@unittest.skipIf(MISSING, MISSING)
class TheService(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-package-"))
        cls.addClassCleanup(shutil.rmtree, cls.directory, ignore_errors=True)
        built = os.environ.get("HOOKD_DEB")  # while one writes tests
        cls.deb = pathlib.Path(built) if built else machine.build_package(cls.directory)[0]
        cls.disk = Disk(cls.directory)
        cls.addClassCleanup(cls.disk.close)
        cls.x = machine.Machine(binds=[(cls.disk.mount, "/var/lib/e2b-hookd")])
        cls.addClassCleanup(cls.x.close)
        shutil.copy(cls.deb, cls.x.root / "root/e2b-hookd.deb")
        cls.x.boot()

    def setUp(self):
        """A machine as it was after a first installation, and a secret."""
        self.addCleanup(self.disk.thaw)
        self.purge()
        self.install()
        self.put_secrets(SECRET)

    # steps

    def purge(self):
        self.x("sh", "-c", "rm -rf /etc/systemd/system/e2b-hookd* /var/backups/e2b-hookd && systemctl daemon-reload")
        self.x("dpkg", "-P", "e2b-hookd", code=None)
        self.x("systemctl", "reset-failed")
        self.x("sh", "-c", "rm -rf /var/lib/e2b-hookd/*")  # the disk's root stays: it is a mount

    def install(self):
        return self.x("dpkg", "-i", "/root/e2b-hookd.deb").stdout

    def put_secrets(self, *secrets):
        self.x.write(SECRET_FILE, "".join(f"{s}\n" for s in secrets), 0o640, "e2b-hookd")

    def drop_in(self, unit, text):
        self.x("mkdir", "-p", f"/etc/systemd/system/{unit}.d")
        self.x.write(f"/etc/systemd/system/{unit}.d/test.conf", text)
        self.x("systemctl", "daemon-reload")

    def start(self):
        self.x("systemctl", "start", "e2b-hookd")

    def is_active(self, unit="e2b-hookd.service"):
        return self.x("systemctl", "is-active", unit, code=None).stdout.strip()

    def pid(self):
        return self.x.show("e2b-hookd", "MainPID")

    def outcome(self, secret=SECRET, address=ADDRESS):
        """What becomes of one delivery."""
        said = self.x.traffic(address, secret, "--count", "1")
        return "stored" if said["stored"] else next(iter(said["others"]))

    def sql(self, query, store=STORE):
        return self.x("sqlite3", "-readonly", store, query).stdout.strip()

    def stored_ids(self):
        return set(self.sql("SELECT event_id FROM events").split())

    # promises

    def test_an_installation_without_a_secret_starts_nothing_and_says_how_to(self):
        self.purge()
        said = self.install()
        self.assertIn("not started", said)
        self.assertIn(SECRET_FILE, said)
        for unit in ("e2b-hookd.service", "e2b-hookd.socket"):
            self.assertEqual(self.is_active(unit), "inactive")
            self.assertEqual(self.x("systemctl", "is-enabled", unit).stdout.strip(), "enabled")
        self.assertEqual(self.x("stat", "-c", "%A %U:%G", "/etc/e2b-hookd", "/etc/e2b-hookd/config.ini").stdout.split("\n")[:2],
                         ["drwxr-x--- root:e2b-hookd", "-rw-r----- root:e2b-hookd"])
        self.x("systemctl", "start", "e2b-hookd.service", code=1)
        self.assertEqual(self.x.show("e2b-hookd", "ExecMainStatus"), "78")
        self.assertEqual(self.x.show("e2b-hookd", "NRestarts"), "0")
        self.assertIn(f'"{SECRET_FILE}" does not exist', self.x.journal("e2b-hookd"))
        self.put_secrets(SECRET)
        self.start()
        self.assertEqual(self.outcome(), "stored")

    def test_the_first_delivery_starts_the_daemon(self):
        self.x("systemctl", "start", "e2b-hookd.socket")
        self.assertEqual(self.is_active(), "inactive")
        self.assertEqual(self.outcome(), "stored")
        self.assertEqual(self.is_active(), "active")
        self.assertNotEqual(self.x.show("e2b-hookd", "StatusText"), "")

    def test_a_caller_at_the_door_of_a_daemon_that_cannot_start_makes_no_busy_loop(self):
        self.x("rm", SECRET_FILE)
        since = self.x.cursor()
        self.x("systemctl", "start", "e2b-hookd.socket")
        end = self.x.load(ADDRESS, SECRET)
        self.addCleanup(end)
        attempts = until(lambda: re.findall(r"does not exist", self.x.journal("e2b-hookd", since)), "a first attempt", 20)
        until(lambda: len(re.findall(r"does not exist", self.x.journal("e2b-hookd", since))) > len(attempts),
              "another attempt", 20)
        tries = self.x("journalctl", "-q", "-o", "json", "--output-fields=MESSAGE", "-u", "e2b-hookd",
                       "--after-cursor", since).stdout
        times = [int(line["__REALTIME_TIMESTAMP"]) for line in map(json.loads, tries.splitlines())
                 if "does not exist" in str(line["MESSAGE"])]
        self.assertGreater(times[1] - times[0], 4e6, "microseconds between attempts")
        self.assertEqual(self.is_active("e2b-hookd.socket"), "active")
        self.put_secrets(SECRET)
        until(lambda: self.is_active() == "active", "the daemon, once it has its secret", 20)
        self.assertEqual(end()["others"], {}, "what waited at the door was answered")

    def test_a_secret_is_rotated_by_reloads(self):
        self.start()
        pid = self.pid()
        self.put_secrets(SECRET, NEW_SECRET)
        self.x("systemctl", "reload", "e2b-hookd")
        until(lambda: self.outcome(NEW_SECRET) == "stored", "the new secret to be taken")
        self.assertEqual(self.outcome(SECRET), "stored")
        self.put_secrets(NEW_SECRET)
        self.x("systemctl", "reload", "e2b-hookd")
        until(lambda: self.outcome(SECRET) == "401", "the old secret to be refused")
        self.assertEqual(self.outcome(NEW_SECRET), "stored")
        self.assertEqual(self.pid(), pid)

    def test_restarts_and_an_upgrade_under_load_lose_nothing(self):
        self.start()
        seen = {self.pid()}
        end = self.x.load(ADDRESS, SECRET)
        self.addCleanup(end)
        for _ in range(3):
            self.x("systemctl", "restart", "e2b-hookd")
            seen.add(self.pid())
        self.install()
        seen.add(self.pid())
        said = end()
        self.assertEqual(len(seen), 5, "every restart was one")
        self.assertEqual(said["others"], {})
        self.assertGreater(len(said["stored"]), 100)
        self.assertEqual(set(said["stored"]), self.stored_ids())
        self.assertEqual(int(self.sql("SELECT count(*) FROM events")), len(said["stored"]))

    def test_a_daemon_that_was_killed_comes_back_and_has_what_it_acknowledged(self):
        self.start()
        said = self.x.traffic(ADDRESS, SECRET, "--count", "20")
        before = self.pid()
        self.x("kill", "-KILL", before)
        until(lambda: self.is_active() == "active" and self.pid() not in ("0", before), "the daemon to come back", 20)
        self.assertEqual(self.stored_ids(), set(said["stored"]))

    def test_a_disk_that_hangs_trips_the_watchdog(self):
        self.drop_in("e2b-hookd.service", "[Service]\nWatchdogSec=3s\nTimeoutAbortSec=2s\n")
        self.start()
        before = self.x.traffic(ADDRESS, SECRET, "--count", "5")["stored"]
        since = self.x.cursor()
        self.disk.freeze()
        until(lambda: "Watchdog timeout" in self.x.journal("e2b-hookd", since), "the watchdog", 30)
        self.disk.thaw()
        until(lambda: self.is_active() == "active", "the daemon after the disk came back", 60)
        until(lambda: self.outcome() == "stored", "deliveries to be stored again", 20)
        self.assertLessEqual(set(before), self.stored_ids())

    def test_members_of_the_group_read_the_store_and_nobody_else(self):
        self.start()
        self.assertEqual(self.outcome(), "stored")
        self.x("sh", "-c", "id reader || useradd -M reader; usermod -aG e2b-hookd reader; id other || useradd -M other")
        query = ["sqlite3", "-readonly", STORE, "SELECT count(*) FROM events"]
        for state in ("running", "stopped"):
            with self.subTest(state):
                self.assertEqual(self.x("runuser", "-u", "reader", "--", *query).stdout.strip(), "1")
                self.assertNotEqual(self.x("runuser", "-u", "other", "--", *query, code=None).returncode, 0)
                self.assertNotEqual(self.x("runuser", "-u", "reader", "--", "touch", f"{STORE}-x", code=None).returncode, 0)
            self.x("systemctl", "stop", "e2b-hookd.socket", "e2b-hookd.service")
        self.assertEqual(self.x("stat", "-c", "%a", "/var/lib/e2b-hookd").stdout.strip(), "750")

    def test_a_secret_may_be_a_credential(self):
        self.x("chmod", "0600", SECRET_FILE)
        self.x("chown", "root:root", SECRET_FILE)
        self.x("mkdir", "-p", "/etc/systemd/system/e2b-hookd.service.d")
        self.x("cp", "/usr/share/doc/e2b-hookd/examples/credentials.conf", "/etc/systemd/system/e2b-hookd.service.d/")
        self.x("sed", "-i", "s/^secret_file = .*/secret_credential = e2b/", "/etc/e2b-hookd/config.ini")
        self.x("systemctl", "daemon-reload")
        self.start()
        self.assertEqual(self.outcome(), "stored")
        self.x("rm", SECRET_FILE)
        self.x("systemctl", "restart", "e2b-hookd", code=1)
        self.assertEqual(self.x.show("e2b-hookd", "ExecMainStatus"), "78", self.x.journal("e2b-hookd"))

    def test_a_second_daemon_has_its_own_configuration_socket_and_store(self):
        self.start()
        self.x.write("/etc/e2b-hookd/two.ini", "[server]\nlisten = systemd\n[admin]\nlisten =\n[store]\n"
                     "path = /var/lib/e2b-hookd/two/events.db\n[source e2b]\npath = /webhooks/e2b\n"
                     f"secret_file = {SECRET_FILE}\n")
        self.x("systemctl", "enable", "--now", "e2b-hookd@two.socket")
        self.assertEqual(self.outcome(address="unix:/run/e2b-hookd/two.sock"), "stored")
        self.assertEqual(self.sql("SELECT count(*) FROM events", "/var/lib/e2b-hookd/two/events.db"), "1")
        self.assertEqual(self.sql("SELECT count(*) FROM events"), "0")
        self.x("dpkg", "-r", "e2b-hookd")
        self.assertNotEqual(self.is_active("e2b-hookd@two.service"), "active")

    def test_the_socket_may_be_for_the_proxy_alone(self):
        """As docs/proxies says, word by word."""
        page = (machine.ROOT / "docs/proxies/README.md").read_text().split("## Over a unix socket")[1]
        socket_unit, server = re.findall(r"```ini\n(.*?)```", page, re.DOTALL)[:2]
        command = re.search(r"then `(.*?)`", page).group(1)
        self.start()
        self.drop_in("e2b-hookd.socket", socket_unit)
        self.x.write("/etc/e2b-hookd/config.ini", server + f"[source e2b]\npath = /webhooks/e2b\nsecret_file = {SECRET_FILE}\n")
        self.x("sh", "-c", command)
        path = re.search(r"^ListenStream=(/\S+)$", socket_unit, re.MULTILINE).group(1)
        self.assertEqual(self.x("stat", "-c", "%a %U:%G", path).stdout.strip(), "660 root:www-data")
        self.assertEqual(self.outcome(address=f"unix:{path}"), "stored")
        ask = ["curl", "-fsS", "--unix-socket", path, "http://x/healthz"]
        self.assertEqual(self.x("runuser", "-u", "www-data", "--", *ask).stdout.strip(), "ok")
        self.assertNotEqual(self.x("runuser", "-u", "nobody", "--", *ask, code=None).returncode, 0)
        self.assertNotIn("failed", self.x.journal("e2b-hookd.socket"))

    def test_what_the_package_s_configuration_and_texts_name_is_there(self):
        text = self.x("cat", "/etc/e2b-hookd/config.ini").stdout
        for path in re.findall(r"/usr/share/\S+[a-z]", text):
            self.x("test", "-s", path)
        for name in ("prometheus/e2b-hookd.rules.yml", "grafana/dashboard.json", "proxies/nginx.conf", "proxies/Caddyfile"):
            self.x("test", "-s", f"/usr/share/doc/e2b-hookd/{name}")

    def test_every_documented_metric_is_there_in_the_sandbox(self):
        self.start()
        self.assertEqual(self.outcome(), "stored")
        page = self.x("curl", "-fsS", "http://127.0.0.1:8788/metrics").stdout
        self.assertEqual(re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE), [name for name, *_ in documented()])

    def test_the_backup_unit_copies_the_store_and_keeps_the_newest(self):
        self.drop_in("e2b-hookd-backup.service", "[Service]\nEnvironment=HOOKD_BACKUP_KEEP=2\n")
        self.assertEqual(self.is_active("e2b-hookd-backup.timer"), "active")
        self.start()
        self.assertEqual(self.outcome(), "stored")
        for old in ("20260101T000000Z", "20260102T000000Z", "20260103T000000Z"):
            self.x("touch", f"/var/backups/e2b-hookd/events-{old}.db")
        self.x("touch", "/var/backups/e2b-hookd/before-upgrade.db")
        self.x("systemctl", "start", "e2b-hookd-backup.service")
        names = self.x("ls", "/var/backups/e2b-hookd").stdout.split()
        self.assertEqual(names[:2], ["before-upgrade.db", "events-20260103T000000Z.db"])
        self.assertEqual(len(names), 3)
        copy = f"/var/backups/e2b-hookd/{names[2]}"
        self.assertEqual(self.x("e2b-hookctl", "check", copy).stdout.strip(), "ok")
        self.assertEqual(self.sql("SELECT count(*) FROM events", copy), "1")
        self.assertEqual(self.x("stat", "-c", "%a %U:%G", copy).stdout.strip(), "640 e2b-hookd:e2b-hookd")
        self.x("systemctl", "stop", "e2b-hookd.socket", "e2b-hookd.service")
        self.x("rm", copy)
        self.x("systemctl", "start", "e2b-hookd-backup.service")
        self.assertEqual(len(self.x("ls", "/var/backups/e2b-hookd").stdout.split()), 3, "also while the daemon is down")

    def test_a_removal_keeps_the_data_and_a_purge_only_the_copies(self):
        self.start()
        self.assertEqual(self.outcome(), "stored")
        self.x("systemctl", "start", "e2b-hookd-backup.service")
        self.x("dpkg", "-r", "e2b-hookd")
        self.assertNotEqual(self.is_active(), "active")
        self.assertEqual(self.sql("SELECT count(*) FROM events"), "1")
        self.x("test", "-s", SECRET_FILE)
        self.install()
        self.assertEqual(self.is_active(), "active", "what worked before the removal works again")
        self.assertEqual(self.outcome(), "stored")
        self.x("dpkg", "-r", "e2b-hookd")
        said = self.x("dpkg", "-P", "e2b-hookd").stdout
        self.assertIn("/var/backups/e2b-hookd are kept", said)
        self.x("test", "!", "-e", "/etc/e2b-hookd")
        self.assertEqual(self.x("ls", "-A", "/var/lib/e2b-hookd").stdout, "")
        left = self.x("sh", "-c", "ls -d /lib/systemd/system/e2b-hookd* /etc/systemd/system/*/e2b-hookd* 2>/dev/null", code=None)
        self.assertEqual(left.stdout, "")

    def test_the_units_are_verified_and_locked_up(self):
        units = self.x("sh", "-c", "ls /lib/systemd/system/e2b-hookd*").stdout.split()
        self.assertEqual(len(units), 6)
        for unit in units:
            with self.subTest(unit):
                ran = self.x("systemd-analyze", "verify", unit, code=None)
                self.assertEqual(ran.stdout + ran.stderr, "")
        self.start()
        self.assertEqual(self.outcome(), "stored")
        ran = self.x("systemd-analyze", "security", "--threshold=12", "e2b-hookd.service")
        self.assertRegex(ran.stdout, r"exposure level for e2b-hookd.service: (0\.\d|1\.[012]) ")
        status = self.x("cat", f"/proc/{self.pid()}/status").stdout
        self.assertRegex(status, r"CapBnd:\s+0000000000000000\n")
        self.assertRegex(status, r"Seccomp:\s+2\n")
        self.assertRegex(status, r"NoNewPrivs:\s+1\n")
        self.assertRegex(status, r"Umask:\s+0027\n")
        self.assertEqual(self.x.show("e2b-hookd", "WatchdogUSec"), "30s")

    def test_the_smoke_test_of_the_package_passes(self):
        shutil.copy(machine.ROOT / "debian/tests/smoke", self.x.root / "root/smoke")
        self.x("rm", SECRET_FILE)
        self.x("/root/smoke")


class ThePackage(unittest.TestCase):
    @unittest.skipIf(MISSING or not shutil.which("lintian"), MISSING or "needs lintian")
    def test_lintian_has_nothing_to_say(self):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-package-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        changes = machine.build_package(directory)[1]
        ran = subprocess.run(["lintian", "--allow-root", "--fail-on", "none", str(changes)], capture_output=True, text=True,
                             timeout=300, check=False)
        self.assertEqual(ran.stdout + ran.stderr, "")
