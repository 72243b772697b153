"""Clients that keep a history: what they asked, when, what they were told and when. The checkers
(check_append.py, check_register.py) read it.

A transaction's fate is `ok` (told committed), `fail` (told aborted, or COMMIT was never sent) or `info`: the
connection ended while COMMIT was on its way, so that it may have happened or not."""

import dataclasses
import itertools
import random
import threading
import time

import psycopg2
import psycopg2.errors

import load

KEYS_AT_A_TIME = 4
APPENDS_PER_KEY = 40
REGISTERS = 3
ABORTED = ("40001", "40P01")  # serialisation failure, deadlock: PostgreSQL says that it rolled back


@dataclasses.dataclass
class Op:
    """One transaction. `steps`: ["r", key, list or None] and ["append", key, element]; for registers ["r", key,
    (value, version) or None] and ["w", key, value, version or None]. `answered`: when the last of these was."""

    process: int
    begun: float
    steps: list
    ended: float = None
    fate: str = "info"
    node: str = ""
    via: str = "gate"
    error: str = ""
    answered: float = None


class History:
    def __init__(self):
        self._lock = threading.Lock()
        self.ops = []

    def add(self, op):
        with self._lock:
            self.ops.append(op)

    def of(self, via="gate"):
        with self._lock:
            return [op for op in self.ops if op.via == via]


STAY_S = (2.0, 6.0)  # with one node, of those that move


class Clients(load.Workers):
    """Threads that each hold one connection, through all nodes in turn, until stop(). Every other one moves on after some seconds; the others stay
    as long as their session lives, through changes of the leader."""

    def __init__(self, lab, count, pause, seed):
        self.lab, self.pause = lab, pause
        self.history = History()
        self.strange = []  # errors that no fault can cause
        self.by_standby = []  # keys of reads that a follower has answered
        self.hurry = threading.Event()  # who moves does so after each transaction
        self._serial = itertools.count()
        works = [(self._run, i, random.Random(f"client {seed} {i}")) for i in range(count)]
        super().__init__("a client", works, end_s=40)

    read_only = False
    via = "gate"
    more = {}  # of each connection
    moves = staticmethod(lambda i: i % 2 == 1)

    def heard_at(self):
        """Nodes whose port has answered."""
        return {op.node for op in list(self.history.ops) if op.fate == "ok" and op.via == self.via}

    def _stays(self, i, until):
        return not self.moves(i) or (time.monotonic() < until and not self.hurry.is_set())

    def _run(self, i, rng):
        names = self.lab.names()
        turn = i
        while not self._stop.is_set():
            node = names[turn % len(names)]
            turn += 1
            try:
                conn = self.lab.connect(node, self.read_only, autocommit=False, **self.more)
                self.prepare(conn)
            except psycopg2.Error as e:
                self._judge(e, node)
                self._stop.wait(0.05)
                continue
            until = time.monotonic() + rng.uniform(*STAY_S)
            try:
                while not self._stop.is_set() and self._one(i, rng, conn, node) and self._stays(i, until):
                    self._stop.wait(self.pause * rng.uniform(0.5, 1.5))
            finally:
                conn.close()

    def _judge(self, error, node):
        why = load.strange(error)
        if why is not None:
            self.strange.append(f"{self.via} through {node}: {why}")

    def prepare(self, conn):
        conn.set_session(isolation_level="SERIALIZABLE")

    def _one(self, i, rng, conn, node):
        """One transaction; returns whether the connection is still good."""
        op = Op(i, 0, self.plan(rng), node=node, via=self.via)
        op.begun = time.monotonic()
        committing = False
        try:
            with conn.cursor() as cur:
                for step in op.steps:
                    self.do(cur, step)
                    op.answered = time.monotonic()
            committing = True
            conn.commit()
            op.fate = "ok"
        except psycopg2.Error as e:
            op.error = f"{e.pgcode} {str(e).strip()[:80]}"
            self._judge(e, node)
            op.fate = "fail" if not committing or e.pgcode in ABORTED else "info"
        op.ended = time.monotonic()
        self.history.add(op)
        if op.fate == "ok":
            return True
        try:  # it goes on, also after what nobody knows the fate of
            if not conn.closed:
                conn.rollback()
                return True
        except psycopg2.Error:
            pass
        return False


