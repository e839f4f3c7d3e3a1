"""How good a state of a training is, judged on held-out samples, and whether the difference may be chance."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

from app.contracts.job_spec import Task
from app.contracts.measurement import Accuracy
from worker.engine.measure.accuracy import AccuracyMeter, infer_task, make_meter
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.objective import Objective

_TWO_SIDES_95 = 2 * 1.96


@dataclass(frozen=True)
class Judgement:
    """How good a state is. `score` is higher the better; `error` is its standard error."""

    metric: str
    value: float
    score: float
    error: float

    def is_surely_better_than(self, other: "Judgement") -> bool:
        """By more than a standard error."""
        return self.score > other.score + self.error


@torch.no_grad()
def judge(objective: Objective, batches: Iterator[TrainingBatch], task: Task | None) -> Judgement | None:
    """By the task's accuracy where there are labels, else by the loss; None without samples.

    Raises SlimlineError where labels do not fit the outputs.
    """
    was_training = objective.student.training
    objective.student.eval()
    meter: AccuracyMeter | None = None
    losses: list[float] = []
    for batch in batches:
        total, _, outputs = objective(batch)
        losses.append(float(total))
        if batch.labels is not None:
            labels = batch.labels.cpu().numpy()
            meter = meter or make_meter(task or infer_task(labels))
            if meter is not None:
                meter.update([each[: len(batch)].float().cpu().numpy() for each in outputs], labels)
    objective.student.train(was_training)
    if not losses:
        return None
    return _by_accuracy(meter.result()) if meter is not None else _by_loss(losses)


def _by_accuracy(found: Accuracy) -> Judgement:
    error = (found.ci_high - found.ci_low) / _TWO_SIDES_95
    return Judgement(found.metric, found.value, found.value, error)


def _by_loss(losses: list[float]) -> Judgement:
    mean = fmean(losses)
    error = stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return Judgement("loss", mean, -mean, error)
