"""Layout, slicing, padding and shape arithmetic: forms that ONNX's own node tests leave out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

NodeRunner = Callable[..., list[np.ndarray]]

LAST = 2**63 - 1


def vector(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def counting(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def parse(text: str, opset: int = 20) -> TorchGraph:
    return TorchGraph(
        Graph.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}'))
    )


@pytest.mark.parametrize(
    ("op", "opset", "attributes"),
    [
        ("Squeeze", 11, {"axes": [1, -1]}),
        ("Unsqueeze", 11, {"axes": [0, 3]}),
        ("Slice", 9, {"starts": [1, -9], "ends": [9, -1], "axes": [0, 2]}),
        ("Split", 11, {"split": [1, 2], "axis": -4}),
        ("Pad", 10, {"pads": [1, 0, 0, 0, 0, 0, 2, 0], "value": 1.5}),
    ],
)
def test_attributes_that_became_inputs(
    expect_node: NodeRunner, op: str, opset: int, attributes: dict[str, Any]
) -> None:
    outputs = len(attributes.get("split", [0]))
    expect_node(op, [counting(3, 1, 4, 1)], opset=opset, outputs=outputs, **attributes)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.bool_, np.complex64, np.float16])
def test_elements_of_every_type_are_moved(expect_node: NodeRunner, dtype: Any) -> None:
    x = counting(3, 4).astype(dtype)
    expect_node("Slice", [x, vector(-1, 1), vector(-99, LAST), vector(0, 1), vector(-2, 2)])
    expect_node("Trilu", [x, np.array(-1)], upper=0)
    expect_node("Pad", [x, vector(5, 1, 0, 6)], mode="reflect")
    expect_node("Gather", [x, np.array([[-1, 0]])], axis=1)
    expect_node("Compress", [x, np.array([True, False, True])], axis=0)
    expect_node("CenterCropPad", [x, vector(6, 1)])


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 4), (4,)])
def test_pads_wider_than_the_axis(expect_node: NodeRunner, mode: str, shape: tuple[int, ...]) -> None:
    for width in (1, 3, 9):
        pads = [0] * (2 * len(shape))
        pads[-1], pads[len(shape) - 1] = width, width - 1
        expect_node("Pad", [counting(*shape), vector(*pads)], mode=mode)


def test_negative_pads_crop_before_others_are_added(run_node: NodeRunner) -> None:
    (out,) = run_node("Pad", [counting(5), vector(-1, 2)], mode="reflect")
    assert out.tolist() == [1, 2, 3, 4, 3, 2]


def test_a_large_whole_number_pads_exactly(expect_node: NodeRunner) -> None:
    big = np.array(2**62 + 1)
    (out,) = expect_node("Pad", [vector(1), vector(1, 0), big])
    assert out.tolist() == [2**62 + 1, 1]


def test_a_backward_slice_from_before_the_first_element_starts_there(run_node: NodeRunner) -> None:
    """As the specification clamps; ReferenceEvaluator takes nothing."""
    (out,) = run_node("Slice", [counting(4), vector(-9), vector(-99), vector(0), vector(-1)])
    assert out.tolist() == [0]


def test_split_leaves_what_there_is_to_the_last_parts(expect_node: NodeRunner) -> None:
    parts = expect_node("Split", [counting(5)], outputs=4, num_outputs=4)
    assert [len(part) for part in parts] == [2, 2, 1, 0]


def test_flatten_of_nothing(run_node: NodeRunner) -> None:
    (out,) = run_node("Flatten", [counting(2, 0, 3)], axis=2)
    assert out.shape == (0, 3)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Squeeze", [counting(2, 3), vector(0)]),
        ("Unsqueeze", [counting(2), vector(0, -3)]),
        ("Tile", [counting(2, 3), vector(2)]),
        ("Expand", [counting(2, 3), vector(2, 4)]),
        ("Reshape", [counting(2, 3), vector(4, -1)]),
    ],
)
def test_what_does_not_fit_is_refused(run_node: NodeRunner, op: str, inputs: list[np.ndarray]) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node(op, inputs)
    assert caught.value.failure.node == op


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Tile", [counting(2), vector(10**11)]),
        ("Expand", [counting(1), vector(10**11)]),
        ("Pad", [counting(1), vector(0, 10**11)]),
        ("CenterCropPad", [counting(1), vector(10**11)]),
        ("ConstantOfShape", [vector(10**6, 10**6)]),
        ("Range", [np.array(0), np.array(10**12), np.array(1)]),
    ],
)
def test_absurd_sizes_are_refused_before_they_are_made(run_node: NodeRunner, op: str, inputs: list[np.ndarray]) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node(op, inputs)
    assert caught.value.failure.code == "TENSOR_TOO_LARGE"


def test_shape_arithmetic_compiles_into_one_graph_for_every_batch() -> None:
    """Reading a number from a device would end the graph."""
    module = parse(
        """g (float[N, L, 8] x) => (float[N, 2, M, 4] y, float[N, 16] z)
        <int64 zero = {0}, int64 one = {1}, int64[1] first = {0}, int64[2] split = {2, 1}, int64[1] back = {-1},
         int64[1] end = {-9}, int64[1] two = {2}, int64[2] flat = {0, -1}, int64[2] heads = {2, 4}, int64[0] none = {},
         int64[1] first_size = {1}, int64[1] start = {1}, int64[1] stop = {2}, int64[1] step_axis = {1}> {
            s = Shape (x)
            n = Gather <axis = 0> (s, zero)
            nl, eight = Split <axis = 0> (s, split)
            nl_back = Slice (nl, back, end, first, back)
            nl_again = Slice (nl_back, back, end, first, back)
            l1 = Gather <axis = 0> (nl_again, first)
            l2 = Slice (nl_again, two, end)
            n1 = Unsqueeze (n, first)
            n0 = Reshape (n1, none)
            n2 = Expand (n0, first_size)
            l = Slice (s, start, stop)
            shape = Concat <axis = 0> (l1, l, heads)
            heads4 = Reshape (x, shape)
            y = Transpose <perm = [0, 2, 1, 3]> (heads4)
            part = Slice (x, first, two, step_axis)
            z = Reshape (part, flat)
        }"""
    )
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    for batch in (2, 3, 5):
        x = torch.randn(batch, 6, 8)
        y, z = compiled(x)
        assert torch.equal(y, x.reshape(batch, 6, 2, 4).transpose(1, 2))
        assert torch.equal(z, x[:, :2].reshape(batch, 16))


def test_the_expand_of_older_exporters_compiles_into_one_graph() -> None:
    module = parse(
        """g (float[N, L] x, float[1, L] row) => (float[N, L] y) <int64 minus = {-1}> {
            s = Shape (x)
            rank = Shape (s)
            ones = ConstantOfShape <value = int64[1] {1}> (rank)
            absent = Mul (ones, minus)
            keeps = Equal (s, absent)
            sizes = Where (keeps, ones, s)
            y = Expand (row, sizes)
        }"""
    )
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    for batch in (2, 5):
        row = torch.randn(1, 3)
        (y,) = compiled(torch.zeros(batch, 3), row)
        assert torch.equal(y, row.expand(batch, 3))
