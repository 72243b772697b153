"""What a run says of itself, in a line, in the exit status and in the report. No cluster is needed."""

import importlib.machinery
import importlib.util
import json
import os
import xml.etree.ElementTree as xml

import pytest

import campaign
import check_append
import check_gates
import report


def result(seed=1, recovery_s=2.0, **more):
    counts = {"rows": 10, "transactions": 11, "register operations": 12, "follower reads": 13, "epochs": 2}
    return campaign.Result(**{"seed": seed, "seconds": 60.0, "nodes": 3, "version": "holdfast 1", "begun": 1000.0, "events": ["e"],
                              "counts": counts, "recovery_s": recovery_s, **more})


@pytest.mark.parametrize("took, verdict", ((29.9, "ok"), (30.0, "ok"), (30.01, "slow"), (45.4, "slow"), (None, "FAILED")))
def test_a_run_that_is_whole_too_late_has_failed(took, verdict):
    assert (result(recovery_s=took).verdict, result(recovery_s=took).passed) == (verdict, verdict == "ok")


def test_a_slow_run_says_so_and_what_the_bound_was():
    assert result(recovery_s=45.4).line().startswith("slow   seed 1 ")
    assert result(recovery_s=45.4).line().endswith("; whole after 45.4 s, more than 30 s")
    assert result(recovery_s=4.0).line().endswith("; whole after 4.0 s")


def test_a_leader_that_is_replaced_late_is_slow():
    late = result(failover_s=10.2)
    assert late.verdict == "slow" and late.line().endswith("; whole after 2.0 s, its leader replaced after 10.2 s, more than 10 s")
    assert result(failover_s=9.9).passed and result(failover_s=10.2, patience=2).passed


def test_faults_that_hit_nobody_are_not_counted():
    assert any(line.startswith("3 faults; ") for line in report.summary([result(events=["e"] * 5, missed=2)]))


def test_patience_is_told():
    assert result(recovery_s=45.4, patience=2).line().endswith("; whole after 45.4 s (bound 60 s: patience 2)")
    late = result(recovery_s=60.1, patience=2)
    assert late.verdict == "slow" and late.line().endswith("; whole after 60.1 s (bound 60 s: patience 2), more than 60 s")


def test_how_sessions_were_connected_is_told():
    assert " 3 nodes, pool session, 1 faults, 10 rows, " in result().line()
    shared = result(pool="auto")
    shared.counts["connections taken over"] = 77
    assert " 3 nodes, pool auto of 2, 77 taken over, 1 faults, 10 rows, " in shared.line()
    assert (result().facts()["pool"], shared.facts()["pool"]) == ("session", "auto")


def test_the_seed_or_whoever_asks_says_how_sessions_are_connected(monkeypatch):
    asked = []

    def lab(*args, **more):
        asked.append((args, more))
        raise RuntimeError("that is enough")

    monkeypatch.setattr(campaign, "version", lambda: "holdfast 1")
    monkeypatch.setattr(campaign.laboratory, "Lab", lab)
    for seed, pool, mutation in ((20261208, None, None), (20265029, "auto", None), (303, None, None), (303, "session", None),
                                 (303, None, "IGNORE_LEASE")):
        campaign.run(seed, 5, pool=pool, mutation=mutation)
    assert [(args[1], more["pool"]) for args, more in asked] == [
        (20261208, "session"), (20265029, "auto"), (303, "auto"), (303, "session"), (303, "session")]


def test_what_else_is_wrong_counts_more_than_slowness():
    lost = [check_append.Anomaly("lost", "a row")]
    assert result(recovery_s=45.4, anomalies=lost).verdict == result(recovery_s=45.4, trouble="x").verdict == "FAILED"


