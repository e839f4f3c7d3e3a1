"""The graph: the one form a method sees. Files, edits, layers and cost live here; no torch, no ONNX Runtime."""

from worker.engine.graph.graph import Graph
from worker.engine.graph.layers import Layer

__all__ = ["Graph", "Layer"]