class Appends(Clients):
    """Lists that grow: the elements of a list tell in which order its writers committed."""

    TABLE = "CREATE TABLE IF NOT EXISTS lists (k int PRIMARY KEY, v int[] NOT NULL)"

    def __init__(self, lab, count=4, pause=0.03, seed=0):
        super().__init__(lab, count, pause, seed)
        self._lock = threading.Lock()
        self._first, self._grown = 0, {}
        self._element = itertools.count(1)

    def keys(self):
        with self._lock:
            return list(range(self._first + KEYS_AT_A_TIME))

    def plan(self, rng):
        steps = []
        with self._lock:
            for _ in range(rng.randrange(1, 5)):
                key = self._first + rng.randrange(KEYS_AT_A_TIME)
                if rng.random() < 0.5:
                    steps.append(["r", key, None])
                    continue
                steps.append(["append", key, next(self._element)])
                self._grown[key] = self._grown.get(key, 0) + 1
                if self._grown.get(self._first, 0) >= APPENDS_PER_KEY:
                    self._first += 1
        # In the order of keys, so that nobody waits in a circle: PostgreSQL looks for deadlocks by the wall clock,
        # and does not while a clock that jumped back has that moment a year ahead.
        return sorted(steps, key=lambda s: s[1])

    def do(self, cur, step):
        if step[0] == "append":
            cur.execute("INSERT INTO lists VALUES (%s, ARRAY[%s]) ON CONFLICT (k) DO UPDATE SET v ="
                        " lists.v || EXCLUDED.v", (step[1], step[2]))
        else:
            cur.execute("SELECT v FROM lists WHERE k = %s", (step[1],))
            rows = cur.fetchall()
            step[2] = list(rows[0][0]) if rows else []


class FollowerReads(Clients):
    """Whole snapshots of the youngest lists through the read-only ports."""

    read_only = True
    via = "follower"
    moves = staticmethod(lambda _: True)

    def __init__(self, lab, appends, count=1, pause=0.1, seed=0):
        super().__init__(lab, count, pause, f"followers {seed}")
        self._appends = appends

    def prepare(self, conn):
        conn.set_session(isolation_level="REPEATABLE READ", readonly=True)

    def plan(self, rng):
        return [["r", k, None] for k in self._appends.keys()[-2 * KEYS_AT_A_TIME:]]

    def do(self, cur, step):
        cur.execute("SELECT v, pg_is_in_recovery() FROM lists WHERE k = %s", (step[1],))
        rows = cur.fetchall()
        step[2] = list(rows[0][0]) if rows else []
        if rows and rows[0][1]:
            self.by_standby.append(step[1])


class Registers(Clients):
    """Single registers, each write of which gets the next version number from the row itself."""

    TABLE = "CREATE TABLE IF NOT EXISTS registers (k int PRIMARY KEY, v bigint, version bigint NOT NULL)"

    def __init__(self, lab, count=2, pause=0.03, seed=0):
        super().__init__(lab, count, pause, f"registers {seed}")
        self._value = itertools.count(1)

    def plan(self, rng):
        key = rng.randrange(REGISTERS)
        return [["r", key, None]] if rng.random() < 0.5 else [["w", key, next(self._value), None]]

    def do(self, cur, step):
        if step[0] == "w":
            cur.execute("UPDATE registers SET v = %s, version = version + 1 WHERE k = %s"
                        " RETURNING version", (step[2], step[1]))
            step[3] = cur.fetchone()[0]
        else:
            cur.execute("SELECT v, version FROM registers WHERE k = %s", (step[1],))
            step[2] = tuple(cur.fetchone())

    @classmethod
    def make(cls, lab):
        lab.execute(cls.TABLE)
        for k in range(REGISTERS):
            lab.execute("INSERT INTO registers VALUES (%s, 0, 0) ON CONFLICT DO NOTHING", (k,))


class FreshReads(Registers):
    """The same registers, read from followers that must not be late. They may be early (docs/safety.md): what a follower
    shows the leader may not show yet, and with more than three voters it may be taken back, so this is for three."""

    via = "fresh"
    more = {"options": "-c holdfast.reads=fresh"}

    def prepare(self, conn):
        conn.set_session(readonly=True)

    def plan(self, rng):
        return [["r", rng.randrange(REGISTERS), None]]

    def do(self, cur, step):
        cur.execute("SELECT v, version, pg_is_in_recovery() FROM registers WHERE k = %s", (step[1],))
        *found, standby = cur.fetchone()
        step[2] = tuple(found)
        if standby:
            self.by_standby.append(step[1])
