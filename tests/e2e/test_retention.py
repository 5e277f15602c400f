"""Goal: retention takes events and metadata when their time is over and nothing else: what they cost stays in the sums, also after
a rebuild, and an event that comes again late does not count twice (CONTRACT.md 2, 3, 5).
"""
import sqlite3
import time

from harness import Case, event, execution, rfc3339, until

DAY = 86400
SUMS = ("cost_hourly", "cost_daily", "activity_hourly", "template_hourly", "template_stats")


class Retention(Case):
    def setUp(self):
        super().setUp()
        self.now = int(time.time()) // 60 * 60
        self.home.configure(store={"retention": "0", "ledger_retention": "0"})
        self.daemon = self.start()

    def story(self, sandbox, start):
        common = {"sandbox_id": sandbox, "sandbox_template_id": "tpl", "sandbox_execution_id": f"run-{sandbox}"}
        return [
            event("created", {"sandbox_metadata": {"of": sandbox}}, timestamp=rfc3339(start), **common),
            execution(timestamp=rfc3339(start + 5), sandbox_id=sandbox, sandbox_template_id="tpl"),
            event("killed", {"execution": {"started_at": rfc3339(start), "execution_time": 60000, "vcpu_count": 2,
                                           "memory_mb": 512}}, timestamp=rfc3339(start + 60), **common)]

    def tell(self, body, outcome="stored"):
        self.assert_outcome(self.daemon.post(body), outcome)

    def rows(self, view):
        db = sqlite3.connect(f"file:{self.home.db}?mode=ro", uri=True)
        try:
            names = [row[1] for row in db.execute(f"PRAGMA table_info({view})") if row[1] != "changed_seq"]
            return sorted(db.execute(f"SELECT {', '.join(names)} FROM {view}").fetchall(), key=repr)
        finally:
            db.close()

    def retain(self, **store):
        """Starts again with other horizons, and waits until nothing is left to prune."""
        self.stop(self.daemon)
        self.home.configure(store=store)
        self.daemon = self.start()
        self.ctl("prune")

    def test_old_events_and_their_metadata_go_and_the_sums_stay(self):
        old, new = self.story("old", self.now - 3 * DAY), self.story("new", self.now - 3600)
        for body in old + new:
            self.tell(body)
        self.home.wait_folded()
        sums = {view: self.rows(view) for view in SUMS}
        runs, executions = self.rows("runs"), self.rows("executions")
        self.retain(retention="1d", ledger_retention="730d")
        until(lambda: self.count("events") == 3, "the old events are gone")
        self.assertEqual({view: self.rows(view) for view in SUMS}, sums)
        metadata = {row["sandbox_id"]: row["metadata"] for row in self.home.query("SELECT * FROM sandboxes")}
        self.assertEqual(metadata, {"new": '{"of":"new"}', "old": None})
        self.tell(old[0], "quarantined")  # stale: it must not count again
        self.ctl("rebuild")
        self.assertEqual({view: self.rows(view) for view in SUMS}, sums)
        self.assertEqual((self.rows("runs"), self.rows("executions")), (runs, executions))

    def test_what_is_delivered_again_right_after_it_was_pruned_does_not_count_twice(self):
        """The leap makes the operator's word move the horizon by days, while those who judge still know the old one."""
        old = self.story("old", self.now - 3 * DAY)
        for body in old:
            self.tell(body)
        until(lambda: self.home.value("SELECT newest_s FROM position") > 0, "retention has seen the first events")
        self.tell(self.story("new", self.now - 3600)[0])
        until(lambda: self.home.value("SELECT prune_waits FROM position") == 1, "retention waits")
        self.home.wait_folded()
        sums = {view: self.rows(view) for view in SUMS}
        self.retain(retention="1d", ledger_retention="1d")
        for body in old:
            self.tell(body, "quarantined")
        self.home.wait_folded()
        self.assertEqual({view: self.rows(view) for view in SUMS}, sums)

    def test_the_ledger_goes_at_its_own_horizon_and_the_sums_stay(self):
        for body in self.story("old", self.now - 9 * DAY) + self.story("new", self.now - 3600):
            self.tell(body)
        self.home.wait_folded()
        sums = {view: self.rows(view) for view in SUMS}
        self.retain(retention="1d", ledger_retention="5d")
        until(lambda: self.count("sandboxes") == 1, "the old sandbox is gone")
        self.assertEqual((self.count("runs"), self.count("executions")), (1, 1))
        self.assertEqual({view: self.rows(view) for view in SUMS}, sums)
        self.ctl("rebuild")
        self.assertEqual({view: self.rows(view) for view in SUMS}, sums)

    def test_a_leap_of_time_prunes_nothing_until_an_operator_says_so(self):
        self.stop(self.daemon)
        self.home.configure(store={"retention": "1d", "ledger_retention": "730d"})
        self.daemon = self.start()
        self.tell(event("created", timestamp=rfc3339(self.now - 20 * DAY), sandbox_id="first"))
        until(lambda: self.home.value("SELECT newest_s FROM position") > 0, "retention has seen the first event")
        self.tell(event("created", timestamp=rfc3339(self.now - 60), sandbox_id="leap"))
        until(lambda: self.home.value("SELECT prune_waits FROM position") == 1, "retention waits")
        self.assertEqual(self.count("events"), 2)
        self.stop(self.daemon)
        self.daemon = self.start()  # it still waits
        self.tell(event("created", timestamp=rfc3339(self.now - 19 * DAY), sandbox_id="second"))
        self.assertEqual(self.count("events"), 3)
        self.ctl("prune")
        until(lambda: self.count("events") == 1, "what is old is gone")
