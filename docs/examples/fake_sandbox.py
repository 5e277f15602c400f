"""What e2b_executor.py uses of E2B's Sandbox, on processes of this machine: to try the reporting without an account.

Programs really run: they fail with their own errors and are ended when their time is up. It isolates nothing, so it is
for programs that you trust; and unlike E2B's, these sandboxes keep no variables from one program to the next.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import types
import uuid

KERNEL = """
import json, traceback
try:
    exec(compile(open("program.py", encoding="utf-8").read(), "program.py", "exec"), {"__name__": "__main__"})
except BaseException as e:
    failure = {"name": type(e).__name__, "value": str(e), "traceback": traceback.format_exc()}
    json.dump(failure, open("failure.json", "w"))
"""


class FakeSandbox:
    setup = ""  # a program that runs first, as a template's start command does

    def __init__(self):
        self.sandbox_id = "i" + uuid.uuid4().hex[:20]
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fake-sandbox-"))

    @classmethod
    def create(cls, template=None, timeout=None, metadata=None):
        sandbox = cls()
        try:
            if error := sandbox.run_code(cls.setup, timeout=timeout).error:
                raise RuntimeError(f"the template's setup failed: {error.name}: {error.value}")
        except BaseException:
            sandbox.kill()
            raise
        return sandbox

    def run_code(self, code, language="python", timeout=None):
        """An Execution with error (None, or name, value, traceback) and logs; TimeoutError when the time is up."""
        if language != "python":
            raise ValueError(f"this sandbox does not speak {language}")
        out, err, failure = (self.folder / name for name in ("stdout", "stderr", "failure.json"))
        failure.unlink(missing_ok=True)
        (self.folder / "program.py").write_text(code, "utf-8")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen([sys.executable, "-I", "-c", KERNEL], cwd=self.folder, env={},
                                       stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True)
        try:
            process.wait(timeout or None)
        except subprocess.TimeoutExpired:
            raise TimeoutError("Execution timed out") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        error = None
        if failure.exists():
            error = types.SimpleNamespace(**json.loads(failure.read_text()))
        elif process.returncode != 0:  # E2B's name for a kernel that died
            error = types.SimpleNamespace(name="UnexpectedEndOfExecution", value=f"exit code {process.returncode}",
                                          traceback="")
        logs = types.SimpleNamespace(**{path.name: [path.read_text("utf-8", "replace")] for path in (out, err)})
        return types.SimpleNamespace(error=error, logs=logs, results=[])

    def kill(self):
        shutil.rmtree(self.folder, ignore_errors=True)
