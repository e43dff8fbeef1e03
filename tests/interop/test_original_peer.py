"""The test peer among its own kind: it must behave as original.thrift's world did, or mixed rings prove nothing."""

import socket

import pytest

from clients import get_2009, names_in_ring, ping_2009, put_2009
from ring import Ring
from wire import CALL, EXCEPTION, UNKNOWN_METHOD, Connection, message, vector_bytes

KEYS = [b"k%d" % number for number in range(60)]


def test_wire_answers(network):
    node = network.original()
    with Connection(node.name) as connection:
        connection.send(vector_bytes("req.put.a#3"))
        assert connection.ask(vector_bytes("req.get.a#1")).bytes == vector_bytes("rep.get.value#1")
        assert connection.ask(vector_bytes("req.get.empty#1")).bytes == vector_bytes("rep.get.empty#1")
        assert connection.ask(vector_bytes("req.ping#1", 7)).bytes == vector_bytes("rep.ping#1", 7)
        answer = connection.ask(message(1, "hello", 3))
        assert (answer.kind, answer.fields[2]) == (EXCEPTION, UNKNOWN_METHOD)
        connection.send(message(1, "get", 4))
        assert connection.closed_by_node()


def test_a_newcomer_says_get_all_then_join_as_call(network):
    """Each on its own connection, before it listens, and the join without waiting for an answer."""
    with socket.create_server((network.address, 9999)) as peer:
        peer.settimeout(10)
        newcomer = network.launch_original(f"{network.address}:9999")
        with peer.accept()[0] as connection:
            assert connection.recv(100) == message(CALL, "get_all")
            connection.sendall(vector_bytes("rep.get_all.none#1"))
            assert connection.recv(100) == b""
        with peer.accept()[0] as connection:
            said = connection.recv(100)
            assert connection.recv(100) == b""
            assert said.startswith(message(CALL, "join", fields=b"")) and network.address.encode() in said
        newcomer.await_serving()


@pytest.mark.parametrize("count", [2, 4])
def test_ring_grows_and_shrinks(network, count):
    first = network.original()
    nodes = [first] + [network.original(first) for _ in range(count - 1)]
    network.await_agreement()
    for key in KEYS:
        put_2009(first.name, key, key.upper())
    while len(nodes) > 1:
        for node in nodes:
            ping_2009(node.name)
        for key in KEYS:
            assert get_2009(nodes[-1].name, key) == key.upper()
        nodes.pop(0).interrupt()
        network.await_agreement()
    for key in KEYS:
        assert get_2009(nodes[0].name, key) == key.upper()


def test_keys_move_to_a_newcomer(network):
    first = network.original()
    for key in KEYS:
        put_2009(first.name, key, key)
    second = network.original(first)
    network.await_agreement()
    moved = [key for key in KEYS if Ring([first.name, second.name]).owner(key) == second.name]
    assert moved
    for key in moved:
        assert get_2009(second.name, key) == key
    assert f"dropped {moved[0]!r}" in first.output()


def test_killed_node_is_forgotten_lazily_and_here_only(network):
    first = network.original()
    second = network.original(first)
    third = network.original(first)
    network.await_agreement()
    key = next(key for key in KEYS if Ring([first.name, second.name, third.name]).owner(key) == third.name)
    put_2009(first.name, key, b"lost")
    ping_2009(first.name)
    third.process.kill()
    third.process.wait()
    assert get_2009(first.name, key) == b""
    assert names_in_ring(first.name) == [first.name, second.name]
    assert names_in_ring(second.name) == [first.name, second.name, third.name]
