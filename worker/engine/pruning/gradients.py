"""Taylor scores: by how much outputs would move, to first order, if a unit went. Which go is decided elsewhere."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.failure import SlimlineError
from worker.engine.data import Batch
from worker.engine.graph import Graph
from worker.engine.graph.channels import Member
from worker.engine.quantization.calibration import Pass, to_tensors
from worker.engine.torch_graph import TorchGraph

_BATCH = 8
"""Samples of one backward pass: fewer tell more of the same samples and take longer."""


def unit_taylor_scores(
    graph: Graph, members: Sequence[Member], units: int, run: Pass, seed: int = 0
) -> NDArray[np.float64]:
    """E[(sum of w dL/dw over all slices of a unit)^2] of each unit, [`units`] (Molchanov et al. 2019, equation 8).

    L is a random sum with signs of all output elements, by which the expectation becomes that of the squared movement
    of the outputs, each relative to its own energy: the Gauss-Newton form. Gradients of a loss with labels nearly
    vanish where training has ended, and rank units less well. A unit that no gradient reaches, as in a branch that
    never ran, has 0. Raises SlimlineError NOTHING_TO_SCORE where that is so for all, and for a graph that torch cannot
    run.
    """
    module = TorchGraph(graph).to(run.device)
    slices = _Slices(module, members, units)
    generator = torch.Generator().manual_seed(seed)
    totals = torch.zeros(units, dtype=torch.float64, device=run.device)
    samples, done = min(run.limit, len(run.samples)), 0
    for batch in run.samples.batches(_BATCH, limit=run.limit):
        outputs = module(*to_tensors(graph, batch.feed, run.device))
        totals += slices.products(_random_sum(outputs, batch, generator)).square()
        done += batch.count
        run.progress(min(1.0, done / samples))
    return (totals / max(1, done)).cpu().numpy()


class _Slices:
    """The slices of parameters that units are made of."""

    def __init__(self, module: TorchGraph, members: Sequence[Member], units: int) -> None:
        trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self._units = units
        self._members = [member for member in members if member.constant in trained]
        names = dict.fromkeys(member.constant for member in self._members)
        self._weights = {name: trained[name] for name in names}
        for name, weight in trained.items():
            weight.requires_grad_(name in names)
        if not names:
            raise _unreached()

    def products(self, loss: torch.Tensor) -> torch.Tensor:
        """The sum of w dL/dw over the slices of each unit, [units] in float64."""
        if not loss.requires_grad:
            raise _unreached()
        gradients = torch.autograd.grad(loss, list(self._weights.values()), allow_unused=True)
        reached = {
            name: weight.detach().double() * gradient.double()
            for (name, weight), gradient in zip(self._weights.items(), gradients, strict=True)
            if gradient is not None
        }
        totals = torch.zeros(self._units, dtype=torch.float64, device=loss.device)
        for member in self._members:
            if member.constant in reached:
                product = reached[member.constant].movedim(member.axis, 0)
                of_index = product.reshape(len(product), -1).sum(1)
                unit_of_index = torch.from_numpy(member.units).to(loss.device)
                is_unit = unit_of_index >= 0
                totals.index_add_(0, unit_of_index[is_unit], of_index[is_unit])
        return totals


def _random_sum(outputs: Sequence[Any], batch: Batch, generator: torch.Generator) -> torch.Tensor:
    """The sum of all finite output elements with random signs, each output over its root mean energy for a sample.

    What fills up a fixed batch does not count.
    """
    is_filled = any(array.ndim and len(array) > batch.count for array in batch.feed.values())
    total = torch.zeros(())
    for output in outputs:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            continue
        values = output[: batch.count] if is_filled and output.dim() else output
        finite = values[values.isfinite()].float()
        energy = finite.detach().double().square().sum() / batch.count
        if energy > 0:
            signs = torch.randint(0, 2, finite.shape, generator=generator).to(finite) * 2 - 1
            total = total.to(finite.device) + (finite * signs).sum() / energy.sqrt().float()
    return total


def _unreached() -> SlimlineError:
    return SlimlineError(
        "NOTHING_TO_SCORE",
        "no gradient of the outputs reaches any of the channels: nothing tells which of them matter",
        hint="Use a criterion that reads the weights, such as l2, or leave these layers out.",
    )
