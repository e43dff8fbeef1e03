"""What programs of 2009 count on beyond single messages: which side waits, which closes, and that
things happen in order."""

import signal

from clients import apache, get_2009, ping_2009, put_2009
from original import Store as Store2009
from original.ttypes import Location
from original_peer import to_location
from ring import Ring
from wire import REPLY, Connection, message, vector_bytes

ROUNDS = 100


def test_put_closed_without_reading_then_get(network):
    node = network.ours()
    for number in range(ROUNDS):
        put_2009(node.name, b"k", b"%d" % number)
        assert get_2009(node.name, b"k") == b"%d" % number


def test_one_way_put_then_get_on_two_connections(network):
    """Today's libraries with the IDL of 2009: ONEWAY, closed at once."""
    node = network.ours()
    for number in range(ROUNDS):
        with apache(node.name, Store2009) as client:
            client.put(b"k", b"%d" % number)
        assert get_2009(node.name, b"k") == b"%d" % number


def test_order_holds_across_a_ring(network):
    """The put is for one node, said to a second; the get is asked of the second, too."""
    first = network.ours()
    second = network.ours(first)
    network.await_agreement()
    ring = Ring([first.name, second.name])
    key = next(b"k%d" % i for i in range(1000) if ring.owner(b"k%d" % i) == first.name)
    for number in range(ROUNDS):
        put_2009(second.name, key, b"%d" % number)
        assert get_2009(second.name, key) == b"%d" % number


def test_early_client_waits_for_its_answers(network):
    node = network.ours()
    for request, reply in [("ping", "ping"), ("put", "put"), ("debug", "debug")]:
        with Connection(node.name) as connection:
            assert connection.ask(vector_bytes(f"req.early.{request}")).bytes == vector_bytes(f"rep.early.{reply}")
    with Connection(node.name) as connection:
        assert connection.ask(vector_bytes("req.get.a#1")).bytes == vector_bytes("rep.get.value#1")


def test_early_node_that_joins_harms_nobody(network):
    """It waits for a list that it does not get, and fails by itself; its location answers nobody."""
    node = network.ours()
    with Connection(node.name) as connection:
        connection.ask(vector_bytes("req.early.put"))
    dead = Location(network.address, 9999)
    with apache(node.name, Store2009) as client:
        client.send_join(dead)
    network.await_agreement()
    assert get_2009(node.name, b"a") == b"apple"


def test_remove_ping_put_on_three_connections(network):
    """A leaving original serves nobody any more, but its port accepts: what it hands over must not go back to it."""
    node = network.ours(options=["--replicas", "1"])
    leaver = network.original(node)
    network.await_agreement()
    ring = Ring([node.name, leaver.name])
    keys = [key for key in (b"k%d" % i for i in range(200)) if ring.owner(key) == leaver.name]
    leaver.process.send_signal(signal.SIGSTOP)
    location = to_location(leaver.name)
    with apache(node.name, Store2009) as client:
        client.remove(location, [location])
    for key in keys:
        ping_2009(node.name)
        put_2009(node.name, key, b"handed over")
    for key in keys:
        assert get_2009(node.name, key) == b"handed over"


def test_call_of_a_one_way_method_is_answered_on_a_kept_connection(network):
    node = network.ours()
    with Connection(node.name) as connection:
        for seqid in range(10):
            assert connection.ask(message(1, "debug", seqid)).bytes == message(REPLY, "debug", seqid)
