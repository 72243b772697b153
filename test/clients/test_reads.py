"""Followers' reads: who serves them, how far behind they may be, that they stay read only, and that fresh ones are fresh."""

import collections
import json
import re
import threading
import urllib.request

import psycopg2
import pytest

import harness

_reads = {}


@pytest.fixture(name="cluster")
def with_reads(request):
    if "c" not in _reads:
        _reads["c"] = harness.Cluster(env={"HOLDFAST_MAX_READ_LAG_MS": "2000"})
        _reads["c"].execute("CREATE TABLE c_reads (id int PRIMARY KEY, v bigint NOT NULL); INSERT INTO c_reads VALUES (1, 0)")
    cluster = _reads["c"]
    cluster.heal()
    for node in cluster.names():
        resume(cluster, node)
    near(cluster, cluster.followers())
    yield cluster
    if getattr(request.node, "report_call", None) is None or not request.node.report_call.passed:
        _reads.pop("c").destroy()


def directly(cluster, node, sql):
    """As Holdfast's own role, past the router."""
    conn = psycopg2.connect(host=cluster.path(node, "sock"), user="holdfast", dbname="postgres")
    conn.autocommit = True
    try:
        with conn.cursor() as cur:
            cur.execute(sql)
            return cur.fetchall() if cur.description else []
    finally:
        conn.close()


def pause(cluster, node):
    directly(cluster, node, "SELECT pg_wal_replay_pause()")
    harness.wait_until("its replay stands still",
                       lambda: directly(cluster, node, "SELECT pg_get_wal_replay_pause_state()")[0][0] == "paused")


def resume(cluster, node):
    if directly(cluster, node, "SELECT pg_is_in_recovery()")[0][0]:
        directly(cluster, node, "SELECT pg_wal_replay_resume()")


def metric(cluster, node, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.sql_port(node) + 2}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.M)
    return float(found.group(1)) if found else None


def near(cluster, nodes, yes=True):
    harness.wait_until(f"{nodes} {'near' if yes else 'far behind'}",
                       lambda: all(metric(cluster, n, "holdfast_read_behind") == (0 if yes else 1) for n in nodes), 20)


def server(conn):
    """Whose PostgreSQL answers?"""
    with conn.cursor() as cur:
        cur.execute("SHOW cluster_name")
        return cur.fetchone()[0]


def served_by(cluster, node, times=12, **more):
    found = collections.Counter()
    for _ in range(times):
        conn = cluster.connect(node, **more)
        found[server(conn)] += 1
        conn.close()
    return found


def served(cluster):
    """A follower may have the application's database a moment after its leader."""
    for follower in cluster.followers():
        try:
            cluster.connect(follower, read_only=True).close()
        except psycopg2.OperationalError as e:
            assert 'database "app" does not exist' in str(e), e
            return False
    return True


FOLLOWER = {"options": "-c holdfast.reads=follower"}


@pytest.mark.parametrize("how", ["port", "setting"])
def test_readers_go_around(cluster, how):
    """However few nodes a client knows, all followers serve, and alike."""
    more = {"read_only": True} if how == "port" else FOLLOWER
    harness.wait_until("followers serve the application", lambda: all(served(cluster) for _ in cluster.names()), 20)
    for node in cluster.names():
        found = served_by(cluster, node, **more)
        assert found == {n: 6 for n in cluster.followers()}, node


def test_who_is_too_far_behind_has_no_new_readers(cluster):
    slow, other = cluster.followers()
    stays = next(c for c in (cluster.connect(slow, read_only=True) for _ in range(4)) if server(c) == slow)
    pause(cluster, slow)
    near(cluster, [slow], False)
    for node in cluster.names():  # the others hear of it with its next message
        harness.wait_until(f"{node} sends nobody there", lambda n=node: served_by(cluster, n, 4, read_only=True) == {other: 4}, 2)
        assert served_by(cluster, node, 4, read_only=True) == {other: 4}
    assert server(stays) == slow  # it was told how old what it reads may be, and nothing worse happens to it
    assert metric(cluster, slow, "holdfast_read_lag_seconds") > 2
    resume(cluster, slow)
    near(cluster, [slow])
    assert set(served_by(cluster, other, read_only=True)) == {slow, other}


