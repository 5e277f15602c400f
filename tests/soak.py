#!/usr/bin/env python3
"""A long mixed load on one daemon: soak.py [--minutes 30 | --seconds N] [--rate N]

Deliveries of all kinds, some repeated, some forged; meanwhile reloads with rotating secrets, prunes, rebuilds, backups, and
readers, of which some stay. Prints a table, a row for each twentieth of the time. Fails when memory, descriptors, write-ahead
log, store or latency grow from the second quarter to the last one, when an acknowledged event is missing, or when anything was
refused that should not have been. Needs the programs built: HOOKD_BIN and HOOKCTL_BIN name them.
"""
import argparse
import collections
import contextlib
import json
import pathlib
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "e2e"))
import harness  # noqa: E402
from harness import HOOKCTL, encode, event, exchange, execution, http_connection, rfc3339, sign_e2b  # noqa: E402

THREADS = 4
RETENTION_S = 60
REMEMBERED = 2000


class Soak:
    def __init__(self, seconds, rate):
        self.seconds, self.pause = seconds, THREADS / rate
        self.home = harness.Home()
        self.secrets = [self.new_secret(), self.new_secret()]
        self.lock = threading.Lock()
        self.acknowledged = collections.deque(maxlen=REMEMBERED)  # (id, when)
        self.latencies, self.counts, self.problems = [], collections.Counter(), []
        self.ended = threading.Event()

    @staticmethod
    def new_secret():
        return "soak-" + random.randbytes(24).hex()

    def configure(self):
        self.home.configure(sources={"e2b": {**harness.E2B_SOURCE, "secrets": self.secrets}}, admin={"listen": "127.0.0.1:0"},
                            store={"retention": f"{RETENTION_S}s", "ledger_retention": f"{2 * RETENTION_S}s",
                                   "wal_limit": "64MiB"})

    # What goes on, each in a thread of its own

    def deliver(self):
        chance = random.Random()
        last = event()
        connection = http_connection(self.daemon.address)
        while not self.ended.wait(self.pause * chance.uniform(0.5, 1.5)):
            kind = chance.random()
            one = execution(status=chance.choice(["success", "error"])) if kind < 0.4 else event(
                chance.choice(["created", "killed", "paused", "updated"]), sandbox_id=f"soak{chance.randrange(500)}")
            one = last if kind > 0.95 else one
            forged = 0.9 < kind <= 0.95
            body = encode(one)
            headers = sign_e2b("forged" * 6 if forged else self.secrets[chance.randrange(2)], body)
            begin = time.monotonic()
            try:
                answer = exchange(connection, "POST", "/webhooks/e2b", body, headers)
            except OSError as error:
                self.problems.append(f"delivery: {error!r}")
                connection = http_connection(self.daemon.address)
                continue
            with self.lock:
                self.latencies.append(time.monotonic() - begin)
                self.counts[answer.status] += 1
                if answer.status == 200 and answer.outcome == "stored":
                    self.acknowledged.append((one["id"], time.time()))
            if answer.status != (401 if forged else 200):
                # A secret may be taken away between signing and judging: once, and it is known why.
                if not (answer.status == 401 and time.monotonic() - self.rotated < 2):
                    self.problems.append(f"delivery: {answer}")
            last = last if forged else one
        connection.close()

    def rotate(self):
        self.rotated = time.monotonic()
        while not self.ended.wait(2):
            with self.lock:
                newest = self.secrets[0]
                self.home.secret_file("e2b", [fresh := self.new_secret(), newest])
            self.rotated = time.monotonic()
            self.daemon.reload()
            self.secrets = [fresh, newest]
            self.counts["reloads"] += 1

    def command(self, every, *arguments):
        def run():
            while not self.ended.wait(every):
                done = subprocess.run([HOOKCTL, "-c", str(self.home.config), *map(str, arguments)], capture_output=True,
                                      text=True, timeout=120)
                self.counts[arguments[0]] += 1
                if done.returncode != 0:
                    self.problems.append(f"{arguments[0]}: {done.returncode} {done.stderr.strip()[:300]}")
        return run

    def look(self):
        """Healthy, but for what the readers here do on purpose."""
        while not self.ended.wait(30):
            run = subprocess.run([HOOKCTL, "-c", str(self.home.config), "status", "--format", "json"], capture_output=True,
                                 text=True, timeout=120)
            bad = {r["item"] for r in json.loads(run.stdout) if r["ok"] == 0} - {"healthy", "wal_bytes", "lag_s"}
            self.counts["status"] += 1
            if bad:
                self.problems.append(f"status: {bad}")

    def read(self):
        views = ("events", "sandboxes", "runs", "executions", "cost_daily", "template_stats", "ledger_state")
        while not self.ended.wait(0.2):
            self.home.query(f"SELECT * FROM {random.choice(views)} LIMIT 500")
            self.counts["reads"] += 1

    def stay(self):
        while not self.ended.wait(5):
            with contextlib.closing(sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True, isolation_level=None)) as db:
                db.execute("BEGIN")
                db.execute("SELECT count(*) FROM events").fetchone()
                self.ended.wait(min(5, self.seconds / 10))
            self.counts["long reads"] += 1

    def guarded(self, work):
        def run():
            try:
                work()
            except Exception as error:  # noqa: BLE001 -- told at the end, whatever it was
                self.problems.append(f"{getattr(work, '__name__', work)}: {error!r}")
        return run

    # What is measured

    def sample(self):
        with self.lock:
            latencies, self.latencies = sorted(self.latencies), []
        proc = pathlib.Path(f"/proc/{self.daemon.pid}")
        size = lambda suffix: pathlib.Path(f"{self.home.db}{suffix}").stat().st_size
        rss = int(re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text()).group(1))
        return {"deliveries": len(latencies), "p50_ms": latencies[len(latencies) // 2] * 1000 if latencies else 0,
                "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000 if latencies else 0, "rss_mib": rss / 1024,
                "fds": len(list((proc / "fd").iterdir())), "wal_mib": size("-wal") / 2**20, "db_mib": size("") / 2**20}

    def judge(self, rows):
        quarter = len(rows) // 4
        early, late = rows[quarter:2 * quarter], rows[-quarter:]
        middle = lambda part, key: statistics.median(r[key] for r in part)
        for key, factor, slack in (("rss_mib", 1.1, 4), ("fds", 1.0, 6), ("wal_mib", 1.5, 66), ("db_mib", 1.5, 24),
                                   ("p99_ms", 2.0, 50), ("p50_ms", 1.5, 5)):
            if middle(late, key) > middle(early, key) * factor + slack:
                self.problems.append(f"{key} grew: {middle(early, key):.1f}, then {middle(late, key):.1f}")
        stored = {r["event_id"] for r in self.home.query("SELECT event_id FROM events")}
        fresh = {i for i, at in self.acknowledged if at > time.time() - RETENTION_S / 2}
        if fresh - stored or not fresh:
            self.problems.append(f"{len(fresh - stored)} of {len(fresh)} acknowledged events of late are missing")

    def run(self):
        self.configure()
        self.daemon = harness.Daemon(self.home).start()
        work = [self.deliver] * THREADS + [self.rotate, self.read, self.stay, self.command(15, "prune"),
                                           self.command(40, "rebuild"), self.look,
                                           self.command(25, "backup", "--force", self.home.path / "copy.db")]
        threads = [threading.Thread(target=self.guarded(w)) for w in work]
        for thread in threads:
            thread.start()
        rows, step = [], self.seconds / 20
        print("    time  " + "  ".join(f"{k:>10}" for k in ("deliveries", "p50_ms", "p99_ms", "rss_mib", "fds", "wal_mib",
                                                          "db_mib")))
        begin = time.monotonic()
        try:
            while len(rows) < 20 and self.daemon.process.poll() is None:
                self.ended.wait(max(0, begin + (len(rows) + 1) * step - time.monotonic()))
                rows.append(self.sample())
                print(f"{time.monotonic() - begin:7.0f}s  " + "  ".join(f"{v:10.1f}" for v in rows[-1].values()), flush=True)
        finally:
            self.ended.set()
            for thread in threads:
                thread.join(130)
        if self.daemon.process.poll() is not None:
            self.problems.append("the daemon ended")
        else:
            self.home.wait_folded(30)
            self.judge(rows)
        if self.daemon.stop() != 0:
            self.problems.append(f"exit code {self.daemon.process.returncode}")
        for secret in self.home.secrets:
            if secret in self.daemon.log:
                self.problems.append("a secret in the log")
        print(", ".join(f"{k}: {v}" for k, v in sorted(self.counts.items(), key=str)))
        for problem in self.problems[:20]:
            print(f"PROBLEM {problem}")
        return len(self.problems)


def main():
    parser = argparse.ArgumentParser(description="A long mixed load on one daemon", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rate", type=float, default=200, help="deliveries a second (200)")
    args = parser.parse_args()
    soak = Soak(args.seconds or args.minutes * 60, args.rate)
    try:
        problems = soak.run()
    finally:
        soak.home.remove()
    print(f"{'failed' if problems else 'passed'}: {problems} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
