"""The cluster tests' time limit and reports hold here, too."""

import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
CLUSTER = os.path.join(os.path.dirname(HERE), "cluster")
sys.path[:0] = [HERE, CLUSTER]

_spec = importlib.util.spec_from_file_location("cluster_conftest", os.path.join(CLUSTER, "conftest.py"))
_cluster = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cluster)

time_limit = _cluster.time_limit
pytest_runtest_makereport = _cluster.pytest_runtest_makereport
pytest_collection_finish = _cluster.pytest_collection_finish
pytest_sessionfinish = _cluster.pytest_sessionfinish
