"""Shared by the quantization methods: calibration, node patterns that fuse, float16, and the proof of a gain."""
