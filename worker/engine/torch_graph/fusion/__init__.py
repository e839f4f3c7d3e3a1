"""Patterns of nodes that one torch function does: with gradients, or faster, or with less kept for the gradient.

A pattern is matched at its last node. The nodes before it are planned as they are, and dropped if nothing else reads
them; so an observer of a tensor inside a pattern sees it. One file per family of patterns.
"""

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from worker.engine.torch_graph.fusion.activations import match_activation
from worker.engine.torch_graph.fusion.attention import match_attention
from worker.engine.torch_graph.fusion.layer_norm import match_layer_norm
from worker.engine.torch_graph.fusion.pattern import Fused
from worker.engine.torch_graph.fusion.quantization import match_fake_quantization
from worker.engine.torch_graph.scope import Scope

__all__ = ["Fused", "match"]

_LAST_NODES: Mapping[str, Sequence[Callable[[Scope, ir.Node], Fused | None]]] = {
    "DequantizeLinear": (match_fake_quantization,),
    "Mul": (match_activation,),
    "MatMul": (match_attention,),
    "Add": (match_layer_norm,),
}


def match(scope: Scope, node: ir.Node) -> Fused | None:
    """The pattern that ends at `node`, None where there is none."""
    found = (matcher(scope, node) for matcher in _LAST_NODES.get(node.op_type, ()))
    return next((each for each in found if each is not None), None)
