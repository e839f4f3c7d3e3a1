"""What torch offers for modules works on a graph as on any other: functional calls, copies, masks, autocast."""

import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.utils import parametrize, prune

from benchmarks.zoo.entry import Exported
from benchmarks.zoo.judge import backward, distance, loss_of, onnx_outputs
from worker.engine import Graph, TorchGraph
from worker.engine.torch_graph.kernels.fake_quantize import fake_quantize

NEAR = 1e-5
AUTOCAST_NEAR = 0.05
"""bfloat16 keeps 8 bits."""


@pytest.fixture
def resnet(export: Callable[[str], Exported]) -> Exported:
    return export("resnet")


@pytest.fixture
def bert(export: Callable[[str], Exported]) -> Exported:
    return export("bert")


def _load(exported: Exported) -> tuple[TorchGraph, tuple[Tensor, ...]]:
    return TorchGraph(Graph.load(exported.plain)), tuple(exported.entry.example(3).values())


class Mask(nn.Module):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def test_functional_call_takes_other_weights(resnet: Exported) -> None:
    module, inputs = _load(resnet)
    before = module(*inputs)
    doubled = {name: 2 * each.detach() for name, each in module.named_parameters()}
    got = functional_call(module, doubled, inputs)

    assert distance(module(*inputs), before) == 0
    with torch.no_grad():
        for each in module.parameters():
            each.mul_(2)
    assert distance(got, module(*inputs)) < NEAR
    assert distance(got, before) > NEAR


def test_functional_gradients_are_those_of_backward(bert: Exported) -> None:
    module, inputs = _load(bert)
    trained = {name: each for name, each in module.named_parameters() if each.requires_grad}
    got = grad(lambda weights: loss_of(functional_call(module, weights, inputs)))(
        {name: each.detach() for name, each in trained.items()}
    )
    backward(module(*inputs))
    for name, weight in trained.items():
        assert weight.grad is not None
        assert torch.allclose(got[name], weight.grad, atol=1e-6), name


def test_a_copy_shares_no_weight(bert: Exported) -> None:
    module, inputs = _load(bert)
    twin = copy.deepcopy(module)
    before = module(*inputs)
    with torch.no_grad():
        for each in twin.parameters():
            each.mul_(1.5)
    assert distance(module(*inputs), before) == 0
    assert distance(twin(*inputs), before) > NEAR
    assert {name: each.shape for name, each in twin.named_parameters()} == {
        name: each.shape for name, each in module.named_parameters()
    }


def test_a_copy_of_a_masked_graph_is_masked(resnet: Exported) -> None:
    module, inputs = _load(resnet)
    holder, leaf = module.place("7.weight")
    mask = Mask(torch.zeros(1))
    parametrize.register_parametrization(holder, leaf, mask)
    twin = copy.deepcopy(module)
    before = module(*inputs)
    assert distance(twin(*inputs), before) == 0
    mask.mask.fill_(1)
    assert distance(module(*inputs), before) > NEAR
    assert distance(twin(*inputs), before) == 0


@pytest.mark.parametrize("name", ["resnet", "gpt2", "lstm"])
def test_a_state_dict_makes_the_round_trip(name: str, export: Callable[[str], Exported]) -> None:
    module, inputs = _load(export(name))
    with torch.no_grad():
        for each in module.parameters():
            each.add_(0.01)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh, _ = _load(export(name))
    assert distance(fresh(*inputs), module(*inputs)) > NEAR
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert distance(fresh(*inputs), module(*inputs)) == 0


MASKERS: Mapping[str, Callable[[nn.Module, str, Tensor], object]] = {
    "parametrize": lambda holder, leaf, mask: parametrize.register_parametrization(holder, leaf, Mask(mask)),
    "prune": prune.custom_from_mask,
}


@pytest.mark.parametrize("tool", MASKERS)
def test_masks_act_train_and_are_written_back(tool: str, resnet: Exported, tmp_path: Path) -> None:
    graph = Graph.load(resnet.plain)
    module, inputs = TorchGraph(graph), tuple(resnet.entry.example(3).values())
    name = "3.body.0.0.weight"
    holder, leaf = module.place(name)
    weight = getattr(holder, leaf).detach().clone()
    mask = (torch.arange(weight.numel()) % 2).reshape(weight.shape).float()
    MASKERS[tool](holder, leaf, mask)

    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        backward(module(*inputs))
        optimizer.step()
    module.write_back()
    graph.save(tmp_path / "masked.onnx")

    stored = torch.tensor(graph.array(name))
    assert torch.equal(stored == 0, mask == 0)
    assert not torch.allclose(stored, weight * mask)
    with torch.no_grad():
        assert distance(module(*inputs), onnx_outputs(tmp_path / "masked.onnx", inputs)) < NEAR


class Codebook(nn.Module):
    """16 numbers stand for all weights: what is trained is the numbers."""

    places: Tensor

    def right_inverse(self, weight: Tensor) -> Tensor:
        centres = torch.linspace(float(weight.min()), float(weight.max()), 16)
        self.register_buffer("places", (weight[..., None] - centres).abs().argmin(-1))
        return centres

    def forward(self, centres: Tensor) -> Tensor:
        return centres[self.places]


class Quantizer(nn.Module):
    """Four bits of one step, straight through."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(step))

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize(weight, self.step, None, axis=0, block_size=0, low=-8, high=7)


@pytest.mark.parametrize("shared", [Codebook(), Quantizer(0.05)], ids=lambda each: type(each).__name__)
def test_codebooks_and_quantizers_train_and_are_written_back(
    shared: nn.Module, resnet: Exported, tmp_path: Path
) -> None:
    graph = Graph.load(resnet.plain)
    module, inputs = TorchGraph(graph), tuple(resnet.entry.example(3).values())
    name = "3.body.0.0.weight"
    holder, leaf = module.place(name)
    parametrize.register_parametrization(holder, leaf, shared)
    before = getattr(holder, leaf).detach().clone()

    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        backward(module(*inputs))
        optimizer.step()
    module.write_back()
    graph.save(tmp_path / "shared.onnx")

    stored = torch.tensor(graph.array(name))
    assert len(stored.unique()) <= 16
    assert not torch.equal(stored, before)
    with torch.no_grad():
        assert distance(module(*inputs), onnx_outputs(tmp_path / "shared.onnx", inputs)) < NEAR


@pytest.mark.parametrize("name", ["resnet", "bert", "lstm"])
def test_autocast(name: str, export: Callable[[str], Exported]) -> None:
    module, inputs = _load(export(name))
    with torch.no_grad():
        wanted = module(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        got = module(*inputs)
    assert distance([each.float() for each in got], wanted) < AUTOCAST_NEAR
    assert distance([each.float() for each in got], wanted) > NEAR
    backward([each.float() for each in got])
    reached = [each.grad for each in module.parameters() if each.grad is not None]
    assert len(reached) == sum(each.requires_grad for each in module.parameters())
    assert all(each.dtype is torch.float32 and each.isfinite().all() for each in reached)
