"""Rings of our nodes and the original's: each joins the other's, any key is read through any node, and a node that
leaves hands its keys over.

Values are put and read as programs of 2009 do. After a change of the ring there is a wait until every node has the ring
right and every key reads right; from then on every read must be right.
"""

import signal
import socket
import threading
import time

import pytest

from clients import apache, get_2009, host_and_port, ping_2009, put_2009
from nodes import until
from ring import Ring
from thrift.Thrift import TException

REPLICAS = pytest.mark.parametrize("options", [["--replicas", "1"], []], ids=["one-copy", "default"])
KEYS = [b"k%d" % number for number in range(60)] + [b"", b"\xff\xfe", b"d41d8cd98f00b204e9800998ecf8427e"]


class Load:
    """What the ring should hold: a new value with every put, so that an old one is seen when it comes back."""

    def __init__(self, network):
        self.network = network
        self.values = {}
        self.round = 0

    def put(self, *nodes):
        """Every key once, through the nodes in turn. Done when this returns: of ours the answer to the ping comes after
        the put's effect, and so does an original's, for it does one thing at a time."""
        self.round += 1
        for number, key in enumerate(KEYS):
            self.values[key] = b"%d of %s" % (self.round, key)
            put_2009(nodes[number % len(nodes)].name, key, self.values[key])
        for node in nodes:
            ping_2009(node.name)

    def check(self):
        """Every key reads right, through every node. An original that cannot answer closes the connection."""
        for node in self.network.nodes:
            if node.running():
                for key, value in self.values.items():
                    try:
                        answer = get_2009(node.name, key)
                    except TException as error:
                        answer = error
                    assert answer == value, (node.name, key)

    def await_settled(self):
        """The ring is right everywhere, and so is every key; from then on they are right."""
        self.network.await_agreement()
        until("all keys read right", self.check)
        self.check()


@pytest.fixture
def load(network):
    return Load(network)


def die(node):
    with apache(node.name) as client:
        client.die()
    node.await_end()


LEAVE = pytest.mark.parametrize("leave", [lambda node: node.interrupt(), die], ids=["interrupt", "die"])


@REPLICAS
@LEAVE
@pytest.mark.parametrize("count", [1, 3])
def test_original_joins_ours_and_leaves(network, load, count, options, leave):
    first = network.ours(options=options)
    ours = [first] + [network.ours(first, options=options) for _ in range(count - 1)]
    network.await_agreement()
    load.put(*ours)
    original = network.original(ours[-1])
    load.await_settled()
    load.put(original)
    load.await_settled()
    leave(original)
    load.await_settled()


@REPLICAS
@LEAVE
@pytest.mark.parametrize("count", [1, 3])
def test_ours_join_an_original_and_leave(network, load, count, options, leave):
    original = network.original()
    load.put(original)
    ours = [network.ours(original, options=options) for _ in range(count)]
    load.await_settled()
    load.put(*ours)
    load.await_settled()
    for node in ours:
        leave(node)
        load.await_settled()


@REPLICAS
def test_original_leaves_the_ring_that_it_started(network, load, options):
    original = network.original()
    load.put(original)
    first = network.ours(original, options=options)
    network.ours(first, options=options)
    load.await_settled()
    original.interrupt()
    load.await_settled()


@REPLICAS
def test_two_originals_and_two_of_ours(network, load, options):
    """They come and go in turn, through different contacts."""
    oldest = network.original()
    ours = network.ours(oldest, options=options)
    network.await_agreement()
    load.put(oldest, ours)
    original = network.original(ours)
    load.await_settled()
    youngest = network.ours(original, options=options)
    load.await_settled()
    load.put(youngest, original, ours, oldest)
    load.await_settled()
    for node in [oldest, ours, original]:
        node.interrupt()
        load.await_settled()


def stop(node):
    node.process.send_signal(signal.SIGSTOP)


def keep_from_others(node):
    """It serves one connection at a time."""
    return socket.create_connection(host_and_port(node.name))


@pytest.mark.parametrize("hold", [stop, keep_from_others])
def test_what_somebody_there_does_not_take_is_trouble(network, hold):
    """An original that hangs is still there: the keys that would be its own now are not taken, which is said. The leaver
    goes ten seconds after the last item that was confirmed."""
    ours = network.ours(options=["--replicas", "1"])
    original = network.original(ours)
    network.await_agreement()
    for key in KEYS[:8]:
        put_2009(ours.name, key, b"value")
    ping_2009(ours.name)
    held = hold(original)
    ours.process.send_signal(signal.SIGINT)
    assert ours.process.wait(20) == 2, ours.output()
    del held
    last = ours.output().splitlines()[-1]
    assert last.startswith(f"storeserver: {ours.name}: ") and last.endswith(" not taken by others"), last


def test_killed_original_is_dropped_by_all_of_ours(network, load):
    """What it held has shadow copies with ours."""
    first = network.ours()
    second = network.ours(first)
    original = network.original(second)
    network.await_agreement()
    load.put(first, second)
    load.await_settled()
    original.process.kill()
    original.process.wait()
    load.await_settled()


def test_newer_value_at_an_original_outlives_its_shadow(network, load):
    """A key goes from one original to another, while ours beside them has an older copy of it."""
    ours = network.ours()
    first = network.original(ours)
    second = network.original(ours)
    network.await_agreement()
    everybody = Ring([ours.name, first.name, second.name])
    rest = Ring([ours.name, second.name])
    moving = [key for key in KEYS if everybody.owner(key) == first.name and rest.owner(key) == second.name]
    assert moving
    load.put(ours)
    load.await_settled()
    load.put(first)
    load.await_settled()
    first.interrupt()
    load.await_settled()


@REPLICAS
def test_original_is_told_of_a_newcomer_once(network, load, options):
    """It keeps all points it was ever told of, and hands its keys over at each telling. The load lasts longer than the
    silence after which a node of ours takes itself for cut off."""
    original = network.original()
    ours = network.ours(original, options=options)
    network.await_agreement()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        load.put(ours)
        load.check()
    assert original.output().count(f"added {ours.name}") == 1


def test_many_clients_at_once(network):
    """Through ours and the original, which never wait for each other in a circle."""
    first = network.ours()
    original = network.original(first)
    second = network.ours(first)
    network.await_agreement()
    failures = []

    def work(thread, node):
        try:
            for number in range(40):
                key = b"%d-%d" % (thread, number)
                put_2009(node.name, key, key)
                ping_2009(node.name)
                assert get_2009(node.name, key) == key
        except Exception as error:
            failures.append((node.name, error))

    threads = [threading.Thread(target=work, args=[thread, [first, original, second][thread % 3]])
               for thread in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@REPLICAS
def test_location_nodes_share_a_ring(network, options):
    first = network.ours(program="location", options=options)
    original = network.original(first, options=["--locator"])
    last = network.ours(original, program="location", options=options)
    network.await_agreement()
    original.interrupt()
    network.await_agreement()
    first.interrupt()
    network.await_agreement()
    last.interrupt()
