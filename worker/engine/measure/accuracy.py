"""Accuracy per task, gathered batch by batch, with its 95 % interval. Which task a dataset is for is decided here too.

Legend: N samples, C classes, ... the positions of a label map.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from app.contracts.job_spec import Task
from app.contracts.measurement import Accuracy
from worker.engine.tensors.intervals import bootstrap_ratio, mean_ratio, wilson

IGNORED_LABEL = 255
"""Pixels with this label count for nothing, as in Pascal VOC and Cityscapes."""


class AccuracyMeter(Protocol):
    """Adds up a metric over batches."""

    def update(self, outputs: list[np.ndarray], labels: np.ndarray) -> None:
        """One batch. Raises SlimlineError where outputs and labels do not fit together."""

    def result(self) -> Accuracy:
        """The metric so far; at least one batch came."""


class Top1:
    """Share of samples whose highest score is their label."""

    def __init__(self) -> None:
        self._right = self._n = 0

    def update(self, outputs: list[np.ndarray], labels: np.ndarray) -> None:
        """See `AccuracyMeter`; labels [N], the scores are the first output [N, C]."""
        scores = next((output for output in outputs if output.ndim == 2 and output.shape[1] > 1), None)  # noqa: PLR2004 - N and C
        if scores is None or labels.ndim != 1:
            raise _mismatch("classification", "labels [N] and an output [N, C]", outputs, labels)
        _check_range(labels, scores.shape[1])
        self._right += int((scores.argmax(axis=1) == labels).sum())
        self._n += len(labels)

    def result(self) -> Accuracy:
        """Metric `top1`."""
        low, high = wilson(self._right, self._n)
        return Accuracy(metric="top1", value=self._right / self._n, n=self._n, ci_low=low, ci_high=high)


class MeanIoU:
    """Mean over classes of intersection over union, with a bootstrap interval over images."""

    def __init__(self) -> None:
        self._intersections: list[NDArray[np.float64]] = []
        self._unions: list[NDArray[np.float64]] = []

    def update(self, outputs: list[np.ndarray], labels: np.ndarray) -> None:
        """See `AccuracyMeter`; labels [N, ...], the scores are the first output [N, C, ...]."""
        scores = outputs[0]
        is_map = labels.ndim > 1 and scores.ndim == labels.ndim + 1
        if not is_map or scores.shape[2:] != labels.shape[1:]:
            raise _mismatch("segmentation", "label maps [N, ...] and a first output [N, C, ...]", outputs, labels)
        classes = scores.shape[1]
        _check_range(labels[labels != IGNORED_LABEL], classes)
        for predicted, truth in zip(scores.argmax(axis=1), labels, strict=True):
            used = truth != IGNORED_LABEL
            cells = np.bincount(truth[used].astype(np.int64) * classes + predicted[used], minlength=classes**2)
            confusion = cells.reshape(classes, classes).astype(np.float64)
            hit = np.diag(confusion)
            self._intersections.append(hit)
            self._unions.append(confusion.sum(axis=0) + confusion.sum(axis=1) - hit)

    def result(self) -> Accuracy:
        """Metric `miou`."""
        hits, unions = np.stack(self._intersections), np.stack(self._unions)
        low, high = bootstrap_ratio(hits, unions)
        value = mean_ratio(hits.sum(axis=0), unions.sum(axis=0))
        return Accuracy(metric="miou", value=value, n=len(hits), ci_low=low, ci_high=high)


class R2:
    """Coefficient of determination: 1 is perfect, 0 as good as the mean; with a bootstrap interval."""

    def __init__(self) -> None:
        self._errors: list[NDArray[np.float64]] = []
        self._labels: list[NDArray[np.float64]] = []

    def update(self, outputs: list[np.ndarray], labels: np.ndarray) -> None:
        """See `AccuracyMeter`; labels of the first output's shape."""
        output = outputs[0]
        if output.size != labels.size or len(output) != len(labels):
            raise _mismatch("regression", "labels of the shape of the first output", outputs, labels)
        truth = labels.reshape(len(labels), -1).astype(np.float64)
        self._errors.append(((output.reshape(truth.shape) - truth) ** 2).sum(axis=1))
        self._labels.append(truth)

    def result(self) -> Accuracy:
        """Metric `r2`."""
        errors, truth = np.concatenate(self._errors), np.concatenate(self._labels)
        spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=1)
        low, high = bootstrap_ratio(errors, spread)
        value = 1 - mean_ratio(errors.sum(keepdims=True), spread.sum(keepdims=True))
        return Accuracy(metric="r2", value=value, n=len(errors), ci_low=1 - high, ci_high=1 - low)


_METERS: Mapping[Task, type[AccuracyMeter]] = {"classification": Top1, "segmentation": MeanIoU, "regression": R2}


def make_meter(task: Task) -> AccuracyMeter | None:
    """A fresh meter, None for tasks whose accuracy is not measured."""
    return _METERS[task]() if task in _METERS else None


def infer_task(labels: np.ndarray | None) -> Task:
    """The task that labels of this type and shape are for."""
    if labels is None:
        return "none"
    if np.issubdtype(labels.dtype, np.floating):
        return "regression"
    return "classification" if labels.ndim == 1 else "segmentation"


def _check_range(labels: np.ndarray, classes: int) -> None:
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise SlimlineError(
            "LABELS_OUT_OF_RANGE",
            f"labels run from {labels.min()} to {labels.max()}, but the model scores {classes} classes",
            hint=f"Labels are whole numbers from 0 to {classes - 1}.",
        )


def _mismatch(task: str, wanted: str, outputs: list[np.ndarray], labels: np.ndarray) -> SlimlineError:
    shapes = ", ".join(_told(output) for output in outputs)
    return SlimlineError(
        "LABELS_DO_NOT_FIT",
        f"{task} needs {wanted}; the labels are {_told(labels)}, the outputs {shapes}",
        hint="Choose the task that fits the model, or evaluation data with other labels.",
    )


def _told(array: np.ndarray) -> str:
    """Its shape; how many samples came is not the point."""
    return f"[{', '.join(['N', *map(str, array.shape[1:])])}]" if array.ndim else "[]"
