"""Shared by the quantization methods: calibration, the rewrites of graphs, and what holds before and after."""
