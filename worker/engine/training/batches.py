"""`TrainingData`: which samples make up which update, brought to the device. Samples are changed in `augmentation`."""

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from app.contracts.training import Augmentation, TrainingOptions
from worker.engine.data import Dataset, fit
from worker.engine.data.source import Array, Labels
from worker.engine.graph import Graph
from worker.engine.quantization.calibration import to_tensors
from worker.engine.session import Device
from worker.engine.training.augmentation import Augmenter
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.decoded import keep_decoded
from worker.engine.training.held_out import hold_out
from worker.engine.training.prefetch import prefetch

_BATCH_SIZES: dict[Device, int] = {"cpu": 64, "cuda": 128}
_FEWEST_UPDATES = 8
_IMAGE_RANK = 4
_MOST_DECODERS = 4
_CLASSES: tuple[Task | None, ...] = (None, "classification", "segmentation")
_ORDER, _CHANGES, _STATISTICS, _HELD_OUT = range(4)
"""What random numbers are drawn for."""


@dataclass(frozen=True)
class TrainingData:
    """Batches of `dataset` for `graph`, the same for the same `seed`, wherever one starts.

    Of `world` processes that train together, each has a `rank` and its own part of every update. Raises SlimlineError:
    AUGMENTATION_NOT_IMAGES when it is made, and as `Dataset.check_for` does, DATA_NOT_FINITE and what reading refuses
    when batches are asked for.
    """

    dataset: Dataset
    graph: Graph
    options: TrainingOptions
    seed: int
    device: Device
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        self._kept.check_for(self.graph.inputs)  # also makes it, before threads ask for it
        _ = self._augmenter

    @cached_property
    def fixed_batch(self) -> int | None:
        """How many samples the graph takes at once; None where any number will do."""
        return fit.fixed_batch(self.graph.inputs)

    @property
    def samples(self) -> int:
        """How many samples are trained on, in all processes together."""
        return len(self._split[0])

    @property
    def held_out(self) -> int:
        """How many samples judge."""
        return len(self._split[1])

    @cached_property
    def batch_size(self) -> int:
        """Samples of one update in this process: a multiple of `fixed_batch`, else at most its part of all samples."""
        each = max(1, self._wanted_size() // self.world)
        if self.fixed_batch:
            return max(1, each // self.fixed_batch) * self.fixed_batch
        return min(each, max(1, self.samples // self.world))

    @cached_property
    def steps_per_epoch(self) -> int:
        """Whole batches of one epoch, in every process; what is left over waits for another epoch's order."""
        return max(1, self.samples // (self.batch_size * self.world))

    def epoch(self, number: int, start: int = 0) -> Generator[TrainingBatch, None, None]:
        """The batches of that epoch from position `start` on. Close it to end the threads that read ahead.

        Every sample comes at most once, unless all together are fewer than one update takes: then they come in turns,
        so that every row is a sample with its label.
        """
        batches = self._read_ahead(self._order(number)[start:])
        with closing(batches):
            for position, batch in enumerate(batches, start):
                if self._augmenter is None:
                    yield batch
                else:
                    yield self._augmenter(batch, self._rng(_CHANGES, number, position, self.rank))

    def held_out_batches(self) -> Generator[TrainingBatch, None, None]:
        """What judges, in a fixed order, whole in every process.

        Where the graph's batch size is fixed, inputs always have that many rows and the last batch's fill up by
        repeating its last sample; `labels` and `indices` have only the true rows, which come first, so cut the outputs
        to the batch's length.
        """
        indices, size = self._split[1], self.fixed_batch or self.batch_size
        return self._read_ahead(indices[first : first + size] for first in range(0, len(indices), size))

    def training_batches(self, limit: int) -> Generator[TrainingBatch, None, None]:
        """Unchanged samples that are trained on, about `limit` at random, for statistics.

        All batches are of one size, what the graph takes at once: `fixed_batch`, or at most `batch_size`.
        """
        size = self.fixed_batch or min(self.batch_size, limit)
        count = max(1, min(limit, self.samples) // size)
        order = self._rng(_STATISTICS).permutation(self._split[0])
        return self._read_ahead(np.resize(order, (count, size)))

    def every_sample(self) -> Generator[TrainingBatch, None, None]:
        """All that are trained on, unchanged, in stored order; the last batch is filled up with the first."""
        indices, size = np.sort(self._split[0]), self.fixed_batch or self.batch_size
        return self._read_ahead(np.resize(indices, (-(-len(indices) // size), size)))

    @cached_property
    def _split(self) -> tuple[Array, Array]:
        return hold_out(self.dataset.source, self.options.validation, self._rng(_HELD_OUT))

    @cached_property
    def _kept(self) -> Dataset:
        return keep_decoded(self.dataset)

    @cached_property
    def _augmenter(self) -> Augmenter | None:
        if self.options.augment == Augmentation():
            return None
        return Augmenter(self.options.augment, self._read(self._split[0][:1]))

    def _wanted_size(self) -> int:
        """Samples of one update in all processes; by default so few that an epoch has some updates."""
        if self.options.batch_size != "auto":
            return self.options.batch_size
        most = max(self.samples // _FEWEST_UPDATES, min(self.samples, 2))
        return min(_BATCH_SIZES[self.device], 1 << (most.bit_length() - 1))

    def _order(self, epoch: int) -> Array:
        """Indices [steps, batch_size] of this process, each process its own part of every update."""
        shuffled = self._rng(_ORDER, epoch).permutation(self._split[0])
        return np.resize(shuffled, (self.steps_per_epoch, self.world, self.batch_size))[:, self.rank]

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *what))

    def _read_ahead(self, batches: Iterable[Array]) -> Generator[TrainingBatch, None, None]:
        work = (partial(self._read, indices) for indices in batches)
        are_decoded = self.dataset.source.format == "images"
        threads = min(_MOST_DECODERS, os.cpu_count() or 1) if are_decoded else 1
        with closing(prefetch(work, threads)) as read:
            for batch in read:
                yield self._move(batch)

    def _read(self, indices: Array) -> TrainingBatch:
        """Those samples, on the CPU; called in threads."""
        batch = self._kept.batch(self.graph.inputs, indices)
        inputs = to_tensors(self.graph, batch.feed)
        labels = None if batch.labels is None else _to_tensor(batch.labels)
        return TrainingBatch(inputs, labels, torch.from_numpy(indices))

    def _move(self, batch: TrainingBatch) -> TrainingBatch:
        if self.device == "cpu":
            return batch
        moved = [
            each.pin_memory().to(
                self.device,
                non_blocking=True,
                memory_format=torch.channels_last if each.dim() == _IMAGE_RANK else torch.preserve_format,
            )
            for each in batch.inputs
        ]
        labels = None if batch.labels is None else batch.labels.to(self.device, non_blocking=True)
        return replace(batch, inputs=moved, labels=labels)


def _to_tensor(labels: Labels) -> torch.Tensor:
    """Classes as int64, numbers as float32."""
    return torch.from_numpy(labels.astype(np.float32 if labels.dtype.kind == "f" else np.int64))


def check_labels_vary(dataset: Dataset, task: Task | None) -> None:
    """Raises SlimlineError ONE_CLASS_ONLY where every label is the same class."""
    facts = dataset.facts
    if task in _CLASSES and facts.label_min is not None and facts.label_min == facts.label_max:
        raise SlimlineError(
            "ONE_CLASS_ONLY",
            f"every sample is of class {facts.label_min}: labels of one class teach a model to answer always the same",
            hint="Send samples of every class, or learn from a teacher, which needs no labels: `distill: {}`.",
        )
