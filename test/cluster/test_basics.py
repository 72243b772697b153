"""The main job while nothing is broken: any node takes any connection; what must be refused is."""

import json
import re
import socket
import subprocess
import threading
import time

import psycopg2
import pytest

import harness
from load import Pending


def test_start_one_leader_all_streaming(cluster):
    st = cluster.wait_healthy()
    assert st["cluster"] and st["epoch"] >= 1
    leader = st["leader"]
    assert leader == cluster.open_leader(st)
    for n in st["nodes"]:
        assert n["reachable"] is True
        assert n["role"] == ("leader" if n["name"] == leader else "follower")
        assert isinstance(n["lsn"], int) and n["lsn"] > 0 or re.fullmatch(r"[0-9A-F]+/[0-9A-F]+", n["lsn"])
        assert n["lag_bytes"] >= 0
        assert n["sql"].endswith(f":{cluster.sql_port(n['name'])}")
    text = cluster.run("status").stdout
    assert all(n in text for n in cluster.names())


def test_write_everywhere_read_everywhere(cluster):
    for node in cluster.names():
        n = cluster.insert(node)
        for other in cluster.names():
            rows = cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,), node=other)
            assert rows == [(1,)], f"written through {node}, read through {other}"


def test_transactions_and_large_results_through_every_port(cluster):
    for node in cluster.names():
        conn = cluster.connect(node, autocommit=False)
        with conn.cursor() as cur:
            cur.execute("CREATE TEMP TABLE t (i int, s text)")
            cur.execute("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 5000) i")
            cur.execute("SELECT i, s FROM t ORDER BY i")
            rows = cur.fetchall()
        assert len(rows) == 5000 and rows[-1] == (5000, "x" * 1000)
        conn.rollback()
        with conn.cursor() as cur:
            cur.execute("SELECT to_regclass('pg_temp.t')")
            assert cur.fetchone() == (None,)
        conn.close()


