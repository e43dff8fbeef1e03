"""Bytes on the wire: the vectors, and a connection that sends bytes as they are.

Answers are taken apart by Apache Thrift's protocol reader, with no IDL, so that nothing is read into them.
"""

import json
import socket
import struct

from clients import host_and_port
from paths import DATA
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.Thrift import TMessageType, TType
from thrift.transport.TTransport import TTransportBase

SECONDS = 15
CALL, REPLY, EXCEPTION, ONEWAY = TMessageType.CALL, TMessageType.REPLY, TMessageType.EXCEPTION, TMessageType.ONEWAY
UNKNOWN_METHOD = 1


class Vector:
    """A line of wire.jsonl."""

    def __init__(self, line):
        fields = json.loads(line)
        self.id = fields["id"]
        self.request = fields["direction"] == "request"
        self.bytes = bytes.fromhex(fields["hex"])
        self.oneway = fields["decoded"]["type"] == "oneway"
        self.name = fields["decoded"]["name"]
        self.seqid = fields["decoded"]["seqid"]
        self.fields = fields["decoded"]["fields"]

    def argument(self, number):
        """The last one given, as readers do; None where there is none of the right type."""
        values = [field["value"] for field in self.fields if field["id"] == number and field["type"] != "i32"]
        return values[-1] if values else None


VECTORS = [Vector(line) for line in (DATA / "wire.jsonl").read_text(encoding="utf-8").splitlines()]
REQUESTS = [vector for vector in VECTORS if vector.request]


def vector_bytes(identity, seqid=0):
    """A vector's message, under another sequence number."""
    vector = next(vector for vector in VECTORS if vector.id == identity)
    at = 8 + len(vector.name)
    return vector.bytes[:at] + struct.pack(">i", seqid) + vector.bytes[at + 4 :]


def message(kind, name, seqid=0, fields=b"\0"):
    """A message with the strict header; without `fields` it has none."""
    return struct.pack(">BBBBi", 0x80, 1, 0, kind, len(name)) + name.encode() + struct.pack(">i", seqid) + fields


def read_value(protocol, kind):
    if kind == TType.STRUCT:
        return read_struct(protocol)
    if kind == TType.LIST:
        element, count = protocol.readListBegin()
        return [read_value(protocol, element) for _ in range(count)]
    return {TType.BOOL: protocol.readBool, TType.BYTE: protocol.readByte, TType.I16: protocol.readI16,
            TType.I32: protocol.readI32, TType.I64: protocol.readI64, TType.STRING: protocol.readBinary}[kind]()


def read_struct(protocol):
    """Values by field number."""
    fields = {}
    while True:
        _, kind, number = protocol.readFieldBegin()
        if kind == TType.STOP:
            return fields
        fields[number] = read_value(protocol, kind)


class Answer:
    """A message that came back."""

    def __init__(self, protocol, recorded):
        self.name, self.kind, self.seqid = protocol.readMessageBegin()
        self.fields = read_struct(protocol)
        self.bytes = bytes(recorded)

    def __repr__(self):
        return f"Answer({self.name!r}, kind {self.kind}, seqid {self.seqid}, {self.fields})"


class Connection(TTransportBase):
    """A TCP connection for bytes. `framed` frames what is sent, and expects it of what comes."""

    def __init__(self, name, framed=False):
        self.socket = socket.create_connection(host_and_port(name), timeout=SECONDS)
        self.framed = framed
        self._recorded = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def read(self, size):
        data = self.socket.recv(size)
        if not data and size:
            raise EOFError("the node closed the connection")
        self._recorded += data
        return data

    def send(self, data):
        self.socket.sendall(struct.pack(">i", len(data)) + data if self.framed else data)

    def receive(self):
        length = struct.unpack(">i", self.readAll(4))[0] if self.framed else None
        self._recorded.clear()
        answer = Answer(TBinaryProtocol(self), self._recorded)
        assert length in (None, len(answer.bytes)), "the frame is as long as its message"
        return answer

    def ask(self, data):
        self.send(data)
        return self.receive()

    def closed_by_node(self):
        """True once the node ends the connection; what it says before is thrown away."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True
