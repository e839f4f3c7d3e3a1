"""Weights keep their names, bits, ties and places from the graph to the module and back."""

import copy
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, parser
from torch.nn.utils import parametrize

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

D = ir.DataType
TWO = np.array([1, 2], np.float32)


def graph_of(text: str, opset: int = 20, **weights: Any) -> Graph:
    """The graph written in ONNX's own text form, with `weights` as initializers of the main graph."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items())
    return Graph.from_proto(model)


def sum_of(names: list[str]) -> Graph:
    """y = x + the initializers called `names`: [0, 1], [1, 2], [2, 3] and so on."""
    sums = ["x", *(f"sum{index}" for index in range(len(names)))]
    nodes = [helper.make_node("Add", [sums[i], name], [sums[i + 1]], f"add{i}") for i, name in enumerate(names)]
    shape: list[str | int | None] = ["batch", 2]
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(sums[-1], TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array([i, i + 1], np.float32), name) for i, name in enumerate(names)],
    )
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.mark.parametrize(
    "names",
    [
        ["a.b.weight", "a", "a.b"],
        ["a.b", "a", "a.b.weight"],
        ["weight", "weight.weight"],
        ["a..b", ".a", "a.", "."],
        ["/conv/Constant_output_0"],
        ["forward", "state_dict", "observe"],
        ["_parameters", "_modules", "a._buffers.b"],
        ["parametrizations", "a.parametrizations.b"],
        ["training"],
        ["a.training", "a.training.b"],
        ["graph", "_source", "_inputs", "_observers", "_plan", "_here", "_places", "_numbers.0"],
    ],
    ids=" ".join,
)
def test_state_dict_has_the_names_of_the_graph_whatever_they_are(names: list[str]) -> None:
    module = TorchGraph(sum_of(names))
    state = module.state_dict()
    assert sorted(state) == sorted(names)
    module.load_state_dict({name: each + 1 for name, each in state.items()})
    (y,) = module(torch.zeros(1, 2))
    assert y[0].tolist() == [sum(range(1, len(names) + 1)), sum(range(2, len(names) + 2))]
    module.write_back()
    for index, name in enumerate(names):
        assert module.graph.array(name).tolist() == [index + 1, index + 2]
    assert torch.equal(copy.deepcopy(module)(torch.zeros(1, 2))[0], y)
    assert not module.training


BRANCHES = """g (bool first, float[2] x) => (float[2] y) {
    [choose] y = If (first) <
        then_branch = t () => (float[2] u) <float[2] w = {1, 2}> { [left] u = Mul (x, w) },
        else_branch = e () => (float[2] v) <float[2] w = {3, 4}> { [right] v = Mul (x, w) }
    >
}"""


def test_equal_names_in_two_branches_stay_two_weights() -> None:
    module = TorchGraph(graph_of(BRANCHES))
    assert {name: each.tolist() for name, each in module.state_dict().items()} == {"w": [1, 2], "w_2": [3, 4]}
    with torch.no_grad():
        for each in module.parameters():
            each.mul_(10)
    assert module(torch.tensor(True), torch.ones(2))[0].tolist() == [10, 20]
    assert module(torch.tensor(False), torch.ones(2))[0].tolist() == [30, 40]
    module.write_back()
    assert sorted(module.graph.array(each).tolist() for each in module.graph.initializers()) == [[10, 20], [30, 40]]


BITS = [
    D.FLOAT, D.FLOAT16, D.BFLOAT16, D.DOUBLE, D.INT8, D.INT16, D.INT32, D.INT64, D.UINT8, D.UINT16, D.UINT32, D.UINT64,
    D.BOOL, D.INT4, D.UINT4, D.INT2, D.UINT2, D.FLOAT8E4M3FN, D.FLOAT8E4M3FNUZ, D.FLOAT8E5M2, D.FLOAT8E5M2FNUZ,
    D.FLOAT8E8M0, D.FLOAT4E2M1, D.COMPLEX64, D.COMPLEX128,
]  # fmt: skip


def every_pattern(dtype: ir.DataType, count: int) -> np.ndarray:
    """`count` elements of many bit patterns: NaNs with payloads, infinities, both zeros, subnormal numbers."""
    if dtype is D.BOOL:
        return np.equal(np.arange(count) % 3, 0)
    if dtype.bitwidth < 8:
        codes = (np.arange(count) % (1 << dtype.bitwidth)).astype(np.uint8)
        narrow: np.ndarray = codes.view(dtype.numpy()) if dtype is D.FLOAT4E2M1 else codes.astype(dtype.numpy())
        return narrow
    size = int(dtype.bitwidth // 8)
    codes = np.random.default_rng(0).integers(0, 256, (count, size), np.uint8)
    codes[: count // 2, :] = np.arange(count // 2, dtype=np.uint8)[:, None]
    codes[count // 2 :, -1] |= 0x7F  # exponents of NaN
    patterns: np.ndarray = codes.reshape(-1).view(dtype.numpy())
    return patterns


def stored_as(dtype: ir.DataType, count: int) -> Graph:
    """A graph with a weight `w` of `dtype`."""
    weight = ir.serde.serialize_tensor(ir.Tensor(every_pattern(dtype, count), dtype=dtype, name="w"))
    graph = helper.make_graph(
        [helper.make_node("Shape", ["w"], ["y"], "shape")],
        "stored",
        [],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1])],
        [weight],
    )
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13))


@pytest.mark.parametrize("count", [512, 7, 0])
@pytest.mark.parametrize("dtype", BITS, ids=lambda each: each.name)
def test_every_type_goes_back_bit_for_bit(dtype: ir.DataType, count: int) -> None:
    graph = stored_as(dtype, count)
    home = graph.initializer("w")
    kept = home.const_value
    assert kept is not None
    bits = kept.tobytes()
    module = TorchGraph(graph)
    module.write_back()
    assert home.const_value is kept, "what did not change is not rewritten"
    weight = module.state_dict()["w"].clone()
    module.load_state_dict({"w": weight})
    module.write_back()
    again = ir.from_proto(graph.proto()).graph.initializers["w"].const_value
    assert again is not None
    assert (again.dtype, again.tobytes()) == (dtype, bits)


@pytest.mark.parametrize("dtype", BITS, ids=lambda each: each.name)
def test_a_changed_weight_is_written_in_its_own_type(dtype: ir.DataType) -> None:
    graph = stored_as(dtype, 8)
    module = TorchGraph(graph)
    weight = module.state_dict()["w"].clone()
    swapped = weight.view(torch.uint8).reshape(8, -1).flip(0).reshape(-1).view(weight.dtype)
    module.load_state_dict({"w": swapped})
    module.write_back()
    after = ir.from_proto(graph.proto()).graph.initializers["w"].const_value
    assert after is not None
    assert after.dtype is dtype
    assert after.numpy().tobytes() == every_pattern(dtype, 8)[::-1].tobytes()


def test_minus_zero_and_a_nan_are_changes_and_equal_ones_are_none() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Add (x, w) }", w=np.array([0.0, np.nan], np.float32))
    module, kept = TorchGraph(graph), graph.initializer("w").const_value
    module.write_back()
    assert graph.initializer("w").const_value is kept
    with torch.no_grad():
        module.get_parameter("w")[0] = -0.0
    module.write_back()
    assert graph.array("w").tobytes() == np.array([-0.0, np.nan], np.float32).tobytes()


def test_a_weight_that_two_nodes_read_is_one_parameter_whose_gradients_add_up() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { p = Mul (x, w)  y = Mul (p, w) }", w=TWO)
    module = TorchGraph(graph)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    module(torch.tensor([3.0, 5.0]))[0].sum().backward()
    assert module.get_parameter("w").grad is not None
    assert module.get_parameter("w").grad.tolist() == [2 * 1 * 3, 2 * 2 * 5]  # type: ignore[union-attr]  # just checked


def test_an_embedding_tied_with_the_output_stays_tied() -> None:
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    graph = graph_of(
        """g (int64[n] t) => (float[n, 5] y) {
            e = Gather (table, t)  turned = Transpose (table)  y = MatMul (e, turned)
        }""",
        table=table,
    )
    module = TorchGraph(graph)
    assert list(module.state_dict()) == ["table"]
    native = torch.from_numpy(table.copy()).requires_grad_()
    tokens = torch.tensor([1, 4, 1])
    (torch.nn.functional.embedding(tokens, native) @ native.T).square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    module(tokens)[0].square().sum().backward()
    assert torch.allclose(module.get_parameter("table").grad, native.grad, rtol=1e-4)  # type: ignore[arg-type]  # set
    torch.optim.SGD(module.parameters(), 0.01).step()
    module.write_back()
    assert len(graph.model.graph.initializers) == 1
    assert np.allclose(graph.array("table"), table - 0.01 * native.grad.numpy(), atol=1e-5)  # type: ignore[union-attr]


CONSTANT = "g (float[2] x) => (float[2] y) { w = Constant <value = float[2] {1.0, 2.0}> ()  y = Mul (x, w) }"
LOOP = """g (float[2] x, int64 trips) => (float[2] y) {
    [loop] y = Loop (trips, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) <float[2] w = {1, 2}> {
        d = Identity (c)  [scale] t = Mul (s, w)
    }>
}"""
SCAN = """g (float[2] x, float[n, 2] rows) => (float[2] y) {
    [scan] y = Scan (x, rows) <num_scan_inputs = 1,
        body = b (float[2] s, float[2] r) => (float[2] t) <float[2] w = {1, 2}> { p = Mul (s, w)  t = Add (p, r) }>
}"""
NESTED = """g (float[2] x, bool c) => (float[2] y) {
    [outer] y = If (c) <
        then_branch = t () => (float[2] u) { [inner] u = If (c) <
            then_branch = tt () => (float[2] uu) <float[2] w = {1, 2}> { uu = Mul (x, w) },
            else_branch = te () => (float[2] uv) { uv = Neg (x) }> },
        else_branch = e () => (float[2] v) { v = Relu (x) }>
}"""


@pytest.mark.parametrize(
    ("text", "others"),
    [
        (CONSTANT, []),
        (BRANCHES.replace("bool first, float[2] x", "float[2] x, bool first"), [torch.tensor(True)]),
        (LOOP, [torch.tensor(3)]),
        (SCAN, [torch.ones(2, 2)]),
        (NESTED, [torch.tensor(True)]),
    ],
    ids=["Constant", "If", "Loop", "Scan", "If in If"],
)
def test_weights_in_constants_and_bodies_train_and_go_back(text: str, others: list[torch.Tensor]) -> None:
    graph = graph_of(text)
    module = TorchGraph(graph)
    x = torch.tensor([3.0, 5.0])
    (before,) = module(x, *others)
    before.sum().backward()
    weight = module.get_parameter("w")
    assert weight.grad is not None
    assert (weight.grad != 0).all()
    torch.optim.SGD([weight], 0.01).step()
    (after,) = module(x, *others)
    assert not torch.equal(before, after)
    module.write_back()
    reloaded = TorchGraph(Graph.from_proto(graph.proto()))
    assert torch.equal(reloaded(x, *others)[0], after)


def test_a_shape_constant_that_state_dict_changes_changes_what_runs() -> None:
    text = "g (float[6] x) => (float[n, m] y) { [fold] s = Reshape (x, shape)  y = Tile (s, repeats) }"
    module = TorchGraph(graph_of(text, shape=np.array([2, 3]), repeats=np.array([1, 1])))
    assert module(torch.ones(6))[0].shape == (2, 3)
    module.load_state_dict({"shape": torch.tensor([3, -1]), "repeats": torch.tensor([2, 1])})
    assert module(torch.ones(6))[0].shape == (6, 2)
    module.write_back()
    assert module.graph.array("shape").tolist() == [3, -1]


def test_a_number_that_a_size_depends_on_is_not_trained() -> None:
    text = """g (float x) => (float[n] y) <float z = {0}, float o = {1}> {
        r = Range (z, w, o)  s = Sigmoid (w)  y = Mul (r, s)
    }"""
    module = TorchGraph(graph_of(text, w=np.float32(3)))
    assert not module.get_parameter("w").requires_grad
    module.get_parameter("w").fill_(5)
    module.refresh()
    assert module(torch.tensor(0.0))[0].shape == (5,)


def test_a_copy_is_independent() -> None:
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Mul (x, w) }", w=TWO)
    module = TorchGraph(graph)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.get_parameter("w").mul_(10)
    assert module(torch.ones(2))[0].tolist() == [1, 2]
    assert twin(torch.ones(2))[0].tolist() == [10, 20]
    seen: list[torch.Tensor] = []
    module.observe("y", seen.append)
    twin(torch.ones(2))
    assert not seen
    module.write_back()
    assert graph.array("w").tolist() == [1, 2]
    twin.write_back()
    assert graph.array("w").tolist() == [10, 20]


def test_gradients_are_wanted_where_they_can_reach() -> None:
    text = """g (float[n, 2] x) => (float[n, 2] y) {
        half = Constant <value = float {0.5}> ()
        [norm] z = BatchNormalization (x, scale, shift, mean, var)
        [halve] h = Mul (z, factor)
        [halve_too] hh = Mul (h, half)
        [index] rows = Gather (table, at)
        y = Add (hh, rows)
    }"""
    ones = np.ones(2, np.float32)
    module = TorchGraph(
        graph_of(
            text, scale=ones, shift=ones, mean=ones, var=ones, factor=np.float32(2), at=np.array([0]),
            table=np.ones((3, 2), np.float32), unread=ones,
        )
    )  # fmt: skip
    trained = {name for name, each in module.named_parameters() if each.requires_grad}
    fixed = {name for name, each in module.named_parameters() if not each.requires_grad}
    buffers = {name for name, _ in module.named_buffers()} & set(module.state_dict())
    assert trained == {"scale", "shift", "table"}
    assert fixed == {"factor", "unread"}
    assert buffers == {"mean", "var", "at"}


def test_a_parametrization_is_what_runs_and_what_is_written() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 2

    module = TorchGraph(graph_of("g (float[2] x) => (float[2] y) { y = Mul (x, w) }", w=TWO))
    parametrize.register_parametrization(*module.place("w"), Doubled())
    assert module(torch.ones(2))[0].tolist() == [2, 4]
    module.write_back()
    assert module.graph.array("w").tolist() == [2, 4]
    twin = copy.deepcopy(module)
    assert twin(torch.ones(2))[0].tolist() == [2, 4]


def test_weights_that_are_also_graph_inputs_need_not_be_fed() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x, float[2] w) => (float[2] y) { y = Mul (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(TWO, "w"))
    assert TorchGraph(Graph.from_proto(model))(torch.ones(2))[0].tolist() == [1, 2]


def test_state_of_another_shape_changes_nothing() -> None:
    module = TorchGraph(graph_of("g (float[2] x) => (float[2] y) { y = Mul (x, w) }", w=TWO))
    with pytest.raises((SlimlineError, RuntimeError), match="w"):
        module.load_state_dict({"w": torch.ones(3)})
    assert module(torch.ones(2))[0].tolist() == [1, 2]
