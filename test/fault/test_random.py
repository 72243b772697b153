"""Ten short schedules, two at a time; `make soak` runs long ones without end, and those that have found something again."""

import os
import re

import pytest

import campaign
import harness

# Chosen so that between them every fault happens, three and five nodes, and sessions that share connections and such that do not:
# test_every_fault_happens.
SEEDS = (47, 25, 70, 170, 256, 21, 262, 142, 267, 344)
SECONDS = 15
# Runs that have found something (docs/safety.md says what, and names the test that shows each alone), as they were made then: before there
# was more that a seed decides, of a minute, and with all faults but those that change the members. The moments differ from run to run: none of these finds
# for certain what it once found.
ALL_THEN = list(campaign.schedule.FAULTS)
OWN = {"pool": "session", "founders": 0}  # connections of their own, and all nodes told of each other
FOUND = {
    303: {"only": "disk_full,disk_slow,disk_fails,clock_jump,kill_node,host_gone,isolate".split(","), **OWN},
    20261130: {"only": ALL_THEN, **OWN},
    20261208: {"only": ALL_THEN, **OWN},
    20261223: {"only": ALL_THEN, **OWN},
    20265029: {"only": ALL_THEN, **OWN},
    20268002: {"only": ALL_THEN, "founders": 0},
    20268004: {"only": ALL_THEN, "founders": 0},
    20268008: {"only": ALL_THEN, "founders": 0},
    6: {"seconds": 15},
}
LONG = [int(s) for s in os.environ.get("HOLDFAST_FAULT_SEEDS", "").split()]


def judge(result):
    print(result.line())
    assert result.passed, f"{result.line()} {result.anomalies[:10]} {result.trouble}"


def short(seed):
    """`make test` runs this on machines that have other things to do, so it is patient, and its line says so; test/fault/run is not."""
    return campaign.run(seed, SECONDS, patience=harness.PATIENCE)


@pytest.fixture(name="results", scope="module")
def fixture_results():
    with campaign.pool(2) as pool:
        runs = {seed: pool.apply_async(short, (seed,)) for seed in SEEDS}
        try:
            yield runs
        finally:
            pool.terminate()
            pool.join()


@pytest.mark.limit(400)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults_lose_nothing(seed, results):
    judge(results[seed].get())


def test_every_fault_happens():
    events = [e for seed in SEEDS for e in campaign.schedule.plan(seed, SECONDS)]
    assert {e.fault for e in events} == {*campaign.schedule.FAULTS, *campaign.schedule.MEMBERS}
    assert {campaign.schedule.founders(seed) for seed in SEEDS} == {0, 1}
    assert {campaign.schedule.size(seed) for seed in SEEDS} == {3, 5}
    assert {campaign.schedule.pool(seed) for seed in SEEDS} == {"auto", "session"}


@pytest.mark.soak
@pytest.mark.limit(400)
@pytest.mark.parametrize("seed", FOUND)
def test_what_once_found_something(seed):
    judge(campaign.run(seed, **FOUND[seed]))


def test_every_seed_that_has_found_something_is_run_again():
    with open(os.path.join(harness.ROOT, "docs", "safety.md"), encoding="utf-8") as f:
        named = re.findall(r"\(seeds? (\d+(?:, \d{3,})*)", f.read())  # the simulator's are not in parentheses
    assert {int(n) for seeds in named for n in seeds.split(", ")} == set(FOUND)


@pytest.mark.soak
@pytest.mark.limit(400)
@pytest.mark.parametrize("seed", LONG)
def test_random_faults_for_long(seed):
    judge(campaign.run(seed, 60))
