"""Goal: the hook listener answers every row of CONTRACT.md 3 as written, over real sockets, however a request is cut.

Framing that parsers disagree on is refused with 400 and a closed connection, and nothing behind it is ever executed: each
bad request is followed by a correctly signed delivery that would be stored if it were taken for a request of its own.
Every case is sent whole and split at every byte.
"""
import contextlib
import os
import re
import select
import signal
import socket
import threading
import time

from harness import (E2B_SOURCE, SANITIZED, SECRET, Case, encode, event, exchange, http_connection, parse_answers,
                     plain_only, read_answers, read_to_end, sign_e2b, until)

PATH = "/webhooks/e2b"


def head(*lines, method="POST", path=PATH, version="1.1"):
    return "\r\n".join([f"{method} {path} HTTP/{version}", *lines, "", ""]).encode("latin-1")


def delivery(body, *lines, version="1.1", close=False):
    """A whole, correct request."""
    signature = sign_e2b(SECRET, body)["e2b-signature"]
    closing = ["connection: close"] if close else []
    return head("Host: x", f"Content-Length: {len(body)}", f"e2b-signature: {signature}", *closing, *lines,
                version=version) + body


def chunked(body, size=100):
    pieces = [body[i:i + size] for i in range(0, len(body), size)]
    return b"".join(f"{len(p):x}\r\n".encode() + p + b"\r\n" for p in pieces) + b"0\r\n\r\n"


