"""S11: nothing ends a commit's wait for a majority but the majority, or the end of the server. The guard (src/guard)
sees to that inside PostgreSQL; without it the router withholds what it is warned of."""

import signal
import threading
import time

import pytest

import harness
from load import Pending

CANCEL = "goes on in spite of a cancel"
TERMINATE = "goes on in spite of a terminate"
PUT = ("CREATE OR REPLACE PROCEDURE put(x bigint) LANGUAGE plpgsql AS"
       " $$BEGIN INSERT INTO ledger VALUES (x); COMMIT; END$$")
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'app'"


def wait_for_syncrep(cluster, leader, count=1):
    """Pids of the sessions of the application whose commits wait."""
    rows = harness.wait_until(
        f"{count} commits wait for followers",
        lambda: (lambda r: len(r) == count and r)(cluster.super(leader, WAITING)), poll=0.005)
    return [pid for (pid,) in rows]


def begin_write(cluster, leader, **where):
    """An INSERT whose commit waits; its number counts as unknown until somebody says more."""
    n = cluster.ledger.take()
    cluster.ledger.note(n, False)
    conn = cluster.connect(leader, **where)
    return n, conn, Pending(conn, "INSERT INTO ledger VALUES (%s)", (n,))


def count_of(cluster, n, **where):
    return cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,), **where)[0][0]


def call_with_timeout(cluster, leader):
    """A connection whose CALL put(n) shall be cut short while it commits, by a timeout of which nobody is warned."""
    cluster.execute(PUT)
    n = cluster.ledger.take()
    cluster.ledger.note(n, False)
    conn = cluster.connect(leader)
    with conn.cursor() as cur:
        cur.execute("SET client_min_messages = error")
        cur.execute("SET statement_timeout = '700ms'")
    return n, conn


def test_s11_all_nodes_are_guarded(cluster):
    assert [n["guarded"] for n in cluster.status()["nodes"]] == [True] * 3
    assert "guard" not in cluster.run("status").stdout


def test_s11_a_commit_that_timed_out_unheard_is_not_lost(cluster):
    """The schedule that lost a commit: nobody hears the WARNING, so the CALL looked like a success."""
    leader = cluster.leader()
    n, conn = call_with_timeout(cluster, leader)
    with cluster.replication_stalled(leader):
        mark = cluster.log_mark(leader, "postgresql.log")
        call = Pending(conn, "CALL put(%s)", (n,))
        harness.wait_until("the timeout has struck",
                           lambda: call.done or CANCEL in cluster.log_since(mark), 10)
        answered = call.succeeded
        cluster.kill_down(leader)
    assert call.wait(20)
    cluster.ledger.note(n, call.succeeded)
    cluster.wait_open(other_than=leader)
    assert not answered or count_of(cluster, n) == 1, "an acknowledged commit is gone"
    assert not answered, "called a success while no follower had it"
    conn.close()


def test_s11_a_timeout_strikes_once_the_commit_is_safe(cluster):
    leader = cluster.leader()
    n, conn = call_with_timeout(cluster, leader)
    with cluster.replication_stalled(leader):
        mark = cluster.log_mark(leader, "postgresql.log")
        call = Pending(conn, "CALL put(%s)", (n,))
        cluster.wait_log(mark, CANCEL)
        assert not call.done
    assert call.wait(20)
    assert call.error is not None and call.error.pgcode == "57014", call.error or "success"
    with conn.cursor() as cur:  # the session is as good as before
        cur.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,))
        assert cur.fetchall() == [(1,)]
    conn.close()
    cluster.ledger.note(n, True)


