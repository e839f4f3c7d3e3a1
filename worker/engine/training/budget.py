"""How long a training lasts and how much of it is done, by updates or by time."""

import time
from collections.abc import Callable

from app.contracts.failure import SlimlineError
from app.contracts.training import TrainingOptions

DEFAULT_EPOCHS = 10


class Budget:
    """Counts against epochs or updates, which are exact, or against seconds of training, which no seed makes the same.

    `spent_s` was used up before, by an attempt that this one goes on from. `agree` makes of a process' time that of
    all that train together.
    """

    def __init__(
        self,
        options: TrainingOptions,
        steps_per_epoch: int,
        spent_s: float = 0.0,
        agree: Callable[[float], float] = lambda seconds: seconds,
    ) -> None:
        self._seconds = options.seconds
        self._started, self._seen_s, self._agree = time.monotonic() - spent_s, spent_s, agree
        self._first_update_s = spent_s
        self.updates: int | None = None
        if options.seconds is None:
            self.updates = options.steps or (options.epochs or DEFAULT_EPOCHS) * steps_per_epoch

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, those before a kill included."""
        return time.monotonic() - self._started

    def look(self) -> None:
        """Look at the clock. Between looks time stands still for `done`, so that all that goes by it agrees."""
        if self._seconds is not None:
            self._seen_s = self._agree(self.spent_s)

    def done(self, update: int) -> float:
        """The share that is done when `update` updates are, 0 to 1; of time, it is half an update less."""
        if self.updates is not None:
            return min(1.0, update / self.updates)
        return min(1.0, self._seen_s / (self._seconds or 1.0))

    def middle(self, update: int) -> float:
        """The share at the middle of the update that comes after `update` others: what schedules go by."""
        return min(1.0, (update + 0.5) / self.updates) if self.updates is not None else self.done(update)

    def is_over(self, update: int) -> bool:
        """Whether the training ends after `update` updates; one at least is made."""
        return update > 0 and self.done(update) >= 1.0

    def remaining_s(self, update: int, update_s: float) -> float:
        """Seconds left, where one update takes `update_s`."""
        if self.updates is not None:
            return (self.updates - update) * update_s
        return max(0.0, (self._seconds or 0.0) - self.spent_s)

    def check_first(self, update_s: float) -> None:
        """Raises SlimlineError TIME_BUDGET_TOO_SMALL where the first update alone took more than all there is."""
        if self._seconds is not None and update_s > self._seconds:
            raise SlimlineError(
                "TIME_BUDGET_TOO_SMALL",
                f"one update took {update_s:.2g} s, and `seconds` allows {self._seconds:g} s of training",
                hint="Raise `seconds`, or lower `batch_size`.",
            )
