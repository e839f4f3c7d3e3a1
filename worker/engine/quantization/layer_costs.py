"""What each layer of a graph takes: stored bytes, and time by ONNX Runtime's own profile. Nothing is chosen here."""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.graph import Graph, Layer, shapes
from worker.engine.graph.cost import macs_per_node
from worker.engine.graph.layers import trace_weight
from worker.engine.measure.kernel_times import Kernel
from worker.engine.measure.kernels import FLOAT_KERNELS, INTEGER_KERNELS

_ADDED = re.compile(r"^fused |_token_\d+$")
"""What ONNX Runtime puts around the name of a node that it fuses or moves to another layout."""
_BLOCKED = "_nchwc"
"""Ends the name of a convolution in blocked layout, which is called by its output, or that of what it absorbed."""
_ABSORBED = frozenset({"Add", "Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Sum", "Tanh"})
_PRODUCTS = INTEGER_KERNELS | FLOAT_KERNELS

Unit = frozenset[str]
"""Names of layers that share a weight, so that one choice of bits is made for all; mostly one layer."""


def find_units(layers: Iterable[Layer]) -> list[Unit]:
    """The units of `layers`, in order."""
    names: dict[ir.Value, list[str]] = defaultdict(list)
    for layer in layers:
        names[layer.weight].append(layer.node.name or "")
    return [frozenset(each) for each in names.values()]


def stored_bytes(graph: Graph, unit: Unit) -> int:
    """Bytes of weights, scales, zero points and biases that nodes of `unit` read and no others do."""
    readers = {node for node in graph.nodes() if node.name in unit}
    readers |= {made for node in readers for value in node.inputs[1:] for made in _makers(value)}
    held = {value for node in readers for value in node.inputs if value is not None and value.is_initializer()}
    return sum(
        value.const_value.nbytes
        for value in held
        if value.const_value is not None and all(use.node in readers for use in value.uses())
    )


def _makers(value: ir.Value | None) -> Iterator[ir.Node]:
    """The nodes that make a weight of constants."""
    while trace_weight(value) is not None and value is not None and (node := value.producer()) is not None:
        yield node
        value = node.inputs[0]


def find_links(graph: Graph, units: Sequence[Unit]) -> dict[tuple[int, int], int]:
    """Pairs of units of which one reads what the other gives, no other layer between, with elements of what is read.

    A free dimension counts as 1.
    """
    places = {name: index for index, unit in enumerate(units) for name in unit}
    found = dict[tuple[int, int], int]()
    for node in graph.nodes():
        if node.name in places:
            for source in _layers_behind(node.inputs[0], places):
                pair = places[source], places[node.name]
                if pair[0] != pair[1]:
                    found[min(pair), max(pair)] = _elements(node.inputs[0])
    return found


def _layers_behind(value: ir.Value | None, places: Mapping[str, int]) -> Iterator[str]:
    waiting = [value]
    seen = set[ir.Node]()
    for each in waiting:
        node = None if each is None else each.producer()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (name := node.name or "") in places:
            yield name
        else:
            waiting += node.inputs


def _elements(value: ir.Value | None) -> int:
    dims = shapes.dims(value) if value is not None else None
    return math.prod(dim for dim in dims or () if isinstance(dim, int))


@dataclass(frozen=True)
class Times:
    """Microseconds of each unit in one call, and of all the rest."""

    units: list[float]
    rest: float


def unit_times(graph: Graph, units: Sequence[Unit], kernels: Sequence[Kernel]) -> Times:
    """What `kernels`, profiled of `graph`, take for each of `units`.

    Layers whose kernel goes by a name that tells nothing share the time of such kernels by their products.
    """
    owners = _Owners(graph, {name for unit in units for name in unit}, [each.node for each in kernels])
    found, unknown = dict[str, float](), 0.0
    for kernel in kernels:
        owner = owners.find(kernel.node)
        if owner is not None:
            found[owner] = found.get(owner, 0.0) + kernel.microseconds
        elif kernel.operator in _PRODUCTS and not owners.is_known(kernel.node):
            unknown += kernel.microseconds
    found |= _by_products(graph, owners.layers - found.keys(), unknown)
    times = [sum(found.get(name, 0.0) for name in unit) for unit in units]
    return Times(times, sum(each.microseconds for each in kernels) - sum(times))


def _by_products(graph: Graph, layers: Collection[str], time: float) -> dict[str, float]:
    products = {name: count or 0 for name, count in macs_per_node(graph).items() if name in layers}
    total = sum(products.values())
    return {name: time * count / total for name, count in products.items()} if total else {}


class _Owners:
    """Which of `layers` a kernel of `graph` works for. `kernels` are the names of all."""

    def __init__(self, graph: Graph, layers: Collection[str], kernels: Sequence[str]) -> None:
        self.layers = frozenset(layers)
        self._nodes: Mapping[str, ir.Node] = {node.name or "": node for node in graph.nodes()}
        self._values = {value.name or "": value for node in graph.nodes() for value in node.outputs}
        self._served = {
            made.name or "": name
            for name in self.layers
            for value in self._nodes[name].inputs[1:]
            for made in _makers(value)
        }
        names = (_ADDED.sub("", name) for name in kernels)
        self._blocked = {name.removesuffix(_BLOCKED) for name in names if name.endswith(_BLOCKED)}

    def find(self, kernel: str) -> str | None:
        """The layer, or None where it works for none of them."""
        name = _ADDED.sub("", kernel)
        if name.endswith(_BLOCKED):
            return self._behind(self._values.get(name.removesuffix(_BLOCKED)))
        node = self._node(name)
        return None if node is None else self._served.get(node, node if node in self.layers else None)

    def is_known(self, kernel: str) -> bool:
        """Whether it has the name of a node of the graph."""
        return self._node(_ADDED.sub("", kernel)) is not None

    def _node(self, name: str) -> str | None:
        """The node that a kernel was made from: a fusion puts its own name behind a slash."""
        while name not in self._nodes:
            name, slash, _ = name.rpartition("/")
            if not slash:
                return None
        return name

    def _behind(self, value: ir.Value | None) -> str | None:
        """The layer whose result `value` is, behind what it absorbed; other kernels' results are not looked behind."""
        waiting = [value]
        for each in waiting:
            node = None if each is None else each.producer()
            if node is None or (each is not value and each is not None and each.name in self._blocked):
                continue
            if node.name in self.layers:
                return node.name
            waiting += list(node.inputs) if node.op_type in _ABSORBED else []
        return None