class Answers(Case):
    def test_tells_that_it_is_healthy(self):
        daemon = self.start()
        answer = daemon.request("GET", "/healthz")
        self.assertEqual((answer.status, answer.body.strip()), (200, b"ok"))
        answer = daemon.request("HEAD", "/healthz")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_answers_a_stored_event_with_its_id(self):
        daemon = self.start()
        body = event()
        answer = daemon.post(body)
        self.assertEqual((answer.status, answer.json), (200, {"status": "stored", "event_id": body["id"]}))
        self.assertEqual(answer.headers["content-type"], "application/json")
        answer = daemon.post(body)
        self.assertEqual((answer.status, answer.json), (200, {"status": "duplicate", "event_id": body["id"]}))

    def test_answers_an_unknown_path_with_404_whatever_the_method(self):
        daemon = self.start()
        for path in ("/", "/webhooks", PATH + "/", PATH + "x", "/WEBHOOKS/E2B", "/webhooks//e2b", "/metrics", "/v1/events",
                     "/webhooks/../webhooks/e2b"):
            for method in ("GET", "POST", "PUT", "DELETE"):
                body = encode(event()) if method in ("POST", "PUT") else None
                answer = daemon.request(method, path, body, sign_e2b(SECRET, body or b""))
                self.assertEqual(answer.status, 404, f"{method} {path} {answer}")
        self.assertEqual(self.count("events"), 0)

    def test_answers_a_wrong_method_with_405_and_what_is_allowed(self):
        daemon = self.start()
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
            answer = daemon.request(method, PATH)
            self.assertEqual((answer.status, answer.headers.get("allow")), (405, "POST"), method)
        answer = daemon.request("POST", "/healthz", b"{}")
        self.assertEqual(answer.status, 405)
        self.assertEqual(sorted(answer.headers["allow"].split(", ")), ["GET", "HEAD"])

    def test_errors_are_problem_documents_without_anything_secret(self):
        daemon = self.start()
        self.home.configure()
        answers = [daemon.request("GET", "/nothing"), daemon.request("GET", PATH),
                   daemon.request("POST", PATH, b"{}", {"e2b-signature": "x"}),
                   daemon.request("POST", PATH, b"x" * (2 << 20))]
        self.assertEqual([a.status for a in answers], [404, 405, 401, 413])
        for answer in answers:
            self.assertEqual(answer.headers["content-type"], "application/problem+json", answer)
            self.assertEqual(answer.json["status"], answer.status)
            self.assertTrue(answer.json["title"])
            self.assertNotIn(SECRET.encode(), answer.body)

    def test_never_answers_with_a_redirect_or_gone(self):
        daemon = self.start()
        for path in ("", "/", "//", "/webhooks", PATH + "?a=b", "/healthz/"):
            answer = daemon.request("POST", path or "*", b"{}")
            self.assertNotIn(answer.status // 100, (3,), path)
            self.assertNotEqual(answer.status, 410)

    def test_takes_a_path_with_a_query_for_the_path(self):
        daemon = self.start()
        self.assert_outcome(daemon.post(event(), path=PATH + "?from=e2b"), "stored")


class Sizes(Case):
    def test_takes_a_body_of_exactly_max_body(self):
        daemon = self.start()
        for size in (1 << 20, (1 << 20) + 1):
            body = event(filler="")
            body["filler"] = "A" * (size - len(encode(body)))
            data = encode(body)
            self.assertEqual(len(data), size)
            answer = daemon.post(data)
            self.assertEqual(answer.status, 200 if size == 1 << 20 else 413)
            with contextlib.closing(daemon.connect()) as sock:
                sock.sendall(head("Host: x", "Transfer-Encoding: chunked",
                                  f"e2b-signature: {sign_e2b(SECRET, data)['e2b-signature']}"))
                with contextlib.suppress(ConnectionError):
                    sock.sendall(chunked(data, 65536))
                self.assertEqual(read_answers(sock)[0].status, 200 if size == 1 << 20 else 413)
        self.home.wait_folded()
        self.assertEqual(self.count("events"), 1)
        rejections = self.home.query("SELECT reason, source FROM rejections")
        self.assertEqual(rejections, [{"reason": "body_too_large", "source": "e2b"}] * 2)

    def test_refuses_a_declared_length_before_the_body_comes(self):
        daemon = self.start()
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(head("Host: x", f"Content-Length: {1 << 30}", "e2b-signature: x", "Expect: 100-continue"))
            data, closed = read_to_end(sock)
        self.assertEqual([a.status for a in parse_answers(data)], [413])
        self.assertNotIn(b"100 Continue", data)
        self.assertTrue(closed)

    def test_max_body_is_of_the_source(self):
        daemon = self.start(sources={"e2b": {**E2B_SOURCE, "max_body": "1KiB"}})
        self.assertEqual(daemon.post(event(filler="A" * 1024)).status, 413)
        self.assertEqual(daemon.post(event(filler="A" * 10)).status, 200)

    @plain_only("a sanitizer keeps freed memory")
    def test_a_body_of_a_gibibyte_does_not_grow_the_daemon(self):
        daemon = self.start()
        self.assert_outcome(daemon.post(event(filler="A" * 1000000)), "stored")
        before = daemon.memory_kib()
        piece = b"A" * (1 << 20)
        for framing in (f"Content-Length: {1 << 30}", "Transfer-Encoding: chunked"):
            with contextlib.closing(daemon.connect()) as sock:
                sock.sendall(head("Host: x", framing, "e2b-signature: " + "A" * 43))
                sent, peak = 0, 0
                with contextlib.suppress(ConnectionError, TimeoutError):
                    for _ in range(1024):
                        sock.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if "chunked" in framing else piece)
                        sent += 1
                        peak = max(peak, daemon.memory_kib())
                self.assertLess(peak - before, 8 * 1024, f"KiB more than before, {framing}, {sent} MiB sent")
        self.assert_outcome(daemon.post(event()), "stored")

    def test_the_answer_to_a_body_that_is_too_large_reaches_a_client_that_sends_first_and_reads_later(self):
        daemon = self.start()
        for _ in range(10):
            with contextlib.closing(daemon.connect()) as sock:
                sock.sendall(head("Host: x", f"Content-Length: {3 << 20}", "e2b-signature: x"))
                sock.sendall(b"A" * (3 << 20))
                self.assertEqual([a.status for a in read_answers(sock)], [413])


