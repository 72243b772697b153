"""The laboratory has eyes: clusters that are broken on purpose must be found out, by the checker that is there for it.
Each of these breaks one promise; the same steps with everything in place pass (the `None` of each pair)."""

import contextlib
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
import partition
import schedule
import workload


def kinds(anomalies):
    return sorted({a.kind for a in anomalies})


class Stage:
    """A cluster, its load, and all checkers at the end, recovered or not."""

    def __init__(self, mutation, seed=1, founders=0):
        self.lab = laboratory.Lab(seed=seed, mutation=mutation, founders=founders)
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
            else:
                print(self.lab.dump())
                self.lab.calm()
                self.load.__exit__(None, None, None)
        finally:
            self.lab.destroy()

    def _check(self):
        """Takes whatever can be had: a broken cluster need not become whole."""
        self.lab.calm()
        try:
            faults.recover(self.lab, 30)
        except (AssertionError, psycopg2.Error) as e:
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


# A list that the load does not know.
KEY, ELEMENT = 10**6, 10**9
ATTACHED = 24
ROUNDS = 4


def _asleep(stage, key):
    """The leader's node sleeps until another leads. Returns how many of the questions that wait for it then it has answered, and wrongly."""
    lab = stage.lab
    leader, epoch = lab.leader(), lab.epoch()
    attached = [lab.connect(leader) for _ in range(ATTACHED)]
    with lab.frozen(lab.node_process(leader)):
        lab.wait_open(20, other_than=leader, after_epoch=epoch)
        append = workload.Op(-1, time.monotonic(), [["append", key, ELEMENT + key]], node="new", fate="ok")
        lab.execute("INSERT INTO lists VALUES (%s, ARRAY[%s])", (key, ELEMENT + key),
                    node=[n for n in lab.names() if n != leader][0])
        append.ended = time.monotonic()
        reads = [workload.Op(-2 - i, time.monotonic(), [], node=leader) for i in range(ATTACHED)]
        asked = [load.Pending(c, "SELECT v FROM lists WHERE k = %s", (key,)) for c in attached]
        time.sleep(0.5)  # until the questions are there
    for op, p in zip(reads, asked):
        assert p.wait(30), "a question hangs"
        op.ended, op.fate = time.monotonic(), "ok" if p.succeeded else "fail"
        op.steps = [["r", key, (list(p.rows[0][0]) if p.rows else []) if p.succeeded else None]]
        p.conn.close()
    for op in [append, *reads]:
        stage.load.appends.history.add(op)
    return sum(p.succeeded and not p.rows for p in asked)


@pytest.mark.parametrize("mutation", (None, "IGNORE_LEASE"))
def test_a_gate_without_a_lease_is_seen(mutation):
    """When it wakes, clients' questions are waiting, of after the other has acknowledged something, and only the lease tells it that
    they are no longer its to answer. By the clock of gates, and by the order of what clients saw. Whether the questions or the news of the
    other come first nobody knows, so it may sleep again."""
    with Stage(mutation) as stage:
        for turn in range(ROUNDS):
            stage.lab.wait_healthy()
            if _asleep(stage, KEY + turn) > 0 and mutation is not None:
                break
    if mutation is None:
        assert not stage.found
    else:
        assert {"two-gates", "G-single-realtime"} <= set(kinds(stage.found)), kinds(stage.found)


LEASE_MS = 6000  # several times what an election takes, also on a busy machine


def _refused(wired):
    """The leader's peers are refused and elect another, of which the leader, and its clients, hear nothing. Returns stale reads."""
    leader = wired.leader()
    with load.ReadLoop(wired, nodes=[leader] * 4) as readers:
        harness.wait_until("reads", lambda: readers.reads > 50)
        wired.wires.refuse(leader)
        new = harness.wait_until("another gate is open", lambda: set(wired.open_gates()) - {leader}, 30)
        wired.insert(new.pop(), count=20)
        time.sleep(1)
        wired.wires.join()
    return readers.stale


@pytest.mark.soak
@pytest.mark.limit(300)
@pytest.mark.parametrize("mutation", (None, "NO_PROMISE_WAIT", "REFUSED_IS_PROOF"))
def test_a_promise_that_is_not_kept_is_seen(mutation, monkeypatch):
    """S6: something answers RST to the leader's peers. They elect another at once, while the leader and its clients are well: only the
    promise that its lease rests on keeps the new gate shut until the old one is. By the clock of gates, and by what clients read.
    Several rounds, until one has shown it: an election may come to nothing until the lease is over."""
    if mutation:
        monkeypatch.setenv("HOLDFAST_MUTATION", mutation)
    wired = partition.WiredCluster(lease_ms=LEASE_MS, binary=laboratory.MUTATED, options=["--log-level", "debug"])
    try:
        stale, found = [], []
        for _ in range(ROUNDS if mutation else 1):
            stale += _refused(wired)
            found = check_gates.check(check_gates.spans({n: wired.log_text(n) for n in wired.names()}))
            if stale and found:
                break
            wired.heal()
        print(found, stale[:3])
        if mutation is None:
            assert not found and not stale
        else:
            assert "two-gates" in kinds(found) and stale
    finally:
        wired.destroy()


