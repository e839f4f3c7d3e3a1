"""Runs single nodes through TorchGraph, alone or beside onnx's ReferenceEvaluator."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from worker.engine import Graph, TorchGraph

NodeRunner = Callable[..., list[np.ndarray]]


def node_model(
    op: str,
    inputs: Sequence[np.ndarray | None],
    *,
    outputs: int = 1,
    opset: int = 20,
    domain: str = "",
    dtypes: Sequence[int] | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node whose inputs are all fed; `dtypes` are the ONNX types of the outputs where they are known."""
    names = ["" if each is None else f"x{index}" for index, each in enumerate(inputs)]
    results = [f"y{index}" for index in range(outputs)]
    node = helper.make_node(op, names, results, name=op, domain=domain, **attributes)
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape)
        for name, each in zip(names, inputs, strict=True)
        if each is not None
    ]
    types = dtypes or [0] * outputs
    given = [
        helper.make_tensor_value_info(name, dtype, None) if dtype else onnx.ValueInfoProto(name=name)
        for name, dtype in zip(results, types, strict=True)
    ]
    graph = helper.make_graph([node], "one", fed, given)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors on many threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_node() -> NodeRunner:
    """`run_node(op, inputs, outputs=1, opset=20, domain="", dtypes=None, **attributes)` -> the node's outputs."""

    def run(op: str, inputs: Sequence[np.ndarray | None], **options: Any) -> list[np.ndarray]:
        module = TorchGraph(Graph.from_proto(node_model(op, inputs, **options)))
        with torch.no_grad():
            results = module(*[torch.from_numpy(np.array(each)) for each in inputs if each is not None])
        return [each.numpy() for each in results]

    return run


@pytest.fixture(scope="session")
def expect_node(run_node: NodeRunner) -> NodeRunner:
    """As `run_node`, and the outputs are what ReferenceEvaluator gives; `rtol`, `atol` say how near."""

    def expect(
        op: str, inputs: Sequence[np.ndarray | None], *, rtol: float = 1e-5, atol: float = 1e-6, **options: Any
    ) -> list[np.ndarray]:
        got = run_node(op, inputs, **options)
        feed = {f"x{index}": each for index, each in enumerate(inputs) if each is not None}
        wanted = ReferenceEvaluator(node_model(op, inputs, **options)).run(None, feed)
        for one, other in zip(got, wanted, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)
        return got

    return expect
