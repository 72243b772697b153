import os
import signal

import pytest

import pods


@pytest.fixture(autouse=True)
def limit(request):
    """No test runs for ever."""
    mark = request.node.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else 180) * pods.PATIENCE

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
    if report.failed and call.excinfo is not None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s in pods.StatefulSet.live:
            report.sections.append(("holdfast", s.dump()))


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
