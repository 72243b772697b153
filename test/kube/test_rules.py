"""Each rule: a clean workload in which it finds nothing, and one broken place in which it, and only what
belongs to it, is found. What can be mended is mended, and then the rule is quiet and all else as before."""

import base64
import difflib
import json
import os
import re
import subprocess

import pytest
import yaml

import kubetypes
from conftest import ROOT

FIXTURES = os.path.join(ROOT, "test", "kube", "fixtures")


def fixture(name):
    with open(os.path.join(FIXTURES, name + ".yaml"), encoding="utf-8") as f:
        return f.read()


def lines(text, first, last=None):
    """From the line that begins (but for blanks) with `first` to the one before `last`."""
    all_lines = text.splitlines(keepends=True)
    begin = next(i for i, s in enumerate(all_lines) if s.strip().startswith(first))
    end = begin + 1
    if last:
        end = next(i for i in range(begin + 1, len(all_lines)) if all_lines[i].strip().startswith(last))
    return "".join(all_lines[begin:end])


def without(first, last=None):
    return lambda text: text.replace(lines(text, first, last), "", 1)


def change(*pairs):
    def apply(text):
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new, 1)
        return text
    return apply


def document(kind, name):
    def drop(text):
        parts = text.split("---\n")
        kept = [p for p in parts if not (f"kind: {kind}\n" in p and f"  name: {name}\n" in p.split("spec:")[0])]
        assert len(kept) == len(parts) - 1
        return "---\n".join(kept)
    return drop


def both(*steps):
    def apply(text):
        for step in steps:
            text = step(text)
        return text
    return apply


def append(more):
    return lambda text: text + "---\n" + more


