"""The operations port: what probes, load balancers and Prometheus ask."""

import json
import os
import re
import urllib.error
import urllib.request

import harness
from suite import ROOT

SAMPLE = re.compile(r'([a-z_:][a-z0-9_:]*)(\{([a-z_]+="[^"\\\n]*",?)+\})? (-?[0-9.e+-]+|NaN|[+-]Inf)')


def get(cluster, node, path):
    """(status, type, text); status 0: nobody listens"""
    url = f"http://127.0.0.1:{cluster.sql_port(node) + 2}/{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.headers["Content-Type"], e.read().decode()
    except urllib.error.URLError as e:
        return 0, "", str(e)


def status(cluster, node, path):
    return get(cluster, node, path)[0]


def metrics(text):
    """Prometheus' text format: every sample belongs to a family with HELP and TYPE before it."""
    families, samples = {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in families and line.split(" ", 3)[3].endswith("."), line
            families[name] = None
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in families and families[name] is None and kind in ("gauge", "counter"), line
            assert (kind == "counter") == name.endswith("_total"), line
            families[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found and families.get(found[1]), line
            assert found[1].startswith("holdfast_") and found[1] + (found[2] or "") not in samples, line
            samples[found[1] + (found[2] or "")] = float(found[4])
    return samples


def test_who_leads_and_who_follows(cluster):
    leader = cluster.leader()
    for node in cluster.names():
        leads = node == leader
        for path in ("livez", "startupz", "readyz", "writable"):
            assert status(cluster, node, path) == 200, (node, path)
        assert status(cluster, node, "leader") == (200 if leads else 503)
        assert status(cluster, node, "follower") == (503 if leads else 200)
        assert status(cluster, node, "nothing-there") == 404
        assert json.loads(get(cluster, node, "status")[2])["role"] == ("leader" if leads else "follower")


def test_follower_by_its_lag(cluster):
    node = cluster.followers()[0]
    cluster.insert(count=5)
    harness.wait_until("it has caught up", lambda: status(cluster, node, "follower?max_lag=0") == 200, 10)
    cluster.super(node, "SELECT pg_wal_replay_pause()")
    try:
        cluster.bulk(1)
        harness.wait_until("it is seen to lag", lambda: status(cluster, node, "follower?max_lag=100000") == 503, 10)
        assert status(cluster, node, "follower") == 200
    finally:
        cluster.super(node, "SELECT pg_wal_replay_resume()")
    harness.wait_until("it has caught up", lambda: status(cluster, node, "follower?max_lag=100000") == 200, 20)


def test_metrics_are_prometheus_text(cluster):
    leader = cluster.leader()
    cluster.insert(count=3)
    for node in cluster.names():
        code, kind, text = get(cluster, node, "metrics")
        assert code == 200 and kind.startswith("text/plain; version=0.0.4")
        m = metrics(text)
        assert m["holdfast_leader"] == m["holdfast_gate_open"] == (node == leader)
        assert m["holdfast_epoch"] == cluster.epoch() and m["holdfast_members"] == 3
        assert m["holdfast_postgresql_running"] == 1
        lags = [k for k in m if k.startswith("holdfast_follower_lag_bytes")]
        assert len(lags) == (2 if node == leader else 0)
        assert ("holdfast_replay_lag_bytes" in m) == (node != leader)


def test_every_metric_is_in_the_list(cluster):
    """docs/operations.md's, which has no more either; what it says of labels and types test/kube compares with the source."""
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        listed = {name: kind for name, kind in re.findall(r"^\| `(holdfast_[a-z_]+)` \| (gauge|counter) \|", f.read(), re.M)}
    served = {}
    for node in cluster.names():
        served.update(re.findall(r"^# TYPE (\S+) (\S+)$", get(cluster, node, "metrics")[2], re.M))
    assert set(listed) - set(served) == {"holdfast_settings_pending_restart", "holdfast_settings_refused"}  # no --settings-file here
    assert served == {name: kind for name, kind in listed.items() if name in served}


def test_ready_without_a_quorum_but_not_writable(cluster):
    """A StatefulSet that starts pods one by one waits for each to be ready: that must not need the others."""
    leader = cluster.leader()
    for node in cluster.followers():
        cluster.kill_down(node)
    harness.wait_until("the gate shuts", lambda: status(cluster, leader, "leader") == 503, 10)
    assert status(cluster, leader, "readyz") == 200
    assert status(cluster, leader, "writable") == 503
    cluster.kill_down(leader)
    cluster.start(leader)
    harness.wait_until("the first of three is ready alone", lambda: status(cluster, leader, "readyz") == 200, 20)
    assert status(cluster, leader, "leader") == status(cluster, leader, "writable") == 503
