"""Attention as ONNX has it: scaled dot product, rotary positions and linear attention. Contributed ones are apart."""

import math

import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.kernels.dot_product import FLAT, Attend, band, join_masks, merge_heads, split_heads
from worker.engine.torch_graph.kernels.rotary import rotate
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

# Inputs and outputs by number, legend as in `dot_product`.
QUERY, VALUE, MASK = 0, 2, 3
SCORES = 3
CAUSAL, ANY = (-1, 0), (-1, -1)
"""Windows: keys to the left and right of a query, -1 for any number."""


@operator("Attention")
def attention(node: Node) -> Run:
    """Softmax(cap(Q K' * scale) + mask) V, a row without keys being zero; keys and values join what `past` holds."""
    _check_attention(node)
    attend, window, is_fused = _form(node), _window(node), _fits_fused(node)
    q_heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
    stage = node.get("qk_matmul_output_mode", 0)

    def run(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None = None,
        *others: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        past_k, past_v, lengths = (*others, None, None, None)[:3]
        is_flat, past = q.dim() == FLAT, 0
        if is_flat:
            q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
        if past_k is not None and past_v is not None:
            past, k, v = past_k.shape[2], torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        scores = None
        has_kernel = is_fused and not attend.is_stepwise(q)
        if has_kernel and window == CAUSAL and mask is None and past_k is None and lengths is None:
            y = attend.fused(q, k, v, is_causal=True)
        else:
            mask = None if mask is None else _fitted(mask, k.shape[2])
            mask = _join(mask, q, k, past if lengths is None else lengths.reshape(-1, 1, 1, 1), window)
            if has_kernel:
                y = attend.fused(q, k, v, mask)
            else:
                y, scores = attend.staged(q, k, v, mask, stage)
        return merge_heads(y) if is_flat else y, k, v, scores

    return run


def _check_attention(node: Node) -> None:
    query, value, mask = node.input_type(QUERY), node.input_type(VALUE), node.input_type(MASK)
    if query is not None and value is not None and query != value:
        raise node.refuse("values of another type than queries", "cast them before")
    if mask is not None and mask not in (ir.DataType.BOOL, query):
        raise node.refuse(f"a mask of {mask.name.lower()}", "send booleans, or the type of the queries")
    if node.get("scale", 1.0) < 0:
        raise node.refuse("a negative scale has no root")


def _form(node: Node) -> Attend:
    precision = node.get("softmax_precision")
    softmax = None if precision is None else held_as(ir.DataType(precision))
    return Attend(node.get("scale"), node.get("softcap", 0.0), softmax, node.input_type(QUERY))


def _window(node: Node) -> tuple[int, int]:
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    return (left, 0) if node.get("is_causal", 0) else (left, right)


def _fits_fused(node: Node) -> bool:
    """Whether torch's kernels give what is asked. Below float64 they take the softmax in float32 or as well."""
    precision, dtype = node.get("softmax_precision"), node.input_type(QUERY)
    is_precise = precision in (None, dtype) or (precision == ir.DataType.FLOAT and dtype != ir.DataType.DOUBLE)
    return not node.wants(SCORES) and not node.get("softcap", 0.0) and is_precise and dtype is not None


def _fitted(mask: torch.Tensor, keys: int) -> torch.Tensor:
    """At least two dimensions, and closed for keys behind its end: a last dimension of one is no broadcast."""
    mask = mask if mask.dim() > 1 else mask.unsqueeze(0)
    missing = keys - mask.shape[-1]
    return F.pad(mask, (0, missing), value=False if mask.dtype is torch.bool else -math.inf) if missing > 0 else mask


def _join(
    mask: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor, before: int | torch.Tensor, window: tuple[int, int]
) -> torch.Tensor | None:
    """All masks in one. `before`: keys before the queries, or valid keys of each sample, the queries' own the last."""
    queries, keys = q.shape[2], k.shape[2]
    if isinstance(before, torch.Tensor):
        mask = join_masks(torch.arange(keys, device=q.device) < before, mask)
        before = before - queries
    return mask if window == ANY else join_masks(band(queries, keys, before, window, q.device), mask)


@operator("RotaryEmbedding", fixed=(1, 2))
def rotary_embedding(node: Node) -> Run:
    """Turn pairs of features by angles that grow with the position (https://arxiv.org/abs/2104.09864).

    A pair is features i and i + half, or neighbours if `interleaved`. Features behind `rotary_embedding_dim` stay.
    """
    is_interleaved, heads = bool(node.get("interleaved", 0)), node.get("num_heads", 0)
    width = node.get("rotary_embedding_dim", 0)

    def run(
        x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor | None = None
    ) -> torch.Tensor:
        if positions is not None:
            cos, sin = cos[positions], sin[positions]
        if x.dim() == FLAT:
            by_head = split_heads(x, heads)
            return merge_heads(rotate(by_head, cos, sin, width, is_interleaved=is_interleaved))
        return rotate(x, cos, sin, width, is_interleaved=is_interleaved)

    return run
