"""`holdfast sessions`, and what the operations port counts."""

import json
import select
import subprocess
import threading
import time

import psycopg2
import pytest

import harness
from scenario import environment, metrics, said_to, sessions


NO_ID = ("holdfast: sessions: --kill takes an ID as `holdfast sessions` prints it: demo-0/12"
         " (hint: `holdfast sessions --help`)\n")
NO_SESSION = "holdfast: no such session (hint: `holdfast sessions`)\n"


def mine(cluster, name, *args):
    return [s for s in sessions(cluster, *args) if s["application"] == name]


def test_holds():
    with harness.Cluster() as cluster:
        follower = cluster.followers()[0]
        there = cluster.connect(follower, application_name="c-holds")

        def after(statement):
            there.cursor().execute(statement)
            return mine(cluster, "c-holds")[0]["holds"]

        assert mine(cluster, "c-holds")[0]["holds"] == "free"
        assert after("SET work_mem = '1MB'") == "free"
        assert after("BEGIN") == "transaction"
        assert after("COMMIT") == "free"
        assert after("CREATE TEMP TABLE held (a int)") == "temporary table"
        assert after("LISTEN x") == "temporary table"
        assert sorted(s["holds"] for s in mine(cluster, "c-holds", "--all")) == ["", "temporary table"]
        assert "temporary table" in cluster.run("sessions").stdout
        there.close()


def test_not_followed():
    with harness.Cluster(env={"HOLDFAST_FOLLOW_SESSIONS": "off"}) as cluster:
        there = cluster.connect(application_name="c-not-followed")
        assert mine(cluster, "c-not-followed")[0]["holds"] == ""
        there.close()


