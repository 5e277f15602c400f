"""Goal: a notification reaches real receivers whole and once for each time it is sent, is refused by none for its form, proves
where it comes from, and no receiver, however slow, large, hostile or dead, holds the sender longer than it was given or gets
a secret into a message. send_alert (tests/e2e) is the transport with a command line.
"""
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import unittest

from harness import HOOKD, ROOT, SANITIZED, sign_standard, until

SEND = pathlib.Path(HOOKD).resolve().parents[1] / "tests/e2e/send_alert"
ENVIRONMENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
HOSTILE = {
    "markup": "<!channel> <https://evil.example|ok> & </script> `code` *bold* @here",
    "control": "a\x01b\x1b[31m\nFAKE LINE\r\tc\x7f",
    "quotes": "\"'\\\" \\u0000 \\",
    "direction": "\u202eevil\u202c \u2066x\u2069 \u2028line",
    "wide": "\U0001f600" * 3000,
    "escapes": "&" * 5000,
    "no utf-8": b"\xff\xfe\xc0\xaf\xed\xa0\x80 ok \xe2\x82",
    "large": "e" * 120_000,
    "empty": "",
}
STATES = ["firing", "repeat", "resolved", "summary", "test"]


def run(*arguments, environment=None, wrapper=(), pass_fds=(), seconds=30):
    result = subprocess.run([*wrapper, SEND, *arguments], capture_output=True, timeout=seconds, pass_fds=pass_fds,
                            env={**ENVIRONMENT, **(environment or {})})
    assert result.returncode == 0, result.stderr.decode(errors="replace")
    assert not result.stderr, result.stderr.decode(errors="replace")
    return result.stdout


class Sent:
    def __init__(self, line):
        self.outcome, retry_after, took, self.reason = line.decode("ascii").rstrip("\n").split(" ", 3)
        self.retry_after, self.took = int(retry_after) / 1000, int(took) / 1000

    def __repr__(self):
        return f"{self.outcome} {self.retry_after} {self.took} {self.reason}"


def send(*arguments, **options):
    return Sent(run(*arguments, **options))


def render(kind, *options):
    return json.loads(run("render", kind, *options))


