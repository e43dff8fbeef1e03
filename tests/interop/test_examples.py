"""The clients in examples/python, which users start from."""

import sys

import pytest
import thriftpy2
from thrift.Thrift import TApplicationException
from thrift.transport.TTransport import TTransportException

from clients import apache
from paths import TOP

sys.path.insert(0, str(TOP / "examples" / "python"))

import thrift_client  # noqa: E402  needs the path
import thriftpy2_client  # noqa: E402

BROKEN = (TTransportException, *thriftpy2_client.BROKEN)
ANSWERED = (TApplicationException, thriftpy2.thrift.TApplicationException)
TOO_LARGE = "v" * ((32 << 20) + 1)

store_class = pytest.mark.parametrize("Store", [thrift_client.Store, thriftpy2_client.Store],
                                      ids=["thrift", "thriftpy2"])


@pytest.fixture
def two(network):
    first = network.ours()
    second = network.ours(first)
    network.await_agreement()
    return first, second


def kill(node):
    node.process.kill()
    node.process.wait()


@store_class
def test_put_and_get(two, Store):
    with Store(two[0].name) as store, Store(two[1].name) as other:
        store.put("a", "apple")
        assert other.get("a") == "apple"
        other.put("a", "")
        assert store.get("a") == ""


@store_class
def test_peers_are_tried_in_turn(two, Store):
    nobody = f"{two[0].name.rpartition(':')[0]}:9999"
    with Store(nobody, two[1].name) as store:
        store.put("a", "apple")
        assert store.get("a") == "apple"
    with Store(nobody, nobody) as store, pytest.raises(BROKEN):
        store.get("a")


@store_class
def test_a_get_goes_on_at_the_next_peer(two, Store):
    first, second = two
    with Store(first.name, second.name) as store:
        store.put("a", "apple")
        kill(first)
        assert store.get("a") == "apple"
        assert store.peers[0] == second.name


@store_class
def test_a_put_is_not_repeated(two, Store):
    first, second = two
    with Store(first.name, second.name) as store:
        store.put("a", "apple")
        kill(first)
        with pytest.raises(BROKEN):
            store.put("a", "pear")
        with apache(second.name) as other:
            assert other.get("a") == "apple"
        store.put("a", "plum")
        assert store.get("a") == "plum"


@store_class
def test_what_a_node_refuses_leaves_the_connection_as_it_is(two, Store):
    with Store(two[0].name) as store:
        assert store.get("a") == ""
        kept = store.client
        with pytest.raises(ANSWERED):
            store.put("a", TOO_LARGE)
        assert store.get("a") == ""
        assert store.client is kept
