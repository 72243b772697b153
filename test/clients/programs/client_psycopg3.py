"""psycopg 3, see README.md."""

import sys
import threading
import time

import psycopg


def connect():
    return psycopg.connect("", autocommit=True)


def ok(step):
    print("ok", step, flush=True)


conn = connect()
row = conn.execute("SELECT %s::int + 1, %s::text, %s::bytea", (41, "läß", b"\0\1\xff")).fetchone()
assert row == (42, "läß", b"\0\1\xff"), row
ok("params")
for i in range(20):
    assert conn.execute("SELECT %s::int * 2", (i,), prepare=True).fetchone() == (2 * i,)
assert conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()[0] >= 1
with conn.pipeline():
    cursors = [conn.execute("SELECT %s::int", (i,)) for i in range(50)]
assert [c.fetchone()[0] for c in cursors] == list(range(50))
ok("prepared")
conn.execute("DROP TABLE IF EXISTS c_psycopg3")
conn.execute("CREATE TABLE c_psycopg3 (i int, s text)")
try:
    with conn.transaction():
        conn.execute("INSERT INTO c_psycopg3 VALUES (1, 'a')")
        raise psycopg.Rollback
except psycopg.Rollback:
    pass
assert conn.execute("SELECT count(*) FROM c_psycopg3").fetchone() == (0,)
with conn.transaction():
    conn.execute("INSERT INTO c_psycopg3 VALUES (1, 'a')")
ok("transaction")
with conn.cursor() as cur:
    with cur.copy("COPY c_psycopg3 FROM STDIN") as copy:
        for i in range(2, 20001):
            copy.write_row((i, "y" * 100))
    with cur.copy("COPY (SELECT i FROM c_psycopg3 ORDER BY i) TO STDOUT") as copy:
        assert [int(r[0]) for r in copy.rows()] == list(range(1, 20001))
ok("copy")
with conn.transaction(), conn.cursor(name="big") as cur:
    cur.itersize = 500
    cur.execute("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
    assert [r[0] for r in cur if len(r[1]) == 1000] == list(range(1, 20001))
ok("large")
threading.Timer(0.3, conn.cancel).start()
begun = time.monotonic()
try:
    conn.execute("SELECT pg_sleep(30)")
    raise AssertionError("not cancelled")
except psycopg.errors.QueryCanceled:
    assert time.monotonic() - begun < 25
conn.execute("SELECT 1")
ok("cancel")
conn.execute("LISTEN c_psycopg3")
with connect() as other:
    other.execute("NOTIFY c_psycopg3, 'hello'")
assert next(conn.notifies()).payload == "hello"
ok("notify")
print("ready", flush=True)
sys.stdin.readline()
try:
    conn.execute("SELECT 1")
    raise AssertionError("the session is still there")
except psycopg.OperationalError as e:
    print("lost", e.sqlstate or "08006", flush=True)
until = time.monotonic() + 15
while True:
    try:
        conn = connect()
        break
    except psycopg.OperationalError:
        assert time.monotonic() < until
conn.execute("INSERT INTO c_psycopg3 VALUES (0, 'again')")
print("again", flush=True)
