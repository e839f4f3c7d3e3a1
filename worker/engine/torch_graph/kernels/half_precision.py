"""Softmax in float16 and bfloat16: on the CPU rounded after each step, as ONNX's reference does.

On other devices, where these types are used for speed, torch's kernel runs, which rounds once.
"""

import onnx_ir as ir
import torch

HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def rounds_each_step(x: torch.Tensor, declared: ir.DataType | None) -> bool:
    """Whether the graph itself declares `x` so: under autocast the kernel computes in float32."""
    return declared in HALVES and x.is_cpu and x.dtype.itemsize == 2 and x.numel() > 0  # noqa: PLR2004 - bytes


def stepwise_softmax(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The powers exp(x - max) over their sum, each rounded."""
    powers = (x - x.amax(dim, keepdim=True)).exp()
    return powers / powers.sum(dim, keepdim=True)
