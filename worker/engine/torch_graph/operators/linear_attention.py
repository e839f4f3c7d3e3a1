"""Linear attention: a matrix for memory in place of a softmax over keys. Attention over keys is in `attention.py`.

Legend: N samples, T steps, H key and value heads, R queries for each, D and E sizes of keys and values.
"""

import math

import torch

from worker.engine.torch_graph.kernels.dot_product import split_heads
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""Whether the memory decays, and whether only what it does not know yet is written."""
DECAY, BETA = 4, 5


@operator("LinearAttention")
def linear_attention(node: Node) -> Run:
    """S' = exp(g) S + k (beta (v - exp(g) S' k)), output scale * q S': step by step and in float32, as ONNX asks."""
    rule = node.get("update_rule", "gated_delta")
    if rule not in RULES:
        raise node.refuse(f"update_rule {rule!r}", f"one of {', '.join(RULES)}")
    if (node.has(DECAY), node.has(BETA)) != RULES[rule]:
        raise node.refuse(f"update_rule {rule!r} with these inputs", "gated rules take decay, delta rules beta")
    heads, q_heads, fixed_scale = node.need("kv_num_heads"), node.need("q_num_heads"), node.get("scale", 0.0)

    def run(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        memory: torch.Tensor | None = None,
        *gates: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        decay, beta = (*gates, None, None)[:2]
        q, k, v = (split_heads(x.float(), each) for x, each in ((query, q_heads), (key, heads), (value, heads)))
        q = q * (fixed_scale or 1 / math.sqrt(q.shape[3]))
        q = q.reshape(q.shape[0], heads, q_heads // heads, *q.shape[2:]).transpose(2, 3)
        kept = None if decay is None else split_heads(decay.float(), heads).exp().unsqueeze(-1)
        rate = None if beta is None else split_heads(beta.float(), beta.shape[2])
        state = q.new_zeros(*k.shape[:2], k.shape[3], v.shape[3]) if memory is None else memory.float()
        outputs = []
        for step in range(k.shape[2]):
            state = state if kept is None else state * kept[:, :, step]
            k_t, v_t = k[:, :, step], v[:, :, step]
            if rate is not None:
                v_t = rate[:, :, step] * (v_t - (k_t.unsqueeze(-2) @ state).squeeze(-2))
            state = state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
            outputs.append(q[:, :, step] @ state)
        y = torch.stack(outputs, 1).flatten(2)
        return y.to(query.dtype), state.to(query.dtype if memory is None else memory.dtype)

    return run
