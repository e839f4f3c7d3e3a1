"""`Loss`: what each part of an objective is. The parts are in `task_loss`, `teacher_losses` and `features`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import nn

from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer
from worker.engine.training.objective.watching import Call


class Loss(nn.Module, ABC):
    """A loss of what a student gave, against labels or a teacher's answer; a mean over the samples of a batch."""

    watched: Sequence[str] = ()
    """Tensors inside the student that it looks at."""

    @abstractmethod
    def forward(self, call: Call, answer: Answer, batch: TrainingBatch) -> torch.Tensor:
        """The loss as a scalar, not in half precision."""
