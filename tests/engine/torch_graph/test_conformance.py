"""The official ONNX node tests: each passes, or stands in a visible table with the reason why it is refused."""

import pytest

from benchmarks import conformance
from benchmarks.conformance import Outcome

LEAST_PASSED = 0.97


@pytest.fixture(scope="module")
def outcomes() -> tuple[Outcome, ...]:
    return conformance.run_all()


def test_none_is_wrong(outcomes: tuple[Outcome, ...]) -> None:
    assert [f"{each.name}: {each.detail}" for each in outcomes if each.verdict == "wrong"] == []


def test_those_refused_are_in_the_table(outcomes: tuple[Outcome, ...]) -> None:
    refused = [each for each in outcomes if each.verdict == "refused"]
    assert [f"{each.name}: {each.detail}" for each in refused if each.expected_reason is None] == []


def test_nearly_all_in_scope_pass(outcomes: tuple[Outcome, ...]) -> None:
    scope = [each for each in outcomes if each.expected_reason is None]
    assert len(scope) > 1500
    assert sum(each.verdict == "passed" for each in scope) / len(scope) >= LEAST_PASSED


def test_the_page_is_up_to_date(outcomes: tuple[Outcome, ...]) -> None:
    assert conformance.PAGE.read_text() == conformance.page(outcomes), "run python -m benchmarks.conformance --write"