def run_program(monkeypatch, results, *args):
    """test/fault/run with runs that were made up; returns its exit status."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")
    loader = importlib.machinery.SourceFileLoader("fault_run", path)
    program = importlib.util.module_from_spec(importlib.util.spec_from_loader("fault_run", loader))
    loader.exec_module(program)
    left = iter(results)
    monkeypatch.setattr(campaign, "run", lambda *_, **__: next(left))
    monkeypatch.setattr("sys.argv", ["run", "--seed", "1", "--runs", str(len(results)), *args])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return ended.value.code


def test_the_program_fails_for_a_slow_run(monkeypatch, capsys):
    assert run_program(monkeypatch, [result(1), result(2, recovery_s=30.5)], "--json") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "fault runs: 1 passed, 1 failed (1 of them only slow)"
    facts = [json.loads(line) for line in said if line.startswith("{")]
    assert [(f["passed"], f["verdict"], f["bound_s"]) for f in facts] == [(True, "ok", 30), (False, "slow", 30)]
    assert run_program(monkeypatch, [result(1), result(2)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "fault runs: 2 passed, 0 failed"


# ---- the report (docs/evidence/README.md says what is in it) ---------------------------------------------


def played(seed, **more):
    """A run with something in its picture."""
    return result(seed, done=[
        (1002.0, "demo-0", "begin isolate_from_all seconds=4"), (1003.0, "demo-1", "begin kill_node"),
        (1006.0, "demo-0", "end isolate_from_all"), (1060.5, "", "calm"), (1061.0, "demo-2", "started again (it had ended with -9)"),
        (1062.5, "", "whole again after 2.0 s")],
        spans=[check_gates.Span(int(1e9), int(3e9), "demo-0", 41), check_gates.Span(int(4e9), int(62e9), "demo-2", 43)],
        acks=[1001 + i / 100 for i in range(6000)], offset=1000.0, **more)


def texts(svg):
    root = xml.parse(svg).getroot()
    assert root.tag.endswith("svg")
    return " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))


def lines(where, name="last-run.txt"):
    return (where / name).read_text(encoding="utf-8").splitlines()


def test_the_report_says_what_was_run_and_found(tmp_path):
    lost = check_append.Anomaly("lost", "list 7 <lacks> 3")
    report.write(tmp_path, [played(71), played(72, pool="auto", recovery_s=30.5), played(73, anomalies=[lost]),
                            played(74, recovery_s=None, trouble="AssertionError: not whole\nand more")])
    said = lines(tmp_path)
    assert said[0] == "4 runs of 60 s of random faults, seeds 71 to 74, holdfast 1"
    assert said[1] == "first begun 1970-01-01 00:16 UTC"
    assert said[2] == "1 passed, 3 failed (1 of them only slow)"
    assert said[3] == "4 faults; whole again after the last one: median 2.0 s, worst 30.5 s, bound 30 s"
    assert "in 1 runs sessions shared 2 server connections of each node (--pool auto), in 3 each had its own" in said
    assert {"40 rows", "44 transactions", "48 register operations", "52 follower reads", "8 epochs"} <= set(said)
    for verdict, seed in (("ok    ", 71), ("slow  ", 72), ("FAILED", 73), ("FAILED", 74)):
        assert sum(line.startswith(f"{verdict} seed {seed}  3 nodes, ") for line in said) == 1
    assert "    lost: list 7 <lacks> 3" in said and "    AssertionError: not whole" in said


def test_the_page_has_the_same_and_the_pictures(tmp_path):
    lost = check_append.Anomaly("lost", "list 7 <lacks> 3")
    runs = [played(71), played(73, anomalies=[lost])]
    report.write(tmp_path, runs)
    page = (tmp_path / "last-run.html").read_text(encoding="utf-8")
    for line in [*report.summary(runs), *(r.line() for r in runs), "list 7 &lt;lacks&gt; 3", "begin isolate_from_all seconds=4"]:
        assert line in page, line
    assert "<lacks>" not in page
    for seed in (71, 73):
        assert page.count(f"src='seed-{seed}.svg'") == 1 and (tmp_path / f"seed-{seed}.svg").is_file()


def test_programs_can_read_it(tmp_path):
    runs = [played(71), played(72, recovery_s=30.5)]
    report.write(tmp_path, runs)
    read = json.loads((tmp_path / "last-run.json").read_text(encoding="utf-8"))
    assert read == [r.facts() for r in runs]
    assert [(r["seed"], r["passed"], r["verdict"]) for r in read] == [(71, True, "ok"), (72, False, "slow")]


def test_the_picture_shows_faults_gates_and_throughput(tmp_path):
    svg = tmp_path / "seed-71.svg"
    report.picture(played(71), svg)
    said = texts(svg)
    for wanted in ("seed 71, holdfast 1", "isolate from all seconds=4 demo-0", "kill node demo-1", "whole again after 2.0 s",
                   "started again (it had ended with -9) demo-2", "gate open", "demo-0", "demo-1", "demo-2", "41", "43", "faults",
                   "rows/s", "seconds"):
        assert wanted in said, (wanted, said)
    # A bar for each gate and each fault, and a line of throughput with about a point for each quarter of a second.
    drawn = svg.read_text(encoding="utf-8")
    assert drawn.count("rgb( 44, 125,  70)") >= 2 and drawn.count("rgb(200,  68,  44)") >= 1
    assert max(len(e.get("d").split()) for e in xml.parse(svg).getroot().iter() if e.tag.endswith("path")) > 200


def test_a_run_that_never_began_has_a_picture_too(tmp_path):
    report.picture(result(71, recovery_s=None, trouble="x"), tmp_path / "seed-71.svg")
    assert "seed 71" in texts(tmp_path / "seed-71.svg")


def test_pictures_of_the_failed_come_first_and_the_old_ones_go(tmp_path):
    (tmp_path / "seed-5.svg").write_text("old", encoding="ascii")
    (tmp_path / "README.md").write_text("by hand", encoding="ascii")
    runs = [played(seed, recovery_s=31.0 if seed == 2 else 2.0) for seed in range(1, report.PICTURES_MOST + 4)]
    report.write(tmp_path, runs)
    shown = sorted(int(p.stem[5:]) for p in tmp_path.glob("seed-*.svg"))
    assert shown == [2, *range(5, report.PICTURES_MOST + 4)]
    assert (tmp_path / "seed-5.svg").read_text(encoding="utf-8") != "old"
    assert (tmp_path / "README.md").read_text(encoding="ascii") == "by hand"
