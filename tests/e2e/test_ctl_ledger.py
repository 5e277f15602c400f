"""Goal: e2b-hookctl answers what things cost and what is up, follows new events, and does prune, rebuild and requeue the same
with a daemon and without one (CONTRACT.md 1).
"""
import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import time

from harness import HOOKCTL, SECRET, Case, encode, event, execution, rfc3339, sign_e2b, until

DAY = 86400
SIZE = "[template big]\nalias = big-one\nvcpu = 4\nmemory_mb = 4096\n"
PRICES = "[pricing]\nvcpu_second_usd = 0.000014\ngib_second_usd = 0.0000045\n"
SUMS = ["runtime_ms", "cost_nanousd", "cost_usd", "estimated_nanousd", "runs_ended", "unknown_cost"]


def cost(seconds, vcpu, memory_mb):
    """Nano-USD, exact for whole seconds."""
    return seconds * (vcpu * 14000 + memory_mb * 4500 // 1024)


def money(rows, *keys):
    return {tuple(r[k] for k in keys): tuple(r[k] for k in ("runtime_ms", "cost_nanousd", "estimated_nanousd", "runs_ended",
                                                             "unknown_cost")) for r in rows}


class Ledger(Case):
    """Three runs that are known to the nano-USD, one that nobody can price, one that is still up."""
    def setUp(self):
        super().setUp()
        self.home.configure(extra=SIZE + PRICES)
        self.daemon = self.start()
        self.noon = int(time.time()) // DAY * DAY - DAY + 12 * 3600  # yesterday
        self.live("s1", "big", self.noon, 1800, reported=(2, 512),
                  metadata={"user.id": "u1", 'a"b': "quoted", "n": 7})
        self.live("s2", "big", self.noon + 3000, 1200, metadata={"user.id": "u2"})  # over the hour; size of the template
        self.live("s3", "small", self.noon - 3 * DAY, 60, reported=(1, 1024), metadata={"user.id": "u1"},
                  sandbox_team_id="team-2")
        self.live("s4", "unpriced", self.noon, 100)
        self.post(event("created", timestamp=rfc3339(time.time() - 60), sandbox_id="up", sandbox_template_id="big"))
        self.post(execution(sandbox_id="up", status="error", exit_code=1))
        self.home.wait_folded()

    def post(self, body):
        self.assert_outcome(self.daemon.post(body), "stored")

    def live(self, sandbox, template, start, seconds, reported=None, metadata={}, **fields):
        """A sandbox with one run; reported: (vcpu, memory_mb), as its end tells them."""
        common = {"sandbox_id": sandbox, "sandbox_template_id": template, "sandbox_execution_id": f"run-{sandbox}", **fields}
        self.post(event("created", {"sandbox_metadata": metadata}, timestamp=rfc3339(start), **common))
        data = {"kill_reason": "request"}
        if reported:
            data["execution"] = {"started_at": rfc3339(start), "execution_time": seconds * 1000, "vcpu_count": reported[0],
                                 "memory_mb": reported[1]}
        self.post(event("killed", data, timestamp=rfc3339(start + seconds), **common))

    def rows(self, *arguments):
        return json.loads(self.ctl(*arguments, "--format", "json"))


class Costs(Ledger):
    S1, S2, S3 = cost(1800, 2, 512), cost(1200, 4, 4096), cost(60, 1, 1024)

    def test_by_template_is_the_default_and_knows_what_is_unknown(self):
        rows = self.rows("costs")
        self.assertEqual(list(rows[0]), ["template_id", "template", *SUMS])
        self.assertEqual(money(rows, "template"), {
            ("big-one",): (3000000, self.S1 + self.S2, self.S2, 2, 0),
            ("small",): (60000, self.S3, 0, 1, 0),
            ("unpriced",): (100000, None, 0, 1, 1)})
        self.assertEqual(rows, self.rows("costs", "--by", "template"))
        self.assertEqual(rows[0]["cost_usd"], (self.S1 + self.S2) / 1e9)
        self.assertIsNone(next(r for r in rows if r["template"] == "unpriced")["cost_usd"])

    def test_by_day_and_hour_newest_first(self):
        days = self.rows("costs", "--by", "day")
        self.assertEqual(list(days[0]), ["time", "day", *SUMS])
        self.assertEqual([r["day"] for r in days], [rfc3339(self.noon)[:10], rfc3339(self.noon - 3 * DAY)[:10]])
        self.assertEqual(days[0]["cost_nanousd"], self.S1 + self.S2)
        self.assertEqual(days[0]["unknown_cost"], 1)
        hours = self.rows("costs", "--by", "hour", "--template", "big-one")
        half = cost(600, 4, 4096)
        self.assertEqual(money(hours, "hour_at"), {
            (rfc3339(self.noon),): (2400000, self.S1 + half, half, 1, 0),
            (rfc3339(self.noon + 3600),): (600000, half, half, 1, 0)})
        self.assertEqual([r["time"] for r in hours], [self.noon + 3600, self.noon])

    def test_by_team_and_source(self):
        self.assertEqual(money(self.rows("costs", "--by", "team"), "team_id")[("team-2",)], (60000, self.S3, 0, 1, 0))
        self.assertEqual(money(self.rows("costs", "--by", "source"), "source"),
                         {("e2b",): (3160000, self.S1 + self.S2 + self.S3, self.S2, 4, 1)})
        self.assertEqual(self.rows("costs", "--source", "executors"), [])

    def test_by_a_key_of_the_metadata_whatever_is_in_its_name(self):
        self.assertEqual(money(self.rows("costs", "--by", "metadata:user.id"), "value"), {
            ("u1",): (1860000, self.S1 + self.S3, 0, 2, 0), ("u2",): (1200000, self.S2, self.S2, 1, 0),
            (None,): (100000, None, 0, 1, 1)})
        self.assertEqual(money(self.rows("costs", "--by", 'metadata:a"b', "--template", "big"), "value"), {
            ("quoted",): (1800000, self.S1, 0, 1, 0), (None,): (1200000, self.S2, self.S2, 1, 0)})
        self.assertIn((7,), money(self.rows("costs", "--by", "metadata:n"), "value"))
        self.assertEqual(set(money(self.rows("costs", "--by", "metadata:') OR 1 --"), "value")), {(None,)})

    def test_since_and_until_go_by_whole_hours(self):
        for by in ("template", "day", "source"):
            rows = self.rows("costs", "--by", by, "--since", rfc3339(self.noon + 10), "--until", rfc3339(self.noon + 3600),
                             "--template", "big")
            self.assertEqual([r["cost_nanousd"] for r in rows], [self.S1 + cost(600, 4, 4096)], by)
        day = rfc3339(self.noon)[:10]
        self.assertEqual(sum(r["runs_ended"] for r in self.rows("costs", "--since", day)), 3)
        self.assertEqual(self.rows("costs", "--until", day), self.rows("costs", "--template", "small"))
        self.assertEqual(self.rows("costs", "--until", "365d"), [])

    def test_a_table_ends_with_the_sum_of_all(self):
        text = self.ctl("costs", "--format", "table", "--limit", "1")
        lines = text.splitlines()
        self.assertEqual(len(lines), 3, text)
        self.assertEqual(lines[0].split(), ["template", *SUMS])
        self.assertEqual(lines[2].split()[:3], ["total", "3160000", str(self.S1 + self.S2 + self.S3)])
        self.assertEqual(lines[2].split()[-1], "1")
        self.assertNotIn("total", self.ctl("costs"))

    def test_mistakes_are_told(self):
        self.ctl("costs", "--by", "tempalte", code=2)
        self.assertIn("Did you mean template?", self.ctl_stderr)
        self.ctl("costs", "--by", "metadata:", code=2)
        self.ctl("costs", "extra", code=2)

    def test_running_and_templates_and_failures(self):
        (up,) = self.rows("running")
        self.assertEqual((up["sandbox_id"], up["template"]), ("up", "big-one"))
        self.assertGreater(up["accrued_ms"], 59000)
        stats = {r["template"]: r for r in self.rows("templates")}
        self.assertEqual((stats["big-one"]["sandboxes"], stats["big-one"]["running"], stats["big-one"]["failed_executions"]),
                         (3, 1, 0))
        self.assertEqual([r["sandbox_id"] for r in self.rows("failures")], ["up"])

    def test_is_checked_and_found_sound(self):
        self.assertEqual(self.ctl("check"), "ok\n")
        self.stop(self.daemon)
        self.assertEqual(self.ctl("check"), "ok\n")


class Tail(Case):
    def setUp(self):
        super().setUp()
        self.daemon = self.start()
        self.daemon.post(event(sandbox_id="before"))

    def tail(self, *arguments):
        process = subprocess.Popen([HOOKCTL, "-c", str(self.home.config), "tail", *arguments], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        # It follows from the moment in which it has the store open.
        until(lambda: str(self.home.db) in self._files(process.pid), "tail to open the store")
        time.sleep(0.1)  # and has asked what is the newest
        return process

    @staticmethod
    def _files(pid):
        """What it has open; it goes on opening and closing meanwhile."""
        names = []
        with contextlib.suppress(FileNotFoundError):
            for f in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    names.append(os.readlink(f))
        return names

    def finish(self, process, signum=signal.SIGINT, code=0):
        if signum:
            process.send_signal(signum)
        out, error = process.communicate(timeout=20)
        self.assertNotIn(b"Sanitizer", error)
        self.assertEqual(process.returncode, code, error)
        return out.decode()

    def test_shows_each_new_event_once_as_a_line_of_json(self):
        process = self.tail("--format", "json")
        ids = []
        for number in range(30):
            body = event(sandbox_id=f"s{number}")
            ids.append(body["id"])
            self.daemon.post(body)
            if number % 10 == 0:
                self.daemon.post(body)
        lines = [json.loads(process.stdout.readline()) for _ in ids]
        self.assertEqual([line["event_id"] for line in lines], ids)
        (row,) = self.home.query("SELECT * FROM events WHERE event_id = ?", ids[0])
        self.assertEqual(lines[0], row | {"deliveries": lines[0]["deliveries"]})
        self.assertEqual(self.finish(process), "")

    def test_options_choose(self):
        process = self.tail("--type", "killed", "--template", "t1", "--sandbox", "a", "--format", "json")
        for kind, template, sandbox in (("created", "t1", "a"), ("killed", "t2", "a"), ("killed", "t1", "b"),
                                        ("killed", "t1", "a")):
            self.daemon.post(event(kind, sandbox_id=sandbox, sandbox_template_id=template))
        row = json.loads(process.stdout.readline())
        self.assertEqual((row["kind"], row["template_id"], row["sandbox_id"]), ("killed", "t1", "a"))
        self.assertEqual(self.finish(process, signal.SIGTERM), "")

    def test_csv_has_its_header_once(self):
        process = self.tail()
        header = None
        for number in range(3):
            self.daemon.post(event(sandbox_id=f"s{number}"))
            header = header or process.stdout.readline()
            self.assertIn(f"s{number}".encode(), process.stdout.readline())
        self.assertTrue(header.startswith(b"seq,time,"))
        self.assertEqual(self.finish(process), "")

    def test_a_table_is_a_line_each_without_control_characters(self):
        process = self.tail("--format", "table")
        for sandbox in ("s0", "s1"):
            self.daemon.post(execution(sandbox_id=sandbox, status="error"))
        head, line = (process.stdout.readline().decode() for _ in range(2))
        self.assertEqual(head.split(), "occurred_at kind sandbox_id template source".split())
        self.assertEqual([head.index(n) for n in ("kind", "sandbox_id")], [line.index(n) for n in ("failed", "s0")])
        line = process.stdout.readline().decode()
        self.assertIn("failed", line)
        self.assertIn("s1", line)
        self.finish(process)

    def test_ends_when_nobody_reads_though_nothing_happens(self):
        process = self.tail()
        process.stdout.close()
        self.assertEqual(process.wait(10), 0)
        self.assertEqual(process.stderr.read(), b"")

    def test_a_reader_that_stands_still_holds_no_snapshot(self):
        process = self.tail("--format", "json")
        for number in range(40):
            self.daemon.post(event(sandbox_id=f"s{number}", filler="x" * 20000))
        time.sleep(0.5)
        self.stop(self.daemon)
        # The pipe is full by now, and nobody reads: the log can be emptied all the same.
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            self.assertEqual(db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0)
        lines = [json.loads(process.stdout.readline()) for _ in range(40)]
        self.assertEqual(lines[-1]["sandbox_id"], "s39")
        self.finish(process)

    def test_costs_next_to_nothing(self):
        process = self.tail()
        time.sleep(2)
        stat = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(stat[11]) + int(stat[12])
        self.assertLess(ticks / os.sysconf("SC_CLK_TCK"), 0.5)
        self.finish(process)


class Working(Ledger):
    """rebuild, prune, requeue: by the daemon, and without one."""

    def ledger(self):
        views = ("sandboxes", "runs", "cost_hourly", "template_stats")
        rows = {v: self.home.query(f"SELECT * FROM {v} ORDER BY 1, 2, 3, 4") for v in views}
        for row in sum(rows.values(), []):
            row.pop("changed_seq", None)
        return rows

    def both(self, work):
        work("with a daemon")
        self.stop(self.daemon)
        work("without")
        self.assertEqual(self.ctl("check"), "ok\n")
        self.daemon = self.start()
        self.assert_outcome(self.daemon.post(event()), "stored")

    def test_rebuild_makes_the_same_ledger(self):
        before = self.ledger()

        def work(note):
            (row,) = self.rows("rebuild")
            self.assertEqual(set(row), {"folded_seq", "took_ms"}, note)
            self.assertEqual(self.ledger(), before, note)
        self.both(work)

    def test_requeue_stores_what_was_rejected(self):
        wrong = "a-wrong-secret-0123456789-abcdefghij"

        def work(note):
            running = bool(self.daemons)
            self.home.secret_file("e2b", [wrong])
            if not running:
                self.daemon = self.start()
            else:
                self.daemon.reload()
            body = encode(event())
            self.assertEqual(self.daemon.request("POST", "/webhooks/e2b", body, sign_e2b(SECRET, body)).status, 401)
            until(lambda: self.count("rejections") == 1, "the rejection to be written")
            self.home.secret_file("e2b", [SECRET])
            if not running:
                self.stop(self.daemon)
            else:
                self.daemon.reload()
            (row,) = self.rows("requeue", "--source", "e2b", "--reason", "signature_wrong", "--what", "rejections")
            self.assertEqual({k: v for k, v in row.items() if v}, {"stored": 1}, note)
            self.assertEqual(self.count("rejections"), 0, note)
            self.assertEqual(self.count("events", "payload = ?", body.decode()), 1, note)
        self.both(work)
        self.assertNotIn(SECRET, self.ctl_stderr)

    def test_requeue_says_what_it_does_not_take(self):
        for arguments, word in ((["--what", "everything"], "what"), (["--reason", "bad luck"], "blank"),
                                (["--reason", "none"], "reason"), (["--source", "e2bb"], "Did you mean e2b?")):
            self.ctl("requeue", *arguments, code=2)
            self.assertIn(word, self.ctl_stderr)
        self.ctl("requeue", "--reason", "nope", code=2)
        self.assertIn("--reason: one of not_one_object, too_deep, ", self.ctl_stderr)

    def test_requeue_without_a_daemon_needs_the_secrets(self):
        self.stop(self.daemon)
        (self.home.path / "e2b.secret").unlink()
        self.ctl("requeue", code=78)
        self.assertEqual(len(self.rows("rebuild")), 1)

    def test_a_wrong_configuration_is_78(self):
        self.home.config.write_text("[store]\npath = relative\n")
        for command in ("rebuild", "prune", "requeue", "costs", "tail", "check"):
            self.ctl(command, code=78)

    def test_no_store_is_a_failure_in_one_line(self):
        self.home.configure(store={"path": self.home.path / "no/events.db"})
        for command in (["rebuild"], ["prune"], ["costs"], ["tail"], ["check"], ["backup", "x"]):
            self.assertEqual(self.ctl(*command, code=1), "")
            self.assertEqual(len(self.ctl_stderr.splitlines()), 1, self.ctl_stderr)

    @staticmethod
    def as_user(uid, *command):
        return subprocess.run(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *map(str, command)],
                              capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    def tool_for_all(self):
        """A copy that any user may run, on a configuration that any may read."""
        if os.geteuid() != 0:
            self.skipTest("needs root, to become other users")
        self.home.path.chmod(0o755)
        self.home.config.chmod(0o644)
        tool = self.home.path / "e2b-hookctl"
        tool.write_bytes(pathlib.Path(HOOKCTL).read_bytes())
        tool.chmod(0o755)
        return tool

    def test_another_user_is_told_so(self):
        tool = self.tool_for_all()
        for note in ("with a daemon", "without"):
            run = self.as_user(65530, tool, "-c", self.home.config, "rebuild")
            self.assertEqual((run.returncode, run.stdout), (1, ""), note)
            self.assertRegex(run.stderr, r"own user and root|run this as that user", note)
            if note == "with a daemon":
                self.stop(self.daemon)

    def test_who_may_read_and_not_ask_is_told_so_by_every_command(self):
        tool = self.tool_for_all()
        for command in (["rebuild"], ["alerts", "retry"], ["alerts", "test", "x"]):
            run = subprocess.run(["setpriv", "--reuid=65530", "--regid=0", "--clear-groups", tool, "-c", self.home.config,
                                  *command], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
            self.assertEqual((run.returncode, run.stdout), (1, ""), command)
            self.assertIn("own user and root only: run this as one of them", run.stderr)


class Pruning(Ledger):
    def test_prune_takes_what_is_old_and_keeps_the_sums(self):
        costs = self.rows("costs")
        self.stop(self.daemon)
        self.home.configure(extra=SIZE + PRICES, store={"retention": "2d", "ledger_retention": "2d"})
        self.assertEqual(self.rows("prune"), [{"pruned_events": 2, "pruned_sandboxes": 1}])
        self.assertEqual(self.count("events", "time < ?", self.noon - 2 * DAY), 0)
        self.assertEqual((self.count("events"), self.count("sandboxes")), (8, 4))
        self.assertEqual(self.count("sandboxes", "sandbox_id = 's3'"), 0)
        self.assertEqual(self.rows("costs"), costs)
        self.assertEqual(self.ctl("check"), "ok\n")
        self.daemon = self.start()
        self.assertEqual(self.rows("prune"), [{"pruned_events": 0, "pruned_sandboxes": 0}])
        self.rows("rebuild")
        self.assertEqual(self.rows("costs"), costs)
        self.assertEqual(self.ctl("check"), "ok\n")

    def test_prune_is_the_word_that_retention_waits_for(self):
        self.stop(self.daemon)
        self.home.configure(extra=SIZE + PRICES, store={"retention": "2d", "ledger_retention": "2d"})
        self.rows("prune")
        self.leap()
        self.assertEqual(self.count("events", "sandbox_id = 's1'"), 2)
        self.assertEqual(self.rows("prune")[0]["pruned_events"], 7)
        self.assertEqual(self.ctl("check"), "ok\n")

    def leap(self):
        """As after a clock that jumped: events of days to come, and retention that waits."""
        with contextlib.closing(sqlite3.connect(self.home.db)) as db:
            for table in ("event", "event_link"):
                db.execute(f"UPDATE {table} SET time_s = time_s + 5 * 86400 WHERE seq = (SELECT max(seq) FROM event)")
            db.execute("UPDATE position SET prune_waits = 1")
            db.commit()
