"""The cluster's DNS: names of pods and of the headless service, as the StatefulSet of pods.py has them now. It can be
told to be silent, as an overloaded one is, and to know nobody who knows other names."""

import collections
import socket
import struct
import threading

A, AAAA = 1, 28


class Server:
    def __init__(self, address):
        self.names = {}  # "demo-0.demo.prod.svc.cluster.local" -> [ip]
        self.silent = ()  # beginnings of names that it does not answer for; ("",): for none
        self.upstream = True  # does anybody answer for names that are not the cluster's?
        self.asked = collections.Counter()  # "demo-0.demo.prod.svc.cluster.local" -> how often, for either kind of address
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 53))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def close(self):
        self.sock.close()

    def _serve(self):
        while True:
            try:
                question, peer = self.sock.recvfrom(1500)
            except OSError:
                return
            try:
                answer = self._answer(question)
                if answer:
                    self.sock.sendto(answer, peer)
            except (OSError, ValueError, IndexError, struct.error):
                pass

    def _answer(self, question):
        ident, flags, n = struct.unpack_from(">HHH", question)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode("ascii"))
            at += question[at] + 1
        kind, = struct.unpack_from(">H", question, at + 1)
        name = ".".join(labels).lower()
        self.asked[name] += 1
        if name.startswith(self.silent):
            return b""
        known = self.names.get(name)
        if not self.upstream and not name.endswith(".local"):
            return struct.pack(">HHHHHH", ident, 0x8182, 1, 0, 0, 0) + question[12:at + 5]  # SERVFAIL
        addresses = known if known and kind == A and n == 1 else []
        head = struct.pack(">HHHHHH", ident, 0x8580 | flags & 0x0100 | (0 if known else 3), 1, len(addresses), 0, 0)
        return head + question[12:at + 5] + b"".join(
            struct.pack(">HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(a) for a in addresses)
