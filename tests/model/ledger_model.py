"""What the ledger must say, told a second time: from a set of events, a configuration and a clock to the rows of every view.

Written from CONTRACT.md 4 and 5 and the rules in include/ledger.h, not from the code. Slow and plain on purpose: nothing is
kept between calls, money is a Fraction until it is rounded once, and the order in which events are given cannot matter,
since they are sorted first. A view is a list of dicts named like its columns, without those that tell of the log's order.
Where those texts leave room at the edges (which of two starts in one instant is the next, what a report does whose start lies
before the start event, whom a loose start at the very end of a run belongs to), the model says what the daemon was seen to
do: there it guards against change and independence ends. It does not judge deliveries: what is given here counts as stored.
Python 3.11, standard library only.
"""
import bisect
import collections
import dataclasses
import datetime
import hashlib
import json
import re
from fractions import Fraction

HOUR, DAY = 3_600_000, 86_400_000
STARTS, ENDS = ("created", "resumed", "forked"), ("paused", "killed")
LABELS = {"create": "created", "resume": "resumed", "update": "updated", "pause": "paused", "kill": "killed", "delete": "killed",
          "terminate": "killed", "checkpoint": "checkpointed", "fork": "forked", "deleted": "killed", "terminated": "killed"}
KINDS = ("created", "resumed", "updated", "paused", "killed", "checkpointed", "forked", "code_executed")
DURATIONS = (100, 300, 1000, 3000, 10000, 30000, 100000, 300000)
STARTUPS = (100, 200, 300, 500, 1000, 2000, 5000, 10000)


@dataclasses.dataclass
class Terms:
    """A configuration: prices is [(from_ms, vcpu_second_usd, gib_second_usd)] in order, the first from the beginning of time;
    templates is id -> (alias, vcpu, memory_mb), each or None; sources that are not priced; max_run_ms."""
    prices: list
    templates: dict
    unpriced: set
    max_run_ms: int

    def template_id(self, name):
        return next((i for i, (alias, _, _) in self.templates.items() if alias is not None and alias == name), name)

    def alias(self, template_id):
        return self.templates.get(template_id, (None, None, None))[0] or template_id

    def size(self, template_id):
        return self.templates.get(template_id, (None, None, None))[1:]

    def cost(self, source, at_ms, duration_ms, vcpu, memory_mb):
        """Nano-USD, half up; None if it cannot be known."""
        if source in self.unpriced or vcpu is None or memory_mb is None:
            return None
        _, vcpu_usd, gib_usd = self.prices[bisect.bisect_right([p[0] for p in self.prices[1:]], at_ms)]
        usd = Fraction(duration_ms, 1000) * (vcpu * Fraction(vcpu_usd) + Fraction(memory_mb, 1024) * Fraction(gib_usd))
        nano = int(usd * 10**9 + Fraction(1, 2))
        return nano if nano < 2**63 else None


# Events -----------------------------------------------------------------------------------------------------------------

def parse_ns(text):
    date, clock, fraction, zone = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text).groups()
    moment = datetime.datetime.fromisoformat(f"{date}T{clock}" + ("+00:00" if zone == "Z" else zone))
    return int(moment.timestamp()) * 10**9 + int((fraction or ".0")[1:].ljust(9, "0")[:9])


def parse_ms(text):
    return parse_ns(text) // 10**6


def rfc3339(ms):
    if ms is None:
        return None
    moment = datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def identifier(value):
    """None where it is missing: absent, null, empty or the nil UUID."""
    return None if not value or not value.replace("-", "").strip("0") and len(value) in (32, 36) else value


