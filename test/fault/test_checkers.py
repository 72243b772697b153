"""The checkers themselves: each kind of anomaly, in a history made by hand, is found and called by its name, and
histories without one pass. No cluster is needed."""

import hashlib
import socket
import struct

import psycopg2
import pytest

import check_append
import check_gates
import check_register
import cycles
import load
import pipeline
import schedule
from workload import Op


def op(begun, ended, *steps, fate="ok", process=0):
    return Op(process, begun, [list(s) for s in steps], ended, fate)


def a(key, element):
    return ("append", key, element)


def r(key, *elements):
    return ("r", key, list(elements))


def kinds(ops, final):
    return sorted({x.kind for x in check_append.check(ops, final)})


# ---- lists: clean histories ---------------------------------------------------------------------------


def test_nothing_at_all_is_fine():
    assert kinds([], {}) == []


def test_one_after_the_other_is_fine():
    ops = [op(1, 2, a(1, 10)), op(3, 4, r(1, 10), a(1, 11), r(1, 10, 11)), op(5, 6, r(1, 10, 11), r(2))]
    assert kinds(ops, {1: [10, 11]}) == []


def test_at_the_same_time_either_order_is_fine():
    for final in ([10, 11], [11, 10]):
        assert kinds([op(1, 5, a(1, 10)), op(1, 5, a(1, 11)), op(2, 4, r(1, final[0]))], {1: final}) == []


def test_unknown_fate_may_have_happened_or_not():
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(1, 11), fate="info"), op(5, 6, r(1, 10))]
    assert kinds(ops, {1: [10]}) == []
    # It may even take effect long after it was given up.
    assert kinds([*ops, op(7, 8, r(1, 10, 11))], {1: [10, 11]}) == []


def test_aborted_transactions_leave_no_trace():
    assert kinds([op(1, 2, a(1, 10), fate="fail"), op(3, 4, r(1))], {}) == []


def test_appends_that_nobody_read_are_ordered_by_the_last_read():
    assert kinds([op(1, 2, a(1, 10)), op(3, 4, a(1, 11))], {1: [10, 11]}) == []


# ---- lists: anomalies ---------------------------------------------------------------------------------


def test_lost_append():
    assert kinds([op(1, 2, a(1, 10)), op(3, 4, a(1, 11))], {1: [10]}) == ["lost"]


def test_what_is_there_at_the_end_may_be_unknown():
    ops = [op(1, 2, a(1, 10)), op(3, 4, r(1, 10), a(1, 11))]
    assert kinds(ops, None) == []
    assert kinds([*ops, op(5, 6, r(1, 10))], None) != []  # stale all the same


def test_lost_although_it_was_read():
    assert "lost" in kinds([op(1, 2, a(1, 10), fate="info"), op(3, 4, r(1, 10))], {1: []})


def test_duplicate():
    assert "duplicate" in kinds([op(1, 2, a(1, 10))], {1: [10, 10]})


def test_unborn():
    assert "unborn" in kinds([op(1, 2, r(1, 99))], {1: [99]})


def test_aborted_read():
    assert "G1a" in kinds([op(1, 2, a(1, 10), fate="fail"), op(3, 4, r(1, 10))], {1: [10]})


def test_intermediate_read():
    ops = [op(1, 4, a(1, 10), a(1, 11)), op(2, 3, r(1, 10))]
    assert "G1b" in kinds(ops, {1: [10, 11]})


def test_incompatible_orders():
    ops = [op(1, 9, a(1, 10)), op(1, 9, a(1, 11)), op(1, 9, r(1, 10, 11)), op(1, 9, r(1, 11))]
    assert "incompatible-order" in kinds(ops, {1: [10, 11]})


def test_internal_own_append_not_seen():
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(1, 11), r(1, 10))]
    assert "internal" in kinds(ops, {1: [10, 11]})


def test_internal_read_that_changes():
    ops = [op(1, 2, a(1, 10)), op(1, 9, r(1), r(1, 10))]
    assert "internal" in kinds(ops, {1: [10]})


