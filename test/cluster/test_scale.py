"""Joins, leaves, five nodes: in the order of one cluster's life."""

import json
import os
import shutil

import pytest

import direct
import harness
from load import ReadLoop, WriteLoop

_c = {}


@pytest.fixture(scope="module")
def growing():
    with harness.Cluster(replicas=1) as c:
        yield c


def rule(cluster):
    return cluster.super(cluster.leader(), "SHOW synchronous_standby_names")[0][0]


def test_scale_one_node_alone(growing):
    growing.insert(count=5)
    growing.verify()
    assert rule(growing) == "", "one node waits for nobody"


def test_scale_one_to_three(growing):
    with WriteLoop(growing, clients=2, nodes=["demo-0"]) as writers:
        growing.scale(3)
        growing.wait_healthy(60)
        writers.wait_for_ack()
    assert "ANY 1" in rule(growing) and rule(growing).count("demo-") == 2
    growing.verify()


def test_three_grown_from_one_survive_the_loss_of_the_first(growing):
    leader = growing.leader()
    growing.kill_down(leader)
    growing.wait_open(other_than=leader)
    growing.insert(count=3)
    growing.heal()
    growing.verify()


def test_scale_three_to_five(growing):
    with ReadLoop(growing) as readers, WriteLoop(growing, clients=2) as writers:
        growing.scale(5)
        growing.wait_healthy(60)
        writers.wait_for_ack()
    readers.check(growing.ledger_counts())
    assert "ANY 2" in rule(growing) and rule(growing).count("demo-") == 4
    growing.verify()


def test_five_nodes_with_two_lost(growing):
    """The leader and one follower at once; then a third: nothing is acknowledged any more."""
    leader = growing.leader()
    second = growing.followers()[0]
    growing.kill_down(leader)
    growing.kill_down(second)
    new = growing.wait_open(30, other_than=leader)
    growing.insert(new, count=10)
    third = next(n for n in growing.names() if n not in (leader, second, new))
    growing.kill_down(third)
    harness.wait_until(
        "the gate shuts", lambda: growing.open_leader(growing.status()) is None, 10)
    growing.heal()
    growing.verify()


def test_s20_scale_five_to_three_while_a_leaving_node_leads(growing):
    """A leaving node hands over, is no candidate, and does not get leadership back."""
    if growing.leader() != "demo-4":
        growing.switchover("demo-4")
        growing.wait_healthy()
    with ReadLoop(growing, nodes=growing.names()[:3]) as readers, WriteLoop(
        growing, clients=2, nodes=growing.names()[:3]
    ) as writers:
        growing.scale(3)
        growing.wait_healthy(60)
        writers.wait_for_ack()
    readers.check(growing.ledger_counts())
    assert growing.leader() in growing.names()
    assert "ANY 1" in rule(growing) and rule(growing).count("demo-") == 2
    assert not growing.node_process("demo-4") and not growing.node_process("demo-3")
    growing.verify()


def test_leave_and_join_again_under_the_same_name(growing):
    growing.scale(2)
    growing.wait_healthy(60)
    growing.insert(count=3)
    growing.scale(3)
    growing.wait_healthy(60)
    growing.insert("demo-2")
    growing.verify()


def test_two_to_one(tmp_path):
    """The voter that leaves is needed until the rule without it is in force."""
    with harness.Cluster(replicas=2) as c:
        c.insert(count=3)
        c.run("scale", "--replicas", "1", "--timeout", "40")
        c.insert(count=1)
        assert c.execute("SELECT count(*) FROM ledger") == [(4,)]


def removed(cluster, node):
    """Asks for it, until it is done."""
    leader = cluster.open_leader(cluster.status())
    members = [m["name"] for m in (cluster.ask(leader) or {}).get("members", [])] if leader else []
    if members and node in members:
        cluster.ask(leader, "remove", name=node)
    return members and node not in members


class Founders(direct.DirectCluster):
    """Three nodes that found, and know each other."""

    def __init__(self, replicas=3):
        super().__init__(replicas)
        self.make_directories()

    def expect(self):
        return 3

    def seeds(self):
        return {n: f"127.0.0.1:{self.sql_port(n) + 4}" for n in self.names()[:3]}

    def addresses(self, node):
        return ["--sql-port", str(self.sql_port(node)), "--read-only-port", str(self.sql_port(node, True)),
                "--peer-port", str(self.sql_port(node) + 4), "--http-port", str(self.sql_port(node) + 2)]


class FourthUnknown(Founders):
    """A fourth that knows all, and that nobody knows."""

    def __init__(self):
        super().__init__(replicas=4)
        self._whose = None
        self.begin()

    def command(self, node):
        self._whose = node
        return super().command(node)

    def seeds(self):
        fourth = {"demo-3": f"127.0.0.1:{self.sql_port('demo-3') + 4}"} if self._whose == "demo-3" else {}
        return super().seeds() | fourth

    def empty(self, node):
        self.kill_down(node)
        for entry in set(os.listdir(self.path(node))) - {"tls", "log"}:
            path = self.path(node, entry)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def test_an_empty_node_joins_a_leader_that_it_does_not_know():
    with FourthUnknown() as c:
        c.insert(count=3)
        harness.wait_until("demo-3 is handed the lead", lambda: (c.ask(c.leader(), "switchover", 15, to="demo-3") or {}).get("ok"), 20, 0.3)
        c.wait("demo-3 leads", lambda s: c.open_leader(s) == "demo-3")
        c.empty("demo-1")
        c.start("demo-1")
        c.wait_state("demo-1", "streaming", 20)
        c.wait_healthy()
        assert c.leader() == "demo-3"
        c.insert("demo-1")
        c.verify()


def test_a_founder_removed_before_it_has_seen_an_epoch_joins_anew():
    with Founders() as c:
        c.up()
        harness.wait_until("demo-2 has its id", lambda: "founding the cluster" in c.log_text("demo-0"), 20, 0.005)
        c.kill_down("demo-2")
        with open(c.path("demo-2", "state.json"), encoding="ascii") as f:
            state = json.load(f)
        assert (state["lineage"], state["founded"], state["id"]) == ("0", False, "3"), "killed too late to show anything"
        c.wait_open()
        harness.wait_until("demo-2 is no member", lambda: removed(c, "demo-2"), 20, 0.2)
        mark = c.log_mark("demo-2")
        c.start("demo-2")
        c.wait_log(mark, "removed while it was away", 20)
        harness.wait_until("it has ended", lambda: not c.all_processes("demo-2"), 10)
        c.start("demo-2")  # as whoever runs it does
        c.wait_state("demo-2", "streaming", 20)
