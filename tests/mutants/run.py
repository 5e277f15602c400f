#!/usr/bin/env python3
"""Shows that the tests have teeth: builds the daemon with a lie in it, once for each NAME.patch here, and sees that the tests
which must notice do. Usage: run.py [--check] [NAME…]. The last line is `N passed, N failed[, N skipped]`.

A patch begins with a line that says the lie, then one line or more of

    Caught by: unit PROGRAM TEST [ARGUMENT…]      a test of tests/test_PROGRAM.c
    Caught by: e2e MODULE WORD [VARIABLE=VALUE…]  the test of tests/e2e/test_MODULE.py whose name contains WORD

and each of them must fail, by itself: a build that breaks, another test that fails or a program that hangs is not enough. The
same tests must pass without a lie. The tree is copied aside and built there; nothing here is touched. --check: only whether
every patch applies and names tests that exist.
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECONDS = 180  # for one test


def run(command, cwd, seconds=SECONDS, variables=None):
    """(exit code, what it said); 124 if it had to be ended. It leads a group of its own, which ends with it."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(list(map(str, command)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                   start_new_session=True, env={**os.environ, **(variables or {})})
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = 124
        said.seek(0)
        return code, said.read().decode(errors="backslashreplace")


class Test:
    """One line `Caught by:`."""

    def __init__(self, line):
        self.line = line
        self.kind, self.where, self.name, *self.arguments = line.split()

    @property
    def targets(self):
        return [f"tests/test_{self.where}"] if self.kind == "unit" else ["daemon/e2b-hookd", "daemon/e2b-hookctl"]

    def exists(self):
        if self.kind == "unit":
            source = ROOT / f"tests/test_{self.where}.c"
            return source.exists() and re.search(rf"^static void {self.name}\(", source.read_text(), re.MULTILINE)
        source = ROOT / f"tests/e2e/test_{self.where}.py"
        return source.exists() and re.search(rf"^    def \w*{self.name}", source.read_text(), re.MULTILINE)

    def judge(self, tree, build):
        """`passed`, `failed`, `skipped …`, or what else became of it; and its output."""
        judge = self._unit if self.kind == "unit" else self._e2e
        return judge(tree, build)

    def _unit(self, tree, build):
        code, said = run([build / f"tests/test_{self.where}", *self.arguments], tree, variables={"HOOKD_SOURCE_ROOT": str(tree)})
        if re.search(rf"^\[       OK \] {self.name}$", said, re.MULTILINE):
            return "passed", said
        begun = re.findall(r"^\[ RUN      \] (\w+)$", said, re.MULTILINE)
        died = code not in (0, 124) and begun and begun[-1] == self.name
        if died or re.search(rf"^\[  (?:FAILED|ERROR)  \] {self.name}$", said, re.MULTILINE):
            return "failed", said
        return f"neither passed nor failed (exit {code}, 124: not in time)", said

    def _e2e(self, tree, build):
        variables = {"HOOKD_BIN": str(build / "daemon/e2b-hookd"), "HOOKCTL_BIN": str(build / "daemon/e2b-hookctl"),
                     **dict(a.split("=", 1) for a in self.arguments)}
        code, said = run([sys.executable, tree / "tests/e2e/run.py", "-k", self.name, self.where], tree, variables=variables)
        counts = re.fullmatch(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", said.rstrip().split("\n")[-1])
        if not counts:
            return f"neither passed nor failed (exit {code}, 124: not in time)", said
        passed, failed, skipped = (int(n or 0) for n in counts.groups())
        if failed:
            return "failed", said
        return ("passed" if passed else f"skipped{reason_of(said)}" if skipped else "ran nothing"), said


def reason_of(said):
    match = re.search(r"^SKIP \S+: (.*)$", said, re.MULTILINE)
    return f" ({match.group(1)})" if match else ""


class Mutant:
    def __init__(self, path):
        self.path, self.name = path, path.stem
        head = path.read_text().split("\ndiff --git ")[0].splitlines()
        self.lie = head[0]
        self.tests = [Test(line.split(":", 1)[1]) for line in head[1:] if line.startswith("Caught by:")]

    def wrong(self):
        """Why it cannot be tried; None if it can."""
        if not self.tests:
            return f"it names no test: a line `Caught by: …` does (see {HERE.name}/run.py)"
        for test in self.tests:
            if not test.exists():
                return f"there is no such test:{test.line}: name the one that sees this lie now"
        code, said = self.apply(ROOT, "--check")
        if code != 0:
            return (f"it does not apply any more: tell the same lie to the code as it is now, and write the difference "
                    f"(git diff) below the lines at the head of {self.path.relative_to(ROOT)}\n{said}")
        return None

    def apply(self, tree, *options):
        # Copied aside it is no repository; were there one around it, git would look for the files there.
        return run(["git", "apply", *options, self.path], tree, variables={"GIT_CEILING_DIRECTORIES": str(tree.parent)})


def copy_tree(to):
    code, names = run(["git", "ls-files", "-co", "--exclude-standard", "-z"], ROOT)
    if code != 0:  # a tree without its history
        shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns("build*", "__pycache__"))
        return
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def build_targets(build, tests):
    return run(["ninja", "-C", build, *sorted({t for test in tests for t in test.targets})], build, 600)


