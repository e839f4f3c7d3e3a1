"""`Objective`: what training minimises, as one module. Each loss is in a file of its own, the teacher's in `lesson`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from app.contracts.training import LossName
from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer
from worker.engine.training.objective.evidence import gather
from worker.engine.training.objective.goal import Goal
from worker.engine.training.objective.lesson import Lesson, Preparation
from worker.engine.training.objective.loss import Loss
from worker.engine.training.objective.task_loss import class_labels, label_loss
from worker.engine.training.objective.watching import Watch
from worker.engine.training.objective.weighting import NEEDS_LABELS, NEEDS_TEACHER, weigh

__all__ = ["Goal", "Objective", "build_objective"]


class Objective(nn.Module):
    """The weighted sum of losses of `student`. `notes`: what people should know of the choices made.

    Not to be deep-copied: losses look at tensors inside this student.
    """

    def __init__(
        self, student: TorchGraph, lesson: Lesson, hard: Loss | None, weights: Mapping[LossName, float]
    ) -> None:
        super().__init__()
        self.student, self.notes, self._weights = student, list(lesson.notes), weights
        losses: dict[str, Loss] = {str(name): loss for name, loss in lesson.losses.items()}
        if hard is not None:
            losses["hard"] = hard
        self.losses = nn.ModuleDict(losses)
        # In a list it is no submodule: it is neither trained, nor saved, nor put into training mode.
        self._teachers = [] if lesson.teacher is None else [lesson.teacher]
        self._watch = Watch(student, [name for loss in losses.values() for name in loss.watched])

    def forward(self, batch: TrainingBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[Any, ...]]:
        """The loss; its parts before weighting, without gradients; and the student's outputs.

        Raises SlimlineError LABELS_OUT_OF_RANGE, LABELS_INVALID or TEACHER_MISMATCH for what the sample did not show.
        """
        answers = [teacher.answer(batch) for teacher in self._teachers]
        answer = answers[0] if answers else Answer()
        call = self._watch.run(self.student, batch)
        with torch.autocast(batch.inputs[0].device.type, enabled=False):
            parts = {name: loss(call, answer, batch) for name, loss in self.losses.items()}
            total = torch.stack([weight * parts[name] for name, weight in self._weights.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}, call.outputs

    def remember(self, batches: Iterable[TrainingBatch]) -> None:
        """Have the teacher answer `batches` now, where its answers are stored.

        What it says to a sample then depends neither on the others in a batch nor on when training was resumed.
        """
        for teacher in self._teachers:
            if teacher.is_storing:
                for batch in batches:
                    teacher.answer(batch)


def build_objective(student: TorchGraph, graph: Graph, goal: Goal, sample: TrainingBatch) -> Objective:
    """The objective of `goal`, on its device. Variances are taken from `sample`, a batch of more than one.

    `graph` is what `student` stands for: its names are those of inputs and outputs. Raises SlimlineError
    LABELS_MISSING, LABELS_DO_NOT_FIT, LOSS_DOES_NOT_FIT, TEACHER_MISMATCH or FEATURES_NOT_FOUND.
    """
    evidence = gather(student.to(goal.device), goal, sample)
    weights = weigh(goal, evidence)
    labels = class_labels(evidence) if NEEDS_LABELS & set(weights) else None
    taught = [name for name in weights if name in NEEDS_TEACHER]
    lesson = Preparation(student, graph, goal, evidence, labels).make(taught) if taught else Lesson()
    hard = label_loss(evidence, labels, goal.options.label_smoothing) if "hard" in weights else None
    return Objective(student, lesson, hard, weights).to(goal.device)
