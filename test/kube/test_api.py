"""The doctor against a running cluster: an API server of the test's own, with TLS, that knows one token and one client
certificate, serves the objects of a fixture as typed lists, and forbids one kind."""

import base64
import http.server
import json
import os
import ssl
import subprocess
import threading

import pytest
import yaml

from conftest import BINARY
from test_rules import BROKEN, fixture, found

PLURAL = {"StatefulSet": "apis/apps/v1/{}statefulsets", "Service": "api/v1/{}services",
          "PodDisruptionBudget": "apis/policy/v1/{}poddisruptionbudgets", "StorageClass": "apis/storage.k8s.io/v1/storageclasses",
          "NetworkPolicy": "apis/networking.k8s.io/v1/{}networkpolicies", "Certificate": "apis/cert-manager.io/v1/{}certificates",
          "Deployment": "apis/apps/v1/{}deployments", "Pod": "api/v1/{}pods"}


def openssl(place, *words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place)


def issue(place, name, extension):
    (place / "ext").write_text(extension)
    openssl(place, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key",
            "-subj", f"/CN={name}", "-out", f"{name}.csr")
    openssl(place, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days",
            "2", "-extfile", "ext", "-out", f"{name}.crt")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    place = tmp_path_factory.mktemp("pki")
    openssl(place, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key",
            "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2")
    issue(place, "server", "subjectAltName=IP:127.0.0.1")
    issue(place, "client", "extendedKeyUsage=clientAuth")
    return place


class Api:
    def __init__(self, pki):
        self.objects, self.asked, self.forbidden = [], [], set()
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                api.answer(self)

            def log_message(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "server.crt", pki / "server.key")
        context.load_verify_locations(pki / "ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, handler):
        self.asked.append(handler.path)
        known = handler.headers.get("Authorization") == "Bearer s3cret" or handler.connection.getpeercert()
        if not known:
            return self.send(handler, 401, {})
        plural = handler.path.rsplit("/", 1)[1]
        if plural in self.forbidden:
            return self.send(handler, 403, {"kind": "Status"})
        for kind, path in PLURAL.items():
            if path.rsplit("/", 1)[1].replace("{}", "") == plural:
                mine = [dict(o) for o in self.objects if o["kind"] == kind]
                for o in mine:  # as the real one: items of a typed list do not say their kind
                    del o["kind"], o["apiVersion"]
                return self.send(handler, 200, {"kind": kind + "List", "apiVersion": "v1", "items": mine})
        return self.send(handler, 404, {"kind": "Status"})

    @staticmethod
    def send(handler, status, body):
        data = json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def config(self, path, pki, user, server=None, **cluster):
        cluster.setdefault("certificate-authority", "ca.crt")
        text = {"apiVersion": "v1", "kind": "Config", "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                             {"name": "lost", "context": {"cluster": "none", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server or self.url, **cluster}}],
                "users": [{"name": "u", "user": user}]}
        (pki / path).write_text(yaml.safe_dump(text))
        return pki / path


@pytest.fixture
def api(pki):
    made = Api(pki)
    yield made
    made.server.shutdown()
    made.server.server_close()


def coded(path):
    return base64.b64encode(path.read_bytes()).decode()


def run(holdfast, *args, status):
    out, err = holdfast.run("doctor", *args, "--json", status=status)
    return json.loads(out)["findings"] if out else [], err


def test_clean_and_broken_cluster(holdfast, api, pki):
    config = api.config("config", pki, {"token": "s3cret"})
    api.objects = list(yaml.safe_load_all(fixture("clean")))
    findings, err = run(holdfast, "--kubeconfig", config, "--fail-on", "note", status=0)
    assert findings == [] and "secrets" in err and "statefulsets" not in err
    assert "/apis/apps/v1/namespaces/shop/statefulsets" in api.asked
    assert "/apis/storage.k8s.io/v1/storageclasses" in api.asked
    for rule in ("HF050", "HF100", "HF042", "HF006"):
        api.objects = list(yaml.safe_load_all(BROKEN[rule][1](fixture(BROKEN[rule][0]))))
        findings, _ = run(holdfast, "--kubeconfig", config, status=1)
        assert rule in found(findings)
        assert all(f["file"].startswith("cluster/") for f in findings)


def test_accounts(holdfast, api, pki):
    (pki / "token").write_text("s3cret\n")
    for user in ({"tokenFile": str(pki / "token")},
                 {"client-certificate": "client.crt", "client-key": "client.key"},
                 {"client-certificate-data": coded(pki / "client.crt"), "client-key-data": coded(pki / "client.key")}):
        run(holdfast, "--kubeconfig", api.config("config", pki, user), status=0)
    config = api.config("config", pki, {"token": "s3cret"}, **{"certificate-authority-data": coded(pki / "ca.crt")})
    run(holdfast, "--kubeconfig", config, "-A", status=0)
    assert "/apis/apps/v1/statefulsets" in api.asked
    run(holdfast, "--kubeconfig", config, "-n", "web", status=0)
    assert "/api/v1/namespaces/web/services" in api.asked


def test_what_goes_wrong_is_told(holdfast, api, pki):
    def fails(config, *more):
        out, err = holdfast.run("doctor", "--kubeconfig", config, *more, status=2)
        assert out == ""
        return err
    good = {"token": "s3cret"}
    assert "does not know this account" in fails(api.config("config", pki, {"token": "wrong"}))
    assert "neither a token nor a certificate" in fails(api.config("config", pki, {"exec": {"command": "x"}}))
    assert "no cluster for context lost" in fails(api.config("config", pki, good), "--context", "lost")
    assert "cluster" in fails(api.config("config", pki, good), "--context", "nowhere")
    assert "127.0.0.1:1" in fails(api.config("config", pki, good, server="https://127.0.0.1:1"))
    # The authority is looked at: another one's certificate is refused, unless told not to look.
    other = {"certificate-authority": "client.crt"}
    assert "certificate" in fails(api.config("config", pki, good, **other))
    run(holdfast, "--kubeconfig", api.config("config", pki, good, **{"insecure-skip-tls-verify": True, **other}), status=0)
    (pki / "bad").write_text("a: [")
    assert "not a kubeconfig" in fails(pki / "bad")
    assert "none" in fails(pki / "none")
    api.forbidden = {"statefulsets"}
    assert "may not list statefulsets" in fails(api.config("config", pki, good))


def test_usage(holdfast):
    holdfast.run("doctor", "--kubeconfig", "x", "--fix", status=2)
    holdfast.run("doctor", "--kubeconfig", "x", "--in-cluster", status=2)
    done = subprocess.run([BINARY, "doctor", "--in-cluster"], capture_output=True, text=True, check=False,
                          env={k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")})
    assert done.returncode == 2 and "no pod" in done.stderr
