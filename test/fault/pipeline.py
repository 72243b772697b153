"""Clients of the extended protocol, who say much before they hear anything: Parse, Bind, Execute and Close, with a Sync behind each transaction,
with one that comes late, with a Query in its place, and with none. Every message that answers is judged here; what it says, by the ledger and
by check_register.py.

libpq logs in, in the clear (the other clients have TLS); then the messages are said by hand on its socket, for it has no Close."""

import dataclasses
import itertools
import os
import socket
import struct
import time
import types

import psycopg2

import load
import workload
from check_append import Anomaly

ROW = "INSERT INTO ledger VALUES ($1) RETURNING n"
WRITE = "UPDATE registers SET v = $1, version = version + 1 WHERE k = $2 RETURNING version"
READ = "SELECT v, version FROM registers WHERE k = $1"
BAD, BAD_CODE = "SELECT 1 / $1::int", "22012"
KEPT, NAMED = b"kept", b"s"  # prepared once for each session; parsed and closed all the time
VALUES_FROM = 10**9          # none that workload.Registers writes
ANY_TIME = "NSA"             # notices, parameters, notifications
NOT_DONE = types.SimpleNamespace(pgcode=load.NOT_DONE[0])  # as the ledger wants it


class Wrong(Exception):
    """An answer that PostgreSQL would not give there."""


# ---- what is said -------------------------------------------------------------------------------------


def message(kind, body=b""):
    return kind + struct.pack("!i", len(body) + 4) + body


def parse(name, sql):
    return message(b"P", name + b"\0" + sql.encode() + b"\0\0\0")


def bind(name, *values):
    texts = [str(v).encode() for v in values]
    return message(b"B", b"\0" + name + b"\0\0\0" + struct.pack("!h", len(texts))
                   + b"".join(struct.pack("!i", len(t)) + t for t in texts) + b"\0\0")


def close(name):
    return message(b"C", b"S" + name + b"\0")


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


EXECUTE = message(b"E", b"\0\0\0\0\0")
SYNC, FLUSH = message(b"S"), message(b"H")


@dataclasses.dataclass
class Part:
    """One transaction: what is said up to a ReadyForQuery. `hears`: (type, what it says or None) of what answers before that."""

    says: list = dataclasses.field(default_factory=list)
    hears: list = dataclasses.field(default_factory=list)
    rows: list = dataclasses.field(default_factory=list)  # of the ledger
    op: workload.Op = None   # of a register
    fails: bool = False      # on purpose, at its end
    end: bytes = SYNC        # b"": it never comes
    wait_s: float = 0.0      # before that
    row: tuple = None        # the last one heard, and when
    answered: float = None

    def ask(self, rng, sql, values, row, tag):
        name = rng.choice((b"", NAMED, KEPT if sql == ROW else b""))
        if name == NAMED:  # that there is none is no error
            self.says.append(close(name))
            self.hears.append(("3", None))
        if name != KEPT:
            self.says.append(parse(name, sql))
            self.hears.append(("1", None))
        self.says += [bind(name, *values), EXECUTE]
        self.hears += [("2", None), ("D", row), ("C", tag)]
        if name == NAMED and rng.random() < 0.5:
            self.says.append(close(name))
            self.hears.append(("3", None))


# ---- what is heard ------------------------------------------------------------------------------------


