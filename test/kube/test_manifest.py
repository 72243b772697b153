"""The manifests: one source, Kubernetes' own types, and what every object in them must have."""

import base64
import copy
import filecmp
import os
import shutil
import subprocess

import pytest
import yaml

import kubetypes
import render
from conftest import DEPLOY, ROOT

PRODUCTION = ["--zone-spread", "--cpu", "4", "--memory", "16Gi", "--size", "100Gi"]
SAME = {
    "base": [],
    "overlays/dev": ["--replicas", "1", "--cpu", "250m", "--memory", "512Mi", "--size", "1Gi", "--storage-class",
                     "holdfast-dev", "--provisioner", "rancher.io/local-path"],
    "overlays/production": PRODUCTION,
    "overlays/tls-cert-manager": [*PRODUCTION, "--cert-manager"],
    "overlays/monitoring": [*PRODUCTION, "--service-monitor"],
}
COMPONENTS = {
    "storage-aws": ["--provisioner", "ebs.csi.aws.com"],
    "storage-gce": ["--provisioner", "pd.csi.storage.gke.io"],
    "storage-azure": ["--provisioner", "disk.csi.azure.com"],
    "cert-manager": ["--cert-manager"],
    "service-monitor": ["--service-monitor"],
    "scale-down": ["--scale-down-role"],
}
CUSTOM = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}
EVERYTHING = ["--cert-manager", "--service-monitor", "--scale-down-role", "--provisioner", "ebs.csi.aws.com"]


def by_id(objects):
    made = {(o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]): o for o in objects}
    assert len(made) == len(objects)
    return made


def of_kind(objects, kind):
    return [o for o in objects if o["kind"] == kind]


def in_any_order(o):
    """Lists with keys, whose order says nothing and changes when they are merged."""
    if o["kind"] == "StatefulSet":
        pod = o["spec"]["template"]["spec"]
        pod["volumes"].sort(key=lambda v: v["name"])
        for c in pod["containers"]:
            c["env"].sort(key=lambda v: v["name"])


