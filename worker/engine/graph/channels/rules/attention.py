"""Attention and rotary embedding: heads go with all that is theirs. What ties them is in `attending`."""

from functools import partial

import numpy as np
import onnx_ir as ir

from worker.engine.graph.channels.attending import (
    FLAT,
    Attending,
    ByHead,
    OfHeads,
    attend,
    by_head,
    give_present,
    keep_scale,
    set_counts,
    tie_mask,
    tie_past,
)
from worker.engine.graph.channels.removal import Removal
from worker.engine.graph.channels.table import rule
from worker.engine.graph.channels.unions import Axes, Labels
from worker.engine.graph.channels.walk import Walk, attribute, called

_SCORES = 3


@rule("Attention")
def _attention(walk: Walk, node: ir.Node) -> None:
    """Q, K, V, mask, past keys, past values, valid keys [N] to the result, present keys and values, scores."""
    inputs = [*node.inputs, *[None] * (7 - len(node.inputs))]
    read = _read(walk, node)
    if read is None:
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    q, k, v = read
    k, v = tie_past(walk, node, inputs[4], k), tie_past(walk, node, inputs[5], v)
    is_causal = any(attribute(node, name, default) != default for name, default in _BY_PLACE.items())
    made = attend(walk, node, Attending(q, k, v, is_causal))
    tie_mask(walk, node, inputs[3], q)
    if (valid := walk.known_axes(inputs[6])) is not None:
        walk.unite(valid[0], q.samples)
    _give(walk, node, made, (q, k, v))
    walk.later(node, partial(set_counts, counts={"q_num_heads": q.heads, "kv_num_heads": k.heads}))
    return walk.later(node, partial(keep_scale, features=q.features))


_BY_PLACE = {"is_causal": 0, "left_window_size": -1, "right_window_size": -1}


def _read(walk: Walk, node: ir.Node) -> list[ByHead] | None:
    """Queries, keys and values."""
    known = [axes for value in node.inputs[:3] if (axes := walk.known_axes(value)) is not None]
    if len(known) < 3:  # noqa: PLR2004 - queries, keys and values
        return None
    counts = [attribute(node, name, 0) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
    if any(len(axes) == FLAT and not count for axes, count in zip(known, counts, strict=True)):
        return None
    zeros = map(walk.is_zero, node.inputs[:3])
    return by_head(walk, node, [OfHeads(*each) for each in zip(known, counts, zeros, strict=True)])


def _give(walk: Walk, node: ir.Node, made: ByHead, parts: tuple[ByHead, ByHead, ByHead]) -> None:
    output = node.outputs[0]
    shape, (q, k, v) = walk.sizes.of(output), parts
    walk.give(output, None if shape is None else made.axes(len(shape)), zero=made.zero)
    give_present(walk, node, 1, k)
    give_present(walk, node, 2, v)
    if len(node.outputs) > _SCORES:
        scores = walk.stuck(node.outputs[_SCORES], f"{called(node)} runs over it")
        walk.give(node.outputs[_SCORES], scores and [q.samples, q.heads, q.positions, scores[3]])


@rule("RotaryEmbedding")
def _rotate(walk: Walk, node: ir.Node) -> None:
    """Pairs of features of each head turn by angles of their own, the same in all heads; the last may stay."""
    axes, heads = walk.known_axes(node.inputs[0]), attribute(node, "num_heads", 0)
    if axes is None or (len(axes) == FLAT and not heads):
        return walk.give_up(node, f"the shapes around {called(node)} are not known")
    (part,) = by_head(walk, node, [OfHeads(axes, heads, walk.is_zero(node.inputs[0]))])
    turned = attribute(node, "rotary_embedding_dim", 0) or len(part.features)
    pairs = _pairs(walk, node, part.features[:turned])
    places = walk.known_axes(node.inputs[3]) if len(node.inputs) > 3 else None  # noqa: PLR2004 - positions
    for cache in map(walk.known_axes, node.inputs[1:3]):
        _tie_cache(walk, node, cache, pairs, part if places is None else None)
    for labels, own in zip(places or (), (part.samples, part.positions), strict=False):
        walk.unite(labels, own)
    walk.give(node.outputs[0], part.axes(len(axes)), zero=part.zero)
    walk.later(node, partial(set_counts, counts={"num_heads": part.heads}))
    return walk.later(node, partial(_set_turned, turned=part.features[:turned]))


def _pairs(walk: Walk, node: ir.Node, turned: Labels) -> Labels:
    """Neighbours, or a feature of the first half and one of the second."""
    if attribute(node, "interleaved", 0):
        return walk.unite_rows(turned, len(turned) // 2)
    return walk.unite_columns(turned, 2)


def _tie_cache(walk: Walk, node: ir.Node, cache: Axes | None, pairs: Labels, part: ByHead | None) -> None:
    """Tie cosines or sines [N, L, pairs] of the positions of `part`; without it [positions there may be, pairs]."""
    *others, own = cache or [np.zeros(0, np.int64)]
    if len(own) != len(pairs):
        return walk.block(pairs, f"the shapes around {called(node)} are not known")
    walk.unite(own, pairs)
    for labels, tied in zip(others, () if part is None else (part.samples, part.positions), strict=False):
        walk.unite(labels, tied)
    if part is None:
        walk.block(others[0], f"{called(node)} looks it up by computed numbers")
    return None


def _set_turned(removal: Removal, node: ir.Node, *, turned: Labels) -> None:
    """0, the default, is all of them."""
    if attribute(node, "rotary_embedding_dim", 0):
        node.attributes["rotary_embedding_dim"] = ir.AttrInt64("rotary_embedding_dim", int(removal.kept(turned).sum()))
