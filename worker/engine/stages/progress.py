"""How far a job is: one fraction over all its phases that never falls, and the time left from the speed so far."""

import time
from collections.abc import Callable, Mapping

from app.contracts.events import EngineEvent, Phase, Progress

_PHASES: Mapping[Phase, tuple[float, float]] = {
    "load": (0.0, 0.05),
    "compress": (0.05, 0.6),
    "export": (0.6, 0.63),
    "verify": (0.63, 0.68),
    "measure": (0.68, 1.0),
}
"""Where each phase begins and ends, as shares of the job."""
_SHORTEST_GAP_S = 0.1
_SHARE_FOR_ETA = 0.05


class ProgressMeter:
    """Emits Progress events, at most ten a second within a phase."""

    def __init__(self, steps: int, emit: Callable[[EngineEvent], None]) -> None:
        self._steps, self._emit = steps, emit
        self._start = time.monotonic()
        self._step, self._fraction, self._last, self._phase = 0, 0.0, -1.0, ""

    def tell(
        self, phase: Phase, share: float, message: str, step: int | None = None, remaining_s: float | None = None
    ) -> None:
        """`share` of `phase` is done, 0 to 1; within `step` (from 0) in phase `compress`, of that step.

        `remaining_s`: what the step itself has measured to be left of it; the job takes at least that.
        """
        if step is not None:
            self._step, share = step + 1, (step + share) / self._steps
        begin, end = _PHASES[phase]
        self._fraction = max(self._fraction, begin + (end - begin) * min(max(share, 0.0), 1.0))
        elapsed = time.monotonic() - self._start
        if phase == self._phase and elapsed - self._last < _SHORTEST_GAP_S:
            return
        self._last, self._phase = elapsed, phase
        self._emit(
            Progress(
                fraction=self._fraction,
                step=self._step,
                steps=self._steps,
                phase=phase,
                message=message,
                eta_s=self._expect(elapsed, remaining_s),
            )
        )

    def _expect(self, elapsed: float, remaining_s: float | None) -> float | None:
        """Seconds left. A last step that knows its own time is believed: what follows it is short."""
        if remaining_s is not None and self._step == self._steps:
            return remaining_s
        guess = elapsed / self._fraction * (1 - self._fraction) if self._fraction > _SHARE_FOR_ETA else None
        return max(guess or 0.0, remaining_s) if remaining_s is not None else guess
