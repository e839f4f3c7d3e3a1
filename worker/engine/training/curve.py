"""The loss curve: means over each epoch, as events."""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch

from app.contracts.events import Trained
from worker.engine.training.selection import Judgement

_SMOOTHING = 0.1


class Curve:
    """Sums up losses until a point is made of them, and measures how long updates take."""

    def __init__(self, step: int, round_: int | None) -> None:
        self.points: list[Trained] = []
        self.update_s = 0.0
        self._step, self._round = step, round_
        self._sums: dict[str, torch.Tensor] = {}
        self._updates = self._samples = 0
        self._busy_s = 0.0

    def add(self, losses: Mapping[str, torch.Tensor], samples: int, seconds: float) -> None:
        """Take one update."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._updates += 1
        self._samples += samples
        self._busy_s += seconds
        self.update_s += (seconds - self.update_s) * (_SMOOTHING if self.update_s else 1)

    @property
    def is_finite(self) -> bool:
        """Whether every loss since the last point was a number."""
        return all(math.isfinite(float(value)) for value in self._sums.values())

    @property
    def loss(self) -> float | None:
        """The mean since the last point."""
        return float(self._sums["total"]) / self._updates if self._updates else None

    def point(self, epoch: float, updates: int, rate: float, judgement: Judgement | None) -> Trained:
        """Make a point of what was summed up, and begin anew."""
        means = {name: float(value) / self._updates for name, value in self._sums.items()}
        loss = means.pop("total", None)
        point = Trained(
            step=self._step,
            round=self._round,
            epoch=epoch,
            updates=updates,
            loss=loss,
            losses=means,
            metric=judgement.metric if judgement else None,
            value=judgement.value if judgement else None,
            learning_rate=rate,
            samples_per_s=self._samples / self._busy_s if self._busy_s else None,
        )
        self.points.append(point)
        self._sums, self._updates, self._samples, self._busy_s = {}, 0, 0, 0.0
        return point

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {
            "points": [point.model_dump(mode="json") for point in self.points],
            "sums": dict(self._sums),
            "counts": [self._updates, self._samples, self._busy_s, self.update_s],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.points = [Trained.model_validate(point) for point in state["points"]]
        self._sums = dict(state["sums"])
        self._updates, self._samples, self._busy_s, self.update_s = state["counts"]


class Clock:
    """Seconds since it was made or last asked."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.monotonic()
        lap, self._last = now - self._last, now
        return lap
