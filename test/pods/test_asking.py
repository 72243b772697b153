"""`kubectl exec POD -- holdfast VERB`: what a pod tells of its cluster, without any right."""

import json

import psycopg2
import pytest

import pods


def ask(pod, *argv, status=0):
    done = pod.exec("/usr/local/bin/holdfast", *argv)
    assert done.returncode == status, f"{argv}: {done.returncode} {done.stdout} {done.stderr}"
    return done


def look(pod):
    return json.loads(ask(pod, "status", "--json").stdout)


def sessions(pod, name):
    all_ = json.loads(ask(pod, "sessions", "--json").stdout)["sessions"]
    return [s for s in all_ if s["application"] == name]


@pytest.mark.quick
def test_verbs_in_any_pod(stateful):
    s = stateful()
    s.found()
    leader = s.leader()
    for p in s.pods.values():
        st = look(p)
        assert (st["cluster"], st["leader"]) == ("demo", leader.name)
        assert [n["name"] for n in st["nodes"]] == ["demo-0", "demo-1", "demo-2"]
        assert all(n["reachable"] and n["voter"] for n in st["nodes"])
        assert sorted(n["state"] for n in st["nodes"]) == ["open", "streaming", "streaming"]
        assert st["nodes"][2]["sql"] == "demo-2.demo-nodes.prod.svc:5432"
        text = ask(p, "status").stdout
        assert f"cluster demo  epoch {st['epoch']}  leader {leader.name}" in text
        assert text.count("streaming") == 2
        epochs = json.loads(ask(p, "history", "--json").stdout)["epochs"]
        assert [e["leader"] for e in epochs][-1] == leader.name
    # A session is seen and ended from another pod.
    conn = s.pods[2].connect(application_name="asked")
    (mine,) = sessions(s.pods[0], "asked")
    assert mine["node"] == "demo-2" and mine["user"] == "app"
    assert mine["id"] in ask(s.pods[1], "sessions").stdout
    ask(s.pods[1], "sessions", "--kill", mine["id"])
    with pytest.raises(psycopg2.OperationalError):
        conn.cursor().execute("SELECT 1")
    conn.close()
    pods.wait_for("it is gone", lambda: not sessions(s.pods[0], "asked"))
    # A change of leader, asked in a pod that has no part in it; and in the leader's own.
    target, third = (p for p in s.pods.values() if p.name != leader.name)
    assert "no node demo-7" in ask(third, "switchover", "--to", "demo-7", status=1).stderr
    assert "is the leader already" in ask(third, "switchover", "--to", leader.name).stdout
    assert ask(third, "switchover", "--to", target.name).stdout.startswith(f"{leader.name} -> {target.name} in ")
    assert s.leader().name == target.name
    s.wait_streaming()
    assert ask(target, "switchover").stdout.startswith(f"{target.name} -> ")
    assert [e["why"] for e in json.loads(ask(third, "history", "--json").stdout)["epochs"]][-2:] == ["hand-over"] * 2
    # What is for one machine says so.
    done = ask(third, "logs", "demo-0", status=1)
    assert "a node runs here by itself" in done.stderr and "hint" in done.stderr


def test_pods_that_are_gone(stateful):
    s = stateful()
    s.found()
    s.delete(2, grace=0)
    s.wait_leader()
    st = look(s.pods[0])
    gone = st["nodes"][2]
    assert gone["reachable"] is False and gone["state"] is None and gone["voter"] and gone["error"]
    assert gone["sql"] == "demo-2.demo-nodes.prod.svc:5432"
    assert "demo-2         -         unreachable" in ask(s.pods[1], "status").stdout
    done = ask(s.pods[1], "sessions", status=1)
    assert "holdfast: demo-2: " in done.stderr and "CLIENT" in done.stdout
    # No majority: still an answer, and no leader.
    s.delete(1, grace=0)
    pods.wait_for("nobody leads", lambda: look(s.pods[0])["leader"] is None)
    assert [n["reachable"] for n in look(s.pods[0])["nodes"]] == [True, False, False]
    assert "hint" in ask(s.pods[0], "switchover", status=1).stderr
    # They come back with other addresses, and are found by their names.
    s.start(1, 2)
    s.wait_streaming(3)
    pods.wait_for("all are reached", lambda: all(n["reachable"] for n in look(s.pods[0])["nodes"]))


def test_a_pod_that_is_no_member_yet(stateful):
    """It tells of itself; the others are not known to it."""
    s = stateful()
    s.start(0)
    pods.wait_for("its port", lambda: s.pods[0].http("/livez")[0] == 200)
    st = look(s.pods[0])
    assert [(n["name"], n["state"], n["voter"]) for n in st["nodes"]] == [("demo-0", "starting", False)]
    assert st["leader"] is None and st["epoch"] == 0
    assert "no open leader" in ask(s.pods[0], "switchover", status=1).stderr
    assert json.loads(ask(s.pods[0], "history", "--json").stdout) == {"epochs": []}
