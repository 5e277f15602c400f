"""Goal: an event is stored once however often, in however many ways, it is delivered; and what is odd about an event ends
in quarantine with a reason, never lost and never taken for another one.
"""
import concurrent.futures
import hashlib
import json
import re
import time

from harness import Case, encode, event, execution, rfc3339, until


class Identity(Case):
    def test_a_repeat_is_a_duplicate_whatever_its_unsigned_headers_say(self):
        daemon = self.start()
        body = encode(event())
        for i in range(5):
            headers = {"e2b-delivery-id": f"try-{i}", "e2b-webhook-id": f"hook-{i}", "content-type": "text/plain",
                       "e2b-signature-version": f"v{i}"}
            self.assert_outcome(daemon.post(body, headers=headers), "duplicate" if i else "stored")
        self.home.wait_folded()
        rows = self.home.query("SELECT deliveries, delivery_id, webhook_id FROM events")
        self.assertEqual(rows, [{"deliveries": 5, "delivery_id": "try-0", "webhook_id": "hook-0"}])

    def test_a_repeat_through_another_source_is_a_duplicate(self):
        daemon = self.start()
        body = encode(event())
        self.assert_outcome(daemon.post(body), "stored")
        self.assert_outcome(daemon.post_executor(body), "duplicate")
        self.assertEqual([r["source"] for r in self.home.query("SELECT source FROM events")], ["e2b"])

    def test_a_repeat_after_a_restart_is_a_duplicate(self):
        daemon = self.start()
        body = encode(event())
        self.assert_outcome(daemon.post(body), "stored")
        self.stop(daemon)
        self.assert_outcome(self.start().post(body), "duplicate")

    def test_the_same_event_from_many_sides_at_once_is_stored_once(self):
        daemon = self.start()
        bodies = [encode(event()) for _ in range(20)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(daemon.post, bodies * 8))
        self.assertEqual(sorted(a.outcome for a in answers), ["duplicate"] * 140 + ["stored"] * 20)
        self.home.wait_folded()
        self.assertEqual([r["deliveries"] for r in self.home.query("SELECT deliveries FROM events")], [8] * 20)

    def test_an_id_used_again_with_another_body_is_quarantined(self):
        daemon = self.start()
        first = event()
        self.assert_outcome(daemon.post(first), "stored")
        same_second = {**first, "sandbox_id": "another"}
        other_time = {**first, "timestamp": rfc3339(time.time() - 3600)}
        for body in (same_second, other_time):
            self.assert_outcome(daemon.post(body), "quarantined")
        self.home.wait_folded()
        rows = self.home.query("SELECT reason, payload FROM quarantine ORDER BY id")
        self.assertEqual([r["reason"] for r in rows], ["id_reused"] * 2)
        self.assertEqual([json.loads(r["payload"]) for r in rows], [same_second, other_time])
        self.assertEqual(self.count("events"), 1)

    def test_a_body_without_an_id_is_known_by_its_digest(self):
        daemon = self.start()
        for missing in (None, "", "00000000-0000-0000-0000-000000000000"):
            body = encode(event(id=missing))
            answer = daemon.post(body)
            self.assert_outcome(answer, "stored", repr(missing))
            self.assertEqual(answer.json["event_id"], "body:" + hashlib.sha256(body).hexdigest()[:32])
            self.assert_outcome(daemon.post(body), "duplicate", repr(missing))

    def test_ids_that_differ_in_case_are_different_events(self):
        daemon = self.start()
        now = rfc3339(time.time())
        for name in ("Evt-a", "evt-a", "EVT-A", "a7f3b2c4-0d1e-4f56-8a9b-0c1d2e3f4a5b", "A7F3B2C4-0D1E-4F56-8A9B-0C1D2E3F4A5B"):
            answer = daemon.post(event(id=name, timestamp=now))
            self.assertEqual((answer.outcome, answer.json["event_id"]), ("stored", name))
        self.home.wait_folded()
        self.assertEqual(self.count("events"), 5)

    def test_either_form_of_the_time_serves(self):
        daemon = self.start()
        now_ms = int(time.time() * 1000)
        self.assert_outcome(daemon.post(event(timestamp=None, occurred_at_ms=now_ms)), "stored")
        for text in ("2026-11-20T09:00:00Z", "2026-11-20T10:00:00.000+01:00", "2026-11-20T09:00:00.000000000Z"):
            self.assert_outcome(daemon.post(event(timestamp=text)), "stored")
        self.home.wait_folded()
        self.assertEqual(self.count("events", "occurred_at = ?", rfc3339(now_ms / 1000)), 1)
        self.assertEqual(self.count("events", "occurred_at = '2026-11-20T09:00:00.000Z'"), 3)
        self.assert_outcome(daemon.post(event(occurred_at_ms=now_ms - 5000)), "quarantined", "two times that differ")