class Event:
    def __init__(self, source, body, terms):
        said = json.loads(body)
        self.source = source
        self.id = identifier(said.get("id") or said.get("event_id")) or "body:" + hashlib.sha256(body).hexdigest()[:32]
        self.ns = parse_ns(said["timestamp"]) if "timestamp" in said else said["occurred_at_ms"] * 10**6
        self.ms = self.ns // 10**6
        self.key = self.ns, self.id.encode()
        self.kind = kind_of(said)
        self.sandbox = identifier(either(said, "sandbox_id", "sandboxId"))
        self.run = identifier(either(said, "sandbox_execution_id", "sandboxExecutionId"))
        template = identifier(either(said, "sandbox_template_id", "sandboxTemplateId")) or \
            identifier(either(said, "sandbox_template_alias", "sandboxTemplateAlias"))
        self.template = terms.template_id(template) if template else None
        self.team = identifier(either(said, "sandbox_team_id", "sandboxTeamId"))
        data = either(said, "event_data", "eventData") or {}
        if isinstance(data, str):
            data = json.loads(data)
        self.metadata = data.get("sandbox_metadata") or None
        self.startup_ms = data.get("startup_ms") if self.kind == "created" else None
        self.timeout_ms = parse_ms(data["set_timeout"]) if self.kind == "updated" and data.get("set_timeout") else None
        self.kill_reason = (data.get("kill_reason") or said.get("kill_reason") or None) if self.kind == "killed" else None
        self.report = report_of(data.get("execution")) if self.kind in ENDS else None
        self.said = data.get("code_execution") if self.kind == "code_executed" else None

    def __repr__(self):
        return f"{self.kind}({self.sandbox}, {self.run}, {rfc3339(self.ms)}+{self.ns % 10**6}ns, {self.id})"


def either(said, *names):
    return next((said[n] for n in names if said.get(n) is not None), None)


def kind_of(said):
    kind = said.get("type")
    if kind is None:
        label = either(said, "event_label", "eventLabel")
        if either(said, "event_category", "eventCategory") == "code":
            return "code_executed"
        return label if label in KINDS else LABELS.get(label, "other")
    if kind == "e2b-hookd.test":
        return "test"
    verb = re.fullmatch(r"sandbox\.(?:lifecycle\.)?(\w+)", kind)
    verb = {"deleted": "killed", "terminated": "killed"}.get(verb[1], verb[1]) if verb else None
    return verb if verb in KINDS else "other"


def report_of(said):
    """(started_ms, duration_ms, vcpu, memory_mb) or None."""
    if not said or said.get("started_at") is None or said.get("execution_time") is None:
        return None
    length = said["execution_time"]
    if isinstance(length, float):
        length = int(Fraction(repr(length)) * 1000 + Fraction(1, 2))
    return parse_ms(said["started_at"]), length, said.get("vcpu_count"), said.get("memory_mb")


# Runs -------------------------------------------------------------------------------------------------------------------

