"""Patroni, etcd and HAProxy from Debian on the fault laboratory's hosts: three nodes, each with an etcd member of its
own, and HAProxy on the clients' host, as Patroni's manual sets them up. Synchronous mode is on."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.request

import psycopg2

import harness
import net
import procs
from lab import CLIENTS, RESTART_S

# "fast": the least that Patroni 3.0 accepts, and checks by HAProxy twice a second.
TUNING = {
    "default": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "more": {}, "check": "inter 3s fall 3 rise 2"},
    "fast": {"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "more": {"primary_start_timeout": 0},
             "check": "inter 500ms fall 1 rise 1"},
}


class Patroni:
    """What bench/compare-patroni asks of a cluster: see Holdfast there."""

    def __init__(self, tuning, replicas=3):
        self.tuning = TUNING[tuning]
        self.nodes = [f"demo-{i}" for i in range(replicas)]
        self.home = tempfile.mkdtemp(prefix="hft-patroni-")
        os.chmod(self.home, 0o755)
        self.outside = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        self._running = {}
        self._down = set()
        self.helped = 0
        self._over = threading.Event()
        self.net = None
        try:
            self.net = net.Network([*self.nodes, CLIENTS], 1)
            net.enter(self.net.namespace_path(CLIENTS))
            for node in self.nodes:
                self._configure(node)
            for node in self.nodes:
                self._start_etcd(node)
            for node in self.nodes:
                self._start(node)
            self._start_haproxy()
            self.wait_healthy(120)
            self._make_table()
        except BaseException:
            self.destroy()
            raise
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    # ---- configuration and processes --------------------------------------------------------

    def path(self, node, *parts):
        return os.path.join(self.home, node, *parts)

    def _configure(self, node):
        for part in ("etcd", "pod"):
            os.makedirs(self.path(node, part))
            harness.chown_like_product(self.path(node, part))
        harness.chown_like_product(self.path(node))
        address, t = self.net.address(node), self.tuning
        bindir = os.path.dirname(sorted(
            (os.path.join("/usr/lib/postgresql", v, "bin", "postgres") for v in os.listdir("/usr/lib/postgresql")),
            key=lambda p: int(p.split("/")[4]))[-1])
        settings = {
            "scope": "bench", "name": node,
            "restapi": {"listen": "0.0.0.0:8008", "connect_address": f"{address}:8008"},
            "etcd3": {"hosts": [f"{self.net.address(n)}:2379" for n in self.nodes]},
            "bootstrap": {
                "dcs": {"ttl": t["ttl"], "loop_wait": t["loop_wait"], "retry_timeout": t["retry_timeout"],
                        "maximum_lag_on_failover": 1048576, "synchronous_mode": True, **t["more"],
                        "postgresql": {"use_pg_rewind": True}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["host replication repl 10.77.0.0/24 md5", "host all all 10.77.0.0/24 md5"]},
            "postgresql": {
                "listen": "0.0.0.0:5432", "connect_address": f"{address}:5432", "data_dir": self.path(node, "pod", "data"),
                "bin_dir": bindir, "pgpass": self.path(node, "pod", "pgpass"),
                "parameters": {"unix_socket_directories": self.path(node, "pod")},
                "authentication": {
                    "superuser": {"username": "postgres", "password": "bench"},
                    "replication": {"username": "repl", "password": "bench"},
                    "rewind": {"username": "rewind", "password": "bench"}}},
        }
        with open(self.path(node, "patroni.yml"), "w", encoding="ascii") as f:
            json.dump(settings, f)  # JSON is YAML
        harness.chown_like_product(self.path(node, "patroni.yml"))

    def _spawn(self, host, key, args, cwd, as_root=False):
        command = ["ip", "netns", "exec", self.net.namespace(host)]
        if not as_root:
            command += ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
        with open(os.path.join(self.home, f"{host}-{key}.log"), "ab") as log:
            self._running[host, key] = subprocess.Popen(
                [*command, *args], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, start_new_session=True)

    def _start_etcd(self, node):
        address = self.net.address(node)
        members = ",".join(f"{n}=http://{self.net.address(n)}:2380" for n in self.nodes)
        fresh = not os.path.exists(self.path(node, "etcd", "data"))
        self._spawn(node, "etcd", [
            "etcd", "--name", node, "--data-dir", self.path(node, "etcd", "data"),
            "--listen-peer-urls", "http://0.0.0.0:2380", "--initial-advertise-peer-urls", f"http://{address}:2380",
            "--listen-client-urls", "http://0.0.0.0:2379", "--advertise-client-urls", f"http://{address}:2379",
            "--initial-cluster", members, "--initial-cluster-state", "new" if fresh else "existing"],
            self.path(node, "etcd"))

    def _start(self, node):
        self._spawn(node, "patroni", ["patroni", self.path(node, "patroni.yml")], self.path(node, "pod"))

    def _start_haproxy(self):
        servers = "".join(f"    server {n} {self.net.address(n)}:5432 maxconn 100 check port 8008\n" for n in self.nodes)
        path = os.path.join(self.home, "haproxy.cfg")
        with open(path, "w", encoding="ascii") as f:
            f.write("global\n    maxconn 100\ndefaults\n    mode tcp\n    retries 2\n    timeout client 30m\n"
                    "    timeout connect 4s\n    timeout server 30m\n    timeout check 5s\n"
                    "listen bench\n    bind *:5000\n    option httpchk OPTIONS /primary\n"
                    "    http-check expect status 200\n"
                    f"    default-server {self.tuning['check']} on-marked-down shutdown-sessions\n{servers}")
        self._spawn(CLIENTS, "haproxy", ["haproxy", "-db", "-f", path], self.home)

    def _keep(self):
        while not self._over.wait(0.05):
            for node in self.nodes:
                running = self._running[node, "patroni"]
                if node in self._down or running.poll() is None or self._over.wait(RESTART_S) or node in self._down:
                    continue
                self._kill(procs.under(self.path(node, "pod")))
                self._start(node)

    @staticmethod
    def _kill(processes):
        for p in processes:
            p.send(signal.SIGKILL)
        harness.wait_until("killed processes are gone", lambda: not any(p.alive() for p in processes), 10, 0.01)

    # ---- what the comparison asks -----------------------------------------------------------

    def _rest(self, node, path):
        with urllib.request.urlopen(f"http://{self.net.address(node)}:8008{path}", timeout=2) as answer:
            return json.load(answer)

    def leader(self):
        for node in self.nodes:
            with contextlib.suppress(OSError, ValueError):
                self._rest(node, "/primary")
                return node
        return None

    def healthy(self):
        leader = self.leader()
        if leader is None:
            return False
        with contextlib.suppress(OSError, ValueError, KeyError):
            members = self._rest(leader, "/cluster")["members"]
            roles = sorted(m["role"] for m in members if m["state"] in ("running", "streaming"))
            return roles == ["leader", "replica", "sync_standby"] and all(
                m.get("lag", 0) == 0 or m["role"] == "replica" for m in members if m["role"] != "leader")
        return False

    def wait_healthy(self, timeout=60):
        what = "a leader, a synchronous standby and a replica"
        try:
            harness.wait_until(what, self.healthy, timeout, 0.2)
        except AssertionError:
            self.helped += self._reinitialize()
            harness.wait_until(what, self.healthy, 240, 0.2)

    def _reinitialize(self):
        """What a person does (patronictl reinit) when a member does not find its way back. How many there were."""
        lost = 0
        for member in self._rest(self.leader(), "/cluster")["members"]:
            if member["role"] == "leader" or member["state"] in ("running", "streaming"):
                continue
            lost += 1
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(
                    f"http://{self.net.address(member['name'])}:8008/reinitialize", b'{"force": true}'), timeout=2).close()
        return lost

    def connect(self, _avoid):
        """HAProxy stands beside the clients and survives everything."""
        conn = psycopg2.connect(host="127.0.0.1", port=5000, user="postgres", password="bench", dbname="postgres",
                                connect_timeout=5, sslmode="disable")
        conn.autocommit = True
        return conn

    def _make_table(self):
        def make():
            with self.connect(None).cursor() as cur:
                cur.execute("CREATE TABLE IF NOT EXISTS bench (n bigint)")
                return True

        harness.wait_until("HAProxy knows the leader", make, 60, 0.2)

    def postmaster(self, node):
        return next((p for p in procs.under(self.path(node, "pod"))
                     if re.match(r"\S*/postgres -D", p.args)), None)

    def kill_main(self, node):
        self._kill([procs.Proc(self._running[node, "patroni"].pid)])

    def kill_postgres(self, node):
        self._kill([self.postmaster(node)])

    def terminate(self, node):
        procs.Proc(self._running[node, "patroni"].pid).send(signal.SIGTERM)

    def vanish(self, node):
        self._down.add(node)
        self.net.set(node, "*", cut=1)
        self.net.set("*", node, cut=1)
        self._kill(procs.under(self.path(node)))

    def part(self, node):
        self.net.part([node], [n for n in self.nodes if n != node])

    def heal(self):
        self.net.heal()
        for node in list(self._down):
            self._start_etcd(node)
            self._start(node)
            self._down.discard(node)

    def destroy(self):
        self._over.set()
        self._down |= set(self.nodes)
        if hasattr(self, "_keeper"):
            self._keeper.join(30)
        self._kill(procs.under(self.home))
        for p in self._running.values():
            p.wait(10)
        net.enter(f"/proc/self/fd/{self.outside}")
        os.close(self.outside)
        if self.net is not None:
            self.net.close()
        if os.environ.get("HOLDFAST_TEST_KEEP") is None:
            shutil.rmtree(self.home, ignore_errors=True)
