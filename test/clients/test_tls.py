"""TLS from clients with the certificates that Holdfast makes."""

import re
import socket
import ssl
import struct
import subprocess

import pytest

import harness
from scenario import call

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSS_REQUEST = struct.pack("!ii", 8, 80877104)


def info(cluster, node, check=True, **more):
    return call(cluster, node, "psql", "-XAtq", "-c", "\\conninfo", "-c", "SELECT 'answer'", check=check,
                **{f"PG{k.upper().replace('_', '')}": v for k, v in more.items()})


@pytest.fixture
def fresh_ca(tmp_path):
    path = tmp_path / "other.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "1", "-subj", "/CN=other", "-keyout", tmp_path / "other.key", "-out", path], check=True,
                   capture_output=True)
    return str(path)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_verify_full(cluster, host):
    ca = f"{cluster.dir}/pki/ca.crt"
    for node in cluster.names():
        done = info(cluster, node, host=host, sslmode="verify-full", sslrootcert=ca)
        assert re.search(r"SSL connection \(protocol: TLSv1.3", done.stdout) and "answer" in done.stdout


def test_verify_full_refuses_another_authority_and_another_name(cluster, fresh_ca):
    node = cluster.followers()[0]
    done = info(cluster, node, check=False, host="localhost", sslmode="verify-full", sslrootcert=fresh_ca)
    assert done.returncode == 2 and "certificate verify failed" in done.stderr
    done = info(cluster, node, check=False, host="elsewhere", hostaddr="127.0.0.1", sslmode="verify-full",
                sslrootcert=f"{cluster.dir}/pki/ca.crt")
    assert done.returncode == 2 and 'does not match host name "elsewhere"' in done.stderr


def test_plain_is_allowed(cluster):
    done = info(cluster, cluster.followers()[0], sslmode="disable")
    assert "SSL" not in done.stdout and "answer" in done.stdout


def test_read_only_port_has_it_too(cluster):
    node = cluster.followers()[0]
    done = info(cluster, node, port=str(cluster.sql_port(node, read_only=True)), sslmode="require")
    assert "SSL connection" in done.stdout and "answer" in done.stdout


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TLS 1.1: that is the point
def test_versions(cluster):
    """TLS 1.2 and 1.3, as PostgreSQL; nothing older."""
    port = cluster.sql_port(cluster.leader())
    for version, works in ((ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_1, False)):
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(GSS_REQUEST)
            assert s.recv(1) == b"N"
            s.sendall(SSL_REQUEST)
            assert s.recv(1) == b"S"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            try:
                with context.wrap_socket(s) as t:
                    assert works and t.version() == version.name.replace("TLSv1_", "TLSv1.")
            except (ssl.SSLError, ConnectionResetError):
                assert not works


def shown(cluster, node):
    """The certificate that clients are shown."""
    with socket.create_connection(("127.0.0.1", cluster.sql_port(node)), 10) as s:
        s.sendall(SSL_REQUEST)
        assert s.recv(1) == b"S"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(s) as t:
            return t.getpeercert(binary_form=True)


def test_new_certificate_without_a_restart(cluster):
    """Sessions that run go on; a pair that does not fit changes nothing."""
    node = cluster.followers()[0]
    before, process = shown(cluster, node), cluster.node_process(node).pid
    conn = cluster.connect(node, sslmode="require")
    tls = cluster.path(node, "tls")
    mark = cluster.log_mark(node)
    key = open(f"{tls}/node.key", encoding="ascii").read()
    openssl = ["openssl", "req", "-new", "-key", f"{tls}/node.key", "-subj", f"/CN={node}"]
    request = subprocess.run(openssl, check=True, capture_output=True).stdout
    names = f"subjectAltName=DNS:{node},DNS:localhost,IP:127.0.0.1"
    signed = subprocess.run(
        ["sh", "-c", f"cat > {cluster.home}/r; printf '%s' '{names}' > {cluster.home}/e; openssl x509 -req -in {cluster.home}/r"
         f" -CA {cluster.dir}/pki/ca.crt -CAkey {cluster.dir}/pki/ca.key -days 9 -extfile {cluster.home}/e"],
        input=request, check=True, capture_output=True).stdout
    with open(f"{tls}/node.crt", "wb") as f:
        f.write(signed)
    harness.wait_until("the new one is shown", lambda: shown(cluster, node) != before, 20)
    cluster.wait_log(mark, "clients are shown the new one")
    after = shown(cluster, node)
    with open(f"{tls}/node.key", "w", encoding="ascii") as f:
        f.write("nonsense")
    cluster.wait_log(mark, "clients are shown the old one")
    assert shown(cluster, node) == after
    with open(f"{tls}/node.key", "w", encoding="ascii") as f:
        f.write(key)
    assert "answer" in info(cluster, node, host="localhost", sslmode="verify-full",
                            sslrootcert=f"{cluster.dir}/pki/ca.crt").stdout
    conn.cursor().execute("SELECT 1")
    assert cluster.node_process(node).pid == process


def test_required_and_certificate_of_its_own():
    """--client-tls required; `holdfast up` itself still gets in."""
    with harness.Cluster(replicas=1, env={"HOLDFAST_CLIENT_TLS": "required"}) as cluster:
        node = cluster.names()[0]
        assert "answer" in info(cluster, node, sslmode="require").stdout
        done = info(cluster, node, check=False, sslmode="disable")
        assert done.returncode == 2 and "through TLS only" in done.stderr and "sslmode=require" in done.stderr
        cluster.execute("SELECT 1", sslmode="verify-ca", sslrootcert=f"{cluster.dir}/pki/ca.crt")
