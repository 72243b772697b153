"""The leader dies, hangs or hands over: somebody who has everything leads on, and nobody lies."""

import contextlib
import signal
import time

import psycopg2
import pytest

import harness
from load import Pending, ReadLoop, WriteLoop
from test_basics import wait_for_syncrep


def crash(cluster, how, timeout=15):
    """Runs `how(leader)` under load from three writers and readers; returns the new leader."""
    old, epoch = cluster.leader(), cluster.epoch()
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=3) as writers:
        writers.wait_for_ack()
        how(old)
        hit = time.monotonic()
        new = cluster.wait_open(timeout, after_epoch=epoch)
        writers.wait_for_ack(after=hit)
        writers.wait_for_ack()
    cluster.heal()
    readers.check(cluster.ledger_counts())
    return old, new


def test_kill_9_of_the_leaders_node_process(cluster):
    """PostgreSQL must go too: the sentinel ends it before the node starts again."""
    leader = cluster.leader()
    postmaster = cluster.postmaster(leader)
    others = [cluster.node_process(n).pid for n in cluster.followers()]
    marks = [cluster.log_mark(n) for n in cluster.followers()]
    crash(cluster, lambda n: cluster.node_process(n).send(signal.SIGKILL))
    assert not postmaster.alive(), "the dead node's PostgreSQL lives on"
    for mark in marks:
        cluster.wait_log(mark, rf"messages (to|from) {leader} ended: \w+")
    assert others == [cluster.node_process(n).pid for n in cluster.names() if n != leader]


def test_kill_9_of_the_leaders_process_group(cluster):
    """Node and sentinel gone at once: PostgreSQL is left alone, and must not take part any more."""
    postmaster = cluster.postmaster(cluster.leader())
    crash(cluster, cluster.kill_group)
    assert not postmaster.alive(), "a leftover PostgreSQL lives on after its node came back"


def test_kill_9_of_the_leaders_sentinel(cluster):
    """The node must notice that nobody watches over it."""
    leader = cluster.leader()
    sentinel = cluster.sentinel(leader)
    node = cluster.node_process(leader)
    with WriteLoop(cluster, clients=2) as writers:
        sentinel.send(signal.SIGKILL)
        hit = time.monotonic()
        harness.wait_until("the node without a sentinel ends", lambda: not node.alive(), 10)
        writers.wait_for_ack(after=hit)
    cluster.heal()
    assert cluster.sentinel(leader) is not None


def test_everything_of_the_leader_gone_and_staying_away(cluster):
    old, new = crash(cluster, cluster.kill_down)
    assert old != new


def test_follower_killed_costs_nothing(cluster):
    epoch = cluster.epoch()
    victim = cluster.followers()[0]
    errors = []
    others = [n for n in cluster.names() if n != victim]
    with WriteLoop(cluster, clients=2, nodes=others) as writers:
        writers.wait_for_ack()
        cluster.kill_group(victim)
        writers.wait_for_ack(timeout=2)
        cluster.wait_healthy()
        errors = list(writers.errors)
    assert cluster.epoch() == epoch, "losing a follower changed the leader"
    assert not errors, f"clients of the other nodes saw errors: {errors[:3]}"


def test_the_follower_that_holds_more_wins(cluster):
    """One follower's WAL receiver stands still while rows are acknowledged by the other. Its node
    is awake and may well be first in the election; it must not lead."""
    for turn in (0, 1):
        leader = cluster.leader()
        behind = cluster.followers()[turn]
        ahead = next(n for n in cluster.followers() if n != behind)
        receivers = cluster.backends(behind, "walreceiver")
        assert receivers
        with cluster.frozen(*receivers):
            cluster.bulk(24)  # far more than the sockets on the way can hold
            n = cluster.insert(count=5)
            at = cluster.lsn(leader)
            assert cluster.super(behind, "SELECT pg_last_wal_receive_lsn() < %s::pg_lsn", (at,))[0][0]
            cluster.kill_down(leader)
        # Only now may it move on: what the sockets held, not what the leader had.
        new = cluster.wait_open(other_than=leader)
        assert new == ahead, f"{new} leads, but only {ahead} had the last rows"
        assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]
        cluster.heal()


