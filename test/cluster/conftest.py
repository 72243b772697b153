"""Fixtures of the cluster tests. Clusters are shared between tests where that is clean: `cluster` is
a healthy three-node cluster, healed before each test and verified (nothing acknowledged is missing,
all nodes alike) after it. A test that fails takes its cluster with it."""

import pytest

import harness
from hooks import (limit_s, pytest_collection_finish, pytest_runtest_makereport,  # noqa: F401
                   pytest_sessionfinish, time_limit)

_shared = {}


def _take(key, **options):
    cluster = _shared.get(key)
    if cluster is not None:
        try:
            cluster.heal()
            cluster.empty_ledger()
            return cluster
        except BaseException:
            _drop(key)
            raise
    _shared[key] = harness.Cluster(**options)
    return _shared[key]


def _drop(key):
    cluster = _shared.pop(key, None)
    if cluster is not None:
        cluster.destroy()


def _lend(request, key, **options):
    cluster = _take(key, **options)
    yield cluster
    called = getattr(request.node, "report_call", None)
    if called is None or not called.passed:
        _drop(key)
        return
    try:
        cluster.heal()
        cluster.verify()
    except BaseException:
        print(cluster.dump())
        _drop(key)
        raise


@pytest.fixture
def cluster(request):
    """Three nodes with the settings everybody gets."""
    yield from _lend(request, "plain")


@pytest.fixture
def small_wal(request):
    """Three nodes that keep as little WAL as Holdfast allows: who is away misses some."""
    yield from _lend(
        request, "small_wal",
        env={"HOLDFAST_WAL_KEEP_MB": "64"},
        settings={"min_wal_size": "32MB", "max_wal_size": "32MB"},
    )


@pytest.fixture
def fresh(request):
    """A way to make clusters that end with the test."""
    made = []

    def make(**options):
        made.append(harness.Cluster(**options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.destroy()
