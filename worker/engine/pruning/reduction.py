"""Along which axis of a weight n:m groups lie, and where they fit. No numbers are read here."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.weight_matrix import shape_of
from worker.engine.wording import counted

_CHANNELS: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 0}
"""The axis of input channels in a convolution's weight: kernel positions are summed over too, but not grouped."""
_WEIGHT_INPUT = 1
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True)
class Reduction:
    """The axis of a weight along which `layer` sums `length` products for each output."""

    weight: ir.Value
    layer: Layer
    axis: int
    length: int

    @property
    def told(self) -> str:
        """The length with its unit."""
        return counted(self.length, "input channel" if self.layer.op in _CHANNELS else "input")


def find_reductions(layer: Layer) -> list[Reduction]:
    """One for each weight of `layer`, in order."""
    return [_find_reduction(layer, weight) for weight in layer.weights]


def obstacle_to_groups(layer: Layer, m: int) -> str | None:
    """Why no weight of `layer` can be cut in groups of `m`."""
    reductions = find_reductions(layer)
    if any(each.length % m == 0 for each in reductions):
        return None
    return f"it sums over {' and '.join(dict.fromkeys(each.told for each in reductions))}, no multiple of m={m}"


def _find_reduction(layer: Layer, weight: ir.Value) -> Reduction:
    axis = _find_axis(layer)
    groups = int(attribute(layer.node, "group", 1)) if layer.op == "ConvTranspose" else 1
    return Reduction(weight, layer, axis, shape_of(weight)[axis] // groups)


def _find_axis(layer: Layer) -> int:
    if layer.op not in _CHANNELS:
        return layer.reduction_axes[0]
    traced = trace_weight(layer.node.inputs[_WEIGHT_INPUT])
    return traced[1][_CHANNELS[layer.op]] if traced else _CHANNELS[layer.op]
