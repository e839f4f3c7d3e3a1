"""Sessions: deterministic, and their errors readable."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]


def test_from_bytes_and_from_a_file(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp()
    onnx.save(model, tmp_path / "m.onnx")
    feed = {"x": np.ones((2, 16), np.float32)}
    (a,) = run_session(open_session(model.SerializeToString(), threads=1), feed)
    (b,) = run_session(open_session(tmp_path / "m.onnx", threads=2, optimize=False), feed)
    assert a.shape == (2, 4)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_rewritten_graph_is_kept_where_asked(tmp_path: Path, make_cnn: Builder) -> None:
    open_session(make_cnn().SerializeToString(), optimized_path=tmp_path / "o.onnx")
    assert "ReorderInput" in {node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node}


def test_a_model_that_does_not_load_names_its_node(make_mlp: Builder) -> None:
    model = make_mlp()
    model.graph.node[2].op_type = "Rellu"
    with pytest.raises(SlimlineError) as refusal:
        open_session(model.SerializeToString())
    assert (refusal.value.failure.code, refusal.value.failure.node) == ("MODEL_DOES_NOT_LOAD", "relu1")
    assert "[ONNXRuntimeError]" not in refusal.value.failure.message


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_floats_are_cast_to_the_precision_of_the_input(make_mlp: Builder, kind: type[np.floating]) -> None:
    session = open_session(make_mlp().SerializeToString())
    x = np.random.default_rng(0).standard_normal((2, 16)).astype(kind)
    np.testing.assert_array_equal(
        run_session(session, {"x": x})[0], run_session(session, {"x": x.astype(np.float32)})[0]
    )


@pytest.mark.parametrize(
    "feed", [{}, {"nobody": np.ones(1)}, {"x": np.ones((2, 5), np.float32)}, {"x": np.ones((2, 16), int)}]
)
def test_an_input_that_does_not_fit(make_mlp: Builder, feed: dict[str, np.ndarray]) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_session(open_session(make_mlp().SerializeToString()), feed)
    assert refusal.value.failure.code == "MODEL_DOES_NOT_RUN"


def test_a_device_that_is_not_there(make_mlp: Builder) -> None:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(SlimlineError) as refusal:
        open_session(make_mlp().SerializeToString(), device="cuda")
    assert refusal.value.failure.code == "DEVICE_UNAVAILABLE"
