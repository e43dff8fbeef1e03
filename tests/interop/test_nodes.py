"""The tests' own tools."""

import sys

from nodes import Node


def test_output_is_read_whole_while_it_is_written():
    program = "for number in range(20000): print(number, flush=True)"
    node = Node("a program", [sys.executable, "-c", program], original=False)
    while node.running():
        node.output()
    assert node.output().split() == [str(number) for number in range(20000)]
