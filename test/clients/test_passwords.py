"""Passwords: checked by the router of the node that the client came to, against what PostgreSQL knows at that moment."""

import re
import struct
import time
import urllib.request

import psycopg2
import pytest

import harness
from scenario import call
from test_protocol import Raw

PORTS = [(node, read_only) for node in range(3) for read_only in (False, True)]


@pytest.fixture
def role(cluster):
    """A role of its own for a test: `role.sql` runs as superuser on the leader, %s is its name."""

    class Role:
        name, password = "c role \"é\"", "päss 1"

        @staticmethod
        def sql(statement, *args):
            return cluster.super(cluster.leader(), statement.replace("%r", '"c role ""é"""'), args or None)

        def connect(self, node=0, read_only=False, **more):
            names = cluster.names()
            settings = {"user": self.name, "password": self.password, "dbname": "app", "connect_timeout": 20, "sslmode": "disable", **more}
            return psycopg2.connect(host="127.0.0.1", port=cluster.sql_port(names[node], read_only=read_only), **settings)

        def refused(self, node=0, read_only=False, **more):
            with pytest.raises(psycopg2.OperationalError) as e:
                self.connect(node, read_only, **more).close()
            return str(e.value)

    r = Role()
    r.sql("DROP ROLE IF EXISTS %r")
    r.sql("CREATE ROLE %r LOGIN PASSWORD 'päss 1'")
    yield r
    r.sql("DROP ROLE IF EXISTS %r")


def count(cluster, node, why="password"):
    port = cluster.port + 10 * node + 2
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return int(re.search(rf'^holdfast_refused_total{{why="{why}"}} (\d+)$', answer.read().decode(), re.M).group(1))


@pytest.mark.parametrize("node,read_only", PORTS)
def test_right_and_wrong(cluster, role, node, read_only):
    name = cluster.names()[node]
    port = str(cluster.sql_port(name, read_only=read_only))
    with role.connect(node, read_only) as conn, conn.cursor() as cursor:
        cursor.execute("SELECT current_user, session_user, current_setting('transaction_read_only')")
        assert cursor.fetchone() == (role.name, role.name, "on" if read_only else "off")
    before = count(cluster, node)
    assert 'password authentication failed for user "c role "é""' in role.refused(node, read_only, password="wrong")
    assert count(cluster, node) == before + 1
    settings = {"PGPORT": port, "PGUSER": role.name, "PGSSLMODE": "require"}
    assert call(cluster, name, "psql", "-XAtc", "SELECT 1", PGPASSWORD=role.password, **settings).stdout == "1\n"
    done = call(cluster, name, "psql", "-XAtc", "SELECT 1", check=False, PGPASSWORD="wrong", **settings)
    assert done.returncode == 2 and "password authentication failed" in done.stderr


def test_changes_take_effect_at_once(cluster, role):
    """Made, changed and dropped through one node; at once so through all the others, on both ports."""
    admin = cluster.connect(cluster.followers()[0], **dict(zip(("user", "password"), (role.name, role.password))))
    for i in range(5):
        old, role.password = role.password, f"pass {i}"
        with admin.cursor() as cursor:
            cursor.execute("ALTER ROLE CURRENT_USER PASSWORD %s", (role.password,))
        for node, read_only in PORTS:
            role.connect(node, read_only).close()
        assert "password authentication failed" in role.refused(i % 3, i % 2 == 0, password=old)
    admin.close()
    role.sql("DROP ROLE %r")
    for node, read_only in PORTS:
        assert "password authentication failed" in role.refused(node, read_only)
    role.sql("CREATE ROLE %r LOGIN PASSWORD 'new'")
    for node, read_only in PORTS:
        role.connect(node, read_only, password="new").close()


def test_sessions_go_on_when_the_password_changes(role):
    conn = role.connect(1)
    role.sql("ALTER ROLE %r PASSWORD 'other'")
    with conn.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    conn.close()


def test_roles_without_a_usable_password(cluster, role):
    """To the client they look like a wrong password; the node's log has the reason, and what to do."""
    node = cluster.names()[2]
    said = {role.refused(2, password="wrong")}
    for statement, reason in (
            ("SET password_encryption = 'md5'; ALTER ROLE %r PASSWORD 'päss 1'", "kept as md5.*hint.*scram-sha-256"),
            ("ALTER ROLE %r PASSWORD NULL", "has no password.*hint"),
            ("DROP ROLE %r", "there is no such role")):
        role.sql(statement)
        mark = cluster.log_mark(node)
        said.add(role.refused(2))
        cluster.wait_log(mark, f'login of role "{role.name}" refused: .*{reason}')
    assert len(said) == 1, said


def test_what_postgresql_says_reaches_the_client(role):
    with pytest.raises(psycopg2.OperationalError, match='database "nowhere" does not exist'):
        role.connect(dbname="nowhere")
    role.sql("ALTER ROLE %r CONNECTION LIMIT 1")
    one = role.connect(1)
    assert "too many connections for role" in role.refused(2)
    one.close()
    role.sql("ALTER ROLE %r NOLOGIN CONNECTION LIMIT -1")
    assert "is not permitted to log in" in role.refused(0)
    role.sql("ALTER ROLE %r LOGIN VALID UNTIL '2001-01-01'")
    assert "password authentication failed" in role.refused(1)
    role.sql("ALTER ROLE %r VALID UNTIL 'infinity'")
    role.connect(1).close()