def _rounds(stage, mutation):
    """The leader and one follower acknowledge what the other follower does not get; then the leader vanishes. Who
    of the two stands for election first is chance; so several rounds, until one has shown it."""
    lab = stage.lab
    for _ in range(2 if mutation is None else 8):
        leader = lab.leader()
        near, far = [n for n in lab.names() if n != leader]
        lab.net.part([leader], [far])
        lab.insert(leader, count=100)
        if mutation != "NOT_GREATEST":
            # Its report comes late: a fence is on disk before it is reported.
            lab.trouble[near].set(flush_delay_us=150000)
        lab.kill_host(leader)
        with contextlib.suppress(AssertionError):  # votes are on disk before they count: it may take long
            lab.wait("somebody leads", lambda s, old=leader: lab.open_leader(s) not in (None, old), 20)
        lab.trouble[near].clear()
        lab.wait("somebody leads", lambda s, old=leader: lab.open_leader(s) not in (None, old), 20)
        if set(lab.ledger.acked) - set(lab.ledger_counts(near)) or mutation and lab.open_leader(lab.status()) == far:
            break
        lab.calm()
        lab.wait_healthy(30)


@pytest.mark.soak
@pytest.mark.limit(400)
@pytest.mark.parametrize("mutation", (None, "COUNT_ONE_LESS", "NOT_GREATEST"))
def test_a_leader_that_holds_less_is_seen(mutation):
    """Who lacks acknowledged rows must not lead: neither by its own report alone, nor against a better one."""
    with Stage(mutation) as stage:
        _rounds(stage, mutation)
    _judge(stage, mutation)


def _judge(stage, mutation):
    if mutation is None:
        assert not stage.found
    else:
        assert {"ledger", "lost"} & set(kinds(stage.found)), kinds(stage.found)


@pytest.mark.soak
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
        with load.WriteLoop(lab, clients=1, nodes=[leader]) as attached:
            attached.wait_for_ack()
            lab.net.part([leader], others)
            time.sleep(0.5)
            lab.kill_host(leader)
        lab.wait("somebody leads", lambda s: lab.open_leader(s) not in (None, leader), 40)
    _judge(stage, "local" if broken else None)


@pytest.mark.soak
@pytest.mark.parametrize("mutation", (None, "OPEN_BEFORE_BARRIER"))
def test_a_gate_before_its_barrier_is_seen(mutation):
    """The new leader's only follower cannot flush. What the leader holds alone must not be shown before a majority
    has it: the gate's first answer has to wait for the follower's disk."""
    lab = laboratory.Lab(seed=1, binary=laboratory.MUTATED)
    try:
        leader, epoch = lab.leader(), lab.epoch()
        others = [n for n in lab.names() if n != leader]
        lab.mutation = mutation  # whoever starts from here on
        for n in others:
            lab.stop_host(n)
            lab.return_host(n)
            lab.wait_healthy(30)
        lab.kill_host(leader)
        new = harness.wait_until("somebody is appointed", lambda: next((
            n for n in others for e in range(epoch + 1, epoch + 9)
            if f"phase=appointed epoch={e}" in lab.log_text(n)), None), 30, 0.002)
        slow = next(n for n in others if n != new)
        lab.trouble[slow].set(flush_delay_us=3000000)
        answered = threading.Event()

        def read():
            lab.execute("SELECT 1", node=new)
            answered.set()

        threading.Thread(target=read, daemon=True).start()
        early = answered.wait(1.5)
        lab.calm()
        assert early == (mutation is not None)
        if mutation is None:
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


@pytest.mark.soak
@pytest.mark.limit(300)
@pytest.mark.parametrize("mutation", (None, "FOUND_ALONE"))
def test_a_second_cluster_is_seen(mutation):
    """The founder comes back with an empty volume and hears nobody. Who takes itself for the only one founds another cluster."""
    with Stage(mutation, founders=1) as stage:
        end = faults.Faults(stage.lab).begin(schedule.Event(0, 6, "founder_empty", "first", {"alone": 1}))
        time.sleep(6)
        end()
    if mutation is None:
        assert not stage.found
    else:
        assert {"two-gates", "not-whole"} & set(kinds(stage.found)), kinds(stage.found)
