"""Goal: secrets stay where they were put. Those of the sources, the admin token, where notifications go and what signs them: in
no log at any level, no answer, no error text, no figure, no process list or environment, no file that is made, and no core.
And every file that is made is for its owner, and its group to read, whatever the umask says.
"""
import base64
import contextlib
import ctypes
import os
import pathlib
import re
import resource
import signal
import socket
import stat
import subprocess
import threading
import time
import unittest

from harness import (E2B_SOURCE, HOOKCTL, HOOKD, ROOT, SANITIZED, SECRET, SOURCES, encode, event, execution, plain_only,
                     raw_connect, sign_e2b, sign_hmac, sign_standard, until)
from test_admin import ADMIN, Admin

STANDARD_KEY = base64.b64encode(b"standard-webhooks-key-of-the-test").decode()
TOKEN = "secrets-test-admin-token-0123456789abcdef"
NOTIFY_KEY = base64.b64encode(b"notification-signing-key-of-the-test").decode()
NOTIFY_PATH = "services/T0SECRET/B0SECRET/in-the-path-of-the-url"
QUERY_KEY = "secret-in-the-query-of-the-url"


class Secrets(Admin):
    def setUp(self):
        super().setUp()
        self.every = {"e2b": SECRET, "executors": SOURCES["executors"]["secrets"][0], "old": "an-old-secret-0123456789abcdef-000",
                      "standard": STANDARD_KEY, "token": TOKEN, "notify key": NOTIFY_KEY, "notify path": NOTIFY_PATH,
                      "notify query": QUERY_KEY}

    def assert_clean(self, text, where):
        """No secret in it, nor its bytes where it is written in base64, nor a part that would help."""
        data = text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
        for name, secret in self.every.items():
            forms = [secret.encode(), secret.encode()[:16], secret.encode()[-16:], base64.b64encode(secret.encode())[:40]]
            with contextlib.suppress(ValueError):
                forms.append(base64.b64decode(secret, validate=True))
            for form in forms:
                self.assertFalse(form in data, f"the secret {name!r} is in {where}")

    def start_with_all(self, port):
        self.home.write("token", TOKEN + "\n")
        self.home.write("slack.url", f"http://127.0.0.1:{port}/{NOTIFY_PATH}?key={QUERY_KEY}\n")
        self.home.write("notify.secret", f"whsec_{NOTIFY_KEY}\n")
        extra = (f"[notify slack]\nkind = slack\nurl_file = {self.home.path}/slack.url\n"
                 f"[notify hook]\nkind = webhook\nurl = http://127.0.0.1:{port}/hook\nsecret_file = {self.home.path}/notify.secret\n"
                 "[alert failures]\non = execution_failed\nnotify = slack, hook\n[log]\nlevel = debug\n")
        sources = {**SOURCES, "e2b": {**E2B_SOURCE, "secrets": [SECRET, self.every["old"]]},
                   "standard": {"path": "/webhooks/standard", "signature": "standard-webhooks",
                                "secrets": ["whsec_" + STANDARD_KEY]}}
        return self.start(admin={**ADMIN, "token_file": self.home.path / "token"}, sources=sources, extra=extra)

    @contextlib.contextmanager
    def receiver(self):
        """Counts what comes, answers 500 with all it was sent: what an unfriendly target would say."""
        server = socket.create_server(("127.0.0.1", 0))
        seen = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(2)
                        data = b""
                        with contextlib.suppress(OSError):
                            data = connection.recv(65536)
                        seen.append(data)
                        echo = data[:600].replace(b"\r\n", b" ")
                        with contextlib.suppress(OSError):
                            connection.sendall(b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(echo) + echo)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1], seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
            thread.join(5)

    def use(self, daemon):
        """All that touches a secret: good and bad deliveries of each scheme, the page, reloads, each command. Yields answers."""
        good, failed = encode(event()), encode(execution(status="error", error={"name": "E", "value": "failed"}))
        post = lambda path, body, headers: daemon.request("POST", path, body, headers)
        yield "stored", post("/webhooks/e2b", good, sign_e2b(SECRET, good))
        yield "stored, old secret", post("/webhooks/e2b", failed, sign_e2b(self.every["old"], failed))
        yield "wrong signature", post("/webhooks/e2b", good, sign_e2b("wrong" * 8, good))
        yield "the secret as its signature", post("/webhooks/e2b", good, {"e2b-signature": "A" * 43})
        for scheme, path, headers in (("hmac", "/webhooks/executors", sign_hmac(self.every["executors"], good)),
                                      ("standard", "/webhooks/standard", sign_standard("whsec_" + STANDARD_KEY, good))):
            yield scheme, post(path, good, headers)
            yield f"{scheme}, another body", post(path, good + b" ", headers)
            yield f"{scheme}, none", post(path, good, {})
        for token in (None, "Bearer " + TOKEN, "Bearer wrong-" + TOKEN[:5], "Basic x"):
            yield f"metrics with {token is not None}", self.get("/metrics", token=token)
            yield "readiness", self.get("/readyz", token=token)
            yield "nothing there", self.get("/nope", token=token)

    def commands(self):
        captured = self.home.write("body.json", encode(event()).decode())
        for arguments in (["status"], ["check-config"], ["events"], ["quarantine"], ["rejections"], ["alerts"], ["help"],
                          ["verify", "--source", "e2b", "--file", str(captured), "--signature", "A" * 43],
                          ["costs"], ["check"], ["nonsense"], ["send", "--source", "e2b"]):
            run = subprocess.run([HOOKCTL, "-c", str(self.home.config), *arguments], capture_output=True, timeout=60)
            yield arguments, run.stdout + run.stderr

    def test_they_are_nowhere_but_where_they_were_put(self):
        with self.receiver() as (port, seen):
            daemon = self.start_with_all(port)
            for name, answer in self.use(daemon):
                self.assert_clean(str(answer.headers) + answer.body.decode(errors="replace"), f"the answer: {name}")
            daemon.reload()
            self.home.wait_folded()
            until(lambda: any(NOTIFY_PATH.encode() in s for s in seen) and any(b"/hook" in s for s in seen),
                  "both notifications to be tried", 30)
            until(lambda: re.search(r"slack", daemon.log) or None, "the failure to be told", 20)
            for arguments, output in self.commands():
                self.assert_clean(output, f"e2b-hookctl {arguments[0]}")
            for name in ("cmdline", "environ"):
                self.assert_clean(pathlib.Path(f"/proc/{daemon.pid}/{name}").read_bytes(), f"/proc/PID/{name}")
            self.assert_clean(self.get("/metrics", token="Bearer " + TOKEN).body, "the metrics page")
            self.stop(daemon)
        self.assertGreater(len(daemon.lines), 10, "debug level")
        self.assert_clean(daemon.log, "the log")
        ours = {self.home.config, *self.home.path.glob("*.secret"), self.home.path / "token", self.home.path / "slack.url"}
        for path in self.home.path.iterdir():
            if path.is_file() and path not in ours:
                self.assert_clean(path.read_bytes(), path.name)

    def test_a_refused_configuration_names_files_and_never_what_is_in_them(self):
        self.home.configure()
        good = self.home.config.read_text()
        secret_file = self.home.path / "e2b.secret"
        for text in (good + f"[source e3b]\npath = /x\nsecret = {SECRET}\n",
                     good + f"[source e3b]\npath = /x\nsecret_file = {SECRET}\n",
                     good.replace("[source e2b]", f"[source e2b]\nsecret_env = {SECRET}"),
                     good + f"[admin]\ntoken = {TOKEN}\n",
                     good + f"[notify x]\nkind = slak\nurl = https://hooks.slack.com/{NOTIFY_PATH}\n"):
            self.home.config.write_text(text)
            for command in ([HOOKD, "-c", str(self.home.config), "--check"], [HOOKCTL, "-c", str(self.home.config), "check-config"]):
                run = subprocess.run(command, capture_output=True, timeout=30)
                self.assertEqual(run.returncode, 78, run.stderr)
                self.assert_clean(re.sub(rb'"[^"]*"', b"", run.stdout + run.stderr) if b"secret_env" in text.encode() else
                                  run.stdout + run.stderr, f"what {command[0]} says")
        self.home.config.write_text(good)
        for content in (f"{SECRET}\x00{SECRET}\n", f"{SECRET}\n" * 100, f"whsec_{STANDARD_KEY}!!\n", f"  {SECRET}\xff"):
            secret_file.write_bytes(content.encode("latin-1"))
            run = subprocess.run([HOOKD, "-c", str(self.home.config), "--check"], capture_output=True, timeout=30)
            self.assert_clean(run.stdout + run.stderr, "what is said of a secret file")

    @unittest.skipIf(SANITIZED, "a sanitizer needs to look into its own process")
    def test_a_crash_leaves_no_core_and_nobody_else_may_look_in(self):
        daemon = self.start()
        self.assertEqual(resource.prlimit(daemon.pid, resource.RLIMIT_CORE), (0, 0))
        # Root owns what belongs to a process that is not dumpable; as root that shows nothing, so ask as another user.
        self.assertEqual(os.stat(f"/proc/{daemon.pid}/mem").st_uid, 0)
        if os.geteuid() == 0:
            shown = subprocess.run(["grep", "-c", "", f"/proc/{daemon.pid}/limits"], capture_output=True, text=True)
            self.assertEqual(shown.returncode, 0)
        daemon.process.send_signal(signal.SIGQUIT)
        self.assertEqual(daemon.wait(), -signal.SIGQUIT)
        self.died_on_purpose(daemon)
        self.assertEqual([p for p in self.home.path.iterdir() if p.name.startswith("core")], [])

    @unittest.skipUnless(os.geteuid() == 0 and not SANITIZED, "needs root, to become another user")
    def test_another_process_of_its_user_cannot_read_its_memory_or_environment(self):
        self.home.path.chmod(0o755)
        program = self.home.path / "hookd"
        program.write_bytes(pathlib.Path(HOOKD).read_bytes())
        program.chmod(0o755)
        self.home.configure()
        for path in [self.home.path, *self.home.path.iterdir()]:
            os.chown(path, 65532, 65532)
        run = self.home.write("run", f'#!/bin/sh\nshift\nexec {program} "$@"\n', 0o755)
        daemon = self.launch(wrapper=["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", str(run)]).start()
        self.assert_outcome(daemon.post(event()), "stored")
        for name in ("mem", "environ", "maps"):
            got = subprocess.run(["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "head", "-c", "1",
                                  f"/proc/{daemon.pid}/{name}"], capture_output=True, cwd="/")
            self.assertNotEqual(got.returncode, 0, name)

    def test_every_file_is_for_its_owner_whatever_the_umask_says(self):
        for mask in (0o000, 0o022, 0o027, 0o077):
            with self.subTest(oct(mask)):
                self.fresh()
                before = set(self.home.path.iterdir())
                old = os.umask(mask)
                try:
                    self.home.configure(server={"listen": f"unix:{self.home.path}/hook.sock"}, admin=ADMIN)
                    before |= set(self.home.path.iterdir())
                    daemon = self.start()
                    self.assert_outcome(daemon.post(event()), "stored")
                    self.home.wait_folded()
                    copy = self.home.path / f"copy-{mask}.db"
                    self.ctl("backup", copy)
                    made = {p.name: p for p in self.home.path.iterdir() if p not in before}
                    self.assertLessEqual({"events.db", "events.db-wal", "events.db-shm", "events.db.lock", "events.db.control",
                                          "hook.sock", copy.name}, set(made))
                    self.judge_modes(made)
                    self.stop(daemon)
                    self.ctl("restore", copy)
                    self.judge_modes({p.name: p for p in self.home.path.iterdir() if p not in before})
                finally:
                    os.umask(old)

    def judge_modes(self, made):
        for name, path in made.items():
            mode = stat.S_IMODE(path.lstat().st_mode)
            expected = {"events.db.control": 0o600, "hook.sock": 0o660}.get(name, 0o640)
            self.assertEqual(oct(mode), oct(expected), name)
