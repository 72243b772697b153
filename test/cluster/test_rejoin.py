"""Who was away comes back: by streaming, by rewind, by re-clone, or as a new member; never with a
history of its own, and never as somebody who counts before it has what it must have."""

import contextlib
import json
import os
import random
import threading
import re
import shutil
import signal
import socket
import subprocess
import time

import psycopg2
import pytest

import harness
from load import Pending, WriteLoop
from test_basics import wait_for_syncrep
from test_http import get, status


def durable(cluster, node):
    with open(cluster.path(node, "state.json"), encoding="ascii") as f:
        return json.load(f)


def kill_with_unacknowledged_tail(cluster, leader):
    """Leaves `leader` down with rows in its WAL that no other node has. Returns their numbers."""
    tail = []
    with cluster.replication_stalled(leader):
        before = cluster.super(leader, "SELECT pg_current_wal_flush_lsn()")[0][0]
        writes = []
        for node in cluster.names():
            n = cluster.ledger.take()
            cluster.ledger.note(n, False)
            tail.append(n)
            writes.append(Pending(cluster.connect(node),
                                  "INSERT INTO ledger VALUES (%s)", (n,)))
        wait_for_syncrep(cluster, leader)
        harness.wait_until(
            "the tail is in the leader's WAL",
            lambda: cluster.super(leader, "SELECT pg_current_wal_flush_lsn() > %s::pg_lsn",
                                  (before,))[0][0], poll=0.005)
        cluster.kill_down(leader)
    assert not any(w.succeeded for w in writes), "an unreplicated row was acknowledged"
    return tail


def rewound(text):
    return re.search(r"rewind|rewound", text, re.I)


def cloned(text):
    return re.search(r"clon", text, re.I)


def test_diverged_leader_is_rewound(cluster):
    leader = cluster.leader()
    old = cluster.super(leader, "SELECT system_identifier FROM pg_control_system()")
    tail = kill_with_unacknowledged_tail(cluster, leader)
    mark = cluster.log_mark(leader)
    cluster.wait_open(other_than=leader)
    cluster.insert(count=5)
    cluster.start(leader)
    cluster.wait_healthy(60)
    text = cluster.log_since(mark)
    assert rewound(text), "no rewind in the node's log"
    assert not re.search(r"re-?clon(ing|ed)", text, re.I), "rewind failed and it was cloned"
    assert cluster.super(leader, "SELECT system_identifier FROM pg_control_system()") == old
    counts = cluster.ledger_counts(leader)
    assert not any(n in counts for n in tail), "unacknowledged rows survived on the old leader"


def test_s09_rewind_right_after_the_promotion(cluster):
    """pg_rewind decides wrongly before the new leader's first checkpoint: start it at once."""
    leader = cluster.leader()
    tail = kill_with_unacknowledged_tail(cluster, leader)
    cluster.start(leader)  # it may even lead again, then its tail has simply survived
    cluster.wait_healthy(60)
    counts = [cluster.ledger_counts(n) for n in cluster.names()]
    assert len({tuple(n in c for n in tail) for c in counts}) == 1


def test_s01_diverged_follower_does_not_count_before_it_is_rewound(cluster):
    """Only the new leader and the old one, which is ahead of the fork by rows nobody else has, are
    up. What is acknowledged now must be on both: the new leader dies next."""
    old = cluster.leader()
    kill_with_unacknowledged_tail(cluster, old)
    new = cluster.wait_open(other_than=old)
    third = next(n for n in cluster.names() if n not in (old, new))
    cluster.kill_down(third)
    conn = cluster.connect(new)
    n = cluster.ledger.take()
    write = Pending(conn, "INSERT INTO ledger VALUES (%s)", (n,))
    cluster.start(old)
    write.wait(30)
    cluster.ledger.note(n, write.succeeded)
    cluster.wait_open(30)
    cluster.insert(count=10)
    cluster.kill_down(cluster.leader())
    cluster.start(third)
    cluster.wait_open(30)
    cluster.ledger.check(cluster.ledger_counts())


