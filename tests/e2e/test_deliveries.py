"""Goal: every captured delivery, hostile ones included, ends where CONTRACT.md says, and the money is right.

The accepted ones go into one store in the order of the manifest, and the views are read back with the sqlite3 shell. What
the ledger must say is computed here a second time, from the bodies alone, with Python's decimal. The hostile ones get a
fresh store each; after each the daemon must still take a good delivery.
"""
import datetime
import decimal
import json
import re
import sqlite3

from harness import DELIVERIES, DELIVERY_SECRET, E2B_SOURCE, Case, encode, event, rfc3339, sign_e2b

SOURCE = {"e2b": {**E2B_SOURCE, "secrets": [DELIVERY_SECRET]}}
TEMPLATE = "k3v9x2m7q1w8e5r4t6y0"
MAX_RUN_MS = 3600 * 1000
VCPU, GIB = decimal.Decimal("0.000014"), decimal.Decimal("0.0000045")
MANIFEST = [json.loads(line) for line in (DELIVERIES / "manifest.jsonl").read_text().splitlines()]
GOOD = [d for d in MANIFEST if not d["file"].startswith("hostile/")]
HOSTILE = {d["file"].split("/")[1][:3]: d for d in MANIFEST if d["file"].startswith("hostile/")}

# What CONTRACT.md makes of the expectations that leave no choice, and of those that do (by name).
OUTCOMES = {"accept": "stored", "accept_unknown": "stored", "accept_if_age_check_off": "stored",
            "accept_duplicate": "duplicate", "accept_ignoring_extra": "stored", "accept_safely": "stored",
            "reject_signature": 401, "reject_size": 413}
CHOSEN = {
    "61-v": "duplicate", "62-v": "duplicate",
    # not exactly one JSON object in valid UTF-8
    "a01": 401, "a02": 401, "a08": 401, "a11": 401, "a18": 401, "a20": 401, "a23": 401, "a27": 401, "a29": 401,
    "a30": 401, "a31": 401,
    # one JSON object, but no event
    "a13": ("quarantined", "too_deep"), "a15": ("quarantined", "duplicate_key"), "a25": ("quarantined", "bad_number"),
    "a39": ("quarantined", "future"),
    # unsigned headers, odd metadata and age (retention 0) decide nothing
    "a33": "stored", "a38": "stored", "a49": "stored", "a51": "stored",
}
REASONS = {"a01": "not_one_object", "a08": "not_one_object", "a29": "not_one_object", "a06": "signature_wrong",
           "a12": "signature_wrong", "a40": "signature_missing", "a41": "signature_missing", "a42": "signature_malformed",
           "a43": "signature_malformed", "a47": "signature_wrong", "a36": "body_too_large"}


def read(entry):
    body = (DELIVERIES / entry["file"]).read_bytes()
    head = (DELIVERIES / entry["headers"]).read_text()
    return body, [tuple(line.split(": ", 1) if ": " in line else (line.rstrip(":"), ""))
                  for line in head.splitlines() if line]


def expected(entry):
    name = entry["file"].split("/")[-1]
    if name.startswith(("61-", "62-")):
        return "duplicate"
    return CHOSEN.get(name[:3], OUTCOMES.get(entry["expect"]))


def field(body, snake):
    camel = re.sub(r"_(.)", lambda m: m.group(1).upper(), snake)
    return body.get(snake, body.get(camel)) or None


def ms(text):
    """RFC 3339 to unix milliseconds, truncated."""
    whole, _, rest = text.replace("Z", "+00:00").partition(".")
    if rest:
        fraction, zone = re.match(r"(\d+)(.*)", rest).groups()
        whole += zone
    else:
        fraction = "0"
    seconds = int(datetime.datetime.fromisoformat(whole).timestamp())
    return seconds * 1000 + int(fraction.ljust(3, "0")[:3])