PDB2 = """apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: second, namespace: shop}
spec: {minAvailable: 2, selector: {matchExpressions: [{key: app, operator: In, values: [store, other]}]}}
"""
HPA = """apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: store, namespace: shop}
spec: {maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: store}}
"""
POD = """apiVersion: v1
kind: Pod
metadata: {name: lonely, labels: {app: x}}
spec:
  containers:
    - {name: mysql, image: "mysql:8.4"}
"""
KEY = """apiVersion: v1
kind: ConfigMap
metadata: {name: store-tls, namespace: shop}
data:
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    nothing
"""
ALREADY = "          env:\n"
# rule: (clean fixture, how it is broken, other rules that rightly come with it)
BROKEN = {
    "HF000": ("clean", lambda t: t + "---\na: [b\n", set()),
    "HF001": ("clean", both(without("volumeClaimTemplates:"), lambda t: t[:t.index("    - metadata:\n        name: data")],
                            without("- name: data", "- name: tls")), set()),
    "HF002": ("clean", both(lambda t: t[:t.index("  volumeClaimTemplates:")],
                            change(("        - name: scratch\n          emptyDir",
                                    "        - name: data\n          emptyDir: {}\n        - name: scratch\n"
                                    "          emptyDir"))), set()),
    "HF003": ("clean", both(lambda t: t[:t.index("  volumeClaimTemplates:")],
                            change(("        - name: scratch\n          emptyDir",
                                    "        - name: data\n          hostPath: {path: /disk}\n        - name: scratch\n"
                                    "          emptyDir"))), set()),
    "HF004": ("clean", without("storageClassName:"), set()),
    "HF005": ("clean", change(("storageClassName: fast", "storageClassName: gp2")), set()),
    "HF006": ("clean", change(("type: gp3", "type: sc1")), set()),
    "HF007": ("clean", change(("- ReadWriteOnce", "- ReadWriteMany")), set()),
    "HF008": ("clean", without("volumeBindingMode"), set()),
    "HF009": ("clean", change(("allowVolumeExpansion: true", "allowVolumeExpansion: false")), set()),
    "HF010": ("clean", change(("  podManagementPolicy", "  persistentVolumeClaimRetentionPolicy:\n"
                               "    whenDeleted: Delete # as we like it\n  podManagementPolicy")), set()),
    "HF011": ("clean", both(change(("storageClassName: fast", "storageClassName: local-path")),
                            without("affinity:", "topologySpread")), {"HF020"}),
    "HF012": ("clean-deployment", without("strategy:", "selector:"), set()),
    "HF013": ("clean-single", without("- name: PGDATA", "- name: POSTGRES"), set()),
    "HF014": ("clean", without("reclaimPolicy"), set()),
    "HF020": ("clean", without("affinity:", "topologySpread"), set()),
    "HF021": ("clean", both(without("affinity:", "topologySpread"),
                            change(("topology.kubernetes.io/zone", "kubernetes.io/hostname"))), {"HF022"}),
    "HF022": ("clean", without("topologySpreadConstraints:", "containers:"), set()),
    "HF023": ("clean", change(("                matchLabels:\n                  app: store",
                               "                matchLabels:\n                  app: shop")), set()),
    "HF030": ("clean", both(without("podManagementPolicy"), change(("?serializable=true", ""))), set()),
    "HF031": ("clean", without("podManagementPolicy"), set()),
    "HF032": ("clean", without("readinessProbe:", "resources:"), set()),
    "HF033": ("clean", without("livenessProbe:", "readinessProbe:"), set()),
    "HF034": ("clean", both(without("startupProbe:", "livenessProbe:"),
                            change(("failureThreshold: 6", "failureThreshold: 4"))), set()),
    "HF035": ("clean", change(("timeoutSeconds: 5", "timeoutSeconds: 1")), set()),
    "HF036": ("clean", change(("          livenessProbe:\n            tcpSocket:\n              port: 2379",
                               "          livenessProbe:\n            exec:\n"
                               "              command: [etcdctl, endpoint, health]")), set()),
    "HF040": ("clean", without("serviceName:"), {"HF091"}),
    "HF041": ("clean", document("Service", "store-peers"), set()),
    "HF042": ("clean", without("clusterIP: None"), set()),
    "HF043": ("clean", without("publishNotReady"), set()),
    "HF044": ("clean", change(("  selector:\n    app: store", "  selector:\n    app: stor")), set()),
    "HF045": ("clean", change(("kind: Service\nmetadata:\n  name: store\n", "kind: Service\nmetadata:\n  name: etcd\n")),
              set()),
    "HF050": ("clean", document("PodDisruptionBudget", "store"), set()),
    "HF051": ("clean", change(("maxUnavailable: 1", "minAvailable: 33%")), set()),
    "HF052": ("clean", change(("maxUnavailable: 1", "minAvailable: \"3\"")), set()),
    "HF053": ("clean", append(PDB2), set()),
    "HF054": ("clean", change(("type: RollingUpdate", "type: OnDelete")), set()),
    "HF055": ("clean", change(("PeriodSeconds: 90", "PeriodSeconds: 10")), set()),
    "HF056": ("clean", append(HPA), set()),
    "HF057": ("clean", change(("    type: RollingUpdate\n", "    rollingUpdate:\n      maxUnavailable: 2\n")), set()),
    "HF060": ("clean", change(("              cpu: \"1\"\n", "")), set()),
    "HF061": ("clean", without("limits:", "volumeMounts:"), set()),
    "HF062": ("clean", change(("memory: 2Gi", "memory: 1Gi")), set()),
    "HF070": ("clean", change(("etcd:3.5.12", "quay.example:5000/etcd")), set()),
    "HF080": ("clean", change(("            - name: STORE_TOKEN\n              valueFrom:\n                secretKeyRef:\n"
                               "                  name: store\n                  key: token\n",
                               "            - name: STORE_TOKEN\n              value: abc\n")), set()),
    "HF081": ("clean", change(("\"--data-dir=/var/lib/etcd/data\"", "\"--auth-mode=none\"")), set()),
    "HF082": ("clean", change(("runAsNonRoot: true\n        runAsUser: 1000", "runAsUser: 0")), set()),
    "HF083": ("clean", change(("      terminationGrace", "      hostNetwork: true\n      terminationGrace")), set()),
    "HF084": ("clean", without("seccompProfile:", "affinity:"), set()),
    "HF085": ("clean", without("automountServiceAccountToken"), set()),
    "HF086": ("clean", without("fsGroupChangePolicy"), set()),
    "HF087": ("clean", document("NetworkPolicy", "store"), set()),
    "HF090": ("clean", change(("  issuerRef", "  ipAddresses: [10.0.0.7]\n  issuerRef")), set()),
    "HF091": ("clean", change(("*.store-peers.shop.svc", "store-0.store-peers.shop.svc")), set()),
    "HF093": ("clean", both(change(("          secret:\n            secretName: store-tls",
                                    "          configMap:\n            name: store-tls")), append(KEY)), set()),
    "HF100": ("clean", change(("replicas: 3", "replicas: 4")), set()),
    "HF101": ("clean", change(("replicas: 3", "replicas: 2")), {"HF091"}),
    "HF102": ("clean", append(POD), None),
    "HF103": ("clean-deployment", change(("redis@sha256", "consul@sha256"), ("replicas: 1", "replicas: 3")), None),
    "HF104": ("clean-single", without("- name: shm", "volumes:"), set()),
    "HF110": ("clean", change((ALREADY, "          image: etcd:3.5.13\n" + ALREADY)), set()),
}


