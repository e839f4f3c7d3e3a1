"""Shared by the quantization methods: node patterns that ONNX Runtime runs on integers, and the proof that it does."""
