"""The cluster's DNS: names of pods and of the headless service, as the StatefulSet of pods.py has them now. It can be
told to be silent, as an overloaded one is."""

import socket
import struct
import threading

A, AAAA = 1, 28


class Server:
    def __init__(self, address):
        self.names = {}  # "demo-0.demo.prod.svc.cluster.local" -> [ip]
        self.silent = False
        self.asked = 0
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
            self.asked += 1
            if self.silent:
                continue
            try:
                self.sock.sendto(self._answer(question), peer)
            except (OSError, ValueError, IndexError, struct.error):
                pass

    def _answer(self, question):
        ident, flags, n = struct.unpack_from(">HHH", question)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode("ascii"))
            at += question[at] + 1
        kind, = struct.unpack_from(">H", question, at + 1)
        known = self.names.get(".".join(labels).lower())
        addresses = known if known and kind == A and n == 1 else []
        head = struct.pack(">HHHHHH", ident, 0x8580 | flags & 0x0100 | (0 if known else 3), 1, len(addresses), 0, 0)
        return head + question[12:at + 5] + b"".join(
            struct.pack(">HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(a) for a in addresses)
