"""Clients that write numbered rows and remember exactly what was acknowledged."""

import collections
import itertools
import re
import threading
import time

import psycopg2

import suite


RECENT = 4000
# With these PostgreSQL or the router says that a statement by itself was not done (docs/clients.md).
NOT_DONE = ("40001", "25006", "57P03", "53300")
# After these the session goes on, and what it is told next must be about what it asks next.
GOES_ON = ("40001", "08007")
# What a client may be told while nodes die, disks fill, and followers replay. Anything else was not caused by that.
MAY_BE_TOLD = re.compile("40001|40P01|57P0[1-5]|08...|25006|53...|58030")
# Of a login, where nobody changes roles, databases or passwords.
REFUSED = re.compile(r"FATAL: +(password authentication|role \"|database \".*does not exist|permission denied|no pg_hba|unsupported|"
                     r"invalid|unrecognized)|SCRAM|channel binding|received invalid response")
GARBLED = re.compile("lost synchronization|message contents do not agree|unexpected (response|message|asyn)|no results to fetch")


def strange(error):
    """Why an error of psycopg2's is none that a fault can cause; None: it can."""
    code, text = error.pgcode, str(error)
    if GARBLED.search(text) or (code is None and REFUSED.search(text)):
        return f"{type(error).__name__}: {text.strip()}"
    if code is None:  # the connection could not be made, or has ended
        return None if isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) else repr(error)
    return None if MAY_BE_TOLD.fullmatch(code) else f"{code}: {text.strip()}"


class Ledger:
    """What clients were told. A row is `acked` once COMMIT's answer came, `unknown` when the
    connection ended in between (it may be there or not, but never twice), and `denied` when it was told that it was not done."""

    def __init__(self):
        self._lock = threading.Lock()
        self._next = itertools.count(1)
        self.acked = set()
        self.newest = 0
        # (row, monotonic time of its acknowledgement), the last few seconds' worth
        self._recent = collections.deque(maxlen=RECENT)
        self.unknown = set()
        self.denied = set()
        self.refused = 0

    def take(self):
        with self._lock:
            self.newest = next(self._next)
            return self.newest

    def note(self, n, ok, error=None):
        with self._lock:
            if ok:
                self.acked.add(n)
                self.unknown.discard(n)
                self._recent.append((n, time.monotonic()))
            elif error is not None and error.pgcode in NOT_DONE:
                self.denied.add(n)
            else:
                self.unknown.add(n)

    def forget_acked(self):
        """After the table was emptied. What is of unknown fate may still turn up."""
        with self._lock:
            self.acked.clear()
            self._recent.clear()

    def acked_above(self, low):
        with self._lock:
            return {n for n, _ in self._recent if n > low}

    def first_ack_after(self, moment):
        """Time of the first acknowledgement later than `moment`, or None."""
        with self._lock:
            late = [t for _, t in self._recent if t > moment]
        return min(late) if late else None

    def check(self, counts):
        """`counts`: row -> how often it was found."""
        with self._lock:
            acked, unknown, denied = set(self.acked), set(self.unknown), set(self.denied)
        lost = sorted(n for n in acked if counts.get(n, 0) == 0)
        double = sorted(n for n, k in counts.items() if k > 1)
        done = sorted(denied & set(counts))
        unheard = sorted(n for n in counts if n not in acked and n not in unknown and n not in denied)
        assert not lost, f"{len(lost)} acknowledged rows LOST: {lost[:20]}"
        assert not double, f"rows found more than once: {double[:20]}"
        assert not done, f"rows that are there, and whose client was told that they were not written: {done[:20]}"
        assert not unheard, f"rows nobody wrote: {unheard[:20]}"


class Workers:
    """Threads that work until stop(), or the end of a `with`. One that does not end then has a statement that neither
    returned nor failed; one that has died has had an answer that it could not understand. `works`: each thread's function and its
    arguments."""

    def __init__(self, what, works, end_s=30):
        self._what, self._end_s = what, end_s
        self._stop = threading.Event()
        self._died = []
        self._threads = [threading.Thread(target=self._work, args=(work, *args), daemon=True) for work, *args in works]

    def _work(self, work, *args):
        try:
            work(*args)
        except BaseException as e:  # pylint: disable=broad-exception-caught
            self._died.append(e)

    def __enter__(self):
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        for t in self._threads:
            t.join(self._end_s)
            assert not t.is_alive(), f"{self._what} hangs: a statement neither returned nor failed"
        if self._died:
            raise AssertionError(f"{self._what} died: {self._died[0]!r}") from self._died[0]


