"""LSTM, GRU and RNN: a hidden unit goes from all gates, states and outputs, in both directions at once.

D directions, G gates, H hidden units, I features, N batch, T steps. X [T, N, I], W [D, G*H, I], R [D, G*H, H],
B [D, 2*G*H], P [D, 3*H], states [D, N, H], Y [T, D, N, H]; with layout 1 the batch comes first.
"""

from collections.abc import Sequence

import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_X, _W, _R, _B, _LENGTHS, _STATE, _CELL, _PEEPHOLES = range(8)
_ZERO_AT_ZERO = frozenset({"elu", "leakyrelu", "relu", "scaledtanh", "softsign", "tanh", "thresholdedrelu"})
_MUST_BE_ZERO = {"LSTM": (1, 2), "GRU": (1,), "RNN": (0,)}
"""Of the activations of a direction those whose results are the state; the others only weigh it."""
_PER_DIRECTION = {"LSTM": 3, "GRU": 2, "RNN": 1}
_MOVES = frozenset(
    {"Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)


@rule("LSTM", "GRU", "RNN")
def _recurrent(walk: Walk, node: ir.Node) -> None:
    inputs = {place: walk.axes(value) for place, value in enumerate(node.inputs) if value is not None}
    known = {place: axes for place, axes in inputs.items() if axes is not None}
    if len(known) < len(inputs):
        for output in node.outputs:
            walk.give(output, None)
        return
    hidden = _tie_units(walk, node, known)
    batch = _tie_batch(walk, node, known)
    _tie_features(walk, node, known)
    _hold_directions(walk, node, known)
    zero = _is_state_zero(walk, node) and not walk.is_free(batch)
    if not zero and not walk.is_zero(node.inputs[_R]):
        walk.block(hidden, f"{called(node)} goes on with it, and masked it would not be zero")
    _give_outputs(walk, node, batch, hidden, zero=zero)
    walk.later(node, _set_hidden_size)


def _tie_units(walk: Walk, node: ir.Node, known: dict[int, Axes]) -> Labels:
    """The labels of hidden units [H], one with theirs in every gate."""
    hidden = known[_R][2]
    stacked = [known[_W][1], known[_R][1], *(known[place][1] for place in (_B, _PEEPHOLES) if place in known)]
    for labels in stacked:
        walk.unite(walk.unite_columns(labels, len(labels) // len(hidden)), hidden)
    for state in (_STATE, _CELL):
        if state in known and _is_default(node.inputs[state]):
            walk.block(known[state][2], f"it is a state that {called(node)} can do without")
        elif state in known:
            walk.unite(known[state][2], hidden)
    return hidden


def _is_default(value: ir.Value | None) -> bool:
    """Whether a state is all zeros, as it would be if left out: layers of one size often share these zeros."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is not None and node.op_type == "ConstantOfShape":
            return "value" not in node.attributes or not node.attributes["value"].as_tensor().numpy().any()
        value = node.inputs[0] if node is not None and node.op_type in _MOVES else None
    return value is not None and value.const_value is not None and not value.const_value.numpy().any()


def _tie_batch(walk: Walk, node: ir.Node, known: dict[int, Axes]) -> Labels:
    is_batch_first = bool(attribute(node, "layout", 0))
    batch, steps = known[_X][:2] if is_batch_first else known[_X][1::-1]
    walk.block(steps, f"it is a step of {called(node)}")
    others = [known[state][0 if is_batch_first else 1] for state in (_STATE, _CELL) if state in known]
    for labels in (*others, *known.get(_LENGTHS, ())):
        if len(labels) == len(batch):
            walk.unite(labels, batch)
        else:  # both are free dimensions of inputs, which were given different numbers
            walk.block(labels, f"it is the batch of {called(node)}")
            walk.block(batch, f"it is the batch of {called(node)}")
    return batch


def _tie_features(walk: Walk, node: ir.Node, known: dict[int, Axes]) -> None:
    features = known[_X][2]
    walk.unite(features, known[_W][2])
    if not any(map(walk.is_zero, node.inputs[:2])):
        walk.block(features, f"{called(node)} multiplies two computed tensors, and neither would be zero where masked")


def _hold_directions(walk: Walk, node: ir.Node, known: dict[int, Axes]) -> None:
    states = dict.fromkeys((_STATE, _CELL), attribute(node, "layout", 0))
    for place, axis in {**dict.fromkeys((_W, _R, _B, _PEEPHOLES), 0), **states}.items():
        if place in known:
            walk.block(known[place][axis], f"it is a direction of {called(node)}")


def _is_state_zero(walk: Walk, node: ir.Node) -> bool:
    """Whether the states of a masked unit are 0 at every step: they start so, and 0 comes of no input at all."""
    weights, states = [*node.inputs[_W:_LENGTHS], *node.inputs[_PEEPHOLES:]], node.inputs[_STATE:_PEEPHOLES]
    if not all(value is None or walk.is_zero(value) for value in weights):
        return False
    if not all(value is None or walk.is_zero(value) or _is_default(value) for value in states):
        return False
    names = node.attributes["activations"].as_strings() if "activations" in node.attributes else ()
    own, every = _MUST_BE_ZERO[node.op_type], _PER_DIRECTION[node.op_type]
    return all(name.lower() in _ZERO_AT_ZERO for place, name in enumerate(names) if place % every in own)


def _give_outputs(walk: Walk, node: ir.Node, batch: Labels, hidden: Labels, *, zero: bool) -> None:
    """Y and the last states, which may be left out."""
    for place, output in enumerate(node.outputs):
        made = walk.stuck(output, f"it is a step or a direction of {called(node)}")
        if made is not None:
            made = _placed(made, batch, hidden, is_batch_first=bool(attribute(node, "layout", 0)), is_whole=place == 0)
        walk.give(output, made, zero=zero)


def _placed(made: Axes, batch: Labels, hidden: Labels, *, is_batch_first: bool, is_whole: bool) -> Sequence[Labels]:
    """The labels of an output, of which the last axis is the hidden units: with all steps it has one axis more."""
    if is_batch_first:
        return [batch, *made[1:-1], hidden]
    return [*made[: 2 if is_whole else 1], batch, hidden]


def _set_hidden_size(removal: Removal, node: ir.Node) -> None:
    if not removal.loses(node.inputs[_R], 2):
        return
    for state in (_STATE, _CELL):
        if state < len(node.inputs) and _is_default(node.inputs[state]):
            node.replace_input_with(state, None)
    if "hidden_size" in node.attributes:
        node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", removal.size(node.inputs[_R], 2))