def nano(duration_ms, vcpu, memory_mb):
    usd = decimal.Decimal(duration_ms) / 1000 * (vcpu * VCPU + decimal.Decimal(memory_mb) / 1024 * GIB)
    return int((usd * 10**9).quantize(decimal.Decimal(1), rounding=decimal.ROUND_HALF_UP))


def kind_of(body):
    kind = (body.get("type") or "").rsplit(".", 1)[-1]
    label = field(body, "event_label") or ""
    return kind or {"kill": "killed", "create": "created", "pause": "paused"}.get(label, label)


def model_runs(bodies):
    """run id -> what its row must say, from the bodies alone (no two events of these are out of order)."""
    facts = {}
    for body in bodies:
        kind, sandbox = kind_of(body), field(body, "sandbox_id")
        time_ms = body["occurred_at_ms"] if "occurred_at_ms" in body else ms(body["timestamp"])
        run = field(body, "sandbox_execution_id")
        if not run and kind in ("created", "forked", "resumed"):
            run = f"{sandbox}@{rfc3339(time_ms / 1000)}"
        fact = facts.setdefault(run, {"sandbox_id": sandbox, "template": field(body, "sandbox_template_id")})
        team = field(body, "sandbox_team_id")
        fact["team"] = None if team and team.startswith("00000000") else team
        data = field(body, "event_data") or {}
        if kind in ("created", "resumed", "forked"):
            fact["start"] = time_ms
        elif kind in ("paused", "killed"):
            fact["end"], fact["end_kind"], fact["report"] = time_ms, kind, data.get("execution")
            fact["kill_reason"] = (data.get("kill_reason") or body.get("kill_reason")) if kind == "killed" else None
    return {run: settled(fact) for run, fact in facts.items() if "start" in fact or "end" in fact}


def settled(fact):
    report, row = fact.get("report"), {k: fact.get(k) for k in ("sandbox_id", "kill_reason")}
    if report:
        length = report["execution_time"]
        length = int(length * 1000) if isinstance(length, float) else length
        row |= {"started": ms(report["started_at"]), "runtime_ms": length, "end_kind": fact["end_kind"],
                "vcpu_count": report["vcpu_count"], "memory_mb": report["memory_mb"], "cost_source": "reported",
                "cost_nanousd": nano(length, report["vcpu_count"], report["memory_mb"])}
        return row
    if "start" not in fact:  # when it began, nobody told: neither time nor money is known
        return row | {"started": None, "ended": fact["end"], "end_kind": fact["end_kind"], "runtime_ms": None,
                      "cost_nanousd": None, "cost_source": "unknown"}
    length = fact.get("end", fact["start"] + MAX_RUN_MS) - fact["start"]
    known = fact["template"] == TEMPLATE
    return row | {"started": fact["start"], "runtime_ms": length, "end_kind": fact.get("end_kind", "max_run"),
                  "vcpu_count": 2 if known else None, "memory_mb": 512 if known else None,
                  "cost_source": "estimated" if known else "unknown",
                  "cost_nanousd": nano(length, 2, 512) if known else None}


