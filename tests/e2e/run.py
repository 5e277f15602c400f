#!/usr/bin/env python3
"""Runs the end-to-end tests: run.py [--long] [--sanitized | --valgrind] [--beside N] [-k WORD] [MODULE…]

A module is test_NAME.py here. One line a module, what failed in full; the last line is `N passed, N failed[, N skipped]`.
--beside: N modules at a time, each in a process of its own: most of their time is waiting. Those in ALONE come one by one
after them.
--sanitized: the daemon is built with sanitizers; tests about its size and speed are left out.
--valgrind: daemon and tool run under memcheck; any error or definite leak fails; the same tests are left out.
"""
import argparse
import importlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest


# What measures time, fills the machine, or builds (so that the others do not see the programs change: the last).
ALONE = ["bench_smoke", "hostile", "trouble", "injected", "soak", "scripts"]
SLOW = ["alerts", "rebuild", "notify"]  # first, or the last of them would be waited for alone
COUNTS = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?")


def tests_of(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from tests_of(item)
        else:
            yield item


class Result(unittest.TestResult):
    """Counts a test once, however many of its parts failed."""

    def __init__(self):
        super().__init__()
        self.bad, self.passed = {}, 0

    def _fail(self, test, error):
        name = test.id() if not hasattr(test, "test_case") else test.test_case.id()
        self.bad.setdefault(name, []).append(self._exc_info_to_string(error, test))

    def addError(self, test, err):
        self._fail(test, err)

    def addFailure(self, test, err):
        self._fail(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.bad.setdefault(test.id(), []).append(f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def stopTest(self, test):
        super().stopTest(test)
        if test.id() not in self.bad and not any(t is test for t, _ in self.skipped):
            self.passed += 1


VALGRIND = ("valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite"
            " --num-callers=30 --fair-sched=yes --child-silent-after-fork=yes --vgdb=no")


def put_under_valgrind(directory, built):
    """In place of each program one that becomes valgrind, with the program in it, under the same pid."""
    for variable, name in (("HOOKD_BIN", "e2b-hookd"), ("HOOKCTL_BIN", "e2b-hookctl")):
        program = os.path.abspath(os.environ.get(variable, built / name))
        wrapper = pathlib.Path(directory, name)
        wrapper.write_text(f'#!/bin/sh\nexec {VALGRIND} "{program}" "$@"\n')
        wrapper.chmod(0o755)
        os.environ[variable] = str(wrapper)


def run_module(name, args):
    """Its counts: passed, failed, skipped."""
    begin = time.monotonic()
    result = Result()
    try:
        module = importlib.import_module(f"test_{name}")
    except ImportError as error:
        print(f"FAIL {name}: {error}")
        return 0, 1, 0
    chosen = unittest.TestSuite()
    for test in tests_of(unittest.defaultTestLoader.loadTestsFromModule(module)):
        method = getattr(test, test._testMethodName)
        if args.k in test.id() and not (args.sanitized and hasattr(method, "plain_only")):
            chosen.addTest(test)
    chosen.run(result)
    for test, reason in result.skipped:
        print(f"SKIP {test.id()}: {reason}")
    for test, errors in result.bad.items():
        for error in errors:
            print(f"FAIL {test}\n{error}")
    print(f"{name}: {result.passed} passed, {len(result.bad)} failed ({time.monotonic() - begin:.1f} s)", flush=True)
    return result.passed, len(result.bad), len(result.skipped)


def begin_module(name, args):
    flags = [flag for flag in ("--long", "--sanitized", "--valgrind") if getattr(args, flag[2:])]
    said = tempfile.TemporaryFile("w+")
    command = [sys.executable, __file__, *flags, "-k", args.k, name]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT), said


def end_module(process, said, name):
    """What it said, but for its last line: that one is counted."""
    code = process.wait()
    said.seek(0)
    *lines, last = said.read().splitlines() or [""]
    said.close()
    counts = COUNTS.fullmatch(last)
    if lines:
        print("\n".join(lines), flush=True)
    if not counts:
        print(f"FAIL {name}: it ended with {code} before it could count: {last}", flush=True)
        return 0, 1, 0
    return tuple(int(n or 0) for n in counts.groups())


def run_beside(names, args):
    """Those that may run beside others, args.beside at a time."""
    waiting, running, counts = list(names), [], []
    while waiting or running:
        while waiting and len(running) < args.beside:
            name = waiting.pop(0)
            running.append((*begin_module(name, args), name))
        ended = [r for r in running if r[0].poll() is not None]
        running = [r for r in running if r not in ended]
        counts += [end_module(*r) for r in ended]
        time.sleep(0 if ended else 0.05)
    return counts


def main():
    parser = argparse.ArgumentParser(description="End-to-end tests", allow_abbrev=False)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--sanitized", action="store_true")
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("--beside", type=int, default=1, metavar="N")
    parser.add_argument("-k", default="", help="only tests whose name contains this")
    parser.add_argument("modules", nargs="*")
    args = parser.parse_args()
    # A shell starts what it puts into the background with these ignored, and every program below would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.environ["HOOKD_LONG"] = "1" if args.long else "0"
    args.sanitized |= args.valgrind
    os.environ["HOOKD_SANITIZED"] = "1" if args.sanitized else "0"
    os.environ["HOOKD_VALGRIND"] = "1" if args.valgrind else "0"
    here = pathlib.Path(__file__).resolve().parent
    programs = tempfile.TemporaryDirectory(prefix="hookd-valgrind-")
    if args.valgrind:
        put_under_valgrind(programs.name, here.parents[1] / "build/daemon")
    sys.path.insert(0, str(here))
    sys.dont_write_bytecode = True
    import harness
    if not os.access(harness.HOOKD, os.X_OK):
        print(f"no program to test: {harness.HOOKD} (HOOKD_BIN names another)\n0 passed, 1 failed")
        return 1
    names = args.modules or sorted(p.stem[5:] for p in here.glob("test_*.py"))
    names.sort(key=lambda n: ALONE.index(n) + 1 if n in ALONE else -(n in SLOW))
    counts = []
    if args.beside > 1:
        counts = run_beside([n for n in names if n not in ALONE], args)
        names = [n for n in names if n in ALONE]
    counts += [run_module(name, args) for name in names]
    passed, failed, skipped = (sum(column) for column in zip(*counts))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
