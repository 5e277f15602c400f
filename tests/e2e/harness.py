"""What end-to-end tests stand on: a real daemon of their own, real sockets, the store read as a dashboard reads it.

A Home is a temporary directory with a configuration, secrets and the store. A Daemon runs in it on a port that the kernel
chose; every test's daemon must end with exit code 0 on SIGTERM, without a sanitizer's report and without a secret in its
log, unless the test says that it died on purpose. Nothing here sleeps for a fixed time: until() polls a condition against a
deadline. Only processes that were started here are ended.

HOOKD_BIN and HOOKCTL_BIN name the programs (default: those in build/). Python 3.11, standard library only.
"""
import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOOKD = os.path.abspath(os.environ.get("HOOKD_BIN", ROOT / "build/daemon/e2b-hookd"))
HOOKCTL = os.path.abspath(os.environ.get("HOOKCTL_BIN", ROOT / "build/daemon/e2b-hookctl"))
SANITIZED = os.environ.get("HOOKD_SANITIZED") == "1"
VALGRIND = os.environ.get("HOOKD_VALGRIND") == "1"
PATIENCE = 15 if VALGRIND else 3 if SANITIZED else 1  # so many times slower the daemon may be
LONG = os.environ.get("HOOKD_LONG") == "1"
DELIVERIES = ROOT / "tests/deliveries"

SECRET = "e2e-secret-of-the-e2b-source-0123456789"
EXECUTOR_SECRET = "e2e-secret-of-the-executors-0123456789"
DELIVERY_SECRET = "test-signature-secret"  # tests/deliveries are signed with it
REPORTS = re.compile(r"ERROR: AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer|UndefinedBehavior"
                     r"|^==\d+== ", re.MULTILINE)  # the last is valgrind, which speaks only of errors here


def plain_only(reason):
    """Leaves a test out of sanitized runs: its bound is about the program as shipped."""
    def mark(test):
        test.plain_only = reason
        return test
    return mark


def until(condition, what, seconds=10):
    """Polls until the condition is true and returns its value; fails after the deadline."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain: {what}")
        time.sleep(0.01)


# Bodies and signatures ------------------------------------------------------------------------------

def rfc3339(unix):
    moment = datetime.datetime.fromtimestamp(unix, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(kind="created", data=None, **fields):
    """An E2B event (version v2) as a dict; fields replace or, with None, remove the defaults."""
    body = {
        "id": str(uuid.uuid4()),
        "version": "v2",
        "type": kind if "." in kind else f"sandbox.lifecycle.{kind}",
        "timestamp": rfc3339(time.time()),
        "event_data": data if data is not None else {},
        "sandbox_id": "i" + uuid.uuid4().hex[:20],
        "sandbox_execution_id": str(uuid.uuid4()),
        "sandbox_template_id": "k3v9x2m7q1w8e5r4t6y0",
        "sandbox_build_id": "b5d1c7de-38c4-4c0d-9d0c-8c7a2e4f1b90",
        "sandbox_team_id": "3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4",
    }
    body.update(fields)
    return {k: v for k, v in body.items() if v is not None}


def execution(**fields):
    """A sandbox.code_executed event; fields named like those of code_execution go there."""
    inner = {"execution_id": str(uuid.uuid4()), "kind": "code", "language": "python", "duration_ms": 1250,
             "timed_out": False, "exit_code": 0, "error": None, "vcpu_count": 2, "memory_mb": 512, "status": "success"}
    outer = {}
    for key, value in fields.items():
        (outer if key in event() or key in ("data", "kind_") else inner)[key] = value
    return event("sandbox.code_executed", {"code_execution": {k: v for k, v in inner.items() if v is not ...}}, **outer)


def encode(body):
    return body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def e2b_digest(secret, body):
    return hashlib.sha256(secret.encode() + body).digest()


def sign_e2b(secret, body):
    return {"e2b-signature": base64.b64encode(e2b_digest(secret, body)).decode().rstrip("=")}


def sign_hmac(secret, body, header="x-signature-256"):
    return {header: "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def sign_standard(secret, body, message="msg_1", timestamp=None):
    timestamp = str(int(time.time())) if timestamp is None else str(timestamp)
    key = base64.b64decode(secret[6:] + "===") if secret.startswith("whsec_") else secret.encode()
    mac = hmac.new(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {"webhook-id": message, "webhook-timestamp": timestamp,
            "webhook-signature": "v1," + base64.b64encode(mac).decode()}


# HTTP -----------------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def outcome(self):
        """`stored` and so on, or the number where it is no 200."""
        return self.json["status"] if self.status == 200 else self.status

    def __repr__(self):
        return f"Answer({self.status}, {self.headers}, {self.body[:300]!r})"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def http_connection(address, timeout=20):
    """A connection for http.client; address is as the daemon logs it."""
    if address.startswith("unix:"):
        return UnixConnection(address[5:], timeout)
    host, _, port = address.rpartition(":")
    return http.client.HTTPConnection(host.strip("[]"), int(port), timeout=timeout)


def exchange(connection, method, path, body=None, headers=None):
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def raw_connect(address, timeout=20):
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(address[5:])
        return sock
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def read_to_end(sock):
    """Everything until the peer closes; (bytes, closed). A timeout means it stayed open."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except TimeoutError:
        return data, False
    except ConnectionError:
        pass
    return data, True


