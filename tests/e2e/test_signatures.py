"""Goal: a delivery gets in with a right signature in every form that senders use, with any live secret, and in no other
way; who is refused learns nothing, not even why.
"""
import base64
import hashlib
import hmac
import time

from harness import (EXECUTOR_SECRET, SECRET, SOURCES, Case, encode, event, execution, e2b_digest, sign_e2b, sign_hmac,
                     sign_standard, until)

PATH = "/webhooks/e2b"
OTHER = "another-live-secret-0123456789abcdefgh"
STANDARD_SECRET = "whsec_" + base64.b64encode(b"standard webhooks secret bytes!!").decode()
STANDARD = {"path": "/webhooks/standard", "signature": "standard-webhooks", "secrets": [STANDARD_SECRET]}


def body_with(characters, secret=SECRET):
    """A body whose signature has all of these characters, so that the alphabets differ."""
    while True:
        body = encode(event())
        if set(characters) <= set(base64.b64encode(e2b_digest(secret, body)).decode()):
            return body


class E2b(Case):
    def test_both_alphabets_and_padding_are_understood(self):
        daemon = self.start()
        body = body_with("+/")
        digest = e2b_digest(SECRET, body)
        outcomes = []
        for text in (base64.b64encode(digest), base64.urlsafe_b64encode(digest)):
            for form in (text.decode(), text.decode().rstrip("="), "  " + text.decode().rstrip("=") + "\t"):
                outcomes.append(daemon.request("POST", PATH, body, {"e2b-signature": form}).outcome)
        self.assertEqual(outcomes, ["stored"] + ["duplicate"] * 5)
        self.assert_outcome(daemon.request("POST", PATH, body, {"E2B-Signature": sign_e2b(SECRET, body)["e2b-signature"]}),
                            "duplicate")

    def test_everything_else_is_refused_with_the_same_bytes(self):
        daemon = self.start()
        body = body_with("+/")
        good = sign_e2b(SECRET, body)["e2b-signature"]
        digest = e2b_digest(SECRET, body)
        bad = {
            "none": None, "empty": "", "hex": digest.hex(), "hmac": sign_hmac(SECRET, body)["x-signature-256"],
            "hmac in base64": base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest()).decode(),
            "cut": good[:-1], "longer": good + "A", "two paddings": good + "==", "prefix": "sha256=" + good,
            "v1": "v1," + good, "wrong secret": sign_e2b("x" * 39, body)["e2b-signature"],
            "empty secret": sign_e2b("", body)["e2b-signature"], "other body": sign_e2b(SECRET, body + b" ")["e2b-signature"],
            "mixed alphabets": good.replace("+", "-", 1) if good.count("+") else good, "two": f"{good} {good}",
            "listed": f"{good},{good}", "last bit": good[:-1] + ("B" if good[-1] != "B" else "C"),
            "quoted": f'"{good}"', "long": "A" * 3000, "umlaut": "ä" * 43,
        }
        if "-" in bad["mixed alphabets"] and "+" not in bad["mixed alphabets"] and "/" not in bad["mixed alphabets"]:
            del bad["mixed alphabets"]
        seen = set()
        for name, value in bad.items():
            headers = {} if value is None else {"e2b-signature": value.encode("latin-1", "replace")}
            answer = daemon.request("POST", PATH, body, headers)
            self.assertEqual(answer.status, 401, name)
            answer.headers.pop("date", None)
            seen.add((answer.body, tuple(sorted(answer.headers.items()))))
        self.assertEqual(len(seen), 1, seen)
        garbage = b"no json at all"
        answer = daemon.request("POST", PATH, garbage, sign_e2b(SECRET, garbage))
        answer.headers.pop("date", None)
        self.assertEqual((answer.body, tuple(sorted(answer.headers.items()))), seen.pop(), "signed, but no JSON object")
        self.assertEqual(self.count("events"), 0)

    def test_every_flipped_bit_is_noticed(self):
        daemon = self.start()
        body = encode(event())
        good = sign_e2b(SECRET, body)
        for i in range(0, len(body) * 8, 37):
            flipped = bytearray(body)
            flipped[i // 8] ^= 1 << (i % 8)
            self.assertEqual(daemon.request("POST", PATH, bytes(flipped), good).status, 401, f"bit {i}")
        self.assert_outcome(daemon.request("POST", PATH, body, good), "stored")

    def test_a_secret_is_of_its_source(self):
        daemon = self.start()
        body = encode(event())
        self.assertEqual(daemon.post(body, EXECUTOR_SECRET).status, 401)
        self.assertEqual(daemon.post_executor(body, SECRET).status, 401)
        self.assertEqual(daemon.request("POST", "/webhooks/executors", body, sign_e2b(EXECUTOR_SECRET, body)).status, 401)


class Rotation(Case):
    def test_all_secrets_of_the_file_are_live_and_a_reload_brings_in_the_new_ones(self):
        sources = {**SOURCES, "e2b": {**SOURCES["e2b"], "secrets": [SECRET, OTHER]}}
        daemon = self.start(sources=sources)
        self.assert_outcome(daemon.post(event(), SECRET), "stored")
        self.assert_outcome(daemon.post(event(), OTHER), "stored")
        third = "the-third-secret-0123456789-abcdefghij"
        self.assertEqual(daemon.post(event(), third).status, 401)

        self.home.secret_file("e2b", [third, OTHER])
        daemon.reload()
        self.assert_outcome(daemon.post(event(), third), "stored")
        self.assert_outcome(daemon.post(event(), OTHER), "stored")
        self.assertEqual(daemon.post(event(), SECRET).status, 401)

    def test_no_delivery_is_refused_while_the_secret_changes(self):
        """What a rotation asks for: first the receiver knows both, then the sender changes."""
        daemon = self.start()
        for old, new in ((SECRET, OTHER), (OTHER, SECRET)):
            mark = len(daemon.lines)
            self.home.secret_file("e2b", [old, new])
            daemon.hang_up()
            while not any(" reloaded " in line for line in daemon.lines[mark:]):
                self.assert_outcome(daemon.post(event(), old), "stored")
            for _ in range(5):
                self.assert_outcome(daemon.post(event(), old), "stored")
                self.assert_outcome(daemon.post(event(), new), "stored")

    def test_which_secrets_are_in_use_is_counted_without_telling_them(self):
        sources = {"e2b": {**SOURCES["e2b"], "secrets": [SECRET, OTHER]}}
        daemon = self.start(sources=sources)
        for secret in (SECRET, OTHER, OTHER):
            daemon.post(event(), secret)
        daemon.stop()
        self.died_on_purpose(daemon)
        rows = self.home.query("SELECT position, n FROM secret_use ORDER BY position")
        self.assertEqual(rows, [{"position": 1, "n": 1}, {"position": 2, "n": 2}])
        for name in ("events.db", "events.db-wal"):
            path = self.home.path / name
            if path.exists():
                self.assertNotIn(SECRET.encode(), path.read_bytes())


class HmacSha256(Case):
    def test_hex_with_and_without_prefix_and_base64_are_understood(self):
        daemon = self.start()
        body = encode(execution())
        mac = hmac.new(EXECUTOR_SECRET.encode(), body, hashlib.sha256).digest()
        text = base64.b64encode(mac).decode()
        forms = [f"sha256={mac.hex()}", mac.hex(), f"SHA256={mac.hex().upper()}", text, text.rstrip("="), f"sha256={text}",
                 text.replace("+", "-").replace("/", "_")]
        outcomes = [daemon.request("POST", "/webhooks/executors", body, {"x-signature-256": f}).outcome for f in forms]
        self.assertEqual(outcomes, ["stored"] + ["duplicate"] * (len(forms) - 1))

    def test_the_header_is_configurable(self):
        source = {**SOURCES["executors"], "header": "X-Hub-Signature-256"}
        daemon = self.start(sources={"executors": source})
        body = encode(execution())
        self.assertEqual(daemon.post_executor(body).status, 401)
        headers = sign_hmac(EXECUTOR_SECRET, body, "x-hub-signature-256")
        self.assert_outcome(daemon.request("POST", "/webhooks/executors", body, headers), "stored")

    def test_what_is_signed_but_no_event_is_quarantined_and_not_refused(self):
        daemon = self.start()
        for body in (b"", b"[]", b"not json", b'{"a":1}{"b":2}', b'{"a":1}\0', b'"text"', b'{"a":"\xff"}', b"{}"):
            self.assert_outcome(daemon.post_executor(body), "quarantined", repr(body))
        self.assertEqual(self.count("events"), 0)
        self.assertEqual(self.count("quarantine"), 8)


class StandardWebhooks(Case):
    def post(self, daemon, body, headers):
        return daemon.request("POST", "/webhooks/standard", body, headers)

    def test_signs_id_and_time_and_allows_five_minutes(self):
        daemon = self.start(sources={"standard": STANDARD})
        now = int(time.time())
        for age, outcome in ((0, "stored"), (-290, "stored"), (290, "stored"), (-310, 401), (310, 401), (-10**6, 401)):
            body = encode(event())
            answer = self.post(daemon, body, sign_standard(STANDARD_SECRET, body, timestamp=now + age))
            self.assert_outcome(answer, outcome, f"{age} s old")
        until(lambda: self.count("rejections") == 3, "the rejections to be kept")
        reasons = self.home.query("SELECT DISTINCT reason FROM rejections")
        self.assertEqual(reasons, [{"reason": "signature_expired"}])

    def test_several_signatures_may_be_given_and_one_must_match(self):
        daemon = self.start(sources={"standard": STANDARD})
        body = encode(event())
        good = sign_standard(STANDARD_SECRET, body)
        wrong = sign_standard(base64.b64encode(b"x" * 32).decode(), body)["webhook-signature"]
        value = good["webhook-signature"]
        self.assert_outcome(self.post(daemon, body, {**good, "webhook-signature": f"{wrong} v1a,AAAA {value}"}), "stored")
        for bad in (wrong, value.replace("v1,", "v2,"), value.replace("v1,", ""), "", "v1,"):
            self.assertEqual(self.post(daemon, body, {**good, "webhook-signature": bad}).status, 401, bad)

    def test_id_and_time_are_part_of_what_is_signed(self):
        daemon = self.start(sources={"standard": STANDARD})
        body = encode(event())
        good = sign_standard(STANDARD_SECRET, body)
        for change in ({"webhook-id": "msg_2"}, {"webhook-timestamp": str(int(good["webhook-timestamp"]) - 1)}):
            self.assertEqual(self.post(daemon, body, {**good, **change}).status, 401, change)
        for name in ("webhook-id", "webhook-timestamp"):
            self.assertEqual(self.post(daemon, body, {k: v for k, v in good.items() if k != name}).status, 401, name)
        self.assert_outcome(self.post(daemon, body, good), "stored")


class Rejections(Case):
    def test_are_kept_with_their_reason_and_never_with_more_than_was_sent(self):
        daemon = self.start()
        body = encode(event())
        daemon.request("POST", PATH, body)
        daemon.request("POST", PATH, body, {"e2b-signature": "nonsense"})
        daemon.post(body, "x" * 39, headers={"e2b-webhook-id": "hook-1", "e2b-delivery-id": "try-1"})
        until(lambda: self.count("rejections") == 3, "three rejections")
        rows = self.home.query("SELECT * FROM rejections ORDER BY id")
        self.assertEqual([r["reason"] for r in rows], ["signature_missing", "signature_malformed", "signature_wrong"])
        self.assertEqual({(r["source"], r["remote_addr"], r["payload_size"]) for r in rows}, {("e2b", "127.0.0.1", len(body))})
        self.assertEqual((rows[2]["webhook_id"], rows[2]["delivery_id"]), ("hook-1", "try-1"))
