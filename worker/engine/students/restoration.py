"""Statistics of a student that inherits weights, restored against the graph it was made from. No weights are drawn."""

import numpy as np
from numpy.typing import NDArray

from worker.engine.graph import Graph
from worker.engine.methods.method import Record
from worker.engine.pruning.restoration import Kept
from worker.engine.pruning.sparse_restoration import restore_and_tell
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Guess
from worker.engine.students.context import StudentContext

_SAMPLES = 512


def restore(student: Graph, original: Graph, kept: Kept, context: StudentContext) -> None:
    """Scale and shift channels of `student`, in place, where its outputs come closer to those of `original`.

    Made-up inputs tell nothing of statistics: with those it stays as it is. What came of it is noted.
    """
    if isinstance(context.samples.source, Guess):
        return
    record = Record(0, "train")
    restore_and_tell(student, original, kept, Pass(context.samples, _SAMPLES, context.device), record)
    for note in record.notes:
        context.note(note)


def keep_all(graph: Graph) -> Kept:
    """For a student whose tensors have all the channels that those of `graph` have."""
    shapes = {value.name: value.shape for node in graph.nodes() for value in node.outputs}

    def kept(tensor: str, axis: int) -> NDArray[np.intp] | None:
        shape = shapes.get(tensor)
        size = shape[axis] if shape is not None else None
        return np.arange(size) if isinstance(size, int) else None

    return kept
