"""What the benchmarks share: the test harness, tables, and bars."""

import json
import os
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "test", "cluster"))


def percentile(values, p):
    """The nearest-rank percentile: with 20 values p99 is the worst."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * p // 100) - 1)]


def summary(values):
    return {
        "n": len(values),
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "p99": round(percentile(values, 99), 1),
        "worst": round(max(values), 1),
    }


def table(head, rows):
    rows = [head, *rows]
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(head))]
    for r in rows:
        print("  ".join(str(v).ljust(w) if i == 0 else str(v).rjust(w)
                        for i, (v, w) in enumerate(zip(r, widths))))


def finish(name, results, bars):
    """`bars`: (what, value, limit, unit, at_most). Prints them and one JSON line; exits 1 if any is
    missed."""
    print()
    missed = 0
    for what, value, limit, unit, at_most in bars:
        ok = value <= limit if at_most else value >= limit
        missed += not ok
        sign = "<=" if at_most else ">="
        print(f"{'ok    ' if ok else 'MISSED'}  {what}: {value:g} {unit} (bar: {sign} {limit:g} {unit})")
    print(json.dumps({
        "bench": name,
        "ok": not missed,
        "results": results,
        "bars": [
            {"what": w, "value": v, "limit": limit, "unit": u, "at_most": m}
            for w, v, limit, u, m in bars
        ],
    }))
    sys.exit(1 if missed else 0)
