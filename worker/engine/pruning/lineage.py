"""Which group of a graph is which of the graph before earlier rounds of pruning. Nothing is chosen here."""

from collections import Counter
from collections.abc import Sequence

from worker.engine.graph.channels import Group, Groups
from worker.engine.pruning.choice import Choice, Scores
from worker.engine.pruning.selection import RoundTo, Selection, multiple_of, operators_of

Key = tuple[str, tuple[str, ...], int]


def choose_among(selection: Selection, groups: Groups, scores: Scores, start: Groups, round_to: RoundTo) -> Choice:
    """The choice between the selected groups of a graph that was `start` once: shares and multiples are of that.

    A group that was not there then is left out.
    """
    before = dict(zip(_name_all(start.groups), start.groups, strict=True))
    keys = {id(group): key for key, group in zip(_name_all(groups.groups), groups.groups, strict=True)}
    kept = [place for place, group in enumerate(selection.groups) if keys[id(group)] in before]
    own = [selection.groups[place] for place in kept]
    origins = [before[keys[id(group)]] for group in own]
    operators = operators_of(start)
    return Choice(
        groups=own,
        shares=[selection.shares[place] for place in kept],
        multiples=[multiple_of(origin, operators, round_to) for origin in origins],
        scores=scores,
        gone={place: len(origin.units) - len(own[place].units) for place, origin in enumerate(origins)},
    )


def _name_all(groups: Sequence[Group]) -> list[Key]:
    """What groups are called by: removing units changes neither kind nor layers, nor the order of groups."""
    seen = Counter[tuple[str, tuple[str, ...]]]()
    keys = []
    for group in groups:
        name = (group.kind, tuple(group.layers))
        keys.append((*name, seen[name]))
        seen[name] += 1
    return keys
