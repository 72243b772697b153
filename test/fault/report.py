"""What was run, for people: a page, the same as text, and pictures of each run: faults, who led, whose gate was
open, rows per second. gnuplot draws."""

import html
import json
import os
import subprocess
import time

import campaign
import lab as laboratory

PICTURES_MOST = 12  # failed runs first, then the newest


def _clean(text):
    return text.replace("\\", " ").replace('"', " ").replace("_", " ").replace("{", " ").replace("}", " ")


def _bars(result):
    """What was done and ended: (from, to, row, text) in seconds from the start, and single moments."""
    open_, bars, moments = {}, [], []
    for at, where, text in result.done or []:
        t = at - result.begun
        words = text.split()
        if words[:1] == ["begin"]:
            open_[where, words[1]] = (t, text[6:])
        elif words[:1] == ["end"]:
            begun = open_.pop((where, words[1]), None)
            if begun:
                bars.append((begun[0], t, where, begun[1]))
        elif text == "calm" or text.startswith(("whole", "not now", "started again")):
            moments.append((t, where, text))
    moments += [(t, where, text) for (where, _), (t, text) in open_.items()]
    return sorted(bars), sorted(moments)


def _rows_per_bin(result, width=0.25):
    times = [t - result.begun for t in result.acks or [] if t >= result.begun]
    end = max(times, default=1)
    counts = [0] * (int(end / width) + 1)
    for t in times:
        counts[int(t / width)] += 1
    return [(i * width, n / width) for i, n in enumerate(counts)], end


def picture(result, path):
    """Draws one run as SVG."""
    bars, moments = _bars(result)
    rate, end = _rows_per_bin(result)
    end = max([end, result.seconds] + [b[1] for b in bars] + [m[0] for m in moments]) + 1
    per_char = end * 0.0038  # of the small letters beside the bars
    gates = [(max(0, s.begun / 1e9 + result.offset - result.begun), min(s.ended / 1e9 + result.offset - result.begun, end),
              s.node, s.epoch) for s in result.spans or []]
    nodes = [f"demo-{i}" for i in range(result.nodes)]
    rows = []  # a row for each fault, packed
    for b in bars + [(t, t + 0.15, w, x) for t, w, x in moments]:
        row = next((i for i, free in enumerate(rows) if free + 0.1 < b[0]), len(rows))
        if row == len(rows):
            rows.append(0)
        rows[row] = b[1] + per_char * (len(b[3]) + len(b[2]) + 3)
    script = [f'set terminal svg size 1300,640 font "sans,11" background rgb "white"',
              f'set output "{path}"', "set multiplot", f"set xrange [0:{end}]", "set lmargin 10", "set rmargin 2",
              "set grid x", 'set style fill solid 0.75 border lc rgb "#444444"',
              f'set label 1 "seed {result.seed}, {_clean(result.version)}" at graph 0, screen 0.98']
    script += _panel(0.58, 0.40, max(len(rows), 1), [])
    ends, n = [], 1
    for b, moment in [(b, False) for b in bars] + [((t, t + 0.15, w, x), True) for t, w, x in moments]:
        row = next((i for i, free in enumerate(ends) if free + 0.1 < b[0]), len(ends))
        if row == len(ends):
            ends.append(0)
        ends[row] = b[1] + per_char * (len(b[3]) + len(b[2]) + 3)
        color = "#888888" if moment else "#c8442c"
        script.append(f"set object {n} rect from {b[0]},{row + 0.15} to {b[1]},{row + 0.6} fc rgb '{color}'")
        script.append(f'set label {n + 1} "{_clean(b[3])} {b[2]}" at {b[0]},{row + 0.8} font "sans,8"')
        n += 1
    script += ["unset ytics", 'set ylabel "faults"', "plot NaN notitle"]
    script += ["unset object", "unset label"]
    script += _panel(0.34, 0.22, len(nodes), [f'"{x}" {i + 0.5}' for i, x in enumerate(nodes)])
    for i, (a, b, node, epoch) in enumerate(gates):
        row = nodes.index(node)
        script.append(f"set object {i + 1} rect from {a},{row + 0.15} to {b},{row + 0.85} fc rgb '#2c7d46'")
        script.append(f'set label {i + 1} "{epoch}" at {a},{row + 0.5} font "sans,9" tc rgb "white"')
    script += ['set ylabel "gate open"', "plot NaN notitle", "unset object", "unset label"]
    script += ["set origin 0,0", "set size 1,0.32", "set autoscale y", "set yrange [0:*]", "set ytics auto",
               "set xtics", 'set ylabel "rows/s"', 'set xlabel "seconds"', "plot '-' with steps lw 1.5 lc rgb '#2b5797' notitle"]
    script += [f"{t} {v}" for t, v in rate] + ["e", "unset multiplot"]
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True, capture_output=True)


