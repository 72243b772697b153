"""Was a history of list-append transactions strictly serialisable?

The method is Elle's (Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations",
VLDB 2020): every element is appended once, so a list tells the order in which its writers committed, and every
read tells after which writer it came. That gives a graph of transactions:

    ww  a's element stands right before b's in a list
    wr  b read a list that ends in a's element
    rw  a read a list, and b appended the element that follows in it
    rt  a was answered before b began (real time)

A cycle is an anomaly; edges `rt` make it strict serialisability. Besides cycles: elements nobody appended or that
were rolled back (G1a), states in the middle of a transaction (G1b), elements twice, reads that contradict each
other or the transaction's own writes, and acknowledged appends that are gone.

A transaction of unknown fate (`info`) happened if anybody saw an element of it; else it is left out, which is what
not having happened looks like. It never ends, so no `rt` edge leaves it. At the end all of it is there, or nothing.

What was read in a transaction that did not commit has been read all the same: it must be a beginning of what the list became, and hold
everything that was acknowledged before that transaction began."""

import collections

import cycles


class Anomaly:
    def __init__(self, kind, text):
        self.kind, self.text = kind, text

    def __repr__(self):
        return f"{self.kind}: {self.text}"


def _name(op):
    steps = " ".join(f"{s[0]} {s[1]} {s[2]}" if s[0] == "append" else
                     f"r {s[1]} [..{len(s[2] or [])}: {(s[2] or [])[-3:]}]" for s in op.steps)
    return f"<{op.fate} client {op.process} {op.node} {op.begun:.4f}..{op.ended:.4f} {steps}>"