class WriteLoop(Workers):
    """`clients` threads insert rows of the cluster's ledger, each through all ports in turn, until
    stop(). An error means: reconnect through the next port, unless the session goes on after it."""

    def __init__(self, cluster, clients=1, nodes=None, pause=0.003):
        self.cluster = cluster
        self.nodes = nodes
        self.pause = pause
        self.errors = []
        super().__init__("a writer", [(self._run, i) for i in range(clients)])

    def _run(self, i):
        ledger = self.cluster.ledger
        nodes = self.nodes or self.cluster.names()
        turn = i
        while not self._stop.is_set():
            node = nodes[turn % len(nodes)]
            turn += 1
            try:
                conn = self.cluster.connect(node, timeout=12)
            except psycopg2.Error as e:
                self.errors.append(e)
                ledger.refused += 1
                self._stop.wait(0.02)
                continue
            self._use(conn, ledger)

    def _use(self, conn, ledger):
        try:
            with conn.cursor() as cur:
                while not self._stop.is_set():
                    n = ledger.take()
                    try:
                        cur.execute("INSERT INTO ledger VALUES (%s)", (n,))
                        ledger.note(n, True)
                    except psycopg2.Error as e:
                        ledger.note(n, False, e)
                        self.errors.append(e)
                        if conn.closed or e.pgcode not in GOES_ON:
                            return
                    if self.pause:
                        self._stop.wait(self.pause)
        finally:
            conn.close()

    def wait_for_ack(self, after=None, timeout=15.0):
        """Waits for an acknowledgement later than `after` (monotonic; now by default); returns its
        time."""
        after = time.monotonic() if after is None else after
        deadline = time.monotonic() + timeout * suite.PATIENCE
        while time.monotonic() < deadline:
            first = self.cluster.ledger.first_ack_after(after)
            if first is not None:
                return first
            time.sleep(0.005)
        raise AssertionError(
            f"no write was acknowledged within {timeout} s; last errors: {self.errors[-3:]}")


class Pending:
    """One statement on its own thread and connection: has it been answered, and how?"""

    def __init__(self, conn, sql, args=None):
        self.conn = conn
        self.error = None
        self.rows = None
        self.notices = conn.notices
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(sql, args), daemon=True)
        self._thread.start()

    def _run(self, sql, args):
        try:
            with self.conn.cursor() as cur:
                cur.execute(sql, args)
                self.rows = cur.fetchall() if cur.description else []
        except psycopg2.Error as e:
            self.error = e
        finally:
            self._done.set()

    @property
    def done(self):
        return self._done.is_set()

    @property
    def succeeded(self):
        return self.done and self.error is None

    def wait(self, timeout):
        """Returns whether it has been answered (well or not) within `timeout` seconds."""
        return self._done.wait(timeout)


class ReadLoop(Workers):
    """Reads the newest rows of the ledger through the gates, again and again. Whatever was read must
    stay readable, and nothing acknowledged before the read began may be missing (no stale read)."""

    def __init__(self, cluster, nodes=None):
        self.cluster = cluster
        self.nodes = nodes or cluster.names()
        self.seen = set()
        self.stale = []
        self.reads = 0
        super().__init__("a reader", [(self._run, n) for n in self.nodes])

    def _run(self, node):
        while not self._stop.is_set():
            try:
                conn = self.cluster.connect(node, timeout=12)
            except psycopg2.Error:
                self._stop.wait(0.02)
                continue
            try:
                self._read(conn, node)
            except psycopg2.Error:
                pass
            finally:
                conn.close()

    def _read(self, conn, node):
        with conn.cursor() as cur:
            while not self._stop.is_set():
                low = self.cluster.ledger.newest - RECENT // 2
                before = self.cluster.ledger.acked_above(low)
                cur.execute("SELECT n FROM ledger WHERE n > %s", (low,))
                rows = {r[0] for r in cur.fetchall()}
                self.reads += 1
                if before - rows:
                    self.stale.append((node, sorted(before - rows)[:5]))
                self.seen |= rows
                self._stop.wait(0.02)

    def check(self, final):
        assert not self.stale, f"stale reads through a gate: {self.stale[:5]}"
        gone = sorted(self.seen - set(final))
        assert not gone, f"rows that a gate showed are gone: {gone[:20]}"
