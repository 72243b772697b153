"""What all suites with nodes of their own share: the program, how long is long, and what is up."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("HOLDFAST_BINARY") or os.path.join(
    os.environ.get("HOLDFAST_BUILD", os.path.join(ROOT, "build")), "holdfast"
)
# Limits in tests are for what hangs, on a machine that may be slow and busy: correctness never depends on this, and
# how fast something is, is measured by bench/.
PATIENCE = float(os.environ.get("HOLDFAST_TEST_PATIENCE", "2"))
# Everything that runs nodes; dump() tells about it when a test fails, destroy() ends it.
LIVE = []
