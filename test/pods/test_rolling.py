"""Planned work with clients attached, and a DNS that fails."""

import time

import psycopg2

import pods


def test_rolling_restart(stateful):
    """As the controller updates a StatefulSet: from the highest ordinal, each one ready before the next."""
    s = stateful(stop_delay_ms=None)
    s.found()
    clients = [pods.Clients(s, f"c{i}") for i in range(4)]
    for c in clients:
        c.start()
    for ordinal in (2, 1, 0):
        s.replace(ordinal)
        pods.wait_for("ready", lambda: s.pods[ordinal].ready, 60)  # pylint: disable=W0640
    s.wait_streaming()
    for c in clients:
        c.finish()
    refused = [e for c in clients for e in c.refused]
    assert not refused, f"connections failed instead of being held: {refused[:3]}"
    # A session ends with the pod that carries it, and at most once more with each change of leader.
    assert all(len(c.broken) <= 6 for c in clients), [c.broken for c in clients]
    assert max(c.gap for c in clients) < 5 * pods.PATIENCE


def test_drain(stateful):
    """Two pods on one machine that is drained: the disruption budget lets one go at a time."""
    s = stateful(stop_delay_ms=None)
    s.found()
    client = pods.Clients(s, "d")
    client.start()
    for ordinal in (s.leader().ordinal, next(o for o in s.pods if o != s.leader().ordinal)):
        s.delete(ordinal)
        s.wait_leader()  # with two of three
        s.start(ordinal)
        s.wait_streaming()  # ready, and counted by the budget again
    client.finish()
    assert not client.refused, client.refused[:3]


def test_failover_without_dns(stateful):
    """A DNS that does not answer, and the leader dies: whoever is left knows where the others were."""
    s = stateful()
    s.found()
    s.network.dns.silent = ("",)
    try:
        old = s.leader()
        begun = time.monotonic()
        s.delete(old.ordinal, grace=0)
        new = s.wait_leader(30)
        took = time.monotonic() - begun
        with new.connect() as c, c.cursor() as cursor:
            cursor.execute("CREATE TABLE t (n int)")
        assert took < 8 * pods.PATIENCE, f"{took:.1f} s"
        assert new.http("/livez")[0] == 200
    finally:
        s.network.dns.silent = ()
    s.start(old.ordinal)
    s.wait_streaming()


def test_a_user_without_a_name(stateful):
    """As OpenShift runs pods: any uid, of group 0, with no line in /etc/passwd."""
    s = stateful(replicas=1, uid=1000650000, fs_group=1000650000)
    s.found()
    with s.pods[0].connect() as c, c.cursor() as cursor:
        cursor.execute("SELECT 1")
    s.replace(0)
    s.wait_streaming()


def test_held_while_nobody_leads(stateful):
    """A new connection waits for a leader; it is not refused."""
    s = stateful()
    s.found()
    for ordinal in (1, 2):
        s.delete(ordinal, grace=0)
    pods.wait_for("no leader", lambda: s.leader() is None, 20)
    s.start(1, 2)
    with s.pods[0].connect() as c, c.cursor() as cursor:
        cursor.execute("SELECT pg_is_in_recovery()")
        assert cursor.fetchone() == (False,)
    s.wait_streaming()


def test_nothing_is_said_to_strangers(stateful):
    s = stateful()
    s.found()
    try:
        psycopg2.connect(host=s.pods[0].ip, user="app", password="wrong", dbname="app", sslmode="disable")
        raise AssertionError("in with a wrong password")
    except psycopg2.OperationalError as e:
        assert "password authentication failed" in str(e)