WRITES = [
    "INSERT INTO c_reads VALUES (2, 0)",
    "SET transaction_read_only = off; INSERT INTO c_reads VALUES (2, 0)",
    "BEGIN READ WRITE; INSERT INTO c_reads VALUES (2, 0); COMMIT",
    "SET default_transaction_read_only = off; INSERT INTO c_reads VALUES (2, 0)",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO c_reads VALUES (2, 0)",
    "SELECT set_config('transaction_read_only', 'off', false); CREATE TABLE c_reads_no ()",
    "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO c_reads VALUES (2, 0); END $$",
    "WITH a AS (SELECT set_config('transaction_read_only', 'off', false)) INSERT INTO c_reads SELECT 2, 0 FROM a",
    "RESET ALL; INSERT INTO c_reads VALUES (2, 0)",
    "DISCARD ALL; INSERT INTO c_reads VALUES (2, 0)",
    "SET default_transaction_read_only = off; COPY c_reads FROM PROGRAM 'echo 2'",
    "SET default_transaction_read_only = off; SELECT nextval('c_reads_seq')",
    "SET default_transaction_read_only = off; SELECT lo_create(0)",
    "SET default_transaction_read_only = off; PREPARE p AS INSERT INTO c_reads VALUES (2, 0); EXECUTE p",
    "SET default_transaction_read_only = off; EXPLAIN ANALYZE INSERT INTO c_reads VALUES (2, 0)",
    # What has begun in a subtransaction goes on behind it, where the flag is what it was before.
    """DO $$ DECLARE x bigint; BEGIN COMMIT; FOR i IN 1..2 LOOP
        BEGIN x := CASE WHEN i = 2 THEN setval('c_reads_seq', 4711) ELSE 0 END; EXCEPTION WHEN division_by_zero THEN NULL; END;
    END LOOP; END $$""",
    """DO $$ DECLARE x bigint; c refcursor; BEGIN COMMIT;
        BEGIN OPEN c FOR SELECT setval('c_reads_seq', 4712); EXCEPTION WHEN division_by_zero THEN NULL; END;
        FETCH c INTO x;
    END $$""",
]


def test_the_leader_serves_when_nobody_else_can_and_stays_read_only(cluster):
    cluster.execute("CREATE SEQUENCE IF NOT EXISTS c_reads_seq")
    leader = cluster.leader()
    for node in cluster.followers():
        pause(cluster, node)
    near(cluster, cluster.followers(), False)
    for node in cluster.names():
        assert served_by(cluster, node, 2, read_only=True) == {leader: 2}
        assert served_by(cluster, node, 2, **FOLLOWER) == {leader: 2}
        for more in ({}, {"options": "-c default_transaction_read_only=off -c holdfast.read_only=off"}):
            conn = cluster.connect(node, read_only=True, **more)
            for sql in WRITES:
                with conn.cursor() as cur:
                    with pytest.raises(psycopg2.Error) as e:
                        for statement in [sql] if "$$" in sql else sql.split("; "):
                            cur.execute(statement)
                    assert e.value.pgcode in ("25001", "25006", "42501"), sql
                    cur.execute("ROLLBACK")
            conn.autocommit = False
            with conn.cursor() as cur, pytest.raises(psycopg2.Error) as e:
                cur.execute("SET TRANSACTION READ WRITE")
                conn.lobject(0, "w")  # by the protocol's function call
            assert "read-only transaction" in str(e.value)
            conn.rollback()
            conn.autocommit = True
            with conn.cursor() as cur:
                for setting in ("holdfast.read_only", "holdfast.reads"):
                    with pytest.raises(psycopg2.Error) as e:
                        cur.execute(f"SET {setting} = 'off'")
                    assert e.value.pgcode == "55P02"
                cur.execute("SELECT count(*) FROM c_reads")
                assert cur.fetchone() == (1,)
            conn.close()
    assert cluster.execute("SELECT last_value, is_called FROM c_reads_seq") == [(1, False)]


def test_read_only_at_the_leader_by_wish(cluster):
    leader = cluster.leader()
    for node in cluster.names():
        assert served_by(cluster, node, 2, read_only=True, options="-c holdfast.reads=leader") == {leader: 2}
        assert served_by(cluster, node, 2, options="-c holdfast.reads=leader") == {leader: 2}
        with pytest.raises(psycopg2.Error) as e:
            cluster.execute("CREATE TABLE c_reads_no ()", node=node, read_only=True, options="-c holdfast.reads=leader")
        assert e.value.pgcode == "25006"


@pytest.mark.parametrize("options", ["-c holdfast.reads=replica", "-c holdfast.reads=", "-ec holdfast.reads=fresh"])
def test_what_is_half_understood_is_refused(cluster, options):
    with pytest.raises(psycopg2.OperationalError) as e:
        cluster.connect(cluster.leader(), options=options)
    assert "holdfast.reads" in str(e.value) and "leader, follower, fresh" in str(e.value)


