"""Noticing that a clock jumped, and how long ago. What follows from it is decided elsewhere."""

import time
from collections.abc import Callable

JUMP_S = 2.0
"""A smaller correction of the clock is no jump."""


class WallClock:
    """Notices when the time of day runs apart from the time that passes."""

    def __init__(self, wall: Callable[[], float], passed: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._passed = wall, passed
        self._apart: float | None = None

    def take_jump(self) -> float:
        """How far the clock has jumped since the last call, seconds; 0 for corrections below `JUMP_S`."""
        apart = self._wall() - self._passed()
        if self._apart is None:
            self._apart = apart
        jump = apart - self._apart
        if abs(jump) < JUMP_S:
            return 0.0  # many small corrections add up to one that counts
        self._apart = apart
        return jump


class SteadyClock:
    """Knows whether the clock has been steady for `settle_s` seconds, since this was made and since its last jump.

    A jump of less than `harmless_s` seconds does not count.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        settle_s: float,
        harmless_s: float,
        passed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._passed = WallClock(wall, passed), passed
        self._settle_s, self._harmless_s = settle_s, harmless_s
        self._steady_since = passed()

    def is_steady(self) -> bool:
        """Read the clock. Raises what reading raises."""
        if abs(self._clock.take_jump()) >= self._harmless_s:
            self._steady_since = self._passed()
        return self._passed() - self._steady_since >= self._settle_s
