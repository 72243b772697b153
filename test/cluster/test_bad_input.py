"""What people and machines do wrong: a clear error, and nothing lost."""

import os
import re
import shutil
import socket
import subprocess
import time

import pytest

import harness
from certificates import new_ca, new_certificate
from load import WriteLoop
from test_rejoin import durable, lose_volume, volume


def node_text(cluster, node, mark):
    """All that a person would read about a node's failure: its log and the runtime's."""
    return cluster.log_since(mark) + cluster.run("logs", node, check=False).stdout


def test_port_in_use_names_the_port(fresh):
    c = fresh(start=False)
    port = c.sql_port("demo-1")
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        done = c.up(check=False)
        assert done.returncode == 1
        text = done.stdout + done.stderr
        assert str(port) in text and "hint" in text, text
        assert not c.all_processes(), "a failed up leaves processes behind"
    c.up()
    c.wait_healthy()


def test_settings_of_holdfasts_own_are_refused(fresh):
    c = fresh(start=False)
    done = c.run("up", "--port", c.port, "-c", "restore_command=/bin/false", check=False)
    assert done.returncode == 2 and "restore_command: set by Holdfast" in done.stderr, done.stderr
    assert not os.path.exists(c.dir), "nothing is made"


def test_addresses_of_the_environment_are_not_for_nodes_of_up(fresh):
    """A variable that a pod or a service file needs must not open a cluster on one machine to its network."""
    c = fresh(replicas=1, start=False, env={"HOLDFAST_LISTEN": "*", "HOLDFAST_SQL_HOST": "0.0.0.0"})
    c.up()
    for port in (0, 1, 2, 4):
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", c.port + port)) == 0
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.2", c.port + port)) != 0, port


def test_directory_too_long_for_sockets_is_refused(fresh):
    c = fresh(start=False)
    c.dir = os.path.join(c.home, "x" * 90, "c")
    os.makedirs(os.path.dirname(c.dir))
    done = c.up(check=False)
    assert done.returncode == 1 and "hint" in done.stderr + done.stdout


def test_directory_that_is_something_else_is_refused(fresh):
    c = fresh(start=False)
    os.makedirs(c.dir)
    with open(os.path.join(c.dir, "thesis.txt"), "w", encoding="ascii") as f:
        f.write("three years of work")
    done = c.up(check=False)
    assert done.returncode == 1 and "hint" in done.stderr + done.stdout
    assert os.listdir(c.dir) == ["thesis.txt"]


def test_a_second_node_in_a_directory_changes_nothing(fresh):
    """Whoever starts it by mistake gives it other flags, too."""
    c = fresh(replicas=1, start=False)
    c.options += ["-c", "work_mem=5MB"]
    c.up()
    settings = c.path("demo-0", "settings.conf")
    with open(settings, encoding="ascii") as f:
        before = f.read()
    assert "work_mem = '5MB'" in before
    done = subprocess.run([harness.BINARY, "node", "--name", "demo-0", "--dir", c.path("demo-0"), "-c", "work_mem=1GB"],
                          capture_output=True, text=True, timeout=30 * harness.PATIENCE, check=False)
    assert done.returncode == 1 and "another `holdfast node` runs" in done.stderr, done.stderr
    with open(settings, encoding="ascii") as f:
        assert f.read() == before


def test_kill_hits_nobody_but_the_node(fresh):
    """The lock names a process that is gone, and somebody else has its pid: no signal for him, and the node is still wanted."""
    c = fresh(replicas=1)
    lock = c.path("demo-0", "node.lock")
    with open(lock, "r+", encoding="ascii") as f, subprocess.Popen(["sleep", "600"], user=harness.database_user()) as other:
        try:
            before = f.read()
            sentinel, _, start, _ = before.split()
            f.seek(0)
            f.write(f"{sentinel} {other.pid} {start} 1".ljust(len(before) - 1))
            f.flush()
            done = c.run("kill", "demo-0", check=False)
            assert done.returncode == 1 and "gone" in done.stderr, done.stderr
            assert other.poll() is None
        finally:
            f.seek(0)
            f.write(before)
            f.flush()
            other.kill()
    node = c.node_process("demo-0")
    c.run("kill", "demo-0", "--restart")
    harness.wait_until("started again", lambda: not node.alive() and c.node_process("demo-0"))
    c.wait_open()


