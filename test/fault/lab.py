"""The fault laboratory: a Holdfast cluster whose nodes are hosts of their own (network namespaces, a volume
each, names as on Kubernetes), started again by a keeper when they end, as a kubelet would."""

import contextlib
import fcntl
import glob
import http.client
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time

import psycopg2

import check_copies
import direct
import harness
import net
import procs
from suite import LIVE

BUILD = os.path.dirname(harness.BINARY)
MUTATED = os.path.join(BUILD, "test", "fault", "holdfast-mutated")
TROUBLE = os.path.join(BUILD, "test", "fault", "libfault-trouble.so")
CLIENTS = "clients"
RESTART_S = 0.5
# A client that hears nothing for this long gives its connection up. (libpq counts whole seconds.)
DEAF_MS = 4000
# Of each database and role through each node, with pool="auto": fewer than a run's load has sessions there (campaign.Load), so that
# they change hands.
POOL_CONNECTIONS = 2
EXT4_IOC_SHUTDOWN, EXT4_NOLOGFLUSH = 0x8004587D, 2  # fs/ext4/ext4.h


class Trouble:
    """The page that the preloaded library (trouble.c) reads."""

    FIELDS = ("clock_offset_ns", "flush_delay_us", "flush_fails")

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(8 * len(self.FIELDS)))
        os.chmod(path, 0o644)
        with open(path, "r+b") as f:
            self._page = mmap.mmap(f.fileno(), 8 * len(self.FIELDS))

    def set(self, **values):
        for key, value in values.items():
            struct.pack_into("=q", self._page, 8 * self.FIELDS.index(key), int(value))

    def clear(self):
        self.set(**dict.fromkeys(self.FIELDS, 0))


