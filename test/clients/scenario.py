"""Drives a program of programs/ (README.md there) through its steps and through a change of leader."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import urllib.request

import harness

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(HERE, "programs")
# What a client may be told when its session ends because the leader changed: by Holdfast, or, where the connection ended in
# the middle of something, by the driver itself.
LOST = {"57P01", "08006", "08003", "08000", "08001"}


def environment(cluster, node, **more):
    user, password, database = cluster.login()
    return {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(cluster.sql_port(node)), "PGUSER": user,
            "PGPASSWORD": password, "PGDATABASE": database, "PGCONNECT_TIMEOUT": "10", **more}


def call(cluster, node, *command, check=True, stdin=None, timeout=60, **more):
    done = subprocess.run(command, env=environment(cluster, node, **more), input=stdin, capture_output=True,
                          text=True, timeout=timeout, check=False, cwd=cluster.home)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def sessions(cluster, *args):
    return json.loads(cluster.run("sessions", "--json", *args).stdout)["sessions"]


def metrics(cluster, node):
    """The operations port's, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{cluster.sql_port(node) + 2}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(holdfast_\S+) (\S+)$", text, re.M)}


def said_to(conn):
    """What comes to a client until its end, whatever it is."""
    with socket.socket(fileno=os.dup(conn.fileno())) as s:
        s.settimeout(30)
        return b"".join(iter(lambda: s.recv(1 << 20), b""))


def play(cluster, command, steps, sqlstates=LOST, **more):
    """Through a follower's port; the leader changes in the middle."""
    node = cluster.followers()[0]
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        command, env=environment(cluster, node, **more), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, cwd=PROGRAMS)
    watchdog = threading.Timer(90 * harness.PATIENCE, lambda: process.send_signal(signal.SIGKILL))
    watchdog.start()
    said = []
    try:
        for line in process.stdout:
            said.append(line.rstrip())
            if said[-1] == "ready":
                before = cluster.epoch()
                cluster.switchover(to=node)
                cluster.wait_open(after_epoch=before)
                process.stdin.write("go\n")
                process.stdin.flush()
        status = process.wait()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    text = "\n".join(said)
    assert status == 0, f"{command}: {status}\n{text}"
    assert [s for s in said if s.startswith("ok ")] == [f"ok {s}" for s in steps], text
    lost = [m.group(1) for s in said if (m := re.match(r"lost (\S+)$", s))]
    assert len(lost) == 1 and lost[0] in sqlstates, text
    assert "again" in said, text
