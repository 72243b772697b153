"""A real Holdfast cluster for one or more tests: started by `holdfast up` in a directory of its own,
watched through `holdfast status --json`, hurt by signals, and always taken down again."""

import contextlib
import fcntl
import glob
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

import psycopg2

import load
import procs
from suite import BINARY, LIVE, PATIENCE, ROOT

POLL_S = 0.05
PORTS_LOCK_DIR = os.path.join(tempfile.gettempdir(), "holdfast-test-ports")


class CommandFailed(AssertionError):
    def __init__(self, args, done):
        super().__init__(
            f"{' '.join(args)}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        self.code, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr


def wait_until(what, check, timeout=20.0, poll=POLL_S):
    """Polls `check` until it returns something true; returns that. `what` is for the failure."""
    deadline = time.monotonic() + timeout * PATIENCE
    last = None
    while True:
        try:
            got = check()
        except (psycopg2.Error, OSError) as e:
            got, last = None, e
        if got:
            return got
        if time.monotonic() > deadline:
            detail = f" (last error: {last})" if last else ""
            raise AssertionError(f"not within {timeout:.0f} s: {what}{detail}")
        time.sleep(poll)


class PortRange:
    """A base port below the ephemeral range with `span` ports free above it. The lock keeps other
    test runs on this machine away from it."""

    def __init__(self, span=100):
        os.makedirs(PORTS_LOCK_DIR, exist_ok=True)
        start = 10000 + (os.getpid() * 100) % 20000
        for step in range(0, 20000, 100):
            base = 10000 + (start - 10000 + step) % 20000
            # pylint: disable=consider-using-with
            lock = open(os.path.join(PORTS_LOCK_DIR, str(base)), "w", encoding="ascii")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            if all(self._free(base + i) for i in range(span)):
                self.base, self._lock = base, lock
                return
            lock.close()
        raise RuntimeError("no free range of ports on this machine")

    @staticmethod
    def _free(port):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True

    def close(self):
        self._lock.close()


class Cluster:
    """One local cluster. Use as a context manager, or call destroy()."""

    def __init__(self, replicas=3, settings=None, name="demo", start=True, env=None):
        self.name = name
        self.replicas = replicas
        self.env = env or {}  # of every `holdfast` run; nodes inherit it from `up`
        self.options = []
        for key, value in (settings or {}).items():
            self.options += ["-c", f"{key}={value}"]
        self.home = tempfile.mkdtemp(prefix="hft-", dir=os.environ.get("HOLDFAST_TEST_DIR"))
        os.chmod(self.home, 0o755)
        self.dir = os.path.join(self.home, "c")
        self.ports = PortRange()
        self.port = self.ports.base
        self.ledger = load.Ledger()
        self._login = None
        self._frozen = []
        LIVE.append(self)
        if start:
            try:
                self.up()
                self.wait_healthy(30)
                # An index that is not unique: a row written twice must show.
                wait_until("the application can log in", lambda: self.execute("SELECT 1"), 10)
                self.execute("CREATE TABLE ledger (n bigint NOT NULL); CREATE INDEX ON ledger (n)")
            except BaseException:
                print(self.dump())
                self.destroy()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.dump())
        self.destroy()

    # ---- the command line -------------------------------------------------------------------

    def run(self, *args, check=True, timeout=60, env=None):
        """Runs `holdfast VERB ... --dir DIR`; returns the finished process."""
        full = [BINARY, args[0], *map(str, args[1:]), "--dir", self.dir]
        done = subprocess.run(
            full,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout * PATIENCE,
            cwd=self.home,
            env={**os.environ, **self.env, **(env or {})},
            check=False,
        )
        if check and done.returncode != 0:
            raise CommandFailed(full, done)
        return done

    def up(self, check=True, timeout=60, env=None):
        args = ["up", "--replicas", self.replicas, "--port", self.port, "--name", self.name]
        return self.run(*args, *self.options, check=check, timeout=timeout, env=env)

    def down(self):
        return self.run("down")

    def start(self, node):
        return self.run("start", node)

    def switchover(self, to=None, check=True):
        args = ["switchover", *(["--to", to] if to else [])]

        def taken():  # who has just come back may stream a moment before the leader's messages reach it
            done = self.run(*args, check=False)
            return None if check and "can be reached" in done.stderr else done

        done = wait_until("a follower that can be reached", taken, 20, 0.3)
        if check and done.returncode != 0:
            raise CommandFailed(args, done)
        return done

    def scale(self, n):
        done = self.run("scale", "--replicas", n, timeout=90)
        self.replicas = n
        return done

    def status(self):
        """The parsed status, or None while it cannot be had."""
        done = self.run("status", "--json", check=False, timeout=20)
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return None

    def history(self):
        return self.run("history", "--json").stdout

    def names(self):
        return [f"{self.name}-{i}" for i in range(self.replicas)]

    def path(self, node, *parts):
        return os.path.join(self.dir, node, *parts)

    # ---- waiting ----------------------------------------------------------------------------

    def wait(self, what, check, timeout=20.0):
        """Polls status until check(status) is true; returns that status."""
        last = {}

        def probe():
            last["s"] = self.status()
            return last["s"] is not None and check(last["s"]) and last["s"]

        try:
            return wait_until(what, probe, timeout)
        except AssertionError as e:
            raise AssertionError(f"{e}\nlast status: {json.dumps(last.get('s'))}") from None

    @staticmethod
    def open_leader(status):
        """Name of the leader whose gate is open, or None."""
        for n in (status or {}).get("nodes", []):
            if n["role"] == "leader" and n["state"] == "open":
                return n["name"]
        return None

    def wait_open(self, timeout=20.0, other_than=None, after_epoch=0):
        """Waits for an open gate; returns the leader's name."""
        st = self.wait(
            f"an open gate after epoch {after_epoch}, not on {other_than}",
            lambda s: self.open_leader(s) not in (None, other_than)
            and (s.get("epoch") or 0) > after_epoch,
            timeout,
        )
        return self.open_leader(st)

    def leader(self):
        return self.wait_open()

    def followers(self):
        leader = self.leader()
        return [n for n in self.names() if n != leader]

    def epoch(self):
        return self.status()["epoch"]

    def node(self, name, status=None):
        status = status or self.status()
        return next((n for n in status["nodes"] if n["name"] == name), None)

    def wait_state(self, name, states, timeout=30.0):
        states = (states,) if isinstance(states, str) else states
        return self.wait(
            f"{name} is {' or '.join(states)}",
            lambda s: (self.node(name, s) or {}).get("state") in states,
            timeout,
        )

    def _healthy(self, s):
        states = {n["name"]: n for n in s["nodes"]}
        if set(states) != set(self.names()) or self.open_leader(s) is None:
            return False
        return all(
            n["voter"] and (n["state"] == "streaming" or n["role"] == "leader")
            for n in states.values()
        )

    def wait_healthy(self, timeout=40.0):
        """One open leader, everybody else a streaming voter."""
        return self.wait("one open leader, all others streaming voters", self._healthy, timeout)

    def heal(self, timeout=40.0):
        """Thaws what is frozen, starts what is down, waits until the cluster is whole."""
        self.thaw()
        for node in self.names():
            if not self.node_process(node):
                self.run("start", node, check=False)
        self.wait_healthy(timeout)

    # ---- SQL --------------------------------------------------------------------------------

    def login(self):
        """(user, password, database) of the application, from `holdfast uri`."""
        if self._login is None:
            uri = self.run("uri").stdout.strip()
            found = re.match(r"postgres(?:ql)?://([^:@/]+):([^@]*)@([^/]*)/([^?]+)", uri)
            assert found, f"holdfast uri printed {uri!r}"
            user, password, _, database = map(urllib.parse.unquote, found.groups())
            self._login = (user, password, database)
        return self._login

    def sql_port(self, node, read_only=False):
        return self.port + 10 * int(node.rsplit("-", 1)[1]) + (1 if read_only else 0)

    def connect(self, node=None, read_only=False, timeout=15, autocommit=True, **more):
        """A client's connection: through `node`'s router, or whichever of all answers first."""
        user, password, database = self.login()
        nodes = [node] if node else self.names()
        args = {
            "host": ",".join(["127.0.0.1"] * len(nodes)),
            "port": ",".join(str(self.sql_port(n, read_only)) for n in nodes),
            "user": user,
            "password": password,
            "dbname": database,
            "connect_timeout": str(timeout),
            "application_name": "cluster-test",
        }
        args.update(more)
        conn = psycopg2.connect(**args)
        conn.autocommit = autocommit
        return conn

    def execute(self, sql, args=None, node=None, read_only=False, **more):
        """One statement through the router; returns its rows."""
        conn = self.connect(node, read_only, **more)
        try:
            with conn.cursor() as cur:
                cur.execute(sql, args)
                return cur.fetchall() if cur.description else []
        finally:
            conn.close()

    def insert(self, node=None, count=1):
        """Inserts numbered rows and notes them in the ledger. Returns the last number."""
        conn = self.connect(node)
        n = None
        try:
            with conn.cursor() as cur:
                for _ in range(count):
                    n = self.ledger.take()
                    try:
                        cur.execute("INSERT INTO ledger VALUES (%s)", (n,))
                    except psycopg2.Error as e:
                        self.ledger.note(n, False, e)
                        raise
                    self.ledger.note(n, True)
        finally:
            conn.close()
        return n

    def bulk(self, mbytes, node=None):
        """Acknowledged WAL of about this size."""
        self.execute("CREATE TABLE IF NOT EXISTS bulk (a text)", node=node)
        conn = self.connect(node)
        try:
            with conn.cursor() as cur:
                for _ in range(mbytes):
                    cur.execute(
                        "INSERT INTO bulk SELECT repeat(md5(random()::text || i::text), 32)"
                        " FROM generate_series(1, 950) i"
                    )
        finally:
            conn.close()

    def super(self, node, sql=None, args=None, dbname=None):
        """Straight to a node's own PostgreSQL, past the router, for looking inside."""
        conn = psycopg2.connect(
            host=self.path(node, "sock"), port=5432, user="holdfast",
            dbname=dbname or self.login()[2], connect_timeout="5",
        )
        conn.autocommit = True
        if sql is None:
            return conn
        try:
            with conn.cursor() as cur:
                cur.execute(sql, args)
                return cur.fetchall() if cur.description else []
        finally:
            conn.close()

    # ---- processes --------------------------------------------------------------------------

    def _node_processes(self, node):
        return [
            p for p in procs.under(self.path(node))
            if re.search(r"holdfast\S* (.* )?node\b", p.args)
        ]

    def sentinel(self, node):
        """The parent of the pair `holdfast node`, or None."""
        mine = self._node_processes(node)
        pids = {p.pid for p in mine}
        return next((p for p in mine if p.ppid not in pids), None)

    def node_process(self, node):
        """The child of the pair, which does the work, or None."""
        mine = self._node_processes(node)
        pids = {p.pid for p in mine}
        return next((p for p in mine if p.ppid in pids), None)

    def postmaster(self, node):
        try:
            with open(self.path(node, "data", "postmaster.pid"), encoding="ascii") as f:
                proc = procs.Proc(int(f.readline()))
        except (OSError, ValueError):
            return None
        return proc if proc.alive() and self.path(node) in proc.args else None

    def backends(self, node, kind):
        """PostgreSQL's processes of a kind ('walsender', 'walreceiver', 'app app', ...)."""
        pm = self.postmaster(node)
        if pm is None:
            return []
        return [p for p in procs.children(pm.pid) if re.match(rf"postgres: .*{kind}", p.args)]

    def all_processes(self, node=None):
        return procs.under(self.path(node) if node else self.dir)

    def kill_group(self, node, sig=signal.SIGKILL):
        """The whole process group of a node (sentinel and node), as `kill -9 -PGID`. PostgreSQL has
        a session of its own and stays behind. Returns when the two are gone."""
        pair = self._node_processes(node)
        groups = {p.pgid for p in pair}
        assert os.getpgid(0) not in groups, "refusing to kill the test's own process group"
        for p in pair:
            assert p.pgid in {q.pid for q in pair}, f"{p} is in a group that is not its own"
        for g in groups:
            os.killpg(g, sig)
        if sig == signal.SIGKILL:
            wait_until("killed processes are gone", lambda: not any(p.alive() for p in pair), 5, 0.005)

    def kill_down(self, node):
        """Kills a node so that nobody restarts it, and everything of it, PostgreSQL included."""
        before = self.all_processes(node)
        done = self.run("kill", node, check=False)
        assert not done or done.returncode == 0 or "does not run" in done.stderr, done.stderr
        before += self.all_processes(node)
        for p in before:
            p.send(signal.SIGKILL)
        wait_until(
            f"every process of {node} is gone", lambda: not any(p.alive() for p in before), 10, 0.01
        )
        self._frozen = [p for p in self._frozen if p.alive()]

    def kill_everything(self):
        """The machine's power cord: every process of the cluster, in one go."""
        for _ in range(50):
            left = procs.under(self.dir)
            if not left:
                return
            for p in left:
                p.send(signal.SIGSTOP)  # nobody gets to react to the death of another
            for p in left:
                p.send(signal.SIGKILL)
            time.sleep(0.02)
        raise AssertionError(f"processes that will not die: {procs.under(self.dir)}")

    def freeze(self, *processes):
        for p in processes:
            assert p is not None and p.send(signal.SIGSTOP), f"no process to stop: {p}"
            self._frozen.append(p)

    def thaw(self, *processes):
        for p in processes or list(self._frozen):
            p.send(signal.SIGCONT)
        self._frozen = [p for p in self._frozen if processes and p not in processes]

    def freeze_node(self, node):
        """All of a node, PostgreSQL too: what a partition looks like to the others."""
        order = self._node_processes(node) + self.all_processes(node)
        self.freeze(*dict.fromkeys(order))

    @contextlib.contextmanager
    def frozen(self, *processes):
        self.freeze(*processes)
        try:
            yield
        finally:
            self.thaw(*processes)

    @contextlib.contextmanager
    def replication_stalled(self, node):
        """The leader's WAL reaches nobody: its walsenders stand still. Commits wait."""
        senders = self.backends(node, "walsender")
        assert senders, f"{node} has no walsender"
        with self.frozen(*senders):
            yield senders

    def empty_ledger(self):
        """So that tests that share a cluster do not pay for each other's rows."""
        self.execute("TRUNCATE ledger")
        self.ledger.forget_acked()

    # ---- checks -----------------------------------------------------------------------------

    def ledger_counts(self, node=None):
        """How often each row of the ledger is there: through the router, or inside a node."""
        sql = "SELECT n, count(*) FROM ledger GROUP BY n"
        return dict(self.super(node, sql) if node else self.execute(sql))

    def wait_replayed(self, node, lsn, timeout=20):
        wait_until(
            f"{node} has replayed {lsn}",
            lambda: self.super(node, "SELECT NOT pg_is_in_recovery() OR"
                                     " pg_last_wal_replay_lsn() >= %s::pg_lsn", (lsn,))[0][0],
            timeout,
        )

    def timeline(self, leader):
        """That is written; the newest checkpoint's lags behind it."""
        return int(self.super(leader, "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)")[0][0], 16)

    def lsn(self, node):
        return self.super(
            node,
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()"
            " ELSE pg_current_wal_flush_lsn() END",
        )[0][0]

    def checksums(self, node):
        """{table: (rows, md5 of all rows in order)} of every table of every database."""
        found = {}
        databases = self.super(node, "SELECT datname FROM pg_database WHERE datallowconn")
        for (database,) in databases:
            tables = self.super(
                node,
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm')"
                " AND (n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
                "      OR c.relname IN ('pg_class', 'pg_attribute', 'pg_proc', 'pg_authid'))",
                dbname=database,
            )
            for (table,) in tables:
                found[f"{database}.{table}"] = self.super(
                    node,
                    f"SELECT count(*), md5(string_agg(h, '' ORDER BY h)) FROM"
                    f" (SELECT md5(t::text) AS h FROM {table} t) x",
                    dbname=database,
                )[0]
        return found

    def verify(self, checksums=True):
        """Every acknowledged row exactly once, through the gate and inside every node; every table
        of every node the same."""
        self.wait_healthy()
        self.verify_no_crash()
        self.ledger.check(self.ledger_counts())
        leader = self.leader()
        lsn = self.lsn(leader)
        for node in self.names():
            self.wait_replayed(node, lsn)
            self.ledger.check(self.ledger_counts(node))
        if checksums:
            self.verify_same()

    def verify_no_crash(self):
        for path in glob.glob(os.path.join(self.dir, "*", "log", "node.log")):
            no_crash_in(path)

    def verify_same(self):
        # Clients may just have ended: compare until one round sees no write in between. Holdfast's own
        # heartbeat never pauses, so it is left out.
        def same():
            sums = {n: self.checksums(n) for n in self.names()}
            first = sums[self.names()[0]]
            self._differ = [
                (n, t) for n, s in sums.items() for t in set(s) | set(first)
                if s.get(t) != first.get(t) and not t.endswith("holdfast.heartbeat")
            ]
            return not self._differ

        try:
            wait_until("all nodes hold the same data", same, 10)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self._differ[:10]}") from None

    def log_text(self, node, what="node.log"):
        try:
            with open(self.path(node, "log", what), encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def log_mark(self, node, what="node.log"):
        """A place in a log; log_since() reads on from there."""
        return node, what, len(self.log_text(node, what))

    def log_since(self, mark):
        node, what, at = mark
        return self.log_text(node, what)[at:]

    def wait_log(self, mark, pattern, timeout=20.0, poll=0.02):
        found = wait_until(
            f"{mark[0]} logs /{pattern}/",
            lambda: re.search(pattern, self.log_since(mark), re.I), timeout, poll,
        )
        return found

    # ---- the end ----------------------------------------------------------------------------

    def dump(self):
        """Everything one would ask for after a failure."""
        out = [f"===== cluster in {self.dir}, port {self.port}"]
        for verb in (["status"], ["history"]):
            try:
                done = self.run(*verb, check=False, timeout=10)
                out.append(f"--- holdfast {verb[0]}\n{done.stdout}{done.stderr}")
            except (OSError, subprocess.SubprocessError) as e:
                out.append(f"--- holdfast {verb[0]}: {e}")
        out.append("--- processes")
        out += [f"{p.state} {p.pid} (parent {p.ppid}) {p.args[:150]}" for p in procs.under(self.dir)]
        found = sorted(
            os.path.join(d, f) for d, _, files in os.walk(self.dir) for f in files
            if f.endswith(".log") and "/data/" not in d
        )
        for path in found:
            with open(path, encoding="utf-8", errors="replace") as f:
                lines = f.read().splitlines()[-60:]
            out.append(f"--- {os.path.relpath(path, self.dir)}")
            out += [line[:400] for line in lines]
        return "\n".join(out)

    def destroy(self):
        try:
            self.verify_no_crash()
        finally:
            self._destroy()

    def _destroy(self):
        self.thaw()
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.run("down", check=False, timeout=20)
        self.kill_everything()
        if os.environ.get("HOLDFAST_TEST_KEEP") is None:
            shutil.rmtree(self.home, ignore_errors=True)
        self.ports.close()
        if self in LIVE:
            LIVE.remove(self)


def no_crash_in(path):
    """Tests kill by KILL, STOP and TERM. A node that died by anything else crashed, however well the
    cluster took it."""
    with open(path, encoding="utf-8", errors="replace") as f:
        found = re.search(r".*killed by signal (4|6|7|8|11)\b.*", f.read())
    assert not found, f"{path}: {found.group(0)}"


def database_user():
    """The user that PostgreSQL runs as: postgres when the tests run as root."""
    return "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def chown_like_product(path):
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")
