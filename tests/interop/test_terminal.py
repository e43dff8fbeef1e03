"""A terminal stopped with Ctrl-S holds up what a node has to say, and nothing else."""

import os
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

    def await_shown(self, text, times):
        def check():
            while select.select([self.keyboard], [], [], 0)[0]:
                self.shown += os.read(self.keyboard, 65536)
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
