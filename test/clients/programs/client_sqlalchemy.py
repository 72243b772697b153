"""SQLAlchemy's object mapper on psycopg2, see README.md. Its session is in a transaction, which is lost, and its connection is
not."""

import sys
import time

from sqlalchemy import Column, Integer, String, create_engine, exc, func, select, text
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()


class Thing(Base):
    __tablename__ = "c_sqlalchemy"
    id = Column(Integer, primary_key=True)
    name = Column(String)


def ok(step):
    print("ok", step, flush=True)


engine = create_engine("postgresql+psycopg2://", future=True, pool_pre_ping=True)
with engine.connect() as c:
    assert c.execute(text("SELECT :a + 1"), {"a": 41}).scalar() == 42
ok("params")
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
with Session(engine) as s:
    s.add(Thing(name="rolled back"))
    s.flush()
    s.rollback()
    assert s.execute(select(func.count(Thing.id))).scalar() == 0
    s.add_all([Thing(name=f"thing {i}") for i in range(2000)])
    s.commit()
    first = s.execute(select(Thing).order_by(Thing.id)).scalars().first()
    first.name = "changed"
    s.commit()
    assert s.get(Thing, first.id).name == "changed"
ok("transaction")
with engine.connect() as c:
    rows = c.execution_options(stream_results=True).execute(
        text("SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i"))
    assert [r[0] for r in rows] == list(range(1, 20001))
ok("large")
s = Session(engine)
assert s.execute(select(func.count(Thing.id))).scalar() == 2000  # it holds a connection, in a transaction
print("ready", flush=True)
sys.stdin.readline()
try:
    s.execute(select(func.count(Thing.id)))
    raise AssertionError("the transaction is still there")
except exc.OperationalError as e:
    assert not e.connection_invalidated, e
    print("lost", e.orig.pgcode, flush=True)
s.rollback()
assert s.execute(select(func.count(Thing.id))).scalar() == 2000
s.close()
until = time.monotonic() + 15
while True:
    try:
        with Session(engine) as s:
            s.add(Thing(name="again"))
            s.commit()
        break
    except exc.OperationalError:
        assert time.monotonic() < until
print("again", flush=True)
