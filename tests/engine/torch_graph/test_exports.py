"""Every model of the zoo, exported by torch, against ONNX Runtime and against the module it was exported from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import LEGACY, zoo
from benchmarks.zoo.entry import Entry, Exported, outputs_of
from benchmarks.zoo.judge import backward, distance, loss_of, onnx_outputs
from worker.engine import Graph, TorchGraph

NEAR = 1e-5
GRADIENT_NEAR = 5e-5
STEPS = 5
UNSEEN_BATCHES = (1, 3, 5)
NEWEST_OPSET = 23
"""The newest that the exporter of torch writes."""
PARTNERED = {"recurrent": 0.15, "folded": 0.03, "kept": 0.9}
"""Share of native parameters that are in an optimized export unchanged or transposed: gates are put in another order,
convolutions take in their BatchNorm."""


def _load(path: Path) -> TorchGraph:
    return TorchGraph(Graph.load(path))


def _unseen(entry: Entry) -> list[dict[str, Tensor]]:
    examples = [entry.example(batch) for batch in UNSEEN_BATCHES]
    return examples + [entry.example(3, extent) for extent in entry.other_extents]


def _differentiable(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each.clone().requires_grad_(each.is_floating_point()) for name, each in inputs.items()}


def _input_gradients(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    return [each.grad for each in inputs.values() if each.grad is not None]


def _gradients(module: nn.Module) -> dict[str, Tensor]:
    """Of every parameter the loss reaches, under each of its names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: weight.grad for name, weight in named if weight.grad is not None}


def _far(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    """Gradients that differ. One that is zero but for rounding is measured by the largest of all."""
    floor = 1e-3 * max(float(each.abs().max()) for each in wanted.values())
    errors = {
        name: float((got[name] - each).abs().max()) / max(float(each.abs().max()), floor)
        for name, each in wanted.items()
        if name in got
    }
    return {name: error for name, error in errors.items() if error > GRADIENT_NEAR}


def test_outputs_are_those_of_onnx_runtime(exported: Exported) -> None:
    for path in (exported.plain, exported.optimized):
        module = _load(path)
        for inputs in _unseen(exported.entry):
            with torch.no_grad():
                got = module(*inputs.values())
            assert distance(got, onnx_outputs(path, tuple(inputs.values()))) < NEAR


def test_gradients_are_those_of_the_native_module(exported: Exported) -> None:
    native, module = exported.entry.build(), _load(exported.plain)
    mine, theirs = (_differentiable(exported.entry.example(3)) for _ in range(2))

    backward(module(*mine.values()))
    backward(outputs_of(native, theirs))

    got, wanted = _gradients(module), _gradients(native)
    tied = {name for name, weight in native.named_parameters(remove_duplicate=False) if _is_tied(native, weight, got)}
    assert not wanted.keys() - got.keys() - tied, "parameters of the native module that got no gradient here"
    assert not _far(got, wanted)
    assert distance(_input_gradients(mine), _input_gradients(theirs)) < GRADIENT_NEAR


def _is_tied(native: nn.Module, weight: Tensor, got: Mapping[str, Tensor]) -> bool:
    """Whether the graph has `weight`, under another of its names."""
    return any(name in got for name, each in native.named_parameters(remove_duplicate=False) if each is weight)


def test_gradients_reach_through_the_exporters_optimizer(exported: Exported) -> None:
    """It renames, transposes and unties weights: partners are those of equal value."""
    native, module = exported.entry.build(), _load(exported.optimized)
    mine, theirs = (_differentiable(exported.entry.example(3)) for _ in range(2))

    backward(module(*mine.values()))
    backward(outputs_of(native, theirs))

    weights = [weight for weight in module.parameters() if weight.grad is not None]
    got = {
        name: grad for name, each in native.named_parameters() if (grad := _partner_gradient(each, weights)) is not None
    }
    wanted = {name: each.grad for name, each in native.named_parameters() if each.grad is not None}
    lonely = wanted.keys() - got.keys()
    assert len(got) >= PARTNERED[_kind(native)] * len(wanted), f"no partner: {sorted(lonely)}"
    assert not _far(got, wanted)
    assert distance(_input_gradients(mine), _input_gradients(theirs)) < GRADIENT_NEAR


def _kind(native: nn.Module) -> str:
    if any(isinstance(layer, nn.RNNBase) for layer in native.modules()):
        return "recurrent"
    return "folded" if any(isinstance(layer, nn.BatchNorm2d) for layer in native.modules()) else "kept"


def _partner_gradient(native: Tensor, weights: list[nn.Parameter]) -> Tensor | None:
    """The sum over the weights that `native` became, each in its form."""
    parts = []
    for weight in weights:
        assert weight.grad is not None
        if weight.numel() == native.numel() and torch.equal(weight.flatten(), native.flatten()):
            parts.append(weight.grad.reshape(native.shape))
        elif weight.dim() == native.dim() == 2 and weight.shape == native.t().shape and torch.equal(weight, native.t()):
            parts.append(weight.grad.t())
    return torch.stack(parts).sum(0) if parts else None


def test_five_steps_have_the_losses_of_the_native_module(exported: Exported) -> None:
    native, module = exported.entry.build(), _load(exported.plain)
    inputs = exported.entry.example(4)
    trained = {name for name, each in native.named_parameters(remove_duplicate=False) if each.requires_grad}
    for name, weight in module.named_parameters():
        # Buffers and frozen parameters look like any weight in a graph.
        weight.requires_grad_(weight.requires_grad and name in trained)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.02, momentum=0.9) for each in (module, native)]

    for _ in range(STEPS):
        losses = []
        for optimizer, outputs in zip(optimizers, (module(*inputs.values()), outputs_of(native, inputs)), strict=True):
            losses.append(_step(optimizer, outputs))
        assert losses[0] == pytest.approx(losses[1], rel=NEAR)


