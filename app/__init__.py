"""The server: HTTP and SQL. Never imports worker, torch, onnx or onnxruntime."""

__version__ = "0.1.0"
