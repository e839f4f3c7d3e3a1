"""Conversion to float16: `operators` and `islands` decide what stays float32, `rewriter` changes the graph."""