def _step(optimizer: torch.optim.Optimizer, outputs: Sequence[Tensor]) -> float:
    """One step downhill; gives the loss before it."""
    optimizer.zero_grad()
    loss = backward(outputs)
    optimizer.step()
    return loss


def test_what_was_trained_is_written_back(exported: Exported, tmp_path: Path) -> None:
    graph = Graph.load(exported.optimized)
    module, inputs = TorchGraph(graph), exported.entry.example(4)
    before = loss_of(module(*inputs.values())).item()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(STEPS):
        _step(optimizer, module(*inputs.values()))

    module.write_back()
    graph.save(tmp_path / "trained.onnx")

    for unseen in _unseen(exported.entry):
        with torch.no_grad():
            got = module(*unseen.values())
        assert distance(got, onnx_outputs(tmp_path / "trained.onnx", tuple(unseen.values()))) < NEAR
    assert loss_of(module(*inputs.values())).item() < before


@pytest.mark.parametrize("name", LEGACY)
def test_exports_of_the_exporter_before(name: str, tmp_path: Path) -> None:
    entry = zoo("tiny")[name]
    entry.export_legacy(tmp_path / "legacy.onnx")
    native, module = entry.build(), _load(tmp_path / "legacy.onnx")
    for inputs in _unseen(entry):
        mine, theirs = _differentiable(inputs), _differentiable(inputs)
        got = module(*mine.values())
        assert distance(got, onnx_outputs(tmp_path / "legacy.onnx", tuple(inputs.values()))) < NEAR
        backward(got)
        backward(outputs_of(native, theirs))
        assert distance(_input_gradients(mine), _input_gradients(theirs)) < GRADIENT_NEAR


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_operators_of_attention_train_as_the_native_module(name: str, tmp_path: Path) -> None:
    """From opset 23 on, exports hold Attention, RotaryEmbedding and RMSNormalization as they are."""
    entry = zoo("tiny")[name]
    entry.program(opset=NEWEST_OPSET, is_optimized=False).save(tmp_path / "attention.onnx")
    native, module = entry.build(), _load(tmp_path / "attention.onnx")
    assert any(node.op_type == "Attention" for node in module.graph.nodes())
    for inputs in _unseen(entry):
        got, wanted = module(*inputs.values()), outputs_of(native, inputs)
        assert distance(got, wanted) < NEAR
        module.zero_grad()
        native.zero_grad()
        backward(got)
        backward(wanted)
        assert not _far(_gradients(module), _gradients(native))