def found(findings):
    return {f["rule"] for f in findings}


def certificate(tmp_path, names, days=365):
    """A Secret with a certificate for these names (DNS:... or IP:...); days below 0: expired."""
    (tmp_path / "ext").write_text("basicConstraints=critical,CA:FALSE\nsubjectAltName=" + ",".join(names))
    for command in (["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key"],
                    ["req", "-new", "-key", "key", "-subj", "/CN=x", "-out", "csr"],
                    ["x509", "-req", "-in", "csr", "-signkey", "key", "-days", str(days), "-extfile", "ext", "-out", "crt"]):
        subprocess.run(["openssl", *command], check=True, capture_output=True, cwd=tmp_path)
    data = base64.b64encode((tmp_path / "crt").read_bytes()).decode()
    return ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: store-tls\n  namespace: shop\ntype: kubernetes.io/tls\n"
            f"data:\n  tls.crt: {data}\n")


def test_every_rule_has_its_broken_fixture(holdfast):
    rules = {r["rule"] for r in json.loads(holdfast.run("doctor", "--rules", "--json")[0])["rules"]}
    assert rules == set(BROKEN) | {"HF092"} and len(rules) > 50


def test_every_rule_has_its_section(holdfast):
    """docs/doctor.md: a section for each rule, by id and name, in order, with more than the program says."""
    with open(os.path.join(ROOT, "docs", "doctor.md"), encoding="utf-8") as f:
        text = f.read()
    sections = re.findall(r"^### (HF\d{3}) ([a-z-]+) \((error|warning|note)\)\n\n(.+?)(?=^##|\Z)", text, re.M | re.S)
    rules = json.loads(holdfast.run("doctor", "--rules", "--json")[0])["rules"]
    assert [(r["rule"], r["name"], r["severity"]) for r in rules] == [s[:3] for s in sections]
    for rule, section in zip(rules, sections):
        assert len(section[3]) > 80, rule["rule"]


@pytest.mark.parametrize("name", ["clean", "clean-single", "clean-deployment"])
def test_clean_is_clean(holdfast, name):
    assert holdfast.doctor(fixture(name)) == []
    holdfast.run("doctor", "-f", os.path.join(FIXTURES, name + ".yaml"), "--fail-on", "note")


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_rule(holdfast, rule):
    name, breaking, with_it = BROKEN[rule]
    text = breaking(fixture(name))
    findings = holdfast.doctor(text)
    assert rule in found(findings), findings
    if with_it is not None:
        assert found(findings) - {rule} <= with_it, findings
    for f in findings:
        assert f["why"] and f["title"] and f["detail"], f
        assert 1 <= f["line"] <= text.count("\n") + 1
    # Quiet if told so, by flag and by annotation.
    assert rule not in found(holdfast.doctor(text, "--ignore", rule))


def fixable():
    return sorted(set(BROKEN) - {"HF000", "HF001", "HF002", "HF003", "HF004", "HF005", "HF011", "HF036", "HF040", "HF044",
                                 "HF053", "HF056", "HF060", "HF070", "HF080", "HF081", "HF082", "HF087", "HF090",
                                 "HF091", "HF093", "HF102", "HF103", "HF104", "HF110", "HF013", "HF023"})


@pytest.mark.parametrize("rule", fixable())
def test_fix(holdfast, rule, tmp_path):
    name, breaking, _ = BROKEN[rule]
    file = tmp_path / "m.yaml"
    text = breaking(fixture(name))
    file.write_text(text)
    before = holdfast.doctor(text)
    assert [f for f in before if f["rule"] == rule and f["fixable"] and f["add"]]
    holdfast.run("doctor", "--fix", "-f", file, status=None)
    fixed = file.read_text()
    after = holdfast.doctor(fixed)
    assert rule not in found(after), fixed
    assert not [f for f in after if f["fixable"]], after
    # Nothing is lost but the values that were changed, and comments stay behind them.
    gone = [s for s in difflib.ndiff(text.splitlines(), fixed.splitlines()) if s.startswith("- ")]
    assert len(gone) <= 1, gone
    for old in re.findall(r"#.*", text):
        assert old in fixed
    for o in yaml.safe_load_all(fixed):
        if "cert-manager" not in o["apiVersion"]:
            assert kubetypes.check(kubetypes.VERSIONS[-1], o) == [], fixed
    # Once more changes nothing.
    holdfast.run("doctor", "--fix", "-f", file, status=None)
    assert file.read_text() == fixed


