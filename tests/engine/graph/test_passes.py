"""The clean-ups: what each changes, and that none changes what is computed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.passes import constants
from worker.engine.graph.passes.constants import fold_constants
from worker.engine.graph.passes.dead import remove_dead
from worker.engine.graph.passes.normalize import MANIFEST, normalize
from worker.engine.graph.passes.opset import raise_opset
from worker.engine.graph.passes.retie import retie
from worker.engine.graph.passes.unshare import unshare
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]
FLOAT = TensorProto.FLOAT


def value(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def model_of(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], *, outputs: tuple[str, ...] = ("y",), opset: int = 18
) -> onnx.ModelProto:
    """x [n, 4] -> outputs of any shape."""
    initializers = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", [value("x", ["n", 4])], [value(name, None) for name in outputs], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def outputs_of(model: onnx.ModelProto, rows: int = 3) -> list[np.ndarray]:
    x = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    return run_session(open_session(model.SerializeToString(), threads=1), {"x": x})


def assert_same(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def linear(name: str, source: str, *, bias: str, weight: str | None = None) -> onnx.NodeProto:
    return helper.make_node("Gemm", [source, weight or f"{name}.w", bias], [f"{name}.y"], name)


def square(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 4)).astype(np.float32)


@pytest.mark.parametrize("bias", [np.zeros(4, np.float32), np.arange(4, dtype=np.float32)])
def test_biases_of_different_layers_are_separated(bias: np.ndarray) -> None:
    nodes = [linear("a", "x", bias="b"), linear("b_", "a.y", bias="b"), linear("c", "b_.y", bias="b")]
    model = model_of(nodes, {"a.w": square(0), "b_.w": square(1), "c.w": square(2), "b": bias}, outputs=("c.y",))
    graph = Graph.from_proto(model)
    before = outputs_of(graph.proto())
    assert unshare(graph) == ["separated 2 parameters stored once for being equal"]
    assert [node.inputs[2].name for node in graph.nodes()] == ["b", "b.b_", "b.c"]
    assert json.loads(graph.model.graph.metadata_props[MANIFEST]) == {"b.b_": "b", "b.c": "b"}
    assert_same(before, outputs_of(graph.proto()))
    graph.set_array("b.c", bias + 1)
    np.testing.assert_array_equal(graph.array("b"), bias)


def test_the_bias_of_a_module_called_twice_stays_tied() -> None:
    nodes = [linear("a", "x", weight="w", bias="b"), linear("again", "a.y", weight="w", bias="b")]
    graph = Graph.from_proto(
        model_of(nodes, {"w": square(0), "b": np.ones(4, np.float32) * [1, 2, 3, 4]}, outputs=("again.y",))
    )
    assert unshare(graph) == []
    assert len(list(graph.initializers())) == 2


def test_an_embedding_tied_to_the_output_stays_tied(make_attention: Builder) -> None:
    graph = Graph.from_proto(make_attention())
    fold_constants(graph)
    assert unshare(graph) == []
    tied = {layer.name for layer in graph.layers() if layer.weight.name == "embedding"}
    assert tied == {"embed", "logits"}


def test_scales_and_biases_of_normalization_are_separated() -> None:
    norm = [
        helper.make_node("LayerNormalization", [f"n{i}", "one", "zero"], [f"n{i + 1}"], f"norm{i}") for i in range(2)
    ]
    start = helper.make_node("Identity", ["x"], ["n0"], "start")
    stored = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    graph = Graph.from_proto(model_of([start, *norm], stored, outputs=("n2",)))
    before = outputs_of(graph.proto())
    unshare(graph)
    names = [name for node in graph.nodes() for name in [each.name for each in node.inputs[1:]]]
    assert sorted(names) == ["one", "one.norm1", "zero", "zero.norm1"]
    assert_same(before, outputs_of(graph.proto()))


def test_what_is_still_equal_is_stored_once_again() -> None:
    norm = [
        helper.make_node("LayerNormalization", [f"n{i}", "one", "zero"], [f"n{i + 1}"], f"norm{i}") for i in range(2)
    ]
    start = helper.make_node("Identity", ["x"], ["n0"], "start")
    stored = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    graph = Graph.from_proto(model_of([start, *norm], stored, outputs=("n2",)))
    unshare(graph)
    graph.set_array("zero.norm1", np.array([0, 0, -0.0, 0], np.float32))
    before = outputs_of(graph.proto())
    assert retie(graph) == ["1 parameter stored once again, still equal"]
    assert sorted(value.name or "" for value in graph.initializers()) == ["one", "zero", "zero.norm1"]
    assert_same(before, outputs_of(graph.proto()))
    assert retie(graph) == []


def test_one_tensor_in_two_slots_of_one_node_is_two_parameters() -> None:
    nodes = [helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y"], "bn")]
    graph = Graph.from_proto(model_of(nodes, {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}))
    unshare(graph)
    assert len({each.name for node in graph.nodes() for each in node.inputs}) == 5


def test_numbers_and_quantization_scales_stay_shared() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["a"], "a"),
        helper.make_node("Mul", ["a", "half"], ["b"], "b"),
        helper.make_node("QuantizeLinear", ["b", "scale"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale"], ["y"], "dq"),
    ]
    stored = {"half": np.array([0.5], np.float32), "scale": np.array(0.1, np.float32)}
    assert unshare(Graph.from_proto(model_of(nodes, stored))) == []


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_separation_never_changes_what_is_computed_and_only_ties_remain(chain: list[tuple[int, int, bool]]) -> None:
    """Layers drawn from three matrices and three biases, one of them zero, with or without an Add."""
    stored = {f"w{i}": square(i) / 2 for i in range(3)}
    stored |= {"b0": np.zeros(4, np.float32), "b1": np.ones(4, np.float32), "b2": np.arange(4, dtype=np.float32)}
    nodes: list[onnx.NodeProto] = []
    source = "x"
    for i, (weight, bias, split) in enumerate(chain):
        if split:
            nodes.append(helper.make_node("MatMul", [source, f"w{weight}"], [f"m{i}"], f"m{i}"))
            nodes.append(helper.make_node("Add", [f"m{i}", f"b{bias}"], [f"y{i}"], f"add{i}"))
        else:
            nodes.append(helper.make_node("Gemm", [source, f"w{weight}", f"b{bias}"], [f"y{i}"], f"g{i}"))
        source = f"y{i}"
    graph = Graph.from_proto(model_of(nodes, stored, outputs=(source,)))
    before = outputs_of(graph.proto())
    unshare(graph)
    graph.check()
    assert_same(before, outputs_of(graph.proto()))
    owners: dict[str, set[str]] = {}
    for node in graph.nodes():
        layer = node.inputs[0].producer() if node.op_type == "Add" else node
        bias_at = {"Add": 1, "Gemm": 2}.get(node.op_type)
        if bias_at:
            owners.setdefault(node.inputs[bias_at].name, set()).add(layer.inputs[1].name)
    assert all(len(matrices) == 1 for matrices in owners.values())
    assert unshare(graph) == []


def test_shape_arithmetic_is_folded_and_dead_nodes_go() -> None:
    nodes = [
        helper.make_node("Constant", [], ["two"], "two", value_ints=[2]),
        helper.make_node("Concat", ["two", "two"], ["shape"], "shape", axis=0),
        helper.make_node("Reshape", ["w", "shape"], ["w2"], "reshape"),
        helper.make_node("Flatten", ["w2"], ["w3"], "flatten", axis=0),
        helper.make_node("Mul", ["x", "w3"], ["y"], "mul"),
        helper.make_node("Exp", ["x"], ["unused"], "dead"),
    ]
    graph = Graph.from_proto(model_of(nodes, {"w": np.arange(4, dtype=np.float32), "unused.w": square(0)}))
    before = outputs_of(graph.proto())
    graph.infer_shapes()
    assert normalize(graph) + fold_constants(graph) + remove_dead(graph) == []
    assert [node.op_type for node in graph.nodes()] == ["Mul"]
    assert [each.name for each in graph.initializers()] == ["w3"]
    assert_same(before, outputs_of(graph.proto()))


def test_nothing_large_is_made_of_little() -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["filled"], "fill"),
        helper.make_node("Expand", ["one", "size"], ["wide"], "expand"),
        helper.make_node("Tile", ["one", "times"], ["tiled"], "tile"),
        helper.make_node("Add", ["filled", "wide"], ["sum"], "sum"),
        helper.make_node("ReduceSum", ["sum"], ["a"], "reduce", keepdims=0),
        helper.make_node("ReduceSum", ["tiled"], ["b"], "reduce2", keepdims=0),
        helper.make_node("Sum", ["x", "a", "b"], ["y"], "y"),
    ]
    stored = {"size": np.array([1 << 20, 1 << 12]), "one": np.ones(1, np.float32), "times": np.array([1 << 32])}
    graph = Graph.from_proto(model_of(nodes, stored))
    graph.infer_shapes()
    fold_constants(graph)
    assert {"fill", "expand", "tile", "sum"} <= {node.name for node in graph.nodes()}


def test_rearranged_weights_become_initializers_and_keep_their_source() -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], "t"),
        helper.make_node("MatMul", ["x", "t"], ["y"], "fc"),
    ]
    graph = Graph.from_proto(model_of(nodes, {"w": square(0)}))
    graph.infer_shapes()
    fold_constants(graph)
    assert [(layer.name, layer.weight.name) for layer in graph.layers()] == [("fc", "t")]
    assert json.loads(graph.model.graph.metadata_props[MANIFEST]) == {"t": "w"}


def test_without_onnxscript_constants_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants.importlib.util, "find_spec", lambda _: None)
    graph = Graph.from_proto(model_of([helper.make_node("Neg", ["x"], ["y"], "n")], {}))
    assert fold_constants(graph) == ["constants were not folded: the package onnxscript is not installed"]


def test_functions_are_inlined_inputs_freed_and_names_made_unique() -> None:
    double = helper.make_function(
        "local",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"], "add")],
        [helper.make_opsetid("", 18)],
    )
    nodes = [
        helper.make_node("Double", ["x"], ["d"], "same", domain="local"),
        helper.make_node("Double", ["d"], ["e"], "same", domain="local"),
        helper.make_node("Mul", ["e", "w"], ["y"], "same"),
    ]
    model = model_of(nodes, {"w": np.ones(4, np.float32)})
    model.functions.append(double)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.input.append(value("w", [4]))
    graph = Graph.from_proto(model)
    normalize(graph)
    names = [node.name for node in graph.nodes()]
    assert len(names) == len(set(names)) == 3
    assert [spec.name for spec in graph.inputs] == ["x"]
    assert [each.name for each in graph.model.graph.inputs] == ["x"]
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    assert_same([x * 4], outputs_of(graph.proto()))


def test_bodies_that_use_a_name_twice_get_two_names(make_if_model: Builder) -> None:
    model = make_if_model()
    for attribute in model.graph.node[0].attribute:
        tensor = next(t for t in attribute.g.initializer if t.name in ("thin.bias", "wide2.bias"))
        for node in attribute.g.node:
            for i, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[i] = "bias"
        tensor.name = "bias"
    graph = Graph.from_proto(model)
    normalize(graph)
    assert {each.name for each in graph.initializers()} >= {"bias", "bias_2"}
    assert json.loads(graph.model.graph.metadata_props[MANIFEST]) == {"bias_2": "bias"}


def old_model(opset: int, op: str, **attributes: object) -> onnx.ModelProto:
    model = model_of([helper.make_node(op, ["x"], ["y"], "n", **attributes)], {}, opset=opset)
    model.metadata_props.add(key="author", value="me")
    model.graph.node[0].metadata_props.add(key="line", value="7")
    return model


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17])
def test_old_opsets_are_converted_and_metadata_survives(opset: int) -> None:
    graph = Graph.from_proto(old_model(opset, "ReduceMean", axes=[1], keepdims=1))
    before = outputs_of(graph.proto())
    assert raise_opset(graph) == [f"converted from opset {opset} to 18"]
    assert graph.opset == 18
    graph.check()
    assert graph.model.metadata_props["author"] == "me"
    assert next(node for node in graph.nodes() if node.name == "n").metadata_props["line"] == "7"
    assert_same(before, outputs_of(graph.proto()))


def test_weights_do_not_go_through_the_converter(make_cnn: Builder, tmp_path: Path) -> None:
    model = make_cnn(channels=32, opset=17)
    want = numpy_helper.to_array(model.graph.initializer[4])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = Graph.load(tmp_path / "m.onnx")
    order = [each.name for each in graph.initializers()]
    raise_opset(graph)
    assert [each.name for each in graph.initializers()] == order
    np.testing.assert_array_equal(graph.array("conv3.weight"), want)


def unconvertible(opset: int) -> Graph:
    """Upsample that leaves its scales to the input: the converter cannot tell them."""
    nodes = [helper.make_node("Relu", ["x"], ["y"], "n", unknown_attribute=1)]
    return Graph.from_proto(model_of(nodes, {}, opset=opset))


def test_what_cannot_be_converted_is_kept_or_refused_by_its_age() -> None:
    (note,) = raise_opset(unconvertible(13))
    assert note.startswith("stays at opset 13")
    with pytest.raises(SlimlineError) as refusal:
        raise_opset(unconvertible(12))
    assert refusal.value.failure.code == "OPSET_UNSUPPORTED"
