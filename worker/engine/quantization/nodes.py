"""Reads nodes: a number among the attributes."""

import onnx_ir as ir


def attribute(node: ir.Node, name: str, default: float) -> float:
    """A number among a node's attributes."""
    return float(node.attributes[name].value) if name in node.attributes else default
