"""The wire between hosts does what it is told, in the direction it is told. No cluster is needed."""

import queue
import socket
import threading
import time

import pytest

import net


class Ends:
    """UDP from `a` to `b` and back; numbered datagrams."""

    def __init__(self):
        self.net = net.Network(["a", "b"], seed=3)
        self.got = {"a": queue.Queue(), "b": queue.Queue()}
        self.sockets = {}
        for host in ("a", "b"):
            ready = threading.Event()
            threading.Thread(target=self._listen, args=(host, ready), daemon=True).start()
            assert ready.wait(5)

    def _listen(self, host, ready):
        net.enter(self.net.namespace_path(host))  # this thread alone
        s = self.sockets[host] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.bind((self.net.address(host), 7))
        ready.set()
        while True:
            data = s.recv(2000)
            if data == b"end":
                return
            self.got[host].put((time.monotonic(), int(data.split()[0])))

    def send(self, source, n, size=100, pause=0.0):
        """Numbers that arrived at the other end, and how long after the first was sent each came."""
        sink = "b" if source == "a" else "a"
        begun = time.monotonic()
        for i in range(n):
            self.sockets[source].sendto(b"%d " % i + bytes(size), (self.net.address(sink), 7))
            time.sleep(pause)
        found = []
        try:
            while True:
                at, number = self.got[sink].get(timeout=0.4)
                found.append((at - begun, number))
        except queue.Empty:
            return found

    def close(self):
        self.net.heal()
        for host, other in (("a", "b"), ("b", "a")):
            self.sockets[host].sendto(b"end", (self.net.address(other), 7))
        self.net.close()


@pytest.fixture(scope="module")
def ends_shared():
    made = Ends()
    yield made
    made.close()


@pytest.fixture
def ends(ends_shared):
    ends_shared.net.heal()
    return ends_shared


def numbers(found):
    return [n for _, n in found]


def test_whole(ends):
    assert numbers(ends.send("a", 100)) == list(range(100)) == numbers(ends.send("b", 100))


def test_cut_is_one_way_and_ends(ends):
    ends.net.set("a", "b", cut=1)
    assert ends.send("a", 10) == [] and numbers(ends.send("b", 10)) == list(range(10))
    ends.net.set("a", "b", cut=0)
    assert numbers(ends.send("a", 10)) == list(range(10))


def test_delay_with_jitter_keeps_the_order(ends):
    ends.net.set("a", "b", delay_us=150000, jitter_us=50000)
    found = ends.send("a", 50, pause=0.001)
    assert numbers(found) == list(range(50))
    assert found[0][0] >= 0.15 and found[-1][0] - 0.05 < 0.5
    assert ends.send("b", 1)[0][0] < 0.1


def test_loss(ends):
    before = ends.net.stats()["dropped"]
    ends.net.set("a", "b", loss_ppm=300000)
    arrived = len(ends.send("a", 500))
    assert 250 < arrived < 450
    assert ends.net.stats()["dropped"] - before == 500 - arrived


def test_reordering_and_doubling(ends):
    ends.net.set("a", "b", late_ppm=200000, double_ppm=100000)
    found = numbers(ends.send("a", 500, pause=0.0005))
    assert set(found) == set(range(500))
    assert 20 < len(found) - 500 < 120
    assert found != sorted(found)


def test_narrow(ends):
    ends.net.set("a", "b", rate_kbs=100)
    found = ends.send("a", 50, size=1000)  # half a second's worth
    assert numbers(found) == list(range(50)) and 0.4 < found[-1][0] < 0.9


def test_an_order_it_does_not_know_is_refused(ends):
    with pytest.raises(RuntimeError):
        ends.net.set("a", "b", colour=1)
