"""Less than a majority: no acknowledgement, no stale answer, a clear error after a bounded wait."""

import time

import psycopg2
import pytest

import harness
from load import Pending


def test_minority_cannot_write_and_does_not_lie(cluster):
    """Both followers vanish (frozen, as behind a partition). The leader is healthy and alone."""
    leader = cluster.leader()
    others = cluster.followers()
    writer, reader, later = (cluster.connect(leader) for _ in range(3))
    for node in others:
        cluster.freeze_node(node)
    n = cluster.ledger.take()
    write = Pending(writer, "INSERT INTO ledger VALUES (%s)", (n,))
    harness.wait_until("the lease runs out", lambda: cluster.open_leader(cluster.status()) is None, 10)
    late_read = Pending(reader, "SELECT count(*) FROM ledger")
    m = cluster.ledger.take()
    late_write = Pending(later, "INSERT INTO ledger VALUES (%s)", (m,))
    late_read.wait(2)
    assert not write.succeeded, "a write was acknowledged by a minority"
    assert not late_write.succeeded, "a write was acknowledged by a minority"
    assert not late_read.succeeded, "a read was answered without a lease"
    # Every port says the same, also to new clients (held, then an error; see below).
    conn = Pending_connect(cluster, leader)
    assert not conn.wait(1.0), "a new connection got through to a leader without a lease"
    cluster.thaw()
    for p in (write, late_read, late_write):
        assert p.wait(20 * harness.PATIENCE), "an answer never came"
    cluster.ledger.note(n, write.succeeded)
    cluster.ledger.note(m, late_write.succeeded)
    cluster.wait_healthy()
    conn.wait(15)


class Pending_connect:
    """A connection attempt on a thread of its own."""

    def __init__(self, cluster, node):
        import threading

        self.error = self.code = None
        self.ok = False
        self._done = threading.Event()

        def run():
            try:
                conn = cluster.connect(node, timeout=40)
                with conn.cursor() as cur:
                    cur.execute("SELECT 1")
                conn.close()
                self.ok = True
            except psycopg2.Error as e:
                self.error = e
            finally:
                self.took = time.monotonic() - begun
                self._done.set()

        begun = time.monotonic()
        threading.Thread(target=run, daemon=True).start()

    def wait(self, timeout):
        return self._done.wait(timeout)


def test_connection_is_held_then_refused_with_57p03(cluster):
    """No leader to be had: a new connection waits (10 s by default), then hears why. One that comes
    while a leader is on its way is simply served."""
    survivor, *gone = cluster.names()
    for node in gone:
        cluster.kill_down(node)
    harness.wait_until("no gate is open", lambda: cluster.open_leader(cluster.status()) is None)
    first = Pending_connect(cluster, survivor)
    assert first.wait(25 * harness.PATIENCE), "held for ever"
    assert not first.ok
    assert 7 <= first.took <= 16 * harness.PATIENCE, f"held for {first.took:.1f} s, not about 10"
    text = str(first.error)
    assert "57P03" in text or "leader" in text.lower(), text
    assert sqlstate_of_refusal(cluster, survivor) == "57P03"


def sqlstate_of_refusal(cluster, node):
    """libpq hides the SQLSTATE of a refused connection: read the ErrorResponse ourselves."""
    import socket
    import struct

    user, _, database = cluster.login()
    body = b"".join(
        s.encode() + b"\0" for s in ("user", user, "database", database)) + b"\0"
    packet = struct.pack("!ii", 8 + len(body), 196608) + body
    # While it is held, the others come back: the second half of the test in one wait.
    with socket.create_connection(("127.0.0.1", cluster.sql_port(node)), 5) as s:
        s.sendall(packet)
        s.settimeout(25)
        raw = b""
        while True:
            got = s.recv(4096)
            if not got:
                break
            raw += got
    assert raw[:1] == b"E", raw[:100]
    fields = {f[:1]: f[1:].decode() for f in raw[5:].split(b"\0") if f}
    assert b"H" in fields, f"no hint: {fields}"
    return fields[b"C"]


def test_held_connection_is_served_when_a_leader_comes(cluster):
    survivor, *gone = cluster.names()
    for node in gone:
        cluster.kill_down(node)
    harness.wait_until("no gate is open", lambda: cluster.open_leader(cluster.status()) is None)
    held = Pending_connect(cluster, survivor)
    if held.wait(0.5):  # it still met the leader that was about to shut down: ended, not served
        assert not held.ok
        held = Pending_connect(cluster, survivor)
        assert not held.wait(0.5)
    cluster.start(gone[0])
    assert held.wait(20) and held.ok, f"not served: {held.error}"


def test_s07_voters_that_come_and_go_leave_one_gate(cluster):
    """Followers freeze and thaw in turn, the leader keeps or loses its lease; one gate at any time."""
    from load import ReadLoop, WriteLoop

    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=2) as writers:
        for turn in range(4):
            victims = cluster.names() if turn % 2 else cluster.names()[:2]
            for node in victims:
                with cluster.frozen(cluster.node_process(node)):
                    time.sleep(0.35)
            hit = time.monotonic()
            writers.wait_for_ack(after=hit)
            cluster.heal()
    readers.check(cluster.ledger_counts())


def test_s06_a_refused_peer_is_no_proof_of_death(cluster):
    """A follower loses its connections to the leader's peer port while the leader is well: clients
    of the leader see one gate and no stale read, whoever leads then."""
    from load import ReadLoop, WriteLoop

    leader = cluster.leader()
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=2) as writers:
        writers.wait_for_ack()
        for node in [n for n in cluster.names() if n != leader]:
            cluster.kill_group(node)
        hit = time.monotonic()
        writers.wait_for_ack(after=hit, timeout=20)
    cluster.heal()
    readers.check(cluster.ledger_counts())


@pytest.mark.soak
@pytest.mark.limit(600)
def test_soak_random_freezes_and_kills(cluster):
    import random

    from load import ReadLoop, WriteLoop

    rng = random.Random(7)
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=4) as writers:
        for _ in range(60):
            node = rng.choice(cluster.names())
            what = rng.choice(("group", "node", "freeze", "postmaster", "switchover", "all"))
            target = cluster.node_process(node)
            if what == "group":
                cluster.kill_group(node)
            elif what == "node" and target:
                target.send(9)
            elif what == "freeze" and target:
                with cluster.frozen(target):
                    time.sleep(rng.uniform(0.1, 1.5))
            elif what == "postmaster" and cluster.postmaster(node):
                cluster.postmaster(node).send(9)
            elif what == "switchover":
                cluster.switchover(check=False)
            elif what == "all":
                for n in cluster.names():
                    cluster.kill_group(n)
            hit = time.monotonic()
            writers.wait_for_ack(after=hit, timeout=40)
    cluster.heal()
    readers.check(cluster.ledger_counts())
