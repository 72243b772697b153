"""A cluster whose nodes reach each other only through wires that a test can cut.

The nodes are `holdfast node` processes without `up`, told that every peer port is at a proxy of this
test. The proxy finds out who dialed by the owner of the connection's other end, so that any pair of
nodes can be parted while every node stays alive, reachable for clients, and sure of itself."""

import os
import socket
import threading
import time

import direct


class Wires:
    """One listening port for each node; connections are carried on unless their pair is cut."""

    def __init__(self, names, ports, target_of, pids_of):
        self._names = names
        self._target_of = target_of
        self._pids_of = pids_of
        self._lock = threading.Lock()
        self._cut = set()     # (a, b): bytes between a and b wait, in both directions
        self._broken = set()  # (a, b): connections are reset and refused
        self._deaf = {}       # (a, b): the one of them whose connections stand, and hear nothing of that
        self._live = []       # (pair, {node: socket to it})
        self._listeners = []
        self._closed = False
        self.port = {}
        for name, port in zip(names, ports):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            s.listen(64)
            self.port[name] = port
            self._listeners.append(s)
            threading.Thread(target=self._accept, args=(name, s), daemon=True).start()

    # ---- what tests do ----

    @staticmethod
    def _pair(a, b):
        return tuple(sorted((a, b)))

    def part(self, side, other=None):
        """Nothing passes any more between the nodes of `side` and the rest (or `other`)."""
        other = other or [n for n in self._names if n not in side]
        with self._lock:
            self._cut |= {self._pair(a, b) for a in side for b in other}

    def reset(self, side, other=None):
        """Connections between the sides get RST, now and whenever they are tried."""
        other = other or [n for n in self._names if n not in side]
        with self._lock:
            pairs = {self._pair(a, b) for a in side for b in other}
            self._broken |= pairs
            hit = [c for c in self._live if c[0] in pairs]
        for _, ends in hit:
            for s in ends.values():
                self._abort(s)

    def refuse(self, node):
        """The others get RST from `node`, now and whenever they try, and `node` hears nothing of it: what it says is lost."""
        with self._lock:
            pairs = {self._pair(node, n) for n in self._names if n != node}
            self._broken |= pairs
            self._deaf.update(dict.fromkeys(pairs, node))
            hit = [c for c in self._live if c[0] in pairs]
        for _, ends in hit:
            for name, s in ends.items():
                if name != node:
                    self._abort(s)

    def join(self):
        """All wires whole; what was held back arrives late."""
        with self._lock:
            self._cut.clear()
            self._broken.clear()
            self._deaf.clear()

    def close(self):
        self._closed = True
        self.join()
        for s in self._listeners:
            s.close()
        for _, ends in list(self._live):
            for s in ends.values():
                self._abort(s)

    # ---- what threads do ----

    @staticmethod
    def _abort(s):
        try:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        s.close()

    def _accept(self, name, listener):
        while not self._closed:
            try:
                s, peer = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(name, s, peer[1]), daemon=True).start()

    def _dialer(self, port):
        """Name of the node that owns the local TCP port, or None."""
        with open("/proc/net/tcp", encoding="ascii") as f:
            inode = next((line.split()[9] for line in f
                          if line.split()[1] == f"0100007F:{port:04X}"), None)
        if inode is None:
            return None
        for name in self._names:
            for pid in self._pids_of(name):
                try:
                    for fd in os.listdir(f"/proc/{pid}/fd"):
                        if os.readlink(f"/proc/{pid}/fd/{fd}") == f"socket:[{inode}]":
                            return name
                except OSError:
                    continue
        return None

    def _carry(self, name, s, port):
        dialer = self._dialer(port) or "?"
        pair = self._pair(name, dialer)
        with self._lock:
            broken = pair in self._broken
        if broken:
            self._abort(s)
            return
        self._hold(pair)  # a SYN into the void: the connection stands only when the wire is whole
        try:
            out = socket.create_connection(("127.0.0.1", self._target_of(name)), 5)
        except OSError:
            self._abort(s)
            return
        out.settimeout(None)
        entry = (pair, {dialer: s, name: out})
        with self._lock:
            self._live.append(entry)
        back = threading.Thread(target=self._pump, args=(pair, out, s), daemon=True)
        back.start()
        self._pump(pair, s, out)
        back.join()
        self._hear(pair)
        with self._lock:
            self._live.remove(entry)
        s.close()
        out.close()

    def _hold(self, pair):
        self._wait(lambda: pair not in self._cut and pair not in self._deaf)

    def _hear(self, pair):
        """The end of one side is the other's as well, once it may know."""
        self._wait(lambda: pair not in self._deaf)

    def _wait(self, check):
        while not self._closed:
            with self._lock:
                if check():
                    return
            time.sleep(0.005)

    def _pump(self, pair, source, sink):
        try:
            while True:
                data = source.recv(65536)
                self._hold(pair)
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
        except OSError:
            self._hear(pair)
            self._abort(source)
            self._abort(sink)


class WiredCluster(direct.DirectCluster):
    """Three nodes on Wires."""

    def __init__(self, replicas=3, lease_ms=500, binary=None, options=()):
        super().__init__(replicas, lease_ms, binary)
        self.options += options
        proxies = [self.port + 10 * i + 5 for i in range(replicas)]
        self.make_directories()
        self.wires = Wires(self.names(), proxies, lambda n: self.sql_port(n) + 4, self._pids)
        self.begin()

    def _pids(self, node):
        return [p.pid for p in self._node_processes(node)]

    def seeds(self):
        return {n: f"127.0.0.1:{self.wires.port[n]}" for n in self.names()}

    def addresses(self, node):
        return ["--sql-port", str(self.sql_port(node)), "--read-only-port",
                str(self.sql_port(node, True)), "--peer-port", str(self.sql_port(node) + 4),
                "--http-port", str(self.sql_port(node) + 2)]

    def heal(self, timeout=40.0):
        self.wires.join()
        super().heal(timeout)

    def destroy(self):
        if hasattr(self, "wires"):
            self.wires.close()
        super().destroy()
