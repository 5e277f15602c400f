"""Goal: a planned stop loses no delivery. On SIGTERM under load every request that the daemon took gets its answer; who is
not taken any more is not stored either, so that a sender's retry is right; the daemon ends with 0, within drain_timeout.
"""
import contextlib
import http.client
import signal
import threading
import time

from harness import SECRET, Case, encode, event, exchange, http_connection, read_answers, sign_e2b, until

THREADS = 8


class Client:
    """Delivers until the daemon takes no more connections; remembers what became of every request."""

    def __init__(self, address, keep_alive):
        self.address, self.keep_alive = address, keep_alive
        self.answered, self.unanswered, self.closing = {}, [], 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while True:
            connection = http_connection(self.address)
            try:
                connection.connect()
            except OSError:
                return
            with contextlib.closing(connection):
                self._use(connection)

    def _use(self, connection):
        used = 0
        while True:
            one = event()
            body = encode(one)
            headers = {**sign_e2b(SECRET, body), **({} if self.keep_alive else {"connection": "close"})}
            try:
                answer = exchange(connection, "POST", "/webhooks/e2b", body, headers)
            except (OSError, http.client.HTTPException):
                self.unanswered.append((one["id"], used))
                return
            self.answered[one["id"]] = answer.outcome
            used += 1
            if answer.headers.get("connection", "").lower() == "close":
                self.closing += self.keep_alive
                return


class Drain(Case):
    def under_load(self, signum=signal.SIGTERM):
        daemon = self.start()
        clients = [Client(daemon.address, keep_alive=n % 2 == 0) for n in range(THREADS)]
        until(lambda: all(len(c.answered) > 20 for c in clients), "the load to get going", 20)
        begin = time.monotonic()
        daemon.process.send_signal(signum)
        code = daemon.wait(20)
        seconds = time.monotonic() - begin
        for client in clients:
            client.thread.join(20)
        self.died_on_purpose(daemon)
        self.assertEqual(code, 0, daemon.log)
        self.assertLess(seconds, 15)
        return clients

    def judge(self, clients):
        stored = {r["event_id"] for r in self.home.query("SELECT event_id FROM events")}
        for client in clients:
            self.assertEqual(set(client.answered.values()), {"stored"})
            self.assertLessEqual(set(client.answered), stored)
            for one, used in client.unanswered:
                self.assertEqual(used, 0, "a connection that was in use ended without an answer")
                self.assertNotIn(one, stored, "stored without an answer")

    def test_answers_everything_that_it_took(self):
        for signum in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signum):
                clients = self.under_load(signum)
                self.judge(clients)
        self.assertGreater(sum(c.closing for c in clients), 0, "who keeps a connection is told to close it")

    def test_folds_what_it_took_before_it_ends(self):
        self.judge(self.under_load())
        state = self.home.query("SELECT * FROM ledger_state")[0]
        self.assertEqual(state["folded_seq"], state["stored_seq"])
        self.assertGreater(state["stored_seq"], 100)

    def test_a_request_that_had_begun_is_answered(self):
        daemon = self.start()
        one = event()
        body = encode(one)
        request = (f"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                   f"e2b-signature: {sign_e2b(SECRET, body)['e2b-signature']}\r\n\r\n").encode() + body
        with contextlib.closing(daemon.connect()) as sock, contextlib.closing(daemon.connect()) as idle:
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            read_answers(idle)
            sock.sendall(request[:-100])
            # an answer on another connection shows that the daemon has read what was sent before
            self.assertEqual(daemon.request("GET", "/healthz").status, 200)
            daemon.process.send_signal(signal.SIGTERM)

            def refused():
                with contextlib.suppress(ConnectionError):
                    daemon.connect().close()
                    return False
                return True
            until(refused, "the listener to be closed")
            self.assertIsNone(daemon.process.poll(), "the daemon left a request behind")
            sock.sendall(request[-100:])
            answer, = read_answers(sock)
            self.assertEqual((answer.outcome, answer.headers["connection"].lower()), ("stored", "close"))
        self.assertEqual(daemon.wait(), 0)

    def test_does_not_wait_for_ever_for_a_request_that_never_ends(self):
        daemon = self.start(server={"drain_timeout": "500ms"})
        with contextlib.closing(daemon.connect()) as sock:
            sock.sendall(b"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
            self.assertEqual(daemon.request("GET", "/healthz").status, 200)
            begin = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(), 0)
        self.assertLess(time.monotonic() - begin, 5)

    def test_an_idle_daemon_ends_at_once(self):
        daemon = self.start()
        with contextlib.closing(daemon.connect()), contextlib.closing(daemon.connect()) as idle:
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            read_answers(idle)
            begin = time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            self.assertEqual(daemon.wait(), 0)
        self.assertLess(time.monotonic() - begin, 3)
        for name in ("events.db-wal", "events.db-shm"):
            path = self.home.path / name
            self.assertTrue(not path.exists() or path.stat().st_size == 0 or name.endswith("shm"), f"{name} is left full")