class Connections(Case):
    def test_keeps_a_connection_for_many_deliveries(self):
        daemon = self.start()
        with contextlib.closing(http_connection(daemon.address)) as connection:
            connection.connect()
            own = connection.sock.getsockname()
            for _ in range(50):
                body = encode(event())
                answer = exchange(connection, "POST", PATH, body, sign_e2b(SECRET, body))
                self.assert_outcome(answer, "stored")
                self.assertEqual(connection.sock.getsockname(), own)
            self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
            body = encode(event())
            self.assertEqual(exchange(connection, "POST", PATH, body, sign_e2b("wrong", body)).status, 401)
        self.assertEqual(self.count("events"), 50)

    def test_answers_pipelined_requests_in_order(self):
        daemon = self.start()
        bodies = [encode(event()) for _ in range(20)]
        stream = b"".join(delivery(b) for b in bodies) + head("Host: x", method="GET", path="/healthz")
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(stream)
            answers = read_answers(sock, 21)
        ids = [r["event_id"] for r in self.home.query("SELECT event_id FROM events ORDER BY seq")]
        self.assertEqual([a.json["event_id"] for a in answers[:20]], ids)
        self.assertEqual([a.json["status"] for a in answers[:20]], ["stored"] * 20)
        self.assertEqual(answers[20].body.strip(), b"ok")

    def test_serves_http_1_0(self):
        daemon = self.start()
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(delivery(encode(event()), version="1.0"))
            data, closed = read_to_end(sock)
        self.assertTrue(closed)
        self.assertEqual([a.status for a in parse_answers(data)], [200])

    def test_invites_the_body_of_who_expects_that(self):
        daemon = self.start()
        body = encode(event())
        request = delivery(body, "Expect: 100-continue")
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(request[:-len(body)])
            interim = sock.recv(1000)
            self.assertTrue(interim.startswith(b"HTTP/1.1 100 "), interim)
            sock.sendall(body)
            self.assertEqual(read_answers(sock)[0].outcome, "stored")

    def test_answers_a_client_that_closed_its_half(self):
        daemon = self.start()
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(delivery(encode(event())))
            sock.shutdown(socket.SHUT_WR)
            data, _closed = read_to_end(sock)
        self.assertEqual([a.outcome for a in parse_answers(data)], ["stored"])

    def test_takes_chunks_of_any_size(self):
        daemon = self.start()
        for size in (1, 7, 100, 10000):
            body = encode(event())
            request = head("Host: x", "Transfer-Encoding: chunked",
                           f"e2b-signature: {sign_e2b(SECRET, body)['e2b-signature']}") + chunked(body, size)
            with contextlib.closing(daemon.connect()) as sock:
                sock.sendall(request)
                self.assertEqual(read_answers(sock)[0].outcome, "stored", f"chunks of {size}")

    def test_listens_on_several_addresses_and_a_unix_socket(self):
        path = self.home.path / "hook.sock"
        daemon = self.start(server={"listen": ["127.0.0.1:0", "[::1]:0", f"unix:{path}"], "unix_mode": "0600"})
        self.assertEqual(len(daemon.addresses), 3, daemon.addresses)
        for address in daemon.addresses:
            with self.subTest(address):
                self.assert_outcome(daemon.post(event(), address=address), "stored")
        self.assertTrue(path.is_socket())
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.stop(daemon)
        self.assertFalse(path.exists(), "the socket is left behind")

    def test_replaces_a_unix_socket_that_a_killed_daemon_left(self):
        path = self.home.path / "hook.sock"
        daemon = self.start(server={"listen": f"unix:{path}"})
        daemon.kill()
        self.died_on_purpose(daemon)
        self.assertTrue(path.exists())
        self.assert_outcome(self.start().post(event()), "stored")

    def test_a_client_that_leaves_while_its_delivery_is_written_harms_nobody(self):
        daemon = self.start()
        for _ in range(200):
            with contextlib.closing(daemon.connect()) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
                sock.sendall(delivery(encode(event())))
        self.assert_outcome(daemon.post(event()), "stored")

    def burst(self, daemon, count):
        """So many requests ready at the same instant; returns the answers and how long the last one took."""
        socks = [daemon.connect(timeout=30) for _ in range(count)]
        try:
            for sock in socks:  # each is known to the daemon before it is stopped
                sock.sendall(head("Host: x", method="GET", path="/healthz"))
            for sock in socks:
                self.assertEqual(read_answers(sock)[0].status, 200)
            os.kill(daemon.pid, signal.SIGSTOP)
            for sock in socks:
                sock.sendall(delivery(encode(event())))
            begin = time.monotonic()
            os.kill(daemon.pid, signal.SIGCONT)
            answers = [read_answers(sock) for sock in socks]
            return answers, time.monotonic() - begin
        finally:
            for sock in socks:
                sock.close()

    def test_answers_any_number_of_simultaneous_requests_at_once(self):
        daemon = self.start()
        for count in (127, 128, 129, 256, 384):
            with self.subTest(count):
                answers, seconds = self.burst(daemon, count)
                self.assertEqual([[a.outcome for a in one] for one in answers], [["stored"]] * count)
                self.assertLess(seconds, 6 if SANITIZED else 2)

    def test_beyond_max_connections_a_client_waits_for_its_turn(self):
        daemon = self.start(server={"max_connections": 16}, store={"queue_limit": 8})
        held = [daemon.connect() for _ in range(40)]
        result = []
        thread = threading.Thread(target=lambda: result.append(daemon.post(event())))
        thread.start()
        for sock in held:
            sock.close()
        thread.join(20)
        self.assertEqual([a.outcome for a in result], ["stored"])