def test_g0_writes_in_both_orders():
    ops = [op(1, 9, a(1, 10), a(2, 20)), op(1, 9, a(1, 11), a(2, 21))]
    assert kinds(ops, {1: [10, 11], 2: [21, 20]}) == ["G0"]


def test_g1c_circular_information():
    ops = [op(1, 9, a(1, 10), r(2, 20)), op(1, 9, a(2, 20), r(1, 10))]
    assert kinds(ops, {1: [10], 2: [20]}) == ["G1c"]


def test_g_single_read_skew():
    ops = [op(1, 9, a(1, 10), a(2, 20)), op(1, 9, r(1), r(2, 20))]
    assert kinds(ops, {1: [10], 2: [20]}) == ["G-single"]


def test_g2_write_skew():
    ops = [op(1, 9, r(1), a(2, 20)), op(1, 9, r(2), a(1, 10))]
    assert kinds(ops, {1: [10], 2: [20]}) == ["G2"]


def test_stale_read_breaks_real_time():
    """Two gates: an acknowledged append is not seen by a read that began later."""
    assert kinds([op(1, 2, a(1, 10)), op(3, 4, r(1))], {1: [10]}) == ["G-single-realtime"]


def test_appends_against_real_time():
    assert kinds([op(1, 2, a(1, 10)), op(3, 4, a(1, 11))], {1: [11, 10]}) == ["G0-realtime"]


def test_real_time_reaches_through_others():
    """The order follows only from a chain of transactions on other keys."""
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(2, 20)), op(5, 6, a(3, 30)), op(7, 8, r(1))]
    assert kinds(ops, {1: [10], 2: [20], 3: [30]}) == ["G-single-realtime"]


def test_the_stale_read_of_an_unknown_append_is_found():
    ops = [op(1, 2, a(1, 10), fate="info"), op(3, 4, r(1, 10)), op(5, 6, r(1))]
    assert kinds(ops, {1: [10]}) == ["G-single-realtime"]


def test_the_same_instant_is_not_an_order():
    assert kinds([op(1, 2, a(1, 10)), op(2, 3, r(1))], {1: [10]}) == []


def test_the_same_element_twice_is_a_broken_workload():
    with pytest.raises(ValueError):
        kinds([op(1, 2, a(1, 10)), op(3, 4, a(1, 10))], {1: [10]})


# ---- lists through followers --------------------------------------------------------------------------


def followers(read, ops, final):
    return sorted({x.kind for x in check_append.check_followers([read], ops, final)})


def test_followers_may_be_late():
    ops = [op(1, 2, a(1, 10), a(2, 20)), op(3, 4, a(1, 11))]
    assert followers(op(5, 6, r(1), r(2)), ops, {1: [10, 11], 2: [20]}) == []
    assert followers(op(5, 6, r(1, 10), r(2, 20)), ops, {1: [10, 11], 2: [20]}) == []


def test_followers_may_show_what_a_failover_takes_back():
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(1, 11), fate="info"), op(7, 8, a(1, 12))]
    assert followers(op(5, 6, r(1, 10, 11)), ops, {1: [10, 12]}) == []


def test_followers_never_tear_a_transaction():
    ops = [op(1, 2, a(1, 10), a(2, 20))]
    assert followers(op(5, 6, r(1, 10), r(2)), ops, {1: [10], 2: [20]}) == ["torn-snapshot"]


def test_followers_never_show_the_young_without_the_old():
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(2, 20))]
    assert followers(op(5, 6, r(1), r(2, 20)), ops, {1: [10], 2: [20]}) == ["no-prefix"]


def test_followers_never_show_what_was_rolled_back():
    ops = [op(1, 2, a(1, 10), fate="fail")]
    assert followers(op(5, 6, r(1, 10)), ops, {}) == ["G1a"]


def test_followers_never_show_another_order():
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(1, 11))]
    assert "no-prefix" in followers(op(5, 6, r(1, 11)), ops, {1: [10, 11]})


