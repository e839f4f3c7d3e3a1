"""The benchmark for a machine with CUDA, where only the engine's own packages are installed."""
