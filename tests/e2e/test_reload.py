"""Goal: SIGHUP brings in what can change live, all of it or nothing; a bad file keeps the old configuration and says so; no
delivery notices.
"""
import concurrent.futures
import itertools
import threading

from harness import E2B_SOURCE, SOURCES, Case, event


class Reload(Case):
    def reload(self, daemon, refused=False, **configuration):
        self.home.configure(**configuration)
        return daemon.reload(refused)

    def test_brings_in_sources_paths_and_limits(self):
        daemon = self.start()
        self.assertEqual(daemon.post(event(), path="/webhooks/new").status, 404)
        self.reload(daemon, sources={"renewed": {**E2B_SOURCE, "path": "/webhooks/new", "max_body": "1KiB"}})
        self.assert_outcome(daemon.post(event(), path="/webhooks/new"), "stored")
        self.assertEqual(daemon.post(event(filler="A" * 2000), path="/webhooks/new").status, 413)
        self.assertEqual(daemon.post(event()).status, 404)

    def test_brings_in_prices_and_sizes_and_aliases(self):
        daemon = self.start()
        self.reload(daemon, extra="[template k3v9x2m7q1w8e5r4t6y0]\nalias = renamed\nvcpu = 1\nmemory_mb = 1024\n"
                                  "[pricing]\nvcpu_second_usd = 0.5\ngib_second_usd = 0.25\n")
        one = {"sandbox_id": "s1", "sandbox_execution_id": "r1"}
        daemon.post(event("created", timestamp="2026-11-20T09:00:00Z", **one))
        daemon.post(event("killed", timestamp="2026-11-20T09:00:10Z", **one))
        self.home.wait_folded()
        rows = self.home.query("SELECT template, cost_nanousd, cost_source FROM runs")
        self.assertEqual(rows, [{"template": "renamed", "cost_nanousd": 7_500_000_000, "cost_source": "estimated"}])

    def test_a_bad_file_keeps_the_old_configuration_and_says_so(self):
        daemon = self.start()
        said = self.reload(daemon, refused=True, sources={"e2b": {**E2B_SOURCE, "path": "/other"}},
                           extra="[log]\nlevel = loud\n")
        number = self.home.config.read_text().splitlines().index("level = loud") + 1
        self.assertTrue(any(f"{self.home.config}:{number}: " in line for line in said), said)
        self.assert_outcome(daemon.post(event()), "stored")
        self.assertEqual(daemon.post(event(), path="/other").status, 404)
        self.reload(daemon, sources={"e2b": {**E2B_SOURCE, "path": "/other"}})
        self.assert_outcome(daemon.post(event(), path="/other"), "stored")

    def test_a_secret_that_is_gone_keeps_the_old_configuration(self):
        daemon = self.start()
        path = self.home.path / "e2b.secret"
        path.write_text("")
        said = daemon.reload(refused=True)
        self.assertTrue(any(str(path) in line for line in said), said)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_tells_what_needs_a_restart(self):
        daemon = self.start()
        said = self.reload(daemon, store={"queue_limit": 100})
        self.assertTrue(any("queue_limit" in line for line in said), said)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_no_delivery_notices_a_storm_of_reloads(self):
        daemon = self.start()
        ended = threading.Event()

        def deliver(_number):
            outcomes = []
            while not ended.is_set():
                outcomes.append(daemon.post(event()).outcome)
            return outcomes
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = [pool.submit(deliver, n) for n in range(4)]
            for number in range(30):
                sources = dict(itertools.islice(SOURCES.items(), 1 + number % 2))
                self.reload(daemon, sources=sources)
            ended.set()
            outcomes = [o for r in results for o in r.result()]
        self.assertEqual(set(outcomes), {"stored"})
        self.assertEqual(self.count("events"), len(outcomes))
