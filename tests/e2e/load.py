"""Senders that never rest: what was sent, what was acknowledged, what was refused, until the daemon is gone or they are told."""
import collections
import contextlib
import http.client
import random
import threading
import time

from harness import SECRET, encode, event, exchange, execution, http_connection, rfc3339, sign_e2b

THREADS = 8
KINDS = ["created", "paused", "killed", "updated"]


class Load:
    """Every third request repeats an event, and the first of each sender what the sender of a load before sent last: who got no
    answer asks again. failures: that share of the others are executions that failed, now."""

    def __init__(self, address, sandboxes, failures=0.0, padding=0, before=None):
        self.address, self.sandboxes, self.failures = address, sandboxes, failures
        self.padding = {"text": "x" * padding} if padding else {}
        self.sent, self.acknowledged, self.refused = set(), collections.Counter(), []
        self.last = list(before.last) if before else [None] * THREADS
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._deliver, args=(n,)) for n in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _next(self, chance):
        sandbox = chance.choice(self.sandboxes)
        if chance.random() < self.failures:
            return execution(status="error", exit_code=1, sandbox_id=sandbox)
        return event(chance.choice(KINDS), data=self.padding, sandbox_id=sandbox,
                     timestamp=rfc3339(time.time() - chance.random() * 3600))

    def _deliver(self, number):
        chance = random.Random(f"{number} {self.address}")
        last, repeats = self.last[number], True
        with contextlib.suppress(OSError, http.client.HTTPException):
            with contextlib.closing(http_connection(self.address)) as connection:
                while not self.ended.is_set():
                    if last is None or not repeats:
                        last = self.last[number] = self._next(chance)
                    repeats = chance.random() < 0.33
                    body = encode(last)
                    self.sent.add(last["id"])
                    answer = exchange(connection, "POST", "/webhooks/e2b", body, sign_e2b(SECRET, body))
                    if answer.outcome in ("stored", "duplicate"):
                        self.acknowledged[last["id"]] += 1
                    else:
                        self.refused.append(answer)

    @property
    def count(self):
        return sum(self.acknowledged.copy().values())

    def join(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)
