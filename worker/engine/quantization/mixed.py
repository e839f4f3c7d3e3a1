"""Gives each layer of a quantized graph bits of its own under a budget. How a budget is kept is in `budget`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from app.contracts.failure import SlimlineError
from app.contracts.recipe.quantize_mixed import QuantizeMixed, WeightBits
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.measure.race import Race
from worker.engine.quantization.allocation import Choice, Numbers, Table
from worker.engine.quantization.bit_options import (
    FLOAT,
    BitOptions,
    find_noises,
    find_sizes,
    find_times,
    noise_of,
)
from worker.engine.quantization.budget import MOST_MEASURED, Goal, pursue
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.layer_costs import find_units
from worker.engine.quantization.search import SearchRun
from worker.engine.quantization.trials import Candidate, Plan, Trials

_CORRECTING_SAMPLES = 64
_NO_GAIN = "QUANTIZATION_WITHOUT_EFFECT"
_UNIFORM, _ALONE, _TIMED = 0.1, 0.6, 0.7
"""Shares of the work after which the same bits everywhere, layers alone and kernels are measured."""


@dataclass(frozen=True)
class Outcome:
    """What came of a choice: an option for each unit, or the `bits` of layers by name.

    `size`: bytes of all weights; `noise`: error energy relative to the outputs'; `latency`: relative to the original's,
    0 where nobody asked.
    """

    choice: tuple[int, ...]
    bits: Mapping[str, WeightBits]
    candidate: Candidate
    size: int
    noise: float
    latency: float


@dataclass(frozen=True)
class Found:
    """The best outcome within the budget, or what comes nearest to it, with the noise that was predicted."""

    outcome: Outcome
    is_within: bool
    predicted_noise: float


class MixedSearch:
    """Chooses bits for the layers of `best`, a candidate that has 8 of them everywhere, made from `graph`."""

    def __init__(self, graph: Graph, best: Candidate, trials: Trials, step: QuantizeMixed, run: SearchRun) -> None:
        self._graph, self._best, self._trials, self._step, self._run = graph, best, trials, step, run
        self._race = Race(graph, run.samples.first()) if step.budget.latency_ratio is not None else None
        self._searches_weights = best.plan.scheme.searches_weights
        self._tried = 0
        self.notes: list[str] = []

    def run(self) -> Found:
        """Raises SlimlineError BUDGET_OUT_OF_REACH where not even the least bits can be written."""
        options = self._find_options()
        noise = find_noises(options, self._run.part(_UNIFORM, _ALONE))
        goal = self._goal(options, noise)
        known = [
            self._outcome(options, [options.bits.index(bits)] * len(options.units), each)
            for bits, each in options.uniform.items()
        ]
        outcome = pursue(
            goal, self._step.solver, lambda choice: self._try(options, _busy(choice, options, noise)), known
        )
        predicted = noise[np.arange(len(noise)), list(outcome.choice)].sum()
        return Found(outcome, goal.is_met(outcome), float(predicted))

    def _find_options(self) -> BitOptions:
        source, placed = self._best.plan.source, self._best.quantized.weights
        units = find_units(layer for layer in source.layers() if layer.node.name in placed)
        uniform: dict[WeightBits, Candidate] = {8: self._best} if 8 in self._step.choices else {}  # noqa: PLR2004 - bits
        if 4 in self._step.choices:  # noqa: PLR2004 - bits
            self._run.progress(0, "trying 4 bits everywhere")
            uniform = self._with_small(uniform)
        bits = [each for each in sorted(self._step.choices) if each == FLOAT or each in uniform]
        return BitOptions(source, units, bits, uniform)

    def _with_small(self, others: dict[WeightBits, Candidate]) -> dict[WeightBits, Candidate]:
        """`others` and a candidate with 4 bits everywhere, where that can be written."""
        names = self._best.quantized.weights
        plans = {str(searches): self._plan(dict.fromkeys(names, 4), searches=searches) for searches in (False, True)}
        try:
            tried = self._trials.measure_all(plans)
        except SlimlineError as error:
            told = f"weights of 4 bits cannot be written: {error.failure.message}"
            if not others:
                raise SlimlineError("BUDGET_OUT_OF_REACH", told, hint="Allow 8 bits in `choices`.") from error
            self.notes.append(told)
            return others
        best = max((self._correct_biases(each) for each in tried.values()), key=lambda each: each.decibels)
        self._searches_weights = best.plan.scheme.searches_weights
        return {4: best, **others}

    def _goal(self, options: BitOptions, noise: Numbers) -> Goal[Outcome]:
        budget = self._step.budget
        if budget.latency_ratio is not None and self._race is not None:
            times = find_times(options, self._run.part(_ALONE, _TIMED), self._race.ratio)
            table = Table(noise, times.units, times.links)
            return Goal(budget.latency_ratio, times.rest, table, lambda each: each.latency, _noise)
        sizes, rest = find_sizes(options)
        if budget.sqnr_db is not None:
            return Goal(10 ** (-budget.sqnr_db / 10), 0, Table(sizes, noise), _noise, _size)
        limit = budget.size_bytes or (budget.size_ratio or 1) * size_of_weights(self._graph.model)
        return Goal(limit, rest, Table(noise, sizes), _size, _noise)

    def _plan(self, bits: Mapping[str, WeightBits], *, searches: bool) -> Plan:
        plan = self._best.plan
        scheme = replace(plan.scheme, weight_bits=bits, searches_weights=searches)
        return replace(plan, layers=frozenset(name for name in bits if bits[name] != FLOAT), scheme=scheme)

    def _try(self, options: BitOptions, choice: Choice) -> Outcome | None:
        """None where so little is quantized that no byte is saved."""
        self._run.progress(_TIMED + (1 - _TIMED) * self._tried / MOST_MEASURED, "measuring choices of bits")
        self._tried += 1
        try:
            plan = self._plan(options.by_layer(choice.tolist()), searches=self._searches_weights)
            candidate = self._trials.measure(plan)
        except SlimlineError as error:
            if error.failure.code != _NO_GAIN:
                raise
            return None
        return self._outcome(options, choice.tolist(), self._correct_biases(candidate))

    def _correct_biases(self, candidate: Candidate) -> Candidate:
        """With biases that suit its bits, where that is better."""
        run = Pass(self._run.samples, _CORRECTING_SAMPLES, self._run.device)
        try:
            corrected = self._trials.measure(candidate.with_biases_corrected(run))
        except SlimlineError as error:
            if error.failure.code != _NO_GAIN:
                raise
            return candidate  # biases where there were none take what the weights saved
        return max(candidate, corrected, key=lambda each: each.decibels)

    def _outcome(self, options: BitOptions, choice: list[int], candidate: Candidate) -> Outcome:
        graph = candidate.quantized.graph
        latency = self._race.ratio(graph) if self._race else 0.0
        size, noise = size_of_weights(graph.model), noise_of(candidate)
        return Outcome(tuple(choice), options.by_layer(choice), candidate, size, noise, latency)


def _busy(choice: Choice, options: BitOptions, noise: Numbers) -> Choice:
    """`choice`, or where that leaves everything in float, the one that quantizes the unit with the least noise."""
    is_float = np.array([bits == FLOAT for bits in options.bits])
    if not is_float[choice].all():
        return choice
    unit, option = np.unravel_index(np.where(is_float, np.inf, noise).argmin(), noise.shape)
    busy = choice.copy()
    busy[unit] = option
    return busy


def _size(outcome: Outcome) -> float:
    return outcome.size


def _noise(outcome: Outcome) -> float:
    return outcome.noise
