"""Finding and signalling the processes of one test cluster, and only those.

A process belongs to a cluster when its command line, its environment or its working directory names
the cluster's own temporary directory, which no other cluster shares. A pid alone is never trusted:
every signal goes through a pidfd after the start time has been compared again, so that a pid that
was reused meanwhile is not hit.
"""

import os
import re
import signal


def _read(pid, what):
    try:
        with open(f"/proc/{pid}/{what}", "rb") as f:
            return f.read()
    except OSError:
        return b""


def _stat_fields(pid):
    """Fields of /proc/PID/stat from the third on (the name, in parentheses, may hold spaces)."""
    raw = _read(pid, "stat").decode(errors="replace")
    return raw.rpartition(")")[2].split() if raw else []


class Proc:
    """One process, pinned by (pid, start time)."""

    def __init__(self, pid):
        fields = _stat_fields(pid)
        self.pid = pid
        self.start = fields[19] if len(fields) > 19 else None
        self.ppid = int(fields[1]) if len(fields) > 1 else 0
        self.pgid = int(fields[2]) if len(fields) > 2 else 0
        self.args = _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()

    def __repr__(self):
        return f"<{self.pid} {self.args[:60]!r}>"

    def __eq__(self, other):
        return isinstance(other, Proc) and (self.pid, self.start) == (other.pid, other.start)

    def __hash__(self):
        return hash((self.pid, self.start))

    @property
    def state(self):
        """One letter as in ps (R, S, T, Z, ...), or None when the process is gone."""
        fields = _stat_fields(self.pid)
        if len(fields) <= 19 or fields[19] != self.start:
            return None
        return fields[0]

    def alive(self):
        return self.state not in (None, "Z", "X")

    def rss_kb(self):
        found = re.search(rb"VmRSS:\s+(\d+)", _read(self.pid, "status"))
        return int(found.group(1)) if found else 0

    def pss_kb(self):
        found = re.search(rb"^Pss:\s+(\d+)", _read(self.pid, "smaps_rollup"), re.M)
        return int(found.group(1)) if found else 0

    def private_kb(self):
        """Resident, and mapped by no other process."""
        found = re.findall(rb"^Private_(?:Clean|Dirty):\s+(\d+)", _read(self.pid, "smaps_rollup"), re.M)
        return sum(map(int, found))

    def send(self, sig):
        """Returns whether the process was still there to take it."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            fields = _stat_fields(self.pid)
            if len(fields) <= 19 or fields[19] != self.start:
                return False
            signal.pidfd_send_signal(fd, sig)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)


def _pids():
    return [int(e) for e in os.listdir("/proc") if e.isdigit()]


def _names_path(text, path):
    # demo-1 must not match demo-10, and /x/c must not match /x/c2
    return re.search(re.escape(path) + r"(?![\w-])", text) is not None


def under(path):
    """Every process that names `path` (or works below it), apart from this one."""
    found = []
    me = os.getpid()
    for pid in _pids():
        if pid == me:
            continue
        text = _read(pid, "cmdline").decode(errors="replace")
        if not text:
            continue
        hit = _names_path(text, path)
        if not hit:
            try:
                cwd = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                cwd = ""
            hit = _names_path(cwd, path)
        if not hit and "holdfast" in text:
            hit = _names_path(_read(pid, "environ").decode(errors="replace"), path)
        if hit:
            proc = Proc(pid)
            if proc.alive():
                found.append(proc)
    return found


def children(pid):
    return [p for p in map(Proc, _pids()) if p.ppid == pid and p.alive()]