def advance_wal(cluster, mbytes=144):
    """So much WAL, mostly the unused ends of segments, that what was there before is recycled on
    every running node (they keep 64 MB)."""
    leader = cluster.leader()
    size = cluster.super(leader, "SELECT setting::bigint FROM pg_settings"
                                 " WHERE name = 'wal_segment_size'")[0][0]
    conn = cluster.super(leader)
    with conn.cursor() as cur:
        cur.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")
        before = cur.fetchone()[0][8:]  # without the timeline
        for _ in range(8):  # how much a checkpoint keeps is PostgreSQL's estimate, not ours
            for _ in range((mbytes << 20) // size):
                cur.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
                cur.execute("SELECT pg_switch_wal()")
            cur.execute("CHECKPOINT")
            cluster.insert(leader)
            cur.execute("CHECKPOINT")
            running = [n for n in cluster.names() if cluster.postmaster(n)]
            for n in running:  # whoever leads a moment from now must not have it either
                if n != leader:
                    cluster.wait_replayed(n, cluster.lsn(leader))
                    cluster.super(n, "CHECKPOINT")
            if min(name[8:] for n in running for name in wal_files(cluster, n)) > before:
                break
        else:
            raise AssertionError(f"WAL of {before} is still kept")
    conn.close()


def wal_files(cluster, node):
    return {f for f in os.listdir(cluster.path(node, "data", "pg_wal")) if re.fullmatch("[0-9A-F]{24}", f)}


def test_s16_leader_returns_with_its_wal_too_old(small_wal):
    """The WAL it needs is gone everywhere: re-clone beside, not an endless retry."""
    c = small_wal
    leader = c.leader()
    tail = kill_with_unacknowledged_tail(c, leader)
    mark = c.log_mark(leader)
    last = max(wal_files(c, leader))
    c.wait_open(other_than=leader)
    advance_wal(c)
    kept = wal_files(c, c.leader())
    assert not any(f[8:] <= last[8:] for f in kept), "the test did not get rid of the old WAL"
    c.start(leader)
    c.wait_log(mark, "cloned", 60)
    c.wait_healthy(60)
    assert not any(n in c.ledger_counts(leader) for n in tail)


def test_s16_clean_follower_far_behind(small_wal):
    c = small_wal
    behind = c.followers()[0]
    me = durable(c, behind)
    c.kill_down(behind)
    mark = c.log_mark(behind)
    advance_wal(c)
    c.start(behind)
    c.wait_log(mark, "cloned", 60)  # it streams, for a moment, until it hears that what it wants is gone
    c.wait_healthy(60)
    now = durable(c, behind)
    assert (now["id"], now["uuid"]) == (me["id"], me["uuid"]), "a re-clone is the same member"


def test_s16_follower_whose_replay_ends(cluster):
    """Its PostgreSQL starts, and gives up at the first commit that it replays, each time: what it has is of no use."""
    behind = cluster.followers()[0]
    cluster.insert(count=20)
    cluster.wait_replayed(behind, cluster.lsn(cluster.leader()))
    cluster.kill_down(behind)
    for name in os.listdir(cluster.path(behind, "data", "pg_xact")):
        os.remove(cluster.path(behind, "data", "pg_xact", name))
        os.mkdir(cluster.path(behind, "data", "pg_xact", name))
    mark = cluster.log_mark(behind)
    cluster.start(behind)
    cluster.wait_healthy(60)
    tries = len(re.findall("ended unasked, exit status 1.*FATAL", cluster.log_since(mark)))
    assert tries >= 5 and cloned(cluster.log_since(mark)), cluster.log_since(mark)
    cluster.verify()


def test_s19_clone_brings_no_state_of_the_leader(small_wal):
    """What an operator left in the leader's postgresql.auto.conf must not rule on the clone."""
    c = small_wal
    leader, behind = c.leader(), c.followers()[0]
    c.super(leader, "ALTER SYSTEM SET primary_conninfo = 'host=/nowhere'")
    c.super(leader, "ALTER SYSTEM SET synchronous_standby_names = ''")
    try:
        c.kill_down(behind)
        mark = c.log_mark(behind)
        advance_wal(c)
        c.start(behind)
        c.wait_log(mark, "cloned", 60)
        c.wait_healthy(60)
        with open(c.path(behind, "data", "postgresql.auto.conf"), encoding="ascii") as f:
            text = f.read()
        assert "nowhere" not in text
        assert durable(c, behind)["uuid"] != durable(c, leader)["uuid"]
    finally:
        for node in c.names():
            if c.postmaster(node):
                c.super(node, "ALTER SYSTEM RESET ALL")


def freeze_clone(cluster, node, timeout=30):
    """Waits for the node's copy to run and stops it there."""
    def running():
        return [p for p in cluster.all_processes(node) if "pg_basebackup" in p.args]

    found = harness.wait_until(f"{node} clones", running, timeout, 0.002)
    cluster.freeze(*found)
    return found


def copied_anew(cluster):
    """A follower that has lost its volume, in the middle of the copy; and what was frozen for that."""
    victim = cluster.followers()[0]
    cluster.kill_down(victim)
    lose_volume(cluster, victim)
    cluster.start(victim)
    return victim, freeze_clone(cluster, victim)


def test_not_ready_while_it_is_cloned(small_wal):
    """A drain goes on to the next pod as soon as this one is ready, and two of three copies would be gone."""
    c = small_wal
    victim, copy = copied_anew(c)
    until = time.monotonic() + 8
    while time.monotonic() < until:
        code, _, why = get(c, victim, "readyz")
        assert code == 503 and "neither leads nor streams" in why
        assert status(c, victim, "livez") == 200
        assert all(status(c, n, "readyz") == 200 for n in c.names() if n != victim)
        time.sleep(0.2)
    leader = c.leader()
    c.kill_down(leader)  # with this one away nobody can lead: and no question of quorum
    other = next(n for n in c.names() if n not in (leader, victim))
    harness.wait_until("nobody leads", lambda: c.open_leader(c.status()) is None, 10)
    for n in (victim, other):
        harness.wait_until(f"{n} is ready", lambda n=n: status(c, n, "readyz") == 200, 10)
    c.start(leader)
    c.thaw(*copy)
    c.wait_healthy(60)
    assert all(status(c, n, "readyz") == 200 for n in c.names())


def test_s08_node_half_through_a_clone_reports_nothing(small_wal):
    """The leader is lost while a voter re-clones. The other follower alone may lack what the leader
    and the cloning one acknowledged together: nobody may lead until a third voice is there."""
    c = small_wal
    leader = c.leader()
    cloning, other = c.followers()
    c.bulk(30)
    c.kill_down(cloning)
    advance_wal(c)
    c.start(cloning)
    copy = freeze_clone(c, cloning)
    n = c.insert(leader, count=5)
    c.kill_down(leader)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        assert c.open_leader(c.status()) is None, "elected with a report from a half-made clone"
        time.sleep(0.1)
    c.start(leader)
    c.thaw(*copy)
    c.wait_healthy(60)
    assert c.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]
    assert other


