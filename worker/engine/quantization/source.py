"""Where the samples come from that a graph is calibrated on: the user's data or, without any, synthesis."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from worker.engine.graph import Graph
from worker.engine.methods.method import StepContext
from worker.engine.samples import Samples
from worker.engine.synthesis import SynthesisRun, synthesize

_ALIKE = (
    "the calibration data is one sample, or the same one again and again: ranges fit that input alone; "
    "a few hundred different samples do better"
)


def find_samples(graph: Graph, context: StepContext, progress: Callable[[float], None]) -> Samples:
    """Calibration samples for `graph` as it came, its normalizations in place; a note is told where they are made.

    Raises SlimlineError SAMPLES_NEEDED where there is no data and none can be made.
    """
    if context.calibration is not None:
        given = Samples(graph.inputs, context.calibration)
        if _are_alike(given):
            context.record.note(_ALIKE)
        return given
    samples = synthesize(graph, SynthesisRun(context.seed, context.device, progress=progress))
    if samples.note:
        context.record.note(samples.note)
    return replace(samples, note=None)


def _are_alike(samples: Samples) -> bool:
    """Whether there is but one sample; reading stops at the first that differs."""
    first = samples.first()
    return all(
        np.array_equal(array, np.broadcast_to(first[name][:1] if array.ndim else first[name], array.shape))
        for batch in samples.batches()
        for name, array in batch.feed.items()
    )