def test_follower_snapshot_shows_half_of_what_nobody_knows():
    ops = [op(1, 2, a(1, 10), a(2, 20), fate="info")]
    assert followers(op(3, 4, r(1, 10), r(2)), ops, {1: [10], 2: [20]}) == ["torn-snapshot"]


def test_follower_that_was_answered_before_its_transaction_failed():
    ops = [op(1, 2, a(1, 10), a(2, 20))]
    read = op(3, 4, r(1, 10), r(2), ("r", 3, None), fate="fail")
    assert followers(read, ops, {1: [10], 2: [20]}) == ["torn-snapshot"]


def test_half_of_a_transaction_of_unknown_fate():
    ops = [op(1, 2, a(1, 10), a(2, 20), fate="info")]
    assert kinds(ops, {1: [10]}) == ["half"]
    assert kinds(ops, {1: [10], 2: [20]}) == []
    assert kinds(ops, {}) == []


@pytest.mark.parametrize("fate", ["fail", "info"])
def test_read_in_a_transaction_that_came_to_nothing(fate):
    """A gate that shuts: the answer has been seen, whatever becomes of the COMMIT."""
    ops = [op(1, 2, a(1, 10)), op(3, 4, a(1, 11))]
    assert kinds([*ops, op(5, 6, r(1, 10), fate=fate)], {1: [10, 11]}) == ["stale-read"]
    assert kinds([*ops, op(3.5, 6, r(1, 10), fate=fate)], {1: [10, 11]}) == []
    assert "incompatible-order" in kinds([*ops, op(5, 6, r(1, 11, 10), fate=fate)], {1: [10, 11]})
    own = op(5, 6, r(1, 10, 11), a(1, 12), r(1, 10, 11, 12), ("r", 2, None), fate="fail")
    assert kinds([*ops, own], {1: [10, 11]}) == []


# ---- registers ----------------------------------------------------------------------------------------


def w(value, version):
    return ("w", 1, value, version)


def rr(value, version):
    return ("r", 1, (value, version))


def registers(ops, final=None):
    return sorted({x.kind for x in check_register.check(ops, final)})


def test_register_clean():
    ops = [op(1, 2, rr(0, 0)), op(3, 6, w(7, 1)), op(4, 5, rr(0, 0)), op(4, 5.5, rr(7, 1)), op(7, 8, w(8, 2)),
           op(8.5, 9, w(9, None), fate="info"), op(9.5, 10, w(11, 4)), op(11, 12, rr(11, 4))]
    assert registers(ops, {1: (11, 4)}) == []


def test_register_stale_read():
    assert registers([op(1, 2, w(7, 1)), op(3, 4, rr(0, 0))]) == ["stale-read"]


@pytest.mark.parametrize("fate", ["fail", "info"])
def test_register_stale_read_in_a_transaction_that_came_to_nothing(fate):
    assert registers([op(1, 2, w(7, 1)), op(3, 4, rr(0, 0), fate=fate)]) == ["stale-read"]
    early = op(3, 6, rr(0, 0), fate=fate)
    early.answered = 3.5  # what has become of it by 6 is not what it is about
    assert registers([early, op(4, 5, w(7, 1))]) == []


def test_register_doubled():
    assert registers([op(1, 2, w(7, 2))], {1: (7, 2)}) == ["doubled"]
    assert registers([op(1, 2, w(7, 2)), op(1, 2, w(8, None), fate="info")], {1: (7, 2)}) == []
    assert "doubled" in registers([op(1, 2, w(7, 1)), op(3, 4, rr(7, 2))])
    assert "lost" in registers([op(1, 2, w(7, 1)), op(3, 4, w(8, 2)), op(5, 6, w(9, 3))], {1: (9, 2)})


def test_register_stale_after_another_read():
    ops = [op(1, 9, w(7, 1), fate="info"), op(2, 3, rr(7, 1)), op(4, 5, rr(0, 0))]
    assert registers(ops) == ["stale-read"]


