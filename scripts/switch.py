"""A switch between TUN devices: packets between network namespaces, late, slow or lost as told.

    switch.py NAME=PID=ADDRESS ...

Makes a TUN device `wire` with that address (of a /24) in the network namespace of each process, and carries
IPv4 packets between them. Lines on stdin change how, from one name to another:

    rate FROM TO BYTES_A_SECOND     0: no limit
    delay FROM TO MILLISECONDS
    loss FROM TO PERCENT            by a seeded generator
    port FROM TO PORT               TCP packets to that port are dropped; 0: none
    cut FROM TO                     nothing gets through
    heal                            all as at first

Each line is answered with "ok". Ends with its stdin.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 1, 0x1000, 0x40000000
QUEUE_SECONDS = 0.5  # What would wait longer than that is dropped, as a router does.


class Wire:
    rate = delay = loss = port = 0
    cut = False
    free = 0.0  # When the last packet so far has been sent.


def device(pid, address):
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns to that of {pid}")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"wire", IFF_TUN | IFF_NO_PI))
    for command in (f"address add {address}/24 dev wire", "link set wire up"):
        subprocess.run(["ip", *command.split()], check=True)
    libc.setns(own, CLONE_NEWNET)
    return tun


def main():
    names, tuns, addresses = [], {}, {}
    for argument in sys.argv[1:]:
        name, pid, address = argument.split("=")
        names.append(name)
        tuns[device(int(pid), address)] = name
        addresses[socket.inet_aton(address)] = name
    devices = {name: tun for tun, name in tuns.items()}
    wires = {}
    dice = random.Random(1)
    waiting, count = [], 0

    def heal():
        wires.update({(one, other): Wire() for one in names for other in names})

    heal()
    print("ok", flush=True)
    while True:
        limit = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([*tuns, sys.stdin], [], [], limit)
        now = time.monotonic()
        if sys.stdin in ready:
            words = sys.stdin.readline().split()
            if not words:
                return
            if words[0] == "heal":
                heal()
            else:
                value = float(words[3]) if len(words) > 3 else True
                setattr(wires[words[1], words[2]], words[0], value)
            print("ok", flush=True)
        for tun in ready:
            if tun is sys.stdin:
                continue
            packet = os.read(tun, 1 << 16)
            to = addresses.get(packet[16:20])
            if packet[0] >> 4 != 4 or to is None:
                continue
            wire = wires[tuns[tun], to]
            header = 4 * (packet[0] & 15)
            at_port = packet[9] == 6 and struct.unpack_from("!H", packet, header + 2)[0] == wire.port
            if wire.cut or at_port or dice.random() * 100 < wire.loss:
                continue
            start = max(now, wire.free)
            if start - now > QUEUE_SECONDS:
                continue
            wire.free = start + (len(packet) / wire.rate if wire.rate else 0)
            count += 1
            heapq.heappush(waiting, (wire.free + wire.delay / 1000, count, devices[to], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, tun, packet = heapq.heappop(waiting)
            try:
                os.write(tun, packet)
            except BlockingIOError:
                pass


main()
