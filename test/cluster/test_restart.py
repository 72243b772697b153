"""Everything stops, everything starts again, all at once."""

import os
import signal
import time

import psycopg2
import pytest

import harness
from load import ReadLoop


def test_down_and_up_again_with_all_data(cluster):
    n = cluster.insert(count=10)
    st = cluster.status()
    cluster.down()
    assert not cluster.all_processes(), "down left processes behind"
    cluster.up()
    cluster.wait_healthy(60)
    assert cluster.status()["cluster"] == st["cluster"]
    assert cluster.epoch() >= st["epoch"]
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]


def test_power_cut_and_up_again(cluster):
    """kill -9 of every process of the cluster, the runtime of `up` too, in the middle of writing."""
    from load import WriteLoop

    with ReadLoop(cluster) as readers, WriteLoop(cluster, clients=4) as writers:
        writers.wait_for_ack()
        cluster.kill_everything()
    cluster.up()
    cluster.wait_healthy(60)
    readers.check(cluster.ledger_counts())


def test_s18_restart_of_all_after_many_epochs_promotes_nobody_from_the_log(cluster):
    """The log now holds APPOINT entries of every node. After a cut of everything only the newest
    appointment, made after the start, may promote."""
    for node in (*cluster.followers(), cluster.leader()):
        cluster.switchover(node, check=False)
        cluster.wait_healthy()
    epoch = cluster.epoch()
    cluster.kill_everything()
    cluster.up()
    cluster.wait_healthy(60)
    primaries = [
        n for n in cluster.names()
        if cluster.super(n, "SELECT NOT pg_is_in_recovery()")[0][0]
    ]
    assert primaries == [cluster.leader()] and cluster.epoch() > epoch


def test_one_node_of_a_stopped_cluster_waits(cluster):
    n = cluster.insert()
    for node in cluster.names():
        cluster.kill_down(node)
    cluster.start(cluster.names()[1])
    time.sleep(1.5)
    assert cluster.open_leader(cluster.status()) is None

    def recovers():
        try:
            return cluster.super(cluster.names()[1], "SELECT pg_is_in_recovery()") == [(True,)]
        except psycopg2.OperationalError:
            return False  # it is just starting

    harness.wait_until("its PostgreSQL is up, as a standby", recovers, 20)
    assert cluster.open_leader(cluster.status()) is None
    cluster.start(cluster.names()[2])
    cluster.wait_open(30)
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]


def test_down_destroy_leaves_nothing(fresh):
    c = fresh(replicas=1)
    c.run("down", "--destroy")
    assert not c.all_processes()
    assert not os.path.exists(c.dir) or not os.listdir(c.dir)


def test_up_returns_when_the_application_can_write(fresh):
    """What `up` prints must work at once."""
    c = fresh(start=False)
    c.up()
    c.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")


def test_a_follower_that_starts_makes_every_database_ready(cluster):
    """Ready for its first session, which after a failover is everybody's: PostgreSQL's file of what sessions begin
    with, removed at each start, is there again without a client."""
    node = cluster.followers()[0]
    cluster.execute("CREATE TABLE IF NOT EXISTS ready (n int)")
    (oid,), = cluster.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
    cluster.kill_down(node)
    cluster.start(node)
    cluster.wait_healthy(60)
    made = os.path.join(cluster.path(node, "data"), "base", str(oid), "pg_internal.init")
    harness.wait_until("the database is ready", lambda: os.path.exists(made))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_closed_terminal(cluster, number):
    """They reach the whole group: sentinel and node. Leadership is handed over all the same."""
    leader = cluster.leader()
    mark = cluster.log_mark(leader)
    cluster.kill_group(leader, number)
    cluster.wait_log(mark, "ended with status 0", 20)
    assert "phase=released" in cluster.log_since(mark) and "killed by signal" not in cluster.log_since(mark)
    cluster.heal(60)