def test_register_early_fresh_read():
    """What a follower shows the leader may not show yet; and late it must not be."""
    early, late = op(2, 3, rr(7, 1)), op(11, 12, rr(0, 0))
    early.via = late.via = "fresh"
    ops = [op(1, 9, w(7, 1)), early, op(4, 5, rr(0, 0))]
    assert registers(ops) == []
    assert registers(ops + [late]) == ["stale-read"]


def test_register_stale_write():
    assert "stale-write" in registers([op(1, 2, w(7, 2)), op(3, 4, w(8, 1))])


def test_register_lost_update():
    assert "lost-update" in registers([op(1, 5, w(7, 1)), op(1, 5, w(8, 1))])


def test_register_two_histories():
    assert registers([op(1, 2, w(7, 1)), op(1, 4, rr(8, 1)), op(1, 3, w(8, 2), fate="info")]) == ["split"]


def test_register_aborted_and_unborn():
    assert registers([op(1, 2, w(7, None), fate="fail"), op(3, 4, rr(7, 1))]) == ["G1a"]
    assert registers([op(3, 4, rr(9, 1))]) == ["unborn"]


def test_register_lost():
    assert registers([op(1, 2, w(7, 1)), op(3, 4, w(8, 2))], {1: (7, 1)}) == ["lost"]
    assert registers([op(1, 2, w(7, 1))], {1: (9, 1)}) == ["lost"]


# ---- what clients are told ------------------------------------------------------------------------------


class Told(psycopg2.Error):
    def __init__(self, code, text=""):
        super().__init__(text)
        self.code = code

    @property
    def pgcode(self):
        return self.code


def test_what_no_fault_can_cause():
    assert load.strange(psycopg2.OperationalError("server closed the connection unexpectedly")) is None
    assert all(load.strange(Told(code)) is None for code in ("40001", "08007", "57P01", "57P03", "53100", "25006"))
    assert all(load.strange(Told(code)) for code in ("42P01", "25P02", "XX000", "22023", "57014"))
    assert load.strange(psycopg2.ProgrammingError("no results to fetch"))
    assert load.strange(psycopg2.OperationalError('FATAL:  password authentication failed for user "app"'))
    assert load.strange(psycopg2.OperationalError('FATAL:  database "app" does not exist'))
    assert load.strange(psycopg2.OperationalError("lost synchronization with server: got message type"))


def test_row_that_was_denied_and_is_there():
    ledger = load.Ledger()
    for n, code in ((1, None), (2, "08007"), (3, "40001")):
        ledger.note(n, code is None, Told(code))
    ledger.check({1: 1})
    ledger.check({1: 1, 2: 1})
    with pytest.raises(AssertionError, match="told that they were not written: .3."):
        ledger.check({1: 1, 3: 1})


def test_client_that_does_not_understand_its_answer():
    clients = load.Workers("a client", [(lambda: None,), (lambda: [][0],)])
    clients.__enter__()
    with pytest.raises(AssertionError, match="a client died: IndexError"):
        clients.stop()


# ---- gates --------------------------------------------------------------------------------------------


def gate_log(*events):
    words = {"start": "node demo-0 starts, pid 1", "open": "gate: open epoch={} at_ns={}",
             "lease": "gate: lease until_ns={} at_ns={}", "shut": "gate: shut at_ns={}"}
    return "\n".join("2026-01-01T00:00:00.000000Z demo-0 INFO  " + words[e[0]].format(*e[1:]) for e in events)


def gate_kinds(logs, deaths=()):
    return sorted({x.kind for x in check_gates.check(check_gates.spans(logs, deaths))})


def test_gates_one_after_the_other():
    logs = {"a": gate_log(("start",), ("lease", 200, 100), ("open", 1, 110), ("lease", 300, 200), ("shut", 250)),
            "b": gate_log(("lease", 500, 260), ("open", 2, 270), ("lease", 0, 400))}
    spans = check_gates.spans(logs)
    assert [(s.node, s.begun, s.ended) for s in spans] == [("a", 110, 250), ("b", 270, 400)]
    assert check_gates.check(spans) == []