def test_the_follower_that_holds_more_wins_whole_node_frozen(cluster):
    leader = cluster.leader()
    behind, ahead = cluster.followers()
    cluster.freeze_node(behind)
    cluster.bulk(24, node=leader)
    cluster.insert(leader, count=5)
    cluster.kill_down(leader)
    time.sleep(0.3)  # the other one stands for election alone, in vain
    cluster.thaw()
    assert cluster.wait_open(other_than=leader) == ahead


def test_switchover_to_a_named_node_without_errors(cluster):
    """A hand-over is a pause, not an error, for clients between transactions (new connections and
    sessions of their own may be ended, never a statement that runs)."""
    target = cluster.followers()[1]
    epoch = cluster.epoch()
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=3) as writers:
        writers.wait_for_ack()
        cluster.switchover(target)
        assert cluster.wait_open(after_epoch=epoch) == target
        writers.wait_for_ack()
    readers.check(cluster.ledger_counts())
    assert writers.cluster.ledger.refused == 0 or not [
        e for e in writers.errors if getattr(e, "pgcode", None) == "57P03"
    ], "a new connection was refused during a hand-over"


def test_switchover_leaves_nothing_to_rewind(cluster):
    old = cluster.leader()
    marks = [cluster.log_mark(n) for n in cluster.names()]
    cluster.insert(count=3)
    cluster.switchover()
    assert cluster.wait_open(other_than=old) != old
    seen = set()
    cluster.wait("the old leader streams again", lambda s: (
        seen.add(cluster.node(old, s)["state"]) or cluster._healthy(s)))
    assert not seen & {"rewinding", "cloning"}, f"the old leader went through {seen}"
    assert marks


def test_switchover_to_nobody_is_refused(cluster):
    done = cluster.switchover("demo-7", check=False)
    assert done.returncode != 0 and "demo-7" in done.stdout + done.stderr
    epoch = cluster.epoch()
    down = cluster.followers()[0]
    cluster.kill_down(down)
    done = cluster.switchover(down, check=False)
    assert done.returncode != 0, "leadership was promised to a node that is down"
    cluster.insert()
    assert cluster.wait_open() != down and cluster.epoch() >= epoch


def test_sigterm_hands_over(cluster):
    leader, epoch = cluster.leader(), cluster.epoch()
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=3) as writers:
        writers.wait_for_ack()
        cluster.run("kill", leader, "--signal", "TERM")
        new = cluster.wait_open(after_epoch=epoch)
        writers.wait_for_ack()
    assert new != leader
    cluster.heal()
    readers.check(cluster.ledger_counts())


def test_s17_hand_over_lets_a_running_transaction_end(cluster):
    leader = cluster.leader()
    conn = cluster.connect(leader, autocommit=False)
    n = cluster.ledger.take()
    with conn.cursor() as cur:
        cur.execute("INSERT INTO ledger VALUES (%s)", (n,))
    import threading

    mover = threading.Thread(target=lambda: cluster.switchover(check=False))
    mover.start()
    time.sleep(0.3)  # the hand-over now waits for us
    try:
        conn.commit()
        cluster.ledger.note(n, True)
    except psycopg2.Error:
        cluster.ledger.note(n, False)
        raise
    finally:
        mover.join()
        conn.close()
    assert cluster.wait_open(other_than=leader) != leader


def test_s17_hand_over_ends_even_if_a_transaction_does_not(cluster):
    leader = cluster.leader()
    conn = cluster.connect(leader, autocommit=False)
    n = cluster.ledger.take()
    cluster.ledger.note(n, False)
    with conn.cursor() as cur:
        cur.execute("INSERT INTO ledger VALUES (%s)", (n,))
    cluster.switchover(check=False)
    new = cluster.wait_open(30, other_than=leader)
    with pytest.raises(psycopg2.Error):
        conn.commit()
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(0,)]
    assert new != leader


