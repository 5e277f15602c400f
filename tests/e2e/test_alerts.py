"""Goal: alerts arrive: once, soon, also across a crash; and never become noise.

A real HTTP receiver stands for the target; it can be told to fail, and remembers what came.
"""
import concurrent.futures
import contextlib
import csv
import http.server
import io
import json
import threading
import time

from harness import (E2B_SOURCE, LONG, PATIENCE, SANITIZED, SECRET, Case, encode, event, exchange, execution, http_connection, rfc3339,
                     sign_e2b, until)

DOWN_S = 60 if LONG else 2  # a target, over a kill -9


class Receiver:
    """An HTTP endpoint that keeps what it is sent; `status` is what it answers, after `delay` seconds."""

    def __init__(self, port=0):
        self.got, self.status, self.delay, self.lock = [], 200, 0, threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with receiver.lock:
                    status = receiver.status
                    receiver.got.append((status, json.loads(body)["data"], time.monotonic()))
                time.sleep(receiver.delay)
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def taken(self):
        """The bodies that were answered 200, in order of arrival."""
        with self.lock:
            return [body for status, body, _ in self.got if status == 200]

    def states(self):
        return [body["state"] for body in self.taken]


def failure(**fields):
    return execution(status="error", exit_code=1, error={"name": "ValueError", "value": "no such thing"}, **fields)