class Check:
    """`final`: {key: list} read after everything, through a gate; None: nobody could, and it is not known what is there."""

    def __init__(self, ops, final):
        self.ops = ops
        self.final = final or {}
        self.at_the_end = final is not None
        self.anomalies = []
        self.writer = {}        # (key, element) -> op
        self.order = {}         # key -> the longest list anybody saw
        self.edges = collections.defaultdict(dict)  # index -> {index: kind}
        self.index = {}

    def _found(self, kind, text):
        self.anomalies.append(Anomaly(kind, text))

    def run(self):
        for op in self.ops:
            for s in op.steps:
                if s[0] == "append":
                    if (s[1], s[2]) in self.writer:
                        raise ValueError(f"element {s[2]} of key {s[1]} is appended twice: the history is useless")
                    self.writer[s[1], s[2]] = op
        good = [op for op in self.ops if op.fate == "ok"]
        for op in good:
            self._inside(op)
        self._lists(good)
        if self.at_the_end:
            self._lost(good)
            self._halves()
        self._stale(good)
        self._graph(good)
        return self.anomalies

    # ---- one transaction by itself ----

    def _inside(self, op):
        """Its own reads must fit together: later ones are the earlier ones plus its own appends."""
        known = {}
        for s in op.steps:
            if s[0] == "append":
                if s[1] in known:
                    known[s[1]] = known[s[1]] + [s[2]]
                else:
                    known.setdefault(("own", s[1]), []).append(s[2])
                continue
            own = known.pop(("own", s[1]), [])
            if s[1] in known and known[s[1]] != s[2]:
                self._found("internal", f"{_name(op)} read key {s[1]} as {s[2][-5:]}, expected {known[s[1]][-5:]}")
            elif own and s[2][-len(own):] != own:
                self._found("internal", f"{_name(op)} does not see its own appends {own} of key {s[1]}")
            known[s[1]] = list(s[2])

    # ---- the order of versions ----

    def _reads(self, good):
        """(key, list as committed state or None when own appends are at its end, list, op)"""
        for op in good:
            own = collections.defaultdict(list)
            for s in op.steps:
                if s[0] == "append":
                    own[s[1]].append(s[2])
                else:
                    mine = own[s[1]]
                    outside = s[2][:len(s[2]) - len(mine)] if mine and s[2][-len(mine):] == mine else s[2]
                    yield s[1], outside, s[2], op

    def _unfinished(self):
        """(key, list without its own, op) of what was answered in transactions that did not commit, as far as is known."""
        for op in self.ops:
            own = {(s[1], s[2]) for s in op.steps if s[0] == "append"}
            for s in op.steps:
                if op.fate != "ok" and s[0] == "r" and s[2] is not None:
                    yield s[1], [e for e in s[2] if (s[1], e) not in own], op

    def _lists(self, good):
        seen = [(k, whole, op) for k, _, whole, op in self._reads(good)]
        seen += self._unfinished()
        seen += [(k, v, None) for k, v in self.final.items()]
        for key, value, op in seen:
            who = _name(op) if op else "the last read"
            if len(set(value)) != len(value):
                double = [e for e, n in collections.Counter(value).items() if n > 1]
                self._found("duplicate", f"{who}: key {key} holds {double[:5]} more than once")
            for e in value:
                writer = self.writer.get((key, e))
                if writer is None:
                    self._found("unborn", f"{who}: key {key} holds {e}, which nobody appended")
                elif writer.fate == "fail":
                    self._found("G1a", f"{who}: key {key} holds {e} of a transaction that was rolled back:"
                                       f" {_name(writer)}")
            if len(value) > len(self.order.get(key, [])):
                self.order[key] = value
        for key, value, op in seen:
            if value != self.order.get(key, [])[:len(value)]:
                self._found("incompatible-order", f"{_name(op) if op else 'the last read'}: key {key} is"
                            f" {value[-5:]} (length {len(value)}), elsewhere {self.order[key][:len(value)][-5:]}")
        for key, outside, _, op in self._reads(good):
            if outside:
                last = self.writer.get((key, outside[-1]))
                if last is not None and last is not op and outside[-1] != self._last_append(last, key):
                    self._found("G1b", f"{_name(op)} saw key {key} in the middle of {_name(last)}")

    @staticmethod
    def _last_append(op, key):
        return [s[2] for s in op.steps if s[0] == "append" and s[1] == key][-1]

    def _lost(self, good):
        for op in good:
            for s in op.steps:
                if s[0] == "append" and s[2] not in self.final.get(s[1], []):
                    self._found("lost", f"key {s[1]} lacks {s[2]}, acknowledged in {_name(op)}")
        for key, value in self.order.items():
            gone = [e for e in value if e not in self.final.get(key, [])]
            if gone:
                self._found("lost", f"key {key} lacks {gone[:5]}, which somebody read")

    def _halves(self):
        for op in self.ops:
            there = [s[2] in self.final.get(s[1], []) for s in op.steps if s[0] == "append"]
            if op.fate == "info" and any(there) and not all(there):
                self._found("half", f"a part of {_name(op)} is there at the end")

    def _stale(self, good):
        """The graph has no place for who did not commit."""
        acked = collections.defaultdict(list)  # key -> (ended, element)
        for op in good:
            for s in op.steps:
                if s[0] == "append":
                    acked[s[1]].append((op.ended, s[2]))
        for key, value, op in self._unfinished():
            missing = {e for ended, e in acked[key] if ended < op.begun} - set(value)
            if missing:
                self._found("stale-read", f"{_name(op)} read key {key} without {sorted(missing)[:5]}, acknowledged before it began")

    # ---- the graph ----

    def _edge(self, a, b, kind):
        if a is None or b is None or a is b:
            return
        i, j = self.index.get(id(a)), self.index.get(id(b))
        if i is None or j is None:
            return
        # One kind for each pair is enough; the strongest evidence wins over mere time.
        if j not in self.edges[i] or self.edges[i][j] == "rt":
            self.edges[i][j] = kind

    def _graph(self, good):
        seen = {id(self.writer[k, e]) for k, v in self.order.items() for e in v if (k, e) in self.writer}
        happened = good + [op for op in self.ops if op.fate == "info" and id(op) in seen]
        self.index = {id(op): i for i, op in enumerate(happened)}
        self._real_time(happened)
        for key, value in self.order.items():
            writers = [self.writer.get((key, e)) for e in value]
            for a, b in zip(writers, writers[1:]):
                self._edge(a, b, "ww")
        place = {key: {e: i for i, e in enumerate(value)} for key, value in self.order.items()}
        hidden = collections.defaultdict(list)  # key -> acknowledged appends that no list shows: they come after all that is shown
        for op in good:
            for s in op.steps:
                if s[0] == "append" and s[2] not in place.get(s[1], {}):
                    hidden[s[1]].append(op)
        for key, outside, _, op in self._reads(good):
            order = self.order.get(key, [])
            at = len(outside)
            if outside:
                self._edge(self.writer.get((key, outside[-1])), op, "wr")
            while at < len(order) and self.writer.get((key, order[at])) is op:
                at += 1
            for later in [self.writer.get((key, order[at]))] if at < len(order) else hidden[key]:
                self._edge(op, later, "rw")
        for key, later in hidden.items():
            for op in later if self.order.get(key) else []:
                self._edge(self.writer.get((key, self.order[key][-1])), op, "ww")
        for cycle in cycles.find(len(happened), self.edges):
            kinds = [self.edges[a][b] for a, b in zip(cycle, cycle[1:] + cycle[:1])]
            self._found(self._kind(kinds), " ; ".join(
                f"{_name(happened[a])} --{k}-->" for a, k in zip(cycle, kinds)))

    def _real_time(self, happened):
        """Edges from each transaction's end to the beginnings after it, without those that follow from others:
        whoever has ended and is not followed by another one that has ended is the frontier."""
        moments = []
        for op in happened:
            moments.append((op.begun, 1, op))
            if op.fate == "ok":
                moments.append((op.ended, 0, op))
        frontier = []
        # An end and a beginning at the same instant are not ordered: the beginning goes first.
        for _, kind, op in sorted(moments, key=lambda m: (m[0], -m[1])):
            if kind == 1:
                for before in frontier:
                    self._edge(before, op, "rt")
            else:
                frontier = [f for f in frontier if not f.ended < op.begun] + [op]

    @staticmethod
    def _kind(kinds):
        """Adya's name for a cycle of these edges; "-realtime" when it needs the clock."""
        rw = kinds.count("rw")
        name = ("G0" if "wr" not in kinds else "G1c") if rw == 0 else "G-single" if rw == 1 else "G2"
        return name + ("-realtime" if "rt" in kinds else "")


