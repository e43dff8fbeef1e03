"""A node that behaves as the original's final version did, on Apache Thrift's Python library.

    python tests/interop/original_peer.py -p PORT [-h PEER] [-a ADDRESS] [--locator]

PEER is `host:port`. Without it the node starts a network of its own; the original would look for a peer on localhost
first. -a stands for what the own host's name resolved to. A store node unless --locator is given.

As the original: one thread, one connection at a time until its client closes it, no time limits; a connection for
each call, closed at once; one-way calls sent with the message type CALL and their answers never read; news of nodes
passed on in a chain; an unreachable node forgotten here and nobody told; a missing key read as "" and stored so; keys
handed over on SIGINT or `die` with `remove`, `ping` and `put`; it joins first and listens afterwards. Written from a
description of its behaviour; no file of the original was used.
"""

import argparse
import functools
import signal
import sys
import time
from collections import defaultdict
from contextlib import contextmanager

import generated  # noqa: F401  the path of `original`
from original import Locator, Store
from original.ttypes import Location
from ring import Ring
from thrift.protocol.TBinaryProtocol import TBinaryProtocol, TBinaryProtocolFactory
from thrift.server.TServer import TSimpleServer
from thrift.Thrift import TMessageType
from thrift.transport import TSocket
from thrift.transport.TTransport import TBufferedTransport, TBufferedTransportFactory, TTransportException

PING_TRIES = 10
PAUSE_BEFORE_PUSH = 0.01


class NodeNotFound(Exception):
    """Nobody listens at a location: the only trouble that the original knew what to do about."""


class Protocol2009(TBinaryProtocol):
    """Generated code of 2009 sent CALL for one-way methods as well."""

    def writeMessageBegin(self, name, kind, seqid):
        super().writeMessageBegin(name, TMessageType.CALL if kind == TMessageType.ONEWAY else kind, seqid)


def to_name(location):
    return f"{location.address}:{location.port}"


def to_location(name):
    address, _, port = name.rpartition(":")
    return Location(address, int(port))


@contextmanager
def calling(service, name):
    """A client of `service` at the node `name`, on a connection for one call."""
    location = to_location(name)
    socket = TSocket.TSocket(location.address, location.port)
    transport = TBufferedTransport(socket)
    try:
        transport.open()
    except TTransportException as error:
        raise NodeNotFound(name) from error
    try:
        yield service.Client(Protocol2009(transport))
    finally:
        transport.close()


def fatal_to_connection(method):
    """Whatever goes wrong in a handler is logged and ends the connection, without an answer. Code generated today would
    answer with an exception, but lets this class of error through."""

    @functools.wraps(method)
    def guarded(self, *arguments):
        try:
            return method(self, *arguments)
        except Exception as error:
            print(f"{method.__name__}: {error!r}", file=sys.stderr, flush=True)
            raise TTransportException(message=str(error)) from error

    return guarded


def log(text):
    print(text, flush=True)


class LocatorNode:
    """A `locator.Locator`: its members, and the chain by which news of them travels."""

    service = Locator
    types = ["locator.Base", "locator.Locator"]

    def __init__(self, name):
        self.name = name
        self.ring = Ring([name])

    def ping(self):
        log("ping()")

    def service_type(self):
        return self.types[-1]

    def service_types(self):
        return self.types

    def debug(self):
        log(f"nodes: {sorted(self.ring.nodes)}")

    def die(self):
        raise KeyboardInterrupt

    @fatal_to_connection
    def get_all(self):
        return [to_location(name) for name in self.ring.nodes]

    @fatal_to_connection
    def get_node(self, key):
        owner = self.ring.owner(key)
        return to_location(owner) if owner else Location("", 0)

    @fatal_to_connection
    def join(self, location):
        self.handle_add(location, [to_location(self.name)])
        for attempt in range(PING_TRIES):
            try:
                with calling(self.service, to_name(location)) as newcomer:
                    newcomer.ping()
                return
            except NodeNotFound:
                time.sleep(0.01 * 2**attempt)
        raise NodeNotFound(to_name(location))

    @fatal_to_connection
    def add(self, location, authorities):
        self.handle_add(location, authorities)

    @fatal_to_connection
    def remove(self, location, authorities):
        self.handle_remove(location, authorities)

    def handle_add(self, location, authorities):
        self.pass_on("add", location, authorities + [to_location(self.name)])
        self.ring.add(to_name(location))
        log(f"added {to_name(location)}")

    def handle_remove(self, location, authorities):
        self.ring.remove(to_name(location))
        log(f"removed {to_name(location)}")
        self.pass_on("remove", location, authorities + [to_location(self.name)])

    def pass_on(self, method, location, authorities):
        """To the first node, in name order, that can be reached and is no authority."""
        for target in sorted(self.ring.nodes - {to_name(authority) for authority in authorities}):
            try:
                with calling(self.service, target) as node:
                    getattr(node, method)(location, authorities)
                return
            except NodeNotFound:
                self.forget(target)

    def forget(self, name):
        """Takes an unreachable node out of this ring; with everybody as authority, the news goes nowhere."""
        self.handle_remove(to_location(name), self.get_all())

    def enter(self, peer):
        """Becomes a member of the peer's network. Nobody can reach this node yet."""
        with calling(self.service, peer) as node:
            for location in node.get_all():
                self.ring.add(to_name(location))
        with calling(self.service, peer) as node:
            node.join(to_location(self.name))

    def leave(self):
        self.ring.remove(self.name)
        self.pass_on("remove", to_location(self.name), [to_location(self.name)])


