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


def test_what_originals_cannot_list_is_said(network):
    """Keys of originals alone are missing: what is there is printed, and a line says so."""
    first, second = start(network, "mixed")
    assert run("storeprimer", second).returncode == 0
    for program, least in [("storekeys", 0), ("storedump", 1)]:
        done = run(program, second)
        assert done.returncode == 2
        assert done.stderr.startswith(f"{program}: {second.name}: nodes of the original are members".encode())
        # Ours keeps a copy of each put that came in here.
        assert len(done.stdout.splitlines()) == 26 + least
    done = run("storekeys", first)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == f"storekeys: {first.name}: a node of the original can't list keys\n".encode()
    done = run("storedel", second, b"A")
    assert done.returncode == 2 and b"a node of the original is a member" in done.stderr
    assert run("storeget", second, b"A").stdout == b"Alpha\n"
    dump = run("storedump", second).stdout + b"end 0\n"
    done = subprocess.run([binary("storeload"), "-h", first.name], input=dump, capture_output=True, timeout=30)
    assert done.returncode == 2 and b"standard input: line " in done.stderr
