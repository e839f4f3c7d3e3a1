"""Losses of a student's outputs against a teacher's answer: soft, dkd and logits. Inner tensors are in `features`."""

from collections.abc import Sequence

import torch

from app.contracts.training import Distillation
from worker.engine.tensors.distillation import (
    decoupled_divergences,
    scaled_error,
    soft_divergence,
    spread,
    standardize,
)
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer
from worker.engine.training.objective.loss import Loss
from worker.engine.training.objective.outputs import Scores
from worker.engine.training.objective.task_loss import ClassLabels
from worker.engine.training.objective.watching import Call, in_full


class SoftLoss(Loss):
    """KL divergence of softened class scores, mean over samples or pixels."""

    def __init__(self, scores: Scores, options: Distillation) -> None:
        super().__init__()
        self._scores, self._options, self.watched = scores, options, scores.watched

    def forward(self, call: Call, answer: Answer, _: TrainingBatch) -> torch.Tensor:
        """The loss of the student's `call`."""
        student, teacher = _both(self._scores, call, answer, self._options)
        return soft_divergence(student, teacher, self._options.temperature)


class DecoupledLoss(Loss):
    """The same in two parts, TCKD + beta NCKD (Zhao et al. 2022, equation 8 with alpha 1); labels tell them apart."""

    def __init__(self, scores: Scores, options: Distillation, labels: ClassLabels) -> None:
        super().__init__()
        self._scores, self._options, self._labels = scores, options, labels
        self.watched = scores.watched

    def forward(self, call: Call, answer: Answer, batch: TrainingBatch) -> torch.Tensor:
        """The loss of the student's `call`, mean over labels; mixed samples have it for both of theirs."""
        temperature = self._options.temperature
        softened = [each / temperature for each in _both(self._scores, call, answer, self._options)]

        def loss(labels: torch.Tensor) -> torch.Tensor:
            target, others = decoupled_divergences(softened[0], softened[1], labels.flatten())
            return (target + self._options.beta * others).reshape(labels.shape)

        return temperature**2 * self._labels.read(batch).mean(loss, self._labels.ignored)


class OutputLoss(Loss):
    """Squared error of outputs over the variance of the teacher's, mean over outputs."""

    scales: torch.Tensor

    def __init__(self, numbers: Sequence[int], sample: Answer) -> None:
        """`numbers` of the student's outputs; `sample` is a teacher's answer, from which variances are taken."""
        super().__init__()
        self._numbers = numbers
        self.register_buffer("scales", torch.tensor([spread(each) for each in sample.outputs]))

    def forward(self, call: Call, answer: Answer, _: TrainingBatch) -> torch.Tensor:
        """The loss of the student's `call`."""
        pairs = zip(self._numbers, answer.outputs, self.scales, strict=True)
        losses = [
            scaled_error(in_full(call.outputs[number]), in_full(theirs), scale) for number, theirs, scale in pairs
        ]
        return torch.stack(losses).mean()


def _both(scores: Scores, call: Call, answer: Answer, options: Distillation) -> tuple[torch.Tensor, torch.Tensor]:
    """The scores of student and teacher, [P, C]."""
    if answer.scores is None:
        raise ValueError("the teacher was not asked for its scores")
    student, teacher = scores.by_position(scores.read(call)), scores.by_position(answer.scores)
    if options.standardize:
        return standardize(student), standardize(teacher)
    return student, teacher
