"""Improves a batch of inputs by gradient until a `Critic` finds little wrong with it. What counts is told there."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from worker.engine.synthesis.critic import Critic

_SCALES = tuple(2.0 ** (half / 2) for half in range(-6, 17))
_UNUSUAL = 0.015
"""What a scale costs for each squared power of two from 1: where others do as well, inputs keep unit variance."""
_ELEMENT_RATE, _COMMON_RATE, _FEATURE_RATE = 0.05, 0.02, 0.1
"""Adam's learning rates: of elements; of offsets and the scale's logarithm; of the offsets of a table's features, which
may lie anywhere. Elements and offsets are in units of the inputs' deviation."""
_TABLE_RANK = 2


@dataclass(frozen=True)
class Batch:
    """Inputs of one call in order. `channels`: by index, the channel axis of those that a gradient may change."""

    inputs: Sequence[torch.Tensor]
    channels: Mapping[int, int | None]
    labels: torch.Tensor | None


@dataclass(frozen=True)
class Run:
    """How many steps are taken; `progress` takes the share of them done."""

    steps: int
    progress: Callable[[float], None]


@dataclass(frozen=True)
class Distilled:
    """Inputs, and their loss at the first step and at the best; None where no gradient came through."""

    inputs: Sequence[torch.Tensor]
    before: float | None
    after: float | None


def find_scale(critic: Critic, batch: Batch) -> float:
    """By how much to multiply inputs of unit variance: the candidate that `critic` likes best."""
    judged = []
    with torch.inference_mode():
        for scale in _SCALES:
            scaled = [each * scale if index in batch.channels else each for index, each in enumerate(batch.inputs)]
            loss = float(critic.judge(scaled, None))
            judged.append((loss + _UNUSUAL * math.log2(scale) ** 2, abs(math.log2(scale)), scale))
    best = min(judged)
    return best[-1] if math.isfinite(best[0]) else 1.0


class _Variables:
    """What is optimized: every element of the inputs, their common scale and an offset for each channel."""

    def __init__(self, batch: Batch, scale: float) -> None:
        self._batch = batch
        self.elements = {index: batch.inputs[index].float().clone().requires_grad_() for index in batch.channels}
        first = next(iter(self.elements.values()))
        self.log_scale = first.new_tensor(math.log(scale)).requires_grad_()
        self.offsets = {index: _per_channel(each, batch.channels[index]) for index, each in self.elements.items()}

    def inputs(self) -> list[torch.Tensor]:
        """In the types that the graph takes."""
        made = list(self._batch.inputs)
        for index, values in self.elements.items():
            dtype = made[index].dtype
            scaled = (values + self.offsets[index]) * self.log_scale.exp()
            made[index] = scaled.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max).to(dtype)
        return made

    def optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Adam, whose rates fall to zero along half a cosine."""
        features = [each for each in self.offsets.values() if each.dim() == _TABLE_RANK]
        channels = [each for each in self.offsets.values() if each.dim() != _TABLE_RANK]
        adam = torch.optim.Adam(
            [
                {"params": list(self.elements.values()), "lr": _ELEMENT_RATE},
                {"params": [self.log_scale, *channels], "lr": _COMMON_RATE},
                {"params": features, "lr": _FEATURE_RATE},
            ]
        )
        return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)


def _per_channel(values: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Zeros that broadcast over `values`, one for each channel."""
    sizes = [size if axis == channels else 1 for axis, size in enumerate(values.shape)]
    return values.new_zeros(sizes).requires_grad_()


def distill(critic: Critic, batch: Batch, scale: float, run: Run) -> Distilled:
    """The best inputs on the way from those of `batch`, multiplied by `scale`. All are finite."""
    variables = _Variables(batch, scale)
    optimizer, schedule = variables.optimizer(run.steps)
    best, losses = variables.inputs(), list[float]()
    for step in range(run.steps):
        inputs = variables.inputs()
        loss = critic.judge(inputs, batch.labels)
        found = float(loss.detach())
        if not loss.requires_grad or not math.isfinite(found):
            break
        if found < min(losses, default=math.inf) and all(bool(each.isfinite().all()) for each in inputs):
            best = inputs
        losses.append(found)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        optimizer.step()
        schedule.step()
        run.progress((step + 1) / run.steps)
    return Distilled([each.detach() for each in best], losses[0] if losses else None, min(losses, default=None))