def test_copy_in_both_directions(cluster, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("".join(f"{i},{'y' * 200}\n" for i in range(20000)))
    conn = cluster.connect(cluster.followers()[0], autocommit=False)
    with conn.cursor() as cur, open(source, encoding="ascii") as f:
        cur.execute("CREATE TEMP TABLE c (i int, s text)")
        cur.copy_expert("COPY c FROM STDIN (FORMAT csv)", f)
        with open(tmp_path / "out.csv", "w", encoding="ascii") as out:
            cur.copy_expert("COPY (SELECT * FROM c ORDER BY i) TO STDOUT (FORMAT csv)", out)
    conn.close()
    assert (tmp_path / "out.csv").read_text() == source.read_text()


def test_uri_names_all_nodes_and_works(cluster):
    uri = cluster.run("uri").stdout.strip()
    assert "\n" not in uri
    for node in cluster.names():
        assert f":{cluster.sql_port(node)}" in uri
    conn = psycopg2.connect(uri)
    conn.close()
    one = cluster.run("uri", "--node", cluster.names()[1]).stdout.strip()
    assert f":{cluster.sql_port(cluster.names()[1])}/" in one
    assert f":{cluster.sql_port(cluster.names()[0])}" not in one


def test_sql_verb_runs_psql(cluster):
    done = cluster.run("sql", "-c", "SELECT 'x' || 42")
    assert "x42" in done.stdout


def test_admin_is_not_superuser(cluster):
    conn = psycopg2.connect(cluster.run("uri", "--admin").stdout.strip())
    with conn.cursor() as cur:
        cur.execute("SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user")
        assert cur.fetchone() == (False, True)
    conn.close()


def test_read_only_port_reads_and_refuses_writes(cluster):
    n = cluster.insert()
    lsn = cluster.lsn(cluster.leader())
    for node in cluster.followers():
        cluster.wait_replayed(node, lsn)
    for node in cluster.names():  # also through the leader's: a follower answers
        conn = cluster.connect(node, read_only=True)
        with conn.cursor() as cur:
            cur.execute("SELECT pg_is_in_recovery(), count(*) FROM ledger WHERE n = %s", (n,))
            assert cur.fetchone() == (True, 1)
            with pytest.raises(psycopg2.Error) as e:
                cur.execute("INSERT INTO ledger VALUES (-1)")
        assert e.value.pgcode == "25006"
        conn.close()


def test_cancel_of_a_read_that_the_leaders_port_gave_to_a_follower(cluster):
    conn = cluster.connect(cluster.leader(), read_only=True)
    threading.Timer(0.3, conn.cancel).start()
    with conn.cursor() as cur:
        cur.execute("SELECT pg_is_in_recovery()")
        assert cur.fetchone() == (True,)
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cur.execute("SELECT pg_sleep(60)")
    conn.close()


def test_read_only_port_of_the_leader_without_followers(fresh):
    """Nobody else is there: the leader reads, and refuses writes."""
    c = fresh(replicas=1)
    n = c.insert()
    conn = c.connect(read_only=True)
    with conn.cursor() as cur:
        cur.execute("SELECT pg_is_in_recovery(), count(*) FROM ledger WHERE n = %s", (n,))
        assert cur.fetchone() == (False, 1)
        with pytest.raises(psycopg2.Error) as e:
            cur.execute("INSERT INTO ledger VALUES (-1)")
    assert e.value.pgcode == "25006"
    conn.close()


def test_wrong_password_is_refused_by_postgresql(cluster):
    for node in cluster.names():
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            cluster.connect(node, password="wrong")


def test_role_holdfast_is_refused_through_the_router(cluster):
    for node in cluster.names():
        for read_only in (False, True):
            with pytest.raises(psycopg2.OperationalError) as e:
                cluster.connect(node, read_only, user="holdfast", dbname="postgres")
            assert "holdfast" in str(e.value)
            assert "server closed the connection unexpectedly" not in str(e.value)


def test_replication_through_the_router_is_refused(cluster):
    for node in (cluster.leader(), cluster.followers()[0]):
        for value in ("true", "database", "on"):
            with pytest.raises(psycopg2.OperationalError) as e:
                cluster.connect(node, replication=value)
            assert "replication" in str(e.value).lower()


def send_garbage(port, raw):
    """Sends it and waits until the other side has had enough."""
    with socket.create_connection(("127.0.0.1", port), 5) as s:
        s.settimeout(20)
        try:
            s.sendall(raw)
            s.shutdown(socket.SHUT_WR)
            while s.recv(4096):
                pass
        except (ConnectionResetError, BrokenPipeError, OSError) as e:
            assert not isinstance(e, TimeoutError), f"port {port} keeps {raw[:10]} for ever"


def test_garbage_on_the_ports_harms_nobody(cluster):
    epoch = cluster.epoch()
    before = {n: cluster.node_process(n) for n in cluster.names()}
    for node in cluster.names():
        for raw in (b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\4", b"\xff" * 64,
                    b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x10\x04\xd2\x16\x2e\0\0"):
            send_garbage(cluster.sql_port(node), raw)
            send_garbage(cluster.sql_port(node, read_only=True), raw)
        for raw in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"A" * 500, b"\0" * 64):
            send_garbage(cluster.sql_port(node) + 4, raw)
    for node in cluster.names():
        cluster.insert(node)
    assert cluster.epoch() == epoch
    assert {n: cluster.node_process(n) for n in cluster.names()} == before


def test_cancel_request_works(cluster):
    for node in cluster.names():
        conn = cluster.connect(node)
        sleeper = Pending(conn, "SELECT pg_sleep(60)")
        harness.wait_until(
            "the query runs",
            lambda: cluster.super(
                cluster.leader(), "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
                                  " AND state = 'active'"),
        )
        conn.cancel()
        assert sleeper.wait(10), f"through {node}: still running 10 s after the cancel"
        assert sleeper.error.pgcode == "57014"
        with conn.cursor() as cur:
            cur.execute("SELECT 1")
        conn.close()


def test_cancel_of_a_commit_that_waits_for_followers_does_not_lie(cluster):
    """DESIGN 10: cancelling a SyncRep wait would return success for a row that nobody else has."""
    leader = cluster.leader()
    for node in (leader, cluster.followers()[0]):
        conn = cluster.connect(node)
        with cluster.replication_stalled(leader):
            n = cluster.ledger.take()
            write = Pending(conn, "INSERT INTO ledger VALUES (%s)", (n,))
            wait_for_syncrep(cluster, leader)
            for _ in range(3):
                conn.cancel()
                assert not write.wait(0.15), (
                    f"answered while no follower had it: {write.error or 'success'}, {conn.notices}"
                )
        assert write.wait(20)
        cluster.ledger.note(n, write.succeeded)
        assert not any("canceling wait" in note for note in conn.notices)
        conn.close()
        cluster.wait_healthy()
        leader = cluster.leader()


def wait_for_syncrep(cluster, leader):
    harness.wait_until(
        "a commit waits for followers",
        lambda: cluster.super(
            leader, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    " AND application_name = 'cluster-test'"),
        poll=0.005,
    )


def test_s11_sql_cannot_end_other_sessions_or_change_the_system(cluster):
    conn = cluster.connect()
    with conn.cursor() as cur:
        for sql in ("SELECT pg_cancel_backend(1)", "SELECT pg_terminate_backend(1)",
                    "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_promote()",
                    "SELECT pg_reload_conf()", "SET synchronous_standby_names = ''",
                    "SET session_replication_role = replica", "SET ROLE holdfast"):
            with pytest.raises(psycopg2.Error) as e:
                cur.execute(sql)
            assert e.value.pgcode in ("42501", "55P02"), f"{sql}: {e.value}"
    conn.close()


def test_s11_statement_timeout_inside_a_commit_does_not_lie(cluster):
    """A CALL that commits can be timed out inside the wait; its success must not reach the client."""
    leader = cluster.leader()
    cluster.execute(
        "CREATE OR REPLACE PROCEDURE put(x bigint) LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO ledger VALUES (x); COMMIT; END$$"
    )
    conn = cluster.connect(leader)
    with conn.cursor() as cur:
        cur.execute("SET statement_timeout = '200ms'")
    with cluster.replication_stalled(leader):
        n = cluster.ledger.take()
        cluster.ledger.note(n, False)
        write = Pending(conn, "CALL put(%s)", (n,))
        write.wait(0.8)
        assert not write.succeeded, f"success while no follower had the row; notices {conn.notices}"
    assert write.wait(30)
    if write.succeeded:
        cluster.ledger.note(n, True)
    conn.close()


def test_s11_a_session_may_opt_out_and_only_that_session(cluster):
    """synchronous_commit = off is PostgreSQL's own offer; it must weaken nobody else (docs/safety.md)."""
    leader = cluster.leader()
    off, on = cluster.connect(leader), cluster.connect(leader)
    with off.cursor() as cur:
        cur.execute("SET synchronous_commit = off")
    with cluster.replication_stalled(leader):
        local = Pending(off, "CREATE TABLE IF NOT EXISTS opted_out (n int)")
        n = cluster.ledger.take()
        write = Pending(on, "INSERT INTO ledger VALUES (%s)", (n,))
        local.wait(0.3)
        assert not write.wait(0.4), "a session at `on` was acknowledged without a majority"
    assert write.wait(20)
    cluster.ledger.note(n, write.succeeded)
    off.close()
    on.close()


def test_up_twice_is_harmless(cluster):
    n = cluster.insert()
    epoch, before = cluster.epoch(), {x: cluster.node_process(x) for x in cluster.names()}
    done = cluster.up(check=False)
    assert done.returncode in (0, 1)
    text = done.stdout + done.stderr
    assert "running" in text.lower(), text
    assert cluster.epoch() == epoch
    assert {x: cluster.node_process(x) for x in cluster.names()} == before
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]


