"""If, Loop and Scan around nodes with a weight of their own and a value from around."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.engine.torch_graph.drafts.draft import Draft, step


def body(d: Draft, x: str, dtype: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], str]:
    """Nodes that take `x` of `dtype` past a value from around and a weight of their own, and what they make."""
    name = f"b{len(d.values)}"
    around = d.leaf(d.array(dtype, []))
    nodes = [
        helper.make_node(d.one_of(["Add", "Mul", "Sub"]), [x, around], [f"{name}_s"], f"{name}_first"),
        helper.make_node(d.one_of(["Add", "Sub"]), [f"{name}_s", f"{name}_w"], [f"{name}_y"], f"{name}_second"),
    ]
    return nodes, [numpy_helper.from_array(d.array(dtype, []), f"{name}_w")], f"{name}_y"


def typed(name: str, dtype: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)


@step
def branching(d: Draft) -> None:
    x = d.pick(["float32", "float64", "int64"])
    dtype = d.values[x].dtype.name
    bodies = []
    for branch in ("then", "else"):
        nodes, weights, result = body(d, x, dtype)
        bodies.append(helper.make_graph(nodes, branch, [], [typed(result, dtype)], weights))
    d.add("If", [d.leaf(d.array("bool", []))], then_branch=bodies[0], else_branch=bodies[1])


@step
def looping(d: Draft) -> None:
    dtypes = [dtype for dtype in ("float32", "float64", "int64") if dtype in d.dtypes]
    state = d.leaf(d.array(d.one_of(dtypes), [3]))
    dtype = d.values[state].dtype.name
    nodes, weights, result = body(d, "state", dtype)
    nodes.append(helper.make_node("Identity", ["holds"], ["goes_on"], "go_on"))
    nodes.append(
        helper.make_node("Cast", ["step"], ["number"], "number", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    )
    nodes.append(helper.make_node("Add", [result, "number"], ["row"], "row"))
    graph = helper.make_graph(
        nodes,
        "body",
        [typed("step", "int64"), typed("holds", "bool"), typed("state", dtype)],
        [typed("goes_on", "bool"), typed(result, dtype), typed("row", dtype)],
        weights,
    )
    d.add("Loop", [d.leaf(np.array(d.integer(1, 3))), d.leaf(np.array(True)), state], 2, body=graph)


@step
def scanning(d: Draft) -> None:
    dtype = d.one_of([dtype for dtype in ("float32", "float64") if dtype in d.dtypes])
    rows, state = d.leaf(d.array(dtype, [d.integer(1, 3), 2])), d.leaf(d.array(dtype, [2]))
    nodes, weights, result = body(d, "state", dtype)
    nodes.append(helper.make_node("Add", [result, "row"], ["next"], "advance"))
    nodes.append(helper.make_node("Mul", ["next", "row"], ["out"], "emit"))
    inputs, outputs = [typed("state", dtype), typed("row", dtype)], [typed("next", dtype), typed("out", dtype)]
    graph = helper.make_graph(nodes, "body", inputs, outputs, weights)
    d.add("Scan", [state, rows], 2, body=graph, num_scan_inputs=1)
