"""Which samples judge and are not trained on. Reading batches of them is `batches`.

Legend: N samples.
"""

import numpy as np

from worker.engine.data.source import Array, Source

FEWEST, MOST = 20, 2000


def hold_out(source: Source, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Indices to train on and to judge by, both sorted: `share` of the samples judge, at most `MOST`.

    Class indices are held out in proportion: a class of at least 2 / `share` samples is among them, unless `MOST` cuts
    it, and no class is held out whole. Where fewer than `FEWEST` would be held out, none are: they could tell only a
    ruin from a success, as the loss does, and would be missed in the training.
    """
    everything = np.arange(source.samples)
    candidates = _by_class(source, rng.permutation(source.samples))
    count = min(MOST, round(source.samples * share), len(candidates) // 2)
    if count < FEWEST:
        return everything, everything[:0]
    held_out = np.sort(candidates[np.arange(count) * len(candidates) // count])
    return np.setdiff1d(everything, held_out), held_out


def _by_class(source: Source, shuffled: Array) -> Array:
    """`shuffled`, sorted by class, without classes of a single sample; as it is where labels are no class indices."""
    labels = _class_indices(source)
    if labels is None:
        return shuffled
    _, classes, sizes = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    order = np.argsort(classes, kind="stable")
    found: Array = shuffled[order[sizes[classes[order]] > 1]]
    return found


def _class_indices(source: Source) -> Array | None:
    """Class indices [N]; None where labels are missing, maps or no classes."""
    if not source.has_labels:
        return None
    first = source.labels(np.zeros(1, np.int64))
    return source.labels(np.arange(source.samples)) if first.ndim == 1 and first.dtype.kind == "i" else None