ATTRIBUTES = {  # (read-only port, SQL port): which of the two is taken when that one stands first
    "any": ("first", "first"),
    "read-write": ("sql", "sql"),
    "read-only": ("reads", "reads"),
    "primary": ("sql", "sql"),
    "standby": ("reads", "reads"),
    "prefer-standby": ("reads", "reads"),
}


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@pytest.mark.parametrize("first", ["sql", "reads"])
def test_target_session_attrs(cluster, attribute, first):
    for node in cluster.names():
        ports = {"sql": cluster.sql_port(node), "reads": cluster.sql_port(node, read_only=True)}
        order = [first, "reads" if first == "sql" else "sql"]
        conn = cluster.connect(node, host="127.0.0.1,127.0.0.1", port=",".join(str(ports[p]) for p in order),
                               target_session_attrs=attribute)
        want = ATTRIBUTES[attribute][order.index("sql")].replace("first", first)
        assert conn.info.port == ports[want]
        assert conn.info.parameter_status("in_hot_standby") == ("on" if want == "reads" else "off")
        assert conn.info.parameter_status("default_transaction_read_only") == ("on" if want == "reads" else "off")
        assert (server(conn) == cluster.leader()) == (want == "sql")
        with conn.cursor() as cur:
            cur.execute("SELECT pg_is_in_recovery(), current_setting('transaction_read_only')")
            assert cur.fetchone() == ((True, "on") if want == "reads" else (False, "off"))
        conn.close()


def test_target_session_attrs_without_followers(cluster):
    """The leader on the read-only port: read only, and no standby."""
    for node in cluster.followers():
        pause(cluster, node)
    near(cluster, cluster.followers(), False)
    node = cluster.followers()[0]
    for attribute, taken in (("any", True), ("read-only", True), ("prefer-standby", True), ("primary", True),
                             ("standby", False), ("read-write", False)):
        try:
            cluster.connect(node, read_only=True, target_session_attrs=attribute).close()
            assert taken, attribute
        except psycopg2.OperationalError:
            assert not taken, attribute


# -- fresh ------------------------------------------------------------------------------------------


class Reader:
    """Reads c_reads through one node; connects again when it is told to."""

    def __init__(self, cluster, node, **more):
        self.cluster, self.node, self.more = cluster, node, more
        self.conn = None

    def read(self):
        while True:
            try:
                if self.conn is None:
                    self.conn = self.cluster.connect(self.node, **self.more)
                with self.conn.cursor() as cur:
                    cur.execute("SELECT v FROM c_reads WHERE id = 1")
                    return cur.fetchone()[0]
            except psycopg2.Error as e:
                if e.pgcode not in ("40001", "08007", "57P01", "57P03", None):  # 08007: served by the leader when it was lost
                    raise
                if self.conn is not None and self.conn.closed:
                    self.conn = None


def write(conn):
    """Adds one; the value that is acknowledged, or None."""
    try:
        with conn.cursor() as cur:
            cur.execute("UPDATE c_reads SET v = v + 1 WHERE id = 1 RETURNING v")
            return cur.fetchone()[0]
    except psycopg2.Error as e:
        assert e.pgcode in ("40001", "08007", "57P01", "57P03") or conn.closed, e
        return None


def stale_reads(cluster, tries, **more):
    """A writer through each node in turn; after each commit everybody reads. How many reads were older than that commit?"""
    names = cluster.names()
    writers = dict.fromkeys(names)
    readers = [Reader(cluster, n, **more) for n in names]
    stale = reads = 0
    while reads < tries:
        node = names[reads % len(names)]
        try:
            if writers[node] is None or writers[node].closed:
                writers[node] = cluster.connect(node)
        except psycopg2.OperationalError:
            continue  # it is being started
        v = write(writers[node])
        if v is None:
            continue
        for r in readers:
            stale += r.read() < v
            reads += 1
    return stale


FRESH = {"options": "-c holdfast.reads=fresh"}


def delay(cluster, node, ms):
    directly(cluster, node, f"ALTER SYSTEM SET recovery_min_apply_delay = {ms}")
    directly(cluster, node, "SELECT pg_reload_conf()")


@pytest.fixture
def one_is_slow(cluster):
    """A follower whose replay is always a little late. Followers' reads through it are stale then."""
    slow = cluster.followers()[0]
    delay(cluster, slow, 20)
    yield slow
    delay(cluster, slow, 0)


def test_reads_that_need_not_be_fresh_are_stale(cluster, one_is_slow):
    """Else the next tests could not fail."""
    del one_is_slow
    assert stale_reads(cluster, 300, read_only=True) > 10


