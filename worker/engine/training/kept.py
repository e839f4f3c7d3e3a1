"""The states of a training that may be given back: the best so far and the last."""

from dataclasses import dataclass
from typing import Any, Literal

from worker.engine.training.selection import Judgement
from worker.engine.training.snapshot import Tensors


@dataclass(frozen=True)
class State:
    """Weights after so many epochs, and how good they are, where that was judged."""

    epoch: float
    tensors: Tensors
    judgement: Judgement | None

    def told(self) -> str:
        """`epoch 3 (top1 0.912)`."""
        judged = f" ({self.judgement.metric} {self.judgement.value:.4g})" if self.judgement else ""
        return f"epoch {self.epoch:g}{judged}"


class Kept:
    """Remembers two states. Where nothing judges, the last is the best."""

    def __init__(self, keep: Literal["best", "last"]) -> None:
        self._keep = keep
        self._best: State | None = None
        self._last: State | None = None
        self.improved_at = 0.0
        """The last epoch that was better than all before, not only as good."""

    @property
    def best_epoch(self) -> float:
        """Of the best state so far; 0 for that before training."""
        return self._best.epoch if self._best else 0.0

    def add(self, state: State) -> None:
        """Take the state at the end of an epoch."""
        self._last = state
        best = self._best.judgement if self._best else None
        if state.judgement is None or best is None or state.judgement.score > best.score:
            self.improved_at = state.epoch
            self._best = state
        elif state.judgement.score == best.score:
            self._best = state

    def forget_last(self) -> None:
        """The last state is worth nothing."""
        self._last = self._best

    def choose(self) -> State:
        """The last state, unless an earlier one is better by more than chance and the best is wanted."""
        if self._best is None or self._last is None:
            raise ValueError("no state was added")
        if self._keep == "last" or self._best.judgement is None or self._last.judgement is None:
            return self._last
        return self._best if self._best.judgement.is_surely_better_than(self._last.judgement) else self._last

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        last = None if self._last is self._best else _pack(self._last)
        return {"best": _pack(self._best), "last": last, "improved_at": self.improved_at}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._best, self.improved_at = _unpack(state["best"]), state["improved_at"]
        self._last = _unpack(state["last"]) or self._best


def _pack(state: State | None) -> dict[str, Any] | None:
    if state is None:
        return None
    judged = state.judgement
    values = [judged.metric, judged.value, judged.score, judged.error] if judged else None
    return {"epoch": state.epoch, "tensors": state.tensors, "judgement": values}


def _unpack(packed: dict[str, Any] | None) -> State | None:
    if packed is None:
        return None
    judged = packed["judgement"]
    return State(packed["epoch"], packed["tensors"], Judgement(*judged) if judged else None)
