"""Goal: the ledger is a function of the stored events, the configuration and the clock. Random histories go to a real daemon
in random order, over several connections, with stops and kill -9 in between, and every row of every ledger view must be what
an independent model (tests/model) makes of the same events: money to the nano-USD, hours adding up to runs, days to hours.

A history that fails is made smaller while it still fails, and printed with both rows. HOOKD_SEED=N tries that one alone.
"""
import concurrent.futures
import contextlib
import json
import os
import random
import sys
import time

from harness import (EXECUTOR_SECRET, EXECUTOR_SOURCE, E2B_SOURCE, LONG, ROOT, SANITIZED, SECRET, Case, exchange,
                     http_connection, sign_e2b, sign_hmac)

sys.path.insert(0, str(ROOT / "tests/model"))
import history  # noqa: E402
import ledger_model  # noqa: E402

LAB_SECRET = "e2e-secret-of-the-lab-0123456789abcdef"
SOURCES = {"e2b": E2B_SOURCE, "executors": EXECUTOR_SOURCE,
           "lab": {"path": "/webhooks/lab", "signature": "e2b", "secrets": [LAB_SECRET], "priced": "no"}}
SEEDS = [int(os.environ["HOOKD_SEED"])] if "HOOKD_SEED" in os.environ else range(240 if LONG else 8 if SANITIZED else 25)
KEYS = {"sandboxes": ["sandbox_id"], "running": ["sandbox_id", "run_id"], "runs": ["sandbox_id", "run_id"],
        "executions": ["sandbox_id", "execution_id"], "failed_executions": ["sandbox_id", "execution_id"],
        "cost_hourly": ["time", "source", "template_id", "team_id"], "cost_daily": ["time", "source", "template_id", "team_id"],
        "activity_hourly": ["time", "template_id", "kind"], "template_hourly": ["time", "template_id"],
        "template_stats": ["template_id"]}
UNORDERED = {"changed_seq", "seq"}  # these tell of the order in which things came
SHRINK_S = 45
FEW = 3  # failures, after which the rest is not tried


def now_ms():
    return int(time.time() * 1000)


def differences(view, rows, model):
    """[(key, column or None, row in the store, row of the model)]"""
    def keyed(some):
        return {tuple(r[k] for k in KEYS[view]): r for r in some}
    stored, wanted, found = keyed(rows), keyed(model), []
    if len(stored) != len(rows):
        found.append(("", "rows of the same key", rows, model))
    for key in stored.keys() | wanted.keys():
        row, want = stored.get(key), wanted.get(key)
        column = None if row is None or want is None else unequal(view, row, want)
        if row is None or want is None or column:
            found.append((key, column, row, want))
    return sorted(found, key=lambda f: str(f[0]))


def unequal(view, row, want):
    """The first column that differs, or None."""
    row = {k: v for k, v in row.items() if k not in UNORDERED}
    if set(row) != set(want):
        return f"columns {set(row) ^ set(want)}"
    for column, value in row.items():
        expect = want[column]
        if column == "metadata" and value is not None:
            value = json.loads(value)
        if view == "running" and column.startswith("accrued_") and value is not None and expect is not None:
            # now is another now: the time within some seconds, the money in proportion to it
            if column == "accrued_ms" and 0 <= value - expect < 20_000:
                continue
            if column == "accrued_cost_usd" and abs(value / row["accrued_ms"] * want["accrued_ms"] - expect) < 2e-9 * max(1, expect):
                continue
        if value != expect:
            return column
    return None


