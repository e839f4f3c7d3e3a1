"""Calibration without data: inputs synthesised from what a graph itself tells of the inputs it was trained on.

Its face is `synthesize`. Nothing here quantizes.
"""

from worker.engine.synthesis.synthesis import SynthesisRun, synthesize

__all__ = ["SynthesisRun", "synthesize"]