class Run:
    """Facts (start, end, timeouts: events) and what they come to."""

    def __init__(self, run_id=None, start=None, end=None):
        self.id, self.start, self.end, self.timeouts = run_id, start, end, []
        self.ended_ms = self.end_kind = self.kill_reason = self.runtime_ms = self.cost = None
        self.cost_source = "unknown"

    @property
    def report(self):
        return self.end.report if self.end else None

    @property
    def started_ms(self):
        if self.report:
            return self.report[0]
        return self.start.ms if self.start else None

    @property
    def told_end_ms(self):
        """The end, where somebody reported it."""
        if not self.end:
            return None
        if self.report:
            return self.report[0] + self.report[1]
        return max(self.end.ms, self.start.ms) if self.start else self.end.ms

    @property
    def begin_ns(self):
        """What orders the runs of a sandbox: a report's start is cut to the second, so the start event's time goes first."""
        return self.start.ns if self.start else self.report[0] * 10**6

    @property
    def order(self):
        return self.begin_ns, self.id.encode()

    @property
    def end_ns(self):
        """After settling; an open run ends never."""
        if self.is_open():
            return float("inf")
        if self.end and not self.report:
            return max(self.end.ns, self.start.ns) if self.start else self.end.ns
        return self.ended_ms * 10**6

    def holds(self, event, following):
        return self.begin_ns <= event.ns and (not following or event.ns < following.begin_ns)

    @property
    def time_ms(self):
        return self.ended_ms if self.started_ms is None else self.started_ms

    @property
    def expires_ms(self):
        """What the latest set_timeout says, if it lies behind the start."""
        latest = max(self.timeouts, key=lambda e: e.key, default=None)
        return latest.timeout_ms if latest and latest.timeout_ms > self.started_ms else None

    def is_open(self):
        return self.end_kind is None

    def settle(self, following, killed, sandbox, terms, now_ms):
        self.dimensions(sandbox, terms)
        if self.started_ms is None:
            self.ended_ms, self.end_kind, self.kill_reason = self.end.ms, self.end.kind, self.end.kill_reason
            return
        if self.end:
            self.ended_ms, self.end_kind, self.kill_reason = self.told_end_ms, self.end.kind, self.end.kill_reason
        else:
            self.close(following, killed, terms, now_ms)
        if self.is_open():
            return
        self.runtime_ms = self.ended_ms - self.started_ms
        self.cost = terms.cost(self.source, self.started_ms, self.runtime_ms, self.vcpu, self.memory_mb)
        if self.cost is not None:
            self.cost_source = "reported" if self.report else "estimated"

    def close(self, following, killed, terms, now_ms):
        """A missing end: the earliest that may be, once it has passed."""
        ends, passed = [], now_ms
        if following:
            at = max(self.started_ms, following.started_ms)
            if following.start and following.told_end_ms is not None and following.told_end_ms <= self.started_ms:
                at = following.start.ms  # its report is about an earlier time; that it began is known all the same
            ends.append((at, 0, "next_start"))
            passed = max(passed, at)
        if self.expires_ms is not None:
            ends.append((self.expires_ms, 1, "timeout"))
        ends.append((self.started_ms + terms.max_run_ms, 2, "max_run"))
        if killed and killed.ns >= self.start.ns:
            ends.append((killed.ms, 3, "killed"))
            passed = max(passed, killed.ms)
        at, _, kind = min(ends)
        if at <= passed:
            self.ended_ms, self.end_kind = at, kind
            self.kill_reason = killed.kill_reason if kind == "killed" else None

    def dimensions(self, sandbox, terms):
        told = [e for e in (self.end, self.start) if e]
        self.source = told[0].source
        self.template = next((e.template for e in told if e.template), sandbox.template)
        self.team = next((e.team for e in told if e.team), sandbox.team)
        vcpu, memory_mb = terms.size(self.template)
        self.vcpu, self.memory_mb = (self.report[2:] if self.report else (None, None))
        self.vcpu = vcpu if self.vcpu is None else self.vcpu
        self.memory_mb = memory_mb if self.memory_mb is None else self.memory_mb


def next_of(runs, run):
    """The next start in the sandbox, by start, then id."""
    later = [r for r in runs if r.started_ms is not None and r.order > run.order]
    return min(later, key=lambda r: r.order, default=None)


def loose_runs(sandbox_id, loose):
    """The runs of a sandbox none of whose events names one."""
    runs, current = [], None
    pending = sorted(loose, key=lambda e: e.key)
    while pending:
        group = [e for e in pending if e.ns == pending[0].ns]
        pending = pending[len(group):]
        if current and not current.end:  # at one instant the end of an open run comes first, else a start
            group.sort(key=lambda e: e.kind in STARTS)
        else:
            group.sort(key=lambda e: e.kind not in STARTS)
        for event in group:
            if event.kind in STARTS:
                if current and not current.end and current.start.ms == event.ms:
                    current.start = event  # the same start again
                else:
                    current = Run(start=event)
                    runs.append(current)
            elif event.kind in ENDS and current and not current.end:
                current.end = event
            elif event.kind in ENDS and event.report:
                if current and event.report[0] < current.told_end_ms:
                    current.end = event
                else:
                    current = Run(end=event)
                    runs.append(current)
    unique = {}
    for run in runs:
        run.id = f"{sandbox_id}@{rfc3339(run.started_ms)}"
        unique[run.id] = run
    return list(unique.values())


def lend_start(run, runs, starts):
    """A loose start for a named run of which only an end without a report is known."""
    before = [s for s in starts if s.ns < run.end.ns]
    same = [s for s in starts if s.ns == run.end.ns]
    lendable = [s for s in (before[-1:] + same[-1:]) if is_free(s, run, runs)]
    run.lent = lendable[0] if lendable else None