def test_names(cluster):
    """As PostgreSQL takes them: any bytes, cut at 63 of them."""
    leader = cluster.leader()
    for name, asked in (("c_" + "x" * 61, "c_" + "x" * 80), ("C Üñï", "C Üñï"), ("c'; --", "c'; --")):
        quoted = '"' + name + '"'
        cluster.super(leader, f"CREATE ROLE {quoted} LOGIN PASSWORD 'p'")
        try:
            for node in cluster.names():
                cluster.connect(node, user=asked, password="p").close()
        finally:
            cluster.super(leader, f"DROP ROLE {quoted}")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        cluster.connect(user="nobody at all", password="p")


def test_many_failures_have_to_wait(cluster, role):
    node = cluster.names().index(cluster.followers()[0])
    role.connect(node).close()  # forgives what other tests did
    before = count(cluster, node)
    for _ in range(5):
        role.refused(node, password="wrong")
    begun = time.monotonic()
    for _ in range(3):
        role.refused(node, password="wrong")
    assert time.monotonic() - begun > 1.2
    assert count(cluster, node) == before + 8
    cluster.connect(cluster.names()[node]).close()  # another role
    role.connect(node).close()  # in its turn; then the slate is clean
    begun = time.monotonic()
    for _ in range(4):
        role.refused(node, password="wrong")
    assert time.monotonic() - begun < 1.2 * harness.PATIENCE


@pytest.mark.parametrize("read_only", [False, True])
def test_channel_binding(cluster, read_only):
    """SCRAM-SHA-256-PLUS: bound to the certificate of the node that the client is connected to."""
    for node in cluster.names():
        port = str(cluster.sql_port(node, read_only=read_only))
        for binding in ("require", "prefer", "disable"):
            done = call(cluster, node, "psql", "-XAtc", "SELECT 1", PGPORT=port, PGSSLMODE="require", PGCHANNELBINDING=binding)
            assert done.stdout == "1\n"
        done = call(cluster, node, "psql", "-XAtc", "SELECT 1", check=False, PGPORT=port, PGSSLMODE="disable",
                    PGCHANNELBINDING="require")
        assert done.returncode == 2 and "channel binding required" in done.stderr


def test_a_login_outlives_its_leader(cluster):
    """Who has given its password does not hear of a leader that goes while PostgreSQL is being logged in to."""
    node = cluster.followers()[0]
    epoch = cluster.epoch()
    cluster.switchover(to=node)
    for _ in range(40):  # while the leader changes, and after
        cluster.connect(node).close()
        cluster.connect(cluster.names()[0]).close()
    cluster.wait_open(after_epoch=epoch)


def salt(cluster, node, user):
    """As a client is told it, before it has proved anything."""
    mechanism, first = b"SCRAM-SHA-256\0", b"n,,n=,r=abc"
    with Raw(cluster.sql_port(node)) as c:
        c.start(196608, user=user, database="app")
        assert c.message()[0] == "R"
        body = mechanism + struct.pack("!i", len(first)) + first
        c.s.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)
        kind, answer = c.message()
        assert kind == "R"
        return re.search(rb",s=([^,]+),i=(\d+)$", answer).groups()


def test_nobody_learns_which_roles_there_are(cluster, role):
    """Salts of roles that are not there do not change, from node to node, from time to time, or with the leader."""
    role.sql("ALTER ROLE %r PASSWORD NULL")
    seen = {name: {salt(cluster, node, name) for node in cluster.names() for _ in range(2)} for name in (role.name, "nobody", "app")}
    assert all(len(s) == 1 for s in seen.values()), seen
    assert len({len(salt) for s in seen.values() for salt, _ in s}) == 1 and len({i for s in seen.values() for _, i in s}) == 1
    assert seen["nobody"] != seen[role.name]
    epoch, new = cluster.epoch(), cluster.followers()[0]
    cluster.switchover(to=new)
    cluster.wait_open(after_epoch=epoch)
    harness.wait_until("its accounts are ready", lambda: "roles are ready" in cluster.log_text(new))  # once a process
    assert {salt(cluster, new, "nobody")} == seen["nobody"]
    assert {salt(cluster, new, "app")} == seen["app"]  # a new leader does not set passwords that are set already


def test_names_in_any_encoding(cluster, role):
    """No setting changes what a name's bytes mean, and bytes that are no text at all are nobody's name: an answer, no wait."""
    cyrillic = "жук"
    role.sql(f"CREATE ROLE \"{cyrillic}\" LOGIN PASSWORD 'x'")
    role.sql("ALTER ROLE ALL SET client_encoding = 'latin1'")
    try:
        pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'holdfast router'"
        for (pid,) in role.sql(pids):
            role.sql("SELECT pg_terminate_backend(%s)", pid)  # the next one is made under that setting
        for node in range(3):
            role.connect(node).close()
            role.connect(node, user=cyrillic, password="x", client_encoding="utf8").close()
        begun = time.monotonic()
        with Raw(cluster.sql_port(cluster.names()[1])) as c:
            body = struct.pack("!i", 3 << 16) + b"user\0\xff\xfe\xc3\0database\0app\0\0"
            c.s.sendall(struct.pack("!i", len(body) + 4) + body)
            kind, answer = c.message()
            assert kind == "R" and b"SCRAM-SHA-256" in answer  # as anybody is asked
        assert time.monotonic() - begun < 5 * harness.PATIENCE
    finally:
        role.sql("ALTER ROLE ALL RESET client_encoding")
        role.sql(f"DROP ROLE \"{cyrillic}\"")
