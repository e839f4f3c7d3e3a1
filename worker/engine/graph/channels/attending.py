"""How attention ties heads and their features, whatever operator computes it. Operators' inputs are read in `rules/`.

Legend: N samples, H heads, L queries, S keys, D features of a head.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Split, Walk, called

FLAT = 3
"""Rank of a tensor [N, L, H * D]; with heads apart it is [N, H, L, D]."""
_HEADS, _FEATURES = 0, 1
_WHOLE, _ALIKE = 0, 1
_HIDDEN, _GROUPS = 0, 1
"""Places of choices: what of [H * D] can go, and what of query heads that share keys."""


@dataclass(frozen=True)
class ByHead:
    """The labels of a tensor's samples, heads, positions and features of a head; `zero`: see `Walk.is_zero`."""

    samples: Labels
    heads: Labels
    positions: Labels
    features: Labels
    zero: bool

    def axes(self, rank: int) -> Axes:
        """As [N, H, L, D] or [N, L, H * D], in which only heads or only features can go."""
        if rank != FLAT:
            return [self.samples, self.heads, self.positions, self.features]
        varies = len(np.unique(self.features)) > 1
        hidden = np.tile(self.features, len(self.heads)) if varies else np.repeat(self.heads, len(self.features))
        return [self.samples, self.positions, hidden]


@dataclass(frozen=True)
class OfHeads:
    """The labels of a tensor [N, H, L, D] or of a flat one; `zero`: see `Walk.is_zero`."""

    axes: Axes
    heads: int
    zero: bool


def by_head(walk: Walk, node: ir.Node, tensors: Sequence[OfHeads]) -> list[ByHead]:
    """The labels of each tensor with heads apart.

    Of flat ones heads go, or the same features of every head: those where there is one head, or none can go.
    """
    key, first = (node.name or "", _HIDDEN), _HEADS if tensors[0].heads > 1 else _FEATURES
    chosen = walk.choices.get(key, first)
    parts = [_take_apart(walk, node, tensor, goes_by_heads=chosen == _HEADS) for tensor in tensors]
    flat = [part for part, tensor in zip(parts, tensors, strict=True) if len(tensor.axes) == FLAT]
    if flat:
        labels = np.concatenate([part.heads if chosen == _HEADS else part.features for part in flat])
        walk.splits[key] = Split([_HEADS, _FEATURES], chosen, chosen == _HEADS, labels)
    return parts


def _take_apart(walk: Walk, node: ir.Node, tensor: OfHeads, *, goes_by_heads: bool) -> ByHead:
    heads, zero = tensor.heads, tensor.zero
    if len(tensor.axes) != FLAT:
        samples, own, positions, features = tensor.axes
        return ByHead(samples, own, positions, features, zero)
    samples, positions, hidden = tensor.axes
    reason = f"{called(node)} takes it apart into heads, and they must stay equal"
    if goes_by_heads:
        features = walk.blocked(len(hidden) // heads, reason)
        return ByHead(samples, walk.unite_rows(hidden, heads), positions, features, zero)
    return ByHead(samples, walk.blocked(heads, reason), positions, walk.unite_columns(hidden, heads), zero)


@dataclass(frozen=True)
class Attending:
    """Queries, keys and values. `keys` and `values` are new ones: those from before are tied by `tie_past`."""

    queries: ByHead
    keys: ByHead
    values: ByHead
    is_causal: bool


def attend(walk: Walk, node: ir.Node, parts: Attending) -> ByHead:
    """The result of softmax(Q K^T) V, whose features are those of the values."""
    q, k, v = parts.queries, parts.keys, parts.values
    for each in (k, v):
        walk.unite(q.samples, each.samples)
        walk.block(each.positions, f"{called(node)} runs over it")
    if parts.is_causal:
        walk.block(q.positions, f"{called(node)} knows keys and queries by their places")
    walk.unite(k.heads, v.heads)
    goes_whole = _tie_groups(walk, node, q.heads, k.heads)
    walk.unite(q.features, k.features)
    if not (q.zero or k.zero):
        walk.block(
            q.features, f"{called(node)} multiplies two computed tensors, and neither would be zero where masked"
        )
    walk.heads.append(q.heads)
    zero = v.zero and (goes_whole or not walk.is_free(q.heads)) and not walk.is_free(q.positions)
    return ByHead(q.samples, q.heads, q.positions, v.features, zero)


def _tie_groups(walk: Walk, node: ir.Node, q_heads: Labels, kv_heads: Labels) -> bool:
    """Tie query heads to keys that several share: a group goes whole, or the same head of every group.

    What gives more units comes first. True where a query head goes with its keys and values.
    """
    groups, shared = len(kv_heads), len(q_heads) // len(kv_heads)
    if shared == 1:
        walk.unite(q_heads, kv_heads)
        return True
    key, candidates = (node.name or "", _GROUPS), [_WHOLE, _ALIKE] if groups >= shared else [_ALIKE, _WHOLE]
    candidates = candidates if groups > 1 else [_ALIKE]
    chosen = walk.choices.get(key, candidates[0])
    if chosen == _WHOLE:
        walk.unite(walk.unite_rows(q_heads, groups), kv_heads)
    else:
        walk.unite_columns(q_heads, groups)
        walk.block(kv_heads, f"query heads of {called(node)} share it, of which some may go")
    walk.splits[key] = Split(candidates, chosen, is_of_heads=False, labels=q_heads)
    return chosen == _WHOLE


def tie_past(walk: Walk, node: ir.Node, past: ir.Value | None, new: ByHead) -> ByHead:
    """Tie keys or values from before [N, H, S, D] to the new ones that come behind them; what both are together."""
    axes = walk.known_axes(past)
    if axes is None:
        return new
    for labels, own in zip((axes[0], axes[1], axes[3]), (new.samples, new.heads, new.features), strict=True):
        walk.unite(labels, own)
    walk.block(axes[2], f"{called(node)} runs over it")
    return ByHead(new.samples, new.heads, new.positions, new.features, new.zero and walk.is_zero(past))


def tie_mask(walk: Walk, node: ir.Node, mask: ir.Value | None, queries: ByHead) -> None:
    """Tie what is added to scores [N, H, L, S], or chooses among them; missing and single axes broadcast."""
    *others, keys = walk.known_axes(mask) or [np.zeros(0, np.int64)]
    walk.block(keys, f"{called(node)} runs over it")
    own = (queries.positions, queries.heads, queries.samples)
    for labels, tied in zip(reversed(others), own, strict=False):
        if len(labels) == len(tied):
            walk.unite(labels, tied)


def give_present(walk: Walk, node: ir.Node, index: int, part: ByHead) -> None:
    """Keys or values [N, H, S, D], old and new, as output `index`."""
    if index < len(node.outputs) and (made := walk.stuck(node.outputs[index], f"{called(node)} runs over it")):
        walk.give(node.outputs[index], [part.samples, part.heads, made[2], part.features])


def set_counts(removal: Removal, node: ir.Node, *, counts: Mapping[str, Labels]) -> None:
    """Have attributes that count heads say how many are left of them."""
    for name, heads in counts.items():
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64(name, int(removal.kept(heads).sum()))


def keep_scale(removal: Removal, node: ir.Node, *, features: Labels) -> None:
    """Where no scale is said, scores go on being divided by the root of the number of features from before."""
    is_said = "scale" in node.attributes and (not node.domain or node.attributes["scale"].as_float() != 0)
    if not is_said and not removal.kept(features).all():
        node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(len(features)))
