#!/usr/bin/env python3
"""A code executor that tells e2b-hookd how its sandboxes start and how the code in them fares.

    e2b_executor.py --template tta-ml-minimal --url https://hooks.example.com/webhooks/executors \\
                    --secret-file /etc/executor/hookd.secret first_try.py second_try.py third_try.py

It starts a sandbox of the template and runs the first program; while a program fails, the next one. Reports go out from
here, never from inside the sandbox: what runs there must not come near the secret. To report from an executor of your
own, copy what lies between rfc3339 and report_executed: standard library only. Field by field: docs/executors.md.

Sandboxes are E2B's (pip install e2b-code-interpreter, E2B_API_KEY), or with --fake processes of this machine.
"""
import argparse, collections, contextlib, dataclasses, hashlib, hmac, http.client, json, logging
import math, os, pathlib, queue, re, sys, threading, time, urllib.parse, uuid

try:
    from e2b import TimeoutException
    from e2b_code_interpreter import Sandbox
except ImportError:
    Sandbox, TimeoutException = None, TimeoutError

log = logging.getLogger("e2b_executor")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # Jupyter colours its errors


def rfc3339(unix):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix)) + f".{int(unix * 1000) % 1000:03d}Z"


class Reporter:
    """Sends reports from a thread of its own. Whatever becomes of them, report() returns at once and raises nothing."""

    def __init__(self, url, secret_file, tries=4, wait_s=10, timeout_s=10):
        self.url, self.secret_file = urllib.parse.urlsplit(url), secret_file
        self.tries, self.wait_s, self.timeout_s = tries, wait_s, timeout_s  # as E2B: 3 retries, 10 s apart
        if self.url.scheme not in ("http", "https") or not self.url.hostname:
            raise ValueError("the URL must begin with http:// or https:// and a host")
        self._secret()  # a missing file is found now, not with the first report
        self.made, self.outcomes = 0, collections.Counter()
        self.lock, self.waiting = threading.Lock(), queue.Queue(1000)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def report(self, event_type, box, event_data):
        with self.lock:
            self.made += 1
        try:
            self.waiting.put_nowait(json.dumps({
                # No ids of run, build and team: E2B's SDK tells none. The daemon finds the run by sandbox and time.
                "id": str(uuid.uuid4()), "version": "v2", "type": event_type, "timestamp": rfc3339(time.time()),
                "sandbox_id": box.id, "sandbox_template_id": box.template_id, "event_data": event_data}).encode())
        except Exception as error:  # the queue is full, or the metadata is no JSON
            self._count("lost", type(error).__name__)

    def close(self, seconds=60):
        """Waits for what is under way, at most so long. Returns how many reports had which outcome."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Full):
            self.waiting.put(None, timeout=seconds)
            self.thread.join(max(0, deadline - time.monotonic()))
        with self.lock:
            unsent = self.made - sum(self.outcomes.values())
            return {**self.outcomes, **({"unsent": unsent} if unsent else {})}

    def _secret(self):
        """The first line that is not empty. Read for every report: a rotation needs no restart."""
        for line in pathlib.Path(self.secret_file).read_text("utf-8-sig").split("\n"):
            if secret := line.strip(" \t\r"):
                return secret.encode()
        raise ValueError(f"{self.secret_file}: no secret in it")

    def _work(self):
        while (body := self.waiting.get()) is not None:
            self._count(*self._deliver(body))

    def _count(self, outcome, problem=""):
        with self.lock:
            self.outcomes[outcome] += 1
        if outcome not in ("stored", "duplicate"):  # filtered and quarantined are worth a look, too
            log.warning("a report was %s %s", outcome, problem)

    def _deliver(self, body):
        """The same bytes in every try, hence the same id: the daemon counts them once, however often they arrive."""
        problem = ""
        for n in range(self.tries):
            if n > 0:
                time.sleep(self.wait_s)
            try:
                status, answer = self._post(body)
                if status == 200:
                    return json.loads(answer)["status"], ""
            except Exception as error:  # refused, reset, too slow, bad certificate, unreadable secret
                problem = str(error) if isinstance(error, OSError) else type(error).__name__
                continue
            problem = f"HTTP {status}"
            if status < 500 and status not in (408, 429):
                break  # wrong secret, path or body: the next try would fare no better
        return "lost", problem

    def _post(self, body):
        # http.client follows no redirect: a report that ended up elsewhere would look delivered.
        connect = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = connect(self.url.hostname, self.url.port, timeout=self.timeout_s)
        signature = "sha256=" + hmac.new(self._secret(), body, hashlib.sha256).hexdigest()
        try:
            connection.request("POST", self.url.path or "/", body,
                               {"content-type": "application/json", "x-signature-256": signature})
            response = connection.getresponse()
            return response.status, response.read(65536)
        finally:
            connection.close()


@dataclasses.dataclass
class Box:
    """A sandbox as reports name it. Without a size the daemon takes that of its [template] section."""
    id: str
    template_id: str
    vcpu_count: int = None
    memory_mb: int = None
    sandbox: object = None


@dataclasses.dataclass
class Outcome:  # how an attempt ended
    status: str  # success, error, timeout, killed
    begun: float  # unix time
    duration_ms: int  # by the monotonic clock
    error: dict = None  # name, value
    execution: object = None  # E2B's, with its logs and results, if it came to that


def report_created(reporter, box, startup_ms, metadata):
    reporter.report("sandbox.created", box, {"startup_ms": startup_ms, "sandbox_metadata": metadata})


def report_executed(reporter, box, outcome, attempt, final):
    """Sends neither program nor output, nor the traceback, which quotes the program: they may hold anything."""
    reporter.report("sandbox.code_executed", box, {"code_execution": {
        "execution_id": str(uuid.uuid4()), "kind": "code", "language": "python",
        "started_at": rfc3339(outcome.begun), "finished_at": rfc3339(outcome.begun + outcome.duration_ms / 1000),
        "duration_ms": outcome.duration_ms, "status": outcome.status, "timed_out": outcome.status == "timeout",
        "exit_code": {"success": 0, "error": 1}.get(outcome.status), "error": outcome.error,
        "attempt": attempt, "final": final, "vcpu_count": box.vcpu_count, "memory_mb": box.memory_mb}})


class Executor:
    """Runs programs in sandboxes of one template. `sandboxes` is E2B's Sandbox class or one like it."""

    def __init__(self, template, sandboxes, reporter, timeout_s=60, metadata=None, say=lambda text: None):
        self.template, self.sandboxes, self.reporter = template, sandboxes, reporter
        self.timeout_s, self.metadata, self.say = timeout_s, metadata or {}, say

    def run(self, code, fix=lambda attempt, outcome: None, attempts=3):
        """Runs code and, while it fails, what `fix` makes of it (None: give up). Returns the last outcome."""
        box = None
        try:
            for attempt in range(1, attempts + 1):
                box = box or self._start(lifetime_s=math.ceil(attempts * self.timeout_s) + 60)
                outcome, code = self._execute(box, code), None
                self.say(f"attempt {attempt} of {attempts}: {outcome.status} after {outcome.duration_ms} ms  "
                         + ": ".join((outcome.error or {}).values()))
                try:
                    if outcome.status != "success" and attempt < attempts:
                        code = fix(attempt, outcome)
                finally:  # even if fix raises: a failure must not vanish with its repair
                    report_executed(self.reporter, box, outcome, attempt, final=code is None)
                if code is None:
                    return outcome
                if outcome.status in ("timeout", "killed"):  # gone, or still busy with the old program
                    self._kill(box)
                    box = None
        finally:
            if box:
                self._kill(box)

    def _start(self, lifetime_s):
        clock = time.monotonic()
        sandbox = self.sandboxes.create(template=self.template, timeout=lifetime_s, metadata=self.metadata)
        startup_ms = round((time.monotonic() - clock) * 1000)
        # Some SDKs append `-CLIENT` to the id; E2B's webhooks do not, and the two must meet.
        short_id = re.sub(r"^(i[a-z0-9]{20})-[0-9a-f]{8}$", r"\1", sandbox.sandbox_id)
        box = Box(short_id, self.template, sandbox=sandbox)
        with contextlib.suppress(Exception):  # the report then goes without them
            info = sandbox.get_info()
            box.template_id, box.vcpu_count, box.memory_mb = info.template_id, info.cpu_count, info.memory_mb
        self.say(f"sandbox {box.id} of {self.template} started in {startup_ms} ms")
        report_created(self.reporter, box, startup_ms, self.metadata)
        return box

    def _execute(self, box, code):
        outcome, clock = Outcome("success", time.time(), 0), time.monotonic()
        try:
            outcome.execution = box.sandbox.run_code(code, language="python", timeout=self.timeout_s)
            if error := outcome.execution.error:
                outcome.status, name, value = "error", error.name or "Error", error.value or ""
        except Exception as error:  # a timeout, too; before the time is up, as any other: killed, or out of reach
            late = time.monotonic() - clock >= 0.9 * self.timeout_s
            timed_out = late and isinstance(error, (TimeoutException, TimeoutError))
            outcome.status, name, value = "timeout" if timed_out else "killed", type(error).__name__, str(error)
        outcome.duration_ms = round((time.monotonic() - clock) * 1000)
        if outcome.status != "success":
            outcome.error = {"name": name[:200], "value": ANSI.sub("", value)[:4096]}
        return outcome

    def _kill(self, box):
        with contextlib.suppress(Exception):  # its lifetime will end it
            box.sandbox.kill()


