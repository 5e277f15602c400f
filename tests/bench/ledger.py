#!/usr/bin/env python3
"""Measures a store of ten million events: how fast it is made, how large it is, how quickly a dashboard's queries and the
daemon's start are answered, and whether the daemon takes deliveries as fast as on an empty store.

    ledger.py --build build-release [--events 10000000] [--directory /var/tmp] [--store PATH] [--seconds 10] [--rebuild]

The build is one of its own, with optimization (meson setup build-release --buildtype=release). Ten million events need
15 GB of disk and some minutes. --store takes a store that generate_store made before, and grows it. Fails if a limit is
missed. --rebuild has the ledger made anew instead, while deliveries come, as after an upgrade of the fold, with an event in
the midst that cannot be read: that spoils the store. Let nothing else run meanwhile: the daemon and the load share the processors anyway.
"""
import argparse
import os
import pathlib
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
READY_MS = 200
INTAKE_RATIO = 0.85
BYTES_PER_EVENT = 250  # beyond the body
ROUNDS = 5

missed = []


def say(name, value, limit=None, good=True):
    verdict = "" if limit is None else f"   limit {limit}" + ("" if good else "  MISSED")
    print(f"{name:44} {value:>14}{verdict}", flush=True)
    if not good:
        missed.append(name)


