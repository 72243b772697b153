"""Sessions that stay when the leader goes: handed over, and killed."""

import itertools
import json
import os
import re
import subprocess
import threading

import psycopg
import psycopg2
import pytest

import harness
from scenario import call, environment

_followed = {}


@pytest.fixture(name="cluster")
def followed(request):
    if "c" not in _followed:
        _followed["c"] = harness.Cluster()
    _followed["c"].heal()
    yield _followed["c"]
    if getattr(request.node, "report_call", None) is None or not request.node.report_call.passed:
        _followed.pop("c").destroy()


def change(cluster, how, keep):
    """Another leader, while node `keep` stays up. Returns it."""
    if how == "kill" and cluster.leader() == keep:
        change(cluster, "switchover", keep)
    epoch = cluster.epoch()
    if how == "switchover":
        cluster.switchover(to=next(n for n in cluster.followers()))
    else:
        cluster.kill_down(cluster.leader())
    return cluster.wait_open(after_epoch=epoch)


@pytest.fixture(params=["switchover", "kill"])
def how(request):
    return request.param


@pytest.fixture
def kept(cluster):
    """A follower's node whose clients are looked at, and a table."""
    cluster.execute("DROP TABLE IF EXISTS c_kept; CREATE TABLE c_kept (i int)")
    return cluster.followers()[0]


def rows(cluster):
    return [r[0] for r in cluster.execute("SELECT i FROM c_kept ORDER BY i")]


def holds(cluster, application):
    """What `holdfast sessions` says about sessions of that name."""
    sessions = json.loads(cluster.run("sessions", "--json").stdout)["sessions"]
    return [s["holds"] for s in sessions if s["application"] == application]


def keeps_all(cluster, node, how):
    """Settings, prepared statements and the client's cancel key stay good, as often as it happens."""
    conn = cluster.connect(node, sslmode="require", application_name="c-keeps")
    cur = conn.cursor()
    cur.execute("SET work_mem = '7MB'")
    cur.execute("PREPARE p AS INSERT INTO c_kept VALUES ($1)")
    cur.execute("EXECUTE p(0)")
    pid = conn.get_backend_pid()
    harness.wait_until("it is free", lambda: holds(cluster, "c-keeps") == ["free"], 30, 0.3)
    for i in range(1, 4):
        change(cluster, how, node)
        cur.execute("EXECUTE p(%s)", (i,))
        cur.execute("SHOW work_mem")
        assert cur.fetchone() == ("7MB",)
        threading.Timer(0.5, conn.cancel).start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cur.execute("SELECT pg_sleep(30)")
        cluster.heal()
    assert conn.get_backend_pid() == pid  # as the driver remembers it: it never noticed
    assert rows(cluster) == [0, 1, 2, 3]
    conn.close()


def test_free_and_idle(cluster, kept, how):
    keeps_all(cluster, kept, how)


def test_free_and_idle_where_the_leader_was(cluster, kept):
    """The client is connected to the node that hands over; its session goes on through a tunnel, and comes back."""
    assert kept
    keeps_all(cluster, cluster.leader(), "switchover")


def test_what_made_it_again_is_not_the_clients(cluster, kept):
    """Settings are made again by the unnamed statement: a client that binds one that it has not parsed must not run that."""
    user, password, database = cluster.login()
    conn = psycopg.connect(host="127.0.0.1", port=cluster.sql_port(kept), user=user, password=password, dbname=database).pgconn
    assert conn.exec_(b"SET work_mem = '7MB'").status == psycopg.pq.ExecStatus.COMMAND_OK
    change(cluster, "switchover", kept)
    assert conn.exec_(b"SHOW work_mem").get_value(0, 0) == b"7MB"
    change(cluster, "switchover", kept)
    assert conn.exec_prepared(b"", []).error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"26000"
    assert conn.exec_(b"SHOW work_mem").get_value(0, 0) == b"7MB"
    conn.finish()


def test_in_a_transaction(cluster, kept, how):
    conn = cluster.connect(kept, autocommit=False)
    cur = conn.cursor()
    cur.execute("INSERT INTO c_kept VALUES (1)")
    change(cluster, how, kept)
    with pytest.raises(psycopg2.errors.SerializationFailure, match="the leader has changed") as e:
        conn.commit()
    assert "from its beginning" in str(e.value)
    conn.rollback()
    cur.execute("INSERT INTO c_kept VALUES (2)")
    conn.commit()
    assert rows(cluster) == [2]
    conn.close()


