"""The wire protocol where clients differ: versions, options, hostile and slow first packets."""

import socket
import struct
import time

import psycopg2
import pytest

import harness

V30, V32 = 196608, 196610


class Raw:
    """A connection that says what it is told to."""

    def __init__(self, port, source="127.0.0.1"):
        self.s = socket.create_connection(("127.0.0.1", port), 15, (source, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def start(self, version, **options):
        body = struct.pack("!i", version) + b"".join(
            k.encode() + b"\0" + v.encode() + b"\0" for k, v in options.items()) + b"\0"
        self.s.sendall(struct.pack("!i", len(body) + 4) + body)

    def take(self, n):
        got = b""
        while len(got) < n:
            more = self.s.recv(n - len(got))
            if not more:
                return None
            got += more
        return got

    def message(self):
        """(type, body), or None at the end."""
        head = self.take(5)
        if head is None:
            return None
        return head[:1].decode(), self.take(struct.unpack("!i", head[1:])[0] - 4)

    def error(self):
        kind, body = self.message()
        assert kind == "E", (kind, body)
        return {f[:1].decode(): f[1:].decode() for f in body.split(b"\0") if f}


def first_answer(cluster, node, version, **options):
    user, _, database = cluster.login()
    with Raw(cluster.sql_port(node)) as c:
        c.start(version, user=user, database=database, **options)
        return c.message()


def test_newer_minor_versions_and_unknown_options(cluster):
    """NegotiateProtocolVersion is PostgreSQL's own word: the router carries it, from every node."""
    for node in cluster.names():
        kind, body = first_answer(cluster, node, V32)
        newest = struct.unpack("!i", body[:4])[0] if kind == "v" else None
        assert (kind, newest & 0xFFFF) == ("v", 0) or kind == "R"  # before 18 it says 3.0; later ones go on
        kind, body = first_answer(cluster, node, V30, **{"_pq_.holdfast_test": "1"})
        count = struct.unpack("!i", body[4:8])[0]
        assert (kind, count, body[8:]) == ("v", 1, b"_pq_.holdfast_test\0")
        kind, body = first_answer(cluster, node, V30)
        assert kind == "R"


def test_old_and_foreign_protocols(cluster):
    for version in (2 << 16, 4 << 16, 1234 << 16 | 5681):
        with Raw(cluster.sql_port(cluster.leader())) as c:
            c.start(version, user="app")
            assert c.error()["C"] == "0A000"
            assert c.message() is None


@pytest.mark.parametrize("value", ["true", "database", "1", "on"])
def test_replication_is_refused(cluster, value):
    for node in cluster.names():
        with Raw(cluster.sql_port(node)) as c:
            c.start(V30, user="app", database="app", replication=value)
            e = c.error()
            assert e["C"] == "0A000" and "replication" in e["M"] and "H" in e
    with pytest.raises(psycopg2.OperationalError, match="replication connections are not carried"):
        cluster.connect(replication=value)


def test_first_packets_that_are_wrong(cluster):
    port = cluster.sql_port(cluster.followers()[0])
    for packet in (b"\0\0\0\7", b"\0\0\x27\x11" + b"x" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\1\0\1",
                   struct.pack("!ii", 9, V30) + b"x", struct.pack("!ii", 8, V30),
                   struct.pack("!iii", 12, 80877102, 1)):
        with Raw(port) as c:
            c.s.sendall(packet)
            assert c.error()["C"] == "08P01", packet
            assert c.message() is None, packet
    with Raw(port) as c:  # truncated: the client goes away in the middle
        c.s.sendall(struct.pack("!ii", 100, V30) + b"user\0a")
    with Raw(port) as c:  # byte by byte is slow, not wrong
        body = struct.pack("!i", V30) + b"user\0app\0database\0app\0\0"
        for byte in struct.pack("!i", len(body) + 4) + body:
            c.s.sendall(bytes([byte]))
        assert c.message()[0] == "R"


def test_cancel_with_long_and_wrong_keys(cluster):
    """Keys of protocol 3.2 are understood; a key that nobody has does nothing, without a word."""
    port = cluster.sql_port(cluster.leader())
    for key in (b"abcd", b"k" * 32, b"k" * 256):
        with Raw(port) as c:
            c.s.sendall(struct.pack("!iii", 12 + len(key), 80877102, 1) + key)
            assert c.take(1) is None


def test_admission():
    """Full, slow, from elsewhere: each is told at once, and what room there is stays usable."""
    env = {"HOLDFAST_MAX_CLIENTS": "8", "HOLDFAST_LOGIN_TIMEOUT_MS": "1500", "HOLDFAST_ALLOW": "127.0.0.1,::1/128"}
    with harness.Cluster(replicas=1, env=env) as cluster:
        port = cluster.sql_port(cluster.names()[0])
        with Raw(port, "127.0.0.2") as c:
            c.start(V30, user="app", database="app")
            e = c.error()
            assert e["C"] == "28000" and "not allowed" in e["M"] and "--allow" in e["H"]
        held = [cluster.connect() for _ in range(8)]
        begun = time.monotonic()
        with pytest.raises(psycopg2.OperationalError, match="too many clients"):
            cluster.connect(sslmode="require")
        assert time.monotonic() - begun < 5 * harness.PATIENCE
        with Raw(port) as c:
            c.start(V30, user="app", database="app")
            assert c.error()["C"] == "53300"
        held.pop().close()
        harness.wait_until("the place is free", lambda: cluster.execute("SELECT 1"), 5)
        begun = time.monotonic()
        with Raw(port) as silent, Raw(port) as no_password:
            silent.s.sendall(b"\0\0")
            no_password.start(V30, user="app", database="app")
            assert no_password.message()[0] == "R"
            assert no_password.error()["C"] == "57014"
            assert silent.error()["C"] == "08P01"
            assert 1.4 < time.monotonic() - begun < 10 * harness.PATIENCE
        for conn in held:  # who has logged in has all the time there is
            conn.cursor().execute("SELECT 1")
            conn.close()
