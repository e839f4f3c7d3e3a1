"""Measures by how much quantizing a layer shifts the mean of its outputs. The graph is not edited here."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.calibration import Pass, watch
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.session import Array
from worker.engine.tensors.bias_correction import Summed, channel_totals
from worker.engine.torch_graph import TorchGraph

_OUTPUT_AXES: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
_MATRIX = 2


def find_bias_shifts(graph: Graph, layers: Sequence[QuantizedLayer], run: Pass) -> dict[str, Array]:
    """The mean of Wq q(x) - W x for each output channel [C], by layer name: what the layer's bias is too high by.

    `layers` are those of the float `graph`; q is what quantizes a layer's input, if anything does. Left out are layers
    other than Conv, ConvTranspose, Gemm and MatMul with a matrix on the right, those that never ran, and those whose
    input is not finite. Raises SlimlineError for a graph that torch cannot run.
    """
    shifts = [
        (source.name, _Shift(graph, each))
        for each in layers
        if _is_covered(each.layer) and (source := each.layer.node.inputs[0]) is not None and source.name
    ]
    watch(graph, [(name, shift.take) for name, shift in shifts], run)
    found = {shift.name: shift.mean() for _, shift in shifts}
    return {name: mean for name, mean in found.items() if mean is not None}


def _is_covered(layer: Layer) -> bool:
    traced = trace_weight(layer.node.inputs[1])
    if layer.op not in _OUTPUT_AXES or traced is None or attribute(layer.node, "transA", 0):
        return False
    return layer.op != "MatMul" or len(traced[1]) == _MATRIX


class _Shift:
    """Of one layer. Inputs are summed as long as they have one shape, so that memory does not grow with the samples."""

    def __init__(self, graph: Graph, quantized: QuantizedLayer) -> None:
        self._graph, self._quantized, self._layer = graph, quantized, quantized.layer
        self.name = self._layer.name
        self._inputs: tuple[Summed, Summed] | None = None
        self._total: torch.Tensor | None = None
        self._count = 0

    def take(self, values: torch.Tensor) -> None:
        """Add a batch of the layer's input."""
        if not values.numel():
            return
        quantize, is_image = self._quantized.quantize_input, self._layer.op.startswith("Conv")
        sum_up = Summed.over_samples if is_image else Summed.over_rows
        before = sum_up(values)
        after = sum_up(quantize(values)) if quantize else before
        if self._inputs is not None and self._inputs[0].values.shape == before.values.shape:
            before, after = self._inputs[0] + before, self._inputs[1] + after
        else:
            self._flush()
        self._inputs = before, after

    def mean(self) -> Array | None:
        """The mean shift of all that was taken, [C]; None where there is none."""
        self._flush()
        if self._total is None or not self._total.isfinite().all():
            return None
        return (self._total / self._count).cpu().numpy()

    def _flush(self) -> None:
        if self._inputs is None:
            return
        before, after = (each.values / each.count for each in self._inputs)
        new = self._quantized.weights[self._layer.weight.name or ""]
        outputs = self._apply(new - self._graph.array(self._layer.weight), before)
        if self._quantized.quantize_input:
            outputs = outputs + self._apply(new, after - before)
        total, places = channel_totals(outputs, _OUTPUT_AXES[self._layer.op])
        total, count = total * self._inputs[0].count, places * self._inputs[0].count
        self._total = total if self._total is None else self._total + total
        self._count += count
        self._inputs = None

    def _apply(self, weight: Array, inputs: torch.Tensor) -> torch.Tensor:
        alone = _alone(self._layer, weight, self._graph.opset).to(inputs.device)
        with torch.inference_mode():
            outputs: torch.Tensor = alone(inputs.float())[0]
        return outputs.double()


def _alone(layer: Layer, weight: Array, opset: int) -> TorchGraph:
    """The layer without its bias; `weight` is in the shape of its initializer."""
    traced = trace_weight(layer.node.inputs[1])
    array = weight if traced is None else weight.transpose(traced[1])
    tensor = ir.Tensor(np.ascontiguousarray(array, np.float32), name="weight")
    floats = ir.TensorType(ir.DataType.FLOAT)
    held = ir.Value(name="weight", type=floats, shape=tensor.shape.copy(), const_value=tensor)
    source, result = ir.Value(name="x", type=floats), ir.Value(name="y", type=floats)
    node = ir.Node(
        "", layer.op, [source, held], list(layer.node.attributes.values()), outputs=[result], name=layer.name
    )
    main = ir.Graph([source], [result], nodes=[node], initializers=[held], opset_imports={"": opset}, name="layer")
    return TorchGraph(Graph(ir.Model(main, ir_version=10)))
