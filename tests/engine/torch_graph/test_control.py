"""If, Loop and Scan beyond the official tests: no iterations, axes and directions, the branch not taken."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import parser

from worker.engine import Graph, TorchGraph

SCAN = """g (float[1] s, float[n, 2] x) => (float[1] t, float[a, b] y) {{
    t, y = Scan (s, x) <num_scan_inputs = 1, scan_output_axes = [{axis}], scan_input_directions = [{backwards}],
        scan_output_directions = [{backwards}],
        body = b (float[1] s0, float[2] row) => (float[1] s1, float[2] out) {{
            m = ReduceMax <keepdims = 0> (row)  s1 = Add (s0, m)  out = Mul (row, s0)
        }}>
}}"""
LOOP = """g (float[2] x, int64 trips) => (float[2] y, float[n, 2] rows) {
    y, rows = Loop (trips, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t, float[2] row) {
        d = Identity (c)  t = Add (s, s)  row = Identity (s)
    }>
}"""
BRANCHES = """g (bool first, float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> {
    y = If (first) <
        then_branch = t () => (float[2] a) { a = Mul (x, v) },
        else_branch = e () => (float[2] b) { b = Mul (x, w) }
    >
}"""


def model_of(text: str) -> Any:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("backwards", [0, 1])
def test_scan_stacks_along_any_axis_in_either_direction(axis: int, backwards: int) -> None:
    model = model_of(SCAN.format(axis=axis, backwards=backwards))
    feed = {"s": np.ones(1, np.float32), "x": np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)}
    got = TorchGraph(Graph.from_proto(model))(*map(torch.from_numpy, feed.values()))
    state, rows, order = feed["s"], [], slice(None, None, -1 if backwards else 1)
    for row in feed["x"][order]:
        rows.append(row * state)
        state = state + row.max()
    assert np.allclose(got[0], state)
    assert np.allclose(got[1], np.stack(rows[order], axis))


@pytest.mark.parametrize(("axis", "shape"), [(0, (0, 2)), (1, (2, 0)), (-1, (2, 0))])
def test_a_scan_of_no_rows(axis: int, shape: tuple[int, int]) -> None:
    module = TorchGraph(Graph.from_proto(model_of(SCAN.format(axis=axis, backwards=0))))
    state, rows = module(torch.ones(1), torch.empty(0, 2))
    assert (state.tolist(), rows.shape) == ([1], shape)


def test_a_loop_of_no_trips() -> None:
    model, x = model_of(LOOP), np.ones(2, np.float32)
    y, rows = TorchGraph(Graph.from_proto(model))(torch.from_numpy(x), torch.tensor(0))
    assert (y.tolist(), rows.shape) == ([1, 1], (0, 2))
    y, rows = TorchGraph(Graph.from_proto(model))(torch.from_numpy(x), torch.tensor(3))
    assert (y.tolist(), rows.tolist()) == ([8, 8], [[1, 1], [2, 2], [4, 4]])


@pytest.mark.parametrize(("first", "wanted"), [(True, ([5.0, 6.0], [0.0, 0.0])), (False, ([0.0, 0.0], [5.0, 6.0]))])
def test_the_branch_not_taken_gets_a_zero_gradient(first: bool, wanted: tuple[list[float], list[float]]) -> None:
    module = TorchGraph(Graph.from_proto(model_of(BRANCHES)))
    module(torch.tensor(first), torch.tensor([5.0, 6.0]))[0].sum().backward()
    gradients = [module.get_parameter(name).grad for name in ("v", "w")]
    assert tuple(each.tolist() for each in gradients if each is not None) == wanted
