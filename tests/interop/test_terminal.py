"""Programs at a terminal: one stopped with Ctrl-S holds up what a node has to say, and nothing else; and progress is
shown there. And dumps that are no program's."""

import os
import re
import select
import signal
import subprocess

import pytest

from clients import thriftpy
from nodes import FIRST_PORT, accepts, binary, private_address, until

STOP, GO_ON = b"\x13", b"\x11"
SECONDS_TO_END = 15


class Terminal:
    """`device` is what a program writes to, `keyboard` where its user sits."""

    def __init__(self):
        self.keyboard, self.device = os.openpty()
        self.shown = b""

    def press(self, key):
        """Returns once the key has taken effect."""
        os.write(self.keyboard, key)

        def check():
            assert bool(select.select([], [self.device], [], 0)[1]) == (key == GO_ON)

        until("the terminal stops, or goes on", check)

    def look(self):
        while select.select([self.keyboard], [], [], 0)[0]:
            self.shown += os.read(self.keyboard, 65536)
        return self.shown

    def await_shown(self, text, times):
        def check():
            self.look()
            assert self.shown.count(text) >= times, self.shown[-200:]

        until(f"{text} is shown {times} times", check)


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    os.close(terminal.device)
    os.close(terminal.keyboard)


def test_a_stopped_terminal_holds_up_no_request_and_no_end(terminal):
    address = private_address()
    name = f"{address}:{FIRST_PORT}"
    command = [binary("storeserver"), "-v", "-a", address, "-p", str(FIRST_PORT)]
    node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal.device, stderr=terminal.device)
    try:
        def check_serving():
            assert node.poll() is None and accepts(name)

        until("it serves", check_serving)
        terminal.press(STOP)
        with thriftpy(name) as client:
            for number in range(100):
                client.put(f"key {number}", "value")
        terminal.press(GO_ON)
        terminal.await_shown(b": put\r\n", 100)
        terminal.press(STOP)
        with thriftpy(name) as client:
            client.put("last", "value")
        node.send_signal(signal.SIGTERM)
        assert node.wait(SECONDS_TO_END) == 0
    finally:
        node.kill()
        node.wait()


# What is done, at which rate, and what is left.
PROGRESS = re.compile(rb"\r[\d,]+ keys?, [\d,]+ a second, \d+ %, \d+ s left\x1b\[K")


@pytest.fixture
def node():
    address = private_address()
    name = f"{address}:{FIRST_PORT}"
    command = [binary("storeserver"), "-a", address, "-p", str(FIRST_PORT), "--replicas", "1", "--new"]
    node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def check_serving():
            assert node.poll() is None and accepts(name)

        until("it serves", check_serving)
        yield name
    finally:
        node.kill()
        node.wait()


def load(name, file, stderr, *options):
    with open(file, "rb") as dump:
        command = [binary("storeload"), "-h", name, *options]
        return subprocess.run(command, stdin=dump, stdout=subprocess.PIPE, stderr=stderr, timeout=60)


def dump_slowly(name, stderr, until_shown, *options):
    """Reads what storedump writes, a little at a time until that is shown, and then the rest."""
    command = [binary("storedump"), "-h", name, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as dump:
        out = b""
        while piece := os.read(dump.stdout.fileno(), 16384):
            out += piece
            if not until_shown():
                select.select([], [], [], 0.01)
        assert dump.wait(SECONDS_TO_END) == 0
        return out


def test_a_script_reads_and_writes_a_dump(node, tmp_path):
    """A few lines write and read a dump of any bytes, as README describes it."""
    def write(text):
        plain = {b"\t": b"\\t", b"\n": b"\\n", b"\\": b"\\\\"}
        one = (bytes([byte]) for byte in text)
        return b"".join(plain.get(c, c if b" " <= c <= b"~" else b"\\x%02x" % c[0]) for c in one)

    def read(text):
        return text.decode("ascii").encode().decode("unicode_escape").encode("latin-1")

    every = bytes(range(256))
    items = {every: every[::-1], b"": b"\\x41\\", "\u9375".encode(): b"\t\n"}
    lines = [write(key) + b"\t" + write(value) for key, value in items.items()]
    file = tmp_path / "dump"
    file.write_bytes(b"\n".join([b"diststore dump 1", *lines, b"end %d" % len(items), b""]))
    assert load(node, file, subprocess.PIPE).returncode == 0
    dumped = subprocess.run([binary("storedump"), "-h", node], stdout=subprocess.PIPE, timeout=60)
    assert dumped.returncode == 0
    _, *lines, end, _ = dumped.stdout.split(b"\n")
    assert end == b"end %d" % len(items)
    assert dict(tuple(map(read, line.split(b"\t"))) for line in lines) == items


def test_progress_is_shown_at_a_terminal_alone(terminal, node, tmp_path):
    file = tmp_path / "dump"
    keys = 20_000
    lines = [b"key %d\t%s" % (number, b"v" * 100) for number in range(keys)]
    file.write_bytes(b"\n".join([b"diststore dump 1", *lines, b"end %d" % keys, b""]))

    piped = load(node, file, subprocess.PIPE)
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, b"", b"")
    assert load(node, file, terminal.device, "--quiet").returncode == 0
    quiet = dump_slowly(node, terminal.device, lambda: True, "-q")
    assert terminal.look() == b""
    command = [binary("storedump"), "-h", node]
    piped = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert sorted(piped.stdout.splitlines()) == sorted(quiet.splitlines())

    # From a pipe nobody knows how much there will be.
    feeder = subprocess.Popen(["cat", file], stdout=subprocess.PIPE)
    command = [binary("storeload"), "-h", node]
    loaded = subprocess.run(command, stdin=feeder.stdout, stderr=terminal.device, timeout=60)
    feeder.stdout.close()
    assert (feeder.wait(SECONDS_TO_END), loaded.returncode) == (0, 0)
    assert b" a second" in terminal.look() and b"left" not in terminal.shown, terminal.shown

    for command in [
        lambda: load(node, file, terminal.device),
        lambda: dump_slowly(node, terminal.device, lambda: PROGRESS.search(terminal.look())),
    ]:
        terminal.shown = b""
        command()
        assert PROGRESS.search(terminal.look()), terminal.shown
        # The line is wiped out at the end.
        assert terminal.shown.endswith(b"\r\x1b[K"), terminal.shown
