"""Numbers of `prune.structured`: shares, targets, tied layers, what is refused. Exactness is tested with the groups."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph.cost import count_weights, macs

Apply = Callable[..., "Applied"]  # noqa: F821 - of conftest.py
"""See `apply_step`."""


def _conv(generator: np.random.Generator, name: str, out: int, into: int) -> list[onnx.TensorProto]:
    weight = (generator.standard_normal((out, into, 3, 3)) / np.sqrt(9 * into)).astype(np.float32)
    return [
        numpy_helper.from_array(weight, f"{name}.weight"),
        numpy_helper.from_array(np.zeros(out, np.float32), f"{name}.bias"),
    ]


@pytest.fixture
def residual_net() -> onnx.ModelProto:
    """x [batch, 3, 8, 8] -> stem 32 -> (+ conv 64 -> conv 32) -> mean -> Gemm -> y [batch, 10]."""
    generator = np.random.default_rng(0)
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], "stem", **pads),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "inner.weight", "inner.bias"], ["c"], "inner", **pads),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("Conv", ["d", "outer.weight", "outer.bias"], ["e"], "outer", **pads),
        helper.make_node("Add", ["b", "e"], ["f"], "sum"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("Gemm", ["h", "head.weight"], ["y"], "head"),
    ]
    head = numpy_helper.from_array(generator.standard_normal((32, 10)).astype(np.float32), "head.weight")
    weights = [*_conv(generator, "stem", 32, 3), *_conv(generator, "inner", 64, 32), *_conv(generator, "outer", 32, 64)]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 10])],
        [*weights, head],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _channels(applied: "Applied") -> dict[str, int]:  # noqa: F821 - of conftest.py
    return {layer.name: layer.weight.shape[layer.output_axis] for layer in applied.after.layers()}


def test_a_share_of_each_group_goes(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    found = apply_step(residual_net, "prune.structured:amount=0.5,restore=false")
    assert _channels(found) == {"stem": 16, "inner": 32, "outer": 16, "head": 10}
    told = {record.layer: record for record in found.record.layers}
    assert told["inner"].shape_before == [64, 32, 3, 3]
    assert told["inner"].shape_after == [32, 16, 3, 3]
    assert not told["head"].done
    assert "output 'y'" in str(told["head"].reason)


def test_what_is_read_least_goes(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    weights = {each.name: each for each in residual_net.graph.initializer}
    inner, outer = (numpy_helper.to_array(weights[f"{name}.weight"]).copy() for name in ("inner", "outer"))
    outer[:, ::2] *= 0.01
    weights["outer.weight"].CopyFrom(numpy_helper.from_array(outer, "outer.weight"))
    for criterion in ("l1", "l2"):
        recipe = f"prune.structured:amount=0.5,include=inner,restore=false,criterion={criterion}"
        assert np.array_equal(apply_step(residual_net, recipe).after.array("inner.weight"), inner[1::2])


def test_what_computes_nothing_goes_first(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    weights = {each.name: each for each in residual_net.graph.initializer}
    inner = numpy_helper.to_array(weights["inner.weight"]).copy()
    inner[::2] = 0
    weights["inner.weight"].CopyFrom(numpy_helper.from_array(inner, "inner.weight"))
    found = apply_step(residual_net, "prune.structured:amount=0.5,include=inner,restore=false")
    assert np.array_equal(found.after.array("inner.weight"), inner[1::2])


def test_channels_left_are_a_multiple(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    assert _channels(apply_step(residual_net, "prune.structured:amount=0.3,restore=false"))["inner"] == 44
    found = apply_step(residual_net, "prune.structured:amount=0.3,restore=false,round_to=1")
    assert _channels(found)["inner"] == 45
    found = apply_step(residual_net, "prune.structured:amount=0.3,restore=false,round_to=16")
    assert _channels(found)["inner"] == 48


def test_ratios_of_layers(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    found = apply_step(residual_net, 'prune.structured:ratios={"inner":0.75},restore=false')
    assert _channels(found) == {"stem": 32, "inner": 16, "outer": 32, "head": 10}
    assert found.reasons()["stem"] == "the step asks nothing of it"
    found = apply_step(residual_net, 'prune.structured:amount=0.25,ratios={"st*":0.5,"inner":0},restore=false')
    assert _channels(found) == {"stem": 16, "inner": 64, "outer": 16, "head": 10}


def test_layers_left_out_hold_those_they_are_tied_to(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    found = apply_step(residual_net, "prune.structured:amount=0.5,exclude=outer,restore=false")
    assert _channels(found) == {"stem": 32, "inner": 32, "outer": 32, "head": 10}
    assert "'outer'" in str(found.reasons()["stem"])


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("target", "measure"), [("parameters", lambda g: count_weights(g).count), ("macs", macs)])
def test_targets_are_reached(
    apply_step: Apply, residual_net: onnx.ModelProto, target: str, measure: Callable[..., int], scope: str
) -> None:
    for wanted in (0.8, 0.4):
        recipe = f"prune.structured:target.{target}={wanted},scope={scope},round_to=1,restore=false"
        found = apply_step(residual_net, recipe)
        assert measure(found.after) / measure(found.before) == pytest.approx(wanted, rel=0.02)


def test_a_target_of_latency_removes_something(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    found = apply_step(residual_net, "prune.structured:target.latency=0.7,restore=false")
    assert count_weights(found.after).count < count_weights(found.before).count


def test_global_scope_empties_no_layer(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    found = apply_step(residual_net, "prune.structured:amount=0.85,scope=global,restore=false")
    assert min(_channels(found).values()) >= 3


def test_sensitivity_spares_what_the_outputs_need(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    weights = {each.name: each for each in residual_net.graph.initializer}
    outer = numpy_helper.to_array(weights["outer.weight"]) * np.float32(1e-3)
    weights["outer.weight"].CopyFrom(numpy_helper.from_array(outer, "outer.weight"))
    found = apply_step(residual_net, "prune.structured:amount=0.5,allocate=sensitivity,restore=false")
    assert _channels(found) == {"stem": 32, "inner": 16, "outer": 32, "head": 10}, "half of 96, all that hardly counts"


def test_data_decides_with_taylor(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    weights = {each.name: each for each in residual_net.graph.initializer}
    outer = numpy_helper.to_array(weights["outer.weight"]).copy()
    outer[:, ::2] = 0
    weights["outer.weight"].CopyFrom(numpy_helper.from_array(outer, "outer.weight"))
    inner = numpy_helper.to_array(weights["inner.weight"])
    found = apply_step(residual_net, "prune.structured:amount=0.5,include=inner,criterion=taylor,restore=false")
    assert np.array_equal(found.after.array("inner.weight"), inner[1::2]), "what nothing reads has no gradient"


def test_the_same_seed_gives_the_same_random_channels(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    recipe = "prune.structured:amount=0.5,criterion=random,restore=false"
    first, second = (apply_step(residual_net, recipe).after.array("inner.weight") for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        ("prune.structured:amount=0.5,include=nothing", "LAYER_UNKNOWN"),
        ('prune.structured:ratios={"nothing":0.5}', "LAYER_UNKNOWN"),
        ("prune.structured:amount=0.5,include=head", "NOTHING_TO_PRUNE"),
        ("prune.structured:amount=0.01", "NOTHING_TO_PRUNE"),
        ('prune.structured:target.parameters=0.05,include=["inner"]', "TARGET_OUT_OF_REACH"),
        ("prune.structured:amount=0.5,criterion=bn_scale", "NOTHING_TO_SCORE"),
    ],
)
def test_refused(apply_step: Apply, residual_net: onnx.ModelProto, recipe: str, code: str) -> None:
    with pytest.raises(SlimlineError) as caught:
        apply_step(residual_net, recipe)
    assert caught.value.failure.code == code


def test_how_far_it_can_go_is_told(apply_step: Apply, residual_net: onnx.ModelProto) -> None:
    with pytest.raises(SlimlineError, match=r"0\.\d+ is left, and 0\.050 was asked for"):
        apply_step(residual_net, 'prune.structured:target.parameters=0.05,include=["inner"]')
