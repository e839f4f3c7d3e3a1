"""Sequences and optionals: positions, and what is not there."""

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

A, B, C = (torch.full((2,), float(n)) for n in (1, 2, 3))


def parse(body: str, results: str = "float y", constants: str = "int64 p = {0}") -> TorchGraph:
    return TorchGraph(
        Graph.from_proto(
            onnx.parser.parse_model(
                '<ir_version: 10, opset_import: ["": 20]> g (float[2] a, float[2] b, float[2] c) '
                f"=> ({results}) <{constants}> {{ s = SequenceConstruct (a, b) {body} }}"
            )
        )
    )


@pytest.mark.parametrize(
    ("position", "order"),
    [(0, [3, 1, 2]), (1, [1, 3, 2]), (2, [1, 2, 3]), (-1, [1, 3, 2]), (-2, [3, 1, 2])],
)
def test_insert_before_a_position(position: int, order: list[int]) -> None:
    body = "t = SequenceInsert (s, c, p) y = ConcatFromSequence <axis = 1, new_axis = 1> (t)"
    module = parse(body, constants=f"int64 p = {{{position}}}")
    (y,) = module(A, B, C)
    assert y.tolist() == [order, order]


@pytest.mark.parametrize(
    "body",
    [
        "y = SequenceAt (s, p)",
        "t = SequenceErase (s, p) y = ConcatFromSequence <axis = 0> (t)",
        "t = SequenceInsert (s, c, p) y = ConcatFromSequence <axis = 0> (t)",
    ],
)
def test_positions_outside_are_refused(body: str) -> None:
    with pytest.raises(SlimlineError) as caught:
        parse(body, constants="int64 p = {-3}")(A, B, C)
    assert caught.value.failure.code == "NODE_FAILED"


def test_lengths_are_shape_arithmetic() -> None:
    module = parse("t = SequenceErase (s) n = SequenceLength (t) m = SequenceLength (s) y = Add (n, m)", "int64 y")
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert [int(y) for y in compiled(A, B, C)] == [3]


@pytest.mark.parametrize(("split", "widths"), [(None, [1] * 5), (np.array(2), [2, 2, 1]), (np.array([4, 1]), [4, 1])])
def test_split_to_sequence(split: np.ndarray | None, widths: list[int]) -> None:
    literal = "" if split is None else ", n"
    constants = (
        ""
        if split is None
        else f"<int64{'[2]' if split.ndim else ''} n = {{{', '.join(map(str, split.reshape(-1)))}}}>"
    )
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2, 5] x) => (seq(float) y) '
        f"{constants} {{ y = SplitToSequence <axis = -1> (x{literal}) }}"
    )
    (parts,) = TorchGraph(Graph.from_proto(model))(torch.arange(10.0).reshape(2, 5))
    assert [part.shape[1] for part in parts] == widths


def test_an_empty_optional_has_no_element() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (bool y, bool z, float[2] v) '
        "{ o = Optional (x) y = OptionalHasElement (o) z = OptionalHasElement () v = OptionalGetElement (o) }"
    )
    y, z, v = TorchGraph(Graph.from_proto(model))(A)
    assert (bool(y), bool(z)) == (True, False)
    assert torch.equal(v, A)
