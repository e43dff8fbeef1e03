"""Every request of wire.jsonl, sent to real nodes byte for byte, plain and framed, to store and location nodes.

A CALL is answered under its name and sequence number with the strict header, a ONEWAY is not answered, and after
either the connection goes on.
"""

import pytest

from nodes import Network, accepts
from wire import CALL, EXCEPTION, REPLY, REQUESTS, UNKNOWN_METHOD, Connection, message, vector_bytes

PROGRAMS = ["storeserver", "location"]
CHANGES_MEMBERS = ["join", "add", "remove"]
STORE_ONLY = ["get", "put"]

QUIET = [vector for vector in REQUESTS if vector.name not in [*CHANGES_MEMBERS, "die"]]
MEMBERSHIP = [vector for vector in REQUESTS if vector.name in CHANGES_MEMBERS]
DIE = [vector for vector in REQUESTS if vector.name == "die"]


def identity(value):
    return getattr(value, "id", str(value))


@pytest.fixture(scope="module")
def lone_nodes():
    """A store node and a location node, each alone in its network."""
    with Network() as network, Network() as other:
        yield {"storeserver": network.ours(), "location": other.ours(program="location")}


@pytest.fixture(scope="module", autouse=True)
def nobody_at_the_places_in_the_vectors():
    """The vectors name 127.0.0.1:9900 and the next; a real node there would be drawn into the test's ring."""
    for port in range(9900, 9905):
        assert not accepts(f"127.0.0.1:{port}"), f"a node listens at 127.0.0.1:{port}: stop it first"


def location_fields(node):
    host, _, port = node.name.rpartition(":")
    return {1: host.encode(), 2: int(port)}


def argument_bytes(value):
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode()


def check_answer(vector, answer, node, program):
    """The answer to a CALL at a node that is alone and holds `apple` under `a`."""
    assert (answer.name, answer.seqid) == (vector.name, vector.seqid)
    unknown = vector.name == "frobnicate" or (program == "location" and vector.name in STORE_ONLY)
    if unknown:
        assert answer.kind == EXCEPTION and answer.fields[2] == UNKNOWN_METHOD
    elif vector.name in ["get", "get_node"] and vector.argument(1) is None:
        assert answer.kind == EXCEPTION and b"key" in answer.fields[1]
    elif vector.name == "get":
        reply = "rep.get.value#1" if vector.argument(1) == "a" else "rep.get.empty#1"
        assert answer.bytes == vector_bytes(reply, vector.seqid)
    elif vector.name == "get_node":
        assert answer.kind == REPLY and answer.fields == {0: location_fields(node)}
    elif vector.name == "get_all":
        assert answer.kind == REPLY and answer.fields == {0: [location_fields(node)]}
    elif vector.name == "service_type":
        reply = "rep.service_type.store#1" if program == "storeserver" else "rep.service_type.locator#1"
        assert answer.bytes == vector_bytes(reply, vector.seqid)
    elif vector.name == "service_types":
        store = [b"diststore.Store"] if program == "storeserver" else []
        assert answer.fields == {0: [b"locator.Base", b"locator.Locator", *store, b"thrifty.Peer"]}
    else:
        assert answer.bytes == message(REPLY, vector.name, vector.seqid)


def check_usable(connection):
    """The next answer on the connection is that of the next request: nothing was left over, nothing is missing."""
    assert connection.ask(vector_bytes("req.ping#1", 77)).bytes == vector_bytes("rep.ping#1", 77)


def test_message_is_as_the_vectors_have_it():
    assert message(CALL, "ping") == vector_bytes("req.ping#1")
    for name in ["put", "debug", "remove"]:
        assert message(REPLY, name) == vector_bytes(f"rep.early.{name}")


@pytest.mark.parametrize("framed", [False, True], ids=["plain", "framed"])
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("vector", QUIET, ids=identity)
def test_request(lone_nodes, vector, program, framed):
    node = lone_nodes[program]
    with Connection(node.name, framed) as connection:
        if program == "storeserver":
            connection.ask(vector_bytes("req.early.put"))
        if vector.oneway:
            connection.send(vector.bytes)
        else:
            check_answer(vector, connection.ask(vector.bytes), node, program)
        check_usable(connection)
        if program == "storeserver" and vector.name == "put":
            key, value = argument_bytes(vector.argument(1)), argument_bytes(vector.argument(2))
            fields = b"\x0b\0\1" + len(key).to_bytes(4, "big") + key + b"\0"
            assert connection.ask(message(CALL, "get", 5, fields)).fields == {0: value}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("vector", MEMBERSHIP, ids=identity)
def test_membership_request(network, vector, program):
    """To a node of its own, as most name locations where nobody is."""
    node = network.ours(program=program)
    with Connection(node.name) as connection:
        if vector.oneway:
            connection.send(vector.bytes)
        else:
            answer = connection.ask(vector.bytes)
            if "port0-empty" in vector.id:
                assert (answer.name, answer.seqid) == (vector.name, vector.seqid)
            else:
                check_answer(vector, answer, node, program)
        check_usable(connection)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("vector", DIE, ids=identity)
def test_die(network, vector, program):
    node = network.ours(program=program)
    with Connection(node.name) as connection:
        if vector.oneway:
            connection.send(vector.bytes)
        else:
            check_answer(vector, connection.ask(vector.bytes), node, program)
        assert connection.closed_by_node()
    node.await_end()
    assert not accepts(node.name)


def test_pipelined_requests_are_answered_in_order(lone_nodes):
    with Connection(lone_nodes["storeserver"].name) as connection:
        connection.send(b"".join(vector_bytes("req.ping#1", number) for number in range(1000)))
        assert [connection.receive().seqid for _ in range(1000)] == list(range(1000))