class StoreNode(LocatorNode):
    """A `diststore.Store`: the keys that this ring says are its own, and any others that were put here."""

    service = Store
    types = LocatorNode.types + ["diststore.Store"]

    def __init__(self, name):
        super().__init__(name)
        self.store = defaultdict(bytes)

    def ping(self):
        pass

    @fatal_to_connection
    def get(self, key):
        owner = self.ring.owner(key)
        if owner == self.name:
            return self.store[key]
        try:
            with calling(self.service, owner) as node:
                return node.get(key)
        except NodeNotFound:
            self.forget(owner)
            return b""

    @fatal_to_connection
    def put(self, key, value):
        owner = self.ring.owner(key)
        if owner == self.name:
            log(f"received {key!r}")
            self.store[key] = value
            return
        try:
            with calling(self.service, owner) as node:
                node.put(key, value)
        except NodeNotFound:
            self.forget(owner)

    def handle_add(self, location, authorities):
        super().handle_add(location, authorities)
        time.sleep(PAUSE_BEFORE_PUSH)
        newcomer = to_name(location)
        for key in [key for key in self.store if self.ring.owner(key) == newcomer]:
            with calling(self.service, newcomer) as node:
                node.put(key, self.store[key])
            del self.store[key]
            log(f"dropped {key!r}")

    def leave(self):
        self.ring.remove(self.name)
        me = to_location(self.name)
        told = set()
        for key, value in self.store.items():
            if not value or not self.ring.nodes:
                continue
            owner = self.ring.owner(key)
            try:
                if owner not in told:
                    with calling(self.service, owner) as node:
                        node.remove(me, [me])
                    told.add(owner)
                with calling(self.service, owner) as node:
                    node.ping()
                with calling(self.service, owner) as node:
                    node.put(key, value)
            except NodeNotFound:
                log(f"{owner} not found")
        if not told:
            self.pass_on("remove", me, [me])


def answers(name):
    try:
        with calling(Locator, name) as node:
            node.ping()
        return True
    except NodeNotFound:
        return False


def main():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", "--host", dest="peer")
    parser.add_argument("-p", "--port", type=int, required=True)
    parser.add_argument("-a", "--address", default="127.0.0.1")
    parser.add_argument("--locator", action="store_true")
    options = parser.parse_args()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    name = f"{options.address}:{options.port}"
    node = LocatorNode(name) if options.locator else StoreNode(name)
    if answers(name):
        sys.exit("Our location responded")
    if options.peer:
        log("Joining the network...")
        node.enter(options.peer)
    else:
        log("Initiating the network...")
    server = TSimpleServer(node.service.Processor(node), TSocket.TServerSocket(options.address, options.port),
                           TBufferedTransportFactory(), TBinaryProtocolFactory())
    log(f"Starting the server at {name}...")
    try:
        server.serve()
    except KeyboardInterrupt:
        node.leave()
        sys.exit(1)


if __name__ == "__main__":
    main()
