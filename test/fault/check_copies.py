"""Are all copies the same, and sound? PostgreSQL's own tools say: pg_dump of every database, table by table, and
pg_amcheck of every table and index."""

import functools
import glob
import hashlib
import os
import re
import subprocess

import psycopg2

from check_append import Anomaly

TABLE = re.compile(r"^COPY (\S+) \(", re.M)
KEY = re.compile(r"^\\(un)?restrict \S+$", re.M)  # drawn anew for each dump
GONE = re.compile("connection to server|server closed the connection|terminating connection|conflict with recovery")
LOOKS = 3


def tool(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"),
                   key=lambda p: int(p.split("/")[4]))
    if not found:
        raise RuntimeError(f"{name} is not installed")
    return found[-1]


def _steady(look):
    """A busy machine may have an election while we look, for which PostgreSQL is restarted: that is no damage. All is looked at again. What has
    been found by then stays found, though whoever had it may be copied anew meanwhile."""
    @functools.wraps(look)
    def again(cluster):
        found = []
        for n in range(LOOKS):
            try:
                look(cluster, found)
                return list({repr(x): x for x in found}.values())
            except psycopg2.OperationalError as e:
                if n + 1 == LOOKS or not GONE.search(str(e)):
                    raise
            cluster.wait_healthy()
        raise AssertionError
    return again


def _run(cluster, args):
    """As _steady, for what a tool says."""
    for look in range(LOOKS):
        done = subprocess.run(args, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace", check=False, timeout=300)
        if done.returncode == 0 or not GONE.search(done.stderr):
            return done
        if look + 1 < LOOKS:
            cluster.wait_healthy()
    raise AssertionError(f"{' '.join(args)}: no connection lasted: {done.stderr[-500:]}")


def _databases(cluster, node):
    return sorted(d for (d,) in cluster.super(node, "SELECT datname FROM pg_database WHERE datallowconn"))


def digest(database, text):
    """What pg_dump said of a database: {"database schema" or "database.table": sha256}."""
    text, at, sums = KEY.sub("", text), 0, {}
    schema = hashlib.sha256()
    for found in TABLE.finditer(text):
        end = text.index("\n\\.\n", found.start())
        schema.update(text[at:found.start()].encode())
        # A table scan begins anywhere and rows lie where they were put: their order says nothing.
        rows = "\n".join(sorted(text[found.start():end].split("\n")))
        sums[f"{database}.{found.group(1)}"] = hashlib.sha256(rows.encode()).hexdigest()
        at = end
    schema.update(text[at:].encode())
    return {**sums, f"{database} schema": schema.hexdigest()}


def dump(cluster, node):
    """All databases of a node, the heartbeat, which never rests, left out: as digest(). Or the Anomaly: it cannot be read."""
    sums = {}
    for database in _databases(cluster, node):
        done = _run(cluster, [tool("pg_dump"), "-h", cluster.path(node, "sock"), "-p", "5432", "-U", "holdfast",
                              "--exclude-table-data=holdfast.heartbeat", database])
        if done.returncode != 0:
            return Anomaly("damaged", f"{node}: pg_dump of {database}: {done.stderr[-500:]}")
        sums.update(digest(database, done.stdout))
    return sums


def compare(dumps, leader):
    """`dumps`: {node: what dump() returned}."""
    first = dumps[leader]
    if isinstance(first, dict) and not any(t.endswith(".public.ledger") for t in first):
        raise AssertionError(f"the dump of {leader} lacks the ledger: {sorted(first)}")
    for node, other in dumps.items():
        if isinstance(other, Anomaly):
            yield other
        elif isinstance(first, dict):
            for table in sorted(set(first) | set(other)):
                if first.get(table) != other.get(table):
                    yield Anomaly("copies-differ", f"{table} on {node} and on {leader}")


def amcheck(cluster, node):
    done = _run(cluster, [tool("pg_amcheck"), "-h", cluster.path(node, "sock"), "-p", "5432", "-U", "holdfast",
                          "--all", "--heapallindexed"])
    # Databases without the extension are passed over with a warning; the application's must have it.
    if done.returncode != 0 or "app" in re.findall(r'skipping database "(\w+)"', done.stderr):
        yield Anomaly("damaged", f"{node}: {(done.stdout + done.stderr)[-800:]}")


@_steady
def check(cluster, found):
    """The cluster is whole and nobody writes."""
    leader = cluster.leader()
    cluster.super(leader, "CREATE EXTENSION IF NOT EXISTS amcheck")
    lsn = cluster.lsn(leader)
    for node in cluster.names():
        cluster.wait_replayed(node, lsn)
    for _ in range(LOOKS):
        epoch = cluster.epoch()
        here = list(compare({node: dump(cluster, node) for node in cluster.names()}, leader))
        if cluster.epoch() == epoch:
            break  # else the leader has written a line about that: into all copies, but between two of the dumps
        cluster.wait_healthy()
        leader = cluster.leader()
    found += here
    for node in cluster.names():
        found += amcheck(cluster, node)


@_steady
def ledger(cluster, found):
    """Every acknowledged row exactly once, through the gate and inside every node."""
    lsn = cluster.lsn(cluster.leader())
    for node in (None, *cluster.names()):
        if node is not None:
            cluster.wait_replayed(node, lsn)
        try:
            cluster.ledger.check(cluster.ledger_counts(node))
        except AssertionError as e:
            found.append(Anomaly("ledger", f"{node or 'through the gate'}: {e}"))
