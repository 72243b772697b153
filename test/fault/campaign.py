"""One run: a cluster, a load, the faults of a schedule, and all checkers."""

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [p for p in (HERE, os.path.join(os.path.dirname(HERE), "cluster")) if p not in sys.path]

# pylint: disable=wrong-import-position
import check_append
import check_copies
import check_gates
import check_register
import faults
import harness
import lab as laboratory
import load
import pipeline
import schedule
import workload


RECOVERY_S = 30.0  # from the end of the last fault until all is whole
FAILOVER_S = 10.0  # from the end of a leader's host until another has taken a write, when nothing else is wrong
MAY_END_WITH = (0, 75, 137, -9)  # a node: asked to; to be started again; killed


@dataclasses.dataclass
class Result:
    seed: int
    seconds: float
    nodes: int
    version: str
    begun: float                       # wall clock
    events: list                       # of the schedule, as text
    done: list = None                  # (wall clock, where, text)
    spans: list = None                 # gates
    acks: list = None                  # wall clock of each acknowledged row
    counts: dict = dataclasses.field(default_factory=dict)
    missed: int = 0                    # of the events: who was to be hit was not there, or could not be
    recovery_s: float = None
    failover_s: float = None
    anomalies: list = dataclasses.field(default_factory=list)
    trouble: str = ""                  # what kept the run from its end
    offset: float = 0.0                # wall clock minus CLOCK_BOOTTIME, seconds
    pool: str = "session"
    patience: float = 1.0              # times RECOVERY_S: for a machine that has more to do than this

    @property
    def bound_s(self):
        return RECOVERY_S * self.patience

    @property
    def slow(self):
        return (self.recovery_s is not None and self.recovery_s > self.bound_s) or self.late

    @property
    def late(self):
        return self.failover_s is not None and self.failover_s > FAILOVER_S * self.patience

    @property
    def verdict(self):
        """All but `ok` is a failed run. `slow`: nothing else is wrong with it."""
        whole = not self.anomalies and not self.trouble and self.recovery_s is not None
        return "FAILED" if not whole else "slow" if self.slow else "ok"

    @property
    def passed(self):
        return self.verdict == "ok"

    def facts(self):
        """For programs."""
        return {"seed": self.seed, "verdict": self.verdict, "passed": self.passed, "seconds": self.seconds, "nodes": self.nodes,
                "pool": self.pool, "version": self.version, "faults": len(self.events) - self.missed, "recovery_s": self.recovery_s, "failover_s": self.failover_s, "bound_s": self.bound_s, **self.counts,
                "anomalies": list(map(repr, self.anomalies)), "trouble": self.trouble}

    def _back(self):
        if self.recovery_s is None:
            return "not whole again"
        text = f"whole after {self.recovery_s:.1f} s"
        if self.patience != 1:
            text += f" (bound {self.bound_s:g} s: patience {self.patience:g})"
        if self.recovery_s > self.bound_s:
            text += f", more than {self.bound_s:g} s"
        if self.failover_s is not None:
            text += f", its leader replaced after {self.failover_s:.1f} s"
        return text + (f", more than {FAILOVER_S * self.patience:g} s" if self.late else "")

    def _shared(self):
        """How sessions had server connections, and how often one went from one to another."""
        if self.pool != "auto":
            return f"pool {self.pool}"
        return f"pool {self.pool} of {laboratory.POOL_CONNECTIONS}, {self.counts.get('connections taken over', 0)} taken over"

    def line(self):
        c = self.counts
        numbers = (f"{c['rows']} rows, {c['transactions']} transactions, {c['register operations']} register operations,"
                   f" {c['follower reads']} follower reads, {c['epochs']} epochs" if c else "")
        return (f"{self.verdict:6} seed {self.seed}  {self.nodes} nodes, {self._shared()}, {len(self.events) - self.missed} faults, {numbers};"
                f" {self._back()}")


def tally(results):
    """How many passed and failed, in words; and how many failed."""
    failed = [r for r in results if not r.passed]
    slow = sum(r.verdict == "slow" for r in failed)
    return (f"{len(results) - len(failed)} passed, {len(failed)} failed" + (f" ({slow} of them only slow)" if slow else ""),
            len(failed))


