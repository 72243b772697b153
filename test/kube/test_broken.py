"""Manifests that are broken: the doctor says so, or finds what it can, and never falls over. The fuzzer (make fuzz) goes
on where this ends."""

import glob
import json
import os
import random

import pytest

from conftest import ROOT

FIXTURES = sorted(glob.glob(os.path.join(ROOT, "test", "kube", "fixtures", "**", "*.yaml"), recursive=True))

STRANGE = {
    "empty": "", "only-comments": "# nothing\n", "markers": "---\n---\n...\n---\n", "null": "null\n", "word": "word\n",
    "list": "- a\n- b\n", "number": "12\n", "nul": "a: \0b\n", "tabs": "a:\n\t- b\n", "not-utf8": "a: \udcff\udcfe\n",
    "unclosed": "a: {b: [c\n", "quote": "a: \"b\n", "alias-to-nothing": "a: *b\n", "directive": "%YAML 9.9\n---\na: b\n",
    "itself": "&a\nkind: StatefulSet\nspec: *a\nmetadata: *a\n",
    "merge-itself": "a: &a\n  <<: [*a, *a, *a, *a]\n  b: c\nkind: StatefulSet\nspec: {<<: *a, template: {<<: *a}}\n",
    "laughs": "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
              + "kind: List\nitems: *a11\n",
    "deep": "kind: StatefulSet\nspec: " + "{a: " * 900 + "}" * 900 + "\n",
    "deeper": "[" * 20000,
    "wide": "kind: StatefulSet\nspec:\n" + "".join(f"  k{i}: {i}\n" for i in range(5000)),
    "list-of-words": "kind: List\nitems: [a, 1, null, {kind: {}}, {kind: StatefulSet, spec: []}]\n",
    "wrong-kinds": "kind: StatefulSet\nmetadata: []\nspec:\n  replicas: [3]\n  template: {spec: {containers: {a: b}, "
                   "volumes: 7, securityContext: x}, metadata: {labels: [a]}}\n  volumeClaimTemplates: {a: {}}\n",
    "numbers": "kind: StatefulSet\nmetadata: {name: x}\nspec:\n  replicas: 99999999999999999999\n  template: {spec: "
               "{terminationGracePeriodSeconds: -9e99, containers: [{name: x, image: etcd, livenessProbe: {periodSeconds: "
               "9223372036854775807, failureThreshold: 9223372036854775807}}]}}\n",
    "template": "kind: StatefulSet\nmetadata:\n  name: {{ .Release.Name }}\n",
    "names": "kind: StatefulSet\nmetadata: {name: \"x\\ny: z\", namespace: \"%s%n\"}\nspec: {replicas: 3, serviceName: "
             "\"a\\n---\\nb\", selector: {matchLabels: {\"%s'\\\"\": \"%n'\\\"\"}}, template: {metadata: {labels: {\"%s'\\\"\": "
             "\"%n'\\\"\"}}, spec: {containers: [{name: \"%s'\", image: \"%s'\", ports: [{containerPort: 1}]}]}}}\n",
}


@pytest.mark.parametrize("name", sorted(STRANGE))
def test_strange(holdfast, name):
    for more in ([], ["--json"], ["--sarif"], ["--fix"]):
        holdfast.run("doctor", "-f", "-", *more, stdin=STRANGE[name], status=None)


def test_what_cannot_be_read_is_said_where(holdfast):
    f, = [x for x in holdfast.doctor("a: b\n---\nc: [d\n") if x["rule"] == "HF000"]
    assert f["line"] >= 3 and f["object"] is None and f["severity"] == "error"
    f, = holdfast.doctor(STRANGE["template"])
    assert "helm template" in f["detail"]


def mutate(text, r):
    data = bytearray(text.encode())
    for _ in range(r.randint(1, 6)):
        at = r.randrange(len(data))
        what = r.randrange(5)
        if what == 0:
            del data[at:at + r.randint(1, 40)]
        elif what == 1:
            data[at] = r.randrange(256)
        elif what == 2:
            data[at:at] = r.choice([b"{", b"}", b"[", b"- ", b": ", b"\n", b"&a ", b"*a", b"'", b'"', b"#", b"!!str ", b"|\n",
                                    b"  ", b"<<: *a\n", b"? ", b"\xc2\x85", b"\r\n", b"---\n"])
        elif what == 3:
            at2 = r.randrange(len(data))
            data[at:at] = data[at2:at2 + r.randint(1, 200)]
        else:
            data = data[:at] if at > 10 else data
    return data.decode(errors="surrogateescape")


@pytest.mark.parametrize("seed", range(6))
def test_random_damage(holdfast, seed):
    r = random.Random(seed)
    for _ in range(40):
        with open(r.choice(FIXTURES), encoding="utf-8") as f:
            text = mutate(f.read(), r)
        fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=text, status=None)
        out, _ = holdfast.run("doctor", "--json", "-f", "-", stdin=fixed, status=None)
        if all(x["rule"] != "HF000" for x in holdfast.doctor(text)):
            assert all(x["rule"] != "HF000" for x in json.loads(out)["findings"]), text
