"""Both sides alive, the wire between them cut. At no instant two gates, no lost write, no stale read."""

import time

import pytest

import harness
import partition
from load import Pending, ReadLoop, WriteLoop


@pytest.fixture(scope="module")
def wired_shared():
    c = partition.WiredCluster()
    yield c
    c.destroy()


@pytest.fixture
def wired(wired_shared):
    wired_shared.heal()
    wired_shared.empty_ledger()
    yield wired_shared
    wired_shared.heal()
    wired_shared.verify()


def watch_gates(cluster, seconds):
    """Two nodes that call their gate open at once, if ever."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        gates = cluster.open_gates()
        assert len(gates) < 2, f"two gates are open: {gates}"
        time.sleep(0.02)


def test_partition_leader_alone(wired):
    """The old leader is alive, its clients are connected, and it has lost the others."""
    leader, epoch = wired.leader(), wired.epoch()
    others = wired.followers()
    reader, writer = wired.connect(leader), wired.connect(leader)
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=3) as writers:
        writers.wait_for_ack()
        wired.wires.part([leader])
        new = wired.wait_open(other_than=leader, after_epoch=epoch)
        n = wired.insert(others[0])
        stale = Pending(reader, "SELECT n FROM ledger")
        m = wired.ledger.take()
        late = Pending(writer, "INSERT INTO ledger VALUES (%s)", (m,))
        watch_gates(wired, 1.5)
        assert new in others
        assert not stale.succeeded or (n,) in stale.rows, "the isolated leader answered with old data"
        # Its own PostgreSQL is gone or shut; nobody writes through it.
        assert not late.succeeded or wired.ledger_counts().get(m) == 1
        wired.wires.join()
        writers.wait_for_ack()
        watch_gates(wired, 1)
    assert stale.wait(20) and late.wait(20)
    wired.ledger.note(m, late.succeeded)
    wired.heal()
    readers.check(wired.ledger_counts())


def test_partition_heals_before_the_lease_ends_costs_nothing(wired):
    leader, epoch = wired.leader(), wired.epoch()
    for _ in range(4):
        wired.wires.part([leader])
        time.sleep(0.15)
        wired.wires.join()
        time.sleep(0.3)
    assert (wired.leader(), wired.epoch()) == (leader, epoch)
    wired.insert()


def test_partition_one_follower_cannot_disturb(wired):
    """Pre-vote: a follower that hears nobody must not force an election when it comes back."""
    leader, epoch = wired.leader(), wired.epoch()
    gone = wired.followers()[0]
    with WriteLoop(wired, clients=2, nodes=[leader]) as writers:
        wired.wires.part([gone])
        time.sleep(2)
        wired.wires.join()
        writers.wait_for_ack()
        wired.wait_healthy()
        assert not writers.errors, f"clients noticed: {writers.errors[:2]}"
    assert (wired.leader(), wired.epoch()) == (leader, epoch)


def test_partition_between_leader_and_one_follower_only(wired):
    """All three alive, one wire cut: whoever leads, there is one gate, and writes go on."""
    leader = wired.leader()
    half = wired.followers()[0]
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=2) as writers:
        wired.wires.part([leader], [half])
        watch_gates(wired, 2.5)
        writers.wait_for_ack()
        wired.wires.join()
        writers.wait_for_ack()
    wired.heal()
    readers.check(wired.ledger_counts())


def test_partition_nobody_hears_anybody(wired):
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=3) as writers:
        writers.wait_for_ack()
        for name in wired.names():
            wired.wires.part([name])
        harness.wait_until("no gate is open", lambda: not wired.open_gates(), 5)
        mark = time.monotonic()
        time.sleep(1)
        assert wired.ledger.first_ack_after(mark) is None, "acknowledged by a minority"
        wired.wires.join()
        writers.wait_for_ack(timeout=20)
    wired.heal()
    readers.check(wired.ledger_counts())


def test_s06_peers_are_refused_while_the_leader_is_well(wired):
    """A firewall answers RST to the leader's peers. That proves nothing: its lease is waited out."""
    leader, epoch = wired.leader(), wired.epoch()
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=3) as writers:
        writers.wait_for_ack()
        wired.wires.reset([leader])
        watch_gates(wired, 1.5)
        assert wired.wait_open(other_than=leader, after_epoch=epoch) != leader
        wired.wires.join()
        writers.wait_for_ack()
    wired.heal()
    readers.check(wired.ledger_counts())


def test_s07_wires_flap(wired):
    """Cuts shorter and longer than the lease, of changing pairs, under load."""
    names = wired.names()
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=3) as writers:
        for i, seconds in enumerate((0.3, 0.6, 0.45, 0.8, 0.5, 0.55, 0.7)):
            wired.wires.part([names[i % 3]], [names[(i + 1) % 3]] if i % 2 else None)
            watch_gates(wired, seconds)
            wired.wires.join()
            watch_gates(wired, 0.3)
        writers.wait_for_ack(timeout=20)
    wired.heal()
    readers.check(wired.ledger_counts())


@pytest.mark.soak
@pytest.mark.limit(900)
def test_soak_wires_flap_at_random(wired):
    import random

    rng = random.Random(11)
    with ReadLoop(wired) as readers, WriteLoop(wired, clients=4) as writers:
        for _ in range(150):
            side = [rng.choice(wired.names())]
            other = [rng.choice([n for n in wired.names() if n not in side])]
            rng.choice((wired.wires.part, wired.wires.part, wired.wires.reset))(
                side, rng.choice((None, other)))
            watch_gates(wired, rng.uniform(0.1, 1.5))
            wired.wires.join()
            watch_gates(wired, rng.uniform(0.0, 1.0))
        writers.wait_for_ack(timeout=30)
    wired.heal()
    readers.check(wired.ledger_counts())