def test_postgresql_missing(fresh):
    c = fresh(start=False)
    done = c.up(check=False, env={"HOLDFAST_PG_BINDIR": "/nonexistent"})
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "/nonexistent" in text and "hint" in text, text
    assert not c.all_processes()


def test_postgresql_too_old(fresh):
    c = fresh(start=False)
    fake = os.path.join(c.home, "bin")
    os.mkdir(fake)
    for tool in ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata",
                 "pg_waldump"):
        path = os.path.join(fake, tool)
        with open(path, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\necho '{tool} (PostgreSQL) 9.6.24'\n")
        os.chmod(path, 0o755)
    done = c.up(check=False, env={"HOLDFAST_PG_BINDIR": fake})
    text = done.stdout + done.stderr
    assert done.returncode == 1 and "9.6" in text and "hint" in text, text


def test_directory_of_another_cluster(cluster, fresh):
    """A node gets another cluster's volume: both ids in the error, and neither cluster is touched."""
    other = fresh(replicas=1)
    foreign = durable(other, "demo-0")["cluster_id"]
    other.kill_down("demo-0")
    node = cluster.followers()[0]
    mine = durable(cluster, node)["cluster_id"]
    cluster.kill_down(node)
    aside = os.path.join(cluster.home, "aside")
    os.mkdir(aside)
    parts = volume(cluster, node)
    for part in parts:
        shutil.move(cluster.path(node, part), os.path.join(aside, part))
    for part in volume(other, "demo-0"):
        subprocess.run(["cp", "-a", other.path("demo-0", part), cluster.path(node, part)], check=True)
    mark = cluster.log_mark(node)
    try:
        cluster.run("start", node, check=False)
        harness.wait_until("the error is told", lambda: re.search(
            r"cluster id|another cluster|belongs to", node_text(cluster, node, mark)), 10)
        st = cluster.node(node)
        assert st is None or st["state"] not in ("streaming", "open")
        text = node_text(cluster, node, mark)
        assert foreign[:8] in text and mine[:8] in text, text
        cluster.insert()
    finally:
        cluster.kill_down(node)
        lose_volume(cluster, node)
        for part in parts:
            shutil.move(os.path.join(aside, part), cluster.path(node, part))
        shutil.rmtree(aside)
    cluster.start(node)
    cluster.wait_healthy()


@pytest.mark.parametrize("mode", [0o777, 0o750, 0o000])
def test_wrong_mode_of_the_data_directory(cluster, mode):
    """Kubernetes' fsGroup widens modes: repaired, or told."""
    node = cluster.followers()[0]
    cluster.kill_down(node)
    data = cluster.path(node, "data")
    os.chmod(data, mode)
    mark = cluster.log_mark(node)
    try:
        cluster.run("start", node, check=False)
        harness.wait_until("repaired or told", lambda: (
            (cluster.node(node) or {}).get("state") == "streaming"
            or re.search(r"(mode|permission).*hint", node_text(cluster, node, mark))), 20)
        cluster.insert()
    finally:
        cluster.kill_down(node)
        os.chmod(data, 0o700)
    cluster.start(node)
    cluster.wait_healthy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_wrong_owner_of_the_data_directory(cluster):
    node = cluster.followers()[0]
    cluster.kill_down(node)
    data = cluster.path(node, "data")
    os.chown(data, 0, 0)
    mark = cluster.log_mark(node)
    try:
        cluster.run("start", node, check=False)
        harness.wait_until("told", lambda: re.search(
            r"belongs to root.*hint", node_text(cluster, node, mark), re.I), 20)
        cluster.insert()
        assert os.path.exists(os.path.join(data, "PG_VERSION")), "the data directory was destroyed"
    finally:
        cluster.kill_down(node)
        harness.chown_like_product(data)
    cluster.start(node)
    cluster.wait_healthy()


def refused_with_certificate(cluster, tmp_path, pattern, make):
    """Gives one follower another certificate: it must stay outside, say why, and the cluster must go
    on; with its own certificate back it streams again."""
    node = cluster.followers()[0]
    cluster.kill_down(node)
    tls = cluster.path(node, "tls")
    aside = os.path.join(cluster.home, "tls-aside")
    subprocess.run(["cp", "-a", tls, aside], check=True)
    made = str(tmp_path / "made")
    make(node, made)
    for f in ("node.crt", "node.key", "ca.crt"):
        source = os.path.join(made, f)
        if os.path.exists(source):
            shutil.copyfile(source, os.path.join(tls, f))  # owner and mode stay
    marks = [cluster.log_mark(n) for n in cluster.names()]
    try:
        cluster.run("start", node, check=False)
        found = harness.wait_until("the reason is told", lambda: re.search(
            pattern, "".join(map(cluster.log_since, marks))
            + cluster.run("logs", node, check=False).stdout, re.I), 15)
        assert found
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            st = cluster.node(node)
            assert st is None or st["state"] not in ("streaming", "open")
            time.sleep(0.2)
        cluster.insert()
    finally:
        cluster.kill_down(node)
        shutil.rmtree(tls)
        shutil.move(aside, tls)
    cluster.start(node)
    cluster.wait_healthy()


def test_expired_certificate(cluster, tmp_path):
    ca = os.path.join(cluster.dir, "pki")
    refused_with_certificate(
        cluster, tmp_path, "expired",
        lambda node, made: new_certificate(
            made, node, os.path.join(ca, "ca.crt"), os.path.join(ca, "ca.key"),
            end="20200201000000Z"))


@pytest.mark.parametrize("trusts", ["cluster", "itself"])
def test_certificate_of_another_ca(cluster, tmp_path, trusts):
    """The node's own check finds the first; the second is consistent in itself, and it is the peers
    that must refuse it."""
    def make(node, made):
        ca = str(tmp_path / "other-ca")
        new_ca(ca, "/CN=Somebody Else")
        new_certificate(made, node, os.path.join(ca, "ca.crt"), os.path.join(ca, "ca.key"))
        if trusts == "itself":
            shutil.copyfile(os.path.join(ca, "ca.crt"), os.path.join(made, "ca.crt"))

    refused_with_certificate(
        cluster, tmp_path, r"is not signed by|unknown ca|self.signed|unable to get local issuer"
                           r"|another CA|certificate verify failed", make)


def test_certificate_of_another_name(cluster, tmp_path):
    ca = os.path.join(cluster.dir, "pki")
    refused_with_certificate(
        cluster, tmp_path, r"certificate .* does not carry the name",
        lambda node, made: new_certificate(
            made, "demo-9", os.path.join(ca, "ca.crt"), os.path.join(ca, "ca.key")))


@pytest.mark.parametrize("harm", ["cut", "garbage", "empty"])
def test_half_written_raft_directory(cluster, harm):
    """The disk kept half of Raft's newest files. Start as before, or refuse with a word; the volume can
    then be given up like a lost one. Never a second cluster, never a lost row."""
    node = cluster.followers()[0]
    cluster.insert(count=5)
    cluster.kill_down(node)
    raft = cluster.path(node, "raft")
    files = sorted(f for f in os.listdir(raft) if re.match(r"open-|\d+-\d+|metadata", f))
    assert files, os.listdir(raft)
    segments = [f for f in files if not f.startswith("metadata")]
    for f in segments[-2:]:
        path = os.path.join(raft, f)
        size = os.path.getsize(path)
        with open(path, "r+b") as handle:
            if harm == "cut":
                handle.truncate(size // 2 // 512 * 512)
            elif harm == "empty":
                handle.truncate(0)
            else:
                handle.seek(64)
                handle.write(os.urandom(4096))
    mark = cluster.log_mark(node)
    cluster.run("start", node, check=False)
    harness.wait_until("it streams or says why not", lambda: (
        (cluster.node(node) or {}).get("state") == "streaming"
        or re.search(r"raft.*", node_text(cluster, node, mark), re.I | re.S)
        and "hint" in node_text(cluster, node, mark)), 20)
    cluster.insert(count=5)
    if (cluster.node(node) or {}).get("state") != "streaming":
        cluster.kill_down(node)
        lose_volume(cluster, node)
        cluster.start(node)
    cluster.wait_healthy(60)


def test_half_written_state_file(cluster):
    node = cluster.followers()[0]
    cluster.kill_down(node)
    path = cluster.path(node, "state.json")
    with open(path, "r+b") as f:
        whole = f.read()
        f.truncate(len(whole) // 2)
    mark = cluster.log_mark(node)
    try:
        cluster.run("start", node, check=False)
        harness.wait_until("it says why", lambda: re.search(
            r"state\.json.*hint", node_text(cluster, node, mark)), 15)
        cluster.insert()
        assert os.path.exists(cluster.path(node, "data", "PG_VERSION"))
    finally:
        cluster.kill_down(node)
        with open(path, "r+b") as f:
            f.truncate(0)
            f.write(whole)
    cluster.start(node)
    cluster.wait_healthy()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root to be mounted")
def test_disk_full_while_cloning(cluster):
    """The node's volume is too small for the clone: told, no other node is harmed, what was there
    stays; with room it joins."""
    node = cluster.followers()[0]
    cluster.bulk(100)
    cluster.kill_down(node)
    lose_volume(cluster, node)
    home = cluster.path(node)
    image = os.path.join(cluster.home, "small.img")
    subprocess.run(["truncate", "-s", "80M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    aside = os.path.join(cluster.home, "node-aside")
    shutil.move(home, aside)
    os.mkdir(home)
    done = subprocess.run(["mount", "-o", "loop", image, home], capture_output=True, check=False)
    if done.returncode != 0:
        os.rmdir(home)
        shutil.move(aside, home)
        cluster.start(node)
        pytest.skip(f"no loop mounts here: {done.stderr.decode().strip()}")
    try:
        subprocess.run(["cp", "-a", os.path.join(aside, "."), home], check=True)
        harness.chown_like_product(home)
        mark = cluster.log_mark(node)
        cluster.run("start", node, check=False)
        harness.wait_until("the full disk is told", lambda: re.search(
            r"no space|disk full|ENOSPC", node_text(cluster, node, mark), re.I), 40)
        cluster.insert(count=5)
    finally:
        cluster.kill_down(node)
        subprocess.run(["umount", home], check=True)
        os.rmdir(home)
        shutil.move(aside, home)
    cluster.start(node)
    cluster.wait_healthy(60)
    cluster.execute("DROP TABLE bulk")


def test_killed_in_the_middle_of_a_promotion(cluster):
    """The new leader dies between its appointment and its open gate, several times at different
    moments."""
    with WriteLoop(cluster, clients=2) as writers:
        for phase in ("appointed", "promoted", "barrier"):
            leader = cluster.leader()
            marks = {n: cluster.log_mark(n) for n in cluster.followers()}
            cluster.kill_group(leader)
            new = harness.wait_until(f"somebody is {phase}", lambda p=phase, m=marks: next(
                (n for n, k in m.items() if f"phase={p} " in cluster.log_since(k)), None), poll=0.001)
            cluster.kill_group(new)
            hit = time.monotonic()
            writers.wait_for_ack(after=hit, timeout=40)
            cluster.heal()


def lose_directory(cluster, node):
    """Certificates and logs, too."""
    shutil.rmtree(cluster.path(node))


def test_lost_volume_twice_in_a_row(cluster):
    node = cluster.followers()[0]
    ids = set()
    for lose in (lose_volume, lose_directory):
        ids.add(durable(cluster, node)["id"])
        cluster.kill_down(node)
        lose(cluster, node)
        cluster.start(node)
        cluster.wait_healthy(60)
    ids.add(durable(cluster, node)["id"])
    assert len(ids) == 3, "an id was used twice"