@pytest.mark.parametrize("rule", fixable())
@pytest.mark.parametrize("style", ["json", "crlf", "flow", "sequence"])
def test_fix_in_other_clothes(holdfast, rule, style):
    """The same objects as one line of JSON each, with Windows' line ends, in other YAML styles."""
    name, breaking, _ = BROKEN[rule]
    objects = list(yaml.safe_load_all(breaking(fixture(name))))
    if style == "json":
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    elif style == "crlf":
        text = breaking(fixture(name)).replace("\n", "\r\n")
    elif style == "flow":
        text = yaml.safe_dump_all(objects, default_flow_style=None, width=60)
    else:
        text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": objects})
    out, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
    after = [f for f in holdfast.doctor(out) if f["rule"] == rule]
    # A second document has no place in a file of JSON: that is left to a person.
    assert after == [] or (style == "json" and rule in ("HF041", "HF050")), out
    assert list(yaml.safe_load_all(out))
    if style == "crlf":
        assert out.count("\n") == out.count("\r\n")


def test_certificates_in_secrets(holdfast, tmp_path):
    base = document("Certificate", "store")(fixture("clean"))
    good = ["DNS:*.store-peers.shop.svc.cluster.local", "DNS:store"]
    assert holdfast.doctor(base + "---\n" + certificate(tmp_path, good)) == []
    pods = [f"DNS:store-{i}" for i in range(3)]
    assert holdfast.doctor(base + "---\n" + certificate(tmp_path, [*pods, "IP:127.0.0.1"])) == []
    assert found(holdfast.doctor(base + "---\n" + certificate(tmp_path, [*good, "IP:10.1.2.3"]))) == {"HF090"}
    assert found(holdfast.doctor(base + "---\n" + certificate(tmp_path, pods[:2]))) == {"HF091"}
    soon = holdfast.doctor(base + "---\n" + certificate(tmp_path, good, days=10))
    assert [(f["rule"], f["severity"]) for f in soon] == [("HF092", "warning")]
    assert "HF092" in found(holdfast.doctor(base + "---\n" + certificate(tmp_path, good, days=-1)))
    # A certificate that nobody mounts is nobody's trouble here.
    other = certificate(tmp_path, ["IP:10.1.2.3"]).replace("name: store-tls", "name: other")
    assert holdfast.doctor(base + "---\n" + other) == []


def test_annotation_keeps_rules_quiet(holdfast):
    text = change(("replicas: 3", "replicas: 4"))(fixture("clean"))
    assert found(holdfast.doctor(text)) == {"HF100"}
    quiet = change(("kind: StatefulSet\nmetadata:\n", "kind: StatefulSet\nmetadata:\n  annotations:\n"
                    "    holdfast/doctor-ignore: HF100 HF022\n"))(text)
    assert holdfast.doctor(quiet) == []


def test_things_that_are_no_trouble(holdfast):
    """What looks like a trap and is none."""
    def with_change(*pairs, name="clean"):
        return holdfast.doctor(change(*pairs)(fixture(name)))
    assert with_change(("maxUnavailable: 1", "minAvailable: 2")) == []
    assert with_change(("maxUnavailable: 1", "maxUnavailable: 33%")) == []
    assert with_change(("  name: fast\n", "  name: standard\n"), ("Name: fast", "Name: standard")) == []
    assert with_change(("image: etcd:3.5.12", "image: \"host:5000/etcd@sha256:ab\"")) == []
    assert with_change(("STORE_TOKEN", "TOKEN_FILE")) == []
    assert with_change(("whenUnsatisfiable: ScheduleAnyway", "whenUnsatisfiable: DoNotSchedule")) == []
    assert with_change(("emptyDir: {}", "emptyDir: {medium: Memory}")) == []
    assert with_change(("runAsNonRoot: true\n        runAsUser: 1000", "runAsUser: 1000")) == []
    stateless = fixture("clean-deployment").replace("redis@", "nginx@").split("---\n")
    web = stateless[2].replace("persistentVolumeClaim:\n            claimName: cache", "emptyDir: {}")
    assert holdfast.doctor(web.replace("replicas: 1", "replicas: 2")) == []


