"""Ten short schedules, two at a time; `make soak` runs long ones without end, and those that have found something again."""

import os

import pytest

import campaign
import harness

# Chosen so that between them every fault happens, three and five nodes, and sessions that share connections and such that do not:
# test_every_fault_happens.
SEEDS = (47, 25, 70, 170, 256, 21, 262, 142, 267, 344)
SECONDS = 15
# Runs of a minute that have found something (docs/safety.md says what, and names the test that shows each alone), with the faults
# they were limited to. Sessions had connections of their own then. The moments differ from run to run: none of these finds for
# certain what it once found.
FOUND = {
    303: "disk_full,disk_slow,disk_fails,clock_jump,kill_node,host_gone,isolate".split(","),
    20261130: None,
    20261208: None,
    20261223: None,
    20265029: None,
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
    judge(campaign.run(seed, 60, only=FOUND[seed] or list(campaign.schedule.FAULTS), pool="session", founders=0))


@pytest.mark.soak
@pytest.mark.limit(400)
@pytest.mark.parametrize("seed", LONG)
def test_random_faults_for_long(seed):
    judge(campaign.run(seed, 60))
