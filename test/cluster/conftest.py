"""Fixtures of the cluster tests. Clusters are shared between tests where that is clean: `cluster` is
a healthy three-node cluster, healed before each test and verified (nothing acknowledged is missing,
all nodes alike) after it. A test that fails takes its cluster with it."""

import os
import signal

import pytest

import harness

_shared = {}


def pytest_collection_finish():
    if not os.access(harness.BINARY, os.X_OK):
        raise pytest.UsageError(f"{harness.BINARY} is not there (hint: run make first)")


@pytest.fixture(autouse=True)
def time_limit(request):
    """A test that hangs is a failed test."""
    mark = request.node.get_closest_marker("limit")
    seconds = mark.args[0] if mark else 120

    def ring(*_):
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds * harness.PATIENCE)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    setattr(item, f"report_{report.when}", report)
    if report.failed and call.excinfo is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for cluster in harness.Cluster.live:
            report.sections.append(("holdfast", cluster.dump()))


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


def pytest_sessionfinish():
    for key in list(_shared):
        _drop(key)
    for cluster in list(harness.Cluster.live):
        cluster.destroy()
