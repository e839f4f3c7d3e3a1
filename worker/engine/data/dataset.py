"""`Dataset`: stored samples as batches a graph can be fed with. Reading a format is the source's; nothing is cached."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from app.contracts.facts import DatasetFacts, TensorSpec
from app.contracts.preprocess import Preprocess
from worker.engine.data import fit
from worker.engine.data.facts import check_every_number, describe
from worker.engine.data.source import Array, Labels, Source, read_finite


@dataclass(frozen=True)
class Batch:
    """Inputs by name, and labels where there are any.

    The first `count` rows are samples; where the graph's batch size is fixed, the last one is repeated to fill up.
    `labels` has `count` rows.
    """

    feed: dict[str, Array]
    labels: Labels | None
    count: int


class Dataset:
    """A dataset, open for reading. Close it, or use it as a context manager. `path` is where others can open it."""

    def __init__(self, source: Source, preprocess: Preprocess | None, path: Path | None = None) -> None:
        self.source, self.preprocess, self.path = source, preprocess, path

    def __len__(self) -> int:
        return self.source.samples

    @cached_property
    def facts(self) -> DatasetFacts:
        """What the file holds. Only `check_dataset` has looked at every number."""
        return describe(self.source, self.preprocess)

    def batches(
        self, specs: Sequence[TensorSpec], batch_size: int, *, limit: int | None = None, seed: int | None = None
    ) -> Iterator[Batch]:
        """Batches for a graph with inputs `specs`: in stored order, or shuffled by `seed`.

        `limit` takes that many samples, evenly spread over the file (it may be sorted by class), or the first of the
        shuffled. A fixed batch size in the graph wins over `batch_size`. Raises SlimlineError as `check_for` does, and
        DATA_NOT_FINITE.
        """
        self.check_for(specs)
        order = _order(len(self), limit, seed)
        size = fit.fixed_batch(specs) or batch_size
        for start in range(0, len(order), size):
            yield self.batch(specs, order[start : start + size])

    def batch(self, specs: Sequence[TensorSpec], indices: Array) -> Batch:
        """Those samples, in that order; where the graph's batch size is fixed, filled up to a multiple of it."""
        padded = np.pad(indices, (0, -len(indices) % (fit.fixed_batch(specs) or 1)), mode="edge")
        feed = {spec.name: fit.cast(spec, self._value(spec, specs, padded)) for spec in specs}
        labels = self.source.labels(indices) if self.source.has_labels else None
        return Batch(feed, labels, len(indices))

    def check_for(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec] | None = None) -> None:
        """Whether a graph with these inputs (and outputs, for the range of the labels) can be fed from here.

        Raises SlimlineError DATA_ARRAYS_MISMATCH, DATA_SHAPE_MISMATCH, DATA_DTYPE_MISMATCH, PREPROCESS_MISMATCH or
        LABELS_OUT_OF_RANGE, with what the dataset has and what the model wants.
        """
        first = np.zeros(1, np.int64)
        fixed = fit.fixed_batch(inputs)
        for spec in inputs:
            fit.check_input(spec, self._value(spec, inputs, first), fixed)
        if outputs and self.source.has_labels:
            fit.check_labels(outputs, self.facts)

    def check_numbers(self) -> None:
        """Read every float once. Raises SlimlineError DATA_NOT_FINITE naming the array and the first bad sample."""
        check_every_number(self.source)

    def close(self) -> None:
        """Close the file and drop what was unpacked from it."""
        self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _value(self, spec: TensorSpec, specs: Sequence[TensorSpec], indices: Array) -> Array:
        """The preprocessed samples for one input of the graph."""
        name = fit.stored_name(spec, specs, self.source)
        if name in self.source.constants:
            return self.source.constants[name]
        stored = read_finite(self.source, name, indices)
        return fit.preprocess(stored, spec, self.source, self.preprocess, alone=len(specs) == 1)


def _order(samples: int, limit: int | None, seed: int | None) -> Array:
    count = min(samples, limit or samples)
    if seed is not None:
        return np.random.default_rng(seed).permutation(samples)[:count]
    return np.arange(count) * samples // count