def check(ops, final):
    return Check(ops, final).run()


def check_followers(reads, ops, final):
    """Snapshots from read-only ports: old ones are fine, and so are commits that were never acknowledged and a
    change of leader took back; torn ones are not. A snapshot shows all of a transaction or nothing of it (of the lists that it holds),
    and no acknowledged one without those that were over before it began."""
    found = []
    writes = collections.defaultdict(dict)  # id(op) -> {key: last element}
    writer = {}
    for op in ops:
        for s in op.steps:
            if s[0] == "append":
                writer[s[1], s[2]] = op
                writes[id(op)][s[1]] = s[2]
    acked = sorted((op for op in ops if op.fate == "ok" and writes[id(op)]), key=lambda op: op.ended)
    for read in reads:
        lists = {s[1]: s[2] for s in read.steps if s[2] is not None}  # answered, whatever became of the transaction
        found += _follower_lists(read, lists, writer, final)
        shown = [(k, e) for k, v in lists.items() for e in v]
        inside = {id(writer[x]): writer[x] for x in shown if x in writer}
        for op in inside.values():
            torn = [k for k, e in writes[id(op)].items() if k in lists and e not in lists[k]]
            if torn and op.fate != "fail":
                found.append(Anomaly("torn-snapshot", f"{_name(read)} shows a part of {_name(op)}"))
        newest = max((op.begun for op in inside.values()), default=None)
        for op in acked:
            if newest is None or op.ended >= newest:
                break
            missing = [k for k, e in writes[id(op)].items() if k in lists and e not in lists[k]]
            if missing and op.ended < read.begun:
                found.append(Anomaly("no-prefix", f"{_name(read)} lacks {_name(op)}, and shows younger ones"))
                break
    return found


def _follower_lists(read, lists, writer, final):
    for key, value in lists.items():
        whole, at = final.get(key, []), 0
        while at < len(value) and at < len(whole) and value[at] == whole[at]:
            at += 1
        for e in value[at:]:
            by = writer.get((key, e))
            if by is None or by.fate == "fail":
                yield Anomaly("G1a", f"{_name(read)}: key {key} holds {e}, which was never committed")
            elif by.fate == "ok":
                yield Anomaly("no-prefix", f"{_name(read)}: key {key} has {e} of an acknowledged transaction"
                                           f" at another place than the end result")