class Rows(load.Ledger):
    """A ledger that also keeps when each row was acknowledged, for the picture."""

    def __init__(self):
        super().__init__()
        self.times = []

    def note(self, n, ok, error=None):
        super().note(n, ok, error)
        if ok:
            self.times.append(time.time())


def version():
    return subprocess.run([harness.BINARY, "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def boot_offset():
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


class Load:
    """All clients at once."""

    def __init__(self, lab, seed):
        self.lab = lab
        lab.execute(workload.Appends.TABLE)
        workload.Registers.make(lab)
        self.rows = load.WriteLoop(lab, clients=2, pause=0.02)
        self.appends = workload.Appends(lab, seed=seed)
        self.registers = workload.Registers(lab, seed=seed)
        self.followers = workload.FollowerReads(lab, self.appends, seed=seed)
        self.fresh = workload.FreshReads(lab, count=2 if len(lab.names()) <= 3 else 0, seed=f"fresh {seed}")
        self.pipes = pipeline.Pipelines(lab, seed=seed)
        self.parts = (self.rows, self.appends, self.registers, self.followers, self.fresh, self.pipes)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *what):
        self._stack.__exit__(*what)

    def check(self):
        """Anomalies of everything that clients saw."""
        lists = {k: list(v) for k, v in self.lab.execute("SELECT k, v FROM lists")}
        registers = {k: (v, n) for k, v, n in self.lab.execute("SELECT k, v, version FROM registers")}
        ops = self.appends.history.of()
        return (self.strange() + check_append.check(ops, lists)
                + check_append.check_followers(self.followers.history.of("follower"), ops, lists)
                + check_register.check(self.registers.history.of() + self.fresh.history.of("fresh")
                                       + self.pipes.history.of("pipeline"), registers)
                + self.pipes.halves(self.lab.ledger_counts()))

    def everywhere(self, wait_s=30.0):
        """Until every node has answered at each of its ports: whoever serves others than it seems is seen by none else."""
        parts = [p for p in (self.appends, self.registers, self.followers, self.fresh) if p.heard_at()]
        for part in parts:
            part.hurry.set()
        harness.wait_until("every node has answered at each of its ports",
                           lambda: all(part.heard_at() >= set(self.lab.names()) for part in parts), wait_s, 0.2)

    def check_so_far(self):
        """Of a cluster that nobody can ask any more: it must not have lied before."""
        return (self.strange() + check_append.check(self.appends.history.of(), None)
                + check_register.check(self.registers.history.of() + self.fresh.history.of("fresh") + self.pipes.history.of("pipeline")))

    def write_history(self, path):
        """Every operation on a line, for other checkers: docs/chaos.md."""
        with open(path, "w", encoding="ascii") as f:
            for part in (self.appends, self.followers, self.registers, self.fresh, self.pipes):
                what = "registers" if part in (self.registers, self.fresh, self.pipes) else "lists"
                for op in part.history.ops:
                    f.write(json.dumps({"what": what, **dataclasses.asdict(op)}) + "\n")

    def strange(self):
        """What clients were told, and no fault can be the cause of."""
        told = [text for part in (self.appends, self.registers, self.followers, self.fresh, self.pipes) for text in part.strange]
        told += [f"a writer: {why}" for why in map(load.strange, self.rows.errors) if why is not None]
        return [check_append.Anomaly("strange", f"{text} ({n} times)") for text, n in collections.Counter(told).items()]

    def idle(self, counts):
        """What has not been tested at all."""
        need = ["rows", "transactions", "register operations", "follower reads by followers", "pipelined transactions"]
        need += ["fresh reads by followers"] if len(self.lab.names()) <= 3 else []
        return [what for what in need if not counts[what]]

    def counts(self):
        ok = [op for op in self.appends.history.of() if op.fate == "ok"]
        return {
            "rows": len(self.lab.ledger.acked), "rows of unknown fate": len(self.lab.ledger.unknown),
            "rows told as not written": len(self.lab.ledger.denied),
            "transactions": len(ok),
            "transactions of unknown fate": sum(
                op.fate == "info" for op in self.appends.history.of()),
            "register operations": sum(op.fate == "ok" for op in self.registers.history.of()),
            "pipelined transactions": len(self.pipes.done),
            "fresh reads": sum(op.fate == "ok" for op in self.fresh.history.of("fresh")),
            "fresh reads by followers": len(self.fresh.by_standby),
            "follower reads": sum(op.fate == "ok" for op in self.followers.history.of("follower")),
            "follower reads by followers": len(self.followers.by_standby),
        }


def gates(lab):
    return check_gates.spans({n: lab.log_text(n) for n in lab.names()},
                             [(node, before) for node, before, _ in lab.deaths])


def run(seed, seconds=60.0, nodes=None, mutation=None, only=None, before=None, keep_dump=True, patience=1.0,
        pool=None, founders=None, history=None, history_of_all=False):
    """One run; `before(lab)` may change the cluster first. Never raises for what the cluster did. `nodes`, `pool`, `founders`: None: the
    seed says; but with a mutation nobody shares: that program has no guard beside it, and without one a session keeps its connection.
    `history`: a directory for what clients asked and heard, of a run that fails, or of all."""
    pool = pool or ("session" if mutation else schedule.pool(seed))
    founders = schedule.founders(seed) if founders is None else founders
    events = schedule.plan(seed, seconds, only)
    result = Result(seed, seconds, nodes or schedule.size(seed), version(), time.time(),
                    [str(e) for e in events], offset=boot_offset(), patience=patience, pool=pool)
    lab = None
    try:
        lab = laboratory.Lab(result.nodes, seed, mutation=mutation, pool=result.pool, founders=founders)
        lab.ledger = Rows()
        if before is not None:
            before(lab)
        result.begun = time.time()
        _play(lab, seed, events, result)
    except (AssertionError, harness.psycopg2.Error, RuntimeError, OSError, subprocess.SubprocessError) as e:
        result.trouble = f"{type(e).__name__}: {e}"
    finally:
        if lab is not None:
            if not result.passed and keep_dump:
                print(lab.dump())
            if history and lab.load is not None and (history_of_all or not result.passed):
                lab.load.write_history(os.path.join(history, f"seed-{seed}.history.jsonl"))
            result.done = list(lab.events)
            result.acks = list(getattr(lab.ledger, "times", []))
            try:
                lab.destroy()
            except AssertionError as e:
                result.trouble = f"{result.trouble} {e}".strip()
    return result


def _play(lab, seed, events, result):
    lab.load = load_ = Load(lab, seed)
    whole = False
    try:
        with load_:
            load_.rows.wait_for_ack()
            result.missed = faults.play(lab, events)
            result.recovery_s = faults.recover(lab)
            calm = time.time()
            result.failover_s = faults.fail_over(lab)
            load_.everywhere()
            result.anomalies += [check_append.Anomaly("ended", f"{node} by itself, with {status}, when nothing failed")
                                 for at, node, status in lab.ends if at > calm and status not in MAY_END_WITH]
        lab.verify_no_crash()
        whole = True
    finally:
        result.spans = gates(lab)
        result.counts = {**load_.counts(), "epochs": len({s.epoch for s in result.spans})}
        if result.pool == "auto":
            result.counts["connections taken over"] = lab.taken_over()
        # Even a cluster that does not recover must not have lied before.
        result.anomalies += check_gates.check(result.spans) + ([] if whole else load_.check_so_far())
    result.anomalies += check_copies.ledger(lab)
    result.anomalies += load_.check()
    lab.stop_keeper()
    result.anomalies += check_copies.check(lab)
    untested = load_.idle(result.counts) + ([] if result.spans else ["gates"])
    if untested:
        result.trouble = f"not tested: {', '.join(untested)}: {result.counts}"


def leave_tidily():
    """Whoever ends this process gets its hosts and volumes cleared away."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))


def pool(jobs):
    """For runs at the same time, each in a process of its own: threads there move between hosts. None is forked from this
    process: it would keep the pipes of what runs here meanwhile (gnuplot), which then would not end."""
    return multiprocessing.get_context("forkserver").Pool(jobs, leave_tidily, maxtasksperchild=1)