class Quarantine(Case):
    def reasons(self, bodies):
        daemon = self.start()
        found = {}
        for name, body in bodies.items():
            answer = daemon.post(body)
            if answer.outcome == "quarantined":
                row = self.home.query("SELECT reason, payload FROM quarantine ORDER BY id DESC LIMIT 1")[0]
                self.assertEqual(row["payload"].encode(), encode(body), name)
                found[name] = row["reason"]
            else:
                found[name] = answer.outcome
        return found

    def test_takes_what_is_signed_and_no_event_with_the_reason(self):
        deep = b'{"id":"x","a":' + b"[" * 33 + b"]" * 33 + b"}"
        many = b'{"id":"x","a":[' + b",".join([b"0"] * 20001) + b"]}"
        run = {"started_at": "2026-11-20T09:00:00Z", "execution_time": 1000, "vcpu_count": 2, "memory_mb": 512}
        twice = encode(event()).replace(b'{"id":', b'{"id":"x","id":', 1)
        both = {**event(), "sandboxId": "another"}
        cases = {
            "no type": (event(type=None), "missing_field"),
            "no time": (event(timestamp=None), "missing_field"),
            "no sandbox": (event(sandbox_id=None), "missing_field"),
            "empty sandbox": (event(sandbox_id=""), "missing_field"),
            "execution without id": (execution(execution_id=...), "missing_field"),
            "execution without duration": (execution(duration_ms=...), "missing_field"),
            "id is a number": (event(id=7), "wrong_type"),
            "sandbox is a list": (event(sandbox_id=["x"]), "wrong_type"),
            "event data is a number": (event(event_data=7), "wrong_type"),
            "id with a blank": (event(id="a b"), "bad_id"),
            "id too long": (event(id="a" * 129), "bad_id"),
            "sandbox climbs up": (event(sandbox_id="../etc"), "bad_id"),
            "run id with a quote": (event(sandbox_execution_id="'"), "bad_id"),
            "time is no time": (event(timestamp="yesterday"), "bad_time"),
            "time without a zone": (event(timestamp="2026-11-20T09:00:00"), "bad_time"),
            "the 30th of February": (event(timestamp="2026-02-30T09:00:00Z"), "bad_time"),
            "negative duration": (execution(duration_ms=-1), "bad_number"),
            "endless execution": (event("killed", {"execution": {**run, "execution_time": 1e300}}), "bad_number"),
            "both casings": (both, "conflict"),
            "a key twice": (twice, "duplicate_key"),
            "too deep": (deep, "too_deep"),
            "too many values": (many, "too_many_values"),
            "tomorrow": (event(timestamp=rfc3339(time.time() + 7200)), "future"),
        }
        found = self.reasons({name: body for name, (body, _reason) in cases.items()})
        self.assertEqual(found, {name: reason for name, (_body, reason) in cases.items()})

    def test_does_not_take_what_is_only_unusual(self):
        nested = 0
        for _ in range(28):
            nested = [nested]
        cases = {
            "unknown keys": event(region="eu", extra={"a": [1, 2.5, None, True]}),
            "unknown type": event("sandbox.lifecycle.migrated"),
            "any type": event("vendor.thing-that_happened"),
            "a type without a sandbox": event("other.thing", sandbox_id=None),
            "null data": event(event_data=None) | {"event_data": None},
            "data as text": event(event_data='{"set_timeout":"2026-11-20T09:31:00Z"}'),
            "both casings alike": {**(e := event()), "sandboxId": e["sandbox_id"]},
            "keys in another case": event(TYPE="x", Sandbox_Id="y"),
            "nested but not too deep": event(filler=nested),
            "a little ahead": event(timestamp=rfc3339(time.time() + 3000)),
            "years ago": event(timestamp="2020-02-29T23:59:59.999999999Z"),
            "ids with every sign": event(sandbox_template_id="arn:aws:lambda:eu-west-1:0:image/base", id="a.b_c:d#e/f@g+h-i"),
            "zero duration": execution(duration_ms=0),
            "exit code of Windows": execution(exit_code=-1073741819, status="error"),
        }
        found = self.reasons(cases)
        self.assertEqual(found, {name: "stored" for name in cases})

    def test_no_failed_execution_hides_behind_its_error_text(self):
        daemon = self.start()
        body = execution(status="error", exit_code=1, error={"name": "E", "value": "VALUE", "traceback": ""})
        data = encode(body).replace(b'"VALUE"', rb'"a\u0000b\ud800c"')
        self.assert_outcome(daemon.post(data), "stored")
        self.home.wait_folded()
        rows = self.home.query("SELECT error_value, failed FROM failed_executions")
        self.assertEqual(rows, [{"error_value": "a\ufffdb\ufffdc", "failed": 1}])
        self.assertEqual(self.home.value("SELECT CAST(payload AS BLOB) FROM events"), data)

    def test_stale_events_are_kept_apart_once_a_retention_is_set(self):
        daemon = self.start(store={"retention": "30d", "ledger_retention": "60d"})
        old = event(timestamp=rfc3339(time.time() - 40 * 86400))
        self.assert_outcome(daemon.post(event()), "stored")
        until(lambda: self.home.value("SELECT horizon_s FROM position"), "the horizon to follow the newest event")
        self.assert_outcome(daemon.post(old), "quarantined")
        self.assertEqual(self.home.value("SELECT reason FROM quarantine"), "stale")

    def test_a_repeat_in_quarantine_is_kept_once(self):
        daemon = self.start()
        body = encode(event(timestamp="never"))
        for _ in range(3):
            self.assert_outcome(daemon.post(body), "quarantined")
        self.assertEqual(self.count("quarantine"), 1)


