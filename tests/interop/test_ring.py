"""The test peer's ring against the vectors: only then is a mixed ring a proof of anything."""

import csv

import pytest

from paths import DATA
from ring import Ring, key_hash


def rows(name):
    with open(DATA / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.fixture(scope="module")
def sets():
    """Node lists by the name of their set."""
    nodes = {}
    for row in rows("ring_sets.tsv"):
        nodes.setdefault(row["set"], []).append(row["node"])
    return nodes


def test_owner_of_every_key_in_every_set(sets):
    table = rows("ring.tsv")
    for row in table:
        assert key_hash(bytes.fromhex(row["key_hex"])) == int(row["hash"])
    for name, nodes in sets.items():
        ring = Ring(nodes)
        for row in table:
            assert ring.owner(bytes.fromhex(row["key_hex"])) == nodes[int(row[name])], (name, row)


def test_every_point(sets):
    expected = {}
    for row in rows("ring_points.tsv"):
        expected.setdefault(row["set"], []).append((int(row["point"]), sets[row["set"]][int(row["index"])]))
    for name, points in expected.items():
        assert Ring(sets[name]).points() == points


def test_empty_ring_has_no_owner():
    assert Ring().owner(b"a") is None
