"""A client of the store, with thriftpy2.

    with Store("127.0.0.1:9900", "127.0.0.1:9901") as store:
        store.put("a", "apple")
        print(store.get("a"))

Any node answers for any key, so the peers are tried in turn. If a connection breaks, a get is made once more, at the
next peer. A put isn't, as it may have taken effect: it raises, and the caller decides. What a node itself refuses is a
TApplicationException. One thread at a time may use a Store.
"""

from collections import deque
from pathlib import Path

import thriftpy2
from thriftpy2.rpc import make_client
from thriftpy2.thrift import TApplicationException
from thriftpy2.transport import TTransportException

IDL = Path(__file__).resolve().parents[2] / "idl" / "diststore.thrift"
MILLISECONDS = 10_000  # A node answers within 12 ticks, which are 6 s unless `--tick` says otherwise.
BROKEN = (TTransportException, OSError)

diststore = thriftpy2.load(str(IDL), module_name="diststore_thrift")


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
        except BROKEN:
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
            try:
                return make_client(diststore.Store, host, int(port), timeout=MILLISECONDS)
            except BROKEN:
                self.peers.rotate(-1)
                if not left:
                    raise

    def close(self):
        if self.client:
            self.client.close()
        self.client = None