def test_s11_terminate_by_a_superuser_waits(cluster):
    """On the node's own socket, around the gate: even so the row is nowhere to be seen until a majority holds it."""
    leader = cluster.leader()
    with cluster.replication_stalled(leader):
        n, conn, write = begin_write(cluster, leader)
        (pid,) = wait_for_syncrep(cluster, leader)
        mark = cluster.log_mark(leader, "postgresql.log")
        cluster.super(leader, "SELECT pg_terminate_backend(%s)", (pid,))
        harness.wait_until("the backend was told",
                           lambda: write.done or TERMINATE in cluster.log_since(mark), 10)
        assert not write.done, f"ended while no follower had the row: {write.error}"
        assert wait_for_syncrep(cluster, leader) == [pid]
        assert cluster.super(leader, "SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(0,)]
    assert write.wait(20)
    assert not write.succeeded  # its connection ended: it does not know
    assert count_of(cluster, n) == 1
    cluster.ledger.note(n, True)
    conn.close()


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_s11_in_a_database_made_from_template0(cluster, how):
    """There nobody revoked the two functions from PUBLIC: an application can turn them on its own sessions."""
    leader = cluster.leader()
    cluster.super(leader, "DROP DATABASE IF EXISTS bare")
    cluster.super(leader, "CREATE DATABASE bare TEMPLATE template0 OWNER app")
    cluster.execute("CREATE TABLE ledger (n bigint NOT NULL)", dbname="bare")
    other = cluster.connect(leader, dbname="bare")
    with cluster.replication_stalled(leader):
        n, conn, write = begin_write(cluster, leader, dbname="bare",
                                     options="-c client_min_messages=error")
        (pid,) = wait_for_syncrep(cluster, leader)
        mark = cluster.log_mark(leader, "postgresql.log")
        with other.cursor() as cur:
            cur.execute(f"SELECT {how}(%s)", (pid,))
        harness.wait_until("the backend was told",
                           lambda: write.done or "in spite of a" in cluster.log_since(mark), 10)
        assert not write.done, f"ended while no follower had the row: {write.error or 'success'}"
    assert write.wait(20)
    assert write.succeeded == (how == "pg_cancel_backend")
    assert count_of(cluster, n, dbname="bare") == 1
    conn.close()
    other.close()
    cluster.super(cluster.leader(), "DROP DATABASE bare WITH (FORCE)")


def three_waiters(cluster, leader):
    """A commit that just waits, one that was cancelled, one that was terminated."""
    writes = [begin_write(cluster, leader) for _ in range(3)]
    pids = wait_for_syncrep(cluster, leader, 3)
    mark = cluster.log_mark(leader, "postgresql.log")
    cluster.super(leader, "SELECT pg_cancel_backend(%s)", (pids[1],))
    cluster.super(leader, "SELECT pg_terminate_backend(%s)", (pids[2],))
    cluster.wait_log(mark, CANCEL)
    cluster.wait_log(mark, TERMINATE)
    return writes


def finish(cluster, writes):
    for n, conn, write in writes:
        assert write.wait(20)
        cluster.ledger.note(n, write.succeeded)
        conn.close()


def test_s11_hand_over_while_commits_wait(cluster):
    """Followers that take nothing for a while: the hand-over neither hangs nor forgets."""
    leader, epoch = cluster.leader(), cluster.epoch()
    senders = cluster.backends(leader, "walsender")
    cluster.freeze(*senders)
    writes = three_waiters(cluster, leader)
    begun = time.monotonic()
    thread = threading.Thread(target=cluster.switchover, kwargs={"check": False})
    thread.start()
    try:
        cluster.wait_open(20, other_than=leader, after_epoch=epoch)
        assert time.monotonic() - begun < 10 * harness.PATIENCE
    finally:
        thread.join()
        cluster.thaw()
    finish(cluster, writes)


def test_s11_fast_stop_of_a_leader_with_healthy_followers(cluster):
    """Commits come and go, cancelled and terminated all the while: a hand-over takes what it always takes."""
    leader, epoch = cluster.leader(), cluster.epoch()
    with cluster.replication_stalled(leader):
        writes = three_waiters(cluster, leader)
        thread = threading.Thread(target=cluster.switchover, kwargs={"check": False})
        thread.start()
        cluster.wait(f"the gate of {leader} is shut",
                     lambda s: cluster.node(leader, s)["gate"] != "open")
    cluster.wait_open(20, other_than=leader, after_epoch=epoch)
    thread.join()
    finish(cluster, writes)


def test_s11_down_while_commits_wait(fresh):
    cluster = fresh()
    leader = cluster.leader()
    cluster.freeze(*cluster.backends(leader, "walsender"))
    writes = three_waiters(cluster, leader)
    begun = time.monotonic()
    cluster.down()
    assert time.monotonic() - begun < 12 * harness.PATIENCE
    cluster.thaw()
    assert not cluster.all_processes()
    finish(cluster, writes)
    cluster.up()
    cluster.verify()


def test_s11_settings_keep_the_administrators_modules_and_the_floor(fresh):
    """holdfast.synchronous_commit_floor: nobody's commit is acknowledged by less than a majority."""
    cluster = fresh(settings={"shared_preload_libraries": "pg_stat_statements",
                              "holdfast.synchronous_commit_floor": "on"})
    leader = cluster.leader()
    for node in cluster.names():
        shown = cluster.super(node, "SHOW shared_preload_libraries", dbname="postgres")[0][0]
        assert shown.startswith("pg_stat_statements,") and "holdfast_guard_" in shown
    conn = cluster.connect(leader)
    with conn.cursor() as cur:
        cur.execute("SET synchronous_commit = off")
    with cluster.replication_stalled(leader):
        n = cluster.ledger.take()
        write = Pending(conn, "INSERT INTO ledger VALUES (%s)", (n,))
        wait_for_syncrep(cluster, leader)
        assert not write.done
    assert write.wait(20)
    cluster.ledger.note(n, write.succeeded)
    conn.close()
    cluster.kill_group(leader)
    cluster.wait_open(other_than=leader)
    cluster.heal()
    cluster.verify()


# ---- without a module for the server's version ----


@pytest.fixture(scope="module")
def unguarded():
    c = harness.Cluster(env={"HOLDFAST_GUARD": "off"})
    yield c
    c.destroy()


def test_s11_a_node_without_the_guard_says_so(unguarded):
    assert [n["guarded"] for n in unguarded.status()["nodes"]] == [False] * 3
    assert "without the guard: demo-0, demo-1, demo-2" in unguarded.run("status").stdout
    assert "guard" in unguarded.log_text("demo-0")
    loaded = unguarded.super("demo-0", "SHOW shared_preload_libraries", dbname="postgres")[0][0]
    assert "holdfast_guard" not in loaded


def test_s11_without_the_guard_the_router_withholds_what_was_cut_short(unguarded):
    """As long as the session lets PostgreSQL warn."""
    leader = unguarded.leader()
    unguarded.execute(PUT)
    conn = unguarded.connect(leader)
    with conn.cursor() as cur:
        cur.execute("SET statement_timeout = '200ms'")
    n = unguarded.ledger.take()
    unguarded.ledger.note(n, False)
    with unguarded.replication_stalled(leader):
        mark = unguarded.log_mark(leader)
        call = Pending(conn, "CALL put(%s)", (n,))
        unguarded.wait_log(mark, "a wait for a majority was cut short")
        assert not call.done
    assert call.wait(30)
    unguarded.ledger.note(n, call.succeeded)
    conn.close()
    unguarded.verify()


WATCH = """CREATE OR REPLACE FUNCTION watch(x bigint, seconds float) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE until timestamptz := clock_timestamp() + seconds * interval '1 s';
BEGIN
    WHILE clock_timestamp() < until LOOP
        IF EXISTS (SELECT FROM ledger WHERE n = x) THEN RETURN true; END IF;
    END LOOP;
    RETURN false;
END$$"""


def test_s05_nobody_sees_what_waited_when_the_postmaster_is_killed(cluster):
    """PostgreSQL gives the wait up when its postmaster is gone: the row could then be seen by a session that is busy
    and has not noticed the death itself, past every follower."""
    leader, epoch = cluster.leader(), cluster.epoch()
    cluster.execute(WATCH)
    with cluster.replication_stalled(leader):
        n, conn, write = begin_write(cluster, leader)
        wait_for_syncrep(cluster, leader)
        looker = cluster.super(leader)
        watch = Pending(looker, "SELECT watch(%s, 3)", (n,))
        harness.wait_until("somebody watches", lambda: cluster.super(
            leader, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT watch%%' AND state = 'active'"))
        cluster.postmaster(leader).send(signal.SIGKILL)
        assert watch.wait(20)
    assert watch.rows != [(True,)], "a row that nobody else has was seen"
    assert write.wait(20) and not write.succeeded
    cluster.wait_open(after_epoch=epoch)
    conn.close()
    looker.close()
    cluster.wait_healthy()


def test_s11_a_worker_of_logical_replication_is_not_cancelled(fresh):
    """It finishes a prepared transaction without any event of a transaction, and its own log may be told to be silent."""
    cluster = fresh(settings={"wal_level": "logical", "max_prepared_transactions": "10", "log_min_messages": "error"})
    leader = cluster.leader()
    cluster.super(leader, "CREATE DATABASE there")
    for database in (None, "there"):
        cluster.super(leader, "CREATE TABLE copied (n int PRIMARY KEY)", dbname=database)
    cluster.super(leader, "CREATE PUBLICATION p FOR TABLE copied")
    cluster.super(leader, "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, true)")
    cluster.super(leader, f"CREATE SUBSCRIPTION s CONNECTION 'host={cluster.path(leader, 'sock')} port=5432"
                          f" user=holdfast dbname={cluster.login()[2]}' PUBLICATION p"
                          " WITH (create_slot = false, slot_name = 's', copy_data = false, two_phase = true, synchronous_commit = 'on')", dbname="there")
    look = "SELECT count(*) FROM copied"
    cluster.super(leader, "INSERT INTO copied VALUES (1)")
    harness.wait_until("the first row is copied", lambda: cluster.super(leader, look, dbname="there") == [(1,)], 40)
    cluster.super(leader, "BEGIN; INSERT INTO copied VALUES (2); PREPARE TRANSACTION 'two'")
    harness.wait_until("the prepared one is copied", lambda: len(cluster.super(
        leader, "SELECT 1 FROM pg_prepared_xacts WHERE database = 'there'")) == 1, 40)
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND backend_type LIKE 'logical replication%%'"
    # Not the leader's own walsenders: one of them is the worker's.
    cluster.freeze(*[p for f in cluster.followers() for p in cluster.backends(f, "walreceiver")])
    try:
        done = Pending(cluster.super(leader), "COMMIT PREPARED 'two'")
        ((pid,),) = harness.wait_until("the worker waits", lambda: cluster.super(leader, waiting), 40)
        mark = cluster.log_mark(leader, "postgresql.log")
        cluster.super(leader, "SELECT pg_cancel_backend(%s)", (pid,))
        harness.wait_until("the cancel has come", lambda: CANCEL in cluster.log_since(mark) or
                           cluster.super(leader, look, dbname="there") == [(2,)])
        assert cluster.super(leader, look, dbname="there") == [(1,)], "shown without a majority"
    finally:
        cluster.thaw()
    assert done.wait(20)
    harness.wait_until("the second row is copied", lambda: cluster.super(leader, look, dbname="there") == [(2,)], 40)
