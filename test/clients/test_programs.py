"""Drivers as their users have them, each through a follower's port and through a change of leader."""

import os
import subprocess

from scenario import PROGRAMS, play

PYTHON = "/usr/bin/python3"
ALL = ["params", "prepared", "transaction", "copy", "large", "cancel", "notify"]


def test_libpq(cluster, tmp_path):
    program = os.path.join(tmp_path, "client")
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libpq"], capture_output=True, text=True,
                           check=True).stdout.split()
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, os.path.join(PROGRAMS, "client_libpq.c"), *flags],
                   check=True)
    play(cluster, [program], ALL)


def test_psycopg2(cluster):
    play(cluster, [PYTHON, "client_psycopg2.py"], ALL)


def test_psycopg3(cluster):
    play(cluster, [PYTHON, "client_psycopg3.py"], ALL)


def test_sqlalchemy(cluster):
    play(cluster, [PYTHON, "client_sqlalchemy.py"], ["params", "transaction", "large"], sqlstates={"40001"})


def test_perl_dbi(cluster):
    play(cluster, ["perl", "client_dbi.pl"], ALL)