def test_postmaster_killed_under_a_live_node(cluster):
    old = cluster.leader()
    node = cluster.node_process(old)
    crash(cluster, lambda n: cluster.postmaster(n).send(signal.SIGKILL))
    assert node.alive() or cluster.node_process(old)


def test_postmaster_killed_under_a_live_follower(cluster):
    epoch = cluster.epoch()
    victim = cluster.followers()[0]
    old = cluster.postmaster(victim)
    old.send(signal.SIGKILL)
    harness.wait_until("a new PostgreSQL", lambda: cluster.postmaster(victim) not in (None, old))
    cluster.wait_healthy()
    assert cluster.epoch() == epoch


def test_s05_backend_killed_while_a_commit_waits(cluster):
    """PostgreSQL's own crash restart would show the waiting row through an open gate, and nobody else
    has it. What any gate shows must stay."""
    leader = cluster.leader()
    postmaster = cluster.postmaster(leader)
    victim = cluster.connect(leader)
    with victim.cursor() as cur:
        cur.execute("SELECT pg_backend_pid()")
        pid = cur.fetchone()[0]
    n = cluster.ledger.take()
    cluster.ledger.note(n, False)
    writer = cluster.connect(leader)
    with ReadLoop(cluster, nodes=cluster.names()[:2]) as readers:
        with cluster.replication_stalled(leader):
            write = Pending(writer, "INSERT INTO ledger VALUES (%s)", (n,))
            wait_for_syncrep(cluster, leader)
            harness.procs.Proc(pid).send(signal.SIGKILL)
            harness.wait_until("the postmaster ends", lambda: not postmaster.alive(), 15)
        cluster.wait_open()
        assert write.wait(20) and not write.succeeded
        cluster.heal()
    readers.check(cluster.ledger_counts())
    victim.close()


def test_backend_killed_and_nothing_else_wrong(cluster):
    conn = cluster.connect()
    with conn.cursor() as cur:
        cur.execute("SELECT pg_backend_pid()")
        pid = cur.fetchone()[0]
    hit = time.monotonic()
    with WriteLoop(cluster, clients=2) as writers:
        harness.procs.Proc(pid).send(signal.SIGKILL)
        writers.wait_for_ack(after=hit)
    cluster.heal()
    conn.close()


def test_node_sigstopped_sentinel_ends_postgresql(cluster):
    """The node hangs with its gate open. The sentinel ends PostgreSQL; when the node wakes up, no
    session gets an answer of the old epoch any more."""
    leader, epoch = cluster.leader(), cluster.epoch()
    postmaster = cluster.postmaster(leader)
    old = cluster.connect(leader)
    with old.cursor() as cur:
        cur.execute("SELECT count(*) FROM ledger")
    cluster.freeze(cluster.node_process(leader))
    stale = Pending(old, "SELECT n FROM ledger")
    late = cluster.ledger.take()
    cluster.ledger.note(late, False)
    harness.wait_until("the sentinel ends PostgreSQL", lambda: not postmaster.alive(), 10)
    new = cluster.wait_open(other_than=leader, after_epoch=epoch)
    n = cluster.insert(new, count=3)
    assert not stale.done
    cluster.thaw()
    assert stale.wait(15), "an old session hangs after the node woke up"
    assert not stale.succeeded or (n,) in stale.rows, "a stale answer from the old epoch"
    # The session has ended, or gone on with the new leader; then what it writes is there (verify()).
    with contextlib.suppress(psycopg2.Error), old.cursor() as cur:
        cur.execute("INSERT INTO ledger VALUES (%s)", (late,))
        cluster.ledger.note(late, True)


def test_whole_leader_frozen_like_a_partition(cluster):
    """Sentinel and PostgreSQL frozen too: nobody is left to act until all wake up together. Then the
    lease is long over, and it is the check at forwarding that must hold."""
    leader, epoch = cluster.leader(), cluster.epoch()
    reader, writer = cluster.connect(leader), cluster.connect(leader)
    late = cluster.ledger.take()
    cluster.freeze_node(leader)
    stale = Pending(reader, "SELECT n FROM ledger")
    write = Pending(writer, "INSERT INTO ledger VALUES (%s)", (late,))
    new = cluster.wait_open(other_than=leader, after_epoch=epoch)
    others = [x for x in cluster.names() if x != leader]
    n = cluster.insert(others[0], count=3)
    assert new in others
    cluster.thaw()
    assert stale.wait(20) and write.wait(20)
    assert not stale.succeeded or (n,) in stale.rows, "a stale read after the lease"
    cluster.ledger.note(late, write.succeeded)


