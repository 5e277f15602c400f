#!/usr/bin/env python3
"""Runs the end-to-end tests: run.py [--long] [--sanitized | --valgrind] [-k WORD] [MODULE…]

A module is test_NAME.py here. One line a module, what failed in full; the last line is `N passed, N failed[, N skipped]`.
--sanitized: the daemon is built with sanitizers; tests about its size and speed are left out.
--valgrind: daemon and tool run under memcheck; any error or definite leak fails; the same tests are left out.
"""
import argparse
import importlib
import os
import pathlib
import signal
import sys
import tempfile
import time
import unittest


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


def main():
    parser = argparse.ArgumentParser(description="End-to-end tests", allow_abbrev=False)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--sanitized", action="store_true")
    parser.add_argument("--valgrind", action="store_true")
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
    # `scripts` builds, so it comes last: the others must not see the programs change.
    names = args.modules or sorted((p.stem[5:] for p in here.glob("test_*.py")), key=lambda n: (n == "scripts", n))
    passed = failed = skipped = 0
    for name in names:
        begin = time.monotonic()
        result = Result()
        try:
            module = importlib.import_module(f"test_{name}")
        except ImportError as error:
            print(f"FAIL {name}: {error}")
            failed += 1
            continue
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
        passed, failed = passed + result.passed, failed + len(result.bad)
        skipped += len(result.skipped)
        print(f"{name}: {result.passed} passed, {len(result.bad)} failed ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
