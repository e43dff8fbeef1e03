"""Our client programs with nodes of either kind. Originals never answer a put, and serve one connection at a time."""

import subprocess

import pytest

from nodes import binary

NATO = ("Alpha Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliet Kilo Lima Mike November Oscar Papa Quebec "
        "Romeo Sierra Tango Uniform Victor Whiskey X-ray Yankee Zulu").split()
KINDS = pytest.mark.parametrize("kind", ["ours", "original", "mixed"])


def start(network, kind):
    first = network.ours() if kind == "ours" else network.original()
    second = network.original(first) if kind == "original" else network.ours(first)
    network.await_agreement()
    return first, second


def run(program, node, *arguments):
    return subprocess.run([binary(program), "-h", node.name, *arguments], capture_output=True, timeout=30)


@KINDS
def test_put_and_get(network, kind):
    first, second = start(network, kind)
    for node, value in [(first, b"apple"), (second, b"\xff not text")]:
        done = run("storeput", node, b"a", value)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        done = run("storeget", node, b"a")
        assert (done.returncode, done.stdout, done.stderr) == (0, value + b"\n", b"")
    done = run("storeget", first, b"none")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"\n", b"")


@KINDS
def test_primer_and_test(network, kind):
    first, second = start(network, kind)
    assert run("storeprimer", first).returncode == 0
    done = run("storetest", second)
    assert done.returncode == 0, done
    assert done.stdout.decode().split() == NATO
