"""Who vanishes without a word while an answer is on its way to him: a client, and the node between a client and the leader. What the
transaction has locked is free again long before TCP gives up (a quarter of an hour)."""

import contextlib
import os
import time

import psycopg2
import pytest

import harness
import lab as laboratory
from pipeline import query

LATEST_S = 35 * harness.PATIENCE  # twenty seconds without a word, two looks, and another try of TCP's


@pytest.fixture(scope="module")
def lab():
    made = laboratory.Lab(seed=25)
    yield made
    made.destroy()


@pytest.mark.parametrize("who", ("client", "node"))
def test_who_vanishes_lets_go_of_its_locks(lab, who):
    lab.heal()
    leader = lab.leader()
    follower, other = (n for n in lab.names() if n != leader)
    lab.execute("CREATE TABLE IF NOT EXISTS locked (n int)")
    lab.execute("TRUNCATE locked")
    lab.execute("INSERT INTO locked VALUES (1)")
    gone = lab.connect(leader if who == "client" else follower, autocommit=False, sslmode="disable")
    gone.cursor().execute("UPDATE locked SET n = 2")
    os.write(gone.fileno(), query("SELECT pg_sleep(1), repeat('x', 100000)"))
    time.sleep(0.3)  # asked before the cut, answered behind it
    if who == "client":
        lab.net.part([laboratory.CLIENTS], [leader])
    else:
        lab.net.part([follower], [leader, other, laboratory.CLIENTS])
    with contextlib.closing(lab.connect(other)) as waits, waits.cursor() as cur:
        cur.execute(f"SET lock_timeout = '{LATEST_S}s'")
        cur.execute("UPDATE locked SET n = n + 2 RETURNING n")
        assert cur.fetchone() == (3,)
    lab.net.heal()
    with pytest.raises(psycopg2.Error):
        gone.commit()
    gone.close()
    lab.wait_healthy(30)