def test_s08_killed_while_it_was_cloned_and_the_leader_is_gone(small_wal):
    """What it had has not been touched, and it knows: with the other follower it is two of three."""
    c = small_wal
    leader = c.leader()
    cloning, other = c.followers()
    c.bulk(30)
    n = c.insert(leader, count=5)
    c.wait_replayed(cloning, c.lsn(leader))
    c.kill_down(cloning)
    advance_wal(c)
    c.start(cloning)
    freeze_clone(c, cloning)
    c.kill_down(cloning)
    c.kill_down(leader)
    c.start(cloning)
    assert c.wait_open(30) == other
    assert c.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]
    c.start(leader)
    c.wait_healthy(60)
    c.verify()


def test_killed_in_the_middle_of_a_clone(small_wal):
    c = small_wal
    c.bulk(60)
    victim, _ = copied_anew(c)
    c.kill_down(victim)
    c.start(victim)
    c.wait_healthy(60)
    c.verify()
    left = [f for f in os.listdir(c.path(victim)) if re.match(r"data\W", f)]
    assert not left, f"left over from the broken clone: {left}"


def test_sigterm_in_the_middle_of_a_clone(small_wal):
    """It does not wait for a copy of hours, until it is killed."""
    c = small_wal
    c.bulk(60)
    victim, _ = copied_anew(c)
    mark, sentinel = c.log_mark(victim), c.sentinel(victim)
    sentinel.send(signal.SIGTERM)
    harness.wait_until("it ends", lambda: not sentinel.alive(), 8)
    assert "ended with status 0" in c.log_since(mark)
    c.heal(60)
    c.verify()


