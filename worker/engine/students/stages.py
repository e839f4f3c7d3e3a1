"""Which residual blocks go: stages, what goes together in them, and the choice by measured impact. Nothing is run."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from worker.engine.students.residual_blocks import Block

Shape = tuple[int, ...]
_TELLING = frozenset(
    {"MatMul", "FusedMatMul", "Gemm", "Einsum", "Softmax", "Attention", "MultiHeadAttention"}
    | {"Conv", "ConvTranspose", "LSTM", "GRU", "RNN"}
)
"""What tells attention from an MLP, and either from convolutions."""
_HALF = 0.5


@dataclass(frozen=True)
class Unit:
    """Blocks that go together: one, or those of one layer of a transformer. `stage` is a number."""

    blocks: Sequence[Block]
    stage: int


def find_units(blocks: Sequence[Block], shapes: Mapping[str, Shape]) -> list[Unit]:
    """The units of `blocks`, in order; `shapes` are those of their sums by name.

    A stage is a run of blocks of one shape in one graph or body. Where two or three kinds of blocks take turns all
    through a stage, such as attention and MLP, one of each is a unit: what is left is a network of the same build, and
    its cost falls as the share of units says, which it would not if all that went were the cheaper kind.
    """
    runs = groupby(blocks, lambda block: (id(block.sum.graph), shapes[block.sum.outputs[0].name or ""]))
    return [Unit(turn, stage) for stage, (_, run) in enumerate(runs) for turn in _turns(list(run))]


def choose_units(units: Sequence[Unit], impacts: Sequence[float], share: float) -> list[Unit]:
    """The units that go, in order, so that of all the `share` stays, to the nearest, halves up.

    Those of least impact go, the earlier of equals first; of a stage with more than one, one stays.
    """
    wanted = len(units) - math.floor(share * len(units) + _HALF)
    sizes = [sum(unit.stage == other.stage for other in units) for unit in units]
    left = {unit.stage: max(size - 1, 1) for unit, size in zip(units, sizes, strict=True)}
    gone: list[int] = []
    for place in sorted(range(len(units)), key=lambda place: (impacts[place], place)):
        if len(gone) < wanted and left[units[place].stage]:
            left[units[place].stage] -= 1
            gone.append(place)
    return [units[place] for place in sorted(gone)]


def _turns(run: Sequence[Block]) -> Iterator[Sequence[Block]]:
    kinds = [_kind(block) for block in run]
    length = next((length for length in (1, 2, 3) if _repeats(kinds, length)), 1)
    return (run[start : start + length] for start in range(0, len(run), length))


def _repeats(kinds: Sequence[Hashable], length: int) -> bool:
    """Whether the same `length` different kinds follow each other all through; several of them at least twice."""
    first = kinds[:length]
    is_whole = len(kinds) % length == 0 and list(kinds) == [*first] * (len(kinds) // length)
    return is_whole and len(set(first)) == length and (length == 1 or len(kinds) > length)


def _kind(block: Block) -> Hashable:
    return tuple(node.op_type for node in block.inside if node.op_type in _TELLING)