def _panel(at, height, rows, tics):
    return [f"set origin 0,{at}", f"set size 1,{height}", f"set yrange [0:{rows}]", "unset xlabel",
            f"set ytics ({', '.join(tics)})"]


def totals(results):
    keys = sorted({k for r in results for k in r.counts})
    return {k: sum(r.counts.get(k, 0) for r in results) for k in keys}


def summary(results):
    shared = [r for r in results if r.pool == "auto"]
    recovered = sorted(r.recovery_s for r in results if r.recovery_s is not None)
    middle = recovered[len(recovered) // 2] if recovered else 0
    lines = [f"{len(results)} runs of {results[0].seconds:g} s of random faults, seeds {results[0].seed} to"
             f" {results[-1].seed}, {results[0].version}",
             time.strftime("first begun %Y-%m-%d %H:%M UTC", time.gmtime(results[0].begun)),
             campaign.tally(results)[0],
             f"{sum(len(r.events) - r.missed for r in results)} faults; whole again after the last one: median {middle:.1f} s,"
             f" worst {recovered[-1] if recovered else 0:.1f} s, bound {results[0].bound_s:g} s"]
    lines += [f"in {len(shared)} runs sessions shared {laboratory.POOL_CONNECTIONS} server connections of each node (--pool auto),"
              f" in {len(results) - len(shared)} each had its own"]
    return lines + [f"{v} {k}" for k, v in totals(results).items()]


def write(where, results):
    """Replaces the report in `where` (docs/evidence) by one about `results`."""
    os.makedirs(where, exist_ok=True)
    for name in os.listdir(where):
        if name.startswith("seed-") and name.endswith(".svg"):
            os.remove(os.path.join(where, name))
    shown = sorted(results, key=lambda r: (r.passed, -r.seed))[:PICTURES_MOST]
    for r in shown:
        picture(r, os.path.join(where, f"seed-{r.seed}.svg"))
    with open(os.path.join(where, "last-run.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join([*summary(results), "", *_details(results)]) + "\n")
    with open(os.path.join(where, "last-run.html"), "w", encoding="utf-8") as f:
        f.write(_page(results, shown))
    with open(os.path.join(where, "last-run.json"), "w", encoding="utf-8") as f:
        json.dump([r.facts() for r in results], f, indent=1)
        f.write("\n")


def _details(results):
    for r in results:
        yield r.line()
        yield from (f"    {a!r}"[:400] for a in r.anomalies[:10])
        if r.trouble:
            yield f"    {r.trouble.splitlines()[0][:400]}"


def _page(results, shown):
    out = ["<!doctype html><meta charset=utf-8><title>Holdfast: the last fault runs</title>",
           "<style>body{font:15px/1.5 sans-serif;max-width:84em;margin:2em auto;padding:0 1em}"
           "pre{background:#f4f4f4;padding:1em;overflow:auto}img{max-width:100%}</style>",
           "<h1>The last fault runs</h1><ul>"]
    out += [f"<li>{html.escape(line)}</li>" for line in summary(results)]
    out += ["</ul><h2>Each run</h2><pre>", html.escape("\n".join(_details(results))), "</pre>"]
    for r in shown:
        out += [f"<h2>Seed {r.seed}</h2><img src='seed-{r.seed}.svg' alt='faults, gates and rows per second of seed {r.seed}'>",
                "<details><summary>what was done</summary><pre>",
                html.escape("\n".join(f"{at - r.begun:8.2f}  {where:8} {text}" for at, where, text in r.done or [])),
                "</pre></details>"]
    return "\n".join(out) + "\n"
