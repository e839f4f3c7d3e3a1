"""What can go of a layer, in words."""

import pytest

from app.contracts.facts import ChannelFacts


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"total": 64, "units": 64}, "64 channels"),
        ({"total": 10, "units": 1}, "1 channel"),
        ({"total": 192, "units": 6, "per_unit": 32, "kind": "head"}, "6 heads of 32"),
        ({"total": 128, "units": 128, "kind": "hidden unit"}, "128 hidden units"),
        ({"total": 10, "units": 0, "why": "tied to the output"}, "none"),
    ],
)
def test_channels_in_words(facts: dict[str, object], text: str) -> None:
    assert str(ChannelFacts.model_validate(facts)) == text