class Alerts(Case):
    def receiver(self, port=0):
        receiver = Receiver(port)
        self.addCleanup(receiver.close)
        return receiver

    def rules(self, rules, **targets):
        """Configuration: targets by name, rules as {name: {key: value}}."""
        text = ""
        for name, url in targets.items():
            text += f"[notify {name}]\nkind = webhook\nurl = {url}\n"
        for name, keys in rules.items():
            text += f"[alert {name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items())
        return text

    def one_rule(self, receiver, **keys):
        return self.rules({"failed": {"on": "execution_failed", "notify": "ops", **keys}}, ops=receiver.url)

    def test_a_failed_execution_is_told_within_two_seconds(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver))
        begun = time.monotonic()
        failed = failure()
        self.assert_outcome(daemon.post(failed), "stored")
        until(lambda: receiver.taken, "the notification")
        self.assertLess(receiver.got[0][2] - begun, 2 * PATIENCE)
        (body,) = receiver.taken
        self.assertEqual((body["rule"], body["on"], body["state"], body["count"]),
                         ("failed", "execution_failed", "firing", 1))
        self.assertIn(failed["sandbox_id"], json.dumps(body))
        self.assertIn("ValueError", json.dumps(body))
        until(lambda: self.count("notifications", "status = 'sent'") == 1, "the view to say sent")

    def test_success_retries_and_tests_are_not_told(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver))
        daemon.post(execution())
        daemon.post(failure(final=False, attempt=1))
        daemon.post(event("e2b-hookd.test"))
        daemon.post(failure(execution_id="told"))
        until(lambda: receiver.taken, "the notification of the one that counts")
        self.assertEqual(receiver.taken[0]["total"], 1)
        self.assertIn("told", json.dumps(receiver.taken[0]))

    def test_one_execution_under_two_event_ids_counts_once(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver, quiet="2s"))
        one = {"execution_id": "x1", "sandbox_id": "sb1"}
        daemon.post(failure(**one))
        daemon.post(failure(**one))
        until(lambda: "resolved" in receiver.states(), "resolved")
        self.assertEqual([(b["state"], b["total"]) for b in receiver.taken], [("firing", 1), ("resolved", 1)])

    def test_a_burst_is_a_handful_with_right_counts(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver, repeat="2s", quiet="4s"))
        n = 1000 if SANITIZED else 10000

        def post(start):
            with contextlib.closing(http_connection(daemon.address)) as connection:
                for i in range(start, n, 4):
                    body = encode(failure(sandbox_id=f"sb{i % 50}"))
                    answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    assert answer.outcome == "stored", answer
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(post, range(4)))
        until(lambda: "resolved" in receiver.states(), "resolved", 60)
        states = receiver.states()
        self.assertEqual((states[0], states[-1], states.count("firing"), states.count("resolved")),
                         ("firing", "resolved", 1, 1))
        self.assertLess(len(states), 20)
        self.assertEqual(receiver.taken[-1]["total"], n)
        self.assertEqual(sum(b["count"] for b in receiver.taken), n)
        self.assertLessEqual(len(receiver.taken[0]["samples"]), 5)

    def test_a_dead_target_delays_no_other_and_hears_all_in_order(self):
        dead, alive = self.receiver(), self.receiver()
        dead.status = 503
        rules = {"failed": {"on": "execution_failed", "notify": "dead, alive", "repeat": "1s", "quiet": "1h"}}
        daemon = self.start(extra=self.rules(rules, dead=dead.url, alive=alive.url))
        for count in range(1, 4):
            daemon.post(failure())
            until(lambda: len(alive.taken) == count, f"{count} notifications at the target that lives")
        self.assertEqual(dead.taken, [])
        dead.status = 200
        until(lambda: len(dead.taken) == 3, "the other to catch up", 30)
        self.assertEqual([b["id"] for b in dead.taken], [b["id"] for b in alive.taken])

    def test_a_crash_between_commit_and_sending_loses_nothing(self):
        receiver = self.receiver()
        port = receiver.port
        receiver.close()
        begun = time.monotonic()
        daemon = self.start(extra=self.one_rule(receiver, repeat="1s", quiet="1h"))
        daemon.post(failure())
        until(lambda: self.count("notifications", "attempts > 0"), "a first attempt that fails")
        daemon.kill()
        self.died_on_purpose(daemon)
        daemon = self.start()
        before = self.home.value("SELECT max(attempts) FROM notifications")
        until(lambda: time.monotonic() - begun > DOWN_S
              and self.home.value("SELECT max(attempts) FROM notifications") > before,
              "the target to have been away, and another attempt", DOWN_S + 60)
        receiver = self.receiver(port)
        until(lambda: receiver.taken, "the notification after the crash", 90)
        daemon.post(failure())
        until(lambda: len(receiver.taken) == 2, "the next one")
        self.assertEqual([(b["state"], b["count"], b["total"]) for b in receiver.taken],
                         [("firing", 1, 1), ("repeat", 1, 2)])
        self.assertEqual(len({b["id"] for b in receiver.taken}), 2)

    def test_rebuild_restart_and_requeue_raise_nothing_again(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver, quiet="1s"))
        daemon.post(failure())
        # What still fires would only count what is raised again.
        until(lambda: receiver.states() == ["firing", "resolved"], "the alert to be over")
        self.ctl("rebuild")
        self.ctl("requeue")
        self.stop(daemon)
        daemon = self.start()
        daemon.post(execution())
        self.home.wait_folded()
        until(lambda: self.home.value("SELECT seq FROM alert_position") == 2, "alerts to have looked")
        self.assertEqual((len(receiver.taken), self.count("notifications")), (2, 2))

    def test_what_is_on_its_way_when_the_daemon_stops_is_not_told_again(self):
        receiver = self.receiver()
        receiver.delay = 0.5
        daemon = self.start(extra=self.one_rule(receiver, quiet="1h"))
        daemon.post(failure())
        until(lambda: receiver.taken, "the notification, which is not answered yet")
        self.stop(daemon)
        self.assertEqual(self.home.value("SELECT status FROM notifications"), "sent")
        self.start()
        time.sleep(1)
        self.assertEqual(receiver.states(), ["firing"])

    def test_a_target_that_does_not_answer_holds_up_no_stop_and_is_told_again(self):
        receiver = self.receiver()
        receiver.delay = 8
        daemon = self.start(extra=self.one_rule(receiver, quiet="1h"))
        daemon.post(failure())
        until(lambda: receiver.taken, "the notification, which is not answered")
        begun = time.monotonic()
        self.stop(daemon)
        self.assertLess(time.monotonic() - begun, 3 * PATIENCE)
        receiver.delay = 0
        self.start()
        until(lambda: self.home.value("SELECT status FROM notifications") == "sent", "the notification, again")
        self.assertEqual(len({body["id"] for body in receiver.taken}), 1)

    def test_what_comes_late_is_summed_up(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver, max_age="1m"))
        old = rfc3339(time.time() - 600)
        for _ in range(7):
            daemon.post(failure(timestamp=old))
        until(lambda: receiver.taken, "the summary", 20)
        self.assertEqual([(b["state"], b["count"]) for b in receiver.taken], [("summary", 7)])

    def test_a_failure_rate_fires_and_resolves(self):
        receiver = self.receiver()
        rule = {"on": "failure_rate", "threshold": 0.5, "window": "20s", "min_count": 4, "notify": "ops"}
        daemon = self.start(extra=self.rules({"rate": rule}, ops=receiver.url))
        for kind in (failure, failure, failure, execution):
            daemon.post(kind())
        until(lambda: receiver.taken, "the rate")
        self.assertEqual((receiver.taken[0]["state"], receiver.taken[0]["value"]), ("firing", 0.75))
        for _ in range(4):
            daemon.post(execution())
        until(lambda: "resolved" in receiver.states(), "resolved")

    def test_a_runaway_resolves_when_its_sandbox_ends(self):
        receiver = self.receiver()
        rule = {"on": "runaway", "max_run": "2s", "notify": "ops"}
        daemon = self.start(extra=self.rules({"long": rule}, ops=receiver.url))
        one = {"sandbox_id": "sb1", "sandbox_execution_id": "run1"}
        daemon.post(event("created", **one))
        until(lambda: receiver.taken, "the runaway")
        self.assertIn("sb1", json.dumps(receiver.taken[0]))
        daemon.post(event("killed", **one))
        until(lambda: receiver.states() == ["firing", "resolved"], "resolved")

    def test_a_budget_counts_what_running_sandboxes_accrue(self):
        receiver = self.receiver()
        rule = {"on": "budget", "daily_usd": "0.5", "notify": "ops"}
        extra = self.rules({"money": rule}, ops=receiver.url)
        extra += "[template k3v9x2m7q1w8e5r4t6y0]\nvcpu = 1\nmemory_mb = 1024\n[pricing]\nvcpu_second_usd = 1\n"
        daemon = self.start(extra=extra)
        daemon.post(event("created"))
        until(lambda: receiver.taken, "the budget", 20)
        self.assertEqual((receiver.taken[0]["state"], receiver.taken[0]["unit"]), ("firing", "usd"))
        self.assertGreater(receiver.taken[0]["value"], 0.5)

    def test_silence_ends_with_the_next_event(self):
        receiver = self.receiver()
        rule = {"on": "silence", "quiet": "2s", "notify": "ops"}
        daemon = self.start(extra=self.rules({"quiet": rule}, ops=receiver.url))
        until(lambda: receiver.taken, "silence")
        daemon.post(event("created"))
        until(lambda: receiver.states()[:2] == ["firing", "resolved"], "resolved")

    def test_the_query_that_is_given_shows_what_came_late(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver))
        late = failure(timestamp=rfc3339(time.time() - 1200), started_at=rfc3339(time.time() - 3000))
        daemon.post(late)
        until(lambda: receiver.taken, "the notification")
        program, option, config, *query = receiver.taken[0]["query"].split()
        self.assertEqual((program, option, config), ("e2b-hookctl", "-c", str(self.home.config)))
        self.assertEqual([row["sandbox_id"] for row in self.ctl_rows(*query)], [late["sandbox_id"]])

    def test_silence_is_not_held_off_by_reloads_and_ends_with_an_event_however_old(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.rules({"quiet": {"on": "silence", "quiet": "2s", "notify": "ops"}}, ops=receiver.url))

        def fires():
            daemon.reload()
            return receiver.taken
        until(fires, "silence, between many reloads")
        daemon.post(event("created", timestamp=rfc3339(time.time() - 600)))
        until(lambda: receiver.states()[:2] == ["firing", "resolved"], "resolved")

    def test_silence_is_not_held_off_by_restarts(self):
        receiver = self.receiver()
        self.home.configure(extra=self.rules({"quiet": {"on": "silence", "quiet": "5s", "notify": "ops"}}, ops=receiver.url))
        for _ in range(9):
            daemon = self.start()
            with contextlib.suppress(AssertionError):
                until(lambda: receiver.taken, "silence, over several restarts", 2 / PATIENCE)
            self.stop(daemon)
        self.assertEqual(receiver.states(), ["firing"])

    def test_a_rule_that_is_renamed_ends_its_alert(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver))
        daemon.post(failure())
        until(lambda: receiver.states() == ["firing"], "the alert")
        rule = {"on": "execution_failed", "notify": "ops"}
        self.home.configure(extra=self.rules({"renamed": rule}, ops=receiver.url))
        daemon.reload()
        until(lambda: receiver.states() == ["firing", "resolved"], "its end")
        self.assertEqual(receiver.taken[1]["rule"], "failed")
        daemon.post(failure())
        until(lambda: receiver.states() == ["firing", "resolved", "firing"], "the alert of the new rule")

    def test_deliveries_that_are_refused_are_told(self):
        receiver = self.receiver()
        rules = {"refused": {"on": "rejected", "min_count": 3, "notify": "ops"},
                 "odd": {"on": "quarantined", "notify": "ops"},
                 "new": {"on": "unknown_template", "notify": "ops"},
                 "lost": {"on": "sandbox_failed", "notify": "ops"}}
        daemon = self.start(extra=self.rules(rules, ops=receiver.url), sources={"e2b": E2B_SOURCE})
        for _ in range(2):
            daemon.post(event(), secret="another secret altogether, 0123456789")
        daemon.post(event(timestamp="yesterday"))
        daemon.post(event("killed", {"kill_reason": "orphaned"}))
        daemon.post(event("killed", {"kill_reason": "request"}))
        until(lambda: len(receiver.taken) == 3, "quarantined, unknown_template, sandbox_failed")
        daemon.post(event(), secret="another secret altogether, 0123456789")
        until(lambda: len(receiver.taken) == 4, "the third rejection")
        found = {b["rule"]: b["total"] for b in receiver.taken}
        self.assertEqual(found, {"refused": 3, "odd": 1, "new": 2, "lost": 1})
        samples = {b["rule"]: b["samples"][0] for b in receiver.taken}
        self.assertEqual((samples["refused"]["status"], samples["refused"]["error_value"]),
                         ("signature_wrong", "source e2b, from 127.0.0.1"))
        self.assertRegex(samples["odd"]["error_value"], "^source e2b: timestamp")

    def test_a_silenced_rule_counts_and_says_nothing(self):
        receiver = self.receiver()
        daemon = self.start(extra=self.one_rule(receiver, silenced="yes"))
        daemon.post(failure())
        daemon.post(failure())
        until(lambda: self.count("alerts", "state = 'firing' AND not_told = 2"), "the alert to be seen")
        self.assertEqual(self.count("notifications"), 0)
        self.home.configure(extra=self.one_rule(receiver))
        daemon.reload()
        until(lambda: receiver.taken, "after the reload")
        self.assertEqual((receiver.taken[0]["state"], receiver.taken[0]["total"]), ("firing", 2))

    def test_who_gets_a_target_later_is_told_what_fires(self):
        receiver = self.receiver()
        rule = "[alert failed]\non = execution_failed\nnotify = ops\n"
        daemon = self.start(extra="[notify ops]\nkind = webhook\nurl =\n" + rule)
        daemon.post(failure())
        until(lambda: self.count("alerts", "state = 'firing'"), "the alert to be seen")
        self.assertEqual(self.count("alerts", "notified_at IS NULL AND not_told = 1"), 1)
        self.home.configure(extra=f"[notify ops]\nkind = webhook\nurl = {receiver.url}\n" + rule)
        daemon.reload()
        until(lambda: receiver.taken, "the alert, long before it is repeated")
        self.assertEqual([(b["state"], b["count"], b["total"]) for b in receiver.taken], [("firing", 1, 1)])
        self.assertEqual(len(receiver.taken[0]["samples"]), 1)
        self.assertEqual(self.count("alerts", "notified_at IS NULL"), 0)

    def ctl_rows(self, *arguments, code=0):
        return list(csv.DictReader(io.StringIO(self.ctl(*arguments, code=code))))

    def test_the_tool_lists_tests_acknowledges_and_retries(self):
        receiver, gone = self.receiver(), self.receiver()
        gone.status = 400
        rules = {"failed": {"on": "execution_failed", "notify": "ops, gone", "repeat": "1s"},
                 "both": {"on": "silence", "notify": "ops, off"}}
        daemon = self.start(extra=self.rules(rules, ops=receiver.url, gone=gone.url) + "[notify off]\nkind = slack\n")
        self.assertEqual([r["status"] for r in self.ctl_rows("alerts", "test", "ops")], ["sent"])
        self.assertEqual(receiver.states(), ["test"])
        rows = {r["target"]: r["status"] for r in self.ctl_rows("alerts", "test", "failed", code=1)}
        self.assertEqual(rows, {"ops": "sent", "gone": "failed"})
        self.ctl("alerts", "test", "nobody", code=1)
        self.assertIn("no such rule or target", self.ctl_stderr)
        for command, name, said in (("ack", "gone", "this is a target; ack takes a rule: failed, both"),
                                    ("retry", "both", "this is a rule; retry takes a target: ops, gone, off"),
                                    ("ack", "nobody", "no such name; ack takes a rule: failed, both")):
            self.ctl("alerts", command, name, code=1)
            self.assertIn(f"{name}: {'the configuration has ' if name == 'nobody' else ''}{said}", self.ctl_stderr)
        rows = {r["target"]: r for r in self.ctl_rows("alerts", "test", "both", code=1)}
        self.assertEqual({name: r["status"] for name, r in rows.items()}, {"ops": "sent", "off": "off"})
        self.assertIn("no url", rows["off"]["error"])
        self.ctl("alerts", "test", "off", code=1)
        self.assertIn("url", self.ctl_stderr)
        self.ctl("alerts", "test", code=2)
        daemon.post(failure())
        until(lambda: "firing" in receiver.states(), "the alert")
        self.assertIn("1 firing", self.ctl("alerts", "ack", "failed"))
        self.assertEqual([(r["rule"], r["state"]) for r in self.ctl_rows("alerts")], [("failed", "acknowledged")])
        until(lambda: self.count("notifications", "target = 'gone' AND status = 'failed'") == 2, "given up")
        status = {r["item"]: r for r in json.loads(self.ctl("status", "--format", "json", code=None))}
        self.assertEqual(int(status["alerts_failed"]["value"]), 2)
        self.assertIn("alerts retry", status["alerts_failed"]["note"])
        gone.status = 200
        self.assertIn("2 notifications are tried again now: e2b-hookctl notifications", self.ctl("alerts", "retry", "gone"))
        until(lambda: gone.states() == ["test", "firing"], "what was given up")
        until(lambda: self.count("notifications", "status <> 'sent'") == 0, "the views to say so")
        self.assertEqual(len(self.ctl_rows("notifications")), 6)

    def test_a_restored_copy_tells_nothing_old(self):
        receiver = self.receiver()
        receiver.status = 503
        daemon = self.start(extra=self.one_rule(receiver, quiet="1h"))
        daemon.post(failure())
        until(lambda: receiver.got, "a first attempt")
        copy = self.home.path / "copy.db"
        self.ctl("backup", copy)
        self.stop(daemon)
        self.ctl("restore", copy)
        receiver.status = 200
        self.assertEqual(self.home.value("SELECT status FROM notifications"), "dropped")
        daemon = self.start()
        one = failure()
        daemon.post(one)
        until(lambda: receiver.taken, "what is new")
        self.assertEqual([(b["state"], b["total"]) for b in receiver.taken], [("firing", 1)])
        self.assertIn(one["sandbox_id"], json.dumps(receiver.taken[0]))
