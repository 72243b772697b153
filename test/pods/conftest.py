import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cluster"))

# pylint: disable=wrong-import-position,unused-import
import pytest  # noqa: E402

import pods  # noqa: E402
from hooks import pytest_runtest_makereport, time_limit  # noqa: E402,F401


@pytest.fixture(scope="session")
def limit_s():
    """Pods take longer to come and go."""
    return 180


@pytest.fixture(scope="session")
def image():
    return pods.Image(os.environ["HOLDFAST_IMAGE"], os.environ["HOLDFAST_PODS_DIR"])


@pytest.fixture(scope="session")
def network():
    n = pods.Network()
    yield n
    n.close()


@pytest.fixture
def stateful(request, image, network):
    """Makes a StatefulSet that ends with the test."""
    made = []

    def make(**options):
        where = os.path.join(os.environ["HOLDFAST_PODS_DIR"], f"{request.node.name}-{len(made)}")
        made.append(pods.StatefulSet(network, image, where, **options))
        return made[-1]

    yield make
    for s in made:
        s.destroy()


def pytest_unconfigure(config):
    """The last line, as every suite has it (scripts/sum)."""
    stats = getattr(config.pluginmanager.get_plugin("terminalreporter"), "stats", {})
    print(f"pods tests: {len(stats.get('passed', []))} passed, "
          f"{len(stats.get('failed', [])) + len(stats.get('error', []))} failed")
