"""Loading, saving and editing a graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph import files as graph_files

Builder = Callable[..., onnx.ModelProto]
DTYPES = (np.float32, np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


@pytest.fixture
def models(
    make_cnn: Builder, make_mlp: Builder, make_lstm: Builder, make_attention: Builder, make_if_model: Builder
) -> list[onnx.ModelProto]:
    return [build() for build in (make_cnn, make_mlp, make_lstm, make_attention, make_if_model)]


def test_load_and_save_keep_everything(models: list[onnx.ModelProto], tmp_path: Path) -> None:
    for model in models:
        model.metadata_props.add(key="author", value="me")
        model.graph.node[0].metadata_props.add(key="source", value="line 1")
        model.graph.doc_string = "what it is"
        onnx.save(model, tmp_path / "in.onnx")
        Graph.load(tmp_path / "in.onnx").save(tmp_path / "out.onnx")
        saved = onnx.load(tmp_path / "out.onnx")
        assert saved.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_saving_is_deterministic_and_leaves_no_other_file(models: list[onnx.ModelProto], tmp_path: Path) -> None:
    for model in models:
        graph = Graph.from_proto(model)
        graph.infer_shapes()
        graph.save(tmp_path / "a" / "m.onnx")
        graph.clone().save(tmp_path / "b" / "m.onnx")
        Graph.load(tmp_path / "a" / "m.onnx").save(tmp_path / "c" / "m.onnx")
        assert len({(tmp_path / folder / "m.onnx").read_bytes() for folder in "abc"}) == 1
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["m.onnx"]


@settings(deadline=None, max_examples=60)
@given(
    arrays=st.dictionaries(
        NAMES,
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_initializers_survive_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, np.ndarray]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    stored = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    outputs = [helper.make_tensor_value_info(f"{t.name}/out", t.data_type, list(t.dims)) for t in stored]
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}/out"]) for t in stored]
    model = helper.make_model(helper.make_graph(nodes, "g", [], outputs, stored), ir_version=10)
    onnx.save(model, folder / "a.onnx")
    Graph.load(folder / "a.onnx").save(folder / "b.onnx")
    graph = Graph.load(folder / "b.onnx")
    assert [value.name for value in graph.initializers()] == list(arrays)
    for name, array in arrays.items():
        back = graph.array(name)
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_file_written_tensor_by_tensor_is_that_of_protobuf(models: list[onnx.ModelProto], tmp_path: Path) -> None:
    for model in models:
        model.metadata_props.add(key="author", value="me")
        model.graph.doc_string = "what it is"
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((200, 100), np.float32), "large"))
        model.graph.initializer.append(
            TensorProto(name="tiny", data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21\x03")
        )
        onnx.save(model, tmp_path / "in.onnx", save_as_external_data=True, location="in.data", size_threshold=100)
        graph = Graph.load(tmp_path / "in.onnx")
        graph.save(tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx").read_bytes() == graph.proto().SerializeToString(deterministic=True)
        (tmp_path / "in.data").unlink()


def test_external_data_is_mapped_and_taken_in_again(make_cnn: Builder, tmp_path: Path) -> None:
    model = make_cnn()
    want = numpy_helper.to_array(model.graph.initializer[0])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = Graph.load(tmp_path / "m.onnx")
    assert isinstance(graph.initializer("conv1.weight").const_value, ir.ExternalTensor)
    np.testing.assert_array_equal(graph.array("conv1.weight"), want)
    graph.save(tmp_path / "whole" / "m.onnx")
    whole = onnx.load(tmp_path / "whole" / "m.onnx", load_external_data=False)
    assert not any(tensor.external_data for tensor in whole.graph.initializer)


def test_external_data_of_constants_is_taken_in(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.arange(600, dtype=np.float32), "value")
    node = helper.make_node("Constant", [], ["y"], value=value)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [600])]
    model = helper.make_model(helper.make_graph([node], "g", [], outputs), ir_version=10)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, convert_attribute=True, size_threshold=0)
    Graph.load(tmp_path / "m.onnx").save(tmp_path / "elsewhere" / "m.onnx")
    kept = onnx.load(tmp_path / "elsewhere" / "m.onnx").graph.node[0].attribute[0].t
    np.testing.assert_array_equal(numpy_helper.to_array(kept), np.arange(600, dtype=np.float32))


def test_large_weights_go_beside_the_model(make_cnn: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_files, "LARGEST_FILE", 1000)
    graph = Graph.from_proto(make_cnn(channels=32))
    with pytest.raises(SlimlineError) as refusal:
        graph.proto()
    assert refusal.value.failure.code == "GRAPH_TOO_LARGE"
    graph.save(tmp_path / "m.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    first = (tmp_path / "m.onnx.data").read_bytes()
    back = Graph.load(tmp_path / "m.onnx")
    np.testing.assert_array_equal(back.array("conv3.weight"), graph.array("conv3.weight"))
    back.save(tmp_path / "again" / "m.onnx")
    assert (tmp_path / "again" / "m.onnx.data").read_bytes() == first


def test_a_clone_is_independent(models: list[onnx.ModelProto]) -> None:
    for model in models:
        graph = Graph.from_proto(model)
        before = graph.proto().SerializeToString(deterministic=True)
        copy = graph.clone()
        for value in copy.initializers():
            copy.set_array(value, np.zeros(3, np.float16))
        for node in copy.nodes():
            node.name = f"{node.name}!"
        assert graph.proto().SerializeToString(deterministic=True) == before


def test_set_array_changes_type_and_shape(make_mlp: Builder) -> None:
    graph = Graph.from_proto(make_mlp())
    graph.set_array("fc1.weight", np.ones((2, 5), np.float16))
    value = graph.initializer("fc1.weight")
    assert (value.dtype, list(value.shape)) == (ir.DataType.FLOAT16, [2, 5])
    np.testing.assert_array_equal(graph.array("fc1.weight"), np.ones((2, 5), np.float16))
    with pytest.raises(KeyError):
        graph.array("nobody")


def test_bodies_are_part_of_the_graph(make_if_model: Builder) -> None:
    graph = Graph.from_proto(make_if_model())
    assert [node.op_type for node in graph.nodes()] == ["If", "Gemm", "Gemm", "Relu", "Gemm"]
    assert {value.name for value in graph.initializers()} >= {"wide1.weight", "thin.weight"}
    assert [spec.name for spec in graph.inputs] == ["x", "wide"]
    assert graph.outputs[0].shape == ["batch", 3]


def test_a_nameless_node_is_called_after_its_first_output(make_mlp: Builder) -> None:
    model = make_mlp()
    for node in model.graph.node:
        node.name = ""
    assert [node.name for node in Graph.from_proto(model).nodes()] == ["m1", "a1", "r1", "y"]


def test_inferred_shapes_are_not_written(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn())
    graph.infer_shapes()
    assert all(value.shape is not None for node in graph.nodes() for value in node.outputs)
    assert not graph.proto().graph.value_info


def test_check_names_the_node(make_mlp: Builder) -> None:
    model = make_mlp()
    model.graph.node[2].attribute.append(helper.make_attribute("alpha", 2.0))
    with pytest.raises(SlimlineError) as refusal:
        Graph.from_proto(model).check()
    assert refusal.value.failure.code == "GRAPH_INVALID"
    assert refusal.value.failure.node == "relu1"


def test_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a\x3a\xff")
    with pytest.raises(SlimlineError) as refusal:
        Graph.load(tmp_path / "m.onnx")
    assert refusal.value.failure.code == "MODEL_UNREADABLE"
