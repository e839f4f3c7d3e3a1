"""The loss of inner tensors of a student against a teacher's, with learned projections. Pairs are chosen elsewhere.

Legend: N samples, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from app.contracts.failure import SlimlineError
from app.contracts.training import FeaturePair
from worker.engine.tensors.distillation import scaled_error, spread
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.answers import Answer
from worker.engine.training.objective.feature_pairs import Shape, width_axis
from worker.engine.training.objective.loss import Loss
from worker.engine.training.objective.watching import Call, in_full

_SEQUENCE_RANK = 3
_POOLS: Mapping[int, Callable[..., torch.Tensor]] = {
    3: functional.adaptive_avg_pool1d,
    4: functional.adaptive_avg_pool2d,
    5: functional.adaptive_avg_pool3d,
}


@dataclass(frozen=True)
class Alignment:
    """How a student's tensor is brought to the shape of a teacher's. `axis` is that of the channels."""

    axis: int
    channels: tuple[int, int]
    """Of the student and of the teacher."""
    size: tuple[int, ...] | None
    """What both are pooled to; None where sizes agree."""


def align(pair: FeaturePair, student: Shape, teacher: Shape) -> Alignment:
    """How `pair`, of those shapes, is compared. Raises SlimlineError FEATURES_NOT_FOUND where it cannot be."""
    axis = width_axis(student, teacher)
    if axis is not None or student == teacher:
        axis = axis or 1
        return Alignment(axis, (student[axis], teacher[axis]), None)
    is_map = len(student) == len(teacher) and len(student) in _POOLS
    if not is_map or (len(student) == _SEQUENCE_RANK and student[1] != teacher[1]):
        raise SlimlineError(
            "FEATURES_NOT_FOUND",
            f"{pair.student!r} of shape {list(student)} in the student and {pair.teacher!r} of shape {list(teacher)} "
            "in the teacher cannot be compared",
            node=pair.student,
            hint="Name tensors that differ in the number of channels, or in the size of [N, C, H, W] maps.",
        )
    size = tuple(min(sizes) for sizes in zip(student[2:], teacher[2:], strict=True))
    return Alignment(1, (student[1], teacher[1]), size)


class Projection(nn.Module):
    """A learned linear map along one axis, as a 1x1 convolution is."""

    def __init__(self, axis: int, channels: tuple[int, int]) -> None:
        super().__init__()
        self._axis = axis
        own, wanted = channels
        # The same start in every run: He's, from a generator of its own.
        start = torch.randn(wanted, own, generator=torch.Generator().manual_seed(0)) * (2 / own) ** 0.5
        self.weight, self.bias = nn.Parameter(start), nn.Parameter(torch.zeros(wanted))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`values` with the teacher's channels."""
        weight, bias = (each.to(values.dtype) for each in (self.weight, self.bias))
        return functional.linear(values.movedim(self._axis, -1), weight, bias).movedim(-1, self._axis)


class FeatureLoss(Loss):
    """The mean over pairs of squared errors over the teacher's variance. Projections are learned, then dropped."""

    scales: torch.Tensor

    def __init__(self, pairs: Sequence[tuple[FeaturePair, Alignment]], sample: Answer) -> None:
        """`sample` is a teacher's answer, from which variances are taken."""
        super().__init__()
        alignments = [alignment for _, alignment in pairs]
        self.watched, self._sizes = [pair.student for pair, _ in pairs], [each.size for each in alignments]
        self.projections = nn.ModuleList(
            Projection(each.axis, each.channels) if each.channels[0] != each.channels[1] else nn.Identity()
            for each in alignments
        )
        pooled = [_pool(each, size) for each, size in zip(sample.features, self._sizes, strict=True)]
        scales = [1.0 if each is None else spread(each) for each in pooled]
        self.register_buffer("scales", torch.tensor(scales))

    def forward(self, call: Call, answer: Answer, _: TrainingBatch) -> torch.Tensor:
        """The loss of the student's `call`. What lies in a branch that one of the two did not take has none."""
        losses = []
        for place, (name, theirs) in enumerate(zip(self.watched, answer.features, strict=True)):
            mine, wanted = (_pool(each, self._sizes[place]) for each in (call.seen.get(name), theirs))
            if mine is not None and wanted is not None:
                losses.append(scaled_error(self.projections[place](mine), wanted, self.scales[place]))
        return torch.stack(losses).mean() if losses else self.scales.new_zeros(())


def _pool(values: torch.Tensor | None, size: tuple[int, ...] | None) -> torch.Tensor | None:
    if values is None or size is None:
        return None if values is None else in_full(values)
    return _POOLS[values.dim()](in_full(values), size)
