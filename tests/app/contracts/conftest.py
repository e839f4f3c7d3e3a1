"""Facts of a model, made by hand."""

from collections.abc import Callable, Mapping

import pytest

from app.contracts.facts import Applicability, ChannelFacts, LayerFacts, ModelFacts


@pytest.fixture
def make_facts() -> Callable[..., ModelFacts]:
    """Facts of a model with these layers; each layer is given as its fields by name."""

    def make(**layers: Mapping[str, object]) -> ModelFacts:
        common = {"op": "Conv", "input_shapes": [], "output_shapes": [], "weights": [], "parameters": 8}
        found = [LayerFacts.model_validate({**common, "name": name, **fields}) for name, fields in layers.items()]
        return ModelFacts(opset=18, inputs=[], outputs=[], parameters=8 * len(found), layers=found)

    return make


@pytest.fixture
def make_layer() -> Callable[..., dict[str, object]]:
    """Fields of a layer that a method works on, or not because of `why`, with `channels` that can go."""

    def make(method: str, why: str | None = None, **channels: object) -> dict[str, object]:
        methods = {method: Applicability(applies=why is None, why=why)}
        return {"methods": methods, "channels": ChannelFacts.model_validate(channels) if channels else None}

    return make
