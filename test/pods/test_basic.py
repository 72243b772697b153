"""Start, loss of pods and volumes, full stops, with addresses that change each time."""

import pytest

import pods


def rows(pod):
    with pod.connect() as c, c.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        return cursor.fetchone()[0]


def write(pod, n):
    with pod.connect() as c, c.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS t (n int)")
        cursor.execute("INSERT INTO t SELECT generate_series(1, %s)", (n,))


@pytest.mark.quick
def test_pods_and_volumes_come_and_go(stateful):
    s = stateful()
    s.found()
    s.wait_ready()
    write(s.pods[2], 100)
    # Any pod takes any connection; names, not addresses, are what they know of each other.
    assert [rows(p) for p in s.pods.values()] == [100, 100, 100]
    assert all(".svc:7000" in m["peer"] for m in s.leader().status()["members"])
    assert "no guard" not in s.log_text(0), "the image lacks the module (src/guard)"
    # The leader's pod goes, politely: another leads, the pod comes back with a new address, and may lead then.
    old = s.leader()
    epoch = old.status()["epoch"]
    s.replace(old.ordinal)
    new = s.wait_leader(after_epoch=epoch)
    s.wait_streaming()
    assert rows(s.pods[old.ordinal]) == 100
    # A follower's pod dies with its node, its volume is lost: an empty one joins.
    victim = next(p for p in s.pods.values() if p.name != new.name)
    s.replace(victim.ordinal, grace=0, volume=True)
    s.wait_streaming()
    assert s.leader().name == new.name, "the loss of a follower changed the leader"
    # The leader's, too.
    s.replace(new.ordinal, grace=0, volume=True)
    s.wait_leader(other_than=new.name)
    s.wait_streaming()
    assert [rows(p) for p in s.pods.values()] == [100, 100, 100]


@pytest.mark.quick
def test_full_stops(stateful):
    s = stateful()
    s.found()
    write(s.leader(), 100)
    # All at once, as by a power cut; all with new addresses.
    s.kill_all()
    s.start()
    s.wait_streaming()
    assert rows(s.pods[0]) == 100
    # Ordered: the controller starts the next pod only once the one before is ready, which therefore must not
    # wait for a quorum.
    s.kill_all()
    for ordinal in range(3):
        s.start(ordinal)
        pods.wait_for(f"demo-{ordinal} ready", lambda: s.pods[ordinal].ready, 30)  # pylint: disable=W0640
        if ordinal == 0:
            assert s.pods[0].http("/writable")[0] == 503, "one of three takes writes"
    s.wait_streaming()
    assert rows(s.pods[1]) == 100
