"""What will be done to a cluster, and when: decided by the seed alone, before anything runs. Whom a fault hits
is said by role ("leader", "follower-1", "node-2"); who that is, is known only when it begins."""

import dataclasses
import random

QUIET_S = 2.0       # before the first fault
OVERLAP = 0.3       # chance that the next fault does not wait for the end of this one


@dataclasses.dataclass
class Event:
    at: float        # seconds from the start
    seconds: float   # how long
    fault: str
    target: str
    values: dict

    def __str__(self):
        more = "".join(f" {k}={v}" for k, v in self.values.items())
        return f"{self.at:6.2f} s  {self.fault} {self.target} for {self.seconds:.2f} s{more}"


def _none(_):
    return {}


def _delay(r):
    return {"delay_us": r.randrange(1000, 150000), "jitter_us": r.randrange(0, 50000)}


def _loss(r):
    return {"loss_ppm": r.randrange(10000, 250000)}


def _reorder(r):
    return {"late_ppm": r.randrange(10000, 300000), "double_ppm": r.randrange(0, 50000)}


def _narrow(r):
    return {"rate_kbs": r.choice((16, 64, 256))}


def _slow_disk(r):
    return {"flush_delay_us": r.choice((20000, 100000, 400000, 2000000))}


def _jump(r):
    return {"offset_s": r.choice((-86400 * 30, -3600, -5, 5, 3600, 86400 * 365))}


ANYBODY = ("leader", "leader", "follower-0", "follower-1")
LEADER = ("leader",)
ALL = ("all",)

# fault: (weight, targets, shortest and longest seconds, values)
FAULTS = {
    "isolate": (6, ANYBODY, 0.2, 6, _none),
    "isolate_from_all": (3, ANYBODY, 0.2, 6, _none),
    "cut_out": (4, ANYBODY, 0.2, 6, _none),
    "cut_in": (4, ANYBODY, 0.2, 6, _none),
    "cut_one_wire": (4, LEADER, 0.2, 6, _none),
    "leader_with_one": (3, LEADER, 0.5, 6, _none),
    "cut_all_wires": (2, ALL, 0.3, 4, _none),
    "flap": (3, ANYBODY, 1, 6, _none),
    "delay": (3, (*ANYBODY, "all"), 1, 8, _delay),
    "loss": (3, (*ANYBODY, "all"), 1, 8, _loss),
    "reorder": (3, (*ANYBODY, "all"), 1, 8, _reorder),
    "narrow": (2, ANYBODY, 1, 8, _narrow),
    "kill_node": (5, ANYBODY, 0, 0, _none),
    "kill_sentinel": (2, ANYBODY, 0, 0, _none),
    "kill_postgres": (4, ANYBODY, 0, 0, _none),
    "kill_backend": (2, ANYBODY, 0, 0, _none),
    "stop_node": (4, ANYBODY, 0.1, 4, _none),
    "stop_postgres": (3, ANYBODY, 0.1, 4, _none),
    "stop_sentinel": (1, ANYBODY, 0.5, 4, _none),
    "stop_host": (3, ANYBODY, 0.1, 4, _none),
    "host_gone": (5, ANYBODY, 0.5, 6, _none),
    "pod_killed": (3, ANYBODY, 0.3, 3, _none),
    "all_hosts": (1, ALL, 0.2, 2, _none),
    "disk_full": (2, ANYBODY, 1, 5, _none),
    "disk_slow": (3, (*ANYBODY, "all"), 1, 6, _slow_disk),
    "disk_fails": (2, ANYBODY, 0.2, 2, _none),
    "clock_jump": (2, ANYBODY, 1, 10, _jump),
    "volume_lost": (2, ANYBODY, 0.2, 2, _none),
    "rolling_restart": (1, ALL, 0, 0, _none),
    "switchover": (4, LEADER, 0, 0, _none),
    "sigterm": (2, ANYBODY, 0, 0, _none),
}


def _asked(r):
    return {"asked": int(r.random() < 0.7)}


def _alone(r):
    return {"alone": int(r.random() < 0.6)}


# Faults that change who is a member: (chance that it happens in a run, once, and then as in FAULTS)
MEMBERS = {
    "scale": (0.5, ("last",), 1, 10, _asked),
    "founder_empty": (0.35, ("first",), 1, 6, _alone),
}
EARLY_S = 1.0  # when all is whole for certain


def size(seed):
    """How many nodes: mostly three."""
    return 5 if random.Random(f"size {seed}").random() < 0.15 else 3


def pool(seed):
    """Whether sessions share server connections: `auto` in half of the runs, else `session`. From numbers of its own, as size(): a
    seed's faults are what they were before there was a choice."""
    return "auto" if random.Random(f"pool {seed}").random() < 0.5 else "session"


def founders(seed):
    """How many pods founded the cluster; 0: all of them, with --seed. From numbers of its own, as pool()."""
    return 1 if random.Random(f"founders {seed}").random() < 0.3 else 0


def make(seed, seconds, only=None):
    """The events of one run, in order. `only`: names of faults to choose from."""
    r = random.Random(f"schedule {seed}")
    names = [n for n in FAULTS if only is None or n in only]
    weights = [FAULTS[n][0] for n in names]
    events, at = [], QUIET_S
    while names and at < seconds - 1:
        fault = r.choices(names, weights)[0]
        _, targets, least, most, values = FAULTS[fault]
        # Short ones are as interesting as long ones: around the lease it is decided who leads.
        length = least + (most - least) * r.random() ** 2
        length = min(length, seconds - at)
        events.append(Event(round(at, 3), round(length, 3), fault, r.choice(targets), values(r)))
        at += r.uniform(0.1, 1.5) if r.random() < OVERLAP else length + r.uniform(0.5, 4)
    return events


def members(seed, seconds, only=None):
    """From numbers of their own: what make() says of a seed is what it was before there were these."""
    r, events = random.Random(f"members {seed}"), []
    for fault, (chance, targets, least, most, values) in MEMBERS.items():
        happens, early = r.random() < chance, r.random() < 0.5
        at = r.uniform(QUIET_S, max(QUIET_S, seconds / 2))
        at = EARLY_S if early else at
        length = min(least + (most - least) * r.random() ** 2, seconds - at)
        event = Event(round(at, 3), round(length, 3), fault, r.choice(targets), values(r))
        if happens and (only is None or fault in only):
            events.append(event)
    return events


def plan(seed, seconds, only=None):
    """All that is done in a run."""
    return sorted(make(seed, seconds, only) + members(seed, seconds, only), key=lambda e: e.at)
