"""Gradients that processes share: an objective within DistributedDataParallel, after memory was tried out.

Of a batch in parts only the last is shared, with the sum of all. A process that is short of memory between two updates
of its partners would leave them waiting: parts are agreed on before, and what does not fit later is a failure.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from worker.engine.training.batch import TrainingBatch
from worker.engine.training.distributed.team import Team
from worker.engine.training.objective.objective import Objective
from worker.engine.training.snapshot import put_back, take, trained_tensors
from worker.engine.training.update import Updater

_COPIES = 3
"""Of the weights, that the first updates add to what the rehearsal takes: two of the optimizer, one on its way."""


class _Losses(nn.Module):
    """An objective without the student's outputs: what they are read from need not have a gradient."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: TrainingBatch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor], object]:
        """The loss and its parts."""
        total, parts, _ = self.objective(batch)
        return total, parts, ()


def share_gradients(updater: Updater, objective: Objective, batch: TrainingBatch, team: Team) -> None:
    """Have `updater` share its gradients with `team`; they become means over its processes.

    `batch` is one of the size of an update. Raises SlimlineError OUT_OF_MEMORY. Before each forward pass
    statistics of normalizations become the leader's, which are judged and kept.
    """
    is_complete = rehearse(updater, objective, batch)
    updater.part = updater.smallest_part = team.smallest(updater.part)
    shared = DistributedDataParallel(
        _Losses(objective),
        gradient_as_bucket_view=True,
        find_unused_parameters=not team.smallest(int(is_complete and not _has_branches(objective))),
    )
    updater.team, updater.forward, updater.hold_back = team, shared, shared.no_sync


def rehearse(updater: Updater, objective: Objective, batch: TrainingBatch) -> bool:
    """Find parts of `batch` that fit into memory; whether all that learns got a gradient. No weight changes."""
    before = take(trained_tensors(objective))
    learning = [each for each in objective.parameters() if each.requires_grad]
    room = [torch.empty_like(each) for each in learning for _ in range(_COPIES)]
    updater.gather(batch)
    is_complete = all(each.grad is not None for each in learning)
    updater.optimizer.zero_grad(set_to_none=True)
    put_back(trained_tensors(objective), before)
    del room
    return is_complete


def _has_branches(objective: Objective) -> bool:
    """Whether data decides which weights are read."""
    return len(list(objective.student.graph.model.graphs())) > 1
