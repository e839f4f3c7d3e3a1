"""The loss of a network's outputs against labels, for each task, and whether labels fit. Distillation is elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from worker.engine.measure.accuracy import IGNORED_LABEL
from worker.engine.tensors.distillation import spread
from worker.engine.tensors.label_losses import MixedLabels, cross_entropy, squared_error
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer
from worker.engine.training.objective.evidence import Evidence
from worker.engine.training.objective.loss import Loss
from worker.engine.training.objective.outputs import Scores
from worker.engine.training.objective.watching import Call, in_full


def mixed_labels(batch: TrainingBatch, dtype: torch.dtype) -> MixedLabels:
    """The labels of a batch that has them, as `dtype`."""
    if batch.labels is None:
        raise ValueError("a batch without labels came to a loss on labels")
    partner = None if batch.partner is None else batch.partner.to(dtype)
    return MixedLabels(batch.labels.to(dtype), partner, batch.share)


class ClassLabels:
    """Gives labels that are classes, and looks at those of each sample once: a look waits for the device."""

    def __init__(self, task: Task, classes: int) -> None:
        self._classes = classes
        self.ignored = IGNORED_LABEL if task == "segmentation" else None
        self._known: set[int] = set()

    def read(self, batch: TrainingBatch) -> MixedLabels:
        """Raises SlimlineError LABELS_OUT_OF_RANGE or LABELS_INVALID."""
        self._check(batch)
        return mixed_labels(batch, torch.int64)

    def _check(self, batch: TrainingBatch) -> None:
        indices = set(batch.indices.tolist())
        if batch.labels is None or indices <= self._known:
            return
        labels = batch.labels if self.ignored is None else batch.labels[batch.labels != self.ignored]
        if labels.is_floating_point() and bool((labels != labels.round()).any()):
            raise SlimlineError(
                "LABELS_INVALID", "labels of classes have fractions", hint="Save whole numbers: y.astype('int64')."
            )
        if labels.numel() and (labels.min() < 0 or labels.max() >= self._classes):
            raise SlimlineError(
                "LABELS_OUT_OF_RANGE",
                f"labels run from {labels.min():g} to {labels.max():g}, but the model scores {self._classes} classes",
                hint=f"Labels are whole numbers from 0 to {self._classes - 1}.",
            )
        self._known |= indices


class CrossEntropy(Loss):
    """Of class scores, per sample or per pixel."""

    def __init__(self, scores: Scores, labels: ClassLabels, smoothing: float) -> None:
        super().__init__()
        self._scores, self._labels, self._smoothing = scores, labels, smoothing
        self.watched = scores.watched

    def forward(self, call: Call, _: Answer, batch: TrainingBatch) -> torch.Tensor:
        """The mean over labels."""
        labels, ignored = self._labels.read(batch), self._labels.ignored
        return cross_entropy(self._scores.read(call), labels, smoothing=self._smoothing, ignored=ignored)


class SquaredError(Loss):
    """Of an output, over the variance of the labels in `sample`: near 1 for a network that knows only their mean."""

    scale: torch.Tensor

    def __init__(self, output: int, sample: torch.Tensor) -> None:
        super().__init__()
        self._output = output
        self.register_buffer("scale", torch.tensor(spread(sample)))

    def forward(self, call: Call, _: Answer, batch: TrainingBatch) -> torch.Tensor:
        """The mean over elements."""
        values = in_full(call.outputs[self._output])
        return squared_error(values, mixed_labels(batch, values.dtype), self.scale)


def class_labels(evidence: Evidence) -> ClassLabels | None:
    """How labels of classes are read; None for a task with others. Raises SlimlineError LABELS_DO_NOT_FIT."""
    task, labels, scores, outputs = evidence.task, evidence.sample.labels, evidence.scores, evidence.call.outputs
    if task not in ("classification", "segmentation") or labels is None:
        return None
    wanted = list(outputs[scores.output].shape) if scores else []
    classes = wanted.pop(scores.axis) if scores else 0
    if not scores or list(labels.shape) != wanted:
        raise _mismatch(task, outputs, labels)
    return ClassLabels(task, classes)


def label_loss(evidence: Evidence, labels: ClassLabels | None, smoothing: float) -> Loss:
    """The loss `hard`. Raises SlimlineError LABELS_DO_NOT_FIT."""
    if labels is not None and evidence.scores is not None:
        return CrossEntropy(evidence.scores, labels, smoothing)
    outputs, truth = evidence.call.outputs, evidence.sample.labels
    if truth is None:
        raise ValueError("a loss on labels where there are none")
    index = next(iter(evidence.float_outputs), None)
    if index is None or outputs[index].numel() != truth.numel() or len(outputs[index]) != len(truth):
        raise _mismatch("regression", outputs, truth)
    return SquaredError(index, truth)


_WANTED = {
    "classification": "labels [N] and an output [N, C]",
    "segmentation": "label maps [N, ...] and an output [N, C, ...]",
    "regression": "labels of the shape of the first output",
}


def _mismatch(task: Task, outputs: Sequence[Any], labels: torch.Tensor) -> SlimlineError:
    shapes = ", ".join(_told(each) for each in outputs if isinstance(each, torch.Tensor))
    return SlimlineError(
        "LABELS_DO_NOT_FIT",
        f"training for {task} needs {_WANTED[task]}; the labels are {_told(labels)}, the outputs {shapes}",
        hint="Choose the task that fits the model, training data with other labels, or distil without any.",
    )


def _told(tensor: torch.Tensor) -> str:
    """Its shape; how many samples came is not the point."""
    return f"[{', '.join(['N', *map(str, tensor.shape[1:])])}]" if tensor.dim() else "[]"
