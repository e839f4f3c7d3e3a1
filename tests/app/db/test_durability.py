"""Group commit: nobody returns before a sync that began after their call; those who wait share one."""

import threading
import time
from pathlib import Path

import pytest

from app.db.durability import GroupSync, sync_log
from app.db.turn import FairLock


def run_threads(count: int, work: object) -> None:
    assert callable(work)
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_waiting_calls_share_one_sync_that_began_after_them() -> None:
    log: list[tuple[str, int]] = []
    calls = iter(range(1000))
    all_wait = threading.Event()

    def sync() -> None:
        number = next(calls)
        log.append(("begin", number))
        all_wait.wait()
        log.append(("end", number))

    group = GroupSync(sync)

    def call() -> None:
        begun_before = sum(kind == "begin" for kind, _ in log)
        group()
        assert any(kind == "end" and number >= begun_before for kind, number in log)

    threads = [threading.Thread(target=call) for _ in range(32)]
    for thread in threads:
        thread.start()
    while group._asked < len(threads):  # the first sync lasts until every call is in
        time.sleep(0.001)
    all_wait.set()
    for thread in threads:
        thread.join()
    assert [number for kind, number in log if kind == "end"] == [0, 1]


def test_a_failed_sync_is_told_to_its_caller_and_tried_by_the_others() -> None:
    outcomes: list[str] = []
    failures = iter([True])

    def sync() -> None:
        time.sleep(0.01)
        if next(failures, False):
            raise OSError(28, "No space left on device")

    group = GroupSync(sync)

    def call() -> None:
        try:
            group()
        except OSError:
            outcomes.append("failed")
        else:
            outcomes.append("durable")

    run_threads(8, call)
    assert sorted(outcomes) == ["durable"] * 7 + ["failed"]


def test_a_database_without_a_log_is_durable(tmp_path: Path) -> None:
    sync_log(tmp_path / "absent.db")


def test_the_lock_serves_in_order() -> None:
    lock = FairLock()
    served: list[int] = []
    threads = []

    def take(number: int) -> None:
        with lock:
            served.append(number)

    with lock:
        for number in range(10):
            thread = threading.Thread(target=take, args=(number,))
            threads.append(thread)
            thread.start()
            while len(lock._line) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert served == list(range(10))


def test_the_lock_is_free_after_an_error() -> None:
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass
