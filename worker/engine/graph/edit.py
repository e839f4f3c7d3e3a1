"""Edits of a graph: new names and initializers, a node replaced by several, dead parts removed. No method's rules."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph.graph import Graph

ORT_DOMAIN = "com.microsoft"


class Editor:
    """Edits `graph` in place; every name it gives is new in the whole graph, bodies included."""

    def __init__(self, graph: Graph) -> None:
        self._model = graph.model
        self._taken = {node.name for node in graph.nodes()}
        for each in graph.model.graphs():
            self._taken.update(ir.convenience.create_value_mapping(each))

    def free_name(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`, ... where it is taken; taken from now on."""
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def initializer(self, owner: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
        """A new initializer of `owner`, the main graph or a body."""
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=self.free_name(name))
        value = ir.Value(
            name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
        )
        owner.register_initializer(value)
        return value

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[str],
        attributes: Sequence[ir.Attr] = (),
        domain: str = "",
    ) -> ir.Node:
        """A new node in no graph yet, named after its first output; `outputs` are wishes, made new where taken."""
        if domain:
            self._model.opset_imports.setdefault(domain, 1)
        values = [ir.Value(name=self.free_name(name)) for name in outputs]
        name = self.free_name(f"{values[0].name}_{op}")
        return ir.Node(domain, op, inputs, attributes, outputs=values, name=name)

    def replace(self, node: ir.Node, replacement: Sequence[ir.Node], outputs: Sequence[ir.Value]) -> None:
        """Put `replacement` where `node` was; `outputs` take over its outputs' names, users and graph outputs.

        What only `node` read is removed with it.
        """
        inputs = list(node.inputs)
        ir.convenience.replace_nodes_and_values(owner_of(node), node, [node], replacement, node.outputs, outputs)
        for value in inputs:
            drop_dead(value)


def owner_of(item: ir.Node | ir.Value) -> ir.Graph:
    """The main graph or the body in which a node or an initializer lies. Raises ValueError."""
    if item.graph is None:
        raise ValueError(f"{item.name} is in no graph")
    return item.graph


def drop_dead(value: ir.Value | None) -> None:
    """Remove `value` and what led only to it, as far as nothing reads it: initializers and nodes, not graph inputs."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    if value.is_initializer():
        if value.graph is not None:
            value.graph.initializers.pop(value.name or "", None)
        return
    node = value.producer()
    if node is None or node.graph is None or any(each.uses() or each.is_graph_output() for each in node.outputs):
        return
    inputs = list(node.inputs)
    node.graph.remove(node, safe=True)
    for each in inputs:
        drop_dead(each)
