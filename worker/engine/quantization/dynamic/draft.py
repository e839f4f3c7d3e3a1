"""A graph whose layers are being replaced by integer products: what the rewrites of all operators share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor, owner_of
from worker.engine.quantization.dynamic.operand import Operand
from worker.engine.quantization.dynamic.weights import IntegerWeights
from worker.engine.session import Array


@dataclass(frozen=True)
class Product:
    """An integer product: its weight, the scales of that in the shape of the result, and what the result is called."""

    operand: Operand
    scale: Array
    result: str
    operator: str = "MatMulInteger"
    attributes: Sequence[ir.Attr] = ()
    bias: ir.Value | None = None


class Draft:
    """Edits `graph` in place; `operands` are those of all layers that will be replaced."""

    def __init__(self, graph: Graph, operands: Iterable[Operand], *, per_channel: bool) -> None:
        self.graph, self.editor = graph, Editor(graph)
        self.weights = IntegerWeights(graph, self.editor, operands, per_channel=per_channel)
        self._inputs: dict[tuple[int, ir.Value], Sequence[ir.Value]] = {}
        self._constants: dict[tuple[int, str, tuple[int, ...], bytes], ir.Value] = {}

    def quantized(self, source: ir.Value, owner: ir.Graph) -> tuple[list[ir.Node], Sequence[ir.Value]]:
        """Codes, scale and zero point of `source`, and the node that makes them unless `owner` has it already."""
        key = (id(owner), source)
        if key in self._inputs:
            return [], self._inputs[key]
        made = self.quantizer(source)
        self._inputs[key] = made.outputs
        return [made], made.outputs

    def quantizer(self, source: ir.Value) -> ir.Node:
        """A new DynamicQuantizeLinear: codes, scale and zero point of `source`, found at run time."""
        names = [f"{source.name}_{part}" for part in ("quantized", "scale", "zero_point")]
        return self.editor.node("DynamicQuantizeLinear", [source], names)

    def product(self, quantized: Sequence[ir.Value], spec: Product) -> list[ir.Node]:
        """The product, Cast, Mul by both scales and Add of the bias: the pattern that ONNX Runtime makes one kernel.

        The last node's output is the result.
        """
        editor, name = self.editor, spec.result
        values, input_scale, input_zero = quantized
        weight = self.weights.codes(spec.operand)
        owner = owner_of(spec.operand.weight)
        zero = self.constant(owner, "weight_zero_point", np.zeros((), np.int8))
        scale = self.constant(owner, f"{spec.operand.weight.name}_scale", spec.scale)
        inputs = [values, weight, input_zero, zero]
        product = editor.node(spec.operator, inputs, [f"{name}_integer"], spec.attributes)
        cast = editor.node("Cast", product.outputs, [f"{name}_cast"], [ir.AttrInt64("to", ir.DataType.FLOAT.value)])
        scales = editor.node("Mul", [input_scale, scale], [f"{name}_scales"])
        scaled = editor.node("Mul", [cast.outputs[0], scales.outputs[0]], [f"{name}_scaled"])
        chain = [product, cast, scales, scaled]
        if spec.bias is not None:
            chain.append(editor.node("Add", [scaled.outputs[0], spec.bias], [f"{name}_biased"]))
        return chain

    def constant(self, owner: ir.Graph, name: str, array: Array) -> ir.Value:
        """A small initializer of `owner`, made once for equal numbers of one name."""
        key = (id(owner), name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.editor.initializer(owner, name, array)
        return self._constants[key]


def source_of(node: ir.Node, slot: int = 0) -> ir.Value:
    """An input that must be there. Raises ValueError."""
    value = node.inputs[slot]
    if value is None:
        raise ValueError(f"{node.name} has no input {slot}")
    return value
