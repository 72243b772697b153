"""Faults of disks, clocks and hosts bite, and end. (Those of wires: test_wire.py; what the cluster makes of all of
them: the random runs.)"""

import os
import time

import psycopg2
import pytest

import faults
import harness
import lab as laboratory
from schedule import FAULTS, MEMBERS, Event


def shared(**how):
    made = laboratory.Lab(**how)
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def lab_shared():
    yield from shared(seed=5)


@pytest.fixture
def lab(lab_shared):
    lab_shared.heal()
    return lab_shared


def begin(lab, fault, target, **values):
    assert fault in FAULTS or fault in MEMBERS
    return faults.Faults(lab).begin(Event(0, 1, fault, target, values))


def follower(lab):
    return [n for n in lab.names() if n != lab.leader()][0]


def test_clock_jump(lab):
    node = follower(lab)

    def ahead():
        return float(lab.super(node, "SELECT extract(epoch FROM clock_timestamp())",
                               dbname="postgres")[0][0]) - time.time()

    assert abs(ahead()) < 2
    end = begin(lab, "clock_jump", "follower-0", offset_s=86400)
    assert abs(ahead() - 86400) < 2
    lab.insert(count=20)
    end()
    assert abs(ahead()) < 2


def test_a_slow_disk(lab):
    end = begin(lab, "disk_slow", "all", flush_delay_us=300000)
    begun = time.monotonic()
    lab.insert()
    slow = time.monotonic() - begun
    end()
    begun = time.monotonic()
    lab.insert()
    assert slow > 0.3 and time.monotonic() - begun < slow


def test_a_full_disk_is_survived(lab):
    node = follower(lab)
    end = begin(lab, "disk_full", "follower-0")
    assert os.statvfs(lab.path(node)).f_bavail == 0
    lab.insert(count=50)
    end()
    assert os.statvfs(lab.path(node)).f_bavail > 0


def test_a_disk_that_says_no_costs_leadership_not_rows(lab):
    leader, epoch = lab.leader(), lab.epoch()
    end = begin(lab, "disk_fails", "leader")
    try:
        lab.insert(leader)
    except psycopg2.Error:
        pass  # its fate is noted as unknown
    harness.wait_until("PostgreSQL gives up", lambda: "PANIC" in lab.log_text(leader, "postgresql.log"), 10)
    lab.wait_open(30, after_epoch=epoch)
    lab.insert([n for n in lab.names() if n != leader][0])
    end()
    lab.wait_healthy(30)
    lab.ledger.check(lab.ledger_counts())


def test_a_candidate_whose_vote_cannot_be_kept_ends_and_does_not_crash(lab):
    """libraft leaves wild pointers behind when a candidate's term cannot be written (seed 303 found it)."""
    leader = lab.leader()
    others = [n for n in lab.names() if n != leader]
    marks = {n: lab.log_mark(n) for n in others}
    for n in others:
        lab.trouble[n].set(flush_fails=1)
    lab.kill(leader, lab.node_process(leader))  # its sentinel tells the others: one stands for election at once
    harness.wait_until("a candidate gives up", lambda: any(
        "cannot write term and vote" in lab.log_since(m) for m in marks.values()), 20)
    time.sleep(2)  # messages that would make it stumble
    for n in others:
        lab.trouble[n].clear()
    lab.wait_healthy(30)
    lab.verify_no_crash()
    lab.insert(count=5)


def test_a_lost_volume_is_copied_anew(lab):
    node = follower(lab)
    before = (lab.ask(node) or {})["id"]
    lab.insert(count=10)
    begin(lab, "volume_lost", "follower-0")()
    lab.wait_healthy(30)
    assert lab.ask(node)["id"] != before, "the volume is the old one"
    lab.verify()


def test_a_second_volume_is_not_taken_before_the_first_is_back(lab):
    end = begin(lab, "volume_lost", "follower-0")
    assert begin(lab, "volume_lost", "follower-1") is None
    end()
    lab.wait_healthy(30)


def test_all_hosts_at_once(lab):
    n = lab.insert(count=20)
    begin(lab, "all_hosts", "all")()
    lab.wait_healthy(30)
    lab.verify()
    assert n in lab.ledger_counts()


