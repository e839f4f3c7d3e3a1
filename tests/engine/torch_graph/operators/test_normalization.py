"""Normalizations beyond the official node tests: old opsets, mixed types, broadcast scales, and training."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def statistics(channels: int) -> list[np.ndarray]:
    """Scale, bias, mean, variance."""
    return [*(normal(channels) for _ in range(3)), np.abs(normal(channels)) + 0.1]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalization_of_every_opset(opset: int, expect_runtime: NodeRunner) -> None:
    expect_runtime("BatchNormalization", [normal(2, 4, 3, 5), *statistics(4)], opset=opset, epsilon=1e-3)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (2, 1, 6)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_batch_normalization_of_other_types_than_its_statistics(
    shape: tuple[int, ...], dtype: type, expect_node: NodeRunner
) -> None:
    expect_node("BatchNormalization", [normal(*shape, dtype=dtype), *statistics(1)], opset=15, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shape", [(3, 4, 2, 5), (3, 4), (1, 4, 1)])
def test_batch_normalization_that_gives_new_statistics(shape: tuple[int, ...], expect_node: NodeRunner) -> None:
    form = {"training_mode": 1, "momentum": 0.7, "outputs": 3}
    expect_node("BatchNormalization", [normal(*shape), *statistics(4)], opset=15, rtol=1e-4, atol=1e-5, **form)


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_batch_of_one_element_is_normalized_to_the_bias(
    shape: tuple[int, ...], outputs: int, run_node: NodeRunner
) -> None:
    scale, bias, mean, var = statistics(4)
    inputs = [normal(*shape) * 100, scale * 100, bias, mean, var]
    y, *_ = run_node("BatchNormalization", inputs, opset=15, training_mode=1, outputs=outputs)
    assert (y == np.broadcast_to(bias.reshape(4, *[1] * (len(shape) - 2)), shape)).all()


def test_new_statistics_keep_their_type(run_node: NodeRunner) -> None:
    inputs = [normal(3, 4, 2, dtype=np.float16), *statistics(4)]
    outputs = run_node("BatchNormalization", inputs, opset=15, training_mode=1, outputs=3)
    assert [each.dtype for each in outputs] == [np.float16, np.float32, np.float32]


def batch_norm_graph(module: torch.nn.BatchNorm2d, momentum: float) -> TorchGraph:
    """The module as a graph of one node."""
    names = {"w": "weight", "b": "bias", "m": "running_mean", "v": "running_var"}
    tensors = {name: module.state_dict()[key].numpy().copy() for name, key in names.items()}
    graph = helper.make_graph(
        [helper.make_node("BatchNormalization", ["x", *tensors], ["y"], momentum=momentum)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", module.num_features, 5, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return TorchGraph(Graph.from_proto(model))


def test_batch_normalization_trains_as_the_native_module_does() -> None:
    native = torch.nn.BatchNorm2d(3, momentum=0.25)
    torch.nn.init.normal_(native.weight)
    torch.nn.init.normal_(native.state_dict()["running_mean"])
    graph = batch_norm_graph(native, momentum=0.75).train()
    for _ in range(2):
        x = torch.randn(4, 3, 5, 5)
        (y,), wanted = graph(x), native(x)
        assert y.equal(wanted)
        grown, wanted_grown = (
            torch.autograd.grad(each.square().sum(), weight)[0]
            for each, weight in ((y, graph.get_parameter("w")), (wanted, native.weight))
        )
        assert grown.equal(wanted_grown)
    assert graph.state_dict()["m"].equal(native.running_mean)
    assert graph.state_dict()["v"].equal(native.running_var)
    assert graph.eval()(x)[0].equal(native.eval()(x))


@pytest.mark.parametrize("form", [{"spatial": 0}, {"outputs": 3}])
def test_old_forms_of_batch_normalization_are_refused(form: dict[str, int], run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("BatchNormalization", [normal(2, 4, 3), *statistics(4)], opset=7, **form)
    assert refusal.value.failure.code == "OPERATOR_UNSUPPORTED"


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 1, 1), (2, 4), (1, 4, 2, 3, 2)])
def test_instance_normalization(shape: tuple[int, ...], expect_node: NodeRunner) -> None:
    expect_node("InstanceNormalization", [normal(*shape), normal(4), normal(4)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 1, 1), (2, 4)])
def test_one_position_is_normalized_to_the_bias(shape: tuple[int, ...], run_node: NodeRunner) -> None:
    bias = normal(4)
    (y,) = run_node("InstanceNormalization", [normal(*shape) * 100, normal(4) * 100, bias])
    assert (y == np.broadcast_to(bias.reshape(4, *[1] * (len(shape) - 2)), shape)).all()


@pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization"])
def test_no_samples(op: str, run_node: NodeRunner) -> None:
    form = {"num_groups": 2, "opset": 21} if op == "GroupNormalization" else {}
    assert run_node(op, [normal(0, 4, 3), normal(4), normal(4)], **form)[0].shape == (0, 4, 3)


@pytest.mark.parametrize(
    ("axis", "scale"), [(-1, ()), (-1, (1,)), (-1, None), (1, (5,)), (1, (4, 1)), (1, None), (-3, (4, 1)), (0, None)]
)
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_normalization(axis: int, scale: Sequence[int] | None, outputs: int, expect_node: NodeRunner) -> None:
    x = normal(2, 4, 5)
    shape = x.shape[axis:] if scale is None else tuple(scale)
    form = {"opset": 17, "axis": axis, "outputs": outputs, "rtol": 1e-4, "atol": 1e-5}
    expect_node("LayerNormalization", [x, normal(*shape), normal(*shape)], **form)
    expect_node("LayerNormalization", [x, normal(*shape)], **form)


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("scale", [(1,), None])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rms_normalization(axis: int, scale: tuple[int, ...] | None, dtype: type, expect_node: NodeRunner) -> None:
    x = normal(2, 4, 5, dtype=dtype)
    weight = normal(*(x.shape[axis:] if scale is None else scale), dtype=dtype)
    expect_node("RMSNormalization", [x, weight], opset=23, axis=axis, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization", "GroupNormalization"])
def test_statistics_in_bfloat16_are_refused(op: str, run_node: NodeRunner) -> None:
    groups = {"num_groups": 2} if op == "GroupNormalization" else {}
    inputs = [normal(2, 4), normal(4)] + ([normal(4)] if groups else [])
    with pytest.raises(SlimlineError, match="stash_type 16"):
        run_node(op, inputs, opset=23, stash_type=16, **groups)


@pytest.mark.parametrize(("opset", "scales"), [(18, 2), (21, 4)])
def test_group_normalization_scales_groups_then_channels(opset: int, scales: int, expect_runtime: NodeRunner) -> None:
    inputs = [normal(2, 4, 3, 5), normal(scales), normal(scales)]
    expect_runtime("GroupNormalization", inputs, opset=opset, num_groups=2, epsilon=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (2, 6, 2, 3, 2)])
def test_local_response_normalization(size: int, shape: tuple[int, ...], run_node: NodeRunner) -> None:
    """The formula of the specification: ReferenceEvaluator normalizes as many channels as there are samples."""
    x, wanted = normal(*shape), normal(*shape)
    for channel in range(6):
        near = x[:, max(0, channel - (size - 1) // 2) : channel + size // 2 + 1]
        wanted[:, channel] = x[:, channel] / (1.5 + 0.5 / size * (near**2).sum(1)) ** 0.6
    (y,) = run_node("LRN", [x], size=size, alpha=0.5, beta=0.6, bias=1.5)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, strict=True)