class Log(Case):
    def test_says_one_line_for_each_delivery_and_never_its_body_or_signature(self):
        self.home.configure(extra="[log]\nlevel = debug\n")
        daemon = self.start()
        body = event(event_data={"sandbox_metadata": {"note": "SECRET-OF-THE-PAYLOAD", "line": "a\r\nforged line"}})
        daemon.post(body)
        daemon.post(body)
        daemon.post(event(timestamp="never", filler="SECRET-OF-THE-PAYLOAD"))
        daemon.post(event(id="x\n2026-01-01T00:00:00Z info forged", filler="SECRET-OF-THE-PAYLOAD"))
        daemon.request("POST", "/webhooks/e2b", b"SECRET-OF-THE-PAYLOAD", {"e2b-signature": "U" * 43})
        daemon.wait_log("reject")
        self.assertTrue([line for line in daemon.lines if body["id"] in line and "stored" in line], daemon.log)
        self.assertTrue([line for line in daemon.lines if body["id"] in line and "duplicate" in line], daemon.log)
        self.assertNotIn("SECRET-OF-THE-PAYLOAD", daemon.log)
        self.assertNotIn("U" * 43, daemon.log)
        for line in daemon.lines:
            self.assertRegex(line, r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warning|notice|info|debug) ")
            self.assertFalse(re.match(r".{24} info forged", line))
