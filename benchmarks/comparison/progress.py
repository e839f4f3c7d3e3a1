"""How far a benchmark is: `Progress`."""

import sys
import time


class Progress:
    """A line on standard error for each piece of work, with the time left if the rest goes as what is done."""

    def __init__(self, pieces: int) -> None:
        self._pieces, self._done, self._start = pieces, 0, time.monotonic()

    def __call__(self, what: str) -> None:
        """The next piece begins."""
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * (self._pieces - self._done) if self._done else 0.0
        eta = f", about {left / 60:.1f} min left" if left else ""
        self._done += 1
        print(f"[{self._done:3}/{self._pieces}] {elapsed:5.0f} s{eta}: {what}", file=sys.stderr, flush=True)
