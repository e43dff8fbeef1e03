"""Rings of our nodes and the original's: each joins the other's, any key is read through any node, and whoever leaves
leaves its keys behind.

Values are put and read as programs of 2009 do. After a change of the ring there is a wait until every node has the ring
right and every key reads right; from then on every read must be right.
"""

import pytest

from clients import apache, get_2009, ping_2009, put_2009
from nodes import until

REPLICAS = pytest.mark.parametrize("options", [["--replicas", "1"], []], ids=["one-copy", "default"])
KEYS = [b"k%d" % number for number in range(60)] + [b"", b"\xff\xfe", b"d41d8cd98f00b204e9800998ecf8427e"]


def value_of(key):
    return b"value of " + key


def put_through(node, keys):
    """Done when this returns: of ours the answer was awaited, an original answers a ping only after its puts."""
    for key in keys:
        put_2009(node.name, key, value_of(key))
    ping_2009(node.name)


def put_through_each(nodes):
    for number, node in enumerate(nodes):
        put_through(node, KEYS[number :: len(nodes)])


def misread(node):
    return [key for key in KEYS if get_2009(node.name, key) != value_of(key)]


def await_settled(network):
    """The ring is right everywhere, and so is every key; then they are read once more, through every node."""
    network.await_agreement()
    running = [node for node in network.nodes if node.running()]
    for node in running:
        until(f"all keys read right through {node.name}", lambda: not misread(node))
    for node in running:
        assert not misread(node), node.name
    return running


def die(node):
    with apache(node.name) as client:
        client.die()
    node.await_end()


LEAVE = pytest.mark.parametrize("leave", [lambda node: node.interrupt(), die], ids=["interrupt", "die"])


@REPLICAS
@LEAVE
@pytest.mark.parametrize("count", [1, 3])
def test_original_joins_ours_and_leaves(network, count, options, leave):
    first = network.ours(options=options)
    ours = [first] + [network.ours(first, options=options) for _ in range(count - 1)]
    network.await_agreement()
    put_through_each(ours)
    original = network.original(ours[-1])
    await_settled(network)
    put_through(original, KEYS)
    await_settled(network)
    leave(original)
    await_settled(network)


@REPLICAS
@LEAVE
@pytest.mark.parametrize("count", [1, 3])
def test_ours_join_an_original_and_leave(network, count, options, leave):
    original = network.original()
    put_through(original, KEYS)
    ours = [network.ours(original, options=options) for _ in range(count)]
    await_settled(network)
    put_through_each(ours)
    await_settled(network)
    for node in ours:
        leave(node)
        await_settled(network)


@REPLICAS
def test_original_leaves_the_ring_that_it_started(network, options):
    original = network.original()
    put_through(original, KEYS)
    first = network.ours(original, options=options)
    network.ours(first, options=options)
    await_settled(network)
    original.interrupt()
    await_settled(network)


@REPLICAS
def test_two_originals_and_two_of_ours(network, options):
    """They come and go in turn, through different contacts."""
    oldest = network.original()
    ours = network.ours(oldest, options=options)
    put_through_each([oldest, ours])
    await_settled(network)
    original = network.original(ours)
    await_settled(network)
    youngest = network.ours(original, options=options)
    await_settled(network)
    put_through_each([youngest, original, ours, oldest])
    await_settled(network)
    for node in [oldest, ours, original]:
        node.interrupt()
        await_settled(network)
    assert not misread(youngest)


def test_killed_original_is_dropped_by_all_of_ours(network):
    """What it held has shadow copies with ours."""
    first = network.ours()
    second = network.ours(first)
    original = network.original(second)
    network.await_agreement()
    put_through_each([first, second])
    await_settled(network)
    original.process.kill()
    original.process.wait()
    await_settled(network)


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