def is_free(start, run, runs):
    """No other run began or ended since, nor is known to have been up then."""
    for other in runs:
        if other is run:
            continue
        began = other.begin_ns if other.start or other.report else None
        ended = None if other.told_end_ms is None else other.end.ns if not other.report else other.told_end_ms * 10**6
        if began is not None and (began == start.ns or start.ns < began < run.end.ns):
            return False
        if ended is not None and start.ns < ended and (ended < run.end.ns or ended == run.end.ns and other.id < run.id):
            return False
        if began is not None and ended is not None and began <= start.ns < ended:
            return False
    return True


def named_runs(events, loose):
    runs = {}
    for event in sorted(events, key=lambda e: e.key):
        if event.run:
            run = runs.setdefault(event.run, Run(event.run))
            if event.kind in STARTS:
                run.start = event
            elif event.kind in ENDS:
                run.end = event
            elif event.timeout_ms is not None:
                run.timeouts.append(event)
    starts = [e for e in loose if e.kind in STARTS]
    ends = sorted((e for e in loose if e.kind in ENDS), key=lambda e: e.key)
    for run in runs.values():
        run.lent = None
    for run in runs.values():
        if run.end and run.started_ms is None:
            lend_start(run, runs.values(), starts)
    for run in runs.values():
        run.start = run.start or run.lent
    begun = [r for r in runs.values() if r.started_ms is not None]
    for run, following in [(r, next_of(begun, r)) for r in sorted(begun, key=lambda r: r.order)]:
        if not run.end:  # at one instant the end of a run comes before the start of the next
            run.end_lent = next((e for e in ends if run.holds(e, following) or
                                 following and run.begin_ns <= e.ns == following.begin_ns), None)
            if run.end_lent:
                ends.remove(run.end_lent)
    for run in begun:
        run.end = run.end or run.end_lent
    return [r for r in runs.values() if r.start or r.end]


class Sandbox:
    def __init__(self, sandbox_id, events, terms, now_ms):
        events = sorted(events, key=lambda e: e.key)
        self.id, self.events = sandbox_id, events
        self.template = self.latest("template")
        self.team = self.latest("team")
        self.killed = max((e for e in events if e.kind == "killed"), key=lambda e: e.key, default=None)
        startups = [e for e in events if e.startup_ms is not None]
        self.startup = startups[-1] if startups else None
        loose = [e for e in events if not e.run and (e.kind in STARTS + ENDS or e.timeout_ms is not None)]
        if any(e.run for e in events):
            self.runs = named_runs(events, loose)
        else:
            self.runs = loose_runs(sandbox_id, loose)
        self.settle_runs(loose, terms, now_ms)
        self.find_state()

    def latest(self, name):
        return next((getattr(e, name) for e in reversed(self.events) if getattr(e, name)), None)

    def settle_runs(self, loose, terms, now_ms):
        begun = [r for r in self.runs if r.started_ms is not None]
        for run in self.runs:
            following = next_of(begun, run) if run.started_ms is not None else None
            if run.started_ms is not None:
                run.timeouts += [e for e in loose if e.timeout_ms is not None and run.holds(e, following)]
            run.settle(following, self.killed, self, terms, now_ms)
        self.runs.sort(key=lambda r: (r.end.ns if r.started_ms is None else r.begin_ns, r.id.encode()))

    def find_state(self):
        """killed; else what the latest start or end makes of it: running only while a run is open, unknown where nobody
        reported the end. Beside named runs a loose start is an echo of one, or, behind all of them, of one unheard of.
        At one instant an end comes before a start."""
        self.open = next((r for r in self.runs if r.is_open()), None)
        named = any(e.run for e in self.events)
        told = sorted((e for e in self.events if e.kind in STARTS + ENDS), key=lambda e: (e.ns, e.kind in STARTS, e.id))
        begun = [r for r in self.runs if r.started_ms is not None]
        unheard = []
        if named:
            echoes = [e for e in told if not e.run and e.kind in STARTS]
            told = [e for e in told if e not in echoes]
            unheard = [e for e in echoes if (not told or told[-1].ns <= e.ns) and
                       not any(r.begin_ns == e.ns or r.begin_ns < e.ns < r.end_ns for r in begun)]
        if self.killed:
            self.state = "killed"
        elif not told or unheard:
            self.state = "unknown"
        elif told[-1].kind == "paused" and (named or not begun):
            self.state = "paused"
        elif self.open:
            self.state = "running"
        else:
            own = [r for r in begun if r.start is told[-1]] or begun
            self.state = "paused" if own and own[-1].end else "unknown"

    def run_at(self, ms):
        up = [r for r in self.runs if r.started_ms is not None and r.started_ms <= ms and
              (r.is_open() or ms <= r.ended_ms)]
        return max(up, key=lambda r: (r.started_ms, r.id.encode()), default=None)


