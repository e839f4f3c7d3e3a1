"""Bad graphs and bad input are refused with the right code and the node's name. What runs away is in test_bounds."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import parser
from torch.nn.utils import parametrize

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

IMPORTS = '"" : 20, "ai.onnx.ml" : 5, "ai.onnx.preview.training" : 1, "com.acme" : 1'


def graph_of(text: str) -> Graph:
    """The graph written in ONNX's own text form."""
    return Graph.from_proto(parser.parse_model(f"<ir_version: 10, opset_import: [{IMPORTS}]>\n{text}"))


def refusal(text: str, *inputs: Any) -> tuple[str, str | None]:
    """Code and node of the refusal that building the graph, or calling it with `inputs`, ends in."""
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(text))(*[torch.as_tensor(each) for each in inputs])
    return error.value.failure.code, error.value.failure.node


BRANCH = """g (bool c, float[2] x) => (float[2] y) {{ [top] y = If (c) <
    then_branch = t () => (float[2] u) {{ {0} }}, else_branch = e () => (float[2] v) {{ v = Identity (x) }}> }}"""
STRUCTURE = {
    "a cycle": (
        "g (float[2] x) => (float[2] y) { [a] p = Add (x, q)  [b] q = Relu (p)  [c] y = Relu (q) }",
        ("GRAPH_CYCLE", "a"),
    ),
    "a missing input": ("g (float[2] x) => (float[2] y) { [a] y = Add (x, q) }", ("VALUE_MISSING", "a")),
    "a missing input in a body": (BRANCH.format("[a] u = Add (x, q)"), ("VALUE_MISSING", "a")),
    "a missing output": ("g (float[2] x) => (float[2] z) { [a] y = Relu (x) }", ("VALUE_MISSING", None)),
    "a name made twice": (
        "g (float[2] x) => (float[2] y) { [a] y = Relu (x)  [b] y = Neg (x) }",
        ("MODEL_UNREADABLE", None),
    ),
    "no outputs": ("g (float[2] x) => () { [a] y = Relu (x) }", ("GRAPH_EMPTY", None)),
    "an input too few": ("g (float[2] x) => (float[2] y) { [a] y = Add (x) }", ("SHAPES_CONFLICT", "a")),
    "an output too many": (
        "g (float[2] x) => (float[2] y, float[2] z) { [a] y, z = Relu (x) }",
        ("GRAPH_INVALID", "a"),
    ),
    "an attribute missing": ("g (float[n] x) => (float[m] y) { [a] y = Concat (x, x) }", ("GRAPH_INVALID", "a")),
    "a branch missing": (
        "g (bool c, float x) => (float y) { [a] y = If (c) <then_branch = t () => (float u) { u = Neg (x) }> }",
        ("GRAPH_INVALID", "a"),
    ),
    "a body missing": ("g (float x, int64 n) => (float y) { [a] y = Loop (n, , x) }", ("GRAPH_INVALID", "a")),
    "branches that give different numbers of values": (
        """g (bool c, float[2] x) => (float[2] y) { [a] y = If (c) <then_branch = t () => (float[2] u) { u = Relu (x) },
            else_branch = e () => (float[2] v, float[2] w) { v = Relu (x)  w = Neg (x) }> }""",
        ("GRAPH_INVALID", "a"),
    ),
    "a body that takes no state": (
        """g (float x, int64 n) => (float y) { [a] y = Loop (n, , x) <
            body = b (int64 i, bool c) => (bool d) { d = Identity (c) }> }""",
        ("GRAPH_INVALID", "a"),
    ),
    "more scanned values than inputs": (
        """g (float[n, 1] x, float[1] s) => (float[1] y) { [a] y = Scan (s, x) <num_scan_inputs = 5,
            body = b (float[1] s, float[1] r) => (float[1] t) { t = Add (s, r) }> }""",
        ("GRAPH_INVALID", "a"),
    ),
}
TYPES = {
    "float + int64": ("g (float[2] x, int64[2] z) => (float[2] y) { [a] y = Add (x, z) }", ("TYPES_CLASH", "a")),
    "float @ double": (
        "g (float[2, 2] x, double[2, 2] z) => (float[2, 2] y) { [a] y = MatMul (x, z) }",
        ("TYPES_CLASH", "a"),
    ),
    "Conv of int weights": (
        "g (float[1, 1, 3] x, int64[1, 1, 2] w) => (float[a, b, c] y) { [a] y = Conv (x, w) }",
        ("TYPES_CLASH", "a"),
    ),
    "a clash in a body": (BRANCH.format("k = Cast <to = 7> (x)  [a] u = Mul (x, k)"), ("TYPES_CLASH", "a")),
}
OPERATORS = {
    "an unknown one": "g (float[2] x) => (float[2] y) { [a] y = Frobnicate (x) }",
    "an unknown one in a body": BRANCH.format("[a] u = Frobnicate (x)"),
    "an unknown one that nothing reads": "g (float[2] x) => (float[2] y) { [a] z = Frobnicate (x)  y = Relu (x) }",
    "one of a custom domain": "g (float[2] x) => (float[2] y) { [a] y = com.acme.Foo (x) }",
    "StringConcat": "g (string[2] x) => (string[2] y) { [a] y = StringConcat (x, x) }",
    "StringNormalizer": "g (string[2] x) => (string[2] y) { [a] y = StringNormalizer (x) }",
    "StringSplit": "g (string[2] x) => (string[2, n] y, int64[2] z) { [a] y, z = StringSplit (x) }",
    "RegexFullMatch": 'g (string[2] x) => (bool[2] y) { [a] y = RegexFullMatch <pattern = "a"> (x) }',
    "a Cast to strings": "g (float[2] x) => (string[2] y) { [a] y = Cast <to = 8> (x) }",
    "strings through Identity": "g (string[2] x) => (string[2] y) { [a] y = Identity (x) }",
    "Adam": """g (float r, int64 t, float x, float d, float v, float h) => (float p, float q, float s) {
        [a] p, q, s = ai.onnx.preview.training.Adam (r, t, x, d, v, h) }""",
    "Gradient": 'g (float x) => (float y) { [a] y = ai.onnx.preview.training.Gradient <xs = ["x"], y = "y"> (x) }',
    "TreeEnsemble": "g (float[1, 2] x) => (float[n, m] y) { [a] y = ai.onnx.ml.TreeEnsemble (x) }",
    "TreeEnsembleRegressor": "g (float[1, 2] x) => (float[n, m] y) { [a] y = ai.onnx.ml.TreeEnsembleRegressor (x) }",
    "LabelEncoder": "g (int64[2] x) => (int64[2] y) { [a] y = ai.onnx.ml.LabelEncoder (x) }",
}


