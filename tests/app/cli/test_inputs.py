"""Recipes, targets and preprocessing as the caller may write them."""

from pathlib import Path

import pytest

from app.cli.inputs import read_preprocess, read_recipe, read_targets
from app.contracts.failure import SlimlineError

RECIPE = [("prune.magnitude", 0.5), ("quantize.static", None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.json", '[{"method": "prune.magnitude", "amount": 0.5}, {"method": "quantize.static"}]'),
        ("r.yaml", "- {method: prune.magnitude, amount: 0.5}\n- method: quantize.static\n"),
        (None, "prune.magnitude:amount=0.5 + quantize.static"),
        (None, '[{"method": "prune.magnitude", "amount": 0.5}, {"method": "quantize.static"}]'),
    ],
)
def test_recipe_in_every_form(name: str | None, text: str, tmp_path: Path) -> None:
    if name:
        (tmp_path / name).write_text(text)
    steps = read_recipe(str(tmp_path / name) if name else text)
    assert [(step.method, getattr(step, "amount", None)) for step in steps] == RECIPE


def test_file_that_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("[{")
    with pytest.raises(SlimlineError, match="neither JSON nor YAML") as refused:
        read_recipe(str(tmp_path / "r.yaml"))
    assert refused.value.failure.code == "FILE_UNREADABLE"


def test_targets() -> None:
    targets = read_targets(["max_size_ratio=0.3", "max_accuracy_drop = 0.01"])
    assert targets.model_dump(exclude_none=True) == {"max_size_ratio": 0.3, "max_accuracy_drop": 0.01}


@pytest.mark.parametrize("clause", ["max_size_ratio=-1", "max_size_ratio=small", "max_size_ratio"])
def test_bad_targets(clause: str) -> None:
    with pytest.raises(SlimlineError) as refused:
        read_targets([clause])
    assert refused.value.failure.code == "TARGETS_INVALID"
    assert "max_size_ratio" in str(refused.value)


def test_preprocess_in_every_form(tmp_path: Path) -> None:
    text = '{"resize": [32, 32], "scale": 0.5}'
    (tmp_path / "p.json").write_text(text)
    for given in (text, str(tmp_path / "p.json")):
        preprocess = read_preprocess(given)
        assert preprocess
        assert (preprocess.resize, preprocess.scale) == ((32, 32), 0.5)
    assert read_preprocess(None) is None
