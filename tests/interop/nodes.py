"""Real nodes in processes, ours and the test peer, on a loopback address of their own.

No wait here is a guess: each is for a condition, and has an end.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clients import names_in_ring
from paths import BIN

FIRST_PORT = 9900
ORIGINAL = Path(__file__).with_name("original_peer.py")


def until(what, attempt, seconds=20):
    """Tries again and again until an attempt fails no assertion; `what` says what for."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except AssertionError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s: {what}") from error
        time.sleep(0.02)


def binary(program):
    path = BIN / program
    if not path.exists():
        raise AssertionError(f"no {path}: run `cargo build --release`, or set THRIFTY_BIN to the programs' folder")
    return path


def accepts(name):
    host, _, port = name.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    except ConnectionRefusedError:
        return False


def private_address():
    """A loopback address on which nobody listens at the ports that nodes look at."""
    while True:
        address = "127.{}.{}.{}".format(*(random.randint(1, 254) for _ in range(3)))
        if not any(accepts(f"{address}:{FIRST_PORT + i}") for i in range(10)):
            return address


class Node:
    """A process that serves at `name`."""

    def __init__(self, name, command, original):
        self.name = name
        self.original = original
        self._output = tempfile.TemporaryFile("w+b")
        self.process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT,
                                        stdin=subprocess.DEVNULL)

    def output(self):
        # Not by `seek`: the node writes where this file is read, and would write over its first lines.
        file = self._output.fileno()
        return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def await_serving(self):
        def check():
            if not self.running():
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.output()}")
            assert "Starting the server at" in self.output() and accepts(self.name)

        until(f"{self.name} serves", check)

    def await_end(self, seconds=30):
        """The exit status after a leave: 0 of ours, 1 of an original."""
        assert self.process.wait(seconds) == (1 if self.original else 0), self.output()

    def interrupt(self):
        """Ctrl-C, and the end that it brings."""
        self.process.send_signal(signal.SIGINT)
        self.await_end()

    def resident_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def end(self):
        self.process.kill()
        self.process.wait()
        print(f"--- {self.name}\n{self.output()[-4000:]}")
        self._output.close()


class Network:
    """The nodes of one test; leaving the `with` block ends them all."""

    def __init__(self):
        self.address = private_address()
        self.nodes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.end()

    def launch(self, command, peer, options=(), original=False):
        """A process that may not serve yet. `peer` is a name, or None."""
        port = FIRST_PORT + len(self.nodes)
        command = [*command, "-a", self.address, "-p", str(port), *options]
        if peer:
            command += ["-h", peer]
        node = Node(f"{self.address}:{port}", command, original)
        self.nodes.append(node)
        return node

    def launch_original(self, peer, options=()):
        return self.launch([sys.executable, ORIGINAL], peer, options, original=True)

    def ours(self, peer=None, program="storeserver", options=()):
        """One of our nodes, serving, alone or a member of the peer's ring."""
        node = self.launch([binary(program)], peer and peer.name, options)
        node.await_serving()
        return node

    def original(self, peer=None, options=()):
        """A node that behaves as the original's did, serving."""
        node = self.launch_original(peer and peer.name, options)
        node.await_serving()
        return node

    def await_agreement(self):
        """Until every running node has exactly the running nodes in its ring."""
        running = [node for node in self.nodes if node.running()]
        expected = sorted(node.name for node in running)

        def check():
            assert [names_in_ring(node.name) for node in running] == [expected] * len(running)

        until("all rings are right", check)
