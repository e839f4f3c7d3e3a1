"""One pass over the data: accuracy of a model, of the original beside it, and how closely their outputs agree."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from app.contracts.job_spec import Task
from app.contracts.measurement import Accuracy, Fidelity
from worker.engine.measure.accuracy import infer_task, make_meter
from worker.engine.measure.fidelity import FidelityMeter
from worker.engine.samples import Samples
from worker.engine.session import run_session

FIDELITY_SAMPLES = 2048
_MATRIX = 2


@dataclass(frozen=True)
class Evaluation:
    """What one pass found. `notes` say why something is missing."""

    original: Accuracy | None
    compressed: Accuracy | None
    fidelity: Fidelity | None
    notes: list[str]


def evaluate(
    original: ort.InferenceSession,
    compressed: ort.InferenceSession,
    samples: Samples,
    task: Task | None,
    progress: Callable[[int], None],
) -> Evaluation:
    """Run both models over all labelled samples, or over 2048 for fidelity alone, which is all that task `none` asks.

    `progress` gets the number of samples done. Raises SlimlineError where a model does not run or labels do not fit.
    """
    labelled = samples.are_labelled and task != "none"
    meters, fidelity, done = None, None, 0
    for batch in samples.batches(limit=None if labelled else FIDELITY_SAMPLES):
        outputs = [_rows(run_session(session, batch.feed), batch.count) for session in (original, compressed)]
        if fidelity is None:
            task = task or infer_task(batch.labels)
            fidelity = FidelityMeter(_score_axis(outputs[0], task))
            meters = [make_meter(task), make_meter(task)] if labelled else None
        index = _first_float(outputs[0])
        if index is not None:
            fidelity.update(outputs[0][index], outputs[1][index])
        for meter, each in zip(meters or (), outputs, strict=False):
            if meter is not None and batch.labels is not None:
                meter.update(each, batch.labels)
        done += batch.count
        progress(done)
    accuracies = [meter.result() if meter else None for meter in meters or (None, None)]
    notes = [*_why_no_accuracy(task, labelled=labelled), *([samples.note] if samples.note else [])]
    return Evaluation(accuracies[0], accuracies[1], fidelity.result() if fidelity else None, notes)


def check_labels(original: ort.InferenceSession, samples: Samples, task: Task | None) -> None:
    """Measure one sample, as the whole pass will. Raises SlimlineError LABELS_DO_NOT_FIT or LABELS_OUT_OF_RANGE."""
    batch = next(samples.batches(batch_size=1, limit=1))
    if batch.labels is not None and (meter := make_meter(task or infer_task(batch.labels))):
        meter.update(_rows(run_session(original, batch.feed), batch.count), batch.labels)


def _rows(outputs: list[np.ndarray], count: int) -> list[np.ndarray]:
    """Without what was repeated to fill a fixed batch."""
    return [output[:count] if output.ndim else output for output in outputs]


def _first_float(outputs: list[np.ndarray]) -> int | None:
    return next((index for index, output in enumerate(outputs) if output.dtype.kind == "f" and output.size), None)


def _score_axis(outputs: list[np.ndarray], task: Task | None) -> int | None:
    """Where the class scores lie in the first output, if it holds scores."""
    index = _first_float(outputs)
    if index is None or task in ("regression", "detection") or outputs[index].ndim < _MATRIX:
        return None
    is_scores = outputs[index].ndim == _MATRIX or task == "segmentation"
    return 1 if is_scores and outputs[index].shape[1] > 1 else None


def _why_no_accuracy(task: Task | None, *, labelled: bool) -> list[str]:
    if not labelled:
        return ["accuracy was not measured: no labelled evaluation data; fidelity is measured instead"]
    if task == "detection":
        return ["accuracy of detection is not measured yet; fidelity is measured instead"]
    return []
