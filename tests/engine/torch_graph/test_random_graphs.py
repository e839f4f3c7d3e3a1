"""Random graphs, one node to a dozen, against onnx's ReferenceEvaluator, and their gradients against differences.

The steps that they are made of are in the folder `drafts`.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.torch_graph.drafts import draft as drafting
from tests.engine.torch_graph.drafts.draft import STEPS
from worker.engine import Graph, TorchGraph

for _family in ("elementwise", "layout", "layers", "whole_numbers", "bodies"):
    importlib.import_module(f"tests.engine.torch_graph.drafts.{_family}")  # enters its steps
TOLERANCE = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-9}
MOST = 2000
"""Elements of the largest tensor."""
COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
}

DIFFERENTIABLE = (
    "smooth_unary", "smooth_unary", "binary", "matmul", "gemm", "convolution", "normalization", "arrangement",
    "joining", "slicing", "gathering", "shape_arithmetic", "choice", "branching", "scanning", "looping",
)  # fmt: skip


@st.composite
def drafts(
    draw: Callable[..., Any],
    steps: Sequence[str] = tuple(STEPS),
    dtypes: Sequence[str] = drafting.ALL,
    lengths: tuple[int, int] = (3, 12),
) -> Any:
    draft = drafting.Draft(draw, dtypes)
    least, most = lengths
    for name in draw(st.lists(st.sampled_from(steps), min_size=least, max_size=most)):
        STEPS[name](draft)
        if max((value.size for value in draft.values.values()), default=0) > MOST:
            break
    return draft


def compare(draft: Any) -> None:
    """Run the model and expect every output in the reference's type, shape and numbers."""
    if not draft.made:
        return
    model = draft.finish()
    module = TorchGraph(Graph.from_proto(onnx.ModelProto.FromString(model.SerializeToString())))
    with torch.no_grad():
        results = module(*[torch.from_numpy(draft.values[value.name].copy()) for value in model.graph.input])
    for value, result in zip(model.graph.output, results, strict=True):
        wanted, got = draft.values[value.name], result.detach().numpy()
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), value.name
        tolerance = TOLERANCE.get(wanted.dtype.name, 0.0)
        if tolerance and any(node.op_type == "Cast" for node in draft.nodes):
            tolerance = max(TOLERANCE.values())  # what was rounded in float16 may be float64 now
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=value.name)


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=25, derandomize=True, **COMMON)
@given(data=st.data())
def test_one_node_of_random_attributes_is_right(name: str, data: st.DataObject) -> None:
    compare(data.draw(drafts([name], lengths=(1, 1))))


@settings(max_examples=500, derandomize=True, **COMMON)
@given(draft=drafts())
def test_a_random_graph_is_right(draft: Any) -> None:
    compare(draft)


@settings(max_examples=60, derandomize=True, **COMMON)
@given(draft=drafts(DIFFERENTIABLE, ["float64"], (2, 5)))
def test_a_random_graph_has_right_gradients(draft: Any) -> None:
    if not draft.made:
        return
    model = draft.finish()
    module = TorchGraph(Graph.from_proto(onnx.ModelProto.FromString(model.SerializeToString())))
    inputs = [torch.from_numpy(draft.values[value.name].copy()) for value in model.graph.input]
    places = [index for index, each in enumerate(inputs) if each.is_floating_point() and each.numel()]
    trained = {name: each for name, each in module.named_parameters() if each.requires_grad and each.numel()}

    def run(*varied: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given, weights = list(inputs), dict(zip(trained, varied, strict=False))
        for place, each in zip(places, varied[len(trained) :], strict=True):
            given[place] = each
        results = torch.func.functional_call(module, weights, tuple(given))
        return tuple(each for each in results if each.is_floating_point() and each.requires_grad)

    varied = [*trained.values(), *(inputs[place] for place in places)]
    varied = [each.detach().clone().requires_grad_() for each in varied]
    if varied and run(*varied):
        assert torch.autograd.gradcheck(run, varied)
