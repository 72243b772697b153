"""`holdfast chaos`: what it does, what it finds, and what it leaves."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import threading

import pytest

import harness
import procs

# The first fault that the seed gives: a node that stands still for almost three seconds.
STOPS_LEADER_2967_MS, STOPS_FOLLOWER_2936_MS = 147, 36


def chaos(cluster, *args):
    done = cluster.run("chaos", "--yes", "--json", *args, check=False, timeout=100)
    report = json.loads(done.stdout) if done.stdout else None
    return done, report


@contextlib.contextmanager
def running(cluster, *args, seed=STOPS_LEADER_2967_MS, stdin=subprocess.DEVNULL, before=lambda: None):
    """A chaos under way, its first fault begun; yields it and the node that stands still."""

    def prepare():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have them switched off
        before()

    command = [harness.BINARY, "chaos", "--yes", "--json", "--dir", cluster.dir, "--seed", seed, "--seconds", 60, *args]
    # pylint: disable=subprocess-popen-preexec-fn
    with subprocess.Popen(list(map(str, command)), stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env={**os.environ, **cluster.env}, start_new_session=True,
                          preexec_fn=prepare) as run:
        try:
            yield run, harness.wait_until("a node stands still", lambda: stopped(cluster), 20, 0.005)[0]
        finally:
            if run.poll() is None:
                run.kill()


def stopped(cluster):
    """The nodes that are in SIGSTOP."""
    found = {node: cluster.node_process(node) for node in cluster.names()}
    return [node for node, process in found.items() if process and process.state == "T"]


def end(run, timeout=60):
    out, err = run.communicate(timeout=timeout * harness.PATIENCE)
    return json.loads(out) if out else None, err


def lives(cluster):
    """What changes if anything is done to a cluster."""
    pids = {node: (cluster.sentinel(node), cluster.node_process(node), cluster.postmaster(node))
            for node in cluster.names()}
    return cluster.epoch(), cluster.history(), pids, cluster.execute("SELECT to_regclass('holdfast_chaos')")


def test_chaos_asks_first(cluster):
    before = lives(cluster)
    done = cluster.run("chaos", check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == ("holdfast: chaos: this kills nodes of a running cluster; say --yes if you mean it"
                           " (hint: `holdfast chaos --help`)\n")
    assert lives(cluster) == before and before[3] == [(None,)]


@pytest.mark.limit(150)
def test_chaos_loses_nothing_and_says_so(cluster):
    done, report = chaos(cluster, "--seed", 3, "--seconds", 12)
    assert done.returncode == 0, done.stderr
    assert report["ok"] and report["seed"] == 3 and not report["interrupted"]
    assert report["acknowledged"] > 100 and report["lost"] == report["doubled"] == 0
    assert report["copies"] == [{"node": n, "compared": True, "lost": 0, "doubled": 0} for n in cluster.names()]
    assert len(report["faults"]) >= 2 and all(f["whole"] for f in report["faults"])
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
    assert [(c["lost"], c["doubled"]) for c in found["report"]["copies"]] == [(1, 1)] * 3
    assert cluster.execute("SELECT count(*) > 20 FROM holdfast_chaos") == [(True,)], "the evidence is gone"
    cluster.execute("DROP TABLE holdfast_chaos")


@pytest.mark.limit(150)
def test_chaos_finds_rows_that_followers_alone_have_lost(cluster):
    """Through the gate every row is there."""
    with running(cluster, "--seconds", 3, seed=STOPS_FOLLOWER_2936_MS) as (run, _):
        harness.wait_until("rows are written", lambda: cluster.execute(
            "SELECT count(*) FROM holdfast_chaos")[0][0] > 20)
        cluster.execute("ALTER TABLE holdfast_chaos RENAME TO chaos_rows; CREATE VIEW holdfast_chaos AS"
                        " SELECT * FROM chaos_rows WHERE NOT (n = 3 AND pg_is_in_recovery())")
        report, err = end(run)
    assert run.returncode == 1 and "own copy" in err
    assert report["lost"] == report["doubled"] == 0 and not report["ok"]
    assert all(c["compared"] and c["doubled"] == 0 for c in report["copies"])
    leader = cluster.leader()
    assert {c["node"]: c["lost"] for c in report["copies"]} == {n: int(n != leader) for n in cluster.names()}
    cluster.execute("DROP VIEW holdfast_chaos; DROP TABLE chaos_rows")


@pytest.mark.limit(150)
def test_chaos_says_which_copy_it_could_not_compare(cluster):
    """A follower receives the rows and does not apply them."""
    with running(cluster, "--seconds", 1, "--whole-seconds", 4, seed=STOPS_FOLLOWER_2936_MS) as (run, _):
        late = cluster.followers()[0]
        cluster.super(late, "SELECT pg_wal_replay_pause()")
        report, err = end(run)
    cluster.super(late, "SELECT pg_wal_replay_resume()")
    assert run.returncode == 1 and "own copy" in err
    assert report["lost"] == report["doubled"] == 0 and not report["ok"]
    assert {c["node"]: c["compared"] for c in report["copies"]} == {n: n != late for n in cluster.names()}
    assert "has not applied" in next(c["error"] for c in report["copies"] if c["node"] == late)
    cluster.execute("DROP TABLE holdfast_chaos")


def test_chaos_leaves_a_cluster_alone_that_is_not_whole(cluster):
    node = cluster.followers()[0]
    cluster.kill_down(node)
    cluster.wait_open()
    before = lives(cluster)
    done, report = chaos(cluster, "--seconds", 2, "--whole-seconds", 3)
    assert done.returncode == 1
    assert done.stderr == ("holdfast: cluster demo: not every node is up and streaming, for 3 s now (hint: `holdfast"
                           " status`; chaos hurts only a cluster that is whole)\n")
    assert report["faults"] == [] and report["acknowledged"] == 0 and not report["ok"]
    assert lives(cluster) == before and before[3] == [(None,)]
    cluster.start(node)


@pytest.mark.limit(150)
def test_chaos_says_that_the_cluster_did_not_become_whole_again(cluster):
    """A second node is killed during the fault, for good."""
    with running(cluster, "--whole-seconds", 5, seed=STOPS_FOLLOWER_2936_MS) as (run, still):
        killed = next(n for n in cluster.followers() if n != still)
        cluster.run("kill", killed)
        report, err = end(run)
    assert run.returncode == 1
    assert "not every node is up and streaming, for 5 s now" in err
    assert [f["whole"] for f in report["faults"]] == [False] and not report["ok"] and not report["interrupted"]
    assert report["acknowledged"] > 0 and report["lost"] == report["doubled"] == 0
    assert {c["node"]: c["compared"] for c in report["copies"]} == {n: n != killed for n in cluster.names()}
    assert not stopped(cluster)
    cluster.start(killed)
    cluster.execute("DROP TABLE holdfast_chaos")


@pytest.mark.limit(150)
def test_chaos_says_that_nothing_is_written_any_more(cluster):
    """All are up and stream, and a lock holds every row back. What waits for it is not waited for."""
    with running(cluster, "--seconds", 1, "--whole-seconds", 4, seed=STOPS_FOLLOWER_2936_MS) as (run, _):
        harness.wait_until("rows are written", lambda: cluster.execute("SELECT count(*) FROM holdfast_chaos")[0][0] > 20)
        lock = cluster.connect(autocommit=False)
        lock.cursor().execute("LOCK TABLE holdfast_chaos IN EXCLUSIVE MODE")
        report, err = end(run)
    lock.close()
    assert run.returncode == 1 and "no row was acknowledged for 4 s" in err
    assert [f["whole"] for f in report["faults"]] == [True] and not report["ok"]
    assert report["acknowledged"] > 20 and 0 < report["unknown"] <= 4
    assert report["lost"] == report["doubled"] == 0 and all(c["compared"] for c in report["copies"])
    cluster.execute("DROP TABLE holdfast_chaos")


@pytest.mark.limit(150)
def test_ctrl_c_during_a_stop_ends_it_and_the_report_comes(cluster):
    """A real one, on a terminal."""
    ours, theirs = pty.openpty()
    with running(cluster, stdin=theirs, before=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as (run, _):
        os.write(ours, b"\x03")
        report, err = end(run)
    os.close(ours)
    os.close(theirs)
    assert run.returncode == 130, err
    assert "SIGINT" in err
    [fault] = report["faults"]
    assert fault["fault"] == "stop node" and fault["role"] == "leader" and fault["whole"]
    assert fault["stopped_ms"] < 2967
    assert report["interrupted"] and report["ok"] and report["lost"] == report["doubled"] == 0
    assert all(c["compared"] for c in report["copies"])
    assert not stopped(cluster) and cluster.open_leader(cluster.status())
    assert cluster.execute("SELECT to_regclass('holdfast_chaos')") == [(None,)], "its table stays"


def test_a_second_signal_ends_it_at_once_and_leaves_no_node_stopped(cluster):
    with running(cluster) as (run, _):
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGTERM)
        report, err = end(run, 20)
    assert run.returncode == 128 + signal.SIGTERM
    assert report is None and "ended without a check" in err
    assert not stopped(cluster)
    cluster.wait_healthy()
    cluster.execute("DROP TABLE holdfast_chaos")


@pytest.mark.limit(150)
def test_interrupted_without_a_supervisor_and_with_nobody_to_tell(cluster):
    """The terminal is gone, and who should have the node run again hangs."""
    with open(os.path.join(cluster.dir, "up.lock"), encoding="ascii") as f:
        supervisor = procs.Proc(int(f.read().split()[0]))
    with running(cluster) as (run, node):
        run.stdout.close()
        run.stderr.close()
        with cluster.frozen(supervisor):
            run.send_signal(signal.SIGHUP)
            process = cluster.node_process(node)
            harness.wait_until(f"{node} runs again", lambda: process.state not in ("T", None), 15)
        assert run.wait(60 * harness.PATIENCE) == 128 + signal.SIGHUP
    assert not stopped(cluster)
    assert cluster.execute("SELECT to_regclass('holdfast_chaos')") == [(None,)], "no check was made"


def test_interrupted_before_the_first_fault(cluster):
    node = cluster.followers()[0]
    cluster.kill_down(node)
    cluster.wait_open()
    before = lives(cluster)
    # In the foreground: else it signals its group as well, and a second signal says something else.
    done = subprocess.run(["timeout", "--foreground", "--preserve-status", "--signal=TERM", "1", harness.BINARY, "chaos", "--yes", "--dir",
                           cluster.dir], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 128 + signal.SIGTERM and not done.stdout
    assert done.stderr.endswith("holdfast: chaos: interrupted; cluster demo was left alone\n")
    assert lives(cluster) == before
    cluster.start(node)
