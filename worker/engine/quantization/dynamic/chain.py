"""Nodes in the making, one after another, in no graph yet."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.quantization.dynamic.draft import Draft, Product
from worker.engine.quantization.dynamic.operand import Operand


class Chain:
    """Adds to `nodes`; their outputs are named after `name`. Constants go to `owner`, the graph around."""

    def __init__(self, draft: Draft, owner: ir.Graph, name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._draft, self._owner, self._name = draft, owner, name

    def add(self, operator: str, *inputs: ir.Value | None, of: Sequence[ir.Attr] = ()) -> ir.Value:
        """The output of a node with the attributes `of`."""
        node = self._draft.editor.node(operator, inputs, [f"{self._name}_{operator.lower()}"], of)
        self.nodes.append(node)
        return node.outputs[0]

    def split(self, value: ir.Value, sizes: Sequence[int], axis: int) -> Sequence[ir.Value]:
        """Parts of so many elements along `axis`."""
        names = [f"{self._name}_part"] * len(sizes)
        node = self._draft.editor.node("Split", [value, self.whole(sizes)], names, [ir.AttrInt64("axis", axis)])
        self.nodes.append(node)
        return node.outputs

    def multiply(self, source: ir.Value, operand: Operand, bias: ir.Value | None = None) -> ir.Value:
        """The integer product of a value of this chain with a matrix."""
        quantizer = self._draft.quantizer(source)
        self.nodes.append(quantizer)
        return self.multiply_codes(quantizer.outputs, operand, bias)

    def multiply_codes(self, codes: Sequence[ir.Value], operand: Operand, bias: ir.Value | None) -> ir.Value:
        """The integer product of codes, with their scale and zero point, with a matrix."""
        scale = self._draft.weights.scale(operand).reshape(-1)
        self.nodes += self._draft.product(codes, Product(operand, scale, f"{self._name}_product", bias=bias))
        return self.nodes[-1].outputs[0]

    def whole(self, numbers: Sequence[int]) -> ir.Value:
        """A constant vector of int64."""
        return self._draft.constant(self._owner, f"{self._name}_sizes", np.array(numbers, np.int64))
