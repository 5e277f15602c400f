"""Goal: strangers cannot keep honest deliveries from being stored in time, nor make the daemon grow, nor get anything in. Many
hostile connections of every kind (hostile.py) at once, from one address; honest deliveries beside them.
"""
import contextlib
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import threading
import time
import unittest

from harness import LONG, SANITIZED, SECRET, encode, event, exchange, http_connection, sign_e2b, until
from test_admin import ADMIN, Admin

CONNECTIONS, SECONDS = (2000, 30) if LONG else (300, 5)
P99_S = 0.25
MEMORY_KIB = 256 << 10
HOSTILE = pathlib.Path(__file__).with_name("hostile.py")


class Honest(threading.Thread):
    """Delivers at a steady pace; on one connection, or on a new one each time."""

    def __init__(self, daemon, keep):
        super().__init__()
        self.address, self.keep = daemon.address, keep
        self.seconds, self.acknowledged, self.others = [], set(), []
        self.ended = threading.Event()
        self.start()

    def run(self):
        connection = None
        while not self.ended.wait(0.01):
            body = encode(one := event())
            begin = time.monotonic()
            try:
                connection = connection if connection and self.keep else http_connection(self.address)
                answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                if answer.status == 200:
                    self.acknowledged.add(one["id"])
                else:
                    self.others.append(answer)
            except OSError as error:
                self.others.append(error)
                connection = None
            self.seconds.append(time.monotonic() - begin)
            if connection and not self.keep:
                connection.close()
        if connection:
            connection.close()

    def p99(self):
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


class Hostile(Admin):
    def memory_peak_kib(self, daemon):
        return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{daemon.pid}/status").read_text()).group(1))

    @unittest.skipIf(SANITIZED and not LONG, "takes its time under a sanitizer")
    def test_honest_deliveries_are_answered_in_time_whatever_strangers_do(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        daemon = self.start(admin=ADMIN, server={"header_timeout": "3s", "request_timeout": "5s"})
        strangers = subprocess.Popen([sys.executable, str(HOSTILE), daemon.address, str(CONNECTIONS), str(SECONDS)],
                                     stdout=subprocess.PIPE, text=True, env={**os.environ, "HOSTILE_SECRET": SECRET})
        try:
            until(lambda: self.page()("e2b_hookd_connections") >= CONNECTIONS / 3, "the strangers to come", 30)
            honest = [Honest(daemon, keep=True), Honest(daemon, keep=False)]
            told = json.loads(strangers.communicate(timeout=SECONDS + 120)[0])
            for one in honest:
                one.ended.set()
            for one in honest:
                one.join(60)
        finally:
            if strangers.poll() is None:
                strangers.kill()
                strangers.wait()
        peak = self.memory_peak_kib(daemon)
        figures = {"deliveries": sum(len(h.seconds) for h in honest), "p99_ms": [round(h.p99() * 1000, 1) for h in honest],
                   "peak_kib": peak, "strangers": told}
        if LONG:
            print(json.dumps(figures))
        for one in honest:
            self.assertEqual(one.others[:3], [], figures)
            if not SANITIZED:  # bounds on time and memory
                self.assertGreater(len(one.seconds), 20 * SECONDS, figures)
                self.assertLess(one.p99(), P99_S, figures)
        if not SANITIZED:
            self.assertLess(peak, MEMORY_KIB, figures)
        self.judge_answers(told)
        until(lambda: self.page()("e2b_hookd_connections") == 0, "the strangers' connections to end", 30)
        rows = self.home.query("SELECT event_id, sandbox_id FROM events")
        known = honest[0].acknowledged | honest[1].acknowledged
        self.assertEqual(known - {r["event_id"] for r in rows}, set(), "acknowledged and lost")
        self.assertEqual([r for r in rows if r["event_id"] not in known and r["sandbox_id"] != "left-early"], [])
        self.assertLess(len(daemon.lines), 1000, "strangers do not fill the log")

    def judge_answers(self, told):
        """Who is refused must be refused as the contract says, or closed; nobody stays for ever."""
        allowed = {"half_open": {"none", "408"}, "drip_head": {"none", "408"}, "slow_body": {"none", "408"},
                   "endless_head": {"none", "408", "431", "413"}, "huge_head": {"none", "431", "413"},
                   "body_of_a_gibibyte": {"none", "408", "413"}, "chunks_without_end": {"none", "408", "413"},
                   "bad_chunks": {"none", "400"}, "length_and_coding": {"400"}, "pipelined": {"401", "none"},
                   "leaves_early": {"none"}, "leaves_before_the_answer": {"none", "200"}, "garbage": {"none", "400", "408"}}
        self.assertEqual(set(told), set(allowed))
        for kind, answers in told.items():
            # Who began long ago gives way with 503 where the memory for bodies is short.
            self.assertEqual(set(answers) - allowed[kind] - {"open", "503"}, set(), (kind, answers))
            self.assertGreater(sum(answers.values()), 0, kind)
        for kind in ("bad_chunks", "length_and_coding", "pipelined", "huge_head"):
            if not SANITIZED:  # else rounds are hardly begun when the time is up
                self.assertEqual(told[kind].get("open", 0), 0, (kind, told[kind]))
        if not SANITIZED:  # the deadline is for the whole head: a byte now and then does not keep a connection
            dripped = {"408": 0, "none": 0, "open": 0, **told["drip_head"]}  # none: reset by its next byte, its 408 unread
            self.assertGreater(dripped["408"] + dripped["none"], dripped["open"], told)

    def test_many_connections_of_one_address_can_be_limited(self):
        daemon = self.start(admin=ADMIN, server={"max_connections_per_ip": 5, "trusted_proxies": "127.0.0.9/32"})
        held = [daemon.connect() for _ in range(50)]
        try:
            self.assertEqual(daemon.post(event()).outcome, "stored", "loopback is never limited")
        finally:
            for sock in held:
                sock.close()

    def test_bodies_that_never_end_do_not_keep_honest_ones_out(self):
        daemon = self.start(admin=ADMIN)
        most = b"x" * ((1 << 20) - 1)
        held = []
        try:
            for _ in range(100):
                sock = daemon.connect()
                held.append(sock)
                with contextlib.suppress(ConnectionError):
                    sock.sendall(b"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n" + most)
            until(lambda: self.page()("e2b_hookd_unavailable_total", reason="body_memory_full") > 0, "memory to be short")
            self.assertGreater(self.page()("e2b_hookd_body_memory_bytes"), 48 << 20)
            for _ in range(40):
                self.assertEqual(daemon.post(event(data={"text": "x" * 20000})).status, 200)
            self.assertLess(self.page()("e2b_hookd_body_memory_bytes"), 68 << 20)
            held[0].settimeout(5)
            self.assertIn(b"503", held[0].recv(100), "who began first gave way")
        finally:
            for sock in held:
                sock.close()

    def test_declared_gibibytes_reserve_nothing(self):
        daemon = self.start()
        before = self.memory_peak_kib(daemon)
        held = []
        for _ in range(200):
            sock = daemon.connect()
            sock.sendall(b"POST /webhooks/e2b HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{")
            held.append(sock)
        try:
            begin = time.monotonic()
            self.assertEqual(daemon.post(event()).outcome, "stored")
            self.assertLess(time.monotonic() - begin, 2)
            if not SANITIZED:
                self.assertLess(self.memory_peak_kib(daemon) - before, 32 << 10)
        finally:
            for sock in held:
                sock.close()