class Lab(direct.DirectCluster):
    def __init__(self, replicas=3, seed=0, lease_ms=1000, volume_mb=900, mutation=None, binary=None,
                 keep=True, pool=None, founders=0):
        """`founders`: 0: all nodes, which are told of each other; else so many pods have founded a StatefulSet that was scaled then: the
        others are known by their names alone."""
        if os.geteuid() != 0:
            raise RuntimeError("the fault laboratory makes network namespaces and mounts volumes: run it as root")
        super().__init__(replicas, lease_ms, MUTATED if mutation else binary)
        self.options += ["--log-level", "debug", "--wal-keep-mb", "128",
                         "-c", "max_wal_size=128MB", "-c", "min_wal_size=64MB"]
        if pool is not None:
            self.options += ["--pool", pool]
        if pool == "auto":
            self.options += ["--max-server-connections", str(POOL_CONNECTIONS)]
        self.volume_mb = volume_mb
        self.mutation = mutation
        self.begun = time.time()
        self.net = None
        self._outside = None   # where this thread came from
        self.events = []       # (wall clock, host or "", text): what was done to the cluster
        self.deaths = []       # (node, CLOCK_BOOTTIME ns before the kill, after it)
        self.ends = []         # (wall clock, node, exit status) of those that the keeper started again
        self.down = set()      # nodes that the keeper leaves alone: take_away(), return_host()
        self._hands = threading.Lock()  # one at a time starts a node, or says that nobody is to
        self.away = set()      # of those that are down: nobody has a place for them
        self.founders = founders
        self.load = None       # its clients, once there are any
        self._keeper = None
        self._keeping = threading.Event()
        try:
            os.makedirs(self.dir)
            # Each node has a view of the mounts of its own, because of its names: what is unmounted here must
            # be gone there too.
            subprocess.run(["mount", "--bind", self.dir, self.dir], check=True)
            subprocess.run(["mount", "--make-shared", self.dir], check=True)
            for node in self.names():
                self._mount(node)
            self.make_directories()
            self.trouble = {n: Trouble(os.path.join(self.home, f"trouble-{n}")) for n in self.names()}
            shutil.copy(TROUBLE, os.path.join(self.home, "trouble.so"))
            for node in self.names():
                self._make_bindir(node)
            self.net = net.Network([*self.names(), CLIENTS], seed)
            self._outside = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
            # Everything this thread starts from here on is on the clients' host.
            net.enter(self.net.namespace_path(CLIENTS))
            if keep:
                self._keeper = threading.Thread(target=self._keep, daemon=True)
        except BaseException:
            self.destroy()
            raise
        self.begin(60)
        if self._keeper:
            self._keeper.start()

    # ---- places -----------------------------------------------------------------------------

    def log_path(self, node):
        return os.path.join(self.home, "logs", f"{node}.log")

    def tls_path(self, node):
        return os.path.join(self.home, "tls", node)

    def log_text(self, node, what="node.log"):
        if what != "node.log":
            return super().log_text(node, what)
        with open(self.log_path(node), encoding="utf-8", errors="replace") as f:
            return f.read()

    def _mount(self, node):
        """A volume of its own, so that it can be full, and lost."""
        image = os.path.join(self.home, f"{node}.img")
        with open(image, "wb") as f:
            f.truncate(self.volume_mb << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1", image],
                       check=True, capture_output=True)
        os.makedirs(self.path(node), exist_ok=True)
        self._attach(node)
        os.rmdir(self.path(node, "lost+found"))
        harness.chown_like_product(self.path(node))

    def _attach(self, node):
        image = os.path.join(self.home, f"{node}.img")
        # Another laboratory may take the free loop device that mount has just found.
        harness.wait_until(f"{image} is mounted", lambda: subprocess.run(
            ["mount", "-o", "loop", image, self.path(node)], check=False, capture_output=True).returncode == 0, 20)

    def _unmount(self, node):
        path, image = self.path(node), os.path.join(self.home, f"{node}.img")
        # A process that was killed may hold its directory for a moment longer.
        harness.wait_until(f"{path} can be unmounted", lambda: not os.path.ismount(path) or (
            subprocess.run(["umount", path], check=False, capture_output=True).returncode == 0), 20)
        # And its view of the mounts: as long as there is one, the next mount would find this file system again, as it was.
        harness.wait_until(f"{image} is let go of", lambda: not subprocess.run(
            ["losetup", "-j", image], check=False, capture_output=True).stdout, 20)

    # ---- how nodes are started --------------------------------------------------------------

    def _preload(self, node):
        return [f"LD_PRELOAD={os.path.join(self.home, 'trouble.so')}", f"HOLDFAST_TROUBLE={self.trouble[node].path}"]

    def _make_bindir(self, node):
        """PostgreSQL's programs. Holdfast gives `postgres` an environment of its own, so what is preloaded is said
        in its place."""
        real = os.path.dirname(check_copies.tool("postgres"))
        where = os.path.join(self.home, f"bin-{node}")
        os.makedirs(where)
        for name in os.listdir(real):
            if name != "postgres":
                os.symlink(os.path.join(real, name), os.path.join(where, name))
        with open(os.path.join(where, "postgres"), "w", encoding="ascii") as f:
            f.write(f'#!/bin/sh\nexec env {" ".join(self._preload(node))} {real}/postgres "$@"\n')
        os.chmod(os.path.join(where, "postgres"), 0o755)

    def prefix(self, node):
        words = ["ip", "netns", "exec", self.net.namespace(node), "env", *self._preload(node)]
        return words + ([f"HOLDFAST_MUTATION={self.mutation}"] if self.mutation else [])

    def expect(self):
        return self.founders or self.replicas

    def seeds(self):
        return {} if self.founders else {n: f"{self.net.name(n)}:7000" for n in self.names()}

    def addresses(self, node):
        words = ["--listen", "0.0.0.0", "--sql-port", "5432", "--read-only-port", "5433",
                 "--peer-port", "7000", "--http-port", "8080",
                 "--pg-bindir", os.path.join(self.home, f"bin-{node}"), "--advertise-sql", f"{self.net.name(node)}:5432"]
        if self.founders:
            words += ["--service", "demo", "--namespace", "default", "--cluster-domain", "cluster.local", "--stop-delay-ms", "0"]
        return words

    def _keep(self):
        while not self._keeping.wait(0.05):
            for node in self.names():
                running = self._running.get(node)
                if node in self.down or running is None or running.poll() is None:
                    continue
                if self._keeping.wait(RESTART_S):
                    continue
                with self._hands:
                    self._start_again(node, running)

    def _start_again(self, node, ended):
        if node in self.down or self._running.get(node) is not ended:
            return
        self._end_all(self.all_processes(node))  # a container ends with its first process
        self.ends.append((time.time(), node, ended.returncode))
        self.note(node, f"started again (it had ended with {ended.returncode})")
        with contextlib.suppress(OSError):
            self.start(node)

    def take_away(self, *nodes):
        """Nobody starts them before return_host()."""
        with self._hands:
            self.down.update(nodes)

    @staticmethod
    def _end_all(processes):
        for p in processes:
            p.send(signal.SIGKILL)
        harness.wait_until("killed processes are gone",
                           lambda: not any(p.alive() for p in processes), 10, 0.01)

    # ---- faults that are about hosts --------------------------------------------------------

    def note(self, where, text):
        self.events.append((time.time(), where, text))

    def kill(self, node, *processes):
        """SIGKILL, with the times around it: a gate of this node ends in between."""
        begun = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for p in processes:
            p.send(signal.SIGKILL)
        harness.wait_until("killed processes are gone",
                           lambda: not any(p.alive() for p in processes), 10, 0.002)
        self.deaths.append((node, begun, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))

    def kill_host(self, node):
        """The whole host at once, silently: not a packet tells of it."""
        self.take_away(node)
        self.net.set(node, "*", cut=1)
        self.net.set("*", node, cut=1)
        found = self.all_processes(node)
        for p in found:
            p.send(signal.SIGSTOP)
        self.kill(node, *found)
        self.thaw()
        self.cut_power(node)

    def cut_power(self, node):
        """Nobody runs there any more. What nobody has flushed is gone with the host: the file system stops as it is, and is mounted anew. The
        logs on it are ours, as evidence, and stay."""
        path, logs = self.path(node), {}
        for log in glob.glob(self.path(node, "log", "*")):
            with open(log, "rb") as f:
                logs[log] = f.read()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("=I", EXT4_NOLOGFLUSH))
        finally:
            os.close(fd)
        self._unmount(node)
        self._attach(node)
        for log, text in logs.items():
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "wb") as f:
                f.write(text)
            harness.chown_like_product(os.path.dirname(log))
            harness.chown_like_product(log)

    def take_out(self, node, asked, wait_s=5.0):
        """As `kubectl scale` down: the pod ends and its name is gone; its volume is kept. `asked`: its cluster lets it go before, as
        `holdfast scale` in a pod has it do; else it stays a member that is dead. Returns whether it is none any more."""
        until, left = time.monotonic() + wait_s, False
        while asked and not left and time.monotonic() < until:
            leader = self.open_leader(self.status())
            members = (self.ask(leader) or {}).get("members") if leader else None
            left = members is not None and node not in [m["name"] for m in members]
            if members is not None and not left:
                self.ask(leader, "remove", name=node)  # who leads hands over first, and is asked again
                time.sleep(0.2)
        self.away.add(node)
        self.take_away(node)
        sentinel = self.sentinel(node)
        if sentinel is not None:
            sentinel.send(signal.SIGTERM)
        with contextlib.suppress(AssertionError):  # its grace is over
            harness.wait_until(f"{node} has ended", lambda: not self.all_processes(node), 3)
        self.kill(node, *self.all_processes(node))
        self.net.known(node, False)
        return left

    def return_host(self, node):
        """Its wires are whole again, it has its name, and its pod starts."""
        self.net.set(node, "*", cut=0)
        self.net.set("*", node, cut=0)
        if node in self.away:
            self.net.known(node, True)
        self.away.discard(node)
        with self._hands:
            self.down.discard(node)
            self.start(node)

    def stop_host(self, node):
        """As kill_host, but with FINs: the pod's processes are killed, the host lives."""
        self.take_away(node)
        self.kill(node, *self.all_processes(node))

    def lose_volume(self, node):
        """The pod and its volume are gone; return_host() starts it with an empty one."""
        self.kill_host(node)
        self._unmount(node)
        self._mount(node)

    def fill_disk(self, node):
        path = self.path(node, "ballast")
        free = os.statvfs(self.path(node))
        with open(path, "wb") as f:
            for size in (free.f_bavail * free.f_frsize, 1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while size:
                        os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, size)

    def empty_disk(self, node):
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.path(node, "ballast"))
            self._flush(self.path(node))  # else a host that vanishes next has it again

    @staticmethod
    def _flush(directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def calm(self):
        """All faults end; whoever is down starts."""
        self.thaw()
        self.net.heal()
        for node in self.names():
            self.trouble[node].clear()
            self.empty_disk(node)
            if node in self.down:
                self.return_host(node)

    def heal(self, timeout=40.0):
        self.calm()
        super().heal(timeout)

    # ---- SQL --------------------------------------------------------------------------------

    def connect(self, node=None, read_only=False, timeout=10, autocommit=True, **more):
        nodes = [node] if node else self.names()
        user, password, database = self.login()
        args = {
            "host": ",".join(self.net.name(n) for n in nodes),
            "hostaddr": ",".join(self.net.address(n) for n in nodes),
            "port": "5433" if read_only else "5432", "user": user, "password": password,
            "dbname": database, "connect_timeout": str(timeout), "application_name": "fault-lab",
            "tcp_user_timeout": str(DEAF_MS), "keepalives_idle": "2", "keepalives_interval": "1",
            "keepalives_count": "2",
        }
        args.update(more)
        conn = psycopg2.connect(**args)
        conn.autocommit = autocommit
        return conn

    def taken_over(self):
        """How often a session went on with a server connection that another had before, as far as the nodes that run now know."""
        total = 0
        for node in self.names():
            with contextlib.suppress(OSError, http.client.HTTPException):
                conn = http.client.HTTPConnection(self.net.address(node), 8080, timeout=5)
                conn.request("GET", "/metrics")
                found = re.search(r"^holdfast_pool_taken_total (\d+)", conn.getresponse().read().decode(), re.M)
                total += int(found[1]) if found else 0
        return total

    # ---- the end ----------------------------------------------------------------------------

    def verify_no_crash(self):
        for node in self.names():
            if os.path.exists(self.log_path(node)):
                harness.no_crash_in(self.log_path(node))
            log = self.log_text(node, "postgresql.log")
            found = re.search(r".*terminated by signal (4|6|7|8|11)\b.*", log)
            # PostgreSQL aborts by itself when its disk says no.
            assert not found or (found[1] == "6" and "PANIC:" in log), f"{node}: {found[0]}"

    def dump(self):
        out = [f"===== laboratory in {self.dir}, seed and faults:"]
        out += [f"{t - self.begun:8.2f} {where:8} {text}" for t, where, text in self.events]
        out += [f"--- processes\n" + "\n".join(
            f"{p.state} {p.pid} (parent {p.ppid}) {p.args[:150]}" for p in procs.under(self.dir))]
        for node in self.names():
            for what in ("node.log", "postgresql.log"):
                with contextlib.suppress(OSError):
                    lines = [line for line in self.log_text(node, what).splitlines() if " DEBUG " not in line]
                    out.append(f"--- {node}: {what}\n" + "\n".join(line[:300] for line in lines[-60:]))
        return "\n".join(out)

    def stop_keeper(self):
        self._keeping.set()
        if self._keeper is not None and self._keeper.ident is not None:
            self._keeper.join(30)

    def _destroy(self):
        self.stop_keeper()
        self.take_away(*self.names())
        try:
            self.thaw()
            self.kill_everything()
        finally:
            for node in self.names():
                self._unmount(node)
            if os.path.isdir(self.dir):
                subprocess.run(["umount", self.dir], check=False, capture_output=True)
            if self._outside is not None:
                net.enter(f"/proc/self/fd/{self._outside}")
                os.close(self._outside)
            if self.net is not None:
                self.net.close()
            if os.environ.get("HOLDFAST_TEST_KEEP") is None:
                shutil.rmtree(self.home, ignore_errors=True)
            self.ports.close()
            if self in LIVE:
                LIVE.remove(self)
