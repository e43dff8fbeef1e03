"""A client of the store, with Apache's thrift library and the code that its compiler makes of our IDL:

    mkdir -p generated
    thrift -r --gen py -out generated idl/diststore.thrift      # and `generated` on PYTHONPATH

    with Store("127.0.0.1:9900", "127.0.0.1:9901") as store:
        store.put("a", "apple")
        print(store.get("a"))

It does as thriftpy2_client.py: the peers are tried in turn, a get is made once more if its connection breaks, and a put
isn't. A value that is no UTF-8 raises UnicodeDecodeError; idl/diststore.thrift says what to do about it.
"""

from collections import deque

from diststore.Store import Client
from thrift.protocol.TBinaryProtocol import TBinaryProtocol
from thrift.Thrift import TApplicationException
from thrift.transport.TSocket import TSocket
from thrift.transport.TTransport import TBufferedTransport, TTransportException

MILLISECONDS = 10_000  # A node answers within 12 ticks, which are 6 s unless `--tick` says otherwise.


class Store:
    def __init__(self, *peers):
        self.peers, self.client = deque(peers), None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def get(self, key):
        """The value; "" if there is none."""
        try:
            return self.call("get", key)
        except TTransportException:
            return self.call("get", key)

    def put(self, key, value):
        """Sets the value; "" deletes the key."""
        self.call("put", key, value)

    def call(self, method, *arguments):
        self.client = self.client or self.connect()
        try:
            return getattr(self.client, method)(*arguments)
        except TApplicationException:
            raise  # An answer: the connection is as good as before.
        except BaseException:
            self.close()  # The answer may still come: nobody must take it for another one.
            self.peers.rotate(-1)
            raise

    def connect(self):
        for left in reversed(range(len(self.peers))):
            host, _, port = self.peers[0].rpartition(":")
            self.socket = TSocket(host, int(port))
            self.socket.setTimeout(MILLISECONDS)
            try:
                self.socket.open()
                return Client(TBinaryProtocol(TBufferedTransport(self.socket)))
            except TTransportException:
                self.peers.rotate(-1)
                if not left:
                    raise

    def close(self):
        if self.client:
            self.socket.close()
        self.client = None
