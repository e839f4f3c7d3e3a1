"""Attention as ONNX Runtime's own operators have it, by the rules of its CPU kernels. ONNX's is in `attention.py`.

Legend: N samples, H heads, Q queries, K keys, D head size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.kernels.dot_product import FLAT, Attend, band, merge_heads, split_heads
from worker.engine.torch_graph.kernels.rotary import rotate
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values, (N, H, K, D)."""


def refuse_forms(node: Node, attributes: Sequence[str], inputs: Mapping[int, str]) -> None:
    """Raises SlimlineError for those `attributes` that are set, and those `inputs`, by number, that are given."""
    for name in attributes:
        if node.get(name, 0):
            raise node.refuse(f"{name}={node.get(name)}", "export without it")
    for index, name in inputs.items():
        if node.has(index):
            raise node.refuse(f"the input {name}", "export without it")


@dataclass(frozen=True)
class Masked:
    """Attention under a padding mask: `closed` is added to the scores at padding, so a sample of it alone is a mean."""

    attend: Attend
    is_causal: bool
    closed: float

    def __call__(
        self, q: torch.Tensor, present: Pair, past: int, mask: torch.Tensor | None, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """(N, H, Q, D). `past`: keys before the queries; `bias` is added to the scores."""
        k, v = present
        queries, keys = q.shape[2], k.shape[2]
        if mask is not None:
            padding = torch.where(_is_open(mask, q.shape[0], keys), 0.0, self.closed).to(q.dtype)
            bias = padding if bias is None else padding + bias
        if self.is_causal:
            allowed = band(queries, keys, past, (-1, 0), q.device)
            # The kernels let the last query see all keys, which shows where there are more than queries and past.
            allowed = allowed | (torch.arange(queries, device=q.device) == queries - 1).unsqueeze(1)
            bias = allowed if bias is None else torch.where(allowed, bias, torch.finfo(q.dtype).min)
        return self.attend.fused(q, k, v, bias)

    def behind(
        self,
        projected: Sequence[torch.Tensor],
        past: torch.Tensor | None,
        mask: torch.Tensor | None,
        bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Pair]:
        """(N, H, Q, D) over new keys behind those of `past` (2, N, H, K, D), and all keys and values.

        A mask (N, 1) or (1, 1) is none, whatever it holds.
        """
        q, k, v = projected
        if mask is not None and mask.dim() == 2 and mask.shape[1] == 1:  # noqa: PLR2004 - ranks
            mask = None
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return self(q, (k, v), k.shape[2] - q.shape[2], mask, bias), (k, v)


def _is_open(mask: torch.Tensor, samples: int, keys: int) -> torch.Tensor:
    """Where a mask of whole numbers has no padding, as it broadcasts to (N, H, Q, K).

    It is (N, K), (N, Q, K), the ends (N) of the samples, or their ends and then their starts (2 N).
    """
    if mask.dim() == 1:
        place = torch.arange(keys, device=mask.device)
        ends = mask[:samples].reshape(-1, 1, 1, 1)
        is_open = place < ends
        if mask.shape[0] == samples:
            return is_open
        return is_open & (place >= mask[samples:].reshape(samples, 1, 1, 1))
    return (mask if mask.dim() == FLAT else mask.unsqueeze(1)).unsqueeze(1).gt(0)


def read_masked(node: Node) -> Masked:
    """The form of the attributes that ONNX Runtime's operators share."""
    scale = node.get("scale", 0.0) or None
    return Masked(Attend(scale), bool(node.get("unidirectional", 0)), node.get("mask_filter_value", -10000.0))


@operator("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: Node) -> Run:
    """Attention over keys and values that come flat, or with heads apart; `bias` belongs to the projections before."""
    refuse_forms(node, (), {8: "past_sequence_length", 9: "cache_indirection"})
    if not (node.has(1) and node.has(2)):
        raise node.refuse("packed queries, keys and values", "send them apart")
    if node.wants(3):
        raise node.refuse("the output qk", "export without it")
    heads, masked = node.need("num_heads"), read_masked(node)

    def run(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None = None,
        *others: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        mask, added, past_k, past_v = (*others, *[None] * 4)[:4]
        if k.dim() == FLAT:
            if bias is not None:
                of_q, of_k, of_v = bias.tensor_split((q.shape[2], q.shape[2] + k.shape[2]))
                q, k, v = q + of_q, k + of_k, v + of_v
            k, v = split_heads(k, heads), split_heads(v, heads)
        elif bias is not None:
            q = q + bias[: q.shape[2]]
        past = 0
        if past_k is not None and past_v is not None:
            past, k, v = past_k.shape[2], torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        return merge_heads(masked(split_heads(q, heads), (k, v), past, mask, added)), k, v

    return run


@operator("Attention", domain=MICROSOFT)
def attention(node: Node) -> Run:
    """Projection to queries, keys and values by one weight (I, 3 * H * D), then attention over them and the past."""
    refuse_forms(node, ("do_rotary", "past_present_share_buffer"), {6: "past_sequence_length"})
    if not node.has(2):
        raise node.refuse("no bias", "send zeros: the kernel of ONNX Runtime needs it")
    if node.has(4) and node.has(5):
        raise node.refuse("a past beside attention_bias", "the kernel of ONNX Runtime takes one of them")
    heads, masked, sizes = node.need("num_heads"), read_masked(node), node.get("qkv_hidden_sizes")

    def run(
        x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, *others: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        mask, past, added = (*others, None, None, None)[:3]
        projected = F.linear(x, w.t(), b)
        parts = projected.tensor_split((sizes[0], sizes[0] + sizes[1]), 2) if sizes else projected.chunk(3, 2)
        y, present = masked.behind([split_heads(each, heads) for each in parts], past, mask, added)
        return merge_heads(y), torch.stack(present) if node.wants(1) else None

    return run


@operator("RotaryEmbedding", domain=MICROSOFT, fixed=(2, 3))
def rotary_embedding(node: Node) -> Run:
    """As ONNX's operator; one position alone is that of the first step."""
    refuse_forms(node, ("is_packed_batching",), {})
    if node.get("scale", 1.0) != 1:
        raise node.refuse("a scale", "scale the angles before")
    width, heads = node.get("rotary_embedding_dim", 0), node.get("num_heads", 0)
    is_interleaved = bool(node.get("interleaved", 0))
    if width and not heads:
        raise node.refuse("rotary_embedding_dim without num_heads")

    def run(x: torch.Tensor, positions: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        is_flat = x.dim() == FLAT
        by_head = split_heads(x, heads or x.shape[2] // (2 * cos.shape[1])) if is_flat else x
        if positions.dim() == 1:
            positions = positions + torch.arange(by_head.shape[2], device=x.device).unsqueeze(0)
        y = rotate(by_head, cos[positions], sin[positions], width, is_interleaved=is_interleaved)
        return merge_heads(y) if is_flat else y

    return run


@operator("GroupQueryAttention", domain=MICROSOFT, host=(6,), fixed=(7, 8))
def group_query_attention(node: Node) -> Run:
    """Causal attention over a cache whose samples have their own lengths; rows of padded queries mean nothing.

    `seqlens_k` is each sample's last valid key. A call with as many queries as `total_sequence_length` starts anew.
    """
    refuse_forms(
        node,
        ("sliding_window_cache", "smooth_softmax", "qk_output", "kv_cache_bit_width"),
        {9: "position_ids", 10: "attention_bias", 11: "head_sink", 12: "k_scale", 13: "v_scale", 14: "q_norm_weight"},
    )
    if not node.get("causal", 1) or {node.get("k_quant_type", "NONE"), node.get("v_quant_type", "NONE")} != {"NONE"}:
        raise node.refuse("a cache that is quantized, or not causal")
    attend = Attend(node.get("scale", 0.0) or None, node.get("softcap", 0.0))
    heads, kv_heads, local = node.need("num_heads"), node.need("kv_num_heads"), node.get("local_window_size", -1)
    window = (local - 1 if local > 0 else -1, 0)
    turns, is_interleaved = bool(node.get("do_rotary", 0)), bool(node.get("rotary_interleaved", 0))

    def run(q: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None, *others: Any) -> tuple[torch.Tensor, ...]:
        past_k, past_v, last, total, cos, sin = (*others, None, None)[:6]
        queries, total = q.shape[1], as_scalar(total)
        q, k, v = _by_head(q, k, v, heads, kv_heads)
        before = None if past_k is None or queries == total else last + 1 - queries
        if turns:
            place = torch.arange(queries, device=q.device) + (0 if before is None else before.unsqueeze(1))
            angles = cos[place].expand(q.shape[0], -1, -1), sin[place].expand(q.shape[0], -1, -1)
            q, k = (rotate(x, *angles, 2 * cos.shape[1], is_interleaved=is_interleaved) for x in (q, k))
        if before is None and not attend.softcap and window == (-1, 0):
            y = attend.fused(q, k, v, is_causal=True)
            k, v = (_stored(new, past, None, total) for new, past in ((k, past_k), (v, past_v)))
        else:
            k, v = (_stored(new, past, before, total) for new, past in ((k, past_k), (v, past_v)))
            mask = band(queries, k.shape[2], 0 if before is None else before.reshape(-1, 1, 1, 1), window, q.device)
            y = attend.staged(q, k, v, mask)[0] if attend.softcap else attend.fused(q, k, v, mask)
        return merge_heads(y), k, v

    return run


def _by_head(
    q: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None, heads: int, kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if k is None or v is None:
        packed = split_heads(q, heads + 2 * kv_heads)
        q, k, v = packed.tensor_split((heads, heads + kv_heads), 1)
        return q, k, v
    return split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)


def _stored(new: torch.Tensor, past: torch.Tensor | None, before: torch.Tensor | None, total: int) -> torch.Tensor:
    """The cache with `new` behind the `before` (N) entries that are valid in `past`; zero behind both."""
    size = total if past is None else max(past.shape[2], total)
    if past is None or before is None:
        return F.pad(new, (0, 0, 0, size - new.shape[2]))
    before = before.long()[:, None, None, None]
    entry = torch.arange(size, device=new.device).unsqueeze(1)
    kept = torch.where(entry < before, F.pad(past, (0, 0, 0, size - past.shape[2])), 0)
    place = before + torch.arange(new.shape[2], device=new.device).unsqueeze(1)
    return kept.scatter(2, place.expand_as(new), new)