def kill_in_the_middle_of_a_rewind(cluster):
    """Returns that node, which is down, and its leader."""
    old = cluster.leader()
    kill_with_unacknowledged_tail(cluster, old)
    new = cluster.wait_open(other_than=old)
    cluster.bulk(10)
    cluster.start(old)

    def running():
        return [p for p in cluster.all_processes(old) if "pg_rewind" in p.args]

    found = harness.wait_until("pg_rewind runs", running, 30, 0.001)
    cluster.freeze(*found)
    cluster.kill_down(old)
    return old, new


def test_killed_in_the_middle_of_a_rewind(cluster):
    half, _ = kill_in_the_middle_of_a_rewind(cluster)
    cluster.start(half)
    cluster.wait_healthy(60)


def test_s08_the_newest_leader_and_a_half_rewound_follower_are_enough(cluster):
    """The third never comes back: who led last has all that was acknowledged, and says so."""
    half, leader = kill_in_the_middle_of_a_rewind(cluster)
    third = next(n for n in cluster.names() if n not in (half, leader))
    cluster.kill_down(third)
    cluster.kill_down(leader)
    cluster.start(half)
    cluster.start(leader)
    assert cluster.wait_open(30) == leader
    cluster.insert(count=5)
    cluster.ledger.check(cluster.ledger_counts(leader))


def test_s08_half_rewound_and_another_holds_all(cluster):
    """Who led last is down for good. The half rewound one took no part in that epoch: the third holds all of it."""
    half, leader = kill_in_the_middle_of_a_rewind(cluster)
    third = next(n for n in cluster.names() if n not in (half, leader))
    count = cluster.super(third, "SELECT count(*) FROM ledger")
    cluster.kill_down(leader)
    cluster.start(half)
    assert cluster.wait_open(other_than=leader, timeout=40) == third
    assert cluster.execute("SELECT count(*) FROM ledger") == count
    cluster.start(leader)
    cluster.wait_healthy(60)


def test_s08_who_lost_its_data_but_not_its_memory(cluster):
    """It knows that it took part in the newest epoch, and not what it held: without that epoch's leader nobody leads."""
    leader, (lost, third) = cluster.leader(), cluster.followers()
    cluster.insert(count=3)
    cluster.kill_down(lost)
    cluster.kill_down(leader)
    remove(cluster.path(lost, "data"))
    cluster.start(lost)
    harness.wait_until("somebody is elected and gives up", lambda: any(
        "no majority of the voters has reported" in cluster.log_text(n) for n in (lost, third)), 40)
    assert cluster.open_leader(cluster.status()) is None
    cluster.start(leader)
    cluster.wait_healthy(60)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def volume(cluster, node):
    """The parts of a node's directory that make it the node it is."""
    return [f for f in ("data", "raft", "state.json", "founding.json")
            if os.path.exists(cluster.path(node, f))]


def lose_volume(cluster, node):
    """All that a volume holds; certificates come from elsewhere, and logs are for us."""
    for entry in os.listdir(cluster.path(node)):
        if entry not in ("tls", "log", "pki"):
            remove(cluster.path(node, entry))


def test_s15_leader_returns_with_its_volume_gone(cluster):
    """It comes back under its name as a new member with a new id; node 0 founds no second cluster."""
    if cluster.leader() != "demo-0":
        cluster.switchover("demo-0")
        cluster.wait_healthy()
    before, st = durable(cluster, "demo-0"), cluster.status()
    cluster.kill_down("demo-0")
    cluster.wait_open(other_than="demo-0")
    cluster.insert(count=3)
    lose_volume(cluster, "demo-0")
    cluster.start("demo-0")
    cluster.wait_healthy(60)
    now = durable(cluster, "demo-0")
    assert now["cluster_id"] == before["cluster_id"]
    assert now["id"] != before["id"] and now["uuid"] != before["uuid"]
    assert cluster.status()["cluster"] == st["cluster"]
    rule = cluster.super(cluster.leader(), "SHOW synchronous_standby_names")[0][0]
    assert rule.count("demo-") == 2 and "ANY 1" in rule


def test_s15_node_0_with_lost_volume_and_nobody_else_up(cluster):
    """All are empty-handed or away: waiting is right, a second cluster is not."""
    n = cluster.insert()
    for node in cluster.names():
        cluster.kill_down(node)
    lose_volume(cluster, "demo-0")
    cluster.start("demo-0")
    time.sleep(2.5)
    assert cluster.open_leader(cluster.status()) is None
    assert not os.path.exists(cluster.path("demo-0", "data", "PG_VERSION"))
    cluster.start("demo-1")
    cluster.start("demo-2")
    cluster.wait_healthy(60)
    assert cluster.execute("SELECT count(*) FROM ledger WHERE n = %s", (n,)) == [(1,)]


