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
        done = subprocess.run([BINARY, *map(str, args)], input=stdin, capture_output=True, text=True,
                              errors="surrogateescape", timeout=60, check=False, cwd=cwd)
        assert status is None or done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def manifest(self, *args):
        return list(yaml.safe_load_all(self.run("manifest", *args)[0]))

    def doctor(self, text, *args):
        """Findings in a text, as JSON."""
        out, _ = self.run("doctor", "-f", "-", "--json", *args, stdin=text, status=None)
        return json.loads(out)["findings"]


@pytest.fixture(scope="session")
def holdfast():
    return Holdfast()