def test_gates_a_lease_that_runs_out_shuts():
    logs = {"a": gate_log(("lease", 200, 100), ("open", 1, 110)),
            "b": gate_log(("lease", 500, 190), ("open", 2, 201))}
    assert gate_kinds(logs) == []


def test_gates_both_open():
    logs = {"a": gate_log(("lease", 300, 100), ("open", 1, 110)),
            "b": gate_log(("lease", 500, 190), ("open", 2, 250))}
    assert gate_kinds(logs) == ["two-gates"]


def test_gates_a_long_lease_beside_several_short_ones():
    logs = {"a": gate_log(("lease", 900, 100), ("open", 1, 110)),
            "b": gate_log(("lease", 950, 920), ("open", 2, 930)),
            "c": gate_log(("lease", 120, 100), ("open", 3, 112))}
    assert gate_kinds(logs) == ["two-gates"]


def test_gates_death_ends_a_lease():
    logs = {"a": gate_log(("lease", 300, 100), ("open", 1, 110)),
            "b": gate_log(("lease", 500, 190), ("open", 2, 250))}
    assert gate_kinds(logs, [("a", 240)]) == []
    assert gate_kinds(logs, [("a", 260)]) == ["two-gates"]
    assert gate_kinds(logs, [("a", 90)]) == ["two-gates"], "a death before the gate opened"


def test_gates_a_gap_in_the_lease_is_a_gap():
    logs = {"a": gate_log(("lease", 200, 100), ("open", 1, 110), ("lease", 500, 300), ("shut", 400)),
            "b": gate_log(("lease", 290, 200), ("open", 2, 210), ("shut", 280))}
    assert gate_kinds(logs) == []


def test_gates_one_epoch_two_leaders():
    logs = {"a": gate_log(("lease", 200, 100), ("open", 1, 110), ("shut", 150)),
            "b": gate_log(("lease", 400, 300), ("open", 1, 310), ("shut", 350))}
    assert gate_kinds(logs) == ["two-leaders"]


def test_gates_epoch_goes_back():
    logs = {"a": gate_log(("lease", 200, 100), ("open", 5, 110), ("shut", 150), ("lease", 400, 300),
                          ("open", 4, 310), ("shut", 350))}
    assert gate_kinds(logs) == ["epoch-goes-back"]


# ---- cycles and schedules -----------------------------------------------------------------------------


def test_cycles_the_shortest_of_each_component():
    edges = {0: {1: "x"}, 1: {2: "x"}, 2: {0: "x", 3: "x"}, 3: {4: "x"}, 4: {3: "x", 5: "x"}, 5: {}}
    assert sorted(map(sorted, cycles.find(6, edges))) == [[0, 1, 2], [3, 4]]
    assert cycles.find(3, {0: {1: "x"}, 1: {2: "x"}}) == []


def test_cycles_deep_chains_need_no_recursion():
    n = 50000
    assert cycles.find(n, {i: {i + 1: "x"} for i in range(n - 1)}) == []
    assert len(cycles.components(n, {i: {(i + 1) % n: "x"} for i in range(n)})[0]) == n


def test_schedules_come_from_the_seed_alone():
    one, two = schedule.make(7, 60), schedule.make(7, 60)
    assert one == two and one != schedule.make(8, 60)
    assert all(e.at + e.seconds <= 60 for e in one)


@pytest.mark.parametrize("seed, only, digest", (
    (303, "disk_full,disk_slow,disk_fails,clock_jump,kill_node,host_gone,isolate".split(","), "756fbf964f2fbed6"),
    (20261130, None, "5246decd1dff1cdd"), (20261208, None, "46d8f768ba92a537"), (20261223, None, "46b667711c60d9bd"),
    (20265029, None, "2105f2c9cefa0937"), (20268002, None, "55e746a83fa4cd04"), (20268004, None, "c862ef1e8c5d14bc"),
    (20268008, None, "80b0452e7e39fd62")))
