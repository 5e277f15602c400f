"""Random histories: what senders may say about sandboxes, told from a seed.

A history is a configuration and a list of (source, body). Most sandboxes live as E2B, AgentENV or an executor tell it, and
then things go wrong: events are missing, repeated, corrected under other ids, tied in time, or say less than they should.
Some are chaos: facts thrown on a narrow grid of times, so that ties and contradictions are the rule. All long past events
lie in March 2024; recent ones keep clear of the present, so that no second matters. Nothing here is ever quarantined, for
what is stored would then depend on the order. Python 3.11, standard library only.
"""
import dataclasses
import datetime
import json
import random

import ledger_model

BASE_MS = 1709251200000 + 7 * 86_400_000  # 2024-03-08, midnight
MINUTE = 60_000
HOUR = 3_600_000
TEAMS = ["3f0c1b62-9a1e-4f7d-8c55-0d9a7be1c2f4", "7b1d9c1e-2222-4f7d-8c55-0d9a7be1c2f4"]
NIL = "00000000-0000-0000-0000-000000000000"
CAMEL = {"event_data": "eventData", "sandbox_id": "sandboxId", "sandbox_execution_id": "sandboxExecutionId",
         "sandbox_template_id": "sandboxTemplateId", "sandbox_template_alias": "sandboxTemplateAlias",
         "sandbox_build_id": "sandboxBuildId", "sandbox_team_id": "sandboxTeamId", "event_category": "eventCategory",
         "event_label": "eventLabel"}
LABELS = {"created": "create", "resumed": "resume", "updated": "update", "paused": "pause", "killed": "kill"}
SIZED, ALIASED, UNKNOWN = "k3v9x2m7q1w8e5r4t6y0", "a1b2c3d4e5f6g7h8i9j0", "z9y8x7w6v5u4t3s2r1q0"
BIG = "b0b1b2b3b4b5b6b7b8b9"


@dataclasses.dataclass
class History:
    seed: object
    terms: ledger_model.Terms
    bodies: list

    def sections(self):
        """The part of the configuration behind the sources."""
        lines = []
        for template, (alias, vcpu, memory_mb) in self.terms.templates.items():
            lines.append(f"[template {template}]")
            lines += [f"alias = {alias}"] if alias else []
            lines += [f"vcpu = {vcpu}", f"memory_mb = {memory_mb}"] if vcpu else []
        for number, (from_ms, vcpu_usd, gib_usd) in enumerate(self.terms.prices):
            day = f"{datetime.datetime.fromtimestamp(from_ms / 1000, datetime.timezone.utc):%Y-%m-%d}" if number else ""
            lines += [f"[pricing {day}]" if day else "[pricing]", f"vcpu_second_usd = {vcpu_usd}",
                      f"gib_second_usd = {gib_usd}"]
        return "\n".join(lines) + "\n"


def generate(seed, now_ms, chaotic=None):
    chance = random.Random(f"history {seed}")
    bodies = []
    for number in range(chance.randint(6, 16)):
        teller = Teller(chance, f"i{chance.getrandbits(64):016x}{number}", now_ms)
        lives = [e2b_life, e2b_life, mixed_life, mixed_life, loose_life, loose_life, executor_life, chaos, chaos, recent_life]
        (chance.choice(lives) if chaotic is None else chaos if chaotic else chance.choice(lives[:7] + lives[9:]))(teller)
        bodies += drop_backward(spoil(chance, teller.bodies))
    bodies += strays(chance)
    chance.shuffle(bodies)
    return History(seed, some_terms(chance), bodies)


def some_terms(chance):
    prices = [(0, "0.000014", "0.0000045")]
    for days in sorted(chance.sample(range(0, 5), chance.randint(0, 2))):
        prices.append((BASE_MS + days * 24 * HOUR, *chance.choice([("0.00002", "0.000005"), ("0.000013333333333", "0.0000077"),
                                                                    ("0", "0.000009"), ("0.75", "0.25")])))
    templates = {SIZED: ("tta-ml-minimal", 2, 512), ALIASED: ("just-a-name", None, None), BIG: (None, 7, 1000)}
    return ledger_model.Terms(prices, templates, {"lab"}, chance.choice([45 * MINUTE, 24 * HOUR, 24 * HOUR, 3650 * 24 * HOUR]))