class Receiver:
    """A real HTTP server that answers as it is told and keeps what it got."""

    def __init__(self, answer=(200, {}, b"ok"), context=None):
        receiver = self
        self.requests, self.answer = [], answer

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                answer = receiver.answer
                status, headers, text = answer(self.path, self.headers, body) if callable(answer) else answer
                self.send_response(status)
                for name, value in {"content-length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(text)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class RawReceiver:
    """Accepts one connection, sends the pieces with a pause before each, and keeps it open."""

    def __init__(self, pieces, pause=0.0):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._serve, args=(pieces, pause), daemon=True)
        self.thread.start()

    def _serve(self, pieces, pause):
        with contextlib.suppress(OSError):
            connection, _ = self.socket.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    if self.over.wait(pause):
                        return
                    connection.sendall(piece)
                self.over.wait(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


class Temporary(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def write(self, name, text, mode=0o600):
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)


class TestOutcomes(Temporary):
    def test_alertmanagers_path_is_completed_once(self):
        with Receiver() as receiver:
            for given in ["", "/", "/api/v2/alerts", "/api/v2/alerts/", "/prefix"]:
                self.assertEqual(send("alertmanager", receiver.url + given).outcome, "sent")
            self.assertEqual([path for path, _, _ in receiver.requests],
                             ["/api/v2/alerts"] * 4 + ["/prefix/api/v2/alerts"])

    def test_an_answer_decides_whether_it_is_tried_again(self):
        cases = {200: "sent", 202: "sent", 204: "sent", 299: "sent", 301: "temporary", 307: "temporary", 400: "permanent",
                 401: "temporary", 403: "temporary", 404: "temporary", 410: "temporary", 413: "permanent", 422: "permanent",
                 408: "temporary",
                 425: "temporary", 429: "temporary", 500: "temporary", 502: "temporary", 503: "temporary", 504: "temporary"}
        with Receiver() as receiver:
            for status, outcome in cases.items():
                with self.subTest(status=status):
                    receiver.answer = (status, {"location": receiver.url + "/elsewhere"}, b"")
                    result = send("webhook", receiver.url + "/services/s3cr3t?token=s3cr3t")
                    self.assertEqual(result.outcome, outcome)
                    self.assertNotIn("s3cr3t", result.reason)
                    if outcome != "sent":
                        self.assertIn(f"{receiver.url} answered {status}", result.reason)
            self.assertEqual(len(receiver.requests), len(cases), "a redirect was followed, or something was sent twice")

    def test_retry_after_is_honoured_within_bounds(self):
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120))
        cases = {"7": (7, 7), later: (100, 121), "999999999": (3600, 3600), "soon": (0, 0), "-5": (0, 0)}
        with Receiver() as receiver:
            for value, (least, most) in cases.items():
                with self.subTest(value=value):
                    receiver.answer = (429, {"retry-after": value}, b"")
                    result = send("slack", receiver.url)
                    self.assertEqual(result.outcome, "temporary")
                    self.assertTrue(least <= result.retry_after <= most, result)

    def test_a_dead_target_is_temporary_and_said_without_its_path(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            result = send("slack", f"http://user:s3cr3t@127.0.0.1:{port}/services/s3cr3t")
        self.assertEqual(result.outcome, "temporary")
        self.assertEqual(result.reason, f"http://127.0.0.1:{port}: Connection refused")
        result = send("slack", "http://no-such-host.invalid/services/s3cr3t")
        self.assertEqual((result.outcome, result.reason),
                         ("temporary", "http://no-such-host.invalid: no address for this name"))

    def test_only_http_and_https_are_called(self):
        for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:1/x", "127.0.0.1:80", "http://", "",
                    "http://127.0.0.1/a b", "http://127.0.0.1/\n", "unix:/tmp/x", "http://127.0.0.1:99999/"]:
            with self.subTest(url=url):
                result = send("webhook", url)
                self.assertEqual(result.outcome, "permanent", result)

    def test_a_hanging_or_dripping_target_is_left_in_time(self):
        drip = [b"HTTP/1.1 "] + [b"x"] * 200
        for name, pieces, pause in [("silent", [], 0), ("dripping", drip, 0.05),
                                    ("interim for ever", [b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 400, 0.02)]:
            with self.subTest(name), RawReceiver(pieces, pause) as receiver:
                result = send("webhook", receiver.url, "timeout=700")
                self.assertEqual(result.outcome, "temporary", result)
                self.assertLess(result.took, 1.5 * (3 if SANITIZED else 1))

    def test_a_large_or_endless_answer_is_cut(self):
        with Receiver((200, {}, b"x" * 50_000_000)) as receiver:
            result = send("webhook", receiver.url)
            self.assertEqual(result.outcome, "sent")
            self.assertLess(result.took, 2)
        endless = [b"HTTP/1.1 200 OK\r\n"] + [b"x-filler: " + b"y" * 4000 + b"\r\n"] * 2000
        with RawReceiver(endless) as receiver:
            result = send("webhook", receiver.url, "timeout=3000")
            self.assertEqual(result.outcome, "sent")
            self.assertLess(result.took, 2)
        with RawReceiver([b"220 mail.example.org ESMTP\r\n"]) as receiver:
            self.assertEqual(send("webhook", receiver.url, "timeout=1000").outcome, "temporary")

    def test_a_shutdown_does_not_wait(self):
        with RawReceiver([]) as receiver:
            result = send("webhook", receiver.url, "timeout=20000", "stop=300")
        self.assertEqual(result.outcome, "temporary")
        self.assertLess(result.took, 0.5 * (2 if SANITIZED else 1))
        self.assertIn("stopped", result.reason)

    def test_a_proxy_of_the_environment_is_not_used(self):
        with Receiver() as receiver, Receiver() as proxy:
            result = send("webhook", receiver.url, environment={"http_proxy": proxy.url, "ALL_PROXY": proxy.url})
            self.assertEqual((result.outcome, len(receiver.requests), len(proxy.requests)), ("sent", 1, 0))


class TestTls(Temporary):
    def setUp(self):
        super().setUp()
        self.key, self.certificate = str(self.folder / "key.pem"), str(self.folder / "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-keyout", self.key, "-out", self.certificate], check=True, capture_output=True)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, self.key)

    def test_an_unknown_certificate_is_refused(self):
        with Receiver(context=self.context) as receiver:
            result = send("slack", f"https://localhost:{receiver.port}/services/s3cr3t")
            self.assertEqual((result.outcome, receiver.requests), ("temporary", []))
            self.assertIn("certificate is not trusted", result.reason)
            self.assertNotIn("s3cr3t", result.reason)

    def test_a_known_certificate_is_accepted_for_its_name_only(self):
        """The system's store, replaced in a mount namespace of the program's own."""
        trusting = ["unshare", "-m", "sh", "-c",
                    f'mount --bind {self.certificate} /etc/ssl/certs/ca-certificates.crt && exec "$@"', "sh"]
        probe = subprocess.run([*trusting, "true"], capture_output=True, text=True)
        if probe.returncode != 0:
            self.skipTest(f"cannot replace the system's certificates for one program: {probe.stderr.strip()}")
        with Receiver(context=self.context) as receiver:
            result = send("webhook", f"https://localhost:{receiver.port}/", wrapper=trusting)
            self.assertEqual((result.outcome, len(receiver.requests)), ("sent", 1), result)
            result = send("webhook", f"https://127.0.0.1:{receiver.port}/", wrapper=trusting)
            self.assertEqual((result.outcome, len(receiver.requests)), ("temporary", 1), result)
            self.assertIn("no alternative certificate subject name", result.reason)