def test_seeds_that_are_named_mean_what_they_meant(seed, only, digest):
    """Nothing that is decided besides, as pool(), may take numbers from a schedule's stream."""
    text = "\n".join(map(str, schedule.make(seed, 60, only)))
    assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)


def test_a_seed_that_is_named_changes_the_members():
    text = "\n".join(map(str, schedule.plan(6, 15)))
    assert hashlib.sha256(text.encode()).hexdigest().startswith("bebeb941c4bffe7f")


def test_half_of_the_seeds_share_connections():
    assert 450 < sum(schedule.pool(seed) == "auto" for seed in range(20261000, 20262000)) < 550


def test_schedules_know_every_fault():
    import faults

    seen = {e.fault for seed in range(200) for e in schedule.make(seed, 60)}
    assert seen == set(schedule.FAULTS)
    assert all(callable(getattr(faults.Faults, name)) for name in seen)


def test_schedules_know_every_change_of_members():
    import faults

    seen = {e.fault for seed in range(200) for e in schedule.members(seed, 60)}
    assert seen == set(schedule.MEMBERS) and all(callable(getattr(faults.Faults, name)) for name in seen)
    assert all(e.at + e.seconds <= 15.01 for seed in range(200) for e in schedule.members(seed, 15))


# ---- the extended protocol, said by hand --------------------------------------------------------------


class Said:
    """A line on which all has been said already."""

    def __init__(self, *messages):
        self.messages, self.ended = list(messages), False

    def hear(self):
        self.ended = not self.messages
        return None if self.ended else self.messages.pop(0)


def error(code, severity="ERROR"):
    return "E", f"S{severity}\0C{code}\0Mwords\0\0".encode()


def data(text):
    return "D", struct.pack("!hi", 1, len(text)) + text.encode()


ONE = [("1", None), ("2", None), ("D", ("7",)), ("C", "INSERT 0 1")]
HEARD = [("1", b""), ("2", b""), data("7"), ("C", b"INSERT 0 1\0")]
READY = ("Z", b"I")


@pytest.mark.parametrize("said, code, became", (
    ([*HEARD, READY], None, "ok"), ([*HEARD[:2], error("40001"), READY], "40001", "fail"), ([error("08007"), READY], "08007", "info"),
    ([*HEARD, error("08007", "FATAL")], "08007", "info"), (HEARD, "", "info"),
    ([error("40001"), error("57P01", "FATAL")], "40001", "fail")))
def test_pipeline_answers(said, code, became):
    part = pipeline.Part(hears=ONE)
    assert pipeline.answer(Said(*said), part) == code and pipeline.fate(part, code) == became


@pytest.mark.parametrize("said", (
    [*HEARD[:3], READY], [*HEARD, HEARD[3]], [*HEARD[:2], data("8")], [error("40001"), HEARD[0]], [*HEARD, ("Z", b"T")], [READY],
    [error("40001"), error("08007"), READY], [("2", b"")]))
def test_pipeline_answers_that_nobody_gives(said):
    with pytest.raises(pipeline.Wrong):
        pipeline.answer(Said(*said), pipeline.Part(hears=ONE))


@pytest.mark.parametrize("behind, unasked, rest", ((b"", b"", b""), (pipeline.message(b"N", b"crash"), b"", b""), (b"N\0\0", b"", b"N\0\0"),
                                                   (pipeline.message(b"C", b"x\0"), pipeline.message(b"C", b"x\0"), pipeline.message(b"C", b"x\0"))))
def test_pipeline_what_comes_behind_its_answer(behind, unasked, rest):
    ours, theirs = socket.socketpair()
    with ours, theirs, pipeline.Line(ours) as line:
        theirs.sendall(pipeline.message(b"Z", b"I") + behind)
        assert line.hear() == ("Z", b"I")
        assert (line.unasked(), line.got) == (unasked, rest)


def test_pipeline_what_was_never_synced_is_not_done():
    assert pipeline.fate(pipeline.Part(end=b""), "") == "fail" == pipeline.fate(pipeline.Part(fails=True), "08007")
