"""Weights as symmetric int8: quantized once and stored once, however many layers read them and in whatever order."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor, drop_dead, owner_of
from worker.engine.quantization.dynamic.operand import Operand
from worker.engine.session import Array
from worker.engine.tensors.affine import IntegerRange, dequantize, quantize, symmetric_scale

_S8 = IntegerRange.of(8, signed=True, symmetric=True)


class IntegerWeights:
    """The integers of the weights that `operands` read, added to `graph` as they are asked for.

    Readers that sum over different axes of one weight share scales along those that none of them sums over.
    """

    def __init__(self, graph: Graph, editor: Editor, operands: Iterable[Operand], *, per_channel: bool) -> None:
        self._graph, self._editor = graph, editor
        self._kept: dict[ir.Value, frozenset[int]] = {}
        for operand in operands:
            kept = operand.kept if per_channel else frozenset[int]()
            self._kept[operand.weight] = self._kept.get(operand.weight, kept) & kept
        self._quantized: dict[ir.Value, tuple[Array, Array]] = {}
        self._stored: dict[Operand, ir.Value] = {}
        self._whole: dict[ir.Value, Operand] = {}

    def codes(self, operand: Operand) -> ir.Value:
        """The int8 numbers of `operand`; a second order of the same weight is a Transpose of the first."""
        if operand not in self._stored:
            first = self._whole.get(operand.weight)
            if operand.part is None and first is not None:
                self._stored[operand] = self._turned(self._stored[first], first.order, operand)
            else:
                self._stored[operand] = self._store(operand)
        return self._stored[operand]

    def scale(self, operand: Operand) -> Array:
        """The scales of `operand`, shaped to broadcast against its codes."""
        codes, scale = self._integers(operand.weight)
        turned = scale.transpose(operand.order)
        if operand.part is None:
            return turned
        columns = np.broadcast_to(turned, (*turned.shape[:-1], codes.shape[operand.order[-1]]))
        number, begin, end = operand.part
        return columns[number % len(columns), ..., begin:end]

    def restored(self, weight: ir.Value) -> Array:
        """The floats that the integers of `weight` stand for, in its shape."""
        codes, scale = self._integers(weight)
        return dequantize(codes, scale, 0)

    def settle(self) -> None:
        """Whoever still reads a weight as floats reads them from its integers, through Cast and Mul.

        ONNX Runtime folds the two when it loads the model, which it does not do with DequantizeLinear.
        """
        for weight in self._kept:
            if weight.uses():
                weight.replace_all_uses_with(self._floats(weight))
            drop_dead(weight)

    def _integers(self, weight: ir.Value) -> tuple[Array, Array]:
        if weight not in self._quantized:
            floats = self._graph.array(weight)
            scale = symmetric_scale(floats, tuple(self._kept[weight]))
            self._quantized[weight] = quantize(floats, scale, 0, _S8), scale
        return self._quantized[weight]

    def _store(self, operand: Operand) -> ir.Value:
        codes = self._integers(operand.weight)[0].transpose(operand.order)
        if operand.part is None:
            self._whole[operand.weight] = operand
        else:
            number, begin, end = operand.part
            codes = codes[number, ..., begin:end]
        return self._editor.initializer(owner_of(operand.weight), f"{operand.weight.name}_quantized", codes)

    def _turned(self, codes: ir.Value, order: tuple[int, ...], wanted: Operand) -> ir.Value:
        if order == wanted.order:
            return codes
        perm = ir.AttrInt64s("perm", [order.index(axis) for axis in wanted.order])
        turn = self._editor.node("Transpose", [codes], [f"{wanted.weight.name}_turned"], [perm])
        owner = owner_of(wanted.weight)
        owner.insert_before(owner[0], turn)
        return turn.outputs[0]

    def _floats(self, weight: ir.Value) -> ir.Value:
        plain = Operand(weight, tuple(range(self._graph.array(weight).ndim)), self._kept[weight])
        codes, owner = self.codes(plain), owner_of(weight)
        scale = self._editor.initializer(owner, f"{weight.name}_scale", self.scale(plain))
        to_float = ir.AttrInt64("to", ir.DataType.FLOAT.value)
        cast = self._editor.node("Cast", [codes], [f"{weight.name}_cast"], [to_float])
        scaled = self._editor.node("Mul", [cast.outputs[0], scale], [f"{weight.name}_restored"])
        scaled.outputs[0].type, scaled.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), weight.shape
        turn = codes.producer()
        if turn is None:
            owner.insert_before(owner[0], [cast, scaled])
        else:
            owner.insert_after(turn, [cast, scaled])
        return scaled.outputs[0]
