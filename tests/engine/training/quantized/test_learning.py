"""A quantized graph learns: gradients reach weights, biases and scales, within what integers can hold."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.optimization import is_scale
from worker.engine.training.quantized import QuantizedRewriting
from worker.engine.training.quantized.scales import STEEPEST, WIDEST, LearnedScale

Builder = Callable[..., onnx.ModelProto]
Quantize = Callable[..., tuple[Graph, Any]]
Attached = Callable[[Graph], tuple[QuantizedRewriting, TorchGraph]]


@pytest.mark.parametrize("recipe", ["quantize.static", "quantize.static:weights.bits=4"])
@pytest.mark.parametrize("model", ["make_cnn", "make_attention"])
def test_gradients_reach_weights_biases_and_scales(
    model: str, recipe: str, quantize: Quantize, attached: Attached, request: pytest.FixtureRequest
) -> None:
    graph, run = quantize(request.getfixturevalue(model)(), recipe)
    rewriting, module = attached(graph)
    module(*run.tensors())[0].square().sum().backward()
    moving = {name: each for name, each in module.named_parameters() if each.requires_grad}
    assert all(each.grad is not None and each.grad.isfinite().all() for each in moving.values())
    reached = {name for name, each in moving.items() if each.grad is not None and each.grad.any()}
    scales = {name for name, each in moving.items() if is_scale(each)}
    assert len(scales) == len(rewriting.scales)
    assert {name.split(".parametrizations")[0] for name in moving.keys() - scales} >= {
        layer.weight.name for layer in rewriting.graph.layers()
    }
    # Softmax does not see what is added to all keys.
    assert moving.keys() - reached <= {"key.bias", "key.bias_quantized"}


def test_the_gradient_of_a_logarithm_is_that_of_the_scale_as_lsq_weighs_it() -> None:
    scale, served, highest = torch.tensor([0.5, 0.25]), 100.0, 127.0
    learned = LearnedScale(scale, served, highest)
    logarithm = torch.zeros(2, requires_grad=True)
    slope = torch.tensor([0.3, -0.2])
    (learned(logarithm) * slope).sum().backward()
    by_logarithm = (slope * scale).double()
    expected = by_logarithm / (scale.double().square().mean() * math.sqrt(served * highest))
    assert logarithm.grad is not None
    torch.testing.assert_close(logarithm.grad.double(), expected, rtol=1e-6, atol=0)
    assert torch.equal(learned(logarithm), scale)


def test_a_steep_gradient_is_clipped() -> None:
    learned = LearnedScale(torch.tensor(1.0), 1, 1)
    logarithm = torch.zeros((), requires_grad=True)
    (learned(logarithm) * -1e6).backward()
    assert logarithm.grad == -STEEPEST


def test_scales_stay_positive_and_near_their_start_whatever_happens(
    make_cnn: Builder, quantize: Quantize, attached: Attached
) -> None:
    graph, run = quantize(make_cnn(), "quantize.static")
    rewriting, module = attached(graph)
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            if is_scale(parameter):
                parameter.fill_(100.0 if index % 2 else -100.0)
    rewriting.constrain(module)
    finished = rewriting.finish(module)
    ratios = np.concatenate([(finished.array(name) / graph.array(name)).reshape(-1) for name in rewriting.scales])
    assert np.isfinite(run.torch(finished)).all()
    assert ratios.min() > 1 / (1.01 * WIDEST)
    assert ratios.max() < 1.01 * WIDEST


def test_biases_that_grow_still_fit(make_cnn: Builder, quantize: Quantize, attached: Attached) -> None:
    graph, _ = quantize(make_cnn(), "quantize.static")
    rewriting, module = attached(graph)
    with torch.no_grad():
        module.get_parameter("conv1.bias_quantized").fill_(3000.0)
        for name in ("conv1.weight_scale", "x_scale"):
            stored_logarithm(module, name).fill_(-math.log(WIDEST))
    rewriting.constrain(module)
    finished = rewriting.finish(module)
    restored = finished.array("conv1.bias_quantized") * finished.array("conv1.bias_scale").astype(np.float64)
    assert np.allclose(restored, 3000, rtol=1e-6)


def stored_logarithm(module: TorchGraph, name: str) -> torch.Tensor:
    holder, leaf = module.place(name)
    tensor: torch.Tensor = holder.parametrizations[leaf].original0  # type: ignore[union-attr, index]
    return tensor


@pytest.mark.parametrize("limits", [(-63, 63), (-3, 3)])
def test_codes_of_few_bits_never_leave_them(
    limits: tuple[int, int], make_mlp: Builder, quantize: Quantize, attached: Attached
) -> None:
    graph, run = quantize(make_mlp(), "quantize.static")
    name, top = "fc1.weight_quantized", limits[1]
    codes = graph.array(name).astype(np.float64)
    graph.set_array(name, np.rint(codes * top / np.abs(codes).max()).astype(np.int8))
    rewriting, module = attached(graph)
    assert np.array_equal(run.torch(graph), run.torch(module))
    with torch.no_grad():
        module.get_parameter(name).mul_(5)
        stored_logarithm(module, "fc1.weight_scale").normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    rewriting.constrain(module)
    seen = run.torch(module)
    finished = rewriting.finish(module)
    codes = finished.array(name)
    assert (codes.min(), codes.max()) == limits
    assert np.allclose(seen, run.torch(finished), atol=1e-5)


@pytest.mark.parametrize(("kind", "rate"), [(torch.optim.Adam, 5e-3), (torch.optim.SGD, 0.1)])
@pytest.mark.parametrize("recipe", ["quantize.static", "quantize.static:weights.bits=4"])
def test_thirty_steps_lower_the_loss(
    kind: Callable[..., torch.optim.Optimizer],
    rate: float,
    recipe: str,
    make_cnn: Builder,
    quantize: Quantize,
    attached: Attached,
) -> None:
    graph, _ = quantize(make_cnn(), recipe)
    rewriting, module = attached(graph)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 8, 8, generator=generator)
    labels = x.mean((2, 3)).argmax(1)
    optimizer = kind((each for each in module.parameters() if each.requires_grad), lr=rate)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(module(x)[0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewriting.constrain(module)
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    moved = [each.detach().abs().max().item() for each in module.parameters() if is_scale(each)]
    assert 0 < max(moved) < 0.5


def test_a_copy_is_constrained_and_finished_alone(make_mlp: Builder, quantize: Quantize, attached: Attached) -> None:
    graph, run = quantize(make_mlp(), "quantize.static")
    rewriting, module = attached(graph)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.requires_grad and not is_scale(parameter):
                parameter.mul_(0.5)
    rewriting.constrain(twin)
    finished = rewriting.finish(twin)
    # What the bias of the last layer is rounded to.
    assert np.allclose(run.torch(finished), run.torch(twin), atol=float(finished.array("fc2.bias_scale").max()))
    assert np.array_equal(run.torch(rewriting.finish(module)), run.torch(graph))
