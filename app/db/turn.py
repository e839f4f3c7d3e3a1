"""A lock that serves threads in the order they came; `threading.Lock` may let a newcomer pass, and some starve."""

import threading
from collections import deque


class FairLock:
    """Not reentrant. The lock is handed from owner to owner, so no one can slip in between."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[threading.Lock] = deque()
        self._held = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._line.append(turn)
        turn.acquire()

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._line:
                self._line.popleft().release()
            else:
                self._held = False
