"""Dashboard and alerts ask for what nodes export, by name and label."""

import json
import os
import re
import shutil
import subprocess

import yaml


from conftest import ROOT

PLACE = os.path.join(ROOT, "deploy", "monitoring")
NAME = re.compile(r"\bholdfast_[a-z_]+\b")
# What Prometheus and the ServiceMonitor add to each sample.
ADDED = {"namespace", "job", "instance", "pod", "service", "severity", "alertname"}


def dashboard():
    with open(os.path.join(PLACE, "dashboard.json"), encoding="utf-8") as f:
        return json.load(f)


def rules():
    with open(os.path.join(PLACE, "alerts.yaml"), encoding="utf-8") as f:
        return [r for g in yaml.safe_load(f)["groups"] for r in g["rules"]]


def expressions():
    board = dashboard()
    made = [t["expr"] for p in board["panels"] for t in p["targets"]] + [r["expr"] for r in rules()]
    made += [a["expr"] for a in board["annotations"]["list"]]
    return made + [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]


def exported():
    """name: (type, labels), from the exporter's source"""
    with open(os.path.join(ROOT, "src", "node_http.c"), encoding="utf-8") as f:
        source = f.read()
    families = {}
    for call, name, kind in re.findall(r"\b(metric|gauge|counter)\(t, \"([a-z_]+)\"(?:, \"(gauge|counter)\")?", source):
        families[f"holdfast_{name}"] = (kind or call, set())
    for name, labels in re.findall(r"put\(t, \"(holdfast_[a-z_]+)\{([^}]*)\}", source):
        families[name][1].update(re.findall(r"([a-z_]+)=", labels))
    assert len(families) > 10
    return families


def listed():
    """The same, from the list for people."""
    with open(os.path.join(ROOT, "docs", "operations.md"), encoding="utf-8") as f:
        rows = re.findall(r"^\| `(holdfast_[a-z_]+)` \| (gauge|counter) \|([a-z, ]*)\| \S.* \|$", f.read(), re.M)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (kind, set(re.findall(r"[a-z_]+", labels))) for name, kind, labels in rows}


def test_the_list_is_what_is_exported():
    assert listed() == exported()


def test_every_metric_is_exported():
    known = exported()
    used = {n for e in expressions() for n in NAME.findall(e)}
    assert used <= set(known), used - set(known)
    assert len(used) > 10


def test_every_label_is_there():
    labels = set.union(*(labels for _, labels in exported().values())) | ADDED
    for e in expressions():
        for part in re.findall(r"\{([^}]*)\}", e):
            assert set(re.findall(r"([a-z_]+)\s*[=!]~?", part)) <= labels, e
        for part in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", e):
            assert set(re.findall(r"[a-z_]+", part)) <= labels, e


def test_alerts_say_what_to_do():
    names = [r["alert"] for r in rules()]
    assert len(set(names)) == len(names) >= 10
    for r in rules():
        assert r["labels"]["severity"] in ("critical", "warning")
        assert len(r["annotations"]["summary"]) > 20 and len(r["annotations"]["description"]) > 40


def test_there_is_an_alert_when_no_node_is_left(tmp_path):
    """Nodes that are gone have no series, and a comparison of nothing is nothing. With promtool, where Prometheus is installed."""
    wanted = {r["alert"]: r for r in rules() if r["alert"] in ("HoldfastNoWrites", "HoldfastAbsent")}
    assert " unless " in wanted["HoldfastNoWrites"]["expr"] and "absent(" in wanted["HoldfastAbsent"]["expr"]
    if not shutil.which("promtool"):
        return
    series = [{"series": f"{name}{{namespace=\"shop\",job=\"one\",pod=\"one-{i}\"}}", "values": "1x20 stale"}
              for name in ("holdfast_gate_open", "holdfast_info") for i in range(1 if name.endswith("open") else 3)]
    checks = []
    for name, r in wanted.items():
        labels = {"severity": "critical", **({"namespace": "shop", "job": "one"} if "by (" in r["expr"] else {})}
        told = {k: v.replace("{{ $labels.job }}", "one") for k, v in r["annotations"].items()}
        checks += [{"eval_time": "4m", "alertname": name, "exp_alerts": []},
                   {"eval_time": "8m", "alertname": name, "exp_alerts": [{"exp_labels": labels, "exp_annotations": told}]}]
    text = {"rule_files": [os.path.abspath(os.path.join(PLACE, "alerts.yaml"))], "evaluation_interval": "15s",
            "tests": [{"interval": "15s", "input_series": series, "alert_rule_test": checks}]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, check=True, capture_output=True)


def test_panels_do_not_overlap_and_are_numbered():
    cells, ids = set(), set()
    for p in dashboard()["panels"]:
        g = p["gridPos"]
        own = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not own & cells and g["x"] + g["w"] <= 24 and p["id"] not in ids, p["title"]
        cells |= own
        ids.add(p["id"])


def test_prometheus_own_check():
    """With promtool, where Prometheus is installed; else that parentheses close."""
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "rules", os.path.join(PLACE, "alerts.yaml")], check=True,
                       capture_output=True)
    for e in expressions():
        for a, b in ("()", "{}", "[]"):
            assert e.count(a) == e.count(b), e
