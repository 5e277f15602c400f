"""Goal: the benchmark works whenever somebody needs it: all receivers run, every figure of its table is there and makes sense.
Nothing here is about speed.
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

from harness import HOOKD, ROOT, plain_only

BUILD = pathlib.Path(HOOKD).resolve().parents[1]


class Benchmark(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", self.directory], check=True)

    def bench(self, *arguments):
        return subprocess.run([sys.executable, ROOT / "tests/bench/run.py", "--build", BUILD, "--directory", self.directory,
                               "--any-filesystem", "--rounds", "1", "--seconds", "0.1", *arguments], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120)

    @plain_only("what it counts with stands where a sanitizer's runtime would")
    def test_every_receiver_runs_and_every_figure_is_there(self):
        out = self.directory / "figures.json"
        run = self.bench("--connections", "4", "--json", out)
        self.assertIn(run.returncode, (0, 1), run.stderr)
        figures = json.loads(out.read_text())
        rows = {(r["part"], r["connections"]): r["rounds"][0] for r in figures["runs"]}
        self.assertEqual(set(rows), {("bare", 4), ("append", 4), ("hookd", 4), ("insert", 1), ("insert", 64), ("insert", 256)})
        for (part, _), row in rows.items():
            with self.subTest(part):
                self.assertGreater(row["events"], 0)
                self.assertGreater(row["rate"], 0)
                self.assertGreaterEqual(row["p99_ms"], row["p50_ms"])
        for part in ("append", "hookd"):
            row = rows[part, 4]
            self.assertTrue(450 <= row["body_bytes"] <= 2000, row)
            self.assertTrue(1 <= row["batch"] <= 4, "at most as many in a batch as there are connections")
            # All the bodies are in the log, whatever else is.
            self.assertGreater(row["wal_bytes"], 0.9 * row["body_bytes"])
            self.assertGreater(row["peak_rss"], row["idle_rss"] // 2)
        goals = {goal["what"]: goal for goal in figures["goals"]}
        self.assertGreater(len(goals), 10)
        self.assertNotEqual(goals["CPU time an event at 4 connections, of the append-only file's"]["verdict"], "not measured")
        self.assertEqual(goals["MiB resident at most, 1000 connections"]["verdict"], "not measured")

    def test_a_receiver_that_does_not_start_is_no_figure(self):
        run = self.bench("--build", self.directory)
        self.assertEqual(run.returncode, 2, run.stdout)
        self.assertEqual(run.stdout, "")
        self.assertEqual([p for p in self.directory.iterdir()], [], "what it made is gone")
