"""Rounds the weights of layers to codes: to nearest, or so that the layers' outputs suffer least on given inputs.

Layers late in the graph see what the rounded weights before them make. For that the graph is run a few times, each time
for the next layers in order, not once for each layer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from worker.engine.graph import Graph
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.layer_inputs import count_moments, find_moments, input_names
from worker.engine.quantization.stored_weights import StoredWeight
from worker.engine.session import Array
from worker.engine.tensors.adaround import adaround
from worker.engine.tensors.blockwise import Blocks, fit
from worker.engine.tensors.gptq import gptq

Rounding = Callable[[torch.Tensor, torch.Tensor, Blocks], torch.Tensor]
"""From a weight [R, K], E[x x^T] of the inputs of each group of rows [G, K, K] and the blocks to codes [R, K]."""
ROUNDINGS: Mapping[str, Rounding] = {"gptq": gptq, "adaround": adaround}
_MOST_WAVES = 8
_WATCHING = 0.5
"""Share of the work on a wave; the rest is rounding."""
_MOST_BYTES = 1 << 30
"""Of second moments held at a time, which is what 11585 inputs of one product have."""
_FLOAT64 = 8


@dataclass(frozen=True)
class Rounded:
    """Codes [R, K] of a weight and its blocks, on the CPU."""

    weight: StoredWeight
    codes: torch.Tensor
    blocks: Blocks
    is_learned: bool
    """Whether inputs had a say in it."""

    def restored(self) -> Array:
        """What the codes stand for, in the shape of the weight."""
        return self.weight.from_matrix(self.blocks.decode(self.codes))


def round_to_nearest(graph: Graph, weight: StoredWeight) -> Rounded:
    """Each weight by itself, in the range of least squared error."""
    matrix = weight.to_matrix(graph.array(weight.value))
    blocks = fit(matrix, weight.grid)
    return Rounded(weight, blocks.encode(matrix), blocks, is_learned=False)


def round_on_inputs(graph: Graph, weights: Sequence[StoredWeight], rounding: Rounding, run: Pass) -> list[Rounded]:
    """By `rounding`, on the inputs that `run` gives; to nearest where a weight's inputs cannot be seen or are too wide.

    Raises SlimlineError for a graph that torch cannot run.
    """
    simulated, found = graph.clone(), list[Rounded]()
    for wave in _waves(weights):
        start, length = len(found) / len(weights), len(wave) / len(weights)
        watching = replace(run, progress=_part_of(run.progress, start, length * _WATCHING))
        seen = [weight for weight in wave if input_names(weight) and _moment_bytes(weight) <= _MOST_BYTES]
        moments = find_moments(simulated, seen, watching) if seen else {}
        tell = _part_of(run.progress, start + length * _WATCHING, length * (1 - _WATCHING))
        for number, weight in enumerate(wave):
            tell(number / len(wave))
            rounded = _round(graph, weight, moments.get(weight.name), rounding)
            simulated.set_array(weight.name, rounded.restored())
            found.append(rounded)
    return found


def _round(graph: Graph, weight: StoredWeight, moments: torch.Tensor | None, rounding: Rounding) -> Rounded:
    if moments is None:
        return round_to_nearest(graph, weight)
    if any(layer.op == "Gather" for layer in weight.readers):  # every number of an embedding counts by itself too
        moments = moments + moments.diagonal(0, 1, 2).mean() * torch.eye(weight.width).to(moments)
    matrix = weight.to_matrix(graph.array(weight.value)).to(moments.device)
    importance = moments.diagonal(0, 1, 2).repeat_interleave(len(matrix) // len(moments), 0)
    blocks = fit(matrix, weight.grid, importance)
    codes = rounding(matrix, moments, blocks).cpu()
    return Rounded(weight, codes, Blocks(weight.grid, blocks.scale.cpu(), blocks.zero.cpu()), is_learned=True)


def _waves(weights: Sequence[StoredWeight]) -> Iterator[list[StoredWeight]]:
    """Neighbours in the graph, as many at a time as leave few waves and keep moments in memory.

    Those that read the same tensors, as query, key and value do, stay together where memory allows.
    """
    share, wave, held = -(-len(weights) // _MOST_WAVES), list[StoredWeight](), 0
    for weight in weights:
        needed = _moment_bytes(weight)
        is_next_of_kin = bool(wave) and input_names(weight) == input_names(wave[-1])
        if wave and (held + needed > _MOST_BYTES or (len(wave) >= share and not is_next_of_kin)):
            yield wave
            wave, held = [], 0
        wave.append(weight)
        held += needed
    if wave:
        yield wave


def _moment_bytes(weight: StoredWeight) -> int:
    """In float64; none where inputs cannot be seen."""
    return _FLOAT64 * count_moments(weight) if input_names(weight) else 0


def _part_of(progress: Callable[[float], None], start: float, length: float) -> Callable[[float], None]:
    return lambda done: progress(start + length * done)
