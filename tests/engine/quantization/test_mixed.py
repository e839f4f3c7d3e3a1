"""The choice of bits where 4 of them cannot be written: a graph of an opset that does not know them."""

from collections.abc import Callable

import onnx
import pytest

from app.contracts.failure import SlimlineError
from app.contracts.recipe.quantize_mixed import Budget, QuantizeMixed, WeightBits
from app.contracts.recipe.quantize_static import QuantizeStatic
from worker.engine.graph import Graph
from worker.engine.measure.comparison import Judge
from worker.engine.quantization.mixed import MixedSearch
from worker.engine.quantization.search import SearchRun, StaticSearch
from worker.engine.quantization.target import find_target
from worker.engine.quantization.trials import Trials
from worker.engine.samples import make_up
from worker.engine.session import open_session

Builder = Callable[..., onnx.ModelProto]


def search(model: onnx.ModelProto, choices: tuple[WeightBits, ...]) -> MixedSearch:
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    samples = make_up(graph.inputs, open_session(model.SerializeToString()), seed=0)
    run = SearchRun(samples, "cpu", lambda _share, _message: None)
    names = frozenset(layer.name for layer in graph.layers())
    static = QuantizeStatic(repairs=(), calibrator="minmax")
    best = StaticSearch(graph, names, static, find_target("device"), run).run()
    step = QuantizeMixed(budget=Budget(size_ratio=0.4), choices=choices)
    return MixedSearch(graph, best, Trials(graph, Judge(graph, samples, 8)), step, run)


def test_other_bits_are_chosen_and_that_is_told(make_cnn: Builder) -> None:
    mixed = search(make_cnn(channels=32), (4, 8, 32))
    found = mixed.run()
    assert found.is_within
    assert set(found.outcome.bits.values()) <= {8, 32}
    assert "weights of 4 bits cannot be written" in mixed.notes[0]


def test_without_others_it_is_refused(make_cnn: Builder) -> None:
    with pytest.raises(SlimlineError) as caught:
        search(make_cnn(channels=32), (4, 32)).run()
    assert caught.value.failure.code == "BUDGET_OUT_OF_REACH"