@pytest.mark.parametrize("port", [{}, {"read_only": True}])
def test_fresh_reads(cluster, one_is_slow, port):
    before = metric(cluster, one_is_slow, "holdfast_reads_waited_total")
    assert stale_reads(cluster, 600, **FRESH, **port) == 0
    assert metric(cluster, one_is_slow, "holdfast_reads_waited_total") > before
    assert metric(cluster, one_is_slow, "holdfast_reads_given_up_total") == 0


@pytest.mark.parametrize("tries", [2000, pytest.param(10000, marks=[pytest.mark.heavy, pytest.mark.limit(900)])])
def test_fresh_reads_while_leaders_change(cluster, tries):
    """In the longer one a follower is slow at any time, and leaders are killed, too."""
    stop, errors, changes = threading.Event(), [], []

    def change():
        try:
            while not stop.wait(1):
                epoch = cluster.epoch()
                if tries > 2000:
                    cluster.wait_healthy()
                    delay(cluster, cluster.followers()[1], len(changes) % 3 * 10)
                if tries > 2000 and len(changes) % 5 == 4:
                    cluster.run("kill", cluster.leader(), "--restart")
                    cluster.wait_healthy()
                else:
                    cluster.switchover(to=cluster.followers()[0])
                    cluster.wait_open(after_epoch=epoch)
                changes.append(epoch)
        except Exception as e:  # pylint: disable=broad-except
            errors.append(e)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        assert stale_reads(cluster, tries, **FRESH) == 0
        while len(changes) < 2 and not errors:  # a fast machine
            assert stale_reads(cluster, 200, **FRESH) == 0
    finally:
        stop.set()
        changer.join()
        cluster.wait_healthy()
        for node in cluster.names():
            delay(cluster, node, 0)
    print(f"{len(changes)} changes of leader")
    assert not errors and len(changes) >= 2


def test_what_cannot_be_fresh_goes_to_the_leader(cluster):
    """The session stays, and its statement is run once, there."""
    leader, slow = cluster.leader(), cluster.followers()[0]
    here = next(c for c in (cluster.connect(slow, **FRESH) for _ in range(4)) if server(c) == slow)
    there = next(c for c in (cluster.connect(leader, **FRESH) for _ in range(4)) if server(c) == slow)
    pause(cluster, slow)
    v = write(cluster.connect(leader))
    for conn in (here, there):
        with conn.cursor() as cur:
            cur.execute("SELECT v, current_setting('cluster_name') FROM c_reads WHERE id = 1")
            assert cur.fetchone() == (v, leader)
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cur.execute("SET transaction_read_only = off")
                cur.execute("CREATE TABLE c_reads_no ()")
    assert metric(cluster, slow, "holdfast_reads_given_up_total") == 2


def test_a_fresh_read_may_be_ahead_of_the_leader(cluster):
    """What it shows waits for nothing any more but for its own backend to notice: docs/safety.md says so."""
    leader, nodes = cluster.leader(), cluster.followers()
    fresh = [next(c for c in (cluster.connect(n, **FRESH) for _ in range(4)) if server(c) == n) for n in nodes]
    gate, writer = cluster.connect(leader), cluster.connect(leader)
    with writer.cursor() as cur:
        cur.execute("SELECT pg_backend_pid()")
        pid = cur.fetchone()[0]
    backend = [p for p in cluster.backends(leader, "app app") if p.pid == pid]
    assert backend
    receivers = [p for n in nodes for p in cluster.backends(n, "walreceiver")]
    value = "SELECT v FROM c_reads WHERE id = 1"

    def read(conn):
        with conn.cursor() as cur:
            cur.execute(value)
            return cur.fetchone()[0]

    before, answers = read(gate), []
    with cluster.frozen(*receivers):
        thread = threading.Thread(target=lambda: answers.append(write(writer)))
        thread.start()
        harness.wait_until("it waits for a majority", lambda: directly(
            cluster, leader, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename <> 'holdfast'") == [(1,)])
        cluster.freeze(*backend)
    try:
        assert [read(c) for c in fresh] == [before + 1, before + 1]
        assert read(gate) == before and not answers
    finally:
        cluster.thaw(*backend)
        thread.join()
    assert answers == [before + 1] and read(gate) == before + 1


def test_sessions_says_who_serves(cluster):
    conn = cluster.connect(cluster.leader(), read_only=True, application_name="c-reads")
    sessions = json.loads(cluster.run("sessions", "--json").stdout)["sessions"]
    mine = [s for s in sessions if s["application"] == "c-reads"]
    assert [s["server"] for s in mine] == [server(conn)]
