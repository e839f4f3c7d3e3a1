"""GRU and RNN, which have no integer kernel: their steps in a Scan, whose body multiplies integers.

That pays where a step has much to multiply. On an x86 CPU with VNNI, 50 steps at a batch of 1, against the float
operator: hidden size 128 0.4 x, 256 1.0 x, 384 1.6 x, 1024 2.9 x as fast; at a batch of 8, 256 1.7 x. Below, and for
forms of the layer that the body does not have, only the weights are integers, and ONNX Runtime restores them as it
loads: the same speed, and a quarter of the file.

Legend: T steps, N samples, D directions, G gates x hidden, H hidden, I inputs.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import drop_dead, owner_of
from worker.engine.quantization.dynamic.cells import Cell, Step, gru_step, rnn_step, sum_biases
from worker.engine.quantization.dynamic.chain import Chain
from worker.engine.quantization.dynamic.draft import Draft, source_of
from worker.engine.quantization.dynamic.recurrent import operands
from worker.engine.quantization.nodes import attribute

_LEAST_HIDDEN = 256
_BIAS, _LENGTHS, _STATE = 3, 4, 5
_ACTIVATIONS: Mapping[str, list[str]] = {"GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}
_STEPS: Mapping[str, Step] = {"GRU": gru_step, "RNN": rnn_step}


def multiplies(node: ir.Node) -> bool:
    """Whether its steps go into a Scan: large enough, and of a form that the body has."""
    bias, lengths = _input(node, _BIAS), _input(node, _LENGTHS)
    if lengths is not None or not (bias is None or bias.is_initializer()) or "clip" in node.attributes:
        return False
    by_state = operands(node)[1]
    told = node.attributes["activations"].as_strings() if "activations" in node.attributes else []
    usual = _ACTIVATIONS[node.op_type] * by_state.size(0)
    return by_state.size(1) >= _LEAST_HIDDEN and [each.lower() for each in told] in ([], usual)


def rewrite(layer: Layer, draft: Draft) -> None:
    """Replace a GRU or RNN by one Scan for each direction, where that pays."""
    if multiplies(layer.node):
        _Unrolled(layer, draft).replace()


class _Unrolled:
    """A layer as the nodes that take its place."""

    def __init__(self, layer: Layer, draft: Draft) -> None:
        self._node, self._draft = layer.node, draft
        self._owner, self._name = owner_of(layer.node), layer.name
        self._by_input, self._by_state = operands(layer.node)
        self._hidden, self._directions = self._by_state.size(1), self._by_state.size(0)
        self._resets_product = bool(attribute(layer.node, "linear_before_reset", 0))
        self._chain = Chain(draft, self._owner, layer.name)

    def replace(self) -> None:
        """Put the nodes where the layer was."""
        x, chain = source_of(self._node), self._chain
        made, codes = self._draft.quantized(x, self._owner)
        chain.nodes += made
        ends = [self._sweep(direction, codes, state) for direction, state in enumerate(self._states(x))]
        outputs = [self._join([end[i] for end in ends], axis) for i, axis in ((0, 1), (1, 0))]
        for output in self._node.outputs:
            output.name = output.name or self._draft.editor.free_name(f"{self._name}_unused")
        self._draft.editor.replace(self._node, chain.nodes, outputs[: len(self._node.outputs)])
        for output in outputs:
            drop_dead(output)

    def _sweep(self, direction: int, codes: Sequence[ir.Value], state: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The hidden states [T, N, H] and the last one [N, H] of one direction."""
        gates = self._by_input.size(2)
        cell, bias = self._cell(direction)
        product = self._chain.multiply_codes(codes, self._by_input.only(direction, 0, gates), bias)
        widths = [gates - self._hidden, self._hidden] if gates > self._hidden else [gates]
        parts = self._chain.split(product, widths, 2) if len(widths) > 1 else [product]
        backwards = int(self._is_reverse(direction))
        scan = self._draft.editor.node(
            "Scan",
            [state, *parts],
            [f"{self._name}_last", f"{self._name}_states"],
            [
                ir.AttrGraph("body", self._body(cell, widths)),
                ir.AttrInt64("num_scan_inputs", len(parts)),
                ir.AttrInt64s("scan_input_directions", [backwards] * len(parts)),
                ir.AttrInt64s("scan_output_directions", [backwards]),
            ],
        )
        self._chain.nodes.append(scan)
        return scan.outputs[1], scan.outputs[0]

    def _is_reverse(self, direction: int) -> bool:
        told = self._node.attributes["direction"].as_string() if "direction" in self._node.attributes else "forward"
        return direction == 1 or told == "reverse"

    def _body(self, cell: Cell, widths: Sequence[int]) -> ir.Graph:
        """From the state and what the input gives to a step, to the state, twice: to go on with, and to collect."""
        chain = Chain(self._draft, self._owner, f"{self._name}_step")
        state, *from_input = [self._argument(width) for width in (self._hidden, *widths)]
        after = _STEPS[self._node.op_type](chain, cell, state, from_input)
        collected = chain.add("Identity", after)
        for value in (after, collected):
            value.type, value.shape = state.type, state.shape
        name = self._draft.editor.free_name(f"{self._name}_body")
        return ir.Graph([state, *from_input], [after, collected], nodes=chain.nodes, name=name)

    def _argument(self, width: int) -> ir.Value:
        name = self._draft.editor.free_name(f"{self._name}_step_input")
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, width]))

    def _cell(self, direction: int) -> tuple[Cell, ir.Value | None]:
        """The cell of one direction, and the bias of its input."""
        bias = _input(self._node, _BIAS)
        of_input = of_state = None
        if bias is not None:
            both = self._draft.graph.array(bias)[direction]
            summed = sum_biases(both, self._hidden, resets_product=self._resets_product)
            of_input = self._draft.constant(self._owner, f"{bias.name}_of_input", summed.of_input)
            if summed.of_state is not None:
                of_state = self._draft.constant(self._owner, f"{bias.name}_of_state", summed.of_state)
        return Cell(direction, self._hidden, self._by_state, of_state, self._resets_product), of_input

    def _states(self, x: ir.Value) -> list[ir.Value]:
        """The state [N, H] that each direction begins with."""
        chain, given = self._chain, _input(self._node, _STATE)
        if given is None:
            of_batch = [ir.AttrInt64("start", 1), ir.AttrInt64("end", 2)]
            samples = chain.add("Shape", x, of=of_batch)
            shape = chain.add("Concat", samples, chain.whole([self._hidden]), of=[ir.AttrInt64("axis", 0)])
            return [chain.add("ConstantOfShape", shape)] * self._directions
        axis = chain.whole([0])
        rows = chain.split(given, [1] * self._directions, 0) if self._directions > 1 else [given]
        return [chain.add("Squeeze", row, axis) for row in rows]

    def _join(self, values: Sequence[ir.Value], axis: int) -> ir.Value:
        """One value for each direction, with an axis for the directions put in."""
        where = self._chain.whole([axis])
        parts = [self._chain.add("Unsqueeze", value, where) for value in values]
        return parts[0] if len(parts) == 1 else self._chain.add("Concat", *parts, of=[ir.AttrInt64("axis", axis)])


def _input(node: ir.Node, slot: int) -> ir.Value | None:
    return node.inputs[slot] if slot < len(node.inputs) else None