class TestWebhook(Temporary):
    def test_the_document_of_the_manual_is_what_is_sent(self):
        page = (ROOT / "docs/alert-webhook.md").read_text()
        example = json.loads(re.search(r"```json\n(.*?)```", page, re.DOTALL).group(1))
        with Receiver() as receiver:
            self.assertEqual(send("webhook", receiver.url + "/e2b?x=1").outcome, "sent")
        path, headers, body = receiver.requests[0]
        self.assertEqual((json.loads(body), path, headers["Content-Type"]), (example, "/e2b?x=1", "application/json"))

    def test_every_state_and_hostile_text_keeps_to_the_schema(self):
        try:
            import jsonschema
        except ImportError:
            self.skipTest("no python3-jsonschema")
        schema = json.loads((ROOT / "docs/alert-webhook.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for state in STATES:
            validator.validate(render("webhook", f"state={state}", "ends=1763805700000", "value=0.25"))
        for name, text in HOSTILE.items():
            with self.subTest(name):
                text = text if isinstance(text, bytes) else text.encode()
                fields = [key + text for key in (b"error=", b"summary=", b"template=", b"query=", b"instance=")]
                fields += [key + (text or b"x") for key in (b"rule=", b"severity=", b"id=")]
                validator.validate(render("webhook", *fields, "samples=8"))
        broken = render("webhook")
        broken["data"]["count"] = "3"
        self.assertFalse(validator.is_valid(broken))

    def test_standard_webhooks_own_library_verifies_it(self):
        if not shutil.which("npm"):
            self.skipTest("no npm")
        made = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", self.folder, "standardwebhooks@1"],
                              capture_output=True, text=True, timeout=120)
        if made.returncode != 0:
            self.skipTest(f"npm cannot install standardwebhooks: {made.stderr.strip()[-200:]}")
        old, new = "whsec_" + "b2xk" * 8, "whsec_" + "bmV3" * 8
        secrets = self.write("secrets", f"{old}\n{new}\n")
        with Receiver() as receiver:
            for text in ["plain", HOSTILE["markup"], HOSTILE["wide"]]:
                self.assertEqual(send("webhook", receiver.url, f"secrets={secrets}", f"error={text}").outcome, "sent")
        verify = self.write("verify.js", """
            const { Webhook } = require("standardwebhooks");
            const { requests, secrets, wrong } = JSON.parse(require("fs").readFileSync(0));
            const verdict = (secret, body, headers) => {
                try { return new Webhook(secret).verify(body, headers).type; } catch (e) { return e.message; }
            };
            console.log(JSON.stringify(requests.flatMap(([headers, body]) => [
                ...secrets.map(s => verdict(s, body, headers)), verdict(wrong, body, headers),
                verdict(secrets[0], body + " ", headers), verdict(secrets[0], body, {...headers, "webhook-id": "other"})])));
            """)
        given = {"requests": [({k.lower(): v for k, v in headers.items()}, body.decode())
                              for _, headers, body in receiver.requests],
                 "secrets": [old, new], "wrong": "whsec_" + "eHh4" * 8}
        result = subprocess.run(["node", verify], input=json.dumps(given), capture_output=True, text=True, timeout=30,
                                cwd=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        refused = "No matching signature found"
        self.assertEqual(json.loads(result.stdout), ["alert.firing"] * 2 + [refused] * 3
                         + ["alert.firing"] * 2 + [refused] * 3 + ["alert.firing"] * 2 + [refused] * 3)

    def test_the_id_stays_over_retries_and_the_signature_is_of_the_attempt(self):
        secrets = self.write("secrets", "whsec_c2VjcmV0LW9mLWEtdGVzdC0wMTIzNDU2Nzg5\n")
        with Receiver((503, {}, b"")) as receiver:
            self.assertEqual(send("webhook", receiver.url, f"secrets={secrets}").outcome, "temporary")
            receiver.answer = (200, {}, b"")
            self.assertEqual(send("webhook", receiver.url, f"secrets={secrets}").outcome, "sent")
        (_, first, body), (_, second, again) = receiver.requests
        self.assertEqual((first["webhook-id"], body), (second["webhook-id"], again))
        for headers in (first, second):
            self.assertLess(abs(int(headers["webhook-timestamp"]) - time.time()), 60)
            self.assertEqual(headers["webhook-signature"], sign_standard(
                "whsec_c2VjcmV0LW9mLWEtdGVzdC0wMTIzNDU2Nzg5", body, headers["webhook-id"],
                headers["webhook-timestamp"])["webhook-signature"])

    def test_an_id_that_could_forge_a_header_or_a_signature_is_not_sent(self):
        secrets = self.write("secrets", "whsec_c2VjcmV0LW9mLWEtdGVzdC0wMTIzNDU2Nzg5\n")
        with Receiver() as receiver:
            self.assertEqual(send("webhook", receiver.url, "id=a.b", f"secrets={secrets}").outcome, "permanent")
            self.assertEqual(send("webhook", receiver.url, "id=a\r\nx: y").outcome, "permanent")
            self.assertEqual(receiver.requests, [])


# Slack ---------------------------------------------------------------------------------------------

def units(text):
    return len(text.encode("utf-16-le")) // 2


def slack_refuses(payload):
    """What Slack's reference says about a message of an incoming webhook, the limits of Block Kit; None: it takes it."""
    def text_object(o, kinds, most):
        if o.get("type") not in kinds or not isinstance(o.get("text"), str):
            return "no text object"
        if set(o) - {"type", "text", "emoji" if o["type"] == "plain_text" else "verbatim"}:
            return "a key that is not known"
        return None if 1 <= units(o["text"]) <= most else f"text of {units(o['text'])} of {most}"

    if set(payload) - {"text", "blocks", "unfurl_links", "unfurl_media"} or not 1 <= units(payload["text"]) <= 40_000:
        return "invalid_payload"
    if not 1 <= len(payload["blocks"]) <= 50:
        return "invalid_blocks"
    for block in payload["blocks"]:
        kind = block["type"]
        if kind == "header":
            bad = text_object(block["text"], ["plain_text"], 150)
        elif kind == "section":
            bad = text_object(block["text"], ["mrkdwn", "plain_text"], 3000)
        elif kind == "context":
            bad = None if 1 <= len(block["elements"]) <= 10 else "elements"
            for element in block["elements"]:
                bad = bad or text_object(element, ["mrkdwn", "plain_text"], 3000)
        else:
            bad = "type"
        if bad:
            return f"{kind}: {bad}"
    return None


class TestSlack(unittest.TestCase):
    def take(self, _path, headers, body):
        self.bad = "content type" if headers["content-type"] != "application/json" else slack_refuses(json.loads(body))
        return (400, {}, b"invalid_blocks") if self.bad else (200, {}, b"ok")

    def test_slack_takes_every_state_and_hostile_text(self):
        with Receiver(self.take) as receiver:
            for state in STATES:
                result = send("slack", receiver.url, f"state={state}", "value=0.251", "ends=1763805700000", "template=")
                self.assertEqual((result.outcome, self.bad), ("sent", None), state)
            for name, text in HOSTILE.items():
                with self.subTest(name):
                    text = text if isinstance(text, bytes) else text.encode()
                    fields = [key + text for key in (b"error=", b"summary=", b"template=", b"rule=", b"severity=",
                                                     b"query=", b"instance=")]
                    result = send("slack", receiver.url, *fields, "samples=8", "count=10000", "total=10000")
                    self.assertEqual((result.outcome, self.bad), ("sent", None))
        self.assertEqual(slack_refuses({"text": "x", "blocks": [{"type": "header", "text": {
            "type": "plain_text", "text": "x" * 151}}]}), "header: text of 151 of 150")

    def test_an_error_text_mentions_nobody_and_links_nowhere(self):
        for name in ["markup", "control", "direction"]:
            payload = render("slack", f"error={HOSTILE[name]}", f"summary={HOSTILE[name]}", f"query={HOSTILE[name]}")
            texts = [payload["text"]] + [b["text"]["text"] for b in payload["blocks"] if b["type"] == "section"]
            texts += [e["text"] for b in payload["blocks"] if b["type"] == "context" for e in b["elements"]]
            for text in texts:
                self.assertNotRegex(text, "[<>]|&(?!amp;|lt;|gt;)")
                self.assertNotRegex(text, "[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2028\u2066-\u2069]")
            self.assertNotIn("\nFAKE", "".join(texts))
            for block in payload["blocks"]:
                if block["type"] == "section":
                    self.assertTrue(block["text"]["verbatim"])

    def test_slacks_word_for_an_error_is_told_and_nothing_else(self):
        with Receiver((404, {}, b"no_service")) as receiver:
            result = send("slack", receiver.url + "/services/s3cr3t")
            self.assertEqual((result.outcome, result.reason), ("temporary", f"{receiver.url} answered 404: no_service"))
            receiver.answer = (403, {}, b"sesame")
            self.assertNotIn("sesame", send("slack", receiver.url + "/services/sesame").reason)
            receiver.answer = (403, {}, b"<b>body\n")
            self.assertNotIn("body", send("slack", receiver.url).reason)


# Alertmanager --------------------------------------------------------------------------------------

def alertmanager_binary(folder):
    """The program of the system, or that of Debian's package, unpacked and not installed (installing would start it)."""
    found = shutil.which("prometheus-alertmanager")
    if found:
        return found
    for command in (["apt-get", "download", "prometheus-alertmanager"], ["sh", "-c", "dpkg-deb -x *.deb ."]):
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError):
            return None
    return str(folder / "usr/bin/prometheus-alertmanager")


class TestAlertmanager(Temporary):
    CONFIG = "route:\n  receiver: default\n  group_by: [alertname, template]\nreceivers:\n  - name: default\n"

    def setUp(self):
        super().setUp()
        binary = alertmanager_binary(self.folder)
        if not binary:
            self.skipTest("no prometheus-alertmanager, and apt-get cannot download it")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = open(self.folder / "log", "wb")
        self.addCleanup(self.log.close)
        self.process = subprocess.Popen(
            [binary, f"--config.file={self.write('am.yml', self.CONFIG)}", f"--storage.path={self.folder}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="],
            stdout=self.log, stderr=self.log)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.terminate)
        until(self.is_ready, "Alertmanager is ready", 20)

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_ready(self):
        self.assertIsNone(self.process.poll(), (self.folder / "log").read_text())
        with contextlib.suppress(OSError):
            return self.get("/-/ready")[0] == 200

    def alerts(self):
        return json.loads(self.get("/api/v2/alerts")[1])

    def shown(self, **labels):
        return [a for a in self.alerts() if labels.items() <= a["labels"].items()]

    def test_the_real_alertmanager_shows_an_alert_until_it_is_resolved(self):
        now = int(time.time() * 1000)
        times = [f"starts={now - 60_000}", f"made={now}"]
        self.assertEqual(send("alertmanager", self.url, *times, "error=boom & <b>").outcome, "sent")
        alert, = until(self.alerts, "the alert is shown")
        self.assertEqual(alert["labels"], {"alertname": "E2bExecutionFailed", "job": "e2b-hookd", "rule": "failures",
                                           "instance": "hookd.example.org", "severity": "warning",
                                           "template": "tta-ml-minimal"})
        self.assertEqual(alert["annotations"]["summary"], "1 execution failed in tta-ml-minimal")
        self.assertIn("boom & <b>", alert["annotations"]["description"])
        self.assertEqual(alert["status"]["state"] in ("active", "unprocessed"), True, alert)
        self.assertGreater(alert["endsAt"], alert["updatedAt"])

        self.assertEqual(send("alertmanager", self.url + "/", "state=repeat", *times, "count=9").outcome, "sent")
        self.assertEqual(until(lambda: [a for a in self.alerts() if a["annotations"]["count"] == "9"], "it was renewed",
                               10)[0]["fingerprint"], alert["fingerprint"])
        self.assertEqual(len(self.alerts()), 1)

        # A test and a summary of the same rule neither renew nor end it.
        for state in ("test", "summary"):
            self.assertEqual(send("alertmanager", self.url + "/api/v2/alerts", f"state={state}", *times).outcome, "sent")
            until(lambda: self.shown(notice=state), f"the {state} is shown")
        self.assertEqual(len(self.alerts()), 3)

        self.assertEqual(send("alertmanager", self.url, "state=resolved", *times, f"ends={now - 1000}").outcome, "sent")
        until(lambda: not [a for a in self.alerts() if "notice" not in a["labels"]], "it is gone")

    def test_the_example_of_the_manual_is_a_configuration(self):
        if not shutil.which("amtool"):
            self.skipTest("no amtool")
        page = (ROOT / "docs/alerts.md").read_text()
        example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL).group(1)
        checked = subprocess.run(["amtool", "check-config", self.write("example.yml", example)], capture_output=True, text=True)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        routed = subprocess.run(["amtool", "config", "routes", "test", f"--config.file={self.folder}/example.yml",
                                 "job=e2b-hookd", "severity=critical"], capture_output=True, text=True)
        self.assertEqual(routed.stdout.strip(), "pager", routed.stderr)

    def test_the_real_alertmanager_takes_hostile_text(self):
        now = int(time.time() * 1000)
        for number, (name, text) in enumerate(HOSTILE.items()):
            with self.subTest(name):
                text = text if isinstance(text, bytes) else text.encode()
                fields = [key + text for key in (b"error=", b"summary=", b"template=", b"severity=", b"query=",
                                                 b"instance=")]
                result = send("alertmanager", self.url, *fields, f"rule=r{number}", "samples=8", f"made={now}",
                              f"starts={now}")
                self.assertEqual(result.outcome, "sent", result)
                until(lambda: self.shown(rule=f"r{number}"), "it is shown")