def say(text):
    """Error texts come out of the sandbox: they do not get to drive the terminal."""
    print("".join(c if c.isprintable() else " " for c in ANSI.sub("", text))[:240].rstrip(), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", required=True, help="template id or alias")
    parser.add_argument("--url", required=True, help="where the daemon's source for executors listens")
    parser.add_argument("--secret-file", default=os.environ.get("E2B_HOOKD_SECRET_FILE"),
                        required="E2B_HOOKD_SECRET_FILE" not in os.environ, help="else E2B_HOOKD_SECRET_FILE names it")
    parser.add_argument("--fake", action="store_true", help="processes of this machine, not isolated, for sandboxes")
    parser.add_argument("--fake-setup", metavar="FILE", default=os.devnull, help="a program that runs at their start")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=60, help="seconds for an attempt")
    parser.add_argument("programs", nargs="+", metavar="FILE.py", help="what to try, in this order")
    args = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    try:
        sandboxes = Sandbox
        if args.fake:
            from fake_sandbox import FakeSandbox as sandboxes
            sandboxes.setup = pathlib.Path(args.fake_setup).read_text("utf-8")
        elif not Sandbox:
            raise ValueError("e2b-code-interpreter is not installed; --fake runs the programs on this machine")
        programs = iter([pathlib.Path(name).read_text("utf-8") for name in args.programs])
        reporter = Reporter(args.url, args.secret_file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    executor, outcome = Executor(args.template, sandboxes, reporter, args.timeout, say=say), None
    try:
        outcome = executor.run(next(programs), lambda attempt, outcome: next(programs, None), args.attempts)
    except Exception as error:  # there is nothing to report without a sandbox
        say(f"no sandbox of {args.template}: {type(error).__name__}: {error}")
    say("reports: " + (", ".join(f"{n} {what}" for what, n in reporter.close().items()) or "none"))
    return 0 if outcome and outcome.status == "success" else 1


if __name__ == "__main__":
    sys.exit(main())
