"""Statistics restored after weights became zero: which channels may be scaled and shifted, and what is told of it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Record
from worker.engine.pruning.restoration import Kept, restore_statistics
from worker.engine.quantization.calibration import Pass
from worker.engine.wording import counted

NOT_RUN = frozenset({"OPERATOR_UNSUPPORTED", "TENSOR_TYPE_UNSUPPORTED"})
"""Codes of graphs that torch cannot run: these are pruned without a look at data."""


def restore_sparse(sparse: Graph, original: Graph, layers: Sequence[Layer], run: Pass, record: Record) -> None:
    """Scale and shift channels of `layers` of `sparse`, and of BatchNormalization, where outputs come closer by it.

    Zeros stay zero, and other layers as they are. What came of it is noted.
    """
    free = free_tensors(sparse, layers)
    shapes = {value.name: value.shape for node in original.nodes() for value in node.outputs if value.name in free}

    def kept(tensor: str, axis: int) -> NDArray[np.intp] | None:
        shape = shapes.get(tensor)
        size = shape[axis] if shape is not None else None
        return np.arange(size) if isinstance(size, int) else None

    restore_and_tell(sparse, original, kept, run, record)


def free_tensors(graph: Graph, layers: Sequence[Layer]) -> set[str | None]:
    """Tensors whose channels may be scaled and shifted: what `layers` give, and BatchNormalization."""
    norms = {node.outputs[0].name for node in graph.nodes() if node.op_type == "BatchNormalization"}
    return {layer.node.outputs[0].name for layer in layers} | norms


def restore_and_tell(pruned: Graph, original: Graph, kept: Kept, run: Pass, record: Record) -> None:
    """As `restore_statistics`; a graph that torch cannot run stays as it is. What came of it is noted."""
    try:
        found = restore_statistics(pruned, original, kept, run)
    except SlimlineError as error:
        if error.failure.code not in NOT_RUN:
            raise
        record.note(f"statistics were not restored: {error.failure.message}")
        return
    if found is not None and found.nodes:
        gain = f"from {found.before.cosine:.3f} to {found.after.cosine:.3f}, the cosine of outputs with the original's"
        record.note(f"statistics of {counted(len(found.nodes), 'node')} restored on calibration data: {gain}")
