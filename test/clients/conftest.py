"""Real clients against a real cluster. One cluster for the whole run; every test leaves it healthy."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))

# pylint: disable=wrong-import-position,unused-import
import pytest  # noqa: E402

import harness  # noqa: E402
from hooks import (limit_s, pytest_collection_finish, pytest_runtest_makereport,  # noqa: E402,F401
                   pytest_sessionfinish, time_limit)

_shared = {}


@pytest.fixture
def cluster(request):
    """Three nodes with the settings everybody gets."""
    if "c" not in _shared:
        _shared["c"] = harness.Cluster()
    _shared["c"].heal()
    yield _shared["c"]
    if getattr(request.node, "report_call", None) is None or not request.node.report_call.passed:
        _shared.pop("c").destroy()
