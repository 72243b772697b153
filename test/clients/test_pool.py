"""Sessions that share server connections: each sees only its own, whatever the others do, and whoever leads."""

import os
import random
import select
import struct
import threading
import time

import psycopg2
import psycopg2.errors
import pytest

import harness
from scenario import call, metrics, said_to, sessions

_pooled = {}
MOST = 10
CLIENTS = int(os.environ.get("HOLDFAST_POOL_CLIENTS", "200"))


@pytest.fixture(name="cluster")
def pooled(request):
    """Three nodes where all sessions of a role through a node share ten connections."""
    if "c" not in _pooled:
        _pooled["c"] = harness.Cluster(env={"HOLDFAST_POOL": "auto", "HOLDFAST_MAX_SERVER_CONNECTIONS": str(MOST)})
        _pooled["c"].execute("CREATE TABLE p_own (client int, n int); CREATE INDEX ON p_own (client);"
                             " CREATE SEQUENCE p_seq; CREATE TABLE p_serial (id serial, client int)")
    _pooled["c"].heal()
    yield _pooled["c"]
    if getattr(request.node, "report_call", None) is None or not request.node.report_call.passed:
        _pooled.pop("c").destroy()


def backends(cluster):
    return cluster.super(cluster.leader(), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")[0][0]


class Tenant(threading.Thread):
    """A client with a mark of its own in all that a session can hold. Anything that it meets and did not make is a defect."""

    def __init__(self, cluster, node, number, seed):
        super().__init__(daemon=True)
        self.number, self.random = number, random.Random(seed * 1000 + number)
        self.conn = cluster.connect(node, application_name="p-tenant", sslmode="require" if number % 4 == 0 else "disable")
        self.cur = self.conn.cursor()
        self.stopping, self.done, self.lost, self.missed, self.died = threading.Event(), 0, 0, 0, None
        self.acked, self.unknown, self.undone, self.next = set(), set(), set(), 0
        self.reset()

    def reset(self):
        self.setting, self.statements, self.role = None, {}, False

    def one(self, sql, *args):
        self.cur.execute(sql, args or None)
        return self.cur.fetchone()[0] if self.cur.description else None

    # Each is one or more transactions, and what was there before is checked in each.

    def check(self):
        got = self.one("SELECT current_setting('p.mark', true)")
        assert got == self.setting or (self.setting is None and got == ""), (self.number, "setting", got, self.setting)
        self.cur.execute("SELECT name, statement FROM pg_prepared_statements WHERE name LIKE 'p\\_%'")
        got = {name for name, _ in self.cur.fetchall()}
        assert got == set(self.statements), (self.number, "prepared", got, self.statements)
        assert self.one("SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()") == 0
        assert self.one("SELECT count(*) FROM pg_cursors WHERE is_holdable") == 0
        assert self.one("SELECT count(*) FROM pg_listening_channels()") == 0
        assert self.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()") == 0
        self.check_role()

    def check_role(self):
        assert self.one("SELECT current_user") == "app"

    def set(self):
        self.setting = f"{self.number}.{self.done}"
        self.cur.execute("SET p.mark = %s", (self.setting,))

    def set_local(self):
        self.cur.execute("BEGIN; SET LOCAL work_mem = '3MB'")
        assert self.one("SHOW work_mem") == "3MB"
        self.cur.execute("ROLLBACK" if self.done % 2 else "COMMIT")
        assert self.one("SHOW work_mem") == "4MB"

    def prepare(self):
        name = f"p_{self.random.randrange(3)}"  # everybody uses the same names
        if name in self.statements:
            assert self.one(f"EXECUTE {name}(1)") == self.statements[name] + 1
            if self.random.random() < 0.5:
                self.cur.execute(f"DEALLOCATE {name}")
                del self.statements[name]
        else:
            with pytest.raises(psycopg2.errors.InvalidSqlStatementName):
                self.cur.execute(f"EXECUTE {name}(1)")
            self.cur.execute(f"PREPARE {name} AS SELECT {self.number * 100} + $1::int")
            self.statements[name] = self.number * 100

    def temporary(self):
        self.cur.execute(f"CREATE TEMP TABLE p_temp AS SELECT {self.number} AS i")
        self.sleep()
        assert self.one("SELECT i FROM p_temp") == self.number
        self.cur.execute("DROP TABLE p_temp")

    def lock(self):
        self.cur.execute("SELECT pg_advisory_lock(%s)", (self.number,))
        self.sleep()
        assert self.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
                        " AND objid = %s", self.number) == 1
        assert self.one("SELECT pg_advisory_unlock(%s)", self.number) is True

    def listen(self):
        self.cur.execute(f"LISTEN p_{self.number}")
        self.cur.execute(f"NOTIFY p_{self.number}, '{self.done}'")
        self.sleep()
        self.cur.execute("SELECT 1")
        deadline = time.monotonic() + 20
        while not self.conn.notifies and time.monotonic() < deadline:
            select.select([self.conn], [], [], 1)
            self.conn.poll()
        assert [(n.channel, n.payload) for n in self.conn.notifies] == [(f"p_{self.number}", str(self.done))]
        self.conn.notifies.clear()
        self.cur.execute("UNLISTEN *")

    def cursor(self):
        self.cur.execute(f"DECLARE p_held CURSOR WITH HOLD FOR SELECT {self.number} + g FROM generate_series(1, 3) g")
        self.sleep()
        assert self.one("FETCH FROM p_held") == self.number + 1
        self.cur.execute("CLOSE p_held")

    def copy(self):
        import io  # pylint: disable=import-outside-toplevel
        self.cur.execute("BEGIN")
        self.cur.execute("DELETE FROM p_own WHERE client = %s", (self.number,))
        self.cur.copy_from(io.StringIO("".join(f"{self.number}\t{i}\n" for i in range(20))), "p_own")
        self.cur.execute("COMMIT")
        out = io.StringIO()
        self.cur.copy_expert(f"COPY (SELECT client FROM p_own WHERE client = {self.number}) TO STDOUT", out)
        assert out.getvalue() == f"{self.number}\n" * 20

    def error(self):
        with pytest.raises(psycopg2.errors.DivisionByZero, match="division"):
            self.cur.execute("SELECT 1 / 0")
        self.cur.execute("BEGIN")
        with pytest.raises(psycopg2.errors.UndefinedTable, match=f"p_none_{self.number}"):
            self.cur.execute(f"SELECT * FROM p_none_{self.number}")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            self.cur.execute("SELECT 1")
        self.cur.execute("ROLLBACK")

    def cancel(self):
        timer = threading.Timer(0.05, self.conn.cancel)  # it may be waiting still, or run
        timer.start()
        begun = time.monotonic()
        try:
            self.cur.execute("SELECT pg_sleep(8)")  # who is cancelled right between these two is not
            self.missed += 1
        except psycopg2.errors.QueryCanceled:
            assert time.monotonic() - begun < 5
        timer.join()

    def early_cancel(self):
        """Of nothing: must reach nobody."""
        self.conn.cancel()
        assert self.one("SELECT %s", self.number) == self.number

    def sequence(self):
        """currval() and lastval() are one's own, or not known."""
        self.cur.execute("BEGIN")
        mine = self.one("INSERT INTO p_serial (client) VALUES (%s) RETURNING id", self.number)
        assert self.one("SELECT lastval()") == mine
        self.cur.execute("COMMIT")
        self.sleep()
        try:
            assert self.one("SELECT lastval()") == mine
        except psycopg2.errors.ObjectNotInPrerequisiteState:
            pass
        self.cur.execute("DISCARD SEQUENCES" if self.done % 2 else "DISCARD ALL")
        if self.done % 2 == 0:
            self.reset()

    def reset_all(self):
        self.cur.execute("DISCARD ALL")
        self.reset()

    def notice(self):
        del self.conn.notices[:]
        self.cur.execute(f"DO $$ BEGIN RAISE NOTICE 'mark {self.number}'; END $$")
        assert [n for n in self.conn.notices if f"mark {self.number}\n" not in n] == []

    def parameters(self):
        zone = self.random.choice(["UTC", "Asia/Tokyo", "America/Lima"])
        self.cur.execute("SET TIME ZONE %s", (zone,))
        self.sleep()
        assert self.one("SHOW TIME ZONE") == zone
        assert self.conn.get_parameter_status("TimeZone") == zone
        self.cur.execute("RESET TIME ZONE")

    def row(self):
        """The ledger's."""
        n = self.number * 1_000_000 + self.next
        self.next += 1
        try:
            if n % 2:
                self.cur.execute("INSERT INTO p_ledger VALUES (%s)", (n,))
            else:
                self.cur.execute("BEGIN")
                self.cur.execute("INSERT INTO p_ledger VALUES (%s)", (n,))
                self.cur.execute("COMMIT")
            self.acked.add(n)
        except psycopg2.Error as e:
            (self.unknown if e.pgcode == "08007" else self.undone).add(n)
            raise

    def sleep(self):
        time.sleep(self.random.random() * 0.02)

    def step(self, what):
        try:
            what()
            self.check()
        except psycopg2.Error as e:
            if e.pgcode not in ("40001", "08007") or self.conn.closed or not self.may_lose:
                raise
            self.lost += 1
            self.cur.execute("ROLLBACK")
            self.tidy()

    def tidy(self):
        """After a loss it is not known what was done of a step."""
        for _ in range(50):
            try:
                self.cur.execute("DISCARD ALL")
                self.reset()
                return
            except psycopg2.Error as e:
                if e.pgcode not in ("40001", "08007"):
                    raise

    may_lose = False
    steps = ("set", "set_local", "prepare", "temporary", "lock", "listen", "cursor", "copy", "error", "cancel", "early_cancel", "sequence",
             "reset_all", "notice", "parameters")

    def run(self):
        try:
            while not self.stopping.is_set():
                self.step(getattr(self, self.random.choice(self.steps)))
                self.done += 1
        except BaseException as e:  # pylint: disable=broad-exception-caught
            self.died = (e, self.conn.notices[-2:])  # what came while it was not asking is there


