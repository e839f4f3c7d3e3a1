"""What every method promises, held by every method on every tiny model. A new method is tested here by being there."""

from collections.abc import Callable

import numpy as np
import pytest
from pydantic.fields import FieldInfo

from app.contracts.failure import SlimlineError
from app.contracts.recipe import METHODS, Step
from worker.engine.graph import Graph
from worker.engine.methods import applicability, find_method, registry
from worker.engine.methods.method import StepContext
from worker.engine.pruning.report import describe_channels
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db

Context = Callable[[str], StepContext]
FAITHFUL_DB = {
    "quantize.static": 20.0,
    "quantize.mixed": 10.0,
    "quantize.dynamic": 25.0,
    "quantize.weights": 30.0,
    "quantize.float16": 50.0,
    "quantize.bfloat16": 40.0,
}
"""How close to the original a default step stays on tiny models of random weights, dB."""
NO_PROMISE_DB = -10.0
"""For methods that change the function and are trained after."""
BRIEF_TRAINING = {"steps": 4, "batch_size": 8, "distill": {}}
"""From the original, as the samples have no labels."""
TRAINED: dict[str, dict[str, object]] = {"train": BRIEF_TRAINING, "prune.soft": {"train": BRIEF_TRAINING}}
CHANNELS = {"prune.soft", "prune.structured"}


def make_step(method: str, **options: object) -> Step:
    """The default step; an option that must be given takes the example of its documentation."""
    fields = METHODS[method].model_fields
    needed = {name: field.examples[0] for name, field in fields.items() if _must_be_given(field) and field.examples}
    return METHODS[method].model_validate({"method": method, **needed, **TRAINED.get(method, {}), **options})


def _must_be_given(field: FieldInfo) -> bool:
    """Some are in demand only where no other option stands for them: their default is checked too."""
    return field.is_required() or bool(field.validate_default)


def apply(graph: Graph, step: Step, context: StepContext) -> Graph:
    """The result, or a skipped test where the method says that it finds nothing to work on."""
    method = find_method(step.method)
    if any(method.obstacle(graph, layer) is None for layer in graph.layers()):
        return method.apply(graph, step, context)
    with pytest.raises(SlimlineError) as caught:
        method.apply(graph, step, context)
    assert caught.value.failure.code.startswith("NOTHING_TO_")
    assert not any(record.done for record in context.record.layers)
    pytest.skip(f"refused, as it should be: {caught.value.failure.message}")


def to_bytes(graph: Graph) -> bytes:
    return graph.proto().SerializeToString(deterministic=True)


def test_every_step_model_has_its_method_and_the_other_way_round() -> None:
    assert registry().keys() == METHODS.keys()
    assert set(FAITHFUL_DB) <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_runs_and_stays_close(graph: Graph, context: Context, method: str) -> None:
    before = to_bytes(graph)
    result = apply(graph, make_step(method), context(method))
    assert to_bytes(graph) == before, "the graph it was given changed"
    result.check()
    assert result.inputs == graph.inputs
    assert [spec.name for spec in result.outputs] == [spec.name for spec in graph.outputs]
    original, compressed = open_session(before), open_session(to_bytes(result))
    for batch in context(method).samples.batches(limit=16):
        expected, got = run_session(original, batch.feed), run_session(compressed, batch.feed)
        for wanted, output in zip(expected, got, strict=True):
            assert (output.shape, output.dtype) == (wanted.shape, wanted.dtype)
            noise = sqnr_db(wanted, output)
            assert noise is None or noise >= FAITHFUL_DB.get(method, NO_PROMISE_DB)


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_is_told_of_once_and_a_skipped_one_with_the_reason(
    graph: Graph, context: Context, method: str
) -> None:
    told = context(method)
    apply(graph, make_step(method), told)
    records = told.record.layers
    assert sorted(record.layer for record in records) == sorted(layer.name for layer in graph.layers())
    assert all(record.done or record.reason for record in records)
    works_on = {name for name, methods in applicability(graph).items() if methods[method].applies}
    assert {record.layer for record in records if record.done} <= works_on


