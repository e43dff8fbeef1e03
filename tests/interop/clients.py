"""Clients of both libraries, as a user makes them."""

from contextlib import contextmanager

import generated  # noqa: F401  the path of the generated packages
import thriftpy2
from diststore import Store
from original import Store as Store2009
from original_peer import Protocol2009, to_name
from paths import IDL
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.transport import TSocket, TTransport
from thriftpy2.protocol import TBinaryProtocolFactory
from thriftpy2.rpc import make_client
from thriftpy2.transport import TBufferedTransportFactory, TFramedTransportFactory

SECONDS = 15

diststore_thrift = thriftpy2.load(str(IDL / "diststore.thrift"), module_name="diststore_thrift")


def host_and_port(name):
    host, _, port = name.rpartition(":")
    return host, int(port)


@contextmanager
def apache(name, service=Store, framed=False, strict=True, protocol=TBinaryProtocol):
    """A client of Apache Thrift's library. `strict`: which message header it writes."""
    socket = TSocket.TSocket(*host_and_port(name))
    socket.setTimeout(SECONDS * 1000)
    transport = (TTransport.TFramedTransport if framed else TTransport.TBufferedTransport)(socket)
    transport.open()
    try:
        yield service.Client(protocol(transport, strictRead=False, strictWrite=strict))
    finally:
        transport.close()


@contextmanager
def thriftpy(name, service=diststore_thrift.Store, framed=False, strict=True):
    """A client of thriftpy2."""
    client = make_client(service, *host_and_port(name), timeout=SECONDS * 1000,
                         proto_factory=TBinaryProtocolFactory(strict_read=False, strict_write=strict),
                         trans_factory=(TFramedTransportFactory if framed else TBufferedTransportFactory)())
    try:
        yield client
    finally:
        client.close()


def names_in_ring(name):
    """What the node at `name` answers to get_all, in order."""
    with apache(name) as node:
        return sorted(to_name(location) for location in node.get_all())


def client_2009(name):
    """For one call, as programs of 2009 made them: CALL, and where they expect no result the connection is closed with
    the answer unread. Keys and values are bytes."""
    return apache(name, Store2009, protocol=Protocol2009)


def put_2009(name, key, value):
    with client_2009(name) as node:
        node.put(key, value)


def get_2009(name, key):
    with client_2009(name) as node:
        return node.get(key)


def ping_2009(name):
    """Answered by an original once it has done all that reached it before."""
    with client_2009(name) as node:
        node.ping()