def test_s03_read_only_session_cannot_write_after_promotion(cluster):
    leader = cluster.leader()
    sessions = {n: cluster.connect(n, read_only=True) for n in cluster.followers()}
    for conn in sessions.values():
        with conn.cursor() as cur:
            cur.execute("SELECT pg_is_in_recovery()")
            assert cur.fetchone() == (True,)
    cluster.kill_group(leader)
    new = cluster.wait_open(other_than=leader)
    with pytest.raises(psycopg2.Error):
        with sessions[new].cursor() as cur:
            cur.execute("INSERT INTO ledger VALUES (-3)")
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = -3") == [(0,)]
    with pytest.raises(psycopg2.Error) as e:
        cluster.execute("INSERT INTO ledger VALUES (-3)", node=new, read_only=True)
    assert e.value.pgcode in ("25006", "57P03")


def test_s10_replay_paused_on_every_follower(cluster):
    """No SQL, no replay: the position must still be known and a leader found."""
    leader, epoch = cluster.leader(), cluster.epoch()
    for node in cluster.followers():
        cluster.super(node, "SELECT pg_wal_replay_pause()")
    n = cluster.insert(leader, count=20)
    cluster.kill_group(leader)
    cluster.wait_open(30, after_epoch=epoch)
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]


def test_s10_long_query_on_a_follower_does_not_hold_up_its_promotion(cluster):
    leader, epoch = cluster.leader(), cluster.epoch()
    conns = [cluster.connect(n, read_only=True) for n in cluster.followers()]
    queries = [Pending(c, "SELECT count(*), pg_sleep(60) FROM ledger") for c in conns]
    cluster.insert(leader)
    cluster.execute("CREATE TABLE IF NOT EXISTS vac (i int); DROP TABLE vac", node=leader)
    cluster.kill_group(leader)
    cluster.wait_open(15, after_epoch=epoch)
    for c, q in zip(conns, queries):
        if not q.done:
            c.cancel()
        q.wait(10)
        c.close()


def test_s13_leader_that_cannot_commit_steps_down(cluster):
    """Heartbeats and pings need no WAL: a leader whose WAL reaches nobody would stay for ever."""
    leader, epoch = cluster.leader(), cluster.epoch()
    with cluster.replication_stalled(leader):
        new = cluster.wait_open(30, other_than=leader, after_epoch=epoch)
        assert new != leader
        cluster.insert(new)


def test_s12_leader_frozen_for_less_and_more_than_the_lease(cluster):
    """Short freezes around the lease's length, under readers and writers: never a stale read."""
    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=2) as writers:
        for seconds in (0.2, 0.45, 0.55, 0.7, 1.2):
            leader = cluster.wait_open()
            writers.wait_for_ack()
            with cluster.frozen(cluster.node_process(leader)):
                time.sleep(seconds)
            hit = time.monotonic()
            writers.wait_for_ack(after=hit)
    cluster.heal()
    readers.check(cluster.ledger_counts())


def test_two_crashes_in_a_row_while_the_first_is_still_away(cluster):
    """The second leader dies too, and the first comes back: both must agree on what was acknowledged."""
    first = cluster.leader()
    cluster.kill_down(first)
    second = cluster.wait_open(other_than=first)
    cluster.insert(second, count=10)
    cluster.kill_down(second)
    cluster.start(first)
    third = cluster.wait_open(30, other_than=second)
    assert third not in (first, second), f"{third} cannot have had everything"
    cluster.heal()


def test_crash_of_leader_and_immediate_restart_of_all(cluster):
    for node in cluster.names():
        cluster.kill_group(node)
    cluster.wait_healthy()
    cluster.insert()
