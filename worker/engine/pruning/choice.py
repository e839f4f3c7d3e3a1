"""Which units go: shares of each group, of all groups at once, or as many as a target takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.contracts.recipe.channel_pruning import ChannelPruning
from worker.engine.graph.channels import Group
from worker.engine.pruning.ladder import Block, cut_blocks, in_order, score_keys

Scores = NDArray[np.float64]
MOST = 0.9
"""Of a group no more than this share goes where shares are not given one by one: none is emptied."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Choice:
    """Groups that may lose units, and units' scores.

    `shares`: what is asked of each group; None: as the step says for all. Of its channels a multiple stays. `gone`:
    by a group's place, how many of its units went in earlier rounds, which shares count too.
    """

    groups: Sequence[Group]
    shares: Sequence[float | None]
    multiples: Sequence[int]
    scores: Scores
    gone: Mapping[int, int] = field(default_factory=dict)


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


def plan_units(choice: Choice, step: ChannelPruning, sensitivity: KeysOf | None = None) -> Plan:
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


def cut_all(choice: Choice, step: ChannelPruning) -> list[list[Block]]:
    """The blocks of each group, the least important first."""
    is_free = step.scope == "global" or step.allocate == "sensitivity" or step.target is not None
    found = []
    for place, group in enumerate(choice.groups):
        weakest_first = group.units[np.argsort(choice.scores[group.units], kind="stable")]
        most = MOST if is_free and choice.shares[place] is None else 1.0
        multiple, gone = choice.multiples[place], choice.gone.get(place, 0)
        found.append(cut_blocks(place, weakest_first, width=group.width, multiple=multiple, most=most, gone=gone))
    return found


def _share(choice: Choice, step: ChannelPruning, place: int) -> float:
    own = choice.shares[place]
    return (step.amount or 0.0) if own is None else own


def _by_share(choice: Choice, step: ChannelPruning) -> KeysOf:
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
    shared = [place for place, share in enumerate(choice.shares) if share is None]
    before = sum(choice.gone.get(place, 0) * choice.groups[place].width for place in shared)
    total = before + sum(len(choice.groups[place].units) * choice.groups[place].width for place in shared)
    gone = before + np.cumsum([len(block.units) * choice.groups[block.group].width for block in free])
    count = int(np.searchsorted(gone, amount * total + _ROUNDING, side="right"))
    taken = [*own, *free[:count]]
    return Plan(taken, len(taken))
