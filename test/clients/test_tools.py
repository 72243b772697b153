"""PostgreSQL's own programs: psql and pgbench."""

import re
import signal
import subprocess
import time

from scenario import call, environment

PGBENCH = ("pgbench", "-n", "-c", "4", "-j", "2")


def psql(cluster, node, sql, *args, **more):
    return call(cluster, node, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *args, stdin=sql, **more)


def test_psql_script(cluster):
    done = psql(cluster, cluster.followers()[0], """
        \\conninfo
        CREATE TABLE IF NOT EXISTS c_psql (i int, s text);
        TRUNCATE c_psql;
        \\copy c_psql FROM PROGRAM 'seq -f "%g,x" 1 5000' (FORMAT csv)
        SELECT 'rows', count(*), sum(i) FROM c_psql;
        \\set n 7
        SELECT 'variable', :n;
        BEGIN; DELETE FROM c_psql; ROLLBACK;
        SELECT 'still', count(*) FROM c_psql;
        PREPARE p AS SELECT 'prepared', $1::int + 2; EXECUTE p (1);
        \\copy (SELECT i FROM c_psql ORDER BY i DESC LIMIT 2) TO STDOUT
    """)
    assert "SSL connection" in done.stdout
    assert done.stdout.splitlines()[-6:] == [
        "rows|5000|12502500", "variable|7", "still|5000", "prepared|3", "5000", "4999"]


def test_psql_ctrl_c(cluster):
    process = subprocess.Popen(  # pylint: disable=consider-using-with
        ["psql", "-XAtq", "-c", "SELECT pg_sleep(30)"], env=environment(cluster, cluster.followers()[0]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not cluster.execute("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"):
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert "canceling statement due to user request" in err


def test_pgbench_all_protocols(cluster):
    node = cluster.followers()[0]
    call(cluster, node, "pgbench", "-i", "-q", "-s", "1")
    for protocol in ("simple", "extended", "prepared"):
        done = call(cluster, node, *PGBENCH, "-M", protocol, "-t", "50")
        assert re.search(r"actually processed: 200/200", done.stdout), done.stdout
    done = call(cluster, node, *PGBENCH, "-S", "-C", "-t", "25")
    assert re.search(r"actually processed: 100/100", done.stdout), done.stdout
    total = cluster.execute("SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(delta) FROM pgbench_history),"
                            " (SELECT count(*) FROM pgbench_history)")
    assert total == [(0, 600)]


def test_pgbench_through_tls_and_plain(cluster):
    node = cluster.followers()[0]
    for mode in ("require", "disable"):
        done = call(cluster, node, *PGBENCH, "-f", "-", "-t", "20", PGSSLMODE=mode,
                    stdin="SELECT 1;\n")
        assert "actually processed: 80/80" in done.stdout, done.stdout
