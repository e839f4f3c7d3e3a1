"""Work ahead in threads: order, errors, and that no thread is left."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from worker.engine.training import prefetch as module
from worker.engine.training.prefetch import prefetch


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def fail() -> int:
    raise ArithmeticError("bad sample")


def calls(*values: int) -> Iterator[Callable[[], int]]:
    return (fail if value < 0 else partial(abs, value) for value in values)


@pytest.mark.parametrize("threads", [1, 4])
def test_results_come_in_order(threads: int) -> None:
    assert list(prefetch(calls(*range(50)), threads)) == list(range(50))
    assert list(prefetch(calls(), threads)) == []


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_comes_in_its_turn(threads: int) -> None:
    results = prefetch(calls(1, 2, -1, 4), threads)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ArithmeticError, match="bad sample"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_closing_starts_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    gate = threading.Event()

    class Opening(ThreadPoolExecutor):
        """Lets the work at hand end only once nothing is left to do but to wait for it."""

        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            gate.set()
            super().shutdown(wait, cancel_futures=cancel_futures)

    def work(number: int) -> int:
        begun.append(number)
        assert number == 0 or gate.wait(20)
        return number

    monkeypatch.setattr(module, "ThreadPoolExecutor", Opening)
    results = prefetch(partial(work, number) for number in range(100))
    assert next(results) == 0
    results.close()
    assert set(begun) <= {0, 1}


def test_a_consumer_that_raises_leaves_no_thread() -> None:
    def consume() -> None:
        for _ in prefetch(calls(*range(100)), 2):
            raise LookupError

    with pytest.raises(LookupError):
        consume()