def test_s14_old_incarnation_of_a_volume_is_a_stranger(cluster):
    """A follower's volume is lost, it joins anew, then the old volume is found again."""
    node = cluster.followers()[0]
    cluster.kill_down(node)
    aside = os.path.join(cluster.home, "aside")
    os.mkdir(aside)
    kept = volume(cluster, node)
    try:
        for part in kept:
            shutil.move(cluster.path(node, part), os.path.join(aside, part))
        cluster.start(node)
        cluster.wait_healthy(60)
        new = durable(cluster, node)
        cluster.kill_down(node)
        anew = volume(cluster, node)
        for part in anew:
            shutil.move(cluster.path(node, part), os.path.join(aside, "new-" + part))
        for part in kept:
            shutil.move(os.path.join(aside, part), cluster.path(node, part))
        cluster.start(node)
        leader = cluster.leader()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            st = cluster.node(node)
            assert st is None or st["state"] not in ("streaming", "open"), "the old volume streams"
            time.sleep(0.2)
        assert cluster.leader() == leader
        cluster.insert(leader)
        rule = cluster.super(leader, "SHOW synchronous_standby_names")[0][0]
        assert new["uuid"][:8] in rule, f"the rule {rule} does not name the present incarnation"
        cluster.kill_down(node)
        lose_volume(cluster, node)
        for part in anew:
            shutil.move(os.path.join(aside, "new-" + part), cluster.path(node, part))
        cluster.start(node)
        cluster.wait_healthy(60)
        assert durable(cluster, node)["id"] == new["id"]
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def phase(text, name, epoch=None):
    return re.search(rf"phase={name} epoch=({epoch or r'[0-9]+'})\b", text)


def test_s04_same_timeline_number_in_two_epochs(cluster):
    """b promotes in one epoch and dies before anybody took a byte from it; c promotes in the next from
    the same fork. Both call their timeline by the same number (unless numbers are steered); b's WAL
    is not c's. While b is alone with its promotion, its gate must stay shut (no barrier)."""
    for _ in range(4):
        if promoted_alone(cluster):
            return
        cluster.heal()
    pytest.fail("could not stop a new leader between its promotion and its barrier in 4 attempts")