class LedgerProperty(Case):
    def setUp(self):
        super().setUp()
        self.views = set()

    def test_random_histories_come_to_the_rows_that_the_model_makes_of_them(self):
        failures = []
        for seed in SEEDS:
            told = history.generate(seed, now_ms())
            found = self.trial(told, told.bodies, cuts=self.some_cuts(told))
            if found:
                small, found = self.shrink(told, found)
                failures.append(self.describe(told, small, found))
            if len(failures) == FEW:
                break
        self.assertFalse(failures, f"{len(failures)} histories differ\n\n" + "\n\n".join(failures))
        self.assertEqual(self.views, set(KEYS), "views that the store has")

    # One history through one daemon

    def some_cuts(self, told):
        """{after so many deliveries: how the daemon ends}"""
        chance = random.Random(f"cuts {told.seed}")
        return {chance.randrange(len(told.bodies) + 1): chance.choice(["stop", "kill"])
                for _ in range(chance.choice([0, 0, 1, 2]))}

    def trial(self, told, bodies, cuts=None):
        """Delivers the bodies into an empty store; {view: differences}."""
        self.fresh()
        self.home.configure(sources=SOURCES, extra=told.sections(), store={"max_run": f"{told.terms.max_run_ms // 1000}s"})
        daemon, begin = self.start(), 0
        for at in sorted({*(cuts or {}), len(bodies)}):
            self.deliver(daemon, bodies[begin:at])
            begin = at
            if at in (cuts or {}):
                self.end(daemon, cuts[at])
                daemon = self.start()
        self.home.wait_folded()
        found = self.compare(told, bodies)
        self.end(daemon, "kill" if found else "stop")
        return found

    def end(self, daemon, how):
        if how == "kill":
            daemon.kill()
            self.died_on_purpose(daemon)
        else:
            self.stop(daemon)

    def deliver(self, daemon, bodies):
        """Over three connections; every delivery must be stored, or known already."""
        def share(part):
            with contextlib.closing(http_connection(daemon.address)) as connection:
                return [exchange(connection, "POST", *request(source, body)) for source, body in part]
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            for answers in pool.map(share, [bodies[n::3] for n in range(3)]):
                for answer in answers:
                    self.assertIn(answer.outcome, ("stored", "duplicate"), answer)

    def compare(self, told, bodies):
        names = {r["name"] for r in self.home.query("SELECT name FROM sqlite_schema WHERE type = 'view'")}
        self.views = names & set(KEYS)
        model = ledger_model.Ledger(bodies, told.terms, now_ms()).views()
        rows = {view: self.home.query(f"SELECT * FROM {view}") for view in KEYS if view in names}
        found = {view: differences(view, rows[view], model[view]) for view in rows}
        found["sums"] = self.unbalanced(rows)
        return {view: d for view, d in found.items() if d}

    def unbalanced(self, rows):
        """What does not add up in the store itself: hours to runs, days to hours, sandboxes to runs."""
        found = []
        for column in ("runtime_ms", "cost_nanousd"):
            sums = {view: sum(r[column] or 0 for r in rows[view])
                    for view in ("runs", "sandboxes", "cost_hourly", "cost_daily", "template_stats") if view in rows}
            if len(set(sums.values())) > 1:
                found.append((column, "sum", sums, None))
        return found

    # Making a failure readable

    def shrink(self, told, found):
        """Leaves out sandboxes, then events, while it still fails."""
        deadline, bodies = time.monotonic() + SHRINK_S, told.bodies

        def groups(some):
            names = {}
            for item in some:
                said = json.loads(item[1])
                names.setdefault(said.get("sandbox_id") or said.get("sandboxId"), []).append(item)
            return list(names.values())
        again = self.trial(told, bodies)
        if not again:
            return bodies, {**found, "note": [("only with restarts", self.some_cuts(told), None, None)]}
        found = again
        size = max(1, len(groups(bodies)) // 2)
        while size and time.monotonic() < deadline:
            for at in range(0, len(groups(bodies)), size):
                gone = {item for group in groups(bodies)[at:at + size] for item in group}
                rest = [item for item in bodies if item not in gone]
                if rest and gone and (again := self.trial(told, rest)):
                    bodies, found = rest, again
                    break
            else:
                size //= 2
        for item in list(dict.fromkeys(bodies)):
            rest = [other for other in bodies if other != item]
            if rest and time.monotonic() < deadline and (again := self.trial(told, rest)):
                bodies, found = rest, again
        return bodies, found

    def describe(self, told, bodies, found):
        lines = [f"seed {told.seed}, max_run {told.terms.max_run_ms} ms", told.sections(), "delivered in this order:"]
        lines += [f"  {source}: {body.decode()}" for source, body in bodies]
        lines += ["which in time are:"]
        events = {ledger_model.Event(source, body, told.terms) for source, body in set(bodies)}
        for e in sorted(events, key=lambda e: e.key):
            more = {"timeout": ledger_model.rfc3339(e.timeout_ms), "report": e.report and (ledger_model.rfc3339(e.report[0]), *e.report[1:])}
            lines.append(f"  {e!r} {e.source} {e.template} {({k: v for k, v in more.items() if v})}")
        for view, differ in found.items():
            for key, column, row, want in differ[:4]:
                lines += [f"{view} {key}: {column or 'the row'}", f"  store {row}", f"  model {want}"]
        return "\n".join(lines)


def request(source, body):
    if source == "executors":
        return SOURCES[source]["path"], body, {"content-type": "application/json", **sign_hmac(EXECUTOR_SECRET, body)}
    secret = {"e2b": SECRET, "lab": LAB_SECRET}[source]
    return SOURCES[source]["path"], body, {"content-type": "application/json", **sign_e2b(secret, body)}
