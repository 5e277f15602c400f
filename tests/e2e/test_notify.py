"""Goal: a service manager can trust what the daemon says. READY only when it can be used, a status line worth reading, a
reload that has an end, a sign of life only while a commit gets through to the disk; and a socket that the manager keeps open
across a restart loses no request. The manager is played by this test: a datagram socket, and sockets passed on.
"""
import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import unittest

from harness import SECRET, Case, encode, event, exchange, http_connection, plain_only, sign_e2b, until

ADMIN = {"listen": "127.0.0.1:0"}

# Puts inherited descriptors at 3, 4, … as a service manager does, and says that they are this process's.
PASS_ON = """
import os, sys
given = [int(n) for n in sys.argv[1].split(",")]
high = [os.dup2(fd, 100 + i) for i, fd in enumerate(given)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""

# A disk that hangs while a file exists.
STUCK_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int wait_then(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
	while (access(getenv("STUCK_FILE"), F_OK) == 0)
		usleep(5000);
	return real(fd);
}
int fsync(int fd) { return wait_then("fsync", fd); }
int fdatasync(int fd) { return wait_then("fdatasync", fd); }
"""


class Manager:
    """NOTIFY_SOCKET: what was said, as dicts, with the time it was heard."""

    def __init__(self, home, abstract=False):
        self.name = f"{home.path}/notify.sock"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.name if abstract else self.name)
        self.environment = {"NOTIFY_SOCKET": "@" + self.name if abstract else self.name}
        self.heard = []
        self.socket.settimeout(0.1)
        self.open = True
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def _listen(self):
        while self.open:
            with contextlib.suppress(TimeoutError):
                text = self.socket.recv(65536).decode()
                self.heard.append((time.monotonic(), dict(line.split("=", 1) for line in text.split("\n"))))

    def close(self):
        self.open = False
        self.thread.join()
        self.socket.close()

    def said(self, variable, since=0):
        """Values of a variable, in order."""
        return [m[variable] for _, m in self.heard[since:] if variable in m]

    def wait(self, variable, since=0, pattern="", seconds=10):
        return until(lambda: next((v for v in self.said(variable, since) if re.search(pattern, v)), None),
                     f"{variable} like {pattern!r} among {self.heard[since:]}", seconds)