class Deadlines(Case):
    LIMITS = {"header_timeout": "400ms", "request_timeout": "800ms"}

    def drip(self, daemon, request, start, piece=1):
        """Sends the rest in drips until the daemon has had enough; returns what it said and after how long."""
        begin = time.monotonic()
        data = b""
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(request[:start])
            with contextlib.suppress(ConnectionError):
                for i in range(start, len(request), piece):
                    readable, _, _ = select.select([sock], [], [], 0.05)
                    if readable:
                        break
                    sock.sendall(request[i:i + piece])
            rest, closed = read_to_end(sock)
        return data + rest, closed, time.monotonic() - begin

    def judge(self, data, closed, seconds, limit):
        self.assertEqual([a.status for a in parse_answers(data)], [408])
        self.assertTrue(closed)
        self.assertGreater(seconds, limit * 0.9)
        self.assertLess(seconds, limit + 3)

    def test_a_header_that_comes_in_drips_is_cut_off_with_408(self):
        daemon = self.start(server=self.LIMITS, store={"commit_timeout": "500ms"})
        request = delivery(encode(event()), *(f"x-filler-{i}: {'a' * 50}" for i in range(20)))
        self.judge(*self.drip(daemon, request, 10), 0.4)
        self.assertEqual(self.count("events"), 0)

    def test_a_body_that_comes_in_drips_is_cut_off_with_408(self):
        daemon = self.start(server=self.LIMITS, store={"commit_timeout": "500ms"})
        body = encode(event(filler="A" * 1000))
        request = delivery(body)
        self.judge(*self.drip(daemon, request, len(request) - len(body)), 0.8)
        request = head("Host: x", "Transfer-Encoding: chunked", "e2b-signature: x") + chunked(body, 5)
        self.judge(*self.drip(daemon, request, request.index(b"\r\n\r\n") + 4), 0.8)
        self.assertEqual(self.count("events"), 0)

    def test_a_body_that_never_comes_is_cut_off_with_408(self):
        daemon = self.start(server=self.LIMITS, store={"commit_timeout": "500ms"})
        begin = time.monotonic()
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(head("Host: x", "Content-Length: 100", "e2b-signature: x"))
            data, closed = read_to_end(sock)
        self.judge(data, closed, time.monotonic() - begin, 0.8)

    def test_the_deadline_is_of_the_request_and_not_of_the_connection(self):
        daemon = self.start(server=self.LIMITS, store={"commit_timeout": "500ms"})
        end = time.monotonic() + 1.5
        with contextlib.closing(http_connection(daemon.address)) as connection:
            connection.connect()
            own = connection.sock.getsockname()
            while time.monotonic() < end:  # idle for less than any limit, on the whole for longer
                self.assertEqual(exchange(connection, "GET", "/healthz").status, 200)
                self.assertEqual(connection.sock.getsockname(), own)
                select.select([connection.sock], [], [], 0.3)

    def test_a_hundred_slow_clients_do_not_slow_the_others(self):
        daemon = self.start(server={"header_timeout": "5s", "request_timeout": "6s"})
        slow = [daemon.connect() for _ in range(100)]
        for i, sock in enumerate(slow):
            sock.sendall(delivery(encode(event()))[:50 if i % 2 else 400])
        begin = time.monotonic()
        for _ in range(20):
            self.assert_outcome(daemon.post(event()), "stored")
        self.assertLess(time.monotonic() - begin, 4)
        for sock in slow:
            sock.close()


# Framing -----------------------------------------------------------------------------------------------

