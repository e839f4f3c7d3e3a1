"""Shapes as values: Python numbers, so reading them waits for no device. What uses shapes is in the other families."""

import math
from typing import Any

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator


@operator("Shape", gives_host=True)
def shape(node: Node) -> Run:
    """The sizes of dimensions `start` to `end`."""
    wanted = slice(node.get("start", 0), node.get("end"))
    return lambda x: list(x.shape[wanted])


@host_rule("Shape")
def shape_host(node: Node) -> Run:
    """A vector has one size, a number none."""
    wanted = slice(node.get("start", 0), node.get("end"))
    return lambda numbers: _sizes(numbers)[wanted]


@operator("Size", gives_host=True)
def size(_: Node) -> Run:
    """The number of elements."""
    return lambda x: x.numel()


@host_rule("Size")
def size_host(_: Node) -> Run:
    """The number of elements."""
    return lambda numbers: math.prod(_sizes(numbers))


def _sizes(numbers: Any) -> list[int]:
    return [len(numbers)] if isinstance(numbers, list) else []
