"""psycopg2, see README.md."""

import io
import sys
import threading
import time

import psycopg2
import psycopg2.errors
import psycopg2.extensions


def connect():
    conn = psycopg2.connect("")
    conn.autocommit = True
    return conn


def ok(step):
    print("ok", step, flush=True)


conn = connect()
cur = conn.cursor()
cur.execute("SELECT %s::int + 1, %s::text, %s::bytea", (41, "läß", b"\0\1\xff"))
row = cur.fetchone()
assert row[0] == 42 and row[1] == "läß" and bytes(row[2]) == b"\0\1\xff", row
ok("params")
cur.execute("PREPARE p (int) AS SELECT $1 * 2")
for i in range(20):
    cur.execute("EXECUTE p (%s)", (i,))
    assert cur.fetchone() == (2 * i,)
ok("prepared")
cur.execute("DROP TABLE IF EXISTS c_psycopg2; CREATE TABLE c_psycopg2 (i int, s text)")
conn.autocommit = False
cur.execute("INSERT INTO c_psycopg2 VALUES (1, 'a')")
conn.rollback()
cur.execute("SELECT count(*) FROM c_psycopg2")
assert cur.fetchone() == (0,)
cur.execute("INSERT INTO c_psycopg2 VALUES (1, 'a')")
conn.commit()
conn.autocommit = True
ok("transaction")
cur.copy_expert("COPY c_psycopg2 FROM STDIN", io.StringIO("".join(f"{i}\t{'y' * 100}\n" for i in range(2, 20001))))
out = io.StringIO()
cur.copy_expert("COPY (SELECT * FROM c_psycopg2 ORDER BY i) TO STDOUT", out)
lines = out.getvalue().splitlines()
assert len(lines) == 20000 and lines[-1] == "20000\t" + "y" * 100
ok("copy")
cur.execute("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
rows = cur.fetchall()
assert [r[0] for r in rows] == list(range(1, 20001)) and all(len(r[1]) == 1000 for r in rows)
ok("large")
threading.Timer(0.3, conn.cancel).start()
begun = time.monotonic()
try:
    cur.execute("SELECT pg_sleep(30)")
    raise AssertionError("not cancelled")
except psycopg2.errors.QueryCanceled:
    assert time.monotonic() - begun < 25
cur.execute("SELECT 1")
ok("cancel")
cur.execute("LISTEN c_psycopg2")
other = connect()
other.cursor().execute("NOTIFY c_psycopg2, 'hello'")
other.close()
until = time.monotonic() + 10
while not conn.notifies and time.monotonic() < until:
    conn.poll()
    time.sleep(0.01)
assert [n.payload for n in conn.notifies] == ["hello"]
ok("notify")
print("ready", flush=True)
sys.stdin.readline()
try:
    cur.execute("SELECT 1")
    raise AssertionError("the session is still there")
except psycopg2.OperationalError as e:
    print("lost", e.pgcode or "08006", flush=True)
    assert "terminat" in str(e) or "leader" in str(e) or "closed" in str(e), str(e)
until = time.monotonic() + 15
while True:
    try:
        conn = connect()
        break
    except psycopg2.OperationalError:
        assert time.monotonic() < until
conn.cursor().execute("INSERT INTO c_psycopg2 VALUES (0, 'again')")
print("again", flush=True)
