"""What rounds of a step told, put together as one: records of layers, and notes. Nothing is pruned here."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from app.contracts.events import LayerRecord, Trained
from worker.engine.graph import Graph
from worker.engine.tensors.similarity import sqnr_db


def join_records(before: Sequence[LayerRecord], now: Sequence[LayerRecord]) -> list[LayerRecord]:
    """One record for each layer: done if it was in any round, with its first shape and what it has now."""
    first = {each.layer: each for each in before}
    return [_join(first[each.layer], each) if each.layer in first else each for each in now]


def _join(before: LayerRecord, now: LayerRecord) -> LayerRecord:
    is_done = before.done or now.done
    return now.model_copy(
        update={
            "done": is_done,
            "reason": None if is_done else now.reason,
            "shape_before": before.shape_before,
            "sparsity": before.sparsity if now.sparsity is None else now.sparsity,
            "sqnr_db": before.sqnr_db if now.sqnr_db is None else now.sqnr_db,
        }
    )


def measure_change(record: LayerRecord, before: Graph, after: Graph) -> LayerRecord:
    """The record with what can be measured only when the last round has trained: zeros, and what weights became."""
    if not record.done or record.sparsity is None:
        return record
    new = next(layer for layer in after.layers() if layer.name == record.layer)
    old = next(layer for layer in before.layers() if layer.name == record.layer)
    was, now = (
        np.concatenate([graph.array(weight).astype(np.float32).ravel() for weight in layer.weights])
        for graph, layer in ((before, old), (after, new))
    )
    return record.model_copy(update={"sparsity": float(np.mean(now == 0)), "sqnr_db": sqnr_db(was, now)})


def tell_training(curve: Sequence[Trained]) -> Iterator[str]:
    """What a training brought, where something judged it."""
    first, last = curve[0], curve[-1]
    if first.value is not None and last.value is not None:
        yield f"{last.metric} on held-out samples {first.value:.4g} when pruned, {last.value:.4g} when trained"


def tell_rounds(notes: Sequence[Sequence[str]]) -> list[str]:
    """Notes of all rounds: what is told in every one is told once, and else in which."""
    times = Counter(note for told in notes for note in dict.fromkeys(told))
    always = [note for note in dict.fromkeys(notes[0]) if times[note] == len(notes)]
    return [
        f"round {number} of {len(notes)}: {note}"
        for number, told in enumerate(notes, 1)
        for note in told
        if note not in always
    ] + always