def test_up_although_the_applications_password_is_another_now(fresh):
    cluster = fresh(replicas=1)
    user, password, _ = cluster.login()
    cluster.run("sql", "--admin", "-c", f"ALTER ROLE {user} PASSWORD 'another'")
    cluster.down()
    begun = time.monotonic()
    done = cluster.up()
    assert time.monotonic() - begun < 30
    assert f"note: {user} cannot log in" in done.stdout and "--admin" in done.stdout
    cluster.run("sql", "--admin", "-c", f"ALTER ROLE {user} PASSWORD '{password}'")
    cluster.down()
    assert "note: " + user not in cluster.up().stdout


def test_status_says_which_node_it_cannot_reach(cluster):
    gone = cluster.followers()[0]
    cluster.kill_down(gone)
    st = cluster.wait(f"{gone} unreachable", lambda s: cluster.node(gone, s)["reachable"] is False)
    assert cluster.open_leader(st)
    done = cluster.run("status")
    assert gone in done.stdout
    cluster.start(gone)


def test_history_tells_each_epoch(cluster):
    first = cluster.epoch()
    cluster.switchover(cluster.followers()[0])
    cluster.wait_open(after_epoch=first)
    entries = json.loads(cluster.history())
    entries = entries if isinstance(entries, list) else entries["epochs"]
    assert [e["epoch"] for e in entries] == sorted({e["epoch"] for e in entries})
    newest = entries[-1]
    assert newest["epoch"] == cluster.epoch() and newest["leader"] == cluster.leader()
    assert "hand" in newest["why"]
    assert str(newest["epoch"]) in cluster.run("history").stdout


