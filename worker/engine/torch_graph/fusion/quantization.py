"""QuantizeLinear, then DequantizeLinear with the same scale and zero point: fake quantization, which has gradients."""

from functools import partial

import onnx_ir as ir

from worker.engine.torch_graph.fusion.pattern import Fused
from worker.engine.torch_graph.kernels.affine_quantization import bounds, has_bounds
from worker.engine.torch_graph.kernels.fake_quantize import fake_quantize, fake_quantize_float
from worker.engine.torch_graph.scope import Scope

_DEFAULT_AXIS = 1
_FLOATS = frozenset({ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT4E2M1})


def match_fake_quantization(scope: Scope, node: ir.Node) -> Fused | None:
    """Both nodes of one domain, their parameters the same tensors, and the type that goes in comes out."""
    codes = scope.resolve(node.inputs[0])
    first = codes.producer() if codes is not None and not scope.watches(codes) else None
    if first is None or codes is None or (first.op_type, first.domain) != ("QuantizeLinear", node.domain):
        return None
    scale, zero_point = _parameters(scope, first)
    if (scale, zero_point) != _parameters(scope, node) or _placing(first) != _placing(node):
        return None
    x = scope.resolve(first.inputs[0])
    if {scope.type_of(x), scope.type_of(scale)} != {node.outputs[0].dtype} or "precision" in first.attributes:
        return None
    axis, block_size = _placing(node)
    dtype = scope.type_of(codes)
    if dtype is not None and has_bounds(dtype):
        low, high = bounds(dtype)
        run = partial(fake_quantize, axis=axis, block_size=block_size, low=low, high=high)
        return Fused(run, (x, scale, zero_point))
    if dtype in _FLOATS and zero_point is None:
        saturate = first.attributes.get("saturate")
        saturates = saturate is None or bool(saturate.as_int())
        return Fused(
            partial(fake_quantize_float, axis=axis, block_size=block_size, dtype=dtype, saturate=saturates), (x, scale)
        )
    return None


def _parameters(scope: Scope, node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    scale, zero_point = (*node.inputs[1:], None)[:2]
    return scope.resolve(scale), scope.resolve(zero_point)


def _placing(node: ir.Node) -> tuple[int, int]:
    axis, block_size = (node.attributes.get(name) for name in ("axis", "block_size"))
    return axis.as_int() if axis else _DEFAULT_AXIS, block_size.as_int() if block_size else 0