def run_tenants(tenants, seconds, meanwhile=None):
    for t in tenants:
        t.start()
    if meanwhile:
        meanwhile()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not any(t.died for t in tenants):
        time.sleep(0.2)
    for t in tenants:
        t.stopping.set()
    for t in tenants:
        t.join(90)
    assert [repr(t.died) for t in tenants if t.died] == []
    assert all(not t.is_alive() for t in tenants)


@pytest.mark.limit(400)
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_each_sees_its_own(cluster, where):
    node = cluster.leader() if where == "leader" else cluster.followers()[0]
    tenants = [Tenant(cluster, node, i + 1, 1) for i in range(CLIENTS)]
    most = []
    try:
        run_tenants(tenants, 40, lambda: most.append(max(backends(cluster) for _ in range(5))))
        assert max(most) <= MOST + 2, most  # those that are just ending are counted by PostgreSQL
        print(f"{sum(t.done for t in tenants)} steps of {len(tenants)} clients, at least {min(t.done for t in tenants)} of each")
        assert min(t.done for t in tenants) > 0
        assert sum(t.missed for t in tenants) <= 1 + sum(t.done for t in tenants) / 100, [t.missed for t in tenants]
    finally:
        for t in tenants:
            t.conn.close()


class Writer(Tenant):
    """What can go on with another leader, and rows."""

    may_lose = True
    steps = ("set", "set_local", "prepare", "row", "row", "row", "parameters", "error")


