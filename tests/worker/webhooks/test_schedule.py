"""When a delivery is tried again, and when no more."""

import pytest

from worker.webhooks.schedule import JITTER, MAX_RETRY_AFTER_S, WAITS_S, Outcome, find_wait


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_every_2xx_is_delivered(status: int) -> None:
    assert Outcome(status, None, 0).is_delivered
    assert find_wait(1, Outcome(status, None, 0)) is None


@pytest.mark.parametrize("status", [None, 101, 301, 400, 401, 404, 429, 500, 503])
def test_nothing_else_is(status: int | None) -> None:
    for tries, wait_s in enumerate(WAITS_S, 1):
        found = find_wait(tries, Outcome(status, None, 0))
        assert found is not None
        assert wait_s <= found <= wait_s * (1 + JITTER)
    assert find_wait(len(WAITS_S) + 1, Outcome(status, None, 0)) is None


@pytest.mark.parametrize(("asked_s", "wait_s"), [(60, 60), (1, WAITS_S[0]), (1e9, MAX_RETRY_AFTER_S), (-5, WAITS_S[0])])
def test_a_receiver_may_ask_for_time(asked_s: float, wait_s: float) -> None:
    found = find_wait(1, Outcome(503, None, 0, asked_s))
    assert found is not None
    assert wait_s <= found <= wait_s * (1 + JITTER)