@pytest.mark.parametrize("method", METHODS)
def test_it_does_what_it_says(graph: Graph, context: Context, method: str) -> None:
    """Fewer stored bytes in what is called done with bits or has another shape, zeros where sparsity is told."""
    told = context(method)
    result = apply(graph, make_step(method), told)
    bits = [record.bits for record in told.record.layers if record.done and record.bits]
    sparse = [record.sparsity for record in told.record.layers if record.done and record.sparsity]
    smaller = [each for each in told.record.layers if each.done and each.shape_after != each.shape_before]
    learnt = [each for each in told.record.layers if method == "train" and each.done and each.sqnr_db is not None]
    assert bits or sparse or smaller or learnt
    before, after = (sum(g.array(value).nbytes for value in g.initializers()) for g in (graph, result))
    assert after < before if bits or smaller else after == before
    if sparse:
        zeros = [sum((g.array(v) == 0).sum() for v in g.initializers()) for g in (graph, result)]
        assert zeros[1] > zeros[0]


@pytest.mark.parametrize("method", METHODS)
def test_same_input_same_bytes(graph: Graph, context: Context, method: str) -> None:
    first = apply(graph, make_step(method), context(method))
    second = apply(graph, make_step(method), context(method))
    assert to_bytes(first) == to_bytes(second)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_included_layer_is_touched(graph: Graph, context: Context, method: str) -> None:
    works_on = [name for name, methods in applicability(graph).items() if methods[method].applies]
    if not works_on:
        pytest.skip("it works on no layer of this model")
    told, included = context(method), [works_on[0], *tied_to(graph, method, works_on[0])]
    result = apply(graph, make_step(method, include=included), told)
    assert {record.layer for record in told.record.layers if record.done} == set(included)
    others = [record.reason for record in told.record.layers if record.layer not in included]
    assert others == ["left out by the step"] * len(others)
    touched = {weight.name for layer in graph.layers() if layer.name in included for weight in layer.weights}
    for layer in graph.layers():
        if layer.weight.name in touched:
            continue
        before, after = graph.array(layer.weight), result.array(layer.weight.name or "")
        if method in CHANNELS and before.shape != after.shape:  # it reads what went
            assert after.shape[layer.output_axis] == before.shape[layer.output_axis]
        else:
            assert np.array_equal(after, before), layer.name


def tied_to(graph: Graph, method: str, layer: str) -> list[str]:
    """The layers that a method can only work on together with this one."""
    return describe_channels(graph)[layer].tied_to if method in CHANNELS else []


@pytest.mark.parametrize("method", METHODS)
def test_excluding_everything_is_refused_and_so_is_an_unknown_name(graph: Graph, context: Context, method: str) -> None:
    with pytest.raises(SlimlineError) as caught:
        find_method(method).apply(graph, make_step(method, include=["no.such.layer"]), context(method))
    assert caught.value.failure.code == "LAYER_UNKNOWN"
    with pytest.raises(SlimlineError) as caught:
        find_method(method).apply(graph, make_step(method, exclude=["*"]), context(method))
    assert caught.value.failure.code.startswith("NOTHING_TO_")


@pytest.mark.parametrize("method", METHODS)
def test_it_says_whether_it_takes_and_makes_integers(graph: Graph, context: Context, method: str) -> None:
    result = apply(graph, make_step(method), context(method))
    if not find_method(method).makes_integers:
        refuse_quantized(result, method)
        return
    for other in METHODS:
        if not find_method(other).takes_integers:
            with pytest.raises(SlimlineError) as caught:
                find_method(other).apply(result, make_step(other), context(other))
            assert caught.value.failure.code == "ALREADY_QUANTIZED"


@pytest.mark.parametrize("method", METHODS)
def test_progress_never_falls(graph: Graph, context: Context, method: str) -> None:
    shares: list[float] = []
    told = context(method)
    watched = StepContext(**{**vars(told), "progress": lambda share, _, __=None: shares.append(share)})
    apply(graph, make_step(method), watched)
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
