"""What must not hurt a node: each offender is answered or cut off alone, others are served, memory stays bounded."""

import os
import struct
import time
from contextlib import ExitStack

import pytest

from clients import thriftpy
from thrift.protocol.TCompactProtocol import TCompactProtocol
from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.protocol.TJSONProtocol import TJSONProtocol
from thrift.Thrift import TMessageType
from thrift.transport.THeaderTransport import THeaderClientType, THeaderSubprotocolID
from thrift.transport.TTransport import TFramedTransport, TMemoryBuffer
from wire import CALL, EXCEPTION, Connection, message, vector_bytes

MEGABYTE = 1 << 20
MEMORY_MARGIN = 64 * MEGABYTE
SECONDS_TO_BE_SERVED = 5

HUGE = struct.pack(">i", 0x7FFFFFFF)
NEGATIVE = struct.pack(">i", -1)
STRING_1, LIST_2, MAP_3, STRUCT_1 = b"\x0b\0\1", b"\x0f\0\2", b"\x0d\0\3", b"\x0c\0\1"


def ping(protocol_of, framed):
    """`ping()` in another protocol, as Apache Thrift's library says it."""
    sent = TMemoryBuffer()
    protocol = protocol_of(TFramedTransport(sent) if framed else sent)
    protocol.writeMessageBegin("ping", TMessageType.CALL, 1)
    protocol.writeStructBegin("ping_args")
    protocol.writeFieldStop()
    protocol.writeStructEnd()
    protocol.writeMessageEnd()
    protocol.trans.flush()
    return sent.getvalue()


def header_protocol(transport):
    """The compact protocol within the header's, which frames by itself."""
    return THeaderProtocol(transport, [THeaderClientType.HEADERS], THeaderSubprotocolID.COMPACT)


OTHER_PROTOCOLS = {
    "compact": ping(TCompactProtocol, False),
    "compact-framed": ping(TCompactProtocol, True),
    "json": ping(TJSONProtocol, False),
    "json-framed": ping(TJSONProtocol, True),
    "header": ping(header_protocol, False),
}

CUT_OFF = {
    **OTHER_PROTOCOLS,
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http-post": b"POST /status HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    "tls": bytes.fromhex("16030100a5010000a10303") + os.urandom(160),
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "other-version": b"\x80\x02" + message(CALL, "ping")[2:],
    "name-length-huge": b"\x80\1\0\1" + HUGE,
    "name-length-negative": b"\x80\1\0\1" + NEGATIVE,
    "old-name-length-huge": HUGE + b"ping",
    "frame-length-huge": HUGE + message(CALL, "ping"),
    "string-length-huge": message(CALL, "get", 1, STRING_1 + HUGE),
    "string-length-negative": message(CALL, "get", 1, STRING_1 + NEGATIVE),
    "list-count-huge": message(CALL, "add", 1, LIST_2 + b"\x0c" + HUGE),
    "list-count-negative": message(CALL, "add", 1, LIST_2 + b"\x0c" + NEGATIVE),
    "list-of-nothing-huge": message(CALL, "get", 1, b"\x0f\0\x09" + b"\x02" + HUGE),
    "map-count-huge": message(CALL, "get", 1, MAP_3 + b"\x0b\x0b" + HUGE),
    "unknown-type": message(CALL, "get", 1, b"\x77\0\1"),
    "nested-deep": message(CALL, "get", 1, b"\x0c\0\x09" * 100_000),
    "lists-nested-deep": message(CALL, "get", 1, b"\x0f\0\x09" + b"\x0f\0\0\0\1" * 100_000),
}


@pytest.fixture
def node(network):
    node = network.ours()
    with thriftpy(node.name) as client:
        client.put("a", "apple")
    return node


def check_served(node):
    """A new client is served, and soon."""
    began = time.monotonic()
    with thriftpy(node.name) as client:
        assert client.get("a") == "apple"
        client.put("b", "bee")
        assert client.get("b") == "bee"
    assert time.monotonic() - began < SECONDS_TO_BE_SERVED


