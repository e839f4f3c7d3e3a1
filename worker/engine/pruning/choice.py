"""Which units go: shares of each group, of all groups at once, or as many as a target takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contracts.recipe.prune_structured import PruneStructured
from worker.engine.graph.channels import Group
from worker.engine.pruning.ladder import Block, cut_blocks, in_order, score_keys

Scores = NDArray[np.float64]
MOST = 0.9
"""Of a group no more than this share goes where shares are not given one by one: none is emptied."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choice:
    """Groups that may lose units, and units' scores.

    `shares`: what is asked of each group; None: as the step says for all. Of its channels a multiple stays.
    """

    groups: Sequence[Group]
    shares: Sequence[float | None]
    multiples: Sequence[int]
    scores: Scores


@dataclass(frozen=True)
class Plan:
    """Blocks of units in the order in which they go, and how many of them are gone at `amount`."""

    blocks: Sequence[Block]
    count: int

    @property
    def units(self) -> list[int]:
        """What goes."""
        return self.first(self.count)

    def first(self, count: int) -> list[int]:
        """The units of the first `count` blocks."""
        return [int(unit) for block in self.blocks[:count] for unit in block.units]


KeysOf = Callable[[int, Sequence[Block]], NDArray[np.float64]]
"""Keys of a group's blocks, by the group's place in the choice: see `ladder`."""


def plan_units(choice: Choice, step: PruneStructured, sensitivity: KeysOf | None = None) -> Plan:
    """The plan of the step; with a target its count is 0, to be searched."""
    is_global = step.scope == "global" or sensitivity is not None
    blocks = cut_all(choice, step)
    keys_of = sensitivity or (_by_scores(choice) if is_global else _by_share(choice, step))
    ordered = in_order(blocks, [keys_of(place, own) for place, own in enumerate(blocks)])
    if step.target is not None:
        return Plan(ordered, 0)
    if is_global and step.amount is not None:
        return _global_plan(choice, ordered, step.amount)
    wanted = [block for block in ordered if block.middle < _share(choice, step, block.group)]
    return Plan(wanted, len(wanted))


def cut_all(choice: Choice, step: PruneStructured) -> list[list[Block]]:
    """The blocks of each group, the least important first."""
    is_free = step.scope == "global" or step.allocate == "sensitivity" or step.target is not None
    found = []
    for place, group in enumerate(choice.groups):
        weakest_first = group.units[np.argsort(choice.scores[group.units], kind="stable")]
        most = MOST if is_free and choice.shares[place] is None else 1.0
        found.append(cut_blocks(place, weakest_first, width=group.width, multiple=choice.multiples[place], most=most))
    return found


def _share(choice: Choice, step: PruneStructured, place: int) -> float:
    own = choice.shares[place]
    return (step.amount or 0.0) if own is None else own


def _by_share(choice: Choice, step: PruneStructured) -> KeysOf:
    """Every group at the same pace, or in proportion to its own share."""

    def keys(place: int, blocks: Sequence[Block]) -> NDArray[np.float64]:
        pace = choice.shares[place]
        return np.array([block.middle for block in blocks]) / (pace if pace and step.target else 1.0)

    return keys


def _by_scores(choice: Choice) -> KeysOf:
    def keys(place: int, blocks: Sequence[Block]) -> NDArray[np.float64]:
        return score_keys(blocks, choice.scores, choice.groups[place].units)

    return keys


def _global_plan(choice: Choice, ordered: Sequence[Block], amount: float) -> Plan:
    """Blocks up to the share `amount` of all channels; groups with a share of their own go by that."""
    free = [block for block in ordered if choice.shares[block.group] is None]
    own = [block for block in ordered if block.middle < (choice.shares[block.group] or 0.0)]
    total = sum(len(group.units) * group.width for group, share in _with_shares(choice) if share is None)
    gone = np.cumsum([len(block.units) * choice.groups[block.group].width for block in free])
    count = int(np.searchsorted(gone, amount * total + _ROUNDING, side="right"))
    taken = [*own, *free[:count]]
    return Plan(taken, len(taken))


def _with_shares(choice: Choice) -> list[tuple[Group, float | None]]:
    return list(zip(choice.groups, choice.shares, strict=True))
