"""A cluster whose nodes are `holdfast node` processes started by the test itself, without `up` and without
--local: nothing but a released lease or a death token lets a lease off (SAFETY S6). What the nodes say of
themselves is asked over their admin sockets."""

import json
import os
import signal
import socket
import subprocess

import certificates
import harness

PASSWORD = "correct horse"


class DirectCluster(harness.Cluster):
    """No runtime: a node that ends stays down until start(). Says nothing about addresses: see seeds() and
    addresses()."""

    def __init__(self, replicas=3, lease_ms=500, binary=None):
        self.lease_ms = lease_ms
        self.binary = binary or harness.BINARY
        self._running = {}
        super().__init__(replicas, start=False)
        self._login = ("app", PASSWORD, "app")

    # ---- what a kind of cluster says --------------------------------------------------------

    def seeds(self):
        """{name: host:port} of all peer ports."""
        raise NotImplementedError

    def addresses(self, node):
        """Arguments that say where `node` listens."""
        raise NotImplementedError

    def expect(self):
        """How many nodes found the cluster together."""
        return self.replicas

    def prefix(self, _node):
        """What stands before the node's command line."""
        return []

    def environment(self, _node):
        return None

    def log_path(self, node):
        return self.path(node, "log", "node.log")

    def tls_path(self, node):
        return self.path(node, "tls")

    # ---- directories ------------------------------------------------------------------------

    def make_directories(self):
        ca = os.path.join(self.home, "ca")
        certificates.new_ca(ca)
        for node in self.names():
            made = os.path.join(self.home, "made-" + node)
            certificates.new_certificate(made, node, os.path.join(ca, "ca.crt"),
                                         os.path.join(ca, "ca.key"))
            os.makedirs(self.path(node), exist_ok=True)
            os.makedirs(self.tls_path(node))
            os.makedirs(os.path.dirname(self.log_path(node)), exist_ok=True)
            for source, name in ((made, "node.crt"), (made, "node.key"), (ca, "ca.crt")):
                with open(os.path.join(source, name), "rb") as f:
                    data = f.read()
                with open(os.path.join(self.tls_path(node), name), "wb") as f:
                    os.fchmod(f.fileno(), 0o600)
                    f.write(data)
            self.chown(self.tls_path(node))
        with open(os.path.join(self.dir, "credentials.json"), "w", encoding="ascii") as f:
            json.dump({"app_password": PASSWORD}, f)
        self.chown(self.dir)

    @staticmethod
    def chown(top):
        for where, dirs, files in os.walk(top):
            for entry in (where, *(os.path.join(where, e) for e in dirs + files)):
                harness.chown_like_product(entry)

    # ---- processes --------------------------------------------------------------------------

    def command(self, node):
        args = [*self.prefix(node), self.binary, "node", "--name", node, "--dir", self.path(node),
                "--expect", str(self.expect()), *self.addresses(node), "--lease-ms",
                str(self.lease_ms), "--allow-ephemeral", "--tls-dir", self.tls_path(node),
                "--credentials", os.path.join(self.dir, "credentials.json"), *self.options]
        for name, address in self.seeds().items():
            args += ["--seed", f"{name}={address}"]
        return args

    def start(self, node):
        if node in self._running and self._running[node].poll() is None:
            return
        with open(self.log_path(node), "ab") as log:
            self._running[node] = subprocess.Popen(
                self.command(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.path(node), env=self.environment(node), start_new_session=True)

    def up(self, check=True, timeout=60, env=None):
        for node in self.names():
            self.start(node)

    def begin(self, timeout=40):
        """Starts all, waits until the cluster is whole, makes the ledger."""
        try:
            self.up()
            self.wait_healthy(timeout)
            harness.wait_until("the application can log in", lambda: self.execute("SELECT 1"), 10)
            self.execute("CREATE TABLE ledger (n bigint NOT NULL); CREATE INDEX ON ledger (n)")
        except BaseException:
            print(self.dump())
            self.destroy()
            raise

    def run(self, *args, check=True, timeout=60, env=None):
        """The verbs that need a runtime, done by hand."""
        if args[0] == "start":
            return self.start(args[1])
        if args[0] == "kill":
            return self.kill_group(args[1])
        if args[0] == "down":
            return [p.send(signal.SIGTERM) for p in filter(None, map(self.sentinel, self.names()))]
        return super().run(*args, check=check, timeout=timeout, env=env)

    # ---- what nodes say ---------------------------------------------------------------------

    def ask(self, node, op="status", timeout=2, **more):
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(timeout)
                s.connect(self.path(node, "admin.sock"))
                s.sendall(json.dumps({"op": op, **more}).encode() + b"\n")
                return json.loads(s.makefile().readline())
        except (OSError, ValueError):
            return None

    def status(self):
        nodes, leader = [], None
        for name in self.names():
            s = self.ask(name) or {}
            nodes.append({"name": name, "reachable": bool(s), "role": s.get("role", "none"),
                          "state": s.get("state", "starting"), "voter": s.get("voter", False),
                          "epoch": s.get("epoch", 0)})
            if nodes[-1]["role"] == "leader" and nodes[-1]["state"] == "open":
                leader = name
        return {"cluster": self.name, "epoch": max(n["epoch"] for n in nodes), "leader": leader,
                "nodes": nodes}

    def open_gates(self):
        """Names of all nodes that say that their gate is open; each is asked for itself."""
        return [n["name"] for n in self.status()["nodes"] if n["state"] == "open"]

    def destroy(self):
        super().destroy()
        for p in self._running.values():
            p.wait(10)
