"""What the tests of manifests and doctor share."""

import json
import os
import subprocess

import pytest
import yaml

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BINARY = os.path.join(os.environ.get("HOLDFAST_BUILD", os.path.join(ROOT, "build")), "holdfast")
DEPLOY = os.path.join(ROOT, "deploy", "kubernetes")


def pytest_collection_finish():
    if not os.access(BINARY, os.X_OK):
        raise pytest.UsageError(f"{BINARY} is not there (hint: run make first)")


class Holdfast:
    def run(self, *args, stdin="", status=0, cwd=None):
        """(stdout, stderr); `status`: what it must end with, None: anything."""
        done = subprocess.run([BINARY, *map(str, args)], input=stdin.encode(errors="surrogateescape"),
                              capture_output=True, timeout=60, check=False, cwd=cwd)
        out, err = (b.decode(errors="surrogateescape") for b in (done.stdout, done.stderr))
        assert done.returncode == status if status is not None else done.returncode in (0, 1), (done.returncode, out, err)
        return out, err

    def manifest(self, *args):
        return list(yaml.safe_load_all(self.run("manifest", *args)[0]))

    def doctor(self, text, *args):
        """Findings in a text, as JSON."""
        out, _ = self.run("doctor", "-f", "-", "--json", *args, stdin=text, status=None)
        return json.loads(out)["findings"]


@pytest.fixture(scope="session")
def holdfast():
    return Holdfast()