def framing_cases(inner):
    """name -> bytes of a request that must be refused; `inner` is what must not be taken for a request."""
    body = encode(event())
    signed = f"e2b-signature: {sign_e2b(SECRET, body)['e2b-signature']}"
    length, ok = len(body), "Host: x"
    te, good_chunks = "Transfer-Encoding: chunked", chunked(body)

    def plain(*lines, data=body, **kw):
        return head(ok, signed, *lines, **kw) + data + inner

    def coded(data, *lines):
        return head(ok, signed, te, *lines) + data

    both = f"Content-Length: {length}"
    return {
        "two lengths that differ": plain(both, "Content-Length: 0"),
        "two lengths that differ, other order": plain("Content-Length: 0", both),
        "two lengths that agree": plain(both, both),
        "a list of lengths": plain(f"Content-Length: {length}, {length}"),
        "a length with a sign": plain(f"Content-Length: +{length}"),
        "a negative length": plain("Content-Length: -1"),
        "a length in hexadecimal": plain(f"Content-Length: {length:#x}"),
        "a length with a tail": plain(f"Content-Length: {length}a"),
        "a length with a blank inside": plain("Content-Length: 1 0"),
        "an empty length": plain("Content-Length:"),
        "a length beyond 64 bits": plain("Content-Length: 99999999999999999999"),
        "a blank before the colon of the length": plain(f"Content-Length : {length}"),
        "a tab before the colon of the length": plain(f"Content-Length\t: {length}"),
        "length and chunked": head(ok, signed, both, te) + good_chunks + inner,
        "chunked and length": head(ok, signed, te, both) + good_chunks + inner,
        "chunked twice": head(ok, signed, te, te) + good_chunks + inner,
        "chunked twice in a list": head(ok, signed, te + ", chunked") + good_chunks + inner,
        "a blank before the colon of the coding": head(ok, signed, "Transfer-Encoding : chunked") + good_chunks + inner,
        "an unknown coding": plain("Transfer-Encoding: gzip"),
        "an unknown coding like chunked": plain("Transfer-Encoding: xchunked"),
        "an unknown coding before chunked": head(ok, signed, "Transfer-Encoding: gzip, chunked") + good_chunks + inner,
        "identity": plain("Transfer-Encoding: identity", both),
        "a vertical tab before chunked": head(ok, signed, "Transfer-Encoding: \vchunked") + good_chunks + inner,
        "chunked in quotes": head(ok, signed, 'Transfer-Encoding: "chunked"') + good_chunks + inner,
        "chunked in HTTP/1.0": head(ok, signed, te, version="1.0") + good_chunks + inner,
        "neither length nor coding": plain(),
        "no host": head(signed, both) + body + inner,
        "two hosts": head(ok, "Host: y", signed, both) + body + inner,
        "a blank before the colon of the host": head("Host : x", signed, both) + body + inner,
        "two signatures": plain(both, "e2b-signature: " + "A" * 43),
        "a name with a blank": plain(both, "x y: z"),
        "a name with a character that is none": plain(both, "x(y): z"),
        "an empty name": head(ok, ": z", signed, both) + body + inner,
        "a line without a colon": plain(both, "nonsense"),
        "a control character in a value": plain(both, "x-note: a\x01b"),
        "a bare CR in a value": plain(both, "x-note: a\rb"),
        "a body on GET": head(ok, f"Content-Length: {len(inner)}", method="GET", path="/healthz") + inner,
        "chunks on GET": head(ok, te, method="GET", path="/healthz") + good_chunks + inner,
        "a chunk size with a prefix": coded(b"0x5\r\nhello\r\n0\r\n\r\n" + inner),
        "a chunk size with a sign": coded(b"+5\r\nhello\r\n0\r\n\r\n" + inner),
        "a chunk size that is none": coded(b"zz\r\nhello\r\n0\r\n\r\n" + inner),
        "a chunk size beyond 64 bits": coded(b"fffffffffffffffff1\r\nhello\r\n0\r\n\r\n" + inner),
        "a chunk without its end": coded(b"5\r\nhelloXX0\r\n\r\n" + inner),
    }