def test_where(holdfast):
    """A finding's place is the place to change."""
    text = change(("replicas: 3", "replicas: 4"))(fixture("clean"))
    f, = holdfast.doctor(text)
    assert text.splitlines()[f["line"] - 1][f["column"] - 1:].startswith("replicas")
    assert f["object"] == {"kind": "StatefulSet", "namespace": "shop", "name": "store"} and f["file"] == "<stdin>"


def test_merge_keys_and_anchors(holdfast):
    """YAML's own ways not to repeat oneself."""
    text = fixture("clean").replace("                matchLabels:\n                  app: store\n      topology",
                                    "                matchLabels: &labels\n                  app: store\n      topology")
    text = text.replace("          labelSelector:\n            matchLabels:\n              app: store\n      containers",
                        "          labelSelector:\n            matchLabels:\n              <<: *labels\n      containers")
    assert "<<" in text and "&labels" in text
    assert holdfast.doctor(text) == []


def test_exit_status_and_thresholds(holdfast, tmp_path):
    note, warning = (BROKEN[r][1](fixture(BROKEN[r][0])) for r in ("HF022", "HF100"))
    holdfast.run("doctor", "-f", "-", stdin=note, status=0)
    holdfast.run("doctor", "-f", "-", "--fail-on", "note", stdin=note, status=1)
    holdfast.run("doctor", "-f", "-", stdin=warning, status=1)
    holdfast.run("doctor", "-f", "-", "--fail-on", "error", stdin=warning, status=0)
    holdfast.run("doctor", "-f", "-", "--fail-on", "never", stdin="a: [", status=0)
    for args in ([], ["-f", str(tmp_path / "none")], ["-f", str(tmp_path)], ["-f", "-", "--fail-on", "x"],
                 ["-f", "-", "--ignore", "HF999"], ["-f", "-", "--json", "--sarif"], ["--fix", "--json", "-f", "-"]):
        out, err = holdfast.run("doctor", *args, status=2)
        assert out == "" and err.startswith("holdfast: ")


def test_directories(holdfast, tmp_path):
    """Objects of one application in many files belong together; patches are not objects."""
    for i, part in enumerate(fixture("clean").split("---\n")):
        (tmp_path / "deep" / str(i)).mkdir(parents=True)
        (tmp_path / "deep" / str(i) / "x.yml").write_text(part)
    (tmp_path / "notes.txt").write_text("replicas: {")
    (tmp_path / "kustomization.yaml").write_text("patches: [{path: patch.yaml}]\nresources: [deep]\n")
    (tmp_path / "patch.yaml").write_text("kind: StatefulSet\napiVersion: apps/v1\nmetadata: {name: store}\n"
                                         "spec: {replicas: 4}\n")
    holdfast.run("doctor", "-f", tmp_path, "--fail-on", "note")
    (tmp_path / "deep" / "6" / "x.yml").write_text(fixture("clean").split("---\n")[6].replace("replicas: 3",
                                                                                             "replicas: 4"))
    out, _ = holdfast.run("doctor", "-f", tmp_path, "--json", status=1)
    f, = json.loads(out)["findings"]
    assert f["file"].endswith("deep/6/x.yml") and f["rule"] == "HF100"
    holdfast.run("doctor", "-f", tmp_path, "--fix", status=0)
    assert "replicas: 5" in (tmp_path / "deep" / "6" / "x.yml").read_text()


def test_our_own_manifests_have_nothing_to_find(holdfast):
    for args in ([], ["--replicas", "1"], ["--replicas", "5", "--zone-spread"], ["--name", "shop", "--namespace", "x"],
                 ["--cert-manager", "--service-monitor", "--scale-down-role", "--provisioner", "ebs.csi.aws.com"],
                 ["--storage-class", "holdfast-dev", "--provisioner", "rancher.io/local-path"]):
        text = holdfast.run("manifest", *args)[0]
        assert holdfast.doctor(text) == [], args
        secrets = holdfast.run("manifest", "--secrets", *args)[0]
        assert holdfast.doctor(text + "---\n" + secrets) == [], args
    base = os.path.join(ROOT, "deploy", "kubernetes", "base")
    holdfast.run("doctor", "-f", base, "--fail-on", "note")