# Command -------------------------------------------------------------------------------------------

class TestCommand(Temporary):
    def script(self, text):
        return self.write("command", "#!/bin/sh\n" + text, 0o755)

    def test_a_command_gets_the_document_and_nothing_of_ours(self):
        command = self.script(f"""exec >{self.folder}/seen 2>&1
            cat; echo; env | sort; echo "$# $PWD"; ls /proc/self/fd | wc -l
            [ "$(awk '{{ print $5 }}' /proc/$$/stat)" = $$ ] && echo own group
            """)
        with open("/etc/passwd") as inherited:
            result = send("command", command, environment={"HOOKD_SECRET": "s3cr3t"}, pass_fds=[inherited.fileno()])
        self.assertEqual(result.outcome, "sent", result)
        document, *lines = (self.folder / "seen").read_text().splitlines()
        self.assertEqual(json.loads(document), render("webhook"))
        self.assertEqual(lines[:5], ["LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                     "PWD=/", "0 /", "4"])  # 0, 1, 2 and that of ls itself
        self.assertEqual(lines[5:], ["own group"])

    def test_a_command_begins_with_no_signal_blocked_or_ignored(self):
        seen = self.folder / "seen"
        command = self.write("command", f"""#!/usr/bin/awk -f
            BEGIN {{ while ((getline line <"/proc/self/status") > 0) if (line ~ /^Sig(Blk|Ign)/) print line >"{seen}" }}
            """, 0o755)  # a shell would clear what it inherits
        result = send("command", command, wrapper=["env", "--ignore-signal=HUP", "--block-signal=USR1"])
        self.assertEqual(result.outcome, "sent", result)
        # 32 and 33 are libc's own; programs cannot use them.
        self.assertEqual([int(line.split()[1], 16) & ~(3 << 31) for line in seen.read_text().splitlines()], [0, 0])

    def test_an_exit_code_decides_whether_it_is_tried_again(self):
        for code, outcome in {0: "sent", 1: "temporary", 65: "permanent", 75: "temporary", 127: "temporary"}.items():
            with self.subTest(code=code):
                self.assertEqual(send("command", self.script(f"exit {code}\n")).outcome, outcome)
        result = send("command", self.script("kill -SEGV $$\n"))
        self.assertEqual(result.outcome, "temporary")
        self.assertIn("SIGSEGV", result.reason)
        result = send("command", str(self.folder / "missing"))
        self.assertEqual(result.outcome, "temporary")
        self.assertIn("No such file", result.reason)

    def test_no_shell_sees_the_command(self):
        command = self.write("a b; touch x", f"#!/bin/sh\ncat >'{self.folder}/seen'\n", 0o755)
        self.assertEqual(send("command", command).outcome, "sent")
        self.assertTrue((self.folder / "seen").exists())

    def test_a_command_that_hangs_is_ended_with_its_children(self):
        command = self.script(f"""trap '' TERM
            sh -c 'trap "" TERM; while :; do sleep 1; done' &
            echo "$$ $!" >{self.folder}/pids
            while :; do sleep 1; done
            """)
        result = send("command", command, "timeout=500")
        self.assertEqual(result.outcome, "temporary", result)
        self.assertLess(result.took, 3)
        for pid in (self.folder / "pids").read_text().split():
            until(lambda: is_gone(pid), f"{pid} is ended")

    def test_what_a_command_leaves_running_is_ended(self):
        command = self.script(f"(while :; do sleep 1; done) & echo $! >{self.folder}/pids; exit 0\n")
        result = send("command", command)
        self.assertEqual(result.outcome, "sent", result)
        self.assertLess(result.took, 2, "it waited for the end of the output")
        until(lambda: is_gone((self.folder / "pids").read_text().strip()), "the rest is ended")

    def test_a_shutdown_does_not_wait_for_a_command(self):
        result = send("command", self.script("trap '' TERM; while :; do sleep 1; done\n"), "timeout=20000", "stop=300")
        self.assertEqual(result.outcome, "temporary")
        self.assertLess(result.took, 0.55 * (2 if SANITIZED else 1))

    def test_a_command_may_print_without_end_or_not_read_at_all(self):
        result = send("command", self.script("yes\n"), "timeout=500")
        self.assertEqual(result.outcome, "temporary")
        self.assertLess(result.took, 3)
        result = send("command", self.script("exec <&-; head -c 3000000 /dev/zero; exit 0\n"), "error=" + "e" * 100_000)
        self.assertEqual(result.outcome, "sent", result)


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