def near_the_segments_end(cluster, leader, least, most):
    """Writes until so many bytes are left of a segment. The LSN, as a number, and the segment's size and name."""
    size = int(cluster.super(leader, "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")[0][0])
    for _ in range(50):
        lsn = int(cluster.super(leader, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])
        left = size - lsn % size
        if least < left < most:
            name = cluster.super(leader, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0]
            return lsn, size, name
        pad = left - (least + most) // 2 if left > most else left + 600
        cluster.super(leader, "SELECT pg_logical_emit_message(false, 'pad', repeat('x', %s))", (pad - pad // 300,))
        cluster.insert()  # flushed, everywhere
    pytest.fail("could not get near a segment's end")


@pytest.mark.parametrize("least, most", [
    pytest.param(400, 1300, id="which the next leader passes"),
    pytest.param(4500, 7000, id="before which the next leader waits"),
])
def test_s01_record_cut_at_a_segments_end(cluster, least, most):
    """Both followers have the beginning of a record, up to the end of its segment, and the leader is gone. One leads, from before that
    record. The other would ask for the next segment, keep its beginning of the old record, and confirm what it cannot replay."""
    a = cluster.leader()
    cluster.insert(count=3)
    lsn, size, name = near_the_segments_end(cluster, a, least, most)
    for node in cluster.followers():
        cluster.wait_replayed(node, cluster.lsn(a))
    followers = cluster.followers()
    marks = [cluster.log_mark(n) for n in followers]
    for node in followers:
        cluster.kill_down(node)
    cluster.super(a, "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'cut', repeat('y', 50000))")
    with open(cluster.path(a, "data", "pg_wal", name), "rb") as f:
        f.seek(lsn % size)
        tail = f.read()
    cluster.kill_down(a)
    for node in followers:
        with open(cluster.path(node, "data", "pg_wal", name), "r+b") as f:
            f.seek(lsn % size)
            f.write(tail)
    for node in followers:
        cluster.start(node)
    cluster.wait_open(30)
    n = cluster.insert(count=3, node=cluster.leader())
    cluster.start(a)
    cluster.wait_healthy(60)
    for node in cluster.names():
        cluster.wait_replayed(node, cluster.lsn(cluster.leader()))
        assert (n,) in cluster.super(node, "SELECT n FROM ledger", dbname=cluster.login()[2])
    assert any("part of another history" in cluster.log_since(m) for m in marks), "nobody's record was cut: this tests nothing"


def promoted_alone(cluster):
    a, first = cluster.leader(), cluster.epoch()
    marks = {n: cluster.log_mark(n) for n in cluster.followers()}
    nodes = {n: cluster.node_process(n) for n in marks}  # to look for it later takes as long as the step to be stopped
    cluster.kill_down(a)
    b = harness.wait_until(
        "somebody is appointed",
        lambda: next((n for n, m in marks.items() if phase(cluster.log_since(m), "appointed")), None),
        poll=0.001)
    c = next(n for n in marks if n != b)
    cluster.freeze(nodes[c])
    cluster.freeze(*cluster.backends(c, "walreceiver"))
    appointed = int(phase(cluster.log_since(marks[b]), "appointed").group(1))
    cluster.wait_log(marks[b], f"phase=promoted epoch={appointed}", 10)
    time.sleep(0.5)
    if phase(cluster.log_since(marks[b]), "barrier", appointed):
        return False  # c was faster than we
    assert cluster.open_leader(cluster.status()) is None, "open without a barrier"
    try:
        timeline = cluster.timeline(b)
        for i in range(3):  # WAL of b's own on that timeline
            cluster.super(
                b, f"SET synchronous_commit = off; CREATE TABLE only_b_{i} AS SELECT {i} AS x")
    except psycopg2.Error:
        return False  # it has given up already, and PostgreSQL is a standby again
    cluster.kill_down(b)
    mark_b, mark_c = cluster.log_mark(b), cluster.log_mark(c)
    cluster.thaw()
    cluster.start(a)
    cluster.wait_open(30)
    leader = cluster.leader()
    new = cluster.timeline(leader)
    cluster.insert(count=20)
    cluster.start(b)
    cluster.wait_healthy(60)
    assert cluster.epoch() > appointed > first
    text = cluster.log_since(mark_b)
    print(f"timelines: {timeline} in epoch {appointed} on {b}, {new} in epoch {cluster.epoch()}; {mark_c}")
    if new == timeline:
        assert cloned(text), f"timeline {new} twice, but {b} was not re-cloned"
    else:
        assert cloned(text) or rewound(text), f"{b} was neither rewound nor re-cloned"
    cluster.verify_same()
    for node in cluster.names():
        assert cluster.super(node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'only_b%'") == [(0,)]
    return True


def test_follower_away_for_a_while_just_streams(cluster):
    away = cluster.followers()[0]
    cluster.kill_down(away)
    mark = cluster.log_mark(away)
    cluster.insert(count=50)
    cluster.start(away)
    cluster.wait_healthy()
    text = cluster.log_since(mark)
    assert not re.search(r"re-?cloning|rewinding", text, re.I)


def test_restart_of_a_follower_under_load(cluster):
    with WriteLoop(cluster, clients=2) as writers:
        for node in cluster.followers():
            writers.wait_for_ack()
            cluster.run("kill", node, "--signal", "TERM")
            writers.wait_for_ack()
            cluster.heal()


def test_founder_that_died_before_anybody_had_copied(tmp_path):
    """The others, empty, began anew. Its data are of a founding that came to nothing: they go, and it is one of them."""
    with harness.Cluster(replicas=3, start=False) as c:
        t = threading.Thread(target=lambda: c.up(check=False, timeout=60), daemon=True)
        t.start()
        harness.wait_until("promoted", lambda: "phase=promoted" in c.log_text("demo-0"), 30, poll=0.002)
        c.kill_down("demo-0")
        t.join()
        c.wait_open(40, other_than="demo-0")
        c.start("demo-0")
        c.wait_healthy(60)


def test_wal_receiver_is_back_at_once_whatever_the_postmaster_does(cluster):
    """The end of a WAL receiver and the request for the next may meet the postmaster in the middle of a connection; up to
    PostgreSQL 15 it then forgets the request for 15 s, one time in ten or twenty. So long no follower streams, and there may
    be no barrier."""
    node, rng = cluster.followers()[0], random.Random(1)
    path = cluster.path(node, "sock", ".s.PGSQL.5432")
    for _ in range(100):
        receiver, = harness.wait_until("a WAL receiver", lambda: cluster.backends(node, "walreceiver"), 5)
        time.sleep(rng.uniform(0.03, 0.05))  # it connects
        with contextlib.ExitStack() as stack:
            for _ in range(rng.randrange(1, 7)):
                stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
            time.sleep(rng.uniform(0, 0.003))
            receiver.send(signal.SIGTERM)
            harness.wait_until("another WAL receiver", lambda old=receiver: [
                p for p in cluster.backends(node, "walreceiver") if p != old], 5)
    cluster.wait_healthy()


def test_killed_before_it_had_a_new_timeline_from_its_beginning(cluster):
    """A WAL receiver fetches a new timeline from the beginning of a segment that it has already, from the one before. Killed there,
    PostgreSQL would never start again: it prefers the newer segment, and that ends before the timeline begins. All that this node
    ever acknowledged is in the older one."""
    node, other = cluster.followers()
    wal = cluster.path(node, "data", "pg_wal")
    cluster.insert(count=50)
    cluster.wait_replayed(node, cluster.lsn(cluster.leader()))
    cluster.kill_down(node)
    subprocess.run(["cp", "-a", cluster.path(node, "data"), cluster.path(node, "before")], check=True)
    cluster.start(node)
    cluster.wait_healthy()
    cluster.insert(count=300)  # so that the fork is not at a segment's beginning
    cluster.switchover(to=other)
    cluster.insert(count=20)
    cluster.wait_healthy()
    timeline = cluster.timeline(other)
    cluster.wait_replayed(node, cluster.lsn(other))
    cluster.kill_down(node)
    parent, fork = fork_of(wal, timeline)
    (size,) = {os.path.getsize(os.path.join(wal, f)) for f in os.listdir(wal) if len(f) == 24}
    received = fork % size // 8192 * 8192 - 8192
    assert received > 0
    name = f"{fork // size // (2**32 // size):08X}{fork // size % (2**32 // size):08X}"
    # As if it had been killed then: the older state, all of the older timeline, the beginning of the newer.
    subprocess.run(["rm", "-r", cluster.path(node, "before", "pg_wal")], check=True)
    subprocess.run(["cp", "-a", wal, cluster.path(node, "before", "pg_wal")], check=True)
    subprocess.run(["rm", "-r", cluster.path(node, "data")], check=True)
    os.rename(cluster.path(node, "before"), cluster.path(node, "data"))
    with open(os.path.join(wal, f"{parent:08X}{name}"), "rb") as old, open(os.path.join(wal, f"{timeline:08X}{name}"), "r+b") as new:
        assert old.read(fork % size) == new.read(fork % size)
        new.seek(received)
        new.write(bytes(size - received))
    segment = os.path.join(wal, f"{timeline:08X}{name}")
    # A disk that does not let it be read says nothing about what is in it.
    os.rename(segment, segment + ".aside")
    os.mkdir(segment)
    mark = cluster.log_mark(node)
    cluster.start(node)
    cluster.wait_log(mark, f"cannot read .*{timeline:08X}{name}: Is a directory")
    cluster.kill_down(node)
    os.rmdir(segment)
    os.rename(segment + ".aside", segment)
    mark = cluster.log_mark(node)
    cluster.start(node)
    cluster.wait_log(mark, f"timeline {timeline} was not received as far as")
    assert os.path.exists(segment + ".partial")
    cluster.wait_healthy()
    assert "cloning" not in cluster.log_since(mark)
    cluster.wait_replayed(node, cluster.lsn(other))


def fork_of(wal, timeline):
    """The timeline before, and where it was left, by the history file."""
    with open(os.path.join(wal, f"{timeline:08X}.history"), encoding="ascii") as f:
        parent, lsn = [line.split()[:2] for line in f if line.strip()][-1]
    high, low = lsn.split("/")
    return int(parent), int(high, 16) << 32 | int(low, 16)
