#!/usr/bin/env python3
"""The benchmark: how fast the daemon takes deliveries, next to what HTTP alone, an append-only file and SQLite alone can do.

    run.py --build build-release [--directory /var/tmp] [--connections 1,8,64,256,1000] [--rounds 5] [--seconds 5]
           [--store FILE] [--readers 4] [--growth 5000000] [--json OUT]

The receivers take turns on every number of connections, round after round, so that what else the machine does meets all of
them; every run has a fresh store. Figures are medians over the rounds (least to most); ratios are taken within a round. The
daemon's cost is counted until its ledger has caught up with what it took. At the end every goal is printed with what was
seen; the exit code is 1 if one was missed and 2 if the benchmark itself failed. README.md beside this says more.
"""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
RECEIVERS = ("bare", "append", "hookd")
BATCHES = (1, 64, 256)  # of the raw inserter
SUMS = ("log_syncs", "log_sync_us", "log_writes", "log_bytes", "other_syncs", "other_sync_us", "other_writes", "other_bytes")
MIB = 1 << 20
GROWTH_STEP = 200_000  # events between two looks at the memory
GROWTH_SLACK = 2 * MIB  # what a heap may drift without being called growth
FOLD_WAIT_S = 120

sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]
import harness  # noqa: E402
import queries  # noqa: E402


class Broken(Exception):
    """The benchmark itself failed: no figure came of it."""


# Receivers --------------------------------------------------------------------------------------------

def settings():
    """One source; queue and connections above the largest load."""
    return {"server": {"max_connections": 4096}, "sources": {"e2b": harness.E2B_SOURCE}}