def control(tree, build, tests):
    """What does not pass without a lie, by line: its mutants show nothing."""
    code, said = build_targets(build, tests)
    if code != 0:
        return {test.line: f"it does not build\n{said}" for test in tests}
    bad = {}
    for test in {t.line: t for t in tests}.values():
        judged, said = test.judge(tree, build)
        if judged != "passed":
            bad[test.line] = judged if judged.startswith("skipped") else f"{judged} without a lie\n{said}"
    return bad


def attempt(mutant, tree, build, tests):
    """Why it survives; None if every test notices."""
    code, said = mutant.apply(tree)
    try:
        if code == 0:
            code, said = build_targets(build, tests)
        if code != 0:
            return f"it does not build\n{said}"
        for test in tests:
            judged, said = test.judge(tree, build)
            if judged != "failed":
                return f"it survives{test.line}: {judged}\n{said[-3000:]}"
        return None
    finally:
        mutant.apply(tree, "--reverse")


def try_all(mutants, directory):
    tree, build = directory / "tree", directory / "build"
    copy_tree(tree)
    code, said = run(["meson", "setup", build, tree], tree, 300)
    assert code == 0, said
    bad = control(tree, build, [t for m in mutants for t in m.tests])
    skipped = {line: why for line, why in bad.items() if why.startswith("skipped")}
    for line, why in bad.items():
        print(f"{'SKIP' if line in skipped else 'FAIL'}{line}: {why}", flush=True)
    failed, n_skipped, passed = len(bad) - len(skipped), 0, 0
    for mutant in mutants:
        begin = time.monotonic()
        tests = [t for t in mutant.tests if t.line not in skipped]
        if any(t.line in bad for t in tests):
            continue  # counted already
        if not tests:
            n_skipped += 1
            continue
        why = attempt(mutant, tree, build, tests)
        print(f"{'FAIL ' if why else 'killed'} {mutant.name}: {why or mutant.lie} ({time.monotonic() - begin:.1f} s)", flush=True)
        failed, passed = failed + bool(why), passed + (not why)
    return passed, failed, n_skipped


def main():
    parser = argparse.ArgumentParser(description="Broken builds that tests must notice", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="only whether every patch applies and names tests that exist")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    args = parser.parse_args()
    mutants = [Mutant(p) for p in sorted(HERE.glob("*.patch")) if not args.names or p.stem in args.names]
    sound, failed, skipped = [], 0, 0
    for mutant in mutants:
        if why := mutant.wrong():
            print(f"FAIL {mutant.name}: {why}")
            failed += 1
        else:
            sound.append(mutant)
    passed = len(sound)
    if not args.check and sound:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-mutants-"))
        try:
            passed, more, skipped = try_all(sound, directory)
            failed += more
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