# Executions --------------------------------------------------------------------------------------------------------------

def status_of(said):
    """(status, failed): any sign of failure counts."""
    bad_exit = said.get("exit_code") not in (None, 0)
    sign = bool(said.get("timed_out") or said.get("error") is not None or bad_exit)
    status = said.get("status")
    if status in ("error", "timeout", "killed"):
        return status, True
    if sign or status not in (None, "success"):
        return ("timeout" if said.get("timed_out") else "error"), True
    return "success", False


class Execution:
    def __init__(self, event, sandbox, terms):
        said = event.said
        self.event, self.said, self.sandbox = event, said, sandbox
        self.id = said["execution_id"]
        self.started_ms = parse_ms(said["started_at"]) if said.get("started_at") else None
        self.finished_ms = parse_ms(said["finished_at"]) if said.get("finished_at") else None
        self.duration_ms = said["duration_ms"]
        self.time_ms = event.ms if self.started_ms is None else self.started_ms
        self.status, self.failed = status_of(said)
        covering = sandbox.run_at(self.time_ms)
        self.run_id = event.run or (covering.id if covering else None)
        self.cost, self.cost_source = self.attribute(terms)

    def attribute(self, terms):
        if self.event.source in terms.unpriced:
            return None, "unknown"
        cost = self.said.get("cost")
        if cost and cost.get("amount") and cost.get("currency") in (None, "USD"):
            return int(Fraction(cost["amount"]) * 10**9 + Fraction(1, 2)), "reported"
        vcpu, memory_mb = terms.size(self.event.template)
        vcpu = self.said.get("vcpu_count") or vcpu
        memory_mb = self.said.get("memory_mb") or memory_mb
        begin = self.event.ms - self.duration_ms if self.started_ms is None else self.started_ms
        nano = terms.cost(self.event.source, begin, self.duration_ms, vcpu, memory_mb)
        return nano, "unknown" if nano is None else "computed"


# Views -------------------------------------------------------------------------------------------------------------------

def usd(nano):
    return None if nano is None else nano / 1e9


