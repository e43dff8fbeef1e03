"""The original's consistent-hash ring: which node owns a key.

Written from the description of the ring, not from the code under test, and held against tests/data/ring*.tsv by
test_ring.py. Keys are bytes; nodes are texts `address:port`.
"""

import bisect
import hashlib
import re

POINTS_PER_NODE = 30
SHIFTS = (0, 4, 8, 12)


def _head(data):
    return int.from_bytes(hashlib.md5(data).digest()[:4], "big")


def node_points(node):
    """The 120 points of a node, some beyond 32 bits."""
    heads = (_head(f"{node}-{j}".encode()) for j in range(POINTS_PER_NODE))
    return [head << shift for head in heads for shift in SHIFTS]


def key_hash(key):
    """A key's place; 32 hex digits are taken as a hash already made."""
    if re.fullmatch(rb"[0-9a-fA-F]{32}", key):
        return int(key[:8], 16)
    return _head(key)


class Ring:
    """A set of nodes; `add` and `remove` of what is or is not there do nothing."""

    def __init__(self, nodes=()):
        self.nodes = set()
        self._points = []
        for node in nodes:
            self.add(node)

    def add(self, node):
        if node not in self.nodes:
            self.nodes.add(node)
            self._rebuild()

    def remove(self, node):
        if node in self.nodes:
            self.nodes.remove(node)
            self._rebuild()

    def _rebuild(self):
        self._points = sorted((point, node) for node in self.nodes for point in node_points(node))

    def points(self):
        """All points in order, each with its node."""
        return list(self._points)

    def owner(self, key):
        """The node of the first point greater than the key's hash; None in an empty ring."""
        if not self._points:
            return None
        start = bisect.bisect_right(self._points, key_hash(key), key=lambda entry: entry[0])
        return self._points[start % len(self._points)][1]
