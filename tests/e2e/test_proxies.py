"""Goal: the proxy examples of docs/proxies, as they stand, carry deliveries over TLS into the store: whole, once, under the
client's address, within the limits, and back again after the daemon was away. The real nginx and Caddy run as children on
loopback, with certificates of a CA made for the test; only ports, paths and, where a test says so, a timeout are exchanged.
"""
import atexit
import contextlib
import functools
import getpass
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import tempfile
import threading
import unittest

from harness import (ROOT, SECRET, SOURCES, Answer, Case, encode, event, exchange, parse_answers, read_to_end, sign_e2b,
                     until)

EXAMPLES = ROOT / "docs/proxies"
HOST = "hooks.example.com"
CLIENT = "127.0.0.2"  # not the proxy's address, so that the two can be told apart
PATH = "/webhooks/e2b"
SEARCH = os.environ.get("PATH", "") + ":/usr/sbin"  # where nginx is, and not in everybody's PATH
MAX_BODY = 1 << 20


@functools.cache
def authority():
    """A CA and the host's certificate: the paths of (CA, certificate, key)."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    (home / "names").write_text(f"subjectAltName=DNS:{HOST}\n")
    new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in ([*new, "-x509", "-subj", "/CN=test CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"],
                    [*new, "-subj", f"/CN={HOST}", "-keyout", "host.key", "-out", "host.csr"],
                    ["openssl", "x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
                     "-extfile", "names", "-out", "host.pem"]):
        subprocess.run(command, cwd=home, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return home / "ca.pem", home / "host.pem", home / "host.key"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def substitute(text, exchanges):
    """Each of (old, new) exactly once: the example cannot change without its test."""
    for old, new in exchanges:
        assert text.count(old) == 1, f"{text.count(old)} times in the example: {old!r}"
        text = text.replace(old, new)
    return text


class Proxy:
    """A proxy of its own in a directory of its own. start() returns when it takes connections."""
    program = None

    def __init__(self, upstream, exchanges=()):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="hookd-e2e-"))
        self.port = free_port()
        self.log_path = self.home / "log"
        self.write(upstream, exchanges)

    def start(self):
        environment = {**os.environ, "HOME": str(self.home), "XDG_DATA_HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home),
                       "PATH": SEARCH}
        with self.log_path.open("wb") as log:
            program, *arguments = self.command()
            self.process = subprocess.Popen([shutil.which(program, path=SEARCH), *arguments], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd=self.home, env=environment)

        def up():
            assert self.process.poll() is None, f"{self.program} ended:\n{self.log}"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        until(up, f"{self.program} to listen", 20)
        return self

    @property
    def log(self):
        return self.log_path.read_text(errors="backslashreplace")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)
        shutil.rmtree(self.home, ignore_errors=True)

    def socket(self, protocols=("http/1.1",)):
        context = ssl.create_default_context(cafile=authority()[0])
        context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30, source_address=(CLIENT, 0))
        return context.wrap_socket(plain, server_hostname=HOST)

    @contextlib.contextmanager
    def connection(self):
        connection = http.client.HTTPConnection(HOST, timeout=30)
        connection.sock = self.socket()
        with contextlib.closing(connection):
            yield connection

    def request(self, method, path, body=None, headers=None):
        with self.connection() as connection:
            return exchange(connection, method, path, body, headers)

    def post(self, body, connection=None, headers=None, secret=SECRET):
        body = encode(body)
        headers = {"content-type": "application/json", **sign_e2b(secret, body), **(headers or {})}
        if connection:
            return exchange(connection, "POST", PATH, body, headers)
        return self.request("POST", PATH, body, headers)


class Nginx(Proxy):
    program = "nginx"
    http_version = "1.1"
    read_timeout = ("proxy_read_timeout 10s;", "proxy_read_timeout 500ms;")

    def write(self, upstream, exchanges):
        _, certificate, key = authority()
        swap = [("    listen 443 ssl;\n", f"    listen 127.0.0.1:{self.port} ssl;\n"), ("    listen [::]:443 ssl;\n", ""),
                ("/etc/ssl/hooks.example.com/fullchain.pem", str(certificate)),
                ("/etc/ssl/hooks.example.com/privkey.pem", str(key))]
        if upstream.startswith("unix:"):
            swap += [("    server 127.0.0.1:8787 max_fails=0;\n    #server unix:", "    server unix:"),
                     ("unix:/run/e2b-hookd/hook.sock", upstream)]
        else:
            swap += [("127.0.0.1:8787", upstream)]
        example = substitute((EXAMPLES / "nginx.conf").read_text(), [*swap, *exchanges])
        (self.home / "e2b-hookd.conf").write_text(example)
        # What Debian's nginx.conf is around it, with every file in this directory.
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        temporary = "".join(f"    {name}_temp_path {self.home}/{name};\n"
                            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.home / "nginx.conf").write_text(
            f"{user}\nworker_processes 2;\npid {self.home}/pid;\ndaemon off;\nevents {{ worker_connections 256; }}\n"
            f"http {{\n{temporary}    access_log off;\n    include {self.home}/e2b-hookd.conf;\n}}\n")

    def command(self):
        return ["nginx", "-e", "stderr", "-p", str(self.home), "-c", str(self.home / "nginx.conf")]


class Caddy(Proxy):
    program = "caddy"
    http_version = "2"
    read_timeout = ("response_header_timeout 10s", "response_header_timeout 500ms")

    def write(self, upstream, exchanges):
        _, certificate, key = authority()
        swap = [(f"\n{HOST} {{\n", f"\nhttps://{HOST}:{self.port} {{\n\tbind 127.0.0.1\n"),
                ("\tauto_https disable_redirects\n", "\tauto_https disable_redirects\n\tadmin off\n"),
                ("#tls /etc/ssl/hooks.example.com/fullchain.pem /etc/ssl/hooks.example.com/privkey.pem",
                 f"tls {certificate} {key}")]
        if upstream.startswith("unix:"):
            swap += [("reverse_proxy 127.0.0.1:8787 {\n\t\t\t#to unix//run/e2b-hookd/hook.sock",
                      f"reverse_proxy {{\n\t\t\tto unix/{upstream[5:]}")]
        else:
            swap += [("127.0.0.1:8787", upstream)]
        example = substitute((EXAMPLES / "Caddyfile").read_text(), [*swap, *exchanges])
        (self.home / "Caddyfile").write_text(example)

    def command(self):
        return ["caddy", "run", "--config", str(self.home / "Caddyfile"), "--adapter", "caddyfile"]


def large_event(size):
    """An event whose body has exactly so many bytes."""
    body = event("created", {"sandbox_metadata": {"note": ""}})
    body["event_data"]["sandbox_metadata"]["note"] = "x" * (size - len(encode(body)))
    assert len(encode(body)) == size
    return body


def established(port):
    """Connections to a port of 127.0.0.1, as the side that opened them sees them."""
    wanted = f"0100007F:{port:04X}"
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2] == wanted and row[3] == "01" for row in rows)


class Through:
    """What holds through either proxy."""
    proxy_class = None

    def setUp(self):
        if not shutil.which(self.proxy_class.program, path=SEARCH):
            self.skipTest(f"{self.proxy_class.program} is not installed (apt-get install {self.proxy_class.program})")
        super().setUp()
        self.proxies = []

    def _clean(self):
        for proxy in getattr(self, "proxies", ()):
            proxy.stop()
        super()._clean()

    def behind(self, exchanges=(), **configuration):
        """A daemon that believes its proxy, and the proxy."""
        server = {"trusted_proxies": "127.0.0.1, ::1", **configuration.pop("server", {})}
        daemon = self.start(server=server, **configuration)
        proxy = self.proxy_class(daemon.address, exchanges).start()
        self.proxies.append(proxy)
        return daemon, proxy

    def assert_stored(self, answer, body):
        self.assertEqual((answer.status, answer.json), (200, {"status": "stored", "event_id": body["id"]}), self.proxies[0].log)
        self.assertEqual(self.home.value("SELECT payload FROM events WHERE event_id = ?", body["id"]), encode(body).decode())

    def test_a_signed_delivery_is_stored_and_a_repeat_is_a_duplicate(self):
        _, proxy = self.behind()
        body = event()
        self.assert_stored(proxy.post(body), body)
        self.assertEqual(proxy.post(body).outcome, "duplicate")
        answer = proxy.post(event(), secret="another secret of thirty-two chars")
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")

    def test_nothing_but_the_webhook_paths_and_health_is_reachable(self):
        _, proxy = self.behind()
        self.assertEqual(proxy.request("GET", "/healthz").body.strip(), b"ok")
        self.assertEqual(proxy.request("GET", PATH).status, 405)
        for path in ("/", "/metrics", "/readyz", "/livez", "/v1/events", "/webhooks/", "/webhooks/other", "/webhooks/e2b/x",
                     "/x/webhooks/e2b", "/webhooks/../metrics", "/webhooks/e2b/../../metrics", "/webhooks/%2e%2e/metrics", "/%6detrics"):
            for method in ("GET", "POST"):
                with self.subTest(f"{method} {path}"):
                    answer = proxy.request(method, path, b"" if method == "POST" else None)
                    self.assertEqual(answer.status, 404)
                    self.assertNotEqual(answer.headers.get("content-type"), "application/problem+json", "the daemon's answer")

    def test_a_rejection_names_the_client_and_believes_nothing_that_it_claims(self):
        _, proxy = self.behind()
        claims = [{}, {"X-Forwarded-For": "6.6.6.6"}, {"X-Forwarded-For": "6.6.6.6, 127.0.0.1"},
                  {"x-forwarded-for": "127.0.0.1"}, {"X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}]
        for claim in claims:
            self.assertEqual(proxy.post(event(), headers=claim, secret="another secret of thirty-two chars").status, 401)
        until(lambda: self.home.value("SELECT count(*) FROM rejections") == len(claims), "rejections to be kept")
        seen = [row["remote_addr"] for row in self.home.query("SELECT remote_addr FROM rejections")]
        self.assertEqual(seen, [CLIENT] * len(claims))

    def test_an_untrusted_proxy_is_the_sender(self):
        _, proxy = self.behind(server={"trusted_proxies": ""})
        self.assertEqual(proxy.post(event(), secret="another secret of thirty-two chars").status, 401)
        until(lambda: self.home.value("SELECT remote_addr FROM rejections") == "127.0.0.1", "the rejection to be kept")

    def test_over_a_unix_socket(self):
        path = self.home.path / "hook.sock"
        _, proxy = self.behind(server={"listen": f"unix:{path}", "unix_mode": "0660", "trusted_proxies": "unix"})
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        body = event()
        self.assert_stored(proxy.post(body), body)
        self.assertEqual(proxy.post(event(), headers={"X-Forwarded-For": "6.6.6.6"}, secret="a" * 32).status, 401)
        until(lambda: self.home.value("SELECT remote_addr FROM rejections") == CLIENT, "the rejection to be kept")

    def test_chunked_bodies_arrive_whole(self):
        _, proxy = self.behind()
        for size in (600, 70_000, MAX_BODY):
            body = large_event(size)
            raw = encode(body)
            with self.subTest(size), proxy.connection() as connection:
                connection.request("POST", PATH, iter([raw[:100], raw[100:101], raw[101:]]), sign_e2b(SECRET, raw),
                                   encode_chunked=True)
                response = connection.getresponse()
                self.assertEqual((response.status, json.load(response)["status"]), (200, "stored"))
                self.assertEqual(self.home.value("SELECT payload FROM events WHERE event_id = ?", body["id"]), raw.decode())

    def test_the_largest_body_is_stored_and_a_larger_one_is_413(self):
        _, proxy = self.behind()
        body = large_event(MAX_BODY)
        self.assert_stored(proxy.post(body), body)
        # A little too large: the daemon answers, each time, and keeps a record.
        for _ in range(10):
            self.assertEqual(proxy.post(large_event(MAX_BODY + 1)).status, 413, proxy.log)
        until(lambda: self.count("rejections", "reason = 'body_too_large'") == 10, "the records")
        self.assertEqual({row["remote_addr"] for row in self.home.query("SELECT remote_addr FROM rejections")}, {CLIENT})
        # Far too large: the proxy answers, before the body is sent.
        with proxy.connection() as connection:
            connection.putrequest("POST", PATH)
            connection.putheader("content-length", str(64 << 20))
            connection.endheaders()
            self.assertEqual(connection.getresponse().status, 413)
        self.assertEqual(self.count("rejections"), 10)
        self.assertEqual(self.count("events"), 1)

    def test_a_chunked_body_without_end_is_413(self):
        _, proxy = self.behind()
        block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with proxy.socket() as sock:
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                for _ in range(256):
                    sock.sendall(block)
            self.assertRegex(read_to_end(sock)[0], rb"^HTTP/1.1 413 ", proxy.log)
        self.assertEqual(self.count("events"), 0)

    def test_a_sender_that_prefers_http_2_is_understood(self):
        _, proxy = self.behind()
        for unsized in (False, True):
            body = event()
            raw = encode(body)
            command = ["curl", "--silent", "--show-error", "--http2", "--cacert", str(authority()[0]), "--max-time", "20",
                       "--resolve", f"{HOST}:{proxy.port}:127.0.0.1", "--data-binary", "@-", "--write-out", "\n%{http_version}",
                       "--header", f"e2b-signature: {sign_e2b(SECRET, raw)['e2b-signature']}", "--header", "Expect:"]
            command += ["--header", "Transfer-Encoding: chunked"] if unsized else []
            run = subprocess.run([*command, f"https://{HOST}:{proxy.port}{PATH}"], input=raw, capture_output=True, timeout=60)
            answer, _, version = run.stdout.decode().rpartition("\n")
            with self.subTest(unsized=unsized):
                self.assertEqual(json.loads(answer), {"status": "stored", "event_id": body["id"]}, run.stderr)
                self.assertEqual(version, proxy.http_version)

    def test_connections_to_the_daemon_are_kept(self):
        daemon, proxy = self.behind()
        with proxy.connection() as connection:
            for _ in range(20):
                self.assertEqual(proxy.post(event(), connection).outcome, "stored")
        # One a worker process of nginx at most. Without keep-alive none is left.
        self.assertIn(established(int(daemon.address.rpartition(":")[2])), (1, 2))

    def test_many_at_once_are_all_stored(self):
        _, proxy = self.behind()
        outcomes = []

        def send():
            with proxy.connection() as connection:
                for _ in range(10):
                    outcomes.append(proxy.post(event(), connection).outcome)
        threads = [threading.Thread(target=send) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(outcomes, ["stored"] * 160, proxy.log)
        self.assertEqual(self.count("events"), 160)

    def test_an_overloaded_daemon_s_answer_is_handed_on(self):
        _, proxy = self.behind(store={"commit_timeout": "100ms"})
        self.assertEqual(proxy.post(event()).outcome, "stored")
        with contextlib.closing(sqlite3.connect(self.home.db, isolation_level=None, timeout=10)) as db:
            db.execute("BEGIN IMMEDIATE")  # somebody holds the store
            answer = proxy.post(event())
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "10"))
        self.assertEqual(answer.headers["content-type"], "application/problem+json")

    def test_a_daemon_that_is_down_is_502_and_back_on_the_same_connections(self):
        daemon, proxy = self.behind()
        address = daemon.address
        with proxy.connection() as connection:
            self.assertEqual(proxy.post(event(), connection).outcome, "stored")
            self.stop(daemon)
            body = event()
            answer = proxy.post(body, connection)
            self.assertEqual((answer.status, answer.headers.get("retry-after")), (502, "10"), proxy.log)
            daemon = self.start(server={"listen": address, "trusted_proxies": "127.0.0.1"})
            self.assert_stored(proxy.post(body, connection), body)

    def test_a_restart_between_two_deliveries_is_not_noticed(self):
        daemon, proxy = self.behind()
        address = daemon.address
        with proxy.connection() as connection:
            self.assertEqual(proxy.post(event(), connection).outcome, "stored")
            for _ in range(3):
                self.stop(daemon)
                daemon = self.start(server={"listen": address, "trusted_proxies": "127.0.0.1"})
                self.assertEqual(proxy.post(event(), connection).outcome, "stored", proxy.log)

    def test_a_daemon_that_hangs_is_504_and_what_it_was_given_is_stored_once(self):
        daemon, proxy = self.behind(exchanges=[self.proxy_class.read_timeout])
        body = event()
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            answer = proxy.post(body)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        self.assertEqual((answer.status, answer.headers.get("retry-after")), (504, "10"), proxy.log)
        self.assertIn(until(lambda: proxy.post(body), "an answer").outcome, ("stored", "duplicate"))
        self.assertEqual(self.count("events"), 1)

    def test_no_request_is_smuggled_past_the_proxy(self):
        """Whatever the framing: nothing is stored but what the client got an answer for, in order, and the next client's
        delivery over the same connections is its own."""
        _, proxy = self.behind()
        for name, make in SHAPES.items():
            with self.subTest(name):
                first, second = event(), event()
                with proxy.socket() as sock:
                    sock.settimeout(3)
                    with contextlib.suppress(OSError):
                        sock.sendall(make(encode(first), request(encode(second), "Connection: close")))
                    answers = answers_in(read_to_end(sock)[0])
                answered = {a.json["event_id"] for a in answers if a.status == 200}
                stored = {row["event_id"] for row in self.home.query(
                    "SELECT event_id FROM events WHERE event_id IN (?, ?)", first["id"], second["id"])}
                self.assertEqual(stored, answered, answers)
                if name in REFUSED:
                    self.assertEqual(stored, set())
                    self.assertIn([a.status for a in answers], ([400], [501]))
                after = event()
                self.assert_stored(proxy.post(after), after)


def answers_in(data):
    """The same as parse_answers; what Go refuses ends with the connection and has no length."""
    last = data.rfind(b"HTTP/1.1 ")
    head, _, body = data[last:].partition(b"\r\n\r\n")
    if b"content-length:" in head.lower() or not data:
        return parse_answers(data)
    return parse_answers(data[:last]) + [Answer(int(head.split()[1]), {}, body)]


def request(body, *lines, length=True):
    """A delivery as bytes, with more header lines."""
    head = [f"POST {PATH} HTTP/1.1", f"Host: {HOST}", f"e2b-signature: {sign_e2b(SECRET, body)['e2b-signature']}"]
    head += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*head, *lines, "", ""]).encode() + body


def chunked(body, end=b"0\r\n\r\n", size=None):
    return (size or f"{len(body):x}".encode()) + b"\r\n" + body + b"\r\n" + end


def with_chunks(*lines, length=False, **form):
    """The first delivery chunked under these header lines, the second right behind it."""
    def make(first, second):
        signed = request(first, *lines, length=length)
        return signed[:-len(first)] + chunked(first, **form) + second
    return make


SHAPES = {
    "two lengths": lambda a, b: request(a, f"Content-Length: {len(a) + len(b)}") + b,
    "two equal lengths": lambda a, b: request(a, f"Content-Length: {len(a)}") + b,
    "a list of lengths": lambda a, b: request(a, f"Content-Length: {len(a)}, {len(a) + len(b)}", length=False) + b,
    "a signed length": lambda a, b: request(a, f"Content-Length: +{len(a)}", length=False) + b,
    "a length and chunks": with_chunks("Transfer-Encoding: chunked", length=True),
    "chunks, then another coding": with_chunks("Transfer-Encoding: chunked, identity"),
    "chunked twice": with_chunks("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "an unknown coding": with_chunks("Transfer-Encoding: xchunked", length=True),
    "a tab in the coding": with_chunks("Transfer-Encoding:\tchunked", length=True),
    "a space before the colon": with_chunks("Transfer-Encoding : chunked", length=True),
    "a folded coding": with_chunks("Transfer-Encoding:\r\n chunked", length=True),
    "a vertical tab in the coding": with_chunks("Transfer-Encoding: \x0bchunked", length=True),
    "a chunk size with a sign": with_chunks("Transfer-Encoding: chunked", size=b"+5"),
    "a chunk size of 65 bits": with_chunks("Transfer-Encoding: chunked", size=b"10000000000000005"),
    "a chunk with an extension": lambda a, b: with_chunks(
        "Transfer-Encoding: chunked", size=f"{len(a):x};a=b".encode())(a, b),
    "a trailer": with_chunks("Transfer-Encoding: chunked", end=b"0\r\nContent-Length: 9\r\n\r\n"),
    "a bare line feed": lambda a, b: request(a, "X-A: b\nTransfer-Encoding: chunked") + b,
    "a NUL in a header": lambda a, b: request(a, "X-A: b\0c") + b,
    "two hosts": lambda a, b: request(a, "Host: other.example") + b,
    "no host": lambda a, b: request(a).replace(f"Host: {HOST}\r\n".encode(), b"") + b,
    "no length": lambda a, b: request(a, length=False) + b,
    "a length that ends early": lambda a, b: request(a, f"Content-Length: {len(a) - 1}", length=False) + b,
    "a length that takes the next in": lambda a, b: request(a, f"Content-Length: {len(a) + len(b)}", length=False) + b,
    "two signatures": lambda a, b: request(a, "e2b-signature: " + "A" * 43) + b,
    "pipelined": lambda a, b: request(a) + b,
}
# What both proxies and the daemon refuse, whoever sees it first; the rest they may put into one clear form.
REFUSED = {"two lengths", "a list of lengths", "a signed length", "chunks, then another coding", "chunked twice"}


class ThroughNginx(Through, Case):
    proxy_class = Nginx


class ThroughCaddy(Through, Case):
    proxy_class = Caddy


class Examples(unittest.TestCase):
    def test_the_examples_name_the_same_paths_and_limits_as_the_page_and_the_defaults(self):
        nginx, caddy = ((EXAMPLES / name).read_text() for name in ("nginx.conf", "Caddyfile"))
        paths = {source["path"] for source in SOURCES.values()} | {"/healthz"}
        self.assertEqual(set(re.findall(r"location = (\S+)", nginx)), paths)
        inner = re.search(r"path_regexp \^/\((\S+)\)\$", caddy).group(1)
        self.assertEqual({f"/{path}" for path in inner.split("|")}, paths)
        for path in paths - {"/healthz"}:
            self.assertIn(f"path = {path}\n", (ROOT / "config.example.ini").read_text())

    @unittest.skipUnless(shutil.which("caddy"), "caddy is not installed")
    def test_the_caddyfile_is_formatted_as_caddy_does(self):
        run = subprocess.run(["caddy", "fmt", str(EXAMPLES / "Caddyfile")], capture_output=True, text=True, timeout=30)
        self.assertEqual(run.stdout, (EXAMPLES / "Caddyfile").read_text())
