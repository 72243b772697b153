"""What `kubectl kustomize` makes of a directory, for the features deploy/kubernetes uses: resources,
components, namespace, and patches with a target (merged by Kubernetes' rules, or JSON 6902). Where a kubectl or
kustomize is installed, test_manifest.py holds this up against it; anything unknown is an error, not ignored."""

import copy
import os

import yaml

CLUSTER_WIDE = {"Namespace", "StorageClass", "ClusterRole", "ClusterRoleBinding"}
# Lists that Kubernetes merges by a key; all others are replaced.
MERGE_KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name",
              "volumeMounts": "mountPath", "ports": "containerPort"}
KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches"}


def load(path):
    with open(path, encoding="utf-8") as f:
        return [d for d in yaml.safe_load_all(f) if d is not None]


def merge(into, patch, key=""):
    if isinstance(into, dict) and isinstance(patch, dict):
        for k, v in patch.items():
            if v is None:
                into.pop(k, None)
            else:
                into[k] = merge(into[k], v, k) if k in into else copy.deepcopy(v)
        return into
    if isinstance(into, list) and isinstance(patch, list) and key in MERGE_KEYS:
        name = MERGE_KEYS[key]
        for item in patch:
            old = [i for i, o in enumerate(into) if o.get(name) == item[name]]
            if old:
                into[old[0]] = merge(into[old[0]], item)
            else:
                into.append(copy.deepcopy(item))
        return into
    return copy.deepcopy(patch)


def json_patch(target, steps):
    for step in steps:
        *path, last = [p.replace("~1", "/").replace("~0", "~") for p in step["path"].split("/")[1:]]
        at = target
        for p in path:
            at = at[int(p)] if isinstance(at, list) else at[p]
        if isinstance(at, list) and step["op"] == "add":
            at.insert(len(at) if last == "-" else int(last), copy.deepcopy(step["value"]))
        elif step["op"] == "replace" and (last in at if isinstance(at, dict) else int(last) < len(at)):
            at[int(last) if isinstance(at, list) else last] = copy.deepcopy(step["value"])
        else:
            raise ValueError(f"{step['op']} {step['path']}: not known here, or nothing there")


def apply_patch(place, objects, patch):
    assert set(patch) <= {"path", "patch", "target"} and set(patch["target"]) <= {"kind", "name"}, patch
    if "path" in patch:
        body = load(os.path.join(place, patch["path"]))[0]
    else:
        body = yaml.safe_load(patch["patch"])
    hit = [o for o in objects if o["kind"] == patch["target"]["kind"]
           and o["metadata"]["name"] == patch["target"]["name"]]
    if not hit:
        raise ValueError(f"{place}: a patch has no target: {patch['target']}")
    for o in hit:
        if isinstance(body, list):
            json_patch(o, body)
        else:
            merge(o, body)


def render(place, objects=None):
    """All objects of a directory with a kustomization.yaml; `objects`: those a component works upon."""
    kustomization = load(os.path.join(place, "kustomization.yaml"))[0]
    assert set(kustomization) <= KNOWN, set(kustomization) - KNOWN
    assert kustomization["kind"] == ("Kustomization" if objects is None else "Component")
    made = [] if objects is None else objects
    for resource in kustomization.get("resources", []):
        path = os.path.normpath(os.path.join(place, resource))
        made += render(path) if os.path.isdir(path) else load(path)
    for component in kustomization.get("components", []):
        made = render(os.path.normpath(os.path.join(place, component)), made)
    for patch in kustomization.get("patches", []):
        apply_patch(place, made, patch)
    for o in made:
        if "namespace" in kustomization and o["kind"] not in CLUSTER_WIDE:
            o["metadata"]["namespace"] = kustomization["namespace"]
    return made
