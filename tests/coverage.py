#!/usr/bin/env python3
"""What the tests reached, from gcovr's JSON: coverage.py [--missing [MODULE…]] COVERAGE.json

A line a module: lines and branches, and the bound it is held to. --missing names the branches that were not taken, of these
modules or of all that are held. The last line is `N passed, N failed`: a held module is a test.

Counted is every branch that gcc made at -O0, but for two kinds that cannot be taken unless we are wrong: those of an assert,
and the way past the last case of a switch over an enum that has no `default:`.
"""
import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BRANCHES_MIN = 95.0
HELD = {
    "judging": ("ingest", "event", "event_data", "event_field"),
    "signature": ("signature", "signature_text"),
    "JSON": ("json", "json_scan"),
    "money": ("decimal", "pricing", "ledger", "ledger_account", "ledger_settle", "storage_sqlite_rollup"),
    "writer": ("writer", "writer_batch", "writer_health", "writer_secret", "writer_store", "writer_upkeep"),
}
ASSERT = re.compile(r"\bassert\(")
SWITCH = re.compile(r"^\s*switch \(")
DEFAULT = re.compile(r"^\s*default:")


def asserted(source):
    """Numbers of the lines that belong to an assert, to the end of its statement."""
    inside, found = False, set()
    for number, line in enumerate(source, 1):
        inside = inside or bool(ASSERT.search(line))
        if inside:
            found.add(number)
            inside = ";" not in line
    return found


def has_default(source, number):
    """Whether the switch that begins at this line has a default of its own."""
    indent = re.match(r"\s*", source[number - 1]).group()
    for line in source[number:]:
        if line.startswith(indent + "}"):
            return False
        if DEFAULT.match(line) and re.match(r"\s*", line).group() == indent:
            return True
    return False


class Module:
    def __init__(self, entry):
        path = pathlib.Path(entry["file"])
        self.name, self.missing = path.stem, []
        self.lines = self.lines_hit = self.branches = self.branches_hit = 0
        source = (ROOT / path).read_text(encoding="utf-8").splitlines()
        excused = asserted(source)
        for line in entry["lines"]:
            if not line["gcovr/noncode"] and not line["gcovr/excluded"]:
                self.count(line, source, excused)

    def count(self, line, source, excused):
        number = line["line_number"]
        self.lines += 1
        self.lines_hit += line["count"] > 0
        if number in excused:
            return
        ways = len(line["branches"])
        taken = sum(branch["count"] > 0 for branch in line["branches"])
        if ways - taken >= 1 and SWITCH.match(source[number - 1]) and not has_default(source, number):
            ways -= 1
        self.branches += ways
        self.branches_hit += taken
        if taken < ways:
            self.missing.append((number, taken, ways, source[number - 1].strip()))


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def main():
    parser = argparse.ArgumentParser(description="What the tests reached", allow_abbrev=False)
    parser.add_argument("--missing", nargs="*", metavar="MODULE")
    parser.add_argument("report")
    args = parser.parse_args()
    modules = {m.name: m for m in map(Module, json.loads(pathlib.Path(args.report).read_text())["files"])}
    held = {name: noun for noun, names in HELD.items() for name in names}
    if args.missing is not None:
        for name in args.missing or held:
            for number, taken, ways, text in modules[name].missing:
                print(f"{name}.c:{number}: {taken} of {ways}: {text}")
        return 0
    passed = failed = 0
    print(f"{'module':32} {'lines':>18} {'branches':>18}")
    for name, m in sorted(modules.items()):
        share = percent(m.branches_hit, m.branches)
        note = ""
        if name in held:
            good = share >= BRANCHES_MIN
            passed, failed = passed + good, failed + (not good)
            note = f"  {held[name]}: held to {BRANCHES_MIN:g} %{'' if good else ', FAILED'}"
        print(f"{name:32} {m.lines_hit:6}/{m.lines:<5} {percent(m.lines_hit, m.lines):5.1f}"
              f" {m.branches_hit:6}/{m.branches:<5} {share:5.1f}{note}")
    for name in sorted(held.keys() - modules.keys()):
        print(f"{name}: no such module: is it called otherwise now?")
        failed += 1
    lines, hit = sum(m.lines for m in modules.values()), sum(m.lines_hit for m in modules.values())
    ways, taken = sum(m.branches for m in modules.values()), sum(m.branches_hit for m in modules.values())
    print(f"{'all':32} {hit:6}/{lines:<5} {percent(hit, lines):5.1f} {taken:6}/{ways:<5} {percent(taken, ways):5.1f}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
