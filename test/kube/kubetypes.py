"""Kubernetes' published types, version by version, and whether an object fits them.

The official JavaScript client is generated from Kubernetes' OpenAPI document and carries, for every type, the
names and types of its fields, and which are required. kubetypes.json says which release of the client holds
which version of Kubernetes, and the checksum it must have. npm fetches each once; what is read from it stays
in .cache/kubernetes. None of its code is run."""

import base64
import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(HERE, "..", "..", ".cache", "kubernetes")
with open(os.path.join(HERE, "kubetypes.json"), encoding="utf-8") as _f:
    RELEASES = json.load(_f)
VERSIONS = [r["kubernetes"] for r in RELEASES]

FIELD = re.compile(r'"baseName":\s*"([^"]*)",\s*"type":\s*"([^"]*)"')
REQUIRED = re.compile(r"^\s*'([^']+)'(\?)?:", re.M)
READS = re.compile(r"\bread(?:Namespaced)?([A-Z]\w*)\(")
SPEC = re.compile(r"(?:OpenAPI document|OpenAPI spec version): (?:release-|v)(\d+\.\d+)")


def fetch(release, place):
    """The package's tarball, as npm got it; its checksum decides, not the registry."""
    name = f"{release['package']}@{release['version']}"
    done = subprocess.run(["npm", "pack", "--silent", "--pack-destination", place, name], cwd=place,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    files = [f for f in os.listdir(place) if f.endswith(".tgz")]
    assert done.returncode == 0 and len(files) == 1, f"npm pack {name}: {done.stderr[-500:]}"
    path = os.path.join(place, files[0])
    with open(path, "rb") as f:
        digest = "sha512-" + base64.b64encode(hashlib.sha512(f.read()).digest()).decode()
    assert digest == release["integrity"], f"{name} is not what it was: {digest}"
    return path


def read(tarball):
    types, required, kinds, spec = {}, {}, {}, None
    with tarfile.open(tarball) as tar:
        for member in tar:
            found = re.fullmatch(r"package/dist/gen/(models?|apis?)/(\w+)(\.d\.ts|\.js)", member.name)
            if not found:
                continue
            folder, name, ext = found.groups()
            text = tar.extractfile(member).read().decode()
            name = name[0].upper() + name[1:]
            if folder.startswith("api"):
                if ext == ".d.ts" and name.endswith("Api"):
                    for kind in READS.findall(text):
                        kinds.setdefault(re.sub(r"(WithHttpInfo|Status|Scale)$", "", kind), set()).add(name)
            elif ext == ".js":
                types[name] = dict(FIELD.findall(text))
                spec = spec or (SPEC.search(text) or [None, None])[1]
            elif "class " in text:
                body = text[text.index("class "):]
                required[name] = [n for n, optional in REQUIRED.findall(body) if not optional]
    return {"spec": spec, "types": types, "required": required,
            "kinds": {k: sorted(v) for k, v in kinds.items()}}


_loaded = {}


def load(version):
    if version in _loaded:
        return _loaded[version]
    release = RELEASES[VERSIONS.index(version)]
    path = os.path.join(CACHE, f"{version}-{release['version']}.json")
    if not os.path.exists(path):
        os.makedirs(CACHE, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as place:
            made = read(fetch(release, place))
            with open(os.path.join(place, "made"), "w", encoding="utf-8") as f:
                json.dump(made, f)
            os.replace(f.name, path)
    with open(path, encoding="utf-8") as f:
        _loaded[version] = json.load(f)
    assert _loaded[version]["spec"] == version
    return _loaded[version]


def check_value(known, kind, value, path):
    """Complaints about one value."""
    if kind.startswith("Array<"):
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [c for i, v in enumerate(value) for c in check_value(known, kind[6:-1], v, f"{path}[{i}]")]
    found = re.fullmatch(r"\{ \[key: string\]: (.*?);? ?\}", kind)
    if found:
        if not isinstance(value, dict):
            return [f"{path}: not a map"]
        return [c for k, v in value.items() for c in check_value(known, found[1], v, f"{path}.{k}")]
    simple = {"string": str, "number": (int, float), "boolean": bool, "IntOrString": (int, str), "any": object,
              "object": object, "Date": str, "V1MicroTime": str}
    if kind in simple:
        wrong = not isinstance(value, simple[kind]) or (isinstance(value, bool) and kind in ("number", "IntOrString"))
        return [f"{path}: {value!r} is not of type {kind}"] if wrong else []
    if kind not in known["types"]:
        return [f"{path}: type {kind} is not known"]
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    fields = known["types"][kind]
    bad = [f"{path}: no field {k} in {kind}" for k in value if k not in fields]
    bad += [f"{path}: {kind} needs {k}" for k in known["required"][kind] if k not in value]
    for k, v in value.items():
        if k in fields:
            bad += check_value(known, fields[k], v, f"{path}.{k}")
    return bad


def check(version, obj):
    """Complaints about an object; empty: it fits. Custom resources are not Kubernetes' own: KeyError."""
    known = load(version)
    group, _, number = obj["apiVersion"].rpartition("/")
    words = [w.capitalize() for w in re.sub(r"\.k8s\.io$|\.authorization\.k8s\.io$", "", group or "core").split(".")]
    if group == "rbac.authorization.k8s.io":
        words = ["Rbac", "Authorization"]
    api = "".join(words) + number.capitalize() + "Api"
    if api not in known["kinds"].get(obj["kind"], []):
        return [f"{obj['kind']}: not a kind of {obj['apiVersion']} in Kubernetes {version}"]
    return check_value(known, number.capitalize() + obj["kind"], obj, obj["kind"])
