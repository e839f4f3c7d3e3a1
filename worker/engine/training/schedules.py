"""How the learning rate moves: pure functions of the share of the training that is done."""

import math
from collections.abc import Callable, Mapping

_CYCLE_RISE, _CYCLE_START, _CYCLE_END = 0.3, 1 / 25, 1e-4
"""Of the one-cycle policy (Smith and Topin 2019): where it is highest, and what it starts and ends with."""
_STEPS = (0.5, 0.75)


def rate_factor(schedule: str, done: float, warmup: float) -> float:
    """What the highest rate is multiplied by when the share `done`, 0 to 1, is behind; `warmup` of it is a rise."""
    if schedule == "one_cycle":
        return _one_cycle(done, max(warmup, _CYCLE_RISE))
    if done < warmup:
        return done / warmup
    return _FALLS[schedule](min(1.0, (done - warmup) / (1 - warmup)))


def _cosine(done: float) -> float:
    """Half a cosine wave from 1 to 0 (Loshchilov and Hutter 2017)."""
    return (1 + math.cos(math.pi * done)) / 2


def _steps(done: float) -> float:
    factor: float = 0.1 ** sum(done >= step for step in _STEPS)
    return factor


def _one_cycle(done: float, rise: float) -> float:
    if done < rise:
        return 1 + (_CYCLE_START - 1) * _cosine(done / rise)
    return _CYCLE_END + (1 - _CYCLE_END) * _cosine((done - rise) / (1 - rise))


_FALLS: Mapping[str, Callable[[float], float]] = {"cosine": _cosine, "step": _steps, "constant": lambda _: 1.0}
