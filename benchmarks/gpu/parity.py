"""TorchGraph on the CPU and on the GPU: outputs and gradients of every model, in full single precision."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.comparison.goals import Goal
from benchmarks.gpu.prepared import Subject
from worker.engine import Graph, TorchGraph

MOST_OUTPUT, MOST_GRADIENT = 1e-4, 1e-3
_SMALL = 1e-3
"""Gradients this much smaller than the largest of all are told from nothing only as far as that one is."""


@dataclass(frozen=True)
class Parity:
    """Largest differences, over the largest number of the same tensor. `gradient`: of the worst weight, `where`."""

    name: str
    output: float
    gradient: float
    where: str


@dataclass(frozen=True)
class _Pass:
    outputs: Sequence[Tensor]
    gradients: dict[str, Tensor]


def measure_parity(subject: Subject, device: str) -> Parity:
    """The same passes on both, brought back to the CPU."""
    graph, inputs = Graph.load(subject.model), subject.load_inputs()
    with full_precision():
        here, there = _run(graph, inputs, "cpu"), _run(graph, inputs, device)
    output = max(_distance(*pair, 0.0) for pair in zip(there.outputs, here.outputs, strict=True))
    floor = _SMALL * max((float(each.abs().max()) for each in here.gradients.values()), default=0.0)
    off = {name: _distance(there.gradients[name], wanted, floor) for name, wanted in here.gradients.items()}
    worst = max(off, key=off.__getitem__, default="")
    return Parity(subject.name, output, off.get(worst, 0.0), worst)


def judge_parity(found: Parity) -> list[Goal]:
    """Within what sums in another order may give."""
    return [
        Goal(found.name, "outputs off", found.output, "at most", MOST_OUTPUT, ""),
        Goal(found.name, "gradients off", found.gradient, "at most", MOST_GRADIENT, "", found.where),
    ]


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """No TF32, which has 10 bits of mantissa."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _run(graph: Graph, inputs: Sequence[Tensor], device: str) -> _Pass:
    """Outputs as when it is used; gradients as when it learns, since cuDNN's recurrent layers have none otherwise."""
    module, moved = TorchGraph(graph).to(device), [each.to(device) for each in inputs]
    with torch.no_grad():
        outputs = [each.cpu() for each in module(*moved) if each.is_floating_point()]
    parts = [each.float().square().mean() for each in module.train()(*moved) if each.is_floating_point()]
    torch.autograd.backward(torch.stack(parts).sum())
    gradients = {
        name: parameter.grad.cpu() for name, parameter in module.named_parameters() if parameter.grad is not None
    }
    return _Pass(outputs, gradients)


def _distance(got: Tensor, wanted: Tensor, floor: float) -> float:
    if got.shape != wanted.shape:
        return float("inf")
    if not wanted.numel():
        return 0.0
    largest = max(float(wanted.double().abs().max()), floor, 1e-30)
    return float((got.double() - wanted.double()).abs().max()) / largest
