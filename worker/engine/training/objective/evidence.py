"""What a call of the student shows of its task. What follows from it for the losses is in `weighting`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.contracts.job_spec import Task
from worker.engine.measure.accuracy import infer_task
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.goal import Goal
from worker.engine.training.objective.outputs import Scores, find_scores
from worker.engine.training.objective.watching import Call, Watch, is_float


@dataclass(frozen=True)
class Evidence:
    """What the student gave for `sample`. `task` is None where nothing tells it, `scores` where there are none."""

    sample: TrainingBatch
    call: Call
    task: Task | None
    scores: Scores | None

    @property
    def float_outputs(self) -> Sequence[int]:
        """Their numbers."""
        return [number for number, each in enumerate(self.call.outputs) if is_float(each)]

    @property
    def gives_only_probabilities(self) -> bool:
        """Whether the one output comes from a Softmax: such a network classifies, whoever says so."""
        is_normalised = self.scores is not None and (self.scores.logits is not None or self.scores.are_probabilities)
        return is_normalised and len(self.float_outputs) == 1


def gather(student: TorchGraph, goal: Goal, sample: TrainingBatch) -> Evidence:
    """Run `student` on `sample`, in eval mode."""
    was_training = student.training
    with torch.no_grad():
        call = Watch(student.eval(), ()).run(student, sample)
    student.train(was_training)
    task = goal.task
    if task is None and goal.has_labels and sample.labels is not None:
        task = infer_task(sample.labels.cpu().numpy())
    return Evidence(sample, call, task, find_scores(student.graph, call.outputs, None if task == "none" else task))