def cases(table: dict[str, Any]) -> list[Any]:
    """A table's rows as parameters."""
    return [pytest.param(*(row if isinstance(row, tuple) else (row,)), id=name) for name, row in table.items()]


@pytest.mark.parametrize(("text", "wanted"), cases(STRUCTURE))
def test_a_graph_that_is_none_is_refused(text: str, wanted: tuple[str, str | None]) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(text))
    assert (error.value.failure.code, error.value.failure.node) == wanted
    assert error.value.failure.hint


@pytest.mark.parametrize(("text", "wanted"), cases(TYPES))
def test_types_that_clash_are_refused(text: str, wanted: tuple[str, str]) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(text))
    assert (error.value.failure.code, error.value.failure.node) == wanted


@pytest.mark.parametrize("text", cases(OPERATORS))
def test_operators_that_are_not_run_are_refused_before_anything_runs(text: str) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(text))
    assert (error.value.failure.code, error.value.failure.node) == ("OPERATOR_UNSUPPORTED", "a")


def nested(depth: int) -> Graph:
    """If nodes, `depth` inside each other, put together without protobuf, which reads no more than about 30."""
    x, condition = (
        ir.Value(name=name, type=ir.TensorType(kind))
        for name, kind in (("x", ir.DataType.FLOAT), ("c", ir.DataType.BOOL))
    )
    x.shape, condition.shape = ir.Shape([1]), ir.Shape([])
    node = ir.node("Identity", [x], name="innermost")
    for level in range(depth):
        node.outputs[0].name = f"then{level}"
        then = ir.Graph([], node.outputs, nodes=[node], name=f"then{level}")
        other = ir.node("Identity", [x], outputs=[ir.Value(name=f"else{level}")])
        otherwise = ir.Graph([], other.outputs, nodes=[other], name=f"else{level}")
        node = ir.node("If", [condition], {"then_branch": then, "else_branch": otherwise}, name=f"if{level}")
    node.outputs[0].name = "y"
    main = ir.Graph([x, condition], node.outputs, nodes=[node], opset_imports={"": 20}, name="g")
    return Graph(ir.Model(main, ir_version=10))


