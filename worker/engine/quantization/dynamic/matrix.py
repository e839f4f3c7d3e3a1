"""MatMul and Gemm with a constant right operand. Legend: B stacks, K reduction, N output channels."""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import owner_of
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.dynamic.draft import Draft, Product, source_of
from worker.engine.quantization.dynamic.operand import Operand, operand_at
from worker.engine.quantization.nodes import attribute

_WEIGHT, _BIAS = 1, 2


def matmul_obstacle(node: ir.Node) -> str | None:
    """Why a MatMul stays as it is."""
    return "its weight is the left operand" if trace_weight(node.inputs[_WEIGHT]) is None else None


def gemm_obstacle(node: ir.Node) -> str | None:
    """Why a Gemm stays as it is."""
    if attribute(node, "transA", 0):
        return "its input comes transposed (transA)"
    return "its bias is scaled (beta)" if attribute(node, "beta", 1) != 1 else None


def matmul_operands(node: ir.Node) -> tuple[Operand, ...]:
    """The matrix [K, N] or the stack [B, K, N]; a scale for each channel of each matrix."""
    traced = trace_weight(node.inputs[_WEIGHT])
    rank = len(traced[1]) if traced else 0
    axes = tuple(range(rank))
    return (operand_at(node, _WEIGHT, axes, (*axes[: rank - 2], rank - 1)),)


def gemm_operands(node: ir.Node) -> tuple[Operand, ...]:
    """The matrix [K, N], through transB."""
    is_turned = bool(attribute(node, "transB", 0))
    return (operand_at(node, _WEIGHT, (1, 0) if is_turned else (0, 1), (0,) if is_turned else (1,)),)


def rewrite_matmul(layer: Layer, draft: Draft) -> None:
    """Replace a MatMul."""
    _rewrite(layer, draft, matmul_operands(layer.node)[0], None)


def rewrite_gemm(layer: Layer, draft: Draft) -> None:
    """Replace a Gemm; `alpha` goes into the scales."""
    bias = layer.node.inputs[_BIAS] if len(layer.node.inputs) > _BIAS else None
    _rewrite(layer, draft, gemm_operands(layer.node)[0], bias)


def _rewrite(layer: Layer, draft: Draft, operand: Operand, bias: ir.Value | None) -> None:
    node = layer.node
    scale = draft.weights.scale(operand) * np.float32(attribute(node, "alpha", 1))
    if scale.size == 1:
        scale = scale.reshape(())
    elif scale.ndim == 2:  # noqa: PLR2004 - a matrix, no stack: the fused kernel wants a vector
        scale = scale.reshape(-1)
    made, quantized = draft.quantized(source_of(node), owner_of(node))
    product = Product(operand, scale, node.outputs[0].name or layer.name, bias=bias)
    chain = draft.product(quantized, product)
    draft.editor.replace(node, [*made, *chain], chain[-1].outputs)
