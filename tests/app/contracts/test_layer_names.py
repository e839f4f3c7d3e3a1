"""Which layers a step chooses: by the server just as by the engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts.failure import SlimlineError
from app.contracts.layer_names import is_chosen, matches_none
from worker.engine.graph.layers import Layer, select_layers

NAMES = st.lists(st.text("ab/[0]", min_size=1, max_size=4), unique=True, max_size=5)
PATTERNS = st.lists(st.text("ab/[0]*?!", min_size=1, max_size=4), max_size=3)


@given(names=NAMES, include=PATTERNS, exclude=PATTERNS)
def test_the_engine_chooses_the_same(names: list[str], include: list[str], exclude: list[str]) -> None:
    layers = [Layer(name, "Conv", None, [], 0, ()) for name in names]  # type: ignore[arg-type]  # only names are read
    if any(matches_none(pattern, names) for pattern in include + exclude):
        with pytest.raises(SlimlineError, match="no layer is called"):
            select_layers(layers, include, exclude)
        return
    chosen = [layer.name for layer in select_layers(layers, include, exclude)]
    assert chosen == [name for name in names if is_chosen(name, include, exclude)]


def test_case_counts_and_exclude_wins() -> None:
    assert is_chosen("conv1", [], [])
    assert is_chosen("conv1", ["conv?"], ["conv2"])
    assert not is_chosen("Conv1", ["conv?"], [])
    assert not is_chosen("conv1", ["conv1"], ["c*"])
