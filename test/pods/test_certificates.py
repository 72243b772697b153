"""Certificates that change under running pods, as a Secret's volume does."""

import subprocess
import time

import pytest

import pods


def loaded(s):
    """How often each pod has said that it took new ones."""
    return [s.log_text(i).count("connections from now on use them") for i in s.pods]


def give(s, then=None):
    """The Secret's volume gets what is in pki; until every pod has taken it."""
    before = loaded(s)
    s.mount_certificates()
    pods.wait_for("new certificates in use", lambda: all(a > b for a, b in zip(loaded(s), before)), 30)


def test_rotation_without_restart(stateful):
    s = stateful()
    s.found()
    first = {i: p.init for i, p in s.pods.items()}
    # The certificate, then the authority in its three steps. After each, pods that connect anew understand each other.
    for step in ([], ["--ca"], [], ["--forget"]):
        s.holdfast("certs", "rotate", "--dir", s.pki, *step)
        give(s)
        leader = s.leader()
        follower = next(p for p in s.pods.values() if p.name != leader.name)
        s.replace(follower.ordinal, grace=0)  # all its connections are new
        s.wait_streaming()
        assert s.leader().name == leader.name
        first.pop(follower.ordinal, None)
    assert all(s.pods[i].init == pid for i, pid in first.items()), "a pod was restarted"
    end = [line for line in s.pods[0].http("/metrics")[1].splitlines()
           if line.startswith("holdfast_certificate_end_timestamp_seconds ")]
    assert end and float(end[0].split()[1]) > time.time() + 700 * 86400


def test_bad_ones_are_refused(stateful, tmp_path):
    s = stateful()
    s.found()
    good = {}
    for file in ("ca.crt", "node.crt", "node.key"):
        with open(f"{s.pki}/{file}", "rb") as f:
            good[file] = f.read()

    def volume(**files):
        s.config_volume("tls", {"ca.crt": good["ca.crt"], "tls.crt": good["node.crt"], "tls.key": good["node.key"],
                                **{k.replace("_", "."): v for k, v in files.items()}})

    def refused(word):
        pods.wait_for(f"refused: {word}", lambda: all(
            "new ones are refused" in s.log_text(i) and word in s.log_text(i) for i in s.pods), 30)

    # Of another authority.
    s.holdfast("certs", "make", "--dir", str(tmp_path / "other"), "--name", "demo", "--service", "demo-nodes",
               "--namespace", pods.NAMESPACE)
    volume(tls_crt=(tmp_path / "other" / "node.crt").read_bytes(), tls_key=(tmp_path / "other" / "node.key").read_bytes())
    refused("is not signed by")
    # Expired: signed by the right one, two days ago for one day.
    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=tmp_path)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "old.key", "-out",
            "old.csr", "-subj", "/CN=old")
    (tmp_path / "ext").write_text("subjectAltName=DNS:*.demo-nodes.prod.svc\n")
    openssl("x509", "-req", "-in", "old.csr", "-CA", f"{s.pki}/ca.crt", "-CAkey", f"{s.pki}/ca.key", "-days", "-1",
            "-extfile", "ext", "-out", "old.crt")
    volume(tls_crt=(tmp_path / "old.crt").read_bytes(), tls_key=(tmp_path / "old.key").read_bytes())
    refused("expired on")
    # For other names; and a key that does not fit.
    s.holdfast("certs", "make", "--dir", s.pki, "--name", "shop", "--service", "shop-nodes", "--namespace", "prod")
    s.mount_certificates()
    refused("does not carry the name")
    volume(tls_key=(tmp_path / "other" / "node.key").read_bytes())
    refused("does not fit")
    # All the while the cluster went on with what it had, and it takes the next good one.
    leader = s.leader()
    s.replace(next(p for p in s.pods.values() if p.name != leader.name).ordinal, grace=0)
    volume()
    s.wait_streaming()
    assert s.leader().name == leader.name


@pytest.mark.quick
def test_what_certs_says(tmp_path):
    holdfast = f"{pods.BUILD}/holdfast"

    def run(*args):
        return subprocess.run([holdfast, "certs", *args, "--dir", str(tmp_path / "pki")], capture_output=True,
                              text=True, check=False)

    assert run("check").returncode == 1
    assert run("make").returncode == 2
    assert run("make", "--name", "demo", "--namespace", "prod").returncode == 0
    check = ("check", "--service", "demo", "--namespace", "prod")
    assert run(*check, "--name", "demo-7").returncode == 0
    assert "does not carry" in run("check", "--name", "other-0").stderr
    assert "ends within" in run(*check, "--min-days", "1000").stderr
    assert run("rotate", "--forget").returncode == 0  # its own authority is the newest
    assert run("rotate", "--ca").returncode == 0
    assert "first a new one" in run("rotate", "--forget").stderr
    assert run(*check, "--name", "demo-7").returncode == 0
    assert run("rotate", "--days", "5").returncode == 0
    assert run("rotate", "--forget").returncode == 0
    assert run(*check, "--name", "demo-7", "--min-days", "4").returncode == 0
    secret = run("secret", "--secret", "demo-tls", "--namespace", "prod").stdout
    assert "type: kubernetes.io/tls" in secret and "tls.key: " in secret and "ca.key" not in secret
    assert run("client", "--role", "node").returncode == 2
    assert run("client", "--role", "app").returncode == 0
