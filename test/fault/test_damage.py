"""Copies that are made to differ on purpose, in real PostgreSQLs: check_copies.py must find each, by the tool that can. (What it makes
of the tools' words: test_copies.py.)"""

import contextlib
import os
import signal
import subprocess

import pytest

import check_copies
import harness
import lab as laboratory


@pytest.fixture(name="lab", scope="module")
def fixture_lab():
    made = laboratory.Lab(seed=6)
    try:
        # Nothing writes to these pages any more, on any node: else the leader's WAL might mend them.
        made.execute("CREATE TABLE words (n int PRIMARY KEY, w text) WITH (autovacuum_enabled = off)")
        made.execute("INSERT INTO words SELECT i, 'word-' || lpad(i::text, 6, '0') FROM generate_series(1, 2000) i")
        made.execute("CREATE INDEX words_w ON words (w)")
        leader = made.leader()
        made.super(leader, "VACUUM (FREEZE) words")
        made.super(leader, "CHECKPOINT")
        lsn = made.lsn(leader)
        for node in made.names():
            made.wait_replayed(node, lsn)
            made.super(node, "CHECKPOINT")
        yield made
    finally:
        made.destroy()


@contextlib.contextmanager
def stopped(lab, node):
    """Its PostgreSQL is shut down cleanly, and nobody starts it before the end."""
    lab.take_away(node)
    lab.sentinel(node).send(signal.SIGTERM)
    harness.wait_until(f"{node} has ended", lambda: not lab.all_processes(node), 20)
    try:
        yield lab.path(node, "data")
    finally:
        lab.return_host(node)
    lab.wait_healthy(30)


def replace(path, old, new):
    """Where `old` is for the first time."""
    assert len(old) == len(new)
    with open(path, "r+b") as f:
        at = f.read().index(old)
        f.seek(at)
        f.write(new)


def make_sums_right(data):
    """As if PostgreSQL had written it so: only who knows what should be there can tell."""
    for how in ("--disable", "--enable"):
        subprocess.run([check_copies.tool("pg_checksums"), how, "--no-sync", "-D", data], check=True, capture_output=True)


def found(lab):
    """Kinds, with what differs or who is damaged."""
    return sorted({(a.kind, a.text if a.kind == "copies-differ" else a.text.split(":")[0]) for a in check_copies.check(lab)})


def place(lab, relation):
    return lab.super(lab.leader(), "SELECT pg_relation_filepath(%s)", (relation,))[0][0]


@pytest.mark.limit(300)
def test_damaged_copies_are_found(lab):
    """Three kinds of damage, one after the other: a row that says something else, an index that is out of order, and a page that PostgreSQL
    itself refuses."""
    assert found(lab) == []
    leader = lab.leader()
    one, two = [n for n in lab.names() if n != leader]
    table, index = place(lab, "words"), place(lab, "words_w")

    with stopped(lab, one) as data:
        # The last in the index's order before and after, or that would tell as well.
        replace(os.path.join(data, table), b"word-002000", b"word-002009")
        replace(os.path.join(data, index), b"word-002000", b"word-002009")
        make_sums_right(data)
    assert lab.leader() == leader
    assert found(lab) == [("copies-differ", f"app.public.words on {one} and on {leader}")]

    with stopped(lab, two) as data:
        replace(os.path.join(data, index), b"word-000900", b"word-999999")
        make_sums_right(data)
    assert lab.leader() == leader
    assert found(lab) == [("copies-differ", f"app.public.words on {one} and on {leader}"), ("damaged", two)]

    with stopped(lab, two) as data:
        replace(os.path.join(data, table), b"word-000011", b"word-00001X")
    assert lab.leader() == leader
    by_tool = [a.text for a in check_copies.check(lab) if a.kind == "damaged"]
    assert any(t.startswith(f"{two}: pg_dump of app: ") and "invalid page" in t for t in by_tool), by_tool
    assert any(t.startswith(f"{two}: ") and "invalid page" in t and "pg_dump" not in t for t in by_tool), by_tool