@pytest.mark.limit(400)
@pytest.mark.parametrize("how", ["switchover", "kill"])
def test_through_changes_of_leader(cluster, how):
    """Nothing lost, nothing twice, nothing of others, and in a hand-over nobody notices."""
    cluster.execute("DROP TABLE IF EXISTS p_ledger; CREATE TABLE p_ledger (n bigint)")
    node = cluster.followers()[0]
    writers = [Writer(cluster, node, i + 1, 2) for i in range(40)]

    def change():
        for _ in range(3):
            before = [len(w.acked) for w in writers]
            harness.wait_until("they write", lambda b=before: any(w.died for w in writers) or all(
                len(w.acked) > n for w, n in zip(writers, b)), 60)
            if how == "kill" and cluster.leader() == node:
                epoch = cluster.epoch()
                cluster.switchover(to=cluster.followers()[0])
                cluster.wait_open(after_epoch=epoch)
                cluster.heal()
            epoch = cluster.epoch()
            if how == "kill":
                cluster.kill_down(cluster.leader())
            else:
                cluster.switchover(to=cluster.followers()[0])
            cluster.wait_open(after_epoch=epoch)
            cluster.heal()

    try:
        run_tenants(writers, 5, change)
        there = dict(cluster.execute("SELECT n, count(*) FROM p_ledger GROUP BY n"))
        assert not [n for n, k in there.items() if k != 1]
        for w in writers:
            assert not w.acked - set(there)
            assert not w.undone & set(there)
        print(f"{sum(len(w.acked) for w in writers)} rows, {sum(w.lost for w in writers)} losses told")
        assert how == "kill" or sum(w.lost for w in writers) == 0
    finally:
        for w in writers:
            w.conn.close()


