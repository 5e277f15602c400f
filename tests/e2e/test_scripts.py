"""Goal: scripts/run does what the README says of it, the first time and every time after."""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import unittest

from harness import HOOKD, ROOT, Case, until

BUILD = pathlib.Path(HOOKD).parents[2]


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as sock:
        return sock.getsockname()[1]


def processes_with(argument):
    """Process ids of daemons that were started with this argument."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if argument.encode() in words and words[0].endswith(b"e2b-hookd"):
                found.append(int(path.parent.name))
    return found


@unittest.skipUnless(pathlib.Path(HOOKD).parent == BUILD / "build/daemon", "scripts/run builds in build/ only")
class Run(Case):
    def command(self, *arguments):
        return [str(ROOT / "scripts/run"), "--dir", str(self.home.path / "work"), *map(str, arguments)]

    def run_once(self, *arguments):
        return subprocess.run(self.command("--once", *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=300, env={**os.environ, "HOOKD_BUILD_ROOT": str(BUILD)}, cwd="/")

    def test_stores_a_delivery_shows_it_and_can_be_run_again(self):
        work = self.home.path / "work"
        first = self.run_once("--port", free_port())
        self.assertEqual(first.returncode, 0, first.stdout + first.stderr)
        self.assertIn("stored", first.stdout)
        identity = re.search(r'"event_id":"([^"]+)"', first.stdout).group(1)
        sent, shown = first.stdout.split("What the store has now:")
        self.assertIn(identity, sent)
        self.assertIn(identity, shown)
        secret = (work / "e2b.secret").read_text()
        self.assertGreaterEqual(len(secret.strip()), 32)
        self.assertEqual((work / "e2b.secret").stat().st_mode & 0o777, 0o600)
        self.assertNotEqual(secret, (work / "executors.secret").read_text())
        self.assertNotIn(secret.strip(), first.stdout + first.stderr)
        second = self.run_once("--port", free_port())
        self.assertEqual(second.returncode, 0, second.stdout + second.stderr)
        self.assertEqual((work / "e2b.secret").read_text(), secret)
        self.home.db = work / "events.db"
        self.assertEqual(self.count("events"), 2)

    def test_a_port_that_is_taken_is_told_with_what_to_do(self):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
            run = self.run_once("--port", other.getsockname()[1])
        self.assertEqual(run.returncode, 69, run.stdout + run.stderr)
        self.assertIn("--port", run.stderr)

    def test_mistakes_in_the_command_line_are_refused(self):
        for arguments in (("--nonsense",), ("--port", "x"), ("--port", "0"), ("--port", "65536"), ("--port",)):
            run = self.run_once(*arguments)
            self.assertNotEqual(run.returncode, 0, arguments)
            self.assertFalse((self.home.path / "work").exists(), arguments)

    def test_serves_until_it_is_stopped_and_leaves_nothing_running(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            output = (self.home.path / "output").open("w+")
            process = subprocess.Popen(self.command("--port", free_port()), stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, env={**os.environ, "HOOKD_BUILD_ROOT": str(BUILD)},
                                       preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

            def said():
                return (self.home.path / "output").read_text()
            try:
                until(lambda: "Ctrl-C" in said() or process.poll() is not None, "the script to get ready", 120)
                self.assertIsNone(process.poll(), said())
                daemon, = processes_with(str(self.home.path / "work/config.ini"))
                process.send_signal(signum)
                self.assertEqual(process.wait(30), 0, said())
                self.assertFalse(os.path.exists(f"/proc/{daemon}"), "the daemon goes on")
                self.assertIsNone(re.search("Traceback|line \\d+:", said()))
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(30)
                output.close()