def parse_answers(data):
    """The HTTP responses in a stream, by Content-Length; interim ones (1xx) are left out."""
    answers = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        assert separator, f"a response without an end: {data!r}"
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        if status >= 200:
            answers.append(Answer(status, headers, rest[:length]))
        else:
            length = 0
        data = rest[length:]
    return answers


def read_answers(sock, count=1):
    """Reads until so many responses are complete; the connection may stay open."""
    data = b""
    while True:
        with contextlib.suppress(AssertionError, ValueError, IndexError):
            answers = parse_answers(data)
            complete = all(len(a.body) == int(a.headers.get("content-length", 0)) for a in answers)
            if len(answers) >= count and complete:
                return answers
        chunk = sock.recv(65536)
        if not chunk:
            return parse_answers(data)
        data += chunk


# The daemon and where it lives ------------------------------------------------------------------------

E2B_SOURCE = {"path": "/webhooks/e2b", "signature": "e2b", "secrets": [SECRET]}
EXECUTOR_SOURCE = {"path": "/webhooks/executors", "signature": "hmac-sha256", "secrets": [EXECUTOR_SECRET]}
SOURCES = {"e2b": E2B_SOURCE, "executors": EXECUTOR_SOURCE}


def pairs(section, keys):
    """A section of the configuration; a list repeats its key."""
    lines = [f"[{section}]"]
    for key, value in keys.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{key} = {one}".rstrip())
    return "\n".join(lines) + "\n"