class Ledger:
    """bodies: pairs of source and body, any order, repeats allowed."""

    def __init__(self, bodies, terms, now_ms):
        self.terms, self.now_ms = terms, now_ms
        self.events = [e for e in (Event(source, body, terms) for source, body in set(bodies)) if e.kind != "test"]
        by_sandbox = collections.defaultdict(list)
        for event in self.events:
            if event.sandbox:
                by_sandbox[event.sandbox].append(event)
        self.sandboxes = {i: Sandbox(i, events, terms, now_ms) for i, events in by_sandbox.items()}
        latest = {}
        for event in sorted(self.events, key=lambda e: e.key):
            if event.kind == "code_executed":
                latest[event.sandbox, event.said["execution_id"]] = event
        self.executions = [Execution(e, self.sandboxes[e.sandbox], terms) for e in latest.values()]
        self.runs = [(s, r) for s in self.sandboxes.values() for r in s.runs]

    def views(self):
        return {"sandboxes": self.view_sandboxes(), "running": self.view_running(), "runs": self.view_runs(),
                "executions": self.view_executions(), "failed_executions": [x for x in self.view_executions() if x["failed"]],
                "cost_hourly": self.view_cost(HOUR), "cost_daily": self.view_cost(DAY),
                "activity_hourly": self.view_activity(), "template_hourly": self.view_template_hourly(),
                "template_stats": self.view_template_stats()}

    def place(self, template, team=...):
        row = {"template_id": template, "template": self.terms.alias(template)}
        return row if team is ... else row | {"team_id": team}

    def view_sandboxes(self):
        rows = []
        for s in self.sandboxes.values():
            last = s.events[-1]
            source, template, team = shown(s)
            starts = [r.started_ms for r in s.runs if r.started_ms is not None]
            created = min(starts, default=None)
            expires = s.open.expires_ms if s.state == "running" else None
            own = [x for x in self.executions if x.sandbox is s]
            cost = known_cost(s.runs)
            rows.append({"sandbox_id": s.id, "time": (s.events[0].ms if created is None else created) // 1000,
                         "created_at": rfc3339(created), "ended_at": rfc3339(s.killed.ms if s.killed else None),
                         "last_event_at": rfc3339(last.ms), "expires_at": rfc3339(expires), "source": source,
                         **self.place(template, team), "state": s.state,
                         "kill_reason": s.killed.kill_reason if s.killed else None,
                         "startup_ms": s.startup.startup_ms if s.startup else None, "runs": len(s.runs),
                         "runtime_ms": sum(r.runtime_ms or 0 for r in s.runs), "cost_nanousd": cost, "cost_usd": usd(cost),
                         "executions": len(own), "failed_executions": sum(x.failed for x in own),
                         "metadata": s.latest("metadata")})
        return rows

    def view_runs(self):
        return [{"run_id": r.id, "sandbox_id": s.id, "time": r.time_ms // 1000, "started_at": rfc3339(r.started_ms),
                 "ended_at": rfc3339(r.ended_ms), "end_kind": r.end_kind, "kill_reason": r.kill_reason, "source": r.source,
                 **self.place(r.template, r.team), "vcpu_count": r.vcpu, "memory_mb": r.memory_mb,
                 "runtime_ms": r.runtime_ms, "cost_nanousd": r.cost, "cost_usd": usd(r.cost), "cost_source": r.cost_source}
                for s, r in self.runs]

    def view_running(self):
        rows = []
        for s, r in self.runs:
            if not r.is_open() or s.state == "killed":  # killed is final, whatever started later
                continue
            accrued = max(0, self.now_ms - r.started_ms)
            rows.append({"sandbox_id": s.id, "run_id": r.id, "time": r.started_ms // 1000,
                         "started_at": rfc3339(r.started_ms), "expires_at": rfc3339(r.expires_ms),
                         **self.place(r.template, r.team), "vcpu_count": r.vcpu, "memory_mb": r.memory_mb,
                         "accrued_ms": accrued,
                         "accrued_cost_usd": usd(self.terms.cost(r.source, r.started_ms, accrued, r.vcpu, r.memory_mb))})
        return rows

    def view_executions(self):
        rows = []
        for x in self.executions:
            error = x.said.get("error")
            name, value = (None, error or None) if isinstance(error, str) else \
                ((error or {}).get("name") or None, (error or {}).get("value") or None)
            rows.append({"execution_id": x.id, "event_id": x.event.id, "time": x.time_ms // 1000,
                         "started_at": rfc3339(x.started_ms), "finished_at": rfc3339(x.finished_ms),
                         "sandbox_id": x.event.sandbox, "run_id": x.run_id, "source": x.event.source,
                         **self.place(x.event.template, x.event.team), "execution_kind": x.said.get("kind") or "code",
                         "language": x.said.get("language"), "status": x.status, "failed": int(x.failed),
                         "exit_code": x.said.get("exit_code"), "error_name": name, "error_value": value,
                         "duration_ms": x.duration_ms, "attempt": x.said.get("attempt") or 1,
                         "final": int(x.said.get("final") is not False), "vcpu_count": x.said.get("vcpu_count"),
                         "memory_mb": x.said.get("memory_mb"), "attributed_cost_nanousd": x.cost,
                         "attributed_cost_usd": usd(x.cost), "cost_source": x.cost_source})
        return rows

    def share(self, run, begin, end):
        """(time, money) of a run within an interval: differences of what has come together until its ends."""
        def until(t):
            ms = max(0, min(t, run.ended_ms) - run.started_ms)
            cost = 0 if run.cost is None else \
                self.terms.cost(run.source, run.started_ms, ms, run.vcpu, run.memory_mb)
            return ms, cost
        (ms0, cost0), (ms1, cost1) = until(begin), until(end)
        return ms1 - ms0, cost1 - cost0

    def view_cost(self, step):
        sums = collections.defaultdict(lambda: [0, 0, 0, 0, 0])
        for _, r in self.runs:
            if r.is_open():
                continue
            place = r.source, r.template, r.team
            last = sums[(r.ended_ms // step * step, *place)]
            last[3] += 1
            last[4] += r.cost is None
            for begin in range(r.started_ms // step * step, r.ended_ms, step) if r.started_ms is not None else ():
                ms, cost = self.share(r, begin, begin + step)
                row = sums[(begin, *place)]
                row[0] += ms
                row[1] += cost
                row[2] += cost if r.cost_source == "estimated" else 0
        rows = []
        for (at, source, template, team), (ms, cost, estimated, ended, unknown) in sums.items():
            name = {"hour_at": rfc3339(at)} if step == HOUR else {"day": rfc3339(at)[:10]}
            rows.append({"time": at // 1000, **name, "source": source, **self.place(template, team), "runtime_ms": ms,
                         "cost_nanousd": cost, "cost_usd": usd(cost), "estimated_nanousd": estimated, "runs_ended": ended,
                         "unknown_cost": unknown})
        return rows

    def view_activity(self):
        counts = collections.Counter((e.ms // HOUR * HOUR, e.template, e.kind) for e in self.events)
        return [{"time": at // 1000, "hour_at": rfc3339(at), **self.place(template), "kind": kind, "events": n}
                for (at, template, kind), n in counts.items()]

    def view_template_hourly(self):
        hours = collections.defaultdict(lambda: ([], []))
        for x in self.executions:
            hours[x.time_ms // HOUR * HOUR, x.event.template][0].append(x)
        for s in self.sandboxes.values():
            if s.startup:
                hours[s.startup.ms // HOUR * HOUR, shown(s)[1]][1].append(s.startup.startup_ms)
        rows = []
        for (at, template), (ran, started) in hours.items():
            rows.append({"time": at // 1000, "hour_at": rfc3339(at), **self.place(template), "executions": len(ran),
                         "failed": sum(x.failed for x in ran), "timeouts": sum(x.status == "timeout" for x in ran),
                         "duration_ms": sum(x.duration_ms for x in ran),
                         **{f"duration_le_{n}": sum(x.duration_ms <= n for x in ran) for n in DURATIONS},
                         "startups": len(started), "startup_ms": sum(started),
                         **{f"startup_le_{n}": sum(ms <= n for ms in started) for n in STARTUPS}})
        return rows

    def view_template_stats(self):
        rows = []
        places = {e.template for e in self.events}
        for template in places | {r.template for _, r in self.runs} | {shown(s)[1] for s in self.sandboxes.values()}:
            boxes = [s for s in self.sandboxes.values() if shown(s)[1] == template]
            runs = [r for _, r in self.runs if r.template == template]
            ran = [x for x in self.executions if x.event.template == template]
            startups = [s.startup.startup_ms for s in boxes if s.startup]
            if not (boxes or runs or ran):
                continue
            cost = known_cost(runs)
            last = max((e.ms for e in self.events if e.template == template), default=None)
            rows.append({**self.place(template), "sandboxes": len(boxes), "running": sum(s.state == "running" for s in boxes),
                         "runs": len(runs), "runtime_ms": sum(r.runtime_ms or 0 for r in runs), "cost_nanousd": cost,
                         "cost_usd": usd(cost), "executions": len(ran), "failed_executions": sum(x.failed for x in ran),
                         "failure_rate": sum(x.failed for x in ran) / len(ran) if ran else None,
                         "mean_duration_ms": sum(x.duration_ms for x in ran) / len(ran) if ran else None,
                         "mean_startup_ms": sum(startups) / len(startups) if startups else None,
                         "last_event_at": rfc3339(last)})
        return rows


def known_cost(runs):
    """The sum of what is known; None where nothing is, though something ended."""
    cost = sum(r.cost or 0 for r in runs)
    return None if cost == 0 and any(r.cost is None and not r.is_open() for r in runs) else cost


def shown(sandbox):
    """source, template and team as the sandbox's row tells them: of its latest run, else of its latest events."""
    if sandbox.runs:
        run = sandbox.runs[-1]
        return run.source, run.template, run.team
    return sandbox.events[-1].source, sandbox.template, sandbox.team
