"""The faults, by name: each function begins one and returns what ends it (or None)."""

import collections
import signal
import threading
import time

import harness


class Faults:
    def __init__(self, lab):
        self.lab = lab
        self._leader = lab.names()[0]
        self._threads = []
        self._lock = threading.Lock()
        self._held = collections.defaultdict(list)  # what -> the values that faults which last have given it, the newest last
        self.missed = 0  # faults that hit nobody

    # ---- whom ----

    def leader(self):
        """Who leads, or led last."""
        self._leader = self.lab.open_leader(self.lab.status()) or self._leader
        return self._leader

    def who(self, target):
        if target in ("first", "last"):
            return [self.lab.names()[0 if target == "first" else -1]]
        names = [n for n in self.lab.names() if n not in self.lab.away]
        if target == "all":
            return names
        leader = self.leader()
        if leader not in names:
            leader = names[0]
        if target == "leader":
            return [leader]
        followers = [n for n in names if n != leader]
        return [followers[int(target.rsplit("-", 1)[1]) % len(followers)]]

    def others(self, node):
        return [n for n in self.lab.names() if n != node]

    def begin(self, event):
        """Begins what `event` says; returns a function that ends it, or None."""
        nodes = self.who(event.target)
        self.lab.note(",".join(nodes) if event.target != "all" else "all",
                      f"begin {event.fault}" + "".join(f" {k}={v}" for k, v in event.values.items()))
        end = getattr(self, event.fault)(nodes, event)
        if end is None:
            return None

        def finish():
            end()
            self.lab.note(",".join(nodes) if event.target != "all" else "all", f"end {event.fault}")

        return finish

    def nobody(self, node):
        self.missed += 1
        self.lab.note(node, "nobody was there")

    # ---- what lasts: when two faults do the same, its end is the end of both ----

    def _hold(self, each, none=0):
        """`each`: (what, value, how to set it). Sets now; the end sets back what nobody else holds, to `none`."""
        for what, value, apply in each:
            with self._lock:
                self._held[what].append((value, apply))
                apply(value)

        def end():
            for what, value, apply in each:
                with self._lock:
                    held = self._held[what]
                    del held[[v for v, _ in held].index(value)]
                    apply(held[-1][0] if held else none)

        return end

    def _again(self):
        """After what ends more than its own: a host's return mends all its wires."""
        with self._lock:
            for held in self._held.values():
                if held:
                    value, apply = held[-1]
                    apply(value)

    # ---- wires ----

    def _set(self, ways, **values):
        return self._hold([((a, b, key), value, lambda v, a=a, b=b, key=key: self.lab.net.set(a, b, **{key: v}))
                           for a, b in ways for key, value in values.items()])

    def _around(self, node, clients):
        far = self.others(node) + (["clients"] if clients else [])
        return [(node, f) for f in far] + [(f, node) for f in far]

    def _cut(self, node, ways):
        """A cut that stopped nothing, of a node that was down or asleep, hit nobody."""
        before, end = self.lab.net.stats()["dropped"], self._set(ways, cut=1)

        def finish():
            if self.lab.net.stats()["dropped"] == before:
                self.nobody(node)
            end()

        return finish

    def isolate(self, nodes, _):
        return self._cut(nodes[0], self._around(nodes[0], False))

    def isolate_from_all(self, nodes, _):
        return self._cut(nodes[0], self._around(nodes[0], True))

    def cut_out(self, nodes, _):
        return self._cut(nodes[0], [(nodes[0], f) for f in self.others(nodes[0])])

    def cut_in(self, nodes, _):
        return self._cut(nodes[0], [(f, nodes[0]) for f in self.others(nodes[0])])

    def cut_one_wire(self, nodes, _):
        other = self.others(nodes[0])[0]
        return self._cut(nodes[0], [(nodes[0], other), (other, nodes[0])])

    def leader_with_one(self, nodes, _):
        """The leader and one follower on one side, the rest on the other."""
        side, rest = [nodes[0], self.others(nodes[0])[0]], self.others(nodes[0])[1:]
        return self._cut(nodes[0], [w for a in side for b in rest for w in ((a, b), (b, a))])

    def cut_all_wires(self, nodes, _):
        return self._cut(nodes[0], [(a, b) for a in nodes for b in nodes if a != b])

    def flap(self, nodes, event):
        ways, over = self._around(nodes[0], False), threading.Event()

        def run():
            while not over.wait(0.3):
                mend = self._set(ways, cut=1)
                over.wait(0.4)
                mend()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end():
            over.set()
            thread.join()

        return end

    def _quality(self, nodes, event):
        ways = [w for n in nodes for w in self._around(n, True)]
        return self._set(ways, **event.values)

    delay = loss = reorder = narrow = _quality

    # ---- processes ----

    def kill_node(self, nodes, _):
        p = self.lab.node_process(nodes[0])
        if p:
            self.lab.kill(nodes[0], p)
        else:
            self.nobody(nodes[0])

    def _signal(self, node, process, number):
        if process is None or not process.send(number):
            self.nobody(node)

    def kill_sentinel(self, nodes, _):
        self._signal(nodes[0], self.lab.sentinel(nodes[0]), signal.SIGKILL)

    def kill_postgres(self, nodes, _):
        self._signal(nodes[0], self.lab.postmaster(nodes[0]), signal.SIGKILL)

    def kill_backend(self, nodes, _):
        self._signal(nodes[0], next(iter(self.lab.backends(nodes[0], "app app")), None), signal.SIGKILL)

    def _stop(self, node, processes):
        """Each process that is there goes on when the last of those faults ends that have stopped it."""
        found = [p for p in processes if p is not None and p.alive()]
        if not found:
            self.nobody(node)
        return self._hold([(p, signal.SIGSTOP, p.send) for p in found], signal.SIGCONT)

    def stop_node(self, nodes, _):
        return self._stop(nodes[0], [self.lab.node_process(nodes[0])])

    def stop_sentinel(self, nodes, _):
        return self._stop(nodes[0], [self.lab.sentinel(nodes[0])])

    def stop_postgres(self, nodes, _):
        return self._stop(nodes[0], [self.lab.postmaster(nodes[0]), *self.lab.backends(nodes[0], "")])

    def stop_host(self, nodes, _):
        return self._stop(nodes[0], self.lab.all_processes(nodes[0]))

    def sigterm(self, nodes, _):
        self._signal(nodes[0], self.lab.sentinel(nodes[0]), signal.SIGTERM)

    def switchover(self, nodes, _):
        def run():
            answer = self.lab.ask(nodes[0], "switchover", 15, to="")
            self.lab.note(nodes[0], f"switchover: {answer}")
            if not answer or "error" in answer:
                self.missed += 1

        self._beside(run)

    def rolling_restart(self, nodes, _):
        """As a StatefulSet does it: the highest ordinal first, each only when the one before is ready. Whether
        it is done in time is not asked here."""
        def run():
            for node in reversed(nodes):
                p = self.lab.sentinel(node)
                if p is None or node in self.lab.down:
                    continue
                p.send(signal.SIGTERM)
                until = time.monotonic() + 8
                while p.alive() and time.monotonic() < until:
                    time.sleep(0.05)
                while time.monotonic() < until and (
                        self.lab.ask(node) or {}).get("state") not in ("streaming", "open"):
                    time.sleep(0.1)

        self._beside(run)

    def _beside(self, run):
        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def finish(self):
        """A node that is stopped when all is called whole again would stay away."""
        for t in self._threads:
            t.join()

    # ---- hosts ----

    def _back(self, nodes):
        def end():
            for n in nodes:
                self.lab.return_host(n)
            self._again()

        return end

    def host_gone(self, nodes, _):
        self.lab.kill_host(nodes[0])
        return self._back(nodes[:1])

    def pod_killed(self, nodes, _):
        self.lab.stop_host(nodes[0])
        return self._back(nodes[:1])

    def all_hosts(self, nodes, _):
        self.lab.take_away(*nodes)
        found = [(n, p) for n in nodes for p in self.lab.all_processes(n)]
        for _, p in found:
            p.send(signal.SIGSTOP)
        for n in nodes:
            self.lab.kill(n, *[p for m, p in found if m == n])
        for n in nodes:
            self.lab.cut_power(n)
        return self._back(nodes)

    def _spared(self, node):
        """Can it go? Only when every copy is whole: to lose a second one before the first is back is more than a majority
        can make good."""
        # pylint: disable=protected-access
        if not self.lab.down and self.lab._healthy(self.lab.status()):
            return True
        self.missed += 1
        self.lab.note(node, "not now: not every copy is whole")
        return False

    def volume_lost(self, nodes, _):
        if not self._spared(nodes[0]):
            return None
        self.lab.lose_volume(nodes[0])
        return self._back(nodes[:1])

    # ---- members ----

    def scale(self, nodes, event):
        """The pod with the highest ordinal has no place any more, and later it has: its volume was kept, with all it once promised."""
        if not self._spared(nodes[0]):
            return None
        left = self.lab.take_out(nodes[0], event.values["asked"])
        self.lab.note(nodes[0], "is no member any more" if left else "went, and is a member still")
        return self._back(nodes[:1])

    def founder_empty(self, nodes, event):
        """Who founded the cluster comes back with an empty volume. `alone`: at once, where it hears nobody but clients, and must not
        take itself for the only one."""
        if not self._spared(nodes[0]):
            return None
        self.lab.lose_volume(nodes[0])
        back = self._back(nodes[:1])
        if not event.values["alone"]:
            return back
        end = self.isolate(nodes, event)  # held, so what back() mends it cuts again, before the node has begun
        back()
        return end

    # ---- disks and clocks ----

    def disk_full(self, nodes, _):
        self.lab.fill_disk(nodes[0])
        return lambda: self.lab.empty_disk(nodes[0])

    def _trouble(self, nodes, **values):
        return self._hold([((n, key), value, lambda v, n=n, key=key: self.lab.trouble[n].set(**{key: v}))
                           for n in nodes for key, value in values.items()])

    def disk_slow(self, nodes, event):
        return self._trouble(nodes, **event.values)

    def disk_fails(self, nodes, _):
        return self._trouble(nodes, flush_fails=1)

    def clock_jump(self, nodes, event):
        return self._trouble(nodes, clock_offset_ns=event.values["offset_s"] * 10**9)


