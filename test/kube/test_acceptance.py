"""The acceptance run, as far as it can be looked at without a cluster: what it would do, and that it ends."""

import os
import subprocess

from conftest import BINARY, ROOT

SCRIPT = os.path.join(ROOT, "test", "kubernetes", "acceptance")


def dry_run(*more):
    done = subprocess.run([SCRIPT, "--dry-run", "--image", "holdfast:x", "--storage-class", "fast", "--namespace", "ns",
                           "--holdfast", BINARY, *more], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_dry_run_shows_every_step():
    status, out = dry_run()
    assert status == 0 and out.endswith("15 passed, 0 failed\n"), out
    for part in ("apply -k", "create -f -", "delete pod holdfast-0", "delete pvc data-holdfast-0", "--grace-period=0",
                 "--replicas=5", "--replicas=3", "scale --replicas 3", "patch configmap", "rollout restart", "drain", "uncordon",
                 "instance=wrong --wait=false", "patch pvc data-full-2",
                 "stats/summary", "get statefulset,service", "delete namespace ns"):
        assert part in out, part
    order = [out.index(f"== {n}:") for n in ("apply", "first_query", "delete_leader", "scale", "drain", "doctor")]
    assert order == sorted(order)


def test_one_step_and_keep():
    status, out = dry_run("--only", "drain", "--keep")
    assert status == 0 and out.endswith("3 passed, 0 failed\n") and "delete namespace" not in out


def test_usage():
    assert subprocess.run([SCRIPT], capture_output=True, check=False).returncode == 2
