"""Pytest's hooks of every suite with nodes: a time limit for each test, and a report of all that is up when one fails.
A suite with another limit has its own `limit_s`."""

import os
import signal

import pytest

import suite


def pytest_collection_finish():
    if not os.access(suite.BINARY, os.X_OK):
        raise pytest.UsageError(f"{suite.BINARY} is not there (hint: run make first)")


@pytest.fixture(scope="session")
def limit_s():
    """How long a test may take that does not say it itself."""
    return 120


@pytest.fixture(autouse=True)
def time_limit(request, limit_s):  # pylint: disable=redefined-outer-name
    """A test that hangs is a failed test."""
    mark = request.node.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else limit_s) * suite.PATIENCE

    def ring(*_):
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    setattr(item, f"report_{report.when}", report)
    if report.failed and call.excinfo is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for up in suite.LIVE:
            report.sections.append(("holdfast", up.dump()))


def pytest_sessionfinish():
    for up in list(suite.LIVE):
        up.destroy()
