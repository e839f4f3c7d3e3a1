"""Bad input to the quantization methods: refused by name, or a result that runs and stays close. Never a wrong file."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from app.contracts.recipe.notation import parse_recipe
from worker.engine import compress
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model
from worker.engine.methods import find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import sqnr_db

Builder = Callable[..., onnx.ModelProto]
Array = NDArray[Any]
Arrays = Mapping[str, Array]

RECIPES = {
    "static": "quantize.static",
    "dynamic": "quantize.dynamic:convolutions=true",
    "nearest": "quantize.weights",
    "gptq": "quantize.weights:bits=4,rounding=gptq",
    "adaround": "quantize.weights:bits=4,rounding=adaround",
    "mixed": "quantize.mixed:budget.size_ratio=0.5",
    "float16": "quantize.float16",
    "bfloat16": "quantize.bfloat16",
}
FAITHFUL_DB = {
    "static": 30.0,
    "dynamic": 30.0,
    "nearest": 30.0,
    "gptq": 12.0,
    "adaround": 12.0,
    "mixed": 12.0,
    "float16": 50.0,
    "bfloat16": 40.0,
}
"""How close to float every accepted result is where the input is odd but sound, dB; 4 bits keep little."""
READS_CALIBRATION = ("static", "nearest", "gptq", "adaround", "mixed")
CONVERTS = ("float16", "bfloat16")
every_method = pytest.mark.parametrize("name", RECIPES)


class Outcome:
    """What a step made of an ingested model: the outputs of both on made-up inputs, and what was told."""

    def __init__(self, before: Graph, after: Graph, record: Record, samples: Samples) -> None:
        self.graph, self.record = after, record
        after.check()
        sessions = [open_session(graph.proto().SerializeToString()) for graph in (before, after)]
        feeds = [batch.feed for batch in samples.batches()]
        self.outputs = [
            (wanted, got)
            for feed in feeds
            for wanted, got in zip(*(run_session(session, feed) for session in sessions), strict=True)
        ]

    @property
    def decibels(self) -> float:
        """SQNR of all outputs where the original is finite; infinite where nothing differs."""
        kept = [(wanted[finite], got[finite]) for wanted, got in self.outputs for finite in [np.isfinite(wanted)]]
        noise = sqnr_db(*(np.concatenate(side) for side in zip(*kept, strict=True)))
        return np.inf if noise is None else noise

    @property
    def skipped(self) -> dict[str, str | None]:
        """Reasons by layer."""
        return {each.layer: each.reason for each in self.record.layers if not each.done}


Apply = Callable[..., Outcome]


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Ingests a model and applies one method to it, calibrated on `data`, or on made-up inputs without any."""

    def run(model: onnx.ModelProto, name: str, data: Arrays | None = None) -> Outcome:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        onnx.save(model, folder / "model.onnx")
        graph, _ = ingest_model(folder / "model.onnx", output=folder / "ingested.onnx")
        made_up = make_up(graph.inputs, open_session(folder / "ingested.onnx"), seed=0)
        np.savez(folder / "data.npz", allow_pickle=False, **(data or joined(made_up)))
        (step,) = parse_recipe(RECIPES[name])
        record, given = Record(0, step.method), graph.proto().SerializeToString(deterministic=True)
        with open_dataset(folder / "data.npz") as dataset:
            context = StepContext(
                record=record,
                calibration=dataset,
                samples=made_up,
                seed=0,
                device="cpu",
                progress=lambda _share, _message: None,
            )
            result = find_method(step.method).apply(graph, step, context)
        assert graph.proto().SerializeToString(deterministic=True) == given, "the graph it was given changed"
        return Outcome(graph, result, record, made_up)

    return run


def joined(samples: Samples) -> Arrays:
    """All samples as one array for each input; scalars stay scalars."""
    feeds = [batch.feed for batch in samples.batches()]
    return {
        name: np.concatenate([feed[name] for feed in feeds]) if first.ndim else first
        for name, first in feeds[0].items()
    }


def refusal(run: Callable[[], object]) -> SlimlineError:
    """What `run` raises, which says what to do."""
    with pytest.raises(SlimlineError) as caught:
        run()
    return caught.value