def test_commit_of_unknown_outcome(cluster, kept):
    """It waits for a majority when the leader dies: nobody says that it was done, or that it was not, nor does it twice."""
    leader = cluster.leader()
    conn = cluster.connect(kept)
    got = []

    def write():
        try:
            conn.cursor().execute("INSERT INTO c_kept VALUES (1)")
            got.append("done")
        except psycopg2.Error as e:
            got.append(e.pgcode)

    with cluster.replication_stalled(leader):
        writer = threading.Thread(target=write)
        writer.start()
        harness.wait_until("the commit waits", lambda: cluster.super(
            leader, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'app'"), 15)
        cluster.kill_down(leader)
    cluster.wait_open(other_than=leader)
    writer.join(30)
    assert got == ["08007"]
    cur = conn.cursor()
    cur.execute("SELECT count(*) FROM c_kept")  # the session is still there
    assert cur.fetchone()[0] in (0, 1)
    conn.close()


def told_by_psql(cluster, node, statement, how):
    """What psql prints of a session that the leader leaves: also what comes while it waits for its user."""
    with subprocess.Popen(["psql", "-XAtq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, env=environment(cluster, node)) as psql:
        psql.stdin.write(f"{statement};\nSELECT 'one';\n")
        psql.stdin.flush()
        for line in psql.stdout:
            if line == "one\n":
                break
        change(cluster, how, node)
        out, _ = psql.communicate("SELECT 'two';\n", timeout=30)
    return out


def test_pinned_is_told_by_what(cluster, kept, how):
    out = told_by_psql(cluster, kept, "LISTEN c", how)
    assert "FATAL:  the leader has changed" in out and "LISTEN" in out and "two" not in out


@pytest.fixture
def function(cluster):
    """Makes a function through the leader's node, when nobody can have heard of it yet."""
    def make(body):
        cluster.execute("DROP FUNCTION IF EXISTS c_young(bool); CREATE FUNCTION c_young(yes bool) RETURNS void LANGUAGE plpgsql"
                        f" AS $$ BEGIN IF yes THEN {body}; END IF; END $$")

    yield make
    cluster.execute("DROP FUNCTION IF EXISTS c_young(bool)")


@pytest.mark.parametrize("body, by", [("PERFORM pg_advisory_lock(1)", "advisory lock"),
                                      ("CREATE TEMP TABLE c_young_made (i int)", "temporary table"),
                                      ("SET app.x = 1", "setting")])
def test_a_function_made_a_moment_ago(cluster, function, kept, how, body, by):
    """What it leaves is seen at once, through whatever node it was made; and that it leaves nothing, too."""
    function(body)
    out = told_by_psql(cluster, kept, "SELECT c_young(true)", how)
    assert "FATAL:  the leader has changed" in out and by in out and "two" not in out
    cluster.heal()
    assert told_by_psql(cluster, kept, "SELECT c_young(false)", how) == "two\n"


def test_without_a_guard(kept):
    """Nobody says what a session holds: it ends, as without following."""
    assert kept
    with harness.Cluster(env={"HOLDFAST_GUARD": "off"}) as cluster:
        node = cluster.followers()[0]
        conn = cluster.connect(node, application_name="c-no-guard")
        assert holds(cluster, "c-no-guard") == ["no guard"]
        conn.close()
        out = told_by_psql(cluster, node, "SELECT 'zero'", "switchover")
        assert "FATAL:  the leader has changed" in out and "no guard" in out and "two" not in out


def test_without_pooling(kept):
    """A session that never gives its connection away survives in the same way."""
    assert kept
    with harness.Cluster(env={"HOLDFAST_POOL": "session"}) as cluster:
        cluster.execute("CREATE TABLE c_kept (i int)")
        keeps_all(cluster, cluster.followers()[0], "kill")


@pytest.mark.limit(300)
@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench_through_hand_overs(cluster, mode):
    """Through the port of one node, which leads and follows in turn: no client notices, and nothing is lost or done twice."""
    names = cluster.names()
    call(cluster, names[0], "pgbench", "-i", "-q", "-s", "1", timeout=120)
    with subprocess.Popen(["pgbench", "-n", "-M", mode, "-c", "4", "-T", "600"], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, env=environment(cluster, names[0])) as bench:
        def rows_done():
            return cluster.execute("SELECT count(*) FROM pgbench_history")[0][0]

        for _ in range(HAND_OVERS):
            before = rows_done()
            harness.wait_until("it works", lambda b=before: rows_done() > b + 20)
            change(cluster, "switchover", None)
            cluster.wait_healthy()
        before = rows_done()
        harness.wait_until("it works", lambda b=before: bench.poll() is not None or rows_done() > b + 20)
        bench.terminate()  # SIGINT may be ignored: who runs tests in the background inherits that
        out, _ = bench.communicate(timeout=60)
    errors = re.findall(r"(?:ERROR|FATAL|error|aborted).*", out)
    assert not errors, out
    assert cluster.execute("SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),"
                           " (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)") == [
                               (True, True)]


KILLS = int(os.environ.get("HOLDFAST_KILLS", "5"))
HAND_OVERS = int(os.environ.get("HOLDFAST_HAND_OVERS", "2"))  # of each mode; `make test-clients`: seven, twenty and one in all


class Writer(threading.Thread):
    """Writes rows with numbers of its own, in transactions of two and alone; remembers what was acknowledged."""

    def __init__(self, cluster, node, base):
        super().__init__(daemon=True)
        self.conn, self.base = cluster.connect(node), base
        self.conn.cursor().execute("SET application_name = 'c-writer'")
        self.acked, self.unknown, self.undone, self.codes, self.died = set(), set(), set(), {}, None
        self.stopping = threading.Event()

    def once(self, n):
        cur = self.conn.cursor()
        try:
            if n % 2 == 0:
                cur.execute("INSERT INTO c_survive VALUES (%s)", (n,))
            else:
                cur.execute("BEGIN")
                cur.execute("INSERT INTO c_survive VALUES (%s)", (n,))
                cur.execute("COMMIT")
            self.acked.add(n)
        except psycopg2.Error as e:
            self.codes[e.pgcode] = self.codes.get(e.pgcode, 0) + 1
            (self.unknown if e.pgcode == "08007" else self.undone).add(n)
            if e.pgcode not in ("40001", "08007") or self.conn.closed:
                raise
            cur.execute("ROLLBACK")

    def run(self):
        try:
            for n in itertools.count(self.base):
                if self.stopping.is_set():
                    return
                self.once(n)
        except Exception as e:  # pylint: disable=broad-exception-caught
            self.died = e


def run_writers(cluster, node, what, times):
    """Writers at `node`, the leader changed by `what` so often; the errors they saw, by SQLSTATE."""
    cluster.execute("DROP TABLE IF EXISTS c_survive; CREATE TABLE c_survive (n bigint)")
    writers = [Writer(cluster, node, 10_000_000 * (i + 1)) for i in range(4)]
    for w in writers:
        w.start()
    for _ in range(times):
        before = [len(w.acked) for w in writers]
        harness.wait_until("all of them write", lambda b=before: all(
            w.died is not None or len(w.acked) > n + 5 for w, n in zip(writers, b)), 30)
        change(cluster, what, node)
        cluster.heal()
    for w in writers:
        w.stopping.set()
    for w in writers:
        w.join(60)
    assert [w.died for w in writers] == [None] * len(writers)
    there = dict(cluster.execute("SELECT n, count(*) FROM c_survive GROUP BY n"))
    assert not [n for n, k in there.items() if k != 1]  # nothing twice
    for w in writers:
        assert not w.acked - set(there)  # nothing lost that was acknowledged
        assert not w.undone & set(there)  # nor there what was said not to be
        w.conn.cursor().execute("SELECT 1")
        w.conn.close()
    return {code: sum(w.codes.get(code, 0) for w in writers) for w in writers for code in w.codes}


@pytest.mark.limit(300)
def test_writers_through_kills(cluster):
    codes = run_writers(cluster, cluster.followers()[0], "kill", KILLS)
    assert set(codes) <= {"40001", "08007"} and codes


@pytest.mark.limit(300)
def test_writers_through_hand_overs(cluster):
    assert not run_writers(cluster, cluster.followers()[0], "switchover", 5)
