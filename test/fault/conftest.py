"""The cluster tests' time limit and reports hold here, too."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "cluster")]

# pylint: disable=wrong-import-position,unused-import
from hooks import (limit_s, pytest_collection_finish, pytest_runtest_makereport,  # noqa: E402,F401
                   pytest_sessionfinish, time_limit)