def floats(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def weights(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.3).astype(np.float32)


def changed(array: Array, where: Any, value: float) -> Array:
    array = array.copy()
    array[where] = value
    return array


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    **initializers: ArrayLike,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "bad", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def two_layers(*, batch: int | str = "batch", names: Sequence[str] = ("fc1", "fc2"), **other: Array) -> onnx.ModelProto:
    """x [batch, 16] -> Gemm -> h -> Relu -> r -> Gemm -> y [batch, 8]; `other` takes the place of w1, b1, w2 or b2."""
    stored = {"w1": weights(16, 32), "b1": weights(32, seed=1), "w2": weights(32, 8, seed=2), "b2": weights(8, seed=3)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], names[0]),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], names[1]),
    ]
    return make(nodes, [floats("x", batch, 16)], [floats("y", batch, 8)], **(stored | other))


def with_outputs(*names: str) -> onnx.ModelProto:
    """Two layers whose named tensors are outputs too."""
    shapes: Mapping[str, tuple[int | str, ...]] = {
        "x": ("batch", 16),
        "h": ("batch", 32),
        "r": ("batch", 32),
        "w1": (16, 32),
    }
    model = two_layers()
    model.graph.output.extend(floats(name, *shapes[name]) for name in names)
    return model


def convolutions(weight: Array) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["c"], "conv2", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["y"], "flatten"),
    ]
    bias, second = weights(8, seed=1), weights(8, 8, 3, 3, seed=2)
    return make(nodes, [floats("x", "batch", 3, 8, 8)], [floats("y", "batch", 8)], w1=weight, b1=bias, w2=second)


