"""Today's Thrift libraries, which we did not write, with our IDL: every method, both transports, both headers."""

import sys
import threading

import pytest
import thriftpy2
from thrift.Thrift import TApplicationException

import locator
from clients import apache, thriftpy
from generated import compile_idl
from locator import Locator
from nodes import until
from paths import IDL, TOP
from wire import UNKNOWN_METHOD

PROGRAMS = ["storeserver", "location"]
LIBRARIES = pytest.mark.parametrize("library", [apache, thriftpy], ids=["thrift", "thriftpy2"])
THREADS = 8
ROUNDS = 100

locator_thrift = thriftpy2.load(str(IDL / "locator.thrift"), module_name="locator_thrift")
LOCATION = {apache: locator.ttypes.Location, thriftpy: locator_thrift.Location}
LOCATOR = {apache: Locator, thriftpy: locator_thrift.Locator}


def ends(location):
    return location.address, location.port


@LIBRARIES
@pytest.mark.parametrize("framed", [False, True], ids=["plain", "framed"])
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "old"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_method(network, library, framed, strict, program):
    node = network.ours(program=program)
    other = LOCATION[library](network.address, 9999)
    own = (network.address, 9900)
    service = {"storeserver": {}, "location": {"service": LOCATOR[library]}}[program]
    with library(node.name, framed=framed, strict=strict, **service) as client:
        client.ping()
        store = ["diststore.Store"] if program == "storeserver" else []
        assert client.service_types() == ["locator.Base", "locator.Locator", *store, "thrifty.Peer"]
        assert client.service_type() == (store or ["locator.Locator"])[0]
        client.debug()
        assert [ends(location) for location in client.get_all()] == [own]
        assert ends(client.get_node("a")) == own
        client.add(other, [other])
        client.remove(other, [other])
        client.join(other)
        client.remove(other, [])

        def check_alone():
            assert [ends(location) for location in client.get_all()] == [own]

        until("the node is alone again", check_alone)
        if store:
            for key, value in [("a", "apple"), ("", "x"), ("clé-鍵-🔑", "clé-鍵-🔑!"), ("k" * 300, "v" * 100_000)]:
                client.put(key, value)
                assert client.get(key) == value
                client.put(key, "")
                assert client.get(key) == ""
        client.die()
    node.await_end()


@LIBRARIES
def test_put_on_a_location_node_is_an_unknown_method(network, library):
    with library(network.ours(program="location").name) as client:
        with pytest.raises((TApplicationException, thriftpy2.thrift.TApplicationException)) as raised:
            client.put("a", "apple")
        assert raised.value.type == UNKNOWN_METHOD
        client.ping()


@LIBRARIES
def test_threads_with_a_client_each(network, library):
    """They put under their own keys and under one that all share."""
    first = network.ours()
    second = network.ours(first)
    network.await_agreement()
    failures = []

    def work(thread):
        try:
            with library([first, second][thread % 2].name) as client:
                for number in range(ROUNDS):
                    client.put(f"{thread}-{number}", f"{number}")
                    client.put("shared", f"{thread}")
                    assert client.get(f"{thread}-{number}") == f"{number}"
                    assert client.get("shared") in map(str, range(THREADS))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@LIBRARIES
def test_clients_of_three_nodes_while_one_joins_and_one_leaves(network, library):
    """Each client reads what it has just put."""
    first = network.ours()
    leaver, third = network.ours(first), network.ours(first)
    network.await_agreement()
    over = threading.Event()
    rounds, failures = [0] * THREADS, []

    def work(thread):
        try:
            with library([first, third][thread % 2].name) as client:
                while not over.is_set():
                    key, value = f"{thread}-{rounds[thread] % 50}", f"{rounds[thread]}"
                    client.put(key, value)
                    assert client.get(key) == value
                    rounds[thread] += 1
        except Exception as error:
            failures.append(error)

    def await_rounds(count):
        wanted = [done + count for done in rounds]

        def check():
            assert failures or all(done >= enough for done, enough in zip(rounds, wanted))

        until("each client goes on", check)

    threads = [threading.Thread(target=work, args=[thread]) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        await_rounds(50)
        network.ours(first)
        network.await_agreement()
        await_rounds(10)
        leaver.interrupt()
        network.await_agreement()
        await_rounds(50)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_bytes_that_are_no_text(network, tmp_path, monkeypatch):
    """As the IDL says: thriftpy2 hands over bytes, Apache Thrift's reader raises unless the IDL has binary."""
    node = network.ours()
    with thriftpy(node.name) as client:
        client.put(b"\xff\xfe", b"\x00\x80")
        assert client.get(b"\xff\xfe") == b"\x00\x80"
        client.put("text", b"\x00\x80")
    with apache(node.name) as client:
        with pytest.raises(UnicodeDecodeError):
            client.get("text")

    (tmp_path / "locator.thrift").write_text((IDL / "locator.thrift").read_text())
    text = (IDL / "diststore.thrift").read_text()
    text = text.replace("string ", "binary ").replace("* diststore", "py bytestore")
    (tmp_path / "bytestore.thrift").write_text(text)
    compile_idl(tmp_path / "bytestore.thrift", "py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    from bytestore import Store
    with apache(node.name, Store) as client:
        assert client.get(b"\xff\xfe") == b"\x00\x80"
    del sys.modules["bytestore"]


def test_python_of_the_readme(network, monkeypatch, capsys):
    network.ours()
    monkeypatch.chdir(TOP)
    lines = (TOP / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert lines.count("\n") == 5
    exec(lines.replace("127.0.0.1", network.address), {})
    assert capsys.readouterr().out == "apple\n"
