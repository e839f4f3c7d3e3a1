"""One update of the weights: forward, backward, and the optimizer; in parts where memory is short. No schedule here."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from app.contracts.failure import SlimlineError
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.distributed.team import ALONE, Team
from worker.engine.wording import counted

_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "failed to allocate", "bad_alloc")
Forward = Callable[[TrainingBatch], tuple[torch.Tensor, Mapping[str, torch.Tensor], object]]


@dataclass(frozen=True)
class Precision:
    """Whether the forward pass runs in half precision."""

    device: str
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device, dtype=self.dtype)


@dataclass
class Updater:
    """Turns a batch into gradients and an update. `part` is how many samples go through the network at once."""

    forward: Forward
    optimizer: torch.optim.Optimizer
    precision: Precision
    part: int
    smallest_part: int
    on_halved: Callable[[int], None]
    scaler: torch.amp.GradScaler | None = None
    clip: Callable[[], None] = lambda: None
    after_backward: Callable[[], None] = lambda: None
    team: Team = ALONE
    hold_back: Callable[[], AbstractContextManager[object]] = nullcontext
    """Within, gradients are not shared with the team yet."""

    def update(self, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """Means of the loss (`total`) and of its parts, still on the device.

        Raises SlimlineError OUT_OF_MEMORY where not even the smallest part fits.
        """
        losses = self.gather(batch)
        self._step()
        return self.team.mean(losses)

    def gather(self, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """Leave the gradients of `batch` in the parameters; gives and raises what `update` does, of this process."""
        while True:
            try:
                return self._add_up(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        scaler = self.scaler.state_dict() if self.scaler is not None else None
        return {"optimizer": self.optimizer.state_dict(), "scaler": scaler}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])

    def _add_up(self, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """Gradients of the whole batch, summed over its parts."""
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, torch.Tensor] = {}
        left = len(batch)
        for part in batch.split(self.part):
            weight, left = len(part) / len(batch), left - len(part)
            with self.hold_back() if left else nullcontext():
                with self.precision.autocast():
                    total, parts, _ = self.forward(part)
                self._backward(total * weight)
            for name, value in {"total": total.detach(), **parts}.items():
                sums[name] = sums.get(name, 0) + value.float() * weight
        self.after_backward()
        return sums

    def _backward(self, loss: torch.Tensor) -> None:
        scaled = self.scaler.scale(loss) if self.scaler is not None else loss
        scaled.backward()  # type: ignore[no-untyped-call]  # torch leaves it so

    def _step(self) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        self.clip()
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()

    def _halve(self, error: BaseException) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.part <= self.smallest_part:
            raise SlimlineError(
                "OUT_OF_MEMORY",
                f"training does not fit into memory with {counted(self.part, 'sample')} at a time",
                hint="Lower `batch_size`, or send a smaller model; the operator can raise the memory of a job.",
            ) from error
        self.part = max(self.smallest_part, self.part // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.on_halved(self.part)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on the CPU torch says so only in the text of a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in _SIGNS)
