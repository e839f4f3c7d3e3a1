"""Where the samples come from that a graph is calibrated on: the user's data or, without any, synthesis."""

from collections.abc import Callable
from dataclasses import replace

from worker.engine.graph import Graph
from worker.engine.methods.method import StepContext
from worker.engine.samples import Samples
from worker.engine.synthesis import SynthesisRun, synthesize


def find_samples(graph: Graph, context: StepContext, progress: Callable[[float], None]) -> Samples:
    """Calibration samples for `graph` as it came, its normalizations in place; a note is told where they are made.

    Raises SlimlineError SAMPLES_NEEDED where there is no data and none can be made.
    """
    if context.calibration is not None:
        return Samples(graph.inputs, context.calibration)
    samples = synthesize(graph, SynthesisRun(context.seed, context.device, progress=progress))
    if samples.note:
        context.record.note(samples.note)
    return replace(samples, note=None)
