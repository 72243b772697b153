"""The verbs where only one node's admin socket is at hand, as in a pod: it leads on to the other nodes."""

import contextlib
import json
import os
import socket
import subprocess
import time

import psycopg2
import pytest

import harness

FAR_MAX = 16  # HF_ADMIN_FAR_MAX


def alone(cluster, node, *args, check=True):
    """A verb that knows nothing but this node."""
    full = [harness.BINARY, *args, "--dir", cluster.path(node)]
    done = subprocess.run(full, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
                          timeout=60 * harness.PATIENCE, check=False)
    if check and done.returncode != 0:
        raise harness.CommandFailed(full, done)
    return done


def look(cluster, node):
    return json.loads(alone(cluster, node, "status", "--json").stdout)


class Asker:
    """One connection to a node's admin socket."""

    def __init__(self, cluster, node):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10 * harness.PATIENCE)
        self.socket.connect(cluster.path(node, "admin.sock"))
        self.lines = self.socket.makefile("rb")

    def send(self, **request):
        self.socket.sendall(json.dumps(request).encode() + b"\n")

    def ask(self, **request):
        self.send(**request)
        return json.loads(self.lines.readline() or b'{"error": "closed"}')

    def close(self):
        self.lines.close()
        self.socket.close()


def descriptors(cluster, node):
    return len(os.listdir(f"/proc/{cluster.node_process(node).pid}/fd"))


def test_every_node_says_the_same_as_all_together(cluster):
    whole = cluster.status()
    for node in cluster.names():
        st = look(cluster, node)
        assert [n["name"] for n in st["nodes"]] == cluster.names()
        assert {k: st[k] for k in ("cluster", "id", "epoch", "leader")} == \
            {k: whole[k] for k in ("cluster", "id", "epoch", "leader")}
        for here, there in zip(st["nodes"], whole["nodes"]):
            assert set(here) == set(there)
            assert [here[k] for k in ("role", "state", "voter", "sql")] == \
                [there[k] for k in ("role", "state", "voter", "sql")]
        assert json.loads(alone(cluster, node, "history", "--json").stdout) == json.loads(cluster.history())


def test_sessions_of_all_nodes_and_the_end_of_one(cluster):
    here, there = cluster.names()[0], cluster.names()[2]
    with contextlib.closing(cluster.connect(there, application_name="t-through")) as conn:
        all_ = json.loads(alone(cluster, here, "sessions", "--json").stdout)["sessions"]
        mine = [s for s in all_ if s["application"] == "t-through"]
        assert [s["node"] for s in mine] == [there]
        for wrong, word in ((f"{there}/999999", "no such session"), ("demo-9/1", "no node demo-9")):
            done = alone(cluster, here, "sessions", "--kill", wrong, check=False)
            assert done.returncode == 1 and word in done.stderr, done.stderr
        alone(cluster, here, "sessions", "--kill", mine[0]["id"])
        with pytest.raises(psycopg2.OperationalError):
            conn.cursor().execute("SELECT 1")


def test_switchover_is_asked_anywhere(cluster):
    old = cluster.leader()
    target, third = (n for n in cluster.names() if n != old)
    done = alone(cluster, third, "switchover", "--to", "demo-7", check=False)
    assert done.returncode == 1 and "no node demo-7" in done.stderr
    assert "already" in alone(cluster, third, "switchover", "--to", old).stdout
    assert cluster.leader() == old
    done = alone(cluster, third, "switchover", "--to", target)
    assert done.stdout.startswith(f"{old} -> {target} in ")
    assert cluster.leader() == target
    cluster.wait_healthy()
    done = alone(cluster, target, "switchover", "--to", third.rsplit("-", 1)[1])  # on the leader itself
    assert done.stdout.startswith(f"{target} -> {third} in ") and cluster.leader() == third


