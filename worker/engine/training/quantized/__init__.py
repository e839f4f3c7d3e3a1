"""Quantization-aware training: a quantized graph as floats behind fake quantization, and back to integers."""

from worker.engine.training.quantized.rewriting import QuantizedRewriting, has_codes

__all__ = ["QuantizedRewriting", "has_codes"]