def test_list_and_kill(cluster):
    leader, follower = cluster.leader(), cluster.followers()[0]
    here = cluster.connect(leader, application_name="c-here", sslmode="disable")
    there = cluster.connect(follower, application_name="c-there", sslmode="require", autocommit=False)
    cluster.wait_replayed(follower, cluster.lsn(leader))  # its database, for one
    reader = cluster.connect(follower, read_only=True, application_name="c-reader")
    there.cursor().execute("SELECT repeat('x', 100000)")

    def pid(conn):
        cur = conn.cursor()
        cur.execute("SELECT pg_backend_pid()")
        return cur.fetchone()[0]

    there_pid, here_pid = pid(there), pid(here)
    (h,), (t,), (r,) = (mine(cluster, n) for n in ("c-here", "c-there", "c-reader"))
    assert (h["node"], h["at"], h["state"], h["tls"]) == (leader, "leader", "idle", False)
    assert (t["node"], t["at"], t["state"], t["tls"]) == (follower, "elsewhere", "in transaction", True)
    assert (r["node"], r["at"], r["read_only"]) == (follower, "follower", True)
    assert h["user"] == "app" and h["database"] == "app" and h["client"].startswith("127.0.0.1:")
    assert t["bytes_out"] > 100000 > t["bytes_in"] > 0
    assert t["pid"] == there_pid and h["pid"] == here_pid
    assert len(mine(cluster, "c-there", "--all")) == 2  # and as the leader sees it
    text = cluster.run("sessions").stdout
    assert all(s["id"] in text for s in (h, t, r))

    cluster.run("sessions", "--kill", t["id"])
    with pytest.raises(psycopg2.OperationalError, match="closed"):
        there.cursor().execute("SELECT 1")
    harness.wait_until("it is gone", lambda: not mine(cluster, "c-there", "--all"), 10)
    harness.wait_until("and its backend", lambda: not cluster.execute(
        "SELECT 1 FROM pg_stat_activity WHERE application_name = 'c-there'"), 10)
    here.cursor().execute("SELECT 1")
    reader.cursor().execute("SELECT 1")
    done = cluster.run("sessions", "--kill", t["id"], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", NO_SESSION)
    here.close()
    reader.close()


@pytest.mark.parametrize("wrong, status, message", [
    ("demo-0/0", 2, NO_ID), ("demo-0/-1", 2, NO_ID), ("demo-0/1x", 2, NO_ID), ("demo-0/", 2, NO_ID), ("demo-0", 2, NO_ID),
    ("/1", 2, NO_ID), ("nonsense", 2, NO_ID),
    ("demo-9/1", 1, "holdfast: no node demo-9 in cluster demo (hint: `holdfast status`)\n"),
    ("demo-0/987654321", 1, NO_SESSION), ("demo-1/987654321", 1, NO_SESSION)])
def test_ids_that_end_nothing(cluster, wrong, status, message):
    there = cluster.connect("demo-0", application_name="c-lives")
    done = cluster.run("sessions", "--kill", wrong, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", message)
    there.cursor().execute("SELECT 1")
    there.close()


def test_a_node_that_does_not_answer_is_named():
    with harness.Cluster() as cluster:
        gone = cluster.followers()[0]
        here = cluster.connect(cluster.leader(), application_name="c-left")
        assert json.loads(cluster.run("sessions", "--json").stdout)["unreachable"] == []
        cluster.kill_down(gone)
        done = cluster.run("sessions", "--json", check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == 1 and not done.stderr
        assert [u["node"] for u in answer["unreachable"]] == [gone] and answer["unreachable"][0]["error"]
        assert "c-left" in [s["application"] for s in answer["sessions"]]
        done = cluster.run("sessions", check=False)
        assert done.returncode == 1 and "demo-" in done.stdout
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith(f"holdfast: {gone}: ")
        here.close()


def test_who_is_ended_is_told(cluster):
    """psql prints what comes while it waits for its user."""
    with subprocess.Popen(["psql", "-XAtq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env=environment(cluster, cluster.followers()[0], PGAPPNAME="c-psql")) as psql:
        psql.stdin.write("SELECT 'one';\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "one\n"
        cluster.run("sessions", "--kill", mine(cluster, "c-psql")[0]["id"])
        out, _ = psql.communicate("SELECT 'two';\n", timeout=30)
    assert "FATAL:  terminating connection due to administrator command" in out and "two" not in out


def test_what_becomes_of_sessions(cluster):
    """The leader is killed, an administrator ends one, PostgreSQL another: each is counted where its client is, by what it heard."""
    node = cluster.followers()[0]
    cluster.execute("DROP TABLE IF EXISTS c_fate; CREATE TABLE c_fate (i int)")
    idle, listener, writer, killed, terminated = (cluster.connect(node, application_name=f"c-fate-{i}") for i in range(5))
    inside = cluster.connect(node, autocommit=False)
    before = metrics(cluster, node)
    inside.cursor().execute("INSERT INTO c_fate VALUES (1)")
    listener.cursor().execute("LISTEN c")
    harness.wait_until("they can be followed", lambda: [s["holds"] for s in mine(cluster, "c-fate-0")] == ["free"])
    cluster.run("sessions", "--kill", mine(cluster, "c-fate-3")[0]["id"])
    cluster.super(cluster.leader(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'c-fate-4'")
    told = []

    def write():
        try:
            writer.cursor().execute("INSERT INTO c_fate SELECT 2 FROM pg_sleep(60)")
        except psycopg2.Error as e:
            told.append(e.pgcode)

    thread = threading.Thread(target=write)
    thread.start()
    harness.wait_until("it writes", lambda: [s["state"] for s in mine(cluster, "c-fate-2")] == ["active"])
    epoch = cluster.epoch()
    cluster.kill_down(cluster.leader())
    cluster.wait_open(after_epoch=epoch)
    thread.join(30)
    idle.cursor().execute("SELECT 1")
    with pytest.raises(psycopg2.errors.SerializationFailure):
        inside.cursor().execute("SELECT 1")
    assert told == ["08007"]

    def risen(name):
        return metrics(cluster, node)[name] - before[name]

    # Who has a transaction, or has asked something; the idle one needed no server when it lost its own.
    harness.wait_until("two have moved", lambda: risen("holdfast_sessions_moved_total") == 2, 10)
    assert risen('holdfast_transactions_lost_total{told="40001"}') == risen('holdfast_transactions_lost_total{told="08007"}') == 1
    assert risen('holdfast_sessions_ended_total{told="57P01"}') == 2  # who listened, and who was killed
    assert risen('holdfast_sessions_ended_total{told="postgresql"}') == 1
    for word in ("57P03", "57P05", "08007", "53300", "other", "nothing"):
        assert risen(f'holdfast_sessions_ended_total{{told="{word}"}}') == 0, word
    for conn in (idle, inside, listener, writer, killed, terminated):
        conn.close()


def test_idle_sessions():
    """They end, and are told; who has a transaction, listens, or waits for an answer is not idle."""
    with harness.Cluster(replicas=1, env={"HOLDFAST_IDLE_TIMEOUT_MS": "1500"}) as cluster:
        node = cluster.leader()
        inside = cluster.connect(node, autocommit=False)
        inside.cursor().execute("SELECT 1")
        listener = cluster.connect(node)
        listener.cursor().execute("LISTEN c")
        begun = time.monotonic()
        plain, tls = (cluster.connect(node, sslmode=mode) for mode in ("disable", "require"))
        assert b"57P05\0Mterminating connection due to idle-session timeout\0" in said_to(plain)
        assert select.select([tls], [], [], 10)[0]
        with pytest.raises(psycopg2.OperationalError):
            tls.cursor().execute("SELECT 1")
        assert time.monotonic() - begun > 1.5
        waits = cluster.connect(node)
        waits.cursor().execute("SELECT pg_sleep(4)")
        m = metrics(cluster, node)
        assert m["holdfast_idle_ended_total"] == m['holdfast_sessions_ended_total{told="57P05"}'] == 2
        inside.commit()
        listener.cursor().execute("NOTIFY c")
        listener.poll()
        assert listener.notifies
        for conn in (inside, listener, waits):
            conn.close()


def test_who_takes_his_time_is_not_cut_off(cluster):
    """A pipe that is full for some seconds, behind a copy for example, is no dead client."""
    rows = 50000  # more than the sockets between hold

    class Pipe:
        taken = 0

        def write(self, data):
            if not self.taken:
                time.sleep(9)
            self.taken += len(data)

    def copy(node, pipe):
        with cluster.connect(node) as conn, conn.cursor() as cur:
            cur.copy_expert(f"COPY (SELECT repeat('x', 999) FROM generate_series(1, {rows})) TO STDOUT", pipe)

    pipes = {node: Pipe() for node in cluster.names()}
    threads = [threading.Thread(target=copy, args=each) for each in pipes.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {pipe.taken for pipe in pipes.values()} == {1000 * rows}


def test_metrics(cluster):
    out = 'holdfast_client_bytes_total{direction="out"}'
    follower = cluster.followers()[0]
    before = metrics(cluster, follower)
    with psycopg2.connect(host="127.0.0.1", port=cluster.sql_port(follower), sslmode="require",
                          **dict(zip(("user", "password", "dbname"), cluster.login()))) as conn:
        conn.cursor().execute("SELECT repeat('x', 50000)")
        # Bytes are counted when the system took them: a fast client may have them a moment earlier.
        harness.wait_until("the answer is counted",
                           lambda: metrics(cluster, follower)[out] > before[out] + 50000)
        during = metrics(cluster, follower)
    assert during['holdfast_sessions{kind="tunnel"}'] == before['holdfast_sessions{kind="tunnel"}'] + 1
    assert during["holdfast_sessions_tls"] == before["holdfast_sessions_tls"] + 1
    assert during["holdfast_connections_total"] == before["holdfast_connections_total"] + 1
    with pytest.raises(psycopg2.OperationalError):
        cluster.connect(follower, replication="true")
    after = metrics(cluster, follower)
    assert after['holdfast_refused_total{why="startup"}'] >= before['holdfast_refused_total{why="startup"}'] + 1