def test_bodies_twenty_deep_run() -> None:
    assert TorchGraph(nested(20))(torch.ones(1), torch.tensor(True))[0].tolist() == [1]


@pytest.mark.parametrize("depth", [100, 2000])
def test_bodies_a_hundred_deep_are_refused(depth: int) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(nested(depth))
    assert error.value.failure.code == "GRAPH_TOO_DEEP"
    assert error.value.failure.node


def test_a_file_with_bodies_a_hundred_deep_is_refused(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        size, head = len(content), bytes([number << 3 | 2])
        while size > 127:
            head, size = head + bytes([size & 127 | 128]), size >> 7
        return head + bytes([size]) + content

    graph = field(2, b"g")
    for _ in range(100):
        attribute = field(1, b"then_branch") + field(6, graph)
        graph = field(1, field(4, b"If") + field(5, attribute)) + field(2, b"g")
    (tmp_path / "deep.onnx").write_bytes(b"\x08\x0a" + field(7, graph))
    with pytest.raises(SlimlineError) as error:
        Graph.load(tmp_path / "deep.onnx")
    assert error.value.failure.code == "MODEL_UNREADABLE"


RELU = "g (float[2, n] x, int64 k) => (float[2, n] y) { [a] y = Relu (x) }"


@pytest.mark.parametrize(
    ("inputs", "node"),
    [
        ([np.ones((2, 3), np.float32)], None),
        ([np.ones((2, 3), np.float32), np.array(1), np.array(1)], None),
        ([np.ones((2, 3)), np.array(1)], "x"),
        ([np.ones((2, 3), np.float32), np.array(1, np.int32)], "k"),
        ([np.ones(2, np.float32), np.array(1)], "x"),
        ([np.ones((2, 3, 1), np.float32), np.array(1)], "x"),
        ([np.ones((3, 3), np.float32), np.array(1)], "x"),
        ([np.ones((2, 3), np.float32), np.array([1])], "k"),
    ],
    ids=["too few", "too many", "type", "integer type", "rank", "higher rank", "size", "not a scalar"],
)
def test_wrong_inputs_are_refused(inputs: list[Any], node: str | None) -> None:
    assert refusal(RELU, *inputs) == ("INPUTS_MISMATCH", node)


@pytest.mark.parametrize(
    "given", [None, 3, np.ones((2, 3), np.float32), [torch.ones(2, 3)]], ids=lambda each: type(each).__name__
)
def test_an_input_that_is_no_tensor_is_refused(given: Any) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(RELU))(given, torch.tensor(1))
    assert (error.value.failure.code, error.value.failure.node) == ("INPUTS_MISMATCH", "x")


