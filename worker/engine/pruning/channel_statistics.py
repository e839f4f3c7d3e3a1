"""How channels of a pruned graph match those of its original on data, layer after layer. Nothing is changed here."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from worker.engine.graph import Graph
from worker.engine.session import Device
from worker.engine.tensors.channel_matching import Match, PairedMoments
from worker.engine.torch_graph import TorchGraph


@dataclass(frozen=True)
class Site:
    """A tensor, by name, whose channels on `axis` were those of the `kept` indices before the pruning, [C]."""

    tensor: str
    axis: int
    kept: torch.Tensor


class Matching:
    """Sums up over batches what scales and shifts tensors of the pruned graph onto those of the original.

    A tensor is matched, by what is known so far, before the next node reads it: every layer sees inputs that are
    right already, and one pass is enough. Each of `shrinkages` (see `PairedMoments.match`) has sums of its own.
    """

    def __init__(self, original: Graph, pruned: Graph, sites: Sequence[Site], shrinkages: Sequence[float]) -> None:
        """Raises SlimlineError where torch cannot run a graph."""
        self._original, self._pruned = TorchGraph(original), TorchGraph(pruned)
        self._sums = {shrinkage: defaultdict[str, PairedMoments](PairedMoments) for shrinkage in shrinkages}
        self._shrinkage = 0.0
        self._seen = defaultdict[str, list[torch.Tensor]](list)
        self._turns = defaultdict[str, int](int)
        for site in sites:
            self._original.observe(site.tensor, partial(self._keep, site))
            self._pruned.observe(site.tensor, partial(self._match, site))

    def to(self, device: Device) -> "Matching":
        """Run there from now on."""
        self._original.to(device)
        self._pruned.to(device)
        return self

    def run_original(self, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """The outputs of the original; nothing is summed up."""
        self._seen.clear()
        with torch.inference_mode():
            outputs: tuple[Any, ...] = self._original(*inputs)
        return outputs

    def add(self, inputs: Sequence[torch.Tensor]) -> None:
        """Take a batch."""
        self.run_original(inputs)
        with torch.inference_mode():
            for shrinkage in self._sums:
                self._shrinkage = shrinkage
                self._turns.clear()
                self._pruned(*inputs)
        self._seen.clear()

    def matches(self) -> list[Mapping[str, Match]]:
        """For each of the shrinkages, by tensor; only what would change."""
        return [
            {
                tensor: match
                for tensor, sums in by_tensor.items()
                if (match := sums.match(shrinkage)) is not None and match.is_change
            }
            for shrinkage, by_tensor in self._sums.items()
        ]

    def _keep(self, site: Site, values: torch.Tensor) -> None:
        self._seen[site.tensor].append(values.index_select(site.axis, site.kept.to(values.device)))

    def _match(self, site: Site, values: torch.Tensor) -> torch.Tensor | None:
        """A body that ran another number of times, or on another shape, tells nothing."""
        turn, references = self._turns[site.tensor], self._seen[site.tensor]
        self._turns[site.tensor] += 1
        if turn < len(references) and references[turn].shape == values.shape:
            self._sums[self._shrinkage][site.tensor].add(references[turn], values, site.axis)
        found = self._sums[self._shrinkage][site.tensor].match(self._shrinkage)
        return values if found is None else _apply(found, values, site.axis)


def _apply(match: Match, values: torch.Tensor, axis: int) -> torch.Tensor:
    shape = [1] * values.dim()
    shape[axis] = -1
    gain, shift = (each.to(values.dtype).reshape(shape) for each in (match.gain, match.shift))
    return values * gain + shift