def generate(build, events, path):
    run = subprocess.run([build / "tests/bench/generate_store", "--events", str(events), path], text=True,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    print(run.stdout, end="")


def sizes(path):
    """Bytes an event beyond the body, by table and index. Reads the whole file."""
    sql = ("SELECT count(*), sum(body_len) FROM event;"
           "SELECT name, sum(pgsize), sum(unused) FROM dbstat GROUP BY name ORDER BY 2 DESC;")
    run = subprocess.run(["sqlite3", "-readonly", "-separator", "\t", path, sql], stdin=subprocess.DEVNULL, text=True,
                         stdout=subprocess.PIPE, check=True)
    head, *rows = (line.split("\t") for line in run.stdout.splitlines())
    events, bodies = int(head[0]), int(head[1])
    beyond = (os.path.getsize(path) - bodies) / events
    say("bytes an event beyond the body", f"{beyond:.1f}", BYTES_PER_EVENT, beyond <= BYTES_PER_EVENT)
    for name, size, unused in rows:
        own = (int(size) - (bodies if name == "body_block" else 0)) / events
        if own >= 0.5:
            print(f"    {name:40} {own:14.1f}   of which unused {int(unused) / events:.1f}")


def home_of(harness, store):
    home = harness.Home()
    home.db = pathlib.Path(store)
    home.configure(sources={"e2b": harness.E2B_SOURCE, "executors": harness.EXECUTOR_SOURCE})
    return home


def start_ms(harness, home):
    began = time.perf_counter()
    daemon = harness.Daemon(home).start()
    daemon.wait_log(r"\bready\b")
    took = (time.perf_counter() - began) * 1000
    daemon.stop()
    return took


def load(build, home, port, connections, seconds):
    run = subprocess.run([build / "tests/bench/load", "--secret-file", home.path / "e2b.secret", "--port", port,
                          "--connections", str(connections), "--seconds", str(seconds)],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    return dict(line.split() for line in run.stdout.splitlines())


def intake(harness, build, home, seconds):
    """Requests a second, and the 99th percentile in ms."""
    daemon = harness.Daemon(home).start()
    port = daemon.address.rpartition(":")[2]
    figures = load(build, home, port, 64, seconds)
    daemon.stop()
    return float(figures["requests/s"]), float(figures["p99_ms"])


def compare_intake(harness, build, home, directory, seconds):
    """In turns, so that what else the machine does meets both."""
    full, empty = [], []
    for i in range(ROUNDS):
        fresh = home_of(harness, directory / f"empty-{i}.db")
        empty.append(intake(harness, build, fresh, seconds))
        fresh.remove()
        for path in directory.glob("empty-*"):
            path.unlink()
        full.append(intake(harness, build, home, seconds))
    for name, figures in (("empty", empty), ("this", full)):
        say(f"intake on {name} store, requests/s", f"{statistics.median(r for r, _ in figures):.0f}")
        say(f"intake on {name} store, p99 in ms", f"{statistics.median(p for _, p in figures):.1f}")
    ratio = statistics.median(f[0] / e[0] for f, e in zip(full, empty, strict=True))
    say("this store against an empty one", f"{ratio:.2f}", INTAKE_RATIO, ratio >= INTAKE_RATIO)


def prepare_upgrade(path):
    """What a daemon of older rules would have left, and an event in the midst whose body is cut off."""
    with sqlite3.connect(path) as db:
        seq, = db.execute("SELECT seq FROM event WHERE seq >= (SELECT max(seq) / 2 FROM event) LIMIT 1").fetchone()
        db.execute("UPDATE position SET fold_version = 0")
        db.execute("UPDATE event SET body_len = 1 WHERE seq = ?", (seq,))
    db.close()


def rebuild(harness, build, home):
    """Folds all events anew, with loads of three seconds all the while: whether each is stored, and how long it takes."""
    path = home.db
    prepare_upgrade(path)
    stored = home.value("SELECT stored_seq FROM ledger_state")
    before = peak = os.path.getsize(path)
    daemon = harness.Daemon(home).start()
    port = daemon.address.rpartition(":")[2]
    begin, rates, p99, longest, answered = time.monotonic(), [], [], 0, 0
    while not rates or home.value("SELECT fold_version FROM schema_info") == 0:
        figures = load(build, home, port, 8, 3)
        rates.append(float(figures["requests/s"]))
        p99.append(float(figures["p99_ms"]))
        longest = max(longest, float(figures["max_ms"]))
        answered += int(figures["stored"])
        until = time.monotonic() + 15
        while time.monotonic() < until and home.value("SELECT fold_version FROM schema_info") == 0:
            time.sleep(0.2)
        peak = max(peak, os.path.getsize(path))
    took = time.monotonic() - begin
    state = home.query("SELECT * FROM ledger_state")[0]
    say("rebuild of so many events", f"{state['folded_seq']:,}")
    say("rebuild, s", f"{took:.0f}")
    say("deliveries/s meanwhile, least and most", f"{min(rates):.0f}-{max(rates):.0f}")
    say("their p99 in ms, least and most", f"{min(p99):.0f}-{max(p99):.0f}")
    say("the longest in ms", f"{longest:.0f}")
    say("events skipped", state["skipped"], 1, state["skipped"] == 1)
    say("acknowledged and not stored", answered - (state["stored_seq"] - stored), 0, answered == state["stored_seq"] - stored)
    say("file before, at its largest, GB", f"{before / 1e9:.2f} {peak / 1e9:.2f}")
    peak_kib = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{daemon.pid}/status").read_text()).group(1)
    say("peak memory, MiB", f"{int(peak_kib) / 1024:.0f}")
    begin = time.monotonic()
    while home.value("SELECT count(*) FROM sqlite_schema WHERE name GLOB 'trash_*'") > 0:
        time.sleep(0.5)
    say("until what was replaced is emptied, s", f"{time.monotonic() - begin:.0f}")
    say("pages free for what comes, GB", f"{home.value('PRAGMA freelist_count') * 4096 / 1e9:.2f}")
    daemon.stop()


def measure(harness, build, home, directory, seconds):
    store = str(home.db)
    sizes(store)
    if subprocess.run([HERE / "queries.py", "--plans", store], stdin=subprocess.DEVNULL).returncode != 0:
        missed.append("queries")
    ready = [start_ms(harness, home) for _ in range(ROUNDS)]
    say("start to ready, ms (median)", f"{statistics.median(ready):.0f}", READY_MS, statistics.median(ready) <= READY_MS)
    compare_intake(harness, build, home, directory, seconds)


def main():
    parser = argparse.ArgumentParser(description="Measures a large store")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--directory", default="/var/tmp")
    parser.add_argument("--store", help="take this store instead of making one")
    parser.add_argument("--seconds", type=int, default=10, help="of load in each round")
    parser.add_argument("--rebuild", action="store_true", help="measure a rebuild under load instead of all else")
    args = parser.parse_args()
    build = args.build.resolve()
    os.environ["HOOKD_BIN"] = str(build / "daemon/e2b-hookd")
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE.parent / "e2e"))
    import harness
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-bench-", dir=args.directory))
    try:
        store = args.store or str(directory / "events.db")
        if not args.store:
            generate(build, args.events, store)
        home = home_of(harness, store)
        if args.rebuild:
            rebuild(harness, build, home)
        else:
            measure(harness, build, home, directory, args.seconds)
        home.remove()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("missed: " + ", ".join(missed) if missed else "every limit was kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
