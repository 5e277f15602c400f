#!/usr/bin/env python3
"""Runs the unit and corpus tests of a build and counts the tests inside each program.

cmocka names its tests in what a program prints; a program that prints none counts as one test. A
program that ends badly is a failure even if no test of it failed (a crash, a sanitizer, a leak).
Usage: meson_tests.py [--valgrind] BUILD_DIR [PROGRAM…], a program as `writer`. Prints what failed; the last line is
`N passed, N failed`.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys

SANITIZERS = {
    "ASAN_OPTIONS": "halt_on_error=1:abort_on_error=1:detect_leaks=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1:history_size=4",
}
VALGRIND = ("valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite --show-leak-kinds=definite"
            " --num-callers=30 --fair-sched=yes --child-silent-after-fork=yes --vgdb=no")


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("programs", nargs="*")
    args = parser.parse_args()
    build = args.build
    chosen = args.programs or ["--suite", "unit", "--suite", "corpus"]
    how = ["--wrapper", VALGRIND, "--timeout-multiplier", "10"] if args.valgrind else []
    extra = {"HOOKD_VALGRIND": "1"} if args.valgrind else {}
    log = build / ("meson-logs/testlog-valgrind.json" if args.valgrind else "meson-logs/testlog.json")
    log.unlink(missing_ok=True)
    run = subprocess.run(["meson", "test", "-C", str(build), "--no-rebuild", *how, *chosen],
                         env={**SANITIZERS, **extra, **os.environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if not log.exists():
        print(run.stdout + run.stderr)
        print("0 passed, 1 failed")
        return 1
    passed = failed = 0
    for line in log.read_text().splitlines():
        result = json.loads(line)
        text = result.get("stdout", "") + result.get("stderr", "")
        good = len(re.findall(r"^\[       OK \]", text, re.MULTILINE))
        bad = len(re.findall(r"^\[  (?:FAILED|ERROR)  \] \w+$", text, re.MULTILINE))
        if result["result"] == "OK" and bad == 0:
            passed += max(good, 1)
        else:
            passed += good
            failed += max(bad, 1)
            print(f"--- {result['name']}: {result['result']} (exit {result.get('returncode')})\n{text}")
    if run.returncode != 0 and not failed:
        print(run.stdout + run.stderr)
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
