"""Einsum, by its letters: each has the same indices in all operands; those summed over need a factor that is zero."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, called

Term = list[str]
"""The letters of an operand's axes; those under an ellipsis are called `.1`, `.2`, ... from the last."""


@dataclass
class _Letter:
    """What an axis of the product is: its labels, and which operands have all of it."""

    labels: Labels
    operands: set[int] = field(default_factory=set)


@rule("Einsum")
def _einsum(walk: Walk, node: ir.Node) -> None:
    known = [axes for value in node.inputs if (axes := walk.known_axes(value)) is not None]
    if len(known) < len(node.inputs):
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    terms, result = _parse(node.attributes["equation"].as_string(), [len(axes) for axes in known])
    letters = _unite(walk, terms, known)
    zeros = {name: any(walk.is_zero(node.inputs[index]) for index in letters[name].operands) for name in letters}
    for name in letters.keys() - set(result):
        if not zeros[name]:
            walk.block(letters[name].labels, f"{called(node)} sums over it, and nothing would be zero where masked")
    if not any(map(walk.is_constant, node.inputs)) and len(terms) > 1:
        walk.heads.extend(letters[name].labels for name in result if all(name in term for term in terms))
    free = [name for name in result if walk.is_free(letters[name].labels)]
    made = [letters[name].labels for name in result]
    return walk.give(node.outputs[0], made, zero=all(zeros[name] for name in free))


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[Term], Term]:
    """The letters of each operand and of the result: without `->`, those that come once, in order of the alphabet."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    written = left.split(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(written, ranks, strict=True)]
    terms = [_expand(term, count) for term, count in zip(written, hidden, strict=True)]
    most = max(count if "..." in term else 0 for term, count in zip(written, hidden, strict=True))
    if arrow:
        return terms, _expand(right, most)
    named = left.replace(",", "").replace("...", "")
    once = sorted(letter for letter in set(named) if named.count(letter) == 1)
    return terms, [*_expand("...", most), *once]


def _expand(term: str, hidden: int) -> Term:
    before, dots, after = term.partition("...")
    return [*before, *(f".{back}" for back in range(hidden, 0, -1) if dots), *after]


def _unite(walk: Walk, terms: Sequence[Term], known: Sequence[Axes]) -> dict[str, _Letter]:
    """Unite a letter's labels wherever it stands; single ones broadcast."""
    places: dict[str, list[tuple[int, Labels]]] = defaultdict(list)
    for index, (term, axes) in enumerate(zip(terms, known, strict=True)):
        for name, labels in zip(term, axes, strict=True):
            places[name].append((index, labels))
    letters = {}
    for name, found in places.items():
        longest = found[int(np.argmax([len(labels) for _, labels in found]))][1]
        letters[name] = _Letter(longest)
        for index, labels in found:
            if len(labels) == len(longest):
                walk.unite(labels, longest)
                letters[name].operands.add(index)
    return letters