class Framing(Case):
    def send_all(self, daemon, parts_of_each):
        """Sends many requests side by side, part by part; returns (bytes, closed) of each."""
        socks = [daemon.connect(timeout=8) for _ in parts_of_each]
        try:
            for index in range(max(map(len, parts_of_each))):
                for sock, parts in zip(socks, parts_of_each):
                    if index < len(parts):
                        with contextlib.suppress(ConnectionError):
                            sock.sendall(parts[index])
            return [read_to_end(sock) for sock in socks]
        finally:
            for sock in socks:
                sock.close()

    def judge(self, note, data, closed):
        """Refused and closed. libmicrohttpd's own refusals may repeat their head, and are 413 for what does not fit."""
        self.assertTrue(closed, f"{note}: left open after {data!r}")
        own = not re.search(rb"^content-type: application/problem\+json", data, re.IGNORECASE | re.MULTILINE)
        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", data)
        self.assertIn(set(statuses), [{b"400"}] + [{b"413"}] * (own and "beyond 64 bits" in note), f"{note}: {data!r}")
        self.assertTrue(own or len(statuses) == 1, f"{note}: {data!r}")

    def test_framing_that_parsers_disagree_on_is_refused_and_nothing_behind_it_is_executed(self):
        daemon = self.start()
        cases = framing_cases(delivery(encode(event(sandbox_id="smuggled"))))
        for name, request in cases.items():
            with self.subTest(name):
                (data, closed), = self.send_all(daemon, [[request]])
                self.judge(name, data, closed)
        self.assertEqual(self.count("events"), 0)
        self.assertEqual(self.count("quarantine"), 0)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_a_cut_at_any_byte_changes_nothing(self):
        daemon = self.start()
        cases = framing_cases(delivery(encode(event(sandbox_id="smuggled"))))
        step = 1 if not SANITIZED else 7
        for name, request in cases.items():
            end = request.index(b"\r\n\r\n") + 12
            with self.subTest(name):
                splits = [[request[:i], request[i:]] for i in range(1, min(end, len(request)), step)]
                for (data, closed), parts in zip(self.send_all(daemon, splits), splits):
                    self.judge(f"{name}, cut after {parts[0][-20:]!r}", data, closed)
        self.assertEqual(self.count("events"), 0)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_a_good_request_is_good_however_it_is_cut(self):
        daemon = self.start()
        body = encode(event())
        request = delivery(body, close=True)
        self.assert_outcome(daemon.post(body), "stored")
        splits = [[request[:i], request[i:]] for i in range(1, len(request), 1 if not SANITIZED else 5)]
        splits.append([request[i:i + 1] for i in range(len(request))])
        for data, closed in self.send_all(daemon, splits):
            self.assertTrue(closed)
            self.assertEqual([a.outcome for a in parse_answers(data)], ["duplicate"])
        request = head("Host: x", "Transfer-Encoding: chunked", "connection: close",
                       f"e2b-signature: {sign_e2b(SECRET, body)['e2b-signature']}") + chunked(body, 200)
        splits = [[request[:i], request[i:]] for i in range(1, len(request), 1 if not SANITIZED else 5)]
        for data, closed in self.send_all(daemon, splits):
            self.assertTrue(closed)
            self.assertEqual([a.outcome for a in parse_answers(data)], ["duplicate"])

    def test_a_head_that_is_too_large_is_refused(self):
        daemon = self.start()
        request = delivery(encode(event()), *(f"x-filler-{i}: {'a' * 1000}" for i in range(100)))
        (data, closed), = self.send_all(daemon, [[request]])
        self.assertTrue(closed)
        for answer in parse_answers(data):
            self.assertIn(answer.status, (400, 413, 414, 431))
        self.assertEqual(self.count("events"), 0)
        self.assert_outcome(daemon.post(event()), "stored")

    def test_garbage_harms_nobody(self):
        daemon = self.start()
        garbage = [b"\0" * 1000, b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\r\n" * 1000,
                   b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST " + b"/" * 20000 + b" HTTP/1.1\r\n\r\n", os.urandom(4096), b""]
        socks = []
        for data in garbage:
            sock = daemon.connect()
            socks.append(sock)
            with contextlib.suppress(OSError):  # it may have been closed by now
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
        for sock in socks:
            with contextlib.closing(sock):
                read_to_end(sock)
        self.assert_outcome(daemon.post(event()), "stored")


class RemoteAddress(Case):
    def rejected_from(self, daemon, forwarded):
        before = self.count("rejections")
        headers = {"x-forwarded-for": forwarded} if forwarded else {}
        daemon.request("POST", PATH, b"{}", {**headers, "e2b-signature": "x"})
        until(lambda: self.count("rejections") > before, "the rejection to be kept")
        return self.home.value("SELECT remote_addr FROM rejections ORDER BY id DESC LIMIT 1")

    def test_is_the_peer_unless_a_trusted_proxy_says_otherwise(self):
        daemon = self.start()
        self.assertEqual(self.rejected_from(daemon, "203.0.113.9"), "127.0.0.1")
        self.stop(daemon)
        daemon = self.start(server={"trusted_proxies": "127.0.0.0/8, 10.0.0.0/8"})
        self.assertEqual(self.rejected_from(daemon, "203.0.113.9"), "203.0.113.9")
        self.assertEqual(self.rejected_from(daemon, "198.51.100.1, 203.0.113.9, 10.1.2.3"), "203.0.113.9")
        self.assertEqual(self.rejected_from(daemon, None), "127.0.0.1")
        self.assertEqual(self.rejected_from(daemon, "nonsense"), "127.0.0.1")