def shared_weight() -> onnx.ModelProto:
    """w1 is read by a MatMul and by an Einsum, which no method takes for a layer."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "fc1"),
        helper.make_node("Einsum", ["h", "w1"], ["e"], "einsum", equation="bi,ij->bj"),
        helper.make_node("MatMul", ["e", "w2"], ["y"], "fc2"),
    ]
    inputs, outputs = [floats("x", "batch", 16)], [floats("y", "batch", 8)]
    return make(nodes, inputs, outputs, w1=weights(16, 16), w2=weights(16, 8, seed=1))


def without_batch() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "fc1"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "fc2"),
    ]
    return make(nodes, [floats("x", 16)], [floats("y", 8)], w1=weights(16, 32), w2=weights(32, 8, seed=1))


def opset_9() -> onnx.ModelProto:
    """As exporters wrote it: initializers are inputs as well."""
    model = two_layers()
    model.opset_import[0].version, model.ir_version = 9, 3
    model.graph.input.extend(floats(each.name, *each.dims) for each in model.graph.initializer)
    return model


def gru() -> onnx.ModelProto:
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["", "h"], "gru", hidden_size=16),
        helper.make_node("Squeeze", ["h", "axes"], ["y"], "squeeze"),
    ]
    inputs, outputs = [floats("x", 5, "batch", 12)], [floats("y", "batch", 16)]
    stored = {"w": weights(1, 48, 12), "r": weights(1, 48, 16, seed=1), "axes": np.array([0])}
    return make(nodes, inputs, outputs, **stored)


ZERO = np.zeros((16, 32), np.float32)
SOUND: Mapping[str, Callable[[], onnx.ModelProto]] = {
    "zero channel": lambda: two_layers(w1=changed(weights(16, 32), np.s_[:, 3], 0)),
    "zero channel of a convolution": lambda: convolutions(changed(weights(8, 3, 3, 3), 2, 0)),
    "unread inputs": lambda: two_layers(w1=changed(weights(16, 32), np.s_[:4], 0)),
    "denormal channel": lambda: two_layers(w1=changed(weights(16, 32), np.s_[:, 3], 1e-41)),
    "denormal layer": lambda: two_layers(w1=weights(16, 32) * np.float32(1e-40)),
    "zero layer": lambda: two_layers(w1=ZERO),
    "dead Relu": lambda: two_layers(b1=np.full(32, -1000, np.float32)),
    "large biases": lambda: two_layers(b2=np.full(8, 1e4, np.float32)),
    "input as output": lambda: with_outputs("x"),
    "inner tensors as outputs": lambda: with_outputs("h", "r"),
    "weight as output": lambda: with_outputs("w1"),
    "shared weight": shared_weight,
    "no names": lambda: two_layers(names=("", "")),
    "equal names": lambda: two_layers(names=("same", "same")),
    "odd names": lambda: two_layers(names=("层/é 1 \u202e🙂", "n" * 5000)),
    "fixed batch": lambda: two_layers(batch=4),
    "opset 9": opset_9,
}


FORM_ONLY = tuple(SOUND)[8:]
"""Cases whose numbers are plain: the three roundings of weights make no difference to them."""


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in SOUND for name in RECIPES if name not in ("gptq", "adaround") or case not in FORM_ONLY],
)
def test_an_odd_model_is_compressed_and_stays_close(case: str, name: str, apply: Apply) -> None:
    outcome = apply(SOUND[case](), name)
    assert all(np.isfinite(got).all() for _, got in outcome.outputs)
    assert outcome.decibels > FAITHFUL_DB[name]
    assert any(each.done for each in outcome.record.layers)


@every_method
def test_a_model_without_a_batch_is_compressed(name: str, apply: Apply) -> None:
    """The data has a row for each of its 16 elements, so that ranges come of few vectors and cut some off."""
    assert apply(without_batch(), name).decibels > 12


@every_method
def test_a_layer_of_zeros_stays_exact(name: str, apply: Apply) -> None:
    """Its output is its bias, which integers hold to 31 bits and half precision to 11."""
    outcome = apply(two_layers(w2=np.zeros((32, 8), np.float32)), name)
    assert outcome.decibels > (60 if name == "float16" else 120)


@every_method
def test_outputs_of_zeros_stay_zeros(name: str, apply: Apply) -> None:
    outcome = apply(two_layers(w2=np.zeros((32, 8), np.float32), b2=np.zeros(8, np.float32)), name)
    assert max(np.abs(got).max() for _, got in outcome.outputs) < 1e-30


@every_method
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_layer_that_holds_no_numbers_is_left_alone(name: str, value: float, apply: Apply) -> None:
    """What was finite stays close; what was not is no number as before."""
    outcome = apply(two_layers(w2=changed(weights(32, 8), (0, 0), value)), name)
    assert outcome.decibels > FAITHFUL_DB[name]
    assert all((np.isfinite(wanted) == np.isfinite(got)).all() for wanted, got in outcome.outputs)
    if name not in CONVERTS:
        assert outcome.skipped == {"fc2": "its weights hold NaN or infinity"}


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in CONVERTS])
def test_weights_that_are_nowhere_numbers_are_refused(name: str, apply: Apply) -> None:
    bad = two_layers(w1=changed(weights(16, 32), (0, 0), np.nan), w2=changed(weights(32, 8), (0, 0), np.inf))
    failure = refusal(lambda: apply(bad, name)).failure
    assert failure.code == "NOTHING_TO_QUANTIZE"
    assert "its weights hold NaN or infinity" in failure.message
    assert failure.hint


@pytest.mark.parametrize("name", ["static", "mixed"])
@pytest.mark.parametrize("bad", ["w1", "b1"])
def test_layers_behind_infinity_have_no_range(name: str, bad: str, apply: Apply) -> None:
    models = {
        "w1": two_layers(w1=changed(weights(16, 32), (0, 0), np.inf)),
        "b1": two_layers(b1=changed(weights(32), 0, np.inf)),
    }
    failure = refusal(lambda: apply(models[bad], name)).failure
    assert (failure.code, failure.node) == ("NOTHING_TO_QUANTIZE", "r")
    assert "NaN or infinity" in failure.message
    assert failure.hint


@every_method
def test_one_element_gains_nothing_as_integer(name: str, apply: Apply) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "fc")]
    model = make(nodes, [floats("x", "batch", 1)], [floats("y", "batch", 1)], w=weights(1, 1))
    if name in CONVERTS:
        assert apply(model, name).decibels > FAITHFUL_DB[name]
    else:
        code = refusal(lambda: apply(model, name)).failure.code
        assert code in ("NOTHING_TO_QUANTIZE", "QUANTIZATION_WITHOUT_EFFECT")


@every_method
def test_a_model_without_weights_or_floats_is_refused(name: str, apply: Apply) -> None:
    code = "NOTHING_TO_CONVERT" if name in CONVERTS else "NOTHING_TO_QUANTIZE"
    relu = helper.make_node("Relu", ["x"], ["y"], "relu")
    bare = make([relu], [floats("x", "batch", 4)], [floats("y", "batch", 4)])
    failure = refusal(lambda: apply(bare, name)).failure
    assert failure.code == code
    assert "none with constant weights" in failure.message
    whole = [helper.make_tensor_value_info(each, TensorProto.INT32, ["batch", 4]) for each in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    integers = make([product], whole[:1], whole[1:], w=np.arange(16, dtype=np.int32).reshape(4, 4))
    failure = refusal(lambda: apply(integers, name)).failure
    assert failure.code == code
    assert "int32" in failure.message or "float32" in failure.message


@every_method
def test_both_branches_of_an_if_are_compressed(name: str, make_if_model: Builder, apply: Apply) -> None:
    outcome = apply(make_if_model(), name)
    assert outcome.decibels > FAITHFUL_DB[name]
    assert {each.layer for each in outcome.record.layers} == {"wide1", "wide2", "thin"}


@every_method
def test_a_branch_that_no_sample_reaches_does_no_harm(name: str, make_if_model: Builder, apply: Apply) -> None:
    x = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32)
    outcome = apply(make_if_model(), name, {"x": x, "wide": np.array(False)})
    assert outcome.decibels > FAITHFUL_DB[name]
    if name in ("static", "mixed"):
        assert "none of them reached it" in (outcome.skipped["wide2"] or "")


INTEGER_METHODS = tuple(name for name in RECIPES if name not in CONVERTS)


@pytest.mark.parametrize("first", RECIPES)
def test_what_was_quantized_is_refused(first: str, apply: Apply) -> None:
    """Through ingest, as a user sends it back."""
    quantized = apply(two_layers(), first).graph.proto()
    for second in RECIPES:
        expected = {"ALREADY_QUANTIZED"} if first in INTEGER_METHODS else {"NOTHING_TO_QUANTIZE", "NOTHING_TO_CONVERT"}
        failure = refusal(partial(apply, quantized, second)).failure
        assert failure.code in expected, second
        assert failure.hint


@every_method
def test_integers_behind_cast_and_mul_are_seen(name: str, apply: Apply) -> None:
    """What `quantize.dynamic` makes of a small GRU, and of the table of an embedding."""
    assert refusal(partial(apply, apply(gru(), "dynamic").graph.proto(), name)).failure.code == "ALREADY_QUANTIZED"


@every_method
@pytest.mark.parametrize("operator", ["QuantizeLinear", "QLinearMatMul", "MatMulInteger"])
def test_models_quantized_elsewhere_are_refused(name: str, operator: str, apply: Apply) -> None:
    codes = np.random.default_rng(0).integers(0, 255, (16, 8)).astype(np.uint8)
    step, zero = np.float32(0.05), np.uint8(128)
    quantize = helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"], "quantize")
    restore = partial(helper.make_node, "DequantizeLinear", name="restore")
    nodes = {
        "QuantizeLinear": [
            restore(["w", "step", "zero"], ["wf"]),
            helper.make_node("MatMul", ["x", "wf"], ["y"], "product"),
        ],
        "QLinearMatMul": [
            quantize,
            helper.make_node("QLinearMatMul", ["q", "step", "zero", "w", "step", "zero", "step", "zero"], ["p"], "qmm"),
            restore(["p", "step", "zero"], ["y"]),
        ],
        "MatMulInteger": [
            quantize,
            helper.make_node("MatMulInteger", ["q", "w", "zero", "zero"], ["p"], "integer"),
            helper.make_node("Cast", ["p"], ["y"], "cast", to=TensorProto.FLOAT),
        ],
    }[operator]
    model = make(nodes, [floats("x", "batch", 16)], [floats("y", "batch", 8)], w=codes, step=step, zero=zero)
    failure = refusal(lambda: apply(model, name)).failure
    assert failure.code == "ALREADY_QUANTIZED"
    assert failure.node
    assert failure.hint


X = np.random.default_rng(5).standard_normal((16, 16)).astype(np.float32)
BAD_DATA: Mapping[str, tuple[Arrays, str, str]] = {
    "shape": ({"x": X[:, :5]}, "DATA_SHAPE_MISMATCH", "'x'"),
    "rank": ({"x": X[:, None]}, "DATA_SHAPE_MISMATCH", "'x'"),
    "type": ({"x": X.astype(np.int64)}, "DATA_DTYPE_MISMATCH", "'x'"),
    "beyond float32": ({"x": X.astype(np.float64) * 1e300}, "DATA_DTYPE_MISMATCH", "'x'"),
    "missing": ({"a": X, "b": X}, "DATA_ARRAYS_MISMATCH", "'x'"),
    "NaN": ({"x": changed(X, (11, 2), np.nan)}, "DATA_NOT_FINITE", "sample 11"),
    "infinity": ({"x": changed(X, (3, 0), -np.inf)}, "DATA_NOT_FINITE", "sample 3"),
}


@pytest.mark.parametrize("name", READS_CALIBRATION)
@pytest.mark.parametrize("case", BAD_DATA)
def test_calibration_data_that_cannot_be_used_is_refused(case: str, name: str, apply: Apply) -> None:
    data, code, told = BAD_DATA[case]
    failure = refusal(lambda: apply(two_layers(), name, data)).failure
    assert failure.code == code
    assert told in failure.message
    assert failure.hint


@every_method
def test_no_samples_are_refused(name: str, apply: Apply) -> None:
    assert refusal(lambda: apply(two_layers(), name, {"x": X[:0]})).failure.code == "DATASET_EMPTY"


@pytest.mark.parametrize("name", READS_CALIBRATION)
@pytest.mark.parametrize("data", [X[:1], np.repeat(X[:1], 100, 0), 0 * X], ids=["one", "equal", "zeros"])
def test_calibration_on_one_sample_runs_and_is_told_of(data: Array, name: str, apply: Apply) -> None:
    """Ranges fit that sample: it comes out close, others are cut off."""
    outcome = apply(two_layers(), name, {"x": data})
    assert all(np.isfinite(got).all() for _, got in outcome.outputs)
    original, quantized = (
        run_session(open_session(graph.proto().SerializeToString()), {"x": data})[0]
        for graph in (Graph.from_proto(two_layers()), outcome.graph)
    )
    noise = sqnr_db(original, quantized)
    assert noise is None or noise > FAITHFUL_DB[name]
    if name in ("static", "mixed"):
        assert any("one sample" in note for note in outcome.record.notes)


@every_method
@pytest.mark.parametrize("role", ["calibrate", "evaluate"])
def test_compress_refuses_nan_in_data_before_any_work(name: str, role: str, tmp_path: Path) -> None:
    """Also in samples that the method would not have read."""
    onnx.save(two_layers(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=changed(np.tile(X, (80, 1)), (1279, 0), np.nan))
    output = tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    calibrate, evaluate = (tmp_path / "data.npz" if role == each else None for each in ("calibrate", "evaluate"))
    failure = refusal(
        lambda: compress(
            tmp_path / "model.onnx", recipe=RECIPES[name], output=output, calibrate=calibrate, evaluate=evaluate
        )
    ).failure
    assert failure.code == "DATA_NOT_FINITE"
    assert "sample 1279" in failure.message
    assert not list(output.parent.iterdir())


@pytest.mark.parametrize("name", ["static", "dynamic", "bfloat16"])
def test_compress_refuses_a_quantized_model_and_writes_nothing(name: str, tmp_path: Path, apply: Apply) -> None:
    onnx.save(apply(gru(), "dynamic").graph.proto(), tmp_path / "model.onnx")
    output = tmp_path / "out" / "model.onnx"
    output.parent.mkdir()
    failure = refusal(lambda: compress(tmp_path / "model.onnx", recipe=RECIPES[name], output=output)).failure
    assert failure.code == "ALREADY_QUANTIZED"
    assert not list(output.parent.iterdir())