def test_sarif(holdfast):
    text = change(("replicas: 3", "replicas: 4"))(fixture("clean"))
    sarif = json.loads(holdfast.run("doctor", "-f", "-", "--sarif", stdin=text, status=1)[0])
    run, = sarif["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert sarif["version"] == "2.1.0" and run["tool"]["driver"]["name"] == "holdfast doctor"
    result, = run["results"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "HF100" and result["level"] == "warning"
    region = result["locations"][0]["physicalLocation"]
    assert region["region"]["startLine"] > 1 and region["artifactLocation"]["uri"] == "<stdin>"
    assert {r["defaultConfiguration"]["level"] for r in rules} == {"error", "warning", "note"}
    assert len({r["id"] for r in rules}) == len(rules)


def test_comments_stay_with_what_they_explain(holdfast):
    text = both(without("podManagementPolicy"),
                change(("  replicas: 3\n", "  # why three:\n  # two would be no better than one\n  replicas: 3\n")))(
                    fixture("clean"))
    fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
    assert "spec:\n  podManagementPolicy: Parallel\n  # why three:\n  # two would be no better than one\n  replicas: 3" in fixed


def test_what_looks_like_a_comment_in_a_text_is_left_alone(holdfast):
    """The last lines of a block of text begin with #; the next key is where something is added."""
    text = both(without("readinessProbe:", "resources:"), without("command:"),
                change(("        - name: etcd\n          image: etcd:3.5.12\n",
                        "        - command:\n            - sh\n            - -c\n            - |\n              exec etcd\n"
                        "              # not a comment\n              # neither\n          name: etcd\n"
                        "          image: etcd:3.5.12\n")))(fixture("clean"))
    before = list(yaml.safe_load_all(text))[-1]
    fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
    after = list(yaml.safe_load_all(fixed))[-1]
    container = after["spec"]["template"]["spec"]["containers"][0]
    assert container.pop("readinessProbe") and after == before
    assert holdfast.doctor(fixed) == []


def test_wildcards_are_for_one_service(holdfast, tmp_path):
    base = document("Certificate", "store")(fixture("clean"))
    for wrong in ("*.other.shop.svc", "*.store-peers.web.svc", "*.shop.svc", "*", "store-peers.shop.svc"):
        assert found(holdfast.doctor(base + "---\n" + certificate(tmp_path, ["DNS:" + wrong]))) == {"HF091"}, wrong


def test_selectors_that_disagree(holdfast):
    """Labels of the pods and the workload's own selector: what is added selects the pods that there are."""
    text = both(document("PodDisruptionBudget", "store"),
                change(("      labels:\n        app: store", "      labels:\n        app: store\n        tier: one")))(
                    fixture("clean"))
    fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
    budget = list(yaml.safe_load_all(fixed))[-1]
    assert budget["kind"] == "PodDisruptionBudget" and budget["spec"]["selector"]["matchLabels"] == {"app": "store"}
    text = text.replace("  selector:\n    matchLabels:\n      app: store\n  template", "  selector:\n    matchLabels:\n"
                        "      app: stale\n  template")
    fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
    budget = list(yaml.safe_load_all(fixed))[-1]
    assert budget["spec"]["selector"]["matchLabels"] == {"app": "store", "tier": "one"}


def test_namespaces_are_apart(holdfast):
    """What is in another namespace does not count; what names none may be in any."""
    def moved(kind, name, to):
        parts = fixture("clean").split("---\n")
        return "---\n".join(p.replace("  namespace: shop\n", to) if f"kind: {kind}\n" in p and f"  name: {name}\n" in p
                            else p for p in parts)
    for kind, name, rule in (("PodDisruptionBudget", "store", "HF050"), ("Service", "store-peers", "HF041"),
                             ("NetworkPolicy", "store", "HF087")):
        assert found(holdfast.doctor(moved(kind, name, "  namespace: web\n"))) == {rule}
        assert holdfast.doctor(moved(kind, name, "")) == []


def test_a_fixed_file_keeps_what_it_is(holdfast, tmp_path):
    """Mode, owner, and the link by which it was named."""
    rule = fixable()[0]
    name, breaking, _ = BROKEN[rule]
    (tmp_path / "kept").mkdir()
    file, link = tmp_path / "kept" / "m.yaml", tmp_path / "m.yaml"
    file.write_text(breaking(fixture(name)))
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 2345)
    before = file.stat()
    link.symlink_to("kept/m.yaml")
    _, err = holdfast.run("doctor", "--fix", "-f", link, status=None)
    assert "fixed" in err and rule not in found(holdfast.doctor(file.read_text()))
    after = file.stat()
    assert os.readlink(link) == "kept/m.yaml"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(file.parent) == ["m.yaml"]
