"""deploy/monitoring asks for metrics that a running cluster really has."""

import os
import re
import urllib.request

PLACE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "deploy", "monitoring")


def test_dashboard_and_alerts_against_a_running_cluster(cluster):
    wanted = set()
    for file in ("dashboard.json", "alerts.yaml"):
        with open(os.path.join(PLACE, file), encoding="utf-8") as f:
            wanted |= set(re.findall(r"\bholdfast_[a-z_]+\b", f.read()))
    there = set()
    for node in cluster.names():
        with urllib.request.urlopen(f"http://127.0.0.1:{cluster.sql_port(node) + 2}/metrics", timeout=5) as answer:
            there |= set(re.findall(r"^(holdfast_[a-z_]+)", answer.read().decode(), re.M))
    wanted -= {"holdfast_settings_refused"}  # no --settings-file here
    assert wanted and wanted <= there, wanted - there
