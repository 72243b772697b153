"""What the public walk-throughs for other databases do, told in our own words, with the faults that each is known
for in its comment `expect:` (a dash: not that one). Every expected rule must fire, and no other."""

import glob
import os
import re

import pytest
import yaml

import kubetypes
from conftest import ROOT

PLACE = os.path.join(ROOT, "test", "kube", "fixtures", "examples")
FILES = sorted(os.path.basename(f) for f in glob.glob(os.path.join(PLACE, "*.yaml")))


def read(name):
    with open(os.path.join(PLACE, name), encoding="utf-8") as f:
        return f.read()


@pytest.mark.parametrize("name", FILES)
def test_each_known_fault_is_found(holdfast, name):
    text = read(name)
    words = re.search(r"^# expect: (.*)$", text, re.M)[1].split()
    assert {f["rule"] for f in holdfast.doctor(text)} == {w for w in words if not w.endswith("-")}


def test_every_database_of_the_list_is_there():
    for database in ("cockroachdb", "cassandra", "zookeeper", "mysql", "redis"):
        assert sum(f.startswith(database) for f in FILES) == 2


@pytest.mark.parametrize("name", FILES)
def test_fixed_they_have_nothing_left_that_a_program_can_mend(holdfast, name):
    fixed, _ = holdfast.run("doctor", "--fix", "-f", "-", stdin=read(name), status=None)
    left = [f for f in holdfast.doctor(fixed) if f["fixable"]]
    assert left == [], fixed
    assert all(line in fixed.splitlines() for line in read(name).splitlines() if line.lstrip().startswith("#"))
    for o in yaml.safe_load_all(fixed):
        if o["kind"] != "Ledger":
            bad = [c for c in kubetypes.check(kubetypes.VERSIONS[-1], o) if "is not of type string" not in c]
            assert bad == [], fixed