def test_a_host_without_power_has_what_was_flushed_and_nothing_else(lab):
    node = follower(lab)
    kept, lost = lab.path(node, "kept"), lab.path(node, "lost")
    with open(kept, "w", encoding="ascii") as f:
        f.write("x" * 5000)
        f.flush()
        os.fsync(f.fileno())
    with open(lost, "w", encoding="ascii") as f:
        f.write("x" * 5000)
    n = lab.insert(count=20)
    end = begin(lab, "host_gone", "follower-" + str([m for m in lab.names() if m != lab.leader()].index(node)))
    assert os.path.getsize(kept) == 5000
    assert not os.path.exists(lost) or not os.path.getsize(lost)
    assert "starting PostgreSQL" in lab.log_text(node, "postgresql.log")  # which is evidence, and not the product's
    end()
    lab.heal()
    lab.wait_replayed(node, lab.lsn(lab.leader()))
    assert lab.ledger_counts(node)[n] == 1
    os.remove(kept)


@pytest.mark.parametrize("asked", (1, 0))
def test_who_was_scaled_away_comes_back(lab, asked):
    node = lab.names()[-1]
    before = lab.ask(node)["id"]
    end = begin(lab, "scale", "last", asked=asked)
    assert node in lab.away and not lab.all_processes(node) and lab.open_leader(lab.status()) != node
    assert (node in [m["name"] for m in lab.ask(lab.leader())["members"]]) == (not asked)
    lab.insert(lab.leader(), count=10)
    assert begin(lab, "volume_lost", "follower-0") is None  # not while a copy is missing
    end()
    lab.wait_healthy(40)
    assert (lab.ask(node)["id"] != before) == bool(asked)
    lab.verify()


@pytest.fixture(scope="module")
def scaled_shared():
    yield from shared(seed=8, founders=1)


@pytest.fixture
def scaled(scaled_shared):
    scaled_shared.heal()
    return scaled_shared


def test_an_empty_founder_that_hears_nobody_founds_nothing(scaled):
    scaled.insert(count=10)
    mark = scaled.log_mark("demo-0")
    end = begin(scaled, "founder_empty", "first", alone=1)
    scaled.wait_log(mark, "the volume is empty")
    time.sleep(4)
    assert "founding the cluster" not in scaled.log_since(mark)
    end()
    scaled.wait_healthy(40)
    scaled.verify()


def test_who_comes_back_knowing_the_founder_alone_hears_of_its_removal(scaled):
    """Who leads is somebody else, and nobody tells one that is no member who that is."""
    node, founder = scaled.names()[-1], scaled.names()[0]
    before = scaled.ask(node)["id"]
    end = begin(scaled, "scale", "last", asked=1)
    if scaled.leader() == founder:
        scaled.ask(founder, "switchover", 15, to="")
        scaled.wait_open(20, other_than=founder)
    end()
    scaled.wait_healthy(40)
    assert scaled.leader() != founder and scaled.ask(node)["id"] != before
    scaled.verify()


class Recorder:
    """Stands for a laboratory: what is set, and when it is unset."""

    def __init__(self):
        self.net, self.trouble, self.away = self, {"a": self}, set()
        self.now, self.dropped = {}, 0

    @staticmethod
    def names():
        return ["a", "b", "c"]

    @staticmethod
    def status():
        return None

    @staticmethod
    def open_leader(_):
        return "a"

    def note(self, *_):
        pass

    def stats(self):
        return {"dropped": self.dropped}

    def set(self, *where, **values):
        for key, value in values.items():
            self.now[*where, key] = value

    def return_host(self, node):
        for other in self.names():
            self.now[node, other, "cut"] = self.now[other, node, "cut"] = 0

    def stop_host(self, node):
        pass


def test_faults_that_overlap_last_until_their_own_end():
    lab = Recorder()
    many = faults.Faults(lab)

    def cut(a, b):
        return lab.now.get((a, b, "cut"), 0)

    isolated = many.begin(Event(0, 1, "isolate", "leader", {}))
    out = many.begin(Event(0, 1, "cut_out", "leader", {}))
    killed = many.begin(Event(0, 1, "pod_killed", "leader", {}))
    killed()  # a host that returns has all its wires whole
    assert cut("a", "b") and cut("b", "a")
    isolated()
    assert cut("a", "b") and not cut("b", "a")
    out()
    assert not cut("a", "b")
    slow = many.begin(Event(0, 1, "disk_slow", "leader", {"flush_delay_us": 7}))
    slower = many.begin(Event(0, 1, "disk_slow", "leader", {"flush_delay_us": 9}))
    assert lab.now["flush_delay_us",] == 9
    slower()
    assert lab.now["flush_delay_us",] == 7
    slow()
    assert lab.now["flush_delay_us",] == 0


def test_a_cut_that_stopped_nothing_hit_nobody():
    lab = Recorder()
    many = faults.Faults(lab)
    for dropped, missed in ((1, 0), (0, 1)):
        end = many.begin(Event(0, 1, "isolate", "leader", {}))
        lab.dropped += dropped
        end()
        assert many.missed == missed
