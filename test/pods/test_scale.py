"""3 -> 5 -> 3, with and without the right to read the StatefulSet."""

import http.server
import json
import os
import ssl
import threading
import time

import pytest

import pods


class Api:
    """As much of Kubernetes' API as a pod with one right sees: its own StatefulSet, for its own token."""

    def __init__(self, s, where):
        self.replicas, self.asked, self.fail = s.replicas, [], False
        os.makedirs(where)
        s.holdfast("certs", "make", "--dir", where, "--name", "api", "--also", "kubernetes.default.svc")
        os.makedirs(f"{where}/account")
        for name, text in (("token", "s3cret-token\n"), ("namespace", pods.NAMESPACE)):
            with open(f"{where}/account/{name}", "w", encoding="ascii") as f:
                f.write(text)
        with open(f"{where}/ca.crt", "rb") as a, open(f"{where}/account/ca.crt", "wb") as b:
            b.write(a.read())
        api, path = self, f"/apis/apps/v1/namespaces/{pods.NAMESPACE}/statefulsets/{s.name}"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # pylint: disable=invalid-name
                allowed = self.headers["Authorization"] == "Bearer s3cret-token" and self.path == path
                api.asked.append((self.path, allowed))
                status = 403 if not allowed or api.fail else 200
                body = json.dumps({"metadata": {"name": s.name}, "spec": {"replicas": api.replicas}}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer((pods.GATEWAY, 6443), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{where}/node.crt", f"{where}/node.key")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        s.account = f"{where}/account"
        s.env.update(KUBERNETES_SERVICE_HOST="kubernetes.default.svc", KUBERNETES_SERVICE_PORT="6443")
        s.network.dns.names["kubernetes.default.svc.cluster.local"] = [pods.GATEWAY]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def grow(s):
    s.start(3, 4)  # `kubectl scale`: the template is as before, HOLDFAST_REPLICAS still 3
    s.wait_streaming(5)


@pytest.mark.limit(300)
def test_scale_by_hand(stateful):
    """kubectl scale up; holdfast scale in a pod, then kubectl scale down; and up again with the old claims."""
    s = stateful()
    s.found()
    client = pods.Clients(s, "t")
    client.start()
    grow(s)
    # From a pod that does not lead; the leader is among those that leave.
    while s.leader().ordinal < 3:
        s.replace(s.leader().ordinal)
        s.wait_streaming(5)
    done = s.pods[0].exec("/usr/local/bin/holdfast", "scale", "--replicas", "3")
    assert done.returncode == 0, done.stderr
    assert "demo-4 has left\ndemo-3 has left\n" in done.stdout
    assert "kubectl scale statefulset demo --replicas=3" in done.stdout
    assert s.voters() == ["demo-0", "demo-1", "demo-2"]
    # Their pods are still there, and do not come back by themselves.
    for i in (3, 4):
        pods.wait_for("it knows", lambda: "is no member any more" in s.log_text(i), 30)  # pylint: disable=W0640
    assert len(s.leader().status()["members"]) == 3
    s.delete(4)
    s.delete(3)
    s.wait_streaming(3)
    # Up again: the claims were retained, with data and promises of before.
    grow(s)
    assert s.voters() == [f"demo-{i}" for i in range(5)]
    pods.wait_for("old data removed", lambda: not os.path.exists(f"{s.volume(4)}/node/data.left"), 30)
    client.finish()
    assert not client.refused, client.refused[:3]
    done = s.pods[0].exec("/usr/local/bin/holdfast", "scale", "--replicas", "7")
    assert done.returncode == 0 and "kubectl scale statefulset NAME --replicas=7" in done.stdout


def count(pod):
    with pod.connect() as c, c.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        return cursor.fetchone()[0]


def founded_alone(stateful):
    s = stateful(replicas=1)
    s.found()
    with s.pods[0].connect() as c, c.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 1 AS n")
    return s


@pytest.mark.limit(300)
def test_the_only_founder_comes_back_empty(stateful):
    """HOLDFAST_REPLICAS says 1, since it did at the beginning: demo-0 with a new volume must not found another cluster."""
    s = founded_alone(stateful)
    s.start(1, 2)
    s.wait_streaming(3)
    s.replace(0, grace=0, volume=True)
    s.wait_streaming(3)
    assert s.voters() == ["demo-0", "demo-1", "demo-2"]
    assert [count(s.pods[i]) for i in range(3)] == [1, 1, 1]
    # A DNS that does not answer is no proof that nobody is there.
    s.delete(0, grace=0, volume=True)
    s.network.dns.silent = ("",)
    try:
        s.start(0)
        pods.wait_for("it says why it waits", lambda: "before it is known who else exists" in s.log_text(0), 60)
        assert s.pods[0].http("/leader")[0] != 200
    finally:
        s.network.dns.silent = ()
    s.wait_streaming(3)
    assert count(s.pods[0]) == 1


@pytest.mark.limit(300)
def test_a_dns_that_comes_back_half_way_is_no_proof(stateful):
    """The name that is right times out, and when the DNS is back the resolver asks for a name that nobody has."""
    s = founded_alone(stateful)
    s.start(1)
    s.wait_streaming(2)
    s.delete(0, grace=0, volume=True)
    dns = s.network.dns
    name = f"demo-1.{s.service}.{pods.NAMESPACE}.svc.{pods.DOMAIN}"
    dns.silent, before = ("demo-1.",), dns.asked[name]
    try:
        s.start(0)
        pods.wait_for("it has asked twice, for both kinds of address", lambda: dns.asked[name] >= before + 4, 60)
    finally:
        dns.silent = ()
    time.sleep(15)
    assert s.pods[0].http("/leader")[0] != 200 and s.log_text(0).count("founding the cluster") == 1


@pytest.mark.limit(300)
def test_a_domain_that_is_not_the_clusters_is_no_proof(stateful):
    """Nobody has a name there: not even this pod's own service has."""
    s = founded_alone(stateful)
    s.start(1, 2)
    s.wait_streaming(3)
    s.delete(0, grace=0, volume=True)
    s.env["HOLDFAST_CLUSTER_DOMAIN"] = "wrong.local"
    s.start(0)
    pods.wait_for("it says why it founds nothing", lambda: f"no name {s.service}.{pods.NAMESPACE}.svc.wrong.local." in s.log_text(0), 60)
    assert s.log_text(0).count("founding the cluster") == 1
    # In the cluster's own domain it finds the others, and joins.
    del s.env["HOLDFAST_CLUSTER_DOMAIN"]
    s.replace(0, grace=0)
    s.wait_streaming(3)
    assert s.log_text(0).count("founding the cluster") == 1 and count(s.pods[0]) == 1


@pytest.mark.limit(300)
def test_no_name_of_the_cluster_is_asked_for_elsewhere(stateful):
    """Where the DNS has no upstream that answers, clusters are founded, and empty nodes join."""
    s = stateful()
    s.network.dns.upstream = False
    s.found()
    s.replace(2, grace=0, volume=True)
    s.wait_streaming(3)
    assert "before it is known" not in s.log_text(0)


@pytest.mark.limit(300)
def test_pods_that_may_look_leave_by_themselves(stateful, tmp_path):
    s = stateful()
    api = Api(s, str(tmp_path / "api"))
    try:
        s.found()
        api.replicas = 5
        grow(s)
        client = pods.Clients(s, "t")
        client.start()
        # An ordinary restart is no leave.
        s.replace(4)
        s.wait_streaming(5)
        assert api.asked and all(allowed for _, allowed in api.asked)
        # kubectl scale --replicas=3: the controller ends the highest first (with podManagementPolicy Parallel both).
        api.replicas = 3
        for p in (s.pods[4], s.pods[3]):
            p.signal(15)
        pods.wait_for("both have ended", lambda: not s.pods[4].running and not s.pods[3].running, 30)
        assert s.delete(4) == 0 and s.delete(3) == 0
        assert s.voters() == ["demo-0", "demo-1", "demo-2"]
        s.wait_streaming(3)
        client.finish()
        assert not client.refused
        # --replicas=0 stops all, and is no leave; so does a refusal.
        api.replicas = 0
        for i in (2, 1, 0):
            s.delete(i)
        api.replicas = 3
        s.start()
        s.wait_streaming(3)
        assert s.voters() == ["demo-0", "demo-1", "demo-2"]
        api.replicas, api.fail = 1, True
        s.replace(2)
        s.wait_streaming(3)
        assert "not asked for: Kubernetes' API: status 403" in s.log_text(2)
    finally:
        api.close()


def test_removed_while_away(stateful):
    """A pod that was away is removed; its volume comes back, and joins as a new member."""
    s = stateful()
    s.found()
    s.delete(2, grace=0)
    done = s.pods[0].exec("/usr/local/bin/holdfast", "scale", "--replicas", "2")
    assert done.returncode == 0, done.stderr
    old = {m["id"] for m in s.leader().status()["members"]}
    s.start(2)
    pods.wait_for("it knows", lambda: "removed while it was away" in s.log_text(2), 30)
    pods.wait_for("its end", lambda: not s.pods[2].running, 30)
    s.restart_dead()
    s.wait_streaming(3)
    assert max(m["id"] for m in s.leader().status()["members"]) > max(old | {3})