class Line:
    """The socket of a session that libpq has logged in, and does not touch until this is closed."""

    def __init__(self, conn):
        self.s = socket.socket(fileno=os.dup(conn.fileno()))
        self.s.setblocking(True)  # who hangs is found by Workers.stop(), dead hosts by keepalives
        self.got, self.ended = b"", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def say(self, data):
        try:
            self.s.sendall(data)
        except OSError:
            pass  # what was told before can still be heard

    def hear(self):
        """(type, body), but for what may come at any time; None: the end."""
        while True:
            while len(self.got) < 5 or len(self.got) < self._length():
                try:
                    more = self.s.recv(65536)
                except OSError:
                    more = b""
                if not more:
                    self.ended = True
                    return None
                self.got += more
            n = self._length()
            kind, body, self.got = chr(self.got[0]), self.got[5:n], self.got[n:]
            if kind not in ANY_TIME:
                return kind, body

    def unasked(self):
        """What came behind the last answer, but for what may come at any time: the word of a PostgreSQL that has crashed, for one."""
        while len(self.got) >= 5 and chr(self.got[0]) in ANY_TIME and len(self.got) >= self._length():
            self.got = self.got[self._length():]
        return b"" if self.got and chr(self.got[0]) in ANY_TIME else self.got

    def _length(self):
        n = 1 + struct.unpack("!i", self.got[1:5])[0]
        if not 5 <= n < 1 << 20:
            raise Wrong(f"no message: {self.got[:20]!r}")
        return n


def columns(body):
    at, out = 2, []
    for _ in range(struct.unpack("!h", body[:2])[0]):
        n = struct.unpack("!i", body[at:at + 4])[0]
        out.append(None if n < 0 else body[at + 4:at + 4 + n].decode())
        at += 4 + max(n, 0)
    return tuple(out)


def _match(part, kind, body, want):
    if kind == "D":
        part.row, part.answered = columns(body), time.monotonic()
        if want is not None and part.row != want:
            raise Wrong(f"the row {part.row} where {want} was asked for")
    elif kind == "C" and body[:-1].decode() != want:
        raise Wrong(f"{body[:-1].decode()} where {want} was asked for")


def answer(line, part):
    """What has become of it: None: done; the first SQLSTATE; "": the connection has ended without a word."""
    left, code = list(part.hears), None
    while (said := line.hear()) is not None:
        kind, body = said
        if kind == "E":
            fields = {f[:1].decode(): f[1:].decode(errors="replace") for f in body.split(b"\0") if f}
            if code is not None and fields.get("S") != "FATAL":
                raise Wrong(f"a second error: {fields}")
            code = code or fields["C"]
        elif kind == "Z":
            if body != b"I" or (code is None and left):
                raise Wrong(f"ReadyForQuery {body.decode()} where {[k for k, _ in left]} was awaited")
            return code
        elif code is not None or not left or left[0][0] != kind:
            raise Wrong(f"{kind} after {code} where {[k for k, _ in left]} was awaited")
        else:
            _match(part, kind, body, left.pop(0)[1])
    return code or ""


def fate(part, code):
    if code is None:
        return "ok"
    # Without a Sync nothing is committed, and neither is what fails at its end, whatever was told.
    if not part.end or part.fails or code in load.NOT_DONE or code in workload.ABORTED:
        return "fail"
    return "info"


# ---- clients ------------------------------------------------------------------------------------------


