"""Was each register linearisable?

Each write took the next version number out of the row it wrote, in the same statement, and each read tells value and
version. So the order of all operations on a register is known, and linearisable means: versions are dense and
unique, every read shows what the write of its version wrote, and versions never run against real time. A fresh read from a
follower may be ahead of the leader, so nobody else has to have seen what it has.

A read counts when it was answered, whatever becomes of its transaction: a client has seen it, and a gate that shuts is where one may be
stale. At the end no version may be without a write that can have made it."""

import collections

from check_append import Anomaly


def _rows(ops):
    """(begun, ended or None, version, value, is a write, fate, op) of every single-step transaction that tells its
    version."""
    for op in ops:
        s = op.steps[0]
        if s[0] == "w" and s[3] is not None:
            yield s[1], (op.begun, op.ended, s[3], s[2], True, op)
        elif s[0] == "r" and s[2] is not None:
            yield s[1], (op.begun, op.answered or op.ended, s[2][1], s[2][0], False, op)


def _counts(row):
    return not row[4] or row[5].fate == "ok"


def check(ops, final=None):
    """`final`: {key: (value, version)} read after everything."""
    found, registers = [], collections.defaultdict(list)
    fate_of = {(op.steps[0][1], op.steps[0][2]): op.fate for op in ops if op.steps[0][0] == "w"}
    for key, row in _rows(ops):
        registers[key].append(row)
    for key, rows in sorted(registers.items()):
        found += _one(key, rows, fate_of)
    for key, (value, version) in (final or {}).items():
        found += _written(key, version, ops)
        acked = [(r[2], r[3]) for r in registers[key] if _counts(r)]
        newest = max(acked, default=(0, 0))
        if newest[0] > version or (newest[0] == version and version and newest[1] != value):
            found.append(Anomaly("lost", f"register {key}: version {newest[0]} (value {newest[1]}) was acknowledged or"
                                         f" read; at the end there is version {version} (value {value})"))
    return found


def _written(key, version, ops):
    """As many versions as writes: none done twice, none that was not done."""
    writes = collections.Counter(op.fate for op in ops if op.steps[0][0] == "w" and op.steps[0][1] == key)
    if version > writes["ok"] + writes["info"]:
        yield Anomaly("doubled", f"register {key}: version {version} after {writes['ok']} acknowledged writes and"
                                 f" {writes['info']} of unknown fate")
    if version < writes["ok"]:
        yield Anomaly("lost", f"register {key}: version {version} after {writes['ok']} acknowledged writes")


def _one(key, rows, fate_of):
    meant, made = {}, {}  # version -> value, value -> version, by what was answered
    for row in rows:
        _, _, version, value, write, op = row
        if not _counts(row):
            continue
        if value and made.setdefault(value, version) != version:
            yield Anomaly("doubled", f"register {key}: value {value} is version {made[value]} and {version}")
        if meant.setdefault(version, value) != value:
            yield Anomaly("split", f"register {key}: version {version} is {meant[version]} and {value}")
        if not write and value:
            fate = fate_of.get((key, value))
            if fate is None:
                yield Anomaly("unborn", f"register {key}: somebody read {value}, which nobody wrote")
            elif fate == "fail":
                yield Anomaly("G1a", f"register {key}: somebody read {value}, whose write was rolled back")
    writes = collections.Counter(r[2] for r in rows if r[4] and r[5].fate == "ok")
    for version, n in writes.items():
        if n > 1:
            yield Anomaly("lost-update", f"register {key}: {n} acknowledged writes made version {version}")
    yield from _against_time(key, [r for r in rows if _counts(r)])


def _against_time(key, rows):
    """Whoever begins after another has ended must not be older; a write must be younger."""
    moments = [(r[0], 0, r) for r in rows] + [(r[1], 1, r) for r in rows]
    newest = None
    for _, ended, row in sorted(moments, key=lambda m: (m[0], m[1])):
        if ended:
            if row[5].via != "fresh" and (newest is None or row[2] > newest[2]):
                newest = row
        elif newest is not None and (row[2] < newest[2] or (row[4] and row[2] == newest[2])):
            what = "write" if row[4] else "read"
            yield Anomaly("stale-" + what, f"register {key}: a {what} through {row[5].node} that began at {row[0]:.4f}"
                          f" has version {row[2]}; version {newest[2]} was known through {newest[5].node} at {newest[1]:.4f}")
