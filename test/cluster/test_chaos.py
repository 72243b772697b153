"""`holdfast chaos`: what it does, what it finds, and what it leaves."""

import json
import subprocess
import threading

import pytest

import harness


def chaos(cluster, *args):
    done = cluster.run("chaos", "--yes", "--json", *args, check=False, timeout=100)
    report = json.loads(done.stdout) if done.stdout else None
    return done, report


def test_chaos_asks_first(cluster):
    epoch = cluster.epoch()
    done = cluster.run("chaos", check=False)
    assert done.returncode == 2 and "--yes" in done.stderr
    assert cluster.epoch() == epoch
    assert cluster.execute("SELECT to_regclass('holdfast_chaos')") == [(None,)]


@pytest.mark.limit(150)
def test_chaos_loses_nothing_and_says_so(cluster):
    done, report = chaos(cluster, "--seed", 3, "--seconds", 12)
    assert done.returncode == 0, done.stderr
    assert report["ok"] and report["seed"] == 3
    assert report["acknowledged"] > 100 and report["lost"] == report["doubled"] == 0
    assert len(report["faults"]) >= 2
    assert 0 < report["longest_wait_ms"] < 15000
    assert cluster.execute("SELECT to_regclass('holdfast_chaos')") == [(None,)], "its table stays"
    # The same seed begins with the same faults.
    _, again = chaos(cluster, "--seed", 3, "--seconds", 1)
    assert [f["fault"] for f in again["faults"]] == [f["fault"] for f in report["faults"]][:len(again["faults"])]


@pytest.mark.limit(150)
def test_chaos_finds_lost_and_doubled_rows(cluster):
    """Somebody takes an acknowledged row away and writes another one twice."""
    found = {}

    def run():
        found["done"], found["report"] = chaos(cluster, "--seed", 5, "--seconds", 6)

    thread = threading.Thread(target=run)
    thread.start()
    harness.wait_until("rows are written", lambda: cluster.execute(
        "SELECT count(*) FROM holdfast_chaos")[0][0] > 20)
    cluster.execute("DELETE FROM holdfast_chaos WHERE n = 3")
    cluster.execute("INSERT INTO holdfast_chaos SELECT * FROM holdfast_chaos WHERE n = 5")
    thread.join()
    assert found["done"].returncode == 1
    assert "lost or doubled" in found["done"].stderr
    assert found["report"]["lost"] == 1 and found["report"]["doubled"] == 1 and not found["report"]["ok"]
    assert cluster.execute("SELECT count(*) > 20 FROM holdfast_chaos") == [(True,)], "the evidence is gone"
    cluster.execute("DROP TABLE holdfast_chaos")


def test_chaos_leaves_a_cluster_alone_that_is_not_whole(cluster):
    node = cluster.followers()[0]
    cluster.run("kill", node)
    with pytest.raises(subprocess.TimeoutExpired):
        cluster.run("chaos", "--yes", "--seconds", "2", timeout=4)
    assert cluster.open_leader(cluster.status()) is not None
    cluster.start(node)
