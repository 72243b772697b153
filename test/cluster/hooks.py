"""What every suite of tests with clusters has: a time limit for each test, and a report of the cluster when one
fails."""

import os
import signal

import pytest

import harness


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