def play(lab, events, stop=None):
    """Does to `lab` what the events say, at their times. Returns when the last one has ended: how many hit nobody."""
    faults, ends, begun = Faults(lab), [], time.monotonic()
    todo = list(events)
    while todo or ends:
        due = min([e.at for e in todo[:1]] + [at for at, _ in ends])
        wait = begun + due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        if stop is not None and stop():
            break
        for entry in sorted((e for e in ends if e[0] <= due), key=lambda e: e[0]):
            ends.remove(entry)
            entry[1]()
        if todo and todo[0].at <= due:
            event = todo.pop(0)
            try:
                end = faults.begin(event)
            except AssertionError as e:
                faults.missed += 1
                lab.note(event.target, f"{event.fault} was not possible: {e}")
                continue
            if end is not None:
                ends.append((event.at + event.seconds, end))
    for _, end in ends:
        end()
    faults.finish()
    return faults.missed


def recover(lab, wait_s=60.0):
    """Ends all faults; returns the seconds until the cluster is whole and takes a write through every node. Whether that was soon
    enough the caller judges (campaign.RECOVERY_S): who is late is waited for all the same, so that the checkers can look."""
    begun = time.monotonic()
    lab.calm()
    lab.note("", "calm")
    lab.wait_healthy(wait_s)
    for node in lab.names():
        harness.wait_until(f"a write through {node}", lambda n=node: lab.insert(n), wait_s)
    took = time.monotonic() - begun
    lab.note("", f"whole again after {took:.1f} s")
    return took


def fail_over(lab, wait_s=60.0):
    """The leader's host vanishes from a cluster that is whole again, and stays away until another has taken a write: nobody mends
    anything for them. Returns how long that took; the caller judges it (campaign.FAILOVER_S)."""
    leader, epoch, begun = lab.leader(), lab.epoch(), time.monotonic()
    lab.kill_host(leader)
    new = lab.wait_open(wait_s, other_than=leader, after_epoch=epoch)
    harness.wait_until(f"a write through {new}", lambda: lab.insert(new), wait_s)
    took = time.monotonic() - begun
    lab.note(leader, f"replaced after {took:.1f} s")
    lab.return_host(leader)
    lab.wait_healthy(wait_s)
    return took
