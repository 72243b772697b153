"""Clients whose packages are heavy: `make test-clients`, which installs them."""

import os
import shutil
import subprocess

import pytest

import harness
from scenario import PROGRAMS, play

pytestmark = pytest.mark.heavy
BUILD = os.path.join(os.path.dirname(harness.BINARY), "clients")
ALL = ["params", "prepared", "transaction", "copy", "large", "cancel", "notify"]


def test_jdbc(cluster, tmp_path):
    jar = "/usr/share/java/postgresql.jar"
    subprocess.run(["javac", "-cp", jar, "-d", tmp_path, os.path.join(PROGRAMS, "java", "Client.java")], check=True)
    play(cluster, ["java", "-cp", f"{jar}:{tmp_path}", "Client"], ALL)


def test_go(cluster, tmp_path):
    """lib/pq as Debian has it, built without the network."""
    program = os.path.join(tmp_path, "client")
    subprocess.run(["go", "build", "-o", program, os.path.join(PROGRAMS, "go", "client.go")], check=True,
                   env={**os.environ, "GOPATH": "/usr/share/gocode", "GO111MODULE": "off", "GOFLAGS": "",
                        "GOCACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)})
    # PGCONNECT_TIMEOUT and the like are read by lib/pq itself.
    play(cluster, [program], ALL, sqlstates={"40001"})


def node(cluster, program, steps, **more):
    """A copy beside the packages that make test-clients has installed."""
    assert os.path.isdir(os.path.join(BUILD, "node_modules", "pg")), "no packages of npm (hint: make test-clients)"
    shutil.copy(os.path.join(PROGRAMS, "node", program), BUILD)
    play(cluster, ["node", os.path.join(BUILD, program)], steps, **more)


def test_node_pg(cluster):
    node(cluster, "client_pg.js", [s for s in ALL if s != "copy"])


def test_sequelize(cluster):
    node(cluster, "client_sequelize.js", ["params", "transaction"], sqlstates={"40001"})