@pytest.mark.parametrize("case", CUT_OFF)
def test_garbage_is_answered_or_cut_off(node, case):
    """The client half-closes: what cannot become a message any more has to end the connection in any case."""
    before = node.resident_bytes()
    with Connection(node.name) as connection:
        try:
            connection.socket.sendall(CUT_OFF[case])
            check_served(node)
            connection.socket.shutdown(1)
        except OSError:
            pass  # it was cut off while it spoke
        assert connection.closed_by_node()
    check_served(node)
    assert node.resident_bytes() < before + MEMORY_MARGIN


@pytest.mark.parametrize("case", ["name-length-huge", "string-length-negative", "list-count-negative", "http",
                                  *OTHER_PROTOCOLS])
def test_hopeless_input_is_not_waited_for(node, case):
    """The client keeps its side open; the node needs no more to know."""
    with Connection(node.name) as connection:
        connection.socket.sendall(CUT_OFF[case])
        assert connection.closed_by_node()


def test_random_bytes(node):
    before = node.resident_bytes()
    for _ in range(200):
        with Connection(node.name) as connection:
            data = os.urandom(200)
            try:
                connection.socket.sendall(data)
                connection.socket.shutdown(1)
            except OSError:
                pass  # it was cut off while it spoke
            assert connection.closed_by_node(), data.hex()
    check_served(node)
    assert node.resident_bytes() < before + MEMORY_MARGIN


def test_truncated_at_every_byte(node):
    """The put was not said to its end, so it is not done."""
    request = vector_bytes("req.put.a#3").replace(b"apple", b"grape")
    for length in range(len(request)):
        with Connection(node.name) as connection:
            connection.send(request[:length])
    check_served(node)


def test_wrong_message_types_do_no_harm(node):
    """A REPLY or an EXCEPTION out of nowhere."""
    for kind in [0, 2, 3, 5, 255]:
        with Connection(node.name) as connection:
            connection.send(message(kind, "ping", 1))
            connection.socket.shutdown(1)
            assert connection.closed_by_node()
    check_served(node)


def test_missing_argument_is_named_and_the_connection_goes_on(node):
    with Connection(node.name) as connection:
        for method, argument in [("get", b"key"), ("put", b"key"), ("get_node", b"key"), ("join", b"location"),
                                 ("add", b"location"), ("remove", b"location")]:
            answer = connection.ask(message(CALL, method, 4))
            assert (answer.kind, answer.name, answer.seqid) == (EXCEPTION, method, 4)
            assert argument in answer.fields[1]
        assert connection.ask(vector_bytes("req.get.a#1")).bytes == vector_bytes("rep.get.value#1")


def test_trickling_client_is_served_and_delays_nobody(node):
    """A byte now and then; others are served between any two."""
    request = vector_bytes("req.get.a#1")
    with Connection(node.name) as slow:
        for byte in request:
            slow.send(bytes([byte]))
            check_served(node)
        assert slow.receive().bytes == vector_bytes("rep.get.value#1")


def test_300_idle_connections(node):
    before = node.resident_bytes()
    with ExitStack() as stack:
        idle = [stack.enter_context(Connection(node.name)) for _ in range(300)]
        check_served(node)
        assert node.resident_bytes() < before + MEMORY_MARGIN
        assert idle[-1].ask(vector_bytes("req.ping#1")).bytes == vector_bytes("rep.ping#1")
    check_served(node)


def test_claimed_lengths_take_no_memory(node):
    """A hundred connections claim some megabytes each and send none of them."""
    before = node.resident_bytes()
    claim = message(CALL, "put", 1, STRING_1 + struct.pack(">i", 8 * MEGABYTE))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Connection(node.name)).send(claim)
        check_served(node)
        assert node.resident_bytes() < before + MEMORY_MARGIN


def test_reader_that_never_reads(node):
    """It asks for a large value again and again and takes no answer; its connection ends or stalls, alone."""
    before = node.resident_bytes()
    with thriftpy(node.name) as client:
        client.put("large", "v" * MEGABYTE)
    fields = STRING_1 + struct.pack(">i", 5) + b"large\0"
    with Connection(node.name) as greedy:
        greedy.socket.settimeout(0.5)
        try:
            greedy.socket.sendall(message(CALL, "get", 1, fields) * 20_000)
        except OSError:
            pass  # it was cut off, or nothing more fits into the buffers
        check_served(node)
        assert node.resident_bytes() < before + MEMORY_MARGIN