def test_what_ends_a_node_is_not_asked_through_another(cluster):
    here, there = cluster.followers()
    asker = Asker(cluster, here)
    assert asker.ask(op="through", name=there) == {"ok": True}
    assert asker.ask(op="status")["name"] == there
    for op in ("shutdown", "leave", "remove", "through", "nonsense", ""):
        answer = asker.ask(op=op, name=here)
        assert "asked of the node itself" in answer.get("error", ""), f"{op}: {answer}"
    assert asker.ask(op="status")["name"] == there
    asker.close()
    asker = Asker(cluster, here)
    assert "no such member" in asker.ask(op="through", name="demo-7")["error"]
    assert "no such member" in asker.ask(op="through")["error"]
    assert asker.ask(op="through", name=here) == {"ok": True}
    assert asker.ask(op="status")["name"] == here
    asker.close()
    assert len(cluster.status()["nodes"]) == 3
    cluster.wait_healthy()


def test_who_does_not_answer_is_told_and_keeps_nobody(cluster):
    here, frozen = cluster.followers()
    cluster.freeze(cluster.sentinel(frozen), cluster.node_process(frozen))
    begun = time.monotonic()
    n = cluster.node(frozen, look(cluster, here))
    assert time.monotonic() - begun < 4 * harness.PATIENCE
    assert n["reachable"] is False and n["state"] is None and n["voter"] is True and "no answer" in n["error"]
    done = alone(cluster, frozen, "status", check=False)  # its own admin socket
    assert done.returncode == 1 and "no answer within" in done.stderr
    cluster.thaw()
    cluster.wait_healthy()
    assert cluster.node(frozen, look(cluster, here))["reachable"] is True
    cluster.kill_down(frozen)
    n = cluster.node(frozen, look(cluster, here))
    assert n["reachable"] is False and n["error"]
    done = alone(cluster, here, "sessions", check=False)
    assert done.returncode == 1 and f"holdfast: {frozen}: " in done.stderr and "CLIENT" in done.stdout
    done = alone(cluster, frozen, "status", check=False)
    assert done.returncode == 1 and "hint" in done.stderr
    done = alone(cluster, here, "logs", frozen, check=False)
    assert done.returncode == 1 and "a node runs here by itself" in done.stderr


def test_no_majority_and_still_an_answer(cluster):
    here = cluster.followers()[0]
    for node in cluster.names():
        if node != here:
            cluster.kill_down(node)

    def nobody():
        st = look(cluster, here)
        return st["leader"] is None and [n["reachable"] for n in st["nodes"]].count(True) == 1
    harness.wait_until("nobody leads", nobody, 20)
    done = alone(cluster, here, "switchover", check=False)
    assert done.returncode == 1 and "hint" in done.stderr
    assert alone(cluster, here, "history").returncode == 0


def test_askers_that_leave_or_stay_cost_nothing_for_long(cluster):
    here, there = cluster.followers()
    before = descriptors(cluster, here), descriptors(cluster, there)
    for i in range(60):
        asker = Asker(cluster, here)
        asker.send(op="through", name=there)
        if i % 3 > 0:  # else it has gone before it is led on
            assert json.loads(asker.lines.readline()) == {"ok": True}
        if i % 3 > 1:
            asker.send(op="status")
        asker.close()
        harness.wait_until("room", lambda: descriptors(cluster, there) < before[1] + FAR_MAX, 10)
    harness.wait_until("all descriptors are closed",
                       lambda: descriptors(cluster, here) <= before[0] + 2 and
                       descriptors(cluster, there) <= before[1] + 2, 10)
    # Those that stay take the places of the far, and no more.
    staying = [Asker(cluster, here) for _ in range(FAR_MAX + 1)]
    answers = [a.ask(op="through", name=there) for a in staying]
    assert answers[:FAR_MAX] == [{"ok": True}] * FAR_MAX
    assert "too many" in answers[FAR_MAX]["error"]
    assert cluster.node(there)["reachable"] is True, "the owner was kept out"
    for a in staying:
        a.close()
    harness.wait_until("places are free", lambda: cluster.node(there, look(cluster, here))["reachable"], 10)