class Home:
    """A directory with config.ini, secrets and events.db."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
        self.db = self.path / "events.db"
        self.config = self.path / "config.ini"
        self.secrets = set()

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)

    def write(self, name, text, mode=0o600):
        path = self.path / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def secret_file(self, source, secrets):
        self.secrets.update(secrets)
        return self.write(f"{source}.secret", "".join(f"{s}\n" for s in secrets))

    def configure(self, server=None, store=None, sources=None, extra="", admin=None):
        """Writes config.ini. A source's `secrets` are put into its file; extra is appended."""
        text = pairs("server", {"listen": "127.0.0.1:0", **(server or {})})
        text += pairs("admin", {"listen": "", **(admin or {})})
        text += pairs("store", {"path": self.db, "retention": 0, "ledger_retention": 0, **(store or {})})
        for name, keys in (SOURCES if sources is None else sources).items():
            keys = dict(keys)
            if "secrets" in keys:
                keys["secret_file"] = self.secret_file(name, keys.pop("secrets"))
            text += pairs(f"source {name}", keys)
        self.config.write_text(text + extra)
        return self.config

    # Reading, as a dashboard does

    def query(self, sql, *values):
        """Rows as dicts, through a connection that cannot write."""
        with contextlib.closing(sqlite3.connect(f"file:{self.db}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, values)]

    def value(self, sql, *values):
        rows = self.query(sql, *values)
        return next(iter(rows[0].values())) if rows else None

    def shell(self, sql):
        """The same through the sqlite3 shell: rows as dicts."""
        run = subprocess.run(["sqlite3", "-readonly", "-json", str(self.db), sql], capture_output=True, text=True,
                             check=True, timeout=30)
        return json.loads(run.stdout or "[]")

    def wait_folded(self, seconds=10):
        def caught_up():
            state = self.query("SELECT stored_seq, folded_seq FROM ledger_state")[0]
            return state["stored_seq"] == state["folded_seq"]
        until(caught_up, "the ledger to catch up with the log", seconds)


class Daemon:
    """One run of e2b-hookd. start() returns when every listener is up, the control socket too."""

    def __init__(self, home, arguments=(), environment=None, wrapper=(), pass_fds=()):
        self.home, self.lines, self.addresses, self.admin = home, [], [], None
        self.listeners = len(re.findall(r"^listen = \S", home.config.read_text().split("[admin]")[0], re.MULTILINE))
        self.has_admin = bool(re.search(r"^\[admin\]\nlisten = \S", home.config.read_text(), re.MULTILINE))
        variables = {**os.environ, **(environment or {})}
        if SANITIZED:
            variables.setdefault("ASAN_OPTIONS", "detect_leaks=1:halt_on_error=1")
            variables.setdefault("UBSAN_OPTIONS", "halt_on_error=1:print_stacktrace=1")
            variables.setdefault("TSAN_OPTIONS", "second_deadlock_stack=1:history_size=4")
        self.process = subprocess.Popen([*wrapper, HOOKD, "-c", str(home.config), *arguments], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=variables,
                                        cwd=home.path, pass_fds=pass_fds)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stderr:
            text = line.decode(errors="backslashreplace").rstrip("\n")
            self.lines.append(text)
            if re.search(r"\blistening\b", text) and (m := re.search(r'\baddress(?:=|":")([^\s"]+)', text)):
                if re.search(r'\bfor(=|":")admin\b', text):
                    self.admin = m.group(1)
                else:
                    self.addresses.append(m.group(1))

    @property
    def log(self):
        return "\n".join(self.lines)

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return self.addresses[0]

    def start(self):
        def up():
            if self.process.poll() is not None:
                self.reader.join(5)
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log}")
            ready = any(re.search(r"\bready\b", line) for line in self.lines)  # the control socket, too
            return len(self.addresses) >= self.listeners and (self.admin or not self.has_admin) and ready
        until(up, f"the daemon to listen; it said:\n{self.log}", 20)
        return self

    def wait(self, seconds=30):
        code = self.process.wait(seconds * PATIENCE)
        self.reader.join(5)
        self.process.stderr.close()
        return code

    def stop(self, signum=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.wait()

    def kill(self):
        return self.stop(signal.SIGKILL)

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def reload(self, refused=False):
        """SIGHUP; returns what was said when it was done, or refused."""
        mark = len(self.lines)
        self.hang_up()
        line = self.wait_log(r" reloaded | reload refused", mark)
        assert ("refused" in line) == refused, "\n".join(self.lines[mark:])
        return self.lines[mark:]

    def wait_log(self, pattern, since=0, seconds=10):
        """The first line (from index `since`) that the pattern is found in."""
        return until(lambda: next((x for x in self.lines[since:] if re.search(pattern, x)), None),
                     f"a log line with {pattern!r}; it said:\n{self.log}", seconds)

    def memory_kib(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    # Requests on a connection of their own

    def request(self, method, path, body=None, headers=None, address=None):
        with contextlib.closing(http_connection(address or self.address)) as connection:
            return exchange(connection, method, path, body, headers)

    def post(self, body, secret=SECRET, path="/webhooks/e2b", headers=None, address=None):
        """A delivery signed as E2B does."""
        body = encode(body)
        all_headers = {"content-type": "application/json", **sign_e2b(secret, body), **(headers or {})}
        return self.request("POST", path, body, all_headers, address)

    def post_executor(self, body, secret=EXECUTOR_SECRET, path="/webhooks/executors"):
        body = encode(body)
        return self.request("POST", path, body, {"content-type": "application/json", **sign_hmac(secret, body)})

    def connect(self, timeout=20, address=None):
        return raw_connect(address or self.address, timeout)


class Case(unittest.TestCase):
    """A test with a Home; its daemons are judged when it ends."""
    maxDiff = None

    def setUp(self):
        self.home = Home()
        self.daemons = []
        self.addCleanup(self._clean)

    def start(self, *arguments, environment=None, **configuration):
        """Configures and starts a daemon. Without keywords an existing configuration stays."""
        if configuration or not self.home.config.exists():
            self.home.configure(**configuration)
        daemon = self.launch(*arguments, environment=environment)
        return daemon.start()

    def launch(self, *arguments, environment=None, **how):
        """Starts a daemon and does not wait for it. how: wrapper, pass_fds."""
        daemon = Daemon(self.home, arguments, environment, **how)
        self.daemons.append(daemon)
        return daemon

    def fresh(self):
        """An empty store and no daemon: for one more part of a test, whatever became of the last."""
        for daemon in list(self.daemons):
            daemon.kill()
            self.died_on_purpose(daemon)
        for path in self.home.path.glob("events.db*"):
            path.unlink()

    def died_on_purpose(self, daemon):
        self.daemons.remove(daemon)
        self.judge_log(daemon)

    def stop(self, daemon):
        """Ends a daemon in order and judges it."""
        self.daemons.remove(daemon)
        code = daemon.stop()
        self.judge_log(daemon)
        self.assertEqual(code, 0, f"exit code of a stopped daemon; it said:\n{daemon.log}")

    def judge_log(self, daemon):
        self.assertIsNone(REPORTS.search(daemon.log), f"a sanitizer reported:\n{daemon.log}")
        for secret in self.home.secrets:
            self.assertNotIn(secret, daemon.log, "a secret in the log")

    def _clean(self):
        try:
            for daemon in list(self.daemons):
                self.stop(daemon)
        finally:
            for daemon in self.daemons:
                if daemon.process.poll() is None:
                    daemon.kill()
            self.home.remove()

    # What is asked again and again

    def assert_outcome(self, answer, outcome, note=""):
        self.assertEqual(answer.outcome, outcome, f"{note} {answer}\n{self.daemons[-1].log[-4000:]}")

    def count(self, view, where="1", *values):
        return self.home.value(f"SELECT count(*) FROM {view} WHERE {where}", *values)

    def ctl(self, *arguments, code=0, stdin=None, config=True):
        """Runs e2b-hookctl; returns stdout (bytes decoded) after judging the exit code."""
        command = [HOOKCTL, *(["-c", str(self.home.config)] if config else []), *map(str, arguments)]
        run = subprocess.run(command, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                             capture_output=True, timeout=60 * PATIENCE)
        self.ctl_stderr = run.stderr.decode(errors="backslashreplace")
        self.assertIsNone(REPORTS.search(self.ctl_stderr), self.ctl_stderr)
        if code is not None:
            self.assertEqual(run.returncode, code, f"{arguments}: {run.stdout!r} {self.ctl_stderr}")
        return run.stdout.decode(errors="backslashreplace")