class Notify(Case):
    def manager(self, **how):
        manager = Manager(self.home, **how)
        self.addCleanup(manager.close)
        return manager

    def test_ready_means_that_it_listens_and_the_store_is_open(self):
        for abstract in (False, True):
            with self.subTest(abstract=abstract):
                manager = self.manager(abstract=abstract)
                self.home.configure(admin=ADMIN)
                daemon = self.launch(environment=manager.environment)
                manager.wait("READY")
                address = daemon.wait_log("listening.*for=hook").split("address=")[1].split()[0]
                self.assert_outcome(daemon.post(event(), address=address), "stored")
                self.assertEqual(manager.said("READY"), ["1"])
                self.assertRegex(manager.said("STATUS")[0], "ledger up to date")
                self.stop(daemon)
                self.assertEqual(len(manager.said("STOPPING")), 1)
                self.fresh()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(manager.name)

    def test_a_daemon_that_cannot_start_never_says_ready(self):
        manager = self.manager()
        self.home.configure(admin={"listen": f"unix:{self.home.path}/none/admin.sock"})
        daemon = self.launch(environment=manager.environment)
        self.assertNotEqual(daemon.wait(20), 0)
        self.died_on_purpose(daemon)
        self.assertEqual(manager.said("READY"), [])

    def test_a_reload_has_a_beginning_and_an_end_whatever_becomes_of_it(self):
        manager = self.manager()
        daemon = self.start(admin=ADMIN, environment=manager.environment)
        good = self.home.config.read_text()
        for text, refused in ((good, False), (good + "[nonsense]\n", True), (good, False)):
            mark = len(manager.heard)
            before = time.monotonic_ns() // 1000
            self.home.config.write_text(text)
            daemon.reload(refused=refused)
            status = manager.wait("READY", mark) and manager.said("STATUS", mark)[-1]
            told = [m for _, m in manager.heard[mark:] if "WATCHDOG" not in m]
            self.assertEqual([next(iter(m)) for m in told], ["RELOADING", "READY"])
            self.assertTrue(before <= int(told[0]["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000)
            self.assertEqual("reload was refused" in status, refused, status)

    def test_the_status_says_first_what_is_wrong(self):
        manager = self.manager()
        daemon = self.start(admin=ADMIN, environment=manager.environment)
        self.assert_outcome(daemon.post(event()), "stored")
        mark = len(manager.heard)
        with contextlib.closing(sqlite3.connect(self.home.db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertEqual(daemon.post(event()).status, 503)
            manager.wait("STATUS", mark, r"\ANOT READY: commit_failed \(", 30)
            other.execute("ROLLBACK")
        manager.wait("STATUS", mark, r"\Astored up to event \d+, ledger up to date", 30)
        times = [at for at, m in manager.heard if "STATUS" in m and "READY" not in m]
        self.assertTrue(all(b - a > 4 for a, b in zip(times, times[1:])), "not more often than every few seconds")

    def test_without_a_watchdog_there_are_no_signs_of_life(self):
        for variables in ({}, {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}):
            manager = self.manager()
            daemon = self.start(admin=ADMIN, environment={**manager.environment, **variables})
            daemon.reload()
            self.stop(daemon)
            self.assertEqual(manager.said("WATCHDOG"), [])
            os.unlink(manager.name)

    def test_signs_of_life_come_twice_within_the_time(self):
        manager = self.manager()
        self.start(admin=ADMIN, environment={**manager.environment, "WATCHDOG_USEC": "1000000"})
        until(lambda: len(manager.said("WATCHDOG")) >= 6, "six signs of life", 6)
        times = [at for at, m in manager.heard if "WATCHDOG" in m]
        self.assertLess(max(b - a for a, b in zip(times, times[1:])), 1, "systemd would have killed it")

    def test_a_store_that_refuses_with_an_error_is_alive(self):
        manager = self.manager()
        daemon = self.start(admin=ADMIN, environment={**manager.environment, "WATCHDOG_USEC": "8000000"})
        with contextlib.closing(sqlite3.connect(self.home.db, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            self.assertEqual(daemon.post(event()).status, 503)
            mark = len(manager.heard)
            manager.wait("WATCHDOG", mark)
            other.execute("ROLLBACK")

    @plain_only("a preloaded library does not go with a sanitizer's")
    def test_a_disk_that_hangs_ends_them_and_is_told(self):
        if not shutil.which("cc"):
            raise unittest.SkipTest("no C compiler to make a disk that hangs")
        source, library, stuck = (self.home.path / n for n in ("stuck.c", "stuck.so", "stuck"))
        source.write_text(STUCK_DISK)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
        manager = self.manager()
        daemon = self.start(admin=ADMIN, environment={**manager.environment, "WATCHDOG_USEC": "1000000",
                                                      "LD_PRELOAD": str(library), "STUCK_FILE": str(stuck)})
        manager.wait("WATCHDOG")
        stuck.touch()
        answer = {}
        sender = threading.Thread(target=lambda: answer.update(it=daemon.post(event())))
        sender.start()
        until(lambda: daemon.request("GET", "/readyz", address=daemon.admin).status == 503, "writer_stuck", 20)
        self.assertIn(b"writer_stuck", daemon.request("GET", "/readyz", address=daemon.admin).body)
        self.assertEqual(daemon.request("GET", "/livez", address=daemon.admin).status, 200)
        page = daemon.request("GET", "/metrics", address=daemon.admin)
        self.assertIn(b'e2b_hookd_not_ready{reason="writer_stuck"} 1', page.body)
        last = [at for at, m in manager.heard if "WATCHDOG" in m][-1]
        self.assertGreater(time.monotonic() - last, 5, "a sign of life of a daemon whose disk hangs")
        sender.join()
        self.assertEqual(answer["it"].status, 503)
        stuck.unlink()
        mark = len(manager.heard)
        manager.wait("WATCHDOG", mark)
        until(lambda: daemon.request("GET", "/readyz", address=daemon.admin).status == 200, "it to be ready again")


class Sender:
    """Delivers without pause until told to stop; every request must be answered `stored`."""

    def __init__(self, address, keep_alive):
        self.address, self.keep_alive = address, keep_alive
        self.stored, self.lost, self.stopping = [], [], False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.stopping:
            try:
                with contextlib.closing(http_connection(self.address)) as connection:
                    self._use(connection)
            except Exception as error:  # pylint: disable=broad-except
                self.lost.append(repr(error))

    def _use(self, connection):
        while not self.stopping:
            one = event()
            body = encode(one)
            headers = {**sign_e2b(SECRET, body), **({} if self.keep_alive else {"connection": "close"})}
            answer = exchange(connection, "POST", "/webhooks/e2b", body, headers)
            (self.stored if answer.outcome == "stored" else self.lost).append(one["id"])
            if answer.headers.get("connection", "").lower() == "close":
                return

    def end(self):
        self.stopping = True
        self.thread.join(30)


class Activation(Case):
    def listening(self, family=socket.AF_INET):
        sock = socket.socket(family)
        self.addCleanup(sock.close)
        if family == socket.AF_INET:
            sock.bind(("127.0.0.1", 0))
        else:
            sock.bind(str(self.home.path / f"passed-{len(os.listdir(self.home.path))}.sock"))
        sock.listen(512)
        return sock

    @staticmethod
    def name_of(sock):
        name = sock.getsockname()
        return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"

    def activate(self, sockets):
        """sockets: (name, socket) …"""
        fds = tuple(s.fileno() for _, s in sockets)
        wrapper = [sys.executable, "-c", PASS_ON, ",".join(map(str, fds)), ":".join(n for n, _ in sockets)]
        daemon = self.launch(wrapper=wrapper, pass_fds=fds)
        return daemon

    def test_sockets_are_taken_by_name(self):
        token = self.home.write("token", "activation-token-0123456789\n")
        self.home.secrets.add("activation-token-0123456789")
        self.home.configure(server={"listen": "systemd"}, admin={"listen": "systemd", "token_file": token})
        hook, more, admin = self.listening(), self.listening(socket.AF_UNIX), self.listening()
        daemon = self.activate([("admin", admin), ("hook", hook), ("hook", more)])
        daemon.wait_log(" ready ")
        self.assertEqual(daemon.addresses, [self.name_of(hook), self.name_of(more)])
        self.assertEqual(daemon.admin, self.name_of(admin))
        self.assert_outcome(daemon.post(event()), "stored")
        self.assert_outcome(daemon.post(event(), address=self.name_of(more)), "stored")
        self.assertEqual(daemon.request("GET", "/readyz", address=daemon.admin).status, 200)
        self.assertEqual(daemon.request("GET", "/metrics", address=daemon.admin).status, 401)
        self.stop(daemon)
        self.assertTrue(os.path.exists(more.getsockname()), "the manager's path was taken away")

    def test_without_a_socket_of_its_name_it_says_what_is_missing(self):
        self.home.configure(server={"listen": "systemd"})
        daemon = self.activate([("web", self.listening())])
        self.assertNotEqual(daemon.wait(20), 0)
        self.died_on_purpose(daemon)
        self.assertIn("FileDescriptorName=hook", daemon.log)

    def test_an_address_that_the_manager_holds_for_it_is_told_so(self):
        """The socket unit is on, and the configuration names an address: the port is taken, and `ss` would show systemd."""
        sock = self.listening()
        self.home.configure(server={"listen": self.name_of(sock)})
        daemon = self.activate([("hook", sock)])
        self.assertEqual(daemon.wait(20), 69, daemon.log)
        self.died_on_purpose(daemon)
        self.assertIn("listen = systemd", daemon.log)
        self.assertIn("another process listens", self.refused_by(sock))

    def refused_by(self, sock):
        """What it says where the same port is somebody's whom it was not started by."""
        daemon = self.launch()
        self.assertEqual(daemon.wait(20), 69, daemon.log)
        self.died_on_purpose(daemon)
        self.assertNotIn("listen = systemd", daemon.log)
        return daemon.log

    def restarts(self, sock):
        self.home.configure(server={"listen": "systemd"})
        daemon = self.activate([("hook", sock)]).start()
        senders = [Sender(self.name_of(sock), keep_alive=n % 2 == 0) for n in range(6)]
        try:
            for _ in range(3):
                mark = sum(len(s.stored) for s in senders)
                until(lambda: sum(len(s.stored) for s in senders) > mark + 50, "the load to get going", 20)
                self.stop(daemon)
                daemon = self.activate([("hook", sock)])
                daemon.start()
            mark = sum(len(s.stored) for s in senders)
            until(lambda: sum(len(s.stored) for s in senders) > mark + 50, "the last daemon to serve", 20)
        finally:
            for sender in senders:
                sender.end()
        self.assertEqual([x for s in senders for x in s.lost], [])
        kept = {r["event_id"] for r in self.home.query("SELECT event_id FROM events")}
        self.assertEqual({x for s in senders for x in s.stored}, kept)

    def test_restarts_under_load_lose_no_request(self):
        for family in (socket.AF_INET, socket.AF_UNIX):
            with self.subTest(family):
                self.fresh()
                self.restarts(self.listening(family))
