"""What a preflight says of soft and of scheduled pruning: what it says of one shot with the same amount."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from app.contracts.preflight import plan_recipe
from app.contracts.recipe.notation import parse_recipe
from worker.engine.ingest import ingest_model
from worker.engine.methods import applicability
from worker.engine.pruning.report import describe_channels


@pytest.mark.parametrize(
    "steps",
    [
        "prune.structured:amount=0.5 + prune.soft:amount=0.5",
        "prune.structured:ratios={'fc':0.5,'conv3':0.3} + prune.soft:ratios={'fc':0.5,'conv3':0.3}",
        "prune.structured:amount=0.5 + prune.structured:amount=0.5,schedule={'steps':4}",
        "prune.magnitude:amount=0.5 + prune.magnitude:amount=0.5,schedule={'steps':4}",
        "prune.nm:n=1 + prune.nm:n=1,schedule={'steps':4}",
    ],
)
def test_it_is_planned_like_one_shot(make_cnn: Callable[..., onnx.ModelProto], tmp_path: Path, steps: str) -> None:
    onnx.save(make_cnn(channels=16), tmp_path / "m.onnx")
    _, facts = ingest_model(tmp_path / "m.onnx", applicability=applicability, channels=describe_channels)
    once, other = plan_recipe(parse_recipe(steps.replace("'", '"')), facts)
    assert other.layers == once.layers
    assert any(layer.planned for layer in once.layers)
    assert other.notes == once.notes
