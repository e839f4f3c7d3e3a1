"""What each choice of bits costs and loses, as tables [U, C]: a row for each unit, a column for each option.

Nothing is chosen here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.contracts.recipe.quantize_mixed import WeightBits
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.measure.kernel_times import time_kernels
from worker.engine.quantization.allocation import Choice, Links, Numbers
from worker.engine.quantization.layer_costs import Unit, find_links, stored_bytes, unit_times
from worker.engine.quantization.pairs import quantize_graph
from worker.engine.quantization.search import SearchRun
from worker.engine.quantization.sensitivity import affordable_samples, measure_errors
from worker.engine.quantization.trials import Candidate

FLOAT: WeightBits = 32
_PROFILE_S = 2.0
_ELEMENTS_OF_A_CALL = 4096
"""Converting so many takes about as long as calling a kernel at all."""
_WORST_NOISE = 1e9
"""Stands for NaN and infinity."""
_FLOAT_TYPES = ("float", "float16", "double", "bfloat16")


@dataclass(frozen=True)
class BitOptions:
    """The `bits` that each of `units` of the float graph `source` may have, least first.

    `uniform` has a candidate for each of them but float, with these bits everywhere.
    """

    source: Graph
    units: Sequence[Unit]
    bits: Sequence[WeightBits]
    uniform: Mapping[WeightBits, Candidate]

    def graph(self, bits: WeightBits) -> Graph:
        """The one that has `bits` everywhere."""
        return self.source if bits == FLOAT else self.uniform[bits].quantized.graph

    def by_layer(self, choice: Sequence[int]) -> dict[str, WeightBits]:
        """The bits of each layer by name, for an option of each unit."""
        return {name: self.bits[option] for unit, option in zip(self.units, choice, strict=True) for name in unit}


def noise_of(candidate: Candidate) -> float:
    """Error energy of the outputs relative to their own."""
    return float(10 ** (-candidate.decibels / 10))


def find_noises(options: BitOptions, run: SearchRun) -> Numbers:
    """The noise at the outputs of each unit, quantized alone; noises add up as long as they are small.

    What the whole has beyond the sum of its layers comes of operators between them, and is spread over them evenly.
    """
    found = np.zeros((len(options.units), len(options.bits)))
    for number, (bits, candidate) in enumerate(options.uniform.items()):
        part = run.part(number / len(options.uniform), (number + 1) / len(options.uniform))
        found[:, options.bits.index(bits)] = _noises_alone(options, candidate, part)
    found = np.nan_to_num(found, nan=_WORST_NOISE, posinf=_WORST_NOISE)
    widest = max(options.uniform)
    between = noise_of(options.uniform[widest]) - found[:, options.bits.index(widest)].sum()
    is_integer = np.array([bits != FLOAT for bits in options.bits])
    spread: Numbers = is_integer * float(np.clip(between, 0, _WORST_NOISE)) / len(options.units)
    return found + spread


def _noises_alone(options: BitOptions, candidate: Candidate, run: SearchRun) -> list[float]:
    layers = candidate.layers()
    limit = affordable_samples(options.source, len(layers) * len(options.uniform))
    passing = run.watching(limit, 0, 1, "measuring each layer alone")
    errors = measure_errors(options.source, list(layers.values()), passing)
    outputs = sum(spec.dtype in _FLOAT_TYPES for spec in options.source.outputs)
    alone = {name: errors[each.layer.name].final_noise / max(outputs, 1) for name, each in layers.items()}
    # A shared weight errs in all its layers, whichever of them is measured.
    return [max(alone[name] for name in unit) for unit in options.units]


def find_sizes(options: BitOptions) -> tuple[Numbers, float]:
    """Bytes of each unit, and those of all other weights beside integers."""
    graphs = [options.graph(bits) for bits in options.bits]
    sizes = np.array([[stored_bytes(graph, unit) for graph in graphs] for unit in options.units], np.float64)
    widest = max(options.uniform)
    total = size_of_weights(options.graph(widest).model)
    return sizes, total - float(sizes[:, options.bits.index(widest)].sum())


@dataclass(frozen=True)
class TimeTable:
    """Time of `units` [U, C], of `links` between them, and of the `rest`, relative to the original's."""

    units: Numbers
    links: Links
    rest: float


def find_times(options: BitOptions, run: SearchRun, clock: Callable[[Graph], float]) -> TimeTable:
    """Measured, so they differ from run to run. `clock` times a whole graph.

    A profile tells how the layers share the time of a graph, the clock how long that is. What integers everywhere
    change outside of the layers is spread over them evenly. What conversions cost is measured on a graph in which every
    other unit is in float.
    """
    run.progress(0, "timing kernels")
    graphs = [options.source, *(options.graph(bits) for bits in options.bits)]
    profiles = time_kernels(graphs, run.samples.first(), _PROFILE_S)
    floats, *others = (
        unit_times(graph, options.units, kernels) for graph, kernels in zip(graphs, profiles, strict=True)
    )
    total, whole = sum(floats.units) + floats.rest, clock(options.source)
    rest = whole * floats.rest / total
    columns = [whole * np.array(each.units) / total for each in others]
    wholes = [clock(graph) for graph in graphs[1:]]
    units = np.stack(
        [column + (all_ - rest - column.sum()) / len(column) for column, all_ in zip(columns, wholes, strict=True)],
        axis=1,
    )
    mixed = _alternating(options)
    more = clock(_with_floats(options, mixed)) - rest - units[np.arange(len(units)), mixed].sum()
    return TimeTable(units, _links(options, mixed, max(more, 0.0)), rest)


def _alternating(options: BitOptions) -> Choice:
    """Every other unit in float, if that is an option."""
    widest = options.bits.index(max(options.uniform))
    choice = np.full(len(options.units), widest)
    choice[1::2] = options.bits.index(FLOAT) if FLOAT in options.bits else widest
    return choice


def _with_floats(options: BitOptions, choice: Choice) -> Graph:
    """Units that are not to be in float have the most bits."""
    plan = options.uniform[max(options.uniform)].plan
    layers = {name for name, bits in options.by_layer(choice.tolist()).items() if bits != FLOAT}
    return quantize_graph(plan.source, layers, plan.way, plan.ranges, plan.scheme).graph


def _links(options: BitOptions, choice: Choice, more: float) -> Links:
    """Links that together cost `more` where `choice` cuts them, each by the size of what is converted."""
    found = find_links(options.source, options.units)
    if not found:
        return Links()
    is_apart = np.array([bits == FLOAT for bits in options.bits])
    sizes = np.array(list(found.values()), np.float64) + _ELEMENTS_OF_A_CALL
    links = Links(np.array(list(found)), sizes, is_apart)
    return replace(links, costs=sizes * more / max(links.cost(choice), 1.0))