def model_hours(rows):
    """(hour, template, team) -> [runtime, cost, estimated, runs ended, unknown cost]; rows as the runs view has them."""
    hours = {}
    for row in rows:
        key = row["template_id"], row["team_id"]
        ended = ms(row["ended_at"])
        last = hours.setdefault((ended // 3600000 * 3600, *key), [0] * 5)
        last[3] += 1
        last[4] += row["cost_nanousd"] is None
        if row["started_at"] is None:
            continue
        begin, told_ms, told_nano = ms(row["started_at"]), 0, 0
        for hour in range(begin // 3600000, ended // 3600000 + 1):
            until_ms = min(ended, (hour + 1) * 3600000) - begin
            until_nano = 0 if row["cost_nanousd"] is None else nano(until_ms, row["vcpu_count"], row["memory_mb"])
            if until_ms > told_ms:
                one = hours.setdefault((hour * 3600, *key), [0] * 5)
                one[0] += until_ms - told_ms
                one[1] += until_nano - told_nano
                one[2] += (until_nano - told_nano) * (row["cost_source"] == "estimated")
            told_ms, told_nano = until_ms, until_nano
    return hours


class AcceptedDeliveries(Case):
    def setUp(self):
        super().setUp()
        extra = f"[template {TEMPLATE}]\nalias = base\nvcpu = 2\nmemory_mb = 512\n"
        self.daemon = self.start(sources=SOURCE, store={"max_run": "1h"}, extra=extra)
        self.bodies = {}
        self.answers = {}
        for entry in GOOD:
            body, headers = read(entry)
            answer = self.daemon.request("POST", "/webhooks/e2b", body, dict(headers))
            self.assert_outcome(answer, expected(entry), entry["file"])
            self.answers[entry["file"]] = answer
            if answer.outcome == "stored":
                self.bodies[entry["file"]] = body
        self.home.wait_folded()
        self.parsed = {name: json.loads(body) for name, body in self.bodies.items()}

    def test_keeps_every_body_once_byte_for_byte_with_its_identity_and_kind(self):
        rows = self.home.shell("SELECT * FROM events ORDER BY seq")
        self.assertEqual([r["payload"] for r in rows], [b.decode() for b in self.bodies.values()])
        for row, (name, body) in zip(rows, self.parsed.items()):
            with self.subTest(name):
                own = field(body, "id") or field(body, "event_id")
                if own:
                    self.assertEqual(row["event_id"], own)
                else:
                    self.assertRegex(row["event_id"], r"^body:[0-9a-f]{32}$")
                self.assertEqual(self.answers[name].json["event_id"], row["event_id"])
                kind = "other" if name.startswith("25-") else kind_of(body)
                self.assertEqual((row["kind"], row["source"]), (kind, "e2b"))
                for column, key in (("sandbox_id", "sandbox_id"), ("template_id", "sandbox_template_id"),
                                    ("build_id", "sandbox_build_id"), ("run_id", "sandbox_execution_id")):
                    if column != "run_id" or field(body, key):
                        self.assertEqual(row[column], field(body, key), column)
                team = field(body, "sandbox_team_id")
                self.assertEqual(row["team_id"], None if team and team.startswith("00000000") else team)
                self.assertEqual(row["envelope_version"], body.get("version"))
                expect_ms = body["occurred_at_ms"] if "occurred_at_ms" in body else ms(body["timestamp"])
                self.assertEqual((row["time"], ms(row["occurred_at"])), (expect_ms // 1000, expect_ms))
                self.assertEqual(row["template"], "base" if row["template_id"] == TEMPLATE else row["template_id"])

    def test_counts_repeats_on_the_event_that_they_repeat(self):
        rows = self.home.shell("SELECT event_id, deliveries FROM events WHERE deliveries > 1 ORDER BY deliveries")
        ids = {name[:2]: body.get("id") for name, body in self.parsed.items()}
        self.assertEqual(rows, [{"event_id": ids["11"], "deliveries": 2}, {"event_id": ids["60"], "deliveries": 3}])

    def test_books_every_run_with_its_time_and_money_to_the_nano_dollar(self):
        model = model_runs(self.parsed.values())
        rows = {r["run_id"]: r for r in self.home.shell("SELECT * FROM runs")}
        self.assertEqual(sorted(rows), sorted(model))
        for run, want in model.items():
            with self.subTest(run):
                row = rows[run]
                for key in want.keys() - {"started", "ended"}:
                    self.assertEqual(row[key], want[key], f"{key} of {row}")
                self.assertEqual(row["started_at"] and ms(row["started_at"]), want["started"])
                ended = want["ended"] if "ended" in want else want["started"] + want["runtime_ms"]
                self.assertEqual(ms(row["ended_at"]), ended)
                self.assertEqual(row["time"], (ended if want["started"] is None else want["started"]) // 1000)
                if want["cost_nanousd"] is None:
                    self.assertIsNone(row["cost_usd"])
                else:
                    self.assertAlmostEqual(row["cost_usd"], want["cost_nanousd"] / 1e9, places=15)

    def test_sums_a_sandbox_over_its_runs_and_tells_how_it_stands(self):
        model = model_runs(self.parsed.values())
        for row in self.home.shell("SELECT * FROM sandboxes"):
            with self.subTest(row["sandbox_id"]):
                runs = [r for r in model.values() if r["sandbox_id"] == row["sandbox_id"]]
                known = [r["cost_nanousd"] for r in runs if r["cost_nanousd"] is not None]
                self.assertEqual((row["runs"], row["runtime_ms"], row["cost_nanousd"]),
                                 (len(runs), sum(r["runtime_ms"] or 0 for r in runs),
                                  sum(known) if known or not runs else None))
                killed = any(kind_of(b) == "killed" for b in self.parsed.values()
                             if field(b, "sandbox_id") == row["sandbox_id"])
                self.assertEqual(row["state"], "killed" if killed else "unknown")
        story = self.home.shell("SELECT * FROM sandboxes WHERE sandbox_id = 'i7pycdybk266oxtz8q85s'")[0]
        self.assertEqual((story["kill_reason"], story["executions"], story["failed_executions"]), ("request", 6, 3))
        self.assertEqual(json.loads(story["metadata"]), {"agent": "billing-summary", "env": "staging", "user_id": "4711"})
        # 600277 ms and 1200321 ms of 2 vCPU and 512 MiB
        self.assertEqual((story["runtime_ms"], story["cost_nanousd"]), (1800598, 18158379 + 36309710))

    def test_spreads_time_and_money_over_the_hours_and_days_that_a_run_was_up_in(self):
        runs = self.home.shell("SELECT * FROM runs")
        want = model_hours(runs)
        rows = self.home.shell("SELECT * FROM cost_hourly")
        columns = "runtime_ms", "cost_nanousd", "estimated_nanousd", "runs_ended", "unknown_cost"
        found = {(r["time"], r["template_id"], r["team_id"]): [r[c] or 0 for c in columns] for r in rows}
        self.assertEqual(found, want)
        self.assertGreater(len(want), 10)
        total = sum(r["cost_nanousd"] or 0 for r in runs)
        for view in ("cost_hourly", "cost_daily", "template_stats"):
            sums = self.home.shell(f"SELECT sum(cost_nanousd) AS n, sum(runtime_ms) AS t FROM {view}")[0]
            self.assertEqual((sums["n"], sums["t"]), (total, sum(r["runtime_ms"] or 0 for r in runs)), view)

    def test_tells_every_execution_and_its_share_of_cost(self):
        rows = {r["execution_id"]: r for r in self.home.shell("SELECT * FROM executions")}
        bodies = [b for b in self.parsed.values() if kind_of(b) == "code_executed"]
        self.assertEqual(len(rows), len(bodies))
        for body in bodies:
            sent = body["event_data"]["code_execution"]
            row = rows[sent["execution_id"]]
            with self.subTest(row["execution_id"]):
                for column, key in (("duration_ms", "duration_ms"), ("language", "language"), ("exit_code", "exit_code"),
                                    ("vcpu_count", "vcpu_count"), ("memory_mb", "memory_mb")):
                    self.assertEqual(row[column], sent[key], column)
                self.assertEqual(row["execution_kind"], sent.get("kind", "code"))
                self.assertEqual(row["status"], sent.get("status", "success"))
                self.assertEqual(row["failed"], int(row["status"] != "success"))
                error = sent["error"] or {}
                self.assertEqual((row["error_name"], row["error_value"]), (error.get("name"), error.get("value")))
                self.assertEqual((row["attempt"], row["final"]), (1, 1))
                self.assertEqual(row["run_id"], body["sandbox_execution_id"])
                if sent.get("cost"):
                    want = int(decimal.Decimal(sent["cost"]["amount"]) * 10**9), "reported"
                else:
                    want = nano(sent["duration_ms"], sent["vcpu_count"], sent["memory_mb"]), "computed"
                self.assertEqual((row["attributed_cost_nanousd"], row["cost_source"]), want)
        failed = self.home.shell("SELECT status FROM failed_executions ORDER BY status")
        self.assertEqual([r["status"] for r in failed], ["error", "error", "timeout"])

    def test_tells_the_same_after_a_restart(self):
        views = ("events", "sandboxes", "runs", "executions")
        before = {v: self.home.shell(f"SELECT * FROM {v} ORDER BY 1, 2") for v in views}
        self.stop(self.daemon)
        self.start()
        self.home.wait_folded()
        self.assertEqual({v: self.home.shell(f"SELECT * FROM {v} ORDER BY 1, 2") for v in views}, before)

    def test_tells_the_same_when_they_arrive_in_the_opposite_order(self):
        views = {"sandboxes": "*", "runs": "*", "executions": "*", "events": "event_id, kind, run_id, template"}
        query = {v: f"SELECT {columns} FROM {v} ORDER BY 1, 2" for v, columns in views.items()}

        def tell():
            rows = {v: self.home.shell(sql) for v, sql in query.items()}
            for row in sum(rows.values(), []):
                row.pop("changed_seq", None)
            return rows
        before = tell()
        self.fresh()
        daemon = self.start()
        for body in reversed(self.bodies.values()):
            self.assert_outcome(daemon.post(body, DELIVERY_SECRET), "stored")
        self.home.wait_folded()
        self.assertEqual(tell(), before)


class HostileDeliveries(Case):
    def test_each_ends_where_it_must_and_the_next_good_one_is_stored(self):
        for name, entry in HOSTILE.items():
            with self.subTest(entry["file"]):
                self.one(name, entry)
        self.assertGreater(len(HOSTILE), 30)

    def one(self, name, entry):
        self.fresh()
        daemon = self.start(sources=SOURCE)
        body, headers = read(entry)
        if entry["expect"] == "accept_duplicate":
            self.assert_outcome(daemon.post((DELIVERIES / "11-v2-killed-request.json").read_bytes(), DELIVERY_SECRET),
                                "stored")
        want = expected(entry)
        want, reason = want if isinstance(want, tuple) else (want, REASONS.get(name))
        before = self.count("events")
        answer = daemon.request("POST", "/webhooks/e2b", body, dict(headers))
        self.assert_outcome(answer, want, entry["file"])
        good = event(timestamp="2026-11-20T09:00:00Z")
        self.assert_outcome(daemon.post(good, DELIVERY_SECRET), "stored", "after it")
        self.home.wait_folded()
        self.assertEqual(self.count("events"), before + 1 + (want == "stored"))
        self.assertEqual(self.count("events", "sandbox_id LIKE 'ivictim%'"), 0)
        if want == "quarantined":
            rows = self.home.query("SELECT reason, source, CAST(payload AS BLOB) AS payload FROM quarantine")
            self.assertEqual([(r["reason"], r["source"], bytes(r["payload"])) for r in rows], [(reason, "e2b", body)])
        else:
            self.assertEqual(self.count("quarantine"), 0)
        if want in (401, 413) and reason:
            rows = self.home.query("SELECT reason, payload_size FROM rejections")
            self.assertEqual([r["reason"] for r in rows], [reason])
            if want == 401:
                self.assertEqual(rows[0]["payload_size"], len(body))
        self.judge_log(daemon)
        self.assertNotIn("forged log line", "".join(line for line in daemon.lines if line.startswith("127.0.0.1")))
        self.stop(daemon)

    def test_length_extensions_are_refused_for_every_secret_length(self):
        """The forgery that SHA-256(secret + body) allows, made here without the secret."""
        secret = DELIVERY_SECRET
        daemon = self.start(sources=SOURCE)
        seen = encode(event(timestamp="2026-11-20T09:00:00Z"))
        signature = sign_e2b(secret, seen)
        self.assert_outcome(daemon.request("POST", "/webhooks/e2b", seen, signature), "stored")
        for suffix in (b"", encode(event(timestamp="2026-11-20T09:00:00Z"))):
            glue = b"\x80" + bytes((55 - (len(secret) + len(seen))) % 64) + (8 * (len(secret) + len(seen))).to_bytes(8, "big")
            forged = seen + glue + suffix
            answer = daemon.post(forged, secret)  # the signature that the forger would compute
            self.assertEqual(answer.status, 401)
        self.assertEqual(self.count("events"), 1)


class Views(Case):
    """The columns of CONTRACT.md 4, for the views there are."""
    COLUMNS = {
        "events": "seq time occurred_at received_at event_id source type kind envelope_version sandbox_id run_id "
                  "template_id template build_id team_id failed webhook_id delivery_id deliveries payload",
        "sandboxes": "sandbox_id time created_at ended_at last_event_at expires_at source template_id template team_id "
                     "state kill_reason startup_ms runs runtime_ms cost_nanousd cost_usd executions failed_executions "
                     "metadata changed_seq",
        "running": "sandbox_id run_id time started_at expires_at template_id template team_id vcpu_count memory_mb "
                   "accrued_ms accrued_cost_usd",
        "runs": "run_id sandbox_id time started_at ended_at end_kind kill_reason source template_id template team_id "
                "vcpu_count memory_mb runtime_ms cost_nanousd cost_usd cost_source changed_seq",
        "executions": "execution_id event_id time started_at finished_at sandbox_id run_id source template_id template "
                      "team_id execution_kind language status failed exit_code error_name error_value duration_ms attempt "
                      "final vcpu_count memory_mb attributed_cost_nanousd attributed_cost_usd cost_source changed_seq",
        "cost_hourly": "time hour_at source template_id template team_id runtime_ms cost_nanousd cost_usd "
                       "estimated_nanousd runs_ended unknown_cost",
        "cost_daily": "time day source template_id template team_id runtime_ms cost_nanousd cost_usd estimated_nanousd "
                      "runs_ended unknown_cost",
        "activity_hourly": "time hour_at template_id template kind events",
        "template_stats": "template_id template sandboxes running runs runtime_ms cost_nanousd cost_usd executions "
                          "failed_executions failure_rate mean_duration_ms mean_startup_ms last_event_at",
        "quarantine": "id time received_at source reason detail webhook_id delivery_id payload",
        "rejections": "id time received_at source reason remote_addr webhook_id delivery_id payload_size",
        "ledger_state": "stored_seq folded_seq lag_s rebuilding skipped",
        "schema_info": "version fold_version migrated_at",
    }
    COLUMNS["failed_executions"] = COLUMNS["executions"]
    HOURS = "time hour_at template_id template executions failed timeouts duration_ms"  # of template_hourly, buckets behind

    def test_have_the_columns_that_dashboards_rely_on(self):
        self.start()
        for view in self.COLUMNS:
            with self.subTest(view):
                names = [r["name"] for r in self.home.shell(f"SELECT name FROM pragma_table_info('{view}')")]
                self.assertEqual(names, self.COLUMNS[view].split())

    def test_count_executions_and_start_ups_in_buckets(self):
        self.start()
        names = [r["name"] for r in self.home.shell("SELECT name FROM pragma_table_info('template_hourly')")]
        self.assertEqual(names[:8], self.HOURS.split())
        self.assertIn("startup_ms", names)
        for word in ("duration_le_", "startup_le_"):
            self.assertGreater(len([n for n in names if n.startswith(word)]), 4)

    def test_cannot_be_written_through_a_reading_connection(self):
        self.start()
        with self.assertRaises(sqlite3.OperationalError):
            self.home.query("DELETE FROM event")