def test_many_wait_for_few(cluster):
    """More clients than connections, all in transactions: in turn, and nobody is forgotten."""
    conns = [cluster.connect(cluster.leader(), autocommit=False) for _ in range(3 * MOST)]
    got = []

    def work(i, conn):
        cur = conn.cursor()
        for _ in range(5):
            cur.execute("SELECT pg_sleep(0.02)")
            conn.commit()
            got.append(i)

    harness.wait_until("those without a connection are known", lambda: [metrics(cluster, cluster.leader())[f"holdfast_{name}"] for name in (
        'sessions{kind="pooled"}', "pool_server_connections", "pool_waiting")] == [2 * MOST, MOST, 0])
    before = metrics(cluster, cluster.leader())
    threads = [threading.Thread(target=work, args=(i, c)) for i, c in enumerate(conns)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(got) == 5 * len(conns)
    after = metrics(cluster, cluster.leader())
    for name in ("taken_total", "waits_total", "wait_seconds_total"):
        assert after[f"holdfast_pool_{name}"] > before[f"holdfast_pool_{name}"], name
    assert after["holdfast_pool_waiting"] == 0 and after["holdfast_pool_late_total"] == before["holdfast_pool_late_total"]
    for conn in conns:
        conn.close()
    harness.wait_until("all connections went with their clients", lambda: backends(cluster) == 0)


def test_bounded_wait():
    with harness.Cluster(replicas=1, env={"HOLDFAST_POOL": "auto", "HOLDFAST_MAX_SERVER_CONNECTIONS": "1",
                                          "HOLDFAST_POOL_WAIT_MS": "1000"}) as cluster:
        holder = cluster.connect(cluster.leader())
        holder.cursor().execute("LISTEN x")
        with pytest.raises(psycopg2.OperationalError, match="no server connection became free in time"):
            cluster.connect(cluster.leader())
        assert metrics(cluster, cluster.leader())["holdfast_pool_late_total"] > 0
        holder.cursor().execute("UNLISTEN x")
        cluster.connect(cluster.leader()).close()
        holder.close()


def test_stalled_clients():
    """Who stops half-way keeps the only connection until others wait for it; who waits for its server, or has a transaction, keeps it."""
    with harness.Cluster(replicas=1, env={"HOLDFAST_POOL": "auto", "HOLDFAST_MAX_SERVER_CONNECTIONS": "1",
                                          "HOLDFAST_STALLED_CLIENT_MS": "1000"}) as cluster:
        node = cluster.leader()
        big = b"SELECT repeat('x', 1000) FROM generate_series(1, 200000)\0"
        for said in (b"Q\0\0\1\0SELECT", b"Q" + struct.pack(">I", len(big) + 4) + big):
            one = cluster.connect(node, sslmode="disable")
            one.cursor().execute("SELECT 1")
            os.write(one.fileno(), said)
            harness.wait_until("it has the connection", lambda: [s for s in sessions(cluster) if s["at"] == "leader"])
            mark, before = cluster.log_mark(node), metrics(cluster, node)["holdfast_pool_stalled_total"]
            begun = time.monotonic()
            other = cluster.connect(node)
            other.cursor().execute("SELECT 1")
            assert 1 <= time.monotonic() - begun < 20
            assert (b"57P05" in said_to(one)) == (said[5:] == b"SELECT")
            assert metrics(cluster, node)["holdfast_pool_stalled_total"] == before + 1
            cluster.wait_log(mark, "session [0-9]+ of \"app\" is ended.* while others waited for its server connection")
            one.close()
            other.close()
        with cluster.connect(node, autocommit=False) as one:
            one.cursor().execute("SELECT 1")
            other = threading.Thread(target=lambda: cluster.connect(node).close())
            other.start()
            harness.wait_until("it waits", lambda: metrics(cluster, node)["holdfast_pool_waiting"] == 1)
            one.cursor().execute("SELECT pg_sleep(2.5)")
            assert not select.select([one], [], [], 2.5)[0]  # in a transaction, and silent
            one.commit()
            other.join(20)
            assert not other.is_alive() and metrics(cluster, node)["holdfast_pool_stalled_total"] == 2


def test_roles_change_at_once(cluster):
    """What a connection was logged in as before must not serve who logs in after."""
    leader = cluster.leader()

    def connect(password="one"):
        conn = cluster.connect(leader, user="p_role", password=password)
        conn.cursor().execute("SELECT 1")
        return conn

    cluster.super(leader, "DROP ROLE IF EXISTS p_role")
    cluster.super(leader, "CREATE ROLE p_role LOGIN PASSWORD 'one'")
    old = [connect() for _ in range(MOST + 2)]
    cluster.super(leader, "ALTER ROLE p_role SET work_mem = '5MB'")
    conn = connect()
    cur = conn.cursor()
    cur.execute("SHOW work_mem")
    assert cur.fetchone() == ("5MB",)
    conn.close()
    cluster.super(leader, "ALTER ROLE p_role NOLOGIN")
    with pytest.raises(psycopg2.OperationalError, match="not permitted to log in"):
        connect()
    cluster.super(leader, "ALTER ROLE p_role LOGIN PASSWORD 'two'")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect()
    connect("two").close()
    cluster.super(leader, "DROP ROLE p_role")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect("two")
    for conn in old:
        conn.close()


def test_postgresql_has_no_room():
    """Without a bound of ours, PostgreSQL's is met: more clients than it takes are served all the same."""
    with harness.Cluster(replicas=1, settings={"max_connections": "20"}, env={"HOLDFAST_POOL": "auto"}) as cluster:
        conns = [cluster.connect(cluster.leader()) for _ in range(60)]
        for _ in range(3):
            for i, conn in enumerate(conns):
                cur = conn.cursor()
                cur.execute("SELECT %s", (i,))
                assert cur.fetchone() == (i,)
        for conn in conns:
            conn.close()


@pytest.mark.limit(300)
@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
def test_pgbench(cluster, mode):
    """Many more clients than connections; its own sums must fit."""
    node = cluster.followers()[0]
    call(cluster, node, "pgbench", "-i", "-q", "-s", "1", timeout=120)
    # It waits for each of its PREPAREs before it looks at its other connections, so it must not hold those in transactions.
    only = ["-S"] if mode == "prepared" else []
    done = call(cluster, node, "pgbench", "-n", "-M", mode, "-c", "50", "-j", "2", "-t", "20", *only, timeout=120)
    assert "number of transactions actually processed: 1000/1000" in done.stdout, done.stdout
    if mode != "prepared":
        assert cluster.execute(
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)") == [(True,)]
