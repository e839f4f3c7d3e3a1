"""A shallower student computes what the original does with the branches of the dropped blocks put to zero."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.cost import count_weights, macs
from worker.engine.ingest import ingest_model
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Guess, Samples
from worker.engine.session import Array
from worker.engine.students.residual_blocks import find_blocks
from worker.engine.students.shallower import drop_blocks, find_block_units, measure_impacts
from worker.engine.torch_graph import TorchGraph

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
RunBoth = Callable[[Graph, int], tuple[list[Array], list[Array]]]
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def _run_double(graph: Graph, inputs: Sequence[torch.Tensor], zeroed: Sequence[str] = ()) -> list[Array]:
    """In float64, with zeros for the tensors `zeroed`."""
    wide = graph.clone()
    for value in wide.initializers():
        if value.dtype == ir.DataType.FLOAT:
            wide.set_array(value, wide.array(value).astype(np.float64))
    for value in (*wide.model.graph.inputs, *(each for node in wide.nodes() for each in node.outputs)):
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = ir.DataType.DOUBLE
    module = TorchGraph(wide)
    for name in zeroed:
        module.observe(name, torch.zeros_like)
    with torch.no_grad():
        outputs: tuple[Any, ...] = module(*(x.double() if x.is_floating_point() else x for x in inputs))
    return [each.numpy() for each in outputs]


def _inputs(graph: Graph, samples: Samples) -> list[torch.Tensor]:
    feed = next(samples.batches(limit=8)).feed
    return [torch.tensor(feed[spec.name]) for spec in graph.inputs]


def _check_every_block(graph: Graph, samples: Samples) -> None:
    """Each alone, then all of them at once."""
    names = [block.sum.name for block in find_blocks(graph)]
    for wanted in ([name] for name in names), [names]:
        for gone in wanted:
            cut = graph.clone()
            chosen = [block for block in find_blocks(cut) if block.sum.name in gone]
            branches = [block.branch.name or "" for block in chosen]
            drop_blocks(cut, chosen)
            cut.check()
            inputs = _inputs(graph, samples)
            for reference, found in zip(_run_double(graph, inputs, branches), _run_double(cut, inputs), strict=True):
                np.testing.assert_allclose(found, reference, **EXACT)
            assert cut.outputs == graph.outputs
            assert not {value.name for node in cut.nodes() for value in node.outputs} & set(branches)


def test_dropped_blocks_of_a_cnn_equal_zeroed_branches(make_residual_cnn: MakeGraph, make_samples: MakeSamples) -> None:
    graph = make_residual_cnn()
    _check_every_block(graph, make_samples(graph))


def test_dropped_blocks_of_a_transformer_equal_zeroed_branches(
    make_transformer: MakeGraph, make_samples: MakeSamples
) -> None:
    graph = make_transformer(2)
    _check_every_block(graph, make_samples(graph))


@pytest.mark.parametrize(
    "name",
    ["resnet20_cifar10_jpegtuned", "digits32_mbv2hard", "digits32_vit", "exports/bert", "exports/convnext",
     "exports/gpt2", "exports/segformer"],
)  # fmt: skip
def test_students_of_shared_models_run_alike(
    shared: Path, make_samples: MakeSamples, student_of: Any, run_both: RunBoth, name: str
) -> None:
    graph, _ = ingest_model(shared / "models" / f"{name}.onnx")
    student = student_of(graph, make_samples(graph, 4, 2), depth=0.5)
    for rows in (3, 1):
        for theirs, ours in zip(*run_both(student.graph, rows), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())
    assert student.graph.outputs == graph.outputs
    assert student.graph.inputs == graph.inputs
    assert count_weights(student.graph).count < count_weights(graph).count
    student.graph.check()


@pytest.mark.parametrize("name", ["resnet20_cifar10_jpegtuned", "digits32_vit"])
def test_dropped_blocks_of_shared_models_equal_zeroed_branches(
    shared: Path, make_samples: MakeSamples, name: str
) -> None:
    graph, _ = ingest_model(shared / "models" / f"{name}.onnx")
    _check_every_block(graph, make_samples(graph, 2, 1))


def test_cost_falls_with_the_share_of_layers(make_transformer: MakeGraph, student_of: Any) -> None:
    graph = make_transformer(4)
    student = student_of(graph, depth=0.5)
    outside = macs(make_transformer(0)) or 0
    assert (macs(student.graph) or 0) - outside == ((macs(graph) or 0) - outside) / 2
    assert count_weights(student.graph).count == count_weights(make_transformer(2)).count


def test_impact_is_the_normalized_squared_error_of_the_outputs(
    make_residual_cnn: MakeGraph, make_samples: MakeSamples
) -> None:
    graph = make_residual_cnn()
    samples = make_samples(graph)
    run = Pass(samples, 64)
    units = find_block_units(graph, run)
    impacts = measure_impacts(graph, units, run)
    for unit, impact in zip(units, impacts, strict=True):
        noise = power = 0.0
        for batch in samples.batches():
            inputs = [torch.tensor(batch.feed["x"])]
            (whole,) = _run_double(graph, inputs)
            (without,) = _run_double(graph, inputs, [unit.blocks[0].branch.name or ""])
            noise, power = noise + ((without - whole) ** 2).sum(), power + (whole**2).sum()
        assert impact == pytest.approx(noise / power, rel=1e-4)


def test_the_block_that_does_nothing_goes_first(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    graph = make_residual_cnn()
    for name in ("two2_w", "two2_b"):
        graph.set_array(name, np.zeros_like(graph.array(name)))
    student = student_of(graph, depth=0.8)
    assert student.notes[0] == "1 of 6 residual blocks dropped: add2"


def test_no_stage_is_emptied(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    student = student_of(make_residual_cnn(3, 2), depth=0.01)
    left = {node.name for node in student.graph.nodes() if re.match(r"add\d", node.name or "")}
    assert len(left & {"add1", "add2", "add3"}) == 1
    assert len(left & {"add5", "add6"}) == 1


def test_relu_is_not_left_twice_in_a_row(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    for node in student_of(make_residual_cnn(), depth=0.3).graph.nodes():
        maker = node.inputs[0].producer() if node.op_type == "Relu" else None
        assert maker is None or maker.op_type != "Relu"


def test_a_sum_that_is_an_output_keeps_its_name(make_graph: MakeGraph) -> None:
    text = "g (float[n, 4] x) => (float[n, 4] y, float[n, 4] z) { m = MatMul (x, w)  y = Add (x, m)  z = Relu (y) }"
    graph = make_graph(text, w=np.eye(4, dtype=np.float32))
    drop_blocks(graph, find_blocks(graph))
    graph.check()
    assert [spec.name for spec in graph.outputs] == ["y", "z"]
    x = np.array([[1, -2, 3, -4]], np.float32)
    found = _run_double(graph, [torch.tensor(x)])
    np.testing.assert_array_equal(found, [x, np.maximum(x, 0)])


def test_blocks_inside_a_body_are_dropped(make_graph: MakeGraph, student_of: Any, run_both: RunBoth) -> None:
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        h = MatMul (x, w)
        y = If (always) <
            then_branch = then () => (float[n, 4] b) { m = MatMul (h, v)  a = Add (h, m)  k = MatMul (a, u)  b = Add (a, k) },
            else_branch = other () => (float[n, 4] c) { c = Relu (h) }
        >
    }"""  # noqa: E501 - a graph in ONNX's own form
    weights = {name: np.eye(4, dtype=np.float32) * scale for name, scale in (("w", 1), ("v", 0.1), ("u", 2))}
    graph = make_graph(text, always=np.array(True), **weights)
    student = student_of(graph, depth=0.5).graph
    assert [node.op_type for node in student.nodes()].count("Add") == 1
    for theirs, ours in zip(*run_both(student, 3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_the_same_students_again_and_the_graph_untouched(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    graph = make_residual_cnn()
    before = graph.proto().SerializeToString(deterministic=True)
    students = [student_of(graph, depth=0.5).graph.proto().SerializeToString(deterministic=True) for _ in range(2)]
    assert students[0] == students[1]
    assert graph.proto().SerializeToString(deterministic=True) == before


def test_statistics_are_restored_on_data_and_not_on_made_up_inputs(
    make_residual_cnn: MakeGraph, make_samples: MakeSamples, student_of: Any
) -> None:
    graph = make_residual_cnn()
    on_data = student_of(graph, make_samples(graph, 8, 8), depth=0.5)
    made_up = student_of(graph, Samples(graph.inputs, Guess(size=8, highest=2, seed=0)), depth=0.5)
    assert on_data.notes[-1].startswith("statistics of ")
    assert len(made_up.notes) == 1


def test_refusals(make_cnn: Any, make_residual_cnn: MakeGraph, make_graph: MakeGraph, student_of: Any) -> None:
    with pytest.raises(SlimlineError, match="this model has none") as none:
        student_of(Graph.from_proto(make_cnn()), depth=0.5)
    with pytest.raises(SlimlineError, match="leaves them all") as all_stay:
        student_of(make_residual_cnn(), depth=0.95)
    assert {none.value.failure.code, all_stay.value.failure.code} == {"NOTHING_TO_DROP"}
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        q = QuantizeLinear (x, s)  d = DequantizeLinear (q, s)  m = MatMul (d, w)  y = Add (d, m) }"""
    with pytest.raises(SlimlineError) as quantized:
        student_of(make_graph(text, s=np.float32(0.1), w=np.eye(4, dtype=np.float32)), depth=0.5)
    assert quantized.value.failure.code == "ALREADY_QUANTIZED"
