"""`prefetch`: work done ahead in threads, its results in order. What the work is does not matter here."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
_AHEAD = 2


def prefetch(work: Iterable[Callable[[], Result]], threads: int = 1) -> Generator[Result, None, None]:
    """What each call in `work` gives, in order, while the next ones are at work already.

    What a call raises is raised here in its turn. Closing the generator ends the threads, after the calls they are in.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        try:
            for call in work:
                waiting.append(pool.submit(call))
                if len(waiting) >= threads + _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for each in waiting:
                each.cancel()
