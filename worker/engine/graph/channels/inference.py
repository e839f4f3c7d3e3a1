"""Shapes and small constants of single nodes, by onnx's rules and reference. The order of nodes is `propagation`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference.ops import load_op

from worker.engine.graph import shapes
from worker.engine.graph.graph import Graph
from worker.engine.graph.stand_ins import lend_rules

Array = NDArray[Any]
_LARGEST_CONSTANT = 1 << 16
"""Elements of a constant whose numbers are followed."""
_LONGEST_READ = 1 << 10
"""Elements of a constant that may say something of a shape."""
_RANDOM = ("Random", "Bernoulli", "Multinomial")
_REFUSALS = (ArithmeticError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What onnx's reference operators raise for numbers that do not suit them, or for operators it does not have."""


class Inference:
    """Works nodes of one graph out from what is known of their inputs, and keeps the numbers of small results."""

    def __init__(self, graph: Graph) -> None:
        self.arrays: dict[ir.Value, Array] = {}
        self._opset = graph.opset
        self._imports = [helper.make_opsetid(*each) for each in graph.model.opset_imports.items()]

    def array(self, value: ir.Value | None) -> Array | None:
        """The numbers of a small constant, stored or computed."""
        if value is None or value.is_graph_input() or value.const_value is None:
            return None if value is None else self.arrays.get(value)
        return value.const_value.numpy() if value.const_value.size <= _LARGEST_CONSTANT else None

    def infer(self, node: ir.Node) -> None:
        """Fill in types and shapes of the outputs. Raises onnx's InferenceError where inputs do not suit it."""
        if any(value is not None and value.type is None for value in node.inputs):
            return
        inferred = onnx.shape_inference.infer_shapes(self._alone(node), strict_mode=True)
        found = {info.name: info.type for info in inferred.graph.value_info}
        for value in node.outputs:
            if value.name in found:
                shape = ir.serde.deserialize_type_proto_for_shape(found[value.name])
                # onnx infers 2, 2, 2 and -1 for a Split of 5 in 4 parts.
                is_possible = shape is not None and all(not isinstance(dim, int) or dim >= 0 for dim in shape)
                value.shape = shape if is_possible else None
                value.type = ir.serde.deserialize_type_proto_for_type(found[value.name])

    def _alone(self, node: ir.Node) -> onnx.ModelProto:
        """A model of this one node, with the numbers that it reads."""
        read = {value.name: value for value in node.inputs if value is not None}
        numbers = {name: self.array(value) for name, value in read.items()}
        stored = {name: array for name, array in numbers.items() if array is not None and _says_of_shapes(array)}
        inputs = [ir.serde.serialize_value(value) for name, value in read.items() if name not in stored]
        constants = [numpy_helper.from_array(array, name) for name, array in stored.items()]
        graph = helper.make_graph([ir.serde.serialize_node(node)], "node", inputs, [], constants)
        return lend_rules(helper.make_model(graph, opset_imports=self._imports))

    def evaluate(self, node: ir.Node) -> None:
        """Keep the results where they are small and the same whenever the node runs."""
        if node.op_type == "Shape" and not node.domain:
            sizes = shapes.sizes(node.inputs[0])
            if sizes is not None:
                ends = [
                    node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end")
                ]
                self.arrays[node.outputs[0]] = np.array(sizes[slice(*ends)], np.int64)
            return
        read = [self.array(value) for value in node.inputs]
        missing = any(array is None and value is not None for array, value in zip(read, node.inputs, strict=True))
        if read and not missing and _is_small(node):
            self.arrays.update(zip(node.outputs, self._compute(node, read), strict=False))

    def _compute(self, node: ir.Node, read: Sequence[Array | None]) -> Sequence[Array]:
        """The results by onnx's reference; none where it has nothing for the node."""
        attributes = {each.name: helper.get_attribute_value(each) for each in ir.serde.serialize_node(node).attribute}
        try:
            operator = load_op("", node.op_type, self._opset)
            with np.errstate(all="ignore"):
                results = operator.eval(*read, n_outputs=len(node.outputs), **attributes)
        except _REFUSALS:
            return []
        return [np.asarray(each) for each in (results if isinstance(results, tuple) else [results])]


def _is_small(node: ir.Node) -> bool:
    sizes = [shapes.sizes(value) for value in node.outputs]
    is_known = not node.domain and not node.op_type.startswith(_RANDOM)
    return is_known and all(each is not None and np.prod(each) <= _LARGEST_CONSTANT for each in sizes)


def _says_of_shapes(array: Array) -> bool:
    """Whether a constant may: it is short, and no text."""
    return array.size <= _LONGEST_READ and array.dtype.kind != "S"
