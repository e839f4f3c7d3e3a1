"""Mends vectors of sizes after indices were removed: targets of Reshape and Expand, and what Shape gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.edit import owner_of

_TARGET = 1


def set_target(removal: Removal, node: ir.Node, index: int = _TARGET, *, free: int | None = -1) -> None:
    """Mend input `index`, which says the shape of the output: where at most one size is free, it becomes constant.

    `free` stands for one free size in such a target, None where nothing does. Otherwise the old target is corrected.
    """
    output = node.outputs[0]
    after = removal.shape_after(output)
    if not any(removal.loses(output, axis) for axis in range(len(after))):
        return
    number_free = sum(not is_fixed for _, is_fixed in after)
    if not number_free or (number_free == 1 and free is not None):
        removal.set_integers(node, index, [size if is_fixed else free or 0 for size, is_fixed in after])
        return
    stands_for_another = removal.sizes.placeholders(node, index, len(after))
    ratios = [(1, 1) if stands_for_another[axis] else removal.ratio(output, axis) for axis in range(len(after))]
    nodes = _corrected(
        removal, node, node.inputs[index], _Correction(ratios, [size if is_fixed else None for size, is_fixed in after])
    )
    owner_of(node).insert_before(node, nodes)
    node.replace_input_with(index, nodes[-1].outputs[0])


def pin_shape(removal: Removal, node: ir.Node) -> None:
    """Have Shape give the sizes from before: arithmetic goes on with them, and targets are mended by themselves."""
    value = node.inputs[0]
    if value is None:
        return
    before, after = removal.sizes.of(value) or (), removal.shape_after(value)
    places = range(len(after))[slice(*(_bound(node, name) for name in ("start", "end")))]
    if not any(removal.loses(value, axis) for axis in places):
        return
    fixed = [before[axis] if after[axis][1] else None for axis in places]
    ratios = [removal.ratio(value, axis)[::-1] for axis in places]
    shape = removal.editor.node("Shape", [value], [f"{node.name}_after"], list(node.attributes.values()))
    nodes = [shape, *_corrected(removal, node, shape.outputs[0], _Correction(ratios, fixed))]
    removal.editor.replace(node, nodes, nodes[-1].outputs)


def _bound(node: ir.Node, name: str) -> int | None:
    return node.attributes[name].as_int() if name in node.attributes else None


@dataclass(frozen=True)
class _Correction:
    """What is done to a vector of sizes: `fixed` numbers are set, the others multiplied by their ratio."""

    ratios: Sequence[tuple[int, int]]
    fixed: Sequence[int | None]

    def factors(self) -> dict[str, list[int]]:
        """By operator what each size is multiplied and then divided by."""
        wanted = [
            (1, 1) if number is not None else ratio for ratio, number in zip(self.ratios, self.fixed, strict=True)
        ]
        return {"Mul": [top for top, _ in wanted], "Div": [bottom for _, bottom in wanted]}


def _corrected(removal: Removal, node: ir.Node, vector: ir.Value | None, correction: _Correction) -> list[ir.Node]:
    """Nodes that correct `vector`, named after `node`; the last of them gives the sizes."""
    editor, owner, name = removal.editor, owner_of(node), node.name or ""
    nodes: list[ir.Node] = []
    for op, factors in correction.factors().items():
        if any(factor != 1 for factor in factors):
            factor = editor.initializer(owner, f"{name}_{op}", np.array(factors, np.int64))
            nodes.append(editor.node(op, [vector, factor], [f"{name}_sizes"]))
            vector = nodes[-1].outputs[0]
    is_fixed = editor.initializer(owner, f"{name}_fixed", np.array([each is not None for each in correction.fixed]))
    known = editor.initializer(owner, f"{name}_known", np.array([each or 0 for each in correction.fixed], np.int64))
    return [*nodes, editor.node("Where", [is_fixed, known, vector], [f"{name}_sizes"])]
