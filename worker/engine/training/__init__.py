"""Training of a graph: one loop for fine-tuning, distillation, quantization-aware and sparsity-inducing training."""
