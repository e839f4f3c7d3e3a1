"""QAttention: Microsoft's Attention whose projection multiplies 8-bit codes. Attention of floats is apart.

That is in `contributed_attention.py`, whose rules for masks and the past hold here.
"""

from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.kernels.dot_product import FLAT, merge_heads, split_heads
from worker.engine.torch_graph.kernels.integer_arithmetic import multiply, per_column
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.operators.contributed_attention import read_masked, refuse_forms
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

T = ir.DataType
MASK, ARGUMENTS = 5, 9


@operator("QAttention", domain=MICROSOFT, fixed=(0, 1, 5, 6, 7))
def q_attention(node: Node) -> Run:
    """Projection of codes by a weight (I, 3 * H * D) of codes, then attention in float32 over that and the past.

    Scale and zero point of the input are one number; those of the weight are one, or one for each column. Gradients
    reach the scales, the bias and the past.
    """
    _check(node)
    heads, masked = node.need("num_heads"), read_masked(node)

    def run(*inputs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, w, b, x_scale, w_scale, mask, x_zero, w_zero, past = (*inputs, *[None] * 4)[:ARGUMENTS]
        total = multiply(x, w, None if x_zero is None else x_zero.reshape(()), w_zero)
        projected = total.float() * (x_scale.reshape(()) * per_column(w_scale)) + b
        y, present = masked.behind([split_heads(each, heads) for each in projected.chunk(3, 2)], past, mask)
        return merge_heads(y), torch.stack(present) if node.wants(1) else None

    return run


def _check(node: Node) -> None:
    refuse_forms(node, ("do_rotary", "past_present_share_buffer"), {})
    if node.input_type(0) is not T.UINT8 or node.input_type(1) not in (T.INT8, T.UINT8):
        raise node.refuse("codes of other types", "quantize the input to uint8, the weight to int8 or uint8")
    if (node.rank(MASK) or 0) > FLAT:
        raise node.refuse("a mask of rank 4", "give a mask (N, Q, K): ONNX Runtime has no CPU kernel for this one")
    if node.input_type(3) not in (None, T.FLOAT):
        raise node.refuse("only float32 is run", "give the scales and the bias in float32")
