"""Layer normalizations as ONNX Runtime's own operators have them: with a sum before, without a mean, of embeddings.

Some of their outputs only its training reads. ONNX's own normalizations are in `normalization.py`.
"""

from collections.abc import Callable

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.operators.normalization import rms_norm
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

SKIP_EPSILON = 1e-12
GROUP_EPSILON = 1e-5
Statistics = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
"""What is normalized, then the mean and the inverse deviation where anybody reads them."""


def _inverse_rms(x: torch.Tensor, axis: int, epsilon: float) -> torch.Tensor:
    axes = list(range(axis % x.dim(), x.dim()))
    return (x.float().square().mean(axes, keepdim=True) + epsilon).rsqrt()


def simplified_layer_normalization(node: Node) -> Run:
    """RMS normalization (Zhang and Sennrich 2019) over `axis` and after; the second output is 1 / RMS."""
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    if node.get("stash_type", ir.DataType.FLOAT) != ir.DataType.FLOAT:
        raise node.refuse(f"stash_type {node.get('stash_type')}", "statistics are computed in float32, stash_type 1")

    def run(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, scale, axis, epsilon)

    def run_with_statistics(x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return run(x, scale), _inverse_rms(x, axis, epsilon)

    return run_with_statistics if node.wants(1) else run


# ONNX Runtime has it without a domain, some exporters write Microsoft's.
operator("SimplifiedLayerNormalization")(simplified_layer_normalization)
operator("SimplifiedLayerNormalization", domain=MICROSOFT)(simplified_layer_normalization)


def _skipping(node: Node, normalize: Callable[..., Statistics]) -> Run:
    """`normalize` the sum of input, skip and bias, which is the last output."""
    wants_more = any(node.wants(index) for index in (1, 2, 3))

    def run(x: torch.Tensor, skip: torch.Tensor, bias: torch.Tensor | None, *parameters: torch.Tensor | None) -> object:
        total = x + skip if bias is None else x + skip + bias
        normalized = normalize(total, *parameters)
        return (*normalized, total) if wants_more else normalized[0]

    return run


@operator("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(node: Node) -> Run:
    """Layer normalization of input + skip + bias over the last dimension."""
    epsilon, wants_statistics = node.get("epsilon", SKIP_EPSILON), node.wants(1) or node.wants(2)

    def normalize(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor | None) -> Statistics:
        if not wants_statistics:
            return torch.layer_norm(x, x.shape[-1:], gamma, beta, epsilon), None, None
        y, mean, deviation = torch.native_layer_norm(x, x.shape[-1:], gamma, beta, epsilon)
        return y, mean.float(), deviation.float()

    skipping = _skipping(node, normalize)

    def run(
        x: torch.Tensor,
        skip: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> object:
        return skipping(x, skip, bias, gamma, beta)

    return run


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(node: Node) -> Run:
    """RMS normalization of input + skip + bias over the last dimension. It has no mean to give."""
    epsilon, wants_deviation = node.get("epsilon", SKIP_EPSILON), node.wants(2)
    if node.wants(1):
        raise node.refuse("the output mean", "leave it out: nothing is subtracted")

    def normalize(x: torch.Tensor, gamma: torch.Tensor) -> Statistics:
        return rms_norm(x, gamma, -1, epsilon), None, _inverse_rms(x, -1, epsilon) if wants_deviation else None

    skipping = _skipping(node, normalize)

    def run(x: torch.Tensor, skip: torch.Tensor, gamma: torch.Tensor, bias: torch.Tensor | None = None) -> object:
        return skipping(x, skip, bias, gamma)

    return run


@operator("EmbedLayerNormalization", domain=MICROSOFT, fixed=(0, 1, 7, 8))
def embed_layer_normalization(node: Node) -> Run:
    """BERT's embeddings of words, positions and segments, summed and normalized; the last output is the sum.

    The second one counts the elements of `mask` that are 1, in each row.
    """
    epsilon, counts = node.get("epsilon", SKIP_EPSILON), bool(node.get("mask_index_type", 1))

    def run(words: torch.Tensor, segments: torch.Tensor | None, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        word_table, position_table, segment_table, gamma, beta, *optional = rest
        mask, positions = (*optional, None, None)[:2]
        places = position_table[: words.shape[1]] if positions is None else F.embedding(positions, position_table)
        total = F.embedding(words, word_table) + places
        if segments is not None and segment_table is not None:
            total = total + F.embedding(segments, segment_table)
        ends = words.new_zeros(words.shape[0]) if mask is None or not counts else (mask == 1).sum(1, dtype=mask.dtype)
        return torch.layer_norm(total, total.shape[-1:], gamma, beta, epsilon), ends, total

    return run


@operator("GroupNorm", domain=MICROSOFT)
def group_norm(node: Node) -> Run:
    """Group normalization, SiLU behind it where `activation` is 1. Channels come last unless `channels_last` is 0."""
    groups, epsilon = node.need("groups"), node.get("epsilon", GROUP_EPSILON)
    activation, is_last = node.need("activation"), bool(node.get("channels_last", 1))
    if activation not in (0, 1):
        raise node.refuse(f"activation {activation}", "0 for none, 1 for SiLU")

    def run(x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
        x = x.movedim(-1, 1) if is_last else x
        y = F.group_norm(x, groups, gamma.to(x.dtype), beta.to(x.dtype), epsilon)
        y = F.silu(y) if activation else y
        return y.movedim(1, -1) if is_last else y

    return run
