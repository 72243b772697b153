"""Hosts as network namespaces, each with one device into the wire (wire.c), which alone decides what passes
between them. Addresses are private to the namespaces: laboratories do not meet."""

import ctypes
import itertools
import os
import shutil
import subprocess
import threading

import harness

WIRE = os.path.join(os.path.dirname(harness.BINARY), "test", "fault", "fault-wire")
CLONE_NEWNET = 0x40000000
DOMAIN = "demo.default.svc.cluster.local"
SERVICE = DOMAIN.removesuffix(".cluster.local")  # as pods say it: the rest is in their search list
# A name that is not there is none, and not one that a DNS does not answer for.
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"
_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def enter(path):
    """This thread, and threads and processes it starts from now on, live on the host of that namespace."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"{path}: cannot enter")
    finally:
        os.close(fd)


def _ip(*args):
    subprocess.run(["ip", *args], check=True, stdin=subprocess.DEVNULL, capture_output=True)


class Network:
    """Hosts with names as a StatefulSet and its headless Service give them."""

    def __init__(self, hosts, seed=0):
        self.hosts = list(hosts)
        self._tag = f"hff{os.getpid()}x{next(_serial)}"
        self._lock = threading.Lock()
        self._wire = None
        self._nameless = set()
        try:
            for host in self.hosts:
                _ip("netns", "add", self.namespace(host))
            self._write_names()
            # pylint: disable=consider-using-with
            self._wire = subprocess.Popen(
                [WIRE, str(seed), *map(self.namespace, self.hosts)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, bufsize=1)
            if self._wire.stdout.readline() != "ready\n":
                raise RuntimeError("the wire does not start (its stderr says why)")
            for host in self.hosts:
                ns = self.namespace(host)
                _ip("-n", ns, "link", "set", "lo", "up")
                _ip("-n", ns, "addr", "add", f"{self.address(host)}/24", "dev", "wire0")
                _ip("-n", ns, "link", "set", "wire0", "up")
        except BaseException:
            self.close()
            raise

    def namespace(self, host):
        return f"{self._tag}-{host}"

    def namespace_path(self, host):
        return os.path.join("/run/netns", self.namespace(host))

    def address(self, host):
        return f"10.77.0.{self.hosts.index(host) + 1}"

    @staticmethod
    def name(host):
        return f"{host}.{DOMAIN}"

    def _write_names(self):
        text = "127.0.0.1 localhost\n" + "".join(
            f"{self.address(h)} {self.name(h)} {self.name(h)}. {DOMAIN}. {h}.{SERVICE} {h}\n" for h in self.hosts if h not in self._nameless)
        for host in self.hosts:
            where = os.path.join("/etc/netns", self.namespace(host))
            os.makedirs(where, exist_ok=True)
            self._put(os.path.join(where, "nsswitch.conf"), NSSWITCH)
            self._put(os.path.join(where, "hosts"), text)

    @staticmethod
    def _put(path, text):
        """In its place, since it is mounted elsewhere, and never empty: whoever looks meanwhile must not find that nobody exists."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, text.encode("ascii"), 0)
            os.ftruncate(fd, len(text))
        finally:
            os.close(fd)

    def known(self, host, yes):
        """Does it have a name? Pods that a StatefulSet has no place for have none."""
        with self._lock:
            (self._nameless.discard if yes else self._nameless.add)(host)
            self._write_names()

    # ---- what faults do ---------------------------------------------------------------------

    def _order(self, line):
        with self._lock:
            self._wire.stdin.write(line + "\n")
            answer = self._wire.stdout.readline().strip()
        if not answer.startswith("ok"):
            raise RuntimeError(f"wire: {line}: {answer or 'it is gone'}")
        return answer

    def _number(self, host):
        return "*" if host == "*" else self.hosts.index(host)

    def set(self, source, sink, **values):
        """One direction: what goes from `source` to `sink` ('*': all)."""
        for key, value in values.items():
            self._order(f"set {self._number(source)} {self._number(sink)} {key} {int(value)}")

    def both(self, a, b, **values):
        self.set(a, b, **values)
        self.set(b, a, **values)

    def part(self, side, other):
        """Nothing passes between the sides, in either direction."""
        for a in side:
            for b in other:
                self.both(a, b, cut=1)

    def heal(self):
        self._order("heal")

    def stats(self):
        words = self._order("stats").split()
        return {"passed": int(words[2]), "dropped": int(words[4])}

    def close(self):
        if self._wire is not None:
            self._wire.stdin.close()
            self._wire.wait(10)
            self._wire.stdout.close()
        for host in self.hosts:
            ns = self.namespace(host)
            if os.path.exists(self.namespace_path(host)):
                subprocess.run(["ip", "netns", "del", ns], check=False, capture_output=True)
            shutil.rmtree(os.path.join("/etc/netns", ns), ignore_errors=True)
