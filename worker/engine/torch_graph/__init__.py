"""The trainable graph: an ONNX graph as a torch module. Its face is `TorchGraph`."""

from worker.engine.torch_graph.module import TorchGraph

__all__ = ["TorchGraph"]
