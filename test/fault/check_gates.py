"""Were two gates ever open at once?

Every node logs when its gate opens and shuts and, at level debug, each renewal of its lease, with CLOCK_BOOTTIME,
which all hosts of the laboratory share. A gate forwards while it is open and its lease lasts; it ends with its
process."""

import collections
import dataclasses
import re

from check_append import Anomaly

OPEN = re.compile(r"gate: open epoch=(\d+) at_ns=(\d+)")
SHUT = re.compile(r"gate: shut at_ns=(\d+)")
LEASE = re.compile(r"gate: lease until_ns=(\d+) at_ns=(\d+)")
START = re.compile(r"node \S+ starts, pid")


@dataclasses.dataclass
class Span:
    begun: int
    ended: int
    node: str
    epoch: int

    def __str__(self):
        return f"{self.node} epoch {self.epoch} {self.begun / 1e9:.6f}..{self.ended / 1e9:.6f}"


class _Node:
    def __init__(self, node, deaths):
        self.node, self.deaths = node, deaths
        self.spans = []
        self.epoch = None      # of the open gate
        self.until = 0
        self.span = None

    def _death_after(self, moment):
        return min((d for d in self.deaths if d >= moment), default=None)

    def end(self, at=None):
        """The gate shuts at `at`, or its process is gone (when, is told by `deaths`)."""
        if self.span is not None:
            ends = [self.until, self._death_after(self.span.begun) if at is None else at]
            self.span.ended = max(self.span.begun, min(e for e in ends if e is not None))
            self.spans.append(self.span)
        self.span = None

    def renew(self, until, at):
        if self.epoch is None:
            self.until = until
            return
        if self.span is not None and at > self.until:  # it had run out
            self.end(self.until)
        if until <= at:  # given back
            self.end(at)
        elif self.span is None:
            self.span = Span(at, until, self.node, self.epoch)
        self.until = until

    def line(self, text):
        if m := LEASE.search(text):
            self.renew(int(m[1]), int(m[2]))
        elif m := OPEN.search(text):
            self.end(int(m[2]))
            self.epoch = int(m[1])
            if self.until > int(m[2]):
                self.span = Span(int(m[2]), self.until, self.node, self.epoch)
        elif m := SHUT.search(text):
            self.end(int(m[1]))
            self.epoch = None
        elif START.search(text):
            self.end()
            self.epoch, self.until = None, 0


def spans(logs, deaths=()):
    """`logs`: {node: text}; `deaths`: (node, CLOCK_BOOTTIME ns) of processes killed from outside. Returns the times
    during which gates let results pass, in order."""
    out = []
    for node, text in logs.items():
        n = _Node(node, [at for who, at in deaths if who == node])
        for line in text.splitlines():
            if "gate:" in line or " starts, pid" in line:
                n.line(line)
        n.end()
        out += n.spans
    return sorted(out, key=lambda s: s.begun)


def check(found):
    """`found`: what spans() returned."""
    out, last = [], None
    epochs = collections.defaultdict(set)
    for span in found:
        if last is not None and span.node != last.node and span.begun < last.ended:
            out.append(Anomaly("two-gates", f"{(last.ended - span.begun) / 1e6:.3f} ms: {last} and {span}"))
        if last is None or span.ended > last.ended:
            last = span
        epochs[span.epoch].add(span.node)
    for epoch, nodes in epochs.items():
        if len(nodes) > 1:
            out.append(Anomaly("two-leaders", f"epoch {epoch} was opened by {sorted(nodes)}"))
    for node in {s.node for s in found}:
        mine = [s.epoch for s in found if s.node == node]
        if mine != sorted(mine):
            out.append(Anomaly("epoch-goes-back", f"{node} opened epochs {mine}"))
    return out
