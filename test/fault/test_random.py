"""A few short schedules; `make soak` runs long ones without end. Seeds that once found something stay here."""

import os

import pytest

import campaign

# Chosen so that between them every part of the laboratory works: wires, processes, hosts, disks, clocks, volumes.
SEEDS = (47, 25)
LONG = [int(s) for s in os.environ.get("HOLDFAST_FAULT_SEEDS", "").split()]


def go(seed, seconds):
    result = campaign.run(seed, seconds)
    print(result.line())
    assert result.passed, f"{result.anomalies[:10]} {result.trouble}"


@pytest.mark.limit(180)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults_lose_nothing(seed):
    go(seed, 15)


@pytest.mark.soak
@pytest.mark.limit(400)
@pytest.mark.parametrize("seed", LONG)
def test_random_faults_for_long(seed):
    go(seed, 60)