class Receiver:
    """One run of a receiver on a store of its own, or on one that is given."""

    def __init__(self, kind, build, store=None):
        self.kind, self.home = kind, harness.Home()
        if store:
            self.home.db = pathlib.Path(store)
        self.home.configure(**settings())
        self.counts = self.home.path / "counts"
        environment = dict(os.environ)
        shim = build / "tests/bench/sync_count.so"
        if shim.exists():
            environment.update(LD_PRELOAD=str(shim), SYNC_COUNT=str(self.counts))
        program = build / ("daemon/e2b-hookd" if kind == "hookd" else f"tests/bench/{kind}")
        command = [program] if kind == "bare" else [program, "-c", self.home.config]
        self.log = self.home.path / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                            env=environment, cwd=self.home.path)
        self.port = harness.until(self._listening, f"{kind} to listen", 30).rpartition(":")[2]
        if kind == "hookd":
            harness.until(lambda: re.search(r"\bready\b", self.said()), "the daemon to be ready", 60)

    def said(self):
        return self.log.read_text(errors="replace")

    def _listening(self):
        if self.process.poll() is not None:
            raise Broken(f"{self.kind} ended with {self.process.returncode}: {self.said()}")
        found = re.search(r"\blistening\b.*\baddress=(\S+)", self.said())
        return found and found.group(1)

    def figures(self):
        """What the process has used until now."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        # In nanoseconds, of the threads that run: none ends while it is measured. (`stat` counts in hundredths of a second.)
        on_cpu = sum(int(task.read_text().split()[0]) for task in proc.glob("task/*/schedstat"))
        io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
        sums = struct.unpack("8Q", self.counts.read_bytes()) if self.counts.exists() else (0,) * len(SUMS)
        return {"cpu_us": on_cpu / 1e3, "written": int(io["write_bytes"]),
                **dict(zip(SUMS, sums, strict=True))}

    def memory(self, field):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+)", status, re.MULTILINE).group(1)) * 1024

    def wait_folded(self):
        """Until the ledger holds what was taken; returns how long that took."""
        if self.kind != "hookd":
            return 0.0
        began = time.monotonic()
        self.home.wait_folded(FOLD_WAIT_S)
        return time.monotonic() - began

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired as error:
            self.process.kill()
            self.process.wait()
            raise Broken(f"{self.kind} did not end: {self.said()}") from error
        said = self.said()
        self.home.remove()
        if code != 0:
            raise Broken(f"{self.kind} ended with {code}: {said}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.stop()
        elif self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.home.remove()


def load(build, receiver, connections, seconds, ahead=None, shape=()):
    """What the load generator prints, as numbers. shape: its arguments about what the traffic is like."""
    command = [build / "tests/bench/load", "--secret-file", receiver.home.path / "e2b.secret", "--port", receiver.port,
               "--connections", str(connections), "--seconds", str(seconds), *shape]
    if ahead:
        command += ["--ahead", str(ahead)]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 300)
    if run.returncode != 0:
        raise Broken(f"load on {receiver.kind}: {run.stderr}{run.stdout} {receiver.said()[-2000:]}")
    return {name: float(value) for name, value in (line.split() for line in run.stdout.splitlines())}


class Ahead:
    """How many requests to write ahead of a run: a little more than the fastest run before could send."""

    def __init__(self, seconds, pad, pace):
        self.seconds, self.seen = seconds, {}
        self.slower = 1 + (pad or 0) / 1000  # until one was seen: a guess, so that they fit into memory
        self.shape = [*(["--pad", str(pad)] if pad else []), *(["--pace", str(pace)] if pace else [])]

    def of(self, kind, connections):
        rate = self.seen.get((kind, connections), (120_000 if kind == "bare" else 50_000) / self.slower)
        return int(rate * self.seconds * 1.3) + connections

    def learn(self, kind, connections, rate):
        key = (kind, connections)
        self.seen[key] = max(self.seen.get(key, 0), rate)


def measure(build, receiver, connections, seconds, ahead):
    """One load; figures an event. The caller sees to the store."""
    idle = receiver.memory("VmRSS")
    before = receiver.figures()
    seen = load(build, receiver, connections, seconds, ahead.of(receiver.kind, connections), ahead.shape)
    ahead.learn(receiver.kind, connections, seen["requests/s"])
    lag = receiver.wait_folded()
    used = {name: value - before[name] for name, value in receiver.figures().items()}
    events = seen["answered"]
    syncs = used["log_syncs"]
    return {
        "rate": seen["requests/s"], "p50_ms": seen["p50_ms"], "p99_ms": seen["p99_ms"], "max_ms": seen["max_ms"],
        "events": events, "body_bytes": seen["body_bytes"], "load_cpu_us": seen["load_cpu_us"],
        "cpu_us": used["cpu_us"] / events, "written": used["written"] / events, "pages": used["written"] / 4096 / events,
        "syncs": (syncs + used["other_syncs"]) / events,
        "batch": events / syncs if syncs else None,
        "sync_ms": used["log_sync_us"] / syncs / 1000 if syncs else None,
        "wal_bytes": used["log_bytes"] / events, "other_bytes": used["other_bytes"] / events,
        "idle_rss": idle, "peak_rss": receiver.memory("VmHWM"), "rss": receiver.memory("VmRSS"), "catch_up_s": lag,
    }


def insert(build, directory, batch, seconds):
    path = pathlib.Path(tempfile.mkdtemp(prefix="hookd-insert-", dir=directory))
    try:
        run = subprocess.run([build / "tests/bench/insert", "--batch", str(batch), "--seconds", str(seconds), "--rows",
                              str(int(100_000 * seconds) + batch), path / "raw.db"], stdin=subprocess.DEVNULL, capture_output=True,
                             text=True, timeout=seconds + 120)
    finally:
        shutil.rmtree(path, ignore_errors=True)
    if run.returncode != 0:
        raise Broken(f"insert: {run.stderr}")
    seen = {name: float(value) for name, value in (line.split() for line in run.stdout.splitlines())}
    return {"rate": seen["rows/s"], "cpu_us": seen["cpu_us"], "written": seen["written"], "p50_ms": seen["p50_ms"],
            "p99_ms": seen["p99_ms"], "events": seen["rows"]}


# Readers ----------------------------------------------------------------------------------------------

def read_for_ever(path, pause):
    """A dashboard that asks all its queries over and over, on one connection, until it is ended. Prints how many
    a second."""
    done, over, began = 0, False, time.monotonic()

    def end(*_):
        nonlocal over
        over = True
    signal.signal(signal.SIGTERM, end)
    with contextlib.closing(queries.connect(path)) as db:
        values = None
        while not over:
            if values is None:
                with contextlib.suppress(TypeError, IndexError):  # too few events yet
                    values = queries.parameters(db)
            for _, _, statement in queries.DASHBOARD if values else ():
                if over:
                    break
                db.execute(statement, values).fetchall()
                done += 1
            time.sleep(pause if values and not over else 0.01)
    print(done / (time.monotonic() - began))


@contextlib.contextmanager
def readers(n, path, pause):
    """So many of them on a store; gives a list that holds the queries a second of each at the end."""
    total = []
    processes = [subprocess.Popen([sys.executable, __file__, "--read", str(path), "--reader-pause", str(pause)],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    try:
        yield total
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            total.append(float(process.communicate(timeout=60)[0] or 0))


# The parts --------------------------------------------------------------------------------------------

@dataclasses.dataclass
class Bench:
    args: argparse.Namespace
    build: pathlib.Path
    directory: pathlib.Path
    ahead: Ahead
    runs: dict = dataclasses.field(default_factory=dict)  # (part, connections) -> one row of figures a round
    growth: list = dataclasses.field(default_factory=list)  # (events, resident bytes, the most so far)

    def keep(self, part, connections, row):
        self.runs.setdefault((part, connections), []).append(row)
        print(f"  {part:16} {connections:5}  {row['rate']:8.0f}/s  p50 {row['p50_ms']:8.3f} ms  p99 {row['p99_ms']:8.3f} ms"
              f"  {row['cpu_us']:6.1f} µs/event", file=sys.stderr, flush=True)

    def one(self, part, kind, connections, store=None, reads=None):
        """A run; reads: the store that dashboards read meanwhile, "" for its own, None for no dashboards."""
        with Receiver(kind, self.build, store) as receiver:
            if reads is None:
                row = measure(self.build, receiver, connections, self.args.seconds, self.ahead)
            else:
                with readers(self.args.readers, reads or receiver.home.db, self.args.reader_pause) as asked:
                    row = measure(self.build, receiver, connections, self.args.seconds, self.ahead)
                row["queries_s"] = sum(asked)
        self.keep(part, connections, row)

    def round(self):
        for connections in self.args.connections:
            for kind in self.args.receivers:
                self.one(kind, kind, connections)
        for batch in BATCHES:
            self.keep("insert", batch, insert(self.build, self.directory, batch, self.args.seconds))

    def store_round(self, store):
        self.one("empty store", "hookd", 64)
        self.one("full store", "hookd", 64, store)

    def reader_round(self, elsewhere):
        self.one("no readers", "hookd", 64)
        self.one("readers elsewhere", "hookd", 64, reads=elsewhere)
        self.one("readers", "hookd", 64, reads="")

    def grow(self):
        """Memory over many events at 1,000 connections."""
        with Receiver("hookd", self.build) as receiver:
            done = 0
            while done < self.args.growth:
                done += load(self.build, receiver, 1000, 600, GROWTH_STEP)["answered"]
                receiver.wait_folded()
                self.growth.append((done, receiver.memory("VmRSS"), receiver.memory("VmHWM")))
                print("  {:.0f} events, {:.1f} MiB, at most {:.1f}".format(done, *(size / MIB for size in self.growth[-1][1:])),
                      file=sys.stderr, flush=True)

    def run(self):
        store = self.copy_store() if self.args.store else None
        elsewhere = self.other_store() if self.args.readers else None
        for number in range(self.args.rounds):
            print(f"round {number + 1} of {self.args.rounds}", file=sys.stderr, flush=True)
            self.round()
            if store:
                self.store_round(store)
            if elsewhere:
                self.reader_round(elsewhere)
        if self.args.growth:
            self.grow()

    def copy_store(self):
        target = self.directory / "full.db"
        print(f"copying {self.args.store}", file=sys.stderr, flush=True)
        shutil.copyfile(self.args.store, target)
        with target.open("rb") as copy:
            os.fsync(copy.fileno())  # or the first rounds compete with it for the disk
        return target

    def other_store(self):
        path = self.directory / "elsewhere.db"
        run = subprocess.run([self.build / "tests/bench/generate_store", "--events", "100000", path],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if run.returncode != 0:
            raise Broken(run.stderr)
        return path


# What came of it --------------------------------------------------------------------------------------

@dataclasses.dataclass
class Spread:
    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        return cls(statistics.median(values), min(values), max(values)) if values else None

    def text(self, digits=2):
        return f"{self.middle:,.{digits}f} ({self.least:,.{digits}f}–{self.most:,.{digits}f})"


class Result:
    def __init__(self, bench):
        self.runs, self.growth = bench.runs, bench.growth

    def spread(self, part, connections, field):
        return Spread.of([row[field] for row in self.runs.get((part, connections), []) if row.get(field) is not None])

    def ratio(self, part, base, connections, field, base_field=None):
        """Within each round: field of part by that of base (a part, or the same part for two fields)."""
        pairs = zip(self.runs.get((part, connections), []), self.runs.get((base, connections), []))
        return Spread.of([one[field] / other[base_field or field] for one, other in pairs if other[base_field or field]])

    def connections(self):
        return sorted({c for part, c in self.runs if part in RECEIVERS})

    def goals(self):
        """(what, goal, seen as a Spread or None, is the goal a least?)"""
        for connections, least in ((64, 0.85), (256, 0.85), (1000, 0.8)):
            yield (f"requests/s at {connections} connections, of the append-only file's", least,
                   self.ratio("hookd", "append", connections, "rate"), True)
        yield "p99 at 64 connections, of its median", 4, self.ratio("hookd", "hookd", 64, "p99_ms", "p50_ms"), False
        yield ("median latency at 1 connection, of the append-only file's", 1.4,
               self.ratio("hookd", "append", 1, "p50_ms"), False)
        for connections in self.connections():
            yield (f"CPU time an event at {connections} connections, of the append-only file's", 1.6,
                   self.ratio("hookd", "append", connections, "cpu_us"), False)
        yield "full store: requests/s at 64, of an empty one's", 0.85, self.ratio("full store", "empty store", 64, "rate"), True
        yield "full store: p99 at 64, of an empty one's", 2, self.ratio("full store", "empty store", 64, "p99_ms"), False
        yield "MiB resident, idle", 16, self.mib("idle_rss", min(self.connections(), default=0)), False
        yield "MiB resident at most, 1000 connections", 64, self.mib("peak_rss", 1000), False
        events, _, most = self.growth[-1] if self.growth else (0, 0, 0)
        yield (f"MiB resident at most, over {events:,.0f} events at 1000 connections", 64,
               Spread.of([most / MIB] if most else []), False)
        yield f"MiB grown over {events:,.0f} events", GROWTH_SLACK / MIB, self.grown(), False
        yield "bytes written at 64 connections, of the body", 4, self.ratio("hookd", "hookd", 64, "written", "body_bytes"), False
        yield "requests/s with readers, of those without", 0.85, self.ratio("readers", "no readers", 64, "rate"), True
        yield ("requests/s with readers, of those with as many on another store", 0.85,
               self.ratio("readers", "readers elsewhere", 64, "rate"), True)

    def mib(self, field, connections):
        seen = self.spread("hookd", connections, field)
        return seen and Spread(seen.middle / MIB, seen.least / MIB, seen.most / MIB)

    def grown(self):
        """From the first fifth on: until then caches and arenas fill."""
        if len(self.growth) < 5:
            return None
        later = self.growth[len(self.growth) // 5:]
        grown = (max(size for _, size, _ in later[len(later) // 2:]) - max(size for _, size, _ in later[:len(later) // 2])) / MIB
        return Spread(grown, grown, grown)

    def judge(self):
        """The goals as (what, goal text, seen, verdict): ok, MISS or not measured."""
        for what, goal, seen, is_least in self.goals():
            text = f"at {'least' if is_least else 'most'} {goal:g}"
            if seen is None:
                yield what, text, "–", "not measured"
            else:
                good = seen.middle >= goal if is_least else seen.middle <= goal
                yield what, text, seen.text(), "ok" if good else "MISS"

    def table(self, heads, rows):
        rows = [heads, *rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        for number, row in enumerate(rows):
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
            if number == 0:
                print("| " + " | ".join("-" * width for width in widths) + " |")
        print()

    def cells(self, part, connections, *fields):
        for field, digits in fields:
            seen = self.spread(part, connections, field)
            yield seen.text(digits) if seen else "–"

    def report(self):
        keys = [key for key in self.runs if key[0] != "insert"]
        order = {part: i for i, part in enumerate([*RECEIVERS, *(part for part, _ in keys)])}
        keys.sort(key=lambda key: (key[0] not in RECEIVERS, key[1], order[key[0]]))
        self.table(("receiver", "connections", "requests/s", "p50 ms", "p99 ms", "CPU µs an event", "load's CPU µs"),
                   [(part, str(c), *self.cells(part, c, ("rate", 0), ("p50_ms", 3), ("p99_ms", 3), ("cpu_us", 1),
                                               ("load_cpu_us", 1))) for part, c in keys])
        self.table(("receiver", "connections", "events a sync", "ms a sync", "syncs an event", "bytes written an event",
                    "of it log", "other", "peak MiB", "caught up after s"),
                   [(part, str(c), *self.cells(part, c, ("batch", 1), ("sync_ms", 2), ("syncs", 4), ("written", 0),
                                               ("wal_bytes", 0), ("other_bytes", 0)),
                     f"{self.spread(part, c, 'peak_rss').middle / MIB:.1f}", *self.cells(part, c, ("catch_up_s", 2)))
                    for part, c in keys if part != "bare"])
        self.table(("SQLite alone, rows a commit", "rows/s", "CPU µs a row", "bytes written a row", "commit p50 ms", "p99 ms"),
                   [(str(c), *self.cells("insert", c, ("rate", 0), ("cpu_us", 1), ("written", 0), ("p50_ms", 3), ("p99_ms", 3)))
                    for part, c in self.runs if part == "insert"])
        self.table(("hookd of", "connections", "requests/s", "p50", "p99", "CPU an event"),
                   [(base, str(c), *(self.ratio_text(base, c, field) for field in ("rate", "p50_ms", "p99_ms", "cpu_us")))
                    for c in self.connections() for base in ("bare", "append")])
        self.report_readers()
        verdicts = list(self.judge())
        self.table(("goal", "", "seen", ""), verdicts)
        return verdicts

    def ratio_text(self, base, connections, field):
        seen = self.ratio("hookd", base, connections, field)
        return seen.text() if seen else "–"

    def report_readers(self):
        seen = [(part, self.spread(part, 64, "queries_s")) for part in ("readers elsewhere", "readers")]
        if all(spread for _, spread in seen):
            print("; ".join(f"{part}: {spread.text(0)} queries/s" for part, spread in seen) + "\n")


def conditions(args, directory):
    """What a reader needs to know about where the figures come from."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True).stdout.strip()
    mount = subprocess.run(["df", "--output=fstype,source", directory], capture_output=True, text=True, check=True)
    filesystem = mount.stdout.splitlines()[-1].split()
    if kind == "tmpfs" and not args.any_filesystem:
        raise Broken(f"{directory} is in memory: a commit costs nothing there. --directory names one on a disk "
                     "(or --any-filesystem)")
    return {"directory": str(args.directory), "filesystem": filesystem[0], "device": filesystem[1], "cpus": os.cpu_count(),
            "kernel": os.uname().release, "sqlite": sqlite3.sqlite_version, "load_before": os.getloadavg()[0],
            "rounds": args.rounds, "seconds": args.seconds, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


def numbers(text):
    return [int(part) for part in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description="Measures how fast deliveries are taken", allow_abbrev=False)
    parser.add_argument("--build", type=pathlib.Path, default=harness.ROOT / "build")
    parser.add_argument("--directory", default="/var/tmp", help="where stores are made: on a disk")
    parser.add_argument("--any-filesystem", action="store_true", help="accept one in memory")
    parser.add_argument("--connections", type=numbers, default=[1, 8, 64, 256, 1000])
    parser.add_argument("--receivers", type=lambda text: text.split(","), default=list(RECEIVERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load in each run")
    parser.add_argument("--store", type=pathlib.Path, help="also measure on a copy of this store (generate_store makes one)")
    parser.add_argument("--readers", type=int, default=0, help="also measure with so many dashboards reading")
    parser.add_argument("--reader-pause", type=float, default=0, help="seconds between two refreshes of a dashboard")
    parser.add_argument("--growth", type=int, default=0, help="also watch the memory over so many events")
    parser.add_argument("--pad", type=int, help="bytes more in each body")
    parser.add_argument("--pace", type=int, help="events in a second of their own time: sandboxes that are open at once")
    parser.add_argument("--json", type=pathlib.Path, help="write every figure of every run here")
    parser.add_argument("--read", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not set(args.receivers) <= set(RECEIVERS):
        parser.error(f"receivers are {', '.join(RECEIVERS)}")
    return args


def write_json(path, where, bench, verdicts):
    runs = [{"part": part, "connections": c, "rounds": rows} for (part, c), rows in bench.runs.items()]
    goals = [dict(zip(("what", "goal", "seen", "verdict"), verdict, strict=True)) for verdict in verdicts]
    path.write_text(json.dumps({"conditions": where, "runs": runs, "growth": bench.growth, "goals": goals}, indent=1) + "\n")


def main():
    args = arguments()
    if args.read:
        read_for_ever(args.read, args.reader_pause)
        return 0
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-bench-", dir=args.directory))
    tempfile.tempdir = str(directory)  # homes go there
    try:
        where = conditions(args, directory)
        bench = Bench(args, args.build.resolve(), directory, Ahead(args.seconds, args.pad, args.pace))
        bench.run()
        print("; ".join(f"{name} {value}" for name, value in where.items()) + f"; load after {os.getloadavg()[0]:.1f}\n")
        verdicts = Result(bench).report()
        if args.json:
            write_json(args.json, where, bench, verdicts)
    except (Broken, AssertionError, OSError, subprocess.SubprocessError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if any(verdict == "MISS" for *_, verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
