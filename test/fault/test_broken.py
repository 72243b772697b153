"""The laboratory has eyes: clusters that are broken on purpose must be found out, by the checker that is there for it.
Each of these breaks one promise; the same steps with everything in place pass (the `None` of each pair)."""

import threading
import time

import psycopg2
import pytest

import campaign
import check_copies
import check_gates
import faults
import harness
import lab as laboratory
import load
import schedule


def kinds(anomalies):
    return sorted({a.kind for a in anomalies})


class Stage:
    """A cluster, its load, and all checkers at the end, recovered or not."""

    def __init__(self, mutation, seed=1):
        self.lab = laboratory.Lab(seed=seed, mutation=mutation)
        self.lab.ledger = campaign.Rows()
        self.found = []

    def __enter__(self):
        self.load = campaign.Load(self.lab, 1)
        self.load.__enter__()
        self.load.rows.wait_for_ack()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._check()
        finally:
            self.lab.destroy()

    def _check(self):
        """Takes whatever can be had: a broken cluster need not become whole."""
        self.lab.calm()
        try:
            faults.recover(self.lab)
        except AssertionError as e:
            self.found.append(check_gates.Anomaly("not-whole", str(e)))
        self.load.__exit__(None, None, None)
        self.found += check_gates.check(campaign.gates(self.lab))
        try:
            self.found += check_copies.ledger(self.lab)
            self.found += self.load.check()
        except (AssertionError, psycopg2.Error) as e:
            self.found.append(check_gates.Anomaly("no-answer", str(e)))
        for a in self.found[:5]:
            print(f"{a!r}"[:600])


@pytest.mark.parametrize("mutation", (None, "IGNORE_LEASE"))
def test_a_gate_without_a_lease_is_seen(mutation):
    """The leader loses the others, not its clients. Without the lease it goes on to answer reads."""
    with Stage(mutation) as stage:
        lab = stage.lab
        leader = lab.leader()
        lab.net.part([leader], [n for n in lab.names() if n != leader])
        time.sleep(5)
    if mutation is None:
        assert not stage.found
    else:
        # By the logs, and independently by what clients read.
        assert "two-gates" in kinds(stage.found), stage.found
        assert any(k.endswith("-realtime") or k == "stale-read" for k in kinds(stage.found)), kinds(stage.found)


def _behind(lab):
    """The leader and a follower acknowledge what the other follower does not have; then leader and follower part
    company, the leader for good."""
    leader = lab.leader()
    near, far = [n for n in lab.names() if n != leader]
    # Slow, not cut: the one that is behind must be able to stand for election.
    frozen = lab.backends(far, "walreceiver")
    assert frozen, f"{far} has no WAL receiver"
    lab.freeze(*frozen)
    lab.insert(leader, count=200)
    return leader, near, far


@pytest.mark.parametrize("mutation", (None, "COUNT_ONE_LESS"))
def test_one_report_too_few_is_seen(mutation):
    """Who lacks acknowledged rows must not lead, however alone it is."""
    with Stage(mutation) as stage:
        lab = stage.lab
        leader, near, far = _behind(lab)
        # The one that holds all votes for the other, but its report is too late: its disk is slow.
        lab.trouble[near].set(flush_delay_us=3000000)
        lab.kill_host(leader)
        _elect(lab, far, near)
        lab.thaw()
        lab.trouble[near].clear()
        lab.wait("somebody leads", lambda s: lab.open_leader(s) not in (None, leader), 40)
    _judge(stage, mutation)


@pytest.mark.parametrize("mutation", (None, "NOT_GREATEST"))
def test_a_leader_that_holds_less_is_seen(mutation):
    with Stage(mutation) as stage:
        lab = stage.lab
        leader, near, far = _behind(lab)
        lab.kill_host(leader)
        _elect(lab, far, near)
        lab.thaw()
        lab.wait("somebody leads", lambda s: lab.open_leader(s) not in (None, leader), 40)
    _judge(stage, mutation)


def _elect(lab, wanted, other):
    """Makes `wanted` the candidate: the other one's node sleeps over its timeout, and then votes."""
    process = lab.node_process(other)
    with lab.frozen(process):
        time.sleep(1.5 * lab.lease_ms / 1000)
    assert wanted


def _judge(stage, mutation):
    if mutation is None:
        assert not stage.found
    else:
        assert {"ledger", "lost"} & set(kinds(stage.found)), kinds(stage.found)


@pytest.mark.parametrize("broken", (False, True))
def test_local_commits_are_seen(broken):
    """A role that opts out of waiting for a majority loses rows, and the ledger tells."""
    with Stage(None) as stage:
        lab = stage.lab
        leader = lab.leader()
        if broken:
            lab.super(leader, "ALTER ROLE app SET synchronous_commit = local")
            # Sessions that are there keep what they had.
            for p in lab.backends(leader, "app app"):
                p.send(15)
        harness.wait_until("the load goes on", lambda: lab.ledger.first_ack_after(time.monotonic() - 0.05))
        others = [n for n in lab.names() if n != leader]
        lab.freeze(*[p for n in others for p in lab.backends(n, "walreceiver")])
        time.sleep(0.6)
        lab.kill_host(leader)
        lab.thaw()
        lab.wait("somebody leads", lambda s: lab.open_leader(s) not in (None, leader), 40)
    _judge(stage, "local" if broken else None)


@pytest.mark.parametrize("mutation", (None, "OPEN_BEFORE_BARRIER"))
def test_a_gate_before_its_barrier_is_seen(mutation):
    """The new leader's own follower cannot flush. Nothing that it holds alone may be shown before a majority has it:
    the gate's first answer must come after the follower's disk is well again."""
    lab = laboratory.Lab(seed=1, mutation=mutation)
    try:
        leader, epoch = lab.leader(), lab.epoch()
        near, far = [n for n in lab.names() if n != leader]
        answered = threading.Event()
        lab.kill_host(leader)
        harness.wait_until("somebody promotes", lambda: any(
            f"phase=appointed epoch={e}" in lab.log_text(n)
            for n in (near, far) for e in range(epoch + 1, epoch + 9)), 20, 0.002)
        new = next(n for n in (near, far) if "phase=appointed" in lab.log_text(n).split(" starts, pid")[-1])
        other = far if new == near else near
        lab.trouble[other].set(flush_delay_us=2500000)
        begun = time.monotonic()

        def read():
            lab.execute("SELECT 1", node=new)
            answered.set()

        threading.Thread(target=read, daemon=True).start()
        early = answered.wait(1.5)
        took = time.monotonic() - begun
        lab.trouble[other].clear()
        assert early == (mutation is not None), f"the first answer came after {took:.3f} s"
        if mutation is None:
            lab.calm()
            lab.wait_healthy(30)
    finally:
        lab.destroy()


@pytest.mark.soak
@pytest.mark.limit(1200)
@pytest.mark.parametrize("mutation", ("IGNORE_LEASE", "NOT_GREATEST"))
def test_random_faults_find_it_too(mutation):
    only = [f for f in schedule.FAULTS if f.startswith(("isolate", "cut", "host", "narrow", "stop", "delay"))]
    for seed in range(1, 15):
        result = campaign.run(seed, 40, 3, mutation, only, keep_dump=False)
        print(result.line())
        if result.anomalies:
            return
    raise AssertionError(f"{mutation} was not noticed in 14 runs")