ONES = np.ones((2, 3), np.float32)
RUNNING = {
    "MatMul of declared shapes": (
        "g (float[2, 3] x, float[2, 3] w) => (float[2, 5] y) { [a] y = MatMul (x, w) }",
        [ONES, ONES],
    ),
    "MatMul": ("g (float[n, m] x, float[p, q] z) => (float[n, q] y) { [a] y = MatMul (x, z) }", [ONES, ONES]),
    "Add": ("g (float[n, m] x, float[p] z) => (float[r, q] y) { [a] y = Add (x, z) }", [ONES, np.ones(2, np.float32)]),
    "Reshape": ("g (float[n, m] x, int64[k] s) => (float[q] y) { [a] y = Reshape (x, s) }", [ONES, np.array([7])]),
    "Gather": ("g (float[n, m] x, int64[k] i) => (float[q, m] y) { [a] y = Gather (x, i) }", [ONES, np.array([7])]),
    "Split": ("g (float[n] x, int64[2] s) => (float[p] y, float[q] z) { [a] y, z = Split (x, s) }", [ONES[0], [2, 2]]),
    "Transpose": ("g (float[n, m] x) => (float[p, q] y) { [a] y = Transpose <perm = [0, 5]> (x) }", [ONES]),
    "ConstantOfShape": ("g (int64[1] s) => (float[n] y) { [a] y = ConstantOfShape (s) }", [np.array([-5])]),
    "Div by 0": ("g (int64[n] x, int64[n] z) => (int64[n] y) { [a] y = Div (x, z) }", [np.array([1]), np.array([0])]),
    "Mod by 0": ("g (int64[n] x, int64[n] z) => (int64[n] y) { [a] y = Mod (x, z) }", [np.array([1]), np.array([0])]),
    "If of two conditions": (
        """g (bool[n] c, float[m] x) => (float[m] y) { [a] y = If (c) <
            then_branch = t () => (float[m] u) { u = Relu (x) },
            else_branch = e () => (float[m] v) { v = Neg (x) }> }""",
        [np.array([True, False]), np.ones(2, np.float32)],
    ),
    "Scan of different lengths": (
        """g (float[n, 1] x, float[m, 1] z, float[1] s) => (float[1] y) { [a] y = Scan (s, x, z) <num_scan_inputs = 2,
            body = b (float[1] s, float[1] r, float[1] q) => (float[1] t) { p = Add (s, r)  t = Add (p, q) }> }""",
        [np.ones((2, 1), np.float32), np.ones((3, 1), np.float32), np.ones(1, np.float32)],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "inputs"), cases(RUNNING))
def test_a_node_that_fails_is_named(text: str, inputs: list[Any]) -> None:
    assert refusal(text, *inputs) == ("NODE_FAILED", "a")


def test_a_node_of_constants_that_fails_is_named_if_it_runs() -> None:
    text = """g (bool c) => (int64 y) <int64 seven = {7}, int64 zero = {0}> { y = If (c) <
        then_branch = t () => (int64 u) { [a] u = Div (seven, zero) },
        else_branch = e () => (int64 v) { v = Identity (seven) }> }"""
    assert refusal(text, True) == ("NODE_FAILED", "a")
    assert TorchGraph(graph_of(text))(torch.tensor(False))[0].item() == 7


SCALED = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul (x, w) }"


def test_state_of_another_shape_is_refused_as_by_any_module() -> None:
    module = TorchGraph(graph_of(SCALED))
    with pytest.raises(RuntimeError, match="size mismatch for w"):
        module.load_state_dict({"w": torch.ones(3)})
    assert module(torch.ones(2))[0].tolist() == [1, 2]


def test_a_weight_whose_shape_changed_is_not_written_back() -> None:
    class Shortened(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight[:1]

    module = TorchGraph(graph_of(SCALED))
    parametrize.register_parametrization(*module.place("w"), Shortened(), unsafe=True)
    with pytest.raises(SlimlineError) as error:
        module.write_back()
    assert (error.value.failure.code, error.value.failure.node) == ("WEIGHT_MISMATCH", "w")
    assert module.graph.array("w").tolist() == [1, 2]


@pytest.mark.parametrize("name", ["nothing", "", "w"])
def test_a_tensor_that_nothing_makes_cannot_be_observed(name: str) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(SCALED)).observe(name, print)
    assert (error.value.failure.code, error.value.failure.node) == ("TENSOR_UNKNOWN", name)


@pytest.mark.parametrize("name", ["nothing", "", "x", "y"])
def test_what_is_no_weight_has_no_place(name: str) -> None:
    with pytest.raises(SlimlineError) as error:
        TorchGraph(graph_of(SCALED)).place(name)
    assert (error.value.failure.code, error.value.failure.node) == ("TENSOR_UNKNOWN", name)


def test_refusing_leaves_the_graph_as_it_was() -> None:
    graph = graph_of("g (float[2] x, int64[2] z) => (float[2] y) { [a] p = Relu (x)  [b] y = Add (p, z) }")
    before = graph.proto().SerializeToString(deterministic=True)
    with pytest.raises(SlimlineError):
        TorchGraph(graph)
    assert graph.proto().SerializeToString(deterministic=True) == before
    assert isinstance(graph.proto(), onnx.ModelProto)
