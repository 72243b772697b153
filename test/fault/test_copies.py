"""Are all copies the same, and sound? What PostgreSQL's tools say is made up here; test_damage.py damages real ones."""

import subprocess

import pytest

import check_copies

DUMP = """--
-- PostgreSQL database dump
--

\\restrict fbU3

CREATE TABLE public.ledger (
    n bigint NOT NULL
);

CREATE TABLE public.words (
    n integer,
    w text
);

COPY public.ledger (n) FROM stdin;
1
2
3
\\.


COPY public.words (n, w) FROM stdin;
1\tone
2\ttwo
\\.


SELECT pg_catalog.setval('public.s', 7, true);

\\unrestrict fbU3
"""


class Copies:
    """Three nodes, and what PostgreSQL's tools say of each: (exit status, what is said)."""

    def __init__(self, monkeypatch):
        self.dumps = {n: (0, DUMP) for n in self.names()}
        self.amchecks = {n: (0, "") for n in self.names()}
        self.waited, self.epochs, self.calm = [], [5], lambda: None
        monkeypatch.setattr(check_copies, "_run", self.tool)

    def tool(self, _, args):
        said = self.dumps if args[0].endswith("pg_dump") else self.amchecks
        status, text = said[args[args.index("-h") + 1]]
        return subprocess.CompletedProcess(args, status, text if status == 0 and said is self.dumps else "", text)

    def wait_replayed(self, node, lsn):
        self.waited.append((node, lsn))

    def say(self, node, old, new):
        assert old in DUMP
        self.dumps[node] = (0, DUMP.replace(old, new, 1))

    @staticmethod
    def names():
        return ["a", "b", "c"]

    @staticmethod
    def leader():
        return "b"

    @staticmethod
    def lsn(_):
        return "0/7"

    def epoch(self):
        return self.epochs.pop(0) if len(self.epochs) > 1 else self.epochs[0]

    def wait_healthy(self):
        self.calm()

    @staticmethod
    def path(node, _):
        return node

    @staticmethod
    def super(_, sql):
        return [("app",)] if "pg_database" in sql else []

    def found(self):
        return [(x.kind, x.text) for x in check_copies.check(self)]


@pytest.fixture(name="copies")
def fixture_copies(monkeypatch):
    return Copies(monkeypatch)


def test_copies_the_same(copies):
    assert copies.found() == []
    assert copies.waited == [("a", "0/7"), ("b", "0/7"), ("c", "0/7")]


def test_copies_may_lie_in_another_order(copies):
    copies.say("a", "1\n2\n3\n", "3\n1\n2\n")
    copies.say("c", "fbU3", "Qz18")
    assert copies.found() == []


@pytest.mark.parametrize("what, old, new", (
    ("public.ledger", "1\n2\n3\n", "1\n2\n"), ("public.ledger", "1\n2\n3\n", "1\n2\n3\n4\n"),
    ("public.ledger", "1\n2\n3\n", "1\n2\n2\n3\n"), ("public.words", "2\ttwo", "2\ttow"), ("public.words", "1\tone", "1\ttwo"),
    ("schema", "7, true", "8, true"), ("schema", "    w text\n", "    w text NOT NULL\n"),
    ("public.words", "words (n, w) FROM", "words (w, n) FROM")))
def test_copies_that_differ(copies, what, old, new):
    copies.say("c", old, new)
    assert copies.found() == [("copies-differ", f"app{' ' if what == 'schema' else '.'}{what} on c and on b")]


def test_copies_a_table_that_is_not_everywhere(copies):
    copies.say("a", "COPY public.words (n, w) FROM stdin;\n1\tone\n2\ttwo\n\\.\n", "")
    assert ("copies-differ", "app.public.words on a and on b") in copies.found()


def test_copies_of_a_leader_that_differs_from_all(copies):
    copies.say("b", "2\ttwo", "2\ttow")
    assert copies.found() == [("copies-differ", f"app.public.words on {n} and on b") for n in ("a", "c")]


def test_copies_while_there_is_an_election(copies):
    copies.say("c", "2\ttwo", "2\ttow")
    copies.epochs, copies.calm = [5, 6, 6], lambda: copies.dumps.update(c=(0, DUMP))
    assert copies.found() == []
    copies.say("c", "2\ttwo", "2\ttow")
    copies.epochs = [6, 7, 7]
    copies.calm = lambda: None
    assert copies.found() == [("copies-differ", "app.public.words on c and on b")]


def test_copies_that_pg_amcheck_finds_damaged(copies):
    copies.amchecks["c"] = (2, 'btree index "app.public.words_w": ERROR: item order invariant violated')
    assert [(k, t[:3], "invariant violated" in t) for k, t in copies.found()] == [("damaged", "c: ", True)]


def test_copies_that_nobody_looked_into(copies):
    copies.amchecks["a"] = (0, 'pg_amcheck: warning: skipping database "postgres": amcheck is not installed')
    copies.amchecks["c"] = (0, 'pg_amcheck: warning: skipping database "app": amcheck is not installed')
    assert [(k, t[:2]) for k, t in copies.found()] == [("damaged", "c:")]


@pytest.mark.parametrize("bad, good", (("a", "c"), ("b", None)))
def test_copies_that_cannot_be_read(copies, bad, good):
    """The others are looked at all the same."""
    copies.dumps[bad] = (1, "pg_dump: error: invalid page in block 0 of relation base/5/16385")
    copies.amchecks["c"] = (2, "broken")
    if good:
        copies.say(good, "2\ttwo", "2\ttow")
    assert sorted(copies.found())[0][0] == ("copies-differ" if good else "damaged")
    damaged = [t for k, t in copies.found() if k == "damaged"]
    assert len(damaged) == 2 and damaged[0].startswith(f"{bad}: pg_dump of app: ") and damaged[1] == "c: broken"


def test_copies_without_what_was_written_are_no_copies(copies):
    for node in copies.names():
        copies.say(node, "COPY public.ledger", "COPY public.edger")
    with pytest.raises(AssertionError, match="lacks the ledger"):
        copies.found()
