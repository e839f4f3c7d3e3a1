"""Exact sums of products of 8-bit codes. torch has no fast integer kernels, so a wide enough floating type does them.

Windows and their padding are in `windows.py`.
"""

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.windows import Window, flat_pads, is_even, read_window, resolve_pads
from worker.engine.torch_graph.node import Node

Parameter = TypeVar("Parameter", torch.Tensor, torch.Tensor | None)
"""A scale or a zero point; what may be left out stays left out."""
_LARGEST_PRODUCT = 255 * 255
"""Of two 8-bit codes less their zero points."""
_EXACT_IN_FLOAT32 = 1 << 24
_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def multiply(
    a: torch.Tensor, b: torch.Tensor, a_zero_point: torch.Tensor | None, b_zero_point: torch.Tensor | None
) -> torch.Tensor:
    """The matrix product of two code tensors less their zero points: whole numbers in float32 or float64.

    A vector of zero points has one for each row of `a`, for each column of `b`.
    """
    dtype = summing_type(a.shape[-1], a.device)
    return torch.matmul(centre(a, per_row(a_zero_point), dtype), centre(b, per_column(b_zero_point), dtype))


def per_row(parameter: Parameter) -> Parameter:
    """A scale or zero point of a left operand, to broadcast against it and the product."""
    if parameter is None or parameter.dim() != 1:
        return parameter
    return parameter.reshape(()) if parameter.numel() == 1 else parameter.unsqueeze(-1)


def per_column(parameter: Parameter) -> Parameter:
    """A scale or zero point of a right operand, to broadcast against it and the product."""
    return parameter.reshape(()) if parameter is not None and parameter.shape == (1,) else parameter


class Convolution:
    """The convolution of code tensors less their zero points. Its padding is with zeros after that subtraction."""

    def __init__(self, node: Node) -> None:
        """Reads the window attributes. Raises SlimlineError OPERATOR_UNSUPPORTED for those that are not run."""
        self.window: Window = read_window(node)
        if self.window.rank not in (None, *_CONVOLUTIONS):
            raise node.refuse(f"{self.window.rank} spatial axes are not run", "use 1 to 3")
        self.groups: int = node.get("group", 1)
        self._has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it so

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        x_zero_point: torch.Tensor | None,
        weight_zero_point: torch.Tensor | None,
    ) -> torch.Tensor:
        """Whole numbers in float32 or float64. Zero points of `weight` are one, or one for each output channel."""
        dtype = self._summing_type(weight)
        x = centre(x, per_column(x_zero_point), dtype)
        weight = centre(weight, per_channel(weight_zero_point, weight.dim()), dtype)
        pads = resolve_pads(self.window, x.shape[2:], weight.shape[2:])
        padding: Sequence[int] = pads[0]
        if not is_even(pads):
            x, padding = F.pad(x, flat_pads(pads)), (0,)
        convolution = _CONVOLUTIONS[weight.dim() - 2]
        return convolution(x, weight, None, self.window.strides, padding, self.window.dilations, self.groups)

    def _summing_type(self, weight: torch.Tensor) -> torch.dtype:
        # Fast float32 convolutions (Winograd's in cuDNN and NNPACK) are not exact; oneDNN's direct one, on a CPU, is.
        if weight.device.type == "cpu" and self._has_onednn:
            return summing_type(weight.shape[1:].numel(), weight.device)
        return torch.float64


def per_channel(parameter: Parameter, rank: int, axis: int = 0) -> Parameter:
    """A vector of scales or zero points laid along `axis` of a tensor with `rank` dimensions."""
    if parameter is None or parameter.dim() == 0:
        return parameter
    return parameter.reshape([-1 if i == axis else 1 for i in range(rank)])


def centre(codes: torch.Tensor, zero_point: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Codes less their zero point, in `dtype`."""
    return codes.to(dtype) if zero_point is None else codes.to(dtype) - zero_point.to(dtype)


def summing_type(terms: int, device: torch.device) -> torch.dtype:
    """The type in which a sum of so many products is exact in any order. Autocast leaves only float64 alone."""
    if terms * _LARGEST_PRODUCT < _EXACT_IN_FLOAT32 and not torch.is_autocast_enabled(device.type):
        return torch.float32
    return torch.float64


def to_int32(total: torch.Tensor) -> torch.Tensor:
    """Whole numbers as int32; beyond it they wrap, as sums of 32 bits do."""
    return total.to(torch.int32) if total.dtype == torch.float32 else total.to(torch.int64).to(torch.int32)