def kustomize(place):
    """kustomize's own output, or None if there is no kustomize here."""
    for command in (["kubectl", "kustomize"], ["kustomize", "build"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, place], capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 0, done.stderr
            return list(yaml.safe_load_all(done.stdout))
    return None


@pytest.mark.parametrize("place", SAME)
def test_overlay_and_verb_give_the_same_objects(holdfast, place):
    assert by_id(render.render(os.path.join(DEPLOY, place))) == by_id(holdfast.manifest(*SAME[place]))


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_and_flag_give_the_same_objects(holdfast, component, tmp_path):
    kustomization = {"kind": "Kustomization", "resources": [os.path.join(DEPLOY, "base")],
                     "components": [os.path.join(DEPLOY, "components", component)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    assert by_id(render.render(str(tmp_path))) == by_id(holdfast.manifest(*COMPONENTS[component]))


@pytest.mark.parametrize("place", [*SAME, "all-components"])
def test_our_rendering_is_kustomizes(place, tmp_path):
    """Our own renderer stands in where no kustomize is installed; where one is, the two must agree."""
    if place == "all-components":
        place = str(tmp_path)
        shutil.copytree(DEPLOY, tmp_path / "kubernetes")
        (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "elsewhere",
            "resources": ["kubernetes/overlays/production"],
            "components": [f"kubernetes/components/{c}" for c in
                           ("storage-aws", "cert-manager", "service-monitor", "scale-down")]}))
    else:
        place = os.path.join(DEPLOY, place)
    ours, theirs = by_id(render.render(place)), kustomize(place)
    assert ours
    if theirs is not None:
        for objects in (ours.values(), theirs):
            for o in objects:
                in_any_order(o)
                # With another namespace these follow, which ours does not do.
                for subject in o.get("subjects", []):
                    subject.pop("namespace")
                if place == str(tmp_path) and o["kind"] == "Namespace":
                    o["metadata"]["name"] = "elsewhere"
        assert by_id(list(ours.values())) == by_id(theirs)


def test_the_generated_files_are_what_the_program_writes(tmp_path):
    """deploy/kubernetes is written by scripts/manifests, comments and all."""
    shutil.copytree(os.path.join(ROOT, "deploy"), tmp_path / "deploy")
    (tmp_path / "scripts").mkdir()
    shutil.copy(os.path.join(ROOT, "scripts", "manifests"), tmp_path / "scripts")
    from conftest import BINARY
    subprocess.run([tmp_path / "scripts" / "manifests", BINARY], check=True, timeout=60)
    for folder, _, files in os.walk(tmp_path / "deploy"):
        for file in files:
            made = os.path.join(folder, file)
            kept = os.path.join(ROOT, os.path.relpath(made, tmp_path))
            assert os.path.exists(kept) and filecmp.cmp(made, kept, shallow=False), \
                f"{kept} is stale (hint: scripts/manifests build/holdfast)"


@pytest.mark.parametrize("version", kubetypes.VERSIONS)
def test_every_object_fits_kubernetes_types(holdfast, version):
    sets = [render.render(os.path.join(DEPLOY, place)) for place in SAME]
    sets += [holdfast.manifest(*EVERYTHING), holdfast.manifest("--secrets"), holdfast.manifest("--same-machine")]
    seen = set()
    for objects in sets:
        for o in objects:
            if o["apiVersion"] in CUSTOM:
                continue
            assert kubetypes.check(version, o) == []
            seen.add(o["kind"])
    assert seen == {"Namespace", "ServiceAccount", "StorageClass", "ConfigMap", "Service", "PodDisruptionBudget",
                    "NetworkPolicy", "StatefulSet", "Secret", "Role", "RoleBinding"}


@pytest.mark.parametrize("version", [kubetypes.VERSIONS[0], kubetypes.VERSIONS[-1]])
def test_the_types_refuse_what_is_wrong(holdfast, version):
    good = of_kind(holdfast.manifest(), "StatefulSet")[0]
    assert kubetypes.check(version, good) == []

    def broken(change):
        o = copy.deepcopy(good)
        change(o)
        return kubetypes.check(version, o)

    assert broken(lambda o: o["spec"].update(podManagmentPolicy="Parallel"))
    assert broken(lambda o: o["spec"].update(replicas="3"))
    assert broken(lambda o: o["spec"].pop("selector"))
    assert broken(lambda o: o["spec"]["template"]["spec"]["containers"][0].pop("name"))
    assert broken(lambda o: o["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].update(cpu=1))
    assert broken(lambda o: o.update(apiVersion="apps/v2"))
    assert broken(lambda o: o.update(kind="Service"))


def test_parameters_arrive(holdfast):
    objects = holdfast.manifest("--name", "shop", "--namespace", "web", "--replicas", "5", "--storage-class", "fast",
                                "--size", "20Gi", "--cpu", "2", "--memory", "8Gi", "--image", "here/holdfast:9",
                                "-c", "work_mem=16MB", "-c", "search_path= 'a b', c")
    sts = of_kind(objects, "StatefulSet")[0]
    pod = sts["spec"]["template"]["spec"]
    claim = sts["spec"]["volumeClaimTemplates"][0]["spec"]
    env = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    assert sts["metadata"]["name"] == "shop" and sts["spec"]["replicas"] == 5 and env["HOLDFAST_REPLICAS"] == "5"
    assert sts["spec"]["serviceName"] == env["HOLDFAST_SERVICE"] == "shop-peers"
    assert claim["storageClassName"] == "fast" and claim["resources"]["requests"]["storage"] == "20Gi"
    assert pod["containers"][0]["image"] == "here/holdfast:9"
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "8Gi"}
    settings = of_kind(objects, "ConfigMap")[0]["data"]["postgresql.conf"].splitlines()
    assert {"shared_buffers = '2048MB'", "work_mem = '16MB'", "search_path = ' ''a b'', c'"} <= set(settings)
    for o in objects:
        assert o["kind"] == "Namespace" or o["metadata"]["namespace"] == "web"
        assert o["metadata"]["name"].startswith(("shop", "web"))
    assert "holdfast-" not in holdfast.run("manifest", "--name", "shop", "--namespace", "web", "--storage-class",
                                           "fast")[0]


@pytest.mark.parametrize("args", [
    ["--replicas", "2"], ["--replicas", "0"], ["--replicas", "11"], ["--name", "Shop"], ["--name", "9shop"],
    ["--name", "x" * 41], ["--namespace", "a_b"], ["--size", "10"], ["--size", "much"], ["--memory", "1Mi"],
    ["--cpu", "x"], ["--cpu", "-1"], ["--image", "a b"], ["--image", ""], ["--storage-class", "a\nb: c"],
    ["--set", "a"], ["--set", "a\nb=c"], ["--set", "A b=c"], ["--provisioner", "x y"], ["--nothing"], ["operand"]])
def test_nonsense_is_refused(holdfast, args):
    out, err = holdfast.run("manifest", *args, status=2)
    assert out == "" and err.startswith("holdfast: ")


def test_references_hold(holdfast):
    """Names that one object says of another: Services, ServiceAccount, ConfigMap, Secrets, selectors, ports."""
    objects = holdfast.manifest("--name", "shop", *EVERYTHING)
    sts = of_kind(objects, "StatefulSet")[0]
    pod, labels = sts["spec"]["template"]["spec"], sts["spec"]["template"]["metadata"]["labels"]
    container = pod["containers"][0]
    services = {s["metadata"]["name"]: s["spec"] for s in of_kind(objects, "Service")}
    ports = {p["name"] for p in container["ports"]}
    governing = services[sts["spec"]["serviceName"]]
    assert governing["clusterIP"] == "None" and governing["publishNotReadyAddresses"] is True
    assert set(services) == {"shop", "shop-read", "shop-peers"}
    selectors = [s["selector"] for s in services.values()]
    selectors += [o["spec"]["selector"]["matchLabels"] for o in of_kind(objects, "PodDisruptionBudget")]
    selectors += [o["spec"]["podSelector"]["matchLabels"] for o in of_kind(objects, "NetworkPolicy")]
    selectors.append(sts["spec"]["selector"]["matchLabels"])
    assert all(s and s.items() <= labels.items() for s in selectors)
    assert all(p["targetPort"] in ports for s in services.values() for p in s["ports"])
    assert all(container[p]["httpGet"]["port"] in ports for p in ("startupProbe", "livenessProbe", "readinessProbe"))
    assert pod["serviceAccountName"] in {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}
    settings = [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v]
    assert settings == [o["metadata"]["name"] for o in of_kind(objects, "ConfigMap")]
    assert sts["spec"]["volumeClaimTemplates"][0]["spec"]["storageClassName"] in {
        o["metadata"]["name"] for o in of_kind(objects, "StorageClass")}
    mounts = {m["name"] for m in container["volumeMounts"]}
    assert mounts == {v["name"] for v in pod["volumes"]} | {"data"}
    secrets = {o["metadata"]["name"]: o for o in holdfast.manifest("--name", "shop", "--secrets")}
    for volume in pod["volumes"]:
        if "secret" in volume:
            keys = {i["key"] for i in volume["secret"].get("items", [{"key": "credentials.json"}])}
            secret = secrets[volume["secret"]["secretName"]]
            assert keys <= set(secret.get("data", {})) | set(secret.get("stringData", {}))


def test_variables_are_the_nodes(holdfast):
    """Each HOLDFAST_ variable that a pod gets is one that a node knows."""
    known = holdfast.run("node", "--help")[0]
    sts = of_kind(holdfast.manifest(), "StatefulSet")[0]
    names = {e["name"] for e in sts["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert {"HOLDFAST_NAMESPACE", "HOLDFAST_SERVICE", "HOLDFAST_REPLICAS", "HOLDFAST_SETTINGS_FILE"} <= names
    for name in names:
        assert f"[{name}]" in known, name


def test_the_strictest_profile(holdfast):
    """What Kubernetes' `restricted` pod security profile asks for."""
    pod = of_kind(holdfast.manifest(*EVERYTHING), "StatefulSet")[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    for c in pod["containers"]:
        assert c["securityContext"]["allowPrivilegeEscalation"] is False
        assert c["securityContext"]["readOnlyRootFilesystem"] is True
        assert c["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert c["resources"]["requests"] == c["resources"]["limits"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all({"secret", "configMap", "emptyDir"} & set(v) for v in pod["volumes"])
    namespace = of_kind(holdfast.manifest(), "Namespace")[0]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_each_part_says_why():
    """The traps of the mission, each with a comment on the line before or in the object's first line."""
    with open(os.path.join(DEPLOY, "base", "statefulset.yaml"), encoding="utf-8") as f:
        lines = f.read().splitlines()
    for key in ("replicas:", "serviceName:", "podManagementPolicy:", "minReadySeconds:", "type: RollingUpdate",
                "whenDeleted:", "automountServiceAccountToken:", "enableServiceLinks:",
                "terminationGracePeriodSeconds:", "runAsNonRoot:", "fsGroupChangePolicy:",
                "type: RuntimeDefault", "requiredDuringScheduling", "- topologyKey: topology", "image:",
                "startupProbe:", "livenessProbe:", "readinessProbe:", "resources:", "allowPrivilegeEscalation:",
                "accessModes:", "storageClassName:", "- name: HOLDFAST_NODE_DIR"):
        at = [i for i, line in enumerate(lines) if key in line]
        # A group of lines shares the comment above it, at most three lines up.
        assert at and any(lines[j].lstrip().startswith("#") for j in range(at[0] - 3, at[0])), key
    for file in os.listdir(os.path.join(DEPLOY, "base")):
        with open(os.path.join(DEPLOY, "base", file), encoding="utf-8") as f:
            assert file == "kustomization.yaml" or f.readline().startswith("# "), file


def test_secrets_are_new_each_time_and_fit_the_names(holdfast, tmp_path):
    first, second = (holdfast.manifest("--name", "shop", "--namespace", "web", "--secrets") for _ in range(2))
    data = {o["metadata"]["name"]: o for o in first}
    assert set(data) == {"shop-credentials", "shop-tls", "shop-ca"}
    assert all(a != b for a, b in zip(first, second))
    for key in ("ca.crt", "tls.crt", "tls.key"):
        (tmp_path / key).write_bytes(base64.b64decode(data["shop-tls"]["data"][key]))
    openssl = ["openssl", "x509", "-in", tmp_path / "tls.crt", "-noout", "-ext", "subjectAltName"]
    names = subprocess.run(openssl, capture_output=True, text=True, check=True).stdout
    for name in ("shop-0", "shop-8", "*.shop-peers.web.svc.cluster.local", "*.shop-peers.web.svc", "shop.web.svc",
                 "shop-read"):
        assert f"DNS:{name}" in names, name
    assert "IP Address" not in names
    public = [subprocess.run(["openssl", *words], capture_output=True, check=True, cwd=tmp_path).stdout for words in
              (["pkey", "-in", "tls.key", "-pubout"], ["x509", "-in", "tls.crt", "-noout", "-pubkey"])]
    assert public[0] == public[1]
    subprocess.run(["openssl", "verify", "-CAfile", tmp_path / "ca.crt", tmp_path / "tls.crt"], check=True,
                   capture_output=True)
    certificate = [o for o in holdfast.manifest("--name", "shop", "--namespace", "web", "--cert-manager")
                   if o["kind"] == "Certificate" and o["metadata"]["name"] == "shop-tls"][0]
    assert {f"DNS:{n}" for n in certificate["spec"]["dnsNames"]} == {
        n.strip() for n in names.splitlines()[1].split(",")}
    assert len(holdfast.manifest("--secrets", "--cert-manager")) == 1
