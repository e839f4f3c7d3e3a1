"""Linear algebra: matrix products and sums over products. Products of quantized integers are in other families."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator


def _is_integer(node: Node) -> bool:
    dtype = node.input_type(0) or node.output_type()
    return dtype is not None and dtype.is_integer()


def _modular(product: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`product` of whole numbers of any type, modulo two to its width, as NumPy wraps.

    torch has these products for signed 64 bits alone, and only on the CPU: an accelerator's tensors go there and back.
    """

    def run(*factors: torch.Tensor) -> torch.Tensor:
        first = factors[0]
        return product(*(x.to("cpu", torch.int64) for x in factors)).to(first.device, first.dtype)

    return run


@operator("MatMul")
def matmul(node: Node) -> Run:
    """As numpy.matmul: a vector is a row on the left and a column on the right, leading dimensions broadcast."""
    return _modular(torch.matmul) if _is_integer(node) else torch.matmul


@operator("Gemm")
def gemm(node: Node) -> Run:
    """Y = alpha * A' B' + beta * C, C broadcast to the product. As exporters write it, C a vector, F.linear."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    turns_a, turns_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    if _is_integer(node):
        return _integer_gemm(node)

    def general(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        a, b = a.t() if turns_a else a, b.t() if turns_b else b
        if c is not None:
            return torch.addmm(c, a, b, beta=beta, alpha=alpha)
        return a @ b if alpha == 1 else a @ b * alpha

    def plain(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        return F.linear(a, b, c) if c is None or c.dim() == 1 else torch.addmm(c, a, b.t())

    is_plain = turns_b and not turns_a and alpha == 1 and (beta == 1 or not node.has(2))
    return plain if is_plain else general


def _integer_gemm(node: Node) -> Run:
    """Exact where alpha and beta are whole; other products are taken as float64 and cut toward zero."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    turns_a, turns_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    is_whole = float(alpha).is_integer() and float(beta).is_integer()
    scale, shift = (int(alpha), int(beta)) if is_whole else (alpha, beta)

    def product(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        y = (a.t() if turns_a else a) @ (b.t() if turns_b else b)
        if not is_whole:
            y = y.double()
        y = y * scale
        return y if c is None else y + c * shift

    wrapped = _modular(product)
    return lambda a, b, c=None: wrapped(a, b) if c is None else wrapped(a, b, c)


@operator("Einsum")
def einsum(node: Node) -> Run:
    """Sums of products over the indices that the output does not name; half precision is torch's own."""
    equation = "".join(str(node.need("equation")).split())
    if not equation:
        raise node.refuse("the equation is empty")

    def sums(*operands: torch.Tensor) -> Any:
        return torch.einsum(equation, *operands)

    return _modular(sums) if _is_integer(node) else sums
