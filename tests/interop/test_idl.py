"""The IDL against what the nodes really serve: each of its methods is answered with the type that it declares, and any
other is unknown.

Arguments and results are written and read by thriftpy2 from the IDL. A result that has been decoded by the IDL and
encoded again must give the node's own bytes: so it has no field more, and none of another type.
"""

import time

import pytest
import thriftpy2
from thriftpy2.protocol import TBinaryProtocol
from thriftpy2.transport import TMemoryBuffer

from clients import host_and_port
from generated import compile_idl
from nodes import until
from paths import IDL
from wire import CALL, EXCEPTION, REPLY, UNKNOWN_METHOD, Connection, message

locator, diststore, peer = (
    thriftpy2.load(str(IDL / f"{name}.thrift"), module_name=f"{name}_thrift")
    for name in ["locator", "diststore", "peer"]
)

PROGRAMS = {"storeserver": ("diststore.Store", [diststore.Store, peer.Replica]),
            "location": ("locator.Locator", [locator.Locator, peer.Peer])}
METHODS = [(program, service, method)
           for program, (_, services) in PROGRAMS.items()
           for service in services
           for method in service.thrift_services]


def arguments(program, address):
    """A sensible value for each argument name of the IDL. The caller is a location where nobody is."""
    location = locator.Location(address, 9999)
    item = peer.Item(key=b"k", version=int(time.time() * 1e6), value=b"v")
    member = peer.Member(location, peer.State.OUTSIDE, 2)
    return {"location": location, "authorities": [location], "key": b"k", "value": b"v", "items": [item],
            "me": member, "caller": peer.Caller(member, 1), "token": 1, "candidate": member, "you": peer.Standing(), "wants_lease": True, "digest": 0, "wants_members": True,
            "side": peer.Side(0, location, False), "replicas": 2, "service_type": PROGRAMS[program][0], "tick_millis": 500,
            "version": peer.VERSION, "shared": 0, "digests": [], "exchanged": False, "put": False, "range": 0,
            "after": b"", "upto": b"", "prefix": b"", "most": 10, "above": 0, "view": 0, "lost": [location], "floor": 0}


def encode(value):
    buffer = TMemoryBuffer()
    TBinaryProtocol(buffer).write_struct(value)
    return buffer.getvalue()


def decode(value, data):
    TBinaryProtocol(TMemoryBuffer(data), decode_response=False).read_struct(value)
    return value


def call_message(service, method, values):
    call = getattr(service, f"{method}_args")()
    for _, name, *_ in call.thrift_spec.values():
        setattr(call, name, values[name])
    return message(CALL, method, 3, encode(call))


@pytest.mark.parametrize("language", ["py", "cpp"])
@pytest.mark.parametrize("source", sorted(IDL.glob("*.thrift")), ids=lambda source: source.stem)
def test_compiler_accepts(source, language, tmp_path):
    compile_idl(source, language, tmp_path)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("program, service, method", METHODS, ids=lambda value: getattr(value, "__name__", value))
def test_method_is_served_with_its_type(network, program, service, method):
    node = network.ours(program=program)
    with Connection(node.name) as connection:
        answer = connection.ask(call_message(service, method, arguments(program, network.address)))
    assert (answer.name, answer.seqid, answer.kind) == (method, 3, REPLY), answer
    body = answer.bytes[len(message(REPLY, method, 3, b"")) :]
    result = decode(getattr(service, f"{method}_result")(), body)
    assert encode(result) == body, (answer, result)
    if result.thrift_spec:
        assert result.success is not None


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("method", ["frobnicate", "", "PING", "pings", "m" * 1000])
def test_other_methods_are_unknown(network, program, method):
    node = network.ours(program=program)
    with Connection(node.name) as connection:
        answer = connection.ask(message(CALL, method, 9))
        assert (answer.name, answer.seqid, answer.kind) == (method, 9, EXCEPTION)
        assert answer.fields[2] == UNKNOWN_METHOD
        assert connection.ask(message(CALL, "ping", 10)).kind == REPLY


def test_store_methods_are_unknown_to_a_location_node(network):
    node = network.ours(program="location")
    values = arguments("storeserver", network.address)
    own = set(peer.Peer.thrift_services) | set(locator.Locator.thrift_services)
    with Connection(node.name) as connection:
        for service in PROGRAMS["storeserver"][1]:
            for method in set(service.thrift_services) - own:
                answer = connection.ask(call_message(service, method, values))
                assert (answer.kind, answer.fields[2]) == (EXCEPTION, UNKNOWN_METHOD), answer


def test_status_speaks_of_the_node_itself(network):
    node = network.ours()
    address, port = host_and_port(node.name)

    def check():
        with Connection(node.name) as connection:
            answer = connection.ask(message(CALL, "status"))
        status = decode(peer.Peer.status_result(), answer.bytes[len(message(REPLY, "status", 0, b"")) :]).success
        assert (status.me.location.address, status.me.location.port) == (address.encode(), port)
        assert (status.replicas, status.members, status.items) == (2, 1, 0)
        assert (status.me.state, status.settled, status.elsewhere) == (peer.State.FULL, True, 0)
        assert (status.full, status.missing) == (1, [])
        assert (status.deleted, status.connections) == (0, 1)
        assert abs(status.since / 1e6 - time.time()) < 60

    until("the node is full", check)