class Pipelines(workload.Clients):
    via = "pipeline"
    more = {"sslmode": "disable"}

    def __init__(self, lab, count=2, pause=0.05, seed=0):
        super().__init__(lab, count, pause, f"pipelines {seed}")
        self._value = itertools.count(VALUES_FROM)
        self.unsure = []  # rows of transactions of unknown fate
        self.done = []    # how many rows each had that was done

    def prepare(self, conn):
        with Line(conn) as line:
            line.say(parse(KEPT, ROW) + SYNC)
            try:
                code = answer(line, Part(hears=[("1", None)]))
            except Wrong as e:
                self._strange("?", str(e))
                code = ""
        if code is not None:
            conn.close()
            raise psycopg2.OperationalError("the session's statement could not be prepared")

    def _strange(self, node, why):
        self.strange.append(f"{self.via} through {node}: {why}")

    # ---- what is asked ----

    def _part(self, rng):
        part, kind, ledger = Part(), rng.random(), self.lab.ledger
        if kind < 0.15:  # a Query behind a Close ends both
            n = ledger.take()
            part.says, part.end, part.rows = [close(NAMED)], query(f"INSERT INTO ledger VALUES ({n}) RETURNING n"), [n]
            part.hears = [("3", None), ("T", None), ("D", (str(n),)), ("C", "INSERT 0 1")]
        elif kind < 0.3:
            key = rng.randrange(workload.REGISTERS)
            part.op = workload.Op(0, 0, [["r", key, None]], via=self.via)
            part.ask(rng, READ, (key,), None, "SELECT 1")
        elif kind < 0.45:
            key, value = rng.randrange(workload.REGISTERS), next(self._value)
            part.op = workload.Op(0, 0, [["w", key, value, None]], via=self.via)
            part.ask(rng, WRITE, (value, key), None, "UPDATE 1")
        else:
            for _ in range(rng.randrange(1, 4)):
                part.rows.append(ledger.take())
                part.ask(rng, ROW, part.rows[-1:], (str(part.rows[-1]),), "INSERT 0 1")
            if rng.random() < 0.15:
                part.says += [parse(b"", BAD), bind(b"", 0), EXECUTE]
                part.hears += [("1", None), ("2", None), ("E", None)]
                part.fails = True
        return part

    def plan(self, rng):
        parts = [self._part(rng) for _ in range(rng.randrange(1, 5))]
        how = rng.random()
        if how < 0.3:
            parts[-1].says.append(FLUSH)
            parts[-1].wait_s = rng.uniform(0, 1)
        if how < 0.1:
            parts[-1].end = b""
        return parts

    # ---- one batch ----

    def _say(self, line, rng, parts):
        data = b""
        for part in parts:
            data += b"".join(part.says)
            if part.wait_s:
                line.say(data)
                data = b""
                self._stop.wait(part.wait_s)
            data += part.end
        if len(data) > 1 and rng.random() < 0.2:  # a client, or its network, stops in the middle of a message
            at = rng.randrange(1, len(data))
            line.say(data[:at])
            data = data[at:]
            self._stop.wait(rng.uniform(0, 0.3))
        line.say(data)

    def _one(self, i, rng, conn, node):
        parts, begun, good = self.plan(rng), time.monotonic(), True
        with Line(conn) as line:
            self._say(line, rng, parts)
            for part in parts:
                code = ""
                if good and part.end:
                    try:
                        code = answer(line, part)
                        good = not line.ended
                    except Wrong as e:
                        self._strange(node, str(e))
                        good = False
                self._note(i, node, part, begun, code)
            if good and parts[-1].end and line.unasked():
                self._strange(node, f"more than it was asked: {line.got[:60]!r}")
            good = good and not line.got  # the rest of a notice would be taken for an answer
            if not parts[-1].end:
                good = False
                if rng.random() < 0.5:  # without a goodbye
                    try:
                        line.s.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
        return good

    def _note(self, i, node, part, begun, code):
        became, op = fate(part, code), part.op
        if code and not load.MAY_BE_TOLD.fullmatch(code) and not (part.fails and code == BAD_CODE):
            self._strange(node, f"{code} for {[k for k, _ in part.hears]}")
        for n in part.rows:
            self.lab.ledger.note(n, became == "ok", NOT_DONE if became == "fail" else None)
        if became == "ok":
            self.done.append(len(part.rows))
        elif became == "info" and len(part.rows) > 1:
            self.unsure.append(part.rows)
        if op is None:
            return
        op.process, op.node, op.begun, op.ended = i, node, begun, time.monotonic()
        op.fate, op.error, op.answered = became, code or "", part.answered
        if part.row is not None:
            op.steps[0][-1] = tuple(map(int, part.row)) if op.steps[0][0] == "r" else int(part.row[0])
        self.history.add(op)

    def halves(self, counts):
        """All of a transaction is there at the end, or nothing. `counts`: of the ledger."""
        return [Anomaly("half", f"of rows {rows}, one transaction, {[n for n in rows if n in counts]} are there")
                for rows in self.unsure if 0 < sum(n in counts for n in rows) < len(rows)]
