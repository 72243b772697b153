"""Eight clients write numbered rows through all ports while the leader is killed again and again.
Afterwards every acknowledged row is there exactly once, on all nodes."""

import time

import pytest

from load import ReadLoop, WriteLoop


def ledger_run(cluster, kills, clients=8):
    gaps = []
    with ReadLoop(cluster, nodes=cluster.names()[:1]) as readers, WriteLoop(
        cluster, clients=clients, pause=0.002
    ) as writers:
        writers.wait_for_ack()
        for _ in range(kills):
            leader, epoch = cluster.leader(), cluster.epoch()
            hit = time.monotonic()
            cluster.kill_group(leader)
            cluster.wait_open(30, after_epoch=epoch)
            gaps.append(writers.wait_for_ack(after=hit, timeout=30) - hit)
            # The next kill needs a majority left: the leader and one that streams.
            cluster.wait("a leader and a streaming follower", lambda s: (
                cluster.open_leader(s) and any(n["state"] == "streaming" for n in s["nodes"])), 40)
    acked = len(cluster.ledger.acked)
    cluster.heal()
    readers.check(cluster.ledger_counts())
    cluster.verify()
    print(f"{kills} kills, {acked} rows acknowledged, {len(cluster.ledger.unknown)} of unknown fate,"
          f" gaps {min(gaps):.2f} to {max(gaps):.2f} s")
    assert acked > kills * clients


@pytest.mark.limit(240)
def test_ledger_20_leader_kills_nothing_lost(cluster):
    ledger_run(cluster, 20)


@pytest.mark.soak
@pytest.mark.limit(1800)
def test_ledger_200_leader_kills_nothing_lost(cluster):
    ledger_run(cluster, 200)