def test_wrong_usage_exits_2():
    for args in (["nonsense"], ["up", "--replicas", "many"], ["kill"], ["status", "--no-such-flag"]):
        done = subprocess.run([harness.BINARY, *args], capture_output=True, text=True, timeout=20,
                              check=False)
        assert done.returncode == 2, f"{args}: exit {done.returncode}"
        assert done.stderr, f"{args}: no word of explanation"


def test_s02_role_or_database_with_synchronous_commit_off_does_not_fool_the_barrier(cluster):
    """Barrier and heartbeat set synchronous_commit themselves: with it off for everybody, a leader
    whose followers take nothing must still not open."""
    leader = cluster.leader()
    database = cluster.login()[2]
    for sql in ("ALTER ROLE holdfast SET synchronous_commit = off",
                f'ALTER DATABASE "{database}" SET synchronous_commit = off',
                "ALTER DATABASE postgres SET synchronous_commit = off"):
        cluster.super(leader, sql)
    try:
        cluster.switchover(cluster.followers()[0])
        new = cluster.wait_open(other_than=leader)
        cluster.wait_healthy()  # all others follow: none is left out of the freeze
        others = cluster.followers()
        for node in others:
            cluster.freeze(cluster.sentinel(node), cluster.node_process(node))
        cluster.postmaster(new).send(9)  # needs a new barrier before any gate opens
        # The node hears of the death a few milliseconds later; until then its gate is open to nobody.
        noticed = time.monotonic() + 2
        while cluster.open_leader(cluster.status()) is not None and time.monotonic() < noticed:
            time.sleep(0.01)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert cluster.open_leader(cluster.status()) is None, "open without a majority"
            time.sleep(0.1)
        cluster.thaw()
        cluster.wait_healthy()
    finally:
        cluster.thaw()
        leader = cluster.wait_open()
        for sql in ("ALTER ROLE holdfast RESET ALL", f'ALTER DATABASE "{database}" RESET ALL',
                    "ALTER DATABASE postgres RESET ALL"):
            cluster.super(leader, sql)