class Teller:
    """Tells events of one sandbox."""

    def __init__(self, chance, sandbox, now_ms):
        self.chance, self.sandbox, self.now_ms = chance, sandbox, now_ms
        self.template = chance.choice([SIZED, SIZED, SIZED, ALIASED, UNKNOWN, BIG, "tta-ml-minimal", "just-a-name"])
        self.team = chance.choice(TEAMS)
        self.source = chance.choice(["e2b"] * 4 + ["lab"])
        self.style = chance.choice(["v2"] * 5 + ["camel", "v1", "bare"])
        self.bodies = []

    def uuid(self):
        h = f"{self.chance.getrandbits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"

    def maybe(self, share):
        return self.chance.random() < share

    def stamp(self, ms):
        """A time with as many digits as senders like, within its millisecond."""
        digits = self.chance.choice([3, 3, 6, 9])
        rest = 0 if self.maybe(0.5) else self.chance.randrange(10**6)
        text = f"{(ms % 1000) * 10**6 + rest:09d}"[:digits]
        moment = datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc)
        if self.maybe(0.05):
            moment = moment.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
        whole = moment.isoformat(timespec="seconds")
        return whole[:19] + (f".{text}" if text.strip("0") or self.maybe(0.5) else "") + whole[19:].replace("+00:00", "Z")

    def tell(self, kind, ms, run=None, data=None, source=None, **fields):
        body = {"id": self.uuid(), "version": "v2",
                "type": ("sandbox." if self.maybe(0.1) or kind == "code_executed" else "sandbox.lifecycle.") + kind,
                "timestamp": self.stamp(ms), "event_data": dict(data or {}), "sandbox_id": self.sandbox,
                "sandbox_execution_id": run or self.chance.choice(["", None]),
                "sandbox_template_id": self.template, "sandbox_build_id": self.uuid(), "sandbox_team_id": self.team}
        body.update(fields)
        self.put(source or self.source, restyle(self.chance, body, kind, self.style if kind in LABELS else "v2"))

    def put(self, source, body):
        self.bodies.append((source, body))

    def metadata(self):
        return {"sandbox_metadata": {"step": str(self.chance.randrange(5)), "näme": "ü<&>"}} if self.maybe(0.4) else {}

    def report(self, start_ms, ms):
        report = {"started_at": self.stamp(start_ms) if self.maybe(0.3) else ledger_model.rfc3339(start_ms // 1000 * 1000),
                  "execution_time": ms, "vcpu_count": self.chance.choice([1, 2, 8]), "memory_mb": self.chance.choice([512, 481, 4096])}
        if self.maybe(0.1):
            report["execution_time"] = ms // 1000 + self.chance.choice([0.25, 0.001, 0.999, 0.5])
        if self.maybe(0.1):
            del report[self.chance.choice(["vcpu_count", "memory_mb"])]
        if self.maybe(0.03):
            del report[self.chance.choice(["started_at", "execution_time"])]
        return {"execution": report}

    def end(self, kind, ms, run, start_ms=None, **more):
        data = self.metadata()
        if start_ms is not None and self.maybe(0.7):
            data |= self.report(start_ms, max(0, ms - start_ms - self.chance.choice([0, 0, 250, 1800])))
        if kind == "killed" and self.maybe(0.8):
            data["kill_reason"] = self.chance.choice(["request", "timeout", "orphaned"])
        self.tell(kind, ms, run, data, **more)

    def set_timeout(self, ms, to_ms, run, **more):
        self.tell("updated", ms, run, {"set_timeout": ledger_model.rfc3339(to_ms), **self.metadata()}, **more)

    def code(self, ms, run=None, source=None, execution_id=None, **fields):
        duration = self.chance.choice([0, 80, 100, 1250, 30000, 301000])
        inner = {"execution_id": execution_id or self.uuid(), "language": "python", "duration_ms": duration,
                 "exit_code": self.chance.choice([0, 0, 0, None, 1, -9]), "timed_out": self.maybe(0.1), "error": None}
        inner |= {"vcpu_count": 2, "memory_mb": 512} if self.maybe(0.6) else {}
        if self.maybe(0.5):
            inner |= {"started_at": ledger_model.rfc3339(ms - duration), "finished_at": ledger_model.rfc3339(ms)}
        if self.maybe(0.2):
            inner["error"] = self.chance.choice([{"name": "ValueError", "value": "no", "traceback": ""}, {"name": "", "value": ""}])
        if self.maybe(0.4):
            inner["status"] = self.chance.choice(["success", "error", "timeout", "killed", "lost"])
        if self.maybe(0.2):
            inner["cost"] = {"amount": self.chance.choice(["0.00666", "0.0000000005", "12"]), "currency": "USD"}
        if self.maybe(0.2):
            inner |= {"attempt": self.chance.randint(1, 3), "final": self.maybe(0.5), "kind": "command"}
        inner.update(fields)
        self.tell("code_executed", ms, run, {"code_execution": inner, **self.metadata()}, source or "executors")

    def any_ms(self):
        """A start: anywhere in some days, now and then exactly on an hour or midnight."""
        ms = BASE_MS + self.chance.randrange(0, 4 * 24 * HOUR)
        return self.chance.choice([ms, ms, ms // 1000 * 1000, ms // HOUR * HOUR, ms // (24 * HOUR) * 24 * HOUR])

    def span_ms(self):
        return self.chance.choice([0, 1, 999, 61_250, 600_000, 600_277, HOUR, 3 * HOUR + 1, 9 * HOUR, 30 * HOUR])


def restyle(chance, body, kind, style):
    """Bytes of a body as one of the senders writes it."""
    body = {k: v for k, v in body.items() if v is not None}
    if not body["event_data"]:
        body["event_data"] = chance.choice([None, {}, ""])
    if style == "bare" and kind in LABELS:
        body = {k: v for k, v in body.items() if k not in ("type", "version")}
        body |= {"event_category": "lifecycle", "event_label": LABELS[kind]}
        if chance.random() < 0.5:
            del body["id"]
    elif style == "v1":
        body["version"] = "v1"
    if chance.random() < 0.05:
        body["event_id"] = body.pop("id", None)
        body = {k: v for k, v in body.items() if v is not None}
    if style in ("camel", "v1"):
        body = {CAMEL.get(k, k): v for k, v in body.items()}
    items = list(body.items())
    chance.shuffle(items)
    return json.dumps(dict(items), separators=(",", ":"), ensure_ascii=chance.random() < 0.5).encode()


# Lives ------------------------------------------------------------------------------------------------------------------

def e2b_life(t, executor=False):
    """created, then pauses and resumes under new run ids, then perhaps killed; each may be missing."""
    at, runs = t.any_ms(), t.chance.randint(1, 4)
    for number in range(runs):
        run, start, span = t.uuid(), at, t.span_ms()
        begin = start + t.chance.choice([0, 0, 120, 1500])  # boot: what a report counts from
        if t.maybe(0.85):
            t.tell("resumed" if number else t.chance.choice(["created", "created", "resumed", "forked"]), start, run,
                   t.metadata() | ({"startup_ms": t.chance.randrange(3000)} if t.maybe(0.1) else {}))
        if executor and t.maybe(0.8):
            t.tell("created", start + t.chance.choice([-40, 0, 300, 5000]), None,
                   {"startup_ms": t.chance.choice([99, 100, 170, 2500, 20000])}, "executors")
        end = start + span
        for _ in range(t.chance.choice([0, 0, 1, 3])):
            moment = start + t.chance.randint(-1000, span + 1000)
            t.set_timeout(moment, moment + t.chance.choice([-HOUR, 0, 5 * MINUTE, HOUR, 400 * 24 * HOUR]), run)
        for _ in range(t.chance.choice([0, 0, 2])):
            t.code(start + t.chance.randint(0, span + 2000), run if t.maybe(0.5) else None)
        if t.maybe(0.1):
            t.tell("checkpointed", start + span // 2, run, t.metadata())
        if t.maybe(0.8):
            last = number == runs - 1 and t.maybe(0.6)
            t.end("killed" if last else "paused", end, run, min(begin, end))
        at = end + t.chance.choice([0, 1, 700, 5 * MINUTE, 6 * HOUR, 24 * HOUR])


def mixed_life(t):
    """The same, with an executor's reports beside it that know no run id."""
    e2b_life(t, executor=True)


def loose_life(t):
    """AgentENV: no run ids, no team, no reports; starts, forks, pauses, timeouts."""
    t.team, at = NIL, t.any_ms()
    for number in range(t.chance.randint(1, 4)):
        span = t.span_ms()
        if t.maybe(0.85):
            kind = "resumed" if number else t.chance.choice(["created", "created", "forked"])
            t.tell(kind, at, None, {"source_sandbox_id": "ooi8ijkq81kj"} if kind == "forked" else t.metadata())
        for _ in range(t.chance.choice([0, 0, 1, 2])):
            moment = at + t.chance.randint(-1000, span + 1000)
            t.set_timeout(moment, moment + t.chance.choice([0, 5 * MINUTE, HOUR, 20 * HOUR]), None)
        for _ in range(t.chance.choice([0, 1])):
            t.code(at + t.chance.randint(0, span + 1000), None)
        if t.maybe(0.75):
            t.end(t.chance.choice(["paused", "paused", "killed"]), at + span, None, at if t.maybe(0.3) else None)
        at += span + t.chance.choice([0, 1, 1000, HOUR])


def executor_life(t):
    """Only what an executor knows: created with its start-up time, executions and their corrections."""
    at = t.any_ms()
    t.source = "executors"
    if t.maybe(0.7):
        t.tell("created", at, None, {"startup_ms": t.chance.choice([0, 100, 101, 700, 9000])})
    for _ in range(t.chance.randint(1, 4)):
        moment, same = at + t.chance.randint(-1000, HOUR), t.uuid()
        for _ in range(t.chance.choice([1, 1, 2, 3])):
            t.code(moment + t.chance.choice([0, 0, 1, 5000]), None, execution_id=same)


def recent_life(t):
    """Running now, or just not any more; every instant that matters is hours or minutes away from the present."""
    start = t.now_ms - t.chance.randrange(10 * MINUTE, 30 * MINUTE)
    named = t.uuid() if t.maybe(0.6) else None
    t.tell("created", start, named, t.metadata())
    for _ in range(t.chance.randint(0, 3)):
        moment = start + t.chance.randrange(0, 5 * MINUTE)
        t.set_timeout(moment, t.now_ms + t.chance.choice([-4 * MINUTE, 3 * HOUR, 5 * HOUR]), named if t.maybe(0.7) else None)
    if t.maybe(0.5):
        t.code(start + MINUTE, named if t.maybe(0.5) else None)
    if t.maybe(0.2):
        t.end(t.chance.choice(["paused", "killed"]), t.now_ms - 3 * MINUTE, named, start)


def chaos(t):
    """Facts thrown on a narrow grid; a few run ids, or none at all."""
    at = t.any_ms()
    runs = t.chance.choice([[None], [t.uuid()], [t.uuid(), t.uuid(), t.uuid()], [None, t.uuid()], [None, None, t.uuid(), t.uuid()]])
    for _ in range(t.chance.randint(2, 9)):
        run, ms = t.chance.choice(runs), at + t.chance.randrange(8) * 10 * MINUTE + t.chance.choice([0, 0, 0, 0, 1])
        source = t.chance.choice(["e2b", "e2b", "lab", "executors"])
        template = t.chance.choice([t.template, t.template, UNKNOWN, BIG, None])
        more = {"source": source, "sandbox_template_id": template, "sandbox_team_id": t.chance.choice([*TEAMS, NIL, None])}
        what = t.chance.randrange(10)
        if what < 3:
            t.tell(t.chance.choice(["created", "resumed", "forked"]), ms, run, t.metadata(), **more)
        elif what < 6:
            t.end(t.chance.choice(["paused", "paused", "killed"]), ms, run,
                  min(ms, at + t.chance.randrange(8) * 10 * MINUTE) if t.maybe(0.5) else None, **more)
        elif what < 8:
            t.set_timeout(ms, at + t.chance.randrange(-2, 12) * 10 * MINUTE, run, **more)
        elif what == 8:
            t.code(ms, run)
        else:
            t.tell(t.chance.choice(["checkpointed", "snapshotted"]), ms, run, t.metadata(), **more)


def drop_backward(bodies):
    """Leaves out a start behind an end of the same named run: what the sandbox then is, no rule says."""
    plain = ledger_model.Terms([], {}, set(), 0)
    events = [ledger_model.Event(source, body, plain) for source, body in bodies]
    ends = {}
    for e in events:
        if e.kind in ledger_model.ENDS and e.run:
            ends[e.run] = min(e.ns, ends.get(e.run, e.ns))
    return [item for item, e in zip(bodies, events)
            if e.kind not in ledger_model.STARTS or e.run not in ends or e.ns <= ends[e.run]]


# What goes wrong -----------------------------------------------------------------------------------------------------------

def spoil(chance, bodies):
    """Repeats: exact ones, and the same or something else about it under another id."""
    result = list(bodies)
    for source, body in bodies:
        dice = chance.random()
        if dice < 0.06:
            result.append((source, body))
        elif dice < 0.12:
            again = json.loads(body)
            name = "id" if "id" in again else "event_id" if "event_id" in again else None
            if name is None:
                continue
            again[name] = f"again-{chance.getrandbits(48):012x}"
            if chance.random() < 0.4:
                later = ledger_model.parse_ms(again["timestamp"]) + chance.choice([1, 1000, 60_000])
                again["timestamp"] = ledger_model.rfc3339(later)
            result.append((source, json.dumps(again, separators=(",", ":")).encode()))
    return result


def strays(chance):
    """What must not count, or hardly."""
    result = []
    for number in range(chance.randint(0, 4)):
        teller = Teller(chance, f"stray{number}", 0)
        kind = chance.choice(["e2b-hookd.test", "sandbox.lifecycle.vanished", "billing.closed", "e2b-hookd.test"])
        teller.style = "v2"
        teller.tell("x", teller.any_ms(), teller.uuid() if chance.random() < 0.5 else None, {"set_timeout": "2024-03-09T00:00:00Z"},
                    type=kind, sandbox_id=chance.choice([f"stray{number}", None]))
        result += teller.bodies
    return result
